//! Fences: the flag and the id come back, when the work is done, in the order of their timeline.

use std::time::Duration;

use super::kit::{self, Batch, is_error};
use crate::conform::case::{Case, Group, Needs, Outcome, Stop, check, equal};
use crate::conform::trial::Trial;
use crate::frontend::message::feature;
use crate::frontend::pixels::{BGRA, BGRX, Picture, noise};
use crate::frontend::request::{
    self, Cursor, FLAG_FENCE, FLAG_INFO_RING_IDX, Rect, RequestBytes, cmd,
};
use crate::frontend::response::{self, Response, resp};
use crate::frontend::{Ack, Gpu, ImageRequest, Session, patience};

const CONTEXTS: Needs = Needs::features(feature::VIRGL | feature::CONTEXT_INIT);

/// The cases of this group.
pub(super) const CASES: &[Case] = &[
    Group::Fences.case(
        1,
        "the answer to a fenced command has the flag and the whole 64-bit id",
        &["gpu-fence-3", "gpu-fence-4"],
        flag_and_id,
    ),
    Group::Fences.case(
        2,
        "every 2D command carries its fence",
        &["gpu-fence-3", "gpu-fence-4"],
        every_2d_command,
    ),
    Group::Fences.case(
        3,
        "a command that fails carries its fence with the error",
        &["gpu-fence-3", "gpu-fence-4", "gpu-header-3"],
        failing_commands,
    ),
    Group::Fences.case(
        4,
        "a command of an unknown type carries its fence with the error",
        &["gpu-fence-3", "gpu-fence-4", "gpu-header-3"],
        unknown_command,
    ),
    Group::Fences.case(
        5,
        "the answer to a command without a fence has none",
        &["gpu-fence-3"],
        no_fence,
    ),
    Group::Fences.case(
        6,
        "a fenced transfer has read the guest's memory when it is answered",
        &["gpu-fence-2", "gpu-fence-5"],
        transfer_is_complete,
    ),
    Group::Fences.case(
        7,
        "a fenced cursor command with room for an answer gets one with its fence",
        &["gpu-fence-3", "gpu-fence-4", "gpu-cursor-3"],
        cursor_commands,
    ),
    Group::Fences.case(
        8,
        "fences of long and short commands that are queued together all come back",
        &["gpu-fence-3", "gpu-fence-4"],
        long_and_short,
    ),
    Group::Fences.case(
        9,
        "ids that repeat or fall come back with the commands that had them",
        &["gpu-fence-4"],
        ids_in_any_order,
    ),
    Group::Fences.case_needing(
        CONTEXTS,
        10,
        "a fence on a context's ring comes back with its id, and with no other ring's index",
        &["gpu-fence-3", "gpu-fence-4", "gpu-fence-7"],
        ring_indices,
    ),
    Group::Fences.case_needing(
        CONTEXTS,
        11,
        "fences on ring 0 of each context come back in the order of their sequence numbers",
        &["gpu-fence-8", "gpu-fence-9"],
        timelines_in_order,
    ),
    Group::Fences.case_needing(
        CONTEXTS,
        12,
        "a failing command on a context's ring completes its fence",
        &["gpu-fence-3", "gpu-fence-9"],
        failure_on_a_timeline,
    ),
    Group::Fences.case_needing(
        CONTEXTS,
        13,
        "a ring index above 63 harms nothing, and an answer to it has its fence",
        &["gpu-fence-7"],
        ring_index_out_of_range,
    ),
    Group::Fences.case_needing(
        CONTEXTS,
        14,
        "context commands carry their fences",
        &["gpu-fence-3", "gpu-fence-4"],
        context_commands,
    ),
    Group::Fences.case_needing(
        Needs::HOST_BLOBS,
        15,
        "a fence does not overtake a slow command of its timeline",
        &["gpu-fence-8", "gpu-fence-9"],
        slow_command,
    ),
];

