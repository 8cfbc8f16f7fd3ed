//! A guest's channel to a Wayland compositor of the host, as sommelier uses one.

use std::time::Duration;

use super::cross_domain::{
    self, CAPSET, CHANNEL_RING, CMD_READ, CMD_RECEIVE, SEND_HEADER, WAYLAND, WRITE_HEADER,
    ring_blob,
};
use super::driver::Gpu;
use super::error::{Error, Result, patience};
use super::memory::{PAGE, Span};
use super::message::u32_at;
use super::queue::Ticket;
use super::response::{HEADER, resp};
use super::three_d::{Line, fenced_submit};

/// What the channel ring holds when a fence is signalled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A message of the compositor, with what stands for its descriptors: number, type and size.
    Receive(Vec<u8>, Vec<(u32, u32, u32)>),
    /// Bytes from a pipe, and whether it has ended.
    Read(u32, Vec<u8>, bool),
}

impl Record {
    /// Reads the channel ring.
    ///
    /// # Errors
    /// [`Error::Protocol`] for what is no record.
    pub fn from_bytes(ring: &[u8]) -> Result<Self> {
        let wrong = |what: &str| Error::Protocol(format!("no record in the ring: {what}"));
        let word = |at: usize| u32_at(ring, at);
        let part = |header: usize, len: u32| {
            let bytes = ring.get(header..header + len as usize);
            bytes
                .map(<[u8]>::to_vec)
                .ok_or_else(|| wrong("more bytes than the ring has"))
        };
        match ring[0] {
            CMD_RECEIVE => {
                let count = word(8) as usize;
                if count > 28 {
                    return Err(wrong("more identifiers than there can be"));
                }
                let column = |column: usize, at: usize| word(16 + 112 * column + 4 * at);
                let ids = (0..count).map(|at| (column(0, at), column(1, at), column(2, at)));
                let ids = ids.collect();
                Ok(Record::Receive(part(SEND_HEADER, word(12))?, ids))
            }
            CMD_READ => {
                let bytes = part(WRITE_HEADER, word(16))?;
                Ok(Record::Read(word(8), bytes, word(12) != 0))
            }
            other => Err(wrong(&format!("command {other}"))),
        }
    }
}

/// A cross-domain context with a channel.
#[derive(Debug)]
pub struct Channel {
    /// Context id.
    pub id: u32,
    /// The channel ring's memory.
    pub memory: Span,
    /// The query ring's memory.
    pub query: Span,
    /// Of the command whose fence waits.
    waiting: Option<Ticket>,
    fence: u64,
}

impl Channel {
    /// Makes a context, its rings (resources `ring` and the next), and opens its channel.
    ///
    /// # Errors
    /// [`Error::Refused`] for any step.
    pub fn new(gpu: &mut Gpu, id: u32, ring: u32) -> Result<Self> {
        let channel = Self::without_init(gpu, id, ring)?;
        gpu.submit_3d(id, &cross_domain::init(ring, ring + 1, WAYLAND))?;
        Ok(channel)
    }

    /// As [`Self::new`] up to and without INIT.
    ///
    /// # Errors
    /// [`Error::Refused`] for any step.
    pub fn without_init(gpu: &mut Gpu, id: u32, ring: u32) -> Result<Self> {
        gpu.create_context(id, CAPSET)?;
        let query = ring_blob(gpu, ring, PAGE)?;
        let memory = ring_blob(gpu, ring + 1, PAGE)?;
        gpu.attach_resource(id, ring)?;
        gpu.attach_resource(id, ring + 1)?;
        Ok(Channel {
            id,
            memory,
            query,
            waiting: None,
            fence: 0,
        })
    }

    /// Sends a message; see [`cross_domain::send`].
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn send(&self, gpu: &mut Gpu, bytes: &[u8], ids: &[(u32, u32)]) -> Result<()> {
        gpu.submit_3d(self.id, &cross_domain::send(bytes, ids))
    }

    /// Asks for the next event, if that has not been done.
    ///
    /// # Errors
    /// Out of descriptors or memory.
    pub fn poll(&mut self, gpu: &mut Gpu) -> Result<()> {
        if self.waiting.is_none() {
            self.fence += 1;
            let line = Line::Ring(CHANNEL_RING);
            let request = fenced_submit(self.id, &cross_domain::poll(), self.fence, line);
            self.waiting = Some(gpu.control.submit(&request, HEADER)?);
            gpu.control.kick()?;
        }
        Ok(())
    }

    /// The next event. Waits for it.
    ///
    /// # Errors
    /// [`Error::Timeout`]; [`Error::Refused`]; [`Error::Protocol`] for what is no record.
    pub fn event(&mut self, gpu: &mut Gpu) -> Result<Record> {
        self.poll(gpu)?;
        self.signalled(gpu)?;
        let ring = gpu.ram.read(self.memory.addr, PAGE as usize)?;
        Record::from_bytes(&ring)
    }

    /// Waits until the fence is signalled.
    ///
    /// # Errors
    /// [`Error::Timeout`]; [`Error::Refused`].
    pub fn signalled(&mut self, gpu: &mut Gpu) -> Result<()> {
        if let Some(ticket) = self.waiting {
            let response = gpu.control.wait(ticket)?;
            self.waiting = None;
            response.expect("CROSS_DOMAIN_CMD_POLL", resp::OK_NODATA)?;
        }
        Ok(())
    }

    /// Whether no event comes for a tenth of a second.
    ///
    /// # Errors
    /// As [`Self::poll`].
    pub fn is_quiet(&mut self, gpu: &mut Gpu) -> Result<bool> {
        self.poll(gpu)?;
        gpu.control.set_patience(Duration::from_millis(100));
        let signalled = self.signalled(gpu);
        gpu.control.set_patience(patience());
        match signalled {
            Err(error) if error.is_timeout() => Ok(true),
            other => other.map(|()| false),
        }
    }

    /// A message's bytes and descriptors.
    ///
    /// # Errors
    /// As [`Self::event`], and [`Error::Protocol`] for another event.
    #[expect(clippy::type_complexity, reason = "what Record::Receive holds")]
    pub fn receive(&mut self, gpu: &mut Gpu) -> Result<(Vec<u8>, Vec<(u32, u32, u32)>)> {
        match self.event(gpu)? {
            Record::Receive(bytes, ids) => Ok((bytes, ids)),
            other => Err(Error::Protocol(format!("{other:?} in place of a message"))),
        }
    }
}
