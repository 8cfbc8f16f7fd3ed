//! Each host that KVM treats in a way of its own, and what a guest on it really gets.

use super::*;
use crate::memory::effective::{Effective, guest_effective, host_effective};

/// An x86 host on bare metal with nested paging.
fn x86(vendor: Vendor) -> PlatformFacts {
    PlatformFacts {
        arch: Arch::X86,
        vendor: Fact::known(vendor, "vendor_id in /proc/cpuinfo"),
        hypervisor: Fact::known(false, "no hypervisor flag"),
        self_snoop: Fact::known(true, "ss flag"),
        fwb: Fact::unknown("not an arm64 host"),
        ept_or_npt: Fact::known(true, "module parameter"),
        pat_quirk: Fact::known(true, "KVM offers it"),
    }
}

fn intel_without_self_snoop() -> PlatformFacts {
    PlatformFacts {
        self_snoop: Fact::known(false, "no ss flag"),
        ..x86(Vendor::Intel)
    }
}

fn without_nested_paging(vendor: Vendor) -> PlatformFacts {
    PlatformFacts {
        ept_or_npt: Fact::known(false, "module parameter"),
        ..x86(vendor)
    }
}

fn arm64(fwb: bool) -> PlatformFacts {
    PlatformFacts {
        arch: Arch::Arm64,
        vendor: Fact::known(Vendor::Other, "not an x86 host"),
        hypervisor: Fact::known(false, "booted in EL2"),
        self_snoop: Fact::unknown("not an x86 host"),
        fwb: Fact::known(fwb, "ID_AA64MMFR2_EL1"),
        ept_or_npt: Fact::unknown("not an x86 host"),
        pat_quirk: Fact::unknown("not an x86 host"),
    }
}

fn nested(vendor: Vendor) -> PlatformFacts {
    PlatformFacts {
        hypervisor: Fact::known(true, "hypervisor flag"),
        ..x86(vendor)
    }
}

/// What the host alone says of RAM and of device memory, with sources.
fn alone(platform: &PlatformFacts) -> [String; 2] {
    let vmm = VmmFacts::new(platform, VmmMemtype::Auto, false);
    PageKind::ALL.map(|kind| vmm.honors(kind).to_string())
}

const QEMU: &str = "start QEMU (11.1 or later) with -accel kvm,honor-guest-pat=on and this \
                    program with --vmm-memtype=honored";

#[test]
fn intel_honors_device_memory_and_ram_only_with_the_quirk_off() {
    let host = x86(Vendor::Intel);
    assert_eq!(
        alone(&host),
        [
            "unknown (KVM ignores the guest's PAT unless the VMM disables quirk bit 9, which \
             nobody has said)",
            "yes (KVM maps device memory uncached in EPT and leaves the guest its PAT)",
        ]
    );
    let vmm = VmmFacts::new(&host, VmmMemtype::Auto, false);
    assert_eq!(vmm.advice(PageKind::Ram), Some(QEMU));
    assert_eq!(vmm.advice(PageKind::Mmio), None);
    let stated = VmmFacts::new(&host, VmmMemtype::Honored, false);
    let ram = stated.honors(PageKind::Ram).to_string();
    assert_eq!(ram, "yes (stated by --vmm-memtype=honored)");
}

#[test]
fn intel_where_kvm_does_not_offer_the_quirk_is_told_what_it_needs() {
    let without = PlatformFacts {
        pat_quirk: Fact::known(false, "KVM offers 0x7f"),
        ..x86(Vendor::Intel)
    };
    let [ram, mmio] = alone(&without);
    assert_eq!(
        ram,
        "unknown (KVM ignores the guest's PAT unless the VMM disables quirk bit 9, which this \
         kernel does not offer: KVM offers 0x7f)"
    );
    assert_eq!(mmio, alone(&x86(Vendor::Intel))[1]);
    let vmm = VmmFacts::new(&without, VmmMemtype::Auto, false);
    assert_eq!(
        vmm.advice(PageKind::Ram),
        Some("that needs a kernel whose KVM offers to disable it (or crosvm on a ChromeOS kernel)")
    );
    let not_known = PlatformFacts {
        pat_quirk: Fact::unknown("/dev/kvm: Permission denied"),
        ..x86(Vendor::Intel)
    };
    let [ram, _] = alone(&not_known);
    assert_eq!(
        ram,
        "unknown (KVM ignores the guest's PAT unless the VMM disables quirk bit 9, and whether this \
         kernel offers that is not known: /dev/kvm: Permission denied)"
    );
    let vmm = VmmFacts::new(&not_known, VmmMemtype::Auto, false);
    let advice = vmm.advice(PageKind::Ram).unwrap();
    assert!(advice.contains("nosnoop-gpu doctor"), "{advice}");
    // Without self-snoop the quirk is no matter, and AMD has none.
    let old = PlatformFacts {
        pat_quirk: Fact::known(false, "KVM offers 0x7f"),
        ..intel_without_self_snoop()
    };
    assert_eq!(alone(&old), alone(&intel_without_self_snoop()));
    let amd = PlatformFacts {
        pat_quirk: Fact::known(false, "KVM offers 0x7f"),
        ..x86(Vendor::Amd)
    };
    assert_eq!(alone(&amd), alone(&x86(Vendor::Amd)));
}

