//! A small virtio-gpu driver: one method per command, over a control and a cursor queue.

use std::sync::Arc;

use super::error::{Error, Result};
use super::memory::{GuestRam, Span};
use super::queue::{CommandQueue, Ticket};
use super::request::{
    self, BLOB_MEM_GUEST, CreateBlob, Cursor, MemEntry, Rect, RequestBytes, ScanoutBlob,
};
use super::response::{self, DisplayOne, HEADER, Response, resp};

/// The driver. Methods named after commands wait for the answer and fail unless it is the good one;
/// [`Gpu::call`] returns any answer.
#[derive(Debug)]
pub struct Gpu {
    /// Guest memory that buffers come from.
    pub ram: Arc<GuestRam>,
    /// The control queue.
    pub control: CommandQueue,
    /// The cursor queue.
    pub cursor: CommandQueue,
}

/// A 2D resource with its backing, as [`Gpu::create_picture`] makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Resource id.
    pub id: u32,
    /// Pixel format number.
    pub format: u32,
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Guest memory behind it.
    pub backing: Vec<Span>,
}

impl Resource {
    /// The whole picture.
    pub fn rect(&self) -> Rect {
        Rect::sized(self.width, self.height)
    }

    /// Bytes of the whole picture.
    pub fn len(&self) -> usize {
        4 * self.width as usize * self.height as usize
    }

    /// Whether it has no pixels (never, for resources that could be made).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Gpu {
    /// Sends a request on the control queue with room for `room` bytes of response.
    ///
    /// # Errors
    /// As [`CommandQueue::call`]; an error response is no error here.
    pub fn call(&mut self, request: &[u8], room: usize) -> Result<Response> {
        self.control.call(request, room)
    }

    /// The response type that a request gets, with room for any response.
    ///
    /// # Errors
    /// As [`CommandQueue::call`], and [`Error::Protocol`] if an error answer is not a bare header.
    pub fn answer(&mut self, request: &[u8]) -> Result<u32> {
        let response = self.call(request, response::EDID)?;
        let kind = response.kind();
        if kind >= resp::ERR_UNSPEC && response.written() != HEADER {
            let len = response.written();
            return Err(Error::Protocol(format!("error {kind:#x} with {len} bytes")));
        }
        Ok(kind)
    }

    /// Sends a request that is answered OK_NODATA.
    ///
    /// # Errors
    /// [`Error::Refused`] for another answer.
    pub fn command(&mut self, name: &str, request: &[u8]) -> Result<()> {
        self.call(request, HEADER)?
            .expect(name, resp::OK_NODATA)
            .map(|_| ())
    }

    /// Submits a request without a kick, to be collected with [`Gpu::finish`].
    ///
    /// # Errors
    /// Out of descriptors or memory.
    pub fn queue(&mut self, request: &[u8]) -> Result<Ticket> {
        self.control.submit(request, HEADER)
    }

    /// Kicks, and waits until all these commands are answered OK_NODATA.
    ///
    /// # Errors
    /// The first that was not.
    pub fn finish(&mut self, tickets: &[Ticket]) -> Result<()> {
        self.control.kick()?;
        for ticket in tickets {
            self.control
                .wait(*ticket)?
                .expect("a queued command", resp::OK_NODATA)?;
        }
        Ok(())
    }

