//! What the guest can be told to do, and how it answers: words in its mailbox.

use crate::frontend::Span;
use crate::frontend::message::u64_at;

/// IA32_PAT as Linux programs it (arch/x86/mm/pat/memtype.c): WB, WC, UC-, UC, WB, WP, UC-, WT.
pub const LINUX_PAT: u64 = 0x0407_0506_0007_0106;

/// The port that ends each order.
pub const REPORT_PORT: u16 = 0x510;
/// The port that notifies the device.
pub const KICK_PORT: u16 = 0x514;

/// Most pages that one [`Order::Map`] maps, if they begin at a multiple of 2 MiB.
pub const MAX_PAGES: u64 = 512;

pub(super) const SET_PAT: u64 = 1;
pub(super) const MAP: u64 = 2;
pub(super) const UNMAP: u64 = 3;
pub(super) const FILL: u64 = 4;
pub(super) const FILL_MOVQ: u64 = 5;
pub(super) const CHECK: u64 = 6;
pub(super) const LOAD: u64 = 7;
pub(super) const SUBMIT: u64 = 8;

pub(super) const DONE: u64 = 1;
pub(super) const BAD_ORDER: u64 = 2;
pub(super) const BAD_MAP_INFO: u64 = 3;

/// Bytes of the mailbox.
pub const MAILBOX: usize = 72;
/// Where the guest's part of the mailbox begins.
pub const ANSWER: usize = 48;

/// A row of 64-bit words, each by the same amount more than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// The first word.
    pub first: u64,
    /// What each has more than the one before.
    pub step: u64,
}

impl Pattern {
    /// The first `count` words as they lie in memory.
    #[must_use]
    pub fn bytes(self, count: u64) -> Vec<u8> {
        let word = |at: u64| self.first.wrapping_add(self.step.wrapping_mul(at));
        (0..count).flat_map(|at| word(at).to_le_bytes()).collect()
    }
}

/// One thing for the guest to do. Addresses are the guest's: physical ones, or those of a mapping
/// that it was told to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Program IA32_PAT. Result: the value read back.
    SetPat(u64),
    /// Map pages with the memory type that a device has announced.
    Map {
        /// Where, in an otherwise unused 512 GiB of the address space.
        address: u64,
        /// Guest-physical address.
        physical: u64,
        /// How many pages, at most [`MAX_PAGES`].
        pages: u64,
        /// Where the 32 bits of `map_info` lie.
        map_info: u64,
        /// Three pages for page tables.
        tables: u64,
    },
    /// Take away what [`Order::Map`] has mapped at this address.
    Unmap(u64),
    /// Store a pattern of so many words, by plain moves.
    Fill(u64, u64, Pattern),
    /// The same by moves from a vector register.
    FillMovq(u64, u64, Pattern),
    /// Compare. Results: how many words differ, and which is the first.
    Check(u64, u64, Pattern),
    /// Load a word. Result: the word.
    Load(u64),
    /// Hand a request to a device and wait for the answer. Results: id and length in the used ring.
    Submit {
        /// Where [`queue_words`] lie.
        queue: u64,
        /// The request.
        request: Span,
        /// Room for the answer.
        answer: Span,
    },
}

impl Order {
    /// The words that go into the mailbox; panics for a pattern without words and for too many
    /// pages.
    #[must_use]
    pub fn words(self) -> [u64; 6] {
        let row = |order, address, count, pattern: Pattern| {
            assert_ne!(count, 0, "a pattern without words");
            [order, address, count, pattern.first, pattern.step, 0]
        };
        match self {
            Self::SetPat(value) => [SET_PAT, value, 0, 0, 0, 0],
            Self::Map {
                address,
                physical,
                pages,
                map_info,
                tables,
            } => {
                let first = address / 4096 % MAX_PAGES;
                assert!(pages > 0 && first + pages <= MAX_PAGES, "one page table");
                [MAP, address, physical, pages, map_info, tables]
            }
            Self::Unmap(address) => [UNMAP, address, 0, 0, 0, 0],
            Self::Fill(address, count, pattern) => row(FILL, address, count, pattern),
            Self::FillMovq(address, count, pattern) => row(FILL_MOVQ, address, count, pattern),
            Self::Check(address, count, pattern) => row(CHECK, address, count, pattern),
            Self::Load(address) => [LOAD, address, 0, 0, 0, 0],
            Self::Submit {
                queue,
                request,
                answer,
            } => {
                let (lengths, answers) = (u64::from(request.len), u64::from(answer.len));
                [SUBMIT, queue, request.addr, lengths, answer.addr, answers]
            }
        }
    }
}

/// How an order ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done, with its results.
    Done([u64; 2]),
    /// A `map_info` that means nothing; nothing was mapped.
    BadMapInfo,
}

impl Answer {
    /// Reads the guest's part of the mailbox. `None` for what the guest never says.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match u64_at(bytes, 0) {
            DONE => Some(Self::Done([u64_at(bytes, 8), u64_at(bytes, 16)])),
            BAD_MAP_INFO => Some(Self::BadMapInfo),
            _ => None,
        }
    }
}

/// The words that describe a queue to the guest: its three parts, its size, and that nothing has
/// gone over it yet.
#[must_use]
pub fn queue_words(parts: [Span; 3], size: u16) -> [u64; 6] {
    let [descriptors, available, used] = parts.map(|part| part.addr);
    [descriptors, available, used, u64::from(size) - 1, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_counts_up_and_wraps() {
        let pattern = Pattern {
            first: u64::MAX - 1,
            step: 3,
        };
        let words = [u64::MAX - 1, 1, 4];
        let bytes = words.iter().flat_map(|word| word.to_le_bytes());
        assert_eq!(pattern.bytes(3), bytes.collect::<Vec<_>>());
    }

    #[test]
    fn the_linux_table_has_the_three_types_that_matter() {
        use super::super::tables::PatType;
        let of = |index| PatType::of(LINUX_PAT, index).unwrap();
        assert_eq!(
            [of(0), of(1), of(2)],
            [
                PatType::WriteBack,
                PatType::WriteCombining,
                PatType::UncachedMinus
            ]
        );
    }

    #[test]
    #[should_panic(expected = "one page table")]
    fn a_mapping_stays_in_one_table() {
        let order = Order::Map {
            address: 0x40_0000_1000,
            physical: 0,
            pages: 512,
            map_info: 0,
            tables: 0,
        };
        println!("{:?}", order.words());
    }
}
