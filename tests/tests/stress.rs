//! Many things at once: changes of memory, rings and display under load; guests that race.
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

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nosnoop_tests::frontend::memory::Span;
use nosnoop_tests::frontend::pixels::{BGRX, Picture, Random, noise};
use nosnoop_tests::frontend::request::{self, Cursor, MemEntry};
use nosnoop_tests::frontend::response::resp;
use nosnoop_tests::frontend::ring::{DESC_NEXT, DESC_WRITE, Descriptor};
use nosnoop_tests::frontend::{Daemon, DisplayConfig, Rect, Result, Rig, Session, SessionOptions};

#[test]
fn memory_table_changes_under_load_lose_no_command() -> Result<()> {
    let mut rig = Rig::new()?;
    let resource = rig.gpu.create_picture(1, BGRX, 64, 64)?;
    rig.gpu.set_scanout(0, 1, resource.rect())?;
    for round in 0..100_u64 {
        let mut tickets = Vec::new();
        for _ in 0..40 {
            let transfer = request::transfer_to_host_2d(1, resource.rect(), 0);
            tickets.push(rig.gpu.queue(&transfer)?);
            tickets.push(rig.gpu.queue(&request::flush(1, resource.rect()))?);
        }
        rig.gpu.control.kick()?;
        // As QEMU does for each blob it maps: regions come and go while commands run.
        let at = 0x40_0000_0000 + (round << 24);
        let (region, fd) = rig.ram.add_region(at, 1 << 20)?;
        rig.vhost.add_mem_region(region, fd.as_fd())?;
        if round % 3 == 0 {
            rig.share_memory_table()?;
        }
        let region = rig.ram.remove_region(at)?;
        rig.vhost.remove_mem_region(region)?;
        for ticket in tickets {
            assert_eq!(rig.gpu.control.wait(ticket)?.kind(), resp::OK_NODATA);
        }
    }
    rig.finish()
}

#[test]
fn rings_stopped_and_started_under_load_complete_each_chain_once() -> Result<()> {
    let mut rig = Rig::headless(&[])?;
    let mut random = Random::new(1);
    for _ in 0..150 {
        let mut tickets = Vec::new();
        for _ in 0..random.within(1, 100) {
            let request = request::flush(99, Rect::sized(1, 1));
            tickets.push(rig.gpu.queue(&request)?);
        }
        rig.gpu.control.kick()?;
        let base = rig.stop_queue(0)?;
        // Where it stopped is where it goes on; the used ring checks that nothing comes twice.
        let used = u32::from(rig.gpu.control.ring().used_index()?);
        assert_eq!(base, used, "everything taken has been answered");
        rig.start_queue(0, base)?;
        for ticket in tickets {
            assert_eq!(
                rig.gpu.control.wait(ticket)?.kind(),
                resp::ERR_INVALID_RESOURCE_ID
            );
        }
    }
    rig.finish()
}

#[test]
fn a_guest_that_changes_its_ring_all_the_time_harms_nobody_else() -> Result<()> {
    let mut daemon = Daemon::start(&[])?;
    for seed in 0..6 {
        let mut session = Session::connect(daemon.socket(), &SessionOptions::headless())?;
        let parts = session.gpu.control.ring().parts();
        let ram = session.ram.clone();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut random = Random::new(seed);
                while !stop.load(Ordering::Relaxed) {
                    let part = parts[random.within(0, 1) as usize];
                    let at = part.addr + random.within(0, 300);
                    let byte = random.next() as u8;
                    ram.write(at, &[byte]).unwrap();
                }
            });
            let until = Instant::now() + Duration::from_millis(300);
            let mut rounds = 0;
            while Instant::now() < until {
                session.gpu.control.ring().kick_always().unwrap();
                session
                    .gpu
                    .move_cursor(Cursor {
                        x: rounds,
                        ..Cursor::default()
                    })
                    .unwrap();
                rounds += 1;
            }
            stop.store(true, Ordering::Relaxed);
            assert!(rounds > 10, "the cursor queue went on: {rounds}");
        });
        daemon.check_alive()?;
        session.reset_queue(0)?;
        session.gpu.display_info()?;
    }
    assert!(daemon.terminate()?.success());
    Ok(())
}

