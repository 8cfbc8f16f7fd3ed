//! The front-end's end of the display socket (QEMU's docs/interop/vhost-user-gpu.rst).
//!
//! A thread reads what the daemon sends, keeps a shadow picture and a cursor per scanout, answers
//! requests, and counts everything. It can be told to misbehave: stop reading, leave a kind of
//! request unanswered, answer late or with garbage, close the socket.

mod server;
mod state;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::EventfdFlags;

pub use state::{CursorState, DisplayState, Scanout, kind};

use super::error::{Deadline, Error, Result, patience};
use super::pixels::Picture;
use super::request::Rect;
use super::response::DisplayOne;

/// VHOST_USER_GPU_PROTOCOL_F_EDID.
pub const FEATURE_EDID: u64 = 1 << 0;
/// VHOST_USER_GPU_PROTOCOL_F_DMABUF2.
pub const FEATURE_DMABUF2: u64 = 1 << 1;

/// How a kind of request is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Answer {
    /// At once, as the specification says.
    #[default]
    Now,
    /// Never.
    Never,
    /// Correctly, after a while; everything else goes on meanwhile.
    Late(Duration),
    /// With these bytes instead of the answer, header included.
    Raw(Vec<u8>),
    /// By closing the socket.
    Close,
}

/// What the display offers and how it behaves; may be changed while it runs.
#[derive(Clone, Debug)]
pub struct DisplayConfig {
    /// Protocol features offered.
    pub features: u64,
    /// The displays, from scanout 0 on; missing ones are off.
    pub displays: Vec<DisplayOne>,
    /// EDID bytes per scanout, from scanout 0 on; missing ones are empty.
    pub edids: Vec<Vec<u8>>,
    /// How requests are answered, by request number ([`kind`]); missing ones at once.
    pub answers: BTreeMap<u32, Answer>,
}

impl DisplayConfig {
    /// One display of this size, with EDID offered and a recognisable EDID.
    pub fn sized(width: u32, height: u32) -> Self {
        let one = DisplayOne {
            rect: Rect::sized(width, height),
            enabled: true,
            flags: 0,
        };
        DisplayConfig {
            features: FEATURE_EDID,
            displays: vec![one],
            edids: vec![(0..128).collect()],
            answers: BTreeMap::new(),
        }
    }

    /// The same with a way to answer one kind of request.
    #[must_use]
    pub fn answering(mut self, kind: u32, answer: Answer) -> Self {
        self.answers.insert(kind, answer);
        self
    }
}

impl Default for DisplayConfig {
    fn default() -> Self {
        DisplayConfig::sized(1280, 800)
    }
}

/// State and switches that the handle and its thread share.
#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug)]
struct Inner {
    config: DisplayConfig,
    state: DisplayState,
    reading: bool,
    closing: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running display.
#[derive(Debug)]
pub struct DisplayServer {
    shared: Arc<Shared>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl DisplayServer {
    /// Starts a display; the returned socket is the daemon's end, for GPU_SET_SOCKET.
    ///
    /// # Errors
    /// [`Error::Io`] if the socket or the thread cannot be made.
    pub fn start(config: DisplayConfig) -> Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair().map_err(|e| Error::io("socketpair", e))?;
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|e| Error::io("eventfd", e))?;
        let wake = Arc::new(wake);
        let inner = Inner {
            config,
            state: DisplayState::default(),
            reading: true,
            closing: false,
        };
        let shared = Arc::new(Shared {
            inner: Mutex::new(inner),
            changed: Condvar::new(),
        });
        let thread = std::thread::Builder::new()
            .name("display".to_owned())
            .spawn({
                let (shared, wake) = (shared.clone(), wake.clone());
                move || server::run(&shared, ours, &wake)
            })
            .map_err(|e| Error::io("start the display thread", e))?;
        Ok((
            DisplayServer {
                shared,
                wake,
                thread: Some(thread),
            },
            theirs.into(),
        ))
    }

    /// Changes what the display offers or how it behaves from now on.
    pub fn configure(&self, change: impl FnOnce(&mut DisplayConfig)) {
        change(&mut self.shared.lock().config);
    }

    /// Stops reading from the socket: it fills up on the daemon's side.
    pub fn stop_reading(&self) {
        self.shared.lock().reading = false;
        self.poke();
    }

    /// Reads on.
    pub fn resume_reading(&self) {
        self.shared.lock().reading = true;
        self.poke();
    }

    /// Closes the display's end of the socket, as a front-end that dies does.
    pub fn close(&mut self) {
        self.shared.lock().closing = true;
        self.poke();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread shows as a violation or a missing picture.
            let _ = thread.join();
        }
    }

    fn poke(&self) {
        // A full eventfd is readable anyway.
        let _ = rustix::io::write(&*self.wake, &1_u64.to_ne_bytes());
    }

    /// Looks at the present state.
    pub fn with<T>(&self, look: impl FnOnce(&DisplayState) -> T) -> T {
        look(&self.shared.lock().state)
    }

    /// Waits until `look` finds what it looks for.
    ///
    /// # Errors
    /// [`Error::Timeout`] naming `awaited` after [`patience`](super::error::patience).
    pub fn wait_for<T>(
        &self,
        awaited: &str,
        mut look: impl FnMut(&DisplayState) -> Option<T>,
    ) -> Result<T> {
        let deadline = Deadline::after(patience());
        let mut inner = self.shared.lock();
        loop {
            if let Some(found) = look(&inner.state) {
                return Ok(found);
            }
            let left = deadline.left(&format!("{awaited} on the display"))?;
            inner = self
                .shared
                .changed
                .wait_timeout(inner, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Waits until a scanout shows exactly this picture.
    ///
    /// # Errors
    /// [`Error::Timeout`], saying how the last picture differed.
    pub fn wait_picture(&self, scanout: usize, expected: &Picture) -> Result<()> {
        let mut last = String::from("nothing was shown");
        let seen = self.wait_for("the expected picture", |state| {
            match &state.scanouts[scanout] {
                Some(shown) if shown.picture == *expected => return Some(()),
                Some(shown) => last = shown.picture.difference(expected),
                None => {}
            }
            None
        });
        seen.map_err(|error| match error {
            Error::Timeout { awaited, waited } => Error::Timeout {
                awaited: format!("{awaited} ({last})"),
                waited,
            },
            other => other,
        })
    }

    /// How many messages of a kind came so far.
    pub fn count(&self, kind: u32) -> u64 {
        self.with(|state| state.counts.get(&kind).copied().unwrap_or(0))
    }

    /// Broken rules of the display protocol so far.
    pub fn violations(&self) -> Vec<String> {
        self.with(|state| state.violations.clone())
    }
}

impl Drop for DisplayServer {
    fn drop(&mut self) {
        self.close();
    }
}
