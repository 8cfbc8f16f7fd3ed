//! Fills a folder with packages from the machine's own Debian archive: no root rights, no chroot, no
//! package scripts. One recipe is for QEMU and a kernel, the others for what some tests need beside.
//!
//! A private apt configuration with an empty package database works out and downloads the packages
//! (signatures checked with the Debian archive's keyring), `dpkg-deb -x` unpacks them. The
//! machine's package sources and database are only read.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::process::run_logged;
use super::{LabError, Result, say};

/// What decides the content of a folder; its hash names the folder in the cache.
pub(super) struct Recipe {
    /// Raised when the steps themselves change.
    version: u32,
    suite: &'static str,
    /// vhost-user-gpu, QEMU's own backend, is in qemu-system-gui. The kernel's own package brings
    /// the image and the modules as dependencies, under names that change with the version.
    packages: &'static [&'static str],
    /// Folders that nothing here reads.
    unused: &'static [&'static str],
    /// What this is, for people.
    what: &'static str,
}

/// The recipe in use: the first Debian suite with a QEMU of 11.1 or newer.
pub(super) const RECIPE: Recipe = Recipe {
    version: 1,
    suite: "forky",
    packages: &[
        "qemu-system-x86",
        "qemu-system-gui",
        "seabios",
        "linux-image-amd64",
    ],
    unused: &[
        "usr/share/doc",
        "usr/share/icons",
        "usr/share/locale",
        "usr/share/man",
    ],
    what: "QEMU, its own GPU backend and a kernel (about 300 MB)",
};

/// The kernel's headers for user space, of the same suite: those of the DRM drivers are not on every
/// machine, and older ones lack what is compared with them.
pub(super) const HEADERS: Recipe = Recipe {
    version: 1,
    suite: "forky",
    packages: &["linux-libc-dev"],
    unused: &["usr/share/doc"],
    what: "the kernel's headers (2 MB)",
};

/// What the driver tests run in a guest, of the same suite: igt-gpu-tools and libdrm's own programs.
pub(super) const DRIVER_TESTS: Recipe = Recipe {
    version: 1,
    suite: "forky",
    packages: &["igt-gpu-tools-tests", "libdrm-tests"],
    unused: &["etc", "usr/share", "var"],
    what: "igt-gpu-tools and libdrm's test programs (30 MB)",
};

/// OpenGL in software, of the same suite: what the daemon with a 3D renderer is built and run with, and
/// what a guest draws with. piglit's and Mesa's programs need no display server as they are used here.
pub(super) const GL: Recipe = Recipe {
    version: 1,
    suite: "forky",
    packages: &[
        "libvirglrenderer-dev",
        "virgl-server",
        "libegl1",
        "libegl-mesa0",
        "libgl1",
        "libgl1-mesa-dri",
        "libgles2",
        "libopengl0",
        "libgbm1",
        "libdrm2",
        "mesa-vulkan-drivers",
        "vulkan-tools",
        "kmscube",
        "glmark2-es2-drm",
        "mesa-utils",
        "mesa-utils-bin",
        "piglit",
        "weston",
    ],
    unused: &[
        "usr/share/doc",
        "usr/share/icons",
        "usr/share/iso-codes",
        "usr/share/locale",
        "usr/share/man",
    ],
    what: "Mesa, virglrenderer and test programs for them (170 MB)",
};

/// A benchmark of Vulkan, which that suite lacks.
pub(super) const VKMARK: Recipe = Recipe {
    version: 1,
    suite: "sid",
    packages: &["vkmark"],
    unused: &[
        "etc",
        "usr/share/doc",
        "usr/share/locale",
        "usr/share/man",
        "var",
    ],
    what: "vkmark (40 MB)",
};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// 300 MB on a slow line.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(1800);
const INDEX_LIMIT: Duration = Duration::from_secs(300);
const UNPACK_LIMIT: Duration = Duration::from_secs(300);

/// How often a long step tells how far it is.
const PROGRESS: Duration = Duration::from_secs(5);

