//! Section "Device configuration layout".

use zerocopy::little_endian::U32;

use super::wire_struct;

wire_struct! { 20,
    /// `struct virtio_gpu_config`.
    pub struct VirtioGpuConfig {
        /// Pending events.
        pub events_read: U32,
        /// Write-to-clear of `events_read`.
        pub events_clear: U32,
        /// Number of scanouts.
        pub num_scanouts: U32,
        /// Number of capability sets.
        pub num_capsets: U32,
        /// Alignment of host blobs in bytes, valid with VIRTIO_GPU_F_BLOB_ALIGNMENT.
        pub blob_alignment: U32,
    }
}
