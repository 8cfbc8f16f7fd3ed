//! Resets of the device and of a queue, and the pause that is none.

use std::time::Duration;

use super::kit::{self, refused};
use crate::conform::case::{Case, Group, Needs, Outcome, check, equal};
use crate::conform::trial::Trial;
use crate::frontend::message::{feature, protocol};
use crate::frontend::pixels::{BGRA, BGRX, Picture, noise};
use crate::frontend::request::{self, Cursor};
use crate::frontend::response::{self, resp};
use crate::frontend::{Rect, Session};

const RESET: Needs = Needs::protocol(protocol::RESET_DEVICE);

/// The cases of this group.
pub(super) const CASES: &[Case] = &[
    Group::Reset.case_needing(
        RESET,
        1,
        "after RESET_DEVICE no resource is left",
        &["vu-27"],
        resources_gone,
    ),
    Group::Reset.case_needing(
        RESET,
        2,
        "after RESET_DEVICE everything works anew, ten times over",
        &["vu-27"],
        works_anew,
    ),
    Group::Reset.case_needing(
        RESET,
        3,
        "after RESET_DEVICE no scanout is linked to what has the old resource's id",
        &["vu-27"],
        scanouts_gone,
    ),
    Group::Reset.case_needing(
        RESET.and(Needs::features(feature::VIRGL)),
        4,
        "after RESET_DEVICE no context is left",
        &["vu-27"],
        contexts_gone,
    ),
    Group::Reset.case_needing(
        RESET.and(Needs::features(feature::RESOURCE_BLOB)),
        5,
        "after RESET_DEVICE no blob is left",
        &["vu-27"],
        blobs_gone,
    ),
    Group::Reset.case_needing(
        RESET,
        6,
        "what was in work at RESET_DEVICE does not complete on the new ring",
        &["vu-27"],
        in_flight_at_reset,
    ),
    Group::Reset.case_needing(
        RESET,
        7,
        "a device that was reset takes as much memory as a new one",
        &["vu-27"],
        memory_is_given_back,
    ),
    Group::Reset.case(
        8,
        "a reset of the control queue keeps resources and scanouts",
        &["ring-23", "vu-8", "vu-19"],
        control_queue,
    ),
    Group::Reset.case(
        9,
        "a reset of the cursor queue keeps the device",
        &["ring-23", "vu-8", "vu-19"],
        cursor_queue,
    ),
    Group::Reset.case(
        10,
        "pause and resume keep resources, backing and scanouts",
        &["vu-8", "vu-18", "vu-19"],
        pause_and_resume,
    ),
    Group::Reset.case(
        11,
        "GET_VRING_BASE says how many chains were taken",
        &["vu-3", "vu-18"],
        vring_base,
    ),
    Group::Reset.case(
        12,
        "a stopped ring rests, and what was queued meanwhile is done when it starts",
        &["vu-5", "vu-7", "vu-8", "vu-19"],
        stopped_ring,
    ),
    Group::Reset.case_needing(
        Needs::features(feature::PROTOCOL_FEATURES),
        13,
        "a ring that was disabled goes on when it is enabled",
        &["vu-5"],
        disabled_ring,
    ),
    Group::Reset.case(
        14,
        "one stopped queue leaves the other running",
        &["vu-8"],
        other_queue_runs,
    ),
];

/// Fails unless a resource is there: its id cannot be taken.
fn is_there(session: &mut Session, id: u32) -> Outcome {
    let taken = request::create_2d(id, BGRX, 8, 8);
    refused(
        session,
        "RESOURCE_CREATE_2D of an id that must be taken",
        &taken,
    )
}

fn resources_gone(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    session.gpu.create_2d(1, BGRX, 16, 16)?;
    session.gpu.create_2d(2, BGRX, 16, 16)?;
    session.reset_device()?;
    for id in [1, 2] {
        let flush = request::flush(id, Rect::sized(16, 16));
        refused(
            &mut session,
            &format!("a flush of old resource {id}"),
            &flush,
        )?;
        session.gpu.create_2d(id, BGRX, 16, 16)?;
    }
    kit::works(&mut session)
}

fn works_anew(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    kit::begin(kit::show(&mut session, 98))?;
    session.reset_device()?;
    for seed in 0..10 {
        kit::show(&mut session, seed)?;
        let cursor = session.gpu.create_picture(2, BGRA, 64, 64)?;
        session.gpu.paint(&cursor, &noise(seed, cursor.len()))?;
        session.gpu.update_cursor(Cursor {
            resource: 2,
            ..Cursor::default()
        })?;
        session.reset_device()?;
    }
    kit::show(&mut session, 99)?;
    kit::works(&mut session)
}

fn scanouts_gone(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    kit::begin(kit::show(&mut session, 1))?;
    session.reset_device()?;
    // The same id, but on no scanout.
    let resource = session.gpu.create_picture(1, BGRX, 64, 64)?;
    let raw = noise(2, resource.len());
    session.gpu.show(&resource, &raw)?;
    kit::answers(&mut session)?;
    std::thread::sleep(Duration::from_millis(40));
    let unseen = Picture::of(BGRX, 64, 64, &raw);
    let seen = session.display().with(|state| {
        state.scanouts[0]
            .as_ref()
            .is_some_and(|scanout| scanout.picture == unseen)
    });
    check(!seen, "a flush showed what is on no scanout")?;
    kit::works(&mut session)
}

