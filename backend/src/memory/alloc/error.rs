//! Why there is no memory.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

use super::MAX_LEN;

/// Why an allocator cannot be had or gives nothing. Each is one line: what happened, to what, and what
/// to do next.
#[derive(Debug, thiserror::Error)]
pub enum AllocError {
    /// The length asked for is none.
    #[error("{len} bytes cannot be allocated: ask for 1 to {MAX_LEN}")]
    Length {
        /// Bytes asked for.
        len: u64,
    },
    /// The node does not open, or does not answer.
    #[error("cannot open {path}: {source}{advice}", path = path.display())]
    Open {
        /// The node.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
        /// What to do next, after a semicolon; or nothing.
        advice: &'static str,
    },
    /// It is not what it should be.
    #[error("{path} is not {what}", path = path.display())]
    WrongNode {
        /// The node.
        path: PathBuf,
        /// What it should be, for example.
        what: &'static str,
    },
    /// Nobody here knows how to allocate from that driver.
    #[error(
        "{path} is driven by {driver}, which has no allocator here: name a node of i915, xe, amdgpu \
         or vgem, or none to use memfd", path = path.display()
    )]
    NoAllocator {
        /// The node.
        path: PathBuf,
        /// Its driver.
        driver: String,
    },
    /// The driver or its device cannot do it, whatever is asked.
    #[error("{driver}: {why}")]
    Unsuitable {
        /// The driver.
        driver: String,
        /// Why, and what to do next.
        why: String,
    },
    /// The kernel refuses a command.
    #[error("{driver} refuses {command}: {source}{advice}")]
    Refused {
        /// The driver.
        driver: String,
        /// The command, as the kernel's headers name it.
        command: &'static str,
        /// What the kernel says.
        source: io::Error,
        /// What to do next, after a semicolon; or nothing.
        advice: &'static str,
    },
    /// A command succeeded, but what it did is not what was asked.
    #[error("{driver}: {what}; such memory is not used: report this with the kernel's version")]
    Untrue {
        /// The driver.
        driver: String,
        /// What differs.
        what: String,
    },
    /// There is no memfd.
    #[error("no memfd of {len} bytes: {source}{advice}", advice = advice_for(source))]
    Memfd {
        /// Bytes asked for.
        len: u64,
        /// What the kernel says.
        source: io::Error,
    },
}

impl AllocError {
    /// The same with better advice, if the kernel refused with `errno`.
    #[must_use]
    pub(super) fn advise(mut self, errno: Errno, text: &'static str) -> Self {
        if let Self::Refused { source, advice, .. } = &mut self
            && source.raw_os_error() == Some(errno.raw_os_error())
        {
            *advice = text;
        }
        self
    }

    /// The error number of a refused command.
    pub(super) fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { source, .. } => Errno::from_io_error(source),
            _ => None,
        }
    }
}

/// What to do about an error number, after a semicolon; nothing where it does not say enough.
pub(super) fn advice_for(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::NODEV | Errno::NXIO | Errno::IO) => "; the device is gone or cannot do this",
        Some(Errno::ACCESS | Errno::PERM) => {
            "; let the daemon's user read and write the render node, mostly by its group"
        }
        Some(Errno::NOMEM | Errno::NOSPC) => "; free memory on the host",
        Some(Errno::MFILE | Errno::NFILE) => "; raise the limit of open files",
        Some(Errno::NOENT) => "; see ls /dev/dri",
        _ => "",
    }
}
