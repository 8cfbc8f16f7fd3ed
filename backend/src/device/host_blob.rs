//! `RESOURCE_MAP_BLOB` and `RESOURCE_UNMAP_BLOB` (virtio 1.4, "GPU Device / Device Operation:
//! controlq (3d)"), and what becomes of a host blob's mapping when its resource or context goes.
//!
//! Mapping is the front-end's work and takes time, so these commands are parked: the device goes on
//! with others, and what concerns the same blob waits behind it in order.
//!
//! Nothing here talks to the front-end while the state is locked: methods return [`Effect`]s, which
//! [`super::Device`] carries out afterwards.

use std::collections::VecDeque;
use std::sync::Arc;

use nosnoop_protocol::ids::{ContextId, ResourceId};
use nosnoop_protocol::memtype::ShmemMapFlags;
use nosnoop_protocol::reply::{GpuError, Reply};

use super::mapper::{MapError, MapRequest};
use super::park::Ticket;
use super::quota::MAX_WAITING;
use super::resource::Storage;
use super::window::{Owner, Slot, SlotId};
use super::{Effect, State, Verdict};
use crate::memory::plan::Plan;
use crate::memory::planned::PlannedMemory;

/// A blob in host memory.
#[derive(Debug)]
pub(super) struct HostBlob {
    memory: Arc<PlannedMemory>,
    /// The guest asked for `VIRTIO_GPU_BLOB_FLAG_USE_MAPPABLE`.
    mappable: bool,
    /// The context that provided it.
    context: ContextId,
    mapping: Mapping,
    /// What is to be done once the request that is under way is answered.
    waiting: VecDeque<(Option<Ticket>, Operation)>,
}

/// Where the blob is in the guest's shared-memory region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mapping {
    Unmapped,
    /// The front-end has been asked to map it.
    Requested(SlotId, Option<Ticket>),
    Mapped(SlotId),
    /// The front-end has been asked to unmap it, on behalf of this operation.
    Unmapping(SlotId, Option<Ticket>, Operation),
    /// The front-end did not answer, or did not unmap: it cannot be mapped again.
    Quarantined,
}

/// What can be asked of a blob's mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// Map at this offset in the region.
    Map(u64),
    Unmap,
    /// Unmap if need be, then forget the resource.
    Unref,
}

impl HostBlob {
    pub(super) fn new(memory: PlannedMemory, mappable: bool, context: ContextId) -> Self {
        Self {
            memory: Arc::new(memory),
            mappable,
            context,
            mapping: Mapping::Unmapped,
            waiting: VecDeque::new(),
        }
    }

    pub(super) fn memory(&self) -> &PlannedMemory {
        &self.memory
    }

    pub(super) fn context(&self) -> ContextId {
        self.context
    }

    fn busy(&self) -> bool {
        matches!(
            self.mapping,
            Mapping::Requested(..) | Mapping::Unmapping(..)
        )
    }

    pub(super) fn is_mapped(&self) -> bool {
        !matches!(self.mapping, Mapping::Unmapped | Mapping::Quarantined)
    }
}

impl State {
    /// Does an operation on a host blob, or has it wait behind the one under way.
    ///
    /// # Errors
    /// In the verdict. `InvalidResourceId`; `InvalidParameter` for what is not a host blob, is not
    /// mappable, is mapped already (or not, to be unmapped), or does not fit where it is to go.
    pub(super) fn operate(
        &mut self,
        id: ResourceId,
        operation: Operation,
        effects: &mut Vec<Effect>,
    ) -> Verdict {
        let blob = match self.host_blob(id) {
            Ok(blob) => blob,
            Err(error) => return Verdict::Done(Err(error)),
        };
        if blob.busy() {
            if blob.waiting.len() >= MAX_WAITING {
                return Verdict::Done(Err(GpuError::OutOfMemory));
            }
            let ticket = self.parked.open();
            if let Ok(blob) = self.host_blob(id) {
                blob.waiting.push_back((Some(ticket), operation));
            }
            return Verdict::Parked(ticket);
        }
        let ticket = self.parked.open();
        match self.begin(id, Some(ticket), operation, effects) {
            Some(result) => {
                self.parked.cancel(ticket);
                Verdict::Done(result)
            }
            None => Verdict::Parked(ticket),
        }
    }

