//! What the peer shows in the end is what the guest drew.

use std::collections::BTreeMap;
use std::thread;

use nosnoop_protocol::reply::GpuError;
use proptest::prelude::*;

use super::peer::{Frame, Peer};
use super::{connected, draw, id, pattern, rect, size, two_outputs, within_patience};
use crate::display::screen::{Announcement, Screen};
use nosnoop_protocol::geometry::Rect;

#[test]
fn stalled_reader_does_not_stall_the_guest_and_sees_the_newest_picture() {
    let (display, mut peer) = connected();
    let whole = rect(0, 0, 400, 300);
    let display = within_patience(move || {
        display.set_scanout(id(0), Some(whole.size())).unwrap();
        for round in 0..1000_u32 {
            // Whole pictures in between many small damages.
            let damage = if round.is_multiple_of(50) {
                whole
            } else {
                rect(round % 391, round % 291, 9, 9)
            };
            draw(&display, id(0), damage, pattern(round as u8));
            display.cursor_move(id(0), round, round);
        }
        draw(&display, id(0), whole, pattern(200));
        display.cursor_move(id(0), 5, 6);
        display
    });
    let mut frame = Frame::black(whole.size());
    frame.draw(whole, pattern(200));
    let expected = BTreeMap::from([(0, frame.clone())]);

    // What waited is a few messages, not a thousand.
    let mut messages = 0;
    let mut cursor = None;
    while peer.frames != expected || cursor.as_deref() != Some(&[0, 5, 6][..]) {
        let message = peer.message();
        messages += 1;
        peer.show(&message);
        if message.request == 4 {
            let words = message.payload.as_chunks().0.iter();
            cursor = Some(
                words
                    .map(|word| u32::from_ne_bytes(*word))
                    .collect::<Vec<_>>(),
            );
        }
    }
    assert!(messages < 1000, "{messages} messages");

    // Nothing older comes after it.
    draw(&display, id(0), rect(7, 7, 1, 1), pattern(201));
    frame.draw(rect(7, 7, 1, 1), pattern(201));
    peer.show_until(&BTreeMap::from([(0, frame)]));
}

#[test]
fn resize_in_mid_message_completes_the_message_first() {
    for new in [Some(size(64, 64)), None, Some(size(2000, 2000))] {
        let (display, mut peer) = connected();
        display.set_scanout(id(0), Some(size(1024, 1024))).unwrap();
        peer.expect(7, &[0, 1024, 1024]);
        draw(&display, id(0), rect(0, 0, 1024, 1024), pattern(1));
        // The message has begun and cannot be in the socket as a whole.
        assert!(peer.read_some(40));
        display.set_scanout(id(0), new).unwrap();
        if let Some(new) = new {
            draw(&display, id(0), Rect::from_size(new), pattern(2));
        }
        let update = peer.message();
        assert_eq!(
            (update.request, update.payload.len()),
            (8, 20 + 4 * 1024 * 1024)
        );
        let (width, height) = new.map_or((0, 0), |new| (new.width, new.height));
        peer.expect(7, &[0, width, height]);
        if let Some(new) = new {
            peer.frames.insert(0, Frame::black(new));
            let mut frame = Frame::black(new);
            frame.draw(Rect::from_size(new), pattern(2));
            peer.show_until(&BTreeMap::from([(0, frame)]));
        }
    }
}

#[test]
fn many_short_rows() {
    let (display, mut peer) = connected();
    display.set_scanout(id(3), Some(size(8, 5000))).unwrap();
    let mut frame = Frame::black(size(8, 5000));
    draw(&display, id(3), rect(3, 1, 4, 4998), pattern(9));
    frame.draw(rect(3, 1, 4, 4998), pattern(9));
    peer.show_until(&BTreeMap::from([(3, frame)]));
}

#[test]
fn rows_before_an_error_are_shown() {
    let (display, mut peer) = connected();
    display.set_scanout(id(0), Some(size(4, 4))).unwrap();
    let result = display.update(id(0), rect(0, 0, 4, 4), |y, row| {
        if y == 2 {
            return Err("bad memory");
        }
        row.fill(8);
        Ok(())
    });
    assert_eq!(result, Err("bad memory"));
    let mut frame = Frame::black(size(4, 4));
    frame.draw(rect(0, 0, 4, 2), |_, _| [8; 4]);
    peer.show_until(&BTreeMap::from([(0, frame)]));
}

#[test]
fn impossible_size_is_an_error_and_changes_nothing() {
    let (display, mut peer) = connected();
    display.set_scanout(id(0), Some(size(4, 4))).unwrap();
    peer.expect(7, &[0, 4, 4]);
    let huge = display.set_scanout(id(0), Some(size(u32::MAX, u32::MAX)));
    assert_eq!(huge, Err(GpuError::OutOfMemory));
    draw(&display, id(0), rect(0, 0, 4, 4), pattern(1));
    assert_eq!(peer.message().request, 8);
}

