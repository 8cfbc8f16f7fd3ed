//! Kernel mode setting: one connector, one CRTC, buffers in guest memory.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use drm::buffer::{Buffer, DrmFourcc};
use drm::control::dumbbuffer::DumbBuffer;
use drm::control::{
    ClipRect, Device as _, Event, Mode, PageFlipFlags, connector, crtc, framebuffer,
};
use nosnoop_guest::pattern::{Area, Size};

use crate::Outcome;

/// The opened GPU.
pub(crate) struct Card(File);

impl AsFd for Card {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl drm::Device for Card {}
impl drm::control::Device for Card {}

impl Card {
    /// Opens a primary node; the first to do so becomes its master.
    pub(crate) fn open(path: &Path) -> std::io::Result<Self> {
        File::options().read(true).write(true).open(path).map(Self)
    }

    /// The first connected connector.
    pub(crate) fn connector(&self) -> Outcome<connector::Info> {
        for handle in self.resource_handles()?.connectors() {
            let info = self.get_connector(*handle, true)?;
            if info.state() == connector::State::Connected {
                return Ok(info);
            }
        }
        Err("no connector is connected".into())
    }

    /// The connector's EDID; empty without one.
    pub(crate) fn edid(&self, connector: connector::Handle) -> Outcome<Vec<u8>> {
        for (id, value) in &self.get_properties(connector)? {
            if self.get_property(*id)?.name() == c"EDID" && *value != 0 {
                return Ok(self.get_property_blob(*value)?);
            }
        }
        Ok(Vec::new())
    }
}

/// A buffer in guest memory that can be shown.
pub(crate) struct Canvas {
    /// The kernel's buffer.
    pub(crate) buffer: DumbBuffer,
    /// The frame buffer on it.
    pub(crate) frame: framebuffer::Handle,
    /// Its size.
    pub(crate) size: Size,
}

impl Canvas {
    /// Makes an XRGB buffer of `size`.
    pub(crate) fn new(card: &Card, size: Size) -> Outcome<Self> {
        let buffer = card.create_dumb_buffer((size.width, size.height), DrmFourcc::Xrgb8888, 32)?;
        let frame = card.add_framebuffer(&buffer, 24, 32)?;
        Ok(Self {
            buffer,
            frame,
            size,
        })
    }

    /// Writes every pixel in memory; the screen does not change by that.
    pub(crate) fn draw(
        &mut self,
        card: &Card,
        mut pixel: impl FnMut(u32, u32) -> u32,
    ) -> Outcome<()> {
        let pitch = self.buffer.pitch() as usize;
        let mut map = card.map_dumb_buffer(&mut self.buffer)?;
        for (y, row) in (0..self.size.height).zip(map.chunks_exact_mut(pitch)) {
            for (x, bytes) in (0..self.size.width).zip(row.chunks_exact_mut(4)) {
                bytes.copy_from_slice(&pixel(x, y).to_le_bytes());
            }
        }
        Ok(())
    }
}

/// A screen with a mode set.
pub(crate) struct Screen<'a> {
    card: &'a Card,
    connector: connector::Handle,
    crtc: crtc::Handle,
}

impl<'a> Screen<'a> {
    /// The screen behind `connector` on the first CRTC that its encoder reaches.
    pub(crate) fn new(card: &'a Card, connector: &connector::Info) -> Outcome<Self> {
        let resources = card.resource_handles()?;
        let encoder = connector
            .encoders()
            .first()
            .ok_or("the connector has no encoder")?;
        let possible = card.get_encoder(*encoder)?.possible_crtcs();
        let crtc = *resources
            .filter_crtcs(possible)
            .first()
            .ok_or("the encoder has no CRTC")?;
        Ok(Self {
            card,
            connector: connector.handle(),
            crtc,
        })
    }

    /// The CRTC.
    pub(crate) fn crtc(&self) -> crtc::Handle {
        self.crtc
    }

    /// Shows `canvas` in `mode`.
    pub(crate) fn show(&self, canvas: &Canvas, mode: Mode) -> Outcome<()> {
        let frame = Some(canvas.frame);
        Ok(self
            .card
            .set_crtc(self.crtc, frame, (0, 0), &[self.connector], Some(mode))?)
    }

    /// Flips to `canvas` and waits until the kernel says that it is shown.
    pub(crate) fn flip(&self, canvas: &Canvas) -> Outcome<()> {
        self.card
            .page_flip(self.crtc, canvas.frame, PageFlipFlags::EVENT, None)?;
        loop {
            let mut events = self.card.receive_events()?;
            if events.any(|event| matches!(event, Event::PageFlip(_))) {
                return Ok(());
            }
        }
    }

    /// Declares areas of `canvas` as changed, in one call.
    pub(crate) fn damage(&self, canvas: &Canvas, areas: &[Area]) -> Outcome<()> {
        let clips = areas
            .iter()
            .map(|area| {
                ClipRect::new(
                    area.x1 as u16,
                    area.y1 as u16,
                    area.x2 as u16,
                    area.y2 as u16,
                )
            })
            .collect::<Vec<_>>();
        Ok(self.card.dirty_framebuffer(canvas.frame, &clips)?)
    }

    /// Shows `picture` as the cursor with its hot spot at 3, 5.
    #[allow(
        deprecated,
        reason = "the legacy calls are what many programs still use"
    )]
    pub(crate) fn show_cursor(&self, picture: &DumbBuffer) -> Outcome<()> {
        Ok(self.card.set_cursor2(self.crtc, Some(picture), (3, 5))?)
    }

    /// Moves the cursor.
    #[allow(
        deprecated,
        reason = "the legacy calls are what many programs still use"
    )]
    pub(crate) fn move_cursor(&self, x: i32, y: i32) -> Outcome<()> {
        Ok(self.card.move_cursor(self.crtc, (x, y))?)
    }

    /// Hides the cursor.
    #[allow(
        deprecated,
        reason = "the legacy calls are what many programs still use"
    )]
    pub(crate) fn hide_cursor(&self) -> Outcome<()> {
        Ok(self.card.set_cursor(self.crtc, None::<&DumbBuffer>)?)
    }
}
