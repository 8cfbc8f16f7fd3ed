//! The only unsafe code of this crate: taking over file descriptors that arrive as plain numbers.

pub(crate) mod fd;
