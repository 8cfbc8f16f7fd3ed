//! What a guest's processor maps where, and as which memory type: QEMU's `info tlb`, and the list
//! that Linux keeps.

use serde::{Deserialize, Serialize};

/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// One line of `info tlb`: a page of the address space that the processor is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Where the program sees it.
    pub address: u64,
    /// Where it lies in the guest's physical address space.
    pub physical: u64,
    /// The bits of its page-table entry, as QEMU shows them: `XGPDACTUW`, `-` for a clear bit.
    pub flags: String,
}

/// What a page-table entry of Linux on x86 selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemoryType {
    /// Cached.
    WriteBack,
    /// Not cached, unless a range register says otherwise.
    UncachedMinus,
    /// Not cached, writes are gathered.
    WriteCombining,
    /// Not cached.
    Uncached,
}

impl MemoryType {
    /// What Linux's virtio-gpu driver maps a blob of this `map_info` as; `None` for a value that
    /// the specification does not name.
    #[must_use]
    pub fn of_map_info(map_info: u32) -> Option<Self> {
        match map_info {
            1 => Some(Self::WriteBack),
            2 => Some(Self::UncachedMinus),
            3 => Some(Self::WriteCombining),
            _ => None,
        }
    }

    /// The name in Linux's list.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::WriteBack => "write-back",
            Self::UncachedMinus => "uncached-minus",
            Self::WriteCombining => "write-combining",
            Self::Uncached => "uncached",
        }
    }
}

impl Page {
    /// The page in one line; `None` for any other line.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (address, rest) = line.trim().split_once(": ")?;
        let (physical, flags) = rest.split_once(' ')?;
        (flags.len() == 9).then_some(())?;
        Some(Self {
            address: u64::from_str_radix(address, 16).ok()?,
            physical: u64::from_str_radix(physical, 16).ok()?,
            flags: flags.to_owned(),
        })
    }

    /// The pages in the monitor's answer.
    #[must_use]
    pub fn parse_all(text: &str) -> Vec<Self> {
        text.lines().filter_map(Self::parse).collect()
    }

    /// The memory type by the bits PCD (`C`) and PWT (`T`), which select entries 0 to 3 of Linux's
    /// page attribute table (arch/x86/mm/pat/memtype.c: WB, WC, UC-, UC).
    #[must_use]
    pub fn memory_type(&self) -> MemoryType {
        match (self.flags.contains('C'), self.flags.contains('T')) {
            (false, false) => MemoryType::WriteBack,
            (false, true) => MemoryType::WriteCombining,
            (true, false) => MemoryType::UncachedMinus,
            (true, true) => MemoryType::Uncached,
        }
    }

    /// The bits but for `D` and `A`, which come and go.
    #[must_use]
    pub fn steady_flags(&self) -> String {
        self.flags.replace(['D', 'A'], "-")
    }

    /// Whether the guest's programs may write to it.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.flags.contains('U') && self.flags.contains('W')
    }
}

/// The memory type that all pages of a range of the address space have, wherever they lie; `None`
/// if a page is missing or they differ.
#[must_use]
pub fn type_of(pages: &[Page], address: u64, size: u64) -> Option<MemoryType> {
    let range = address..address + size;
    let inside = pages.iter().filter(|page| range.contains(&page.address));
    let types = inside.map(Page::memory_type).collect::<Vec<_>>();
    let first = *types.first()?;
    let whole = types.len() as u64 == size.div_ceil(PAGE);
    (whole && types.iter().all(|other| *other == first)).then_some(first)
}

/// A range of a program's address space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapped {
    /// Where the program sees it.
    pub address: u64,
    /// Where it lies in the guest's physical address space.
    pub physical: u64,
    /// Its bytes.
    pub size: u64,
    /// The page-table bits that all its pages share, as QEMU shows them, but without `D` and `A`,
    /// which come and go.
    pub flags: String,
    /// What the page tables select.
    pub memory_type: MemoryType,
    /// The memory type in Linux's list; absent where it lists none.
    pub listed: Option<String>,
}

