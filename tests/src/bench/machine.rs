//! The machine and the time, for reports.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Where and when something was measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Year, month, day and minute, UTC.
    pub date: String,
    /// The processor's name.
    pub cpu: String,
    /// Processors that this process may use.
    pub cpus: usize,
    /// The kernel's release.
    pub kernel: String,
    /// What the machine runs in, if it is a virtual one.
    pub hypervisor: Option<String>,
    /// Load average of the last minute, before and after: what else ran.
    pub load: [String; 2],
}

impl Machine {
    /// This one, now. What the system does not tell is "unknown".
    #[must_use]
    pub fn here() -> Self {
        let info = read("/proc/cpuinfo");
        Self {
            date: now(),
            cpu: field(&info, "model name").unwrap_or("unknown").to_owned(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: read("/proc/sys/kernel/osrelease"),
            hypervisor: hypervisor(&info),
            load: [load(), String::new()],
        }
    }

    /// At the end of the run.
    #[must_use]
    pub fn ended(mut self) -> Self {
        self.load[1] = load();
        self
    }

    /// One line.
    #[must_use]
    pub fn describe(&self) -> String {
        let place = match &self.hypervisor {
            Some(name) => format!("a virtual machine ({name})"),
            None => "no virtual machine".to_owned(),
        };
        format!(
            "{} UTC, {}, {} CPUs, {place}, Linux {}, load {} before and {} after",
            self.date, self.cpu, self.cpus, self.kernel, self.load[0], self.load[1]
        )
    }
}

fn read(path: &str) -> String {
    let text = fs::read_to_string(path);
    text.map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

fn load() -> String {
    let all = read("/proc/loadavg");
    all.split_whitespace().next().unwrap_or_default().to_owned()
}

/// A field of the first processor in `/proc/cpuinfo`.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    let line = info.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim_start().strip_prefix(':')?.trim())
}

/// What a virtual machine calls itself; none for a real one.
fn hypervisor(info: &str) -> Option<String> {
    let flags = field(info, "flags")?;
    flags
        .split_whitespace()
        .find(|flag| *flag == "hypervisor")?;
    let known = ["sys_vendor", "product_name"]
        .map(|name| read(&format!("/sys/class/dmi/id/{name}")))
        .into_iter()
        .filter(|text| text != "unknown" && !text.is_empty())
        .collect::<Vec<_>>();
    match known.is_empty() {
        true => Some("of unknown make".to_owned()),
        false => Some(known.join(" ")),
    }
}

fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    stamp(since.map_or(0, |time| time.as_secs()))
}

/// Year, month, day, hour and minute of a Unix time (UTC, Gregorian calendar).
fn stamp(seconds: u64) -> String {
    let (mut days, rest) = (seconds / 86_400, seconds % 86_400);
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    loop {
        let length = if leap(year) { 366 } else { 365 };
        if days < length {
            break;
        }
        days -= length;
        year += 1;
    }
    let february = if leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute) = (rest / 3600, rest % 3600 / 60);
    format!("{year}-{month:02}-{:02} {hour:02}:{minute:02}", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01 00:00"),
            (951_782_399, "2000-02-28 23:59"),
            (951_782_400, "2000-02-29 00:00"),
            (1_078_099_200, "2004-03-01 00:00"),
            (4_107_542_400, "2100-03-01 00:00"),
            (1_798_761_599, "2026-12-31 23:59"),
        ] {
            assert_eq!(stamp(seconds), expected);
        }
    }

    #[test]
    fn the_processor_is_named_and_a_hypervisor_seen() {
        let info = "processor\t: 0\nmodel name\t: A Thing\nflags\t\t: fpu hypervisor sse\n";
        assert_eq!(field(info, "model name"), Some("A Thing"));
        assert!(hypervisor(info).is_some());
        assert_eq!(hypervisor("flags\t\t: fpu sse\n"), None);
    }
}
