//! `drm/drm.h` and `drm/drm_mode.h`, which it includes: what every DRM driver has.

use rustix::ioctl::opcode::{read_write, write};

super::structures! {
    /// Who drives the device. The addresses are of buffers with the lengths before them.
    drm_version [64] {
        version_major: i32,
        version_minor: i32,
        version_patchlevel: i32,
        _hole: u32,
        name_len: u64,
        name: u64,
        date_len: u64,
        date: u64,
        desc_len: u64,
        desc: u64,
    }
    /// Gives a handle back.
    drm_gem_close [8] {
        handle: u32,
        pad: u32,
    }
    /// Makes a dma-buf of a buffer.
    drm_prime_handle [12] {
        handle: u32,
        flags: u32,
        fd: i32,
    }
    /// A linear buffer for CPUs: `handle`, `pitch` and `size` are answers.
    drm_mode_create_dumb [32] {
        height: u32,
        width: u32,
        bpp: u32,
        flags: u32,
        handle: u32,
        pitch: u32,
        size: u64,
    }
    /// Where such a buffer is in the node's file: `offset` is the answer.
    drm_mode_map_dumb [16] {
        handle: u32,
        pad: u32,
        offset: u64,
    }
}

super::constants! {
    DRM_IOCTL_VERSION = read_write::<drm_version>(b'd', 0x00),
    DRM_IOCTL_GEM_CLOSE = write::<drm_gem_close>(b'd', 0x09),
    DRM_IOCTL_PRIME_HANDLE_TO_FD = read_write::<drm_prime_handle>(b'd', 0x2d),
    DRM_IOCTL_MODE_CREATE_DUMB = read_write::<drm_mode_create_dumb>(b'd', 0xb2),
    DRM_IOCTL_MODE_MAP_DUMB = read_write::<drm_mode_map_dumb>(b'd', 0xb3),
    /// First number of the drivers' own commands.
    DRM_COMMAND_BASE = 0x40,
    DRM_CLOEXEC = 0x80000,
    DRM_RDWR = 2,
}
