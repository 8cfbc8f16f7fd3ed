//! A ring: commands through shared memory, which a thread of the renderer reads. The device sees only
//! that it is made, and a word to wake the thread once that has gone to sleep.

use std::sync::atomic::{Ordering, fence};

use super::context::{NO_REPLY, Shared, Venus};
use super::wire::{Reply, Words};
use super::{cmd, kind};
use crate::frontend::error::{Deadline, Error, Result};
use crate::frontend::session::Session;

/// `VK_RING_STATUS_IDLE_BIT_MESA`: the thread sleeps, and is to be notified.
const IDLE: u32 = 1 << 0;
/// `VK_RING_STATUS_FATAL_BIT_MESA`: the thread has ended.
const FATAL: u32 = 1 << 1;

/// Bytes of a reply at most.
const REPLY: usize = 4096;

/// How a ring lies in a resource, all in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The resource, of shared memory.
    pub resource: u32,
    /// Where the ring's part of it begins.
    pub offset: u64,
    /// How long that part is.
    pub size: u64,
    /// How long the thread looks for commands before it sleeps, nanoseconds.
    pub idle_timeout: u64,
    /// Where the renderer says how far it has read, in that part as all that follows.
    pub head: u64,
    /// Where the guest says how far it has written.
    pub tail: u64,
    /// Where the renderer says what it is doing.
    pub status: u64,
    /// Where commands are.
    pub buffer: u64,
    /// Bytes for commands: a power of two.
    pub buffer_size: u64,
    /// Where there is room for more.
    pub extra: u64,
    /// Bytes of that.
    pub extra_size: u64,
}

impl Layout {
    /// Bytes for commands in [`Layout::new`].
    pub const BUFFER: u64 = 64 << 10;

    /// As Mesa has it: head, tail and status on cache lines of their own, then 64 KiB for commands.
    pub fn new(resource: u32, idle_timeout: u64) -> Self {
        Layout {
            resource,
            offset: 0,
            size: 2 * Self::BUFFER,
            idle_timeout,
            head: 0,
            tail: 64,
            status: 128,
            buffer: 192,
            buffer_size: Self::BUFFER,
            extra: 192 + Self::BUFFER,
            extra_size: 4,
        }
    }

    /// CREATE_RING under an id of the guest's.
    pub fn create(&self, ring: u64) -> Words {
        let fields = [
            self.offset,
            self.size,
            self.idle_timeout,
            self.head,
            self.tail,
            self.status,
            self.buffer,
            self.buffer_size,
            self.extra,
            self.extra_size,
        ];
        let words = Words::command(cmd::CREATE_RING)
            .u64(ring)
            .pointer()
            .structure(kind::RING_CREATE_INFO, &[])
            .u32(0)
            .u32(self.resource);
        fields.into_iter().fold(words, Words::u64)
    }
}

/// WAIT_VIRTQUEUE_SEQNO: a ring goes on when the context has been given this number by SUBMIT_3D.
pub fn wait_virtqueue(seqno: u64) -> Words {
    Words::command(cmd::WAIT_VIRTQUEUE_SEQNO).u64(seqno)
}

/// A ring of a context, with memory for its replies.
#[derive(Clone, Debug)]
pub struct Ring {
    context: u32,
    id: u64,
    layout: Layout,
    memory: Shared,
    replies: Shared,
    tail: u32,
}

impl Ring {
    /// Makes a ring with this idle timeout (nanoseconds) in resources `resource` and `resource + 1`, which
    /// are mapped from `offset` on.
    ///
    /// # Errors
    /// As the commands that it sends.
    pub fn new(
        session: &mut Session,
        venus: &mut Venus,
        resource: u32,
        offset: u64,
        idle_timeout: u64,
    ) -> Result<Self> {
        let context = venus.id;
        let layout = Layout::new(resource, idle_timeout);
        let memory = Shared::new(session, context, resource, offset, layout.size)?;
        let behind = offset + layout.size;
        let replies = Shared::new(session, context, resource + 1, behind, layout.size)?;
        let id = venus.object();
        venus.send(session, &layout.create(id))?;
        let mut ring = Ring {
            context,
            id,
            layout,
            memory,
            replies,
            tail: 0,
        };
        ring.run(session, &replies.reply_stream())?;
        Ok(ring)
    }

