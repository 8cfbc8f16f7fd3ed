//! Cross-domain contexts: asking for images on the host, and making host blobs of them.
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

use nosnoop_tests::frontend::cross_domain::{
    self, ANSWER, CAPSET, CMD_GET_IMAGE_REQUIREMENTS, CMD_INIT, USE_LINEAR, USE_RENDERING,
    USE_SCANOUT, command, fourcc, host_blob, ring_blob,
};
use nosnoop_tests::frontend::memory::PAGE;
use nosnoop_tests::frontend::message::feature;
use nosnoop_tests::frontend::pixels::BGRX;
use nosnoop_tests::frontend::request::{self, CreateBlob};
use nosnoop_tests::frontend::response::resp;
use nosnoop_tests::frontend::{ImageContext, ImageRequest, Result, Rig, SessionOptions};

fn image(letters: &[u8; 4], width: u32, height: u32) -> ImageRequest {
    ImageRequest {
        fourcc: fourcc(letters),
        ..ImageRequest::xrgb(width, height)
    }
}

#[test]
fn images_are_linear_and_tight() -> Result<()> {
    let mut rig = Rig::host_blobs(&[])?;
    let context = ImageContext::new(&mut rig.gpu, 1, 100)?;
    for (letters, strides, offsets, size) in [
        (b"R8  ", [64, 0, 0, 0], [0; 4], 64 * 32),
        (b"RG88", [128, 0, 0, 0], [0; 4], 128 * 32),
        (b"RG16", [128, 0, 0, 0], [0; 4], 128 * 32),
        (b"RG24", [192, 0, 0, 0], [0; 4], 192 * 32),
        (b"XR24", [256, 0, 0, 0], [0; 4], 256 * 32),
        (b"AR24", [256, 0, 0, 0], [0; 4], 256 * 32),
        (b"AB24", [256, 0, 0, 0], [0; 4], 256 * 32),
        (b"XR30", [256, 0, 0, 0], [0; 4], 256 * 32),
        (b"NV12", [64, 64, 0, 0], [0, 2048, 0, 0], 64 * 48),
        (b"YV12", [64, 32, 32, 0], [0, 2048, 2560, 0], 64 * 48),
    ] {
        let info = context.image(&mut rig.gpu, image(letters, 64, 32))?;
        let name = String::from_utf8_lossy(letters);
        assert_eq!(info.strides, strides, "{name}");
        assert_eq!(info.offsets, offsets, "{name}");
        assert_eq!(info.size, u64::next_multiple_of(size, PAGE), "{name}");
        assert_eq!(info.modifier, 0, "{name}");
        assert_eq!(info.map_info, 1, "{name}");
        assert_eq!((info.memory_index, info.physical_device_index), (-1, -1));
        assert_ne!(info.blob_id, 0);
    }
    rig.finish()
}

#[test]
fn uses_that_guests_ask_for_are_granted() -> Result<()> {
    let mut rig = Rig::host_blobs(&[])?;
    let context = ImageContext::new(&mut rig.gpu, 1, 100)?;
    for flags in [0, USE_LINEAR, USE_SCANOUT | USE_RENDERING, 0xaff] {
        let wanted = ImageRequest {
            flags,
            ..ImageRequest::xrgb(64, 64)
        };
        assert_eq!(
            context.image(&mut rig.gpu, wanted)?.size,
            16384,
            "{flags:#x}"
        );
    }
    rig.finish()
}

#[test]
fn each_form_of_init_is_understood() -> Result<()> {
    let mut rig = Rig::host_blobs(&[])?;
    let forms = [
        cross_domain::init_legacy(100, 0),
        cross_domain::init(100, 0, 0),
        cross_domain::init(100, 100, 0),
        cross_domain::init(100, 77, 0),
        cross_domain::init_current(100, 100, 0),
    ];
    ring_blob(&mut rig.gpu, 100, PAGE)?;
    for (id, form) in (1..).zip(forms) {
        rig.gpu.create_context(id, CAPSET)?;
        rig.gpu.attach_resource(id, 100)?;
        rig.gpu.submit_3d(id, &form)?;
        rig.gpu
            .submit_3d(id, &ImageRequest::xrgb(1, 1).to_bytes())?;
    }
    rig.finish()
}

