//! Access to guest memory.
//!
//! What `vm_memory` offers searches the region of every access, and takes care of ranges that go on
//! in the next region: a few hundred instructions each time, of which a command needs a dozen. Nearly
//! every range lies in one region, and in the one that was used last.

use std::cell::Cell;
use std::iter::FusedIterator;

use vm_memory::guest_memory::{GuestMemoryBackendSliceIterator, GuestMemorySliceIterator};
use vm_memory::mmap::GuestRegionMmap;
use vm_memory::{
    Address, Bytes, GuestAddress, GuestMemory as Access, GuestMemoryBackend, GuestMemoryError,
    GuestMemoryRegion, MemoryRegionAddress, Permissions, VolatileSlice,
};

use crate::GuestMemory;

/// A guest's memory for a few accesses in a row.
pub(crate) struct Ram<'m> {
    memory: &'m GuestMemory,
    /// The region that was used last.
    last: Cell<Option<&'m GuestRegionMmap<()>>>,
}

impl<'m> Ram<'m> {
    pub(crate) fn new(memory: &'m GuestMemory) -> Self {
        Self {
            memory,
            last: Cell::new(None),
        }
    }

    /// Whether all of the range is guest memory.
    pub(crate) fn has_range(&self, address: GuestAddress, len: usize) -> bool {
        self.slice(address, len).is_some()
            || GuestMemoryBackend::check_range(self.memory, address, len)
    }

    /// Copies the bytes from `address` on into `bytes`. What the guest writes meanwhile may be in the
    /// copy in part.
    ///
    /// # Errors
    /// The range is not all guest memory; `bytes` may be written in part then.
    pub(crate) fn read(
        &self,
        address: GuestAddress,
        bytes: &mut [u8],
    ) -> Result<(), GuestMemoryError> {
        match self.slice(address, bytes.len()) {
            Some(slice) if slice.copy_to(bytes) == bytes.len() => Ok(()),
            _ => self.memory.read_slice(bytes, address),
        }
    }

    /// Copies `bytes` to `address` on.
    ///
    /// # Errors
    /// The range is not all guest memory; a part may be written then.
    pub(crate) fn write(
        &self,
        address: GuestAddress,
        bytes: &[u8],
    ) -> Result<(), GuestMemoryError> {
        match self.slice(address, bytes.len()) {
            Some(slice) => {
                slice.copy_from(bytes);
                Ok(())
            }
            None => self.memory.write_slice(bytes, address),
        }
    }

    /// The range, if it lies in one region.
    fn slice(&self, address: GuestAddress, len: usize) -> Option<VolatileSlice<'m>> {
        if let Some(slice) = self
            .last
            .get()
            .and_then(|region| part(region, address, len))
        {
            return Some(slice);
        }
        let region = self.memory.find_region(address)?;
        let slice = part(region, address, len)?;
        self.last.set(Some(region));
        Some(slice)
    }
}

/// A range of a region; `None` if it does not lie in it.
fn part<'m>(
    region: &'m GuestRegionMmap<()>,
    address: GuestAddress,
    len: usize,
) -> Option<VolatileSlice<'m>> {
    let at = address.checked_offset_from(region.start_addr())?;
    region.get_slice(MemoryRegionAddress(at), len).ok()
}

/// For the crates that walk rings.
impl Access for Ram<'_> {
    type PhysicalMemory = GuestMemory;
    type Bitmap = ();

    fn check_range(&self, address: GuestAddress, len: usize, _: Permissions) -> bool {
        self.has_range(address, len)
    }

    fn get_slices<'a>(
        &'a self,
        address: GuestAddress,
        len: usize,
        _: Permissions,
    ) -> Result<impl GuestMemorySliceIterator<'a, ()>, GuestMemoryError> {
        Ok(match self.slice(address, len) {
            Some(slice) => Slices::One(Some(slice)),
            None => Slices::Many(GuestMemoryBackend::get_slices(self.memory, address, len)),
        })
    }

    fn physical_memory(&self) -> Option<&GuestMemory> {
        Some(self.memory)
    }
}

/// The slices of a range.
enum Slices<'a> {
    One(Option<VolatileSlice<'a>>),
    Many(GuestMemoryBackendSliceIterator<'a, GuestMemory>),
}

impl<'a> Iterator for Slices<'a> {
    type Item = Result<VolatileSlice<'a>, GuestMemoryError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::One(slice) => slice.take().map(Ok),
            Self::Many(slices) => slices.next(),
        }
    }
}

impl FusedIterator for Slices<'_> {}

impl<'a> GuestMemorySliceIterator<'a, ()> for Slices<'a> {}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 4096;
    const BYTES: usize = 4096;

    /// Three pages: two that touch each other in two regions, a hole, one more.
    fn memory() -> GuestMemory {
        let pages = [PAGE, 2 * PAGE, 4 * PAGE].map(|at| (GuestAddress(at), BYTES));
        GuestMemory::from_ranges(&pages).unwrap()
    }

    /// Copies in all ways, with whatever region was used last.
    #[test]
    fn ranges_are_copied_also_from_one_region_into_the_next() {
        let memory = memory();
        let ram = Ram::new(&memory);
        for at in [PAGE, 2 * PAGE - 10, 3 * PAGE - 20, 4 * PAGE, 2 * PAGE - 1] {
            let address = GuestAddress(at);
            let bytes: Vec<u8> = (1..=20).collect();
            ram.write(address, &bytes).unwrap();
            let mut copy = [0; 20];
            memory.read_slice(&mut copy, address).unwrap();
            assert_eq!(copy[..], bytes, "{at:#x}");
            copy.fill(0);
            ram.read(address, &mut copy).unwrap();
            assert_eq!(copy[..], bytes, "{at:#x}");
            copy.fill(0);
            ram.read_slice(&mut copy, address).unwrap();
            assert_eq!(copy[..], bytes, "{at:#x}");
            ram.write_slice(&[9; 20], address).unwrap();
            memory.read_slice(&mut copy, address).unwrap();
            assert_eq!(copy, [9; 20], "{at:#x}");
            assert!(ram.has_range(address, 20));
        }
        assert!(ram.has_range(GuestAddress(PAGE), 2 * BYTES));
    }

    #[test]
    fn what_is_not_all_memory_is_refused() {
        let memory = memory();
        for first in [PAGE, 2 * PAGE, 4 * PAGE] {
            for at in [
                0,
                PAGE - 1,
                3 * PAGE - 19,
                3 * PAGE,
                5 * PAGE - 1,
                u64::MAX - 5,
            ] {
                let ram = Ram::new(&memory);
                ram.read(GuestAddress(first), &mut [0]).unwrap();
                let at = GuestAddress(at);
                assert!(!ram.has_range(at, 20), "{at:?}");
                ram.read(at, &mut [0; 20]).unwrap_err();
                ram.write(at, &[0; 20]).unwrap_err();
                ram.read_slice(&mut [0; 20], at).unwrap_err();
                ram.write_slice(&[0; 20], at).unwrap_err();
            }
        }
        let ram = Ram::new(&memory);
        assert!(!ram.has_range(GuestAddress(PAGE), usize::MAX));
        assert!(!ram.has_range(GuestAddress(PAGE), 3 * BYTES));
    }
}
