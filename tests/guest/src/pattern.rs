//! The pictures that the guest draws and the host expects, pixel by pixel.
//!
//! A pixel is `0x00RRGGBB`. The byte above the colour is 0, so that a viewer that takes it for an
//! alpha value shows black.

use crate::wire::Step;

/// Width and height of a picture in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// A rectangle in pixels; `x2` and `y2` lie just outside of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// Left edge.
    pub x1: u32,
    /// Top edge.
    pub y1: u32,
    /// First column right of the area.
    pub x2: u32,
    /// First row below the area.
    pub y2: u32,
}

impl Area {
    /// Whether the pixel at `x`, `y` lies in the area.
    #[must_use]
    pub fn contains(&self, x: u32, y: u32) -> bool {
        (self.x1..self.x2).contains(&x) && (self.y1..self.y2).contains(&y)
    }
}

/// Mixes all bits of `value` (the finalizer of the public-domain splitmix64 generator).
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// 24 bits of noise that depend on every bit of the position and the seed: a pixel that comes
/// from another place or an older picture does not match.
fn noise(x: u32, y: u32, seed: u32) -> u32 {
    let key = (u64::from(y) << 32 | u64::from(x)).wrapping_add(u64::from(seed) << 20);
    (mix(key.wrapping_mul(0x9e37_79b9_7f4a_7c15)) >> 40) as u32
}

/// `value` in 0..`range` scaled to 0..=255.
fn ramp(value: u32, range: u32) -> u32 {
    value * 255 / range.max(2).saturating_sub(1)
}

/// The pixel at `x`, `y` of picture number `seed` on a screen of `size`.
///
/// From the outside in: an edge line of another colour on each side (white top, red right, green
/// bottom, blue left), a black line, a row of `seed` white squares, colour bars, gradients with a
/// fine XOR texture, and noise in the lower quarter. Sizes up to 65535 x 65535.
#[must_use]
pub fn pattern(x: u32, y: u32, size: Size, seed: u32) -> u32 {
    let Size { width, height } = size;
    match (x, y) {
        (_, 0) => return 0xff_ffff,
        (x, _) if x + 1 == width => return 0xff_0000,
        (_, y) if y + 1 == height => return 0x00_ff00,
        (0, _) => return 0x00_00ff,
        (x, y) if x == 1 || y == 1 || x + 2 == width || y + 2 == height => return 0,
        _ => {}
    }
    let mark = 16;
    if (8..8 + mark).contains(&y) && x >= 8 && x < 8 + seed * 2 * mark {
        return if ((x - 8) / mark).is_multiple_of(2) {
            0xff_ffff
        } else {
            0
        };
    }
    if y < height / 8 {
        let bar = (x * 8 / width + seed) % 8;
        let channel = |bit: u32| if bar >> bit & 1 == 1 { 0xff } else { 0x20 };
        return channel(2) << 16 | channel(1) << 8 | channel(0);
    }
    if y >= height - height / 4 {
        return noise(x, y, seed);
    }
    let texture = (x ^ y ^ seed) & 0x0f;
    let red = ramp(x, width) ^ texture;
    let green = ramp(y, height) ^ texture;
    let blue = (255 - ramp(x, width)).wrapping_add(seed * 60) & 0xff;
    red << 16 | green << 8 | blue
}

/// The areas that the step [`Step::Damage`] draws anew and declares, one update call each.
#[must_use]
pub fn damaged(size: Size) -> [Area; 4] {
    let Size { width, height } = size;
    let area = |x1, y1, x2, y2| Area { x1, y1, x2, y2 };
    [
        // Odd position and size, in the middle of the gradients.
        area(width / 8 + 3, height / 8 + 5, width / 2 + 4, height / 2 + 2),
        // The very last pixel.
        area(width - 1, height - 1, width, height),
        // A strip at the left edge.
        area(0, height / 2 + 9, 7, height / 2 + 12),
        // Drawn in two clips at opposite corners of the area.
        area(
            width / 2 + 31,
            height * 3 / 4 - 5,
            width - 33,
            height * 3 / 4 + 40,
        ),
    ]
}

