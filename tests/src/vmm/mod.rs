//! A small VMM on KVM: how a front-end serves the memory-type extension of vhost-user, for VMM
//! authors to copy from, and for tests to run.
//!
//! The flags of the extension are read by [`crate::frontend::memtype`].
//!
//! * [`probe`] decides whether the guest's own memory type can take effect, and by what means;
//!   [`host`] asks the machine;
//! * [`slots`] maps blobs into the guest, exactly as asked or not at all;
//! * [`channel`] is the receiver of the daemon's map and unmap requests;
//! * [`machine`] runs a bare-metal guest of 64 bits, [`guest`], which programs its page attribute
//!   table, maps a blob with the type that it was told, and drives a virtqueue;
//! * [`micro`] puts a daemon, the machine and the guest together, [`by_hand`] does without a daemon;
//! * [`tables`] reads the guest's page tables;
//! * [`sys`] has the unsafe code.
//!
//! A VMM that serves the extension does five things. It probes, before the virtual machine has a
//! vCPU. It disables the quirk where that is the way, at once. It acknowledges protocol feature
//! bit 56 where the daemon offers it together with SHMEM, BACKEND_REQ and REPLY_ACK. It maps the
//! descriptor that comes, at the offset that comes, touches pages of drivers, and only then sets
//! the slot. And it refuses what it cannot do, or does not know.

use std::io;

use probe::Reason;

use crate::frontend::memtype::FlagsError;

mod boot;
pub mod by_hand;
pub mod channel;
pub mod guest;
pub mod host;
pub mod machine;
pub mod micro;
pub mod probe;
mod program;
pub mod slots;
pub mod sys;
pub mod tables;

/// Why a request of the daemon was refused.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// Flags that are not known or contradict each other.
    #[error(transparent)]
    Flags(#[from] FlagsError),
    /// A range that cannot be mapped or unmapped.
    #[error("the range of {len:#x} bytes at {offset:#x} {what}")]
    Range {
        /// Offset in the region.
        offset: u64,
        /// Bytes.
        len: u64,
        /// Why not.
        what: &'static str,
    },
    /// A file that is not fit to be mapped.
    #[error("the file cannot be mapped: {0}")]
    File(&'static str),
    /// The guest's own memory type would not take effect.
    #[error("the guest's memory type would have no effect: {0}")]
    NotHonored(Reason),
    /// The file cannot be mapped here.
    #[error("mapping the file failed: {0}")]
    Mmap(io::Error),
    /// KVM refused the memory slot.
    #[error("KVM refused the memory slot: {0}")]
    Slot(io::Error),
    /// A message that is no proper request.
    #[error("not a proper request: {0}")]
    Message(String),
}

impl MapError {
    /// The code in the answer, not zero.
    #[must_use]
    pub fn code(&self) -> u64 {
        use rustix::io::Errno;
        let errno = match self {
            Self::Flags(_) | Self::Range { .. } | Self::File(_) | Self::Message(_) => {
                Errno::INVAL.raw_os_error()
            }
            Self::NotHonored(_) => Errno::OPNOTSUPP.raw_os_error(),
            Self::Mmap(error) | Self::Slot(error) => {
                error.raw_os_error().unwrap_or(Errno::INVAL.raw_os_error())
            }
        };
        u64::from(errno.unsigned_abs())
    }
}
