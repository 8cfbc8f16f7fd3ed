//! What the allocators would give on a host, before anything is allocated: the table of the
//! drivers, applied to its GPUs.

use nosnoop_protocol::MapCache;
use serde::Serialize;

use super::facts::{Attachment, Facts, Gpu};
use super::kind::{PageKinds, Snooping, Traits};

/// A kind of memory that an allocator can make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Offer {
    /// The allocator: a driver, or `udmabuf` or `memfd`.
    pub allocator: String,
    /// The DRM node that it allocates on, such as `renderD128`.
    pub node: Option<String>,
    /// What is known of such memory.
    pub traits: Traits,
}

/// Everything that the allocators of this program make on a host when they are asked for
/// noncoherent memory, GPUs first.
#[must_use]
pub fn offers(facts: &Facts) -> Vec<Offer> {
    let gpus = facts.gpus.value().into_iter().flatten();
    let of_gpus = gpus.filter_map(|gpu| {
        Some(Offer {
            allocator: gpu.driver.value()?.clone(),
            node: Some(gpu.node.clone()),
            traits: with_proof(expected_traits(gpu)?, facts),
        })
    });
    let of_cpus = [facts.udmabuf.is_yes().then_some("udmabuf"), Some("memfd")];
    of_gpus
        .chain(of_cpus.into_iter().flatten().map(|allocator| Offer {
            allocator: allocator.to_owned(),
            node: None,
            traits: CPUS_ONLY,
        }))
        .collect()
}

/// What the driver of this GPU gives to whoever asks for noncoherent memory, as far as that is
/// known without opening the device. `None`: this program has no allocator for it.
#[must_use]
pub fn expected_traits(gpu: &Gpu) -> Option<Traits> {
    let integrated = gpu.attachment.value() == Some(&Attachment::Integrated);
    let unverified = |host, kinds, snooping| {
        Some(Traits {
            host: Some(host),
            kinds,
            snooping,
            verified: false,
        })
    };
    match (gpu.driver.value()?.as_str(), integrated) {
        // The driver programs the GPU as the buffer says.
        ("i915", true) => unverified(MapCache::Wc, PageKinds::Ram, Snooping::No),
        // With memory of its own: the buffer may move between that and the system's.
        ("i915", false) => unverified(MapCache::Wc, PageKinds::Either, Snooping::No),
        // Whoever binds the buffer chooses whether its accesses are snooped.
        ("xe", true) => unverified(MapCache::Wc, PageKinds::Ram, Snooping::Unknown),
        // The kernel maps a card's system memory cached, and the card snoops it.
        ("xe", false) => unverified(MapCache::Cached, PageKinds::Ram, Snooping::Yes),
        // By the GPU's generation, which only the opened device tells.
        ("amdgpu", _) => unverified(MapCache::Wc, PageKinds::Ram, Snooping::Unknown),
        ("vgem", _) => Some(Traits {
            host: Some(MapCache::Wc),
            ..CPUS_ONLY
        }),
        _ => None,
    }
}

/// The same traits, but snooped if the host proves that: every GPU there is snoops all its
/// accesses, however it is programmed.
#[must_use]
pub fn with_proof(traits: Traits, facts: &Facts) -> Traits {
    let gpus = facts.gpus.value();
    // Where no GPU is seen one may still be there: a renderer's memory comes from somewhere.
    let proved = gpus
        .is_some_and(|gpus| !gpus.is_empty() && gpus.iter().all(|gpu| gpu.always_snoops.is_yes()));
    let snooping = match traits.snooping {
        Snooping::No | Snooping::Unknown if proved => Snooping::Yes,
        as_it_is => as_it_is,
    };
    Traits { snooping, ..traits }
}

