//! The one picture: links as rows, cases as columns, as text and as SVG.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::super::pages::MemoryType;
use super::super::report::write_report;
use super::super::{LabError, Result};
use super::cases::{ChainReport, Checked, Found};

/// The rows below the names of the cases.
const ROWS: [&str; 7] = [
    "1 GPU access",
    "2 host mapping",
    "3 memory slot",
    "4 guest told",
    "5 guest mapping",
    "bytes both ways",
    "verdict",
];

/// Characters of the column with the links' names, and of each case's.
const FIRST: usize = 17;
const COLUMN: usize = 13;

/// What the abbreviations mean.
const LEGEND: &str = "WB write-back, WC write-combining, and the page-table bits as QEMU's `info \
                      tlb` shows them (T: PWT, which selects WC on Linux).\n\
                      NPT: KVM's nested page tables; write-back there leaves the type to the \
                      guest's own tables.\n";

/// A cell: two lines.
type Cell = [String; 2];

fn cell(above: impl Into<String>, below: impl Into<String>) -> Cell {
    [above.into(), below.into()]
}

fn short(memory_type: MemoryType) -> &'static str {
    match memory_type {
        MemoryType::WriteBack => "WB",
        MemoryType::UncachedMinus => "UC-",
        MemoryType::WriteCombining => "WC",
        MemoryType::Uncached => "UC",
    }
}

/// A case's column, without its name.
fn column(case: &Checked) -> [Cell; ROWS.len()] {
    let nobody = || cell("no device:", "CPU only");
    match &case.found {
        Found::Mapped(links) => [
            nobody(),
            cell(short(links.host.memory_type), &links.host.flags),
            cell(
                format!("NPT {}", short(links.slot.memory_type)),
                format!("{} pages", links.slot.frames.len()),
            ),
            cell("map_info", links.told.to_string()),
            cell(short(links.guest.memory_type), &links.guest.flags),
            cell(
                if links.bytes_right {
                    "equal"
                } else {
                    "NOT EQUAL"
                },
                "",
            ),
            match links.check() {
                Ok(()) => cell("whole", ""),
                Err(broken) => cell(
                    "BROKEN",
                    broken
                        .link()
                        .map_or("bytes".to_owned(), |link| format!("at link {link}")),
                ),
            },
        ],
        Found::Refused(refused) => [
            nobody(),
            match refused.still_mapped {
                0 => cell("not mapped", ""),
                count => cell(format!("{count} mapped"), ""),
            },
            cell("not mapped", ""),
            cell("map_info", format!("{}, refused", refused.described)),
            cell("not mapped", ""),
            cell("-", ""),
            cell("refused", ""),
        ],
    }
}

impl ChainReport {
    /// All cells: the names' row first, and in each row the name of the link first.
    fn cells(&self) -> Vec<Vec<Cell>> {
        let names = self.cases.iter().map(|case| {
            let (source, what) = case.name.split_once(' ').unwrap_or((&case.name, ""));
            cell(source, what)
        });
        let columns = self.cases.iter().map(column).collect::<Vec<_>>();
        let mut rows = vec![[cell("", "")].into_iter().chain(names).collect()];
        for (number, name) in ROWS.iter().enumerate() {
            let found = columns.iter().filter_map(|column| column.get(number));
            let row = [cell(*name, "")].into_iter().chain(found.cloned());
            rows.push(row.collect());
        }
        rows
    }

    /// The table as text.
    #[must_use]
    pub fn table(&self) -> String {
        let rule = "-".repeat(FIRST + COLUMN * self.cases.len());
        let mut text = String::new();
        for row in self.cells() {
            for line in 0..2 {
                let mut written = String::new();
                for (number, cell) in row.iter().enumerate() {
                    let width = if number == 0 { FIRST } else { COLUMN };
                    let part = cell.get(line).map_or("", String::as_str);
                    written += &format!("{part:width$}");
                }
                if !written.trim().is_empty() {
                    text += written.trim_end();
                    text.push('\n');
                }
            }
            text += &rule;
            text.push('\n');
        }
        text
    }

    /// The table, what the abbreviations mean, and why a case is refused or broken.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = format!("{}{LEGEND}", self.table());
        for case in &self.cases {
            let why = match &case.found {
                Found::Refused(refused) => Some(&refused.reason),
                Found::Mapped(_) => case.broken.as_ref(),
            };
            if let Some(why) = why {
                text += &format!("{}: {why}\n", case.name);
            }
        }
        let [up, first, all] = self.seconds;
        text += &format!(
            "{}, Linux {} in both machines; outer machine up after {up} s, first image after \
             {first} s, all after {all} s\n",
            self.qemu, self.kernel
        );
        text
    }

    /// The table as a picture.
    #[must_use]
    pub fn svg(&self) -> String {
        const WIDTH: usize = 110;
        const HEIGHT: usize = 44;
        let rows = self.cells();
        let (wide, high) = ((self.cases.len() + 1) * WIDTH, rows.len() * HEIGHT);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{wide}\" height=\"{high}\" \
             font-family=\"monospace\" font-size=\"12\">\n"
        );
        for (y, row) in rows.iter().enumerate() {
            for (x, [above, below]) in row.iter().enumerate() {
                let fill = match above.as_str() {
                    _ if x == 0 || y == 0 => "#dddddd",
                    "WC" => "#ffe0a0",
                    "WB" => "#d0e8ff",
                    "whole" | "equal" => "#c8f0c8",
                    "BROKEN" | "NOT EQUAL" => "#ffb0b0",
                    _ => "#ffffff",
                };
                let (left, top) = (x * WIDTH, y * HEIGHT);
                let (text, first, second) = (left + 6, top + 18, top + 36);
                // A `String` takes everything.
                let _never = writeln!(
                    svg,
                    "<rect x=\"{left}\" y=\"{top}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
                     fill=\"{fill}\" stroke=\"#888888\"/>\
                     <text x=\"{text}\" y=\"{first}\">{above}</text>\
                     <text x=\"{text}\" y=\"{second}\">{below}</text>"
                );
            }
        }
        svg + "</svg>\n"
    }

    /// Writes `chain.txt`, `chain.svg` and `chain.json`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).map_err(LabError::context(folder.display()))?;
        for (name, text) in [("chain.txt", self.describe()), ("chain.svg", self.svg())] {
            let path = folder.join(name);
            fs::write(&path, text).map_err(LabError::context(path.display()))?;
        }
        write_report(self, &folder.join("chain.json"))
    }
}
