//! The vhost-user side: connections, queues, signals.
//!
//! [`serve()`] waits for front-ends and runs one [`session`] after the other. In a session
//! [`tap`] stands between the front-end's socket and the vhost-user-backend crate, [`session`] is
//! what that crate calls, [`ring`] is one virtqueue, [`chain`] one request in it and [`worker`]
//! what happens to it.

pub mod chain;
pub mod ring;
pub mod serve;
mod session;
mod tap;
pub mod worker;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use serve::{DaemonError, serve};

/// Locks a mutex whose contents are valid between any two statements that change them, so that a
/// thread that died does not take the others with it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
