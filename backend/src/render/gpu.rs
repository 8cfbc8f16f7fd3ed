//! Which GPU a 3D renderer draws with.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Where the kernel's DRM devices are.
const DRM_DEVICES: &str = "/dev/dri";

/// What the name of a render node begins with; a number follows.
const RENDER_NODE: &str = "renderD";

/// What the operator wants a 3D renderer to draw with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum GpuChoice {
    /// The GPU of --render-node, else the one with the lowest-numbered render node
    Gpu,
    /// The CPU, by Mesa's software renderer; needs no /dev/dri
    Software,
}

/// What a 3D renderer draws with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gpu {
    /// The CPU: Mesa's software renderer.
    Software,
    /// The GPU of this render node, by its real path.
    Node(PathBuf),
}

/// Why there is no GPU to draw with.
#[derive(Debug, thiserror::Error)]
pub enum GpuError {
    /// There is none, and none was named.
    #[error(
        "there is no render node in {DRM_DEVICES} for 3D: name one with --render-node, or draw in \
         software with --virgl=software or --venus=software"
    )]
    None,
    /// What was named is something else.
    #[error(
        "3D cannot be drawn on {0}: it is no render node ({DRM_DEVICES}/{RENDER_NODE}*); name \
         another with --render-node, or draw in software with --virgl=software or --venus=software"
    )]
    NoRenderNode(PathBuf),
    /// It is there, but not for us.
    #[error(
        "3D cannot be drawn on {path}: {source}; name another render node with --render-node, or \
         draw in software with --virgl=software or --venus=software"
    )]
    Open {
        /// The node.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl Gpu {
    /// What is meant by a choice: for a GPU the node that was named, else the one with the lowest
    /// number.
    ///
    /// # Errors
    /// [`GpuError`]; nothing else is tried then.
    pub fn choose(choice: GpuChoice, named: Option<&Path>) -> Result<Self, GpuError> {
        match choice {
            GpuChoice::Software => Ok(Self::Software),
            GpuChoice::Gpu => Self::choose_in(Path::new(DRM_DEVICES), named),
        }
    }

    fn choose_in(devices: &Path, named: Option<&Path>) -> Result<Self, GpuError> {
        let lowest = || lowest_node(devices).ok_or(GpuError::None);
        let path = named.map_or_else(lowest, |path| Ok(path.to_owned()))?;
        let cannot = |source| GpuError::Open {
            path: path.clone(),
            source,
        };
        // A renderer gets the real path; links such as those in by-path are for people.
        let real = fs::canonicalize(&path).map_err(cannot)?;
        if real.parent() != Some(devices) || number(&real).is_none() {
            return Err(GpuError::NoRenderNode(path));
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&real)
            .map_err(cannot)?;
        let kind = file.metadata().map_err(cannot)?.file_type();
        if !kind.is_char_device() {
            return Err(GpuError::NoRenderNode(path));
        }
        Ok(Self::Node(real))
    }
}

impl fmt::Display for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Software => f.write_str("the CPU"),
            Self::Node(path) => path.display().fmt(f),
        }
    }
}

/// The number in the name of a render node.
fn number(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?;
    name.strip_prefix(RENDER_NODE)?.parse().ok()
}

fn lowest_node(devices: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(devices).ok()?;
    let nodes = entries.flatten().map(|entry| entry.path());
    nodes
        .filter_map(|path| Some((number(&path)?, path)))
        .min()
        .map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Devices, of which only a link to /dev/null is a character device.
    fn devices(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            fs::write(folder.path().join(name), "").unwrap();
        }
        folder
    }

    #[test]
    fn the_lowest_number_counts_not_the_order_of_letters() {
        let folder = devices(&[
            "card0",
            "renderD1000",
            "renderD129",
            "renderD130",
            "renderDx",
        ]);
        let lowest = lowest_node(folder.path()).unwrap();
        assert_eq!(lowest, folder.path().join("renderD129"));
        assert_eq!(lowest_node(&folder.path().join("none")), None);
        assert_eq!(lowest_node(devices(&["card0"]).path()), None);
    }

    #[test]
    fn what_is_no_render_node_is_refused_in_one_line() {
        let folder = devices(&["card0", "renderD128"]);
        let folder = folder.path();
        symlink("/dev/null", folder.join("renderD200")).unwrap();
        let cases = [
            (Some("card0"), "it is no render node"),
            (Some("renderD128"), "it is no render node"),
            (Some("renderD200"), "it is no render node"),
            (Some("renderD7"), "No such file"),
            (None, "it is no render node"),
        ];
        for (name, expected) in cases {
            let path = name.map(|name| folder.join(name));
            let error = Gpu::choose_in(folder, path.as_deref()).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(expected), "{name:?}: {text}");
            assert!(text.contains("--virgl=software"), "{name:?}: {text}");
            assert!(!text.contains('\n'), "{name:?}: {text}");
        }
        let none = Gpu::choose_in(&folder.join("none"), None).unwrap_err();
        assert!(matches!(none, GpuError::None), "{none}");
    }
}
