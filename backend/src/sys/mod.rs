//! The only unsafe code of this crate: taking over file descriptors that arrive as plain numbers,
//! commands to device nodes and KVM, the host's own mappings of memory that guests and devices
//! change, the CPU's instructions for its caches, and what is done when a native library crashes.

pub(crate) mod cache;
pub(crate) mod crash;
#[cfg(feature = "virgl")]
pub(crate) mod environment;
pub(crate) mod fd;
pub(crate) mod ioctl;
pub(crate) mod kvm;
pub(crate) mod mmap;
pub(crate) mod request;
mod stream;
pub(crate) mod uapi;
