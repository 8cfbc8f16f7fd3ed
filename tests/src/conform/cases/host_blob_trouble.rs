//! Blobs in host memory: mappings that cannot be, and front-ends that refuse or are slow.

use std::time::{Duration, Instant};

use super::host_blob::{PAGES, SIZE, mapped, with_blobs};
use super::kit::{self, Batch, is_error, refused, succeeds};
use crate::conform::case::{Case, Group, Needs, Outcome, check, equal};
use crate::conform::trial::Trial;
use crate::frontend::memory::PAGE;
use crate::frontend::pixels::BGRX;
use crate::frontend::request::{self, FLAG_FENCE};
use crate::frontend::response::{self, resp};
use crate::frontend::shmem::{SHMEM_MAP, SHMEM_UNMAP};
use crate::frontend::{Ack, ImageContext, ImageRequest};

/// The cases of this group.
pub(super) const CASES: &[Case] = &[
    Group::HostBlob.case_needing(
        Needs::HOST_BLOBS,
        9,
        "a blob is mapped once at a time",
        &["gpu-map-2", "vu-38"],
        map_twice,
    ),
    Group::HostBlob.case_needing(
        Needs::HOST_BLOBS,
        10,
        "a blob is not mapped over another",
        &["vu-38", "gpu-header-3"],
        overlap,
    ),
    Group::HostBlob.case_needing(
        Needs::HOST_BLOBS,
        13,
        "a blob that would reach beyond the region is refused",
        &["vu-38", "gpu-header-3"],
        beyond_region,
    ),
    Group::HostBlob.case_needing(
        Needs::HOST_BLOBS,
        14,
        "an offset inside a page is refused",
        &["gpu-map-4", "gpu-header-3"],
        unaligned_offset,
    ),
    Group::HostBlob.case_needing(
        Needs::HOST_BLOBS,
        15,
        "mapping what is no host blob is refused, and so is unmapping what is not mapped",
        &["gpu-map-1", "gpu-map-5", "gpu-header-3"],
        nothing_to_map,
    ),
    Group::HostBlob.case_needing(
        Needs::HOST_BLOBS,
        17,
        "a context may go while a blob of it is mapped",
        &["gpu-ctx-6", "vu-39"],
        context_gone_while_mapped,
    ),
    Group::HostBlob.case_needing(
        Needs::HOST_BLOBS,
        18,
        "what the front-end refuses to map is an error to the guest, and can be mapped later",
        &["vu-37", "gpu-header-3"],
        refused_by_front_end,
    ),
    Group::HostBlob.case_needing(
        Needs::HOST_BLOBS,
        19,
        "the guest is told of a mapping only when the front-end has made it",
        &["vu-37", "gpu-map-1"],
        slow_front_end,
    ),
    Group::HostBlob.case_needing(
        Needs::HOST_BLOBS,
        20,
        "a fenced MAP_BLOB carries its fence when it is mapped",
        &["gpu-fence-3", "gpu-fence-4", "gpu-fence-5"],
        fenced,
    ),
    Group::HostBlob.case_needing(
        Needs::HOST_BLOBS,
        21,
        "commands on one blob that are queued together are done in their order",
        &["gpu-map-1", "gpu-map-5"],
        queued_together,
    ),
    Group::HostBlob.case_needing(
        Needs::HOST_BLOBS.and(Needs::protocol(
            crate::frontend::message::protocol::RESET_DEVICE,
        )),
        23,
        "a place where a blob was mapped is free after a device reset",
        &["vu-27", "vu-38"],
        reset_while_mapped,
    ),
    Group::HostBlob.case_needing(
        Needs::HOST_BLOBS,
        24,
        "while the front-end is slow to map, the cursor queue and the main socket are served",
        &["gpu-cursorq-1", "vu-11"],
        others_are_served,
    ),
];

fn map_twice(trial: &mut Trial) -> Outcome {
    let (mut session, _) = with_blobs(trial, 1)?;
    session.gpu.map_blob(200, 0)?;
    for offset in [0, PAGE, 16 * PAGE] {
        let again = request::map_blob(200, offset);
        refused(
            &mut session,
            &format!("MAP_BLOB again at {offset:#x}"),
            &again,
        )?;
    }
    mapped(&session, "after a second MAP_BLOB", &[(0, SIZE)])?;
    session.gpu.unmap_blob(200)?;
    mapped(&session, "after one UNMAP_BLOB", &[])?;
    kit::works(&mut session)
}

