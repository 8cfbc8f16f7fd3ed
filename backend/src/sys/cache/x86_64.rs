//! x86-64: CLFLUSHOPT, or CLFLUSH where there is nothing better.
#![expect(unsafe_code, reason = "instructions that have no safe form")]

use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count, __get_cpuid_max, _mm_clflush, _mm_mfence};

/// CPUID leaf 1, EDX: CLFLUSH is there.
const CLFSH: u32 = 1 << 19;
/// CPUID leaf 7, EBX.
const CLFLUSHOPT: u32 = 1 << 23;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instruction {
    Clflush,
    Clflushopt,
}

/// What CPUID says of flushing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LineFlush {
    instruction: Instruction,
    line: usize,
}

pub(super) fn detect() -> Result<LineFlush, &'static str> {
    let (most, _) = __get_cpuid_max(0);
    let basic = __cpuid(1);
    let extended = (most >= 7).then(|| __cpuid_count(7, 0).ebx);
    from_cpuid(basic.ebx, basic.edx, extended.unwrap_or(0))
}

/// From EBX and EDX of leaf 1 and EBX of leaf 7, subleaf 0 (Intel SDM vol. 2, "CPUID"; AMD APM
/// vol. 3, appendix E).
fn from_cpuid(
    basic_ebx: u32,
    basic_edx: u32,
    extended_ebx: u32,
) -> Result<LineFlush, &'static str> {
    if basic_edx & CLFSH == 0 {
        return Err("the CPU has no instruction to flush cache lines");
    }
    let [_, eighths, _, _] = basic_ebx.to_le_bytes();
    Ok(LineFlush {
        instruction: if extended_ebx & CLFLUSHOPT == 0 {
            Instruction::Clflush
        } else {
            Instruction::Clflushopt
        },
        line: super::line_size(usize::from(eighths).saturating_mul(8))?,
    })
}

impl LineFlush {
    /// The instruction.
    pub(crate) fn name(self) -> &'static str {
        match self.instruction {
            Instruction::Clflush => "clflush",
            Instruction::Clflushopt => "clflushopt",
        }
    }

    /// Bytes of a line.
    pub(crate) fn line(self) -> usize {
        self.line
    }

    /// Flushes `count` lines from `first` on, and waits for it.
    ///
    /// Of the memory's type under the addresses used, the instructions take no notice, and a
    /// read-only page will do: they are subject to the checks of a byte load (Intel SDM vol. 2,
    /// "CLFLUSHOPT").
    ///
    /// Order (the same place, and AMD APM vol. 3, "CLFLUSH"):
    /// - CLFLUSHOPT comes after older stores to its own line and after fences, and that is all. On
    ///   AMD, CLFLUSH too may be ordered by MFENCE alone. The first MFENCE has everything before
    ///   the call, streaming stores and stores through other addresses too, done by then.
    /// - Later loads pass flushes, and so could bring in what was there before, or be served from a
    ///   line about to go. SFENCE does not hold loads up, the second MFENCE does.
    /// - On Atoms from Bay Trail on that MFENCE does not wait for the last flush unless its line
    ///   is flushed twice (Linux, `drm_clflush_virt_range`; Mesa's Intel drivers do the same).
    ///
    /// # Safety
    /// Each of these lines lies in a page that is mapped readable.
    pub(super) unsafe fn flush_lines(self, first: *const u8, count: usize) {
        let Some(before_last) = count.checked_sub(1) else {
            return;
        };
        let last = first.wrapping_add(self.line.wrapping_mul(before_last));
        fence();
        let mut line = first;
        match self.instruction {
            Instruction::Clflush => {
                for _ in 0..count {
                    // SAFETY: `line` is one of the caller's lines, which are mapped.
                    unsafe { clflush(line) };
                    line = line.wrapping_add(self.line);
                }
                // SAFETY: as above.
                unsafe { clflush(last) };
            }
            Instruction::Clflushopt => {
                for _ in 0..count {
                    // SAFETY: `line` is one of the caller's lines, which are mapped; that the CPU
                    // has the instruction is what `Instruction::Clflushopt` means.
                    unsafe { clflushopt(line) };
                    line = line.wrapping_add(self.line);
                }
                // SAFETY: as above.
                unsafe { clflushopt(last) };
            }
        }
        fence();
    }
}

fn fence() {
    // SAFETY: `_mm_mfence` needs SSE2, which every x86-64 CPU has.
    unsafe { _mm_mfence() };
}

/// # Safety
/// `line` is in a page that is mapped readable.
unsafe fn clflush(line: *const u8) {
    // SAFETY: `_mm_clflush` needs SSE2, which every x86-64 CPU has, and an address that may be
    // loaded from, by the caller's promise. It changes no byte.
    unsafe { _mm_clflush(line) };
}

/// # Safety
/// `line` is in a page that is mapped readable, and the CPU has CLFLUSHOPT.
unsafe fn clflushopt(line: *const u8) {
    // SAFETY: the instruction needs a CPU that has it and an address that may be loaded from, both
    // by the caller's promise. It changes no byte, register or flag and uses no stack; as memory is
    // not excluded from what it may touch, the compiler keeps loads and stores where they are.
    unsafe { asm!("clflushopt [{}]", in(reg) line, options(nostack, preserves_flags)) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instruction_and_the_line_are_those_of_cpuid() {
        // EBX, EDX of leaf 1 and EBX of leaf 7 as an Ice Lake server reports them.
        let found = from_cpuid(0x0002_0800, 0x1f8b_fbff, 0xf1bf_2ffb).unwrap();
        assert_eq!((found.name(), found.line()), ("clflushopt", 64));
        // An Ivy Bridge: no CLFLUSHOPT.
        let found = from_cpuid(0x0010_0800, 0xbfeb_fbff, 0x0000_0281).unwrap();
        assert_eq!((found.name(), found.line()), ("clflush", 64));
        // Every bit but the one that counts, and that one alone.
        let found = from_cpuid(0xffff_04ff, 1 << 19, !(1 << 23)).unwrap();
        assert_eq!((found.name(), found.line()), ("clflush", 32));
        let found = from_cpuid(0x0000_1000, 1 << 19, 1 << 23).unwrap();
        assert_eq!((found.name(), found.line()), ("clflushopt", 128));
    }

    #[test]
    fn what_cpuid_leaves_open_is_no_flush() {
        from_cpuid(0x0000_0800, !(1 << 19), u32::MAX).unwrap_err();
        for eighths in [0_u32, 3, 255] {
            from_cpuid(eighths << 8, CLFSH, CLFLUSHOPT).unwrap_err();
        }
    }
}
