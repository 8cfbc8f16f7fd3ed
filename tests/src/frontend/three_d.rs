//! What a driver says about 3D resources (virtio 1.4, "Device Operation: controlq (3d)").

use super::driver::Gpu;
use super::error::Result;
use super::memory::Span;
use super::request::{Rect, RequestBytes, cmd, submit_3d};

/// Everything that a RESOURCE_CREATE_3D says.
///
/// Apart from the id the fields belong to the renderer's protocol ([`virgl`](super::virgl)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Create3d {
    /// Resource id.
    pub resource: u32,
    /// Kind of texture, or buffer.
    pub target: u32,
    /// Pixel format number.
    pub format: u32,
    /// What it will be used for, one bit each.
    pub bind: u32,
    /// Width in pixels; bytes of a buffer.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Depth in pixels.
    pub depth: u32,
    /// Number of layers.
    pub array_size: u32,
    /// Number of the smallest level.
    pub last_level: u32,
    /// Samples per pixel; 0 for an ordinary resource.
    pub samples: u32,
    /// `VIRTIO_GPU_RESOURCE_FLAG_*`.
    pub flags: u32,
}

impl Create3d {
    /// The request.
    pub fn request(&self) -> RequestBytes {
        let fields = [
            self.resource,
            self.target,
            self.format,
            self.bind,
            self.width,
            self.height,
            self.depth,
            self.array_size,
            self.last_level,
            self.samples,
            self.flags,
            0,
        ];
        let request = RequestBytes::new(cmd::RESOURCE_CREATE_3D);
        fields.into_iter().fold(request, RequestBytes::u32)
    }
}

/// Everything that a TRANSFER_TO_HOST_3D or TRANSFER_FROM_HOST_3D says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer3d {
    /// Resource id.
    pub resource: u32,
    /// The context that it is done in.
    pub context: u32,
    /// Left edge, top edge and first layer.
    pub origin: [u32; 3],
    /// Width, height and number of layers.
    pub size: [u32; 3],
    /// Where the first pixel lies in the backing, bytes.
    pub offset: u64,
    /// Level.
    pub level: u32,
    /// Bytes from row to row in the backing; 0: no gaps.
    pub stride: u32,
    /// Bytes from layer to layer in the backing; 0: no gaps.
    pub layer_stride: u32,
}

impl Transfer3d {
    /// Of a rectangle of level 0 whose first pixel lies at the start of the backing, without gaps.
    pub fn flat(context: u32, resource: u32, rect: Rect) -> Self {
        Transfer3d {
            resource,
            context,
            origin: [rect.x, rect.y, 0],
            size: [rect.width, rect.height, 1],
            offset: 0,
            level: 0,
            stride: 0,
            layer_stride: 0,
        }
    }

    /// The request, of the command `kind`.
    pub fn request(&self, kind: u32) -> RequestBytes {
        let request = RequestBytes::new(kind).in_context(self.context);
        let region = self.origin.into_iter().chain(self.size);
        region
            .fold(request, RequestBytes::u32)
            .u64(self.offset)
            .u32(self.resource)
            .u32(self.level)
            .u32(self.stride)
            .u32(self.layer_stride)
    }

    /// The request to copy from guest memory to the resource.
    pub fn to_host(&self) -> RequestBytes {
        self.request(cmd::TRANSFER_TO_HOST_3D)
    }

    /// The request to copy from the resource to guest memory.
    pub fn from_host(&self) -> RequestBytes {
        self.request(cmd::TRANSFER_FROM_HOST_3D)
    }
}

/// Which timeline a fence is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// The device's own.
    Global,
    /// One of the context's.
    Ring(u8),
}

/// SUBMIT_3D with a fence.
pub fn fenced_submit(context: u32, data: &[u8], fence: u64, line: Line) -> RequestBytes {
    let request = submit_3d(context, data).fenced(fence);
    match line {
        Line::Global => request,
        Line::Ring(index) => request.on_ring(index),
    }
}