impl Recipe {
    /// A short name that changes with the recipe (FNV-1a).
    pub(super) fn key(&self) -> String {
        let text = format!(
            "{} {} {} {}",
            self.version,
            self.suite,
            self.packages.join(","),
            self.unused.join(",")
        );
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        format!("{}-{hash:016x}", self.suite)
    }
}

/// Checks that the machine has what [`fill`] needs.
pub(super) fn check_tools() -> Result<()> {
    if std::env::consts::ARCH != "x86_64" {
        return Err(LabError::unavailable(format!(
            "the lab's packages are for x86_64, this machine is {}",
            std::env::consts::ARCH
        )));
    }
    for tool in ["apt-get", "dpkg-deb"] {
        let found = Command::new(tool).arg("--version").output();
        if !found.is_ok_and(|output| output.status.success()) {
            return Err(LabError::unavailable(format!(
                "{tool} is missing: without it no root with QEMU and a kernel can be built here; \
                 install QEMU 11.1 or newer and a kernel, or name a Debian root in {}",
                super::root::ROOT_VARIABLE
            )));
        }
    }
    if !Path::new(KEYRING).exists() {
        return Err(LabError::unavailable(format!(
            "{KEYRING} is missing: install debian-archive-keyring"
        )));
    }
    Ok(())
}

/// Addresses of Debian archives that this machine's apt uses, the likeliest first.
fn archives() -> Result<Vec<String>> {
    // Where `apt-get update` never ran, origin and label stay unknown, and only the second list
    // has entries.
    let format = "$(ORIGIN)|$(LABEL)|$(COMPONENT)|$(RELEASE)|$(REPO_URI)";
    let list = |more: &[&str]| -> Result<Vec<String>> {
        let output = Command::new("apt-get")
            .arg("indextargets")
            .args(more)
            .args(["--format", format, "Created-By: Packages"])
            .output()
            .map_err(LabError::context("cannot run apt-get indextargets"))?;
        Ok(String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(str::to_owned)
            .collect())
    };
    let known = list(&[])?;
    let unknown = list(&["--no-release-info"])?;
    let found = archives_in(&known, &unknown);
    if found.is_empty() {
        return Err(LabError::unavailable(
            "this machine's apt has no Debian archive among its sources; \
             install QEMU 11.1 or newer and a kernel by other means",
        ));
    }
    Ok(found)
}

/// The archives in the two lists of [`archives`], each once.
fn archives_in(known: &[String], unknown: &[String]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let certain = known
        .iter()
        .filter_map(|line| line.strip_prefix("Debian|Debian|main|"));
    let likely = unknown.iter().filter_map(|line| {
        let (_, rest) = line.split_once("|main|")?;
        let (release, address) = rest.split_once('|')?;
        // Security and update archives hold other suites; other vendors' archives are not Debian.
        (!release.contains('-') && address.trim_end_matches('/').ends_with("/debian"))
            .then_some(rest)
    });
    certain
        .chain(likely)
        .filter_map(|rest| rest.split_once('|'))
        .map(|(_, address)| address.to_owned())
        .filter(|address| seen.insert(address.clone()))
        .collect()
}

/// The private apt: its configuration and state in one folder.
struct PrivateApt<'a> {
    folder: PathBuf,
    recipe: &'a Recipe,
}

impl<'a> PrivateApt<'a> {
    fn new(folder: &Path, recipe: &'a Recipe) -> Result<Self> {
        let apt = Self {
            folder: folder.to_owned(),
            recipe,
        };
        for path in [
            "state/lists/partial",
            "cache/archives/partial",
            "etc/empty",
            "log",
        ] {
            let path = folder.join(path);
            fs::create_dir_all(&path).map_err(LabError::context(path.display()))?;
        }
        apt.write("status", "")?;
        apt.write("first.conf", &apt.first_configuration())?;
        apt.write("etc/last.conf", &last_configuration())?;
        Ok(apt)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.folder.join(name);
        fs::write(&path, text).map_err(LabError::context(path.display()))
    }

