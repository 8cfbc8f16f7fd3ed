//! Host blobs: made, mapped, unmapped and gone, with a front-end that does what it is asked.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::cast_lossless,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "test code: a broken expectation is to stop the test loudly"
)]

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nosnoop_tests::bench::limits::BareMapping;
use nosnoop_tests::frontend::cross_domain::{host_blob, ring_blob};
use nosnoop_tests::frontend::memory::{PAGE, USER_OFFSET};
use nosnoop_tests::frontend::message::{MemoryRegion, protocol};
use nosnoop_tests::frontend::pixels::{BGRX, Picture, noise};
use nosnoop_tests::frontend::request::{self, BLOB_MEM_HOST3D, CreateBlob, Rect, ScanoutBlob};
use nosnoop_tests::frontend::response::{self, resp};
use nosnoop_tests::frontend::ring::{DESC_WRITE, Descriptor};
use nosnoop_tests::frontend::shmem::{FLAG_WRITABLE, SHMEM_MAP, SHMEM_UNMAP};
use nosnoop_tests::frontend::{
    Ack, Daemon, Deadline, DisplayConfig, ImageContext, ImageRequest, Result, Rig, Session,
    SessionOptions,
};

/// The region of [`Rig::host_blobs`].
const REGION: u64 = 8 << 30;

/// A device with context 1 and its query ring 100.
fn rig() -> Result<(Rig, ImageContext)> {
    let mut rig = Rig::host_blobs(&[])?;
    let context = ImageContext::new(&mut rig.gpu, 1, 100)?;
    Ok((rig, context))
}

#[test]
fn a_blob_is_mapped_where_the_guest_says() -> Result<()> {
    let (mut rig, context) = rig()?;
    let info = context.blob_of(&mut rig.gpu, 200, 5 * PAGE)?;
    assert_eq!(rig.shmem().count(), 0, "asked before there was a need");
    assert_eq!(rig.gpu.map_blob(200, 3 * PAGE)?, info.map_info);
    assert_eq!(rig.shmem().mapped(), [(3 * PAGE, 5 * PAGE)]);
    let request = rig.shmem().requests()[0];
    assert_eq!((request.kind, request.flags), (SHMEM_MAP, FLAG_WRITABLE));
    assert_eq!(rig.shmem().read(3 * PAGE, 20480), [0; 20480]);
    rig.gpu.unmap_blob(200)?;
    assert_eq!(rig.shmem().mapped(), []);
    assert_eq!(rig.shmem().requests()[1].kind, SHMEM_UNMAP);
    // And again elsewhere: the same memory.
    rig.gpu.map_blob(200, 0)?;
    rig.shmem().write(5, b"still there");
    rig.gpu.unmap_blob(200)?;
    rig.gpu.map_blob(200, REGION - 5 * PAGE)?;
    assert_eq!(rig.shmem().read(REGION - 5 * PAGE + 5, 11), b"still there");
    assert_eq!(rig.shmem().count(), 5);
    rig.finish()
}

