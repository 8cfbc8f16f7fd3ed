//! Memory that the host makes for guests: how images lie in it ([`image`]), what it is and where it
//! comes from ([`alloc`], [`kind`]), what is known of the host ([`facts`]) and of its allocators
//! ([`offer`]), and how guests may map it ([`plan`], tested against [`effective`]).

pub mod alloc;
pub mod effective;
pub mod fact;
pub mod facts;
pub mod image;
pub mod kind;
pub mod offer;
pub mod plan;

/// What host memory is a multiple of, in bytes: a page of every guest and of the shared-memory
/// region.
pub const PAGE_SIZE: u64 = 4096;
