//! A renderer that draws nothing: it writes down what it is asked, fails when told to, and checks that
//! the device keeps its promises.
#![allow(
    clippy::arithmetic_side_effects,
    reason = "small numbers of the tests' own"
)]

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::thread;

use nosnoop_protocol::command::{Create3d, Transfer3d};
use nosnoop_protocol::geometry::Rect;
use nosnoop_protocol::ids::{CapsetId, ContextId, ResourceId};

use super::fences::Fences;
use super::thread::RenderThread;
use super::{
    BlobRequest, Capset, Direction, ExportedBlob, ExportedPicture, HandleKind, Pinned, RenderError,
    Renderer, Timeline,
};
use crate::sync::lock;

/// What pictures that are exported are said to be.
pub(crate) const FOURCC: u32 = 0x3432_5258;
pub(crate) const STRIDE: u32 = 0x1000;
pub(crate) const MODIFIER: u64 = 0x0100_0000_0000_0002;

/// What it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    CreateContext(ContextId, CapsetId, String),
    DestroyContext(ContextId),
    CreateResource(Create3d),
    CreateBlob(ResourceId, BlobRequest),
    DestroyResource(ResourceId),
    AttachBacking(ResourceId, Vec<(u64, usize)>),
    DetachBacking(ResourceId),
    Attach(ContextId, ResourceId),
    Detach(ContextId, ResourceId),
    Transfer(Direction, Transfer3d),
    Read(ResourceId, Rect),
    ExportPicture(ResourceId),
    Flush,
    Submit(ContextId, Vec<u8>),
    Fence(Timeline, u32),
    Reset,
}

/// How it is to behave, and what has become of it.
#[derive(Default)]
pub(crate) struct Script {
    pub(crate) calls: Vec<Call>,
    /// Promises of the device that were not kept.
    pub(crate) broken: Vec<String>,
    /// Calls to refuse, by the beginning of their debug text.
    pub(crate) refuse: Option<&'static str>,
    /// A call to panic at.
    pub(crate) panic: Option<&'static str>,
    /// Fences are signalled at once.
    pub(crate) prompt: bool,
    /// Fences that were made and not signalled.
    pub(crate) pending: Vec<(Timeline, u32)>,
    /// What the next blob is.
    pub(crate) export: Option<(OwnedFd, HandleKind, Option<u32>)>,
    /// A picture's memory.
    pub(crate) picture: Option<OwnedFd>,
    /// It draws Vulkan, and no OpenGL. To be said before the start.
    pub(crate) vulkan: bool,
    /// The fences.
    fences: Option<Arc<Fences>>,
    contexts: HashSet<ContextId>,
    /// With whether they have a backing.
    resources: HashMap<ResourceId, bool>,
    attached: HashSet<(ContextId, ResourceId)>,
}

/// The test's end of a fake renderer.
#[derive(Clone, Default)]
pub(crate) struct Fake(Arc<Mutex<Script>>);

impl Fake {
    /// A fake on a thread: with virgl's two capability sets, unless it is told otherwise.
    pub(crate) fn start(&self) -> Arc<RenderThread> {
        let fake = self.clone();
        RenderThread::start(move |fences| {
            fake.with(|script| script.fences = Some(fences));
            Ok(Box::new(fake))
        })
        .unwrap()
    }

    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut Script) -> T) -> T {
        change(&mut lock(&self.0))
    }

    /// What it was asked since the last time.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.with(|script| std::mem::take(&mut script.calls))
    }

    /// Signals the pending fence at this place, from another thread, as renderers do.
    pub(crate) fn signal(&self, at: usize) {
        let (fences, (timeline, id)) = self.with(|script| {
            let fences = script.fences.clone().unwrap();
            (fences, script.pending.remove(at))
        });
        let signals = thread::spawn(move || fences.signal(timeline, id));
        signals.join().unwrap();
    }

    /// # Panics
    /// The device has not kept its promises.
    pub(crate) fn check(&self) {
        let broken = self.with(|script| std::mem::take(&mut script.broken));
        assert!(broken.is_empty(), "{broken:#?}");
    }

    fn called(&self, call: Call) -> Result<(), RenderError> {
        let text = format!("{call:?}");
        let (panics, refused) = self.with(|script| {
            script.calls.push(call);
            let is = |name: Option<&str>| name.is_some_and(|name| text.starts_with(name));
            (is(script.panic), is(script.refuse))
        });
        assert!(!panics, "told to panic");
        if refused {
            return Err(RenderError::Refused("told to".to_owned()));
        }
        Ok(())
    }

    fn promised(&self, kept: impl FnOnce(&Script) -> bool, what: &str) {
        self.with(|script| {
            if !kept(script) {
                let call = script.calls.last();
                script.broken.push(format!("{what}: {call:?}"));
            }
        });
    }

    fn knows(&self, context: ContextId, resource: ResourceId) {
        self.promised(|it| it.contexts.contains(&context), "unknown context");
        self.promised(
            |it| it.resources.contains_key(&resource),
            "unknown resource",
        );
    }
}

