//! The results for people, in Markdown.

use std::fmt::Write;

use super::{Measurement, Results};

impl Measurement {
    /// What ran where, in one line.
    #[must_use]
    pub fn heading(&self) -> String {
        format!(
            "{}, Linux {}, {}, {}",
            self.qemu, self.kernel, self.accelerator, self.date
        )
    }

    /// The table: a row for each thing drawn, a column for each device.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = format!("{}\n\n| frames per second |", self.heading());
        let mut line = "|---|".to_owned();
        for results in &self.results {
            let _infallible = write!(text, " {} |", results.device.name());
            line.push_str("---:|");
        }
        let _infallible = write!(text, "\n{line}\n");
        for what in self.drawn() {
            let _infallible = write!(text, "| {what} |");
            for results in &self.results {
                let drawn = results.drawn.iter().find(|drawn| drawn.what == what);
                let rate = drawn.and_then(|drawn| drawn.per_second);
                let rate = rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}"));
                let _infallible = write!(text, " {rate} |");
            }
            text.push('\n');
        }
        text.push('\n');
        for results in &self.results {
            let _infallible = writeln!(text, "* {}", line_on(results));
        }
        text
    }

    /// Everything that was drawn on any device, in order.
    fn drawn(&self) -> Vec<&str> {
        let mut all = Vec::new();
        for drawn in self.results.iter().flat_map(|results| &results.drawn) {
            if !all.contains(&drawn.what.as_str()) {
                all.push(&drawn.what);
            }
        }
        all
    }
}

/// What a device is and draws with, or why it has no numbers.
fn line_on(results: &Results) -> String {
    let device = results.device;
    let mut text = format!("{}: {}", device.name(), device.description());
    let renderer = results
        .drawn
        .iter()
        .find_map(|drawn| drawn.renderer.as_ref());
    if let Some(renderer) = renderer {
        let _infallible = write!(text, "; draws with {renderer}");
    }
    for drawn in &results.drawn {
        if drawn.per_second.is_none() {
            let _infallible = write!(text, "; {}: {}", drawn.what, drawn.why.join(" / "));
        }
    }
    if let Some(why) = &results.broken {
        let _infallible = write!(text, "; broken: {}", in_a_line(why));
    }
    text
}

/// The first line of an error, and what QEMU complained of, each thing once.
fn in_a_line(why: &str) -> String {
    let mut parts = Vec::new();
    for line in why.lines() {
        let of_qemu = line
            .trim()
            .strip_prefix("qemu-system-x86_64: ")
            .filter(|line| !line.contains("warning: "));
        let part = match of_qemu {
            Some(line) => format!("QEMU: {}", line.trim_end_matches('.')),
            None if parts.is_empty() => line.to_owned(),
            None => continue,
        };
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::super::{Drawn, Gl};
    use super::*;

    fn results(device: Gl, rate: Option<f64>) -> Results {
        let drawn = Drawn {
            what: "build".to_owned(),
            per_second: rate,
            renderer: Some("virgl".to_owned()),
            picture: None,
            why: vec!["Status(1)".to_owned()],
            kernel: Vec::new(),
            millis: 1,
        };
        Results {
            device,
            features: String::new(),
            renderers: Vec::new(),
            drawn: vec![drawn],
            broken: rate.is_none().then(|| {
                "it broke\n  QEMU:\n  qemu-system-x86_64: warning: old\n  \
                 qemu-system-x86_64: bad.\n  qemu-system-x86_64: bad.\nmore"
                    .to_owned()
            }),
        }
    }

    #[test]
    fn devices_stand_side_by_side_with_reasons_for_what_is_missing() {
        let measurement = Measurement {
            qemu: "QEMU".to_owned(),
            kernel: "7".to_owned(),
            accelerator: "tcg".to_owned(),
            date: "2026-11-21".to_owned(),
            results: vec![results(Gl::Ours, Some(12.34)), results(Gl::InProcess, None)],
        };
        let text = measurement.markdown();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[2..5],
            [
                "| frames per second | ours | in-process |",
                "|---|---:|---:|",
                "| build | 12.3 | - |"
            ]
        );
        assert!(lines[6].ends_with("draws with virgl"), "{text}");
        assert!(
            lines[7].ends_with("build: Status(1); broken: it broke; QEMU: bad"),
            "{text}"
        );
    }
}
