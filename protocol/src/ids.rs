//! Typed identifiers: a resource id cannot be passed where a context id belongs.
//!
//! Ids for which the wire uses 0 as "none" hold a [`NonZeroU32`]; "none" is `Option::None`.

use std::fmt;
use std::num::NonZeroU32;

/// Number of scanouts that the protocol can describe (`VIRTIO_GPU_MAX_SCANOUTS`, section
/// "Device configuration layout": `num_scanouts` is 1 to 16).
pub const MAX_SCANOUTS: usize = 16;

/// Highest command ring (timeline) of a context: section "Device Operation: Request header"
/// allows `ring_idx` 0 to 63.
const MAX_RING_IDX: u8 = 63;

macro_rules! nonzero_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(NonZeroU32);

        impl $name {
            /// The id, or `None` for 0, which the wire uses for "none".
            #[must_use]
            pub const fn new(raw: u32) -> Option<Self> {
                match NonZeroU32::new(raw) {
                    Some(id) => Some(Self(id)),
                    None => None,
                }
            }

            /// The number on the wire, never 0.
            #[must_use]
            pub const fn get(self) -> u32 {
                self.0.get()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

nonzero_id! {
    /// A resource, numbered by the guest, unique per device. Never 0.
    ///
    /// Source: `resource_id`, section "Device Operation: controlq".
    ResourceId
}

nonzero_id! {
    /// A 3D context, numbered by the guest, unique per device. Never 0.
    ///
    /// Source: `ctx_id`, section "Device Operation: Request header".
    ContextId
}

/// A scanout (output): 0 to [`MAX_SCANOUTS`] - 1. Whether the device has that many outputs is not
/// checked here.
///
/// Source: `scanout_id`, section "Device Operation: controlq".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScanoutId(u8);

impl ScanoutId {
    /// The id, or `None` when `raw` is [`MAX_SCANOUTS`] or more.
    #[must_use]
    pub fn new(raw: u32) -> Option<Self> {
        let id = u8::try_from(raw).ok()?;
        (usize::from(id) < MAX_SCANOUTS).then_some(Self(id))
    }

    /// The id as an index into an array of [`MAX_SCANOUTS`] elements.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The number on the wire.
    #[must_use]
    pub fn get(self) -> u32 {
        u32::from(self.0)
    }

    /// All possible ids, in rising order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..u8::MAX).take(MAX_SCANOUTS).map(Self)
    }
}

impl fmt::Display for ScanoutId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A command ring (timeline) of a context: 0 to 63.
///
/// Source: `ring_idx`, section "Device Operation: Request header".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RingIdx(u8);

impl RingIdx {
    /// The ring, or `None` when `raw` is above 63.
    #[must_use]
    pub const fn new(raw: u8) -> Option<Self> {
        if raw <= MAX_RING_IDX {
            Some(Self(raw))
        } else {
            None
        }
    }

    /// The number on the wire.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl fmt::Display for RingIdx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A fence, numbered by the guest; any 64-bit value.
///
/// Source: `fence_id`, section "Device Operation: Request header".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FenceId(pub u64);

impl fmt::Display for FenceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a host blob is made from; the meaning belongs to the context's protocol. 0 for guest
/// blobs.
///
/// Source: `blob_id`, section "Device Operation: controlq", VIRTIO_GPU_CMD_RESOURCE_CREATE_BLOB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobId(pub u64);

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A capability set: 1 virgl, 2 virgl2, 4 venus, 5 cross-domain and so on.
///
/// Source: `capset_id`, section "Device Operation: controlq", VIRTIO_GPU_CMD_GET_CAPSET_INFO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CapsetId(pub u32);

impl fmt::Display for CapsetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name under which other virtio devices know an exported resource.
///
/// Source: section "Device Operation: controlq", VIRTIO_GPU_CMD_RESOURCE_ASSIGN_UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceUuid(pub [u8; 16]);

impl fmt::Display for ResourceUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_no_resource_and_no_context() {
        assert_eq!(ResourceId::new(0), None);
        assert_eq!(ContextId::new(0), None);
        assert_eq!(ResourceId::new(1).unwrap().get(), 1);
        assert_eq!(ContextId::new(u32::MAX).unwrap().get(), u32::MAX);
        assert_eq!(ResourceId::new(42).unwrap().to_string(), "42");
    }

    #[test]
    fn scanouts_end_at_sixteen() {
        assert_eq!(ScanoutId::new(15).unwrap().index(), 15);
        assert_eq!(ScanoutId::new(15).unwrap().get(), 15);
        for raw in [16, 255, 256, u32::MAX] {
            assert_eq!(ScanoutId::new(raw), None, "{raw}");
        }
        let all: Vec<u32> = ScanoutId::all().map(ScanoutId::get).collect();
        assert_eq!(all, (0..16).collect::<Vec<u32>>());
    }

    #[test]
    fn rings_end_at_sixty_three() {
        assert_eq!(RingIdx::new(0).unwrap().get(), 0);
        assert_eq!(RingIdx::new(63).unwrap().get(), 63);
        assert_eq!(RingIdx::new(64), None);
        assert_eq!(RingIdx::new(255), None);
    }

    #[test]
    fn uuid_is_shown_in_groups() {
        let mut bytes = [0u8; 16];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::try_from(i).unwrap();
        }
        assert_eq!(
            ResourceUuid(bytes).to_string(),
            "00010203-0405-0607-0809-0a0b0c0d0e0f"
        );
    }
}
