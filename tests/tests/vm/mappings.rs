//! What stock QEMU makes of SHMEM_MAP and SHMEM_UNMAP: facts that the daemon is built on.
//!
//! A test that fails here says that this QEMU behaves differently from 11.1, not that the daemon is
//! wrong: see what the daemon does with the fact, then change both.
//! No guest is needed: see [`BareMachine`].

#![expect(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "a few pages: no number gets near its limit"
)]

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::ExitStatusExt;
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use drm_ffi::mode::dumbbuffer;
use nosnoop_tests::frontend::message::protocol::CONFIGURE_MEM_SLOTS;
use nosnoop_tests::lab::bare::{BareMachine, MappedPart};
use nosnoop_tests::lab::mapping_backend::{FEATURES, Mapping, REGION};
use nosnoop_tests::lab::qemu::Accelerator;
use nosnoop_tests::lab::root::Root;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::process::Signal;

use super::prepared;

const PAGE: u64 = 4096;

/// QEMU's acknowledgements: nothing else ever comes, no errno.
const DONE: u64 = 0;
const REFUSED: u64 = 1;

/// What `/proc` calls the files of these tests.
const NAME: &str = "nosnoop-lab";

/// Where most of them are mapped.
const PLACE: u64 = 1 << 20;

/// The seals of the daemon's own files.
const SIZE_SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

fn root() -> Option<(Root, MutexGuard<'static, ()>)> {
    prepared(Root::find_or_build)
}

/// A machine whose device is started, as it is while a guest's driver uses it.
fn machine(root: &Root, accelerator: Accelerator) -> BareMachine {
    let mut machine = BareMachine::boot(root, accelerator, FEATURES).unwrap();
    machine.start_device().unwrap();
    machine
}

/// A file of `pages` pages: the first full of ones, the second of twos and so on.
fn file(pages: u8, seals: SealFlags) -> File {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(memfd_create(NAME, flags).unwrap());
    for page in 1..=pages {
        file.write_all(&[page; PAGE as usize]).unwrap();
    }
    fcntl_add_seals(&file, seals).unwrap();
    file
}

/// `count` pages from page `first` of a file, at [`PLACE`].
fn pages(first: u64, count: u64) -> Mapping {
    Mapping {
        fd_offset: first * PAGE,
        ..Mapping::new(PLACE, count * PAGE)
    }
}

/// How QEMU shows that.
fn part(first: u64, count: u64) -> MappedPart {
    MappedPart {
        offset: first * PAGE,
        len: count * PAGE,
        permissions: "rw-s".to_owned(),
    }
}

#[track_caller]
fn assert_map(machine: &BareMachine, mapping: Mapping, file: &File, ack: u64) {
    let got = machine.map(mapping, Some(file.as_fd())).unwrap();
    assert_eq!(got, ack, "map {mapping:x?}\n{}", machine.last_lines(3));
}

#[track_caller]
fn assert_unmap(machine: &BareMachine, mapping: Mapping, ack: u64) {
    let got = machine.unmap(mapping).unwrap();
    assert_eq!(got, ack, "unmap {mapping:x?}\n{}", machine.last_lines(3));
}

#[track_caller]
fn assert_ended_by(machine: &mut BareMachine, signal: Signal) {
    let status = machine.wait_end().unwrap();
    let said = machine.last_lines(3);
    assert_eq!(status.signal(), Some(signal.as_raw()), "{status}\n{said}");
}

