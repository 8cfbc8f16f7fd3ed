//! The thread behind a display: reads messages, answers requests.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::skim::{MESSAGE_HEADER, Skimmer};
use super::state::kind;
use super::{Answer, DisplayConfig, Shared};
use crate::frontend::message::{FLAG_REPLY, u32_at};
use crate::frontend::response::{DISPLAY_INFO, EDID, HEADER, resp};

/// Largest payload believed: a full update of the largest picture tests use.
const MAX_PAYLOAD: usize = 256 << 20;
/// How much is read at once. Small enough that a stopped display stops soon.
const READ_STEP: usize = 64 << 10;
/// The same of a display that only counts: no more than stays in a processor's own cache.
const SKIM_STEP: usize = 256 << 10;

/// A reply that goes out at a later time.
struct Due {
    at: Instant,
    bytes: Vec<u8>,
}

/// Runs until the daemon or the handle closes.
pub(super) fn run(shared: &Shared, mut socket: UnixStream, wake: &OwnedFd) {
    let mut inbox = Vec::new();
    let mut due: Vec<Due> = Vec::new();
    let mut skimmer = shared.lock().config.discard.then(Skimmer::default);
    let mut chunk = vec![0; skimmer.as_ref().map_or(READ_STEP, |_| SKIM_STEP)];
    loop {
        let (reading, closing) = {
            let inner = shared.lock();
            (inner.reading, inner.closing)
        };
        if closing {
            return;
        }
        due.retain(|reply| {
            let later = reply.at > Instant::now();
            if !later {
                send(&mut socket, &reply.bytes);
            }
            later
        });
        let next = due.iter().map(|reply| reply.at).min();
        if !wait(&socket, wake, reading, next) || !reading {
            continue;
        }
        let count = match socket.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        let read = &chunk[..count];
        let goes_on = if let Some(skimmer) = &mut skimmer {
            skimmer.feed(read, |message| {
                let (request, head) = (message.request, message.head());
                shared.lock().state.count(request, head, message.size);
                answer(shared, &mut socket, &mut due, request, head)
            })
        } else {
            inbox.extend_from_slice(read);
            handle_all(shared, &mut socket, &mut due, &mut inbox)
        };
        if !goes_on {
            break;
        }
    }
    note_closed(shared);
}

/// Applies and answers every whole message; false when the socket is to be closed.
fn handle_all(
    shared: &Shared,
    socket: &mut UnixStream,
    due: &mut Vec<Due>,
    inbox: &mut Vec<u8>,
) -> bool {
    while let Some((request, flags, payload)) = next_message(shared, inbox) {
        shared.lock().state.apply(request, flags, &payload);
        if !answer(shared, socket, due, request, &payload) {
            return false;
        }
    }
    true
}

fn note_closed(shared: &Shared) {
    shared.lock().state.closed = true;
    shared.changed.notify_all();
}

/// Waits for the socket (when reading), the wake event or the next due reply; true when the socket
/// is readable.
fn wait(socket: &UnixStream, wake: &OwnedFd, reading: bool, next: Option<Instant>) -> bool {
    let interest = if reading {
        PollFlags::IN
    } else {
        PollFlags::empty()
    };
    let mut fds = [
        PollFd::from_borrowed_fd(wake.as_fd(), PollFlags::IN),
        PollFd::from_borrowed_fd(socket.as_fd(), interest),
    ];
    // A stopped display must not spin on a hang-up: leave the socket out altogether.
    let fds = if reading { &mut fds[..] } else { &mut fds[..1] };
    let left = next.map(|at| at.saturating_duration_since(Instant::now()));
    let timeout = left.and_then(|left| Timespec::try_from(left + Duration::from_millis(1)).ok());
    if poll(fds, timeout.as_ref()).is_err() {
        return false;
    }
    if !fds[0].revents().is_empty() {
        let _ = rustix::io::read(wake, &mut [0_u8; 8]);
    }
    fds.get(1).is_some_and(|fd| !fd.revents().is_empty())
}

