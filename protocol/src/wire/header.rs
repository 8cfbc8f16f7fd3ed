//! Section "Device Operation: Request header".

use zerocopy::little_endian::{U32, U64};

use super::wire_struct;

/// Request types, `enum virtio_gpu_ctrl_type`.
pub mod cmd {
    /// `VIRTIO_GPU_CMD_GET_DISPLAY_INFO`
    pub const GET_DISPLAY_INFO: u32 = 0x0100;
    /// `VIRTIO_GPU_CMD_RESOURCE_CREATE_2D`
    pub const RESOURCE_CREATE_2D: u32 = 0x0101;
    /// `VIRTIO_GPU_CMD_RESOURCE_UNREF`
    pub const RESOURCE_UNREF: u32 = 0x0102;
    /// `VIRTIO_GPU_CMD_SET_SCANOUT`
    pub const SET_SCANOUT: u32 = 0x0103;
    /// `VIRTIO_GPU_CMD_RESOURCE_FLUSH`
    pub const RESOURCE_FLUSH: u32 = 0x0104;
    /// `VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D`
    pub const TRANSFER_TO_HOST_2D: u32 = 0x0105;
    /// `VIRTIO_GPU_CMD_RESOURCE_ATTACH_BACKING`
    pub const RESOURCE_ATTACH_BACKING: u32 = 0x0106;
    /// `VIRTIO_GPU_CMD_RESOURCE_DETACH_BACKING`
    pub const RESOURCE_DETACH_BACKING: u32 = 0x0107;
    /// `VIRTIO_GPU_CMD_GET_CAPSET_INFO`
    pub const GET_CAPSET_INFO: u32 = 0x0108;
    /// `VIRTIO_GPU_CMD_GET_CAPSET`
    pub const GET_CAPSET: u32 = 0x0109;
    /// `VIRTIO_GPU_CMD_GET_EDID`
    pub const GET_EDID: u32 = 0x010a;
    /// `VIRTIO_GPU_CMD_RESOURCE_ASSIGN_UUID`
    pub const RESOURCE_ASSIGN_UUID: u32 = 0x010b;
    /// `VIRTIO_GPU_CMD_RESOURCE_CREATE_BLOB`
    pub const RESOURCE_CREATE_BLOB: u32 = 0x010c;
    /// `VIRTIO_GPU_CMD_SET_SCANOUT_BLOB`
    pub const SET_SCANOUT_BLOB: u32 = 0x010d;

    /// `VIRTIO_GPU_CMD_CTX_CREATE`
    pub const CTX_CREATE: u32 = 0x0200;
    /// `VIRTIO_GPU_CMD_CTX_DESTROY`
    pub const CTX_DESTROY: u32 = 0x0201;
    /// `VIRTIO_GPU_CMD_CTX_ATTACH_RESOURCE`
    pub const CTX_ATTACH_RESOURCE: u32 = 0x0202;
    /// `VIRTIO_GPU_CMD_CTX_DETACH_RESOURCE`
    pub const CTX_DETACH_RESOURCE: u32 = 0x0203;
    /// `VIRTIO_GPU_CMD_RESOURCE_CREATE_3D`
    pub const RESOURCE_CREATE_3D: u32 = 0x0204;
    /// `VIRTIO_GPU_CMD_TRANSFER_TO_HOST_3D`
    pub const TRANSFER_TO_HOST_3D: u32 = 0x0205;
    /// `VIRTIO_GPU_CMD_TRANSFER_FROM_HOST_3D`
    pub const TRANSFER_FROM_HOST_3D: u32 = 0x0206;
    /// `VIRTIO_GPU_CMD_SUBMIT_3D`
    pub const SUBMIT_3D: u32 = 0x0207;
    /// `VIRTIO_GPU_CMD_RESOURCE_MAP_BLOB`
    pub const RESOURCE_MAP_BLOB: u32 = 0x0208;
    /// `VIRTIO_GPU_CMD_RESOURCE_UNMAP_BLOB`
    pub const RESOURCE_UNMAP_BLOB: u32 = 0x0209;

    /// `VIRTIO_GPU_CMD_UPDATE_CURSOR`
    pub const UPDATE_CURSOR: u32 = 0x0300;
    /// `VIRTIO_GPU_CMD_MOVE_CURSOR`
    pub const MOVE_CURSOR: u32 = 0x0301;
}

/// Response types, `enum virtio_gpu_ctrl_type`.
pub mod resp {
    /// `VIRTIO_GPU_RESP_OK_NODATA`
    pub const OK_NODATA: u32 = 0x1100;
    /// `VIRTIO_GPU_RESP_OK_DISPLAY_INFO`
    pub const OK_DISPLAY_INFO: u32 = 0x1101;
    /// `VIRTIO_GPU_RESP_OK_CAPSET_INFO`
    pub const OK_CAPSET_INFO: u32 = 0x1102;
    /// `VIRTIO_GPU_RESP_OK_CAPSET`
    pub const OK_CAPSET: u32 = 0x1103;
    /// `VIRTIO_GPU_RESP_OK_EDID`
    pub const OK_EDID: u32 = 0x1104;
    /// `VIRTIO_GPU_RESP_OK_RESOURCE_UUID`
    pub const OK_RESOURCE_UUID: u32 = 0x1105;
    /// `VIRTIO_GPU_RESP_OK_MAP_INFO`
    pub const OK_MAP_INFO: u32 = 0x1106;

