//! The few KVM ioctls that tell what this host's KVM can do (linux/kvm.h).
#![expect(
    unsafe_code,
    reason = "ioctls take untyped arguments and return descriptors as numbers"
)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use libc::{Ioctl, c_ulong};
use memmap2::MmapMut;

const KVM_CREATE_VM: Ioctl = 0xae01;
const KVM_CHECK_EXTENSION: Ioctl = 0xae03;
/// `_IOW(0xae, 0x46, struct kvm_userspace_memory_region)`.
const KVM_SET_USER_MEMORY_REGION: Ioctl = 0x4020_ae46;

/// `struct kvm_userspace_memory_region`.
#[repr(C)]
#[derive(Debug)]
struct MemoryRegion {
    slot: u32,
    flags: u32,
    guest_phys_addr: u64,
    memory_size: u64,
    userspace_addr: u64,
}

const _: () = assert!(size_of::<MemoryRegion>() == 32);

/// `/dev/kvm`, open.
#[derive(Debug)]
pub(crate) struct Kvm(File);

impl Kvm {
    /// Opens `/dev/kvm`.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn open() -> io::Result<Self> {
        let file = File::options().read(true).write(true).open("/dev/kvm")?;
        Ok(Self(file))
    }

    /// What the kernel answers to `KVM_CHECK_EXTENSION` of `capability`: 0 if it does not have it.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn check_extension(&self, capability: u32) -> io::Result<u32> {
        // SAFETY: `libc::ioctl` needs an open descriptor, which the borrowed file keeps open, and
        // an argument as the request defines it. KVM_CHECK_EXTENSION takes a number and neither
        // reads nor writes memory. On any other file than KVM's it would be refused (ENOTTY):
        // the type byte 0xae is KVM's alone.
        let answer = unsafe {
            libc::ioctl(
                self.0.as_raw_fd(),
                KVM_CHECK_EXTENSION,
                c_ulong::from(capability),
            )
        };
        u32::try_from(answer).map_err(|_| io::Error::last_os_error())
    }

    /// Whether a VM takes a memslot with these `flags`. Makes a VM for it that never runs.
    ///
    /// # Errors
    /// What the kernel says of the VM, of a memslot without flags, or of these flags unless it is
    /// that they are invalid.
    pub(crate) fn takes_slot_flags(&self, flags: u32) -> io::Result<bool> {
        /// A multiple of every page size that Linux has.
        const LENGTH: usize = 64 << 10;
        // Declared before the VM, so that the VM goes first.
        let memory = MmapMut::map_anon(LENGTH)?;
        let vm = self.create_vm()?;
        // A plain slot first: if that fails, a failure says nothing about the flags.
        set_region(&vm, &memory, 0, 0)?;
        match set_region(&vm, &memory, 1, flags) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn create_vm(&self) -> io::Result<OwnedFd> {
        /// `KVM_CREATE_VM` gives up when a signal comes; none comes this often.
        const TRIES: usize = 16;
        let default_type: c_ulong = 0;
        for _ in 0..TRIES {
            // SAFETY: as in `check_extension`; KVM_CREATE_VM takes a number and returns a new
            // descriptor.
            let number = unsafe { libc::ioctl(self.0.as_raw_fd(), KVM_CREATE_VM, default_type) };
            if number >= 0 {
                // SAFETY: `OwnedFd::from_raw_fd` needs an open descriptor with no other owner: the
                // kernel has just made it and told nobody else its number.
                return Ok(unsafe { OwnedFd::from_raw_fd(number) });
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        Err(io::ErrorKind::Interrupted.into())
    }
}

/// Makes `memory` the VM's memslot `slot`, at a guest address of its own.
fn set_region(vm: &OwnedFd, memory: &MmapMut, slot: u32, flags: u32) -> io::Result<()> {
    // Lossless: Linux has no addresses or lengths above 64 bits.
    let length = memory.len() as u64;
    let region = MemoryRegion {
        slot,
        flags,
        guest_phys_addr: u64::from(slot).saturating_mul(length),
        memory_size: length,
        userspace_addr: memory.as_ptr().expose_provenance() as u64,
    };
    // SAFETY: `libc::ioctl` needs an open descriptor, which the borrow keeps open, and an argument
    // as the request defines it: KVM_SET_USER_MEMORY_REGION reads a
    // `struct kvm_userspace_memory_region`, which `MemoryRegion` is (same fields in the same order,
    // size asserted above), and `region` lives beyond the call. KVM remembers the range of user
    // memory; it is written to only by a vCPU, of which this VM has none, and the mapping outlives
    // the VM's descriptor (the caller declares it first).
    let result = unsafe {
        libc::ioctl(
            vm.as_raw_fd(),
            KVM_SET_USER_MEMORY_REGION,
            &raw const region,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bit 0, `KVM_MEM_LOG_DIRTY_PAGES`, is older than any kernel this runs on; bit 31 is nobody's.
    #[test]
    fn kvm_tells_flags_that_it_knows_from_others() {
        let kvm = match Kvm::open() {
            Ok(kvm) => kvm,
            Err(error) => {
                println!("SKIPPED: /dev/kvm cannot be opened: {error}");
                return;
            }
        };
        // KVM_CAP_USER_MEMORY is 3; 0 is no capability.
        assert_eq!(kvm.check_extension(3).unwrap(), 1);
        assert_eq!(kvm.check_extension(u32::MAX).unwrap(), 0);
        assert!(kvm.takes_slot_flags(1).unwrap());
        assert!(!kvm.takes_slot_flags(1 << 31).unwrap());
    }
}
