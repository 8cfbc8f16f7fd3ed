//! The chain of facts in words.

use nosnoop_protocol::MapCache;

use super::vmm::VmmFacts;
use super::{Failure, Noncoherent, Policy, Way};
use crate::memory::kind::{PageKind, PageKinds, Snooping, Traits};

/// The lines of a plan that maps.
pub(super) fn mapped(
    way: Way,
    flush: bool,
    traits: &Traits,
    vmm: &VmmFacts,
    policy: Policy,
) -> Vec<String> {
    let summary = match way {
        Way::Cached => "cached, as the host maps it, and no access goes past the caches",
        Way::CachedBesideWc => {
            "cached: every device snoops, and no CPU uses the host's write-combining mapping"
        }
        Way::Wc => "write-combining from the host to the guest",
    };
    let mut why = vec![summary.to_owned()];
    why.extend(chain(traits, vmm, policy));
    let (_, guest) = way.caches();
    why.push(format!("guest: told {}", name(guest)));
    why.push(format!("flush: {}", flushed(way, flush)));
    why
}

/// The lines of a refusal.
pub(super) fn refused(
    failures: &[Failure],
    traits: &Traits,
    vmm: &VmmFacts,
    policy: Policy,
) -> Vec<String> {
    let mut why: Vec<_> = failures
        .iter()
        .map(|failure| sentence(*failure, vmm, policy))
        .collect();
    why.extend(chain(traits, vmm, policy));
    why
}

fn name(cache: MapCache) -> &'static str {
    match cache {
        MapCache::Cached => "cached",
        MapCache::Uncached => "uncached",
        MapCache::Wc => "write-combining",
    }
}

/// What is known of each link before the guest.
fn chain(traits: &Traits, vmm: &VmmFacts, policy: Policy) -> Vec<String> {
    let devices = match traits.snooping {
        Snooping::Yes => "they snoop, whichever imports it",
        Snooping::No => "at least one does not snoop",
        Snooping::Unknown => "not known to snoop, so treated as if they did not",
        Snooping::NoDevice => "none, CPUs only",
    };
    let verified = match (traits.verified, policy.allow_unverified) {
        (true, true | false) => "verified",
        (false, true) => "never verified on hardware, believed by --allow-unverified",
        (false, false) => "never verified on hardware",
    };
    let host = traits.host.map_or("not known", name);
    let mut lines = vec![
        format!("devices: {devices}"),
        format!("host mapping: {host}, as its allocator recorded, {verified}"),
    ];
    match traits.host {
        Some(MapCache::Cached) => lines.push("memslot: any will do for cached memory".to_owned()),
        Some(MapCache::Uncached | MapCache::Wc) | None => match traits.kinds {
            PageKinds::Unknown => lines.push("memslot: kinds of page not known".to_owned()),
            known @ (PageKinds::Ram | PageKinds::Mmio | PageKinds::Either) => {
                lines.extend(known.kinds().iter().map(|kind| memslot(*kind, vmm)));
            }
        },
    }
    lines
}

fn memslot(kind: PageKind, vmm: &VmmFacts) -> String {
    let honored = vmm.honors(kind);
    format!("memslot: the guest's type takes effect for {kind}: {honored}")
}

fn flushed(way: Way, flush: bool) -> &'static str {
    match (way, flush) {
        (Way::Cached | Way::CachedBesideWc | Way::Wc, true) => {
            "before the first use and after the last"
        }
        (Way::Cached, false) => "not needed",
        (Way::CachedBesideWc | Way::Wc, false) => {
            "never, as pages may be device memory; left to the kernel"
        }
    }
}

/// The link that failed, how, and what to change.
fn sentence(failure: Failure, vmm: &VmmFacts, policy: Policy) -> String {
    match failure {
        Failure::HostUnknown => "host mapping: its memory type is not known; use a driver or \
             renderer that says it"
            .to_owned(),
        Failure::HostUncached => "host mapping: uncached, which is not supported; use cached or \
             write-combining memory"
            .to_owned(),
        Failure::CachedNotSnooped => "devices: not all are known to snoop, and the host maps it \
             cached; use write-combining memory or devices that snoop"
            .to_owned(),
        Failure::Off => "host mapping: write-combining, which --noncoherent=off takes only where \
             every device is known to snoop; use --noncoherent=auto"
            .to_owned(),
        Failure::Unverified => with_way_out(
            "host mapping: this way to allocate was never verified on hardware; \
             --allow-unverified believes it",
            policy,
        ),
        Failure::KindsUnknown => with_way_out(
            "memslot: whether pages are RAM or device memory is not known, so no guest's memory \
             type can be relied on; use a driver or renderer that says it",
            policy,
        ),
        Failure::NotHonored(kind) => {
            let honored = vmm.honors(kind);
            let how = match honored.value() {
                Some(_) => "takes no effect",
                None => "is not known to take effect",
            };
            let why = honored.source();
            let mut said = format!("memslot: the guest's memory type {how} for {kind} ({why})");
            if let Some(advice) = vmm.advice(kind) {
                said.push_str("; ");
                said.push_str(advice);
            }
            with_way_out(&said, policy)
        }
        Failure::HostCpu => "host mapping: a CPU of the host uses it, so the guest's cannot be \
             cached instead"
            .to_owned(),
        Failure::CpusOnly => "devices: only CPUs use it, so the guest's mapping cannot be of \
             another type than the host's"
            .to_owned(),
    }
}

/// This program's own allocators have another way out; said where the operator has not taken it.
fn with_way_out(sentence: &str, policy: Policy) -> String {
    match policy.noncoherent {
        Noncoherent::Auto => {
            format!("{sentence}; or --noncoherent=coerce, for memory that this program allocates")
        }
        Noncoherent::Coerce | Noncoherent::Off => sentence.to_owned(),
    }
}
