//! Each allocator on each device that it knows: what it says, and that it is so.

use std::sync::Arc;

use nosnoop_protocol::MapCache;
use nosnoop_protocol::ids::BlobId;
use nosnoop_protocol::memtype::MemslotRequest;
use rustix::io::Errno;

use super::Bench;
use super::fake::{Amdgpu, I915, Model, Truth, Xe, assert_honest};
use crate::memory::alloc::drm_node::Node;
use crate::memory::alloc::{Allocator, Handout, MAX_LEN, Want};
use crate::memory::flush::CacheFlusher;
use crate::memory::kind::{PageKinds, Snooping, Traits};
use crate::memory::plan::{Noncoherent, Plan, Policy, VmmMemtype};
use crate::memory::source::{Choice, Place, PlainMemory, Source};

const NODE: Handout = Handout::Node;
const DMA_BUF: Handout = Handout::DmaBuf;

fn traits(host: MapCache, kinds: PageKinds, snooping: Snooping, verified: bool) -> Traits {
    Traits {
        host: Some(host),
        kinds,
        snooping,
        verified,
    }
}

/// Allocates, checks that the memory is there and what is said of it, and what that is.
#[track_caller]
fn check(model: Model, handout: Handout, want: Want, expected: Traits) -> (Bench, Truth) {
    let bench = Bench::new(model, handout);
    let memory = bench.allocator().allocate(5000, want).unwrap();
    assert_eq!(memory.len(), 8192);
    assert_eq!(memory.traits(), expected);
    let truth = bench.device.truth(&bench.node, &memory).unwrap();
    assert_honest(memory.traits(), truth);

    let is_node = Arc::ptr_eq(&memory.fd(), &bench.node.fd());
    assert_eq!(is_node, handout == NODE);
    // The node's place lasts as long as the memory, a dma-buf without a handle.
    assert_eq!(bench.device.open_handles(), usize::from(handout == NODE));
    let second = memory.clone();
    drop(memory);
    assert_eq!(bench.device.open_handles(), usize::from(handout == NODE));
    assert!(bench.device.truth(&bench.node, &second).is_ok());
    drop(second);
    assert_eq!(bench.device.open_handles(), 0);
    assert_eq!(bench.device.leaks(), (0, 0));
    (bench, truth)
}

#[test]
fn integrated_i915_follows_the_caching_it_is_told() {
    for model in [I915::tiger_lake(), I915::broxton()] {
        let coherent = traits(MapCache::Cached, PageKinds::Ram, Snooping::Yes, false);
        check(Model::I915(model.clone()), NODE, Want::Coherent, coherent);
        let noncoherent = traits(MapCache::Wc, PageKinds::Ram, Snooping::No, false);
        let (bench, _) = check(Model::I915(model), NODE, Want::Noncoherent, noncoherent);
        let commands = bench.device.commands();
        assert!(commands.contains(&"DRM_IOCTL_I915_GEM_SET_CACHING"));
        assert!(!commands.contains(&"DRM_IOCTL_I915_GEM_CREATE_EXT"));
    }
}

#[test]
fn later_integrated_i915_gets_a_pat_index() {
    let model = || Model::I915(I915::meteor_lake());
    let coherent = traits(MapCache::Cached, PageKinds::Ram, Snooping::Yes, false);
    check(model(), NODE, Want::Coherent, coherent);
    let noncoherent = traits(MapCache::Wc, PageKinds::Ram, Snooping::No, false);
    let (bench, _) = check(model(), NODE, Want::Noncoherent, noncoherent);
    let commands = bench.device.commands();
    assert!(!commands.contains(&"DRM_IOCTL_I915_GEM_SET_CACHING"));

    // Uncached, not merely incoherent; and coherent one way, as the kernel's own buffers are.
    for (want, index) in [(Want::Noncoherent, 2), (Want::Coherent, 3)] {
        let bench = Bench::new(model(), NODE);
        let _memory = bench.allocator().allocate(4096, want).unwrap();
        assert_eq!(bench.device.pat_index(), Some(index));
    }
}

