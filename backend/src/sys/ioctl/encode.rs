//! [`Request`]s in the kernel's structures, and its answers back. Addresses in those structures are
//! made here and nowhere else.

use std::ffi::c_int;
use std::io;
use std::os::fd::AsRawFd;

use zerocopy::{FromBytes, Immutable, IntoBytes, transmute};

use super::fresh;
use crate::sys::request::{I915Extension, Request};
use crate::sys::uapi::{amdgpu, drm, i915, udmabuf, xe};

/// Sends a command: its number and its argument, as many bytes as the number says. The kernel may
/// write to the argument and to what its addresses point at.
pub(super) type Send<'a> = &'a mut dyn FnMut(u32, &mut [u8]) -> io::Result<c_int>;

/// Asks a DRM driver for its name and its version, major and minor.
///
/// As for addresses, see [`send_request`].
pub(super) fn ask_version(send: Send<'_>) -> io::Result<(String, (i32, i32))> {
    let mut name = [0_u8; 32];
    let mut version = drm::drm_version {
        name_len: name.len() as u64,
        name: address_mut(&mut name),
        ..Default::default()
    };
    call::<{ drm::DRM_IOCTL_VERSION }, _>(send, &mut version)?;
    // A longer name is cut: the length that comes back is the whole one's.
    let said = usize::try_from(version.name_len).unwrap_or(usize::MAX);
    let name = String::from_utf8_lossy(name.get(..said).unwrap_or(&name)).into_owned();
    Ok((name, (version.version_major, version.version_minor)))
}

/// Sends a request and takes the answer into it.
///
/// Each address in an argument is of a value that outlives the call, for writing if the kernel
/// writes there, with its length beside it or, for GETPARAM, GEM_OP and the i915 extensions, of the
/// very type that the command has there.
pub(super) fn send_request(request: &mut Request<'_>, send: Send<'_>) -> io::Result<()> {
    match request {
        Request::GemClose(handle) => {
            let mut close = drm::drm_gem_close {
                handle: *handle,
                ..Default::default()
            };
            call::<{ drm::DRM_IOCTL_GEM_CLOSE }, _>(send, &mut close)?;
        }
        Request::PrimeExport { handle, dma_buf } => {
            let mut export = drm::drm_prime_handle {
                handle: *handle,
                flags: drm::DRM_RDWR | drm::DRM_CLOEXEC,
                fd: -1,
            };
            call::<{ drm::DRM_IOCTL_PRIME_HANDLE_TO_FD }, _>(send, &mut export)?;
            **dma_buf = Some(fresh(export.fd)?);
        }
        Request::CreateDumb(create) => {
            call::<{ drm::DRM_IOCTL_MODE_CREATE_DUMB }, _>(send, *create)?;
        }
        Request::MapDumb(map) => {
            call::<{ drm::DRM_IOCTL_MODE_MAP_DUMB }, _>(send, *map)?;
        }
        Request::I915GetParam { .. }
        | Request::I915Query { .. }
        | Request::I915GemCreate(_)
        | Request::I915GemCreateExt { .. }
        | Request::I915SetCaching(_)
        | Request::I915GetCaching(_)
        | Request::I915MmapOffset { .. } => i915_request(request, send)?,
        Request::XeQuery { .. } | Request::XeGemCreate(_) | Request::XeMmapOffset { .. } => {
            xe_request(request, send)?;
        }
        Request::AmdgpuDevice(_)
        | Request::AmdgpuGemCreate { .. }
        | Request::AmdgpuGemMmap { .. }
        | Request::AmdgpuCreateInfo { .. } => amdgpu_request(request, send)?,
        Request::UdmabufCreate {
            memfd,
            offset,
            size,
            dma_buf,
        } => {
            let mut create = udmabuf::udmabuf_create {
                memfd: memfd.as_raw_fd().cast_unsigned(),
                flags: udmabuf::UDMABUF_FLAGS_CLOEXEC,
                offset: *offset,
                size: *size,
            };
            let number = call::<{ udmabuf::UDMABUF_CREATE }, _>(send, &mut create)?;
            **dma_buf = Some(fresh(number)?);
        }
    }
    Ok(())
}

