//! What the sender writes: chooses the next message and gets it out piece by piece.

use std::io::{self, IoSlice};
use std::os::unix::net::UnixStream;

use nosnoop_protocol::ids::{MAX_SCANOUTS, ScanoutId};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use zerocopy::{Immutable, IntoBytes};

use super::cursor::Message;
use super::link::{Link, Slot, Slots};
use super::requests::Request;
use super::screen::{Screen, Update};
use super::wire::{self, Header, request};
use crate::sync::lock;

/// Pieces of one `sendmsg`: the system's limit (`UIO_MAXIOV`).
const MAX_PIECES: usize = 1024;
/// Bytes of one `sendmsg`. A flush of the guest waits for a call in progress, which goes on for as
/// long as the display makes room: without a bound that can be a whole picture.
const MAX_CALL: usize = 256 << 10;
/// Stands in for pixels of a picture that is gone.
static BLACK: [u8; 64 << 10] = [0; 64 << 10];

/// What came of a [`Outbox::step`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Something was sent; there may be more.
    Sent,
    /// Nothing to send until the link is signalled.
    Idle,
    /// The socket is full.
    Full,
}

/// The message that is being sent.
pub(super) struct Outbox {
    /// The message without the pixels of an `UPDATE`.
    head: Vec<u8>,
    pixels: Option<(ScanoutId, Update)>,
    /// Bytes sent of head and pixels.
    sent: usize,
    /// Where the search for the next message begins, so that each scanout has its turn.
    first: usize,
    /// Whether a cursor goes before a picture, so that neither starves the other.
    cursor_first: bool,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self {
            head: Vec::with_capacity(wire::MAX_HEAD),
            pixels: None,
            sent: 0,
            first: 0,
            cursor_first: true,
        }
    }

    /// Sends one piece without waiting.
    ///
    /// # Errors
    /// The socket is broken.
    pub(super) fn step(
        &mut self,
        socket: &UnixStream,
        link: &Link,
        slots: &Slots,
    ) -> io::Result<Progress> {
        link.rearm();
        if self.head.is_empty() && !self.choose(link, slots) {
            return Ok(Progress::Idle);
        }
        let sent = match self.pixels {
            None => {
                let rest = self.head.get(self.sent..).unwrap_or_default();
                send(socket, &[IoSlice::new(rest)])
            }
            Some((id, update)) => {
                let Some(slot) = slots.get(id) else {
                    return Ok(Progress::Idle);
                };
                self.send_pixels(socket, &slot.screen(), update)
            }
        };
        match sent {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Ok(bytes) => {
                self.sent = self.sent.saturating_add(bytes);
                if self.sent >= self.length() {
                    self.head.clear();
                    self.pixels = None;
                    self.sent = 0;
                }
                Ok(Progress::Sent)
            }
            Err(Errno::AGAIN) => Ok(Progress::Full),
            Err(Errno::INTR) => Ok(Progress::Sent),
            Err(error) => Err(error.into()),
        }
    }

    fn length(&self) -> usize {
        let pixels = self.pixels.map_or(0, |(_, update)| update.bytes);
        self.head.len().saturating_add(pixels)
    }

    /// Sends a piece of an `UPDATE` straight from the picture. What the guest flushed since the
    /// message began goes out with it, and again with the next message.
    fn send_pixels(
        &self,
        socket: &UnixStream,
        screen: &Screen,
        update: Update,
    ) -> Result<usize, Errno> {
        let head = self.head.get(self.sent..).unwrap_or_default();
        let skip = self.sent.saturating_sub(self.head.len());
        if screen.generation() == update.generation {
            send_pieces(socket, head, screen.pieces(update.rect, skip))
        } else {
            // The picture was replaced in mid-message: keep the promise made in its header.
            let left = update.bytes.saturating_sub(skip);
            let ends = (0..left)
                .step_by(BLACK.len())
                .map(|start| left.saturating_sub(start));
            let black = ends.map(|end| BLACK.get(..end.min(BLACK.len())).unwrap_or_default());
            send_pieces(socket, head, black)
        }
    }

    /// Begins the next message, if there is something to say.
    fn choose(&mut self, link: &Link, slots: &Slots) -> bool {
        if let Some(asked) = link.requests.take() {
            self.begin_request(asked);
            return true;
        }
        if !link.requests.is_settled() {
            return false;
        }
        // A size goes before all else: no message may refer to one that the display has not got.
        for (id, slot) in slots.iter() {
            if let Some(size) = slot.screen().take_announcement() {
                self.begin(request::SCANOUT, &wire::Scanout::new(id, size), &[], 0);
                return true;
            }
        }
        let found = (self.cursor_first && self.choose_cursor(slots))
            || self.choose_picture(slots)
            || self.choose_cursor(slots);
        if found {
            self.cursor_first = self.pixels.is_some();
        }
        found
    }

    fn choose_cursor(&mut self, slots: &Slots) -> bool {
        for (id, slot) in self.in_turn(slots) {
            let mut cursor = lock(&slot.cursor);
            match cursor.take(id) {
                None => continue,
                Some(Message::Shape(shape, argb)) => {
                    self.begin(request::CURSOR_UPDATE, &shape, argb, 0);
                }
                Some(Message::Move(pos)) => self.begin(request::CURSOR_POS, &pos, &[], 0),
                Some(Message::Hide(pos)) => self.begin(request::CURSOR_POS_HIDE, &pos, &[], 0),
            }
            self.first = id.index().saturating_add(1);
            return true;
        }
        false
    }

    fn choose_picture(&mut self, slots: &Slots) -> bool {
        for (id, slot) in self.in_turn(slots) {
            let mut screen = slot.screen();
            let Some(update) = screen.take_update() else {
                continue;
            };
            let head = wire::Update::new(id, update.rect);
            self.begin(request::UPDATE, &head, &[], update.bytes);
            self.pixels = Some((id, update));
            self.first = id.index().saturating_add(1);
            return true;
        }
        false
    }

    /// All scanouts, the one whose turn it is first.
    fn in_turn<'a>(
        &self,
        slots: &'a Slots,
    ) -> impl Iterator<Item = (ScanoutId, &'a Slot)> + use<'a> {
        let first = self.first.checked_rem(MAX_SCANOUTS).unwrap_or(0);
        slots.iter().skip(first).chain(slots.iter().take(first))
    }

    fn begin_request(&mut self, asked: Request) {
        match asked {
            Request::GetProtocolFeatures => {
                self.begin(request::GET_PROTOCOL_FEATURES, &(), &[], 0);
            }
            Request::SetProtocolFeatures(mask) => {
                self.begin(request::SET_PROTOCOL_FEATURES, &mask, &[], 0);
            }
            Request::GetDisplayInfo => self.begin(request::GET_DISPLAY_INFO, &(), &[], 0),
            Request::GetEdid(id) => self.begin(request::GET_EDID, &id.get(), &[], 0),
        }
    }

    /// Puts a message in `head`; `later` more bytes belong to it.
    fn begin<P: IntoBytes + Immutable>(
        &mut self,
        request: u32,
        payload: &P,
        more: &[u8],
        later: usize,
    ) {
        let payload = payload.as_bytes();
        let size = payload
            .len()
            .saturating_add(more.len())
            .saturating_add(later);
        // Held well below 2^32 by the bound on an update.
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        self.head.clear();
        self.head.extend_from_slice(
            Header {
                request,
                flags: 0,
                size,
            }
            .as_bytes(),
        );
        self.head.extend_from_slice(payload);
        self.head.extend_from_slice(more);
    }
}

/// Sends as many of the pieces as one call takes.
fn send_pieces<'a>(
    socket: &UnixStream,
    head: &'a [u8],
    pieces: impl Iterator<Item = &'a [u8]>,
) -> Result<usize, Errno> {
    let mut list = [IoSlice::new(&[]); MAX_PIECES];
    let mut count = 0_usize;
    let mut left = MAX_CALL;
    let pieces = std::iter::once(head)
        .filter(|head| !head.is_empty())
        .chain(pieces);
    for (entry, piece) in list.iter_mut().zip(pieces) {
        let piece = piece.get(..left).unwrap_or(piece);
        *entry = IoSlice::new(piece);
        count = count.saturating_add(1);
        left = left.saturating_sub(piece.len());
        if left == 0 {
            break;
        }
    }
    send(socket, list.get(..count).unwrap_or_default())
}

/// Whatever the state of the socket: no waiting, no SIGPIPE.
fn send(socket: &UnixStream, pieces: &[IoSlice<'_>]) -> Result<usize, Errno> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    sendmsg(socket, pieces, &mut SendAncillaryBuffer::default(), flags)
}
