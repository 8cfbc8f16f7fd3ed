//! A Linux guest with Mesa's Venus driver under stock QEMU, on our daemon: what vulkaninfo says, and what
//! our own Vulkan program sees in memory that it maps.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use nosnoop_guest::wire::commands::{Command, Ending, Ran};
use nosnoop_guest::wire::vulkan::Drawn;
use nosnoop_guest::wire::{self, Driver, Event, Task};
use serde::{Deserialize, Serialize};

use super::super::backend::Backend;
use super::super::files::Files;
use super::super::gl::{self, GlRoot};
use super::super::initramfs::{self, GPU_MODULES};
use super::super::pages::{Mapped, Page};
use super::super::programs::Profile;
use super::super::qemu::{Device, Machine, Setup};
use super::super::root::Root;
use super::super::{LabError, Result, programs, say};
use super::vkmark;

/// Places in the guest.
const VULKANINFO: &str = "usr/bin/vulkaninfo";
const PROGRAM: &str = "bin/nosnoop-vulkan";

/// Mesa's drivers: Venus, and software in the guest.
const VENUS: &str = "virtio";
const SOFTWARE: &str = "lvp";

/// The guest's memory in MiB: without and with software Vulkan, which is LLVM mostly.
const MEMORY: u32 = 768;
const MORE_MEMORY: u32 = 1536;

/// Seconds for vkmark, once it is drawing.
const SECONDS: u32 = 5;

/// From QEMU's start to the guest program, and from there to its driver: seconds, or minutes in a machine
/// that is emulated itself, on a busy machine.
const UP_LIMIT: Duration = Duration::from_secs(900);

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

/// How much of a program's last line is told, in bytes.
const SHOWN: usize = 100;

/// Everything that the guest boots from.
#[derive(Debug)]
pub struct Guest {
    /// QEMU and kernel.
    pub root: Root,
    /// The initial file system.
    pub initial: Vec<u8>,
    wanted: Programs,
}

/// What runs beside our own program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Args)]
pub struct Programs {
    /// vulkaninfo too, with its summary and whole
    #[arg(long)]
    pub info: bool,
    /// vkmark's scene that draws nothing but a colour too, by Venus and by software Vulkan in the guest
    #[arg(long)]
    pub vkmark: bool,
}

impl Programs {
    /// As options of the program `vm`.
    pub(super) fn options(self) -> impl Iterator<Item = &'static str> {
        let info = self.info.then_some("--info");
        info.into_iter().chain(self.vkmark.then_some("--vkmark"))
    }
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
    /// Frames per second of vkmark by each driver; none where it did not draw.
    pub rates: Vec<(String, Option<f64>)>,
    /// All programs.
    pub steps: Vec<Step>,
    /// Seconds from QEMU's start to the guest's driver and to its end.
    pub seconds: [u64; 2],
}

impl Found {
    /// The picture that our program has read from the memory that it maps: a PNG file.
    #[must_use]
    pub fn picture(&self) -> Option<Vec<u8>> {
        let digits = self.drawn.as_ref()?.picture.as_bytes();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        digits.chunks(2).map(byte).collect()
    }

    /// What was found, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut lines = Vec::new();
        for (driver, name) in &self.devices {
            lines.push(format!("vulkaninfo: {name}, driver {driver}"));
        }
        if let Some(drawn) = &self.drawn {
            lines.push(format!(
                "our program: {}, {} wrong pixels in memory that is {}",
                drawn.device, drawn.wrong, drawn.memory
            ));
        }
        if let Some(mapped) = &self.mapped {
            lines.push(format!(
                "the guest maps it {} (page-table bits {}) at {:#x}, {} bytes; Linux lists it as {}",
                mapped.memory_type.name(),
                mapped.flags,
                mapped.physical,
                mapped.size,
                mapped.listed.as_deref().unwrap_or("nothing")
            ));
        }
        for (driver, rate) in &self.rates {
            let rate = rate.map_or("nothing".to_owned(), |rate| rate.to_string());
            lines.push(format!(
                "vkmark clear by {driver}: {rate} frames per second"
            ));
        }
        let failed = self
            .steps
            .iter()
            .filter(|step| step.ran.ending != Ending::Status(0));
        for Step { what, ran } in failed {
            let said = ran.lines.join("\n  ");
            lines.push(format!("{what} ended with {:?}:\n  {said}", ran.ending));
        }
        let [up, end] = self.seconds;
        lines.push(format!(
            "the guest's driver was up after {up} s, the guest at its end after {end} s"
        ));
        lines.join("\n")
    }
}

impl Guest {
    /// Finds or makes everything.
    ///
    /// # Errors
    /// [`LabError::Unavailable`](super::super::LabError::Unavailable) where no VM or no package can be
    /// had; other errors when a step fails.
    pub fn prepare(wanted: Programs) -> Result<Self> {
        let root = Root::find_or_build()?;
        let gl = GlRoot::find_or_fetch()?;
        let mut files = Files::default();
        files.vulkan(&gl, VENUS)?;
        files.program(&gl, VULKANINFO)?;
        let program = programs::vulkan()?;
        files.linked(PROGRAM, &gl.foreign(&program))?;
        if wanted.vkmark {
            files.vulkan(&gl, SOFTWARE)?;
            vkmark::add(&mut files, &gl)?;
        }
        let init = programs::guest()?;
        let initial = initramfs::build(&init, &root.kernel, &GPU_MODULES, &files.list())?;
        Ok(Self {
            root,
            initial,
            wanted,
        })
    }

