//! The cursor queue.

use super::common::{displays, settle, whole, works};
use crate::conform::case::{Case, Group, Outcome, Stop, check, equal};
use crate::conform::trial::Trial;
use crate::frontend::display::{CursorState, kind};
use crate::frontend::pixels::{BGRA, noise, to_cursor};
use crate::frontend::request::{self, Cursor};
use crate::frontend::response::{HEADER, resp};
use crate::frontend::{Rect, Session};

/// The cases of this group.
pub(super) const CASES: &[Case] = &[
    Group::Cursor.case(
        1,
        "UPDATE_CURSOR shows shape, place and hot spot",
        &["gpu-cursor-2", "gpu-cursor-5", "vug-8"],
        update,
    ),
    Group::Cursor.case(
        2,
        "MOVE_CURSOR changes the place and nothing else",
        &["gpu-cursor-3", "gpu-cursor-5", "vug-6"],
        moves,
    ),
    Group::Cursor.case(
        3,
        "MOVE_CURSOR ignores its other fields",
        &["gpu-cursor-4"],
        other_fields,
    ),
    Group::Cursor.case(
        4,
        "UPDATE_CURSOR with resource 0 hides the cursor, as Linux's driver has it",
        &["vug-7"],
        hide,
    ),
    Group::Cursor.case(
        5,
        "both commands are answered RESP_OK_NODATA",
        &["gpu-cursor-2", "gpu-cursor-3"],
        answers,
    ),
    Group::Cursor.case(
        6,
        "commands without room for a response are consumed, as Linux's driver sends them",
        &[],
        no_room,
    ),
    Group::Cursor.case(
        7,
        "a shape in A8R8G8B8 has its colours",
        &["gpu-cursor-2", "vug-8"],
        format::<3>,
    ),
    Group::Cursor.case(
        8,
        "a shape in R8G8B8A8 has its colours",
        &["gpu-cursor-2", "vug-8"],
        format::<67>,
    ),
    Group::Cursor.case(
        9,
        "a shape in A8B8G8R8 has its colours",
        &["gpu-cursor-2", "vug-8"],
        format::<121>,
    ),
    Group::Cursor.case(
        10,
        "the shape is what the resource holds at UPDATE_CURSOR",
        &["gpu-cursor-2"],
        repainted,
    ),
    Group::Cursor.case(
        11,
        "each scanout has a cursor of its own",
        &["gpu-cursor-2", "vug-6"],
        per_scanout,
    ),
    Group::Cursor.case(
        12,
        "a resource that is not there, or smaller than 64 x 64, is never shown",
        &[],
        bad_resources,
    ),
    Group::Cursor.case(
        13,
        "a scanout that is not there reaches no display",
        &[],
        bad_scanouts,
    ),
];

/// A device whose resource 1 is a cursor in this format, full of noise.
fn pointer(trial: &mut Trial, format: u32) -> Result<(Session, CursorState), Stop> {
    let mut session = trial.start()?;
    let resource = session.gpu.create_picture(1, format, 64, 64)?;
    let raw = noise(1, resource.len());
    session.gpu.paint(&resource, &raw)?;
    let cursor = CursorState {
        visible: true,
        x: 11,
        y: 22,
        hot_x: 3,
        hot_y: 4,
        pixels: to_cursor(format, &raw),
    };
    Ok((session, cursor))
}

/// The command that shows resource 1 like this.
fn showing(cursor: &CursorState) -> Cursor {
    Cursor {
        scanout: 0,
        x: cursor.x,
        y: cursor.y,
        resource: 1,
        hot_x: cursor.hot_x,
        hot_y: cursor.hot_y,
    }
}

/// Whether a cursor is transparent everywhere, so that nobody sees it.
fn is_empty(cursor: &CursorState) -> bool {
    cursor.pixels.iter().all(|byte| *byte == 0)
}

fn await_cursor(session: &Session, scanout: usize, expected: &CursorState) -> Outcome {
    let display = session.display();
    let found = display.wait_for("the cursor", |state| {
        (state.cursors[scanout] == *expected).then_some(())
    });
    found.map_err(|error| {
        let last = display.with(|state| state.cursors[scanout].clone());
        Stop::fail(format_args!("{error}: {}", differences(&last, expected)))
    })
}

