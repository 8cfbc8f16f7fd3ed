//! Images of the cross-domain capability set: asked about, and made as host blobs.
//!
//! The command stream has no specification but its reference, `cross_domain_protocol.rs` of
//! rutabaga_gfx; sentences are those of virtio-gpu that it must keep.

use super::kit::{self, refused, with_host_blobs};
use crate::conform::case::{Case, Group, Needs, Outcome, Stop, check, equal};
use crate::conform::trial::Trial;
use crate::frontend::cross_domain::{
    self, ANSWER, CAPSET, CMD_GET_IMAGE_REQUIREMENTS, CMD_INIT, command, host_blob, ring_blob,
};
use crate::frontend::memory::PAGE;
use crate::frontend::request;
use crate::frontend::response::{HEADER, resp};
use crate::frontend::{ImageContext, ImageRequest, Session};

/// The cases of this group.
pub(super) const CASES: &[Case] = &[
    Group::CrossDomain.case_needing(
        Needs::HOST_BLOBS,
        1,
        "the capability set is 16 bytes of version 1",
        &["gpu-capset-2", "gpu-capset-4"],
        capability_set,
    ),
    Group::CrossDomain.case_needing(
        Needs::HOST_BLOBS,
        2,
        "INIT is understood in its short and its usual form",
        &["gpu-ctx-4", "gpu-ctx-7"],
        forms_of_init,
    ),
    Group::CrossDomain.case_needing(
        Needs::HOST_BLOBS,
        3,
        "the requirements of an image describe one that holds it",
        &["gpu-ctx-7"],
        requirements,
    ),
    Group::CrossDomain.case_needing(
        Needs::HOST_BLOBS,
        4,
        "an answer is 64 bytes at the beginning of the query ring, and no more",
        &["gpu-ctx-7"],
        answer_bytes,
    ),
    Group::CrossDomain.case_needing(
        Needs::HOST_BLOBS,
        5,
        "a query ring in pieces gets the whole answer",
        &["gpu-fb-1"],
        ring_in_pieces,
    ),
    Group::CrossDomain.case_needing(
        Needs::HOST_BLOBS,
        6,
        "a blob is made of the image that its blob_id names, in its size",
        &["gpu-blob-1", "gpu-blob-8"],
        blob_of_an_image,
    ),
    Group::CrossDomain.case_needing(
        Needs::HOST_BLOBS,
        7,
        "a blob of another size than its image's is refused",
        &["gpu-blob-8", "gpu-header-3"],
        size_mismatch,
    ),
    Group::CrossDomain.case_needing(
        Needs::HOST_BLOBS,
        8,
        "a blob_id that names no image of the context is refused",
        &["gpu-blob-8", "gpu-header-3"],
        unknown_blob_id,
    ),
    Group::CrossDomain.case_needing(
        Needs::HOST_BLOBS,
        9,
        "a host blob in a context that is not there is refused",
        &["gpu-blob-8", "gpu-header-3"],
        unknown_context,
    ),
    Group::CrossDomain.case_needing(
        Needs::HOST_BLOBS,
        10,
        "a blob_id makes several blobs",
        &["gpu-blob-8"],
        blob_id_again,
    ),
    Group::CrossDomain.case_needing(
        Needs::HOST_BLOBS,
        11,
        "a command whose size is 0, short or beyond the stream is refused",
        &["gpu-ctx-7", "gpu-header-3"],
        bad_command_sizes,
    ),
    Group::CrossDomain.case_needing(
        Needs::HOST_BLOBS,
        12,
        "a command that does not exist is refused",
        &["gpu-ctx-7", "gpu-header-3"],
        unknown_commands,
    ),
    Group::CrossDomain.case_needing(
        Needs::HOST_BLOBS,
        13,
        "several commands in one stream are done in order",
        &["gpu-ctx-7"],
        several_commands,
    ),
    Group::CrossDomain.case_needing(
        Needs::HOST_BLOBS,
        14,
        "a question before INIT is refused",
        &["gpu-ctx-7", "gpu-header-3"],
        before_init,
    ),
    Group::CrossDomain.case_needing(
        Needs::HOST_BLOBS,
        15,
        "an INIT with a ring that is not there is refused",
        &["gpu-ctx-7", "gpu-header-3"],
        init_without_ring,
    ),
    Group::CrossDomain.case_needing(
        Needs::HOST_BLOBS,
        16,
        "images that cannot exist are refused, and nothing is written",
        &["gpu-ctx-7", "gpu-header-3"],
        impossible_images,
    ),
    Group::CrossDomain.case_needing(
        Needs::HOST_BLOBS,
        17,
        "a question whose ring has gone is refused, and the context goes on",
        &["gpu-ctx-7", "gpu-header-3"],
        ring_gone,
    ),
];

