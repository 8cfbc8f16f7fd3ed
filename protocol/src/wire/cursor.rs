//! Section "Device Operation: cursorq".

use zerocopy::little_endian::U32;

use super::{VirtioGpuCtrlHdr, wire_struct};

wire_struct! { 16,
    /// `struct virtio_gpu_cursor_pos`.
    pub struct VirtioGpuCursorPos {
        /// Scanout.
        pub scanout_id: U32,
        /// Column of the hot spot.
        pub x: U32,
        /// Row of the hot spot.
        pub y: U32,
        /// Padding.
        pub padding: U32,
    }
}

wire_struct! { 56,
    /// `struct virtio_gpu_update_cursor`: VIRTIO_GPU_CMD_UPDATE_CURSOR and
    /// VIRTIO_GPU_CMD_MOVE_CURSOR.
    pub struct VirtioGpuUpdateCursor {
        /// Header.
        pub hdr: VirtioGpuCtrlHdr,
        /// Where the cursor is.
        pub pos: VirtioGpuCursorPos,
        /// Picture of 64 x 64 pixels, 0 for no cursor; update only.
        pub resource_id: U32,
        /// Column of the hot spot in the picture; update only.
        pub hot_x: U32,
        /// Row of the hot spot in the picture; update only.
        pub hot_y: U32,
        /// Padding.
        pub padding: U32,
    }
}
