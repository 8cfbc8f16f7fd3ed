//! A context of Venus: commands by SUBMIT_3D, replies in memory that both sides map.

use super::wire::{Reply, Words};
use super::{CAPSET_VENUS, cmd};
use crate::frontend::cross_domain::host_blob;
use crate::frontend::error::Result;
use crate::frontend::session::Session;
use crate::frontend::three_d::{Line, fenced_submit};

/// Bytes of the memory for replies: room for a picture of [`Venus::read_image`].
pub const REPLY_BYTES: u64 = 1 << 20;

/// Bytes of a reply that holds no array of the guest's own length.
const SHORT_REPLY: usize = 4096;

/// What stands where a reply is to begin: no command's type.
pub(super) const NO_REPLY: [u8; 4] = [0xff; 4];

/// Shared memory of a context (a HOST3D blob of id 0), mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shared {
    /// Resource id.
    pub resource: u32,
    /// Where it is mapped in the region of shared memory, bytes.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
}

impl Shared {
    /// Makes it in a context and maps it at `offset`.
    ///
    /// # Errors
    /// As the commands that it sends.
    pub fn new(
        session: &mut Session,
        context: u32,
        resource: u32,
        offset: u64,
        size: u64,
    ) -> Result<Self> {
        let blob = host_blob(context, resource, 0, size);
        session.gpu.command("RESOURCE_CREATE_BLOB", &blob)?;
        session.gpu.attach_resource(context, resource)?;
        session.gpu.map_blob(resource, offset)?;
        Ok(Shared {
            resource,
            offset,
            size,
        })
    }

    /// SET_REPLY_COMMAND_STREAM: all replies go there from here on.
    pub fn reply_stream(&self) -> Words {
        Words::command(cmd::SET_REPLY_COMMAND_STREAM)
            .pointer()
            .u32(self.resource)
            .u64(0)
            .u64(self.size)
    }
}

/// A context and what the guest keeps about it.
#[derive(Clone, Debug)]
pub struct Venus {
    /// Context id.
    pub id: u32,
    /// Where replies are.
    pub replies: Shared,
    objects: u64,
    fences: u64,
}

impl Venus {
    /// Makes a context, whose memory for replies is to be this resource and mapped at this offset.
    ///
    /// # Errors
    /// As the commands that it sends.
    pub fn new(session: &mut Session, id: u32, resource: u32, offset: u64) -> Result<Self> {
        session.gpu.create_context(id, CAPSET_VENUS)?;
        let replies = Shared::new(session, id, resource, offset, REPLY_BYTES)?;
        let stream = replies.reply_stream();
        session.gpu.submit_3d(id, stream.bytes())?;
        Ok(Venus {
            id,
            replies,
            objects: 0,
            fences: 0,
        })
    }

    /// An id for an object of the context.
    pub fn object(&mut self) -> u64 {
        self.objects += 1;
        self.objects
    }

    /// Sends commands without waiting for anything. That they were taken does not say that they are good.
    ///
    /// # Errors
    /// As the command that it sends.
    pub fn send(&self, session: &mut Session, commands: &Words) -> Result<()> {
        session.gpu.submit_3d(self.id, commands.bytes())
    }

    /// Waits until the context has seen all that was sent.
    ///
    /// # Errors
    /// As the command that it sends.
    pub fn settle(&mut self, session: &mut Session) -> Result<()> {
        self.fenced(session, &Words::new(), 0)
    }

    /// Sends commands and waits for a fence behind them: on ring 0 until they have been read, on a queue's
    /// until the work that the queue has been given before is done.
    ///
    /// # Errors
    /// As the command that it sends.
    pub fn fenced(&mut self, session: &mut Session, commands: &Words, ring: u8) -> Result<()> {
        self.fences += 1;
        let request = fenced_submit(self.id, commands.bytes(), self.fences, Line::Ring(ring));
        session.gpu.command("SUBMIT_3D", &request)
    }

    /// Sends a command and reads the reply.
    ///
    /// # Errors
    /// As the command that it sends; [`Error::Protocol`](crate::frontend::Error::Protocol) where nothing
    /// has replied: the context has come to its end.
    pub fn call(&mut self, session: &mut Session, command: Words) -> Result<Reply> {
        self.call_long(session, command, SHORT_REPLY)
    }

    /// As [`Venus::call`] for a reply of up to this many bytes.
    ///
    /// # Errors
    /// As [`Venus::call`].
    pub fn call_long(
        &mut self,
        session: &mut Session,
        command: Words,
        len: usize,
    ) -> Result<Reply> {
        let at = self.replies.offset;
        session.shmem().write(at, &NO_REPLY);
        let kind = command.kind();
        let seek = Words::command(cmd::SEEK_REPLY_COMMAND_STREAM).u64(0);
        self.fenced(session, &seek.then(&command.replied()), 0)?;
        Reply::new(kind, session.shmem().read(at, len))
    }

    /// Sends a command that is replied to with a `VkResult`, which must be good.
    ///
    /// # Errors
    /// As [`Venus::call`], and for a bad one.
    pub fn done(&mut self, session: &mut Session, command: Words) -> Result<()> {
        self.call(session, command)?.success()
    }
}