#[test]
fn intel_without_self_snoop_cannot_honor_ram() {
    let host = intel_without_self_snoop();
    assert_eq!(
        alone(&host),
        [
            "no (KVM ignores the guest's PAT on processors without self-snoop: no ss flag)",
            "yes (KVM maps device memory uncached in EPT and leaves the guest its PAT)",
        ]
    );
    let vmm = VmmFacts::new(&host, VmmMemtype::Auto, false);
    let advice = vmm.advice(PageKind::Ram).unwrap();
    assert_eq!(advice, "no VMM on KVM can change that on this host");
    // The operator's word stands, but not silently.
    let stated = VmmFacts::new(&host, VmmMemtype::Honored, false);
    assert_eq!(
        stated.honors(PageKind::Ram).to_string(),
        "yes (stated by --vmm-memtype=honored, against this host: KVM ignores the guest's PAT on \
         processors without self-snoop: no ss flag)"
    );
    let unknown = PlatformFacts {
        self_snoop: Fact::unknown("cpuinfo cannot be read"),
        ..x86(Vendor::Intel)
    };
    let [ram, _] = alone(&unknown);
    assert!(ram.starts_with("unknown (") && ram.ends_with(": cpuinfo cannot be read)"));
}

#[test]
fn without_nested_paging_nothing_is_honored() {
    let said = "no (KVM without EPT or NPT maps everything write-back: module parameter)";
    for vendor in [Vendor::Intel, Vendor::Amd, Vendor::Other] {
        assert_eq!(alone(&without_nested_paging(vendor)), [said; 2]);
    }
}

#[test]
fn amd_with_npt_honors_everything() {
    let said = "yes (NPT combines the guest's PAT with the host's)";
    assert_eq!(alone(&x86(Vendor::Amd)), [said; 2]);
}

#[test]
fn amd_with_npt_unknown_is_unknown() {
    let host = PlatformFacts {
        ept_or_npt: Fact::unknown("kvm_amd is not loaded"),
        ..x86(Vendor::Amd)
    };
    let said = "unknown (whether KVM uses EPT or NPT is not known: kvm_amd is not loaded)";
    assert_eq!(alone(&host), [said; 2]);
}

#[test]
fn arm64_without_fwb_honors_ram() {
    assert_eq!(
        alone(&arm64(false)),
        [
            "yes (stage 2 without FEAT_S2FWB leaves the guest what is stricter: ID_AA64MMFR2_EL1)",
            "unknown (what KVM maps device memory as depends on its driver's mapping)",
        ]
    );
}

#[test]
fn arm64_with_fwb_forces_ram() {
    let host = arm64(true);
    assert_eq!(
        alone(&host),
        [
            "no (KVM forces write-back by FEAT_S2FWB: ID_AA64MMFR2_EL1)",
            "unknown (what KVM maps device memory as depends on its driver's mapping)",
        ]
    );
    let unknown = PlatformFacts {
        fwb: Fact::unknown("not readable"),
        ..host
    };
    let [ram, _] = alone(&unknown);
    assert_eq!(
        ram,
        "unknown (whether KVM forces write-back is not known: not readable)"
    );
}

