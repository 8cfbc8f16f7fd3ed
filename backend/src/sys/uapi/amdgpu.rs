//! `drm/amdgpu_drm.h`: AMD's driver.

use rustix::ioctl::opcode::{read_write, write};

super::structures! {
    /// A buffer. The answer, [`drm_amdgpu_gem_create_out`], comes in the same place.
    drm_amdgpu_gem_create_in [32] {
        bo_size: u64,
        alignment: u64,
        domains: u64,
        domain_flags: u64,
    }
    /// The answer to [`drm_amdgpu_gem_create_in`].
    drm_amdgpu_gem_create_out [8] {
        handle: u32,
        _pad: u32,
    }
    /// Asks where in the node's file a buffer is.
    drm_amdgpu_gem_mmap_in [8] {
        handle: u32,
        _pad: u32,
    }
    /// The answer to [`drm_amdgpu_gem_mmap_in`], in the same place: an offset in spite of its name.
    drm_amdgpu_gem_mmap_out [8] {
        addr_ptr: u64,
    }
    /// Asks about a buffer or changes it. Older kernels end it after `value`, and take the longer
    /// one too.
    drm_amdgpu_gem_op [24] {
        handle: u32,
        op: u32,
        value: u64,
        num_entries: u32,
        padding: u32,
    }
    /// A question about the device: at most `return_size` bytes go to the address `return_pointer`.
    drm_amdgpu_info [32] {
        return_pointer: u64,
        return_size: u32,
        query: u32,
        _arguments: [u32; 4],
    }
    /// The device, of which the beginning may be asked for.
    drm_amdgpu_info_device [20 begins] {
        device_id: u32,
        chip_rev: u32,
        external_rev: u32,
        pci_rev: u32,
        family: u32,
    }
}

super::constants! {
    // The headers define these two by unions of the two structures, whose size is the larger one's.
    DRM_IOCTL_AMDGPU_GEM_CREATE = read_write::<drm_amdgpu_gem_create_in>(b'd', 0x40),
    DRM_IOCTL_AMDGPU_GEM_MMAP = read_write::<drm_amdgpu_gem_mmap_out>(b'd', 0x41),
    DRM_IOCTL_AMDGPU_INFO = write::<drm_amdgpu_info>(b'd', 0x45),
    DRM_IOCTL_AMDGPU_GEM_OP = read_write::<drm_amdgpu_gem_op>(b'd', 0x50),
    AMDGPU_GEM_DOMAIN_GTT = 2,
    AMDGPU_GEM_DOMAIN_VRAM = 4,
    AMDGPU_GEM_CREATE_CPU_GTT_USWC = 4,
    AMDGPU_GEM_OP_GET_GEM_CREATE_INFO = 0,
    AMDGPU_INFO_DEV_INFO = 0x16,
    AMDGPU_FAMILY_SI = 110,
    AMDGPU_FAMILY_CI = 120,
    AMDGPU_FAMILY_KV = 125,
    AMDGPU_FAMILY_VI = 130,
    AMDGPU_FAMILY_CZ = 135,
    AMDGPU_FAMILY_AI = 141,
    AMDGPU_FAMILY_RV = 142,
    AMDGPU_FAMILY_NV = 143,
    AMDGPU_FAMILY_VGH = 144,
    AMDGPU_FAMILY_GC_11_0_0 = 145,
    AMDGPU_FAMILY_YC = 146,
    AMDGPU_FAMILY_GC_11_0_1 = 148,
    AMDGPU_FAMILY_GC_10_3_6 = 149,
    AMDGPU_FAMILY_GC_11_5_0 = 150,
    AMDGPU_FAMILY_GC_10_3_7 = 151,
    AMDGPU_FAMILY_GC_12_0_0 = 152,
    AMDGPU_FAMILY_GC_11_5_4 = 154,
}
