//! The report for programs.

use std::path::Path;

use serde::Serialize;

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
    milliseconds: u128,
}

/// All runs as JSON. `format` is raised when a field changes its meaning or goes.
#[must_use]
pub fn json(runs: &[Run]) -> String {
    let report = Report {
        format: 1,
        backends: runs.iter().map(backend).collect(),
    };
    let mut text = serde_json::to_string_pretty(&report).expect("strings and numbers");
    text.push('\n');
    text
}

fn backend(run: &Run) -> Backend<'_> {
    let [passed, failed, skipped] = run.counts();
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
        cases: run.findings.iter().map(row).collect(),
    }
}

fn row(finding: &Finding) -> Row<'_> {
    Row {
        id: finding.case.id(),
        group: finding.case.group.name(),
        name: finding.case.name,
        sentences: finding.case.sentences,
        verdict: finding.verdict.word(),
        reason: finding.verdict.reason(),
        milliseconds: finding.took.as_millis(),
    }
}
