//! What a guest boots with that draws by OpenGL or Vulkan: Mesa, programs and their data, in its
//! initial file system.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::gl::GlRoot;
use super::root::Program;
use super::{LabError, Result};

/// Where Debian has its libraries; the dynamic loader looks there without being told.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// Where programs look for the dynamic loader.
const LOADER: &str = "lib64/ld-linux-x86-64.so.2";

/// What is loaded by name and not linked: which EGL there is, Mesa's part of it, and the APIs.
const LOADED: [&str; 6] = [
    "libEGL.so.1",
    "libEGL_mesa.so.0",
    "libGL.so.1",
    "libGLESv2.so.2",
    "libgbm.so.1",
    "gbm/dri_gbm.so",
];

/// Folders with data that programs read.
const DATA: [&str; 3] = [
    "usr/share/glmark2",
    "usr/share/glvnd/egl_vendor.d",
    "usr/share/drirc.d",
];

/// Files by their places in the guest.
#[derive(Debug, Default)]
pub(super) struct Files(BTreeMap<String, PathBuf>);

impl Files {
    /// Mesa with all it needs, and the data of programs.
    pub(super) fn mesa(gl: &GlRoot) -> Result<Self> {
        let mut files = Self::default();
        for name in LOADED {
            files.program(gl, &format!("{LIBRARIES}/{name}"))?;
        }
        for folder in DATA {
            files.folder(gl, folder)?;
        }
        Ok(files)
    }

    /// Vulkan's loader and a driver of Mesa's: `lvp`, which is software, or `virtio`, which is Venus.
    pub(super) fn vulkan(&mut self, gl: &GlRoot, driver: &str) -> Result<()> {
        self.program(gl, &format!("{LIBRARIES}/libvulkan.so.1"))?;
        self.program(gl, &format!("{LIBRARIES}/libvulkan_{driver}.so"))?;
        self.file(gl, &format!("usr/share/vulkan/icd.d/{driver}_icd.json"));
        Ok(())
    }

    /// A program or library and the libraries that it is linked with.
    pub(super) fn program(&mut self, gl: &GlRoot, path: &str) -> Result<()> {
        self.linked(path, &gl.program(path))
    }

    /// A program that goes to this place, and the libraries that it is linked with.
    pub(super) fn linked(&mut self, place: &str, program: &Program) -> Result<()> {
        let (loader, libraries) = program.libraries()?;
        self.place(place, program.path());
        self.0.insert(LOADER.to_owned(), loader);
        for (name, library) in libraries {
            self.0.insert(format!("{LIBRARIES}/{name}"), library);
        }
        Ok(())
    }

    /// One file.
    pub(super) fn file(&mut self, gl: &GlRoot, path: &str) {
        self.0.insert(path.to_owned(), gl.folder().join(path));
    }

    /// Any file of this machine.
    pub(super) fn place(&mut self, place: &str, file: &Path) {
        self.0.insert(place.to_owned(), file.to_owned());
    }

    fn folder(&mut self, gl: &GlRoot, path: &str) -> Result<()> {
        self.folder_of(gl.folder(), path)
    }

    /// A folder of `root` with everything below.
    pub(super) fn folder_of(&mut self, root: &Path, path: &str) -> Result<()> {
        let below = root.join(path);
        let entries = fs::read_dir(&below).map_err(LabError::context(below.display()))?;
        for entry in entries {
            let entry = entry.map_err(LabError::context(below.display()))?;
            let path = format!("{path}/{}", entry.file_name().to_string_lossy());
            match entry.path().is_dir() {
                true => self.folder_of(root, &path)?,
                false => self.place(&path, &entry.path()),
            }
        }
        Ok(())
    }

    /// For [`initramfs::build`](super::initramfs::build).
    pub(super) fn list(&self) -> Vec<(&str, &Path)> {
        let files = self.0.iter();
        files.map(|(place, file)| (&**place, &**file)).collect()
    }
}
