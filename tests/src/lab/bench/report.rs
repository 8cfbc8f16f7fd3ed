//! What a bench found, for people: tables and charts.

use super::{Measurement, Turn};
use crate::bench::stats::Spread;
use crate::bench::svg::draw;

/// Finds a quantity in a turn that has it.
type Value<'a> = dyn Fn(&Turn) -> Option<f64> + 'a;

/// A quantity and how to find it in a turn.
struct Row<'a> {
    what: String,
    digits: usize,
    value: Box<Value<'a>>,
}

impl<'a> Row<'a> {
    fn new(what: &str, digits: usize, value: impl Fn(&Turn) -> Option<f64> + 'a) -> Self {
        Self {
            what: what.to_owned(),
            digits,
            value: Box::new(value),
        }
    }
}

/// Each value once, in the order of its first appearance.
fn distinct<'a>(values: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut found = Vec::new();
    for value in values {
        if !found.contains(&value) {
            found.push(value);
        }
    }
    found
}

impl Measurement {
    fn backends(&self) -> Vec<&str> {
        distinct(self.turns.iter().map(|turn| turn.backend.as_str()))
    }

    /// The names of the rates.
    fn names(&self) -> Vec<&str> {
        let rates = self.turns.iter().flat_map(|turn| &turn.rates);
        distinct(rates.map(|rate| rate.what.as_str()))
    }

    /// The turns of one backend.
    fn of<'a>(&'a self, backend: &'a str) -> impl Iterator<Item = &'a Turn> {
        let turns = self.turns.iter();
        turns.filter(move |turn| turn.backend == backend)
    }

    /// Each turn's rate relative to that of the first backend in the same turn; the middle, least and
    /// most of them.
    fn ratio(&self, backend: &str, name: &str) -> Option<Spread> {
        let first = *self.backends().first()?;
        let ratios = self.of(backend).filter_map(|turn| {
            let base = self.of(first).find(|base| base.turn == turn.turn)?;
            Some(turn.per_second(name)? / base.per_second(name)?)
        });
        Spread::of(ratios)
    }

