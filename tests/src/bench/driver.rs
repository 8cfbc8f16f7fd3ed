//! A driver that costs little: what it measures is the back-end.
//!
//! Requests, response buffers and descriptors are written once. Commands are published by one store
//! of the available index and at most one kick; the driver sleeps on the call event like a guest
//! that waits for its interrupt, and asks for one only when the last of them is done. Completions may
//! come in any order, as the specification allows. Every completion and every response is checked,
//! so that a back-end that fails quickly is not a fast one.

use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, VolatileSlice};

use crate::frontend::driver::Gpu;
use crate::frontend::error::{Deadline, Error, Result, patience, wait_readable};
use crate::frontend::memory::Span;
use crate::frontend::request::FLAG_FENCE;
use crate::frontend::response::HEADER;
use crate::frontend::ring::{DESC_WRITE, Descriptor};

/// Response buffers begin at multiples of this: no two share a cache line.
const ALIGN: usize = 64;
/// Where a request has the id of its fence (virtio 1.3, 5.7.6.7: `struct virtio_gpu_ctrl_hdr`).
const FENCE_ID: u64 = 8;

/// A command to be sent again and again.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    /// Its name, for errors.
    pub(super) name: &'static str,
    /// Its bytes.
    pub(super) request: Vec<u8>,
    /// Room for the response, bytes.
    pub(super) room: usize,
    /// The response type that must come.
    pub(super) expected: u32,
}

#[derive(Debug)]
struct Slot {
    name: &'static str,
    head: u16,
    request: u64,
    /// Where the response begins in the area of all responses.
    answer: usize,
    expected: u32,
    /// The id of the fence that it was sent with last.
    fence: Option<u64>,
    /// Whether it is sent and not answered.
    pending: bool,
}

/// A control queue whose commands are prepared. The queue belongs to it from then on.
#[derive(Debug)]
pub(super) struct Driver {
    map: GuestMemoryMmap,
    available: Span,
    used: Span,
    answers: Span,
    size: u16,
    event_idx: bool,
    next: u16,
    done: u16,
    /// The slot after the one that was answered last.
    expected: usize,
    slots: Vec<Slot>,
    kick: OwnedFd,
    call: OwnedFd,
    patience: Duration,
    /// The id of the last fence. They count up: a back-end may not take one for signalled already.
    last_fence: u64,
}

