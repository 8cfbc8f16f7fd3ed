//! Blob resources: sections "Device Operation: controlq" and "Device Operation: controlq (3d)".

use zerocopy::little_endian::{U32, U64};

use super::{VirtioGpuCtrlHdr, VirtioGpuRect, wire_struct};

wire_struct! { 56,
    /// `struct virtio_gpu_resource_create_blob`: VIRTIO_GPU_CMD_RESOURCE_CREATE_BLOB.
    /// `nr_entries` times [`super::VirtioGpuMemEntry`] follow.
    pub struct VirtioGpuResourceCreateBlob {
        /// Header.
        pub hdr: VirtioGpuCtrlHdr,
        /// Resource to create.
        pub resource_id: U32,
        /// [`crate::BlobMem`].
        pub blob_mem: U32,
        /// [`crate::BlobFlags`].
        pub blob_flags: U32,
        /// Number of [`super::VirtioGpuMemEntry`] that follow.
        pub nr_entries: U32,
        /// What a host blob is made from.
        pub blob_id: U64,
        /// Bytes.
        pub size: U64,
    }
}

wire_struct! { 96,
    /// `struct virtio_gpu_set_scanout_blob`: VIRTIO_GPU_CMD_SET_SCANOUT_BLOB.
    pub struct VirtioGpuSetScanoutBlob {
        /// Header.
        pub hdr: VirtioGpuCtrlHdr,
        /// Part of the picture that is shown.
        pub r: VirtioGpuRect,
        /// Scanout.
        pub scanout_id: U32,
        /// Resource to show, 0 to disable the scanout.
        pub resource_id: U32,
        /// Pixels per row of the picture in the blob.
        pub width: U32,
        /// Rows of the picture in the blob.
        pub height: U32,
        /// [`crate::Format`].
        pub format: U32,
        /// Padding.
        pub padding: U32,
        /// Bytes from row to row, per plane.
        pub strides: [U32; 4],
        /// First byte, per plane.
        pub offsets: [U32; 4],
    }
}

wire_struct! { 40,
    /// `struct virtio_gpu_resource_map_blob`: VIRTIO_GPU_CMD_RESOURCE_MAP_BLOB.
    pub struct VirtioGpuResourceMapBlob {
        /// Header.
        pub hdr: VirtioGpuCtrlHdr,
        /// Resource.
        pub resource_id: U32,
        /// Padding.
        pub padding: U32,
        /// Where in the host visible region, in bytes.
        pub offset: U64,
    }
}

wire_struct! { 32,
    /// `struct virtio_gpu_resp_map_info`: VIRTIO_GPU_RESP_OK_MAP_INFO.
    pub struct VirtioGpuRespMapInfo {
        /// Header.
        pub hdr: VirtioGpuCtrlHdr,
        /// [`crate::MapCache`].
        pub map_info: U32,
        /// Padding.
        pub padding: U32,
    }
}

wire_struct! { 32,
    /// `struct virtio_gpu_resource_unmap_blob`: VIRTIO_GPU_CMD_RESOURCE_UNMAP_BLOB.
    pub struct VirtioGpuResourceUnmapBlob {
        /// Header.
        pub hdr: VirtioGpuCtrlHdr,
        /// Resource.
        pub resource_id: U32,
        /// Padding.
        pub padding: U32,
    }
}
