//! The channel on which the front-end is asked to map memory into the guest's shared-memory region
//! (QEMU docs/interop/vhost-user.rst, "Back-end message types").
//!
//! A thread of its own makes the requests, one after the other, so that a front-end that takes its
//! time costs nobody else theirs. The vhost crate's own sender is not used: it waits for an
//! acknowledgement without end and with its lock held, and some front-ends do not answer a
//! request that they find invalid. An acknowledgement has no serial number, so one that comes too
//! late would pass for that of the next request: after a missed deadline the channel is given up.

mod exchange;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nosnoop_protocol::memtype::{MemslotRequest, NOSNOOP_MEMTYPE, speaks_memtype};
use vhost::vhost_user::message::VhostUserProtocolFeatures;

use self::exchange::{ExchangeError, Request, exchange};
use super::tap::close as close_socket;
use crate::device::mapper::{Done, MapError, MapRequest, Mapper};
use crate::planted::{Bug, planted};
use crate::sync::lock;

/// The shared-memory region of host-visible blobs, `VIRTIO_GPU_SHM_ID_HOST_VISIBLE` (virtio 1.4,
/// "GPU Device / Device Operation").
pub(super) const HOST_VISIBLE: u8 = 1;

/// What the front-end must have accepted: a request that it does not acknowledge leaves what is
/// mapped unknown, so without acknowledgements nothing is asked for.
pub(super) const NEEDED: VhostUserProtocolFeatures = VhostUserProtocolFeatures::SHMEM
    .union(VhostUserProtocolFeatures::BACKEND_REQ)
    .union(VhostUserProtocolFeatures::REPLY_ACK);

/// Our extension, [`NOSNOOP_MEMTYPE`]: offered, but not needed.
pub(super) const MEMTYPE: VhostUserProtocolFeatures =
    VhostUserProtocolFeatures::from_bits_retain(NOSNOOP_MEMTYPE);

/// The channel of one front-end connection, from before the front-end has sent the socket until
/// after it has gone.
pub(super) struct ShmemChannel {
    /// How long the front-end may take for one request.
    deadline: Duration,
    gate: Arc<Gate>,
    state: Mutex<State>,
}

/// Holds requests back while the device is stopped: front-ends serve them only while it runs.
/// crosvm lets them wait beyond any deadline, QEMU 11.1 dies of them.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Clone, Copy, Default)]
struct GateState {
    closed: bool,
    /// How often it was closed or opened.
    changes: u64,
}

impl Gate {
    fn set(&self, closed: bool) {
        let mut state = lock(&self.state);
        state.closed = closed;
        state.changes = state.changes.wrapping_add(1);
        self.changed.notify_all();
    }

    /// Has those who wait look again.
    fn wake(&self) {
        // Whoever has looked and not yet begun to wait holds the lock.
        drop(lock(&self.state));
        self.changed.notify_all();
    }

    /// Waits until a request may be sent; false if it is not to be sent at all. What was to be
    /// mapped when the device stopped is not: every command has been answered then, and nobody waits
    /// for it. What is to be unmapped must be, later.
    fn pass(&self, job: &Job, link_open: &AtomicBool) -> bool {
        let mut state = lock(&self.state);
        if job.request.is_map() {
            return !state.closed
                && state.changes == job.changes
                && link_open.load(Ordering::SeqCst);
        }
        while state.closed && link_open.load(Ordering::SeqCst) {
            let waited = self.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        link_open.load(Ordering::SeqCst)
    }
}

#[derive(Default)]
struct State {
    /// The front-end has accepted [`NEEDED`].
    negotiated: bool,
    /// And the extension [`NOSNOOP_MEMTYPE`] with them.
    memtype: bool,
    closed: bool,
    link: Option<Link>,
}

/// One socket and the thread that speaks on it.
struct Link {
    socket: Arc<UnixStream>,
    /// Nothing has gone wrong on the socket. Only ever goes from true to false.
    open: Arc<AtomicBool>,
    gate: Arc<Gate>,
    jobs: Sender<Job>,
    thread: JoinHandle<()>,
}

struct Job {
    request: Request,
    fd: Option<Arc<OwnedFd>>,
    done: Done,
    /// [`GateState::changes`] when it was asked for.
    changes: u64,
}

impl ShmemChannel {
    /// A channel without a socket: nothing is usable yet.
    pub(super) fn new(deadline: Duration) -> Self {
        Self {
            deadline,
            gate: Arc::default(),
            state: Mutex::default(),
        }
    }

    /// The device stops: nothing is sent any more. Requests to map that have not been sent end as
    /// [`MapError::Unavailable`], those to unmap wait for [`ShmemChannel::resume`].
    pub(super) fn pause(&self) {
        self.gate.set(true);
    }

    /// The device runs.
    pub(super) fn resume(&self) {
        if lock(&self.gate.state).closed {
            self.gate.set(false);
        }
    }

    /// Takes note of the protocol features that the front-end has accepted.
    pub(super) fn set_protocol_features(&self, accepted: u64) {
        let negotiated = VhostUserProtocolFeatures::from_bits_truncate(accepted).contains(NEEDED);
        if !negotiated {
            log::info!(
                "no host blobs: the front-end does not map shared memory with acknowledgements"
            );
        }
        let mut state = lock(&self.state);
        state.negotiated = negotiated;
        state.memtype = speaks_memtype(accepted);
    }

