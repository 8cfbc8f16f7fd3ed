//! The bytes of every virtio-gpu request (virtio 1.4, "Device Operation: Request header" and after).

/// Command numbers, from the kernel's own header.
pub mod cmd {
    use virtio_bindings::virtio_gpu as k;
    macro_rules! names {
        ($($name:ident = $kernel:ident),* $(,)?) => {
            $(#[doc = concat!("`", stringify!($kernel), "`")] pub const $name: u32 = k::$kernel;)*
        };
    }
    names! {
        GET_DISPLAY_INFO = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_GET_DISPLAY_INFO,
        RESOURCE_CREATE_2D = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_CREATE_2D,
        RESOURCE_UNREF = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_UNREF,
        SET_SCANOUT = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_SET_SCANOUT,
        RESOURCE_FLUSH = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_FLUSH,
        TRANSFER_TO_HOST_2D = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D,
        RESOURCE_ATTACH_BACKING = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_ATTACH_BACKING,
        RESOURCE_DETACH_BACKING = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_DETACH_BACKING,
        GET_CAPSET_INFO = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_GET_CAPSET_INFO,
        GET_CAPSET = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_GET_CAPSET,
        GET_EDID = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_GET_EDID,
        RESOURCE_ASSIGN_UUID = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_ASSIGN_UUID,
        RESOURCE_CREATE_BLOB = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_CREATE_BLOB,
        SET_SCANOUT_BLOB = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_SET_SCANOUT_BLOB,
        CTX_CREATE = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_CTX_CREATE,
        CTX_DESTROY = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_CTX_DESTROY,
        CTX_ATTACH_RESOURCE = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_CTX_ATTACH_RESOURCE,
        CTX_DETACH_RESOURCE = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_CTX_DETACH_RESOURCE,
        RESOURCE_CREATE_3D = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_CREATE_3D,
        TRANSFER_TO_HOST_3D = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_TRANSFER_TO_HOST_3D,
        TRANSFER_FROM_HOST_3D = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_TRANSFER_FROM_HOST_3D,
        SUBMIT_3D = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_SUBMIT_3D,
        RESOURCE_MAP_BLOB = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_MAP_BLOB,
        RESOURCE_UNMAP_BLOB = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_UNMAP_BLOB,
        UPDATE_CURSOR = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_UPDATE_CURSOR,
        MOVE_CURSOR = virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_MOVE_CURSOR,
    }
}

/// Header flag VIRTIO_GPU_FLAG_FENCE.
pub const FLAG_FENCE: u32 = 1 << 0;
/// Header flag VIRTIO_GPU_FLAG_INFO_RING_IDX.
pub const FLAG_INFO_RING_IDX: u32 = 1 << 1;
/// VIRTIO_GPU_BLOB_MEM_GUEST.
pub const BLOB_MEM_GUEST: u32 = 1;
/// VIRTIO_GPU_BLOB_MEM_HOST3D.
pub const BLOB_MEM_HOST3D: u32 = 2;

/// A rectangle as on the wire: x, y, width, height.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rect {
    /// Left edge, pixels.
    pub x: u32,
    /// Top edge, pixels.
    pub y: u32,
    /// Width, pixels.
    pub width: u32,
    /// Height, pixels.
    pub height: u32,
}

impl Rect {
    /// A rectangle at (x, y).
    pub const fn new(x: u32, y: u32, width: u32, height: u32) -> Self {
        Rect {
            x,
            y,
            width,
            height,
        }
    }

    /// A rectangle at the origin.
    pub const fn sized(width: u32, height: u32) -> Self {
        Rect::new(0, 0, width, height)
    }
}

/// One entry of a backing list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemEntry {
    /// Guest address.
    pub addr: u64,
    /// Bytes.
    pub len: u32,
}

impl From<super::memory::Span> for MemEntry {
    fn from(span: super::memory::Span) -> Self {
        MemEntry {
            addr: span.addr,
            len: span.len,
        }
    }
}

/// A request being put together: header first, then fields in the order of the specification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestBytes(Vec<u8>);

impl RequestBytes {
    /// A header without flags for command `kind`.
    pub fn new(kind: u32) -> Self {
        let mut bytes = vec![0; 24];
        bytes[0..4].copy_from_slice(&kind.to_le_bytes());
        RequestBytes(bytes)
    }

    /// Appends a u32.
    #[must_use]
    pub fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    /// Appends a u64.
    #[must_use]
    pub fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    /// Appends a rectangle.
    #[must_use]
    pub fn rect(self, rect: Rect) -> Self {
        self.u32(rect.x)
            .u32(rect.y)
            .u32(rect.width)
            .u32(rect.height)
    }

