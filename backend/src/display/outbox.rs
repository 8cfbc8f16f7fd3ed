//! What is written to the socket: chooses the next message and gets it out piece by piece.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, MutexGuard};

use nosnoop_protocol::ids::{MAX_SCANOUTS, ScanoutId};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use zerocopy::{Immutable, IntoBytes};

use super::cursor::Message;
use super::link::{Marks, Slot, Slots};
use super::requests::{Request, Requests};
use super::screen::{Announcement, Screen, Update};
use super::shared;
use super::wire::{self, Header, request};
use crate::sync::lock;

/// Pieces of one `sendmsg`: the system's limit (`UIO_MAXIOV`).
const MAX_PIECES: usize = 1024;
/// Bytes of one `sendmsg`. A flush of the guest waits for a call in progress, which goes on for as
/// long as the display makes room: without a bound that can be a whole picture.
const MAX_CALL: usize = 256 << 10;
/// Bytes of a message that the one who draws sends. Copying more takes longer than waking the sender,
/// which does it while the guest goes on.
const AT_ONCE: usize = 64 << 10;
/// Messages that the one who draws sends: more than one command makes, and not without end.
const MESSAGES_AT_ONCE: usize = 4;
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

/// How a screen is had: with or without waiting for it.
type Open = for<'a> fn(&'a Slot) -> Option<MutexGuard<'a, Screen>>;

/// The message that is being sent.
pub(super) struct Outbox {
    socket: Arc<UnixStream>,
    /// The message without the pixels of an `UPDATE`.
    head: Vec<u8>,
    pixels: Option<(ScanoutId, Update)>,
    /// What goes with the first byte.
    fd: Option<Arc<OwnedFd>>,
    /// Bytes sent of head and pixels.
    sent: usize,
    /// Where the search for the next message begins, so that each scanout has its turn.
    first: usize,
    /// Whether a cursor goes before a picture, so that neither starves the other.
    cursor_first: bool,
    /// A dma-buf has changed, and the display has not shown an earlier change yet.
    held: bool,
}

impl Outbox {
    pub(super) fn new(socket: Arc<UnixStream>) -> Self {
        Self {
            socket,
            head: Vec::with_capacity(wire::MAX_HEAD),
            pixels: None,
            fd: None,
            sent: 0,
            first: 0,
            cursor_first: true,
            held: false,
        }
    }

    /// Sends all there is, if that is not much and nobody else is at it; else a part, and false. What
    /// went wrong is left to the sender, which finds the same.
    pub(super) fn send_at_once(&mut self, requests: &Requests, slots: &Slots) -> bool {
        for _ in 0..MESSAGES_AT_ONCE {
            if !self.head.is_empty() {
                return false;
            }
            match self.choose(requests, slots, Slot::screen_now) {
                Some(true) if self.length() <= AT_ONCE => {}
                Some(begun) => return !begun,
                None => return false,
            }
            if self.send(slots, Slot::screen_now).is_err() {
                return false;
            }
        }
        false
    }

    /// Sends one piece without waiting for the socket.
    ///
    /// # Errors
    /// The socket is broken.
    pub(super) fn step(&mut self, requests: &Requests, slots: &Slots) -> io::Result<Progress> {
        let open: Open = |slot| Some(slot.screen());
        if self.head.is_empty() && self.choose(requests, slots, open) != Some(true) {
            return Ok(Progress::Idle);
        }
        self.send(slots, open)
    }

