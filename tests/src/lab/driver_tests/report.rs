//! The driver tests' results for people: text for the terminal, Markdown, and a page of HTML.

use std::fmt::Write;

use super::explained::{Explanation, Explanations, needs_one};
use super::list::List;
use super::verdict::Verdict;
use super::{Comparison, LeftOut};
use crate::xml::escaped;

/// A test that needs an explanation, and what it got.
struct Remarkable<'a> {
    test: &'a str,
    verdicts: Vec<Verdict>,
    explanation: Option<&'a Explanation>,
}

impl Remarkable<'_> {
    /// Whose doing it is, and why.
    fn reason(&self) -> (&str, &str) {
        match self.explanation {
            Some(explanation) => (explanation.whose.name(), &explanation.why),
            None => ("?", "not explained"),
        }
    }
}

/// The results with everything that explains them.
pub struct Report<'a> {
    comparison: &'a Comparison,
    explanations: &'a Explanations,
    left_out: &'a [LeftOut],
}

impl<'a> Report<'a> {
    /// A report on `comparison`.
    #[must_use]
    pub fn new(comparison: &'a Comparison, explanations: &'a Explanations, list: &'a List) -> Self {
        Self {
            comparison,
            explanations,
            left_out: &list.left_out,
        }
    }

    fn remarkable(&self) -> Vec<Remarkable<'a>> {
        let tests = self.comparison.tests.iter().enumerate();
        let all = tests.map(|(index, test)| Remarkable {
            test,
            verdicts: self.comparison.verdicts(index),
            explanation: self.explanations.of(test),
        });
        all.filter(|test| needs_one(&test.verdicts)).collect()
    }

    /// What ran where, in one line.
    fn heading(&self) -> String {
        let Comparison {
            qemu,
            kernel,
            accelerator,
            date,
            ..
        } = self.comparison;
        let tests = self.comparison.tests.len();
        let broken = self.comparison.broken.iter();
        let broken = broken.map(|why| format!("; broken off: {why}"));
        format!(
            "{tests} tests, guest Linux {kernel}, {qemu}, accelerator {accelerator}, {date}{}",
            broken.collect::<String>()
        )
    }

    /// The number of each verdict, for each device: name, counts, machines and seconds.
    fn counts(&self) -> Vec<Vec<String>> {
        let results = self.comparison.results.iter();
        let row = |results: &super::Results| {
            let mut row = vec![results.column.name().to_owned()];
            for verdict in Verdict::ALL {
                let of = |outcome: &&super::Outcome| outcome.verdict == verdict;
                row.push(results.outcomes.iter().filter(of).count().to_string());
            }
            row.push(results.machines.to_string());
            row.push(results.seconds.to_string());
            row.push(results.column.description().to_owned());
            row
        };
        results.map(row).collect()
    }

    fn count_table(&self) -> Part {
        Part::Table {
            head: COUNTS.map(str::to_owned).to_vec(),
            rows: self.counts(),
        }
    }

    /// The counts alone, as Markdown.
    #[must_use]
    pub fn summary(&self) -> String {
        let remarkable = self.remarkable();
        let explained = remarkable.iter().filter(|test| test.explanation.is_some());
        let words = format!(
            "Tests that fail, make the kernel complain or differ: {}, of them explained: {}.\n",
            remarkable.len(),
            explained.count()
        );
        Part::Paragraph(self.heading()).markdown() + &self.count_table().markdown() + &words
    }

    /// For the terminal.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = self.heading() + "\n\n";
        let row = |cells: &[String]| {
            let mut line = format!("{:<12}", cells.first().map_or("", String::as_str));
            for cell in cells.iter().take(COUNTS.len() - 1).skip(1) {
                let _ = write!(line, "{cell:>10}");
            }
            line + "\n"
        };
        text += &row(&COUNTS.map(str::to_owned));
        for cells in self.counts() {
            text += &row(&cells);
        }
        text += "\n";
        for test in self.remarkable() {
            let (whose, why) = test.reason();
            let verdicts = test.verdicts.iter().map(|verdict| format!("{verdict:<6}"));
            let verdicts = verdicts.collect::<String>();
            let _ = writeln!(text, "{verdicts}{}\n    {whose}: {why}", test.test);
        }
        text
    }

    /// The whole report as tables with headings and paragraphs, in order.
    fn parts(&self) -> Vec<Part> {
        let columns = self.comparison.columns();
        let names = columns.iter().map(|column| column.name().to_owned());
        let names = names.collect::<Vec<_>>();
        let mut parts = vec![
            Part::Heading("Driver tests".to_owned()),
            Part::Paragraph(self.heading()),
            self.count_table(),
            Part::Heading("Failures and differences".to_owned()),
        ];
        let rows = self.remarkable().into_iter().map(|test| {
            let (whose, why) = test.reason();
            let verdicts = test.verdicts.iter().map(Verdict::to_string);
            let row = [test.test.to_owned()].into_iter().chain(verdicts);
            row.chain([whose.to_owned(), why.to_owned()]).collect()
        });
        let head = |more: &[&str]| {
            let head = ["test".to_owned()].into_iter().chain(names.clone());
            head.chain(more.iter().map(ToString::to_string)).collect()
        };
        parts.push(Part::Table {
            head: head(&["whose", "why"]),
            rows: rows.collect(),
        });
        parts.push(Part::Heading("All tests".to_owned()));
        let rows = self
            .comparison
            .tests
            .iter()
            .enumerate()
            .map(|(index, test)| {
                let outcomes = self.comparison.results.iter();
                let outcomes = outcomes.filter_map(|results| results.outcomes.get(index));
                let outcomes = outcomes.collect::<Vec<_>>();
                let verdicts = outcomes.iter().map(|outcome| outcome.verdict.to_string());
                let mut why = outcomes.iter().map(|outcome| outcome.why.as_str());
                let why = why.find(|why| !why.is_empty()).unwrap_or_default();
                let row = [test.clone()].into_iter().chain(verdicts);
                row.chain([why.to_owned()]).collect()
            });
        parts.push(Part::Table {
            head: head(&["first reason"]),
            rows: rows.collect(),
        });
        parts.push(Part::Heading("Left out".to_owned()));
        let rows = self.left_out.iter();
        let rows = rows.map(|left| vec![left.tests.join(" "), left.why.clone()]);
        parts.push(Part::Table {
            head: vec!["tests".to_owned(), "why".to_owned()],
            rows: rows.collect(),
        });
        if !self.comparison.unlisted.is_empty() {
            parts.push(Part::Heading(
                "In the packages, but not in the list".to_owned(),
            ));
            parts.push(Part::Paragraph(self.comparison.unlisted.join(" ")));
        }
        parts
    }

    /// As Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        self.parts().iter().map(Part::markdown).collect()
    }

    /// As a page of HTML without references to anything else.
    #[must_use]
    pub fn html(&self) -> String {
        let body = self.parts().iter().map(Part::html).collect::<String>();
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <title>Driver tests</title><style>{STYLE}</style></head>\n<body>\n{body}</body></html>\n"
        )
    }
}

