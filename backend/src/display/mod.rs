//! The screens: what the guest has flushed, and the way it takes to the display.
//!
//! A [`Display`] holds a shadow picture per scanout. The device draws into it and never waits for
//! anyone. With a display socket (QEMU's docs/interop/vhost-user-gpu.rst) it sends a small change
//! itself if the socket takes it at once. All else a sender thread brings over, at the pace of the
//! display: damage merges, and what is sent is always the newest picture. Without a socket, or after
//! it broke, the device runs headless and the shadows serve screenshots.
//!
//! A picture that a renderer has in a dma-buf can go to the display as that, without a copy, if the one
//! who starts the daemon says that the display takes it ([`Display::with_dmabufs`]).
//!
//! * `screen`, `cursor`: one scanout each, and what of it waits to be sent; `shared`: dma-bufs
//! * `link`: what the device's threads and the sender share; `requests`: questions and answers
//! * `socket`: the thread; `outbox`: what is written; `inbox`: what it reads; `wire`: the messages

mod cursor;
mod inbox;
mod link;
mod outbox;
mod requests;
mod screen;
mod screenshot;
mod shared;
mod socket;
#[cfg(test)]
mod tests;
mod wire;

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use nosnoop_protocol::edid::{self, Edid, EdidSpec, Mode};
use nosnoop_protocol::geometry::{Rect, Size};
use nosnoop_protocol::ids::ScanoutId;
use nosnoop_protocol::reply::{DisplayInfo, DisplayMode, GpuError};

use link::{Link, Marks, Slots};
use requests::{Outcome, Question};
pub use shared::DmaBuf;

use crate::sync::lock;

/// Bytes of a cursor picture: 64 x 64 pixels a8r8g8b8.
pub const CURSOR_BYTES: usize = 64 * 64 * 4;

/// An output that neither the options nor the display describe.
pub const DEFAULT_OUTPUT: OutputConfig = OutputConfig {
    size: Size {
        width: 1280,
        height: 800,
    },
    refresh_hz: 60,
};

/// Sizes that a generated EDID offers besides the preferred one, at its refresh rate.
const COMMON_SIZES: [(u32, u32); 6] = [
    (1920, 1080),
    (1600, 900),
    (1280, 800),
    (1280, 720),
    (1024, 768),
    (800, 600),
];

/// One output as the command line asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputConfig {
    /// Preferred size in pixels.
    pub size: Size,
    /// Pictures per second, for the EDID.
    pub refresh_hz: u32,
}

/// The screens of one device, for one connection of a front-end.
///
/// Shared by all threads of the device. Only [`display_info`](Self::display_info) and
/// [`edid`](Self::edid) wait for the front-end, for a bounded time.
pub struct Display {
    options: Vec<OutputConfig>,
    /// Displays show dma-bufs.
    dmabufs: bool,
    slots: Arc<Slots>,
    /// The highest number of outputs that a display has spoken of.
    reported: AtomicUsize,
    /// Whom to signal. Held for moments only.
    link: Mutex<Option<Arc<Link>>>,
    /// The sender. Held while one is started or joined.
    sender: Mutex<Option<JoinHandle<()>>>,
}

impl Display {
    /// A display with all scanouts off and no socket; outputs beyond 16 are ignored.
    #[must_use]
    pub fn new(outputs: Vec<OutputConfig>) -> Self {
        Self {
            options: outputs,
            dmabufs: false,
            slots: Arc::new(Slots::new()),
            reported: AtomicUsize::new(0),
            link: Mutex::new(None),
            sender: Mutex::new(None),
        }
    }

    /// The same for displays that show dma-bufs: with OpenGL, on the GPU that draws. They cannot be
    /// asked. QEMU without OpenGL, for one, takes dma-bufs and shows nothing.
    #[must_use]
    pub fn with_dmabufs(mut self) -> Self {
        self.dmabufs = true;
        self
    }

    /// Shows the screens on `socket` from now on, in place of an earlier socket: what
    /// `VHOST_USER_GPU_SET_SOCKET` brings. The new display is sent all that is on the screens.
    ///
    /// # Errors
    /// No descriptor or thread to be had; there is no display then.
    pub fn attach_socket(&self, socket: UnixStream) -> io::Result<()> {
        let mut sender = lock(&self.sender);
        self.end(sender.take());
        let socket = Arc::new(socket);
        let link = Arc::new(Link::new(Arc::clone(&socket))?);
        for (_, slot) in self.slots.iter() {
            slot.screen().forget_display();
            lock(&slot.cursor).forget_display();
        }
        self.slots.mark(Marks::ALL);
        // First the link, then the thread: nothing that is drawn meanwhile goes unnoticed.
        *lock(&self.link) = Some(Arc::clone(&link));
        match socket::start(socket, Arc::clone(&link), Arc::clone(&self.slots)) {
            Ok(thread) => {
                *sender = Some(thread);
                Ok(())
            }
            Err(error) => {
                *lock(&self.link) = None;
                link.close();
                Err(error)
            }
        }
    }

