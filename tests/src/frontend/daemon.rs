//! A daemon process under test, and what can be seen of it from outside.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use tempfile::TempDir;

use super::error::{Deadline, Error, Result, patience};
use super::process::Owned;

/// How a command is started: [`Owned::program`] or [`Owned::group`].
pub type Start = fn(&mut Command) -> std::io::Result<Owned>;

/// A running daemon; killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    process: Owned,
    dir: TempDir,
    socket: PathBuf,
    stderr: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Daemon {
    /// Starts `nosnoop-gpu` on a socket in a directory of its own, with further arguments, and waits
    /// until it listens.
    ///
    /// # Errors
    /// [`Error::Daemon`] with its stderr if it does not come up.
    pub fn start(args: &[&str]) -> Result<Self> {
        let mut command = Command::new(binary()?);
        command.args(args);
        Self::start_command(command, &["--socket-path"])
    }

    /// Starts any vhost-user daemon: `socket_args` and the path of the socket are put behind the
    /// arguments that `command` already has.
    ///
    /// # Errors
    /// [`Error::Daemon`] with its stderr if it does not listen in time.
    pub fn start_command(mut command: Command, socket_args: &[&str]) -> Result<Self> {
        let command = |socket: &Path| {
            command.args(socket_args).arg(socket);
            command
        };
        Self::start_with(command, Owned::program)
    }

    /// Starts any vhost-user daemon on a socket in a directory of its own: `make` says with which
    /// command, `start` whether that leads a process group.
    ///
    /// # Errors
    /// As [`Daemon::start_command`].
    pub fn start_with(make: impl FnOnce(&Path) -> Command, start: Start) -> Result<Self> {
        let dir = tempfile::tempdir().map_err(|e| Error::io("make a directory", e))?;
        let socket = dir.path().join("gpu.sock");
        Self::listen(make(&socket), start, dir, socket)
    }

    /// Starts `nosnoop-gpu` on a socket path of the caller's choice and waits until it listens.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn start_at(socket: &Path, args: &[&str]) -> Result<Self> {
        let mut command = Command::new(binary()?);
        command.args(args).arg("--socket-path").arg(socket);
        let dir = tempfile::tempdir().map_err(|e| Error::io("make a directory", e))?;
        Self::listen(command, Owned::program, dir, socket.to_owned())
    }

    fn listen(mut command: Command, start: Start, dir: TempDir, socket: PathBuf) -> Result<Self> {
        command.stdin(Stdio::null());
        let mut daemon = Self::spawn(command, start, dir, socket)?;
        let path = daemon.socket.clone();
        Deadline::default().poll("the daemon's socket", || {
            if let Some(status) = daemon.try_status()? {
                let said = daemon.stderr();
                return Err(Error::Daemon(format!(
                    "ended with {status} at start: {said}"
                )));
            }
            Ok(is_listening(&path).then_some(()))
        })?;
        Ok(daemon)
    }

    /// Starts `nosnoop-gpu --fd 3` with this socket as descriptor 3.
    ///
    /// A shell in between moves it there from standard input: making a descriptor inheritable in
    /// this process would leak it into every other child that a parallel test starts just then.
    ///
    /// # Errors
    /// [`Error::Daemon`] if it cannot be started.
    pub fn start_on_fd(socket: OwnedFd, args: &[&str]) -> Result<Self> {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", "exec 3<&0 0</dev/null; exec \"$0\" --fd 3 \"$@\""])
            .arg(binary()?)
            .args(args)
            .stdin(Stdio::from(socket));
        let dir = tempfile::tempdir().map_err(|e| Error::io("make a directory", e))?;
        let path = dir.path().join("unused");
        Self::spawn(command, Owned::program, dir, path)
    }

    fn spawn(mut command: Command, start: Start, dir: TempDir, socket: PathBuf) -> Result<Self> {
        command
            .current_dir(dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut process = start(&mut command)
            .map_err(|e| Error::Daemon(format!("start {:?}: {e}", command.get_program())))?;
        let stderr = Arc::new(Mutex::new(String::new()));
        let reader = process.child().stderr.take().map(|pipe| {
            let text = stderr.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(std::io::Result::ok) {
                    let mut text = text.lock().unwrap_or_else(PoisonError::into_inner);
                    if text.len() > MOST_STDERR {
                        forget_half(&mut text);
                    }
                    text.push_str(&line);
                    text.push('\n');
                }
            })
        });
        Ok(Daemon {
            process,
            dir,
            socket,
            stderr,
            reader,
        })
    }

    /// Path of the daemon's socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The directory the daemon runs in.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.process.pid().as_raw_nonzero().get().cast_unsigned()
    }

    /// What the daemon wrote to stderr so far.
    pub fn stderr(&self) -> String {
        self.stderr
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits until the daemon has written this to stderr: what it says before an answer may be read here
    /// after that.
    ///
    /// # Errors
    /// [`Error::Timeout`].
    pub fn await_stderr(&self, part: &str, deadline: Deadline) -> Result<()> {
        let said = || Ok(self.stderr().contains(part).then_some(()));
        deadline.poll(part, said)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// [`Error::Io`] if the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.process.pid(), signal).map_err(|e| Error::io("kill", e))
    }

    fn try_status(&mut self) -> Result<Option<ExitStatus>> {
        let status = self.process.status();
        status.map_err(|e| Error::io("wait for the daemon", e))
    }

    /// Whether the daemon still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.try_status(), Ok(None))
    }

    /// Waits for the daemon to end by itself; all it wrote to stderr is then in [`Self::stderr`].
    ///
    /// # Errors
    /// [`Error::Timeout`] if it does not end.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let status = Deadline::default().poll("the daemon to end", || self.try_status())?;
        if let Some(reader) = self.reader.take() {
            // It only copies lines; a panic would show as missing text.
            let _ = reader.join();
        }
        Ok(status)
    }

    /// Sends SIGTERM and waits.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait()
    }

    /// Checks that the daemon still runs and has neither panicked nor lost a thread to a panic.
    ///
    /// # Errors
    /// [`Error::Daemon`] with its stderr.
    pub fn check_alive(&mut self) -> Result<()> {
        let said = self.stderr();
        if let Some(status) = self.try_status()? {
            let how = status
                .signal()
                .map_or(status.to_string(), |s| format!("signal {s}"));
            return Err(Error::Daemon(format!("ended with {how}: {said}")));
        }
        match said.contains("panicked") {
            true => Err(Error::Daemon(said)),
            false => Ok(()),
        }
    }

    fn proc(&self, what: &str) -> Result<String> {
        let path = format!("/proc/{}/{what}", self.pid());
        std::fs::read_to_string(&path).map_err(|e| Error::io(path, e))
    }

    /// Number of open file descriptors.
    ///
    /// # Errors
    /// [`Error::Io`] if the process is gone.
    pub fn open_files(&self) -> Result<usize> {
        let path = format!("/proc/{}/fd", self.pid());
        Ok(std::fs::read_dir(&path)
            .map_err(|e| Error::io(path, e))?
            .count())
    }

    /// Resident memory, bytes.
    ///
    /// # Errors
    /// [`Error::Io`] if the process is gone.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.status_kib("VmRSS:").map(|kib| kib * 1024)
    }

    /// Resident memory that is the process's own, bytes: guest memory, which it shares, not counted.
    ///
    /// # Errors
    /// [`Error::Io`] if the process is gone.
    pub fn own_bytes(&self) -> Result<u64> {
        self.status_kib("RssAnon:").map(|kib| kib * 1024)
    }

    fn status_kib(&self, field: &str) -> Result<u64> {
        let status = self.proc("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse().ok())
            .ok_or_else(|| Error::Daemon(format!("no {field} in its status")))
    }

    /// Number of threads.
    ///
    /// # Errors
    /// [`Error::Io`] if the process is gone.
    pub fn threads(&self) -> Result<usize> {
        let path = format!("/proc/{}/task", self.pid());
        Ok(std::fs::read_dir(&path)
            .map_err(|e| Error::io(path, e))?
            .count())
    }

    /// Number of memory mappings.
    ///
    /// # Errors
    /// [`Error::Io`] if the process is gone.
    pub fn mappings(&self) -> Result<usize> {
        Ok(self.proc("maps")?.lines().count())
    }

    /// Processor time used so far, user and system.
    ///
    /// # Errors
    /// [`Error::Io`] if the process is gone.
    pub fn cpu_time(&self) -> Result<Duration> {
        let stat = self.proc("stat")?;
        let fields: Vec<_> = stat
            .rsplit(')')
            .next()
            .unwrap_or("")
            .split_whitespace()
            .collect();
        let ticks = |at: usize| {
            fields
                .get(at)
                .and_then(|f| f.parse::<u64>().ok())
                .unwrap_or(0)
        };
        // USER_HZ is 100 in the ABI of every architecture this runs on.
        Ok(Duration::from_millis((ticks(11) + ticks(12)) * 10))
    }
}

