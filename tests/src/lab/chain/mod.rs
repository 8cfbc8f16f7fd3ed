//! The full chain in one picture: our daemon, QEMU with KVM and its guest, all of them inside an
//! emulated machine, so that every page table can be seen from outside.
//!
//! The outer machine is emulated, with AMD's hardware virtualization (SVM) and the kernel's module
//! vgem, which makes memory that everybody maps write-combining. In it run our daemon, once for each
//! case, and stock QEMU on all of them, whose guest, that of the inner machine, maps an image of
//! each. [`Links`] is what is found, and says whether it fits together.
//!
//! Link 1, the GPU, is nowhere here: only CPUs access the memory. And emulated processors have no
//! caches: this shows attributes, never incoherence.

use super::outer::Outer;
use super::qemu::{Accelerator, MEMORY};
use super::root::Root;
use super::{Result, initramfs, programs};

mod cases;
mod image;
mod inner;
mod links;
mod look;
mod table;

pub use cases::{ChainReport, Checked, Found, run};
pub(super) use image::find_firmware;
pub use links::{Broken, HostMapping, Links, Refused, SlotMapping};

/// Everything that both machines boot from.
#[derive(Debug)]
pub struct Parts {
    root: Root,
    initial: Vec<u8>,
}

impl Parts {
    /// Finds or makes everything.
    ///
    /// # Errors
    /// [`LabError::Unavailable`](super::LabError::Unavailable) where no VM can be had; other errors
    /// when a step fails.
    pub fn prepare() -> Result<Self> {
        let root = Root::find_or_build()?;
        let init = programs::guest()?;
        let inner = initramfs::build(&init, &root.kernel, &initramfs::GPU_MODULES, &[])?;
        let initial = image::build(&root, &init, &inner)?;
        Ok(Self { root, initial })
    }

    /// Boots the outer machine.
    fn boot(&self) -> Result<Outer> {
        // Emulated, so that it has hardware virtualization wherever this runs, and no caches.
        Outer::boot(&self.root, &self.initial, Accelerator::Nested, MEMORY)
    }
}
