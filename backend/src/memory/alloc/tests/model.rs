//! The made-up devices refuse what the kernel refuses: otherwise the other tests would show nothing.

use std::os::fd::AsFd;

use rustix::io::Errno;

use super::fake::{Amdgpu, Device, FakeNode, Faults, I915, Model, Xe};
use crate::memory::alloc::drm_node::Node;
use crate::memory::alloc::memfd;
use crate::sys::request::{I915Extension, Request};
use crate::sys::uapi::amdgpu::drm_amdgpu_gem_create_in;
use crate::sys::uapi::drm::{drm_mode_create_dumb, drm_mode_map_dumb};
use crate::sys::uapi::i915::{
    drm_i915_gem_caching, drm_i915_gem_create, drm_i915_gem_memory_class_instance,
};
use crate::sys::uapi::xe::drm_xe_gem_create;

/// What a node answers to one command.
fn answer(node: &FakeNode, mut request: Request<'_>) -> Result<(), Errno> {
    node.submit(&mut request)
        .map_err(|error| Errno::from_io_error(&error).unwrap())
}

fn i915_buffer(node: &FakeNode) -> u32 {
    let mut create = drm_i915_gem_create {
        size: 4096,
        ..Default::default()
    };
    answer(node, Request::I915GemCreate(&mut create)).unwrap();
    create.handle
}

fn set_caching(node: &FakeNode, handle: u32, caching: u32) -> Result<(), Errno> {
    let set = drm_i915_gem_caching { handle, caching };
    answer(node, Request::I915SetCaching(set))
}

fn i915_map(node: &FakeNode, handle: u32, flags: u32) -> Result<(), Errno> {
    let mut offset = 0;
    let map = Request::I915MmapOffset {
        handle,
        flags,
        offset: &mut offset,
    };
    answer(node, map)
}

fn create_ext(node: &FakeNode, flags: u32, extension: I915Extension<'_>) -> Result<(), Errno> {
    let mut create = drm_i915_gem_create {
        size: 4096,
        ..Default::default()
    };
    let request = Request::I915GemCreateExt {
        create: &mut create,
        flags,
        extension,
    };
    answer(node, request)
}

#[test]
fn i915_caching_depends_on_the_device() {
    for (model, caching, expected) in [
        (I915::tiger_lake(), 0, Ok(())),
        (I915::tiger_lake(), 3, Err(Errno::INVAL)),
        (I915::dg2(), 0, Err(Errno::NODEV)),
        (I915::meteor_lake(), 0, Err(Errno::OPNOTSUPP)),
    ] {
        let node = Device::new(Model::I915(model)).open();
        let handle = i915_buffer(&node);
        assert_eq!(set_caching(&node, handle, caching), expected);
    }
    let node = Device::new(Model::I915(I915::tiger_lake())).open();
    assert_eq!(set_caching(&node, 7, 0), Err(Errno::NOENT));
    let handle = i915_buffer(&node);
    answer(&node, Request::GemClose(handle)).unwrap();
    assert_eq!(set_caching(&node, handle, 0), Err(Errno::NOENT));
    assert_eq!(answer(&node, Request::GemClose(handle)), Err(Errno::INVAL));
}

#[test]
fn i915_maps_by_device() {
    let open = |model| Device::new(Model::I915(model)).open();
    let old = open(I915::tiger_lake());
    let handle = i915_buffer(&old);
    for (flags, expected) in [
        (0, Ok(())),
        (1, Ok(())),
        (2, Ok(())),
        (4, Err(Errno::NODEV)),
        (5, Err(Errno::INVAL)),
    ] {
        assert_eq!(i915_map(&old, handle, flags), expected, "{flags}");
    }
    assert_eq!(i915_map(&old, 9, 1), Err(Errno::NOENT));
    let discrete = open(I915::dg2());
    let handle = i915_buffer(&discrete);
    for flags in 0..4 {
        assert_eq!(i915_map(&discrete, handle, flags), Err(Errno::NODEV));
    }
    assert_eq!(i915_map(&discrete, handle, 4), Ok(()));
}

