//! `cargo verify`: every check of the project, with real counts.

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;

use clap::Parser;
use nosnoop_tests::verify::{self, Kind, Options, Workspace};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Runs every check of the project: format, lints, documentation, tests, fuzzing, virtual machines, dependencies.
///
/// The last line is "N passed, N failed, N skipped"; the exit status is 1 if anything failed.
#[derive(Parser)]
#[command(name = "cargo verify")]
struct Arguments {
    /// Leave out the tests that boot a virtual machine (also: NOSNOOP_VM=0); they count as skipped
    #[arg(long)]
    no_vm: bool,

    /// Leave out the release tests and the fuzzing; they count as skipped
    #[arg(long)]
    quick: bool,

    /// Only say which steps there are
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options = Options {
        no_vm: arguments.no_vm || env::var_os("NOSNOOP_VM").is_some_and(|value| value == "0"),
        quick: arguments.quick,
    };
    match start(options, arguments.list) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "cargo verify: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether nothing failed.
fn start(options: Options, list: bool) -> io::Result<bool> {
    let workspace = Workspace::find()?;
    let mut out = io::stdout();
    if list {
        for step in verify::steps(&workspace, options) {
            let left_out = match step.kind {
                Kind::Skipped(reason) | Kind::SkippedTests(reason) => {
                    format!("  (skipped: {reason})")
                }
                Kind::Check | Kind::Tests | Kind::Advisories => String::new(),
            };
            writeln!(out, "{:<14} {}{left_out}", step.name, step.command_line())?;
        }
        return Ok(true);
    }
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::spawn(move || {
        if signals.forever().next().is_some() {
            verify::kill_running();
            std::process::exit(130);
        }
    });
    Ok(verify::run(&workspace, options, &mut out)?.failed == 0)
}