/// One of the pixels that the fake's resources are made of: column, row and id.
pub(crate) fn pixel(resource: ResourceId, x: u32, y: u32) -> [u8; 4] {
    let byte = |number: u32| u8::try_from(number % 256).unwrap();
    [byte(x), byte(y), byte(resource.get()), 0x7f]
}

/// What a capability set of the fake is.
pub(crate) fn capset(id: u32) -> Capset {
    Capset {
        id: CapsetId(id),
        version: id,
        data: vec![0xa0; usize::try_from(id * 100).unwrap()],
    }
}

impl Renderer for Fake {
    fn capsets(&self) -> Vec<Capset> {
        match self.with(|script| script.vulkan) {
            true => vec![capset(4)],
            false => vec![capset(1), capset(2)],
        }
    }

    fn create_context(
        &mut self,
        id: ContextId,
        capset: CapsetId,
        name: &str,
    ) -> Result<(), RenderError> {
        self.promised(|it| !it.contexts.contains(&id), "context made twice");
        self.called(Call::CreateContext(id, capset, name.to_owned()))?;
        self.with(|script| script.contexts.insert(id));
        Ok(())
    }

    fn destroy_context(&mut self, id: ContextId) {
        let _ = self.called(Call::DestroyContext(id));
        self.promised(|it| it.contexts.contains(&id), "unknown context");
        self.with(|script| {
            script.contexts.remove(&id);
            script.attached.retain(|(context, _)| *context != id);
        });
    }

    fn create_resource(&mut self, create: &Create3d) -> Result<(), RenderError> {
        let id = create.resource;
        self.called(Call::CreateResource(*create))?;
        self.promised(|it| !it.resources.contains_key(&id), "resource made twice");
        self.with(|script| script.resources.insert(id, false));
        Ok(())
    }

    fn create_blob(
        &mut self,
        resource: ResourceId,
        request: &BlobRequest,
    ) -> Result<ExportedBlob, RenderError> {
        self.called(Call::CreateBlob(resource, *request))?;
        self.promised(
            |it| it.contexts.contains(&request.context),
            "unknown context",
        );
        self.promised(|it| !it.resources.contains_key(&resource), "made twice");
        let exported = self.with(|script| script.export.take());
        let (fd, kind, map_info) = exported.ok_or(RenderError::Refused("no export".to_owned()))?;
        self.with(|script| script.resources.insert(resource, false));
        Ok(ExportedBlob { fd, kind, map_info })
    }

    fn destroy_resource(&mut self, id: ResourceId) {
        let _ = self.called(Call::DestroyResource(id));
        self.promised(|it| it.resources.contains_key(&id), "unknown resource");
        self.with(|script| {
            script.resources.remove(&id);
            script.attached.retain(|(_, resource)| *resource != id);
        });
    }

    fn attach_backing(&mut self, id: ResourceId, backing: Pinned) -> Result<(), RenderError> {
        self.called(Call::AttachBacking(id, backing.pieces))?;
        self.promised(|it| it.resources.get(&id) == Some(&false), "has a backing");
        self.with(|script| script.resources.insert(id, true));
        Ok(())
    }

