//! arm64: DC CIVAC, clean and invalidate by address to the point of coherency.
//!
//! Linux lets user space execute it, and read the line size (`SCTLR_EL1.UCI` and `UCT`, or it does
//! the work itself on CPUs whose answers must be corrected). This has run on an emulated CPU, which
//! has no caches, and never on a real one.
#![expect(unsafe_code, reason = "instructions that have no safe form")]

use core::arch::asm;

/// The data cache's line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LineFlush {
    line: usize,
}

pub(super) fn detect() -> Result<LineFlush, &'static str> {
    let ctr: u64;
    // SAFETY: reading CTR_EL0 needs `SCTLR_EL1.UCT` or a kernel that answers in its place; Linux is
    // either. It touches no memory and no flags.
    unsafe { asm!("mrs {}, ctr_el0", out(reg) ctr, options(nomem, nostack, preserves_flags)) };
    from_ctr(ctr)
}

/// Bits 19:16 of CTR_EL0, `DminLine`: the logarithm of the words in the smallest line of any data
/// cache (Arm ARM, "CTR_EL0, Cache Type Register").
fn from_ctr(ctr: u64) -> Result<LineFlush, &'static str> {
    let [_, _, third, ..] = ctr.to_le_bytes();
    let words = 1_usize << (third & 0xf);
    let line = super::line_size(words.saturating_mul(4))?;
    Ok(LineFlush { line })
}

impl LineFlush {
    /// The instruction.
    pub(crate) fn name(self) -> &'static str {
        "dc civac"
    }

    /// Bytes of a line.
    pub(crate) fn line(self) -> usize {
        self.line
    }

    /// Flushes `count` lines from `first` on, and waits for it. The barriers are those of the full
    /// system, as the device may be outside of the CPUs' shareability domain.
    ///
    /// # Safety
    /// Each of these lines lies in a page that is mapped readable.
    pub(super) unsafe fn flush_lines(self, first: *const u8, count: usize) {
        barrier();
        let mut line = first;
        for _ in 0..count {
            // SAFETY: DC CIVAC at EL0 needs `SCTLR_EL1.UCI`, which Linux sets, and a page that is
            // mapped readable, by the caller's promise. It changes no byte, register or flag and
            // uses no stack.
            unsafe { asm!("dc civac, {}", in(reg) line, options(nostack, preserves_flags)) };
            line = line.wrapping_add(self.line);
        }
        barrier();
    }
}

fn barrier() {
    // SAFETY: DSB has no operands and is there at every exception level; it changes nothing.
    unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_that_of_ctr() {
        // Cortex-A72: 64 bytes; Apple M1 under Linux the same; 128 where DminLine is 5.
        assert_eq!(from_ctr(0x8444_c004).unwrap().line(), 64);
        assert_eq!(from_ctr(0x0005_0000).unwrap().line(), 128);
        assert_eq!(from_ctr(!0x000f_0000).unwrap().line(), 4);
        // Longer than a page: nothing that exists.
        from_ctr(0x000b_0000).unwrap_err();
    }
}
