//! Where the images of one front-end come from: allocated, and planned at once.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use clap::ValueEnum;
use nosnoop_protocol::MapCache;
use nosnoop_protocol::ids::BlobId;

use super::PAGE_SIZE;
use super::alloc::{AllocError, Allocator, Handout, HostMemory, Want};
use super::exported::{self, ExportError};
use super::facts::Facts;
use super::flush::Flusher;
use super::kind::Traits;
use super::offer::with_proof;
use super::plan::{Noncoherent, Plan, PlatformFacts, Policy, Refusal, VmmFacts, VmmMemtype, plan};
use super::planned::PlannedMemory;
use super::quarantine::{Kept, Quarantine};
use crate::render::ExportedBlob;

/// Where `--blob-memory=udmabuf` allocates.
const UDMABUF: &str = "/dev/udmabuf";

/// Memory without a GPU (`--blob-memory`): cached, and coherent for CPUs only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PlainMemory {
    /// Files in memory. Pages are taken from the host when they are first touched.
    #[default]
    Memfd,
    /// dma-bufs of such files, for front-ends that take dma-bufs only. They are never for devices that
    /// do not snoop. All pages are taken at once and stay in memory.
    Udmabuf,
}

/// Where images are allocated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Without a GPU.
    Plain(PlainMemory),
    /// From this DRM node.
    Node(PathBuf),
}

impl Default for Place {
    fn default() -> Self {
        Self::Plain(PlainMemory::default())
    }
}

/// What the operator has decided about blobs' memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Where it is allocated.
    pub place: Place,
    /// What is true of the VMM.
    pub vmm: VmmMemtype,
    /// What is allowed.
    pub policy: Policy,
}

