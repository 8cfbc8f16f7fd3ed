//! What the running kernel says of itself: its version and its log.

use serde::Serialize;

use super::host::Host;
use crate::memory::fact::Fact;

const RELEASE: &str = "/proc/sys/kernel/osrelease";
const VERSION: &str = "/proc/version";
const LOG: &str = "/dev/kmsg";

/// The first kernel on which KVM maps the pages of a GEM buffer read-only until the process that
/// owns the memslot has written to them (seen on 7.2, absent on 6.12).
const READ_ONLY_FIRST_FAULT: (u32, u32) = (7, 1);

/// The kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kernel {
    /// Its release, as `uname -r` prints it.
    pub release: Fact<String>,
    /// Whether it is a ChromeOS kernel, where bit 3 of a memslot's flags has a meaning of its own.
    pub chromeos: Fact<bool>,
    /// Whether a memslot over a GEM buffer is mapped read-only until its owner has stored to each
    /// page: the guest's first store to each page is then emulated, and fails for some instructions.
    pub read_only_first_fault: Fact<bool>,
}

impl Kernel {
    pub(super) fn probe(host: &Host) -> Self {
        let release = host.line(RELEASE);
        Self {
            chromeos: chromeos(host, &release),
            read_only_first_fault: read_only_first_fault(&release),
            release: match release {
                Ok(release) => Fact::known(release, RELEASE),
                Err(why) => Fact::unknown(why),
            },
        }
    }
}

/// ChromeOS kernels are released as `VERSION-COMMITS-gHASH` and built by the compiler of that
/// system. Neither alone is enough: Google's servers have that compiler too (as `VERSION+`), and
/// any kernel built in a git tree may have such a release. `/etc/lsb-release` says nothing of the
/// kernel: containers and servers carry the same lines.
fn chromeos(host: &Host, release: &Result<String, String>) -> Fact<bool> {
    let (release, version) = match (release, host.lines(VERSION)) {
        (Ok(release), Ok(version)) => (release, version),
        (Err(why), _) => return Fact::unknown(why),
        (_, Err(why)) => return Fact::unknown(why),
    };
    let mut parts = release.split('-').skip(1);
    let commits = parts.next().unwrap_or_default();
    let hash = parts.next().and_then(|hash| hash.strip_prefix('g'));
    let released = commits.len() >= 4
        && commits.bytes().all(|byte| byte.is_ascii_digit())
        && hash.is_some_and(|hash| hash.len() >= 7 && hash.bytes().all(|b| b.is_ascii_hexdigit()));
    let built = version.iter().any(|line| line.contains("(Chromium OS "));
    let (yes, no) = (
        "built by ChromeOS's compiler and released like its kernels",
        "not both built by ChromeOS's compiler and released like its kernels",
    );
    let is = released && built;
    Fact::known(is, format!("{VERSION}: {}", if is { yes } else { no }))
}

fn read_only_first_fault(release: &Result<String, String>) -> Fact<bool> {
    let release = match release {
        Ok(release) => release,
        Err(why) => return Fact::unknown(why),
    };
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next().and_then(|digits| digits.parse().ok());
    match (number(), number()) {
        (Some(major), Some(minor)) => Fact::known(
            (major, minor) >= READ_ONLY_FIRST_FAULT,
            format!("{RELEASE}: {release}; kernels from 7.1 on do"),
        ),
        _ => Fact::unknown(format!("{RELEASE}: {release} is no version")),
    }
}

/// The kernel's log, as far as it is needed: what the kernel said while it started.
#[derive(Debug)]
pub(super) struct Log {
    messages: Vec<String>,
    /// Why a message that is not there may still have been written.
    gap: Option<String>,
}

impl Log {
    pub(super) fn read(host: &Host) -> Self {
        match host.log(LOG) {
            Ok(lines) => Self::parse(&lines),
            Err(why) => Self {
                messages: Vec::new(),
                gap: Some(why),
            },
        }
    }

    /// Takes lines of the form `PRIORITY,SEQUENCE,TIME,FLAGS;TEXT`
    /// (Documentation/ABI/testing/dev-kmsg) up to the start of the first process.
    fn parse(lines: &[String]) -> Self {
        let mut messages = Vec::new();
        let mut from_the_start = false;
        let mut next = None;
        for line in lines {
            // More about the message before it.
            if line.starts_with(' ') {
                continue;
            }
            let Some((priority, sequence, text)) = record(line) else {
                break;
            };
            if next.is_some_and(|next| next != sequence) {
                break;
            }
            next = Some(sequence.saturating_add(1));
            from_the_start |= sequence == 0;
            // Anything from 8 on was written by a process.
            if priority < 8 {
                if text.starts_with("Run /") && text.ends_with(" as init process") {
                    let gap = (!from_the_start).then(missing);
                    return Self { messages, gap };
                }
                messages.push(text.to_owned());
            }
        }
        let gap = Some(missing());
        Self { messages, gap }
    }

    /// Whether the kernel wrote a message that begins with `start`: "no" is known only of a log
    /// that has everything from the first message to the first process, and in it one that begins
    /// with `company`, of which the message would have been one.
    pub(super) fn has(&self, start: &str, company: &str) -> Fact<bool> {
        let said = |start: &str| self.messages.iter().any(|text| text.starts_with(start));
        if said(start) {
            return Fact::known(true, format!("{LOG}: \"{start}\""));
        }
        match &self.gap {
            Some(why) => Fact::unknown(why.as_str()),
            None if said(company) => Fact::known(false, format!("{LOG}: no \"{start}\"")),
            None => Fact::unknown(format!("{LOG}: no message begins with \"{company}\"")),
        }
    }
}

fn missing() -> String {
    format!("{LOG} does not have all messages of the kernel's start")
}

/// Priority, sequence number and text of a message.
fn record(line: &str) -> Option<(u32, u64, &str)> {
    let (head, text) = line.split_once(';')?;
    let mut fields = head.split(',');
    let priority = fields.next()?.parse().ok()?;
    let sequence = fields.next()?.parse().ok()?;
    Some((priority, sequence, text))
}
