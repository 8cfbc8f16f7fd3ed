//! The 3D renderer of virglrenderer, through the crate `rutabaga_gfx`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::c_void;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nosnoop_protocol::command::{Create3d, Transfer3d};
use nosnoop_protocol::geometry::Rect;
use nosnoop_protocol::ids::{CapsetId, ContextId, ResourceId, RingIdx};
use rustix::fs::fcntl_get_seals;
use rutabaga_gfx::{
    RUTABAGA_BLOB_MEM_HOST3D, RUTABAGA_CAPSET_VENUS, RUTABAGA_CAPSET_VIRGL, RUTABAGA_CAPSET_VIRGL2,
    RUTABAGA_FLAG_FENCE, RUTABAGA_FLAG_INFO_RING_IDX, RUTABAGA_HANDLE_TYPE_MEM_DMABUF,
    RUTABAGA_HANDLE_TYPE_MEM_OPAQUE_FD, RUTABAGA_MAP_CACHE_MASK, RUTABAGA_PATH_TYPE_GPU,
    ResourceCreate3D, ResourceCreateBlob, Rutabaga, RutabagaBuilder, RutabagaError, RutabagaFence,
    RutabagaHandler, RutabagaIovec, RutabagaPath, Transfer3D,
};
use vm_memory::{GuestAddress, GuestMemoryBackend};
use zerocopy::IntoBytes;

use super::fences::Fences;
use super::gpu::Gpu;
use super::{
    BlobRequest, Capset, Direction, ExportedBlob, HandleKind, Pinned, RenderError, Renderer,
    Timeline,
};

/// The renderer. There is one in a process, ever: virglrenderer starts once, also when that fails.
pub(super) struct Virgl {
    rutabaga: Rutabaga,
    capsets: Vec<Capset>,
    /// Whose global fences there are, if there is OpenGL.
    opengl: bool,
    /// No device draws.
    software: bool,
    fences: Arc<Fences>,
    contexts: BTreeSet<u32>,
    /// Every resource with its backing. virglrenderer keeps the backing's addresses and copies
    /// through them whenever a command stream says so, until it is told that they are gone: until
    /// after that the guest memory stays mapped, whatever the front-end does to the table.
    resources: BTreeMap<u32, Option<Pinned>>,
}

impl Virgl {
    /// Starts virglrenderer on `gpu`, on this thread for good. Only capability sets in `wanted` are
    /// offered.
    ///
    /// # Errors
    /// One line that says what does not work.
    pub(super) fn start(
        gpu: &Gpu,
        wanted: &[CapsetId],
        fences: Arc<Fences>,
    ) -> Result<Self, String> {
        let signals = Arc::clone(&fences);
        let handler = RutabagaHandler::new(move |fence: RutabagaFence| {
            if let Some((timeline, id)) = signalled(fence) {
                signals.signal(timeline, id);
            }
        });
        let mut sets = wanted.iter().fold(0, |sets, id| sets | 1_u64 << id.0);
        // virglrenderer does not start for the older set alone.
        if sets & 1 << RUTABAGA_CAPSET_VIRGL != 0 {
            sets |= 1 << RUTABAGA_CAPSET_VIRGL2;
        }
        let venus = sets & 1 << RUTABAGA_CAPSET_VENUS != 0;
        let builder = RutabagaBuilder::new(sets, handler)
            .set_use_egl(true)
            // Venus is only there as a process of its own.
            .set_use_render_server(venus);
        let builder = match gpu {
            // External blobs without a GPU: a guest could crash virglrenderer with them.
            Gpu::Software => builder
                .set_use_surfaceless(true)
                .set_use_external_blob(false),
            // Not surfaceless: then EGL would choose the GPU, whatever node is named here.
            Gpu::Node(path) => builder
                .set_use_surfaceless(false)
                .set_use_external_blob(true)
                .set_rutabaga_paths(Some(vec![RutabagaPath {
                    path: path.clone(),
                    path_type: RUTABAGA_PATH_TYPE_GPU,
                }])),
        };
        let rutabaga = builder
            .build()
            .map_err(|error| format!("virglrenderer does not start: {error}"))?;
        // A failure to start is only seen by what is missing then.
        if rutabaga.get_num_capsets() == 0 {
            return Err(format!(
                "virglrenderer does not start on {gpu}: is there an EGL and an OpenGL driver for it?"
            ));
        }
        let capsets = capsets(&rutabaga, wanted)?;
        Ok(Self {
            rutabaga,
            capsets,
            opengl: sets & 1 << RUTABAGA_CAPSET_VIRGL2 != 0,
            software: *gpu == Gpu::Software,
            fences,
            contexts: BTreeSet::new(),
            resources: BTreeMap::new(),
        })
    }

