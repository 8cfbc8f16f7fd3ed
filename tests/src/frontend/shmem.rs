//! The front-end's end of the shared-memory channel: SHMEM_MAP and SHMEM_UNMAP, answered as told.
//!
//! It maps what it is asked to map, as a VMM does, so that a test reads and writes what a guest
//! would. It checks what QEMU checks (bounds, overlap, length of the file) and more: alignment,
//! unknown flags, the padding, seals. What breaks a rule is refused and kept as a violation.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, poll};
use rustix::fs::SealFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory};

use super::error::{Error, Result, patience};
use super::memory::PAGE;
use super::message::{FLAG_NEED_REPLY, FLAG_REPLY, FLAG_VERSION, Header, u64_at};

/// VHOST_USER_BACKEND_SHMEM_MAP.
pub const SHMEM_MAP: u32 = 9;
/// VHOST_USER_BACKEND_SHMEM_UNMAP.
pub const SHMEM_UNMAP: u32 = 10;
/// The shared-memory region of a virtio-gpu device (VIRTIO_GPU_SHM_ID_HOST_VISIBLE).
pub const HOST_VISIBLE: u8 = 1;
/// Flag of a map request: the guest may write.
pub const FLAG_WRITABLE: u64 = 1;
/// Bytes of a request's payload.
pub(crate) const PAYLOAD: usize = 40;

/// What to do with a request that keeps the rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ack {
    /// Do it and say so.
    #[default]
    Ok,
    /// Do nothing and answer with this code.
    Refuse(u64),
    /// Do it and say nothing.
    Never,
    /// Do it and say so only after this time; nothing else is served meanwhile.
    Late(Duration),
    /// Do it and close the channel instead of an answer.
    Close,
    /// Do it and answer with these bytes.
    Raw(Vec<u8>),
}

/// A request as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShmemRequest {
    /// [`SHMEM_MAP`] or [`SHMEM_UNMAP`].
    pub kind: u32,
    /// Offset in the file.
    pub fd_offset: u64,
    /// Offset in the region.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// Flags.
    pub flags: u64,
    /// When it came.
    pub at: Instant,
}

/// A mapping that a guest would see.
#[derive(Debug)]
struct Mapping {
    offset: u64,
    len: u64,
    file: Arc<File>,
    memory: MmapRegion<()>,
}

