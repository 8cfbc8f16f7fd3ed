//! Every row of the table of hosts, with fakes for what no single machine has.

use super::Decision::{AlwaysHonored, Impossible, PerSlotFlag, PerVmQuirk};
use super::*;

const EINVAL: i32 = 22;
const EPERM: i32 = 1;

/// A new Intel host with everything, on which only upstream's way works.
fn intel() -> KvmAnswers {
    KvmAnswers {
        cpu: Cpu::Intel,
        below: Below::Metal,
        paging: Paging::Ept,
        self_snoop: true,
        forced_write_back: None,
        quirks: 0x7ff,
        disable_quirk: Ok(()),
        flagged_slot: Err(EINVAL),
        chromeos: false,
    }
}

fn amd() -> KvmAnswers {
    KvmAnswers {
        cpu: Cpu::Amd,
        paging: Paging::Npt,
        self_snoop: false,
        ..intel()
    }
}

fn arm64(forced: Option<bool>) -> KvmAnswers {
    KvmAnswers {
        cpu: Cpu::Arm64,
        below: Below::Metal,
        paging: Paging::StageTwo,
        self_snoop: false,
        forced_write_back: forced,
        quirks: 0,
        disable_quirk: Err(EINVAL),
        flagged_slot: Err(EINVAL),
        chromeos: false,
    }
}

#[track_caller]
fn assert_decisions(answers: &KvmAnswers, ram: Decision, mmio: Decision) {
    assert_eq!(Support::new(answers), Support { ram, mmio }, "{answers:?}");
}

#[test]
fn intel_needs_the_quirk_for_ram_and_nothing_for_device_memory() {
    assert_decisions(&intel(), PerVmQuirk, AlwaysHonored);
    assert!(Support::new(&intel()).needs_quirk());
}

#[test]
fn intel_without_the_quirk_bit_cannot() {
    // As seen on a Linux 6.18 without VMX.
    let answers = KvmAnswers {
        quirks: 0x5ff,
        ..intel()
    };
    assert_decisions(&answers, Impossible(Reason::QuirkAbsent), AlwaysHonored);
    assert!(!Support::new(&answers).needs_quirk());
}

#[test]
fn intel_without_self_snoop_cannot_by_any_way() {
    let answers = KvmAnswers {
        self_snoop: false,
        chromeos: true,
        flagged_slot: Ok(()),
        ..intel()
    };
    assert_decisions(&answers, Impossible(Reason::NoSelfSnoop), AlwaysHonored);
}

#[test]
fn a_quirk_that_is_offered_and_then_refused_counts_as_refused() {
    let answers = KvmAnswers {
        disable_quirk: Err(EPERM),
        ..intel()
    };
    let ram = Impossible(Reason::QuirkRefused(EPERM));
    assert_decisions(&answers, ram, AlwaysHonored);
}

#[test]
fn intel_without_ept_cannot() {
    let answers = KvmAnswers {
        paging: Paging::Software,
        ..intel()
    };
    let none = Impossible(Reason::SoftwarePaging);
    assert_decisions(&answers, none, none);
}

#[test]
fn the_flag_of_a_slot_counts_on_chromeos_only() {
    let elsewhere = KvmAnswers {
        flagged_slot: Ok(()),
        quirks: 0,
        ..intel()
    };
    assert_decisions(&elsewhere, Impossible(Reason::QuirkAbsent), AlwaysHonored);
    let chromeos = KvmAnswers {
        chromeos: true,
        ..elsewhere.clone()
    };
    assert_decisions(&chromeos, PerSlotFlag, AlwaysHonored);
    let without = KvmAnswers {
        flagged_slot: Err(EINVAL),
        ..chromeos.clone()
    };
    assert_decisions(&without, Impossible(Reason::QuirkAbsent), AlwaysHonored);
    // A ChromeOS kernel that has both: the one that concerns fewer pages.
    let both = KvmAnswers {
        quirks: QUIRK_IGNORE_GUEST_PAT,
        ..chromeos
    };
    assert_decisions(&both, PerSlotFlag, AlwaysHonored);
}

