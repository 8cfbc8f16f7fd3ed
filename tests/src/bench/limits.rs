//! What the machine itself can do, measured in the same run: nothing can be faster than this.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::EventfdFlags;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory};

use super::stats::{Sample, repeat, timed};
use crate::frontend::display::kind;
use crate::frontend::error::{Deadline, Error, Result, wait_readable};
use crate::frontend::message::{FLAG_NEED_REPLY, FLAG_VERSION, Header};
use crate::frontend::shmem::{FLAG_WRITABLE, HOST_VISIBLE, SHMEM_MAP, SHMEM_UNMAP};
use crate::frontend::{DisplayConfig, DisplayServer, ShmemServer, VhostUser};

/// Bytes of a message of the bare socket round trip: about those of a small vhost-user message.
const MESSAGE: usize = 20;

/// A limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Copying this many bytes from a shared memfd to private memory, both touched before.
    Memcpy(usize),
    /// Another thread is woken by an eventfd and wakes this one by a second.
    Eventfd,
    /// A small message to another thread over a Unix socket, and one back.
    Socket,
    /// [`Limit::Eventfd`] with a [`Limit::Socket`] to a third thread in its middle.
    EventfdSocket,
    /// A picture (width, height) sent over a Unix socket to the display of the measurement.
    Display(u32, u32),
    /// A SHMEM_MAP message of this many bytes, answered once they are mapped.
    Map(u64),
    /// A SHMEM_UNMAP message of this many bytes, answered once they are unmapped.
    Unmap(u64),
    /// [`Limit::Eventfd`] with a [`Limit::Map`] in its middle: what a guest waits for at least.
    EventfdMap(u64),
    /// [`Limit::Eventfd`] with a [`Limit::Unmap`] in its middle.
    EventfdUnmap(u64),
    /// The mmap of a sealed memfd of this size alone.
    MmapCall(u64),
    /// The munmap alone.
    MunmapCall(u64),
}

impl Limit {
    /// A short name.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Memcpy(bytes) => format!("memcpy of {}", super::size(bytes as u64)),
            Self::Eventfd => "eventfd round trip".to_owned(),
            Self::Socket => "socket round trip".to_owned(),
            Self::EventfdSocket => "eventfd and socket round trip".to_owned(),
            Self::Display(width, height) => format!("{width}x{height} over a socket"),
            Self::Map(bytes) => format!("socket round trip and mmap of {}", super::size(bytes)),
            Self::Unmap(bytes) => format!("socket round trip and munmap of {}", super::size(bytes)),
            Self::EventfdMap(bytes) => {
                format!(
                    "eventfd and socket round trip, mmap of {}",
                    super::size(bytes)
                )
            }
            Self::EventfdUnmap(bytes) => {
                format!(
                    "eventfd and socket round trip, munmap of {}",
                    super::size(bytes)
                )
            }
            Self::MmapCall(bytes) => format!("mmap of {}", super::size(bytes)),
            Self::MunmapCall(bytes) => format!("munmap of {}", super::size(bytes)),
        }
    }

    /// Measures it for about `span`.
    ///
    /// # Errors
    /// Out of memory or file descriptors.
    pub fn measure(self, span: Duration) -> Result<Sample> {
        let rounds = match self {
            Self::Memcpy(bytes) => memcpy(bytes, span)?,
            Self::Eventfd => {
                let peer = Echo::new(|| Ok(()))?;
                repeat(span, || timed(|| peer.round_trip()))?
            }
            Self::Socket => {
                let mut peer = SocketEcho::new()?;
                repeat(span, || timed(|| peer.round_trip()))?
            }
            Self::EventfdSocket => {
                let mut inner = SocketEcho::new()?;
                let peer = Echo::new(move || inner.round_trip())?;
                repeat(span, || timed(|| peer.round_trip()))?
            }
            Self::Display(width, height) => display(width, height, span)?,
            Self::Map(bytes) => {
                let bare = BareMapping::new(bytes)?;
                repeat(span, || Ok::<_, Error>(bare.round_trip()?.0))?
            }
            Self::Unmap(bytes) => {
                let bare = BareMapping::new(bytes)?;
                repeat(span, || Ok::<_, Error>(bare.round_trip()?.1))?
            }
            Self::EventfdMap(bytes) => {
                let peer = Echo::mapping(bytes)?;
                repeat(span, || {
                    let map = timed(|| peer.round_trip())?;
                    peer.round_trip().map(|()| map)
                })?
            }
            Self::EventfdUnmap(bytes) => {
                let peer = Echo::mapping(bytes)?;
                repeat(span, || {
                    peer.round_trip()?;
                    timed(|| peer.round_trip())
                })?
            }
            Self::MmapCall(bytes) | Self::MunmapCall(bytes) => {
                let file = Arc::new(sealed_file(bytes)?);
                let is_map = matches!(self, Self::MmapCall(_));
                repeat(span, || {
                    let mut region = None;
                    let map = timed(|| {
                        region = Some(map_file(&file, bytes)?);
                        Ok::<_, Error>(())
                    })?;
                    let unmap = timed(|| {
                        drop(region);
                        Ok::<_, Error>(())
                    })?;
                    Ok::<_, Error>(if is_map { map } else { unmap })
                })?
            }
        };
        Ok(Sample::of(rounds, 1))
    }
}

