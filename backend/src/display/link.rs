//! What the device's threads and the sender thread of one display socket share.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use nosnoop_protocol::ids::{MAX_SCANOUTS, ScanoutId};
use rustix::event::{EventfdFlags, eventfd};

use super::cursor::Cursor;
use super::requests::Requests;
use super::screen::Screen;
use crate::sync::lock;

/// One scanout as the device and the sender see it.
pub(super) struct Slot {
    /// Held by who waits for `screen`. The system's locks are not fair: without it, the one who
    /// has just let go of the screen mostly gets it again, and a guest that flushes without pause
    /// would never let the sender in, nor the sender the guest.
    turn: Mutex<()>,
    screen: Mutex<Screen>,
    pub(super) cursor: Mutex<Cursor>,
}

impl Slot {
    const fn new() -> Self {
        Self {
            turn: Mutex::new(()),
            screen: Mutex::new(Screen::off()),
            cursor: Mutex::new(Cursor::hidden()),
        }
    }

    /// The screen. Nobody holds it while waiting for the socket.
    pub(super) fn screen(&self) -> MutexGuard<'_, Screen> {
        let _turn = lock(&self.turn);
        lock(&self.screen)
    }
}

/// All scanouts there can be.
pub(super) struct Slots {
    slots: [Slot; MAX_SCANOUTS],
}

impl Slots {
    pub(super) const fn new() -> Self {
        Self {
            slots: [const { Slot::new() }; MAX_SCANOUTS],
        }
    }

    /// The slot of a scanout; there is one for each id.
    pub(super) fn get(&self, id: ScanoutId) -> Option<&Slot> {
        self.slots.get(id.index())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ScanoutId, &Slot)> {
        ScanoutId::all().zip(&self.slots)
    }
}

/// The device's end of one display socket.
pub(super) struct Link {
    wake: OwnedFd,
    /// `wake` was written and the sender has not looked for work since.
    signalled: AtomicBool,
    stopping: AtomicBool,
    pub(super) requests: Requests,
}

impl Link {
    /// # Errors
    /// No event descriptor to be had.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            signalled: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            requests: Requests::new(),
        })
    }

    /// Tells the sender to look for work. Costs a system call only when it has none to do.
    pub(super) fn signal(&self) {
        if !self.signalled.swap(true, Ordering::SeqCst) {
            self.write_wake();
        }
    }

    /// Ends the sender, whatever it does.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.write_wake();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// For the sender, before it looks for work: what is published from here on signals again.
    pub(super) fn rearm(&self) {
        self.signalled.store(false, Ordering::SeqCst);
    }

    /// For the sender, when the event descriptor is readable.
    pub(super) fn drain(&self) {
        let mut count = [0; 8];
        // It does not block, and an empty counter is as good as an emptied one.
        let _ = rustix::io::read(&self.wake, &mut count);
    }

    fn write_wake(&self) {
        // Fails only when the counter is at its end, and then the sender is awake.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
