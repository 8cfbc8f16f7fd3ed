//! Guest requests as typed values.
//!
//! [`Request::parse`] is total: any bytes give a [`Header`] to answer with and either a
//! [`Command`] whose every field is in its range, or the [`GpuError`] to answer.

mod parse;
#[cfg(test)]
mod tests;

use bitflags::bitflags;

use crate::format::Format;
use crate::geometry::{Rect, Size};
use crate::ids::{BlobId, CapsetId, ContextId, FenceId, ResourceId, RingIdx, ScanoutId};
use crate::reply::GpuError;
use crate::wire::{
    VIRTIO_GPU_FLAG_FENCE, VIRTIO_GPU_FLAG_INFO_RING_IDX, VirtioGpuCtrlHdr, VirtioGpuMemEntry,
};

/// A fence that the guest attached to a request.
///
/// Source: section "Device Operation: Request header".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fence {
    /// The fence.
    pub id: FenceId,
    /// The timeline within the context, when the request names one
    /// (`VIRTIO_GPU_FLAG_INFO_RING_IDX`); `None` for the device's own timeline.
    pub ring: Option<RingIdx>,
}

/// What a response must echo of its request. The default is the header of a request too short to
/// have one: no fence, no context.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Header {
    raw: VirtioGpuCtrlHdr,
}

impl Header {
    /// The fence, when the request carries one (`VIRTIO_GPU_FLAG_FENCE`).
    #[must_use]
    pub fn fence(&self) -> Option<Fence> {
        let flags = self.raw.flags.get();
        let named = flags & VIRTIO_GPU_FLAG_INFO_RING_IDX != 0;
        (flags & VIRTIO_GPU_FLAG_FENCE != 0).then(|| Fence {
            id: FenceId(self.raw.fence_id.get()),
            ring: RingIdx::new(self.raw.ring_idx).filter(|_| named),
        })
    }

    /// The context that the request names, `None` for 0.
    #[must_use]
    pub fn context(&self) -> Option<ContextId> {
        ContextId::new(self.raw.ctx_id.get())
    }

    /// The request type as the guest sent it, for logs; see [`crate::wire::cmd_name`]. 0 when the
    /// request is too short to have one.
    #[must_use]
    pub fn command_type(&self) -> u32 {
        self.raw.r#type.get()
    }

    /// Whether the request names a timeline that cannot exist.
    fn has_bad_ring(&self) -> bool {
        self.raw.flags.get() & VIRTIO_GPU_FLAG_INFO_RING_IDX != 0
            && RingIdx::new(self.raw.ring_idx).is_none()
    }

    /// The header of a response of that type: fence, context and ring as the request had them
    /// when it asked for a fence, zero otherwise.
    pub(crate) fn response(&self, r#type: u32) -> VirtioGpuCtrlHdr {
        let mut response = VirtioGpuCtrlHdr {
            r#type: r#type.into(),
            ..VirtioGpuCtrlHdr::default()
        };
        let flags = self.raw.flags.get();
        if flags & VIRTIO_GPU_FLAG_FENCE != 0 {
            let echoed = VIRTIO_GPU_FLAG_FENCE | VIRTIO_GPU_FLAG_INFO_RING_IDX;
            response.flags = (flags & echoed).into();
            response.fence_id = self.raw.fence_id;
            response.ctx_id = self.raw.ctx_id;
            if flags & VIRTIO_GPU_FLAG_INFO_RING_IDX != 0 {
                response.ring_idx = self.raw.ring_idx;
            }
        }
        response
    }
}

/// A request of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// For the response.
    pub header: Header,
    /// What to do, or what to answer when the request is malformed.
    pub command: Result<Command<'a>, GpuError>,
}

