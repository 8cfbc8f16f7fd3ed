//! Memory that the host makes for guests.
//!
//! An image's way: [`image`] says how it lies in memory, [`source`] allocates it ([`alloc`], which
//! records its traits, [`kind`]) and has [`plan`] decide how it may be mapped, and [`planned`] keeps
//! both together and flushes caches ([`flush`], [`quarantine`]) before a guest reaches it and after. [`facts`] is what
//! is known of the host, each [`fact`] with its source; [`effective`] is what memory types come to on
//! real hosts, against which the policy is tested.

pub mod alloc;
pub mod effective;
pub mod exported;
pub mod fact;
pub mod facts;
pub mod flush;
pub mod image;
pub mod kind;
pub mod offer;
pub mod plan;
pub mod planned;
pub mod quarantine;
pub mod source;
#[cfg(feature = "test-memtype")]
pub mod test_memtype;
pub mod view;

/// What host memory is a multiple of, in bytes: a page of every guest and of the shared-memory
/// region.
pub const PAGE_SIZE: u64 = 4096;
