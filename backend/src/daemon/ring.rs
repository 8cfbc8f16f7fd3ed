//! One virtqueue: the vhost-user-backend crate's vring with the guards that a hostile guest needs.

use std::fs::File;
use std::io::{self, IoSliceMut, Write};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use vhost_user_backend::{VringMutex, VringStateGuard, VringStateMutGuard, VringT};
use virtio_queue::{Error as QueueError, Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};

use super::chain::Buffers;
use crate::SharedGuestMemory;
use crate::guest::Ram;
use crate::planted::{Bug, planted};
use crate::sync::lock;

/// Flag of the avail ring: the guest wants no notifications (VIRTQ_AVAIL_F_NO_INTERRUPT).
const NO_INTERRUPT: u16 = 1;

/// A virtqueue that several threads use: its worker, and the thread that serves the front-end.
///
/// A guest that breaks the rings themselves (an avail index too far ahead, a head index out of
/// range, rings outside its memory) stops this ring and no other, until the front-end stops and
/// starts it again. The front-end is told once through the ring's error event.
#[derive(Clone)]
pub struct Ring {
    vring: VringMutex<SharedGuestMemory>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    broken: AtomicBool,
    /// Signalled by the guest (`VHOST_USER_SET_VRING_KICK`).
    kick: Mutex<Option<File>>,
    /// Signalled when the ring breaks (`VHOST_USER_SET_VRING_ERR`).
    error: Mutex<Option<File>>,
    restart: Mutex<Restart>,
}

#[derive(Default)]
struct Restart {
    /// The avail index that the last `GET_VRING_BASE` returned.
    stopped_at: Option<u16>,
    /// Whether `SET_VRING_BASE` has set another one since.
    rewound: bool,
}

/// Why a ring was stopped. The guest's driver has a bug or is hostile.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The avail index, or the place of a ring in guest memory.
    #[error("{0}")]
    Queue(#[from] QueueError),
    /// A head index that is no index of the descriptor table.
    #[error("head index {head} in a ring of {size} descriptors")]
    Head {
        /// The index that the avail ring holds.
        head: u16,
        /// Descriptors of the ring.
        size: u16,
    },
    /// An entry that was there is not, or cannot be read.
    #[error("the avail index went back, or the avail ring lies outside guest memory")]
    Unreadable,
}

impl Ring {
    /// Whether the front-end has started the ring and not stopped it since.
    #[must_use]
    pub fn started(&self) -> bool {
        self.vring.get_ref().get_queue().ready()
    }

    /// Whether the front-end lets the ring be worked on (`VHOST_USER_SET_VRING_ENABLE`).
    pub(super) fn enabled(&self) -> bool {
        self.vring.get_ref().is_enabled()
    }

    /// Whether the ring was stopped because the guest broke it.
    #[must_use]
    pub fn broken(&self) -> bool {
        self.shared.broken.load(Ordering::Relaxed)
    }

    /// Whether the ring was stopped and then set to another position than it had stopped at. True
    /// once per such restart. Positions have 16 bits: a ring that begins anew after a multiple of
    /// 65,536 requests looks as one that goes on.
    pub(super) fn take_rewound(&self) -> bool {
        std::mem::take(&mut lock(&self.shared.restart).rewound)
    }

    /// How many requests wait, with the guest's notifications turned off; `None` if the ring is
    /// not to be worked on.
    pub(super) fn waiting(&self, memory: &Ram<'_>) -> Option<u16> {
        let mut state = self.vring.get_mut();
        if self.broken() || !state.is_enabled() || !state.get_queue().ready() {
            return None;
        }
        let queue = state.get_queue_mut();
        let waiting = queue.disable_notification(memory).and_then(|()| {
            // `iter` is what checks the avail index against the ring's size.
            queue.iter(memory).map(drop)?;
            queue.avail_idx(memory, Ordering::Acquire)
        });
        match waiting {
            Ok(index) => Some(index.0.wrapping_sub(queue.next_avail())),
            Err(error) => {
                drop(state);
                self.stop(&error.into());
                None
            }
        }
    }

