//! The lab: a real QEMU, a real Linux kernel and its own virtio-gpu driver, on our daemon or on
//! another backend.
//!
//! [`Root`](root::Root) is where QEMU and the kernel come from: the machine, or a cached folder
//! that the lab fills from the machine's Debian archive without root rights.
//! [`initramfs`] packs our static guest program and the kernel modules, [`Backend`](backend::Backend)
//! is the process under test, [`Machine`](qemu::Machine) is one running QEMU. [`demo`] and
//! [`bench`](mod@bench) and [`blob`] are the runs built from them, [`builtin`] is the demo where no VM can be had.
//! [`BareMachine`](bare::BareMachine) is QEMU without a guest, for what QEMU itself does.
//!
//! Every wait has a deadline, and every error says what was awaited.

use std::fmt::Display;
use std::sync::OnceLock;
use std::time::Instant;

mod apt;
pub mod backend;
pub mod bare;
pub mod bench;
pub mod blob;
pub mod builtin;
pub mod chain;
pub mod date;
pub mod demo;
pub mod driver_tests;
mod elf;
mod files;
pub mod gl;
pub mod gl_guest;
pub mod headers;
pub mod initramfs;
pub mod lines;
pub mod mapping_backend;
mod modules;
pub mod nested;
mod outer;
pub mod pages;
pub mod picture;
pub mod process;
pub mod programs;
pub mod qemu;
mod qmp;
mod qtest;
pub mod report;
pub mod root;
pub mod usage;
pub mod venus;
mod virtio_pci;

/// Why something in the lab did not work.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The machine lacks what a VM needs; not a fault of the code under test.
    #[error("{0}")]
    Unavailable(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

/// Shorthand for the lab's results.
pub type Result<T> = std::result::Result<T, LabError>;

impl LabError {
    /// A failure with its text.
    pub fn failed(text: impl Into<String>) -> Self {
        Self::Failed(text.into())
    }

    /// What the machine lacks.
    pub fn unavailable(text: impl Into<String>) -> Self {
        Self::Unavailable(text.into())
    }

    /// Turns any error into a failure that begins with `what`.
    pub fn context<E: Display>(what: impl Display) -> impl FnOnce(E) -> Self {
        move |error| Self::Failed(format!("{what}: {error}"))
    }
}

/// One line of progress on standard error, with the seconds since the first one.
pub fn say(text: impl Display) {
    static START: OnceLock<Instant> = OnceLock::new();
    let seconds = START.get_or_init(Instant::now).elapsed().as_secs_f64();
    #[allow(clippy::print_stderr, reason = "progress of a program for people")]
    {
        eprintln!("[{seconds:7.1} s] {text}");
    }
}
