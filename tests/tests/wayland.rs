//! Wayland channels of cross-domain contexts, over the real daemon: with a compositor that does what a
//! test says, and with weston where the lab's packages can be had.
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

#[path = "wayland/compositor.rs"]
mod compositor;
#[path = "wayland/descriptors.rs"]
mod descriptors;
#[path = "wayland/messages.rs"]
mod messages;
#[path = "wayland/trouble.rs"]
mod trouble;
#[path = "wayland/weston.rs"]
mod weston;
