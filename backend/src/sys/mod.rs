//! The only unsafe code of this crate: taking over file descriptors that arrive as plain numbers,
//! and commands to device nodes.

pub(crate) mod fd;
pub(crate) mod ioctl;
pub(crate) mod request;
pub(crate) mod uapi;
