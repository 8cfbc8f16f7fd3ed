//! Memory that the host makes for guests: how images lie in it ([`image`]), what it is
//! and where it comes from ([`alloc`], [`kind`]), and what is known of the host ([`fact`]).

pub mod alloc;
pub mod effective;
pub mod fact;
pub mod image;
pub mod kind;
pub mod plan;
pub mod planned;
pub mod source;
#[cfg(feature = "test-memtype")]
pub mod test_memtype;

/// What host memory is a multiple of, in bytes: a page of every guest and of the shared-memory
/// region.
pub const PAGE_SIZE: u64 = 4096;
