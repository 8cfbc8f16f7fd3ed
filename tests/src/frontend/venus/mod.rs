//! What a guest's Vulkan driver says to the host's, by Venus (capability set 4).
//!
//! Written from the protocol's numbers and layouts (virglrenderer 1.3, `venus-protocol/`, format version 1):
//! as much of it as a compute shader and its memory need.
//!
//! * [`capset`] is what the host says about itself;
//! * [`wire`] puts commands together and takes replies apart;
//! * [`context`] sends commands by SUBMIT_3D and reads replies from shared memory;
//! * [`instance`] comes down to a device and its queue;
//! * [`memory`] has memory, buffers and images; [`compute`] runs a shader;
//! * [`ring`] sends commands through memory, past the device.

pub mod capset;
pub mod compute;
pub mod context;
pub mod instance;
pub mod memory;
pub mod ring;
pub mod wire;

pub use capset::Capset;
pub use compute::{Kernel, Recording, submit};
pub use context::{Shared, Venus};
pub use instance::Device;
pub use memory::Image;
pub use ring::{Layout, Ring};
pub use wire::{Reply, Words};

/// `VIRTIO_GPU_CAPSET_VENUS`.
pub const CAPSET_VENUS: u32 = 4;

/// Command types (`VK_COMMAND_TYPE_*_EXT`).
#[expect(missing_docs, reason = "named as in vn_protocol_renderer_defines.h")]
pub mod cmd {
    pub const CREATE_INSTANCE: u32 = 0;
    pub const ENUMERATE_PHYSICAL_DEVICES: u32 = 2;
    pub const GET_QUEUE_FAMILY_PROPERTIES: u32 = 7;
    pub const GET_MEMORY_PROPERTIES: u32 = 8;
    pub const CREATE_DEVICE: u32 = 11;
    pub const QUEUE_SUBMIT: u32 = 18;
    pub const ALLOCATE_MEMORY: u32 = 21;
    pub const FREE_MEMORY: u32 = 22;
    pub const BIND_BUFFER_MEMORY: u32 = 28;
    pub const BIND_IMAGE_MEMORY: u32 = 29;
    pub const GET_BUFFER_MEMORY_REQUIREMENTS: u32 = 30;
    pub const GET_IMAGE_MEMORY_REQUIREMENTS: u32 = 31;
    pub const CREATE_BUFFER: u32 = 50;
    pub const CREATE_IMAGE: u32 = 54;
    pub const CREATE_SHADER_MODULE: u32 = 59;
    pub const CREATE_COMPUTE_PIPELINES: u32 = 66;
    pub const CREATE_PIPELINE_LAYOUT: u32 = 68;
    pub const CREATE_DESCRIPTOR_SET_LAYOUT: u32 = 72;
    pub const CREATE_DESCRIPTOR_POOL: u32 = 74;
    pub const ALLOCATE_DESCRIPTOR_SETS: u32 = 77;
    pub const UPDATE_DESCRIPTOR_SETS: u32 = 79;
    pub const CREATE_COMMAND_POOL: u32 = 85;
    pub const ALLOCATE_COMMAND_BUFFERS: u32 = 88;
    pub const BEGIN_COMMAND_BUFFER: u32 = 90;
    pub const END_COMMAND_BUFFER: u32 = 91;
    pub const CMD_BIND_PIPELINE: u32 = 93;
    pub const CMD_BIND_DESCRIPTOR_SETS: u32 = 103;
    pub const CMD_DISPATCH: u32 = 110;
    pub const CMD_COPY_BUFFER_TO_IMAGE: u32 = 115;
    pub const CMD_UPDATE_BUFFER: u32 = 117;
    pub const CMD_PIPELINE_BARRIER: u32 = 126;
    pub const ENUMERATE_INSTANCE_VERSION: u32 = 137;
    pub const GET_DEVICE_QUEUE_2: u32 = 155;
    pub const SET_REPLY_COMMAND_STREAM: u32 = 178;
    pub const SEEK_REPLY_COMMAND_STREAM: u32 = 179;
    pub const EXECUTE_COMMAND_STREAMS: u32 = 180;
    pub const CREATE_RING: u32 = 188;
    pub const DESTROY_RING: u32 = 189;
    pub const NOTIFY_RING: u32 = 190;
    pub const WAIT_VIRTQUEUE_SEQNO: u32 = 252;
    pub const WAIT_RING_SEQNO: u32 = 253;
    pub const COPY_IMAGE_TO_MEMORY: u32 = 297;
    /// The last number that a command could have.
    pub const NONE: u32 = u32::MAX;
}

/// Structure types (`VK_STRUCTURE_TYPE_*`).
#[expect(missing_docs, reason = "named as in vulkan_core.h and Venus' own")]
pub mod kind {
    pub const APPLICATION_INFO: u32 = 0;
    pub const INSTANCE_CREATE_INFO: u32 = 1;
    pub const DEVICE_QUEUE_CREATE_INFO: u32 = 2;
    pub const DEVICE_CREATE_INFO: u32 = 3;
    pub const SUBMIT_INFO: u32 = 4;
    pub const MEMORY_ALLOCATE_INFO: u32 = 5;
    pub const BUFFER_CREATE_INFO: u32 = 12;
    pub const IMAGE_CREATE_INFO: u32 = 14;
    pub const SHADER_MODULE_CREATE_INFO: u32 = 16;
    pub const PIPELINE_SHADER_STAGE_CREATE_INFO: u32 = 18;
    pub const COMPUTE_PIPELINE_CREATE_INFO: u32 = 29;
    pub const PIPELINE_LAYOUT_CREATE_INFO: u32 = 30;
    pub const DESCRIPTOR_SET_LAYOUT_CREATE_INFO: u32 = 32;
    pub const DESCRIPTOR_POOL_CREATE_INFO: u32 = 33;
    pub const DESCRIPTOR_SET_ALLOCATE_INFO: u32 = 34;
    pub const WRITE_DESCRIPTOR_SET: u32 = 35;
    pub const COMMAND_POOL_CREATE_INFO: u32 = 39;
    pub const COMMAND_BUFFER_ALLOCATE_INFO: u32 = 40;
    pub const COMMAND_BUFFER_BEGIN_INFO: u32 = 42;
    pub const IMAGE_MEMORY_BARRIER: u32 = 45;
    pub const MEMORY_BARRIER: u32 = 46;
    pub const EXPORT_MEMORY_ALLOCATE_INFO: u32 = 1_000_072_002;
    pub const DEVICE_QUEUE_INFO_2: u32 = 1_000_145_003;
    pub const HOST_IMAGE_COPY_FEATURES: u32 = 1_000_270_000;
    pub const RING_CREATE_INFO: u32 = 1_000_384_000;
    pub const IMPORT_MEMORY_RESOURCE_INFO: u32 = 1_000_384_002;
    pub const DEVICE_QUEUE_TIMELINE_INFO: u32 = 1_000_384_005;
    pub const COPY_IMAGE_TO_MEMORY_INFO: u32 = 1_000_384_008;
}