    /// Sends a piece of the message. [`Progress::Idle`]: its screen is not to be had.
    ///
    /// # Errors
    /// The socket is broken.
    fn send(&mut self, slots: &Slots, open: Open) -> io::Result<Progress> {
        let sent = match self.pixels {
            None => {
                let rest = self.head.get(self.sent..).unwrap_or_default();
                let fd = self.fd.as_deref();
                send(&self.socket, &[IoSlice::new(rest)], fd)
            }
            Some((id, update)) => {
                let Some(screen) = slots.get(id).and_then(open) else {
                    return Ok(Progress::Idle);
                };
                self.send_pixels(&screen, update)
            }
        };
        match sent {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Ok(bytes) => {
                self.sent = self.sent.saturating_add(bytes);
                self.fd = None;
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
    fn send_pixels(&self, screen: &Screen, update: Update) -> Result<usize, Errno> {
        let socket = &self.socket;
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

    /// Begins the next message, if there is something to say. `None`: a screen is not to be had.
    fn choose(&mut self, requests: &Requests, slots: &Slots, open: Open) -> Option<bool> {
        if let Some(asked) = requests.take() {
            self.begin_request(asked);
            return Some(true);
        }
        if !requests.is_settled() {
            return Some(false);
        }
        let marked = slots.take_marked();
        self.held = false;
        let begun = self.choose_of(marked, requests, slots, open);
        if begun != Some(false) || self.held {
            // There may be more.
            slots.mark(marked);
        }
        begun
    }

    fn choose_of(
        &mut self,
        marked: Marks,
        requests: &Requests,
        slots: &Slots,
        open: Open,
    ) -> Option<bool> {
        // A size goes before all else: no message may refer to one that the display has not got.
        for (id, slot) in slots.iter().filter(|(id, _)| marked.contain(*id)) {
            if let Some(announcement) = open(slot)?.take_announcement() {
                self.announce(id, announcement, requests);
                return Some(true);
            }
        }
        let found = (self.cursor_first && self.choose_cursor(marked, slots))
            || self.choose_shared(marked, requests, slots, open)?
            || self.choose_picture(marked, slots, open)?
            || self.choose_cursor(marked, slots);
        if found {
            self.cursor_first = self.pixels.is_some();
        }
        Some(found)
    }

    fn announce(&mut self, id: ScanoutId, announcement: Announcement, requests: &Requests) {
        match announcement {
            Announcement::Size(size) => {
                self.begin(request::SCANOUT, &wire::Scanout::new(id, size), &[], 0);
            }
            Announcement::Shared(size, buffer) => {
                let features = requests.features().unwrap_or(0);
                let (request, payload) = shared::announcement(id, size, &buffer, features);
                self.begin(request, &(), &payload, 0);
                self.fd = Some(buffer.fd);
            }
            Announcement::NotShared => {
                self.begin(request::DMABUF_SCANOUT, &shared::end(id), &[], 0);
            }
        }
    }

    fn choose_shared(
        &mut self,
        marked: Marks,
        requests: &Requests,
        slots: &Slots,
        open: Open,
    ) -> Option<bool> {
        for (id, slot) in self.in_turn(marked, slots) {
            let mut screen = open(slot)?;
            if !screen.has_shared_damage() {
                continue;
            }
            if !requests.begin_presenting() {
                self.held = true;
                return Some(false);
            }
            if let Some(damage) = screen.take_shared_damage() {
                let update = wire::Update::new(id, damage);
                self.begin(request::DMABUF_UPDATE, &update, &[], 0);
                self.first = id.index().saturating_add(1);
            }
            return Some(true);
        }
        Some(false)
    }

    fn choose_cursor(&mut self, marked: Marks, slots: &Slots) -> bool {
        for (id, slot) in self.in_turn(marked, slots) {
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

    fn choose_picture(&mut self, marked: Marks, slots: &Slots, open: Open) -> Option<bool> {
        for (id, slot) in self.in_turn(marked, slots) {
            let Some(update) = open(slot)?.take_update() else {
                continue;
            };
            let head = wire::Update::new(id, update.rect);
            self.begin(request::UPDATE, &head, &[], update.bytes);
            self.pixels = Some((id, update));
            self.first = id.index().saturating_add(1);
            return Some(true);
        }
        Some(false)
    }

    /// The marked scanouts, the one whose turn it is first.
    fn in_turn<'a>(
        &self,
        marked: Marks,
        slots: &'a Slots,
    ) -> impl Iterator<Item = (ScanoutId, &'a Slot)> + use<'a> {
        let first = self.first.checked_rem(MAX_SCANOUTS).unwrap_or(0);
        let all = slots.iter().skip(first).chain(slots.iter().take(first));
        all.filter(move |(id, _)| marked.contain(*id))
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
    send(socket, list.get(..count).unwrap_or_default(), None)
}

/// Whatever the state of the socket: no waiting, no SIGPIPE.
fn send(socket: &UnixStream, pieces: &[IoSlice<'_>], fd: Option<&OwnedFd>) -> Result<usize, Errno> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut with = SendAncillaryBuffer::new(&mut space);
    let fds = fd.map(|fd| [fd.as_fd()]);
    if let Some(fds) = &fds {
        with.push(SendAncillaryMessage::ScmRights(fds));
    }
    sendmsg(socket, pieces, &mut with, flags)
}
