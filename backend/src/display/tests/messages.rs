//! Byte for byte what each operation sends.

use nosnoop_protocol::edid::Edid;

use super::peer::{Message, Peer, words};
use super::{connected, draw, id, pattern, rect, size, two_outputs};
use crate::display::CURSOR_BYTES;

const EDID: u64 = 1;

#[test]
fn handshake_chooses_what_is_offered_and_known() {
    for (offered, chosen) in [(0, 0), (1, 1), (2, 2), (3, 3), (u64::MAX, 3)] {
        let display = two_outputs();
        let (ours, mut peer) = Peer::pair();
        display.attach_socket(ours).unwrap();
        assert_eq!(peer.handshake(offered), chosen);
    }
}

#[test]
fn scanout_and_updates() {
    let (display, mut peer) = connected();
    display.set_scanout(id(1), Some(size(3, 2))).unwrap();
    peer.expect(7, &[1, 3, 2]);

    // Part of the rows, and whole rows.
    draw(&display, id(1), rect(1, 0, 2, 2), |x, y| {
        [x as u8, y as u8, 7, 9]
    });
    let mut expected = words(&[1, 1, 0, 2, 2]);
    expected.extend([1, 0, 7, 9, 2, 0, 7, 9, 1, 1, 7, 9, 2, 1, 7, 9]);
    assert_eq!(
        peer.message(),
        Message {
            request: 8,
            payload: expected
        }
    );
    draw(&display, id(1), rect(0, 1, 3, 1), |x, y| {
        [x as u8, y as u8, 6, 5]
    });
    let mut expected = words(&[1, 0, 1, 3, 1]);
    expected.extend([0, 1, 6, 5, 1, 1, 6, 5, 2, 1, 6, 5]);
    assert_eq!(
        peer.message(),
        Message {
            request: 8,
            payload: expected
        }
    );

    // The same size again says nothing.
    display.set_scanout(id(1), Some(size(3, 2))).unwrap();
    display.set_scanout(id(1), None).unwrap();
    peer.expect(7, &[1, 0, 0]);
    // A scanout that is off takes no pixels; neither does one that is too small.
    draw(&display, id(1), rect(0, 0, 1, 1), pattern(0));
    display.set_scanout(id(0), Some(size(1, 1))).unwrap();
    draw(&display, id(0), rect(0, 0, 2, 1), pattern(0));
    draw(&display, id(0), rect(u32::MAX, 0, u32::MAX, 1), pattern(0));
    peer.expect(7, &[0, 1, 1]);
    display.set_scanout(id(0), Some(size(0, 5))).unwrap();
    peer.expect(7, &[0, 0, 0]);
}

#[test]
fn cursor_messages() {
    let (display, mut peer) = connected();
    let mut argb = [0; CURSOR_BYTES];
    for (byte, value) in argb.iter_mut().zip((0..=250).cycle()) {
        *byte = value;
    }
    display.cursor_update(id(1), 10, u32::MAX, 3, 4, &argb);
    let mut expected = words(&[1, 10, u32::MAX, 3, 4]);
    expected.extend(argb);
    assert_eq!(
        peer.message(),
        Message {
            request: 6,
            payload: expected
        }
    );
    display.cursor_move(id(1), 11, 12);
    peer.expect(4, &[1, 11, 12]);
    display.cursor_hide(id(1), 13, 14);
    peer.expect(5, &[1, 13, 14]);
    display.cursor_move(id(0), 1, 2);
    peer.expect(4, &[0, 1, 2]);
}

#[test]
fn a_new_socket_gets_the_whole_state_and_the_old_one_is_closed() {
    let (display, mut old) = connected();
    display.set_scanout(id(0), Some(size(2, 2))).unwrap();
    draw(&display, id(0), rect(0, 1, 1, 1), |_, _| [1, 2, 3, 4]);
    display.cursor_update(id(0), 5, 6, 7, 8, &[9; CURSOR_BYTES]);
    display.cursor_move(id(0), 15, 16);
    let (ours, mut peer) = Peer::pair();
    display.attach_socket(ours).unwrap();
    old.drain();

    peer.handshake(EDID);
    peer.expect(7, &[0, 2, 2]);
    let mut rest = [peer.message(), peer.message(), peer.message()];
    rest.sort_by_key(|message| message.request);
    assert_eq!(rest[0], Message::new(4, &[0, 15, 16]));
    assert_eq!(
        (rest[1].request, &rest[1].payload[20..]),
        (6, &[9; CURSOR_BYTES][..])
    );
    let mut expected = words(&[0, 0, 0, 2, 2]);
    expected.extend([0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0]);
    assert_eq!(
        rest[2],
        Message {
            request: 8,
            payload: expected
        }
    );
}

#[test]
fn reset_switches_all_off() {
    let (display, mut peer) = connected();
    display.set_scanout(id(0), Some(size(2, 2))).unwrap();
    peer.expect(7, &[0, 2, 2]);
    display.cursor_move(id(1), 1, 2);
    peer.expect(4, &[1, 1, 2]);
    display.reset();
    peer.expect(7, &[0, 0, 0]);
    peer.expect(5, &[1, 1, 2]);
    // What was off or hidden is not mentioned.
    display.reset();
    display.cursor_move(id(2), 0, 0);
    peer.expect(4, &[2, 0, 0]);
}

#[test]
fn questions_and_answers() {
    let (display, mut peer) = connected();
    let mut info = display_info();
    let answer = info;
    let answering = std::thread::spawn(move || {
        peer.expect(3, &[]);
        peer.reply_info(&answer);
        peer.expect(11, &[5]);
        peer.reply_edid(&Edid::from_bytes(&[7; 300]).unwrap());
        peer.expect(3, &[]);
        peer.reply_info(&nosnoop_protocol::reply::DisplayInfo::default());
        peer
    });
    assert_eq!(display.outputs(), 2);
    assert_eq!(display.display_info(), info);
    assert_eq!(display.outputs(), 6);
    assert_eq!(display.edid(id(5)).as_bytes(), [7; 300]);
    // Asked afresh; outputs that went are still valid scanouts.
    info.modes = Default::default();
    assert_eq!(display.display_info(), info);
    assert_eq!(display.outputs(), 6);
    answering.join().unwrap();
}

#[test]
fn edid_is_not_asked_for_if_not_negotiated() {
    let display = two_outputs();
    let (ours, mut peer) = Peer::pair();
    display.attach_socket(ours).unwrap();
    let answering = std::thread::spawn(move || {
        assert_eq!(peer.handshake(2), 2);
        peer.expect(3, &[]);
        peer.reply_info(&display_info());
        peer.expect(7, &[0, 8, 8]);
    });
    let edid = display.edid(id(0));
    assert_eq!(edid, display.generate_edid(id(0), &display_info()));
    display.set_scanout(id(0), Some(size(8, 8))).unwrap();
    answering.join().unwrap();
}

fn display_info() -> nosnoop_protocol::reply::DisplayInfo {
    let mut info = nosnoop_protocol::reply::DisplayInfo::default();
    info.modes[0].rect = rect(0, 0, 640, 480);
    info.modes[0].enabled = true;
    info.modes[5].rect = rect(640, 100, 1280, 1024);
    info.modes[5].enabled = true;
    info.modes[5].flags = 3;
    // Known but not connected.
    info.modes[9].rect = rect(0, 0, 10, 10);
    info
}
