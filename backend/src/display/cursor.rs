//! The cursor of one scanout and what of it the display has not been sent yet.
//!
//! Only the newest picture and the newest place wait; a place that came after a picture is sent
//! after it.

use nosnoop_protocol::ids::ScanoutId;

use super::{CURSOR_BYTES, wire};

/// The cursor of one scanout.
pub(super) struct Cursor {
    shape: Option<Shape>,
    /// The display lacks `shape`.
    shape_waits: bool,
    place: Place,
    /// The display lacks `place`.
    place_waits: bool,
    /// The guest has hidden it and not given it a picture since.
    concealed: bool,
}

struct Shape {
    /// Where the cursor was when it got this shape.
    x: u32,
    y: u32,
    hot_x: u32,
    hot_y: u32,
    /// [`CURSOR_BYTES`] of a8r8g8b8 little-endian.
    argb: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Place {
    x: u32,
    y: u32,
    visible: bool,
}

/// A message about the cursor.
pub(super) enum Message<'a> {
    Shape(wire::CursorUpdate, &'a [u8]),
    Move(wire::CursorPos),
    Hide(wire::CursorPos),
}

impl Cursor {
    pub(super) const fn hidden() -> Self {
        Self {
            shape: None,
            shape_waits: false,
            place: Place {
                x: 0,
                y: 0,
                visible: false,
            },
            place_waits: false,
            concealed: false,
        }
    }

    /// Shows the cursor at `(x, y)` with a new picture. Without memory for the first picture the
    /// cursor stays as it is.
    pub(super) fn update(
        &mut self,
        (x, y): (u32, u32),
        (hot_x, hot_y): (u32, u32),
        argb: &[u8; CURSOR_BYTES],
    ) {
        let mut bytes = self
            .shape
            .take()
            .map(|shape| shape.argb)
            .unwrap_or_default();
        bytes.clear();
        if bytes.try_reserve_exact(CURSOR_BYTES).is_err() {
            log::warn!("no memory for a cursor picture: the cursor keeps its look");
            return;
        }
        bytes.extend_from_slice(argb);
        self.shape = Some(Shape {
            x,
            y,
            hot_x,
            hot_y,
            argb: bytes,
        });
        self.shape_waits = true;
        // The message with the picture also places and shows the cursor.
        self.place = Place {
            x,
            y,
            visible: true,
        };
        self.place_waits = false;
        self.concealed = false;
    }

    /// Moves the cursor; one that the guest has hidden stays so.
    pub(super) fn move_to(&mut self, (x, y): (u32, u32)) {
        self.place = Place {
            x,
            y,
            visible: !self.concealed,
        };
        self.place_waits = true;
    }

    /// Hides the cursor until it gets a picture.
    pub(super) fn hide(&mut self, place: (u32, u32)) {
        self.concealed = true;
        self.move_to(place);
    }

    /// Hides a visible cursor and forgets its picture.
    pub(super) fn reset(&mut self) {
        self.shape = None;
        self.shape_waits = false;
        self.concealed = false;
        // A place that waits has the display show the cursor, or an earlier one did.
        self.place_waits |= self.place.visible;
        self.place.visible = false;
    }

    /// A new display is there: it has to be told everything.
    pub(super) fn forget_display(&mut self) {
        self.shape_waits = self.shape.is_some();
        self.place_waits = self.place.visible || self.shape_waits;
    }

    /// The message that has to be sent next.
    pub(super) fn take(&mut self, id: ScanoutId) -> Option<Message<'_>> {
        let scanout_id = id.get();
        if std::mem::take(&mut self.shape_waits)
            && let Some(shape) = &self.shape
        {
            let Shape {
                x, y, hot_x, hot_y, ..
            } = *shape;
            let pos = wire::CursorPos { scanout_id, x, y };
            return Some(Message::Shape(
                wire::CursorUpdate { pos, hot_x, hot_y },
                &shape.argb,
            ));
        }
        if !std::mem::take(&mut self.place_waits) {
            return None;
        }
        let Place { x, y, visible } = self.place;
        let pos = wire::CursorPos { scanout_id, x, y };
        Some(if visible {
            Message::Move(pos)
        } else {
            Message::Hide(pos)
        })
    }
}
