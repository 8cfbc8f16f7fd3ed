//! A picture in a dma-buf, which the display shows without a copy.
//!
//! No real GPU has run this yet: tests play the display and hand over files in memory.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use nosnoop_protocol::geometry::{Rect, Size};
use nosnoop_protocol::ids::ScanoutId;
use zerocopy::IntoBytes;

use super::wire::{DmabufScanout, DmabufScanout2, FD_Y_0_TOP, FEATURE_DMABUF2, request};

/// Rows without gaps and tiles (`DRM_FORMAT_MOD_LINEAR`, Linux' `drm_fourcc.h`).
const LINEAR: u64 = 0;
/// The driver knows how the pixels lie, and does not say (`DRM_FORMAT_MOD_INVALID`).
const UNSAID: u64 = 0x00ff_ffff_ffff_ffff;

/// A picture in one plane of a dma-buf, from its first byte on.
#[derive(Clone, Debug)]
pub struct DmaBuf {
    /// The buffer.
    pub fd: Arc<OwnedFd>,
    /// Pixels of the whole picture.
    pub size: Size,
    /// Bytes from row to row.
    pub stride: u32,
    /// `DRM_FORMAT_*`, Linux' `drm_fourcc.h`.
    pub fourcc: u32,
    /// `DRM_FORMAT_MOD_*`.
    pub modifier: u64,
    /// The row that comes first in memory is the upper one; else the lower one is, as OpenGL has it.
    pub y_0_top: bool,
}

impl DmaBuf {
    /// Whether a display that has agreed on these features can be told of it.
    pub(super) fn can_be_told(&self, features: u64) -> bool {
        features & FEATURE_DMABUF2 != 0 || [LINEAR, UNSAID].contains(&self.modifier)
    }
}

/// What of a dma-buf a screen shows.
pub(super) struct Shared {
    buffer: DmaBuf,
    announced: bool,
    /// What has changed since the display has shown it last.
    damage: Option<Rect>,
}

impl Shared {
    pub(super) fn new(buffer: DmaBuf) -> Self {
        Self {
            buffer,
            announced: false,
            damage: None,
        }
    }

    pub(super) fn buffer(&self) -> &DmaBuf {
        &self.buffer
    }

    /// The buffer, if the display has to be told of it.
    pub(super) fn take_announcement(&mut self) -> Option<DmaBuf> {
        let first = !std::mem::replace(&mut self.announced, true);
        first.then(|| self.buffer.clone())
    }

    pub(super) fn damaged(&mut self, damage: Rect) {
        self.damage = Some(self.damage.map_or(damage, |old| old.union(&damage)));
    }

    pub(super) fn has_damage(&self) -> bool {
        self.damage.is_some()
    }

    pub(super) fn take_damage(&mut self) -> Option<Rect> {
        self.damage.take()
    }
}

/// The request that has a display show the upper left part of a buffer, `shown` pixels of it.
pub(super) fn announcement(
    id: ScanoutId,
    shown: Size,
    buffer: &DmaBuf,
    features: u64,
) -> (u32, Vec<u8>) {
    let scanout = DmabufScanout {
        scanout_id: id.get(),
        x: 0,
        y: 0,
        width: shown.width,
        height: shown.height,
        fd_width: buffer.size.width,
        fd_height: buffer.size.height,
        fd_stride: buffer.stride,
        fd_flags: if buffer.y_0_top { FD_Y_0_TOP } else { 0 },
        fd_drm_fourcc: buffer.fourcc,
    };
    if features & FEATURE_DMABUF2 == 0 || buffer.modifier == UNSAID {
        return (request::DMABUF_SCANOUT, scanout.as_bytes().to_vec());
    }
    let modifier = buffer.modifier;
    let with_modifier = DmabufScanout2 { scanout, modifier };
    (request::DMABUF_SCANOUT2, with_modifier.as_bytes().to_vec())
}

/// The payload that has a display no longer show a buffer.
pub(super) fn end(id: ScanoutId) -> DmabufScanout {
    DmabufScanout {
        scanout_id: id.get(),
        ..DmabufScanout::default()
    }
}
