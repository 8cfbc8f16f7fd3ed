//! The shared-memory region that host blobs are mapped into, and what lies where in it.
//!
//! The guest chooses the places. The front-end may die or drop a VM over a request that it does not
//! like, so every range is checked here before anything is sent.

use std::collections::BTreeMap;
use std::sync::Arc;

use nosnoop_protocol::ids::ResourceId;
use nosnoop_protocol::reply::GpuError;

use crate::memory::PAGE_SIZE;
use crate::memory::planned::PlannedMemory;
use crate::planted::{Bug, planted};

/// Names a range from when it is taken until it is free again; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct SlotId(u64);

/// A range of the region that a blob is mapped at, or is about to be or to have been.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) id: SlotId,
    pub(super) len: u64,
    pub(super) blob: ResourceId,
    /// Kept as long as the guest might reach it.
    pub(super) memory: Arc<PlannedMemory>,
    /// The front-end has been asked to unmap it.
    asked: bool,
}

/// A range whose blob has gone, or wants it no more.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) id: SlotId,
    pub(super) offset: u64,
    pub(super) len: u64,
    pub(super) memory: Arc<PlannedMemory>,
    pub(super) stage: Stage,
    /// A reset came meanwhile, at which the front-end may have unmapped it by itself.
    pub(super) reset: bool,
}

/// How far a range is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The front-end has been asked to map it and has not answered.
    Mapping,
    /// It is to be unmapped. What is asked now could come before the request to do so.
    Due,
    /// The front-end has been asked to unmap it, behind everything that was asked before.
    Unmapping,
    /// What is mapped is unknown for good: not to be used before the connection ends.
    Lost,
}

/// The ranges in use.
#[derive(Debug)]
pub(super) struct Window {
    size: u64,
    /// Those of blobs, by their offset.
    slots: BTreeMap<u64, Slot>,
    leaving: Vec<Leaving>,
    next: u64,
}

impl Window {
    pub(super) fn new(size: u64) -> Self {
        Self {
            size,
            slots: BTreeMap::new(),
            leaving: Vec::new(),
            next: 0,
        }
    }

    /// Checks that a blob may be mapped at `offset`. What is asked now comes after the requests to
    /// unmap that are under way, so those are no obstacle.
    ///
    /// # Errors
    /// `InvalidParameter` for an offset that is no page multiple, a range beyond the region, and
    /// one that overlaps another.
    pub(super) fn check(&self, offset: u64, len: u64) -> Result<(), GpuError> {
        let end = offset.checked_add(len).filter(|end| *end <= self.size);
        let (Some(end), Some(0)) = (end, offset.checked_rem(PAGE_SIZE)) else {
            return Err(GpuError::InvalidParameter);
        };
        let slots = self.slots.iter().map(|(other, slot)| (*other, slot.len));
        let leaving = self
            .leaving
            .iter()
            .filter(|range| range.stage != Stage::Unmapping)
            .map(|range| (range.offset, range.len));
        let mut overlapping = slots
            .chain(leaving)
            .filter(|(other, len)| *other < end && other.saturating_add(*len) > offset);
        if overlapping.next().is_some() && !planted(Bug::OverlapAccepted) {
            Err(GpuError::InvalidParameter)
        } else {
            Ok(())
        }
    }

    /// Takes a range that [`Window::check`] has allowed.
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
                blob,
                memory,
                asked: false,
            },
        );
        id
    }

    /// The range of a blob and its offset.
    pub(super) fn get(&self, id: SlotId) -> Option<(u64, &Slot)> {
        self.slots
            .iter()
            .find(|(_, slot)| slot.id == id)
            .map(|(offset, slot)| (*offset, slot))
    }

    /// The range of a blob is free: nothing is mapped there.
    pub(super) fn free(&mut self, id: SlotId) {
        self.slots.retain(|_, slot| slot.id != id);
    }

    /// The front-end has been asked to unmap a range.
    pub(super) fn asked(&mut self, id: SlotId) {
        if let Some(slot) = self.slots.values_mut().find(|slot| slot.id == id) {
            slot.asked = true;
        }
        if let Some(range) = self.leaving(id).filter(|range| range.stage == Stage::Due) {
            range.stage = Stage::Unmapping;
        }
    }

    /// The blob of a range has gone or wants it no more; the range is at this stage, where
    /// [`Stage::Due`] is [`Stage::Unmapping`] if that was asked for already.
    pub(super) fn leave(&mut self, id: SlotId, stage: Stage) {
        let found = self.get(id).map(|(offset, _)| offset);
        if let Some((offset, slot)) = found.and_then(|at| Some((at, self.slots.remove(&at)?))) {
            let stage = match stage {
                Stage::Due if slot.asked => Stage::Unmapping,
                stage => stage,
            };
            self.leaving.push(Leaving {
                id: slot.id,
                offset,
                len: slot.len,
                memory: slot.memory,
                stage,
                reset: false,
            });
        }
    }

    /// A range on its way out.
    pub(super) fn leaving(&mut self, id: SlotId) -> Option<&mut Leaving> {
        self.leaving.iter_mut().find(|range| range.id == id)
    }

    /// A range on its way out is free.
    pub(super) fn gone(&mut self, id: SlotId) {
        self.leaving.retain(|range| range.id != id);
    }

    /// A device reset: every blob has gone. `stage` says where each one's range is.
    pub(super) fn reset(&mut self, stage: impl Fn(SlotId) -> Stage) {
        let ids: Vec<_> = self.slots.values().map(|slot| slot.id).collect();
        for id in ids {
            self.leave(id, stage(id));
        }
        for range in &mut self.leaving {
            range.reset = true;
        }
    }

    /// Bytes of host memory that no resource counts.
    pub(super) fn orphaned_bytes(&self) -> u64 {
        let lens = self.leaving.iter().map(|range| range.len);
        lens.fold(0, u64::saturating_add)
    }

    /// How many pieces of host memory no resource counts.
    pub(super) fn orphans(&self) -> usize {
        self.leaving.len()
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

#[cfg(test)]
mod tests {
    use super::*;
    use nosnoop_protocol::ids::BlobId;

    use crate::memory::flush::CacheFlusher;
    use crate::memory::source::{Choice, Source};

    #[test]
    fn a_place_is_taken_until_its_blob_is_asked_to_leave_it() {
        let mut window = Window::new(1 << 20);
        let blob = ResourceId::new(1).unwrap();
        let source = Source::open(Choice::default(), Arc::new(CacheFlusher::default())).unwrap();
        let memory = Arc::new(source.image(BlobId(1), PAGE_SIZE, false).unwrap());
        let slot = window.take(0, blob, Arc::clone(&memory));
        window.leave(slot, Stage::Due);
        assert_eq!(window.check(0, PAGE_SIZE), Err(GpuError::InvalidParameter));
        window.asked(slot);
        assert_eq!(window.check(0, PAGE_SIZE), Ok(()));

        // Asked while it was still the blob's: nothing is to be waited for.
        let slot = window.take(0, blob, memory);
        window.asked(slot);
        window.leave(slot, Stage::Due);
        assert_eq!(window.check(0, PAGE_SIZE), Ok(()));
    }
}
