//! What proves nosnoop-gpu: a vhost-user front-end with a virtio-gpu driver ([`frontend`]), a lab
//! that boots real QEMU and Linux ([`lab`]), a fuzzer ([`fuzz`]), measurements of back-ends side by
//! side ([`mod@bench`], with the other ones in [`peers`]) and of cache flushes (`flush_cost`, x86-64). The
//! programs `demo`, `vm`, `verify`, `fuzz`, `nosnoop-bench` and `flush-cost` and the tests in `tests/`
//! stand on top.
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
    reason = "test code: a broken expectation is to stop the test loudly, and programs print"
)]

pub mod bench;
pub mod conform;
#[cfg(target_arch = "x86_64")]
pub mod flush_cost;
pub mod frontend;
pub mod fuzz;
pub mod glob;
pub mod lab;
pub mod peers;
pub mod readme;
pub mod results;
pub mod verify;
#[cfg(target_arch = "x86_64")]
pub mod vmm;
mod xml;
