//! Channels of cross-domain contexts: a guest's Wayland clients talk to a compositor of the host, whose
//! socket `--wayland-socket` names.
//!
//! rutabaga's own cross-domain component is not used: it cannot send blobs of our allocators, and its
//! worker ends at the first error with its fences unsignalled for ever. What guests see is the same:
//! sommelier, wayland-proxy-virtwl and wl-cross-domain-proxy were read for what they rely on.
//!
//! A submission whose fence is on the channel's ring is parked until something comes: a message of the
//! compositor, bytes in a pipe that the guest reads, or the end of one of these. It is written to the
//! channel ring as one record, and that fence is signalled: one event for each fence, the rest waits.
//! [`inlet`] reads, [`outlet`] sends, and neither ever waits; [`watcher`] is the thread that does, for all
//! channels of a device. Nothing here speaks Wayland.
//!
//! * Descriptors from the compositor: a file becomes a copy in memory of ours, which the guest makes a
//!   blob of by its `blob_id`, once. (The file itself may be sealed or shared with others.) The writing
//!   end of a pipe is a pipe for the guest to write. All else (dma-bufs, sockets, sync files, what is
//!   beyond a limit) becomes a pipe that nobody reads: known guests end the client at a descriptor of a
//!   type that they do not know, and lose count when one is missing.
//! * A compositor that has gone is a message of no bytes, for this fence and every later one.
//! * When the device's rings are stopped, parked fences are signalled with a message of no bytes, as the
//!   ring would show the last record again.
//! * Memory that was sent counts against the guest's quota while it is a resource. What the compositor
//!   keeps of it longer counts for nobody.

mod inlet;
mod outlet;
mod poll;
mod record;
mod watcher;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use nosnoop_protocol::command::Fence;
use nosnoop_protocol::cross_domain::channel::{self, PipeId, Send, Sent, Write};
use nosnoop_protocol::ids::{BlobId, ContextId, ResourceId};
use nosnoop_protocol::reply::{GpuError, Reply};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use vm_memory::GuestAddressSpace;

use self::inlet::{Event, Inlet};
use self::outlet::Outlet;
use self::watcher::Watcher;
use super::context::ContextSerial;
use super::park::{Promise, Ticket};
use super::resource::Storage;
use super::{Device, Effect, State, Verdict};
use crate::SharedGuestMemory;
use crate::memory::alloc::HostMemory;

/// Channels of one device: a guest has one for each of its Wayland clients, or one for all of them. Each
/// costs three descriptors, and [`outlet::MAX_BACKLOG`] of memory while the compositor does not read.
const MAX_CHANNELS: usize = 32;

/// Descriptors of one channel that came from the compositor and are not used up yet, and pipes:
/// as many as come with one message. A pipe that the guest reads counts twice.
const MAX_ITEMS: usize = channel::MAX_IDENTIFIERS;

/// The same for all channels of a device.
const MAX_ALL_ITEMS: usize = 256;

/// Descriptors that channels may take: each channel's own, all items, and a message on its way.
pub(crate) const MAX_DESCRIPTORS: u64 =
    (3 * MAX_CHANNELS + MAX_ALL_ITEMS + 2 * channel::MAX_IDENTIFIERS) as u64;

/// Bytes of a record, header and all. What reads the ring has buffers of this size, as rutabaga sends
/// no more.
pub(super) const MAX_RECORD: u16 = 4096;

/// `blob_id`s and pipes' numbers that channels give out: not those of images, and below those of pipes
/// that the guest reads.
const FIRST_ID: u32 = 1 << 16;
const LAST_ID: u32 = (1 << 30) - 1;

/// Where channels lead.
#[derive(Clone)]
pub struct Wayland {
    /// The compositor's socket.
    pub socket: PathBuf,
    /// The guest's memory, in which the channels' rings are.
    pub memory: SharedGuestMemory,
}

/// All channels of a device.
pub(super) struct Channels {
    table: HashMap<ContextSerial, Channel>,
    watcher: Option<Arc<Watcher>>,
    device: Weak<Device>,
}