/// A device whose context 1 is made but not initialized; its ring is resource 100.
fn without_init(trial: &mut Trial) -> Result<(Session, ImageContext), Stop> {
    let mut session = trial.session(&with_host_blobs())?;
    kit::need_cross_domain(&mut session)?;
    let context = ImageContext::without_init(&mut session.gpu, 1, 100)?;
    Ok((session, context))
}

fn capability_set(trial: &mut Trial) -> Outcome {
    let mut session = trial.session(&with_host_blobs())?;
    kit::need_cross_domain(&mut session)?;
    let sets = kit::capsets(&mut session)?;
    let set = sets.into_iter().find(|set| set[0] == CAPSET);
    // No sentence fixes the version.
    let version = set.map_or(0, |set| set[1]);
    equal(
        "id and size",
        set.map(|set| [set[0], set[2]]),
        Some([CAPSET, 16]),
    )?;
    let answer = session
        .gpu
        .call(&request::get_capset(CAPSET, version), HEADER + 16)?;
    let answer = answer.expect("GET_CAPSET", resp::OK_CAPSET)?;
    equal("bytes of data", answer.written() - HEADER, 16)?;
    kit::works(&mut session)
}

fn forms_of_init(trial: &mut Trial) -> Outcome {
    let (mut session, _) = without_init(trial)?;
    let forms = [
        cross_domain::init_legacy(100, 0),
        cross_domain::init(100, 0, 0),
    ];
    for (id, form) in (2..).zip(forms) {
        session.gpu.create_context(id, CAPSET)?;
        session.gpu.attach_resource(id, 100)?;
        session.gpu.submit_3d(id, &form)?;
        let question = ImageRequest::xrgb(64, 64).to_bytes();
        session.gpu.submit_3d(id, &question)?;
    }
    kit::works(&mut session)
}

fn requirements(trial: &mut Trial) -> Outcome {
    let (mut session, context) = kit::host_blobs(trial)?;
    for (width, height) in [(64, 64), (1, 1), (1024, 768), (333, 77)] {
        let image = ImageRequest::xrgb(width, height);
        let info = context.image(&mut session.gpu, image)?;
        let what = format!("{width} x {height}: {info:?}");
        check(
            info.strides[0] >= 4 * width,
            format_args!("short rows, {what}"),
        )?;
        let rows = u64::from(info.strides[0]) * u64::from(height - 1);
        let least = u64::from(info.offsets[0]) + rows + 4 * u64::from(width);
        check(info.size >= least, format_args!("too small, {what}"))?;
        check(
            info.modifier == 0,
            format_args!("asked to be linear, {what}"),
        )?;
        check(
            (0..=3).contains(&(info.map_info & 0xf)),
            format_args!("map_info, {what}"),
        )?;
    }
    kit::works(&mut session)
}

fn answer_bytes(trial: &mut Trial) -> Outcome {
    let (mut session, context) = kit::host_blobs(trial)?;
    // Anything else than that is an error of `image`.
    let first = context.image(&mut session.gpu, ImageRequest::xrgb(128, 8))?;
    let again = context.image(&mut session.gpu, ImageRequest::xrgb(128, 8))?;
    equal("strides at the second ask", again.strides, first.strides)?;
    equal("size at the second ask", again.size, first.size)?;
    kit::works(&mut session)
}

fn ring_in_pieces(trial: &mut Trial) -> Outcome {
    let (mut session, context) = kit::host_blobs(trial)?;
    let image = ImageRequest::xrgb(640, 480);
    let expected = context.image(&mut session.gpu, image)?;
    let pieces = session.ram.alloc_fragments(PAGE as usize, &[12, 20])?;
    session.gpu.create_context(2, CAPSET)?;
    session.gpu.create_blob_guest(101, PAGE, &pieces)?;
    session.gpu.attach_resource(2, 101)?;
    session.gpu.submit_3d(2, &cross_domain::init(101, 0, 0))?;
    session.gpu.submit_3d(2, &image.to_bytes())?;
    let mut bytes = Vec::new();
    for piece in &pieces {
        bytes.extend(session.ram.read(piece.addr, piece.len as usize)?);
    }
    let info = crate::frontend::ImageInfo::from_bytes(&bytes);
    equal("strides", info.strides, expected.strides)?;
    equal("size", info.size, expected.size)?;
    check(
        bytes[ANSWER..].iter().all(|byte| *byte == 0),
        "bytes behind the answer were written",
    )?;
    kit::works(&mut session)
}

