//! The report for programs.

use std::path::Path;

use serde::Serialize;

use crate::conform::causes::{Account, Cause};
use crate::conform::run::{Finding, Run};
use crate::conform::target::Kind;
use crate::peers::SOCKET;

#[derive(Serialize)]
struct Report<'a> {
    format: u32,
    backends: Vec<Backend<'a>>,
}

#[derive(Serialize)]
struct Backend<'a> {
    name: &'a str,
    reached_by: String,
    offers: Vec<String>,
    passed: usize,
    failed: usize,
    skipped: usize,
    /// Cases that failed by nothing that is known; for back-ends of which something is.
    #[serde(skip_serializing_if = "Option::is_none")]
    unexplained: Option<Vec<String>>,
    cases: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    id: String,
    group: &'a str,
    name: &'a str,
    sentences: &'a [&'a str],
    verdict: &'a str,
    reason: &'a str,
    /// What a failure comes from, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
    milliseconds: u128,
}

/// All runs as JSON. `format` is raised when a field changes its meaning or goes.
#[must_use]
pub fn json(runs: &[Run], causes: &[Cause]) -> String {
    let report = Report {
        format: 1,
        backends: runs.iter().map(|run| backend(run, causes)).collect(),
    };
    let mut text = serde_json::to_string_pretty(&report).expect("strings and numbers");
    text.push('\n');
    text
}

fn backend<'a>(run: &'a Run, causes: &'a [Cause]) -> Backend<'a> {
    let [passed, failed, skipped] = run.counts();
    let account = Account::of(run, causes);
    let cause = |id: &str| Some(account.as_ref()?.cause(id)?.title.as_str());
    Backend {
        name: &run.target.name,
        reached_by: match &run.target.kind {
            Kind::Socket(path) => path.display().to_string(),
            Kind::Spawn(command) => command.clone(),
            Kind::Known(prepared) => format!("{:?}", prepared.command(Path::new(SOCKET))),
        },
        offers: run.probe.names(),
        passed,
        failed,
        skipped,
        cases: run.findings.iter().map(|one| row(one, &cause)).collect(),
        unexplained: account.as_ref().map(|one| one.unexplained.clone()),
    }
}

fn row<'a>(finding: &'a Finding, cause: &dyn Fn(&str) -> Option<&'a str>) -> Row<'a> {
    Row {
        id: finding.case.id(),
        group: finding.case.group.name(),
        name: finding.case.name,
        sentences: finding.case.sentences,
        verdict: finding.verdict.word(),
        reason: finding.verdict.reason(),
        cause: cause(&finding.case.id()),
        milliseconds: finding.took.as_millis(),
    }
}
