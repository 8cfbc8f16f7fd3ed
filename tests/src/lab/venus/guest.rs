//! A Linux guest with Mesa's Venus driver under stock QEMU, on our daemon: what vulkaninfo says, and what
//! our own Vulkan program sees in memory that it maps.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nosnoop_guest::wire;
use nosnoop_guest::wire::Task;
use nosnoop_guest::wire::commands::{Command, Ran};
use nosnoop_guest::wire::vulkan::Drawn;
use serde::{Deserialize, Serialize};

use super::super::backend::Backend;
use super::super::demo::wait_for_driver;
use super::super::files::Files;
use super::super::gl::{self, GlRoot};
use super::super::initramfs::{self, GPU_MODULES};
use super::super::pages::{Mapped, Page};
use super::super::programs::Profile;
use super::super::qemu::{Device, Machine, Setup};
use super::super::root::Root;
use super::super::{LabError, Result, programs, say};

/// Places in the guest.
const VULKANINFO: &str = "usr/bin/vulkaninfo";
const PROGRAM: &str = "bin/nosnoop-vulkan";

/// The guest's memory in MiB.
const MEMORY: u32 = 1024;

/// Seconds for a program on a busy machine with an emulated processor.
const DEADLINE: u64 = 400;

/// Options of the daemon: a region above 4 GiB, where no range register changes the memory type, and
/// patience with QEMU.
const OPTIONS: [&str; 6] = [
    "--venus=software",
    "--once",
    "--shm-size",
    "8G",
    "--shm-deadline",
    "60",
];

/// How long the program keeps its memory mapped, in seconds, how often it is looked at meanwhile, and
/// how many looks are kept: the last ones are in that time.
const HOLD: u64 = 12;
const LOOK: Duration = Duration::from_secs(2);
const LOOKS: usize = 8;

/// Everything that the guest boots from.
#[derive(Debug)]
pub struct Guest {
    /// QEMU and kernel.
    pub root: Root,
    /// The initial file system.
    pub initial: Vec<u8>,
}

/// A program that was run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    /// What it is.
    pub what: String,
    /// How that went.
    pub ran: Ran,
}

/// What was found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Found {
    /// The guest's feature bits of the device, lowest first.
    pub features: String,
    /// Driver and name of Vulkan's devices, as vulkaninfo tells them.
    pub devices: Vec<(String, String)>,
    /// What our program has drawn, if it got so far.
    pub drawn: Option<Drawn>,
    /// Where the guest has mapped that.
    pub mapped: Option<Mapped>,
    /// All programs.
    pub steps: Vec<Step>,
    /// Seconds from QEMU's start to the guest's driver and to its end.
    pub seconds: [u64; 2],
}

impl Guest {
    /// Finds or makes everything.
    ///
    /// # Errors
    /// [`LabError::Unavailable`](super::super::LabError::Unavailable) where no VM or no package can be
    /// had; other errors when a step fails.
    pub fn prepare() -> Result<Self> {
        let root = Root::find_or_build()?;
        let gl = GlRoot::find_or_fetch()?;
        let mut files = Files::default();
        files.vulkan(&gl, "virtio")?;
        files.program(&gl, VULKANINFO)?;
        files.linked(PROGRAM, &gl.foreign(&programs::vulkan()?))?;
        let init = programs::guest()?;
        let initial = initramfs::build(&init, &root.kernel, &GPU_MODULES, &files.list())?;
        Ok(Self { root, initial })
    }

    /// What is there already, in a folder that [`ROOT_VARIABLE`](super::super::root::ROOT_VARIABLE) names
    /// and in this file.
    ///
    /// # Errors
    /// When it is not there.
    pub fn at(initial: &Path) -> Result<Self> {
        Ok(Self {
            root: Root::find_or_build()?,
            initial: fs::read(initial).map_err(LabError::context(initial.display()))?,
        })
    }

