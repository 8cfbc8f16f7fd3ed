//! Hostile rings: a bad chain is consumed, a bad ring is stopped, and nothing else suffers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::cast_lossless,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "test code: a broken expectation is to stop the test loudly"
)]

use std::time::Duration;

use nosnoop_tests::frontend::memory::Span;
use nosnoop_tests::frontend::pixels::BGRX;
use nosnoop_tests::frontend::queue::Ticket;
use nosnoop_tests::frontend::request::{self, Cursor};
use nosnoop_tests::frontend::response::{Response, resp};
use nosnoop_tests::frontend::ring::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE, Descriptor};
use nosnoop_tests::frontend::{Daemon, Deadline, Error, Result, Rig, Session, SessionOptions};

/// How long a stopped ring is watched for completions that must not come.
const PAUSE: Duration = Duration::from_millis(150);

fn rig() -> Result<Rig> {
    let mut rig = Rig::headless(&[])?;
    rig.gpu.create_2d(1, BGRX, 8, 8)?;
    Ok(rig)
}

fn read(span: Span) -> Descriptor {
    Descriptor {
        addr: span.addr,
        len: span.len,
        flags: 0,
        next: 0,
    }
}

fn write(span: Span) -> Descriptor {
    Descriptor {
        flags: DESC_WRITE,
        ..read(span)
    }
}

/// Puts a chain of descriptors on the control queue just as given (flags and links included), the
/// first one as head.
fn submit_raw(rig: &mut Rig, chain: &[Descriptor], answer: Vec<Span>) -> Result<Ticket> {
    let ring = rig.gpu.control.ring();
    let indices = ring.reserve(chain.len())?;
    for (index, descriptor) in indices.iter().zip(chain) {
        ring.write_descriptor(*index, *descriptor)?;
    }
    let head = indices[0];
    ring.submit_head(head, indices)?;
    Ok(rig.gpu.control.track(head, answer, Vec::new()))
}

fn call_raw(rig: &mut Rig, chain: &[Descriptor], answer: Vec<Span>) -> Result<Response> {
    let ticket = submit_raw(rig, chain, answer)?;
    rig.gpu.control.kick()?;
    rig.gpu.control.wait(ticket)
}

/// Request and response buffers of a display-info request.
fn buffers(rig: &Rig) -> Result<(Span, Span)> {
    let request = request::get_display_info();
    let span = rig.ram.alloc(request.len())?;
    rig.ram.write(span.addr, &request)?;
    Ok((span, rig.ram.alloc(408)?))
}

/// A chain that makes no sense was given back: nothing written, or an error.
fn consumed(response: &Response) {
    let fine = response.written() == 0 || response.kind() == resp::ERR_UNSPEC;
    assert!(fine, "{} bytes, {:#x}", response.written(), response.kind());
}

#[test]
fn buffers_outside_guest_memory_are_consumed_and_the_ring_goes_on() -> Result<()> {
    let mut rig = rig()?;
    let (request, answer) = buffers(&rig)?;
    let nowhere = [0, 0x10_0000 + (256 << 20), 1 << 40, u64::MAX - 10, u64::MAX];
    for addr in nowhere {
        let bad = Span { addr, len: 64 };
        consumed(&rig.gpu_call(&[read(bad), write(answer)], answer)?);
        consumed(&rig.gpu_call(
            &[read(request), write(bad)],
            Span {
                addr: answer.addr,
                len: 0,
            },
        )?);
        rig.gpu.display_info()?;
    }
    rig.finish()
}

/// A chain of two, linked.
trait CallTwo {
    fn gpu_call(&mut self, chain: &[Descriptor; 2], answer: Span) -> Result<Response>;
}

impl CallTwo for Rig {
    fn gpu_call(&mut self, chain: &[Descriptor; 2], answer: Span) -> Result<Response> {
        let head = self.gpu.control.ring().submit(chain)?;
        let ticket = self.gpu.control.track(head, vec![answer], Vec::new());
        self.gpu.control.kick()?;
        self.gpu.control.wait(ticket)
    }
}

#[test]
fn a_buffer_across_a_hole_in_memory_is_consumed() -> Result<()> {
    let mut rig = rig()?;
    let (_, answer) = buffers(&rig)?;
    let across = Span {
        addr: 0x10_0000 + (256 << 20) - 16,
        len: 64,
    };
    consumed(&rig.gpu_call(&[read(across), write(answer)], answer)?);
    rig.finish()
}

