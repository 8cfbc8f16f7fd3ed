//! OpenGL in a stock Linux guest: eglinfo, glmark2 and kmscube from Debian's packages, on our daemon with
//! virgl and on other devices, side by side.
//!
//! Everything is drawn in software, so that it runs on any machine: by virgl on the host's processor,
//! or by the guest's own Mesa on the guest's. Pictures of QEMU's screen are kept for people to look at.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use nosnoop_guest::pattern::Size;
use nosnoop_guest::wire::Task;
use nosnoop_guest::wire::commands::{Command, Ending, Ran, Stop};
use serde::Serialize;

use super::demo::{Lab, wait_for_driver};
use super::files::Files;
use super::gl::GlRoot;
use super::initramfs::{self, GPU_MODULES};
use super::picture::Picture;
use super::qemu::{Accelerator, Machine, Setup};
use super::root::Root;
use super::{LabError, Result, date, programs, say};

mod device;
mod output;
pub mod piglit;
mod report;

pub use device::Gl;

/// The guest's memory in MiB: its initial file system alone has 300.
const MEMORY: u32 = 2048;

/// The screen's preferred size: small, so that an emulated processor shows something. kmscube takes it;
/// glmark2 takes the largest mode that there is, 5120x2160 with QEMU.
const SIZE: Size = Size {
    width: 640,
    height: 480,
};

/// Seconds for one program on a busy machine with an emulated processor. It loads 250 MB of libraries
/// first.
const DEADLINE: u64 = 300;

/// The most colours that the kernel's console has.
const CONSOLE_COLORS: usize = 16;

/// How often the screen is looked at while something is drawn.
const LOOK: Duration = Duration::from_millis(1500);

/// Without alpha: the kernel's driver shows no other frame buffers, glmark2 finds that out too late.
const VISUAL: &str = "red=8:green=8:blue=8:alpha=0";

/// Into a texture of this size.
const OFF_SCREEN: [&str; 3] = ["--off-screen", "--size", "640x480"];

const EGLINFO: &str = "usr/bin/eglinfo";
const GLMARK2: &str = "usr/bin/glmark2-es2-drm";
const KMSCUBE: &str = "usr/bin/kmscube";

/// Scenes of glmark2, as its option wants them.
pub const SCENES: [&str; 3] = ["build", "texture", "shading:shading=phong"];

/// What one program did.
#[derive(Clone, Debug, Serialize)]
pub struct Drawn {
    /// What was drawn.
    pub what: String,
    /// Frames per second; none where it did not draw.
    pub per_second: Option<f64>,
    /// What the program says it draws with, where it says so.
    pub renderer: Option<String>,
    /// The file with a picture of the screen meanwhile.
    pub picture: Option<String>,
    /// The last lines of a program that did not draw.
    pub why: Vec<String>,
    /// What the guest's kernel complained of.
    pub kernel: Vec<String>,
    /// How long it took altogether, in milliseconds.
    pub millis: u64,
}

/// What was found on a device.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    /// The device.
    pub device: Gl,
    /// The guest's feature bits of the device; empty where it did not come up.
    pub features: String,
    /// The renderers that eglinfo names, each with its platform.
    pub renderers: Vec<(String, String)>,
    /// What was drawn.
    pub drawn: Vec<Drawn>,
    /// Why there is nothing, or nothing more.
    pub broken: Option<String>,
}

impl Results {
    /// Whether eglinfo names a renderer with `name` in it for the platform.
    #[must_use]
    pub fn names(&self, platform: &str, name: &str) -> bool {
        let mut renderers = self.renderers.iter();
        renderers.any(|(on, renderer)| on == platform && renderer.contains(name))
    }
}

/// Everything that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    /// QEMU's version.
    pub qemu: String,
    /// The guest's kernel.
    pub kernel: String,
    /// `kvm` or `tcg`.
    pub accelerator: String,
    /// When, in UTC.
    pub date: String,
    /// One for each device.
    pub results: Vec<Results>,
}

/// What to draw.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The devices.
    pub devices: Vec<Gl>,
    /// The scenes of glmark2.
    pub scenes: Vec<String>,
    /// Seconds for each scene, once it is drawing.
    pub seconds: u32,
    /// Frames of kmscube.
    pub frames: u32,
}

