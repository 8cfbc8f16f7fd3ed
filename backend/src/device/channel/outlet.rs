//! What a guest sends through its channel.
//!
//! Nothing is waited for: what the compositor, or the reader of a pipe, does not take at once is kept and
//! sent when there is room.

use std::collections::{HashMap, VecDeque};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use nosnoop_protocol::cross_domain::channel::{MAX_IDENTIFIERS, PipeId, Write};
use nosnoop_protocol::reply::GpuError;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use super::host_error;
use super::watcher::Watcher;
use crate::device::context::ContextSerial;

/// Bytes of one channel that wait to be sent, those for pipes included. Sockets and pipes hold some
/// hundreds of KiB themselves, so this is for readers that are late, not for those that are stuck.
pub(super) const MAX_BACKLOG: usize = 256 << 10;

/// What a message that waits is charged beside its bytes: about what it takes.
const MESSAGE: usize = 128;

/// A channel's socket and the pipes that came through it.
pub(super) struct Outlet {
    socket: UnixStream,
    messages: VecDeque<Message>,
    pipes: HashMap<u32, Pipe>,
    /// What waits, in bytes.
    backlog: usize,
    /// The compositor has gone.
    broken: bool,
    /// The socket has been waited for.
    awaited: bool,
    context: ContextSerial,
    watcher: Arc<Watcher>,
}

/// A message of which a part waits.
struct Message {
    rest: Vec<u8>,
    descriptors: Vec<Arc<OwnedFd>>,
}

struct Pipe {
    file: OwnedFd,
    rest: Vec<u8>,
    hung_up: bool,
    awaited: bool,
}

impl Message {
    fn charge(&self) -> usize {
        self.rest.len().saturating_add(MESSAGE)
    }
}

impl Outlet {
    pub(super) fn new(socket: UnixStream, context: ContextSerial, watcher: Arc<Watcher>) -> Self {
        Self {
            socket,
            messages: VecDeque::new(),
            pipes: HashMap::new(),
            backlog: 0,
            broken: false,
            awaited: false,
            context,
            watcher,
        }
    }

    pub(super) fn pipes(&self) -> usize {
        self.pipes.len()
    }

    pub(super) fn has(&self, pipe: u32) -> bool {
        self.pipes.contains_key(&pipe)
    }

    /// Takes over the end of a pipe, which does not wait.
    pub(super) fn add_pipe(&mut self, id: PipeId, file: OwnedFd) {
        let pipe = Pipe {
            file,
            rest: Vec::new(),
            hung_up: false,
            awaited: false,
        };
        self.pipes.insert(id.get(), pipe);
    }

    /// Sends a message, or a part of it now and the rest later.
    ///
    /// # Errors
    /// Nothing is sent then: `OutOfMemory` if too much waits, or the kernel has none; `Unspec` if the
    /// compositor has gone.
    pub(super) fn send(
        &mut self,
        bytes: &[u8],
        descriptors: Vec<Arc<OwnedFd>>,
    ) -> Result<(), GpuError> {
        if self.broken {
            return Err(GpuError::Unspec);
        }
        let sent = if self.messages.is_empty() {
            match send(&self.socket, bytes, &descriptors) {
                Err(Errno::AGAIN) => 0,
                Err(error @ (Errno::NOMEM | Errno::NOBUFS | Errno::TOOMANYREFS)) => {
                    return Err(host_error(error.into()));
                }
                Err(error) => {
                    self.give_up();
                    return Err(host_error(error.into()));
                }
                Ok(count) => count,
            }
        } else {
            0
        };
        if sent == bytes.len() {
            return Ok(());
        }
        let message = Message {
            rest: bytes.get(sent..).unwrap_or_default().to_vec(),
            descriptors: if sent == 0 { descriptors } else { Vec::new() },
        };
        let backlog = self.backlog.saturating_add(message.charge());
        // A message that has begun must go on.
        if backlog > MAX_BACKLOG && sent == 0 {
            return Err(GpuError::OutOfMemory);
        }
        self.backlog = backlog;
        self.messages.push_back(message);
        self.await_socket();
        Ok(())
    }