/// With a driver that does not know that blobs are whole pages.
fn any_size() -> Result<Rig> {
    let mut options = SessionOptions::host_blobs();
    options.features &= !feature::BLOB_ALIGNMENT;
    Rig::start(&["--shm-size", "8G"], &options)
}

#[test]
fn an_init_that_cannot_be_is_refused_and_a_good_one_works_after() -> Result<()> {
    let mut rig = any_size()?;
    let context = ImageContext::without_init(&mut rig.gpu, 1, 100)?;
    rig.gpu.create_picture(101, BGRX, 64, 64)?;
    ring_blob(&mut rig.gpu, 102, 63)?;
    for resource in [101, 102] {
        rig.gpu.attach_resource(1, resource)?;
    }
    ring_blob(&mut rig.gpu, 103, PAGE)?;
    let early = request::submit_3d(1, &ImageRequest::xrgb(1, 1).to_bytes());
    assert_eq!(rig.gpu.answer(&early)?, resp::ERR_INVALID_PARAMETER);
    for (ring, channel_type, expected) in [
        (0, 0, resp::ERR_INVALID_RESOURCE_ID),
        (99, 0, resp::ERR_INVALID_RESOURCE_ID),
        (103, 0, resp::ERR_INVALID_RESOURCE_ID),
        (101, 0, resp::ERR_INVALID_PARAMETER),
        (102, 0, resp::ERR_INVALID_PARAMETER),
        (100, 1, resp::ERR_INVALID_PARAMETER),
        (100, u32::MAX, resp::ERR_INVALID_PARAMETER),
    ] {
        let init = request::submit_3d(1, &cross_domain::init(ring, 0, channel_type));
        assert_eq!(rig.gpu.answer(&init)?, expected, "{ring} {channel_type}");
    }
    let init = cross_domain::init(100, 0, 0);
    rig.gpu.submit_3d(1, &init)?;
    let again = rig.gpu.answer(&request::submit_3d(1, &init))?;
    assert_eq!(again, resp::ERR_INVALID_PARAMETER);
    context.image(&mut rig.gpu, ImageRequest::xrgb(1, 1))?;
    rig.finish()
}

#[test]
fn images_that_cannot_be_are_refused_and_nothing_is_written() -> Result<()> {
    let mut rig = Rig::host_blobs(&[])?;
    let context = ImageContext::new(&mut rig.gpu, 1, 100)?;
    rig.gpu.ram.fill(context.memory.addr, PAGE as usize, 0x5a)?;
    let plain = ImageRequest::xrgb(64, 64);
    let bad = [
        ImageRequest::xrgb(0, 64),
        ImageRequest::xrgb(64, 0),
        ImageRequest::xrgb(u32::MAX, 1),
        ImageRequest::xrgb(1 << 30, 1),
        ImageRequest::xrgb(65536, 65536),
        ImageRequest::xrgb(u32::MAX, u32::MAX),
        image(b"NV12", u32::MAX, u32::MAX),
        image(b"ABCD", 64, 64),
        image(&[0; 4], 64, 64),
        image(&[255; 4], 64, 64),
        ImageRequest {
            flags: 1 << 31,
            ..plain
        },
        ImageRequest {
            flags: u32::MAX,
            ..plain
        },
        // Memory that the CPU may not see.
        ImageRequest {
            flags: 1 << 8,
            ..plain
        },
    ];
    for request in bad {
        let answer = rig
            .gpu
            .answer(&request::submit_3d(1, &request.to_bytes()))?;
        assert_eq!(answer, resp::ERR_INVALID_PARAMETER, "{request:?}");
    }
    let ring = rig.gpu.ram.read(context.memory.addr, PAGE as usize)?;
    assert!(ring.iter().all(|byte| *byte == 0x5a));
    context.image(&mut rig.gpu, plain)?;
    rig.finish()
}

