//! `RESOURCE_CREATE_2D`, `RESOURCE_UNREF`, `RESOURCE_ATTACH_BACKING`, `RESOURCE_DETACH_BACKING`
//! and `TRANSFER_TO_HOST_2D` (virtio 1.4, "GPU Device / Device Operation: controlq").

use std::sync::Arc;

use nosnoop_protocol::command::MemEntries;
use nosnoop_protocol::format::Format;
use nosnoop_protocol::geometry::{Rect, Size};
use nosnoop_protocol::ids::ResourceId;
use nosnoop_protocol::reply::{GpuError, Reply};

use super::backing::Backing;
use super::host_blob::Operation;
use super::resource::{Resource, Storage};
use super::{Effect, State, Verdict};
use crate::GuestMemory;
use crate::guest::Ram;
use crate::planted::{Bug, planted};
use crate::render::software::Image;

impl State {
    /// # Errors
    /// `InvalidResourceId` (id taken), `InvalidParameter` (empty), `OutOfMemory` (a quota).
    pub(super) fn create_2d(
        &mut self,
        id: ResourceId,
        format: Format,
        size: Size,
    ) -> Result<Reply, GpuError> {
        self.resources.check_new(id, &self.limits)?;
        if size.is_empty() {
            return Err(GpuError::InvalidParameter);
        }
        let bytes = Image::bytes(size).ok_or(GpuError::OutOfMemory)?;
        self.check_hostmem(bytes, 0)?;
        let image = Image::new(size, format)?;
        self.resources
            .insert(id, Resource::new(Storage::Image(image), None));
        Ok(Reply::OkNoData)
    }

    /// A host blob that is mapped is unmapped first, and the command parked meanwhile.
    ///
    /// # Errors
    /// In the verdict: `InvalidResourceId`.
    pub(super) fn unref(&mut self, id: ResourceId, effects: &mut Vec<Effect>) -> Verdict {
        match self.resources.get(id).map(|resource| &resource.storage) {
            Err(error) => Verdict::Done(Err(error)),
            Ok(Storage::HostBlob(_)) => self.operate(id, Operation::Unref, effects),
            Ok(_) if planted(Bug::UnrefKeepsResource) => Verdict::Done(Ok(Reply::OkNoData)),
            Ok(Storage::Image(_) | Storage::GuestBlob { .. } | Storage::Rendered(_)) => {
                Verdict::Done(self.remove(id).map(|()| Reply::OkNoData))
            }
        }
    }

    /// Removes a resource that is not mapped; scanouts that show it are disabled first. The renderer
    /// is told, and not waited for: it does what it is asked in order, so the id is free.
    ///
    /// # Errors
    /// `InvalidResourceId`.
    pub(super) fn remove(&mut self, id: ResourceId) -> Result<(), GpuError> {
        self.resources.get(id)?;
        let display = Arc::clone(&self.display);
        self.scanouts.forget(&display, id)?;
        self.contexts.forget(id);
        let resource = self.resources.remove(id)?;
        if let Some(renderer) = &self.renderer
            && resource.storage.is_renderers()
        {
            renderer.post("RESOURCE_UNREF", move |it| it.destroy_resource(id));
        }
        Ok(())
    }

    /// # Errors
    /// `InvalidResourceId`; `Unspec` if there is a backing already or a range is not guest memory;
    /// `OutOfMemory` for too many entries; `InvalidParameter` for less memory than a blob needs.
    pub(super) fn attach_backing(
        &mut self,
        id: ResourceId,
        entries: &MemEntries<'_>,
        memory: &GuestMemory,
    ) -> Result<Reply, GpuError> {
        let resource = self.resources.get(id)?;
        if resource.backing.is_some() {
            return Err(GpuError::Unspec);
        }
        if matches!(resource.storage, Storage::HostBlob(_)) {
            return Err(GpuError::InvalidParameter);
        }
        let backing = Backing::new(entries, memory, self.resources.backing_room())?;
        if let Storage::GuestBlob { size } = resource.storage
            && backing.len() < size
        {
            return Err(GpuError::InvalidParameter);
        }
        self.resources.set_backing(id, Some(backing))?;
        Ok(Reply::OkNoData)
    }

    /// # Errors
    /// `InvalidResourceId`; `Unspec` if there is no backing.
    pub(super) fn detach_backing(&mut self, id: ResourceId) -> Result<Reply, GpuError> {
        if self.resources.get(id)?.backing.is_none() {
            return Err(GpuError::Unspec);
        }
        self.resources.set_backing(id, None)?;
        Ok(Reply::OkNoData)
    }

    /// Copies a rectangle from the backing into the host's picture. `offset` is where the
    /// rectangle's first pixel lies in the backing, whose rows are as long as the resource's.
    /// A blob in guest memory has no other copy, so nothing is to be done for it.
    ///
    /// # Errors
    /// `InvalidResourceId`; `Unspec` without backing; `InvalidParameter` for a 3D resource, or if the
    /// rectangle leaves the resource or its bytes the backing: then nothing is copied.
    pub(super) fn transfer_to_host_2d(
        &mut self,
        id: ResourceId,
        rect: Rect,
        offset: u64,
        memory: &GuestMemory,
    ) -> Result<Reply, GpuError> {
        let resource = self.resources.get_mut(id)?;
        let backing = resource.backing.as_ref().ok_or(GpuError::Unspec)?;
        let image = match &mut resource.storage {
            Storage::Image(image) => image,
            Storage::GuestBlob { .. } | Storage::HostBlob(_) => return Ok(Reply::OkNoData),
            Storage::Rendered(_) => return Err(GpuError::InvalidParameter),
        };
        if !rect.fits_in(image.size()) {
            return Err(GpuError::InvalidParameter);
        }
        if rect.is_empty() {
            return Ok(Reply::OkNoData);
        }
        let offset = if planted(Bug::TransferOffsetIgnored) {
            0
        } else {
            offset
        };
        let end = last_byte_after(rect.width, rect.height, image.stride())
            .and_then(|len| offset.checked_add(len));
        if end.is_none_or(|end| end > backing.len()) {
            return Err(GpuError::InvalidParameter);
        }
        let ram = Ram::new(memory);
        let stride = image.stride();
        image.fill(rect, |from_first, bytes| {
            let from_first = if planted(Bug::TransferStride) {
                let row = u64::from(rect.width).saturating_mul(Format::BYTES_PER_PIXEL.into());
                from_first
                    .checked_div(stride)
                    .unwrap_or(0)
                    .saturating_mul(row)
            } else {
                from_first
            };
            backing.read(&ram, offset.saturating_add(from_first), bytes)
        })?;
        Ok(Reply::OkNoData)
    }
}

/// Bytes from the first pixel of a `width` x `height` rectangle to just after its last one, in rows
/// of `stride` bytes. The rectangle is not empty.
pub(super) fn last_byte_after(width: u32, height: u32, stride: u64) -> Option<u64> {
    let rows = u64::from(height).checked_sub(1)?.checked_mul(stride)?;
    let row = u64::from(width).checked_mul(u64::from(Format::BYTES_PER_PIXEL))?;
    rows.checked_add(row)
}
