//! The shared-memory region as the guest sees it: blobs mapped into one reserved range of this
//! process's addresses, each with a KVM memory slot of its own.
//!
//! The reservation keeps a blob at the same distance from the region's start on both sides, and
//! lets nothing else be mapped between blobs. One slot over the whole of it would do too and make
//! mapping cheaper, but then the guest's first touch of a place without a blob ends it (KVM_RUN
//! fails with EFAULT), and a flag of the slot would be for all blobs alike. With a slot for each
//! blob such a touch is an ordinary exit, answered with ones as on a PCI bus.
//!
//! A map that is refused leaves nothing mapped, neither here nor in the guest. No request is
//! granted in a weaker form: a guest whose memory type does not take effect would read stale data
//! and be told that all is well.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{FileType, SealFlags, fcntl_get_seals, fstat};

use super::MapError;
use super::probe::{PageKind, Support};
use super::sys::{Backing, Reservation, Vm};
use crate::frontend::memory::PAGE;
use crate::frontend::memtype::MapFlags;

#[cfg(test)]
mod tests;

/// Memory slots of a virtual machine: KVM's, or something else in its place.
pub trait Slots {
    /// As [`Vm::set_slot`].
    ///
    /// # Errors
    /// As [`Vm::set_slot`].
    fn set(
        &self,
        slot: u32,
        address: u64,
        backing: Backing,
        flags: u32,
        writable: bool,
    ) -> io::Result<()>;

    /// As [`Vm::clear_slot`].
    ///
    /// # Errors
    /// As [`Vm::clear_slot`].
    fn clear(&self, slot: u32) -> io::Result<()>;
}

impl Slots for Arc<Vm> {
    fn set(
        &self,
        slot: u32,
        address: u64,
        backing: Backing,
        flags: u32,
        writable: bool,
    ) -> io::Result<()> {
        self.set_slot(slot, address, backing, flags, writable)
    }

    fn clear(&self, slot: u32) -> io::Result<()> {
        self.clear_slot(slot)
    }
}

/// A map request: which bytes of the file go where, and how. All in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapRequest {
    /// Where the bytes begin in the file.
    pub file_offset: u64,
    /// Where they go in the region.
    pub offset: u64,
    /// How many.
    pub len: u64,
    /// Access and memory type.
    pub flags: MapFlags,
}

/// A blob that is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mapped {
    len: u64,
    slot: u32,
}

/// What a file's pages are, as far as its descriptor says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileKind {
    /// A file in memory: RAM.
    Memory,
    /// A device node or a dma-buf: any page, mapped by a driver.
    Driver,
}

/// The region.
#[derive(Debug)]
pub struct Window<S> {
    slots: S,
    reservation: Arc<Reservation>,
    start: u64,
    support: Support,
    blobs: BTreeMap<u64, Mapped>,
    free_slots: Vec<u32>,
    next_slot: u32,
}

impl<S: Slots> Window<S> {
    /// An empty region of `size` bytes at the guest-physical address `start`, in whole pages.
    /// Memory slots from `first_slot` on are its own. `support` is what was found for this very
    /// virtual machine; its quirk, if it needs one, is disabled already.
    ///
    /// # Errors
    /// Without so many free addresses in this process.
    pub fn new(
        slots: S,
        start: u64,
        size: u64,
        first_slot: u32,
        support: Support,
    ) -> io::Result<Self> {
        Ok(Self {
            slots,
            reservation: Arc::new(Reservation::new(size)?),
            start,
            support,
            blobs: BTreeMap::new(),
            free_slots: Vec::new(),
            next_slot: first_slot,
        })
    }

    /// The addresses of this process in which blobs are mapped.
    #[must_use]
    pub fn reservation(&self) -> &Arc<Reservation> {
        &self.reservation
    }

    /// What is mapped: offset and bytes, sorted.
    #[must_use]
    pub fn mapped(&self) -> Vec<(u64, u64)> {
        let pairs = self.blobs.iter().map(|(offset, blob)| (*offset, blob.len));
        pairs.collect()
    }

    /// Maps a part of a file for the guest, exactly as asked or not at all.
    ///
    /// # Errors
    /// Why not; nothing is mapped then.
    pub fn map(&mut self, request: MapRequest, file: &OwnedFd) -> Result<(), MapError> {
        self.check_range(request)?;
        let file_kind = self.check_file(request, file)?;
        let slot_flags = self.slot_flags(request.flags, file_kind)?;
        let MapRequest {
            file_offset,
            offset,
            len,
            flags,
        } = request;
        let window = &self.reservation;
        window
            .map(offset, len, file, file_offset, flags.writable)
            .map_err(MapError::Mmap)?;
        if let Err(error) = self.expose(request, file_kind, slot_flags) {
            // The part is there, so this fails only without any memory, and then nobody knows
            // what is mapped: better no program than a wrong answer.
            self.reservation
                .unmap(offset)
                .expect("taking back a mapping");
            return Err(error);
        }
        Ok(())
    }

