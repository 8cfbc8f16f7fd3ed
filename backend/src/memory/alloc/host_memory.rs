//! A piece of host memory, wherever it comes from.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::gem::GemObject;
use crate::memory::PAGE_SIZE;
use crate::memory::kind::Traits;

/// Memory that the front-end can map for a guest: a range of a file, and what is known of it.
///
/// The memory lives as long as this, its clones, or a mapping of it anywhere.
#[derive(Debug, Clone)]
pub struct HostMemory {
    fd: Arc<OwnedFd>,
    offset: u64,
    len: u64,
    traits: Traits,
    access: Access,
}

/// How this process gets at the bytes.
#[derive(Debug, Clone)]
enum Access {
    /// By reading and writing the file.
    File,
    /// By mapping it. Reading a device node would wait for the device's events.
    Mapping,
    /// By mapping the node of a device, which keeps the memory while it has the handle.
    Device { _object: Arc<GemObject> },
}

impl HostMemory {
    /// `len` bytes of a plain file from `offset` on. The caller sees to it that the file has them for
    /// good, and that `traits` are true.
    ///
    /// # Errors
    /// `InvalidInput` when `offset` or `len` is not a multiple of [`PAGE_SIZE`], `len` is 0, or the
    /// end is past what a file can have.
    pub fn new(fd: OwnedFd, offset: u64, len: u64, traits: Traits) -> io::Result<Self> {
        Self::with_access(Arc::new(fd), offset, len, traits, Access::File)
    }

    /// `len` bytes of a dma-buf, from its beginning.
    ///
    /// # Errors
    /// As [`HostMemory::new`], and when the dma-buf is smaller.
    pub(in crate::memory) fn dma_buf(fd: OwnedFd, len: u64, traits: Traits) -> io::Result<Self> {
        if rustix::fs::seek(&fd, rustix::fs::SeekFrom::End(0))? < len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Self::with_access(Arc::new(fd), 0, len, traits, Access::Mapping)
    }

    /// `len` bytes of a buffer, which the node's file has at `offset` for whoever has this very open
    /// file description. The handle is kept.
    ///
    /// # Errors
    /// As [`HostMemory::new`], and for offset 0, where no node has a buffer.
    pub(super) fn device(
        object: GemObject,
        offset: u64,
        len: u64,
        traits: Traits,
    ) -> io::Result<Self> {
        if offset == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let fd = object.node().fd();
        let _object = Arc::new(object);
        Self::with_access(fd, offset, len, traits, Access::Device { _object })
    }

    fn with_access(
        fd: Arc<OwnedFd>,
        offset: u64,
        len: u64,
        traits: Traits,
        access: Access,
    ) -> io::Result<Self> {
        let end = offset.checked_add(len);
        let pages = offset.is_multiple_of(PAGE_SIZE) && len.is_multiple_of(PAGE_SIZE);
        if len == 0 || !pages || end.is_none_or(|end| i64::try_from(end).is_err()) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(Self {
            fd,
            offset,
            len,
            traits,
            access,
        })
    }

    /// The file.
    #[must_use]
    pub fn fd(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.fd)
    }

    /// The file, if it begins with this memory and belongs to it alone: not for a buffer that is a part of
    /// its node's file, with all others of that node.
    #[must_use]
    pub fn whole_file(&self) -> Option<Arc<OwnedFd>> {
        match self.access {
            Access::File | Access::Mapping if self.offset == 0 => Some(self.fd()),
            Access::File | Access::Mapping | Access::Device { .. } => None,
        }
    }

    /// Where in the file the memory begins, in bytes; a multiple of [`PAGE_SIZE`].
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes; a multiple of [`PAGE_SIZE`], not 0.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// What is known of it.
    #[must_use]
    pub fn traits(&self) -> Traits {
        self.traits
    }

    /// Copies the bytes from `at` on, counted from the start of the memory. What the guest writes
    /// meanwhile may be in the copy in part.
    ///
    /// The kernel copies through its own cached mapping: not for memory that a guest maps
    /// otherwise, which the caller sees to (scanouts refuse such memory).
    ///
    /// # Errors
    /// `Unsupported`, and nothing is copied, for memory that can be mapped only; `InvalidInput`, and
    /// nothing is copied, when they do not lie inside the memory; else what the kernel says.
    pub fn read(&self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        let mut position = self.position(at, bytes.len())?;
        let mut rest = bytes;
        while !rest.is_empty() {
            let count =
                rustix::io::retry_on_intr(|| rustix::io::pread(&*self.fd, &mut *rest, position))?;
            (position, rest) = match rest.split_at_mut_checked(count) {
                Some((read, unread)) if !read.is_empty() => (advance(position, count)?, unread),
                _ => return Err(io::ErrorKind::UnexpectedEof.into()),
            };
        }
        Ok(())
    }

    /// Writes `bytes` from `at` on, counted from the start of the memory; as [`HostMemory::read`]
    /// otherwise.
    ///
    /// # Errors
    /// `Unsupported`, and nothing is written, for memory that can be mapped only; `InvalidInput`, and
    /// nothing is written, when they do not lie inside the memory; else what the kernel says, and
    /// some may have been written.
    pub fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut position = self.position(at, bytes.len())?;
        let mut rest = bytes;
        while !rest.is_empty() {
            let count =
                rustix::io::retry_on_intr(|| rustix::io::pwrite(&*self.fd, rest, position))?;
            (position, rest) = match rest.split_at_checked(count) {
                Some((written, unwritten)) if !written.is_empty() => {
                    (advance(position, count)?, unwritten)
                }
                _ => return Err(io::ErrorKind::WriteZero.into()),
            };
        }
        Ok(())
    }

    /// Where in the file `count` bytes from `at` on begin.
    fn position(&self, at: u64, count: usize) -> io::Result<u64> {
        if !matches!(self.access, Access::File) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let inside = u64::try_from(count)
            .ok()
            .and_then(|count| at.checked_add(count))
            .is_some_and(|end| end <= self.len);
        let position = self.offset.checked_add(at).filter(|_| inside);
        position.ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }
}

