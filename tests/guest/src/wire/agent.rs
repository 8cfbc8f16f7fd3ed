//! What the host asks of the task [`Agent`](super::Task::Agent), and the answers.
//!
//! In both directions `NOSNOOP ` and one value as JSON a line. Each request gets one answer, in
//! order. The machine starts with [`Answer::Done`].

use serde::{Deserialize, Serialize};

use super::Image;
use super::commands::{Command, Ran};

/// Something that the agent is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// Starts a program, whose output goes to the machine's console: [`Answer::Started`].
    Start {
        /// What messages call it.
        name: String,
        /// The path of the program and its arguments.
        command: Vec<String>,
    },
    /// Runs a program to its end: [`Answer::Ran`].
    Run {
        /// The program.
        command: Command,
    },
    /// Whether all started programs run: [`Answer::Done`].
    Check,
    /// Writes text to a file, such as a switch of the kernel: [`Answer::Done`].
    Write {
        /// The file.
        path: String,
        /// The text.
        text: String,
    },
    /// Reads a text file: [`Answer::Lines`].
    Read {
        /// The file.
        path: String,
        /// Only lines with this text are of interest.
        containing: String,
    },
    /// Lists a folder: [`Answer::Lines`], the names in order.
    List {
        /// The folder.
        path: String,
    },
    /// Compares the picture in a blob, then draws the next: [`Answer::Compared`].
    Exchange(Exchange),
    /// Switches the machine off; there is no answer.
    PowerOff,
}

/// A blob with a picture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// The process that has allocated it and holds its file.
    pub pid: u32,
    /// What the file's name in `/proc/PID/fd` contains.
    pub file: String,
    /// Where the blob begins in the file.
    pub offset: u64,
    /// How the picture lies in it, and which one is expected.
    pub image: Image,
    /// The number of the picture to draw.
    pub next_seed: u32,
}

/// What the agent says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// The program runs.
    Started {
        /// Its process id.
        pid: u32,
    },
    /// The program has ended.
    Ran {
        /// How that went.
        ran: Ran,
    },
    /// The request is done.
    Done,
    /// What was found.
    Lines {
        /// Lines or names.
        lines: Vec<String>,
    },
    /// The next picture is drawn.
    Compared {
        /// What was wrong with the expected one; nothing where every pixel was right.
        wrong: Option<String>,
    },
    /// The request could not be done.
    Failed {
        /// Why.
        what: String,
    },
}
