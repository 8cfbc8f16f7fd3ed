//! The task [`Agent`](nosnoop_guest::wire::Task::Agent): the host's hands in a machine that runs
//! machines of its own.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};

use nosnoop_guest::pattern::Size;
use nosnoop_guest::wire::agent::{Answer, Exchange, Request};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::link::Link;
use crate::mapping::Mapping;
use crate::setup::mount_trace;
use crate::{Outcome, commands};

/// A program that was started, and what the host calls it.
type Program = (String, Child);

/// Does what the host asks until it switches the machine off.
pub(crate) fn serve(link: &mut Link) -> Outcome<()> {
    mount_trace()?;
    let mut programs = Vec::new();
    link.send_value(&Answer::Done)?;
    loop {
        let request = link.request()?;
        if request == Request::PowerOff {
            return Ok(());
        }
        let answer = perform(request, &mut programs).unwrap_or_else(|error| Answer::Failed {
            what: error.to_string(),
        });
        link.send_value(&answer)?;
    }
}

fn perform(request: Request, programs: &mut Vec<Program>) -> Outcome<Answer> {
    match request {
        Request::Start { name, command } => {
            let child = start(&command)?;
            let pid = child.id();
            programs.push((name, child));
            Ok(Answer::Started { pid })
        }
        Request::Run { command } => {
            let ran = commands::run(&command, &[], &commands::kernel_log()?)?;
            Ok(Answer::Ran { ran })
        }
        Request::Check => check(programs),
        Request::Write { path, text } => {
            fs::write(&path, text).map_err(|error| format!("{path}: {error}"))?;
            Ok(Answer::Done)
        }
        Request::Read { path, containing } => {
            let bytes = fs::read(&path).map_err(|error| format!("{path}: {error}"))?;
            let text = String::from_utf8_lossy(&bytes);
            let lines = text.lines().filter(|line| line.contains(&containing));
            Ok(Answer::Lines {
                lines: lines.map(str::to_owned).collect(),
            })
        }
        Request::List { path } => {
            let entries = fs::read_dir(&path).map_err(|error| format!("{path}: {error}"))?;
            let mut lines = entries
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect::<Outcome<Vec<_>>>()?;
            lines.sort();
            Ok(Answer::Lines { lines })
        }
        Request::Exchange(order) => exchange(&order),
        Request::PowerOff => Err("not a request with an answer".into()),
    }
}

/// Starts a program whose output goes to the console.
fn start(command: &[String]) -> Outcome<Child> {
    let (program, arguments) = command.split_first().ok_or("no program is named")?;
    let console = File::options().write(true).open("/dev/console")?;
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(console.try_clone()?)
        .stderr(console)
        .spawn()
        .map_err(|error| format!("{program} does not start: {error}"))?;
    Ok(child)
}

fn check(programs: &mut [Program]) -> Outcome<Answer> {
    for (name, child) in programs {
        if let Some(status) = child.try_wait()? {
            return Err(format!("{name} has ended ({status})").into());
        }
    }
    Ok(Answer::Done)
}

/// Maps a blob by the very descriptor of the program that has allocated it: a DRM node gives a
/// buffer to nobody else.
fn exchange(order: &Exchange) -> Outcome<Answer> {
    let folder = format!("/proc/{}/fd", order.pid);
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder)? {
        let path = entry?.path();
        // A descriptor may be closed meanwhile.
        if let Ok(target) = fs::read_link(&path)
            && target.to_string_lossy().contains(&order.file)
        {
            let name = path.file_name().and_then(|name| name.to_str());
            found.push(name.ok_or("no name")?.parse::<i32>()?);
        }
    }
    // The same description twice, where the VMM has sent it back as part of its guest's memory.
    let descriptor = *found
        .first()
        .ok_or_else(|| format!("nothing in {folder} is {}", order.file))?;
    let pid = Pid::from_raw(order.pid.cast_signed()).ok_or("process 0")?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    let file = pidfd_getfd(process, descriptor, PidfdGetfdFlags::empty())?;
    let image = &order.image;
    let memory = Mapping::of(file, order.offset, image.size)?;
    let size = Size {
        width: image.width,
        height: image.height,
    };
    let compared = memory.check(size, image.stride, image.seed);
    memory.draw(size, image.stride, order.next_seed);
    Ok(Answer::Compared {
        wrong: compared.err().map(|error| error.to_string()),
    })
}
