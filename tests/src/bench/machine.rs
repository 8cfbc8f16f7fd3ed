//! The machine and the time, for reports.

use std::fs;

use serde::{Deserialize, Serialize};

use crate::lab::date;

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
            date: date::now(),
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

/// The processor's name and how many of it there are, in one line.
#[must_use]
pub fn processor() -> String {
    let Machine { cpu, cpus, .. } = Machine::here();
    format!("{cpus} x {cpu}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_named_and_a_hypervisor_seen() {
        let info = "processor\t: 0\nmodel name\t: A Thing\nflags\t\t: fpu hypervisor sse\n";
        assert_eq!(field(info, "model name"), Some("A Thing"));
        assert!(hypervisor(info).is_some());
        assert_eq!(hypervisor("flags\t\t: fpu sse\n"), None);
    }
}
