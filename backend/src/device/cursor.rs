//! `UPDATE_CURSOR` and `MOVE_CURSOR` (virtio 1.4, "GPU Device / Device Operation: cursorq").

use nosnoop_protocol::format::Format;
use nosnoop_protocol::geometry::{Rect, Size};
use nosnoop_protocol::ids::{ResourceId, ScanoutId};
use nosnoop_protocol::reply::{GpuError, Reply};

use super::resource::Storage;
use super::scanout::check_scanout;
use super::{Device, State};
use crate::GuestMemory;
use crate::display::Display;
use crate::guest::Ram;
use crate::planted::{Bug, planted};

/// Width and height of a cursor picture; the specification allows no other.
const EDGE: u32 = 64;
const SIZE: Size = Size::new(EDGE, EDGE);
/// Bytes of one row of a cursor picture.
const ROW: usize = 64 * 4;
/// Bytes of a cursor picture.
const BYTES: usize = 64 * ROW;

/// Where a cursor is to be and where its tip is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) scanout: ScanoutId,
    /// x and y in the scanout; drivers pass "negative" places as large numbers.
    pub(super) position: (u32, u32),
    /// x and y in the cursor picture.
    pub(super) hotspot: (u32, u32),
}

/// # Errors
/// `InvalidScanoutId` for an output that the device does not have.
pub(super) fn move_cursor(
    display: &Display,
    scanout: ScanoutId,
    (x, y): (u32, u32),
) -> Result<Reply, GpuError> {
    check_scanout(display, scanout)?;
    display.cursor_move(scanout, x, y);
    Ok(Reply::OkNoData)
}

impl Device {
    /// Shows the resource as cursor, or hides the cursor if there is none.
    ///
    /// # Errors
    /// `InvalidScanoutId`, `InvalidResourceId`; `InvalidParameter` for a picture that is not
    /// 64 x 64 or a blob too small for one; `Unspec` for a blob without usable guest memory, or if the
    /// renderer does not give the pixels.
    pub(super) fn update_cursor(
        &self,
        shape: Shape,
        resource: Option<ResourceId>,
        memory: &GuestMemory,
    ) -> Result<Reply, GpuError> {
        let Shape {
            scanout,
            position: (x, y),
            hotspot: (hot_x, hot_y),
        } = shape;
        let display = &self.display;
        check_scanout(display, scanout)?;
        let Some(id) = resource else {
            if planted(Bug::HideIgnored) {
                return Ok(Reply::OkNoData);
            }
            display.cursor_hide(scanout, x, y);
            return Ok(Reply::OkNoData);
        };
        let mut argb = [0; BYTES];
        let rendered = self.state().read_cursor(id, memory, &mut argb)?;
        if let Some(format) = rendered {
            let mut pixels = self.read_back(id, Rect::from_size(SIZE))?;
            for (y, into) in (0..EDGE).zip(argb.chunks_exact_mut(ROW)) {
                format.to_argb_le(pixels.row(y)?, into);
            }
        }
        if planted(Bug::CursorOpaque) {
            argb.iter_mut()
                .skip(3)
                .step_by(4)
                .for_each(|alpha| *alpha = 0xff);
        }
        let (hot_x, hot_y) = if planted(Bug::HotspotIgnored) {
            (0, 0)
        } else {
            (hot_x, hot_y)
        };
        display.cursor_update(scanout, x, y, hot_x, hot_y, &argb);
        Ok(Reply::OkNoData)
    }
}

impl State {
    /// Reads a cursor's pixels, or says in which format the renderer has them.
    fn read_cursor(
        &self,
        id: ResourceId,
        memory: &GuestMemory,
        argb: &mut [u8; BYTES],
    ) -> Result<Option<Format>, GpuError> {
        let resource = self.resources.get(id)?;
        match &resource.storage {
            Storage::Rendered(rendered) => {
                let (size, format) = rendered.picture().ok_or(GpuError::InvalidParameter)?;
                if size != SIZE {
                    return Err(GpuError::InvalidParameter);
                }
                return Ok(Some(format));
            }
            Storage::Image(image) => {
                if image.size() != SIZE {
                    return Err(GpuError::InvalidParameter);
                }
                for (y, into) in (0..EDGE).zip(argb.chunks_exact_mut(ROW)) {
                    let row = image.row(0, y, EDGE).ok_or(GpuError::InvalidParameter)?;
                    image.format().to_argb_le(row, into);
                }
            }
            // Drivers make cursors in guest memory; the specification knows no others.
            Storage::HostBlob(_) => return Err(GpuError::InvalidParameter),
            // A blob has no size in pixels and no format here: drivers pass 64 x 64 ARGB8888.
            Storage::GuestBlob { size } => {
                if *size < u64::try_from(BYTES).unwrap_or(u64::MAX) {
                    return Err(GpuError::InvalidParameter);
                }
                let backing = resource.backing.as_ref().ok_or(GpuError::Unspec)?;
                backing.read(&Ram::new(memory), 0, argb)?;
            }
        }
        Ok(None)
    }
}

const _: () = assert!(ROW == EDGE as usize * Format::BYTES_PER_PIXEL as usize);