/// Most that is kept of what a daemon writes, bytes; some write a line for each bad command.
const MOST_STDERR: usize = 4 << 20;

/// Drops the older half.
fn forget_half(text: &mut String) {
    let middle = text.len() / 2;
    // In bytes: the middle may be inside of a character.
    let line = text.as_bytes()[middle..]
        .iter()
        .position(|byte| *byte == b'\n');
    let line = line.map_or(text.len(), |at| middle + at + 1);
    text.drain(..line);
}

/// Whether a socket file has a listener, without connecting to it (a connection would be served).
pub(crate) fn is_listening(path: &Path) -> bool {
    let Ok(table) = std::fs::read_to_string("/proc/net/unix") else {
        return path.exists();
    };
    // Flags 00010000 (__SO_ACCEPTCON) mark listening sockets.
    table
        .lines()
        .any(|line| line.ends_with(&format!(" {}", path.display())) && line.contains(" 00010000 "))
}

/// Runs `nosnoop-gpu` with these arguments until it ends by itself, which it must.
///
/// # Errors
/// [`Error::Timeout`] if it does not (it is killed then).
pub fn run_to_end(args: &[&str]) -> Result<Output> {
    let mut child = Command::new(binary()?)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| Error::Daemon(format!("start nosnoop-gpu: {e}")))?;
    let ended = Deadline::after(patience()).poll("nosnoop-gpu to end", || {
        child
            .try_wait()
            .map_err(|e| Error::io("wait for nosnoop-gpu", e))
    });
    if ended.is_err() {
        let _ = child.kill();
    }
    let status = child
        .wait()
        .map_err(|e| Error::io("wait for nosnoop-gpu", e))?;
    let mut output = Output {
        status,
        stdout: Vec::new(),
        stderr: Vec::new(),
    };
    if let Some(mut pipe) = child.stdout.take() {
        pipe.read_to_end(&mut output.stdout)
            .map_err(|e| Error::io("read its stdout", e))?;
    }
    if let Some(mut pipe) = child.stderr.take() {
        pipe.read_to_end(&mut output.stderr)
            .map_err(|e| Error::io("read its stderr", e))?;
    }
    ended.map(|_| output)
}

