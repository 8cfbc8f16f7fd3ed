//! Where a guest begins: page tables and the processor's registers, as a loader would leave them.

use std::io;

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_regs, kvm_segment};
use kvm_ioctls::Kvm;

use super::sys::{Vcpu, error};
use super::tables;
use crate::frontend::memory::PAGE;
use crate::frontend::{GuestRam, Result};

/// Bytes of a large page.
const LARGE_PAGE: u64 = 2 << 20;
/// Bytes that one table of the second level maps.
const GIB: u64 = 1 << 30;

/// Page tables in which each address of guest memory is its own physical address, in large pages,
/// cached. Returns where they begin.
pub(super) fn identity_tables(ram: &GuestRam) -> Result<u64> {
    let entry = |table: u64, index: u64, value: u64| {
        let bits = tables::PRESENT | tables::WRITABLE;
        ram.write(table + 8 * index, &(value | bits).to_le_bytes())
    };
    let top = ram.alloc(PAGE as usize)?.addr;
    let below = ram.alloc(PAGE as usize)?.addr;
    entry(top, 0, below)?;
    let mut filled = Vec::new();
    for (region, _) in ram.regions()? {
        let (start, end) = (region.guest_addr, region.guest_addr + region.size);
        assert!(end <= 512 * GIB, "one table of the third level");
        for gib in start / GIB..end.div_ceil(GIB) {
            if filled.contains(&gib) {
                continue;
            }
            filled.push(gib);
            let table = ram.alloc(PAGE as usize)?.addr;
            entry(below, gib, table)?;
            for index in 0..512 {
                entry(
                    table,
                    index,
                    (gib * GIB + index * LARGE_PAGE) | tables::LARGE,
                )?;
            }
        }
    }
    Ok(top)
}

/// Puts the processor where a loader would leave it: 64-bit mode, paging on, at `program`.
pub(super) fn start_in_long_mode(
    host: &Kvm,
    cpu: &Vcpu,
    tables: u64,
    program: u64,
    mailbox: u64,
) -> io::Result<()> {
    // Without it the guest has no memory above 64 GiB and no page attribute table.
    let features = host.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES);
    cpu.set_cpuid2(&features.map_err(error)?).map_err(error)?;
    // Present, for data with writes, or for code, 64-bit, accessed (SDM volume 3, "Segment
    // descriptors").
    let data = kvm_segment {
        limit: u32::MAX,
        selector: 0x10,
        type_: 0x3,
        present: 1,
        s: 1,
        db: 1,
        g: 1,
        ..kvm_segment::default()
    };
    let code = kvm_segment {
        selector: 0x08,
        type_: 0xb,
        db: 0,
        l: 1,
        ..data
    };
    // A busy task segment, without which no processor enters 64-bit mode.
    let task = kvm_segment {
        limit: 0x67,
        selector: 0x18,
        type_: 0xb,
        present: 1,
        ..kvm_segment::default()
    };
    let mut system = cpu.get_sregs().map_err(error)?;
    system.cs = code;
    for segment in [
        &mut system.ds,
        &mut system.es,
        &mut system.fs,
        &mut system.gs,
        &mut system.ss,
    ] {
        *segment = data;
    }
    system.tr = task;
    system.cr3 = tables;
    system.cr4 = 0x620; // PAE, OSFXSR, OSXMMEXCPT
    system.cr0 = 0x8001_0033; // PG, WP, NE, ET, MP, PE
    system.efer = 0x500; // LMA, LME
    cpu.set_sregs(&system).map_err(error)?;
    let registers = kvm_regs {
        rip: program,
        rbx: mailbox,
        rflags: 2,
        ..kvm_regs::default()
    };
    cpu.set_regs(&registers).map_err(error)
}
