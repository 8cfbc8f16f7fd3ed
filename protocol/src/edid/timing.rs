//! CVT timings, and the modes that EDID can name in a byte or two.

use super::Mode;

/// Smallest width and height of a detailed timing; Linux drops smaller ones.
pub(super) const MIN_ACTIVE: u32 = 64;
/// Largest width and height of a detailed timing: 12 bits.
pub(super) const MAX_ACTIVE: u32 = 4095;
/// From this refresh rate on, the blanking time of CVT fills the whole frame.
pub(super) const MAX_REFRESH_HZ: u32 = 2173;
const _: () = assert!(MAX_REFRESH_HZ as u64 == 1_000_000 / MIN_V_BLANK_US);

// CVT 1.2, section "Reduced blanking timing version 1".
const H_BLANK: u16 = 160;
const H_FRONT_PORCH: u8 = 48;
const H_SYNC: u8 = 32;
const V_FRONT_PORCH: u8 = 3;
const MIN_V_BACK_PORCH: u64 = 6;
const MIN_V_BLANK_US: u64 = 460;

/// A detailed timing, every field in the range of its bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timing {
    /// Pixel clock in units of 10 kHz.
    pub(super) clock_10khz: u16,
    pub(super) width: u16,
    pub(super) height: u16,
    pub(super) h_blank: u16,
    pub(super) v_blank: u16,
    pub(super) h_front_porch: u8,
    pub(super) h_sync: u8,
    /// At most 15.
    pub(super) v_front_porch: u8,
    /// At most 15.
    pub(super) v_sync: u8,
}

impl Timing {
    /// What every display can do: CVT 640x480 at 60 Hz.
    pub(super) const FALLBACK: Self = Self {
        clock_10khz: 2372,
        width: 640,
        height: 480,
        h_blank: H_BLANK,
        v_blank: 14,
        h_front_porch: H_FRONT_PORCH,
        h_sync: H_SYNC,
        v_front_porch: V_FRONT_PORCH,
        v_sync: 4,
    };

    /// CVT reduced blanking timing of a mode, `None` when a detailed timing cannot hold it: width
    /// and height are 64 to 4095 and the pixel clock is at most 655.35 MHz.
    ///
    /// Two things differ from CVT, so that the guest gets the mode that was asked for: the width
    /// need not be a multiple of 8, and the clock has EDID's step of 10 kHz and not 250 kHz. It is
    /// rounded up, because some readers cut the refresh rate to a whole number.
    pub(super) fn cvt_reduced(mode: Mode) -> Option<Self> {
        let fits = |pixels| (MIN_ACTIVE..=MAX_ACTIVE).contains(&pixels);
        if !fits(mode.width) || !fits(mode.height) || mode.refresh_hz == 0 {
            return None;
        }
        let (width, height) = (u64::from(mode.width), u64::from(mode.height));
        let refresh = u64::from(mode.refresh_hz);
        let v_sync = v_sync_lines(width, height);

        // Both sides of the division are times `refresh`: lines that pass in MIN_V_BLANK_US.
        let active_us = 1_000_000u64.checked_sub(MIN_V_BLANK_US.checked_mul(refresh)?)?;
        let blank_lines = MIN_V_BLANK_US
            .checked_mul(height)?
            .checked_mul(refresh)?
            .checked_div(active_us)?
            .checked_add(1)?;
        let min_blank = u64::from(V_FRONT_PORCH)
            .checked_add(u64::from(v_sync))?
            .checked_add(MIN_V_BACK_PORCH)?;
        let v_blank = blank_lines.max(min_blank);
        if v_blank > u64::from(MAX_ACTIVE) {
            return None;
        }
        let clock_hz = refresh
            .checked_mul(height.checked_add(v_blank)?)?
            .checked_mul(width.checked_add(u64::from(H_BLANK))?)?;
        Some(Self {
            clock_10khz: u16::try_from(clock_hz.div_ceil(10_000)).ok()?,
            width: u16::try_from(width).ok()?,
            height: u16::try_from(height).ok()?,
            h_blank: H_BLANK,
            v_blank: u16::try_from(v_blank).ok()?,
            h_front_porch: H_FRONT_PORCH,
            h_sync: H_SYNC,
            v_front_porch: V_FRONT_PORCH,
            v_sync,
        })
    }

    /// Lines per second.
    pub(super) fn line_rate_hz(&self) -> u64 {
        let line = u64::from(self.width).saturating_add(u64::from(self.h_blank));
        self.clock_hz().checked_div(line).unwrap_or(0)
    }

