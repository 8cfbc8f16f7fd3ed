//! What the VMM does with the memory type that a guest's own page tables say: the third link.

use clap::ValueEnum;
use serde::Serialize;

use crate::memory::fact::Fact;
use crate::memory::kind::PageKind;

/// The processor architecture of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arch {
    /// x86-64.
    X86,
    /// 64-bit Arm.
    Arm64,
    /// Any other.
    Other,
}

/// Who made an x86 processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Vendor {
    /// Intel.
    Intel,
    /// AMD.
    Amd,
    /// Anybody else, also on other architectures.
    Other,
}

/// What the policy needs to know of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlatformFacts {
    /// The architecture.
    pub arch: Arch,
    /// Who made the processor.
    pub vendor: Fact<Vendor>,
    /// Whether this host is itself a virtual machine (x86: CPUID leaf 1, ECX bit 31): something
    /// below then decides what memory types mean.
    pub hypervisor: Fact<bool>,
    /// Whether the processor snoops its own caches when memory types conflict (CPUID leaf 1, EDX
    /// bit 27, and not cleared by the kernel for an erratum). x86 only.
    pub self_snoop: Fact<bool>,
    /// Whether stage 2 can force write-back (FEAT_S2FWB), which KVM then does. arm64 only.
    pub fwb: Fact<bool>,
    /// Whether KVM uses nested paging (EPT or NPT); unknown where no KVM is loaded. x86 only.
    pub ept_or_npt: Fact<bool>,
    /// Whether KVM lets a VMM disable `KVM_X86_QUIRK_IGNORE_GUEST_PAT` (bit 9 of what
    /// `KVM_CHECK_EXTENSION` says of `KVM_CAP_DISABLE_QUIRKS2`). Says nothing on AMD.
    pub pat_quirk: Fact<bool>,
}

impl PlatformFacts {
    /// Nothing is known.
    #[must_use]
    pub fn unknown(why: &str) -> Self {
        Self {
            arch: Arch::Other,
            vendor: Fact::unknown(why),
            hypervisor: Fact::unknown(why),
            self_snoop: Fact::unknown(why),
            fwb: Fact::unknown(why),
            ept_or_npt: Fact::unknown(why),
            pat_quirk: Fact::unknown(why),
        }
    }
}

/// What the operator says of the VMM (`--vmm-memtype`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum VmmMemtype {
    /// Nothing: what the VMM says itself counts, else what the host guarantees.
    #[default]
    Auto,
    /// The guest's memory type takes effect, for every kind of page.
    Honored,
    /// It does not.
    Ignored,
}

/// What is known for one kind of page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Honors {
    pub(super) answer: Fact<bool>,
    /// What would change an answer that is not yes.
    pub(super) advice: Option<&'static str>,
}

/// Whether the guest's own memory type takes effect, for each kind of page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmmFacts {
    pub(super) ram: Honors,
    pub(super) mmio: Honors,
    pub(super) speaks_memtype: bool,
}

const ASK_OPERATOR: &str = "if the VMM does honor it, say so with --vmm-memtype=honored";
const ASK_NESTED: &str =
    "if the VMM and every hypervisor below honor it, say so with --vmm-memtype=honored";
const DISABLE_QUIRK: &str = "start QEMU (11.1 or later) with -accel kvm,honor-guest-pat=on and this program with \
     --vmm-memtype=honored";
const NEEDS_QUIRK: &str =
    "that needs a kernel whose KVM offers to disable it (or crosvm on a ChromeOS kernel)";
const ASK_DOCTOR: &str = "that needs a kernel whose KVM offers to disable it: nosnoop-gpu doctor says whether this one \
     does, where it may open /dev/kvm";
const IMPOSSIBLE: &str = "no VMM on KVM can change that on this host";
const NOT_IGNORED: &str = "if the VMM does honor it, leave out --vmm-memtype=ignored";

