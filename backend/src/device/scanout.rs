//! `SET_SCANOUT`, `SET_SCANOUT_BLOB` and `RESOURCE_FLUSH` (virtio 1.4, "GPU Device / Device
//! Operation: controlq").

use nosnoop_protocol::format::Format;
use nosnoop_protocol::geometry::{Rect, Size};
use nosnoop_protocol::ids::{MAX_SCANOUTS, ResourceId, ScanoutId};
use nosnoop_protocol::reply::{GpuError, Reply};

use super::State;
use super::quota::MAX_EDGE;
use super::resource::{Resource, Resources, Storage};
use super::two_d::last_byte_after;
use crate::GuestMemory;
use crate::display::{Display, DmaBuf};
use crate::guest::Ram;
use crate::planted::{Bug, planted};
use crate::render::software::Image;

/// What one output shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Scanout {
    resource: ResourceId,
    /// The part of the resource that is shown; never empty.
    rect: Rect,
    /// How a blob's bytes are to be read; `None` for a 2D resource, which knows itself.
    layout: Option<Layout>,
}

/// How a framebuffer lies in a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) format: Format,
    /// Bytes from row to row.
    pub(super) stride: u32,
    /// Where pixel (0, 0) of the framebuffer lies in the blob.
    pub(super) offset: u32,
}

/// A part of a framebuffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) rect: Rect,
    /// Of the framebuffer.
    pub(super) size: Size,
}

/// What every output shows.
#[derive(Debug, Default)]
pub(super) struct Scanouts {
    table: [Option<Scanout>; MAX_SCANOUTS],
}

impl Scanouts {
    /// Bytes that the display needs for the pictures of the scanouts.
    pub(super) fn screen_bytes(&self) -> u64 {
        self.table
            .iter()
            .map(screen_bytes)
            .fold(0, u64::saturating_add)
    }

    /// Disables every scanout that shows `resource`.
    pub(super) fn forget(
        &mut self,
        display: &Display,
        resource: ResourceId,
    ) -> Result<(), GpuError> {
        for (id, slot) in ScanoutId::all().zip(&mut self.table) {
            if slot.is_some_and(|scanout| scanout.resource == resource) {
                display.set_scanout(id, None)?;
                *slot = None;
            }
        }
        Ok(())
    }

    /// The scanouts that show `resource`.
    fn showing(&self, resource: ResourceId) -> impl Iterator<Item = (ScanoutId, Scanout)> {
        ScanoutId::all()
            .zip(&self.table)
            .filter_map(move |(id, slot)| match slot {
                Some(scanout) if scanout.resource == resource => Some((id, *scanout)),
                _ => None,
            })
    }

    /// What of a flushed rectangle each scanout shows: in the resource's coordinates, and in the
    /// scanout's.
    pub(super) fn damages(&self, resource: ResourceId, rect: Rect) -> Vec<(ScanoutId, Rect, Rect)> {
        let showing = self.showing(resource);
        let damaged = showing.filter_map(|(id, scanout)| {
            let (part, damage) = scanout.damage(rect)?;
            Some((id, part, damage))
        });
        damaged.collect()
    }

    pub(super) fn verify_invariants(&self, resources: &Resources) -> Result<(), String> {
        for (id, scanout) in ScanoutId::all().zip(self.table) {
            let Some(scanout) = scanout else { continue };
            let resource = resources
                .get(scanout.resource)
                .map_err(|_| format!("scanout {id} shows the missing {}", scanout.resource))?;
            let fits = match scanout.layout {
                None => {
                    picture_size(&resource.storage).is_some_and(|size| scanout.rect.fits_in(size))
                }
                Some(layout) => copyable_bytes(&resource.storage)
                    .zip(layout.end(scanout.rect))
                    .is_some_and(|(size, end)| end <= size),
            };
            if !is_showable(scanout.rect) || !fits {
                return Err(format!(
                    "scanout {id} does not fit its resource: {scanout:?}"
                ));
            }
        }
        Ok(())
    }
}

impl Scanout {
    /// What of a rectangle of the resource is shown: in the resource's coordinates, and in the
    /// scanout's.
    fn damage(&self, rect: Rect) -> Option<(Rect, Rect)> {
        let part = rect.intersect(&self.rect)?;
        let (mut x, mut y) = (
            part.x.saturating_sub(self.rect.x),
            part.y.saturating_sub(self.rect.y),
        );
        if planted(Bug::DamageMisplaced) {
            (x, y) = (0, 0);
        }
        Some((part, Rect { x, y, ..part }))
    }
}

impl Layout {
    /// Where the row of pixels at (`x`, `y`) starts in the blob.
    fn start(&self, x: u32, y: u32) -> Option<u64> {
        let offset = if planted(Bug::BlobOffsetIgnored) {
            0
        } else {
            self.offset
        };
        u64::from(self.stride)
            .checked_mul(u64::from(y))?
            .checked_add(u64::from(offset))?
            .checked_add(u64::from(x).checked_mul(u64::from(Format::BYTES_PER_PIXEL))?)
    }