/// The daemon binary: `NOSNOOP_GPU_BIN` if set, else built once per process by a nested cargo in the
/// same profile as this code.
///
/// # Errors
/// [`Error::Daemon`] if it cannot be built.
pub fn binary() -> Result<&'static Path> {
    static BINARY: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    let found = BINARY.get_or_init(|| match std::env::var_os("NOSNOOP_GPU_BIN") {
        Some(path) => Ok(PathBuf::from(path)),
        None => build(),
    });
    found.as_deref().map_err(|why| Error::Daemon(why.clone()))
}

fn build() -> std::result::Result<PathBuf, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .args([
            "build",
            "--quiet",
            "--package",
            "nosnoop-gpu",
            "--bin",
            "nosnoop-gpu",
        ])
        .args(["--message-format", "json-render-diagnostics"])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let output = command
        .output()
        .map_err(|e| format!("cannot run cargo: {e}"))?;
    if !output.status.success() {
        return Err(format!(
            "cargo build of nosnoop-gpu ended with {}",
            output.status
        ));
    }
    let executable = String::from_utf8_lossy(&output.stdout)
        .lines()
        .rev()
        .find_map(|line| {
            let message: serde_json::Value = serde_json::from_str(line).ok()?;
            let is_daemon = message["target"]["name"] == "nosnoop-gpu";
            message["executable"]
                .as_str()
                .filter(|_| is_daemon)
                .map(PathBuf::from)
        });
    executable.ok_or_else(|| "cargo built nosnoop-gpu but named no executable".to_owned())
}