    fn detach_backing(&mut self, id: ResourceId) {
        let _ = self.called(Call::DetachBacking(id));
        self.promised(|it| it.resources.get(&id) == Some(&true), "has no backing");
        self.with(|script| script.resources.insert(id, false));
    }

    fn attach(&mut self, context: ContextId, resource: ResourceId) -> Result<(), RenderError> {
        self.called(Call::Attach(context, resource))?;
        self.knows(context, resource);
        self.with(|script| script.attached.insert((context, resource)));
        Ok(())
    }

    fn detach(&mut self, context: ContextId, resource: ResourceId) -> Result<(), RenderError> {
        self.called(Call::Detach(context, resource))?;
        self.knows(context, resource);
        let pair = (context, resource);
        self.promised(|it| it.attached.contains(&pair), "not attached");
        self.with(|script| script.attached.remove(&pair));
        Ok(())
    }

    fn transfer(&mut self, direction: Direction, transfer: &Transfer3d) -> Result<(), RenderError> {
        self.called(Call::Transfer(direction, *transfer))?;
        let resource = transfer.resource;
        self.promised(
            |it| it.resources.get(&resource) == Some(&true),
            "no backing",
        );
        if let Some(context) = transfer.context {
            let pair = (context, resource);
            self.promised(|it| it.attached.contains(&pair), "not attached");
        }
        Ok(())
    }

    fn read(
        &mut self,
        resource: ResourceId,
        rect: Rect,
        into: &mut [u8],
    ) -> Result<(), RenderError> {
        self.called(Call::Read(resource, rect))?;
        if !self.with(|it| it.resources.contains_key(&resource)) {
            return Err(RenderError::Refused("unknown resource".to_owned()));
        }
        let pixels = u64::try_from(into.len() / 4).unwrap();
        self.promised(|_| pixels == rect.size().pixels(), "wrong length");
        let places = (rect.y..).flat_map(|y| (rect.x..rect.x + rect.width).map(move |x| (x, y)));
        for (pixel_of, (x, y)) in into.chunks_exact_mut(4).zip(places) {
            pixel_of.copy_from_slice(&pixel(resource, x, y));
        }
        Ok(())
    }

    fn export_picture(&mut self, resource: ResourceId) -> Result<ExportedPicture, RenderError> {
        self.called(Call::ExportPicture(resource))?;
        self.promised(
            |it| it.resources.contains_key(&resource),
            "unknown resource",
        );
        let fd = self.with(|script| script.picture.as_ref().map(|fd| fd.try_clone().unwrap()));
        Ok(ExportedPicture {
            fd: fd.ok_or(RenderError::Refused("no export".to_owned()))?,
            fourcc: FOURCC,
            stride: STRIDE,
            modifier: MODIFIER,
        })
    }

    fn flush(&mut self) {
        let _ = self.called(Call::Flush);
    }

    fn submit(&mut self, context: ContextId, commands: &mut [u8]) -> Result<(), RenderError> {
        self.called(Call::Submit(context, commands.to_vec()))?;
        self.promised(|it| it.contexts.contains(&context), "unknown context");
        Ok(())
    }

    fn fence(&mut self, timeline: Timeline, id: u32) -> Result<(), RenderError> {
        self.called(Call::Fence(timeline, id))?;
        if let Timeline::Context(context, _) = timeline {
            self.promised(|it| it.contexts.contains(&context), "unknown context");
        }
        let (prompt, fences) = self.with(|it| (it.prompt, it.fences.clone().unwrap()));
        if prompt {
            fences.signal(timeline, id);
        } else {
            self.with(|script| script.pending.push((timeline, id)));
        }
        Ok(())
    }

    fn reset(&mut self) {
        let _ = self.called(Call::Reset);
        self.with(|script| {
            script.contexts.clear();
            script.resources.clear();
            script.attached.clear();
            script.pending.clear();
        });
    }
}
