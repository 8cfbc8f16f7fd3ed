//! Memory that the host makes for guests: how images lie in it ([`image`]), what it is
//! ([`alloc`]) and where it comes from ([`memfd`]).

pub mod alloc;
pub mod image;
pub mod memfd;

/// What host memory is a multiple of, in bytes: a page of every guest and of the shared-memory
/// region.
pub const PAGE_SIZE: u64 = 4096;
