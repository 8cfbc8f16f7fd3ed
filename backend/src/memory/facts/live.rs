//! The system calls, made.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::calls::Calls;
use crate::sys::ioctl::DeviceFile;
use crate::sys::kvm::Kvm;
use crate::sys::request::Request;
use crate::sys::uapi::i915::I915_PARAM_HAS_LLC;

/// `KVM_CAP_DISABLE_QUIRKS2`, linux/kvm.h.
const KVM_CAP_DISABLE_QUIRKS2: u32 = 213;

/// `KVM_MEM_NON_COHERENT_DMA` of ChromeOS kernels.
const KVM_MEM_NON_COHERENT_DMA: u32 = 1 << 3;

/// Asks this machine.
#[derive(Debug)]
pub struct LiveCalls;

impl Calls for LiveCalls {
    fn kvm_open(&self) -> io::Result<()> {
        Kvm::open().map(|_| ())
    }

    fn kvm_quirks(&self) -> io::Result<u32> {
        Kvm::open()?.check_extension(KVM_CAP_DISABLE_QUIRKS2)
    }

    fn kvm_noncoherent_slot(&self) -> io::Result<bool> {
        Kvm::open()?.takes_slot_flags(KVM_MEM_NON_COHERENT_DMA)
    }

    fn i915_has_llc(&self, node: &str) -> io::Result<bool> {
        let path = Path::new("/dev/dri").join(node);
        // Not blocking and no terminal, whatever is in that place.
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        let mut options = File::options();
        let file = options
            .read(true)
            .write(true)
            .custom_flags(flags)
            .open(path)?;
        let mut value = 0;
        DeviceFile::drm(file.into())?.submit(&mut Request::I915GetParam {
            param: I915_PARAM_HAS_LLC,
            value: &mut value,
        })?;
        Ok(value != 0)
    }
}
