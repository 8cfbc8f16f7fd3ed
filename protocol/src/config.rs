//! Feature bits and configuration space.

use bitflags::bitflags;
use zerocopy::transmute;

use crate::wire::VirtioGpuConfig;

bitflags! {
    /// Device feature bits of the GPU device, as the 64-bit mask that virtio negotiates.
    ///
    /// Source: section "Feature bits".
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct Features: u64 {
        /// 3D through virgl (`VIRTIO_GPU_F_VIRGL`).
        const VIRGL = 1 << 0;
        /// VIRTIO_GPU_CMD_GET_EDID (`VIRTIO_GPU_F_EDID`).
        const EDID = 1 << 1;
        /// VIRTIO_GPU_CMD_RESOURCE_ASSIGN_UUID (`VIRTIO_GPU_F_RESOURCE_UUID`).
        const RESOURCE_UUID = 1 << 2;
        /// Blob resources (`VIRTIO_GPU_F_RESOURCE_BLOB`).
        const RESOURCE_BLOB = 1 << 3;
        /// Contexts of several kinds with several timelines (`VIRTIO_GPU_F_CONTEXT_INIT`).
        const CONTEXT_INIT = 1 << 4;
        /// `blob_alignment` in the configuration space is valid
        /// (`VIRTIO_GPU_F_BLOB_ALIGNMENT`).
        const BLOB_ALIGNMENT = 1 << 5;
    }
}

/// Bit of `events_read` and `events_clear`: display configuration has changed
/// (`VIRTIO_GPU_EVENT_DISPLAY`).
pub const EVENT_DISPLAY: u32 = 1;

/// The configuration space, `struct virtio_gpu_config`.
///
/// Source: section "Device configuration layout".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Config {
    /// Pending events, [`EVENT_DISPLAY`] or 0. Read-only for the driver.
    pub events_read: u32,
    /// Write-to-clear of `events_read`. Always reads as 0.
    pub events_clear: u32,
    /// Number of scanouts, 1 to 16.
    pub num_scanouts: u32,
    /// Number of capability sets.
    pub num_capsets: u32,
    /// Bytes to which size and offset of host blobs must be aligned, a power of two; valid when
    /// [`Features::BLOB_ALIGNMENT`] was negotiated, 0 otherwise.
    pub blob_alignment: u32,
}

impl Config {
    /// Bytes of the whole structure.
    pub const SIZE: usize = size_of::<VirtioGpuConfig>();

    /// The bytes that the driver reads, little-endian.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        transmute!(VirtioGpuConfig {
            events_read: self.events_read.into(),
            events_clear: self.events_clear.into(),
            num_scanouts: self.num_scanouts.into(),
            num_capsets: self.num_capsets.into(),
            blob_alignment: self.blob_alignment.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_bytes_are_exact() {
        let config = Config {
            events_read: EVENT_DISPLAY,
            events_clear: 0x0102_0304,
            num_scanouts: 16,
            num_capsets: 3,
            blob_alignment: 4096,
        };
        assert_eq!(
            config.to_bytes(),
            [
                1, 0, 0, 0, 4, 3, 2, 1, 16, 0, 0, 0, 3, 0, 0, 0, 0, 0x10, 0, 0
            ]
        );
    }

    #[test]
    fn feature_bits_are_those_of_the_specification() {
        let bits = [
            Features::VIRGL,
            Features::EDID,
            Features::RESOURCE_UUID,
            Features::RESOURCE_BLOB,
            Features::CONTEXT_INIT,
            Features::BLOB_ALIGNMENT,
        ];
        for (i, feature) in bits.iter().enumerate() {
            assert_eq!(feature.bits(), 1u64 << i);
        }
        assert_eq!(Features::all().bits(), 0x3f);
    }
}
