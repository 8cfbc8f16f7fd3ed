//! Stands between the front-end's socket and the vhost-user-backend crate.
//!
//! The crate (0.24) takes only sockets that it accepts itself, and wraps the display socket of
//! `VHOST_USER_GPU_SET_SOCKET` in a type that waits for replies without end. We are handed
//! connected sockets (`--fd`), and a display that does not answer must not cost us a thread. It
//! also keeps to itself which protocol features were accepted, and wraps the socket for requests to
//! the front-end in the same way as the display's. So the crate is given a private connection of
//! ours, messages are passed on, memory tables sorted as it wants them, and what they say is
//! [`Seen`] on the way. Nothing else knows of this; the module goes when the crate can take a
//! connected stream and hand these out.

use std::env;
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread::{self, JoinHandle};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, recvmsg, sendmsg, shutdown,
};
use tempfile::TempDir;

/// Header of a vhost-user message: request, flags and payload size, 32 bits each.
const HEADER: usize = 12;

/// The longest payload that vhost-user messages of the crate have (its `MAX_MSG_SIZE`).
const MAX_PAYLOAD: usize = 0x1000;

/// The most descriptors that one message carries in the crate (`MAX_ATTACHED_FD_ENTRIES`).
const MAX_FDS: usize = 32;

/// `VHOST_USER_SET_MEM_TABLE` (QEMU docs/interop/vhost-user.rst, "Front-end message types"): a count,
/// padding, and regions ("Multiple memory regions description").
const SET_MEM_TABLE: u32 = 5;

/// Where the regions of `SET_MEM_TABLE` start in a message.
const REGIONS: usize = HEADER + 8;

/// Bytes of a region: guest address, size, user address and file offset, 64 bits each.
const REGION: usize = 32;

/// `VHOST_USER_SET_PROTOCOL_FEATURES`.
const SET_PROTOCOL_FEATURES: u32 = 16;

/// `VHOST_USER_SET_BACKEND_REQ_FD`.
const SET_BACKEND_REQ_FD: u32 = 21;

/// `VHOST_USER_GPU_SET_SOCKET`.
const GPU_SET_SOCKET: u32 = 33;

/// What passed by, before the crate has got it. Sockets are copies.
#[derive(Debug)]
pub(super) enum Seen {
    /// The socket on which pictures are sent.
    DisplaySocket(UnixStream),
    /// The protocol features that the front-end accepts.
    ProtocolFeatures(u64),
    /// The socket on which requests are made to the front-end.
    BackendChannel(UnixStream),
}

impl Seen {
    /// # Errors
    /// No descriptor to be had for the copy of a socket.
    fn new(request: u32, payload: &[u8], fds: &[OwnedFd]) -> io::Result<Option<Self>> {
        Ok(match (request, payload, fds) {
            (SET_PROTOCOL_FEATURES, payload, _) => payload
                .try_into()
                .ok()
                .map(|bytes| Self::ProtocolFeatures(u64::from_ne_bytes(bytes))),
            (SET_BACKEND_REQ_FD, _, [fd]) => Some(Self::BackendChannel(fd.try_clone()?.into())),
            (GPU_SET_SOCKET, _, [fd]) => Some(Self::DisplaySocket(fd.try_clone()?.into())),
            _ => None,
        })
    }
}

/// The two threads that pass messages on.
pub(super) struct Tap {
    front_end: UnixStream,
    threads: [Option<JoinHandle<()>>; 2],
}