/// Fails unless the answer has this fence.
fn fence(what: &str, answer: &Response, id: u64) -> Outcome {
    check(
        answer.written() >= response::HEADER,
        format_args!("{what}: {} bytes are no header", answer.written()),
    )?;
    check(
        answer.flags() & FLAG_FENCE != 0,
        format_args!("{what}: no fence flag in the answer"),
    )?;
    equal(&format!("{what}: fence id"), answer.fence_id(), id)
}

/// Sends a fenced request that must succeed, and checks the fence.
fn fenced(gpu: &mut Gpu, what: &str, request: RequestBytes, id: u64) -> Outcome {
    let answer = gpu.call(&request.fenced(id), response::EDID)?;
    fence(what, &answer, id)?;
    check(
        !is_error(answer.kind()),
        format_args!("{what}: answered {:#06x}", answer.kind()),
    )
}

/// Ids whose halves and ends would show a field that is cut or signed.
const IDS: [u64; 6] = [
    1,
    0,
    0xffff_ffff,
    0x1_0000_0000,
    0x8000_0000_0000_0001,
    u64::MAX,
];

fn flag_and_id(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    for id in IDS {
        let request = request::get_display_info();
        fenced(&mut session.gpu, "GET_DISPLAY_INFO", request, id)?;
    }
    kit::works(&mut session)
}

fn every_2d_command(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    let memory = [session.ram.alloc(4 * 64 * 64)?.into()];
    let all = Rect::sized(64, 64);
    let mut commands = vec![
        ("RESOURCE_CREATE_2D", request::create_2d(1, BGRX, 64, 64)),
        (
            "RESOURCE_ATTACH_BACKING",
            request::attach_backing(1, &memory),
        ),
        (
            "TRANSFER_TO_HOST_2D",
            request::transfer_to_host_2d(1, all, 0),
        ),
        ("SET_SCANOUT", request::set_scanout(0, 1, all)),
        ("RESOURCE_FLUSH", request::flush(1, all)),
        ("GET_DISPLAY_INFO", request::get_display_info()),
    ];
    if session.features & feature::EDID != 0 {
        commands.push(("GET_EDID", request::get_edid(0)));
    }
    if session.features & feature::RESOURCE_UUID != 0 {
        commands.push(("RESOURCE_ASSIGN_UUID", request::assign_uuid(1)));
    }
    let off = request::set_scanout(0, 0, Rect::default());
    commands.push(("SET_SCANOUT (off)", off));
    commands.push(("RESOURCE_DETACH_BACKING", request::detach_backing(1)));
    commands.push(("RESOURCE_UNREF", request::unref(1)));
    for ((what, request), id) in commands.into_iter().zip(0x1_0000_0007_u64..) {
        fenced(&mut session.gpu, what, request, id)?;
    }
    kit::works(&mut session)
}

/// Sends a fenced request that cannot succeed, and checks the fence. Skips where it succeeds all the
/// same: nothing can be said then about fences of errors.
fn failing(session: &mut Session, what: &str, request: RequestBytes, id: u64) -> Outcome {
    let answer = session.gpu.call(&request.fenced(id), response::EDID)?;
    fence(what, &answer, id)?;
    match is_error(answer.kind()) {
        true => Ok(()),
        false => Err(Stop::skip(format_args!(
            "{what} is answered {:#06x}, not with an error (other cases are about that)",
            answer.kind()
        ))),
    }
}

fn failing_commands(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    let all = Rect::sized(8, 8);
    session.gpu.create_2d(1, BGRX, 8, 8)?;
    for (what, request) in [
        ("RESOURCE_FLUSH of no resource", request::flush(99, all)),
        (
            "RESOURCE_CREATE_2D of a taken id",
            request::create_2d(1, BGRX, 8, 8),
        ),
        (
            "RESOURCE_CREATE_2D of no format",
            request::create_2d(2, 0, 8, 8),
        ),
        (
            "SET_SCANOUT of no scanout",
            request::set_scanout(16, 1, all),
        ),
        ("RESOURCE_UNREF of no resource", request::unref(99)),
    ] {
        failing(&mut session, what, request, 0xfeed_0000_beef)?;
    }
    kit::works(&mut session)
}