#[test]
fn maps_that_cannot_be_are_refused_before_the_front_end_hears_of_them() -> Result<()> {
    let (mut rig, context) = rig()?;
    let info = context.blob_of(&mut rig.gpu, 200, 4 * PAGE)?;
    context.create_blob(&mut rig.gpu, 201, &info)?;
    rig.gpu.create_picture(202, BGRX, 64, 64)?;
    ring_blob(&mut rig.gpu, 203, PAGE)?;
    let hidden = CreateBlob {
        resource: 204,
        mem: BLOB_MEM_HOST3D,
        flags: 0,
        count: 0,
        blob_id: u64::from(info.blob_id),
        size: info.size,
    };
    let hidden = request::create_blob(hidden, &[]).in_context(1);
    rig.gpu.command("RESOURCE_CREATE_BLOB", &hidden)?;
    rig.gpu.map_blob(201, 16 * PAGE)?;
    let at = |page: u64| page * PAGE;
    for (resource, offset, expected) in [
        (0, 0, resp::ERR_INVALID_RESOURCE_ID),
        (999, 0, resp::ERR_INVALID_RESOURCE_ID),
        // What is no host blob, and one that is not to be mapped.
        (202, 0, resp::ERR_INVALID_PARAMETER),
        (203, 0, resp::ERR_INVALID_PARAMETER),
        (204, 0, resp::ERR_INVALID_PARAMETER),
        // Unaligned.
        (200, 1, resp::ERR_INVALID_PARAMETER),
        (200, 512, resp::ERR_INVALID_PARAMETER),
        (200, PAGE + 8, resp::ERR_INVALID_PARAMETER),
        // Beyond the region.
        (200, REGION, resp::ERR_INVALID_PARAMETER),
        (200, REGION - 3 * PAGE, resp::ERR_INVALID_PARAMETER),
        (200, REGION + PAGE, resp::ERR_INVALID_PARAMETER),
        (200, u64::MAX, resp::ERR_INVALID_PARAMETER),
        (200, u64::MAX - 4 * PAGE + 1, resp::ERR_INVALID_PARAMETER),
        (200, 1 << 63, resp::ERR_INVALID_PARAMETER),
        // Overlapping from every side.
        (200, at(16), resp::ERR_INVALID_PARAMETER),
        (200, at(13), resp::ERR_INVALID_PARAMETER),
        (200, at(19), resp::ERR_INVALID_PARAMETER),
        // Mapped already.
        (201, at(16), resp::ERR_INVALID_PARAMETER),
        (201, at(32), resp::ERR_INVALID_PARAMETER),
    ] {
        let answer = rig.gpu.answer(&request::map_blob(resource, offset))?;
        assert_eq!(answer, expected, "{resource} at {offset:#x}");
    }
    assert_eq!(rig.shmem().count(), 1);
    // Right beside it there is room, on both sides.
    rig.gpu.map_blob(200, at(12))?;
    rig.gpu.unmap_blob(200)?;
    rig.gpu.map_blob(200, at(20))?;
    rig.finish()
}

#[test]
fn what_is_not_mapped_cannot_be_unmapped() -> Result<()> {
    let (mut rig, context) = rig()?;
    context.blob_of(&mut rig.gpu, 200, PAGE)?;
    rig.gpu.create_picture(202, BGRX, 64, 64)?;
    for (resource, expected) in [
        (0, resp::ERR_INVALID_RESOURCE_ID),
        (999, resp::ERR_INVALID_RESOURCE_ID),
        (100, resp::ERR_INVALID_PARAMETER),
        (200, resp::ERR_INVALID_PARAMETER),
        (202, resp::ERR_INVALID_PARAMETER),
    ] {
        let answer = rig.gpu.answer(&request::unmap_blob(resource))?;
        assert_eq!(answer, expected, "{resource}");
    }
    rig.gpu.map_blob(200, 0)?;
    rig.gpu.unmap_blob(200)?;
    let twice = rig.gpu.answer(&request::unmap_blob(200))?;
    assert_eq!(twice, resp::ERR_INVALID_PARAMETER);
    assert_eq!(rig.shmem().count(), 2);
    rig.finish()
}

#[test]
fn forty_blobs_are_mapped_at_once() -> Result<()> {
    let (mut rig, context) = rig()?;
    let offset = |n: u64| n * (64 << 20);
    for n in 0..40_u64 {
        context.blob_of(&mut rig.gpu, 200 + n as u32, (n + 1) * PAGE)?;
        rig.gpu.map_blob(200 + n as u32, offset(n))?;
        rig.shmem()
            .write(offset(n), &noise(n, ((n + 1) * PAGE) as usize));
    }
    let expected: Vec<_> = (0..40).map(|n| (offset(n), (n + 1) * PAGE)).collect();
    assert_eq!(rig.shmem().mapped(), expected);
    for n in 0..40_u64 {
        let bytes = rig.shmem().read(offset(n), ((n + 1) * PAGE) as usize);
        assert_eq!(bytes, noise(n, bytes.len()), "{n}");
    }
    rig.finish()
}

#[test]
fn mapping_and_unmapping_often_leaks_nothing() -> Result<()> {
    let (mut rig, context) = rig()?;
    let round = |rig: &mut Rig, n: u64| {
        let info = context.image(&mut rig.gpu, ImageRequest::xrgb(1024, 16))?;
        context.create_blob(&mut rig.gpu, 200, &info)?;
        rig.gpu.map_blob(200, (n % 100) * info.size)?;
        if n.is_multiple_of(2) {
            rig.gpu.unmap_blob(200)?;
        }
        rig.gpu.unref(200)
    };
    for n in 0..50 {
        round(&mut rig, n)?;
    }
    let files = rig.daemon.open_files()?;
    let mappings = rig.daemon.mappings()?;
    let own = rig.daemon.own_bytes()?;
    for n in 0..2000 {
        round(&mut rig, n)?;
    }
    assert_eq!(rig.daemon.open_files()?, files);
    assert!(rig.daemon.mappings()? <= mappings + 1);
    let more = rig.daemon.own_bytes()?.saturating_sub(own);
    assert!(more < 512 << 10, "{more} bytes more");
    assert_eq!(rig.shmem().mapped(), []);
    rig.finish()
}

