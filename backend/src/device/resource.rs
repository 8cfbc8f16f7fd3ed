//! The table of resources.

use std::collections::HashMap;

use nosnoop_protocol::ids::{ResourceId, ResourceUuid};
use nosnoop_protocol::reply::GpuError;

use super::backing::Backing;
use super::host_blob::HostBlob;
use super::quota::{
    HOST_BLOB_DESCRIPTORS, Limits, MAX_TOTAL_BACKING_ENTRIES, RENDERED_BLOB_DESCRIPTORS,
    RENDERED_DESCRIPTORS,
};
use super::rendered::Rendered;
use crate::render::software::Image;

/// What a resource's bytes live in.
#[derive(Debug)]
pub(super) enum Storage {
    /// A 2D resource: the host has its own copy, filled by transfers from the backing.
    Image(Image),
    /// A blob in guest memory (`VIRTIO_GPU_BLOB_MEM_GUEST`) of `size` bytes: the backing itself.
    GuestBlob {
        /// Bytes that the guest gave it; not more than its backing has.
        size: u64,
    },
    /// A blob in host memory (`VIRTIO_GPU_BLOB_MEM_HOST3D`).
    HostBlob(HostBlob),
    /// A 3D resource: the renderer has it.
    Rendered(Rendered),
}

impl Storage {
    /// Whether the renderer knows it by the same id.
    pub(super) fn is_renderers(&self) -> bool {
        match self {
            Self::Image(_) | Self::GuestBlob { .. } => false,
            Self::HostBlob(blob) => blob.is_renderers(),
            Self::Rendered(_) => true,
        }
    }
}

/// One resource.
#[derive(Debug)]
pub(super) struct Resource {
    pub(super) storage: Storage,
    pub(super) backing: Option<Backing>,
    pub(super) uuid: Option<ResourceUuid>,
}

impl Resource {
    pub(super) fn new(storage: Storage, backing: Option<Backing>) -> Self {
        Self {
            storage,
            backing,
            uuid: None,
        }
    }

    fn host_bytes(&self) -> u64 {
        match &self.storage {
            Storage::Image(image) => Image::bytes(image.size()).unwrap_or(u64::MAX),
            Storage::GuestBlob { .. } => 0,
            Storage::HostBlob(blob) => blob.memory().memory().len(),
            Storage::Rendered(rendered) => rendered.bytes(),
        }
    }

    fn descriptors(&self) -> usize {
        match self.storage {
            Storage::HostBlob(_) if self.storage.is_renderers() => RENDERED_BLOB_DESCRIPTORS,
            Storage::HostBlob(_) => HOST_BLOB_DESCRIPTORS,
            Storage::Rendered(_) => RENDERED_DESCRIPTORS,
            Storage::Image(_) | Storage::GuestBlob { .. } => 0,
        }
    }

    fn backing_entries(&self) -> usize {
        self.backing.as_ref().map_or(0, Backing::entries)
    }
}

/// All resources, with running totals of what they take.
#[derive(Debug, Default)]
pub(super) struct Resources {
    table: HashMap<ResourceId, Resource>,
    host_bytes: u64,
    descriptors: usize,
    backing_entries: usize,
}

impl Resources {
    /// # Errors
    /// `InvalidResourceId` if there is none of that id.
    pub(super) fn get(&self, id: ResourceId) -> Result<&Resource, GpuError> {
        self.table.get(&id).ok_or(GpuError::InvalidResourceId)
    }

    /// For changes that leave the resource's size and backing as they are.
    ///
    /// # Errors
    /// `InvalidResourceId` if there is none of that id.
    pub(super) fn get_mut(&mut self, id: ResourceId) -> Result<&mut Resource, GpuError> {
        self.table.get_mut(&id).ok_or(GpuError::InvalidResourceId)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ResourceId, &Resource)> {
        self.table.iter().map(|(id, resource)| (*id, resource))
    }

    pub(super) fn contains(&self, id: ResourceId) -> bool {
        self.table.contains_key(&id)
    }

