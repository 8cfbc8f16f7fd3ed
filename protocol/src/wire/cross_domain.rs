//! The protocol of cross-domain contexts (capability set 5), which travels in VIRTIO_GPU_CMD_SUBMIT_3D
//! and comes back through a query ring, a blob of guest memory.
//!
//! No specification has it; names and layout are those of `cross_domain_protocol.rs` of rutabaga_gfx
//! 0.1.85, which crosvm's guests (minigbm, sommelier) speak.

use zerocopy::little_endian::{I32, U16, U32, U64};

use super::wire_struct;

/// `cmd` of [`CrossDomainInit`] and its shorter forms.
pub const CROSS_DOMAIN_CMD_INIT: u8 = 1;

/// `cmd` of [`CrossDomainGetImageRequirements`].
pub const CROSS_DOMAIN_CMD_GET_IMAGE_REQUIREMENTS: u8 = 2;

/// `cmd` of [`CrossDomainPoll`].
pub const CROSS_DOMAIN_CMD_POLL: u8 = 3;

/// `cmd` of [`CrossDomainSendReceive`] from the guest.
pub const CROSS_DOMAIN_CMD_SEND: u8 = 4;

/// `cmd` of [`CrossDomainSendReceive`] to the guest.
pub const CROSS_DOMAIN_CMD_RECEIVE: u8 = 5;

/// `cmd` of [`CrossDomainReadWrite`] to the guest.
pub const CROSS_DOMAIN_CMD_READ: u8 = 6;

/// `cmd` of [`CrossDomainReadWrite`] from the guest.
pub const CROSS_DOMAIN_CMD_WRITE: u8 = 7;

/// Type of a channel: a Wayland compositor of the host.
pub const CROSS_DOMAIN_CHANNEL_TYPE_WAYLAND: u32 = 1;

/// `ring_idx` of fences that wait for the channel.
pub const CROSS_DOMAIN_CHANNEL_RING: u8 = 1;

/// Identifiers of one message: as many descriptors as libwayland sends with one.
pub const CROSS_DOMAIN_MAX_IDENTIFIERS: usize = 28;

/// Type of an identifier: a resource (SEND), or the `blob_id` to make one by (RECEIVE).
pub const CROSS_DOMAIN_ID_TYPE_VIRTGPU_BLOB: u32 = 1;

/// Type of an identifier: a pipe that the guest reads. The compositor gets the end to write to.
pub const CROSS_DOMAIN_ID_TYPE_READ_PIPE: u32 = 3;

/// Type of an identifier: a pipe that the guest writes. The compositor has sent that end.
pub const CROSS_DOMAIN_ID_TYPE_WRITE_PIPE: u32 = 4;

/// Identifiers of pipes that guests read are not below.
pub const CROSS_DOMAIN_PIPE_READ_START: u32 = 0x8000_0000;

wire_struct! { 16,
    /// Contents of the capability set.
    pub struct CrossDomainCapabilities {
        /// Version of the protocol: 1.
        pub version: U32,
        /// Bit n: channels of type n are there.
        pub supported_channels: U32,
        /// Whether blobs are dma-bufs on the host.
        pub supports_dmabuf: U32,
        /// Whether blobs can be made by a GPU driver of the host.
        pub supports_external_gpu_memory: U32,
    }
}

wire_struct! { 8,
    /// What every command begins with.
    pub struct CrossDomainHeader {
        /// `CROSS_DOMAIN_CMD_*`.
        pub cmd: u8,
        /// Ring on which an answer is awaited: 0 is the query ring, 1 the channel ring.
        pub ring_idx: u8,
        /// Bytes of the command, this header included.
        pub cmd_size: U16,
        /// Padding.
        pub pad: U32,
    }
}

wire_struct! { 16,
    /// CROSS_DOMAIN_CMD_INIT as old guests send it: the query ring is the channel ring, too.
    pub struct CrossDomainInitLegacy {
        /// Header.
        pub hdr: CrossDomainHeader,
        /// Resource in which queries are answered.
        pub query_ring_id: U32,
        /// Type of the channel; 0 is none.
        pub channel_type: U32,
    }
}

