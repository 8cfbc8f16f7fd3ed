#![expect(
    clippy::arithmetic_side_effects,
    reason = "test code: an overflow is to stop the test"
)]

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Weak;

use super::*;
use crate::memory::PAGE_SIZE;
use crate::memory::alloc::memfd;
use crate::memory::flush::tests::Recorder;

/// A flusher that fails while this says so, and how often it was asked.
#[derive(Default)]
struct Fault {
    failing: Mutex<bool>,
    asked: AtomicUsize,
}

impl Fault {
    fn set(&self, failing: bool) {
        *lock(&self.failing) = failing;
    }

    fn take_asked(&self) -> usize {
        self.asked.swap(0, Ordering::Relaxed)
    }
}

fn quarantine() -> (Arc<Fault>, Quarantine) {
    let fault = Arc::new(Fault::default());
    let of_flusher = Arc::clone(&fault);
    let flusher = Recorder::new(move |_| {
        of_flusher.asked.fetch_add(1, Ordering::Relaxed);
        match *lock(&of_flusher.failing) {
            true => Err(FlushError::Map(io::ErrorKind::OutOfMemory.into())),
            false => Ok(()),
        }
    });
    (fault, Quarantine::new(Arc::new(flusher)))
}

/// Memory that is let go of, and what is left of it.
fn release(quarantine: &Quarantine, pages: u64) -> Weak<OwnedFd> {
    let memory = memfd::allocate(pages * PAGE_SIZE).unwrap();
    quarantine.release(&memory);
    Arc::downgrade(&memory.fd())
}

fn kept(pieces: usize, pages: u64) -> Kept {
    let bytes = pages * PAGE_SIZE;
    Kept { pieces, bytes }
}

#[test]
fn what_is_flushed_is_not_kept() {
    let (fault, quarantine) = quarantine();
    let file = release(&quarantine, 3);
    assert!(file.upgrade().is_none());
    assert_eq!(quarantine.kept(), Kept::default());
    quarantine.retry();
    assert_eq!(fault.take_asked(), 1);
}

#[test]
fn what_is_not_flushed_is_kept_until_it_is_one_piece_at_a_time() {
    let (fault, quarantine) = quarantine();
    fault.set(true);
    let files = [1, 2, 4].map(|pages| release(&quarantine, pages));
    assert_eq!((quarantine.kept(), fault.take_asked()), (kept(3, 7), 3));
    // The first is tried, and then waits behind the others.
    quarantine.retry();
    assert_eq!((quarantine.kept(), fault.take_asked()), (kept(3, 7), 1));
    fault.set(false);
    for (left, held) in [
        (kept(2, 5), [true, false, true]),
        (kept(1, 1), [true, false, false]),
        (kept(0, 0), [false, false, false]),
    ] {
        quarantine.retry();
        assert_eq!((quarantine.kept(), fault.take_asked()), (left, 1));
        let still = [0, 1, 2].map(|at: usize| files[at].upgrade().is_some());
        assert_eq!(still, held);
    }
}

#[test]
fn at_the_end_everything_is_tried_once_more_and_only_what_was_flushed_is_freed() {
    for failing in [false, true] {
        let (fault, quarantine) = quarantine();
        fault.set(true);
        let files = [1, 2].map(|pages| release(&quarantine, pages));
        fault.set(failing);
        fault.take_asked();
        drop(quarantine);
        assert_eq!(fault.take_asked(), 2);
        assert!(files.iter().all(|file| file.upgrade().is_some() == failing));
    }
}

#[test]
fn the_operator_is_told_what_is_kept() {
    let (fault, quarantine) = quarantine();
    let flushed = "0 cache flushes of 0 bytes in all took 0 us";
    assert_eq!(quarantine.to_string(), flushed);
    fault.set(true);
    release(&quarantine, 2);
    release(&quarantine, 1);
    assert_eq!(
        quarantine.to_string(),
        format!("{flushed}; 2 pieces of 12288 bytes in all are kept, as they could not be flushed")
    );
}