impl Gpu {
    /// RESOURCE_CREATE_3D.
    ///
    /// # Errors
    /// As [`Gpu::command`].
    pub fn create_3d(&mut self, create: &Create3d) -> Result<()> {
        self.command("RESOURCE_CREATE_3D", &create.request())
    }

    /// Makes a 3D resource with `len` bytes of guest memory behind it that a context knows.
    ///
    /// # Errors
    /// As [`Gpu::command`], or out of guest memory.
    pub fn create_3d_in(
        &mut self,
        context: u32,
        create: &Create3d,
        len: usize,
    ) -> Result<Vec<Span>> {
        let backing = vec![self.ram.alloc(len)?];
        self.create_3d(create)?;
        self.attach_backing(create.resource, &backing)?;
        self.attach_resource(context, create.resource)?;
        Ok(backing)
    }

    /// TRANSFER_TO_HOST_3D.
    ///
    /// # Errors
    /// As [`Gpu::command`].
    pub fn transfer_to_host_3d(&mut self, transfer: &Transfer3d) -> Result<()> {
        self.command("TRANSFER_TO_HOST_3D", &transfer.to_host())
    }

    /// TRANSFER_FROM_HOST_3D.
    ///
    /// # Errors
    /// As [`Gpu::command`].
    pub fn transfer_from_host_3d(&mut self, transfer: &Transfer3d) -> Result<()> {
        self.command("TRANSFER_FROM_HOST_3D", &transfer.from_host())
    }

    /// CTX_DESTROY.
    ///
    /// # Errors
    /// As [`Gpu::command`].
    pub fn destroy_context(&mut self, context: u32) -> Result<()> {
        self.command("CTX_DESTROY", &super::request::ctx_destroy(context))
    }
}

#[cfg(test)]
mod tests {
    use virtio_bindings::virtio_gpu as k;

    use super::*;

    #[test]
    fn fields_lie_where_the_kernel_has_them() {
        let create = Create3d {
            resource: 1,
            target: 2,
            format: 3,
            bind: 4,
            width: 5,
            height: 6,
            depth: 7,
            array_size: 8,
            last_level: 9,
            samples: 10,
            flags: 11,
        };
        let request = create.request();
        assert_eq!(request.len(), size_of::<k::virtio_gpu_resource_create_3d>());
        let numbers = (1..=11_u32).chain([0]).flat_map(u32::to_le_bytes);
        assert!(request[24..].iter().copied().eq(numbers));
        let transfer = Transfer3d {
            resource: 9,
            context: 77,
            origin: [1, 2, 3],
            size: [4, 5, 6],
            offset: 7 | 8 << 32,
            level: 10,
            stride: 11,
            layer_stride: 12,
        };
        let request = transfer.from_host();
        assert_eq!(request.len(), size_of::<k::virtio_gpu_transfer_host_3d>());
        assert_eq!(request[16], 77);
        let numbers = (1..=12_u32).flat_map(u32::to_le_bytes);
        assert!(request[24..].iter().copied().eq(numbers));
        let flat = Transfer3d::flat(77, 9, Rect::new(1, 2, 3, 4)).to_host();
        let other = super::super::request::transfer_3d(
            cmd::TRANSFER_TO_HOST_3D,
            77,
            9,
            Rect::new(1, 2, 3, 4),
        );
        assert_eq!(flat, other);
    }

    #[test]
    fn a_fence_is_on_the_line_that_is_named() {
        let global = fenced_submit(3, &[1, 2, 3, 4], 5, Line::Global);
        assert_eq!((global[4], global[8], global[16], global[20]), (1, 5, 3, 0));
        let ring = fenced_submit(3, &[1, 2, 3, 4], 5, Line::Ring(2));
        assert_eq!((ring[4], ring[20]), (3, 2));
    }
}
