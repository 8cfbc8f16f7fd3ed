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

use std::sync::{Mutex, MutexGuard, PoisonError};

use nosnoop_guest::pattern::Size;
use nosnoop_guest::wire::{Driver, Event, Order, Step, Task};
use nosnoop_tests::lab::backend::{Backend, Kind};
use nosnoop_tests::lab::blob::{self, BlobReport, CheckedImage};
use nosnoop_tests::lab::demo::{self, Lab, STEP_LIMIT, check_steps, wait_for_driver};
use nosnoop_tests::lab::nested;
use nosnoop_tests::lab::pages::MemoryType;
use nosnoop_tests::lab::qemu::{Device, Machine, Setup};
use nosnoop_tests::lab::report::CheckedStep;
use nosnoop_tests::lab::{LabError, Result};

/// One machine at a time: an emulated one keeps a processor busy, and deadlines are real time.
static TURN: Mutex<()> = Mutex::new(());

/// The lab and this test's turn, or `None` after a line that says why there is none.
fn lab() -> Option<(Lab, MutexGuard<'static, ()>)> {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    if std::env::var("NOSNOOP_VM").is_ok_and(|value| value == "0") {
        println!("SKIPPED: NOSNOOP_VM=0");
        return None;
    }
    match Lab::prepare() {
        Ok(lab) => Some((lab, turn)),
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
    let report = demo::run(&lab, &Kind::Ours, folder.path()).unwrap();
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
    let mut backend = Backend::start(&Kind::Ours, &lab.root, &[]).unwrap();
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

#[test]
fn linux_shows_guest_blobs_without_transfers() {
    let Some((lab, _turn)) = lab() else { return };
    let options = ["--output", "1024x768"];
    let mut backend = Backend::start(&Kind::Ours, &lab.root, &options).unwrap();
    let setup = Setup {
        device: Device::Test,
        ..Setup::new(Task::Demo)
    };
    let mut machine = lab.boot(&mut backend, &setup).unwrap();
    let (driver, _) = wait_for_driver(&mut machine).unwrap();
    // RESOURCE_BLOB without VIRGL: the driver makes its frame buffers guest blobs.
    assert!(
        has_feature(&driver, 3) && !has_feature(&driver, 0),
        "{}",
        driver.features
    );
    // No display on this device: the daemon's own pictures are looked at.
    let steps = check_steps(&mut machine, None, &mut |machine| {
        machine.backend.screenshot(0)
    })
    .unwrap();
    assert_exact(&steps);
    assert_eq!((steps[0].width, steps[0].height), (1024, 768));
    assert!(machine.power_off().unwrap().success());
    assert!(backend.stop().unwrap().success());
}

#[test]
fn linux_shows_2d_resources_where_host_blobs_are_offered() {
    let Some((lab, _turn)) = lab() else { return };
    let mut backend = Backend::start(&Kind::Ours, &lab.root, &blob::OPTIONS).unwrap();
    let setup = Setup {
        device: Device::Test,
        ..Setup::new(Task::Demo)
    };
    let mut machine = lab.boot(&mut backend, &setup).unwrap();
    let (driver, _) = wait_for_driver(&mut machine).unwrap();
    // VIRGL, RESOURCE_BLOB, CONTEXT_INIT: with the first the driver's frame buffers are 2D
    // resources.
    for bit in [0, 3, 4] {
        assert!(
            has_feature(&driver, bit),
            "bit {bit} of {}",
            driver.features
        );
    }
    let steps = check_steps(&mut machine, None, &mut |machine| {
        machine.backend.screenshot(0)
    })
    .unwrap();
    assert_exact(&steps);
    assert_eq!((steps[0].width, steps[0].height), (1024, 768));
    assert!(machine.power_off().unwrap().success());
    assert!(backend.stop().unwrap().success());
}

/// How often the guest makes, maps and gives back an image. An emulated one takes its time.
const BLOB_ROUNDS: u64 = 1000;

/// What the backend may hold on to after all rounds, in KiB: what its allocator keeps for later.
const KEPT_KIB: u64 = 1024;

#[track_caller]
fn assert_cached_and_exact(image: &CheckedImage) {
    assert!(image.comparison.is_exact(), "{image:?}");
    let mapped = &image.mapped;
    // 64-bit, where no range register changes what the page tables say.
    assert!(mapped.physical >= 1 << 32, "{mapped:?}");
    assert_eq!(mapped.memory_type, MemoryType::WriteBack, "{mapped:?}");
    assert_eq!(mapped.listed.as_deref(), Some("write-back"), "{mapped:?}");
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
    assert_cached_and_exact(&report.drawn);
    assert_cached_and_exact(&report.left);
    assert_eq!(report.many.len(), 40);
    report.many.iter().for_each(assert_cached_and_exact);
    assert_eq!(report.rounds, BLOB_ROUNDS);
    let (before, after) = (report.before, report.after);
    assert_eq!(after.descriptors, before.descriptors);
    assert!(
        after.usage.own_kib() <= before.usage.own_kib().saturating_add(KEPT_KIB),
        "{before:?} {after:?}"
    );
}

#[test]
fn linux_maps_host_blobs_and_leaves_nothing_behind() {
    let Some((lab, _turn)) = lab() else { return };
    let mut backend = Backend::start(&Kind::Ours, &lab.root, &blob::OPTIONS).unwrap();
    let setup = Setup {
        device: Device::Test,
        rounds: BLOB_ROUNDS,
        ..Setup::new(Task::Blob)
    };
    let mut machine = lab.boot(&mut backend, &setup).unwrap();
    assert_blobs_right(&blob::check(&mut machine, None).unwrap());
    // QEMU ends with an image mapped: nothing of it stays in the daemon.
    assert!(machine.power_off().unwrap().success());
    blob::wait_for_none(&backend).unwrap();
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
    let report = demo::run(&lab, &Kind::Qemu, folder.path()).unwrap();
    println!("{} of {} pixels differ", report.wrong(), report.pixels());
    assert_eq!(report.steps.len(), 5);
}

#[test]
fn a_backend_that_dies_is_an_error_and_no_hang() {
    let Some((lab, _turn)) = lab() else { return };
    let mut backend = Backend::start(&Kind::Ours, &lab.root, &[]).unwrap();
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
