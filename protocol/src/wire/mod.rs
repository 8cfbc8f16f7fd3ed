//! The structures of the wire, byte for byte.
//!
//! Names are the C names in CamelCase. Every multi-byte field is a little-endian type with
//! alignment 1, so a structure can be viewed in any byte slice. Nothing here is checked: that is
//! [`crate::Request::parse`]'s work. Structures with a larger array have no `Default`; all of them
//! have `zerocopy::FromZeros::new_zeroed`.
//!
//! Source of every structure, unless it says otherwise: virtio 1.4, chapter "GPU Device", in the
//! section that the submodule names.

mod blob;
mod config;
mod cross_domain;
mod cursor;
mod header;
mod three_d;
mod two_d;

pub use blob::{
    VirtioGpuResourceCreateBlob, VirtioGpuResourceMapBlob, VirtioGpuResourceUnmapBlob,
    VirtioGpuRespMapInfo, VirtioGpuSetScanoutBlob,
};
pub use config::VirtioGpuConfig;
pub use cross_domain::{
    CROSS_DOMAIN_CHANNEL_RING, CROSS_DOMAIN_CHANNEL_TYPE_WAYLAND,
    CROSS_DOMAIN_CMD_GET_IMAGE_REQUIREMENTS, CROSS_DOMAIN_CMD_INIT, CROSS_DOMAIN_CMD_POLL,
    CROSS_DOMAIN_CMD_READ, CROSS_DOMAIN_CMD_RECEIVE, CROSS_DOMAIN_CMD_SEND, CROSS_DOMAIN_CMD_WRITE,
    CROSS_DOMAIN_ID_TYPE_READ_PIPE, CROSS_DOMAIN_ID_TYPE_VIRTGPU_BLOB,
    CROSS_DOMAIN_ID_TYPE_WRITE_PIPE, CROSS_DOMAIN_MAX_IDENTIFIERS, CROSS_DOMAIN_PIPE_READ_START,
    CrossDomainCapabilities, CrossDomainGetImageRequirements, CrossDomainHeader,
    CrossDomainImageRequirements, CrossDomainInit, CrossDomainInitLegacy, CrossDomainInitV1,
    CrossDomainPoll, CrossDomainReadWrite, CrossDomainSendReceive,
};
pub use cursor::{VirtioGpuCursorPos, VirtioGpuUpdateCursor};
pub use header::{
    VIRTIO_GPU_FLAG_FENCE, VIRTIO_GPU_FLAG_INFO_RING_IDX, VirtioGpuCtrlHdr, cmd, cmd_name, resp,
};
pub use three_d::{
    VIRTIO_GPU_CONTEXT_INIT_CAPSET_ID_MASK, VIRTIO_GPU_RESOURCE_FLAG_Y_0_TOP, VirtioGpuBox,
    VirtioGpuCmdSubmit, VirtioGpuCtxCreate, VirtioGpuCtxDestroy, VirtioGpuCtxResource,
    VirtioGpuResourceCreate3d, VirtioGpuTransferHost3d,
};
pub use two_d::{
    VirtioGpuCmdGetEdid, VirtioGpuDisplayOne, VirtioGpuGetCapset, VirtioGpuGetCapsetInfo,
    VirtioGpuMemEntry, VirtioGpuRect, VirtioGpuResourceAssignUuid, VirtioGpuResourceAttachBacking,
    VirtioGpuResourceCreate2d, VirtioGpuResourceDetachBacking, VirtioGpuResourceFlush,
    VirtioGpuResourceUnref, VirtioGpuRespCapset, VirtioGpuRespCapsetInfo, VirtioGpuRespDisplayInfo,
    VirtioGpuRespEdid, VirtioGpuRespResourceUuid, VirtioGpuSetScanout, VirtioGpuTransferToHost2d,
};

/// A wire structure: the derives that all share, and the size that the specification gives it.
macro_rules! wire_struct {
    // `nodefault`: the structure holds an array for which `Default` is not implemented.
    ($size:literal, nodefault, $(#[$doc:meta])* pub struct $name:ident $body:tt) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq,
            zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable,
        )]
        #[repr(C)]
        pub struct $name $body
        const _: () = assert!(size_of::<$name>() == $size);
        const _: () = assert!(align_of::<$name>() == 1);
    };
    ($size:literal, $(#[$doc:meta])* pub struct $name:ident $body:tt) => {
        $crate::wire::wire_struct! {
            $size, nodefault,
            $(#[$doc])*
            #[derive(Default)]
            pub struct $name $body
        }
    };
}
use wire_struct;
