//! Where the images of one front-end come from: allocated, and planned at once.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nosnoop_protocol::MapCache;
use nosnoop_protocol::ids::BlobId;

use super::alloc::{AllocError, Allocator, Handout, HostMemory, Want};
use super::flush::Flusher;
use super::kind::Traits;
use super::plan::{Noncoherent, Plan, PlatformFacts, Policy, VmmFacts, VmmMemtype, plan};
use super::planned::PlannedMemory;
use super::{PAGE_SIZE, plan};

/// What the operator has decided about blobs' memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// The DRM node to allocate from; plain memory without one.
    pub node: Option<PathBuf>,
    /// What is true of the VMM.
    pub vmm: VmmMemtype,
    /// What is allowed.
    pub policy: Policy,
}

/// Allocates images and plans how they may be mapped.
pub struct Source {
    allocator: Allocator,
    platform: PlatformFacts,
    choice: Choice,
    /// What the allocator's memory is like, by a page of it.
    sample: Traits,
    flusher: Arc<dyn Flusher>,
    /// A refusal has been told the operator.
    told: AtomicBool,
}

impl Source {
    /// A source for one front-end. Front-ends do not share one: who gets the descriptor of a DRM node
    /// can map everything that was allocated with it.
    ///
    /// # Errors
    /// The node is none, is not to be opened, has no allocator here, or does not allocate.
    pub fn open(
        choice: Choice,
        platform: PlatformFacts,
        flusher: Arc<dyn Flusher>,
    ) -> Result<Self, AllocError> {
        let allocator = match &choice.node {
            Some(path) => Allocator::open(path, Handout::Node)?,
            None => Allocator::memfd(),
        };
        let sample = allocator.allocate(PAGE_SIZE, want(&choice))?.traits();
        Ok(Self {
            allocator,
            platform,
            choice,
            sample,
            flusher,
            told: AtomicBool::new(false),
        })
    }

    /// How guests will be told to map images of the description that a context has given this id, as
    /// far as it can be said before one is allocated. `acked` is whether the front-end has accepted
    /// the memory-type extension.
    #[must_use]
    pub fn map_info(&self, id: BlobId, acked: bool) -> MapCache {
        match self.plan(id, &self.sample, acked) {
            Plan::Map(plan) => plan.guest(),
            Plan::Refuse(_) => MapCache::Cached,
        }
    }

    /// Allocates an image of the description with this id: `len` bytes, a page multiple.
    ///
    /// # Errors
    /// What the allocator says.
    pub fn image(&self, id: BlobId, len: u64, acked: bool) -> Result<PlannedMemory, AllocError> {
        let planned = |memory: HostMemory| {
            let plan = self.plan(id, &memory.traits(), acked);
            PlannedMemory::new(memory, plan, Arc::clone(&self.flusher))
        };
        let first = planned(self.allocator.allocate(len, want(&self.choice))?);
        let image = match first.plan() {
            Plan::Refuse(refusal) if refusal.coercible() => {
                planned(self.allocator.allocate(len, Want::Coherent)?)
            }
            Plan::Refuse(_) | Plan::Map(_) => first,
        };
        if let Some(summary) = image.plan().why().first() {
            log::debug!("{len} bytes from {}: {summary}", self.allocator.name());
        }
        Ok(image)
    }

    /// Tells the operator why memory cannot be mapped: once, as guests can ask for it all day.
    pub fn tell(&self, refusal: &plan::Refusal) {
        if !self.told.swap(true, Ordering::Relaxed) {
            log::warn!(
                "memory from {} is not mapped for the guest: {refusal}",
                self.allocator.name()
            );
        }
    }

    #[cfg_attr(
        not(feature = "test-memtype"),
        expect(unused_variables, reason = "only test builds look at the description")
    )]
    fn plan(&self, id: BlobId, traits: &Traits, acked: bool) -> Plan {
        #[cfg(feature = "test-memtype")]
        if let Some(cache) = super::test_memtype::announced(id) {
            return Plan::announced(cache);
        }
        let vmm = VmmFacts::new(&self.platform, self.choice.vmm, acked);
        plan(traits, &vmm, false, self.choice.policy)
    }
}

fn want(choice: &Choice) -> Want {
    match choice.policy.noncoherent {
        Noncoherent::Off => Want::Coherent,
        Noncoherent::Auto | Noncoherent::Coerce => Want::Noncoherent,
    }
}
