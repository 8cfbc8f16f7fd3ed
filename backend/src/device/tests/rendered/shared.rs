//! Pictures that go to the display as dma-bufs.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};

use super::*;
use crate::render::fake::{FOURCC, MODIFIER, STRIDE};

/// The front-end's end of the display socket.
struct Viewer(UnixStream);

impl Viewer {
    fn message(&mut self) -> (u32, Vec<u32>) {
        let words = |bytes: &[u8]| -> Vec<u32> {
            let words = bytes.as_chunks::<4>().0;
            words.iter().map(|word| u32::from_ne_bytes(*word)).collect()
        };
        let mut head = [0; 12];
        self.0.read_exact(&mut head).unwrap();
        let head = words(&head);
        let mut payload = vec![0; head[2] as usize];
        self.0.read_exact(&mut payload).unwrap();
        (head[0], words(&payload))
    }

    fn reply(&mut self, request: u32, payload: &[u8]) {
        let head = [request, 4, payload.len() as u32];
        let mut bytes: Vec<u8> = head.iter().flat_map(|word| word.to_ne_bytes()).collect();
        bytes.extend(payload);
        self.0.write_all(&bytes).unwrap();
    }
}

/// A device whose display takes dma-bufs and all modifiers, with a texture of 64 x 32 whose first row is
/// the lower one.
fn sharing() -> (Gpu, Viewer) {
    let output = OutputConfig {
        size: Size::new(640, 480),
        refresh_hz: 60,
    };
    let display = Arc::new(Display::new(vec![output; 2]).with_dmabufs());
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    display.attach_socket(ours).unwrap();
    let mut viewer = Viewer(theirs);
    assert_eq!(viewer.message().0, 1);
    viewer.reply(1, &2_u64.to_ne_bytes());
    assert_eq!(viewer.message(), (2, vec![2, 0]));
    while !display.takes_dmabufs() {
        thread::yield_now();
    }
    let gpu = Gpu::on(display, Limits::default(), false);
    let fd = memfd_create(c"nosnoop-test", MemfdFlags::CLOEXEC).unwrap();
    gpu.fake.with(|script| script.picture = Some(fd));
    let create = Create3d {
        flags: 0,
        ..texture(1, 64, 32)
    };
    gpu.create(&create).unwrap();
    gpu.calls();
    (gpu, viewer)
}

impl Gpu {
    fn show(&self, rect: [u32; 4], resource: u32) {
        let [x, y, width, height] = rect;
        let words = [x, y, width, height, 0, resource];
        assert_eq!(self.bench.run(cmd::SET_SCANOUT, &words), OK);
    }

    fn flush(&self, rect: [u32; 4]) {
        let [x, y, width, height] = rect;
        let words = [x, y, width, height, 1, 0];
        assert_eq!(self.bench.run(cmd::RESOURCE_FLUSH, &words), OK);
    }
}

#[test]
fn a_picture_is_shown_without_reading_it() {
    let (gpu, mut viewer) = sharing();
    gpu.show([0, 0, 60, 30], 1);
    assert_eq!(gpu.calls(), [Call::ExportPicture(id(1))]);
    let modifier = [MODIFIER as u32, (MODIFIER >> 32) as u32];
    let mut expected = vec![0, 0, 0, 60, 30, 64, 32, STRIDE, 0, FOURCC];
    expected.extend(modifier);
    assert_eq!(viewer.message(), (12, expected));
    gpu.flush([10, 10, 54, 22]);
    assert_eq!(gpu.calls(), [Call::Flush]);
    assert_eq!(viewer.message(), (10, vec![0, 10, 10, 50, 20]));
    viewer.reply(10, &[]);
    // The resource goes while it is shown.
    assert_eq!(gpu.unref(1), OK);
    assert_eq!(viewer.message(), (9, vec![0; 10]));
    assert_eq!(viewer.message(), (7, vec![0, 0, 0]));
}

#[test]
fn what_cannot_be_shared_is_read() {
    let (gpu, mut viewer) = sharing();
    // The message has no place for where the part begins.
    gpu.show([1, 0, 60, 30], 1);
    assert_eq!(gpu.calls(), []);
    assert_eq!(viewer.message(), (7, vec![0, 60, 30]));
    gpu.fake.with(|script| script.picture = None);
    gpu.show([0, 0, 60, 30], 1);
    assert_eq!(gpu.calls(), [Call::ExportPicture(id(1))]);
    gpu.flush([3, 4, 5, 6]);
    let part = Rect::new(3, 4, 5, 6);
    assert_eq!(gpu.calls(), [Call::Flush, Call::Read(id(1), part)]);
    let (request, payload) = viewer.message();
    assert_eq!((request, &payload[..5]), (8, &[0, 3, 4, 5, 6][..]));
}

#[test]
fn when_the_display_goes_the_whole_picture_is_read_once() {
    let (gpu, viewer) = sharing();
    gpu.show([0, 0, 60, 30], 1);
    drop(viewer);
    while gpu.bench.device.display().takes_dmabufs() {
        thread::yield_now();
    }
    gpu.calls();
    gpu.flush([3, 4, 5, 6]);
    gpu.flush([3, 4, 5, 6]);
    let [whole, part] = [Rect::new(0, 0, 60, 30), Rect::new(3, 4, 5, 6)];
    let expected = [whole, part].map(|rect| Call::Read(id(1), rect));
    assert_eq!(gpu.calls(), expected);
}
