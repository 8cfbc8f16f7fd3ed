//! The front-end's end of a vhost-user connection, written by hand.
//!
//! It sends what it is told to, also values no honest front-end sends, and it knows GPU_SET_SOCKET.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

use super::error::{Deadline, Error, Result, patience, wait_readable};
use super::message::{
    FLAG_NEED_REPLY, FLAG_REPLY, FLAG_VERSION, Header, MemoryRegion, Request, VRING_NO_FD,
    VringAddr, protocol, u32_at, u64_at, vring_state,
};

/// Most file descriptors one message may carry here (the specification's limit for a memory table).
const MAX_FDS: usize = 8;

/// A connected front-end.
#[derive(Debug)]
pub struct VhostUser {
    stream: UnixStream,
    patience: Duration,
    acks: bool,
}

impl VhostUser {
    /// Connects to a daemon's listening socket.
    ///
    /// # Errors
    /// [`Error::Io`] if nobody listens there.
    pub fn connect(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path)
            .map_err(|e| Error::io(format!("connect to {}", path.display()), e))?;
        Ok(Self::over(stream))
    }

    /// Speaks over an already connected socket.
    pub fn over(stream: UnixStream) -> Self {
        VhostUser {
            stream,
            patience: patience(),
            acks: false,
        }
    }

    /// Sets how long to wait for each reply.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Whether every request without a reply of its own is sent with NEED_REPLY and its
    /// acknowledgement awaited. Set by [`Self::set_protocol_features`] when REPLY_ACK is in it.
    pub fn set_acks(&mut self, on: bool) {
        self.acks = on;
    }

    /// Sends any header, payload and file descriptors; waits for nothing.
    ///
    /// # Errors
    /// [`Error::Io`] if the socket does not take the message.
    pub fn send_raw(&self, header: Header, payload: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        let mut message = header.to_bytes().to_vec();
        message.extend_from_slice(payload);
        self.send_bytes(&message, fds)
    }

    /// Sends any bytes at all.
    ///
    /// # Errors
    /// [`Error::Io`] if the socket does not take them.
    pub fn send_bytes(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(Error::Protocol(format!(
                "{} fds do not fit in a message",
                fds.len()
            )));
        }
        let mut sent = 0;
        while sent < bytes.len() {
            let part = [IoSlice::new(&bytes[sent..])];
            match rustix::net::sendmsg(&self.stream, &part, &mut control, SendFlags::NOSIGNAL) {
                Ok(count) => sent += count,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(Error::io("send a vhost-user message", error)),
            }
            control.clear();
        }
        Ok(())
    }

    /// Reads one whole message.
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::Closed`] or [`Error::Io`].
    pub fn receive(&self, awaited: &str) -> Result<(Header, Vec<u8>)> {
        let (header, payload, _fds) = self.receive_with_fds(awaited)?;
        Ok((header, payload))
    }

    /// Reads one whole message and the file descriptors that came with it.
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::Closed`] or [`Error::Io`].
    pub fn receive_with_fds(&self, awaited: &str) -> Result<(Header, Vec<u8>, Vec<OwnedFd>)> {
        let deadline = Deadline::after(self.patience);
        let mut fds = Vec::new();
        let mut head = [0; Header::SIZE];
        self.read_exact(&mut head, &mut fds, &deadline, awaited)?;
        let header = Header::from_bytes(head);
        let mut payload = vec![0; header.size as usize];
        self.read_exact(&mut payload, &mut fds, &deadline, awaited)?;
        Ok((header, payload, fds))
    }

    fn read_exact(
        &self,
        mut out: &mut [u8],
        fds: &mut Vec<OwnedFd>,
        deadline: &Deadline,
        awaited: &str,
    ) -> Result<()> {
        while !out.is_empty() {
            wait_readable([self.stream.as_fd()], deadline, awaited)?;
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut part = [std::io::IoSliceMut::new(out)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            match rustix::net::recvmsg(&self.stream, &mut part, &mut control, flags) {
                Ok(got) if got.bytes == 0 => {
                    return Err(Error::Closed(format!("waiting for {awaited}")));
                }
                Ok(got) => out = &mut out[got.bytes..],
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::CONNRESET) => {
                    return Err(Error::Closed(format!("waiting for {awaited}")));
                }
                Err(error) => return Err(Error::io(format!("receive {awaited}"), error)),
            }
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = message {
                    fds.extend(rights);
                }
            }
        }
        Ok(())
    }

    /// Sends a request that has a reply of its own, and returns the reply's payload.
    ///
    /// # Errors
    /// As [`Self::receive`]; [`Error::Protocol`] for a reply to something else.
    pub fn ask(&self, request: Request, payload: &[u8]) -> Result<Vec<u8>> {
        let header = header(request.code(), FLAG_VERSION, payload);
        self.send_raw(header, payload, &[])?;
        self.reply_to(request)
    }

    fn reply_to(&self, request: Request) -> Result<Vec<u8>> {
        let (reply, payload) = self.receive(&format!("the reply to {request:?}"))?;
        if reply.request != request.code() || reply.flags & FLAG_REPLY == 0 {
            return Err(Error::Protocol(format!(
                "{reply:?} came as the reply to {request:?}"
            )));
        }
        Ok(payload)
    }

    fn ask_u64(&self, request: Request) -> Result<u64> {
        let payload = self.ask(request, &[])?;
        if payload.len() == 8 {
            Ok(u64_at(&payload, 0))
        } else {
            Err(Error::Protocol(format!(
                "{request:?} was answered with {} bytes",
                payload.len()
            )))
        }
    }

    /// Sends a request without a reply of its own; with acknowledgements on, waits for its own.
    ///
    /// # Errors
    /// [`Error::Nack`] if the daemon refused it, else as [`Self::receive`].
    pub fn tell(&self, request: Request, payload: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        let flags = if self.acks {
            FLAG_VERSION | FLAG_NEED_REPLY
        } else {
            FLAG_VERSION
        };
        self.send_raw(header(request.code(), flags, payload), payload, fds)?;
        if !self.acks {
            return Ok(());
        }
        let payload = self.reply_to(request)?;
        match payload.len() {
            8 if u64_at(&payload, 0) == 0 => Ok(()),
            8 => Err(Error::Nack {
                request: request.code(),
                code: u64_at(&payload, 0),
            }),
            other => Err(Error::Protocol(format!(
                "an acknowledgement of {other} bytes"
            ))),
        }
    }

    /// Sends a request without acknowledgement and then asks GET_FEATURES, so that when this
    /// returns the daemon has handled both.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn barrier(&self) -> Result<()> {
        self.ask(Request::GetFeatures, &[]).map(|_| ())
    }

    /// GET_FEATURES.
    pub fn features(&self) -> Result<u64> {
        self.ask_u64(Request::GetFeatures)
    }

    /// SET_FEATURES.
    pub fn set_features(&self, features: u64) -> Result<()> {
        self.tell(Request::SetFeatures, &features.to_ne_bytes(), &[])
    }

    /// GET_PROTOCOL_FEATURES.
    pub fn protocol_features(&self) -> Result<u64> {
        self.ask_u64(Request::GetProtocolFeatures)
    }

    /// SET_PROTOCOL_FEATURES; switches acknowledgements on when REPLY_ACK is among them.
    pub fn set_protocol_features(&mut self, features: u64) -> Result<()> {
        self.tell(Request::SetProtocolFeatures, &features.to_ne_bytes(), &[])?;
        self.acks = features & protocol::REPLY_ACK != 0;
        Ok(())
    }

    /// SET_OWNER.
    pub fn set_owner(&self) -> Result<()> {
        self.tell(Request::SetOwner, &[], &[])
    }

    /// GET_QUEUE_NUM.
    pub fn queue_num(&self) -> Result<u64> {
        self.ask_u64(Request::GetQueueNum)
    }

    /// GET_MAX_MEM_SLOTS.
    pub fn max_mem_slots(&self) -> Result<u64> {
        self.ask_u64(Request::GetMaxMemSlots)
    }

    /// SET_MEM_TABLE with at most eight regions.
    pub fn set_mem_table(&self, regions: &[(MemoryRegion, BorrowedFd<'_>)]) -> Result<()> {
        let mut payload = (regions.len() as u32).to_ne_bytes().to_vec();
        payload.extend([0; 4]);
        for (region, _) in regions {
            payload.extend(region.to_bytes());
        }
        let fds: Vec<_> = regions.iter().map(|(_, fd)| *fd).collect();
        self.tell(Request::SetMemTable, &payload, &fds)
    }

    /// ADD_MEM_REG.
    pub fn add_mem_region(&self, region: MemoryRegion, fd: BorrowedFd<'_>) -> Result<()> {
        self.tell(Request::AddMemReg, &single_region(region), &[fd])
    }

    /// REM_MEM_REG.
    pub fn remove_mem_region(&self, region: MemoryRegion) -> Result<()> {
        self.tell(Request::RemMemReg, &single_region(region), &[])
    }

    /// SET_VRING_NUM.
    pub fn set_vring_num(&self, index: u32, size: u32) -> Result<()> {
        self.tell(Request::SetVringNum, &vring_state(index, size), &[])
    }

    /// SET_VRING_ADDR.
    pub fn set_vring_addr(&self, index: u32, addr: VringAddr) -> Result<()> {
        self.tell(Request::SetVringAddr, &addr.to_bytes(index), &[])
    }

    /// SET_VRING_BASE: the index of the first available entry to look at.
    pub fn set_vring_base(&self, index: u32, base: u32) -> Result<()> {
        self.tell(Request::SetVringBase, &vring_state(index, base), &[])
    }

    /// GET_VRING_BASE: stops the ring and returns where it stopped.
    pub fn get_vring_base(&self, index: u32) -> Result<u32> {
        let payload = self.ask(Request::GetVringBase, &vring_state(index, 0))?;
        if payload.len() == 8 && u32_at(&payload, 0) == index {
            Ok(u32_at(&payload, 4))
        } else {
            Err(Error::Protocol(format!(
                "GET_VRING_BASE {index} was answered {payload:?}"
            )))
        }
    }

    /// SET_VRING_KICK.
    pub fn set_vring_kick(&self, index: u32, fd: Option<BorrowedFd<'_>>) -> Result<()> {
        self.set_vring_fd(Request::SetVringKick, index, fd)
    }

    /// SET_VRING_CALL.
    pub fn set_vring_call(&self, index: u32, fd: Option<BorrowedFd<'_>>) -> Result<()> {
        self.set_vring_fd(Request::SetVringCall, index, fd)
    }

    /// SET_VRING_ERR.
    pub fn set_vring_err(&self, index: u32, fd: Option<BorrowedFd<'_>>) -> Result<()> {
        self.set_vring_fd(Request::SetVringErr, index, fd)
    }

    fn set_vring_fd(&self, request: Request, index: u32, fd: Option<BorrowedFd<'_>>) -> Result<()> {
        let index = u64::from(index);
        match fd {
            Some(fd) => self.tell(request, &index.to_ne_bytes(), &[fd]),
            None => self.tell(request, &(index | VRING_NO_FD).to_ne_bytes(), &[]),
        }
    }

    /// SET_VRING_ENABLE.
    pub fn set_vring_enable(&self, index: u32, on: bool) -> Result<()> {
        self.tell(
            Request::SetVringEnable,
            &vring_state(index, u32::from(on)),
            &[],
        )
    }

    /// GET_CONFIG: `size` bytes of device configuration from `offset`; the answer as it came.
    ///
    /// # Errors
    /// [`Error::Protocol`] when the answer's own header does not fit its length.
    pub fn config(&self, offset: u32, size: u32) -> Result<Vec<u8>> {
        let mut payload = config_header(offset, size);
        payload.resize(12 + size as usize, 0);
        let answer = self.ask(Request::GetConfig, &payload)?;
        if answer.len() < 12 || answer.len() - 12 != u32_at(&answer, 4) as usize {
            return Err(Error::Protocol(format!(
                "GET_CONFIG was answered {answer:?}"
            )));
        }
        Ok(answer[12..].to_vec())
    }

    /// SET_CONFIG.
    pub fn set_config(&self, offset: u32, bytes: &[u8]) -> Result<()> {
        let mut payload = config_header(offset, bytes.len() as u32);
        payload.extend_from_slice(bytes);
        self.tell(Request::SetConfig, &payload, &[])
    }

    /// RESET_DEVICE.
    pub fn reset_device(&self) -> Result<()> {
        self.tell(Request::ResetDevice, &[], &[])
    }

    /// GPU_SET_SOCKET: hands the daemon its end of the display socket.
    pub fn gpu_set_socket(&self, socket: BorrowedFd<'_>) -> Result<()> {
        self.tell(Request::GpuSetSocket, &[], &[socket])
    }

    /// SET_BACKEND_REQ_FD: hands the daemon its end of the channel for its own requests.
    pub fn set_backend_req_fd(&self, socket: BorrowedFd<'_>) -> Result<()> {
        self.tell(Request::SetBackendReqFd, &[], &[socket])
    }

    /// GET_SHMEM_CONFIG: the shared-memory regions, as (shmid, bytes).
    ///
    /// # Errors
    /// [`Error::Protocol`] when the answer is not as long as the specification says, or counts
    /// other regions than it lists.
    pub fn shmem_config(&self) -> Result<Vec<(u8, u64)>> {
        let answer = self.ask(Request::GetShmemConfig, &[])?;
        if answer.len() != 8 + 8 * 256 {
            let len = answer.len();
            return Err(Error::Protocol(format!("GET_SHMEM_CONFIG: {len} bytes")));
        }
        let regions: Vec<_> = (0..=u8::MAX)
            .map(|id| (id, u64_at(&answer, 8 + 8 * usize::from(id))))
            .filter(|(_, size)| *size != 0)
            .collect();
        let count = u32_at(&answer, 0);
        if count as usize != regions.len() {
            let what = format!("GET_SHMEM_CONFIG counts {count} regions: {regions:x?}");
            return Err(Error::Protocol(what));
        }
        Ok(regions)
    }

    /// Waits until the daemon closes the connection.
    ///
    /// # Errors
    /// [`Error::Timeout`] if it does not, [`Error::Protocol`] if it sends something instead.
    pub fn wait_closed(&self) -> Result<()> {
        match self.receive("the daemon to close the connection") {
            Err(Error::Closed(_)) => Ok(()),
            Err(other) => Err(other),
            Ok((header, _)) => Err(Error::Protocol(format!("{header:?} instead of a close"))),
        }
    }
}

fn header(request: u32, flags: u32, payload: &[u8]) -> Header {
    Header {
        request,
        flags,
        size: payload.len() as u32,
    }
}

fn config_header(offset: u32, size: u32) -> Vec<u8> {
    [offset.to_ne_bytes(), size.to_ne_bytes(), [0; 4]].concat()
}

fn single_region(region: MemoryRegion) -> Vec<u8> {
    let mut payload = vec![0; 8];
    payload.extend(region.to_bytes());
    payload
}
