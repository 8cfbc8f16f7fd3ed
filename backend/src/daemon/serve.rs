//! From the command line to sessions: sockets, signals, one front-end after the other.

use std::fs;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::net::{AddressFamily, SocketType, sockopt};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use super::session;
use crate::device::channel::MAX_DESCRIPTORS;
use crate::device::quota::Limits;
use crate::display::{Display, OutputConfig};
use crate::memory::flush::CacheFlusher;
use crate::memory::source::{Choice, Source, SourceError};
use crate::render::isolation;
use crate::render::thread::RenderThread;
use crate::sync::lock;
use crate::sys::fd::inherited;

/// Where front-ends come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Listen on this path.
    Path(PathBuf),
    /// Use this inherited descriptor: a connected socket, or a listening one for one connection.
    Fd(RawFd),
}

/// Everything that the command line decides.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where front-ends come from.
    pub endpoint: Endpoint,
    /// End after the first front-end.
    pub once: bool,
    /// The outputs, unless a display socket says otherwise; 1 to 16.
    pub outputs: Vec<OutputConfig>,
    /// Displays show dma-bufs.
    pub dmabufs: bool,
    /// The guest's quotas.
    pub limits: Limits,
    /// Bytes of the region for host memory that guests map, a page multiple; 0 for none.
    pub shm_size: u64,
    /// How long a front-end may take to map or unmap host memory.
    pub shm_deadline: Duration,
    /// Whether front-ends may share guest memory region by region, up to 509 of them.
    pub mem_slots: bool,
    /// Where blobs' memory comes from and how it may be mapped.
    pub memory: Choice,
    /// The socket of a Wayland compositor, for guests' channels; they need a region for host memory.
    pub wayland_socket: Option<PathBuf>,
    /// Where SIGUSR1 puts its pictures.
    pub screenshot_dir: PathBuf,
    /// Makes the 3D renderer, where one is wanted.
    pub renderer: Option<StartRenderer>,
}

/// Makes a 3D renderer, which a process can do once. `None`: there is none to be had after all, and the
/// device goes on without. An error is for a person, in one line.
#[derive(Clone)]
pub struct StartRenderer(
    pub Arc<dyn Fn() -> Result<Option<Arc<RenderThread>>, String> + Send + Sync>,
);

impl std::fmt::Debug for StartRenderer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StartRenderer")
    }
}

impl Options {
    /// A source of blobs for one front-end.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub fn source(&self) -> Result<Source, SourceError> {
        Source::open(self.memory.clone(), Arc::new(CacheFlusher::default()))
    }
}

/// Why the daemon could not do its work; the text is for the person who started it.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The socket's path cannot be listened on.
    #[error("cannot listen on {path}: {source}; choose another --socket-path")]
    Listen {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Something that is not a socket is in the way.
    #[error("{0} exists and is not a socket; choose another --socket-path or remove it")]
    NotASocket(PathBuf),
    /// The inherited descriptor is no use.
    #[error("cannot use descriptor {number} as vhost-user socket: {source}; check --fd")]
    Fd {
        /// The number that was given.
        number: RawFd,
        /// What the system says.
        source: io::Error,
    },
    /// The memory of blobs cannot be allocated as asked.
    #[error("{0}; choose another --render-node or --blob-memory, or leave it out for plain memory")]
    Memory(#[from] SourceError),
    /// There is no compositor.
    #[error(
        "{path} is no Wayland compositor's socket: {source}; start the compositor first, or correct \
         --wayland-socket"
    )]
    Wayland {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The 3D renderer cannot be had.
    #[error("{0}")]
    Renderer(String),
    /// A thread, a signal handler or an event could not be set up.
    #[error("cannot start: {0}")]
    Start(io::Error),
    /// No further connection can be accepted.
    #[error("cannot accept a front-end's connection: {0}")]
    Accept(io::Error),
    /// A connection could not be served for a reason on this side.
    #[error("cannot serve the front-end: {0}")]
    Session(io::Error),
}