#[test]
fn a_host_that_is_a_guest_or_may_be_is_unknown() {
    for vendor in [Vendor::Intel, Vendor::Amd] {
        let said = "unknown (this host is a virtual machine itself, so something below decides: \
                    hypervisor flag)";
        assert_eq!(alone(&nested(vendor)), [said; 2]);
        let host = PlatformFacts {
            hypervisor: Fact::unknown("cpuinfo cannot be read"),
            ..x86(vendor)
        };
        let said = "unknown (whether this host is a virtual machine itself is not known: cpuinfo \
                    cannot be read)";
        assert_eq!(alone(&host), [said; 2]);
    }
    let vmm = VmmFacts::new(&nested(Vendor::Amd), VmmMemtype::Auto, false);
    let advice = vmm.advice(PageKind::Ram).unwrap();
    assert!(advice.ends_with("--vmm-memtype=honored"), "{advice}");
}

#[test]
fn other_hosts_are_unknown() {
    for host in [
        x86(Vendor::Other),
        PlatformFacts {
            vendor: Fact::unknown("cpuinfo cannot be read"),
            ..x86(Vendor::Amd)
        },
        PlatformFacts {
            arch: Arch::Other,
            ..x86(Vendor::Other)
        },
    ] {
        let [ram, mmio] = alone(&host);
        assert!(ram.starts_with("unknown (") && mmio == ram, "{ram} {mmio}");
    }
}

#[test]
fn the_vmms_own_word_counts_on_every_host_and_kernel() {
    // A ChromeOS kernel's memslot flag, a disabled quirk, another hypervisor: how the VMM does it
    // is its own affair once it has promised to refuse what it cannot do.
    for host in [x86(Vendor::Intel), nested(Vendor::Intel), arm64(true)] {
        let vmm = VmmFacts::new(&host, VmmMemtype::Auto, true);
        let said = "yes (the VMM accepted NOSNOOP_MEMTYPE: it refuses what it cannot honor)";
        for kind in PageKind::ALL {
            assert_eq!(vmm.honors(kind).to_string(), said);
        }
        let denied = VmmFacts::new(&host, VmmMemtype::Ignored, true);
        assert_eq!(
            denied.honors(PageKind::Ram).to_string(),
            "no (stated by --vmm-memtype=ignored, against the VMM, which accepted \
             NOSNOOP_MEMTYPE)"
        );
    }
}

#[test]
fn a_refusal_on_a_stock_intel_host_says_what_to_type() {
    let vmm = VmmFacts::new(&x86(Vendor::Intel), VmmMemtype::Auto, false);
    let blob = traits(Snooping::No, Some(MapCache::Wc), PageKinds::Ram);
    let plan = plan(&blob, &vmm, false, Policy::default());
    assert_eq!(
        plan.why()[0],
        format!(
            "memslot: the guest's memory type is not known to take effect for RAM (KVM ignores \
             the guest's PAT unless the VMM disables quirk bit 9, which nobody has said); {QEMU}; \
             or --noncoherent=coerce, for memory that this program allocates"
        )
    );
}

/// A host as it is.
struct World {
    name: &'static str,
    platform: PlatformFacts,
    /// Whether the VMM has disabled the quirk, where there is one.
    quirk_off: Option<bool>,
    /// Whether "honored" would be the truth.
    honored: bool,
}

fn worlds() -> Vec<World> {
    let intel = || x86(Vendor::Intel);
    let no_ept = without_nested_paging(Vendor::Intel);
    let no_npt = without_nested_paging(Vendor::Amd);
    let world = |name, platform, quirk_off, honored| World {
        name,
        platform,
        quirk_off,
        honored,
    };
    vec![
        world("Intel", intel(), Some(false), false),
        world("Intel, quirk off", intel(), Some(true), true),
        world("old Intel", intel_without_self_snoop(), Some(false), false),
        world("Intel without EPT", no_ept, Some(false), false),
        world("AMD", x86(Vendor::Amd), None, true),
        world("AMD without NPT", no_npt, None, false),
        world("arm64", arm64(false), None, false),
        world("arm64 with FWB", arm64(true), None, false),
        world("Intel guest", nested(Vendor::Intel), Some(false), false),
        world("AMD guest", nested(Vendor::Amd), None, false),
    ]
}

/// The pages that the blob may have, whether or not that is known.
fn possible_pages(kinds: PageKinds) -> &'static [PageKind] {
    match kinds {
        PageKinds::Ram => &[PageKind::Ram],
        PageKinds::Mmio => &[PageKind::Mmio],
        PageKinds::Either | PageKinds::Unknown => &PageKind::ALL,
    }
}

