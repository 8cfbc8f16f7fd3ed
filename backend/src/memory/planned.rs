//! A blob's memory with the plan that was made for it, from its creation to the last moment at which
//! a guest can reach it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use super::alloc::HostMemory;
use super::flush::FlushError;
use super::plan::{MapPlan, Plan};
use super::quarantine::Quarantine;
use super::view::View;

/// Memory and how it may be mapped. Whoever lets a guest reach it, or cannot rule out that one still
/// does, owns it (in an [`Arc`]): when the last owner goes, nobody reaches it any more.
pub struct PlannedMemory {
    memory: HostMemory,
    plan: Plan,
    quarantine: Arc<Quarantine>,
    /// A guest has been able to reach it, and the plan asks for flushes.
    exposed: AtomicBool,
    view: OnceLock<View>,
}

impl std::fmt::Debug for PlannedMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlannedMemory")
            .field("memory", &self.memory)
            .field("plan", &self.plan)
            .field("exposed", &self.exposed)
            .finish_non_exhaustive()
    }
}

impl PlannedMemory {
    /// `plan` is the one that was made for the traits of `memory`.
    #[must_use]
    pub fn new(memory: HostMemory, plan: Plan, quarantine: Arc<Quarantine>) -> Self {
        Self {
            memory,
            plan,
            quarantine,
            exposed: AtomicBool::new(false),
            view: OnceLock::new(),
        }
    }

    /// The memory.
    #[must_use]
    pub fn memory(&self) -> &HostMemory {
        &self.memory
    }

    /// How it may be mapped, or why not.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// To be called before a guest is let at it: the first time, caches are flushed if the plan asks
    /// for that. Takes its time; not to be called with anything locked.
    ///
    /// # Errors
    /// It could not be flushed, so nobody may be let at it.
    pub fn expose(&self) -> Result<(), FlushError> {
        match &self.plan {
            Plan::Map(plan) if plan.flush() && !self.exposed.load(Ordering::Acquire) => {
                self.quarantine.expose(&self.memory)?;
                self.exposed.store(true, Ordering::Release);
                Ok(())
            }
            Plan::Map(_) | Plan::Refuse(_) => Ok(()),
        }
    }

    /// Whether the host's CPUs may read it while a guest has it mapped: not where that one maps it
    /// with another type than the host does, as either may then see what is not there (Intel SDM
    /// vol. 3, "Programming the PAT").
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.mapped()
            .is_some_and(|plan| plan.host() == plan.guest())
    }

    /// Copies the bytes from `at` on, counted from the start of the memory. What the guest writes
    /// meanwhile may be in the copy in part.
    ///
    /// # Errors
    /// `Unsupported` where [`PlannedMemory::is_readable`] says no, `InvalidInput` for bytes that do
    /// not lie inside the memory; else what the kernel says.
    pub fn read(&self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        if !self.is_readable() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        match self.memory.read(at, bytes) {
            // It is no plain file.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                self.view()?.read(at, bytes)
            }
            result => result,
        }
    }

    fn view(&self) -> io::Result<&View> {
        if let Some(view) = self.view.get() {
            return Ok(view);
        }
        let view = View::read_only(&self.memory)?;
        Ok(self.view.get_or_init(|| view))
    }

    fn mapped(&self) -> Option<&MapPlan> {
        match &self.plan {
            Plan::Map(plan) => Some(plan),
            Plan::Refuse(_) => None,
        }
    }
}

impl Drop for PlannedMemory {
    /// The last exposure is over. The memory's own file is closed after this, or kept by the
    /// quarantine.
    fn drop(&mut self) {
        if *self.exposed.get_mut() {
            self.quarantine.release(&self.memory);
        }
    }
}