#[test]
fn four_gigabyte_descriptors_are_consumed_without_taking_memory() -> Result<()> {
    let mut rig = rig()?;
    let (request, answer) = buffers(&rig)?;
    let before = rig.daemon.own_bytes()?;
    let huge = Span {
        addr: request.addr,
        len: u32::MAX,
    };
    for _ in 0..50 {
        consumed(&rig.gpu_call(&[read(huge), write(answer)], answer)?);
        let nothing = Span { len: 0, ..answer };
        consumed(&rig.gpu_call(&[read(request), write(huge)], nothing)?);
        consumed(&rig.gpu_call(&[read(huge), write(huge)], nothing)?);
    }
    let grown = rig.daemon.own_bytes()?.saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more");
    rig.finish()
}

#[test]
fn a_request_as_large_as_guest_memory_is_read_with_bounded_memory() -> Result<()> {
    let mut rig = rig()?;
    let before = rig.daemon.own_bytes()?;
    let all = Span {
        addr: 0x10_0000,
        len: 256 << 20,
    };
    let answer = rig.ram.alloc(64)?;
    // Its first bytes are a descriptor table: no command. What matters is memory and time.
    for _ in 0..3 {
        consumed(&rig.gpu_call(&[read(all), write(answer)], answer)?);
    }
    let grown = rig.daemon.own_bytes()?.saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more");
    rig.finish()
}

#[test]
fn descriptor_loops_are_consumed() -> Result<()> {
    let mut rig = rig()?;
    let (request, answer) = buffers(&rig)?;
    // A descriptor that is its own next; a cycle of two; a cycle that the head is not part of.
    for length in 1..=3_usize {
        let indices = rig.gpu.control.ring().reserve(length)?;
        for (at, index) in indices.iter().enumerate() {
            let back = indices[if at + 1 < length {
                at + 1
            } else {
                length.saturating_sub(2)
            }];
            let flags = DESC_NEXT | if at == 0 { 0 } else { DESC_WRITE };
            let span = if at == 0 { request } else { answer };
            let descriptor = Descriptor {
                flags,
                next: back,
                ..read(span)
            };
            rig.gpu
                .control
                .ring()
                .write_descriptor(*index, descriptor)?;
        }
        let head = indices[0];
        rig.gpu.control.ring().submit_head(head, indices)?;
        let ticket = rig.gpu.control.track(head, vec![answer], Vec::new());
        rig.gpu.control.kick()?;
        consumed(&rig.gpu.control.wait(ticket)?);
        rig.gpu.display_info()?;
    }
    rig.finish()
}

#[test]
fn a_next_index_outside_the_table_is_consumed() -> Result<()> {
    let mut rig = rig()?;
    let (request, answer) = buffers(&rig)?;
    for next in [256, 257, 0x7fff, u16::MAX] {
        let chain = [Descriptor {
            flags: DESC_NEXT,
            next,
            ..read(request)
        }];
        consumed(&call_raw(&mut rig, &chain, vec![answer])?);
    }
    rig.finish()
}

#[test]
fn readable_descriptors_behind_writable_ones_are_consumed() -> Result<()> {
    let mut rig = rig()?;
    let (request, answer) = buffers(&rig)?;
    consumed(&rig.gpu_call(&[write(answer), read(request)], answer)?);
    rig.finish()
}

#[test]
fn chains_without_request_or_with_empty_descriptors_are_consumed() -> Result<()> {
    let mut rig = rig()?;
    let (request, answer) = buffers(&rig)?;
    consumed(&call_raw(&mut rig, &[write(answer)], vec![answer])?);
    let nothing = Span { len: 0, ..request };
    consumed(&call_raw(&mut rig, &[read(nothing)], Vec::new())?);
    consumed(&call_raw(&mut rig, &[write(nothing)], Vec::new())?);
    consumed(&rig.gpu_call(&[read(nothing), write(answer)], answer)?);
    rig.finish()
}

#[test]
fn empty_descriptors_between_the_parts_of_a_request_do_no_harm() -> Result<()> {
    let mut rig = rig()?;
    let (request, answer) = buffers(&rig)?;
    let nothing = Span { len: 0, ..request };
    let chain = [
        read(nothing),
        read(request),
        read(nothing),
        write(nothing),
        write(answer),
    ];
    let head = rig.gpu.control.ring().submit(&chain)?;
    let ticket = rig.gpu.control.track(head, vec![answer], Vec::new());
    rig.gpu.control.kick()?;
    // Empty descriptors are legal enough to be understood, and bad enough to be refused.
    let response = rig.gpu.control.wait(ticket)?;
    assert!(response.written() == 0 || response.written() == 408 || response.written() == 24);
    rig.finish()
}

