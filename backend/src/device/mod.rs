//! The virtio-gpu device: executes typed commands and owns what the guest has made.
//!
//! One file per command group: [`two_d`] (resources and transfers), [`three_d`] (the same where a 3D
//! renderer has them), [`scanout`] (what is shown where, and flushes), [`cursor`], [`blob`], [`uuid`],
//! [`context`], [`capset`], [`host_blob`] (what happens on MAP_BLOB); [`query`] answers what the display
//! says and [`cross_domain`] serves the contexts that are not the renderer's, [`channel`] their way to a
//! Wayland compositor. [`resource`],
//! [`rendered`], [`backing`], [`window`], [`park`] and [`quota`] hold the state behind them.
//!
//! Every command checks everything first and only then changes state, so a command that fails
//! leaves the device as it was (pixels of a transfer or flush whose guest memory went away in the
//! middle excepted).

mod backing;
mod blob;
mod capset;
pub mod channel;
mod context;
mod cross_domain;
mod cursor;
mod host_blob;
pub mod mapper;
pub mod park;
mod query;
pub mod quota;
mod rendered;
mod rendered_blob;
mod resource;
mod scanout;
mod share;
mod three_d;
mod two_d;
mod uuid;
mod window;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};

use nosnoop_protocol::command::{BlobMem, Command, Fence};
use nosnoop_protocol::config::{Config, Features};
use nosnoop_protocol::reply::{GpuError, Reply};

use crate::GuestMemory;
use crate::display::Display;
use crate::memory::PAGE_SIZE;
use crate::memory::planned::PlannedMemory;
use crate::memory::quarantine::Kept;
use crate::memory::source::Source;
use crate::planted::{Bug, planted};
use crate::render::thread::RenderThread;
use crate::render::{Capset, Direction};
use crate::sync::lock;
use channel::{Channels, Wayland};
use context::Contexts;
use host_blob::Operation;
use mapper::{MapError, MapRequest, Mapper};
use park::{Answer, Parked, Resolved, Ticket};
pub use query::Batch;
use quota::Limits;
use resource::Resources;
use scanout::{Layout, Scanouts};
use window::{SlotId, Window};

/// The device features that this back-end always implements, each command of each of them included
/// (virtio 1.4, "GPU Device / Feature bits").
const FEATURES: Features = Features::EDID
    .union(Features::RESOURCE_UUID)
    .union(Features::RESOURCE_BLOB);

/// Those that come with contexts. Drivers make none without `VIRGL`.
const CONTEXT_FEATURES: Features = Features::VIRGL.union(Features::CONTEXT_INIT);

/// The region that host blobs are mapped into, and who maps them.
#[derive(Clone)]
pub struct SharedMemory {
    /// Bytes of the region; a page multiple.
    pub size: u64,
    /// The way to the front-end.
    pub mapper: Arc<dyn Mapper>,
    /// Where images come from.
    pub source: Arc<Source>,
    /// Where cross-domain contexts may have channels to.
    pub wayland: Option<Wayland>,
}

/// What becomes of a command.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "on the stack for a moment; a box would be an allocation per command"
)]
pub enum Verdict {
    /// It is done.
    Done(Result<Reply, GpuError>),
    /// Its result comes later: [`Device::when_done`] says where to.
    Parked(Ticket),
}

/// What is to be done once the state is unlocked.
#[expect(
    clippy::large_enum_variant,
    reason = "a handful at a time, and gone at once"
)]
enum Effect {
    Map(SlotId, MapRequest, Arc<PlannedMemory>),
    Unmap(SlotId, u64, u64),
    Answer(Resolved),
    /// Lets go of memory, which may take its time.
    Release(Arc<PlannedMemory>),
}