fn memcpy(bytes: usize, span: Duration) -> Result<Vec<Duration>> {
    let from = map_file(&Arc::new(sealed_file(bytes as u64)?), bytes as u64)?;
    let from = from.as_volatile_slice();
    let mut to = vec![1_u8; bytes];
    from.write_slice(&to, 0)
        .map_err(|e| Error::Memory(e.to_string()))?;
    repeat(span, || {
        timed(|| from.read_slice(std::hint::black_box(&mut to), 0))
            .map_err(|e| Error::Memory(e.to_string()))
    })
}

/// A memfd as a back-end hands it over: of fixed size.
fn sealed_file(bytes: u64) -> Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = memfd_create("bench", flags).map_err(|e| Error::io("memfd_create", e))?;
    let file = File::from(file);
    file.set_len(bytes)
        .map_err(|e| Error::io("size a memfd", e))?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
        .map_err(|e| Error::io("seal a memfd", e))?;
    Ok(file)
}

fn map_file(file: &Arc<File>, bytes: u64) -> Result<MmapRegion<()>> {
    let offset = FileOffset::from_arc(file.clone(), 0);
    MmapRegion::from_file(offset, bytes as usize).map_err(|e| Error::Memory(e.to_string()))
}

/// A thread that is woken by one eventfd and answers on another.
struct Echo {
    ask: Arc<OwnedFd>,
    answer: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// The thread does `work` in between; it ends when that fails.
    fn new(mut work: impl FnMut() -> Result<()> + Send + 'static) -> Result<Self> {
        let eventfd = |flags| {
            let fd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | flags);
            fd.map(Arc::new).map_err(|e| Error::io("eventfd", e))
        };
        // The one end waits as a worker does, the other as the driver of the measurement.
        let ask = eventfd(EventfdFlags::empty())?;
        let answer = eventfd(EventfdFlags::NONBLOCK)?;
        let (theirs, back) = (ask.clone(), answer.clone());
        let thread = thread::spawn(move || {
            let mut count = [0; 8];
            while rustix::io::read(&*theirs, &mut count).is_ok()
                && u64::from_ne_bytes(count) < END
                && work().is_ok()
                && rustix::io::write(&*back, &1_u64.to_ne_bytes()).is_ok()
            {}
        });
        Ok(Self {
            ask,
            answer,
            thread: Some(thread),
        })
    }

    /// The thread has a file mapped and unmapped by turns.
    fn mapping(bytes: u64) -> Result<Self> {
        let bare = BareMapping::new(bytes)?;
        let mut mapped = false;
        Self::new(move || {
            mapped = !mapped;
            if mapped { bare.map() } else { bare.unmap() }
        })
    }

    fn round_trip(&self) -> Result<()> {
        rustix::io::write(&*self.ask, &1_u64.to_ne_bytes()).map_err(|e| Error::io("kick", e))?;
        let deadline = Deadline::default();
        wait_readable([self.answer.as_fd()], &deadline, "the other thread")?;
        rustix::io::read(&*self.answer, &mut [0_u8; 8]).map_err(|e| Error::io("eventfd", e))?;
        Ok(())
    }
}

/// What tells the thread to end.
const END: u64 = 1 << 32;

