//! What virtqueues can do: layouts of chains, notifications, sizes, indices that wrap.

use std::time::Duration;

use super::kit::{self, readable, succeeds, writable};
use crate::conform::case::{Case, Group, Needs, Outcome, Stop, check, equal};
use crate::conform::trial::Trial;
use crate::frontend::memory::Span;
use crate::frontend::message::feature;
use crate::frontend::pixels::{BGRX, Picture, noise};
use crate::frontend::queue::Ticket;
use crate::frontend::request::{self, Cursor, MemEntry};
use crate::frontend::response::{self, DISPLAY_INFO, HEADER, resp};
use crate::frontend::ring::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE, Descriptor};
use crate::frontend::{
    ChainShape, CommandQueue, Deadline, Error, Rect, Session, SessionOptions, SplitRing,
};

const INDIRECT: Needs = Needs::features(feature::INDIRECT_DESC);
const EVENT_IDX: Needs = Needs::features(feature::EVENT_IDX);

/// The cases of this group.
pub(super) const CASES: &[Case] = &[
    Case {
        group: Group::Rings,
        number: 1,
        name: "a request may be cut into descriptors anywhere",
        sentences: &["ring-1"],
        needs: Needs::NOTHING,
        run: request_in_pieces,
    },
    Case {
        group: Group::Rings,
        number: 2,
        name: "a response may be cut into descriptors anywhere",
        sentences: &["ring-1", "ring-19"],
        needs: Needs::NOTHING,
        run: response_in_pieces,
    },
    Case {
        group: Group::Rings,
        number: 3,
        name: "a long request in a chain of a hundred descriptors is understood",
        sentences: &["ring-1", "ring-2"],
        needs: Needs::NOTHING,
        run: long_chain,
    },
    Case {
        group: Group::Rings,
        number: 4,
        name: "a response buffer that is too small is not overrun",
        sentences: &["ring-19"],
        needs: Needs::NOTHING,
        run: small_response,
    },
    Case {
        group: Group::Rings,
        number: 5,
        name: "a request without room for a response is given back, done or not",
        sentences: &["ring-19"],
        needs: Needs::NOTHING,
        run: no_response,
    },
    Case {
        group: Group::Rings,
        number: 6,
        name: "len in the used ring is the number of bytes that were written",
        sentences: &["ring-18", "ring-19"],
        needs: Needs::NOTHING,
        run: used_len,
    },
    Case {
        group: Group::Rings,
        number: 7,
        name: "neither requests nor descriptors are written to",
        sentences: &["ring-4", "ring-5"],
        needs: Needs::NOTHING,
        run: nothing_else_is_written,
    },
    Case {
        group: Group::Rings,
        number: 8,
        name: "an indirect table is a chain",
        sentences: &["ring-1"],
        needs: INDIRECT,
        run: indirect,
    },
    Case {
        group: Group::Rings,
        number: 9,
        name: "the write flag of an indirect descriptor means nothing",
        sentences: &["ring-9"],
        needs: INDIRECT,
        run: indirect_with_write_flag,
    },
    Case {
        group: Group::Rings,
        number: 10,
        name: "an indirect descriptor may end a chain of ordinary ones",
        sentences: &["ring-10"],
        needs: INDIRECT,
        run: indirect_at_the_end,
    },
    Case {
        group: Group::Rings,
        number: 11,
        name: "with EVENT_IDX each awaited completion comes with a notification",
        sentences: &["ring-16"],
        needs: EVENT_IDX,
        run: event_idx_interrupts,
    },
    Case {
        group: Group::Rings,
        number: 12,
        name: "with EVENT_IDX no kick is lost between batches of any size",
        sentences: &["ring-16"],
        needs: EVENT_IDX,
        run: event_idx_kicks,
    },
    Case {
        group: Group::Rings,
        number: 13,
        name: "with EVENT_IDX the available ring's flags mean nothing, and the used ring's are 0",
        sentences: &["ring-15", "ring-21"],
        needs: EVENT_IDX,
        run: event_idx_flags,
    },
    Case {
        group: Group::Rings,
        number: 14,
        name: "without EVENT_IDX each completion comes with a notification, whatever used_event is",
        sentences: &["ring-12", "ring-14", "ring-21"],
        needs: Needs::NOTHING,
        run: no_event_idx,
    },
    Case {
        group: Group::Rings,
        number: 15,
        name: "a kick without new buffers does no harm",
        sentences: &["ring-22"],
        needs: Needs::NOTHING,
        run: spurious_kicks,
    },
    Case {
        group: Group::Rings,
        number: 16,
        name: "a ring full of commands is answered, each command once",
        sentences: &["ring-1"],
        needs: Needs::NOTHING,
        run: full_ring,
    },
    Case {
        group: Group::Rings,
        number: 17,
        name: "indices wrap at 65536 on both queues",
        sentences: &["vu-18", "vu-19"],
        needs: Needs::NOTHING,
        run: indices_wrap,
    },
    Case {
        group: Group::Rings,
        number: 18,
        name: "rings of 2 to 1024 entries work",
        sentences: &["ring-1"],
        needs: Needs::NOTHING,
        run: sizes,
    },
    Case {
        group: Group::Rings,
        number: 19,
        name: "a ring of one entry works with indirect tables",
        sentences: &["ring-1"],
        needs: INDIRECT,
        run: one_entry,
    },
    Case {
        group: Group::Rings,
        number: 20,
        name: "a ring of 32768 entries, the largest there is, works",
        sentences: &["ring-1"],
        needs: Needs::NOTHING,
        run: largest,
    },
    Case {
        group: Group::Rings,
        number: 21,
        name: "both queues work at a time",
        sentences: &["gpu-feature-3"],
        needs: Needs::NOTHING,
        run: both_queues,
    },
    Case {
        group: Group::Rings,
        number: 22,
        name: "without any ring feature everything works",
        sentences: &["ring-1", "ring-14"],
        needs: Needs::NOTHING,
        run: no_features,
    },
    Case {
        group: Group::Rings,
        number: 23,
        name: "the order of descriptors in the table means nothing",
        sentences: &["ring-1"],
        needs: Needs::NOTHING,
        run: order_in_the_table,
    },
    Case {
        group: Group::Rings,
        number: 24,
        name: "with EVENT_IDX completions before used_event come without a notification each",
        sentences: &["ring-16", "ring-17"],
        needs: EVENT_IDX,
        run: event_idx_quiet,
    },
    Case {
        group: Group::Rings,
        number: 25,
        name: "without EVENT_IDX completions come without a notification each while flags are 1",
        sentences: &["ring-13", "ring-14"],
        needs: Needs::NOTHING,
        run: flags_quiet,
    },
];

