//! What the guest of the driver tests boots with: the test programs of the Debian packages and the
//! libraries they need, in its initial file system.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::super::demo::Lab;
use super::super::root::{self, Program, Root};
use super::super::{LabError, Result, apt, initramfs, programs};
use super::list::{IGT_FOLDER, List, Test};

/// Where Debian has its libraries; the dynamic loader looks there without being told.
const LIBRARIES: &str = "/usr/lib/x86_64-linux-gnu";

/// Where programs look for the dynamic loader, and its name.
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
const LOADER_NAME: &str = "ld-linux-x86-64.so.2";

/// What the guest loads: the GPU's driver first, so that it has the first device nodes. The tests of
/// fences on dma-bufs want vgem.
const MODULES: [&str; 3] = ["virtio_pci", "virtio_gpu", "vgem"];

/// The folder with the packages' files.
#[derive(Debug)]
pub(super) struct Packages {
    folder: PathBuf,
}

impl Packages {
    /// The cached folder; the packages are fetched first when it is not there.
    pub(super) fn find_or_fetch() -> Result<Self> {
        let folder = root::cached("driver-tests", &apt::DRIVER_TESTS, |fresh| {
            let packages = Self {
                folder: fresh.to_owned(),
            };
            let count = packages.igt_programs()?.len();
            Ok(format!("igt-gpu-tools with {count} programs"))
        })?;
        Ok(Self { folder })
    }

    /// The file that a path in the guest names.
    fn file(&self, path: &str) -> PathBuf {
        self.folder.join(path.trim_start_matches('/'))
    }

    /// A program with what it needs to run on the host.
    fn program(&self, path: &str) -> Program {
        let libraries = self.file(LIBRARIES);
        Program::with_loader(
            &self.file(path),
            &libraries.join(LOADER_NAME),
            &libraries.display().to_string(),
        )
    }

    /// The names of all test programs of igt-gpu-tools that are not for one driver alone.
    pub(super) fn igt_programs(&self) -> Result<BTreeSet<String>> {
        let folder = self.file(IGT_FOLDER);
        let entries = fs::read_dir(&folder).map_err(LabError::context(folder.display()))?;
        let mut names = BTreeSet::new();
        for entry in entries {
            let entry = entry.map_err(LabError::context(folder.display()))?;
            if entry.path().is_file() {
                names.insert(entry.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(names)
    }

    /// The subtests of a program of igt-gpu-tools; none where the program is one test.
    fn subtests(&self, program: &str) -> Result<Vec<String>> {
        let output = self
            .program(&format!("{IGT_FOLDER}/{program}"))
            .command()
            .arg("--list-subtests")
            .stdin(Stdio::null())
            .output()
            .map_err(LabError::context(program))?;
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// The tests of the package that `list` neither runs nor leaves out.
    pub(super) fn unlisted(&self, list: &List) -> Result<Vec<String>> {
        let run = list.igt_programs().collect::<BTreeSet<_>>();
        let mut unlisted = Vec::new();
        for program in self.igt_programs()? {
            let mut names = match run.contains(program.as_str()) {
                true => self.subtests(&program)?,
                false => Vec::new(),
            };
            for name in &mut names {
                *name = format!("{program}@{name}");
            }
            if names.is_empty() {
                names.push(program);
            }
            unlisted.extend(names.into_iter().filter(|name| !list.knows(name)));
        }
        Ok(unlisted)
    }

    /// The lab whose guest has the programs of `tests`.
    pub(super) fn lab(&self, tests: &[Test]) -> Result<Lab> {
        let root = Root::find_or_build()?;
        let mut files = BTreeMap::new();
        for path in tests.iter().map(Test::program) {
            if files.contains_key(path) {
                continue;
            }
            let (loader, libraries) = self.program(path).libraries()?;
            files.insert(path.to_owned(), self.file(path));
            files.insert(LOADER.to_owned(), loader);
            for (name, library) in libraries {
                files.insert(format!("{LIBRARIES}/{name}"), library);
            }
        }
        let files = files.iter().map(|(place, file)| (&**place, &**file));
        let files = files.collect::<Vec<(&str, &Path)>>();
        let initial = initramfs::build(&programs::guest()?, &root.kernel, &MODULES, &files)?;
        Ok(Lab { root, initial })
    }
}
