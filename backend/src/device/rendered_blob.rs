//! `RESOURCE_CREATE_BLOB` in host memory (virtio 1.4, "GPU Device / Device Operation: controlq"), where a
//! context of the renderer provides it.

use nosnoop_protocol::command::BlobFlags;
use nosnoop_protocol::ids::{BlobId, ContextId, ResourceId};
use nosnoop_protocol::reply::{GpuError, Reply};

use super::context::ContextSerial;
use super::host_blob::HostBlob;
use super::quota::{CONTEXT_DESCRIPTORS, HOST_BLOB_DESCRIPTORS, RENDERED_BLOB_DESCRIPTORS};
use super::resource::{Resource, Storage};
use super::three_d::refused;
use super::{Device, SharedMemory, State};
use crate::memory::PAGE_SIZE;
use crate::memory::exported::ExportError;
use crate::render::{BlobRequest, ExportedBlob, HandleKind};

impl Device {
    /// Makes a blob in host memory of what a context provides.
    ///
    /// # Errors
    /// See [`State::create_host_blob`]; for a context of the renderer `InvalidResourceId` (id taken);
    /// `InvalidParameter` for an empty blob; `OutOfMemory` (a quota); `Unspec` if the renderer refuses,
    /// gives what a front-end cannot map, or no dma-buf for a blob that other devices are to use.
    pub(super) fn create_host_blob(
        &self,
        id: ResourceId,
        context: Option<ContextId>,
        blob: BlobId,
        flags: BlobFlags,
        size: u64,
    ) -> Result<Reply, GpuError> {
        let (context, checked) = {
            let mut state = self.state();
            match context {
                Some(context) if state.contexts.is_rendered(context) == Ok(true) => {
                    (context, state.check_rendered_blob(id, context, size)?)
                }
                _ => return state.create_host_blob(id, context, blob, flags, size),
            }
        };
        let (shared, serial, len) = checked;
        let renderer = self.renderer()?;
        let request = BlobRequest {
            context,
            blob,
            flags,
            size,
        };
        let exported = renderer.call("RESOURCE_CREATE_BLOB", move |it| {
            it.create_blob(id, &request)
        });
        let exported = exported.map_err(|error| refused("RESOURCE_CREATE_BLOB", &error))?;
        let acked = shared.mapper.speaks_memtype();
        let memory = match shareable(flags, &exported)
            .and_then(|()| shared.source.exported(exported, len, acked))
        {
            Ok(memory) => memory,
            Err(error) => {
                log::warn!("a blob of {size} bytes is refused: {error}");
                renderer.post("RESOURCE_UNREF", move |it| it.destroy_resource(id));
                return Err(GpuError::Unspec);
            }
        };
        let mappable = flags.contains(BlobFlags::MAPPABLE);
        let storage = Storage::HostBlob(HostBlob::of_renderer(memory, mappable, serial));
        let mut state = self.state();
        state.resources.insert(id, Resource::new(storage, None));
        Ok(Reply::OkNoData)
    }
}

/// Whether other devices could import the memory of a blob that they are to use: only dma-bufs.
fn shareable(flags: BlobFlags, exported: &ExportedBlob) -> Result<(), ExportError> {
    match exported.kind {
        HandleKind::DmaBuf => Ok(()),
        _ if !flags.contains(BlobFlags::CROSS_DEVICE) => Ok(()),
        _ => Err(ExportError::CrossDevice),
    }
}

impl State {
    /// The way to the front-end, the context, and the blob's size in whole pages.
    fn check_rendered_blob(
        &mut self,
        id: ResourceId,
        context: ContextId,
        size: u64,
    ) -> Result<(SharedMemory, ContextSerial, u64), GpuError> {
        self.resources.check_new(id, &self.limits)?;
        let shared = self.shared_memory.clone();
        let shared = shared.ok_or(GpuError::InvalidParameter)?;
        let serial = self.contexts.get_mut(context)?.serial;
        // Not every driver asks for whole pages, which are all that can be mapped.
        let len = size.checked_next_multiple_of(PAGE_SIZE);
        let len = len
            .filter(|len| *len > 0)
            .ok_or(GpuError::InvalidParameter)?;
        if !shared.mapper.usable() {
            return Err(GpuError::Unspec);
        }
        self.check_hostmem(len, 0)?;
        self.check_descriptors(RENDERED_BLOB_DESCRIPTORS)?;
        Ok((shared, serial, len))
    }

    /// Checks that there may be one more resource or context that takes this many descriptors.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub(super) fn check_descriptors(&self, more: usize) -> Result<(), GpuError> {
        let gone = self.window.orphans().saturating_add(self.kept().pieces);
        let taken = gone
            .saturating_mul(HOST_BLOB_DESCRIPTORS)
            .saturating_add(self.resources.descriptors())
            .saturating_add(self.contexts.rendered().saturating_mul(CONTEXT_DESCRIPTORS))
            .saturating_add(more);
        if taken > self.limits.descriptors {
            return Err(GpuError::OutOfMemory);
        }
        Ok(())
    }
}
