//! What happens to the requests of one queue: copied, parsed, executed, answered.

use nosnoop_protocol::command::{Command, Request};
use nosnoop_protocol::reply::{GpuError, encode};
use vm_memory::GuestAddressSpace;

use super::chain::{Buffers, MIN_RESPONSE};
use super::ring::Ring;
use crate::device::{Batch, Device};
use crate::{GuestMemory, SharedGuestMemory};

/// The queues of a GPU device (virtio 1.4, "GPU Device / Virtqueues"); values are queue indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueKind {
    /// Everything but the cursor.
    Control = 0,
    /// Cursor updates, kept apart so that the cursor moves while the control queue is busy.
    Cursor = 1,
}

impl QueueKind {
    /// All queues in the order of their indices.
    pub const ALL: [Self; 2] = [Self::Control, Self::Cursor];
}

/// Works on one queue. Holds what is kept from request to request.
#[derive(Debug)]
pub struct Worker {
    kind: QueueKind,
    buffers: Buffers,
    batch: Batch,
    /// Requests have been completed that the guest has not been told of.
    unsignalled: bool,
}

impl Worker {
    /// A worker for one queue.
    #[must_use]
    pub fn new(kind: QueueKind) -> Self {
        Self {
            kind,
            buffers: Buffers::default(),
            batch: Batch::default(),
            unsignalled: false,
        }
    }

    /// Completes every request in the ring, those included that come meanwhile, until there is
    /// none or the ring is stopped.
    pub fn drain(&mut self, ring: &Ring, device: &Device, memory: &SharedGuestMemory) {
        while let Some(waiting) = ring.waiting(&memory.memory()) {
            if waiting == 0 && !ring.rearm(&memory.memory()) {
                break;
            }
            self.batch.clear();
            for _ in 0..waiting {
                if !self.step(ring, device, &memory.memory()) {
                    break;
                }
            }
            self.signal(ring);
        }
    }

    /// One request; false if there was none to take.
    fn step(&mut self, ring: &Ring, device: &Device, memory: &GuestMemory) -> bool {
        let Some(completion) = ring.pop(memory, &mut self.buffers) else {
            return false;
        };
        let written = if self.buffers.malformed() {
            log::debug!(
                "{:?} queue: a malformed descriptor chain is returned",
                self.kind
            );
            0
        } else {
            self.answer(ring, device, memory)
        };
        completion.complete(written);
        self.unsignalled = true;
        true
    }

    /// Executes the request in the buffers and writes the response; returns its length.
    fn answer(&mut self, ring: &Ring, device: &Device, memory: &GuestMemory) -> u32 {
        let room = self.buffers.room();
        // A response is mandatory on the control queue. Without room for one nobody would learn
        // what became of the command, so it is not executed. Drivers give none on the cursor queue.
        if room < MIN_RESPONSE && self.kind == QueueKind::Control {
            return 0;
        }
        // Taken out of `self` for the borrow; an empty Vec does not allocate.
        let bytes = std::mem::take(&mut self.buffers.request);
        let request = Request::parse(&bytes);
        let result = request.command.and_then(|command| match self.kind {
            QueueKind::Control => {
                if matches!(command, Command::GetDisplayInfo | Command::GetEdid { .. }) {
                    // May wait for the front-end: what is done must not wait with it.
                    self.signal(ring);
                }
                device.control(&command, memory, &mut self.batch)
            }
            QueueKind::Cursor => device.cursor(&command, memory),
        });
        if let Err(error) = &result {
            log::debug!("{:?} queue: a command failed: {error}", self.kind);
        }
        encode(&request.header, &result, &mut self.buffers.response);
        if self.buffers.response.len() > room {
            encode(
                &request.header,
                &Err(GpuError::Unspec),
                &mut self.buffers.response,
            );
        }
        self.buffers.request = bytes;
        if room < MIN_RESPONSE {
            0
        } else {
            self.buffers.write_response(memory)
        }
    }

    fn signal(&mut self, ring: &Ring) {
        if std::mem::take(&mut self.unsignalled) {
            ring.notify();
        }
    }
}