    /// Pixels per second.
    pub(super) fn clock_hz(&self) -> u64 {
        u64::from(self.clock_10khz).saturating_mul(10_000)
    }
}

/// CVT tells the aspect ratio by the length of the vertical sync.
fn v_sync_lines(width: u64, height: u64) -> u8 {
    // CVT compares whole cells of 8 pixels: width / height == across / down, within a cell.
    let is = |across: u64, down: u64| {
        let difference = width
            .saturating_mul(down)
            .abs_diff(height.saturating_mul(across));
        difference < down.saturating_mul(8)
    };
    match () {
        () if is(4, 3) => 4,
        () if is(16, 9) => 5,
        () if is(16, 10) => 6,
        () if is(5, 4) || is(15, 9) => 7,
        () => 10,
    }
}

/// Established timings of the base block: byte (0 to 2), bit, width, height, refresh. Interlaced
/// ones are left out.
///
/// Source: VESA E-EDID A2, table "Established timings I & II".
const ESTABLISHED: [(usize, u8, u32, u32, u32); 16] = [
    (0, 7, 720, 400, 70),
    (0, 6, 720, 400, 88),
    (0, 5, 640, 480, 60),
    (0, 4, 640, 480, 67),
    (0, 3, 640, 480, 72),
    (0, 2, 640, 480, 75),
    (0, 1, 800, 600, 56),
    (0, 0, 800, 600, 60),
    (1, 7, 800, 600, 72),
    (1, 6, 800, 600, 75),
    (1, 5, 832, 624, 75),
    (1, 3, 1024, 768, 60),
    (1, 2, 1024, 768, 70),
    (1, 1, 1024, 768, 75),
    (1, 0, 1280, 1024, 75),
    (2, 7, 1152, 870, 75),
];

/// Byte and mask of the mode among the established timings.
pub(super) fn established_bit(mode: Mode) -> Option<(usize, u8)> {
    ESTABLISHED
        .iter()
        .find(|(_, _, width, height, refresh)| mode == Mode::new(*width, *height, *refresh))
        .map(|(byte, bit, ..)| (*byte, 1u8.checked_shl(u32::from(*bit)).unwrap_or(0)))
}

/// Aspect ratio of a standard timing, as its two top bits.
const RATIO_16_10: u8 = 0b0000_0000;
const RATIO_4_3: u8 = 0b0100_0000;
const RATIO_5_4: u8 = 0b1000_0000;
const RATIO_16_9: u8 = 0b1100_0000;

/// Modes of the VESA Display Monitor Timing standard that have a standard timing code: width,
/// height, ratio, refresh rates. A guest need not know the timing of any other mode that such a
/// code can name, and Linux drops those.
///
/// Source: VESA DMT 1.0 r13, table "DMT summary".
const STANDARD: [(u32, u32, u8, &[u32]); 16] = [
    (640, 480, RATIO_4_3, &[60, 72, 75, 85]),
    (800, 600, RATIO_4_3, &[60, 72, 75, 85]),
    (1024, 768, RATIO_4_3, &[60, 70, 75, 85]),
    (1152, 864, RATIO_4_3, &[75]),
    (1280, 720, RATIO_16_9, &[60]),
    (1280, 800, RATIO_16_10, &[60, 75, 85]),
    (1280, 960, RATIO_4_3, &[60, 85]),
    (1280, 1024, RATIO_5_4, &[60, 75, 85]),
    (1400, 1050, RATIO_4_3, &[60, 75, 85]),
    (1440, 900, RATIO_16_10, &[60, 75, 85]),
    (1600, 900, RATIO_16_9, &[60]),
    (1600, 1200, RATIO_4_3, &[60, 65, 70, 75, 85]),
    (1680, 1050, RATIO_16_10, &[60, 75, 85]),
    (1920, 1080, RATIO_16_9, &[60]),
    (1920, 1200, RATIO_16_10, &[60, 75, 85]),
    (1920, 1440, RATIO_4_3, &[60, 75]),
];

/// The two bytes of the mode as a standard timing.
pub(super) fn standard_code(mode: Mode) -> Option<[u8; 2]> {
    let (width, _, ratio, _) = STANDARD.iter().find(|(width, height, _, rates)| {
        (*width, *height) == (mode.width, mode.height) && rates.contains(&mode.refresh_hz)
    })?;
    let cells = u8::try_from((width / 8).checked_sub(31)?).ok()?;
    let rate = u8::try_from(mode.refresh_hz.checked_sub(60)?).ok()?;
    (rate < 64).then_some([cells, ratio | rate])
}