#[derive(Debug)]
struct State {
    size: u64,
    serving: bool,
    closing: bool,
    closed: bool,
    script: VecDeque<Ack>,
    requests: Vec<ShmemRequest>,
    mappings: Vec<Mapping>,
    /// Ranges that the front-end unmapped by itself: the daemon need not know.
    dropped: Vec<(u64, u64)>,
    violations: Vec<String>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    wake: OwnedFd,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The front-end's end of the channel, served by a thread of its own.
#[derive(Debug)]
pub struct ShmemServer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl ShmemServer {
    /// Starts serving nothing yet (see [`Self::set_serving`]); returns the daemon's end.
    ///
    /// # Errors
    /// [`Error::Io`] without file descriptors.
    pub fn start() -> Result<(Self, UnixStream)> {
        let (ours, theirs) = UnixStream::pair().map_err(|e| Error::io("socketpair", e))?;
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|e| Error::io("eventfd", e))?;
        let state = State {
            size: 0,
            serving: false,
            closing: false,
            closed: false,
            script: VecDeque::new(),
            requests: Vec::new(),
            mappings: Vec::new(),
            dropped: Vec::new(),
            violations: Vec::new(),
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            wake,
        });
        let mut server = ShmemServer {
            shared,
            thread: None,
        };
        server.spawn(ours);
        Ok((server, theirs))
    }

    fn spawn(&mut self, socket: UnixStream) {
        let shared = self.shared.clone();
        self.thread = Some(std::thread::spawn(move || {
            serve(&shared, &socket);
            shared.lock().closed = true;
            shared.changed.notify_all();
        }));
    }

    /// Closes the socket and goes on with a new one and all that is mapped; returns the daemon's end.
    ///
    /// # Errors
    /// [`Error::Io`] without file descriptors.
    pub fn reopen(&mut self) -> Result<UnixStream> {
        self.close();
        let (ours, theirs) = UnixStream::pair().map_err(|e| Error::io("socketpair", e))?;
        let mut state = self.shared.lock();
        (state.closing, state.closed) = (false, false);
        drop(state);
        self.spawn(ours);
        Ok(theirs)
    }

    fn wake(&self) {
        // Fails only when the counter is full: the thread wakes then anyway.
        let _ = rustix::io::write(&self.shared.wake, &1_u64.to_ne_bytes());
    }

    /// Sets the size of the region, bytes.
    pub fn set_size(&self, size: u64) {
        self.shared.lock().size = size;
    }

    /// The size of the region, bytes.
    pub fn size(&self) -> u64 {
        self.shared.lock().size
    }

    /// Whether requests are read at all; crosvm reads none while the device is not active.
    pub fn set_serving(&self, on: bool) {
        self.shared.lock().serving = on;
        self.wake();
    }

    /// What to do with the next requests; those after are done and acknowledged.
    pub fn script(&self, acks: &[Ack]) {
        self.shared.lock().script = acks.iter().cloned().collect();
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<ShmemRequest> {
        self.shared.lock().requests.clone()
    }

    /// Number of requests so far.
    pub fn count(&self) -> usize {
        self.shared.lock().requests.len()
    }

    /// What is mapped: (offset, bytes), sorted.
    pub fn mapped(&self) -> Vec<(u64, u64)> {
        let state = self.shared.lock();
        let mut mapped: Vec<_> = state.mappings.iter().map(|m| (m.offset, m.len)).collect();
        mapped.sort_unstable();
        mapped
    }

    /// Rules that the daemon broke.
    pub fn violations(&self) -> Vec<String> {
        self.shared.lock().violations.clone()
    }

    /// Whether the channel is closed, by either side.
    pub fn is_closed(&self) -> bool {
        self.shared.lock().closed
    }

    /// Waits until this many requests have come in all.
    ///
    /// # Errors
    /// [`Error::Timeout`].
    pub fn wait_count(&self, count: usize) -> Result<()> {
        self.wait(&format!("{count} shared-memory requests"), |state| {
            state.requests.len() >= count
        })
    }

    /// Waits until the daemon has closed the channel.
    ///
    /// # Errors
    /// [`Error::Timeout`].
    pub fn wait_closed(&self) -> Result<()> {
        self.wait("the shared-memory channel to be closed", |state| {
            state.closed
        })
    }

    /// Waits until exactly this is mapped: (offset, bytes), sorted.
    ///
    /// # Errors
    /// [`Error::Timeout`].
    pub fn wait_mapped(&self, expected: &[(u64, u64)]) -> Result<()> {
        self.wait(&format!("{expected:x?} to be mapped"), |state| {
            let mut mapped: Vec<_> = state.mappings.iter().map(|m| (m.offset, m.len)).collect();
            mapped.sort_unstable();
            mapped == expected
        })
    }

    fn wait(&self, awaited: &str, ready: impl Fn(&State) -> bool) -> Result<()> {
        let end = Instant::now() + patience();
        let mut state = self.shared.lock();
        while !ready(&state) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Timeout {
                    awaited: awaited.to_owned(),
                    waited: patience(),
                });
            }
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// Unmaps everything by itself and without a word, as QEMU does when the device is reset.
    pub fn drop_mappings(&self) {
        let mut state = self.shared.lock();
        let gone: Vec<_> = state.mappings.drain(..).collect();
        state.dropped = gone.iter().map(|m| (m.offset, m.len)).collect();
    }

    /// Reads through the guest's mapping; panics where nothing is mapped.
    pub fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.with_slice(offset, len, |slice| slice.read_slice(&mut bytes, 0));
        bytes
    }

    /// Writes through the guest's mapping; panics where nothing is mapped.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        self.with_slice(offset, bytes.len(), |slice| slice.write_slice(bytes, 0));
    }

    fn with_slice<E: std::fmt::Debug>(
        &self,
        offset: u64,
        len: usize,
        access: impl FnOnce(vm_memory::VolatileSlice<'_>) -> std::result::Result<(), E>,
    ) {
        let state = self.shared.lock();
        let mapping = state
            .mappings
            .iter()
            .find(|m| (m.offset..m.offset + m.len).contains(&offset))
            .unwrap_or_else(|| panic!("nothing is mapped at {offset:#x}"));
        let slice = mapping
            .memory
            .get_slice((offset - mapping.offset) as usize, len)
            .expect("inside the mapping");
        access(slice).expect("inside the mapping");
    }

    /// The file behind the mapping at an offset; panics where nothing is mapped.
    pub fn file(&self, offset: u64) -> Arc<File> {
        let state = self.shared.lock();
        let mapping = state.mappings.iter().find(|m| m.offset == offset);
        mapping.expect("a mapping begins here").file.clone()
    }

    /// Closes the front-end's end; what is mapped stays mapped.
    pub fn close(&mut self) {
        self.shared.lock().closing = true;
        self.wake();
        if let Some(thread) = self.thread.take() {
            // It only serves; a panic would show as a request without an answer.
            let _ = thread.join();
        }
    }
}