/// Serves front-ends until told to stop (SIGTERM, SIGINT), or until the first one leaves where
/// only one can come or is wanted.
///
/// # Errors
/// [`DaemonError`]: what to print before a non-zero exit.
pub fn serve(options: &Options) -> Result<(), DaemonError> {
    // First of all: the descriptor must be taken before this process opens any itself.
    let options = &Options {
        limits: Limits {
            descriptors: descriptor_limit(options.wayland_socket.is_some()),
            ..options.limits
        },
        ..options.clone()
    };
    let inherited = match &options.endpoint {
        Endpoint::Fd(_) => Some(Connections::open(&options.endpoint)?),
        Endpoint::Path(_) => None,
    };
    if options.shm_size > 0 {
        // Each front-end has one of its own; whether there is one is better said now.
        options.source()?;
    }
    if let Some(path) = &options.wayland_socket {
        check_wayland(path)?;
    }
    let renderer = match &options.renderer {
        Some(StartRenderer(start)) => start().map_err(DaemonError::Renderer)?,
        None => None,
    };
    if let Some(renderer) = &renderer {
        isolation::watch(renderer).map_err(DaemonError::Start)?;
    }
    let control = Arc::new(Control::new().map_err(DaemonError::Start)?);
    control
        .handle_signals(options.screenshot_dir.clone())
        .map_err(DaemonError::Start)?;
    // Last of all: who sees the socket may send signals.
    let mut endpoint = match inherited {
        Some(connections) => connections,
        None => Connections::open(&options.endpoint)?,
    };
    while let Some(stream) = endpoint.next(&control)? {
        match control.run_session(stream, options, renderer.as_ref()) {
            // The next front-end may fare better: descriptors or space may be free again by then.
            Err(error) if endpoint.has_more() && !options.once => log::error!("{error}"),
            result => result?,
        }
        if options.once {
            break;
        }
    }
    Ok(())
}

/// Descriptors that are for nothing of a guest's: sockets, events, its memory regions, libraries.
const OTHER_DESCRIPTORS: u64 = 128;

/// How many descriptors this process has for a guest's resources and contexts, beside those of channels.
/// A front-end whose descriptors do not arrive is lost, so guests must not use them up. Takes all that
/// this process may have.
fn descriptor_limit(channels: bool) -> usize {
    let before = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: before.maximum,
        ..before
    };
    if let Err(error) = setrlimit(Resource::Nofile, all) {
        log::debug!("the limit on descriptors stays as it is: {error}");
    }
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let channels = if channels { MAX_DESCRIPTORS } else { 0 };
    let free = descriptors.saturating_sub(OTHER_DESCRIPTORS.saturating_add(channels));
    usize::try_from(free).unwrap_or(usize::MAX)
}

/// Whether there is a socket. The compositor may still go and come back: each channel connects anew.
fn check_wayland(path: &Path) -> Result<(), DaemonError> {
    let checked = fs::metadata(path).and_then(|metadata| match metadata.file_type().is_socket() {
        true => Ok(()),
        false => Err(io::Error::other("it is not a socket")),
    });
    checked.map_err(|source| DaemonError::Wayland {
        path: path.to_owned(),
        source,
    })
}

/// Gives the connections.
enum Connections {
    Listener {
        socket: UnixListener,
        path: PathBuf,
        /// The socket's file, as another daemon may take the path over.
        file: Option<(u64, u64)>,
    },
    Inherited(Option<Inherited>),
}

enum Inherited {
    Connected(UnixStream),
    Listening(UnixListener),
}

impl Inherited {
    /// # Errors
    /// `InvalidInput` for a socket of another family or type.
    fn new(fd: OwnedFd) -> io::Result<Self> {
        let unix = sockopt::socket_domain(&fd)? == AddressFamily::UNIX;
        if !unix || sockopt::socket_type(&fd)? != SocketType::STREAM {
            let what = "it is not a Unix stream socket";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        // Whoever made it may have used it in an event loop; here threads wait on it.
        rustix::io::ioctl_fionbio(&fd, false)?;
        Ok(if sockopt::socket_acceptconn(&fd)? {
            Self::Listening(UnixListener::from(fd))
        } else {
            Self::Connected(UnixStream::from(fd))
        })
    }
}

impl Connections {
    fn open(endpoint: &Endpoint) -> Result<Self, DaemonError> {
        match endpoint {
            Endpoint::Path(path) => {
                remove_stale_socket(path)?;
                let socket = UnixListener::bind(path).map_err(|source| DaemonError::Listen {
                    path: path.clone(),
                    source,
                })?;
                Ok(Self::Listener {
                    socket,
                    path: path.clone(),
                    file: identity(path),
                })
            }
            Endpoint::Fd(number) => {
                let failed = |source| DaemonError::Fd {
                    number: *number,
                    source,
                };
                let fd = inherited(*number).map_err(failed)?;
                Ok(Self::Inherited(Some(Inherited::new(fd).map_err(failed)?)))
            }
        }
    }

    /// Whether further connections can come.
    fn has_more(&self) -> bool {
        matches!(self, Self::Listener { .. } | Self::Inherited(Some(_)))
    }

