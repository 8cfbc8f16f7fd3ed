//! Peers that are built from the crate registry, into the cache.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::Renderer;
use crate::lab::process::run_logged;
use crate::lab::root::cached_folder;
use crate::lab::{LabError, Result, say};

/// The crate, and the newest version of it that has been tried.
const CRATE: &str = "vhost-device-gpu";
const VERSION: &str = "0.2.0";

/// Two cores need about three minutes.
const BUILD_LIMIT: Duration = Duration::from_secs(1800);
/// How often the build says that it goes on.
const PROGRESS: Duration = Duration::from_secs(15);

/// The program, built first if it is not in the cache.
pub(super) fn vhost_device_gpu(renderer: Renderer) -> Result<PathBuf> {
    if renderer == Renderer::Virgl {
        check_virgl()?;
    }
    let program = Path::new("bin").join(CRATE);
    let name = format!("peers-{CRATE}-{VERSION}-{}", renderer.mode());
    let folder = cached_folder(&name, |work, fresh| {
        build(renderer, work, fresh)?;
        let built = fresh.join(&program);
        let help = Command::new(&built).arg("--help").output();
        // What does not run must not stay in the cache.
        if !help.is_ok_and(|output| output.status.success()) {
            return Err(LabError::unavailable(format!(
                "{CRATE} {VERSION} was built but does not run here"
            )));
        }
        Ok(format!("{CRATE} {VERSION}"))
    })?;
    Ok(folder.join(program))
}

fn build(renderer: Renderer, work: &Path, fresh: &Path) -> Result<()> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        // Outside of this workspace, whose settings are not for it.
        .current_dir(work)
        .args(["install", "--locked", "--version", VERSION, CRATE])
        .args(["--no-default-features", "--root"])
        .arg(fresh)
        .arg("--target-dir")
        .arg(work.join("target"))
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    if renderer == Renderer::Virgl {
        command.args(["--features", "backend-virgl"]);
    }
    say(format_args!(
        "building {CRATE} {VERSION} ({}) from the crate registry (once; cached for later runs)",
        renderer.mode()
    ));
    let (start, mut told) = (Instant::now(), Instant::now());
    run_logged(
        &mut command,
        "cargo install",
        &work.join("build.log"),
        BUILD_LIMIT,
        || {
            if told.elapsed() > PROGRESS {
                told = Instant::now();
                let seconds = start.elapsed().as_secs();
                say(format_args!("  {CRATE}: building for {seconds} s"));
            }
        },
    )
    .map_err(|error| {
        let text = error.to_string();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        // Cargo's own complaint if there is one, else the end of what was said.
        let why = lines.iter().find(|line| line.starts_with("error"));
        let why = why.or(lines.last()).copied().unwrap_or_default();
        LabError::unavailable(format!("{CRATE} {VERSION} cannot be built here: {why}"))
    })
}

/// What the virgl renderer's crate needs at build time, which the registry does not have.
fn check_virgl() -> Result<()> {
    let found = Command::new("pkg-config")
        .args(["--atleast-version", "0.10", "virglrenderer"])
        .status();
    if found.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    Err(LabError::unavailable(
        "virglrenderer's development files are not installed (and libclang for its bindings); \
         Debian: libvirglrenderer-dev libclang-dev",
    ))
}
