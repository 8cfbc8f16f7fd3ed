//! How an image lies in linear memory.

use nosnoop_protocol::{GpuError, ImageFlags, ImageRequest};

use super::PAGE_SIZE;

/// `DRM_FORMAT_MOD_LINEAR`: rows one after the other, from the top.
const MODIFIER_LINEAR: u64 = 0;

/// How an image lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageLayout {
    /// Bytes from row to row, by plane; 0 for planes that the format does not have.
    pub strides: [u32; 4],
    /// First byte, by plane; 0 for planes that the format does not have.
    pub offsets: [u32; 4],
    /// Bytes of the whole image; a multiple of [`PAGE_SIZE`], not 0, 4 GiB at most.
    pub size: u64,
    /// `DRM_FORMAT_MOD_*`; always linear.
    pub modifier: u64,
}

/// One plane of a format.
struct Plane {
    /// Bytes of one sample.
    bytes: u32,
    /// Pixels that share a sample, in each direction.
    pixels: u32,
}

const fn packed(bytes: u32) -> Plane {
    Plane { bytes, pixels: 1 }
}

const fn halved(bytes: u32) -> Plane {
    Plane { bytes, pixels: 2 }
}

/// The planes of a format (`DRM_FORMAT_*`), in order; `None` for formats that are not offered.
///
/// These are the formats of rutabaga_gfx's system allocator, and the other linear ones of that kind
/// that minigbm asks for.
fn planes(fourcc: u32) -> Option<&'static [Plane]> {
    match &fourcc.to_le_bytes() {
        b"R8  " => Some(const { &[packed(1)] }),
        b"GR88" | b"RG88" | b"R16 " | b"RG16" => Some(const { &[packed(2)] }),
        b"BG24" | b"RG24" => Some(const { &[packed(3)] }),
        b"XR24" | b"AR24" | b"XB24" | b"AB24" | b"XR30" | b"AR30" | b"XB30" | b"AB30" => {
            Some(const { &[packed(4)] })
        }
        b"XB4H" | b"AB4H" => Some(const { &[packed(8)] }),
        b"NV12" | b"NV21" => Some(const { &[packed(1), halved(2)] }),
        b"P010" => Some(const { &[packed(2), halved(4)] }),
        b"YV12" | b"YU12" => Some(const { &[packed(1), halved(1), halved(1)] }),
        _ => None,
    }
}

/// The layout of an image: planes one after the other without gaps, rows without padding.
///
/// That is rutabaga_gfx's layout (`canonical_image_requirements`), except that where two pixels
/// share a sample, an odd size gets the last sample too.
///
/// # Errors
/// [`GpuError::InvalidParameter`] for a width or height of 0, a format that is not offered, memory
/// that is to be hidden from the CPU ([`ImageFlags::PROTECTED`]), and images whose rows, offsets or
/// end do not fit in 32 bits.
pub fn layout(request: &ImageRequest) -> Result<ImageLayout, GpuError> {
    let planes = planes(request.fourcc).ok_or(GpuError::InvalidParameter)?;
    if request.width == 0 || request.height == 0 || request.flags.contains(ImageFlags::PROTECTED) {
        return Err(GpuError::InvalidParameter);
    }
    let mut strides = [0; 4];
    let mut offsets = [0; 4];
    let mut end: u32 = 0;
    for ((plane, stride), offset) in planes.iter().zip(&mut strides).zip(&mut offsets) {
        *offset = end;
        (*stride, end) = place(plane, request, end).ok_or(GpuError::InvalidParameter)?;
    }
    let size = u64::from(end)
        .checked_next_multiple_of(PAGE_SIZE)
        .ok_or(GpuError::InvalidParameter)?;
    Ok(ImageLayout {
        strides,
        offsets,
        size,
        modifier: MODIFIER_LINEAR,
    })
}

/// Stride of a plane that begins at `offset`, and its end.
fn place(plane: &Plane, request: &ImageRequest, offset: u32) -> Option<(u32, u32)> {
    let stride = request
        .width
        .div_ceil(plane.pixels)
        .checked_mul(plane.bytes)?;
    let rows = request.height.div_ceil(plane.pixels);
    let end = stride.checked_mul(rows)?.checked_add(offset)?;
    Some((stride, end))
}

