//! Pictures in dma-bufs. Files in memory stand for them: a display is told of a descriptor, whatever is
//! behind it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;

use rustix::fs::{MemfdFlags, fstat, memfd_create};

use super::peer::{Frame, Message, Peer, words};
use super::{connect, draw, id, pattern, rect, size, two_outputs, within_patience};
use crate::display::{Display, DmaBuf};

const DMABUF2: u64 = 2;
const LINEAR: u64 = 0;
const UNSAID: u64 = (1 << 56) - 1;
const TILED: u64 = 0x0100_0000_0000_0002;
const XR24: u32 = 0x3432_5258;

fn buffer(modifier: u64) -> DmaBuf {
    DmaBuf {
        fd: Arc::new(memfd_create(c"nosnoop-test", MemfdFlags::CLOEXEC).unwrap()),
        size: size(64, 32),
        stride: 512,
        fourcc: XR24,
        modifier,
        y_0_top: false,
    }
}

/// A display that shows dma-bufs, with features agreed on.
fn sharing(features: u64) -> (Display, Peer) {
    let display = two_outputs().with_dmabufs();
    let mut peer = connect(&display, features);
    // The end of the handshake is known here when something behind it has come.
    display.set_scanout(id(1), Some(size(1, 1))).unwrap();
    while peer.message().request != 7 {}
    assert!(display.takes_dmabufs());
    (display, peer)
}

fn show(display: &Display, buffer: &DmaBuf) {
    let shown = display.set_scanout_to(id(0), Some(size(60, 30)), Some(buffer.clone()));
    shown.unwrap();
}

fn inode(fd: &OwnedFd) -> u64 {
    fstat(fd).unwrap().st_ino
}

const SHOWN: [u32; 10] = [0, 0, 0, 60, 30, 64, 32, 512, 0, XR24];

#[test]
fn a_buffer_is_told_and_updated_and_the_next_one_takes_its_place() {
    let (display, mut peer) = sharing(DMABUF2);
    let (first, second) = (buffer(TILED), buffer(LINEAR));
    show(&display, &first);
    let mut expected = words(&SHOWN);
    expected.extend(TILED.to_ne_bytes());
    let message = peer.message();
    assert_eq!((message.request, message.payload), (12, expected));
    assert_eq!(inode(&peer.fds.remove(0)), inode(&first.fd));
    assert_eq!(display.update_shared(id(0), rect(1, 2, 3, 4)), None);
    peer.expect(10, &[0, 1, 2, 3, 4]);
    peer.reply(10, &[]);

    let second = DmaBuf {
        y_0_top: true,
        ..second
    };
    show(&display, &second);
    let message = peer.message();
    assert_eq!((message.request, message.payload[32]), (12, 1));
    assert_eq!(inode(&peer.fds.remove(0)), inode(&second.fd));
    // No descriptor is kept of one that is no longer shown.
    assert_eq!(Arc::strong_count(&first.fd), 1);

    display.set_scanout(id(0), None).unwrap();
    peer.expect(9, &[0; 10]);
    peer.expect(7, &[0, 0, 0]);
    assert!(peer.fds.is_empty());
    assert_eq!(Arc::strong_count(&second.fd), 1);
}

#[test]
fn a_copied_picture_follows_a_shared_one() {
    let (display, mut peer) = sharing(DMABUF2);
    show(&display, &buffer(TILED));
    assert_eq!(peer.message().request, 12);
    display.set_scanout(id(0), Some(size(60, 30))).unwrap();
    peer.expect(9, &[0; 10]);
    let whole = rect(0, 0, 60, 30);
    draw(&display, id(0), whole, pattern(1));
    let mut frame = Frame::black(whole.size());
    frame.draw(whole, pattern(1));
    let other = Frame::black(size(1, 1));
    peer.frames.insert(1, other.clone());
    peer.show_until(&[(0, frame), (1, other)].into());
}

#[test]
fn a_display_is_told_only_what_it_can_be_told() {
    for (features, modifier, request, bytes) in [
        (0, LINEAR, 9, 40),
        (0, UNSAID, 9, 40),
        (0, TILED, 7, 12),
        (DMABUF2, LINEAR, 12, 48),
        (DMABUF2, UNSAID, 9, 40),
        (DMABUF2, TILED, 12, 48),
    ] {
        let (display, mut peer) = sharing(features);
        show(&display, &buffer(modifier));
        let Message {
            request: told,
            payload,
        } = peer.message();
        let case = format!("{features} {modifier:#x}");
        assert_eq!((told, payload.len()), (request, bytes), "{case}");
        assert_eq!(peer.fds.len(), usize::from(request != 7), "{case}");
        let damage = rect(0, 0, 1, 1);
        let copied = (request == 7).then_some(damage);
        assert_eq!(display.update_shared(id(0), damage), copied, "{case}");
    }
}

#[test]
fn nothing_is_shared_unless_the_display_is_said_to_take_it() {
    let headless = two_outputs().with_dmabufs();
    show(&headless, &buffer(LINEAR));
    let damage = rect(1, 1, 1, 1);
    assert_eq!(headless.update_shared(id(0), damage), Some(damage));
    let display = two_outputs();
    let mut peer = connect(&display, DMABUF2);
    show(&display, &buffer(LINEAR));
    peer.expect(7, &[0, 60, 30]);
    assert_eq!(display.update_shared(id(0), damage), Some(damage));
}

#[test]
fn a_display_that_never_shows_what_it_is_told_stalls_nobody() {
    let (display, mut peer) = sharing(DMABUF2);
    show(&display, &buffer(TILED));
    assert_eq!(peer.message().request, 12);
    assert_eq!(display.update_shared(id(0), rect(5, 5, 1, 1)), None);
    peer.expect(10, &[0, 5, 5, 1, 1]);
    let display = within_patience(move || {
        for at in 10..30 {
            assert_eq!(display.update_shared(id(0), rect(at, at, 1, 1)), None);
        }
        display
    });
    // Other messages pass, and no second update does.
    display.cursor_move(id(0), 3, 4);
    peer.expect(4, &[0, 3, 4]);
    // What has come together meanwhile goes out once it is answered.
    peer.reply(10, &[]);
    peer.expect(10, &[0, 10, 10, 20, 20]);
}

#[test]
fn after_the_display_went_everything_has_to_be_drawn() {
    let (display, mut peer) = sharing(DMABUF2);
    show(&display, &buffer(TILED));
    assert_eq!(peer.message().request, 12);
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(display.screenshot(folder.path()).unwrap().len(), 1);
    drop(peer);
    within_patience(move || {
        while display.takes_dmabufs() {
            thread::yield_now();
        }
        let damage = rect(2, 2, 3, 3);
        let whole = Some(rect(0, 0, 60, 30));
        assert_eq!(display.update_shared(id(0), damage), whole);
        assert_eq!(display.update_shared(id(0), damage), Some(damage));
        // A new display is sent the copy, and nothing of the old one's dma-buf.
        let mut peer = connect(&display, DMABUF2);
        let first = peer.message();
        assert_eq!(first, Message::new(7, &[0, 60, 30]));
    });
}

#[test]
fn an_answer_that_nobody_waits_for_ends_the_socket() {
    let (display, mut peer) = sharing(DMABUF2);
    peer.reply(10, &[]);
    peer.drain();
    within_patience(move || {
        while display.takes_dmabufs() {
            thread::yield_now();
        }
    });
}
