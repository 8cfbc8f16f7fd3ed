//! Peers that are built from the crate registry, into the cache.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::lab::gl::GlRoot;
use crate::lab::process::run_logged;
use crate::lab::root::{Program, cached_folder};
use crate::lab::{LabError, Result, say};

/// The crate, and the newest version of it that has been tried.
const CRATE: &str = "vhost-device-gpu";
const VERSION: &str = "0.2.0";

/// libclang as a Python package: the crate of virglrenderer's bindings makes them when it is built.
const LIBCLANG: &str = "libclang==18.1.1";

/// Two cores need about three minutes.
const BUILD_LIMIT: Duration = Duration::from_secs(1800);
/// How often the build says that it goes on.
const PROGRESS: Duration = Duration::from_secs(15);
/// For a download of 25 MB.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(600);

/// The program with its null renderer, built first if it is not in the cache.
pub(super) fn null_renderer() -> Result<PathBuf> {
    let folder = format!("peers-{CRATE}-{VERSION}-null");
    built(
        &folder,
        "null renderer",
        |_, _| Ok(()),
        |program| Command::new(program),
    )
}

/// The program on virglrenderer of the lab's packages, built first if it is not in the cache.
pub(super) fn virglrenderer() -> Result<Program> {
    let gl = GlRoot::find_or_fetch()?;
    // It names the packages' folder, so it belongs to that one.
    let packages = gl.folder().file_name().unwrap_or_default();
    let folder = format!(
        "peers-{CRATE}-{VERSION}-virglrenderer-{}",
        packages.display()
    );
    let program = built(
        &folder,
        "virglrenderer",
        |work, command| {
            let include = gl.folder().join("usr/include");
            let arguments = format!(
                "-I{} -I{} -I{}",
                include.display(),
                include.join("virgl").display(),
                compilers_headers()?.display()
            );
            if env::var_os("LIBCLANG_PATH").is_none() {
                command.env("LIBCLANG_PATH", fetch_libclang(work)?);
            }
            gl.build_with(command);
            command
                .args(["--features", "backend-virgl"])
                .env("BINDGEN_EXTRA_CLANG_ARGS", arguments);
            Ok(())
        },
        |program| gl.drawing(program).command(),
    )?;
    Ok(gl.drawing(&program))
}

/// The program in a folder of the cache. `prepare` gets a folder to work in and the command that builds;
/// `run` makes a command that runs the program.
fn built(
    folder: &str,
    what: &str,
    prepare: impl FnOnce(&Path, &mut Command) -> Result<()>,
    run: impl FnOnce(&Path) -> Command,
) -> Result<PathBuf> {
    let program = Path::new("bin").join(CRATE);
    let folder = cached_folder(folder, |work, fresh| {
        let mut command = cargo_install(work, fresh);
        prepare(work, &mut command)?;
        say(format_args!(
            "building {CRATE} {VERSION} ({what}) from the crate registry (once; cached for later runs)"
        ));
        build(&mut command, work)?;
        // What does not run must not stay in the cache.
        let help = run(&fresh.join(&program)).arg("--help").output();
        if !help.is_ok_and(|output| output.status.success()) {
            return Err(LabError::unavailable(format!(
                "{CRATE} {VERSION} ({what}) was built but does not run here"
            )));
        }
        Ok(format!("{CRATE} {VERSION} ({what})"))
    })?;
    Ok(folder.join(program))
}

fn cargo_install(work: &Path, fresh: &Path) -> Command {
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
    command
}

fn build(command: &mut Command, work: &Path) -> Result<()> {
    let (start, mut told) = (Instant::now(), Instant::now());
    run_logged(
        command,
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
        let why = complaint(&error.to_string());
        LabError::unavailable(format!("{CRATE} {VERSION} cannot be built here: {why}"))
    })
}

/// The headers of the C compiler's own, which libclang's package has not.
fn compilers_headers() -> Result<PathBuf> {
    let why = "gcc, whose headers virglrenderer's bindings need, does not run here";
    let output = Command::new("gcc").arg("-print-file-name=include").output();
    let output = output.map_err(|_| LabError::unavailable(why))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().into())
}

/// Gets libclang by pip: the folder with the library.
fn fetch_libclang(work: &Path) -> Result<PathBuf> {
    let folder = work.join("libclang");
    let mut command = Command::new("python3");
    command
        .args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"])
        .arg(&folder)
        .arg(LIBCLANG);
    say(format_args!("fetching {LIBCLANG} by pip"));
    let log = work.join("pip.log");
    run_logged(&mut command, "pip", &log, DOWNLOAD_LIMIT, || {}).map_err(|error| {
        let why = complaint(&error.to_string());
        LabError::unavailable(format!(
            "libclang, which virglrenderer's bindings need, cannot be had by pip: {why};              LIBCLANG_PATH may name the folder of another"
        ))
    })?;
    Ok(folder.join("clang/native"))
}

/// The first error in what a tool wrote if there is one, else the end of it.
fn complaint(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let is_error = |line: &&&str| line.to_ascii_lowercase().starts_with("error");
    let why = lines.iter().find(is_error).or(lines.last());
    why.copied().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_more_than_the_last_line() {
        let text = "cargo install ended with 101\n  error: no such crate\nwarning: be careful";
        assert_eq!(complaint(text), "error: no such crate");
        assert_eq!(complaint("ERROR: no wheel\nbye"), "ERROR: no wheel");
        assert_eq!(complaint("one\n two"), "two");
        assert_eq!(complaint(""), "");
    }
}