#[test]
fn files_of_sealed_size_are_mapped_where_asked_and_unmapped() {
    let Some((root, _turn)) = root() else { return };
    let mut machine = machine(&root, Accelerator::probe());
    let file = file(16, SIZE_SEALS | SealFlags::SEAL);

    // What the daemon's blobs are: a sealed file, any page of it, read and written.
    assert_map(&machine, pages(4, 3), &file, DONE);
    assert_eq!(machine.mapped(NAME).unwrap(), [part(4, 3)]);
    assert_eq!(machine.read(PLACE, 2).unwrap(), [5, 5]);
    assert_eq!(machine.read(PLACE + 3 * PAGE - 2, 2).unwrap(), [7, 7]);
    machine.write(PLACE + 2 * PAGE, 0x0403_0201).unwrap();
    assert_eq!(machine.read(PLACE + 2 * PAGE, 5).unwrap(), [1, 2, 3, 4, 7]);

    // The same file a second time. That it is to be read only is ignored.
    let second = Mapping {
        flags: 0,
        ..Mapping::new(2 * PLACE, 16 * PAGE)
    };
    assert_map(&machine, second, &file, DONE);
    assert_eq!(machine.mapped(NAME).unwrap(), [part(0, 16), part(4, 3)]);
    let there = 2 * PLACE + 6 * PAGE;
    assert_eq!(machine.read(there, 4).unwrap(), [1, 2, 3, 4]);
    machine.write(there, 0x0908_0706).unwrap();
    assert_eq!(machine.read(PLACE + 2 * PAGE, 4).unwrap(), [6, 7, 8, 9]);

    assert_unmap(&machine, pages(0, 3), DONE);
    machine.wait_mapped(NAME, &[part(0, 16)]).unwrap();
    assert_ne!(machine.read(PLACE, 2).unwrap(), [5, 5]);
    assert_eq!(machine.read(2 * PLACE, 2).unwrap(), [1, 1]);
    assert_unmap(&machine, second, DONE);
    machine.wait_mapped(NAME, &[]).unwrap();
}

#[test]
fn files_that_cannot_be_written_or_are_too_short_are_refused() {
    let Some((root, _turn)) = root() else { return };
    let machine = machine(&root, Accelerator::probe());
    let read_only = Mapping {
        flags: 0,
        ..pages(0, 2)
    };

    for seal in [SealFlags::WRITE, SealFlags::FUTURE_WRITE] {
        let sealed = file(4, SIZE_SEALS | seal);
        assert_map(&machine, pages(0, 2), &sealed, REFUSED);
        assert_map(&machine, read_only, &sealed, REFUSED);
    }
    let whole = file(4, SIZE_SEALS);
    let opened = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&whole));
    assert_map(&machine, read_only, &File::open(opened).unwrap(), REFUSED);

    // Beyond the end of the file: by one page, from its end, far behind it, and by overflow.
    assert_map(&machine, pages(2, 3), &whole, REFUSED);
    assert_map(&machine, pages(4, 1), &whole, REFUSED);
    for fd_offset in [1 << 63, u64::MAX - PAGE + 1] {
        let far = Mapping {
            fd_offset,
            ..pages(0, 1)
        };
        assert_map(&machine, far, &whole, REFUSED);
    }
    let unaligned = Mapping {
        fd_offset: 100,
        ..pages(0, 1)
    };
    assert_map(&machine, unaligned, &whole, REFUSED);
    assert_eq!(machine.map(pages(0, 1), None).unwrap(), REFUSED);

    machine.wait_mapped(NAME, &[]).unwrap();
    assert_map(&machine, pages(0, 4), &whole, DONE);
}

/// Why the daemon sizes and seals its files before it hands them out.
#[test]
fn an_empty_file_is_grown_and_a_short_one_is_not() {
    let Some((root, _turn)) = root() else { return };
    let machine = machine(&root, Accelerator::probe());
    for first in [0, 1] {
        let empty = file(0, SealFlags::empty());
        assert_map(&machine, pages(first, 3), &empty, DONE);
        assert_eq!(machine.mapped(NAME).unwrap(), [part(first, 3)]);
        assert_unmap(&machine, pages(first, 3), DONE);
        machine.wait_mapped(NAME, &[]).unwrap();
        assert_eq!(empty.metadata().unwrap().len(), (first + 3) * PAGE);
    }
    let short = file(1, SealFlags::empty());
    assert_map(&machine, pages(0, 3), &short, REFUSED);
    assert_eq!(short.metadata().unwrap().len(), PAGE);
}

