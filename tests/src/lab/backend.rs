//! The process behind the virtual GPU: our daemon, QEMU's own, or any other.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::picture::Picture;
use super::process::POLL;
use super::qemu::Device;
use super::root::Root;
use super::usage::{self, Held, Usage};
use super::{LabError, Result};
use crate::frontend::Daemon;
use crate::peers::{Peer, Prepared};

/// How long a screenshot may take.
const SIGNAL_LIMIT: Duration = Duration::from_secs(20);

/// The name of the memory of host blobs in `/proc`.
pub(super) const BLOB_FILE: &str = "/memfd:nosnoop-blob";

/// Which backend to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A process.
    Process(Peer),
    /// None: QEMU itself is the GPU ([`Device::InProcess`]).
    InProcess,
}

impl Kind {
    /// Our daemon.
    pub const OURS: Self = Self::Process(Peer::Ours);
    /// Our daemon with the feature `test-memtype`.
    pub const TEST_MEMTYPE: Self = Self::Process(Peer::TestMemtype);
    /// vhost-user-gpu, the C program that comes with QEMU.
    pub const VHOST_USER_GPU: Self = Self::Process(Peer::VhostUserGpu);

    /// Reads a command line value: `in-process`, else as [`Peer::parse`].
    ///
    /// # Errors
    /// When it is none of these.
    pub fn parse(value: &str) -> std::result::Result<Self, String> {
        match value {
            "in-process" => Ok(Self::InProcess),
            other => Peer::parse(other).map(Self::Process),
        }
    }

    /// The device of QEMU that has a display for it.
    #[must_use]
    pub fn device(&self) -> Device {
        match self {
            Self::InProcess => Device::InProcess,
            Self::Process(_) => Device::Gpu(None),
        }
    }

    /// The name in reports.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Process(peer) => peer.name(),
            Self::InProcess => "QEMU's virtio-gpu-pci".to_owned(),
        }
    }
}

/// A running backend; dropping it ends the process.
#[derive(Debug)]
pub struct Backend {
    /// None where QEMU itself is the GPU.
    daemon: Option<Daemon>,
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
        let Kind::Process(peer) = kind else {
            return Ok(Self {
                daemon: None,
                kind: kind.clone(),
            });
        };
        let mut prepared = peer.prepare_in(root)?;
        if matches!(peer, Peer::Ours | Peer::TestMemtype) {
            prepared.add_options(options);
        }
        Self::start_prepared(&prepared)
    }

    /// Starts our daemon of another build, with these options, and waits until it listens.
    ///
    /// # Errors
    /// When it does not listen in time.
    pub(super) fn start_daemon(program: &Path, options: &[&str]) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(options);
        let daemon = Daemon::start_command(command, &["--socket-path"]);
        Ok(Self {
            daemon: Some(daemon.map_err(LabError::context(program.display()))?),
            kind: Kind::OURS,
        })
    }

    /// Starts a backend that is ready to be started, with its options, and waits until it listens.
    ///
    /// # Errors
    /// When it does not listen in time.
    pub fn start_prepared(prepared: &Prepared) -> Result<Self> {
        let kind = Kind::Process(prepared.peer().clone());
        let daemon = prepared.start().map_err(LabError::context(kind.name()))?;
        Ok(Self {
            daemon: Some(daemon),
            kind,
        })
    }

    /// The process.
    fn daemon(&self) -> Result<&Daemon> {
        self.daemon.as_ref().ok_or_else(no_process)
    }

    /// The socket that QEMU connects to; none where QEMU itself is the GPU.
    #[must_use]
    pub fn socket(&self) -> Option<&Path> {
        self.daemon.as_ref().map(Daemon::socket)
    }

    /// What kind of backend this is.
    #[must_use]
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The last `count` lines of what the backend wrote on its standard error, each indented.
    #[must_use]
    pub fn last_lines(&self, count: usize) -> String {
        let text = self
            .daemon
            .as_ref()
            .map_or_else(String::new, Daemon::stderr);
        let lines = text.lines().collect::<Vec<_>>();
        let last = &lines[lines.len().saturating_sub(count)..];
        last.iter().map(|line| format!("    {line}\n")).collect()
    }

    /// Checks that the process runs and no thread of it has panicked; without one all is well.
    ///
    /// # Errors
    /// With what it wrote when it does not.
    pub fn check_alive(&mut self) -> Result<()> {
        let Some(daemon) = &mut self.daemon else {
            return Ok(());
        };
        daemon
            .check_alive()
            .map_err(LabError::context(self.kind.name()))
    }

    /// Memory and processor time of the process; none where QEMU itself is the GPU.
    ///
    /// # Errors
    /// When the process has gone.
    pub fn usage(&self) -> Result<Option<Usage>> {
        let daemon = self.daemon.as_ref();
        daemon.map(|daemon| usage::of(daemon.pid())).transpose()
    }

    /// How many file descriptors and memory mappings the process has.
    ///
    /// # Errors
    /// When the process has gone.
    pub fn held(&self) -> Result<Held> {
        usage::held(self.daemon()?.pid())
    }

    /// The memory of every host blob of our daemon, opened anew for reading and writing.
    ///
    /// # Errors
    /// When the process has gone or its memory cannot be opened.
    pub fn blob_files(&self) -> Result<Vec<File>> {
        let folder = format!("/proc/{}/fd", self.daemon()?.pid());
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
        let path = self.daemon()?.dir().join(format!("scanout-{scanout}.png"));
        if path.exists() {
            fs::remove_file(&path).map_err(LabError::context(path.display()))?;
        }
        let asked = self
            .daemon
            .as_mut()
            .ok_or_else(no_process)?
            .signal(Signal::USR1);
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
        let killed = self
            .daemon
            .as_mut()
            .ok_or_else(no_process)?
            .signal(Signal::KILL);
        killed.map_err(LabError::context("cannot kill the backend"))
    }

    /// Asks the process to end by SIGTERM.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn stop(mut self) -> Result<ExitStatus> {
        let status = self.daemon.as_mut().ok_or_else(no_process)?.terminate();
        status.map_err(LabError::context(format_args!(
            "ending {}",
            self.kind.name()
        )))
    }
}

/// What an error says where there is no process to ask.
pub(super) fn no_process() -> LabError {
    LabError::failed("QEMU itself is the GPU: there is no backend")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backend_names() {
        assert_eq!(Kind::parse("vhost-user-gpu"), Ok(Kind::VHOST_USER_GPU));
        assert_eq!(Kind::parse("ours"), Ok(Kind::OURS));
        assert_eq!(Kind::parse("in-process"), Ok(Kind::InProcess));
        assert!(Kind::parse("/nowhere/at/all").is_err());
    }
}
