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
#[expect(
    clippy::large_enum_variant,
    reason = "a box would cost an allocation per answer; a reply lives for one command only"
)]
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
            out.extend_from_slice(VirtioGpuRespResourceUuid { hdr, uuid: *uuid }.as_bytes());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Request;

    /// A request header: flags, fence 0x1122334455667788, context 9, ring 7.
    fn header(flags: u32) -> Header {
        let mut bytes = Vec::new();
        for word in [0x100, flags, 0x5566_7788, 0x1122_3344, 9, 7] {
            bytes.extend(u32::to_le_bytes(word));
        }
        Request::parse(&bytes).header
    }

    fn encoded(header: &Header, result: &Result<Reply, GpuError>) -> Vec<u8> {
        let mut out = vec![0xee; 5000];
        let capacity = out.capacity();
        encode(header, result, &mut out);
        assert_eq!(out.capacity(), capacity);
        out
    }

    /// The bytes without fence: response type, 20 zeros, then the body.
    fn plain(r#type: u32, body: &[u8]) -> Vec<u8> {
        [&r#type.to_le_bytes()[..], &[0; 20], body].concat()
    }

    #[test]
    fn fence_context_and_ring_are_echoed_on_success_and_on_errors() {
        let ids = [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 9, 0, 0, 0];
        for (result, low) in [(Ok(Reply::OkNoData), 0x11), (Err(GpuError::Unspec), 0x12)] {
            let response = |flags: u8, ids: &[u8; 12], ring: u8| {
                [&[0, low, 0, 0, flags, 0, 0, 0], &ids[..], &[ring, 0, 0, 0]].concat()
            };
            assert_eq!(encoded(&header(0), &result), response(0, &[0; 12], 0));
            assert_eq!(encoded(&header(1), &result), response(1, &ids, 0));
            assert_eq!(encoded(&header(2), &result), response(0, &[0; 12], 0));
            assert_eq!(encoded(&header(3), &result), response(3, &ids, 7));
            // Flags that nobody knows are not echoed.
            assert_eq!(encoded(&header(0xffff_ff01), &result), response(1, &ids, 0));
        }
    }

    #[test]
    fn errors_are_a_header_with_their_type() {
        for (error, r#type) in [
            (GpuError::Unspec, 0x1200),
            (GpuError::OutOfMemory, 0x1201),
            (GpuError::InvalidScanoutId, 0x1202),
            (GpuError::InvalidResourceId, 0x1203),
            (GpuError::InvalidContextId, 0x1204),
            (GpuError::InvalidParameter, 0x1205),
        ] {
            assert_eq!(
                encoded(&Header::default(), &Err(error)),
                plain(r#type, &[]),
                "{error:?}"
            );
        }
    }

    #[test]
    fn display_info_is_byte_exact() {
        let mut info = DisplayInfo::default();
        info.modes[1] = DisplayMode {
            rect: Rect::new(0x0102, 3, 1280, 800),
            enabled: true,
            flags: 5,
        };
        let mut body = vec![0; 24];
        body.extend([2, 1, 0, 0, 3, 0, 0, 0, 0, 5, 0, 0, 0x20, 3, 0, 0]);
        body.extend([1, 0, 0, 0, 5, 0, 0, 0]);
        body.resize(16 * 24, 0);
        let bytes = encoded(&Header::default(), &Ok(Reply::OkDisplayInfo(info)));
        assert_eq!(bytes, plain(0x1101, &body));
        assert_eq!(bytes.len(), 408);
    }

    #[test]
    fn edid_is_padded_to_its_field() {
        for length in [1usize, 256, 1024] {
            let edid = Edid::from_bytes(&vec![0xa5; length]).unwrap();
            let mut body = vec![0; 8];
            body[..2].copy_from_slice(&u16::try_from(length).unwrap().to_le_bytes());
            body.resize(8 + length, 0xa5);
            body.resize(8 + 1024, 0);
            let bytes = encoded(&Header::default(), &Ok(Reply::OkEdid(edid)));
            assert_eq!(bytes, plain(0x1104, &body));
        }
    }

    #[test]
    fn other_replies_are_byte_exact() {
        let uuid: [u8; 16] = std::array::from_fn(|i| u8::try_from(i).unwrap());
        let info = Reply::OkCapsetInfo {
            id: CapsetId(4),
            max_version: 0x0102,
            max_size: 160,
        };
        let info_body = [4, 0, 0, 0, 2, 1, 0, 0, 160, 0, 0, 0, 0, 0, 0, 0];
        for (reply, r#type, body) in [
            (Reply::OkNoData, 0x1100, &[][..]),
            (info, 0x1102, &info_body),
            (Reply::OkCapset(vec![1, 2, 3]), 0x1103, &[1, 2, 3]),
            (Reply::OkCapset(Vec::new()), 0x1103, &[]),
            (Reply::OkResourceUuid(ResourceUuid(uuid)), 0x1105, &uuid[..]),
            (
                Reply::OkMapInfo(MapCache::Wc),
                0x1106,
                &[3, 0, 0, 0, 0, 0, 0, 0],
            ),
        ] {
            assert_eq!(reply.resp_type(), r#type);
            assert_eq!(encoded(&Header::default(), &Ok(reply)), plain(r#type, body));
        }
    }
}