/// A lab whose guest has OpenGL, and the libraries of the host's side.
#[derive(Debug)]
pub struct GlLab {
    /// QEMU, kernel and initial file system.
    pub lab: Lab,
    /// OpenGL for programs on this machine.
    pub gl: GlRoot,
}

impl GlLab {
    /// Finds or makes everything.
    ///
    /// # Errors
    /// [`LabError::Unavailable`] where no VM or no package can be had; other errors when a step fails.
    pub fn prepare() -> Result<Self> {
        let root = Root::find_or_build()?;
        let gl = GlRoot::find_or_fetch()?;
        let mut files = Files::mesa(&gl)?;
        for program in [EGLINFO, GLMARK2, KMSCUBE] {
            files.program(&gl, program)?;
        }
        piglit::add(&mut files, &gl)?;
        let init = programs::guest()?;
        let initial = initramfs::build(&init, &root.kernel, &GPU_MODULES, &files.list())?;
        let lab = Lab { root, initial };
        Ok(Self { lab, gl })
    }
}

/// Runs the plan; pictures go to `folder`. A device that does not come up is no error but part of the
/// result.
#[must_use]
pub fn run(lab: &GlLab, plan: &Plan, folder: &Path) -> Measurement {
    let one = |device: &Gl| {
        say(format_args!("{}: {}", device.name(), device.description()));
        let mut results = Results {
            device: *device,
            features: String::new(),
            renderers: Vec::new(),
            drawn: Vec::new(),
            broken: None,
        };
        if let Err(error) = run_on(lab, plan, *device, folder, &mut results) {
            say(format_args!("{}: {error}", device.name()));
            results.broken = Some(error.to_string());
        }
        results
    };
    Measurement {
        qemu: lab.lab.root.qemu_version.clone(),
        kernel: lab.lab.root.kernel.release.clone(),
        accelerator: Accelerator::probe().name().to_owned(),
        date: date::today(),
        results: plan.devices.iter().map(one).collect(),
    }
}

fn run_on(
    lab: &GlLab,
    plan: &Plan,
    device: Gl,
    folder: &Path,
    results: &mut Results,
) -> Result<()> {
    let root = device.root(&lab.lab.root, &lab.gl);
    let mut backend = device.start(&lab.gl, &root)?;
    let setup = Setup {
        device: device.device(),
        memory: MEMORY,
        ..Setup::new(Task::Commands)
    };
    let mut machine = Machine::boot(&root, &lab.lab.initial, &mut backend, &setup)?;
    let (driver, _) = wait_for_driver(&mut machine)?;
    results.features = driver.features;
    let said = machine.run(&command(device, &[EGLINFO, "-B"]))?;
    results.renderers = output::renderers(&said.lines);
    for (platform, renderer) in &results.renderers {
        say(format_args!("  eglinfo: {platform}: {renderer}"));
    }
    if results.renderers.is_empty() {
        let lines = said.lines.join("\n");
        return Err(LabError::failed(format!(
            "eglinfo names no renderer:\n{lines}"
        )));
    }
    for scene in &plan.scenes {
        let option = format!("{scene}:duration={}", plan.seconds);
        let words = [GLMARK2, "-b", &option, "--visual-config", VISUAL];
        let short = scene.split(':').next().unwrap_or(scene);
        let drawn = draw(&mut machine, device, short, &words, folder)?;
        results.drawn.push(drawn);
        let words = [&words[..], &OFF_SCREEN].concat();
        let what = format!("{short} off-screen");
        let drawn = draw(&mut machine, device, &what, &words, folder)?;
        results.drawn.push(drawn);
    }
    if plan.frames > 0 {
        let frames = format!("--count={}", plan.frames);
        let words = [KMSCUBE, &frames];
        let drawn = draw(&mut machine, device, "kmscube", &words, folder)?;
        results.drawn.push(drawn);
    }
    machine.power_off()?;
    Ok(())
}