/// A virtio-gpu device, for one front-end connection.
///
/// Both queue workers use it at the same time. The state's lock is held for one command; commands
/// that wait for the display ([`Batch`]) do so without it.
pub struct Device {
    state: Mutex<State>,
    display: Arc<Display>,
    shared_memory: Option<SharedMemory>,
    renderer: Option<Arc<RenderThread>>,
    capsets: Vec<Capset>,
    /// Wakes those who wait for fences: one is signalled.
    fences: Condvar,
    /// Pixels from the renderer on their way to the display, kept to not allocate for each flush.
    pixels: Mutex<Vec<u8>>,
    /// The device features that the driver has accepted.
    accepted: AtomicU64,
    /// For results that come after their command.
    me: Weak<Self>,
}

/// What the guest has made: changed by commands, emptied by a reset.
struct State {
    limits: Limits,
    display: Arc<Display>,
    shared_memory: Option<SharedMemory>,
    renderer: Option<Arc<RenderThread>>,
    resources: Resources,
    scanouts: Scanouts,
    contexts: Contexts,
    channels: Channels,
    window: Window,
    parked: Parked,
    /// Somebody waits for fences.
    awaits_fences: bool,
    /// One row of a scanout on its way to the display, kept to not allocate for each flush.
    row: Vec<u8>,
}

impl Device {
    /// A device without resources that shows its scanouts on `display`. Without shared memory it has
    /// no host blobs, without a renderer no 3D, and without both no contexts. The renderer is this
    /// device's alone from now until [`Device::close`].
    #[must_use]
    pub fn new(
        limits: Limits,
        display: Arc<Display>,
        shared_memory: Option<SharedMemory>,
        renderer: Option<Arc<RenderThread>>,
    ) -> Arc<Self> {
        let state = State {
            limits,
            display: Arc::clone(&display),
            shared_memory: shared_memory.clone(),
            renderer: renderer.clone(),
            resources: Resources::default(),
            scanouts: Scanouts::default(),
            contexts: Contexts::default(),
            channels: Channels::new(Weak::new()),
            window: Window::new(shared_memory.as_ref().map_or(0, |shared| shared.size)),
            parked: Parked::default(),
            awaits_fences: false,
            row: Vec::new(),
        };
        Arc::new_cyclic(|me| Self {
            state: Mutex::new(State {
                channels: Channels::new(Weak::clone(me)),
                ..state
            }),
            display,
            capsets: capset::capsets(renderer.as_deref(), shared_memory.as_ref()),
            shared_memory,
            renderer,
            fences: Condvar::new(),
            pixels: Mutex::default(),
            accepted: AtomicU64::new(0),
            me: Weak::clone(me),
        })
    }

    /// The device features to offer.
    #[must_use]
    pub fn features(&self) -> Features {
        let mut features = FEATURES;
        if self.has_contexts() {
            features |= CONTEXT_FEATURES;
        }
        if self.shared_memory.is_some() {
            features |= Features::BLOB_ALIGNMENT;
        }
        features
    }

    fn has_contexts(&self) -> bool {
        self.shared_memory.is_some() || self.renderer.is_some()
    }

    /// Takes note of the features that the driver has accepted.
    pub fn set_accepted(&self, features: Features) {
        self.accepted.store(features.bits(), Ordering::Relaxed);
    }

    /// Blobs must be whole pages where the driver knows that.
    fn aligns_blobs(&self) -> bool {
        let accepted = self.accepted.load(Ordering::Relaxed);
        accepted & Features::BLOB_ALIGNMENT.bits() != 0
    }

    /// Where this device shows its scanouts.
    #[must_use]
    pub fn display(&self) -> &Arc<Display> {
        &self.display
    }

    /// The configuration space as it stands (virtio 1.4, "GPU Device / Device configuration
    /// layout").
    #[must_use]
    pub fn config(&self) -> Config {
        Config {
            num_scanouts: u32::try_from(self.display.outputs())
                .unwrap_or(u32::MAX)
                .saturating_sub(planted(Bug::ConfigScanoutMissing).into()),
            num_capsets: u32::try_from(self.capsets.len()).unwrap_or(u32::MAX),
            blob_alignment: match self.shared_memory {
                Some(_) => u32::try_from(PAGE_SIZE).unwrap_or(0),
                None => 0,
            },
            ..Config::default()
        }
    }

