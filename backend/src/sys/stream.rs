//! Copies between this process's memory and write-combining memory.
//!
//! x86-64: stores to write-combining memory are gathered in a line-sized buffer, which goes out as
//! one transaction when it is filled in order; a streaming store does the same, and leaves the
//! caches alone if the memory turns out to be write-back. An ordinary load from write-combining
//! memory goes to memory for every few bytes; a streaming load (MOVNTDQA) fetches a whole line for
//! its neighbours too (Intel SDM vol. 1, "Streaming Load Hint Instruction"). From other memory it is
//! a load like any other, so one way serves every memory type. Sixteen bytes at a time: wider
//! stores fill the same buffer.
//!
//! Elsewhere: volatile accesses of eight bytes.
//!
//! Nothing here makes a reference to shared memory, or reads or writes a byte of it twice. What
//! others write meanwhile is in a copy in part.
#![expect(
    unsafe_code,
    reason = "memory that others change is accessed by address"
)]

use wide::WIDE;

/// Copies `bytes` to `to`, ordered before every later store.
///
/// # Safety
/// `to` is valid for writes of `bytes.len()` bytes, and no reference leads to them. Others may
/// access them at the same time.
pub(super) unsafe fn write(to: *mut u8, bytes: &[u8]) {
    let head = to.align_offset(WIDE);
    let (first, rest) = bytes.split_at_checked(head).unwrap_or((bytes, &[]));
    let (blocks, last) = rest.as_chunks::<WIDE>();
    // SAFETY: `write_bytes` needs `first.len()` writable bytes at `to`: `first` begins `bytes`.
    unsafe { write_bytes(to, first) };
    let to = to.wrapping_add(first.len());
    // SAFETY: `write_blocks` needs room for `blocks` at `to`, which has stepped over what stood
    // before them in `bytes`, and a multiple of `WIDE`: after `head` bytes it is one, and without
    // so many bytes there is no block.
    unsafe { wide::write_blocks(to, blocks) };
    let to = to.wrapping_add(blocks.as_flattened().len());
    // SAFETY: `write_bytes` needs `last.len()` writable bytes at `to`, which has stepped over
    // everything else in `bytes`.
    unsafe { write_bytes(to, last) };
    wide::after_stores();
}

/// Writes `byte` to all of the `len` bytes at `to`; as [`write`] otherwise.
///
/// # Safety
/// As for [`write`], with `len` bytes.
pub(super) unsafe fn fill(to: *mut u8, len: usize, byte: u8) {
    let piece = [byte; 4096];
    let mut to = to;
    let mut left = len;
    while left > 0 {
        let piece = piece.get(..left).unwrap_or(&piece);
        // SAFETY: `write` needs `piece.len()` writable bytes at `to`. `to` and `left` have stepped
        // over the same bytes, so `left` are there, and `piece` has no more.
        unsafe { write(to, piece) };
        to = to.wrapping_add(piece.len());
        left = left.saturating_sub(piece.len());
    }
}

/// Fills `bytes` from `from`, with what is in memory after the call began.
///
/// # Safety
/// `from` is valid for reads of `bytes.len()` bytes, none of them in `bytes`, and no reference leads
/// to them. Others may access them at the same time.
pub(super) unsafe fn read(from: *const u8, bytes: &mut [u8]) {
    wide::before_loads();
    let head = from.align_offset(WIDE).min(bytes.len());
    let (first, rest) = match bytes.split_at_mut_checked(head) {
        Some(parts) => parts,
        None => return,
    };
    let (blocks, last) = rest.as_chunks_mut::<WIDE>();
    // SAFETY: `read_bytes` needs `first.len()` readable bytes at `from`: `first` begins `bytes`.
    unsafe { read_bytes(from, first) };
    let from = from.wrapping_add(first.len());
    // SAFETY: `read_blocks` needs as many bytes as `blocks` has at `from`, which has stepped over
    // what stands before them in `bytes`, and a multiple of `WIDE`: after `head` bytes it is one,
    // and without so many bytes there is no block.
    unsafe { wide::read_blocks(from, blocks) };
    let from = from.wrapping_add(blocks.as_flattened().len());
    // SAFETY: `read_bytes` needs `last.len()` readable bytes at `from`, which has stepped over
    // everything else in `bytes`.
    unsafe { read_bytes(from, last) };
}