/// What the guest asks for. Borrowed parts lie in the request's bytes.
///
/// Each variant is named after its `VIRTIO_GPU_CMD_*`. Source: sections "Device Operation:
/// controlq", "Device Operation: controlq (3d)" and "Device Operation: cursorq".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command<'a> {
    /// Which scanouts are there and how large do they want to be?
    GetDisplayInfo,
    /// The EDID of a scanout.
    GetEdid {
        /// Scanout.
        scanout: ScanoutId,
    },
    /// Creates a 2D resource.
    ResourceCreate2d {
        /// Resource to create.
        resource: ResourceId,
        /// Pixel format.
        format: Format,
        /// Size; not checked, can be empty.
        size: Size,
    },
    /// Destroys a resource.
    ResourceUnref {
        /// Resource.
        resource: ResourceId,
    },
    /// Shows a part of a resource on a scanout.
    SetScanout {
        /// Scanout.
        scanout: ScanoutId,
        /// Part of the resource; not checked.
        rect: Rect,
        /// Resource, `None` to disable the scanout; then `rect` means nothing.
        resource: Option<ResourceId>,
    },
    /// A part of a resource has changed: bring it to the scanouts that show it.
    ResourceFlush {
        /// Resource.
        resource: ResourceId,
        /// Part of the resource; not checked.
        rect: Rect,
    },
    /// Copies from guest memory to a resource.
    TransferToHost2d {
        /// Resource.
        resource: ResourceId,
        /// Part of the resource to write; not checked.
        rect: Rect,
        /// Where the first pixel of `rect` is in the backing, in bytes; not checked.
        offset: u64,
    },
    /// Gives a resource its guest memory.
    ResourceAttachBacking {
        /// Resource.
        resource: ResourceId,
        /// Guest memory, in order.
        entries: MemEntries<'a>,
    },
    /// Takes the guest memory from a resource.
    ResourceDetachBacking {
        /// Resource.
        resource: ResourceId,
    },
    /// Id, version and size of a capability set.
    GetCapsetInfo {
        /// 0 to the configuration's `num_capsets` - 1; not checked.
        index: u32,
    },
    /// The contents of a capability set.
    GetCapset {
        /// Capability set; not checked.
        id: CapsetId,
        /// Version; not checked.
        version: u32,
    },
    /// Exports a resource to other virtio devices.
    ResourceAssignUuid {
        /// Resource.
        resource: ResourceId,
    },
    /// Creates a blob resource.
    ResourceCreateBlob {
        /// Resource to create.
        resource: ResourceId,
        /// Context whose protocol gives `blob_id` its meaning.
        context: Option<ContextId>,
        /// What a host blob is made from.
        blob_id: BlobId,
        /// Where the memory is.
        mem: BlobMem,
        /// What the guest wants to do with it.
        flags: BlobFlags,
        /// Bytes; not checked, can be 0.
        size: u64,
        /// Guest memory, in order; can be empty.
        entries: MemEntries<'a>,
    },
    /// Shows a part of a picture in a blob on a scanout.
    SetScanoutBlob {
        /// Scanout.
        scanout: ScanoutId,
        /// Part of the picture; not checked.
        rect: Rect,
        /// Resource, `None` to disable the scanout; then the other fields mean nothing, and
        /// `format` is [`Format::B8g8r8x8`] if the wire had none.
        resource: Option<ResourceId>,
        /// Size of the picture; not checked.
        size: Size,
        /// Pixel format.
        format: Format,
        /// Bytes from row to row, of plane 0; not checked.
        stride: u32,
        /// First byte in the blob, of plane 0; not checked.
        offset: u32,
    },
    /// Creates a context.
    CtxCreate {
        /// Context to create.
        context: ContextId,
        /// Capability set and other properties, with [`crate::Features::CONTEXT_INIT`].
        context_init: u32,
        /// Name for people, at most 64 bytes of any value.
        name: &'a [u8],
    },
    /// Destroys a context.
    CtxDestroy {
        /// Context.
        context: ContextId,
    },
    /// Makes a resource known to a context.
    CtxAttachResource {
        /// Context.
        context: ContextId,
        /// Resource.
        resource: ResourceId,
    },
    /// Takes a resource from a context.
    CtxDetachResource {
        /// Context.
        context: ContextId,
        /// Resource.
        resource: ResourceId,
    },
    /// Creates a 3D resource.
    ResourceCreate3d(Create3d),
    /// Copies from guest memory to a 3D resource.
    TransferToHost3d(Transfer3d),
    /// Copies from a 3D resource to guest memory.
    TransferFromHost3d(Transfer3d),
    /// Runs commands in a context.
    Submit3d {
        /// Context.
        context: ContextId,
        /// Commands of the context's protocol.
        data: &'a [u8],
    },
    /// Maps a host blob into the host visible region.
    ResourceMapBlob {
        /// Resource.
        resource: ResourceId,
        /// Where in the region, in bytes; not checked.
        offset: u64,
    },
    /// Unmaps a host blob.
    ResourceUnmapBlob {
        /// Resource.
        resource: ResourceId,
    },
    /// Sets picture and place of the cursor.
    UpdateCursor {
        /// Scanout.
        scanout: ScanoutId,
        /// Column of the hot spot; a two's complement "negative" number is possible.
        x: u32,
        /// Row of the hot spot; a two's complement "negative" number is possible.
        y: u32,
        /// Picture, `None` to hide the cursor.
        resource: Option<ResourceId>,
        /// Column of the hot spot in the picture; not checked.
        hot_x: u32,
        /// Row of the hot spot in the picture; not checked.
        hot_y: u32,
    },
    /// Moves the cursor.
    MoveCursor {
        /// Scanout.
        scanout: ScanoutId,
        /// Column of the hot spot; a two's complement "negative" number is possible.
        x: u32,
        /// Row of the hot spot; a two's complement "negative" number is possible.
        y: u32,
    },
}

