//! A report for people: a table for the terminal and one in Markdown for the README.

use std::fmt::Write;

use super::costs::Cost;
use super::report::{Measured, Report, Row};
use super::stats::{Sample, Spread};

const NOT_THERE: &str = "n/a";

/// A time for people, from microseconds.
#[must_use]
pub fn time(us: f64) -> String {
    match us {
        _ if us < 10.0 => format!("{us:.2} us"),
        _ if us < 1000.0 => format!("{us:.1} us"),
        _ => format!("{:.2} ms", us / 1e3),
    }
}

/// A rate for people.
#[must_use]
pub fn rate(per_second: f64) -> String {
    match per_second {
        _ if per_second >= 1e6 => format!("{:.2} M/s", per_second / 1e6),
        _ if per_second >= 1e3 => format!("{:.1} k/s", per_second / 1e3),
        _ => format!("{per_second:.1} /s"),
    }
}

fn ratio(spread: Option<Spread>) -> String {
    let Some(Spread { median, min, max }) = spread else {
        return NOT_THERE.to_owned();
    };
    format!("{median:.2} ({min:.2}-{max:.2})")
}

fn value(row: &Row, measured: &Measured) -> String {
    let median = |number: fn(&Sample) -> f64| measured.spread(|sample| Some(number(sample)));
    if row.by_rate {
        return median(Sample::per_second).map_or(NOT_THERE.to_owned(), |s| rate(s.median));
    }
    match (median(|s| s.p50_us), median(|s| s.p99_us)) {
        (Some(p50), Some(p99)) => format!("{}, {}", time(p50.median), time(p99.median)),
        _ => NOT_THERE.to_owned(),
    }
}

/// The first line of a table and all others.
struct Table {
    /// Whether the second column holds texts too.
    two_texts: bool,
    heads: Vec<String>,
    lines: Vec<Vec<String>>,
}

impl Table {
    fn new(heads: &[&str]) -> Self {
        Self {
            two_texts: false,
            heads: heads.iter().map(ToString::to_string).collect(),
            lines: Vec::new(),
        }
    }

    /// With two columns of texts in front.
    fn texts(first: &str, second: &str) -> Self {
        Self {
            two_texts: true,
            ..Self::new(&[first, second])
        }
    }

