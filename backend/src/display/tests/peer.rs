//! The front-end's end of a display socket.

use std::collections::BTreeMap;
use std::io::{ErrorKind, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use nosnoop_protocol::edid::Edid;
use nosnoop_protocol::geometry::{Rect, Size};
use nosnoop_protocol::reply::DisplayInfo;
use nosnoop_protocol::wire::{
    VirtioGpuDisplayOne, VirtioGpuRespDisplayInfo, VirtioGpuRespEdid, resp,
};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use zerocopy::{FromZeros, IntoBytes};

use super::PATIENCE;

pub(super) struct Peer {
    socket: UnixStream,
    /// Bytes that came in and are no whole message yet.
    partial: Vec<u8>,
    pub(super) frames: BTreeMap<u32, Frame>,
    /// The descriptors that came with messages.
    pub(super) fds: Vec<OwnedFd>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) request: u32,
    pub(super) payload: Vec<u8>,
}

/// A scanout as the peer shows it: black until updates come.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) size: Size,
    pub(super) pixels: Vec<[u8; 4]>,
}

/// Numbers as the wire has them.
pub(super) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

impl Message {
    pub(super) fn new(request: u32, payload: &[u32]) -> Self {
        Self {
            request,
            payload: words(payload),
        }
    }
}

impl Frame {
    pub(super) fn black(size: Size) -> Self {
        Self {
            size,
            pixels: vec![[0; 4]; (size.width * size.height) as usize],
        }
    }

    pub(super) fn draw(&mut self, rect: Rect, pixel: impl Fn(u32, u32) -> [u8; 4]) {
        assert!(
            rect.fits_in(self.size),
            "{rect:?} is not within {:?}",
            self.size
        );
        for y in rect.y..rect.y + rect.height {
            for x in rect.x..rect.x + rect.width {
                self.pixels[(y * self.size.width + x) as usize] = pixel(x, y);
            }
        }
    }
}

impl Peer {
    pub(super) fn pair() -> (UnixStream, Self) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_read_timeout(Some(PATIENCE)).unwrap();
        theirs.set_write_timeout(Some(PATIENCE)).unwrap();
        (
            ours,
            Self {
                socket: theirs,
                partial: Vec::new(),
                frames: BTreeMap::new(),
                fds: Vec::new(),
            },
        )
    }

    /// The next message, as it comes.
    pub(super) fn message(&mut self) -> Message {
        loop {
            if let Some(message) = self.take_message() {
                return message;
            }
            assert!(self.read_some(1 << 20), "the display closed the socket");
        }
    }

    /// Reads up to `bytes`; false at the end.
    pub(super) fn read_some(&mut self, bytes: usize) -> bool {
        let mut buffer = vec![0; bytes];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut with = RecvAncillaryBuffer::new(&mut space);
        let pieces = &mut [IoSliceMut::new(&mut buffer)];
        let received = recvmsg(&self.socket, pieces, &mut with, RecvFlags::empty()).unwrap();
        for message in with.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        self.partial.extend_from_slice(&buffer[..received.bytes]);
        received.bytes > 0
    }

    /// Reads up to `bytes` of what is there now and shows the messages that are whole; returns how
    /// many were there.
    pub(super) fn read_now(&mut self, bytes: usize) -> usize {
        self.socket.set_nonblocking(true).unwrap();
        let mut buffer = vec![0; bytes];
        let count = match self.socket.read(&mut buffer) {
            Ok(0) => panic!("the display closed the socket"),
            Ok(count) => count,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                0
            }
        };
        self.partial.extend_from_slice(&buffer[..count]);
        self.socket.set_nonblocking(false).unwrap();
        while let Some(message) = self.take_message() {
            self.show(&message);
        }
        count
    }

    fn take_message(&mut self) -> Option<Message> {
        let word = |at: usize| Some(u32::from_ne_bytes(*self.partial.get(at..)?.first_chunk()?));
        let (request, flags, size) = (word(0)?, word(4)?, word(8)? as usize);
        assert_eq!(flags, 0);
        let payload = self.partial.get(12..12 + size)?.to_vec();
        self.partial.drain(..12 + size);
        Some(Message { request, payload })
    }

    pub(super) fn expect(&mut self, request: u32, payload: &[u32]) {
        assert_eq!(self.message(), Message::new(request, payload));
    }

    /// Plays the handshake and returns what the display chose.
    pub(super) fn handshake(&mut self, offered: u64) -> u64 {
        self.expect(1, &[]);
        self.reply(1, &offered.to_ne_bytes());
        let chosen = self.message();
        assert_eq!(chosen.request, 2);
        u64::from_ne_bytes(chosen.payload.try_into().unwrap())
    }

    pub(super) fn reply(&mut self, request: u32, payload: &[u8]) {
        let mut bytes = words(&[request, 4, payload.len() as u32]);
        bytes.extend_from_slice(payload);
        self.send(&bytes);
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    pub(super) fn reply_info(&mut self, info: &DisplayInfo) {
        let mut reply = VirtioGpuRespDisplayInfo::new_zeroed();
        reply.hdr.r#type = resp::OK_DISPLAY_INFO.into();
        reply.pmodes = info.modes.map(|mode| VirtioGpuDisplayOne {
            r: mode.rect.into(),
            enabled: u32::from(mode.enabled).into(),
            flags: mode.flags.into(),
        });
        self.reply(3, reply.as_bytes());
    }

    pub(super) fn reply_edid(&mut self, edid: &Edid) {
        let mut reply = VirtioGpuRespEdid::new_zeroed();
        reply.hdr.r#type = resp::OK_EDID.into();
        reply.size = (edid.as_bytes().len() as u32).into();
        reply.edid[..edid.as_bytes().len()].copy_from_slice(edid.as_bytes());
        self.reply(11, reply.as_bytes());
    }

    /// Shows a message as QEMU would; panics where QEMU would crash.
    pub(super) fn show(&mut self, message: &Message) {
        let (words, pixels) = match message.request {
            7 => (message.payload.as_slice(), &[][..]),
            8 => message.payload.split_at(20),
            _ => return,
        };
        let words: Vec<_> = words
            .as_chunks()
            .0
            .iter()
            .map(|word| u32::from_ne_bytes(*word))
            .collect();
        match words[..] {
            [scanout, 0, 0] => {
                self.frames.remove(&scanout);
            }
            [scanout, width, height] => {
                self.frames
                    .insert(scanout, Frame::black(Size { width, height }));
            }
            [scanout, x, y, width, height] => {
                let frame = self
                    .frames
                    .get_mut(&scanout)
                    .expect("an update of an unknown scanout");
                assert_eq!(pixels.len(), (width * height * 4) as usize);
                let pixels = pixels.as_chunks::<4>().0;
                let rect = Rect {
                    x,
                    y,
                    width,
                    height,
                };
                frame.draw(rect, |at_x, at_y| {
                    pixels[((at_y - y) * width + at_x - x) as usize]
                });
            }
            _ => panic!("a message of wrong size: {}", message.request),
        }
    }

    /// Shows messages until all frames are as expected.
    pub(super) fn show_until(&mut self, expected: &BTreeMap<u32, Frame>) {
        while self.frames != *expected {
            let message = self.message();
            self.show(&message);
        }
    }

    /// Reads to the end.
    pub(super) fn drain(&mut self) {
        loop {
            match self.socket.read(&mut [0; 4096]) {
                Ok(0) => return,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
                other => other.unwrap(),
            };
        }
    }
}
