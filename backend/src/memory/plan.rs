//! The policy on memory types, one pure function: [`plan`].
//!
//! A guest may map a blob write-combining only if every link of the chain is known to agree: the
//! GPU does not depend on cached data, the host's own mappings are write-combining, the VMM lets
//! the guest's memory type take effect for every kind of page that the blob may have, and the guest
//! is told so. What is unknown on any link makes the blob cached, where all its devices snoop, or
//! refused. It never makes it write-combining.
//!
//! | devices snoop? | host mapping | guest's type honored? | result |
//! |---|---|---|---|
//! | no, unknown | WC | yes | WC |
//! | no, unknown | WC | no, unknown | refused |
//! | no, unknown | cached | | refused: never handed to such a device |
//! | yes, for every importer | WC | yes | WC |
//! | yes, for every importer | WC | no, unknown | cached; refused if a host CPU uses the WC mapping |
//! | no device | WC | yes | WC |
//! | no device | WC | no, unknown | refused: CPU mappings of two types |
//! | yes, no device | cached | | cached |
//! | | uncached, unknown | | refused |
//!
//! "Honored" needs page kinds that are known, and a way of allocating that has been verified on
//! hardware or is allowed unverified. An unverified write-combining mapping is therefore treated
//! like one that the VMM does not honor: the one result that is left then, cached, relies on
//! snooping alone, whatever type the host's mapping really has, because nobody uses that.
//! Cached host mappings need no verification: they are what kernels give by default.
//!
//! The plan speaks for a guest that follows `map_info`. A guest owns its page tables and may map
//! anything; then only that blob's contents are affected, and [`MapPlan::flush`] keeps what is left
//! in caches from everybody else.

#[cfg(test)]
mod tests;
pub mod vmm;
mod why;

use std::fmt;

use clap::ValueEnum;
use nosnoop_protocol::MapCache;

use super::kind::{PageKind, PageKinds, Snooping, Traits};
pub use nosnoop_protocol::MemslotRequest;
pub use vmm::{Arch, PlatformFacts, Vendor, VmmFacts, VmmMemtype};

/// What to do with memory that devices access without snooping (`--noncoherent`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Noncoherent {
    /// Map it where every link is known to agree, else refuse.
    #[default]
    Auto,
    /// The same, and this program's own allocators allocate coherent memory instead of a refusal.
    Coerce,
    /// Take write-combining memory only where every device is known to snoop; this program's own
    /// allocators allocate coherent memory.
    Off,
}

/// What the operator decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// What to do with memory that devices access without snooping.
    pub noncoherent: Noncoherent,
    /// Believe ways of allocating that have never run on real hardware (`--allow-unverified`).
    pub allow_unverified: bool,
}

/// What becomes of a blob when a guest wants to map it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// It can be mapped like this.
    Map(MapPlan),
    /// It cannot. Shows at RESOURCE_MAP_BLOB, as `ERR_UNSPEC`.
    Refuse(Refusal),
}

impl Plan {
    /// The plan for memory that is announced as something that it is not: to be flushed as if it
    /// were.
    #[cfg(feature = "test-memtype")]
    pub(super) fn announced(guest: MapCache) -> Self {
        Self::Map(MapPlan {
            host: MapCache::Cached,
            guest,
            memslot: MemslotRequest::Unspecified,
            flush: guest != MapCache::Cached,
            why: vec!["announced by --test-memtype".to_owned()],
        })
    }

    /// The summary in one line, then the chain of facts, a line each.
    #[must_use]
    pub fn why(&self) -> &[String] {
        match self {
            Self::Map(plan) => plan.why(),
            Self::Refuse(refusal) => refusal.why(),
        }
    }
}

/// How a blob is mapped. Only [`plan`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapPlan {
    host: MapCache,
    guest: MapCache,
    memslot: MemslotRequest,
    flush: bool,
    why: Vec<String>,
}

impl MapPlan {
    /// The memory type of the host's own mappings.
    #[must_use]
    pub fn host(&self) -> MapCache {
        self.host
    }

    /// What the guest is told (`map_info`).
    #[must_use]
    pub fn guest(&self) -> MapCache {
        self.guest
    }

    /// What the front-end is asked for.
    #[must_use]
    pub fn memslot(&self) -> MemslotRequest {
        self.memslot
    }

    /// Whether the pages must be flushed from the CPUs' caches, once before they are first exposed
    /// and once after they are last.
    ///
    /// True where the host maps RAM other than cached: the kernel that lends the pages counts on
    /// clean caches, and a guest may have mapped them cached whatever it was told. Never where a
    /// page may be device memory: flushing that machine-checks on some platforms, so RAM among it is
    /// left to the kernel.
    #[must_use]
    pub fn flush(&self) -> bool {
        self.flush
    }

    /// The summary in one line, then the chain of facts, a line each.
    #[must_use]
    pub fn why(&self) -> &[String] {
        &self.why
    }
}

/// Why a blob cannot be mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    why: Vec<String>,
    coercible: bool,
}

impl Refusal {
    /// The link that failed, and what to change: one line.
    #[must_use]
    pub fn summary(&self) -> &str {
        self.why.first().map_or("", String::as_str)
    }

    /// The summary, then further links that failed, then the chain of facts, a line each.
    #[must_use]
    pub fn why(&self) -> &[String] {
        &self.why
    }

    /// Whether the operator wants coherent memory instead (`--noncoherent=coerce`) and that would
    /// help: an allocator that can shall allocate anew, cached and snooped. Nothing can be done so
    /// for memory that a renderer has allocated.
    #[must_use]
    pub fn coercible(&self) -> bool {
        self.coercible
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.summary())
    }
}