#[cfg(test)]
#[expect(
    clippy::arithmetic_side_effects,
    reason = "numbers are small here, and an overflow fails the test"
)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every format, with the bits of its pixels.
    const FORMATS: [(&[u8; 4], u64); 21] = [
        (b"R8  ", 8),
        (b"GR88", 16),
        (b"RG88", 16),
        (b"R16 ", 16),
        (b"RG16", 16),
        (b"BG24", 24),
        (b"RG24", 24),
        (b"XR24", 32),
        (b"AR24", 32),
        (b"XB24", 32),
        (b"AB24", 32),
        (b"XR30", 32),
        (b"AR30", 32),
        (b"XB30", 32),
        (b"AB30", 32),
        (b"XB4H", 64),
        (b"AB4H", 64),
        (b"NV12", 12),
        (b"NV21", 12),
        (b"YV12", 12),
        (b"YU12", 12),
    ];

    fn request(fourcc: [u8; 4], width: u32, height: u32) -> ImageRequest {
        ImageRequest {
            width,
            height,
            fourcc: u32::from_le_bytes(fourcc),
            flags: ImageFlags::LINEAR,
        }
    }

    fn image(fourcc: &[u8; 4], width: u32, height: u32) -> Result<ImageLayout, GpuError> {
        layout(&request(*fourcc, width, height))
    }

    fn expected(strides: [u32; 4], offsets: [u32; 4], size: u64) -> Result<ImageLayout, GpuError> {
        Ok(ImageLayout {
            strides,
            offsets,
            size,
            modifier: 0,
        })
    }

    #[test]
    fn rows_and_planes_lie_as_rutabaga_has_them() {
        // The first four are the cases of rutabaga's own tests; its sizes before rounding are 100,
        // 400, 150 and 150.
        let none = [0; 4];
        for (fourcc, width, height, layout) in [
            (b"R8  ", 10, 10, expected([10, 0, 0, 0], none, 4096)),
            (b"XR24", 10, 10, expected([40, 0, 0, 0], none, 4096)),
            (
                b"NV12",
                10,
                10,
                expected([10, 10, 0, 0], [0, 100, 0, 0], 4096),
            ),
            (
                b"YV12",
                10,
                10,
                expected([10, 5, 5, 0], [0, 100, 125, 0], 4096),
            ),
            (b"RG16", 100, 60, expected([200, 0, 0, 0], none, 12_288)),
            (b"BG24", 1024, 4, expected([3072, 0, 0, 0], none, 12_288)),
            (b"XR24", 1024, 768, expected([4096, 0, 0, 0], none, 3 << 20)),
            (b"AB4H", 512, 1, expected([4096, 0, 0, 0], none, 4096)),
            (b"AB4H", 513, 1, expected([4104, 0, 0, 0], none, 8192)),
            (
                b"P010",
                64,
                64,
                expected([128, 128, 0, 0], [0, 8192, 0, 0], 12_288),
            ),
        ] {
            assert_eq!(image(fourcc, width, height), layout, "{fourcc:?}");
        }
    }

    #[test]
    fn an_odd_size_has_the_last_shared_sample() {
        assert_eq!(
            image(b"NV12", 11, 11),
            expected([11, 12, 0, 0], [0, 121, 0, 0], 4096)
        );
        assert_eq!(
            image(b"YU12", 1, 1),
            expected([1, 1, 1, 0], [0, 1, 2, 0], 4096)
        );
    }

    #[test]
    fn empty_images_are_refused() {
        for (fourcc, _) in FORMATS {
            for (width, height) in [(0, 0), (0, 1), (1, 0), (0, u32::MAX), (u32::MAX, 0)] {
                assert_eq!(
                    image(fourcc, width, height),
                    Err(GpuError::InvalidParameter),
                    "{fourcc:?} {width}x{height}"
                );
            }
        }
    }

    #[test]
    fn images_end_at_four_gib() {
        // 2^32 - 1 bytes are the most; rounding up to a page then gives 4 GiB.
        assert_eq!(
            image(b"R8  ", u32::MAX, 1),
            expected([u32::MAX, 0, 0, 0], [0; 4], 1 << 32)
        );
        assert_eq!(image(b"R8  ", 1, u32::MAX).unwrap().size, 1 << 32);
        assert_eq!(
            image(b"XR24", 32_768, 32_767).unwrap().size,
            32_768 * 4 * 32_767
        );
        for (fourcc, width, height) in [
            (b"R8  ", u32::MAX, 2),
            (b"R8  ", 65_536, 65_536),
            (b"XR24", 32_768, 32_768),
            (b"XR24", 0x4000_0000, 1),
            (b"XR24", u32::MAX, u32::MAX),
            // The luma plane fits, the next one does not.
            (b"NV12", u32::MAX, 1),
            (b"NV12", 65_535, 65_535),
            (b"YV12", 0x4000_0000, 3),
        ] {
            assert_eq!(
                image(fourcc, width, height),
                Err(GpuError::InvalidParameter),
                "{fourcc:?} {width}x{height}"
            );
        }
    }

    #[test]
    fn unknown_formats_are_refused() {
        // Empty, nearly right, big-endian, and what minigbm keeps to itself.
        for fourcc in [*b"\0\0\0\0", *b"R8\0\0", *b"xr24", *b"XR2\xb4", *b"9997"] {
            assert_eq!(
                layout(&request(fourcc, 16, 16)),
                Err(GpuError::InvalidParameter),
                "{fourcc:?}"
            );
        }
    }

    #[test]
    fn only_hidden_memory_is_refused_for_its_use() {
        for flag in ImageFlags::all().iter() {
            let wanted = ImageRequest {
                flags: flag,
                ..request(*b"XR24", 16, 16)
            };
            assert_eq!(
                layout(&wanted).is_err(),
                flag == ImageFlags::PROTECTED,
                "{flag:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn even_sizes_take_the_bits_of_their_pixels(
            (fourcc, bits) in proptest::sample::select(&FORMATS[..]),
            width in 1..=0x8000_u32,
            height in 1..=0x8000_u32,
        ) {
            let (width, height) = (width * 2, height * 2);
            let bytes = u64::from(width) * u64::from(height) * bits / 8;
            let size = image(fourcc, width, height).map(|image| image.size);
            if u32::try_from(bytes).is_ok() {
                prop_assert_eq!(size, Ok(bytes.next_multiple_of(PAGE_SIZE)));
            } else {
                prop_assert_eq!(size, Err(GpuError::InvalidParameter));
            }
        }

        #[test]
        fn planes_follow_each_other_inside_the_image(
            (fourcc, _) in proptest::sample::select(&FORMATS[..]),
            width in prop_oneof![1..=9000_u32, any::<u32>()],
            height in prop_oneof![1..=9000_u32, any::<u32>()],
        ) {
            let planes = planes(u32::from_le_bytes(*fourcc)).unwrap();
            let Ok(image) = image(fourcc, width, height) else {
                return Ok(());
            };
            let mut end = 0;
            for (i, plane) in planes.iter().enumerate() {
                let columns = u64::from(width).div_ceil(plane.pixels.into());
                let rows = u64::from(height).div_ceil(plane.pixels.into());
                prop_assert!(columns > 0 && rows > 0);
                prop_assert_eq!(u64::from(image.strides[i]), columns * u64::from(plane.bytes));
                prop_assert_eq!(u64::from(image.offsets[i]), end);
                end += u64::from(image.strides[i]) * rows;
            }
            for i in planes.len()..4 {
                prop_assert_eq!((image.strides[i], image.offsets[i]), (0, 0));
            }
            prop_assert!(image.size.is_multiple_of(PAGE_SIZE));
            prop_assert!(end <= image.size && image.size - end < PAGE_SIZE);
        }

        #[test]
        fn any_request_is_answered(
            width: u32,
            height: u32,
            fourcc: u32,
            flags: u32,
        ) {
            let wanted = ImageRequest {
                width,
                height,
                fourcc,
                flags: ImageFlags::from_bits_retain(flags),
            };
            if let Ok(image) = layout(&wanted) {
                prop_assert!(planes(fourcc).is_some());
                prop_assert!(image.size > 0 && image.size <= 1 << 32);
            }
        }
    }
}