    /// Turns the guest's notifications on again; true if a request has come meanwhile.
    pub(super) fn rearm(&self, memory: &Ram<'_>) -> bool {
        let result = self
            .vring
            .get_mut()
            .get_queue_mut()
            .enable_notification(memory);
        result.unwrap_or_else(|error| {
            self.stop(&error.into());
            false
        })
    }

    /// Takes the next request and loads its descriptors into `buffers`; `None` if there is none or
    /// the ring is not to be worked on.
    pub(super) fn pop<'r>(
        &'r self,
        memory: &Ram<'_>,
        buffers: &mut Buffers,
    ) -> Option<Completion<'r>> {
        let mut state = self.vring.get_mut();
        if self.broken() || !state.is_enabled() || !state.get_queue().ready() {
            return None;
        }
        let queue = state.get_queue_mut();
        let size = queue.size();
        let popped = match queue.iter(memory) {
            Err(error) => Err(error.into()),
            Ok(mut waiting) => match waiting.next() {
                None => Err(RingError::Unreadable),
                Some(chain) if chain.head_index() >= size => Err(RingError::Head {
                    head: chain.head_index(),
                    size,
                }),
                Some(chain) => Ok(chain),
            },
        };
        drop(state);
        match popped {
            Ok(chain) => {
                let head = chain.head_index();
                buffers.load(chain, memory);
                Some(Completion {
                    ring: self,
                    head,
                    done: false,
                })
            }
            Err(error) => {
                self.stop(&error);
                None
            }
        }
    }

    /// Tells the guest of completed requests, if it wants to be told.
    pub(super) fn notify(&self, memory: &Ram<'_>) {
        if planted(Bug::SignalMissing) {
            return;
        }
        let mut state = self.vring.get_mut();
        let queue = state.get_queue_mut();
        let wanted = match queue.needs_notification(memory) {
            Ok(needed) => planted(Bug::SignalUnwanted) || needed && !is_silenced(queue, memory),
            Err(error) => {
                drop(state);
                return self.stop(&error.into());
            }
        };
        if wanted && let Err(error) = state.signal_used_queue() {
            log::warn!("cannot signal the front-end's call event: {error}");
        }
    }

    /// Takes no further request, whatever the guest does: the connection has ended.
    pub(super) fn close(&self) {
        self.shared.broken.store(true, Ordering::SeqCst);
    }

    fn stop(&self, why: &RingError) {
        match why {
            // Enabled before its addresses are set: a front-end may do it in this order.
            RingError::Queue(QueueError::QueueNotReady) => return,
            // The front-end decides what memory there is; it may come back with the next table.
            RingError::Queue(QueueError::GuestMemory(_)) => {
                log::warn!("a virtqueue cannot be worked on: {why}");
                return;
            }
            _ => {}
        }
        if self.shared.broken.swap(true, Ordering::Relaxed) {
            return;
        }
        log::warn!("a virtqueue is stopped until it is reset: {why}");
        if planted(Bug::BrokenRingFatal) {
            std::process::abort();
        }
        if let Some(event) = lock(&self.shared.error).as_mut()
            && let Err(error) = event.write_all(&1_u64.to_ne_bytes())
        {
            log::warn!("cannot signal the front-end's error event: {error}");
        }
    }

    fn finish(&self, head: u16, written: u32, memory: &Ram<'_>) {
        let written = if planted(Bug::UsedLengthZero) {
            0
        } else {
            written
        };
        let mut state = self.vring.get_mut();
        let added = state.get_queue_mut().add_used(memory, head, written);
        drop(state);
        if let Err(error) = added {
            self.stop(&error.into());
        }
    }
}

/// Whether the guest asks for no notifications at all (virtio 1.4, "Used Buffer Notification
/// Suppression"), which virtio-queue leaves to its users. With EVENT_IDX the flag means nothing.
fn is_silenced(queue: &Queue, memory: &Ram<'_>) -> bool {
    if queue.event_idx_enabled() {
        return false;
    }
    // The used index is out before the flag is read: a guest that clears the flag and then looks
    // at the index misses nothing.
    fence(Ordering::SeqCst);
    let flags = memory.load(GuestAddress(queue.avail_ring()), Ordering::Acquire);
    flags.is_ok_and(|flags: u16| u16::from_le(flags) & NO_INTERRUPT != 0)
}

