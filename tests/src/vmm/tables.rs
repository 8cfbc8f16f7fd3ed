//! The guest's page tables, read from outside: where an address leads and with which memory type.
//!
//! Layouts: Intel SDM volume 3, "4-level paging" and "Page attribute table"; AMD has the same.

/// Present.
pub const PRESENT: u64 = 1 << 0;
/// Writes are allowed.
pub const WRITABLE: u64 = 1 << 1;
/// PWT, bit 0 of the page-attribute index.
pub const PWT: u64 = 1 << 3;
/// PCD, bit 1 of the page-attribute index.
pub const PCD: u64 = 1 << 4;
/// A page of 2 MiB or 1 GiB, in a table that is not of the last level.
pub const LARGE: u64 = 1 << 7;
/// PAT, bit 2 of the page-attribute index, in an entry of the last level.
pub const PAT: u64 = 1 << 7;
/// The bits that hold an address.
pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// The memory types of the page attribute table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PatType {
    /// UC: not cached.
    Uncached = 0,
    /// WC: not cached, writes are gathered.
    WriteCombining = 1,
    /// WT: writes go through.
    WriteThrough = 4,
    /// WP: reads are cached.
    WriteProtected = 5,
    /// WB: cached.
    WriteBack = 6,
    /// UC-: not cached, unless a range register says WC.
    UncachedMinus = 7,
}

impl PatType {
    /// The type in entry `index` (0 to 7) of the register IA32_PAT; `None` for a reserved value.
    #[must_use]
    pub fn of(register: u64, index: u8) -> Option<Self> {
        Some(match (register >> (8 * u32::from(index))) & 0xff {
            0 => Self::Uncached,
            1 => Self::WriteCombining,
            4 => Self::WriteThrough,
            5 => Self::WriteProtected,
            6 => Self::WriteBack,
            7 => Self::UncachedMinus,
            _ => return None,
        })
    }

    /// The name, as Linux writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Uncached => "uncached",
            Self::WriteCombining => "write-combining",
            Self::WriteThrough => "write-through",
            Self::WriteProtected => "write-protected",
            Self::WriteBack => "write-back",
            Self::UncachedMinus => "uncached-minus",
        }
    }
}

/// Where a page of 4 KiB leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Guest-physical address.
    pub physical: u64,
    /// Which entry of the page attribute table it selects.
    pub pat_index: u8,
    /// Whether writes are allowed on all levels.
    pub writable: bool,
}

/// Follows the tables from `cr3` for one address. `None` where nothing is present, or where a large
/// page lies. `read` gives eight bytes of guest-physical memory.
pub fn walk(cr3: u64, address: u64, mut read: impl FnMut(u64) -> u64) -> Option<Page> {
    let mut table = cr3 & ADDRESS;
    let mut writable = true;
    for level in (0..4).rev() {
        let index = (address >> (12 + 9 * level)) & 511;
        let entry = read(table + 8 * index);
        writable &= entry & WRITABLE != 0;
        if entry & PRESENT == 0 || (level > 0 && entry & LARGE != 0) {
            return None;
        }
        table = entry & ADDRESS;
        if level == 0 {
            let bit = |mask: u64, value: u8| if entry & mask != 0 { value } else { 0 };
            return Some(Page {
                physical: table,
                pat_index: bit(PWT, 1) + bit(PCD, 2) + bit(PAT, 4),
                writable,
            });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Tables for one page at 0x1_2345_6000 with these bits in its last entry.
    fn page(last: u64) -> Option<Page> {
        let address = 0x1_2345_6000_u64;
        // Index of each level, by hand: 0, 4, 0x11a, 0x056.
        let memory = HashMap::from([
            (0x1000, 0x2003),
            (0x2000 + 8 * 4, 0x3003),
            (0x3000 + 8 * 0x11a, 0x4003),
            (0x4000 + 8 * 0x56, last),
        ]);
        let read = |at| memory.get(&at).copied().unwrap_or(0);
        assert_eq!(walk(0x1000, address + 0x1000, read), None);
        walk(0x1000 | 0x18, address, read)
    }

    #[test]
    fn bits_of_the_last_entry_select_the_type() {
        for (bits, pat_index) in [
            (0, 0),
            (0x08, 1),
            (0x10, 2),
            (0x18, 3),
            (0x80, 4),
            (0x98, 7),
        ] {
            let expected = Page {
                physical: 0x8_0000_0000,
                pat_index,
                writable: true,
            };
            assert_eq!(page(0x8_0000_0003 | bits), Some(expected));
        }
        assert!(!page(0x8_0000_0001).unwrap().writable);
        assert_eq!(page(0x8_0000_0002), None);
    }

    #[test]
    fn the_register_holds_eight_types() {
        // As the processor starts: WB, WT, UC-, UC, twice.
        let reset = 0x0007_0406_0007_0406;
        let types = (0..8).map(|index| PatType::of(reset, index).unwrap());
        let half = [
            PatType::WriteBack,
            PatType::WriteThrough,
            PatType::UncachedMinus,
            PatType::Uncached,
        ];
        assert_eq!(types.collect::<Vec<_>>(), [half, half].concat());
        assert_eq!(PatType::of(0x0105, 1), Some(PatType::WriteCombining));
        assert_eq!(PatType::of(0x0105, 0), Some(PatType::WriteProtected));
        assert_eq!(PatType::of(2, 0), None);
    }
}
