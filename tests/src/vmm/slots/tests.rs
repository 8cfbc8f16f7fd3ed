//! The region over slots that do as they are told, for answers that this machine's KVM does not
//! give.

use std::fs::File;
use std::sync::Mutex;

use rustix::fs::{MemfdFlags, fcntl_add_seals, ftruncate, memfd_create};

use super::super::probe::{Decision, Reason, SLOT_NONCOHERENT};
use super::*;

const START: u64 = 8 << 30;
const SIZE: u64 = 64 * PAGE;

/// A call that sets a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Set {
    slot: u32,
    address: u64,
    flags: u32,
    writable: bool,
    /// How the pages behind it were at this moment: Linux's words for it.
    memory: Vec<String>,
}

/// Slots that note each call.
#[derive(Debug, Default)]
struct Fake {
    set: Mutex<Vec<Set>>,
    cleared: Mutex<Vec<u32>>,
    /// What the next calls answer; success after that.
    errors: Mutex<Vec<i32>>,
}

impl Fake {
    fn answer(&self) -> io::Result<()> {
        let error = self.errors.lock().unwrap().pop();
        error.map_or(Ok(()), |error| Err(io::Error::from_raw_os_error(error)))
    }

    fn fail(&self, errno: i32) {
        self.errors.lock().unwrap().push(errno);
    }

    fn set_calls(&self) -> Vec<Set> {
        std::mem::take(&mut self.set.lock().unwrap())
    }
}

impl Slots for Arc<Fake> {
    fn set(
        &self,
        slot: u32,
        address: u64,
        backing: Backing,
        flags: u32,
        writable: bool,
    ) -> io::Result<()> {
        let Backing::Window(window, offset, _) = &backing else {
            panic!("not a part of the region: {backing:?}");
        };
        let memory = memory_at(window.address() + offset);
        let call = Set {
            slot,
            address,
            flags,
            writable,
            memory,
        };
        self.set.lock().unwrap().push(call);
        self.answer()
    }

    fn clear(&self, slot: u32) -> io::Result<()> {
        self.answer()?;
        self.cleared.lock().unwrap().push(slot);
        Ok(())
    }
}

/// Access and stored-to kilobytes of the mapping that begins at an address.
fn memory_at(address: u64) -> Vec<String> {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let begin = format!("{address:x}-");
    let mut lines = maps.lines().skip_while(|line| !line.starts_with(&begin));
    let Some(first) = lines.next() else {
        return Vec::new();
    };
    let access = first.split(' ').nth(1).unwrap().to_owned();
    let dirty = lines.find_map(|line| line.strip_prefix("Private_Dirty:"));
    vec![access, dirty.unwrap().trim().to_owned()]
}

const HONORED: Support = Support {
    ram: Decision::AlwaysHonored,
    mmio: Decision::AlwaysHonored,
};

fn window(support: Support) -> (Window<Arc<Fake>>, Arc<Fake>) {
    let fake = Arc::new(Fake::default());
    let window = Window::new(fake.clone(), START, SIZE, 10, support).unwrap();
    (window, fake)
}

fn memfd(pages: u64, seals: SealFlags) -> OwnedFd {
    let file = memfd_create("blob", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&file, pages * PAGE).unwrap();
    fcntl_add_seals(&file, seals).unwrap();
    file
}

fn blob() -> OwnedFd {
    memfd(16, SealFlags::SHRINK)
}

/// A device node that maps fresh memory, as a graphics driver's node maps its buffers.
fn driver() -> OwnedFd {
    let file = File::options().read(true).write(true).open("/dev/zero");
    file.unwrap().into()
}

fn request(offset: u64, len: u64, flags: u64) -> MapRequest {
    MapRequest {
        file_offset: 0,
        offset,
        len,
        flags: MapFlags::parse(flags, true).unwrap(),
    }
}