/// # Safety
/// As for [`write`].
unsafe fn write_bytes(to: *mut u8, bytes: &[u8]) {
    let mut to = to;
    for byte in bytes {
        // SAFETY: `to` has stepped over as many bytes as were written, so by the caller's promise
        // it is valid for one more; a byte has no alignment.
        unsafe { to.write_volatile(*byte) };
        to = to.wrapping_add(1);
    }
}

/// # Safety
/// As for [`read`].
unsafe fn read_bytes(from: *const u8, bytes: &mut [u8]) {
    let mut from = from;
    for byte in bytes {
        // SAFETY: `from` has stepped over as many bytes as were read, so by the caller's promise
        // it is valid for one more; a byte has no alignment, and every value is one.
        *byte = unsafe { from.read_volatile() };
        from = from.wrapping_add(1);
    }
}

/// Reads eight bytes at a time.
///
/// # Safety
/// As for [`read`], and `from` is a multiple of 8.
unsafe fn read_words(from: *const u8, words: &mut [[u8; 8]]) {
    let mut from = from.cast::<u64>();
    for word in words {
        // SAFETY: `from` has stepped over as many words as were read, so by the caller's promise it
        // is valid for one more and aligned; every value of the bytes is a `u64`.
        *word = unsafe { from.read_volatile() }.to_ne_bytes();
        from = from.wrapping_add(1);
    }
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use core::arch::x86_64::{
        __m128i, _mm_loadu_si128, _mm_mfence, _mm_sfence, _mm_storeu_si128, _mm_stream_load_si128,
        _mm_stream_si128,
    };

    /// Bytes of a wide access, and what its address is a multiple of.
    pub(super) const WIDE: usize = size_of::<__m128i>();
    type Block = [u8; WIDE];

    /// Streaming stores are not ordered with others; the fence sends what is gathered on its way.
    pub(super) fn after_stores() {
        // SAFETY: `_mm_sfence` needs SSE, which every x86-64 CPU has.
        unsafe { _mm_sfence() };
    }

    /// A streaming load may be served from a buffer that nobody keeps up to date; the fence empties
    /// it (Intel SDM vol. 2, "MOVNTDQA").
    pub(super) fn before_loads() {
        // SAFETY: `_mm_mfence` needs SSE2, which every x86-64 CPU has.
        unsafe { _mm_mfence() };
    }

    /// # Safety
    /// As for [`super::write`], and `to` is a multiple of [`WIDE`].
    pub(super) unsafe fn write_blocks(to: *mut u8, blocks: &[Block]) {
        let mut to = to.cast::<__m128i>();
        for block in blocks {
            // SAFETY: `_mm_loadu_si128` needs SSE2, which every x86-64 CPU has, and 16 readable
            // bytes, which `block` is.
            let value = unsafe { _mm_loadu_si128(block.as_ptr().cast()) };
            // SAFETY: `_mm_stream_si128` needs SSE2, as above, and 16 writable bytes at a
            // multiple of 16: `to` has stepped over as many blocks as were written, so by the
            // caller's promise one more is there. `after_stores` follows.
            unsafe { _mm_stream_si128(to, value) };
            to = to.wrapping_add(1);
        }
    }

    /// # Safety
    /// As for [`super::read`], and `from` is a multiple of [`WIDE`].
    pub(super) unsafe fn read_blocks(from: *const u8, blocks: &mut [Block]) {
        if is_x86_feature_detected!("sse4.1") {
            // SAFETY: `stream_blocks` needs SSE4.1, which has just been asked for; the rest is the
            // caller's promise.
            unsafe { stream_blocks(from, blocks) };
        } else {
            let (words, _) = blocks.as_flattened_mut().as_chunks_mut();
            // SAFETY: `read_words` needs the bytes of `words`, which are those of `blocks`, and a
            // multiple of 8; both are in the caller's promise.
            unsafe { super::read_words(from, words) };
        }
    }

    /// # Safety
    /// As for [`read_blocks`], and the CPU has SSE4.1.
    #[target_feature(enable = "sse4.1")]
    unsafe fn stream_blocks(from: *const u8, blocks: &mut [Block]) {
        let mut from = from.cast::<__m128i>();
        for block in blocks {
            // SAFETY: `_mm_stream_load_si128` needs SSE4.1, by the caller's promise, and 16
            // readable bytes at a multiple of 16: `from` has stepped over as many blocks as were
            // read, so by the same promise one more is there.
            let value = unsafe { _mm_stream_load_si128(from) };
            // SAFETY: `_mm_storeu_si128` needs 16 writable bytes, which `block` is.
            unsafe { _mm_storeu_si128(block.as_mut_ptr().cast(), value) };
            from = from.wrapping_add(1);
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod wide {
    use std::sync::atomic::{Ordering, fence};

    /// Bytes of a wide access, and what its address is a multiple of.
    pub(super) const WIDE: usize = size_of::<u64>();
    type Block = [u8; WIDE];

    pub(super) fn after_stores() {
        fence(Ordering::SeqCst);
    }

    pub(super) fn before_loads() {
        fence(Ordering::SeqCst);
    }

    /// # Safety
    /// As for [`super::write`], and `to` is a multiple of [`WIDE`].
    pub(super) unsafe fn write_blocks(to: *mut u8, blocks: &[Block]) {
        let mut to = to.cast::<u64>();
        for block in blocks {
            // SAFETY: `to` has stepped over as many blocks as were written, so by the caller's
            // promise it is valid for one more and aligned.
            unsafe { to.write_volatile(u64::from_ne_bytes(*block)) };
            to = to.wrapping_add(1);
        }
    }

    /// # Safety
    /// As for [`super::read`], and `from` is a multiple of [`WIDE`].
    pub(super) unsafe fn read_blocks(from: *const u8, blocks: &mut [Block]) {
        // SAFETY: `read_words` needs just what the caller promises; a block is a word.
        unsafe { super::read_words(from, blocks) };
    }
}

#[cfg(test)]
mod tests {
    use super::super::mmap::tests::pattern;
    use super::*;

    const GUARD: u8 = 0xee;

    /// Where in `buffer` an address is `misalignment` past a multiple of a cache line.
    fn place(buffer: &[u8], misalignment: usize) -> usize {
        buffer.as_ptr().align_offset(64).wrapping_add(misalignment)
    }

    #[test]
    fn every_length_at_every_alignment_is_the_plain_copy() {
        let source = pattern(1, 400);
        for misalignment in 0..64 {
            for len in 0..=300_usize {
                let bytes = &source[misalignment % 17..][..len];
                let mut memory = vec![GUARD; 512];
                let at = place(&memory, misalignment);
                let mut expected = memory.clone();
                expected[at..at + len].copy_from_slice(bytes);
                // SAFETY: `write` needs `len` writable bytes at the address, which are in
                // `memory`: at most 63 + 63 + 300. Slicing has ended by then, and this thread has
                // `memory` for itself.
                unsafe { write(memory.as_mut_ptr().wrapping_add(at), bytes) };
                assert!(memory == expected, "write {misalignment} {len}");

                let mut copy = vec![GUARD; 2 + len];
                // SAFETY: `read` needs `len` readable bytes at the address, which are in `memory`
                // as above, and none of them in `copy`, which is another allocation.
                unsafe { read(memory.as_ptr().wrapping_add(at), &mut copy[1..=len]) };
                assert_eq!((copy[0], copy[1 + len]), (GUARD, GUARD));
                assert!(copy[1..=len] == *bytes, "read {misalignment} {len}");

                expected[at..at + len].fill(0x5a);
                // SAFETY: as for `write` above.
                unsafe { fill(memory.as_mut_ptr().wrapping_add(at), len, 0x5a) };
                assert!(memory == expected, "fill {misalignment} {len}");
            }
        }
    }

    #[test]
    fn long_fills_have_no_seams() {
        for len in [4095, 4096, 4097, 10_000, 12_288] {
            let mut memory = vec![GUARD; len + 3];
            // SAFETY: `fill` needs `len` writable bytes at the address: `memory` has two more after
            // it, and this thread has it for itself.
            unsafe { fill(memory.as_mut_ptr().wrapping_add(1), len, 7) };
            let mut expected = vec![7; len + 3];
            expected[0] = GUARD;
            expected[len + 1..].fill(GUARD);
            assert!(memory == expected, "{len}");
        }
    }

    /// What a CPU without SSE4.1 does.
    #[test]
    fn words_are_read_in_their_order() {
        let source: Vec<u64> = (1..=9).map(|i| i * 0x0102_0304_0506_0708).collect();
        let mut words = [[GUARD; 8]; 9];
        // SAFETY: `read_words` needs 72 readable bytes at a multiple of 8, which `source` is, and
        // none of them in `words`, which is elsewhere.
        unsafe { read_words(source.as_ptr().cast(), &mut words) };
        assert_eq!(words.map(u64::from_ne_bytes).to_vec(), source);
    }
}
