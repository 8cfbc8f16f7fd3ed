//! What the kernel refuses, one by one, and the line that a person sees.

use rustix::io::Errno;

use super::Bench;
use super::fake::{Amdgpu, Faults, I915, LIES, Lie, Model, Xe};
use crate::memory::alloc::{AllocError, Handout, Want};

const NODE: Handout = Handout::Node;

/// The error's line, after it is sure that nothing is left over.
#[track_caller]
fn refused(bench: &Bench, len: u64, want: Want) -> String {
    let text = match &bench.allocator {
        Ok(allocator) => allocator.allocate(len, want).unwrap_err().to_string(),
        Err(error) => error.to_string(),
    };
    assert!(!text.contains('\n'), "{text}");
    assert_eq!(bench.device.open_handles(), 0, "{text}");
    assert_eq!(bench.device.leaks(), (0, 0), "{text}");
    text
}

#[track_caller]
fn assert_refused(model: Model, want: Want, expected: &str) {
    assert_eq!(refused(&Bench::new(model, NODE), 4096, want), expected);
}

#[test]
fn i915_dma_bufs_are_not_offered() {
    let bench = Bench::new(Model::I915(I915::tiger_lake()), Handout::DmaBuf);
    assert_eq!(
        refused(&bench, 4096, Want::Noncoherent),
        "i915: its dma-bufs are mapped write-back whatever the buffer is: \
         have buffers handed out by the node"
    );
}

#[test]
fn i915_before_mmap_offset_is_not_used() {
    let model = I915 {
        gtt_version: 3,
        ..I915::broxton()
    };
    assert_refused(
        Model::I915(model),
        Want::Noncoherent,
        "i915: the kernel cannot say how a buffer is mapped: use Linux 5.6 or newer",
    );
}

#[test]
fn i915_that_is_newer_than_the_table_is_refused_by_set_caching() {
    let model = I915 {
        chipset: 0x7fff,
        ..I915::meteor_lake()
    };
    for want in [Want::Coherent, Want::Noncoherent] {
        assert_refused(
            Model::I915(model.clone()),
            want,
            "i915 refuses DRM_IOCTL_I915_GEM_SET_CACHING: Operation not supported (os error 95); \
             this program takes the device for an older one: report its device id",
        );
    }
}

#[test]
fn a_discrete_i915_whose_memory_is_not_listed_is_refused() {
    let model = I915 {
        own_memory: false,
        ..I915::dg2()
    };
    assert_refused(
        Model::I915(model),
        Want::Noncoherent,
        "i915 refuses DRM_IOCTL_I915_GEM_SET_CACHING: No such device (os error 19); \
         the device has no such kind of memory",
    );
}

#[test]
fn i915_that_cannot_snoop_has_no_coherent_memory() {
    let model = I915 {
        can_snoop: false,
        ..I915::broxton()
    };
    assert_refused(
        Model::I915(model),
        Want::Coherent,
        "i915 refuses DRM_IOCTL_I915_GEM_SET_CACHING: No such device (os error 19); \
         the device has no such kind of memory",
    );
}

#[test]
fn a_kernel_without_set_pat_is_too_old_for_the_device() {
    let model = I915 {
        knows_set_pat: false,
        ..I915::meteor_lake()
    };
    assert_refused(
        Model::I915(model),
        Want::Noncoherent,
        "i915 refuses DRM_IOCTL_I915_GEM_CREATE_EXT: Invalid argument (os error 22); \
         the kernel may be too old for this device: use Linux 6.6 or newer",
    );
}

#[test]
fn a_host_that_does_not_map_write_combining_is_refused() {
    for model in [I915::tiger_lake(), I915::meteor_lake()] {
        let model = I915 {
            host_has_pat: false,
            ..model
        };
        assert_refused(
            Model::I915(model),
            Want::Noncoherent,
            "i915 refuses DRM_IOCTL_I915_GEM_MMAP_OFFSET: No such device (os error 19); \
             this host cannot map the buffer with the memory type that was asked for",
        );
    }
}

#[test]
fn caching_that_was_not_set_is_noticed() {
    let lies = |lie| Faults {
        lies: [lie].into(),
        ..Faults::default()
    };
    let model = Model::I915(I915::tiger_lake());
    let bench = Bench::with_faults(model, NODE, lies(Lie::CachingIgnored));
    assert_eq!(
        refused(&bench, 4096, Want::Noncoherent),
        "i915: a buffer was to have caching 0 and has 1; such memory is not used: \
         report this with the kernel's version"
    );
    let model = Model::I915(I915::meteor_lake());
    let bench = Bench::with_faults(model, NODE, lies(Lie::PatIgnored));
    assert_eq!(
        refused(&bench, 4096, Want::Noncoherent),
        "i915: a buffer has not got its PAT index; such memory is not used: \
         report this with the kernel's version"
    );
}