fn blob_of_an_image(trial: &mut Trial) -> Outcome {
    let (mut session, context) = kit::host_blobs(trial)?;
    for (resource, height) in (200..).zip([1, 4, 300]) {
        let info = context.image(&mut session.gpu, ImageRequest::xrgb(1024, height))?;
        context.create_blob(&mut session.gpu, resource, &info)?;
        let taken = context.blob_request(resource, &info);
        refused(&mut session, "RESOURCE_CREATE_BLOB of a taken id", &taken)?;
    }
    for resource in 200..203 {
        session.gpu.unref(resource)?;
    }
    kit::works(&mut session)
}

fn size_mismatch(trial: &mut Trial) -> Outcome {
    let (mut session, context) = kit::host_blobs(trial)?;
    let info = context.image(&mut session.gpu, ImageRequest::xrgb(1024, 8))?;
    let (id, size) = (u64::from(info.blob_id), info.blob_size());
    for wrong in [
        0,
        PAGE,
        size - PAGE,
        size + PAGE,
        2 * size,
        1 << 40,
        u64::MAX - 4095,
    ] {
        let request = host_blob(1, 200, id, wrong);
        let what = format!("a blob of {wrong:#x} bytes for an image of {size:#x}");
        refused(&mut session, &what, &request)?;
    }
    context.create_blob(&mut session.gpu, 200, &info)?;
    kit::works(&mut session)
}

fn unknown_blob_id(trial: &mut Trial) -> Outcome {
    let (mut session, context) = kit::host_blobs(trial)?;
    let other = ImageContext::new(&mut session.gpu, 2, 101)?;
    let info = context.image(&mut session.gpu, ImageRequest::xrgb(64, 64))?;
    let (id, size) = (u64::from(info.blob_id), info.blob_size());
    for wrong in [id + 1000, id | 1 << 32, u64::MAX] {
        let request = host_blob(1, 200, wrong, size);
        refused(&mut session, &format!("blob_id {wrong:#x}"), &request)?;
    }
    // The other context has never been asked for an image.
    let request = other.blob_request(200, &info);
    refused(&mut session, "the blob_id of another context", &request)?;
    kit::works(&mut session)
}

fn unknown_context(trial: &mut Trial) -> Outcome {
    let (mut session, context) = kit::host_blobs(trial)?;
    let info = context.image(&mut session.gpu, ImageRequest::xrgb(64, 64))?;
    for id in [0, 2, u32::MAX] {
        let request = host_blob(id, 200, u64::from(info.blob_id), info.blob_size());
        refused(&mut session, &format!("a blob in context {id}"), &request)?;
    }
    kit::works(&mut session)
}

fn blob_id_again(trial: &mut Trial) -> Outcome {
    let (mut session, context) = kit::host_blobs(trial)?;
    let info = context.image(&mut session.gpu, ImageRequest::xrgb(1024, 1))?;
    for resource in 200..204_u32 {
        context.create_blob(&mut session.gpu, resource, &info)?;
    }
    for resource in 200..204_u32 {
        let offset = u64::from(resource - 200) * info.blob_size();
        session.gpu.map_blob(resource, offset)?;
        session.shmem().try_write(offset, &[resource as u8; 16])?;
    }
    for resource in 200..204_u32 {
        let offset = u64::from(resource - 200) * info.blob_size();
        let bytes = session.shmem().try_read(offset, 16)?;
        equal(
            &format!("bytes of blob {resource}"),
            bytes,
            vec![resource as u8; 16],
        )?;
    }
    kit::works(&mut session)
}

/// A stream is refused alone, and behind a good command.
fn stream_refused(session: &mut Session, what: &str, bytes: &[u8]) -> Outcome {
    let submit = request::submit_3d(1, bytes);
    refused(session, what, &submit)?;
    let behind = [&ImageRequest::xrgb(8, 8).to_bytes()[..], bytes].concat();
    let submit = request::submit_3d(1, &behind);
    refused(session, &format!("{what}, behind a good one"), &submit)
}

fn bad_command_sizes(trial: &mut Trial) -> Outcome {
    let (mut session, context) = kit::host_blobs(trial)?;
    let fields = [64, 64, cross_domain::XR24, cross_domain::USE_LINEAR];
    for size in [0, 1, 7, 8, 23, 25, u16::MAX] {
        for (name, cmd) in [
            ("INIT", CMD_INIT),
            ("GET_IMAGE_REQUIREMENTS", CMD_GET_IMAGE_REQUIREMENTS),
        ] {
            let bytes = command(cmd, size, &fields);
            stream_refused(
                &mut session,
                &format!("{name} with cmd_size {size}"),
                &bytes,
            )?;
        }
    }
    let whole = ImageRequest::xrgb(64, 64).to_bytes();
    for len in [1, 4, 7, 8, 12, 23] {
        let what = format!("the first {len} bytes of a command");
        stream_refused(&mut session, &what, &whole[..len])?;
    }
    context.image(&mut session.gpu, ImageRequest::xrgb(64, 64))?;
    kit::works(&mut session)
}

