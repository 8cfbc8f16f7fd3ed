//! Measures backends side by side: the same guest, the same machine, turn by turn.

use std::thread;
use std::time::{Duration, Instant};

use nosnoop_guest::wire::{Event, Order, Step, Task};
use serde::Serialize;

use super::backend::{Backend, Kind, Usage};
use super::demo::{Lab, STEP_LIMIT, wait_for_driver};
use super::qemu::{Accelerator, Setup};
use super::report::BootTimes;
use super::{LabError, Result, say};

/// How long the idle guest is watched.
const IDLE_TIME: Duration = Duration::from_secs(5);

/// How long the guest rests before that.
const REST: Duration = Duration::from_secs(2);

/// How long the whole bench task may take.
const BENCH_LIMIT: Duration = Duration::from_secs(300);

/// One measured rate.
#[derive(Clone, Debug, Serialize)]
pub struct Rate {
    /// What was repeated.
    pub what: String,
    /// How often.
    pub count: u64,
    /// Repetitions per second of the guest's time.
    pub per_second: f64,
    /// Processor nanoseconds that the backend spent on all of them.
    pub backend_cpu_nanos: u64,
}

/// A backend with an idle guest.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Idle {
    /// Its memory before any guest.
    pub fresh: Usage,
    /// Its memory with a guest that shows a picture, and has shown its console before.
    pub usage: Usage,
    /// Processor nanoseconds in the time below.
    pub cpu_nanos: u64,
    /// The time watched, in milliseconds.
    pub watched_ms: u64,
}

/// One backend's turn.
#[derive(Clone, Debug, Serialize)]
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

/// All turns.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    /// QEMU's version.
    pub qemu: String,
    /// `kvm` or `tcg`; rates under `tcg` compare backends, they say nothing about a real machine.
    pub accelerator: String,
    /// The guest's kernel.
    pub kernel: String,
    /// The turns in the order in which they ran.
    pub turns: Vec<Turn>,
}

/// Lets each backend take `turns` turns, one after the other and again.
///
/// # Errors
/// When a guest or a backend fails.
pub fn run(lab: &Lab, kinds: &[Kind], turns: u32, rounds: u64) -> Result<Measurement> {
    let mut all = Vec::new();
    for turn in 0..turns {
        for kind in kinds {
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
        turns: all,
    })
}

fn bench(lab: &Lab, kind: &Kind, rounds: u64) -> Result<(BootTimes, Vec<Rate>)> {
    let mut backend = Backend::start(kind, &lab.root, &[])?;
    let mut machine = lab.boot(
        &mut backend,
        &Setup {
            rounds,
            ..Setup::new(Task::Bench)
        },
    )?;
    let (_, boot) = wait_for_driver(&mut machine)?;
    let mut rates = Vec::new();
    let mut before = machine.backend.usage()?.cpu_nanos;
    loop {
        match machine.event("the measurements", BENCH_LIMIT)? {
            Event::Measured { what, count, nanos } => {
                let now = machine.backend.usage()?.cpu_nanos;
                let backend_cpu_nanos = now - before;
                before = now;
                // Exact to 53 bits: more than enough for a count and for nanoseconds of minutes.
                let per_second = count as f64 / (nanos as f64 / 1e9);
                rates.push(Rate {
                    what,
                    count,
                    per_second,
                    backend_cpu_nanos,
                });
            }
            Event::Done => break,
            other => return Err(LabError::failed(format!("the guest told {other:?}"))),
        }
    }
    machine.power_off()?;
    Ok((boot, rates))
}

fn idle(lab: &Lab, kind: &Kind) -> Result<Idle> {
    let mut backend = Backend::start(kind, &lab.root, &[])?;
    let fresh = backend.usage()?;
    let mut machine = lab.boot(&mut backend, &Setup::new(Task::Idle))?;
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
        cpu_nanos: usage.cpu_nanos - before.cpu_nanos,
        watched_ms,
    })
}

/// The middle value.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// A table for people: one line per quantity, one column per backend, medians over the turns.
#[must_use]
pub fn table(measurement: &Measurement) -> String {
    let mut backends = Vec::new();
    for turn in &measurement.turns {
        if !backends.contains(&turn.backend) {
            backends.push(turn.backend.clone());
        }
    }
    let line = |what: &str, value: &dyn Fn(&Turn) -> Option<f64>, digits: usize| {
        let columns = backends.iter().map(|backend| {
            let turns = measurement
                .turns
                .iter()
                .filter(|turn| turn.backend == *backend);
            format!("{:>18.digits$}", median(turns.filter_map(value).collect()))
        });
        format!("{what:<34}{}\n", columns.collect::<String>())
    };
    let heads = backends
        .iter()
        .map(|backend| format!("{backend:>18}"))
        .collect::<String>();
    let mut text = format!("{:<34}{heads}\n", "");
    let millis = |value: u64| Some(value as f64);
    text += &line(
        "QEMU start to driver, ms",
        &|turn| millis(turn.boot.driver_ms),
        0,
    );
    let mut names = Vec::new();
    for rate in measurement.turns.iter().flat_map(|turn| &turn.rates) {
        if !names.contains(&rate.what) {
            names.push(rate.what.clone());
        }
    }
    let rate = |turn: &Turn, name: &str| turn.rates.iter().find(|rate| rate.what == name).cloned();
    for name in &names {
        let per_second = |turn: &Turn| Some(rate(turn, name)?.per_second);
        text += &line(&format!("{name}, per s"), &per_second, 1);
        let micros = |turn: &Turn| {
            let rate = rate(turn, name)?;
            Some(rate.backend_cpu_nanos as f64 / 1e3 / rate.count as f64)
        };
        text += &line(&format!("{name}, backend CPU us each"), &micros, 1);
    }
    text += &line(
        "RSS before any guest, KiB",
        &|turn| millis(turn.idle.fresh.own_kib()),
        0,
    );
    text += &line(
        "idle RSS without guest memory, KiB",
        &|turn| millis(turn.idle.usage.own_kib()),
        0,
    );
    text += &line(
        "  of it anonymous, KiB",
        &|turn| millis(turn.idle.usage.anonymous_kib),
        0,
    );
    text += &line(
        "idle CPU, us in 5 s",
        &|turn| millis(turn.idle.cpu_nanos / 1000),
        0,
    );
    text
}
