//! This process's own mapping of a range of a file that guests and devices change meanwhile.
//!
//! No reference into it is ever given out: bytes go in and out by copy, one after the other or in
//! blocks, in whatever state they are at that moment.
#![expect(
    unsafe_code,
    reason = "shared memory: it is reached by address, never by reference"
)]

use std::io;
use std::os::fd::OwnedFd;

use memmap2::{Advice, MmapOptions, MmapRaw};
use rustix::io::Errno;

use super::stream;

/// A range of a file, mapped shared until this is dropped.
///
/// Touching it ends the process (SIGBUS) where the file has no page to give: whoever made the file
/// sees to it that it keeps its size.
#[derive(Debug)]
pub(crate) struct Mapping {
    raw: MmapRaw,
    writable: bool,
}

impl Mapping {
    /// Maps `len` bytes of `fd` from `offset` on, to read.
    ///
    /// # Errors
    /// `InvalidInput` when `len` is 0 or more than an address space has; else what the kernel says.
    pub(crate) fn read_only(fd: &OwnedFd, offset: u64, len: u64) -> io::Result<Self> {
        Ok(Self {
            raw: options(offset, len)?.map_raw_read_only(fd)?,
            writable: false,
        })
    }

    /// As [`Mapping::read_only`], to read and to write.
    ///
    /// # Errors
    /// The same.
    pub(crate) fn read_write(fd: &OwnedFd, offset: u64, len: u64) -> io::Result<Self> {
        Ok(Self {
            raw: options(offset, len)?.map_raw(fd)?,
            writable: true,
        })
    }

    /// Has the file take all pages of the range from the host now, and maps them: later accesses
    /// fault none in. Does nothing where the kernel cannot (before Linux 5.14) or has no need to
    /// (mappings of device nodes, whose drivers hold the pages).
    ///
    /// # Errors
    /// What the kernel says (no memory, no such page in the file).
    pub(crate) fn populate(&self) -> io::Result<()> {
        match self.raw.advise(Advice::PopulateRead) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => Ok(()),
            result => result,
        }
    }

    /// Bytes.
    pub(crate) fn len(&self) -> usize {
        self.raw.len()
    }

    /// Where `len` bytes from `at` on are, for as long as this lives; `None` if not all of them lie
    /// inside.
    pub(super) fn address(&self, at: usize, len: usize) -> Option<*const u8> {
        let inside = at.checked_add(len).is_some_and(|end| end <= self.raw.len());
        inside.then(|| self.raw.as_ptr().wrapping_add(at))
    }

    /// Copies the bytes from `at` on.
    ///
    /// # Errors
    /// `InvalidInput`, and nothing is copied, when they do not lie inside.
    pub(crate) fn read(&self, at: usize, bytes: &mut [u8]) -> io::Result<()> {
        let from = self.address(at, bytes.len()).ok_or(OUTSIDE)?;
        // SAFETY: `stream::read` needs `bytes.len()` readable bytes at `from`. `address` has
        // checked that they lie inside the mapping, every mapping is readable, and it lasts until
        // `self` is dropped. They are not behind any reference, and `bytes` is memory of this
        // process's own, so the two do not overlap.
        unsafe { stream::read(from, bytes) };
        Ok(())
    }

    /// Writes `bytes` from `at` on.
    ///
    /// # Errors
    /// `InvalidInput` when they do not lie inside, `PermissionDenied` when this was mapped to read;
    /// nothing is written then.
    pub(crate) fn write(&self, at: usize, bytes: &[u8]) -> io::Result<()> {
        let to = self.writable_address(at, bytes.len())?;
        // SAFETY: `stream::write` needs `bytes.len()` writable bytes at `to`.
        // `writable_address` has checked that they lie inside the mapping and that it is writable;
        // it lasts until `self` is dropped. They are not behind any reference, and `bytes` is
        // memory of this process's own, so the two do not overlap.
        unsafe { stream::write(to, bytes) };
        Ok(())
    }

    /// Writes `byte` to all of the `len` bytes from `at` on.
    ///
    /// # Errors
    /// As [`Mapping::write`].
    pub(crate) fn fill(&self, at: usize, len: usize, byte: u8) -> io::Result<()> {
        let to = self.writable_address(at, len)?;
        // SAFETY: `stream::fill` needs `len` writable bytes at `to`. `writable_address` has
        // checked that they lie inside the mapping and that it is writable; it lasts until `self`
        // is dropped. They are not behind any reference.
        unsafe { stream::fill(to, len, byte) };
        Ok(())
    }

    fn writable_address(&self, at: usize, len: usize) -> io::Result<*mut u8> {
        let address = self.address(at, len).ok_or(OUTSIDE)?;
        if self.writable {
            Ok(address.cast_mut())
        } else {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }
}

const OUTSIDE: io::ErrorKind = io::ErrorKind::InvalidInput;

