//! A 3D resource, as far as the device needs to know it: what it is charged for, and what of it can be
//! shown. Its bytes are the renderer's.

use nosnoop_protocol::command::{Box3d, Create3d};
use nosnoop_protocol::format::Format;
use nosnoop_protocol::geometry::Size;
use nosnoop_protocol::reply::GpuError;

/// Texture targets (`enum pipe_texture_target`, Mesa's `src/gallium/include/pipe/p_defines.h`).
mod target {
    pub(super) const BUFFER: u32 = 0;
    pub(super) const TEXTURE_2D: u32 = 2;
    pub(super) const TEXTURE_3D: u32 = 3;
}

/// `VIRTIO_GPU_RESOURCE_FLAG_Y_0_TOP` (Linux' `virtio_gpu.h`).
const FLAG_Y_0_TOP: u32 = 1 << 0;

/// The most mipmap levels above the first that can tell sizes of 32 bits apart.
const MAX_LEVEL: u32 = 31;

/// Bytes per pixel of formats that are not known here: those of the largest that textures have.
const LARGEST_PIXEL: u64 = 16;

/// A resource that the renderer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rendered {
    size: Size,
    depth: u32,
    layers: u32,
    volume: bool,
    last_level: u32,
    bytes: u64,
    picture: Option<Format>,
    y_0_top: bool,
}

impl Rendered {
    /// What a resource with these properties is.
    ///
    /// # Errors
    /// `InvalidParameter` for an empty one and for more mipmap levels than there can be; `OutOfMemory`
    /// for one larger than numbers.
    pub(super) fn new(create: &Create3d) -> Result<Self, GpuError> {
        let size = Size::new(create.width, create.height);
        if size.is_empty() || create.depth == 0 || create.last_level > MAX_LEVEL {
            return Err(GpuError::InvalidParameter);
        }
        let flat = create.target == target::TEXTURE_2D
            && create.depth == 1
            && create.array_size <= 1
            && create.nr_samples <= 1;
        Ok(Self {
            size,
            depth: create.depth,
            // Drivers say 0 or 1 for what is no array.
            layers: create.array_size.max(1),
            volume: create.target == target::TEXTURE_3D,
            last_level: create.last_level,
            bytes: bytes(create).ok_or(GpuError::OutOfMemory)?,
            picture: Format::from_wire(create.format).filter(|_| flat),
            y_0_top: create.flags & FLAG_Y_0_TOP != 0,
        })
    }

    /// Bytes of host memory, as far as one can tell: all levels, layers and samples, without what the
    /// driver adds between them.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Size and format, if it is a picture that can be shown.
    pub(super) fn picture(&self) -> Option<(Size, Format)> {
        self.picture.map(|format| (self.size, format))
    }

    /// Whether the row that comes first in memory is the upper one.
    pub(super) fn y_0_top(&self) -> bool {
        self.y_0_top
    }

    /// Whether a part of a level lies inside it.
    pub(super) fn has(&self, level: u32, part: &Box3d) -> bool {
        let inside =
            |at: u32, len: u32, edge: u32| at.checked_add(len).is_some_and(|end| end <= edge);
        let layers = match self.volume {
            true => at_level(self.depth, level),
            false => self.layers.max(self.depth),
        };
        level <= self.last_level
            && inside(part.x, part.width, at_level(self.size.width, level))
            && inside(part.y, part.height, at_level(self.size.height, level))
            && inside(part.z, part.depth, layers)
    }
}

/// An edge of a mipmap level.
fn at_level(edge: u32, level: u32) -> u32 {
    edge.checked_shr(level).unwrap_or(0).max(1)
}

/// What a resource is charged for; `None` if that is no number.
fn bytes(create: &Create3d) -> Option<u64> {
    let layers = u64::from(create.array_size.max(1));
    let samples = u64::from(create.nr_samples.max(1));
    let mut pixels = 0_u64;
    for level in 0..=create.last_level {
        let depth = match create.target {
            target::TEXTURE_3D => at_level(create.depth, level),
            _ => create.depth,
        };
        let size = Size::new(
            at_level(create.width, level),
            at_level(create.height, level),
        );
        let of_level = size.pixels().checked_mul(u64::from(depth))?;
        pixels = pixels.checked_add(of_level)?;
    }
    let each = match create.target {
        // The width counts bytes.
        target::BUFFER => 1,
        _ => pixel_bytes(create.format),
    };
    pixels
        .checked_mul(layers)?
        .checked_mul(samples)?
        .checked_mul(each)
}

