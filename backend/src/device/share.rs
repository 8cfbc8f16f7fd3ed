//! Pictures of 3D resources that go to the display as dma-bufs, without a copy.
//!
//! That needs a display that takes them ([`Display::takes_dmabufs`]), a driver that exports them, and a
//! scanout that begins at the resource's first pixel: the message to the display has no place for
//! another offset, and QEMU ignores the one that it has. What fails on the way is read back and copied
//! as always. No real GPU has run this yet.
//!
//! A flush does not wait until the display has shown it. So a guest may draw into a buffer that the
//! display still reads, if it was told of a newer one meanwhile.
//!
//! [`Display::takes_dmabufs`]: crate::display::Display::takes_dmabufs

use std::sync::{Arc, Once};

use nosnoop_protocol::geometry::{Rect, Size};
use nosnoop_protocol::ids::{ResourceId, ScanoutId};
use nosnoop_protocol::reply::{GpuError, Reply};

use super::resource::Storage;
use super::three_d::refused;
use super::{Device, State};
use crate::display::DmaBuf;

/// Said once: each frame would say it again.
static NOT_EXPORTED: Once = Once::new();

impl Device {
    /// # Errors
    /// See [`State::set_scanout`].
    pub(super) fn set_scanout(
        &self,
        id: ScanoutId,
        rect: Rect,
        resource: Option<ResourceId>,
    ) -> Result<Reply, GpuError> {
        let buffer = resource.and_then(|resource| self.share(rect, resource));
        let mut state = self.state();
        state.set_scanout(&self.display, id, rect, resource, buffer)
    }

    /// A picture as a dma-buf, if it can be shown as that.
    fn share(&self, rect: Rect, id: ResourceId) -> Option<DmaBuf> {
        if !self.display.takes_dmabufs() {
            return None;
        }
        // Nobody else makes or destroys resources meanwhile: see `three_d`.
        let (size, y_0_top) = self.state().shareable(rect, id)?;
        let renderer = self.renderer().ok()?;
        match renderer.call("SET_SCANOUT", move |it| it.export_picture(id)) {
            Ok(picture) => Some(DmaBuf {
                fd: Arc::new(picture.fd),
                size,
                stride: picture.stride,
                fourcc: picture.fourcc,
                modifier: picture.modifier,
                y_0_top,
            }),
            Err(error) => {
                NOT_EXPORTED.call_once(|| {
                    log::warn!("--dmabuf-scanout has no effect, pictures are copied: {error}");
                });
                None
            }
        }
    }

    /// Has the display show what of a flush it has in dma-bufs. What is left is to be read back and drawn:
    /// a part of the resource, and where it goes.
    ///
    /// # Errors
    /// `Unspec` if the renderer has gone.
    pub(super) fn flush_shared(
        &self,
        damages: Vec<(ScanoutId, Rect, Rect)>,
    ) -> Result<Vec<(ScanoutId, Rect, Rect)>, GpuError> {
        if !damages.is_empty() && self.display.takes_dmabufs() {
            let flushed = self.renderer()?.call("RESOURCE_FLUSH", |it| {
                it.flush();
                Ok(())
            });
            flushed.map_err(|error| refused("RESOURCE_FLUSH", &error))?;
        }
        let left = damages.into_iter().filter_map(|(scanout, part, damage)| {
            let to_draw = self.display.update_shared(scanout, damage)?;
            match to_draw == damage {
                true => Some((scanout, part, damage)),
                // All of what was shared, which begins at the resource's first pixel.
                false => Some((scanout, to_draw, to_draw)),
            }
        });
        Ok(left.collect())
    }
}

impl State {
    /// Size and orientation of a 3D resource, if this rectangle of it can be shown as a dma-buf.
    fn shareable(&self, rect: Rect, id: ResourceId) -> Option<(Size, bool)> {
        let Storage::Rendered(rendered) = &self.resources.get(id).ok()?.storage else {
            return None;
        };
        let (size, _) = rendered.picture()?;
        let from_the_first = rect.x == 0 && rect.y == 0;
        from_the_first.then_some((size, rendered.y_0_top()))
    }
}
