//! The server: a thread that reads the daemon's requests and answers them.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, poll};
use vm_memory::{Bytes, VolatileMemory};

use super::rules::{Mapping, State, handle};
use super::{Ack, ShmemRequest, receive};
use crate::frontend::error::{Error, Result, patience};
use crate::frontend::message::{FLAG_NEED_REPLY, FLAG_REPLY, FLAG_VERSION, Header};

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    wake: OwnedFd,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The front-end's end of the channel, served by a thread of its own.
#[derive(Debug)]
pub struct ShmemServer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl ShmemServer {
    /// Starts serving nothing yet (see [`Self::set_serving`]); returns the daemon's end.
    ///
    /// # Errors
    /// [`Error::Io`] without file descriptors.
    pub fn start() -> Result<(Self, UnixStream)> {
        let (ours, theirs) = UnixStream::pair().map_err(|e| Error::io("socketpair", e))?;
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|e| Error::io("eventfd", e))?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State::default()),
            changed: Condvar::new(),
            wake,
        });
        let mut server = ShmemServer {
            shared,
            thread: None,
        };
        server.spawn(ours);
        Ok((server, theirs))
    }

    fn spawn(&mut self, socket: UnixStream) {
        let shared = self.shared.clone();
        self.thread = Some(std::thread::spawn(move || {
            serve(&shared, &socket);
            shared.lock().closed = true;
            shared.changed.notify_all();
        }));
    }

    /// Closes the socket and goes on with a new one and all that is mapped; returns the daemon's end.
    ///
    /// # Errors
    /// [`Error::Io`] without file descriptors.
    pub fn reopen(&mut self) -> Result<UnixStream> {
        self.close();
        let (ours, theirs) = UnixStream::pair().map_err(|e| Error::io("socketpair", e))?;
        let mut state = self.shared.lock();
        (state.closing, state.closed) = (false, false);
        drop(state);
        self.spawn(ours);
        Ok(theirs)
    }

    fn wake(&self) {
        // Fails only when the counter is full: the thread wakes then anyway.
        let _ = rustix::io::write(&self.shared.wake, &1_u64.to_ne_bytes());
    }

    /// Sets the size of the region, bytes.
    pub fn set_size(&self, size: u64) {
        self.shared.lock().size = size;
    }

    /// The size of the region, bytes.
    pub fn size(&self) -> u64 {
        self.shared.lock().size
    }

    /// Whether requests may carry a memory type: the extension was agreed on.
    pub fn set_extended(&self, on: bool) {
        self.shared.lock().extended = on;
    }

    /// Whether requests must ask for an acknowledgement: REPLY_ACK was agreed on. Where it was not
    /// they must not, and get none.
    pub fn set_acks(&self, on: bool) {
        self.shared.lock().silent = !on;
    }

    /// Whether files must be sealed against changes of their size. QEMU grows a memfd that is too
    /// short, so our daemon seals; the specification does not ask for it.
    pub fn require_seals(&self, on: bool) {
        self.shared.lock().any_file = !on;
    }

    /// Whether a request must ask for an acknowledgement where it may. Our daemon does; the
    /// specification leaves it to the back-end.
    pub fn require_replies(&self, on: bool) {
        self.shared.lock().any_reply = !on;
    }

    /// Whether requests are read at all; crosvm reads none while the device is not active.
    pub fn set_serving(&self, on: bool) {
        self.shared.lock().serving = on;
        self.wake();
    }

    /// What to do with the next requests; those after are done and acknowledged.
    pub fn script(&self, acks: &[Ack]) {
        self.shared.lock().script = acks.iter().cloned().collect();
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<ShmemRequest> {
        self.shared.lock().requests.clone()
    }

    /// Number of requests so far.
    pub fn count(&self) -> usize {
        self.shared.lock().requests.len()
    }

    /// What is mapped: (offset, bytes), sorted.
    pub fn mapped(&self) -> Vec<(u64, u64)> {
        let state = self.shared.lock();
        let mut mapped: Vec<_> = state.mappings.iter().map(|m| (m.offset, m.len)).collect();
        mapped.sort_unstable();
        mapped
    }

    /// Rules that the daemon broke.
    pub fn violations(&self) -> Vec<String> {
        self.shared.lock().violations.clone()
    }

    /// Whether the channel is closed, by either side.
    pub fn is_closed(&self) -> bool {
        self.shared.lock().closed
    }

    /// Waits until this many requests have come in all.
    ///
    /// # Errors
    /// [`Error::Timeout`].
    pub fn wait_count(&self, count: usize) -> Result<()> {
        self.wait(&format!("{count} shared-memory requests"), |state| {
            state.requests.len() >= count
        })
    }

    /// Waits until the daemon has closed the channel.
    ///
    /// # Errors
    /// [`Error::Timeout`].
    pub fn wait_closed(&self) -> Result<()> {
        self.wait("the shared-memory channel to be closed", |state| {
            state.closed
        })
    }

    /// Waits until exactly this is mapped: (offset, bytes), sorted.
    ///
    /// # Errors
    /// [`Error::Timeout`].
    pub fn wait_mapped(&self, expected: &[(u64, u64)]) -> Result<()> {
        self.wait(&format!("{expected:x?} to be mapped"), |state| {
            let mut mapped: Vec<_> = state.mappings.iter().map(|m| (m.offset, m.len)).collect();
            mapped.sort_unstable();
            mapped == expected
        })
    }

    fn wait(&self, awaited: &str, ready: impl Fn(&State) -> bool) -> Result<()> {
        let end = Instant::now() + patience();
        let mut state = self.shared.lock();
        while !ready(&state) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Timeout {
                    awaited: awaited.to_owned(),
                    waited: patience(),
                });
            }
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// Unmaps everything by itself and without a word, as QEMU does when the device is reset.
    pub fn drop_mappings(&self) {
        let mut state = self.shared.lock();
        let gone: Vec<_> = state.mappings.drain(..).collect();
        state.dropped = gone.iter().map(|m| (m.offset, m.len)).collect();
    }

    /// Reads through the guest's mapping; panics where nothing is mapped.
    pub fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        self.try_read(offset, len).expect("a mapping")
    }

    /// Writes through the guest's mapping; panics where nothing is mapped.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        self.try_write(offset, bytes).expect("a mapping");
    }

    /// As [`Self::read`].
    ///
    /// # Errors
    /// [`Error::Memory`] where not all of it lies in one mapping.
    pub fn try_read(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.with_slice(offset, len, |slice| slice.read_slice(&mut bytes, 0))?;
        Ok(bytes)
    }

    /// As [`Self::write`].
    ///
    /// # Errors
    /// [`Error::Memory`] where not all of it lies in one mapping.
    pub fn try_write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.with_slice(offset, bytes.len(), |slice| slice.write_slice(bytes, 0))
    }

    fn with_slice<E: std::fmt::Debug>(
        &self,
        offset: u64,
        len: usize,
        access: impl FnOnce(vm_memory::VolatileSlice<'_>) -> std::result::Result<(), E>,
    ) -> Result<()> {
        let state = self.shared.lock();
        let inside = |m: &&Mapping| (m.offset..m.offset + m.len).contains(&offset);
        let nothing = || Error::Memory(format!("not mapped: {len} bytes at {offset:#x}"));
        let mapping = state.mappings.iter().find(inside).ok_or_else(nothing)?;
        let slice = mapping
            .memory
            .get_slice((offset - mapping.offset) as usize, len)
            .map_err(|_| nothing())?;
        access(slice).map_err(|_| nothing())
    }

    /// The file behind the mapping at an offset; panics where nothing is mapped.
    pub fn file(&self, offset: u64) -> Arc<File> {
        let state = self.shared.lock();
        let mapping = state.mappings.iter().find(|m| m.offset == offset);
        mapping.expect("a mapping begins here").file.clone()
    }

    /// Closes the front-end's end; what is mapped stays mapped.
    pub fn close(&mut self) {
        self.shared.lock().closing = true;
        self.wake();
        if let Some(thread) = self.thread.take() {
            // It only serves; a panic would show as a request without an answer.
            let _ = thread.join();
        }
    }
}

