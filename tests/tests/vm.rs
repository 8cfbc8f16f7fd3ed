//! Real QEMU, real Linux, its own virtio-gpu driver, on the daemon: every pixel compared.
//!
//! `NOSNOOP_VM=0` leaves these tests out; a machine that cannot boot a guest does so by itself.
//! Both print a line that begins with `SKIPPED: ` and the reason.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "test code: a broken expectation is to stop the test loudly"
)]

#[path = "vm/chain.rs"]
mod chain;
#[path = "vm/drivers.rs"]
mod drivers;
#[path = "vm/gl.rs"]
mod gl;
#[path = "vm/mappings.rs"]
mod mappings;
#[path = "vm/venus.rs"]
mod venus;

use std::sync::{Mutex, MutexGuard, PoisonError};

use nosnoop_guest::pattern::Size;
use nosnoop_guest::wire::{Driver, Event, Order, Step, Task};
use nosnoop_protocol::MapCache;
use nosnoop_tests::lab::backend::{Backend, Kind};
use nosnoop_tests::lab::blob::{self, BlobReport, CheckedImage};
use nosnoop_tests::lab::demo::{self, Lab, STEP_LIMIT, check_steps, wait_for_driver};
use nosnoop_tests::lab::nested;
use nosnoop_tests::lab::pages::MemoryType;
use nosnoop_tests::lab::picture::Picture;
use nosnoop_tests::lab::qemu::{Accelerator, Device, Machine, Setup};
use nosnoop_tests::lab::report::CheckedStep;
use nosnoop_tests::lab::{LabError, Result};

/// One machine at a time: an emulated one keeps a processor busy, and deadlines are real time.
static TURN: Mutex<()> = Mutex::new(());

/// The lab and this test's turn, or `None` after a line that says why there is none.
fn lab() -> Option<(Lab, MutexGuard<'static, ()>)> {
    prepared(Lab::prepare)
}

