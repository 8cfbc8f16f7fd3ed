//! The requests to the front-end, their acknowledgements, and how both pass through a socket without
//! ever waiting for it.

use std::fmt;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;

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

/// What is there before a request is sent cannot be its answer.
///
/// # Errors
/// Something is there, or the socket has ended or is none.
pub(super) fn expect_silence(socket: &UnixStream) -> io::Result<()> {
    let mut byte = [0; 1];
    match recv(socket, &mut byte[..], RecvFlags::DONTWAIT) {
        Err(Errno::AGAIN | Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
        Ok((_, 0)) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(_) => Err(io::Error::other("an answer to nothing came")),
    }
}

/// Sends as much of `message` as the socket takes now, and `fd` with its first byte; returns how
/// much that was.
///
/// # Errors
/// The socket is full, has ended or is none.
pub(super) fn send(
    socket: &UnixStream,
    message: &[u8],
    fd: Option<BorrowedFd<'_>>,
) -> io::Result<usize> {
    let fds = fd.as_slice();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        // The space is that of one descriptor.
        ancillary.push(SendAncillaryMessage::ScmRights(fds));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    loop {
        match sendmsg(socket, &[IoSlice::new(message)], &mut ancillary, flags) {
            Ok(bytes) => return Ok(bytes),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// An acknowledgement as far as it has come.
pub(super) struct Inbox {
    reply: Reply,
    filled: usize,
}

impl Inbox {
    pub(super) fn empty() -> Self {
        Self {
            reply: Reply::new_zeroed(),
            filled: 0,
        }
    }

    /// Takes what has come, and no more than one acknowledgement.
    ///
    /// # Errors
    /// The socket has ended or is none.
    pub(super) fn receive(&mut self, socket: &UnixStream) -> io::Result<()> {
        let rest = self.reply.as_mut_bytes().get_mut(self.filled..);
        // Without room for descriptors any that come are closed by the kernel.
        match recv(socket, rest.unwrap_or_default(), RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((_, bytes)) => {
                self.filled = self.filled.saturating_add(bytes);
                Ok(())
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Takes the acknowledgement out once it is whole: what it says, 0 for success, or `None` if it
    /// is not one to `request`.
    pub(super) fn take(&mut self, request: &Request) -> Option<Option<u64>> {
        if self.filled < size_of::<Reply>() {
            return None;
        }
        self.filled = 0;
        let reply = &self.reply;
        let answers = reply.request == request.request
            // Some front-ends leave the request's own flag in.
            && reply.flags.get() & !NEED_REPLY == VERSION | REPLY
            && reply.size.get() == 8;
        Some(answers.then_some(reply.value.get()))
    }
}
