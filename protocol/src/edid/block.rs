//! The 128-byte blocks.

use super::timing::Timing;

/// Bytes of a block.
pub(super) const BLOCK_BYTES: usize = 128;
/// Bytes of a detailed timing or a display descriptor.
const DESCRIPTOR_BYTES: usize = 18;
/// Standard timings in the base block.
pub(super) const STANDARD_TIMINGS: usize = 8;
/// Where the detailed timings of the extension begin: behind 4 bytes of header and the video
/// capability data block.
const EXTENSION_TIMINGS_AT: u8 = 7;
/// Detailed timings that the extension has room for.
pub(super) const EXTENSION_TIMINGS: usize =
    (BLOCK_BYTES - 1 - EXTENSION_TIMINGS_AT as usize) / DESCRIPTOR_BYTES;

/// Physical size in millimetres, each at most 4095.
#[derive(Debug, Clone, Copy)]
pub(super) struct Millimetres {
    pub(super) width: u16,
    pub(super) height: u16,
}

/// Lowest and highest rates, rounded outwards.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) refresh_hz: (u16, u16),
    pub(super) line_khz: (u16, u16),
    pub(super) clock_10mhz: u8,
}

/// What the base block says.
pub(super) struct Base<'a> {
    pub(super) serial: u32,
    pub(super) size: Millimetres,
    pub(super) established: [u8; 3],
    /// At most [`STANDARD_TIMINGS`].
    pub(super) standard: &'a [[u8; 2]],
    /// Preferred timing.
    pub(super) preferred: &'a Timing,
    /// One more timing; takes the place of the serial number as text.
    pub(super) further: Option<&'a Timing>,
    pub(super) limits: Limits,
    pub(super) name: &'a str,
    pub(super) has_extension: bool,
}

/// Manufacturer id "NSN", three letters of 5 bits each. The PnP id registry of 2026 gives it to
/// nobody.
const MANUFACTURER: [u8; 2] = {
    let id = ((b'N' - b'@') as u16) << 10 | ((b'S' - b'@') as u16) << 5 | (b'N' - b'@') as u16;
    id.to_be_bytes()
};
const PRODUCT: u16 = 1;
/// Model year 2026: week 0xff says that the year is the model's.
const MODEL_YEAR: [u8; 2] = [0xff, 36];
/// Digital, 8 bits per colour, interface not defined.
const VIDEO_INPUT: u8 = 0b1010_0000;
/// Gamma 2.2.
const GAMMA: u8 = 120;
/// RGB 4:4:4 only; sRGB; the first timing is the native one. Frequencies are not continuous: a
/// guest offers the modes listed here and no others.
const FEATURES: u8 = 0b0000_0110;
/// Chromaticity of sRGB.
const SRGB: [u8; 10] = [0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54];

const TAG_SERIAL: u8 = 0xff;
const TAG_LIMITS: u8 = 0xfd;
const TAG_NAME: u8 = 0xfc;
const TAG_DUMMY: u8 = 0x10;

impl Base<'_> {
    /// Appends the block. Source: VESA E-EDID A2, section "Base EDID".
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let mut block = Vec::with_capacity(BLOCK_BYTES);
        block.extend([0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]);
        block.extend(MANUFACTURER);
        block.extend(PRODUCT.to_le_bytes());
        block.extend(self.serial.to_le_bytes());
        block.extend(MODEL_YEAR);
        block.extend([1, 4]);
        block.extend([VIDEO_INPUT]);
        block.extend([centimetres(self.size.width), centimetres(self.size.height)]);
        block.extend([GAMMA, FEATURES]);
        block.extend(SRGB);
        block.extend(self.established);
        let unused = std::iter::repeat([1, 1]);
        let standard = self.standard.iter().copied().chain(unused);
        block.extend(standard.take(STANDARD_TIMINGS).flatten());

        block.extend(detailed(self.preferred, self.size));
        // Timings stand before other descriptors.
        if let Some(further) = self.further {
            block.extend(detailed(further, self.size));
        }
        block.extend(limits(&self.limits));
        block.extend(text(TAG_NAME, self.name));
        if self.further.is_none() {
            if self.serial == 0 {
                block.extend(descriptor(TAG_DUMMY, [0; 13]));
            } else {
                block.extend(text(TAG_SERIAL, &self.serial.to_string()));
            }
        }
        block.extend([u8::from(self.has_extension)]);
        finish(block, out);
    }
}

