//! Lines of text that arrive from a process or a serial port, kept for later and handed out with a
//! deadline.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How many lines are kept for error messages and reports.
const KEPT: usize = 5000;

#[derive(Debug, Default)]
struct State {
    all: VecDeque<String>,
    unread: VecDeque<String>,
    ended: bool,
}

/// A reader thread's lines.
#[derive(Clone, Debug)]
pub struct Lines {
    shared: Arc<(Mutex<State>, Condvar)>,
}

/// What [`Lines::next`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// A line, without its end.
    Line(String),
    /// Nothing within the time given.
    Nothing,
    /// The other side has closed, and all lines were handed out.
    Closed,
}

impl Lines {
    /// Reads `source` to its end in a thread of its own.
    pub fn read(source: impl Read + Send + 'static) -> Self {
        let lines = Self {
            shared: Arc::new((Mutex::new(State::default()), Condvar::new())),
        };
        let writer = lines.clone();
        thread::spawn(move || writer.collect(source));
        lines
    }

    fn collect(&self, source: impl Read) {
        let mut source = BufReader::new(source);
        let mut bytes = Vec::new();
        // A read error is the end as well: the peer of a socket has gone.
        while source
            .read_until(b'\n', &mut bytes)
            .is_ok_and(|length| length > 0)
        {
            let text = String::from_utf8_lossy(&bytes);
            self.push(text.trim_end_matches(['\r', '\n']).to_owned());
            bytes.clear();
        }
        self.state().ended = true;
        self.shared.1.notify_all();
    }

    fn push(&self, line: String) {
        let mut state = self.state();
        if state.all.len() == KEPT {
            state.all.pop_front();
        }
        state.all.push_back(line.clone());
        state.unread.push_back(line);
        self.shared.1.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next unread line, awaited for at most `limit`.
    #[must_use]
    pub fn next(&self, limit: Duration) -> Next {
        let start = Instant::now();
        let mut state = self.state();
        loop {
            if let Some(line) = state.unread.pop_front() {
                return Next::Line(line);
            }
            if state.ended {
                return Next::Closed;
            }
            let Some(left) = limit.checked_sub(start.elapsed()) else {
                return Next::Nothing;
            };
            let waited = self.shared.1.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The last `count` lines, read or not, each indented and with its end of line.
    #[must_use]
    pub fn last(&self, count: usize) -> String {
        let state = self.state();
        let from = state.all.len().saturating_sub(count);
        state
            .all
            .range(from..)
            .map(|line| format!("    {line}\n"))
            .collect()
    }

    /// All lines that are kept.
    #[must_use]
    pub fn all(&self) -> Vec<String> {
        self.state().all.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn lines_come_in_order_and_the_end_shows() {
        let (mut writer, reader) = UnixStream::pair().unwrap();
        let lines = Lines::read(reader);
        assert_eq!(lines.next(Duration::from_millis(20)), Next::Nothing);
        writer.write_all(b"one\r\ntwo\nrest").unwrap();
        drop(writer);
        let wait = Duration::from_secs(20);
        for expected in ["one", "two", "rest"] {
            assert_eq!(lines.next(wait), Next::Line(expected.into()));
        }
        assert_eq!(lines.next(wait), Next::Closed);
        assert_eq!(lines.last(2), "    two\n    rest\n");
    }
}