/// The channel of a context.
struct Channel {
    context: ContextId,
    ring: ResourceId,
    inlet: Arc<Inlet>,
    outlet: Outlet,
    /// What came from the compositor, by the `blob_id` that it can be made a resource by.
    memory: HashMap<u32, HostMemory>,
    last_id: u32,
    /// They wait for an event, in order.
    fences: VecDeque<Ticket>,
    /// Was read for a fence that is no more. Goes to the next one.
    pending: Option<Event>,
}

impl std::fmt::Debug for Channels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Channels({})", self.table.len())
    }
}

impl Channels {
    pub(super) fn new(device: Weak<Device>) -> Self {
        Self {
            table: HashMap::new(),
            watcher: None,
            device,
        }
    }

    /// Closes all of them. Their fences have been, or will be, given up.
    pub(super) fn close(&mut self) {
        self.table.clear();
    }

    /// Bytes of memory that came from the compositor and are no resources yet.
    pub(super) fn received_bytes(&self) -> u64 {
        let channels = self.table.values();
        channels.fold(0, |sum, channel| {
            sum.saturating_add(channel.received_bytes())
        })
    }

    /// The size of what this `blob_id` stands for.
    pub(super) fn received_size(&self, context: ContextSerial, id: BlobId) -> Option<u64> {
        let memory = &self.table.get(&context)?.memory;
        memory.get(&u32::try_from(id.0).ok()?).map(HostMemory::len)
    }

    /// Takes it.
    pub(super) fn take_received(
        &mut self,
        context: ContextSerial,
        id: BlobId,
    ) -> Option<HostMemory> {
        let memory = &mut self.table.get_mut(&context)?.memory;
        memory.remove(&u32::try_from(id.0).ok()?)
    }

    fn items(&self) -> usize {
        let channels = self.table.values();
        channels.fold(0, |sum, channel| sum.saturating_add(channel.items()))
    }

    fn watcher(&mut self) -> io::Result<Arc<Watcher>> {
        match &self.watcher {
            Some(watcher) => Ok(Arc::clone(watcher)),
            None => {
                let watcher = Watcher::start(Weak::clone(&self.device))?;
                Ok(Arc::clone(self.watcher.insert(watcher)))
            }
        }
    }

    /// # Errors
    /// `InvalidParameter` without one.
    fn get_mut(&mut self, context: ContextSerial) -> Result<&mut Channel, GpuError> {
        let channel = self.table.get_mut(&context);
        channel.ok_or(GpuError::InvalidParameter)
    }
}

impl Drop for Channels {
    fn drop(&mut self) {
        if let Some(watcher) = &self.watcher {
            watcher.stop();
        }
    }
}

impl Channel {
    fn items(&self) -> usize {
        let pipes = self.inlet.pipes().saturating_mul(2);
        let kept = self.memory.len().saturating_add(self.outlet.pipes());
        pipes.saturating_add(kept)
    }

    fn received_bytes(&self) -> u64 {
        let memory = self.memory.values();
        memory.fold(0, |sum, memory| sum.saturating_add(memory.len()))
    }

    /// A number that nothing has.
    fn fresh_id(&mut self) -> PipeId {
        loop {
            self.last_id = match self.last_id {
                LAST_ID => FIRST_ID,
                last => last.saturating_add(1),
            };
            let id = self.last_id;
            let free = !self.memory.contains_key(&id) && !self.outlet.has(id);
            if let Some(id) = PipeId::written_by_guest(id).filter(|_| free) {
                return id;
            }
        }
    }
}

impl State {
    /// Where channels lead.
    pub(super) fn wayland(&self) -> Option<&Wayland> {
        self.shared_memory.as_ref()?.wayland.as_ref()
    }