    /// Read before the machine's own settings: only places.
    fn first_configuration(&self) -> String {
        let folder = self.folder.display();
        format!(
            "Dir::State \"{folder}/state\";\n\
             Dir::State::status \"{folder}/status\";\n\
             Dir::Cache \"{folder}/cache\";\n\
             Dir::Log \"{folder}/log\";\n\
             Dir::Etc::sourcelist \"{folder}/etc/sources.list\";\n\
             Dir::Etc::sourceparts \"{folder}/etc/empty\";\n\
             Dir::Etc::preferences \"{folder}/etc/none\";\n\
             Dir::Etc::preferencesparts \"{folder}/etc/empty\";\n\
             Dir::Etc::trusted \"{folder}/etc/none\";\n\
             Dir::Etc::trustedparts \"{folder}/etc/empty\";\n\
             Dir::Etc::main \"{folder}/etc/last.conf\";\n"
        )
    }

    /// apt-get in this configuration. The machine's settings for proxies and the like hold
    /// (`Dir::Etc::parts` stays), its hooks do not.
    fn get(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("apt-get");
        command
            .args(arguments)
            .env("APT_CONFIG", self.folder.join("first.conf"))
            .env("LC_ALL", "C.UTF-8")
            .env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    /// Fetches the suite's index from `archive`.
    fn update(&self, archive: &str) -> Result<()> {
        let suite = self.recipe.suite;
        self.write(
            "etc/sources.list",
            &format!("deb [signed-by={KEYRING}] {archive} {suite} main\n"),
        )?;
        let log = self.folder.join("update.log");
        run_logged(
            &mut self.get(&["update"]),
            "apt-get update",
            &log,
            INDEX_LIMIT,
            || {},
        )
    }

    /// Downloads the recipe's packages and all they depend on.
    fn download(&self) -> Result<Vec<PathBuf>> {
        let archives = self.folder.join("cache/archives");
        let mut arguments = vec![
            "install",
            "--download-only",
            "--yes",
            "--no-install-recommends",
        ];
        arguments.extend_from_slice(self.recipe.packages);
        let mut told = Instant::now();
        run_logged(
            &mut self.get(&arguments),
            "apt-get install --download-only",
            &self.folder.join("download.log"),
            DOWNLOAD_LIMIT,
            || {
                if told.elapsed() > PROGRESS {
                    told = Instant::now();
                    let bytes = size_of_files(&archives) + size_of_files(&archives.join("partial"));
                    say(format_args!("  {} MB downloaded", bytes / 1_000_000));
                }
            },
        )?;
        let entries = fs::read_dir(&archives).map_err(LabError::context(archives.display()))?;
        let mut packages = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .collect::<Vec<_>>();
        packages.sort();
        Ok(packages)
    }
}

/// Read after the machine's own settings, so that these hold.
fn last_configuration() -> String {
    let own = Path::new("/etc/apt/apt.conf");
    let include = if own.exists() {
        "#include \"/etc/apt/apt.conf\";\n"
    } else {
        ""
    };
    let hooks = [
        "APT::Update::Pre-Invoke",
        "APT::Update::Post-Invoke",
        "APT::Update::Post-Invoke-Success",
        "DPkg::Pre-Invoke",
        "DPkg::Pre-Install-Pkgs",
        "DPkg::Post-Invoke",
        // Indexes of pictures and the like, for other programs.
        "Acquire::IndexTargets::deb::DEP-11",
        "Acquire::IndexTargets::deb::CNF",
        "APT::Default-Release",
    ];
    let cleared = hooks.map(|hook| format!("#clear {hook};\n")).concat();
    format!(
        "{include}{cleared}\
         // An archive that is a frozen copy has a release file past its date.\n\
         Acquire::Check-Valid-Until \"false\";\n\
         Acquire::Languages \"none\";\n\
         Acquire::Retries \"3\";\n\
         APT::Update::Error-Mode \"any\";\n\
         APT::Architecture \"amd64\";\n\
         #clear APT::Architectures;\n\
         APT::Architectures {{ \"amd64\"; }};\n\
         APT::Install-Recommends \"false\";\n\
         APT::Install-Suggests \"false\";\n\
         APT::Keep-Downloaded-Packages \"true\";\n\
         // The download helper's own user could not write into a private cache folder.\n\
         APT::Sandbox::User \"\";\n\
         Dpkg::Use-Pty \"false\";\n"
    )
}

/// The bytes in the files of a folder.
fn size_of_files(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.metadata().ok())
        .map(|entry| entry.len())
        .sum()
}

