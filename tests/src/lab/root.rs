//! Where QEMU and the guest's kernel come from.

use std::env;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::{LabError, Result, apt, say};

/// The environment variable that names an existing root folder.
pub const ROOT_VARIABLE: &str = "NOSNOOP_LAB_ROOT";

/// The oldest QEMU that will do: the first with shared memory for vhost-user devices.
const OLDEST_QEMU: (u32, u32) = (11, 1);

const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// Where every x86-64 system has its dynamic loader.
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

/// How long to wait for another run that is building the root.
const LOCK_LIMIT: Duration = Duration::from_secs(2700);

/// A kernel with the GPU driver as a module.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The bootable image.
    pub image: PathBuf,
    /// The folder with the modules of this release.
    pub modules: PathBuf,
    /// The release, as `uname -r` says it.
    pub release: String,
}

/// A program with what it needs to run when it belongs to another root.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    /// The other root's dynamic loader and library folders.
    loader: Option<(PathBuf, String)>,
    /// Variables of its environment.
    environment: Vec<(&'static str, PathBuf)>,
}

impl Program {
    fn of_machine(path: PathBuf) -> Self {
        Self {
            path,
            loader: None,
            environment: Vec::new(),
        }
    }

    /// A program that runs with the dynamic loader and the library folder named.
    pub(super) fn with_loader(path: &Path, loader: &Path, libraries: &str) -> Self {
        Self {
            path: path.to_owned(),
            loader: Some((loader.to_owned(), libraries.to_owned())),
            environment: Vec::new(),
        }
    }

