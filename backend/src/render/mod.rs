//! What draws: [`software`] holds the pixels of 2D resources, and a [`Renderer`] executes a guest's 3D
//! commands.
//!
//! A renderer is somebody else's library, of which a process has one, on one thread. Nothing here asks
//! how it draws; what the guest has made of contexts and resources is checked before it is asked.

#[cfg(test)]
pub(crate) mod fake;
pub mod fences;
pub mod gpu;
pub mod isolation;
#[cfg(feature = "virgl")]
pub(crate) mod native;
#[cfg(feature = "virgl")]
pub mod proof;
#[cfg(feature = "virgl")]
mod server;
pub mod software;
pub mod thread;
#[cfg(feature = "virgl")]
mod venus;
#[cfg(feature = "virgl")]
mod virgl;
#[cfg(feature = "virgl")]
mod workers;

use std::os::fd::OwnedFd;

use crate::GuestMemory;
use nosnoop_protocol::command::{BlobFlags, Create3d, Transfer3d};
use nosnoop_protocol::geometry::Rect;
use nosnoop_protocol::ids::{BlobId, CapsetId, ContextId, ResourceId, RingIdx};

/// The capability sets of OpenGL: VIRTIO_GPU_CAPSET_VIRGL and VIRGL2.
pub(crate) const OPENGL: [CapsetId; 2] = [CapsetId(1), CapsetId(2)];

/// One capability set, as the guest gets it.
///
/// Source: virtio 1.4, "GPU Device / Device Operation: controlq", VIRTIO_GPU_CMD_GET_CAPSET.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capset {
    /// Which.
    pub id: CapsetId,
    /// The highest version.
    pub version: u32,
    /// Its contents in that version.
    pub data: Vec<u8>,
}

/// Why a renderer did not do something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// It does not want to, in its own words.
    #[error("the renderer refuses: {0}")]
    Refused(String),
    /// What it was to do has been dropped: the context was destroyed, or everything reset.
    #[error("the context has been destroyed")]
    Dropped,
    /// The process that draws for the context has ended.
    #[error("the context's own process has ended; only destroying the context is left to do")]
    Lost,
    /// It is no longer there.
    #[error("the renderer has gone")]
    Gone,
}

/// Fences of one timeline are signalled in the order in which they were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Timeline {
    /// The device's own.
    Global,
    /// One of a context's.
    Context(ContextId, RingIdx),
}

/// Which way a transfer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From guest memory to the resource.
    ToHost,
    /// From the resource to guest memory.
    FromHost,
}

/// Guest memory behind a resource: pieces that together are its bytes, and what keeps them mapped
/// for as long as a renderer has their addresses.
#[derive(Clone, Debug)]
pub struct Pinned {
    /// The memory table of the moment. The front-end may share another one later; this one's mappings
    /// stay.
    pub memory: GuestMemory,
    /// Guest address and bytes of each piece, in order. Each was in `memory` when this was made, where
    /// it may begin in one region and go on in the next.
    pub pieces: Vec<(u64, usize)>,
}

/// A host blob that a context is to provide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobRequest {
    /// The context.
    pub context: ContextId,
    /// What the context calls it.
    pub blob: BlobId,
    /// Whether it is to be mapped, shared, used by other devices.
    pub flags: BlobFlags,
    /// Bytes.
    pub size: u64,
}

/// What kind of descriptor a renderer gives for a blob's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandleKind {
    /// A dma-buf, which a GPU may access.
    DmaBuf,
    /// A dma-buf of a renderer in software: of RAM, and no device accesses it.
    SoftwareDmaBuf,
    /// Shared memory (memfd).
    Shm,
    /// Anything else: not to be given to a front-end.
    Other,
}

/// A blob's memory as the renderer exports it.
#[derive(Debug)]
pub struct ExportedBlob {
    /// The descriptor; the blob starts at its first byte.
    pub fd: OwnedFd,
    /// What it is.
    pub kind: HandleKind,
    /// `VIRTIO_GPU_MAP_CACHE_*` as the renderer says it, without other bits; `None` if it does not say.
    pub map_info: Option<u32>,
}