    fn check_range(&self, request: MapRequest) -> Result<(), MapError> {
        let MapRequest {
            file_offset,
            offset,
            len,
            ..
        } = request;
        let range = |what| MapError::Range { offset, len, what };
        if len == 0 || [file_offset, offset, len].iter().any(|n| n % PAGE != 0) {
            return Err(range("is not one of whole pages"));
        }
        let end = offset.checked_add(len);
        let end = end.filter(|end| *end <= self.reservation.size());
        let end = end.ok_or(range("ends outside of the region"))?;
        let before = self.blobs.range(..end).next_back();
        if before.is_some_and(|(start, blob)| start + blob.len > offset) {
            return Err(range("overlaps what is mapped"));
        }
        Ok(())
    }

    /// Whether the guest can end this program by way of the file: by touching what lies behind its
    /// end. Drivers check the length of a mapping themselves.
    fn check_file(&self, request: MapRequest, file: &OwnedFd) -> Result<FileKind, MapError> {
        let status = fstat(file).map_err(|error| MapError::Mmap(error.into()))?;
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            return Ok(FileKind::Driver);
        }
        let end = request.file_offset.checked_add(request.len);
        let size = u64::try_from(status.st_size).unwrap_or(0);
        if end.is_none_or(|end| end > size) {
            return Err(MapError::File("it is shorter than the mapping"));
        }
        let seals = fcntl_get_seals(file).unwrap_or(SealFlags::empty());
        if !seals.contains(SealFlags::SHRINK) {
            return Err(MapError::File("it could shrink: it is not sealed"));
        }
        Ok(FileKind::Memory)
    }

    /// The slot's flags that give the request what it asks for. The request does not say which
    /// pages a driver's buffer has, and the driver may move it: both kinds must do.
    fn slot_flags(&self, flags: MapFlags, file: FileKind) -> Result<u32, MapError> {
        if !flags.needs_guest_type() {
            return Ok(0);
        }
        let kinds: &[PageKind] = match file {
            FileKind::Memory => &[PageKind::Ram],
            FileKind::Driver => &[PageKind::Ram, PageKind::Mmio],
        };
        self.support.slot_flags(kinds).map_err(MapError::NotHonored)
    }

    /// Gives the guest what is mapped in the reservation already.
    fn expose(
        &mut self,
        request: MapRequest,
        file: FileKind,
        slot_flags: u32,
    ) -> Result<(), MapError> {
        let MapRequest {
            offset, len, flags, ..
        } = request;
        // A memory file's pages need none, and a touch would allocate all of them.
        if file == FileKind::Driver && flags.writable {
            self.reservation
                .write_touch(offset, len)
                .map_err(MapError::Mmap)?;
        }
        let slot = self.free_slots.last().copied().unwrap_or(self.next_slot);
        let backing = Backing::Window(self.reservation.clone(), offset, len);
        let address = self.start + offset;
        self.slots
            .set(slot, address, backing, slot_flags, flags.writable)
            .map_err(MapError::Slot)?;
        if self.free_slots.pop().is_none() {
            self.next_slot += 1;
        }
        self.blobs.insert(offset, Mapped { len, slot });
        Ok(())
    }

    /// Takes away exactly what one map request has mapped.
    ///
    /// # Errors
    /// [`MapError::Range`] if it is not such a range, or [`MapError::Slot`]; nothing has changed
    /// then.
    pub fn unmap(&mut self, offset: u64, len: u64) -> Result<(), MapError> {
        let blob = self.blobs.get(&offset).filter(|blob| blob.len == len);
        let blob = *blob.ok_or(MapError::Range {
            offset,
            len,
            what: "is not mapped as such",
        })?;
        self.slots.clear(blob.slot).map_err(MapError::Slot)?;
        self.blobs.remove(&offset);
        self.free_slots.push(blob.slot);
        self.reservation.unmap(offset).map_err(MapError::Mmap)
    }

    /// Takes everything away, as when the device is reset.
    ///
    /// # Errors
    /// The first that failed; the rest is still there.
    pub fn clear(&mut self) -> Result<(), MapError> {
        for (offset, len) in self.mapped() {
            self.unmap(offset, len)?;
        }
        Ok(())
    }
}