/// Reads an event if it has been signalled; whether reading it may wait is the front-end's choice.
fn take_event(event: &File) -> rustix::io::Result<()> {
    let mut count = [0_u8; 8];
    let to = &mut [IoSliceMut::new(&mut count)];
    // The greatest offset stands for the file's own.
    match preadv2(event, to, u64::MAX, ReadWriteFlags::NOWAIT) {
        Err(Errno::AGAIN) => Ok(()),
        // Event descriptors can do this since Linux 5.8.
        Err(Errno::OPNOTSUPP) => {
            let mut events = [PollFd::new(event, PollFlags::IN)];
            if poll(&mut events, Some(&Timespec::default()))? == 0 {
                return Ok(());
            }
            rustix::io::read(event, &mut count).map(drop)
        }
        other => other.map(drop),
    }
}

/// A request that was taken from a ring and is owed exactly one completion.
#[must_use = "a request that is not completed never returns to the guest"]
pub(super) struct Completion<'r> {
    ring: &'r Ring,
    head: u16,
    done: bool,
}

impl Completion<'_> {
    /// Returns the request to the guest, `written` bytes of response written.
    pub(super) fn complete(mut self, written: u32, memory: &Ram<'_>) {
        self.done = true;
        self.ring.finish(self.head, written, memory);
    }

    /// Keeps the request for later: [`Held::complete`] is owed now.
    pub(super) fn hold(mut self) -> Held {
        self.done = true;
        Held {
            ring: self.ring.clone(),
            head: self.head,
        }
    }
}

/// A request whose completion comes later, from any thread.
#[must_use = "a request that is not completed never returns to the guest"]
pub(super) struct Held {
    ring: Ring,
    head: u16,
}

impl Held {
    /// Returns the request to the guest, `written` bytes of response written, and tells it.
    pub(super) fn complete(self, written: u32, memory: &Ram<'_>) {
        self.ring.finish(self.head, written, memory);
        self.ring.notify(memory);
    }
}

impl Drop for Completion<'_> {
    /// A path that forgot its request is a bug, but the guest must not hang on it.
    fn drop(&mut self) {
        if !self.done {
            log::error!("a request was dropped without an answer: this is a bug of nosnoop-gpu");
            if let Err(error) = self.ring.vring.add_used(self.head, 0) {
                self.ring.stop(&error.into());
            }
        }
    }
}

impl<'a> VringStateGuard<'a, SharedGuestMemory> for Ring {
    type G = <VringMutex<SharedGuestMemory> as VringStateGuard<'a, SharedGuestMemory>>::G;
}

impl<'a> VringStateMutGuard<'a, SharedGuestMemory> for Ring {
    type G = <VringMutex<SharedGuestMemory> as VringStateMutGuard<'a, SharedGuestMemory>>::G;
}

impl VringT<SharedGuestMemory> for Ring {
    fn new(memory: SharedGuestMemory, max_queue_size: u16) -> Result<Self, QueueError> {
        let vring = VringMutex::new(memory, max_queue_size)?;
        Ok(Self {
            vring,
            shared: Arc::default(),
        })
    }

