//! The instructions that are compared. CLWB is here only: the daemon has no use for an instruction
//! that may keep the line.
#![expect(unsafe_code, reason = "instructions that have no safe form")]

use core::arch::asm;
use core::arch::x86_64::{
    __cpuid, __cpuid_count, __get_cpuid_max, _mm_clflush, _mm_lfence, _mm_mfence, _rdtsc,
};
use std::hint::black_box;

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use vm_memory::MmapRegion;

use super::Time;

/// An instruction that writes cache lines back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Instruction {
    /// Writes back and invalidates, one after the other.
    Clflush,
    /// The same, many at a time.
    Clflushopt,
    /// Writes back and may keep the line.
    Clwb,
}

impl Instruction {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Clflush, Self::Clflushopt, Self::Clwb];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Clflush => "clflush",
            Self::Clflushopt => "clflushopt",
            Self::Clwb => "clwb",
        }
    }
}

/// What this CPU has.
#[derive(Clone, Debug)]
pub struct Cpu {
    /// Those that exist here.
    pub instructions: Vec<Instruction>,
    /// Bytes of a cache line.
    pub line: usize,
}

impl Cpu {
    /// Asks CPUID (Intel SDM vol. 2, "CPUID", leaves 1 and 7).
    #[must_use]
    pub fn detect() -> Self {
        let (most, _) = __get_cpuid_max(0);
        let extended = if most >= 7 {
            __cpuid_count(7, 0).ebx
        } else {
            0
        };
        let basic = __cpuid(1);
        let has = |instruction: &Instruction| match instruction {
            Instruction::Clflush => basic.edx & 1 << 19 != 0,
            Instruction::Clflushopt => extended & 1 << 23 != 0,
            Instruction::Clwb => extended & 1 << 24 != 0,
        };
        Self {
            instructions: Instruction::ALL.into_iter().filter(has).collect(),
            line: (basic.ebx >> 8 & 0xff) as usize * 8,
        }
    }

    /// Applies an instruction to every line of a mapping, between fences.
    ///
    /// # Panics
    /// If this CPU does not have it.
    pub fn flush(&self, instruction: Instruction, mapping: &MmapRegion) {
        assert!(self.instructions.contains(&instruction));
        fence();
        for line in (0..mapping.size()).step_by(self.line) {
            let line = mapping.as_ptr().wrapping_add(line);
            match instruction {
                Instruction::Clflush => {
                    // SAFETY: `_mm_clflush` needs SSE2, which every x86-64 CPU has, and an address
                    // that may be loaded from: it is in the mapping, which the reference keeps.
                    unsafe { _mm_clflush(line) };
                }
                Instruction::Clflushopt => {
                    // SAFETY: the CPU has it, as asserted; the address is as above. No byte,
                    // register or flag changes.
                    unsafe {
                        asm!("clflushopt [{}]", in(reg) line, options(nostack, preserves_flags));
                    };
                }
                Instruction::Clwb => {
                    // SAFETY: as for clflushopt.
                    unsafe { asm!("clwb [{}]", in(reg) line, options(nostack, preserves_flags)) };
                }
            }
        }
        fence();
    }
}

fn fence() {
    // SAFETY: `_mm_mfence` needs SSE2, which every x86-64 CPU has.
    unsafe { _mm_mfence() };
}

/// The time-stamp counter, after everything before and before everything after.
fn now() -> u64 {
    // SAFETY: `_mm_lfence` needs SSE2, which every x86-64 CPU has.
    unsafe { _mm_lfence() };
    // SAFETY: every x86-64 CPU has RDTSC, and Linux lets user space use it.
    let cycles = unsafe { _rdtsc() };
    // SAFETY: as above.
    unsafe { _mm_lfence() };
    cycles
}

/// How long `work` takes, and what it gives.
pub fn timed<T>(work: impl FnOnce() -> T) -> (Time, T) {
    let began = cpu_nanos();
    let start = now();
    let result = work();
    let cycles = now() - start;
    let cpu_nanos = cpu_nanos() - began;
    (Time { cycles, cpu_nanos }, result)
}

/// How long this thread has had a CPU.
fn cpu_nanos() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Writes `byte` everywhere: all lines are dirty, as far as the caches reach.
pub fn fill(mapping: &MmapRegion, byte: u8) {
    // SAFETY: all of the mapping is writable, it lives, and no reference leads into it; nobody else
    // uses this measurement's file.
    unsafe { mapping.as_ptr().write_bytes(byte, mapping.size()) };
}

/// Reads one byte in each `step`.
pub fn touch(mapping: &MmapRegion, step: usize) {
    for at in (0..mapping.size()).step_by(step) {
        load(mapping, at);
    }
}

/// Writes one byte of each page, as a guest's first access does.
pub fn first_stores(mapping: &MmapRegion) {
    for at in (0..mapping.size()).step_by(4096) {
        // SAFETY: `at` is inside of the mapping, which is writable and lives.
        unsafe { mapping.as_ptr().wrapping_add(at).write_volatile(1) };
    }
}

/// Copies everything out.
///
/// # Panics
/// If `to` is shorter than the mapping.
pub fn copy(mapping: &MmapRegion, to: &mut [u8]) {
    assert!(to.len() >= mapping.size());
    // SAFETY: all of the mapping is readable and lives, `to` is no shorter, as asserted, and memory
    // of this process's own; nobody else uses this measurement's file.
    unsafe {
        mapping
            .as_ptr()
            .copy_to_nonoverlapping(to.as_mut_ptr(), mapping.size());
    };
    black_box(to);
}

/// Cycles to load a byte, one in each page, as the CPU fetches its neighbours too.
#[must_use]
pub fn load_times(mapping: &MmapRegion) -> Vec<u64> {
    (0..mapping.size() / 4096)
        .map(|page| {
            let start = now();
            load(mapping, page * 4096 + page * 1664 % 4096);
            now() - start
        })
        .collect()
}

fn load(mapping: &MmapRegion, at: usize) {
    assert!(at < mapping.size());
    // SAFETY: `at` is inside of the mapping, as asserted, which is readable and lives.
    unsafe { mapping.as_ptr().wrapping_add(at).read_volatile() };
}