    /// Connects a context to the compositor.
    ///
    /// # Errors
    /// `InvalidParameter` if there is none; `OutOfMemory` for too many; `Unspec` if it does not answer.
    pub(super) fn open_channel(
        &mut self,
        context: ContextId,
        serial: ContextSerial,
        ring: ResourceId,
    ) -> Result<(), GpuError> {
        let path = self.wayland().ok_or(GpuError::InvalidParameter)?;
        let path = path.socket.clone();
        if self.channels.table.len() >= MAX_CHANNELS {
            return Err(GpuError::OutOfMemory);
        }
        let connected = inlet::connect(&path).and_then(|socket| {
            let watcher = self.channels.watcher()?;
            let inlet = Arc::new(Inlet::new(socket.try_clone()?)?);
            watcher.add(serial, &inlet)?;
            Ok((inlet, Outlet::new(socket, serial, watcher)))
        });
        let (inlet, outlet) = connected.map_err(|error| {
            log::warn!(
                "a guest's Wayland client is refused: cannot connect to {}: {error}; is the compositor \
                 of --wayland-socket running?",
                path.display()
            );
            GpuError::Unspec
        })?;
        let channel = Channel {
            context,
            ring,
            inlet,
            outlet,
            memory: HashMap::new(),
            last_id: LAST_ID,
            fences: VecDeque::new(),
            pending: None,
        };
        self.channels.table.insert(serial, channel);
        Ok(())
    }

    /// Sends a message with what stands for its descriptors.
    ///
    /// # Errors
    /// Nothing is sent then. `InvalidParameter` without a channel, for a resource that is no host blob
    /// with a file of its own, and for a pipe's number that is taken; `InvalidResourceId` for one that
    /// the context does not have; `OutOfMemory` for too many pipes, and while the compositor does not
    /// read; `Unspec` when it has gone.
    pub(super) fn send(&mut self, context: ContextId, send: &Send<'_>) -> Result<(), GpuError> {
        let known = self.contexts.get_mut(context)?;
        let room = MAX_ALL_ITEMS.saturating_sub(self.channels.items());
        let channel = self.channels.get_mut(known.serial)?;
        let mut room = room.min(MAX_ITEMS.saturating_sub(channel.items()));
        let mut descriptors: Vec<Arc<OwnedFd>> = Vec::new();
        let mut pipes = Vec::new();
        for sent in send.descriptors() {
            match sent {
                Sent::Blob(id) => {
                    if !known.has(id) {
                        return Err(GpuError::InvalidResourceId);
                    }
                    let Storage::HostBlob(blob) = &self.resources.get(id)?.storage else {
                        return Err(GpuError::InvalidParameter);
                    };
                    let file = blob.memory().memory().whole_file();
                    descriptors.push(file.ok_or(GpuError::InvalidParameter)?);
                }
                Sent::ReadPipe(id) => {
                    let taken = pipes.iter().any(|(other, _)| *other == id);
                    if taken || channel.inlet.has_pipe(id) {
                        return Err(GpuError::InvalidParameter);
                    }
                    room = room.checked_sub(2).ok_or(GpuError::OutOfMemory)?;
                    let (read, write) = pipe().map_err(|error| host_error(error.into()))?;
                    descriptors.push(Arc::new(write));
                    pipes.push((id, read));
                }
            }
        }
        channel.outlet.send(send.data, descriptors)?;
        for (id, read) in pipes {
            channel.inlet.add_pipe(id, read).map_err(host_error)?;
        }
        Ok(())
    }

    /// Writes into a pipe that came from the compositor.
    ///
    /// # Errors
    /// `InvalidParameter` for one that is not there; `OutOfMemory` if nobody reads it, and it is closed
    /// then: better an end than a gap.
    pub(super) fn write_pipe(
        &mut self,
        context: ContextId,
        write: &Write<'_>,
    ) -> Result<(), GpuError> {
        let serial = self.contexts.get_mut(context)?.serial;
        self.channels.get_mut(serial)?.outlet.write(write)
    }

    /// Ends a submission that has been executed: with a fence that waits for the context's channel it is
    /// parked.
    pub(super) fn fence_submission(
        &mut self,
        context: ContextSerial,
        fence: Option<Fence>,
        effects: &mut Vec<Effect>,
    ) -> Verdict {
        let waits =
            fence.is_some_and(|fence| fence.ring.is_some_and(|ring| ring.get() == channel::RING));
        match self.channels.table.get_mut(&context) {
            Some(channel) if waits => {
                let ticket = self.parked.open(Promise::Success);
                channel.fences.push_back(ticket);
                self.settle(context, effects);
                Verdict::Parked(ticket)
            }
            _ => Verdict::Done(Ok(Reply::OkNoData)),
        }
    }

