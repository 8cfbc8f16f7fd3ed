//! Memory that several sides have mapped, and the pictures in it.

use std::os::fd::{AsFd, AsRawFd};

use memmap2::{MmapOptions, MmapRaw};
use nosnoop_guest::pattern::{self, Size};

use crate::Outcome;

/// Bytes of a page.
const PAGE: usize = 4096;

/// Memory that this program shares with others; the device or the host may change it at any time.
#[derive(Debug)]
pub(crate) struct Mapping(MmapRaw);

impl Mapping {
    /// Maps `size` bytes of a file from `offset` on.
    pub(crate) fn of(file: impl AsFd, offset: u64, size: u64) -> Outcome<Self> {
        let mapped = MmapOptions::new()
            .offset(offset)
            .len(usize::try_from(size)?)
            .map_raw(file.as_fd().as_raw_fd());
        Ok(Self(
            mapped.map_err(|error| format!("{size} bytes: {error}"))?,
        ))
    }

    /// Where it begins.
    pub(crate) fn address(&self) -> u64 {
        self.0.as_ptr() as u64
    }

    /// Bytes mapped.
    pub(crate) fn size(&self) -> usize {
        self.0.len()
    }

    fn assert_inside(&self, offset: usize, length: usize) {
        let end = offset.checked_add(length);
        assert!(
            end.is_some_and(|end| end <= self.0.len()),
            "{length} bytes at {offset} lie outside of the mapping"
        );
    }

    /// Makes every page writable at once, by a plain store to each that changes nothing.
    ///
    /// KVM from Linux 7.1 on maps pages of a DRM device's file read-only until the VMM has stored to
    /// them, and emulates the guest's first store to each; the wide moves that copy memory are none
    /// that it can emulate on x86, and end the program with SIGILL.
    fn make_writable(&self) {
        for offset in (0..self.size()).step_by(PAGE) {
            let byte = self.0.as_mut_ptr().wrapping_add(offset);
            #[expect(unsafe_code, reason = "shared memory: no reference may lead into it")]
            // SAFETY: the byte lies in the mapping, which is readable and lives as long as `self`.
            let value = unsafe { byte.read_volatile() };
            #[expect(unsafe_code, reason = "shared memory: no reference may lead into it")]
            // SAFETY: as above, and the mapping is writable.
            unsafe {
                byte.write_volatile(value);
            }
        }
    }

    /// Copies bytes out.
    pub(crate) fn read(&self, offset: usize, bytes: &mut [u8]) {
        self.assert_inside(offset, bytes.len());
        let source = self.0.as_ptr().wrapping_add(offset);
        #[expect(unsafe_code, reason = "shared memory: no slice may lie in it")]
        // SAFETY: the range lies in the mapping, which lives as long as `self`; `bytes` is this
        // program's own memory. Bytes that change meanwhile are any bytes.
        unsafe {
            source.copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len());
        }
    }

    /// Copies bytes in.
    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) {
        self.assert_inside(offset, bytes.len());
        let target = self.0.as_mut_ptr().wrapping_add(offset);
        #[expect(unsafe_code, reason = "shared memory: no slice may lie in it")]
        // SAFETY: the range lies in the mapping, which is writable and lives as long as `self`;
        // `bytes` is this program's own memory.
        unsafe {
            target.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
    }

    /// Draws picture number `seed` of `size`, whose rows begin `stride` bytes apart.
    pub(crate) fn draw(&self, size: Size, stride: u32, seed: u32) {
        self.make_writable();
        for y in 0..size.height {
            self.write(stride as usize * y as usize, &row(y, size, seed));
        }
    }

    /// Checks that picture number `seed` is there.
    pub(crate) fn check(&self, size: Size, stride: u32, seed: u32) -> Outcome<()> {
        let mut found = vec![0; size.width as usize * 4];
        for y in 0..size.height {
            self.read(stride as usize * y as usize, &mut found);
            if found != row(y, size, seed) {
                return Err(format!("row {y} is not that of picture {seed}").into());
            }
        }
        Ok(())
    }
}

/// One row of picture number `seed`.
fn row(y: u32, size: Size, seed: u32) -> Vec<u8> {
    (0..size.width)
        .flat_map(|x| pattern::pattern(x, y, size, seed).to_le_bytes())
        .collect()
}
