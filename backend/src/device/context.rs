//! `CTX_CREATE`, `CTX_DESTROY`, `CTX_ATTACH_RESOURCE`, `CTX_DETACH_RESOURCE` and `SUBMIT_3D`
//! (virtio 1.4, "GPU Device / Device Operation: controlq (3d)").

use std::collections::{HashMap, HashSet};

use nosnoop_protocol::cross_domain;
use nosnoop_protocol::ids::{ContextId, ResourceId};
use nosnoop_protocol::reply::{GpuError, Reply};

use super::cross_domain::CrossDomain;
use super::quota::{MAX_ATTACHMENTS, MAX_CONTEXTS, MAX_SUBMIT};
use super::resource::Storage;
use super::{Effect, State, Verdict};
use crate::GuestMemory;
use crate::planted::{Bug, planted};

/// The bits of `context_init` that name the capability set.
const CAPSET_MASK: u32 = 0xff;

/// Names a context for good: the guest uses its ids again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ContextSerial(pub(super) u64);

/// One context.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) serial: ContextSerial,
    attached: HashSet<ResourceId>,
    pub(super) cross_domain: CrossDomain,
}

impl Context {
    pub(super) fn has(&self, resource: ResourceId) -> bool {
        self.attached.contains(&resource)
    }
}

/// All contexts.
#[derive(Debug, Default)]
pub(super) struct Contexts {
    table: HashMap<ContextId, Context>,
    made: u64,
}

impl Contexts {
    /// # Errors
    /// `InvalidContextId`.
    pub(super) fn get_mut(&mut self, id: ContextId) -> Result<&mut Context, GpuError> {
        self.table.get_mut(&id).ok_or(GpuError::InvalidContextId)
    }

    fn attachments(&self) -> usize {
        self.table
            .values()
            .fold(0, |sum, context| sum.saturating_add(context.attached.len()))
    }

    /// The resource is gone.
    pub(super) fn forget(&mut self, resource: ResourceId) {
        for context in self.table.values_mut() {
            context.attached.remove(&resource);
        }
    }
}

impl State {
    /// # Errors
    /// `InvalidContextId` (id taken), `InvalidParameter` (a capability set that is not offered),
    /// `OutOfMemory` (quota).
    pub(super) fn create_context(&mut self, id: ContextId, init: u32) -> Result<Reply, GpuError> {
        if self.contexts.table.contains_key(&id) {
            return Err(GpuError::InvalidContextId);
        }
        // 0 leaves it to the device, as drivers do that do not know CONTEXT_INIT.
        let known = [0, cross_domain::CAPSET.0].contains(&(init & CAPSET_MASK));
        if !known && !planted(Bug::UnknownCapsetAccepted) {
            return Err(GpuError::InvalidParameter);
        }
        if self.contexts.table.len() >= MAX_CONTEXTS {
            return Err(GpuError::OutOfMemory);
        }
        let contexts = &mut self.contexts;
        contexts.made = contexts.made.wrapping_add(1);
        let context = Context {
            serial: ContextSerial(contexts.made),
            attached: HashSet::new(),
            cross_domain: CrossDomain::default(),
        };
        contexts.table.insert(id, context);
        Ok(Reply::OkNoData)
    }

    /// Blobs that the context provided live on as resources. Those whose provider has gone and that
    /// no context has are unmapped first.
    ///
    /// # Errors
    /// In the verdict: `InvalidContextId`.
    pub(super) fn destroy_context(&mut self, id: ContextId, effects: &mut Vec<Effect>) -> Verdict {
        if planted(Bug::ContextStays) && self.contexts.table.contains_key(&id) {
            return Verdict::Done(Ok(Reply::OkNoData));
        }
        if self.contexts.table.remove(&id).is_none() {
            return Verdict::Done(Err(GpuError::InvalidContextId));
        }
        let orphans = self.orphans();
        self.unmap_all(&orphans, effects)
    }

    /// Mapped blobs that no context provides or has any more.
    fn orphans(&self) -> Vec<ResourceId> {
        let contexts = || self.contexts.table.values();
        let alive: HashSet<_> = contexts().map(|context| context.serial).collect();
        let attached: HashSet<_> = contexts().flat_map(|context| &context.attached).collect();
        let orphans = self.resources.iter().filter(|(id, resource)| {
            matches!(&resource.storage, Storage::HostBlob(blob)
                if blob.is_mapped()
                    && !blob.awaits_unmap()
                    && !alive.contains(&blob.provider())
                    && !attached.contains(id))
        });
        orphans.map(|(id, _)| id).collect()
    }

    /// # Errors
    /// `InvalidContextId`, `InvalidResourceId`, `OutOfMemory` (quota).
    pub(super) fn attach_resource(
        &mut self,
        id: ContextId,
        resource: ResourceId,
    ) -> Result<Reply, GpuError> {
        if planted(Bug::AttachWithoutContext) && !self.contexts.table.contains_key(&id) {
            return Ok(Reply::OkNoData);
        }
        let attachments = self.contexts.attachments();
        let context = self.contexts.get_mut(id)?;
        self.resources.get(resource)?;
        if attachments >= MAX_ATTACHMENTS && !context.has(resource) {
            return Err(GpuError::OutOfMemory);
        }
        context.attached.insert(resource);
        Ok(Reply::OkNoData)
    }

    /// # Errors
    /// `InvalidContextId`, `InvalidResourceId`.
    pub(super) fn detach_resource(
        &mut self,
        id: ContextId,
        resource: ResourceId,
    ) -> Result<Reply, GpuError> {
        let context = self.contexts.get_mut(id)?;
        self.resources.get(resource)?;
        context.attached.remove(&resource);
        Ok(Reply::OkNoData)
    }

    /// # Errors
    /// `InvalidContextId`, `InvalidParameter` for more than [`MAX_SUBMIT`] bytes, and what the
    /// context's commands give; those before a bad one have been executed.
    pub(super) fn submit(
        &mut self,
        id: ContextId,
        data: &[u8],
        memory: &GuestMemory,
    ) -> Result<Reply, GpuError> {
        self.contexts.get_mut(id)?;
        if data.len() > MAX_SUBMIT {
            return Err(GpuError::InvalidParameter);
        }
        for command in cross_domain::commands(data) {
            self.cross_domain(id, command?, memory)?;
        }
        Ok(Reply::OkNoData)
    }
}
