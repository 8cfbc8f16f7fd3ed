//! What a guest submits in a cross-domain context (capability set 5) to allocate images on the host, and
//! through a channel.
//!
//! Written after `cross_domain_protocol.rs` of rutabaga_gfx 0.1.85, as minigbm uses it.

use super::driver::Gpu;
use super::error::{Error, Result};
use super::memory::{PAGE, Span};
use super::message::{u32_at, u64_at};
use super::request::{self, BLOB_MEM_GUEST, BLOB_MEM_HOST3D, CreateBlob};

/// Number of the capability set.
pub const CAPSET: u32 = 5;
/// Command that names the rings.
pub const CMD_INIT: u8 = 1;
/// Command that asks for the layout of an image.
pub const CMD_GET_IMAGE_REQUIREMENTS: u8 = 2;
/// Command that waits for the channel, with the fence that comes with it.
pub const CMD_POLL: u8 = 3;
/// Command that sends a message.
pub const CMD_SEND: u8 = 4;
/// Record of a message.
pub const CMD_RECEIVE: u8 = 5;
/// Record of bytes from a pipe.
pub const CMD_READ: u8 = 6;
/// Command that writes into a pipe.
pub const CMD_WRITE: u8 = 7;
/// Channel type of Wayland.
pub const WAYLAND: u32 = 1;
/// The ring whose fences wait for the channel.
pub const CHANNEL_RING: u8 = 1;
/// Type of an identifier: a blob.
pub const ID_BLOB: u32 = 1;
/// Type of an identifier: a pipe that the guest reads.
pub const ID_READ_PIPE: u32 = 3;
/// Type of an identifier: a pipe that the guest writes.
pub const ID_WRITE_PIPE: u32 = 4;
/// Pipes that the guest reads have numbers from here on.
pub const READ_PIPES: u32 = 0x8000_0000;
/// Bytes of SEND and RECEIVE before the message.
pub const SEND_HEADER: usize = 352;
/// Bytes of WRITE and READ before what goes through the pipe.
pub const WRITE_HEADER: usize = 24;
/// Identifiers of a message.
const MAX_IDS: usize = 28;

/// Bytes of an answer in the query ring.
pub const ANSWER: usize = 64;

/// Image use: linear.
pub const USE_LINEAR: u32 = 1 << 4;
/// Image use: shown by a display.
pub const USE_SCANOUT: u32 = 1 << 0;
/// Image use: drawn to by a GPU.
pub const USE_RENDERING: u32 = 1 << 2;
/// Image use: read by the CPU.
pub const USE_SW_READ: u32 = 1 << 9;
/// Image use: written by the CPU.
pub const USE_SW_WRITE: u32 = 1 << 11;

/// A DRM fourcc, from its four letters.
pub const fn fourcc(letters: &[u8; 4]) -> u32 {
    u32::from_le_bytes(*letters)
}

/// `DRM_FORMAT_XRGB8888`.
pub const XR24: u32 = fourcc(b"XR24");

/// Blob flag: can be mapped.
pub const MAPPABLE: u32 = 1;

