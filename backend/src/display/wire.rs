//! Messages of the display socket, as QEMU's docs/interop/vhost-user-gpu.rst lays them out.
//!
//! All numbers are in the byte order of the machine; only the virtio structs inside of two replies
//! are little-endian. A message is a [`Header`] and a payload of `size` bytes.

use nosnoop_protocol::edid::Edid;
use nosnoop_protocol::geometry::{Rect, Size};
use nosnoop_protocol::ids::ScanoutId;
use nosnoop_protocol::reply::{DisplayInfo, DisplayMode};
use nosnoop_protocol::wire::{VirtioGpuCtrlHdr, VirtioGpuRespDisplayInfo, VirtioGpuRespEdid, resp};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::CURSOR_BYTES;

/// Request numbers: `VHOST_USER_GPU_*`.
pub(super) mod request {
    pub(crate) const GET_PROTOCOL_FEATURES: u32 = 1;
    pub(crate) const SET_PROTOCOL_FEATURES: u32 = 2;
    pub(crate) const GET_DISPLAY_INFO: u32 = 3;
    pub(crate) const CURSOR_POS: u32 = 4;
    pub(crate) const CURSOR_POS_HIDE: u32 = 5;
    pub(crate) const CURSOR_UPDATE: u32 = 6;
    pub(crate) const SCANOUT: u32 = 7;
    pub(crate) const UPDATE: u32 = 8;
    pub(crate) const DMABUF_SCANOUT: u32 = 9;
    pub(crate) const DMABUF_UPDATE: u32 = 10;
    pub(crate) const GET_EDID: u32 = 11;
    pub(crate) const DMABUF_SCANOUT2: u32 = 12;
}

/// `VHOST_USER_GPU_MSG_FLAG_REPLY`: set in the header of each answer.
pub(super) const FLAG_REPLY: u32 = 0x4;
/// Mask of `VHOST_USER_GPU_PROTOCOL_F_EDID` (bit 0).
pub(super) const FEATURE_EDID: u64 = 1 << 0;
/// Mask of `VHOST_USER_GPU_PROTOCOL_F_DMABUF2` (bit 1).
pub(super) const FEATURE_DMABUF2: u64 = 1 << 1;

/// Bytes of one pixel of `UPDATE`: x8r8g8b8.
pub(super) const PIXEL: usize = 4;
/// What each message begins with.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(super) struct Header {
    pub(super) request: u32,
    pub(super) flags: u32,
    /// Bytes that follow.
    pub(super) size: u32,
}

/// `VhostUserGpuCursorPos`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(super) struct CursorPos {
    pub(super) scanout_id: u32,
    pub(super) x: u32,
    pub(super) y: u32,
}

/// `VhostUserGpuCursorUpdate` up to its pixels.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(super) struct CursorUpdate {
    pub(super) pos: CursorPos,
    pub(super) hot_x: u32,
    pub(super) hot_y: u32,
}

/// `VhostUserGpuScanout`; 0 x 0 disables.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(super) struct Scanout {
    pub(super) scanout_id: u32,
    pub(super) width: u32,
    pub(super) height: u32,
}

impl Scanout {
    pub(super) fn new(id: ScanoutId, size: Option<Size>) -> Self {
        let (width, height) = size.map_or((0, 0), |size| (size.width, size.height));
        Self {
            scanout_id: id.get(),
            width,
            height,
        }
    }
}

/// `VhostUserGpuUpdate` up to its pixels.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(super) struct Update {
    pub(super) scanout_id: u32,
    pub(super) x: u32,
    pub(super) y: u32,
    pub(super) width: u32,
    pub(super) height: u32,
}

impl Update {
    pub(super) fn new(id: ScanoutId, rect: Rect) -> Self {
        let Rect {
            x,
            y,
            width,
            height,
        } = rect;
        Self {
            scanout_id: id.get(),
            x,
            y,
            width,
            height,
        }
    }
}