#[test]
fn i915_with_own_memory_decides_by_place() {
    let model = || Model::I915(I915::dg2());
    let coherent = traits(MapCache::Cached, PageKinds::Ram, Snooping::Yes, false);
    check(model(), NODE, Want::Coherent, coherent);
    let noncoherent = traits(MapCache::Wc, PageKinds::Either, Snooping::No, false);
    check(model(), NODE, Want::Noncoherent, noncoherent);
}

#[test]
fn an_older_kernel_that_knows_no_regions_has_none() {
    let model = I915 {
        knows_regions: false,
        knows_set_pat: false,
        ..I915::broxton()
    };
    let noncoherent = traits(MapCache::Wc, PageKinds::Ram, Snooping::No, false);
    check(Model::I915(model), NODE, Want::Noncoherent, noncoherent);
}

#[test]
fn integrated_xe_leaves_snooping_to_whoever_binds() {
    let odd = Xe {
        system: 3,
        page: 0x1_0000,
        ..Xe::lunar_lake()
    };
    for model in [Xe::lunar_lake(), odd] {
        for handout in [NODE, DMA_BUF] {
            let coherent = traits(MapCache::Cached, PageKinds::Ram, Snooping::Yes, false);
            check(Model::Xe(model.clone()), handout, Want::Coherent, coherent);
            let noncoherent = traits(MapCache::Wc, PageKinds::Ram, Snooping::Unknown, false);
            check(
                Model::Xe(model.clone()),
                handout,
                Want::Noncoherent,
                noncoherent,
            );
        }
    }
}

#[test]
fn discrete_xe_has_cached_system_memory_only() {
    for want in [Want::Coherent, Want::Noncoherent] {
        let cached = traits(MapCache::Cached, PageKinds::Ram, Snooping::Yes, false);
        check(Model::Xe(Xe::battlemage()), NODE, want, cached);
    }
}

#[test]
fn amdgpu_says_what_it_made() {
    let cached = traits(MapCache::Cached, PageKinds::Ram, Snooping::Yes, false);
    for model in [Amdgpu::navi(), Amdgpu::vega()] {
        for handout in [NODE, DMA_BUF] {
            check(
                Model::Amdgpu(model.clone()),
                handout,
                Want::Coherent,
                cached,
            );
        }
        // Dropped without a word: read back, and not claimed.
        let poor = Amdgpu {
            host_can_combine: false,
            ..model
        };
        check(Model::Amdgpu(poor), NODE, Want::Noncoherent, cached);
    }
}

#[test]
fn amdgpu_snoops_by_generation_and_kernel() {
    let combined = |snooping| traits(MapCache::Wc, PageKinds::Ram, snooping, false);
    let model = |family, version, snoops_all| {
        Model::Amdgpu(Amdgpu {
            family,
            version,
            snoops_all,
            ..Amdgpu::navi()
        })
    };
    for family in [
        110, 120, 125, 130, 135, 143, 144, 145, 146, 148, 149, 150, 151, 154,
    ] {
        let no = combined(Snooping::No);
        check(model(family, (3, 64), false), NODE, Want::Noncoherent, no);
    }
    for family in [141, 142] {
        let yes = combined(Snooping::Yes);
        check(model(family, (3, 61), true), NODE, Want::Noncoherent, yes);
        check(model(family, (4, 0), true), NODE, Want::Noncoherent, yes);
        let older = combined(Snooping::Unknown);
        check(
            model(family, (3, 49), false),
            NODE,
            Want::Noncoherent,
            older,
        );
        check(
            model(family, (2, 70), false),
            NODE,
            Want::Noncoherent,
            older,
        );
    }
    // One family, two ways.
    for snoops_all in [false, true] {
        let no = combined(Snooping::No);
        check(model(152, (3, 64), snoops_all), NODE, Want::Noncoherent, no);
    }
    for family in [0, 111, 140, 147, 153, 155, u32::MAX] {
        let unknown = combined(Snooping::Unknown);
        check(
            model(family, (3, 64), false),
            NODE,
            Want::Noncoherent,
            unknown,
        );
    }
}

#[test]
fn vgem_is_write_combining_without_a_device() {
    let combined = traits(MapCache::Wc, PageKinds::Ram, Snooping::NoDevice, true);
    for handout in [NODE, DMA_BUF] {
        for want in [Want::Coherent, Want::Noncoherent] {
            check(Model::Vgem { render: false }, handout, want, combined);
        }
    }
}

