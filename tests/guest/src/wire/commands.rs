//! What the host asks of the task [`Commands`](super::Task::Commands): programs, run one after the
//! other, each with a deadline.
//!
//! Host to guest: one [`Command`] as JSON a line. Each is answered with
//! [`Event::Ran`](super::Event::Ran). An [`Order`](super::Order) ends the task.

use serde::{Deserialize, Serialize};

/// A program to run.
///
/// In its arguments `{connector}`, `{crtc}`, `{primary}` and `{cursor}` stand for the numbers that
/// the kernel gave to the first connected connector, its CRTC and that CRTC's planes, `{width}` and
/// `{height}` for the preferred mode's size in pixels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The path of the program and its arguments.
    pub words: Vec<String>,
    /// Seconds after which it is killed.
    pub deadline: u64,
    /// Environment variables, name and value.
    pub environment: Vec<(String, String)>,
    /// How a program that goes on for ever is asked to end; without this its standard input is at
    /// its end from the start.
    pub stop: Option<Stop>,
}

/// How a program is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stop {
    /// After that many seconds it reads an empty line on its standard input, which is silent before.
    KeyAfter(u64),
    /// After that many seconds it gets the signal SIGINT; its standard input is silent.
    InterruptAfter(u64),
}

impl Stop {
    /// After how many seconds.
    #[must_use]
    pub fn after(self) -> u64 {
        match self {
            Self::KeyAfter(seconds) | Self::InterruptAfter(seconds) => seconds,
        }
    }
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// By itself, with this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
    /// Killed at its deadline.
    Deadline,
    /// Killed at its deadline, and still there: it hangs in the kernel.
    Stuck,
}

/// A program that was run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ran {
    /// How it ended.
    pub ending: Ending,
    /// The last lines of what it wrote, errors included.
    pub lines: Vec<String>,
    /// What the kernel logged meanwhile at the level "warning" or worse.
    pub kernel: Vec<String>,
    /// How long it took.
    pub millis: u64,
}
