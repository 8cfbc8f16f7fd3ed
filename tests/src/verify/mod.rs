//! `cargo verify`: every check of the project, one after the other, with real counts.
//!
//! A step is a command with a log of its own. A step that runs tests counts as many as it runs; every other step
//! counts as one. What this machine cannot run counts as skipped, with the reason, and never as passed.

mod counts;
mod exec;
mod plan;

use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};
use std::{fmt, fs};

pub use counts::{SKIP_MARK, TestCounts, count_tests, listed_tests};
pub use exec::kill_running;
pub use plan::{Kind, Options, Step, Workspace, steps};

use exec::{Ending, Finished};

/// Lines of a failed step's log that are shown.
const TAIL_LINES: usize = 60;

/// What several steps came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Checks and tests that passed.
    pub passed: usize,
    /// Checks and tests that failed.
    pub failed: usize,
    /// Checks and tests that did not run.
    pub skipped: usize,
    /// What failed, one a line.
    pub failures: Vec<String>,
    /// What did not run and why, one a line.
    pub skips: Vec<String>,
}

impl Totals {
    fn passed() -> Self {
        Self {
            passed: 1,
            ..Self::default()
        }
    }

    fn failed(what: impl Into<String>) -> Self {
        Self {
            failed: 1,
            failures: vec![what.into()],
            ..Self::default()
        }
    }

    fn skipped(why: impl Into<String>) -> Self {
        Self {
            skipped: 1,
            skips: vec![why.into()],
            ..Self::default()
        }
    }

    fn add(&mut self, step: &str, other: Self) {
        self.passed = self.passed.saturating_add(other.passed);
        self.failed = self.failed.saturating_add(other.failed);
        self.skipped = self.skipped.saturating_add(other.skipped);
        let name = |text: String| format!("{step}: {text}");
        self.failures.extend(other.failures.into_iter().map(name));
        self.skips.extend(other.skips.into_iter().map(name));
    }
}

/// `N passed, N failed, N skipped`
impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

/// Runs all steps and writes progress and the closing line to `out`.
///
/// # Errors
/// The log folder or `out` cannot be written.
pub fn run(workspace: &Workspace, options: Options, out: &mut impl Write) -> io::Result<Totals> {
    let logs = workspace.target.join("verify");
    fs::create_dir_all(&logs)?;
    let steps = steps(workspace, options);
    writeln!(out, "{} steps, logs in {}", steps.len(), logs.display())?;
    if options.no_vm {
        writeln!(
            out,
            "THE TESTS IN A VIRTUAL MACHINE ARE LEFT OUT (--no-vm or NOSNOOP_VM=0)"
        )?;
    }

    let start = Instant::now();
    let mut totals = Totals::default();
    for (step, number) in steps.iter().zip(1..) {
        let place = format!("[{number:>2}/{}] {}", steps.len(), step.name);
        writeln!(out, "{place}: {}", step.command_line())?;
        out.flush()?;
        let begun = Instant::now();
        let log = logs.join(format!("{}.log", step.name));
        let (result, output) = run_step(workspace, step, &log);
        writeln!(out, "{place}: {result} ({:.1} s)", seconds(begun))?;
        for skip in &result.skips {
            writeln!(out, "        skipped: {skip}")?;
        }
        if result.failed > 0 {
            show_failure(&result, &output, &log, out)?;
        }
        out.flush()?;
        totals.add(step.name, result);
    }

    writeln!(out)?;
    for skip in &totals.skips {
        writeln!(out, "skipped  {skip}")?;
    }
    for failure in &totals.failures {
        writeln!(out, "FAILED   {failure}")?;
    }
    writeln!(out, "{:.0} s", seconds(start))?;
    writeln!(out, "{totals}")?;
    Ok(totals)
}

fn seconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64()
}

fn show_failure(result: &Totals, output: &str, log: &Path, out: &mut impl Write) -> io::Result<()> {
    for failure in &result.failures {
        writeln!(out, "        FAILED: {failure}")?;
    }
    let hidden = output.lines().count().saturating_sub(TAIL_LINES);
    for line in output.lines().skip(hidden) {
        writeln!(out, "        | {line}")?;
    }
    writeln!(out, "        the whole log: {}", log.display())
}

fn run_step(workspace: &Workspace, step: &Step, log: &Path) -> (Totals, String) {
    if let Kind::Skipped(reason) = step.kind {
        return (Totals::skipped(reason), String::new());
    }
    let mut command = step.command();
    command.current_dir(&workspace.root);
    match exec::run(command, step.limit, log) {
        Ok(finished) => (judge(step.kind, step.limit, &finished), finished.output),
        Err(error) => (
            Totals::failed(format!("cannot run it: {error}")),
            String::new(),
        ),
    }
}

