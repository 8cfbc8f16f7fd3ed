//! The space of inputs is finite, so it is walked through.

use super::*;
use crate::memory::plan::vmm::Honors;

/// One input of [`plan`].
#[derive(Clone, Copy, Debug)]
struct Input {
    traits: Traits,
    ram: Option<bool>,
    mmio: Option<bool>,
    speaks: bool,
    host_cpu: bool,
    policy: Policy,
}

impl Input {
    fn plan(&self) -> Plan {
        let vmm = vmm(self.ram, self.mmio, self.speaks);
        plan(&self.traits, &vmm, self.host_cpu, self.policy)
    }
}

fn every_input() -> Vec<Input> {
    let mut all = Vec::new();
    for traits in every_traits() {
        for policy in every_policy() {
            for (ram, mmio) in ANSWERS.iter().flat_map(|a| ANSWERS.map(|b| (*a, b))) {
                for (speaks, host_cpu) in
                    [(false, false), (false, true), (true, false), (true, true)]
                {
                    all.push(Input {
                        traits,
                        ram,
                        mmio,
                        speaks,
                        host_cpu,
                        policy,
                    });
                }
            }
        }
    }
    assert_eq!(all.len(), 128 * 6 * 9 * 4);
    all
}

/// What the row of a table gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Wc,
    Cached,
    Refused,
}

/// A row of the policy's table. `None` is a column that does not matter.
struct Row {
    snooping: &'static [Snooping],
    host: Option<MapCache>,
    honored: Option<bool>,
    host_cpu: Option<bool>,
    outcome: Outcome,
}

const fn row(
    snooping: &'static [Snooping],
    host: Option<MapCache>,
    honored: Option<bool>,
    host_cpu: Option<bool>,
    outcome: Outcome,
) -> Row {
    Row {
        snooping,
        host,
        honored,
        host_cpu,
        outcome,
    }
}

/// The policy's table as its document has it, without its words.
#[rustfmt::skip]
const TABLE: [Row; 11] = {
    use MapCache::{Cached, Uncached};
    use Snooping::{No, NoDevice, Unknown, Yes};
    const WC: Option<MapCache> = Some(MapCache::Wc);
    [
        row(&[No, Unknown],   WC,             Some(true),  None,        Outcome::Wc),
        row(&[No, Unknown],   WC,             Some(false), None,        Outcome::Refused),
        row(&[No, Unknown],   Some(Cached),   None,        None,        Outcome::Refused),
        row(&[Yes],           WC,             Some(true),  None,        Outcome::Wc),
        row(&[Yes],           WC,             Some(false), Some(false), Outcome::Cached),
        row(&[Yes],           WC,             Some(false), Some(true),  Outcome::Refused),
        row(&[NoDevice],      WC,             Some(true),  None,        Outcome::Wc),
        row(&[NoDevice],      WC,             Some(false), None,        Outcome::Refused),
        row(&[Yes, NoDevice], Some(Cached),   None,        None,        Outcome::Cached),
        row(&SNOOPING,        Some(Uncached), None,        None,        Outcome::Refused),
        row(&SNOOPING,        None,           None,        None,        Outcome::Refused),
    ]
};

/// The table's result for an input, with what stands around the table: `--noncoherent=off`, and
/// what "honored" needs.
fn by_table(input: &Input) -> Outcome {
    let Traits {
        host,
        kinds,
        snooping,
        verified,
    } = input.traits;
    if input.policy.noncoherent == Noncoherent::Off
        && [Snooping::No, Snooping::Unknown].contains(&snooping)
    {
        return Outcome::Refused;
    }
    let pages = match kinds {
        PageKinds::Ram => vec![input.ram],
        PageKinds::Mmio => vec![input.mmio],
        PageKinds::Either => vec![input.ram, input.mmio],
        PageKinds::Unknown => vec![None],
    };
    let honored = pages.iter().all(|answer| *answer == Some(true))
        && (verified || input.policy.allow_unverified);
    let fits = |row: &&Row| {
        row.snooping.contains(&snooping)
            && row.host == host
            && row.honored.is_none_or(|value| value == honored)
            && row.host_cpu.is_none_or(|value| value == input.host_cpu)
    };
    let rows: Vec<_> = TABLE.iter().filter(fits).collect();
    assert_eq!(rows.len(), 1, "one row, and one only, for {input:?}");
    rows[0].outcome
}

