//! Says in a line what is missing when virglrenderer is: the crate that binds it can only say which file
//! it looked for. Does nothing without the feature `virgl`.

use std::env;
use std::process::{Command, ExitCode};

/// The oldest virglrenderer with all that `rutabaga_gfx` calls.
const OLDEST: &str = "1.3.0";

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_VIRGL").is_none() {
        return ExitCode::SUCCESS;
    }
    for variable in ["PKG_CONFIG", "PKG_CONFIG_PATH", "PKG_CONFIG_LIBDIR"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let program = env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into());
    let wanted = format!("virglrenderer >= {OLDEST}");
    let found = Command::new(program)
        .args(["--exists", "--print-errors", &wanted])
        .output();
    let why = match found {
        Ok(output) if output.status.success() => return ExitCode::SUCCESS,
        Ok(output) => one_line(&output.stderr),
        Err(error) => format!("cannot run pkg-config: {error}; install pkg-config"),
    };
    println!(
        "cargo::error=the feature virgl needs virglrenderer {OLDEST} or newer: install the Debian \
         package libvirglrenderer-dev (forky or newer has it), or build without the feature ({why})"
    );
    ExitCode::FAILURE
}

fn one_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
