//! Rings that no honest driver makes.
//!
//! The specification leaves open what becomes of such a ring. Allowed here is what harms nobody
//! else: the chain is given back with whatever answer, or the ring stops. In either case the
//! back-end lives, the other queue goes on, and a reset of the queue makes the device work again.

use std::time::Duration;

use super::kit::{self, readable, writable};
use crate::conform::case::{Case, Group, Needs, Outcome, Stop, check};
use crate::conform::trial::Trial;
use crate::frontend::memory::{Span, USER_OFFSET};
use crate::frontend::message::{VringAddr, feature, protocol};
use crate::frontend::request::{self, Cursor};
use crate::frontend::response::{DISPLAY_INFO, HEADER};
use crate::frontend::ring::{DESC_INDIRECT, DESC_NEXT, Descriptor};
use crate::frontend::{Deadline, Error, Session, SessionOptions};

const INDIRECT: Needs = Needs::features(feature::INDIRECT_DESC);

/// The cases of this group.
pub(super) const CASES: &[Case] = &[
    Case {
        group: Group::HostileRings,
        number: 1,
        name: "a head outside the table",
        sentences: &[],
        needs: Needs::NOTHING,
        run: head_outside,
    },
    Case {
        group: Group::HostileRings,
        number: 2,
        name: "an available index far ahead",
        sentences: &[],
        needs: Needs::NOTHING,
        run: index_far_ahead,
    },
    Case {
        group: Group::HostileRings,
        number: 3,
        name: "an available index that goes back",
        sentences: &["ring-11"],
        needs: Needs::NOTHING,
        run: index_goes_back,
    },
    Case {
        group: Group::HostileRings,
        number: 4,
        name: "a descriptor that is its own next",
        sentences: &["ring-6"],
        needs: Needs::NOTHING,
        run: own_next,
    },
    Case {
        group: Group::HostileRings,
        number: 5,
        name: "a chain that runs in a circle",
        sentences: &["ring-6"],
        needs: Needs::NOTHING,
        run: circle,
    },
    Case {
        group: Group::HostileRings,
        number: 6,
        name: "a next outside the table",
        sentences: &[],
        needs: Needs::NOTHING,
        run: next_outside,
    },
    Case {
        group: Group::HostileRings,
        number: 7,
        name: "a request outside guest memory",
        sentences: &[],
        needs: Needs::NOTHING,
        run: request_outside,
    },
    Case {
        group: Group::HostileRings,
        number: 8,
        name: "a response outside guest memory",
        sentences: &[],
        needs: Needs::NOTHING,
        run: response_outside,
    },
    Case {
        group: Group::HostileRings,
        number: 9,
        name: "a buffer that reaches across the end of guest memory or of 64 bits",
        sentences: &[],
        needs: Needs::NOTHING,
        run: across_the_end,
    },
    Case {
        group: Group::HostileRings,
        number: 10,
        name: "buffers of four gigabytes",
        sentences: &["ring-6"],
        needs: Needs::NOTHING,
        run: huge_buffers,
    },
    Case {
        group: Group::HostileRings,
        number: 11,
        name: "a writable descriptor before a readable one",
        sentences: &["ring-3"],
        needs: Needs::NOTHING,
        run: writable_first,
    },
    Case {
        group: Group::HostileRings,
        number: 12,
        name: "descriptors of no length",
        sentences: &[],
        needs: Needs::NOTHING,
        run: no_length,
    },
    Case {
        group: Group::HostileRings,
        number: 13,
        name: "chains without a request",
        sentences: &[],
        needs: Needs::NOTHING,
        run: no_request,
    },
    Case {
        group: Group::HostileRings,
        number: 14,
        name: "the same head twice at a time",
        sentences: &[],
        needs: Needs::NOTHING,
        run: head_twice,
    },
    Case {
        group: Group::HostileRings,
        number: 15,
        name: "an indirect table inside an indirect table",
        sentences: &["ring-7"],
        needs: INDIRECT,
        run: indirect_in_indirect,
    },
    Case {
        group: Group::HostileRings,
        number: 16,
        name: "an indirect table of no or a broken length",
        sentences: &[],
        needs: INDIRECT,
        run: indirect_length,
    },
    Case {
        group: Group::HostileRings,
        number: 17,
        name: "an indirect table outside guest memory",
        sentences: &[],
        needs: INDIRECT,
        run: indirect_outside,
    },
    Case {
        group: Group::HostileRings,
        number: 18,
        name: "an indirect descriptor that has a next",
        sentences: &["ring-7"],
        needs: INDIRECT,
        run: indirect_with_next,
    },
    Case {
        group: Group::HostileRings,
        number: 19,
        name: "an indirect table that runs in a circle or out of itself",
        sentences: &["ring-6"],
        needs: INDIRECT,
        run: indirect_circle,
    },
    Case {
        group: Group::HostileRings,
        number: 20,
        name: "an indirect descriptor that was not negotiated",
        sentences: &["ring-7"],
        needs: Needs::NOTHING,
        run: indirect_not_negotiated,
    },
    Case {
        group: Group::HostileRings,
        number: 21,
        name: "good and bad chains in turn: the good ones are answered, or the ring stops",
        sentences: &[],
        needs: Needs::NOTHING,
        run: good_and_bad,
    },
    Case {
        group: Group::HostileRings,
        number: 22,
        name: "a broken cursor ring leaves the control ring alone",
        sentences: &[],
        needs: Needs::NOTHING,
        run: broken_cursor_ring,
    },
    Case {
        group: Group::HostileRings,
        number: 23,
        name: "a broken ring works after a reset of the device",
        sentences: &["vu-27"],
        needs: Needs::protocol(protocol::RESET_DEVICE),
        run: device_reset_mends,
    },
    Case {
        group: Group::HostileRings,
        number: 24,
        name: "the memory under a ring goes while it runs",
        sentences: &["vu-30"],
        needs: Needs::protocol(protocol::CONFIGURE_MEM_SLOTS),
        run: memory_under_ring_gone,
    },
    Case {
        group: Group::HostileRings,
        number: 25,
        name: "ring addresses outside guest memory",
        sentences: &["vu-4"],
        needs: Needs::NOTHING,
        run: addresses_outside,
    },
    Case {
        group: Group::HostileRings,
        number: 26,
        name: "a ring of 0 or 100 entries or more than 32768",
        sentences: &["vu-4"],
        needs: Needs::NOTHING,
        run: odd_sizes,
    },
    Case {
        group: Group::HostileRings,
        number: 27,
        name: "a ring that begins far from where its index is",
        sentences: &["vu-19"],
        needs: Needs::NOTHING,
        run: strange_base,
    },
];

