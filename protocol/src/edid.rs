//! EDID: what a display says about itself.
//!
//! [`generate`] writes EDID 1.4 (VESA E-EDID A2) for displays that exist only here.

mod block;
#[cfg(test)]
mod tests;
mod timing;

use block::{BLOCK_BYTES, Base, EXTENSION_TIMINGS, Limits, Millimetres, STANDARD_TIMINGS};
use timing::{MAX_ACTIVE, MAX_REFRESH_HZ, MIN_ACTIVE, Timing};

/// Bytes that a response has room for.
const MAX_BYTES: usize = 1024;

/// An EDID of 1 to 1024 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edid(Vec<u8>);

impl Edid {
    /// An EDID as a display gave it; its contents are not checked. `None` when `bytes` is empty or
    /// longer than the 1024 bytes of VIRTIO_GPU_RESP_OK_EDID.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        (1..=MAX_BYTES)
            .contains(&bytes.len())
            .then(|| Self(bytes.to_vec()))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Length as the wire has it.
    pub(crate) fn wire_size(&self) -> u32 {
        // Never more than MAX_BYTES.
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }
}

/// A display mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mode {
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Pictures per second.
    pub refresh_hz: u32,
}

impl Mode {
    /// A mode of `width` x `height` pixels, `refresh_hz` times a second.
    #[must_use]
    pub const fn new(width: u32, height: u32, refresh_hz: u32) -> Self {
        Self {
            width,
            height,
            refresh_hz,
        }
    }
}

/// What [`generate`] describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EdidSpec<'a> {
    /// The preferred mode. See [`generate`] for modes that EDID cannot hold.
    pub preferred: Mode,
    /// Further modes that are offered, most important first.
    pub modes: &'a [Mode],
    /// Name of the display; its first 13 printable ASCII characters are taken.
    pub name: &'a str,
    /// Serial number, 0 for none.
    pub serial: u32,
}

/// Refresh rate of a preferred mode that gives none.
const DEFAULT_REFRESH_HZ: u32 = 60;

/// The EDID of a display of about 100 pixels per inch: a base block of 128 bytes, and a CTA-861
/// extension block when that is too small for the modes.
///
/// The preferred mode is the first detailed timing. A detailed timing holds 64 to 4095 pixels in
/// each direction and a pixel clock of at most 655.35 MHz. A preferred mode beyond that keeps its
/// size and gets the highest whole refresh rate that fits (3840x2160 at 144 Hz becomes 73 Hz); a
/// size beyond it is scaled to fit, with the same aspect ratio as far as that goes (5120x2880
/// becomes 4088x2299). A refresh rate of 0 means 60 Hz.
///
/// A further mode becomes an established timing where there is one, a standard timing where VESA
/// has defined one, or a detailed timing: one in the base block and 6 in the extension. Modes that
/// a detailed timing cannot hold, repeated ones and those that find no room are left out. With an
/// extension 640x480 at 60 Hz is always offered, because CTA-861 demands it.
#[must_use]
pub fn generate(spec: &EdidSpec<'_>) -> Edid {
    let (mode, preferred) = fit(spec.preferred);
    let mut offered = Offered::new(mode, preferred);
    for mode in spec.modes {
        offered.add(*mode);
    }
    if offered.needs_extension() {
        offered.add_established(Mode::new(640, 480, 60));
    }
    let has_extension = offered.needs_extension();
    let (further, extension) = match offered.detailed.split_first() {
        Some((first, rest)) => (Some(first), rest),
        None => (None, [].as_slice()),
    };
    let size = Millimetres {
        width: millimetres(preferred.width),
        height: millimetres(preferred.height),
    };
    let mut bytes = Vec::with_capacity(2 * BLOCK_BYTES);
    Base {
        serial: spec.serial,
        size,
        established: offered.established,
        standard: &offered.standard,
        preferred: &preferred,
        further,
        limits: offered.spread.limits(),
        name: &name_of(spec.name),
        has_extension,
    }
    .write(&mut bytes);
    if has_extension {
        block::write_extension(extension, size, &mut bytes);
    }
    Edid(bytes)
}

/// The preferred mode as a detailed timing can hold it.
fn fit(wanted: Mode) -> (Mode, Timing) {
    let refresh = match wanted.refresh_hz {
        0 => DEFAULT_REFRESH_HZ,
        hz => hz.min(MAX_REFRESH_HZ),
    };
    let (width, height) = scale(wanted.width, wanted.height);
    (1..=refresh)
        .rev()
        .map(|refresh| Mode::new(width, height, refresh))
        .find_map(|mode| Timing::cvt_reduced(mode).map(|timing| (mode, timing)))
        // Not reached: every size fits at 24 Hz.
        .unwrap_or((Mode::new(640, 480, 60), Timing::FALLBACK))
}