impl VmmFacts {
    /// What is known of the VMM.
    ///
    /// `acked` is whether the front-end has accepted `NOSNOOP_MEMTYPE`, by which it promises to
    /// refuse what it cannot honor. `option` is the operator's word. Where the two contradict each
    /// other the cautious one wins: "ignored" stands against an acknowledged bit. The operator's
    /// "honored" stands also where this host's KVM is known not to do it, as the VMM may use another
    /// hypervisor or none; the source of the fact then says both.
    ///
    /// The host alone ([`VmmMemtype::Auto`]) is taken to run its guests with KVM.
    #[must_use]
    pub fn new(platform: &PlatformFacts, option: VmmMemtype, acked: bool) -> Self {
        Self {
            ram: honors(platform, PageKind::Ram, option, acked),
            mmio: honors(platform, PageKind::Mmio, option, acked),
            speaks_memtype: acked,
        }
    }

    /// Whether the guest's own memory type takes effect for pages of this kind.
    #[must_use]
    pub fn honors(&self, kind: PageKind) -> &Fact<bool> {
        &self.of(kind).answer
    }

    /// What would change the answer for pages of this kind, half a sentence; `None` if it is yes.
    #[must_use]
    pub fn advice(&self, kind: PageKind) -> Option<&'static str> {
        self.of(kind).advice
    }

    /// Whether the front-end understands a memory type in `SHMEM_MAP`; only then may one be sent.
    #[must_use]
    pub fn speaks_memtype(&self) -> bool {
        self.speaks_memtype
    }

    fn of(&self, kind: PageKind) -> &Honors {
        match kind {
            PageKind::Ram => &self.ram,
            PageKind::Mmio => &self.mmio,
        }
    }
}

fn yes(source: impl Into<String>) -> Honors {
    Honors {
        answer: Fact::known(true, source),
        advice: None,
    }
}

fn no(source: impl Into<String>, advice: &'static str) -> Honors {
    Honors {
        answer: Fact::known(false, source),
        advice: Some(advice),
    }
}

fn unknown(why: impl Into<String>, advice: &'static str) -> Honors {
    Honors {
        answer: Fact::unknown(why),
        advice: Some(advice),
    }
}

fn honors(platform: &PlatformFacts, kind: PageKind, option: VmmMemtype, acked: bool) -> Honors {
    match (option, acked) {
        (VmmMemtype::Ignored, false) => no("stated by --vmm-memtype=ignored", NOT_IGNORED),
        (VmmMemtype::Ignored, true) => no(
            "stated by --vmm-memtype=ignored, against the VMM, which accepted NOSNOOP_MEMTYPE",
            NOT_IGNORED,
        ),
        (VmmMemtype::Auto | VmmMemtype::Honored, true) => {
            yes("the VMM accepted NOSNOOP_MEMTYPE: it refuses what it cannot honor")
        }
        (VmmMemtype::Honored, false) => {
            let host = by_host(platform, kind).answer;
            if host.is_no() {
                let against = host.source();
                yes(format!(
                    "stated by --vmm-memtype=honored, against this host: {against}"
                ))
            } else {
                yes("stated by --vmm-memtype=honored")
            }
        }
        (VmmMemtype::Auto, false) => by_host(platform, kind),
    }
}

/// What KVM on this host does for every VMM.
fn by_host(platform: &PlatformFacts, kind: PageKind) -> Honors {
    let hypervisor = &platform.hypervisor;
    let source = hypervisor.source();
    match hypervisor.value() {
        Some(true) => unknown(
            format!("this host is a virtual machine itself, so something below decides: {source}"),
            ASK_NESTED,
        ),
        None => unknown(
            format!("whether this host is a virtual machine itself is not known: {source}"),
            ASK_NESTED,
        ),
        Some(false) => match platform.arch {
            Arch::X86 => x86(platform, kind),
            Arch::Arm64 => arm64(platform, kind),
            Arch::Other => unknown(
                "nothing is known of hypervisors on this architecture",
                ASK_OPERATOR,
            ),
        },
    }
}

