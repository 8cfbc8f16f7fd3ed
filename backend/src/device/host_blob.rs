//! `RESOURCE_MAP_BLOB` and `RESOURCE_UNMAP_BLOB` (virtio 1.4, "GPU Device / Device Operation:
//! controlq (3d)"), and what becomes of a host blob's mapping when its resource or context goes.
//!
//! Mapping is the front-end's work and takes time, so these commands are parked: the device goes on
//! with others, and what concerns the same blob waits behind it in order.
//!
//! Nothing here talks to the front-end while the state is locked: methods return [`Effect`]s, which
//! [`super::Device`] carries out afterwards.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use nosnoop_protocol::ids::ResourceId;
use nosnoop_protocol::memtype::{MapCache, MemslotRequest, ShmemMapFlags};
use nosnoop_protocol::reply::{GpuError, Reply};

use super::context::ContextSerial;
use super::mapper::{MapError, MapRequest};
use super::park::{Promise, Ticket};
use super::quota::MAX_WAITING;
use super::resource::Storage;
use super::window::{SlotId, Stage, Window};
use super::{Effect, State, Verdict};
use crate::memory::plan::Plan;
use crate::memory::planned::PlannedMemory;
use crate::planted::{Bug, planted};

/// A blob in host memory.
#[derive(Debug)]
pub(super) struct HostBlob {
    memory: Arc<PlannedMemory>,
    /// The guest asked for `VIRTIO_GPU_BLOB_FLAG_USE_MAPPABLE`.
    mappable: bool,
    /// The context that provided it.
    provider: ContextSerial,
    /// The renderer has it too.
    renderers: bool,
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
    Lost(SlotId),
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
    pub(super) fn new(memory: PlannedMemory, mappable: bool, provider: ContextSerial) -> Self {
        Self {
            memory: Arc::new(memory),
            mappable,
            provider,
            renderers: false,
            mapping: Mapping::Unmapped,
            waiting: VecDeque::new(),
        }
    }

    /// One that the renderer has made, and knows by the resource's id.
    pub(super) fn of_renderer(
        memory: PlannedMemory,
        mappable: bool,
        provider: ContextSerial,
    ) -> Self {
        Self {
            renderers: true,
            ..Self::new(memory, mappable, provider)
        }
    }

    pub(super) fn is_renderers(&self) -> bool {
        self.renderers
    }

    pub(super) fn memory(&self) -> &PlannedMemory {
        &self.memory
    }

    pub(super) fn provider(&self) -> ContextSerial {
        self.provider
    }

    fn busy(&self) -> bool {
        matches!(
            self.mapping,
            Mapping::Requested(..) | Mapping::Unmapping(..)
        )
    }

    pub(super) fn is_mapped(&self) -> bool {
        !matches!(self.mapping, Mapping::Unmapped | Mapping::Lost(_))
    }

    /// Whether it is to be unmapped anyway.
    pub(super) fn awaits_unmap(&self) -> bool {
        let unmaps = |operation| matches!(operation, Operation::Unmap | Operation::Unref);
        self.waiting.iter().any(|(_, operation)| unmaps(*operation))
    }
}

impl Window {
    /// Asks the front-end to unmap a range.
    fn push_unmap(&mut self, id: SlotId, effects: &mut Vec<Effect>) {
        let range = match self.get(id) {
            Some((offset, slot)) => Some((offset, slot.len)),
            None => self.leaving(id).map(|range| (range.offset, range.len)),
        };
        effects.extend(range.map(|(offset, len)| Effect::Unmap(id, offset, len)));
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
        let promise = match operation {
            Operation::Map(_) | Operation::Unmap => Promise::Result,
            Operation::Unref => Promise::Success,
        };
        if blob.busy() {
            if blob.waiting.len() >= MAX_WAITING {
                return Verdict::Done(Err(GpuError::OutOfMemory));
            }
            let ticket = self.parked.open(promise);
            if let Ok(blob) = self.host_blob(id) {
                blob.waiting.push_back((Some(ticket), operation));
            }
            return Verdict::Parked(ticket);
        }
        let ticket = self.parked.open(promise);
        match self.begin(id, Some(ticket), operation, effects) {
            Some(result) => {
                self.parked.cancel(ticket);
                Verdict::Done(result)
            }
            None => Verdict::Parked(ticket),
        }
    }