fn unknown_command(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    for kind in [0, 0x00ff, 0x01ff, 0x0400, 0x1100, u32::MAX] {
        let what = format!("command {kind:#x}");
        failing(&mut session, &what, RequestBytes::new(kind), 77)?;
    }
    kit::works(&mut session)
}

fn no_fence(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    for (what, request) in [
        ("GET_DISPLAY_INFO", request::get_display_info()),
        ("RESOURCE_CREATE_2D", request::create_2d(1, BGRX, 8, 8)),
        (
            "RESOURCE_FLUSH of no resource",
            request::flush(99, Rect::sized(1, 1)),
        ),
    ] {
        // The id alone is no fence.
        let request = request.fenced(5).flags(0);
        let answer = session.gpu.call(&request, response::EDID)?;
        check(
            answer.kind() != 0 && answer.flags() & FLAG_FENCE == 0,
            format_args!("{what}: a fence that nobody asked for"),
        )?;
    }
    kit::works(&mut session)
}

fn transfer_is_complete(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    let resource = session.gpu.create_picture(1, BGRX, 256, 256)?;
    session.gpu.set_scanout(0, 1, resource.rect())?;
    let raw = noise(99, resource.len());
    let first = session.gpu.show(&resource, &raw);
    let expected = Picture::of(BGRX, 256, 256, &raw);
    let first = first.and_then(|()| session.display().wait_picture(0, &expected));
    kit::begin(first.map_err(Into::into))?;
    for round in 0..4 {
        let raw = noise(round, resource.len());
        session.ram.scatter(&resource.backing, 0, &raw)?;
        let transfer = request::transfer_to_host_2d(1, resource.rect(), 0);
        fenced(&mut session.gpu, "TRANSFER_TO_HOST_2D", transfer, round)?;
        // What the guest writes from here on is not to be seen.
        session
            .ram
            .scatter(&resource.backing, 0, &vec![0xff; raw.len()])?;
        session.gpu.flush(1, resource.rect())?;
        let expected = Picture::of(BGRX, 256, 256, &raw);
        session.display().wait_picture(0, &expected)?;
    }
    kit::works(&mut session)
}

fn cursor_commands(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    let cursor = session.gpu.create_picture(1, BGRA, 64, 64)?;
    session.gpu.paint(&cursor, &noise(1, cursor.len()))?;
    let shape = Cursor {
        resource: 1,
        ..Cursor::default()
    };
    for (what, request) in [
        ("UPDATE_CURSOR", request::update_cursor(shape)),
        ("MOVE_CURSOR", request::move_cursor(shape)),
    ] {
        let id = 0x2_0000_0009;
        let answer = session
            .gpu
            .cursor
            .call(&request.fenced(id), response::HEADER)?;
        check(
            answer.written() == response::HEADER,
            format_args!("{what}: an answer of {} bytes, not 24", answer.written()),
        )?;
        equal(
            &format!("{what}: response type"),
            answer.kind(),
            resp::OK_NODATA,
        )?;
        fence(what, &answer, id)?;
    }
    kit::works(&mut session)
}

/// Checks that answers came in the order of the requests at these positions.
fn in_order(what: &str, answers: &[(usize, Response)], of: impl Fn(usize) -> bool) -> Outcome {
    let order: Vec<usize> = answers
        .iter()
        .map(|(at, _)| *at)
        .filter(|at| of(*at))
        .collect();
    check(
        order.is_sorted(),
        format_args!("{what}: answered in the order {order:?}"),
    )
}

fn long_and_short(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    let resource = session.gpu.create_picture(1, BGRX, 128, 128)?;
    session.gpu.set_scanout(0, 1, resource.rect())?;
    let mut batch = Batch::default();
    for n in 0..60_u64 {
        // Long and short ones, good and bad ones, and every third without a fence.
        let request = match n % 4 {
            0 => request::transfer_to_host_2d(1, resource.rect(), 0),
            1 => request::get_display_info(),
            2 => request::flush(99, Rect::sized(1, 1)),
            _ => request::flush(1, resource.rect()),
        };
        let request = if n % 3 == 2 {
            request
        } else {
            request.fenced(n)
        };
        batch.push(&mut session.gpu, &request, response::DISPLAY_INFO)?;
    }
    // In which order they come back is left open.
    let answers = batch.answers(&mut session.gpu)?;
    for (at, answer) in answers.iter().filter(|(at, _)| at % 3 != 2) {
        fence(&format!("command {at}"), answer, *at as u64)?;
    }
    kit::works(&mut session)
}