    /// The first byte after the last pixel of `rect`.
    fn end(&self, rect: Rect) -> Option<u64> {
        let len = last_byte_after(rect.width, rect.height, u64::from(self.stride))?;
        self.start(rect.x, rect.y)?.checked_add(len)
    }
}

impl State {
    /// Shows a rectangle of a 2D resource, or of a 3D one that is a picture, on an output, or disables
    /// the output. The display gets the picture as `buffer` if that is given.
    ///
    /// # Errors
    /// `InvalidScanoutId` for an output that the device does not have; `InvalidResourceId`;
    /// `InvalidParameter` for a rectangle that is empty, larger than [`MAX_EDGE`] or outside the
    /// resource, or for a blob; `OutOfMemory` if the quota has no room for the output's picture.
    pub(super) fn set_scanout(
        &mut self,
        display: &Display,
        id: ScanoutId,
        rect: Rect,
        resource: Option<ResourceId>,
        buffer: Option<DmaBuf>,
    ) -> Result<Reply, GpuError> {
        check_scanout(display, id)?;
        let Some(resource) = resource else {
            if planted(Bug::DisableIgnored) {
                return Ok(Reply::OkNoData);
            }
            return self.show(display, id, None, None);
        };
        check_known(display, id)?;
        let size = picture_size(&self.resources.get(resource)?.storage);
        let size = size.ok_or(GpuError::InvalidParameter)?;
        let fits = rect.fits_in(size) || planted(Bug::ScanoutOutsideAccepted);
        if !is_showable(rect) || !fits {
            return Err(GpuError::InvalidParameter);
        }
        self.show(
            display,
            id,
            Some(Scanout {
                resource,
                rect,
                layout: None,
            }),
            buffer,
        )
    }

    /// Shows a rectangle of a framebuffer inside a blob on an output, or disables the output.
    ///
    /// # Errors
    /// As [`State::set_scanout`]; `InvalidParameter` also for rows that overlap (a stride below
    /// the width), for pixels beyond the blob's end, and for a blob in host memory that the guest
    /// does not map cached.
    pub(super) fn set_scanout_blob(
        &mut self,
        display: &Display,
        id: ScanoutId,
        part: Part,
        layout: Layout,
        resource: Option<ResourceId>,
    ) -> Result<Reply, GpuError> {
        check_scanout(display, id)?;
        let Some(resource) = resource else {
            return self.show(display, id, None, None);
        };
        check_known(display, id)?;
        let storage = &self.resources.get(resource)?.storage;
        let size = copyable_bytes(storage).ok_or(GpuError::InvalidParameter)?;
        let Part {
            rect,
            size: picture,
        } = part;
        let row = u64::from(picture.width).saturating_mul(u64::from(Format::BYTES_PER_PIXEL));
        if !is_showable(rect)
            || !rect.fits_in(picture)
            || u64::from(layout.stride) < row
            || layout.end(rect).is_none_or(|end| end > size)
        {
            return Err(GpuError::InvalidParameter);
        }
        let layout = if planted(Bug::BlobFormatIgnored) {
            let format = Format::B8g8r8x8;
            Layout { format, ..layout }
        } else if planted(Bug::BlobStrideIgnored) {
            let stride = u32::try_from(row).unwrap_or(layout.stride);
            Layout { stride, ..layout }
        } else {
            layout
        };
        self.show(
            display,
            id,
            Some(Scanout {
                resource,
                rect,
                layout: Some(layout),
            }),
            None,
        )
    }

    /// Puts a checked scanout into effect.
    fn show(
        &mut self,
        display: &Display,
        id: ScanoutId,
        scanout: Option<Scanout>,
        buffer: Option<DmaBuf>,
    ) -> Result<Reply, GpuError> {
        let before = self.scanouts.table.get(id.index()).map_or(0, screen_bytes);
        self.check_hostmem(screen_bytes(&scanout), before)?;
        display.set_scanout_to(id, scanout.map(|scanout| scanout.rect.size()), buffer)?;
        if let Some(slot) = self.scanouts.table.get_mut(id.index()) {
            *slot = scanout;
        }
        Ok(Reply::OkNoData)
    }

