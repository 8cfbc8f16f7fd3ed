//! The only unsafe code here: memory that a guest sees, and the system calls that give it to KVM.
//!
//! KVM reaches guest memory by its address in this process, so that memory must outlive every slot
//! over it. [`Vm`] sees to it: it keeps what backs a slot until the slot is gone, and each vCPU
//! keeps its `Vm`.
#![expect(
    unsafe_code,
    reason = "memory slots name addresses, and mappings are made and unmade by hand"
)]

use std::collections::{BTreeMap, HashMap};
use std::ffi::c_void;
use std::io;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvm_bindings::{KVM_MEM_READONLY, kvm_enable_cap, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use super::probe::CAP_DISABLE_QUIRKS2;
use crate::frontend::memory::PAGE;

#[cfg(test)]
mod tests;

/// Flags of a mapping of nothing, which costs nothing.
const NOTHING: MapFlags = MapFlags::PRIVATE.union(MapFlags::NORESERVE);

/// A range of this process's addresses in which nothing else is mapped. Parts of it show files;
/// the rest cannot be accessed.
#[derive(Debug)]
pub struct Reservation {
    start: NonNull<c_void>,
    len: usize,
    /// What is mapped: offset -> part. Held while a part is accessed, so that it stays.
    parts: Mutex<BTreeMap<u64, Part>>,
}

/// A part of a reservation that shows a file.
#[derive(Clone, Copy, Debug)]
struct Part {
    len: u64,
    writable: bool,
}

// SAFETY: it is a range of addresses that it owns alone. No thread is special to it, and all
// access to what is mapped there is by atomic bytes here, or by KVM.
unsafe impl Send for Reservation {}
// SAFETY: as above; the mappings change under the lock only.
unsafe impl Sync for Reservation {}

impl Reservation {
    /// Reserves `len` bytes, whole pages.
    ///
    /// # Errors
    /// What mmap says; a length of zero is invalid.
    pub fn new(len: u64) -> io::Result<Self> {
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: an anonymous mapping at an address of the kernel's choice replaces nothing.
        let start = unsafe { mmap_anonymous(null_mut(), len, ProtFlags::empty(), NOTHING) }?;
        let start = NonNull::new(start).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            start,
            len,
            parts: Mutex::default(),
        })
    }

    /// Bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.len as u64
    }

    /// Where it begins in this process.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.start.as_ptr() as u64
    }

    fn parts(&self) -> MutexGuard<'_, BTreeMap<u64, Part>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at(&self, offset: u64) -> *mut c_void {
        self.start.as_ptr().wrapping_byte_add(offset as usize)
    }

    /// Shows `len` bytes of a file from `file_offset` on at `offset`: this very file at this very
    /// place, so that this alias has the memory type that the file's driver gives it.
    ///
    /// # Errors
    /// `InvalidInput` for what is not whole pages inside, `AlreadyExists` where something is
    /// mapped, else what mmap says. Nothing is mapped then.
    pub fn map(
        &self,
        offset: u64,
        len: u64,
        file: impl AsFd,
        file_offset: u64,
        writable: bool,
    ) -> io::Result<()> {
        let end = offset.checked_add(len).filter(|end| *end <= self.size());
        let end = end.ok_or(io::ErrorKind::InvalidInput)?;
        if len == 0 || [offset, len, file_offset].iter().any(|n| n % PAGE != 0) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut parts = self.parts();
        let before = parts.range(..end).next_back();
        if before.is_some_and(|(start, part)| start + part.len > offset) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let mut protection = ProtFlags::READ;
        protection.set(ProtFlags::WRITE, writable);
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        let (address, bytes) = (self.at(offset), len as usize);
        // SAFETY: what it replaces lies inside of this reservation and shows nothing, as checked
        // above and ensured by the lock, so no address in it is in use.
        let mapped = unsafe { mmap(address, bytes, protection, flags, file, file_offset) };
        if let Err(error) = mapped {
            // Linux takes the old mapping away before it asks the file's driver.
            self.clear(offset, len)?;
            return Err(error.into());
        }
        parts.insert(offset, Part { len, writable });
        Ok(())
    }

    /// Takes away what [`Self::map`] has mapped at `offset`. Slots over it must be gone, or the
    /// guest's next access there ends it.
    ///
    /// # Errors
    /// `NotFound` if no mapping begins there, else what mmap says: out of memory at most.
    pub fn unmap(&self, offset: u64) -> io::Result<()> {
        let mut parts = self.parts();
        let part = *parts.get(&offset).ok_or(io::ErrorKind::NotFound)?;
        self.clear(offset, part.len)?;
        parts.remove(&offset);
        Ok(())
    }

    /// Makes a range that lies inside inaccessible; the caller holds the lock.
    fn clear(&self, offset: u64, len: u64) -> io::Result<()> {
        let flags = NOTHING | MapFlags::FIXED;
        let (address, bytes) = (self.at(offset), len as usize);
        // SAFETY: what it replaces lies inside of this reservation, and its callers hold the lock,
        // so no address in it is in use.
        unsafe { mmap_anonymous(address, bytes, ProtFlags::empty(), flags) }?;
        Ok(())
    }

    /// Calls `access` with each `step`th byte of a range that is mapped.
    fn each_byte(
        &self,
        offset: u64,
        len: u64,
        step: u64,
        writes: bool,
        mut access: impl FnMut(usize, &AtomicU8),
    ) -> io::Result<()> {
        let parts = self.parts();
        let found = parts.range(..=offset).next_back();
        let inside = found.is_some_and(|(start, part)| {
            let end = offset.checked_add(len);
            end.is_some_and(|end| end <= start + part.len) && (part.writable || !writes)
        });
        if !inside {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        for at in (0..len).step_by(step as usize) {
            let byte = self.at(offset + at).cast::<u8>();
            // SAFETY: the byte lies in a part that is mapped, readable and writable if need be
            // (checked above), and stays so while the lock is held. Bytes are always aligned and
            // initialized. Others access it by atomic bytes, or from outside of this program.
            let byte = unsafe { AtomicU8::from_ptr(byte) };
            access(at as usize, byte);
        }
        Ok(())
    }

    /// Stores to one byte of each page of a range what is there already.
    ///
    /// Linux 7.1 and newer map a page of a `VM_PFNMAP` area (the memory of GPU drivers) read-only
    /// until it was stored to through this very mapping. KVM would take over the read-only page
    /// and then execute the guest's first stores by itself, which it cannot do for every
    /// instruction.
    ///
    /// # Errors
    /// `InvalidInput` unless the range is mapped writable.
    pub fn write_touch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.each_byte(offset, len, PAGE, true, |_, byte| {
            let mut value = byte.load(Ordering::Relaxed);
            // A compare-and-exchange always stores; adding zero may be compiled to a load. And
            // whoever writes to the page meanwhile (a renderer) does not lose what it wrote.
            while let Err(now) =
                byte.compare_exchange(value, value, Ordering::Relaxed, Ordering::Relaxed)
            {
                value = now;
            }
        })
    }

    /// Reads through this alias.
    ///
    /// # Errors
    /// `InvalidInput` unless the range is mapped.
    pub fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.each_byte(offset, len as u64, 1, false, |at, byte| {
            bytes[at] = byte.load(Ordering::Relaxed);
        })?;
        Ok(bytes)
    }

    /// Writes through this alias.
    ///
    /// # Errors
    /// `InvalidInput` unless the range is mapped writable.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.each_byte(offset, bytes.len() as u64, 1, true, |at, byte| {
            byte.store(bytes[at], Ordering::Relaxed);
        })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: it owns the range, and nobody has an address in it any more: a `Vm` with a slot
        // over it would keep it alive.
        let unmapped = unsafe { munmap(self.start.as_ptr(), self.len) };
        debug_assert!(unmapped.is_ok(), "a range that was mapped");
    }
}