    /// A descriptor that is readable when [`Renderer::poll`] is to be called.
    pub(super) fn poll_descriptor(&self) -> io::Result<Option<OwnedFd>> {
        let descriptor = self.rutabaga.poll_descriptor();
        descriptor
            .map(|descriptor| descriptor.as_fd().try_clone_to_owned())
            .transpose()
    }

    /// Makes sure that a GL context is there to work in, for what is done in none of the guest's: the
    /// one of the last command may have been destroyed.
    fn outside_of_contexts(&self) {
        self.rutabaga.force_ctx_0();
    }

    /// Forgets a resource's backing, first there, then here.
    fn unpin(&mut self, id: u32) {
        if let Some(backing @ Some(_)) = self.resources.get_mut(&id) {
            self.rutabaga.force_ctx_0();
            // Fails only for a resource that is not there, which has no addresses either.
            let _ = self.rutabaga.detach_backing(id);
            *backing = None;
        }
    }

    fn destroy(&mut self, id: u32) {
        // Not left to the destruction: rutabaga frees its list of the addresses before that, and
        // objects of contexts may keep the resource itself alive after it.
        self.unpin(id);
        self.outside_of_contexts();
        // It is gone either way.
        let _ = self.rutabaga.unref_resource(id);
        self.resources.remove(&id);
    }

    fn export(&mut self, id: u32) -> Result<ExportedBlob, RenderError> {
        let handle = self.rutabaga.export_blob(id).map_err(|error| {
            RenderError::Refused(format!(
                "this driver does not export the memory of blobs ({})",
                words(&error)
            ))
        })?;
        let handle = handle
            .as_mesa_handle()
            .ok_or_else(|| refused("a blob without a descriptor"))?;
        let fd = handle
            .os_handle
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| refused(format_args!("no descriptor for a blob: {error}")))?;
        let kind = match handle.handle_type {
            RUTABAGA_HANDLE_TYPE_MEM_DMABUF if self.software => HandleKind::SoftwareDmaBuf,
            RUTABAGA_HANDLE_TYPE_MEM_DMABUF => HandleKind::DmaBuf,
            RUTABAGA_HANDLE_TYPE_MEM_OPAQUE_FD => HandleKind::Other,
            // Only files in memory have seals to ask for.
            _ if fcntl_get_seals(&fd).is_ok() => HandleKind::Shm,
            _ => HandleKind::Other,
        };
        let map_info = self.rutabaga.map_info(id).ok();
        Ok(ExportedBlob {
            fd,
            kind,
            map_info: map_info
                .map(|bits| bits & RUTABAGA_MAP_CACHE_MASK)
                .filter(|&cache| cache != 0),
        })
    }
}

/// The capability sets that are wanted and there, by ascending id.
fn capsets(rutabaga: &Rutabaga, wanted: &[CapsetId]) -> Result<Vec<Capset>, String> {
    let mut found = Vec::new();
    for index in 0..rutabaga.get_num_capsets() {
        let what = |error| format!("virglrenderer has no capability set {index}: {error}");
        let (id, version, _) = rutabaga.get_capset_info(index).map_err(what)?;
        if wanted.contains(&CapsetId(id)) {
            let data = rutabaga.get_capset(id, version).map_err(what)?;
            let id = CapsetId(id);
            found.push(Capset { id, version, data });
        }
    }
    found.sort_by_key(|capset| capset.id.0);
    Ok(found)
}

/// Which of our fences the renderer means; `None` if none of ours is like that.
fn signalled(fence: RutabagaFence) -> Option<(Timeline, u32)> {
    let timeline = match fence.flags & RUTABAGA_FLAG_INFO_RING_IDX {
        0 => Timeline::Global,
        _ => Timeline::Context(ContextId::new(fence.ctx_id)?, RingIdx::new(fence.ring_idx)?),
    };
    Some((timeline, u32::try_from(fence.fence_id).ok()?))
}

