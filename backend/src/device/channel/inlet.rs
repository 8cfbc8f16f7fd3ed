//! What comes for a guest through its channel.

use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use epoll::Events;
use nosnoop_protocol::cross_domain::channel::{
    MAX_IDENTIFIERS, PipeId, READ_HEADER, RECEIVE_HEADER,
};
use rustix::fs::{FileType, OFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SocketAddrUnix, SocketFlags, SocketType,
};

use super::MAX_RECORD;
use super::poll::Poll;
use crate::memory::PAGE_SIZE;
use crate::memory::alloc::{HostMemory, memfd};
use crate::sync::lock;

/// The largest file that is copied for a guest. Keymaps and tables of formats, which is what compositors
/// send, have some tens of KiB.
const MAX_COPY: u64 = 16 << 20;

/// Bytes that are copied at a time.
const PIECE: usize = 64 << 10;

/// The socket among the descriptors of an [`Inlet`]; pipes have their numbers.
const SOCKET: u64 = 0;

/// One thing that a guest is told.
#[derive(Debug)]
pub(super) enum Event {
    /// A message of the compositor; without a byte if it has gone.
    Message {
        bytes: Vec<u8>,
        descriptors: Vec<Descriptor>,
    },
    /// Something came through a pipe, or it has ended: then there are no bytes.
    Piped { pipe: PipeId, bytes: Vec<u8> },
}

/// What came in place of a descriptor.
#[derive(Debug)]
pub(super) enum Descriptor {
    /// A copy of a file.
    Memory(HostMemory),
    /// The end of a pipe that is written.
    Pipe(OwnedFd),
    /// What cannot be passed on.
    Nothing,
}

/// Connects without waiting.
///
/// # Errors
/// What the kernel says; `WouldBlock` if the compositor has not accepted those before.
pub(super) fn connect(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

/// The descriptors that a channel is read from. Only one thread reads.
#[derive(Debug)]
pub(super) struct Inlet {
    socket: UnixStream,
    pipes: Mutex<HashMap<PipeId, Arc<OwnedFd>>>,
    /// All of them: it is ready when one is.
    poll: Poll,
    /// The socket is not to be read any more.
    ended: AtomicBool,
}

impl Inlet {
    /// # Errors
    /// No descriptor to be had.
    pub(super) fn new(socket: UnixStream) -> io::Result<Self> {
        let poll = Poll::new()?;
        poll.add(&socket, Events::EPOLLIN, SOCKET)?;
        Ok(Self {
            socket,
            pipes: Mutex::default(),
            poll,
            ended: AtomicBool::new(false),
        })
    }

    pub(super) fn poll(&self) -> &Poll {
        &self.poll
    }

    pub(super) fn pipes(&self) -> usize {
        lock(&self.pipes).len()
    }

    pub(super) fn has_pipe(&self, id: PipeId) -> bool {
        lock(&self.pipes).contains_key(&id)
    }

    /// # Errors
    /// What the kernel says.
    pub(super) fn add_pipe(&self, id: PipeId, pipe: OwnedFd) -> io::Result<()> {
        self.poll.add(&pipe, Events::EPOLLIN, id.get().into())?;
        lock(&self.pipes).insert(id, Arc::new(pipe));
        Ok(())
    }

    /// Reads what has come; `None` if that was nothing. Does not wait, but for a file to be copied.
    pub(super) fn next(&self) -> Option<Event> {
        match self.poll.ready(false) {
            Ok(Some(SOCKET)) => self.receive(),
            Ok(Some(token)) => {
                let id = u32::try_from(token).ok()?;
                self.read(PipeId::read_by_guest(id)?)
            }
            Ok(None) => None,
            Err(error) => {
                log::error!("a channel is not read: {error}");
                None
            }
        }
    }

    fn read(&self, pipe: PipeId) -> Option<Event> {
        let file = lock(&self.pipes).get(&pipe).map(Arc::clone)?;
        let mut bytes = vec![0; usize::from(MAX_RECORD).saturating_sub(READ_HEADER)];
        let count = match rustix::io::read(&*file, &mut bytes) {
            Ok(count) => count,
            Err(error) if is_passing(error) => return None,
            Err(_) => 0,
        };
        bytes.truncate(count);
        if bytes.is_empty() {
            lock(&self.pipes).remove(&pipe);
        }
        Some(Event::Piped { pipe, bytes })
    }

    fn receive(&self) -> Option<Event> {
        let mut bytes = vec![0; usize::from(MAX_RECORD).saturating_sub(RECEIVE_HEADER)];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_IDENTIFIERS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let gone = Event::Message {
            bytes: Vec::new(),
            descriptors: Vec::new(),
        };
        if self.ended.load(Ordering::Relaxed) {
            return Some(gone);
        }
        let received = rustix::net::recvmsg(
            &self.socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut ancillary,
            RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC,
        );
        let received = match received {
            Ok(received) => received,
            Err(error) if is_passing(error) => return None,
            Err(error) => {
                log::debug!("a Wayland compositor has gone: {error}");
                return Some(gone);
            }
        };
        let files: Vec<OwnedFd> = ancillary
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(files) => Some(files),
                _ => None,
            })
            .flatten()
            .collect();
        if received.flags.contains(ReturnFlags::CTRUNC) {
            // The messages to come would be given the wrong descriptors.
            log::warn!(
                "a guest's Wayland client is cut off: descriptors of the compositor were lost, as this \
                 process may not have more; raise its limit (ulimit -n)"
            );
            self.ended.store(true, Ordering::Relaxed);
            let _ = self.socket.shutdown(std::net::Shutdown::Both);
            return Some(gone);
        }
        bytes.truncate(received.bytes);
        Some(Event::Message {
            bytes,
            descriptors: files.into_iter().map(Descriptor::of).collect(),
        })
    }
}

