//! Builds programs that are no part of an ordinary build, with the cargo that runs this one, and
//! knows where results go.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{LabError, Result, say};

const PACKAGE: &str = "nosnoop-guest";
const VULKAN: &str = "nosnoop-vulkan";
pub(super) const DAEMON: &str = "nosnoop-gpu";

/// The target whose C library can be linked into a program as a whole.
pub(super) const GUEST_TARGET: &str = "x86_64-unknown-linux-gnu";

/// Our daemon with a feature that only test builds have. There are only debug builds of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TestBuild {
    /// The feature. It is also the name of the target folder, inside the usual one, of everything
    /// with that feature: in the usual one it would take the place of the daemon that all other
    /// tests use.
    pub feature: &'static str,
    /// The environment variable that names a daemon with that feature.
    pub variable: &'static str,
}

/// Announces images with chosen memory types.
pub const TEST_MEMTYPE: TestBuild = TestBuild {
    feature: "test-memtype",
    variable: "NOSNOOP_GPU_TEST_MEMTYPE_BIN",
};

/// Has a bug on purpose, by `--plant`.
pub const TEST_BUGS: TestBuild = TestBuild {
    feature: "test-bugs",
    variable: "NOSNOOP_GPU_TEST_BUGS_BIN",
};

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
    cargo("build", target)
}

/// A quiet command of cargo with a target folder of its own.
pub(super) fn cargo(what: &str, target: &Path) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args([what, "--quiet"])
        .current_dir(workspace())
        .env("CARGO_TARGET_DIR", target)
        .stdin(Stdio::null());
    command
}

pub(super) fn run(command: &mut Command, what: &str) -> Result<()> {
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

/// Our Vulkan program for a guest that has Vulkan's loader.
///
/// # Errors
/// When it does not build.
pub fn vulkan() -> Result<PathBuf> {
    let target = target_folder();
    let mut command = cargo_build(&target);
    command.args(["--package", VULKAN]);
    run(&mut command, "the Vulkan program for a guest")?;
    Ok(target.join("debug").join(VULKAN))
}

/// The executable of the integration test `name` of this package.
///
/// # Errors
/// When it does not build.
pub fn integration_test(name: &str) -> Result<PathBuf> {
    let mut command = cargo("test", &target_folder());
    command.args(["--package", env!("CARGO_PKG_NAME"), "--test", name]);
    command.args(["--no-run", "--message-format", "json"]);
    say(format_args!("building the test {name}"));
    let output = command.output();
    let output = output.map_err(LabError::context("cannot run cargo"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    executable_in(&text, name).ok_or_else(|| {
        LabError::failed(format!(
            "building the test {name} failed ({}):\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        ))
    })
}

/// The test's executable in cargo's messages (the cargo book, "External tools").
fn executable_in(messages: &str, name: &str) -> Option<PathBuf> {
    let messages = messages.lines().map(serde_json::from_str::<Value>);
    let path = messages
        .filter_map(std::result::Result::ok)
        .find_map(|one| {
            let path = one["executable"].as_str()?;
            (one["target"]["name"] == name).then(|| path.into())
        })?;
    Some(path)
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

impl TestBuild {
    /// The daemon: what the variable names, else built.
    ///
    /// # Errors
    /// When it does not build.
    pub fn daemon(&self) -> Result<PathBuf> {
        if let Some(path) = env::var_os(self.variable) {
            return Ok(path.into());
        }
        let target = target_folder().join(self.feature);
        let mut command = cargo_build(&target);
        command.args(["--package", DAEMON, "--features", self.feature]);
        run(&mut command, &format!("the daemon with {}", self.feature))?;
        Ok(target.join("debug").join(DAEMON))
    }

    /// The daemon for a guest, linked statically.
    ///
    /// # Errors
    /// When it does not build.
    pub fn static_daemon(&self) -> Result<PathBuf> {
        let what = ["--package", DAEMON, "--features", self.feature];
        build_statically(self.feature, &what, DAEMON, Profile::Quick)
    }
}