#[test]
fn a_request_that_changes_while_it_is_read_is_read_once() -> Result<()> {
    let mut rig = Rig::headless(&[])?;
    rig.gpu.create_2d(1, BGRX, 64, 64)?;
    let span = rig.ram.alloc(64 * 64 * 4)?;
    let entry: MemEntry = span.into();
    let request = request::attach_backing(1, &[entry]);
    let at = rig.ram.alloc(request.len())?;
    rig.ram.write(at.addr, &request)?;
    let answer = rig.ram.alloc(24)?;
    let ram = rig.ram.clone();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        scope.spawn(|| {
            // The count of entries flips between one and very many.
            while !stop.load(Ordering::Relaxed) {
                ram.write(at.addr + 28, &u32::MAX.to_le_bytes()).unwrap();
                ram.write(at.addr + 28, &1_u32.to_le_bytes()).unwrap();
            }
        });
        for _ in 0..3000 {
            let chain = [
                Descriptor {
                    addr: at.addr,
                    len: at.len,
                    flags: 0,
                    next: 0,
                },
                Descriptor {
                    addr: answer.addr,
                    len: answer.len,
                    flags: DESC_WRITE,
                    next: 0,
                },
            ];
            let head = rig.gpu.control.ring().submit(&chain)?;
            let ticket = rig.gpu.control.track(head, vec![answer], Vec::new());
            rig.gpu.control.kick()?;
            let kind = rig.gpu.control.wait(ticket)?.kind();
            assert!(
                [resp::OK_NODATA, resp::ERR_UNSPEC].contains(&kind),
                "{kind:#x}"
            );
            if kind == resp::OK_NODATA {
                rig.gpu.detach_backing(1)?;
            }
        }
        stop.store(true, Ordering::Relaxed);
        Ok(())
    })?;
    rig.finish()
}

#[test]
fn backing_lists_up_to_the_quota_cost_bounded_memory() -> Result<()> {
    let mut rig = Rig::headless(&[])?;
    let before = rig.daemon.own_bytes()?;
    let page = rig.ram.alloc(4096)?;
    // One page over and over: no two entries can be joined.
    let entries: Vec<MemEntry> = (0..260_000)
        .map(|n| {
            Span {
                addr: page.addr + n % 16 * 64,
                len: 4,
            }
            .into()
        })
        .collect();
    let mut accepted = 0;
    for id in 1..=8 {
        rig.gpu.create_2d(id, BGRX, 1, 1)?;
        let answer = rig.gpu.answer(&request::attach_backing(id, &entries))?;
        assert!(
            [resp::OK_NODATA, resp::ERR_OUT_OF_MEMORY].contains(&answer),
            "{answer:#x}"
        );
        accepted += u32::from(answer == resp::OK_NODATA);
    }
    assert!(
        (1..8).contains(&accepted),
        "{accepted} of 8 lists of 260000 entries"
    );
    let grown = rig.daemon.own_bytes()?.saturating_sub(before);
    assert!(grown < 128 << 20, "{grown} bytes");
    for id in 1..=8 {
        rig.gpu.unref(id)?;
    }
    rig.gpu.create_2d(1, BGRX, 1, 1)?;
    let answer = rig.gpu.answer(&request::attach_backing(1, &entries))?;
    assert_eq!(answer, resp::OK_NODATA, "the quota came back");
    rig.finish()
}

#[test]
fn display_sockets_replaced_under_load_leave_no_files_and_no_threads() -> Result<()> {
    let mut rig = Rig::new()?;
    let resource = rig.gpu.create_picture(1, BGRX, 320, 200)?;
    rig.gpu.set_scanout(0, 1, resource.rect())?;
    rig.gpu.show(&resource, &noise(1, resource.len()))?;
    let (mut files, mut threads) = (Vec::new(), Vec::new());
    for n in 0..30 {
        if n % 2 == 0 {
            rig.display().stop_reading();
        }
        rig.gpu.show(&resource, &noise(n, resource.len()))?;
        rig.replace_display(DisplayConfig::default())?;
        let raw = noise(n, resource.len());
        rig.display()
            .wait_picture(0, &Picture::of(BGRX, 320, 200, &raw))?;
        rig.check_display()?;
        files.push(rig.daemon.open_files()?);
        threads.push(rig.daemon.threads()?);
    }
    assert_eq!(files[2], files[29], "{files:?}");
    assert_eq!(threads[2], threads[29], "{threads:?}");
    rig.finish()
}

