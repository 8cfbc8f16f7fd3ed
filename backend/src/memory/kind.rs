//! What is known of a piece of host memory: how the host maps it, which pages it has, and whether a
//! device's accesses to it are snooped. User space cannot read any of it back from a mapping, so
//! whoever allocates records it and it travels with the memory.

use std::fmt;

use nosnoop_protocol::MapCache;
use serde::Serialize;

/// What lies behind a page of host memory, which decides how hypervisors treat it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PageKind {
    /// Pages of the host's RAM: shmem, TTM system pages, memfd, udmabuf.
    Ram,
    /// Pages of a device's memory behind a PCI BAR: VRAM.
    Mmio,
}

impl PageKind {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::Ram, Self::Mmio];
}

impl fmt::Display for PageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ram => "RAM",
            Self::Mmio => "device memory",
        })
    }
}

/// The kinds of page that an allocation may have, now or after its driver has moved it: every
/// placement that the kernel may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PageKinds {
    /// RAM only.
    Ram,
    /// Device memory only.
    Mmio,
    /// Either, at any time.
    Either,
    /// Not known: nothing may be assumed.
    Unknown,
}

impl PageKinds {
    /// The kinds that must all be provided for. Those of [`PageKinds::Unknown`] are not known, so
    /// it has none; ask for it first.
    #[must_use]
    pub fn kinds(self) -> &'static [PageKind] {
        match self {
            Self::Ram => &[PageKind::Ram],
            Self::Mmio => &[PageKind::Mmio],
            Self::Either => &PageKind::ALL,
            Self::Unknown => &[],
        }
    }
}

/// Whether the accesses of the devices that use some memory are snooped by the CPUs' caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Snooping {
    /// Proved for every device that may import it.
    Yes,
    /// At least one device does not.
    No,
    /// Not known; to be treated as [`Snooping::No`].
    Unknown,
    /// No device accesses it: CPUs only.
    NoDevice,
}

/// What the allocator records of its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Traits {
    /// The memory type of the host's own mappings of it; `None` if it is not known.
    #[serde(serialize_with = "cache_name")]
    pub host: Option<MapCache>,
    /// The kinds of page that it may have.
    pub kinds: PageKinds,
    /// Whether devices snoop.
    pub snooping: Snooping,
    /// Whether this way of allocating has been seen to do what it says on real hardware. vgem
    /// and plain memory count: they need none.
    pub verified: bool,
}

fn cache_name<S: serde::Serializer>(
    cache: &Option<MapCache>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(match cache {
        Some(MapCache::Cached) => "cached",
        Some(MapCache::Uncached) => "uncached",
        Some(MapCache::Wc) => "wc",
        None => "unknown",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_placement_counts() {
        assert_eq!(PageKinds::Ram.kinds(), [PageKind::Ram]);
        assert_eq!(PageKinds::Mmio.kinds(), [PageKind::Mmio]);
        assert_eq!(PageKinds::Either.kinds(), PageKind::ALL);
        assert_eq!(PageKinds::Unknown.kinds(), []);
    }
}
