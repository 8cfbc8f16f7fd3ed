//! `nosnoop-gpu`: a vhost-user virtio-gpu device back-end.
//!
//! One command's way through this crate:
//! [`daemon`] takes a chain from a virtqueue and copies its request once,
//! `nosnoop_protocol` parses it into a typed command, [`device`] executes it against guest memory,
//! the host pictures in [`render`] and the screens in [`display`], and [`daemon`] completes the
//! chain with exactly one reply.
//!
//! [`memory`] is what the host allocates for guests to map, and [`doctor`] says how it may be mapped
//! on a host and why.
//!
//! The program is in `main.rs`; everything it does is in this library so that tests and the
//! fuzzer can drive the device in process.

pub mod cli;
pub mod daemon;
pub mod device;
pub mod display;
pub mod doctor;
mod guest;
pub mod logging;
pub mod memory;
mod planted;
pub mod render;
mod sync;
mod sys;

/// Guest memory as the front-end shares it: one mapping per memory region, no dirty bitmap.
pub type GuestMemory = vm_memory::GuestMemoryMmap<()>;

/// The current guest memory, replaced as a whole when the front-end changes the memory table.
pub type SharedGuestMemory = vm_memory::GuestMemoryAtomic<GuestMemory>;