/// Nothing is mapped, here or by a slot, at a place of one page.
#[track_caller]
fn assert_nothing(window: &Window<Arc<Fake>>, offset: u64) {
    assert_eq!(window.mapped(), []);
    assert!(window.reservation().read(offset, 1).is_err());
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let address = window.reservation().address();
    let inside = |line: &&str| {
        let start = u64::from_str_radix(line.split('-').next().unwrap(), 16).unwrap();
        (address..address + SIZE).contains(&start)
    };
    let mut lines = maps.lines().filter(inside);
    assert!(lines.all(|line| line.contains(" ---p ")), "{maps}");
}

#[test]
fn a_slot_shows_the_blob_at_its_place() {
    let (mut window, fake) = window(HONORED);
    let file = blob();
    let ask = MapRequest {
        file_offset: 2 * PAGE,
        ..request(4 * PAGE, PAGE, 0x31)
    };
    window.map(ask, &file).unwrap();
    rustix::io::pwrite(&file, b"third page", 2 * PAGE).unwrap();
    let seen = window.reservation().read(4 * PAGE, 10).unwrap();
    assert_eq!(seen, b"third page");
    let call = fake.set_calls().remove(0);
    assert_eq!((call.slot, call.address), (10, START + 4 * PAGE));
    assert_eq!((call.flags, call.writable), (0, true));
    window.unmap(4 * PAGE, PAGE).unwrap();
    assert_eq!(*fake.cleared.lock().unwrap(), [10]);
    assert_nothing(&window, 4 * PAGE);
}

#[test]
fn slots_are_used_again_and_never_twice() {
    let (mut window, fake) = window(HONORED);
    for page in 0..4 {
        window.map(request(page * PAGE, PAGE, 1), &blob()).unwrap();
    }
    window.unmap(PAGE, PAGE).unwrap();
    window.unmap(3 * PAGE, PAGE).unwrap();
    for page in [8, 9, 10] {
        window.map(request(page * PAGE, PAGE, 1), &blob()).unwrap();
    }
    let slots: Vec<_> = fake.set_calls().iter().map(|call| call.slot).collect();
    assert_eq!(slots, [10, 11, 12, 13, 13, 11, 14]);
    window.clear().unwrap();
    assert_nothing(&window, 0);
}

#[test]
fn only_the_slots_that_need_it_carry_the_flag() {
    let support = Support {
        ram: Decision::PerSlotFlag,
        ..HONORED
    };
    let (mut window, fake) = window(support);
    for (page, (flags, slot_flags)) in (0..).zip([
        (0x01, 0),
        (0x11, 0),
        (0x21, SLOT_NONCOHERENT),
        (0x31, SLOT_NONCOHERENT),
        (0x121, SLOT_NONCOHERENT),
        (0x131, SLOT_NONCOHERENT),
    ]) {
        let ask = request(page * PAGE, PAGE, flags);
        window.map(ask, &blob()).unwrap();
        assert_eq!(fake.set_calls()[0].flags, slot_flags, "{flags:#x}");
    }
}

#[test]
fn what_kvm_cannot_honor_is_refused_before_anything_happens() {
    let no = Decision::Impossible(Reason::QuirkAbsent);
    let support = Support { ram: no, ..HONORED };
    let (mut window, fake) = window(support);
    for flags in [0x21, 0x31, 0x121, 0x131] {
        for file in [blob(), driver()] {
            let refused = window.map(request(0, PAGE, flags), &file).unwrap_err();
            assert!(matches!(refused, MapError::NotHonored(Reason::QuirkAbsent)));
            assert_nothing(&window, 0);
        }
    }
    assert_eq!(fake.set_calls(), []);
    window.map(request(0, PAGE, 0x11), &blob()).unwrap();
}

#[test]
fn a_driver_may_hand_out_device_memory_and_a_memory_file_may_not() {
    let support = Support {
        mmio: Decision::Impossible(Reason::DeviceMemory),
        ..HONORED
    };
    let (mut window, _) = window(support);
    window.map(request(0, PAGE, 0x31), &blob()).unwrap();
    let refused = window.map(request(PAGE, PAGE, 0x31), &driver());
    let refused = refused.unwrap_err();
    assert!(matches!(
        refused,
        MapError::NotHonored(Reason::DeviceMemory)
    ));
    window.map(request(PAGE, PAGE, 0x11), &driver()).unwrap();
}

