//! Peers that break the rules, leave, or do not read.

use std::thread;

use super::peer::{Peer, words};
use super::{connected, draw, id, pattern, rect, size, two_outputs, within_patience};
use crate::display::Display;

/// The display has closed the socket and works on without.
fn assert_headless(display: Display, mut peer: Peer) {
    peer.drain();
    within_patience(move || {
        let options = two_outputs().display_info();
        display.set_scanout(id(0), Some(size(60, 60))).unwrap();
        for seed in 0..10 {
            draw(&display, id(0), rect(0, 0, 60, 60), pattern(seed));
            assert_eq!(display.display_info(), options);
        }
        let _ = display.edid(id(0));
        display.detach();
    });
}

/// What a front-end must not send, whatever we asked before.
fn garbage() -> Vec<Vec<u8>> {
    vec![
        // A request number that has no reply, one that does not exist, a reply to no question.
        words(&[8, 4, 0]),
        words(&[10, 4, 0]),
        words(&[99, 4, 8, 0, 0]),
        words(&[11, 4, 1056]),
        // Larger than any reply.
        words(&[1, 4, u32::MAX]),
        words(&[3, 4, 1 << 20]),
        words(&[u32::MAX; 20]),
        words(&[0; 20]),
    ]
}

#[test]
fn garbage_before_the_handshake_closes_the_socket() {
    let wrong = [
        words(&[1, 0, 8, 0, 0]),
        words(&[1, 4, 4, 0]),
        words(&[1, 4, 0]),
        words(&[3, 4, 408]),
    ];
    for bytes in garbage().into_iter().chain(wrong) {
        let display = two_outputs();
        let (ours, mut peer) = Peer::pair();
        display.attach_socket(ours).unwrap();
        peer.expect(1, &[]);
        peer.send(&bytes);
        assert_headless(display, peer);
    }
}

#[test]
fn garbage_while_idle_closes_the_socket() {
    for bytes in garbage()
        .into_iter()
        .chain([words(&[1, 4, 8, 0, 0]), words(&[3, 4, 408])])
    {
        let (display, mut peer) = connected();
        peer.send(&bytes);
        assert_headless(display, peer);
    }
}

#[test]
fn garbage_as_answer_closes_the_socket() {
    let wrong = [
        words(&[3, 0, 408]),
        words(&[3, 4, 404]),
        words(&[3, 4, 412]),
        words(&[1, 4, 408]),
        words(&[4, 4, 408]),
    ];
    for bytes in garbage().into_iter().chain(wrong) {
        let (display, mut peer) = connected();
        let breaking = thread::spawn(move || {
            peer.expect(3, &[]);
            peer.send(&bytes);
            peer
        });
        assert_eq!(display.display_info(), two_outputs().display_info());
        assert_headless(display, breaking.join().unwrap());
    }
}

#[test]
fn end_of_the_socket_in_each_state() {
    // At once, after the question, and within each of header and payload of the answer.
    let (ours, peer) = Peer::pair();
    let display = two_outputs();
    display.attach_socket(ours).unwrap();
    drop(peer);
    assert_gone(display);
    for answer in [&[][..], &words(&[1, 4])[..], &words(&[1, 4, 8, 3])[..]] {
        let (ours, mut peer) = Peer::pair();
        let display = two_outputs();
        display.attach_socket(ours).unwrap();
        peer.expect(1, &[]);
        peer.send(answer);
        drop(peer);
        assert_gone(display);
    }
    // While idle, and within an update.
    let (display, peer) = connected();
    drop(peer);
    assert_gone(display);
    let (display, mut peer) = connected();
    display.set_scanout(id(0), Some(size(2000, 1000))).unwrap();
    draw(&display, id(0), rect(0, 0, 2000, 1000), pattern(1));
    peer.expect(7, &[0, 2000, 1000]);
    assert!(peer.read_some(1000));
    drop(peer);
    assert_gone(display);
}

fn assert_gone(display: Display) {
    within_patience(move || {
        assert_eq!(display.display_info(), two_outputs().display_info());
        display.set_scanout(id(0), Some(size(10, 10))).unwrap();
        draw(&display, id(0), rect(0, 0, 10, 10), pattern(1));
        drop(display);
    });
}

#[test]
fn answer_in_small_pieces_is_put_together() {
    let (ours, mut peer) = Peer::pair();
    let display = two_outputs();
    display.attach_socket(ours).unwrap();
    peer.expect(1, &[]);
    let mut bytes = words(&[1, 4, 8]);
    bytes.extend(1_u64.to_ne_bytes());
    for byte in bytes {
        peer.send(&[byte]);
        thread::yield_now();
    }
    let chosen = peer.message();
    assert_eq!(
        (chosen.request, &chosen.payload[..]),
        (2, &1_u64.to_ne_bytes()[..])
    );
}

#[test]
fn detach_and_drop_do_not_wait_for_a_peer_that_does_not_read() {
    for mid_message in [false, true] {
        let (display, mut peer) = connected();
        display.set_scanout(id(0), Some(size(2000, 1000))).unwrap();
        draw(&display, id(0), rect(0, 0, 2000, 1000), pattern(1));
        peer.expect(7, &[0, 2000, 1000]);
        if mid_message {
            assert!(peer.read_some(1));
        }
        within_patience(move || {
            display.detach();
            display.detach();
        });
        peer.drain();
    }
}

#[test]
fn socket_that_cannot_be_waited_for_is_refused() {
    let display = two_outputs();
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    let socket = std::os::fd::OwnedFd::from(file).into();
    assert!(display.attach_socket(socket).is_err());
    assert_eq!(display.display_info(), two_outputs().display_info());
    let (ours, mut peer) = Peer::pair();
    display.attach_socket(ours).unwrap();
    peer.handshake(0);
}