    /// Unmaps blobs on behalf of a command that is done when all of them are.
    pub(super) fn unmap_all(&mut self, ids: &[ResourceId], effects: &mut Vec<Effect>) -> Verdict {
        if ids.is_empty() {
            return Verdict::Done(Ok(Reply::OkNoData));
        }
        let ticket = self.parked.open(Promise::All(ids.len()));
        for id in ids {
            match self.host_blob(*id) {
                Ok(blob) if blob.busy() => {
                    blob.waiting.push_back((Some(ticket), Operation::Unmap));
                }
                _ => {
                    if let Some(result) = self.begin(*id, Some(ticket), Operation::Unmap, effects) {
                        self.answer(Some(ticket), result, effects);
                    }
                }
            }
        }
        Verdict::Parked(ticket)
    }

    /// Every blob has gone with a device reset; what is mapped is unmapped, and its memory kept until
    /// then.
    pub(super) fn forget_blobs(&mut self, effects: &mut Vec<Effect>) {
        let mut stages = HashMap::new();
        for (_, resource) in self.resources.iter() {
            let Storage::HostBlob(blob) = &resource.storage else {
                continue;
            };
            match blob.mapping {
                Mapping::Unmapped => {}
                Mapping::Requested(slot, _) => {
                    stages.insert(slot, Stage::Mapping);
                }
                Mapping::Mapped(slot) => {
                    self.window.push_unmap(slot, effects);
                    stages.insert(slot, Stage::Due);
                }
                Mapping::Unmapping(slot, ..) => {
                    stages.insert(slot, Stage::Due);
                }
                Mapping::Lost(slot) => {
                    stages.insert(slot, Stage::Lost);
                }
            }
        }
        self.window
            .reset(|slot| stages.get(&slot).copied().unwrap_or(Stage::Lost));
    }

