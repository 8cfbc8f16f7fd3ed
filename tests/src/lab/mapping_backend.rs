//! A vhost-user backend that does nothing but ask for mappings: the other end of QEMU's SHMEM_MAP
//! and SHMEM_UNMAP (QEMU docs/interop/vhost-user.rst, "Back-end message types").
//!
//! It answers QEMU's messages with just enough for a device to come up. What it asks for is up to
//! the caller, also what our daemon never sends.

use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;

use crate::frontend::error::{Error, Result, patience};
use crate::frontend::message::{
    FLAG_NEED_REPLY, FLAG_REPLY, FLAG_VERSION, Header, Request, feature, protocol, u64_at,
};
use crate::frontend::shmem::{FLAG_WRITABLE, HOST_VISIBLE, SHMEM_MAP, SHMEM_UNMAP};
use crate::frontend::vhost_user::VhostUser;

/// Bytes of the shared-memory region, as in [`OPTIONS`](super::blob::OPTIONS).
pub const REGION: u64 = 8 << 30;

/// The protocol features that our daemon offers with a shared-memory region and QEMU needs here.
pub const FEATURES: u64 = protocol::MQ
    | protocol::REPLY_ACK
    | protocol::BACKEND_REQ
    | protocol::CONFIG
    | protocol::CONFIGURE_MEM_SLOTS
    | protocol::SHMEM;

/// Memory regions that the backend takes: as many as our daemon.
const MEM_SLOTS: u64 = 509;

/// What a request says, field by field as in `VhostUserMMap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Id of the shared-memory region.
    pub shmid: u8,
    /// Offset in the file, bytes.
    pub fd_offset: u64,
    /// Offset in the region, bytes.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// Bit 0: the guest may write.
    pub flags: u64,
}

impl Mapping {
    /// The first `len` bytes of a file at `offset` in the right region, for reading and writing.
    #[must_use]
    pub fn new(offset: u64, len: u64) -> Self {
        Self {
            shmid: HOST_VISIBLE,
            fd_offset: 0,
            offset,
            len,
            flags: FLAG_WRITABLE,
        }
    }

    fn to_bytes(self) -> Vec<u8> {
        let mut bytes = vec![self.shmid, 0, 0, 0, 0, 0, 0, 0];
        for field in [self.fd_offset, self.offset, self.len, self.flags] {
            bytes.extend(field.to_ne_bytes());
        }
        bytes
    }
}

/// The backend of one QEMU.
#[derive(Debug)]
pub struct MappingBackend {
    requests: VhostUser,
}

impl MappingBackend {
    /// Serves QEMU's messages from `socket` in a thread of its own, which ends with QEMU. Returns
    /// when QEMU has sent the socket for the backend's requests. `features` is what is offered.
    ///
    /// # Errors
    /// [`Error::Timeout`] if it sends none, [`Error::Closed`] when it goes.
    pub fn start(socket: UnixStream, features: u64) -> Result<Self> {
        let (sender, sent) = channel();
        thread::spawn(move || serve(&VhostUser::over(socket), features, &sender));
        let awaited = "QEMU's socket for the backend's requests".to_owned();
        match sent.recv_timeout(patience()) {
            Ok(requests) => Ok(Self { requests }),
            Err(RecvTimeoutError::Disconnected) => {
                Err(Error::Closed(format!("waiting for {awaited}")))
            }
            Err(RecvTimeoutError::Timeout) => Err(Error::Timeout {
                awaited,
                waited: patience(),
            }),
        }
    }

    /// Asks for a mapping of `fd` and returns the acknowledgement: 0 for success.
    ///
    /// # Errors
    /// [`Error::Timeout`] if none comes, [`Error::Closed`] or [`Error::Io`] when QEMU has gone.
    pub fn map(&self, mapping: Mapping, fd: Option<BorrowedFd<'_>>) -> Result<u64> {
        self.ask(SHMEM_MAP, mapping, fd)
    }

    /// Asks to unmap a range and returns the acknowledgement: 0 for success.
    ///
    /// # Errors
    /// As [`Self::map`].
    pub fn unmap(&self, mapping: Mapping) -> Result<u64> {
        self.ask(SHMEM_UNMAP, mapping, None)
    }

    fn ask(&self, request: u32, mapping: Mapping, fd: Option<BorrowedFd<'_>>) -> Result<u64> {
        let payload = mapping.to_bytes();
        let header = Header {
            request,
            flags: FLAG_VERSION | FLAG_NEED_REPLY,
            size: payload.len() as u32,
        };
        self.requests.send_raw(header, &payload, fd.as_slice())?;
        let (reply, payload) = self.requests.receive("QEMU's acknowledgement")?;
        let expected = Header {
            request,
            flags: FLAG_VERSION | FLAG_REPLY,
            size: 8,
        };
        if reply == expected {
            return Ok(u64_at(&payload, 0));
        }
        let what = format!("{reply:?} came as the acknowledgement of {header:?}");
        Err(Error::Protocol(what))
    }
}

/// Answers QEMU until it has gone.
fn serve(qemu: &VhostUser, features: u64, requests: &Sender<VhostUser>) {
    loop {
        let (header, _payload, mut fds) = match qemu.receive_with_fds("a message of QEMU") {
            Ok(message) => message,
            Err(error) if error.is_timeout() => continue,
            Err(_) => return,
        };
        if header.request == Request::SetBackendReqFd.code()
            && let Some(socket) = fds.pop()
        {
            // Nobody waits for a second one.
            let _ = requests.send(VhostUser::over(UnixStream::from(socket)));
        }
        let answer = match answer(header.request, features) {
            Some(answer) => answer,
            None if header.flags & FLAG_NEED_REPLY != 0 => vec![0; 8],
            None => continue,
        };
        let reply = Header {
            request: header.request,
            flags: FLAG_VERSION | FLAG_REPLY,
            size: answer.len() as u32,
        };
        if qemu.send_raw(reply, &answer, &[]).is_err() {
            return;
        }
    }
}

/// The payload of the reply to a request that has one of its own.
fn answer(request: u32, features: u64) -> Option<Vec<u8>> {
    let number = |value: u64| Some(value.to_ne_bytes().to_vec());
    let is = |known: Request| request == known.code();
    if is(Request::GetFeatures) {
        number(feature::PROTOCOL_FEATURES | feature::VERSION_1)
    } else if is(Request::GetProtocolFeatures) {
        number(features)
    } else if is(Request::GetQueueNum) {
        number(2)
    } else if is(Request::GetMaxMemSlots) {
        number(MEM_SLOTS)
    } else if is(Request::GetShmemConfig) {
        // The number of regions, padding, and the size of each possible one.
        let mut answer = [1_u32.to_ne_bytes(), [0; 4]].concat();
        let sizes = (0..=u8::MAX).map(|id| if id == HOST_VISIBLE { REGION } else { 0 });
        answer.extend(sizes.flat_map(u64::to_ne_bytes));
        Some(answer)
    } else {
        None
    }
}
