//! `nosnoop-bench`: vhost-user GPU back-ends side by side, and beside what the machine can do.
//!
//! In each turn every row ([`case`]) is measured on every back-end and on its limit ([`limits`]),
//! one right after the other, each time on a fresh process ([`stage`]); the order rotates from
//! turn to turn. Ratios are those of one turn, so that what else runs on the machine disturbs both
//! sides alike; [`stats`] gives their median and spread. A back-end that lacks something, dies or
//! hangs has a reason in its place ([`Missing`]) and costs nobody else anything.

pub mod case;
pub mod costs;
mod driver;
pub mod limits;
pub mod machine;
pub mod report;
mod stage;
pub mod stats;
pub mod svg;
pub mod text;
mod work;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::lab::say;
use crate::peers::Prepared;
use case::Case;
use report::{Backend, LimitRow, Measured, Report, Row};
use stage::{Needs, Stage};

/// How long a back-end may take for any answer before it counts as hung: what a program is to give to
/// [`set_patience`](crate::frontend::error::set_patience).
pub const PATIENCE: Duration = Duration::from_secs(5);

/// How long the first picture may take to arrive at the display.
const PROOF: Duration = Duration::from_secs(3);

/// Why a back-end has no number in a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Missing {
    /// It does not have what is measured.
    Lacks(String),
    /// It died, hung or broke a rule.
    Failed(String),
}

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The rows.
    pub cases: Vec<Case>,
    /// The machine's limits beside those of the rows.
    pub limits: Vec<limits::Limit>,
    /// How often each back-end takes its turn.
    pub turns: u32,
    /// How long each cell is measured.
    pub span: Duration,
    /// How many at once idle side by side, beside one alone.
    pub scale: Option<usize>,
}

/// Checks that a back-end serves a front-end and answers a command, with whatever.
///
/// # Errors
/// What is wrong with it, in one line.
pub fn check(backend: &Prepared) -> Result<(), Missing> {
    Stage::open(backend, case::XGA, Needs::Plain)?.first_command()?;
    Ok(())
}

/// Measures everything; the first back-end is the one that the others are compared with. Tells of
/// its progress on standard error.
#[must_use]
pub fn run(plan: &Plan, backends: &[Prepared]) -> Report {
    let machine = machine::Machine::here();
    let mut rows: Vec<Row> = plan
        .cases
        .iter()
        .map(|case| Row::new(case, backends))
        .collect();
    let mut limits: Vec<LimitRow> = plan.limits.iter().map(|l| LimitRow::new(*l)).collect();
    for turn in 0..plan.turns {
        for (limit, row) in plan.limits.iter().zip(&mut limits) {
            row.measured.add(limit_sample(*limit, plan.span));
        }
        for (case, row) in plan.cases.iter().zip(&mut rows) {
            one_row(case, row, backends, plan.span, turn);
            let told = row.told(turn as usize);
            say(format_args!("turn {} of {}: {told}", turn + 1, plan.turns));
        }
    }
    let costs = costs::measure(backends, plan.scale, plan.span);
    Report {
        machine: machine.ended(),
        turns: plan.turns,
        seconds: plan.span.as_secs_f64(),
        backends: backends.iter().map(Backend::of).collect(),
        skipped: Vec::new(),
        rows,
        limits,
        costs,
    }
}

/// The order in which `contenders` take turn number `turn`: each once, another one first each time, so
/// that what the one before leaves behind in the machine does not always meet the same one.
pub(crate) fn in_turn(contenders: usize, turn: u32) -> impl Iterator<Item = usize> {
    (0..contenders).map(move |at| (at + turn as usize) % contenders)
}

/// One row in one turn: every back-end and the limit.
fn one_row(case: &Case, row: &mut Row, backends: &[Prepared], span: Duration, turn: u32) {
    let contenders = backends.len() + usize::from(case.limit.is_some());
    for at in in_turn(contenders, turn) {
        match (backends.get(at), case.limit) {
            (Some(backend), _) => {
                let cell: &mut Measured = &mut row.cells[at];
                // What has failed once would take its time to fail again.
                if cell.missing.is_none() {
                    cell.add(work::measure(case.work, backend, span));
                }
            }
            (None, Some(limit)) => {
                if let Some(measured) = &mut row.limit {
                    measured.add(limit_sample(limit, span));
                }
            }
            (None, None) => {}
        }
    }
}

fn limit_sample(limit: limits::Limit, span: Duration) -> Result<stats::Sample, Missing> {
    limit.measure(span).map_err(Missing::from)
}

/// Bytes for people: whole KiB or MiB where it is that.
#[must_use]
pub fn size(bytes: u64) -> String {
    match bytes {
        _ if bytes >= 1 << 20 && bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ if bytes >= 1 << 20 => format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
        _ if bytes >= 1 << 10 => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_contender_is_first_as_often_as_the_others() {
        let order = |turn| in_turn(3, turn).collect::<Vec<_>>();
        let turns = [0, 1, 2, 3].map(order);
        assert_eq!(turns, [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]);
        assert_eq!(in_turn(0, 7).count(), 0);
    }
}
