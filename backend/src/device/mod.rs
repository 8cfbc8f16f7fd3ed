//! The virtio-gpu device: executes typed commands and owns what the guest has made.
//!
//! One file per command group: [`two_d`] (resources and transfers), [`scanout`] (what is shown
//! where, and flushes), [`cursor`], [`blob`], [`uuid`]; [`query`] answers what the display says.
//! [`resource`], [`backing`] and [`quota`] hold the state behind them.
//!
//! Every command checks everything first and only then changes state, so a command that fails
//! leaves the device as it was (pixels of a transfer or flush whose guest memory went away in the
//! middle excepted).

mod backing;
mod blob;
mod cursor;
mod query;
pub mod quota;
mod resource;
mod scanout;
mod two_d;
mod uuid;

use std::sync::{Arc, Mutex, MutexGuard};

use nosnoop_protocol::command::Command;
use nosnoop_protocol::config::{Config, Features};
use nosnoop_protocol::reply::{GpuError, Reply};

use crate::GuestMemory;
use crate::display::Display;
use crate::sync::lock;
pub use query::Batch;
use quota::Limits;
use resource::Resources;
use scanout::{Layout, Scanouts};

/// The device features that this back-end implements, each command of each of them included
/// (virtio 1.4, "GPU Device / Feature bits").
pub const FEATURES: Features = Features::EDID
    .union(Features::RESOURCE_UUID)
    .union(Features::RESOURCE_BLOB);

/// A virtio-gpu device, for one front-end connection.
///
/// Both queue workers use it at the same time. The state's lock is held for one command; commands
/// that wait for the display ([`Batch`]) do so without it.
pub struct Device {
    state: Mutex<State>,
    display: Arc<Display>,
}

/// What the guest has made: changed by commands, emptied by a reset.
#[derive(Debug)]
struct State {
    limits: Limits,
    resources: Resources,
    scanouts: Scanouts,
    /// One row of a scanout on its way to the display, kept to not allocate for each flush.
    row: Vec<u8>,
}

impl Device {
    /// A device without resources that shows its scanouts on `display`.
    #[must_use]
    pub fn new(limits: Limits, display: Arc<Display>) -> Self {
        let state = State {
            limits,
            resources: Resources::default(),
            scanouts: Scanouts::default(),
            row: Vec::new(),
        };
        Self {
            state: Mutex::new(state),
            display,
        }
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
            num_scanouts: u32::try_from(self.display.outputs()).unwrap_or(u32::MAX),
            ..Config::default()
        }
    }

    /// Executes a command of the control queue.
    ///
    /// # Errors
    /// What the guest is told: see each command's file.
    pub fn control(
        &self,
        command: &Command<'_>,
        memory: &GuestMemory,
        batch: &mut Batch,
    ) -> Result<Reply, GpuError> {
        match command {
            Command::GetDisplayInfo => Ok(batch.display_info(&self.display)),
            Command::GetEdid { scanout } => batch.edid(&self.display, *scanout),
            Command::ResourceCreate2d {
                resource,
                format,
                size,
            } => self.state().create_2d(*resource, *format, *size),
            Command::ResourceUnref { resource } => self.state().unref(&self.display, *resource),
            Command::ResourceAttachBacking { resource, entries } => {
                self.state().attach_backing(*resource, entries, memory)
            }
            Command::ResourceDetachBacking { resource } => self.state().detach_backing(*resource),
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
            } => self
                .state()
                .set_scanout(&self.display, *scanout, *rect, *resource),
            Command::ResourceFlush { resource, rect } => {
                self.state().flush(&self.display, *resource, *rect, memory)
            }
            Command::ResourceAssignUuid { resource } => self.state().assign_uuid(*resource),
            Command::ResourceCreateBlob {
                resource,
                mem,
                size,
                entries,
                ..
            } => self
                .state()
                .create_blob(*resource, *mem, *size, entries, memory),
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
            // Capsets are numbered from 0 below the configuration's `num_capsets`, which is 0.
            Command::GetCapsetInfo { .. } | Command::GetCapset { .. } => {
                Err(GpuError::InvalidParameter)
            }
            // Commands of features that are not offered, and those of the other queue.
            Command::CtxCreate { .. }
            | Command::CtxDestroy { .. }
            | Command::CtxAttachResource { .. }
            | Command::CtxDetachResource { .. }
            | Command::ResourceCreate3d(_)
            | Command::TransferToHost3d(_)
            | Command::TransferFromHost3d(_)
            | Command::Submit3d { .. }
            | Command::ResourceMapBlob { .. }
            | Command::ResourceUnmapBlob { .. }
            | Command::UpdateCursor { .. }
            | Command::MoveCursor { .. } => Err(GpuError::Unspec),
        }
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
                self.state()
                    .update_cursor(&self.display, shape, *resource, memory)
            }
            Command::MoveCursor { scanout, x, y } => {
                cursor::move_cursor(&self.display, *scanout, (*x, *y))
            }
            _ => Err(GpuError::Unspec),
        }
    }

    /// Back to the state after [`Device::new`]: every resource is gone, every scanout disabled.
    pub fn reset(&self) {
        let mut state = self.state();
        state.resources = Resources::default();
        state.scanouts = Scanouts::default();
        self.display.reset();
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
        let used = self.hostmem();
        let limit = self.limits.hostmem;
        if used > limit {
            return Err(format!(
                "{used} bytes of host memory are in use, {limit} are allowed"
            ));
        }
        Ok(())
    }

    /// Host memory that pixels take: pictures of 2D resources and of scanouts.
    fn hostmem(&self) -> u64 {
        self.resources
            .image_bytes()
            .saturating_add(self.scanouts.screen_bytes())
    }

    /// Checks that `additional` bytes of pixels, in place of `released` ones, stay inside the quota.
    fn check_hostmem(&self, additional: u64, released: u64) -> Result<(), GpuError> {
        let used = self.hostmem().saturating_sub(released);
        match used.checked_add(additional) {
            Some(total) if total <= self.limits.hostmem => Ok(()),
            _ => Err(GpuError::OutOfMemory),
        }
    }
}

#[cfg(test)]
mod tests;