    /// For a terminal: columns of equal width, the first to the left, the others to the right.
    fn plain(&self) -> String {
        let all = || [&self.heads].into_iter().chain(&self.lines);
        let width = |at: usize| {
            let cells = all().filter_map(|line| line.get(at));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let mut text = String::new();
        for line in all() {
            let cells = line.iter().enumerate().map(|(at, cell)| match at {
                0 => format!("{cell:<0$}", width(at)),
                // A text; all others are numbers.
                1 if self.two_texts => format!("  {cell:<0$}", width(at)),
                _ => format!("  {cell:>0$}", width(at)),
            });
            let _ = writeln!(text, "{}", cells.collect::<String>().trim_end());
        }
        text
    }

    fn markdown(&self) -> String {
        let mut text = String::new();
        let line = |cells: &[String]| {
            let cells = cells.iter().map(|cell| cell.replace('|', "\\|"));
            format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
        };
        text += &line(&self.heads);
        let rule = self.heads.iter().enumerate();
        text += &line(
            &rule
                .map(|(at, _)| match at {
                    0 => "---".to_owned(),
                    1 if self.two_texts => "---".to_owned(),
                    _ => "---:".to_owned(),
                })
                .collect::<Vec<_>>(),
        );
        self.lines.iter().for_each(|cells| text += &line(cells));
        text
    }
}

/// What was measured, and how the first back-end compares.
fn rows(report: &Report) -> Table {
    let mut table = Table::texts("row", "what");
    table.heads.extend(names_and_ratios(report));
    table.heads.extend(["limit".to_owned(), "ratio".to_owned()]);
    for row in &report.rows {
        let mut line = vec![row.id.clone(), row.title.clone()];
        for (at, cell) in row.cells.iter().enumerate() {
            line.push(value(row, cell));
            if at > 0 {
                line.push(ratio(row.ratio(cell)));
            }
        }
        match &row.limit {
            Some(limit) => line.extend([value(row, limit), ratio(row.ratio(limit))]),
            None => line.extend([String::new(), String::new()]),
        }
        table.lines.push(line);
    }
    table
}

/// The names of the back-ends, each but the first with a ratio behind it.
fn names_and_ratios(report: &Report) -> Vec<String> {
    let mut heads = Vec::new();
    for (at, backend) in report.backends.iter().enumerate() {
        heads.push(backend.name.clone());
        if at > 0 {
            heads.push("ratio".to_owned());
        }
    }
    heads
}

/// Processor time of the back-ends.
fn processor(report: &Report) -> Table {
    let mut table = Table::texts("row", "processor time for one");
    table.heads.extend(names_and_ratios(report));
    for row in &report.rows {
        let mut line = vec![row.id.clone(), row.title.clone()];
        for (at, cell) in row.cells.iter().enumerate() {
            let spread = cell.spread(|sample| sample.cpu_us);
            line.push(spread.map_or(NOT_THERE.to_owned(), |spread| time(spread.median)));
            if at > 0 {
                line.push(ratio(row.cpu_ratio(cell)));
            }
        }
        table.lines.push(line);
    }
    table
}

fn limits(report: &Report) -> Table {
    let mut table = Table::new(&["limits of the machine", "median", "99 %"]);
    for row in &report.limits {
        let number = |number: fn(&Sample) -> f64| {
            let spread = row.measured.spread(|sample| Some(number(sample)));
            spread.map_or(NOT_THERE.to_owned(), |spread| time(spread.median))
        };
        let line = vec![row.name.clone(), number(|s| s.p50_us), number(|s| s.p99_us)];
        table.lines.push(line);
    }
    table
}

fn costs(report: &Report) -> Table {
    let mut table = Table::new(&[
        "idle, each with a front-end",
        "how many",
        "RSS KiB",
        "anonymous KiB",
        "PSS KiB",
        "threads",
        "descriptors",
        "CPU us/s",
        "largest RSS KiB in any row",
    ]);
    for Cost {
        backend,
        count,
        each,
    } in &report.costs
    {
        let mut line = vec![backend.clone(), count.to_string()];
        match each {
            Ok(each) => {
                let numbers = [
                    each.own_kib,
                    each.anonymous_kib,
                    each.pss_kib,
                    each.threads,
                    each.descriptors,
                    each.cpu_us,
                ];
                line.extend(numbers.map(|number| format!("{number:.0}")));
            }
            Err(_) => line.extend(vec![NOT_THERE.to_owned(); 6]),
        }
        let at = report.backends.iter().position(|b| b.name == *backend);
        let peak = at
            .filter(|_| *count == 1)
            .and_then(|at| report.peak_kib(at));
        line.push(peak.map_or_else(String::new, |kib| kib.to_string()));
        table.lines.push(line);
    }
    table
}

/// What to know when reading, one line each.
fn notes(report: &Report) -> Vec<String> {
    let first = report.backends.first().map_or("", |b| b.name.as_str());
    let mut notes = vec![
        format!(
            "Times are the median and the 99th percentile of one, rates those of the median round, \
             each the median over {} turns of {} s.",
            report.turns, report.seconds
        ),
        format!(
            "A ratio says how many times as fast {first} was, in the median turn, and in the least \
             and the greatest: above 1 it was faster. Rows compare answered commands; \
             \"until displayed\" also waits for the display to have read all pixels. The ratios of \
             processor time say how many times as much the other took; what else runs on the \
             machine disturbs them least."
        ),
    ];
    if report.rows.iter().any(|row| row.id.contains("map-")) {
        let text = "A blob is mapped and unmapped by turns: the processor time in the rows of either is that \
                    of one of each.";
        notes.push(text.to_owned());
    }
    let named = report.backends.iter().filter(|b| !b.note.is_empty());
    notes.extend(named.map(|b| format!("{}: {}.", b.name, b.note)));
    let bounds = report.bounds();
    if !bounds.is_empty() {
        notes.push(format!("Limits: {}.", bounds.join("; ")));
    }
    notes.extend(report.reasons().iter().map(|r| format!("n/a: {r}.")));
    let idle = report.costs.iter();
    notes.extend(idle.filter_map(|cost| {
        let missing = cost.each.as_ref().err()?;
        Some(format!(
            "n/a: {} idle {}: {missing}.",
            cost.count, cost.backend
        ))
    }));
    let skipped = report.skipped.iter();
    notes.extend(skipped.map(|s| format!("Skipped: {}: {}.", s.name, s.reason)));
    notes
}

/// For a terminal.
#[must_use]
pub fn plain(report: &Report) -> String {
    let tables = [
        rows(report),
        processor(report),
        limits(report),
        costs(report),
    ];
    let tables = tables.map(|table| table.plain()).join("\n");
    let notes = notes(report).join("\n");
    format!("{}\n\n{tables}\n{notes}\n", report.machine.describe())
}

/// For the README: generated, not to be edited.
#[must_use]
pub fn markdown(report: &Report) -> String {
    let tables = [
        rows(report),
        processor(report),
        limits(report),
        costs(report),
    ];
    let tables = tables.map(|table| table.markdown()).join("\n");
    let notes = notes(report);
    let notes: String = notes.iter().map(|note| format!("- {note}\n")).collect();
    let machine = report.machine.describe();
    format!(
        "<!-- made by cargo nosnoop-bench, not to be edited -->\n{machine}\n\n{tables}\n{notes}"
    )
}

#[cfg(test)]
mod tests;