/// An empty file would end the VM when the guest looks at it; the daemon makes none.
#[test]
fn an_empty_file_that_cannot_grow_is_mapped_and_the_first_access_ends_qemu() {
    let Some((root, _turn)) = root() else { return };
    let mut machine = machine(&root, Accelerator::probe());
    let empty = file(0, SIZE_SEALS);
    assert_map(&machine, pages(0, 3), &empty, DONE);
    assert_eq!(machine.mapped(NAME).unwrap(), [part(0, 3)]);
    assert!(machine.read(PLACE, 1).is_err());
    assert_ended_by(&mut machine, Signal::BUS);
}

#[test]
fn ranges_that_are_not_free_are_refused_and_the_others_stay() {
    let Some((root, _turn)) = root() else { return };
    let machine = machine(&root, Accelerator::probe());
    let file = file(4, SIZE_SEALS);
    assert_map(&machine, pages(0, 4), &file, DONE);
    let at = Mapping::new;
    for refused in [
        // Over, before, behind and inside what is mapped.
        at(PLACE, 4 * PAGE),
        at(PLACE - PAGE, 2 * PAGE),
        at(PLACE + 3 * PAGE, 2 * PAGE),
        at(PLACE + PAGE, PAGE),
        // Outside the region, and around the end of all numbers.
        at(REGION, PAGE),
        at(REGION - PAGE, 2 * PAGE),
        at(u64::MAX - PAGE + 1, PAGE),
        at(u64::MAX - PAGE + 1, 2 * PAGE),
        // Nothing.
        at(0, 0),
        // No such region.
        Mapping {
            shmid: 0,
            ..at(0, PAGE)
        },
        Mapping {
            shmid: 2,
            ..at(0, PAGE)
        },
    ] {
        assert_map(&machine, refused, &file, REFUSED);
        assert_eq!(machine.mapped(NAME).unwrap(), [part(0, 4)], "{refused:x?}");
    }
    // Right behind it, and the region's last page.
    assert_map(&machine, at(PLACE + 4 * PAGE, PAGE), &file, DONE);
    assert_map(&machine, at(REGION - PAGE, PAGE), &file, DONE);
    let all = [part(0, 1), part(0, 1), part(0, 4)];
    machine.wait_mapped(NAME, &all).unwrap();
}

/// The daemon unmaps what it has mapped, never a part of it.
#[test]
fn only_whole_mappings_are_unmapped_and_only_once() {
    let Some((root, _turn)) = root() else { return };
    let machine = machine(&root, Accelerator::probe());
    let file = file(4, SIZE_SEALS);
    assert_map(&machine, pages(0, 4), &file, DONE);
    let at = Mapping::new;
    for refused in [
        at(PLACE, PAGE),
        at(PLACE, 5 * PAGE),
        at(PLACE + PAGE, PAGE),
        at(PLACE + PAGE, 3 * PAGE),
        at(2 * PLACE, 4 * PAGE),
        at(PLACE, 0),
        at(REGION, PAGE),
        Mapping {
            shmid: 2,
            ..at(PLACE, 4 * PAGE)
        },
    ] {
        assert_unmap(&machine, refused, REFUSED);
        assert_eq!(machine.mapped(NAME).unwrap(), [part(0, 4)], "{refused:x?}");
    }
    assert_unmap(&machine, pages(0, 4), DONE);
    assert_unmap(&machine, pages(0, 4), REFUSED);
    machine.wait_mapped(NAME, &[]).unwrap();
}

/// Why the daemon sends no flag that the front-end has not said it knows.
#[test]
fn unknown_flags_are_ignored() {
    let Some((root, _turn)) = root() else { return };
    let machine = machine(&root, Accelerator::probe());
    let file = file(4, SIZE_SEALS);
    for bit in [1, 4, 5, 8, 63] {
        let flagged = Mapping {
            flags: 1 | 1 << bit,
            ..pages(0, 4)
        };
        assert_map(&machine, flagged, &file, DONE);
        assert_eq!(machine.mapped(NAME).unwrap(), [part(0, 4)], "bit {bit}");
        assert_unmap(&machine, flagged, DONE);
        machine.wait_mapped(NAME, &[]).unwrap();
    }
}

