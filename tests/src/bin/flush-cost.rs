//! `cargo run --release -p nosnoop-tests --bin flush-cost`: what flushing costs on this machine.
#![allow(clippy::print_stdout, reason = "its results go to standard output")]

use std::process::ExitCode;

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::path::PathBuf;

    use clap::Parser;
    use nosnoop_tests::flush_cost::cpu::{Cpu, Instruction};
    use nosnoop_tests::flush_cost::{Machine, blob, lines};
    use nosnoop_tests::lab::report::write_report;
    use nosnoop_tests::lab::{LabError, Result};
    use serde::Serialize;

    /// Measures cache flushes: for a MiB by instruction, and in the life of a blob.
    #[derive(Parser)]
    #[command(name = "flush-cost")]
    struct Arguments {
        /// How often each instruction takes its turn.
        #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
        /// How often each kind of blob lives.
        #[arg(long, default_value_t = 21, value_parser = clap::value_parser!(u32).range(1..))]
        blobs: u32,
        /// Size of the blobs in MiB.
        #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..1 << 20))]
        blob_mib: u64,
        /// Also writes everything there as JSON.
        #[arg(long)]
        json: Option<PathBuf>,
    }

    #[derive(Serialize)]
    struct Report {
        machine: Machine,
        rounds: u32,
        lines: Vec<lines::Cost>,
        blob_bytes: u64,
        blob_rounds: u32,
        blobs: Vec<blob::Life>,
    }

    pub(super) fn run() -> Result<()> {
        let arguments = Arguments::parse();
        let blob_bytes = arguments.blob_mib << 20;
        let cpu = Cpu::detect();
        if !cpu.instructions.contains(&Instruction::Clflush) {
            return Err(LabError::unavailable("this CPU flushes no cache lines"));
        }
        let mut machine = Machine::here(cpu.line).map_err(LabError::context("/proc"))?;
        stay_here()?;
        let lines = lines::run(&cpu, arguments.rounds as usize)
            .map_err(LabError::context("the mebibyte"))?;
        let blobs = blob::run(&cpu, blob_bytes, arguments.blobs as usize)
            .map_err(LabError::context("the blobs"))?;
        machine.end().map_err(LabError::context("/proc"))?;
        println!(
            "{}, {} CPUs, {}-byte lines, Linux {}\nload at the start {}, at the end {}\n",
            machine.cpu,
            machine.cpus,
            machine.line,
            machine.kernel,
            machine.load[0],
            machine.load[1]
        );
        println!("{}", lines::table(&lines));
        println!("{}", blob::table(&blobs, blob_bytes));
        if let Some(path) = &arguments.json {
            let report = Report {
                machine,
                rounds: arguments.rounds,
                lines,
                blob_bytes,
                blob_rounds: arguments.blobs,
                blobs,
            };
            write_report(&report, path)?;
            println!("written to {}", path.display());
        }
        Ok(())
    }

    /// On one CPU, with one cache of its own, from now on.
    fn stay_here() -> Result<()> {
        let mut here = rustix::thread::CpuSet::new();
        here.set(rustix::thread::sched_getcpu());
        rustix::thread::sched_setaffinity(None, &here).map_err(LabError::context("one CPU"))
    }
}

#[cfg(target_arch = "x86_64")]
fn main() -> ExitCode {
    match x86_64::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("flush-cost: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn main() -> ExitCode {
    println!("flush-cost: it compares instructions of x86-64, which this machine does not have");
    ExitCode::FAILURE
}