fn unknown_commands(trial: &mut Trial) -> Outcome {
    let (mut session, context) = kit::host_blobs(trial)?;
    for cmd in [0, 100, 255] {
        for size in [8, 24] {
            let bytes = command(cmd, size, &[0; 4]);
            stream_refused(
                &mut session,
                &format!("command {cmd} of {size} bytes"),
                &bytes,
            )?;
        }
    }
    context.image(&mut session.gpu, ImageRequest::xrgb(64, 64))?;
    kit::works(&mut session)
}

fn several_commands(trial: &mut Trial) -> Outcome {
    let (mut session, context) = without_init(trial)?;
    let mut bytes = cross_domain::init(100, 0, 0);
    for width in [16, 256, 64] {
        bytes.extend(ImageRequest::xrgb(width, 4).to_bytes());
    }
    session.gpu.submit_3d(1, &bytes)?;
    let answer = session.ram.read(context.memory.addr, ANSWER)?;
    let last = crate::frontend::ImageInfo::from_bytes(&answer);
    let alone = context.image(&mut session.gpu, ImageRequest::xrgb(64, 4))?;
    equal("strides of the last image", last.strides, alone.strides)?;
    equal("size of the last image", last.size, alone.size)?;
    kit::works(&mut session)
}

fn before_init(trial: &mut Trial) -> Outcome {
    let (mut session, context) = without_init(trial)?;
    let question = ImageRequest::xrgb(64, 64);
    let submit = request::submit_3d(1, &question.to_bytes());
    refused(&mut session, "GET_IMAGE_REQUIREMENTS before INIT", &submit)?;
    session.gpu.submit_3d(1, &cross_domain::init(100, 0, 0))?;
    context.image(&mut session.gpu, question)?;
    kit::works(&mut session)
}

fn init_without_ring(trial: &mut Trial) -> Outcome {
    let (mut session, context) = without_init(trial)?;
    // 102 is a blob but not attached to the context.
    ring_blob(&mut session.gpu, 102, PAGE)?;
    for ring in [0, 99, 102, u32::MAX] {
        let submit = request::submit_3d(1, &cross_domain::init(ring, 0, 0));
        refused(&mut session, &format!("INIT with ring {ring}"), &submit)?;
    }
    session.gpu.submit_3d(1, &cross_domain::init(100, 0, 0))?;
    context.image(&mut session.gpu, ImageRequest::xrgb(64, 64))?;
    kit::works(&mut session)
}

fn impossible_images(trial: &mut Trial) -> Outcome {
    let (mut session, context) = kit::host_blobs(trial)?;
    session.ram.fill(context.memory.addr, PAGE as usize, 0x5a)?;
    let plain = ImageRequest::xrgb(64, 64);
    for image in [
        ImageRequest::xrgb(0, 64),
        ImageRequest::xrgb(64, 0),
        ImageRequest::xrgb(u32::MAX, u32::MAX),
        ImageRequest::xrgb(1 << 30, 1 << 30),
        ImageRequest { fourcc: 0, ..plain },
        ImageRequest {
            fourcc: u32::MAX,
            ..plain
        },
    ] {
        let submit = request::submit_3d(1, &image.to_bytes());
        refused(&mut session, &format!("{image:?}"), &submit)?;
    }
    let ring = session.ram.read(context.memory.addr, PAGE as usize)?;
    check(
        ring.iter().all(|byte| *byte == 0x5a),
        "the query ring was written for an image that was refused",
    )?;
    context.image(&mut session.gpu, plain)?;
    kit::works(&mut session)
}

fn ring_gone(trial: &mut Trial) -> Outcome {
    let (mut session, context) = kit::host_blobs(trial)?;
    let question = ImageRequest::xrgb(64, 64);
    let submit = request::submit_3d(1, &question.to_bytes());
    session.gpu.detach_backing(100)?;
    refused(
        &mut session,
        "a question without memory for the answer",
        &submit,
    )?;
    session.gpu.attach_backing(100, &[context.memory])?;
    context.image(&mut session.gpu, question)?;
    session.gpu.unref(100)?;
    refused(&mut session, "a question without a ring", &submit)?;
    let other = ImageContext::new(&mut session.gpu, 2, 101)?;
    other.image(&mut session.gpu, question)?;
    kit::works(&mut session)
}