fn outcome(plan: &Plan) -> Outcome {
    match told(plan) {
        None => Outcome::Refused,
        Some(MapCache::Wc) => Outcome::Wc,
        Some(MapCache::Cached) => Outcome::Cached,
        Some(MapCache::Uncached) => panic!("never told"),
    }
}

#[test]
fn every_input_follows_the_table() {
    let mut seen = [0_u32; 3];
    for input in every_input() {
        let planned = outcome(&input.plan());
        assert_eq!(planned, by_table(&input), "{input:?}");
        seen[planned as usize] += 1;
    }
    // Write-combining, counted by hand: two answers on snooping with three settings of
    // --noncoherent and two with two, 3 of 4 of verified and allowed, 7 answers of the VMM
    // (RAM 3, device memory 3, either 1), and 4 of what does not matter: 10 * 3 * 7 * 4.
    assert_eq!(seen, [840, 4194, 22_614]);
}

/// How much a result lets the guest do.
fn rank(plan: &Plan) -> u8 {
    match outcome(plan) {
        Outcome::Refused => 0,
        Outcome::Cached => 1,
        Outcome::Wc => 2,
    }
}

/// The same input with one fact less known, for each of its facts.
fn with_one_unknown(input: &Input) -> Vec<Input> {
    let Input { traits, .. } = *input;
    vec![
        Input {
            ram: None,
            ..*input
        },
        Input {
            mmio: None,
            ..*input
        },
        Input {
            traits: Traits {
                host: None,
                ..traits
            },
            ..*input
        },
        Input {
            traits: Traits {
                kinds: PageKinds::Unknown,
                ..traits
            },
            ..*input
        },
        Input {
            traits: Traits {
                snooping: Snooping::Unknown,
                ..traits
            },
            ..*input
        },
        Input {
            traits: Traits {
                verified: false,
                ..traits
            },
            ..*input
        },
    ]
}

#[test]
fn knowing_less_never_gives_more_and_never_write_combining() {
    for input in every_input() {
        let known = input.plan();
        for less in with_one_unknown(&input) {
            let unknown = less.plan();
            if told(&unknown) == Some(MapCache::Wc) {
                assert_eq!(told(&known), Some(MapCache::Wc), "{input:?} to {less:?}");
            }
            assert!(rank(&unknown) <= rank(&known), "{input:?} to {less:?}");
        }
    }
}

#[test]
fn a_host_cpu_never_gives_more() {
    for input in every_input().iter().filter(|input| !input.host_cpu) {
        let with = Input {
            host_cpu: true,
            ..*input
        };
        assert!(rank(&with.plan()) <= rank(&input.plan()), "{input:?}");
    }
}

#[test]
fn bits_are_sent_to_those_only_who_know_them() {
    for input in every_input() {
        let Plan::Map(plan) = input.plan() else {
            continue;
        };
        let noncoherent = [Snooping::No, Snooping::Unknown].contains(&input.traits.snooping);
        let expected = match (input.speaks, plan.guest()) {
            (false, _) => MemslotRequest::Unspecified,
            (true, MapCache::Cached) => MemslotRequest::Cached,
            (true, MapCache::Wc) => MemslotRequest::Wc { noncoherent },
            (true, MapCache::Uncached) => panic!("never told"),
        };
        assert_eq!(plan.memslot(), expected, "{input:?}");
        assert!(
            !(noncoherent && plan.guest() == MapCache::Cached),
            "{input:?}"
        );
    }
}

#[test]
fn ram_that_is_not_cached_is_flushed_and_nothing_else_is() {
    for input in every_input() {
        let Plan::Map(plan) = input.plan() else {
            continue;
        };
        let owed = plan.host() == MapCache::Wc && input.traits.kinds == PageKinds::Ram;
        assert_eq!(plan.flush(), owed, "{input:?}");
        assert_eq!(Some(plan.host()), input.traits.host);
    }
}

#[test]
fn only_write_combining_memory_can_be_had_coherent_instead() {
    for input in every_input() {
        let Plan::Refuse(refusal) = input.plan() else {
            continue;
        };
        let expected = input.policy.noncoherent == Noncoherent::Coerce
            && input.traits.host == Some(MapCache::Wc);
        assert_eq!(refusal.coercible(), expected, "{input:?}");
        // What an allocator then makes is mapped, whatever the VMM and the policy.
        for snooping in [Snooping::Yes, Snooping::NoDevice] {
            let coherent = Input {
                traits: Traits {
                    host: Some(MapCache::Cached),
                    snooping,
                    ..input.traits
                },
                ..input
            };
            assert_eq!(told(&coherent.plan()), Some(MapCache::Cached));
        }
    }
}

