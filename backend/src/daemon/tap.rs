//! Stands between the front-end's socket and the vhost-user-backend crate.
//!
//! The crate (0.24) takes only sockets that it accepts itself, and wraps the display socket of
//! `VHOST_USER_GPU_SET_SOCKET` in a type that waits for replies without end. We are handed
//! connected sockets (`--fd`), and a display that does not answer must not cost us a thread. So the
//! crate is given a private connection of ours, messages are passed on, memory tables sorted as it
//! wants them, and a copy of the display socket is kept on the way. Nothing else knows of this; the
//! module goes when the crate can take a connected stream and hand out the display socket.

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

/// `VHOST_USER_SET_MEM_TABLE`: a count, padding, and regions (same document, "Multiple memory regions
/// description").
const SET_MEM_TABLE: u32 = 5;

/// Where the regions of `SET_MEM_TABLE` start in a message.
const REGIONS: usize = HEADER + 8;

/// Bytes of a region: guest address, size, user address and file offset, 64 bits each.
const REGION: usize = 32;

/// `VHOST_USER_GPU_SET_SOCKET` (QEMU docs/interop/vhost-user.rst, "Front-end message types").
const GPU_SET_SOCKET: u32 = 33;

/// The two threads that pass messages on.
pub(super) struct Tap {
    front_end: UnixStream,
    threads: [Option<JoinHandle<()>>; 2],
}

impl Tap {
    /// Connects `front_end` to a listener that a vhost-user back-end is to accept from once.
    /// `display_socket` gets each display socket that the front-end sends.
    ///
    /// # Errors
    /// If the private socket cannot be made (no writable directory for temporary files) or no
    /// thread started.
    pub(super) fn new(
        front_end: UnixStream,
        display_socket: impl Fn(UnixStream) + Send + 'static,
    ) -> io::Result<(Self, UnixListener)> {
        let directory = private_directory()?;
        let path = directory.path().join("vhost-user");
        let listener = UnixListener::bind(&path)?;
        let back_end = UnixStream::connect(&path)?;

        let (from, to) = (front_end.try_clone()?, back_end.try_clone()?);
        let requests = thread::Builder::new()
            .name("tap requests".into())
            .spawn(move || {
                if let Err(error) = pass_requests(&from, &to, &display_socket) {
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

fn pass_requests(
    from: &UnixStream,
    to: &UnixStream,
    display_socket: &impl Fn(UnixStream),
) -> io::Result<()> {
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
        (&mut &*from).read_exact(message.get_mut(HEADER..).unwrap_or_default())?;
        if request == GPU_SET_SOCKET
            && let [fd] = fds.as_slice()
        {
            display_socket(UnixStream::from(fd.try_clone()?));
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