/// What a finished command comes to.
fn judge(kind: Kind, limit: Duration, finished: &Finished) -> Totals {
    let success = finished.ending == Ending::Exited { success: true };
    let tests = count_tests(&finished.output);
    let problem = match finished.ending {
        Ending::TimedOut => format!("not done after {} min: killed", limit.as_secs() / 60),
        Ending::Exited { .. } => "the command failed".to_owned(),
    };
    match kind {
        Kind::Check if success => Totals::passed(),
        Kind::Advisories if success => Totals::passed(),
        Kind::Advisories if no_database(finished) => {
            Totals::skipped("the advisory database cannot be reached from this machine")
        }
        Kind::Check | Kind::Advisories => Totals::failed(problem),
        Kind::Skipped(reason) => Totals::skipped(reason),
        Kind::SkippedTests(reason) if success => {
            let names = listed_tests(&finished.output);
            if names.is_empty() {
                return Totals::failed("no test found to skip");
            }
            Totals {
                skipped: names.len(),
                skips: names.iter().map(|n| format!("{n}: {reason}")).collect(),
                ..Totals::default()
            }
        }
        Kind::SkippedTests(_) => Totals::failed(problem),
        Kind::Tests => {
            let mut totals = Totals {
                passed: tests.passed,
                failed: tests.failed,
                skipped: tests.skipped,
                failures: tests.failures,
                skips: tests.skips,
            };
            let ran = totals.passed.saturating_add(totals.skipped);
            if !success && totals.failed == 0 {
                // It did not build, or a deadline came between two test programs.
                totals.failed = 1;
                totals.failures.push(problem);
            } else if success && ran == 0 {
                totals.failed = 1;
                totals.failures.push("no test ran".to_owned());
            }
            totals
        }
    }
}

/// Whether cargo-deny failed only because it could not get its database.
fn no_database(finished: &Finished) -> bool {
    finished.ending == Ending::TimedOut
        || finished
            .output
            .contains("failed to fetch advisory database")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Ending, Finished, Kind, Totals, judge};

    const RESULT: &str = "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured\n";

    fn judged(kind: Kind, success: bool, output: &str) -> (usize, usize, usize) {
        let totals = judge(
            kind,
            Duration::from_secs(60),
            &Finished {
                ending: Ending::Exited { success },
                output: output.to_owned(),
            },
        );
        (totals.passed, totals.failed, totals.skipped)
    }

    #[test]
    fn a_check_counts_as_one() {
        assert_eq!(judged(Kind::Check, true, ""), (1, 0, 0));
        assert_eq!(judged(Kind::Check, false, ""), (0, 1, 0));
    }

    #[test]
    fn tests_count_as_many_as_ran() {
        assert_eq!(judged(Kind::Tests, true, RESULT), (3, 0, 0));
    }

    #[test]
    fn a_failed_test_run_fails_even_if_no_test_did() {
        assert_eq!(judged(Kind::Tests, false, RESULT), (3, 1, 0));
        assert_eq!(
            judged(Kind::Tests, false, "error: no such thing"),
            (0, 1, 0)
        );
    }

    #[test]
    fn a_test_run_without_tests_fails() {
        assert_eq!(judged(Kind::Tests, true, ""), (0, 1, 0));
    }

    #[test]
    fn a_deadline_is_a_failure() {
        let finished = Finished {
            ending: Ending::TimedOut,
            output: RESULT.to_owned(),
        };
        let totals = judge(Kind::Tests, Duration::from_secs(120), &finished);
        assert_eq!((totals.passed, totals.failed), (3, 1));
        assert_eq!(totals.failures, ["not done after 2 min: killed"]);
    }

    #[test]
    fn tests_left_out_count_as_skipped_each() {
        let kind = Kind::SkippedTests("left out");
        assert_eq!(judged(kind, true, "a: test\nb: test\n"), (0, 0, 2));
        assert_eq!(judged(kind, true, ""), (0, 1, 0));
        assert_eq!(judged(kind, false, "a: test\n"), (0, 1, 0));
    }

    #[test]
    fn advisories_need_their_database() {
        let unreachable = "[ERROR] failed to fetch advisory database over there\n";
        assert_eq!(judged(Kind::Advisories, false, unreachable), (0, 0, 1));
        assert_eq!(
            judged(Kind::Advisories, false, "error[vulnerability]"),
            (0, 1, 0)
        );
        assert_eq!(judged(Kind::Advisories, true, ""), (1, 0, 0));
    }

    #[test]
    fn totals_add_up_and_name_the_step() {
        let mut totals = Totals::passed();
        totals.add("vm", Totals::skipped("no QEMU"));
        totals.add("fmt", Totals::failed("the command failed"));
        assert_eq!(totals.to_string(), "1 passed, 1 failed, 1 skipped");
        assert_eq!(totals.skips, ["vm: no QEMU"]);
        assert_eq!(totals.failures, ["fmt: the command failed"]);
    }
}