    /// Unmaps what `context` provided and no other context uses: to be called when it has gone.
    pub(super) fn unmap_abandoned(&mut self, context: ContextId, effects: &mut Vec<Effect>) {
        let mut orphans = Vec::new();
        for (id, resource) in self.resources.iter() {
            if let Storage::HostBlob(blob) = &resource.storage
                && blob.context() == context
                && blob.is_mapped()
                && !self.contexts.anyone_has(id)
            {
                orphans.push(id);
            }
        }
        for id in orphans {
            let Ok(blob) = self.host_blob(id) else {
                continue;
            };
            if blob.busy() {
                blob.waiting.push_back((None, Operation::Unmap));
            } else {
                self.begin(id, None, Operation::Unmap, effects);
            }
        }
    }

    fn host_blob(&mut self, id: ResourceId) -> Result<&mut HostBlob, GpuError> {
        match &mut self.resources.get_mut(id)?.storage {
            Storage::HostBlob(blob) => Ok(blob),
            Storage::Image(_) | Storage::GuestBlob { .. } => Err(GpuError::InvalidParameter),
        }
    }

    /// Starts an operation on a blob that is not busy. The result, if it is known at once.
    fn begin(
        &mut self,
        id: ResourceId,
        ticket: Option<Ticket>,
        operation: Operation,
        effects: &mut Vec<Effect>,
    ) -> Option<Result<Reply, GpuError>> {
        let begun = match operation {
            Operation::Map(offset) => self.begin_map(id, ticket, offset, effects),
            Operation::Unmap | Operation::Unref => self.begin_unmap(id, ticket, operation, effects),
        };
        begun.unwrap_or_else(|error| Some(Err(error)))
    }

    fn begin_map(
        &mut self,
        id: ResourceId,
        ticket: Option<Ticket>,
        offset: u64,
        effects: &mut Vec<Effect>,
    ) -> Result<Option<Result<Reply, GpuError>>, GpuError> {
        let blob = self.host_blob(id)?;
        if !blob.mappable || blob.mapping != Mapping::Unmapped {
            return Err(GpuError::InvalidParameter);
        }
        let memory = Arc::clone(&blob.memory);
        let plan = match memory.plan() {
            Plan::Map(plan) => plan,
            Plan::Refuse(refusal) => {
                if let Some(shared) = &self.shared_memory {
                    shared.source.tell(refusal);
                }
                return Err(GpuError::Unspec);
            }
        };
        let bytes = memory.memory();
        self.window.check(offset, bytes.len())?;
        effects.extend(
            self.window
                .stale()
                .into_iter()
                .map(|(at, slot)| Effect::UnmapStale(at, slot)),
        );
        let request = MapRequest {
            shm_offset: offset,
            len: bytes.len(),
            fd: bytes.fd(),
            fd_offset: bytes.offset(),
            flags: ShmemMapFlags {
                writable: true,
                memory: plan.memslot(),
            },
        };
        let slot = self.window.take(offset, id, Arc::clone(&memory));
        self.host_blob(id)?.mapping = Mapping::Requested(slot, ticket);
        effects.push(Effect::Map(slot, request, memory));
        Ok(None)
    }

    fn begin_unmap(
        &mut self,
        id: ResourceId,
        ticket: Option<Ticket>,
        operation: Operation,
        effects: &mut Vec<Effect>,
    ) -> Result<Option<Result<Reply, GpuError>>, GpuError> {
        match self.host_blob(id)?.mapping {
            Mapping::Mapped(slot) => {
                self.unmap_slot(slot, effects);
                self.host_blob(id)?.mapping = Mapping::Unmapping(slot, ticket, operation);
                Ok(None)
            }
            _ if operation == Operation::Unref => {
                self.forget(id, effects)?;
                Ok(Some(Ok(Reply::OkNoData)))
            }
            _ => Err(GpuError::InvalidParameter),
        }
    }

    fn unmap_slot(&mut self, id: SlotId, effects: &mut Vec<Effect>) {
        if let Some((offset, slot)) = self.window.get_mut(id) {
            effects.push(Effect::Unmap(id, offset, slot.len));
        }
    }

    /// Removes the resource; what waited for it learns that it has gone.
    fn forget(&mut self, id: ResourceId, effects: &mut Vec<Effect>) -> Result<(), GpuError> {
        let blob = self.host_blob(id)?;
        effects.push(Effect::Release(Arc::clone(&blob.memory)));
        let waiting = std::mem::take(&mut blob.waiting);
        for ticket in waiting.into_iter().filter_map(|(ticket, _)| ticket) {
            self.answer(Some(ticket), Err(GpuError::InvalidResourceId), effects);
        }
        self.remove(id)
    }

    fn answer(
        &mut self,
        ticket: Option<Ticket>,
        result: Result<Reply, GpuError>,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(answer) = ticket.and_then(|ticket| self.parked.resolve(ticket, result)) {
            effects.push(Effect::Answer(answer));
        }
    }

