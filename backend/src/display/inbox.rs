//! What the sender reads: replies of the front-end, checked before they are believed.

use std::io;
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use zerocopy::FromBytes;

use super::requests::Requests;
use super::wire::{self, FLAG_REPLY, Header, MAX_REPLY, request};

const HEADER: usize = size_of::<Header>();

/// Why a display socket is given up.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("the front-end closed it")]
    Closed,
    #[error("it fails: {0}")]
    Io(#[from] io::Error),
    #[error("unexpected message: request {request}, flags {flags:#x}, {size} bytes")]
    Unexpected { request: u32, flags: u32, size: u32 },
    #[error("a reply to request {request} has {size} bytes where {expected} are due")]
    WrongSize {
        request: u32,
        size: u32,
        expected: usize,
    },
}

/// A reply as far as it has come in.
pub(super) struct Inbox {
    buffer: [u8; HEADER + MAX_REPLY],
    filled: usize,
}

impl Inbox {
    pub(super) const fn new() -> Self {
        Self {
            buffer: [0; HEADER + MAX_REPLY],
            filled: 0,
        }
    }

    /// Reads what is there, at most one reply.
    ///
    /// # Errors
    /// The socket is at its end or broken, or the front-end sends what it must not.
    pub(super) fn read(
        &mut self,
        socket: &UnixStream,
        requests: &Requests,
    ) -> Result<(), LinkError> {
        if self.filled < HEADER {
            self.fill(socket, HEADER)?;
        }
        let Ok((header, _)) = Header::read_from_prefix(&self.buffer) else {
            return Ok(());
        };
        if self.filled < HEADER {
            return Ok(());
        }
        let end = HEADER.saturating_add(check(header, requests)?);
        if self.filled < end {
            self.fill(socket, end)?;
        }
        if self.filled >= end {
            self.filled = 0;
            deliver(
                header,
                self.buffer.get(HEADER..end).unwrap_or_default(),
                requests,
            );
        }
        Ok(())
    }

    /// Reads until `filled` is `end`, if that much is there.
    fn fill(&mut self, socket: &UnixStream, end: usize) -> Result<(), LinkError> {
        let Some(space) = self.buffer.get_mut(self.filled..end) else {
            return Ok(());
        };
        match recv(socket, space, RecvFlags::DONTWAIT) {
            Ok((_, 0)) | Err(Errno::CONNRESET | Errno::PIPE) => Err(LinkError::Closed),
            Ok((_, bytes)) => {
                self.filled = self.filled.saturating_add(bytes);
                Ok(())
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }
}

/// Bytes that follow the header, for a reply that is due.
fn check(header: Header, requests: &Requests) -> Result<usize, LinkError> {
    let Header {
        request,
        flags,
        size,
    } = header;
    let expected = requests
        .expected(request)
        .filter(|_| flags & FLAG_REPLY != 0);
    let Some(expected) = expected else {
        return Err(LinkError::Unexpected {
            request,
            flags,
            size,
        });
    };
    if usize::try_from(size) == Ok(expected) && expected <= MAX_REPLY {
        Ok(expected)
    } else {
        Err(LinkError::WrongSize {
            request,
            size,
            expected,
        })
    }
}

fn deliver(header: Header, payload: &[u8], requests: &Requests) {
    match header.request {
        request::GET_PROTOCOL_FEATURES => {
            requests.features_offered(u64::read_from_bytes(payload).unwrap_or(0));
        }
        request::GET_DISPLAY_INFO => requests.display_info(wire::display_info(payload)),
        request::GET_EDID => requests.edid(wire::edid(payload)),
        request::DMABUF_UPDATE => requests.presented(),
        // `check` lets nothing else pass.
        _ => {}
    }
}
