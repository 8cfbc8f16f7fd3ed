//! `cargo vm`: boots the lab's guest and shows what it does.

#![allow(clippy::print_stdout, reason = "its results go to standard output")]

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use nosnoop_guest::wire::{Event, Order, Task};
use nosnoop_tests::lab::backend::{Backend, Kind};
use nosnoop_tests::lab::demo::{BOOT_LIMIT, Lab, ONE_MACHINE, STEP_LIMIT};
use nosnoop_tests::lab::qemu::{Accelerator, Device, Setup};
use nosnoop_tests::lab::report::write_report;
use nosnoop_tests::lab::root::Root;
use nosnoop_tests::lab::{LabError, Result, measure, programs, say};

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
    /// Boots once, runs one task, prints what the guest says.
    Boot(Boot),
    /// Runs the bench and idle tasks on several backends by turns and compares them.
    Measure(Measure),
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
    #[arg(long, default_value_t = 100)]
    rounds: u64,
    /// Size of the shared-memory region of our daemon, such as 8G; none without it.
    #[arg(long)]
    shm_size: Option<String>,
    /// Prints the guest's console at the end.
    #[arg(long)]
    console: bool,
}

#[derive(Args)]
struct Measure {
    /// The backends to compare.
    #[arg(long, value_delimiter = ',', default_value = "ours,qemu", value_parser = Kind::parse)]
    backends: Vec<Kind>,
    /// How often each backend takes its turn.
    #[arg(long, default_value_t = 3)]
    turns: u32,
    /// Rounds of the bench task in each turn.
    #[arg(long, default_value_t = 200)]
    rounds: u64,
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

fn measure(arguments: &Measure) -> Result<()> {
    let lab = Lab::prepare()?;
    let measurement = measure::run(&lab, &arguments.backends, arguments.turns, arguments.rounds)?;
    let path = programs::target_folder().join("measure.json");
    write_report(&measurement, &path)?;
    println!(
        "{}, Linux {}, {}",
        measurement.qemu, measurement.kernel, measurement.accelerator
    );
    println!("{}", measure::table(&measurement));
    println!("written to {}", path.display());
    Ok(())
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        What::Root => root(),
        What::Boot(arguments) => boot(&arguments),
        What::Measure(arguments) => measure(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(error);
            ExitCode::FAILURE
        }
    }
}
