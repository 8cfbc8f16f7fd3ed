//! How a guest maps a host blob, and how the front-end is asked for it.
//!
//! `VHOST_USER_BACKEND_SHMEM_MAP` says which range of a file to map where, and read-only or
//! read-write. It does not say how the guest's accesses must be cached, so no VMM can be asked for
//! a memslot that honors the guest's memory type. The private extension [`NOSNOOP_MEMTYPE`] adds
//! that, in [`ShmemMapFlags`], and nothing else:
//!
//! | bits of `flags` | meaning |
//! |---|---|
//! | 0 | the guest may write (upstream's only bit) |
//! | 4..7 | memory type, in virtio-gpu's values: 0 unspecified, then those of [`MapCache`] |
//! | 8 | `NONCOHERENT`: device accesses to these pages are not snooped; only with types 2 and 3 |
//! | all others | zero |
//!
//! A front-end that has acknowledged the extension must let guest accesses take effect with the
//! guest's own memory type (for types 2 and 3), or answer with failure and leave nothing mapped. It
//! must not map and ignore. With `NONCOHERENT` it must refuse rather than force write-back.

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

/// vhost-user protocol feature (a mask): `SHMEM_MAP` carries a memory type.
///
/// Bit 56, private and high until a number is assigned.
pub const NOSNOOP_MEMTYPE: u64 = 1 << 56;

/// The protocol features (a mask) without which [`NOSNOOP_MEMTYPE`] is neither offered nor used:
/// `SHMEM` (22) has the message, `BACKEND_REQ` (5) the channel for it, and `REPLY_ACK` (3) the
/// answer. A map without an answer would be an unknown map.
pub const NOSNOOP_MEMTYPE_NEEDS: u64 = 1 << 22 | 1 << 5 | 1 << 3;

/// Whether a back-end that offers these protocol features may offer [`NOSNOOP_MEMTYPE`] with them.
#[must_use]
pub const fn may_offer_memtype(features: u64) -> bool {
    features & NOSNOOP_MEMTYPE_NEEDS == NOSNOOP_MEMTYPE_NEEDS
}

/// Whether both sides speak [`NOSNOOP_MEMTYPE`] once these protocol features are acknowledged.
#[must_use]
pub const fn speaks_memtype(acked: u64) -> bool {
    may_offer_memtype(acked) && acked & NOSNOOP_MEMTYPE != 0
}

/// What a front-end is asked for: the memory type that guest accesses to a mapping must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MemslotRequest {
    /// Nothing is asked. All that may be sent to a front-end that does not speak
    /// [`NOSNOOP_MEMTYPE`].
    Unspecified,
    /// Ordinary write-back memory. Devices snoop, or there are none.
    Cached,
    /// The guest maps it uncached, and that must take effect.
    Uncached {
        /// Device accesses are not snooped.
        noncoherent: bool,
    },
    /// The guest maps it write-combining, and that must take effect.
    Wc {
        /// Device accesses are not snooped.
        noncoherent: bool,
    },
}

impl MemslotRequest {
    /// The memory type; `None` if none is asked for.
    #[must_use]
    pub const fn cache(self) -> Option<MapCache> {
        match self {
            Self::Unspecified => None,
            Self::Cached => Some(MapCache::Cached),
            Self::Uncached { .. } => Some(MapCache::Uncached),
            Self::Wc { .. } => Some(MapCache::Wc),
        }
    }

    /// Whether it says that device accesses are not snooped.
    #[must_use]
    pub const fn noncoherent(self) -> bool {
        match self {
            Self::Unspecified | Self::Cached => false,
            Self::Uncached { noncoherent } | Self::Wc { noncoherent } => noncoherent,
        }
    }
}

/// `SHMEM_MAP.flags` as both sides of [`NOSNOOP_MEMTYPE`] understand them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ShmemMapFlags {
    /// Whether the guest may write.
    pub writable: bool,
    /// The memory type of guest accesses.
    pub memory: MemslotRequest,
}

/// Why `SHMEM_MAP.flags` are refused. Nothing may be mapped then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FlagsError {
    /// Bits that mean nothing here are set: these.
    #[error("SHMEM_MAP has unknown flags {0:#x}")]
    Unknown(u64),
    /// Bits 4..7 hold this, which is no memory type.
    #[error("SHMEM_MAP has the unknown memory type {0}")]
    Type(u64),
    /// `NONCOHERENT` with a memory type that is unspecified or cached.
    #[error("SHMEM_MAP says that devices do not snoop memory that is not asked to be uncached")]
    Noncoherent,
}

impl ShmemMapFlags {
    const WRITABLE: u64 = 1 << 0;
    const TYPE_SHIFT: u32 = 4;
    const TYPE: u64 = 0xf << Self::TYPE_SHIFT;
    const NONCOHERENT: u64 = 1 << 8;

    /// The word on the wire.
    #[must_use]
    pub const fn to_wire(self) -> u64 {
        let memory = match self.memory {
            MemslotRequest::Unspecified => 0,
            MemslotRequest::Cached => 1,
            MemslotRequest::Uncached { .. } => 2,
            MemslotRequest::Wc { .. } => 3,
        } << Self::TYPE_SHIFT;
        let writable = if self.writable { Self::WRITABLE } else { 0 };
        let noncoherent = if self.memory.noncoherent() {
            Self::NONCOHERENT
        } else {
            0
        };
        memory | writable | noncoherent
    }

