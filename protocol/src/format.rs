//! The eight pixel formats of 2D resources and scanouts, and their conversion for display.

use drm_fourcc::DrmFourcc;

/// A 2D pixel format. The name gives the bytes in memory order: [`Format::B8g8r8a8`] is blue,
/// green, red, alpha. DRM fourcc names give the little-endian word, most significant part first,
/// so that the same format is `ARGB8888` there.
///
/// Source: `enum virtio_gpu_formats`, section "Device Operation: controlq",
/// VIRTIO_GPU_CMD_RESOURCE_CREATE_2D.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Format {
    /// `VIRTIO_GPU_FORMAT_B8G8R8A8_UNORM`
    B8g8r8a8 = 1,
    /// `VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM`
    B8g8r8x8 = 2,
    /// `VIRTIO_GPU_FORMAT_A8R8G8B8_UNORM`
    A8r8g8b8 = 3,
    /// `VIRTIO_GPU_FORMAT_X8R8G8B8_UNORM`
    X8r8g8b8 = 4,
    /// `VIRTIO_GPU_FORMAT_R8G8B8A8_UNORM`
    R8g8b8a8 = 67,
    /// `VIRTIO_GPU_FORMAT_X8B8G8R8_UNORM`
    X8b8g8r8 = 68,
    /// `VIRTIO_GPU_FORMAT_A8B8G8R8_UNORM`
    A8b8g8r8 = 121,
    /// `VIRTIO_GPU_FORMAT_R8G8B8X8_UNORM`
    R8g8b8x8 = 134,
}

/// Alpha of an opaque pixel, as the top byte of a little-endian `ARGB8888` word.
const OPAQUE: u32 = 0xff00_0000;

impl Format {
    /// Bytes of one pixel, the same for all formats.
    pub const BYTES_PER_PIXEL: u32 = 4;

    /// All formats, by rising wire value.
    pub const ALL: [Self; 8] = [
        Self::B8g8r8a8,
        Self::B8g8r8x8,
        Self::A8r8g8b8,
        Self::X8r8g8b8,
        Self::R8g8b8a8,
        Self::X8b8g8r8,
        Self::A8b8g8r8,
        Self::R8g8b8x8,
    ];

    /// The format with that number on the wire, `None` when there is none.
    #[must_use]
    pub fn from_wire(raw: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.to_wire() == raw)
    }

    /// The number on the wire.
    #[must_use]
    pub const fn to_wire(self) -> u32 {
        self as u32
    }

    /// The same byte layout in DRM terms.
    #[must_use]
    pub const fn drm_fourcc(self) -> DrmFourcc {
        match self {
            Self::B8g8r8a8 => DrmFourcc::Argb8888,
            Self::B8g8r8x8 => DrmFourcc::Xrgb8888,
            Self::A8r8g8b8 => DrmFourcc::Bgra8888,
            Self::X8r8g8b8 => DrmFourcc::Bgrx8888,
            Self::R8g8b8a8 => DrmFourcc::Abgr8888,
            Self::X8b8g8r8 => DrmFourcc::Rgbx8888,
            Self::A8b8g8r8 => DrmFourcc::Rgba8888,
            Self::R8g8b8x8 => DrmFourcc::Xbgr8888,
        }
    }

    /// Converts pixels of this format to x8r8g8b8: in memory blue, green, red, 0xff.
    ///
    /// The padding byte is always 0xff and alpha is dropped, so that equal pictures have equal
    /// bytes. Stops at the end of the shorter slice; a part of a pixel at the end stays as it is.
    pub fn to_xrgb_le(self, src: &[u8], dst: &mut [u8]) {
        match self {
            Self::B8g8r8a8 | Self::B8g8r8x8 => convert(src, dst, |p| p | OPAQUE),
            Self::A8r8g8b8 | Self::X8r8g8b8 => convert(src, dst, |p| p.swap_bytes() | OPAQUE),
            Self::R8g8b8a8 | Self::R8g8b8x8 => convert(src, dst, |p| swap_red_blue(p) | OPAQUE),
            Self::A8b8g8r8 | Self::X8b8g8r8 => convert(src, dst, |p| p.rotate_right(8) | OPAQUE),
        }
    }

    /// Converts pixels of this format to a8r8g8b8: in memory blue, green, red, alpha. Lengths as in
    /// [`Format::to_xrgb_le`].
    ///
    /// This is for cursor pictures, and padding counts as alpha there: Linux makes the resources of
    /// cursors in a format with padding (as all its dumb buffers) and puts alpha into it.
    pub fn to_argb_le(self, src: &[u8], dst: &mut [u8]) {
        match self {
            Self::B8g8r8a8 | Self::B8g8r8x8 => convert(src, dst, |p| p),
            Self::A8r8g8b8 | Self::X8r8g8b8 => convert(src, dst, u32::swap_bytes),
            Self::R8g8b8a8 | Self::R8g8b8x8 => convert(src, dst, swap_red_blue),
            Self::A8b8g8r8 | Self::X8b8g8r8 => convert(src, dst, |p| p.rotate_right(8)),
        }
    }
}

