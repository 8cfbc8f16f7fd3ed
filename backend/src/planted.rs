//! Bugs on purpose, for test builds (the feature `test-bugs`): `--plant BUG` gives the daemon one.
//!
//! They show that `nosnoop-conform` finds what it claims to look for: for each there is a group of
//! cases that must fail. Without the feature [`planted`] is false at compile time, and nothing of a bug
//! is in the program.

#[cfg(feature = "test-bugs")]
mod active;

#[cfg(feature = "test-bugs")]
pub(crate) use active::{again, json, keep_first_table, plant, planted, spoil};

/// Declares the bugs by the group of cases that is to find them.
macro_rules! bugs {
    ($($group:literal { $($(#[$doc:meta])* $bug:ident,)+ })+) => {
        /// A bug that can be planted. The names on the command line have dashes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[cfg_attr(feature = "test-bugs", derive(clap::ValueEnum))]
        #[cfg_attr(
            not(feature = "test-bugs"),
            expect(dead_code, reason = "some are planted in the module of test builds alone")
        )]
        pub(crate) enum Bug {
            $($($(#[$doc])* $bug,)+)+
        }

        #[cfg(feature = "test-bugs")]
        impl Bug {
            /// The group of cases that is to find it.
            pub(crate) fn group(self) -> &'static str {
                match self {
                    $($(Self::$bug)|+ => $group,)+
                }
            }
        }
    };
}

bugs! {
    "negotiation" {
        /// GET_CONFIG answers from the start of the configuration, whatever its offset
        ConfigOffsetIgnored,
        /// The configuration has one scanout less than the device
        ConfigScanoutMissing,
    }
    "2d" {
        /// A transfer of a part reads rows that are as long as the part
        TransferStride,
        /// A transfer reads from the start of the backing, whatever its offset
        TransferOffsetIgnored,
        /// A backing is taken for one piece of memory, from its first entry on
        BackingContiguous,
        /// A resource that is forgotten stays
        UnrefKeepsResource,
    }
    "formats" {
        /// Red and blue are swapped in one of the formats
        RedBlueSwapped,
    }
    "scanout" {
        /// A scanout shows the resource's upper left corner, whatever its rectangle
        ScanoutOriginIgnored,
        /// A scanout may leave its resource
        ScanoutOutsideAccepted,
        /// A scanout that is disabled stays as it was
        DisableIgnored,
    }
    "display" {
        /// What a flush shows is at the scanout's corner, whatever its rectangle
        DamageMisplaced,
        /// The device accepts features of the display that were not offered
        DisplayFeaturesAssumed,
    }
    "cursor" {
        /// The cursor's hot spot is its corner
        HotspotIgnored,
        /// A cursor that is hidden stays
        HideIgnored,
        /// A cursor is opaque
        CursorOpaque,
    }
    "edid" {
        /// An EDID's checksum is wrong
        EdidChecksum,
        /// Scanouts that are not there have an EDID
        EdidOfAbsentScanout,
    }
    "uuid" {
        /// All resources have the same UUID
        UuidShared,
    }
    "fences" {
        /// A response has no fence flag
        FenceFlagLost,
        /// A response has fence id 0
        FenceIdLost,
        /// A response has context 0 and ring index 0
        FenceRingLost,
        /// Fences of a timeline overtake each other
        FencesOvertake,
    }
    "contexts" {
        /// A context that is destroyed stays
        ContextStays,
        /// A context of a capability set that is not there can be made
        UnknownCapsetAccepted,
        /// A resource can be attached to a context that is not there
        AttachWithoutContext,
    }
    "capsets" {
        /// There is a capability set behind the last
        CapsetBeyondLast,
        /// The largest size of a capability set is too small
        CapsetSizeShort,
    }
    "cross-domain" {
        /// An image's rows are said to be shorter than they are
        ImageStrideShort,
        /// An image can be made of any size
        ImageSizeUnchecked,
    }
    "guest-blob" {
        /// A blob's rows follow each other without gap, whatever the stride
        BlobStrideIgnored,
        /// A picture begins at the start of its blob, whatever its offset
        BlobOffsetIgnored,
        /// A picture in a blob is read in one format, whatever was said
        BlobFormatIgnored,
    }
    "host-blob" {
        /// A blob that is forgotten stays mapped
        UnrefLeavesMapping,
        /// A blob may be mapped over another
        OverlapAccepted,
        /// A blob that is mapped may be mapped again
        MappedTwice,
        /// A blob is mapped read-only
        MapReadOnly,
    }
    "memtype" {
        /// A cached blob is told to be write-combining
        MapInfoWc,
        /// A request to map has a memory type that the front-end has not agreed to
        MemtypeUnasked,
    }
    "memory-table" {
        /// The first memory table stays in use
        MemoryTableStale,
    }
    "reset" {
        /// A reset leaves resources, scanouts and contexts
        ResetIgnored,
        /// A ring that is stopped says that it was at its beginning
        RingPlaceLost,
    }
    "reconnect" {
        /// Only the first front-end's display is used
        SecondDisplayIgnored,
    }
    "rings" {
        /// Nothing is said to have been written
        UsedLengthZero,
        /// The guest is not told of requests that are done
        SignalMissing,
        /// The guest is told of requests that are done though it wants no notifications
        SignalUnwanted,
        /// Only the first writable buffer of a request is used
        ResponseNotScattered,
    }
    "hostile-rings" {
        /// A chain with a loop ends the process
        MalformedChainFatal,
        /// An impossible index in a ring ends the process
        BrokenRingFatal,
        /// A ring that was broken once is so for good
        BrokenRingStays,
    }
    "garbage" {
        /// Commands that are not known succeed
        UnknownCommandSucceeds,
        /// A request too short for its command ends the process
        ShortRequestFatal,
        /// A guest can take as much host memory as there is
        QuotaIgnored,
    }
}

/// Whether this bug is planted.
#[cfg(not(feature = "test-bugs"))]
pub(crate) const fn planted(_: Bug) -> bool {
    false
}