    /// Closes the socket, if there is one, without waiting for the display: what it has not read
    /// yet is lost. The screens stay.
    pub fn detach(&self) {
        let mut sender = lock(&self.sender);
        self.end(sender.take());
    }

    fn end(&self, thread: Option<JoinHandle<()>>) {
        if let Some(link) = lock(&self.link).take() {
            link.stop();
        }
        if thread.is_some_and(|thread| thread.join().is_err()) {
            log::error!("the display sender failed: this is a bug, please report it");
        }
    }

    /// How many scanouts there are, 0..=16: as many as the options name, more if a display has
    /// ever had more enabled. Does not ask the display.
    #[must_use]
    pub fn outputs(&self) -> usize {
        let options = self.options.len().min(self.slots.iter().count());
        options.max(self.reported.load(Ordering::Relaxed))
    }

    /// Whether the guest may name a scanout: one of [`outputs`](Self::outputs), or any while there
    /// is a display. Then the front-end, which tells the guest how many there are, has the last
    /// word, and an output that is off is in none of the display's answers (QEMU's `max_outputs`).
    #[must_use]
    pub fn has_output(&self, id: ScanoutId) -> bool {
        id.index() < self.outputs() || self.link().is_some()
    }

    /// The outputs, as the display says when asked now. If it does not answer in time, or there
    /// is no display: its last answer, else the outputs of the options side by side.
    #[must_use]
    pub fn display_info(&self) -> DisplayInfo {
        if let Some(link) = self.link() {
            link.requests
                .ask(Question::DisplayInfo, || link.push(&self.slots));
        }
        self.known_info()
    }

    /// The EDID of a scanout: from the display if it offers EDIDs and answers in time, else its
    /// last answer, else one for the size that the display or the options give the output.
    #[must_use]
    pub fn edid(&self, id: ScanoutId) -> Edid {
        let reported = self.reported.load(Ordering::Relaxed);
        if reported > 0 && id.index() >= reported {
            // QEMU leaves a question about an output that it does not have without an answer.
            return self.generate_edid(id, &self.known_info());
        }
        let mut outcome = Outcome::Unsupported;
        if let Some(link) = self.link() {
            outcome = link
                .requests
                .ask(Question::Edid(id), || link.push(&self.slots));
            if let Some(edid) = link.requests.last_edid(id) {
                return edid;
            }
        }
        let info = match outcome {
            // It answers, but has no EDID for us: then at least its size.
            Outcome::Unsupported | Outcome::Answered => self.display_info(),
            // One wait is enough.
            Outcome::Missed => self.known_info(),
        };
        self.generate_edid(id, &info)
    }

    /// Gives a scanout a size, or switches it off. A new size begins black; the same size again
    /// keeps the picture until the guest flushes another.
    ///
    /// # Errors
    /// `OutOfMemory`: no memory for the picture; the scanout is as before.
    pub fn set_scanout(&self, id: ScanoutId, size: Option<Size>) -> Result<(), GpuError> {
        self.set_scanout_to(id, size, None)
    }

    /// As [`set_scanout`](Self::set_scanout); with a dma-buf the display shows the upper left part of
    /// that. It may still do so for a moment after the guest has been told that another is shown.
    ///
    /// # Errors
    /// As [`set_scanout`](Self::set_scanout).
    pub fn set_scanout_to(
        &self,
        id: ScanoutId,
        size: Option<Size>,
        buffer: Option<DmaBuf>,
    ) -> Result<(), GpuError> {
        let Some(slot) = self.slots.get(id) else {
            return Err(GpuError::InvalidScanoutId);
        };
        let features = self.dmabuf_features();
        let told = |buffer: &DmaBuf| features.is_some_and(|it| buffer.can_be_told(it));
        let resized = slot.screen().resize(size, buffer.filter(told));
        self.push(Marks::of(id));
        resized.map(drop)
    }

    /// Whether there is a display that shows dma-bufs.
    #[must_use]
    pub fn takes_dmabufs(&self) -> bool {
        self.dmabuf_features().is_some()
    }

    fn dmabuf_features(&self) -> Option<u64> {
        self.link().filter(|_| self.dmabufs)?.requests.features()
    }

    /// Has the display show a part of a scanout anew if it has it in a dma-buf: `None` then, else what is
    /// to be drawn by [`update`](Self::update). That is more than `damage` after a display with the
    /// dma-buf went. The display is never waited for: while it does not show what it has been told of,
    /// further damage merges.
    #[must_use]
    pub fn update_shared(&self, id: ScanoutId, damage: Rect) -> Option<Rect> {
        let slot = self.slots.get(id)?;
        let mut screen = slot.screen();
        if !self.dmabufs {
            return Some(damage);
        }
        let to_draw = screen.flushed(damage, self.dmabuf_features());
        drop(screen);
        if to_draw.is_none() {
            self.push(Marks::of(id));
        }
        to_draw
    }

