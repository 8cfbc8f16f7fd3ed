use std::fs;
use std::os::fd::OwnedFd;
use std::thread;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use super::*;

fn memfd(contents: &[u8]) -> OwnedFd {
    let file = memfd_create("reservation", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, contents.len() as u64).unwrap();
    rustix::io::pwrite(&file, contents, 0).unwrap();
    file
}

/// Kilobytes of the mapping at this address that were stored to.
fn dirty_kib(address: u64) -> u64 {
    let maps = fs::read_to_string("/proc/self/smaps").unwrap();
    let begin = format!("{address:x}-");
    let mut lines = maps.lines().skip_while(|line| !line.starts_with(&begin));
    lines.next().expect("a mapping begins there");
    lines
        .take_while(|line| !line.contains('-'))
        .filter(|line| !line.starts_with("Pss"))
        .filter_map(|line| line.split_once("_Dirty:"))
        .map(|(_, rest)| rest.trim_end_matches("kB").trim().parse::<u64>().unwrap())
        .sum()
}

#[test]
fn parts_are_mapped_once_and_leave_nothing() {
    let window = Reservation::new(16 * PAGE).unwrap();
    let file = memfd(&[7; 4 * PAGE as usize]);
    window.map(8 * PAGE, 2 * PAGE, &file, PAGE, true).unwrap();
    let taken = |offset, len| {
        let error = window.map(offset, len, &file, 0, true).unwrap_err();
        error.kind() == io::ErrorKind::AlreadyExists
    };
    assert!(taken(9 * PAGE, PAGE));
    assert!(taken(7 * PAGE, 2 * PAGE));
    assert!(taken(6 * PAGE, 5 * PAGE));
    window.write(9 * PAGE + 1, b"xyz").unwrap();
    assert_eq!(window.read(9 * PAGE, 5).unwrap(), b"\x07xyz\x07");
    let mut seen = [0; 5];
    rustix::io::pread(&file, &mut seen, 2 * PAGE).unwrap();
    assert_eq!(&seen, b"\x07xyz\x07");
    // Over the end of a part, and beside all parts.
    assert!(window.read(9 * PAGE + 1, PAGE as usize).is_err());
    assert!(window.read(0, 1).is_err());
    window.unmap(8 * PAGE).unwrap();
    assert!(window.read(8 * PAGE, 1).is_err());
    assert!(window.unmap(8 * PAGE).is_err());
    window.map(9 * PAGE, 2 * PAGE, &file, 0, false).unwrap();
    assert!(window.write(9 * PAGE, b"x").is_err());
    assert!(window.write_touch(9 * PAGE, PAGE).is_err());
    assert_eq!(window.read(9 * PAGE, 1).unwrap(), [7]);
}

#[test]
fn only_whole_pages_inside_are_mapped() {
    let window = Reservation::new(4 * PAGE).unwrap();
    let file = memfd(&[0; 8 * PAGE as usize]);
    for (offset, len, file_offset) in [
        (1, PAGE, 0),
        (0, PAGE + 1, 0),
        (0, PAGE, 1),
        (0, 0, 0),
        (0, 5 * PAGE, 0),
        (4 * PAGE, PAGE, 0),
        (u64::MAX - PAGE + 1, PAGE, 0),
    ] {
        let error = window.map(offset, len, &file, file_offset, true);
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
    // What the kernel refuses leaves the place free.
    let (reader, _writer) = rustix::pipe::pipe().unwrap();
    assert!(window.map(0, PAGE, &reader, 0, true).is_err());
    window.map(0, PAGE, &file, 0, true).unwrap();
}

#[test]
fn a_touch_stores_to_every_page() {
    const PAGES: u64 = 64;
    let file = memfd(&[]);
    ftruncate(&file, PAGES * PAGE).unwrap();
    let window = Reservation::new(PAGES * PAGE).unwrap();
    window.map(0, PAGES * PAGE, &file, 0, true).unwrap();
    // Pages that nobody ever wrote to: reading them leaves them clean.
    window.read(0, (PAGES * PAGE) as usize).unwrap();
    assert_eq!(dirty_kib(window.address()), 0);
    window.write_touch(0, PAGES * PAGE).unwrap();
    assert_eq!(dirty_kib(window.address()), PAGES * PAGE / 1024);
}

#[test]
fn a_touch_changes_nothing() {
    let contents: Vec<u8> = (0..16 * PAGE).map(|at| (at % 253) as u8).collect();
    let window = Reservation::new(16 * PAGE).unwrap();
    let file = memfd(&contents);
    window.map(0, 16 * PAGE, &file, 0, true).unwrap();
    window.write_touch(0, 16 * PAGE).unwrap();
    assert_eq!(window.read(0, contents.len()).unwrap(), contents);
}

#[test]
fn a_touch_does_not_undo_what_others_write() {
    let file = memfd(&[0; PAGE as usize]);
    let window = Arc::new(Reservation::new(2 * PAGE).unwrap());
    window.map(0, PAGE, &file, 0, true).unwrap();
    let other = Reservation::new(PAGE).unwrap();
    other.map(0, PAGE, &file, 0, true).unwrap();
    let toucher = thread::spawn({
        let window = window.clone();
        move || {
            for _ in 0..200_000 {
                window.write_touch(0, PAGE).unwrap();
            }
        }
    });
    let mut value = 0_u8;
    while !toucher.is_finished() {
        value = value.wrapping_add(1);
        other.write(0, &[value]).unwrap();
        assert_eq!(other.read(0, 1).unwrap(), [value]);
    }
    toucher.join().unwrap();
}