fn advance(position: u64, count: usize) -> io::Result<u64> {
    u64::try_from(count)
        .ok()
        .and_then(|count| position.checked_add(count))
        .ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use nosnoop_protocol::MapCache;

    use super::*;
    use crate::memory::kind::{PageKinds, Snooping};

    const WC: Traits = Traits {
        host: Some(MapCache::Wc),
        kinds: PageKinds::Either,
        snooping: Snooping::No,
        verified: false,
    };

    /// A file of pages 0, 1, 2 and 3, filled with their numbers, and the memory of the middle two.
    fn middle() -> (File, HostMemory) {
        let file = tempfile::tempfile().unwrap();
        for page in 0..4_u8 {
            let at = u64::from(page).checked_mul(PAGE_SIZE).unwrap();
            file.write_all_at(&[page; 4096], at).unwrap();
        }
        let fd = file.try_clone().unwrap().into();
        let memory = HostMemory::new(fd, PAGE_SIZE, 8192, WC).unwrap();
        (file, memory)
    }

    #[test]
    fn memory_knows_what_it_is() {
        let (_, memory) = middle();
        assert_eq!(memory.offset(), 4096);
        assert_eq!(memory.len(), 8192);
        assert_eq!(memory.traits(), WC);
        assert!(Arc::ptr_eq(&memory.fd(), &memory.clone().fd()));
    }

    #[test]
    fn only_whole_pages_are_memory() {
        let limit = i64::MAX.cast_unsigned();
        let last = limit.checked_sub(4095).unwrap();
        for (offset, len) in [
            (0, 0),
            (0, 1),
            (0, 4095),
            (0, 4097),
            (1, 4096),
            (4095, 4096),
            (last, 4096),
            (0, 1 << 63),
            (u64::MAX, 4096),
            (1 << 63, 1 << 63),
        ] {
            let file = tempfile::tempfile().unwrap().into();
            let refused = HostMemory::new(file, offset, len, WC).unwrap_err();
            assert_eq!(
                refused.kind(),
                io::ErrorKind::InvalidInput,
                "{offset} {len}"
            );
        }
    }

    #[test]
    fn bytes_are_those_of_the_files_range() {
        let (file, memory) = middle();
        let mut bytes = [9; 4];
        memory.read(4094, &mut bytes).unwrap();
        assert_eq!(bytes, [1, 1, 2, 2]);
        memory.write(8188, &[5, 6, 7, 8]).unwrap();
        memory.write(0, &[4]).unwrap();
        memory.read(8188, &mut bytes).unwrap();
        assert_eq!(bytes, [5, 6, 7, 8]);
        file.read_exact_at(&mut bytes, 12_286).unwrap();
        assert_eq!(bytes, [7, 8, 3, 3]);
        file.read_exact_at(&mut bytes, 4094).unwrap();
        assert_eq!(bytes, [0, 0, 4, 1]);
    }

    #[test]
    fn nothing_outside_is_read_or_written() {
        let (file, memory) = middle();
        for (at, count) in [
            (8192, 1),
            (8191, 2),
            (0, 8193),
            (u64::MAX, 1),
            (u64::MAX, 2),
            (u64::MAX - 4095, 1),
            (1 << 63, 0),
        ] {
            let mut bytes = vec![9; count];
            let read = memory.read(at, &mut bytes).unwrap_err();
            assert_eq!(read.kind(), io::ErrorKind::InvalidInput, "{at} {count}");
            assert_eq!(bytes, vec![9; count]);
            let written = memory.write(at, &bytes).unwrap_err();
            assert_eq!(written.kind(), io::ErrorKind::InvalidInput, "{at} {count}");
        }
        let mut page = [0; 4096];
        for number in 0..4_u8 {
            let at = u64::from(number).checked_mul(PAGE_SIZE).unwrap();
            file.read_exact_at(&mut page, at).unwrap();
            assert_eq!(page, [number; 4096]);
        }
        // The end itself is a place for nothing.
        memory.read(8192, &mut []).unwrap();
        memory.write(8192, &[]).unwrap();
    }

    #[test]
    fn a_file_that_has_less_is_an_error() {
        let (file, memory) = middle();
        file.set_len(5000).unwrap();
        let refused = memory.read(0, &mut [0; 8192]).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_dma_buf_has_as_much_as_is_said_and_is_mapped_only() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8192).unwrap();
        let fd = || OwnedFd::from(file.try_clone().unwrap());
        let memory = HostMemory::dma_buf(fd(), 8192, WC).unwrap();
        for at in [0, 9000] {
            let read = memory.read(at, &mut [0]).unwrap_err();
            assert_eq!(read.kind(), io::ErrorKind::Unsupported);
            let written = memory.write(at, &[0]).unwrap_err();
            assert_eq!(written.kind(), io::ErrorKind::Unsupported);
        }
        let refused = HostMemory::dma_buf(fd(), 12_288, WC).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::UnexpectedEof);
    }
}
