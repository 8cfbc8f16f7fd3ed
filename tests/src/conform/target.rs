//! The back-ends that cases run against: processes of our own, or somebody else's socket.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::frontend::daemon;
use crate::frontend::process::Owned;
use crate::peers::{Peer, Prepared, SOCKET, is_name, quoted, short_path};

/// Lines of standard error that are kept; some back-ends write one for each bad command.
const KEPT_LINES: usize = 200;

/// How long a back-end is watched after its front-end has gone, for one that dies of that.
const LAST_GASP: Duration = Duration::from_millis(10);

/// A back-end to test.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its name in reports.
    pub name: String,
    /// How to reach it.
    pub kind: Kind,
}

/// How a back-end is reached.
#[derive(Clone, Debug)]
pub enum Kind {
    /// It runs already and listens here; it serves one connection after the other.
    Socket(PathBuf),
    /// A shell command that is started for each case; [`SOCKET`] in it stands for the socket.
    Spawn(String),
    /// One that is known by name, also started for each case.
    Known(Prepared),
}

impl Target {
    /// A running back-end: `PATH` or `NAME=PATH`.
    ///
    /// # Errors
    /// When nothing is there, or something that is not a socket.
    pub fn socket(value: &str) -> Result<Self, String> {
        let (name, path) = named(value);
        let what = std::fs::metadata(path).map_err(|error| format!("{path}: {error}"))?;
        if !what.file_type().is_socket() {
            return Err(format!("{path} is not a socket"));
        }
        Ok(Self {
            name: name.unwrap_or(path).to_owned(),
            kind: Kind::Socket(PathBuf::from(path)),
        })
    }

    /// A command: `CMD` or `NAME=CMD`.
    ///
    /// # Errors
    /// When [`SOCKET`] does not occur in it.
    pub fn spawn(value: &str) -> Result<Self, String> {
        let (name, command) = named(value);
        if !command.contains(SOCKET) {
            return Err(format!(
                "'{command}' does not say where the socket goes: write {SOCKET} there"
            ));
        }
        let program = command.split_whitespace().next().unwrap_or(command);
        let program = program.rsplit('/').next().unwrap_or(program);
        Ok(Self {
            name: name.unwrap_or(program).to_owned(),
            kind: Kind::Spawn(command.to_owned()),
        })
    }

    /// A back-end that is known by name: `ours`, or one of the peers, which are fetched and built the
    /// first time.
    ///
    /// # Errors
    /// For an unknown name, or when it cannot be had here.
    pub fn known(name: &str) -> Result<Self, String> {
        let peer = match Peer::parse(name) {
            Ok(Peer::Command { .. }) | Err(_) => {
                let peers = Peer::KNOWN.map(|peer| peer.name()).join(", ");
                return Err(format!(
                    "'{name}' is no back-end known here: try ours, {peers}"
                ));
            }
            Ok(known) => known,
        };
        let mut prepared = peer
            .prepare()
            .map_err(|error| format!("{}: {error}", peer.name()))?;
        if peer == Peer::Ours {
            // Some cases need more than one.
            prepared.add_options(&["--output", "1280x800", "--output", "800x600"]);
        }
        Ok(Self {
            name: peer.name(),
            kind: Kind::Known(prepared),
        })
    }

    /// Makes the back-end ready for one front-end.
    ///
    /// # Errors
    /// When a command cannot be started, or does not listen within `limit`.
    pub fn start(&self, limit: Duration) -> Result<Running, String> {
        match &self.kind {
            Kind::Socket(path) => Ok(Running {
                socket: path.clone(),
                process: None,
            }),
            Kind::Spawn(line) => Process::start(line, limit, |socket| {
                let mut shell = Command::new("/bin/sh");
                shell.args(["-c", &line.replace(SOCKET, &quoted(socket))]);
                shell
            }),
            Kind::Known(prepared) => {
                Process::start(&self.name, limit, |socket| prepared.command(socket))
            }
        }
    }
}

/// Cuts `NAME=` off. A name has letters, digits, dots, dashes and underscores, and a small letter.
fn named(value: &str) -> (Option<&str>, &str) {
    match value.split_once('=') {
        Some((name, rest)) if is_name(name) => (Some(name), rest),
        _ => (None, value),
    }
}

/// A back-end that is ready for a front-end; a process of ours is killed when this is dropped.
#[derive(Debug)]
pub struct Running {
    socket: PathBuf,
    process: Option<Process>,
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Kills a process of ours, with its children; says whether there was one to kill.
    pub fn kill(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| {
            process.kill();
            true
        })
    }

    /// How it died, if it did: by a signal, with a status other than 0, or in a panic of a thread.
    /// `passed`: the front-end was content and has gone; then a plain exit is no death, whatever
    /// its status, nor is SIGPIPE, as a back-end may serve one front-end only.
    pub fn death(&mut self, passed: bool) -> Option<String> {
        self.process.as_mut()?.death(passed)
    }
}

#[derive(Debug, Default)]
struct Said {
    last: VecDeque<String>,
    panic: Option<String>,
}

/// A back-end that was started here, in a process group of its own.
#[derive(Debug)]
struct Process {
    owned: Owned,
    _dir: TempDir,
    socket: PathBuf,
    said: Arc<Mutex<Said>>,
    killed: bool,
}

