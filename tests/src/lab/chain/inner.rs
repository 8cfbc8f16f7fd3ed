//! The inner machine: QEMU with KVM in the outer machine, with one GPU, on a daemon of its own, for
//! each case.

use std::ffi::OsString;
use std::io::Write;
use std::time::{Duration, Instant};

use nosnoop_guest::wire::{BlobStep, Event, Image, Order, Task};
use serde_json::json;

use super::super::lines::Next;
use super::super::outer::Outer;
use super::super::pages::Page;
use super::super::qemu::{
    Accelerator, Device, PORTS, Setup, base_command, kernel, parameters, ports, socket_device,
};
use super::super::qmp::Qmp;
use super::super::root::Root;
use super::super::{LabError, Result};
use super::cases::Case;
use super::image::{ARCHIVE, root_inside};
use super::look;

/// The inner machine's memory in MiB: it boots the lab's guest, and leaves the outer machine enough.
const MEMORY: u32 = 384;

/// The slot of the first GPU on the root bus; the chipset is in the first and in the last.
const FIRST_SLOT: usize = 4;

/// From QEMU's start to the first mapped image: about 30 s on an idle machine, minutes on a
/// busy one.
const BOOT_LIMIT: Duration = Duration::from_secs(900);

/// From one GPU to the next: a few seconds on an idle machine.
const STEP_LIMIT: Duration = Duration::from_secs(180);

/// How often it is checked whether everything still runs: that costs the outer machine time.
const CHECK_PAUSE: Duration = Duration::from_secs(2);

/// For the inner guest's kernel: there are no PCI buses beyond those that the firmware names. It asks
/// for 8160 devices else, each a millisecond here.
const NO_BUS_SCAN: &str = "pci=lastbus=0";

/// What the inner guest has come to on one GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reached {
    /// It has mapped and drawn an image, and waits.
    Mapped {
        /// The image.
        image: Image,
        /// Linux's list of memory types.
        memory_types: Vec<String>,
    },
    /// It is through with the GPU.
    Through {
        /// The `map_info` with which the device has described the image.
        described: Option<u32>,
        /// What has failed, if something has.
        failure: Option<String>,
    },
}

/// The running inner machine.
#[derive(Debug)]
pub(super) struct Inner<'a> {
    /// The machine that it runs in.
    pub(super) outer: &'a mut Outer,
    /// The process ids of the daemons, a case each.
    pub(super) daemons: Vec<u32>,
    /// The process id of the VMM.
    pub(super) qemu: u32,
    qmp: Qmp,
    /// How long the next step may take.
    limit: Duration,
}

impl<'a> Inner<'a> {
    /// Starts a daemon for each case, and QEMU on all of them with the task
    /// [`Chain`](Task::Chain).
    pub(super) fn boot(root: &Root, outer: &'a mut Outer, cases: &[Case]) -> Result<Self> {
        let mut daemons = Vec::new();
        for (number, case) in cases.iter().enumerate() {
            let socket = socket(number);
            let command = [case.daemon.path(), "--socket-path", &socket];
            let command = command.iter().chain(&super::cases::OPTIONS);
            let command = command.chain(case.options);
            let command = command.map(|word| (*word).to_owned()).collect();
            daemons.push(outer.start(&format!("the daemon of {}", case.name), command)?);
        }
        for number in 0..cases.len() {
            outer.wait_for("the daemons to listen", |outer| {
                // Flag __SO_ACCEPTCON (include/uapi/linux/net.h): there is a listener.
                let found = outer.read("/proc/net/unix", &socket(number))?;
                let listens = |line: &String| line.contains(" 00010000 ");
                Ok(found.iter().any(listens).then_some(()))
            })?;
        }
        let mut devices = Vec::new();
        for port in PORTS {
            devices.push((port, outer.inner_port(port)?));
        }
        look::trace(outer)?;
        let qemu = outer.start("QEMU", command_line(root, &devices, cases.len())?)?;
        let monitor = outer.inner.qmp.try_clone();
        let monitor = monitor.map_err(LabError::context("inner monitor"))?;
        let qmp = Qmp::new(monitor).map_err(|error| outer.complaint(&error.to_string()))?;
        Ok(Self {
            outer,
            daemons,
            qemu,
            qmp,
            limit: BOOT_LIMIT,
        })
    }

