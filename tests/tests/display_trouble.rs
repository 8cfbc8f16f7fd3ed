//! A display that stalls, lags or dies: the guest goes on, and the newest picture wins.
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

use std::time::{Duration, Instant};

use nosnoop_tests::frontend::display::{Answer, kind};
use nosnoop_tests::frontend::pixels::{BGRA, BGRX, Picture, noise};
use nosnoop_tests::frontend::request::{self, Cursor};
use nosnoop_tests::frontend::{DisplayConfig, Rect, Result, Rig};

#[test]
fn a_display_that_stops_reading_never_stalls_the_guest() -> Result<()> {
    let mut rig = Rig::new()?;
    let resource = rig.gpu.create_picture(1, BGRX, 1280, 800)?;
    rig.gpu.set_scanout(0, 1, resource.rect())?;
    let raw = noise(1, resource.len());
    rig.gpu.show(&resource, &raw)?;
    rig.display()
        .wait_picture(0, &Picture::of(BGRX, 1280, 800, &raw))?;
    rig.display().stop_reading();
    let before = rig.daemon.own_bytes()?;
    let start = Instant::now();
    for _ in 0..30 {
        rig.gpu.flush(1, resource.rect())?;
        rig.gpu.move_cursor(Cursor::default())?;
    }
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    let grown = rig.daemon.own_bytes()?.saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes piled up");
    // The last picture is what comes out, and it comes out whole.
    let raw = noise(2, resource.len());
    rig.gpu.show(&resource, &raw)?;
    rig.display().resume_reading();
    rig.display()
        .wait_picture(0, &Picture::of(BGRX, 1280, 800, &raw))?;
    rig.finish()
}

#[test]
fn updates_missed_by_a_stalled_display_are_merged() -> Result<()> {
    let mut rig = Rig::new()?;
    let resource = rig.gpu.create_picture(1, BGRX, 800, 600)?;
    rig.gpu.set_scanout(0, 1, resource.rect())?;
    rig.gpu.show(&resource, &noise(1, resource.len()))?;
    rig.display().stop_reading();
    let mut raw = noise(1, resource.len());
    for n in 0..200_u32 {
        let rect = Rect::new(n * 3 % 500, n * 7 % 300, 300, 300);
        let fresh = noise(u64::from(n) + 10, 300 * 1200);
        for (y, row) in (rect.y..).zip(fresh.chunks_exact(1200)) {
            let at = 4 * (y * 800 + rect.x) as usize;
            raw[at..at + 1200].copy_from_slice(row);
            rig.ram.write(resource.backing[0].addr + at as u64, row)?;
        }
        rig.gpu
            .transfer(1, rect, u64::from(4 * (rect.y * 800 + rect.x)))?;
        rig.gpu.flush(1, rect)?;
    }
    rig.display().resume_reading();
    rig.display()
        .wait_picture(0, &Picture::of(BGRX, 800, 600, &raw))?;
    let updates = rig.display().count(kind::UPDATE);
    // Some fit into the socket's buffer (2 MiB where this was written) before it was full.
    assert!(
        updates < 50,
        "{updates} updates for 200 flushes of a stalled display"
    );
    rig.finish()
}

#[test]
fn resizes_while_the_display_is_stalled_end_in_the_last_size() -> Result<()> {
    let mut rig = Rig::new()?;
    let big = rig.gpu.create_picture(1, BGRX, 1280, 800)?;
    rig.gpu.set_scanout(0, 1, big.rect())?;
    rig.gpu.show(&big, &noise(1, big.len()))?;
    rig.display().stop_reading();
    // Enough that the sender is stuck in the middle of an update when the size changes.
    rig.gpu.flush(1, big.rect())?;
    std::thread::sleep(Duration::from_millis(50));
    let mut last = None;
    for n in 0..30_u32 {
        let (width, height) = (64 + n * 11, 48 + n * 5);
        let resource = rig.gpu.create_picture(2 + n, BGRX, width, height)?;
        rig.gpu.set_scanout(0, resource.id, resource.rect())?;
        let raw = noise(u64::from(n), resource.len());
        rig.gpu.show(&resource, &raw)?;
        last = Some(Picture::of(BGRX, width, height, &raw));
    }
    rig.display().resume_reading();
    rig.display().wait_picture(0, &last.unwrap())?;
    // Only now: the display has checked every update against the size it was told before.
    rig.finish()
}

#[test]
fn a_scanout_turned_off_while_the_display_is_stalled_goes_off() -> Result<()> {
    let mut rig = Rig::new()?;
    let resource = rig.gpu.create_picture(1, BGRX, 1280, 800)?;
    rig.gpu.set_scanout(0, 1, resource.rect())?;
    rig.display().stop_reading();
    for _ in 0..5 {
        rig.gpu.show(&resource, &noise(1, resource.len()))?;
    }
    rig.gpu.unref(1)?;
    rig.display().resume_reading();
    rig.display().wait_for("the scanout to go off", |s| {
        (s.counts.contains_key(&kind::SCANOUT) && s.scanouts[0].is_none()).then_some(())
    })?;
    rig.finish()
}