/// Memory that no device accesses: udmabuf and memfd.
const CPUS_ONLY: Traits = Traits {
    host: Some(MapCache::Cached),
    kinds: PageKinds::Ram,
    snooping: Snooping::NoDevice,
    verified: true,
};

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::memory::fact::Fact;
    use crate::memory::facts::{Host, RecordedCalls};

    fn facts(host: &str) -> Facts {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fixtures/hosts")
            .join(host);
        let calls = fs::read_to_string(folder.join("calls.json")).unwrap();
        let root = Host::at(&folder.join("root")).unwrap();
        Facts::probe(&root, &RecordedCalls::parse(&calls).unwrap())
    }

    /// Mapping, kinds and snooping of what a GPU of this driver gives.
    fn row(driver: &str, attachment: Attachment) -> Option<(MapCache, PageKinds, Snooping)> {
        let mut gpu = facts("amd").gpus.value().unwrap()[0].clone();
        gpu.driver = Fact::known(driver.to_owned(), "");
        gpu.attachment = Fact::known(attachment, "");
        expected_traits(&gpu).map(|t| (t.host.unwrap(), t.kinds, t.snooping))
    }

    #[test]
    fn each_driver_gives_what_its_row_says() {
        use Attachment::{Endpoint, Integrated};
        use MapCache::{Cached, Wc};
        use PageKinds::{Either, Ram};
        use Snooping::{No, NoDevice, Unknown, Yes};
        for (driver, attachment, expected) in [
            ("i915", Integrated, Some((Wc, Ram, No))),
            ("i915", Endpoint, Some((Wc, Either, No))),
            ("xe", Integrated, Some((Wc, Ram, Unknown))),
            ("xe", Endpoint, Some((Cached, Ram, Yes))),
            ("amdgpu", Endpoint, Some((Wc, Ram, Unknown))),
            ("amdgpu", Integrated, Some((Wc, Ram, Unknown))),
            ("vgem", Integrated, Some((Wc, Ram, NoDevice))),
            ("msm", Integrated, None),
        ] {
            assert_eq!(row(driver, attachment), expected, "{driver} {attachment:?}");
        }
    }

    #[test]
    fn memfd_gives_what_is_expected_of_it() {
        let memory = crate::memory::alloc::memfd::allocate(4096).unwrap();
        assert_eq!(memory.traits(), CPUS_ONLY);
    }

    #[test]
    fn only_vgem_and_plain_memory_are_verified() {
        for (host, expected) in [
            (
                "intel-no-llc",
                vec![("i915", false), ("udmabuf", true), ("memfd", true)],
            ),
            (
                "nested-guest",
                vec![("vgem", true), ("udmabuf", true), ("memfd", true)],
            ),
            ("this-machine", vec![("memfd", true)]),
        ] {
            let offers = offers(&facts(host));
            let found: Vec<_> = offers
                .iter()
                .map(|o| (o.allocator.as_str(), o.traits.verified))
                .collect();
            assert_eq!(found, expected, "{host}");
        }
    }

    /// Another GPU may import the memory, and that one's accesses are not proved to be snooped.
    #[test]
    fn snooping_is_proved_only_if_every_gpu_snoops() {
        let mut facts = facts("intel-llc");
        assert_eq!(offers(&facts)[0].traits.snooping, Snooping::Yes);
        let mut gpus = facts.gpus.value().unwrap().clone();
        let mut second = gpus[0].clone();
        second.always_snoops = Fact::unknown("");
        gpus.push(second);
        facts.gpus = Fact::known(gpus, "");
        assert_eq!(offers(&facts)[0].traits.snooping, Snooping::No);
        facts.gpus = Fact::known(Vec::new(), "");
        let unknown = Traits {
            snooping: Snooping::Unknown,
            ..CPUS_ONLY
        };
        assert_eq!(with_proof(unknown, &facts), unknown);
        facts.gpus = Fact::unknown("");
        let traits = Traits {
            snooping: Snooping::Unknown,
            ..CPUS_ONLY
        };
        assert_eq!(with_proof(traits, &facts), traits);
    }
}
