//! Flushing the CPUs' caches where memory changes hands between them and devices that do not look
//! into these caches.
//!
//! There are two such places in the life of a noncoherent blob, and no others:
//!
//! 1. Before its pages are first exposed. The host's kernel has filled them with zeros through a
//!    cacheable mapping: without a flush, zeros that are still in a cache would be written over the
//!    device's data whenever the cache likes, and what was in memory before, another owner's data,
//!    would be there for the device to read.
//! 2. After the last exposure, when the front-end has answered that it has unmapped them, and before
//!    they are reused, freed or mapped cacheable. The kernel's cacheable mapping is still there, a
//!    CPU may have read ahead through it, and a guest may have mapped them cacheable against all
//!    advice.
//!
//! Between the two no flush is of use: a write-combining mapping brings nothing into the caches.
//! Coherent blobs are not flushed at all. The plan says which blob is which.
//!
//! What a flush cannot do is follow pages that the kernel replaces: only memory whose pages stay,
//! as those of a GPU driver's buffers do while a GPU or a mapping holds them, is exposed to
//! noncoherent accesses at all.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde::Serialize;

use super::alloc::HostMemory;
use super::fact::Fact;
use super::kind::PageKinds;
use crate::sys::cache;
use crate::sys::mmap::Mapping;

/// Why memory was not flushed. Until it is, noncoherent memory is neither exposed nor reused.
#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    /// Some of it may be device memory, the flushing of which is a machine check on some hosts.
    #[error("it may lie in a device's memory, and such cache lines must not be flushed")]
    DeviceMemory,
    /// What it is was not recorded, so that it may be device memory.
    #[error("what pages it has is not known, and those of a device must not be flushed")]
    UnknownPages,
    /// Nothing flushes on this machine; see [`available`].
    #[error("{0}")]
    Unavailable(&'static str),
    /// It could not be mapped, or has no pages.
    #[error("it cannot be mapped for a flush: {0}")]
    Map(#[source] io::Error),
}

/// What the life cycle of blobs flushes with.
pub trait Flusher: Send + Sync {
    /// Writes all of `memory` back and invalidates it, in all caches of all CPUs, and returns when
    /// that is done. That takes some 0.2 s for each GiB, and several times as long where the host
    /// has to find and clear the pages first: not to be called with anything locked.
    ///
    /// # Errors
    /// Nothing was flushed, or not all; it may be tried again.
    fn flush(&self, memory: &HostMemory) -> Result<(), FlushError>;

    /// What was flushed up to now.
    fn stats(&self) -> FlushStats;
}

/// Whether cache lines can be flushed here, and how. Without, nothing can be noncoherent.
#[must_use]
pub fn available() -> Fact<bool> {
    match cache::line_flush() {
        Ok(how) => Fact::known(true, format!("{}, {} bytes a line", how.name(), how.line())),
        Err(why) => Fact::known(false, why),
    }
}

/// Flushes with the CPU's own instructions.
#[derive(Debug, Default)]
pub struct CacheFlusher {
    flushes: AtomicU64,
    bytes: AtomicU64,
    nanos: AtomicU64,
}

impl Flusher for CacheFlusher {
    fn flush(&self, memory: &HostMemory) -> Result<(), FlushError> {
        permit(memory)?;
        let how = cache::line_flush().map_err(FlushError::Unavailable)?;
        let began = Instant::now();
        flush_now(how, memory).map_err(FlushError::Map)?;
        let nanos = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(memory.len(), Ordering::Relaxed);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
        log::debug!("flushed {} bytes in {} us", memory.len(), nanos / 1000);
        Ok(())
    }

    fn stats(&self) -> FlushStats {
        FlushStats {
            flushes: self.flushes.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            nanos: self.nanos.load(Ordering::Relaxed),
        }
    }
}

/// Only RAM is flushed.
fn permit(memory: &HostMemory) -> Result<(), FlushError> {
    match memory.traits().kinds {
        PageKinds::Ram => Ok(()),
        PageKinds::Mmio | PageKinds::Either => Err(FlushError::DeviceMemory),
        PageKinds::Unknown => Err(FlushError::UnknownPages),
    }
}

fn flush_now(how: cache::LineFlush, memory: &HostMemory) -> io::Result<()> {
    // To read is enough for the instructions, and there are files that are not mapped otherwise.
    let mapping = Mapping::read_only(&memory.fd(), memory.offset(), memory.len())?;
    // A page that came only later would come with dirty lines.
    mapping.populate()?;
    cache::flush(how, &mapping, 0, mapping.len())
}

/// What a [`Flusher`] has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FlushStats {
    /// Flushes that succeeded.
    pub flushes: u64,
    /// Bytes flushed by them.
    pub bytes: u64,
    /// Nanoseconds that they took, mapping the memory included.
    pub nanos: u64,
}

#[cfg(test)]
pub(crate) mod tests;
