//! `CTX_CREATE`, `CTX_DESTROY`, `CTX_ATTACH_RESOURCE`, `CTX_DETACH_RESOURCE` and, for cross-domain
//! contexts, `SUBMIT_3D` (virtio 1.4, "GPU Device / Device Operation: controlq (3d)").
//!
//! A context is the renderer's or a cross-domain one. 2D resources and blobs in guest memory stay here
//! whoever they are attached to: guests attach those too.

use std::collections::{HashMap, HashSet};

use nosnoop_protocol::command::Fence;
use nosnoop_protocol::cross_domain;
use nosnoop_protocol::ids::{CapsetId, ContextId, ResourceId};
use nosnoop_protocol::reply::{GpuError, Reply};

use super::cross_domain::CrossDomain;
use super::quota::{
    CONTEXT_DESCRIPTORS, MAX_ATTACHMENTS, MAX_CONTEXTS, MAX_RENDERED_CONTEXTS, MAX_SUBMIT,
};
use super::resource::Storage;
use super::three_d::refused;
use super::{Device, Effect, State, Verdict};
use crate::GuestMemory;
use crate::planted::{Bug, planted};
use crate::render::OPENGL;

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
    kind: Kind,
}

/// Who executes a context's commands.
#[derive(Debug)]
enum Kind {
    /// The device.
    CrossDomain(CrossDomain),
    /// The renderer, by this capability set.
    Rendered(CapsetId),
}

impl Context {
    pub(super) fn is_rendered(&self) -> bool {
        matches!(self.kind, Kind::Rendered(_))
    }

    /// # Errors
    /// `InvalidParameter` for a context of the renderer.
    pub(super) fn cross_domain(&mut self) -> Result<&mut CrossDomain, GpuError> {
        match &mut self.kind {
            Kind::CrossDomain(cross_domain) => Ok(cross_domain),
            Kind::Rendered(_) => Err(GpuError::InvalidParameter),
        }
    }

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

    /// Whether it is a context of the renderer.
    ///
    /// # Errors
    /// `InvalidContextId`.
    pub(super) fn is_rendered(&self, id: ContextId) -> Result<bool, GpuError> {
        let context = self.table.get(&id).ok_or(GpuError::InvalidContextId)?;
        Ok(context.is_rendered())
    }

    fn attachments(&self) -> usize {
        self.table
            .values()
            .fold(0, |sum, context| sum.saturating_add(context.attached.len()))
    }

    /// How many the renderer has.
    pub(super) fn rendered(&self) -> usize {
        let rendered = self.table.values().filter(|context| context.is_rendered());
        rendered.count()
    }

    /// # Errors
    /// `OutOfMemory` (quota).
    fn check_room(&self, kind: &Kind) -> Result<(), GpuError> {
        let full = matches!(kind, Kind::Rendered(_)) && self.rendered() >= MAX_RENDERED_CONTEXTS;
        if full || self.table.len() >= MAX_CONTEXTS {
            return Err(GpuError::OutOfMemory);
        }
        Ok(())
    }

    fn insert(&mut self, id: ContextId, kind: Kind) {
        self.made = self.made.wrapping_add(1);
        let context = Context {
            serial: ContextSerial(self.made),
            attached: HashSet::new(),
            kind,
        };
        self.table.insert(id, context);
    }

    /// The resource is gone.
    pub(super) fn forget(&mut self, resource: ResourceId) {
        for context in self.table.values_mut() {
            context.attached.remove(&resource);
        }
    }
}

impl Device {
    /// # Errors
    /// `InvalidContextId` (id taken), `InvalidParameter` (a capability set that is not offered),
    /// `OutOfMemory` (quota), `Unspec` if the renderer refuses.
    pub(super) fn create_context(
        &self,
        id: ContextId,
        init: u32,
        name: &[u8],
    ) -> Result<Reply, GpuError> {
        if self.state().contexts.table.contains_key(&id) {
            return Err(GpuError::InvalidContextId);
        }
        let kind = self.kind(init)?;
        {
            let state = self.state();
            state.contexts.check_room(&kind)?;
            if matches!(kind, Kind::Rendered(_)) {
                state.check_descriptors(CONTEXT_DESCRIPTORS)?;
            }
        }
        if let Kind::Rendered(capset) = kind {
            let name = String::from_utf8_lossy(name).into_owned();
            let made = self
                .renderer()?
                .call("CTX_CREATE", move |it| it.create_context(id, capset, &name));
            made.map_err(|error| refused("CTX_CREATE", &error))?;
        }
        self.state().contexts.insert(id, kind);
        Ok(Reply::OkNoData)
    }

