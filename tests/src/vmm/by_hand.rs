//! A virtual machine without a daemon: whoever holds it sends the map requests by hand.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use kvm_ioctls::Kvm;

use super::channel::Channel;
use super::guest::{Answer, Order};
use super::machine::{Machine, MachineError, Result};
use super::probe::Support;
use super::slots::Window;
use super::sys::Vm;
use crate::frontend::memory::PAGE;
use crate::frontend::message::{FLAG_NEED_REPLY, FLAG_VERSION, Header, u64_at};
use crate::frontend::shmem::{HOST_VISIBLE, SHMEM_MAP, SHMEM_UNMAP};
use crate::frontend::{Error, GuestRam, VhostUser};

/// Where the shared-memory region begins in the guest: above its RAM, and far enough below 64 GiB
/// for processors with as few address bits as there are.
pub const REGION: u64 = 32 << 30;
/// Bytes of the region.
pub const REGION_SIZE: u64 = 8 << 30;

/// The virtual machine, and the daemon's end of its channel.
#[derive(Debug)]
pub struct ByHand {
    /// The virtual machine.
    pub machine: Machine,
    /// The VMM's end of the channel.
    pub channel: Channel<Arc<Vm>>,
    daemon: VhostUser,
    ram: Arc<GuestRam>,
    map_info: u64,
    tables: u64,
}

/// Which bytes of a file go where; all whole pages.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'f> {
    /// The file.
    pub file: BorrowedFd<'f>,
    /// Where they begin in it.
    pub file_offset: u64,
    /// Where they go in the region.
    pub offset: u64,
    /// How many.
    pub len: u64,
}

impl ByHand {
    /// A virtual machine that speaks the extension, as far as `support` goes.
    ///
    /// # Errors
    /// What KVM refused.
    pub fn new(kvm: &Kvm, support: Support) -> Result<Self> {
        let ram = GuestRam::new(&[(1 << 20, 64 << 20)])?;
        let machine = Machine::new(kvm, &ram, support, None)?;
        let slot = machine.first_free_slot();
        let window = Window::new(machine.vm().clone(), REGION, REGION_SIZE, slot, support);
        let window = window.map_err(|source| MachineError::Kvm {
            what: "reserving the shared-memory region",
            source,
        })?;
        let (channel, theirs) = Channel::start(window, true)?;
        let map_info = ram.alloc(4)?.addr;
        let tables = ram.alloc(3 * PAGE as usize)?.addr;
        Ok(Self {
            machine,
            channel,
            daemon: VhostUser::over(theirs),
            ram,
            map_info,
            tables,
        })
    }

    fn ask(&self, request: u32, words: [u64; 4], files: &[BorrowedFd<'_>]) -> Result<u64> {
        let mut payload = vec![HOST_VISIBLE, 0, 0, 0, 0, 0, 0, 0];
        payload.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        let header = Header {
            request,
            flags: FLAG_VERSION | FLAG_NEED_REPLY,
            size: payload.len() as u32,
        };
        self.daemon.send_raw(header, &payload, files)?;
        let (reply, payload) = self.daemon.receive("the answer to a map request")?;
        if reply.request != request || payload.len() != 8 {
            return Err(Error::Protocol(format!("{reply:?} to request {request}")).into());
        }
        Ok(u64_at(&payload, 0))
    }

    /// Sends SHMEM_MAP with these flags; returns the code in the answer.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn map(&self, bytes: Bytes<'_>, flags: u64) -> Result<u64> {
        let words = [bytes.file_offset, bytes.offset, bytes.len, flags];
        self.ask(SHMEM_MAP, words, &[bytes.file.as_fd()])
    }

    /// Sends SHMEM_UNMAP; returns the code in the answer.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn unmap(&self, offset: u64, len: u64) -> Result<u64> {
        self.ask(SHMEM_UNMAP, [0, offset, len, 0], &[])
    }

    /// Tells the guest a `map_info` and has it map what is at an offset of the region.
    ///
    /// # Errors
    /// When the guest ends over it.
    pub fn guest_maps(
        &mut self,
        offset: u64,
        len: u64,
        address: u64,
        map_info: u32,
    ) -> Result<Answer> {
        self.ram.write(self.map_info, &map_info.to_le_bytes())?;
        self.machine.order(Order::Map {
            address,
            physical: REGION + offset,
            pages: len / PAGE,
            map_info: self.map_info,
            tables: self.tables,
        })
    }
}
