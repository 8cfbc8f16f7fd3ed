//! The shadow picture of one scanout and what of it the display has not been sent yet.

use memmap2::MmapMut;
use nosnoop_protocol::geometry::{Rect, Size};
use nosnoop_protocol::reply::GpuError;

use super::shared::{DmaBuf, Shared};
use super::wire::PIXEL;

/// Bytes of pixels in one `UPDATE`. Its size field has 32 bits and the front-end allocates the
/// message as a whole, so a picture beyond this (8192 x 8192) is sent in several messages.
const MAX_UPDATE: u64 = 256 << 20;

/// A scanout: off, or exactly what the guest has flushed to it so far.
pub(super) struct Screen {
    picture: Option<Picture>,
    /// What the display lacks, always within the picture.
    damage: Option<Rect>,
    /// The display knows the size (or that the scanout is off).
    announced: bool,
    /// Counts pictures, so that a message in progress notices that its picture went.
    generation: u64,
    /// What the display shows in place of the picture.
    shared: Option<Shared>,
    /// The display shows a dma-buf, this one or an earlier one.
    display_shares: bool,
    /// The picture lacks what was flushed while the display showed a dma-buf.
    stale: bool,
}

/// What the display has to be told of a screen before anything else.
pub(super) enum Announcement {
    /// It has this size, or is off.
    Size(Option<Size>),
    /// Its pixels, of this size, are in a dma-buf.
    Shared(Size, DmaBuf),
    /// They no longer are.
    NotShared,
}

struct Picture {
    size: Size,
    /// x8r8g8b8 little-endian without padding between rows.
    pixels: MmapMut,
}

/// A picture that was replaced; unmapping it takes time and is done without a lock.
#[must_use = "drop it after the lock of the screen is released"]
pub(super) struct Retired {
    _picture: Option<Picture>,
    _shared: Option<Shared>,
}

/// A part of the screen to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Update {
    pub(super) rect: Rect,
    pub(super) generation: u64,
    /// Bytes of pixels.
    pub(super) bytes: usize,
}

impl Screen {
    pub(super) const fn off() -> Self {
        Self {
            picture: None,
            damage: None,
            announced: true,
            generation: 0,
            shared: None,
            display_shares: false,
            stale: false,
        }
    }

    pub(super) fn size(&self) -> Option<Size> {
        self.picture.as_ref().map(|picture| picture.size)
    }

    pub(super) const fn generation(&self) -> u64 {
        self.generation
    }

    /// Gives the screen a black picture of `size`, or switches it off. The same size again keeps
    /// the picture: the guest shows another buffer and will flush it. With a dma-buf the display
    /// shows that in its place.
    ///
    /// # Errors
    /// `OutOfMemory`; the screen is as before then.
    pub(super) fn resize(
        &mut self,
        size: Option<Size>,
        buffer: Option<DmaBuf>,
    ) -> Result<Retired, GpuError> {
        let size = size.filter(|size| !size.is_empty());
        let same = size == self.size();
        let picture = match same {
            true => None,
            false => size.map(Picture::black).transpose()?,
        };
        let shared = size.and(buffer).map(Shared::new);
        let old = std::mem::replace(&mut self.shared, shared);
        self.stale = false;
        if same {
            return Ok(Retired {
                _picture: None,
                _shared: old,
            });
        }
        let retired = Retired {
            _picture: std::mem::replace(&mut self.picture, picture),
            _shared: old,
        };
        self.damage = None;
        self.announced = false;
        self.generation = self.generation.wrapping_add(1);
        Ok(retired)
    }

    /// Notes what the guest has flushed. `None` if the display finds that in a dma-buf; else what is to
    /// be drawn here: the whole screen, where the picture lacks more. `features` are what the display has
    /// agreed on, `None` where it is not there.
    pub(super) fn flushed(&mut self, damage: Rect, features: Option<u64>) -> Option<Rect> {
        let told = |shared: &Shared| features.is_some_and(|it| shared.buffer().can_be_told(it));
        if let Some(shared) = self.shared.as_mut().filter(|shared| told(shared)) {
            shared.damaged(damage);
            return None;
        }
        self.stop_sharing();
        match std::mem::take(&mut self.stale) {
            true => self.size().map(Rect::from_size),
            false => Some(damage),
        }
    }

    fn stop_sharing(&mut self) {
        if self.shared.take().is_some() {
            self.stale = true;
        }
    }