/// What lies behind a memory slot.
#[derive(Clone, Debug)]
pub enum Backing {
    /// A part of a reservation: from this offset, this many bytes.
    Window(Arc<Reservation>, u64, u64),
    /// The region of guest memory at this guest address, this many bytes.
    Ram(GuestMemoryMmap, u64, u64),
}

impl Backing {
    /// Address in this process and bytes.
    fn range(&self) -> io::Result<(u64, u64)> {
        let outside = || io::Error::from(io::ErrorKind::InvalidInput);
        match self {
            Self::Window(window, offset, len) => {
                let end = offset.checked_add(*len);
                if end.is_none_or(|end| end > window.size()) {
                    return Err(outside());
                }
                Ok((window.at(*offset) as u64, *len))
            }
            Self::Ram(memory, start, len) => {
                let count = usize::try_from(*len).map_err(|_| outside())?;
                let slice = memory
                    .get_slice(GuestAddress(*start), count)
                    .map_err(|_| outside())?;
                Ok((slice.ptr_guard_mut().as_ptr() as u64, *len))
            }
        }
    }
}

/// A virtual machine that keeps alive what its memory slots show.
#[derive(Debug)]
pub struct Vm {
    fd: VmFd,
    kept: Mutex<HashMap<u32, Backing>>,
}