    /// Appends any bytes.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Appends backing entries (without their count).
    #[must_use]
    pub fn entries(mut self, entries: &[MemEntry]) -> Self {
        for entry in entries {
            self = self.u64(entry.addr).u32(entry.len).u32(0);
        }
        self
    }

    /// Sets the fence flag and id.
    #[must_use]
    pub fn fenced(mut self, id: u64) -> Self {
        self.0[4] |= FLAG_FENCE as u8;
        self.0[8..16].copy_from_slice(&id.to_le_bytes());
        self
    }

    /// Sets the ring-index flag and the index.
    #[must_use]
    pub fn on_ring(mut self, ring: u8) -> Self {
        self.0[4] |= FLAG_INFO_RING_IDX as u8;
        self.0[20] = ring;
        self
    }

    /// Sets any header flags.
    #[must_use]
    pub fn flags(mut self, flags: u32) -> Self {
        self.0[4..8].copy_from_slice(&flags.to_le_bytes());
        self
    }

    /// Sets the context id.
    #[must_use]
    pub fn in_context(mut self, context: u32) -> Self {
        self.0[16..20].copy_from_slice(&context.to_le_bytes());
        self
    }

    /// Cuts or zero-pads to `len` bytes.
    #[must_use]
    pub fn resized(mut self, len: usize) -> Self {
        self.0.resize(len, 0);
        self
    }
}

impl std::ops::Deref for RequestBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// GET_DISPLAY_INFO.
pub fn get_display_info() -> RequestBytes {
    RequestBytes::new(cmd::GET_DISPLAY_INFO)
}

/// GET_EDID of a scanout.
pub fn get_edid(scanout: u32) -> RequestBytes {
    RequestBytes::new(cmd::GET_EDID).u32(scanout).u32(0)
}

/// RESOURCE_CREATE_2D.
pub fn create_2d(resource: u32, format: u32, width: u32, height: u32) -> RequestBytes {
    RequestBytes::new(cmd::RESOURCE_CREATE_2D)
        .u32(resource)
        .u32(format)
        .u32(width)
        .u32(height)
}

/// RESOURCE_UNREF.
pub fn unref(resource: u32) -> RequestBytes {
    RequestBytes::new(cmd::RESOURCE_UNREF).u32(resource).u32(0)
}

/// SET_SCANOUT; resource 0 disables.
pub fn set_scanout(scanout: u32, resource: u32, rect: Rect) -> RequestBytes {
    RequestBytes::new(cmd::SET_SCANOUT)
        .rect(rect)
        .u32(scanout)
        .u32(resource)
}

/// RESOURCE_FLUSH.
pub fn flush(resource: u32, rect: Rect) -> RequestBytes {
    RequestBytes::new(cmd::RESOURCE_FLUSH)
        .rect(rect)
        .u32(resource)
        .u32(0)
}

/// TRANSFER_TO_HOST_2D.
pub fn transfer_to_host_2d(resource: u32, rect: Rect, offset: u64) -> RequestBytes {
    RequestBytes::new(cmd::TRANSFER_TO_HOST_2D)
        .rect(rect)
        .u64(offset)
        .u32(resource)
        .u32(0)
}

/// RESOURCE_ATTACH_BACKING with the count of the entries given.
pub fn attach_backing(resource: u32, entries: &[MemEntry]) -> RequestBytes {
    attach_backing_counted(resource, entries.len() as u32, entries)
}

/// RESOURCE_ATTACH_BACKING with any count.
pub fn attach_backing_counted(resource: u32, count: u32, entries: &[MemEntry]) -> RequestBytes {
    RequestBytes::new(cmd::RESOURCE_ATTACH_BACKING)
        .u32(resource)
        .u32(count)
        .entries(entries)
}

/// RESOURCE_DETACH_BACKING.
pub fn detach_backing(resource: u32) -> RequestBytes {
    RequestBytes::new(cmd::RESOURCE_DETACH_BACKING)
        .u32(resource)
        .u32(0)
}

/// RESOURCE_ASSIGN_UUID.
pub fn assign_uuid(resource: u32) -> RequestBytes {
    RequestBytes::new(cmd::RESOURCE_ASSIGN_UUID)
        .u32(resource)
        .u32(0)
}

/// GET_CAPSET_INFO.
pub fn get_capset_info(index: u32) -> RequestBytes {
    RequestBytes::new(cmd::GET_CAPSET_INFO).u32(index).u32(0)
}

/// GET_CAPSET.
pub fn get_capset(id: u32, version: u32) -> RequestBytes {
    RequestBytes::new(cmd::GET_CAPSET).u32(id).u32(version)
}