    fn get_ref(&self) -> <Self as VringStateGuard<'_, SharedGuestMemory>>::G {
        self.vring.get_ref()
    }

    fn get_mut(&self) -> <Self as VringStateMutGuard<'_, SharedGuestMemory>>::G {
        self.vring.get_mut()
    }

    fn add_used(&self, desc_index: u16, len: u32) -> Result<(), QueueError> {
        self.vring.add_used(desc_index, len)
    }

    fn signal_used_queue(&self) -> io::Result<()> {
        self.vring.signal_used_queue()
    }

    fn enable_notification(&self) -> Result<bool, QueueError> {
        self.vring.enable_notification()
    }

    fn disable_notification(&self) -> Result<(), QueueError> {
        self.vring.disable_notification()
    }

    fn needs_notification(&self) -> Result<bool, QueueError> {
        self.vring.needs_notification()
    }

    fn set_enabled(&self, enabled: bool) {
        self.vring.set_enabled(enabled);
    }

    fn set_queue_info(&self, desc: u64, avail: u64, used: u64) -> Result<(), QueueError> {
        self.vring.set_queue_info(desc, avail, used)
    }

    /// Called for `GET_VRING_BASE` alone.
    fn queue_next_avail(&self) -> u16 {
        let index = self.vring.queue_next_avail();
        if planted(Bug::RingPlaceLost) {
            return 0;
        }
        lock(&self.shared.restart).stopped_at = Some(index);
        index
    }

    fn set_queue_next_avail(&self, base: u16) {
        let mut restart = lock(&self.shared.restart);
        restart.rewound |= restart.stopped_at.take().is_some_and(|index| index != base);
        self.vring.set_queue_next_avail(base);
    }

    fn set_queue_next_used(&self, index: u16) {
        self.vring.set_queue_next_used(index);
    }

    fn queue_used_idx(&self) -> Result<u16, QueueError> {
        self.vring.queue_used_idx()
    }

    fn set_queue_size(&self, num: u16) {
        self.vring.set_queue_size(num);
    }

    fn set_queue_event_idx(&self, enabled: bool) {
        self.vring.set_queue_event_idx(enabled);
    }

    fn set_queue_ready(&self, ready: bool) {
        if !planted(Bug::BrokenRingStays) {
            self.shared.broken.store(false, Ordering::Relaxed);
        }
        self.vring.set_queue_ready(ready);
    }

    fn set_kick(&self, file: Option<File>) {
        let copy = file.as_ref().and_then(|file| {
            let copy = file.try_clone();
            copy.inspect_err(|error| log::error!("cannot keep a kick event: {error}"))
                .ok()
        });
        self.vring.set_kick(copy);
        *lock(&self.shared.kick) = file;
    }

    /// The library ends a worker for good when this fails, and a read of an event that nobody has
    /// signalled either fails or blocks. Both can happen to a front-end that replaces the kick
    /// event while the worker is on its way here, so only an event that is there is read.
    fn read_kick(&self) -> io::Result<bool> {
        if let Some(kick) = lock(&self.shared.kick).as_ref()
            && let Err(error) = take_event(kick)
        {
            log::warn!("cannot read a front-end's kick event: {error}");
        }
        Ok(self.vring.get_ref().is_enabled())
    }

    fn set_call(&self, file: Option<File>) {
        self.vring.set_call(file);
    }

    fn set_err(&self, file: Option<File>) {
        *lock(&self.shared.error) = file;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Seek;

    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    #[test]
    fn an_event_is_taken_once_and_never_waited_for() {
        for flags in [EventfdFlags::empty(), EventfdFlags::NONBLOCK] {
            let event = File::from(eventfd(0, flags).unwrap());
            take_event(&event).unwrap();
            (&event).write_all(&3_u64.to_ne_bytes()).unwrap();
            take_event(&event).unwrap();
            let mut polled = [PollFd::new(&event, PollFlags::IN)];
            assert_eq!(poll(&mut polled, Some(&Timespec::default())), Ok(0));
        }
    }

    /// Files of procfs stand in for the event descriptors of an old kernel: they can be polled and read,
    /// but not read "without waiting".
    #[test]
    fn an_event_of_an_old_kernel_is_taken_too() {
        let mut event = File::open("/proc/self/status").unwrap();
        let mut bytes = [0; 8];
        let to = &mut [IoSliceMut::new(&mut bytes)];
        let read = preadv2(&event, to, u64::MAX, ReadWriteFlags::NOWAIT);
        assert_eq!(read, Err(Errno::OPNOTSUPP));
        take_event(&event).unwrap();
        assert_eq!(event.stream_position().unwrap(), 8);
    }
}
