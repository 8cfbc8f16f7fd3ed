//! The driver's side of a split virtqueue (virtio 1.4, "Split Virtqueues"), in guest memory.
//!
//! Beside the honest operations there is raw access to descriptors, available ring and indices, for
//! tests that need a ring no honest driver would make. The used ring is checked on every read: each
//! completion must belong to a chain in flight, and each chain completes once.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use rustix::event::EventfdFlags;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::error::{Deadline, Error, Result, wait_readable};
use super::memory::{GuestRam, Span, USER_OFFSET};
use super::message::VringAddr;

/// Descriptor flag: the chain goes on at `next`.
pub const DESC_NEXT: u16 = 1;
/// Descriptor flag: the device writes here.
pub const DESC_WRITE: u16 = 2;
/// Descriptor flag: the buffer holds a table of descriptors.
pub const DESC_INDIRECT: u16 = 4;

/// Used-ring flag: the device needs no notifications.
const USED_NO_NOTIFY: u16 = 1;

/// One descriptor, as it lies in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// Guest address of the buffer.
    pub addr: u64,
    /// Bytes of the buffer.
    pub len: u32,
    /// `DESC_*` bits.
    pub flags: u16,
    /// The next descriptor, with [`DESC_NEXT`].
    pub next: u16,
}

impl Descriptor {
    /// The 16 bytes in memory.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[0..8].copy_from_slice(&self.addr.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.flags.to_le_bytes());
        bytes[14..16].copy_from_slice(&self.next.to_le_bytes());
        bytes
    }
}

/// A completion from the used ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// Head of the chain.
    pub head: u16,
    /// Bytes the device says it wrote.
    pub len: u32,
}

/// How often each side notified the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notifications {
    /// Kicks sent to the device.
    pub kicks: u64,
    /// Kicks that the device had said it does not need.
    pub kicks_saved: u64,
    /// Interrupts that came.
    pub interrupts: u64,
}

/// A split virtqueue of one device queue.
#[derive(Debug)]
pub struct SplitRing {
    index: u32,
    size: u16,
    event_idx: bool,
    map: GuestMemoryMmap,
    descriptors: Span,
    available: Span,
    used: Span,
    free: Vec<u16>,
    in_flight: HashMap<u16, Vec<u16>>,
    next_avail: u16,
    next_used: u16,
    kicked_at: u16,
    kick: OwnedFd,
    call: OwnedFd,
    err: OwnedFd,
    notifications: Notifications,
}

impl SplitRing {
    /// Allocates the three parts of a ring with `size` entries (a power of two up to 32768) for
    /// device queue `index`.
    ///
    /// # Errors
    /// Out of guest memory or file descriptors.
    pub fn new(ram: &Arc<GuestRam>, index: u32, size: u16, event_idx: bool) -> Result<Self> {
        let entries = usize::from(size);
        let descriptors = ram.alloc(16 * entries)?;
        let available = ram.alloc(6 + 2 * entries)?;
        let used = ram.alloc(6 + 8 * entries)?;
        let eventfd = || {
            rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                .map_err(|e| Error::io("eventfd", e))
        };
        Ok(SplitRing {
            index,
            size,
            event_idx,
            map: ram.map(),
            descriptors,
            available,
            used,
            free: (0..size).rev().collect(),
            in_flight: HashMap::new(),
            next_avail: 0,
            next_used: 0,
            kicked_at: 0,
            kick: eventfd()?,
            call: eventfd()?,
            err: eventfd()?,
            notifications: Notifications::default(),
        })
    }

    /// Device queue index.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Number of entries.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Descriptors not in use.
    pub fn free_descriptors(&self) -> usize {
        self.free.len()
    }

    /// Chains handed to the device and not completed yet.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// The available index as last published.
    pub fn next_avail(&self) -> u16 {
        self.next_avail
    }

    /// How often each side notified the other so far.
    pub fn notifications(&self) -> Notifications {
        self.notifications
    }

