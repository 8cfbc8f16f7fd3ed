//! OpenGL in software and virglrenderer, from a folder of Debian packages of their own: what the daemon
//! with a 3D renderer is built and run with where the machine has neither, and what guests draw with.

use std::fs;
use std::path::{Path, PathBuf};

use super::root::{self, Program};
use super::{LabError, Result, apt};

/// Where Debian has its libraries.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

const LOADER: &str = "ld-linux-x86-64.so.2";

/// The oldest virglrenderer that will do.
const OLDEST: (u32, u32) = (1, 3);

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
        let libraries = self.libraries().display().to_string();
        Program::with_loader(&self.folder.join(path), &self.loader(), &libraries)
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
