//! Each row of the policy's table, and each choice that the table leaves, by name: what is asked
//! for and what is said.

use super::*;

const RAM: PageKinds = PageKinds::Ram;
const CACHED: Option<MapCache> = Some(MapCache::Cached);
const WC: Option<MapCache> = Some(MapCache::Wc);

/// A front-end that speaks the extension and honors everything.
fn honors() -> VmmFacts {
    vmm(Some(true), Some(true), true)
}

/// One of which nothing is known.
fn silent() -> VmmFacts {
    vmm(None, None, false)
}

fn planned(traits: &Traits, vmm: &VmmFacts) -> Plan {
    plan(traits, vmm, false, Policy::default())
}

/// What is mapped: the guest's type, the memslot's, whether to flush, and the summary.
fn mapped(plan: &Plan) -> (MapCache, MemslotRequest, bool, &str) {
    match plan {
        Plan::Map(map) => (map.guest(), map.memslot(), map.flush(), &map.why()[0]),
        Plan::Refuse(refusal) => panic!("{refusal}"),
    }
}

fn refused(plan: &Plan) -> &str {
    match plan {
        Plan::Map(map) => panic!("{map:?}"),
        Plan::Refuse(refusal) => refusal.summary(),
    }
}

const END_TO_END: &str = "write-combining from the host to the guest";
const ALL_CACHED: &str = "cached, as the host maps it, and no access goes past the caches";
const BESIDE: &str =
    "cached: every device snoops, and no CPU uses the host's write-combining mapping";
const COERCE: &str = "; or --noncoherent=coerce, for memory that this program allocates";

/// What is said where the answer for RAM is not known.
fn ram_unknown() -> String {
    format!(
        "memslot: the guest's memory type is not known to take effect for RAM (test); change the \
         test{COERCE}"
    )
}

#[test]
fn not_snooped_write_combining_and_honored_is_write_combining() {
    let noncoherent = true;
    for snooping in [Snooping::No, Snooping::Unknown] {
        let plan = planned(&traits(snooping, WC, RAM), &honors());
        let memslot = MemslotRequest::Wc { noncoherent };
        assert_eq!(mapped(&plan), (MapCache::Wc, memslot, true, END_TO_END));
    }
    assert_eq!(
        planned(&traits(Snooping::No, WC, RAM), &honors()).why(),
        [
            END_TO_END,
            "devices: at least one does not snoop",
            "host mapping: write-combining, as its allocator recorded, verified",
            "memslot: the guest's type takes effect for RAM: yes (test)",
            "guest: told write-combining",
            "flush: before the first use and after the last",
        ]
    );
}

#[test]
fn not_snooped_write_combining_and_not_honored_is_refused() {
    for snooping in [Snooping::No, Snooping::Unknown] {
        let plan = planned(&traits(snooping, WC, RAM), &silent());
        assert_eq!(refused(&plan), ram_unknown());
        let ignoring = vmm(Some(false), Some(true), true);
        let plan = planned(&traits(snooping, WC, RAM), &ignoring);
        let said = format!(
            "memslot: the guest's memory type takes no effect for RAM (test); change the \
             test{COERCE}"
        );
        assert_eq!(refused(&plan), said);
    }
    assert_eq!(
        planned(&traits(Snooping::Unknown, WC, RAM), &silent()).why(),
        [
            ram_unknown().as_str(),
            "devices: not known to snoop, so treated as if they did not",
            "host mapping: write-combining, as its allocator recorded, verified",
            "memslot: the guest's type takes effect for RAM: unknown (test)",
        ]
    );
}

#[test]
fn not_snooped_and_cached_is_refused() {
    for snooping in [Snooping::No, Snooping::Unknown] {
        let plan = planned(&traits(snooping, CACHED, RAM), &honors());
        assert_eq!(
            refused(&plan),
            "devices: not all are known to snoop, and the host maps it cached; use \
             write-combining memory or devices that snoop"
        );
    }
}

#[test]
fn snooped_write_combining_and_honored_is_write_combining() {
    let plan = planned(&traits(Snooping::Yes, WC, RAM), &honors());
    let memslot = MemslotRequest::Wc { noncoherent: false };
    assert_eq!(mapped(&plan), (MapCache::Wc, memslot, true, END_TO_END));
}