fn ids_in_any_order(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    let ids = [9_u64, 9, 3, u64::MAX, 1, 1, 0, 1 << 33];
    let mut batch = Batch::default();
    for id in ids {
        let request = request::get_display_info().fenced(id);
        batch.push(&mut session.gpu, &request, response::DISPLAY_INFO)?;
    }
    for (at, answer) in batch.answers(&mut session.gpu)? {
        fence(&format!("command {at}"), &answer, ids[at])?;
    }
    kit::works(&mut session)
}

/// A device with context 1.
fn with_context(trial: &mut Trial) -> Result<Session, Stop> {
    let mut session = trial.session(&kit::with_contexts())?;
    let capset = kit::a_capset(&mut session)?;
    session.gpu.create_context(1, capset)?;
    Ok(session)
}

/// Fails if an answer names another ring than its request. Whether it names any is left open.
fn same_ring(what: &str, answer: &Response, ring: u8) -> Outcome {
    let names_ring = answer.flags() & FLAG_INFO_RING_IDX != 0;
    check(
        !names_ring || answer.ring_idx() == ring,
        format_args!("{what}: the answer is of ring {}", answer.ring_idx()),
    )
}

fn ring_indices(trial: &mut Trial) -> Outcome {
    let mut session = with_context(trial)?;
    for id in IDS {
        let what = format!("SUBMIT_3D on ring 0, fence {id:#x}");
        let request = request::submit_3d(1, &[]).fenced(id).on_ring(0);
        let answer = session.gpu.call(&request, response::HEADER)?;
        equal(
            &format!("{what}: response type"),
            answer.kind(),
            resp::OK_NODATA,
        )?;
        fence(&what, &answer, id)?;
        same_ring(&what, &answer, 0)?;
    }
    other_rings(&mut session, &[1, 21, 63])?;
    kit::works(&mut session)
}

/// Submits to other rings of context 1 than ring 0. What they are for is the capability set's
/// affair: an answer may be an error, and may wait for what never happens here. One that comes has
/// the fence.
fn other_rings(session: &mut Session, rings: &[u8]) -> Outcome {
    for (ring, id) in rings.iter().zip(0x3_0000_0001..) {
        let request = request::submit_3d(1, &[]).fenced(id).on_ring(*ring);
        let control = &mut session.gpu.control;
        let ticket = control.submit(&request, response::HEADER)?;
        control.kick()?;
        control.set_patience(patience() / 16);
        let answer = control.wait(ticket);
        control.set_patience(patience());
        let what = format!("SUBMIT_3D on ring {ring}");
        match answer {
            Err(error) if error.is_timeout() => {}
            answer => {
                let answer = answer?;
                fence(&what, &answer, id)?;
                same_ring(&what, &answer, *ring)?;
            }
        }
    }
    Ok(())
}

fn timelines_in_order(trial: &mut Trial) -> Outcome {
    let mut session = with_context(trial)?;
    let capset = kit::a_capset(&mut session)?;
    session.gpu.create_context(2, capset)?;
    session.gpu.create_context(3, capset)?;
    let mut batch = Batch::default();
    for n in 0..80_u64 {
        // Ring 0 of three contexts, and the timeline of no ring.
        let request = match n % 4 {
            3 => request::submit_3d(1, &[]),
            context => request::submit_3d(1 + context as u32, &[]).on_ring(0),
        };
        let request = request.fenced(n / 4);
        batch.push(&mut session.gpu, &request, response::HEADER)?;
    }
    let answers = batch.answers(&mut session.gpu)?;
    for (at, answer) in &answers {
        fence(&format!("command {at}"), answer, *at as u64 / 4)?;
    }
    // In which order those of no ring come back is left open.
    for timeline in 0..3 {
        let what = format!("ring 0 of context {}", 1 + timeline);
        in_order(&what, &answers, |at| at % 4 == timeline)?;
    }
    kit::works(&mut session)
}

