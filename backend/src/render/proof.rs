//! Shows that a 3D renderer works before a guest is told of it: in a process of its own, as native
//! libraries crash and hang where they do not.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use std::{env, mem, thread};

use nosnoop_protocol::ids::{CapsetId, ContextId, RingIdx};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::gpu::Gpu;
use super::native;
use super::thread::RenderThread;
use super::{Capset, Timeline, venus};

/// The hidden subcommand of the program that is the other process.
pub const SUBCOMMAND: &str = "prove-renderer";

/// How long the other process may take. Starting a GPU's driver takes a second or two, a cold one on a
/// slow disk several; it is waited for before the socket is there.
const LIMIT: Duration = Duration::from_secs(30);

/// How long a fence may take. With nothing to wait for it takes a millisecond, but Vulkan loads its drivers
/// before the first one, perhaps from a slow disk.
const FENCE_LIMIT: Duration = Duration::from_secs(20);

/// What the lines begin with that are meant for the daemon; libraries write others.
const MARK: &str = "proof: ";

/// A capability set, and why it does not work if it does not.
type Verdict = (CapsetId, Result<(), String>);

/// The other process: tries each capability set and writes a line about it. To be called before this
/// process has a second thread.
///
/// # Errors
/// There is nobody to tell.
pub fn run(gpu: &Gpu, capsets: &[CapsetId], to: &mut impl Write) -> io::Result<()> {
    native::prepare(gpu);
    let thread = match native::start_with(gpu, capsets.to_vec()) {
        Ok(thread) => thread,
        Err(why) => {
            for &id in capsets {
                write_line(to, &(id, Err(why.clone())))?;
            }
            return Ok(());
        }
    };
    for &id in capsets {
        let capset = thread.capsets().iter().find(|capset| capset.id == id);
        let result = match capset {
            Some(capset) => works(&thread, capset),
            None => Err("the renderer does not have it".to_owned()),
        };
        write_line(to, &(id, result))?;
    }
    // All is said; how the libraries end does not matter.
    mem::forget(thread);
    Ok(())
}

fn write_line(to: &mut impl Write, (id, result): &Verdict) -> io::Result<()> {
    match result {
        Ok(()) => writeln!(to, "{MARK}{} ok", id.0)?,
        Err(why) => writeln!(to, "{MARK}{} {why}", id.0)?,
    }
    to.flush()
}

/// Contents, a context, a fence on each timeline; for Vulkan a driver that answers.
fn works(thread: &RenderThread, capset: &Capset) -> Result<(), String> {
    if capset.data.iter().all(|&byte| byte == 0) {
        return Err("its contents are empty".to_owned());
    }
    let id = capset.id;
    let nothing = || "there is no such id".to_owned();
    let context = ContextId::new(1).ok_or_else(nothing)?;
    let ring = RingIdx::new(0).ok_or_else(nothing)?;
    thread
        .call("CTX_CREATE", move |renderer| {
            renderer.create_context(context, id, "proof")
        })
        .map_err(|error| format!("no context can be made: {error}"))?;
    for timeline in [Timeline::Global, Timeline::Context(context, ring)] {
        execute(thread, context, timeline, Vec::new())?;
    }
    if id == native::VENUS {
        let mut execute = |words| {
            let timeline = Timeline::Context(context, ring);
            execute(thread, context, timeline, words)
        };
        venus::devices(thread, context, &mut execute)?;
    }
    thread.destroy_context(context);
    Ok(())
}

/// Has commands executed, and waits until they are.
fn execute(
    thread: &RenderThread,
    context: ContextId,
    timeline: Timeline,
    commands: Vec<u8>,
) -> Result<(), String> {
    let (done, wait) = channel();
    // Whoever waits may have given up by then.
    let done = Box::new(move |result| drop(done.send(result)));
    thread
        .submit(context, commands, Some((timeline, done)))
        .map_err(|error| format!("no commands are taken: {error}"))?;
    match wait.recv_timeout(FENCE_LIMIT) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("no fence can be made: {error}")),
        Err(RecvTimeoutError::Timeout) => {
            let seconds = FENCE_LIMIT.as_secs();
            Err(format!("a fence is not signalled within {seconds} s"))
        }
        Err(RecvTimeoutError::Disconnected) => Err("a fence was lost".to_owned()),
    }
}

/// What the other process finds, for each capability set.
pub(super) fn of_child(gpu: &Gpu, capsets: &[CapsetId]) -> Vec<Verdict> {
    let (said, end) = match child(gpu, capsets) {
        Ok(result) => result,
        Err(error) => (
            String::new(),
            format!("the process to try it in does not start: {error}"),
        ),
    };
    verdicts(capsets, &said, &end)
}

/// The verdicts in what the other process has said; `end` is how it ended, which is the reason for those
/// that it did not come to.
fn verdicts(capsets: &[CapsetId], said: &str, end: &str) -> Vec<Verdict> {
    let mut found = Vec::new();
    for line in said.lines() {
        match line.strip_prefix(MARK) {
            Some(verdict) => found.extend(parse(verdict)),
            None => log::debug!("while a 3D renderer was tried: {line}"),
        }
    }
    let verdict = |&id: &CapsetId| {
        let result = found.iter().find(|(other, _)| *other == id);
        result.map_or_else(|| (id, Err(end.to_owned())), Clone::clone)
    };
    capsets.iter().map(verdict).collect()
}

