//! What happens to the requests of one queue: copied, parsed, executed, answered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nosnoop_protocol::command::{Command, Header, Request};
use nosnoop_protocol::reply::{GpuError, Reply, encode};
use nosnoop_protocol::wire::VirtioGpuRespMapInfo;
use vm_memory::GuestAddressSpace;

use super::chain::{Buffers, MIN_RESPONSE};
use super::ring::{Completion, Ring};
use super::timeline::Timelines;
use crate::device::{Batch, Device, Verdict};
use crate::guest::Ram;
use crate::planted::{Bug, planted};
use crate::{GuestMemory, SharedGuestMemory};

/// How long an answer may wait for those of commands behind it, to be told together. Notifying a
/// guest costs it an interrupt and us a system call, some microseconds, so a dozen small commands
/// share one. With a longer wait a guest that keeps the ring full and this side would take turns
/// instead of working at the same time.
const SIGNAL_AFTER: Duration = Duration::from_micros(5);

/// Bytes of the response to `RESOURCE_MAP_BLOB`.
const MAP_RESPONSE: usize = size_of::<VirtioGpuRespMapInfo>();

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
pub struct Worker {
    kind: QueueKind,
    buffers: Buffers,
    batch: Batch,
    timelines: Arc<Timelines>,
    /// When the guest is to be told of what is completed, if there is anything.
    signal_at: Option<Instant>,
}

impl Worker {
    /// A worker for one queue.
    #[must_use]
    pub fn new(kind: QueueKind) -> Self {
        Self {
            kind,
            buffers: Buffers::default(),
            batch: Batch::default(),
            timelines: Arc::default(),
            signal_at: None,
        }
    }

    /// Completes every request in the ring, those included that come meanwhile, until there is
    /// none or the ring is stopped.
    pub fn drain(&mut self, ring: &Ring, device: &Device, memory: &SharedGuestMemory) {
        loop {
            // The table is let go of each time: the front-end may take memory away at any moment.
            let waiting = ring.waiting(&Ram::new(&memory.memory()));
            let Some(waiting) = waiting else { break };
            if waiting == 0 && !ring.rearm(&Ram::new(&memory.memory())) {
                break;
            }
            self.batch.clear();
            for _ in 0..waiting {
                if !self.step(ring, device, memory) {
                    break;
                }
            }
            self.signal(ring, &Ram::new(&memory.memory()));
        }
    }

    /// One request; false if there was none to take.
    fn step(&mut self, ring: &Ring, device: &Device, shared: &SharedGuestMemory) -> bool {
        let memory = &*shared.memory();
        let ram = &Ram::new(memory);
        let Some(completion) = ring.pop(ram, &mut self.buffers) else {
            return false;
        };
        if self.buffers.malformed() {
            if planted(Bug::MalformedChainFatal) {
                std::process::abort();
            }
            log::debug!(
                "{:?} queue: a malformed descriptor chain is returned",
                self.kind
            );
            completion.complete(0, ram);
            self.completed(ring, ram);
        } else if self.answer(completion, ring, device, (memory, ram, shared)) {
            self.completed(ring, ram);
        }
        true
    }

    /// A request has been completed: the guest is to be told, soon.
    fn completed(&mut self, ring: &Ring, memory: &Ram<'_>) {
        let now = Instant::now();
        let after = || now.checked_add(SIGNAL_AFTER).unwrap_or(now);
        if now >= *self.signal_at.get_or_insert_with(after) {
            self.signal(ring, memory);
        }
    }

