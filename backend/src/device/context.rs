//! `CTX_CREATE`, `CTX_DESTROY`, `CTX_ATTACH_RESOURCE`, `CTX_DETACH_RESOURCE` and `SUBMIT_3D`
//! (virtio 1.4, "GPU Device / Device Operation: controlq (3d)").

use std::collections::{HashMap, HashSet};

use nosnoop_protocol::cross_domain;
use nosnoop_protocol::ids::{ContextId, ResourceId};
use nosnoop_protocol::reply::{GpuError, Reply};

use super::cross_domain::CrossDomain;
use super::quota::{MAX_CONTEXTS, MAX_SUBMIT};
use super::{Effect, State};
use crate::GuestMemory;

/// The bits of `context_init` that name the capability set.
const CAPSET_MASK: u32 = 0xff;

/// One context.
#[derive(Debug, Default)]
pub(super) struct Context {
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
}

impl Contexts {
    /// # Errors
    /// `InvalidContextId`.
    pub(super) fn get_mut(&mut self, id: ContextId) -> Result<&mut Context, GpuError> {
        self.table.get_mut(&id).ok_or(GpuError::InvalidContextId)
    }

    /// Whether any context has the resource attached.
    pub(super) fn anyone_has(&self, resource: ResourceId) -> bool {
        self.table.values().any(|context| context.has(resource))
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
        if init & CAPSET_MASK != cross_domain::CAPSET.0 {
            return Err(GpuError::InvalidParameter);
        }
        if self.contexts.table.len() >= MAX_CONTEXTS {
            return Err(GpuError::OutOfMemory);
        }
        self.contexts.table.insert(id, Context::default());
        Ok(Reply::OkNoData)
    }

    /// Blobs that the context provided live on as resources; those that no context has any more
    /// are unmapped.
    ///
    /// # Errors
    /// `InvalidContextId`.
    pub(super) fn destroy_context(
        &mut self,
        id: ContextId,
        effects: &mut Vec<Effect>,
    ) -> Result<Reply, GpuError> {
        self.contexts
            .table
            .remove(&id)
            .ok_or(GpuError::InvalidContextId)?;
        self.unmap_abandoned(id, effects);
        Ok(Reply::OkNoData)
    }

    /// # Errors
    /// `InvalidContextId`, `InvalidResourceId`.
    pub(super) fn attach_resource(
        &mut self,
        id: ContextId,
        resource: ResourceId,
    ) -> Result<Reply, GpuError> {
        let context = self.contexts.get_mut(id)?;
        self.resources.get(resource)?;
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
