//! Rings that no honest driver makes.
//!
//! The specification leaves open what becomes of such a ring. Allowed here is what harms nobody
//! else: the chain is given back with whatever answer, or the ring stops. In either case the
//! back-end lives, the other queue goes on, and a reset of the queue makes the device work again.

use std::time::Duration;

use super::kit::{self, readable, writable};
use crate::conform::case::{Case, Group, Outcome, Stop, check};
use crate::conform::trial::Trial;
use crate::frontend::memory::Span;
use crate::frontend::request::{self, Cursor};
use crate::frontend::response::{DISPLAY_INFO, HEADER};
use crate::frontend::ring::{DESC_NEXT, Descriptor};
use crate::frontend::{Deadline, Error, Response, Session, patience};

/// The cases of this group.
pub(super) const CASES: &[Case] = &[
    Group::HostileRings.case(1, "a head outside the table", &[], head_outside),
    Group::HostileRings.case(2, "an available index far ahead", &[], index_far_ahead),
    Group::HostileRings.case(
        3,
        "an available index that goes back",
        &["ring-11"],
        index_goes_back,
    ),
    Group::HostileRings.case(
        4,
        "a descriptor that is its own next",
        &["ring-6"],
        own_next,
    ),
    Group::HostileRings.case(5, "a chain that runs in a circle", &["ring-6"], circle),
    Group::HostileRings.case(6, "a next outside the table", &[], next_outside),
    Group::HostileRings.case(7, "a request outside guest memory", &[], request_outside),
    Group::HostileRings.case(8, "a response outside guest memory", &[], response_outside),
    Group::HostileRings.case(
        9,
        "a buffer that reaches across the end of guest memory or of 64 bits",
        &[],
        across_the_end,
    ),
    Group::HostileRings.case(10, "buffers of four gigabytes", &["ring-6"], huge_buffers),
    Group::HostileRings.case(
        11,
        "a writable descriptor before a readable one",
        &["ring-3"],
        writable_first,
    ),
    Group::HostileRings.case(12, "descriptors of no length", &[], no_length),
    Group::HostileRings.case(13, "chains without a request", &[], no_request),
    Group::HostileRings.case(14, "the same head twice at a time", &[], head_twice),
    Group::HostileRings.case(
        21,
        "good and bad chains in turn: the good ones are answered, or the ring stops",
        &[],
        good_and_bad,
    ),
    Group::HostileRings.case(28, "room for a part of the answer alone", &[], little_room),
];

/// How long a ring that neither answers nor signals an error is watched.
pub(super) const PAUSE: Duration = Duration::from_millis(60);

/// A chain as it lies in the table, flags and links included, with GET_DISPLAY_INFO and room for its
/// answer to build it of.
pub(super) struct Parts {
    pub(super) asked: Span,
    pub(super) answer: Span,
}

pub(super) fn start(trial: &mut Trial) -> Result<(Session, Parts), Stop> {
    started(trial.start()?)
}

pub(super) fn started(mut session: Session) -> Result<(Session, Parts), Stop> {
    kit::answers(&mut session)?;
    session.gpu.move_cursor(Cursor::default())?;
    let question = request::get_display_info();
    let asked = session.ram.alloc(question.len())?;
    session.ram.write(asked.addr, &question)?;
    let answer = session.ram.alloc(DISPLAY_INFO)?;
    Ok((session, Parts { asked, answer }))
}

/// Waits until the control ring has completed something or signalled an error, or for a while.
pub(super) fn settle(session: &mut Session) -> Outcome {
    let ring = session.gpu.control.ring();
    let before = ring.used_index()?;
    let mut left = PAUSE;
    let step = Duration::from_millis(2);
    while ring.used_index()? == before && !ring.take_error() && !left.is_zero() {
        std::thread::sleep(step);
        left = left.saturating_sub(step);
    }
    Ok(())
}

