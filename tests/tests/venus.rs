//! Vulkan by Venus on software Mesa: how it starts, and what happens where it does not.
//!
//! The libraries come from the lab's root with OpenGL; where that cannot be had these tests print a line
//! that begins with `SKIPPED: ` and the reason.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::print_stdout,
    reason = "test code: a broken expectation is to stop the test loudly"
)]

use std::process::{Command, Stdio};

use nosnoop_tests::frontend::request;
use nosnoop_tests::frontend::response::resp;
use nosnoop_tests::frontend::{Daemon, Result, Rig, SessionOptions};
use nosnoop_tests::lab::LabError;
use nosnoop_tests::lab::gl::GlRoot;
use nosnoop_tests::lab::programs::Profile;

/// `VIRTIO_GPU_CAPSET_VENUS`.
const VENUS: u32 = 4;

const HEADER: usize = 24;

/// A daemon of its own with a device on it; `None` after a line that says why there is none.
fn start(arguments: &[&str]) -> Option<Rig> {
    let built = || GlRoot::find_or_fetch()?.daemon(Profile::Quick);
    let program = match built() {
        Ok(path) => path,
        Err(LabError::Unavailable(why)) => {
            println!("SKIPPED: no Vulkan: {why}");
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    let daemon = Daemon::start_command(command, &["--socket-path"]).unwrap();
    Some(Rig::on(daemon, &SessionOptions::host_blobs()).unwrap())
}

#[test]
fn a_context_of_venus_has_fences_on_its_rings() -> Result<()> {
    let Some(mut rig) = start(&["--venus=software"]) else {
        return Ok(());
    };
    rig.gpu.create_context(1, VENUS)?;
    let submit = request::submit_3d(1, &[]);
    for request in [submit.clone().fenced(7), submit.fenced(8).on_ring(0)] {
        let answer = rig.gpu.call(&request, HEADER)?;
        let answer = answer.expect("SUBMIT_3D", resp::OK_NODATA)?;
        assert!(answer.flags() & request::FLAG_FENCE != 0);
    }
    rig.finish()
}