#[test]
fn on_amd_the_vendor_decides_whatever_the_calls_return() {
    assert_decisions(&amd(), AlwaysHonored, AlwaysHonored);
    let refusing = KvmAnswers {
        quirks: 0,
        disable_quirk: Err(EINVAL),
        ..amd()
    };
    assert_decisions(&refusing, AlwaysHonored, AlwaysHonored);
    // All calls succeed, and still no nested paging: they prove nothing.
    let willing = KvmAnswers {
        paging: Paging::Software,
        chromeos: true,
        flagged_slot: Ok(()),
        ..amd()
    };
    let none = Impossible(Reason::SoftwarePaging);
    assert_decisions(&willing, none, none);
}

#[test]
fn a_module_of_the_other_vendor_proves_nothing() {
    for (cpu, paging) in [(Cpu::Intel, Paging::Npt), (Cpu::Amd, Paging::Ept)] {
        let answers = KvmAnswers {
            cpu,
            paging,
            ..intel()
        };
        let none = Impossible(Reason::SoftwarePaging);
        assert_decisions(&answers, none, none);
    }
}

#[test]
fn below_a_hypervisor_somebody_has_to_vouch() {
    let none = Impossible(Reason::Nested);
    for metal in [intel(), amd()] {
        let nested = KvmAnswers {
            below: Below::Hypervisor,
            ..metal.clone()
        };
        assert_decisions(&nested, none, none);
        let vouched = KvmAnswers {
            below: Below::Vouched,
            ..metal.clone()
        };
        assert_eq!(Support::new(&vouched), Support::new(&metal));
    }
    let arm = KvmAnswers {
        below: Below::Hypervisor,
        ..arm64(Some(false))
    };
    assert_decisions(&arm, none, Impossible(Reason::DeviceMemory));
    // The reason that no word of anybody changes comes first.
    let software = KvmAnswers {
        below: Below::Hypervisor,
        paging: Paging::Software,
        ..intel()
    };
    let none = Impossible(Reason::SoftwarePaging);
    assert_decisions(&software, none, none);
}

#[test]
fn arm64_depends_on_forced_write_back() {
    let mmio = Impossible(Reason::DeviceMemory);
    assert_decisions(&arm64(Some(false)), AlwaysHonored, mmio);
    assert_decisions(
        &arm64(Some(true)),
        Impossible(Reason::ForcedWriteBack),
        mmio,
    );
    assert_decisions(&arm64(None), Impossible(Reason::ForcingUnknown), mmio);
}

#[test]
fn other_processors_are_unknown() {
    for cpu in [Cpu::OtherX86, Cpu::Other] {
        let none = Impossible(Reason::UnknownCpu);
        assert_decisions(&KvmAnswers { cpu, ..intel() }, none, none);
    }
}

#[test]
fn a_slot_is_for_every_kind_that_its_pages_may_have() {
    let both = [PageKind::Ram, PageKind::Mmio];
    let flags = |ram, mmio| Support { ram, mmio }.slot_flags(&both);
    assert_eq!(flags(AlwaysHonored, AlwaysHonored), Ok(0));
    assert_eq!(flags(PerVmQuirk, AlwaysHonored), Ok(0));
    assert_eq!(flags(PerSlotFlag, AlwaysHonored), Ok(8));
    let no = Impossible(Reason::DeviceMemory);
    assert_eq!(flags(AlwaysHonored, no), Err(Reason::DeviceMemory));
    assert_eq!(flags(no, AlwaysHonored), Err(Reason::DeviceMemory));
    let support = Support {
        ram: AlwaysHonored,
        mmio: no,
    };
    assert_eq!(support.slot_flags(&[PageKind::Ram]), Ok(0));
}
