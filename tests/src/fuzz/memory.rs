//! The fuzzed guest's memory: rings and requests low, pages for pictures in two regions above.

use nosnoop_gpu::GuestMemory;
use vm_memory::{Bytes, GuestAddress};

use super::random::Random;

/// Bytes of the low region, where each queue has its ring and its buffers.
const LOW: u64 = 1 << 20;

/// Where the regions for pictures start; between them lies no memory.
const HIGH: [u64; 2] = [16 << 20, 32 << 20];

/// Bytes of each of them.
const HIGH_LEN: u64 = 512 << 10;

/// Pages in the high regions together.
pub(super) const GUEST_PAGES: u64 = 2 * HIGH_LEN / 4096;

/// The address of one of the [`GUEST_PAGES`].
#[must_use]
pub(super) fn page_address(page: u64) -> u64 {
    let per_region = HIGH_LEN / 4096;
    HIGH[(page / per_region) as usize] + page % per_region * 4096
}

/// Guest memory with all regions, or without the last one as after a front-end has taken it away.
#[must_use]
pub(super) fn guest_memory(with_last: bool) -> GuestMemory {
    let mut ranges = vec![
        (GuestAddress(0), LOW as usize),
        (GuestAddress(HIGH[0]), HIGH_LEN as usize),
    ];
    if with_last {
        ranges.push((GuestAddress(HIGH[1]), HIGH_LEN as usize));
    }
    GuestMemory::from_ranges(&ranges).expect("a few small regions")
}

/// Fills the pages for pictures.
pub(super) fn fill(memory: &GuestMemory, random: &mut Random) {
    for page in 0..GUEST_PAGES {
        let bytes = random.bits().to_le_bytes().repeat(512);
        // The last region may be away.
        let _ = memory.write_slice(&bytes, GuestAddress(page_address(page)));
    }
}
