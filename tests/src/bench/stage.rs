//! A fresh back-end with a front-end on it, for one cell of the table.

use std::fmt;

use super::Missing;
use crate::frontend::message::{feature, protocol};
use crate::frontend::{Daemon, DisplayConfig, Error, Session, SessionOptions, request, response};
use crate::lab::usage::{self, Usage};
use crate::peers::{Prepared, short_path};

/// Bytes of guest memory: two large pictures, each in pages of their own, and what is around.
const RAM: u64 = 256 << 20;

/// What a piece of work needs of a back-end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Needs {
    /// 2D.
    #[default]
    Plain,
    /// Blobs in guest memory.
    GuestBlobs,
    /// Contexts, and blobs in host memory that are mapped.
    HostBlobs,
}

/// A running back-end and the device on it.
#[derive(Debug)]
pub(super) struct Stage {
    /// The front-end and the driver.
    pub(super) session: Session,
    daemon: Daemon,
}

impl Stage {
    /// Starts a back-end and brings a device up with a display of this size that only counts.
    ///
    /// # Errors
    /// [`Missing::Lacks`] when it does not offer what is needed, [`Missing::Failed`] else.
    pub(super) fn open(
        backend: &Prepared,
        display: (u32, u32),
        needs: Needs,
    ) -> Result<Self, Missing> {
        let mut daemon = backend.start()?;
        match Self::connect(&daemon, display, needs) {
            Ok(session) => Ok(Stage { session, daemon }),
            // The front-end has gone by now, and many back-ends end properly then.
            Err(missing) => Err(missing.after(&mut daemon, false)),
        }
    }

    fn connect(
        daemon: &Daemon,
        (width, height): (u32, u32),
        needs: Needs,
    ) -> Result<Session, Missing> {
        let mut options = match needs {
            Needs::HostBlobs => SessionOptions::host_blobs(),
            Needs::Plain | Needs::GuestBlobs => SessionOptions::default(),
        };
        // What nothing here uses stays out: not every back-end that offers it serves it.
        options.features &= !(feature::RESOURCE_UUID | feature::RING_RESET);
        if needs == Needs::Plain {
            options.features &= !feature::RESOURCE_BLOB;
        }
        options.layout = vec![(0x10_0000, RAM)];
        options.display = Some(DisplayConfig::sized(width, height).discarding());
        let session = Session::connect(daemon.socket(), &options)?;
        let (features, protocols) = match needs {
            Needs::Plain => (0, 0),
            Needs::GuestBlobs => (feature::RESOURCE_BLOB, 0),
            Needs::HostBlobs => (
                feature::RESOURCE_BLOB | feature::CONTEXT_INIT,
                protocol::SHMEM | protocol::BACKEND_REQ,
            ),
        };
        let names = [
            (feature::RESOURCE_BLOB, "RESOURCE_BLOB"),
            (feature::CONTEXT_INIT, "CONTEXT_INIT"),
        ];
        let absent = names
            .iter()
            .filter(|(bit, _)| features & !session.features & bit != 0)
            .map(|(_, name)| *name)
            .collect::<Vec<_>>();
        if !absent.is_empty() {
            return Err(Missing::Lacks(format!(
                "does not offer {}",
                absent.join(", ")
            )));
        }
        if protocols & !session.protocol_features != 0 {
            return Err(Missing::Lacks("does not offer shared memory".to_owned()));
        }
        Ok(session)
    }

    /// Sends a first command, to be answered with whatever; gives the stage back.
    ///
    /// # Errors
    /// [`Missing::Failed`].
    pub(super) fn first_command(mut self) -> Result<Self, Missing> {
        let request = request::get_display_info();
        let answer = self.session.gpu.call(&request, response::DISPLAY_INFO);
        match answer {
            Ok(_) => Ok(self),
            Err(error) => Err(self.explain(error.into())),
        }
    }

    /// Memory and processor time of the back-end.
    ///
    /// # Errors
    /// When it has gone.
    pub(super) fn usage(&self) -> Result<Usage, Missing> {
        usage::of(self.daemon.pid()).map_err(|_| Missing::Failed("it has gone".to_owned()))
    }

    /// The back-end's process.
    #[must_use]
    pub(super) fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// Adds what became of the process to why something is missing.
    #[must_use]
    pub(super) fn explain(mut self, missing: Missing) -> Missing {
        missing.after(&mut self.daemon, true)
    }
}

impl From<Error> for Missing {
    /// What a back-end has not announced is looked for before: an error answer is a failure.
    fn from(error: Error) -> Self {
        match error {
            Error::Refused { command, got, .. } => {
                Self::Failed(format!("{command} is answered {got:#x}"))
            }
            Error::Timeout { awaited, waited } => {
                Self::Failed(format!("hangs: {} s without {awaited}", waited.as_secs()))
            }
            Error::Daemon(text) => Self::Failed(one_line(&text)),
            other => Self::Failed(one_line(&other.to_string())),
        }
    }
}

impl Missing {
    /// With the end of the process, if it has ended by a fault, or at all while it had a front-end.
    fn after(self, daemon: &mut Daemon, served: bool) -> Self {
        if matches!(self, Self::Lacks(_)) {
            return self;
        }
        let Err(Error::Daemon(how)) = daemon.check_alive() else {
            return self;
        };
        if !served && how.starts_with("ended with exit status: 0") {
            return self;
        }
        Self::Failed(one_line(&how))
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lacks(why) | Self::Failed(why) => f.write_str(why),
        }
    }
}

/// Most characters of a line that a report takes over from a program.
const MOST: usize = 160;

/// Where a program panicked if it says so, else its first line; cut to what a table can hold.
fn one_line(text: &str) -> String {
    let panic = text
        .lines()
        .find_map(|line| Some(&line[line.find("panicked at ")?..]));
    let first = text.lines().map(str::trim).find(|line| !line.is_empty());
    let line = panic.or(first).unwrap_or_default();
    let words: Vec<String> = line.split_whitespace().map(short_path).collect();
    let plain = words.join(" ");
    let plain = plain.trim_end_matches(':').chars();
    plain
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MOST)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_programs_say_becomes_one_short_line() {
        assert_eq!(
            one_line("\n ended with  signal 6: \nmore\n"),
            "ended with signal 6"
        );
        let text = "ended: [info] hello\nthread 'x' (9) panicked at /a/b/x-1/src/y.rs:1:2:\nno\n";
        assert_eq!(one_line(text), "panicked at x-1/src/y.rs:1:2");
        assert_eq!(one_line(&"\u{1b}x".repeat(500)).chars().count(), MOST);
        assert!(!one_line("\n\n \u{1b}[31mred").contains('\u{1b}'));
    }
}
