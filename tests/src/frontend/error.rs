//! What can go wrong while driving a daemon, and how long to wait before it has.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a test waits for anything that a healthy daemon does at once, in milliseconds, unless
/// [`set_patience`] says otherwise.
/// Generous, because test machines are slow and shared; a healthy run never waits this long.
static PATIENCE_MS: AtomicU64 = AtomicU64::new(20_000);

/// How long everything in this library waits for what a healthy back-end does at once.
pub fn patience() -> Duration {
    Duration::from_millis(PATIENCE_MS.load(Ordering::Relaxed))
}

/// Sets [`patience`] for the whole process: a program that drives back-ends that may never answer
/// cannot wait for each as long as a test can.
pub fn set_patience(patience: Duration) {
    let millis = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
    PATIENCE_MS.store(millis, Ordering::Relaxed);
}

/// Result of everything in this library.
pub type Result<T> = std::result::Result<T, Error>;

/// Why driving the daemon failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing came within the deadline.
    #[error("waited {waited:?} for {awaited}, in vain")]
    Timeout {
        /// What was awaited.
        awaited: String,
        /// For how long.
        waited: Duration,
    },
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The other side closed its socket.
    #[error("the other side closed the connection while {0}")]
    Closed(String),
    /// The daemon sent something that the vhost-user specification does not allow here.
    #[error("bad vhost-user answer: {0}")]
    Protocol(String),
    /// The daemon acknowledged a vhost-user message with a failure code.
    #[error("vhost-user request {request} was refused with code {code}")]
    Nack {
        /// Number of the vhost-user request.
        request: u32,
        /// The code, not zero.
        code: u64,
    },
    /// The device broke a rule of the used ring.
    #[error("ring {ring}: {what}")]
    Ring {
        /// Queue index.
        ring: u32,
        /// Which rule.
        what: String,
    },
    /// The device answered a command with something else than the expected response type.
    #[error("{command} was answered {got:#06x}, expected {expected:#06x}")]
    Refused {
        /// Name of the command.
        command: String,
        /// Response type that came (0 when there was no whole header).
        got: u32,
        /// Response type that was expected.
        expected: u32,
    },
    /// Guest memory: out of pages, or an address outside it.
    #[error("guest memory: {0}")]
    Memory(String),
    /// The daemon binary could not be found, built or started.
    #[error("daemon: {0}")]
    Daemon(String),
}

impl Error {
    /// Wraps an I/O error with what was being done.
    pub fn io(what: impl Into<String>, source: impl Into<std::io::Error>) -> Self {
        Error::Io {
            what: what.into(),
            source: source.into(),
        }
    }

    /// Whether this is a deadline that passed.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Error::Timeout { .. })
    }
}

/// A point in time up to which to wait.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    start: Instant,
    patience: Duration,
}

impl Deadline {
    /// A deadline `patience` from now.
    pub fn after(patience: Duration) -> Self {
        Deadline {
            start: Instant::now(),
            patience,
        }
    }

    /// What is left, or a [`Error::Timeout`] that says what was awaited.
    pub fn left(&self, awaited: &str) -> Result<Duration> {
        match self.patience.checked_sub(self.start.elapsed()) {
            Some(left) if !left.is_zero() => Ok(left),
            _ => Err(Error::Timeout {
                awaited: awaited.to_owned(),
                waited: self.patience,
            }),
        }
    }

    /// Calls `ready` until it returns a value, sleeping shortly in between.
    ///
    /// # Errors
    /// [`Error::Timeout`] naming `awaited`, or what `ready` returned.
    pub fn poll<T>(
        &self,
        awaited: &str,
        mut ready: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        loop {
            if let Some(value) = ready()? {
                return Ok(value);
            }
            let nap = self.left(awaited)?.min(Duration::from_millis(5));
            std::thread::sleep(nap);
        }
    }
}

impl Default for Deadline {
    fn default() -> Self {
        Deadline::after(patience())
    }
}

/// Waits until one of the file descriptors is readable (or its peer gone); returns which are.
///
/// # Errors
/// [`Error::Timeout`] naming `awaited`, [`Error::Io`] if poll fails.
pub fn wait_readable<const N: usize>(
    fds: [std::os::fd::BorrowedFd<'_>; N],
    deadline: &Deadline,
    awaited: &str,
) -> Result<[bool; N]> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut polled = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    loop {
        let left = deadline.left(awaited)?;
        let timeout = Timespec::try_from(left).map_err(|_| Error::Timeout {
            awaited: awaited.to_owned(),
            waited: left,
        })?;
        match poll(&mut polled, Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(polled.map(|fd| !fd.revents().is_empty())),
            Err(error) => return Err(Error::io("poll", error)),
        }
    }
}
