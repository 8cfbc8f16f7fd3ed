//! The report for a README: a table of the groups.

use crate::conform::case::{Case, Group};
use crate::conform::run::{Run, Verdict};

/// How many cases of each group each back-end passed, of those that it could be asked, and which
/// failed.
#[must_use]
pub fn markdown(runs: &[Run], cases: &[Case], made: &str) -> String {
    let heads: String = runs
        .iter()
        .map(|run| format!(" {} |", run.target.name))
        .collect();
    let mut text = format!("| passed of those that apply |{heads}\n|---|");
    text += &"---|".repeat(runs.len());
    text.push('\n');
    for group in Group::ALL {
        if cases.iter().any(|case| case.group == group) {
            let cells: String = runs.iter().map(|run| cell(run, Some(group))).collect();
            text += &format!("| {} |{cells}\n", group.name());
        }
    }
    let cells: String = runs.iter().map(|run| cell(run, None)).collect();
    text + &format!("| **all** |{cells}\n\nMade by `cargo nosnoop-conform`, {made}.\n")
}

fn cell(run: &Run, group: Option<Group>) -> String {
    let of_group = |group: Group| {
        run.findings
            .iter()
            .filter(move |one| one.case.group == group)
    };
    let findings: Vec<_> = match group {
        Some(group) => of_group(group).collect(),
        None => run.findings.iter().collect(),
    };
    let passed = findings.iter().filter(|one| one.verdict == Verdict::Pass);
    let skipped = |verdict: &Verdict| matches!(verdict, Verdict::Skip(_));
    let asked = findings.iter().filter(|one| !skipped(&one.verdict));
    let (passed, asked) = (passed.count(), asked.count());
    match (asked, findings.len() - asked) {
        (0, _) => " – |".to_owned(),
        (_, 0) => format!(" {passed} of {asked} |"),
        (_, skipped) => format!(" {passed} of {asked}, {skipped} not asked |"),
    }
}