impl Drop for Echo {
    fn drop(&mut self) {
        // A thread that is gone already does not mind; its panic would have shown as a timeout.
        let _ = rustix::io::write(&*self.ask, &END.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A thread that sends back what it is sent.
struct SocketEcho {
    socket: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl SocketEcho {
    fn new() -> Result<Self> {
        let (socket, mut theirs) = UnixStream::pair().map_err(|e| Error::io("socketpair", e))?;
        let thread = thread::spawn(move || {
            let mut message = [0; MESSAGE];
            while theirs.read_exact(&mut message).is_ok() && theirs.write_all(&message).is_ok() {}
        });
        Ok(Self {
            socket,
            thread: Some(thread),
        })
    }

    fn round_trip(&mut self) -> Result<()> {
        let mut message = [0; MESSAGE];
        let mut both = || {
            self.socket.write_all(&message)?;
            self.socket.read_exact(&mut message)
        };
        both().map_err(|e| Error::io("a socket round trip", e))
    }
}

impl Drop for SocketEcho {
    fn drop(&mut self) {
        // Its end of the connection tells the thread to end.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Sends whole pictures to the measurement's own display.
fn display(width: u32, height: u32, span: Duration) -> Result<Vec<Duration>> {
    let config = DisplayConfig::sized(width, height).discarding();
    let (server, socket) = DisplayServer::start(config)?;
    let mut socket = UnixStream::from(socket);
    let pixels = u64::from(width) * u64::from(height);
    let len = 20 + 4 * pixels as u32;
    let fields = [kind::UPDATE, 0, len, 0, 0, 0, width, height];
    let head: Vec<u8> = fields.iter().flat_map(|f| f.to_ne_bytes()).collect();
    let picture = vec![1_u8; 4 * pixels as usize];
    let mut sent = 0;
    repeat(span, || {
        sent += pixels;
        timed(|| {
            let written = socket.write_all(&head);
            let written = written.and_then(|()| socket.write_all(&picture));
            written.map_err(|e| Error::io("send a picture", e))?;
            server.wait_for("a picture", |state| (state.pixels >= sent).then_some(()))
        })
    })
}

/// What the front-end's side of mapping a blob costs: one request over a socket, a mapping, the
/// answer.
pub struct BareMapping {
    server: ShmemServer,
    vhost: VhostUser,
    file: File,
    bytes: u64,
}

impl BareMapping {
    /// For a file of `bytes` (whole pages).
    ///
    /// # Errors
    /// Out of file descriptors.
    pub fn new(bytes: u64) -> Result<Self> {
        let (server, socket) = ShmemServer::start()?;
        server.set_size(bytes);
        server.set_serving(true);
        Ok(Self {
            server,
            vhost: VhostUser::over(socket),
            file: sealed_file(bytes)?,
            bytes,
        })
    }

    /// Maps and unmaps; how long each took.
    ///
    /// # Errors
    /// The front-end's end refused one.
    pub fn round_trip(&self) -> Result<(Duration, Duration)> {
        let map = timed(|| self.map())?;
        let unmap = timed(|| self.unmap())?;
        match self.server.violations().first() {
            None => Ok((map, unmap)),
            Some(line) => Err(Error::Protocol(line.clone())),
        }
    }

    fn map(&self) -> Result<()> {
        self.ask(SHMEM_MAP, &[self.file.as_fd()])
    }

    fn unmap(&self) -> Result<()> {
        self.ask(SHMEM_UNMAP, &[])
    }

    fn ask(&self, request: u32, fds: &[BorrowedFd<'_>]) -> Result<()> {
        let fields = [u64::from(HOST_VISIBLE), 0, 0, self.bytes, FLAG_WRITABLE];
        let payload: Vec<u8> = fields.iter().flat_map(|f| f.to_ne_bytes()).collect();
        let header = Header {
            request,
            flags: FLAG_VERSION | FLAG_NEED_REPLY,
            size: payload.len() as u32,
        };
        self.vhost.send_raw(header, &payload, fds)?;
        self.vhost.receive("an acknowledgement").map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_can_be_measured() {
        for limit in [
            Limit::Memcpy(4096),
            Limit::Eventfd,
            Limit::Socket,
            Limit::EventfdSocket,
            Limit::Display(32, 16),
            Limit::Map(4096),
            Limit::Unmap(1 << 20),
            Limit::EventfdMap(4096),
            Limit::EventfdUnmap(4096),
            Limit::MmapCall(4096),
            Limit::MunmapCall(4096),
        ] {
            let sample = limit.measure(Duration::ZERO).unwrap();
            assert_eq!(sample.count, 3, "{limit:?}");
        }
    }

    #[test]
    fn a_bare_mapping_really_maps() {
        let bare = BareMapping::new(8192).unwrap();
        bare.map().unwrap();
        assert_eq!(bare.server.mapped(), [(0, 8192)]);
        bare.unmap().unwrap();
        assert_eq!(bare.server.mapped(), []);
        // A second one has nothing to unmap: refused, and noticed.
        bare.unmap().unwrap();
        assert!(bare.round_trip().is_err());
    }
}
