//! What a guest does with Vulkan by Venus, over the real daemon with software Mesa: devices, memory, compute
//! shaders, fences, words that are no commands.
//!
//! The daemon is what the environment variable `NOSNOOP_GPU_VIRGL_BIN` names, or is built with the feature
//! `virgl` against the lab's root with OpenGL; where that cannot be had the tests say so and do nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::cast_lossless,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "test code: a broken expectation is to stop the test loudly"
)]

#[path = "venus_draws/blobs.rs"]
mod blobs;
#[path = "venus_draws/compute.rs"]
mod compute;
#[path = "venus_draws/fences.rs"]
mod fences;
#[path = "venus_draws/garbage.rs"]
mod garbage;
#[path = "venus_draws/kit.rs"]
mod kit;
#[path = "venus_draws/rates.rs"]
mod rates;
#[path = "venus_draws/rings.rs"]
mod rings;

use nosnoop_tests::frontend::Result;

#[test]
fn a_context_has_a_version_an_instance_and_a_device() -> Result<()> {
    let Some(mut rig) = kit::start() else {
        return Ok(());
    };
    let mut venus = kit::context(&mut rig, 1)?;
    let version = venus.version(&mut rig)?;
    assert!(version >= 1 << 22 | 1 << 12, "{version:#x}");
    let (_, device) = kit::device(&mut rig, 2)?;
    assert!(!device.memory_types.is_empty());
    // The first context still answers.
    assert_eq!(venus.version(&mut rig)?, version);
    rig.finish()
}