#[test]
fn snooped_write_combining_and_not_honored_is_cached() {
    let blob = traits(Snooping::Yes, WC, RAM);
    let plan = planned(&blob, &silent());
    let memslot = MemslotRequest::Unspecified;
    assert_eq!(mapped(&plan), (MapCache::Cached, memslot, true, BESIDE));
    let plan = planned(&blob, &vmm(Some(false), None, true));
    let memslot = MemslotRequest::Cached;
    assert_eq!(mapped(&plan), (MapCache::Cached, memslot, true, BESIDE));
}

#[test]
fn snooped_write_combining_not_honored_and_used_by_a_host_cpu_is_refused() {
    let blob = traits(Snooping::Yes, WC, RAM);
    let plan = plan(&blob, &silent(), true, Policy::default());
    assert_eq!(
        plan.why(),
        [
            ram_unknown().as_str(),
            "host mapping: a CPU of the host uses it, so the guest's cannot be cached instead",
            "devices: they snoop, whichever imports it",
            "host mapping: write-combining, as its allocator recorded, verified",
            "memslot: the guest's type takes effect for RAM: unknown (test)",
        ]
    );
}

#[test]
fn write_combining_without_devices_is_write_combining_where_honored() {
    let plan = planned(&traits(Snooping::NoDevice, WC, RAM), &honors());
    let memslot = MemslotRequest::Wc { noncoherent: false };
    assert_eq!(mapped(&plan), (MapCache::Wc, memslot, true, END_TO_END));
}

#[test]
fn write_combining_without_devices_is_refused_where_not_honored() {
    let plan = planned(&traits(Snooping::NoDevice, WC, RAM), &silent());
    assert_eq!(refused(&plan), ram_unknown());
    assert_eq!(
        plan.why()[1],
        "devices: only CPUs use it, so the guest's mapping cannot be of another type than the \
         host's"
    );
}

#[test]
fn cached_and_snooped_or_without_devices_is_cached() {
    for snooping in [Snooping::Yes, Snooping::NoDevice] {
        for (vmm, memslot) in [
            (silent(), MemslotRequest::Unspecified),
            (honors(), MemslotRequest::Cached),
        ] {
            let plan = planned(&traits(snooping, CACHED, RAM), &vmm);
            assert_eq!(
                mapped(&plan),
                (MapCache::Cached, memslot, false, ALL_CACHED)
            );
        }
    }
    assert_eq!(
        planned(&traits(Snooping::NoDevice, CACHED, RAM), &silent()).why(),
        [
            ALL_CACHED,
            "devices: none, CPUs only",
            "host mapping: cached, as its allocator recorded, verified",
            "memslot: any will do for cached memory",
            "guest: told cached",
            "flush: not needed",
        ]
    );
}

#[test]
fn uncached_and_unknown_host_mappings_are_refused() {
    for (host, said) in [
        (
            Some(MapCache::Uncached),
            "host mapping: uncached, which is not supported; use cached or write-combining memory",
        ),
        (
            None,
            "host mapping: its memory type is not known; use a driver or renderer that says it",
        ),
    ] {
        for snooping in SNOOPING {
            let plan = planned(&traits(snooping, host, RAM), &honors());
            assert_eq!(refused(&plan), said);
        }
    }
}

#[test]
fn every_kind_of_page_must_be_honored() {
    let ram_only = vmm(Some(true), Some(false), false);
    let mmio_only = vmm(Some(false), Some(true), false);
    for (kinds, vmm, wc) in [
        (PageKinds::Ram, &ram_only, true),
        (PageKinds::Ram, &mmio_only, false),
        (PageKinds::Mmio, &ram_only, false),
        (PageKinds::Mmio, &mmio_only, true),
        (PageKinds::Either, &ram_only, false),
        (PageKinds::Either, &mmio_only, false),
        (PageKinds::Either, &honors(), true),
        (PageKinds::Unknown, &honors(), false),
    ] {
        let plan = planned(&traits(Snooping::No, WC, kinds), vmm);
        let expected = wc.then_some(MapCache::Wc);
        assert_eq!(told(&plan), expected, "{kinds:?} {vmm:?}");
    }
}

#[test]
fn each_kind_that_is_not_honored_is_said() {
    let plan = planned(
        &traits(Snooping::No, WC, PageKinds::Either),
        &vmm(None, Some(false), false),
    );
    assert_eq!(
        plan.why(),
        [
            ram_unknown(),
            format!(
                "memslot: the guest's memory type takes no effect for device memory (test); \
                 change the test{COERCE}"
            ),
            "devices: at least one does not snoop".to_owned(),
            "host mapping: write-combining, as its allocator recorded, verified".to_owned(),
            "memslot: the guest's type takes effect for RAM: unknown (test)".to_owned(),
            "memslot: the guest's type takes effect for device memory: no (test)".to_owned(),
        ]
    );
}

