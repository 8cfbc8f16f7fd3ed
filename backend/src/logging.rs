//! Log lines on standard error.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use log::{LevelFilter, Log, Metadata, Record};

/// Lines per [`WINDOW`]. A guest can cause lines as fast as it can send bad commands; nobody reads
/// more than this, and the rest must not fill somebody's disk. Lines left out are counted.
const LINES_PER_WINDOW: u32 = 200;

/// Characters per line. Libraries log whole shaders, which a guest has written.
const MOST_PER_LINE: usize = 1000;

/// The time over which [`LINES_PER_WINDOW`] counts.
const WINDOW: Duration = Duration::from_secs(5);

struct Stderr {
    limiter: Mutex<Limiter>,
}

/// Sends lines up to `level` to standard error. Debug and trace are for people who look for
/// something and get every line. To be called once.
pub fn to_stderr(level: LevelFilter) {
    let limiter = Limiter {
        limited: level <= LevelFilter::Info,
        ..Limiter::new(Instant::now())
    };
    let logger = Box::new(Stderr {
        limiter: Mutex::new(limiter),
    });
    if log::set_boxed_logger(logger).is_ok() {
        log::set_max_level(level);
    }
}

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mut limiter = self.limiter.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(dropped) = limiter.admit(Instant::now()) else {
            return;
        };
        let mut stderr = io::stderr().lock();
        if dropped > 0 {
            // Standard error may be closed; there is nobody else to tell.
            let _ = writeln!(stderr, "nosnoop-gpu: {dropped} log lines were left out");
        }
        let level = record.level().as_str().to_ascii_lowercase();
        let text = one_line(&record.args().to_string(), MOST_PER_LINE);
        let _ = writeln!(stderr, "nosnoop-gpu: {level}: {text}");
    }

    fn flush(&self) {}
}

/// The text as one line of so many characters at most, with a word about what is left out.
fn one_line(text: &str, most: usize) -> String {
    let text = text.trim_end();
    let line = text
        .chars()
        .take(most)
        .map(|character| match character.is_control() {
            true => ' ',
            false => character,
        })
        .collect::<String>();
    match text.chars().nth(most) {
        Some(_) => format!("{line} ..."),
        None => line,
    }
}

#[derive(Debug)]
struct Limiter {
    limited: bool,
    since: Instant,
    lines: u32,
    dropped: u64,
}

impl Limiter {
    fn new(now: Instant) -> Self {
        Self {
            limited: true,
            since: now,
            lines: 0,
            dropped: 0,
        }
    }

    /// Whether a line may be written, and if so how many were left out since the last one.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.since) >= WINDOW {
            self.since = now;
            self.lines = 0;
        }
        if self.limited && self.lines >= LINES_PER_WINDOW {
            self.dropped = self.dropped.saturating_add(1);
            return None;
        }
        self.lines = self.lines.saturating_add(1);
        Some(std::mem::take(&mut self.dropped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_line_whatever_is_in_it() {
        assert_eq!(one_line("a\nnosnoop-gpu: b\r\n", 99), "a nosnoop-gpu: b");
        assert_eq!(one_line("äöüß", 4), "äöüß");
        assert_eq!(one_line("äöüßx", 4), "äöüß ...");
        assert_eq!(one_line("\u{1b}[2J", 99), " [2J");
    }

    #[test]
    fn lines_beyond_the_limit_are_counted_and_told_in_the_next_window() {
        let start = Instant::now();
        let mut limiter = Limiter::new(start);
        for _ in 0..LINES_PER_WINDOW {
            assert_eq!(limiter.admit(start), Some(0));
        }
        assert_eq!(limiter.admit(start), None);
        assert_eq!(limiter.admit(start), None);
        assert_eq!(limiter.admit(start + WINDOW), Some(2));
        assert_eq!(limiter.admit(start + WINDOW), Some(0));
    }
}
