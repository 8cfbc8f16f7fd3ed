//! A daemon with a session on it: what nearly every test needs.

use std::ops::{Deref, DerefMut};

use super::daemon::Daemon;
use super::display::DisplayConfig;
use super::error::{Error, Result};
use super::session::{Session, SessionOptions};

/// A daemon of its own and a running device on it. Behaves like its [`Session`].
#[derive(Debug)]
pub struct Rig {
    session: Session,
    /// The process.
    pub daemon: Daemon,
    has_display: bool,
}

impl Rig {
    /// Starts a daemon with these arguments and brings a device up on it.
    ///
    /// # Errors
    /// Any step that failed.
    pub fn start(args: &[&str], options: &SessionOptions) -> Result<Self> {
        Self::on(Daemon::start(args)?, options)
    }

    /// Brings a device up on a daemon that has been started.
    ///
    /// # Errors
    /// Any step that failed.
    pub fn on(daemon: Daemon, options: &SessionOptions) -> Result<Self> {
        let session = Session::connect(daemon.socket(), options)?;
        Ok(Rig {
            session,
            daemon,
            has_display: options.display.is_some(),
        })
    }

    /// The default daemon, session and display.
    ///
    /// # Errors
    /// Any step that failed.
    pub fn new() -> Result<Self> {
        Self::start(&[], &SessionOptions::default())
    }

    /// The default daemon and session with a given display.
    ///
    /// # Errors
    /// Any step that failed.
    pub fn with_display(display: DisplayConfig) -> Result<Self> {
        Self::start(&[], &SessionOptions::with_display(display))
    }

    /// The default daemon with these arguments and no display.
    ///
    /// # Errors
    /// Any step that failed.
    pub fn headless(args: &[&str]) -> Result<Self> {
        Self::start(args, &SessionOptions::headless())
    }

    /// A daemon that offers 8 GiB of shared memory, these further arguments, a session that takes
    /// all that host blobs need, and no display.
    ///
    /// # Errors
    /// Any step that failed.
    pub fn host_blobs(args: &[&str]) -> Result<Self> {
        let args = [&["--shm-size", "8G"], args].concat();
        Self::start(&args, &SessionOptions::host_blobs())
    }

    /// What every test ends with: the device still answers on both queues, the daemon has kept the
    /// rules of the display socket and of the shared-memory channel, has not panicked, and ends with status 0 on SIGTERM.
    ///
    /// # Errors
    /// The first of these that does not hold.
    pub fn finish(mut self) -> Result<()> {
        self.check_usable()?;
        self.end()
    }

    /// Checks that both queues still answer.
    ///
    /// # Errors
    /// As the commands it sends.
    pub fn check_usable(&mut self) -> Result<()> {
        self.daemon.check_alive()?;
        self.gpu.display_info()?;
        self.gpu.move_cursor(super::request::Cursor::default())
    }

    /// As [`Rig::finish`] for a device that is not meant to answer any more.
    ///
    /// # Errors
    /// As [`Rig::finish`].
    pub fn end(mut self) -> Result<()> {
        self.daemon.check_alive()?;
        if self.has_display {
            self.session.check_display()?;
        }
        self.session.check_shmem()?;
        let status = self.daemon.terminate()?;
        let said = self.daemon.stderr();
        if !status.success() || said.contains("panicked") {
            return Err(Error::Daemon(format!(
                "ended with {status} after SIGTERM: {said}"
            )));
        }
        Ok(())
    }
}

impl Deref for Rig {
    type Target = Session;
    fn deref(&self) -> &Session {
        &self.session
    }
}

impl DerefMut for Rig {
    fn deref_mut(&mut self) -> &mut Session {
        &mut self.session
    }
}
