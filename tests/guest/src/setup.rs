//! From a bare kernel to an open GPU.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nosnoop_guest::wire::{MODULE_FOLDER, MODULE_LIST, ROUNDS_PARAMETER, TASK_PARAMETER, Task};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::time::{ClockId, clock_gettime};

use crate::Outcome;
use crate::screen::Card;

/// The GPU's device node.
const CARD: &str = "/dev/dri/card0";

/// How long the driver may take from its load to the device node. The host has the deadline that
/// matters; this one makes the message better.
const CARD_DEADLINE: Duration = Duration::from_secs(60);

/// Mounts the kernel's file systems.
pub(crate) fn mount_all() -> Outcome<()> {
    for (kind, place) in [
        ("devtmpfs", "/dev"),
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("debugfs", "/sys/kernel/debug"),
    ] {
        mount(kind, place, kind, MountFlags::empty(), None::<&CStr>)
            .map_err(|error| format!("cannot mount {kind} on {place}: {error}"))?;
    }
    Ok(())
}

/// Mounts the kernel's file system for tracing.
pub(crate) fn mount_trace() -> Outcome<()> {
    let place = "/sys/kernel/tracing";
    mount(
        "tracefs",
        place,
        "tracefs",
        MountFlags::empty(),
        None::<&CStr>,
    )
    .map_err(|error| format!("cannot mount tracefs on {place}: {error}"))?;
    Ok(())
}

/// Writes one line on the console, for what cannot reach the host by the link.
pub(crate) fn console(text: &str) {
    if let Ok(mut console) = File::options().write(true).open("/dev/console") {
        // Nobody is left to tell when even this fails.
        let _unheard = console.write_all(format!("{text}\n").as_bytes());
    }
}

/// Milliseconds since the kernel started.
pub(crate) fn uptime_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let now = Duration::try_from(now).unwrap_or_default();
    now.as_millis() as u64
}

/// Loads the modules that the host has listed, in that order.
pub(crate) fn load_modules() -> Outcome<()> {
    for name in fs::read_to_string(MODULE_LIST)?.lines() {
        let file = File::open(Path::new(MODULE_FOLDER).join(name))
            .map_err(|error| format!("module {name}: {error}"))?;
        match rustix::system::finit_module(&file, c"", 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(format!("module {name} does not load: {error}").into()),
        }
    }
    Ok(())
}

/// Waits for the GPU's device node and opens it.
pub(crate) fn wait_for_card() -> Outcome<Card> {
    let start = Instant::now();
    loop {
        match Card::open(Path::new(CARD)) {
            Ok(card) => return Ok(card),
            Err(error) if start.elapsed() > CARD_DEADLINE => {
                return Err(format!("{CARD} does not appear: {error}").into());
            }
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// What the kernel command line says to this program.
pub(crate) struct Parameters {
    /// The task to run.
    pub(crate) task: Task,
    /// Rounds of the bench and blob tasks.
    pub(crate) rounds: u64,
}

impl Parameters {
    /// Reads the kernel command line.
    pub(crate) fn read() -> Outcome<Self> {
        let line = fs::read_to_string("/proc/cmdline")?;
        let value = |key: &str| {
            line.split_whitespace()
                .filter_map(|word| word.split_once('='))
                .find_map(|(name, value)| (name == key).then_some(value))
        };
        let task = value(TASK_PARAMETER).unwrap_or_default();
        Ok(Self {
            task: Task::from_name(task).ok_or_else(|| format!("unknown task '{task}'"))?,
            rounds: value(ROUNDS_PARAMETER).map_or(Ok(100), str::parse)?,
        })
    }
}
