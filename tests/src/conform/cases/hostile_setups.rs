//! Indirect tables that no honest driver makes, and rings that no honest front-end sets up.

use super::hostile_rings::{
    NOWHERE, PAUSE, Parts, contained, offer_one, offer_two, settle, start, started,
};
use super::kit::{self, readable, writable};
use crate::conform::case::{Case, Group, Needs, Outcome, Stop};
use crate::conform::trial::Trial;
use crate::frontend::memory::USER_OFFSET;
use crate::frontend::message::{VringAddr, feature, protocol};
use crate::frontend::request::{self, Cursor};
use crate::frontend::response::DISPLAY_INFO;
use crate::frontend::ring::{DESC_INDIRECT, DESC_NEXT, Descriptor};
use crate::frontend::{Error, Session, SessionOptions};

const INDIRECT: Needs = Needs::features(feature::INDIRECT_DESC);

/// The cases of this group.
pub(super) const CASES: &[Case] = &[
    Group::HostileRings.case_needing(
        INDIRECT,
        15,
        "an indirect table inside an indirect table",
        &["ring-7"],
        indirect_in_indirect,
    ),
    Group::HostileRings.case_needing(
        INDIRECT,
        16,
        "an indirect table of no or a broken length",
        &[],
        indirect_length,
    ),
    Group::HostileRings.case_needing(
        INDIRECT,
        17,
        "an indirect table outside guest memory",
        &[],
        indirect_outside,
    ),
    Group::HostileRings.case_needing(
        INDIRECT,
        18,
        "an indirect descriptor that has a next",
        &["ring-7"],
        indirect_with_next,
    ),
    Group::HostileRings.case_needing(
        INDIRECT,
        19,
        "an indirect table that runs in a circle or out of itself",
        &["ring-6"],
        indirect_circle,
    ),
    Group::HostileRings.case(
        20,
        "an indirect descriptor that was not negotiated",
        &["ring-7"],
        indirect_not_negotiated,
    ),
    Group::HostileRings.case(
        22,
        "a broken cursor ring leaves the control ring alone",
        &[],
        broken_cursor_ring,
    ),
    Group::HostileRings.case_needing(
        Needs::protocol(protocol::RESET_DEVICE),
        23,
        "a broken ring works after a reset of the device",
        &["vu-27"],
        device_reset_mends,
    ),
    Group::HostileRings.case_needing(
        Needs::protocol(protocol::CONFIGURE_MEM_SLOTS),
        24,
        "the memory under a ring goes while it runs",
        &["vu-30"],
        memory_under_ring_gone,
    ),
    Group::HostileRings.case(
        25,
        "ring addresses outside guest memory",
        &["vu-4"],
        addresses_outside,
    ),
    Group::HostileRings.case(
        26,
        "a ring of 0 or 100 entries or more than 32768",
        &["vu-4"],
        odd_sizes,
    ),
    Group::HostileRings.case(
        27,
        "a ring that begins far from where its index is",
        &["vu-19"],
        strange_base,
    ),
];

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
