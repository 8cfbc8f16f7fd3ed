//! One virtual machine under QEMU.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nosnoop_guest::pattern::Size;
use nosnoop_guest::wire::commands::{self, Ran};
use nosnoop_guest::wire::{self, Event, Order, ROUNDS_PARAMETER, TASK_PARAMETER, Task};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::backend::{BLOB_FILE, Backend};
use super::lines::{Lines, Next};
use super::pages::Page;
use super::picture::Picture;
use super::process::{POLL, Reaped};
use super::qmp::Qmp;
use super::root::{Kernel, Root};
use super::usage::{self, Held, Usage};
use super::{LabError, Result};

/// How long a QEMU that has closed its consoles may take to end.
const CLOSED_LIMIT: Duration = Duration::from_secs(5);

/// The environment variable that chooses `kvm` or `tcg`.
pub const ACCELERATOR_VARIABLE: &str = "NOSNOOP_LAB_ACCEL";

/// How long QEMU may take to connect its ports; it first connects to the backend.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);

/// How long a switched-off guest may take to end QEMU.
const END_LIMIT: Duration = Duration::from_secs(120);

/// How long a program in the guest may take beyond its own deadline: to be killed, and for the
/// answer on a busy machine.
pub(super) const RUN_SLACK: Duration = Duration::from_secs(40);

/// How many console lines an error shows.
pub(super) const SHOWN_LINES: usize = 25;

/// The memory of the lab's usual machine in MiB.
pub(super) const MEMORY: u32 = 1024;

/// The ports of a machine with a guest.
pub(super) const PORTS: [&str; 3] = ["qmp", "console", "link"];

/// What executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor, through the kernel.
    Kvm,
    /// QEMU's translator; slow, works anywhere.
    Tcg,
    /// The same, as an AMD processor with virtualization: the guest has a KVM of its own.
    Nested,
}

impl Accelerator {
    /// The one that boots a guest here: KVM where the processor has hardware virtualization and
    /// `/dev/kvm` opens. A `/dev/kvm` alone is not enough: without hardware behind it a kernel
    /// does not get through its start.
    #[must_use]
    pub fn probe() -> Self {
        match env::var(ACCELERATOR_VARIABLE).as_deref() {
            Ok("kvm") => return Self::Kvm,
            Ok("tcg") => return Self::Tcg,
            _ => {}
        }
        let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        if has_virtualization(&processor) && Self::kvm_opens() {
            Self::Kvm
        } else {
            Self::Tcg
        }
    }

    /// Whether `/dev/kvm` opens: enough for a machine whose processor only halts.
    #[must_use]
    pub fn kvm_opens() -> bool {
        File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .is_ok()
    }

    /// The name that QEMU knows.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg | Self::Nested => "tcg",
        }
    }
}

/// Whether the text of `/proc/cpuinfo` names a virtualization extension.
fn has_virtualization(processor: &str) -> bool {
    processor
        .lines()
        .filter(|line| line.starts_with("flags"))
        .any(|line| {
            line.split_whitespace()
                .any(|flag| matches!(flag, "vmx" | "svm"))
        })
}

/// The GPU as QEMU presents it to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// `vhost-user-gpu-pci`: with QEMU's display; the size of its screen, or QEMU's default.
    Gpu(Option<Size>),
    /// `vhost-user-test-device-pci` with the GPU's id: no display, but every feature of the
    /// backend reaches the guest, blobs among them.
    Test,
    /// `virtio-gpu-pci`: QEMU itself is the GPU, there is no backend.
    InProcess,
    /// `virtio-gpu-gl-pci`: the same with 3D and a screen of this size; the root's QEMU must find
    /// OpenGL ([`Program::with_more`](super::root::Program::with_more)).
    InProcessGl(Size),
}

impl Device {
    /// The argument for `-device`; `socket` is the socket device to the backend.
    pub(super) fn argument(self, socket: &str) -> String {
        match self {
            Self::Gpu(None) => format!("vhost-user-gpu-pci,chardev={socket}"),
            Self::Gpu(Some(Size { width, height })) => {
                format!("vhost-user-gpu-pci,chardev={socket},xres={width},yres={height}")
            }
            Self::Test => format!(
                "vhost-user-test-device-pci,chardev={socket},virtio-id=16,num_vqs=2,\
                 vq_size=256,config_size=24"
            ),
            Self::InProcess => "virtio-gpu-pci".to_owned(),
            Self::InProcessGl(Size { width, height }) => {
                format!("virtio-gpu-gl-pci,xres={width},yres={height}")
            }
        }
    }
}