/// How long a ring that neither answers nor signals an error is watched.
const PAUSE: Duration = Duration::from_millis(60);

/// A chain as it lies in the table, flags and links included, with GET_DISPLAY_INFO and room for its
/// answer to build it of.
struct Parts {
    asked: Span,
    answer: Span,
}

fn start(trial: &mut Trial) -> Result<(Session, Parts), Stop> {
    started(trial.start()?)
}

fn started(mut session: Session) -> Result<(Session, Parts), Stop> {
    kit::answers(&mut session)?;
    session.gpu.move_cursor(Cursor::default())?;
    let question = request::get_display_info();
    let asked = session.ram.alloc(question.len())?;
    session.ram.write(asked.addr, &question)?;
    let answer = session.ram.alloc(DISPLAY_INFO)?;
    Ok((session, Parts { asked, answer }))
}

/// Waits until the control ring has completed something or signalled an error, or for a while.
fn settle(session: &mut Session) -> Outcome {
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
fn contained(session: &mut Session, what: &str) -> Outcome {
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
fn offer_two(session: &mut Session, first: Descriptor, second: Descriptor) -> Outcome {
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
fn offer_one(session: &mut Session, descriptor: Descriptor) -> Outcome {
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
const NOWHERE: [u64; 4] = [0, 0x4000_0000, 1 << 50, u64::MAX - 0xfff];

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

/// An indirect table of a good request, and a descriptor that refers to it.
fn indirect(session: &Session, parts: &Parts) -> Result<Descriptor, Stop> {
    let chain = [readable(parts.asked), writable(parts.answer)];
    let table = session.gpu.control.indirect_table(&chain)?;
    Ok(Descriptor {
        flags: DESC_INDIRECT,
        ..readable(table)
    })
}

fn indirect_in_indirect(trial: &mut Trial) -> Outcome {
    let (mut session, parts) = start(trial)?;
    let inner = indirect(&session, &parts)?;
    let outer = session.gpu.control.indirect_table(&[inner])?;
    let outer = Descriptor {
        flags: DESC_INDIRECT,
        ..readable(outer)
    };
    offer_one(&mut session, outer)?;
    contained(&mut session, "a table in a table")?;
    // And a table that holds itself.
    let itself = Descriptor {
        flags: DESC_INDIRECT,
        ..outer
    };
    session.ram.write(outer.addr, &itself.to_bytes())?;
    offer_one(&mut session, itself)?;
    contained(&mut session, "a table in itself")?;
    kit::works(&mut session)
}

fn indirect_length(trial: &mut Trial) -> Outcome {
    let (mut session, parts) = start(trial)?;
    let good = indirect(&session, &parts)?;
    for len in [0, 1, 15, 17, 31, u32::MAX, u32::MAX - 15] {
        offer_one(&mut session, Descriptor { len, ..good })?;
        contained(&mut session, &format!("a table of {len} bytes"))?;
    }
    kit::works(&mut session)
}

fn indirect_outside(trial: &mut Trial) -> Outcome {
    let (mut session, parts) = start(trial)?;
    let good = indirect(&session, &parts)?;
    for addr in NOWHERE {
        offer_one(&mut session, Descriptor { addr, ..good })?;
        contained(&mut session, &format!("a table at {addr:#x}"))?;
    }
    kit::works(&mut session)
}

fn indirect_with_next(trial: &mut Trial) -> Outcome {
    let (mut session, parts) = start(trial)?;
    let good = indirect(&session, &parts)?;
    offer_two(&mut session, good, writable(parts.answer))?;
    contained(&mut session, "a table with a next")?;
    kit::works(&mut session)
}

fn indirect_circle(trial: &mut Trial) -> Outcome {
    let (mut session, parts) = start(trial)?;
    for next in [0, 2, 1000, u16::MAX] {
        let good = indirect(&session, &parts)?;
        let first = Descriptor {
            flags: DESC_NEXT,
            next,
            ..readable(parts.asked)
        };
        session.ram.write(good.addr, &first.to_bytes())?;
        offer_one(&mut session, good)?;
        contained(&mut session, &format!("next {next} in a table of 2"))?;
    }
    kit::works(&mut session)
}

fn indirect_not_negotiated(trial: &mut Trial) -> Outcome {
    let mut options = SessionOptions::default();
    options.features &= !feature::INDIRECT_DESC;
    let (mut session, parts) = started(trial.session(&options)?)?;
    let table = indirect(&session, &parts)?;
    offer_one(&mut session, table)?;
    contained(&mut session, "a table that was not negotiated")?;
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

fn broken_cursor_ring(trial: &mut Trial) -> Outcome {
    let (mut session, _) = start(trial)?;
    session.gpu.cursor.ring().submit_head(9999, Vec::new())?;
    session.gpu.cursor.ring().kick_always()?;
    std::thread::sleep(PAUSE / 2);
    for _ in 0..5 {
        kit::answers(&mut session)?;
    }
    session.reset_queue(1)?;
    session.gpu.move_cursor(Cursor::default())?;
    kit::works(&mut session)
}

fn device_reset_mends(trial: &mut Trial) -> Outcome {
    let (mut session, _) = start(trial)?;
    for _ in 0..2 {
        session.gpu.control.ring().submit_head(9999, Vec::new())?;
        session.gpu.control.ring().kick_always()?;
        settle(&mut session)?;
        session.reset_device()?;
        kit::answers(&mut session)?;
        session.gpu.move_cursor(Cursor::default())?;
    }
    kit::works(&mut session)
}

fn memory_under_ring_gone(trial: &mut Trial) -> Outcome {
    let (mut session, _) = start(trial)?;
    let region = session.ram.regions()?[0].0;
    session.vhost.remove_mem_region(region)?;
    let question = request::get_display_info();
    session.gpu.control.submit(&question, DISPLAY_INFO)?;
    session.gpu.control.ring().kick_always()?;
    std::thread::sleep(PAUSE);
    // A front-end that takes a running ring's memory away may be hung up on.
    if session.vhost.barrier().is_err() {
        return Ok(());
    }
    let (region, fd) = session.ram.regions()?.remove(0);
    let fd = std::os::fd::AsFd::as_fd(&fd);
    session.vhost.add_mem_region(region, fd)?;
    session.reset_queue(0)?;
    session.reset_queue(1)?;
    kit::works(&mut session)
}

/// Sets the control ring up as told, after it was stopped, and kicks it. `false` when the back-end
/// refused or hung up, as it may when the front-end makes no sense.
fn set_up(session: &Session, size: u32, base: u32, addr: VringAddr) -> Result<bool, Stop> {
    let kick = rustix::event::eventfd(5, rustix::event::EventfdFlags::CLOEXEC);
    let kick = kick.map_err(|error| Error::io("eventfd", error))?;
    let vhost = &session.vhost;
    let told = vhost
        .set_vring_num(0, size)
        .and_then(|()| vhost.set_vring_base(0, base))
        .and_then(|()| vhost.set_vring_addr(0, addr))
        .and_then(|()| vhost.set_vring_kick(0, Some(std::os::fd::AsFd::as_fd(&kick))))
        .and_then(|()| vhost.set_vring_enable(0, true))
        .and_then(|()| vhost.barrier());
    match told {
        Ok(()) => Ok(true),
        Err(Error::Nack { .. } | Error::Closed(_) | Error::Io { .. }) => Ok(false),
        Err(other) => Err(other.into()),
    }
}

/// Sets the control ring up strangely, in each of these ways. That does no harm: the cursor
/// queue goes on, and the control queue works when it is set up well. A back-end that hung up has
/// nothing more to show than its life.
fn set_up_each(session: &mut Session, ways: &[(String, u32, u32, VringAddr)]) -> Outcome {
    for (what, size, base, addr) in ways {
        session.stop_queue(0)?;
        if !set_up(session, *size, *base, *addr)? && session.vhost.barrier().is_err() {
            return Ok(());
        }
        std::thread::sleep(PAUSE / 4);
        match contained(session, what) {
            // Or only now, when it has looked at the ring.
            Err(_) if session.vhost.barrier().is_err() => return Ok(()),
            other => other?,
        }
    }
    kit::works(session)
}

fn addresses_outside(trial: &mut Trial) -> Outcome {
    let (mut session, _) = start(trial)?;
    let end = USER_OFFSET + 0x10_0000 + (256 << 20) - 4096;
    let ways = [0, end, USER_OFFSET - 4096, u64::MAX - 4095].map(|at| {
        let addr = VringAddr {
            descriptors: at,
            used: at,
            available: at,
        };
        (format!("a ring at {at:#x}"), 1024, 0, addr)
    });
    set_up_each(&mut session, &ways)
}

fn odd_sizes(trial: &mut Trial) -> Outcome {
    let (mut session, _) = start(trial)?;
    let addr = session.gpu.control.ring().addresses();
    let sizes = [0, 100, 65_535, 65_536, u32::MAX];
    let ways = sizes.map(|size| (format!("a ring of {size} entries"), size, 0, addr));
    set_up_each(&mut session, &ways)
}

fn strange_base(trial: &mut Trial) -> Outcome {
    let (mut session, _) = start(trial)?;
    let addr = session.gpu.control.ring().addresses();
    let bases = [1000, 65_535, 65_536, u32::MAX];
    let ways = bases.map(|base| (format!("a ring from index {base} on"), 256, base, addr));
    set_up_each(&mut session, &ways)
}