/// The size itself where both sides are at most [`MAX_ACTIVE`], else one of about the same aspect
/// ratio whose width is a multiple of 8, as CVT has it. Both sides are at least [`MIN_ACTIVE`].
fn scale(width: u32, height: u32) -> (u32, u32) {
    let side = |pixels: u64| {
        u32::try_from(pixels)
            .unwrap_or(MAX_ACTIVE)
            .clamp(MIN_ACTIVE, MAX_ACTIVE)
    };
    let (w, h) = (u64::from(width.max(1)), u64::from(height.max(1)));
    let longest = w.max(h);
    if longest <= u64::from(MAX_ACTIVE) {
        return (side(w), side(h));
    }
    let share = |pixels: u64, of: u64, whole: u64| {
        // No divisor is 0: both sides are at least 1 by now.
        pixels.saturating_mul(of).checked_div(whole).unwrap_or(0)
    };
    let new_width = side(share(w, u64::from(MAX_ACTIVE), longest) & !7);
    (new_width, side(share(h, u64::from(new_width), w)))
}

/// Length at 100 pixels per inch.
fn millimetres(pixels: u16) -> u16 {
    u16::try_from(u32::from(pixels).saturating_mul(254) / 1000).unwrap_or(u16::MAX)
}

/// What a text descriptor can show of a name.
fn name_of(name: &str) -> String {
    let printable = name.chars().filter(|c| *c == ' ' || c.is_ascii_graphic());
    let cut: String = printable.take(13).collect();
    match cut.trim() {
        "" => "Display".to_owned(),
        text => text.to_owned(),
    }
}

/// The modes, each in the place that the EDID has for it.
struct Offered {
    preferred: Mode,
    established: [u8; 3],
    standard: Vec<[u8; 2]>,
    detailed: Vec<Timing>,
    spread: Spread,
}

impl Offered {
    /// Detailed timings behind the preferred one, in both blocks.
    const MAX_DETAILED: usize = 1 + EXTENSION_TIMINGS;

    fn new(preferred: Mode, timing: Timing) -> Self {
        Self {
            preferred,
            established: [0; 3],
            standard: Vec::new(),
            detailed: Vec::new(),
            spread: Spread::new(preferred, &timing),
        }
    }

    fn needs_extension(&self) -> bool {
        self.detailed.len() > 1
    }

    fn add(&mut self, mode: Mode) {
        // Modes that a detailed timing cannot hold are not offered by another way either.
        let Some(timing) = Timing::cvt_reduced(mode) else {
            return;
        };
        if mode == self.preferred || self.add_established(mode) || self.add_standard(mode) {
            return;
        }
        if self.detailed.len() < Self::MAX_DETAILED && !self.detailed.contains(&timing) {
            self.detailed.push(timing);
            self.spread.cover_detailed(mode, &timing);
        }
    }

    fn add_established(&mut self, mode: Mode) -> bool {
        let Some((index, bit)) = timing::established_bit(mode) else {
            return false;
        };
        if let Some(byte) = self.established.get_mut(index) {
            *byte |= bit;
        }
        self.spread.cover_named(mode);
        true
    }

    fn add_standard(&mut self, mode: Mode) -> bool {
        let Some(code) = timing::standard_code(mode) else {
            return false;
        };
        if self.standard.contains(&code) {
            return true;
        }
        if self.standard.len() >= STANDARD_TIMINGS {
            return false;
        }
        self.standard.push(code);
        self.spread.cover_named(mode);
        true
    }
}

/// The rates of all modes.
struct Spread {
    refresh_hz: (u32, u32),
    line_hz: (u64, u64),
    clock_hz: u64,
}

impl Spread {
    fn new(mode: Mode, timing: &Timing) -> Self {
        let line_hz = timing.line_rate_hz();
        Self {
            refresh_hz: (mode.refresh_hz, mode.refresh_hz),
            line_hz: (line_hz, line_hz),
            clock_hz: timing.clock_hz(),
        }
    }

    fn cover_detailed(&mut self, mode: Mode, timing: &Timing) {
        let line_hz = timing.line_rate_hz();
        self.cover(mode.refresh_hz, (line_hz, line_hz), timing.clock_hz());
    }

    /// A mode whose timing stands in a VESA table: its blanking adds at most 15 % of the lines and
    /// half of the pixels.
    fn cover_named(&mut self, mode: Mode) {
        let lines = u64::from(mode.refresh_hz).saturating_mul(u64::from(mode.height));
        let pixels = lines.saturating_mul(u64::from(mode.width));
        self.cover(
            mode.refresh_hz,
            (lines, lines.saturating_mul(115) / 100),
            pixels.saturating_mul(3) / 2,
        );
    }

    fn cover(&mut self, refresh_hz: u32, line_hz: (u64, u64), clock_hz: u64) {
        let (low, high) = self.refresh_hz;
        self.refresh_hz = (low.min(refresh_hz), high.max(refresh_hz));
        let (low, high) = self.line_hz;
        self.line_hz = (low.min(line_hz.0), high.max(line_hz.1));
        self.clock_hz = self.clock_hz.max(clock_hz);
    }

    /// Rounded outwards, with 1 Hz to spare: real rates are not whole.
    fn limits(&self) -> Limits {
        let rate = |hz: u64| u16::try_from(hz).unwrap_or(u16::MAX);
        Limits {
            refresh_hz: (
                rate(u64::from(self.refresh_hz.0.saturating_sub(1))),
                rate(u64::from(self.refresh_hz.1.saturating_add(1))),
            ),
            line_khz: (
                rate(self.line_hz.0 / 1000),
                rate((self.line_hz.1 / 1000).saturating_add(1)),
            ),
            clock_10mhz: u8::try_from(self.clock_hz.div_ceil(10_000_000)).unwrap_or(u8::MAX),
        }
    }
}
