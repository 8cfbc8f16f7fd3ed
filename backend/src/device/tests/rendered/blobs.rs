//! Blobs in host memory that the renderer's contexts provide.

use nosnoop_protocol::command::BlobFlags;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use super::*;
use crate::render::{BlobRequest, HandleKind};

pub(super) fn create_host_blob(size: u64, blob: u32) -> Vec<u32> {
    vec![7, 2, 3, 0, blob, 0, size as u32, (size >> 32) as u32]
}

#[test]
fn a_contexts_blob_is_mapped_as_the_plan_says() {
    let gpu = Gpu::with(
        Limits {
            hostmem: 8192,
            ..Limits::default()
        },
        true,
    );
    gpu.create_context(1, 1).unwrap();
    gpu.create_context(2, 5).unwrap();
    gpu.calls();
    let export = |kind, len, map_info| {
        let fd = memfd_create(c"nosnoop-test", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&fd, len).unwrap();
        gpu.fake
            .with(|script| script.export = Some((fd, kind, map_info)));
    };
    let create = |of, size| gpu.run(cmd::RESOURCE_CREATE_BLOB, of, &create_host_blob(size, 9));
    let map = || gpu.run(cmd::RESOURCE_MAP_BLOB, 0, &[7, 0, 0, 0]);
    for (of, size, expected) in [
        (1, 0, BAD),
        (1, u64::MAX, BAD),
        (1, 8193, FULL),
        (2, 4096, BAD),
        (3, 4096, NO_CONTEXT),
    ] {
        assert_eq!(create(of, size), expected, "{of} {size}");
    }
    assert_eq!(gpu.calls(), []);
    let destroyed = Call::DestroyResource(id(7));
    assert_eq!(create(1, 4096), UNSPEC, "the renderer has none");
    assert_eq!(gpu.calls().len(), 1);
    for (kind, len) in [(HandleKind::Other, 4096), (HandleKind::Shm, 4096)] {
        export(kind, len, Some(1));
        assert_eq!(create(1, 5000), UNSPEC, "{kind:?}");
        assert_eq!(
            gpu.calls()[1..],
            *std::slice::from_ref(&destroyed),
            "{kind:?}"
        );
    }
    // Not known how it is mapped: there, and not to be mapped.
    for kind in [HandleKind::DmaBuf, HandleKind::Shm] {
        export(kind, 8192, None);
        assert_eq!(create(1, 5000), OK, "{kind:?}");
        assert_eq!(map(), UNSPEC, "{kind:?}");
        assert_eq!(gpu.unref(7), OK);
    }
    gpu.calls();
    export(HandleKind::Shm, 8192, Some(0x31));
    assert_eq!(create(1, 5000), OK);
    let request = BlobRequest {
        context: context(1),
        blob: BlobId(9),
        flags: BlobFlags::MAPPABLE | BlobFlags::SHAREABLE,
        size: 5000,
    };
    assert_eq!(gpu.calls(), [Call::CreateBlob(id(7), request)]);
    assert_eq!(
        gpu.create(&texture(8, 1, 1)),
        FULL,
        "it is charged in whole pages"
    );
    assert_eq!(map(), Ok(Reply::OkMapInfo(MapCache::Cached)));
    assert_eq!(gpu.attach(1, 7), OK);
    assert_eq!(gpu.unref(7), OK);
    assert_eq!(gpu.calls(), [Call::Attach(context(1), id(7)), destroyed]);
}

#[test]
fn without_a_region_the_renderer_is_not_asked_for_blobs() {
    let gpu = Gpu::new();
    gpu.create_context(1, 1).unwrap();
    gpu.calls();
    assert_eq!(
        gpu.run(cmd::RESOURCE_CREATE_BLOB, 1, &create_host_blob(4096, 9)),
        BAD
    );
    assert_eq!(gpu.calls(), []);
}

#[test]
fn what_other_devices_are_to_use_is_a_dma_buf() {
    let gpu = Gpu::with(Limits::default(), true);
    gpu.create_context(1, 1).unwrap();
    for (kind, flags, expected) in [
        (HandleKind::Shm, 1, OK),
        (HandleKind::Shm, 1 | 4, UNSPEC),
        (HandleKind::DmaBuf, 1 | 4, OK),
        (HandleKind::Other, 4, UNSPEC),
    ] {
        let fd = memfd_create(c"nosnoop-test", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&fd, 4096).unwrap();
        gpu.fake
            .with(|script| script.export = Some((fd, kind, Some(1))));
        gpu.calls();
        let made = gpu.run(
            cmd::RESOURCE_CREATE_BLOB,
            1,
            &[7, 2, flags, 0, 9, 0, 4096, 0],
        );
        assert_eq!(made, expected, "{kind:?} {flags}");
        if made == OK {
            assert_eq!(gpu.unref(7), OK);
        }
        let destroyed = Call::DestroyResource(id(7));
        assert_eq!(gpu.calls().last(), Some(&destroyed), "{kind:?} {flags}");
    }
}
