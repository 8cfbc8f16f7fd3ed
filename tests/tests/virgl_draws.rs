//! What a guest draws by virgl, over the real daemon with software Mesa: pictures, fences, streams that
//! are no streams.
//!
//! The daemon is built with the feature `virgl` against the lab's root with OpenGL; where that cannot be
//! had the tests say so and do nothing.
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

#[path = "virgl_draws/fences.rs"]
mod fences;
#[path = "virgl_draws/garbage.rs"]
mod garbage;
#[path = "virgl_draws/kit.rs"]
mod kit;
#[path = "virgl_draws/rates.rs"]
mod rates;
#[path = "virgl_draws/shown.rs"]
mod shown;

use kit::{BGRA, BLUE, GREEN, RED, RGBA, Target, corners, draw, pixel_of, plain, start, typed};
use kit::{check_draws, start_limited};
use nosnoop_tests::frontend::request;
use nosnoop_tests::frontend::response::resp;
use nosnoop_tests::frontend::three_d::Transfer3d;
use nosnoop_tests::frontend::virgl::{self, CAPSET_VIRGL, CAPSET_VIRGL2, Vertex};
use nosnoop_tests::frontend::{Rect, Result};

#[test]
fn a_cleared_picture_is_read_back() -> Result<()> {
    let Some(mut rig) = start(&plain(None)) else {
        return Ok(());
    };
    rig.gpu.create_context(1, 0)?;
    let color = [0.2, 0.4, 0.6, 1.0];
    for (id, format) in [(1, BGRA), (2, RGBA)] {
        rig.gpu.create_context(10 + id, 0)?;
        let target = Target::new(&mut rig.gpu, 10 + id, id, format, (64, 48))?;
        draw(&mut rig.gpu, 10 + id, &target.begin().clear(color))?;
        let pixels = target.read(&mut rig.gpu)?;
        let expected = pixel_of(format, color).repeat(64 * 48);
        assert!(pixels == expected, "format {format}: {:?}", &pixels[..4]);
    }
    rig.finish()
}

#[test]
fn contexts_of_both_capability_sets_draw() -> Result<()> {
    let Some(mut rig) = start(&typed(None)) else {
        return Ok(());
    };
    for (context, capset) in [(1, CAPSET_VIRGL), (2, CAPSET_VIRGL2), (3, 0)] {
        rig.gpu.create_context(context, capset)?;
        let target = Target::new(&mut rig.gpu, context, context, BGRA, (32, 32))?;
        draw(&mut rig.gpu, context, &target.begin().clear(RED))?;
        let pixels = target.read(&mut rig.gpu)?;
        assert!(pixels == pixel_of(BGRA, RED).repeat(32 * 32), "{capset}");
    }
    rig.finish()
}

#[test]
fn a_transfer_touches_its_rectangle_only() -> Result<()> {
    let Some(mut rig) = start(&plain(None)) else {
        return Ok(());
    };
    rig.gpu.create_context(1, 0)?;
    let target = Target::new(&mut rig.gpu, 1, 1, BGRA, (32, 32))?;
    draw(&mut rig.gpu, 1, &target.begin().clear(RED))?;
    // A rectangle of blue from guest memory, in rows of the whole picture.
    let rect = Rect::new(5, 7, 9, 11);
    let offset = 4 * (7 * 32 + 5);
    let transfer = Transfer3d {
        offset,
        stride: 4 * 32,
        ..Transfer3d::flat(1, 1, rect)
    };
    let blue = pixel_of(BGRA, BLUE).repeat(32 * 32);
    rig.ram.scatter(&target.backing, 0, &blue)?;
    rig.gpu.transfer_to_host_3d(&transfer)?;
    let pixels = target.read(&mut rig.gpu)?;
    for y in 0..32 {
        for x in 0..32 {
            let inside = (5..14).contains(&x) && (7..18).contains(&y);
            let expected = pixel_of(BGRA, if inside { BLUE } else { RED });
            assert_eq!(target.pixel(&pixels, x, y), expected, "{x},{y}");
        }
    }
    // Back the same way: what lies around it in guest memory stays.
    rig.ram.fill(target.backing[0].addr, 4 * 32 * 32, 0x5a)?;
    rig.gpu.transfer_from_host_3d(&transfer)?;
    let memory = rig.ram.read(target.backing[0].addr, 4 * 32 * 32)?;
    for y in 0..32 {
        for x in 0..32 {
            let inside = (5..14).contains(&x) && (7..18).contains(&y);
            let expected = if inside {
                pixel_of(BGRA, BLUE)
            } else {
                [0x5a; 4]
            };
            assert_eq!(target.pixel(&memory, x, y), expected, "{x},{y}");
        }
    }
    rig.finish()
}

/// How far a pixel's centre lies inside of a triangle (corners in pixels, counter-clockwise in a picture
/// whose first row is y = 0); negative outside.
fn depth_inside(triangle: [(f32, f32); 3], x: u32, y: u32) -> f32 {
    let (x, y) = (x as f32 + 0.5, y as f32 + 0.5);
    let edges = [(0, 1), (1, 2), (2, 0)];
    let distance = edges.map(|(from, to)| {
        let ((ax, ay), (bx, by)) = (triangle[from], triangle[to]);
        let (dx, dy) = (bx - ax, by - ay);
        (dx * (y - ay) - dy * (x - ax)) / dx.hypot(dy)
    });
    distance.into_iter().fold(f32::MAX, f32::min)
}

