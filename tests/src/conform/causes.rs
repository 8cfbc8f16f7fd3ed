//! Where the failures of known back-ends come from, written by hand: `causes.toml`.
//!
//! A failure whose cause is not there is named in each report, and so is a cause whose cases fail no
//! more: one is as wrong as the other.

use serde::Deserialize;

use super::run::{Run, Verdict};
use super::sentences::Sentence;
use crate::glob::matches;

/// The table that belongs to this module; it says what each field means.
const TABLE: &str = include_str!("causes.toml");

/// One thing about a back-end by which cases fail.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cause {
    /// The back-end's name in reports.
    pub peer: String,
    /// What it is, in some words.
    pub title: String,
    /// What it is, in some sentences.
    pub text: String,
    /// Ids of the sentences of the specifications that it touches; there may be none.
    #[serde(default)]
    pub sentences: Vec<String>,
    /// The cases that fail by it: ids or patterns of them.
    pub cases: Vec<String>,
    /// What the reason of each such failure has in it; nothing in particular if this is empty.
    #[serde(default)]
    pub says: String,
    /// Whether the same case also passes at times; then no failure is no news.
    #[serde(default)]
    pub by_chance: bool,
    /// File and function of the back-end's source, with its version.
    pub seen: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    cause: Vec<Cause>,
}

/// All causes that are known, in the order of reports.
#[must_use]
pub fn all() -> Vec<Cause> {
    let table: Table = toml::from_str(TABLE).expect("a table that belongs to this program");
    table.cause
}

impl Cause {
    /// Whether the case of this id fails by it.
    #[must_use]
    pub fn covers(&self, id: &str) -> bool {
        self.cases.iter().any(|pattern| matches(pattern, id))
    }

    /// Whether it is why the case of this id failed for this reason.
    #[must_use]
    pub fn explains(&self, id: &str, reason: &str) -> bool {
        self.covers(id) && reason.contains(&self.says)
    }

    /// The sentences with their levels, such as `ring-10 MUST`.
    #[must_use]
    pub fn rules(&self, sentences: &[Sentence]) -> String {
        let level = |id: &String| {
            let found = sentences.iter().find(|one| one.id == *id);
            let level = found.map_or("unknown", |one| one.level.word());
            format!("{id} {level}")
        };
        match self.sentences.as_slice() {
            [] => "no sentence".to_owned(),
            ids => ids.iter().map(level).collect::<Vec<_>>().join(", "),
        }
    }
}

/// What the failures of one run come from.
#[derive(Debug)]
pub struct Account<'a> {
    /// The causes that were met, each with the ids of the cases that failed by it; there are none
    /// for one that is met by chance, and was not this time.
    pub met: Vec<(&'a Cause, Vec<String>)>,
    /// The ids of the cases that failed by none of them.
    pub unexplained: Vec<String>,
    /// Patterns of a cause whose cases were run, and of which none fails by it any more.
    pub gone: Vec<(&'a Cause, &'a str)>,
}

impl<'a> Account<'a> {
    /// The account of a run; `None` if no cause is known for the back-end.
    #[must_use]
    pub fn of(run: &Run, causes: &'a [Cause]) -> Option<Self> {
        let of_peer = || causes.iter().filter(|cause| cause.peer == run.target.name);
        of_peer().next()?;
        let failed: Vec<_> = run
            .findings
            .iter()
            .filter(|one| matches!(one.verdict, Verdict::Fail(_)))
            .map(|one| (one.case.id(), one.verdict.reason()))
            .collect();
        let by = |cause: &Cause| -> Vec<String> {
            let all = failed.iter().filter(|(id, why)| cause.explains(id, why));
            all.map(|(id, _)| id.clone()).collect()
        };
        let met: Vec<_> = of_peer().map(|cause| (cause, by(cause))).collect();
        let unexplained = failed.iter().map(|(id, _)| id.clone());
        let unexplained =
            unexplained.filter(|id| !met.iter().any(|(_, explained)| explained.contains(id)));
        let ids: Vec<_> = run.findings.iter().map(|one| one.case.id()).collect();
        let mut gone = Vec::new();
        for (cause, explained) in met.iter().filter(|(cause, _)| !cause.by_chance) {
            for pattern in &cause.cases {
                let any = |ids: &[String]| ids.iter().any(|id| matches(pattern, id));
                if any(&ids) && !any(explained) {
                    gone.push((*cause, pattern.as_str()));
                }
            }
        }
        Some(Self {
            unexplained: unexplained.collect(),
            gone,
            met: met
                .into_iter()
                .filter(|(cause, explained)| {
                    let by_chance = cause.by_chance && ids.iter().any(|id| cause.covers(id));
                    by_chance || !explained.is_empty()
                })
                .collect(),
        })
    }

    /// The cause by which the case of this id failed.
    #[must_use]
    pub fn cause(&self, id: &str) -> Option<&'a Cause> {
        let found = self
            .met
            .iter()
            .find(|(_, ids)| ids.iter().any(|one| one == id));
        found.map(|(cause, _)| *cause)
    }

    /// What is to be mended in `causes.toml`, one line each; nothing if the account is complete.
    #[must_use]
    pub fn open(&self) -> Vec<String> {
        let mut lines = Vec::new();
        match self.unexplained.as_slice() {
            [] => {}
            [one] => lines.push(format!("1 failure not explained: {one}")),
            many => lines.push(format!(
                "{} failures not explained: {}",
                many.len(),
                many.join(", ")
            )),
        }
        let gone = self.gone.iter();
        lines.extend(
            gone.map(|(cause, pattern)| {
                format!("{pattern} fails no more by this: {}", cause.title)
            }),
        );
        lines
    }
}

#[cfg(test)]
mod tests;