#[test]
fn a_mapped_blob_that_is_forgotten_is_unmapped_first() -> Result<()> {
    let (mut rig, context) = rig()?;
    let files = rig.daemon.open_files()?;
    context.blob_of(&mut rig.gpu, 200, 2 * PAGE)?;
    rig.gpu.map_blob(200, 0)?;
    rig.gpu.unref(200)?;
    assert_eq!(rig.shmem().mapped(), []);
    assert_eq!(rig.daemon.open_files()?, files);
    let gone = rig.gpu.answer(&request::unmap_blob(200))?;
    assert_eq!(gone, resp::ERR_INVALID_RESOURCE_ID);
    context.blob_of(&mut rig.gpu, 200, 2 * PAGE)?;
    rig.gpu.map_blob(200, 0)?;
    rig.finish()
}

#[test]
fn a_context_takes_the_mappings_of_its_blobs_along() -> Result<()> {
    let (mut rig, context) = rig()?;
    ImageContext::new(&mut rig.gpu, 2, 101)?;
    let info = context.blob_of(&mut rig.gpu, 200, PAGE)?;
    for n in 201..204 {
        context.create_blob(&mut rig.gpu, n, &info)?;
    }
    for n in 0..3 {
        rig.gpu.map_blob(200 + n, u64::from(n) * PAGE)?;
    }
    rig.gpu.attach_resource(1, 200)?;
    // Another context uses this one.
    rig.gpu.attach_resource(2, 201)?;
    rig.gpu.command("CTX_DESTROY", &request::ctx_destroy(1))?;
    rig.shmem().wait_mapped(&[(PAGE, PAGE)])?;
    // The resources live on, and can be mapped again.
    for n in [200, 202, 203] {
        rig.gpu.map_blob(n, u64::from(n) * PAGE)?;
    }
    rig.gpu.unmap_blob(201)?;
    rig.finish()
}

#[test]
fn a_reset_leaves_nothing_in_the_way_of_a_qemu_that_unmaps_by_itself() -> Result<()> {
    let (mut rig, context) = rig()?;
    let files = rig.daemon.open_files()?;
    context.blob_of(&mut rig.gpu, 200, 4 * PAGE)?;
    rig.gpu.map_blob(200, 0)?;
    for round in 0..4 {
        rig.shmem().drop_mappings();
        rig.reset_device()?;
        let context = ImageContext::new(&mut rig.gpu, 1, 100)?;
        let gone = rig.gpu.answer(&request::map_blob(200, 0))?;
        assert_eq!(gone, resp::ERR_INVALID_RESOURCE_ID);
        context.blob_of(&mut rig.gpu, 200, 4 * PAGE)?;
        rig.gpu.map_blob(200, round % 2 * 2 * PAGE)?;
    }
    rig.gpu.unref(200)?;
    assert_eq!(rig.daemon.open_files()?, files);
    rig.finish()
}

#[test]
fn a_reset_is_cleaned_up_after_for_a_crosvm_that_does_not() -> Result<()> {
    let mut rig = Rig::start(&["--shm-size", "8G"], &SessionOptions::crosvm_host_blobs())?;
    let context = ImageContext::new(&mut rig.gpu, 1, 100)?;
    let info = context.blob_of(&mut rig.gpu, 200, 4 * PAGE)?;
    context.create_blob(&mut rig.gpu, 201, &info)?;
    rig.gpu.map_blob(200, 0)?;
    rig.gpu.map_blob(201, 8 * PAGE)?;
    for index in [0, 1] {
        rig.stop_queue(index)?;
    }
    // It reads no request until the device is active again.
    rig.shmem().set_serving(false);
    rig.vhost.set_features(rig.features)?;
    for index in [0, 1] {
        rig.queue(index).reset()?;
    }
    rig.start_queue(0, 0)?;
    rig.start_queue(1, 0)?;
    rig.shmem().set_serving(true);
    // The driver starts anew with the same numbers. Without a RESET_DEVICE, which crosvm never
    // sends, the old ones may still be there: it frees them first.
    let _ = rig.gpu.answer(&request::unref(200))?;
    let _ = rig.gpu.answer(&request::unref(201))?;
    let _ = rig.gpu.answer(&request::ctx_destroy(1))?;
    let _ = rig.gpu.answer(&request::unref(100))?;
    let context = ImageContext::new(&mut rig.gpu, 1, 100)?;
    context.blob_of(&mut rig.gpu, 200, 16 * PAGE)?;
    rig.gpu.map_blob(200, 0)?;
    assert_eq!(rig.shmem().mapped(), [(0, 16 * PAGE)]);
    rig.finish()
}