/// The columns of the first table.
const COUNTS: [&str; 8] = [
    "device",
    "PASS",
    "WARN",
    "FAIL",
    "SKIP",
    "machines",
    "seconds",
    "what it is",
];

const STYLE: &str = "body{font-family:sans-serif;margin:2em}table{border-collapse:collapse}\
                     td,th{border:1px solid #ccc;padding:2px 8px;text-align:left;\
                     vertical-align:top}.PASS{background:#dfd}.FAIL{background:#fcc}\
                     .WARN{background:#fe9}.SKIP{background:#eee}";

/// A piece of a report.
enum Part {
    Heading(String),
    Paragraph(String),
    Table {
        head: Vec<String>,
        rows: Vec<Vec<String>>,
    },
}

impl Part {
    fn markdown(&self) -> String {
        match self {
            Self::Heading(text) => format!("## {text}\n\n"),
            Self::Paragraph(text) => format!("{text}\n\n"),
            Self::Table { head, rows } => {
                let line = |cells: &Vec<String>| {
                    let cells = cells.iter().map(|cell| cell.replace('|', "\\|"));
                    format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
                };
                let rule = format!("|{}\n", "---|".repeat(head.len()));
                line(head) + &rule + &rows.iter().map(line).collect::<String>() + "\n"
            }
        }
    }