/// Why the daemon checks that offset and length are whole pages. Emulated: KVM is the next test.
#[test]
fn broken_pages_are_mapped() {
    let Some((root, _turn)) = root() else { return };
    let mut machine = machine(&root, Accelerator::Tcg);
    let file = file(4, SIZE_SEALS);
    for (odd, mapped) in [
        (Mapping::new(PLACE, PAGE + 1), part(0, 2)),
        (Mapping::new(PLACE, 100), part(0, 1)),
        (Mapping::new(PLACE + 100, 2 * PAGE), part(0, 2)),
    ] {
        assert_map(&machine, odd, &file, DONE);
        assert_eq!(machine.mapped(NAME).unwrap(), [mapped], "{odd:x?}");
        // The file begins at the odd offset and ends with the odd length, to the byte.
        let end = odd.offset + odd.len;
        assert_eq!(machine.read(odd.offset, 2).unwrap(), [1, 1], "{odd:x?}");
        assert_ne!(machine.read(end - 1, 1).unwrap(), [0], "{odd:x?}");
        assert_eq!(machine.read(end, 1).unwrap(), [0], "{odd:x?}");
        let rounded = Mapping {
            len: odd.len.next_multiple_of(PAGE) + PAGE,
            ..odd
        };
        assert_unmap(&machine, rounded, REFUSED);
        assert_unmap(&machine, odd, DONE);
        machine.wait_mapped(NAME, &[]).unwrap();
    }
    // The length in whole pages must be there.
    assert_map(&machine, Mapping::new(PLACE, 4 * PAGE + 1), &file, REFUSED);
}

#[test]
fn a_broken_offset_ends_qemu_under_kvm() {
    let Some((root, _turn)) = root() else { return };
    if !Accelerator::kvm_opens() {
        println!("SKIPPED: no /dev/kvm that opens");
        return;
    }
    let mut machine = machine(&root, Accelerator::Kvm);
    let file = file(4, SIZE_SEALS);
    // Acknowledged first: the memory of the VM changes only after that.
    let odd = Mapping::new(PLACE + 100, 2 * PAGE);
    assert_map(&machine, odd, &file, DONE);
    assert_ended_by(&mut machine, Signal::ABORT);
}

