//! `RESOURCE_CREATE_3D`, `TRANSFER_TO_HOST_3D`, `TRANSFER_FROM_HOST_3D` and `SUBMIT_3D` (virtio 1.4,
//! "GPU Device / Device Operation: controlq (3d)"), backings of 3D resources, and what the display
//! shows of them.
//!
//! The renderer is somebody else's library on a thread of its own, which may take its time. So nothing
//! here waits for it with the state locked: a command is checked, the renderer asked, and the state
//! changed. In between nobody else changes what was checked, as only the control queue's worker makes
//! and destroys resources and contexts, and a reset waits for that one.

use std::sync::{Arc, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use nosnoop_protocol::command::{Create3d, Fence, MemEntries, Transfer3d};
use nosnoop_protocol::format::Format;
use nosnoop_protocol::geometry::Rect;
use nosnoop_protocol::ids::{ContextId, ResourceId};
use nosnoop_protocol::reply::{GpuError, Reply};

use super::backing::Backing;
use super::park::{Promise, Ticket};
use super::quota::{MAX_RENDER_SUBMIT, READ_BACK_BYTES, RENDERED_DESCRIPTORS};
use super::rendered::Rendered;
use super::resource::{Resource, Storage};
use super::{Device, Effect, State, Verdict};
use crate::GuestMemory;
use crate::render::fences::Done;
use crate::render::thread::RenderThread;
use crate::render::{Direction, Pinned, RenderError, Timeline};
use crate::sync::lock;

/// How long a ring that is stopped waits for fences: longer than a frame takes, and short enough for
/// a front-end that waits for the answer.
const FENCE_GRACE: Duration = Duration::from_secs(1);

impl Device {
    /// # Errors
    /// `Unspec` without a renderer; `InvalidResourceId` (id taken); `InvalidParameter` for one that is
    /// empty; `OutOfMemory` (a quota); `Unspec` if the renderer refuses.
    pub(super) fn create_3d(&self, create: &Create3d) -> Result<Reply, GpuError> {
        let renderer = self.renderer()?;
        let id = create.resource;
        let rendered = {
            let state = self.state();
            state.resources.check_new(id, &state.limits)?;
            let rendered = Rendered::new(create)?;
            state.check_hostmem(rendered.bytes(), 0)?;
            state.check_descriptors(RENDERED_DESCRIPTORS)?;
            rendered
        };
        let create = *create;
        let made = renderer.call("RESOURCE_CREATE_3D", move |it| it.create_resource(&create));
        made.map_err(|error| refused("RESOURCE_CREATE_3D", &error))?;
        let resource = Resource::new(Storage::Rendered(rendered), None);
        self.state().resources.insert(id, resource);
        Ok(Reply::OkNoData)
    }

    /// # Errors
    /// `InvalidResourceId`; `InvalidParameter` for what is no 3D resource, and for a part that is not
    /// in it; `Unspec` without backing; `InvalidContextId` for a context that is not there or not the
    /// renderer's, and `InvalidResourceId` for one that has not the resource; `Unspec` if the renderer
    /// refuses.
    pub(super) fn transfer_3d(
        &self,
        direction: Direction,
        transfer: &Transfer3d,
    ) -> Result<Reply, GpuError> {
        let renderer = self.renderer()?;
        self.state().check_transfer(transfer)?;
        let transfer = *transfer;
        let done = renderer.call("a transfer", move |it| it.transfer(direction, &transfer));
        done.map_err(|error| refused("a transfer", &error))?;
        Ok(Reply::OkNoData)
    }

    /// Executes a context's commands. With a fence, and if they are the renderer's, the answer comes
    /// when the renderer is done with them.
    ///
    /// # Errors
    /// In the verdict: `InvalidContextId`; `InvalidParameter` for too many bytes, or for the renderer
    /// not whole words; `Unspec` if the renderer refuses them or the fence; for a cross-domain
    /// context see [`State::submit`].
    pub(super) fn submit(
        &self,
        id: ContextId,
        data: &[u8],
        fence: Option<Fence>,
        memory: &GuestMemory,
    ) -> Verdict {
        let (renderer, ticket) = {
            let mut state = self.state();
            let renderer = match (state.contexts.is_rendered(id), self.renderer()) {
                (Err(error), _) => return Verdict::Done(Err(error)),
                (Ok(true), Ok(renderer)) => renderer,
                _ => {
                    drop(state);
                    return self
                        .parking(|state, effects| state.submit(id, data, fence, memory, effects));
                }
            };
            if data.len() > MAX_RENDER_SUBMIT || !data.len().is_multiple_of(4) {
                return Verdict::Done(Err(GpuError::InvalidParameter));
            }
            let ticket = fence.map(|_| state.parked.open(Promise::Fence));
            (renderer, ticket)
        };
        let wanted = ticket.zip(fence).map(|(ticket, fence)| {
            let timeline = match fence.ring {
                Some(ring) => Timeline::Context(id, ring),
                None => Timeline::Global,
            };
            (timeline, self.when_fenced(ticket))
        });
        match (renderer.submit(id, data.to_vec(), wanted), ticket) {
            (Ok(()), Some(ticket)) => Verdict::Parked(ticket),
            (Ok(()), None) => Verdict::Done(Ok(Reply::OkNoData)),
            (Err(error), ticket) => {
                if let Some(ticket) = ticket {
                    self.state().parked.cancel(ticket);
                }
                Verdict::Done(Err(refused("SUBMIT_3D", &error)))
            }
        }
    }

    /// Answers a parked command by its fence.
    fn when_fenced(&self, ticket: Ticket) -> Done {
        let me = Weak::clone(&self.me);
        Box::new(move |result| {
            if let Some(device) = me.upgrade() {
                device.fenced(ticket, result);
            }
        })
    }

    fn fenced(&self, ticket: Ticket, result: Result<(), RenderError>) {
        let reply = match result {
            // Its commands were submitted all the same.
            Ok(()) | Err(RenderError::Dropped) => Ok(Reply::OkNoData),
            Err(error) => Err(refused("a fence", &error)),
        };
        let answer = {
            let mut state = self.state();
            let answer = state.parked.resolve(ticket, reply);
            if state.awaits_fences {
                self.fences.notify_all();
            }
            answer
        };
        self.carry_out(answer.map(Effect::Answer));
    }

    /// Gives fences some time to be signalled. What the renderer does not need is done at once.
    pub(super) fn await_fences<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
    ) -> MutexGuard<'a, State> {
        let waited = self.fences.wait_timeout_while(state, FENCE_GRACE, |state| {
            state.awaits_fences = state.parked.has_fences();
            state.awaits_fences
        });
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.awaits_fences = false;
        state
    }

    /// # Errors
    /// See [`State::attach_backing`]; for a 3D resource also `InvalidParameter` for no memory at all,
    /// and `Unspec` if the renderer refuses.
    pub(super) fn attach_backing(
        &self,
        id: ResourceId,
        entries: &MemEntries<'_>,
        memory: &GuestMemory,
    ) -> Result<Reply, GpuError> {
        let backing = {
            let mut state = self.state();
            let resource = state.resources.get(id)?;
            let Storage::Rendered(_) = resource.storage else {
                return state.attach_backing(id, entries, memory);
            };
            if resource.backing.is_some() {
                return Err(GpuError::Unspec);
            }
            Backing::new(entries, memory, state.resources.backing_room())?
        };
        if backing.len() == 0 {
            return Err(GpuError::InvalidParameter);
        }
        let pinned = Pinned {
            memory: memory.clone(),
            pieces: backing.pieces(),
        };
        let attached = self.renderer()?.call("RESOURCE_ATTACH_BACKING", move |it| {
            it.attach_backing(id, pinned)
        });
        attached.map_err(|error| refused("RESOURCE_ATTACH_BACKING", &error))?;
        self.state().resources.set_backing(id, Some(backing))?;
        Ok(Reply::OkNoData)
    }

    /// # Errors
    /// See [`State::detach_backing`].
    pub(super) fn detach_backing(&self, id: ResourceId) -> Result<Reply, GpuError> {
        let rendered = {
            let state = self.state();
            let resource = state.resources.get(id)?;
            matches!(resource.storage, Storage::Rendered(_)) && resource.backing.is_some()
        };
        if rendered {
            let detached = self.renderer()?.call("RESOURCE_DETACH_BACKING", move |it| {
                it.detach_backing(id);
                Ok(())
            });
            detached.map_err(|error| refused("RESOURCE_DETACH_BACKING", &error))?;
        }
        self.state().detach_backing(id)
    }

    /// Shows what was flushed.
    ///
    /// # Errors
    /// See [`State::flush`]; `Unspec` if the renderer does not give the pixels.
    pub(super) fn flush(
        &self,
        id: ResourceId,
        rect: Rect,
        memory: &GuestMemory,
    ) -> Result<Reply, GpuError> {
        let (format, damages) = {
            let mut state = self.state();
            let Storage::Rendered(rendered) = state.resources.get(id)?.storage else {
                return state.flush(&self.display, id, rect, memory);
            };
            // One that is no picture is shown nowhere.
            let Some((size, format)) = rendered.picture() else {
                return Ok(Reply::OkNoData);
            };
            if !rect.fits_in(size) {
                return Err(GpuError::InvalidParameter);
            }
            (format, state.scanouts.damages(id, rect))
        };
        for (scanout, part, damage) in self.flush_shared(damages)? {
            let mut pixels = self.read_back(id, part)?;
            // One update, however large: no display shows a part of it.
            self.display.update(scanout, damage, |y, xrgb| {
                format.to_xrgb_le(pixels.row(y.saturating_sub(damage.y))?, xrgb);
                Ok(())
            })?;
        }
        Ok(Reply::OkNoData)
    }

    /// Begins to read a part of a 3D resource that is a picture. The first rows have been read then, and
    /// most parts have no others.
    ///
    /// # Errors
    /// `Unspec` if the renderer does not give them.
    pub(super) fn read_back(&self, id: ResourceId, rect: Rect) -> Result<ReadBack<'_>, GpuError> {
        let mut pixels = ReadBack {
            device: self,
            id,
            rect,
            pixels: std::mem::take(&mut *lock(&self.pixels)),
            first: 0,
            rows: 0,
        };
        pixels.read(0)?;
        Ok(pixels)
    }

    /// # Errors
    /// `Unspec` without one.
    pub(super) fn renderer(&self) -> Result<&Arc<RenderThread>, GpuError> {
        self.renderer.as_ref().ok_or(GpuError::Unspec)
    }
}

