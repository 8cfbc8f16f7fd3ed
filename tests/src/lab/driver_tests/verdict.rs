//! What the end of a program says about the device.

use std::fmt;

use nosnoop_guest::wire::commands::{Ending, Ran, Stop};
use serde::{Deserialize, Serialize};

use super::super::LabError;
use super::list::{Judge, Test};

/// How a test went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// As it should.
    Pass,
    /// As it should, but the kernel complained meanwhile.
    Warn,
    /// Not as it should.
    Fail,
    /// The test says that this device lacks what it is about.
    Skip,
}

impl Verdict {
    /// All, in the order of reports.
    pub const ALL: [Self; 4] = [Self::Pass, Self::Warn, Self::Fail, Self::Skip];
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Pass => "PASS",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
            Self::Skip => "SKIP",
        })
    }
}

/// A test's verdict on one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// How it went.
    pub verdict: Verdict,
    /// Why, in one line; empty for a plain pass.
    pub why: String,
    /// How long the program took, in milliseconds; 0 where that is not known.
    pub millis: u64,
    /// The last lines of what it wrote, where it did not pass.
    pub output: Vec<String>,
    /// What the kernel complained about.
    pub kernel: Vec<String>,
}

/// Exit statuses of igt-gpu-tools (lib/igt_core.h).
const IGT_SKIP: i32 = 77;
const IGT_UNKNOWN: i32 = 79;
const IGT_FAILURE: i32 = 98;

/// The number of SIGINT.
const INTERRUPTED: i32 = 2;

/// How many lines of output an outcome keeps.
const KEPT_LINES: usize = 40;

/// Marks a line of igt-gpu-tools' output that says why.
const IGT_REASONS: [&str; 4] = [
    "Failed assertion: ",
    "Test requirement: ",
    "Test requirement not met in ",
    "CRITICAL: ",
];

/// Judges `test`, which has ended like this.
pub(super) fn judge(test: &Test, ran: &Ran) -> Outcome {
    let (verdict, why) = match (ran.ending, &test.judge) {
        (Ending::Deadline, _) => (
            Verdict::Fail,
            format!("not done after {} s; it was killed", test.deadline),
        ),
        (Ending::Stuck, _) => (
            Verdict::Fail,
            format!(
                "not done after {} s, and killing does not end it",
                test.deadline
            ),
        ),
        // It was asked to end.
        (Ending::Signal(INTERRUPTED), Judge::Output { expect, reject })
            if matches!(test.stop, Some(Stop::InterruptAfter(_))) =>
        {
            written(0, &ran.lines, expect, reject)
        }
        (Ending::Signal(signal), _) => (Verdict::Fail, format!("ended by signal {signal}")),
        (Ending::Status(status), Judge::Igt) => igt(status, &ran.lines),
        (Ending::Status(status), Judge::Output { expect, reject }) => {
            written(status, &ran.lines, expect, reject)
        }
    };
    let (verdict, why) = match (verdict, ran.kernel.first()) {
        (Verdict::Pass, Some(line)) => (Verdict::Warn, format!("kernel: {line}")),
        _ => (verdict, why),
    };
    let from = match verdict {
        Verdict::Pass => ran.lines.len(),
        _ => ran.lines.len().saturating_sub(KEPT_LINES),
    };
    Outcome {
        verdict,
        why,
        millis: ran.millis,
        output: ran.lines[from..].to_vec(),
        kernel: ran.kernel.clone(),
    }
}

/// The outcome of a test whose machine does not answer any more.
pub(super) fn machine_lost(error: &LabError) -> Outcome {
    let text = error.to_string();
    let mut lines = text.lines();
    Outcome {
        verdict: Verdict::Fail,
        why: lines.next().unwrap_or_default().to_owned(),
        millis: 0,
        output: lines.map(str::to_owned).collect(),
        kernel: Vec::new(),
    }
}