    /// Shows the flushed rectangle, in the resource's coordinates, on every output that shows a
    /// part of it.
    ///
    /// # Errors
    /// `InvalidResourceId`; `InvalidParameter` if the rectangle leaves a 2D resource; `Unspec` if a
    /// shown blob has no usable guest memory.
    pub(super) fn flush(
        &mut self,
        display: &Display,
        id: ResourceId,
        rect: Rect,
        memory: &GuestMemory,
    ) -> Result<Reply, GpuError> {
        let ram = Ram::new(memory);
        let resource = self.resources.get(id)?;
        if let Storage::Image(image) = &resource.storage
            && !rect.fits_in(image.size())
        {
            return Err(GpuError::InvalidParameter);
        }
        for (scanout_id, scanout) in self.scanouts.showing(id) {
            let Some((part, damage)) = scanout.damage(rect) else {
                continue;
            };
            let source = Source {
                resource,
                scanout,
                width: part.width,
                memory: &ram,
            };
            display.update(scanout_id, damage, |y, xrgb| {
                if planted(Bug::ScanoutOriginIgnored) {
                    return source.read_row(damage.x, y, &mut self.row, xrgb);
                }
                source.read_row(
                    part.x,
                    y.saturating_add(scanout.rect.y),
                    &mut self.row,
                    xrgb,
                )
            })?;
        }
        Ok(Reply::OkNoData)
    }
}

/// Where the pixels of a flush come from.
struct Source<'a> {
    resource: &'a Resource,
    scanout: Scanout,
    /// Pixels of each row.
    width: u32,
    memory: &'a Ram<'a>,
}

impl Source<'_> {
    /// Writes pixels from (`x`, `y`) of the resource on as x8r8g8b8 into `xrgb`; `scratch` is room
    /// for the guest's bytes where they need converting.
    fn read_row(
        &self,
        x: u32,
        y: u32,
        scratch: &mut Vec<u8>,
        xrgb: &mut [u8],
    ) -> Result<(), GpuError> {
        match (&self.resource.storage, self.scanout.layout) {
            (Storage::Image(image), _) => {
                let row = image.row(x, y, self.width).ok_or(GpuError::Unspec)?;
                image.format().to_xrgb_le(row, xrgb);
                if planted(Bug::RedBlueSwapped) && image.format() == Format::R8g8b8x8 {
                    for pixel in xrgb.as_chunks_mut::<4>().0 {
                        let [blue, green, red, x] = *pixel;
                        *pixel = [red, green, blue, x];
                    }
                }
            }
            (Storage::GuestBlob { .. }, Some(layout)) => {
                let backing = self.resource.backing.as_ref().ok_or(GpuError::Unspec)?;
                let start = layout.start(x, y).ok_or(GpuError::Unspec)?;
                scratch.resize(xrgb.len(), 0);
                backing.read(self.memory, start, scratch)?;
                layout.format.to_xrgb_le(scratch, xrgb);
            }
            (Storage::HostBlob(blob), Some(layout)) => {
                let start = layout.start(x, y).ok_or(GpuError::Unspec)?;
                scratch.resize(xrgb.len(), 0);
                let read = blob.memory().read(start, scratch);
                read.map_err(|_| GpuError::Unspec)?;
                layout.format.to_xrgb_le(scratch, xrgb);
            }
            // The renderer's are read back; see `Device::flush`.
            (Storage::Rendered(_), _)
            | (Storage::GuestBlob { .. } | Storage::HostBlob(_), None) => {
                return Err(GpuError::Unspec);
            }
        }
        Ok(())
    }
}

/// How large a blob is whose pixels can be copied to a display; `None` for what is no such blob.
///
/// Host memory is copied only where the host's mapping of it agrees with the guest's.
fn copyable_bytes(storage: &Storage) -> Option<u64> {
    match storage {
        Storage::GuestBlob { size } => Some(*size),
        Storage::HostBlob(blob) => {
            let memory = blob.memory();
            memory.is_readable().then(|| memory.memory().len())
        }
        Storage::Image(_) | Storage::Rendered(_) => None,
    }
}

/// The size of what knows itself how its pixels are to be read; `None` for anything else.
fn picture_size(storage: &Storage) -> Option<Size> {
    match storage {
        Storage::Image(image) => Some(image.size()),
        Storage::Rendered(rendered) => rendered.picture().map(|(size, _)| size),
        Storage::GuestBlob { .. } | Storage::HostBlob(_) => None,
    }
}

fn is_showable(rect: Rect) -> bool {
    !rect.is_empty() && rect.width <= MAX_EDGE && rect.height <= MAX_EDGE
}

fn screen_bytes(scanout: &Option<Scanout>) -> u64 {
    scanout.map_or(0, |scanout| {
        Image::bytes(scanout.rect.size()).unwrap_or(u64::MAX)
    })
}

/// # Errors
/// `InvalidScanoutId` for an output that the device does not have.
pub(super) fn check_scanout(display: &Display, scanout: ScanoutId) -> Result<(), GpuError> {
    if display.has_output(scanout) {
        Ok(())
    } else {
        Err(GpuError::InvalidScanoutId)
    }
}

/// For showing something the output must be known, from the options or the display's answers: one
/// that is off is not.
///
/// # Errors
/// `InvalidScanoutId`.
fn check_known(display: &Display, scanout: ScanoutId) -> Result<(), GpuError> {
    if scanout.index() < display.outputs() {
        Ok(())
    } else {
        Err(GpuError::InvalidScanoutId)
    }
}