/// Whether it is worth another try.
fn is_passing(error: rustix::io::Errno) -> bool {
    matches!(error, rustix::io::Errno::AGAIN | rustix::io::Errno::INTR)
}

impl Descriptor {
    fn of(file: OwnedFd) -> Self {
        match Self::sort(file) {
            Ok(descriptor) => descriptor,
            Err(error) => {
                log::debug!("a descriptor of the compositor is not passed on: {error}");
                Self::Nothing
            }
        }
    }

    fn sort(file: OwnedFd) -> io::Result<Self> {
        let status = rustix::fs::fstat(&file)?;
        match FileType::from_raw_mode(status.st_mode) {
            FileType::RegularFile => {
                let size = u64::try_from(status.st_size).unwrap_or(0);
                Ok(Self::Memory(copy(&file, size)?))
            }
            FileType::Fifo if writable(&file)? => {
                // The other end may be full, and the guest's command must not wait for it.
                rustix::io::ioctl_fionbio(&file, true)?;
                Ok(Self::Pipe(file))
            }
            _ => Ok(Self::Nothing),
        }
    }
}

fn writable(file: &OwnedFd) -> rustix::io::Result<bool> {
    let mode = rustix::fs::fcntl_getfl(file)? & OFlags::RWMODE;
    Ok(mode != OFlags::RDONLY)
}

/// A copy of a file of this size, in whole pages.
fn copy(file: &OwnedFd, size: u64) -> io::Result<HostMemory> {
    if size == 0 || size > MAX_COPY {
        let what = format!("a file of {size} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    let memory = memfd::allocate(size.next_multiple_of(PAGE_SIZE))?;
    let mut piece = vec![0; PIECE];
    let mut at = 0_u64;
    while at < size {
        let left = usize::try_from(size.saturating_sub(at)).unwrap_or(PIECE);
        let piece = piece.get_mut(..left.min(PIECE)).unwrap_or_default();
        let count = rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut *piece, at))?;
        let read = piece.get(..count).unwrap_or_default();
        if read.is_empty() {
            // It has shrunk meanwhile.
            break;
        }
        memory.write(at, read)?;
        at = at.saturating_add(u64::try_from(count).unwrap_or(size));
    }
    Ok(memory)
}
