//! The reference VMM on this machine's KVM: a bare-metal guest maps blobs, and what KVM here cannot
//! do is refused.
//!
//! Where `/dev/kvm` does not open these tests print `SKIPPED: ` and the reason. KVM's answers are
//! this machine's; those that no single machine gives are tested with fakes beside the code.
#![cfg(target_arch = "x86_64")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "test code: a broken expectation is to stop the test loudly"
)]

use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use kvm_ioctls::Kvm;
use nosnoop_tests::frontend::memory::PAGE;
use nosnoop_tests::frontend::memtype::MapFlags;
use nosnoop_tests::frontend::request;
use nosnoop_tests::frontend::response::{self, resp};
use nosnoop_tests::frontend::{Daemon, GuestRam, ImageRequest};
use nosnoop_tests::vmm::by_hand::{ByHand, Bytes, REGION, REGION_SIZE};
use nosnoop_tests::vmm::guest::{Answer, LINUX_PAT, Order, Pattern};
use nosnoop_tests::vmm::host;
use nosnoop_tests::vmm::machine::{GuestPage, Machine};
use nosnoop_tests::vmm::micro::MicroVm;
use nosnoop_tests::vmm::probe::{Decision, KvmAnswers, Support};
use nosnoop_tests::vmm::slots::MapRequest;
use nosnoop_tests::vmm::tables::PatType;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

/// Where the guest maps blobs.
const ADDRESS: u64 = 1 << 39;

const EINVAL: u64 = 22;
const EOPNOTSUPP: u64 = 95;

const BLOB: u64 = 16 * PAGE;
const WORDS: u64 = BLOB / 8;

const HOSTS: Pattern = Pattern {
    first: 0x0123_4567_89ab_cdef,
    step: 0x1_0001,
};
const GUESTS: Pattern = Pattern {
    first: 0xfedc_ba98_7654_3210,
    step: 0x1_0000_0003,
};

/// A virtual machine for blobs of [`BLOB`] bytes that the guest maps at [`ADDRESS`].
struct Rig(ByHand);

fn kvm() -> Option<Kvm> {
    match Kvm::new() {
        Ok(kvm) => Some(kvm),
        Err(error) => {
            println!("SKIPPED: /dev/kvm does not open: {error}");
            None
        }
    }
}

fn answers(kvm: &Kvm) -> KvmAnswers {
    host::ask(kvm, Path::new("/"), false).unwrap()
}

impl Rig {
    fn new(kvm: &Kvm, support: Support) -> Self {
        Rig(ByHand::new(kvm, support).unwrap())
    }

    /// The map request of the extension; returns the code in the answer.
    fn map(&self, offset: u64, flags: u64, file: &OwnedFd) -> u64 {
        let bytes = Bytes {
            file: file.as_fd(),
            file_offset: 0,
            offset,
            len: BLOB,
        };
        self.0.map(bytes, flags).unwrap()
    }

    fn unmap(&self, offset: u64) -> u64 {
        self.0.unmap(offset, BLOB).unwrap()
    }

    fn guest_maps(&mut self, offset: u64, map_info: u32) -> Answer {
        self.0.guest_maps(offset, BLOB, ADDRESS, map_info).unwrap()
    }

    /// What the host sees of a blob through the VMM's own mapping.
    fn seen(&self, offset: u64) -> Vec<u8> {
        let window = self.channel.window();
        window.reservation().read(offset, BLOB as usize).unwrap()
    }
}

impl Deref for Rig {
    type Target = ByHand;
    fn deref(&self) -> &ByHand {
        &self.0
    }
}

impl DerefMut for Rig {
    fn deref_mut(&mut self) -> &mut ByHand {
        &mut self.0
    }
}

fn memfd(contents: &[u8]) -> OwnedFd {
    let file = memfd_create("blob", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&file, contents.len() as u64).unwrap();
    rustix::io::pwrite(&file, contents, 0).unwrap();
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW).unwrap();
    file
}

/// What is mapped in this process between two addresses, apart from what cannot be accessed.
fn accessible(from: u64, len: u64) -> Vec<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let inside = |line: &&str| {
        let (start, rest) = line.split_once('-').unwrap();
        let start = u64::from_str_radix(start, 16).unwrap();
        (from..from + len).contains(&start) && !rest.contains(" ---p ")
    };
    maps.lines().filter(inside).map(str::to_owned).collect()
}

