//! Who maps host memory into the guest's shared-memory region: the front-end, on our request.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use nosnoop_protocol::memtype::ShmemMapFlags;

/// A range of a file to map into the shared-memory region.
#[derive(Clone, Debug)]
pub struct MapRequest {
    /// Where in the region, in bytes; a page multiple.
    pub shm_offset: u64,
    /// Bytes; a page multiple, not 0.
    pub len: u64,
    /// The file.
    pub fd: Arc<OwnedFd>,
    /// Where in the file, in bytes; a page multiple.
    pub fd_offset: u64,
    /// Whether the guest may write, and the memory type that its accesses must have.
    pub flags: ShmemMapFlags,
}

/// Why a request to the front-end did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// Nothing was sent: there is no channel, it has been given up, or the front-end does not
    /// understand the request.
    #[error("the front-end maps no such memory")]
    Unavailable,
    /// The front-end answered with this error and changed nothing.
    #[error("the front-end refused with {0}")]
    Refused(u64),
    /// It did not answer in time, or not sensibly: what is mapped is unknown.
    #[error("the front-end did not answer: what is mapped is unknown")]
    Lost,
}

/// Called once with a request's result, without any lock held.
pub type Done = Box<dyn FnOnce(Result<(), MapError>) + Send>;

/// Maps and unmaps, one request after the other, in the order in which they were made.
pub trait Mapper: Send + Sync {
    /// Whether a request made now would be sent.
    fn usable(&self) -> bool;

    /// Whether the front-end understands the memory type in a request.
    fn speaks_memtype(&self) -> bool;

    /// Asks to map. The caller has checked that the range lies in the region and that nothing is
    /// mapped there.
    fn map(&self, request: MapRequest, done: Done);

    /// Asks to unmap exactly what one [`Mapper::map`] has mapped.
    fn unmap(&self, shm_offset: u64, len: u64, done: Done);
}
