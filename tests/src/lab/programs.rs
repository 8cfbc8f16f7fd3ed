//! Builds the guest's program, with the cargo that runs this one, and knows where results go.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{LabError, Result, say};

const PACKAGE: &str = "nosnoop-guest";

/// The target whose C library can be linked into a program as a whole.
const GUEST_TARGET: &str = "x86_64-unknown-linux-gnu";

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
    say("building the guest program");
    linked_statically(PACKAGE, PACKAGE, Profile::Release)
}

/// A program of this workspace for a guest, linked statically.
///
/// # Errors
/// When it does not build.
pub fn linked_statically(package: &str, program: &str, profile: Profile) -> Result<PathBuf> {
    let target = target_folder().join("guest");
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(["build", "--quiet", "--package", package, "--bin", program])
        .args(["--target", GUEST_TARGET])
        .current_dir(workspace())
        .env("CARGO_TARGET_DIR", &target)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .stdin(Stdio::null());
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
    let status = command
        .status()
        .map_err(LabError::context("cannot run cargo"))?;
    if !status.success() {
        return Err(LabError::failed(format!(
            "building {program} failed ({status})"
        )));
    }
    Ok(target.join(GUEST_TARGET).join(folder).join(program))
}