impl Tap {
    /// Connects `front_end` to a listener that a vhost-user back-end is to accept from once.
    /// `seen` is told of what passes by, before the back-end gets it.
    ///
    /// # Errors
    /// If the private socket cannot be made (no writable directory for temporary files) or no
    /// thread started.
    pub(super) fn new(
        front_end: UnixStream,
        seen: impl Fn(Seen) + Send + 'static,
    ) -> io::Result<(Self, UnixListener)> {
        let directory = private_directory()?;
        let path = directory.path().join("vhost-user");
        let listener = UnixListener::bind(&path)?;
        let back_end = UnixStream::connect(&path)?;

        let (from, to) = (front_end.try_clone()?, back_end.try_clone()?);
        let requests = thread::Builder::new()
            .name("tap requests".into())
            .spawn(move || {
                if let Err(error) = pass_requests(&from, &to, &seen) {
                    log::warn!("the front-end's connection is closed: {error}");
                }
                close(&from);
                close(&to);
            })?;
        let (mut from, mut to) = (back_end, front_end.try_clone()?);
        let replies = thread::Builder::new()
            .name("tap replies".into())
            .spawn(move || {
                // Replies carry no descriptors: none of the features that would need it is offered.
                if let Err(error) = io::copy(&mut from, &mut to) {
                    log::debug!("cannot pass a reply to the front-end: {error}");
                }
                close(&from);
                close(&to);
            })?;
        Ok((
            Self {
                front_end,
                threads: [Some(requests), Some(replies)],
            },
            listener,
        ))
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        close(&self.front_end);
        for thread in self.threads.iter_mut().filter_map(Option::take) {
            if thread.join().is_err() {
                log::error!("a thread that passed messages on has failed: a bug of nosnoop-gpu");
            }
        }
    }
}

/// A directory that nobody else can enter, until it is dropped: an abstract socket name could be
/// connected to by any process of this network namespace.
fn private_directory() -> io::Result<TempDir> {
    let make = |place: &Path| {
        let mut builder = tempfile::Builder::new();
        builder.prefix("nosnoop-gpu-").tempdir_in(place)
    };
    // A sandbox may leave only some of these writable.
    let others = ["/run", "/dev/shm", "."].map(Path::new);
    make(&env::temp_dir()).or_else(|error| {
        let made = others.into_iter().find_map(|place| make(place).ok());
        made.ok_or(error)
    })
}

/// Ends both directions, which also ends the waits of whoever reads it.
pub(super) fn close(socket: &UnixStream) {
    // A socket that is already closed is what was wanted.
    let _ = shutdown(socket, Shutdown::Both);
}

fn pass_requests(from: &UnixStream, to: &UnixStream, seen: &impl Fn(Seen)) -> io::Result<()> {
    let mut message = Vec::with_capacity(HEADER.saturating_add(MAX_PAYLOAD));
    loop {
        message.clear();
        message.resize(HEADER, 0);
        let mut fds = receive_header(from, &mut message)?;
        let Some((request, payload)) = parse_header(&message) else {
            return Ok(());
        };
        if payload > MAX_PAYLOAD {
            return Err(io::Error::other(format!(
                "it sent a message of {payload} bytes, {MAX_PAYLOAD} are the most"
            )));
        }
        message.resize(HEADER.saturating_add(payload), 0);
        let body = message.get_mut(HEADER..).unwrap_or_default();
        (&mut &*from).read_exact(body)?;
        if let Some(what) = Seen::new(request, body, &fds)? {
            seen(what);
        }
        if request == SET_MEM_TABLE {
            sort_regions(&mut message, &mut fds);
        }
        send(to, &message, &fds)?;
    }
}

/// Puts the regions of a memory table, and their descriptors with them, in the order of their guest
/// addresses: the crate refuses any other, the protocol does not ask for one. A table whose
/// descriptors do not match its regions stays as it is, to be refused.
fn sort_regions(message: &mut [u8], fds: &mut Vec<OwnedFd>) {
    let Some((regions, [])) = message
        .get_mut(REGIONS..)
        .map(<[u8]>::as_chunks_mut::<REGION>)
    else {
        return;
    };
    if regions.len() != fds.len() {
        return;
    }
    let address = |region: &[u8; REGION]| region.first_chunk().copied().map(u64::from_ne_bytes);
    let mut pairs: Vec<_> = regions.iter().copied().zip(fds.drain(..)).collect();
    pairs.sort_by_key(|(region, _)| address(region));
    for (place, (region, fd)) in regions.iter_mut().zip(pairs) {
        *place = region;
        fds.push(fd);
    }
}

