//! What is read back from the renderer for a display.

use std::fs::File;
use std::io::BufReader;

use nosnoop_protocol::format::Format;

use super::*;
use crate::render::fake::pixel;

/// The picture of an output, as XRGB bytes of 4 a pixel.
fn screen(display: &Display, output: usize) -> (u32, Vec<[u8; 3]>) {
    let folder = tempfile::tempdir().unwrap();
    let mut files = display.screenshot(folder.path()).unwrap();
    files.sort();
    let file = BufReader::new(File::open(&files[output]).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut bytes).unwrap();
    let each = bytes.len() / (info.width * info.height) as usize;
    let pixels = bytes
        .chunks_exact(each)
        .map(|pixel| [pixel[0], pixel[1], pixel[2]]);
    (info.width, pixels.collect())
}

#[test]
fn a_flush_reads_back_the_damage_and_nothing_else() {
    let gpu = Gpu::new();
    let tall = 700;
    let create = Create3d {
        format: 67,
        ..texture(1, 4000, tall)
    };
    gpu.create(&create).unwrap();
    gpu.create(&Create3d {
        format: 64,
        ..texture(2, 64, 64)
    })
    .unwrap();
    gpu.calls();
    let show = |words: [u32; 6]| gpu.bench.run(cmd::SET_SCANOUT, &words);
    let flush = |rect: [u32; 4], resource| {
        gpu.bench.run(
            cmd::RESOURCE_FLUSH,
            &[rect[0], rect[1], rect[2], rect[3], resource, 0],
        )
    };
    assert_eq!(show([0, 0, 64, 64, 0, 2]), BAD, "no picture");
    assert_eq!(show([0, 0, 4001, 1, 0, 1]), BAD);
    assert_eq!(flush([0, 0, 64, 64], 2), OK, "shown nowhere");
    assert_eq!(flush([0, 0, 64, 64], 1), OK, "shown nowhere");
    assert_eq!(show([10, 20, 30, 40, 0, 1]), OK);
    assert_eq!(flush([0, 0, 4001, 1], 1), BAD);
    assert_eq!(flush([0, 0, 10, 20], 1), OK, "beside it");
    assert_eq!(gpu.calls(), []);
    assert_eq!(flush([5, 25, 10, 3], 1), OK);
    let part = Rect::new(10, 25, 5, 3);
    assert_eq!(gpu.calls(), [Call::Read(id(1), part)]);
    let (width, pixels) = screen(gpu.bench.device.display(), 0);
    assert_eq!(width, 30);
    for (at, shown) in pixels.iter().enumerate() {
        let (x, y) = (at as u32 % 30 + 10, at as u32 / 30 + 20);
        // R8G8B8A8: the fake's bytes are red, green, blue.
        let [red, green, blue, _] = pixel(id(1), x, y);
        let inside = (10..15).contains(&x) && (25..28).contains(&y);
        let expected = if inside { [red, green, blue] } else { [0; 3] };
        assert_eq!(*shown, expected, "{x} {y}");
    }
    // More than is read at once.
    assert_eq!(show([0, 0, 4000, tall, 0, 1]), OK);
    assert_eq!(flush([0, 0, 4000, tall], 1), OK);
    let rows = quota::READ_BACK_BYTES / 16_000;
    let bands = [
        Call::Read(id(1), Rect::new(0, 0, 4000, rows)),
        Call::Read(id(1), Rect::new(0, rows, 4000, tall - rows)),
    ];
    assert_eq!(gpu.calls(), bands);
    let (_, pixels) = screen(gpu.bench.device.display(), 0);
    for (x, y) in [(0, 0), (3999, rows - 1), (0, rows), (3999, tall - 1)] {
        let [red, green, blue, _] = pixel(id(1), x, y);
        assert_eq!(
            pixels[(y * 4000 + x) as usize],
            [red, green, blue],
            "{x} {y}"
        );
    }
    gpu.fake.with(|script| script.refuse = Some("Read"));
    assert_eq!(flush([0, 0, 1, 1], 1), UNSPEC);
    assert_eq!(gpu.unref(1), OK, "while it is shown");
}

#[test]
fn a_cursor_is_read_back_if_it_is_one() {
    let gpu = Gpu::new();
    gpu.create(&Create3d {
        format: Format::B8g8r8a8.to_wire(),
        ..texture(1, 64, 64)
    })
    .unwrap();
    gpu.create(&texture(2, 64, 32)).unwrap();
    gpu.create(&Create3d {
        format: 64,
        ..texture(3, 64, 64)
    })
    .unwrap();
    gpu.calls();
    let update = |number| {
        gpu.bench
            .cursor(cmd::UPDATE_CURSOR, &[0, 1, 2, 0, number, 3, 4, 0])
    };
    assert_eq!(update(2), BAD);
    assert_eq!(update(3), BAD);
    assert_eq!(update(4), NO_RESOURCE);
    assert_eq!(gpu.calls(), []);
    assert_eq!(update(1), OK);
    assert_eq!(gpu.calls(), [Call::Read(id(1), Rect::new(0, 0, 64, 64))]);
    gpu.fake.with(|script| script.refuse = Some("Read"));
    assert_eq!(update(1), UNSPEC);
}
