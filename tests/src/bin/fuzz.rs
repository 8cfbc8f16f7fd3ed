//! `cargo fuzz-device`: random guests against the device, for a time or until stopped.
#![allow(
    clippy::print_stdout,
    clippy::arithmetic_side_effects,
    reason = "a program for people, of the test crate"
)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use nosnoop_tests::fuzz::{Tally, run_seed};

/// Random guests against the device, in process. Every failure names its seed.
#[derive(Parser)]
struct Arguments {
    /// How long to run; without it until stopped
    #[arg(long)]
    seconds: Option<u64>,

    /// Run this one seed
    #[arg(long)]
    seed: Option<u64>,

    /// The first of the seeds that are run in order; another value sees other guests
    #[arg(long, default_value_t = 0)]
    start: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(seed) = arguments.seed {
        return report(run_seed(seed).map(|tally| (1, tally)));
    }
    let limit = arguments.seconds.map(Duration::from_secs);
    report(run(arguments.start, limit))
}

fn run(start: u64, limit: Option<Duration>) -> Result<(u64, Tally), String> {
    let began = Instant::now();
    let mut told = began;
    let mut total = Tally::default();
    for seed in start.. {
        total.add(&run_seed(seed)?);
        let seeds = seed - start + 1;
        if limit.is_some_and(|limit| began.elapsed() >= limit) {
            return Ok((seeds, total));
        }
        if told.elapsed() >= Duration::from_secs(10) {
            told = Instant::now();
            println!("{seeds} seeds, {} steps, nothing wrong so far", total.steps);
        }
    }
    Ok((u64::MAX, total))
}

fn report(result: Result<(u64, Tally), String>) -> ExitCode {
    match result {
        Ok((seeds, tally)) => {
            println!(
                "{seeds} seeds, {} steps: {} OK responses ({} host blobs mapped), {} error responses, {} chains without \
                 response, {} rings stopped",
                tally.steps, tally.ok, tally.mapped, tally.errors, tally.bare, tally.stopped
            );
            ExitCode::SUCCESS
        }
        Err(what) => {
            println!("{what}\nrepeat it with --seed");
            ExitCode::FAILURE
        }
    }
}
