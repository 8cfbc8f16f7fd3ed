//! A machine without a guest: QEMU with a halted processor, its GPU on a backend of this process.
//!
//! The device comes up as far as a guest would bring it, by accesses from outside. A start takes
//! a fraction of a second, and what QEMU maps can be looked at from both sides.

use std::fs;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixListener;
use std::process::{ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::lines::Lines;
use super::mapping_backend::{Mapping, MappingBackend};
use super::process::{POLL, Reaped};
use super::qemu::{Accelerator, Device, MEMORY, accept, base_command, socket_device};
use super::qtest::Qtest;
use super::root::Root;
use super::virtio_pci::VirtioGpu;
use super::{LabError, Result};
use crate::frontend::error;

/// How long QEMU may take for what it does after it has acknowledged a request.
const SETTLE_LIMIT: Duration = Duration::from_secs(20);

/// How many lines of QEMU an error shows.
const SHOWN_LINES: usize = 5;

/// Firmware that halts the processor: nothing but HLT, as large as the smallest that QEMU takes.
static HALT: [u8; 65536] = [0xf4; 65536];

/// A part of a file in QEMU's address space.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MappedPart {
    /// Offset in the file, bytes.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// As in `rw-s`.
    pub permissions: String,
}

/// A running QEMU; dropping it ends the process.
#[derive(Debug)]
pub struct BareMachine {
    process: Reaped,
    qtest: Qtest,
    backend: MappingBackend,
    device: VirtioGpu,
    errors: Lines,
    _folder: TempDir,
}

impl BareMachine {
    /// Starts QEMU with a backend that offers `features`. The device has its addresses and waits
    /// for [`Self::start_device`].
    ///
    /// # Errors
    /// When QEMU does not start or is unlike any known one.
    pub fn boot(root: &Root, accelerator: Accelerator, features: u64) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("nosnoop-bare-")
            .tempdir()
            .map_err(LabError::context("cannot make a folder for the machine"))?;
        let firmware = folder.path().join("halt");
        fs::write(&firmware, HALT.as_slice()).map_err(LabError::context(firmware.display()))?;
        let mut command = base_command(root, accelerator, MEMORY);
        command.arg("-bios").arg(&firmware);
        let mut listen = |id: &str| {
            let path = folder.path().join(id);
            command.arg("-chardev").arg(socket_device(id, &path));
            UnixListener::bind(&path).map_err(LabError::context(path.display()))
        };
        let (port, vgpu) = (listen("qtest")?, listen("vgpu")?);
        command.args(["-qtest", "chardev:qtest", "-qtest-log", "none"]);
        command.args(["-device", &Device::Test.argument("vgpu")]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut process = Reaped::spawn(&mut command, "QEMU")?;
        let errors = process.child().stderr.take();
        let errors = Lines::read(errors.ok_or_else(|| LabError::failed("no pipe to QEMU"))?);
        let vgpu = accept(&vgpu, "GPU", &mut process, &errors)?;
        let backend = MappingBackend::start(vgpu, features)
            .map_err(|error| LabError::failed(format!("{error}\n{}", errors.last(SHOWN_LINES))))?;
        let mut qtest = Qtest::new(accept(&port, "qtest port", &mut process, &errors)?)?;
        let device = VirtioGpu::place(&mut qtest)?;
        Ok(Self {
            process,
            qtest,
            backend,
            device,
            errors,
            _folder: folder,
        })
    }

    /// Starts the device, as a guest's driver does.
    ///
    /// # Errors
    /// When QEMU has gone or the device does not start.
    pub fn start_device(&mut self) -> Result<()> {
        self.device.start(&mut self.qtest)
    }

    /// Resets the device, as a guest that reboots does.
    ///
    /// # Errors
    /// When QEMU has gone.
    pub fn reset_device(&mut self) -> Result<()> {
        self.device.reset(&mut self.qtest)
    }

    /// See [`MappingBackend::map`].
    ///
    /// # Errors
    /// When no acknowledgement comes.
    pub fn map(&self, mapping: Mapping, fd: Option<BorrowedFd<'_>>) -> error::Result<u64> {
        self.backend.map(mapping, fd)
    }

    /// See [`MappingBackend::unmap`].
    ///
    /// # Errors
    /// When no acknowledgement comes.
    pub fn unmap(&self, mapping: Mapping) -> error::Result<u64> {
        self.backend.unmap(mapping)
    }