/// Any command: header with `cmd` and `cmd_size`, then the fields.
pub fn command(cmd: u8, cmd_size: u16, fields: &[u32]) -> Vec<u8> {
    let mut bytes = vec![cmd, 0];
    bytes.extend(cmd_size.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(fields.iter().flat_map(|field| field.to_le_bytes()));
    bytes
}

/// A command that states its own length.
fn sized(cmd: u8, fields: &[u32]) -> Vec<u8> {
    let size = 8 + 4 * fields.len() as u16;
    command(cmd, size, fields)
}

/// CROSS_DOMAIN_CMD_INIT of 20 bytes, as Mesa and sommelier send it.
pub fn init(query_ring: u32, channel_ring: u32, channel_type: u32) -> Vec<u8> {
    sized(CMD_INIT, &[query_ring, channel_ring, channel_type])
}

/// CROSS_DOMAIN_CMD_INIT of 16 bytes, as minigbm sends it.
pub fn init_legacy(query_ring: u32, channel_type: u32) -> Vec<u8> {
    sized(CMD_INIT, &[query_ring, channel_type])
}

/// CROSS_DOMAIN_CMD_INIT of 36 bytes, with the UUID of a socket (zero).
pub fn init_current(query_ring: u32, channel_ring: u32, channel_type: u32) -> Vec<u8> {
    let fields = [query_ring, channel_ring, channel_type, 0, 0, 0, 0];
    sized(CMD_INIT, &fields)
}

/// CROSS_DOMAIN_CMD_POLL of 16 bytes, as sommelier sends it.
pub fn poll() -> Vec<u8> {
    sized(CMD_POLL, &[0, 0])
}

/// CROSS_DOMAIN_CMD_SEND of these bytes with these identifiers, each with its type.
pub fn send(bytes: &[u8], ids: &[(u32, u32)]) -> Vec<u8> {
    let mut columns = [[0; MAX_IDS]; 3];
    for (at, (id, kind)) in ids.iter().enumerate() {
        columns[0][at] = *id;
        columns[1][at] = *kind;
    }
    let mut fields = vec![ids.len() as u32, bytes.len() as u32];
    fields.extend(columns.concat());
    let size = (SEND_HEADER + bytes.len()) as u16;
    [command(CMD_SEND, size, &fields), bytes.to_vec()].concat()
}

/// CROSS_DOMAIN_CMD_WRITE into a pipe.
pub fn write(pipe: u32, bytes: &[u8], hang_up: bool) -> Vec<u8> {
    let fields = [pipe, hang_up.into(), bytes.len() as u32, 0];
    let size = (WRITE_HEADER + bytes.len()) as u16;
    [command(CMD_WRITE, size, &fields), bytes.to_vec()].concat()
}

/// The image to ask about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageRequest {
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// DRM fourcc.
    pub fourcc: u32,
    /// `USE_*` bits.
    pub flags: u32,
}

impl ImageRequest {
    /// A linear x8r8g8b8 picture for drawing by the CPU.
    pub fn xrgb(width: u32, height: u32) -> Self {
        ImageRequest {
            width,
            height,
            fourcc: XR24,
            flags: USE_LINEAR | USE_SW_READ | USE_SW_WRITE,
        }
    }

    /// CROSS_DOMAIN_CMD_GET_IMAGE_REQUIREMENTS.
    pub fn to_bytes(self) -> Vec<u8> {
        let fields = [self.width, self.height, self.fourcc, self.flags];
        sized(CMD_GET_IMAGE_REQUIREMENTS, &fields)
    }
}

/// The answer: how an image lies in memory, and the id to make it with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageInfo {
    /// Bytes from row to row, by plane.
    pub strides: [u32; 4],
    /// First byte, by plane.
    pub offsets: [u32; 4],
    /// DRM format modifier.
    pub modifier: u64,
    /// Bytes of the image.
    pub size: u64,
    /// What RESOURCE_CREATE_BLOB names it by.
    pub blob_id: u32,
    /// How the guest is to map it (1 cached, 2 uncached, 3 write-combining).
    pub map_info: u32,
    /// Vulkan memory type, or -1.
    pub memory_index: i32,
    /// Vulkan device, or -1.
    pub physical_device_index: i32,
}

impl ImageInfo {
    /// Reads the 64 bytes of the query ring.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        ImageInfo {
            strides: [0, 4, 8, 12].map(|at| u32_at(bytes, at)),
            offsets: [16, 20, 24, 28].map(|at| u32_at(bytes, at)),
            modifier: u64_at(bytes, 32),
            size: u64_at(bytes, 40),
            blob_id: u32_at(bytes, 48),
            map_info: u32_at(bytes, 52),
            memory_index: u32_at(bytes, 56) as i32,
            physical_device_index: u32_at(bytes, 60) as i32,
        }
    }

    /// Bytes of the blob that holds the image: whole pages.
    pub fn blob_size(&self) -> u64 {
        self.size.next_multiple_of(PAGE)
    }
}

/// A cross-domain context with its query ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageContext {
    /// Context id.
    pub id: u32,
    /// Resource id of the query ring.
    pub ring: u32,
    /// The query ring's memory.
    pub memory: Span,
}

impl ImageContext {
    /// Makes a context and a query ring, attaches it and initializes the context: what minigbm does.
    ///
    /// # Errors
    /// [`Error::Refused`] for any step.
    pub fn new(gpu: &mut Gpu, id: u32, ring: u32) -> Result<Self> {
        let context = Self::without_init(gpu, id, ring)?;
        gpu.submit_3d(id, &init(ring, 0, 0))?;
        Ok(context)
    }