/// Everything a RESOURCE_CREATE_BLOB says beside its backing entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreateBlob {
    /// Resource id.
    pub resource: u32,
    /// `BLOB_MEM_*`.
    pub mem: u32,
    /// Blob flags (1 mappable, 2 shareable, 4 cross-device).
    pub flags: u32,
    /// Number of entries claimed.
    pub count: u32,
    /// Blob id.
    pub blob_id: u64,
    /// Bytes.
    pub size: u64,
}

/// RESOURCE_CREATE_BLOB.
pub fn create_blob(blob: CreateBlob, entries: &[MemEntry]) -> RequestBytes {
    RequestBytes::new(cmd::RESOURCE_CREATE_BLOB)
        .u32(blob.resource)
        .u32(blob.mem)
        .u32(blob.flags)
        .u32(blob.count)
        .u64(blob.blob_id)
        .u64(blob.size)
        .entries(entries)
}

/// Everything a SET_SCANOUT_BLOB says (one plane; the others are zero).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanoutBlob {
    /// Scanout id.
    pub scanout: u32,
    /// Resource id; 0 disables.
    pub resource: u32,
    /// Part of the picture that the scanout shows.
    pub rect: Rect,
    /// Width of the picture in the blob.
    pub width: u32,
    /// Height of the picture in the blob.
    pub height: u32,
    /// Pixel format number.
    pub format: u32,
    /// Bytes from one row to the next.
    pub stride: u32,
    /// Byte offset of the first pixel.
    pub offset: u32,
}

/// SET_SCANOUT_BLOB.
pub fn set_scanout_blob(blob: ScanoutBlob) -> RequestBytes {
    RequestBytes::new(cmd::SET_SCANOUT_BLOB)
        .rect(blob.rect)
        .u32(blob.scanout)
        .u32(blob.resource)
        .u32(blob.width)
        .u32(blob.height)
        .u32(blob.format)
        .u32(0)
        .u32(blob.stride)
        .bytes(&[0; 12])
        .u32(blob.offset)
        .bytes(&[0; 12])
}

/// What a cursor command says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Scanout id.
    pub scanout: u32,
    /// Position of the hot spot, pixels from the left; may be "negative".
    pub x: u32,
    /// Position of the hot spot, pixels from the top; may be "negative".
    pub y: u32,
    /// Resource id; 0 hides.
    pub resource: u32,
    /// Hot spot inside the picture.
    pub hot_x: u32,
    /// Hot spot inside the picture.
    pub hot_y: u32,
}

fn cursor(kind: u32, cursor: Cursor) -> RequestBytes {
    RequestBytes::new(kind)
        .u32(cursor.scanout)
        .u32(cursor.x)
        .u32(cursor.y)
        .u32(0)
        .u32(cursor.resource)
        .u32(cursor.hot_x)
        .u32(cursor.hot_y)
        .u32(0)
}

/// UPDATE_CURSOR.
pub fn update_cursor(what: Cursor) -> RequestBytes {
    cursor(cmd::UPDATE_CURSOR, what)
}

/// MOVE_CURSOR.
pub fn move_cursor(what: Cursor) -> RequestBytes {
    cursor(cmd::MOVE_CURSOR, what)
}

/// CTX_CREATE.
pub fn ctx_create(context: u32, context_init: u32, name: &[u8]) -> RequestBytes {
    let mut field = [0; 64];
    let len = name.len().min(64);
    field[..len].copy_from_slice(&name[..len]);
    RequestBytes::new(cmd::CTX_CREATE)
        .in_context(context)
        .u32(len as u32)
        .u32(context_init)
        .bytes(&field)
}

/// CTX_DESTROY.
pub fn ctx_destroy(context: u32) -> RequestBytes {
    RequestBytes::new(cmd::CTX_DESTROY).in_context(context)
}

/// CTX_ATTACH_RESOURCE or CTX_DETACH_RESOURCE (`kind`).
pub fn ctx_resource(kind: u32, context: u32, resource: u32) -> RequestBytes {
    RequestBytes::new(kind)
        .in_context(context)
        .u32(resource)
        .u32(0)
}

/// SUBMIT_3D.
pub fn submit_3d(context: u32, data: &[u8]) -> RequestBytes {
    RequestBytes::new(cmd::SUBMIT_3D)
        .in_context(context)
        .u32(data.len() as u32)
        .u32(0)
        .bytes(data)
}

/// RESOURCE_CREATE_3D of a plain 2D texture.
pub fn create_3d(resource: u32, format: u32, width: u32, height: u32) -> RequestBytes {
    let fields = [resource, 2, format, 0, width, height, 1, 1, 0, 0, 0, 0];
    fields.into_iter().fold(
        RequestBytes::new(cmd::RESOURCE_CREATE_3D),
        RequestBytes::u32,
    )
}

