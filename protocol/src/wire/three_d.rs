//! Section "Device Operation: controlq (3d)", except for blobs. The specification leaves most of
//! these structures to `include/uapi/linux/virtio_gpu.h`.

use zerocopy::little_endian::{U32, U64};

use super::{VirtioGpuCtrlHdr, wire_struct};

/// Bits of `context_init` that hold the capability set of the context.
pub const VIRTIO_GPU_CONTEXT_INIT_CAPSET_ID_MASK: u32 = 0x0000_00ff;

/// `flags` of [`VirtioGpuResourceCreate3d`]: the first row is the top one.
pub const VIRTIO_GPU_RESOURCE_FLAG_Y_0_TOP: u32 = 1 << 0;

wire_struct! { 24,
    /// `struct virtio_gpu_box`.
    pub struct VirtioGpuBox {
        /// Left edge.
        pub x: U32,
        /// Top edge.
        pub y: U32,
        /// Front edge or first layer.
        pub z: U32,
        /// Width.
        pub w: U32,
        /// Height.
        pub h: U32,
        /// Depth or number of layers.
        pub d: U32,
    }
}

wire_struct! { 72,
    /// `struct virtio_gpu_transfer_host_3d`: VIRTIO_GPU_CMD_TRANSFER_TO_HOST_3D and
    /// VIRTIO_GPU_CMD_TRANSFER_FROM_HOST_3D.
    pub struct VirtioGpuTransferHost3d {
        /// Header.
        pub hdr: VirtioGpuCtrlHdr,
        /// Part of the resource.
        pub r#box: VirtioGpuBox,
        /// First byte in the backing.
        pub offset: U64,
        /// Resource.
        pub resource_id: U32,
        /// Mipmap level.
        pub level: U32,
        /// Bytes from row to row in the backing.
        pub stride: U32,
        /// Bytes from layer to layer in the backing.
        pub layer_stride: U32,
    }
}

wire_struct! { 72,
    /// `struct virtio_gpu_resource_create_3d`: VIRTIO_GPU_CMD_RESOURCE_CREATE_3D.
    pub struct VirtioGpuResourceCreate3d {
        /// Header.
        pub hdr: VirtioGpuCtrlHdr,
        /// Resource to create.
        pub resource_id: U32,
        /// Texture target of the renderer's protocol.
        pub target: U32,
        /// Format of the renderer's protocol.
        pub format: U32,
        /// Usage bits of the renderer's protocol.
        pub bind: U32,
        /// Width.
        pub width: U32,
        /// Height.
        pub height: U32,
        /// Depth.
        pub depth: U32,
        /// Number of layers.
        pub array_size: U32,
        /// Highest mipmap level.
        pub last_level: U32,
        /// Samples per pixel.
        pub nr_samples: U32,
        /// [`VIRTIO_GPU_RESOURCE_FLAG_Y_0_TOP`].
        pub flags: U32,
        /// Padding.
        pub padding: U32,
    }
}

wire_struct! { 96, nodefault,
    /// `struct virtio_gpu_ctx_create`: VIRTIO_GPU_CMD_CTX_CREATE.
    pub struct VirtioGpuCtxCreate {
        /// Header; `ctx_id` is the context to create.
        pub hdr: VirtioGpuCtrlHdr,
        /// Valid bytes of `debug_name`.
        pub nlen: U32,
        /// Capability set and other properties, with VIRTIO_GPU_F_CONTEXT_INIT.
        pub context_init: U32,
        /// Name for people.
        pub debug_name: [u8; 64],
    }
}

wire_struct! { 24,
    /// `struct virtio_gpu_ctx_destroy`: VIRTIO_GPU_CMD_CTX_DESTROY.
    pub struct VirtioGpuCtxDestroy {
        /// Header; `ctx_id` is the context to destroy.
        pub hdr: VirtioGpuCtrlHdr,
    }
}

wire_struct! { 32,
    /// `struct virtio_gpu_ctx_resource`: VIRTIO_GPU_CMD_CTX_ATTACH_RESOURCE and
    /// VIRTIO_GPU_CMD_CTX_DETACH_RESOURCE.
    pub struct VirtioGpuCtxResource {
        /// Header; `ctx_id` is the context.
        pub hdr: VirtioGpuCtrlHdr,
        /// Resource.
        pub resource_id: U32,
        /// Padding.
        pub padding: U32,
    }
}

wire_struct! { 32,
    /// `struct virtio_gpu_cmd_submit`: VIRTIO_GPU_CMD_SUBMIT_3D. `size` bytes of commands follow.
    pub struct VirtioGpuCmdSubmit {
        /// Header; `ctx_id` is the context.
        pub hdr: VirtioGpuCtrlHdr,
        /// Bytes of commands that follow.
        pub size: U32,
        /// Padding.
        pub padding: U32,
    }
}
