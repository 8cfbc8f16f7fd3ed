//! Memory of the host's page cache: what there is on every Linux host, without any GPU.

use std::io;
use std::os::fd::OwnedFd;

use nosnoop_protocol::MapCache;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;

use super::HostMemory;
use crate::memory::PAGE_SIZE;
use crate::memory::kind::{PageKinds, Snooping, Traits};

/// What it is: page cache pages, which every process maps cached and no device is given.
pub(super) const TRAITS: Traits = Traits {
    host: Some(MapCache::Cached),
    kinds: PageKinds::Ram,
    snooping: Snooping::NoDevice,
    verified: true,
};

/// Allocates `len` bytes of zeros in a file of their own. Pages are taken from the host when they
/// are first touched.
///
/// The file can neither shrink nor grow, and that is sealed: no holder of the descriptor can cut
/// pages off under a mapping, at which the mapping process would die.
///
/// # Errors
/// `InvalidInput` when `len` is 0, not a multiple of [`PAGE_SIZE`], or more than a file can have;
/// else what the kernel says (no memory, no descriptors).
pub fn allocate(len: u64) -> io::Result<HostMemory> {
    HostMemory::new(sealed_file(len)?, 0, len, TRAITS)
}

/// The file of [`allocate`].
pub(super) fn sealed_file(len: u64) -> io::Result<OwnedFd> {
    if len == 0 || !len.is_multiple_of(PAGE_SIZE) || i64::try_from(len).is_err() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = match rustix::fs::memfd_create(c"nosnoop-blob", flags | MemfdFlags::NOEXEC_SEAL) {
        // Linux before 6.3 does not know that flag.
        Err(Errno::INVAL) => rustix::fs::memfd_create(c"nosnoop-blob", flags),
        result => result,
    }?;
    rustix::fs::ftruncate(&file, len)?;
    // Not WRITE: the guest and the front-end write to it.
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::Arc;

    use vm_memory::{Bytes, FileOffset, GuestAddress};

    use super::*;
    use crate::GuestMemory;

    #[test]
    fn memory_is_zeros_of_the_size_asked_for() {
        let memory = allocate(3 * PAGE_SIZE).unwrap();
        assert_eq!(memory.len(), 3 * 4096);
        assert_eq!(memory.offset(), 0);
        assert_eq!(memory.traits(), TRAITS);
        let mut bytes = vec![9; 3 * 4096];
        memory.read(0, &mut bytes).unwrap();
        assert_eq!(bytes, vec![0; 3 * 4096]);
        let stat = rustix::fs::fstat(memory.fd()).unwrap();
        assert_eq!(stat.st_size, 3 * 4096);
        assert_eq!(stat.st_blocks, 0, "nothing is touched yet");
    }

    #[test]
    fn the_size_is_sealed_and_the_bytes_are_not() {
        let memory = allocate(2 * PAGE_SIZE).unwrap();
        let fd = &memory.fd();
        let seals = rustix::fs::fcntl_get_seals(fd).unwrap();
        assert!(seals.contains(SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL));
        assert!(!seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE));
        for len in [0, PAGE_SIZE, 3 * PAGE_SIZE] {
            assert_eq!(rustix::fs::ftruncate(fd, len), Err(Errno::PERM), "{len}");
        }
        let sealed = rustix::fs::fcntl_add_seals(fd, SealFlags::WRITE);
        assert_eq!(sealed, Err(Errno::PERM));
        memory.write(5000, b"still written").unwrap();
    }

    #[test]
    fn a_mapping_sees_what_is_written_and_the_reverse() {
        let memory = allocate(2 * PAGE_SIZE).unwrap();
        let file = File::from(memory.fd().try_clone().unwrap());
        let range = (GuestAddress(0), 8192, Some(FileOffset::new(file, 0)));
        let mapping = GuestMemory::from_ranges_with_files([range]).unwrap();

        memory.write(4095, &[0xa5, 0x5a]).unwrap();
        let mut bytes = [9; 4];
        mapping.read_slice(&mut bytes, GuestAddress(4094)).unwrap();
        assert_eq!(bytes, [0, 0xa5, 0x5a, 0]);

        mapping
            .write_slice(&[1, 2, 3, 4], GuestAddress(8188))
            .unwrap();
        memory.read(8188, &mut bytes).unwrap();
        assert_eq!(bytes, [1, 2, 3, 4]);
    }

    #[test]
    fn descriptors_are_not_inherited_and_end_with_their_last_owner() {
        let memory = allocate(PAGE_SIZE).unwrap();
        let flags = rustix::io::fcntl_getfd(memory.fd()).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        let fd = Arc::downgrade(&memory.fd());
        let second = memory.clone();
        drop(memory);
        second.write(0, &[1]).unwrap();
        drop(second);
        assert!(fd.upgrade().is_none());
    }

    #[test]
    fn sizes_that_are_no_memory_are_refused() {
        for len in [0, 1, 4095, 4097, 1 << 63, u64::MAX, u64::MAX - 4095] {
            let refused = allocate(len).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{len}");
        }
        // The most a file could have: whatever the kernel says of it, it is an answer.
        drop(allocate((1 << 63) - PAGE_SIZE));
    }

    #[test]
    fn nobody_can_make_a_program_of_it() {
        let memory = allocate(PAGE_SIZE).unwrap();
        let seals = rustix::fs::fcntl_get_seals(memory.fd()).unwrap();
        if !seals.contains(SealFlags::EXEC) {
            println!("SKIPPED: this kernel does not know MFD_NOEXEC_SEAL (Linux 6.3)");
            return;
        }
        let mode = rustix::fs::fstat(memory.fd()).unwrap().st_mode;
        assert_eq!(mode & 0o111, 0);
    }
}
