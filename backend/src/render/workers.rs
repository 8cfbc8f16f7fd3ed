//! The processes that draw Vulkan contexts, as seen from here: whether they are there, and how to get
//! away from one that does not answer.
//!
//! virglrenderer talks to each over a socket, and waits there as long as it takes: for a reply, or for
//! room to write. When a process has ended, virglrenderer's thread for its fences spins, and signals
//! its fences as if they were done. So this has a second descriptor of each socket: it says that the
//! other end has gone at the moment at which virglrenderer can know too, and shutting it down ends any
//! wait.
//!
//! Source: virglrenderer's `src/proxy/proxy_context.c` and `server/render_client.c`.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::Errno;
use rustix::net::{Shutdown, SocketType, shutdown, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

use super::server::RenderServer;
use crate::sync::lock;

/// How long virglrenderer may wait for one process. The guest's control queue stands still meanwhile, and
/// the replies that it waits for take a millisecond, unless that process first finishes compiling the
/// shaders that the guest gave it before.
pub(super) const LIMIT: Duration = Duration::from_secs(10);

/// Contexts' processes that are noticed at a time.
const EVENTS: usize = 32;

/// What stands for the server among the events; contexts have ids from 1.
const SERVER: u64 = 0;

/// Whom virglrenderer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// The render server.
    Server,
    /// The process of this context.
    Context(u32),
    /// Any process of a context: a resource is taken from all that have it.
    Any,
}

/// The render server and its contexts' processes. The renderer's thread makes and ends them, others may
/// ask.
#[derive(Debug)]
pub(super) struct Workers {
    /// Readable when a process has ended.
    epoll: OwnedFd,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    server: Option<RenderServer>,
    contexts: HashMap<u32, Connection>,
    /// Whom virglrenderer is talking to, and since when.
    waits: Option<(Peer, Instant)>,
}

/// A second descriptor of a context's socket.
#[derive(Debug)]
struct Connection {
    socket: OwnedFd,
    inode: u64,
}

