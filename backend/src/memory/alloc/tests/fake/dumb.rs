//! drivers/gpu/drm/vgem with `drm_dumb_buffers.c`, and drivers/dma-buf/udmabuf.c.

use nosnoop_protocol::MapCache;
use rustix::fs::SealFlags;
use rustix::io::Errno;

use super::{Device, FakeNode, Lie, ObjectState, Snoops, State, Truth, file_of};
use crate::memory::kind::PageKinds;
use crate::sys::request::Request;

/// What a buffer of vgem is (`map_wc`).
pub(super) const TRUTH: Truth = Truth {
    host: MapCache::Wc,
    kinds: PageKinds::Ram,
    snoops: Snoops::NoDevice,
};

pub(super) fn vgem(
    node: &FakeNode,
    state: &mut State,
    request: &mut Request<'_>,
    render: bool,
) -> Result<(), Errno> {
    if render {
        // `drm_ioctl_permit`: not DRM_RENDER_ALLOW.
        return Err(Errno::ACCESS);
    }
    match request {
        Request::CreateDumb(create) => {
            // `drm_mode_create_dumb`, `drm_mode_size_dumb`: 32 bits for the size.
            if create.width == 0 || create.height == 0 || ![16, 32].contains(&create.bpp) {
                return Err(Errno::INVAL);
            }
            let pitch = create.width.checked_mul(create.bpp / 8);
            let size = pitch.and_then(|pitch| pitch.checked_mul(create.height));
            let size = size.and_then(|size| size.checked_next_multiple_of(4096));
            let size = node.size(size.ok_or(Errno::INVAL)?.into(), 4096);
            create.pitch = pitch.ok_or(Errno::INVAL)?;
            create.size = size;
            create.handle = node.insert(state, size, ObjectState::Dumb);
            Ok(())
        }
        Request::MapDumb(map) => {
            let size = state.object(node.file, map.handle)?.size;
            map.offset = node.place(state, size, TRUTH);
            Ok(())
        }
        _ => Err(Errno::INVAL),
    }
}

pub(super) fn udmabuf(
    device: &Device,
    state: &mut State,
    request: &mut Request<'_>,
    limit: u64,
) -> Result<(), Errno> {
    let Request::UdmabufCreate {
        memfd,
        offset,
        size,
        dma_buf,
    } = request
    else {
        return Err(Errno::NOTTY);
    };
    if !offset.is_multiple_of(4096) || !size.is_multiple_of(4096) || *size == 0 || *size > limit {
        return Err(Errno::INVAL);
    }
    // `check_memfd_seals`
    let seals = rustix::fs::fcntl_get_seals(*memfd).map_err(|_| Errno::BADFD)?;
    if !seals.contains(SealFlags::SHRINK) || seals.contains(SealFlags::WRITE) {
        return Err(Errno::INVAL);
    }
    let has = u64::try_from(rustix::fs::fstat(*memfd)?.st_size).unwrap();
    if offset.checked_add(*size).is_none_or(|end| end > has) {
        return Err(Errno::INVAL);
    }
    let less = if device.lies(Lie::SmallDmaBuf) {
        4096
    } else {
        0
    };
    let fd = file_of(*size - less);
    let truth = Truth {
        host: MapCache::Cached,
        kinds: PageKinds::Ram,
        snoops: Snoops::NoDevice,
    };
    state.dma_bufs.insert(rustix::fs::fstat(&fd)?.st_ino, truth);
    **dma_buf = Some(fd);
    Ok(())
}