#[test]
fn a_ring_that_is_gone_gets_no_answer() -> Result<()> {
    let mut rig = Rig::host_blobs(&[])?;
    let request = ImageRequest::xrgb(64, 64);
    let submit = request::submit_3d(1, &request.to_bytes());
    let context = ImageContext::new(&mut rig.gpu, 1, 100)?;
    // Without memory.
    rig.gpu.detach_backing(100)?;
    assert!(rig.gpu.answer(&submit)? >= resp::ERR_UNSPEC);
    rig.gpu.attach_backing(100, &[context.memory])?;
    context.image(&mut rig.gpu, request)?;
    // Not in the context any more.
    rig.gpu.detach_resource(1, 100)?;
    assert_eq!(rig.gpu.answer(&submit)?, resp::ERR_INVALID_RESOURCE_ID);
    rig.gpu.attach_resource(1, 100)?;
    context.image(&mut rig.gpu, request)?;
    // Gone, and another one with its number.
    rig.gpu.unref(100)?;
    assert_eq!(rig.gpu.answer(&submit)?, resp::ERR_INVALID_RESOURCE_ID);
    ring_blob(&mut rig.gpu, 100, PAGE)?;
    assert_eq!(rig.gpu.answer(&submit)?, resp::ERR_INVALID_RESOURCE_ID);
    rig.finish()
}

#[test]
fn a_ring_in_memory_that_is_gone_gets_no_answer() -> Result<()> {
    let mut rig = Rig::host_blobs(&[])?;
    let extra = 0x30_0000_0000;
    let (region, fd) = rig.ram.add_region(extra, 1 << 20)?;
    rig.vhost
        .add_mem_region(region, std::os::fd::AsFd::as_fd(&fd))?;
    let span = rig.ram.alloc_above(4096, extra)?;
    rig.gpu.create_context(1, CAPSET)?;
    rig.gpu.create_blob_guest(100, PAGE, &[span])?;
    rig.gpu.attach_resource(1, 100)?;
    rig.gpu.submit_3d(1, &cross_domain::init(100, 0, 0))?;
    let submit = request::submit_3d(1, &ImageRequest::xrgb(64, 64).to_bytes());
    assert_eq!(rig.gpu.answer(&submit)?, resp::OK_NODATA);
    let region = rig.ram.remove_region(extra)?;
    rig.vhost.remove_mem_region(region)?;
    assert_eq!(rig.gpu.answer(&submit)?, resp::ERR_UNSPEC);
    rig.finish()
}

#[test]
fn a_ring_in_pieces_gets_the_whole_answer() -> Result<()> {
    let mut rig = any_size()?;
    let pieces = rig.ram.alloc_fragments(ANSWER, &[7, 13])?;
    rig.gpu.create_context(1, CAPSET)?;
    rig.gpu.create_blob_guest(100, ANSWER as u64, &pieces)?;
    rig.gpu.attach_resource(1, 100)?;
    rig.gpu.submit_3d(1, &cross_domain::init(100, 0, 0))?;
    rig.gpu.submit_3d(1, &image(b"NV12", 640, 480).to_bytes())?;
    let mut bytes = Vec::new();
    for piece in &pieces {
        bytes.extend(rig.ram.read(piece.addr, piece.len as usize)?);
    }
    let info = nosnoop_tests::frontend::ImageInfo::from_bytes(&bytes);
    assert_eq!(info.offsets, [0, 640 * 480, 0, 0]);
    assert_eq!(info.size, u64::next_multiple_of(640 * 720, PAGE));
    rig.finish()
}

#[test]
fn malformed_commands_are_refused_and_end_the_submission() -> Result<()> {
    let mut rig = Rig::host_blobs(&[])?;
    let context = ImageContext::new(&mut rig.gpu, 1, 100)?;
    let good = ImageRequest::xrgb(64, 64).to_bytes();
    let mut bad: Vec<Vec<u8>> = (1..good.len()).map(|len| good[..len].to_vec()).collect();
    for size in [0, 1, 7, 8, 23, 25, 28, u16::MAX] {
        bad.push(command(
            CMD_GET_IMAGE_REQUIREMENTS,
            size,
            &[64, 64, 0, 0, 0],
        ));
        bad.push(command(CMD_INIT, size, &[100, 0, 0]));
    }
    for cmd in [0, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255] {
        for size in [0, 8, 24] {
            bad.push(command(cmd, size, &[0; 4]));
        }
    }
    for bytes in &bad {
        let answer = rig.gpu.answer(&request::submit_3d(1, bytes))?;
        let expected = [resp::ERR_UNSPEC, resp::ERR_INVALID_PARAMETER];
        assert!(expected.contains(&answer), "{answer:#x} for {bytes:x?}");
        // Behind a good one: that is done, the answer is the error.
        rig.gpu.ram.fill(context.memory.addr, ANSWER, 0)?;
        let both = [&good[..], bytes].concat();
        let answer = rig.gpu.answer(&request::submit_3d(1, &both))?;
        assert!(expected.contains(&answer), "{answer:#x} for {both:x?}");
        assert_eq!(rig.gpu.ram.read(context.memory.addr, 4)?, [0, 1, 0, 0]);
    }
    rig.finish()
}