    /// Uses `socket` for all further requests. If there was one already, what was asked on it and
    /// not answered ends as [`MapError::Lost`] before this returns. Not to be called by a [`Done`].
    ///
    /// # Errors
    /// The channel has been closed, or no thread is to be had.
    pub(super) fn connect(&self, socket: UnixStream) -> io::Result<()> {
        // First ended, then replaced: there are never two requests on their way.
        let old = lock(&self.state).link.take();
        old.into_iter().for_each(Link::end);
        let link = Link::start(socket, self.deadline, &self.gate)?;
        let unused = {
            let mut state = lock(&self.state);
            if state.closed {
                Some(link)
            } else {
                state.link.replace(link)
            }
        };
        unused.into_iter().for_each(Link::end);
        if lock(&self.state).closed {
            return Err(io::ErrorKind::NotConnected.into());
        }
        Ok(())
    }

    /// Ends the channel for good: a request on its way is [`MapError::Lost`], those behind it
    /// are [`MapError::Unavailable`], and all of them have been told so when this returns (unless
    /// it is a [`Done`] that calls this: then they are told afterwards).
    pub(super) fn close(&self) {
        let link = {
            let mut state = lock(&self.state);
            state.closed = true;
            state.link.take()
        };
        link.into_iter().for_each(Link::end);
    }

    fn request(&self, request: Request, fd: Option<Arc<OwnedFd>>, done: Done) {
        let changes = lock(&self.gate.state).changes;
        let job = Job {
            request,
            fd,
            done,
            changes,
        };
        let refused = {
            let state = lock(&self.state);
            match state.usable_link() {
                // Only a thread that is gone could refuse.
                Some(link) => link.jobs.send(job).err().map(|error| error.0),
                None => Some(job),
            }
        };
        if let Some(job) = refused {
            (job.done)(Err(MapError::Unavailable));
        }
    }
}

impl Drop for ShmemChannel {
    fn drop(&mut self) {
        self.close();
    }
}

impl Mapper for ShmemChannel {
    fn usable(&self) -> bool {
        lock(&self.state).usable_link().is_some()
    }

    fn speaks_memtype(&self) -> bool {
        lock(&self.state).memtype
    }

    fn map(&self, request: MapRequest, done: Done) {
        // QEMU ignores bits that it does not know, others do not answer.
        let understood =
            request.flags.memory == MemslotRequest::Unspecified || self.speaks_memtype();
        if !understood && !planted(Bug::MemtypeUnasked) {
            return done(Err(MapError::Unavailable));
        }
        self.request(Request::map(&request), Some(request.fd), done);
    }

    fn unmap(&self, shm_offset: u64, len: u64, done: Done) {
        self.request(Request::unmap(shm_offset, len), None, done);
    }
}

impl State {
    fn usable_link(&self) -> Option<&Link> {
        self.link
            .as_ref()
            .filter(|link| self.negotiated && link.open.load(Ordering::SeqCst))
    }
}

impl Link {
    fn start(socket: UnixStream, deadline: Duration, gate: &Arc<Gate>) -> io::Result<Self> {
        let socket = Arc::new(socket);
        let open = Arc::new(AtomicBool::new(true));
        let (jobs, waiting) = channel();
        let worker = Worker {
            socket: Arc::clone(&socket),
            open: Arc::clone(&open),
            gate: Arc::clone(gate),
            deadline,
        };
        let thread = thread::Builder::new()
            .name("shared memory".into())
            .spawn(move || worker.run(&waiting))?;
        Ok(Self {
            socket,
            open,
            gate: Arc::clone(gate),
            jobs,
            thread,
        })
    }

    /// Tells everybody who waits, and joins the thread.
    fn end(self) {
        self.open.store(false, Ordering::SeqCst);
        self.gate.wake();
        close_socket(&self.socket);
        // The thread ends when all that was queued has been told.
        drop(self.jobs);
        // The last owner of the channel may be a `Done`, on the very thread.
        if self.thread.thread().id() != thread::current().id() && self.thread.join().is_err() {
            log::error!("the thread that maps shared memory has failed: a bug of nosnoop-gpu");
        }
    }
}

/// What the thread has.
struct Worker {
    socket: Arc<UnixStream>,
    open: Arc<AtomicBool>,
    gate: Arc<Gate>,
    deadline: Duration,
}

impl Worker {
    fn run(&self, jobs: &Receiver<Job>) {
        for job in jobs {
            let result = self.perform(&job);
            // The front-end has its own descriptor by now, and `done` may want the quota back.
            drop(job.fd);
            (job.done)(result);
        }
    }

    fn perform(&self, job: &Job) -> Result<(), MapError> {
        if !self.gate.pass(job, &self.open) {
            return Err(MapError::Unavailable);
        }
        let request = &job.request;
        let fd = job.fd.as_ref().map(AsFd::as_fd);
        match exchange(&self.socket, request, fd, self.deadline) {
            Ok(0) => Ok(()),
            Ok(error) => {
                log::debug!("the front-end refused to {request} with {error}");
                Err(MapError::Refused(error))
            }
            Err(error) => {
                // Not so if it was closed meanwhile, which is the reason then.
                if self.open.swap(false, Ordering::SeqCst) {
                    log::warn!(
                        "cannot {request}: {error}; no further blob can be mapped until the \
                         front-end connects again"
                    );
                }
                close_socket(&self.socket);
                Err(match error {
                    ExchangeError::Unsent(_) => MapError::Unavailable,
                    ExchangeError::Late(_) | ExchangeError::Broken(_) | ExchangeError::Garbage => {
                        MapError::Lost
                    }
                })
            }
        }
    }
}