    fn rows(&self) -> Vec<Row<'_>> {
        let mut rows = vec![Row::new("QEMU start to driver, ms", 0, |turn| {
            Some(turn.boot.driver_ms as f64)
        })];
        for name in self.names() {
            let rate = move |turn: &Turn| turn.rates.iter().find(|rate| rate.what == name).cloned();
            rows.extend([
                Row::new(&format!("{name}, per s"), 1, move |turn| {
                    turn.per_second(name)
                }),
                Row::new(&format!("{name}, backend CPU us each"), 1, move |turn| {
                    let rate = rate(turn)?;
                    Some(rate.backend_cpu_nanos? as f64 / 1e3 / rate.count as f64)
                }),
                Row::new(&format!("{name}, all CPU us each"), 1, move |turn| {
                    let rate = rate(turn)?;
                    Some(rate.all_cpu_nanos as f64 / 1e3 / rate.count as f64)
                }),
            ]);
        }
        rows.extend([
            Row::new("RSS before any guest, KiB", 0, |turn| {
                Some(turn.idle.fresh?.own_kib() as f64)
            }),
            Row::new(
                "RSS with an idle guest, without its memory, KiB",
                0,
                |turn| Some(turn.idle.usage?.own_kib() as f64),
            ),
            Row::new("  of it anonymous: pictures, mostly, KiB", 0, |turn| {
                Some(turn.idle.usage?.anonymous_kib as f64)
            }),
            Row::new("CPU with an idle guest, us in 5 s", 0, |turn| {
                Some((turn.idle.cpu_nanos? / 1000) as f64)
            }),
        ]);
        rows
    }

    /// The table: a head, then one line per quantity with one column per backend, medians over the
    /// turns, and for the rates of all backends but the first the ratio to it.
    fn cells(&self) -> Vec<Vec<String>> {
        let backends = self.backends();
        let head = [String::new()].into_iter();
        let head = head.chain(backends.iter().map(ToString::to_string));
        let mut table = vec![head.collect::<Vec<_>>()];
        for row in self.rows() {
            let cells = backends.iter().map(|backend| {
                let digits = row.digits;
                let value = Spread::of(self.of(backend).filter_map(&row.value));
                value.map_or("-".to_owned(), |value| format!("{:.digits$}", value.median))
            });
            table.push([row.what.clone()].into_iter().chain(cells).collect());
            if let Some(name) = row.what.strip_suffix(", per s") {
                table.push(self.ratio_cells(name, &backends));
            }
        }
        table
    }

    /// The line with the ratios of a rate.
    fn ratio_cells(&self, name: &str, backends: &[&str]) -> Vec<String> {
        let cells =
            backends
                .iter()
                .enumerate()
                .map(|(index, backend)| match self.ratio(backend, name) {
                    Some(Spread { median, min, max }) if index > 0 => {
                        format!("{median:.2} ({min:.2}-{max:.2})")
                    }
                    _ => String::new(),
                });
        let what = "  relative to the first, middle (least-most)".to_owned();
        [what].into_iter().chain(cells).collect()
    }

    /// Where and when, in one line.
    #[must_use]
    pub fn heading(&self) -> String {
        format!(
            "{}, Linux {}, {}, host {}, {}",
            self.qemu, self.kernel, self.accelerator, self.processor, self.date
        )
    }

    /// The table for the terminal.
    #[must_use]
    pub fn table(&self) -> String {
        let cells = self.cells();
        let widths = cells.iter().map(|row| row.first().map_or(0, String::len));
        let first = widths.max().unwrap_or(0);
        let line = |row: &Vec<String>| {
            let mut cells = row.iter();
            let what = cells.next().map_or("", String::as_str);
            let rest = cells.map(|cell| format!("{cell:>24}"));
            format!("{what:first$}{}\n", rest.collect::<String>())
        };
        cells.iter().map(line).collect()
    }

    /// The table with where and how it was made, as Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let line = |row: &Vec<String>| format!("| {} |\n", row.join(" | "));
        let mut rows = self.cells().into_iter();
        let head = rows.next().unwrap_or_default();
        let body = rows.map(|row| line(&row)).collect::<String>();
        let rule = format!("|---|{}\n", "---:|".repeat(head.len().saturating_sub(1)));
        let turns = self.turns.iter().map(|turn| turn.turn + 1).max();
        let emulated = match self.accelerator.as_str() {
            "tcg" => " The guest's processor is emulated: the numbers compare back-ends, no more.",
            _ => "",
        };
        format!(
            "{}\n\n{}{rule}{body}\nMedians of {} turns.{emulated}\n",
            self.heading(),
            line(&head),
            turns.unwrap_or_default()
        )
    }

    /// The rates of all backends but the first relative to that one's, as a chart.
    #[must_use]
    pub fn chart(&self) -> String {
        let backends = self.backends();
        let (first, others) = backends.split_first().unwrap_or((&"", &[]));
        let mut bars = Vec::new();
        for name in self.names() {
            for other in others {
                let ratio = self.ratio(other, name);
                bars.extend(ratio.map(|ratio| (format!("{name}: {other}"), ratio)));
            }
        }
        let bars: Vec<_> = bars.iter().map(|(name, bar)| (&**name, *bar)).collect();
        let title = format!("Rates in the guest: times as fast as {first}");
        draw(&title, &self.heading(), &bars)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BootTimes, Idle, Rate};
    use super::*;
    use crate::lab::report::{read_report, write_report};

    fn turn(backend: &str, turn: u32, per_second: f64) -> Turn {
        let rate = Rate {
            what: "update".to_owned(),
            count: 10,
            per_second,
            backend_cpu_nanos: (backend == "a").then_some(50_000),
            all_cpu_nanos: 90_000,
        };
        let idle = Idle {
            fresh: None,
            usage: None,
            cpu_nanos: None,
            watched_ms: 5000,
        };
        Turn {
            backend: backend.to_owned(),
            turn,
            boot: BootTimes::default(),
            rates: vec![rate],
            idle,
        }
    }

    fn measurement() -> Measurement {
        let turns = [
            ("a", 0, 5.0),
            ("b", 0, 70.0),
            ("a", 1, 100.0),
            ("b", 1, 80.0),
            ("a", 2, 6.0),
            ("b", 2, 3.0),
        ];
        Measurement {
            qemu: "QEMU".to_owned(),
            accelerator: "tcg".to_owned(),
            kernel: "7".to_owned(),
            date: "2026-11-21".to_owned(),
            processor: "2 x some".to_owned(),
            turns: turns
                .map(|(name, number, rate)| turn(name, number, rate))
                .to_vec(),
        }
    }

    #[test]
    fn the_table_shows_medians_and_ratios_of_the_same_turn() {
        let text = measurement().table();
        let line = |what: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(what));
            let words = line.unwrap().split_whitespace().map(str::to_owned);
            words.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(line(" "), "a b");
        assert_eq!(line("update, per s"), "6.0 70.0");
        assert_eq!(line("update, backend CPU us each"), "5.0 -");
        assert_eq!(line("update, all CPU us each"), "9.0 9.0");
        let ratio = line("  relative to the first, middle (least-most)");
        assert_eq!(ratio, "0.80 (0.50-14.00)");
    }

    #[test]
    fn what_was_written_is_read_back() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let written = measurement();
        write_report(&written, file.path()).unwrap();
        let read: Measurement = read_report(file.path()).unwrap();
        assert_eq!(read.markdown(), written.markdown());
    }

    #[test]
    fn markdown_and_chart_have_every_backend() {
        let measurement = measurement();
        let text = measurement.markdown();
        assert!(text.contains("\n|  | a | b |\n|---|---:|---:|\n"), "{text}");
        assert!(text.contains("| update, per s | 6.0 | 70.0 |"), "{text}");
        assert!(text.contains("\nMedians of 3 turns. The guest's"), "{text}");
        let chart = measurement.chart();
        assert!(
            chart.contains(">update: b</text>") && chart.contains(">0.80 (0.50-14.00)</text>"),
            "{chart}"
        );
        assert!(!chart.contains(">update: a</text>"), "{chart}");
    }
}
