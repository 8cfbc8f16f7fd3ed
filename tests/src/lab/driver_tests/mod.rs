//! Real driver tests in a stock Linux guest: a fixed list of igt-gpu-tools and of libdrm's programs,
//! on our daemon and on QEMU's own virtio-gpu, side by side.
//!
//! [`List`] says which tests are run and which are left out, with reasons; [`Column`] is a device to
//! run them on; [`run`] gives a [`Comparison`]. Each test has a deadline; one that takes the guest
//! down costs its machine, and the next test gets a fresh one. Every failure and every difference
//! between the columns needs an explanation written by hand ([`explained`]).

use std::time::{Duration, Instant};

use nosnoop_guest::wire::commands::{Command, Ending};
use nosnoop_guest::wire::{Driver, Task};
use serde::{Deserialize, Serialize};

use super::backend::{Backend, Kind};
use super::demo::{Lab, ONE_MACHINE, wait_for_driver};
use super::qemu::{Accelerator, Device, Machine, Setup};
use super::{LabError, Result, date, say};

pub mod explained;
mod guest;
mod list;
mod report;
mod verdict;

use guest::Packages;
pub use list::{LeftOut, List, Test};
pub use report::Report;
pub use verdict::{Outcome, Verdict};

/// How many machines in a row may fail to boot.
const BOOT_ATTEMPTS: u32 = 2;

/// igt-gpu-tools pass virtio-gpu by where they are not told to take it.
const FORCED_DRIVER: [&str; 2] = ["IGT_FORCE_DRIVER", "virtio_gpu"];

/// A device to run the tests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Column {
    /// Our daemon behind `vhost-user-gpu-pci`, with QEMU's display.
    Ours,
    /// Our daemon behind `vhost-user-test-device-pci`: contexts and host blobs, no display.
    HostBlobs,
    /// The same without shared memory: the guest's frame buffers are blobs in its own memory.
    GuestBlobs,
    /// QEMU's own `virtio-gpu-pci`: what the others are compared with.
    Qemu,
}

impl Column {
    /// All, in the order of reports.
    pub const ALL: [Self; 4] = [Self::Ours, Self::HostBlobs, Self::GuestBlobs, Self::Qemu];

    /// The name on command lines and in data files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::HostBlobs => "host-blobs",
            Self::GuestBlobs => "guest-blobs",
            Self::Qemu => "qemu",
        }
    }

    /// What it is, for people.
    #[must_use]
    pub fn description(self) -> &'static str {
        match self {
            Self::Ours => "nosnoop-gpu behind QEMU's vhost-user-gpu-pci",
            Self::HostBlobs => {
                "nosnoop-gpu behind vhost-user-test-device-pci: 3D feature bit, \
                                contexts, host blobs"
            }
            Self::GuestBlobs => {
                "nosnoop-gpu --shm-size 0 behind vhost-user-test-device-pci: frame \
                                 buffers are guest blobs"
            }
            Self::Qemu => "QEMU's own virtio-gpu-pci, in its process",
        }
    }

    /// The column of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|column| column.name() == name)
    }

    fn kind(self) -> Kind {
        match self {
            Self::Qemu => Kind::InProcess,
            _ => Kind::OURS,
        }
    }

    fn device(self) -> Device {
        match self {
            Self::Ours => Device::Gpu(None),
            Self::HostBlobs | Self::GuestBlobs => Device::Test,
            Self::Qemu => Device::InProcess,
        }
    }

    /// The daemon's options. The size of the screen is that of QEMU's own devices.
    fn options(self) -> Vec<&'static str> {
        let more: &[&str] = match self {
            Self::Ours => &["--shm-size", "0"],
            Self::HostBlobs => &["--output", "1280x800"],
            Self::GuestBlobs => &["--output", "1280x800", "--shm-size", "0"],
            Self::Qemu => &[],
        };
        [&ONE_MACHINE[..], more].concat()
    }
}

/// A column's results.
#[derive(Debug, Serialize, Deserialize)]
pub struct Results {
    /// The device.
    pub column: Column,
    /// What the guest's driver said about it.
    pub driver: Driver,
    /// One for each test, in the list's order.
    pub outcomes: Vec<Outcome>,
    /// How many machines that took: one, and one more for each that a test brought down.
    pub machines: u32,
    /// How long all of it took, in seconds.
    pub seconds: u64,
}

/// Runs `tests` on a column's device.
fn run_column(lab: &Lab, column: Column, tests: &[Test]) -> Result<Results> {
    let start = Instant::now();
    let mut found = None;
    let mut outcomes: Vec<Outcome> = Vec::new();
    let (mut machines, mut attempts) = (0, 0);
    while outcomes.len() < tests.len() {
        let mut backend = Backend::start(&column.kind(), &lab.root, &column.options())?;
        let setup = Setup {
            device: column.device(),
            ..Setup::new(Task::Commands)
        };
        let mut machine = lab.boot(&mut backend, &setup)?;
        machines += 1;
        match wait_for_driver(&mut machine) {
            Ok((driver, _)) => found = Some(driver),
            Err(error) if attempts + 1 == BOOT_ATTEMPTS => return Err(error),
            Err(error) => {
                say(format_args!("this machine does not come up: {error}"));
                attempts += 1;
                continue;
            }
        }
        attempts = 0;
        let healthy = run_on_machine(&mut machine, tests, &mut outcomes);
        if healthy && let Err(error) = machine.power_off() {
            say(format_args!(
                "the machine does not switch itself off: {error}"
            ));
        }
    }
    Ok(Results {
        column,
        driver: found.ok_or_else(|| LabError::failed("there are no tests to run"))?,
        outcomes,
        machines,
        seconds: start.elapsed().as_secs(),
    })
}

