//! Measures backends side by side: the same guest, the same machine, turn by turn.

use std::thread;
use std::time::{Duration, Instant};

use nosnoop_guest::wire::{Event, Order, Step, Task};
use serde::Serialize;

use super::backend::{Backend, Kind};
use super::demo::{Lab, ONE_MACHINE, STEP_LIMIT, wait_for_driver};
use super::qemu::{Accelerator, Setup};
use super::report::BootTimes;
use super::usage::Usage;
use super::{LabError, Result, native, say};

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
    /// Repetitions per second of the driver's time.
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
    /// What the built-in driver measured, then what the bench guest did.
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
            let mut rates = native::rates(&Backend::start(kind, &lab.root, &[])?)?;
            let (boot, measured) = bench(lab, kind, rounds)?;
            rates.extend(measured);
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
    let mut backend = Backend::start(kind, &lab.root, &ONE_MACHINE)?;
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
    let mut backend = Backend::start(kind, &lab.root, &ONE_MACHINE)?;
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

/// Finds a quantity in a turn that has it.
type Value<'a> = dyn Fn(&Turn) -> Option<f64> + 'a;

/// One line of the table: a quantity and how to find it in a turn.
struct Row<'a> {
    what: String,
    digits: usize,
    value: Box<Value<'a>>,
}

impl<'a> Row<'a> {
    fn new(what: &str, digits: usize, value: impl Fn(&Turn) -> Option<f64> + 'a) -> Self {
        Self {
            what: what.to_owned(),
            digits,
            value: Box::new(value),
        }
    }

    /// A whole number that every turn has.
    fn whole(what: &str, value: impl Fn(&Turn) -> u64 + 'a) -> Self {
        Self::new(what, 0, move |turn| Some(value(turn) as f64))
    }
}

/// The two rows of a rate.
fn rate_rows(name: &str) -> [Row<'_>; 2] {
    let rate = move |turn: &Turn| turn.rates.iter().find(|rate| rate.what == name).cloned();
    [
        Row::new(&format!("{name}, per s"), 1, move |turn| {
            Some(rate(turn)?.per_second)
        }),
        Row::new(&format!("{name}, backend CPU us each"), 1, move |turn| {
            let rate = rate(turn)?;
            Some(rate.backend_cpu_nanos as f64 / 1e3 / rate.count as f64)
        }),
    ]
}

/// Each value once, in the order of its first appearance.
fn distinct<'a>(values: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut found = Vec::new();
    for value in values {
        if !found.contains(&value) {
            found.push(value);
        }
    }
    found
}

/// A table for people: one line per quantity, one column per backend, medians over the turns.
#[must_use]
pub fn table(measurement: &Measurement) -> String {
    let turns = &measurement.turns;
    let backends = distinct(turns.iter().map(|turn| turn.backend.as_str()));
    let rates = turns.iter().flat_map(|turn| &turn.rates);
    let names = distinct(rates.map(|rate| rate.what.as_str()));
    let mut rows = vec![Row::whole("QEMU start to driver, ms", |turn| {
        turn.boot.driver_ms
    })];
    rows.extend(names.into_iter().flat_map(rate_rows));
    rows.extend([
        Row::whole("RSS before any guest, KiB", |turn| {
            turn.idle.fresh.own_kib()
        }),
        Row::whole("RSS with an idle guest, without its memory, KiB", |turn| {
            turn.idle.usage.own_kib()
        }),
        Row::whole("  of it anonymous: pictures, mostly, KiB", |turn| {
            turn.idle.usage.anonymous_kib
        }),
        Row::whole("CPU with an idle guest, us in 5 s", |turn| {
            turn.idle.cpu_nanos / 1000
        }),
    ]);
    let first = rows.iter().map(|row| row.what.len()).max().unwrap_or(0);
    let heads = backends.iter().map(|backend| format!("{backend:>18}"));
    let mut text = format!("{:first$}{}\n", "", heads.collect::<String>());
    for Row {
        what,
        digits,
        value,
    } in &rows
    {
        let columns = backends.iter().map(|backend| {
            let of_backend = turns.iter().filter(|turn| turn.backend == *backend);
            format!(
                "{:>18.digits$}",
                median(of_backend.filter_map(value).collect())
            )
        });
        text += &format!("{what:first$}{}\n", columns.collect::<String>());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(backend: &str, turn: u32, per_second: f64) -> Turn {
        let rate = Rate {
            what: "update".to_owned(),
            count: 10,
            per_second,
            backend_cpu_nanos: 50_000,
        };
        let idle = Idle {
            fresh: Usage::default(),
            usage: Usage::default(),
            cpu_nanos: 0,
            watched_ms: 5000,
        };
        Turn {
            backend: backend.to_owned(),
            turn,
            boot: BootTimes::default(),
            rates: vec![rate],
            idle,
        }
    }

    #[test]
    fn the_table_shows_the_median_per_backend() {
        let turns = [
            ("a", 5.0),
            ("b", 70.0),
            ("a", 100.0),
            ("b", 80.0),
            ("a", 6.0),
        ];
        let turns = (0..).zip(turns);
        let measurement = Measurement {
            qemu: String::new(),
            accelerator: String::new(),
            kernel: String::new(),
            turns: turns
                .map(|(number, (name, rate))| turn(name, number, rate))
                .collect(),
        };
        let text = table(&measurement);
        let line = |what: &str| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(what))
                .unwrap();
            line.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            text.lines()
                .next()
                .unwrap()
                .split_whitespace()
                .collect::<Vec<_>>(),
            ["a", "b"]
        );
        assert_eq!(line("update, per s"), ["6.0", "80.0"]);
        assert_eq!(line("update, backend CPU us each"), ["5.0", "5.0"]);
    }
}
