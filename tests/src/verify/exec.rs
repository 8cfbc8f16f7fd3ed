//! Runs one command of a step: output into the log, a sign of life now and then, an end at a deadline.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// How long a command may be silent on the screen: long enough not to flood a log, short enough to see what hangs.
const SIGN_OF_LIFE: Duration = Duration::from_secs(60);

/// The process group of the command that runs now; 0 for none.
static RUNNING_GROUP: AtomicI32 = AtomicI32::new(0);

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// By itself, with this success.
    Exited {
        /// Exit status 0.
        success: bool,
    },
    /// It ran into its deadline and was killed, with everything that it had started.
    TimedOut,
}

/// A finished command.
#[derive(Clone, Debug)]
pub(super) struct Finished {
    /// How it ended.
    pub(super) ending: Ending,
    /// Standard output and standard error in the order in which they came.
    pub(super) output: String,
}

/// Runs `command` until it ends or `limit` is over. Its output goes to the file `log` as it comes.
///
/// # Errors
/// The command cannot be started, or the log cannot be written.
pub(super) fn run(mut command: Command, limit: Duration, log: &Path) -> io::Result<Finished> {
    let (reader, writer) = io::pipe()?;
    // A group of its own, so that a deadline also reaches what the command started: test programs, QEMU, daemons.
    command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0);
    let mut log = File::create(log)?;
    writeln!(log, "$ {command:?}")?;
    let mut child = command.spawn()?;
    // Closes the writing end here: the pipe ends when the last process that holds it is gone.
    drop(command);
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    RUNNING_GROUP.store(group.map_or(0, Pid::as_raw_pid), Ordering::SeqCst);
    let finished = follow(&mut child, reader, limit, group, &mut log);
    RUNNING_GROUP.store(0, Ordering::SeqCst);
    finished
}

/// Kills what runs now. For a signal handler thread: without it, Ctrl-C would leave the command's group running.
pub fn kill_running() {
    kill(Pid::from_raw(RUNNING_GROUP.load(Ordering::SeqCst)));
}

fn kill(group: Option<Pid>) {
    if let Some(group) = group {
        // An error means that it has ended meanwhile.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

fn follow(
    child: &mut Child,
    reader: io::PipeReader,
    limit: Duration,
    group: Option<Pid>,
    log: &mut File,
) -> io::Result<Finished> {
    let start = Instant::now();
    let (sender, lines) = mpsc::channel();
    // Ends with the pipe, or when the receiver is gone; not joined, as a stray process may hold the pipe open.
    thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        while matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
            let text = String::from_utf8_lossy(&line).into_owned();
            if sender.send(text).is_err() {
                break;
            }
            line.clear();
        }
    });

    let mut output = String::new();
    let mut last_sign = start;
    let mut left_behind = None;
    loop {
        match lines.recv_timeout(Duration::from_millis(200)) {
            Ok(line) => {
                log.write_all(line.as_bytes())?;
                output.push_str(&line);
            }
            Err(RecvTimeoutError::Disconnected) => {
                let success = child.wait()?.success();
                return Ok(Finished {
                    ending: Ending::Exited { success },
                    output,
                });
            }
            Err(RecvTimeoutError::Timeout) => {
                if let Some(success) = left_behind {
                    kill(group);
                    return Ok(Finished {
                        ending: Ending::Exited { success },
                        output,
                    });
                }
                // Ended, and yet the pipe is open: something that it left behind holds it. One more round for the
                // rest of the output, then that is ended too.
                left_behind = child.try_wait()?.map(|status| status.success());
            }
        }
        if start.elapsed() >= limit {
            kill(group);
            child.wait()?;
            writeln!(log, "killed after {} s", limit.as_secs())?;
            return Ok(Finished {
                ending: Ending::TimedOut,
                output,
            });
        }
        if last_sign.elapsed() >= SIGN_OF_LIFE {
            last_sign = Instant::now();
            let last = output.lines().next_back().unwrap_or_default();
            writeln!(
                io::stdout(),
                "        {} s so far; last line: {}",
                start.elapsed().as_secs(),
                last.trim()
            )?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{Duration, Instant};

    use super::{Ending, run};

    fn shell(script: &str, limit: Duration) -> (Ending, String, String) {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("step.log");
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let finished = run(command, limit, &log).unwrap();
        let logged = std::fs::read_to_string(&log).unwrap();
        (finished.ending, finished.output, logged)
    }

    #[test]
    fn output_of_both_kinds_is_kept_in_order_and_logged() {
        let (ending, output, log) = shell(
            "echo one; echo two >&2; echo three",
            Duration::from_secs(60),
        );
        assert_eq!(ending, Ending::Exited { success: true });
        assert_eq!(output, "one\ntwo\nthree\n");
        assert!(log.ends_with("one\ntwo\nthree\n"), "{log}");
    }

    #[test]
    fn a_failing_command_is_no_success() {
        let (ending, _, _) = shell("exit 3", Duration::from_secs(60));
        assert_eq!(ending, Ending::Exited { success: false });
    }

    #[test]
    fn a_deadline_ends_the_command_and_its_children() {
        let start = Instant::now();
        let (ending, output, log) =
            shell("echo begun; sleep 600 & wait", Duration::from_millis(500));
        assert_eq!(ending, Ending::TimedOut);
        assert_eq!(output, "begun\n");
        assert!(log.contains("killed after"), "{log}");
        assert!(start.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn a_process_left_behind_is_not_waited_for() {
        let start = Instant::now();
        let (ending, _, _) = shell("sleep 20 & exit 0", Duration::from_secs(60));
        assert_eq!(ending, Ending::Exited { success: true });
        assert!(start.elapsed() < Duration::from_secs(15));
    }
}