/// The default options without these features.
fn without(features: u64) -> SessionOptions {
    let mut options = SessionOptions::default();
    options.features &= !features;
    options
}

/// GET_DISPLAY_INFO laid out as `shape` says; its answer must be that to one laid out plainly.
fn asks(session: &mut Session, what: &str, shape: &ChainShape) -> Outcome {
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
        let answer = session.gpu.call(&request::get_display_info(), room)?;
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
    let answer = session.gpu.call(&create, 0)?;
    equal("bytes in no buffer", answer.written(), 0)?;
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

fn event_idx_interrupts(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    // A completion without a notification is found out by the one who waits for it.
    for _ in 0..150 {
        kit::answers(&mut session)?;
        session.gpu.move_cursor(Cursor::default())?;
    }
    kit::works(&mut session)
}

/// Queues `count` commands, which are refused, without a kick.
fn queue(session: &mut Session, count: usize) -> Result<Vec<Ticket>, Stop> {
    let flush = request::flush(99, Rect::sized(1, 1));
    let tickets = (0..count).map(|_| session.gpu.queue(&flush));
    Ok(tickets.collect::<Result<_, _>>()?)
}

/// Waits for commands of [`queue`].
fn collect(session: &mut Session, tickets: Vec<Ticket>) -> Outcome {
    for ticket in tickets {
        let answer = session.gpu.control.wait(ticket)?;
        check(
            answer.written() == HEADER && answer.kind() >= resp::OK_NODATA,
            format_args!("{} bytes, type {:#06x}", answer.written(), answer.kind()),
        )?;
    }
    Ok(())
}

fn event_idx_kicks(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    for round in 0..12 {
        for count in [1, 2, 1 + round, 40] {
            let mut tickets = queue(&mut session, count)?;
            session.gpu.control.kick()?;
            // A second batch while the first may be in work.
            tickets.extend(queue(&mut session, 3)?);
            session.gpu.control.kick()?;
            collect(&mut session, tickets)?;
        }
    }
    kit::works(&mut session)
}

fn event_idx_flags(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    let [_, available, used] = session.gpu.control.ring().parts();
    // "No interrupt", which the device must not heed.
    session.ram.write(available.addr, &1_u16.to_le_bytes())?;
    for _ in 0..20 {
        kit::answers(&mut session)?;
        equal(
            "flags of the used ring",
            session.ram.load_u16(used.addr)?,
            0,
        )?;
    }
    kit::works(&mut session)
}

fn no_event_idx(trial: &mut Trial) -> Outcome {
    let mut session = trial.session(&without(feature::EVENT_IDX))?;
    let [_, available, used] = session.gpu.control.ring().parts();
    let size = u64::from(session.gpu.control.ring().size());
    for n in 0..60_u16 {
        let question = request::get_display_info();
        let ticket = session.gpu.control.submit(&question, DISPLAY_INFO)?;
        let anything = n.wrapping_mul(0x3711);
        let used_event = available.addr + 4 + 2 * size;
        session.ram.write(used_event, &anything.to_le_bytes())?;
        session.gpu.control.kick()?;
        session.gpu.control.wait(ticket)?;
        let flags = session.ram.load_u16(used.addr)?;
        check(
            flags <= 1,
            format_args!("flags of the used ring: {flags:#x}"),
        )?;
    }
    kit::works(&mut session)
}

fn spurious_kicks(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    for _ in 0..20 {
        for _ in 0..10 {
            session.gpu.control.ring().kick_always()?;
            session.gpu.cursor.ring().kick_always()?;
        }
        kit::answers(&mut session)?;
        session.gpu.move_cursor(Cursor::default())?;
    }
    kit::works(&mut session)
}

fn full_ring(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    for _ in 0..10 {
        let count = session.gpu.control.ring().free_descriptors() / 2;
        let tickets = queue(&mut session, count)?;
        equal(
            "free descriptors",
            session.gpu.control.ring().free_descriptors(),
            0,
        )?;
        session.gpu.control.kick()?;
        collect(&mut session, tickets)?;
    }
    equal("chains left", session.gpu.control.ring().in_flight(), 0)?;
    kit::works(&mut session)
}

fn indices_wrap(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    let start = 65_500;
    for index in [0, 1] {
        session.stop_queue(index)?;
        session.queue(index).reset()?;
        session.queue(index).ring().reset_to(start)?;
        session.start_queue(index, u32::from(start))?;
    }
    for _ in 0..30 {
        let tickets = queue(&mut session, 3)?;
        session.gpu.control.kick()?;
        collect(&mut session, tickets)?;
        session.gpu.move_cursor(Cursor::default())?;
        session.gpu.move_cursor(Cursor::default())?;
    }
    let base = session.stop_queue(0)?;
    let expected = session.gpu.control.ring().next_avail();
    check(
        expected < 100,
        format_args!("the index is {expected}, and should have wrapped"),
    )?;
    equal("base of the control ring", base, u32::from(expected))?;
    session.start_queue(0, base)?;
    kit::works(&mut session)
}

/// A device with rings of this size; skips where it cannot be had.
fn sized(trial: &mut Trial, size: u16) -> Result<Session, Stop> {
    let options = SessionOptions {
        queue_sizes: [size, size],
        ..SessionOptions::default()
    };
    let vhost = trial.connect()?;
    match Session::over(vhost, &options) {
        Err(Error::Nack { .. }) => Err(Stop::skip(format_args!(
            "a ring of {size} entries is refused"
        ))),
        other => Ok(other?),
    }
}

fn sizes(trial: &mut Trial) -> Outcome {
    let mut session = sized(trial, 2)?;
    for size in [2_u16, 4, 8, 64, 1024] {
        if size > 2 {
            // The next size on the same device: the queue is stopped and set up anew.
            let event_idx = session.features & feature::EVENT_IDX != 0;
            session.stop_queue(0)?;
            let ring = SplitRing::new(&session.ram, 0, size, event_idx)?;
            session.gpu.control = CommandQueue::new(session.ram.clone(), ring);
            session.start_queue(0, 0)?;
        }
        for _ in 0..3 {
            let count = usize::from(size / 2).min(200);
            let tickets = queue(&mut session, count)?;
            session.gpu.control.kick()?;
            collect(&mut session, tickets)?;
        }
        asks(
            &mut session,
            &format!("a ring of {size}"),
            &ChainShape::default(),
        )?;
    }
    kit::works(&mut session)
}

fn one_entry(trial: &mut Trial) -> Outcome {
    let mut session = sized(trial, 1)?;
    let shape = ChainShape {
        indirect: true,
        ..ChainShape::default()
    };
    for _ in 0..50 {
        asks(&mut session, "a ring of one entry", &shape)?;
    }
    let moved = request::move_cursor(Cursor::default());
    session.gpu.cursor.call_shaped(&moved, 0, &shape)?;
    Ok(session.check_display()?)
}

fn largest(trial: &mut Trial) -> Outcome {
    let mut session = sized(trial, 32_768)?;
    let tickets = queue(&mut session, 1500)?;
    session.gpu.control.kick()?;
    collect(&mut session, tickets)?;
    kit::works(&mut session)
}

fn both_queues(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    for x in 0..10 {
        let tickets = queue(&mut session, 20)?;
        session.gpu.control.kick()?;
        for _ in 0..5 {
            session.gpu.move_cursor(Cursor {
                x,
                ..Cursor::default()
            })?;
        }
        collect(&mut session, tickets)?;
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

/// How many notifications come with [`ROUNDS`] commands, one after the other, that nobody wants to
/// be notified of.
fn notifications(session: &mut Session) -> Result<u64, Stop> {
    let flush = request::flush(99, Rect::sized(1, 1));
    let mut counter = [0; 8];
    // What is left of earlier commands.
    let _ = rustix::io::read(session.gpu.control.ring().call_fd(), &mut counter);
    for _ in 0..ROUNDS {
        let before = session.gpu.control.ring().used_index()?;
        session.gpu.queue(&flush)?;
        session.gpu.control.ring().kick_always()?;
        Deadline::default().poll("a completion on ring 0", || {
            let now = session.gpu.control.ring().used_index()?;
            Ok((now != before).then_some(()))
        })?;
    }
    // The last notification comes behind its completion.
    std::thread::sleep(Duration::from_millis(10));
    let told = rustix::io::read(session.gpu.control.ring().call_fd(), &mut counter);
    while session.gpu.control.ring().pop_used()?.is_some() {}
    Ok(told.map_or(0, |_| u64::from_ne_bytes(counter)))
}

/// Commands of [`notifications`].
const ROUNDS: u64 = 20;

/// Notifications that nobody asked for are no error; one for each command is.
fn few(count: u64) -> Outcome {
    check(
        count < ROUNDS / 2,
        format_args!("{count} notifications for {ROUNDS} commands, and none was wanted"),
    )
}

fn event_idx_quiet(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    kit::answers(&mut session)?;
    let ring = session.gpu.control.ring();
    let [_, available, _] = ring.parts();
    let used_event = available.addr + 4 + 2 * u64::from(ring.size());
    let far = ring.used_index()?.wrapping_add(1000);
    session.ram.write(used_event, &far.to_le_bytes())?;
    few(notifications(&mut session)?)?;
    // The driver waits again, and is told.
    kit::works(&mut session)
}

fn flags_quiet(trial: &mut Trial) -> Outcome {
    let mut session = trial.session(&without(feature::EVENT_IDX))?;
    kit::answers(&mut session)?;
    let [_, available, _] = session.gpu.control.ring().parts();
    session.ram.write(available.addr, &1_u16.to_le_bytes())?;
    few(notifications(&mut session)?)?;
    session.ram.write(available.addr, &0_u16.to_le_bytes())?;
    kit::works(&mut session)
}