    fn html(&self) -> String {
        match self {
            Self::Heading(text) => format!("<h2>{}</h2>\n", escaped(text)),
            Self::Paragraph(text) => format!("<p>{}</p>\n", escaped(text)),
            Self::Table { head, rows } => {
                let head = head
                    .iter()
                    .map(|cell| format!("<th>{}</th>", escaped(cell)));
                let row = |row: &Vec<String>| {
                    let cells = row.iter().map(|cell| {
                        let verdict = Verdict::ALL.iter().any(|v| v.to_string() == *cell);
                        let class = match verdict {
                            true => format!(" class=\"{cell}\""),
                            false => String::new(),
                        };
                        format!("<td{class}>{}</td>", escaped(cell))
                    });
                    format!("<tr>{}</tr>\n", cells.collect::<String>())
                };
                let head = head.collect::<String>();
                let rows = rows.iter().map(row).collect::<String>();
                format!("<table>\n<tr>{head}</tr>\n{rows}</table>\n")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Column;
    use super::super::tests::comparison;
    use super::*;
    use crate::lab::report::{read_report, write_report};

    #[test]
    fn what_was_written_is_read_back() {
        let mut written = comparison(&[Column::HostBlobs], &[("a", &[Verdict::Warn])]);
        written.broken = Some("qemu: no guest".to_owned());
        let file = tempfile::NamedTempFile::new().unwrap();
        write_report(&written, file.path()).unwrap();
        let read: Comparison = read_report(file.path()).unwrap();
        let (list, none) = (List::fixed().unwrap(), Explanations::none());
        let page = |comparison| Report::new(comparison, &none, &list).markdown();
        assert_eq!(page(&read), page(&written));
        assert!(page(&read).contains("; broken off: qemu: no guest\n"));
    }

    #[test]
    fn a_report_shows_counts_differences_and_what_is_left_out() {
        use Verdict::{Fail, Pass, Skip};
        let mut comparison = comparison(
            &[Column::Ours, Column::Qemu],
            &[("a", &[Fail, Pass]), ("b", &[Skip, Skip])],
        );
        comparison.unlisted.push("c@new".to_owned());
        let list = List::parse(
            "igt = []\ncommand = []\n[[left_out]]\ntests = [\"d|*\"]\nwhy = \"<no & no>\"\n",
        );
        let list = list.unwrap();
        let explanations = Explanations::none();
        let report = Report::new(&comparison, &explanations, &list);
        let text = report.text();
        assert!(
            text.contains("FAIL  PASS  a\n    ?: not explained\n"),
            "{text}"
        );
        assert!(!text.contains("  b\n"), "{text}");
        let markdown = report.markdown();
        for line in [
            "| ours | 0 | 0 | 1 | 1 | 1 | 9 |",
            "| a | FAIL | PASS | ? | not explained |",
            "| b | SKIP | SKIP | because |",
            "| d\\|* | <no & no> |",
            "c@new",
        ] {
            assert!(markdown.contains(line), "{line} is not in\n{markdown}");
        }
        let summary = report.summary();
        for line in [
            "| ours | 0 | 0 | 1 | 1 | 1 | 9 |",
            "differ: 1, of them explained: 0.\n",
        ] {
            assert!(summary.contains(line), "{line} is not in\n{summary}");
        }
        assert!(!summary.contains("| a |"), "{summary}");
        let html = report.html();
        for piece in [
            "<td class=\"FAIL\">FAIL</td>",
            "<td>&lt;no &amp; no&gt;</td>",
        ] {
            assert!(html.contains(piece), "{piece} is not in\n{html}");
        }
    }
}