    /// Executes a command of the control queue. What the guest is told: see each command's file.
    /// `fence` is the one that the request carries; it matters for what is done later.
    pub fn control(
        &self,
        command: &Command<'_>,
        fence: Option<Fence>,
        memory: &GuestMemory,
        batch: &mut Batch,
    ) -> Verdict {
        let result = match command {
            Command::GetDisplayInfo => Ok(batch.display_info(&self.display)),
            Command::GetEdid { scanout } => batch.edid(&self.display, *scanout),
            Command::ResourceCreate2d {
                resource,
                format,
                size,
            } => self.state().create_2d(*resource, *format, *size),
            Command::ResourceUnref { resource } => {
                return self.parking(|state, effects| state.unref(*resource, effects));
            }
            Command::ResourceAttachBacking { resource, entries } => {
                self.attach_backing(*resource, entries, memory)
            }
            Command::ResourceDetachBacking { resource } => self.detach_backing(*resource),
            Command::TransferToHost2d {
                resource,
                rect,
                offset,
            } => self
                .state()
                .transfer_to_host_2d(*resource, *rect, *offset, memory),
            Command::SetScanout {
                scanout,
                rect,
                resource,
            } => self.set_scanout(*scanout, *rect, *resource),
            Command::ResourceFlush { resource, rect } => self.flush(*resource, *rect, memory),
            Command::ResourceAssignUuid { resource } => self.state().assign_uuid(*resource),
            Command::ResourceCreateBlob {
                resource,
                context,
                blob_id,
                mem,
                flags,
                size,
                entries,
            } => match mem {
                BlobMem::Guest if self.aligns_blobs() && !size.is_multiple_of(PAGE_SIZE) => {
                    Err(GpuError::InvalidParameter)
                }
                BlobMem::Guest => self
                    .state()
                    .create_guest_blob(*resource, *size, entries, memory),
                // It has no backing.
                BlobMem::Host3d if !entries.is_empty() => Err(GpuError::InvalidParameter),
                BlobMem::Host3d => {
                    self.create_host_blob(*resource, *context, *blob_id, *flags, *size)
                }
                // No context here provides any.
                BlobMem::Host3dGuest => Err(GpuError::InvalidParameter),
            },
            Command::SetScanoutBlob {
                scanout,
                rect,
                resource,
                size,
                format,
                stride,
                offset,
            } => {
                let layout = Layout {
                    format: *format,
                    stride: *stride,
                    offset: *offset,
                };
                let part = scanout::Part {
                    rect: *rect,
                    size: *size,
                };
                self.state()
                    .set_scanout_blob(&self.display, *scanout, part, layout, *resource)
            }
            Command::GetCapsetInfo { index } => self.capset_info(*index),
            Command::GetCapset { id, version } => self.capset(*id, *version),
            Command::ResourceCreate3d(create) => self.create_3d(create),
            Command::TransferToHost3d(transfer) => self.transfer_3d(Direction::ToHost, transfer),
            Command::TransferFromHost3d(transfer) => {
                self.transfer_3d(Direction::FromHost, transfer)
            }
            // Commands of the other queue, and those of features that are not offered.
            Command::UpdateCursor { .. } | Command::MoveCursor { .. } => Err(GpuError::Unspec),
            _ if !self.has_contexts() => Err(GpuError::Unspec),
            Command::CtxCreate {
                context,
                context_init,
                name,
            } => self.create_context(*context, *context_init, name),
            Command::CtxDestroy { context } => return self.destroy_context(*context),
            Command::CtxAttachResource { context, resource } => {
                self.attach_resource(*context, *resource)
            }
            Command::CtxDetachResource { context, resource } => {
                self.detach_resource(*context, *resource)
            }
            Command::Submit3d { context, data } => {
                return self.submit(*context, data, fence, memory);
            }
            Command::ResourceMapBlob { resource, offset } => {
                let operation = Operation::Map(*offset);
                return self.parking(|state, effects| state.operate(*resource, operation, effects));
            }
            Command::ResourceUnmapBlob { resource } => {
                let operation = Operation::Unmap;
                return self.parking(|state, effects| state.operate(*resource, operation, effects));
            }
        };
        Verdict::Done(result)
    }