impl Rig {
    /// Checks that there is nothing at this place: not for the guest, and not here.
    fn assert_nothing_at(&mut self, offset: u64) {
        assert_eq!(self.channel.window().mapped(), []);
        let address = self.channel.window().reservation().address();
        assert_eq!(accessible(address, REGION_SIZE), Vec::<String>::new());
        assert_eq!(self.guest_maps(offset, 1), Answer::Done([0, 0]));
        let before = self.machine.strays().len();
        let [word, _] = self.machine.done(Order::Load(ADDRESS)).unwrap();
        assert_eq!(word, u64::MAX);
        assert_eq!(self.machine.strays()[before..], [(REGION + offset, false)]);
    }
}

#[test]
fn guest_and_host_see_each_others_patterns_through_a_blob() {
    let Some(kvm) = kvm() else { return };
    let mut rig = Rig::new(&kvm, Support::new(&answers(&kvm)));
    let file = memfd(&HOSTS.bytes(WORDS));
    let offset = 5 << 30;
    assert_eq!(rig.map(offset, 0x11, &file), 0);
    assert_eq!(rig.machine.set_pat().unwrap(), LINUX_PAT);
    assert_eq!(rig.guest_maps(offset, 1), Answer::Done([0, 0]));
    let page = GuestPage {
        physical: REGION + offset + 15 * PAGE,
        memory_type: Some(PatType::WriteBack),
        writable: true,
    };
    let last = rig.machine.page(ADDRESS + 15 * PAGE).unwrap();
    assert_eq!(last, Some(page));
    assert_eq!(rig.machine.page(ADDRESS + BLOB).unwrap(), None);

    assert_eq!(rig.machine.check(ADDRESS, WORDS, HOSTS).unwrap(), [0, 0]);
    rig.machine
        .done(Order::Fill(ADDRESS, WORDS, GUESTS))
        .unwrap();
    assert!(rig.seen(offset) == GUESTS.bytes(WORDS));
    let mut bytes = vec![0; BLOB as usize];
    rustix::io::pread(&file, &mut bytes, 0).unwrap();
    assert!(bytes == GUESTS.bytes(WORDS));
    // The guest's comparison finds one wrong word among all.
    rustix::io::pwrite(&file, &[!0], 8 * 1000).unwrap();
    let wrong = rig.machine.check(ADDRESS, WORDS, GUESTS).unwrap();
    assert_eq!(wrong, [1, 1000]);
    assert_eq!(rig.machine.strays(), []);
}

/// Attributes only: which entry of its own table the guest's page tables select. Whether that takes
/// effect is another question, and its answer is [`probe`](nosnoop_tests::vmm::probe)'s.
#[test]
fn the_guests_page_tables_follow_map_info() {
    let Some(kvm) = kvm() else { return };
    let mut rig = Rig::new(&kvm, Support::new(&answers(&kvm)));
    assert_eq!(rig.map(0, 1, &memfd(&HOSTS.bytes(WORDS))), 0);
    rig.machine.set_pat().unwrap();
    for (map_info, memory_type) in [
        (1, PatType::WriteBack),
        (2, PatType::UncachedMinus),
        (3, PatType::WriteCombining),
    ] {
        assert_eq!(rig.guest_maps(0, map_info), Answer::Done([0, 0]));
        let page = rig.machine.page(ADDRESS).unwrap().unwrap();
        assert_eq!(page.memory_type, Some(memory_type));
        assert_eq!(rig.machine.check(ADDRESS, WORDS, HOSTS).unwrap(), [0, 0]);
        rig.machine.done(Order::Unmap(ADDRESS)).unwrap();
        assert_eq!(rig.machine.page(ADDRESS).unwrap(), None);
    }
    // Nothing is mapped for what is no map_info, access bits included.
    for map_info in [0, 4, 0x13, 0x8000_0001] {
        assert_eq!(rig.guest_maps(0, map_info), Answer::BadMapInfo);
        assert_eq!(rig.machine.page(ADDRESS).unwrap(), None);
    }
}

#[test]
fn a_memory_type_takes_effect_or_is_refused_and_nothing_is_mapped() {
    let Some(kvm) = kvm() else { return };
    let support = Support::new(&answers(&kvm));
    println!("{:?}", answers(&kvm));
    println!("{support:?}");
    let mut rig = Rig::new(&kvm, support);
    let file = memfd(&HOSTS.bytes(WORDS));
    // WC and UC, with and without NONCOHERENT.
    for (count, flags) in (1..).zip([0x31, 0x131, 0x21, 0x121]) {
        match support.ram {
            Decision::Impossible(reason) => {
                assert_eq!(rig.map(PAGE, flags, &file), EOPNOTSUPP);
                let refusals = rig.channel.refusals();
                assert_eq!(refusals.len(), count);
                assert!(refusals[count - 1].why.ends_with(&reason.to_string()));
                rig.assert_nothing_at(PAGE);
            }
            _ => {
                assert_eq!(rig.map(PAGE, flags, &file), 0);
                assert_eq!(rig.unmap(PAGE), 0);
            }
        }
    }
    // The same place and the same file, cached.
    assert_eq!(rig.map(PAGE, 0x11, &file), 0);
    assert_eq!(rig.guest_maps(PAGE, 1), Answer::Done([0, 0]));
    assert_eq!(rig.machine.check(ADDRESS, WORDS, HOSTS).unwrap(), [0, 0]);
}

