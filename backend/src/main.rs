//! The program `nosnoop-gpu`; see the library of the same name.

use std::io::{self, Write};
use std::process::ExitCode;

use nosnoop_gpu::cli::{self, Action};
use nosnoop_gpu::memory::facts::Facts;
#[cfg(feature = "virgl")]
use nosnoop_gpu::render;
use nosnoop_gpu::{daemon, doctor, logging};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            // Standard error may be closed; there is nobody else to tell.
            let _ = writeln!(io::stderr(), "nosnoop-gpu: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    match cli::parse(std::env::args_os()).map_err(|error| error.to_string())? {
        Action::Print(text) => print(&text),
        Action::Doctor(settings, json) => {
            let facts = Facts::of_this_machine()
                .map_err(|error| format!("cannot look at this host: {error}"))?;
            let report = doctor::doctor(facts, settings);
            if json {
                let text = serde_json::to_string_pretty(&report)
                    .map_err(|error| format!("cannot write what was found: {error}"))?;
                print(&format!("{text}\n"))
            } else {
                print(&report.to_string())
            }
        }
        #[cfg(feature = "virgl")]
        Action::Prove(gpu, capsets) => {
            // For the daemon, which passes these lines on.
            logging::to_stderr(log::LevelFilter::Info);
            render::proof::run(&gpu, &capsets, &mut io::stdout())
                .map_err(|error| format!("cannot print: {error}"))
        }
        Action::Serve(options, level) => {
            logging::to_stderr(level);
            daemon::serve(&options).map_err(|error| error.to_string())
        }
    }
}

fn print(text: &str) -> Result<(), String> {
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| format!("cannot print: {error}"))
}
