//! What a request must keep, and what is mapped by those that do.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::SealFlags;
use vm_memory::{FileOffset, MmapRegion};

use super::{Ack, HOST_VISIBLE, PAYLOAD, SHMEM_MAP, SHMEM_UNMAP, ShmemRequest};
use crate::frontend::memory::PAGE;
use crate::frontend::memtype::MapFlags;
use crate::frontend::message::{FLAG_NEED_REPLY, FLAG_VERSION, Header, u64_at};

/// A mapping that a guest would see.
#[derive(Debug)]
pub(super) struct Mapping {
    pub(super) offset: u64,
    pub(super) len: u64,
    pub(super) file: Arc<File>,
    pub(super) memory: MmapRegion<()>,
}

/// What the server knows.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) size: u64,
    /// Whether requests may carry a memory type.
    pub(super) extended: bool,
    /// Whether there are no acknowledgements: REPLY_ACK was not agreed on.
    pub(super) silent: bool,
    /// Whether files need no seals.
    pub(super) any_file: bool,
    /// Whether a request need not ask for an acknowledgement.
    pub(super) any_reply: bool,
    pub(super) serving: bool,
    pub(super) closing: bool,
    pub(super) closed: bool,
    pub(super) script: VecDeque<Ack>,
    pub(super) requests: Vec<ShmemRequest>,
    pub(super) mappings: Vec<Mapping>,
    /// Ranges that the front-end unmapped by itself: the daemon need not know.
    pub(super) dropped: Vec<(u64, u64)>,
    pub(super) violations: Vec<String>,
}

/// Notes a request, checks it and does what the script says.
pub(super) fn handle(state: &mut State, header: Header, payload: &[u8], fds: Vec<OwnedFd>) -> Ack {
    match try_handle(state, header, payload, fds) {
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
) -> Result<Ack, String> {
    let check = |ok: bool, what: &str| match ok {
        true => Ok(()),
        false => Err(format!("{what}: {header:?} {payload:x?}")),
    };
    let need_reply = if state.silent { 0 } else { FLAG_NEED_REPLY };
    let optional = if state.any_reply { need_reply } else { 0 };
    let flags = header.flags | optional;
    check(flags == FLAG_VERSION | need_reply, "header flags")?;
    check(payload.len() == PAYLOAD, "length of the payload")?;
    let request = ShmemRequest {
        kind: header.request,
        fd_offset: u64_at(payload, 8),
        offset: u64_at(payload, 16),
        len: u64_at(payload, 24),
        flags: u64_at(payload, 32),
        need_reply: header.flags & FLAG_NEED_REPLY != 0,
        at: Instant::now(),
    };
    state.requests.push(request);
    check(payload[0] == HOST_VISIBLE, "shared-memory id")?;
    check(payload[1..8] == [0; 7], "padding")?;
    check_flags(&request, state.extended)?;
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

/// Checks the flags. Those of an unmap request have no meaning.
fn check_flags(request: &ShmemRequest, extended: bool) -> Result<(), String> {
    if request.kind == SHMEM_UNMAP {
        return Ok(());
    }
    match MapFlags::parse(request.flags, extended) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("{error}: {request:x?}")),
    }
}

/// Whether the file is a dma-buf, whose size never changes and which has no seals: the name that the kernel
/// gives it (`dma_buf_getfile`).
fn is_dma_buf(file: &File) -> bool {
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    std::fs::read_link(link).is_ok_and(|name| name.as_os_str().as_bytes().starts_with(b"/dmabuf:"))
}

/// QEMU grows an empty memfd: what can change size is not fit to be handed out.
fn check_seals(file: &File) -> Result<(), String> {
    let fixed = SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    let seals = rustix::fs::fcntl_get_seals(file).unwrap_or(SealFlags::empty());
    match seals.contains(fixed) && !seals.contains(SealFlags::WRITE) {
        true => Ok(()),
        false => Err(format!("a file sealed {seals:?}")),
    }
}

/// Maps a file as a VMM would, if the request is fit for it.
fn mapping(state: &State, request: ShmemRequest, file: File) -> Result<Mapping, String> {
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
    if !state.any_file && !is_dma_buf(&file) {
        check_seals(&file)?;
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