/// A VMM that believes in a flag which its kernel does not know: the refusal is KVM's own.
#[test]
fn a_slot_flag_that_kvm_does_not_know_is_a_refusal() {
    let Some(kvm) = kvm() else { return };
    if answers(&kvm).flagged_slot.is_ok() {
        println!("SKIPPED: this kernel takes the flag");
        return;
    }
    let support = Support {
        ram: Decision::PerSlotFlag,
        mmio: Decision::AlwaysHonored,
    };
    let mut rig = Rig::new(&kvm, support);
    let file = memfd(&HOSTS.bytes(WORDS));
    assert_eq!(rig.map(0, 0x131, &file), EINVAL);
    assert!(rig.channel.refusals()[0].why.contains("memory slot"));
    rig.assert_nothing_at(0);
    // Cached slots do not carry it.
    assert_eq!(rig.map(0, 0x11, &file), 0);
}

#[test]
fn a_quirk_that_kvm_does_not_disable_is_no_machine() {
    let Some(kvm) = kvm() else { return };
    let support = Support {
        ram: Decision::PerVmQuirk,
        mmio: Decision::AlwaysHonored,
    };
    let ram = GuestRam::new(&[(1 << 20, 1 << 20)]).unwrap();
    let made = Machine::new(&kvm, &ram, support, None);
    match answers(&kvm).disable_quirk {
        Ok(()) => assert!(made.is_ok()),
        Err(_) => {
            let error = made.unwrap_err().to_string();
            assert!(error.contains("KVM_X86_QUIRK_IGNORE_GUEST_PAT"), "{error}");
        }
    }
}

#[test]
fn what_is_unmapped_is_gone_and_its_place_shows_the_next_blob() {
    let Some(kvm) = kvm() else { return };
    let mut rig = Rig::new(&kvm, Support::new(&answers(&kvm)));
    let offset = REGION_SIZE - BLOB;
    for round in 0..20 {
        let pattern = Pattern {
            first: round,
            step: 7,
        };
        assert_eq!(rig.map(offset, 1, &memfd(&pattern.bytes(WORDS))), 0);
        assert_eq!(rig.guest_maps(offset, 1), Answer::Done([0, 0]));
        assert_eq!(rig.machine.check(ADDRESS, WORDS, pattern).unwrap(), [0, 0]);
        assert_eq!(rig.unmap(offset), 0);
        rig.assert_nothing_at(offset);
    }
}

#[test]
fn a_blob_that_is_not_writable_stays_as_it_is() {
    let Some(kvm) = kvm() else { return };
    let mut rig = Rig::new(&kvm, Support::new(&answers(&kvm)));
    let file = memfd(&HOSTS.bytes(WORDS));
    assert_eq!(rig.map(0, 0x10, &file), 0);
    assert_eq!(rig.guest_maps(0, 1), Answer::Done([0, 0]));
    let poke = Order::Fill(ADDRESS + 8, 1, GUESTS);
    rig.machine.done(poke).unwrap();
    assert_eq!(rig.machine.strays(), [(REGION + 8, true)]);
    assert_eq!(rig.machine.check(ADDRESS, WORDS, HOSTS).unwrap(), [0, 0]);
}

#[test]
fn many_blobs_at_once_each_show_their_own() {
    let Some(kvm) = kvm() else { return };
    let mut rig = Rig::new(&kvm, Support::new(&answers(&kvm)));
    let pattern = |number: u64| Pattern {
        first: number << 32,
        step: 1,
    };
    let offset = |number: u64| number * (16 << 20);
    for number in 0..200 {
        let file = memfd(&pattern(number).bytes(WORDS));
        assert_eq!(rig.map(offset(number), 0x11, &file), 0);
    }
    // Every other one goes, and their places are taken again.
    for number in (0..200).step_by(2) {
        assert_eq!(rig.unmap(offset(number)), 0);
    }
    for number in (0..200).step_by(2) {
        let file = memfd(&pattern(number + 1000).bytes(WORDS));
        assert_eq!(rig.map(offset(number), 0x11, &file), 0);
    }
    for number in 0..200 {
        assert_eq!(rig.guest_maps(offset(number), 1), Answer::Done([0, 0]));
        let number = if number % 2 == 0 {
            number + 1000
        } else {
            number
        };
        let seen = rig.machine.check(ADDRESS, 16, pattern(number)).unwrap();
        assert_eq!(seen, [0, 0]);
    }
    rig.channel.window().clear().unwrap();
    rig.assert_nothing_at(0);
}

