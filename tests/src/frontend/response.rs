//! Reading virtio-gpu responses.

use super::error::{Error, Result};
use super::message::{u32_at, u64_at};
use super::request::Rect;

/// Response types, as the specification numbers them.
#[expect(
    missing_docs,
    reason = "named as in the specification, which documents them"
)]
pub mod resp {
    pub const OK_NODATA: u32 = 0x1100;
    pub const OK_DISPLAY_INFO: u32 = 0x1101;
    pub const OK_CAPSET_INFO: u32 = 0x1102;
    pub const OK_CAPSET: u32 = 0x1103;
    pub const OK_EDID: u32 = 0x1104;
    pub const OK_RESOURCE_UUID: u32 = 0x1105;
    pub const OK_MAP_INFO: u32 = 0x1106;
    pub const ERR_UNSPEC: u32 = 0x1200;
    pub const ERR_OUT_OF_MEMORY: u32 = 0x1201;
    pub const ERR_INVALID_SCANOUT_ID: u32 = 0x1202;
    pub const ERR_INVALID_RESOURCE_ID: u32 = 0x1203;
    pub const ERR_INVALID_CONTEXT_ID: u32 = 0x1204;
    pub const ERR_INVALID_PARAMETER: u32 = 0x1205;
}

/// Bytes of a response header.
pub const HEADER: usize = 24;
/// Bytes of a display-info response.
pub const DISPLAY_INFO: usize = HEADER + 16 * 24;
/// Bytes of an EDID response.
pub const EDID: usize = HEADER + 8 + 1024;
/// Bytes of a UUID response.
pub const UUID: usize = HEADER + 16;
/// Bytes of a capset-info response.
pub const CAPSET_INFO: usize = HEADER + 16;
/// Bytes of the response that carries the one capability set.
pub const CAPSET: usize = HEADER + 16;
/// Bytes of a map-info response.
pub const MAP_INFO: usize = HEADER + 8;

/// What came back for one command: the whole response buffer and how much the device says it wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    bytes: Vec<u8>,
    written: u32,
}

/// One entry of a display-info response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DisplayOne {
    /// Position and size.
    pub rect: Rect,
    /// Whether the display is on.
    pub enabled: bool,
    /// Flags.
    pub flags: u32,
}

impl Response {
    /// What response buffers hold before the device writes.
    pub const UNTOUCHED: u8 = 0xa5;

    /// From the whole buffer and the length in the used ring.
    pub fn new(bytes: Vec<u8>, written: u32) -> Self {
        Response { bytes, written }
    }

    /// Bytes that the device says it wrote.
    pub fn written(&self) -> usize {
        self.written as usize
    }

    /// The bytes that were written.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.written()]
    }

    /// The bytes of the buffer that the device says it did not write.
    pub fn beyond(&self) -> &[u8] {
        &self.bytes[self.written()..]
    }

    /// Whether all bytes not written are as they were before.
    pub fn beyond_is_untouched(&self) -> bool {
        self.beyond().iter().all(|b| *b == Self::UNTOUCHED)
    }

    /// The response type, or 0 when there is no whole header.
    pub fn kind(&self) -> u32 {
        if self.written() < HEADER {
            0
        } else {
            u32_at(&self.bytes, 0)
        }
    }

    /// Header flags.
    pub fn flags(&self) -> u32 {
        u32_at(self.bytes(), 4)
    }

    /// Fence id in the header.
    pub fn fence_id(&self) -> u64 {
        u64_at(self.bytes(), 8)
    }

    /// Context id in the header.
    pub fn context(&self) -> u32 {
        u32_at(self.bytes(), 16)
    }

    /// Ring index in the header.
    pub fn ring_idx(&self) -> u8 {
        self.bytes()[20]
    }

    /// The response itself when it has the expected type.
    ///
    /// # Errors
    /// [`Error::Refused`] naming the command.
    pub fn expect(self, command: &str, expected: u32) -> Result<Self> {
        match self.kind() {
            got if got == expected => Ok(self),
            got => Err(Error::Refused {
                command: command.to_owned(),
                got,
                expected,
            }),
        }
    }

    /// The sixteen displays of an OK_DISPLAY_INFO response.
    pub fn displays(&self) -> [DisplayOne; 16] {
        displays(self.bytes())
    }

    /// The EDID of an OK_EDID response, cut to its stated size.
    pub fn edid(&self) -> &[u8] {
        let size = u32_at(self.bytes(), HEADER) as usize;
        &self.bytes()[HEADER + 8..HEADER + 8 + size]
    }

    /// Capability set id, highest version and size of an OK_CAPSET_INFO response.
    pub fn capset_info(&self) -> [u32; 3] {
        [0, 4, 8].map(|at| u32_at(self.bytes(), HEADER + at))
    }

    /// The map info of an OK_MAP_INFO response (1 cached, 2 uncached, 3 write-combining).
    pub fn map_info(&self) -> u32 {
        u32_at(self.bytes(), HEADER)
    }

    /// The UUID of an OK_RESOURCE_UUID response.
    pub fn uuid(&self) -> [u8; 16] {
        self.bytes()[HEADER..HEADER + 16]
            .try_into()
            .expect("16 bytes")
    }
}

/// Reads the sixteen entries after a response header.
pub fn displays(bytes: &[u8]) -> [DisplayOne; 16] {
    std::array::from_fn(|at| {
        let at = HEADER + 24 * at;
        let field = |n: usize| u32_at(bytes, at + 4 * n);
        DisplayOne {
            rect: Rect::new(field(0), field(1), field(2), field(3)),
            enabled: field(4) != 0,
            flags: field(5),
        }
    })
}
