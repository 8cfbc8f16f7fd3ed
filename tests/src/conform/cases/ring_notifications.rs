//! What virtqueues can do: notifications, sizes, indices that wrap.

use std::time::Duration;

use super::kit;
use super::rings::{asks, without};
use crate::conform::case::{Case, Group, Needs, Outcome, Stop, check, equal};
use crate::conform::trial::Trial;
use crate::frontend::message::feature;
use crate::frontend::queue::Ticket;
use crate::frontend::request::{self, Cursor};
use crate::frontend::response::{DISPLAY_INFO, HEADER, resp};
use crate::frontend::{
    ChainShape, CommandQueue, Deadline, Error, Rect, Session, SessionOptions, SplitRing,
};

const INDIRECT: Needs = Needs::features(feature::INDIRECT_DESC);
const EVENT_IDX: Needs = Needs::features(feature::EVENT_IDX);

/// The cases of this group.
pub(super) const CASES: &[Case] = &[
    Group::Rings.case_needing(
        EVENT_IDX,
        11,
        "with EVENT_IDX each awaited completion comes with a notification",
        &["ring-16"],
        event_idx_interrupts,
    ),
    Group::Rings.case_needing(
        EVENT_IDX,
        12,
        "with EVENT_IDX no kick is lost between batches of any size",
        &["ring-16"],
        event_idx_kicks,
    ),
    Group::Rings.case_needing(
        EVENT_IDX,
        13,
        "with EVENT_IDX the available ring's flags mean nothing, and the used ring's are 0",
        &["ring-15", "ring-21"],
        event_idx_flags,
    ),
    Group::Rings.case(
        14,
        "without EVENT_IDX each completion comes with a notification, whatever used_event is",
        &["ring-12", "ring-14", "ring-21"],
        no_event_idx,
    ),
    Group::Rings.case(
        15,
        "a kick without new buffers does no harm",
        &["ring-22"],
        spurious_kicks,
    ),
    Group::Rings.case(
        16,
        "a ring full of commands is answered, each command once",
        &["ring-1"],
        full_ring,
    ),
    Group::Rings.case(
        17,
        "indices wrap at 65536 on both queues",
        &["vu-18", "vu-19"],
        indices_wrap,
    ),
    Group::Rings.case(
        18,
        "rings of 2 to 256 entries work, and one of 1024 that is not refused",
        &["ring-1"],
        sizes,
    ),
    Group::Rings.case_needing(
        INDIRECT,
        19,
        "a ring of one entry works with indirect tables",
        &["ring-1"],
        one_entry,
    ),
    Group::Rings.case(
        20,
        "a ring of 32768 entries, the largest there is, works unless it is refused",
        &["ring-1"],
        largest,
    ),
    Group::Rings.case(
        21,
        "both queues work at a time",
        &["gpu-feature-3"],
        both_queues,
    ),
    Group::Rings.case_needing(
        EVENT_IDX,
        24,
        "with EVENT_IDX completions before used_event come without a notification each",
        &["ring-17"],
        event_idx_quiet,
    ),
    Group::Rings.case(
        25,
        "without EVENT_IDX completions come without a notification each while flags are 1",
        &["ring-13"],
        flags_quiet,
    ),
];

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
        Err(error) if no_such_size(&error, size) => Err(Stop::skip(format_args!(
            "a ring of {size} entries is refused"
        ))),
        other => Ok(other?),
    }
}

/// Whether an error says that a ring of this size cannot be had. Large ones are no duty, and without
/// acknowledgements the end of the connection is all that a back-end can say.
fn no_such_size(error: &Error, size: u16) -> bool {
    match error {
        Error::Nack { .. } => true,
        Error::Closed(_) | Error::Io { .. } => size > 256,
        _ => false,
    }
}

/// Goes on with a control ring of this size on the same device: the queue is stopped and set up anew.
fn resize(session: &mut Session, size: u16) -> Result<(), Error> {
    let event_idx = session.features & feature::EVENT_IDX != 0;
    session.stop_queue(0)?;
    let ring = SplitRing::new(&session.ram, 0, size, event_idx)?;
    session.gpu.control = CommandQueue::new(session.ram.clone(), ring);
    session.start_queue(0, 0)?;
    session.vhost.barrier()
}

fn sizes(trial: &mut Trial) -> Outcome {
    let mut session = sized(trial, 2)?;
    for size in [2_u16, 4, 8, 64, 256, 1024] {
        if size > 2 {
            match resize(&mut session, size) {
                // The others were checked.
                Err(error) if size > 256 && no_such_size(&error, size) => return Ok(()),
                done => done?,
            }
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
