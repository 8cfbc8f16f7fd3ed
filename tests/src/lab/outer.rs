//! The outer machine: a PC whose first program does what we ask of it. As an emulated one it has
//! hardware virtualization, and can run machines of its own.

use std::fs;
use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nosnoop_guest::wire::agent::{Answer, Exchange, Request};
use nosnoop_guest::wire::commands::{self, Ran};
use nosnoop_guest::wire::{self, Event, Task};
use tempfile::TempDir;

use super::demo::BOOT_LIMIT;
use super::lines::{Lines, Next};
use super::pages::Page;
use super::process::Reaped;
use super::qemu::{
    Accelerator, PORTS, RUN_SLACK, SHOWN_LINES, Setup, accept, base_command, kernel, parameters,
    ports, socket_device,
};
use super::qmp::Qmp;
use super::root::Root;
use super::{LabError, Result};

/// How long the agent may take to answer. It does nothing that takes long, but QEMU under it may
/// keep the one processor.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);

/// How long what is certain to come may take on a busy machine, such as the end of a killed program.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);

/// How often the outer machine is asked again: each question costs it time.
const PAUSE: Duration = Duration::from_millis(200);

/// The ports of the inner machine.
#[derive(Debug)]
pub(super) struct InnerPorts {
    /// The monitor's, silent until QEMU runs.
    pub(super) qmp: UnixStream,
    /// What the guest's kernel says.
    pub(super) console: Lines,
    /// From the guest program.
    pub(super) events: Lines,
    /// To the guest program.
    pub(super) orders: UnixStream,
}

/// A running outer machine; dropping it ends QEMU and all that runs in it.
#[derive(Debug)]
pub(super) struct Outer {
    process: Reaped,
    qmp: Qmp,
    link: UnixStream,
    answers: Lines,
    console: Lines,
    errors: Lines,
    /// The ports of the inner machine.
    pub(super) inner: InnerPorts,
    /// When QEMU was started.
    pub(super) started: Instant,
    _folder: TempDir,
}