impl Workers {
    /// # Errors
    /// No events to be had.
    pub(super) fn new(server: RenderServer) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let data = epoll::EventData::new_u64(SERVER);
        epoll::add(&epoll, server.connection(), data, epoll::EventFlags::HUP)?;
        Ok(Self {
            epoll,
            state: Mutex::new(State {
                server: Some(server),
                contexts: HashMap::new(),
                waits: None,
            }),
        })
    }

    /// A descriptor that is readable when [`Self::ended`] has something to say.
    ///
    /// # Errors
    /// No descriptor to be had.
    pub(super) fn poll_descriptor(&self) -> io::Result<OwnedFd> {
        self.epoll.try_clone()
    }

    /// Whether the server is there.
    pub(super) fn has_server(&self) -> bool {
        lock(&self.state).server.is_some()
    }

    /// Takes note of the process of a context that virglrenderer has just made.
    ///
    /// # Errors
    /// One line: nobody would notice its end.
    pub(super) fn adopt(&self, context: u32) -> Result<(), String> {
        let mut state = lock(&self.state);
        let server = state.server.as_ref().and_then(RenderServer::pid);
        let server = server.ok_or("the render server has ended")?;
        let found = find(server, |inode| {
            state.contexts.values().all(|known| known.inode != inode)
        });
        let connection = found
            .map_err(|error| format!("cannot watch over its process: {error}"))?
            .ok_or("it has no process of its own that could be watched over")?;
        let data = epoll::EventData::new_u64(u64::from(context));
        epoll::add(
            &self.epoll,
            &connection.socket,
            data,
            epoll::EventFlags::HUP,
        )
        .map_err(|error| format!("cannot watch over its process: {error}"))?;
        state.contexts.insert(context, connection);
        Ok(())
    }

    /// A context is about to be destroyed.
    pub(super) fn forget(&self, context: u32) {
        if let Some(connection) = lock(&self.state).contexts.remove(&context) {
            // Closing does not do: virglrenderer has the same socket.
            let _ = epoll::delete(&self.epoll, &connection.socket);
        }
    }

    /// Whether the process of a context has ended, or been given up.
    pub(super) fn has_ended(&self, context: u32) -> bool {
        let state = lock(&self.state);
        let connection = state.contexts.get(&context);
        connection.is_some_and(|connection| is(&connection.socket, PollFlags::HUP))
    }

    /// The most bytes of commands that a context's socket takes in one piece.
    pub(super) fn largest_submit(&self, context: u32) -> usize {
        let state = lock(&self.state);
        let connection = state.contexts.get(&context);
        let size = connection.map(|it| sockopt::socket_send_buffer_size(&it.socket));
        // What the kernel keeps of it for itself (`unix_dgram_sendmsg`, net/unix/af_unix.c).
        size.and_then(Result::ok).unwrap_or(0).saturating_sub(32)
    }

    /// The contexts whose processes have ended; all, after the server has.
    pub(super) fn ended(&self) -> Vec<u32> {
        let mut events = Vec::with_capacity(EVENTS);
        let now = Timespec::default();
        let spare = rustix::buffer::spare_capacity(&mut events);
        if let Err(error) = epoll::wait(&self.epoll, spare, Some(&now)) {
            let error = io::Error::from(error);
            log::debug!("which Vulkan process has ended is not known: {error}");
        }
        let ids: Vec<_> = events.iter().map(|event| event.data.u64()).collect();
        if ids.contains(&SERVER) {
            return self.server_ended();
        }
        let ids = ids.iter().filter_map(|&id| u32::try_from(id).ok());
        ids.collect()
    }

    /// Ends the server, with all that is left of contexts.
    pub(super) fn end(&self) {
        let server = lock(&self.state).server.take();
        drop(server);
    }

    fn server_ended(&self) -> Vec<u32> {
        let (server, contexts) = {
            let mut state = lock(&self.state);
            let contexts = state.contexts.keys().copied().collect();
            (state.server.take(), contexts)
        };
        if let Some(mut server) = server {
            // As with those of contexts: closing does not do.
            let _ = epoll::delete(&self.epoll, server.connection());
            let status = server.end().map(|status| format!(" with {status}"));
            log::error!(
                "the render server (virgl_render_server) has ended{}: Vulkan contexts fail from now \
                 on; start nosnoop-gpu again for Vulkan",
                status.unwrap_or_default()
            );
        }
        contexts
    }

    /// Does something for which virglrenderer may wait for a process.
    pub(super) fn during<T>(&self, peer: Peer, work: impl FnOnce() -> T) -> T {
        lock(&self.state).waits = Some((peer, Instant::now()));
        let result = work();
        lock(&self.state).waits = None;
        result
    }

    /// Ends virglrenderer's wait for a process if it has taken this long: that process is given up.
    pub(super) fn rescue(&self, limit: Duration) {
        let mut state = lock(&self.state);
        let Some((peer, since)) = state.waits else {
            return;
        };
        if since.elapsed() < limit {
            return;
        }
        state.waits = Some((peer, Instant::now()));
        let seconds = limit.as_secs();
        if peer == Peer::Server {
            log::error!("the render server has not answered for {seconds} s, so it is ended");
            if let Some(server) = &state.server {
                server.kill();
            }
            return;
        }
        for (id, connection) in &state.contexts {
            let stuck = match peer {
                Peer::Context(context) => context == *id,
                _ => !is(&connection.socket, PollFlags::OUT),
            };
            if stuck {
                log::warn!(
                    "the process of Vulkan context {id} has not answered for {seconds} s, so it is \
                     given up"
                );
                // Fails only where it has gone by itself.
                let _ = shutdown(&connection.socket, Shutdown::Both);
            }
        }
    }
}

/// Whether a socket is in this state now.
fn is(socket: &OwnedFd, state: PollFlags) -> bool {
    let mut polled = [PollFd::new(socket, state)];
    let now = Timespec::default();
    let count = rustix::io::retry_on_intr(|| poll(&mut polled, Some(&now)));
    count.is_ok() && polled.iter().any(|polled| polled.revents().contains(state))
}

/// Finds the socket of a context among the descriptors of this process: the server has made it, and it
/// is not known yet.
fn find(server: Pid, is_new: impl Fn(u64) -> bool) -> io::Result<Option<Connection>> {
    let me = pidfd_open(getpid(), PidfdFlags::empty())?;
    for entry in fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse::<RawFd>().ok()) else {
            continue;
        };
        let link = fs::read_link(format!("/proc/self/fd/{number}"));
        // Others come and go meanwhile.
        let Some(inode) = link.ok().and_then(|link| socket_inode(link.to_str()?)) else {
            continue;
        };
        if !is_new(inode) {
            continue;
        }
        let socket = match pidfd_getfd(&me, number, PidfdGetfdFlags::empty()) {
            Err(Errno::BADF) => continue,
            result => result?,
        };
        if is_of(&socket, server) {
            return Ok(Some(Connection { socket, inode }));
        }
    }
    Ok(None)
}

/// The inode in what the kernel calls a socket: `socket:[123]`.
fn socket_inode(link: &str) -> Option<u64> {
    let number = link.strip_prefix("socket:[")?.strip_suffix(']')?;
    number.parse().ok()
}

/// Whether a socket is one of a pair for packets that this process has made.
fn is_of(socket: &impl AsFd, process: Pid) -> bool {
    sockopt::socket_type(socket) == Ok(SocketType::SEQPACKET)
        && sockopt::socket_peercred(socket).is_ok_and(|peer| peer.pid == process)
}

#[cfg(test)]
mod tests;