impl Drop for ShmemServer {
    fn drop(&mut self) {
        self.close();
    }
}

/// Serves requests until either side closes.
fn serve(shared: &Shared, socket: &UnixStream) {
    loop {
        let serving = {
            let state = shared.lock();
            if state.closing {
                return;
            }
            state.serving
        };
        // It may have been told to stop serving while it waited.
        if !wait(shared, serving.then_some(socket), None) || !shared.lock().serving {
            continue;
        }
        let Some((header, payload, fds)) = receive(socket) else {
            return;
        };
        let ack = handle(shared, header, &payload, fds);
        shared.changed.notify_all();
        let reply = |code: u64| {
            let header = Header {
                request: header.request,
                flags: FLAG_VERSION | FLAG_REPLY,
                size: 8,
            };
            [&header.to_bytes()[..], &code.to_ne_bytes()].concat()
        };
        let bytes = match ack {
            Ack::Ok => reply(0),
            Ack::Refuse(code) => reply(code),
            Ack::Never => continue,
            Ack::Close => return,
            Ack::Raw(bytes) => bytes,
            Ack::Late(pause) => {
                let until = Instant::now() + pause;
                while Instant::now() < until {
                    if shared.lock().closing {
                        return;
                    }
                    wait(shared, None, Some(until));
                }
                reply(0)
            }
        };
        // The daemon may have closed meanwhile; the next read tells.
        let _ = (&*socket).write_all(&bytes);
    }
}

/// Waits for a wake-up, the socket (if given) or a point in time; true when the socket is readable.
fn wait(shared: &Shared, socket: Option<&UnixStream>, until: Option<Instant>) -> bool {
    let mut fds = vec![PollFd::from_borrowed_fd(shared.wake.as_fd(), PollFlags::IN)];
    if let Some(socket) = socket {
        fds.push(PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN));
    }
    let left = until.map(|until| until.saturating_duration_since(Instant::now()));
    let timeout = left.and_then(|left| Timespec::try_from(left + Duration::from_millis(1)).ok());
    if poll(&mut fds, timeout.as_ref()).is_err() {
        return false;
    }
    if !fds[0].revents().is_empty() {
        let _ = rustix::io::read(&shared.wake, &mut [0_u8; 8]);
    }
    fds.get(1).is_some_and(|fd| !fd.revents().is_empty())
}

/// Reads one message with its file descriptors; `None` at the end of the connection.
pub(crate) fn receive(socket: &UnixStream) -> Option<(Header, Vec<u8>, Vec<OwnedFd>)> {
    let mut fds = Vec::new();
    let mut head = [0; Header::SIZE];
    read_exact(socket.as_fd(), &mut head, &mut fds)?;
    let header = Header::from_bytes(head);
    let mut payload = vec![0; header.size as usize & 0xffff];
    read_exact(socket.as_fd(), &mut payload, &mut fds)?;
    Some((header, payload, fds))
}

fn read_exact(socket: BorrowedFd<'_>, mut out: &mut [u8], fds: &mut Vec<OwnedFd>) -> Option<()> {
    while !out.is_empty() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut part = [IoSliceMut::new(out)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        match rustix::net::recvmsg(socket, &mut part, &mut control, flags) {
            Ok(got) if got.bytes == 0 => return None,
            Ok(got) => out = &mut out[got.bytes..],
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return None,
        }
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
    }
    Some(())
}

/// Notes a request, checks it and does what the script says.
fn handle(shared: &Shared, header: Header, payload: &[u8], fds: Vec<OwnedFd>) -> Ack {
    let mut state = shared.lock();
    match try_handle(&mut state, header, payload, fds) {
        Ok(ack) => ack,
        Err(what) => {
            state.violations.push(what);
            Ack::Refuse(1)
        }
    }
}