#[test]
fn udmabuf_is_cached_and_for_cpus() {
    let cached = traits(MapCache::Cached, PageKinds::Ram, Snooping::NoDevice, true);
    let model = Model::Udmabuf { limit: 64 << 20 };
    check(model, DMA_BUF, Want::Noncoherent, cached);
}

/// Whatever the operator allows and the VMM says: nobody is told that it could be anything else, and
/// a device that does not snoop would be refused.
#[test]
fn images_in_udmabufs_are_cached_and_read_by_mapping_them() {
    for noncoherent in [Noncoherent::Auto, Noncoherent::Coerce, Noncoherent::Off] {
        for vmm in [VmmMemtype::Auto, VmmMemtype::Honored, VmmMemtype::Ignored] {
            for acked in [false, true] {
                let choice = Choice {
                    place: Place::Plain(PlainMemory::Udmabuf),
                    vmm,
                    policy: Policy {
                        noncoherent,
                        allow_unverified: true,
                    },
                };
                let limit = 64 << 20;
                let allocator = Bench::new(Model::Udmabuf { limit }, DMA_BUF)
                    .allocator
                    .unwrap();
                let source =
                    Source::of(allocator, choice, Arc::new(CacheFlusher::default())).unwrap();
                assert_eq!(source.map_info(BlobId(1), acked), MapCache::Cached);
                let image = source.image(BlobId(1), 8192, acked).unwrap();
                let Plan::Map(plan) = image.plan() else {
                    panic!("{:?}", image.plan())
                };
                let (host, guest) = (plan.host(), plan.guest());
                assert_eq!(
                    (host, guest, plan.flush()),
                    (MapCache::Cached, MapCache::Cached, false)
                );
                let asked = match acked {
                    true => MemslotRequest::Cached,
                    false => MemslotRequest::Unspecified,
                };
                assert_eq!(plan.memslot(), asked);
                // A file of this kind is read by mapping it.
                rustix::io::pwrite(image.memory().fd(), b"drawn", 8000).unwrap();
                let mut bytes = [0; 5];
                image.read(8000, &mut bytes).unwrap();
                assert_eq!(&bytes, b"drawn");
                let too_large = source.image(BlobId(2), limit + 4096, acked).unwrap_err();
                assert!(
                    too_large.to_string().contains("size_limit_mb"),
                    "{too_large}"
                );
            }
        }
    }
}

#[test]
fn memfd_is_cached_and_for_cpus() {
    let cached = traits(MapCache::Cached, PageKinds::Ram, Snooping::NoDevice, true);
    for want in [Want::Coherent, Want::Noncoherent] {
        let memory = Allocator::memfd().allocate(5000, want).unwrap();
        assert_eq!((memory.len(), memory.traits()), (8192, cached));
        memory.write(8191, &[1]).unwrap();
    }
}

#[test]
fn lengths_are_bounded_and_rounded_to_pages() {
    let models = [
        Model::I915(I915::tiger_lake()),
        Model::I915(I915::meteor_lake()),
        Model::I915(I915::dg2()),
        Model::Xe(Xe::lunar_lake()),
        Model::Amdgpu(Amdgpu::navi()),
        Model::Vgem { render: false },
        Model::Udmabuf { limit: 64 << 20 },
    ];
    for model in models {
        let handout = match model {
            Model::Udmabuf { .. } => DMA_BUF,
            _ => NODE,
        };
        let bench = Bench::new(model, handout);
        let allocator = bench.allocator();
        let before = bench.device.commands().len();
        for len in [0, MAX_LEN + 1, 1 << 63, u64::MAX - 4095, u64::MAX] {
            let refused = allocator.allocate(len, Want::Noncoherent).unwrap_err();
            let text = refused.to_string();
            assert!(
                text.starts_with(&format!("{len} bytes cannot be")),
                "{text}"
            );
        }
        assert_eq!(bench.device.commands().len(), before, "nothing was asked");
        for (len, pages) in [(1, 1), (4096, 1), (4097, 2), (1 << 20, 256)] {
            let memory = allocator.allocate(len, Want::Noncoherent).unwrap();
            assert_eq!(memory.len(), pages * 4096);
            assert!(bench.device.truth(&bench.node, &memory).is_ok());
        }
        // Too much for some of them: an error or memory, and nothing is left over.
        for len in [u64::from(u32::MAX), 1 << 32, 1 << 37, MAX_LEN] {
            drop(allocator.allocate(len, Want::Noncoherent));
        }
        assert_eq!(bench.device.open_handles(), 0, "{}", allocator.name());
        assert_eq!(bench.device.leaks(), (0, 0), "{}", allocator.name());
    }
}