impl Process {
    /// `name` is for messages.
    fn start(
        name: &str,
        limit: Duration,
        command: impl FnOnce(&Path) -> Command,
    ) -> Result<Running, String> {
        let dir = tempfile::tempdir().map_err(|error| format!("make a directory: {error}"))?;
        let socket = dir.path().join("gpu.sock");
        let mut command = command(&socket);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let owned = Owned::group(&mut command);
        let mut owned = owned.map_err(|error| format!("start '{name}': {error}"))?;
        let said = Arc::new(Mutex::new(Said::default()));
        if let Some(pipe) = owned.child().stderr.take() {
            let said = said.clone();
            std::thread::spawn(move || listen_to(BufReader::new(pipe), &said));
        }
        let mut process = Self {
            owned,
            _dir: dir,
            socket,
            said,
            killed: false,
        };
        process.await_socket(name, limit)?;
        Ok(Running {
            socket: process.socket.clone(),
            process: Some(process),
        })
    }

    fn await_socket(&mut self, name: &str, limit: Duration) -> Result<(), String> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.status() {
                let how = describe(status);
                return Err(format!(
                    "'{name}' ended before it listened ({how}){}",
                    self.last_line()
                ));
            }
            if daemon::is_listening(&self.socket) {
                return Ok(());
            }
            if began.elapsed() > limit {
                return Err(format!(
                    "'{name}' does not listen on its socket after {limit:?}{}",
                    self.last_line()
                ));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn status(&mut self) -> Option<ExitStatus> {
        self.owned.status().ok().flatten()
    }

    fn said(&self) -> std::sync::MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last_line(&self) -> String {
        // The reader may be some microseconds behind the process's end.
        std::thread::sleep(Duration::from_millis(20));
        let said = self.said();
        let line = said.last.iter().rev().find(|line| !line.trim().is_empty());
        line.map(|line| format!("; it said: {}", line.trim()))
            .unwrap_or_default()
    }

    fn death(&mut self, passed: bool) -> Option<String> {
        if self.status().is_none() {
            std::thread::sleep(LAST_GASP);
        }
        if let Some(status) = self.status().filter(|_| !self.killed) {
            // 128 and more is what a shell makes of a signal.
            let signal = status.signal();
            let signal = signal.or_else(|| status.code()?.checked_sub(128));
            let signal = signal.filter(|number| *number > 0);
            let alone = passed && signal.is_none_or(|number| number == Signal::PIPE.as_raw());
            if !(alone || status.success()) {
                return Some(format!(
                    "the back-end ended ({}){}",
                    describe(status),
                    self.last_line()
                ));
            }
        }
        let panic = self.said().panic.clone();
        panic.map(|line| format!("the back-end panicked: {line}"))
    }

    fn kill(&mut self) {
        self.killed = true;
        self.owned.kill();
    }
}

fn listen_to(pipe: impl BufRead, said: &Mutex<Said>) {
    for line in pipe.split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).into_owned();
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.panic.is_none() && line.contains("panicked at") {
            let words: Vec<_> = line.split_whitespace().map(short_path).collect();
            said.panic = Some(words.join(" "));
        }
        if said.last.len() == KEPT_LINES {
            said.last.pop_front();
        }
        said.last.push_back(line);
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("signal {signal}"),
        (None, Some(code)) if code > 128 => format!("signal {}", code - 128),
        (None, Some(code)) => format!("status {code}"),
        (None, None) => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    #[test]
    fn a_command_has_a_name_or_gets_its_programs() {
        let target = Target::spawn("mine=/bin/x --socket-path {socket}").unwrap();
        assert_eq!(target.name, "mine");
        let target = Target::spawn("/usr/lib/x --path={socket}").unwrap();
        assert_eq!(target.name, "x");
        assert!(matches!(target.kind, Kind::Spawn(line) if line == "/usr/lib/x --path={socket}"));
        assert!(Target::spawn("/bin/x").unwrap_err().contains("{socket}"));
    }

    #[test]
    fn a_socket_must_be_one() {
        assert!(
            Target::socket("/dev/null")
                .unwrap_err()
                .contains("not a socket")
        );
        assert!(
            Target::socket("/nowhere/x")
                .unwrap_err()
                .contains("No such file")
        );
    }

    #[test]
    fn a_command_that_ends_at_once_is_told_with_its_last_words() {
        let target = Target::spawn("echo no GPU here >&2; exit 3 # {socket}").unwrap();
        let error = target.start(LIMIT).unwrap_err();
        assert!(
            error.contains("status 3") && error.contains("no GPU here"),
            "{error}"
        );
    }

    #[test]
    fn a_command_that_never_listens_is_killed_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let command = format!("sleep 1000 & echo $! > {}; wait # {SOCKET}", file.display());
        let target = Target::spawn(&command).unwrap();
        let error = target.start(Duration::from_millis(300)).unwrap_err();
        assert!(error.contains("does not listen"), "{error}");
        let pid = std::fs::read_to_string(&file).unwrap();
        let left = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        assert!(left.is_err(), "{left:?}");
    }
}