    /// The front-end has answered a request to map.
    pub(super) fn map_done(
        &mut self,
        slot_id: SlotId,
        result: Result<(), MapError>,
        effects: &mut Vec<Effect>,
    ) {
        let Some((_, slot)) = self.window.get_mut(slot_id) else {
            return;
        };
        let Owner::Blob(id) = slot.owner else {
            // A reset came first; only that nothing can be known any more matters.
            if result == Err(MapError::Lost) {
                slot.owner = Owner::Quarantined;
            }
            return;
        };
        if result == Err(MapError::Lost) {
            slot.owner = Owner::Quarantined;
        }
        let Ok(blob) = self.host_blob(id) else { return };
        let Mapping::Requested(_, ticket) = blob.mapping else {
            return;
        };
        let memory = Arc::clone(&blob.memory);
        let abandoned = ticket.is_some_and(|ticket| !self.parked.is_open(ticket));
        let Ok(blob) = self.host_blob(id) else { return };
        match result {
            // The guest was told that it failed, so it must not stay. Nothing is asked of the
            // front-end now: the device may be stopped.
            Ok(()) if abandoned => {
                blob.mapping = Mapping::Unmapped;
                self.window.abandon(slot_id);
            }
            Ok(()) => {
                blob.mapping = Mapping::Mapped(slot_id);
                let told = match memory.plan() {
                    Plan::Map(plan) => Ok(Reply::OkMapInfo(plan.guest())),
                    // Nothing asks for such memory to be mapped.
                    Plan::Refuse(_) => Err(GpuError::Unspec),
                };
                self.answer(ticket, told, effects);
            }
            Err(error) => {
                log::warn!("blob {id} is not mapped: {error}");
                if error == MapError::Lost {
                    blob.mapping = Mapping::Quarantined;
                } else {
                    blob.mapping = Mapping::Unmapped;
                    self.window.remove(slot_id);
                }
                self.answer(ticket, Err(GpuError::Unspec), effects);
            }
        }
        self.go_on(id, effects);
    }

    /// The front-end has answered a request to unmap.
    pub(super) fn unmap_done(
        &mut self,
        slot_id: SlotId,
        result: Result<(), MapError>,
        effects: &mut Vec<Effect>,
    ) {
        let Some((_, slot)) = self.window.get_mut(slot_id) else {
            return;
        };
        let owner = slot.owner;
        effects.push(Effect::Release(Arc::clone(&slot.memory)));
        match (&result, owner) {
            (Ok(()), _) => self.window.remove(slot_id),
            // After a reset the front-end may have done it by itself.
            (Err(MapError::Refused(_)), Owner::Stale) => self.window.remove(slot_id),
            (Err(error), _) => {
                log::warn!("a range of the shared memory stays out of use: {error}");
                slot.owner = Owner::Quarantined;
            }
        }
        let Owner::Blob(id) = owner else { return };
        let Ok(blob) = self.host_blob(id) else { return };
        let Mapping::Unmapping(_, ticket, operation) = blob.mapping else {
            return;
        };
        blob.mapping = if result.is_ok() {
            Mapping::Unmapped
        } else {
            Mapping::Quarantined
        };
        if operation == Operation::Unref {
            // The range may be lost, the resource is gone all the same.
            if self.forget(id, effects).is_ok() {
                self.answer(ticket, Ok(Reply::OkNoData), effects);
            }
            return;
        }
        let reply = result
            .map(|()| Reply::OkNoData)
            .map_err(|_| GpuError::Unspec);
        self.answer(ticket, reply, effects);
        self.go_on(id, effects);
    }

    /// The answer to a request to unmap what a reset had left behind.
    pub(super) fn stale_done(
        &mut self,
        offset: u64,
        slot: Slot,
        result: Result<(), MapError>,
        effects: &mut Vec<Effect>,
    ) {
        effects.push(Effect::Release(Arc::clone(&slot.memory)));
        // Refused: the front-end had done it by itself at the reset.
        if matches!(result, Err(MapError::Lost | MapError::Unavailable)) {
            self.window.keep(offset, slot);
        }
    }

    /// Does what waited for a blob that is no longer busy.
    fn go_on(&mut self, id: ResourceId, effects: &mut Vec<Effect>) {
        while let Ok(blob) = self.host_blob(id) {
            if blob.busy() {
                return;
            }
            let Some((ticket, operation)) = blob.waiting.pop_front() else {
                return;
            };
            if ticket.is_some_and(|ticket| !self.parked.is_open(ticket)) {
                continue;
            }
            if let Some(result) = self.begin(id, ticket, operation, effects) {
                self.answer(ticket, result, effects);
            }
        }
    }
}
