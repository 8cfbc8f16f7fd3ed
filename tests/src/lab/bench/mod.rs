//! Measures backends side by side: the same guest, the same machine, turn by turn, so that what else
//! the host does meanwhile hits all of them alike.

use std::thread;
use std::time::{Duration, Instant};

use nosnoop_guest::wire::{Event, Order, Step, Task};
use serde::{Deserialize, Serialize};

use super::backend::{Backend, Kind};
use super::demo::{Lab, STEP_LIMIT, wait_for_driver};
use super::qemu::{Accelerator, Machine, Setup};
use super::report::BootTimes;
use super::usage::Usage;
use super::{LabError, Result, date, say};
use crate::bench::{in_turn, machine};

mod report;

/// Options of our daemon: it ends with its machine, and has no contexts. With them the guest's driver
/// takes the device for a 3D one and sends transfers that are refused, which are fast.
const OPTIONS: [&str; 3] = ["--once", "--shm-size", "0"];

/// How long the idle guest is watched.
const IDLE_TIME: Duration = Duration::from_secs(5);

/// How long the guest rests before that.
const REST: Duration = Duration::from_secs(2);

/// How long the whole bench task may take.
const BENCH_LIMIT: Duration = Duration::from_secs(300);

/// One measured rate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rate {
    /// What was repeated.
    pub what: String,
    /// How often.
    pub count: u64,
    /// Repetitions per second of the driver's time.
    pub per_second: f64,
    /// Processor nanoseconds that the backend spent on all of them; none where QEMU is the GPU.
    pub backend_cpu_nanos: Option<u64>,
    /// Processor nanoseconds of QEMU and the backend together; under `tcg` most of it is the guest.
    pub all_cpu_nanos: u64,
}

/// A backend with an idle guest.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Idle {
    /// Its memory before any guest; none where QEMU is the GPU, here and below.
    pub fresh: Option<Usage>,
    /// Its memory with a guest that shows a picture, and has shown its console before.
    pub usage: Option<Usage>,
    /// Processor nanoseconds in the time below.
    pub cpu_nanos: Option<u64>,
    /// The time watched, in milliseconds.
    pub watched_ms: u64,
}

/// One backend's turn.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Turn {
    /// Which backend.
    pub backend: String,
    /// Which turn, from 0.
    pub turn: u32,
    /// The start of the bench guest.
    pub boot: BootTimes,
    /// What the bench guest measured.
    pub rates: Vec<Rate>,
    /// What the idle guest left to see.
    pub idle: Idle,
}

impl Turn {
    /// The rate of that name.
    fn per_second(&self, name: &str) -> Option<f64> {
        let rate = self.rates.iter().find(|rate| rate.what == name)?;
        Some(rate.per_second)
    }
}

/// All turns.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measurement {
    /// QEMU's version.
    pub qemu: String,
    /// `kvm` or `tcg`; rates under `tcg` compare backends, they say nothing about a real machine.
    pub accelerator: String,
    /// The guest's kernel.
    pub kernel: String,
    /// When, in UTC.
    pub date: String,
    /// The host's processor and how many of it there are.
    pub processor: String,
    /// The turns in the order in which they ran.
    pub turns: Vec<Turn>,
}

/// Lets each backend take `turns` turns, one after the other and again, another one first each time.
///
/// # Errors
/// When a guest or a backend fails.
pub fn run(lab: &Lab, kinds: &[Kind], turns: u32, rounds: u64) -> Result<Measurement> {
    let mut all = Vec::new();
    for turn in 0..turns {
        for kind in in_turn(kinds.len(), turn).map(|at| &kinds[at]) {
            say(format_args!(
                "turn {} of {turns}: {}",
                turn + 1,
                kind.name()
            ));
            let (boot, rates) = bench(lab, kind, rounds)?;
            let idle = idle(lab, kind)?;
            all.push(Turn {
                backend: kind.name(),
                turn,
                boot,
                rates,
                idle,
            });
        }
    }
    Ok(Measurement {
        qemu: lab.root.qemu_version.clone(),
        accelerator: Accelerator::probe().name().to_owned(),
        kernel: lab.root.kernel.release.clone(),
        date: date::today(),
        processor: machine::processor(),
        turns: all,
    })
}

fn bench(lab: &Lab, kind: &Kind, rounds: u64) -> Result<(BootTimes, Vec<Rate>)> {
    let mut backend = Backend::start(kind, &lab.root, &OPTIONS)?;
    let mut machine = lab.boot(
        &mut backend,
        &Setup {
            device: kind.device(),
            rounds,
            ..Setup::new(Task::Bench)
        },
    )?;
    let (_, boot) = wait_for_driver(&mut machine)?;
    let mut rates = Vec::new();
    let mut before = Spent::of(&machine)?;
    loop {
        match machine.event("the measurements", BENCH_LIMIT)? {
            Event::Measured { what, count, nanos } => {
                let now = Spent::of(&machine)?;
                let backend = now.backend.zip(before.backend);
                let backend_cpu_nanos = backend.map(|(now, before)| now - before);
                let all_cpu_nanos = now.qemu - before.qemu + backend_cpu_nanos.unwrap_or_default();
                before = now;
                // Exact to 53 bits: more than enough for a count and for nanoseconds of minutes.
                let per_second = count as f64 / (nanos as f64 / 1e9);
                rates.push(Rate {
                    what,
                    count,
                    per_second,
                    backend_cpu_nanos,
                    all_cpu_nanos,
                });
            }
            Event::Done => break,
            other => return Err(LabError::failed(format!("the guest told {other:?}"))),
        }
    }
    machine.power_off()?;
    Ok((boot, rates))
}

/// Processor nanoseconds since the start.
struct Spent {
    qemu: u64,
    backend: Option<u64>,
}

impl Spent {
    fn of(machine: &Machine<'_>) -> Result<Self> {
        let backend = machine.backend.usage()?;
        Ok(Self {
            qemu: machine.usage()?.cpu_nanos,
            backend: backend.map(|usage| usage.cpu_nanos),
        })
    }
}

fn idle(lab: &Lab, kind: &Kind) -> Result<Idle> {
    let mut backend = Backend::start(kind, &lab.root, &OPTIONS)?;
    let fresh = backend.usage()?;
    let setup = Setup {
        device: kind.device(),
        ..Setup::new(Task::Idle)
    };
    let mut machine = lab.boot(&mut backend, &setup)?;
    wait_for_driver(&mut machine)?;
    match machine.event("the idle picture", STEP_LIMIT)? {
        Event::Drawn {
            step: Step::Idle, ..
        } => {}
        other => return Err(LabError::failed(format!("the guest told {other:?}"))),
    }
    thread::sleep(REST);
    let before = machine.backend.usage()?;
    let start = Instant::now();
    thread::sleep(IDLE_TIME);
    let usage = machine.backend.usage()?;
    let watched_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    machine.order(Order::Continue)?;
    machine.event("the idle guest to end", STEP_LIMIT)?;
    machine.power_off()?;
    Ok(Idle {
        fresh,
        usage,
        cpu_nanos: usage
            .zip(before)
            .map(|(now, before)| now.cpu_nanos - before.cpu_nanos),
        watched_ms,
    })
}