/// Decides how memory with these traits is mapped, by the table above.
///
/// `host_cpu_access` is whether a CPU of the host must use the memory through the host's own
/// mapping, while the guest has it mapped (a scanout that is copied).
#[must_use]
pub fn plan(traits: &Traits, vmm: &VmmFacts, host_cpu_access: bool, policy: Policy) -> Plan {
    let decided = match traits.host {
        None => Err(vec![Failure::HostUnknown]),
        Some(MapCache::Uncached) => Err(vec![Failure::HostUncached]),
        Some(MapCache::Cached) => match traits.snooping {
            Snooping::Yes | Snooping::NoDevice => Ok(Way::Cached),
            Snooping::No | Snooping::Unknown => Err(vec![Failure::CachedNotSnooped]),
        },
        Some(MapCache::Wc) => write_combining(traits, vmm, host_cpu_access, policy),
    };
    match decided {
        Ok(way) => {
            let (host, guest) = way.caches();
            let flush = owes_flush(way, traits.kinds);
            Plan::Map(MapPlan {
                host,
                guest,
                memslot: request(way, traits.snooping, vmm.speaks_memtype()),
                flush,
                why: why::mapped(way, flush, traits, vmm, policy),
            })
        }
        Err(failures) => Plan::Refuse(Refusal {
            why: why::refused(&failures, traits, vmm, policy),
            // Other memory that is refused is cached already, or not known.
            coercible: policy.noncoherent == Noncoherent::Coerce
                && traits.host == Some(MapCache::Wc),
        }),
    }
}

/// The ways to map a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Cached everywhere.
    Cached,
    /// Cached in the guest, beside write-combining mappings of the host's that nobody uses.
    CachedBesideWc,
    /// Write-combining everywhere.
    Wc,
}

impl Way {
    /// The host's type and the guest's.
    fn caches(self) -> (MapCache, MapCache) {
        match self {
            Self::Cached => (MapCache::Cached, MapCache::Cached),
            Self::CachedBesideWc => (MapCache::Wc, MapCache::Cached),
            Self::Wc => (MapCache::Wc, MapCache::Wc),
        }
    }
}

/// How memory is mapped that the host maps write-combining.
fn write_combining(
    traits: &Traits,
    vmm: &VmmFacts,
    host_cpu_access: bool,
    policy: Policy,
) -> Result<Way, Vec<Failure>> {
    if policy.noncoherent == Noncoherent::Off && traits.snooping != Snooping::Yes {
        return Err(vec![Failure::Off]);
    }
    let mut obstacles = obstacles(traits, vmm, policy);
    if obstacles.is_empty() {
        return Ok(Way::Wc);
    }
    match traits.snooping {
        Snooping::Yes if !host_cpu_access => return Ok(Way::CachedBesideWc),
        Snooping::Yes => obstacles.push(Failure::HostCpu),
        Snooping::NoDevice => obstacles.push(Failure::CpusOnly),
        Snooping::No | Snooping::Unknown => {}
    }
    Err(obstacles)
}

/// A link that failed, or what keeps another way from being taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// The memory type of the host's mappings is not known.
    HostUnknown,
    /// The host's mappings are uncached, which no allocator here makes.
    HostUncached,
    /// The host's mappings are cached, and a device does not snoop.
    CachedNotSnooped,
    /// The operator wants no noncoherent memory.
    Off,
    /// The way of allocating has never run on real hardware.
    Unverified,
    /// The kinds of page are not known.
    KindsUnknown,
    /// The VMM is not known to honor the guest's type for pages of this kind.
    NotHonored(PageKind),
    /// Not cached either: the host's CPUs would use a mapping of another type.
    HostCpu,
    /// Not cached either: CPUs are all there is, and they would have mappings of two types.
    CpusOnly,
}

/// What keeps memory that the host maps write-combining from being so in the guest.
fn obstacles(traits: &Traits, vmm: &VmmFacts, policy: Policy) -> Vec<Failure> {
    let mut obstacles = Vec::new();
    if !traits.verified && !policy.allow_unverified {
        obstacles.push(Failure::Unverified);
    }
    match traits.kinds {
        PageKinds::Unknown => obstacles.push(Failure::KindsUnknown),
        known @ (PageKinds::Ram | PageKinds::Mmio | PageKinds::Either) => {
            let kinds = known.kinds().iter().copied();
            let failed = kinds.filter(|kind| !vmm.honors(*kind).is_yes());
            obstacles.extend(failed.map(Failure::NotHonored));
        }
    }
    obstacles
}

/// Whether some device's accesses are not snooped, or not known to be.
fn is_noncoherent(snooping: Snooping) -> bool {
    match snooping {
        Snooping::No | Snooping::Unknown => true,
        Snooping::Yes | Snooping::NoDevice => false,
    }
}

/// The bits for the front-end: none unless it has said that it understands them.
fn request(way: Way, snooping: Snooping, spoken: bool) -> MemslotRequest {
    if !spoken {
        return MemslotRequest::Unspecified;
    }
    match way {
        Way::Cached | Way::CachedBesideWc => MemslotRequest::Cached,
        Way::Wc => MemslotRequest::Wc {
            noncoherent: is_noncoherent(snooping),
        },
    }
}

fn owes_flush(way: Way, kinds: PageKinds) -> bool {
    match way {
        Way::Cached => false,
        Way::CachedBesideWc | Way::Wc => match kinds {
            PageKinds::Ram => true,
            PageKinds::Mmio | PageKinds::Either | PageKinds::Unknown => false,
        },
    }
}