#[test]
fn crosvms_order_of_messages_maps_blobs() -> Result<()> {
    let mut rig = Rig::start(&["--shm-size", "1G"], &SessionOptions::crosvm_host_blobs())?;
    assert_eq!(rig.shmem().size(), 1 << 30);
    let context = ImageContext::new(&mut rig.gpu, 1, 100)?;
    context.blob_of(&mut rig.gpu, 200, 4 * PAGE)?;
    rig.gpu.map_blob(200, (1 << 30) - 4 * PAGE)?;
    rig.gpu.unmap_blob(200)?;
    rig.finish()
}

#[test]
fn a_reset_with_the_mappings_still_there_unmaps_them_before_the_next_map() -> Result<()> {
    let (mut rig, context) = rig()?;
    let info = context.blob_of(&mut rig.gpu, 200, 4 * PAGE)?;
    context.create_blob(&mut rig.gpu, 201, &info)?;
    rig.gpu.map_blob(200, 0)?;
    rig.gpu.map_blob(201, 8 * PAGE)?;
    rig.reset_device()?;
    let context = ImageContext::new(&mut rig.gpu, 1, 100)?;
    context.blob_of(&mut rig.gpu, 200, 16 * PAGE)?;
    rig.gpu.map_blob(200, 0)?;
    assert_eq!(rig.shmem().mapped(), [(0, 16 * PAGE)]);
    rig.finish()
}

#[test]
fn a_front_end_that_leaves_takes_everything_along() -> Result<()> {
    let mut daemon = Daemon::start(&["--shm-size", "8G"])?;
    let mut counts = None;
    for _ in 0..5 {
        let mut session = Session::connect(daemon.socket(), &SessionOptions::host_blobs())?;
        let context = ImageContext::new(&mut session.gpu, 1, 100)?;
        let now = daemon.open_files()?;
        assert_eq!(*counts.get_or_insert(now), now);
        let info = context.blob_of(&mut session.gpu, 200, 64 * PAGE)?;
        for n in 1..10 {
            context.create_blob(&mut session.gpu, 200 + n, &info)?;
        }
        for n in 0..10 {
            session.gpu.map_blob(200 + n, u64::from(n) * info.size)?;
        }
        session.check_shmem()?;
    }
    daemon.check_alive()?;
    assert!(daemon.terminate()?.success());
    Ok(())
}

#[test]
fn without_all_that_mapping_takes_no_host_blob_can_be_made() -> Result<()> {
    for missing in [protocol::SHMEM, protocol::BACKEND_REQ, protocol::REPLY_ACK] {
        let mut options = SessionOptions::host_blobs();
        options.protocol_features &= !missing;
        no_host_blob(&options)?;
    }
    let mut options = SessionOptions::host_blobs();
    options.backend_channel = false;
    no_host_blob(&options)
}

fn no_host_blob(options: &SessionOptions) -> Result<()> {
    let mut rig = Rig::start(&["--shm-size", "8G"], options)?;
    let context = ImageContext::new(&mut rig.gpu, 1, 100)?;
    let info = context.image(&mut rig.gpu, ImageRequest::xrgb(64, 64))?;
    let answer = rig.gpu.answer(&context.blob_request(200, &info))?;
    assert_eq!(answer, resp::ERR_UNSPEC, "{:#x}", options.protocol_features);
    let answer = rig.gpu.answer(&request::map_blob(200, 0))?;
    assert_eq!(answer, resp::ERR_INVALID_RESOURCE_ID);
    // What needs no mapping works.
    rig.gpu.create_picture(201, BGRX, 64, 64)?;
    rig.finish()
}

#[test]
fn without_a_region_nothing_of_it_is_there() -> Result<()> {
    let mut rig = Rig::start(&["--shm-size", "0"], &SessionOptions::host_blobs())?;
    assert_eq!(
        rig.protocol_features & (protocol::SHMEM | protocol::BACKEND_REQ),
        0
    );
    for request in [
        request::ctx_create(1, 5, b""),
        host_blob(1, 200, 1, PAGE),
        request::map_blob(1, 0),
        request::get_capset_info(0),
    ] {
        let answer = rig.gpu.answer(&request)?;
        assert!(answer >= resp::ERR_UNSPEC, "{answer:#x} for {request:x?}");
    }
    rig.finish()
}