/// What to boot.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// The GPU.
    pub device: Device,
    /// What the guest does.
    pub task: Task,
    /// Rounds of the bench and blob tasks.
    pub rounds: u64,
    /// Whether a reboot of the guest starts it again; else it ends QEMU.
    pub may_reboot: bool,
    /// What executes the guest's instructions.
    pub accelerator: Accelerator,
    /// The guest's memory in MiB.
    pub memory: u32,
}

impl Setup {
    /// `task` on the GPU with a display of the default size, under what boots a guest here.
    #[must_use]
    pub fn new(task: Task) -> Self {
        Self {
            device: Device::Gpu(None),
            task,
            rounds: 100,
            may_reboot: false,
            accelerator: Accelerator::probe(),
            memory: MEMORY,
        }
    }
}

/// A running machine on a backend; dropping it ends QEMU.
#[derive(Debug)]
pub struct Machine<'a> {
    process: Reaped,
    qmp: Qmp,
    orders: UnixStream,
    events: Lines,
    console: Lines,
    errors: Lines,
    /// The backend.
    pub backend: &'a mut Backend,
    /// When QEMU was started.
    pub started: Instant,
    folder: TempDir,
}

impl<'a> Machine<'a> {
    /// Starts QEMU; returns as soon as its ports are connected, long before the guest is up.
    ///
    /// # Errors
    /// When QEMU does not start, or ends at once.
    pub fn boot(
        root: &Root,
        initial: &[u8],
        backend: &'a mut Backend,
        setup: &Setup,
    ) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("nosnoop-vm-")
            .tempdir()
            .map_err(LabError::context("cannot make a folder for the machine"))?;
        let archive = folder.path().join("initramfs");
        fs::write(&archive, initial).map_err(LabError::context(archive.display()))?;
        // QEMU connects to sockets that exist already, so that no early output is lost.
        let listen = |name: &str| {
            let path = folder.path().join(name);
            UnixListener::bind(&path).map_err(LabError::context(path.display()))
        };
        let (monitor, console, link) = (listen("qmp")?, listen("console")?, listen("link")?);
        let mut command = command(root, folder.path(), &archive, backend.socket(), setup);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let started = Instant::now();
        let mut process = Reaped::spawn(&mut command, "QEMU")?;
        let errors = process.child().stderr.take();
        let errors = Lines::read(errors.ok_or_else(|| LabError::failed("no pipe to QEMU"))?);
        let mut accept =
            |listener: &UnixListener, what: &str| accept(listener, what, &mut process, &errors);
        let console = Lines::read(accept(&console, "console")?);
        let orders = accept(&link, "link to the guest program")?;
        let events = orders
            .try_clone()
            .map_err(LabError::context("link to the guest"))?;
        let events = Lines::read(events);
        let qmp = Qmp::new(accept(&monitor, "monitor")?)?;
        Ok(Self {
            process,
            qmp,
            orders,
            events,
            console,
            errors,
            backend,
            started,
            folder,
        })
    }

    /// Everything that the kernel wrote on the console so far.
    #[must_use]
    pub fn console(&self) -> &Lines {
        &self.console
    }

    /// An error with what the console, QEMU and the backend said last.
    fn complaint(&self, what: &str) -> LabError {
        let part = |title: &str, lines: String| {
            if lines.is_empty() {
                String::new()
            } else {
                format!("  {title}:\n{lines}")
            }
        };
        LabError::failed(format!(
            "{what}\n{}{}{}",
            part("the guest's console", self.console.last(SHOWN_LINES)),
            part("QEMU", self.errors.last(SHOWN_LINES)),
            part("the backend", self.backend.last_lines(SHOWN_LINES)),
        ))
    }

    /// The guest program's next event; `what` names it in errors.
    ///
    /// # Errors
    /// When none comes within `limit`, the guest reports a failure, or QEMU or the backend ends.
    pub fn event(&mut self, what: &str, limit: Duration) -> Result<Event> {
        self.event_while(what, limit, |_| Ok(()))
    }

    /// As [`Self::event`], and `meanwhile` is done several times a second until it comes.
    fn event_while(
        &mut self,
        what: &str,
        limit: Duration,
        mut meanwhile: impl FnMut(&mut Self) -> Result<()>,
    ) -> Result<Event> {
        let start = Instant::now();
        loop {
            // Short waits, so that a dead backend shows at once and not after the limit.
            match self.events.next(Duration::from_millis(250)) {
                Next::Line(line) => match Event::from_line(&line) {
                    Some(Event::Failed { what }) => {
                        return Err(self.complaint(&format!("the guest says: {what}")));
                    }
                    Some(event) => return Ok(event),
                    // Firmware and boot loader may write there too.
                    None => continue,
                },
                Next::Nothing => meanwhile(self)?,
                Next::Closed => {
                    let status = self.process.wait(CLOSED_LIMIT);
                    let status =
                        status.map_or_else(|_| "still there".to_owned(), |s| s.to_string());
                    let text = format!("QEMU ended ({status}) while the lab waited for {what}");
                    return Err(self.complaint(&text));
                }
            }
            if let Err(error) = self.backend.check_alive() {
                return Err(self.complaint(&error.to_string()));
            }
            if start.elapsed() > limit {
                let seconds = limit.as_secs();
                return Err(self.complaint(&format!("waited {seconds} s for {what}")));
            }
        }
    }

    /// Has the guest run a program, with the task [`Task::Commands`]; how that went.
    ///
    /// # Errors
    /// When the guest does not answer in time, or QEMU or the backend ends.
    pub fn run(&mut self, command: &commands::Command) -> Result<Ran> {
        self.run_while(command, |_| Ok(()))
    }

    /// As [`Self::run`], and `meanwhile` is done several times a second until it has ended.
    ///
    /// # Errors
    /// As [`Self::run`], or what `meanwhile` returns.
    pub fn run_while(
        &mut self,
        command: &commands::Command,
        meanwhile: impl FnMut(&mut Self) -> Result<()>,
    ) -> Result<Ran> {
        let line = wire::to_line(command).map_err(LabError::context("a command"))?;
        let sent = self.orders.write_all(line.as_bytes());
        sent.map_err(LabError::context("the guest takes no commands"))?;
        let limit = Duration::from_secs(command.deadline) + RUN_SLACK;
        let what = format!("{} to end", command.words.join(" "));
        match self.event_while(&what, limit, meanwhile)? {
            Event::Ran { ran } => Ok(ran),
            other => Err(self.complaint(&format!("the guest told {other:?}"))),
        }
    }

    /// Tells the guest what to do next.
    ///
    /// # Errors
    /// When QEMU has gone.
    pub fn order(&mut self, order: Order) -> Result<()> {
        writeln!(self.orders, "{}", order.word())
            .map_err(LabError::context("the guest takes no orders"))
    }

    /// A monitor command.
    ///
    /// # Errors
    /// When QEMU refuses it or does not answer in time.
    pub fn monitor(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let answer = self.qmp.command(command, arguments);
        answer.map_err(|error| self.complaint(&error.to_string()))
    }

    /// QEMU's own picture of the screen.
    ///
    /// # Errors
    /// When QEMU does not write one.
    pub fn screendump(&mut self) -> Result<Picture> {
        let path = self.folder.path().join("screen.png");
        self.monitor("screendump", &json!({ "filename": path, "format": "png" }))?;
        Picture::load(&path)
    }

    /// What the processor's page tables map now: those of the program that ran last, and the
    /// kernel's.
    ///
    /// # Errors
    /// When QEMU refuses or does not answer in time.
    pub fn pages(&mut self) -> Result<Vec<Page>> {
        let text = self.qmp.human("info tlb");
        let text = text.map_err(|error| self.complaint(&error.to_string()))?;
        Ok(Page::parse_all(&text))
    }

    /// How many mappings of host blobs QEMU has.
    ///
    /// # Errors
    /// When QEMU has gone.
    pub fn blob_mappings(&self) -> Result<usize> {
        usage::mappings(self.process.id(), BLOB_FILE)
    }

    /// How many file descriptors and memory mappings QEMU has.
    ///
    /// # Errors
    /// When QEMU has gone.
    pub fn held(&self) -> Result<Held> {
        usage::held(self.process.id())
    }

    /// Memory and processor time of QEMU.
    ///
    /// # Errors
    /// When QEMU has gone.
    pub fn usage(&self) -> Result<Usage> {
        usage::of(self.process.id())
    }

    /// Switches the guest off and waits until QEMU has ended.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn power_off(mut self) -> Result<ExitStatus> {
        self.order(Order::PowerOff)?;
        let status = self.process.wait(END_LIMIT);
        status.map_err(|error| self.complaint(&error.to_string()))
    }
}

