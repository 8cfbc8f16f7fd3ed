//! 3D resources on the display.

use super::kit::{BGRA, BLUE, GREEN, RED, RGBA, Target, corners, draw, pixel_of, plain, start};
use super::kit::{check_draws, start_with};
use nosnoop_tests::frontend::display::kind;
use nosnoop_tests::frontend::pixels::Picture;
use nosnoop_tests::frontend::request::Cursor;
use nosnoop_tests::frontend::virgl::{self, Stream, Vertex};
use nosnoop_tests::frontend::{DisplayConfig, Rect, Result};

/// A picture in which no two rows and no two columns look alike.
fn gradient(target: &Target) -> Stream {
    target.begin_triangles(900).clear(BLUE).draw_triangles(6)
}

/// The corners of [`gradient`]: red grows to the right, green with y.
fn square() -> [Vertex; 6] {
    let square = [
        (-1., -1.),
        (1., -1.),
        (1., 1.),
        (-1., -1.),
        (1., 1.),
        (-1., 1.),
    ];
    square.map(|(x, y): (f32, f32)| Vertex::new(x, y, [x.midpoint(1.0), y.midpoint(1.0), 0.5, 1.0]))
}

#[test]
fn a_drawn_picture_is_shown_and_damage_alone_is_sent() -> Result<()> {
    for format in [BGRA, RGBA] {
        let display = DisplayConfig::sized(96, 64);
        let Some(mut rig) = start(&plain(Some(display))) else {
            return Ok(());
        };
        rig.gpu.create_context(1, 0)?;
        let target = Target::new(&mut rig.gpu, 1, 1, format, (96, 64))?;
        corners(&mut rig.gpu, 1, 900, &square())?;
        draw(&mut rig.gpu, 1, &gradient(&target))?;
        let raw = target.read(&mut rig.gpu)?;
        rig.gpu.set_scanout(0, 1, target.rect())?;
        rig.gpu.flush(1, target.rect())?;
        let mut shown = Picture::of(format, 96, 64, &raw);
        rig.display().wait_picture(0, &shown)?;
        // All is drawn anew, with other colours in each place; only what is flushed may appear.
        let inverted = square().map(|corner| {
            let [r, g, b, a] = corner.color;
            Vertex {
                color: [1.0 - r, 1.0 - g, b, a],
                ..corner
            }
        });
        corners(&mut rig.gpu, 1, 901, &inverted)?;
        draw(
            &mut rig.gpu,
            1,
            &Stream::new().vertices(21, 901).draw_triangles(6),
        )?;
        let raw = target.read(&mut rig.gpu)?;
        let before = rig.display().with(|state| state.pixels);
        let damage = Rect::new(11, 23, 31, 17);
        rig.gpu.flush(1, damage)?;
        shown.copy_from(&Picture::of(format, 96, 64, &raw), damage);
        rig.display().wait_picture(0, &shown)?;
        let sent = rig.display().with(|state| state.pixels) - before;
        assert_eq!(sent, 31 * 17);
        let last = rig.display().with(|state| {
            let scanout = state.scanouts[0].as_ref();
            scanout.and_then(|scanout| scanout.updates.last().copied())
        });
        assert_eq!(last, Some(damage));
        rig.finish()?;
    }
    Ok(())
}

#[test]
fn a_picture_that_the_driver_does_not_export_is_copied() -> Result<()> {
    let mut display = DisplayConfig::sized(96, 64);
    // Dma-bufs with modifiers, as QEMU has it.
    display.features |= 1 << 1;
    let Some(mut rig) = start_with(&plain(Some(display)), &["--dmabuf-scanout"]) else {
        return Ok(());
    };
    rig.gpu.create_context(1, 0)?;
    let target = Target::new(&mut rig.gpu, 1, 1, BGRA, (96, 64))?;
    corners(&mut rig.gpu, 1, 900, &square())?;
    draw(&mut rig.gpu, 1, &gradient(&target))?;
    let raw = target.read(&mut rig.gpu)?;
    rig.display()
        .wait_for("the handshake", |state| state.accepted)?;
    for _ in 0..2 {
        rig.gpu.set_scanout(0, 1, target.rect())?;
        rig.gpu.flush(1, target.rect())?;
    }
    let shown = Picture::of(BGRA, 96, 64, &raw);
    rig.display().wait_picture(0, &shown)?;
    for request in [kind::DMABUF_SCANOUT, kind::DMABUF_SCANOUT2] {
        assert_eq!(rig.display().count(request), 0);
    }
    check_draws(&mut rig.gpu)?;
    let said = rig.daemon.stderr();
    let lines = said
        .lines()
        .filter(|line| line.contains("--dmabuf-scanout"));
    assert_eq!(lines.count(), 1, "{said}");
    rig.finish()
}