fn differences(got: &CursorState, expected: &CursorState) -> String {
    let place = |cursor: &CursorState| {
        (
            cursor.visible,
            cursor.x,
            cursor.y,
            cursor.hot_x,
            cursor.hot_y,
        )
    };
    if place(got) != place(expected) {
        return format!(
            "visible, x, y, hot x, hot y are {:?}, expected {:?}",
            place(got),
            place(expected)
        );
    }
    let (a, b) = (got.pixels.chunks(4), expected.pixels.chunks(4));
    match a.zip(b).find(|(a, b)| a != b) {
        Some((a, b)) => format!("a pixel is {a:02x?}, expected {b:02x?} (blue, green, red, alpha)"),
        None => format!("{} bytes of shape", got.pixels.len()),
    }
}

fn update(trial: &mut Trial) -> Outcome {
    let (mut session, mut cursor) = pointer(trial, BGRA)?;
    session.gpu.update_cursor(showing(&cursor))?;
    await_cursor(&session, 0, &cursor)?;
    (cursor.x, cursor.y, cursor.hot_x, cursor.hot_y) = (600, 0, 63, 0);
    session.gpu.update_cursor(showing(&cursor))?;
    await_cursor(&session, 0, &cursor)?;
    works(&mut session)
}

fn moves(trial: &mut Trial) -> Outcome {
    let (mut session, mut cursor) = pointer(trial, BGRA)?;
    session.gpu.update_cursor(showing(&cursor))?;
    for n in 0..20 {
        (cursor.x, cursor.y) = (100 + n, 2 * n);
        session.gpu.move_cursor(showing(&cursor))?;
    }
    await_cursor(&session, 0, &cursor)?;
    works(&mut session)
}

fn other_fields(trial: &mut Trial) -> Outcome {
    let (mut session, mut cursor) = pointer(trial, BGRA)?;
    session.gpu.update_cursor(showing(&cursor))?;
    await_cursor(&session, 0, &cursor)?;
    for (resource, hot) in [(0, 0), (99, 50), (u32::MAX, u32::MAX)] {
        (cursor.x, cursor.y) = (cursor.x + 7, cursor.y + 9);
        let command = Cursor {
            resource,
            hot_x: hot,
            hot_y: hot,
            ..showing(&cursor)
        };
        session.gpu.move_cursor(command)?;
        await_cursor(&session, 0, &cursor)?;
    }
    works(&mut session)
}

fn hide(trial: &mut Trial) -> Outcome {
    let (mut session, cursor) = pointer(trial, BGRA)?;
    session.gpu.update_cursor(showing(&cursor))?;
    await_cursor(&session, 0, &cursor)?;
    let off = Cursor {
        resource: 0,
        ..showing(&cursor)
    };
    session.gpu.update_cursor(off)?;
    let display = session.display();
    display.wait_for("the cursor to be hidden", |state| {
        let cursor = &state.cursors[0];
        (!cursor.visible || is_empty(cursor)).then_some(())
    })?;
    session.gpu.update_cursor(showing(&cursor))?;
    await_cursor(&session, 0, &cursor)?;
    works(&mut session)
}

fn answers(trial: &mut Trial) -> Outcome {
    let (mut session, cursor) = pointer(trial, BGRA)?;
    let command = showing(&cursor);
    for (name, request) in [
        ("UPDATE_CURSOR", request::update_cursor(command)),
        ("MOVE_CURSOR", request::move_cursor(command)),
    ] {
        let response = session.gpu.cursor.call(&request, 64)?;
        whole(name, &response, resp::OK_NODATA, HEADER)?;
    }
    works(&mut session)
}

fn no_room(trial: &mut Trial) -> Outcome {
    let (mut session, mut cursor) = pointer(trial, BGRA)?;
    for n in 0..50 {
        cursor.x = n;
        session.gpu.update_cursor(showing(&cursor))?;
    }
    await_cursor(&session, 0, &cursor)?;
    works(&mut session)
}

