//! The vhost-user side: connections, queues, signals.
//!
//! [`serve()`] waits for front-ends and runs one [`session`] after the other. In a session
//! [`tap`] stands between the front-end's socket and the vhost-user-backend crate, [`session`] is
//! what that crate calls, [`ring`] is one virtqueue, [`chain`] one request in it and [`worker`]
//! what happens to it. [`shmem`] asks the front-end to map memory for the guest.

pub mod chain;
pub mod ring;
pub mod serve;
mod session;
mod shmem;
mod tap;
mod timeline;
pub mod worker;

pub use serve::{DaemonError, serve};
