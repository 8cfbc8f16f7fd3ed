//! virtio-gpu as plain data: every command and reply of virtio 1.4, the configuration space,
//! pixel formats and EDID.
//!
//! This crate does no I/O, touches no guest memory and holds no `unsafe`. Request bytes that were
//! copied out of a descriptor chain go into [`Request::parse`]; what comes out is typed and
//! checked. A [`Result`] of [`Reply`] and [`GpuError`] goes into [`encode`]; what comes out are
//! the response bytes.
//!
//! Section names in the documentation are those of "Virtual I/O Device (VIRTIO) Version 1.4",
//! chapter "GPU Device"; C names are those of Linux' `include/uapi/linux/virtio_gpu.h`.

#![forbid(unsafe_code)]

pub mod command;
pub mod config;
pub mod cross_domain;
pub mod edid;
pub mod format;
pub mod geometry;
pub mod ids;
pub mod memtype;
pub mod reply;
pub mod wire;

pub use command::{
    BlobFlags, BlobMem, Box3d, Command, Create3d, Fence, Header, MemEntries, MemEntry, Request,
    Transfer3d,
};
pub use config::{Config, EVENT_DISPLAY, Features};
pub use cross_domain::{CrossDomainCommand, ImageFlags, ImageRequest, ImageRequirements};
pub use edid::{Edid, EdidSpec, Mode};
pub use format::Format;
pub use geometry::{Rect, Size};
pub use ids::{
    BlobId, CapsetId, ContextId, FenceId, MAX_SCANOUTS, ResourceId, ResourceUuid, RingIdx,
    ScanoutId,
};
pub use memtype::{FlagsError, MapCache, MemslotRequest, ShmemMapFlags};
pub use reply::{DisplayInfo, DisplayMode, GpuError, Reply, encode};
