//! Vulkan by Venus, where memory of the host's Vulkan is mapped: that takes dma-bufs, which software
//! Vulkan makes of memory where there is `/dev/udmabuf`. Not every machine has it, a Linux guest does.

use nosnoop_guest::wire::commands::{Command, Ran};

use super::files::Files;
use super::gl::{DAEMON_VARIABLE, GlRoot};
use super::outer::Outer;
use super::qemu::Accelerator;
use super::root::Root;
use super::{Result, initramfs, programs, say};

mod guest;
mod nested;
mod vkmark;

pub use guest::{Found, Guest, Programs, Step};
pub use nested::NestedGuest;

/// Where the machine has the daemon, and a test.
const DAEMON: &str = "bin/nosnoop-gpu";
const TEST: &str = "bin/test";

/// The machine's memory in MiB: its initial file system, LLVM in it, has 400, unpacked as many again.
const MEMORY: u32 = 3072;

/// Seconds for a test on a busy machine with an emulated processor.
const DEADLINE: u64 = 900;

/// The daemon, virglrenderer and software Vulkan at the places where Debian has them; `announcing` as for
/// [`GlRoot::daemon_in_place`].
fn host_files(gl: &GlRoot, announcing: bool) -> Result<Files> {
    let mut files = Files::default();
    files.linked(DAEMON, &gl.daemon_in_place(announcing)?)?;
    files.program(gl, "usr/libexec/virgl_render_server")?;
    files.vulkan(gl, "lvp")?;
    Ok(files)
}

/// A machine that is to have `/dev/udmabuf`, with the daemon and a test of this package in it.
#[derive(Debug)]
pub struct TestMachine {
    root: Root,
    initial: Vec<u8>,
}

impl TestMachine {
    /// Finds or makes everything, with the integration test `test` in it.
    ///
    /// # Errors
    /// [`LabError::Unavailable`](super::LabError::Unavailable) where no VM or no package can be had;
    /// other errors when a step fails.
    pub fn prepare(test: &str) -> Result<Self> {
        let root = Root::find_or_build()?;
        let gl = GlRoot::find_or_fetch()?;
        let mut files = host_files(&gl, false)?;
        let test = programs::integration_test(test)?;
        files.linked(TEST, &gl.foreign(&test))?;
        let init = programs::guest()?;
        let initial = initramfs::build(&init, &root.kernel, &[], &files.list())?;
        Ok(Self { root, initial })
    }

    /// Boots the machine and runs the test with these arguments.
    ///
    /// # Errors
    /// When the machine fails; a test that does is no error.
    pub fn run(&self, arguments: &[&str]) -> Result<Ran> {
        say("booting a machine with udmabuf");
        let mut machine = Outer::boot(&self.root, &self.initial, Accelerator::probe(), MEMORY)?;
        say("running the test in it");
        let words = [&format!("/{TEST}"), "--test-threads=1"];
        let words = words.iter().chain(arguments).map(ToString::to_string);
        let ran = machine.run(Command {
            words: words.collect(),
            deadline: DEADLINE,
            environment: vec![(DAEMON_VARIABLE.to_owned(), format!("/{DAEMON}"))],
            stop: None,
        })?;
        machine.power_off()?;
        Ok(ran)
    }
}