    /// The context has gone, its channel with it.
    pub(super) fn close_channel(&mut self, context: ContextSerial, effects: &mut Vec<Effect>) {
        let channel = self.channels.table.remove(&context);
        for ticket in channel.into_iter().flat_map(|channel| channel.fences) {
            let answer = self.parked.resolve(ticket, Ok(Reply::OkNoData));
            effects.extend(answer.map(Effect::Answer));
        }
    }

    /// All parked commands are about to be given up: what guests find in the ring must not be the last
    /// record again.
    pub(super) fn empty_channel_rings(&mut self) {
        let channels: Vec<_> = self.channels.table.keys().copied().collect();
        for serial in channels {
            let Some(channel) = self.channels.table.get_mut(&serial) else {
                continue;
            };
            if !std::mem::take(&mut channel.fences).is_empty() {
                let ring = (channel.context, channel.ring);
                // A ring that cannot be written shows nothing.
                let _ = self.write_ring(ring, &record::empty());
            }
        }
    }

    /// Brings what is pending to the fences that wait, and has the rest wait on.
    fn settle(&mut self, serial: ContextSerial, effects: &mut Vec<Effect>) {
        // Taken out, as the device's other parts are needed too.
        let Some(mut channel) = self.channels.table.remove(&serial) else {
            return;
        };
        while let Some(event) = channel.pending.take() {
            let Some(ticket) = channel.fences.pop_front() else {
                channel.pending = Some(event);
                break;
            };
            let result = match self.bring(&mut channel, event) {
                Ok(()) => Ok(Reply::OkNoData),
                Err((error, event)) => {
                    channel.pending = Some(event);
                    Err(error)
                }
            };
            let answer = self.parked.resolve(ticket, result);
            effects.extend(answer.map(Effect::Answer));
        }
        if !channel.fences.is_empty()
            && let Some(watcher) = &self.channels.watcher
        {
            watcher.arm(serial, &channel.inlet);
        }
        self.channels.table.insert(serial, channel);
    }

    /// Writes to the start of a channel's ring.
    ///
    /// # Errors
    /// `InvalidResourceId` or `InvalidParameter` if the ring is not what it was, `Unspec` if it cannot be
    /// written.
    fn write_ring(
        &mut self,
        (context, ring): (ContextId, ResourceId),
        record: &[u8],
    ) -> Result<(), GpuError> {
        let memory = self.wayland().ok_or(GpuError::Unspec)?.memory.memory();
        if !self.contexts.get_mut(context)?.has(ring) {
            return Err(GpuError::InvalidResourceId);
        }
        self.write_answer(ring, record, &memory)
    }
}

impl Device {
    /// Something has come for a channel that a fence waits for.
    fn channel_ready(&self, serial: ContextSerial) {
        let inlet = match self.state().channels.table.get(&serial) {
            Some(channel) if !channel.fences.is_empty() => Arc::clone(&channel.inlet),
            _ => return,
        };
        // With nothing locked: a file to be copied may be long, and on a disk.
        let event = inlet.next();
        self.parking(|state, effects| {
            if let Some(channel) = state.channels.table.get_mut(&serial) {
                // Nothing else is pending: this thread alone reads, and does so for a fence.
                channel.pending = event.or(channel.pending.take());
                state.settle(serial, effects);
            }
        });
    }

    /// There is room again for what a channel could not send.
    fn channel_has_room(&self, serial: ContextSerial) {
        if let Some(channel) = self.state().channels.table.get_mut(&serial) {
            channel.outlet.flush();
        }
    }
}

/// A pipe, whose end to read does not wait.
fn pipe() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&read, true)?;
    Ok((read, write))
}

/// What the guest is told when the host has no descriptors or memory left.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn host_error(error: io::Error) -> GpuError {
    match Errno::from_io_error(&error) {
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS | Errno::TOOMANYREFS) => {
            log::warn!("a guest's Wayland message is refused: {error}");
            GpuError::OutOfMemory
        }
        _ => {
            log::debug!("a channel: {error}");
            GpuError::Unspec
        }
    }
}

#[cfg(test)]
mod tests;
