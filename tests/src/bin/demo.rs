//! `cargo demo`: a Linux guest draws through the daemon; every pixel on QEMU's screen is compared
//! with what the host computes. `cargo demo blob`: the guest draws into memory of the host's. `cargo demo
//! chain`: every link from that memory to a guest's program.

#![allow(clippy::print_stdout, reason = "its results go to standard output")]

use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use nosnoop_tests::lab::backend::Kind;
use nosnoop_tests::lab::demo::{self, Lab};
use nosnoop_tests::lab::report::{Report, describe};
use nosnoop_tests::lab::{LabError, Result, blob, builtin, chain, programs, say};

/// How often the blob demo makes, maps and gives back an image.
const BLOB_ROUNDS: u64 = 200;

/// Boots a Linux guest on nosnoop-gpu, checks every pixel it draws, leaves the pictures in
/// target/demo.
#[derive(Parser)]
#[command(name = "cargo demo", bin_name = "cargo demo")]
struct Arguments {
    /// blob: an image in the host's memory that the guest maps and both sides draw into. chain: how
    /// each link from such memory to the guest's program maps it, in an emulated machine.
    #[arg(value_enum, conflicts_with_all = ["no_vm", "backend"])]
    what: Option<What>,
    /// Draws with the built-in driver instead of a guest: no QEMU, no kernel, seconds.
    #[arg(long, conflicts_with = "backend")]
    no_vm: bool,
    /// ours, qemu (its own vhost-user-gpu) or the path of a program with --socket-path.
    #[arg(long, default_value = "ours", value_parser = Kind::parse)]
    backend: Kind,
}

/// Demos beside the default one.
#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// Host blobs.
    Blob,
    /// The chain of memory types.
    Chain,
}

/// The blob demo; whether everything was right.
fn run_blob(folder: &Path) -> Result<bool> {
    let report = blob::run(&Lab::prepare()?, BLOB_ROUNDS, folder)?;
    println!("What was seen:");
    print!("{}", blob::describe(&report));
    println!("picture: {}/blob.png, and blob.json", folder.display());
    let images = report.many.iter().chain([&report.drawn, &report.left]);
    Ok(images.into_iter().all(|image| image.comparison.is_exact()))
}

/// The demo of the chain; whether it is whole or refused in all cases but the wrong one.
fn run_chain(folder: &Path) -> Result<bool> {
    let report = chain::run(&chain::Parts::prepare()?)?;
    print!("{}", report.describe());
    report.write(folder)?;
    println!("written to {}/chain.txt, .svg, .json", folder.display());
    Ok(report.is_as_planned())
}

fn run(arguments: &Arguments, folder: &Path) -> Result<Report> {
    if arguments.no_vm {
        return builtin::run(folder, "--no-vm");
    }
    match Lab::prepare() {
        Ok(lab) => demo::run(&lab, &arguments.backend, folder),
        Err(LabError::Unavailable(why)) if arguments.backend == Kind::OURS => {
            let line = "=".repeat(72);
            for text in [
                line.as_str(),
                "NO VM: this machine cannot boot the demo's guest, because",
                &why,
                "What follows is the same picture drawn by the built-in driver (--no-vm):",
                "real daemon, real sockets, no QEMU, no Linux guest.",
                line.as_str(),
            ] {
                say(text);
            }
            builtin::run(folder, &why)
        }
        Err(error) => Err(error),
    }
}

fn print(report: &Report, folder: &Path) {
    let (wrong, pixels) = (report.wrong(), report.pixels());
    if report.guest.is_some() {
        println!("What the guest saw on {}:", report.backend);
        print!("{}", describe(report));
    }
    println!("vm: {}", report.vm);
    println!(
        "pictures: {} (scanout.png first), report.json",
        folder.display()
    );
    println!(
        "{wrong} of {pixels} pixels differ in {} pictures",
        report.steps.len()
    );
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let folder = programs::target_folder().join("demo");
    if let Some(what) = arguments.what {
        let outcome = match what {
            What::Blob => run_blob(&folder),
            What::Chain => run_chain(&folder),
        };
        return match outcome {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                say(error);
                ExitCode::FAILURE
            }
        };
    }
    match run(&arguments, &folder) {
        Ok(report) => {
            print(&report, &folder);
            // Another backend is only measured; ours has to be right.
            if report.wrong() == 0 || arguments.backend != Kind::OURS {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            say(error);
            ExitCode::FAILURE
        }
    }
}
