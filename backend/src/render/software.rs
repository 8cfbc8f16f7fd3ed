//! The software renderer: 2D resources as plain pictures in host memory.

use std::ops::Range;

use memmap2::MmapMut;
use nosnoop_protocol::format::Format;
use nosnoop_protocol::geometry::{Rect, Size};
use nosnoop_protocol::reply::GpuError;

/// Bytes in front of a picture's pixels. The guest's begin with a page. Where two areas lie at the same
/// place in their pages, glibc copies more than fits the caches some 7 % slower than a cache line beside.
const MARGIN: usize = 64;

/// A picture in host memory: rows without padding, four bytes per pixel, zeroed at first.
#[derive(Debug)]
pub struct Image {
    size: Size,
    format: Format,
    pixels: MmapMut,
}

impl Image {
    /// The bytes that a picture of `size` takes; `None` if that does not fit in memory at all.
    #[must_use]
    pub fn bytes(size: Size) -> Option<u64> {
        size.pixels()
            .checked_mul(u64::from(Format::BYTES_PER_PIXEL))
    }

    /// Makes a black, transparent picture. Its memory is taken from the system page by page as it
    /// is first written.
    ///
    /// # Errors
    /// `OutOfMemory` if the address space or the system cannot hold it; `InvalidParameter` if
    /// `size` is empty.
    pub fn new(size: Size, format: Format) -> Result<Self, GpuError> {
        if size.is_empty() {
            return Err(GpuError::InvalidParameter);
        }
        let pixels = Self::bytes(size)
            .and_then(|bytes| usize::try_from(bytes).ok()?.checked_add(MARGIN))
            .and_then(|bytes| MmapMut::map_anon(bytes).ok())
            .ok_or(GpuError::OutOfMemory)?;
        Ok(Self {
            size,
            format,
            pixels,
        })
    }

    /// Width and height in pixels.
    #[must_use]
    pub fn size(&self) -> Size {
        self.size
    }

    /// How the four bytes of a pixel are to be read.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// Bytes from the start of one row to the start of the next.
    #[must_use]
    pub fn stride(&self) -> u64 {
        u64::from(self.size.width).saturating_mul(u64::from(Format::BYTES_PER_PIXEL))
    }

    /// `width` pixels of row `y` from column `x`; `None` outside the picture.
    #[must_use]
    pub fn row(&self, x: u32, y: u32, width: u32) -> Option<&[u8]> {
        self.pixels.get(self.span(x, y, width)?)
    }

    /// Lets `fill` write the pixels of `rect`: it is called with a byte offset relative to the
    /// rectangle's first pixel, in a layout of this picture's stride, and the bytes to fill.
    /// Rows that touch each other in memory arrive as one piece.
    ///
    /// # Errors
    /// `InvalidParameter` if `rect` does not lie inside the picture (nothing is called then); else
    /// the first error of `fill`.
    pub fn fill(
        &mut self,
        rect: Rect,
        mut fill: impl FnMut(u64, &mut [u8]) -> Result<(), GpuError>,
    ) -> Result<(), GpuError> {
        if !rect.fits_in(self.size) {
            return Err(GpuError::InvalidParameter);
        }
        if rect.is_empty() {
            return Ok(());
        }
        let first = self.span(rect.x, rect.y, rect.width);
        let Range { start, end } = first.ok_or(GpuError::InvalidParameter)?;
        let row = end.saturating_sub(start);
        let bytes_per_row = self.stride();
        let stride = usize::try_from(bytes_per_row).map_err(|_| GpuError::InvalidParameter)?;
        let height = usize::try_from(rect.height).map_err(|_| GpuError::InvalidParameter)?;
        let (pieces, piece) = match row == stride {
            true => (1, stride.saturating_mul(height)),
            false => (height, row),
        };
        let pixels = self.pixels.get_mut(start..).unwrap_or_default();
        let mut offset = 0_u64;
        // A rectangle that is all of the rows is one chunk, any other one chunk a row.
        for chunk in pixels.chunks_mut(stride.max(piece)).take(pieces) {
            let bytes = chunk.get_mut(..piece).ok_or(GpuError::InvalidParameter)?;
            fill(offset, bytes)?;
            offset = offset.saturating_add(bytes_per_row);
        }
        Ok(())
    }

