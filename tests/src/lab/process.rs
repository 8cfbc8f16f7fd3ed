//! Child processes that end with their owner and never outlive a deadline.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{LabError, Result};

/// How often a wait looks again.
pub const POLL: Duration = Duration::from_millis(20);

/// A child process; dropping it kills the process and waits for its end.
#[derive(Debug)]
pub struct Reaped {
    child: Child,
    name: String,
}

impl Reaped {
    /// Starts `command`; `name` is what errors call it.
    ///
    /// # Errors
    /// When the program does not start.
    pub fn spawn(command: &mut Command, name: &str) -> Result<Self> {
        let child = command
            .spawn()
            .map_err(LabError::context(format_args!("cannot start {name}")))?;
        Ok(Self {
            child,
            name: name.to_owned(),
        })
    }

    /// The process, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The status if the process has ended.
    ///
    /// # Errors
    /// When the operating system does not say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child
            .try_wait()
            .map_err(LabError::context(format_args!(
                "cannot ask for {}",
                self.name
            )))
    }

    /// Sends a signal; a process that has ended already is left alone.
    ///
    /// # Errors
    /// When the signal is refused.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.ended()?.is_some() {
            return Ok(());
        }
        let pid = i32::try_from(self.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| LabError::failed(format!("{} has no id", self.name)))?;
        kill_process(pid, signal).map_err(LabError::context(format_args!(
            "cannot signal {}",
            self.name
        )))
    }

    /// Waits for the end of the process.
    ///
    /// # Errors
    /// When it does not end within `limit`; it is left running.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if start.elapsed() > limit {
                return Err(LabError::failed(format!(
                    "{} has not ended within {} s",
                    self.name,
                    limit.as_secs()
                )));
            }
            thread::sleep(POLL);
        }
    }
}

impl Drop for Reaped {
    fn drop(&mut self) {
        // Both fail only when the process has ended already.
        let _killed = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Runs `command` to its end with its output in the file `log`.
///
/// # Errors
/// When it does not start, does not end within `limit`, or ends with another status than 0; the
/// error holds the last lines of its output.
pub fn run_logged(
    command: &mut Command,
    name: &str,
    log: &Path,
    limit: Duration,
    mut each_poll: impl FnMut(),
) -> Result<()> {
    let create = || -> std::io::Result<(File, File)> {
        let file = File::create(log)?;
        Ok((file.try_clone()?, file))
    };
    let (out, err) = create().map_err(LabError::context(log.display()))?;
    command.stdin(Stdio::null()).stdout(out).stderr(err);
    let mut process = Reaped::spawn(command, name)?;
    let start = Instant::now();
    let status = loop {
        if let Some(status) = process.ended()? {
            break status;
        }
        if start.elapsed() > limit {
            return Err(LabError::failed(format!(
                "{name} has not ended within {} s; its last lines:\n{}",
                limit.as_secs(),
                tail(log)
            )));
        }
        each_poll();
        thread::sleep(POLL);
    };
    if status.success() {
        return Ok(());
    }
    Err(LabError::failed(format!(
        "{name} failed ({status}); its last lines:\n{}",
        tail(log)
    )))
}

/// The last lines of a text file, indented.
fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines = text.lines().collect::<Vec<_>>();
    let from = lines.len().saturating_sub(8);
    lines[from..]
        .iter()
        .map(|line| format!("    {line}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_ends_the_wait_and_the_child() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let start = Instant::now();
        let mut command = Command::new("sh");
        command.args(["-c", "echo begun; exec sleep 60"]);
        let error = run_logged(
            &mut command,
            "sleeper",
            &log,
            Duration::from_millis(300),
            || {},
        )
        .unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(20));
        assert!(error.to_string().contains("begun"), "{error}");
    }

    #[test]
    fn a_failing_program_is_an_error_with_its_output() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo out of paper >&2; exit 3"]);
        let log = folder.path().join("log");
        let error = run_logged(
            &mut command,
            "printer",
            &log,
            Duration::from_secs(20),
            || {},
        )
        .unwrap_err();
        assert!(error.to_string().contains("out of paper"), "{error}");
    }
}