    /// The kind of context that `context_init` asks for.
    fn kind(&self, init: u32) -> Result<Kind, GpuError> {
        let capset = CapsetId(init & CAPSET_MASK);
        let cross_domain = || Ok(Kind::CrossDomain(CrossDomain::default()));
        let rendered = self.renderer.iter().flat_map(|renderer| renderer.capsets());
        // 0 leaves it to the device, as drivers do that do not know CONTEXT_INIT: those mean OpenGL.
        let mut fitting = rendered.map(|it| it.id).filter(|id| match capset.0 {
            0 => OPENGL.contains(id),
            _ => *id == capset,
        });
        match (fitting.next(), &self.shared_memory) {
            (Some(found), _) => Ok(Kind::Rendered(found)),
            (None, Some(_)) if capset.0 == 0 || capset == cross_domain::CAPSET => cross_domain(),
            _ if planted(Bug::UnknownCapsetAccepted) => cross_domain(),
            _ => Err(GpuError::InvalidParameter),
        }
    }

    /// Those of the renderer's fences that are the context's are done with it.
    ///
    /// # Errors
    /// In the verdict: see [`State::destroy_context`].
    pub(super) fn destroy_context(&self, id: ContextId) -> Verdict {
        let rendered = self.state().contexts.is_rendered(id);
        if let (Ok(true), Some(renderer)) = (rendered, &self.renderer) {
            renderer.destroy_context(id);
        }
        self.parking(|state, effects| state.destroy_context(id, effects))
    }

    /// The renderer is told of what it has; anything else is noted here alone.
    ///
    /// # Errors
    /// `InvalidContextId`, `InvalidResourceId`, `OutOfMemory` (quota), `Unspec` if the renderer
    /// refuses.
    pub(super) fn attach_resource(
        &self,
        id: ContextId,
        resource: ResourceId,
    ) -> Result<Reply, GpuError> {
        let shared = {
            let mut state = self.state();
            if planted(Bug::AttachWithoutContext) && !state.contexts.table.contains_key(&id) {
                return Ok(Reply::OkNoData);
            }
            let attached = state.has_attached(id, resource)?;
            if !attached && state.contexts.attachments() >= MAX_ATTACHMENTS {
                return Err(GpuError::OutOfMemory);
            }
            !attached && state.shares_with_renderer(id, resource)?
        };
        if shared {
            let attached = self
                .renderer()?
                .call("CTX_ATTACH_RESOURCE", move |it| it.attach(id, resource));
            attached.map_err(|error| refused("CTX_ATTACH_RESOURCE", &error))?;
        }
        self.state().contexts.get_mut(id)?.attached.insert(resource);
        Ok(Reply::OkNoData)
    }

    /// # Errors
    /// `InvalidContextId`, `InvalidResourceId`, `Unspec` if the renderer refuses.
    pub(super) fn detach_resource(
        &self,
        id: ContextId,
        resource: ResourceId,
    ) -> Result<Reply, GpuError> {
        let shared = {
            let mut state = self.state();
            state.has_attached(id, resource)? && state.shares_with_renderer(id, resource)?
        };
        if shared {
            let detached = self
                .renderer()?
                .call("CTX_DETACH_RESOURCE", move |it| it.detach(id, resource));
            detached.map_err(|error| refused("CTX_DETACH_RESOURCE", &error))?;
        }
        let mut state = self.state();
        state.contexts.get_mut(id)?.attached.remove(&resource);
        Ok(Reply::OkNoData)
    }
}

impl State {
    /// Whether the context has the resource.
    ///
    /// # Errors
    /// `InvalidContextId`, `InvalidResourceId`.
    fn has_attached(&mut self, id: ContextId, resource: ResourceId) -> Result<bool, GpuError> {
        let attached = self.contexts.get_mut(id)?.has(resource);
        self.resources.get(resource)?;
        Ok(attached)
    }

    /// Whether the renderer has both.
    ///
    /// # Errors
    /// `InvalidContextId`, `InvalidResourceId`.
    fn shares_with_renderer(&self, id: ContextId, resource: ResourceId) -> Result<bool, GpuError> {
        let rendered = self.contexts.is_rendered(id)?;
        Ok(rendered && self.resources.get(resource)?.storage.is_renderers())
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
        let Some(context) = self.contexts.table.remove(&id) else {
            return Verdict::Done(Err(GpuError::InvalidContextId));
        };
        self.close_channel(context.serial, effects);
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

    /// Executes the commands of a cross-domain context; a fence may wait for its channel.
    ///
    /// # Errors
    /// In the verdict: `InvalidContextId`, `InvalidParameter` for more than [`MAX_SUBMIT`] bytes, and what
    /// the context's commands give; those before a bad one have been executed.
    pub(super) fn submit(
        &mut self,
        id: ContextId,
        data: &[u8],
        fence: Option<Fence>,
        memory: &GuestMemory,
        effects: &mut Vec<Effect>,
    ) -> Verdict {
        match self.execute(id, data, memory) {
            Ok(context) => self.fence_submission(context, fence, effects),
            Err(error) => Verdict::Done(Err(error)),
        }
    }

    fn execute(
        &mut self,
        id: ContextId,
        data: &[u8],
        memory: &GuestMemory,
    ) -> Result<ContextSerial, GpuError> {
        let serial = self.contexts.get_mut(id)?.serial;
        if data.len() > MAX_SUBMIT {
            return Err(GpuError::InvalidParameter);
        }
        for command in cross_domain::commands(data) {
            self.cross_domain(id, command?, memory)?;
        }
        Ok(serial)
    }
}