#[test]
fn vgems_render_node_makes_no_buffers() {
    assert_refused(
        Model::Vgem { render: true },
        Want::Noncoherent,
        "vgem refuses DRM_IOCTL_MODE_CREATE_DUMB: Permission denied (os error 13); \
         vgem makes buffers on its card node only: name /dev/dri/cardN",
    );
}

#[test]
fn vgem_has_no_buffers_of_4_gib() {
    let bench = Bench::new(Model::Vgem { render: false }, NODE);
    assert_eq!(
        refused(&bench, 1 << 32, Want::Noncoherent),
        "vgem: a buffer has less than 4 GiB, not 4294967296 bytes: ask for less"
    );
    let most = bench
        .allocator()
        .allocate((1 << 32) - 4096, Want::Noncoherent);
    assert_eq!(most.unwrap().len(), 0xffff_f000);
}

#[test]
fn udmabufs_limit_is_named() {
    let bench = Bench::new(Model::Udmabuf { limit: 64 << 20 }, Handout::DmaBuf);
    assert_eq!(
        refused(&bench, (64 << 20) + 1, Want::Coherent),
        "udmabuf refuses UDMABUF_CREATE: Invalid argument (os error 22); such a buffer has 64 MiB \
         at most: raise udmabuf's module parameter size_limit_mb"
    );
    let most = bench.allocator().allocate(64 << 20, Want::Coherent);
    assert_eq!(most.unwrap().len(), 64 << 20);
    let bench = Bench::new(Model::Udmabuf { limit: 0 }, Handout::DmaBuf);
    assert_eq!(
        refused(&bench, 4096, Want::Coherent),
        "udmabuf refuses UDMABUF_CREATE: Invalid argument (os error 22)"
    );
}

#[test]
fn amdgpus_card_node_needs_rights() {
    let model = Amdgpu {
        render: false,
        ..Amdgpu::navi()
    };
    assert_refused(
        Model::Amdgpu(model),
        Want::Noncoherent,
        "amdgpu refuses DRM_IOCTL_AMDGPU_INFO: Permission denied (os error 13); \
         name the device's render node, /dev/dri/renderDN",
    );
}

#[test]
fn amdgpu_buffers_in_video_memory_have_no_known_type() {
    let faults = Faults {
        lies: [Lie::InVideoMemory].into(),
        ..Faults::default()
    };
    let bench = Bench::with_faults(Model::Amdgpu(Amdgpu::navi()), NODE, faults);
    for want in [Want::Coherent, Want::Noncoherent] {
        let traits = bench.allocator().allocate(4096, want).unwrap().traits();
        assert_eq!(traits.host, None);
        assert_eq!(traits.kinds, crate::memory::kind::PageKinds::Either);
        assert_eq!(traits.snooping, crate::memory::kind::Snooping::Unknown);
    }
}

#[test]
fn other_drivers_have_no_allocator() {
    for name in [
        "msm",
        "panthor",
        "panfrost",
        "v3d",
        "nouveau",
        "virtio_gpu",
        "",
    ] {
        let bench = Bench::new(Model::Other(name), NODE);
        assert!(matches!(
            bench.allocator,
            Err(AllocError::NoAllocator { ref driver, .. }) if driver == name
        ));
        assert_eq!(
            refused(&bench, 4096, Want::Coherent),
            format!(
                "/dev/dri/renderD128 is driven by {name}, which has no allocator here: \
                 name a node of i915, xe, amdgpu or vgem, or none to use memfd"
            )
        );
        assert_eq!(bench.device.commands(), [""; 0], "nothing was tried on it");
    }
}

/// Every device, in both handouts where it has both.
fn all() -> Vec<(Model, Handout)> {
    vec![
        (Model::I915(I915::tiger_lake()), NODE),
        (Model::I915(I915::broxton()), NODE),
        (Model::I915(I915::meteor_lake()), NODE),
        (Model::I915(I915::dg2()), NODE),
        (Model::Xe(Xe::lunar_lake()), NODE),
        (Model::Xe(Xe::lunar_lake()), Handout::DmaBuf),
        (Model::Xe(Xe::battlemage()), NODE),
        (Model::Amdgpu(Amdgpu::navi()), NODE),
        (Model::Amdgpu(Amdgpu::vega()), Handout::DmaBuf),
        (Model::Vgem { render: false }, NODE),
        (Model::Vgem { render: false }, Handout::DmaBuf),
        (Model::Udmabuf { limit: 64 << 20 }, Handout::DmaBuf),
    ]
}

