//! The driver side of one queue, as honest or as broken as asked.

use nosnoop_gpu::SharedGuestMemory;
use nosnoop_gpu::daemon::ring::Ring;
use vhost_user_backend::VringT;
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace};

use super::random::Random;

/// Descriptors of a ring: few, so that indices wrap soon.
pub(super) const RING_SIZE: u16 = 16;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

const AVAIL: u64 = 0x1000;
const USED: u64 = 0x2000;
const INDIRECT_TABLE: u64 = 0x3000;
const REQUEST: u64 = 0x4000;
const RESPONSE: u64 = 0x1_4000;

/// Bytes for one request and for one response.
const BUFFER: usize = 0x1_0000;

/// A queue's ring in guest memory at `base`, and what the driver knows of it.
pub(super) struct Driver {
    pub(super) ring: Ring,
    memory: SharedGuestMemory,
    base: u64,
    avail: u16,
    seen: u16,
}

/// How a chain comes back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Used {
    pub(super) head: u32,
    pub(super) written: u32,
    /// The response's type word, if one was written.
    pub(super) response: Option<u32>,
}

impl Driver {
    pub(super) fn new(memory: &SharedGuestMemory, base: u64) -> Self {
        let ring = Ring::new(memory.clone(), 32_768).expect("a power of two");
        let mut driver = Self {
            ring,
            memory: memory.clone(),
            base,
            avail: 0,
            seen: 0,
        };
        driver.restart();
        driver
    }

    /// Stops the ring and starts it from the beginning.
    pub(super) fn restart(&mut self) {
        self.ring.set_queue_ready(false);
        let zeros = [0; 0x4000];
        let memory = self.memory.memory();
        memory
            .write_slice(&zeros, GuestAddress(self.base))
            .expect("low memory");
        self.avail = 0;
        self.seen = 0;
        self.ring.set_queue_size(RING_SIZE);
        self.ring
            .set_queue_info(self.base, self.base + AVAIL, self.base + USED)
            .expect("aligned");
        self.ring.set_queue_next_avail(0);
        self.ring.set_queue_next_used(0);
        self.ring.set_enabled(true);
        self.ring.set_queue_ready(true);
    }

    /// Makes one request available in a whole chain: split into pieces at random, sometimes through
    /// an indirect table, sometimes with little or no room for the response.
    pub(super) fn submit(&mut self, random: &mut Random, request: &[u8]) {
        let request = &request[..request.len().min(BUFFER)];
        self.write(REQUEST, request);
        self.write(RESPONSE, &[0xee; 24]);
        let mut pieces = Vec::new();
        let mut at = 0;
        while at < request.len() {
            let most = if pieces.len() >= 5 {
                request.len()
            } else {
                random.pick(&[1, 7, 24, 4096])
            };
            let len = most.min(request.len() - at);
            pieces.push((self.base + REQUEST + at as u64, len as u32, 0));
            at += len;
        }
        let room = random.pick(&[
            4096, 4096, 4096, 4096, 4096, 4096, 4096, 4096, 1080, 24, 23, 0,
        ]);
        if room > 0 {
            let cut = random.pick(&[room, room, 1, 12]).min(room);
            pieces.push((self.base + RESPONSE, cut, WRITE));
            if cut < room {
                pieces.push((self.base + RESPONSE + u64::from(cut), room - cut, WRITE));
            }
        }
        if pieces.is_empty() {
            pieces.push((self.base + REQUEST, 0, 0));
        }
        if random.once_in(4) {
            self.table(INDIRECT_TABLE, &pieces);
            let len = pieces.len() as u32 * 16;
            self.descriptor(0, 0, (self.base + INDIRECT_TABLE, len, INDIRECT), 0);
        } else {
            self.table(0, &pieces);
        }
        self.publish(0);
    }

    /// Makes a chain available whose descriptors are wrong in some way.
    pub(super) fn submit_malformed(&mut self, random: &mut Random) {
        for index in 0..4 {
            let address = if random.once_in(2) {
                random.edgy64()
            } else {
                self.base + REQUEST
            };
            let len = if random.once_in(2) {
                random.edgy32()
            } else {
                24
            };
            let flags = random.below(8) as u16;
            let next = random.pick(&[0, 1, 2, 3, 15, 16, u16::MAX]);
            self.descriptor(0, index, (address, len, flags), next);
        }
        self.publish(0);
    }

    /// Breaks the ring itself: an avail index too far ahead, or a head that is no descriptor.
    pub(super) fn break_ring(&mut self, random: &mut Random) {
        if random.once_in(2) {
            let ahead = RING_SIZE + 1 + random.below(1000) as u16;
            self.write(AVAIL + 2, &self.avail.wrapping_add(ahead).to_le_bytes());
        } else {
            self.publish(RING_SIZE + random.below(1000) as u16);
        }
    }

    /// What has come back since the last call.
    pub(super) fn used(&mut self) -> Vec<Used> {
        let memory = self.memory.memory();
        let index: u16 = memory.read_obj(self.at(USED + 2)).expect("low memory");
        let mut used = Vec::new();
        while self.seen != index && used.len() < usize::from(u16::MAX) {
            let entry = USED + 4 + u64::from(self.seen % RING_SIZE) * 8;
            let head = memory.read_obj(self.at(entry)).expect("low memory");
            let written: u32 = memory.read_obj(self.at(entry + 4)).expect("low memory");
            let response = memory.read_obj(self.at(RESPONSE)).expect("low memory");
            used.push(Used {
                head,
                written,
                response: (written >= 24).then_some(response),
            });
            self.seen = self.seen.wrapping_add(1);
        }
        used
    }

    fn table(&self, table: u64, pieces: &[(u64, u32, u16)]) {
        for (index, piece) in pieces.iter().enumerate() {
            let last = index + 1 == pieces.len();
            let (address, len, flags) = *piece;
            let flags = if last { flags } else { flags | NEXT };
            self.descriptor(table, index as u16, (address, len, flags), index as u16 + 1);
        }
    }

    fn descriptor(
        &self,
        table: u64,
        index: u16,
        (address, len, flags): (u64, u32, u16),
        next: u16,
    ) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&address.to_le_bytes());
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        self.write(table + u64::from(index) * 16, &bytes);
    }

    fn publish(&mut self, head: u16) {
        self.write(
            AVAIL + 4 + u64::from(self.avail % RING_SIZE) * 2,
            &head.to_le_bytes(),
        );
        self.avail = self.avail.wrapping_add(1);
        self.write(AVAIL + 2, &self.avail.to_le_bytes());
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        self.memory
            .memory()
            .write_slice(bytes, self.at(at))
            .expect("low memory");
    }

    fn at(&self, offset: u64) -> GuestAddress {
        GuestAddress(self.base + offset)
    }
}