    /// The next connection; `None` when there is to be no further one.
    fn next(&mut self, control: &Control) -> Result<Option<UnixStream>, DaemonError> {
        match self {
            Self::Listener { socket, .. } => control.accept(socket),
            Self::Inherited(inherited) => match inherited.take() {
                None => Ok(None),
                Some(Inherited::Connected(stream)) => Ok(Some(stream)),
                Some(Inherited::Listening(socket)) => control.accept(&socket),
            },
        }
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        if let Self::Listener { path, file, .. } = self
            && file.is_some()
            && identity(path) == *file
        {
            // If somebody removes it right now, nothing is left to do.
            let _ = fs::remove_file(path);
        }
    }
}

/// Which file a path names, by device and inode.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Takes away the socket that a daemon before us left behind. As with QEMU's own back-ends nothing
/// tells a socket that is still in use from one that is not, so the path is ours to take.
fn remove_stale_socket(path: &Path) -> Result<(), DaemonError> {
    let failed = |source| DaemonError::Listen {
        path: path.to_owned(),
        source,
    };
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => fs::remove_file(path).map_err(failed),
        Ok(_) => Err(DaemonError::NotASocket(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// What the signal thread and the serving thread share.
struct Control {
    stopping: AtomicBool,
    /// Readable once the daemon is to stop; wakes a wait for a connection.
    wake: OwnedFd,
    current: Mutex<Option<Current>>,
}

/// The connection that is being served.
struct Current {
    stream: UnixStream,
    display: Option<Arc<Display>>,
    source: Option<Arc<Source>>,
}

impl Control {
    fn new() -> io::Result<Self> {
        Ok(Self {
            stopping: AtomicBool::new(false),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            current: Mutex::new(None),
        })
    }

    fn handle_signals(self: &Arc<Self>, screenshot_dir: PathBuf) -> io::Result<()> {
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGUSR1])?;
        let control = Arc::clone(self);
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                for signal in signals.forever() {
                    match signal {
                        SIGUSR1 => control.screenshot(&screenshot_dir),
                        _ => control.stop(),
                    }
                }
            })?;
        Ok(())
    }

    fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Only a full counter could refuse, and that one is readable already.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        if let Some(current) = lock(&self.current).as_ref() {
            // An error means that the front-end has gone by itself.
            let _ = current.stream.shutdown(Shutdown::Both);
        }
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    fn screenshot(&self, directory: &Path) {
        let current = lock(&self.current).as_ref().map(|current| {
            let (display, source) = (&current.display, &current.source);
            (display.clone(), source.clone())
        });
        let Some((Some(display), source)) = current else {
            log::warn!("no screenshot: no front-end is connected");
            return;
        };
        if let Some(source) = source {
            log::info!("{}", source.flushes());
        }
        match display.screenshot(directory) {
            Ok(files) if files.is_empty() => log::warn!("no screenshot: no output is in use"),
            Ok(files) => files
                .iter()
                .for_each(|file| log::info!("wrote {}", file.display())),
            Err(error) => log::warn!("no screenshot in {}: {error}", directory.display()),
        }
    }

    fn accept(&self, listener: &UnixListener) -> Result<Option<UnixStream>, DaemonError> {
        while !self.stopping() {
            let mut fds = [
                PollFd::new(listener, PollFlags::IN),
                PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(DaemonError::Accept(error.into())),
            }
            let [connection, _] = fds;
            if connection.revents().is_empty() {
                continue;
            }
            match listener.accept() {
                Ok((stream, _)) => return Ok(Some(stream)),
                // A front-end that went away again before we came.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(DaemonError::Accept(error)),
            }
        }
        Ok(None)
    }

    fn run_session(
        &self,
        stream: UnixStream,
        options: &Options,
        renderer: Option<&Arc<RenderThread>>,
    ) -> Result<(), DaemonError> {
        let copy = stream.try_clone().map_err(DaemonError::Session)?;
        *lock(&self.current) = Some(Current {
            stream: copy,
            display: None,
            source: None,
        });
        let mut result = Ok(());
        // A stop that came before `current` was set has not shut this stream down.
        if !self.stopping() {
            log::info!("a front-end is connected");
            result = session::run(stream, options, renderer, |display, source| {
                if let Some(current) = lock(&self.current).as_mut() {
                    current.display = Some(Arc::clone(display));
                    current.source = source.map(Arc::clone);
                }
            });
            log::info!("the front-end has gone");
        }
        // Taken first and dropped then: with the last of its memory a session flushes, which takes time.
        let current = lock(&self.current).take();
        drop(current);
        result.map_err(DaemonError::Session)
    }
}
