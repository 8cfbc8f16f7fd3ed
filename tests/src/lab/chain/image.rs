//! What the outer machine boots with: everything that its inner machines need is in its initial
//! file system.

use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::super::programs::Profile;
use super::super::root::{Kernel, Program, Root};
use super::super::{LabError, Result, initramfs, programs};

/// What the outer machine loads: memory that is mapped write-combining, and virtual machines.
const MODULES: [&str; 3] = ["virtio_pci", "vgem", "kvm_amd"];

/// The firmware that a PC with a kernel on the command line takes.
const FIRMWARE: [&str; 3] = ["bios-256k.bin", "kvmvapic.bin", "linuxboot_dma.bin"];

/// Where QEMU looks for it when nothing else is said.
const MACHINES_FIRMWARE: [&str; 2] = ["/usr/share/qemu", "/usr/share/seabios"];

/// Places in the outer machine.
const QEMU: &str = "/qemu/qemu-system-x86_64";
const LOADER: &str = "/qemu/lib/loader";
const LIBRARIES: &str = "/qemu/lib";
const FIRMWARE_FOLDER: &str = "/qemu/share";
const KERNEL: &str = "/inner/vmlinuz";

/// Where the inner machine's initial file system lies in the outer one.
pub(super) const ARCHIVE: &str = "/inner/initramfs";

/// Our daemon in the outer machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Daemon {
    /// As it is shipped.
    Release,
    /// With the feature `test-memtype`.
    TestMemtype,
}

impl Daemon {
    /// Where it lies.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Release => "/daemon/release",
            Self::TestMemtype => "/daemon/test-memtype",
        }
    }
}

/// The outer machine's initial file system. `inner` is that of the inner machines, `init` the guest
/// program of all.
pub(super) fn build(root: &Root, init: &Path, inner: &[u8]) -> Result<Vec<u8>> {
    let mut archive = NamedTempFile::new().map_err(LabError::context("a temporary file"))?;
    let written = archive.write_all(inner);
    written.map_err(LabError::context(archive.path().display()))?;
    let release = programs::linked_statically("nosnoop-gpu", "nosnoop-gpu", Profile::Release)?;
    let test_memtype = programs::TEST_MEMTYPE.static_daemon()?;
    let (loader, libraries) = root.qemu.libraries()?;
    let mut files = vec![
        (QEMU.to_owned(), root.qemu.path().to_owned()),
        (LOADER.to_owned(), loader),
        (KERNEL.to_owned(), root.kernel.image.clone()),
        (ARCHIVE.to_owned(), archive.path().to_owned()),
        (Daemon::Release.path().to_owned(), release),
        (Daemon::TestMemtype.path().to_owned(), test_memtype),
    ];
    for (name, path) in libraries {
        files.push((format!("{LIBRARIES}/{name}"), path));
    }
    for (name, path) in find_firmware(root)? {
        files.push((format!("{FIRMWARE_FOLDER}/{name}"), path));
    }
    let files = files
        .iter()
        .map(|(place, file)| (place.as_str(), file.as_path()))
        .collect::<Vec<_>>();
    initramfs::build(init, &root.kernel, &MODULES, &files)
}

/// The files of the firmware that a PC with a kernel on the command line takes.
pub(in crate::lab) fn find_firmware(root: &Root) -> Result<[(&'static str, PathBuf); 3]> {
    let machines = MACHINES_FIRMWARE.map(PathBuf::from);
    let folders = root.firmware.iter().chain(&machines);
    let found = FIRMWARE.map(|name| {
        let mut paths = folders.clone().map(|folder| folder.join(name));
        let path = paths.find(|path| path.is_file()).unwrap_or_default();
        (name, path)
    });
    match found.iter().find(|(_, path)| path.as_os_str().is_empty()) {
        None => Ok(found),
        Some((name, _)) => Err(LabError::failed(format!(
            "{} has no {name} for QEMU",
            root.origin
        ))),
    }
}

/// QEMU and kernel as the outer machine has them.
pub(super) fn root_inside(root: &Root) -> Root {
    Root {
        qemu: Program::with_loader(Path::new(QEMU), Path::new(LOADER), LIBRARIES),
        qemu_version: root.qemu_version.clone(),
        firmware: vec![FIRMWARE_FOLDER.into()],
        qemu_modules: None,
        c_backend: None,
        kernel: Kernel {
            image: KERNEL.into(),
            ..root.kernel.clone()
        },
        origin: "the outer machine".to_owned(),
    }
}