impl Drop for ShmemServer {
    fn drop(&mut self) {
        self.close();
    }
}

/// Serves requests until either side closes.
fn serve(shared: &Shared, socket: &UnixStream) {
    loop {
        let serving = {
            let state = shared.lock();
            if state.closing {
                return;
            }
            state.serving
        };
        // It may have been told to stop serving while it waited.
        if !wait(shared, serving.then_some(socket), None) || !shared.lock().serving {
            continue;
        }
        let Some((header, payload, fds)) = receive(socket) else {
            return;
        };
        let ack = handle(&mut shared.lock(), header, &payload, fds);
        shared.changed.notify_all();
        let reply = |code: u64| {
            let header = Header {
                request: header.request,
                flags: FLAG_VERSION | FLAG_REPLY,
                size: 8,
            };
            [&header.to_bytes()[..], &code.to_ne_bytes()].concat()
        };
        let ack = match header.flags & FLAG_NEED_REPLY {
            0 => Ack::Never,
            _ => ack,
        };
        let bytes = match ack {
            Ack::Ok => reply(0),
            Ack::Refuse(code) => reply(code),
            Ack::Never => continue,
            Ack::Close => return,
            Ack::Raw(bytes) => bytes,
            Ack::Late(pause) => {
                let until = Instant::now() + pause;
                while Instant::now() < until {
                    if shared.lock().closing {
                        return;
                    }
                    wait(shared, None, Some(until));
                }
                reply(0)
            }
        };
        // The daemon may have closed meanwhile; the next read tells.
        let _ = (&*socket).write_all(&bytes);
    }
}

/// Waits for a wake-up, the socket (if given) or a point in time; true when the socket is readable.
fn wait(shared: &Shared, socket: Option<&UnixStream>, until: Option<Instant>) -> bool {
    let mut fds = vec![PollFd::from_borrowed_fd(shared.wake.as_fd(), PollFlags::IN)];
    if let Some(socket) = socket {
        fds.push(PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN));
    }
    let left = until.map(|until| until.saturating_duration_since(Instant::now()));
    let timeout = left.and_then(|left| Timespec::try_from(left + Duration::from_millis(1)).ok());
    if poll(&mut fds, timeout.as_ref()).is_err() {
        return false;
    }
    if !fds[0].revents().is_empty() {
        let _ = rustix::io::read(&shared.wake, &mut [0_u8; 8]);
    }
    fds.get(1).is_some_and(|fd| !fd.revents().is_empty())
}