fn x86(platform: &PlatformFacts, kind: PageKind) -> Honors {
    let nested = &platform.ept_or_npt;
    match nested.value() {
        Some(true) => x86_nested_paging(platform, kind),
        Some(false) => no(
            format!(
                "KVM without EPT or NPT maps everything write-back: {}",
                nested.source()
            ),
            IMPOSSIBLE,
        ),
        None => unknown(
            format!(
                "whether KVM uses EPT or NPT is not known: {}",
                nested.source()
            ),
            ASK_OPERATOR,
        ),
    }
}

fn x86_nested_paging(platform: &PlatformFacts, kind: PageKind) -> Honors {
    let vendor = &platform.vendor;
    match vendor.value() {
        Some(Vendor::Amd) => yes("NPT combines the guest's PAT with the host's"),
        Some(Vendor::Intel) => match kind {
            PageKind::Mmio => {
                yes("KVM maps device memory uncached in EPT and leaves the guest its PAT")
            }
            PageKind::Ram => intel_ram(platform),
        },
        Some(Vendor::Other) => unknown(
            format!(
                "the processor is neither Intel's nor AMD's: {}",
                vendor.source()
            ),
            ASK_OPERATOR,
        ),
        None => unknown(
            format!("the processor's vendor is not known: {}", vendor.source()),
            ASK_OPERATOR,
        ),
    }
}

fn intel_ram(platform: &PlatformFacts) -> Honors {
    let (self_snoop, quirk) = (&platform.self_snoop, &platform.pat_quirk);
    let advice = match quirk.value() {
        Some(true) => DISABLE_QUIRK,
        Some(false) => NEEDS_QUIRK,
        None => ASK_DOCTOR,
    };
    match (self_snoop.value(), quirk.value()) {
        (Some(false), _) => no(
            format!(
                "KVM ignores the guest's PAT on processors without self-snoop: {}",
                self_snoop.source()
            ),
            IMPOSSIBLE,
        ),
        (Some(true), Some(true)) => unknown(
            "KVM ignores the guest's PAT unless the VMM disables quirk bit 9, which nobody has said",
            advice,
        ),
        // Not "no": a ChromeOS kernel has another way, and devices that are passed through can
        // have KVM honor it for a while.
        (Some(true), Some(false)) => unknown(
            format!(
                "KVM ignores the guest's PAT unless the VMM disables quirk bit 9, which this \
         kernel does not offer: {}",
                quirk.source()
            ),
            advice,
        ),
        (Some(true), None) => unknown(
            format!(
                "KVM ignores the guest's PAT unless the VMM disables quirk bit 9, and whether this \
         kernel offers that is not known: {}",
                quirk.source()
            ),
            advice,
        ),
        (None, _) => unknown(
            format!(
                "KVM ignores the guest's PAT unless the VMM disables quirk bit 9, which needs \
                 self-snoop, and that is not known: {}",
                self_snoop.source()
            ),
            advice,
        ),
    }
}

fn arm64(platform: &PlatformFacts, kind: PageKind) -> Honors {
    let fwb = &platform.fwb;
    match (kind, fwb.value()) {
        (PageKind::Ram, Some(false)) => yes(format!(
            "stage 2 without FEAT_S2FWB leaves the guest what is stricter: {}",
            fwb.source()
        )),
        (PageKind::Ram, Some(true)) => no(
            format!("KVM forces write-back by FEAT_S2FWB: {}", fwb.source()),
            IMPOSSIBLE,
        ),
        (PageKind::Ram, None) => unknown(
            format!(
                "whether KVM forces write-back is not known: {}",
                fwb.source()
            ),
            ASK_OPERATOR,
        ),
        (PageKind::Mmio, Some(true | false) | None) => unknown(
            "what KVM maps device memory as depends on its driver's mapping",
            ASK_OPERATOR,
        ),
    }
}
