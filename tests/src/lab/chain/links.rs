//! The links of the chain from memory to the guest's program, and whether they agree.

use serde::Serialize;

use super::super::pages::{Mapped, MemoryType};

/// What a blob's memory looks like on its way from the host's pages to the guest's program. The
/// links are those of the README's chain, counted from the GPU on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Links {
    /// Link 2: the VMM's mapping of the blob's file.
    pub host: HostMapping,
    /// Link 3: the second stage of translation, which KVM makes of the memory slot.
    pub slot: SlotMapping,
    /// Link 4: `map_info` with which the device has described the image to the guest's program. That
    /// of the mapping itself goes to the driver alone, and shows in link 5.
    pub told: u32,
    /// Link 5: the mapping of the guest's program.
    pub guest: Mapped,
    /// Whether each side has found what the other has drawn.
    pub bytes_right: bool,
}

/// An image that the guest could not map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// The `map_info` with which the device had described it.
    pub described: u32,
    /// What the guest says.
    pub failure: String,
    /// What the daemon says.
    pub reason: String,
    /// How many blobs the VMM has mapped from where this one would have come.
    pub still_mapped: usize,
}

/// A file as the VMM maps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostMapping {
    /// The file's name in `/proc`.
    pub file: String,
    /// Where the mapping begins in the VMM's address space. Its pages are those of the
    /// [`SlotMapping`], in their order.
    pub address: u64,
    /// Where the blob begins in the file.
    pub offset: u64,
    /// The page-table bits that all pages share, as QEMU shows them, but without `D` and `A`.
    pub flags: String,
    /// What the page tables select.
    pub memory_type: MemoryType,
}

/// What KVM's page tables map the guest's physical pages to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SlotMapping {
    /// The guest's physical address.
    pub physical: u64,
    /// The host's physical address of each page.
    pub frames: Vec<u64>,
    /// The memory type of all entries. On AMD, write-back leaves the choice to the guest (AMD APM
    /// vol. 2, 15.25.8 "Combining Memory Types, MTRRs").
    pub memory_type: MemoryType,
}

/// A link of a chain that does not fit the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Host and guest map the same memory with different types.
    #[error(
        "link 2 is broken: the host maps the memory {}, where the guest was told, and maps, {}",
        host.name(), guest.name()
    )]
    Host {
        /// How the host maps it.
        host: MemoryType,
        /// How the guest maps it.
        guest: MemoryType,
    },
    /// KVM's own page tables set a type, so that the guest's is not what takes effect.
    #[error("link 3 is broken: KVM maps the memory {}, whatever the guest does", slot.name())]
    Slot {
        /// The type in KVM's page tables.
        slot: MemoryType,
    },
    /// The guest does not map as it was told.
    #[error("link 5 is broken: the guest was told map_info {told}, and maps {}", guest.name())]
    Guest {
        /// `map_info`.
        told: u32,
        /// How the guest maps it.
        guest: MemoryType,
    },
    /// One side does not see what the other has drawn.
    #[error("the two ends do not see the same bytes")]
    Bytes,
}

impl Broken {
    /// The number of the link, if it is one.
    #[must_use]
    pub fn link(self) -> Option<u32> {
        match self {
            Self::Host { .. } => Some(2),
            Self::Slot { .. } => Some(3),
            Self::Guest { .. } => Some(5),
            Self::Bytes => None,
        }
    }
}

impl Links {
    /// Checks every link against what the guest was told.
    ///
    /// # Errors
    /// What is broken.
    pub fn check(&self) -> Result<(), Broken> {
        let (told, guest) = (self.told, self.guest.memory_type);
        let listed = self.guest.listed.as_deref() == Some(guest.name());
        if MemoryType::of_map_info(told) != Some(guest) || !listed {
            return Err(Broken::Guest { told, guest });
        }
        let slot = self.slot.memory_type;
        if slot != MemoryType::WriteBack {
            return Err(Broken::Slot { slot });
        }
        let host = self.host.memory_type;
        if host != guest {
            return Err(Broken::Host { host, guest });
        }
        match self.bytes_right {
            true => Ok(()),
            false => Err(Broken::Bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut Links);

    fn whole() -> Links {
        Links {
            host: HostMapping {
                file: String::new(),
                address: 0,
                offset: 0,
                flags: "X-----TUW".to_owned(),
                memory_type: MemoryType::WriteCombining,
            },
            slot: SlotMapping {
                physical: 0,
                frames: vec![],
                memory_type: MemoryType::WriteBack,
            },
            told: 3,
            guest: Mapped {
                address: 0,
                physical: 0,
                size: 0,
                flags: "X-----TUW".to_owned(),
                memory_type: MemoryType::WriteCombining,
                listed: Some("write-combining".to_owned()),
            },
            bytes_right: true,
        }
    }

    #[test]
    fn each_link_that_does_not_fit_is_named() {
        assert_eq!(whole().check(), Ok(()));
        let breaks: [(Change, Option<u32>); 6] = [
            (
                |links| links.host.memory_type = MemoryType::WriteBack,
                Some(2),
            ),
            (
                |links| links.slot.memory_type = MemoryType::WriteCombining,
                Some(3),
            ),
            (|links| links.told = 1, Some(5)),
            (
                |links| links.guest.memory_type = MemoryType::WriteBack,
                Some(5),
            ),
            (|links| links.guest.listed = None, Some(5)),
            (|links| links.bytes_right = false, None),
        ];
        for (number, (change, link)) in breaks.into_iter().enumerate() {
            let mut links = whole();
            change(&mut links);
            assert_eq!(links.check().unwrap_err().link(), link, "{number}");
        }
    }
}