/// What must hold after something hostile on the control ring: the back-end lives, the other queue
/// goes on, and a reset of the control queue makes the device work again.
pub(super) fn contained(session: &mut Session, what: &str) -> Outcome {
    settle(session)?;
    let during = |step: &'static str| {
        move |error: Error| Stop::fail(format_args!("{what}: {step}: {error}"))
    };
    // First, as a back-end that has ended is told by this at once.
    let alive = session.vhost.barrier();
    alive.map_err(during("the connection"))?;
    let moved = session.gpu.move_cursor(Cursor::default());
    moved.map_err(during("the cursor queue"))?;
    let reset = session.reset_queue(0);
    reset.map_err(during("the reset of the queue"))?;
    kit::answers(session).map_err(|stop| match stop {
        Stop::Fail(why) => Stop::fail(format_args!("{what}: after the reset: {why}")),
        skip => skip,
    })
}

/// The answer to a request with too little room for one, or `None` where the chain does not come
/// back.
pub(super) fn back(
    session: &mut Session,
    index: u32,
    request: &[u8],
    room: usize,
) -> Result<Option<Response>, Stop> {
    session.queue(index).set_patience(patience() / 8);
    let answer = session.queue(index).call(request, room);
    session.queue(index).set_patience(patience());
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.is_timeout() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// As [`back`], where `None` says that the back-end took the chain for malformed and stopped the
/// ring, which a reset must then put right.
pub(super) fn back_or_contained(
    session: &mut Session,
    what: &str,
    index: u32,
    request: &[u8],
    room: usize,
) -> Result<Option<Response>, Stop> {
    let answer = back(session, index, request, room)?;
    if answer.is_none() {
        session.reset_queue(index)?;
        contained(session, what)?;
    }
    Ok(answer)
}

/// Puts descriptors on the control ring just as given, the first one as head, and kicks.
fn offer(
    session: &mut Session,
    chain: impl FnOnce(&[u16]) -> Vec<Descriptor>,
    count: usize,
) -> Outcome {
    let ring = session.gpu.control.ring();
    let indices = ring.reserve(count)?;
    for (index, descriptor) in indices.iter().zip(chain(&indices)) {
        ring.write_descriptor(*index, descriptor)?;
    }
    let head = indices[0];
    ring.submit_head(head, indices)?;
    Ok(ring.kick_always()?)
}

/// Offers two linked descriptors.
pub(super) fn offer_two(session: &mut Session, first: Descriptor, second: Descriptor) -> Outcome {
    let link = |indices: &[u16]| {
        let (flags, next) = (first.flags | DESC_NEXT, indices[1]);
        vec![
            Descriptor {
                flags,
                next,
                ..first
            },
            second,
        ]
    };
    offer(session, link, 2)
}

/// Offers one descriptor.
pub(super) fn offer_one(session: &mut Session, descriptor: Descriptor) -> Outcome {
    offer(session, |_| vec![descriptor], 1)
}

fn head_outside(trial: &mut Trial) -> Outcome {
    let (mut session, _) = start(trial)?;
    for head in [256, 300, u16::MAX] {
        session.gpu.control.ring().submit_head(head, Vec::new())?;
        session.gpu.control.ring().kick_always()?;
        contained(&mut session, &format!("head {head} of 256"))?;
    }
    kit::works(&mut session)
}

fn index_far_ahead(trial: &mut Trial) -> Outcome {
    let (mut session, _) = start(trial)?;
    for ahead in [257, 1000, 0x8000, 0xffff] {
        let ring = session.gpu.control.ring();
        let index = ring.next_avail().wrapping_add(ahead);
        ring.write_available_index(index)?;
        ring.kick_always()?;
        contained(&mut session, &format!("an index {ahead} ahead"))?;
    }
    kit::works(&mut session)
}

fn index_goes_back(trial: &mut Trial) -> Outcome {
    let (mut session, _) = start(trial)?;
    for back in [1, 2, 10] {
        for _ in 0..back {
            kit::answers(&mut session)?;
        }
        let ring = session.gpu.control.ring();
        let index = ring.next_avail().wrapping_sub(back);
        ring.write_available_index(index)?;
        ring.kick_always()?;
        contained(&mut session, &format!("an index {back} back"))?;
    }
    kit::works(&mut session)
}

fn own_next(trial: &mut Trial) -> Outcome {
    let (mut session, parts) = start(trial)?;
    for (name, descriptor) in [
        ("readable", readable(parts.asked)),
        ("writable", writable(parts.answer)),
    ] {
        let link = |indices: &[u16]| {
            let flags = descriptor.flags | DESC_NEXT;
            vec![Descriptor {
                flags,
                next: indices[0],
                ..descriptor
            }]
        };
        offer(&mut session, link, 1)?;
        contained(
            &mut session,
            &format!("a {name} descriptor that is its own next"),
        )?;
    }
    kit::works(&mut session)
}

fn circle(trial: &mut Trial) -> Outcome {
    let (mut session, parts) = start(trial)?;
    // Back to the head, and to the second of three.
    for back in [0, 1] {
        let link = |indices: &[u16]| {
            let of = |descriptor: Descriptor, next: usize| {
                let flags = descriptor.flags | DESC_NEXT;
                Descriptor {
                    flags,
                    next: indices[next],
                    ..descriptor
                }
            };
            vec![
                of(readable(parts.asked), 1),
                of(writable(parts.answer), 2),
                of(writable(parts.answer), back),
            ]
        };
        offer(&mut session, link, 3)?;
        contained(&mut session, "a circle")?;
    }
    kit::works(&mut session)
}

fn next_outside(trial: &mut Trial) -> Outcome {
    let (mut session, parts) = start(trial)?;
    for next in [256, 0x7fff, u16::MAX] {
        let descriptor = Descriptor {
            flags: DESC_NEXT,
            next,
            ..readable(parts.asked)
        };
        offer_one(&mut session, descriptor)?;
        contained(&mut session, &format!("next {next} of 256"))?;
    }
    kit::works(&mut session)
}

/// Guest addresses where there is no memory in the default layout.
pub(super) const NOWHERE: [u64; 4] = [0, 0x4000_0000, 1 << 50, u64::MAX - 0xfff];

fn request_outside(trial: &mut Trial) -> Outcome {
    let (mut session, parts) = start(trial)?;
    for addr in NOWHERE {
        let nowhere = Span { addr, len: 24 };
        offer_two(&mut session, readable(nowhere), writable(parts.answer))?;
        contained(&mut session, &format!("a request at {addr:#x}"))?;
    }
    kit::works(&mut session)
}

fn response_outside(trial: &mut Trial) -> Outcome {
    let (mut session, parts) = start(trial)?;
    for addr in NOWHERE {
        let nowhere = Span {
            addr,
            len: DISPLAY_INFO as u32,
        };
        offer_two(&mut session, readable(parts.asked), writable(nowhere))?;
        contained(&mut session, &format!("a response at {addr:#x}"))?;
    }
    kit::works(&mut session)
}

fn across_the_end(trial: &mut Trial) -> Outcome {
    let (mut session, parts) = start(trial)?;
    let end = 0x10_0000 + (256 << 20);
    for addr in [end - 8, u64::MAX - 7] {
        let across = Span { addr, len: 64 };
        offer_two(&mut session, readable(across), writable(parts.answer))?;
        contained(&mut session, &format!("a request from {addr:#x} on"))?;
        offer_two(&mut session, readable(parts.asked), writable(across))?;
        contained(&mut session, &format!("a response from {addr:#x} on"))?;
    }
    kit::works(&mut session)
}

fn huge_buffers(trial: &mut Trial) -> Outcome {
    let (mut session, parts) = start(trial)?;
    let huge = |span: Span| Span {
        len: u32::MAX,
        ..span
    };
    for _ in 0..3 {
        offer_two(
            &mut session,
            readable(huge(parts.asked)),
            writable(parts.answer),
        )?;
        contained(&mut session, "a request of 4 GiB")?;
        offer_two(
            &mut session,
            readable(parts.asked),
            writable(huge(parts.answer)),
        )?;
        contained(&mut session, "room of 4 GiB for a response")?;
    }
    kit::works(&mut session)
}

fn writable_first(trial: &mut Trial) -> Outcome {
    let (mut session, parts) = start(trial)?;
    offer_two(&mut session, writable(parts.answer), readable(parts.asked))?;
    contained(&mut session, "writable before readable")?;
    kit::works(&mut session)
}

fn no_length(trial: &mut Trial) -> Outcome {
    let (mut session, parts) = start(trial)?;
    let nothing = Span {
        len: 0,
        ..parts.asked
    };
    for (first, second) in [
        (readable(nothing), writable(parts.answer)),
        (readable(parts.asked), writable(nothing)),
        (readable(nothing), readable(parts.asked)),
        (readable(nothing), writable(nothing)),
    ] {
        offer_two(&mut session, first, second)?;
        contained(&mut session, &format!("{first:?} and {second:?}"))?;
    }
    kit::works(&mut session)
}

fn no_request(trial: &mut Trial) -> Outcome {
    let (mut session, parts) = start(trial)?;
    offer_one(&mut session, writable(parts.answer))?;
    contained(&mut session, "room for a response alone")?;
    offer_two(&mut session, writable(parts.answer), writable(parts.asked))?;
    contained(&mut session, "room for a response, twice")?;
    let short = Span {
        len: 10,
        ..parts.asked
    };
    offer_two(&mut session, readable(short), writable(parts.answer))?;
    contained(&mut session, "ten bytes of a request")?;
    kit::works(&mut session)
}

fn little_room(trial: &mut Trial) -> Outcome {
    let (mut session, _) = start(trial)?;
    for room in [1, HEADER - 1] {
        let what = format!("room for {room} bytes");
        let question = request::get_display_info();
        back_or_contained(&mut session, &what, 0, &question, room)?;
    }
    kit::works(&mut session)
}

fn head_twice(trial: &mut Trial) -> Outcome {
    let (mut session, parts) = start(trial)?;
    let ring = session.gpu.control.ring();
    let chain = [readable(parts.asked), writable(parts.answer)];
    let head = ring.submit(&chain)?;
    ring.submit_head(head, Vec::new())?;
    ring.kick_always()?;
    contained(&mut session, "one head twice")?;
    kit::works(&mut session)
}

fn good_and_bad(trial: &mut Trial) -> Outcome {
    let (mut session, parts) = start(trial)?;
    let nowhere = Span {
        addr: 1 << 50,
        len: 64,
    };
    let mut good = Vec::new();
    for n in 0..40 {
        let ring = session.gpu.control.ring();
        if n % 2 == 0 {
            ring.submit(&[readable(nowhere), writable(parts.answer)])?;
        } else {
            good.push(ring.submit(&[readable(parts.asked), writable(parts.answer)])?);
        }
    }
    session.gpu.control.ring().kick_always()?;
    let mut answered = 0;
    loop {
        let ring = session.gpu.control.ring();
        let deadline = Deadline::after(PAUSE * 4);
        match ring.wait_used(&deadline) {
            Ok(used) if good.contains(&used.head) => {
                let len = used.len as usize;
                check(len >= HEADER, format_args!("{len} bytes for a good chain"))?;
                answered += 1;
            }
            Ok(_) => {}
            Err(error) if error.is_timeout() => break,
            Err(other) => return Err(other.into()),
        }
        if answered == good.len() {
            break;
        }
    }
    contained(
        &mut session,
        &format!("good and bad in turn, {answered} good ones answered"),
    )?;
    kit::works(&mut session)
}
