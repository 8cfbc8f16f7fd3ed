//! Device memory, and the buffers and images in it.

use super::context::Venus;
use super::instance::Device;
use super::wire::Words;
use super::{cmd, kind};
use crate::frontend::error::{Error, Result};
use crate::frontend::session::Session;

/// What a buffer may be used for: both sides of copies, uniform and storage buffer
/// (`VK_BUFFER_USAGE_*`).
const BUFFER_USAGE: u32 = 1 | 1 << 1 | 1 << 4 | 1 << 5;
/// An image may be copied into by commands and from by the CPU (`VK_IMAGE_USAGE_TRANSFER_DST_BIT |
/// VK_IMAGE_USAGE_HOST_TRANSFER_BIT`).
const IMAGE_USAGE: u32 = 1 << 1 | 1 << 22;
/// `VK_IMAGE_TYPE_2D`.
const TWO_D: u32 = 1;
/// `VK_FORMAT_R32_UINT`: a word is a pixel.
const R32_UINT: u32 = 98;
/// `VK_IMAGE_LAYOUT_GENERAL`.
pub(super) const GENERAL: u32 = 1;
/// `VkImageSubresourceLayers` of a picture: colour, level 0, layer 0 alone.
pub(super) const PICTURE: [u32; 4] = [1, 0, 0, 1];

/// `VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT`.
pub const DMA_BUF: u32 = 1 << 9;

/// A picture of 32-bit words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    /// The object.
    pub id: u64,
    /// Words per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl Image {
    /// The words of the picture.
    pub fn words(&self) -> usize {
        self.width as usize * self.height as usize
    }
}

/// An addition to ALLOCATE_MEMORY: the memory can be exported as one of these handle types.
pub fn exported(handle_types: u32) -> (u32, Words) {
    let fields = Words::new().u32(handle_types);
    (kind::EXPORT_MEMORY_ALLOCATE_INFO, fields)
}

/// An addition to ALLOCATE_MEMORY: the memory is that of a resource.
pub fn imported(resource: u32) -> (u32, Words) {
    let fields = Words::new().u32(resource);
    (kind::IMPORT_MEMORY_RESOURCE_INFO, fields)
}

impl Venus {
    /// Allocates memory of a type; its object, by which a blob can be made of it.
    ///
    /// # Errors
    /// As [`Venus::done`].
    pub fn allocate(
        &mut self,
        session: &mut Session,
        device: &Device,
        memory_type: u32,
        size: u64,
        additions: &[(u32, Words)],
    ) -> Result<u64> {
        let memory = self.object();
        let command = Words::command(cmd::ALLOCATE_MEMORY)
            .u64(device.id)
            .pointer()
            .structure(kind::MEMORY_ALLOCATE_INFO, additions)
            .u64(size)
            .u32(memory_type)
            .null()
            .pointer()
            .u64(memory);
        self.done(session, command)?;
        Ok(memory)
    }

    /// Frees memory.
    ///
    /// # Errors
    /// As [`Venus::call`].
    pub fn free(&mut self, session: &mut Session, device: &Device, memory: u64) -> Result<()> {
        let command = Words::command(cmd::FREE_MEMORY)
            .u64(device.id)
            .u64(memory)
            .null();
        self.call(session, command).map(|_| ())
    }

    /// Makes a buffer; its object.
    ///
    /// # Errors
    /// As [`Venus::done`].
    pub fn buffer(&mut self, session: &mut Session, device: &Device, size: u64) -> Result<u64> {
        let buffer = self.object();
        let command = Words::command(cmd::CREATE_BUFFER)
            .u64(device.id)
            .pointer()
            .structure(kind::BUFFER_CREATE_INFO, &[])
            .u32(0)
            .u64(size)
            .u32(BUFFER_USAGE)
            .u32(0)
            .u32(0)
            .null()
            .null()
            .pointer()
            .u64(buffer);
        self.done(session, command)?;
        Ok(buffer)
    }