fn refused(why: impl std::fmt::Display) -> RenderError {
    RenderError::Refused(why.to_string())
}

/// The library's error numbers as words; some are negative.
fn words(error: &RutabagaError) -> String {
    match error {
        RutabagaError::ComponentError(number) => {
            let number = i32::try_from(number.unsigned_abs()).unwrap_or(i32::MAX);
            io::Error::from_raw_os_error(number).to_string()
        }
        other => other.to_string(),
    }
}

#[allow(
    clippy::needless_pass_by_value,
    reason = "the shape that map_err takes"
)]
fn error(error: RutabagaError) -> RenderError {
    RenderError::Refused(words(&error))
}

/// The addresses of a backing's pieces in this process. They hold as long as `backing` is there.
fn addresses(backing: &Pinned) -> Result<Vec<RutabagaIovec>, RenderError> {
    let mut all = Vec::with_capacity(backing.pieces.len());
    for &(address, len) in &backing.pieces {
        let slices = GuestMemoryBackend::get_slices(&backing.memory, GuestAddress(address), len);
        for slice in slices {
            let slice = slice.map_err(|error| refused(format_args!("no such memory: {error}")))?;
            all.push(RutabagaIovec {
                base: slice.ptr_guard_mut().as_ptr().cast::<c_void>(),
                len: slice.len(),
            });
        }
    }
    Ok(all)
}

impl Renderer for Virgl {
    fn capsets(&self) -> Vec<Capset> {
        self.capsets.clone()
    }

    fn create_context(
        &mut self,
        id: ContextId,
        capset: CapsetId,
        name: &str,
    ) -> Result<(), RenderError> {
        self.rutabaga
            .create_context(id.get(), capset.0, Some(name))
            .map_err(error)?;
        self.contexts.insert(id.get());
        Ok(())
    }

    fn destroy_context(&mut self, id: ContextId) {
        // Fails only for one that is not there.
        let _ = self.rutabaga.destroy_context(id.get());
        self.contexts.remove(&id.get());
    }

    fn create_resource(&mut self, create: &Create3d) -> Result<(), RenderError> {
        self.outside_of_contexts();
        let id = create.resource.get();
        let properties = ResourceCreate3D {
            target: create.target,
            format: create.format,
            bind: create.bind,
            width: create.width,
            height: create.height,
            depth: create.depth,
            array_size: create.array_size,
            last_level: create.last_level,
            nr_samples: create.nr_samples,
            flags: create.flags,
        };
        self.rutabaga
            .resource_create_3d(id, properties)
            .map_err(error)?;
        self.resources.insert(id, None);
        Ok(())
    }

    fn create_blob(
        &mut self,
        resource: ResourceId,
        request: &BlobRequest,
    ) -> Result<ExportedBlob, RenderError> {
        self.outside_of_contexts();
        let id = resource.get();
        let blob = ResourceCreateBlob {
            blob_mem: RUTABAGA_BLOB_MEM_HOST3D,
            blob_flags: request.flags.bits(),
            blob_id: request.blob.0,
            size: request.size,
        };
        self.rutabaga
            .resource_create_blob(request.context.get(), id, blob, None, None)
            .map_err(error)?;
        self.resources.insert(id, None);
        let exported = self.export(id);
        if exported.is_err() {
            self.destroy(id);
        }
        exported
    }

    fn destroy_resource(&mut self, id: ResourceId) {
        self.destroy(id.get());
    }

    fn attach_backing(&mut self, id: ResourceId, backing: Pinned) -> Result<(), RenderError> {
        let addresses = addresses(&backing)?;
        let place = self
            .resources
            .get_mut(&id.get())
            .filter(|place| place.is_none())
            .ok_or_else(|| refused("the resource is not there or has a backing"))?;
        self.rutabaga.force_ctx_0();
        self.rutabaga
            .attach_backing(id.get(), addresses)
            .map_err(error)?;
        *place = Some(backing);
        Ok(())
    }

    fn detach_backing(&mut self, id: ResourceId) {
        self.unpin(id.get());
    }

