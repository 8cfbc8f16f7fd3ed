//! The pattern: what word stands at which index, for a given seed.
//!
//! `word(index, seed)` is the 32-bit finalizer of MurmurHash3 over `index * 0x9e3779b9 + seed`, all modulo
//! 2^32. Every step can be undone, and a litmus relies on what follows from that:
//! * at one index, two seeds never give the same word: data left over from the run before is always seen;
//! * with one seed, two indices never hold the same word: a cache line in the wrong place is always seen.

use crate::CheckOutcome;

/// The word at `index` (any value) for `seed` (any value).
///
/// The shaders compute the same in `pattern_word` of `src/common.wgsl`.
#[must_use]
pub const fn word(index: u32, seed: u32) -> u32 {
    let spread = index.wrapping_mul(0x9e37_79b9).wrapping_add(seed);
    let a = (spread ^ (spread >> 16)).wrapping_mul(0x85eb_ca6b);
    let b = (a ^ (a >> 13)).wrapping_mul(0xc2b2_ae35);
    b ^ (b >> 16)
}

/// The words from index `first_index` on, without end. The index wraps after `u32::MAX`.
pub fn words(first_index: u32, seed: u32) -> impl Iterator<Item = u32> {
    std::iter::successors(Some(first_index), |index| Some(index.wrapping_add(1)))
        .map(move |index| word(index, seed))
}

/// Compares `data` with the pattern from `first_index` on, as [`crate::PATTERN_CHECK`] does on a GPU.
///
/// Takes an iterator, so that the caller decides how memory is read. Counts stop at `u32::MAX`.
pub fn check(data: impl IntoIterator<Item = u32>, first_index: u32, seed: u32) -> CheckOutcome {
    let mut outcome = CheckOutcome::START;
    for (got, expected) in data.into_iter().zip(words(first_index, seed)) {
        if got != expected {
            if outcome.mismatches == 0 {
                outcome.first_mismatch = outcome.checked;
            }
            outcome.mismatches = outcome.mismatches.saturating_add(1);
        }
        outcome.checked = outcome.checked.saturating_add(1);
    }
    outcome
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{check, word, words};
    use crate::CheckOutcome;

    #[test]
    fn known_words() {
        // Computed by an independent implementation.
        assert_eq!(word(0, 0), 0);
        assert_eq!(word(0, 1), 0x514e_28b7);
        assert_eq!(word(1, 0), 0x92ca_2f0e);
        assert_eq!(word(12345, 0xdead_beef), 0x6124_b765);
        assert_eq!(word(u32::MAX, u32::MAX), 0x3b66_b2aa);
    }

    #[test]
    fn different_seeds_differ_at_every_index() {
        for index in [0, 1, 2, 63, 64, 0xffff, u32::MAX] {
            let seen: HashSet<u32> = (0..10_000).map(|seed| word(index, seed)).collect();
            assert_eq!(seen.len(), 10_000);
        }
    }

    #[test]
    fn different_indices_differ_for_one_seed() {
        let seen: HashSet<u32> = words(0, 0xdead_beef).take(1 << 20).collect();
        assert_eq!(seen.len(), 1 << 20);
    }

    #[test]
    fn the_index_wraps() {
        let got: Vec<u32> = words(u32::MAX, 7).take(2).collect();
        assert_eq!(got, [word(u32::MAX, 7), word(0, 7)]);
    }

    #[test]
    fn an_intact_buffer_has_no_mismatch() {
        let outcome = check(words(100, 5).take(1000), 100, 5);
        assert_eq!(
            outcome,
            CheckOutcome {
                checked: 1000,
                mismatches: 0,
                first_mismatch: u32::MAX
            }
        );
    }

    #[test]
    fn mismatches_are_counted_and_the_first_is_kept() {
        let mut data: Vec<u32> = words(100, 5).take(1000).collect();
        data[17] ^= 1;
        data[999] ^= 0x8000_0000;
        assert_eq!(
            check(data, 100, 5),
            CheckOutcome {
                checked: 1000,
                mismatches: 2,
                first_mismatch: 17
            }
        );
    }

    #[test]
    fn nothing_checked_is_visible() {
        assert_eq!(check([], 0, 0), CheckOutcome::START);
    }
}
