//! The guest's initial file system: an uncompressed cpio archive in the "newc" format
//! (Documentation/driver-api/early-userspace/buffer-format.rst), written without tools.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use nosnoop_guest::wire::{MODULE_FOLDER, MODULE_LIST};

use super::modules::Modules;
use super::root::Kernel;
use super::{LabError, Result};

/// What a guest loads that draws on the GPU.
pub const GPU_MODULES: [&str; 2] = ["virtio_pci", "virtio_gpu"];

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// An archive in the making.
#[derive(Debug, Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    folders: BTreeSet<String>,
}

impl Archive {
    /// Adds one entry; `path` has no slash in front.
    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), data: &[u8]) -> Result<()> {
        let too_big = |_| LabError::failed(format!("{path} is too big for an initial file system"));
        let size = u32::try_from(data.len()).map_err(too_big)?;
        let name_size = u32::try_from(path.len() + 1).map_err(too_big)?;
        self.entries += 1;
        let header = [
            self.entries, // inode
            mode,
            0, // owner
            0, // group
            1, // links
            0, // time
            size,
            0, // device that holds the file, major
            0, // and minor
            device.0,
            device.1,
            name_size,
            0, // checksum, unused in this format
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in header {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
        Ok(())
    }

    /// Fills up to the next multiple of four bytes.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// Adds a folder and those above it, once.
    fn folder(&mut self, path: &str) -> Result<()> {
        if path.is_empty() || self.folders.contains(path) {
            return Ok(());
        }
        if let Some((above, _)) = path.rsplit_once('/') {
            self.folder(above)?;
        }
        self.folders.insert(path.to_owned());
        self.entry(path, FOLDER, (0, 0), &[])
    }

    /// Adds a file and the folders above it.
    fn file(&mut self, path: &str, mode: u32, data: &[u8]) -> Result<()> {
        let path = path.trim_start_matches('/');
        if let Some((above, _)) = path.rsplit_once('/') {
            self.folder(above)?;
        }
        self.entry(path, mode, (0, 0), data)
    }

    /// The whole archive.
    fn finish(mut self) -> Result<Vec<u8>> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        Ok(self.bytes)
    }
}

/// The initial file system with `init` as its first program, these modules of `kernel` with what
/// they depend on, and the programs that go to these places.
///
/// # Errors
/// When a file cannot be read or a module is neither there nor built into the kernel.
pub fn build(
    init: &Path,
    kernel: &Kernel,
    modules: &[&str],
    programs: &[(&str, &Path)],
) -> Result<Vec<u8>> {
    let read = |path: &Path| fs::read(path).map_err(LabError::context(path.display()));
    let mut archive = Archive::default();
    for folder in ["dev", "proc", "sys", "tmp"] {
        archive.folder(folder)?;
    }
    // The kernel opens it for the first program before any file system is mounted.
    archive.entry("dev/console", CHARACTER_DEVICE, (5, 1), &[])?;
    archive.file("init", PROGRAM, &read(init)?)?;
    for (place, program) in programs {
        archive.file(place, PROGRAM, &read(program)?)?;
    }
    let mut list = String::new();
    for module in Modules::of(kernel)?.closure(modules)? {
        archive.file(
            &format!("{MODULE_FOLDER}/{}.ko", module.name),
            FILE,
            &module.image,
        )?;
        list.push_str(&format!("{}.ko\n", module.name));
    }
    archive.file(MODULE_LIST, FILE, list.as_bytes())?;
    archive.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_reads_as_the_format_says() {
        let mut archive = Archive::default();
        archive.file("/a/b/c.txt", FILE, b"hello").unwrap();
        let bytes = archive.finish().unwrap();
        let mut names = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            assert_eq!(&bytes[at..at + 6], b"070701");
            let field = |index: usize| {
                let from = at + 6 + index * 8;
                let digits = std::str::from_utf8(&bytes[from..from + 8]).unwrap();
                usize::from_str_radix(digits, 16).unwrap()
            };
            let (size, name_size) = (field(6), field(11));
            let name = &bytes[at + 110..at + 110 + name_size];
            assert_eq!(name.last(), Some(&0));
            let name = String::from_utf8(name[..name_size - 1].to_vec()).unwrap();
            let data = (at + 110 + name_size).next_multiple_of(4);
            names.push((name, field(1), bytes[data..data + size].to_vec()));
            at = (data + size).next_multiple_of(4);
        }
        let expected = [
            ("a", 0o040_755, &b""[..]),
            ("a/b", 0o040_755, b""),
            ("a/b/c.txt", 0o100_644, b"hello"),
            ("TRAILER!!!", 0, b""),
        ];
        let expected = expected.map(|(name, mode, data)| (name.to_owned(), mode, data.to_vec()));
        assert_eq!(names, expected);
    }
}
