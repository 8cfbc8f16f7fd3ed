//! Flushing of one front-end's memory, and what becomes of memory whose last flush fails.
//!
//! That flush maps the memory, brings its pages in and flushes their lines. A kernel without memory to
//! spare refuses it for a while; a device that has gone, or a page that is broken, for good. The memory
//! must not be used again before it is flushed, so it is kept until then, and the guest's quota stays
//! charged with it. Flushing it is tried again when a guest lets go of other memory, one piece each time,
//! and once more when the front-end has gone. What cannot be flushed even then is never given back.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::alloc::HostMemory;
use super::flush::{FlushError, FlushStats, Flusher};
use crate::sync::lock;

/// Flushes the memory of one front-end. It ends with the last piece of that memory.
pub struct Quarantine {
    flusher: Arc<dyn Flusher>,
    /// What could not be flushed, the next to try first. A piece that is being tried is not in it.
    waiting: Mutex<VecDeque<HostMemory>>,
    /// What there is of it, the piece that is being tried included.
    pieces: AtomicUsize,
    bytes: AtomicU64,
}

/// Memory that is kept because it could not be flushed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// How many pieces; each may have a file descriptor of its own.
    pub pieces: usize,
    /// Bytes of all of them.
    pub bytes: u64,
}

impl fmt::Debug for Quarantine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Quarantine({:?})", self.kept())
    }
}

impl Quarantine {
    /// Nothing is kept yet.
    #[must_use]
    pub fn new(flusher: Arc<dyn Flusher>) -> Self {
        Self {
            flusher,
            waiting: Mutex::default(),
            pieces: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    /// Flushes memory before it is exposed for the first time.
    ///
    /// # Errors
    /// It must not be exposed.
    pub(super) fn expose(&self, memory: &HostMemory) -> Result<(), FlushError> {
        self.flusher.flush(memory)
    }

    /// Flushes memory whose last exposure is over, or keeps it.
    pub(super) fn release(&self, memory: &HostMemory) {
        let Err(error) = self.flusher.flush(memory) else {
            return;
        };
        let piece = memory.clone();
        self.bytes.fetch_add(piece.len(), Ordering::Relaxed);
        if self.pieces.fetch_add(1, Ordering::Relaxed) == 0 {
            log::error!(
                "{} bytes of noncoherent memory are kept, and count as the guest's, until they can \
                 be flushed: {error}",
                piece.len()
            );
        }
        lock(&self.waiting).push_back(piece);
    }

    /// Tries to flush one of the pieces that are kept, where there are any. Takes its time; not to be
    /// called with anything locked.
    pub(super) fn retry(&self) {
        if self.pieces.load(Ordering::Relaxed) == 0 {
            return;
        }
        // Taken out, as a flush takes long.
        let Some(piece) = lock(&self.waiting).pop_front() else {
            return;
        };
        match self.flusher.flush(&piece) {
            Ok(()) => {
                log::info!("{} bytes that were kept are flushed now", piece.len());
                self.bytes.fetch_sub(piece.len(), Ordering::Relaxed);
                self.pieces.fetch_sub(1, Ordering::Relaxed);
            }
            Err(_) => lock(&self.waiting).push_back(piece),
        }
    }

    /// What is kept now.
    #[must_use]
    pub fn kept(&self) -> Kept {
        Kept {
            pieces: self.pieces.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }

    /// What was flushed up to now.
    #[must_use]
    pub fn stats(&self) -> FlushStats {
        self.flusher.stats()
    }
}

impl fmt::Display for Quarantine {
    /// What was flushed, and what could not be, for the operator.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FlushStats {
            flushes,
            bytes,
            nanos,
        } = self.stats();
        let micros = nanos / 1000;
        write!(
            f,
            "{flushes} cache flushes of {bytes} bytes in all took {micros} us"
        )?;
        match self.kept() {
            Kept { pieces: 0, .. } => Ok(()),
            Kept { pieces, bytes } => write!(
                f,
                "; {pieces} pieces of {bytes} bytes in all are kept, as they could not be flushed"
            ),
        }
    }
}

impl Drop for Quarantine {
    /// The front-end and all of its memory have gone.
    fn drop(&mut self) {
        for _ in 0..self.kept().pieces {
            self.retry();
        }
        if self.stats().flushes > 0 {
            log::info!("{self}");
        }
        let Kept { pieces, bytes } = self.kept();
        if pieces > 0 {
            log::error!(
                "{bytes} bytes of noncoherent memory in {pieces} pieces are kept for good, as they \
                 cannot be flushed: restart nosnoop-gpu once the GPU is well again"
            );
        }
        // Whoever got these pages next would see what is in the caches now.
        lock(&self.waiting).drain(..).for_each(std::mem::forget);
    }
}

#[cfg(test)]
mod tests;