    /// GET_DISPLAY_INFO.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn display_info(&mut self) -> Result<[DisplayOne; 16]> {
        let response = self.call(&request::get_display_info(), response::DISPLAY_INFO)?;
        Ok(response
            .expect("GET_DISPLAY_INFO", resp::OK_DISPLAY_INFO)?
            .displays())
    }

    /// GET_EDID.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn edid(&mut self, scanout: u32) -> Result<Vec<u8>> {
        let response = self.call(&request::get_edid(scanout), response::EDID)?;
        Ok(response.expect("GET_EDID", resp::OK_EDID)?.edid().to_vec())
    }

    /// RESOURCE_CREATE_2D.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn create_2d(&mut self, id: u32, format: u32, width: u32, height: u32) -> Result<()> {
        self.command(
            "RESOURCE_CREATE_2D",
            &request::create_2d(id, format, width, height),
        )
    }

    /// RESOURCE_ATTACH_BACKING.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn attach_backing(&mut self, id: u32, backing: &[Span]) -> Result<()> {
        let entries: Vec<MemEntry> = backing.iter().map(|span| (*span).into()).collect();
        self.command(
            "RESOURCE_ATTACH_BACKING",
            &request::attach_backing(id, &entries),
        )
    }

    /// RESOURCE_DETACH_BACKING.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn detach_backing(&mut self, id: u32) -> Result<()> {
        self.command("RESOURCE_DETACH_BACKING", &request::detach_backing(id))
    }

    /// RESOURCE_UNREF.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn unref(&mut self, id: u32) -> Result<()> {
        self.command("RESOURCE_UNREF", &request::unref(id))
    }

    /// TRANSFER_TO_HOST_2D.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn transfer(&mut self, id: u32, rect: Rect, offset: u64) -> Result<()> {
        self.command(
            "TRANSFER_TO_HOST_2D",
            &request::transfer_to_host_2d(id, rect, offset),
        )
    }

    /// RESOURCE_FLUSH.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn flush(&mut self, id: u32, rect: Rect) -> Result<()> {
        self.command("RESOURCE_FLUSH", &request::flush(id, rect))
    }

    /// SET_SCANOUT.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn set_scanout(&mut self, scanout: u32, id: u32, rect: Rect) -> Result<()> {
        self.command("SET_SCANOUT", &request::set_scanout(scanout, id, rect))
    }

    /// RESOURCE_ASSIGN_UUID.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn assign_uuid(&mut self, id: u32) -> Result<[u8; 16]> {
        let response = self.call(&request::assign_uuid(id), response::UUID)?;
        Ok(response
            .expect("RESOURCE_ASSIGN_UUID", resp::OK_RESOURCE_UUID)?
            .uuid())
    }

    /// RESOURCE_CREATE_BLOB of guest memory.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn create_blob_guest(&mut self, id: u32, size: u64, backing: &[Span]) -> Result<()> {
        let entries: Vec<MemEntry> = backing.iter().map(|span| (*span).into()).collect();
        let count = entries.len() as u32;
        let mem = BLOB_MEM_GUEST;
        let blob = CreateBlob {
            resource: id,
            mem,
            flags: 0,
            count,
            blob_id: 0,
            size,
        };
        self.command(
            "RESOURCE_CREATE_BLOB",
            &request::create_blob(blob, &entries),
        )
    }

    /// RESOURCE_MAP_BLOB; returns the map info.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn map_blob(&mut self, id: u32, offset: u64) -> Result<u32> {
        let response = self.call(&request::map_blob(id, offset), response::MAP_INFO)?;
        Ok(response
            .expect("RESOURCE_MAP_BLOB", resp::OK_MAP_INFO)?
            .map_info())
    }

    /// RESOURCE_UNMAP_BLOB.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn unmap_blob(&mut self, id: u32) -> Result<()> {
        self.command("RESOURCE_UNMAP_BLOB", &request::unmap_blob(id))
    }

    /// CTX_CREATE of a context with a capability set.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn create_context(&mut self, context: u32, capset: u32) -> Result<()> {
        self.command(
            "CTX_CREATE",
            &request::ctx_create(context, capset, b"nosnoop-tests"),
        )
    }

    /// CTX_ATTACH_RESOURCE.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn attach_resource(&mut self, context: u32, resource: u32) -> Result<()> {
        let kind = request::cmd::CTX_ATTACH_RESOURCE;
        self.command(
            "CTX_ATTACH_RESOURCE",
            &request::ctx_resource(kind, context, resource),
        )
    }

    /// CTX_DETACH_RESOURCE.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn detach_resource(&mut self, context: u32, resource: u32) -> Result<()> {
        let kind = request::cmd::CTX_DETACH_RESOURCE;
        self.command(
            "CTX_DETACH_RESOURCE",
            &request::ctx_resource(kind, context, resource),
        )
    }

    /// SUBMIT_3D.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn submit_3d(&mut self, context: u32, data: &[u8]) -> Result<()> {
        self.command("SUBMIT_3D", &request::submit_3d(context, data))
    }

    /// SET_SCANOUT_BLOB.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn set_scanout_blob(&mut self, blob: ScanoutBlob) -> Result<()> {
        self.command("SET_SCANOUT_BLOB", &request::set_scanout_blob(blob))
    }

    /// A cursor command, as Linux sends it: on the cursor queue, without a response buffer.
    ///
    /// # Errors
    /// As [`CommandQueue::call`]; whether the device liked it cannot be seen here.
    pub fn cursor_command(&mut self, request: &RequestBytes) -> Result<()> {
        let response = self.cursor.call(request, 0)?;
        match response.written() {
            0 => Ok(()),
            len => Err(Error::Protocol(format!(
                "{len} bytes written into no buffer"
            ))),
        }
    }

    /// UPDATE_CURSOR.
    ///
    /// # Errors
    /// As [`Gpu::cursor_command`].
    pub fn update_cursor(&mut self, cursor: Cursor) -> Result<()> {
        self.cursor_command(&request::update_cursor(cursor))
    }

    /// MOVE_CURSOR.
    ///
    /// # Errors
    /// As [`Gpu::cursor_command`].
    pub fn move_cursor(&mut self, cursor: Cursor) -> Result<()> {
        self.cursor_command(&request::move_cursor(cursor))
    }

    /// Makes a 2D resource backed by one contiguous piece of guest memory.
    ///
    /// # Errors
    /// [`Error::Refused`] or out of guest memory.
    pub fn create_picture(
        &mut self,
        id: u32,
        format: u32,
        width: u32,
        height: u32,
    ) -> Result<Resource> {
        let backing = vec![self.ram.alloc(4 * width as usize * height as usize)?];
        self.create_2d(id, format, width, height)?;
        self.attach_backing(id, &backing)?;
        Ok(Resource {
            id,
            format,
            width,
            height,
            backing,
        })
    }

    /// Writes a whole picture into a resource's backing and transfers it.
    ///
    /// # Errors
    /// [`Error::Refused`] or a picture larger than the backing.
    pub fn paint(&mut self, resource: &Resource, raw: &[u8]) -> Result<()> {
        self.ram.scatter(&resource.backing, 0, raw)?;
        self.transfer(resource.id, resource.rect(), 0)
    }

    /// As [`Gpu::paint`], and flushes it all.
    ///
    /// # Errors
    /// As [`Gpu::paint`].
    pub fn show(&mut self, resource: &Resource, raw: &[u8]) -> Result<()> {
        self.paint(resource, raw)?;
        self.flush(resource.id, resource.rect())
    }
}
