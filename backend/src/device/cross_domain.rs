//! The cross-domain context (capability set 5): it gives out images, and has a [`super::channel`] if it
//! asks for one.
//!
//! A guest's graphics allocator asks what an image of some size and format needs, and makes blobs
//! of that description by its `blob_id`, as often as it likes. What came through the channel is made a
//! blob of once.

use std::collections::HashMap;

use nosnoop_protocol::command::BlobFlags;
use nosnoop_protocol::cross_domain::{
    CrossDomainCommand, ImageRequest, ImageRequirements, channel,
};
use nosnoop_protocol::ids::{BlobId, ContextId, ResourceId};
use nosnoop_protocol::memtype::MapCache;
use nosnoop_protocol::reply::{GpuError, Reply};

use super::State;
use super::channel::MAX_RECORD;
use super::host_blob::HostBlob;
use super::quota::{HOST_BLOB_DESCRIPTORS, MAX_IMAGES};
use super::resource::{Resource, Storage};
use crate::GuestMemory;
use crate::guest::Ram;
use crate::memory::image;
use crate::planted::{Bug, planted};

/// Channel type 0: none.
const NO_CHANNEL: u32 = 0;

/// A context's state.
#[derive(Debug, Default)]
pub(super) struct CrossDomain {
    /// Where answers are written, once `CROSS_DOMAIN_CMD_INIT` has said.
    query_ring: Option<ResourceId>,
    /// What each `blob_id` stands for, from 1 on.
    sizes: Vec<u64>,
    /// The `blob_id` of each description given out so far.
    ids: HashMap<ImageRequest, u32>,
}

impl CrossDomain {
    /// The size of the image that was given this id.
    fn image_size(&self, id: BlobId) -> Option<u64> {
        let index = usize::try_from(id.0.checked_sub(1)?).ok()?;
        self.sizes.get(index).copied()
    }

    /// # Errors
    /// `OutOfMemory` when too many different ones have been asked for.
    fn image_id(&mut self, request: ImageRequest, size: u64) -> Result<u32, GpuError> {
        if let Some(id) = self.ids.get(&request) {
            return Ok(*id);
        }
        let next = self.sizes.len().saturating_add(1);
        if next > MAX_IMAGES {
            return Err(GpuError::OutOfMemory);
        }
        let id = u32::try_from(next).map_err(|_| GpuError::OutOfMemory)?;
        self.sizes.push(size);
        self.ids.insert(request, id);
        Ok(id)
    }
}

impl State {
    /// # Errors
    /// `InvalidParameter` for what is out of order or cannot be, `InvalidResourceId` for a ring
    /// that the context does not have, `Unspec` for one that cannot be written, `OutOfMemory`.
    pub(super) fn cross_domain(
        &mut self,
        id: ContextId,
        command: CrossDomainCommand<'_>,
        memory: &GuestMemory,
    ) -> Result<(), GpuError> {
        match command {
            CrossDomainCommand::Init {
                query_ring,
                channel_ring,
                channel_type,
            } => self.init(id, query_ring, channel_ring, channel_type),
            // The submission's fence is what waits.
            CrossDomainCommand::Poll => self.contexts.get_mut(id)?.cross_domain().map(drop),
            CrossDomainCommand::Send(send) => self.send(id, &send),
            CrossDomainCommand::Write(write) => self.write_pipe(id, &write),
            CrossDomainCommand::GetImageRequirements(request) => {
                let context = self.contexts.get_mut(id)?;
                let ring = context
                    .cross_domain()?
                    .query_ring
                    .ok_or(GpuError::InvalidParameter)?;
                if !context.has(ring) {
                    return Err(GpuError::InvalidResourceId);
                }
                self.check_ring(ring, ImageRequirements::BYTES)?;
                let layout = image::layout(&request)?;
                let context = self.contexts.get_mut(id)?;
                let blob_id = context.cross_domain()?.image_id(request, layout.size)?;
                let map_info = self
                    .shared_memory
                    .as_ref()
                    .map_or(MapCache::Cached, |shared| {
                        let acked = shared.mapper.speaks_memtype();
                        shared.source.map_info(BlobId(blob_id.into()), acked)
                    });
                let mut strides = layout.strides;
                if planted(Bug::ImageStrideShort) {
                    strides = strides.map(|stride| stride / 2);
                }
                let answer = ImageRequirements {
                    strides,
                    offsets: layout.offsets,
                    modifier: layout.modifier,
                    size: layout.size,
                    blob_id,
                    map_info,
                    memory_index: -1,
                    physical_device_index: -1,
                };
                self.write_answer(ring, &answer.to_bytes(), memory)
            }
        }
    }

