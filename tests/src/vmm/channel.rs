//! The receiver of the daemon's requests: SHMEM_MAP and SHMEM_UNMAP, each answered, whatever it is.
//!
//! A request without an answer makes the daemon give the channel up, so nothing is dropped in
//! silence: not an unknown number, not an unknown flag, not a payload of a wrong length.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::MapError;
use super::slots::{MapRequest, Slots, Window};
use crate::frontend::memtype::MapFlags;
use crate::frontend::message::{FLAG_NEED_REPLY, FLAG_REPLY, FLAG_VERSION, Header, u64_at};
use crate::frontend::shmem::{HOST_VISIBLE, PAYLOAD, SHMEM_MAP, SHMEM_UNMAP, receive};
use crate::frontend::{Error, Result};

#[cfg(test)]
mod tests;

/// A request that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The request's number.
    pub request: u32,
    /// The code in the answer.
    pub code: u64,
    /// Why.
    pub why: String,
}

/// The front-end's end of the channel, served by a thread.
#[derive(Debug)]
pub struct Channel<S> {
    window: Arc<Mutex<Window<S>>>,
    refusals: Arc<Mutex<Vec<Refusal>>>,
    socket: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl<S: Slots + Send + 'static> Channel<S> {
    /// Starts serving; returns the daemon's end, for SET_BACKEND_REQ_FD. `extended` says whether
    /// the memory-type extension was agreed on.
    ///
    /// # Errors
    /// [`Error::Io`] without file descriptors.
    pub fn start(window: Window<S>, extended: bool) -> Result<(Self, UnixStream)> {
        let io = |error| Error::io("socketpair", error);
        let (ours, theirs) = UnixStream::pair().map_err(io)?;
        let window = Arc::new(Mutex::new(window));
        let refusals = Arc::new(Mutex::new(Vec::new()));
        let server = Server {
            window: window.clone(),
            refusals: refusals.clone(),
            extended,
        };
        let socket = ours.try_clone().map_err(io)?;
        let thread = std::thread::spawn(move || server.serve(&ours));
        let channel = Self {
            window,
            refusals,
            socket,
            thread: Some(thread),
        };
        Ok((channel, theirs))
    }

    /// The region, between two requests.
    pub fn window(&self) -> MutexGuard<'_, Window<S>> {
        lock(&self.window)
    }

    /// What was refused so far.
    pub fn refusals(&self) -> Vec<Refusal> {
        lock(&self.refusals).clone()
    }
}

impl<S> Drop for Channel<S> {
    fn drop(&mut self) {
        // Fails where the daemon has gone already; the thread ends either way.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            // A panic in it has shown as a request without an answer.
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Server<S> {
    window: Arc<Mutex<Window<S>>>,
    refusals: Arc<Mutex<Vec<Refusal>>>,
    extended: bool,
}

impl<S: Slots> Server<S> {
    fn serve(&self, mut socket: &UnixStream) {
        while let Some((header, payload, files)) = receive(socket) {
            let code = match self.handle(header, &payload, &files) {
                Ok(()) => 0,
                Err(error) => {
                    let refusal = Refusal {
                        request: header.request,
                        code: error.code(),
                        why: error.to_string(),
                    };
                    lock(&self.refusals).push(refusal);
                    error.code()
                }
            };
            if header.flags & FLAG_NEED_REPLY == 0 {
                continue;
            }
            let reply = Header {
                request: header.request,
                flags: FLAG_VERSION | FLAG_REPLY,
                size: 8,
            };
            let bytes = [&reply.to_bytes()[..], &code.to_ne_bytes()].concat();
            if socket.write_all(&bytes).is_err() {
                return;
            }
        }
    }

    fn handle(
        &self,
        header: Header,
        payload: &[u8],
        files: &[OwnedFd],
    ) -> std::result::Result<(), MapError> {
        let bad = |what: &str| Err(MapError::Message(what.to_owned()));
        if header.flags & FLAG_NEED_REPLY == 0 {
            // The daemon would not learn of a failure.
            return bad("it asks for no answer");
        }
        if !matches!(header.request, SHMEM_MAP | SHMEM_UNMAP) {
            return bad("its number is not known");
        }
        if payload.len() != PAYLOAD || payload[1..8] != [0; 7] {
            return bad("its payload is not one of a shared-memory request");
        }
        if payload[0] != HOST_VISIBLE {
            return bad("there is no such region");
        }
        let word = |index: usize| u64_at(payload, 8 * index);
        let (file_offset, offset, len, flags) = (word(1), word(2), word(3), word(4));
        match (header.request, files) {
            (SHMEM_MAP, [file]) => {
                let request = MapRequest {
                    file_offset,
                    offset,
                    len,
                    flags: MapFlags::parse(flags, self.extended)?,
                };
                lock(&self.window).map(request, file)
            }
            (SHMEM_UNMAP, []) => lock(&self.window).unmap(offset, len),
            _ => bad("it has a wrong number of file descriptors"),
        }
    }
}
