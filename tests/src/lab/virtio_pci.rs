//! What firmware and driver do to a virtio PCI device before it works, done from outside: addresses
//! for its BARs, then the steps of its initialization, without any queue.

use super::qtest::Qtest;
use super::{LabError, Result};

/// The ports of a PC's PCI configuration space.
const CONFIG_ADDRESS: u16 = 0xcf8;
const CONFIG_DATA: u16 = 0xcfc;

/// A virtio-gpu device: vendor in the low half, 0x1040 plus the device id in the high half (virtio
/// 1.4, "PCI Device Discovery").
const GPU: u32 = (0x1040 + 16) << 16 | 0x1af4;

/// Registers of the configuration space: command, first BAR, offset of the first capability.
const COMMAND: u32 = 0x04;
const FIRST_BAR: u32 = 0x10;
const CAPABILITIES: u32 = 0x34;

/// Bits of the command register: answers to memory accesses, may access memory itself.
const MEMORY_AND_MASTER: u32 = 6;

/// Vendor-specific capabilities are virtio's; two of their types (virtio 1.4, "Virtio Structure
/// PCI Capabilities").
const VENDOR_CAPABILITY: u32 = 9;
const COMMON: u32 = 1;
const SHARED_MEMORY: u32 = 8;

/// Registers of the common configuration.
const DRIVER_FEATURE_SELECT: u64 = 8;
const DRIVER_FEATURE: u64 = 12;
const DEVICE_STATUS: u64 = 20;

/// Bits of the device status.
const ACKNOWLEDGE: u8 = 1;
const DRIVER: u8 = 2;
const DRIVER_OK: u8 = 4;
const FEATURES_OK: u8 = 8;

/// Where the registers go: into the part of the 32-bit space that a q35 leaves to PCI.
const REGISTERS_AT: u64 = 0xfe00_0000;
/// Where the shared memory goes: above all memory, at a multiple of its size.
const SHARED_MEMORY_AT: u64 = 32 << 30;

/// A virtio-gpu device that has its addresses.
#[derive(Debug)]
pub(super) struct VirtioGpu {
    common: u64,
}

impl VirtioGpu {
    /// Guest physical address of the shared-memory region.
    pub(super) const SHARED_MEMORY: u64 = SHARED_MEMORY_AT;

    /// Finds the device on the first bus and gives it its addresses.
    pub(super) fn place(qtest: &mut Qtest) -> Result<Self> {
        let mut found = None;
        for slot in 0..32 {
            if read(qtest, slot, 0)? == GPU {
                found = Some(slot);
            }
        }
        let slot = found.ok_or_else(|| LabError::failed("QEMU has no virtio-gpu device"))?;
        let (mut common, mut shared) = (None, None);
        let mut at = read(qtest, slot, CAPABILITIES)? & 0xff;
        while at != 0 {
            // Capability id, next, length, type; then the number of the BAR; then the offset in it.
            let head = read(qtest, slot, at)?;
            let bar = read(qtest, slot, at + 4)? & 0xff;
            let offset = read(qtest, slot, at + 8)?;
            match (head & 0xff, head >> 24) {
                (VENDOR_CAPABILITY, COMMON) => common = Some((bar, offset)),
                (VENDOR_CAPABILITY, SHARED_MEMORY) => shared = Some((bar, offset)),
                _ => {}
            }
            at = head >> 8 & 0xff;
        }
        let (Some((registers, offset)), Some((memory, 0))) = (common, shared) else {
            let what = format!("registers {common:?}, shared memory {shared:?}: unlike any QEMU");
            return Err(LabError::failed(what));
        };
        for (bar, address) in [(registers, REGISTERS_AT), (memory, SHARED_MEMORY_AT)] {
            let register = FIRST_BAR + 4 * bar;
            write(qtest, slot, register, address as u32)?;
            write(qtest, slot, register + 4, (address >> 32) as u32)?;
        }
        write(qtest, slot, COMMAND, MEMORY_AND_MASTER)?;
        Ok(Self {
            common: REGISTERS_AT + u64::from(offset),
        })
    }

    /// Initializes the device as a driver that wants no feature but VERSION_1 and no queue.
    pub(super) fn start(&self, qtest: &mut Qtest) -> Result<()> {
        let mut status = 0;
        for bit in [0, ACKNOWLEDGE, DRIVER] {
            status |= bit;
            qtest.write_u8(self.common + DEVICE_STATUS, status)?;
        }
        // VERSION_1 is bit 0 of the second half.
        for (half, features) in [(0, 0), (1, 1)] {
            qtest.write_u32(self.common + DRIVER_FEATURE_SELECT, half)?;
            qtest.write_u32(self.common + DRIVER_FEATURE, features)?;
        }
        for bit in [FEATURES_OK, DRIVER_OK] {
            status |= bit;
            qtest.write_u8(self.common + DEVICE_STATUS, status)?;
        }
        match qtest.read(self.common + DEVICE_STATUS, 1)?[..] {
            [now] if now == status => Ok(()),
            ref other => Err(LabError::failed(format!(
                "the device's status is {other:?}"
            ))),
        }
    }

    /// Resets the device, as a guest does when it reboots.
    pub(super) fn reset(&self, qtest: &mut Qtest) -> Result<()> {
        qtest.write_u8(self.common + DEVICE_STATUS, 0)
    }
}

fn select(qtest: &mut Qtest, slot: u32, register: u32) -> Result<()> {
    qtest.write_port(CONFIG_ADDRESS, 1 << 31 | slot << 11 | register)
}

fn read(qtest: &mut Qtest, slot: u32, register: u32) -> Result<u32> {
    select(qtest, slot, register)?;
    qtest.read_port(CONFIG_DATA)
}

fn write(qtest: &mut Qtest, slot: u32, register: u32, value: u32) -> Result<()> {
    select(qtest, slot, register)?;
    qtest.write_port(CONFIG_DATA, value)
}