#[test]
fn a_picture_larger_than_one_read_back_is_shown_whole() -> Result<()> {
    // 10 MB, of which the daemon reads some at a time.
    const SIZE: (u32, u32) = (2048, 1250);
    let display = DisplayConfig::sized(SIZE.0, SIZE.1);
    let Some(mut rig) = start(&plain(Some(display))) else {
        return Ok(());
    };
    rig.gpu.create_context(1, 0)?;
    let target = Target::new(&mut rig.gpu, 1, 1, BGRA, SIZE)?;
    corners(&mut rig.gpu, 1, 900, &square())?;
    draw(&mut rig.gpu, 1, &gradient(&target))?;
    let raw = target.read(&mut rig.gpu)?;
    rig.gpu.set_scanout(0, 1, target.rect())?;
    rig.gpu.flush(1, target.rect())?;
    let shown = Picture::of(BGRA, SIZE.0, SIZE.1, &raw);
    rig.display().wait_picture(0, &shown)?;
    rig.finish()
}

#[test]
fn a_part_of_a_drawn_picture_is_shown_and_frames_follow_each_other() -> Result<()> {
    let display = DisplayConfig::sized(40, 30);
    let Some(mut rig) = start(&plain(Some(display))) else {
        return Ok(());
    };
    rig.gpu.create_context(1, 0)?;
    let target = Target::new(&mut rig.gpu, 1, 1, BGRA, (96, 64))?;
    corners(&mut rig.gpu, 1, 900, &square())?;
    let view = Rect::new(13, 9, 40, 30);
    draw(&mut rig.gpu, 1, &gradient(&target))?;
    rig.gpu.set_scanout(0, 1, view)?;
    rig.gpu.flush(1, target.rect())?;
    let raw = target.read(&mut rig.gpu)?;
    let picture = Picture::of(BGRA, 96, 64, &raw).crop(view);
    rig.display().wait_picture(0, &picture)?;
    for color in [RED, GREEN, BLUE].into_iter().cycle().take(30) {
        draw(&mut rig.gpu, 1, &Stream::new().clear(color))?;
        rig.gpu.flush(1, target.rect())?;
        let raw = pixel_of(BGRA, color).repeat(40 * 30);
        let picture = Picture::of(BGRA, 40, 30, &raw);
        rig.display().wait_picture(0, &picture)?;
    }
    // What is not shown is not sent.
    rig.gpu.set_scanout(0, 0, Rect::default())?;
    let updates = rig.display().count(kind::UPDATE);
    rig.gpu.flush(1, target.rect())?;
    rig.gpu.display_info()?;
    assert_eq!(rig.display().count(kind::UPDATE), updates);
    rig.finish()
}

#[test]
fn a_drawn_cursor_is_shown() -> Result<()> {
    let display = DisplayConfig::sized(640, 480);
    let Some(mut rig) = start(&plain(Some(display))) else {
        return Ok(());
    };
    rig.gpu.create_context(1, 0)?;
    let target = Target::of(&mut rig.gpu, 1, &virgl::render_target(1, BGRA, 64, 64))?;
    corners(&mut rig.gpu, 1, 900, &square())?;
    draw(&mut rig.gpu, 1, &gradient(&target))?;
    let raw = target.read(&mut rig.gpu)?;
    let cursor = Cursor {
        resource: 1,
        x: 100,
        y: 90,
        hot_x: 3,
        hot_y: 4,
        ..Cursor::default()
    };
    rig.gpu.update_cursor(cursor)?;
    let pixels = rig.display().wait_for("the cursor", |state| {
        let cursor = &state.cursors[0];
        (cursor.visible && !cursor.pixels.is_empty()).then(|| cursor.pixels.clone())
    })?;
    assert!(pixels == raw, "{:?} for {:?}", &pixels[..4], &raw[..4]);
    rig.finish()
}