/// Properties of a 3D resource. Apart from the id they belong to the renderer's protocol and are
/// not checked.
///
/// Source: `struct virtio_gpu_resource_create_3d`, `include/uapi/linux/virtio_gpu.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Create3d {
    /// Resource to create.
    pub resource: ResourceId,
    /// Texture target.
    pub target: u32,
    /// Format; more than the eight of [`Format`].
    pub format: u32,
    /// Usage bits.
    pub bind: u32,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Depth in pixels.
    pub depth: u32,
    /// Number of layers.
    pub array_size: u32,
    /// Highest mipmap level.
    pub last_level: u32,
    /// Samples per pixel.
    pub nr_samples: u32,
    /// `VIRTIO_GPU_RESOURCE_FLAG_Y_0_TOP` or 0.
    pub flags: u32,
}

/// A box of a 3D resource; not checked.
///
/// Source: `struct virtio_gpu_box`, `include/uapi/linux/virtio_gpu.h`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Box3d {
    /// Left edge.
    pub x: u32,
    /// Top edge.
    pub y: u32,
    /// Front edge or first layer.
    pub z: u32,
    /// Width.
    pub width: u32,
    /// Height.
    pub height: u32,
    /// Depth or number of layers.
    pub depth: u32,
}

/// A copy between guest memory and a 3D resource.
///
/// Source: `struct virtio_gpu_transfer_host_3d`, `include/uapi/linux/virtio_gpu.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer3d {
    /// Resource.
    pub resource: ResourceId,
    /// Context in which the copy happens.
    pub context: Option<ContextId>,
    /// Part of the resource.
    pub region: Box3d,
    /// First byte in the backing; not checked.
    pub offset: u64,
    /// Mipmap level; not checked.
    pub level: u32,
    /// Bytes from row to row in the backing; not checked.
    pub stride: u32,
    /// Bytes from layer to layer in the backing; not checked.
    pub layer_stride: u32,
}

/// One piece of guest memory; not checked.
///
/// Source: `struct virtio_gpu_mem_entry`, section "Device Operation: controlq".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemEntry {
    /// Guest physical address.
    pub addr: u64,
    /// Bytes.
    pub len: u32,
}

/// The memory entries of a request. Their bytes are all present; what they say is not checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemEntries<'a>(&'a [VirtioGpuMemEntry]);

impl<'a> MemEntries<'a> {
    /// Number of entries.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no entry.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The entries, in the guest's order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = MemEntry> + Clone + use<'a> {
        self.0.iter().map(|entry| MemEntry {
            addr: entry.addr.get(),
            len: entry.length.get(),
        })
    }
}

/// Where the memory of a blob is.
///
/// Source: `VIRTIO_GPU_BLOB_MEM_*`, section "Device Operation: controlq",
/// VIRTIO_GPU_CMD_RESOURCE_CREATE_BLOB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum BlobMem {
    /// In guest memory only.
    Guest = 1,
    /// In host memory only.
    Host3d = 2,
    /// In host memory, with guest memory behind it.
    Host3dGuest = 3,
}

impl BlobMem {
    /// The kind with that number on the wire, `None` when there is none (0 is none).
    #[must_use]
    pub const fn from_wire(raw: u32) -> Option<Self> {
        match raw {
            1 => Some(Self::Guest),
            2 => Some(Self::Host3d),
            3 => Some(Self::Host3dGuest),
            _ => None,
        }
    }

    /// The number on the wire.
    #[must_use]
    pub const fn to_wire(self) -> u32 {
        self as u32
    }
}

bitflags! {
    /// What the guest wants to do with a blob.
    ///
    /// Source: `VIRTIO_GPU_BLOB_FLAG_USE_*`, section "Device Operation: controlq",
    /// VIRTIO_GPU_CMD_RESOURCE_CREATE_BLOB.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct BlobFlags: u32 {
        /// Map it.
        const MAPPABLE = 1;
        /// Share it between processes.
        const SHAREABLE = 2;
        /// Share it with other devices.
        const CROSS_DEVICE = 4;
    }
}
