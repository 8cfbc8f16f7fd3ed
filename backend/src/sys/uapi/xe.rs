//! `drm/xe_drm.h`: Intel's newer driver.

use rustix::ioctl::opcode::read_write;

super::structures! {
    /// A question; the answer goes to the address `data`, which must have exactly its size. Size 0
    /// asks for that size.
    drm_xe_device_query [40] {
        extensions: u64,
        query: u32,
        size: u32,
        data: u64,
        reserved: [u64; 2],
    }
    /// The memory regions: as many [`drm_xe_mem_region`]s follow.
    drm_xe_query_mem_regions [8] {
        num_mem_regions: u32,
        pad: u32,
    }
    /// A memory region.
    drm_xe_mem_region [88] {
        mem_class: u16,
        instance: u16,
        min_page_size: u32,
        total_size: u64,
        used: u64,
        cpu_visible_size: u64,
        cpu_visible_used: u64,
        reserved: [u64; 6],
    }
    /// The graphics engines' groups: as many [`drm_xe_gt`]s follow.
    drm_xe_query_gt_list [8] {
        num_gt: u32,
        pad: u32,
    }
    /// One group, with its version.
    drm_xe_gt [96] {
        r#type: u16,
        tile_id: u16,
        gt_id: u16,
        pad: [u16; 3],
        reference_clock: u32,
        near_mem_regions: u64,
        far_mem_regions: u64,
        ip_ver_major: u16,
        ip_ver_minor: u16,
        ip_ver_rev: u16,
        pad2: u16,
        reserved: [u64; 7],
    }
    /// A buffer. `placement` has a bit for each region's instance where it may be.
    drm_xe_gem_create [56] {
        extensions: u64,
        size: u64,
        placement: u32,
        flags: u32,
        vm_id: u32,
        handle: u32,
        cpu_caching: u16,
        pad: [u16; 3],
        reserved: [u64; 2],
    }
    /// Where in the node's file a buffer is: `offset` is the answer.
    drm_xe_gem_mmap_offset [40] {
        extensions: u64,
        handle: u32,
        flags: u32,
        offset: u64,
        reserved: [u64; 2],
    }
}

super::constants! {
    DRM_IOCTL_XE_DEVICE_QUERY = read_write::<drm_xe_device_query>(b'd', 0x40),
    DRM_IOCTL_XE_GEM_CREATE = read_write::<drm_xe_gem_create>(b'd', 0x41),
    DRM_IOCTL_XE_GEM_MMAP_OFFSET = read_write::<drm_xe_gem_mmap_offset>(b'd', 0x42),
    DRM_XE_DEVICE_QUERY_MEM_REGIONS = 1,
    DRM_XE_DEVICE_QUERY_GT_LIST = 3,
    DRM_XE_MEM_REGION_CLASS_SYSMEM = 0,
    DRM_XE_MEM_REGION_CLASS_VRAM = 1,
    DRM_XE_QUERY_GT_TYPE_MAIN = 0,
    DRM_XE_GEM_CPU_CACHING_WB = 1,
    DRM_XE_GEM_CPU_CACHING_WC = 2,
}