/// How many commands it takes from opening to closing.
fn commands(model: &Model, handout: Handout, want: Want) -> usize {
    let bench = Bench::new(model.clone(), handout);
    drop(bench.allocator().allocate(4096, want).unwrap());
    bench.device.commands().len()
}

#[test]
fn a_device_may_go_at_any_moment() {
    for (model, handout) in all() {
        for want in [Want::Coherent, Want::Noncoherent] {
            let total = commands(&model, handout, want);
            for gone in 0..total {
                let faults = Faults {
                    gone_from: Some(gone),
                    ..Faults::default()
                };
                let bench = Bench::with_faults(model.clone(), handout, faults);
                let result = match &bench.allocator {
                    Ok(allocator) => allocator.allocate(4096, want).map_err(|e| e.to_string()),
                    Err(error) => Err(error.to_string()),
                };
                let last = gone + 1 == total && !matches!(model, Model::Udmabuf { .. });
                match result {
                    // The handle's closing is the last command of all, and a device that is gone
                    // has no handles.
                    Ok(memory) => assert!(last, "{model:?} {gone}: {memory:?}"),
                    Err(text) => {
                        let said = text.contains("No such device (os error 19)");
                        assert!(!last && said, "{model:?} {gone}: {text}");
                    }
                }
                assert_eq!(bench.device.leaks(), (0, 0), "{model:?} {want:?} {gone}");
            }
        }
    }
}

#[test]
fn interrupted_commands_are_sent_again() {
    for (model, handout) in all() {
        let faults = |interruptions| Faults {
            interruptions,
            ..Faults::default()
        };
        let bench = Bench::with_faults(model.clone(), handout, faults(7));
        let total = commands(&model, handout, Want::Noncoherent);
        drop(bench.allocator().allocate(4096, Want::Noncoherent).unwrap());
        assert_eq!(bench.device.commands().len(), total);
        assert_eq!(bench.device.open_handles(), 0);
        // Not for ever.
        let bench = Bench::with_faults(model.clone(), handout, faults(u32::MAX));
        let error = match bench.allocator {
            Ok(allocator) => allocator.allocate(4096, Want::Noncoherent).unwrap_err(),
            Err(error) => error,
        };
        let text = error.to_string();
        assert!(
            text.contains("refuses") && text.contains("os error"),
            "{text}"
        );
    }
}

#[test]
fn what_cannot_be_true_is_not_believed() {
    for (model, handout) in all() {
        for lie in LIES {
            let faults = Faults {
                lies: [lie].into(),
                ..Faults::default()
            };
            let bench = Bench::with_faults(model.clone(), handout, faults);
            let node = handout == NODE;
            // Cached memory in place of vgem's is none of the device's.
            let want = match model {
                Model::Vgem { .. } => Want::Noncoherent,
                _ => Want::Coherent,
            };
            let bad = match lie {
                Lie::SmallBuffer => !matches!(model, Model::Xe(_) | Model::Udmabuf { .. }),
                Lie::NoHandle => !matches!(model, Model::Udmabuf { .. }),
                Lie::OffsetZero | Lie::OffsetInPage | Lie::OffsetHuge => node,
                Lie::SmallDmaBuf => !node,
                Lie::ListGarbled => match &model {
                    Model::I915(i915) => i915.knows_regions,
                    other => matches!(other, Model::Xe(_)),
                },
                // These have tests of their own.
                Lie::CachingIgnored | Lie::PatIgnored | Lie::UswcDropped | Lie::InVideoMemory => {
                    continue;
                }
            };
            if bad {
                let text = refused(&bench, 8192, want);
                assert!(text.contains("is not used: report this"), "{lie:?}: {text}");
            } else {
                let memory = bench.allocator().allocate(4096, want).unwrap();
                assert!(bench.device.truth(&bench.node, &memory).is_ok());
            }
        }
    }
}

#[test]
fn each_command_may_be_refused() {
    let errnos = [
        Errno::INVAL,
        Errno::NOENT,
        Errno::NOMEM,
        Errno::NOTTY,
        Errno::PERM,
        Errno::OPNOTSUPP,
    ];
    for (model, handout) in all() {
        let total = commands(&model, handout, Want::Noncoherent);
        for (at, errno) in (0..total).flat_map(|at| errnos.map(|errno| (at, errno))) {
            let faults = Faults {
                refuse: vec![(at, errno)],
                ..Faults::default()
            };
            let bench = Bench::with_faults(model.clone(), handout, faults);
            if let Ok(allocator) = &bench.allocator
                && let Ok(memory) = allocator.allocate(4096, Want::Noncoherent)
            {
                let truth = bench.device.truth(&bench.node, &memory).unwrap();
                super::fake::assert_honest(memory.traits(), truth);
            }
            assert_eq!(bench.device.leaks(), (0, 0), "{model:?} {at} {errno}");
        }
    }
}
