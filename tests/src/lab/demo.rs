//! The demo: a guest draws, QEMU's screendump is compared with what the host computes.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nosnoop_guest::pattern::Size;
use nosnoop_guest::wire::{Driver, Event, Order, Step, Task};

use super::backend::{Backend, Kind};
use super::initramfs::GPU_MODULES;
use super::picture::{Comparison, Picture};
use super::qemu::{Accelerator, Machine, Setup};
use super::report::{BootTimes, CheckedStep, Report, VmPart, write_report};
use super::root::Root;
use super::{LabError, Result, initramfs, programs, say};

/// From QEMU's start to the guest program's first word. An emulated machine takes about 10 s;
/// a busy one several times that.
pub const BOOT_LIMIT: Duration = Duration::from_secs(240);

/// For one step of the guest program.
pub const STEP_LIMIT: Duration = Duration::from_secs(120);

/// How long the display may lag behind the guest: pictures travel on their own way.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);

/// How long a right picture must stay right.
const STAY: Duration = Duration::from_millis(150);

/// Options of our daemon where it serves one machine: it ends with that, even where this program
/// is killed.
pub const ONE_MACHINE: [&str; 1] = ["--once"];

/// Everything a boot needs: QEMU, kernel, and the guest's initial file system.
#[derive(Debug)]
pub struct Lab {
    /// QEMU and kernel.
    pub root: Root,
    /// The initial file system.
    pub initial: Vec<u8>,
}

impl Lab {
    /// Finds or makes everything.
    ///
    /// # Errors
    /// [`LabError::Unavailable`] where no VM can be had; other errors when a step fails.
    pub fn prepare() -> Result<Self> {
        let root = Root::find_or_build()?;
        let initial = initramfs::build(&programs::guest()?, &root.kernel, &GPU_MODULES, &[])?;
        Ok(Self { root, initial })
    }

    /// Boots a machine on `backend`.
    ///
    /// # Errors
    /// When QEMU does not start.
    pub fn boot<'a>(&self, backend: &'a mut Backend, setup: &Setup) -> Result<Machine<'a>> {
        Machine::boot(&self.root, &self.initial, backend, setup)
    }
}

/// The guest as far as its driver: what it says, and how long that took.
///
/// # Errors
/// When it does not come up in time.
pub fn wait_for_driver(machine: &mut Machine<'_>) -> Result<(Driver, BootTimes)> {
    let mut times = BootTimes::default();
    match machine.event("the guest program to start", BOOT_LIMIT)? {
        Event::Started { .. } => times.program_ms = millis(machine.started),
        other => return Err(unexpected(&other, "its start")),
    }
    match machine.event("the GPU driver to come up", STEP_LIMIT)? {
        Event::Driver { driver, .. } => {
            times.driver_ms = millis(machine.started);
            Ok((*driver, times))
        }
        other => Err(unexpected(&other, "its driver")),
    }
}

fn unexpected(event: &Event, instead_of: &str) -> LabError {
    LabError::failed(format!("the guest told {event:?} instead of {instead_of}"))
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Where a picture of the screen comes from.
pub type Viewer<'v> = dyn FnMut(&mut Machine<'_>) -> Result<Picture> + 'v;

/// Goes through the demo task's steps in a machine whose driver is up, checks each picture that
/// `view` gives, and keeps the files in `folder` if there is one. The guest waits for its last
/// order afterwards.
///
/// # Errors
/// When the guest or a picture fails; wrong pixels are no error but part of the result.
pub fn check_steps(
    machine: &mut Machine<'_>,
    folder: Option<&Path>,
    view: &mut Viewer<'_>,
) -> Result<Vec<CheckedStep>> {
    let mut steps = Vec::new();
    loop {
        match machine.event("the guest to draw", STEP_LIMIT)? {
            Event::Drawn {
                step,
                width,
                height,
                fourcc,
                ..
            } => {
                let size = Size { width, height };
                let checked =
                    check_step(step, size, fourcc, folder, steps.len(), || view(machine))?;
                steps.push(checked);
                machine.order(Order::Continue)?;
            }
            Event::Done => return Ok(steps),
            other => return Err(unexpected(&other, "a picture")),
        }
    }
}

