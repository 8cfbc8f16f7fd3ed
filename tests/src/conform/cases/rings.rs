//! What virtqueues can do: layouts of chains, notifications, sizes, indices that wrap.

use super::hostile_rings::{back, back_or_contained};
use super::kit::{self, readable, succeeds, writable};
use crate::conform::case::{Case, Group, Needs, Outcome, Stop, check, equal};
use crate::conform::trial::Trial;
use crate::frontend::memory::Span;
use crate::frontend::message::feature;
use crate::frontend::pixels::{BGRX, Picture, noise};
use crate::frontend::request::{self, Cursor, MemEntry};
use crate::frontend::response::{self, DISPLAY_INFO, HEADER, resp};
use crate::frontend::ring::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE, Descriptor};
use crate::frontend::{ChainShape, Rect, Session, SessionOptions};

const INDIRECT: Needs = Needs::features(feature::INDIRECT_DESC);

/// The cases of this group.
pub(super) const CASES: &[Case] = &[
    Group::Rings.case(
        1,
        "a request may be cut into descriptors anywhere",
        &["ring-1"],
        request_in_pieces,
    ),
    Group::Rings.case(
        2,
        "a response may be cut into descriptors anywhere",
        &["ring-1", "ring-19"],
        response_in_pieces,
    ),
    Group::Rings.case(
        3,
        "a long request in a chain of a hundred descriptors is understood",
        &["ring-1", "ring-2"],
        long_chain,
    ),
    Group::Rings.case(
        4,
        "a response buffer that is too small is not overrun",
        &["ring-19"],
        small_response,
    ),
    Group::Rings.case(
        5,
        "a request without room for a response is given back or stops the ring, done or not",
        &["ring-19"],
        no_response,
    ),
    Group::Rings.case(
        6,
        "len in the used ring is the number of bytes that were written",
        &["ring-18", "ring-19"],
        used_len,
    ),
    Group::Rings.case(
        7,
        "neither requests nor descriptors are written to",
        &["ring-4", "ring-5"],
        nothing_else_is_written,
    ),
    Group::Rings.case_needing(
        INDIRECT,
        8,
        "an indirect table is a chain",
        &["ring-1"],
        indirect,
    ),
    Group::Rings.case_needing(
        INDIRECT,
        9,
        "the write flag of an indirect descriptor means nothing",
        &["ring-9"],
        indirect_with_write_flag,
    ),
    Group::Rings.case_needing(
        INDIRECT,
        10,
        "an indirect descriptor may end a chain of ordinary ones",
        &["ring-10"],
        indirect_at_the_end,
    ),
    Group::Rings.case(
        22,
        "without any ring feature everything works",
        &["ring-1", "ring-14"],
        no_features,
    ),
    Group::Rings.case(
        23,
        "the order of descriptors in the table means nothing",
        &["ring-1"],
        order_in_the_table,
    ),
];

/// The default options without these features.
pub(super) fn without(features: u64) -> SessionOptions {
    let mut options = SessionOptions::default();
    options.features &= !features;
    options
}

/// GET_DISPLAY_INFO laid out as `shape` says; its answer must be that to one laid out plainly.
pub(super) fn asks(session: &mut Session, what: &str, shape: &ChainShape) -> Outcome {
    let question = request::get_display_info();
    let plainly = match shape.indirect && session.gpu.control.ring().size() == 1 {
        true => ChainShape {
            indirect: true,
            ..ChainShape::default()
        },
        false => ChainShape::default(),
    };
    let plain = session
        .gpu
        .control
        .call_shaped(&question, DISPLAY_INFO, &plainly)?;
    let answer = session
        .gpu
        .control
        .call_shaped(&question, DISPLAY_INFO, shape)?;
    check(
        plain.written() >= HEADER,
        format_args!("{what}: {} bytes are no answer", plain.written()),
    )?;
    let same = answer.bytes() == plain.bytes();
    check(
        same,
        format_args!(
            "{what}: answered {:#06x} with {} bytes, when laid out plainly {:#06x} with {}",
            answer.kind(),
            answer.written(),
            plain.kind(),
            plain.written()
        ),
    )
}

/// RESOURCE_ATTACH_BACKING of resource 1 with fragments, laid out as `shape` says; the picture that
/// is transferred from them must be right.
fn attaches(session: &mut Session, what: &str, shape: &ChainShape, seed: u64) -> Outcome {
    let len = 4 * 64 * 64;
    let fragments = session.ram.alloc_fragments(len, &[100, 700])?;
    let entries: Vec<MemEntry> = fragments.iter().map(|span| (*span).into()).collect();
    let attach = request::attach_backing(1, &entries);
    let answer = session.gpu.control.call_shaped(&attach, HEADER, shape)?;
    equal(
        &format!("{what}: response type"),
        answer.kind(),
        resp::OK_NODATA,
    )?;
    let raw = noise(seed, len);
    session.ram.scatter(&fragments, 0, &raw)?;
    session.gpu.transfer(1, Rect::sized(64, 64), 0)?;
    session.gpu.flush(1, Rect::sized(64, 64))?;
    let expected = Picture::of(BGRX, 64, 64, &raw);
    session.display().wait_picture(0, &expected)?;
    Ok(session.gpu.detach_backing(1)?)
}