#[test]
fn i915_extensions_are_checked() {
    let open = |model| Device::new(Model::I915(model)).open();
    let newer = open(I915::meteor_lake());
    assert_eq!(create_ext(&newer, 0, I915Extension::SetPat(4)), Ok(()));
    let beyond = create_ext(&newer, 0, I915Extension::SetPat(5));
    assert_eq!(beyond, Err(Errno::INVAL));
    let unknown_flag = create_ext(&newer, 2, I915Extension::SetPat(2));
    assert_eq!(unknown_flag, Err(Errno::INVAL));
    let older = create_ext(&open(I915::tiger_lake()), 0, I915Extension::SetPat(2));
    assert_eq!(older, Err(Errno::NODEV));

    let discrete = open(I915::dg2());
    let region = |memory_class| drm_i915_gem_memory_class_instance {
        memory_class,
        memory_instance: 0,
    };
    for (regions, flags, expected) in [
        (vec![region(1), region(0)], 1, Ok(())),
        (vec![region(1)], 0, Ok(())),
        (vec![region(1)], 1, Err(Errno::INVAL)),
        (vec![region(1), region(1)], 0, Err(Errno::INVAL)),
        (vec![region(2)], 0, Err(Errno::INVAL)),
        (vec![], 0, Err(Errno::INVAL)),
    ] {
        let list = I915Extension::MemoryRegions(&regions);
        assert_eq!(create_ext(&discrete, flags, list), expected, "{regions:?}");
    }
}

#[test]
fn xe_checks_sizes_places_and_types() {
    let open = |model| Device::new(Model::Xe(model)).open();
    let make = |discrete: bool, size, placement, cpu_caching, flags| {
        let model = if discrete {
            Xe::battlemage()
        } else {
            Xe::lunar_lake()
        };
        let mut create = drm_xe_gem_create {
            size,
            placement,
            cpu_caching,
            flags,
            ..Default::default()
        };
        answer(&open(model), Request::XeGemCreate(&mut create))
    };
    assert_eq!(make(false, 4096, 1, 2, 0), Ok(()));
    assert_eq!(make(true, 4096, 1 << 5, 2, 0), Ok(()));
    for (discrete, size, placement, cpu_caching, flags) in [
        (false, 0, 1, 2, 0),
        (false, 4097, 1, 2, 0),
        (false, 4096, 0, 2, 0),
        (false, 4096, 1 << 5, 2, 0),
        (false, 4096, 1, 0, 0),
        (false, 4096, 1, 3, 0),
        (false, 4096, 1, 2, 0x10),
        (true, 4096, 1 << 5, 1, 0),
    ] {
        let answer = make(discrete, size, placement, cpu_caching, flags);
        assert_eq!(
            answer,
            Err(Errno::INVAL),
            "{size} {placement} {cpu_caching}"
        );
    }
    let mut data = [0; 7];
    let mut size = 0;
    let ask = Request::XeQuery {
        query: 1,
        size: &mut size,
        data: &mut data,
    };
    let answered = answer(&open(Xe::lunar_lake()), ask);
    assert_eq!(answered, Err(Errno::INVAL), "not the answer's size");
}