    /// Writes into a pipe, now or later.
    ///
    /// # Errors
    /// `InvalidParameter` for one that is not there or was hung up. The pipe is closed for `OutOfMemory`,
    /// if too much waits, and for `Unspec`, if nobody reads it any more.
    pub(super) fn write(&mut self, write: &Write<'_>) -> Result<(), GpuError> {
        let id = write.pipe.get();
        let pipe = self.pipes.get_mut(&id).filter(|pipe| !pipe.hung_up);
        let pipe = pipe.ok_or(GpuError::InvalidParameter)?;
        let mut left = write.data;
        if pipe.rest.is_empty() && !left.is_empty() {
            match rustix::io::write(&pipe.file, left) {
                Ok(count) => left = left.get(count..).unwrap_or_default(),
                Err(Errno::AGAIN) => {}
                Err(error) => {
                    self.close_pipe(id);
                    return Err(host_error(error.into()));
                }
            }
        }
        let backlog = self.backlog.saturating_add(left.len());
        if backlog > MAX_BACKLOG {
            self.close_pipe(id);
            return Err(GpuError::OutOfMemory);
        }
        self.backlog = backlog;
        pipe.rest.extend(left);
        pipe.hung_up = write.hang_up;
        self.tend_pipe(id);
        Ok(())
    }

    /// Sends on what waits, as far as there is room.
    pub(super) fn flush(&mut self) {
        while let Some(message) = self.messages.front_mut() {
            match send(&self.socket, &message.rest, &message.descriptors) {
                Err(Errno::AGAIN) => {
                    self.await_socket();
                    break;
                }
                Err(error) => {
                    log::debug!("a Wayland compositor has gone: {error}");
                    self.give_up();
                    break;
                }
                Ok(count) => {
                    message.descriptors.clear();
                    message.rest.drain(..count.min(message.rest.len()));
                    self.backlog = self.backlog.saturating_sub(count);
                    if message.rest.is_empty() {
                        self.messages.pop_front();
                        self.backlog = self.backlog.saturating_sub(MESSAGE);
                    }
                }
            }
        }
        let waiting = self.pipes.iter().filter(|(_, pipe)| !pipe.rest.is_empty());
        let waiting: Vec<_> = waiting.map(|(id, _)| *id).collect();
        for id in waiting {
            self.flush_pipe(id);
        }
    }

    fn flush_pipe(&mut self, id: u32) {
        let Some(pipe) = self.pipes.get_mut(&id) else {
            return;
        };
        match rustix::io::write(&pipe.file, &pipe.rest) {
            Ok(count) => {
                pipe.rest.drain(..count.min(pipe.rest.len()));
                self.backlog = self.backlog.saturating_sub(count);
                self.tend_pipe(id);
            }
            Err(Errno::AGAIN) => self.tend_pipe(id),
            Err(error) => {
                log::debug!("a pipe's reader has gone: {error}");
                self.close_pipe(id);
            }
        }
    }

    /// Closes a pipe that is done with, or has it waited for.
    fn tend_pipe(&mut self, id: u32) {
        match self.pipes.get_mut(&id) {
            Some(pipe) if !pipe.rest.is_empty() => {
                self.watcher
                    .await_room(self.context, &pipe.file, pipe.awaited);
                pipe.awaited = true;
            }
            Some(pipe) if pipe.hung_up => self.close_pipe(id),
            _ => {}
        }
    }

    fn close_pipe(&mut self, id: u32) {
        if let Some(pipe) = self.pipes.remove(&id) {
            self.backlog = self.backlog.saturating_sub(pipe.rest.len());
        }
    }

    fn await_socket(&mut self) {
        self.watcher
            .await_room(self.context, &self.socket, self.awaited);
        self.awaited = true;
    }

    /// The compositor gets nothing any more. What it has sent can still be read.
    fn give_up(&mut self) {
        self.broken = true;
        for message in self.messages.drain(..) {
            self.backlog = self.backlog.saturating_sub(message.charge());
        }
    }
}

/// Sends what the socket takes at once; the descriptors go with the first byte.
fn send(
    socket: &UnixStream,
    bytes: &[u8],
    descriptors: &[Arc<OwnedFd>],
) -> rustix::io::Result<usize> {
    let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(|it| it.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_IDENTIFIERS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(Errno::INVAL);
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, flags)
}
