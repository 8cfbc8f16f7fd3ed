//! The daemon's own access to the bytes of host memory, whatever its memory type.

use std::io;

use super::alloc::HostMemory;
use crate::sys::mmap::Mapping;

/// Host memory, mapped into this process as its file maps it: write-combining where that is the
/// host's type of this memory.
///
/// Bytes go in and out by copy, in blocks that suit write-combining memory and are right for any
/// other: nothing here needs to know the type. Whether the host's CPU may touch the memory at all
/// while a guest has it mapped is the plan's business.
#[derive(Debug)]
pub struct View(Mapping);

impl View {
    /// Maps all of `memory`, to read.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn read_only(memory: &HostMemory) -> io::Result<Self> {
        Mapping::read_only(&memory.fd(), memory.offset(), memory.len()).map(Self)
    }

    /// Maps all of `memory`, to read and to write.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn read_write(memory: &HostMemory) -> io::Result<Self> {
        Mapping::read_write(&memory.fd(), memory.offset(), memory.len()).map(Self)
    }

    /// Copies the bytes from `at` on, counted from the start of the memory: what is in memory when
    /// the call begins, or later. What others write meanwhile may be in the copy in part.
    ///
    /// # Errors
    /// `InvalidInput`, and nothing is copied, when they do not lie inside the memory.
    pub fn read(&self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.0.read(address(at)?, bytes)
    }

    /// Writes `bytes` from `at` on, counted from the start of the memory. When this returns, they
    /// are on their way before anything that is written later.
    ///
    /// # Errors
    /// `InvalidInput` when they do not lie inside the memory, `PermissionDenied` when it was mapped
    /// to read; nothing is written then.
    pub fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write(address(at)?, bytes)
    }

    /// Writes `byte` to all of the `len` bytes from `at` on; as [`View::write`] otherwise.
    ///
    /// # Errors
    /// The same.
    pub fn fill(&self, at: u64, len: u64, byte: u8) -> io::Result<()> {
        self.0.fill(address(at)?, address(len)?, byte)
    }
}

fn address(number: u64) -> io::Result<usize> {
    usize::try_from(number).map_err(|_| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::memory::flush::tests::middle;

    #[test]
    fn a_view_shows_the_memory_and_nothing_else_of_the_file() {
        let (file, memory) = middle();
        let view = View::read_write(&memory).unwrap();
        let mut bytes = [9; 8192];
        view.read(0, &mut bytes).unwrap();
        assert!(bytes[..4096] == [1; 4096] && bytes[4096..] == [2; 4096]);

        view.write(4090, b"across both").unwrap();
        view.fill(8000, 192, 7).unwrap();
        memory.read(0, &mut bytes).unwrap();
        assert_eq!(bytes[4089..4102], *b"\x01across both\x02");
        assert!(bytes[7999] == 2 && bytes[8000..] == [7; 192]);
        let mut around = [9; 2];
        file.read_exact_at(&mut around, 4095).unwrap();
        assert_eq!(around, [0, 1]);
        file.read_exact_at(&mut around, 3 * 4096 - 1).unwrap();
        assert_eq!(around, [7, 3]);
    }

    #[test]
    fn outside_and_read_only_are_refused() {
        let (_, memory) = middle();
        let view = View::read_only(&memory).unwrap();
        for at in [8192, 1 << 40, u64::MAX] {
            let refused = view.read(at, &mut [0]).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{at}");
            view.fill(0, at.saturating_add(1), 1).unwrap_err();
        }
        let refused = view.write(0, &[1]).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        let refused = view.fill(0, 1, 1).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        let mut byte = [9];
        memory.read(0, &mut byte).unwrap();
        assert_eq!(byte, [1]);
    }
}