/// QEMU's command line.
fn command(
    root: &Root,
    folder: &Path,
    archive: &Path,
    socket: Option<&Path>,
    setup: &Setup,
) -> Command {
    let mut command = base_command(root, setup.accelerator, setup.memory);
    if !setup.may_reboot {
        command.arg("-no-reboot");
    }
    ports(&mut command, |port| socket_device(port, &folder.join(port)));
    if let Some(socket) = socket {
        command.arg("-chardev").arg(socket_device("vgpu", socket));
    }
    if let Device::InProcessGl(_) = setup.device {
        // The one display with OpenGL that needs neither a GPU nor a display server, given SDL's driver
        // "offscreen" in the environment.
        command.args(["-display", "sdl,gl=on"]);
    }
    command.args(["-device", &setup.device.argument("vgpu")]);
    kernel(&mut command, &root.kernel, archive, &parameters(setup));
    command
}

/// The ports of a machine with a guest: the monitor, the console, and the link to the guest
/// program. `device` makes the argument for `-chardev` of each.
pub(super) fn ports(command: &mut Command, device: impl Fn(&str) -> OsString) {
    for port in PORTS {
        command.arg("-chardev").arg(device(port));
    }
    command.args(["-mon", "chardev=qmp,mode=control"]);
    for port in ["console", "link"] {
        command.args(["-serial", &format!("chardev:{port}")]);
    }
}

