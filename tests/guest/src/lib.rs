//! What the guest program and the host agree on: the pictures ([`pattern`]) and the lines they
//! exchange over the second serial port ([`wire`]).
//!
//! The host computes every expected pixel from this crate, never from what the daemon under test
//! produced.

#![forbid(unsafe_code)]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "test code: an overflow here is a bug of the test and may stop it"
)]

pub mod pattern;
pub mod wire;
