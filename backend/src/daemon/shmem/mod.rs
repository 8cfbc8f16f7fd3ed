//! The channel on which the front-end is asked to map memory into the guest's shared-memory region
//! (QEMU docs/interop/vhost-user.rst, "Back-end message types").
//!
//! Whoever asks sends the request, if none is under way; a thread of its own takes the answers and
//! sends what had to wait, one request after the other. So a front-end that takes its time costs
//! nobody else theirs, and one that does not costs no more threads than it must. The vhost crate's own
//! sender is not used: it waits for an acknowledgement without end and with its lock held, and some
//! front-ends do not answer a request that they find invalid. An acknowledgement has no serial
//! number, so one that comes too late would pass for that of the next request: after a missed
//! deadline the channel is given up.

mod link;
#[cfg(test)]
mod tests;
mod wire;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nosnoop_protocol::memtype::{MemslotRequest, NOSNOOP_MEMTYPE, speaks_memtype};
use vhost::vhost_user::message::VhostUserProtocolFeatures;

use self::link::{Line, Link};
use self::wire::Request;
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
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The front-end has accepted [`NEEDED`].
    negotiated: bool,
    /// And the extension [`NOSNOOP_MEMTYPE`] with them.
    memtype: bool,
    /// The device is stopped.
    paused: bool,
    closed: bool,
    link: Option<Link>,
}

impl ShmemChannel {
    /// A channel without a socket: nothing is usable yet.
    pub(super) fn new(deadline: Duration) -> Self {
        Self {
            deadline,
            state: Mutex::default(),
        }
    }

    /// The device stops: nothing is sent any more, as front-ends serve requests only while it runs
    /// (crosvm lets them wait beyond any deadline, QEMU 11.1 dies of them). Requests to map that have
    /// not been sent have ended as [`MapError::Unavailable`] when this returns, those to unmap wait for
    /// [`ShmemChannel::resume`].
    pub(super) fn pause(&self) {
        let line = {
            let mut state = lock(&self.state);
            state.paused = true;
            state.link.as_ref().map(|link| Arc::clone(link.line()))
        };
        if let Some(line) = line {
            line.pause();
        }
    }

    /// The device runs.
    pub(super) fn resume(&self) {
        let line = {
            let mut state = lock(&self.state);
            let paused = std::mem::replace(&mut state.paused, false);
            let line = state.link.as_ref().map(Link::line);
            line.filter(|_| paused).map(Arc::clone)
        };
        if let Some(line) = line {
            line.resume();
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
        let link = Link::start(socket, self.deadline)?;
        let unused = {
            let mut state = lock(&self.state);
            if state.closed {
                Some(link)
            } else {
                if state.paused {
                    link.line().pause();
                }
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
        let line = lock(&self.state).usable_line().map(Arc::clone);
        match line {
            Some(line) => line.ask(request, fd, done),
            None => done(Err(MapError::Unavailable)),
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
        lock(&self.state).usable_line().is_some()
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
    fn usable_line(&self) -> Option<&Arc<Line>> {
        let line = self.link.as_ref().map(Link::line);
        line.filter(|line| self.negotiated && line.is_open())
    }
}