    /// Whether the display is to show a dma-buf.
    pub(super) fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// Has `row` fill each row of `damage`, from top to bottom. Rows that were filled before an
    /// error are sent all the same: the display shall show what the shadow holds.
    ///
    /// Does nothing if `damage` is not within the screen.
    pub(super) fn draw<E>(
        &mut self,
        damage: Rect,
        mut row: impl FnMut(u32, &mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(picture) = self.picture.as_mut() else {
            return Ok(());
        };
        if damage.is_empty() || !damage.fits_in(picture.size) {
            return Ok(());
        }
        let mut result = Ok(());
        let rows = (0..damage.height).map(|line| damage.y.saturating_add(line));
        for (y, pixels) in rows.zip(picture.rows_mut(damage)) {
            result = row(y, pixels);
            if result.is_err() {
                break;
            }
        }
        self.damage = Some(self.damage.map_or(damage, |old| old.union(&damage)));
        result
    }

    /// A new display is there: it has to be told everything. What an earlier one found in a dma-buf it
    /// lacks until the guest's next flush.
    pub(super) fn forget_display(&mut self) {
        self.stop_sharing();
        self.display_shares = false;
        self.announced = self.picture.is_none();
        self.damage = self.size().map(Rect::from_size);
    }

    /// What the display has to be told before anything else.
    pub(super) fn take_announcement(&mut self) -> Option<Announcement> {
        if let (Some(picture), Some(shared)) = (&self.picture, &mut self.shared) {
            let buffer = shared.take_announcement()?;
            self.display_shares = true;
            return Some(Announcement::Shared(picture.size, buffer));
        }
        if std::mem::take(&mut self.display_shares) {
            self.announced = false;
            self.damage = self.size().map(Rect::from_size);
            return Some(Announcement::NotShared);
        }
        if self.announced {
            return None;
        }
        self.announced = true;
        Some(Announcement::Size(self.size()))
    }

    /// Whether a dma-buf has changed since the display was told.
    pub(super) fn has_shared_damage(&self) -> bool {
        self.shared.as_ref().is_some_and(Shared::has_damage)
    }

    /// What of a dma-buf the display has to show anew.
    pub(super) fn take_shared_damage(&mut self) -> Option<Rect> {
        self.shared.as_mut()?.take_damage()
    }

    /// What has to be sent next; nothing before
    /// [`take_announcement`](Self::take_announcement): the rectangle is in the announced size.
    pub(super) fn take_update(&mut self) -> Option<Update> {
        if !self.announced || self.is_shared() {
            return None;
        }
        let damage = self.damage.take()?;
        let row = bytes_of_row(damage.width);
        // A row has at most 2^34 bytes as a number, but a mapped one has far fewer.
        let rows = MAX_UPDATE.checked_div(row).unwrap_or(1).max(1);
        let height = damage.height.min(u32::try_from(rows).unwrap_or(u32::MAX));
        let rect = Rect { height, ..damage };
        let left = damage.height.saturating_sub(height);
        if left > 0 {
            let y = damage.y.saturating_add(height);
            self.damage = Some(Rect {
                y,
                height: left,
                ..damage
            });
        }
        let bytes = usize::try_from(row.saturating_mul(u64::from(height))).ok()?;
        Some(Update {
            rect,
            generation: self.generation,
            bytes,
        })
    }

    /// The bytes of `rect`, row by row and without its first `skip` bytes; in one piece where it
    /// is as wide as the screen.
    pub(super) fn pieces(&self, rect: Rect, skip: usize) -> impl Iterator<Item = &[u8]> {
        self.picture
            .iter()
            .flat_map(move |picture| picture.pieces(rect, skip))
    }

    /// Copies the picture out, as rows of red, green, blue; `None` for a screen that is off.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub(super) fn to_rgb(&self) -> Result<Option<(Size, Vec<u8>)>, GpuError> {
        let Some(picture) = &self.picture else {
            return Ok(None);
        };
        let pixels = picture.pixels.len() / PIXEL;
        let mut rgb = Vec::new();
        rgb.try_reserve_exact(pixels.saturating_mul(3))
            .map_err(|_| GpuError::OutOfMemory)?;
        for pixel in picture.pixels.chunks_exact(PIXEL) {
            if let [blue, green, red, _] = pixel {
                rgb.extend_from_slice(&[*red, *green, *blue]);
            }
        }
        Ok(Some((picture.size, rgb)))
    }
}

impl Picture {
    /// Memory is taken from the system as it is drawn on, and failing to get it is an error here
    /// where a `Vec` would end the process.
    fn black(size: Size) -> Result<Self, GpuError> {
        let bytes = bytes_of_row(size.width).saturating_mul(u64::from(size.height));
        let bytes = usize::try_from(bytes).map_err(|_| GpuError::OutOfMemory)?;
        let pixels = MmapMut::map_anon(bytes).map_err(|_| GpuError::OutOfMemory)?;
        Ok(Self { size, pixels })
    }

    fn rows_mut(&mut self, rect: Rect) -> impl Iterator<Item = &mut [u8]> {
        let (start, stride, row) = self.layout(rect);
        let rows = self
            .pixels
            .get_mut(start..)
            .unwrap_or_default()
            .chunks_mut(stride);
        rows.filter_map(move |chunk| chunk.get_mut(..row))
    }

    fn pieces(&self, rect: Rect, skip: usize) -> impl Iterator<Item = &[u8]> {
        let (start, stride, row) = self.layout(rect);
        let height = usize::try_from(rect.height).unwrap_or(usize::MAX);
        let (stride, row, pieces) = if row == stride {
            let whole = stride.saturating_mul(height);
            (whole, whole, 1)
        } else {
            (stride, row, height)
        };
        let first = skip.checked_div(row).unwrap_or(0);
        let start = start.saturating_add(first.saturating_mul(stride));
        let mut cut = skip.checked_rem(row).unwrap_or(0);
        let chunks = self
            .pixels
            .get(start..)
            .unwrap_or_default()
            .chunks(stride.max(1));
        chunks
            .take(pieces.saturating_sub(first))
            .filter_map(move |chunk| chunk.get(std::mem::take(&mut cut)..row))
    }

    /// Byte of the first pixel of `rect`, bytes from row to row, bytes of a row of `rect`.
    fn layout(&self, rect: Rect) -> (usize, usize, usize) {
        let stride = bytes_of_row(self.size.width);
        let start = stride
            .saturating_mul(u64::from(rect.y))
            .saturating_add(bytes_of_row(rect.x));
        let to_usize = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        (
            to_usize(start),
            to_usize(stride).max(1),
            to_usize(bytes_of_row(rect.width)),
        )
    }
}

fn bytes_of_row(pixels: u32) -> u64 {
    u64::from(pixels).saturating_mul(4)
}