    /// `VIRTIO_GPU_RESP_ERR_UNSPEC`
    pub const ERR_UNSPEC: u32 = 0x1200;
    /// `VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY`
    pub const ERR_OUT_OF_MEMORY: u32 = 0x1201;
    /// `VIRTIO_GPU_RESP_ERR_INVALID_SCANOUT_ID`
    pub const ERR_INVALID_SCANOUT_ID: u32 = 0x1202;
    /// `VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID`
    pub const ERR_INVALID_RESOURCE_ID: u32 = 0x1203;
    /// `VIRTIO_GPU_RESP_ERR_INVALID_CONTEXT_ID`
    pub const ERR_INVALID_CONTEXT_ID: u32 = 0x1204;
    /// `VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER`
    pub const ERR_INVALID_PARAMETER: u32 = 0x1205;
}

/// `flags`: the driver waits for `fence_id`.
pub const VIRTIO_GPU_FLAG_FENCE: u32 = 1 << 0;
/// `flags`: `ring_idx` names the timeline of the fence.
pub const VIRTIO_GPU_FLAG_INFO_RING_IDX: u32 = 1 << 1;

/// Name of a request type for logs, without its `VIRTIO_GPU_CMD_` prefix; "unknown" for anything
/// else.
#[must_use]
pub const fn cmd_name(r#type: u32) -> &'static str {
    match r#type {
        cmd::GET_DISPLAY_INFO => "GET_DISPLAY_INFO",
        cmd::RESOURCE_CREATE_2D => "RESOURCE_CREATE_2D",
        cmd::RESOURCE_UNREF => "RESOURCE_UNREF",
        cmd::SET_SCANOUT => "SET_SCANOUT",
        cmd::RESOURCE_FLUSH => "RESOURCE_FLUSH",
        cmd::TRANSFER_TO_HOST_2D => "TRANSFER_TO_HOST_2D",
        cmd::RESOURCE_ATTACH_BACKING => "RESOURCE_ATTACH_BACKING",
        cmd::RESOURCE_DETACH_BACKING => "RESOURCE_DETACH_BACKING",
        cmd::GET_CAPSET_INFO => "GET_CAPSET_INFO",
        cmd::GET_CAPSET => "GET_CAPSET",
        cmd::GET_EDID => "GET_EDID",
        cmd::RESOURCE_ASSIGN_UUID => "RESOURCE_ASSIGN_UUID",
        cmd::RESOURCE_CREATE_BLOB => "RESOURCE_CREATE_BLOB",
        cmd::SET_SCANOUT_BLOB => "SET_SCANOUT_BLOB",
        cmd::CTX_CREATE => "CTX_CREATE",
        cmd::CTX_DESTROY => "CTX_DESTROY",
        cmd::CTX_ATTACH_RESOURCE => "CTX_ATTACH_RESOURCE",
        cmd::CTX_DETACH_RESOURCE => "CTX_DETACH_RESOURCE",
        cmd::RESOURCE_CREATE_3D => "RESOURCE_CREATE_3D",
        cmd::TRANSFER_TO_HOST_3D => "TRANSFER_TO_HOST_3D",
        cmd::TRANSFER_FROM_HOST_3D => "TRANSFER_FROM_HOST_3D",
        cmd::SUBMIT_3D => "SUBMIT_3D",
        cmd::RESOURCE_MAP_BLOB => "RESOURCE_MAP_BLOB",
        cmd::RESOURCE_UNMAP_BLOB => "RESOURCE_UNMAP_BLOB",
        cmd::UPDATE_CURSOR => "UPDATE_CURSOR",
        cmd::MOVE_CURSOR => "MOVE_CURSOR",
        _ => "unknown",
    }
}

wire_struct! { 24,
    /// `struct virtio_gpu_ctrl_hdr`: begins every request and every response.
    pub struct VirtioGpuCtrlHdr {
        /// One of [`cmd`] or [`resp`].
        pub r#type: U32,
        /// [`VIRTIO_GPU_FLAG_FENCE`] and [`VIRTIO_GPU_FLAG_INFO_RING_IDX`].
        pub flags: U32,
        /// Fence id, valid with [`VIRTIO_GPU_FLAG_FENCE`].
        pub fence_id: U64,
        /// Context id, 0 for none.
        pub ctx_id: U32,
        /// Timeline, 0 to 63, valid with [`VIRTIO_GPU_FLAG_INFO_RING_IDX`].
        pub ring_idx: u8,
        /// Padding.
        pub padding: [u8; 3],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_type_has_its_name() {
        let known = [0x100..0x10e, 0x200..0x20a, 0x300..0x302];
        for r#type in 0..0x1300 {
            let named = cmd_name(r#type) != "unknown";
            let expected = known.iter().any(|range| range.contains(&r#type));
            assert_eq!(named, expected, "{:#x}", r#type);
        }
        assert_eq!(cmd_name(0x10c), "RESOURCE_CREATE_BLOB");
    }
}