#[test]
fn bad_indirect_tables_are_consumed() -> Result<()> {
    let mut rig = rig()?;
    let (request, answer) = buffers(&rig)?;
    let table = rig
        .gpu
        .control
        .indirect_table(&[read(request), write(answer)])?;
    let indirect = Descriptor {
        flags: DESC_INDIRECT,
        ..read(table)
    };
    let good = call_raw(&mut rig, &[indirect], vec![answer])?;
    assert_eq!(good.kind(), resp::OK_DISPLAY_INFO);
    let bad = [
        Descriptor { len: 0, ..indirect },
        Descriptor {
            len: 15,
            ..indirect
        },
        Descriptor {
            len: 17,
            ..indirect
        },
        Descriptor {
            len: u32::MAX,
            ..indirect
        },
        Descriptor {
            len: u32::MAX - 15,
            ..indirect
        },
        Descriptor {
            addr: 0,
            ..indirect
        },
        Descriptor {
            addr: u64::MAX - 15,
            ..indirect
        },
    ];
    for descriptor in bad {
        let response = call_raw(&mut rig, &[descriptor], vec![answer])?;
        assert_eq!(response.written(), 0, "{descriptor:?}");
    }
    // Drivers must not link on from an indirect table; whether it is understood or refused is open.
    let both = Descriptor {
        flags: DESC_INDIRECT | DESC_NEXT,
        next: 0,
        ..indirect
    };
    call_raw(&mut rig, &[both], vec![answer])?;
    // A table inside a table.
    let nested = rig.gpu.control.indirect_table(&[indirect])?;
    let outer = Descriptor {
        flags: DESC_INDIRECT,
        ..read(nested)
    };
    consumed(&call_raw(&mut rig, &[outer], vec![answer])?);
    // A table whose next points outside it, and one that loops.
    for next in [2, 0, u16::MAX] {
        let link = Descriptor {
            flags: DESC_NEXT,
            next,
            ..read(request)
        };
        rig.ram.write(table.addr, &link.to_bytes())?;
        consumed(&call_raw(&mut rig, &[indirect], vec![answer])?);
    }
    rig.finish()
}

#[test]
fn every_bad_chain_completes_once_and_good_ones_between_them_work() -> Result<()> {
    let mut rig = rig()?;
    let (request, answer) = buffers(&rig)?;
    let bad = Span {
        addr: 1 << 50,
        len: 64,
    };
    let mut tickets = Vec::new();
    for n in 0..40 {
        if n % 2 == 0 {
            tickets.push((n, submit_raw(&mut rig, &[read(bad)], Vec::new())?));
        } else {
            let spans = [read(request), write(answer)];
            let head = rig.gpu.control.ring().submit(&spans)?;
            tickets.push((n, rig.gpu.control.track(head, vec![answer], Vec::new())));
        }
    }
    rig.gpu.control.kick()?;
    for (n, ticket) in tickets {
        let written = rig.gpu.control.wait(ticket)?.written();
        assert_eq!(written, if n % 2 == 0 { 0 } else { 408 }, "chain {n}");
    }
    assert_eq!(rig.gpu.control.ring().in_flight(), 0);
    rig.finish()
}

/// The control ring is broken: it says so, completes nothing, and the cursor ring goes on.
fn check_stopped(rig: &mut Rig) -> Result<()> {
    let deadline = Deadline::default();
    deadline.poll("the error event of the broken ring", || {
        Ok(rig.gpu.control.ring().take_error().then_some(()))
    })?;
    for n in 0..5 {
        rig.gpu.move_cursor(Cursor {
            x: n,
            ..Cursor::default()
        })?;
    }
    assert!(!rig.gpu.cursor.ring().take_error());
    rig.daemon.check_alive()
}

/// After a reset of the ring everything works again, and resources are still there.
fn check_recovers(mut rig: Rig) -> Result<()> {
    rig.reset_queue(0)?;
    rig.gpu.display_info()?;
    rig.gpu.unref(1)?;
    rig.finish()
}

#[test]
fn a_head_index_outside_the_table_stops_the_ring_until_it_is_reset() -> Result<()> {
    for head in [256, 300, u16::MAX] {
        let mut rig = rig()?;
        let used = rig.gpu.control.ring().used_index()?;
        rig.gpu.control.ring().submit_head(head, Vec::new())?;
        rig.gpu.control.ring().kick_always()?;
        check_stopped(&mut rig)?;
        // More work on the broken ring is not looked at.
        let ticket = rig.gpu.control.submit(&request::get_display_info(), 408)?;
        rig.gpu.control.ring().kick_always()?;
        rig.gpu.control.ring().expect_silence(PAUSE)?;
        assert_eq!(rig.gpu.control.ring().used_index()?, used);
        let _ = ticket;
        check_recovers(rig)?;
    }
    Ok(())
}