/// What a guest boots: its kernel, its initial file system and the kernel's command line.
pub(super) fn kernel(command: &mut Command, kernel: &Kernel, archive: &Path, parameters: &str) {
    command
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(archive)
        .args(["-append", parameters]);
}

/// The part of the command line that all machines share: a PC with memory that can be shared, and
/// nothing else. `memory` is in MiB.
pub(super) fn base_command(root: &Root, accelerator: Accelerator, memory: u32) -> Command {
    let mut command = root.qemu.command();
    if let Some(modules) = &root.qemu_modules {
        command.env("QEMU_MODULE_DIR", modules);
    }
    for firmware in &root.firmware {
        command.arg("-L").arg(firmware);
    }
    let cpu = match accelerator {
        Accelerator::Kvm => "host",
        Accelerator::Tcg => "max",
        Accelerator::Nested => "EPYC,+svm,+npt",
    };
    command.args([
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-vga",
        "none",
    ]);
    command.args(["-nic", "none", "-smp", "1", "-cpu", cpu]);
    command.args(["-m", &memory.to_string()]);
    command.args([
        "-machine",
        "q35,memory-backend=mem",
        "-accel",
        accelerator.name(),
    ]);
    let memory = format!("memory-backend-memfd,id=mem,size={memory}M,share=on");
    command.args(["-object", &memory]);
    // The machine ends with this program, however that ends.
    command.args(["-run-with", "exit-with-parent=on"]);
    command
}

/// The argument for `-chardev` that connects to a listening socket.
pub(super) fn socket_device(id: &str, path: &Path) -> OsString {
    // A comma in a value is written twice.
    let path = path.to_string_lossy().replace(',', ",,");
    OsString::from(format!("socket,id={id},path={path}"))
}

/// The kernel's command line.
pub(super) fn parameters(setup: &Setup) -> String {
    // On a busy host an emulated clock looks unstable to the guest, whose warning then looks like a
    // failure of whatever runs at that moment.
    format!(
        "console=ttyS0 quiet panic=-1 tsc=nowatchdog {TASK_PARAMETER}={} {ROUNDS_PARAMETER}={}",
        setup.task.name(),
        setup.rounds
    )
}

/// Waits for QEMU to connect one of its ports.
pub(super) fn accept(
    listener: &UnixListener,
    what: &str,
    process: &mut Reaped,
    errors: &Lines,
) -> Result<UnixStream> {
    let broken = || LabError::context(format_args!("QEMU's {what}").to_string());
    listener.set_nonblocking(true).map_err(broken())?;
    let start = Instant::now();
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).map_err(broken())?;
                return Ok(stream);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(broken()(error)),
        }
        let why = match process.ended()? {
            Some(status) => format!("QEMU ended ({status})"),
            None if start.elapsed() > CONNECT_LIMIT => "QEMU does not come up".to_owned(),
            None => {
                thread::sleep(POLL);
                continue;
            }
        };
        let said = errors.last(SHOWN_LINES);
        return Err(LabError::failed(format!(
            "{why} before its {what} was connected:\n{said}"
        )));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtualization_is_a_whole_flag() {
        assert!(has_virtualization("flags\t\t: fpu vmx sse\n"));
        assert!(has_virtualization("flags\t\t: svm\n"));
        assert!(!has_virtualization("flags\t\t: fpu svm_lock\nbugs : vmx\n"));
    }

    #[test]
    fn the_kernel_learns_task_and_rounds() {
        let setup = Setup {
            rounds: 7,
            ..Setup::new(Task::Bench)
        };
        assert!(parameters(&setup).ends_with("nosnoop.task=bench nosnoop.rounds=7"));
    }
}