fn try_handle(
    state: &mut State,
    header: Header,
    payload: &[u8],
    mut fds: Vec<OwnedFd>,
) -> std::result::Result<Ack, String> {
    let check = |ok: bool, what: &str| match ok {
        true => Ok(()),
        false => Err(format!("{what}: {header:?} {payload:x?}")),
    };
    check(
        header.flags == FLAG_VERSION | FLAG_NEED_REPLY,
        "header flags",
    )?;
    check(payload.len() == PAYLOAD, "length of the payload")?;
    let request = ShmemRequest {
        kind: header.request,
        fd_offset: u64_at(payload, 8),
        offset: u64_at(payload, 16),
        len: u64_at(payload, 24),
        flags: u64_at(payload, 32),
        at: Instant::now(),
    };
    state.requests.push(request);
    check(payload[0] == HOST_VISIBLE, "shared-memory id")?;
    check(payload[1..8] == [0; 7], "padding")?;
    check(request.flags & !FLAG_WRITABLE == 0, "unknown flags")?;
    let aligned = [request.fd_offset, request.offset, request.len]
        .iter()
        .all(|value| value % PAGE == 0);
    check(aligned, "page alignment")?;
    check(request.len != 0, "an empty range")?;
    let end = request.offset.checked_add(request.len);
    check(end.is_some_and(|end| end <= state.size), "bounds")?;
    match request.kind {
        SHMEM_MAP => {
            check(fds.len() == 1, "one file descriptor")?;
            let file = File::from(fds.remove(0));
            let mapping = mapping(state, request, file)?;
            let ack = state.script.pop_front().unwrap_or_default();
            if !matches!(ack, Ack::Refuse(_)) {
                state.mappings.push(mapping);
            }
            Ok(ack)
        }
        SHMEM_UNMAP => {
            check(fds.is_empty(), "no file descriptor")?;
            let range = (request.offset, request.len);
            if let Some(at) = state.dropped.iter().position(|gone| *gone == range) {
                state.dropped.remove(at);
                return Ok(Ack::Refuse(1));
            }
            let is_this = |m: &Mapping| (m.offset, m.len) == range;
            let at = state.mappings.iter().position(is_this);
            let at = at.ok_or_else(|| format!("unmap of what is not mapped: {request:x?}"))?;
            let ack = state.script.pop_front().unwrap_or_default();
            if !matches!(ack, Ack::Refuse(_)) {
                state.mappings.remove(at);
            }
            Ok(ack)
        }
        _ => Err(format!("unknown request: {header:?}")),
    }
}