/// `VhostUserGpuDMABUFScanout`; 0 x 0 without a descriptor ends it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(super) struct DmabufScanout {
    pub(super) scanout_id: u32,
    /// The part of the buffer that is shown.
    pub(super) x: u32,
    pub(super) y: u32,
    pub(super) width: u32,
    pub(super) height: u32,
    /// The buffer, in pixels.
    pub(super) fd_width: u32,
    pub(super) fd_height: u32,
    /// Bytes from row to row.
    pub(super) fd_stride: u32,
    /// [`FD_Y_0_TOP`] or 0.
    pub(super) fd_flags: u32,
    /// `DRM_FORMAT_*`.
    pub(super) fd_drm_fourcc: u32,
}

/// The row of a buffer that comes first in memory is its upper one. QEMU takes
/// `VIRTIO_GPU_RESOURCE_FLAG_Y_0_TOP` here.
pub(super) const FD_Y_0_TOP: u32 = 1 << 0;

/// `VhostUserGpuDMABUFScanout2`: the same, and how the buffer's pixels are laid out.
#[repr(C, packed)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(super) struct DmabufScanout2 {
    pub(super) scanout: DmabufScanout,
    /// `DRM_FORMAT_MOD_*`.
    pub(super) modifier: u64,
}

/// Payload of the reply to `DMABUF_UPDATE`.
pub(super) const DMABUF_UPDATE_REPLY: usize = 0;
/// Payload of the reply to `GET_PROTOCOL_FEATURES`.
pub(super) const FEATURES_REPLY: usize = size_of::<u64>();
/// Payload of the reply to `GET_DISPLAY_INFO`: `struct virtio_gpu_resp_display_info`.
pub(super) const DISPLAY_INFO_REPLY: usize = size_of::<VirtioGpuRespDisplayInfo>();
/// Payload of the reply to `GET_EDID`: `struct virtio_gpu_resp_edid`.
pub(super) const EDID_REPLY: usize = size_of::<VirtioGpuRespEdid>();
/// The largest reply there is; one that claims more is refused before a byte of it is read.
pub(super) const MAX_REPLY: usize = EDID_REPLY;

/// The largest message without the pixels of an `UPDATE`.
pub(super) const MAX_HEAD: usize = size_of::<Header>() + size_of::<CursorUpdate>() + CURSOR_BYTES;

const _: () = assert!(size_of::<Header>() == 12);
const _: () = assert!(size_of::<CursorPos>() == 12);
const _: () = assert!(size_of::<CursorUpdate>() == 20);
const _: () = assert!(size_of::<Scanout>() == 12);
const _: () = assert!(size_of::<Update>() == 20);
const _: () = assert!(size_of::<DmabufScanout>() == 40);
const _: () = assert!(size_of::<DmabufScanout2>() == 48);
const _: () = assert!(DISPLAY_INFO_REPLY == 408);
const _: () = assert!(EDID_REPLY == 1056);

/// The payload of the reply to `GET_DISPLAY_INFO`; `None` for an error.
pub(super) fn display_info(payload: &[u8]) -> Option<DisplayInfo> {
    let reply = VirtioGpuRespDisplayInfo::ref_from_bytes(payload).ok()?;
    if !is_answer(&reply.hdr, resp::OK_DISPLAY_INFO) {
        return None;
    }
    let modes = reply.pmodes.map(|mode| DisplayMode {
        rect: mode.r.into(),
        enabled: mode.enabled.get() != 0,
        flags: mode.flags.get(),
    });
    Some(DisplayInfo { modes })
}

/// The payload of the reply to `GET_EDID`; `None` for an error or an EDID of impossible size.
pub(super) fn edid(payload: &[u8]) -> Option<Edid> {
    let reply = VirtioGpuRespEdid::ref_from_bytes(payload).ok()?;
    if !is_answer(&reply.hdr, resp::OK_EDID) {
        return None;
    }
    let size = usize::try_from(reply.size.get()).ok()?;
    Edid::from_bytes(reply.edid.get(..size)?)
}

/// The virtio header says little here: the message around it has told what it is. A front-end that
/// leaves it empty is believed.
fn is_answer(header: &VirtioGpuCtrlHdr, ok: u32) -> bool {
    [0, ok].contains(&header.r#type.get())
}