    /// The same with libraries of another folder, where its own has none, and more variables in its
    /// environment. A program of the machine itself keeps to the machine's libraries.
    #[must_use]
    pub fn with_more(
        mut self,
        libraries: &Path,
        environment: impl IntoIterator<Item = (&'static str, PathBuf)>,
    ) -> Self {
        if let Some((_, folders)) = &mut self.loader {
            folders.push_str(&format!(":{}", libraries.display()));
        }
        self.environment.extend(environment);
        self
    }

    /// The dynamic loader, and the shared libraries that the loader finds for the program, each
    /// with the name that the program knows.
    ///
    /// # Errors
    /// When the loader does not run or a library is missing.
    pub(super) fn libraries(&self) -> Result<(PathBuf, Vec<(String, PathBuf)>)> {
        let machines = || (PathBuf::from(LOADER), String::new());
        let (loader, folders) = self.loader.clone().unwrap_or_else(machines);
        let mut command = Command::new(&loader);
        if !folders.is_empty() {
            command.arg("--library-path").arg(&folders);
        }
        let output = command
            .arg("--list")
            .arg(&self.path)
            .output()
            .map_err(LabError::context(loader.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() || text.contains("not found") {
            return Err(LabError::failed(format!(
                "{} has not all its libraries:\n{text}{}",
                self.path.display(),
                String::from_utf8_lossy(&output.stderr)
            )));
        }
        Ok((loader, libraries_in(&text)))
    }

    /// A command that runs the program.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = match &self.loader {
            None => Command::new(&self.path),
            Some((loader, libraries)) => {
                let mut command = Command::new(loader);
                command.arg("--library-path").arg(libraries).arg(&self.path);
                command
            }
        };
        let environment = self.environment.iter();
        command.envs(environment.map(|(name, value)| (name, value)));
        command
    }

    /// Where the program file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// QEMU, a kernel, and QEMU's own GPU backend.
#[derive(Clone, Debug)]
pub struct Root {
    /// The machine emulator.
    pub qemu: Program,
    /// Its version line.
    pub qemu_version: String,
    /// Folders with firmware for QEMU's `-L`; none for the machine's own QEMU.
    pub firmware: Vec<PathBuf>,
    /// QEMU's loadable parts, when they are not where QEMU expects them.
    pub qemu_modules: Option<PathBuf>,
    /// vhost-user-gpu, the C backend, where it is installed.
    pub c_backend: Option<Program>,
    /// The guest's kernel.
    pub kernel: Kernel,
    /// Where all this comes from, for people.
    pub origin: String,
}

impl Root {
    /// Finds QEMU and a kernel: the folder that `NOSNOOP_LAB_ROOT` names, else the machine's own,
    /// else the cached root, which is built first if it is not there.
    ///
    /// # Errors
    /// [`LabError::Unavailable`] where none of these can be had; other errors when a step fails.
    pub fn find_or_build() -> Result<Self> {
        if let Some(folder) = env::var_os(ROOT_VARIABLE) {
            return Self::in_folder(Path::new(&folder)).map_err(LabError::context(format_args!(
                "{ROOT_VARIABLE} is of no use"
            )));
        }
        if let Some(root) = Self::of_machine() {
            return Ok(root);
        }
        let root = Self::in_folder(&cached_root()?)?;
        Ok(root)
    }

    /// QEMU and kernel of the machine, when both will do.
    fn of_machine() -> Option<Self> {
        let path = env::split_paths(&env::var_os("PATH")?)
            .map(|folder| folder.join("qemu-system-x86_64"))
            .find(|path| path.is_file())?;
        let qemu = Program::of_machine(path);
        let qemu_version = checked_version(&qemu).ok()?;
        let kernel = find_kernel(Path::new("/"))?;
        let c_backend = [
            "/usr/lib/qemu/vhost-user-gpu",
            "/usr/libexec/vhost-user-gpu",
        ]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.is_file());
        Some(Self {
            qemu,
            qemu_version,
            firmware: Vec::new(),
            qemu_modules: None,
            c_backend: c_backend.map(Program::of_machine),
            kernel,
            origin: "this machine".to_owned(),
        })
    }

    /// QEMU and kernel in a folder with the files of a Debian system.
    ///
    /// # Errors
    /// When something is missing there or QEMU does not run.
    pub fn in_folder(folder: &Path) -> Result<Self> {
        let folder = fs::canonicalize(folder).map_err(LabError::context(folder.display()))?;
        let libraries = folder.join(LIBRARIES);
        let loader = libraries.join("ld-linux-x86-64.so.2");
        let program = |path: &str| {
            let path = folder.join(path);
            path.is_file().then(|| Program {
                path,
                loader: Some((loader.clone(), library_path(&libraries))),
                environment: Vec::new(),
            })
        };
        let missing = |what: &str| LabError::failed(format!("{} has no {what}", folder.display()));
        let qemu = program("usr/bin/qemu-system-x86_64").ok_or_else(|| missing("QEMU"))?;
        Ok(Self {
            qemu_version: checked_version(&qemu)?,
            qemu,
            firmware: ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"]
                .map(|path| folder.join(path))
                .into_iter()
                .filter(|path| path.is_dir())
                .collect(),
            qemu_modules: Some(libraries.join("qemu")),
            c_backend: program("usr/lib/qemu/vhost-user-gpu"),
            kernel: find_kernel(&folder)
                .ok_or_else(|| missing("kernel with a virtio-gpu module"))?,
            origin: folder.display().to_string(),
        })
    }
}

/// The libraries in the loader's list, without the loader itself and what the kernel provides.
fn libraries_in(list: &str) -> Vec<(String, PathBuf)> {
    list.lines()
        .filter_map(|line| {
            let (name, rest) = line.trim().split_once(" => ")?;
            let (path, _) = rest.rsplit_once(" (")?;
            (!name.contains('/')).then(|| (name.to_owned(), PathBuf::from(path)))
        })
        .collect()
}

/// The library folders of a root, joined for the dynamic loader: the main one, and those below it
/// that hold libraries (some packages keep private ones there).
fn library_path(libraries: &Path) -> String {
    let holds_libraries = |folder: &Path| {
        fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .any(|entry| {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                name.starts_with("lib") && name.contains(".so")
            })
    };
    let mut below = fs::read_dir(libraries)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir() && holds_libraries(path))
        .collect::<Vec<_>>();
    below.sort();
    let all = [libraries.to_owned()].into_iter().chain(below);
    all.map(|path| path.display().to_string())
        .collect::<Vec<_>>()
        .join(":")
}

