//! The program `nosnoop-gpu`; see the library of the same name.

use std::io::{self, Write};
use std::process::ExitCode;

use nosnoop_gpu::cli::{self, Action};
use nosnoop_gpu::{daemon, logging};

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
        Action::Print(text) => io::stdout()
            .write_all(text.as_bytes())
            .map_err(|error| format!("cannot print: {error}")),
        Action::Serve(options, level) => {
            logging::to_stderr(level);
            daemon::serve(&options).map_err(|error| error.to_string())
        }
    }
}