#[test]
fn memory_messages_about_mapped_blobs_are_served_while_a_map_is_awaited() -> Result<()> {
    let (mut rig, context) = rig()?;
    let info = context.blob_of(&mut rig.gpu, 200, 4 * PAGE)?;
    context.create_blob(&mut rig.gpu, 201, &info)?;
    rig.gpu.map_blob(200, 0)?;
    // QEMU tells of what it has mapped as of memory, before it answers the next request.
    let bar = 0x80_0000_0000;
    let region = MemoryRegion {
        guest_addr: bar,
        size: info.size,
        user_addr: bar + USER_OFFSET,
        mmap_offset: rig.shmem().requests()[0].fd_offset,
    };
    rig.shmem().script(&[Ack::Late(Duration::from_millis(500))]);
    let map = request::map_blob(201, info.size);
    let ticket = rig.gpu.control.submit(&map, response::MAP_INFO)?;
    rig.gpu.control.kick()?;
    rig.shmem().wait_count(2)?;
    let file = rig.shmem().file(0);
    rig.vhost.add_mem_region(region, file.as_fd())?;
    let mapped = rig.gpu.control.wait(ticket)?;
    mapped.expect("RESOURCE_MAP_BLOB", resp::OK_MAP_INFO)?;
    // It is memory like any other: a request out of it is answered into it.
    rig.shmem().write(0, &request::get_display_info());
    let buffer = |addr, len: usize, flags| Descriptor {
        addr,
        len: len as u32,
        flags,
        next: 0,
    };
    let chain = [
        buffer(bar, response::HEADER, 0),
        buffer(bar + PAGE, response::DISPLAY_INFO, DESC_WRITE),
    ];
    let ring = rig.gpu.control.ring();
    ring.submit(&chain)?;
    ring.kick()?;
    let used = ring.wait_used(&Deadline::default())?;
    assert_eq!(used.len as usize, response::DISPLAY_INFO);
    let answer = rig.shmem().read(PAGE, 4);
    assert_eq!(answer, resp::OK_DISPLAY_INFO.to_le_bytes());
    rig.vhost.remove_mem_region(region)?;
    rig.gpu.unmap_blob(200)?;
    rig.finish()
}

#[test]
fn what_the_guest_draws_into_a_host_blob_is_on_the_display() -> Result<()> {
    let options = SessionOptions {
        display: Some(DisplayConfig::sized(64, 32)),
        ..SessionOptions::host_blobs()
    };
    let mut rig = Rig::start(&["--shm-size", "8G"], &options)?;
    let context = ImageContext::new(&mut rig.gpu, 1, 100)?;
    let info = context.image(&mut rig.gpu, ImageRequest::xrgb(64, 32))?;
    context.create_blob(&mut rig.gpu, 200, &info)?;
    rig.gpu.map_blob(200, 0)?;
    let blob = ScanoutBlob {
        scanout: 0,
        resource: 200,
        rect: Rect::sized(64, 32),
        width: 64,
        height: 32,
        format: BGRX,
        stride: info.strides[0],
        offset: info.offsets[0],
    };
    rig.gpu.set_scanout_blob(blob)?;
    for round in 0..3 {
        let raw = noise(round, info.size as usize);
        rig.shmem().write(0, &raw);
        rig.gpu.flush(200, blob.rect)?;
        rig.display()
            .wait_picture(0, &Picture::of(BGRX, 64, 32, &raw))?;
    }
    rig.gpu.unref(200)?;
    rig.finish()
}

#[test]
fn what_is_for_other_resources_does_host_blobs_no_harm() -> Result<()> {
    let (mut rig, context) = rig()?;
    let info = context.blob_of(&mut rig.gpu, 200, 4 * PAGE)?;
    rig.gpu.map_blob(200, 0)?;
    let span = rig.ram.alloc(4096)?;
    let rect = Rect::sized(64, 64);
    for request in [
        request::attach_backing(200, &[span.into()]),
        request::detach_backing(200),
        request::transfer_to_host_2d(200, rect, 0),
        request::set_scanout(0, 200, rect),
        context.blob_request(200, &info),
        request::create_2d(200, BGRX, 64, 64),
    ] {
        let answer = rig.gpu.answer(&request)?;
        assert!(answer >= resp::ERR_UNSPEC, "{answer:#x} for {request:x?}");
    }
    let cursor = request::Cursor {
        resource: 200,
        ..Default::default()
    };
    rig.gpu.update_cursor(cursor)?;
    // Exactly one reading of these is right, but none may end the daemon.
    rig.gpu.answer(&request::flush(200, rect))?;
    rig.gpu.assign_uuid(200)?;
    rig.shmem().write(0, b"untouched");
    assert_eq!(rig.shmem().read(0, 9), b"untouched");
    rig.gpu.unmap_blob(200)?;
    rig.finish()
}

