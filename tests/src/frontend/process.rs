//! Child processes that end with their owner; a command line of somebody's with everything that it starts.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Signal, WaitOptions, getpid, kill_process_group, set_child_subreaper, waitpgid,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// How long processes that were killed may take to be gone.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// The process groups that run.
static GROUPS: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

fn groups() -> MutexGuard<'static, Vec<Pid>> {
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A child process; killed and collected when dropped.
#[derive(Debug)]
pub struct Owned {
    child: Child,
    group: Option<Pid>,
}

impl Owned {
    /// Starts a program of which it is known that it starts no other.
    ///
    /// # Errors
    /// When it does not start.
    pub fn program(command: &mut Command) -> io::Result<Self> {
        let child = command.spawn()?;
        Ok(Self { child, group: None })
    }

    /// Starts anything, in a process group of its own that ends as a whole. As a group of its own does
    /// not get the terminal's signals, this process takes it along when one of these ends it.
    ///
    /// # Errors
    /// When it does not start.
    pub fn group(command: &mut Command) -> io::Result<Self> {
        static SIGNALS: Once = Once::new();
        SIGNALS.call_once(end_with_signals);
        // Orphans of a shell come to this process, not to one that may never collect them.
        set_child_subreaper(Some(getpid()))?;
        // Locked over the start: a signal finds all there are.
        let mut groups = groups();
        let child = command.process_group(0).spawn()?;
        let group = Pid::from_child(&child);
        groups.push(group);
        Ok(Self {
            child,
            group: Some(group),
        })
    }

    /// The process that was started.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Its id, which is also that of its group, if it leads one.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Its status, if it has ended.
    ///
    /// # Errors
    /// When the operating system does not say.
    pub fn status(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Kills it, with its group, and waits until all are gone.
    pub fn kill(&mut self) {
        let Some(group) = self.group.take() else {
            // Both fail only when the process is gone already.
            let _ = self.child.kill();
            let _ = self.child.wait();
            return;
        };
        // From now on its number may be somebody else's.
        groups().retain(|other| *other != group);
        // The group may be gone already.
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.child.wait();
        // What it had started is ours to collect now, and comes to its end at once.
        let began = Instant::now();
        while let Ok(ended) = waitpgid(group, WaitOptions::NOHANG) {
            if began.elapsed() > LAST_WAIT {
                break;
            }
            if ended.is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Takes the groups along when a signal ends this process.
fn end_with_signals() {
    // Without handlers all works, but for groups that may outlive this process.
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP]) else {
        return;
    };
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            // Locked until the end: no other group begins.
            let groups = groups();
            for group in groups.iter() {
                // It may be gone already.
                let _ = kill_process_group(*group, Signal::KILL);
            }
            std::process::exit(signal.saturating_add(128));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_ends_as_a_whole_also_when_its_leader_has_ended() {
        for (leader, ended) in [("wait", false), ("exit", true)] {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("pid");
            let line = format!("sleep 1000 & echo $! > {}; {leader}", file.display());
            let mut owned = Owned::group(Command::new("sh").args(["-c", &line])).unwrap();
            let read = || std::fs::read_to_string(&file).unwrap_or_default();
            let began = Instant::now();
            while !read().ends_with('\n') || owned.status().unwrap().is_some() != ended {
                assert!(began.elapsed() < Duration::from_secs(20));
                std::thread::sleep(Duration::from_millis(5));
            }
            let stat = format!("/proc/{}/stat", read().trim());
            assert!(std::fs::exists(&stat).unwrap());
            drop(owned);
            assert!(!std::fs::exists(&stat).unwrap(), "{leader}");
        }
    }
}