#[test]
fn pages_of_unknown_kind_are_never_write_combining() {
    let kinds = PageKinds::Unknown;
    let plan = planned(&traits(Snooping::No, WC, kinds), &honors());
    let said = format!(
        "memslot: whether pages are RAM or device memory is not known, so no guest's memory type \
         can be relied on; use a driver or renderer that says it{COERCE}"
    );
    assert_eq!(refused(&plan), said);
    let plan = planned(&traits(Snooping::Yes, WC, kinds), &honors());
    let memslot = MemslotRequest::Cached;
    assert_eq!(mapped(&plan), (MapCache::Cached, memslot, false, BESIDE));
    assert_eq!(plan.why()[3], "memslot: kinds of page not known");
    let left = "flush: never, as pages may be device memory; left to the kernel";
    assert_eq!(plan.why()[5], left);
}

#[test]
fn device_memory_is_never_flushed() {
    for kinds in [PageKinds::Mmio, PageKinds::Either] {
        let plan = planned(&traits(Snooping::No, WC, kinds), &honors());
        let memslot = MemslotRequest::Wc { noncoherent: true };
        assert_eq!(mapped(&plan), (MapCache::Wc, memslot, false, END_TO_END));
    }
}

#[test]
fn unverified_memory_is_treated_as_if_the_vmm_did_not_honor_it() {
    let unverified = |snooping, host| Traits {
        verified: false,
        ..traits(snooping, host, RAM)
    };
    let said = format!(
        "host mapping: this way to allocate was never verified on hardware; --allow-unverified \
         believes it{COERCE}"
    );
    for snooping in [Snooping::No, Snooping::Unknown, Snooping::NoDevice] {
        let plan = planned(&unverified(snooping, WC), &honors());
        assert_eq!(refused(&plan), said, "{snooping:?}");
    }
    let plan = planned(&unverified(Snooping::Yes, WC), &honors());
    assert_eq!(mapped(&plan).3, BESIDE);
    let plan = planned(&unverified(Snooping::Yes, CACHED), &silent());
    assert_eq!(mapped(&plan).3, ALL_CACHED);
    let line = "host mapping: cached, as its allocator recorded, never verified on hardware";
    assert_eq!(plan.why()[2], line);
}

#[test]
fn unverified_memory_that_is_allowed_is_like_any_other() {
    let blob = Traits {
        verified: false,
        ..traits(Snooping::No, WC, RAM)
    };
    let policy = Policy {
        allow_unverified: true,
        ..Policy::default()
    };
    let plan = plan(&blob, &honors(), false, policy);
    assert_eq!(mapped(&plan).3, END_TO_END);
    assert_eq!(
        plan.why()[2],
        "host mapping: write-combining, as its allocator recorded, never verified on hardware, \
         believed by --allow-unverified"
    );
}

#[test]
fn noncoherent_off_takes_write_combining_only_where_every_device_snoops() {
    let off = Policy {
        noncoherent: Noncoherent::Off,
        ..Policy::default()
    };
    for snooping in [Snooping::No, Snooping::Unknown, Snooping::NoDevice] {
        let plan = plan(&traits(snooping, WC, RAM), &honors(), false, off);
        assert_eq!(
            refused(&plan),
            "host mapping: write-combining, which --noncoherent=off takes only where every device \
             is known to snoop; use --noncoherent=auto"
        );
    }
    let plan = plan(&traits(Snooping::Yes, WC, RAM), &honors(), false, off);
    assert_eq!(mapped(&plan).3, END_TO_END);
}

#[test]
fn coercion_is_offered_by_the_refusal_and_not_done_here() {
    let coerce = Policy {
        noncoherent: Noncoherent::Coerce,
        ..Policy::default()
    };
    for (host, coercible) in [(WC, true), (CACHED, false), (None, false)] {
        let plan = plan(&traits(Snooping::No, host, RAM), &silent(), false, coerce);
        let Plan::Refuse(refusal) = plan else {
            panic!("{plan:?}");
        };
        assert_eq!(refusal.coercible(), coercible);
        assert!(!refusal.summary().contains("coerce"), "{refusal}");
    }
    let plan = plan(&traits(Snooping::No, WC, RAM), &honors(), false, coerce);
    assert_eq!(mapped(&plan).3, END_TO_END);
}