/// A picture's memory, for a display that shows it without a copy: one plane of a dma-buf, from its
/// first byte on.
#[derive(Debug)]
pub struct ExportedPicture {
    /// The dma-buf.
    pub fd: OwnedFd,
    /// `DRM_FORMAT_*`, Linux' `drm_fourcc.h`.
    pub fourcc: u32,
    /// Bytes from row to row.
    pub stride: u32,
    /// `DRM_FORMAT_MOD_*`.
    pub modifier: u64,
}

/// What the device needs of a 3D renderer. Called on one thread only.
///
/// The ids are the guest's own, as they stand in its command streams. The device has checked that
/// those that are named are there, and those to make are not.
pub trait Renderer {
    /// The capability sets, by ascending id; always the same.
    fn capsets(&self) -> Vec<Capset>;

    /// Makes a context for commands of `capset`. The name is for people.
    ///
    /// # Errors
    /// [`RenderError`], as everywhere here.
    fn create_context(
        &mut self,
        id: ContextId,
        capset: CapsetId,
        name: &str,
    ) -> Result<(), RenderError>;

    /// Its fences that are not signalled yet may never be.
    fn destroy_context(&mut self, id: ContextId);

    /// Makes a resource without backing.
    ///
    /// # Errors
    /// [`RenderError`].
    fn create_resource(&mut self, create: &Create3d) -> Result<(), RenderError>;

    /// Makes a resource of a blob in host memory, and exports that memory if it can be.
    ///
    /// # Errors
    /// [`RenderError`].
    fn create_blob(
        &mut self,
        resource: ResourceId,
        request: &BlobRequest,
    ) -> Result<ExportedBlob, RenderError>;

    /// Contexts that it is attached to lose it, and its backing's addresses are not used after this.
    fn destroy_resource(&mut self, id: ResourceId);

    /// # Errors
    /// [`RenderError`].
    fn attach_backing(&mut self, id: ResourceId, backing: Pinned) -> Result<(), RenderError>;

    /// The backing's addresses are not used after this.
    fn detach_backing(&mut self, id: ResourceId);

    /// Makes a resource known to a context.
    ///
    /// # Errors
    /// [`RenderError`].
    fn attach(&mut self, context: ContextId, resource: ResourceId) -> Result<(), RenderError>;

    /// # Errors
    /// [`RenderError`].
    fn detach(&mut self, context: ContextId, resource: ResourceId) -> Result<(), RenderError>;

    /// Copies between a resource and its backing, and is done when it returns.
    ///
    /// # Errors
    /// [`RenderError`].
    fn transfer(&mut self, direction: Direction, transfer: &Transfer3d) -> Result<(), RenderError>;

    /// Copies a rectangle of level 0, layer 0 of a resource of four bytes per pixel: rows from the
    /// top without padding, whichever way `VIRTIO_GPU_RESOURCE_FLAG_Y_0_TOP` has it stored. A
    /// cursor's resource may have gone meanwhile, and is refused then.
    ///
    /// # Errors
    /// [`RenderError`].
    fn read(
        &mut self,
        resource: ResourceId,
        rect: Rect,
        into: &mut [u8],
    ) -> Result<(), RenderError>;

    /// The memory of a resource that is a picture, if that can be shown without a copy.
    ///
    /// # Errors
    /// [`RenderError`]: it has to be read.
    fn export_picture(&mut self, resource: ResourceId) -> Result<ExportedPicture, RenderError>;

    /// Hands everything that has been drawn to the GPU, for who waits for the fences in a dma-buf.
    fn flush(&mut self);

    /// Executes a command stream. The bytes may be changed.
    ///
    /// # Errors
    /// [`RenderError`].
    fn submit(&mut self, context: ContextId, commands: &mut [u8]) -> Result<(), RenderError>;

    /// Makes a fence that is signalled when everything before it on the timeline is done, on any thread
    /// and perhaps at once, by [`fences::Fences::signal`]. Ids ascend on each timeline.
    ///
    /// # Errors
    /// [`RenderError`]; it will never be signalled then.
    fn fence(&mut self, timeline: Timeline, id: u32) -> Result<(), RenderError>;

    /// Finishes what waits for this thread; to be called when one of the renderer's own descriptors is
    /// readable. Fences behind it are not signalled before, and lost contexts not given up.
    fn poll(&mut self) {}

    /// Destroys every context and resource.
    fn reset(&mut self);
}
