//! Section "Device Operation: controlq".

use zerocopy::little_endian::{U32, U64};

use super::{VirtioGpuCtrlHdr, wire_struct};
use crate::geometry::Rect;
use crate::ids::MAX_SCANOUTS;

wire_struct! { 16,
    /// `struct virtio_gpu_rect`.
    pub struct VirtioGpuRect {
        /// Left edge.
        pub x: U32,
        /// Top edge.
        pub y: U32,
        /// Pixels per row.
        pub width: U32,
        /// Rows.
        pub height: U32,
    }
}

impl From<VirtioGpuRect> for Rect {
    fn from(rect: VirtioGpuRect) -> Self {
        Self {
            x: rect.x.get(),
            y: rect.y.get(),
            width: rect.width.get(),
            height: rect.height.get(),
        }
    }
}

impl From<Rect> for VirtioGpuRect {
    fn from(rect: Rect) -> Self {
        Self {
            x: rect.x.into(),
            y: rect.y.into(),
            width: rect.width.into(),
            height: rect.height.into(),
        }
    }
}

wire_struct! { 24,
    /// `struct virtio_gpu_display_one`: one scanout of [`VirtioGpuRespDisplayInfo`].
    pub struct VirtioGpuDisplayOne {
        /// Preferred position and size.
        pub r: VirtioGpuRect,
        /// 1 when a display is connected, else 0.
        pub enabled: U32,
        /// No flag is defined.
        pub flags: U32,
    }
}

wire_struct! { 408,
    /// `struct virtio_gpu_resp_display_info`: VIRTIO_GPU_RESP_OK_DISPLAY_INFO.
    pub struct VirtioGpuRespDisplayInfo {
        /// Header.
        pub hdr: VirtioGpuCtrlHdr,
        /// The scanouts.
        pub pmodes: [VirtioGpuDisplayOne; MAX_SCANOUTS],
    }
}

wire_struct! { 32,
    /// `struct virtio_gpu_cmd_get_edid`: VIRTIO_GPU_CMD_GET_EDID.
    pub struct VirtioGpuCmdGetEdid {
        /// Header.
        pub hdr: VirtioGpuCtrlHdr,
        /// Scanout.
        pub scanout: U32,
        /// Padding.
        pub padding: U32,
    }
}

wire_struct! { 1056, nodefault,
    /// `struct virtio_gpu_resp_edid`: VIRTIO_GPU_RESP_OK_EDID.
    pub struct VirtioGpuRespEdid {
        /// Header.
        pub hdr: VirtioGpuCtrlHdr,
        /// Valid bytes in `edid`.
        pub size: U32,
        /// Padding.
        pub padding: U32,
        /// The EDID, padded with zeros.
        pub edid: [u8; 1024],
    }
}

wire_struct! { 40,
    /// `struct virtio_gpu_resource_create_2d`: VIRTIO_GPU_CMD_RESOURCE_CREATE_2D.
    pub struct VirtioGpuResourceCreate2d {
        /// Header.
        pub hdr: VirtioGpuCtrlHdr,
        /// Resource to create.
        pub resource_id: U32,
        /// [`crate::Format`].
        pub format: U32,
        /// Pixels per row.
        pub width: U32,
        /// Rows.
        pub height: U32,
    }
}

wire_struct! { 32,
    /// `struct virtio_gpu_resource_unref`: VIRTIO_GPU_CMD_RESOURCE_UNREF.
    pub struct VirtioGpuResourceUnref {
        /// Header.
        pub hdr: VirtioGpuCtrlHdr,
        /// Resource to destroy.
        pub resource_id: U32,
        /// Padding.
        pub padding: U32,
    }
}

wire_struct! { 48,
    /// `struct virtio_gpu_set_scanout`: VIRTIO_GPU_CMD_SET_SCANOUT.
    pub struct VirtioGpuSetScanout {
        /// Header.
        pub hdr: VirtioGpuCtrlHdr,
        /// Part of the resource that is shown.
        pub r: VirtioGpuRect,
        /// Scanout.
        pub scanout_id: U32,
        /// Resource to show, 0 to disable the scanout.
        pub resource_id: U32,
    }
}

wire_struct! { 48,
    /// `struct virtio_gpu_resource_flush`: VIRTIO_GPU_CMD_RESOURCE_FLUSH.
    pub struct VirtioGpuResourceFlush {
        /// Header.
        pub hdr: VirtioGpuCtrlHdr,
        /// Part of the resource that has changed.
        pub r: VirtioGpuRect,
        /// Resource.
        pub resource_id: U32,
        /// Padding.
        pub padding: U32,
    }
}