#[test]
fn a_scanout_must_lie_inside_its_host_blob() -> Result<()> {
    let (mut rig, context) = rig()?;
    context.blob_of(&mut rig.gpu, 200, 4 * PAGE)?;
    let good = ScanoutBlob {
        scanout: 0,
        resource: 200,
        rect: Rect::sized(64, 64),
        width: 64,
        height: 64,
        format: BGRX,
        stride: 256,
        offset: 0,
    };
    for bad in [
        ScanoutBlob { offset: 4, ..good },
        ScanoutBlob {
            stride: 260,
            ..good
        },
        ScanoutBlob {
            stride: u32::MAX,
            ..good
        },
        ScanoutBlob {
            offset: u32::MAX,
            ..good
        },
        ScanoutBlob {
            rect: Rect::sized(64, 65),
            ..good
        },
    ] {
        let answer = rig.gpu.answer(&request::set_scanout_blob(bad))?;
        assert_eq!(answer, resp::ERR_INVALID_PARAMETER, "{bad:?}");
    }
    rig.gpu.set_scanout_blob(good)?;
    rig.gpu.flush(200, good.rect)?;
    rig.gpu.unref(200)?;
    rig.finish()
}

#[test]
fn mapping_is_no_command_for_the_cursor_queue() -> Result<()> {
    let (mut rig, context) = rig()?;
    context.blob_of(&mut rig.gpu, 200, PAGE)?;
    let map = request::map_blob(200, 0);
    let answer = rig.gpu.cursor.call(&map, response::MAP_INFO)?;
    assert!(answer.kind() >= resp::ERR_UNSPEC, "{:#x}", answer.kind());
    assert_eq!(rig.shmem().count(), 0);
    rig.gpu.map_blob(200, 0)?;
    rig.finish()
}

/// Median and 99th percentile.
fn percentiles(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

#[test]
fn mapping_takes_little_longer_than_the_front_ends_part_of_it() -> Result<()> {
    let (mut rig, context) = rig()?;
    for (id, len) in [(200, PAGE), (201, 1 << 20), (202, 64 << 20)] {
        let count = 300;
        context.blob_of(&mut rig.gpu, id, len)?;
        let (mut maps, mut unmaps) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let begin = Instant::now();
            rig.gpu.map_blob(id, 0)?;
            maps.push(begin.elapsed());
            let begin = Instant::now();
            rig.gpu.unmap_blob(id)?;
            unmaps.push(begin.elapsed());
        }
        let bare = BareMapping::new(len)?;
        let bare: Result<Vec<_>> = (0..count).map(|_| Ok(bare.round_trip()?.0)).collect();
        let bare = percentiles(bare?);
        let (map, unmap) = (percentiles(maps), percentiles(unmaps));
        println!("{len} bytes, p50 and p99: map {map:?}, unmap {unmap:?}, bare {bare:?}");
        // A deadline or a poll anywhere on the way would cost milliseconds each time.
        assert!(
            map.0 < bare.0 + Duration::from_millis(5),
            "{map:?} {bare:?}"
        );
        assert!(
            unmap.0 < bare.0 + Duration::from_millis(5),
            "{unmap:?} {bare:?}"
        );
    }
    rig.finish()
}

#[test]
fn a_map_whose_answer_has_no_room_does_not_stay() -> Result<()> {
    let (mut rig, context) = rig()?;
    context.blob_of(&mut rig.gpu, 200, PAGE)?;
    for room in [0, 8, response::HEADER, response::MAP_INFO - 1] {
        let response = rig.gpu.call(&request::map_blob(200, 0), room)?;
        assert_ne!(response.kind(), resp::OK_MAP_INFO, "{room}");
        // The guest has been told that it failed, or nothing.
        rig.shmem().wait_mapped(&[])?;
    }
    rig.gpu.map_blob(200, 0)?;
    rig.finish()
}