/// TRANSFER_TO_HOST_3D or TRANSFER_FROM_HOST_3D (`kind`) of a flat box.
pub fn transfer_3d(kind: u32, context: u32, resource: u32, rect: Rect) -> RequestBytes {
    let box_ = [rect.x, rect.y, 0, rect.width, rect.height, 1];
    box_.into_iter()
        .fold(
            RequestBytes::new(kind).in_context(context),
            RequestBytes::u32,
        )
        .u64(0)
        .u32(resource)
        .u32(0)
        .u32(0)
        .u32(0)
}

/// RESOURCE_MAP_BLOB.
pub fn map_blob(resource: u32, offset: u64) -> RequestBytes {
    RequestBytes::new(cmd::RESOURCE_MAP_BLOB)
        .u32(resource)
        .u32(0)
        .u64(offset)
}

/// RESOURCE_UNMAP_BLOB.
pub fn unmap_blob(resource: u32) -> RequestBytes {
    RequestBytes::new(cmd::RESOURCE_UNMAP_BLOB)
        .u32(resource)
        .u32(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_sizes_of_the_kernels_structures() {
        use virtio_bindings::virtio_gpu as k;
        let blob = CreateBlob {
            resource: 1,
            mem: 1,
            flags: 0,
            count: 0,
            blob_id: 0,
            size: 1,
        };
        let (rect, resource, scanout) = (Rect::sized(1, 1), 1, 0);
        let plane = ScanoutBlob {
            scanout,
            resource,
            rect,
            width: 1,
            height: 1,
            format: 1,
            stride: 4,
            offset: 0,
        };
        let sizes = [
            (get_edid(0), size_of::<k::virtio_gpu_cmd_get_edid>()),
            (
                create_2d(1, 1, 1, 1),
                size_of::<k::virtio_gpu_resource_create_2d>(),
            ),
            (unref(1), size_of::<k::virtio_gpu_resource_unref>()),
            (
                set_scanout(0, 1, rect),
                size_of::<k::virtio_gpu_set_scanout>(),
            ),
            (flush(1, rect), size_of::<k::virtio_gpu_resource_flush>()),
            (
                transfer_to_host_2d(1, rect, 0),
                size_of::<k::virtio_gpu_transfer_to_host_2d>(),
            ),
            (
                attach_backing(1, &[]),
                size_of::<k::virtio_gpu_resource_attach_backing>(),
            ),
            (
                detach_backing(1),
                size_of::<k::virtio_gpu_resource_detach_backing>(),
            ),
            (
                assign_uuid(1),
                size_of::<k::virtio_gpu_resource_assign_uuid>(),
            ),
            (
                get_capset_info(0),
                size_of::<k::virtio_gpu_get_capset_info>(),
            ),
            (get_capset(0, 0), size_of::<k::virtio_gpu_get_capset>()),
            (
                create_blob(blob, &[]),
                size_of::<k::virtio_gpu_resource_create_blob>(),
            ),
            (
                set_scanout_blob(plane),
                size_of::<k::virtio_gpu_set_scanout_blob>(),
            ),
            (
                update_cursor(Cursor::default()),
                size_of::<k::virtio_gpu_update_cursor>(),
            ),
            (ctx_create(1, 0, b""), size_of::<k::virtio_gpu_ctx_create>()),
            (ctx_destroy(1), size_of::<k::virtio_gpu_ctx_destroy>()),
            (
                ctx_resource(cmd::CTX_ATTACH_RESOURCE, 1, 1),
                size_of::<k::virtio_gpu_ctx_resource>(),
            ),
            (submit_3d(1, &[]), size_of::<k::virtio_gpu_cmd_submit>()),
            (
                create_3d(1, 1, 1, 1),
                size_of::<k::virtio_gpu_resource_create_3d>(),
            ),
            (
                transfer_3d(cmd::TRANSFER_TO_HOST_3D, 1, 1, rect),
                size_of::<k::virtio_gpu_transfer_host_3d>(),
            ),
            (map_blob(1, 0), size_of::<k::virtio_gpu_resource_map_blob>()),
            (
                unmap_blob(1),
                size_of::<k::virtio_gpu_resource_unmap_blob>(),
            ),
        ];
        for (request, size) in sizes {
            assert_eq!(
                request.len(),
                size,
                "command {:02x}{:02x}",
                request[1],
                request[0]
            );
        }
    }

    #[test]
    fn a_fenced_request_has_its_header_fields_in_place() {
        let request = get_display_info()
            .fenced(0x0102_0304_0506_0708)
            .in_context(9)
            .on_ring(5);
        assert_eq!(request[..8], [0, 1, 0, 0, 3, 0, 0, 0]);
        assert_eq!(
            request[8..],
            [8, 7, 6, 5, 4, 3, 2, 1, 9, 0, 0, 0, 5, 0, 0, 0]
        );
    }
}