    /// Says how a parked command is to be answered: `answer` is called once, perhaps at once.
    pub fn when_done(&self, ticket: Ticket, answer: Answer) {
        let resolved = self.state().parked.wait(ticket, answer);
        self.carry_out(resolved.map(Effect::Answer));
    }

    /// Answers every parked command now, as before a ring stops, and returns when all answers that
    /// were on their way have reached the guest. Fences get some time to be signalled first. What the
    /// front-end still maps for one of them is unmapped later. Not to be called by a [`park::Answer`].
    pub fn abandon_parked(&self) {
        let (resolved, deliveries) = {
            let mut state = self.await_fences(self.state());
            state.empty_channel_rings();
            (state.parked.abandon(), state.parked.deliveries())
        };
        self.carry_out(resolved.into_iter().map(Effect::Answer));
        deliveries.wait();
    }

    /// Changes the state and then does what that asks for.
    fn parking<T>(&self, change: impl FnOnce(&mut State, &mut Vec<Effect>) -> T) -> T {
        let mut effects = Vec::new();
        let (result, _under_way) = {
            let mut state = self.state();
            let result = change(&mut state, &mut effects);
            // A reset waits for it: what is to be unmapped has been asked for then, and its place in
            // the region can be had again.
            let under_way = (!effects.is_empty()).then(|| state.parked.deliveries().begin());
            (result, under_way)
        };
        self.carry_out(effects);
        result
    }

    /// Does what needs the state unlocked: requests to the front-end, whose answers may come at once,
    /// and answers to the guest.
    fn carry_out(&self, effects: impl IntoIterator<Item = Effect>) {
        for effect in effects {
            match (effect, &self.shared_memory) {
                (Effect::Answer(resolved), _) => resolved.deliver(),
                (Effect::Release(memory), Some(shared)) => {
                    if let Some(last) = Arc::into_inner(memory) {
                        shared.source.retry_kept();
                        drop(last);
                    }
                }
                (Effect::Map(slot, request, memory), Some(shared)) => {
                    let done = self.later(move |state, result, effects| {
                        state.map_done(slot, result, effects);
                    });
                    match memory.expose() {
                        Ok(()) => shared.mapper.map(request, done),
                        Err(error) => {
                            log::error!("memory is not mapped for the guest: {error}");
                            done(Err(MapError::Unavailable));
                        }
                    }
                }
                (Effect::Unmap(slot, offset, len), Some(shared)) => {
                    let done = self.later(move |state, result, effects| {
                        state.unmap_done(slot, result, effects);
                    });
                    shared.mapper.unmap(offset, len, done);
                    self.state().window.asked(slot);
                }
                // Without shared memory no host blob is ever made.
                (_, None) => {}
            }
        }
    }

    /// What to do with the front-end's answer, if this device still is when it comes.
    fn later(
        &self,
        change: impl FnOnce(&mut State, Result<(), MapError>, &mut Vec<Effect>) + Send + 'static,
    ) -> mapper::Done {
        let me = Weak::clone(&self.me);
        Box::new(move |result| {
            if let Some(device) = me.upgrade() {
                device.parking(|state, effects| change(state, result, effects));
            }
        })
    }

