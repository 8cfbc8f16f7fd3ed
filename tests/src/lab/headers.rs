//! The kernel's headers for user space, with those of the DRM drivers.

use std::fs;
use std::path::{Path, PathBuf};

use super::{LabError, Result, apt, root};

/// The version of the headers that this program's structures were written by; older ones lack some.
const OLDEST: (u32, u32) = (7, 2);

/// An include folder with the kernel's headers, Linux 7.2 or newer: the machine's, or a cached one that is
/// fetched first when it is not there.
///
/// # Errors
/// [`LabError::Unavailable`] where none can be had.
pub fn find() -> Result<PathBuf> {
    let machine = Path::new("/usr/include");
    if version(machine).is_some_and(|version| version >= OLDEST) {
        return Ok(machine.to_owned());
    }
    let folder = root::cached("headers", &apt::HEADERS, |fresh| {
        match version(&fresh.join("usr/include")) {
            Some(found) if found >= OLDEST => {
                Ok(format!("headers of Linux {}.{}", found.0, found.1))
            }
            other => Err(LabError::failed(format!(
                "the headers that were fetched are not of Linux 7.2 or newer: {other:?}"
            ))),
        }
    })?;
    Ok(folder.join("usr/include"))
}

/// Major and minor version of the headers in an include folder, if those of the DRM drivers are there.
fn version(folder: &Path) -> Option<(u32, u32)> {
    folder.join("drm/xe_drm.h").is_file().then_some(())?;
    parse_version(&fs::read_to_string(folder.join("linux/version.h")).ok()?)
}

/// Major and minor version in `linux/version.h`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let number = |name: &str| {
        let line = text.lines().find_map(|line| line.split_once(name))?;
        line.1.trim().parse().ok()
    };
    Some((
        number("#define LINUX_VERSION_MAJOR")?,
        number("#define LINUX_VERSION_PATCHLEVEL")?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let text = "#define LINUX_VERSION_CODE 459276\n#define LINUX_VERSION_MAJOR 7\n\
                    #define LINUX_VERSION_PATCHLEVEL 2\n#define LINUX_VERSION_SUBLEVEL 12\n";
        assert_eq!(parse_version(text), Some((7, 2)));
        assert_eq!(parse_version("#define LINUX_VERSION_MAJOR 7\n"), None);
    }

    #[test]
    fn a_folder_without_the_drivers_headers_has_none() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(version(folder.path()), None);
    }
}
