//! The commands to device nodes that this program knows, each with its arguments as values and
//! references: no addresses, so nobody but [`super::ioctl`] can point the kernel anywhere.

use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};

use super::uapi::{amdgpu, drm, i915, xe};

/// Who drives a device node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Driver {
    /// Intel's older driver.
    I915,
    /// Intel's newer driver.
    Xe,
    /// AMD's driver.
    Amdgpu,
    /// The kernel's device without hardware.
    Vgem,
    /// Not a DRM device: dma-bufs of memfds.
    Udmabuf,
    /// Any other DRM driver, by the name it gives.
    Other(String),
}

impl Driver {
    /// The DRM driver of this name.
    pub(crate) fn named(name: &str) -> Self {
        match name {
            "i915" => Self::I915,
            "xe" => Self::Xe,
            "amdgpu" => Self::Amdgpu,
            "vgem" => Self::Vgem,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::I915 => "i915",
            Self::Xe => "xe",
            Self::Amdgpu => "amdgpu",
            Self::Vgem => "vgem",
            Self::Udmabuf => "udmabuf",
            Self::Other(name) => name,
        })
    }
}

/// An extension of `DRM_IOCTL_I915_GEM_CREATE_EXT`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum I915Extension<'a> {
    /// The regions where the buffer may be, the best first.
    MemoryRegions(&'a [i915::drm_i915_gem_memory_class_instance]),
    /// The PAT entry with which the GPU accesses it.
    SetPat(u32),
}

