//! The process behind the virtual GPU: our daemon, QEMU's own, or any other.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::picture::Picture;
use super::process::POLL;
use super::root::Root;
use super::usage::{self, Held, Usage};
use super::{LabError, Result};
use crate::frontend::Daemon;

/// How long a screenshot may take.
const SIGNAL_LIMIT: Duration = Duration::from_secs(20);

/// The name of the memory of host blobs in `/proc`.
pub(super) const BLOB_FILE: &str = "/memfd:nosnoop-blob";

/// Which backend to run.
pub use crate::peers::Peer as Kind;

/// A running backend; dropping it ends the process.
#[derive(Debug)]
pub struct Backend {
    daemon: Daemon,
    kind: Kind,
}

impl Backend {
    /// Starts a backend and waits until it listens.
    ///
    /// `options` are further arguments for our daemon; other programs get none.
    ///
    /// # Errors
    /// When it cannot be found or built, or does not listen in time.
    pub fn start(kind: &Kind, root: &Root, options: &[&str]) -> Result<Self> {
        let mut prepared = kind.prepare_in(root)?;
        if matches!(kind, Kind::Ours | Kind::TestMemtype) {
            prepared.add_options(options);
        }
        let daemon = prepared.start().map_err(LabError::context(kind.name()))?;
        Ok(Self {
            daemon,
            kind: kind.clone(),
        })
    }

    /// The socket that QEMU connects to.
    #[must_use]
    pub fn socket(&self) -> &Path {
        self.daemon.socket()
    }

    /// What kind of backend this is.
    #[must_use]
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The last `count` lines of what the backend wrote on its standard error, each indented.
    #[must_use]
    pub fn last_lines(&self, count: usize) -> String {
        let text = self.daemon.stderr();
        let lines = text.lines().collect::<Vec<_>>();
        let last = &lines[lines.len().saturating_sub(count)..];
        last.iter().map(|line| format!("    {line}\n")).collect()
    }

    /// Checks that the process runs and no thread of it has panicked.
    ///
    /// # Errors
    /// With what it wrote when it does not.
    pub fn check_alive(&mut self) -> Result<()> {
        self.daemon
            .check_alive()
            .map_err(LabError::context(self.kind.name()))
    }

    /// Memory and processor time of the process.
    ///
    /// # Errors
    /// When the process has gone.
    pub fn usage(&self) -> Result<Usage> {
        usage::of(self.daemon.pid())
    }

    /// How many file descriptors and memory mappings the process has.
    ///
    /// # Errors
    /// When the process has gone.
    pub fn held(&self) -> Result<Held> {
        usage::held(self.daemon.pid())
    }

    /// The memory of every host blob of our daemon, opened anew for reading and writing.
    ///
    /// # Errors
    /// When the process has gone or its memory cannot be opened.
    pub fn blob_files(&self) -> Result<Vec<File>> {
        let folder = format!("/proc/{}/fd", self.daemon.pid());
        let entries = fs::read_dir(&folder).map_err(LabError::context(folder))?;
        // By inode: a file with several descriptors counts once.
        let mut files = BTreeMap::new();
        for path in entries.flatten().map(|entry| entry.path()) {
            // A descriptor that is closed meanwhile is no blob any more.
            let Ok(target) = fs::read_link(&path) else {
                continue;
            };
            if !target.to_string_lossy().starts_with(BLOB_FILE) {
                continue;
            }
            let opened = File::options().read(true).write(true).open(&path);
            match opened.and_then(|file| Ok((file.metadata()?.ino(), file))) {
                Ok((inode, file)) => {
                    files.insert(inode, file);
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(LabError::context(path.display())(error)),
            }
        }
        Ok(files.into_values().collect())
    }

    /// Asks our daemon for a picture of scanout `scanout` by SIGUSR1.
    ///
    /// # Errors
    /// When no new picture appears in time.
    pub fn screenshot(&mut self, scanout: u32) -> Result<Picture> {
        let path = self.daemon.dir().join(format!("scanout-{scanout}.png"));
        if path.exists() {
            fs::remove_file(&path).map_err(LabError::context(path.display()))?;
        }
        let asked = self.daemon.signal(Signal::USR1);
        asked.map_err(LabError::context("cannot ask for a screenshot"))?;
        let start = Instant::now();
        // The daemon renames complete files into place.
        while !path.exists() {
            self.check_alive()?;
            if start.elapsed() > SIGNAL_LIMIT {
                return Err(LabError::failed(format!(
                    "{} has written no screenshot {} s after SIGUSR1; its last lines:\n{}",
                    self.kind.name(),
                    SIGNAL_LIMIT.as_secs(),
                    self.last_lines(15)
                )));
            }
            thread::sleep(POLL);
        }
        Picture::load(&path)
    }

    /// Kills the process, as a crash would end it.
    ///
    /// # Errors
    /// When it has gone already.
    pub fn kill(&mut self) -> Result<()> {
        let killed = self.daemon.signal(Signal::KILL);
        killed.map_err(LabError::context("cannot kill the backend"))
    }

    /// Asks the process to end by SIGTERM.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn stop(mut self) -> Result<ExitStatus> {
        let status = self.daemon.terminate();
        status.map_err(LabError::context(format_args!(
            "ending {}",
            self.kind.name()
        )))
    }
}
