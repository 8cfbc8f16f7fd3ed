//! Whatever a device is, refuses and drops: an error, or memory that is what its traits say.

use std::collections::HashSet;

use proptest::collection::{hash_set, vec};
use proptest::prelude::*;
use rustix::io::Errno;

use super::Bench;
use super::fake::{Amdgpu, Faults, I915, LIES, Model, Xe, assert_honest};
use crate::memory::PAGE_SIZE;
use crate::memory::alloc::{Handout, Want};

/// Mostly devices that there are, and some that there are not.
fn i915() -> impl Strategy<Value = I915> {
    let known = proptest::sample::select(vec![
        I915::tiger_lake(),
        I915::broxton(),
        I915::meteor_lake(),
        I915::dg2(),
    ]);
    prop_oneof![3 => known, 2 => odd_i915()]
}

fn odd_i915() -> impl Strategy<Value = I915> {
    let chipset = prop_oneof![
        Just(0x9a49),
        Just(0x7d55),
        Just(0x7d41),
        Just(0xb640),
        0..=0xffff_i32
    ];
    let graphics = prop_oneof![500..=1269_u32, 1270..=1274_u32, 1275..=3000_u32];
    let gtt_version = prop_oneof![3 => Just(4), 1 => 0..=5_i32];
    (chipset, graphics, any::<[bool; 7]>(), gtt_version).prop_map(
        |(chipset, graphics, flags, gtt_version)| {
            let [
                shared_cache,
                can_snoop,
                own_memory,
                discrete,
                host_has_pat,
                regions,
                set_pat,
            ] = flags;
            I915 {
                chipset,
                graphics,
                shared_cache,
                can_snoop,
                own_memory,
                // Only discrete devices have memory of their own, and kernels that drive them list
                // it.
                discrete: discrete || own_memory,
                host_has_pat,
                gtt_version,
                knows_regions: regions || own_memory,
                knows_set_pat: set_pat,
            }
        },
    )
}

fn xe() -> impl Strategy<Value = Xe> {
    let page = prop_oneof![Just(0x1000_u32), Just(0x4000), Just(0x1_0000)];
    (any::<bool>(), any::<(u16, u16)>(), 0..=4_u16, page).prop_map(
        |(discrete, graphics, system, page)| Xe {
            discrete,
            graphics,
            system,
            page,
        },
    )
}

fn amdgpu() -> impl Strategy<Value = Amdgpu> {
    let version = prop_oneof![Just((3, 64)), Just((3, 61)), Just((3, 60)), Just((3, 49))];
    (100..=160_u32, version, any::<[bool; 3]>()).prop_map(|(family, version, flags)| {
        let [snoops_152, host_can_combine, render] = flags;
        Amdgpu {
            family,
            version,
            // The kernels' rule: graphics 9 from some version on, and part of family 152.
            snoops_all: match family {
                141 | 142 => version >= (3, 55),
                152 => snoops_152,
                _ => false,
            },
            host_can_combine,
            render,
        }
    })
}

fn model() -> impl Strategy<Value = Model> {
    prop_oneof![
        6 => i915().prop_map(Model::I915),
        2 => xe().prop_map(Model::Xe),
        2 => amdgpu().prop_map(Model::Amdgpu),
        1 => any::<bool>().prop_map(|render| Model::Vgem { render }),
        1 => prop_oneof![Just(1_u64 << 20), Just(64 << 20)].prop_map(|limit| Model::Udmabuf { limit }),
    ]
}

fn errno() -> impl Strategy<Value = Errno> {
    proptest::sample::select(vec![
        Errno::INVAL,
        Errno::NOENT,
        Errno::NODEV,
        Errno::OPNOTSUPP,
        Errno::ACCESS,
        Errno::NOMEM,
        Errno::NOTTY,
        Errno::INTR,
    ])
}

fn faults() -> impl Strategy<Value = Faults> {
    let gone_from = prop_oneof![6 => Just(None), 1 => (0..20_usize).prop_map(Some)];
    let refuse = prop_oneof![3 => Just(Vec::new()), 1 => vec((0..20_usize, errno()), 1..3)];
    let lies = hash_set(proptest::sample::select(&LIES[..]), 0..3);
    let lies = prop_oneof![2 => Just(HashSet::new()), 1 => lies];
    (gone_from, refuse, 0..3_u32, lies).prop_map(|(gone_from, refuse, interruptions, lies)| {
        Faults {
            gone_from,
            refuse,
            interruptions,
            lies,
        }
    })
}

fn len() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => 1..=0x4_0000_u64,
        1 => 1..=1_u64 << 41,
        1 => any::<u64>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn memory_is_what_is_said_of_it_or_there_is_none(
        model in model(),
        faults in faults(),
        requests in vec((len(), any::<bool>()), 1..4),
        as_dma_buf in prop::bool::weighted(0.3),
    ) {
        let handout = if as_dma_buf { Handout::DmaBuf } else { Handout::Node };
        // Cached memory in place of vgem's is none of the device's.
        let has_coherent = !matches!(model, Model::Vgem { .. });
        let bench = Bench::with_faults(model, handout, faults);
        if let Ok(allocator) = &bench.allocator {
            let mut kept = Vec::new();
            for (len, coherent) in requests {
                let want = if coherent && has_coherent { Want::Coherent } else { Want::Noncoherent };
                match allocator.allocate(len, want) {
                    Ok(memory) => {
                        prop_assert!(memory.len() >= len && memory.len().is_multiple_of(PAGE_SIZE));
                        let truth = bench.device.truth(&bench.node, &memory);
                        prop_assert!(truth.is_ok(), "{:?}: {:?}", memory, truth);
                        assert_honest(memory.traits(), truth.unwrap());
                        kept.push(memory);
                    }
                    Err(error) => prop_assert!(!error.to_string().contains('\n')),
                }
            }
        }
        prop_assert_eq!(bench.device.leaks(), (0, 0));
    }
}