#[test]
fn an_offset_is_for_one_open_file_description() {
    let model = Model::Vgem { render: false };
    let bench = Bench::new(model, NODE);
    let memory = bench.allocator().allocate(8192, Want::Noncoherent).unwrap();
    let other = bench.device.open();
    let mmap = |node, offset, len| bench.device.mmap(node, offset, len);
    let offset = memory.offset();
    assert!(mmap(&bench.node, offset, 8192).is_ok());
    assert_eq!(mmap(&other, offset, 8192), Err(Errno::ACCESS));
    assert_eq!(mmap(&bench.node, offset + 4096, 4096), Err(Errno::INVAL));
    assert_eq!(mmap(&bench.node, 0, 4096), Err(Errno::INVAL));
    assert_eq!(mmap(&bench.node, offset, 12_288), Err(Errno::INVAL));
}

#[test]
fn a_devices_memory_is_not_read_through_its_node() {
    // It would wait for the device's events.
    let bench = Bench::new(Model::Vgem { render: false }, NODE);
    let memory = bench.allocator().allocate(4096, Want::Noncoherent).unwrap();
    let refused = memory.read(0, &mut [0; 4]).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::Unsupported);
}

#[test]
fn devices_are_described() {
    for (model, expected) in [
        (
            Model::I915(I915::tiger_lake()),
            "device 0x9a49, no memory of its own, SET_CACHING, last-level cache shared with the CPUs",
        ),
        (
            Model::I915(I915::dg2()),
            "device 0x56a0, memory of its own, no last-level cache shared with the CPUs",
        ),
        (
            Model::I915(I915::meteor_lake()),
            "device 0x7d55, no memory of its own, SET_PAT, no last-level cache shared with the CPUs",
        ),
        (
            Model::Xe(Xe {
                graphics: (12, 71),
                ..Xe::lunar_lake()
            }),
            "graphics 12.71, integrated; PAT indices that do not snoop: [0, 1, 2]",
        ),
        (
            Model::Xe(Xe {
                graphics: (0, 0),
                ..Xe::battlemage()
            }),
            "graphics 0.00, discrete: system memory is always cached and snooped; \
             its PAT indices are not known here",
        ),
        (
            Model::Amdgpu(Amdgpu::vega()),
            "device 0x73bf of family 141, driver 3.64",
        ),
    ] {
        assert_eq!(Bench::new(model, NODE).allocator().describe(), expected);
    }
}

/// Typed in from the tables of drivers/gpu/drm/xe/xe_pat.c as strings of one letter an entry: n does not
/// snoop, c is coherent one or two ways, a dot is reserved.
#[test]
fn pat_indices_that_do_not_snoop_are_those_of_the_kernels_tables() {
    for (version, table) in [
        ((12, 70), "nnncc"),
        ((12, 74), "nnncc"),
        ((20, 1), "nccnccncnnnnnnnn....nnccnncc"),
        ((20, 4), "nccnccncnnnnnnnn....nnccnnccnncc"),
        ((30, 0), "nccnccncnnnnnnnnc...nnccnnccnncc"),
        ((30, 5), "nccnccncnnnnnnnnc...nnccnnccnncc"),
        ((35, 10), "nccnccncnnnnnnnnc.ncnnccnnccnncc"),
        ((35, 11), "nccncnccncc............nccnccncc"),
    ] {
        let expected = table.char_indices().filter(|&(_, entry)| entry == 'n');
        let expected = expected.map(|(index, _)| u16::try_from(index).unwrap());
        let found = super::super::incoherent_pat_indices(version).unwrap();
        assert_eq!(found, expected.collect::<Vec<_>>(), "{version:?}");
    }
    for version in [(0, 0), (9, 0), (12, 55), (12, 75), (21, 0), (36, 0)] {
        assert_eq!(super::super::incoherent_pat_indices(version), None);
    }
}