fn format<const FORMAT: u32>(trial: &mut Trial) -> Outcome {
    let (mut session, cursor) = pointer(trial, FORMAT)?;
    session.gpu.update_cursor(showing(&cursor))?;
    await_cursor(&session, 0, &cursor)?;
    works(&mut session)
}

fn repainted(trial: &mut Trial) -> Outcome {
    let (mut session, mut cursor) = pointer(trial, BGRA)?;
    session.gpu.update_cursor(showing(&cursor))?;
    await_cursor(&session, 0, &cursor)?;
    let span = session.ram.alloc(4 * 64 * 64)?;
    session.gpu.detach_backing(1)?;
    session.gpu.attach_backing(1, &[span])?;
    let raw = noise(2, 4 * 64 * 64);
    session.ram.write(span.addr, &raw)?;
    session.gpu.transfer(1, Rect::sized(64, 64), 0)?;
    session.gpu.update_cursor(showing(&cursor))?;
    cursor.pixels = to_cursor(BGRA, &raw);
    await_cursor(&session, 0, &cursor)?;
    works(&mut session)
}

fn per_scanout(trial: &mut Trial) -> Outcome {
    let mut session = displays(trial, 2)?;
    let mut expected = Vec::new();
    for scanout in [0, 1] {
        let id = 1 + scanout;
        let resource = session.gpu.create_picture(id, BGRA, 64, 64)?;
        let raw = noise(u64::from(id), resource.len());
        session.gpu.paint(&resource, &raw)?;
        let command = Cursor {
            scanout,
            x: 5 * id,
            y: 6 * id,
            resource: id,
            hot_x: id,
            hot_y: 0,
        };
        session.gpu.update_cursor(command)?;
        expected.push(CursorState {
            visible: true,
            x: 5 * id,
            y: 6 * id,
            hot_x: id,
            hot_y: 0,
            pixels: to_cursor(BGRA, &raw),
        });
    }
    for (scanout, cursor) in expected.iter().enumerate() {
        await_cursor(&session, scanout, cursor)?;
    }
    works(&mut session)
}

fn bad_resources(trial: &mut Trial) -> Outcome {
    let (mut session, cursor) = pointer(trial, BGRA)?;
    session.gpu.update_cursor(showing(&cursor))?;
    await_cursor(&session, 0, &cursor)?;
    for (id, (width, height)) in [(2, (63, 64)), (3, (64, 63)), (4, (1, 1))] {
        let resource = session.gpu.create_picture(id, BGRA, width, height)?;
        let raw = noise(u64::from(id), resource.len());
        session.gpu.paint(&resource, &raw)?;
    }
    for resource in [2, 3, 4, 99, u32::MAX] {
        let command = Cursor {
            resource,
            ..showing(&cursor)
        };
        session.gpu.update_cursor(command)?;
    }
    settle(&mut session)?;
    let now = session.display().with(|state| state.cursors[0].clone());
    // A cursor that is hidden, or empty, shows nothing either.
    check(
        now.pixels == cursor.pixels || is_empty(&now) || !now.visible,
        format_args!(
            "the shape has changed to another, which begins with {:02x?}",
            &now.pixels[..8]
        ),
    )?;
    session.gpu.update_cursor(showing(&cursor))?;
    await_cursor(&session, 0, &cursor)?;
    works(&mut session)
}

fn bad_scanouts(trial: &mut Trial) -> Outcome {
    let (mut session, cursor) = pointer(trial, BGRA)?;
    for scanout in [16, 255, 1 << 31, u32::MAX] {
        let command = Cursor {
            scanout,
            ..showing(&cursor)
        };
        session.gpu.update_cursor(command)?;
        session.gpu.move_cursor(command)?;
    }
    settle(&mut session)?;
    // A message for such a scanout breaks the display's rules, which the end of each case checks.
    let sent = session.display().count(kind::CURSOR_UPDATE);
    equal("cursor updates on the display", sent, 0)?;
    session.gpu.update_cursor(showing(&cursor))?;
    await_cursor(&session, 0, &cursor)?;
    settle(&mut session)?;
    works(&mut session)
}
