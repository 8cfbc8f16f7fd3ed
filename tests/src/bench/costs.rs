//! What idle back-ends take: memory, processor time, threads and file descriptors.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use super::Missing;
use super::case::XGA;
use super::stage::{Needs, Stage};
use crate::lab::{say, usage};
use crate::peers::Prepared;

/// How long they rest before they are watched.
const REST: Duration = Duration::from_millis(500);
/// How long they are watched, at most.
const WATCHED: Duration = Duration::from_secs(5);

/// Back-ends of one kind, each with a front-end, a display and nothing to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Which.
    pub backend: String,
    /// How many at once.
    pub count: usize,
    /// What each takes, or why that is not known.
    pub each: Result<Each, Missing>,
}

/// What one of them takes, on average.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Each {
    /// Resident memory, the guest's not counted, KiB.
    pub own_kib: f64,
    /// The part that is nobody else's, KiB.
    pub anonymous_kib: f64,
    /// Resident memory with shared pages divided among those who share them, KiB.
    pub pss_kib: f64,
    /// Threads.
    pub threads: f64,
    /// Open file descriptors.
    pub descriptors: f64,
    /// Processor time in a second, microseconds.
    pub cpu_us: f64,
}

/// Measures one of each, and `scale` of each.
#[must_use]
pub fn measure(backends: &[Prepared], scale: Option<usize>, span: Duration) -> Vec<Cost> {
    let watched = (span * 10).min(WATCHED);
    let counts = [1].into_iter().chain(scale);
    let cells = counts.flat_map(|count| backends.iter().map(move |backend| (count, backend)));
    cells
        .map(|(count, backend)| {
            let name = backend.peer().name();
            let each = idle(backend, count, watched);
            match &each {
                Ok(each) => say(format_args!(
                    "{count} idle {name}: each {:.0} KiB of its own, {:.0} us of CPU a second",
                    each.anonymous_kib, each.cpu_us
                )),
                Err(missing) => say(format_args!("{count} idle {name}: n/a ({missing})")),
            }
            Cost {
                backend: name,
                count,
                each,
            }
        })
        .collect()
}

fn idle(backend: &Prepared, count: usize, watched: Duration) -> Result<Each, Missing> {
    more_descriptors();
    let mut stages = Vec::with_capacity(count);
    for _ in 0..count {
        // It has served a command, and rests since.
        stages.push(Stage::open(backend, XGA, Needs::Plain)?.first_command()?);
    }
    thread::sleep(REST);
    let before = cpu_nanos(&stages)?;
    let start = Instant::now();
    thread::sleep(watched);
    let cpu = cpu_nanos(&stages)? - before;
    let seconds = start.elapsed().as_secs_f64();
    let mut sum = [0.0; 5];
    for stage in &stages {
        for (sum, value) in sum.iter_mut().zip(held(stage)?) {
            *sum += value;
        }
    }
    let [own_kib, anonymous_kib, pss_kib, threads, descriptors] =
        sum.map(|value| value / count as f64);
    Ok(Each {
        own_kib,
        anonymous_kib,
        pss_kib,
        threads,
        descriptors,
        cpu_us: cpu as f64 / 1e3 / seconds / count as f64,
    })
}

fn cpu_nanos(stages: &[Stage]) -> Result<u64, Missing> {
    stages
        .iter()
        .map(|stage| Ok(stage.usage()?.cpu_nanos))
        .sum()
}

fn held(stage: &Stage) -> Result<[f64; 5], Missing> {
    let gone = |_| Missing::Failed("it has gone".to_owned());
    let usage = stage.usage()?;
    let pid = stage.pid();
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_err(gone)?;
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).map_err(gone)?;
    let pss = pss_kib(&rollup).ok_or_else(|| Missing::Failed("it tells no Pss".to_owned()))?;
    let held = usage::held(pid).map_err(|_| Missing::Failed("it has gone".to_owned()))?;
    Ok([
        usage.own_kib() as f64,
        usage.anonymous_kib as f64,
        pss as f64,
        threads.count() as f64,
        held.descriptors as f64,
    ])
}

fn pss_kib(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// Lets this process open as many files as it may: each front-end has about twenty.
fn more_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Without, the machine's answer to opening too many is a clear error.
    let _ = setrlimit(Resource::Nofile, limit);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pss_is_read_and_not_one_of_its_parts() {
        let rollup = "0-1 ---p 0 00:00 0 [rollup]\nRss: 9 kB\nPss:     1234 kB\nPss_Dirty: 5 kB\n";
        assert_eq!(pss_kib(rollup), Some(1234));
        assert_eq!(pss_kib("Pss_Dirty: 5 kB\n"), None);
    }
}