wire_struct! { 20,
    /// CROSS_DOMAIN_CMD_INIT without an internal socket.
    pub struct CrossDomainInitV1 {
        /// Header.
        pub hdr: CrossDomainHeader,
        /// Resource in which queries are answered.
        pub query_ring_id: U32,
        /// Resource in which the channel's messages arrive.
        pub channel_ring_id: U32,
        /// Type of the channel; 0 is none.
        pub channel_type: U32,
    }
}

wire_struct! { 36,
    /// CROSS_DOMAIN_CMD_INIT.
    pub struct CrossDomainInit {
        /// Header.
        pub hdr: CrossDomainHeader,
        /// Resource in which queries are answered.
        pub query_ring_id: U32,
        /// Resource in which the channel's messages arrive.
        pub channel_ring_id: U32,
        /// Type of the channel; 0 is none.
        pub channel_type: U32,
        /// Socket to join, for channels of that type.
        pub internal_socket_uuid: [u8; 16],
    }
}

wire_struct! { 24,
    /// CROSS_DOMAIN_CMD_GET_IMAGE_REQUIREMENTS; [`CrossDomainImageRequirements`] is the answer.
    pub struct CrossDomainGetImageRequirements {
        /// Header.
        pub hdr: CrossDomainHeader,
        /// Pixels of a row.
        pub width: U32,
        /// Rows.
        pub height: U32,
        /// `DRM_FORMAT_*`.
        pub drm_format: U32,
        /// minigbm's `BO_USE_*`, the lower 32 bits.
        pub flags: U32,
    }
}

wire_struct! { 64,
    /// Answer to CROSS_DOMAIN_CMD_GET_IMAGE_REQUIREMENTS, at the start of the query ring.
    pub struct CrossDomainImageRequirements {
        /// Bytes from row to row, by plane.
        pub strides: [U32; 4],
        /// First byte, by plane.
        pub offsets: [U32; 4],
        /// `DRM_FORMAT_MOD_*`.
        pub modifier: U64,
        /// Bytes of the whole image.
        pub size: U64,
        /// `blob_id` with which the context makes such an image.
        pub blob_id: U32,
        /// `VIRTIO_GPU_MAP_CACHE_*`.
        pub map_info: U32,
        /// Vulkan memory type; -1 is none.
        pub memory_idx: I32,
        /// Vulkan physical device; -1 is none.
        pub physical_device_idx: I32,
    }
}

wire_struct! { 16,
    /// CROSS_DOMAIN_CMD_POLL. What it waits for comes with the fence of its submission.
    pub struct CrossDomainPoll {
        /// Header.
        pub hdr: CrossDomainHeader,
        /// Padding.
        pub pad: U64,
    }
}

wire_struct! { 352,
    /// CROSS_DOMAIN_CMD_SEND, and CROSS_DOMAIN_CMD_RECEIVE at the start of the channel ring. The message's
    /// bytes follow.
    pub struct CrossDomainSendReceive {
        /// Header.
        pub hdr: CrossDomainHeader,
        /// How many of the identifiers count.
        pub num_identifiers: U32,
        /// Bytes of the message.
        pub opaque_data_size: U32,
        /// What stands for the message's descriptors, in order.
        pub identifiers: [U32; CROSS_DOMAIN_MAX_IDENTIFIERS],
        /// `CROSS_DOMAIN_ID_TYPE_*` of each.
        pub identifier_types: [U32; CROSS_DOMAIN_MAX_IDENTIFIERS],
        /// Bytes of each that is memory.
        pub identifier_sizes: [U32; CROSS_DOMAIN_MAX_IDENTIFIERS],
    }
}

wire_struct! { 24,
    /// CROSS_DOMAIN_CMD_WRITE, and CROSS_DOMAIN_CMD_READ at the start of the channel ring. The bytes that go
    /// through the pipe follow.
    pub struct CrossDomainReadWrite {
        /// Header.
        pub hdr: CrossDomainHeader,
        /// The pipe.
        pub identifier: U32,
        /// Not 0: nothing comes after this.
        pub hang_up: U32,
        /// Bytes that follow.
        pub opaque_data_size: U32,
        /// Padding.
        pub pad: U32,
    }
}
