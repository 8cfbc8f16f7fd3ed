//! The memory type that an access really has: what the processor makes of the page tables, MTRRs
//! and second-level tables together ([`x86`], [`arm64`]), and which of those KVM on Linux sets up.
//!
//! This is a model of processors and of KVM. The policy ([`super::plan`]) does not use it: it is
//! what the policy is tested against, and what `doctor` prints.

pub mod arm64;
#[cfg(test)]
mod tests;
pub mod x86;

use std::fmt;

use nosnoop_protocol::MapCache;

use self::arm64::{Arm64Type, Device, ForcedType};
use self::x86::{PatType, RangeType, X86Type};
use super::kind::PageKind;
use super::plan::{Arch, PlatformFacts, Vendor};

/// The memory type of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effective {
    /// On x86.
    X86(X86Type),
    /// On arm64.
    Arm64(Arm64Type),
}

impl Effective {
    /// Which of `map_info`'s types it acts like; `None` for read-only caching (write-through,
    /// write-protected), which is none of them.
    #[must_use]
    pub fn acts_like(self) -> Option<MapCache> {
        match self {
            Self::X86(X86Type::Uc | X86Type::Cd) | Self::Arm64(Arm64Type::Device(_)) => {
                Some(MapCache::Uncached)
            }
            Self::X86(X86Type::Wc | X86Type::WcPlus) | Self::Arm64(Arm64Type::NormalNc) => {
                Some(MapCache::Wc)
            }
            Self::X86(X86Type::Wb) | Self::Arm64(Arm64Type::NormalWb) => Some(MapCache::Cached),
            Self::X86(X86Type::Wt | X86Type::Wp) | Self::Arm64(Arm64Type::NormalWt) => None,
        }
    }
}

impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::X86(memory) => memory.fmt(f),
            Self::Arm64(memory) => memory.fmt(f),
        }
    }
}

/// The type of a guest's accesses to a blob with such pages, when a Linux guest has mapped it as
/// `guest` says and KVM maps it into the guest; `None` where that is not known.
///
/// `quirk_off` is whether the VMM has disabled `KVM_X86_QUIRK_IGNORE_GUEST_PAT` (bit 9) in that VM;
/// it matters to RAM on Intel's processors only. The shared-memory region must lie where the guest
/// itself allows caching: above 4 GiB, or in a write-back MTRR range of its firmware's.
///
/// Source: Linux 7.2, `vmx_get_mt_mask`, `make_spte` and arm64's `user_mem_abort`.
#[must_use]
pub fn guest_effective(
    platform: &PlatformFacts,
    kind: PageKind,
    quirk_off: Option<bool>,
    guest: MapCache,
) -> Option<Effective> {
    if !platform.hypervisor.is_no() {
        return None;
    }
    match platform.arch {
        Arch::X86 => {
            let vendor = *platform.vendor.value()?;
            if *platform.ept_or_npt.value()? {
                nested(vendor, kind, quirk_off, x86_pat(guest))
            } else {
                // Shadow page tables say write-back whatever the guest's own say.
                native(vendor, kind, PatType::Wb)
            }
            .map(Effective::X86)
        }
        Arch::Arm64 => arm64_guest(kind, *platform.fwb.value()?, guest).map(Effective::Arm64),
        Arch::Other => None,
    }
}

/// The type of the host's own accesses, when the host has mapped the pages as `host` says; `None`
/// where that is not known.
#[must_use]
pub fn host_effective(
    platform: &PlatformFacts,
    kind: PageKind,
    host: MapCache,
) -> Option<Effective> {
    if !platform.hypervisor.is_no() {
        return None;
    }
    match platform.arch {
        Arch::X86 => native(*platform.vendor.value()?, kind, x86_pat(host)).map(Effective::X86),
        Arch::Arm64 => Some(Effective::Arm64(arm64_stage1(host))),
        Arch::Other => None,
    }
}

/// Without a second level of page tables.
fn native(vendor: Vendor, kind: PageKind, pat: PatType) -> Option<X86Type> {
    match vendor {
        Vendor::Intel => Some(x86::intel(host_range(kind), pat)),
        Vendor::Amd => Some(x86::amd(host_range(kind), pat)),
        Vendor::Other => None,
    }
}

/// With KVM's second level. On AMD's processors its entries say write-back, for all pages.
fn nested(
    vendor: Vendor,
    kind: PageKind,
    quirk_off: Option<bool>,
    guest: PatType,
) -> Option<X86Type> {
    match vendor {
        Vendor::Intel => intel_guest(kind, quirk_off, guest),
        Vendor::Amd => Some(x86::npt(guest, PatType::Wb, host_range(kind))),
        Vendor::Other => None,
    }
}

/// EPT entries: device memory is uncached and leaves the guest its PAT; RAM is write-back, and the
/// guest's PAT is ignored until the quirk is off.
fn intel_guest(kind: PageKind, quirk_off: Option<bool>, pat: PatType) -> Option<X86Type> {
    let ram = |quirk_off: bool| x86::ept(RangeType::Wb, !quirk_off, pat);
    match (kind, quirk_off) {
        (PageKind::Mmio, _) => Some(x86::ept(RangeType::Uc, false, pat)),
        (PageKind::Ram, Some(quirk_off)) => Some(ram(quirk_off)),
        (PageKind::Ram, None) => Some(ram(true)).filter(|memory| *memory == ram(false)),
    }
}

/// Stage 2 entries for RAM: write-back, forced where the processor can (FEAT_S2FWB). What device
/// memory gets depends on the host's mapping and the kernel.
fn arm64_guest(kind: PageKind, fwb: bool, guest: MapCache) -> Option<Arm64Type> {
    let stage1 = arm64_stage1(guest);
    match (kind, fwb) {
        (PageKind::Ram, false) => Some(arm64::combined(stage1, Arm64Type::NormalWb)),
        (PageKind::Ram, true) => Some(arm64::forced(stage1, ForcedType::WriteBack)),
        (PageKind::Mmio, false | true) => None,
    }
}

/// The MTRR type that firmware gives such pages.
fn host_range(kind: PageKind) -> RangeType {
    match kind {
        PageKind::Ram => RangeType::Wb,
        PageKind::Mmio => RangeType::Uc,
    }
}

/// What Linux writes into page tables: `pgprot_noncached` is UC-.
fn x86_pat(cache: MapCache) -> PatType {
    match cache {
        MapCache::Cached => PatType::Wb,
        MapCache::Uncached => PatType::UcMinus,
        MapCache::Wc => PatType::Wc,
    }
}

/// What Linux writes into page tables: `pgprot_noncached` is Device-nGnRnE, `pgprot_writecombine`
/// is Normal Non-cacheable.
fn arm64_stage1(cache: MapCache) -> Arm64Type {
    match cache {
        MapCache::Cached => Arm64Type::NormalWb,
        MapCache::Uncached => Arm64Type::Device(Device::NGnRnE),
        MapCache::Wc => Arm64Type::NormalNc,
    }
}