/// Bytes of a pixel in formats that guests have much of (`enum virgl_formats`, virglrenderer's
/// `src/virgl_hw.h`): whatever is not here counts too much.
fn pixel_bytes(format: u32) -> u64 {
    match format {
        // L8, A8, I8; S8; R8
        9..=11 | 23 | 64 => 1,
        // B5G5R5A1, B4G4R4A4, B5G6R5; L8A8, L16; Z16; R16; R8G8; R16_FLOAT
        5..=7 | 12 | 13 | 16 | 48 | 65 | 91 => 2,
        // The eight of 2D resources; R10G10B10A2; 32 bits of depth and stencil; R32_FLOAT; R16G16;
        // R16G16_FLOAT; the eight as sRGB.
        1..=4 | 8 | 17..=22 | 28 | 49 | 67 | 68 | 92 | 98..=104 | 121 | 134 => 4,
        // R32G32_FLOAT; R16G16B16A16; R16G16B16A16_FLOAT
        29 | 51 | 94 => 8,
        _ => LARGEST_PIXEL,
    }
}

#[cfg(test)]
mod tests {
    use nosnoop_protocol::ids::ResourceId;
    use proptest::prelude::*;

    use super::*;

    fn texture(width: u32, height: u32, format: u32) -> Create3d {
        Create3d {
            resource: ResourceId::new(1).unwrap(),
            target: target::TEXTURE_2D,
            format,
            bind: 0,
            width,
            height,
            depth: 1,
            array_size: 1,
            last_level: 0,
            nr_samples: 0,
            flags: 0,
        }
    }

    #[test]
    fn sizes_are_those_of_pixels_levels_layers_and_samples() {
        let plain = texture(640, 480, 1);
        for (create, expected) in [
            (plain, 640 * 480 * 4),
            (texture(640, 480, 7), 640 * 480 * 2),
            (texture(640, 480, 64), 640 * 480),
            (texture(640, 480, 94), 640 * 480 * 8),
            (texture(640, 480, 9999), 640 * 480 * 16),
            (
                Create3d {
                    array_size: 6,
                    ..plain
                },
                640 * 480 * 4 * 6,
            ),
            (
                Create3d {
                    array_size: 0,
                    ..plain
                },
                640 * 480 * 4,
            ),
            (
                Create3d {
                    nr_samples: 4,
                    ..plain
                },
                640 * 480 * 4 * 4,
            ),
            (
                Create3d {
                    last_level: 1,
                    ..plain
                },
                (640 * 480 + 320 * 240) * 4,
            ),
            (
                Create3d {
                    target: 3,
                    depth: 8,
                    last_level: 1,
                    ..plain
                },
                (640 * 480 * 8 + 320 * 240 * 4) * 4,
            ),
            // 16 bytes wide, and 9 levels of one pixel after that.
            (
                Create3d {
                    last_level: 3,
                    ..texture(5, 1, 64)
                },
                5 + 2 + 1 + 1,
            ),
            (
                Create3d {
                    target: 0,
                    ..texture(12345, 1, 64)
                },
                12345,
            ),
            (
                Create3d {
                    target: 0,
                    ..texture(12345, 1, 177)
                },
                12345,
            ),
        ] {
            let rendered = Rendered::new(&create).map(|it| it.bytes());
            assert_eq!(rendered, Ok(expected), "{create:?}");
        }
    }

    #[test]
    fn only_plain_textures_of_the_eight_formats_are_pictures() {
        let plain = texture(640, 480, 67);
        let picture = |create: &Create3d| Rendered::new(create).unwrap().picture();
        let expected = Some((Size::new(640, 480), Format::R8g8b8a8));
        assert_eq!(picture(&plain), expected);
        assert_eq!(
            picture(&Create3d {
                last_level: 3,
                ..plain
            }),
            expected
        );
        for other in [
            Create3d {
                format: 64,
                ..plain
            },
            Create3d { target: 3, ..plain },
            Create3d { target: 0, ..plain },
            Create3d { depth: 2, ..plain },
            Create3d {
                array_size: 2,
                ..plain
            },
            Create3d {
                nr_samples: 4,
                ..plain
            },
        ] {
            assert_eq!(picture(&other), None, "{other:?}");
        }
    }