/// Exchanges the first and the third byte of a pixel.
const fn swap_red_blue(pixel: u32) -> u32 {
    (pixel & 0xff00_ff00) | ((pixel & 0xff) << 16) | ((pixel >> 16) & 0xff)
}

/// Maps each whole pixel, read and written as a little-endian word. Word operations and not byte
/// shuffles, because those vectorise on any x86-64.
fn convert(src: &[u8], dst: &mut [u8], map: impl Fn(u32) -> u32) {
    let (src, _) = src.as_chunks::<4>();
    let (dst, _) = dst.as_chunks_mut::<4>();
    for (to, from) in dst.iter_mut().zip(src) {
        *to = map(u32::from_le_bytes(*from)).to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // One pixel: red 0x11, green 0x22, blue 0x33, alpha or padding 0x44.
    const PIXELS: [(Format, u32, [u8; 4], &str); 8] = [
        (Format::B8g8r8a8, 1, [0x33, 0x22, 0x11, 0x44], "AR24"),
        (Format::B8g8r8x8, 2, [0x33, 0x22, 0x11, 0x44], "XR24"),
        (Format::A8r8g8b8, 3, [0x44, 0x11, 0x22, 0x33], "BA24"),
        (Format::X8r8g8b8, 4, [0x44, 0x11, 0x22, 0x33], "BX24"),
        (Format::R8g8b8a8, 67, [0x11, 0x22, 0x33, 0x44], "AB24"),
        (Format::X8b8g8r8, 68, [0x44, 0x33, 0x22, 0x11], "RX24"),
        (Format::A8b8g8r8, 121, [0x44, 0x33, 0x22, 0x11], "RA24"),
        (Format::R8g8b8x8, 134, [0x11, 0x22, 0x33, 0x44], "XB24"),
    ];

    #[test]
    fn wire_values_and_fourcc_are_exact() {
        for (format, raw, _, fourcc) in PIXELS {
            assert_eq!(Format::from_wire(raw), Some(format));
            assert_eq!(format.to_wire(), raw);
            let code = format.drm_fourcc() as u32;
            assert_eq!(code.to_le_bytes(), fourcc.as_bytes(), "{format:?}");
        }
        let known = (0..1000).filter(|raw| Format::from_wire(*raw).is_some());
        assert_eq!(known.count(), 8);
        assert_eq!(Format::from_wire(u32::MAX), None);
    }

    #[test]
    fn xrgb_is_byte_exact() {
        for (format, _, pixel, _) in PIXELS {
            let mut out = [0u8; 4];
            format.to_xrgb_le(&pixel, &mut out);
            assert_eq!(out, [0x33, 0x22, 0x11, 0xff], "{format:?}");
        }
    }

    #[test]
    fn argb_is_byte_exact() {
        for (format, _, pixel, _) in PIXELS {
            let mut out = [0u8; 4];
            format.to_argb_le(&pixel, &mut out);
            assert_eq!(out, [0x33, 0x22, 0x11, 0x44], "{format:?}");
        }
    }

    #[test]
    fn long_rows_convert_pixel_by_pixel() {
        // 37 pixels: vector body and scalar rest.
        let src: Vec<u8> = (0..37 * 4u16).map(|i| (i % 251) as u8).collect();
        for format in Format::ALL {
            let mut row = vec![0; src.len()];
            format.to_xrgb_le(&src, &mut row);
            for (pixel, got) in src.chunks_exact(4).zip(row.chunks_exact(4)) {
                let mut one = [0; 4];
                format.to_xrgb_le(pixel, &mut one);
                assert_eq!(got, one, "{format:?}");
            }
        }
    }

    #[test]
    fn shorter_slice_and_whole_pixels_bound_the_work() {
        for format in Format::ALL {
            let mut out = [7u8; 11];
            format.to_xrgb_le(&[1; 16], &mut out);
            assert_eq!(&out[8..], &[7, 7, 7], "{format:?}");
            let mut out = [7u8; 8];
            format.to_argb_le(&[1; 7], &mut out);
            assert_eq!(&out[4..], &[7; 4], "{format:?}");
            format.to_argb_le(&[], &mut []);
        }
    }
}
