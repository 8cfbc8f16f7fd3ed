//! What the device's threads and the sender thread of one display socket share.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use nosnoop_protocol::ids::{MAX_SCANOUTS, ScanoutId};
use rustix::event::{EventfdFlags, eventfd};

use super::cursor::Cursor;
use super::outbox::{Outbox, Progress};
use super::requests::Requests;
use super::screen::Screen;
use crate::sync::{lock, try_lock};

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

    /// The screen, if nobody has it or waits for it.
    pub(super) fn screen_now(&self) -> Option<MutexGuard<'_, Screen>> {
        let _turn = try_lock(&self.turn)?;
        try_lock(&self.screen)
    }
}

/// All scanouts there can be.
pub(super) struct Slots {
    slots: [Slot; MAX_SCANOUTS],
    /// Those of which something may wait to be sent: the others need not be looked at.
    marked: AtomicU16,
}

/// A set of scanouts, a bit each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks(u16);

const _: () = assert!(MAX_SCANOUTS == 16);

impl Slots {
    pub(super) const fn new() -> Self {
        Self {
            slots: [const { Slot::new() }; MAX_SCANOUTS],
            marked: AtomicU16::new(0),
        }
    }

    /// Has these looked at. For who has changed them, afterwards.
    pub(super) fn mark(&self, these: Marks) {
        self.marked.fetch_or(these.0, Ordering::SeqCst);
    }

    /// Those to look at. What is found in them and not sent has to be marked again.
    pub(super) fn take_marked(&self) -> Marks {
        Marks(self.marked.swap(0, Ordering::SeqCst))
    }

    /// The slot of a scanout; there is one for each id.
    pub(super) fn get(&self, id: ScanoutId) -> Option<&Slot> {
        self.slots.get(id.index())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ScanoutId, &Slot)> {
        ScanoutId::all().zip(&self.slots)
    }
}

impl Marks {
    pub(super) const ALL: Self = Self(u16::MAX);

    pub(super) fn of(id: ScanoutId) -> Self {
        Self(1_u16.checked_shl(id.get()).unwrap_or(0))
    }

    pub(super) fn contain(self, id: ScanoutId) -> bool {
        self.0 & Self::of(id).0 != 0
    }
}

/// The device's end of one display socket.
pub(super) struct Link {
    /// What is being sent, by whoever has the lock; `None` once the sender has ended. Nobody waits for
    /// the socket with it.
    outbox: Mutex<Option<Outbox>>,
    wake: OwnedFd,
    /// `wake` was written and the sender has not looked for work since.
    signalled: AtomicBool,
    stopping: AtomicBool,
    pub(super) requests: Requests,
}

impl Link {
    /// # Errors
    /// No event descriptor to be had.
    pub(super) fn new(socket: Arc<UnixStream>) -> io::Result<Self> {
        Ok(Self {
            outbox: Mutex::new(Some(Outbox::new(socket))),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            signalled: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            requests: Requests::new(),
        })
    }

    /// Has the display sent what is new. A little, which the socket takes at once, is sent here and
    /// now: waking the sender costs two threads more time than that. All else is left to the sender.
    pub(super) fn push(&self, slots: &Slots) {
        let sent = try_lock(&self.outbox).is_some_and(|mut outbox| {
            let outbox = outbox.as_mut();
            outbox.is_none_or(|outbox| outbox.send_at_once(&self.requests, slots))
        });
        if !sent {
            self.signal();
        }
    }

    /// For the sender: sends one piece without waiting.
    ///
    /// # Errors
    /// The socket is broken.
    pub(super) fn step(&self, slots: &Slots) -> io::Result<Progress> {
        // What is published from here on signals again.
        self.signalled.store(false, Ordering::SeqCst);
        match lock(&self.outbox).as_mut() {
            Some(outbox) => outbox.step(&self.requests, slots),
            None => Ok(Progress::Idle),
        }
    }

    /// For the sender, when it ends: nobody sends or is answered any more.
    pub(super) fn close(&self) {
        *lock(&self.outbox) = None;
        self.requests.close();
    }

    /// Tells the sender to look for work. Costs a system call only when it has none to do.
    fn signal(&self) {
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