    /// What the word on the wire says; for the receiving side, once the extension is acknowledged.
    ///
    /// # Errors
    /// [`FlagsError`] for words that [`ShmemMapFlags::to_wire`] never makes. Bits 1..3 are refused
    /// like bits 9..63: what they will mean upstream is not known.
    pub const fn from_wire(flags: u64) -> Result<Self, FlagsError> {
        let unknown = flags & !(Self::WRITABLE | Self::TYPE | Self::NONCOHERENT);
        if unknown != 0 {
            return Err(FlagsError::Unknown(unknown));
        }
        let noncoherent = flags & Self::NONCOHERENT != 0;
        let memory = match (flags & Self::TYPE) >> Self::TYPE_SHIFT {
            0 | 1 if noncoherent => return Err(FlagsError::Noncoherent),
            0 => MemslotRequest::Unspecified,
            1 => MemslotRequest::Cached,
            2 => MemslotRequest::Uncached { noncoherent },
            3 => MemslotRequest::Wc { noncoherent },
            other => return Err(FlagsError::Type(other)),
        };
        Ok(Self {
            writable: flags & Self::WRITABLE != 0,
            memory,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    /// Every value there is.
    fn every_request() -> [MemslotRequest; 6] {
        use MemslotRequest::*;
        [
            Unspecified,
            Cached,
            Uncached { noncoherent: false },
            Uncached { noncoherent: true },
            Wc { noncoherent: false },
            Wc { noncoherent: true },
        ]
    }

    #[test]
    fn flag_words_are_exact() {
        let words = [0x00, 0x10, 0x20, 0x120, 0x30, 0x130];
        for (memory, word) in every_request().into_iter().zip(words) {
            for (writable, word) in [(false, word), (true, word | 1)] {
                let flags = ShmemMapFlags { writable, memory };
                assert_eq!(flags.to_wire(), word, "{flags:?}");
                assert_eq!(ShmemMapFlags::from_wire(word), Ok(flags), "{word:#x}");
            }
        }
    }

    #[test]
    fn types_are_those_of_map_info() {
        for memory in every_request() {
            let flags = ShmemMapFlags {
                writable: true,
                memory,
            };
            let nibble = u32::try_from(flags.to_wire() >> 4 & 0xf).unwrap();
            assert_eq!(MapCache::from_wire(nibble), memory.cache(), "{memory:?}");
        }
    }

    /// What the extension's table says of the low twelve bits, read off it once more: `None` where
    /// the word is refused.
    fn low_word(word: u64) -> Option<(bool, u32, bool)> {
        let (writable, rest) = (word % 2 == 1, word / 2);
        let (unnamed, rest) = (rest % 8, rest / 8);
        let (memory, rest) = (rest % 16, rest / 16);
        let (noncoherent, reserved) = (rest % 2 == 1, rest / 2);
        let named = unnamed == 0 && reserved == 0;
        let allowed = match memory {
            0 | 1 => !noncoherent,
            2 | 3 => true,
            _ => false,
        };
        (named && allowed).then(|| (writable, u32::try_from(memory).unwrap(), noncoherent))
    }

    #[test]
    fn every_low_word_is_what_the_table_says_or_refused() {
        let mut accepted = 0;
        for word in 0..1 << 12 {
            let decoded = ShmemMapFlags::from_wire(word).ok();
            let fields = decoded.map(|flags| {
                let cache = flags.memory.cache().map_or(0, MapCache::to_wire);
                (flags.writable, cache, flags.memory.noncoherent())
            });
            assert_eq!(fields, low_word(word), "{word:#x}");
            if let Some(flags) = decoded {
                assert_eq!(flags.to_wire(), word);
                accepted += 1;
            }
        }
        assert_eq!(accepted, 12);
    }

    #[test]
    fn refusals_say_what_is_wrong() {
        for (word, error) in [
            (0x41, FlagsError::Type(4)),
            (0xf0, FlagsError::Type(15)),
            (0x140, FlagsError::Type(4)),
            (0x100, FlagsError::Noncoherent),
            (0x111, FlagsError::Noncoherent),
            (0x02, FlagsError::Unknown(2)),
            (0x38, FlagsError::Unknown(8)),
            (0x330, FlagsError::Unknown(0x200)),
            (u64::MAX, FlagsError::Unknown(!0x1f1)),
        ] {
            assert_eq!(ShmemMapFlags::from_wire(word), Err(error), "{word:#x}");
        }
    }

    proptest! {
        #[test]
        fn any_word_decodes_to_what_encodes_to_it_or_is_refused(word: u64, low: bool) {
            // Half of the words without high bits: those above are refused at once.
            let word = if low { word & 0x1ff } else { word };
            if let Ok(flags) = ShmemMapFlags::from_wire(word) {
                prop_assert_eq!(flags.to_wire(), word);
            }
        }
    }

    #[test]
    fn reserved_bits_are_refused_each() {
        for bit in (1..4).chain(9..64) {
            let word = 1 << bit;
            for base in [0, 0x31, 0x130] {
                let decoded = ShmemMapFlags::from_wire(word | base);
                assert_eq!(decoded, Err(FlagsError::Unknown(word)), "bit {bit}");
            }
        }
    }

    #[test]
    fn the_extension_needs_its_three_companions() {
        assert_eq!(NOSNOOP_MEMTYPE, 0x0100_0000_0000_0000);
        let needs = [3, 5, 22];
        let all = needs.iter().fold(0, |mask, bit| mask | 1 << bit);
        assert!(may_offer_memtype(all));
        assert!(!speaks_memtype(all));
        assert!(speaks_memtype(all | NOSNOOP_MEMTYPE));
        assert!(speaks_memtype(u64::MAX));
        for bit in needs {
            let without = !(1 << bit);
            assert!(!may_offer_memtype(without), "{bit}");
            assert!(!speaks_memtype(without), "{bit}");
        }
    }
}
