//! The policy's tests: each row of its table, each host, and every input there is.

use super::*;
use crate::memory::fact::Fact;

mod every_input;
mod hosts;
mod rows;

const SNOOPING: [Snooping; 4] = [
    Snooping::Yes,
    Snooping::No,
    Snooping::Unknown,
    Snooping::NoDevice,
];

const HOSTS: [Option<MapCache>; 4] = [
    Some(MapCache::Cached),
    Some(MapCache::Uncached),
    Some(MapCache::Wc),
    None,
];

const KINDS: [PageKinds; 4] = [
    PageKinds::Ram,
    PageKinds::Mmio,
    PageKinds::Either,
    PageKinds::Unknown,
];

const ANSWERS: [Option<bool>; 3] = [Some(true), Some(false), None];

const VMM_MEMTYPES: [VmmMemtype; 3] = [VmmMemtype::Auto, VmmMemtype::Honored, VmmMemtype::Ignored];

fn fact<T>(value: Option<T>) -> Fact<T> {
    match value {
        Some(value) => Fact::known(value, "test"),
        None => Fact::unknown("test"),
    }
}

/// A VMM with these answers for RAM and for device memory.
fn vmm(ram: Option<bool>, mmio: Option<bool>, speaks_memtype: bool) -> VmmFacts {
    let honors = |answer| vmm::Honors {
        answer: fact(answer),
        advice: Some("change the test"),
    };
    VmmFacts {
        ram: honors(ram),
        mmio: honors(mmio),
        speaks_memtype,
    }
}

fn traits(snooping: Snooping, host: Option<MapCache>, kinds: PageKinds) -> Traits {
    Traits {
        host,
        kinds,
        snooping,
        verified: true,
    }
}

fn every_traits() -> Vec<Traits> {
    let mut all = Vec::new();
    for snooping in SNOOPING {
        for host in HOSTS {
            for kinds in KINDS {
                for verified in [true, false] {
                    all.push(Traits {
                        verified,
                        ..traits(snooping, host, kinds)
                    });
                }
            }
        }
    }
    all
}

fn every_policy() -> Vec<Policy> {
    let mut all = Vec::new();
    for noncoherent in [Noncoherent::Auto, Noncoherent::Coerce, Noncoherent::Off] {
        for allow_unverified in [false, true] {
            all.push(Policy {
                noncoherent,
                allow_unverified,
            });
        }
    }
    all
}

/// What a guest is told; `None` if the blob is refused.
fn told(plan: &Plan) -> Option<MapCache> {
    match plan {
        Plan::Map(plan) => Some(plan.guest()),
        Plan::Refuse(_) => None,
    }
}