/// What `prepare` gives and this test's turn, or `None` after a line that says why there is none.
fn prepared<T>(prepare: impl FnOnce() -> Result<T>) -> Option<(T, MutexGuard<'static, ()>)> {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    if std::env::var("NOSNOOP_VM").is_ok_and(|value| value == "0") {
        println!("SKIPPED: NOSNOOP_VM=0");
        return None;
    }
    match prepare() {
        Ok(found) => Some((found, turn)),
        Err(LabError::Unavailable(why)) => {
            println!("SKIPPED: no VM: {why}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Whether a virtio feature bit was negotiated.
fn has_feature(driver: &Driver, bit: usize) -> bool {
    driver.features.as_bytes()[bit] == b'1'
}

/// Boots to the driver and checks every picture on QEMU's screen.
fn draw(machine: &mut Machine<'_>) -> Result<(Driver, Vec<CheckedStep>)> {
    let (driver, _) = wait_for_driver(machine)?;
    let steps = check_steps(machine, None, &mut |machine| machine.screendump())?;
    Ok((driver, steps))
}

#[track_caller]
fn assert_exact(steps: &[CheckedStep]) {
    let names = steps.iter().map(|step| step.step).collect::<Vec<_>>();
    let all = [
        Step::Mode,
        Step::Flip,
        Step::Damage,
        Step::Cursor,
        Step::Resize,
    ];
    assert_eq!(names, all);
    for step in steps {
        assert!(
            step.comparison.is_exact(),
            "{:?}: {}",
            step.step,
            step.comparison
        );
    }
}

#[test]
fn linux_draws_through_the_daemon_and_every_pixel_is_right() {
    let Some((lab, _turn)) = lab() else { return };
    let folder = tempfile::tempdir().unwrap();
    let report = demo::run(&lab, &Kind::OURS, folder.path()).unwrap();
    assert_exact(&report.steps);
    let driver = report.guest.unwrap().driver;
    assert_eq!(driver.name, "virtio_gpu");
    assert_eq!((driver.modes[0].width, driver.modes[0].height), (1280, 800));
    assert!(
        driver.edid.starts_with("00ffffffffffff00"),
        "{}",
        driver.edid
    );
    // EDID, RESOURCE_UUID, INDIRECT_DESC, EVENT_IDX, VERSION_1.
    for bit in [1, 2, 28, 29, 32] {
        assert!(
            has_feature(&driver, bit),
            "bit {bit} of {}",
            driver.features
        );
    }
    assert!(folder.path().join("scanout.png").is_file());
    assert!(folder.path().join("report.json").is_file());
}

#[test]
fn the_daemon_serves_a_rebooted_guest_and_then_another_machine() {
    let Some((lab, _turn)) = lab() else { return };
    let mut backend = Backend::start(&Kind::OURS, &lab.root, &[]).unwrap();
    let size = Size {
        width: 1000,
        height: 700,
    };
    let setup = Setup {
        device: Device::Gpu(Some(size)),
        may_reboot: true,
        ..Setup::new(Task::Demo)
    };
    let mut machine = lab.boot(&mut backend, &setup).unwrap();
    let (_, steps) = draw(&mut machine).unwrap();
    assert_exact(&steps);
    assert_eq!((steps[0].width, steps[0].height), (1000, 700));

    machine.order(Order::Reboot).unwrap();
    let (_, steps) = draw(&mut machine).unwrap();
    assert_exact(&steps);
    assert!(machine.power_off().unwrap().success());

    let mut machine = lab.boot(&mut backend, &Setup::new(Task::Demo)).unwrap();
    let (_, steps) = draw(&mut machine).unwrap();
    assert_exact(&steps);
    assert_eq!((steps[0].width, steps[0].height), (1280, 800));
    assert!(machine.power_off().unwrap().success());
    assert!(backend.stop().unwrap().success());
}

/// Runs the demo task on a device without a display and checks the daemon's own pictures. What the
/// driver says, and the pictures.
fn draw_without_display(lab: &Lab, options: &[&str]) -> (Driver, Vec<(Step, Picture)>) {
    let folder = tempfile::tempdir().unwrap();
    let mut backend = Backend::start(&Kind::OURS, &lab.root, options).unwrap();
    let setup = Setup {
        device: Device::Test,
        ..Setup::new(Task::Demo)
    };
    let mut machine = lab.boot(&mut backend, &setup).unwrap();
    let (driver, _) = wait_for_driver(&mut machine).unwrap();
    let steps = check_steps(&mut machine, Some(folder.path()), &mut |machine| {
        machine.backend.screenshot(0)
    })
    .unwrap();
    assert_exact(&steps);
    assert_eq!((steps[0].width, steps[0].height), (1024, 768));
    let picture = |step: &CheckedStep| {
        let file = folder.path().join(step.file.as_ref().unwrap());
        (step.step, Picture::load(&file).unwrap())
    };
    let pictures = steps.iter().map(picture).collect();
    assert!(machine.power_off().unwrap().success());
    assert!(backend.stop().unwrap().success());
    (driver, pictures)
}

#[test]
fn linux_shows_the_same_with_guest_blobs_and_with_2d_resources() {
    let Some((lab, _turn)) = lab() else { return };
    let without = ["--shm-size", "0", "--output", "1024x768"];
    let (driver, blobs) = draw_without_display(&lab, &without);
    // RESOURCE_BLOB without VIRGL: the driver makes its frame buffers guest blobs.
    assert!(
        has_feature(&driver, 3) && !has_feature(&driver, 0),
        "{}",
        driver.features
    );
    let (driver, resources) = draw_without_display(&lab, &blob::OPTIONS);
    // VIRGL, RESOURCE_BLOB, CONTEXT_INIT: with the first the driver's frame buffers are 2D
    // resources.
    for bit in [0, 3, 4] {
        assert!(
            has_feature(&driver, bit),
            "bit {bit} of {}",
            driver.features
        );
    }
    assert_eq!(blobs.len(), resources.len());
    for ((step, blob), (other, resource)) in blobs.iter().zip(&resources) {
        assert_eq!(step, other);
        let comparison = blob.compare(resource);
        println!("{}: {comparison}", step.name());
        assert!(comparison.is_exact(), "{step:?}: {comparison}");
    }
}

/// How often the guest makes, maps and gives back an image.
const BLOB_ROUNDS: u64 = 10_000;

/// What the backend may hold on to after all rounds, in KiB: what its allocator keeps for later.
const KEPT_KIB: u64 = 1024;

/// Checks that the guest maps an image as the device has announced it, and that the host reads
/// what the guest has drawn.
#[track_caller]
fn assert_right(image: &CheckedImage, announced: MapCache) {
    assert!(image.comparison.is_exact(), "{image:?}");
    let (told, mapped) = (&image.image, &image.mapped);
    assert_eq!(MapCache::from_wire(told.map_info), Some(announced));
    // 64-bit, where no range register changes what the page tables say.
    assert!(mapped.physical >= 1 << 32, "{mapped:?}");
    let expected = MemoryType::of_map_info(told.map_info).unwrap();
    assert_eq!(mapped.memory_type, expected, "{mapped:?}");
    let listed = mapped.listed.as_deref();
    assert_eq!(listed, Some(expected.name()), "{mapped:?}");
}

#[track_caller]
fn assert_blobs_right(report: &BlobReport) {
    let node = &report.node;
    assert!(
        node.submissions && node.blobs && node.host_visible && node.context_init,
        "{node:?}"
    );
    // Version 1, no channels, no dma-buf, no GPU memory.
    assert_eq!(node.capsets, 1 << 5);
    assert_eq!(node.cross_domain, format!("01{}", "0".repeat(30)));
    assert_eq!(report.many.len(), 40);
    let images = report.many.iter().chain([&report.drawn, &report.left]);
    images.for_each(|image| assert_right(image, MapCache::Cached));
}

#[track_caller]
fn assert_nothing_left_behind(report: &BlobReport) {
    let (before, after) = (report.before, report.after);
    let millis = report.nanos / 1_000_000;
    println!(
        "{} rounds in {millis} ms; before: {before}; after: {after}",
        report.rounds
    );
    assert_eq!(report.rounds, BLOB_ROUNDS);
    assert_eq!(after.held, before.held);
    let more = after.usage.own_kib().saturating_sub(before.usage.own_kib());
    assert!(more <= KEPT_KIB, "{more} KiB more");
    assert_eq!(after.qemu_blobs, 0);
    assert_eq!(after.qemu_held.descriptors, before.qemu_held.descriptors);
}

#[test]
fn linux_maps_host_blobs_and_leaves_nothing_behind() {
    let Some((lab, _turn)) = lab() else { return };
    let mut backend = Backend::start(&Kind::OURS, &lab.root, &blob::OPTIONS).unwrap();
    let setup = Setup {
        device: Device::Test,
        rounds: BLOB_ROUNDS,
        ..Setup::new(Task::Blob)
    };
    let mut machine = lab.boot(&mut backend, &setup).unwrap();
    let report = blob::check(&mut machine, None).unwrap();
    assert_blobs_right(&report);
    assert_nothing_left_behind(&report);
    // QEMU ends with an image mapped: nothing of it stays in the daemon.
    assert!(machine.power_off().unwrap().success());
    blob::wait_for_none(&backend).unwrap();
    assert!(backend.stop().unwrap().success());
}

/// QEMU 11.1 survives this only where it shares memory as a whole table; see the module `mappings`.
#[test]
fn a_guest_that_is_reset_or_killed_with_a_blob_mapped_leaves_nothing_behind() {
    let Some((lab, _turn)) = lab() else { return };
    let options = [&blob::OPTIONS[..], &["--no-mem-slots"]].concat();
    let mut backend = Backend::start(&Kind::OURS, &lab.root, &options).unwrap();
    let setup = Setup {
        device: Device::Test,
        rounds: 10,
        may_reboot: true,
        ..Setup::new(Task::Blob)
    };
    let mut machine = lab.boot(&mut backend, &setup).unwrap();
    let first = blob::check(&mut machine, None).unwrap();
    assert_blobs_right(&first);
    machine.order(Order::Reboot).unwrap();
    let second = blob::check(&mut machine, None).unwrap();
    assert_blobs_right(&second);
    assert_eq!(
        second.before.held.descriptors,
        first.before.held.descriptors
    );
    // Killed, not switched off.
    drop(machine);
    blob::wait_for_none(&backend).unwrap();

    let mut machine = lab.boot(&mut backend, &setup).unwrap();
    assert_blobs_right(&blob::check(&mut machine, None).unwrap());
    assert!(machine.power_off().unwrap().success());
    assert!(backend.stop().unwrap().success());
}

/// Attributes only: whatever is announced, the memory is a memfd that the host maps cached.
#[test]
fn linux_maps_images_with_the_memory_types_that_the_device_announces() {
    let Some((lab, _turn)) = lab() else { return };
    let options = [
        &blob::OPTIONS[..],
        &["--test-memtype", "cached,uncached,wc"],
    ]
    .concat();
    let mut backend = Backend::start(&Kind::TEST_MEMTYPE, &lab.root, &options).unwrap();
    let setup = Setup {
        device: Device::Test,
        rounds: 10,
        // It has no caches, so that host and guest may map the same page in different ways.
        accelerator: Accelerator::Tcg,
        ..Setup::new(Task::Blob)
    };
    let mut machine = lab.boot(&mut backend, &setup).unwrap();
    let report = blob::check(&mut machine, None).unwrap();
    // The daemon counts the descriptions that it gives out. The first is that of the image that
    // both sides draw into and of the one that is left; each of the many has its own.
    let types = [MapCache::Cached, MapCache::Uncached, MapCache::Wc];
    assert_right(&report.drawn, MapCache::Cached);
    assert_right(&report.left, MapCache::Cached);
    assert_eq!(report.many.len(), 40);
    for (image, announced) in report.many.iter().zip(types.into_iter().cycle().skip(1)) {
        assert_right(image, announced);
    }
    for image in &report.many[..3] {
        let mapped = &image.mapped;
        println!(
            "map_info {}: {:#x} {}, listed as {:?}",
            image.image.map_info, mapped.physical, mapped.flags, mapped.listed
        );
    }
    assert!(machine.power_off().unwrap().success());
    assert!(backend.stop().unwrap().success());
}

/// Attributes on both ends of the chain, and that a wrong chain shows. Nothing here has caches.
#[test]
fn a_vmm_in_a_guest_maps_write_combining_for_its_own_guest() {
    let Some((lab, _turn)) = lab() else { return };
    let report = nested::run(&lab.root).unwrap();
    println!("{} in {:?}", report.answers, report.took);
    // AMD with nested paging, but in a virtual machine: nobody's word, nothing mapped.
    assert_eq!(report.refusals.len(), 2);
    for why in &report.refusals {
        assert!(why.contains("a hypervisor below"), "{why}");
    }
    let found: Vec<_> = report
        .blobs
        .iter()
        .map(|blob| {
            assert_eq!(blob.told.wrong, 0, "{blob:?}");
            let told = &blob.told;
            (
                &*told.source,
                told.map_info,
                blob.host_type,
                &*told.guest_type,
            )
        })
        .collect();
    let (combining, cached) = ("write-combining", "write-back");
    let expected = [
        ("vgem", 3, MemoryType::WriteCombining, combining),
        ("memfd", 1, MemoryType::WriteBack, cached),
        // Announced as what it is not: the two ends differ.
        ("memfd", 3, MemoryType::WriteBack, combining),
        ("daemon", 1, MemoryType::WriteBack, cached),
        // The whole chain, with the release daemon.
        ("daemon on vgem", 3, MemoryType::WriteCombining, combining),
        ("daemon on udmabuf", 1, MemoryType::WriteBack, cached),
    ];
    assert_eq!(found, expected);
}

#[test]
fn the_same_guest_boots_on_qemus_own_backend() {
    let Some((lab, _turn)) = lab() else { return };
    if lab.root.c_backend.is_none() {
        println!("SKIPPED: {} has no vhost-user-gpu", lab.root.origin);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let report = demo::run(&lab, &Kind::VHOST_USER_GPU, folder.path()).unwrap();
    println!("{} of {} pixels differ", report.wrong(), report.pixels());
    assert_eq!(report.steps.len(), 5);
}

#[test]
fn a_backend_that_dies_is_an_error_and_no_hang() {
    let Some((lab, _turn)) = lab() else { return };
    let mut backend = Backend::start(&Kind::OURS, &lab.root, &[]).unwrap();
    let mut machine = lab.boot(&mut backend, &Setup::new(Task::Idle)).unwrap();
    wait_for_driver(&mut machine).unwrap();
    let drawn = machine.event("the idle picture", STEP_LIMIT).unwrap();
    assert!(
        matches!(
            drawn,
            Event::Drawn {
                step: Step::Idle,
                ..
            }
        ),
        "{drawn:?}"
    );
    machine.backend.kill().unwrap();
    let error = machine
        .event("nothing", STEP_LIMIT)
        .unwrap_err()
        .to_string();
    assert!(error.contains("nosnoop-gpu"), "{error}");
}
