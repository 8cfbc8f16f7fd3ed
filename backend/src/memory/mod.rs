//! Memory that the host makes for guests: how images lie in it ([`image`]), what it is
//! ([`alloc`], [`kind`]), where it comes from ([`memfd`]), how this process reaches its bytes
//! ([`view`]), when caches are flushed ([`flush`]), and what is known of the host ([`fact`]).

pub mod alloc;
pub mod fact;
pub mod flush;
pub mod image;
pub mod kind;
pub mod memfd;
pub mod view;

/// What host memory is a multiple of, in bytes: a page of every guest and of the shared-memory
/// region.
pub const PAGE_SIZE: u64 = 4096;
