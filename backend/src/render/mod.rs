//! What holds a resource's pixels on the host.

pub mod software;