impl Driver {
    /// Takes over the control queue, on which nothing may be in flight.
    ///
    /// # Errors
    /// Out of descriptors or guest memory.
    pub(super) fn new(gpu: &mut Gpu, event_idx: bool, commands: &[Prepared]) -> Result<Self> {
        let rooms = commands.iter().map(|c| c.room.next_multiple_of(ALIGN));
        let answers = gpu.ram.alloc(rooms.sum())?;
        let requests = commands.iter().map(|c| c.request.len());
        let requests = gpu
            .ram
            .alloc(requests.map(|len| len.next_multiple_of(ALIGN)).sum())?;
        let ring = gpu.control.ring();
        if ring.in_flight() != 0 {
            let (ring, what) = (0, "commands are in flight".to_owned());
            return Err(Error::Ring { ring, what });
        }
        let (mut answer, mut request) = (0, requests.addr);
        let mut slots = Vec::with_capacity(commands.len());
        for command in commands {
            gpu.ram.write(request, &command.request)?;
            let descriptors = ring.reserve(2)?;
            let (head, tail) = (descriptors[0], descriptors[1]);
            let parts = [
                (head, request, command.request.len(), 1, tail),
                (
                    tail,
                    answers.addr + answer as u64,
                    command.room,
                    DESC_WRITE,
                    0,
                ),
            ];
            for (index, addr, len, flags, next) in parts {
                let len = len as u32;
                let descriptor = Descriptor {
                    addr,
                    len,
                    flags,
                    next,
                };
                ring.write_descriptor(index, descriptor)?;
            }
            let fenced = command.request[4] & FLAG_FENCE as u8 != 0;
            let fence = command.request[8..16]
                .try_into()
                .ok()
                .map(u64::from_le_bytes);
            slots.push(Slot {
                name: command.name,
                head,
                request,
                answer,
                expected: command.expected,
                fence: fence.filter(|_| fenced),
                pending: false,
            });
            request += command.request.len().next_multiple_of(ALIGN) as u64;
            answer += command.room.next_multiple_of(ALIGN);
        }
        let duplicate = |fd: std::os::fd::BorrowedFd<'_>| {
            fd.try_clone_to_owned()
                .map_err(|e| Error::io("duplicate an eventfd", e))
        };
        let [_, available, used] = ring.parts();
        let fences = slots.iter().filter_map(|slot: &Slot| slot.fence);
        Ok(Self {
            last_fence: fences.max().unwrap_or(0),
            map: gpu.ram.map(),
            available,
            used,
            answers,
            size: ring.size(),
            event_idx,
            next: ring.next_avail(),
            done: ring.next_avail(),
            expected: 0,
            slots,
            kick: duplicate(ring.kick_fd())?,
            call: duplicate(ring.call_fd())?,
            patience: patience(),
        })
    }

    /// Overwrites bytes of a request.
    ///
    /// # Errors
    /// Never in practice.
    pub(super) fn patch(&self, slot: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        let at = GuestAddress(self.slots[slot].request + offset);
        let written = self.map.write_slice(bytes, at);
        written.map_err(|e| Error::Memory(e.to_string()))
    }

    /// Sends these commands at once and waits until all are answered as they must be.
    ///
    /// # Errors
    /// As [`Self::publish`] and [`Self::collect`].
    pub(super) fn batch(&mut self, range: Range<usize>) -> Result<()> {
        self.publish(range.clone())?;
        self.collect(range)
    }

    /// Sends these commands at once; those with a fence get a new id for it.
    ///
    /// # Errors
    /// [`Error::Io`] if the kick fails.
    pub(super) fn publish(&mut self, range: Range<usize>) -> Result<()> {
        let first = self.next;
        let available = slice(&self.map, self.available)?;
        let answers = slice(&self.map, self.answers)?;
        for slot in &mut self.slots[range] {
            if let Some(fence) = &mut slot.fence {
                self.last_fence += 1;
                *fence = self.last_fence;
                let at = GuestAddress(slot.request + FENCE_ID);
                let stored = self.map.store(fence.to_le(), at, Ordering::Relaxed);
                stored.map_err(|e| Error::Memory(e.to_string()))?;
            }
            slot.pending = true;
            store::<u32>(&answers, slot.answer, 0)?;
            let at = 4 + 2 * usize::from(self.next % self.size);
            store::<u16>(&available, at, slot.head.to_le())?;
            self.next = self.next.wrapping_add(1);
        }
        store::<u16>(&available, 2, self.next.to_le())?;
        fence(Ordering::SeqCst);
        if self.wants_kick(&slice(&self.map, self.used)?, first)? {
            rustix::io::write(&self.kick, &1_u64.to_ne_bytes())
                .map_err(|e| Error::io("kick", e))?;
        }
        Ok(())
    }

    /// Waits until these commands, which were sent, are answered as they must be, in any order and
    /// whatever else is answered before them.
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::Refused`] for another answer, [`Error::Ring`] for a used ring
    /// that breaks the rules.
    pub(super) fn collect(&mut self, range: Range<usize>) -> Result<()> {
        let used = slice(&self.map, self.used)?;
        let answers = slice(&self.map, self.answers)?;
        let pending = |slot: &&Slot| slot.pending;
        let mut left = self.slots[range.clone()].iter().filter(pending).count();
        while left > 0 {
            // So many must come at least before all of these are done.
            self.wait(&used, left as u16)?;
            let awaited = left;
            for _ in 0..awaited {
                let at = 4 + 8 * usize::from(self.done % self.size);
                let head = u32::from_le(load(&used, at)?);
                let len = u32::from_le(load(&used, at + 4)?);
                // Most come in the order in which they were sent.
                let first = self.expected % self.slots.len();
                let order = (first..self.slots.len()).chain(0..first);
                let is_it = |slot: &Slot| slot.pending && u32::from(slot.head) == head;
                let Some(index) = order.into_iter().find(|at| is_it(&self.slots[*at])) else {
                    let (ring, what) = (0, format!("completion of chain {head}, not expected"));
                    return Err(Error::Ring { ring, what });
                };
                self.done = self.done.wrapping_add(1);
                self.expected = index + 1;
                let slot = &mut self.slots[index];
                slot.pending = false;
                if (len as usize) < HEADER {
                    let (ring, what) = (0, format!("{} answered with {len} bytes", slot.name));
                    return Err(Error::Ring { ring, what });
                }
                slot.check(&answers)?;
                left -= usize::from(range.contains(&index));
            }
        }
        Ok(())
    }

    fn wants_kick(&self, used: &VolatileSlice<'_>, first: u16) -> Result<bool> {
        if self.event_idx {
            let at = 4 + 8 * usize::from(self.size);
            let event = u16::from_le(load(used, at)?);
            let passed = self.next.wrapping_sub(event).wrapping_sub(1);
            return Ok(passed < self.next.wrapping_sub(first));
        }
        Ok(u16::from_le(load(used, 0)?) & 1 == 0)
    }

    /// Waits until so many more are done.
    fn wait(&self, used: &VolatileSlice<'_>, count: u16) -> Result<()> {
        let ready =
            || Ok::<_, Error>(u16::from_le(load(used, 2)?).wrapping_sub(self.done) >= count);
        if ready()? {
            return Ok(());
        }
        // "Interrupt me when the last one is done", then look again: it may just have been.
        let available = slice(&self.map, self.available)?;
        let last = self.done.wrapping_add(count).wrapping_sub(1);
        let at = 4 + 2 * usize::from(self.size);
        store::<u16>(&available, at, last.to_le())?;
        fence(Ordering::SeqCst);
        let deadline = Deadline::after(self.patience);
        while !ready()? {
            wait_readable([self.call.as_fd()], &deadline, "its answers")?;
            // Empty only if the interrupt was an old one.
            let _ = rustix::io::read(&self.call, &mut [0_u8; 8]);
        }
        Ok(())
    }
}

impl Slot {
    /// Checks the response in its buffer.
    fn check(&self, answers: &VolatileSlice<'_>) -> Result<()> {
        let got = u32::from_le(load(answers, self.answer)?);
        if got != self.expected {
            return Err(Error::Refused {
                command: self.name.to_owned(),
                got,
                expected: self.expected,
            });
        }
        let Some(fence) = self.fence else {
            return Ok(());
        };
        let flags = u32::from_le(load(answers, self.answer + 4)?);
        let id = u64::from_le(load(answers, self.answer + 8)?);
        if flags & FLAG_FENCE != 0 && id == fence {
            return Ok(());
        }
        let (name, ring) = (self.name, 0);
        let what =
            format!("{name} with fence {fence} was answered with fence {id}, flags {flags:#x}");
        Err(Error::Ring { ring, what })
    }
}

fn slice(map: &GuestMemoryMmap, span: Span) -> Result<VolatileSlice<'_>> {
    map.get_slice(GuestAddress(span.addr), span.len as usize)
        .map_err(|e| Error::Memory(e.to_string()))
}

fn load<T: vm_memory::AtomicAccess>(slice: &VolatileSlice<'_>, at: usize) -> Result<T> {
    let value = slice.load(at, Ordering::Acquire);
    value.map_err(|e| Error::Memory(e.to_string()))
}

fn store<T: vm_memory::AtomicAccess>(slice: &VolatileSlice<'_>, at: usize, value: T) -> Result<()> {
    let stored = slice.store(value, at, Ordering::Release);
    stored.map_err(|e| Error::Memory(e.to_string()))
}

#[cfg(test)]
mod tests;