/// Why there is no source of blobs.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The node is none, is not to be opened, has no allocator here, or does not allocate.
    #[error(transparent)]
    Alloc(#[from] AllocError),
    /// What this host does with memory types cannot be found out.
    #[error("cannot look at this host: {0}")]
    Host(#[from] io::Error),
}

/// Allocates images and plans how they may be mapped.
pub struct Source {
    allocator: Allocator,
    choice: Choice,
    /// What is known of the host; plain memory is mapped the same way on any.
    facts: Option<Facts>,
    /// The same, for a renderer's memory.
    host: OnceLock<Option<Facts>>,
    /// What the allocator's memory is like, by a page of it.
    sample: Traits,
    quarantine: Arc<Quarantine>,
    /// What guests are told of images, without and with the memory-type extension: guests ask often,
    /// and a plan is made with all its words.
    map_infos: [OnceLock<MapCache>; 2],
    /// A refusal has been told the operator.
    told: AtomicBool,
}

impl Source {
    /// A source for one front-end. Front-ends do not share one: who gets the descriptor of a DRM node
    /// can map everything that was allocated with it.
    ///
    /// # Errors
    /// See [`SourceError`].
    pub fn open(choice: Choice, flusher: Arc<dyn Flusher>) -> Result<Self, SourceError> {
        let (allocator, facts) = match &choice.place {
            Place::Node(path) => {
                let allocator = Allocator::open(path, Handout::Node)?;
                (allocator, Some(Facts::of_this_machine()?))
            }
            Place::Plain(PlainMemory::Udmabuf) => (Allocator::udmabuf(Path::new(UDMABUF))?, None),
            Place::Plain(PlainMemory::Memfd) => (Allocator::memfd(), None),
        };
        Ok(Self::with(allocator, facts, choice, flusher)?)
    }

    /// A source of what this allocator gives.
    fn with(
        allocator: Allocator,
        facts: Option<Facts>,
        choice: Choice,
        flusher: Arc<dyn Flusher>,
    ) -> Result<Self, AllocError> {
        let sample = allocator.allocate(PAGE_SIZE, want(&choice))?.traits();
        Ok(Self {
            allocator,
            choice,
            facts,
            host: OnceLock::new(),
            sample,
            quarantine: Arc::new(Quarantine::new(flusher)),
            map_infos: [const { OnceLock::new() }; 2],
            told: AtomicBool::new(false),
        })
    }

    /// A source of what an allocator gives that a test has made up.
    ///
    /// # Errors
    /// What the allocator says.
    #[cfg(test)]
    pub(crate) fn of(
        allocator: Allocator,
        choice: Choice,
        flusher: Arc<dyn Flusher>,
    ) -> Result<Self, AllocError> {
        Self::with(allocator, None, choice, flusher)
    }

    /// How guests will be told to map images of the description that a context has given this id, as
    /// far as it can be said before one is allocated. `acked` is whether the front-end has accepted
    /// the memory-type extension.
    #[must_use]
    pub fn map_info(&self, id: BlobId, acked: bool) -> MapCache {
        #[cfg(feature = "test-memtype")]
        if let Some(cache) = super::test_memtype::announced(id) {
            return cache;
        }
        let [without, with] = &self.map_infos;
        let known = if acked { with } else { without };
        *known.get_or_init(|| match self.plan(id, &self.sample, acked) {
            Plan::Map(plan) => plan.guest(),
            Plan::Refuse(_) => MapCache::Cached,
        })
    }

    /// Allocates an image of the description with this id: `len` bytes, a page multiple.
    ///
    /// # Errors
    /// What the allocator says.
    pub fn image(&self, id: BlobId, len: u64, acked: bool) -> Result<PlannedMemory, AllocError> {
        let planned = |memory: HostMemory| {
            let plan = self.plan(id, &memory.traits(), acked);
            PlannedMemory::new(memory, plan, Arc::clone(&self.quarantine))
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

    /// Plans how memory that a renderer has exported may be mapped: `len` bytes, a page multiple.
    ///
    /// # Errors
    /// It is of no kind that can be mapped, or shorter.
    pub fn exported(
        &self,
        blob: ExportedBlob,
        len: u64,
        acked: bool,
    ) -> Result<PlannedMemory, ExportError> {
        let memory = exported::memory(blob, len)?;
        let facts = self.facts.as_ref().or_else(|| {
            let host = self.host.get_or_init(|| Facts::of_this_machine().ok());
            host.as_ref()
        });
        let plan = self.plan_on(facts, &memory.traits(), acked);
        // All as images of the first description.
        #[cfg(feature = "test-memtype")]
        let plan = super::test_memtype::announced(BlobId(1)).map_or(plan, Plan::announced);
        if let Some(summary) = plan.why().first() {
            log::debug!("{len} bytes from the renderer: {summary}");
        }
        let quarantine = Arc::clone(&self.quarantine);
        Ok(PlannedMemory::new(memory, plan, quarantine))
    }

    /// Plans how plain memory that was allocated elsewhere may be mapped.
    #[must_use]
    pub fn plain(&self, memory: HostMemory, acked: bool) -> PlannedMemory {
        let plan = self.plan_on(None, &memory.traits(), acked);
        PlannedMemory::new(memory, plan, Arc::clone(&self.quarantine))
    }

    /// What is gone for the guest but kept, as it cannot be flushed.
    #[must_use]
    pub fn kept(&self) -> Kept {
        self.quarantine.kept()
    }

    /// Tries to flush a piece of what is kept. Takes its time; not to be called with anything locked.
    pub fn retry_kept(&self) {
        self.quarantine.retry();
    }

    /// What was flushed, and what could not be: a line for the operator.
    #[must_use]
    pub fn flushes(&self) -> String {
        self.quarantine.to_string()
    }

    /// Tells the operator why memory cannot be mapped: once, as guests can ask for it all day.
    pub fn tell(&self, refusal: &Refusal) {
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
        self.plan_on(self.facts.as_ref(), traits, acked)
    }

    fn plan_on(&self, facts: Option<&Facts>, traits: &Traits, acked: bool) -> Plan {
        let (platform, traits) = match facts {
            Some(facts) => (facts.into(), with_proof(*traits, facts)),
            None => (PlatformFacts::unknown("not asked for"), *traits),
        };
        let vmm = VmmFacts::new(&platform, self.choice.vmm, acked);
        plan(&traits, &vmm, false, self.choice.policy)
    }
}

fn want(choice: &Choice) -> Want {
    match choice.policy.noncoherent {
        Noncoherent::Off => Want::Coherent,
        Noncoherent::Auto | Noncoherent::Coerce => Want::Noncoherent,
    }
}
