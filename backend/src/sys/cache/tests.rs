#![expect(
    clippy::arithmetic_side_effects,
    reason = "numbers are small here, and an overflow fails the test"
)]

use std::fs::File;
use std::os::fd::OwnedFd;

use proptest::prelude::*;

use super::super::mmap::tests::{file, pattern};
use super::*;

/// The lines around a range, counted one by one.
fn touched(start: usize, len: usize, line: usize) -> Vec<usize> {
    let mut lines: Vec<usize> = (start..start + len).map(|byte| byte / line).collect();
    lines.dedup();
    lines.iter().map(|number| number * line).collect()
}

proptest! {
    #[test]
    fn every_byte_has_its_line_and_no_other_line_is_there(
        start in 0..100_000_usize,
        len in 0..3000_usize,
        log in 2..13_u32,
    ) {
        let line = 1 << log;
        let lines = Lines::around(start, len, line);
        let found: Vec<usize> = (0..lines.count).map(|i| lines.first + i * line).collect();
        prop_assert_eq!(found, touched(start, len, line));
    }

    #[test]
    fn no_range_overflows(start: usize, len: usize, log in 2..13_u32) {
        let line = 1_usize << log;
        let lines = Lines::around(start, len, line);
        prop_assert_eq!(lines.first, start / line * line);
        prop_assert_eq!(lines.count == 0, len == 0);
        if let Some(before_last) = lines.count.checked_sub(1) {
            let last = lines.first.checked_add(before_last.checked_mul(line).unwrap()).unwrap();
            let end = start.saturating_add(len - 1);
            prop_assert_eq!(last, end / line * line);
        }
    }
}

#[test]
fn the_ends_of_the_address_space_are_lines_too() {
    for (start, len, first, count) in [
        (0, 0, 0, 0),
        (0, 1, 0, 1),
        (63, 1, 0, 1),
        (63, 2, 0, 2),
        (64, 64, 64, 1),
        (65, 64, 64, 2),
        (usize::MAX, 1, usize::MAX - 63, 1),
        (usize::MAX, usize::MAX, usize::MAX - 63, 1),
        (usize::MAX - 64, 3, usize::MAX - 127, 2),
        (0, usize::MAX, 0, 1 << 58),
    ] {
        let lines = Lines::around(start, len, 64);
        assert_eq!(lines, Lines { first, count }, "{start} {len}");
    }
}

#[test]
fn only_sizes_that_tile_a_page_are_lines() {
    for bytes in [0, 3, 63, 65, 4097, 8192, usize::MAX] {
        line_size(bytes).unwrap_err();
    }
    for bytes in [4, 32, 64, 128, 4096] {
        assert_eq!(line_size(bytes), Ok(bytes));
    }
}

/// What to flush with, or the words to skip a test with.
fn flusher() -> Option<LineFlush> {
    match line_flush() {
        Ok(how) => Some(how),
        Err(why) => {
            println!("SKIPPED: {why}");
            None
        }
    }
}

fn fd(file: &File) -> OwnedFd {
    file.try_clone().unwrap().into()
}

#[test]
fn a_flush_changes_no_byte() {
    let Some(how) = flusher() else { return };
    let file = file(3 * 4096);
    let writable = Mapping::read_write(&fd(&file), 0, 3 * 4096).unwrap();
    let read_only = Mapping::read_only(&fd(&file), 0, 3 * 4096).unwrap();
    let mut expected = pattern(0, 3 * 4096);
    for (mapping, at, len) in [
        (&writable, 0, 3 * 4096),
        (&read_only, 0, 3 * 4096),
        (&read_only, 1, 1),
        (&read_only, 4095, 4098),
        (&read_only, 3 * 4096 - 1, 1),
        (&read_only, 5, 0),
        (&read_only, 3 * 4096, 0),
    ] {
        // Dirty lines all over, of other bytes each time.
        expected.rotate_left(7);
        writable.write(0, &expected).unwrap();
        flush(how, mapping, at, len).unwrap();
        let mut bytes = vec![0; expected.len()];
        read_only.read(0, &mut bytes).unwrap();
        assert!(bytes == expected, "{at} {len}");
    }
}

#[test]
fn nothing_outside_of_a_mapping_is_flushed() {
    let Some(how) = flusher() else { return };
    let mapping = Mapping::read_only(&fd(&file(4096)), 0, 4096).unwrap();
    for (at, len) in [(0, 4097), (4096, 1), (usize::MAX, 1), (1, usize::MAX)] {
        let refused = flush(how, &mapping, at, len).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{at} {len}");
    }
}

/// The one way to see from here that the caches have forgotten something: reading it takes longer.
#[cfg(target_arch = "x86_64")]
#[test]
fn flushed_lines_come_from_memory_again() {
    if !caches_are_real() {
        println!("SKIPPED: an emulated CPU has no caches whose time could be taken");
        return;
    }
    let Some(how) = flusher() else { return };
    let len = PAGES * 4096;
    let mapping = Mapping::read_only(&fd(&file(len)), 0, len.try_into().unwrap()).unwrap();
    load_time(&mapping);
    // Other work on the machine can spoil a try, in either direction, but not half of them.
    let tries: Vec<(u64, u64)> = (0..20)
        .map(|_| {
            let cached = load_time(&mapping);
            flush(how, &mapping, 0, len).unwrap();
            (cached, load_time(&mapping))
        })
        .collect();
    let slower = tries
        .iter()
        .filter(|(cached, flushed)| *flushed > 2 * cached);
    assert!(
        slower.count() >= tries.len() / 2,
        "cycles of a load before and after a flush: {tries:?}"
    );
}

#[cfg(target_arch = "x86_64")]
const PAGES: usize = 128;

/// Median cycles to load a byte. One in each page, as the CPU fetches its neighbours too.
#[cfg(target_arch = "x86_64")]
fn load_time(mapping: &Mapping) -> u64 {
    use core::arch::x86_64::{_mm_lfence, _rdtsc};

    let mut times: Vec<u64> = (0..PAGES)
        .map(|page| {
            let address = mapping
                .address(page * 4096 + page * 1664 % 4096, 1)
                .unwrap();
            // SAFETY: `_mm_lfence` needs SSE2, which every x86-64 CPU has.
            unsafe { _mm_lfence() };
            // SAFETY: every x86-64 CPU has RDTSC; Linux lets user space use it.
            let began = unsafe { _rdtsc() };
            // SAFETY: `address` has checked that the byte is in the mapping, which lives.
            unsafe { address.read_volatile() };
            // SAFETY: as above.
            unsafe { _mm_lfence() };
            // SAFETY: as above.
            unsafe { _rdtsc() }.saturating_sub(began)
        })
        .collect();
    times.sort_unstable();
    times[PAGES / 2]
}

/// Whether this is not QEMU's emulated CPU, which says so in CPUID leaf 0x4000_0000.
#[cfg(target_arch = "x86_64")]
fn caches_are_real() -> bool {
    let signature = core::arch::x86_64::__cpuid(0x4000_0000);
    let words = [signature.ebx, signature.ecx, signature.edx];
    words.map(u32::to_le_bytes).as_flattened() != b"TCGTCGTCGTCG"
}