#[test]
fn a_triangle_has_its_colour_inside_and_nothing_outside() -> Result<()> {
    const SIZE: u32 = 128;
    let Some(mut rig) = start(&plain(None)) else {
        return Ok(());
    };
    rig.gpu.create_context(1, 0)?;
    let target = Target::new(&mut rig.gpu, 1, 1, BGRA, (SIZE, SIZE))?;
    let places = [(-0.75, -0.5), (0.5, -0.75), (0.25, 0.75)];
    let drawn = places.map(|(x, y)| Vertex::new(x, y, RED));
    corners(&mut rig.gpu, 1, 2, &drawn)?;
    let stream = target.begin_triangles(2).clear(BLUE).draw_triangles(3);
    draw(&mut rig.gpu, 1, &stream)?;
    let pixels = target.read(&mut rig.gpu)?;
    let half = SIZE as f32 / 2.0;
    let triangle = places.map(|(x, y)| (half + half * x, half + half * y));
    let (mut inside, mut outside) = (0, 0);
    for y in 0..SIZE {
        for x in 0..SIZE {
            // What is cut by an edge may be either.
            let (expected, count) = match depth_inside(triangle, x, y) {
                depth if depth > 0.75 => (RED, &mut inside),
                depth if depth < -0.75 => (BLUE, &mut outside),
                _ => continue,
            };
            *count += 1;
            assert_eq!(
                target.pixel(&pixels, x, y),
                pixel_of(BGRA, expected),
                "{x},{y}"
            );
        }
    }
    // Nearly all of its area, and of the rest.
    assert!(inside > 3_500 && outside > 11_000, "{inside}, {outside}");
    rig.finish()
}

#[test]
fn colours_are_interpolated_between_the_corners() -> Result<()> {
    const SIZE: u32 = 64;
    let Some(mut rig) = start(&plain(None)) else {
        return Ok(());
    };
    rig.gpu.create_context(1, 0)?;
    let target = Target::new(&mut rig.gpu, 1, 1, BGRA, (SIZE, SIZE))?;
    // Black at the left edge and red at the right, over two triangles.
    let corner = |x: f32, y: f32| Vertex::new(x, y, [x.midpoint(1.0), 0.0, 0.0, 1.0]);
    let square = [
        (-1., -1.),
        (1., -1.),
        (1., 1.),
        (-1., -1.),
        (1., 1.),
        (-1., 1.),
    ];
    let square = square.map(|(x, y)| corner(x, y));
    corners(&mut rig.gpu, 1, 2, &square)?;
    draw(
        &mut rig.gpu,
        1,
        &target.begin_triangles(2).clear(BLUE).draw_triangles(6),
    )?;
    let pixels = target.read(&mut rig.gpu)?;
    for y in 0..SIZE {
        for x in 0..SIZE {
            let [b, g, r, a] = target.pixel(&pixels, x, y);
            let expected = (x as f32 + 0.5) * 255.0 / SIZE as f32;
            assert_eq!([b, g, a], [0, 0, 255], "{x},{y}");
            assert!((f32::from(r) - expected).abs() <= 1.5, "{x},{y}: {r}");
        }
    }
    rig.finish()
}

#[test]
fn resources_do_not_take_the_last_descriptors() -> Result<()> {
    // 128 of them are for other things.
    let Some(mut rig) = start_limited(&plain(None), 160) else {
        return Ok(());
    };
    let create = |id| virgl::render_target(id, BGRA, 16, 16);
    for id in 1..=32 {
        rig.gpu.create_3d(&create(id))?;
    }
    let one_more = create(33).request();
    assert_eq!(rig.gpu.answer(&one_more)?, resp::ERR_OUT_OF_MEMORY);
    // 2D goes on, and so does 3D with what is given back.
    rig.gpu.create_2d(50, BGRA, 64, 64)?;
    for id in 1..=8 {
        rig.gpu.unref(id)?;
    }
    check_draws(&mut rig.gpu)?;
    rig.finish()
}

#[test]
fn a_context_draws_into_what_another_made() -> Result<()> {
    let Some(mut rig) = start(&plain(None)) else {
        return Ok(());
    };
    rig.gpu.create_context(1, 0)?;
    rig.gpu.create_context(2, 0)?;
    let target = Target::new(&mut rig.gpu, 1, 1, BGRA, (16, 16))?;
    draw(&mut rig.gpu, 1, &target.begin().clear(RED))?;
    rig.gpu.attach_resource(2, 1)?;
    draw(&mut rig.gpu, 2, &target.begin().clear(GREEN))?;
    assert_eq!(
        target.read(&mut rig.gpu)?,
        pixel_of(BGRA, GREEN).repeat(256)
    );
    // Both contexts gone, the resource is still there.
    rig.gpu.destroy_context(2)?;
    rig.gpu.destroy_context(1)?;
    let missing = Transfer3d::flat(1, 1, target.rect()).from_host();
    assert_eq!(rig.gpu.answer(&missing)?, resp::ERR_INVALID_CONTEXT_ID);
    rig.gpu.unref(1)?;
    let gone = request::unref(1);
    assert_eq!(rig.gpu.answer(&gone)?, resp::ERR_INVALID_RESOURCE_ID);
    check_draws(&mut rig.gpu)?;
    rig.finish()
}
