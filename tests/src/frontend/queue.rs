//! Commands over a ring: buffers for request and response, many in flight, responses read back.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::error::{Deadline, Error, Result, patience};
use super::memory::{GuestRam, Span};
use super::response::Response;
use super::ring::{DESC_INDIRECT, DESC_WRITE, Descriptor, SplitRing};

/// How a command is laid out in descriptors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainShape {
    /// Cut the request into parts of these lengths; what is left is one last part.
    pub request_cuts: Vec<usize>,
    /// Cut the response buffer likewise.
    pub response_cuts: Vec<usize>,
    /// Put the descriptors into an indirect table.
    pub indirect: bool,
}

/// Names one command in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(u64);

#[derive(Debug)]
struct Pending {
    ticket: Ticket,
    response: Vec<Span>,
    buffers: Vec<Span>,
}

/// A ring with the buffers of the commands on it.
#[derive(Debug)]
pub struct CommandQueue {
    ram: Arc<GuestRam>,
    ring: SplitRing,
    pending: HashMap<u16, Pending>,
    done: HashMap<Ticket, Response>,
    next_ticket: u64,
    patience: Duration,
}

impl CommandQueue {
    /// Puts command handling on top of a ring.
    pub fn new(ram: Arc<GuestRam>, ring: SplitRing) -> Self {
        CommandQueue {
            ram,
            ring,
            pending: HashMap::new(),
            done: HashMap::new(),
            next_ticket: 0,
            patience: patience(),
        }
    }

    /// The ring below.
    pub fn ring(&mut self) -> &mut SplitRing {
        &mut self.ring
    }

    /// Sets how long to wait for each completion.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Forgets all commands in flight and empties the ring (see [`SplitRing::reset`]).
    ///
    /// # Errors
    /// As [`SplitRing::reset`].
    pub fn reset(&mut self) -> Result<()> {
        for (_, pending) in self.pending.drain() {
            pending
                .buffers
                .into_iter()
                .for_each(|span| self.ram.free(span));
        }
        self.done.clear();
        self.ring.reset()
    }

    /// Submits a command with one buffer for the request and one for the response, without a kick.
    ///
    /// # Errors
    /// Out of guest memory or descriptors.
    pub fn submit(&mut self, request: &[u8], response: usize) -> Result<Ticket> {
        self.submit_shaped(request, response, &ChainShape::default())
    }

    /// Submits a command laid out as `shape` says, without a kick. A response of 0 bytes has no
    /// buffer at all; an empty request has none either.
    ///
    /// # Errors
    /// Out of guest memory or descriptors.
    pub fn submit_shaped(
        &mut self,
        request: &[u8],
        response: usize,
        shape: &ChainShape,
    ) -> Result<Ticket> {
        let mut buffers = Vec::new();
        let mut chain = Vec::new();
        let mut rest = request;
        for len in cut(request.len(), &shape.request_cuts) {
            let (part, tail) = rest.split_at(len);
            let span = self.ram.alloc(len)?;
            self.ram.write(span.addr, part)?;
            chain.push(Descriptor {
                addr: span.addr,
                len: span.len,
                flags: 0,
                next: 0,
            });
            buffers.push(span);
            rest = tail;
        }
        let mut answer = Vec::new();
        for len in cut(response, &shape.response_cuts) {
            let span = self.ram.alloc(len)?;
            self.ram.fill(span.addr, len, Response::UNTOUCHED)?;
            chain.push(Descriptor {
                addr: span.addr,
                len: span.len,
                flags: DESC_WRITE,
                next: 0,
            });
            answer.push(span);
            buffers.push(span);
        }
        let head = if shape.indirect {
            let table = self.indirect_table(&chain)?;
            buffers.push(table);
            let flags = DESC_INDIRECT;
            self.ring.submit(&[Descriptor {
                addr: table.addr,
                len: table.len,
                flags,
                next: 0,
            }])?
        } else {
            self.ring.submit(&chain)?
        };
        Ok(self.track(head, answer, buffers))
    }

    /// Writes an indirect table of the given descriptors, linked in order.
    ///
    /// # Errors
    /// Out of guest memory.
    pub fn indirect_table(&self, chain: &[Descriptor]) -> Result<Span> {
        let table = self.ram.alloc(16 * chain.len())?;
        for (at, descriptor) in chain.iter().enumerate() {
            let mut descriptor = *descriptor;
            if at + 1 < chain.len() {
                descriptor.flags |= super::ring::DESC_NEXT;
                descriptor.next = (at + 1) as u16;
            }
            self.ram
                .write(table.addr + 16 * at as u64, &descriptor.to_bytes())?;
        }
        Ok(table)
    }

    /// Follows a chain that was put on the ring by hand: its response will be read from `answer`,
    /// and `buffers` freed.
    pub fn track(&mut self, head: u16, answer: Vec<Span>, buffers: Vec<Span>) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.pending.insert(
            head,
            Pending {
                ticket,
                response: answer,
                buffers,
            },
        );
        ticket
    }

    /// Kicks the device if it wants to be.
    ///
    /// # Errors
    /// As [`SplitRing::kick`].
    pub fn kick(&mut self) -> Result<()> {
        self.ring.kick()
    }

    /// Waits for one command; completions of others that come first are kept for their own wait.
    ///
    /// # Errors
    /// [`Error::Timeout`], or a broken rule of the used ring.
    pub fn wait(&mut self, ticket: Ticket) -> Result<Response> {
        let deadline = Deadline::after(self.patience);
        loop {
            if let Some(response) = self.done.remove(&ticket) {
                return Ok(response);
            }
            self.complete_one(&deadline)?;
        }
    }

    /// Submits, kicks and waits.
    ///
    /// # Errors
    /// As [`Self::submit`] and [`Self::wait`].
    pub fn call(&mut self, request: &[u8], response: usize) -> Result<Response> {
        self.call_shaped(request, response, &ChainShape::default())
    }

    /// Submits with a layout, kicks and waits.
    ///
    /// # Errors
    /// As [`Self::submit_shaped`] and [`Self::wait`].
    pub fn call_shaped(
        &mut self,
        request: &[u8],
        response: usize,
        shape: &ChainShape,
    ) -> Result<Response> {
        let ticket = self.submit_shaped(request, response, shape)?;
        self.kick()?;
        self.wait(ticket)
    }

    fn complete_one(&mut self, deadline: &Deadline) -> Result<()> {
        let used = self.ring.wait_used(deadline)?;
        let index = self.ring.index();
        let broken = |what: String| Error::Ring { ring: index, what };
        let pending = self
            .pending
            .remove(&used.head)
            .ok_or_else(|| broken(format!("chain {} completed twice", used.head)))?;
        let mut bytes = Vec::new();
        for span in &pending.response {
            bytes.extend(self.ram.read(span.addr, span.len as usize)?);
        }
        if used.len as usize > bytes.len() {
            let room = bytes.len();
            return Err(broken(format!("{} bytes written into {room}", used.len)));
        }
        pending
            .buffers
            .into_iter()
            .for_each(|span| self.ram.free(span));
        self.done
            .insert(pending.ticket, Response::new(bytes, used.len));
        Ok(())
    }
}

/// Lengths of the parts that `total` bytes fall into when cut at the given lengths.
fn cut(total: usize, cuts: &[usize]) -> Vec<usize> {
    let mut left = total;
    let mut parts = Vec::new();
    for len in cuts {
        let len = (*len).min(left);
        if len > 0 {
            parts.push(len);
            left -= len;
        }
    }
    if left > 0 {
        parts.push(left);
    }
    parts
}
