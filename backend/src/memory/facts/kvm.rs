//! KVM: what it makes of the guest's own memory types.

use serde::Serialize;

use super::calls::Calls;
use super::cpu::Cpu;
use super::host::{Host, reason};
use super::kernel::Kernel;
use crate::memory::fact::Fact;
use crate::memory::plan::Vendor;

/// `KVM_X86_QUIRK_IGNORE_GUEST_PAT`, linux/kvm.h.
const QUIRK_IGNORE_GUEST_PAT: u32 = 1 << 9;

/// What KVM offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kvm {
    /// Whether this process can use it.
    pub opens: Fact<bool>,
    /// Whether guests run on the processor's second level of page tables: EPT or NPT.
    pub nested_paging: Fact<bool>,
    /// Whether a VMM can have KVM honor the guest's PAT on pages of RAM, by
    /// `KVM_CAP_DISABLE_QUIRKS2` with bit 9. On AMD the answer means nothing: it is always honored.
    pub pat_quirk: Fact<bool>,
    /// Whether a VMM can have it per memslot, by the flag of ChromeOS kernels.
    pub noncoherent_slot: Fact<bool>,
}

impl Kvm {
    pub(super) fn probe(host: &Host, calls: &dyn Calls, cpu: &Cpu, kernel: &Kernel) -> Self {
        Self {
            opens: match calls.kvm_open() {
                Ok(()) => Fact::known(true, "/dev/kvm opens"),
                Err(error) => Fact::known(false, format!("/dev/kvm: {}", reason(&error))),
            },
            nested_paging: nested_paging(host, cpu),
            pat_quirk: match calls.kvm_quirks() {
                Ok(quirks) => Fact::known(
                    quirks & QUIRK_IGNORE_GUEST_PAT != 0,
                    format!("KVM_CHECK_EXTENSION(KVM_CAP_DISABLE_QUIRKS2) is {quirks:#x}"),
                ),
                Err(error) => Fact::unknown(format!(
                    "KVM_CHECK_EXTENSION(KVM_CAP_DISABLE_QUIRKS2): {}",
                    reason(&error)
                )),
            },
            noncoherent_slot: noncoherent_slot(calls, kernel),
        }
    }
}

/// The module that fits the processor says it; the other one may be built in and idle.
fn nested_paging(host: &Host, cpu: &Cpu) -> Fact<bool> {
    let path = match cpu.vendor.value() {
        Some(Vendor::Intel) => "/sys/module/kvm_intel/parameters/ept",
        Some(Vendor::Amd) => "/sys/module/kvm_amd/parameters/npt",
        _ => return Fact::unknown("known of Intel's and AMD's processors only"),
    };
    match host.line(path).as_deref() {
        Ok("Y" | "1") => Fact::known(true, format!("{path}: yes")),
        Ok("N" | "0") => Fact::known(false, format!("{path}: no")),
        Ok(_) => Fact::unknown(format!("{path} is neither yes nor no")),
        Err(why) => Fact::unknown(why),
    }
}

/// Elsewhere bit 3 of a memslot's flags has no meaning, or will have another.
fn noncoherent_slot(calls: &dyn Calls, kernel: &Kernel) -> Fact<bool> {
    let source = "KVM_SET_USER_MEMORY_REGION with flag 1<<3";
    match (calls.kvm_noncoherent_slot(), kernel.chromeos.value()) {
        (Ok(false), _) => Fact::known(false, format!("{source}: Invalid argument")),
        (Ok(true), Some(true)) => Fact::known(true, format!("{source}: accepted")),
        (Ok(true), _) => Fact::unknown(format!(
            "{source}: accepted, which means something on ChromeOS kernels only"
        )),
        (Err(error), _) => Fact::unknown(format!("{source}: {}", reason(&error))),
    }
}