/// The version line of a QEMU that is new enough.
fn checked_version(qemu: &Program) -> Result<String> {
    let output = qemu
        .command()
        .arg("--version")
        .output()
        .map_err(LabError::context(qemu.path.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().next().unwrap_or_default().to_owned();
    if parse_version(&line).is_some_and(|version| version >= OLDEST_QEMU) {
        return Ok(line);
    }
    let (major, minor) = OLDEST_QEMU;
    Err(LabError::failed(format!(
        "{} is not a QEMU {major}.{minor} or newer: {line}{}",
        qemu.path.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    )))
}

/// Major and minor version in "QEMU emulator version 11.1.2 (...)".
fn parse_version(line: &str) -> Option<(u32, u32)> {
    let (_, rest) = line.split_once("version ")?;
    let mut numbers = rest.split(['.', ' ']).map_while(|part| part.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

/// The newest kernel below `folder` that has the GPU driver as a module and an image that can be
/// read.
fn find_kernel(folder: &Path) -> Option<Kernel> {
    let all = folder.join("usr/lib/modules");
    let entries = fs::read_dir(&all)
        .or_else(|_| fs::read_dir(folder.join("lib/modules")))
        .ok()?;
    let mut found = entries
        .flatten()
        .filter_map(|entry| {
            let modules = entry.path();
            let release = entry.file_name().into_string().ok()?;
            let drivers = fs::read_dir(modules.join("kernel/drivers/gpu/drm/virtio")).ok()?;
            drivers.flatten().next()?;
            let image = [
                modules.join("vmlinuz"),
                folder.join("boot").join(format!("vmlinuz-{release}")),
            ]
            .into_iter()
            .find(|image| File::open(image).is_ok())?;
            Some(Kernel {
                image,
                modules,
                release,
            })
        })
        .collect::<Vec<_>>();
    found.sort_by_key(|kernel| numbers(&kernel.release));
    found.pop()
}

/// The numbers in a release, for comparing.
fn numbers(release: &str) -> Vec<u64> {
    release
        .split(|character: char| !character.is_ascii_digit())
        .filter_map(|part| part.parse().ok())
        .collect()
}

/// The cache folder of the lab.
fn cache_folder() -> Result<PathBuf> {
    let base = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")))
        .ok_or_else(|| LabError::unavailable("neither XDG_CACHE_HOME nor HOME is set"))?;
    Ok(base.join("nosnoop"))
}

/// The cached root's folder; builds it first when it is not there.
fn cached_root() -> Result<PathBuf> {
    cached("root", &apt::RECIPE, |fresh| {
        // What does not run must not become the cached root.
        let checked = Root::in_folder(fresh)?;
        let release = checked.kernel.release;
        Ok(format!("{}, Linux {release}", checked.qemu_version))
    })
}

/// The folder of a recipe's packages in the cache; builds it first when it is not there. `check` looks
/// at a new one and says what it is.
pub(super) fn cached(
    name: &str,
    recipe: &apt::Recipe,
    check: impl FnOnce(&Path) -> Result<String>,
) -> Result<PathBuf> {
    cached_folder(&format!("{name}-{}", recipe.key()), |work, fresh| {
        apt::check_tools()?;
        apt::fill(recipe, work, fresh)?;
        check(fresh)
    })
}

/// A folder in the cache; makes it first when it is not there. `build` gets a folder to work in, which is
/// removed in the end, and the path to make inside of it; it says what it has made.
///
/// # Errors
/// What `build` returns, or the cache folder cannot be used.
pub(crate) fn cached_folder(
    name: &str,
    build: impl FnOnce(&Path, &Path) -> Result<String>,
) -> Result<PathBuf> {
    let cache = cache_folder()?;
    let folder = cache.join(name);
    if folder.is_dir() {
        return Ok(folder);
    }
    fs::create_dir_all(&cache).map_err(LabError::context(cache.display()))?;
    // Held until the end of this function; the system frees it when the process dies.
    let _lock = lock(&cache.join("lock"))?;
    if folder.is_dir() {
        return Ok(folder);
    }
    remove_leftovers(&cache)?;
    let work = tempfile::Builder::new()
        .prefix(WORK_PREFIX)
        .tempdir_in(&cache)
        .map_err(LabError::context(cache.display()))?;
    let fresh = work.path().join("root");
    let made = build(work.path(), &fresh)?;
    fs::rename(&fresh, &folder).map_err(LabError::context(folder.display()))?;
    say(format_args!("{made}: {}", folder.display()));
    Ok(folder)
}

/// What the names of folders in the making begin with.
const WORK_PREFIX: &str = "building-";

/// Removes what builds that were cut short have left; the lock is held, so nobody works there.
fn remove_leftovers(cache: &Path) -> Result<()> {
    let entries = fs::read_dir(cache).map_err(LabError::context(cache.display()))?;
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(WORK_PREFIX) {
            fs::remove_dir_all(entry.path()).map_err(LabError::context(entry.path().display()))?;
        }
    }
    Ok(())
}

/// Takes the lock that only one builder holds.
fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).map_err(LabError::context(path.display()))?;
    let start = Instant::now();
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => {
                return Err(LabError::context(path.display())(error));
            }
            Err(TryLockError::WouldBlock) if start.elapsed() > LOCK_LIMIT => {
                return Err(LabError::failed(format!(
                    "another run has held {} for {} minutes",
                    path.display(),
                    LOCK_LIMIT.as_secs() / 60
                )));
            }
            Err(TryLockError::WouldBlock) => {
                if !told {
                    say("another run is filling the cache; waiting for it");
                    told = true;
                }
                thread::sleep(Duration::from_millis(200));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared_as_numbers() {
        let line = "QEMU emulator version 11.1.2 (Debian 1:11.1.2+ds-3)";
        assert_eq!(parse_version(line), Some((11, 1)));
        assert_eq!(parse_version("QEMU emulator version 7.2"), Some((7, 2)));
        assert_eq!(parse_version("something else"), None);
        assert!(numbers("6.12.9-amd64") < numbers("6.12.11-amd64"));
    }

    #[test]
    fn libraries_are_read_from_the_loaders_list() {
        let list = "\tlinux-vdso.so.1 (0x00007f8e)\n\
                    \tlibz.so.1 => /a b/libz.so.1 (0x00007f8c)\n\
                    \t/lib64/ld-linux-x86-64.so.2 => /a/ld.so (0x00007f8d)\n";
        let expected = [("libz.so.1".to_owned(), PathBuf::from("/a b/libz.so.1"))];
        assert_eq!(libraries_in(list), expected);
    }

    #[test]
    fn a_folder_without_qemu_is_named_in_the_error() {
        let folder = tempfile::tempdir().unwrap();
        let error = Root::in_folder(folder.path()).unwrap_err().to_string();
        assert!(error.ends_with("has no QEMU"), "{error}");
    }

    #[test]
    fn the_newest_complete_kernel_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let modules = folder.path().join("usr/lib/modules");
        for (release, complete) in [("6.9.1", true), ("6.12.3", true), ("7.1.0", false)] {
            let release = modules.join(release);
            fs::create_dir_all(release.join("kernel/drivers/gpu/drm/virtio")).unwrap();
            fs::write(
                release.join("kernel/drivers/gpu/drm/virtio/virtio-gpu.ko"),
                "",
            )
            .unwrap();
            if complete {
                fs::write(release.join("vmlinuz"), "").unwrap();
            }
        }
        assert_eq!(find_kernel(folder.path()).unwrap().release, "6.12.3");
    }
}
