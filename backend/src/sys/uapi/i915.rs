//! `drm/i915_drm.h`: Intel's older driver.

use rustix::ioctl::opcode::{read_write, write};

super::structures! {
    /// One number about the device, written to the address `value`.
    drm_i915_getparam [16] {
        param: i32,
        _hole: u32,
        value: u64,
    }
    /// Questions: the address of `num_items` [`drm_i915_query_item`]s.
    drm_i915_query [16] {
        num_items: u32,
        flags: u32,
        items_ptr: u64,
    }
    /// One question: the answer's length, or a negative error number, comes back in `length`.
    drm_i915_query_item [24] {
        query_id: u64,
        length: i32,
        flags: u32,
        data_ptr: u64,
    }
    /// Names a memory region.
    drm_i915_gem_memory_class_instance [4] {
        memory_class: u16,
        memory_instance: u16,
    }
    /// A memory region.
    drm_i915_memory_region_info [88] {
        region: drm_i915_gem_memory_class_instance,
        rsvd0: u32,
        probed_size: u64,
        unallocated_size: u64,
        rsvd1: [u64; 8],
    }
    /// The regions: as many [`drm_i915_memory_region_info`]s follow.
    drm_i915_query_memory_regions [16] {
        num_regions: u32,
        rsvd: [u32; 3],
    }
    /// A buffer in system memory. `size` comes back rounded up.
    drm_i915_gem_create [16] {
        size: u64,
        handle: u32,
        pad: u32,
    }
    /// A buffer with extensions, at the address of the first.
    drm_i915_gem_create_ext [24] {
        size: u64,
        handle: u32,
        flags: u32,
        extensions: u64,
    }
    /// What an extension begins with.
    i915_user_extension [32] {
        next_extension: u64,
        name: u32,
        flags: u32,
        rsvd: [u32; 4],
    }
    /// Where a buffer may be: the address of [`drm_i915_gem_memory_class_instance`]s.
    drm_i915_gem_create_ext_memory_regions [48] {
        base: i915_user_extension,
        pad: u32,
        num_regions: u32,
        regions: u64,
    }
    /// With which PAT entry the GPU accesses a buffer (graphics 12.70 and later).
    drm_i915_gem_create_ext_set_pat [40] {
        base: i915_user_extension,
        pat_index: u32,
        rsvd: u32,
    }
    /// Whether the GPU's accesses are coherent with the CPUs' caches.
    drm_i915_gem_caching [8] {
        handle: u32,
        caching: u32,
    }
    /// Where in the node's file a buffer is mapped with which type: `offset` is the answer. Kernels
    /// before Linux 5.6 have an older command under this number, which looks at the handle alone.
    drm_i915_gem_mmap_offset [32] {
        handle: u32,
        pad: u32,
        offset: u64,
        flags: u64,
        extensions: u64,
    }
}

super::constants! {
    DRM_IOCTL_I915_GETPARAM = read_write::<drm_i915_getparam>(b'd', 0x46),
    DRM_IOCTL_I915_GEM_CREATE = read_write::<drm_i915_gem_create>(b'd', 0x5b),
    DRM_IOCTL_I915_GEM_CREATE_EXT = read_write::<drm_i915_gem_create_ext>(b'd', 0x7c),
    DRM_IOCTL_I915_GEM_MMAP_OFFSET = read_write::<drm_i915_gem_mmap_offset>(b'd', 0x64),
    DRM_IOCTL_I915_GEM_SET_CACHING = write::<drm_i915_gem_caching>(b'd', 0x6f),
    DRM_IOCTL_I915_GEM_GET_CACHING = read_write::<drm_i915_gem_caching>(b'd', 0x70),
    DRM_IOCTL_I915_QUERY = read_write::<drm_i915_query>(b'd', 0x79),
    I915_PARAM_CHIPSET_ID = 4,
    I915_PARAM_HAS_LLC = 17,
    I915_PARAM_MMAP_GTT_VERSION = 40,
    DRM_I915_QUERY_MEMORY_REGIONS = 4,
    I915_MEMORY_CLASS_SYSTEM = 0,
    I915_MEMORY_CLASS_DEVICE = 1,
    I915_GEM_CREATE_EXT_MEMORY_REGIONS = 0,
    I915_GEM_CREATE_EXT_SET_PAT = 2,
    I915_GEM_CREATE_EXT_FLAG_NEEDS_CPU_ACCESS = 1,
    I915_CACHING_NONE = 0,
    I915_CACHING_CACHED = 1,
    I915_MMAP_OFFSET_WC = 1,
    I915_MMAP_OFFSET_WB = 2,
    I915_MMAP_OFFSET_FIXED = 4,
}
