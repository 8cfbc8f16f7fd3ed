//! A set of descriptors that can be waited for.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use epoll::{ControlOptions, Event, Events};

/// An epoll instance. A descriptor leaves it when its last copy is closed.
#[derive(Debug)]
pub(super) struct Poll(RawFd);

impl Poll {
    /// # Errors
    /// No descriptor to be had.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(true)?))
    }

    /// Waits for `events` of a descriptor; they come with `token`.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn add(&self, fd: &impl AsRawFd, events: Events, token: u64) -> io::Result<()> {
        self.control(ControlOptions::EPOLL_CTL_ADD, fd, events, token)
    }

    /// The same for one that is in the set.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn modify(&self, fd: &impl AsRawFd, events: Events, token: u64) -> io::Result<()> {
        self.control(ControlOptions::EPOLL_CTL_MOD, fd, events, token)
    }

    fn control(
        &self,
        what: ControlOptions,
        fd: &impl AsRawFd,
        events: Events,
        token: u64,
    ) -> io::Result<()> {
        epoll::ctl(self.0, what, fd.as_raw_fd(), Event::new(events, token))
    }

    /// The token of a descriptor that is ready: in turn, where several are. Without `wait` `None` if
    /// there is none now.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn ready(&self, wait: bool) -> io::Result<Option<u64>> {
        let mut events = [Event::new(Events::empty(), 0)];
        match epoll::wait(self.0, if wait { -1 } else { 0 }, &mut events) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            result => Ok((result? > 0).then_some(events[0].data)),
        }
    }
}

impl AsRawFd for Poll {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

impl Drop for Poll {
    fn drop(&mut self) {
        let _ = epoll::close(self.0);
    }
}