    #[test]
    fn parts_lie_inside_their_level() {
        let cube = Create3d {
            target: 4,
            array_size: 6,
            last_level: 2,
            ..texture(64, 32, 1)
        };
        let volume = Create3d {
            target: 3,
            depth: 8,
            last_level: 3,
            ..texture(64, 32, 1)
        };
        for (create, level, part, inside) in [
            (cube, 0, [0, 0, 0, 64, 32, 6], true),
            (cube, 0, [63, 31, 5, 1, 1, 1], true),
            (cube, 0, [63, 31, 5, 2, 1, 1], false),
            (cube, 0, [63, 31, 5, 1, 2, 1], false),
            (cube, 0, [63, 31, 5, 1, 1, 2], false),
            (cube, 2, [0, 0, 0, 16, 8, 6], true),
            (cube, 2, [0, 0, 0, 17, 8, 6], false),
            (cube, 3, [0, 0, 0, 1, 1, 1], false),
            (cube, u32::MAX, [0, 0, 0, 1, 1, 1], false),
            (cube, 0, [u32::MAX, 0, 0, 2, 1, 1], false),
            (volume, 0, [0, 0, 0, 64, 32, 8], true),
            (volume, 3, [0, 0, 0, 8, 4, 1], true),
            (volume, 1, [0, 0, 0, 32, 16, 8], false),
        ] {
            let [x, y, z, width, height, depth] = part;
            let part = Box3d {
                x,
                y,
                z,
                width,
                height,
                depth,
            };
            let rendered = Rendered::new(&create).unwrap();
            assert_eq!(rendered.has(level, &part), inside, "{level} {part:?}");
        }
    }

    fn number() -> impl Strategy<Value = u32> {
        // Products of powers of two are what wraps to something small.
        let power = (0..32_u32).prop_map(|shift| 1 << shift);
        prop_oneof![0..3_u32, 0..20_000_u32, power, any::<u32>(), Just(u32::MAX)]
    }

    prop_compose! {
        fn creation()(
            target in 0..10_u32, format in 0..150_u32, width in number(), height in number(),
            depth in number(), array_size in number(), last_level in prop_oneof![0..33_u32, number()],
            nr_samples in number(),
        ) -> Create3d {
            Create3d {
                target, depth, array_size, last_level, nr_samples, ..texture(width, height, format)
            }
        }
    }

    proptest! {
        /// Whatever the guest says, the size is exact or the resource refused.
        #[test]
        fn no_dimension_overflows(create in creation()) {
            let wide = |number: u32| u128::from(number.max(1));
            let minified = |edge: u32, level: u32| wide(edge >> level);
            let empty = create.width == 0 || create.height == 0 || create.depth == 0;
            // Five factors of 32 bits do not fit 128: a sum of levels is below twice the first.
            let all = |levels: u32| (0..=levels).try_fold(0_u128, |sum, level| {
                let depth = if create.target == 3 { minified(create.depth, level) } else { wide(create.depth) };
                let level = minified(create.width, level).checked_mul(minified(create.height, level))?
                    .checked_mul(depth)?.checked_mul(wide(create.array_size))?;
                sum.checked_add(level)
            });
            let each = if create.target == 0 { 1 } else { u128::from(pixel_bytes(create.format)) };
            let expected = if empty || create.last_level > 31 {
                Err(GpuError::InvalidParameter)
            } else {
                all(create.last_level)
                    .and_then(|pixels| pixels.checked_mul(wide(create.nr_samples))?.checked_mul(each))
                    .and_then(|bytes| u64::try_from(bytes).ok())
                    .ok_or(GpuError::OutOfMemory)
            };
            prop_assert_eq!(Rendered::new(&create).map(|it| it.bytes()), expected);
        }
    }
}