/// A device with resource 1, 64 x 64 pixels without backing, on scanout 0.
fn with_resource(trial: &mut Trial, options: &SessionOptions) -> Result<Session, Stop> {
    let mut session = trial.session(options)?;
    session.gpu.create_2d(1, BGRX, 64, 64)?;
    session.gpu.set_scanout(0, 1, Rect::sized(64, 64))?;
    let plain = ChainShape::default();
    kit::begin(attaches(&mut session, "laid out plainly", &plain, 99))?;
    Ok(session)
}

fn cut_request(cuts: &[usize]) -> ChainShape {
    ChainShape {
        request_cuts: cuts.to_vec(),
        ..ChainShape::default()
    }
}

fn request_in_pieces(trial: &mut Trial) -> Outcome {
    let mut session = with_resource(trial, &SessionOptions::default())?;
    for cuts in [&[1; 24][..], &[4; 6], &[23], &[8, 3, 1, 7]] {
        asks(
            &mut session,
            &format!("header cut at {cuts:?}"),
            &cut_request(cuts),
        )?;
    }
    for (seed, cuts) in (1..).zip([&[1; 40][..], &[24, 8], &[30, 11], &[24, 4, 4, 5, 16]]) {
        let what = format!("entries cut at {cuts:?}");
        attaches(&mut session, &what, &cut_request(cuts), seed)?;
    }
    kit::works(&mut session)
}

fn response_in_pieces(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    for cuts in [&[1; 30][..], &[24], &[23, 2], &[100, 100], &[407]] {
        let shape = ChainShape {
            response_cuts: cuts.to_vec(),
            ..ChainShape::default()
        };
        asks(&mut session, &format!("response cut at {cuts:?}"), &shape)?;
    }
    kit::works(&mut session)
}

fn long_chain(trial: &mut Trial) -> Outcome {
    let mut session = with_resource(trial, &SessionOptions::default())?;
    attaches(
        &mut session,
        "a hundred descriptors",
        &cut_request(&[6; 99]),
        3,
    )?;
    kit::works(&mut session)
}

fn small_response(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    for room in [1, 10, 23, 24, 25, DISPLAY_INFO - 1] {
        // More than there is room for is found out when the answer is collected.
        let question = request::get_display_info();
        let Some(answer) = back(&mut session, 0, &question, room)? else {
            // It was taken for malformed, and hostile-rings-28 is about what comes then.
            return Ok(());
        };
        check(
            answer.written() <= room,
            format_args!("{} bytes in {room}", answer.written()),
        )?;
    }
    kit::works(&mut session)
}

fn no_response(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    let create = request::create_2d(1, BGRX, 16, 16);
    if let Some(answer) = back_or_contained(&mut session, "no room", 0, &create, 0)? {
        equal("bytes in no buffer", answer.written(), 0)?;
    }
    succeeds(&mut session, "RESOURCE_UNREF of it", &request::unref(1))?;
    kit::works(&mut session)
}

fn used_len(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    for (what, request) in [
        ("RESOURCE_CREATE_2D", request::create_2d(1, BGRX, 8, 8)),
        ("GET_DISPLAY_INFO", request::get_display_info()),
        ("RESOURCE_UNREF", request::unref(1)),
        ("RESOURCE_UNREF again", request::unref(1)),
    ] {
        let answer = session.gpu.call(&request, response::EDID)?;
        let len = match answer.kind() {
            resp::OK_DISPLAY_INFO => DISPLAY_INFO,
            _ => HEADER,
        };
        equal(&format!("{what}: len"), answer.written(), len)?;
        let known = kit::is_error(answer.kind()) || answer.kind() >> 8 == 0x11;
        check(known, format_args!("{what}: type {:#x}", answer.kind()))?;
    }
    kit::works(&mut session)
}