fn parse(verdict: &str) -> Option<Verdict> {
    let (id, why) = verdict.split_once(' ')?;
    let result = match why {
        "ok" => Ok(()),
        why => Err(why.to_owned()),
    };
    Some((CapsetId(id.parse().ok()?), result))
}

/// Runs the other process: what it says, and how it ended.
fn child(gpu: &Gpu, capsets: &[CapsetId]) -> io::Result<(String, String)> {
    let (reader, writer) = io::pipe()?;
    let mut command = Command::new(env::current_exe()?);
    command.arg(SUBCOMMAND).args(arguments(gpu, capsets));
    command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer);
    let mut child = command.spawn()?;
    // It has the writing end too, without which the other's would never be the last.
    drop(command);
    let (said, all) = read_until(&reader.into(), LIMIT)?;
    let end = if all {
        ended(child.wait()?)
    } else {
        child.kill()?;
        reap(child)?;
        let seconds = LIMIT.as_secs();
        format!("the process that tried it did not end within {seconds} s")
    };
    Ok((String::from_utf8_lossy(&said).into_owned(), end))
}

/// Waits for the end of a killed process on a thread of its own: what hangs in a driver may not die of
/// that either.
fn reap(mut child: Child) -> io::Result<()> {
    let thread = thread::Builder::new().name("reaper".to_owned());
    // Fails only for what is no child of this process any more.
    thread.spawn(move || drop(child.wait()))?;
    Ok(())
}

fn ended(status: ExitStatus) -> String {
    format!("the process that tried it ended with {status}")
}

fn arguments(gpu: &Gpu, capsets: &[CapsetId]) -> Vec<OsString> {
    let mut arguments = Vec::new();
    if let Gpu::Node(path) = gpu {
        arguments.extend(["--render-node".into(), path.into()]);
    }
    for capset in capsets {
        arguments.extend(["--capset".into(), capset.0.to_string().into()]);
    }
    arguments
}

/// All that comes until the end of the pipe, or in this time; whether it was the end.
fn read_until(pipe: &OwnedFd, limit: Duration) -> io::Result<(Vec<u8>, bool)> {
    let start = Instant::now();
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let left = limit.saturating_sub(start.elapsed());
        let left = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
        match poll(&mut [PollFd::new(pipe, PollFlags::IN)], Some(&left)) {
            Ok(0) => return Ok((bytes, false)),
            Err(Errno::INTR) => continue,
            result => result?,
        };
        match rustix::io::read(pipe, &mut chunk) {
            Ok(0) => return Ok((bytes, true)),
            Ok(count) => bytes.extend_from_slice(chunk.get(..count).unwrap_or_default()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIRGL: CapsetId = CapsetId(1);
    const VIRGL2: CapsetId = CapsetId(2);
    const BOTH: [CapsetId; 2] = [VIRGL, VIRGL2];

    #[test]
    fn lines_of_libraries_do_not_count_and_what_is_missing_has_the_ends_reason() {
        let said = "Mesa: 2 ok\nproof: 1 ok\nproof: nonsense\n2 ok\nproof: 9 ok\n";
        let expected = [(VIRGL, Ok(())), (VIRGL2, Err("it crashed".to_owned()))];
        assert_eq!(verdicts(&BOTH, said, "it crashed"), expected);
        let why = "no context can be made: the renderer refuses: x";
        let said = format!("proof: 1 {why}\nproof: 2 ok\n");
        let expected = [(VIRGL, Err(why.to_owned())), (VIRGL2, Ok(()))];
        assert_eq!(verdicts(&BOTH, &said, "it crashed"), expected);
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let mut text = Vec::new();
        let said = [(VIRGL, Err("why: so".to_owned())), (VIRGL2, Ok(()))];
        for verdict in &said {
            write_line(&mut text, verdict).unwrap();
        }
        assert_eq!(verdicts(&BOTH, &String::from_utf8(text).unwrap(), ""), said);
    }

    #[test]
    fn a_pipe_is_read_to_its_end_or_until_the_deadline() {
        let (reader, mut writer) = io::pipe().unwrap();
        let reader = reader.into();
        writer.write_all(b"some").unwrap();
        let soon = Duration::from_millis(20);
        assert_eq!(
            read_until(&reader, soon).unwrap(),
            (b"some".to_vec(), false)
        );
        writer.write_all(b"more").unwrap();
        drop(writer);
        let late = Duration::from_secs(60);
        assert_eq!(read_until(&reader, late).unwrap(), (b"more".to_vec(), true));
    }

    #[test]
    fn a_killed_process_is_reaped() {
        let mut child = Command::new("/bin/sleep").arg("600").spawn().unwrap();
        let stat = format!("/proc/{}/stat", child.id());
        child.kill().unwrap();
        reap(child).unwrap();
        let start = Instant::now();
        // A process that nobody has waited for keeps its entry.
        while std::path::Path::new(&stat).exists() {
            assert!(start.elapsed() < Duration::from_secs(60));
            thread::yield_now();
        }
    }

    #[test]
    fn a_process_that_crashes_is_told_of() {
        let mut command = Command::new("/bin/sh");
        let status = command.args(["-c", "kill -SEGV $$"]).status().unwrap();
        assert!(ended(status).contains("signal"), "{}", ended(status));
    }
}