    /// Draws on a scanout. `row` is called for each line of `damage` from top to bottom, with y
    /// in the scanout and the x8r8g8b8 little-endian bytes of `damage.width` pixels to write.
    ///
    /// `damage` is clipped to the scanout by the caller; one that is not, is ignored.
    ///
    /// # Errors
    /// What `row` returned; the rows before are drawn.
    pub fn update<E>(
        &self,
        id: ScanoutId,
        damage: Rect,
        row: impl FnMut(u32, &mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(slot) = self.slots.get(id) else {
            return Ok(());
        };
        let drawn = slot.screen().draw(damage, row);
        self.push(Marks::of(id));
        drawn
    }

    /// Shows the cursor of a scanout at `(x, y)` with a new picture: 64 x 64 pixels a8r8g8b8
    /// little-endian, whose pixel `(hot_x, hot_y)` is the tip. Places left of or above the
    /// scanout are large numbers.
    pub fn cursor_update(
        &self,
        id: ScanoutId,
        x: u32,
        y: u32,
        hot_x: u32,
        hot_y: u32,
        argb64: &[u8; CURSOR_BYTES],
    ) {
        if let Some(slot) = self.slots.get(id) {
            lock(&slot.cursor).update((x, y), (hot_x, hot_y), argb64);
            self.push(Marks::of(id));
        }
    }

    /// Moves the cursor of a scanout to `(x, y)`. One that was hidden stays hidden until its next
    /// picture.
    pub fn cursor_move(&self, id: ScanoutId, x: u32, y: u32) {
        if let Some(slot) = self.slots.get(id) {
            lock(&slot.cursor).move_to((x, y));
            self.push(Marks::of(id));
        }
    }

    /// Hides the cursor of a scanout.
    pub fn cursor_hide(&self, id: ScanoutId, x: u32, y: u32) {
        if let Some(slot) = self.slots.get(id) {
            lock(&slot.cursor).hide((x, y));
            self.push(Marks::of(id));
        }
    }

    /// Switches all scanouts off, frees their pictures and hides all cursors: a device reset.
    pub fn reset(&self) {
        for (_, slot) in self.slots.iter() {
            // Switching off takes no memory.
            let _ = slot.screen().resize(None, None);
            lock(&slot.cursor).reset();
        }
        self.push(Marks::ALL);
    }

    /// Writes one `scanout-N.png` into `dir` for each scanout that is on, and returns their
    /// paths; none for one that the display has in a dma-buf, of which nothing is here. Files appear complete; the guest waits only while a picture is copied.
    ///
    /// # Errors
    /// A file cannot be written, or there is no memory for a copy.
    pub fn screenshot(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        screenshot::write_all(&self.slots, dir)
    }

    fn link(&self) -> Option<Arc<Link>> {
        lock(&self.link).clone()
    }

    /// Has the display sent what has changed on these scanouts.
    fn push(&self, changed: Marks) {
        self.slots.mark(changed);
        if let Some(link) = self.link() {
            link.push(&self.slots);
        }
    }

    /// The newest answer of the display, else the options.
    fn known_info(&self) -> DisplayInfo {
        let Some(info) = self.link().and_then(|link| link.requests.last_info()) else {
            return self.info_from_options();
        };
        let enabled = info.modes.iter().rposition(|mode| mode.enabled);
        let outputs = enabled.map_or(0, |highest| highest.saturating_add(1));
        self.reported.fetch_max(outputs, Ordering::Relaxed);
        info
    }

    fn info_from_options(&self) -> DisplayInfo {
        let mut info = DisplayInfo::default();
        let mut x = 0_u32;
        for (mode, output) in info.modes.iter_mut().zip(&self.options) {
            let Size { width, height } = output.size;
            *mode = DisplayMode {
                rect: Rect {
                    x,
                    y: 0,
                    width,
                    height,
                },
                enabled: true,
                flags: 0,
            };
            x = x.saturating_add(width);
        }
        info
    }

    fn generate_edid(&self, id: ScanoutId, info: &DisplayInfo) -> Edid {
        let option = self
            .options
            .get(id.index())
            .copied()
            .unwrap_or(DEFAULT_OUTPUT);
        let said = info.modes.get(id.index()).map(|mode| mode.rect.size());
        let Size { width, height } = said.filter(|size| !size.is_empty()).unwrap_or(option.size);
        let refresh_hz = option.refresh_hz;
        let preferred = Mode {
            width,
            height,
            refresh_hz,
        };
        let modes = COMMON_SIZES.map(|(width, height)| Mode {
            width,
            height,
            refresh_hz,
        });
        edid::generate(&EdidSpec {
            preferred,
            modes: &modes,
            name: "nosnoop",
            serial: id.get(),
        })
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.detach();
    }
}