#[test]
fn every_refusal_names_a_link_and_what_to_change() {
    for input in every_input() {
        let Plan::Refuse(refusal) = input.plan() else {
            continue;
        };
        let summary = refusal.summary();
        let links = ["devices: ", "host mapping: ", "memslot: "];
        assert!(
            links.iter().any(|link| summary.starts_with(link)),
            "{summary}"
        );
        assert!(summary.contains("; "), "{summary}");
        assert_eq!(refusal.to_string(), summary);
        for line in refusal.why() {
            assert!(!line.contains('\n') && !line.contains("  "), "{line}");
        }
    }
}

fn every_platform() -> Vec<PlatformFacts> {
    let mut all = Vec::new();
    let vendors = [
        Some(Vendor::Intel),
        Some(Vendor::Amd),
        Some(Vendor::Other),
        None,
    ];
    for arch in [Arch::X86, Arch::Arm64, Arch::Other] {
        for vendor in vendors {
            for hypervisor in ANSWERS {
                for self_snoop in ANSWERS {
                    for (fwb, nested) in ANSWERS.iter().flat_map(|a| ANSWERS.map(|b| (*a, b))) {
                        all.extend(ANSWERS.map(|quirk| PlatformFacts {
                            arch,
                            vendor: fact(vendor),
                            hypervisor: fact(hypervisor),
                            self_snoop: fact(self_snoop),
                            fwb: fact(fwb),
                            ept_or_npt: fact(nested),
                            pat_quirk: fact(quirk),
                        }));
                    }
                }
            }
        }
    }
    all
}

#[test]
fn knowing_less_of_the_host_never_makes_a_vmm_honor_more() {
    for platform in every_platform() {
        let mut less = [(); 6].map(|()| platform.clone());
        less[0].vendor = fact(None);
        less[1].hypervisor = fact(None);
        less[2].self_snoop = fact(None);
        less[3].fwb = fact(None);
        less[4].ept_or_npt = fact(None);
        less[5].pat_quirk = fact(None);
        for option in VMM_MEMTYPES {
            for acked in [false, true] {
                let known = VmmFacts::new(&platform, option, acked);
                for less in &less {
                    let unknown = VmmFacts::new(less, option, acked);
                    for kind in PageKind::ALL {
                        let grew = unknown.honors(kind).is_yes() && !known.honors(kind).is_yes();
                        assert!(!grew, "{platform:?} to {less:?}, {option:?}, {kind}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_operators_word_and_the_vmms_go_for_both_kinds_on_every_host() {
    for platform in every_platform() {
        for (option, acked, expected) in [
            (VmmMemtype::Honored, false, true),
            (VmmMemtype::Honored, true, true),
            (VmmMemtype::Auto, true, true),
            (VmmMemtype::Ignored, false, false),
            // They contradict each other: the cautious one wins.
            (VmmMemtype::Ignored, true, false),
        ] {
            let vmm = VmmFacts::new(&platform, option, acked);
            for kind in PageKind::ALL {
                assert_eq!(
                    vmm.honors(kind).value(),
                    Some(&expected),
                    "{option:?} {acked}"
                );
            }
            assert_eq!(vmm.speaks_memtype(), acked);
        }
    }
}

#[test]
fn nothing_follows_from_a_host_that_may_be_a_guest() {
    for platform in every_platform() {
        let vmm = VmmFacts::new(&platform, VmmMemtype::Auto, false);
        for Honors { answer, .. } in [&vmm.ram, &vmm.mmio] {
            if !platform.hypervisor.is_no() {
                assert_eq!(answer.value(), None, "{platform:?}");
            }
        }
        assert!(!vmm.speaks_memtype());
    }
}

#[test]
fn qemus_option_is_named_only_where_kvm_offers_what_it_needs() {
    let mut named = 0;
    for platform in every_platform() {
        let vmm = VmmFacts::new(&platform, VmmMemtype::Auto, false);
        for kind in PageKind::ALL {
            if vmm
                .advice(kind)
                .is_some_and(|advice| advice.contains("honor-guest-pat"))
            {
                assert!(platform.pat_quirk.is_yes(), "{platform:?}");
                assert!(!platform.self_snoop.is_no(), "{platform:?}");
                named += 1;
            }
        }
    }
    // Intel on bare metal with EPT and the quirk: self-snoop may be unknown, and FWB is no matter.
    assert_eq!(named, 2 * 3);
}
