//! The reports of a recorded measurement.

use super::*;
use crate::bench::Missing;
use crate::bench::costs::Each;
use crate::bench::machine::Machine;
use crate::bench::report::{Backend, LimitRow, Skipped};
use crate::bench::svg;

fn sample(p50_us: f64, cpu_us: f64) -> Sample {
    Sample {
        count: 100,
        in_round: 1,
        mean_per_second: 1.0,
        p50_us,
        p99_us: 2.0 * p50_us,
        cpu_us: Some(cpu_us),
        own_kib: Some(3000 + p50_us as u64),
    }
}

fn measured(samples: &[Sample]) -> Measured {
    Measured {
        samples: samples.to_vec(),
        missing: None,
    }
}

fn row(id: &str, by_rate: bool, cells: &[Measured; 2]) -> Row {
    Row {
        id: id.to_owned(),
        title: format!("the {id}"),
        by_rate,
        cells: cells.to_vec(),
        limit_name: None,
        limit: None,
    }
}

/// Two back-ends, three turns.
fn recorded() -> Report {
    let backend = |name: &str| Backend {
        name: name.to_owned(),
        note: "a | note".to_owned(),
    };
    let turns = |values: [f64; 3]| measured(&values.map(|v| sample(v, v / 2.0)));
    let mut slow = row(
        "map",
        false,
        &[turns([10.0, 20.0, 30.0]), Measured::default()],
    );
    slow.cells[1].missing = Some(Missing::Lacks("has no maps".to_owned()));
    slow.limit_name = Some("the machine".to_owned());
    slow.limit = Some(turns([5.0, 5.0, 5.0]));
    let each = Each {
        own_kib: 3600.4,
        anonymous_kib: 400.0,
        pss_kib: 2100.0,
        threads: 8.0,
        descriptors: 30.0,
        cpu_us: 0.0,
    };
    let cost = |backend: &str, count, each| Cost {
        backend: backend.to_owned(),
        count,
        each,
    };
    Report {
        machine: Machine::default(),
        turns: 3,
        seconds: 0.3,
        backends: vec![backend("ours"), backend("theirs")],
        skipped: vec![Skipped {
            name: "third".to_owned(),
            reason: "cannot be built".to_owned(),
        }],
        rows: vec![
            row(
                "one",
                false,
                &[turns([10.0, 20.0, 40.0]), turns([20.0, 50.0, 60.0])],
            ),
            row(
                "many",
                true,
                &[turns([1.0, 1.0, 1.0]), turns([0.5, 0.5, 0.5])],
            ),
            slow,
        ],
        limits: vec![LimitRow {
            name: "eventfd".to_owned(),
            measured: turns([3.0, 2.0, 2.5]),
        }],
        costs: vec![
            cost("ours", 1, Ok(each)),
            cost("theirs", 1, Err(Missing::Failed("died".to_owned()))),
        ],
    }
}

/// The cells of a Markdown line that begins with a name.
fn cells(markdown: &str, name: &str) -> Vec<String> {
    let begin = format!("| {name} |");
    let line = markdown.lines().find(|line| line.starts_with(&begin));
    let line = line.unwrap_or_else(|| panic!("no {name} in {markdown}"));
    line.trim_matches('|')
        .split(" | ")
        .map(|c| c.trim().to_owned())
        .collect()
}

#[test]
fn ratios_are_those_of_each_turn() {
    let text = markdown(&recorded());
    assert_eq!(
        cells(&text, "one"),
        [
            "one",
            "the one",
            "20.0 us, 40.0 us",
            "50.0 us, 100.0 us",
            "2.00 (1.50-2.50)",
            "",
            ""
        ]
    );
    // By rate: twice the rate is twice as fast.
    assert_eq!(
        cells(&text, "many"),
        [
            "many",
            "the many",
            "1.00 M/s",
            "2.00 M/s",
            "0.50 (0.50-0.50)",
            "",
            ""
        ]
    );
    assert_eq!(
        cells(&text, "map"),
        [
            "map",
            "the map",
            "20.0 us, 40.0 us",
            "n/a",
            "n/a",
            "5.00 us, 10.0 us",
            "0.25 (0.17-0.50)"
        ]
    );
}

