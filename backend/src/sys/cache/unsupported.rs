//! Architectures whose cache instructions this program does not know.
#![expect(unsafe_code, reason = "the signature of the other architectures")]

/// There is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineFlush {}

pub(super) fn detect() -> Result<LineFlush, &'static str> {
    Err("this program does not know how to flush cache lines on this architecture")
}

impl LineFlush {
    /// The instruction.
    pub(crate) fn name(self) -> &'static str {
        match self {}
    }

    /// Bytes of a line.
    pub(crate) fn line(self) -> usize {
        match self {}
    }

    /// # Safety
    /// None is needed, as there is no such value.
    pub(super) unsafe fn flush_lines(self, _first: *const u8, _count: usize) {
        match self {}
    }
}
