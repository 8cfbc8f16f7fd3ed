//! Medians, spreads and ratios, and the loop that takes the times.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Fewest timed rounds of a cell, however long they take.
const FEWEST: usize = 3;

/// What one cell measured: one piece of work on one back-end (or one limit) in one turn.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// How often it was done.
    pub count: u64,
    /// How many there were in a round: one, or a whole queue.
    pub in_round: u64,
    /// Times per second, all together: with what disturbed some rounds.
    pub mean_per_second: f64,
    /// Half of the rounds took no longer, microseconds.
    pub p50_us: f64,
    /// 99 of 100 rounds took no longer, microseconds.
    pub p99_us: f64,
    /// Processor time of the back-end for each, microseconds; none for a limit.
    pub cpu_us: Option<f64>,
    /// Resident memory of the back-end at the end without the guest's, KiB; none for a limit.
    pub own_kib: Option<u64>,
}

impl Sample {
    /// From the times of rounds of `operations` each.
    ///
    /// # Panics
    /// Without any.
    #[must_use]
    pub fn of(mut rounds: Vec<Duration>, operations: u64) -> Self {
        let total: Duration = rounds.iter().sum();
        rounds.sort_unstable();
        let count = rounds.len() as u64 * operations;
        Self {
            count,
            in_round: operations,
            mean_per_second: count as f64 / total.as_secs_f64(),
            p50_us: micros(percentile(&rounds, 50)),
            p99_us: micros(percentile(&rounds, 99)),
            cpu_us: None,
            own_kib: None,
        }
    }

    /// Times per second in the median round.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        self.in_round as f64 * 1e6 / self.p50_us
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// The smallest value that at least `percent` of 100 values do not exceed.
///
/// # Panics
/// Without values.
#[must_use]
pub fn percentile<T: Copy>(sorted: &[T], percent: usize) -> T {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted[rank - 1]
}

/// The middle of some values and their ends.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The middle one, or the mean of the middle two.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// None without values.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self { median, min, max })
    }
}

/// Does `round` for about `span` and returns the times it gives. A quarter of the span goes before,
/// to warm up.
///
/// # Errors
/// The first that `round` returns.
pub fn repeat<E>(
    span: Duration,
    mut round: impl FnMut() -> Result<Duration, E>,
) -> Result<Vec<Duration>, E> {
    let begin = Instant::now();
    loop {
        round()?;
        if begin.elapsed() * 4 >= span {
            break;
        }
    }
    let begin = Instant::now();
    let mut times = Vec::with_capacity(1 << 16);
    while times.len() < FEWEST || begin.elapsed() < span {
        times.push(round()?);
    }
    Ok(times)
}

/// How long `work` takes.
///
/// # Errors
/// What it returns.
pub fn timed<E>(work: impl FnOnce() -> Result<(), E>) -> Result<Duration, E> {
    let begin = Instant::now();
    work()?;
    Ok(begin.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<u32> = (1..=200).collect();
        assert_eq!(percentile(&values, 50), 100);
        assert_eq!(percentile(&values, 99), 198);
        assert_eq!(percentile(&values, 100), 200);
        assert_eq!(percentile(&values, 0), 1);
        assert_eq!(percentile(&[7], 99), 7);
    }

    #[test]
    fn a_spread_has_the_median_between_its_ends() {
        let spread = |values: &[f64]| Spread::of(values.iter().copied());
        assert_eq!(spread(&[]), None);
        let (median, min, max) = (3.0, 1.0, 9.0);
        assert_eq!(spread(&[9.0, 1.0, 3.0]), Some(Spread { median, min, max }));
        let median = 2.0;
        assert_eq!(
            spread(&[9.0, 1.0, 1.5, 2.5]),
            Some(Spread { median, min, max })
        );
    }

    #[test]
    fn a_sample_counts_operations_and_times_rounds() {
        let rounds = [10, 40, 10, 20].map(Duration::from_millis);
        let sample = Sample::of(rounds.to_vec(), 64);
        assert_eq!(sample.count, 256);
        assert!((sample.mean_per_second - 3200.0).abs() < 1e-6);
        assert!((sample.per_second() - 6400.0).abs() < 1e-6);
        assert!((sample.p50_us - 10_000.0).abs() < 1e-6);
        assert!((sample.p99_us - 40_000.0).abs() < 1e-6);
    }

    #[test]
    fn rounds_are_repeated_and_stop_at_an_error() {
        let mut calls = 0;
        let times = repeat(Duration::ZERO, || {
            calls += 1;
            Ok::<_, ()>(Duration::from_millis(calls))
        });
        // The first warmed up.
        assert_eq!(times, Ok([2, 3, 4].map(Duration::from_millis).to_vec()));
        let failed = repeat(Duration::ZERO, || Err::<Duration, _>("no"));
        assert_eq!(failed, Err("no"));
    }
}