    /// Checks that a resource of this id may be added.
    ///
    /// # Errors
    /// `InvalidResourceId` if the id is taken, `OutOfMemory` if the table is full.
    pub(super) fn check_new(&self, id: ResourceId, limits: &Limits) -> Result<(), GpuError> {
        if self.contains(id) {
            return Err(GpuError::InvalidResourceId);
        }
        if self.table.len() >= limits.resources {
            return Err(GpuError::OutOfMemory);
        }
        Ok(())
    }

    /// How many backing entries may still be added.
    pub(super) fn backing_room(&self) -> usize {
        MAX_TOTAL_BACKING_ENTRIES.saturating_sub(self.backing_entries)
    }

    /// Bytes of host memory of all resources: pictures and host blobs.
    pub(super) fn host_bytes(&self) -> u64 {
        self.host_bytes
    }

    /// File descriptors of all resources.
    pub(super) fn descriptors(&self) -> usize {
        self.descriptors
    }

    /// Adds a resource whose id [`Resources::check_new`] has allowed.
    pub(super) fn insert(&mut self, id: ResourceId, resource: Resource) {
        self.host_bytes = self.host_bytes.saturating_add(resource.host_bytes());
        self.descriptors = self.descriptors.saturating_add(resource.descriptors());
        self.backing_entries = self
            .backing_entries
            .saturating_add(resource.backing_entries());
        if let Some(replaced) = self.table.insert(id, resource) {
            self.release(&replaced);
        }
    }

    /// # Errors
    /// `InvalidResourceId` if there is none of that id.
    pub(super) fn remove(&mut self, id: ResourceId) -> Result<Resource, GpuError> {
        let resource = self.table.remove(&id).ok_or(GpuError::InvalidResourceId)?;
        self.release(&resource);
        Ok(resource)
    }

    /// Sets or takes away a resource's backing.
    ///
    /// # Errors
    /// `InvalidResourceId` if there is no such resource.
    pub(super) fn set_backing(
        &mut self,
        id: ResourceId,
        backing: Option<Backing>,
    ) -> Result<(), GpuError> {
        let resource = self.table.get_mut(&id).ok_or(GpuError::InvalidResourceId)?;
        let before = resource.backing_entries();
        resource.backing = backing;
        self.backing_entries = self
            .backing_entries
            .saturating_sub(before)
            .saturating_add(resource.backing_entries());
        Ok(())
    }

    fn release(&mut self, resource: &Resource) {
        self.host_bytes = self.host_bytes.saturating_sub(resource.host_bytes());
        self.descriptors = self.descriptors.saturating_sub(resource.descriptors());
        self.backing_entries = self
            .backing_entries
            .saturating_sub(resource.backing_entries());
    }

    pub(super) fn verify_invariants(&self, limits: &Limits) -> Result<(), String> {
        let images = self
            .table
            .values()
            .map(Resource::host_bytes)
            .fold(0, u64::saturating_add);
        if images != self.host_bytes {
            return Err(format!(
                "pictures take {images} bytes, counted {}",
                self.host_bytes
            ));
        }
        let entries = self
            .table
            .values()
            .map(Resource::backing_entries)
            .fold(0, usize::saturating_add);
        if entries != self.backing_entries || entries > MAX_TOTAL_BACKING_ENTRIES {
            return Err(format!(
                "{entries} backing entries, counted {}",
                self.backing_entries
            ));
        }
        let descriptors = self.table.values().map(Resource::descriptors);
        let descriptors = descriptors.fold(0, usize::saturating_add);
        if descriptors != self.descriptors || descriptors > limits.descriptors {
            return Err(format!(
                "{descriptors} descriptors of {}, counted {}",
                limits.descriptors, self.descriptors
            ));
        }
        if self.table.len() > limits.resources {
            return Err(format!(
                "{} resources of {}",
                self.table.len(),
                limits.resources
            ));
        }
        for (id, resource) in &self.table {
            if let (Storage::GuestBlob { size }, Some(backing)) =
                (&resource.storage, &resource.backing)
                && *size > backing.len()
            {
                return Err(format!(
                    "blob {id} has {size} bytes, its backing {}",
                    backing.len()
                ));
            }
        }
        Ok(())
    }
}
