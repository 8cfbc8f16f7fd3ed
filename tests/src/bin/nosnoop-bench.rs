//! `cargo nosnoop-bench`: measures vhost-user GPU back-ends side by side.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "its results go to standard output, its errors to standard error"
)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use nosnoop_tests::bench::case::{Case, machine_limits};
use nosnoop_tests::bench::report::Skipped;
use nosnoop_tests::bench::{self, Plan, svg, text};
use nosnoop_tests::frontend::error::set_patience;
use nosnoop_tests::glob::matches;
use nosnoop_tests::lab::{LabError, Result, say};
use nosnoop_tests::peers::{Peer, Prepared};
use nosnoop_tests::results::{self, Places, Results};

/// The folder of the results, and a document's section for them.
const NAME: &str = "bench";

/// Measures nosnoop-gpu and other vhost-user GPU back-ends by turns in one run, with the machine's own limits.
#[derive(Parser)]
#[command(name = "nosnoop-bench")]
struct Arguments {
    /// A back-end to compare with: vhost-user-gpu, vhost-device-gpu, vhost-device-gpu-virgl, a
    /// command line with {socket} in it, or a program that takes --socket-path; NAME= in front of these
    /// two names it. Without this option: all known ones that can be had here.
    #[arg(long, value_name = "CMD|NAME", value_parser = Peer::parse)]
    against: Vec<Peer>,
    /// What is compared with them, likewise.
    #[arg(long, value_name = "CMD|NAME", default_value = "ours", value_parser = Peer::parse)]
    subject: Peer,
    /// Compare with nobody, only with the limits.
    #[arg(long, conflicts_with = "against")]
    alone: bool,
    /// How often each back-end takes its turn.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    turns: u32,
    /// How long each cell of the table is measured.
    #[arg(long, value_name = "S", default_value = "0.3", value_parser = seconds)]
    seconds: Duration,
    /// Only the rows whose name matches, with * and ?; repeatable.
    #[arg(long, value_name = "GLOB")]
    only: Vec<String>,
    /// Names the rows and ends.
    #[arg(long)]
    list: bool,
    /// Also so many idle daemons of each kind at once.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    scale: Option<u16>,
    /// The folder for the plots [target/bench].
    #[arg(long, value_name = "DIR")]
    svg: Option<PathBuf>,
    #[command(flatten)]
    places: Places,
}

fn seconds(text: &str) -> std::result::Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| format!("'{text}' is no number"))?;
    match number {
        _ if (0.001..=600.0).contains(&number) => Ok(Duration::from_secs_f64(number)),
        _ => Err(format!("{text} is not between 0.001 and 600 seconds")),
    }
}

fn cases(only: &[String]) -> Result<Vec<Case>> {
    let mut cases = Case::all();
    let unknown = only
        .iter()
        .find(|glob| !cases.iter().any(|case| matches(glob, &case.id)));
    if let Some(glob) = unknown {
        return Err(LabError::failed(format!(
            "--only {glob}: no row has such a name; see --list"
        )));
    }
    cases.retain(|case| only.is_empty() || only.iter().any(|glob| matches(glob, &case.id)));
    Ok(cases)
}

/// Sets a back-end up and tries it.
fn ready(peer: &Peer) -> std::result::Result<Prepared, String> {
    let prepared = peer.prepare().map_err(|error| error.to_string())?;
    match bench::check(&prepared) {
        Ok(()) => Ok(prepared),
        Err(missing) => Err(format!("it serves no front-end: {missing}")),
    }
}

/// The back-ends to measure, and those that cannot be had though nobody asked for them by name.
fn backends(arguments: &Arguments) -> Result<(Vec<Prepared>, Vec<Skipped>)> {
    let mut wanted = vec![arguments.subject.clone()];
    wanted.extend(arguments.against.iter().cloned());
    let (mut found, mut troubles) = (Vec::new(), Vec::new());
    for peer in &wanted {
        match ready(peer) {
            Ok(prepared) => found.push(prepared),
            Err(why) => troubles.push(format!("{peer}: {why}")),
        }
    }
    if !troubles.is_empty() {
        return Err(LabError::failed(troubles.join("\n")));
    }
    let mut skipped = Vec::new();
    if arguments.against.is_empty() && !arguments.alone {
        for peer in Peer::KNOWN {
            match ready(&peer) {
                Ok(prepared) => found.push(prepared),
                Err(reason) => {
                    say(format_args!("skipped: {peer}: {reason}"));
                    let name = peer.name();
                    skipped.push(Skipped { name, reason });
                }
            }
        }
    }
    Ok((found, skipped))
}

fn run(arguments: &Arguments) -> Result<()> {
    let cases = cases(&arguments.only)?;
    if arguments.list {
        for case in &cases {
            println!("{:<20}{}", case.id, case.title);
        }
        return Ok(());
    }
    let (backends, skipped) = backends(arguments)?;
    let results = Results::at(&arguments.places, NAME)?;
    let plots = results::folder_at(arguments.svg.as_deref(), NAME)?;
    let plan = Plan {
        // The machine's own limits belong to the whole table.
        limits: match arguments.only.is_empty() {
            true => machine_limits(),
            false => Vec::new(),
        },
        cases,
        turns: arguments.turns,
        span: arguments.seconds,
        scale: arguments.scale.map(usize::from),
    };
    let mut report = bench::run(&plan, &backends);
    report.skipped = skipped;
    println!("{}", text::plain(&report));
    let tables = text::markdown(&report);
    results.write(&report, &tables, &tables)?;
    for plot in svg::plots(&report) {
        results::write(&plots.join(&plot.file), &plot.text)?;
    }
    match report.subject_failures() {
        failures if failures.is_empty() => Ok(()),
        failures => Err(LabError::failed(failures.join("\n"))),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    set_patience(bench::PATIENCE);
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for line in error.to_string().lines() {
                eprintln!("nosnoop-bench: {line}");
            }
            ExitCode::FAILURE
        }
    }
}