#[test]
fn amdgpu_checks_flags_and_drops_one() {
    let node = Device::new(Model::Amdgpu(Amdgpu {
        host_can_combine: false,
        ..Amdgpu::navi()
    }))
    .open();
    let make = |bo_size, domains, domain_flags| {
        let mut handle = 0;
        let create = drm_amdgpu_gem_create_in {
            bo_size,
            alignment: 4096,
            domains,
            domain_flags,
        };
        let handle_place = &mut handle;
        let request = Request::AmdgpuGemCreate {
            create,
            handle: handle_place,
        };
        answer(&node, request).map(|()| handle)
    };
    assert_eq!(make(0, 2, 4), Err(Errno::INVAL));
    assert_eq!(make(4096, 0x80, 4), Err(Errno::INVAL));
    assert_eq!(make(4096, 2, 1 << 20), Err(Errno::INVAL));
    let handle = make(4096, 2, 4).unwrap();
    let mut info = drm_amdgpu_gem_create_in::default();
    let ask = Request::AmdgpuCreateInfo {
        handle,
        info: &mut info,
    };
    answer(&node, ask).unwrap();
    assert_eq!(info.domain_flags & 4, 0);
    let mut offset = 0;
    let map = Request::AmdgpuGemMmap {
        handle: handle + 1,
        offset: &mut offset,
    };
    assert_eq!(answer(&node, map), Err(Errno::NOENT));
}

#[test]
fn vgem_counts_in_32_bits_and_not_by_its_render_node() {
    let make = |render, height| {
        let node = Device::new(Model::Vgem { render }).open();
        let mut create = drm_mode_create_dumb {
            width: 1024,
            height,
            bpp: 32,
            ..Default::default()
        };
        answer(&node, Request::CreateDumb(&mut create))
    };
    assert_eq!(make(false, (1 << 20) - 1), Ok(()));
    assert_eq!(make(false, 1 << 20), Err(Errno::INVAL));
    assert_eq!(make(false, 0), Err(Errno::INVAL));
    assert_eq!(make(true, 1), Err(Errno::ACCESS));
    let node = Device::new(Model::Vgem { render: false }).open();
    let mut map = drm_mode_map_dumb::default();
    assert_eq!(answer(&node, Request::MapDumb(&mut map)), Err(Errno::NOENT));
}

#[test]
fn udmabuf_looks_at_the_memfd() {
    let device = Device::new(Model::Udmabuf { limit: 1 << 20 });
    let node = device.open();
    let plain = rustix::fs::memfd_create("plain", rustix::fs::MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&plain, 8192).unwrap();
    let sealed = memfd::sealed_file(8192).unwrap();
    let (pipe, _) = rustix::pipe::pipe().unwrap();
    for (file, offset, size, expected) in [
        (&sealed, 0, 8192, Ok(())),
        (&sealed, 4096, 4096, Ok(())),
        (&sealed, 0, 12_288, Err(Errno::INVAL)),
        (&sealed, 0, 100, Err(Errno::INVAL)),
        (&sealed, 0, 0, Err(Errno::INVAL)),
        (&plain, 0, 8192, Err(Errno::INVAL)),
        (&pipe, 0, 4096, Err(Errno::BADFD)),
    ] {
        let mut dma_buf = None;
        let create = Request::UdmabufCreate {
            memfd: file.as_fd(),
            offset,
            size,
            dma_buf: &mut dma_buf,
        };
        assert_eq!(answer(&node, create), expected, "{offset} {size}");
        assert_eq!(dma_buf.is_some(), expected.is_ok());
    }
}

#[test]
fn foreign_commands_and_devices_that_are_gone() {
    let udmabuf = Device::new(Model::Udmabuf { limit: 4096 }).open();
    assert_eq!(answer(&udmabuf, Request::GemClose(1)), Err(Errno::NOTTY));
    let vgem = Device::new(Model::Vgem { render: false }).open();
    let mut value = 0;
    let foreign = Request::I915GetParam {
        param: 4,
        value: &mut value,
    };
    assert_eq!(answer(&vgem, foreign), Err(Errno::INVAL));
    let faults = Faults {
        gone_from: Some(1),
        ..Faults::default()
    };
    let node = Device::with_faults(Model::I915(I915::dg2()), faults).open();
    let handle = i915_buffer(&node);
    assert_eq!(i915_map(&node, handle, 4), Err(Errno::NODEV));
    assert_eq!(answer(&node, Request::GemClose(handle)), Err(Errno::NODEV));
}
