//! A guest with a KVM of its own, in which the reference VMM runs, with blobs of its own and on our
//! daemon: on an emulated AMD processor with nested paging, with vgem as the source of
//! write-combining memory.
//!
//! The outer QEMU sees the page tables of the VMM, and the VMM those of its guest: both ends of the
//! chain at once. An emulated processor has no caches, so this shows attributes, never what they
//! do; and its hypervisor bit is set, so that the VMM has to be told to trust what is below.

use std::thread;
use std::time::{Duration, Instant};

use nosnoop_guest::wire::{DAEMON, Event, NestedBlob, Order, PROGRAM, Task};

use super::backend::{Backend, Kind};
use super::demo::{BOOT_LIMIT, ONE_MACHINE, STEP_LIMIT};
use super::pages::{MemoryType, type_of};
use super::process::POLL;
use super::programs::Profile;
use super::qemu::{Accelerator, Device, Machine, Setup};
use super::root::Root;
use super::{LabError, Result, initramfs, programs, say};

/// What the guest loads.
const MODULES: [&str; 2] = ["kvm_amd", "vgem"];

/// How long QEMU may not see the VMM's pages: other programs run too, for a moment.
const PAGES_LIMIT: Duration = Duration::from_secs(60);

/// A blob as the VMM, its guest and the outer QEMU see it.
#[derive(Clone, Debug)]
pub struct SeenBlob {
    /// What the VMM says.
    pub told: NestedBlob,
    /// The memory type in the VMM's own page tables.
    pub host_type: MemoryType,
}

/// What a run has shown.
#[derive(Clone, Debug)]
pub struct NestedReport {
    /// What KVM answered, for people.
    pub answers: String,
    /// Why each request was refused as long as nobody vouched for what is below.
    pub refusals: Vec<String>,
    /// The blobs, in the order in which they were mapped.
    pub blobs: Vec<SeenBlob>,
    /// From QEMU's start to its end.
    pub took: Duration,
}

/// Boots the guest, and looks at each blob that its VMM maps.
///
/// # Errors
/// When a step fails or does not come in time.
pub fn run(root: &Root) -> Result<NestedReport> {
    say("building the VMM and the daemon for the guest");
    let daemon = programs::linked_statically("nosnoop-gpu", "nosnoop-gpu", Profile::Release)?;
    let vmm = programs::linked_statically("nosnoop-tests", "micro-vmm", Profile::Quick)?;
    let init = programs::guest()?;
    let inside = [(PROGRAM, vmm.as_path()), (DAEMON, &daemon)];
    let initial = initramfs::build(&init, &root.kernel, &MODULES, &inside)?;
    // A machine of the lab always has a GPU; the guest has no driver for it here.
    let mut backend = Backend::start(&Kind::OURS, root, &ONE_MACHINE)?;
    let setup = Setup {
        device: Device::Test,
        accelerator: Accelerator::Nested,
        ..Setup::new(Task::Program)
    };
    let mut machine = Machine::boot(root, &initial, &mut backend, &setup)?;
    let mut report = NestedReport {
        answers: String::new(),
        refusals: Vec::new(),
        blobs: Vec::new(),
        took: Duration::ZERO,
    };
    let mut limit = BOOT_LIMIT;
    loop {
        match machine.event("the VMM's next word", limit)? {
            Event::Started { .. } => {}
            Event::Kvm { answers, refusals } => {
                (report.answers, report.refusals) = (answers, refusals);
            }
            Event::Nested { blob } => {
                let host_type = host_type(&mut machine, &blob)?;
                say(format_args!("{blob:?}: {} for the VMM", host_type.name()));
                let told = blob;
                report.blobs.push(SeenBlob { told, host_type });
                machine.order(Order::Continue)?;
            }
            Event::Done => break,
            other => return Err(LabError::failed(format!("the guest told {other:?}"))),
        }
        limit = STEP_LIMIT;
    }
    let started = machine.started;
    let status = machine.power_off()?;
    report.took = started.elapsed();
    match status.success() {
        true => Ok(report),
        false => Err(LabError::failed(format!("QEMU ended with {status}"))),
    }
}

/// The type of the VMM's own mapping of a blob.
fn host_type(machine: &mut Machine<'_>, blob: &NestedBlob) -> Result<MemoryType> {
    let start = Instant::now();
    loop {
        let pages = machine.pages()?;
        if let Some(found) = type_of(&pages, blob.address, blob.size) {
            return Ok(found);
        }
        if start.elapsed() > PAGES_LIMIT {
            let count = pages.len();
            let text = format!("QEMU shows no complete mapping of {blob:?} in {count} pages");
            return Err(LabError::failed(text));
        }
        thread::sleep(POLL);
    }
}
