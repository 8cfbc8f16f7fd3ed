//! Plots of a report: a bar for each ratio on a logarithmic scale, with its spread.

use std::fmt::Write;

use super::report::{Measured, Report, Row};
use super::stats::Spread;
use crate::xml::escaped;

const LINE: f64 = 18.0;
const LABELS: f64 = 400.0;
const WIDTH: f64 = 420.0;
const NUMBERS: f64 = 150.0;
const TOP: f64 = 58.0;

/// A plot: its file's name and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plot {
    /// File name.
    pub file: String,
    /// The SVG.
    pub text: String,
}

/// One plot for each back-end that the first is compared with, and one for the limits.
#[must_use]
pub fn plots(report: &Report) -> Vec<Plot> {
    let first = report.backends.first().map_or("", |b| b.name.as_str());
    let others = report.backends.iter().enumerate().skip(1);
    let against = others.map(|(at, backend)| {
        let title = format!("{first}: times as fast as {}", backend.name);
        let file = format!("ratio-{}.svg", file_name(&backend.name));
        (title, file, bars(report, |row| row.cells.get(at)))
    });
    let limits = (
        format!("{first}: speed as a part of what the machine can do"),
        "ratio-limits.svg".to_owned(),
        bars(report, |row| row.limit.as_ref()),
    );
    against
        .chain([limits])
        .filter(|(_, _, bars)| !bars.is_empty())
        .map(|(title, file, bars)| Plot {
            file,
            text: draw(&title, &report.machine.describe(), &bars),
        })
        .collect()
}

/// Letters that every file system takes.
fn file_name(name: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    name.chars()
        .map(|c| if fits(c) { c } else { '-' })
        .collect()
}

fn bars<'a>(
    report: &'a Report,
    other: impl Fn(&'a Row) -> Option<&'a Measured>,
) -> Vec<(&'a str, Spread)> {
    let bar = |row: &'a Row| Some((row.title.as_str(), row.ratio(other(row)?)?));
    report.rows.iter().filter_map(bar).collect()
}

/// Powers of two around all bars and 1.
fn range(bars: &[(&str, Spread)]) -> (i32, i32) {
    let least = bars.iter().map(|(_, s)| s.min).fold(0.5, f64::min);
    let most = bars.iter().map(|(_, s)| s.max).fold(2.0, f64::max);
    (
        least.max(1e-6).log2().floor() as i32,
        most.min(1e6).log2().ceil() as i32,
    )
}

/// A plot with a `title`, a line of text `below` and a bar for each name.
pub(crate) fn draw(title: &str, below: &str, bars: &[(&str, Spread)]) -> String {
    let (low, high) = range(bars);
    let x = |value: f64| {
        let part = (value.clamp(1e-6, 1e6).log2() - f64::from(low)) / f64::from(high - low);
        LABELS + WIDTH * part
    };
    let height = TOP + LINE * (bars.len() as f64 + 2.0);
    let width = LABELS + WIDTH + NUMBERS;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"10\" y=\"22\" font-size=\"15\">{}</text>\n",
        escaped(title)
    );
    let bottom = TOP + LINE * bars.len() as f64;
    // At most about ten lines with a number.
    let step = ((high - low) / 10 + 1).max(1);
    for power in (low..=high).filter(|power| power % step == 0) {
        let (at, value) = (x(2_f64.powi(power)), 2_f64.powi(power));
        let colour = if power == 0 { "#202020" } else { "#d0d0d0" };
        let _ = writeln!(
            text,
            "<line x1=\"{at:.1}\" y1=\"{:.1}\" x2=\"{at:.1}\" y2=\"{bottom:.1}\" stroke=\"{colour}\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#505050\">{value}</text>",
            TOP - 4.0,
            TOP - 9.0
        );
    }
    for (at, (label, spread)) in bars.iter().enumerate() {
        let y = TOP + LINE * at as f64;
        let (one, end) = (x(1.0), x(spread.median));
        let colour = if spread.median >= 1.0 {
            "#3a7d44"
        } else {
            "#b5651d"
        };
        let middle = y + LINE / 2.0;
        let _ = writeln!(
            text,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>\
             <line x1=\"{:.1}\" y1=\"{middle:.1}\" x2=\"{:.1}\" y2=\"{middle:.1}\" stroke=\"#000000\" \
             stroke-width=\"2\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{:.2} ({:.2}-{:.2})</text>",
            LABELS - 10.0,
            y + LINE - 5.0,
            escaped(label),
            one.min(end),
            y + 3.0,
            (one - end).abs().max(1.0),
            LINE - 6.0,
            x(spread.min),
            x(spread.max),
            LABELS + WIDTH + 10.0,
            y + LINE - 5.0,
            spread.median,
            spread.min,
            spread.max
        );
    }
    let _ = writeln!(
        text,
        "<text x=\"10\" y=\"{:.1}\" font-size=\"10\" fill=\"#505050\">{}</text>\n</svg>",
        bottom + 1.6 * LINE,
        escaped(below)
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(median: f64, min: f64, max: f64) -> Spread {
        Spread { median, min, max }
    }

    #[test]
    fn the_scale_holds_all_bars_and_one() {
        assert_eq!(range(&[("a", spread(1.0, 0.9, 1.1))]), (-1, 1));
        assert_eq!(range(&[("a", spread(5.0, 4.0, 9.0))]), (-1, 4));
        assert_eq!(range(&[("a", spread(0.2, 0.1, 0.3))]), (-4, 1));
        let wild = [("a", spread(f64::INFINITY, 0.0, f64::INFINITY))];
        assert_eq!(range(&wild), (-20, 20));
    }

    #[test]
    fn a_bar_goes_from_one_to_its_median() {
        let text = draw("t & u", "m", &[("<fast>", spread(2.0, 2.0, 2.0))]);
        // 1 is in the middle of the scale from 0.5 to 2.
        assert!(
            text.contains("<rect x=\"610.0\" y=\"61.0\" width=\"210.0\""),
            "{text}"
        );
        assert!(text.contains("&lt;fast&gt;") && text.contains("t &amp; u"));
        let text = draw("t", "m", &[("slow", spread(0.5, 0.5, 0.5))]);
        assert!(
            text.contains("<rect x=\"400.0\" y=\"61.0\" width=\"210.0\""),
            "{text}"
        );
        assert_eq!(file_name("a b/c-1.2"), "a-b-c-1.2");
    }
}
