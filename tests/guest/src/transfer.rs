//! The virtio-gpu driver's own transfer call, for measuring commands without mode setting around
//! them (`DRM_IOCTL_VIRTGPU_TRANSFER_TO_HOST`, include/uapi/drm/virtgpu_drm.h).

use std::os::fd::AsFd;

use rustix::io;
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

/// `struct drm_virtgpu_3d_transfer_to_host` with its box written out.
#[repr(C)]
struct TransferToHost {
    handle: u32,
    x: u32,
    y: u32,
    z: u32,
    width: u32,
    height: u32,
    depth: u32,
    level: u32,
    offset: u32,
    stride: u32,
    layer_stride: u32,
}

const _: () = assert!(size_of::<TransferToHost>() == 44, "the kernel's layout");

const TRANSFER_TO_HOST: Opcode = opcode::read_write::<TransferToHost>(b'd', 0x47);

/// Queues one transfer of the buffer's upper left `width` x `height` pixels to the host; without
/// the 3D feature the driver sends TRANSFER_TO_HOST_2D. Returns when the command is in the queue,
/// or earlier space was waited for.
pub(crate) fn to_host(card: impl AsFd, handle: u32, width: u32, height: u32) -> io::Result<()> {
    let mut request = TransferToHost {
        handle,
        x: 0,
        y: 0,
        z: 0,
        width,
        height,
        depth: 1,
        level: 0,
        offset: 0,
        stride: 0,
        layer_stride: 0,
    };
    #[expect(unsafe_code, reason = "an ioctl that no crate wraps")]
    // SAFETY: the opcode is the kernel's for exactly this structure, whose layout is asserted
    // above; the kernel writes at most the structure and keeps no pointer to it.
    let call = unsafe { Updater::<TRANSFER_TO_HOST, _>::new(&mut request) };
    #[expect(unsafe_code, reason = "an ioctl that no crate wraps")]
    // SAFETY: the call changes no memory of this program but `request`, which outlives it.
    unsafe {
        ioctl(card, call)
    }
}