fn overlap(trial: &mut Trial) -> Outcome {
    let (mut session, _) = with_blobs(trial, 2)?;
    session.gpu.map_blob(200, 8 * PAGE)?;
    for page in [5, 7, 8, 9, 11] {
        let over = request::map_blob(201, page * PAGE);
        refused(&mut session, &format!("MAP_BLOB over page {page}"), &over)?;
    }
    mapped(&session, "after all were refused", &[(8 * PAGE, SIZE)])?;
    kit::works(&mut session)
}

fn beyond_region(trial: &mut Trial) -> Outcome {
    let (mut session, _) = with_blobs(trial, 1)?;
    let size = session.shmem().size();
    let last = u64::MAX - PAGE + 1;
    for offset in [
        size,
        size - SIZE + PAGE,
        size + SIZE,
        1 << 62,
        last - SIZE + PAGE,
        last,
    ] {
        let map = request::map_blob(200, offset);
        refused(&mut session, &format!("MAP_BLOB at {offset:#x}"), &map)?;
    }
    mapped(&session, "after all were refused", &[])?;
    kit::works(&mut session)
}

fn unaligned_offset(trial: &mut Trial) -> Outcome {
    let (mut session, _) = with_blobs(trial, 1)?;
    for offset in [1, 512, PAGE - 1, PAGE + 8] {
        let map = request::map_blob(200, offset);
        refused(&mut session, &format!("MAP_BLOB at {offset:#x}"), &map)?;
    }
    mapped(&session, "after all were refused", &[])?;
    kit::works(&mut session)
}

fn nothing_to_map(trial: &mut Trial) -> Outcome {
    let (mut session, _) = with_blobs(trial, 1)?;
    session.gpu.create_picture(5, BGRX, 32, 32)?;
    for (what, id) in [
        ("no resource", 0),
        ("no resource", 77),
        ("a 2D resource", 5),
    ] {
        let map = request::map_blob(id, 0);
        refused(&mut session, &format!("MAP_BLOB of {what}"), &map)?;
        let unmap = request::unmap_blob(id);
        refused(&mut session, &format!("UNMAP_BLOB of {what}"), &unmap)?;
    }
    let unmap = request::unmap_blob(200);
    refused(&mut session, "UNMAP_BLOB of what is not mapped", &unmap)?;
    session.gpu.map_blob(200, 0)?;
    session.gpu.unmap_blob(200)?;
    refused(&mut session, "UNMAP_BLOB again", &unmap)?;
    kit::works(&mut session)
}

fn context_gone_while_mapped(trial: &mut Trial) -> Outcome {
    let (mut session, _) = with_blobs(trial, 1)?;
    session.gpu.map_blob(200, 0)?;
    session
        .gpu
        .command("CTX_DESTROY", &request::ctx_destroy(1))?;
    // Whether the resource outlives its context is left open; when it has gone nothing is mapped.
    succeeds(&mut session, "RESOURCE_UNREF", &request::unref(200))?;
    session.shmem().wait_mapped(&[])?;
    ImageContext::new(&mut session.gpu, 1, 110)?;
    kit::works(&mut session)
}

fn refused_by_front_end(trial: &mut Trial) -> Outcome {
    let (mut session, _) = with_blobs(trial, 2)?;
    for code in [1, 22] {
        session.shmem().script(&[Ack::Refuse(code)]);
        let map = request::map_blob(200, 0);
        let done = succeeds(&mut session, "MAP_BLOB that the front-end refused", &map)?;
        kit::need_reply(&session)?;
        check(!done, "MAP_BLOB that the front-end refused: no error")?;
        mapped(&session, "after a refusal", &[])?;
    }
    let unmap = request::unmap_blob(200);
    refused(&mut session, "UNMAP_BLOB after it", &unmap)?;
    session.gpu.map_blob(201, 0)?;
    session.gpu.map_blob(200, SIZE)?;
    mapped(&session, "in the end", &[(0, SIZE), (SIZE, SIZE)])?;
    kit::works(&mut session)
}

/// How long the front-end takes in cases of a slow one.
const PAUSE: Duration = Duration::from_millis(150);

fn slow_front_end(trial: &mut Trial) -> Outcome {
    let (mut session, _) = with_blobs(trial, 1)?;
    session.shmem().script(&[Ack::Late(PAUSE)]);
    let begin = Instant::now();
    session.gpu.map_blob(200, 0)?;
    kit::need_reply(&session)?;
    check(
        begin.elapsed() >= PAUSE,
        format_args!(
            "answered after {:?}, mapped after {PAUSE:?}",
            begin.elapsed()
        ),
    )?;
    session.shmem().script(&[Ack::Late(PAUSE)]);
    let begin = Instant::now();
    session.gpu.unmap_blob(200)?;
    check(
        begin.elapsed() >= PAUSE,
        format_args!(
            "answered after {:?}, unmapped after {PAUSE:?}",
            begin.elapsed()
        ),
    )?;
    kit::works(&mut session)
}

