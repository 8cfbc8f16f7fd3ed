//! Copies to and from guest memory.
//!
//! What `vm_memory` offers for ranges that may cross from one region into the next costs a
//! few hundred instructions each time, more than the copy itself where a request or a page is
//! copied. Nearly every range lies in one region: those are copied at once, the others its way.

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryError};

use crate::GuestMemory;

/// Whether all of the range is guest memory.
pub(crate) fn has_range(memory: &GuestMemory, address: GuestAddress, len: usize) -> bool {
    memory.get_slice(address, len).is_ok() || memory.check_range(address, len)
}

/// Copies the bytes from `address` on into `bytes`. What the guest writes meanwhile may be in the
/// copy in part.
///
/// # Errors
/// The range is not all guest memory; `bytes` may be written in part then.
pub(crate) fn read(
    memory: &GuestMemory,
    address: GuestAddress,
    bytes: &mut [u8],
) -> Result<(), GuestMemoryError> {
    match memory.get_slice(address, bytes.len()) {
        Ok(slice) if slice.copy_to(bytes) == bytes.len() => Ok(()),
        _ => memory.read_slice(bytes, address),
    }
}

/// Copies `bytes` to `address` on.
///
/// # Errors
/// The range is not all guest memory; a part may be written then.
pub(crate) fn write(
    memory: &GuestMemory,
    address: GuestAddress,
    bytes: &[u8],
) -> Result<(), GuestMemoryError> {
    match memory.get_slice(address, bytes.len()) {
        Ok(slice) => {
            slice.copy_from(bytes);
            Ok(())
        }
        Err(_) => memory.write_slice(bytes, address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 4096;

    /// Three pages: two that touch each other in two regions, a hole, one more.
    fn memory() -> GuestMemory {
        let at = |page: u64| (GuestAddress(page * PAGE), PAGE as usize);
        GuestMemory::from_ranges(&[at(1), at(2), at(4)]).unwrap()
    }

    #[test]
    fn ranges_are_copied_also_from_one_region_into_the_next() {
        let memory = memory();
        for at in [PAGE, 2 * PAGE - 10, 3 * PAGE - 20, 4 * PAGE] {
            let bytes: Vec<u8> = (1..=20).map(|n| n + (at % 97) as u8).collect();
            write(&memory, GuestAddress(at), &bytes).unwrap();
            let mut slow = [0; 20];
            memory.read_slice(&mut slow, GuestAddress(at)).unwrap();
            assert_eq!(slow[..], bytes, "{at:#x}");
            let mut fast = [0; 20];
            read(&memory, GuestAddress(at), &mut fast).unwrap();
            assert_eq!(fast[..], bytes, "{at:#x}");
            assert!(has_range(&memory, GuestAddress(at), 20));
        }
        assert!(has_range(&memory, GuestAddress(PAGE), 2 * PAGE as usize));
    }

    #[test]
    fn what_is_not_all_memory_is_refused() {
        let memory = memory();
        for at in [
            0,
            PAGE - 1,
            3 * PAGE - 19,
            3 * PAGE,
            5 * PAGE - 1,
            u64::MAX - 5,
        ] {
            let at = GuestAddress(at);
            assert!(!has_range(&memory, at, 20), "{at:?}");
            read(&memory, at, &mut [0; 20]).unwrap_err();
            write(&memory, at, &[0; 20]).unwrap_err();
        }
        assert!(!has_range(&memory, GuestAddress(PAGE), usize::MAX));
        assert!(!has_range(&memory, GuestAddress(PAGE), 3 * PAGE as usize));
    }
}