/// Checks one picture, tells the result, and keeps the file in `folder` if there is one.
///
/// # Errors
/// When there is no picture.
pub(super) fn check_step(
    step: Step,
    size: Size,
    fourcc: String,
    folder: Option<&Path>,
    index: usize,
    view: impl FnMut() -> Result<Picture>,
) -> Result<CheckedStep> {
    let (picture, comparison, settled_ms) = settle(&Picture::expected(step, size), view)?;
    let file = match folder {
        Some(folder) => Some(keep(&picture, folder, index, step)?),
        None => None,
    };
    let Size { width, height } = size;
    say(format_args!(
        "{:<7} {width}x{height} {fourcc}: {comparison}",
        step.name()
    ));
    Ok(CheckedStep {
        step,
        width,
        height,
        fourcc,
        comparison,
        settled_ms,
        file,
    })
}

/// Looks at the screen until it is right and stays so, or the time is up. Returns the last
/// picture, how it compares, and the milliseconds until it was right.
fn settle(
    expected: &Picture,
    mut view: impl FnMut() -> Result<Picture>,
) -> Result<(Picture, Comparison, u64)> {
    let start = Instant::now();
    let mut right_since: Option<(Instant, u64)> = None;
    loop {
        let picture = view()?;
        let comparison = picture.compare(expected);
        if comparison.is_exact() {
            let now = (Instant::now(), millis(start));
            let (since, settled_ms) = *right_since.get_or_insert(now);
            if since.elapsed() >= STAY {
                return Ok((picture, comparison, settled_ms));
            }
        } else {
            right_since = None;
            if start.elapsed() > SETTLE_LIMIT {
                return Ok((picture, comparison, millis(start)));
            }
        }
        thread::sleep(STAY / 3);
    }
}

/// Writes a step's picture and returns the file's name; the first one is `scanout.png`.
fn keep(picture: &Picture, folder: &Path, index: usize, step: Step) -> Result<String> {
    let name = if index == 0 {
        "scanout.png".to_owned()
    } else {
        format!("scanout-{index}-{}.png", step.name())
    };
    picture.save(&folder.join(&name))?;
    Ok(name)
}

/// Boots the demo guest on a backend of `kind`, checks every step and writes pictures and
/// `report.json` into `folder`.
///
/// # Errors
/// When something fails other than a pixel.
pub fn run(lab: &Lab, kind: &Kind, folder: &Path) -> Result<Report> {
    fs::create_dir_all(folder).map_err(LabError::context(folder.display()))?;
    // QEMU's GPU with a screen has no shared memory: as the README says to start it.
    let options = [&ONE_MACHINE[..], &["--shm-size", "0"]].concat();
    let mut backend = Backend::start(kind, &lab.root, &options)?;
    let accelerator = Accelerator::probe().name();
    say(format_args!(
        "booting Linux {} under {} ({accelerator}) on {}",
        lab.root.kernel.release,
        lab.root.qemu_version,
        kind.name()
    ));
    let mut machine = lab.boot(&mut backend, &Setup::new(Task::Demo))?;
    let (driver, mut boot) = wait_for_driver(&mut machine)?;
    say(format_args!("the guest's driver {} is up", driver.name));
    let started = machine.started;
    let mut first = None;
    let steps = check_steps(&mut machine, Some(folder), &mut |machine| {
        let picture = machine.screendump()?;
        first.get_or_insert_with(|| millis(started));
        Ok(picture)
    })?;
    boot.picture_ms = first.unwrap_or_default();
    let status = machine.power_off()?;
    if !status.success() {
        return Err(LabError::failed(format!("QEMU ended with {status}")));
    }
    let report = Report {
        backend: kind.name(),
        vm: "booted".to_owned(),
        guest: Some(VmPart {
            qemu: lab.root.qemu_version.clone(),
            root: lab.root.origin.clone(),
            accelerator: accelerator.to_owned(),
            driver,
            boot,
        }),
        steps,
    };
    write_report(&report, &folder.join("report.json"))?;
    Ok(report)
}