/// Bytes of the image that the guest allocates: rows of 1024 pixels are a page each.
const ROWS: u32 = 16;

#[test]
fn the_guest_drives_the_daemons_queue_and_maps_what_it_allocates() {
    let Some(kvm) = kvm() else { return };
    let mut daemon = Daemon::start(&["--shm-size", "8G"]).unwrap();
    let support = Support::new(&answers(&kvm));
    let mut vm = MicroVm::connect(daemon.socket(), &kvm, support).unwrap();
    assert_eq!(vm.machine.set_pat().unwrap(), LINUX_PAT);

    let info = request::get_display_info();
    let displays = vm.call(&info, response::DISPLAY_INFO).unwrap();
    let displays = displays.expect("GET_DISPLAY_INFO", resp::OK_DISPLAY_INFO);
    assert!(displays.unwrap().displays()[0].enabled);
    // An error answer comes through as well.
    let nothing = vm.call(&request::unref(77), response::HEADER).unwrap();
    assert_eq!(nothing.kind(), resp::ERR_INVALID_RESOURCE_ID);

    let image = ImageRequest::xrgb(1024, ROWS);
    let info = vm.image_blob(10, image).unwrap();
    assert_eq!(info.blob_size(), BLOB);
    let offset = 3 << 30;
    let answer = vm.map_blob(10, offset, ADDRESS, BLOB / PAGE).unwrap();
    let answer = answer.expect("RESOURCE_MAP_BLOB", resp::OK_MAP_INFO);
    assert_eq!(answer.unwrap().map_info(), 1);
    let page = vm.machine.page(ADDRESS).unwrap().unwrap();
    assert_eq!(page.physical, REGION + offset);
    assert_eq!(page.memory_type, Some(PatType::WriteBack));

    let window = vm.channel.window().reservation().clone();
    window.write(offset, &HOSTS.bytes(WORDS)).unwrap();
    assert_eq!(vm.machine.check(ADDRESS, WORDS, HOSTS).unwrap(), [0, 0]);
    vm.machine
        .done(Order::Fill(ADDRESS, WORDS, GUESTS))
        .unwrap();
    assert!(window.read(offset, BLOB as usize).unwrap() == GUESTS.bytes(WORDS));

    vm.command("RESOURCE_UNMAP_BLOB", &request::unmap_blob(10))
        .unwrap();
    assert_eq!(vm.channel.window().mapped(), []);
    let [word, _] = vm.machine.done(Order::Load(ADDRESS)).unwrap();
    assert_eq!(word, u64::MAX);
    assert_eq!(vm.machine.strays(), [(REGION + offset, false)]);
    vm.command("RESOURCE_UNREF", &request::unref(10)).unwrap();
    assert_eq!(vm.channel.refusals(), []);
    assert!(daemon.terminate().unwrap().success());
}

#[test]
fn what_the_vmm_refuses_is_an_error_for_the_guest_and_not_mapped() {
    let Some(kvm) = kvm() else { return };
    let mut daemon = Daemon::start(&["--shm-size", "8G"]).unwrap();
    let support = Support::new(&answers(&kvm));
    let mut vm = MicroVm::connect(daemon.socket(), &kvm, support).unwrap();
    let image = ImageRequest::xrgb(1024, ROWS);
    vm.image_blob(10, image).unwrap();
    // The place is taken, of which the daemon does not know.
    let taken = MapRequest {
        file_offset: 0,
        offset: BLOB,
        len: BLOB,
        flags: MapFlags::parse(1, false).unwrap(),
    };
    let file = memfd(&HOSTS.bytes(WORDS));
    vm.channel.window().map(taken, &file).unwrap();
    let answer = vm.map_blob(10, BLOB, ADDRESS, BLOB / PAGE).unwrap();
    assert_eq!(answer.kind(), resp::ERR_UNSPEC);
    assert_eq!(vm.machine.page(ADDRESS).unwrap(), None);
    assert_eq!(vm.channel.refusals().len(), 1);
    // Beside it there is room.
    let answer = vm.map_blob(10, 0, ADDRESS, BLOB / PAGE).unwrap();
    assert_eq!(answer.kind(), resp::OK_MAP_INFO);
    assert_eq!(vm.channel.window().mapped(), [(0, BLOB), (BLOB, BLOB)]);
    assert!(daemon.terminate().unwrap().success());
}