    /// What the guest would read at an offset in the shared-memory region.
    ///
    /// # Errors
    /// When QEMU has gone.
    pub fn read(&mut self, offset: u64, len: usize) -> Result<Vec<u8>> {
        self.qtest.read(VirtioGpu::SHARED_MEMORY + offset, len)
    }

    /// Writes 4 bytes as the guest would, at an offset in the shared-memory region.
    ///
    /// # Errors
    /// When QEMU has gone.
    pub fn write(&mut self, offset: u64, value: u32) -> Result<()> {
        let address = VirtioGpu::SHARED_MEMORY + offset;
        self.qtest.write_u32(address, value)
    }

    /// Where QEMU maps the memfd of this name, sorted by offset in the file.
    ///
    /// # Errors
    /// When QEMU has gone.
    pub fn mapped(&self, memfd: &str) -> Result<Vec<MappedPart>> {
        let path = format!("/proc/{}/maps", self.process.id());
        let maps = fs::read_to_string(&path).map_err(LabError::context(path))?;
        let mut parts = parse_maps(&maps, memfd);
        parts.sort();
        Ok(parts)
    }

    /// How many descriptors of the memfd of this name QEMU has.
    ///
    /// # Errors
    /// When QEMU has gone.
    pub fn descriptors(&self, memfd: &str) -> Result<usize> {
        let folder = format!("/proc/{}/fd", self.process.id());
        let entries = fs::read_dir(&folder).map_err(LabError::context(folder))?;
        let targets = entries.flatten().map(|entry| fs::read_link(entry.path()));
        let name = link_target(memfd);
        Ok(targets
            .flatten()
            .filter(|target| target.to_str() == Some(&name))
            .count())
    }

    /// Waits until the memfd of this name is mapped in exactly these parts, and QEMU has a
    /// descriptor for each of them and no further one. QEMU unmaps only after it has said so.
    ///
    /// # Errors
    /// When that does not happen in time.
    pub fn wait_mapped(&self, memfd: &str, expected: &[MappedPart]) -> Result<()> {
        let start = Instant::now();
        loop {
            let (mapped, descriptors) = (self.mapped(memfd)?, self.descriptors(memfd)?);
            if mapped == expected && descriptors == expected.len() {
                return Ok(());
            }
            if start.elapsed() > SETTLE_LIMIT {
                return Err(LabError::failed(format!(
                    "QEMU maps {mapped:x?} of {memfd} with {descriptors} descriptors, not \
                     {expected:x?}"
                )));
            }
            thread::sleep(POLL);
        }
    }

    /// Waits until QEMU has ended.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn wait_end(&mut self) -> Result<ExitStatus> {
        self.process.wait(SETTLE_LIMIT)
    }

    /// The last `count` lines that QEMU wrote on its standard error, each indented.
    #[must_use]
    pub fn last_lines(&self, count: usize) -> String {
        self.errors.last(count)
    }
}

/// What `/proc` shows for a memfd.
fn link_target(memfd: &str) -> String {
    format!("/memfd:{memfd} (deleted)")
}

/// The parts of a memfd in the text of `/proc/PID/maps` (`man 5 proc_pid_maps`).
fn parse_maps(maps: &str, memfd: &str) -> Vec<MappedPart> {
    let name = link_target(memfd);
    let lines = maps.lines().filter_map(|line| line.strip_suffix(&name));
    lines.filter_map(parse_part).collect()
}

/// The fields in front of the name: addresses, permissions, offset, device, inode.
fn parse_part(line: &str) -> Option<MappedPart> {
    let hexadecimal = |digits| u64::from_str_radix(digits, 16).ok();
    let mut fields = line.split_whitespace();
    let (from, to) = fields.next()?.split_once('-')?;
    Some(MappedPart {
        permissions: fields.next()?.to_owned(),
        offset: hexadecimal(fields.next()?)?,
        len: hexadecimal(to)?.checked_sub(hexadecimal(from)?)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_one_file_are_found() {
        let maps = "\
7f00-8f00 r--p 00000000 00:01 5 /usr/lib/x.so
7f22ed45000-7f22ed49000 rw-s 00004000 00:01 221416                     /memfd:blob (deleted)
7f22ed50000-7f22ed51000 rw-s 00000000 00:01 221417                     /memfd:blob-2 (deleted)
7f22ed60000-7f22ed61000 rw-p 00000000 00:00 0
";
        let part = MappedPart {
            offset: 0x4000,
            len: 0x4000,
            permissions: "rw-s".to_owned(),
        };
        assert_eq!(parse_maps(maps, "blob"), [part]);
        assert!(parse_maps(maps, "lob").is_empty());
    }
}