fn fenced(trial: &mut Trial) -> Outcome {
    let (mut session, _) = with_blobs(trial, 1)?;
    session.shmem().script(&[Ack::Late(PAUSE / 2)]);
    for (what, request, expected) in [
        ("MAP_BLOB", request::map_blob(200, 0), resp::OK_MAP_INFO),
        ("UNMAP_BLOB", request::unmap_blob(200), resp::OK_NODATA),
        ("UNMAP_BLOB again", request::unmap_blob(200), 0),
    ] {
        let id = 0x7_0000_0001;
        let answer = session.gpu.call(&request.fenced(id), response::MAP_INFO)?;
        check(
            answer.kind() == expected || expected == 0 && is_error(answer.kind()),
            format_args!("{what}: answered {:#06x}", answer.kind()),
        )?;
        let flagged = answer.flags() & FLAG_FENCE != 0;
        check(flagged, format_args!("{what}: no fence flag in the answer"))?;
        equal(&format!("{what}: fence id"), answer.fence_id(), id)?;
    }
    kit::works(&mut session)
}

fn queued_together(trial: &mut Trial) -> Outcome {
    let (mut session, _) = with_blobs(trial, 1)?;
    session.shmem().script(&[Ack::Late(PAUSE / 2)]);
    // Each with whether it is to succeed.
    let steps = [
        (request::map_blob(200, 0), true),
        (request::map_blob(200, SIZE), false),
        (request::unmap_blob(200), true),
        (request::unmap_blob(200), false),
        (request::map_blob(200, 2 * SIZE), true),
        (request::unref(200), true),
    ];
    let mut batch = Batch::default();
    for (request, _) in &steps {
        batch.push(&mut session.gpu, request, response::MAP_INFO)?;
    }
    for (at, answer) in batch.answers(&mut session.gpu)? {
        let done = [resp::OK_NODATA, resp::OK_MAP_INFO].contains(&answer.kind());
        check(
            done == steps[at].1 && done != is_error(answer.kind()),
            format_args!("command {at}: answered {:#06x}", answer.kind()),
        )?;
    }
    session.shmem().wait_mapped(&[])?;
    let requests = session.shmem().requests();
    let asked: Vec<_> = requests.iter().map(|r| (r.kind, r.offset)).collect();
    let order = [
        (SHMEM_MAP, 0),
        (SHMEM_UNMAP, 0),
        (SHMEM_MAP, 2 * SIZE),
        (SHMEM_UNMAP, 2 * SIZE),
    ];
    equal("asked of the front-end", asked, order.to_vec())?;
    kit::works(&mut session)
}

fn reset_while_mapped(trial: &mut Trial) -> Outcome {
    let (mut session, _) = with_blobs(trial, 2)?;
    session.gpu.map_blob(200, 0)?;
    session.gpu.map_blob(201, 8 * SIZE)?;
    session.reset_device()?;
    kit::need_cross_domain(&mut session)?;
    let context = ImageContext::new(&mut session.gpu, 1, 100)?;
    let info = context.image(&mut session.gpu, ImageRequest::xrgb(1024, PAGES as u32))?;
    context.create_blob(&mut session.gpu, 200, &info)?;
    // Over a mapping that was left there the front-end would refuse, and note it.
    session.gpu.map_blob(200, PAGE)?;
    let bytes = session.shmem().try_read(PAGE, SIZE as usize)?;
    check(
        bytes.iter().all(|byte| *byte == 0),
        "a new blob is not empty",
    )?;
    kit::works(&mut session)
}

fn others_are_served(trial: &mut Trial) -> Outcome {
    let (mut session, _) = with_blobs(trial, 1)?;
    // Nothing is read from the channel: whoever waits for an answer waits now.
    session.shmem().set_serving(false);
    let map = request::map_blob(200, 0);
    let ticket = session.gpu.control.submit(&map, response::MAP_INFO)?;
    session.gpu.control.kick()?;
    std::thread::sleep(PAUSE / 5);
    for _ in 0..3 {
        session.gpu.move_cursor(request::Cursor::default())?;
        session.vhost.barrier()?;
    }
    equal("requests that were served", session.shmem().count(), 0)?;
    session.shmem().set_serving(true);
    let answer = session.gpu.control.wait(ticket)?;
    equal("MAP_BLOB", answer.kind(), resp::OK_MAP_INFO)?;
    kit::works(&mut session)
}