/// Appends a CTA-861 extension block with at most [`EXTENSION_TIMINGS`] timings.
/// Source: CTA-861, section "CTA Extension Version 3".
pub(super) fn write_extension(timings: &[Timing], size: Millimetres, out: &mut Vec<u8>) {
    const TAG: u8 = 2;
    const REVISION: u8 = 3;
    /// Shows every pixel (underscan); one native timing, that of the base block.
    const FLAGS: u8 = 0b1000_0001;
    /// Video capability data block, which keeps sources from guessing: extended tag with 2 bytes,
    /// its number, RGB quantization range selectable and pictures always shown whole.
    const VIDEO_CAPABILITY: [u8; 3] = [0b1110_0010, 0, 0b0100_1010];

    let mut block = Vec::with_capacity(BLOCK_BYTES);
    block.extend([TAG, REVISION, EXTENSION_TIMINGS_AT, FLAGS]);
    block.extend(VIDEO_CAPABILITY);
    for timing in timings.iter().take(EXTENSION_TIMINGS) {
        block.extend(detailed(timing, size));
    }
    finish(block, out);
}

/// Pads to a block with its checksum: all bytes add up to 0.
fn finish(mut block: Vec<u8>, out: &mut Vec<u8>) {
    block.resize(BLOCK_BYTES - 1, 0);
    let sum = block.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    out.extend(block);
    out.extend([sum.wrapping_neg()]);
}

fn centimetres(millimetres: u16) -> u8 {
    u8::try_from(millimetres.saturating_add(5) / 10).unwrap_or(u8::MAX)
}

/// The four high bits of each of two 12-bit numbers, as one byte of two nibbles.
fn high_nibbles(a: u16, b: u16) -> u8 {
    let ([_, a], [_, b]) = (a.to_le_bytes(), b.to_le_bytes());
    nibbles(a, b)
}

fn nibbles(high: u8, low: u8) -> u8 {
    (high << 4) | (low & 0x0f)
}

fn low_byte(number: u16) -> u8 {
    let [low, _] = number.to_le_bytes();
    low
}

/// Source: VESA E-EDID A2, table "Detailed timing definition".
fn detailed(timing: &Timing, size: Millimetres) -> [u8; DESCRIPTOR_BYTES] {
    /// Digital separate sync, vertical negative, horizontal positive: CVT's sign of reduced
    /// blanking.
    const FLAGS: u8 = 0b0001_1010;
    let [clock_low, clock_high] = timing.clock_10khz.to_le_bytes();
    [
        clock_low,
        clock_high,
        low_byte(timing.width),
        low_byte(timing.h_blank),
        high_nibbles(timing.width, timing.h_blank),
        low_byte(timing.height),
        low_byte(timing.v_blank),
        high_nibbles(timing.height, timing.v_blank),
        timing.h_front_porch,
        timing.h_sync,
        nibbles(timing.v_front_porch, timing.v_sync),
        // High bits of porches and syncs, which need none.
        0,
        low_byte(size.width),
        low_byte(size.height),
        high_nibbles(size.width, size.height),
        // No border.
        0,
        0,
        FLAGS,
    ]
}

fn descriptor(tag: u8, data: [u8; 13]) -> [u8; DESCRIPTOR_BYTES] {
    with_offsets(tag, 0, data)
}

fn with_offsets(tag: u8, offsets: u8, data: [u8; 13]) -> [u8; DESCRIPTOR_BYTES] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m] = data;
    [0, 0, 0, tag, offsets, a, b, c, d, e, f, g, h, i, j, k, l, m]
}

/// Text of at most 13 characters; a shorter one ends with a line feed and is padded with spaces.
fn text(tag: u8, text: &str) -> [u8; DESCRIPTOR_BYTES] {
    let mut data = [b' '; 13];
    let bytes = text.bytes().chain([b'\n']);
    for (to, from) in data.iter_mut().zip(bytes) {
        *to = from;
    }
    descriptor(tag, data)
}

/// Source: VESA E-EDID A2, section "Display range limits descriptor".
fn limits(limits: &Limits) -> [u8; DESCRIPTOR_BYTES] {
    /// Only these limits, no formula for further timings.
    const LIMITS_ONLY: u8 = 1;
    let (v_offsets, v_min, v_max) = rates(limits.refresh_hz);
    let (h_offsets, h_min, h_max) = rates(limits.line_khz);
    with_offsets(
        TAG_LIMITS,
        v_offsets | (h_offsets << 2),
        [
            v_min,
            v_max,
            h_min,
            h_max,
            limits.clock_10mhz,
            LIMITS_ONLY,
            b'\n',
            b' ',
            b' ',
            b' ',
            b' ',
            b' ',
            b' ',
        ],
    )
}

/// Two rates as bytes, and the bits that add 255 to the highest (2) or to both (3).
fn rates((low, high): (u16, u16)) -> (u8, u8, u8) {
    const OFFSET: u16 = 255;
    let byte = |rate: u16| u8::try_from(rate.max(1)).unwrap_or(u8::MAX);
    if low > OFFSET {
        let (low, high) = (low.saturating_sub(OFFSET), high.saturating_sub(OFFSET));
        (3, byte(low), byte(high))
    } else if high > OFFSET {
        (2, byte(low), byte(high.saturating_sub(OFFSET)))
    } else {
        (0, byte(low), byte(high))
    }
}