#[test]
fn an_avail_index_too_far_ahead_stops_the_ring_until_it_is_reset() -> Result<()> {
    for ahead in [257, 1000, 0x8000, 0xffff] {
        let mut rig = rig()?;
        let ring = rig.gpu.control.ring();
        let index = ring.next_avail().wrapping_add(ahead);
        ring.write_available_index(index)?;
        ring.kick_always()?;
        check_stopped(&mut rig)?;
        rig.gpu.control.ring().expect_silence(PAUSE)?;
        check_recovers(rig)?;
    }
    Ok(())
}

#[test]
fn a_broken_cursor_ring_leaves_the_control_ring_alone() -> Result<()> {
    let mut rig = rig()?;
    rig.gpu.cursor.ring().submit_head(9999, Vec::new())?;
    rig.gpu.cursor.ring().kick_always()?;
    let deadline = Deadline::default();
    deadline.poll("the error event of the cursor ring", || {
        Ok(rig.gpu.cursor.ring().take_error().then_some(()))
    })?;
    for _ in 0..5 {
        rig.gpu.display_info()?;
    }
    rig.reset_queue(1)?;
    rig.finish()
}

#[test]
fn a_broken_ring_works_again_after_a_device_reset() -> Result<()> {
    let mut rig = rig()?;
    rig.gpu.control.ring().submit_head(9999, Vec::new())?;
    rig.gpu.control.ring().kick_always()?;
    check_stopped(&mut rig)?;
    rig.reset_device()?;
    rig.gpu.create_2d(1, BGRX, 8, 8)?;
    rig.finish()
}

#[test]
fn ring_addresses_outside_guest_memory_harm_nobody() -> Result<()> {
    use nosnoop_tests::frontend::memory::USER_OFFSET;
    use nosnoop_tests::frontend::message::VringAddr;
    let mut daemon = Daemon::start(&[])?;
    let end = USER_OFFSET + 0x10_0000 + (256 << 20) - 4096;
    let at = |descriptors, used, available| VringAddr {
        descriptors,
        used,
        available,
    };
    for table in [
        at(0, 0, 0),
        at(end, end, end),
        at(end + 8, end + 1, end + 3),
        at(!0, !0, !0),
    ] {
        let mut session = Session::connect(daemon.socket(), &SessionOptions::headless())?;
        session.stop_queue(0)?;
        let kick = rustix::event::eventfd(5, rustix::event::EventfdFlags::CLOEXEC).unwrap();
        let kick = Some(std::os::fd::AsFd::as_fd(&kick));
        // A front-end that says such things may be hung up on; otherwise only this ring suffers.
        let vhost = &session.vhost;
        let told = vhost
            .set_vring_num(0, 32768)
            .and_then(|()| vhost.set_vring_addr(0, table))
            .and_then(|()| vhost.set_vring_kick(0, kick))
            .and_then(|()| vhost.set_vring_enable(0, true));
        match told {
            Ok(()) => {
                session.gpu.move_cursor(Cursor::default())?;
                session.reset_queue(0)?;
                session.gpu.display_info()?;
            }
            Err(Error::Nack { .. } | Error::Closed(_)) => {}
            Err(other) => return Err(other),
        }
        daemon.check_alive()?;
    }
    Session::start(daemon.socket())?.gpu.display_info()?;
    assert!(daemon.terminate()?.success());
    Ok(())
}

#[test]
fn the_memory_under_a_ring_removed_while_it_runs_harms_nobody() -> Result<()> {
    let mut rig = rig()?;
    let region = rig.ram.regions()?[0].0;
    rig.vhost.remove_mem_region(region)?;
    rig.gpu.control.submit(&request::get_display_info(), 408)?;
    rig.gpu.control.ring().kick_always()?;
    rig.gpu
        .cursor
        .submit(&request::move_cursor(Cursor::default()), 0)?;
    rig.gpu.cursor.ring().kick_always()?;
    std::thread::sleep(PAUSE);
    rig.daemon.check_alive()?;
    let (region, fd) = rig.ram.regions()?.remove(0);
    rig.vhost
        .add_mem_region(region, std::os::fd::AsFd::as_fd(&fd))?;
    rig.reset_queue(0)?;
    rig.reset_queue(1)?;
    rig.finish()
}
