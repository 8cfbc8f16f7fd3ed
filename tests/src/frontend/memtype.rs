//! The flags of a SHMEM_MAP request, with and without the memory-type extension.
//!
//! Upstream vhost-user has one flag, bit 0: the guest may write. Where both sides agreed on the
//! extension ([`MEMTYPE`](crate::frontend::message::protocol::MEMTYPE)), bits 4 to 7 say how guest
//! accesses must be cached and bit 8 that devices access the pages without snooping. Whatever a
//! front-end does not know it refuses: a bit that is ignored is a promise that is broken.

/// Flag: the guest may write.
pub const WRITABLE: u64 = 1 << 0;
/// Where the memory type begins.
const CACHE_SHIFT: u32 = 4;
/// The bits of the memory type.
pub const CACHE_MASK: u64 = 0xf << CACHE_SHIFT;
/// Flag: device accesses to these pages are not snooped.
pub const NONCOHERENT: u64 = 1 << 8;

/// How guest accesses must be cached; the values are those of virtio-gpu's `map_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Cache {
    /// Ordinary write-back memory.
    Cached = 1,
    /// Not cached.
    Uncached = 2,
    /// Not cached, writes are gathered.
    WriteCombining = 3,
}

impl Cache {
    /// The flags that ask for this type.
    #[must_use]
    pub fn flags(self) -> u64 {
        (self as u64) << CACHE_SHIFT
    }

    /// Whether it takes effect only if the guest's own page tables decide. For
    /// [`Cache::Cached`] nothing needs to be arranged: it is what hypervisors do by themselves.
    #[must_use]
    pub fn needs_guest_type(self) -> bool {
        self != Self::Cached
    }
}

/// Flags that are not known or contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("flags {flags:#x}: {what}")]
pub struct FlagsError {
    /// All flags of the request.
    pub flags: u64,
    /// Which part.
    pub what: &'static str,
}

/// What a map request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapFlags {
    /// Whether the guest may write.
    pub writable: bool,
    /// The memory type, if the request names one.
    pub cache: Option<Cache>,
    /// Whether devices access the pages without snooping.
    pub noncoherent: bool,
}

impl MapFlags {
    /// Reads the flags of a request; `extended` says whether the extension was agreed on.
    ///
    /// # Errors
    /// [`FlagsError`] for a bit or a memory type that is not known, and for NONCOHERENT
    /// without a type that keeps the guest's accesses out of the caches.
    pub fn parse(flags: u64, extended: bool) -> Result<Self, FlagsError> {
        let known = if extended {
            WRITABLE | CACHE_MASK | NONCOHERENT
        } else {
            WRITABLE
        };
        let refuse = |what| Err(FlagsError { flags, what });
        if flags & !known != 0 {
            return refuse("a bit that is not known here");
        }
        let cache = match (flags & CACHE_MASK) >> CACHE_SHIFT {
            0 => None,
            1 => Some(Cache::Cached),
            2 => Some(Cache::Uncached),
            3 => Some(Cache::WriteCombining),
            _ => return refuse("a memory type that does not exist"),
        };
        let noncoherent = flags & NONCOHERENT != 0;
        if noncoherent && !cache.is_some_and(Cache::needs_guest_type) {
            return refuse("memory that devices do not snoop, without a type that fits");
        }
        Ok(Self {
            writable: flags & WRITABLE != 0,
            cache,
            noncoherent,
        })
    }

    /// Whether the guest's own memory type has to take effect on these pages.
    #[must_use]
    pub fn needs_guest_type(self) -> bool {
        self.cache.is_some_and(Cache::needs_guest_type)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_refused(flags: u64, extended: bool) -> bool {
        matches!(
            MapFlags::parse(flags, extended),
            Err(FlagsError { flags: named, .. }) if named == flags
        )
    }

    #[test]
    fn each_bit_has_its_meaning() {
        let flags = |writable, cache, noncoherent| MapFlags {
            writable,
            cache,
            noncoherent,
        };
        // Bits typed in from the extension's text, not from the constants above.
        for (raw, expected) in [
            (0x000, flags(false, None, false)),
            (0x001, flags(true, None, false)),
            (0x011, flags(true, Some(Cache::Cached), false)),
            (0x020, flags(false, Some(Cache::Uncached), false)),
            (0x031, flags(true, Some(Cache::WriteCombining), false)),
            (0x121, flags(true, Some(Cache::Uncached), true)),
            (0x131, flags(true, Some(Cache::WriteCombining), true)),
        ] {
            assert_eq!(MapFlags::parse(raw, true).unwrap(), expected, "{raw:#x}");
        }
        assert_eq!(Cache::WriteCombining.flags(), 0x30);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for bit in (1..=3).chain(9..=63) {
            assert!(is_refused(0x31 | 1 << bit, true), "bit {bit}");
        }
        for cache in 4..=15 {
            assert!(is_refused(cache << 4, true), "type {cache}");
        }
        // Nobody may skip the caches of memory that the guest caches, or whose type is open.
        assert!(is_refused(0x101, true));
        assert!(is_refused(0x111, true));
    }

    #[test]
    fn without_the_extension_only_the_upstream_flag_exists() {
        assert!(MapFlags::parse(1, false).unwrap().writable);
        for bit in 1..=63 {
            assert!(is_refused(1 << bit, false), "bit {bit}");
        }
    }

    #[test]
    fn only_two_types_need_the_guests_word() {
        let needs = |raw| MapFlags::parse(raw, true).unwrap().needs_guest_type();
        assert_eq!(
            [0x00, 0x10, 0x20, 0x30].map(needs),
            [false, false, true, true]
        );
    }
}
