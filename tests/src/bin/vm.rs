//! `cargo vm`: boots the lab's guest and shows what it does.

#![allow(clippy::print_stdout, reason = "its results go to standard output")]

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use nosnoop_guest::wire::{self, Event, Order, Task};
use nosnoop_tests::lab::backend::{Backend, Kind};
use nosnoop_tests::lab::demo::{BOOT_LIMIT, Lab, ONE_MACHINE, STEP_LIMIT};
use nosnoop_tests::lab::driver_tests::explained::{self, Explanations};
use nosnoop_tests::lab::driver_tests::{self, Column, List, Report};
use nosnoop_tests::lab::gl::GlRoot;
use nosnoop_tests::lab::gl_guest::{self, Gl, GlLab, Plan, piglit};
use nosnoop_tests::lab::programs::Profile;
use nosnoop_tests::lab::qemu::{Accelerator, Device, Setup};
use nosnoop_tests::lab::report::read_report;
use nosnoop_tests::lab::root::Root;
use nosnoop_tests::lab::{LabError, Result, bench, say, venus};
use nosnoop_tests::results::{self, Places, Results};

/// The folders of the results, and a document's sections for them.
const BENCH: &str = "vm-bench";
const CONFORM: &str = "vm-conform";
const GL: &str = "vm-gl";
const PIGLIT: &str = "vm-piglit";
const VENUS: &str = "vm-venus";

/// Boots a Linux guest on a virtio-gpu backend.
#[derive(Parser)]
#[command(name = "cargo vm", bin_name = "cargo vm")]
struct Arguments {
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// Finds QEMU and a kernel, or builds the cached root with them, and says where they are.
    Root,
    /// Finds software OpenGL and virglrenderer, or builds the cached root with them, builds the
    /// daemon with a 3D renderer, and says where they are.
    GlRoot,
    /// Boots once, runs one task, prints what the guest says.
    Boot(Boot),
    /// Runs real driver tests (igt-gpu-tools, libdrm's programs) on our daemon and on QEMU's own
    /// virtio-gpu and compares them.
    Conform(Conform),
    /// Runs OpenGL's programs (eglinfo, glmark2, kmscube) in a guest, on our daemon with virgl and on
    /// other devices, and compares them.
    Gl(GlArguments),
    /// Runs a fixed list of piglit's tests in a guest and on llvmpipe directly, and compares them.
    Piglit(PiglitArguments),
    /// Runs Vulkan's programs in a guest with Mesa's Venus driver, on our daemon.
    Venus(VenusArguments),
    /// Runs the bench and idle tasks on several backends by turns and compares them.
    Bench(Bench),
}

#[derive(Args)]
struct Boot {
    /// ours, qemu (its own vhost-user-gpu) or the path of a program with --socket-path.
    #[arg(long, default_value = "ours", value_parser = Kind::parse)]
    backend: Kind,
    /// demo, idle, bench, info or blob.
    #[arg(long, default_value = "info", value_parser = task)]
    task: Task,
    /// gpu-pci (QEMU's vhost-user-gpu-pci, with a display) or test-device (blobs, no display).
    #[arg(long, default_value = "gpu-pci", value_parser = device)]
    device: Device,
    /// Rounds of the bench and blob tasks.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Size of the shared-memory region of our daemon, such as 8G; none without it.
    #[arg(long)]
    shm_size: Option<String>,
    /// Prints the guest's console at the end.
    #[arg(long)]
    console: bool,
}

#[derive(Args)]
struct Conform {
    /// The devices: ours, host-blobs, guest-blobs, qemu.
    #[arg(long, value_delimiter = ',', default_value = "ours,host-blobs,guest-blobs,qemu", value_parser = column)]
    devices: Vec<Column>,
    /// Only tests with this text in their names; not all of them is not a result.
    #[arg(long)]
    only: Option<String>,
    /// Another list of tests, in the form of the project's own.
    #[arg(long)]
    list: Option<PathBuf>,
    /// Only the short list, as `cargo verify` runs it.
    #[arg(long)]
    short: bool,
    /// The results of an earlier run, from its JSON, instead of running anything.
    #[arg(long, value_name = "JSON", conflicts_with_all = ["devices", "only", "short"])]
    from: Option<PathBuf>,
    /// Where a page with all results goes [target/vm-conform/vm-conform.html].
    #[arg(long, value_name = "PATH")]
    html: Option<PathBuf>,
    #[command(flatten)]
    places: Places,
}

#[derive(Args)]
struct Bench {
    /// The backends to compare; the first is what the others are relative to.
    #[arg(long, value_delimiter = ',', default_value = "ours,qemu,in-process", value_parser = Kind::parse)]
    backends: Vec<Kind>,
    /// How often each backend takes its turn.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    turns: u32,
    /// Rounds of the bench task in each turn.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// The results of an earlier run, from its JSON, instead of running anything.
    #[arg(long, value_name = "JSON", conflicts_with_all = ["backends", "turns", "rounds"])]
    from: Option<PathBuf>,
    /// The folder for the chart [target/vm-bench].
    #[arg(long, value_name = "DIR")]
    svg: Option<PathBuf>,
    #[command(flatten)]
    places: Places,
}

