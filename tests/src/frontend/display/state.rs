//! What the display shows, as the messages of the daemon made it.

use std::collections::BTreeMap;

use crate::frontend::message::u32_at;
use crate::frontend::pixels::Picture;
use crate::frontend::request::Rect;

/// Requests on the display socket, as vhost-user-gpu.rst numbers them.
#[expect(
    missing_docs,
    reason = "named as in vhost-user-gpu.rst, which documents them"
)]
pub mod kind {
    pub const GET_PROTOCOL_FEATURES: u32 = 1;
    pub const SET_PROTOCOL_FEATURES: u32 = 2;
    pub const GET_DISPLAY_INFO: u32 = 3;
    pub const CURSOR_POS: u32 = 4;
    pub const CURSOR_POS_HIDE: u32 = 5;
    pub const CURSOR_UPDATE: u32 = 6;
    pub const SCANOUT: u32 = 7;
    pub const UPDATE: u32 = 8;
    pub const DMABUF_SCANOUT: u32 = 9;
    pub const DMABUF_UPDATE: u32 = 10;
    pub const GET_EDID: u32 = 11;
    pub const DMABUF_SCANOUT2: u32 = 12;
}

/// Number of scanouts the protocol knows.
pub(super) const SCANOUTS: usize = 16;
/// Bytes of a cursor picture (64 x 64 pixels of 4 bytes).
pub(super) const CURSOR_BYTES: usize = 64 * 64 * 4;

/// One scanout that is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scanout {
    /// What it shows.
    pub picture: Picture,
    /// The rectangles of all updates since it was set to this size.
    pub updates: Vec<Rect>,
}

/// One cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CursorState {
    /// Whether it is shown.
    pub visible: bool,
    /// Position.
    pub x: u32,
    /// Position.
    pub y: u32,
    /// Hot spot.
    pub hot_x: u32,
    /// Hot spot.
    pub hot_y: u32,
    /// 64 x 64 pixels, bytes B, G, R, A; empty before the first picture.
    pub pixels: Vec<u8>,
}

/// Everything the daemon has said so far.
#[derive(Debug, Default)]
pub struct DisplayState {
    /// Scanouts that are on.
    pub scanouts: [Option<Scanout>; SCANOUTS],
    /// Cursors, per scanout.
    pub cursors: [CursorState; SCANOUTS],
    /// Messages by kind.
    pub counts: BTreeMap<u32, u64>,
    /// Kinds in the order they came.
    pub log: Vec<u32>,
    /// Broken rules of the protocol, one line each.
    pub violations: Vec<String>,
    /// Headers whose flags are not zero, as those of requests are, one line each.
    pub stray_flags: Vec<String>,
    /// Features that the daemon has accepted, once it has.
    pub accepted: Option<u64>,
    /// Whether the daemon has closed its end.
    pub closed: bool,
    /// SCANOUT messages in order: (scanout, width, height).
    pub modes: Vec<(u32, u32, u32)>,
    /// Pixels of all updates so far.
    pub pixels: u64,
    /// The first pixel of the last update, as it came.
    pub first_pixel: [u8; 4],
}

impl DisplayState {
    /// Applies one message from the daemon. Payload sizes and ranges are checked as QEMU does or
    /// should; what breaks a rule is noted and otherwise ignored.
    pub(super) fn apply(&mut self, request: u32, flags: u32, payload: &[u8]) {
        *self.counts.entry(request).or_default() += 1;
        self.log.push(request);
        if flags != 0 {
            self.stray_flags
                .push(format!("request {request} with header flags {flags:#x}"));
        }
        if let Err(rule) = self.apply_checked(request, payload) {
            self.violations.push(format!("request {request}: {rule}"));
        }
    }

    /// Counts one message of `size` bytes of which only the beginning is there. An update whose size is
    /// not that of its picture is noted and brings no pixels.
    pub(super) fn count(&mut self, request: u32, head: &[u8], size: usize) {
        *self.counts.entry(request).or_default() += 1;
        if request == kind::UPDATE && head.len() >= 24 {
            let pixels = u64::from(u32_at(head, 12)) * u64::from(u32_at(head, 16));
            if pixels
                .checked_mul(4)
                .and_then(|bytes| bytes.checked_add(20))
                == Some(size as u64)
            {
                self.note_update(head);
            } else {
                let rule = format!("{size} bytes for {pixels} pixels");
                self.violations.push(format!("request {request}: {rule}"));
            }
        }
    }

    /// Notes size and first pixel of an update with at least one pixel.
    fn note_update(&mut self, payload: &[u8]) {
        self.pixels += u64::from(u32_at(payload, 12)) * u64::from(u32_at(payload, 16));
        self.first_pixel.copy_from_slice(&payload[20..24]);
    }

    fn apply_checked(&mut self, request: u32, payload: &[u8]) -> Result<(), String> {
        match request {
            kind::GET_PROTOCOL_FEATURES | kind::GET_DISPLAY_INFO => exactly(payload, 0),
            kind::GET_EDID => {
                exactly(payload, 4)?;
                scanout_index(payload).map(|_| ())
            }
            kind::SET_PROTOCOL_FEATURES => {
                exactly(payload, 8)?;
                self.accepted = Some(crate::frontend::message::u64_at(payload, 0));
                Ok(())
            }
            kind::CURSOR_POS | kind::CURSOR_POS_HIDE => {
                exactly(payload, 12)?;
                self.move_cursor(payload, request == kind::CURSOR_POS)
            }
            kind::CURSOR_UPDATE => {
                exactly(payload, 20 + CURSOR_BYTES)?;
                self.move_cursor(payload, true)?;
                let cursor = &mut self.cursors[scanout_index(payload)?];
                cursor.hot_x = u32_at(payload, 12);
                cursor.hot_y = u32_at(payload, 16);
                cursor.pixels = payload[20..].to_vec();
                Ok(())
            }
            kind::SCANOUT => {
                exactly(payload, 12)?;
                self.set_mode(payload)
            }
            kind::UPDATE => self.update(payload),
            other => Err(format!("{other} is no request this display offers")),
        }
    }