/// A command for the guest of a device; the first word is a path without its slash.
fn command(device: Gl, words: &[&str]) -> Command {
    let mut words = words.iter().map(ToString::to_string).collect::<Vec<_>>();
    if let Some(program) = words.first_mut() {
        program.insert(0, '/');
    }
    let mut environment = vec![
        ("XDG_RUNTIME_DIR".to_owned(), "/tmp".to_owned()),
        ("MESA_SHADER_CACHE_DISABLE".to_owned(), "true".to_owned()),
    ];
    if device == Gl::GuestSoftware {
        environment.push(("LIBGL_ALWAYS_SOFTWARE".to_owned(), "true".to_owned()));
    }
    Command {
        words,
        deadline: DEADLINE,
        environment,
        // kmscube ends when its standard input does.
        stop: Some(Stop::KeyAfter(DEADLINE)),
    }
}

/// Runs a program that draws, and keeps the last picture of the screen that shows more than a console.
fn draw(
    machine: &mut Machine<'_>,
    device: Gl,
    what: &str,
    words: &[&str],
    folder: &Path,
) -> Result<Drawn> {
    let mut looked = Instant::now();
    let mut kept: Option<Picture> = None;
    let ran = machine.run_while(&command(device, words), |machine| {
        if looked.elapsed() >= LOOK {
            // QEMU has none of what it has drawn itself by OpenGL.
            if let Ok(picture) = machine.screendump()
                && is_drawn(&picture)
            {
                kept = Some(picture);
            }
            looked = Instant::now();
        }
        Ok(())
    })?;
    let picture = match kept {
        Some(picture) => {
            let name = format!("{}-{what}.png", device.name());
            picture.save(&folder.join(&name))?;
            Some(name)
        }
        None => None,
    };
    let drawn = judge(what, ran, picture);
    match drawn.per_second {
        Some(rate) => say(format_args!("  {what}: {rate:.1} frames per second")),
        None => say(format_args!("  {what}: {}", drawn.why.join("\n    "))),
    }
    Ok(drawn)
}

/// Whether there is more to see than a console.
fn is_drawn(picture: &Picture) -> bool {
    let colors = picture.pixels.iter().collect::<BTreeSet<_>>();
    colors.len() > CONSOLE_COLORS
}

/// What a program did, by how it ended and what it wrote.
fn judge(what: &str, ran: Ran, picture: Option<String>) -> Drawn {
    let rate = match what {
        "kmscube" => output::kmscube_rate(&ran.lines),
        _ => output::glmark2_rate(&ran.lines),
    };
    let errors = output::glmark2_errors(&ran.lines);
    let ended = ran.ending == Ending::Status(0) && errors.is_empty();
    let per_second = rate.filter(|_| ended);
    let mut why = errors;
    if per_second.is_none() {
        why.push(format!("{:?}", ran.ending));
        why.extend_from_slice(&ran.lines[ran.lines.len().saturating_sub(8)..]);
    }
    Drawn {
        what: what.to_owned(),
        per_second,
        renderer: output::glmark2_renderer(&ran.lines),
        picture,
        why,
        kernel: ran.kernel,
        millis: ran.millis,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_fails_has_no_rate() {
        let ran = |status: i32| Ran {
            ending: Ending::Status(status),
            lines: vec!["[build] duration=2.0: FPS: 61 FrameTime: 16.394 ms".to_owned()],
            kernel: Vec::new(),
            millis: 5,
        };
        assert_eq!(judge("build", ran(0), None).per_second, Some(61.0));
        let failed = judge("build", ran(1), None);
        assert_eq!((failed.per_second, failed.why.len()), (None, 2));
    }

    #[test]
    fn a_console_is_nothing_drawn() {
        let picture = |colors: u32| Picture {
            size: SIZE,
            pixels: (0..SIZE.width * SIZE.height)
                .map(|at| at % colors)
                .collect(),
        };
        assert!(!is_drawn(&picture(2)) && is_drawn(&picture(100)));
    }

    #[test]
    fn only_the_guests_own_mesa_is_told_to_draw_in_software() {
        let told = |device: Gl| {
            let command = command(device, &[EGLINFO]);
            assert_eq!(command.words, ["/usr/bin/eglinfo"]);
            let mut names = command.environment.into_iter();
            names.any(|(name, _)| name == "LIBGL_ALWAYS_SOFTWARE")
        };
        assert!(told(Gl::GuestSoftware) && !told(Gl::Ours));
    }
}