    /// Puts a buffer at the start of memory.
    ///
    /// # Errors
    /// As [`Venus::done`].
    pub fn bind_buffer(
        &mut self,
        session: &mut Session,
        device: &Device,
        buffer: u64,
        memory: u64,
    ) -> Result<()> {
        let command = Words::command(cmd::BIND_BUFFER_MEMORY)
            .u64(device.id)
            .u64(buffer)
            .u64(memory)
            .u64(0);
        self.done(session, command)
    }

    /// Makes a buffer in memory of its own with these properties; the objects of both.
    ///
    /// # Errors
    /// As [`Venus::done`]; [`Error::Protocol`] where there is no such memory.
    pub fn buffer_in(
        &mut self,
        session: &mut Session,
        device: &Device,
        size: u64,
        properties: u32,
    ) -> Result<(u64, u64)> {
        let buffer = self.buffer(session, device, size)?;
        let get = Words::command(cmd::GET_BUFFER_MEMORY_REQUIREMENTS);
        let (bytes, allowed) = self.requirements(session, device, get, buffer)?;
        let of = device.memory_type(allowed, properties)?;
        let memory = self.allocate(session, device, of, bytes.max(size), &[])?;
        self.bind_buffer(session, device, buffer, memory)?;
        Ok((buffer, memory))
    }

    /// Bytes and memory types that an object needs.
    fn requirements(
        &mut self,
        session: &mut Session,
        device: &Device,
        command: Words,
        object: u64,
    ) -> Result<(u64, u32)> {
        let command = command.u64(device.id).u64(object).pointer();
        let mut reply = self.call(session, command)?;
        reply.u64()?;
        let bytes = reply.u64()?;
        let _alignment = reply.u64()?;
        Ok((bytes, reply.u32()?))
    }

    /// Makes a picture of words in memory of its own.
    ///
    /// # Errors
    /// As [`Venus::done`].
    pub fn image(
        &mut self,
        session: &mut Session,
        device: &Device,
        width: u32,
        height: u32,
    ) -> Result<Image> {
        let id = self.object();
        let command = Words::command(cmd::CREATE_IMAGE)
            .u64(device.id)
            .pointer()
            .structure(kind::IMAGE_CREATE_INFO, &[])
            .u32s(&[0, TWO_D, R32_UINT, width, height, 1])
            // One level, one layer, one sample, tiled as the driver likes.
            .u32s(&[1, 1, 1, 0, IMAGE_USAGE, 0, 0])
            .null()
            .u32(0)
            .null()
            .pointer()
            .u64(id);
        self.done(session, command)?;
        let get = Words::command(cmd::GET_IMAGE_MEMORY_REQUIREMENTS);
        let (bytes, allowed) = self.requirements(session, device, get, id)?;
        let of = device.memory_type(allowed, 0)?;
        let memory = self.allocate(session, device, of, bytes, &[])?;
        let bind = Words::command(cmd::BIND_IMAGE_MEMORY)
            .u64(device.id)
            .u64(id)
            .u64(memory)
            .u64(0);
        self.done(session, bind)?;
        Ok(Image { id, width, height })
    }

    /// The words of a picture, which the host's CPU reads.
    ///
    /// # Errors
    /// As [`Venus::done`].
    pub fn read_image(
        &mut self,
        session: &mut Session,
        device: &Device,
        image: &Image,
    ) -> Result<Vec<u32>> {
        let bytes = 4 * image.words();
        let command = Words::command(cmd::COPY_IMAGE_TO_MEMORY)
            .u64(device.id)
            .pointer()
            .structure(kind::COPY_IMAGE_TO_MEMORY_INFO, &[])
            .u32(0)
            .u64(image.id)
            .u32s(&[GENERAL, 0, 0])
            .u32s(&PICTURE)
            .u32s(&[0, 0, 0, image.width, image.height, 1])
            .count(bytes)
            .count(bytes);
        // In front of them a type, a result and a length.
        let mut reply = self.call_long(session, command, 16 + bytes)?;
        reply.success()?;
        match reply.u64()? {
            found if found == bytes as u64 => {}
            other => return Err(Error::Protocol(format!("{other} bytes of {bytes}"))),
        }
        (0..image.words()).map(|_| reply.u32()).collect()
    }
}