/// Runs the tests that have no outcome yet, as long as the machine does; whether it is still of use.
fn run_on_machine(machine: &mut Machine<'_>, tests: &[Test], outcomes: &mut Vec<Outcome>) -> bool {
    for (index, test) in tests.iter().enumerate().skip(outcomes.len()) {
        let command = Command {
            words: test.words.clone(),
            deadline: test.deadline,
            environment: vec![FORCED_DRIVER.map(str::to_owned).into()],
            stop: test.stop,
        };
        let (outcome, healthy) = match machine.run(&command) {
            Ok(ran) => (verdict::judge(test, &ran), ran.ending != Ending::Stuck),
            Err(error) => (verdict::machine_lost(&error), false),
        };
        let seconds = Duration::from_millis(outcome.millis).as_secs_f64();
        say(format_args!(
            "{:>3}/{} {} {seconds:5.1} s  {}  {}",
            index + 1,
            tests.len(),
            outcome.verdict,
            test.name,
            outcome.why
        ));
        outcomes.push(outcome);
        if !healthy {
            return false;
        }
    }
    true
}

/// Everything that was found.
#[derive(Debug, Serialize, Deserialize)]
pub struct Comparison {
    /// QEMU's version.
    pub qemu: String,
    /// The guest's kernel.
    pub kernel: String,
    /// `kvm` or `tcg`.
    pub accelerator: String,
    /// When, in UTC.
    pub date: String,
    /// The names of the tests, in the order of all outcomes.
    pub tests: Vec<String>,
    /// Why a device has no column, nor those after it; its machine did not come up.
    pub broken: Option<String>,
    /// The columns.
    pub results: Vec<Results>,
    /// Tests of the packages that the list neither runs nor leaves out.
    pub unlisted: Vec<String>,
}

impl Comparison {
    /// The devices that were run, in the order of the results.
    #[must_use]
    pub fn columns(&self) -> Vec<Column> {
        self.results.iter().map(|results| results.column).collect()
    }

    /// The verdicts of a test on the devices, in that order.
    #[must_use]
    pub fn verdicts(&self, test: usize) -> Vec<Verdict> {
        let outcomes = self.results.iter();
        let outcomes = outcomes.filter_map(|results| results.outcomes.get(test));
        outcomes.map(|outcome| outcome.verdict).collect()
    }
}

/// Runs the tests that `chosen` picks on each of `columns`.
///
/// # Errors
/// [`LabError::Unavailable`] where no VM or no package can be had. Failing tests are no error but part
/// of the result, and so is a later machine that does not come up ([`Comparison::broken`]): the columns
/// before it are kept.
pub fn run(list: &List, columns: &[Column], chosen: impl Fn(&Test) -> bool) -> Result<Comparison> {
    let mut tests = list.tests();
    tests.retain(chosen);
    let packages = Packages::find_or_fetch()?;
    let lab = packages.lab(&tests)?;
    let (mut results, mut broken) = (Vec::new(), None);
    for column in columns {
        say(format_args!("{}: {}", column.name(), column.description()));
        match run_column(&lab, *column, &tests) {
            Ok(column) => results.push(column),
            // Nothing is lost then.
            Err(error) if results.is_empty() => return Err(error),
            Err(error) => {
                broken = Some(format!("{}: {error}", column.name()));
                break;
            }
        }
    }
    Ok(Comparison {
        qemu: lab.root.qemu_version.clone(),
        kernel: lab.root.kernel.release.clone(),
        accelerator: Accelerator::probe().name().to_owned(),
        date: date::today(),
        tests: tests.into_iter().map(|test| test.name).collect(),
        broken,
        results,
        unlisted: packages.unlisted(list)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made-up results: for each test its verdict on each of `columns`.
    pub(super) fn comparison(columns: &[Column], tests: &[(&str, &[Verdict])]) -> Comparison {
        let outcome = |verdict: Verdict| Outcome {
            verdict,
            why: match verdict {
                Verdict::Pass => String::new(),
                _ => "because".to_owned(),
            },
            millis: 3,
            output: Vec::new(),
            kernel: Vec::new(),
        };
        let driver = Driver {
            name: "virtio_gpu".to_owned(),
            description: String::new(),
            version: [0, 1, 0],
            kernel: String::new(),
            connector: String::new(),
            modes: Vec::new(),
            edid: String::new(),
            cursor: [64, 64],
            features: String::new(),
            debug: Vec::new(),
            log: Vec::new(),
        };
        let results = columns.iter().enumerate().map(|(index, column)| Results {
            column: *column,
            driver: driver.clone(),
            outcomes: tests
                .iter()
                .map(|(_, verdicts)| outcome(verdicts[index]))
                .collect(),
            machines: 1,
            seconds: 9,
        });
        Comparison {
            qemu: "QEMU".to_owned(),
            kernel: "7".to_owned(),
            accelerator: "tcg".to_owned(),
            date: "2026-11-21".to_owned(),
            tests: tests.iter().map(|(name, _)| (*name).to_owned()).collect(),
            broken: None,
            results: results.collect(),
            unlisted: Vec::new(),
        }
    }

    #[test]
    fn names_lead_back() {
        for column in Column::ALL {
            assert_eq!(Column::from_name(column.name()), Some(column));
        }
    }
}
