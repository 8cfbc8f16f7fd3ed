//! A device with Venus, and what is there for it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use nosnoop_tests::frontend::three_d::{Line, fenced_submit};
use nosnoop_tests::frontend::venus::context::REPLY_BYTES;
use nosnoop_tests::frontend::venus::{Device, Venus};
use nosnoop_tests::frontend::{Daemon, Error, Result, Rig, SessionOptions};
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
    let offset = REPLIES + u64::from(id) * REPLY_BYTES;
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

/// Checks that these contexts still answer, and that a new one can be made, which goes again.
pub(crate) fn check_lives(rig: &mut Rig, others: &mut [Venus]) -> Result<()> {
    const ID: u32 = 400;
    for venus in others {
        venus.version(rig)?;
    }
    let mut fresh = context(rig, ID)?;
    fresh.version(rig)?;
    end(rig, &fresh)
}

/// Takes a context and its memory for replies away, whose mapping goes with the context.
pub(crate) fn end(rig: &mut Rig, venus: &Venus) -> Result<()> {
    rig.gpu.destroy_context(venus.id)?;
    rig.gpu.unref(venus.replies.resource)
}

/// Sends words in a context of its own, behind which a fence is to be answered, one way or the other;
/// whether the context still answers.
pub(crate) fn survives(rig: &mut Rig, words: &[u8]) -> Result<bool> {
    const ID: u32 = 401;
    let mut venus = context(rig, ID)?;
    let request = fenced_submit(ID, words, 1, Line::Ring(0));
    rig.gpu.answer(&request)?;
    let lives = answers(rig, &mut venus)?;
    end(rig, &venus)?;
    Ok(lives)
}

/// Whether a context still answers.
pub(crate) fn answers(rig: &mut Rig, venus: &mut Venus) -> Result<bool> {
    match venus.version(rig) {
        Ok(_) => Ok(true),
        // Refused, or no reply behind the fence.
        Err(Error::Refused { .. } | Error::Protocol(_)) => Ok(false),
        Err(other) => Err(other),
    }
}
