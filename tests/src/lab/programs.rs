//! Builds programs that are no part of an ordinary build, with the cargo that runs this one, and
//! knows where results go.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{LabError, Result, say};

const PACKAGE: &str = "nosnoop-guest";
const DAEMON: &str = "nosnoop-gpu";

/// The target whose C library can be linked into a program as a whole.
const GUEST_TARGET: &str = "x86_64-unknown-linux-gnu";

/// The environment variable that names a daemon with the feature `test-memtype`.
pub const TEST_MEMTYPE_VARIABLE: &str = "NOSNOOP_GPU_TEST_MEMTYPE_BIN";

/// The target folder, inside the usual one, of everything with that feature: in the usual one it
/// would take the place of the daemon that all other tests use.
pub const TEST_MEMTYPE_FOLDER: &str = "test-memtype";

/// The root folder of the workspace.
#[must_use]
pub fn workspace() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_owned()
}

/// The folder for build results.
#[must_use]
pub fn target_folder() -> PathBuf {
    let named = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    // A relative name counts from the workspace, where cargo runs here.
    workspace().join(named.unwrap_or_else(|| PathBuf::from("target")))
}

/// A `cargo build` with a target folder of its own.
fn cargo_build(target: &Path) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(["build", "--quiet"])
        .current_dir(workspace())
        .env("CARGO_TARGET_DIR", target)
        .stdin(Stdio::null());
    command
}

fn run(command: &mut Command, what: &str) -> Result<()> {
    say(format_args!("building {what}"));
    let status = command
        .status()
        .map_err(LabError::context("cannot run cargo"))?;
    if status.success() {
        return Ok(());
    }
    Err(LabError::failed(format!(
        "building {what} failed ({status})"
    )))
}

/// How a program is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// As it is shipped.
    Release,
    /// As fast as it can be built.
    Quick,
}

/// The guest's `/init`, linked statically.
///
/// # Errors
/// When it does not build.
pub fn guest() -> Result<PathBuf> {
    linked_statically(PACKAGE, PACKAGE, Profile::Release)
}

/// A program of this workspace for a guest, linked statically.
///
/// # Errors
/// When it does not build.
pub fn linked_statically(package: &str, program: &str, profile: Profile) -> Result<PathBuf> {
    build_statically("guest", &["--package", package], program, profile)
}

/// [`test_memtype_daemon`] for a guest, linked statically.
///
/// # Errors
/// When it does not build.
pub fn static_test_memtype_daemon() -> Result<PathBuf> {
    let what = ["--package", DAEMON, "--features", "test-memtype"];
    build_statically(TEST_MEMTYPE_FOLDER, &what, DAEMON, Profile::Quick)
}

/// Builds `program` into a folder of the usual target folder; `what` says which package and how.
fn build_statically(
    folder: &str,
    what: &[&str],
    program: &str,
    profile: Profile,
) -> Result<PathBuf> {
    let target = target_folder().join(folder);
    let mut command = cargo_build(&target);
    command
        .args(what)
        .args(["--bin", program, "--target", GUEST_TARGET])
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    let folder = match profile {
        Profile::Release => {
            command.arg("--release");
            "release"
        }
        Profile::Quick => {
            command.env("CARGO_PROFILE_DEV_DEBUG", "false");
            "debug"
        }
    };
    run(&mut command, &format!("{program} for a guest"))?;
    Ok(target.join(GUEST_TARGET).join(folder).join(program))
}

/// Our daemon with the feature `test-memtype`: what [`TEST_MEMTYPE_VARIABLE`] names, else built.
/// There are only debug builds of it.
///
/// # Errors
/// When it does not build.
pub fn test_memtype_daemon() -> Result<PathBuf> {
    if let Some(path) = env::var_os(TEST_MEMTYPE_VARIABLE) {
        return Ok(path.into());
    }
    let target = target_folder().join(TEST_MEMTYPE_FOLDER);
    let mut command = cargo_build(&target);
    command.args(["--package", DAEMON, "--features", "test-memtype"]);
    run(&mut command, "the daemon with test-memtype")?;
    Ok(target.join("debug").join(DAEMON))
}