    /// Byte range in the mapping of `width` pixels at (`x`, `y`), inside one row.
    fn span(&self, x: u32, y: u32, width: u32) -> Option<Range<usize>> {
        let rect = Rect {
            x,
            y,
            width,
            height: 1,
        };
        if !rect.fits_in(self.size) {
            return None;
        }
        let pixel = u64::from(y)
            .checked_mul(u64::from(self.size.width))?
            .checked_add(u64::from(x))?;
        let start = pixel.checked_mul(u64::from(Format::BYTES_PER_PIXEL))?;
        let len = u64::from(width).checked_mul(u64::from(Format::BYTES_PER_PIXEL))?;
        let end = start.checked_add(len)?;
        let place = |at: u64| usize::try_from(at).ok()?.checked_add(MARGIN);
        Some(place(start)?..place(end)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size {
        width: 4,
        height: 3,
    };

    fn numbered(rect: Rect) -> Image {
        let mut image = Image::new(SIZE, Format::B8g8r8x8).unwrap();
        image
            .fill(rect, |offset, bytes| {
                for (byte, number) in bytes.iter_mut().zip(1..) {
                    let offset: u8 = offset.try_into().unwrap();
                    *byte = offset.wrapping_add(number);
                }
                Ok(())
            })
            .unwrap();
        image
    }

    #[test]
    fn whole_picture_is_filled_as_one_piece() {
        let image = numbered(Rect {
            x: 0,
            y: 0,
            width: 4,
            height: 3,
        });
        assert_eq!(image.row(0, 0, 1).unwrap(), [1, 2, 3, 4]);
        assert_eq!(image.row(3, 2, 1).unwrap(), [45, 46, 47, 48]);
    }

    #[test]
    fn pixels_lie_a_cache_line_into_their_page() {
        let image = Image::new(SIZE, Format::B8g8r8x8).unwrap();
        assert_eq!(image.row(0, 0, 1).unwrap().as_ptr().addr() % 4096, 64);
    }

    #[test]
    fn inner_rectangle_is_filled_row_by_row_at_the_pictures_stride() {
        let image = numbered(Rect {
            x: 1,
            y: 1,
            width: 2,
            height: 2,
        });
        assert_eq!(image.row(0, 0, 4).unwrap(), [0; 16]);
        assert_eq!(
            image.row(0, 1, 4).unwrap(),
            [0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0]
        );
        assert_eq!(image.row(1, 2, 1).unwrap(), [17, 18, 19, 20]);
    }

    #[test]
    fn rectangle_outside_the_picture_is_refused_before_anything_is_written() {
        let mut image = Image::new(SIZE, Format::B8g8r8x8).unwrap();
        for rect in [
            Rect {
                x: 1,
                y: 0,
                width: 4,
                height: 1,
            },
            Rect {
                x: 0,
                y: 3,
                width: 1,
                height: 1,
            },
            Rect {
                x: u32::MAX,
                y: u32::MAX,
                width: u32::MAX,
                height: u32::MAX,
            },
        ] {
            let result = image.fill(rect, |_, _| panic!("called for {rect:?}"));
            assert_eq!(result, Err(GpuError::InvalidParameter));
        }
        assert!(image.row(0, 3, 1).is_none());
        assert!(image.row(4, 0, 1).is_none());
    }

    #[test]
    fn a_picture_that_no_memory_can_hold_is_out_of_memory() {
        let size = Size {
            width: u32::MAX,
            height: u32::MAX,
        };
        assert_eq!(Image::bytes(size), None);
        assert_eq!(
            Image::new(size, Format::B8g8r8a8).unwrap_err(),
            GpuError::OutOfMemory
        );
        let empty = Size {
            width: 0,
            height: 8,
        };
        assert_eq!(
            Image::new(empty, Format::B8g8r8a8).unwrap_err(),
            GpuError::InvalidParameter
        );
    }
}
