//! What the one who draws sends itself. No sender thread runs here but where a test plays it.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;

use super::peer::{Frame, Peer, words};
use super::{id, pattern, rect, size, within_patience};
use crate::display::CURSOR_BYTES;
use crate::display::link::{Link, Marks, Slots};
use crate::display::outbox::Progress;
use crate::display::screen::Announcement;
use crate::sync::lock;
use nosnoop_protocol::geometry::Rect;

/// A link after the handshake, scanouts of which one is 400 x 300, and the peer that knows it.
fn linked() -> (Link, Slots, Peer) {
    let (ours, mut peer) = Peer::pair();
    let (link, slots) = (Link::new(Arc::new(ours)).unwrap(), Slots::new());
    assert_eq!(link.step(&slots).unwrap(), Progress::Sent);
    peer.expect(1, &[]);
    link.requests.features_offered(0);
    assert_eq!(link.step(&slots).unwrap(), Progress::Sent);
    peer.expect(2, &[0, 0]);
    let resized = slots
        .get(id(0))
        .unwrap()
        .screen()
        .resize(Some(size(400, 300)), None);
    drop(resized.unwrap());
    changed(&link, &slots);
    let size = peer.message();
    assert_eq!((size.request, &size.payload), (7, &words(&[0, 400, 300])));
    peer.show(&size);
    (link, slots, peer)
}

fn changed(link: &Link, slots: &Slots) {
    slots.mark(Marks::of(id(0)));
    link.push(slots);
}

fn draw(link: &Link, slots: &Slots, damage: Rect, seed: u8) {
    let mut screen = slots.get(id(0)).unwrap().screen();
    let drawn = screen.draw::<()>(damage, |y, row| {
        for (x, bytes) in (damage.x..).zip(row.chunks_exact_mut(4)) {
            bytes.copy_from_slice(&pattern(seed)(x, y));
        }
        Ok(())
    });
    drawn.unwrap();
    drop(screen);
    changed(link, slots);
}

/// Whether the sender would have been woken since the last time.
fn woken(link: &Link) -> bool {
    rustix::io::read(link.as_fd(), &mut [0_u8; 8]).is_ok()
}

/// Plays the sender until it has nothing more to do or the socket is full.
fn steps(link: &Link, slots: &Slots) -> Progress {
    loop {
        match link.step(slots).unwrap() {
            Progress::Sent => {}
            end => return end,
        }
    }
}

#[test]
fn small_changes_go_out_without_the_sender() {
    let (link, slots, mut peer) = linked();
    let mut frame = Frame::black(size(400, 300));
    for (seed, damage) in (1..).zip([
        rect(0, 0, 1, 1),
        rect(300, 200, 64, 64),
        rect(0, 7, 400, 40),
    ]) {
        draw(&link, &slots, damage, seed);
        frame.draw(damage, pattern(seed));
        let message = peer.message();
        peer.show(&message);
        assert!(peer.frames[&0] == frame, "{damage:?}");
    }
    lock(&slots.get(id(0)).unwrap().cursor).update((1, 2), (3, 4), &[5; CURSOR_BYTES]);
    changed(&link, &slots);
    assert_eq!(peer.message().request, 6);
    assert!(!woken(&link));
}

#[test]
fn a_large_change_is_left_to_the_sender() {
    let (link, slots, mut peer) = linked();
    draw(&link, &slots, rect(0, 0, 400, 300), 1);
    assert!(woken(&link));
    assert_eq!(peer.read_now(1 << 20), 0);
    // Small ones do not overtake it.
    draw(&link, &slots, rect(5, 5, 2, 2), 2);
    assert_eq!(peer.read_now(1 << 20), 0);
    let mut frame = Frame::black(size(400, 300));
    frame.draw(rect(0, 0, 400, 300), pattern(1));
    frame.draw(rect(5, 5, 2, 2), pattern(2));
    let sender = thread::spawn(move || {
        while steps(&link, &slots) != Progress::Idle {
            thread::yield_now();
        }
        // Kept, so that the socket stays open.
        (link, slots)
    });
    peer.show_until(&[(0, frame)].into());
    sender.join().unwrap();
}

#[test]
fn what_does_not_fit_the_socket_is_finished_by_the_sender_and_merges() {
    let (link, slots, mut peer) = linked();
    let mut frame = Frame::black(size(400, 300));
    for round in 0..2000_u32 {
        let damage = rect(round * 7 % 361, round * 5 % 251, 40, 50);
        draw(&link, &slots, damage, round as u8);
        frame.draw(damage, pattern(round as u8));
    }
    assert!(woken(&link), "the socket took all of it");
    assert_eq!(steps(&link, &slots), Progress::Full);
    // What waited is one message, whose bytes go on where the last one was cut.
    let mut bytes = 0;
    while peer.frames[&0] != frame {
        steps(&link, &slots);
        bytes += peer.read_now(1 << 20);
    }
    assert_eq!(steps(&link, &slots), Progress::Idle);
    assert!(bytes < 4 << 20, "{bytes} bytes where nothing merges");
    // And then without the sender again.
    woken(&link);
    draw(&link, &slots, rect(1, 1, 3, 3), 99);
    frame.draw(rect(1, 1, 3, 3), pattern(99));
    let message = peer.message();
    peer.show(&message);
    assert!(peer.frames[&0] == frame && !woken(&link));
}

#[test]
fn nobody_waits_for_another_who_draws_or_sends() {
    let (link, slots, mut peer) = linked();
    let (link, slots) = within_patience(move || {
        // The control queue draws for a long time, the cursor moves meanwhile.
        let screen = slots.get(id(0)).unwrap().screen();
        lock(&slots.get(id(0)).unwrap().cursor).move_to((3, 4));
        changed(&link, &slots);
        drop(screen);
        (link, slots)
    });
    assert!(woken(&link));
    assert_eq!(steps(&link, &slots), Progress::Idle);
    peer.expect(4, &[0, 3, 4]);
}

#[test]
fn a_closed_link_takes_nothing_from_the_next() {
    let (link, slots, mut peer) = linked();
    link.close();
    draw(&link, &slots, rect(0, 0, 9, 9), 1);
    let resized = slots
        .get(id(0))
        .unwrap()
        .screen()
        .resize(Some(size(30, 30)), None);
    drop(resized.unwrap());
    changed(&link, &slots);
    assert_eq!(steps(&link, &slots), Progress::Idle);
    assert!(!woken(&link));
    peer.drain();
    let announced = slots.get(id(0)).unwrap().screen().take_announcement();
    assert!(matches!(announced, Some(Announcement::Size(Some(it))) if it == size(30, 30)));
}