/// An area outside of all [`damaged`] ones. A driver that sends exactly what it declares may
/// overwrite it in memory: it must not show. Linux is none: after a change of the frame buffer it
/// sends the whole plane, with 7.2 in every update from then on.
#[must_use]
pub fn undeclared(size: Size) -> Area {
    Area {
        x1: size.width * 5 / 8,
        y1: size.height / 4,
        x2: size.width * 7 / 8,
        y2: size.height / 2,
    }
}

/// The pixel that the screen must show at `x`, `y` after `step`.
#[must_use]
pub fn expected(step: Step, x: u32, y: u32, size: Size) -> u32 {
    match step {
        Step::Mode => pattern(x, y, size, 1),
        Step::Flip => pattern(x, y, size, 2),
        Step::Damage | Step::Cursor => {
            let fresh = damaged(size).iter().any(|area| area.contains(x, y));
            pattern(x, y, size, if fresh { 3 } else { 2 })
        }
        Step::Resize => pattern(x, y, size, 5),
        // Any one colour: the idle task draws nothing of interest.
        Step::Idle => 0x20_4060,
    }
}

/// The pixel in the memory of such a driver after [`Step::Damage`]: as expected, and something else
/// in the [`undeclared`] area.
#[must_use]
pub fn in_memory_after_damage(x: u32, y: u32, size: Size) -> u32 {
    if undeclared(size).contains(x, y) {
        pattern(x, y, size, 4)
    } else {
        expected(Step::Damage, x, y, size)
    }
}

/// Width and height of the cursor picture, fixed by the virtio-gpu device.
pub const CURSOR_SIZE: u32 = 64;

/// The `0xAARRGGBB` pixel of the cursor picture: an arrow-like half square with soft edges.
#[must_use]
pub fn cursor(x: u32, y: u32) -> u32 {
    let inside = x <= y && y < CURSOR_SIZE - x / 2;
    if inside {
        let alpha = 255 - ramp(x, CURSOR_SIZE) / 2;
        alpha << 24 | (noise(x, y, 6) & 0xff_ffff)
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size {
        width: 640,
        height: 480,
    };

    #[test]
    fn edges_have_their_own_colours() {
        assert_eq!(pattern(0, 0, SIZE, 1), 0xff_ffff);
        assert_eq!(pattern(639, 100, SIZE, 1), 0xff_0000);
        assert_eq!(pattern(300, 479, SIZE, 1), 0x00_ff00);
        assert_eq!(pattern(0, 100, SIZE, 1), 0x00_00ff);
        assert_eq!(pattern(1, 100, SIZE, 1), 0);
    }

    #[test]
    fn most_pixels_differ_between_seeds_and_neighbours() {
        let (mut seeds, mut right, mut below, mut total) = (0u32, 0u32, 0u32, 0u32);
        for y in 2..SIZE.height - 2 {
            for x in 2..SIZE.width - 2 {
                let here = pattern(x, y, SIZE, 2);
                total += 1;
                seeds += u32::from(here != pattern(x, y, SIZE, 3));
                right += u32::from(here != pattern(x + 1, y, SIZE, 2));
                below += u32::from(here != pattern(x, y + 1, SIZE, 2));
            }
        }
        assert!(seeds > total * 9 / 10, "{seeds} of {total}");
        assert!(right > total * 3 / 4, "{right} of {total}");
        assert!(below > total * 3 / 4, "{below} of {total}");
    }

    #[test]
    fn undeclared_area_touches_no_declared_one() {
        for size in [
            SIZE,
            Size {
                width: 1280,
                height: 800,
            },
            Size {
                width: 1000,
                height: 700,
            },
        ] {
            let hidden = undeclared(size);
            for area in damaged(size) {
                let apart = area.x2 <= hidden.x1
                    || hidden.x2 <= area.x1
                    || area.y2 <= hidden.y1
                    || hidden.y2 <= area.y1;
                assert!(apart, "{area:?} {hidden:?}");
                assert!(area.x2 <= size.width && area.y2 <= size.height, "{area:?}");
            }
        }
    }

    #[test]
    fn cursor_has_clear_and_solid_pixels() {
        assert_eq!(cursor(63, 0), 0);
        assert_eq!(cursor(0, 10) >> 24, 255);
    }
}
