//! The cursor: shape, place, hiding; the queue as Linux uses it, without response buffers.
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

use nosnoop_tests::frontend::display::{CursorState, kind};
use nosnoop_tests::frontend::pixels::{BGRA, BGRX, FORMATS, noise, to_cursor};
use nosnoop_tests::frontend::request::{self, Cursor};
use nosnoop_tests::frontend::response::resp;
use nosnoop_tests::frontend::{Result, Rig};

fn wait_cursor(rig: &Rig, expected: &CursorState) -> Result<()> {
    rig.display().wait_for("the expected cursor", |s| {
        (s.cursors[0] == *expected).then_some(())
    })
}

#[test]
fn each_format_gives_its_cursor_with_alpha() -> Result<()> {
    let mut rig = Rig::new()?;
    for (at, (format, ..)) in FORMATS.into_iter().enumerate() {
        let id = 1 + at as u32;
        let resource = rig.gpu.create_picture(id, format, 64, 64)?;
        let raw = noise(u64::from(id), resource.len());
        rig.gpu.paint(&resource, &raw)?;
        let (x, y) = (10 + id, 20 + id);
        rig.gpu.update_cursor(Cursor {
            scanout: 0,
            x,
            y,
            resource: id,
            hot_x: 3,
            hot_y: 4,
        })?;
        let pixels = to_cursor(format, &raw);
        wait_cursor(
            &rig,
            &CursorState {
                visible: true,
                x,
                y,
                hot_x: 3,
                hot_y: 4,
                pixels,
            },
        )?;
    }
    rig.finish()
}

#[test]
fn update_move_hide_and_show_again_end_as_told() -> Result<()> {
    let mut rig = Rig::new()?;
    let resource = rig.gpu.create_picture(1, BGRA, 64, 64)?;
    let raw = noise(1, resource.len());
    rig.gpu.paint(&resource, &raw)?;
    let at = Cursor {
        scanout: 0,
        x: 5,
        y: 6,
        resource: 1,
        hot_x: 1,
        hot_y: 2,
    };
    rig.gpu.update_cursor(at)?;
    let pixels = to_cursor(BGRA, &raw);
    let mut expected = CursorState {
        visible: true,
        x: 5,
        y: 6,
        hot_x: 1,
        hot_y: 2,
        pixels,
    };
    wait_cursor(&rig, &expected)?;
    for n in 0..50 {
        rig.gpu.move_cursor(Cursor {
            x: n,
            y: 2 * n,
            ..at
        })?;
    }
    (expected.x, expected.y) = (49, 98);
    wait_cursor(&rig, &expected)?;
    rig.gpu.update_cursor(Cursor {
        resource: 0,
        x: 49,
        y: 98,
        ..at
    })?;
    expected.visible = false;
    wait_cursor(&rig, &expected)?;
    rig.gpu.update_cursor(at)?;
    (expected.visible, expected.x, expected.y) = (true, 5, 6);
    wait_cursor(&rig, &expected)?;
    rig.finish()
}

#[test]
fn places_outside_the_screen_are_passed_on_as_they_are() -> Result<()> {
    let mut rig = Rig::new()?;
    let resource = rig.gpu.create_picture(1, BGRA, 64, 64)?;
    let raw = noise(1, resource.len());
    rig.gpu.paint(&resource, &raw)?;
    let pixels = to_cursor(BGRA, &raw);
    for (x, y) in [(u32::MAX, u32::MAX), (0x8000_0000, 5), (100_000, 0)] {
        let (hot_x, hot_y) = (u32::MAX, 63);
        rig.gpu.update_cursor(Cursor {
            scanout: 0,
            x,
            y,
            resource: 1,
            hot_x,
            hot_y,
        })?;
        let pixels = pixels.clone();
        wait_cursor(
            &rig,
            &CursorState {
                visible: true,
                x,
                y,
                hot_x,
                hot_y,
                pixels,
            },
        )?;
    }
    rig.finish()
}