fn contexts_gone(trial: &mut Trial) -> Outcome {
    let mut session = trial.session(&kit::with_contexts())?;
    let capset = kit::a_capset(&mut session)?;
    for _ in 0..3 {
        session.gpu.create_context(1, capset)?;
        session.reset_device()?;
        let submit = request::submit_3d(1, &[]);
        refused(&mut session, "SUBMIT_3D in an old context", &submit)?;
    }
    kit::works(&mut session)
}

fn blobs_gone(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    let span = session.ram.alloc(4 * 64 * 64)?;
    for _ in 0..3 {
        session.gpu.create_blob_guest(1, 4 * 64 * 64, &[span])?;
        session.gpu.set_scanout_blob(kit::plain(1, 64, 64))?;
        session.reset_device()?;
        let scanout = request::set_scanout_blob(kit::plain(1, 64, 64));
        refused(&mut session, "SET_SCANOUT_BLOB of an old blob", &scanout)?;
    }
    kit::works(&mut session)
}

fn in_flight_at_reset(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    for _ in 0..10 {
        for _ in 0..50 {
            session.gpu.queue(&request::create_2d(1, BGRX, 64, 64))?;
        }
        session.gpu.control.kick()?;
        // Some are done by now. A completion of the others on the new ring is found out below.
        session.reset_device()?;
        kit::answers(&mut session)?;
    }
    kit::works(&mut session)
}

fn memory_is_given_back(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    let mut first = None;
    for round in 0..4 {
        let mut made = 0_u32;
        // 16 MiB each; who has no limit needs none here.
        while made < 24 {
            let request = request::create_2d(1 + made, BGRX, 2048, 2048);
            match session.gpu.answer(&request)? {
                resp::OK_NODATA => made += 1,
                _ => break,
            }
        }
        let first = *first.get_or_insert(made);
        equal(&format!("resources in round {round}"), made, first)?;
        session.reset_device()?;
    }
    kit::works(&mut session)
}

fn control_queue(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    kit::begin(kit::show(&mut session, 1))?;
    for _ in 0..3 {
        session.reset_queue(0)?;
        is_there(&mut session, 1)?;
        session.gpu.flush(1, Rect::sized(64, 64))?;
    }
    let expected = Picture::of(BGRX, 64, 64, &noise(1, 4 * 64 * 64));
    session.display().wait_picture(0, &expected)?;
    kit::works(&mut session)
}

fn cursor_queue(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    kit::begin(kit::show(&mut session, 1))?;
    for x in 0..3 {
        session.gpu.move_cursor(Cursor {
            x,
            ..Cursor::default()
        })?;
        session.reset_queue(1)?;
        session.gpu.move_cursor(Cursor {
            x,
            ..Cursor::default()
        })?;
        is_there(&mut session, 1)?;
    }
    kit::works(&mut session)
}

fn pause_and_resume(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    kit::begin(kit::show(&mut session, 99))?;
    let backing = session.ram.alloc(4 * 64 * 64)?;
    session.gpu.detach_backing(1)?;
    session.gpu.attach_backing(1, &[backing])?;
    let all = Rect::sized(64, 64);
    for seed in 0..5 {
        session.pause_and_resume()?;
        // The resource, its backing and its scanout are those of before.
        let raw = noise(seed, backing.len as usize);
        session.ram.write(backing.addr, &raw)?;
        session.gpu.transfer(1, all, 0)?;
        session.gpu.flush(1, all)?;
        let expected = Picture::of(BGRX, 64, 64, &raw);
        session.display().wait_picture(0, &expected)?;
    }
    kit::works(&mut session)
}

fn vring_base(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    equal("base of the cursor ring", session.stop_queue(1)?, 0)?;
    session.start_queue(1, 0)?;
    for _ in 0..7 {
        kit::answers(&mut session)?;
    }
    for _ in 0..3 {
        session.gpu.move_cursor(Cursor::default())?;
    }
    equal("base of the control ring", session.stop_queue(0)?, 7)?;
    equal("base of the cursor ring", session.stop_queue(1)?, 3)?;
    session.start_queue(0, 7)?;
    session.start_queue(1, 3)?;
    kit::works(&mut session)
}

fn stopped_ring(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    kit::answers(&mut session)?;
    for _ in 0..3 {
        let base = session.stop_queue(0)?;
        let question = request::unref(99);
        let ticket = session.gpu.control.submit(&question, response::HEADER)?;
        session.gpu.control.ring().kick_always()?;
        session
            .gpu
            .control
            .ring()
            .expect_silence(Duration::from_millis(40))?;
        session.start_queue(0, base)?;
        session.gpu.control.ring().kick_always()?;
        let answer = session.gpu.control.wait(ticket)?;
        check(
            answer.written() == response::HEADER,
            "no answer to what was queued",
        )?;
    }
    kit::works(&mut session)
}

fn disabled_ring(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    for _ in 0..3 {
        session.vhost.set_vring_enable(0, false)?;
        session.vhost.barrier()?;
        session.vhost.set_vring_enable(0, true)?;
        session.vhost.barrier()?;
        kit::answers(&mut session)?;
    }
    kit::works(&mut session)
}

fn other_queue_runs(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    kit::answers(&mut session)?;
    session.gpu.move_cursor(Cursor::default())?;
    let base = session.stop_queue(0)?;
    for x in 0..5 {
        session.gpu.move_cursor(Cursor {
            x,
            ..Cursor::default()
        })?;
    }
    session.start_queue(0, base)?;
    let base = session.stop_queue(1)?;
    for _ in 0..5 {
        kit::answers(&mut session)?;
    }
    session.start_queue(1, base)?;
    session.gpu.move_cursor(Cursor::default())?;
    kit::works(&mut session)
}
