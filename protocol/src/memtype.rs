//! How a guest maps a host blob.

/// Cache type with which the guest must map a blob, as told by `map_info`.
///
/// Source: `VIRTIO_GPU_MAP_CACHE_*`, section "Device Operation: controlq (3d)",
/// VIRTIO_GPU_CMD_RESOURCE_MAP_BLOB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum MapCache {
    /// Ordinary write-back memory.
    Cached = 1,
    /// Uncached.
    Uncached = 2,
    /// Write-combining.
    Wc = 3,
}

impl MapCache {
    /// Part of `map_info` that holds the cache type (`VIRTIO_GPU_MAP_CACHE_MASK`).
    pub const MASK: u32 = 0x0f;

    /// The cache type in a `map_info` word; other bits are ignored. `None` for
    /// `VIRTIO_GPU_MAP_CACHE_NONE` (0) and for values that the specification does not name.
    #[must_use]
    pub const fn from_wire(map_info: u32) -> Option<Self> {
        match map_info & Self::MASK {
            1 => Some(Self::Cached),
            2 => Some(Self::Uncached),
            3 => Some(Self::Wc),
            _ => None,
        }
    }

    /// The `map_info` word.
    #[must_use]
    pub const fn to_wire(self) -> u32 {
        self as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_values_are_those_of_the_specification() {
        for (raw, cache) in [
            (1, MapCache::Cached),
            (2, MapCache::Uncached),
            (3, MapCache::Wc),
        ] {
            assert_eq!(MapCache::from_wire(raw), Some(cache));
            assert_eq!(cache.to_wire(), raw);
            // Renderers add access bits above the mask.
            assert_eq!(MapCache::from_wire(raw | 0x30), Some(cache));
        }
        for raw in [0, 4, 15, 0x10] {
            assert_eq!(MapCache::from_wire(raw), None, "{raw}");
        }
    }
}