#[test]
fn bad_cursor_commands_are_consumed_and_change_nothing() -> Result<()> {
    let mut rig = Rig::new()?;
    rig.gpu.create_picture(1, BGRA, 63, 64)?;
    let big = rig.gpu.create_picture(2, BGRX, 128, 128)?;
    rig.gpu.paint(&big, &noise(1, big.len()))?;
    let good = Cursor {
        scanout: 0,
        x: 1,
        y: 1,
        resource: 1,
        hot_x: 0,
        hot_y: 0,
    };
    let bad = [
        (good, resp::ERR_INVALID_PARAMETER),
        (
            Cursor {
                resource: 2,
                ..good
            },
            resp::ERR_INVALID_PARAMETER,
        ),
        (
            Cursor {
                resource: 99,
                ..good
            },
            resp::ERR_INVALID_RESOURCE_ID,
        ),
        (
            Cursor {
                scanout: 16,
                ..good
            },
            resp::ERR_INVALID_SCANOUT_ID,
        ),
        (
            Cursor {
                scanout: u32::MAX,
                ..good
            },
            resp::ERR_INVALID_SCANOUT_ID,
        ),
    ];
    for (cursor, expected) in bad {
        rig.gpu.update_cursor(cursor)?;
        // With a response buffer the reason can be read.
        let response = rig.gpu.cursor.call(&request::update_cursor(cursor), 24)?;
        assert_eq!(response.kind(), expected, "{cursor:?}");
    }
    let wrong_queue = rig
        .gpu
        .cursor
        .call(&request::create_2d(9, BGRX, 8, 8), 24)?;
    assert_eq!(wrong_queue.kind(), resp::ERR_UNSPEC);
    assert_eq!(
        rig.gpu.answer(&request::unref(9))?,
        resp::ERR_INVALID_RESOURCE_ID
    );
    rig.gpu.display_info()?;
    assert_eq!(rig.display().count(kind::CURSOR_UPDATE), 0);
    rig.finish()
}

#[test]
fn a_cursor_command_with_a_response_buffer_gets_its_answer_and_fence() -> Result<()> {
    let mut rig = Rig::new()?;
    let request = request::move_cursor(Cursor::default()).fenced(0x1234_5678_9abc_def0);
    let response = rig.gpu.cursor.call(&request, 64)?;
    assert_eq!((response.kind(), response.written()), (resp::OK_NODATA, 24));
    assert_eq!(
        (response.flags(), response.fence_id()),
        (1, 0x1234_5678_9abc_def0)
    );
    // Too little room for a header: nothing is written, the command is done all the same.
    let response = rig.gpu.cursor.call(&request, 23)?;
    assert_eq!(response.written(), 0);
    assert!(response.beyond_is_untouched());
    rig.finish()
}

#[test]
fn the_cursor_queue_goes_on_while_the_control_queue_waits_for_the_display() -> Result<()> {
    use nosnoop_tests::frontend::display::Answer;
    let mut rig = Rig::new()?;
    rig.gpu.display_info()?;
    rig.display().configure(|c| {
        c.answers.insert(kind::GET_DISPLAY_INFO, Answer::Never);
    });
    let ticket = rig.gpu.control.submit(&request::get_display_info(), 408)?;
    rig.gpu.control.kick()?;
    let start = std::time::Instant::now();
    for n in 0..20 {
        rig.gpu.move_cursor(Cursor {
            x: n,
            ..Cursor::default()
        })?;
    }
    let cursor_time = start.elapsed();
    rig.gpu.control.wait(ticket)?;
    assert!(
        cursor_time < std::time::Duration::from_millis(900),
        "{cursor_time:?}"
    );
    rig.finish()
}

#[test]
fn a_hidden_cursor_stays_hidden_when_it_moves_and_comes_back_with_a_picture() -> Result<()> {
    let mut rig = Rig::new()?;
    let resource = rig.gpu.create_picture(1, BGRA, 64, 64)?;
    rig.gpu.paint(&resource, &noise(1, resource.len()))?;
    let at = |x, resource| Cursor {
        x,
        resource,
        ..Cursor::default()
    };
    let wait = |rig: &Rig, visible: bool, x: u32| {
        rig.display().wait_for("the cursor", |s| {
            (s.cursors[0].visible == visible && s.cursors[0].x == x).then_some(())
        })
    };
    rig.gpu.update_cursor(at(1, 1))?;
    wait(&rig, true, 1)?;
    // Only the place of a move counts.
    rig.gpu.move_cursor(at(2, 0))?;
    wait(&rig, true, 2)?;
    rig.gpu.update_cursor(at(3, 0))?;
    wait(&rig, false, 3)?;
    rig.gpu.move_cursor(at(4, 0))?;
    wait(&rig, false, 4)?;
    rig.gpu.update_cursor(at(5, 1))?;
    wait(&rig, true, 5)?;
    rig.finish()
}
