//! The front-end's end of the shared-memory channel: SHMEM_MAP and SHMEM_UNMAP, answered as told.
//!
//! It maps what it is asked to map, as a VMM does, so that a test reads and writes what a guest
//! would. It checks what QEMU checks (bounds, overlap, length of the file) and more: alignment,
//! unknown flags, the padding, seals. What breaks a rule is refused and kept as a violation.
//!
//! * the server, [`ShmemServer`], runs a thread that reads requests and answers as scripted;
//! * the rules are what a request must keep, with or without the memory-type extension;
//! * the wire has the messages' bytes and file descriptors.

use std::time::{Duration, Instant};

mod rules;
mod server;
mod wire;

#[cfg(test)]
mod tests;

pub use server::ShmemServer;
pub(crate) use wire::receive;

use super::memtype::MapFlags;

/// VHOST_USER_BACKEND_SHMEM_MAP.
pub const SHMEM_MAP: u32 = 9;
/// VHOST_USER_BACKEND_SHMEM_UNMAP.
pub const SHMEM_UNMAP: u32 = 10;
/// The shared-memory region of a virtio-gpu device (VIRTIO_GPU_SHM_ID_HOST_VISIBLE).
pub const HOST_VISIBLE: u8 = 1;
/// Flag of a map request: the guest may write.
pub const FLAG_WRITABLE: u64 = 1;
/// Bytes of a request's payload.
pub(crate) const PAYLOAD: usize = 40;

/// What to do with a request that keeps the rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ack {
    /// Do it and say so.
    #[default]
    Ok,
    /// Do nothing and answer with this code.
    Refuse(u64),
    /// Do it and say nothing.
    Never,
    /// Do it and say so only after this time; nothing else is served meanwhile.
    Late(Duration),
    /// Do it and close the channel instead of an answer.
    Close,
    /// Do it and answer with these bytes.
    Raw(Vec<u8>),
}

/// A request as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShmemRequest {
    /// [`SHMEM_MAP`] or [`SHMEM_UNMAP`].
    pub kind: u32,
    /// Offset in the file.
    pub fd_offset: u64,
    /// Offset in the region.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// Flags.
    pub flags: u64,
    /// Whether it asked for an acknowledgement.
    pub need_reply: bool,
    /// When it came.
    pub at: Instant,
}

impl ShmemRequest {
    /// What the flags of a map request say where the memory-type extension is spoken (`extended`)
    /// or not; `None` for flags that may not be sent then.
    #[must_use]
    pub fn map_flags(&self, extended: bool) -> Option<MapFlags> {
        MapFlags::parse(self.flags, extended).ok()
    }
}
