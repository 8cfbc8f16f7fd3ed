//! Messages of the channel as they come over the socket.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use crate::frontend::message::Header;

/// Reads one message with its file descriptors; `None` at the end of the connection.
pub(crate) fn receive(socket: &UnixStream) -> Option<(Header, Vec<u8>, Vec<OwnedFd>)> {
    let mut fds = Vec::new();
    let mut head = [0; Header::SIZE];
    read_exact(socket.as_fd(), &mut head, &mut fds)?;
    let header = Header::from_bytes(head);
    let mut payload = vec![0; header.size as usize & 0xffff];
    read_exact(socket.as_fd(), &mut payload, &mut fds)?;
    Some((header, payload, fds))
}

fn read_exact(socket: BorrowedFd<'_>, mut out: &mut [u8], fds: &mut Vec<OwnedFd>) -> Option<()> {
    while !out.is_empty() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut part = [IoSliceMut::new(out)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        match rustix::net::recvmsg(socket, &mut part, &mut control, flags) {
            Ok(got) if got.bytes == 0 => return None,
            Ok(got) => out = &mut out[got.bytes..],
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return None,
        }
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
    }
    Some(())
}
