//! Cross-domain contexts: what a guest submits in them and what it is answered.
//!
//! Of that protocol this is the part that allocates images on the host, and [`channel`]s to a Wayland
//! compositor. Source: `cross_domain_protocol.rs` of rutabaga_gfx 0.1.85, see [`crate::wire`] for the
//! structures.

pub mod channel;

use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::ids::{CapsetId, ResourceId};
use crate::memtype::MapCache;
use crate::reply::GpuError;
use crate::wire::{
    CROSS_DOMAIN_CHANNEL_TYPE_WAYLAND, CROSS_DOMAIN_CMD_GET_IMAGE_REQUIREMENTS,
    CROSS_DOMAIN_CMD_INIT, CROSS_DOMAIN_CMD_POLL, CROSS_DOMAIN_CMD_SEND, CROSS_DOMAIN_CMD_WRITE,
    CrossDomainCapabilities, CrossDomainGetImageRequirements, CrossDomainHeader,
    CrossDomainImageRequirements, CrossDomainInit, CrossDomainInitLegacy, CrossDomainInitV1,
    CrossDomainPoll,
};
use channel::{Send, Write};

/// The capability set of cross-domain contexts (`VIRTIO_GPU_CAPSET_CROSS_DOMAIN`).
pub const CAPSET: CapsetId = CapsetId(5);

/// The only version of the protocol, and of the capability set.
pub const VERSION: u32 = 1;

bitflags::bitflags! {
    /// What an image is for. All images here are linear and in ordinary memory, so a flag can only
    /// be refused, not change the layout.
    ///
    /// Source: `BO_USE_*` of minigbm's `drv.h`, of which rutabaga's `RUTABAGA_GRALLOC_USE_*` are a
    /// part.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct ImageFlags: u32 {
        /// Shown by a display.
        const SCANOUT = 1 << 0;
        /// Shown as a cursor.
        const CURSOR = 1 << 1;
        /// Drawn to by a GPU.
        const RENDERING = 1 << 2;
        /// Written by `gbm_bo_write` (`GBM_BO_USE_WRITE`; minigbm leaves the bit free for it).
        const WRITE = 1 << 3;
        /// Rows one after the other.
        const LINEAR = 1 << 4;
        /// Read by a GPU.
        const TEXTURING = 1 << 5;
        /// Written by a camera.
        const CAMERA_WRITE = 1 << 6;
        /// Read by a camera.
        const CAMERA_READ = 1 << 7;
        /// Hidden from the CPU.
        const PROTECTED = 1 << 8;
        /// Read by the CPU.
        const SW_READ_OFTEN = 1 << 9;
        /// Read by the CPU now and then.
        const SW_READ_RARELY = 1 << 10;
        /// Written by the CPU.
        const SW_WRITE_OFTEN = 1 << 11;
        /// Written by the CPU now and then.
        const SW_WRITE_RARELY = 1 << 12;
        /// Written by a video decoder.
        const HW_VIDEO_DECODER = 1 << 13;
        /// Read by a video encoder.
        const HW_VIDEO_ENCODER = 1 << 14;
        /// Allocated on trial.
        const TEST_ALLOC = 1 << 15;
        /// Drawn to while it is shown.
        const FRONT_RENDERING = 1 << 16;
        /// Used by RenderScript.
        const RENDERSCRIPT = 1 << 17;
        /// A buffer of data for a GPU rather than an image.
        const GPU_DATA_BUFFER = 1 << 18;
        /// Written by a sensor.
        const SENSOR_DIRECT_DATA = 1 << 19;
    }
}

/// The image that a guest asks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ImageRequest {
    /// Pixels of a row; any value.
    pub width: u32,
    /// Rows; any value.
    pub height: u32,
    /// `DRM_FORMAT_*`; any value.
    pub fourcc: u32,
    /// What it is for.
    pub flags: ImageFlags,
}