#[test]
fn cursor_commands_while_the_display_is_stalled_end_in_the_last_state() -> Result<()> {
    let mut rig = Rig::new()?;
    let cursor = rig.gpu.create_picture(1, BGRA, 64, 64)?;
    rig.gpu.paint(&cursor, &noise(1, cursor.len()))?;
    let screen = rig.gpu.create_picture(2, BGRX, 1280, 800)?;
    rig.gpu.set_scanout(0, 2, screen.rect())?;
    rig.display().stop_reading();
    rig.gpu.show(&screen, &noise(2, screen.len()))?;
    let start = Instant::now();
    for n in 0..2000 {
        let at = Cursor {
            scanout: 0,
            x: n,
            y: n,
            resource: 1,
            hot_x: 0,
            hot_y: 0,
        };
        let shape = n % 10 == 0;
        let make = if shape {
            request::update_cursor
        } else {
            request::move_cursor
        };
        rig.gpu.cursor_command(&make(at))?;
    }
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    rig.display().resume_reading();
    rig.display()
        .wait_for("the last place of the cursor", |s| {
            (s.cursors[0].visible && s.cursors[0].x == 1999).then_some(())
        })?;
    rig.finish()
}

#[test]
fn a_stalled_display_costs_a_question_a_bounded_wait() -> Result<()> {
    let mut rig = Rig::new()?;
    rig.gpu.display_info()?;
    rig.display().stop_reading();
    let start = Instant::now();
    for _ in 0..5 {
        rig.gpu.display_info()?;
        rig.gpu.edid(0)?;
    }
    assert!(
        start.elapsed() < Duration::from_secs(8),
        "{:?}",
        start.elapsed()
    );
    rig.display().resume_reading();
    rig.finish()
}

#[test]
fn a_display_that_dies_leaves_the_guest_running_headless() -> Result<()> {
    let mut rig = Rig::new()?;
    let resource = rig.gpu.create_picture(1, BGRX, 640, 480)?;
    rig.gpu.set_scanout(0, 1, resource.rect())?;
    rig.gpu.show(&resource, &noise(1, resource.len()))?;
    rig.close_display();
    for n in 0..20 {
        rig.gpu.show(&resource, &noise(n, resource.len()))?;
        rig.gpu.move_cursor(Cursor::default())?;
    }
    let start = Instant::now();
    assert_eq!(rig.gpu.display_info()?[0].rect.width, 1280);
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
    // A new display sees what is shown now.
    rig.replace_display(DisplayConfig::default())?;
    let raw = noise(19, resource.len());
    rig.display()
        .wait_picture(0, &Picture::of(BGRX, 640, 480, &raw))?;
    rig.finish()
}

#[test]
fn a_display_that_dies_in_the_middle_of_an_update_leaves_the_guest_running() -> Result<()> {
    let mut rig = Rig::new()?;
    let resource = rig.gpu.create_picture(1, BGRX, 1280, 800)?;
    rig.gpu.set_scanout(0, 1, resource.rect())?;
    rig.display().stop_reading();
    rig.gpu.show(&resource, &noise(1, resource.len()))?;
    std::thread::sleep(Duration::from_millis(50));
    rig.close_display();
    rig.gpu.show(&resource, &noise(2, resource.len()))?;
    rig.gpu.display_info()?;
    rig.daemon.check_alive()?;
    rig.end()
}

#[test]
fn frames_go_on_while_a_question_is_unanswered() -> Result<()> {
    let mut rig = Rig::new()?;
    let resource = rig.gpu.create_picture(1, BGRX, 64, 64)?;
    rig.gpu.set_scanout(0, 1, resource.rect())?;
    rig.gpu.display_info()?;
    rig.display().configure(|c| {
        c.answers.insert(kind::GET_DISPLAY_INFO, Answer::Never);
    });
    rig.gpu.display_info()?;
    let raw = noise(5, resource.len());
    rig.gpu.show(&resource, &raw)?;
    rig.display()
        .wait_picture(0, &Picture::of(BGRX, 64, 64, &raw))?;
    rig.finish()
}

#[test]
fn an_idle_device_uses_no_processor_time() -> Result<()> {
    let mut rig = Rig::new()?;
    let resource = rig.gpu.create_picture(1, BGRX, 64, 64)?;
    rig.gpu.set_scanout(0, 1, resource.rect())?;
    rig.gpu.show(&resource, &noise(1, resource.len()))?;
    rig.display().stop_reading();
    rig.gpu.answer(&request::flush(1, Rect::sized(64, 64)))?;
    let before = rig.daemon.cpu_time()?;
    std::thread::sleep(Duration::from_secs(1));
    let used = rig.daemon.cpu_time()? - before;
    assert!(
        used <= Duration::from_millis(20),
        "{used:?} in one idle second"
    );
    rig.display().resume_reading();
    rig.finish()
}
