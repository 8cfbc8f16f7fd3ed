//! Memory that the host makes for guests: how images lie in it ([`image`]), what it is
//! ([`alloc`], [`kind`]), where it comes from ([`memfd`]), and what is known of the host ([`fact`]).

pub mod alloc;
pub mod effective;
pub mod fact;
pub mod image;
pub mod kind;
pub mod memfd;
pub mod plan;
#[cfg(feature = "test-memtype")]
pub mod test_memtype;

#[cfg(feature = "test-memtype")]
pub use test_memtype::image_cache;

/// How guests are to map the images of the description that a context has given this id: cached,
/// as they are pages of the host's page cache, which host programs map cached.
///
/// The description's `map_info` and that of `RESP_OK_MAP_INFO` both come from here.
#[cfg(not(feature = "test-memtype"))]
#[must_use]
pub fn image_cache(_id: nosnoop_protocol::ids::BlobId) -> nosnoop_protocol::MapCache {
    nosnoop_protocol::MapCache::Cached
}

/// What host memory is a multiple of, in bytes: a page of every guest and of the shared-memory
/// region.
pub const PAGE_SIZE: u64 = 4096;