#[test]
fn a_submission_that_claims_more_than_it_has_is_refused() -> Result<()> {
    let mut rig = Rig::host_blobs(&[])?;
    ImageContext::new(&mut rig.gpu, 1, 100)?;
    let good = request::submit_3d(1, &ImageRequest::xrgb(64, 64).to_bytes());
    for len in 24..good.len() {
        let answer = rig.gpu.answer(&good.clone().resized(len))?;
        assert_eq!(answer, resp::ERR_UNSPEC, "{len}");
    }
    assert_eq!(rig.gpu.answer(&good)?, resp::OK_NODATA);
    rig.finish()
}

#[test]
fn a_submission_may_hold_many_commands() -> Result<()> {
    let mut rig = Rig::host_blobs(&[])?;
    let context = ImageContext::without_init(&mut rig.gpu, 1, 100)?;
    let mut bytes = cross_domain::init(100, 0, 0);
    for n in 1..=500 {
        bytes.extend(ImageRequest::xrgb(n, 1).to_bytes());
    }
    rig.gpu.submit_3d(1, &bytes)?;
    let answer = rig.gpu.ram.read(context.memory.addr, 4)?;
    assert_eq!(answer, 2000_u32.to_le_bytes());
    rig.finish()
}

#[test]
fn different_images_have_different_ids_up_to_a_limit() -> Result<()> {
    let mut rig = Rig::host_blobs(&[])?;
    let context = ImageContext::new(&mut rig.gpu, 1, 100)?;
    let mut seen = std::collections::HashSet::new();
    for n in 1..=1024 {
        let info = context.image(&mut rig.gpu, ImageRequest::xrgb(n, 3))?;
        assert!(seen.insert(info.blob_id), "{}", info.blob_id);
    }
    let more = request::submit_3d(1, &ImageRequest::xrgb(2000, 3).to_bytes());
    assert_eq!(rig.gpu.answer(&more)?, resp::ERR_OUT_OF_MEMORY);
    // Known ones still are, and another context has a limit of its own.
    let known = context.image(&mut rig.gpu, ImageRequest::xrgb(1024, 3))?;
    context.create_blob(&mut rig.gpu, 101, &known)?;
    let other = ImageContext::new(&mut rig.gpu, 2, 102)?;
    other.image(&mut rig.gpu, ImageRequest::xrgb(2000, 3))?;
    rig.finish()
}

#[test]
fn a_host_blob_needs_an_id_of_its_context_and_the_right_size() -> Result<()> {
    let mut rig = Rig::host_blobs(&[])?;
    let context = ImageContext::new(&mut rig.gpu, 1, 100)?;
    let other = ImageContext::new(&mut rig.gpu, 2, 101)?;
    let first = context.image(&mut rig.gpu, ImageRequest::xrgb(64, 64))?;
    let second = context.image(&mut rig.gpu, ImageRequest::xrgb(64, 128))?;
    other.image(&mut rig.gpu, ImageRequest::xrgb(64, 32))?;
    let (id, size) = (u64::from(first.blob_id), first.size);
    let unknown = u64::from(second.blob_id) + 1;
    for (context, blob_id, size, expected) in [
        (1, id, 0, resp::ERR_INVALID_PARAMETER),
        (1, id, size - 1, resp::ERR_INVALID_PARAMETER),
        (1, id, size + 1, resp::ERR_INVALID_PARAMETER),
        (1, id, size - PAGE, resp::ERR_INVALID_PARAMETER),
        (1, id, size + PAGE, resp::ERR_INVALID_PARAMETER),
        (1, id, 1 << 40, resp::ERR_INVALID_PARAMETER),
        (1, id, u64::MAX, resp::ERR_INVALID_PARAMETER),
        (1, 0, size, resp::ERR_INVALID_PARAMETER),
        (1, unknown, size, resp::ERR_INVALID_PARAMETER),
        (1, id | 1 << 32, size, resp::ERR_INVALID_PARAMETER),
        (1, u64::MAX, size, resp::ERR_INVALID_PARAMETER),
        (
            2,
            u64::from(second.blob_id),
            second.size,
            resp::ERR_INVALID_PARAMETER,
        ),
        (0, id, size, resp::ERR_INVALID_CONTEXT_ID),
        (3, id, size, resp::ERR_INVALID_CONTEXT_ID),
    ] {
        let answer = rig.gpu.answer(&host_blob(context, 200, blob_id, size))?;
        assert_eq!(answer, expected, "{context} {blob_id:#x} {size:#x}");
    }
    let zero = rig.gpu.answer(&host_blob(1, 0, id, size))?;
    assert_eq!(zero, resp::ERR_INVALID_RESOURCE_ID);
    context.create_blob(&mut rig.gpu, 200, &first)?;
    let taken = rig.gpu.answer(&context.blob_request(200, &first))?;
    assert_eq!(taken, resp::ERR_INVALID_RESOURCE_ID);
    rig.finish()
}