fn nothing_else_is_written(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    let table = session.gpu.control.ring().parts()[0];
    let question = request::get_display_info().fenced(0x1234);
    for _ in 0..3 {
        let asked = session.ram.alloc(question.len())?;
        session.ram.write(asked.addr, &question)?;
        let answer = session.ram.alloc(DISPLAY_INFO)?;
        let chain = [readable(asked), writable(answer)];
        let head = session.gpu.control.ring().submit(&chain)?;
        let before = session.ram.read(table.addr, table.len as usize)?;
        let ticket = session.gpu.control.track(head, vec![answer], Vec::new());
        session.gpu.control.kick()?;
        session.gpu.control.wait(ticket)?;
        let after = session.ram.read(table.addr, table.len as usize)?;
        check(before == after, "the descriptor table was written to")?;
        let asked = session.ram.read(asked.addr, question.len())?;
        check(asked == question[..], "the request was written to")?;
    }
    kit::works(&mut session)
}

fn indirect(trial: &mut Trial) -> Outcome {
    let mut session = with_resource(trial, &SessionOptions::default())?;
    for cuts in [&[][..], &[1; 20], &[6; 99]] {
        let shape = ChainShape {
            indirect: true,
            ..cut_request(cuts)
        };
        asks(&mut session, "in an indirect table", &shape)?;
        attaches(
            &mut session,
            "in an indirect table",
            &shape,
            cuts.len() as u64,
        )?;
    }
    kit::works(&mut session)
}

/// GET_DISPLAY_INFO and room for its answer, in guest memory.
fn question(session: &Session) -> Result<(Span, Span), Stop> {
    let question = request::get_display_info();
    let asked = session.ram.alloc(question.len())?;
    session.ram.write(asked.addr, &question)?;
    Ok((asked, session.ram.alloc(DISPLAY_INFO)?))
}

/// Collects the answer to [`question`] that was submitted with this head: that to a plain one.
fn answered(session: &mut Session, head: u16, answer: Span) -> Outcome {
    let ticket = session.gpu.control.track(head, vec![answer], Vec::new());
    session.gpu.control.kick()?;
    let response = session.gpu.control.wait(ticket)?;
    let plain = session
        .gpu
        .call(&request::get_display_info(), DISPLAY_INFO)?;
    equal("response type", response.kind(), plain.kind())?;
    equal("bytes", response.written(), plain.written())
}

fn indirect_with_write_flag(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    let (asked, answer) = question(&session)?;
    let chain = [readable(asked), writable(answer)];
    let table = session.gpu.control.indirect_table(&chain)?;
    let descriptor = Descriptor {
        flags: DESC_INDIRECT | DESC_WRITE,
        ..readable(table)
    };
    let head = session.gpu.control.ring().submit(&[descriptor])?;
    answered(&mut session, head, answer)?;
    kit::works(&mut session)
}

fn indirect_at_the_end(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    for cut in [0, 1, 10, 24] {
        let (asked, answer) = question(&session)?;
        let (first, rest) = (Span { len: cut, ..asked }, asked.len - cut);
        let rest = Span {
            addr: asked.addr + u64::from(cut),
            len: rest,
        };
        let mut inside = vec![writable(answer)];
        if rest.len > 0 {
            inside.insert(0, readable(rest));
        }
        let table = session.gpu.control.indirect_table(&inside)?;
        let table = Descriptor {
            flags: DESC_INDIRECT,
            ..readable(table)
        };
        let chain = [readable(first), table];
        let ordinary = if cut == 0 { &chain[1..] } else { &chain };
        let head = session.gpu.control.ring().submit(ordinary)?;
        answered(&mut session, head, answer)?;
    }
    kit::works(&mut session)
}

fn no_features(trial: &mut Trial) -> Outcome {
    let ring_features = feature::EVENT_IDX | feature::INDIRECT_DESC | feature::RING_RESET;
    let mut session = with_resource(trial, &without(ring_features))?;
    for seed in 0..5 {
        attaches(
            &mut session,
            "without ring features",
            &ChainShape::default(),
            seed,
        )?;
        session.gpu.move_cursor(Cursor::default())?;
    }
    kit::works(&mut session)
}

fn order_in_the_table(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    let (asked, answer) = question(&session)?;
    let half = Span { len: 12, ..asked };
    let rest = Span {
        addr: asked.addr + 12,
        len: 12,
    };
    let indices = session.gpu.control.ring().reserve(3)?;
    // The chain runs through the table backwards.
    let order: Vec<u16> = indices.iter().rev().copied().collect();
    for (at, descriptor) in [readable(half), readable(rest), writable(answer)]
        .iter()
        .enumerate()
    {
        let mut descriptor = *descriptor;
        if let Some(next) = order.get(at + 1) {
            descriptor.flags |= DESC_NEXT;
            descriptor.next = *next;
        }
        session
            .gpu
            .control
            .ring()
            .write_descriptor(order[at], descriptor)?;
    }
    session.gpu.control.ring().submit_head(order[0], indices)?;
    answered(&mut session, order[0], answer)?;
    kit::works(&mut session)
}