    /// Waits until the guest has mapped an image, or is through with a GPU.
    pub(super) fn reach(&mut self) -> Result<Reached> {
        let start = Instant::now();
        loop {
            match self.event(start)? {
                Event::Images {
                    step: BlobStep::Drawn,
                    images,
                    memory_types,
                    ..
                } => {
                    let [image] = images[..] else {
                        return Err(LabError::failed(format!("{images:?} instead of one image")));
                    };
                    self.limit = STEP_LIMIT;
                    return Ok(Reached::Mapped {
                        image,
                        memory_types,
                    });
                }
                Event::Gpu { described, failure } => {
                    self.limit = STEP_LIMIT;
                    return Ok(Reached::Through { described, failure });
                }
                Event::Started { .. } => {}
                other => {
                    let text = format!("the inner guest told {other:?} out of turn");
                    return Err(self.outer.complaint(&text));
                }
            }
        }
    }

    /// The guest program's next event.
    fn event(&mut self, start: Instant) -> Result<Event> {
        loop {
            match self.outer.inner.events.next(CHECK_PAUSE) {
                Next::Line(line) => {
                    if let Some(event) = Event::from_line(&line) {
                        return Ok(event);
                    }
                }
                Next::Nothing => {}
                Next::Closed => return Err(self.outer.complaint("the outer machine has ended")),
            }
            // A dead program shows at once and not after the limit.
            self.outer.check_programs()?;
            if start.elapsed() > self.limit {
                let text = format!("waited {} s for the inner guest", self.limit.as_secs());
                return Err(self.outer.complaint(&text));
            }
        }
    }

    /// Lets the guest program go on.
    pub(super) fn go_on(&mut self) -> Result<()> {
        let line = format!("{}\n", Order::Continue.word());
        let written = self.outer.inner.orders.write_all(line.as_bytes());
        written.map_err(LabError::context("the inner guest takes no orders"))
    }

    /// What the inner machine's processor maps now.
    pub(super) fn pages(&mut self) -> Result<Vec<Page>> {
        let text = self.qmp.human("info tlb");
        let text = text.map_err(|error| self.outer.complaint(&error.to_string()))?;
        Ok(Page::parse_all(&text))
    }

    /// One of the monitor's commands without arguments: `stop`, `cont`, or one that has QEMU do
    /// something short, so that it is what the outer machine's processor ran last.
    pub(super) fn monitor(&mut self, command: &str) -> Result<()> {
        let answer = self.qmp.command(command, &json!({}));
        answer.map_err(|error| self.outer.complaint(&error.to_string()))?;
        Ok(())
    }
}

/// Where the daemon of a case listens.
fn socket(number: usize) -> String {
    format!("/gpu-{number}.sock")
}

/// QEMU's command line as the outer machine runs it, with `gpus` GPUs.
fn command_line(root: &Root, devices: &[(&str, String)], gpus: usize) -> Result<Vec<String>> {
    let inside = root_inside(root);
    let mut command = base_command(&inside, Accelerator::Kvm, MEMORY);
    command.arg("-no-reboot");
    ports(&mut command, |port| {
        let found = devices.iter().find(|(name, _)| *name == port);
        let path = found.map_or("", |(_, path)| path);
        OsString::from(format!("pipe,id={port},path={path}"))
    });
    for number in 0..gpus {
        let id = format!("vgpu{number}");
        command
            .arg("-chardev")
            .arg(socket_device(&id, socket(number).as_ref()));
        let slot = FIRST_SLOT + number;
        let device = format!("{},addr={slot:#x}", Device::Test.argument(&id));
        command.args(["-device", &device]);
    }
    let task = Setup {
        rounds: gpus as u64,
        ..Setup::new(Task::Chain)
    };
    kernel(
        &mut command,
        &inside.kernel,
        ARCHIVE.as_ref(),
        &format!("{} {NO_BUS_SCAN}", parameters(&task)),
    );
    let words = [command.get_program()]
        .into_iter()
        .chain(command.get_args());
    words
        .map(|word| word.to_str().map(str::to_owned))
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| LabError::failed("a path that is no text"))
}