    /// The kick event file descriptor.
    pub fn kick_fd(&self) -> BorrowedFd<'_> {
        self.kick.as_fd()
    }

    /// The call event file descriptor.
    pub fn call_fd(&self) -> BorrowedFd<'_> {
        self.call.as_fd()
    }

    /// The error event file descriptor.
    pub fn err_fd(&self) -> BorrowedFd<'_> {
        self.err.as_fd()
    }

    /// Addresses for SET_VRING_ADDR, in the front-end's address space.
    pub fn addresses(&self) -> VringAddr {
        VringAddr {
            descriptors: self.descriptors.addr + USER_OFFSET,
            used: self.used.addr + USER_OFFSET,
            available: self.available.addr + USER_OFFSET,
        }
    }

    /// Guest addresses of descriptor table, available ring and used ring.
    pub fn parts(&self) -> [Span; 3] {
        [self.descriptors, self.available, self.used]
    }

    /// Forgets everything in flight and zeroes the ring, as a driver does when it resets the queue.
    /// The daemon must have been told to stop the ring before.
    ///
    /// # Errors
    /// Never in practice: the ring lies in its own memory.
    pub fn reset(&mut self) -> Result<()> {
        for part in self.parts() {
            self.put(part.addr, &vec![0; part.len as usize])?;
        }
        self.free = (0..self.size).rev().collect();
        self.in_flight.clear();
        (self.next_avail, self.next_used, self.kicked_at) = (0, 0, 0);
        drain(&self.kick);
        drain(&self.call);
        Ok(())
    }

    /// Empties the ring as [`Self::reset`] does and sets all its indices to `index`, as if that many
    /// chains had gone through it. The daemon must be told by SET_VRING_BASE.
    ///
    /// # Errors
    /// As [`Self::reset`].
    pub fn reset_to(&mut self, index: u16) -> Result<()> {
        self.reset()?;
        (self.next_avail, self.next_used, self.kicked_at) = (index, index, index);
        self.store_u16(self.available.addr + 2, index)?;
        self.store_u16(self.used.addr + 2, index)?;
        // The device's own wish for a kick, which it renews when it starts.
        self.store_u16(self.used.addr + 4 + 8 * u64::from(self.size), index)
    }

    fn put(&self, addr: u64, bytes: &[u8]) -> Result<()> {
        self.map
            .write_slice(bytes, GuestAddress(addr))
            .map_err(|e| self.broken(format!("{e}")))
    }

    fn load_u16(&self, addr: u64) -> Result<u16> {
        let value: u16 = self
            .map
            .load(GuestAddress(addr), Ordering::Acquire)
            .map_err(|e| self.broken(format!("{e}")))?;
        Ok(u16::from_le(value))
    }

    fn store_u16(&self, addr: u64, value: u16) -> Result<()> {
        self.map
            .store(value.to_le(), GuestAddress(addr), Ordering::Release)
            .map_err(|e| self.broken(format!("{e}")))
    }

    fn broken(&self, what: impl Into<String>) -> Error {
        Error::Ring {
            ring: self.index,
            what: what.into(),
        }
    }

    /// Takes `count` free descriptors out of the pool, for chains built by hand.
    ///
    /// # Errors
    /// [`Error::Ring`] when fewer are free.
    pub fn reserve(&mut self, count: usize) -> Result<Vec<u16>> {
        if count > self.free.len() {
            return Err(self.broken(format!("{count} descriptors of {} free", self.free.len())));
        }
        let at = self.free.len() - count;
        Ok(self.free.split_off(at).into_iter().rev().collect())
    }

    /// Writes any descriptor at any index of the table.
    ///
    /// # Errors
    /// [`Error::Ring`] outside guest memory.
    pub fn write_descriptor(&self, index: u16, descriptor: Descriptor) -> Result<()> {
        self.put(
            self.descriptors.addr + 16 * u64::from(index),
            &descriptor.to_bytes(),
        )
    }

    /// Puts any head into the slot of the available ring that belongs to position `position`.
    ///
    /// # Errors
    /// Never in practice.
    pub fn write_available(&self, position: u16, head: u16) -> Result<()> {
        let slot = u64::from(position % self.size);
        self.store_u16(self.available.addr + 4 + 2 * slot, head)
    }

    /// Publishes any available index.
    ///
    /// # Errors
    /// Never in practice.
    pub fn write_available_index(&mut self, index: u16) -> Result<()> {
        self.next_avail = index;
        self.store_u16(self.available.addr + 2, index)
    }

    /// The index the device has published in the used ring.
    ///
    /// # Errors
    /// Never in practice.
    pub fn used_index(&self) -> Result<u16> {
        self.load_u16(self.used.addr + 2)
    }

    /// Makes a chain of the given descriptors, all but the last linked to the next one, and hands it
    /// to the device without a kick. Flags other than NEXT are the caller's.
    ///
    /// # Errors
    /// [`Error::Ring`] when there are not enough free descriptors, or none are given.
    pub fn submit(&mut self, chain: &[Descriptor]) -> Result<u16> {
        let indices = self.reserve(chain.len())?;
        let head = *indices
            .first()
            .ok_or_else(|| self.broken("an empty chain"))?;
        for (at, descriptor) in chain.iter().enumerate() {
            let mut descriptor = *descriptor;
            if let Some(next) = indices.get(at + 1) {
                descriptor.flags |= DESC_NEXT;
                descriptor.next = *next;
            }
            self.write_descriptor(indices[at], descriptor)?;
        }
        self.submit_head(head, indices)?;
        Ok(head)
    }

    /// Hands any head to the device; `indices` go back to the free pool when it completes.
    ///
    /// # Errors
    /// Never in practice.
    pub fn submit_head(&mut self, head: u16, indices: Vec<u16>) -> Result<()> {
        self.write_available(self.next_avail, head)?;
        self.in_flight.insert(head, indices);
        self.write_available_index(self.next_avail.wrapping_add(1))
    }

    /// Notifies the device of what was submitted since the last kick, unless it said it needs none.
    ///
    /// # Errors
    /// [`Error::Io`] if the event file descriptor refuses.
    pub fn kick(&mut self) -> Result<()> {
        fence(Ordering::SeqCst);
        let needed = if self.event_idx {
            let event = self.load_u16(self.used.addr + 4 + 8 * u64::from(self.size))?;
            let new = self.next_avail;
            new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(self.kicked_at)
        } else {
            self.load_u16(self.used.addr)? & USED_NO_NOTIFY == 0
        };
        self.kicked_at = self.next_avail;
        if needed {
            return self.kick_always();
        }
        self.notifications.kicks_saved += 1;
        Ok(())
    }

    /// Notifies the device whatever it said.
    ///
    /// # Errors
    /// [`Error::Io`] if the event file descriptor refuses.
    pub fn kick_always(&mut self) -> Result<()> {
        self.notifications.kicks += 1;
        rustix::io::write(&self.kick, &1_u64.to_ne_bytes()).map_err(|e| Error::io("kick", e))?;
        Ok(())
    }

    /// Takes the next completion, if there is one.
    ///
    /// # Errors
    /// [`Error::Ring`] for a completion of nothing in flight, or of more than is in flight.
    pub fn pop_used(&mut self) -> Result<Option<Used>> {
        let published = self.used_index()?;
        let ready = published.wrapping_sub(self.next_used);
        if ready == 0 {
            return Ok(None);
        }
        if usize::from(ready) > self.in_flight.len() {
            let have = self.in_flight.len();
            return Err(self.broken(format!("{ready} completions for {have} chains in flight")));
        }
        let slot = u64::from(self.next_used % self.size);
        let mut element = [0; 8];
        self.map
            .read_slice(&mut element, GuestAddress(self.used.addr + 4 + 8 * slot))
            .map_err(|e| self.broken(format!("{e}")))?;
        let id = u32::from_le_bytes([element[0], element[1], element[2], element[3]]);
        let len = u32::from_le_bytes([element[4], element[5], element[6], element[7]]);
        let indices = u16::try_from(id)
            .ok()
            .and_then(|head| self.in_flight.remove(&head));
        let Some(indices) = indices else {
            return Err(self.broken(format!("completion of chain {id}, which is not in flight")));
        };
        self.free.extend(indices);
        self.next_used = self.next_used.wrapping_add(1);
        Ok(Some(Used {
            head: id as u16,
            len,
        }))
    }

    /// Waits for the next completion the way a driver does: by the interrupt, not by polling. A
    /// device that forgets to interrupt is found out here.
    ///
    /// # Errors
    /// [`Error::Timeout`] (which says whether the used index had moved), or as [`Self::pop_used`].
    pub fn wait_used(&mut self, deadline: &Deadline) -> Result<Used> {
        let ring = self.index;
        loop {
            if let Some(used) = self.pop_used()? {
                return Ok(used);
            }
            // "Interrupt me for the next one", then look again: the device may just have finished.
            self.store_u16(
                self.available.addr + 4 + 2 * u64::from(self.size),
                self.next_used,
            )?;
            fence(Ordering::SeqCst);
            if let Some(used) = self.pop_used()? {
                return Ok(used);
            }
            let awaited = format!("a completion on ring {ring}");
            match wait_readable([self.call.as_fd()], deadline, &awaited) {
                Ok(_) => {
                    drain(&self.call);
                    self.notifications.interrupts += 1;
                }
                Err(error) if error.is_timeout() && self.used_index()? != self.next_used => {
                    return Err(self.broken("completed a chain without an interrupt"));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Checks that nothing completes for a while.
    ///
    /// # Errors
    /// [`Error::Ring`] if something does.
    pub fn expect_silence(&mut self, pause: std::time::Duration) -> Result<()> {
        std::thread::sleep(pause);
        match self.pop_used()? {
            None => Ok(()),
            Some(used) => Err(self.broken(format!("{used:?} completed on a stopped ring"))),
        }
    }

    /// Whether the device has signalled an error on this ring since the last call.
    pub fn take_error(&self) -> bool {
        drain(&self.err)
    }
}

/// Empties an event file descriptor; says whether there was something in it.
fn drain(fd: &OwnedFd) -> bool {
    rustix::io::read(fd, &mut [0_u8; 8]).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontend::memory::PAGE;

    /// A ring and a way to play the device: complete (id, len) as the entry at a used index.
    fn ring() -> (SplitRing, impl Fn(u16, u32, u32)) {
        let ram = GuestRam::new(&[(0, 64 * PAGE)]).unwrap();
        let ring = SplitRing::new(&ram, 0, 8, false).unwrap();
        let used = ring.parts()[2].addr;
        let complete = move |at: u16, id: u32, len: u32| {
            let slot = used + 4 + 8 * u64::from(at % 8);
            ram.write(slot, &[id.to_le_bytes(), len.to_le_bytes()].concat())
                .unwrap();
            ram.write(used + 2, &(at + 1).to_le_bytes()).unwrap();
        };
        (ring, complete)
    }

    #[test]
    fn a_completion_is_taken_once_and_frees_its_descriptors() {
        let (mut ring, complete) = ring();
        let head = ring.submit(&[Descriptor::default(); 3]).unwrap();
        assert_eq!(ring.free_descriptors(), 5);
        assert_eq!(ring.pop_used().unwrap(), None);
        complete(0, head.into(), 24);
        assert_eq!(ring.pop_used().unwrap(), Some(Used { head, len: 24 }));
        assert_eq!(
            (ring.pop_used().unwrap(), ring.free_descriptors()),
            (None, 8)
        );
    }

    #[test]
    fn completions_of_nothing_twice_or_of_strangers_are_errors() {
        let (mut ring, complete) = ring();
        complete(0, 0, 0);
        assert!(ring.pop_used().is_err(), "nothing was in flight");

        let (mut ring, complete) = self::ring();
        let head = ring.submit(&[Descriptor::default()]).unwrap();
        ring.submit(&[Descriptor::default()]).unwrap();
        complete(0, head.into(), 0);
        ring.pop_used().unwrap();
        complete(1, head.into(), 0);
        assert!(ring.pop_used().is_err(), "the same chain twice");

        let (mut ring, complete) = self::ring();
        ring.submit(&[Descriptor::default()]).unwrap();
        complete(0, 0x1_0000, 0);
        assert!(ring.pop_used().is_err(), "no such head");
    }

    #[test]
    fn a_completion_without_an_interrupt_is_found_out() {
        let (mut ring, complete) = ring();
        let head = ring.submit(&[Descriptor::default()]).unwrap();
        let deadline = Deadline::after(std::time::Duration::from_millis(200));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(std::time::Duration::from_millis(50));
                complete(0, head.into(), 0);
            });
            let error = ring.wait_used(&deadline).unwrap_err();
            assert!(
                error.to_string().contains("without an interrupt"),
                "{error}"
            );
        });
    }
}
