//! The task [`Commands`](nosnoop_guest::wire::Task::Commands): runs programs for the host.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{self, Child, ChildStdin, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use drm::control::Device as _;
use drm::{ClientCapability, Device as _};
use nosnoop_guest::wire::commands::{Command, Ending, Ran, Stop};
use nosnoop_guest::wire::{self, Event, Order};
use rustix::fs::{Mode, OFlags, SeekFrom};
use rustix::process::{Pid, Signal, WaitOptions};

use crate::Outcome;
use crate::link::Link;
use crate::screen::{Card, Screen};
use crate::tasks;

/// Where the output of the running program goes.
const OUTPUT: &str = "/tmp/output";

/// How many lines of it the host gets: its end says what failed.
const KEPT_LINES: usize = 300;

/// How many lines of the kernel's the host gets.
const KEPT_KERNEL_LINES: usize = 20;

/// How long a killed program may take to go.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// How often the program is looked at.
const POLL: Duration = Duration::from_millis(10);

/// The kernel's level "warning" (include/linux/kern_levels.h).
const WARNING: u32 = 4;

/// Tells what the driver says, then runs what the host sends until that sends an order. `card` is
/// closed first: the programs want to be its master.
pub(crate) fn serve(card: Card, link: &mut Link) -> Outcome<Order> {
    tasks::tell_driver(&card, link)?;
    let names = names(&card)?;
    drop(card);
    // Programs look there; the kernel warns once that this place is deprecated.
    let _names = fs::read_dir("/sys/kernel/debug/tracing");
    let log = kernel_log()?;
    loop {
        let line = link.line()?;
        if let Some(order) = Order::from_line(&line) {
            return Ok(order);
        }
        let command: Command =
            wire::from_line(&line).ok_or_else(|| format!("no command: {line:?}"))?;
        let ran = run(&command, &names, &log)?;
        link.send(&Event::Ran { ran })?;
    }
}

/// What stands for what in the arguments of programs.
fn names(card: &Card) -> Outcome<Vec<(&'static str, u32)>> {
    let connector = card.connector()?;
    let screen = Screen::new(card, &connector)?;
    let (width, height) = tasks::preferred(&connector)?.size();
    let mut names = vec![
        ("{connector}", u32::from(connector.handle())),
        ("{crtc}", u32::from(screen.crtc())),
        ("{width}", width.into()),
        ("{height}", height.into()),
    ];
    card.set_client_capability(ClientCapability::UniversalPlanes, true)?;
    for plane in card.plane_handles()? {
        for (id, value) in &card.get_properties(plane)? {
            // DRM_PLANE_TYPE_PRIMARY and DRM_PLANE_TYPE_CURSOR (include/drm/drm_plane.h).
            let name = match value {
                1 => "{primary}",
                2 => "{cursor}",
                _ => continue,
            };
            if card.get_property(*id)?.name() == c"type" {
                names.push((name, u32::from(plane)));
            }
        }
    }
    Ok(names)
}

/// Runs a program to its end, with these names in its arguments replaced by numbers. Of the kernel's
/// log, what comes meanwhile counts.
pub(crate) fn run(command: &Command, names: &[(&str, u32)], log: &OwnedFd) -> Outcome<Ran> {
    rustix::fs::seek(log, SeekFrom::End(0))?;
    let words = command.words.iter().map(|word| {
        let replace = |word: String, (name, id): &(&str, u32)| word.replace(name, &id.to_string());
        names.iter().fold(word.clone(), replace)
    });
    let words = words.collect::<Vec<_>>();
    let (program, arguments) = words.split_first().ok_or("no program is named")?;
    let output = File::create(OUTPUT)?;
    let input = match command.stop {
        Some(_) => Stdio::piped(),
        None => Stdio::null(),
    };
    let start = Instant::now();
    let mut child = process::Command::new(program)
        .args(arguments)
        .current_dir("/tmp")
        .envs(
            command
                .environment
                .iter()
                .map(|(name, value)| (name, value)),
        )
        .stdin(input)
        .stdout(output.try_clone()?)
        .stderr(output)
        // So that what it has started can be ended with it.
        .process_group(0)
        .spawn()
        .map_err(|error| format!("{program} does not start: {error}"))?;
    let status = wait(&mut child, command, start)?;
    let group = Pid::from_child(&child);
    // Nothing is left of most programs.
    let _nobody = rustix::process::kill_process_group(group, Signal::KILL);
    let ending = match status {
        Some(status) => match status.code() {
            Some(code) => Ending::Status(code),
            None => Ending::Signal(status.signal().unwrap_or_default()),
        },
        None if goes(&mut child)? => Ending::Deadline,
        None => Ending::Stuck,
    };
    let millis = start.elapsed().as_millis() as u64;
    // This is the first program: what lost its parent is its child.
    while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
    let text = fs::read(OUTPUT)?;
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines().map(str::to_owned).collect::<Vec<_>>();
    Ok(Ran {
        ending,
        lines: lines[lines.len().saturating_sub(KEPT_LINES)..].to_vec(),
        kernel: complaints(log),
        millis,
    })
}

/// Waits for the program's end; `None` when it does not end in time.
fn wait(child: &mut Child, command: &Command, start: Instant) -> Outcome<Option<ExitStatus>> {
    let mut input = child.stdin.take();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let seconds = start.elapsed().as_secs();
        if seconds >= command.deadline {
            return Ok(None);
        }
        if let Some(stop) = command.stop
            && seconds >= stop.after()
            && let Some(input) = input.take()
        {
            tell(child, input, stop);
        }
        thread::sleep(POLL);
    }
}

/// Asks the program to end; one that has ended meanwhile is not told.
fn tell(child: &Child, mut input: ChildStdin, stop: Stop) {
    let _untold = match stop {
        Stop::KeyAfter(_) => input.write_all(b"\n").is_ok(),
        Stop::InterruptAfter(_) => {
            rustix::process::kill_process(Pid::from_child(child), Signal::INT).is_ok()
        }
    };
}

/// Whether a killed program ends.
fn goes(child: &mut Child) -> Outcome<bool> {
    let start = Instant::now();
    while start.elapsed() < KILL_LIMIT {
        if child.try_wait()?.is_some() {
            return Ok(true);
        }
        thread::sleep(POLL);
    }
    Ok(false)
}

/// The kernel's log.
pub(crate) fn kernel_log() -> Outcome<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::open("/dev/kmsg", flags, Mode::empty())?)
}

/// The lines in the kernel's log from where it was last read that say that something is wrong.
fn complaints(log: &OwnedFd) -> Vec<String> {
    let mut lines = Vec::new();
    // Each read gives one record; the longest that the kernel writes is 8 KiB.
    let mut record = [0; 8192];
    loop {
        let length = match rustix::io::read(log, &mut record) {
            Ok(length) => length,
            // Records were overwritten before they were read; the next read goes on after them.
            Err(rustix::io::Errno::PIPE) => continue,
            Err(_) => return lines,
        };
        let text = String::from_utf8_lossy(&record[..length]);
        let Some((head, message)) = text.split_once(';') else {
            continue;
        };
        // Facility and level are one number, the level in its lowest three bits.
        let level = head.split(',').next().and_then(|word| word.parse().ok());
        let level = level.map_or(u32::MAX, |number: u32| number & 7);
        let message = message.lines().next().unwrap_or_default();
        if level <= WARNING && lines.len() < KEPT_KERNEL_LINES {
            lines.push(message.to_owned());
        }
    }
}