/// Maps a file as a VMM would, if the request is fit for it.
fn mapping(
    state: &State,
    request: ShmemRequest,
    file: File,
) -> std::result::Result<Mapping, String> {
    let overlaps =
        |m: &Mapping| m.offset < request.offset + request.len && request.offset < m.offset + m.len;
    if state.mappings.iter().any(overlaps) {
        return Err(format!("overlap: {request:x?} with {:x?}", state.mappings));
    }
    let size = file.metadata().map_err(|e| format!("fstat: {e}"))?.len();
    let end = request.fd_offset.checked_add(request.len);
    if end.is_none_or(|end| end > size) {
        return Err(format!("{request:x?} of a file of {size} bytes"));
    }
    // QEMU grows an empty memfd: what can change size is not fit to be handed out.
    let fixed = SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    let seals = rustix::fs::fcntl_get_seals(&file).unwrap_or(SealFlags::empty());
    if !seals.contains(fixed) || seals.contains(SealFlags::WRITE) {
        return Err(format!("a file sealed {seals:?}"));
    }
    let file = Arc::new(file);
    let offset = FileOffset::from_arc(file.clone(), request.fd_offset);
    let memory = MmapRegion::from_file(offset, request.len as usize)
        .map_err(|e| format!("mmap of {request:x?}: {e}"))?;
    Ok(Mapping {
        offset: request.offset,
        len: request.len,
        file,
        memory,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use rustix::fs::{MemfdFlags, fcntl_add_seals, ftruncate, memfd_create};

    use super::super::vhost_user::VhostUser;
    use super::*;

    const FILE: u64 = 4 * PAGE;

    fn file(seals: SealFlags) -> OwnedFd {
        let fd = memfd_create("blob", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&fd, FILE).unwrap();
        fcntl_add_seals(&fd, seals).unwrap();
        fd
    }

    const SEALED: SealFlags = SealFlags::SHRINK
        .union(SealFlags::GROW)
        .union(SealFlags::SEAL);

    /// Sends a request and returns the code of the answer.
    fn ask(daemon: &UnixStream, request: u32, fields: [u64; 5], fd: Option<&OwnedFd>) -> u64 {
        let header = Header {
            request,
            flags: FLAG_VERSION | FLAG_NEED_REPLY,
            size: PAYLOAD as u32,
        };
        let payload: Vec<u8> = fields.iter().flat_map(|f| f.to_ne_bytes()).collect();
        let fds: Vec<_> = fd.iter().map(AsFd::as_fd).collect();
        VhostUser::over(daemon.try_clone().unwrap())
            .send_raw(header, &payload, &fds)
            .unwrap();
        let mut answer = [0; Header::SIZE + 8];
        let mut daemon = daemon;
        daemon.read_exact(&mut answer).unwrap();
        u64_at(&answer, Header::SIZE)
    }

    #[test]
    fn what_is_mapped_is_the_daemons_file() {
        let (server, daemon) = ShmemServer::start().unwrap();
        server.set_size(1 << 20);
        server.set_serving(true);
        let fd = file(SEALED);
        let map = [1, PAGE, 8 * PAGE, 2 * PAGE, FLAG_WRITABLE];
        assert_eq!(ask(&daemon, SHMEM_MAP, map, Some(&fd)), 0);
        server.write(8 * PAGE + 5, b"guest");
        let mut seen = [0; 5];
        rustix::io::pread(&fd, &mut seen, PAGE + 5).unwrap();
        assert_eq!(&seen, b"guest");
        rustix::io::pwrite(&fd, b"host", 2 * PAGE).unwrap();
        assert_eq!(server.read(9 * PAGE, 4), b"host");
        assert_eq!(server.mapped(), [(8 * PAGE, 2 * PAGE)]);
        assert_eq!(ask(&daemon, SHMEM_UNMAP, map, None), 0);
        assert_eq!(server.mapped(), []);
        assert_eq!(server.violations(), Vec::<String>::new());
    }

    #[test]
    fn what_breaks_a_rule_is_refused_and_told() {
        let (server, daemon) = ShmemServer::start().unwrap();
        server.set_size(1 << 20);
        server.set_serving(true);
        let (sealed, growing) = (file(SEALED), file(SealFlags::SHRINK));
        let shut = file(SEALED.union(SealFlags::WRITE));
        let good = [1, 0, 0, PAGE, 1];
        assert_eq!(ask(&daemon, SHMEM_MAP, good, Some(&sealed)), 0);
        let map = [1, 0, 8 * PAGE, PAGE, 1];
        let with = |at: usize, value: u64| {
            let mut fields = map;
            fields[at] = value;
            fields
        };
        let bad = [
            (SHMEM_MAP, with(0, 0), Some(&sealed)),
            (SHMEM_MAP, with(0, 0x101), Some(&sealed)),
            (SHMEM_MAP, with(1, 1), Some(&sealed)),
            (SHMEM_MAP, with(1, FILE), Some(&sealed)),
            (SHMEM_MAP, with(2, 0), Some(&sealed)),
            (SHMEM_MAP, with(2, 1 << 20), Some(&sealed)),
            (SHMEM_MAP, with(2, 100), Some(&sealed)),
            (SHMEM_MAP, with(3, 0), Some(&sealed)),
            (SHMEM_MAP, with(3, 100), Some(&sealed)),
            (SHMEM_MAP, with(3, FILE + PAGE), Some(&sealed)),
            (SHMEM_MAP, with(4, 3), Some(&sealed)),
            (SHMEM_MAP, map, None),
            (SHMEM_MAP, map, Some(&growing)),
            (SHMEM_MAP, map, Some(&shut)),
            (SHMEM_UNMAP, map, None),
            (SHMEM_UNMAP, good, Some(&sealed)),
            (SHMEM_UNMAP, with(3, 2 * PAGE), None),
            (11, map, None),
        ];
        for (count, (request, fields, fd)) in (1..).zip(bad) {
            assert_eq!(
                ask(&daemon, request, fields, fd),
                1,
                "{request} {fields:x?}"
            );
            assert_eq!(server.violations().len(), count, "{request} {fields:x?}");
        }
        assert_eq!(server.mapped(), [(0, PAGE)]);
    }

    #[test]
    fn answers_come_as_the_script_says() {
        let (server, daemon) = ShmemServer::start().unwrap();
        server.set_size(1 << 20);
        server.set_serving(true);
        let fd = file(SEALED);
        let pause = Duration::from_millis(50);
        server.script(&[Ack::Refuse(7), Ack::Late(pause), Ack::Refuse(9)]);
        let map = [1, 0, 0, PAGE, 1];
        assert_eq!(ask(&daemon, SHMEM_MAP, map, Some(&fd)), 7);
        assert_eq!(server.mapped(), []);
        let begin = Instant::now();
        assert_eq!(ask(&daemon, SHMEM_MAP, map, Some(&fd)), 0);
        assert!(begin.elapsed() >= pause);
        assert_eq!(ask(&daemon, SHMEM_UNMAP, map, None), 9);
        assert_eq!(server.mapped(), [(0, PAGE)]);
        server.drop_mappings();
        assert_eq!(ask(&daemon, SHMEM_UNMAP, map, None), 1);
        assert_eq!(server.violations(), Vec::<String>::new());
        drop(daemon);
        server.wait_closed().unwrap();
    }
}