    fn attach(&mut self, context: ContextId, resource: ResourceId) -> Result<(), RenderError> {
        self.rutabaga
            .context_attach_resource(context.get(), resource.get())
            .map_err(error)
    }

    fn detach(&mut self, context: ContextId, resource: ResourceId) -> Result<(), RenderError> {
        self.rutabaga
            .context_detach_resource(context.get(), resource.get())
            .map_err(error)
    }

    fn transfer(&mut self, direction: Direction, transfer: &Transfer3d) -> Result<(), RenderError> {
        let context = transfer.context.map_or(0, ContextId::get);
        if context == 0 {
            self.outside_of_contexts();
        }
        let id = transfer.resource.get();
        let region = transfer.region;
        let copy = Transfer3D {
            x: region.x,
            y: region.y,
            z: region.z,
            w: region.width,
            h: region.height,
            d: region.depth,
            level: transfer.level,
            stride: transfer.stride,
            layer_stride: transfer.layer_stride,
            offset: transfer.offset,
        };
        match direction {
            Direction::ToHost => self.rutabaga.transfer_write(context, id, copy, None),
            Direction::FromHost => self.rutabaga.transfer_read(context, id, copy, None),
        }
        .map_err(error)
    }

    fn read(
        &mut self,
        resource: ResourceId,
        rect: Rect,
        into: &mut [u8],
    ) -> Result<(), RenderError> {
        let stride = rect.width.checked_mul(4);
        let bytes = stride.and_then(|stride| stride.checked_mul(rect.height));
        let bytes = bytes.and_then(|bytes| usize::try_from(bytes).ok());
        let (Some(stride), Some(into)) = (stride, bytes.and_then(|bytes| into.get_mut(..bytes)))
        else {
            return Err(refused("the pixels do not fit where they are to go"));
        };
        self.outside_of_contexts();
        let copy = Transfer3D {
            stride,
            ..Transfer3D::new_2d(rect.x, rect.y, rect.width, rect.height, 0)
        };
        // In the guest's own rows, whichever way GL has them, so nothing is to be turned over.
        self.rutabaga
            .transfer_read(0, resource.get(), copy, Some(IoSliceMut::new(into)))
            .map_err(error)
    }

    fn submit(&mut self, context: ContextId, commands: &mut [u8]) -> Result<(), RenderError> {
        if !commands.len().is_multiple_of(4) {
            return Err(refused("a command stream that is not made of 32-bit words"));
        }
        if commands.is_empty() {
            return Ok(());
        }
        // virglrenderer wants whole words in memory too.
        let mut aligned = Vec::new();
        let commands = if commands.as_ptr().cast::<u32>().is_aligned() {
            commands
        } else {
            aligned.resize(commands.len() / 4, 0_u32);
            let copy = aligned.as_mut_bytes();
            copy.copy_from_slice(commands);
            copy
        };
        self.rutabaga
            .submit_command(context.get(), commands, &[])
            .map_err(error)
    }

    fn fence(&mut self, timeline: Timeline, id: u32) -> Result<(), RenderError> {
        // Vulkan has work on its contexts' rings only.
        if timeline == Timeline::Global && !self.opengl {
            self.fences.signal(timeline, id);
            return Ok(());
        }
        let (flags, ctx_id, ring_idx) = match timeline {
            Timeline::Global => (RUTABAGA_FLAG_FENCE, 0, 0),
            Timeline::Context(context, ring) => (
                RUTABAGA_FLAG_FENCE | RUTABAGA_FLAG_INFO_RING_IDX,
                context.get(),
                ring.get(),
            ),
        };
        let fence = RutabagaFence {
            flags,
            fence_id: u64::from(id),
            ctx_id,
            ring_idx,
        };
        self.rutabaga.create_fence(fence).map_err(error)
    }

    fn poll(&mut self) {
        self.rutabaga.event_poll();
    }

    fn reset(&mut self) {
        for id in std::mem::take(&mut self.contexts) {
            // Fails only for one that is not there.
            let _ = self.rutabaga.destroy_context(id);
        }
        let ids: Vec<_> = self.resources.keys().copied().collect();
        for id in ids {
            self.destroy(id);
        }
    }
}

impl Drop for Virgl {
    fn drop(&mut self) {
        // Before the guest memory is unmapped that virglrenderer has addresses of.
        self.reset();
    }
}