/// One command of a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrossDomainCommand<'a> {
    /// Names the context's rings; once, before anything else.
    Init {
        /// Where queries are answered.
        query_ring: ResourceId,
        /// Where a channel's messages arrive.
        channel_ring: Option<ResourceId>,
        /// Type of the channel; 0 is none.
        channel_type: u32,
    },
    /// Asks for the layout of an image and for a blob id to make it with;
    /// [`ImageRequirements`] is the answer.
    GetImageRequirements(ImageRequest),
    /// Says that the submission's fence on [`channel::RING`] waits for the channel: any such fence does.
    Poll,
    /// Sends a message through the channel.
    Send(Send<'a>),
    /// Writes into a pipe that came through the channel.
    Write(Write<'a>),
}

/// How an image lies in memory and how to make it: the answer to
/// [`CrossDomainCommand::GetImageRequirements`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageRequirements {
    /// Bytes from row to row, by plane; 0 for planes that the format does not have.
    pub strides: [u32; 4],
    /// First byte, by plane; 0 for planes that the format does not have.
    pub offsets: [u32; 4],
    /// `DRM_FORMAT_MOD_*`.
    pub modifier: u64,
    /// Bytes of the whole image, as the blob must have them.
    pub size: u64,
    /// `blob_id` for VIRTIO_GPU_CMD_RESOURCE_CREATE_BLOB in the same context; not 0.
    pub blob_id: u32,
    /// How the guest will have to map it.
    pub map_info: MapCache,
    /// Vulkan memory type; -1 is none.
    pub memory_index: i32,
    /// Vulkan physical device; -1 is none.
    pub physical_device_index: i32,
}

impl ImageRequirements {
    /// Bytes that the answer takes, from the first byte of the query ring on.
    pub const BYTES: u64 = 64;

    /// The bytes to write to the start of the query ring.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 64] {
        zerocopy::transmute!(CrossDomainImageRequirements {
            strides: self.strides.map(Into::into),
            offsets: self.offsets.map(Into::into),
            modifier: self.modifier.into(),
            size: self.size.into(),
            blob_id: self.blob_id.into(),
            map_info: self.map_info.to_wire().into(),
            memory_idx: self.memory_index.into(),
            physical_device_idx: self.physical_device_index.into(),
        })
    }
}

/// The contents of the capability set: version 1, Wayland channels or none, blobs that are neither
/// dma-bufs nor of a GPU.
#[must_use]
pub fn capabilities(wayland: bool) -> [u8; 16] {
    let channels = u32::from(wayland) << CROSS_DOMAIN_CHANNEL_TYPE_WAYLAND;
    zerocopy::transmute!(CrossDomainCapabilities {
        version: VERSION.into(),
        supported_channels: channels.into(),
        ..CrossDomainCapabilities::default()
    })
}

/// The commands of one submission (the data of VIRTIO_GPU_CMD_SUBMIT_3D), in order. Any bytes give
/// an answer; nothing is allocated. The first error is the last item.
///
/// An item is an error for
/// - [`GpuError::Unspec`]: less than the 8 bytes of a header, `cmd_size` below 8 or above the bytes
///   that are left, unknown command, a `cmd_size` that the command cannot have, or a count or size in it
///   that goes beyond it;
/// - [`GpuError::InvalidResourceId`]: 0 for the query ring or for a resource to send;
/// - [`GpuError::InvalidParameter`]: unknown image flag; see [`Send`] for messages.
pub fn commands(data: &[u8]) -> impl Iterator<Item = Result<CrossDomainCommand<'_>, GpuError>> {
    Commands { rest: data }
}

/// Bytes that are still to be read.
struct Commands<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Commands<'a> {
    type Item = Result<CrossDomainCommand<'a>, GpuError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        // What is not put back is gone: after an error there is nothing left to read.
        let rest = std::mem::take(&mut self.rest);
        let result = split(rest).and_then(|(header, command, rest)| {
            let parsed = parse(header.cmd, command)?;
            self.rest = rest;
            Ok(parsed)
        });
        Some(result)
    }
}