#[derive(Args)]
struct GlArguments {
    /// The devices: ours, vhost-user-gpu, vhost-device-gpu, in-process, guest-software.
    #[arg(long, value_delimiter = ',', default_value = "ours,vhost-user-gpu,vhost-device-gpu,in-process,guest-software", value_parser = gl_device)]
    devices: Vec<Gl>,
    /// The scenes of glmark2, as its option -b wants them, without their duration.
    #[arg(long, value_delimiter = ' ', default_values = gl_guest::SCENES)]
    scenes: Vec<String>,
    /// Seconds for each scene.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Frames of kmscube; 0 leaves it out.
    #[arg(long, default_value_t = 300)]
    frames: u32,
    /// The folder for the pictures [target/vm-gl].
    #[arg(long, value_name = "DIR")]
    pictures: Option<PathBuf>,
    #[command(flatten)]
    places: Places,
}

#[derive(Args)]
struct PiglitArguments {
    /// The guest's device, as for `cargo vm gl`; explanations are about ours.
    #[arg(long, default_value = "ours", value_parser = gl_device)]
    device: Gl,
    #[command(flatten)]
    places: Places,
}

#[derive(Args)]
struct VenusArguments {
    /// Options of the daemon beside the usual ones, in one word.
    #[arg(
        long,
        allow_hyphen_values = true,
        default_value = "",
        value_name = "WORDS"
    )]
    options: String,
    /// Runs it in an emulated machine with /dev/udmabuf, without which software Vulkan has no memory
    /// that can be mapped.
    #[arg(long)]
    nested: bool,
    /// Announces all of Vulkan's memory with this type (wc, cached, uncached), which it does not have: for
    /// the guest's page tables, in a test build of the daemon.
    #[arg(long, requires = "nested", value_name = "TYPE")]
    announce: Option<String>,
    /// The guest's initial file system, made before: for the run inside that machine, whose result is
    /// one line then.
    #[arg(long, hide = true, conflicts_with = "nested")]
    initial: Option<PathBuf>,
    #[command(flatten)]
    programs: venus::Programs,
}

fn task(name: &str) -> std::result::Result<Task, String> {
    Task::from_name(name).ok_or_else(|| format!("'{name}' is no task"))
}

fn device(name: &str) -> std::result::Result<Device, String> {
    match name {
        "gpu-pci" => Ok(Device::Gpu(None)),
        "test-device" => Ok(Device::Test),
        other => Err(format!("'{other}' is neither gpu-pci nor test-device")),
    }
}

fn column(name: &str) -> std::result::Result<Column, String> {
    Column::from_name(name).ok_or_else(|| format!("'{name}' is no device of the driver tests"))
}

fn gl_device(name: &str) -> std::result::Result<Gl, String> {
    Gl::from_name(name).ok_or_else(|| format!("'{name}' is no device of the OpenGL runs"))
}

fn gl(arguments: &GlArguments) -> Result<()> {
    let lab = GlLab::prepare()?;
    let results = Results::at(&arguments.places, GL)?;
    let pictures = results::folder_at(arguments.pictures.as_deref(), GL)?;
    let plan = Plan {
        devices: arguments.devices.clone(),
        scenes: arguments.scenes.clone(),
        seconds: arguments.seconds,
        frames: arguments.frames,
    };
    let measurement = gl_guest::run(&lab, &plan, &pictures);
    let table = measurement.markdown();
    println!("{table}");
    results.write(&measurement, &table, &table)
}

fn piglit(arguments: &PiglitArguments) -> Result<()> {
    let results = Results::at(&arguments.places, PIGLIT)?;
    let lab = GlLab::prepare()?;
    let comparison = piglit::run(&lab, arguments.device)?;
    let text = comparison.markdown()?;
    println!("{text}");
    results.write(&comparison, &text, &text)?;
    let problems = comparison.problems()?;
    if problems.is_empty() {
        return Ok(());
    }
    println!("{}", problems.join("\n"));
    Err(LabError::failed(format!(
        "{} tests are not as explained in tests/src/lab/gl_guest/piglit.toml",
        problems.len()
    )))
}

fn venus(arguments: &VenusArguments) -> Result<()> {
    let options = arguments.options.split_whitespace().collect::<Vec<_>>();
    let wanted = arguments.programs;
    if let Some(initial) = &arguments.initial {
        let found = venus::Guest::at(initial, wanted)?.run(&options)?;
        let line = wire::to_line(&found).map_err(LabError::context("results"))?;
        print!("{line}");
        return Ok(());
    }
    let results = Results::at(&Places::default(), VENUS)?;
    let pictures = results::folder_at(None, VENUS)?;
    let found = match arguments.nested {
        true => {
            let announced = arguments.announce.clone();
            venus::NestedGuest::prepare(wanted, announced)?.run(&arguments.options)?
        }
        false => venus::Guest::prepare(wanted)?.run(&options)?,
    };
    let text = found.describe();
    println!("{text}");
    results.write(&found, &text, &text)?;
    if let Some(picture) = found.picture() {
        let path = pictures.join("triangle.png");
        fs::write(&path, picture).map_err(LabError::context(path.display()))?;
    }
    match found.drawn {
        Some(drawn) if drawn.wrong == 0 => Ok(()),
        _ => Err(LabError::failed(
            "the picture in mapped memory is not right, or there is none",
        )),
    }
}

