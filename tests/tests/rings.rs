//! The virtqueues: sizes, EVENT_IDX, indirect descriptors, resets of a ring and of the device.
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

use nosnoop_tests::frontend::message::{feature, protocol};
use nosnoop_tests::frontend::pixels::{BGRX, Picture, noise};
use nosnoop_tests::frontend::request::{self, Cursor};
use nosnoop_tests::frontend::response::resp;
use nosnoop_tests::frontend::{
    ChainShape, DisplayConfig, Rect, Result, Rig, Session, SessionOptions,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

fn with_features(drop: u64) -> SessionOptions {
    let mut options = SessionOptions::headless();
    options.features &= !drop;
    options
}

#[test]
fn every_queue_size_from_1_to_32768_works_and_wraps() -> Result<()> {
    for shift in 0..=15 {
        let size = 1_u16 << shift;
        let options = SessionOptions {
            queue_sizes: [size, size],
            ..SessionOptions::headless()
        };
        let mut rig = Rig::start(&[], &options)?;
        // One descriptor per command: an indirect table, so that a ring of one entry is enough.
        let shape = ChainShape {
            indirect: true,
            ..ChainShape::default()
        };
        let rounds = if size <= 64 { 200 } else { 3 };
        for _ in 0..rounds {
            let request = request::get_display_info();
            let response = rig.gpu.control.call_shaped(&request, 408, &shape)?;
            assert_eq!(response.kind(), resp::OK_DISPLAY_INFO, "size {size}");
        }
        // Fill the ring to the last entry, kick once. Short requests, to not use up guest memory.
        let full = size.min(8192);
        let mut tickets = Vec::new();
        for _ in 0..full {
            let request = request::flush(99, Rect::sized(1, 1));
            tickets.push(rig.gpu.control.submit_shaped(&request, 24, &shape)?);
        }
        rig.gpu.control.kick()?;
        for ticket in tickets {
            let response = rig.gpu.control.wait(ticket)?;
            assert_eq!(
                response.kind(),
                resp::ERR_INVALID_RESOURCE_ID,
                "size {size}"
            );
        }
        rig.gpu.move_cursor_indirect()?;
        rig.daemon.check_alive()?;
        rig.end()?;
    }
    Ok(())
}

/// A cursor command that needs one descriptor only.
trait OneDescriptor {
    fn move_cursor_indirect(&mut self) -> Result<()>;
}

impl OneDescriptor for nosnoop_tests::frontend::Gpu {
    fn move_cursor_indirect(&mut self) -> Result<()> {
        let shape = ChainShape {
            indirect: true,
            ..ChainShape::default()
        };
        let request = request::move_cursor(Cursor::default());
        self.cursor.call_shaped(&request, 0, &shape).map(|_| ())
    }
}

#[test]
fn ring_indices_wrap_around_65536() -> Result<()> {
    let options = SessionOptions {
        queue_sizes: [64, 64],
        ..SessionOptions::headless()
    };
    let mut rig = Rig::start(&[], &options)?;
    for _ in 0..2100 {
        let mut tickets = Vec::new();
        for _ in 0..32 {
            tickets.push(
                rig.gpu
                    .cursor
                    .submit(&request::move_cursor(Cursor::default()), 0)?,
            );
        }
        rig.gpu.cursor.kick()?;
        for ticket in tickets {
            rig.gpu.cursor.wait(ticket)?;
        }
    }
    assert!(rig.gpu.cursor.ring().next_avail() < 32 * 100);
    rig.finish()
}

#[test]
fn each_combination_of_ring_features_works() -> Result<()> {
    let all = [
        feature::EVENT_IDX,
        feature::INDIRECT_DESC,
        feature::RING_RESET,
    ];
    for mask in 0..8 {
        let drop = (0..3)
            .filter(|bit| mask >> bit & 1 == 1)
            .map(|bit| all[bit])
            .sum();
        let mut rig = Rig::start(&[], &with_features(drop))?;
        assert_eq!(rig.features & drop, 0);
        for _ in 0..50 {
            rig.gpu.display_info()?;
            rig.gpu.move_cursor(Cursor::default())?;
        }
        rig.finish()?;
    }
    Ok(())
}

#[test]
fn with_event_idx_a_batch_costs_one_kick_and_few_interrupts() -> Result<()> {
    let mut rig = Rig::headless(&[])?;
    rig.gpu.display_info()?;
    let before = rig.gpu.control.ring().notifications();
    for _ in 0..20 {
        let mut tickets = Vec::new();
        for _ in 0..100 {
            tickets.push(rig.gpu.queue(&request::flush(99, Rect::sized(1, 1)))?);
        }
        rig.gpu.control.kick()?;
        for ticket in tickets.into_iter().rev() {
            rig.gpu.control.wait(ticket)?;
        }
    }
    let after = rig.gpu.control.ring().notifications();
    assert!(after.kicks - before.kicks <= 20, "{after:?}");
    let interrupts = after.interrupts - before.interrupts;
    assert!(
        interrupts < 1000,
        "{interrupts} interrupts for 2000 commands"
    );
    rig.finish()
}

/// A driver that sleeps until it is told hears of the first answer long before the last is there.
#[test]
fn answers_do_not_wait_for_the_whole_ring() -> Result<()> {
    const COUNT: u16 = 100;
    // Without EVENT_IDX every notification comes.
    let mut rig = Rig::start(&[], &with_features(feature::EVENT_IDX))?;
    let picture = rig.gpu.create_picture(1, BGRX, 1024, 1024)?;
    let transfer = request::transfer_to_host_2d(1, picture.rect(), 0);
    // The daemon may still look for more, and what tells of the commands before be on its way.
    std::thread::sleep(Duration::from_millis(50));
    let tickets: Vec<_> = (0..COUNT)
        .map(|_| rig.gpu.queue(&transfer))
        .collect::<Result<_>>()?;
    let ring = rig.gpu.control.ring();
    let _ = rustix::io::read(ring.call_fd(), &mut [0_u8; 8]);
    let before = ring.used_index()?;
    ring.kick()?;
    let mut call = [PollFd::from_borrowed_fd(ring.call_fd(), PollFlags::IN)];
    let patience = Timespec::try_from(Duration::from_secs(20)).expect("a short time");
    assert_eq!(poll(&mut call, Some(&patience)), Ok(1));
    let answered = ring.used_index()?.wrapping_sub(before);
    assert!(
        (1..COUNT).contains(&answered),
        "told when {answered} were done"
    );
    rig.gpu.finish(&tickets)?;
    rig.finish()
}

#[test]
fn a_chain_of_hundreds_of_descriptors_is_understood() -> Result<()> {
    let mut rig = Rig::headless(&[])?;
    rig.gpu.create_2d(1, BGRX, 64, 64)?;
    let fragments = rig.ram.alloc_fragments(64 * 64 * 4, &[64])?;
    let entries: Vec<_> = fragments.iter().map(|span| (*span).into()).collect();
    let request = request::attach_backing(1, &entries);
    assert!(request.len() > 4096);
    for indirect in [true, false] {
        let shape = ChainShape {
            request_cuts: vec![24; 200],
            indirect,
            ..ChainShape::default()
        };
        let response = rig.gpu.control.call_shaped(&request, 24, &shape)?;
        assert_eq!(response.kind(), resp::OK_NODATA);
        rig.gpu.detach_backing(1)?;
    }
    rig.finish()
}

/// Shows resource 1, 64 x 64, with noise from a seed.
fn show(rig: &mut Session, seed: u64) -> Result<()> {
    let resource = rig.gpu.create_picture(1, BGRX, 64, 64)?;
    rig.gpu.set_scanout(0, 1, resource.rect())?;
    rig.gpu.show(&resource, &noise(seed, resource.len()))?;
    rig.display()
        .wait_picture(0, &Picture::of(BGRX, 64, 64, &noise(seed, resource.len())))
}

#[test]
fn pause_and_resume_keeps_resources_and_scanouts() -> Result<()> {
    let mut rig = Rig::new()?;
    show(&mut rig, 1)?;
    for seed in 2..12 {
        rig.pause_and_resume()?;
        // The backing is still attached: the same resource goes on.
        let raw = noise(seed, 64 * 64 * 4);
        let backing = rig.ram.alloc(raw.len())?;
        rig.gpu.detach_backing(1)?;
        rig.gpu.attach_backing(1, &[backing])?;
        rig.ram.write(backing.addr, &raw)?;
        rig.gpu.transfer(1, Rect::sized(64, 64), 0)?;
        rig.gpu.flush(1, Rect::sized(64, 64))?;
        rig.display()
            .wait_picture(0, &Picture::of(BGRX, 64, 64, &raw))?;
    }
    rig.finish()
}

#[test]
fn commands_queued_while_paused_are_done_after_the_resume() -> Result<()> {
    let mut rig = Rig::headless(&[])?;
    rig.gpu.display_info()?;
    let base = rig.stop_queue(0)?;
    let ticket = rig.gpu.control.submit(&request::get_display_info(), 408)?;
    rig.gpu.control.kick()?;
    rig.gpu
        .control
        .ring()
        .expect_silence(Duration::from_millis(100))?;
    rig.start_queue(0, base)?;
    assert_eq!(rig.gpu.control.wait(ticket)?.kind(), resp::OK_DISPLAY_INFO);
    rig.finish()
}

#[test]
fn a_disabled_ring_rests_and_goes_on_when_enabled() -> Result<()> {
    let mut rig = Rig::headless(&[])?;
    for _ in 0..10 {
        rig.vhost.set_vring_enable(0, false)?;
        let ticket = rig.gpu.control.submit(&request::get_display_info(), 408)?;
        rig.gpu.control.ring().kick_always()?;
        rig.gpu
            .control
            .ring()
            .expect_silence(Duration::from_millis(20))?;
        rig.gpu.move_cursor(Cursor::default())?;
        rig.vhost.set_vring_enable(0, true)?;
        rig.gpu.control.wait(ticket)?;
    }
    rig.finish()
}

#[test]
fn a_reset_of_one_ring_keeps_the_device() -> Result<()> {
    let mut rig = Rig::new()?;
    show(&mut rig, 1)?;
    for index in [0, 1, 0, 1] {
        rig.reset_queue(index)?;
        let answer = rig.gpu.answer(&request::create_2d(1, BGRX, 8, 8))?;
        assert_eq!(
            answer,
            resp::ERR_INVALID_RESOURCE_ID,
            "resource 1 is still there"
        );
        rig.gpu.flush(1, Rect::sized(64, 64))?;
    }
    rig.display()
        .wait_picture(0, &Picture::of(BGRX, 64, 64, &noise(1, 64 * 64 * 4)))?;
    rig.finish()
}

#[test]
fn a_reset_of_the_device_forgets_everything() -> Result<()> {
    let mut rig = Rig::new()?;
    for round in 0..10 {
        // The same id again each time: it must be free.
        show(&mut rig, round)?;
        let uuid = rig.gpu.assign_uuid(1)?;
        assert_ne!(uuid, [0; 16]);
        rig.gpu.update_cursor(Cursor {
            resource: 1,
            ..Cursor::default()
        })?;
        rig.reset_device()?;
        rig.display().wait_for("the scanout to go off", |s| {
            s.scanouts[0].is_none().then_some(())
        })?;
        rig.display()
            .wait_for("no cursor", |s| (!s.cursors[0].visible).then_some(()))?;
        let gone = rig.gpu.answer(&request::flush(1, Rect::sized(64, 64)))?;
        assert_eq!(gone, resp::ERR_INVALID_RESOURCE_ID);
    }
    rig.finish()
}

#[test]
fn a_front_end_without_reset_device_starts_anew_by_restarting_both_rings() -> Result<()> {
    let mut options = SessionOptions::default();
    options.protocol_features &= !protocol::RESET_DEVICE;
    let mut rig = Rig::start(&[], &options)?;
    for round in 0..5 {
        show(&mut rig, round)?;
        // What QEMU does for a guest reboot then: stop both rings, start both from 0.
        for index in [0, 1] {
            rig.stop_queue(index)?;
        }
        for index in [0, 1] {
            rig.queue(index).reset()?;
        }
        rig.vhost.set_features(rig.features)?;
        rig.start_queue(0, 0)?;
        rig.start_queue(1, 0)?;
    }
    rig.finish()
}

#[test]
fn a_reset_gives_quotas_back() -> Result<()> {
    let mut rig = Rig::headless(&["--max-hostmem=1M", "--max-resources=10"])?;
    for _ in 0..5 {
        for id in 1..=4 {
            rig.gpu.create_2d(id, BGRX, 256, 256)?;
        }
        rig.reset_device()?;
    }
    rig.finish()
}

#[test]
fn commands_in_flight_at_a_reset_do_not_complete_later() -> Result<()> {
    let mut rig = Rig::with_display(DisplayConfig::sized(640, 480))?;
    for _ in 0..20 {
        for _ in 0..50 {
            rig.gpu.queue(&request::create_2d(1, BGRX, 64, 64))?;
        }
        rig.gpu.control.kick()?;
        // Some of these are done by now, some are not: after the reset the ring is as new.
        rig.reset_device()?;
        rig.gpu.display_info()?;
    }
    rig.finish()
}