    /// As [`Self::new`] up to and without INIT.
    ///
    /// # Errors
    /// [`Error::Refused`] for any step.
    pub fn without_init(gpu: &mut Gpu, id: u32, ring: u32) -> Result<Self> {
        gpu.create_context(id, CAPSET)?;
        let memory = ring_blob(gpu, ring, PAGE)?;
        gpu.attach_resource(id, ring)?;
        Ok(ImageContext { id, ring, memory })
    }

    /// Asks for the layout of an image.
    ///
    /// # Errors
    /// [`Error::Refused`]; [`Error::Protocol`] when the answer is not in the ring.
    pub fn image(&self, gpu: &mut Gpu, image: ImageRequest) -> Result<ImageInfo> {
        gpu.ram.fill(self.memory.addr, PAGE as usize, 0xa5)?;
        gpu.submit_3d(self.id, &image.to_bytes())?;
        let bytes = gpu.ram.read(self.memory.addr, PAGE as usize)?;
        if bytes[..ANSWER].iter().all(|byte| *byte == 0xa5) {
            return Err(Error::Protocol("no answer in the query ring".to_owned()));
        }
        match bytes[ANSWER..].iter().all(|byte| *byte == 0xa5) {
            true => Ok(ImageInfo::from_bytes(&bytes)),
            false => Err(Error::Protocol("an answer beyond 64 bytes".to_owned())),
        }
    }

    /// The RESOURCE_CREATE_BLOB request for an image.
    pub fn blob_request(&self, resource: u32, image: &ImageInfo) -> request::RequestBytes {
        let blob_id = u64::from(image.blob_id);
        host_blob(self.id, resource, blob_id, image.blob_size())
    }

    /// Makes a host blob of an image.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn create_blob(&self, gpu: &mut Gpu, resource: u32, image: &ImageInfo) -> Result<()> {
        gpu.command("RESOURCE_CREATE_BLOB", &self.blob_request(resource, image))
    }

    /// Asks for an image of `size` bytes (whole pages) and makes a host blob of it.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn blob_of(&self, gpu: &mut Gpu, resource: u32, size: u64) -> Result<ImageInfo> {
        // Rows of 1024 pixels are a page each.
        let image = self.image(gpu, ImageRequest::xrgb(1024, (size / PAGE) as u32))?;
        if image.blob_size() != size {
            let what = format!("{} bytes for an image of {size}", image.size);
            return Err(Error::Protocol(what));
        }
        self.create_blob(gpu, resource, &image)?;
        Ok(image)
    }
}

/// Makes a guest blob of `size` bytes, as for a ring.
///
/// # Errors
/// [`Error::Refused`] or out of guest memory.
pub fn ring_blob(gpu: &mut Gpu, resource: u32, size: u64) -> Result<Span> {
    let memory = gpu.ram.alloc(size as usize)?;
    let blob = CreateBlob {
        resource,
        mem: BLOB_MEM_GUEST,
        flags: MAPPABLE,
        count: 1,
        blob_id: 0,
        size,
    };
    let request = request::create_blob(blob, &[memory.into()]);
    gpu.command("RESOURCE_CREATE_BLOB", &request)?;
    Ok(memory)
}

/// RESOURCE_CREATE_BLOB of a mappable host blob.
pub fn host_blob(context: u32, resource: u32, blob_id: u64, size: u64) -> request::RequestBytes {
    let blob = CreateBlob {
        resource,
        mem: BLOB_MEM_HOST3D,
        flags: MAPPABLE,
        count: 0,
        blob_id,
        size,
    };
    request::create_blob(blob, &[]).in_context(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_have_the_sizes_of_the_reference() {
        assert_eq!(init_legacy(1, 0).len(), 16);
        assert_eq!(init(1, 2, 0).len(), 20);
        assert_eq!(init_current(1, 2, 0).len(), 36);
        let bytes = ImageRequest::xrgb(1, 2).to_bytes();
        assert_eq!(bytes.len(), 24);
        assert_eq!(bytes[..8], [2, 0, 24, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[16..20], *b"XR24");
    }
}
