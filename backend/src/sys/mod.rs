//! The only unsafe code of this crate: taking over file descriptors that arrive as plain numbers,
//! commands to device nodes and KVM, the host's own mappings of memory that guests and devices
//! change, and the CPU's instructions for its caches.

pub(crate) mod cache;
#[cfg(feature = "virgl")]
pub(crate) mod environment;
pub(crate) mod fd;
pub(crate) mod ioctl;
pub(crate) mod kvm;
pub(crate) mod mmap;
pub(crate) mod request;
mod stream;
pub(crate) mod uapi;