wire_struct! { 56,
    /// `struct virtio_gpu_transfer_to_host_2d`: VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D.
    pub struct VirtioGpuTransferToHost2d {
        /// Header.
        pub hdr: VirtioGpuCtrlHdr,
        /// Part of the resource to write.
        pub r: VirtioGpuRect,
        /// Where the first pixel of `r` is in the backing, in bytes.
        pub offset: U64,
        /// Resource.
        pub resource_id: U32,
        /// Padding.
        pub padding: U32,
    }
}

wire_struct! { 32,
    /// `struct virtio_gpu_resource_attach_backing`: VIRTIO_GPU_CMD_RESOURCE_ATTACH_BACKING.
    /// `nr_entries` times [`VirtioGpuMemEntry`] follow.
    pub struct VirtioGpuResourceAttachBacking {
        /// Header.
        pub hdr: VirtioGpuCtrlHdr,
        /// Resource.
        pub resource_id: U32,
        /// Number of [`VirtioGpuMemEntry`] that follow.
        pub nr_entries: U32,
    }
}

wire_struct! { 16,
    /// `struct virtio_gpu_mem_entry`.
    pub struct VirtioGpuMemEntry {
        /// Guest physical address.
        pub addr: U64,
        /// Bytes.
        pub length: U32,
        /// Padding.
        pub padding: U32,
    }
}

wire_struct! { 32,
    /// `struct virtio_gpu_resource_detach_backing`: VIRTIO_GPU_CMD_RESOURCE_DETACH_BACKING.
    pub struct VirtioGpuResourceDetachBacking {
        /// Header.
        pub hdr: VirtioGpuCtrlHdr,
        /// Resource.
        pub resource_id: U32,
        /// Padding.
        pub padding: U32,
    }
}

wire_struct! { 32,
    /// `struct virtio_gpu_get_capset_info`: VIRTIO_GPU_CMD_GET_CAPSET_INFO.
    pub struct VirtioGpuGetCapsetInfo {
        /// Header.
        pub hdr: VirtioGpuCtrlHdr,
        /// Which capability set, 0 to `num_capsets` - 1.
        pub capset_index: U32,
        /// Padding.
        pub padding: U32,
    }
}

wire_struct! { 40,
    /// `struct virtio_gpu_resp_capset_info`: VIRTIO_GPU_RESP_OK_CAPSET_INFO.
    pub struct VirtioGpuRespCapsetInfo {
        /// Header.
        pub hdr: VirtioGpuCtrlHdr,
        /// Capability set id.
        pub capset_id: U32,
        /// Newest version.
        pub capset_max_version: U32,
        /// Bytes of the largest version.
        pub capset_max_size: U32,
        /// Padding.
        pub padding: U32,
    }
}

wire_struct! { 32,
    /// `struct virtio_gpu_get_capset`: VIRTIO_GPU_CMD_GET_CAPSET.
    pub struct VirtioGpuGetCapset {
        /// Header.
        pub hdr: VirtioGpuCtrlHdr,
        /// Capability set id.
        pub capset_id: U32,
        /// Version.
        pub capset_version: U32,
    }
}

wire_struct! { 24,
    /// `struct virtio_gpu_resp_capset`: VIRTIO_GPU_RESP_OK_CAPSET. `capset_data` follows.
    pub struct VirtioGpuRespCapset {
        /// Header.
        pub hdr: VirtioGpuCtrlHdr,
    }
}

wire_struct! { 32,
    /// `struct virtio_gpu_resource_assign_uuid`: VIRTIO_GPU_CMD_RESOURCE_ASSIGN_UUID.
    pub struct VirtioGpuResourceAssignUuid {
        /// Header.
        pub hdr: VirtioGpuCtrlHdr,
        /// Resource.
        pub resource_id: U32,
        /// Padding.
        pub padding: U32,
    }
}

wire_struct! { 40,
    /// `struct virtio_gpu_resp_resource_uuid`: VIRTIO_GPU_RESP_OK_RESOURCE_UUID.
    pub struct VirtioGpuRespResourceUuid {
        /// Header.
        pub hdr: VirtioGpuCtrlHdr,
        /// UUID, most significant byte first.
        pub uuid: [u8; 16],
    }
}
