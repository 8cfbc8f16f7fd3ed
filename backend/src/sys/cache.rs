//! Writing cache lines back to memory and forgetting them.
//!
//! What a flush is for: memory that a device accesses without asking the CPUs' caches. A dirty line
//! would be written over the device's data at some later time, a clean one would hide it. So a
//! flush does both, write back and invalidate; instructions that may keep the line (CLWB, DC CVAC)
//! are not used.
//!
//! CPUs may fetch lines of cacheable memory at any time, unasked: a flush says nothing of what is in
//! the caches later. That is why memory is flushed once more when the device is done with it.
#![expect(unsafe_code, reason = "flushing takes addresses")]

use std::io;
use std::sync::OnceLock;

use super::mmap::Mapping;

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "aarch64")]
use aarch64 as arch;

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
use x86_64 as arch;

#[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
mod unsupported;
#[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
use unsupported as arch;

/// How the lines of this machine's caches are flushed.
pub(crate) use arch::LineFlush;

/// What this machine can, asked for once. The error says why there is nothing.
pub(crate) fn line_flush() -> Result<LineFlush, &'static str> {
    static DETECTED: OnceLock<Result<LineFlush, &'static str>> = OnceLock::new();
    *DETECTED.get_or_init(arch::detect)
}

/// Writes all lines that hold any of the `len` bytes from `at` on back to memory and invalidates
/// them, on all CPUs: when this returns, what was written to them before is in memory, and what is
/// read from them later comes from there. What the bytes are does not change.
///
/// By the mapping's addresses, the lines of the memory are flushed, whoever else maps it and as
/// what. Pages that the file does not have yet are taken from the host; see [`Mapping::populate`].
///
/// Only for mappings of RAM: to flush lines of a device's memory is a machine check on some hosts.
///
/// # Errors
/// `InvalidInput`, and nothing is flushed, when not all bytes lie inside the mapping.
pub(crate) fn flush(how: LineFlush, mapping: &Mapping, at: usize, len: usize) -> io::Result<()> {
    let start = mapping
        .address(at, len)
        .ok_or(io::ErrorKind::InvalidInput)?;
    let lines = Lines::around(start.addr(), len, how.line());
    let first = start.with_addr(lines.first);
    // SAFETY: `flush_lines` needs readable pages under `lines.count` lines from `first` on. Each of
    // these lines holds a byte of the range, which lies in the mapping, as `address` has checked; a
    // line does not cross pages (`line_size`), and the mapping's pages are readable and stay until
    // it is dropped, which the borrow forbids.
    unsafe { how.flush_lines(first, lines.count) };
    Ok(())
}

/// The lines that a range of bytes touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lines {
    /// The address of the first.
    first: usize,
    count: usize,
}

impl Lines {
    /// `line` is a power of two. Of a range that runs past the last address, what is before it.
    fn around(start: usize, len: usize, line: usize) -> Self {
        let within = line.wrapping_sub(1);
        let first = start & !within;
        let Some(more) = len.checked_sub(1) else {
            return Self { first, count: 0 };
        };
        let last = start.saturating_add(more) & !within;
        // Both are multiples of `line`, and of all addresses there are no more lines than fit.
        let count = last
            .wrapping_sub(first)
            .checked_div(line)
            .map_or(0, |between| between.saturating_add(1));
        Self { first, count }
    }
}

/// A line size that can be relied on: a power of two, and no more than a page, so that the lines
/// of a mapping's bytes are all inside of it.
fn line_size(bytes: usize) -> Result<usize, &'static str> {
    if bytes.is_power_of_two() && bytes <= 4096 {
        Ok(bytes)
    } else {
        Err("the CPU says nothing sensible of the size of its cache lines")
    }
}

#[cfg(test)]
mod tests;