    /// Executes a command of the cursor queue.
    ///
    /// # Errors
    /// `Unspec` for a command of the other queue; else see [`cursor`].
    pub fn cursor(&self, command: &Command<'_>, memory: &GuestMemory) -> Result<Reply, GpuError> {
        match command {
            Command::UpdateCursor {
                scanout,
                x,
                y,
                resource,
                hot_x,
                hot_y,
            } => {
                let shape = cursor::Shape {
                    scanout: *scanout,
                    position: (*x, *y),
                    hotspot: (*hot_x, *hot_y),
                };
                self.update_cursor(shape, *resource, memory)
            }
            Command::MoveCursor { scanout, x, y } => {
                cursor::move_cursor(&self.display, *scanout, (*x, *y))
            }
            _ => Err(GpuError::Unspec),
        }
    }

    /// Back to the state after [`Device::new`]: every resource is gone, every scanout disabled.
    ///
    /// As [`Device::abandon_parked`], no answer is on its way when this returns.
    pub fn reset(&self) {
        if planted(Bug::ResetIgnored) {
            return self.abandon_parked();
        }
        let mut effects = Vec::new();
        let (gone, deliveries) = {
            let mut state = self.state();
            state.forget_blobs(&mut effects);
            let gone = std::mem::take(&mut state.resources);
            state.scanouts = Scanouts::default();
            state.contexts = Contexts::default();
            state.channels.close();
            self.display.reset();
            effects.extend(state.parked.abandon().into_iter().map(Effect::Answer));
            (gone, state.parked.deliveries())
        };
        // Memory is let go of without the lock.
        drop(gone);
        self.carry_out(effects);
        deliveries.wait();
        self.close();
    }

    /// The front-end has gone: nothing of its guest stays with the renderer or a compositor.
    pub fn close(&self) {
        self.state().channels.close();
        if let Some(renderer) = &self.renderer {
            renderer.reset();
        }
    }

    /// Checks that the parts of the state agree with each other.
    ///
    /// # Errors
    /// The first disagreement, in words. For tests and the fuzzer: a device whose state does not
    /// hold together has a bug.
    pub fn verify_invariants(&self) -> Result<(), String> {
        self.state().verify_invariants()
    }

    /// The state is valid between any two commands, also if a worker died in one.
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    fn verify_invariants(&self) -> Result<(), String> {
        self.resources.verify_invariants(&self.limits)?;
        self.scanouts.verify_invariants(&self.resources)?;
        self.window.verify_invariants()?;
        // What is kept comes on top where it turned out to be only when something took its place.
        let used = self.hostmem().saturating_sub(self.kept().bytes);
        let limit = self.limits.hostmem;
        if used > limit {
            return Err(format!(
                "{used} bytes of host memory are in use, {limit} are allowed"
            ));
        }
        Ok(())
    }

    /// Host memory that the guest takes: pictures of 2D resources and of scanouts, 3D resources, host
    /// blobs, what came through channels, and what had to be kept of those that are gone.
    fn hostmem(&self) -> u64 {
        self.resources
            .host_bytes()
            .saturating_add(self.scanouts.screen_bytes())
            .saturating_add(self.window.orphaned_bytes())
            .saturating_add(self.channels.received_bytes())
            .saturating_add(self.kept().bytes)
    }

    /// Host memory that is gone but cannot be flushed.
    fn kept(&self) -> Kept {
        let shared = self.shared_memory.as_ref();
        shared.map_or_else(Kept::default, |shared| shared.source.kept())
    }

    /// Checks that `additional` bytes of pixels, in place of `released` ones, stay inside the quota.
    fn check_hostmem(&self, additional: u64, released: u64) -> Result<(), GpuError> {
        let used = self.hostmem().saturating_sub(released);
        match used.checked_add(additional) {
            Some(total) if total <= self.limits.hostmem || planted(Bug::QuotaIgnored) => Ok(()),
            _ => Err(GpuError::OutOfMemory),
        }
    }
}

#[cfg(test)]
mod tests;