#[test]
fn a_slot_that_kvm_refuses_leaves_nothing() {
    let (mut window, fake) = window(HONORED);
    for errno in [22, 12, 17] {
        fake.fail(errno);
        let refused = window.map(request(0, PAGE, 0x31), &blob()).unwrap_err();
        assert!(matches!(refused, MapError::Slot(_)));
        assert_eq!(refused.code(), u64::try_from(errno).unwrap());
        assert_nothing(&window, 0);
    }
    // The slot's number is still free.
    window.map(request(0, PAGE, 0x31), &blob()).unwrap();
    assert!(fake.set_calls().iter().all(|call| call.slot == 10));
}

#[test]
fn a_slot_that_kvm_keeps_stays_mapped() {
    let (mut window, fake) = window(HONORED);
    window.map(request(0, PAGE, 1), &blob()).unwrap();
    fake.fail(22);
    assert!(matches!(window.unmap(0, PAGE), Err(MapError::Slot(_))));
    // The guest still reaches the memory: it must not go from under it.
    assert_eq!(window.mapped(), [(0, PAGE)]);
    assert!(window.reservation().read(0, 1).is_ok());
    window.unmap(0, PAGE).unwrap();
}

#[test]
fn pages_of_drivers_are_stored_to_before_the_guest_has_them() {
    let (mut window, fake) = window(HONORED);
    for (offset, file, flags, expected) in [
        (0, driver(), 1, ["rw-s", "16 kB"]),
        (8 * PAGE, driver(), 0, ["r--s", "0 kB"]),
        // A touch would allocate what nobody has used yet.
        (16 * PAGE, blob(), 1, ["rw-s", "0 kB"]),
    ] {
        window.map(request(offset, 4 * PAGE, flags), &file).unwrap();
        assert_eq!(fake.set_calls()[0].memory, expected);
    }
}

#[test]
fn ranges_and_files_are_checked() {
    let (mut window, fake) = window(HONORED);
    window.map(request(8 * PAGE, 4 * PAGE, 1), &blob()).unwrap();
    fake.set_calls();
    for (offset, len) in [
        (1, PAGE),
        (0, 1),
        (0, 0),
        (SIZE, PAGE),
        (SIZE - PAGE, 2 * PAGE),
        (u64::MAX - PAGE + 1, PAGE),
        (8 * PAGE, 4 * PAGE),
        (7 * PAGE, 2 * PAGE),
        (11 * PAGE, 2 * PAGE),
        (0, 16 * PAGE),
    ] {
        let refused = window.map(request(offset, len, 1), &blob());
        assert!(matches!(refused, Err(MapError::Range { .. })), "{offset}");
    }
    let skewed = MapRequest {
        file_offset: 8,
        ..request(0, PAGE, 1)
    };
    let refused = window.map(skewed, &blob());
    assert!(matches!(refused, Err(MapError::Range { .. })));
    let behind = |file_offset| MapRequest {
        file_offset,
        ..request(0, PAGE, 1)
    };
    for (ask, file) in [
        (request(0, 8 * PAGE, 1), memfd(7, SealFlags::SHRINK)),
        (behind(16 * PAGE), blob()),
        (behind(u64::MAX - PAGE + 1), blob()),
        // It could shrink while the guest uses it.
        (request(0, PAGE, 1), memfd(1, SealFlags::GROW)),
    ] {
        let refused = window.map(ask, &file);
        assert!(matches!(refused, Err(MapError::File(_))), "{refused:?}");
    }
    // A file that cannot be written, mapped for writing.
    let read_only = memfd(1, SealFlags::SHRINK | SealFlags::WRITE);
    let refused = window.map(request(0, PAGE, 1), &read_only);
    assert!(matches!(refused, Err(MapError::Mmap(_))));
    for (offset, len) in [(8 * PAGE, PAGE), (9 * PAGE, 3 * PAGE), (0, PAGE)] {
        let refused = window.unmap(offset, len);
        assert!(matches!(refused, Err(MapError::Range { .. })));
    }
    assert_eq!(window.mapped(), [(8 * PAGE, 4 * PAGE)]);
    assert_eq!(fake.set_calls(), []);
}