/// The verdict of a test of igt-gpu-tools.
fn igt(status: i32, lines: &[String]) -> (Verdict, String) {
    let reason = || {
        let said = IGT_REASONS.iter().find_map(|mark| {
            let line = lines.iter().find(|line| line.contains(mark))?;
            Some(line.split_once(mark)?.1.trim().to_owned())
        });
        said.or_else(|| lines.last().cloned()).unwrap_or_default()
    };
    match status {
        0 => (Verdict::Pass, String::new()),
        IGT_SKIP => (Verdict::Skip, reason()),
        IGT_FAILURE => (Verdict::Fail, reason()),
        IGT_UNKNOWN => (
            Verdict::Skip,
            "this version of igt-gpu-tools does not have it".to_owned(),
        ),
        other => (Verdict::Fail, format!("status {other}: {}", reason())),
    }
}

/// The verdict of a program by what it wrote.
fn written(
    status: i32,
    lines: &[String],
    expect: &[String],
    reject: &[String],
) -> (Verdict, String) {
    if status != 0 {
        let last = lines.last().cloned().unwrap_or_default();
        return (Verdict::Fail, format!("status {status}: {last}"));
    }
    let bad = |line: &&String| reject.iter().any(|text| line.contains(text));
    if let Some(line) = lines.iter().find(bad) {
        return (Verdict::Fail, line.clone());
    }
    let missing = |text: &&String| !lines.iter().any(|line| line.contains(*text));
    match expect.iter().find(missing) {
        Some(text) => (Verdict::Fail, format!("it did not write '{text}'")),
        None => (Verdict::Pass, String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(ending: Ending, lines: &[&str], kernel: &[&str]) -> Ran {
        let owned = |lines: &[&str]| lines.iter().map(ToString::to_string).collect();
        Ran {
            ending,
            lines: owned(lines),
            kernel: owned(kernel),
            millis: 7,
        }
    }

    fn test(judge: Judge) -> Test {
        Test {
            name: "name".to_owned(),
            words: Vec::new(),
            deadline: 60,
            stop: None,
            judge,
            short: false,
        }
    }

    #[track_caller]
    fn assert_judged(judge_by: Judge, ran: &Ran, verdict: Verdict, why: &str) {
        let outcome = judge(&test(judge_by), ran);
        assert_eq!((outcome.verdict, outcome.why.as_str()), (verdict, why));
    }

    #[test]
    fn igt_is_judged_by_its_status() {
        let skip = [
            "Test requirement not met in function main, file a.c:1:",
            "Test requirement: has_crc(fd)",
            "SUBTEST: SKIP",
        ];
        let failure = [
            "(a:1) CRITICAL: Test assertion failure function f, file a.c:2:",
            "(a:1) CRITICAL: Failed assertion: x == 0",
        ];
        let status = |status: i32, lines: &[&str]| ran(Ending::Status(status), lines, &[]);
        assert_judged(Judge::Igt, &status(0, &["all well"]), Verdict::Pass, "");
        assert_judged(Judge::Igt, &status(77, &skip), Verdict::Skip, "has_crc(fd)");
        assert_judged(Judge::Igt, &status(98, &failure), Verdict::Fail, "x == 0");
        assert_judged(Judge::Igt, &status(3, &["x"]), Verdict::Fail, "status 3: x");
        assert_judged(
            Judge::Igt,
            &ran(Ending::Deadline, &[], &[]),
            Verdict::Fail,
            "not done after 60 s; it was killed",
        );
    }

    #[test]
    fn a_complaint_of_the_kernel_spoils_a_pass_only() {
        let kernel = ["*ERROR* response 0x1203"];
        let pass = ran(Ending::Status(0), &[], &kernel);
        let why = "kernel: *ERROR* response 0x1203";
        assert_judged(Judge::Igt, &pass, Verdict::Warn, why);
        let skip = ran(Ending::Status(77), &["no"], &kernel);
        assert_judged(Judge::Igt, &skip, Verdict::Skip, "no");
    }

    #[test]
    fn other_programs_are_judged_by_what_they_write() {
        let by = || Judge::Output {
            expect: vec!["freq:".to_owned()],
            reject: vec!["failed".to_owned()],
        };
        let ran = |lines: &[&str]| ran(Ending::Status(0), lines, &[]);
        assert_judged(by(), &ran(&["freq: 60Hz"]), Verdict::Pass, "");
        let failed = ran(&["failed to set mode", "freq: 60Hz"]);
        assert_judged(by(), &failed, Verdict::Fail, "failed to set mode");
        let silent = ran(&["nothing"]);
        assert_judged(by(), &silent, Verdict::Fail, "it did not write 'freq:'");
    }
}