    /// Executes the request in the buffers and answers it, now with the memory of this moment or
    /// later with that of then; whether it has been completed.
    fn answer(
        &mut self,
        completion: Completion<'_>,
        ring: &Ring,
        device: &Device,
        (memory, ram, shared): (&GuestMemory, &Ram<'_>, &SharedGuestMemory),
    ) -> bool {
        let room = self.buffers.room();
        // A response is mandatory on the control queue. Without room for one nobody would learn
        // what became of the command, so it is not executed. Drivers give none on the cursor queue.
        if room < MIN_RESPONSE && self.kind == QueueKind::Control {
            completion.complete(0, ram);
            return true;
        }
        // Taken out of `self` for the borrow; an empty Vec does not allocate.
        let bytes = std::mem::take(&mut self.buffers.request);
        let request = Request::parse(&bytes);
        let verdict = match (request.command, self.kind) {
            (Err(_), _) if planted(Bug::UnknownCommandSucceeds) => {
                Verdict::Done(Ok(Reply::OkNoData))
            }
            // Longer requests that are wrong only get their error.
            (Err(_), _) if planted(Bug::ShortRequestFatal) && bytes.len() < 40 => {
                std::process::abort()
            }
            (Err(error), _) => Verdict::Done(Err(error)),
            (Ok(command), QueueKind::Control) => {
                if !self.batch.knows(&command) || may_flush(&command) {
                    // May wait for the front-end, or take long: what is done must not wait with it.
                    self.signal(ring, ram);
                }
                if matches!(command, Command::ResourceMapBlob { .. }) && room < MAP_RESPONSE {
                    // A guest that does not learn of a mapping would never unmap it.
                    Verdict::Done(Err(GpuError::Unspec))
                } else {
                    device.control(&command, request.header.fence(), memory, &mut self.batch)
                }
            }
            (Ok(command), QueueKind::Cursor) => Verdict::Done(device.cursor(&command, memory)),
        };
        let header = request.header;
        self.buffers.request = bytes;
        match verdict {
            Verdict::Done(result) => {
                if let Err(error) = &result {
                    log::debug!("{:?} queue: a command failed: {error}", self.kind);
                }
                if let Some(place) = self.timelines.queue(&header) {
                    let later = self.later(completion, header, shared);
                    self.timelines.deliver(Some(place), move || later(result));
                    return false;
                }
                encode_fitting(&header, &result, room, &mut self.buffers.response);
                let written = if room < MIN_RESPONSE {
                    0
                } else {
                    self.buffers.write_response(ram)
                };
                completion.complete(written, ram);
                true
            }
            Verdict::Parked(ticket) => {
                let place = self.timelines.park(&header);
                let later = self.later(completion, header, shared);
                let timelines = Arc::clone(&self.timelines);
                let answer = move |result| {
                    timelines.deliver(place, move || later(result));
                };
                device.when_done(ticket, Box::new(answer));
                false
            }
        }
    }

    /// What takes a result to the guest later.
    fn later(
        &self,
        completion: Completion<'_>,
        header: Header,
        shared: &SharedGuestMemory,
    ) -> impl FnOnce(Result<Reply, GpuError>) + Send + 'static {
        let held = completion.hold();
        let place = self.buffers.place();
        let shared = shared.clone();
        move |result| {
            let mut response = Vec::new();
            encode_fitting(&header, &result, place.room(), &mut response);
            let memory = shared.memory();
            let ram = Ram::new(&memory);
            let written = place.write(&response, &ram);
            held.complete(written, &ram);
        }
    }

    fn signal(&mut self, ring: &Ring, memory: &Ram<'_>) {
        if self.signal_at.take().is_some() {
            ring.notify(memory);
        }
    }
}

/// Whether all of a blob's memory may have to be flushed from the caches for a command, which takes
/// some tenths of a second for each GiB.
fn may_flush(command: &Command<'_>) -> bool {
    matches!(
        command,
        Command::ResourceMapBlob { .. }
            | Command::ResourceUnref { .. }
            | Command::CtxDestroy { .. }
    )
}

/// The response to a request, or an error in its place where the guest leaves too little `room`.
fn encode_fitting(
    header: &Header,
    result: &Result<Reply, GpuError>,
    room: usize,
    response: &mut Vec<u8>,
) {
    encode(header, result, response);
    if response.len() > room {
        encode(header, &Err(GpuError::Unspec), response);
    }
    #[cfg(feature = "test-bugs")]
    crate::planted::spoil(response);
}
