//! The thread that waits for a device's channels.
//!
//! It sleeps while no fence waits for anything and nothing is to be sent: each wait is armed once, for
//! one event.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use epoll::Events;
use rustix::event::{EventfdFlags, eventfd};

use super::inlet::Inlet;
use super::poll::Poll;
use crate::device::Device;
use crate::device::context::ContextSerial;

const WAKE: u64 = u64::MAX;

/// What is waited for of a channel: tokens of the contexts' serial numbers with this in the lowest bit.
const INLET: u64 = 0;
const ROOM: u64 = 1;

/// The thread's work.
#[derive(Debug)]
pub(super) struct Watcher {
    poll: Poll,
    wake: OwnedFd,
    stopping: AtomicBool,
}

impl Watcher {
    /// Starts the thread. It ends by [`Watcher::stop`], or when the device has gone.
    ///
    /// # Errors
    /// No descriptor or thread to be had.
    pub(super) fn start(device: Weak<Device>) -> io::Result<Arc<Self>> {
        let watcher = Arc::new(Self {
            poll: Poll::new()?,
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            stopping: AtomicBool::new(false),
        });
        watcher.poll.add(&watcher.wake, Events::EPOLLIN, WAKE)?;
        let thread = Arc::clone(&watcher);
        std::thread::Builder::new()
            .name("channels".into())
            .spawn(move || thread.run(&device))?;
        Ok(watcher)
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Only a full counter could refuse, and that one is readable already.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// # Errors
    /// What the kernel says.
    pub(super) fn add(&self, context: ContextSerial, inlet: &Inlet) -> io::Result<()> {
        let token = token(context, INLET);
        self.poll.add(inlet.poll(), Events::EPOLLONESHOT, token)
    }

    /// Waits for one event of a channel.
    pub(super) fn arm(&self, context: ContextSerial, inlet: &Inlet) {
        let events = Events::EPOLLIN | Events::EPOLLONESHOT;
        let armed = self
            .poll
            .modify(inlet.poll(), events, token(context, INLET));
        if let Err(error) = armed {
            log::error!("a channel is not waited for: {error}");
        }
    }

    /// Waits for room to write to a descriptor of a channel, which has been waited for before or not.
    pub(super) fn await_room(&self, context: ContextSerial, fd: &impl AsRawFd, before: bool) {
        let events = Events::EPOLLOUT | Events::EPOLLONESHOT;
        let token = token(context, ROOM);
        let waiting = if before {
            self.poll.modify(fd, events, token)
        } else {
            self.poll.add(fd, events, token)
        };
        if let Err(error) = waiting {
            log::error!("room in a channel is not waited for: {error}");
        }
    }

    fn run(&self, device: &Weak<Device>) {
        while !self.stopping.load(Ordering::SeqCst) {
            let ready = match self.poll.ready(true) {
                Ok(ready) => ready,
                Err(error) => return log::error!("channels are not served any more: {error}"),
            };
            let (Some(token), Some(device)) = (ready, device.upgrade()) else {
                continue;
            };
            let context = ContextSerial(token >> 1);
            match token {
                WAKE => {}
                _ if token & 1 == ROOM => device.channel_has_room(context),
                _ => device.channel_ready(context),
            }
        }
    }
}

fn token(context: ContextSerial, what: u64) -> u64 {
    context.0.wrapping_shl(1) | what
}
