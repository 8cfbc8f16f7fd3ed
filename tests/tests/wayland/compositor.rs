//! A compositor that does what a test says, and a device with a channel to it.

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use nosnoop_tests::frontend::{Channel, Result, Rig};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use tempfile::TempDir;

/// The first ring of channel 1.
pub(crate) const RING: u32 = 100;

/// A compositor's socket.
pub(crate) struct Compositor {
    pub(crate) path: PathBuf,
    listener: UnixListener,
    _folder: TempDir,
}

impl Compositor {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wayland-0");
        let listener = UnixListener::bind(&path).unwrap();
        Compositor {
            path,
            listener,
            _folder: folder,
        }
    }

    /// Has the kernel keep only so many connections (and one) that are not accepted.
    pub(crate) fn keep_waiting(&self, count: i32) {
        rustix::net::listen(&self.listener, count).unwrap();
    }

    pub(crate) fn accept(&self) -> Client {
        let (stream, _) = self.listener.accept().unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        Client(stream)
    }

    pub(crate) fn rig(&self) -> Result<Rig> {
        Rig::host_blobs(&["--wayland-socket", self.path.to_str().unwrap()])
    }
}

/// A connection of the daemon's.
pub(crate) struct Client(pub(crate) UnixStream);

impl Client {
    /// Exactly so many bytes.
    pub(crate) fn read(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// The next bytes, and the descriptors that come with them.
    pub(crate) fn receive(&mut self) -> (Vec<u8>, Vec<OwnedFd>) {
        let mut bytes = vec![0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(28))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::net::recvmsg(
            &self.0,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        );
        bytes.truncate(received.unwrap().bytes);
        let files = ancillary.drain().flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(files) => files.collect(),
            _ => Vec::new(),
        });
        (bytes, files.collect())
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    pub(crate) fn send_with(&mut self, bytes: &[u8], files: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(28))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(files)));
        let sent = rustix::net::sendmsg(
            &self.0,
            &[IoSlice::new(bytes)],
            &mut ancillary,
            SendFlags::empty(),
        );
        assert_eq!(sent, Ok(bytes.len()));
    }

    /// Whether the daemon has closed its end.
    pub(crate) fn has_ended(&mut self) -> bool {
        let mut byte = [0];
        matches!(self.0.read(&mut byte), Ok(0))
    }
}

/// A device, channel 1 of it, and the compositor's end of that.
pub(crate) fn connected() -> Result<(Compositor, Rig, Channel, Client)> {
    let compositor = Compositor::new();
    let mut rig = compositor.rig()?;
    let channel = Channel::new(&mut rig.gpu, 1, RING)?;
    let client = compositor.accept();
    Ok((compositor, rig, channel, client))
}