    /// Boots the guest and runs all programs in it, on the daemon with these options beside the usual
    /// ones.
    ///
    /// # Errors
    /// When the machine fails; a program that does is no error.
    pub fn run(&self, options: &[&str]) -> Result<Found> {
        let daemon = gl::daemon(Profile::Release)?;
        let mut backend = Backend::start_daemon(&daemon, &[&OPTIONS, options].concat())?;
        let setup = Setup {
            device: Device::Test,
            memory: MEMORY,
            ..Setup::new(Task::Commands)
        };
        let mut found = Found::default();
        let mut machine = Machine::boot(&self.root, &self.initial, &mut backend, &setup)?;
        let started = machine.started;
        let since = || started.elapsed().as_secs();
        found.features = wait_for_driver(&mut machine)?.0.features;
        found.seconds[0] = since();
        say(format_args!("the guest's driver is up: {} s", since()));
        let summary = step(
            &mut machine,
            "vulkaninfo --summary",
            &[VULKANINFO, "--summary"],
        )?;
        found.devices = devices(&summary.ran.lines);
        found.steps.push(summary);
        found
            .steps
            .push(step(&mut machine, "vulkaninfo", &[VULKANINFO])?);
        draw(&mut machine, &mut found)?;
        machine.power_off()?;
        found.seconds[1] = since();
        Ok(found)
    }
}

/// Runs our program and looks at the guest's page tables meanwhile.
fn draw(machine: &mut Machine<'_>, found: &mut Found) -> Result<()> {
    let mut looks: VecDeque<Vec<Page>> = VecDeque::new();
    let mut looked = Instant::now();
    let words = [PROGRAM, &HOLD.to_string()];
    let ran = machine.run_while(&command(&words), |machine| {
        if looked.elapsed() >= LOOK {
            if looks.len() == LOOKS {
                looks.pop_front();
            }
            looks.push_back(machine.pages()?);
            looked = Instant::now();
        }
        Ok(())
    })?;
    found.drawn = ran.lines.iter().find_map(|line| wire::from_line(line));
    if let Some(drawn) = &found.drawn {
        let find =
            |pages: &Vec<Page>| Mapped::find(pages, drawn.address, drawn.size, &drawn.memory_types);
        found.mapped = looks.iter().find_map(find);
    }
    found.steps.push(told("nosnoop-vulkan", ran));
    Ok(())
}

/// A command for the guest; the first word is a path without its slash.
fn command(words: &[&str]) -> Command {
    let mut words = words.iter().map(ToString::to_string).collect::<Vec<_>>();
    if let Some(program) = words.first_mut() {
        program.insert(0, '/');
    }
    Command {
        words,
        deadline: DEADLINE,
        environment: vec![
            ("XDG_RUNTIME_DIR".to_owned(), "/tmp".to_owned()),
            ("MESA_SHADER_CACHE_DISABLE".to_owned(), "true".to_owned()),
        ],
        stop: None,
    }
}

fn step(machine: &mut Machine<'_>, what: &str, words: &[&str]) -> Result<Step> {
    Ok(told(what, machine.run(&command(words))?))
}

fn told(what: &str, ran: Ran) -> Step {
    say(format_args!(
        "{what}: {:?} after {} ms, {} lines",
        ran.ending,
        ran.millis,
        ran.lines.len()
    ));
    Step {
        what: what.to_owned(),
        ran,
    }
}

/// Drivers and names of the devices in vulkaninfo's summary.
fn devices(lines: &[String]) -> Vec<(String, String)> {
    let mut name = String::new();
    let mut found = Vec::new();
    for line in lines {
        let Some((key, value)) = line.split_once('=') else {
            continue;
        };
        match key.trim() {
            "deviceName" => name = value.trim().to_owned(),
            "driverName" => found.push((value.trim().to_owned(), name.clone())),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_from_the_summary() {
        let lines = [
            "Devices:",
            "GPU0:",
            "\tapiVersion         = 1.4.354",
            "\tdeviceName         = Virtio-GPU Venus (llvmpipe)",
            "\tdriverID           = DRIVER_ID_MESA_VENUS",
            "\tdriverName         = venus",
        ];
        let lines = lines.map(str::to_owned);
        let expected = ("venus".to_owned(), "Virtio-GPU Venus (llvmpipe)".to_owned());
        assert_eq!(devices(&lines), [expected]);
    }
}