    /// DESTROY_RING.
    pub fn destroy(&self) -> Words {
        Words::command(cmd::DESTROY_RING).u64(self.id)
    }

    /// WAIT_RING_SEQNO: what is submitted to the context after it waits until the ring has been read up to
    /// this tail.
    pub fn wait(&self, tail: u32) -> Words {
        Words::command(cmd::WAIT_RING_SEQNO)
            .u64(self.id)
            .u64(u64::from(tail))
    }

    fn load(&self, session: &Session, at: u64) -> u32 {
        let word = session.shmem().read(self.memory.offset + at, 4);
        u32::from_le_bytes([word[0], word[1], word[2], word[3]])
    }

    /// Says that commands have been written up to `tail`, and wakes the thread if it sleeps.
    ///
    /// # Errors
    /// As the command that it sends for this.
    pub fn publish(&mut self, session: &mut Session, tail: u32) -> Result<()> {
        self.tail = tail;
        fence(Ordering::SeqCst);
        let at = self.memory.offset + self.layout.tail;
        session.shmem().write(at, &tail.to_le_bytes());
        // The thread says that it sleeps before it looks a last time.
        fence(Ordering::SeqCst);
        if self.load(session, self.layout.status) & IDLE == 0 {
            return Ok(());
        }
        let notify = Words::command(cmd::NOTIFY_RING)
            .u64(self.id)
            .u32(tail)
            .u32(0);
        session.gpu.submit_3d(self.context, notify.bytes())
    }

    /// Writes bytes into the ring; the tail that publishes them.
    pub fn write(&self, session: &Session, bytes: &[u8]) -> u32 {
        let start = u64::from(self.tail) % self.layout.buffer_size;
        let before_end = (self.layout.buffer_size - start).min(bytes.len() as u64) as usize;
        let (first, wrapped) = bytes.split_at(before_end);
        let buffer = self.memory.offset + self.layout.buffer;
        session.shmem().write(buffer + start, first);
        session.shmem().write(buffer, wrapped);
        self.tail.wrapping_add(bytes.len() as u32)
    }

    /// Whether the renderer has read all; `Err` once it has given up.
    ///
    /// # Errors
    /// [`Error::Protocol`].
    pub fn drained(&self, session: &Session) -> Result<bool> {
        if self.load(session, self.layout.status) & FATAL != 0 {
            return Err(Error::Protocol("the ring's thread has ended".to_owned()));
        }
        Ok(self.load(session, self.layout.head) == self.tail)
    }

    /// Sends commands (at most [`Layout::BUFFER`] bytes) and waits until they have been read.
    ///
    /// # Errors
    /// As [`Ring::publish`] and [`Ring::drained`]; [`Error::Timeout`].
    pub fn run(&mut self, session: &mut Session, commands: &Words) -> Result<()> {
        let tail = self.write(session, commands.bytes());
        self.publish(session, tail)?;
        let deadline = Deadline::default();
        while !self.drained(session)? {
            deadline.left("a ring of Venus to be read")?;
            std::thread::yield_now();
        }
        fence(Ordering::SeqCst);
        Ok(())
    }

    /// Sends a command and reads the reply.
    ///
    /// # Errors
    /// As [`Ring::run`]; [`Error::Protocol`] without a reply.
    pub fn call(&mut self, session: &mut Session, command: Words) -> Result<Reply> {
        let kind = command.kind();
        session.shmem().write(self.replies.offset, &NO_REPLY);
        let seek = Words::command(cmd::SEEK_REPLY_COMMAND_STREAM).u64(0);
        self.run(session, &seek.then(&command.replied()))?;
        Reply::new(kind, session.shmem().read(self.replies.offset, REPLY))
    }
}