#[test]
fn front_ends_that_vanish_under_load_leave_a_daemon_that_serves_the_next() -> Result<()> {
    let mut daemon = Daemon::start(&[])?;
    let mut files = Vec::new();
    for n in 0..20 {
        let mut session = Session::start(daemon.socket())?;
        let resource = session.gpu.create_picture(1, BGRX, 320, 200)?;
        session.gpu.set_scanout(0, 1, resource.rect())?;
        if n % 2 == 0 {
            session.display().stop_reading();
        }
        files.push(daemon.open_files()?);
        for _ in 0..50 {
            let transfer = request::transfer_to_host_2d(1, resource.rect(), 0);
            session.gpu.queue(&transfer)?;
            session.gpu.queue(&request::flush(1, resource.rect()))?;
        }
        session.gpu.control.kick()?;
        drop(session);
        daemon.check_alive()?;
    }
    assert_eq!(files[1], files[19], "{files:?}");
    assert!(daemon.terminate()?.success());
    Ok(())
}

#[test]
fn a_guest_that_never_leaves_its_ring_empty_cannot_keep_the_daemon_from_ending() -> Result<()> {
    let mut daemon = Daemon::start(&[])?;
    let mut session = Session::connect(daemon.socket(), &SessionOptions::headless())?;
    // A command that takes long enough for the ring to be refilled in time, on any machine.
    let resource = session.gpu.create_picture(1, BGRX, 1024, 768)?;
    let request = request::transfer_to_host_2d(1, resource.rect(), 0);
    let buffer = session.ram.alloc(request.len() + 24)?;
    session.ram.write(buffer.addr, &request)?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let guest = scope.spawn(|| -> Result<u64> {
            let ring = session.gpu.control.ring();
            let [head, tail] = ring.reserve(2)?[..] else {
                panic!("two descriptors");
            };
            let readable = Descriptor {
                addr: buffer.addr,
                len: request.len() as u32,
                flags: DESC_NEXT,
                next: tail,
            };
            let writable = Descriptor {
                addr: buffer.addr + request.len() as u64,
                len: 24,
                flags: DESC_WRITE,
                next: 0,
            };
            ring.write_descriptor(head, readable)?;
            ring.write_descriptor(tail, writable)?;
            for position in 0..ring.size() {
                ring.write_available(position, head)?;
            }
            let (mut rounds, mut last) = (0, ring.used_index()?);
            while !stop.load(Ordering::Relaxed) {
                let used = ring.used_index()?;
                rounds += u64::from(used != last);
                last = used;
                ring.write_available_index(used.wrapping_add(ring.size()))?;
                ring.kick_always()?;
            }
            Ok(rounds)
        });
        std::thread::sleep(Duration::from_millis(500));
        let ended = daemon.terminate();
        stop.store(true, Ordering::Relaxed);
        let rounds = guest.join().expect("the guest's thread")?;
        assert!(rounds > 5, "the daemon was kept busy: {rounds}");
        assert!(ended?.success());
        Ok(())
    })
}

#[test]
fn a_device_reset_while_a_question_is_unanswered_is_bounded() -> Result<()> {
    use nosnoop_tests::frontend::display::{Answer, kind};
    let mut rig = Rig::new()?;
    rig.gpu.display_info()?;
    rig.display().configure(|c| {
        c.answers.insert(kind::GET_DISPLAY_INFO, Answer::Never);
    });
    rig.gpu.control.submit(&request::get_display_info(), 408)?;
    rig.gpu.control.kick()?;
    std::thread::sleep(Duration::from_millis(20));
    let start = Instant::now();
    rig.reset_device()?;
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
    rig.gpu.create_2d(1, BGRX, 8, 8)?;
    rig.finish()
}

#[test]
fn a_display_that_floods_replies_nobody_asked_for_harms_nobody() -> Result<()> {
    use nosnoop_tests::frontend::display::{Answer, kind};
    let mut flood = Vec::new();
    for request in [
        kind::GET_DISPLAY_INFO,
        kind::GET_EDID,
        kind::GET_PROTOCOL_FEATURES,
        77,
    ] {
        for size in [408_u32, 1056, 8, 0] {
            flood.extend(request.to_ne_bytes());
            flood.extend(4_u32.to_ne_bytes());
            flood.extend(size.to_ne_bytes());
            flood.extend(vec![0x5a; size as usize]);
        }
    }
    let mut rig = Rig::new()?;
    rig.gpu.display_info()?;
    rig.display().configure(|c| {
        c.answers
            .insert(kind::GET_DISPLAY_INFO, Answer::Raw(flood.repeat(50)));
    });
    let start = Instant::now();
    for _ in 0..5 {
        rig.gpu.display_info()?;
        rig.gpu.edid(0)?;
    }
    assert!(
        start.elapsed() < Duration::from_secs(15),
        "{:?}",
        start.elapsed()
    );
    rig.daemon.check_alive()?;
    rig.end()
}
