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

#[path = "host_blob/cost.rs"]
mod cost;
#[path = "host_blob/gone.rs"]
mod gone;
#[path = "host_blob/shown.rs"]
mod shown;

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nosnoop_tests::frontend::cross_domain::{host_blob, ring_blob};
use nosnoop_tests::frontend::memory::{PAGE, USER_OFFSET};
use nosnoop_tests::frontend::message::{
    FLAG_NEED_REPLY, FLAG_VERSION, Header, MemoryRegion, protocol,
};
use nosnoop_tests::frontend::pixels::{BGRX, Picture, noise};
use nosnoop_tests::frontend::request::{self, BLOB_MEM_HOST3D, CreateBlob, Rect, ScanoutBlob};
use nosnoop_tests::frontend::response::{self, resp};
use nosnoop_tests::frontend::ring::{DESC_WRITE, Descriptor};
use nosnoop_tests::frontend::shmem::{FLAG_WRITABLE, SHMEM_MAP, SHMEM_UNMAP};
use nosnoop_tests::frontend::{
    Ack, Daemon, Deadline, DisplayConfig, ImageContext, ImageRequest, Result, Rig, Session,
    SessionOptions, ShmemServer, VhostUser,
};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

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