fn next_message(shared: &Shared, inbox: &mut Vec<u8>) -> Option<(u32, u32, Vec<u8>)> {
    if inbox.len() < MESSAGE_HEADER {
        return None;
    }
    let (request, flags) = (u32_at(inbox, 0), u32_at(inbox, 4));
    let size = u32_at(inbox, 8) as usize;
    if size > MAX_PAYLOAD {
        let line = format!("request {request} claims {size} bytes");
        shared.lock().state.violations.push(line);
        inbox.clear();
        return None;
    }
    if inbox.len() < MESSAGE_HEADER + size {
        inbox.reserve(MESSAGE_HEADER + size - inbox.len());
        return None;
    }
    let payload = inbox[MESSAGE_HEADER..MESSAGE_HEADER + size].to_vec();
    inbox.drain(..MESSAGE_HEADER + size);
    Some((request, flags, payload))
}

/// Answers a message; false when the socket is to be closed.
fn answer(
    shared: &Shared,
    socket: &mut UnixStream,
    due: &mut Vec<Due>,
    request: u32,
    payload: &[u8],
) -> bool {
    let (reply, answer) = {
        let inner = shared.lock();
        let answer = inner.config.answers.get(&request);
        let answer = answer.cloned().unwrap_or_default();
        (reply_to(&inner.config, request, payload), answer)
    };
    shared.changed.notify_all();
    let Some(reply) = reply else {
        return answer != Answer::Close;
    };
    match answer {
        Answer::Now => send(socket, &message(request, &reply)),
        Answer::Never => {}
        Answer::Late(pause) => {
            due.push(Due {
                at: Instant::now() + pause,
                bytes: message(request, &reply),
            });
        }
        Answer::Raw(bytes) => send(socket, &bytes),
        Answer::Close => return false,
    }
    true
}

/// The payload of the reply, for requests that have one.
fn reply_to(config: &DisplayConfig, request: u32, payload: &[u8]) -> Option<Vec<u8>> {
    match request {
        kind::GET_PROTOCOL_FEATURES => Some(config.features.to_ne_bytes().to_vec()),
        kind::GET_DISPLAY_INFO => {
            let mut bytes = vec![0; DISPLAY_INFO];
            bytes[..4].copy_from_slice(&resp::OK_DISPLAY_INFO.to_le_bytes());
            for (at, one) in config.displays.iter().enumerate().take(16) {
                let r = one.rect;
                let fields = [
                    r.x,
                    r.y,
                    r.width,
                    r.height,
                    u32::from(one.enabled),
                    one.flags,
                ];
                for (n, field) in fields.iter().enumerate() {
                    let start = HEADER + 24 * at + 4 * n;
                    bytes[start..start + 4].copy_from_slice(&field.to_le_bytes());
                }
            }
            Some(bytes)
        }
        kind::GET_EDID => {
            let empty = Vec::new();
            let scanout = if payload.len() == 4 {
                u32_at(payload, 0) as usize
            } else {
                0
            };
            let edid = config.edids.get(scanout).unwrap_or(&empty);
            let mut bytes = vec![0; EDID];
            bytes[..4].copy_from_slice(&resp::OK_EDID.to_le_bytes());
            bytes[HEADER..HEADER + 4].copy_from_slice(&(edid.len() as u32).to_le_bytes());
            bytes[HEADER + 8..HEADER + 8 + edid.len()].copy_from_slice(edid);
            Some(bytes)
        }
        _ => None,
    }
}

/// A reply as it goes over the socket.
fn message(request: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MESSAGE_HEADER + payload.len());
    for field in [request, FLAG_REPLY, payload.len() as u32] {
        bytes.extend(field.to_ne_bytes());
    }
    bytes.extend_from_slice(payload);
    bytes
}

/// Sends bytes; a daemon that is gone shows at the next read.
fn send(socket: &mut UnixStream, bytes: &[u8]) {
    let _ = socket.write_all(bytes);
}