impl Outer {
    /// Boots the machine from the initial file system `initial`, with `memory` MiB, and waits until its
    /// agent takes requests.
    pub(super) fn boot(
        root: &Root,
        initial: &[u8],
        accelerator: Accelerator,
        memory: u32,
    ) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("nosnoop-outer-")
            .tempdir()
            .map_err(LabError::context("cannot make a folder for the machine"))?;
        let archive = folder.path().join("initramfs");
        fs::write(&archive, initial).map_err(LabError::context(archive.display()))?;
        let listen = |name: &str| {
            let path = folder.path().join(name);
            UnixListener::bind(&path).map_err(LabError::context(path.display()))
        };
        let [qmp, console, link] = PORTS.map(listen);
        let [inner_qmp, inner_console, inner_link] = PORTS.map(|port| listen(&inner(port)));
        let mut command = command(root, folder.path(), &archive, accelerator, memory);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let started = Instant::now();
        let mut process = Reaped::spawn(&mut command, "QEMU")?;
        let errors = process.child().stderr.take();
        let errors = Lines::read(errors.ok_or_else(|| LabError::failed("no pipe to QEMU"))?);
        let mut accept = |listener: Result<UnixListener>, what: &str| {
            accept(&listener?, what, &mut process, &errors)
        };
        let console = Lines::read(accept(console, "console")?);
        let link = accept(link, "link to the agent")?;
        let inner_link = accept(inner_link, "port for the inner link")?;
        let clone = |stream: &UnixStream| {
            let clone = stream.try_clone();
            clone.map_err(LabError::context("link to a guest"))
        };
        let inner = InnerPorts {
            qmp: accept(inner_qmp, "port for the inner monitor")?,
            console: Lines::read(accept(inner_console, "port for the inner console")?),
            events: Lines::read(clone(&inner_link)?),
            orders: inner_link,
        };
        let mut outer = Self {
            qmp: Qmp::new(accept(qmp, "monitor")?)?,
            process,
            answers: Lines::read(clone(&link)?),
            link,
            console,
            errors,
            inner,
            started,
            _folder: folder,
        };
        outer.wait_until_ready()?;
        Ok(outer)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let start = Instant::now();
        loop {
            let line = self.line("the outer machine's agent", BOOT_LIMIT, start)?;
            if let Some(Event::Failed { what }) = Event::from_line(&line) {
                return Err(self.complaint(&format!("the outer machine says: {what}")));
            }
            if wire::from_line(&line) == Some(Answer::Done) {
                return Ok(());
            }
        }
    }

    /// An error with what the outer machine's console, on which its programs write too, and QEMU
    /// said last.
    pub(super) fn complaint(&self, what: &str) -> LabError {
        LabError::failed(format!(
            "{what}\n  the outer machine's console:\n{}  the inner machine's console:\n{}  QEMU:\n{}",
            self.console.last(SHOWN_LINES),
            self.inner.console.last(SHOWN_LINES),
            self.errors.last(SHOWN_LINES),
        ))
    }

    /// Everything that the outer machine wrote on its console so far.
    pub(super) fn console(&self) -> &Lines {
        &self.console
    }

    /// The agent's next line, at most `limit` after `start`.
    fn line(&self, what: &str, limit: Duration, start: Instant) -> Result<String> {
        match self.answers.next(limit.saturating_sub(start.elapsed())) {
            Next::Line(line) => Ok(line),
            Next::Nothing => {
                let seconds = limit.as_secs();
                Err(self.complaint(&format!("waited {seconds} s for {what}")))
            }
            Next::Closed => Err(self.complaint(&format!("QEMU ended while waiting for {what}"))),
        }
    }

    /// Asks the agent for something and returns what it answers.
    fn ask(&mut self, request: &Request) -> Result<Answer> {
        self.ask_within(request, ANSWER_LIMIT)
    }

    fn ask_within(&mut self, request: &Request, limit: Duration) -> Result<Answer> {
        let broken = |error| LabError::context("the outer machine takes no requests")(error);
        let line = wire::to_line(request).map_err(|error| LabError::failed(error.to_string()))?;
        self.link.write_all(line.as_bytes()).map_err(broken)?;
        let start = Instant::now();
        loop {
            let line = self.line(&format!("an answer to {request:?}"), limit, start)?;
            match wire::from_line(&line) {
                Some(Answer::Failed { what }) => {
                    return Err(self.complaint(&format!("the outer machine says: {what}")));
                }
                Some(answer) => return Ok(answer),
                None => {}
            }
        }
    }

    /// Checks that all started programs run.
    ///
    /// # Errors
    /// With how one has ended.
    pub(super) fn check_programs(&mut self) -> Result<()> {
        self.done(&Request::Check)
    }

    /// Starts a program; its output goes to the console. Its process id there.
    pub(super) fn start(&mut self, name: &str, command: Vec<String>) -> Result<u32> {
        let name = name.to_owned();
        match self.ask(&Request::Start { name, command })? {
            Answer::Started { pid } => Ok(pid),
            other => Err(unexpected(&other)),
        }
    }

    /// Runs a program to its end; how that went.
    pub(super) fn run(&mut self, command: commands::Command) -> Result<Ran> {
        let limit = Duration::from_secs(command.deadline) + RUN_SLACK;
        match self.ask_within(&Request::Run { command }, limit)? {
            Answer::Ran { ran } => Ok(ran),
            other => Err(unexpected(&other)),
        }
    }

    /// Compares the picture in a blob, then draws another. Whether every pixel was right.
    pub(super) fn exchange(&mut self, order: Exchange) -> Result<bool> {
        match self.ask(&Request::Exchange(order))? {
            Answer::Compared { wrong } => Ok(wrong.is_none()),
            other => Err(unexpected(&other)),
        }
    }

    fn done(&mut self, request: &Request) -> Result<()> {
        match self.ask(request)? {
            Answer::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    fn lines(&mut self, request: &Request) -> Result<Vec<String>> {
        match self.ask(request)? {
            Answer::Lines { lines } => Ok(lines),
            other => Err(unexpected(&other)),
        }
    }

    /// Writes text to a file, such as a switch of the kernel.
    pub(super) fn write(&mut self, path: &str, text: &str) -> Result<()> {
        self.done(&Request::Write {
            path: path.to_owned(),
            text: text.to_owned(),
        })
    }

    /// The lines of a file that contain `containing`.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn read(&mut self, path: &str, containing: &str) -> Result<Vec<String>> {
        self.lines(&Request::Read {
            path: path.to_owned(),
            containing: containing.to_owned(),
        })
    }

    /// The names in a folder, in order.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub(super) fn list(&mut self, path: &str) -> Result<Vec<String>> {
        self.lines(&Request::List {
            path: path.to_owned(),
        })
    }

    /// Asks until `found` finds something.
    pub(super) fn wait_for<T>(
        &mut self,
        what: &str,
        mut found: impl FnMut(&mut Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let start = Instant::now();
        loop {
            if let Some(found) = found(self)? {
                return Ok(found);
            }
            self.check_programs()?;
            if start.elapsed() > SETTLE_LIMIT {
                let seconds = SETTLE_LIMIT.as_secs();
                return Err(self.complaint(&format!("waited {seconds} s for {what}")));
            }
            thread::sleep(PAUSE);
        }
    }

    /// The device file of the port `port` of inner machines.
    pub(super) fn inner_port(&mut self, port: &str) -> Result<String> {
        const FOLDER: &str = "/sys/class/virtio-ports";
        let name = inner(port);
        self.wait_for(&format!("the port {name}"), |outer| {
            for device in outer.list(FOLDER)? {
                let found = outer.read(&format!("{FOLDER}/{device}/name"), &name)?;
                if found == [name.as_str()] {
                    return Ok(Some(format!("/dev/{device}")));
                }
            }
            Ok(None)
        })
    }

    /// What the outer machine's processor maps now: the program that ran last, and the kernel.
    pub(super) fn pages(&mut self) -> Result<Vec<Page>> {
        Ok(Page::parse_all(&self.qmp.human("info tlb")?))
    }

    /// Switches the machine off and waits until QEMU has ended.
    ///
    /// # Errors
    /// When it does not end in time, or fails.
    pub(super) fn power_off(mut self) -> Result<()> {
        self.check_programs()?;
        let line = wire::to_line(&Request::PowerOff);
        let line = line.map_err(|error| LabError::failed(error.to_string()))?;
        let written = self.link.write_all(line.as_bytes());
        written.map_err(LabError::context("the outer machine takes no requests"))?;
        let status = self.process.wait(SETTLE_LIMIT);
        let status = status.map_err(|error| self.complaint(&error.to_string()))?;
        if status.success() {
            return Ok(());
        }
        Err(self.complaint(&format!("QEMU ended with {status}")))
    }
}

fn unexpected(answer: &Answer) -> LabError {
    LabError::failed(format!("the outer machine answers {answer:?} out of turn"))
}

/// The name of an inner machine's port on the outer machine.
fn inner(port: &str) -> String {
    format!("inner-{port}")
}

/// QEMU's command line.
fn command(
    root: &Root,
    folder: &Path,
    archive: &Path,
    accelerator: Accelerator,
    memory: u32,
) -> Command {
    let mut command = base_command(root, accelerator, memory);
    command.arg("-no-reboot");
    ports(&mut command, |port| socket_device(port, &folder.join(port)));
    command.args(["-device", "virtio-serial-pci"]);
    for port in PORTS.map(inner) {
        command
            .arg("-chardev")
            .arg(socket_device(&port, &folder.join(&port)))
            .args([
                "-device",
                &format!("virtserialport,chardev={port},name={port}"),
            ]);
    }
    kernel(
        &mut command,
        &root.kernel,
        archive,
        &parameters(&Setup::new(Task::Agent)),
    );
    command
}
