//! What a process takes of the machine, as `/proc` tells it.

use std::fs;

use serde::{Deserialize, Serialize};

use super::{LabError, Result};

/// What a process has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Resident memory that is its own (anonymous), in KiB.
    pub anonymous_kib: u64,
    /// Resident pages of files: mostly program code, in KiB.
    pub file_kib: u64,
    /// Resident shared memory, in KiB: mostly the guest's own memory as far as it was read.
    pub shared_kib: u64,
    /// Processor time of all its threads in nanoseconds.
    pub cpu_nanos: u64,
}

impl Usage {
    /// Resident memory without the guest's, in KiB.
    #[must_use]
    pub fn own_kib(&self) -> u64 {
        self.anonymous_kib + self.file_kib
    }
}

/// What a process holds open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Held {
    /// Open file descriptors.
    pub descriptors: usize,
    /// Memory mappings.
    pub mappings: usize,
}

/// Memory and processor time of process `pid`.
///
/// # Errors
/// When it has gone.
pub fn of(pid: u32) -> Result<Usage> {
    let status = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&status).map_err(LabError::context(status))?;
    let strange = || LabError::failed("/proc reads unlike any known kernel");
    let mut usage = parse_memory(&status).ok_or_else(strange)?;
    let threads = format!("/proc/{pid}/task");
    for thread in fs::read_dir(&threads)
        .map_err(LabError::context(threads))?
        .flatten()
    {
        // A thread that ends meanwhile takes its time along.
        if let Ok(line) = fs::read_to_string(thread.path().join("schedstat")) {
            usage.cpu_nanos += parse_cpu(&line).ok_or_else(strange)?;
        }
    }
    Ok(usage)
}

/// What process `pid` holds open.
///
/// # Errors
/// When it has gone.
pub fn held(pid: u32) -> Result<Held> {
    let folder = format!("/proc/{pid}/fd");
    let entries = fs::read_dir(&folder).map_err(LabError::context(folder))?;
    Ok(Held {
        descriptors: entries.count(),
        mappings: mappings(pid, "")?,
    })
}

/// How many memory mappings process `pid` has whose line in `/proc/PID/maps` contains `text`.
///
/// # Errors
/// When it has gone.
pub fn mappings(pid: u32, text: &str) -> Result<usize> {
    let path = format!("/proc/{pid}/maps");
    let maps = fs::read_to_string(&path).map_err(LabError::context(path))?;
    Ok(maps.lines().filter(|line| line.contains(text)).count())
}

/// The memory part from the text of `/proc/PID/status`.
fn parse_memory(status: &str) -> Option<Usage> {
    let kib = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim_start_matches(':')
            .trim()
            .strip_suffix(" kB")?
            .parse::<u64>()
            .ok()
    };
    Some(Usage {
        anonymous_kib: kib("RssAnon")?,
        file_kib: kib("RssFile")?,
        shared_kib: kib("RssShmem")?,
        cpu_nanos: 0,
    })
}

/// The processor time in the text of a thread's `schedstat`: its first number, in nanoseconds.
fn parse_cpu(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn usage_is_read_from_proc() {
        let status = "Name:\tx\nRssAnon:\t     120 kB\nRssFile:\t 3000 kB\nRssShmem:\t 4 kB\n";
        let usage = parse_memory(status).unwrap();
        assert_eq!(usage.own_kib(), 3120);
        assert_eq!(usage.shared_kib, 4);
        assert_eq!(parse_cpu("1234 56 7\n"), Some(1234));
    }

    /// What a shell holds after `command`.
    fn shell(command: &str) -> (Held, usize) {
        let mut child = Command::new("/bin/sh")
            .args(["-c", &format!("{command}; echo; read line")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = [0];
        child
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut line)
            .unwrap();
        let found = (
            held(child.id()).unwrap(),
            mappings(child.id(), "[stack]").unwrap(),
        );
        drop(child.stdin.take());
        child.wait().unwrap();
        found
    }

    #[test]
    fn what_is_held_is_counted() {
        let (plain, stacks) = shell(":");
        let (more, _) = shell("exec 8</dev/null 9</dev/null");
        assert_eq!(more.descriptors, plain.descriptors + 2);
        assert_eq!(stacks, 1);
        assert!(plain.mappings > stacks, "{plain:?}");
    }
}