/// Whether there are such pages at all. No driver maps a BAR cached on arm64, where no MTRR would
/// make it uncached all the same: what is cached is RAM there.
fn exists(world: &World, kind: PageKind, host: MapCache) -> bool {
    (world.platform.arch, kind, host) != (Arch::Arm64, PageKind::Mmio, MapCache::Cached)
}

/// Whether the guest, the host and the devices agree on one kind of page, if the guest follows
/// `map_info`.
fn agrees(world: &World, kind: PageKind, plan: &MapPlan, snooping: Snooping, cpu: bool) -> bool {
    let guest = guest_effective(&world.platform, kind, world.quirk_off, plan.guest());
    let guest = guest.and_then(Effective::acts_like);
    let host = host_effective(&world.platform, kind, plan.host());
    let host = host.and_then(Effective::acts_like);
    let past_caches = matches!(guest, Some(MapCache::Wc | MapCache::Uncached));
    match snooping {
        Snooping::No | Snooping::Unknown => past_caches && guest == host,
        // Where nothing is known of the types, cached on both sides is the same all the same.
        Snooping::NoDevice => {
            guest == host && (guest.is_some() || plan.guest() == MapCache::Cached)
        }
        Snooping::Yes => guest == host || !cpu,
    }
}

/// Plans everything there is on a host: whether some plan is write-combining, and a plan on which
/// somebody disagrees, in words.
fn survey(world: &World, option: VmmMemtype) -> (bool, Option<String>) {
    let vmm = VmmFacts::new(&world.platform, option, false);
    let (mut wc, mut wrong) = (false, None);
    for blob in every_traits() {
        for policy in every_policy() {
            for cpu in [false, true] {
                let Plan::Map(plan) = plan(&blob, &vmm, cpu, policy) else {
                    continue;
                };
                wc |= plan.guest() == MapCache::Wc;
                let mut pages = possible_pages(blob.kinds)
                    .iter()
                    .filter(|kind| exists(world, **kind, plan.host()));
                if !pages.all(|kind| agrees(world, *kind, &plan, blob.snooping, cpu)) {
                    wrong = Some(format!("{}, {option:?}: {blob:?}, {plan:?}", world.name));
                }
            }
        }
    }
    (wc, wrong)
}

#[test]
fn no_plan_gives_a_guest_what_a_device_or_the_host_would_disagree_with() {
    let mut write_combining = Vec::new();
    for world in worlds() {
        let mut options = vec![VmmMemtype::Auto, VmmMemtype::Ignored];
        if world.honored {
            options.push(VmmMemtype::Honored);
        }
        for option in options {
            let (wc, wrong) = survey(&world, option);
            assert_eq!(wrong, None);
            if wc {
                write_combining.push((world.name, option));
            }
        }
    }
    // A function that refuses everything would pass, too. This one does not.
    assert_eq!(
        write_combining,
        [
            ("Intel", VmmMemtype::Auto),
            ("Intel, quirk off", VmmMemtype::Auto),
            ("Intel, quirk off", VmmMemtype::Honored),
            ("old Intel", VmmMemtype::Auto),
            ("AMD", VmmMemtype::Auto),
            ("AMD", VmmMemtype::Honored),
            ("arm64", VmmMemtype::Auto),
        ]
    );
}

#[test]
fn the_same_check_sees_a_false_word() {
    for world in worlds().iter().filter(|world| !world.honored) {
        let (_, wrong) = survey(world, VmmMemtype::Honored);
        assert!(wrong.is_some(), "{}", world.name);
    }
}

#[test]
fn a_front_end_that_must_refuse_is_told_enough_to() {
    for world in worlds() {
        let vmm = VmmFacts::new(&world.platform, VmmMemtype::Auto, true);
        for blob in every_traits() {
            let Plan::Map(plan) = plan(&blob, &vmm, false, Policy::default()) else {
                continue;
            };
            for kind in possible_pages(blob.kinds) {
                let fits = !exists(&world, *kind, plan.host())
                    || agrees(&world, *kind, &plan, blob.snooping, false);
                // It sees what it must honor, and so can refuse what does not fit.
                let asked = plan.memslot().cache() == Some(MapCache::Wc);
                assert!(fits || asked, "{}: {blob:?}", world.name);
            }
        }
    }
}