/// Fills the folder `root` with a recipe's packages; `work` holds what is needed meanwhile.
pub(super) fn fill(recipe: &Recipe, work: &Path, root: &Path) -> Result<()> {
    let apt = PrivateApt::new(&work.join("apt"), recipe)?;
    say(format_args!(
        "fetching the package index of suite {} (once; cached for later runs)",
        recipe.suite
    ));
    let mut failures = Vec::new();
    let mut found = false;
    for archive in archives()? {
        match apt.update(&archive) {
            Ok(()) => {
                found = true;
                break;
            }
            Err(error) => failures.push(last_line(&error)),
        }
    }
    if !found {
        return Err(LabError::unavailable(format!(
            "no archive among this machine's apt sources serves the suite {} (no network?): {}",
            recipe.suite,
            failures.join("; ")
        )));
    }
    say(format_args!("downloading {}", recipe.what));
    let packages = apt.download().map_err(|error| {
        LabError::unavailable(format!("the packages do not arrive: {}", last_line(&error)))
    })?;
    say(format_args!("unpacking {} packages", packages.len()));
    unpack(&packages, work, root)?;
    for folder in recipe.unused {
        let folder = root.join(folder);
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(LabError::context(folder.display()))?;
        }
    }
    Ok(())
}

/// The last line of an error with a program's output: what stopped it.
fn last_line(error: &LabError) -> String {
    let text = error.to_string();
    text.trim_end()
        .lines()
        .last()
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// Unpacks the files of all packages into `root`.
fn unpack(packages: &[PathBuf], work: &Path, root: &Path) -> Result<()> {
    fs::create_dir_all(root).map_err(LabError::context(root.display()))?;
    let mut told = Instant::now();
    for (done, package) in packages.iter().enumerate() {
        if told.elapsed() > PROGRESS {
            told = Instant::now();
            say(format_args!(
                "  {done} of {} packages unpacked",
                packages.len()
            ));
        }
        let name = format!("dpkg-deb -x {}", package.display());
        let mut command = Command::new("dpkg-deb");
        command.arg("-x").arg(package).arg(root);
        run_logged(
            &mut command,
            &name,
            &work.join("unpack.log"),
            UNPACK_LIMIT,
            || {},
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[&str]) -> Vec<String> {
        text.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn archives_known_as_debian_come_first() {
        let known = lines(&[
            "Debian|Debian-Security|main|x-security|http://a.example/debian-security/",
            "Debian|Debian|contrib|x|http://a.example/debian/",
            "Debian|Debian|main|x|http://b.example/mirror/",
            "Other|Other|main|x|http://c.example/debian/",
        ]);
        let unknown = lines(&[
            "$(ORIGIN)|$(LABEL)|main|x|http://a.example/debian/",
            "$(ORIGIN)|$(LABEL)|main|x-updates|http://d.example/debian/",
            "$(ORIGIN)|$(LABEL)|main|x|http://e.example/tools/",
        ]);
        let found = archives_in(&known, &unknown);
        assert_eq!(
            found,
            ["http://b.example/mirror/", "http://a.example/debian/"]
        );
    }

    #[test]
    fn the_key_names_the_suite_and_the_recipe() {
        let other = Recipe {
            version: 0,
            ..RECIPE
        };
        assert!(RECIPE.key().starts_with("forky-"));
        assert_ne!(RECIPE.key(), other.key());
    }
}