fn conform(arguments: &Conform) -> Result<()> {
    let list = match &arguments.list {
        Some(file) => List::read(file)?,
        None => List::fixed()?,
    };
    let explanations = match &arguments.list {
        Some(_) => Explanations::none(),
        None => Explanations::fixed(&list)?,
    };
    let results = Results::at(&arguments.places, CONFORM)?;
    let page = results::file_at(arguments.html.as_deref(), CONFORM, "vm-conform.html")?;
    let comparison = match &arguments.from {
        Some(file) => read_report(file)?,
        None => driver_tests::run(&list, &arguments.devices, |test| {
            let only = arguments.only.as_ref();
            only.is_none_or(|text| test.name.contains(text)) && (test.short || !arguments.short)
        })?,
    };
    let report = Report::new(&comparison, &explanations, &list);
    println!("{}", report.text());
    results.write(&comparison, &report.markdown(), &report.summary())?;
    results::write(&page, &report.html())?;
    if let Some(why) = comparison.broken {
        return Err(LabError::failed(format!(
            "broken off, with what was found written: {why}"
        )));
    }
    let problems = explained::check(&comparison, &explanations);
    if problems.is_empty() {
        return Ok(());
    }
    for problem in &problems {
        println!("{problem}");
    }
    Err(LabError::failed(format!(
        "{} tests are not as explained in tests/src/lab/driver_tests/explained.toml: say there why, \
         or mend what is wrong",
        problems.len()
    )))
}

fn root() -> Result<()> {
    let root = Root::find_or_build()?;
    println!(
        "{} and Linux {}: {}",
        root.qemu_version, root.kernel.release, root.origin
    );
    println!("accelerator: {}", Accelerator::probe().name());
    match root.c_backend {
        Some(program) => println!("QEMU's own GPU backend: {}", program.path().display()),
        None => println!("QEMU's own GPU backend: not there"),
    }
    Ok(())
}

fn gl_root() -> Result<()> {
    let gl = GlRoot::find_or_fetch()?;
    println!("OpenGL and virglrenderer: {}", gl.folder().display());
    for (name, value) in gl.environment() {
        println!("{name}={}", value.display());
    }
    println!("the daemon: {}", gl.daemon(Profile::Release)?.display());
    Ok(())
}

fn boot(boot: &Boot) -> Result<()> {
    let lab = Lab::prepare()?;
    let mut options = ONE_MACHINE.to_vec();
    if let Some(size) = &boot.shm_size {
        options.extend(["--shm-size", size]);
    }
    let mut backend = Backend::start(&boot.backend, &lab.root, &options)?;
    let setup = Setup {
        device: boot.device,
        rounds: boot.rounds,
        ..Setup::new(boot.task)
    };
    let mut machine = lab.boot(&mut backend, &setup)?;
    say(format_args!("QEMU runs on {}", boot.backend.name()));
    let mut limit = BOOT_LIMIT;
    loop {
        let event = machine.event("the guest's next word", limit)?;
        limit = STEP_LIMIT;
        println!(
            "{}",
            serde_json::to_string(&event).map_err(LabError::context("an event"))?
        );
        match event {
            Event::Drawn { .. } | Event::Images { .. } => machine.order(Order::Continue)?,
            Event::Done => break,
            _ => {}
        }
    }
    let console = machine.console().clone();
    let status = machine.power_off()?;
    say(format_args!("QEMU ended ({status})"));
    if boot.console {
        println!("{}", console.all().join("\n"));
    }
    Ok(())
}

fn bench(arguments: &Bench) -> Result<()> {
    let results = Results::at(&arguments.places, BENCH)?;
    let plots = results::folder_at(arguments.svg.as_deref(), BENCH)?;
    let measurement = match &arguments.from {
        Some(file) => read_report(file)?,
        None => {
            let Bench {
                backends,
                turns,
                rounds,
                ..
            } = arguments;
            bench::run(&Lab::prepare()?, backends, *turns, *rounds)?
        }
    };
    println!("{}\n{}", measurement.heading(), measurement.table());
    let table = measurement.markdown();
    results.write(&measurement, &table, &table)?;
    results::write(&plots.join("rates.svg"), &measurement.chart())
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        What::Root => root(),
        What::GlRoot => gl_root(),
        What::Boot(arguments) => boot(&arguments),
        What::Conform(arguments) => conform(&arguments),
        What::Gl(arguments) => gl(&arguments),
        What::Piglit(arguments) => piglit(&arguments),
        What::Venus(arguments) => venus(&arguments),
        What::Bench(arguments) => bench(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(error);
            ExitCode::FAILURE
        }
    }
}