impl Mapped {
    /// Finds the pages of a range in `pages`, and its physical address in Linux's list of memory
    /// types. `None` unless every page is there, writable for programs, with the same bits, and
    /// all lie one after the other.
    #[must_use]
    pub fn find(pages: &[Page], address: u64, size: u64, list: &[String]) -> Option<Self> {
        let from = pages.iter().position(|page| page.address == address)?;
        let count = usize::try_from(size.div_ceil(PAGE)).ok()?;
        let range = pages.get(from..from.checked_add(count)?)?;
        let first = range.first()?;
        let flags = first.steady_flags();
        let whole = (0..).zip(range).all(|(number, page): (u64, _)| {
            page.address == address + number * PAGE
                && page.physical == first.physical + number * PAGE
                && page.steady_flags() == flags
                && page.is_writable()
        });
        whole.then(|| Self {
            address,
            physical: first.physical,
            size,
            memory_type: first.memory_type(),
            flags,
            listed: list
                .iter()
                .find_map(|line| listed(line, first.physical))
                .map(str::to_owned),
        })
    }
}

/// The memory type in a line of `/sys/kernel/debug/x86/pat_memtype_list` if the line is about
/// `physical`.
fn listed(line: &str, physical: u64) -> Option<&str> {
    let (range, name) = line.split_once("[mem 0x")?.1.split_once("] ")?;
    let (start, end) = range.split_once("-0x")?;
    let start = u64::from_str_radix(start, 16).ok()?;
    let end = u64::from_str_radix(end, 16).ok()?;
    (start..end).contains(&physical).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(address: u64, physical: u64, flags: &str) -> Page {
        let line = format!("{address:016x}: {physical:016x} {flags}\r");
        Page::parse(&line).unwrap()
    }

    #[test]
    fn bits_select_the_type() {
        for (flags, name) in [
            ("X---A--UW", "write-back"),
            ("X---AC-UW", "uncached-minus"),
            ("X--DA-TUW", "write-combining"),
            ("X--DACTUW", "uncached"),
        ] {
            assert_eq!(page(0x1000, 0x2000, flags).memory_type().name(), name);
        }
        assert_eq!(Page::parse("VCPU 0 has no paging"), None);
    }

    #[test]
    fn a_range_is_found_whole_or_not_at_all() {
        let base = 0x38_0000_0000;
        let mut pages = vec![
            page(0x1000, 0x5000, "X--DA--UW"),
            page(0x7000, base, "X--DA--UW"),
            page(0x8000, base + PAGE, "X------UW"),
        ];
        let list = [
            "PAT memtype list:".to_owned(),
            "PAT: [mem 0x00000000fd000000-0x00000000fd001000] uncached-minus".to_owned(),
            format!("PAT: [mem 0x{base:016x}-0x{:016x}] write-back", base + 8192),
        ];
        let found = Mapped::find(&pages, 0x7000, 8192, &list).unwrap();
        assert_eq!(found.physical, base);
        assert_eq!(found.flags, "X------UW");
        assert_eq!(found.listed.as_deref(), Some("write-back"));
        assert_eq!(Mapped::find(&pages, 0x7000, 8193, &list), None);
        assert_eq!(Mapped::find(&pages, 0x6000, PAGE, &list), None);
        pages[2].flags = "X-----TUW".to_owned();
        assert_eq!(Mapped::find(&pages, 0x7000, 8192, &list), None);
    }
    #[test]
    fn a_range_has_a_type_if_all_its_pages_have_it() {
        let mut pages = vec![
            page(0x7000, 0x9000, "X--DA-TUW"),
            page(0x8000, 0x3000, "X---A-TUW"),
            page(0x9000, 0x4000, "X---A--UW"),
        ];
        let combining = Some(MemoryType::WriteCombining);
        assert_eq!(type_of(&pages, 0x7000, 8192), combining);
        assert_eq!(type_of(&pages, 0x7000, 3 * PAGE), None);
        assert_eq!(type_of(&pages, 0x6000, 8192), None);
        pages.remove(1);
        assert_eq!(type_of(&pages, 0x7000, 8192), None);
    }
}
