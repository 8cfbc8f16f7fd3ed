//! Whether KVM lets a guest's own memory type take effect on a slot: what the host was asked, and
//! the decision, which is a pure function of the answers.
//!
//! The facts are from Linux: arch/x86/kvm/vmx/vmx.c (`vmx_get_mt_mask`), arch/x86/kvm/svm/svm.c,
//! arch/arm64/kvm/hyp/pgtable.c, Documentation/virt/kvm/api.rst (KVM_CAP_DISABLE_QUIRKS2).
//!
//! * Intel with EPT: RAM is write-back whatever the guest says, unless the virtual machine has
//!   `KVM_X86_QUIRK_IGNORE_GUEST_PAT` disabled. Pages of device memory are uncached for EPT, and
//!   the guest's WC or UC wins over that.
//! * AMD with NPT: the guest's type always takes effect. The quirk says nothing here: it may be
//!   offered, and disabling it succeeds, without a meaning.
//! * Without EPT or NPT, KVM makes the page tables itself and never copies the guest's type.
//! * arm64 combines both stages, and the weaker type of the guest wins on RAM; with FWB the
//!   hypervisor's write-back wins.

use std::fmt;

#[cfg(test)]
mod tests;

/// `KVM_CAP_DISABLE_QUIRKS2`; `CHECK_EXTENSION` returns the quirks that can be disabled.
pub const CAP_DISABLE_QUIRKS2: u32 = 213;
/// `KVM_X86_QUIRK_IGNORE_GUEST_PAT`.
pub const QUIRK_IGNORE_GUEST_PAT: u64 = 1 << 9;
/// `KVM_MEM_NON_COHERENT_DMA`, a memory slot's flag in ChromeOS's kernels. Upstream may give the
/// bit another meaning.
pub const SLOT_NONCOHERENT: u32 = 1 << 3;

/// Whose processor, as far as KVM behaves differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cpu {
    /// x86, "GenuineIntel".
    Intel,
    /// x86, "AuthenticAMD" or "HygonGenuine".
    Amd,
    /// Any other x86.
    OtherX86,
    /// 64-bit Arm.
    Arm64,
    /// Anything else.
    Other,
}

/// Who translates the guest's physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paging {
    /// Intel's extended page tables, in use by `kvm_intel`.
    Ept,
    /// AMD's nested page tables, in use by `kvm_amd`.
    Npt,
    /// Arm's second stage.
    StageTwo,
    /// KVM itself (shadow paging), or nobody knows.
    Software,
}

/// What lies below this kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Below {
    /// The processor.
    Metal,
    /// Another hypervisor, whose page tables have the last word.
    Hypervisor,
    /// Another hypervisor, of which the operator says that it hands memory types through.
    Vouched,
}

/// The kinds of page that KVM treats differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageKind {
    /// RAM of the host.
    Ram,
    /// A device's memory behind a PCI BAR.
    Mmio,
}

/// What this host and its KVM answered. Errors are error numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvmAnswers {
    /// The processor.
    pub cpu: Cpu,
    /// What is below.
    pub below: Below,
    /// Who translates.
    pub paging: Paging,
    /// Whether the processor snoops its own caches when a page has two types (x86, flag `ss`).
    pub self_snoop: bool,
    /// Whether the second stage can force write-back (arm64, FEAT_S2FWB).
    pub forced_write_back: Option<bool>,
    /// The quirks that can be disabled.
    pub quirks: u64,
    /// What `KVM_ENABLE_CAP` said when it was to disable the quirk, on a scratch machine.
    pub disable_quirk: Result<(), i32>,
    /// What `KVM_SET_USER_MEMORY_REGION` said of a scratch slot with [`SLOT_NONCOHERENT`].
    pub flagged_slot: Result<(), i32>,
    /// Whether the kernel says that it is ChromeOS's.
    pub chromeos: bool,
}

/// What makes the guest's own type take effect on pages of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing needs to be done.
    AlwaysHonored,
    /// The quirk is disabled for the whole virtual machine, before any guest runs.
    PerVmQuirk,
    /// Each memory slot carries [`SLOT_NONCOHERENT`].
    PerSlotFlag,
    /// Nothing does, or nobody knows.
    Impossible(Reason),
}