#[test]
fn what_is_missing_is_explained() {
    let report = recorded();
    for text in [plain(&report), markdown(&report)] {
        assert!(text.contains("n/a: theirs: has no maps (map)."), "{text}");
        assert!(text.contains("n/a: 1 idle theirs: died."), "{text}");
        assert!(text.contains("Skipped: third: cannot be built."), "{text}");
        assert!(text.contains("Limits: the machine (map)."), "{text}");
    }
}

#[test]
fn idle_costs_and_processor_time_have_their_tables() {
    let text = markdown(&recorded());
    let idle = cells(&text, "ours");
    assert_eq!(
        idle,
        ["ours", "1", "3600", "400", "2100", "8", "30", "0", "3040"]
    );
    assert_eq!(cells(&text, "theirs")[..3], ["theirs", "1", "n/a"]);
    let table = text.split("processor time").nth(1).unwrap();
    assert_eq!(
        cells(table, "one"),
        ["one", "the one", "10.0 us", "25.0 us", "2.00 (1.50-2.50)"]
    );
    assert_eq!(cells(&text, "eventfd"), ["eventfd", "2.50 us", "5.00 us"]);
}

#[test]
fn terminal_tables_have_straight_columns() {
    let text = plain(&recorded());
    let table: Vec<&str> = text.lines().skip(2).take(4).collect();
    let end = |line: &str, what: &str| line.find(what).map(|at| at + what.len());
    assert_eq!(end(table[0], "theirs"), end(table[1], "100.0 us"));
    assert_eq!(end(table[0], "theirs"), end(table[2], "2.00 M/s"));
    assert_eq!(table[0].find("what"), table[3].find("the map"));
}

#[test]
fn a_report_survives_json() {
    let report = recorded();
    let text = serde_json::to_string(&report).unwrap();
    let back: Report = serde_json::from_str(&text).unwrap();
    assert_eq!(back, report);
}

#[test]
fn each_comparison_has_a_plot_with_a_bar_for_each_ratio() {
    let plots = svg::plots(&recorded());
    let files: Vec<&str> = plots.iter().map(|plot| plot.file.as_str()).collect();
    assert_eq!(files, ["ratio-theirs.svg", "ratio-limits.svg"]);
    for (plot, bars) in plots.iter().zip([2, 1]) {
        // One rectangle is the background.
        assert_eq!(
            plot.text.matches("<rect").count(),
            bars + 1,
            "{}",
            plot.text
        );
        assert!(plot.text.starts_with("<svg") && plot.text.ends_with("</svg>\n"));
    }
    assert!(plots[0].text.contains(">2.00 (1.50-2.50)<"));
}

#[test]
fn numbers_have_three_places_or_so() {
    assert_eq!(time(9.994), "9.99 us");
    assert_eq!(time(123.44), "123.4 us");
    assert_eq!(time(12_345.0), "12.35 ms");
    assert_eq!(rate(2_345_678.0), "2.35 M/s");
    assert_eq!(rate(2_345.6), "2.3 k/s");
    assert_eq!(rate(23.45), "23.4 /s");
}

#[test]
fn a_failure_of_the_first_is_told_apart_from_a_lack() {
    let mut report = recorded();
    assert_eq!(report.subject_failures(), [""; 0]);
    report.rows[1].cells[0].missing = Some(Missing::Lacks("x".to_owned()));
    assert_eq!(report.subject_failures(), [""; 0]);
    report.rows[1].cells[0].missing = Some(Missing::Failed("died".to_owned()));
    assert_eq!(report.subject_failures(), ["ours: many: died"]);
}
