//! A socket pair stands between the display and a peer that plays QEMU. No test measures short
//! times: what must not wait would wait for ever here, and what must come is waited for.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "the numbers of these tests are small and known"
)]

mod at_once;
mod failures;
mod messages;
mod peer;
mod pictures;
mod questions;
mod shared;

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nosnoop_protocol::geometry::{Rect, Size};
use nosnoop_protocol::ids::ScanoutId;

use super::{Display, OutputConfig};
use peer::Peer;

/// Far beyond what anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn id(number: u32) -> ScanoutId {
    ScanoutId::new(number).unwrap()
}

fn size(width: u32, height: u32) -> Size {
    Size { width, height }
}

fn rect(x: u32, y: u32, width: u32, height: u32) -> Rect {
    Rect {
        x,
        y,
        width,
        height,
    }
}

/// Two outputs, 100 x 50 and 30 x 70.
fn two_outputs() -> Display {
    Display::new(vec![
        OutputConfig {
            size: size(100, 50),
            refresh_hz: 60,
        },
        OutputConfig {
            size: size(30, 70),
            refresh_hz: 75,
        },
    ])
}

/// A display with a socket, and the peer after the handshake with all features.
fn connected() -> (Display, Peer) {
    let display = two_outputs();
    let peer = connect(&display, 3);
    (display, peer)
}

/// The peer on a new socket, after a handshake with all of these features.
fn connect(display: &Display, features: u64) -> Peer {
    let (ours, mut peer) = Peer::pair();
    display.attach_socket(ours).unwrap();
    assert_eq!(peer.handshake(features), features);
    peer
}

/// Draws each pixel as `pixel(x, y)` in scanout coordinates.
fn draw(display: &Display, id: ScanoutId, damage: Rect, pixel: impl Fn(u32, u32) -> [u8; 4]) {
    let drawn: Result<(), ()> = display.update(id, damage, |y, row| {
        for (x, bytes) in (damage.x..).zip(row.chunks_exact_mut(4)) {
            bytes.copy_from_slice(&pixel(x, y));
        }
        Ok(())
    });
    drawn.unwrap();
}

/// A pixel that differs from its neighbours and from those of other `seed`s.
fn pattern(seed: u8) -> impl Fn(u32, u32) -> [u8; 4] {
    move |x, y| [seed, x as u8, y as u8, (x >> 8) as u8 ^ (y >> 8) as u8]
}

/// Fails, where the work would hang the test.
fn within_patience<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = mpsc::channel();
    let thread = thread::spawn(move || done.send(work()).unwrap());
    let result = result
        .recv_timeout(PATIENCE)
        .expect("the display waits for the peer, or failed");
    thread.join().unwrap();
    result
}