    /// Names the context's rings, and opens its channel if it is to have one.
    ///
    /// # Errors
    /// As [`State::cross_domain`], and those of [`State::open_channel`].
    fn init(
        &mut self,
        id: ContextId,
        query_ring: ResourceId,
        channel_ring: Option<ResourceId>,
        channel_type: u32,
    ) -> Result<(), GpuError> {
        let context = self.contexts.get_mut(id)?;
        if context.cross_domain()?.query_ring.is_some() {
            return Err(GpuError::InvalidParameter);
        }
        let channel_ring = match channel_type {
            NO_CHANNEL => None,
            channel::WAYLAND if self.wayland().is_some() => {
                Some(channel_ring.ok_or(GpuError::InvalidResourceId)?)
            }
            _ => return Err(GpuError::InvalidParameter),
        };
        let context = self.contexts.get_mut(id)?;
        let serial = context.serial;
        if !context.has(query_ring) || channel_ring.is_some_and(|ring| !context.has(ring)) {
            return Err(GpuError::InvalidResourceId);
        }
        self.check_ring(query_ring, ImageRequirements::BYTES)?;
        if let Some(ring) = channel_ring {
            self.check_ring(ring, MAX_RECORD.into())?;
            self.open_channel(id, serial, ring)?;
        }
        self.contexts.get_mut(id)?.cross_domain()?.query_ring = Some(query_ring);
        Ok(())
    }

    /// A ring is a blob in guest memory with room for what is written to it.
    fn check_ring(&self, id: ResourceId, bytes: u64) -> Result<(), GpuError> {
        let resource = self.resources.get(id)?;
        match (&resource.storage, &resource.backing) {
            (Storage::GuestBlob { size }, Some(_)) if *size >= bytes => Ok(()),
            _ => Err(GpuError::InvalidParameter),
        }
    }

    /// Writes to the start of a ring.
    ///
    /// # Errors
    /// `InvalidParameter` without room, `Unspec` if it is not all guest memory any more.
    pub(super) fn write_answer(
        &self,
        ring: ResourceId,
        bytes: &[u8],
        memory: &GuestMemory,
    ) -> Result<(), GpuError> {
        let resource = self.resources.get(ring)?;
        let backing = resource.backing.as_ref().ok_or(GpuError::Unspec)?;
        backing.write(&Ram::new(memory), 0, bytes)
    }

    /// Makes a blob in host memory of a description that the context has given out, or of what came
    /// through its channel.
    ///
    /// # Errors
    /// `InvalidResourceId` (id taken); `InvalidContextId`; `InvalidParameter` for an id that was not
    /// given out, or another size; `Unspec` if nothing can be mapped for the guest; `OutOfMemory`.
    pub(super) fn create_host_blob(
        &mut self,
        id: ResourceId,
        context: Option<ContextId>,
        blob: BlobId,
        flags: BlobFlags,
        size: u64,
    ) -> Result<Reply, GpuError> {
        self.resources.check_new(id, &self.limits)?;
        let shared = self.shared_memory.clone();
        let shared = shared.ok_or(GpuError::InvalidParameter)?;
        let context = context.ok_or(GpuError::InvalidContextId)?;
        let provider = self.contexts.get_mut(context)?;
        let serial = provider.serial;
        let described = provider.cross_domain()?.image_size(blob);
        let received = self.channels.received_size(serial, blob);
        if described.or(received) != Some(size) && !planted(Bug::ImageSizeUnchecked) {
            return Err(GpuError::InvalidParameter);
        }
        if !shared.mapper.usable() {
            return Err(GpuError::Unspec);
        }
        self.check_descriptors(HOST_BLOB_DESCRIPTORS)?;
        let acked = shared.mapper.speaks_memtype();
        let mappable = flags.contains(BlobFlags::MAPPABLE);
        if let Some(memory) = self.channels.take_received(serial, blob) {
            // It has been charged for since it came.
            let memory = shared.source.plain(memory, acked);
            let storage = Storage::HostBlob(HostBlob::new(memory, mappable, serial));
            self.resources.insert(id, Resource::new(storage, None));
            return Ok(Reply::OkNoData);
        }
        self.check_hostmem(size, 0)?;
        let memory = shared.source.image(blob, size, acked).map_err(|error| {
            log::warn!("no host memory for a blob of {size} bytes: {error}");
            GpuError::OutOfMemory
        })?;
        let storage = Storage::HostBlob(HostBlob::new(memory, mappable, serial));
        self.resources.insert(id, Resource::new(storage, None));
        Ok(Reply::OkNoData)
    }
}