/// Fills `header` and returns the descriptors that came with it. An orderly end of the connection
/// leaves the header's bytes empty.
fn receive_header(from: &UnixStream, header: &mut Vec<u8>) -> io::Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut fds = Vec::new();
    let mut filled = 0;
    while filled < header.len() {
        let rest = header.get_mut(filled..).unwrap_or_default();
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = recvmsg(from, &mut [IoSliceMut::new(rest)], &mut ancillary, flags);
        let bytes = match received {
            Ok(message) => message.bytes,
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if bytes == 0 {
            header.clear();
        }
        filled = filled.saturating_add(bytes);
    }
    Ok(fds)
}

/// Request and payload size; `None` for the empty header of an ended connection.
fn parse_header(header: &[u8]) -> Option<(u32, usize)> {
    let word = |at: usize| {
        let bytes = header.get(at..at.checked_add(4)?)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    };
    Some((word(0)?, usize::try_from(word(8)?).ok()?))
}

fn send(to: &UnixStream, message: &[u8], fds: &[OwnedFd]) -> io::Result<()> {
    let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !borrowed.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&borrowed)) {
        return Err(io::Error::other(
            "it sent too many file descriptors in one message",
        ));
    }
    let mut rest = message;
    while !rest.is_empty() {
        let sent = sendmsg(
            to,
            &[IoSlice::new(rest)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        );
        match sent {
            Ok(bytes) => rest = rest.get(bytes..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        // The descriptors went with the first byte.
        ancillary.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    fn message(request: u32, payload: &[u8]) -> Vec<u8> {
        let size = u32::try_from(payload.len()).unwrap();
        let header = [request, 1, size].map(u32::to_ne_bytes).concat();
        [header.as_slice(), payload].concat()
    }

    #[test]
    fn what_matters_is_seen_and_everything_is_passed_on() {
        let (mut peer, front_end) = UnixStream::pair().unwrap();
        let (report, reports) = channel();
        let (tap, listener) = Tap::new(front_end, move |seen| report.send(seen).unwrap()).unwrap();
        let (back_end, _) = listener.accept().unwrap();

        let (ours, theirs) = UnixStream::pair().unwrap();
        let fds = [OwnedFd::from(theirs)];
        let features = 0x40_0028_u64.to_ne_bytes();
        let messages = [
            (message(1, &[]), &[][..]),
            (message(SET_PROTOCOL_FEATURES, &features), &[]),
            // Too short to be sensible: that is for the crate to say.
            (message(SET_PROTOCOL_FEATURES, &[1, 2]), &[]),
            (message(SET_BACKEND_REQ_FD, &[]), &fds),
            (message(SET_BACKEND_REQ_FD, &[]), &[]),
            (message(GPU_SET_SOCKET, &[]), &fds),
        ];
        for (bytes, fds) in &messages {
            send(&peer, bytes, fds).unwrap();
            let mut received = vec![0; bytes.len()];
            let passed = receive_header(&back_end, &mut received).unwrap();
            assert_eq!((&received, passed.len()), (bytes, fds.len()));
        }
        let next = || reports.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(matches!(next(), Seen::ProtocolFeatures(0x40_0028)));
        let Seen::BackendChannel(mut copy) = next() else {
            panic!()
        };
        assert!(matches!(next(), Seen::DisplaySocket(_)));
        assert!(reports.try_recv().is_err());

        copy.write_all(b"x").unwrap();
        let mut byte = [0];
        (&ours).read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");

        drop(tap);
        assert_eq!(peer.read(&mut byte).unwrap(), 0);
        assert!(peer.write_all(b"x").is_err());
    }
}