fn failure_on_a_timeline(trial: &mut Trial) -> Outcome {
    let mut session = with_context(trial)?;
    let mut batch = Batch::default();
    for n in 0..30_u64 {
        // Every third is of a context that is not there.
        let context = if n % 3 == 1 { 77 } else { 1 };
        let request = request::submit_3d(context, &[]).fenced(n).on_ring(0);
        batch.push(&mut session.gpu, &request, response::HEADER)?;
    }
    for (at, answer) in batch.answers(&mut session.gpu)? {
        let what = format!("command {at}");
        fence(&what, &answer, at as u64)?;
        match (is_error(answer.kind()), at % 3 == 1) {
            (true, false) => {
                let kind = answer.kind();
                return Err(Stop::fail(format_args!("{what}: answered {kind:#06x}")));
            }
            (false, true) => {
                let why = "SUBMIT_3D in no context is answered without an error (contexts-04)";
                return Err(Stop::skip(why));
            }
            _ => {}
        }
    }
    kit::works(&mut session)
}

fn ring_index_out_of_range(trial: &mut Trial) -> Outcome {
    let mut session = with_context(trial)?;
    other_rings(&mut session, &[64, 128, 255])?;
    let request = request::submit_3d(1, &[]).fenced(6).on_ring(0);
    let answer = session.gpu.call(&request, response::HEADER)?;
    equal("SUBMIT_3D on ring 0", answer.kind(), resp::OK_NODATA)?;
    fence("SUBMIT_3D on ring 0", &answer, 6)?;
    kit::works(&mut session)
}

fn context_commands(trial: &mut Trial) -> Outcome {
    let mut session = with_context(trial)?;
    let capset = kit::a_capset(&mut session)?;
    session.gpu.create_2d(5, BGRX, 16, 16)?;
    let attach = request::ctx_resource(cmd::CTX_ATTACH_RESOURCE, 2, 5);
    let detach = request::ctx_resource(cmd::CTX_DETACH_RESOURCE, 2, 5);
    for ((what, request), id) in [
        ("CTX_CREATE", request::ctx_create(2, capset, b"second")),
        ("CTX_ATTACH_RESOURCE", attach),
        ("SUBMIT_3D", request::submit_3d(2, &[])),
        ("CTX_DETACH_RESOURCE", detach),
        ("CTX_DESTROY", request::ctx_destroy(2)),
    ]
    .into_iter()
    .zip(1 << 40..)
    {
        fenced(&mut session.gpu, what, request, id)?;
    }
    kit::works(&mut session)
}

fn slow_command(trial: &mut Trial) -> Outcome {
    let (mut session, context) = kit::host_blobs(trial)?;
    let info = context.image(&mut session.gpu, ImageRequest::xrgb(64, 64))?;
    context.create_blob(&mut session.gpu, 200, &info)?;
    session
        .shmem()
        .script(&[Ack::Late(Duration::from_millis(80))]);
    let on_timeline = |request: RequestBytes, id: u64| {
        let request = request.in_context(context.id);
        request.fenced(id).on_ring(0)
    };
    let mut batch = Batch::default();
    let map = on_timeline(request::map_blob(200, 0), 1);
    batch.push(&mut session.gpu, &map, response::MAP_INFO)?;
    for id in 2..6 {
        let submit = on_timeline(request::submit_3d(context.id, &[]), id);
        batch.push(&mut session.gpu, &submit, response::MAP_INFO)?;
    }
    let answers = batch.answers(&mut session.gpu)?;
    for (at, answer) in &answers {
        fence(&format!("command {at}"), answer, *at as u64 + 1)?;
    }
    in_order("behind a slow command", &answers, |_| true)?;
    kit::works(&mut session)
}
