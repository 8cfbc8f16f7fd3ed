//! Bar charts as SVG: a group of bars for each quantity, one bar for each backend.

use std::fmt::Write;

use crate::bench::stats::Spread;
use crate::xml::escaped;

/// Pixels.
const WIDTH: f64 = 860.0;
const LEFT: f64 = 170.0;
const BAR: f64 = 16.0;
const GAP: f64 = 10.0;
const HEAD: f64 = 54.0;

/// Colours that differ in brightness, too.
const COLOURS: [&str; 4] = ["#1b6ca8", "#f0a202", "#7d8491", "#2a9d4e"];

/// A quantity: its name, and a bar for each series, where there is one.
pub type Group = (String, Vec<Option<Spread>>);

/// A chart of `groups`, whose values are relative to those of the first series in the same group: its
/// bars end at 1. `series` names the bars.
#[must_use]
pub fn bars(title: &str, series: &[String], groups: &[Group]) -> String {
    let tall = |group: &Group| group.1.len() as f64 * BAR + GAP;
    let height = HEAD + groups.iter().map(tall).sum::<f64>() + GAP;
    let values = groups.iter().flat_map(|(_, bars)| bars.iter().flatten());
    let most = values.fold(1.0, |most: f64, bar| most.max(bar.max));
    let x = |value: f64| LEFT + value / most * (WIDTH - LEFT - 60.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" \
         fill=\"white\"/>\n<text x=\"8\" y=\"18\" font-size=\"14\">{}</text>\n",
        escaped(title)
    );
    let mut at = 8.0;
    for (name, colour) in series.iter().zip(COLOURS.iter().cycle()) {
        let _ = writeln!(
            svg,
            "<rect x=\"{at}\" y=\"28\" width=\"12\" height=\"12\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"38\">{}</text>",
            at + 16.0,
            escaped(name)
        );
        at += 30.0 + 8.0 * name.len() as f64;
    }
    let mut y = HEAD;
    for (name, bars) in groups {
        let middle = y + bars.len() as f64 * BAR / 2.0 + 4.0;
        let _ = writeln!(svg, "<text x=\"8\" y=\"{middle}\">{}</text>", escaped(name));
        for (bar, colour) in bars.iter().zip(COLOURS.iter().cycle()) {
            if let Some(bar) = bar {
                let line = y + BAR / 2.0;
                let _ = writeln!(
                    svg,
                    "<rect x=\"{LEFT}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" \
                     fill=\"{colour}\"/><path d=\"M{:.1} {line}H{:.1}\" stroke=\"black\"/>\
                     <text x=\"{:.1}\" y=\"{:.1}\">{:.2}</text>",
                    y + 1.0,
                    x(bar.median) - LEFT,
                    BAR - 2.0,
                    x(bar.min),
                    x(bar.max),
                    x(bar.max) + 6.0,
                    line + 4.0,
                    bar.median
                );
            }
            y += BAR;
        }
        y += GAP;
    }
    svg + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_values() {
        let bar = |median: f64| {
            Some(Spread {
                median,
                min: median * 0.5,
                max: median,
            })
        };
        let groups = [("a<b".to_owned(), vec![bar(1.0), bar(0.5), None])];
        let series = ["x", "y", "z"].map(str::to_owned);
        let svg = bars("A & B", &series, &groups);
        // The longest takes all the place, the other half of it; what is not there has no bar.
        let place = WIDTH - LEFT - 60.0;
        for length in [place, place / 2.0] {
            assert!(svg.contains(&format!("width=\"{length:.1}\"")), "{svg}");
        }
        assert_eq!(svg.matches("<path").count(), 2);
        assert!(svg.contains("A &amp; B") && svg.contains("a&lt;b"), "{svg}");
    }
}
