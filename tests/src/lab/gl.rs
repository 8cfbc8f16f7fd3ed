//! OpenGL in software and virglrenderer, from a folder of Debian packages of their own: what the daemon
//! with a 3D renderer is built and run with where the machine has neither, and what guests draw with.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use super::programs::{self, DAEMON, GUEST_TARGET, Profile, TEST_MEMTYPE};
use super::root::{self, Program};
use super::{LabError, Result, apt, elf};

/// The environment variable that names a daemon with a 3D renderer: a program or script that runs by
/// itself.
pub const DAEMON_VARIABLE: &str = "NOSNOOP_GPU_VIRGL_BIN";

/// Where Debian has its libraries.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

const LOADER: &str = "ld-linux-x86-64.so.2";

/// Where programs look for it on a machine of their own.
const MACHINES_LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

/// The oldest virglrenderer that will do.
const OLDEST: (u32, u32) = (1, 3);

/// Our daemon with its 3D renderer: what [`DAEMON_VARIABLE`] names, else that of the packages.
///
/// # Errors
/// As [`GlRoot::find_or_fetch`] and [`GlRoot::daemon`].
pub fn daemon(profile: Profile) -> Result<PathBuf> {
    match env::var_os(DAEMON_VARIABLE) {
        Some(path) => Ok(path.into()),
        None => GlRoot::find_or_fetch()?.daemon(profile),
    }
}

/// The folder with the packages' files.
#[derive(Clone, Debug)]
pub struct GlRoot {
    folder: PathBuf,
}

impl GlRoot {
    /// The cached folder; the packages are fetched first when it is not there.
    ///
    /// # Errors
    /// [`LabError::Unavailable`] where they cannot be had.
    pub fn find_or_fetch() -> Result<Self> {
        let folder = root::cached("gl", &apt::GL, |fresh| {
            let file = fresh.join(LIBRARIES).join("pkgconfig/virglrenderer.pc");
            let text = fs::read_to_string(&file).map_err(LabError::context(file.display()))?;
            match parse_version(&text) {
                Some(found) if found >= OLDEST => {
                    Ok(format!("virglrenderer {}.{} and Mesa", found.0, found.1))
                }
                other => Err(LabError::failed(format!(
                    "the virglrenderer that was fetched is not 1.3 or newer: {other:?}"
                ))),
            }
        })?;
        Ok(Self { folder })
    }

    /// The folder that stands for the root of a file system.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder with the libraries.
    #[must_use]
    pub fn libraries(&self) -> PathBuf {
        self.folder.join(LIBRARIES)
    }

    /// The dynamic loader that belongs to the libraries.
    #[must_use]
    pub fn loader(&self) -> PathBuf {
        self.libraries().join(LOADER)
    }

    /// A program of the packages, such as `usr/bin/eglinfo`, with what it needs to run on this machine;
    /// it also needs [`Self::environment`].
    #[must_use]
    pub fn program(&self, path: &str) -> Program {
        self.foreign(&self.folder.join(path))
    }

    /// A program that was built with [`Self::build_with`], with what it needs to draw in software.
    #[must_use]
    pub(crate) fn drawing(&self, program: &Path) -> Program {
        let libraries = self.libraries();
        let software = [("LIBGL_ALWAYS_SOFTWARE", "true".into())];
        Program::with_loader(program, &self.loader(), &libraries.display().to_string())
            .with_more(&libraries, self.environment().into_iter().chain(software))
    }