/// One command. What the kernel answers goes into the mutable parts.
#[derive(Debug)]
pub(crate) enum Request<'a> {
    /// `DRM_IOCTL_GEM_CLOSE`: the handle.
    GemClose(u32),
    /// `DRM_IOCTL_PRIME_HANDLE_TO_FD`, readable and writable, closed on exec.
    PrimeExport {
        handle: u32,
        dma_buf: &'a mut Option<OwnedFd>,
    },
    /// `DRM_IOCTL_MODE_CREATE_DUMB`
    CreateDumb(&'a mut drm::drm_mode_create_dumb),
    /// `DRM_IOCTL_MODE_MAP_DUMB`
    MapDumb(&'a mut drm::drm_mode_map_dumb),
    /// `DRM_IOCTL_I915_GETPARAM`
    I915GetParam { param: u32, value: &'a mut i32 },
    /// `DRM_IOCTL_I915_QUERY` with one item, whose length comes back: it may be a negative error
    /// number. Without room for data the length that the answer needs is asked for.
    I915Query {
        id: u32,
        length: &'a mut i32,
        data: &'a mut [u8],
    },
    /// `DRM_IOCTL_I915_GEM_CREATE`
    I915GemCreate(&'a mut i915::drm_i915_gem_create),
    /// `DRM_IOCTL_I915_GEM_CREATE_EXT` with one extension.
    I915GemCreateExt {
        create: &'a mut i915::drm_i915_gem_create,
        flags: u32,
        extension: I915Extension<'a>,
    },
    /// `DRM_IOCTL_I915_GEM_SET_CACHING`
    I915SetCaching(i915::drm_i915_gem_caching),
    /// `DRM_IOCTL_I915_GEM_GET_CACHING`
    I915GetCaching(&'a mut i915::drm_i915_gem_caching),
    /// `DRM_IOCTL_I915_GEM_MMAP_OFFSET`
    I915MmapOffset {
        handle: u32,
        flags: u32,
        offset: &'a mut u64,
    },
    /// `DRM_IOCTL_XE_DEVICE_QUERY`. Without room for data the size that the answer needs is asked for.
    XeQuery {
        query: u32,
        size: &'a mut u32,
        data: &'a mut [u8],
    },
    /// `DRM_IOCTL_XE_GEM_CREATE`, without extensions.
    XeGemCreate(&'a mut xe::drm_xe_gem_create),
    /// `DRM_IOCTL_XE_GEM_MMAP_OFFSET`
    XeMmapOffset { handle: u32, offset: &'a mut u64 },
    /// `DRM_IOCTL_AMDGPU_INFO`: `AMDGPU_INFO_DEV_INFO`, of which only the beginning.
    AmdgpuDevice(&'a mut amdgpu::drm_amdgpu_info_device),
    /// `DRM_IOCTL_AMDGPU_GEM_CREATE`
    AmdgpuGemCreate {
        create: amdgpu::drm_amdgpu_gem_create_in,
        handle: &'a mut u32,
    },
    /// `DRM_IOCTL_AMDGPU_GEM_MMAP`
    AmdgpuGemMmap { handle: u32, offset: &'a mut u64 },
    /// `DRM_IOCTL_AMDGPU_GEM_OP`: `AMDGPU_GEM_OP_GET_GEM_CREATE_INFO`.
    AmdgpuCreateInfo {
        handle: u32,
        info: &'a mut amdgpu::drm_amdgpu_gem_create_in,
    },
    /// `UDMABUF_CREATE`, closed on exec.
    UdmabufCreate {
        memfd: BorrowedFd<'a>,
        offset: u64,
        size: u64,
        dma_buf: &'a mut Option<OwnedFd>,
    },
}

impl Request<'_> {
    /// The command's name in the kernel's headers.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::GemClose(_) => "DRM_IOCTL_GEM_CLOSE",
            Self::PrimeExport { .. } => "DRM_IOCTL_PRIME_HANDLE_TO_FD",
            Self::CreateDumb(_) => "DRM_IOCTL_MODE_CREATE_DUMB",
            Self::MapDumb(_) => "DRM_IOCTL_MODE_MAP_DUMB",
            Self::I915GetParam { .. } => "DRM_IOCTL_I915_GETPARAM",
            Self::I915Query { .. } => "DRM_IOCTL_I915_QUERY",
            Self::I915GemCreate(_) => "DRM_IOCTL_I915_GEM_CREATE",
            Self::I915GemCreateExt { .. } => "DRM_IOCTL_I915_GEM_CREATE_EXT",
            Self::I915SetCaching(_) => "DRM_IOCTL_I915_GEM_SET_CACHING",
            Self::I915GetCaching(_) => "DRM_IOCTL_I915_GEM_GET_CACHING",
            Self::I915MmapOffset { .. } => "DRM_IOCTL_I915_GEM_MMAP_OFFSET",
            Self::XeQuery { .. } => "DRM_IOCTL_XE_DEVICE_QUERY",
            Self::XeGemCreate(_) => "DRM_IOCTL_XE_GEM_CREATE",
            Self::XeMmapOffset { .. } => "DRM_IOCTL_XE_GEM_MMAP_OFFSET",
            Self::AmdgpuDevice(_) => "DRM_IOCTL_AMDGPU_INFO",
            Self::AmdgpuGemCreate { .. } => "DRM_IOCTL_AMDGPU_GEM_CREATE",
            Self::AmdgpuGemMmap { .. } => "DRM_IOCTL_AMDGPU_GEM_MMAP",
            Self::AmdgpuCreateInfo { .. } => "DRM_IOCTL_AMDGPU_GEM_OP",
            Self::UdmabufCreate { .. } => "UDMABUF_CREATE",
        }
    }

    /// Whether a node of this driver knows the command. The drivers' own commands share numbers:
    /// another driver would do something else with the same bytes.
    pub(crate) fn is_for(&self, driver: &Driver) -> bool {
        match self {
            Self::GemClose(_)
            | Self::PrimeExport { .. }
            | Self::CreateDumb(_)
            | Self::MapDumb(_) => *driver != Driver::Udmabuf,
            Self::I915GetParam { .. }
            | Self::I915Query { .. }
            | Self::I915GemCreate(_)
            | Self::I915GemCreateExt { .. }
            | Self::I915SetCaching(_)
            | Self::I915GetCaching(_)
            | Self::I915MmapOffset { .. } => *driver == Driver::I915,
            Self::XeQuery { .. } | Self::XeGemCreate(_) | Self::XeMmapOffset { .. } => {
                *driver == Driver::Xe
            }
            Self::AmdgpuDevice(_)
            | Self::AmdgpuGemCreate { .. }
            | Self::AmdgpuGemMmap { .. }
            | Self::AmdgpuCreateInfo { .. } => *driver == Driver::Amdgpu,
            Self::UdmabufCreate { .. } => *driver == Driver::Udmabuf,
        }
    }
}
