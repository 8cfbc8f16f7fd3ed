//! What a run measured, as data.

use serde::{Deserialize, Serialize};

use super::Missing;
use super::case::{Case, Speaks};
use super::costs::Cost;
use super::limits::Limit;
use super::machine::Machine;
use super::stats::{Sample, Spread};
use super::text;
use crate::peers::Prepared;

/// A whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Where and when.
    pub machine: Machine,
    /// How often each back-end took its turn.
    pub turns: u32,
    /// How long each cell was measured, seconds.
    pub seconds: f64,
    /// The back-ends; the first is compared with the others.
    pub backends: Vec<Backend>,
    /// Those that could not be measured.
    pub skipped: Vec<Skipped>,
    /// The rows.
    pub rows: Vec<Row>,
    /// The machine's limits beside those of the rows.
    pub limits: Vec<LimitRow>,
    /// What idle back-ends take.
    pub costs: Vec<Cost>,
}

/// A measured back-end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// Its name.
    pub name: String,
    /// What a reader should know of it.
    pub note: String,
}

impl Backend {
    /// Of one that was prepared.
    #[must_use]
    pub fn of(backend: &Prepared) -> Self {
        let (name, note) = (backend.peer().name(), backend.note().to_owned());
        Self { name, note }
    }
}

/// A back-end that could not be measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// The samples of one back-end, or of a limit, in one row: one for each turn.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// By turn; shorter when something went missing.
    pub samples: Vec<Sample>,
    /// Why there are no more.
    pub missing: Option<Missing>,
}

impl Measured {
    /// Adds a turn.
    pub fn add(&mut self, sample: Result<Sample, Missing>) {
        match sample {
            Ok(sample) => self.samples.push(sample),
            Err(missing) => self.missing = Some(missing),
        }
    }

    /// The spread of a number over the turns; none unless every turn has one.
    #[must_use]
    pub fn spread(&self, number: impl Fn(&Sample) -> Option<f64>) -> Option<Spread> {
        if self.missing.is_some() {
            return None;
        }
        let numbers: Option<Vec<f64>> = self.samples.iter().map(number).collect();
        Spread::of(numbers?)
    }
}

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The case's name.
    pub id: String,
    /// What it is, for people.
    pub title: String,
    /// Whether the rate stands for it (else the median time).
    pub by_rate: bool,
    /// By back-end, in the order of [`Report::backends`].
    pub cells: Vec<Measured>,
    /// What bounds it.
    pub limit_name: Option<String>,
    /// The limit's samples.
    pub limit: Option<Measured>,
}

impl Row {
    /// Without samples yet.
    #[must_use]
    pub fn new(case: &Case, backends: &[Prepared]) -> Self {
        Self {
            id: case.id.clone(),
            title: case.title.clone(),
            by_rate: case.speaks() == Speaks::Rate,
            cells: vec![Measured::default(); backends.len()],
            limit_name: case.limit.map(Limit::name),
            limit: case.limit.map(|_| Measured::default()),
        }
    }

    /// How many times as fast the first back-end was as another one or the limit, by turns.
    #[must_use]
    pub fn ratio(&self, other: &Measured) -> Option<Spread> {
        let ours = self.cells.first()?;
        if ours.missing.is_some() || other.missing.is_some() {
            return None;
        }
        let pairs = ours.samples.iter().zip(&other.samples);
        Spread::of(pairs.map(|(ours, other)| ours.per_second() / other.per_second()))
    }

    /// How many times the processor time of the first back-end another one took, by turns.
    #[must_use]
    pub fn cpu_ratio(&self, other: &Measured) -> Option<Spread> {
        let ours = self.cells.first()?;
        if ours.missing.is_some() || other.missing.is_some() {
            return None;
        }
        let pairs = ours.samples.iter().zip(&other.samples);
        let ratios: Option<Vec<f64>> = pairs
            .map(|(ours, other)| Some(other.cpu_us? / ours.cpu_us?))
            .collect();
        Spread::of(ratios?)
    }

    /// One line on a turn: what each has measured, or why not.
    #[must_use]
    pub fn told(&self, turn: usize) -> String {
        let value = |measured: &Measured| match (&measured.missing, measured.samples.get(turn)) {
            (None, Some(sample)) if self.by_rate => text::rate(sample.per_second()),
            (None, Some(sample)) => text::time(sample.p50_us),
            (Some(missing), _) if measured.samples.len() == turn => format!("n/a ({missing})"),
            _ => "n/a".to_owned(),
        };
        let mut parts: Vec<String> = self.cells.iter().map(value).collect();
        parts.extend(
            self.limit
                .iter()
                .map(|limit| format!("limit {}", value(limit))),
        );
        format!("{}: {}", self.id, parts.join(", "))
    }
}

/// A limit of the machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LimitRow {
    /// What it is.
    pub name: String,
    /// Its samples.
    pub measured: Measured,
}

impl LimitRow {
    /// Without samples yet.
    #[must_use]
    pub fn new(limit: Limit) -> Self {
        Self {
            name: limit.name(),
            measured: Measured::default(),
        }
    }
}

impl Report {
    /// Every reason for a missing number, each once with the rows it is about.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let missing = self.rows.iter().flat_map(|row| {
            let cells = self.backends.iter().zip(&row.cells);
            cells.filter_map(|(backend, cell)| {
                let missing = cell.missing.as_ref()?;
                Some((format!("{}: {missing}", backend.name), row.id.as_str()))
            })
        });
        grouped(missing)
    }

    /// Every limit of a row, each once with its rows.
    #[must_use]
    pub fn bounds(&self) -> Vec<String> {
        let rows = self.rows.iter();
        grouped(rows.filter_map(|row| Some((row.limit_name.clone()?, row.id.as_str()))))
    }

    /// One line for each row in which the first back-end died, hung or broke a rule.
    #[must_use]
    pub fn subject_failures(&self) -> Vec<String> {
        let failed = self.rows.iter().filter_map(|row| {
            let Some(Missing::Failed(why)) = &row.cells.first()?.missing else {
                return None;
            };
            Some(format!(
                "{}: {}: {why}",
                self.backends.first()?.name,
                row.id
            ))
        });
        failed.collect()
    }

    /// The most resident memory, without the guest's, that a back-end had in any row, KiB.
    #[must_use]
    pub fn peak_kib(&self, backend: usize) -> Option<u64> {
        let cells = self.rows.iter().filter_map(|row| row.cells.get(backend));
        cells
            .flat_map(|cell| &cell.samples)
            .filter_map(|sample| sample.own_kib)
            .max()
    }
}

/// Each text once, with the names that came with it.
fn grouped<'a>(pairs: impl Iterator<Item = (String, &'a str)>) -> Vec<String> {
    let mut found: Vec<(String, Vec<&str>)> = Vec::new();
    for (text, name) in pairs {
        match found.iter_mut().find(|(known, _)| *known == text) {
            Some((_, names)) => names.push(name),
            None => found.push((text, vec![name])),
        }
    }
    let lines = found.into_iter();
    lines
        .map(|(text, names)| format!("{text} ({})", names.join(", ")))
        .collect()
}