    /// The environment in which the libraries find each other outside of their root.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        let share = self.folder.join("usr/share");
        let libraries = self.libraries();
        vec![
            // libglvnd: which EGL there is.
            (
                "__EGL_VENDOR_LIBRARY_DIRS",
                share.join("glvnd/egl_vendor.d"),
            ),
            ("LIBGL_DRIVERS_PATH", libraries.join("dri")),
            ("GBM_BACKENDS_PATH", libraries.join("gbm")),
            ("VK_DRIVER_FILES", share.join("vulkan/icd.d/lvp_icd.json")),
            ("DRIRC_CONFIGDIR", share.join("drirc.d")),
        ]
    }

    /// Our daemon with its 3D renderer, built against these libraries: a script that runs it with them
    /// and their environment, so that it can be used like any program. What the environment variable
    /// names, if that is set.
    ///
    /// # Errors
    /// When it does not build.
    pub fn daemon(&self, profile: Profile) -> Result<PathBuf> {
        if let Some(path) = env::var_os(DAEMON_VARIABLE) {
            return Ok(path.into());
        }
        let folder = self.build(profile, &[])?;
        let server = self.render_server(&folder.join("virgl_render_server"))?;
        let mut environment = self.environment();
        environment.push(("RENDER_SERVER_EXEC_PATH", server));
        let script = folder.join("nosnoop-gpu-virgl");
        self.script(&environment, &folder.join(DAEMON), &script)
    }

    /// Our daemon with its 3D renderer for a machine that has these libraries where Debian has them. With
    /// `announcing` it is a test build that announces memory types (`--test-memtype`).
    ///
    /// # Errors
    /// When it does not build.
    pub(super) fn daemon_in_place(&self, announcing: bool) -> Result<Program> {
        let folder = match announcing {
            true => self.build(Profile::Quick, &["--features", TEST_MEMTYPE.feature])?,
            false => self.build(Profile::Release, &[])?,
        };
        let copy = folder.join("nosnoop-gpu-in-place");
        with_loader(&folder.join(DAEMON), Path::new(MACHINES_LOADER), &copy)?;
        Ok(self.foreign(&copy))
    }

    /// A program from elsewhere, to run with these libraries.
    pub(super) fn foreign(&self, path: &Path) -> Program {
        let libraries = self.libraries().display().to_string();
        Program::with_loader(path, &self.loader(), &libraries)
    }

    /// Builds our daemon with its 3D renderer; the folder that it is in.
    fn build(&self, profile: Profile, options: &[&str]) -> Result<PathBuf> {
        let mut command = self.cargo("build");
        command.args(options);
        let folder = match profile {
            Profile::Release => {
                command.arg("--release");
                "release"
            }
            Profile::Quick => "debug",
        };
        programs::run(&mut command, "the daemon with a 3D renderer")?;
        Ok(target_folder().join(GUEST_TARGET).join(folder))
    }

    /// virglrenderer's other process, in which Vulkan is drawn: a copy that names the loader which
    /// belongs to these libraries. The daemon hands its environment on, in which no script runs: the
    /// machine's shell does not start with these libraries.
    fn render_server(&self, copy: &Path) -> Result<PathBuf> {
        let original = self.folder.join("usr/libexec/virgl_render_server");
        with_loader(&original, &self.loader(), copy)?;
        Ok(copy.to_owned())
    }

    /// A cargo command, with quiet output, for our daemon with its 3D renderer. What it builds finds these
    /// libraries by itself, but not all of those that they load later.
    #[must_use]
    pub fn cargo(&self, what: &str) -> Command {
        let mut command = programs::cargo(what, &target_folder());
        command.args(["--package", DAEMON, "--features", "virgl"]);
        self.build_with(&mut command);
        command
    }

    /// Has a cargo command that builds programs build them with these libraries.
    pub(crate) fn build_with(&self, command: &mut Command) {
        let libraries = self.libraries();
        // The loader that belongs to the libraries: the machine's own may be too old for them. A target
        // that is named leaves build scripts, which run in between, without these flags.
        let linker = format!(
            "-Clink-arg=-Wl,--dynamic-linker={},--disable-new-dtags,-rpath,{}",
            self.loader().display(),
            libraries.display()
        );
        command
            .args(["--target", GUEST_TARGET])
            .env("CARGO_ENCODED_RUSTFLAGS", linker)
            .env("PKG_CONFIG_LIBDIR", libraries.join("pkgconfig"))
            .env("PKG_CONFIG_SYSROOT_DIR", &self.folder)
            .env_remove("PKG_CONFIG_PATH");
    }

    /// Writes the script that runs a program which was built against these libraries.
    fn script(
        &self,
        environment: &[(&str, PathBuf)],
        program: &Path,
        script: &Path,
    ) -> Result<PathBuf> {
        let mut text = "#!/bin/sh\n".to_owned();
        for (name, value) in environment {
            // What the caller has set counts.
            let value = quoted(value);
            text.push_str(&format!(
                "[ \"${{{name}+set}}\" ] || export {name}={value}\n"
            ));
        }
        // Here not: cargo sets this for the tests that it runs.
        let libraries = quoted(&self.libraries());
        text.push_str(&format!("export LD_LIBRARY_PATH={libraries}\n"));
        text.push_str(&format!("exec {} \"$@\"\n", quoted(program)));
        replace(script, text.as_bytes())?;
        Ok(script.to_owned())
    }
}

/// Writes a copy of a program that names this loader.
fn with_loader(original: &Path, loader: &Path, copy: &Path) -> Result<()> {
    let mut program = fs::read(original).map_err(LabError::context(original.display()))?;
    elf::set_interpreter(&mut program, loader)
        .ok_or_else(|| LabError::failed(format!("{} has no loader", original.display())))?;
    replace(copy, &program)
}

/// Writes a program, not in place: another test may be running the old one.
fn replace(path: &Path, contents: &[u8]) -> Result<()> {
    let new = path.with_extension(std::process::id().to_string());
    fs::write(&new, contents).map_err(LabError::context(new.display()))?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755))
        .and_then(|()| fs::rename(&new, path))
        .map_err(LabError::context(path.display()))
}

/// Where everything with the feature is built: in the usual folder it would take the place of the daemon
/// that all other tests use.
fn target_folder() -> PathBuf {
    programs::target_folder().join("virgl")
}

/// A path as a word of the shell's.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

/// Major and minor version in a file of pkg-config.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Version:"))?;
    let mut numbers = line.trim().split('.').map_while(|part| part.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let text = "prefix=/usr\n\nName: virglrenderer\nVersion: 1.3.0\nCflags: -I/x\n";
        assert_eq!(parse_version(text), Some((1, 3)));
        assert_eq!(parse_version("Name: virglrenderer\n"), None);
    }
}