#[test]
fn memory_on_both_sides_is_not_provided() -> Result<()> {
    let mut rig = Rig::host_blobs(&[])?;
    let context = ImageContext::new(&mut rig.gpu, 1, 100)?;
    let info = context.image(&mut rig.gpu, ImageRequest::xrgb(64, 64))?;
    let span = rig.ram.alloc(info.size as usize)?;
    for entries in [&[span.into()][..], &[]] {
        let blob = CreateBlob {
            resource: 200,
            mem: 3,
            flags: 1,
            count: entries.len() as u32,
            blob_id: u64::from(info.blob_id),
            size: info.size,
        };
        let request = request::create_blob(blob, entries).in_context(1);
        let answer = rig.gpu.answer(&request)?;
        assert_eq!(
            answer,
            resp::ERR_INVALID_PARAMETER,
            "{} entries",
            entries.len()
        );
    }
    rig.finish()
}

#[test]
fn host_blobs_count_against_the_limit() -> Result<()> {
    let mut rig = Rig::host_blobs(&["--max-hostmem", "1M"])?;
    let context = ImageContext::new(&mut rig.gpu, 1, 100)?;
    let quarter = context.image(&mut rig.gpu, ImageRequest::xrgb(1024, 64))?;
    for n in 0..4 {
        context.create_blob(&mut rig.gpu, 200 + n, &quarter)?;
    }
    let one_more = context.blob_request(204, &quarter);
    assert_eq!(rig.gpu.answer(&one_more)?, resp::ERR_OUT_OF_MEMORY);
    rig.gpu.unref(202)?;
    assert_eq!(rig.gpu.answer(&one_more)?, resp::OK_NODATA);
    let huge = context.image(&mut rig.gpu, ImageRequest::xrgb(30_000, 30_000))?;
    let huge = rig.gpu.answer(&context.blob_request(300, &huge))?;
    assert_eq!(huge, resp::ERR_OUT_OF_MEMORY);
    rig.finish()
}

#[test]
fn an_id_makes_any_number_of_blobs_each_with_its_own_memory() -> Result<()> {
    let mut rig = Rig::host_blobs(&[])?;
    let context = ImageContext::new(&mut rig.gpu, 1, 100)?;
    let info = context.image(&mut rig.gpu, ImageRequest::xrgb(64, 64))?;
    for n in 0..8_u32 {
        context.create_blob(&mut rig.gpu, 200 + n, &info)?;
        let offset = u64::from(n) * info.size;
        rig.gpu.map_blob(200 + n, offset)?;
        assert_eq!(
            rig.shmem().read(offset, info.size as usize),
            vec![0; info.size as usize]
        );
        rig.shmem()
            .write(offset, &vec![n as u8 + 1; info.size as usize]);
    }
    for n in 0..8_u32 {
        let bytes = rig
            .shmem()
            .read(u64::from(n) * info.size, info.size as usize);
        assert!(bytes.iter().all(|byte| *byte == n as u8 + 1), "{n}");
    }
    rig.finish()
}
