//! The shared-memory region that host blobs are mapped into, and what lies where in it.
//!
//! The guest chooses the places. The front-end may die or drop a VM over a request that it does not
//! like, so every range is checked here before anything is sent.

use std::collections::BTreeMap;

use nosnoop_protocol::ids::ResourceId;
use nosnoop_protocol::reply::GpuError;

use std::sync::Arc;

use crate::memory::PAGE_SIZE;
use crate::memory::planned::PlannedMemory;

/// Names a range from when it is taken until it is free again; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SlotId(u64);

/// Who a range belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// A blob that is mapped there, or is about to be or to have been.
    Blob(ResourceId),
    /// Nobody: a reset took its blob away, and what the front-end did of its mapping is unknown, or
    /// it was mapped when nobody waited for it any more. It must be unmapped before the range is used again.
    Stale,
    /// Nobody, and what is mapped is unknown for good: not to be used before the connection ends.
    Quarantined,
}

/// A range of the region.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) id: SlotId,
    pub(super) len: u64,
    pub(super) owner: Owner,
    /// Kept as long as the guest might reach it.
    pub(super) memory: Arc<PlannedMemory>,
}

/// The ranges in use, by their offset.
#[derive(Debug)]
pub(super) struct Window {
    size: u64,
    slots: BTreeMap<u64, Slot>,
    /// Ranges that were given up while something else was about to take their place.
    kept: Vec<(u64, Slot)>,
    next: u64,
}

impl Window {
    pub(super) fn new(size: u64) -> Self {
        Self {
            size,
            slots: BTreeMap::new(),
            kept: Vec::new(),
            next: 0,
        }
    }

    /// Checks that a blob may be mapped at `offset`. Stale ranges there are no obstacle: they are
    /// to be unmapped first, see [`Window::stale`].
    ///
    /// # Errors
    /// `InvalidParameter` for an offset that is no page multiple, a range beyond the region, and
    /// one that overlaps another.
    pub(super) fn check(&self, offset: u64, len: u64) -> Result<(), GpuError> {
        let end = offset.checked_add(len).filter(|end| *end <= self.size);
        let (Some(end), Some(0)) = (end, offset.checked_rem(PAGE_SIZE)) else {
            return Err(GpuError::InvalidParameter);
        };
        let mut overlapping = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.owner != Owner::Stale)
            .chain(self.kept.iter().map(|(offset, slot)| (offset, slot)))
            .filter(|(other, slot)| **other < end && other.saturating_add(slot.len) > offset);
        if overlapping.next().is_some() {
            Err(GpuError::InvalidParameter)
        } else {
            Ok(())
        }
    }

    /// Takes a range that [`Window::check`] has allowed and that has no stale part.
    pub(super) fn take(
        &mut self,
        offset: u64,
        blob: ResourceId,
        memory: Arc<PlannedMemory>,
    ) -> SlotId {
        let id = SlotId(self.next);
        self.next = self.next.wrapping_add(1);
        let len = memory.memory().len();
        self.slots.insert(
            offset,
            Slot {
                id,
                len,
                owner: Owner::Blob(blob),
                memory,
            },
        );
        id
    }

    /// Removes the stale ranges and returns their offsets and lengths: to be unmapped in this
    /// order before anything else is mapped. What they held is let go of by the caller's requests.
    pub(super) fn stale(&mut self) -> Vec<(u64, Slot)> {
        let offsets: Vec<u64> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.owner == Owner::Stale)
            .map(|(offset, _)| *offset)
            .collect();
        let removed = offsets
            .into_iter()
            .map(|offset| Some((offset, self.slots.remove(&offset)?)));
        removed.flatten().collect()
    }

    /// Takes a range out of use that [`Window::stale`] gave and that may stay mapped for ever, with
    /// its memory: the guest may go on reading and writing it.
    pub(super) fn keep(&mut self, offset: u64, slot: Slot) {
        self.kept.push((offset, slot));
    }

    pub(super) fn get_mut(&mut self, id: SlotId) -> Option<(u64, &mut Slot)> {
        self.slots
            .iter_mut()
            .find(|(_, slot)| slot.id == id)
            .map(|(offset, slot)| (*offset, slot))
    }

    pub(super) fn remove(&mut self, id: SlotId) {
        self.slots.retain(|_, slot| slot.id != id);
    }

    /// Gives a range up whose mapping nobody wants any more.
    pub(super) fn abandon(&mut self, id: SlotId) {
        if let Some((_, slot)) = self.get_mut(id) {
            slot.owner = Owner::Stale;
        }
    }

    /// A device reset: every blob is gone, and its mapping unknown.
    pub(super) fn reset(&mut self) {
        for slot in self.slots.values_mut() {
            if slot.owner != Owner::Quarantined {
                slot.owner = Owner::Stale;
            }
        }
    }

    /// Bytes of host memory that are kept for nobody.
    pub(super) fn orphaned_bytes(&self) -> u64 {
        self.slots
            .values()
            .filter(|slot| !matches!(slot.owner, Owner::Blob(_)))
            .chain(self.kept.iter().map(|(_, slot)| slot))
            .fold(0, |sum, slot| sum.saturating_add(slot.len))
    }

    pub(super) fn verify_invariants(&self) -> Result<(), String> {
        let mut last = 0;
        for (offset, slot) in &self.slots {
            let end = offset.saturating_add(slot.len);
            if *offset < last || end > self.size || offset.checked_rem(PAGE_SIZE) != Some(0) {
                return Err(format!("range {offset:#x}..{end:#x} is out of place"));
            }
            last = end;
        }
        Ok(())
    }
}