    fn host_blob(&mut self, id: ResourceId) -> Result<&mut HostBlob, GpuError> {
        match &mut self.resources.get_mut(id)?.storage {
            Storage::HostBlob(blob) => Ok(blob),
            Storage::Image(_) | Storage::GuestBlob { .. } | Storage::Rendered(_) => {
                Err(GpuError::InvalidParameter)
            }
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
        let free = blob.mapping == Mapping::Unmapped || planted(Bug::MappedTwice);
        if !blob.mappable || !free {
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
        let request = MapRequest {
            shm_offset: offset,
            len: bytes.len(),
            fd: bytes.fd(),
            fd_offset: bytes.offset(),
            flags: ShmemMapFlags {
                writable: !planted(Bug::MapReadOnly),
                memory: match plan.memslot() {
                    MemslotRequest::Unspecified if planted(Bug::MemtypeUnasked) => {
                        MemslotRequest::Cached
                    }
                    memslot => memslot,
                },
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
            Mapping::Mapped(slot)
                if planted(Bug::UnrefLeavesMapping) && operation == Operation::Unref =>
            {
                self.window.leave(slot, Stage::Lost);
                self.forget(id, effects)?;
                Ok(Some(Ok(Reply::OkNoData)))
            }
            Mapping::Mapped(slot) => {
                self.window.push_unmap(slot, effects);
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

    /// Removes the resource; what waited for it learns that it has gone.
    fn forget(&mut self, id: ResourceId, effects: &mut Vec<Effect>) -> Result<(), GpuError> {
        let blob = self.host_blob(id)?;
        effects.push(Effect::Release(Arc::clone(&blob.memory)));
        let mapping = blob.mapping;
        let waiting = std::mem::take(&mut blob.waiting);
        for ticket in waiting.into_iter().filter_map(|(ticket, _)| ticket) {
            self.answer(Some(ticket), Err(GpuError::InvalidResourceId), effects);
        }
        if let Mapping::Lost(slot) = mapping {
            self.window.leave(slot, Stage::Lost);
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
        if let Some(range) = self.window.leaving(slot_id) {
            // A reset came first.
            match result {
                Ok(()) => {
                    range.stage = Stage::Due;
                    self.window.push_unmap(slot_id, effects);
                }
                Err(MapError::Lost) => range.stage = Stage::Lost,
                // Nothing was mapped.
                Err(MapError::Refused(_) | MapError::Unavailable) => {
                    effects.push(Effect::Release(Arc::clone(&range.memory)));
                    self.window.gone(slot_id);
                }
            }
            return;
        }
        let Some((_, slot)) = self.window.get(slot_id) else {
            return;
        };
        let (id, memory) = (slot.blob, Arc::clone(&slot.memory));
        let Ok(blob) = self.host_blob(id) else { return };
        let Mapping::Requested(_, ticket) = blob.mapping else {
            return;
        };
        let abandoned = ticket.is_some_and(|ticket| !self.parked.is_open(ticket));
        let (mapping, told) = match (result, memory.plan()) {
            (Ok(()), Plan::Map(plan)) if !abandoned => {
                let guest = if planted(Bug::MapInfoWc) {
                    MapCache::Wc
                } else {
                    plan.guest()
                };
                (Mapping::Mapped(slot_id), Ok(Reply::OkMapInfo(guest)))
            }
            // The guest was told that it failed, so it must not stay.
            (Ok(()), _) => {
                self.window.push_unmap(slot_id, effects);
                self.window.leave(slot_id, Stage::Due);
                (Mapping::Unmapped, Err(GpuError::Unspec))
            }
            (Err(error), _) => {
                log::warn!("blob {id} is not mapped: {error}");
                let mapping = if error == MapError::Lost {
                    Mapping::Lost(slot_id)
                } else {
                    self.window.free(slot_id);
                    Mapping::Unmapped
                };
                (mapping, Err(GpuError::Unspec))
            }
        };
        if let Ok(blob) = self.host_blob(id) {
            blob.mapping = mapping;
        }
        self.answer(ticket, told, effects);
        self.go_on(id, effects);
    }

    /// The front-end has answered a request to unmap.
    pub(super) fn unmap_done(
        &mut self,
        slot_id: SlotId,
        result: Result<(), MapError>,
        effects: &mut Vec<Effect>,
    ) {
        if let Err(error) = &result {
            log::debug!("a blob is not unmapped: {error}");
        }
        if let Some(range) = self.window.leaving(slot_id) {
            effects.push(Effect::Release(Arc::clone(&range.memory)));
            match result {
                Ok(()) => self.window.gone(slot_id),
                // The front-end had done it by itself at the reset.
                Err(MapError::Refused(_)) if range.reset => self.window.gone(slot_id),
                Err(_) => range.stage = Stage::Lost,
            }
            return;
        }
        let Some((_, slot)) = self.window.get(slot_id) else {
            return;
        };
        let id = slot.blob;
        effects.push(Effect::Release(Arc::clone(&slot.memory)));
        let Ok(blob) = self.host_blob(id) else { return };
        let Mapping::Unmapping(_, ticket, operation) = blob.mapping else {
            return;
        };
        blob.mapping = if result.is_ok() {
            Mapping::Unmapped
        } else {
            Mapping::Lost(slot_id)
        };
        if result.is_ok() {
            self.window.free(slot_id);
        }
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

    /// Does what waited for a blob that is no longer busy.
    fn go_on(&mut self, id: ResourceId, effects: &mut Vec<Effect>) {
        while let Ok(blob) = self.host_blob(id) {
            if blob.busy() {
                return;
            }
            let Some((ticket, operation)) = blob.waiting.pop_front() else {
                return;
            };
            let given_up = ticket.is_some_and(|ticket| !self.parked.is_open(ticket));
            if given_up && matches!(operation, Operation::Map(_)) {
                continue;
            }
            if let Some(result) = self.begin(id, ticket, operation, effects) {
                self.answer(ticket, result, effects);
            }
        }
    }
}