/// The first command's header, its bytes (header included), and the bytes after it.
fn split(data: &[u8]) -> Result<(CrossDomainHeader, &[u8], &[u8]), GpuError> {
    let (header, _) = CrossDomainHeader::read_from_prefix(data).map_err(|_| GpuError::Unspec)?;
    let size = usize::from(header.cmd_size);
    // Every command takes its header at least, so reading goes on by 8 bytes or ends here.
    if size < size_of::<CrossDomainHeader>() {
        return Err(GpuError::Unspec);
    }
    let (command, rest) = data.split_at_checked(size).ok_or(GpuError::Unspec)?;
    Ok((header, command, rest))
}

fn parse(cmd: u8, bytes: &[u8]) -> Result<CrossDomainCommand<'_>, GpuError> {
    match cmd {
        CROSS_DOMAIN_CMD_INIT => init(bytes),
        CROSS_DOMAIN_CMD_GET_IMAGE_REQUIREMENTS => get_image_requirements(bytes),
        CROSS_DOMAIN_CMD_POLL => poll(bytes),
        CROSS_DOMAIN_CMD_SEND => Ok(CrossDomainCommand::Send(Send::parse(bytes)?)),
        CROSS_DOMAIN_CMD_WRITE => Ok(CrossDomainCommand::Write(Write::parse(bytes)?)),
        _ => Err(GpuError::Unspec),
    }
}

/// The three forms of this command are told apart by their size alone, as rutabaga does.
fn init(bytes: &[u8]) -> Result<CrossDomainCommand<'static>, GpuError> {
    const LEGACY: usize = size_of::<CrossDomainInitLegacy>();
    const V1: usize = size_of::<CrossDomainInitV1>();
    const CURRENT: usize = size_of::<CrossDomainInit>();
    let (query, channel, channel_type) = match bytes.len() {
        LEGACY => {
            let raw: &CrossDomainInitLegacy = read(bytes)?;
            (raw.query_ring_id, raw.query_ring_id, raw.channel_type)
        }
        V1 => {
            let raw: &CrossDomainInitV1 = read(bytes)?;
            (raw.query_ring_id, raw.channel_ring_id, raw.channel_type)
        }
        CURRENT => {
            let raw: &CrossDomainInit = read(bytes)?;
            (raw.query_ring_id, raw.channel_ring_id, raw.channel_type)
        }
        _ => return Err(GpuError::Unspec),
    };
    Ok(CrossDomainCommand::Init {
        query_ring: ResourceId::new(query.get()).ok_or(GpuError::InvalidResourceId)?,
        channel_ring: ResourceId::new(channel.get()),
        channel_type: channel_type.get(),
    })
}

/// With or without the padding.
fn poll(bytes: &[u8]) -> Result<CrossDomainCommand<'static>, GpuError> {
    const HEADER: usize = size_of::<CrossDomainHeader>();
    const PADDED: usize = size_of::<CrossDomainPoll>();
    match bytes.len() {
        HEADER | PADDED => Ok(CrossDomainCommand::Poll),
        _ => Err(GpuError::Unspec),
    }
}

fn get_image_requirements(bytes: &[u8]) -> Result<CrossDomainCommand<'static>, GpuError> {
    let raw: &CrossDomainGetImageRequirements = read(bytes)?;
    let flags = ImageFlags::from_bits(raw.flags.get()).ok_or(GpuError::InvalidParameter)?;
    Ok(CrossDomainCommand::GetImageRequirements(ImageRequest {
        width: raw.width.get(),
        height: raw.height.get(),
        fourcc: raw.drm_format.get(),
        flags,
    }))
}

/// A command of exactly the structure's size.
fn read<T: FromBytes + KnownLayout + Immutable>(bytes: &[u8]) -> Result<&T, GpuError> {
    T::ref_from_bytes(bytes).map_err(|_| GpuError::Unspec)
}

#[cfg(test)]
mod tests;