impl Vm {
    /// A virtual machine without memory.
    ///
    /// # Errors
    /// What KVM says.
    pub fn new(kvm: &Kvm) -> io::Result<Arc<Self>> {
        let fd = kvm.create_vm().map_err(error)?;
        Ok(Arc::new(Self {
            fd,
            kept: Mutex::new(HashMap::new()),
        }))
    }

    /// Disables one of KVM's quirks for good; to be done before any guest runs.
    ///
    /// # Errors
    /// What KVM says.
    pub fn disable_quirk(&self, quirk: u64) -> io::Result<()> {
        let request = kvm_enable_cap {
            cap: CAP_DISABLE_QUIRKS2,
            args: [quirk, 0, 0, 0],
            ..kvm_enable_cap::default()
        };
        self.fd.enable_cap(&request).map_err(error)
    }

    /// Shows `backing` to the guest at a guest-physical address, in a slot that is free. `flags`
    /// are KVM's; [`KVM_MEM_READONLY`] is added where `writable` is false.
    ///
    /// # Errors
    /// What KVM says (EINVAL for flags that it does not know); the slot is free then.
    pub fn set_slot(
        &self,
        slot: u32,
        address: u64,
        backing: Backing,
        flags: u32,
        writable: bool,
    ) -> io::Result<()> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.contains_key(&slot) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let (userspace_addr, memory_size) = backing.range()?;
        let region = kvm_userspace_memory_region {
            slot,
            flags: flags | if writable { 0 } else { KVM_MEM_READONLY },
            guest_phys_addr: address,
            memory_size,
            userspace_addr,
        };
        // SAFETY: the range belongs to `backing` (its `range` has checked), which stays in `kept`
        // until the slot is gone. KVM refuses slots that overlap in the guest's addresses. What
        // is not accessible in a reservation gives an error on the guest's access, not more.
        unsafe { self.fd.set_user_memory_region(region) }.map_err(error)?;
        kept.insert(slot, backing);
        Ok(())
    }

    /// Takes a slot away. Afterwards the guest does not reach the memory any more.
    ///
    /// # Errors
    /// `NotFound` for a free slot, else what KVM says.
    pub fn clear_slot(&self, slot: u32) -> io::Result<()> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if !kept.contains_key(&slot) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let region = kvm_userspace_memory_region {
            slot,
            ..kvm_userspace_memory_region::default()
        };
        // SAFETY: a size of zero deletes the slot; no address is used.
        unsafe { self.fd.set_user_memory_region(region) }.map_err(error)?;
        kept.remove(&slot);
        Ok(())
    }

    /// Makes a virtual processor.
    ///
    /// # Errors
    /// What KVM says.
    pub fn vcpu(self: &Arc<Self>, id: u64) -> io::Result<Vcpu> {
        let fd = self.fd.create_vcpu(id).map_err(error)?;
        Ok(Vcpu {
            fd,
            _vm: self.clone(),
        })
    }
}

/// A virtual processor; as long as it is there, so is its machine's memory.
#[derive(Debug)]
pub struct Vcpu {
    fd: VcpuFd,
    _vm: Arc<Vm>,
}

impl Vcpu {
    /// Runs the guest until it needs something; `Interrupted` after a signal.
    ///
    /// # Errors
    /// What KVM says.
    pub fn run(&mut self) -> io::Result<VcpuExit<'_>> {
        self.fd.run().map_err(error)
    }
}

impl Deref for Vcpu {
    type Target = VcpuFd;
    fn deref(&self) -> &VcpuFd {
        &self.fd
    }
}

/// KVM's error number as an I/O error.
pub fn error(error: kvm_ioctls::Error) -> io::Error {
    io::Error::from_raw_os_error(error.errno())
}
