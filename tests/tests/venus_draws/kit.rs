//! A device with Venus, and what is there for it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use nosnoop_tests::frontend::venus::{Device, Venus};
use nosnoop_tests::frontend::{Daemon, Result, Rig, SessionOptions};
use nosnoop_tests::lab::LabError;
use nosnoop_tests::lab::gl::{DAEMON_VARIABLE, GlRoot};
use nosnoop_tests::lab::programs::Profile;

/// Where memory for replies lies in the region of shared memory, one after the other by context.
pub(crate) const REPLIES: u64 = 4 << 30;
/// Resource ids of the memory for replies begin here.
const REPLIES_RESOURCE: u32 = 10_000;

/// The ring of a context that [`device`] has its queue's fences on.
pub(crate) const QUEUE_RING: u8 = 1;

/// The daemon with a 3D renderer: the one that the environment names, which needs nothing else of the lab,
/// or our own. `None` after a line that says why there is none.
fn program() -> Option<&'static Path> {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    let built = || match env::var_os(DAEMON_VARIABLE) {
        Some(path) => Ok(path.into()),
        None => GlRoot::find_or_fetch()?.daemon(Profile::Quick),
    };
    let found = PROGRAM.get_or_init(|| match built() {
        Ok(path) => Some(path),
        Err(LabError::Unavailable(why)) => {
            println!("SKIPPED: no Vulkan: {why}");
            None
        }
        Err(error) => panic!("{error}"),
    });
    found.as_deref()
}

/// A daemon of its own with a device on it; `None` where there can be none.
pub(crate) fn start() -> Option<Rig> {
    let mut command = Command::new(program()?);
    command.arg("--venus=software").stdin(Stdio::null());
    let daemon = Daemon::start_command(command, &["--socket-path"]).unwrap();
    Some(Rig::on(daemon, &SessionOptions::host_blobs()).unwrap())
}

/// A context that answers.
pub(crate) fn context(rig: &mut Rig, id: u32) -> Result<Venus> {
    let offset = REPLIES + u64::from(id) * (16 << 20);
    Venus::new(rig, id, REPLIES_RESOURCE + id, offset)
}

/// A context and a device in it.
pub(crate) fn device(rig: &mut Rig, id: u32) -> Result<(Venus, Device)> {
    let mut venus = context(rig, id)?;
    let device = Device::new(rig, &mut venus, u32::from(QUEUE_RING))?;
    Ok((venus, device))
}

/// Whether Vulkan's memory can be mapped here: software Mesa's is a dma-buf where there is udmabuf.
pub(crate) fn memory_maps() -> bool {
    Path::new("/dev/udmabuf").exists()
}
