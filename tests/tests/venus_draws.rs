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
#[path = "venus_draws/stuck.rs"]
mod stuck;

use nosnoop_tests::frontend::Result;
use nosnoop_tests::frontend::venus::Capset;

/// Numbers of Vulkan extensions: `VK_KHR_external_memory_fd` and one that nobody has.
const EXTERNAL_MEMORY_FD: u32 = 75;
const NONE: u32 = 1000;

#[test]
fn the_capability_set_says_what_this_library_speaks() -> Result<()> {
    let Some(mut rig) = kit::start() else {
        return Ok(());
    };
    let capset = Capset::get(&mut rig.gpu)?;
    assert_eq!(capset.wire_format, 1, "{capset:?}");
    assert!(capset.protocol >= 3, "{capset:?}");
    assert!(capset.blob_id_0 && capset.multiple_timelines, "{capset:?}");
    assert!(capset.has_extension(EXTERNAL_MEMORY_FD));
    assert!(!capset.has_extension(NONE));
    rig.finish()
}

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