fn options(offset: u64, len: u64) -> io::Result<MmapOptions> {
    let mut options = MmapOptions::new();
    // memmap2 would take 0 for a page, and more than isize::MAX is no object.
    match usize::try_from(len) {
        Ok(len @ 1..) if isize::try_from(len).is_ok() => options.offset(offset).len(len),
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    };
    Ok(options)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::*;

    /// A file in memory whose bytes count up modulo 251, so that no two pages are alike.
    pub(in crate::sys) fn file(len: usize) -> File {
        let file = rustix::fs::memfd_create(c"nosnoop-test", rustix::fs::MemfdFlags::CLOEXEC);
        let file = File::from(file.unwrap());
        file.write_all_at(&pattern(0, len), 0).unwrap();
        file
    }

    pub(in crate::sys) fn pattern(start: usize, len: usize) -> Vec<u8> {
        (start..)
            .take(len)
            .map(|i| u8::try_from(i % 251).unwrap())
            .collect()
    }

    fn fd(file: &File) -> OwnedFd {
        file.try_clone().unwrap().into()
    }

    #[test]
    fn a_mapping_has_the_bytes_of_its_range() {
        let file = file(4 * 4096);
        let mapping = Mapping::read_only(&fd(&file), 4096, 8192).unwrap();
        let mut bytes = [0; 5];
        mapping.read(0, &mut bytes).unwrap();
        assert_eq!(bytes, *pattern(4096, 5));
        mapping.read(8187, &mut bytes).unwrap();
        assert_eq!(bytes, *pattern(12_283, 5));
        // A mapping is the file, not a copy of it.
        file.write_all_at(&[1, 2, 3, 4, 5], 5000).unwrap();
        mapping.read(904, &mut bytes).unwrap();
        assert_eq!(bytes, [1, 2, 3, 4, 5]);
    }

    #[test]
    fn what_is_written_is_in_the_file() {
        let file = file(4 * 4096);
        let mapping = Mapping::read_write(&fd(&file), 4096, 8192).unwrap();
        mapping.write(0, &[255; 3]).unwrap();
        mapping.fill(8190, 2, 254).unwrap();
        let mut expected = pattern(0, 4 * 4096);
        expected[4096..4099].fill(255);
        expected[12_286..12_288].fill(254);
        let mut bytes = vec![0; 4 * 4096];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes == expected);
    }

    #[test]
    fn nothing_outside_is_reached() {
        let file = file(4 * 4096);
        let mapping = Mapping::read_write(&fd(&file), 4096, 8192).unwrap();
        for (at, len) in [
            (8192, 1),
            (8191, 2),
            (0, 8193),
            (usize::MAX, 1),
            (usize::MAX, 2),
            (1 << 63, 0),
        ] {
            let mut bytes = vec![9; len];
            for result in [
                mapping.read(at, &mut bytes),
                mapping.write(at, &bytes),
                mapping.fill(at, len, 9),
            ] {
                let refused = result.unwrap_err();
                assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{at} {len}");
            }
            assert_eq!(bytes, vec![9; len]);
        }
        let mut bytes = vec![0; 4 * 4096];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes == pattern(0, 4 * 4096));
        // The end itself is a place for nothing.
        mapping.read(8192, &mut []).unwrap();
        mapping.write(8192, &[]).unwrap();
        mapping.fill(8192, 0, 9).unwrap();
    }

    #[test]
    fn what_was_mapped_to_read_is_not_written() {
        let file = file(4096);
        let mapping = Mapping::read_only(&fd(&file), 0, 4096).unwrap();
        for result in [mapping.write(7, &[1]), mapping.fill(7, 1, 1)] {
            let refused = result.unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        }
        let mut byte = [0];
        mapping.read(7, &mut byte).unwrap();
        assert_eq!(byte, [7]);
    }

    #[test]
    fn a_mapping_outlives_the_descriptor_and_ends_with_its_owner() {
        let name = "/memfd:nosnoop-test-unmapped";
        let mapped = || {
            let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
            maps.matches(name).count()
        };
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let fd = rustix::fs::memfd_create(c"nosnoop-test-unmapped", flags).unwrap();
        rustix::fs::ftruncate(&fd, 8192).unwrap();
        let mapping = Mapping::read_only(&fd, 0, 8192).unwrap();
        drop(fd);
        assert_eq!(mapped(), 1);
        mapping.read(8191, &mut [9]).unwrap();
        drop(mapping);
        assert_eq!(mapped(), 0);
    }

    /// Whether this kernel takes pages ahead of their use; says so if not, as something is skipped.
    pub(crate) fn populates() -> bool {
        let file = rustix::fs::memfd_create(c"nosnoop-test", rustix::fs::MemfdFlags::CLOEXEC);
        let file = file.unwrap();
        rustix::fs::ftruncate(&file, 4096).unwrap();
        let mapping = Mapping::read_only(&file, 0, 4096).unwrap();
        mapping.populate().unwrap();
        let populates = rustix::fs::fstat(&file).unwrap().st_blocks > 0;
        if !populates {
            println!("SKIPPED: this kernel does not know MADV_POPULATE_READ (Linux 5.14)");
        }
        populates
    }

    #[test]
    fn populating_takes_the_pages_and_says_when_there_are_none() {
        if !populates() {
            return;
        }
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let fd = rustix::fs::memfd_create(c"nosnoop-test", flags).unwrap();
        rustix::fs::ftruncate(&fd, 5 * 4096).unwrap();
        let mapping = Mapping::read_only(&fd, 4096, 3 * 4096).unwrap();
        assert_eq!(rustix::fs::fstat(&fd).unwrap().st_blocks, 0);
        mapping.populate().unwrap();
        assert_eq!(rustix::fs::fstat(&fd).unwrap().st_blocks, 3 * 8);
        let beyond = Mapping::read_only(&fd, 4 * 4096, 2 * 4096).unwrap();
        let refused = beyond.populate().unwrap_err();
        assert_eq!(Errno::from_io_error(&refused), Some(Errno::FAULT));
    }

    #[test]
    fn lengths_that_are_no_mapping_are_refused() {
        let file = file(4096);
        for len in [0, 1 << 63, u64::MAX] {
            let refused = Mapping::read_only(&fd(&file), 0, len).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{len}");
            Mapping::read_write(&fd(&file), 0, len).unwrap_err();
        }
        // More than there are addresses: the kernel's answer.
        Mapping::read_only(&fd(&file), 0, 1 << 62).unwrap_err();
        Mapping::read_only(&fd(&file), u64::MAX - 4095, 4096).unwrap_err();
    }
}