fn i915_request(request: &mut Request<'_>, send: Send<'_>) -> io::Result<()> {
    match request {
        Request::I915GetParam { param, value } => {
            let mut get = i915::drm_i915_getparam {
                param: param.cast_signed(),
                value: address_mut(std::slice::from_mut(*value)),
                ..Default::default()
            };
            call::<{ i915::DRM_IOCTL_I915_GETPARAM }, _>(send, &mut get)?;
        }
        Request::I915Query { id, length, data } => {
            let mut items = [i915::drm_i915_query_item {
                query_id: (*id).into(),
                length: i32::try_from(data.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
                flags: 0,
                data_ptr: address_mut(data),
            }];
            let mut query = i915::drm_i915_query {
                num_items: 1,
                flags: 0,
                items_ptr: address_mut(&mut items),
            };
            call::<{ i915::DRM_IOCTL_I915_QUERY }, _>(send, &mut query)?;
            let [item] = items;
            **length = item.length;
        }
        Request::I915GemCreate(create) => {
            call::<{ i915::DRM_IOCTL_I915_GEM_CREATE }, _>(send, *create)?;
        }
        Request::I915GemCreateExt {
            create,
            flags,
            extension,
        } => {
            let (regions, pat);
            let extensions = match extension {
                I915Extension::MemoryRegions(list) => {
                    regions = [i915::drm_i915_gem_create_ext_memory_regions {
                        base: extension_base(i915::I915_GEM_CREATE_EXT_MEMORY_REGIONS),
                        num_regions: u32::try_from(list.len())
                            .map_err(|_| io::ErrorKind::InvalidInput)?,
                        regions: address(list),
                        ..Default::default()
                    }];
                    address(&regions)
                }
                I915Extension::SetPat(index) => {
                    pat = [i915::drm_i915_gem_create_ext_set_pat {
                        base: extension_base(i915::I915_GEM_CREATE_EXT_SET_PAT),
                        pat_index: *index,
                        ..Default::default()
                    }];
                    address(&pat)
                }
            };
            let mut extended = i915::drm_i915_gem_create_ext {
                size: create.size,
                handle: create.handle,
                flags: *flags,
                extensions,
            };
            call::<{ i915::DRM_IOCTL_I915_GEM_CREATE_EXT }, _>(send, &mut extended)?;
            (create.size, create.handle) = (extended.size, extended.handle);
        }
        Request::I915SetCaching(caching) => {
            call::<{ i915::DRM_IOCTL_I915_GEM_SET_CACHING }, _>(send, caching)?;
        }
        Request::I915GetCaching(caching) => {
            call::<{ i915::DRM_IOCTL_I915_GEM_GET_CACHING }, _>(send, *caching)?;
        }
        Request::I915MmapOffset {
            handle,
            flags,
            offset,
        } => {
            let mut map = i915::drm_i915_gem_mmap_offset {
                handle: *handle,
                flags: (*flags).into(),
                ..Default::default()
            };
            call::<{ i915::DRM_IOCTL_I915_GEM_MMAP_OFFSET }, _>(send, &mut map)?;
            **offset = map.offset;
        }
        _ => return Err(io::Error::from_raw_os_error(libc::ENOTTY)),
    }
    Ok(())
}

fn extension_base(name: u32) -> i915::i915_user_extension {
    i915::i915_user_extension {
        name,
        ..Default::default()
    }
}

fn xe_request(request: &mut Request<'_>, send: Send<'_>) -> io::Result<()> {
    match request {
        Request::XeQuery { query, size, data } => {
            let mut ask = xe::drm_xe_device_query {
                query: *query,
                size: u32::try_from(data.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
                data: address_mut(data),
                ..Default::default()
            };
            call::<{ xe::DRM_IOCTL_XE_DEVICE_QUERY }, _>(send, &mut ask)?;
            **size = ask.size;
        }
        Request::XeGemCreate(create) => {
            create.extensions = 0;
            call::<{ xe::DRM_IOCTL_XE_GEM_CREATE }, _>(send, *create)?;
        }
        Request::XeMmapOffset { handle, offset } => {
            let mut map = xe::drm_xe_gem_mmap_offset {
                handle: *handle,
                ..Default::default()
            };
            call::<{ xe::DRM_IOCTL_XE_GEM_MMAP_OFFSET }, _>(send, &mut map)?;
            **offset = map.offset;
        }
        _ => return Err(io::Error::from_raw_os_error(libc::ENOTTY)),
    }
    Ok(())
}

fn amdgpu_request(request: &mut Request<'_>, send: Send<'_>) -> io::Result<()> {
    match request {
        Request::AmdgpuDevice(device) => {
            let device = std::slice::from_mut(*device);
            let mut info = amdgpu::drm_amdgpu_info {
                return_size: u32::try_from(size_of_val(device))
                    .map_err(|_| io::ErrorKind::InvalidInput)?,
                return_pointer: address_mut(device),
                query: amdgpu::AMDGPU_INFO_DEV_INFO,
                ..Default::default()
            };
            call::<{ amdgpu::DRM_IOCTL_AMDGPU_INFO }, _>(send, &mut info)?;
        }
        Request::AmdgpuGemCreate { create, handle } => {
            let mut both: [u64; 4] = transmute!(*create);
            call::<{ amdgpu::DRM_IOCTL_AMDGPU_GEM_CREATE }, _>(send, &mut both)?;
            let [first, ..] = both;
            let out: amdgpu::drm_amdgpu_gem_create_out = transmute!(first);
            **handle = out.handle;
        }
        Request::AmdgpuGemMmap { handle, offset } => {
            let ask = amdgpu::drm_amdgpu_gem_mmap_in {
                handle: *handle,
                ..Default::default()
            };
            let mut both: amdgpu::drm_amdgpu_gem_mmap_out = transmute!(ask);
            call::<{ amdgpu::DRM_IOCTL_AMDGPU_GEM_MMAP }, _>(send, &mut both)?;
            **offset = both.addr_ptr;
        }
        Request::AmdgpuCreateInfo { handle, info } => {
            let mut op = amdgpu::drm_amdgpu_gem_op {
                handle: *handle,
                op: amdgpu::AMDGPU_GEM_OP_GET_GEM_CREATE_INFO,
                value: address_mut(std::slice::from_mut(*info)),
                ..Default::default()
            };
            call::<{ amdgpu::DRM_IOCTL_AMDGPU_GEM_OP }, _>(send, &mut op)?;
        }
        _ => return Err(io::Error::from_raw_os_error(libc::ENOTTY)),
    }
    Ok(())
}

/// Where something lies that the kernel reads, as its structures have it; 0 for nothing.
fn address<T: IntoBytes + Immutable>(values: &[T]) -> u64 {
    if values.is_empty() {
        return 0;
    }
    values.as_ptr().expose_provenance() as u64
}

/// Where something lies that the kernel writes, as its structures have it; 0 for nothing.
fn address_mut<T: IntoBytes + FromBytes>(values: &mut [T]) -> u64 {
    if values.is_empty() {
        return 0;
    }
    values.as_mut_ptr().expose_provenance() as u64
}

/// Bytes of the argument that a command's number speaks of (`_IOC_SIZE`, asm-generic/ioctl.h; the
/// architectures with fewer bits for it have the same for sizes like these).
pub(super) const fn argument_size(number: u32) -> u32 {
    (number >> 16) & 0x1fff
}

/// One command with its argument.
fn call<const NUMBER: u32, T: FromBytes + IntoBytes>(
    send: Send<'_>,
    argument: &mut T,
) -> io::Result<c_int> {
    const { assert!(argument_size(NUMBER) as usize == size_of::<T>()) };
    send(NUMBER, argument.as_mut_bytes())
}