#[test]
fn huge_damage_is_sent_in_messages_of_bounded_size() {
    let mut screen = Screen::off();
    drop(screen.resize(Some(size(65536, 1500)), None).unwrap());
    assert_eq!(screen.take_update(), None, "the size was not announced");
    let Some(Announcement::Size(announced)) = screen.take_announcement() else {
        panic!("no size");
    };
    assert_eq!(announced, Some(size(65536, 1500)));
    screen
        .draw::<()>(rect(0, 10, 65536, 1490), |_, _| Ok(()))
        .unwrap();
    let first = screen.take_update().unwrap();
    assert_eq!(
        (first.rect, first.bytes),
        (rect(0, 10, 65536, 1024), 256 << 20)
    );
    let second = screen.take_update().unwrap();
    assert_eq!(second.rect, rect(0, 1034, 65536, 466));
    assert_eq!(screen.take_update(), None);
}

#[test]
fn guest_and_display_at_full_speed() {
    let (display, mut peer) = connected();
    let whole = rect(0, 0, 640, 480);
    let mut frame = Frame::black(whole.size());
    frame.draw(whole, pattern(255));
    frame.draw(rect(100, 100, 50, 60), pattern(7));
    let expected = BTreeMap::from([(1, frame)]);
    let showing = thread::spawn(move || peer.show_until(&expected));
    display.set_scanout(id(1), Some(whole.size())).unwrap();
    for round in 0..60 {
        draw(&display, id(1), whole, pattern(round));
    }
    draw(&display, id(1), whole, pattern(255));
    draw(&display, id(1), rect(100, 100, 50, 60), pattern(7));
    showing.join().unwrap();
}

#[test]
fn screenshots_show_the_screens_that_are_on() {
    let display = two_outputs();
    let dir = tempfile::tempdir().unwrap();
    assert!(display.screenshot(dir.path()).unwrap().is_empty());
    display.set_scanout(id(0), Some(size(5, 3))).unwrap();
    display.set_scanout(id(7), Some(size(1, 1))).unwrap();
    draw(&display, id(0), rect(1, 1, 4, 2), |x, y| {
        [x as u8, y as u8, 200, 0]
    });
    let paths = display.screenshot(dir.path()).unwrap();
    assert_eq!(
        paths,
        ["scanout-0.png", "scanout-7.png"].map(|name| dir.path().join(name))
    );

    let file = std::io::BufReader::new(std::fs::File::open(&paths[0]).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert_eq!((info.width, info.height), (5, 3));
    assert_eq!(
        (info.color_type, info.bit_depth),
        (png::ColorType::Rgb, png::BitDepth::Eight)
    );
    let expected: Vec<u8> = (0..3_u8)
        .flat_map(|y| (0..5_u8).map(move |x| (x, y)))
        .flat_map(|(x, y)| {
            if x >= 1 && y >= 1 {
                [200, y, x]
            } else {
                [0; 3]
            }
        })
        .collect();
    assert_eq!(pixels, expected);

    // A second round replaces the files and leaves nothing else behind.
    display.screenshot(dir.path()).unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    assert!(display.screenshot(&dir.path().join("missing")).is_err());
}

#[derive(Clone, Debug)]
enum Op {
    Size(u32, Option<(u32, u32)>),
    /// Where, as parts of 100 of the screen, and what.
    Draw(u32, [u32; 4], u8),
    Read(usize),
    Reattach,
}

fn op() -> impl Strategy<Value = Op> {
    let size = prop::option::weighted(0.9, (1..400_u32, 1..400_u32));
    prop_oneof![
        1 => (0..2_u32, size).prop_map(|(scanout, size)| Op::Size(scanout, size)),
        6 => (0..2_u32, prop::array::uniform4(0..100_u32), 1..=255_u8)
            .prop_map(|(scanout, place, seed)| Op::Draw(scanout, place, seed)),
        4 => (1..500_000_usize).prop_map(Op::Read),
        1 => Just(Op::Reattach),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 48,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// The peer reads a bit now and then, and in the end all.
    #[test]
    fn peer_ends_up_with_what_was_drawn(ops in prop::collection::vec(op(), 1..60)) {
        let (display, mut peer) = connected();
        let mut expected: BTreeMap<u32, Frame> = BTreeMap::new();
        for op in ops {
            match op {
                Op::Size(scanout, None) => {
                    display.set_scanout(id(scanout), None).unwrap();
                    expected.remove(&scanout);
                }
                Op::Size(scanout, Some((width, height))) => {
                    let new = size(width, height);
                    display.set_scanout(id(scanout), Some(new)).unwrap();
                    let frame = expected.entry(scanout).or_insert_with(|| Frame::black(new));
                    if frame.size != new {
                        *frame = Frame::black(new);
                    }
                }
                Op::Draw(scanout, [x, y, width, height], seed) => {
                    let Some(frame) = expected.get_mut(&scanout) else { continue };
                    let (x, y) = (x * frame.size.width / 100, y * frame.size.height / 100);
                    let damage = rect(
                        x,
                        y,
                        1 + width * (frame.size.width - x - 1) / 100,
                        1 + height * (frame.size.height - y - 1) / 100,
                    );
                    draw(&display, id(scanout), damage, pattern(seed));
                    frame.draw(damage, pattern(seed));
                }
                Op::Read(bytes) => {
                    peer.read_now(bytes);
                }
                Op::Reattach => {
                    let (ours, new) = Peer::pair();
                    display.attach_socket(ours).unwrap();
                    peer.drain();
                    peer = new;
                    peer.handshake(0);
                }
            }
        }
        peer.show_until(&expected);
    }
}