/// Before a driver has started the device, after a reset and while the VM is paused there must be no
/// request: QEMU looks the region up in a device that its vhost part does not know then.
#[test]
fn a_request_to_a_device_that_is_not_started_ends_qemu() {
    let Some((root, _turn)) = root() else { return };
    let file = file(4, SIZE_SEALS);
    let boot = || BareMachine::boot(&root, Accelerator::probe(), FEATURES).unwrap();
    let mapped: fn(&BareMachine, BorrowedFd<'_>) -> bool =
        |machine, fd| machine.map(pages(0, 4), Some(fd)).is_ok();
    let unmapped: fn(&BareMachine, BorrowedFd<'_>) -> bool =
        |machine, _| machine.unmap(pages(0, 4)).is_ok();
    for request in [mapped, unmapped] {
        let mut machine = boot();
        assert!(!request(&machine, file.as_fd()), "QEMU answers now");
        assert_ended_by(&mut machine, Signal::SEGV);

        let mut machine = boot();
        machine.start_device().unwrap();
        machine.reset_device().unwrap();
        assert!(!request(&machine, file.as_fd()), "QEMU answers now");
        assert_ended_by(&mut machine, Signal::SEGV);
    }
}

/// The daemon counts on it that after a reset nothing is mapped, or is and can be unmapped. Without
/// CONFIGURE_MEM_SLOTS, as QEMU does not live to tell with it: see the next test.
#[test]
fn a_reset_unmaps_everything() {
    let Some((root, _turn)) = root() else { return };
    let features = FEATURES & !CONFIGURE_MEM_SLOTS;
    let mut machine = BareMachine::boot(&root, Accelerator::probe(), features).unwrap();
    machine.start_device().unwrap();
    let file = file(4, SIZE_SEALS);
    assert_map(&machine, pages(0, 4), &file, DONE);
    machine.reset_device().unwrap();
    machine.wait_mapped(NAME, &[]).unwrap();
    machine.start_device().unwrap();
    assert_unmap(&machine, pages(0, 4), REFUSED);
    assert_map(&machine, pages(0, 4), &file, DONE);
    assert_eq!(machine.read(PLACE, 1).unwrap(), [1]);
}

/// The known problem of a guest that reboots with a blob mapped. Only with CONFIGURE_MEM_SLOTS: for
/// that QEMU keeps a list of the backend's memory regions of its own, the reset takes the mapping
/// away after the device has stopped, and at the next start QEMU looks at what it has freed.
#[test]
fn a_start_after_a_reset_that_found_a_mapping_ends_qemu() {
    let Some((root, _turn)) = root() else { return };
    let mut machine = machine(&root, Accelerator::probe());
    let file = file(4, SIZE_SEALS);
    assert_map(&machine, pages(0, 4), &file, DONE);
    assert_unmap(&machine, pages(0, 4), DONE);
    machine.reset_device().unwrap();
    machine.start_device().unwrap();

    assert_map(&machine, pages(0, 4), &file, DONE);
    machine.reset_device().unwrap();
    machine.wait_mapped(NAME, &[]).unwrap();
    let started = machine.start_device();
    assert!(started.is_err(), "solved: take it out of the README");
    assert_ended_by(&mut machine, Signal::SEGV);
}

/// A buffer of a DRM device: the device, where in its file the buffer lies, and its length.
fn drm_buffer() -> Option<(File, u64, u64)> {
    let devices = fs::read_dir("/dev/dri").ok()?.flatten();
    devices.map(|device| device.path()).find_map(|path| {
        let device = File::options().read(true).write(true).open(path).ok()?;
        let buffer = dumbbuffer::create(device.as_fd(), 64, 64, 32, 0).ok()?;
        let place = dumbbuffer::map(device.as_fd(), buffer.handle, 0, 0).ok()?;
        Some((device, place.offset, buffer.size))
    })
}

#[test]
fn a_drm_buffer_is_mapped_at_its_own_offset_only() {
    let Some((root, _turn)) = root() else { return };
    let Some((device, fd_offset, len)) = drm_buffer() else {
        println!("SKIPPED: no DRM device that makes dumb buffers");
        return;
    };
    let machine = machine(&root, Accelerator::probe());
    let buffer = Mapping {
        fd_offset,
        ..Mapping::new(PLACE, len)
    };
    assert_map(&machine, Mapping::new(PLACE, len), &device, REFUSED);
    assert_map(&machine, buffer, &device, DONE);
    assert_unmap(&machine, buffer, DONE);
}

/// How often each time is taken.
const ROUNDS: usize = 200;

/// The median and the 99th percentile.
fn spread(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |hundredth: usize| times[times.len() * hundredth / 100].as_micros();
    format!("p50 {} us, p99 {} us", at(50), at(99))
}

/// An acknowledgement says that QEMU will unmap, not that it has: the daemon must not give the pages
/// to anybody else only because of it.
#[test]
fn requests_take_this_long() {
    let Some((root, _turn)) = root() else { return };
    let accelerator = Accelerator::probe();
    let machine = machine(&root, accelerator);
    println!("{} ({})", root.qemu_version, accelerator.name());
    for kib in [4, 1024, 65536] {
        let file = file(0, SealFlags::empty());
        file.set_len(kib * 1024).unwrap();
        let mapping = Mapping::new(PLACE, kib * 1024);
        let (mut map, mut unmap, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        let mut still_there = 0;
        for _ in 0..ROUNDS {
            let start = Instant::now();
            assert_map(&machine, mapping, &file, DONE);
            map.push(start.elapsed());
            let start = Instant::now();
            assert_unmap(&machine, mapping, DONE);
            unmap.push(start.elapsed());
            let start = Instant::now();
            if !machine.mapped(NAME).unwrap().is_empty() {
                still_there += 1;
                while !machine.mapped(NAME).unwrap().is_empty() {
                    assert!(start.elapsed() < Duration::from_secs(20), "it stays mapped");
                }
            }
            gone.push(start.elapsed());
        }
        println!(
            "{kib} KiB: map {}; unmap {}; {still_there} of {ROUNDS} still mapped then, gone after {}",
            spread(map),
            spread(unmap),
            spread(gone),
        );
    }
}
