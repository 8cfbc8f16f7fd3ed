//! The guest inside a machine with udmabuf, where it can map memory of the host's Vulkan: the program
//! `vm` runs there as it does here, with the daemon, virglrenderer, software Vulkan and QEMU with KVM.
//!
//! The outer machine is emulated, with AMD's hardware virtualization, so this runs wherever QEMU does.

use std::io::Write;

use nosnoop_guest::wire;
use nosnoop_guest::wire::commands::{Command, Ending};
use tempfile::NamedTempFile;

use super::super::chain::find_firmware;
use super::super::gl::{DAEMON_VARIABLE, GlRoot};
use super::super::outer::Outer;
use super::super::programs::Profile;
use super::super::qemu::{ACCELERATOR_VARIABLE, Accelerator};
use super::super::root::{ROOT_VARIABLE, Root};
use super::super::{LabError, Result, initramfs, programs, say};
use super::guest::{Found, Guest, Programs};
use super::{DAEMON, host_files};

/// What the outer machine loads: virtual machines.
const MODULES: [&str; 2] = ["virtio_pci", "kvm_amd"];

/// Places in the outer machine, beside those that the program knows by itself.
const PROGRAM: &str = "bin/vm";
const ARCHIVE: &str = "inner/initramfs";

/// The outer machine's memory in MiB: the inner one's, and the initial file systems of both several
/// times, as files, as QEMU's copy and unpacked.
const MEMORY: u32 = 5120;

/// Seconds for all of it on a busy machine with an emulated processor.
const DEADLINE: u64 = 1800;

/// Everything that both machines boot from.
#[derive(Debug)]
pub struct NestedGuest {
    root: Root,
    initial: Vec<u8>,
    wanted: Programs,
    announced: Option<String>,
}

impl NestedGuest {
    /// Finds or makes everything. What is `announced` is the memory type that a test build of the daemon
    /// announces blobs with, whatever they are (its option `--test-memtype`).
    ///
    /// # Errors
    /// As [`Guest::prepare`].
    pub fn prepare(wanted: Programs, announced: Option<String>) -> Result<Self> {
        let Guest { root, initial, .. } = Guest::prepare(wanted)?;
        let gl = GlRoot::find_or_fetch()?;
        let mut archive = NamedTempFile::new().map_err(LabError::context("a temporary file"))?;
        let written = archive.write_all(&initial);
        written.map_err(LabError::context(archive.path().display()))?;
        let mut files = host_files(&gl, announced.is_some())?;
        // Where `Root` looks for QEMU and a kernel below the folder that is named.
        files.linked("usr/bin/qemu-system-x86_64", &root.qemu)?;
        files.place(
            "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
            &gl.loader(),
        );
        for (name, path) in find_firmware(&root)? {
            files.place(&format!("usr/share/qemu/{name}"), &path);
        }
        let modules = format!("usr/lib/modules/{}", root.kernel.release);
        files.place(&format!("{modules}/vmlinuz"), &root.kernel.image);
        // A kernel that `Root` takes has the GPU's driver as a module; the inner guest's is in its
        // initial file system.
        let module = format!("{modules}/kernel/drivers/gpu/drm/virtio/virtio-gpu.ko");
        files.place(&module, &root.kernel.image);
        let program = programs::linked_statically("nosnoop-tests", "vm", Profile::Quick)?;
        files.place(PROGRAM, &program);
        files.place(ARCHIVE, archive.path());
        let init = programs::guest()?;
        let initial = initramfs::build(&init, &root.kernel, &MODULES, &files.list())?;
        Ok(Self {
            root,
            initial,
            wanted,
            announced,
        })
    }

    /// Boots both machines; what the inner one has found with these options of the daemon.
    ///
    /// # Errors
    /// When a machine or the program in the outer one fails.
    pub fn run(&self, options: &str) -> Result<Found> {
        say("booting the outer machine");
        let mut outer = Outer::boot(&self.root, &self.initial, Accelerator::Nested, MEMORY)?;
        say("running the inner one");
        let (program, archive) = (format!("/{PROGRAM}"), format!("/{ARCHIVE}"));
        let words = [&program, "venus", "--initial", &archive];
        // One word, which begins with a dash.
        let announced = self.announced.as_deref();
        let announced = announced.map(|types| format!(" --test-memtype={types}"));
        let options = format!("--options={options}{}", announced.unwrap_or_default());
        let words = words.into_iter().chain([options.as_str()]);
        let mut words = words.map(str::to_owned).collect::<Vec<_>>();
        words.extend(self.wanted.options().map(str::to_owned));
        let variables = [
            (ROOT_VARIABLE, "/".to_owned()),
            (ACCELERATOR_VARIABLE, Accelerator::Kvm.name().to_owned()),
            (DAEMON_VARIABLE, format!("/{DAEMON}")),
        ];
        let ran = outer.run(Command {
            words,
            deadline: DEADLINE,
            environment: variables
                .map(|(name, value)| (name.to_owned(), value))
                .to_vec(),
            stop: None,
        })?;
        outer.power_off()?;
        let lines = ran.lines.iter();
        for line in lines.clone().filter(|line| line.starts_with('[')) {
            say(format_args!("inside: {line}"));
        }
        match lines.clone().find_map(|line| wire::from_line(line)) {
            Some(found) if ran.ending == Ending::Status(0) => Ok(found),
            _ => Err(LabError::failed(format!(
                "the program in the outer machine ended with {:?}:\n{}",
                ran.ending,
                ran.lines.join("\n")
            ))),
        }
    }
}
