//! This process's environment.
#![expect(unsafe_code, reason = "libraries read the environment without a lock")]

use std::env;

/// Sets an environment variable, for libraries that are told things no other way.
///
/// To be called before this process has a second thread: see the SAFETY notes.
pub(crate) fn set(name: &str, value: &str) {
    // SAFETY: `set_var` needs that no other thread reads or writes the environment meanwhile, which
    // any C library may do. It is called from `main` by way of the daemon's start or of the renderer's
    // proof, each before it starts a thread; no library of ours starts one when it is loaded.
    unsafe { env::set_var(name, value) };
}