    /// What is there already, in a folder that [`ROOT_VARIABLE`](super::super::root::ROOT_VARIABLE) names
    /// and in this file.
    ///
    /// # Errors
    /// When it is not there.
    pub fn at(initial: &Path, wanted: Programs) -> Result<Self> {
        Ok(Self {
            wanted,
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
            memory: match self.wanted.vkmark {
                true => MORE_MEMORY,
                false => MEMORY,
            },
            ..Setup::new(Task::Commands)
        };
        let mut found = Found::default();
        let mut machine = Machine::boot(&self.root, &self.initial, &mut backend, &setup)?;
        let started = machine.started;
        let since = || started.elapsed().as_secs();
        found.features = driver(&mut machine)?.features;
        found.seconds[0] = since();
        say(format_args!("the guest's driver is up: {} s", since()));
        if self.wanted.info {
            tell(&mut machine, &mut found)?;
        }
        draw(&mut machine, &mut found)?;
        if self.wanted.vkmark {
            measure(&mut machine, &mut found)?;
        }
        machine.power_off()?;
        found.seconds[1] = since();
        Ok(found)
    }
}

/// What the guest says of its driver.
fn driver(machine: &mut Machine<'_>) -> Result<Driver> {
    loop {
        match machine.event("the GPU driver to come up", UP_LIMIT)? {
            Event::Started { .. } => {}
            Event::Driver { driver, .. } => return Ok(*driver),
            other => return Err(LabError::failed(format!("the guest told {other:?}"))),
        }
    }
}

/// Runs vulkaninfo.
fn tell(machine: &mut Machine<'_>, found: &mut Found) -> Result<()> {
    let words = [VULKANINFO, "--summary"];
    let summary = step(machine, "vulkaninfo --summary", &words, VENUS)?;
    found.devices = devices(&summary.ran.lines);
    found.steps.push(summary);
    let whole = step(machine, "vulkaninfo", &[VULKANINFO], VENUS)?;
    found.steps.push(whole);
    Ok(())
}

/// Runs vkmark by both drivers.
fn measure(machine: &mut Machine<'_>, found: &mut Found) -> Result<()> {
    let words = vkmark::words(SECONDS);
    let words = words.each_ref().map(String::as_str);
    for driver in [VENUS, SOFTWARE] {
        let measured = step(machine, &format!("vkmark by {driver}"), &words, driver)?;
        let rate = vkmark::rate(&measured.ran);
        found.rates.push((driver.to_owned(), rate));
        found.steps.push(measured);
    }
    Ok(())
}

/// Runs our program and looks at the guest's page tables meanwhile.
fn draw(machine: &mut Machine<'_>, found: &mut Found) -> Result<()> {
    let mut looks: VecDeque<Vec<Page>> = VecDeque::new();
    let mut looked = Instant::now();
    let words = [PROGRAM, &HOLD.to_string()];
    let ran = machine.run_while(&command(&words, VENUS), |machine| {
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
fn command(words: &[&str], driver: &str) -> Command {
    let mut words = words.iter().map(ToString::to_string).collect::<Vec<_>>();
    if let Some(program) = words.first_mut() {
        program.insert(0, '/');
    }
    Command {
        words,
        deadline: DEADLINE,
        environment: vec![
            (
                "VK_DRIVER_FILES".to_owned(),
                format!("/usr/share/vulkan/icd.d/{driver}_icd.json"),
            ),
            ("XDG_RUNTIME_DIR".to_owned(), "/tmp".to_owned()),
            ("MESA_SHADER_CACHE_DISABLE".to_owned(), "true".to_owned()),
        ],
        stop: None,
    }
}

fn step(machine: &mut Machine<'_>, what: &str, words: &[&str], driver: &str) -> Result<Step> {
    Ok(told(what, machine.run(&command(words, driver))?))
}

fn told(what: &str, ran: Ran) -> Step {
    say(format_args!(
        "{what}: {:?} after {} ms: {}",
        ran.ending,
        ran.millis,
        ran.lines
            .last()
            .map_or("", |line| line.get(..SHOWN).unwrap_or(line))
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
    fn a_picture_is_read_from_its_digits() {
        let mut found = Found::default();
        assert_eq!(found.picture(), None);
        let drawn = Drawn {
            driver: "venus".to_owned(),
            device: String::new(),
            memory: String::new(),
            address: 0,
            size: 0,
            wrong: 0,
            first_wrong: None,
            picture: "89504e47".to_owned(),
            memory_types: Vec::new(),
            millis: [0; 3],
        };
        found.drawn = Some(drawn.clone());
        assert_eq!(found.picture().unwrap(), b"\x89PNG");
        let picture = "8x".to_owned();
        found.drawn = Some(Drawn { picture, ..drawn });
        assert_eq!(found.picture(), None);
    }

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
