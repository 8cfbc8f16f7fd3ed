//! Test pictures, and the reference conversion from virtio-gpu formats to what a display shows.

use super::request::Rect;

/// The eight virtio-gpu 2D formats by number, with the place of blue, green and red in a pixel's four
/// bytes, and of alpha or padding (virtio 1.4, `enum virtio_gpu_formats`: names are in memory order).
pub const FORMATS: [(u32, [usize; 3], usize); 8] = [
    (1, [0, 1, 2], 3),   // B8G8R8A8
    (2, [0, 1, 2], 3),   // B8G8R8X8
    (3, [3, 2, 1], 0),   // A8R8G8B8
    (4, [3, 2, 1], 0),   // X8R8G8B8
    (67, [2, 1, 0], 3),  // R8G8B8A8
    (68, [1, 2, 3], 0),  // X8B8G8R8
    (121, [1, 2, 3], 0), // A8B8G8R8
    (134, [2, 1, 0], 3), // R8G8B8X8
];

/// B8G8R8X8, the format Linux uses for its frame buffers.
pub const BGRX: u32 = 2;
/// B8G8R8A8, the format with alpha that needs no conversion for a display.
pub const BGRA: u32 = 1;

/// What a display shows: rows of pixels, bytes B, G, R and one that means nothing (kept 0).
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// `4 * width * height` bytes.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for Picture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Picture({}x{})", self.width, self.height)
    }
}

impl Picture {
    /// All black.
    pub fn black(width: u32, height: u32) -> Self {
        Picture {
            width,
            height,
            bytes: vec![0; 4 * width as usize * height as usize],
        }
    }

    /// What a buffer of raw pixels in `format` shows.
    pub fn of(format: u32, width: u32, height: u32, raw: &[u8]) -> Self {
        assert_eq!(
            raw.len(),
            4 * width as usize * height as usize,
            "whole picture"
        );
        Picture {
            width,
            height,
            bytes: to_display(format, raw),
        }
    }

    fn at(&self, x: u32, y: u32) -> usize {
        4 * (y as usize * self.width as usize + x as usize)
    }

    /// Writes rows of B, G, R, X pixels into a rectangle, which must lie inside.
    pub fn paste(&mut self, rect: Rect, rows: &[u8]) {
        let row_len = 4 * rect.width as usize;
        for (n, row) in rows.chunks_exact(row_len.max(1)).enumerate() {
            let start = self.at(rect.x, rect.y + n as u32);
            for (to, from) in self.bytes[start..start + row_len]
                .chunks_exact_mut(4)
                .zip(row.chunks_exact(4))
            {
                to.copy_from_slice(&[from[0], from[1], from[2], 0]);
            }
        }
    }

    /// The part inside a rectangle.
    #[must_use]
    pub fn crop(&self, rect: Rect) -> Picture {
        let row_len = 4 * rect.width as usize;
        let bytes = (rect.y..rect.y + rect.height)
            .flat_map(|y| self.bytes[self.at(rect.x, y)..][..row_len].iter().copied())
            .collect();
        Picture {
            width: rect.width,
            height: rect.height,
            bytes,
        }
    }

    /// Copies the same rectangle from another picture of the same size.
    pub fn copy_from(&mut self, other: &Picture, rect: Rect) {
        self.paste(rect, &other.crop(rect).bytes);
    }

    /// One line on how this picture differs from the expected one.
    pub fn difference(&self, expected: &Picture) -> String {
        if (self.width, self.height) != (expected.width, expected.height) {
            return format!("shown: {self:?}, expected: {expected:?}");
        }
        let pairs = self
            .bytes
            .chunks_exact(4)
            .zip(expected.bytes.chunks_exact(4));
        let bad: Vec<_> = pairs.enumerate().filter(|(_, (a, b))| a != b).collect();
        match bad.first() {
            None => "no difference".to_owned(),
            Some((at, (a, b))) => {
                let (x, y) = (at % self.width as usize, at / self.width as usize);
                let (some, all) = (bad.len(), self.bytes.len() / 4);
                format!("{some} of {all} pixels differ, first at ({x},{y}): {a:02x?} for {b:02x?}")
            }
        }
    }
}

/// Raw pixels in `format` as B, G, R, 0.
pub fn to_display(format: u32, raw: &[u8]) -> Vec<u8> {
    let (_, place, _) = layout(format);
    raw.chunks_exact(4)
        .flat_map(|p| [p[place[0]], p[place[1]], p[place[2]], 0])
        .collect()
}

/// Raw pixels in `format` as B, G, R, A. In a cursor padding is alpha: Linux makes its cursors in
/// format 2 and puts alpha where the format has padding.
pub fn to_cursor(format: u32, raw: &[u8]) -> Vec<u8> {
    let (_, place, alpha) = layout(format);
    raw.chunks_exact(4)
        .flat_map(|p| [p[place[0]], p[place[1]], p[place[2]], p[alpha]])
        .collect()
}

fn layout(format: u32) -> (u32, [usize; 3], usize) {
    FORMATS
        .into_iter()
        .find(|(number, ..)| *number == format)
        .expect("one of the eight formats")
}

/// Reproducible noise: a picture in which neighbouring pixels and rows never look alike.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend(random.next().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A small reproducible random generator (xorshift64*), so that a failing case can be run again.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts from a seed.
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    #[expect(
        clippy::should_implement_trait,
        reason = "an endless source, not an iterator"
    )]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number in `low..=high`.
    pub fn within(&mut self, low: u64, high: u64) -> u64 {
        low + (self.next() >> 8) % (high - low + 1)
    }

    /// A rectangle inside a picture, never empty.
    pub fn rect(&mut self, width: u32, height: u32) -> Rect {
        let x = self.within(0, u64::from(width) - 1) as u32;
        let y = self.within(0, u64::from(height) - 1) as u32;
        let w = self.within(1, u64::from(width - x)) as u32;
        let h = self.within(1, u64::from(height - y)) as u32;
        Rect::new(x, y, w, h)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn red_green_and_blue_of_each_format_come_out_as_such() {
        // Blue 1, green 2, red 3, alpha or padding 9, in each format's memory order.
        let raws = [
            (1, [1, 2, 3, 9]),
            (2, [1, 2, 3, 9]),
            (3, [9, 3, 2, 1]),
            (4, [9, 3, 2, 1]),
            (67, [3, 2, 1, 9]),
            (68, [9, 1, 2, 3]),
            (121, [9, 1, 2, 3]),
            (134, [3, 2, 1, 9]),
        ];
        for (format, raw) in raws {
            assert_eq!(to_display(format, &raw), [1, 2, 3, 0], "format {format}");
            assert_eq!(to_cursor(format, &raw), [1, 2, 3, 9], "format {format}");
        }
    }

    #[test]
    fn pictures_that_differ_in_one_pixel_say_where() {
        let black = Picture::black(5, 4);
        let mut other = black.clone();
        other.paste(Rect::new(3, 2, 1, 1), &[1, 2, 3, 4]);
        assert_ne!(black, other);
        assert!(
            other
                .difference(&black)
                .contains("1 of 20 pixels differ, first at (3,2)")
        );
        assert_eq!(other.crop(Rect::new(3, 2, 1, 1)).bytes, [1, 2, 3, 0]);
    }
}