    fn move_cursor(&mut self, payload: &[u8], visible: bool) -> Result<(), String> {
        let cursor = &mut self.cursors[scanout_index(payload)?];
        cursor.visible = visible;
        (cursor.x, cursor.y) = (u32_at(payload, 4), u32_at(payload, 8));
        Ok(())
    }

    fn set_mode(&mut self, payload: &[u8]) -> Result<(), String> {
        let at = scanout_index(payload)?;
        let (width, height) = (u32_at(payload, 4), u32_at(payload, 8));
        self.modes.push((at as u32, width, height));
        self.scanouts[at] = (width != 0 && height != 0).then(|| Scanout {
            picture: Picture::black(width, height),
            updates: Vec::new(),
        });
        Ok(())
    }

    fn update(&mut self, payload: &[u8]) -> Result<(), String> {
        if payload.len() < 20 {
            return Err(format!("{} bytes", payload.len()));
        }
        let field = |n: usize| u32_at(payload, 4 * n);
        let rect = Rect::new(field(1), field(2), field(3), field(4));
        exactly(payload, 20 + 4 * rect.width as usize * rect.height as usize)?;
        let shown = self.scanouts[scanout_index(payload)?]
            .as_mut()
            .ok_or("an update of a scanout that is off")?;
        let (width, height) = (shown.picture.width, shown.picture.height);
        let right = u64::from(rect.x) + u64::from(rect.width);
        let bottom = u64::from(rect.y) + u64::from(rect.height);
        if right > u64::from(width) || bottom > u64::from(height) {
            return Err(format!("{rect:?} is not inside {width}x{height}"));
        }
        if rect.width == 0 || rect.height == 0 {
            return Err(format!("{rect:?} is empty"));
        }
        shown.picture.paste(rect, &payload[20..]);
        shown.updates.push(rect);
        self.note_update(payload);
        Ok(())
    }
}

fn exactly(payload: &[u8], expected: usize) -> Result<(), String> {
    match payload.len() {
        len if len == expected => Ok(()),
        len => Err(format!("{len} bytes of payload, expected {expected}")),
    }
}

fn scanout_index(payload: &[u8]) -> Result<usize, String> {
    match u32_at(payload, 0) as usize {
        at if at < SCANOUTS => Ok(at),
        at => Err(format!("scanout {at}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(fields: &[u32], data: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = fields
            .iter()
            .flat_map(|field| field.to_ne_bytes())
            .collect();
        bytes.resize(bytes.len() + data, 7);
        bytes
    }

    fn state() -> DisplayState {
        let mut state = DisplayState::default();
        state.apply(kind::SCANOUT, 0, &bytes(&[0, 10, 5], 0));
        state
    }

    #[test]
    fn updates_inside_the_scanout_are_drawn() {
        let mut state = state();
        state.apply(kind::UPDATE, 0, &bytes(&[0, 9, 4, 1, 1], 4));
        assert_eq!(state.violations, Vec::<String>::new());
        let picture = &state.scanouts[0].as_ref().unwrap().picture;
        assert_eq!(picture.bytes[..196], [0; 196]);
        assert_eq!(picture.bytes[196..], [7, 7, 7, 0]);
        assert_eq!((state.pixels, state.first_pixel), (1, [7; 4]));
        // Only counted, it comes to the same.
        let mut counting = DisplayState::default();
        counting.count(kind::UPDATE, &bytes(&[0, 9, 4, 1, 1], 4), 24);
        assert_eq!((counting.pixels, counting.first_pixel), (1, [7; 4]));
        assert_eq!(counting.counts[&kind::UPDATE], 1);
        // More pixels in its head than in its size.
        counting.count(kind::UPDATE, &bytes(&[0, 9, 4, 9, 9], 4), 24);
        assert_eq!((counting.pixels, counting.violations.len()), (1, 1));
    }

    #[test]
    fn every_broken_rule_is_noted() {
        let broken: [(u32, u32, Vec<u8>); 10] = [
            (kind::UPDATE, 0, bytes(&[0, 10, 0, 1, 1], 4)),
            (kind::UPDATE, 0, bytes(&[0, u32::MAX, 0, 2, 1], 8)),
            (kind::UPDATE, 0, bytes(&[1, 0, 0, 1, 1], 4)),
            (kind::UPDATE, 0, bytes(&[0, 0, 0, 1, 1], 3)),
            (kind::UPDATE, 0, bytes(&[0, 0, 0, 0, 1], 0)),
            (kind::UPDATE, 4, bytes(&[0, 0, 0, 1, 1], 4)),
            (kind::SCANOUT, 0, bytes(&[16, 1, 1], 0)),
            (kind::CURSOR_UPDATE, 0, bytes(&[0; 5], 100)),
            (kind::GET_EDID, 0, bytes(&[], 0)),
            (99, 0, Vec::new()),
        ];
        for (request, flags, payload) in broken {
            let mut state = state();
            state.apply(request, flags, &payload);
            let noted = state.violations.len() + state.stray_flags.len();
            assert_eq!(noted, 1, "request {request}, flags {flags}");
        }
    }
}
