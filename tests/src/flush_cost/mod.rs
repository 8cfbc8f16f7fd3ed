//! What flushing costs on this machine: by instruction and state of the lines ([`lines`]), and in
//! the life of a blob ([`blob`]).
//!
//! Pages are those of memfds: RAM, and cacheable. Everything is measured by turns within one run, and
//! given as median with the tenth and the ninetieth percentile, since other work on the machine
//! disturbs single values. Cycles are those of the time-stamp counter, which go on while another
//! program has the CPU; the CPU time of this one does not.

pub mod blob;
pub mod cpu;
pub mod lines;

use std::fmt;
use std::fs;
use std::io;

use serde::Serialize;
use vm_memory::{FileOffset, MmapRegion};

use nosnoop_gpu::memory::alloc::HostMemory;

/// Bytes of a mebibyte.
pub const MIB: usize = 1 << 20;

/// How long something took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// Cycles of the time-stamp counter.
    pub cycles: u64,
    /// Nanoseconds that this thread had a CPU.
    pub cpu_nanos: u64,
}

/// Where the middle of many values is, and most of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// A tenth is less.
    pub p10: u64,
    /// Half is less.
    pub median: u64,
    /// A tenth is more.
    pub p90: u64,
}

impl Spread {
    /// Of at least one value.
    #[must_use]
    pub fn of(mut values: Vec<u64>) -> Self {
        values.sort_unstable();
        let at = |tenths| values[(values.len() - 1) * tenths / 10];
        Self {
            p10: at(1),
            median: at(5),
            p90: at(9),
        }
    }
}

/// The times of something that was done many times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Times {
    /// Cycles of the time-stamp counter.
    pub cycles: Spread,
    /// Nanoseconds that this thread had a CPU.
    pub cpu_nanos: Spread,
}

impl Times {
    /// How many times the CPU time of `other`.
    #[must_use]
    pub fn ratio(&self, other: &Self) -> f64 {
        self.cpu_nanos.median as f64 / other.cpu_nanos.median as f64
    }

    /// Of at least one value.
    #[must_use]
    pub fn of(values: &[Time]) -> Self {
        Self {
            cycles: Spread::of(values.iter().map(|time| time.cycles).collect()),
            cpu_nanos: Spread::of(values.iter().map(|time| time.cpu_nanos).collect()),
        }
    }
}

impl fmt::Display for Times {
    /// Thousands of cycles: median, p10, p90; then microseconds of CPU time, the median.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let thousands = |value: u64| value as f64 / 1e3;
        write!(
            f,
            "{:>10.1} {:>10.1} {:>10.1} {:>10.1}",
            thousands(self.cycles.median),
            thousands(self.cycles.p10),
            thousands(self.cycles.p90),
            thousands(self.cpu_nanos.median)
        )
    }
}

/// The columns of [`Times`].
pub const COLUMNS: &str = "   kcycles        p10        p90     cpu us";

/// Where and how it was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The CPU's name.
    pub cpu: String,
    /// The kernel's release.
    pub kernel: String,
    /// Bytes of a cache line.
    pub line: usize,
    /// CPUs of this machine, as this process may use them.
    pub cpus: usize,
    /// `/proc/loadavg` when the run began and ended: what else ran.
    pub load: [String; 2],
}

impl Machine {
    /// This one.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn here(line: usize) -> io::Result<Self> {
        let info = fs::read_to_string("/proc/cpuinfo")?;
        let cpu = info
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or("unknown", |(_, name)| name);
        Ok(Self {
            cpu: cpu.to_owned(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?
                .trim()
                .to_owned(),
            line,
            cpus: std::thread::available_parallelism()?.get(),
            load: [load()?, String::new()],
        })
    }

    /// To be called at the end.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn end(&mut self) -> io::Result<()> {
        self.load[1] = load()?;
        Ok(())
    }
}

fn load() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/loadavg")?.trim().to_owned())
}

/// Maps a blob as a front-end does.
fn map(memory: &HostMemory) -> io::Result<MmapRegion> {
    let file = fs::File::from(memory.fd().try_clone()?);
    let len = usize::try_from(memory.len()).map_err(io::Error::other)?;
    MmapRegion::from_file(FileOffset::new(file, memory.offset()), len).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_the_ordered_middle_and_tenths() {
        let spread = |p10, median, p90| Spread { p10, median, p90 };
        assert_eq!(Spread::of(vec![7]), spread(7, 7, 7));
        assert_eq!(Spread::of((0..=100).rev().collect()), spread(10, 50, 90));
        assert_eq!(Spread::of(vec![9, 1, 5]), spread(1, 5, 5));
    }
}