/// Why the guest's own type cannot be made to take effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No EPT or NPT.
    SoftwarePaging,
    /// A hypervisor below that nobody vouched for.
    Nested,
    /// Intel without self-snoop.
    NoSelfSnoop,
    /// A kernel that cannot disable the quirk.
    QuirkAbsent,
    /// The kernel offers to disable the quirk and then does not: the error number.
    QuirkRefused(i32),
    /// arm64 whose second stage forces write-back.
    ForcedWriteBack,
    /// arm64, and not known whether the second stage forces write-back.
    ForcingUnknown,
    /// Device memory on arm64, which the kernel maps as Device unless a driver asks otherwise.
    DeviceMemory,
    /// A processor of which nothing is known here.
    UnknownCpu,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SoftwarePaging => f.write_str(
                "KVM runs without EPT or NPT and ignores the guest's memory types; use a host with them",
            ),
            Self::Nested => f.write_str(
                "a hypervisor below this host decides; vouch for it if it hands memory types through",
            ),
            Self::NoSelfSnoop => f.write_str(
                "the processor lacks self-snoop, so KVM keeps RAM write-back; nothing can change that",
            ),
            Self::QuirkAbsent => f.write_str(
                "this kernel cannot disable KVM_X86_QUIRK_IGNORE_GUEST_PAT; use a newer one",
            ),
            Self::QuirkRefused(errno) => write!(
                f,
                "disabling KVM_X86_QUIRK_IGNORE_GUEST_PAT failed with error {errno} although it is offered"
            ),
            Self::ForcedWriteBack => f.write_str(
                "the second stage forces write-back (FWB) on RAM; nothing can change that",
            ),
            Self::ForcingUnknown => {
                f.write_str("it is not known whether the second stage forces write-back (FWB)")
            }
            Self::DeviceMemory => {
                f.write_str("the kernel maps device memory as Device whatever the guest says")
            }
            Self::UnknownCpu => f.write_str("nothing is known of this processor's KVM"),
        }
    }
}

/// Decides for pages of one kind.
#[must_use]
pub fn decide(answers: &KvmAnswers, kind: PageKind) -> Decision {
    // What is impossible here stays so, whoever vouches for what is below.
    match here(answers, kind) {
        Decision::Impossible(reason) => Decision::Impossible(reason),
        _ if answers.below == Below::Hypervisor => Decision::Impossible(Reason::Nested),
        possible => possible,
    }
}

/// Decides as if nothing were below.
fn here(answers: &KvmAnswers, kind: PageKind) -> Decision {
    use Decision::{AlwaysHonored, Impossible};
    match (answers.cpu, answers.paging, kind) {
        (Cpu::Intel, Paging::Ept, PageKind::Ram) => intel_ram(answers),
        (Cpu::Intel, Paging::Ept, PageKind::Mmio) | (Cpu::Amd, Paging::Npt, _) => AlwaysHonored,
        (Cpu::Intel | Cpu::Amd, _, _) => Impossible(Reason::SoftwarePaging),
        (Cpu::Arm64, _, PageKind::Mmio) => Impossible(Reason::DeviceMemory),
        (Cpu::Arm64, _, PageKind::Ram) => match answers.forced_write_back {
            Some(false) => AlwaysHonored,
            Some(true) => Impossible(Reason::ForcedWriteBack),
            None => Impossible(Reason::ForcingUnknown),
        },
        (Cpu::OtherX86 | Cpu::Other, _, _) => Impossible(Reason::UnknownCpu),
    }
}

fn intel_ram(answers: &KvmAnswers) -> Decision {
    use Decision::{Impossible, PerSlotFlag, PerVmQuirk};
    if !answers.self_snoop {
        return Impossible(Reason::NoSelfSnoop);
    }
    // The flag is the narrower of the two: only the slots that carry it follow the guest.
    if answers.chromeos && answers.flagged_slot.is_ok() {
        return PerSlotFlag;
    }
    if answers.quirks & QUIRK_IGNORE_GUEST_PAT == 0 {
        return Impossible(Reason::QuirkAbsent);
    }
    match answers.disable_quirk {
        Ok(()) => PerVmQuirk,
        Err(errno) => Impossible(Reason::QuirkRefused(errno)),
    }
}

/// How one virtual machine honors the guest's memory types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Support {
    /// For RAM.
    pub ram: Decision,
    /// For device memory.
    pub mmio: Decision,
}

impl Support {
    /// What the host allows.
    #[must_use]
    pub fn new(answers: &KvmAnswers) -> Self {
        Self {
            ram: decide(answers, PageKind::Ram),
            mmio: decide(answers, PageKind::Mmio),
        }
    }

    /// Whether the quirk has to be disabled when the virtual machine is made.
    #[must_use]
    pub fn needs_quirk(self) -> bool {
        [self.ram, self.mmio].contains(&Decision::PerVmQuirk)
    }

    /// The flags of a memory slot on which the guest's own type takes effect, whichever of these
    /// kinds its pages have.
    ///
    /// # Errors
    /// Why it cannot, for one of the kinds.
    pub fn slot_flags(self, kinds: &[PageKind]) -> Result<u32, Reason> {
        let mut flags = 0;
        for kind in kinds {
            match self.of(*kind) {
                Decision::AlwaysHonored | Decision::PerVmQuirk => {}
                Decision::PerSlotFlag => flags |= SLOT_NONCOHERENT,
                Decision::Impossible(reason) => return Err(reason),
            }
        }
        Ok(flags)
    }

    fn of(self, kind: PageKind) -> Decision {
        match kind {
            PageKind::Ram => self.ram,
            PageKind::Mmio => self.mmio,
        }
    }
}
