//! Answers to the guest and their bytes.

use zerocopy::IntoBytes;

use crate::command::Header;
use crate::edid::Edid;
use crate::geometry::Rect;
use crate::ids::{CapsetId, MAX_SCANOUTS, ResourceUuid};
use crate::memtype::MapCache;
use crate::wire::{
    VirtioGpuDisplayOne, VirtioGpuRespCapset, VirtioGpuRespCapsetInfo, VirtioGpuRespDisplayInfo,
    VirtioGpuRespEdid, VirtioGpuRespMapInfo, VirtioGpuRespResourceUuid, resp,
};

/// Why a request failed, as far as the guest may know.
///
/// Source: `VIRTIO_GPU_RESP_ERR_*`, section "Device Operation: Request header".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum GpuError {
    /// Anything else: malformed, unsupported, or the host failed.
    #[error("the request is malformed, not supported here or could not be carried out")]
    Unspec,
    /// A quota is used up, or the host has no memory.
    #[error("the request needs more memory than the device may use")]
    OutOfMemory,
    /// No such scanout.
    #[error("the request names a scanout that does not exist")]
    InvalidScanoutId,
    /// No such resource, or one of that id exists already.
    #[error("the request names a resource that does not exist, or creates one that exists")]
    InvalidResourceId,
    /// No such context, or one of that id exists already.
    #[error("the request names a context that does not exist, or creates one that exists")]
    InvalidContextId,
    /// A field has a value that is not allowed.
    #[error("a field of the request has a value that is not allowed")]
    InvalidParameter,
}

impl GpuError {
    /// The response type on the wire.
    #[must_use]
    pub const fn resp_type(self) -> u32 {
        match self {
            Self::Unspec => resp::ERR_UNSPEC,
            Self::OutOfMemory => resp::ERR_OUT_OF_MEMORY,
            Self::InvalidScanoutId => resp::ERR_INVALID_SCANOUT_ID,
            Self::InvalidResourceId => resp::ERR_INVALID_RESOURCE_ID,
            Self::InvalidContextId => resp::ERR_INVALID_CONTEXT_ID,
            Self::InvalidParameter => resp::ERR_INVALID_PARAMETER,
        }
    }
}

/// One scanout in [`DisplayInfo`].
///
/// Source: `struct virtio_gpu_display_one`, section "Device Operation: controlq",
/// VIRTIO_GPU_CMD_GET_DISPLAY_INFO.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DisplayMode {
    /// Preferred size, and position relative to the other scanouts.
    pub rect: Rect,
    /// Whether a display is connected.
    pub enabled: bool,
    /// No flag is defined; 0.
    pub flags: u32,
}

/// Answer to VIRTIO_GPU_CMD_GET_DISPLAY_INFO. The default has no display connected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DisplayInfo {
    /// The scanouts, by id.
    pub modes: [DisplayMode; MAX_SCANOUTS],
}

/// A successful answer.
///
/// Source: `VIRTIO_GPU_RESP_OK_*`, section "Device Operation: Request header".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Done; there is nothing to tell.
    OkNoData,
    /// The scanouts.
    OkDisplayInfo(DisplayInfo),
    /// The EDID of a scanout.
    OkEdid(Edid),
    /// Facts about a capability set.
    OkCapsetInfo {
        /// Capability set.
        id: CapsetId,
        /// Newest version.
        max_version: u32,
        /// Bytes of the largest version.
        max_size: u32,
    },
    /// The contents of a capability set.
    OkCapset(Vec<u8>),
    /// The UUID of an exported resource.
    OkResourceUuid(ResourceUuid),
    /// How to map the blob that was just placed in the host visible region.
    OkMapInfo(MapCache),
}

impl Reply {
    /// The response type on the wire.
    #[must_use]
    pub const fn resp_type(&self) -> u32 {
        match self {
            Self::OkNoData => resp::OK_NODATA,
            Self::OkDisplayInfo(_) => resp::OK_DISPLAY_INFO,
            Self::OkEdid(_) => resp::OK_EDID,
            Self::OkCapsetInfo { .. } => resp::OK_CAPSET_INFO,
            Self::OkCapset(_) => resp::OK_CAPSET,
            Self::OkResourceUuid(_) => resp::OK_RESOURCE_UUID,
            Self::OkMapInfo(_) => resp::OK_MAP_INFO,
        }
    }
}

/// Writes the whole response to `out`, in place of what was there.
///
/// A request with VIRTIO_GPU_FLAG_FENCE gets that flag, `fence_id` and `ctx_id` back, and with
/// VIRTIO_GPU_FLAG_INFO_RING_IDX also `ring_idx`, on errors too. Allocates only when `out` has too
/// little capacity; 1056 bytes ([`VirtioGpuRespEdid`]) are enough for everything but
/// [`Reply::OkCapset`].
pub fn encode(header: &Header, result: &Result<Reply, GpuError>, out: &mut Vec<u8>) {
    out.clear();
    let reply = match result {
        Ok(reply) => reply,
        Err(error) => {
            out.extend_from_slice(header.response(error.resp_type()).as_bytes());
            return;
        }
    };
    let hdr = header.response(reply.resp_type());
    match reply {
        Reply::OkNoData => out.extend_from_slice(hdr.as_bytes()),
        Reply::OkDisplayInfo(info) => out.extend_from_slice(
            VirtioGpuRespDisplayInfo {
                hdr,
                pmodes: info.modes.map(display_one),
            }
            .as_bytes(),
        ),
        Reply::OkEdid(edid) => {
            out.extend_from_slice(hdr.as_bytes());
            out.extend_from_slice(&edid.wire_size().to_le_bytes());
            out.extend_from_slice(&[0; 4]);
            out.extend_from_slice(edid.as_bytes());
            out.resize(size_of::<VirtioGpuRespEdid>(), 0);
        }
        Reply::OkCapsetInfo {
            id,
            max_version,
            max_size,
        } => out.extend_from_slice(
            VirtioGpuRespCapsetInfo {
                hdr,
                capset_id: id.0.into(),
                capset_max_version: (*max_version).into(),
                capset_max_size: (*max_size).into(),
                padding: 0.into(),
            }
            .as_bytes(),
        ),
        Reply::OkCapset(data) => {
            out.extend_from_slice(VirtioGpuRespCapset { hdr }.as_bytes());
            out.extend_from_slice(data);
        }
        Reply::OkResourceUuid(ResourceUuid(uuid)) => {
            out.extend_from_slice(VirtioGpuRespResourceUuid { hdr, uuid: *uuid }.as_bytes())
        }
        Reply::OkMapInfo(cache) => out.extend_from_slice(
            VirtioGpuRespMapInfo {
                hdr,
                map_info: cache.to_wire().into(),
                padding: 0.into(),
            }
            .as_bytes(),
        ),
    }
}

fn display_one(mode: DisplayMode) -> VirtioGpuDisplayOne {
    VirtioGpuDisplayOne {
        r: mode.rect.into(),
        enabled: u32::from(mode.enabled).into(),
        flags: mode.flags.into(),
    }
}