/// A part of a 3D resource, read some rows at a time as they are asked for.
pub(super) struct ReadBack<'a> {
    device: &'a Device,
    id: ResourceId,
    rect: Rect,
    pixels: Vec<u8>,
    /// The first of the rows in `pixels`, counted from the top of `rect`.
    first: u32,
    rows: u32,
}

impl ReadBack<'_> {
    /// The pixels of a row, counted from the top of the part.
    ///
    /// # Errors
    /// `Unspec` if the renderer does not give them, or there is no such row.
    pub(super) fn row(&mut self, y: u32) -> Result<&[u8], GpuError> {
        if !(self.first..self.first.saturating_add(self.rows)).contains(&y) {
            self.read(y)?;
        }
        let at = usize::try_from(y.saturating_sub(self.first)).map_err(|_| GpuError::Unspec)?;
        let bytes = usize::try_from(self.row_bytes()).map_err(|_| GpuError::Unspec)?;
        let mut rows = self.pixels.chunks_exact(bytes.max(1));
        rows.nth(at).ok_or(GpuError::Unspec)
    }

    fn row_bytes(&self) -> u32 {
        self.rect.width.saturating_mul(Format::BYTES_PER_PIXEL)
    }

    /// Reads rows from this one on.
    fn read(&mut self, first: u32) -> Result<(), GpuError> {
        let left = self.rect.height.saturating_sub(first);
        let most = READ_BACK_BYTES.checked_div(self.row_bytes()).unwrap_or(0);
        let rows = left.min(most.max(1));
        let bytes = u64::from(self.row_bytes()).saturating_mul(u64::from(rows));
        let bytes = usize::try_from(bytes).map_err(|_| GpuError::OutOfMemory)?;
        let (id, band) = (
            self.id,
            Rect {
                y: self.rect.y.saturating_add(first),
                height: rows,
                ..self.rect
            },
        );
        let mut pixels = std::mem::take(&mut self.pixels);
        pixels.resize(bytes, 0);
        self.rows = 0;
        let read = self.device.renderer()?.call("a read-back", move |it| {
            it.read(id, band, &mut pixels)?;
            Ok(pixels)
        });
        self.pixels = read.map_err(|error| refused("a read-back", &error))?;
        (self.first, self.rows) = (first, rows);
        Ok(())
    }
}

impl Drop for ReadBack<'_> {
    fn drop(&mut self) {
        *lock(&self.device.pixels) = std::mem::take(&mut self.pixels);
    }
}

impl State {
    fn check_transfer(&mut self, transfer: &Transfer3d) -> Result<(), GpuError> {
        let resource = self.resources.get(transfer.resource)?;
        let Storage::Rendered(rendered) = &resource.storage else {
            return Err(GpuError::InvalidParameter);
        };
        if resource.backing.is_none() {
            return Err(GpuError::Unspec);
        }
        if !rendered.has(transfer.level, &transfer.region) {
            return Err(GpuError::InvalidParameter);
        }
        if let Some(id) = transfer.context {
            let context = self.contexts.get_mut(id)?;
            if !context.is_rendered() {
                return Err(GpuError::InvalidContextId);
            }
            if !context.has(transfer.resource) {
                return Err(GpuError::InvalidResourceId);
            }
        }
        Ok(())
    }
}

/// What the guest is told when the renderer refuses.
pub(super) fn refused(what: &str, error: &RenderError) -> GpuError {
    log::debug!("{what}: {error}");
    GpuError::Unspec
}
