//! `cargo demo`: a Linux guest draws through the daemon; every pixel on QEMU's screen is compared
//! with what the host computes.

#![allow(clippy::print_stdout, reason = "its results go to standard output")]

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use nosnoop_tests::lab::backend::Kind;
use nosnoop_tests::lab::demo::{self, Lab};
use nosnoop_tests::lab::report::{Report, describe};
use nosnoop_tests::lab::{LabError, Result, builtin, programs, say};

/// Boots a Linux guest on nosnoop-gpu, checks every pixel it draws, leaves the pictures in
/// target/demo.
#[derive(Parser)]
#[command(name = "cargo demo", bin_name = "cargo demo")]
struct Arguments {
    /// Draws with the built-in driver instead of a guest: no QEMU, no kernel, seconds.
    #[arg(long, conflicts_with = "backend")]
    no_vm: bool,
    /// ours, qemu (its own vhost-user-gpu) or the path of a program with --socket-path.
    #[arg(long, default_value = "ours", value_parser = Kind::parse)]
    backend: Kind,
}

fn run(arguments: &Arguments, folder: &Path) -> Result<Report> {
    if arguments.no_vm {
        return builtin::run(folder, "--no-vm");
    }
    match Lab::prepare() {
        Ok(lab) => demo::run(&lab, &arguments.backend, folder),
        Err(LabError::Unavailable(why)) if arguments.backend == Kind::Ours => {
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
    match run(&arguments, &folder) {
        Ok(report) => {
            print(&report, &folder);
            // Another backend is only measured; ours has to be right.
            if report.wrong() == 0 || arguments.backend != Kind::Ours {
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
