//! One request to the front-end and its acknowledgement, within a deadline.

use std::fmt;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, sendmsg};
use zerocopy::native_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use super::HOST_VISIBLE;
use crate::device::mapper::MapRequest;

/// `VHOST_USER_BACKEND_SHMEM_MAP`.
const SHMEM_MAP: u32 = 9;

/// `VHOST_USER_BACKEND_SHMEM_UNMAP`.
const SHMEM_UNMAP: u32 = 10;

/// The version of the protocol, in the low bits of a header's flags.
const VERSION: u32 = 1;

/// Header flag of an answer.
const REPLY: u32 = 1 << 2;

/// Header flag of a request that wants an acknowledgement.
const NEED_REPLY: u32 = 1 << 3;

/// A message to the front-end: header and `VhostUserMMap`, in this machine's byte order.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Request {
    request: U32,
    flags: U32,
    size: U32,
    shmid: u8,
    padding: [u8; 7],
    fd_offset: U64,
    shm_offset: U64,
    len: U64,
    map_flags: U64,
}

const _: () = assert!(size_of::<Request>() == 12 + 40);

/// The acknowledgement: header and 0 for success.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Reply {
    request: U32,
    flags: U32,
    size: U32,
    value: U64,
}

const _: () = assert!(size_of::<Reply>() == 12 + 8);

/// Why there is no acknowledgement. The text goes on "cannot map ...: ".
#[derive(Debug, thiserror::Error)]
pub(super) enum ExchangeError {
    /// No byte of the request has left.
    #[error("the front-end's socket takes no request ({0})")]
    Unsent(io::Error),
    /// The acknowledgement has not come in time.
    #[error("the front-end has not answered within {0:?}")]
    Late(Duration),
    /// The connection failed after the request, or a part of it, was sent.
    #[error("the front-end's socket failed before the answer ({0})")]
    Broken(io::Error),
    /// Something came that is not the request's acknowledgement.
    #[error("the front-end's answer is not one to this request")]
    Garbage,
}

impl Request {
    /// Maps what `map` says. Its file descriptor has to go with it.
    pub(super) fn map(map: &MapRequest) -> Self {
        let flags = map.flags.to_wire();
        Self::new(SHMEM_MAP, map.fd_offset, map.shm_offset, map.len, flags)
    }

    /// Whether it maps, rather than unmaps.
    pub(super) fn is_map(&self) -> bool {
        self.request == SHMEM_MAP
    }

    /// Unmaps a range of the region.
    pub(super) fn unmap(shm_offset: u64, len: u64) -> Self {
        Self::new(SHMEM_UNMAP, 0, shm_offset, len, 0)
    }

    fn new(request: u32, fd_offset: u64, shm_offset: u64, len: u64, map_flags: u64) -> Self {
        Self {
            request: request.into(),
            flags: (VERSION | NEED_REPLY).into(),
            size: 40.into(),
            shmid: HOST_VISIBLE,
            padding: [0; 7],
            fd_offset: fd_offset.into(),
            shm_offset: shm_offset.into(),
            len: len.into(),
            map_flags: map_flags.into(),
        }
    }
}

/// As in "map 4096 bytes at 0x1000".
impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.request.get() {
            SHMEM_MAP => "map",
            _ => "unmap",
        };
        let (len, at) = (self.len.get(), self.shm_offset.get());
        write!(f, "{what} {len} bytes at {at:#x}")
    }
}

impl Reply {
    fn answers(&self, request: &Request) -> bool {
        self.request == request.request
            // Some front-ends leave the request's own flag in.
            && self.flags.get() & !NEED_REPLY == VERSION | REPLY
            && self.size.get() == 8
    }
}

/// Sends `request` with `fd` and returns the front-end's answer: 0 for success.
///
/// After an error the socket is of no more use: what comes on it could be the missing answer.
pub(super) fn exchange(
    socket: &UnixStream,
    request: &Request,
    fd: Option<BorrowedFd<'_>>,
    deadline: Duration,
) -> Result<u64, ExchangeError> {
    let wait = Wait::new(socket, deadline);
    expect_silence(socket).map_err(ExchangeError::Unsent)?;
    send(&wait, request.as_bytes(), fd)?;
    let reply = receive(&wait)?;
    if !reply.answers(request) {
        return Err(ExchangeError::Garbage);
    }
    Ok(reply.value.get())
}

/// What is there before a request is sent cannot be its answer.
fn expect_silence(socket: &UnixStream) -> io::Result<()> {
    let mut byte = [0; 1];
    match recv(socket, &mut byte[..], RecvFlags::DONTWAIT) {
        Err(Errno::AGAIN | Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
        Ok((_, 0)) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(_) => Err(io::Error::other("an answer to nothing came")),
    }
}

fn send(wait: &Wait<'_>, message: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<(), ExchangeError> {
    let fds = fd.as_slice();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        // The space is that of one descriptor.
        ancillary.push(SendAncillaryMessage::ScmRights(fds));
    }
    let mut rest = message;
    while !rest.is_empty() {
        let sent = sendmsg(
            wait.socket,
            &[IoSlice::new(rest)],
            &mut ancillary,
            SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
        );
        let failed: ExchangeError = match sent {
            Ok(bytes) => {
                rest = rest.get(bytes..).unwrap_or_default();
                // The descriptor went with the first byte.
                ancillary.clear();
                continue;
            }
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => match wait.until(PollFlags::OUT) {
                Ok(()) => continue,
                Err(error) => error,
            },
            Err(error) => ExchangeError::Broken(error.into()),
        };
        return Err(match failed {
            ExchangeError::Broken(error) if rest.len() == message.len() => {
                ExchangeError::Unsent(error)
            }
            ExchangeError::Late(_) if rest.len() == message.len() => {
                ExchangeError::Unsent(io::ErrorKind::TimedOut.into())
            }
            failed => failed,
        });
    }
    Ok(())
}

fn receive(wait: &Wait<'_>) -> Result<Reply, ExchangeError> {
    let mut reply = Reply::new_zeroed();
    let mut rest = reply.as_mut_bytes();
    while !rest.is_empty() {
        wait.until(PollFlags::IN)?;
        // Without room for descriptors any that come are closed by the kernel.
        match recv(wait.socket, &mut *rest, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => {
                return Err(ExchangeError::Broken(io::ErrorKind::UnexpectedEof.into()));
            }
            Ok((_, bytes)) => rest = rest.get_mut(bytes..).unwrap_or_default(),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(ExchangeError::Broken(error.into())),
        }
    }
    Ok(reply)
}

/// Waits on a socket that it never blocks on otherwise, all in all no longer than the deadline.
struct Wait<'a> {
    socket: &'a UnixStream,
    deadline: Duration,
    start: Instant,
}

impl<'a> Wait<'a> {
    fn new(socket: &'a UnixStream, deadline: Duration) -> Self {
        Self {
            socket,
            deadline,
            start: Instant::now(),
        }
    }

    fn until(&self, ready: PollFlags) -> Result<(), ExchangeError> {
        loop {
            let left = self.deadline.saturating_sub(self.start.elapsed());
            let timeout = Timespec::try_from(left)
                .map_err(|error| ExchangeError::Broken(io::Error::other(error)))?;
            match poll(&mut [PollFd::new(self.socket, ready)], Some(&timeout)) {
                Ok(0) if left.is_zero() => return Err(ExchangeError::Late(self.deadline)),
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(ExchangeError::Broken(error.into())),
            }
        }
    }
}
