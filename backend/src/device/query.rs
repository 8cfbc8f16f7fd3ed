//! `GET_DISPLAY_INFO` and `GET_EDID` (virtio 1.4, "GPU Device / Device Operation: controlq").
//!
//! What outputs there are is the front-end's to say, it may change at any time, and no message
//! tells of a change. So it is asked afresh; only requests that wait in the queue together, one
//! [`Batch`], share an answer.

use nosnoop_protocol::command::Command;
use nosnoop_protocol::edid::Edid;
use nosnoop_protocol::ids::{MAX_SCANOUTS, ScanoutId};
use nosnoop_protocol::reply::{DisplayInfo, GpuError, Reply};

use crate::display::Display;
use crate::planted::{Bug, planted};

/// The display's answers for the requests that were in the queue when it was looked at.
#[derive(Debug, Default)]
pub struct Batch {
    info: Option<DisplayInfo>,
    edids: [Option<Edid>; MAX_SCANOUTS],
}

impl Batch {
    /// Forgets every answer: to be called when the queue is looked at again.
    pub fn clear(&mut self) {
        self.info = None;
        for edid in &mut self.edids {
            *edid = None;
        }
    }

    /// Whether the answer to a command is there, or it is none that the display answers: if not, the
    /// command may wait for the front-end.
    #[must_use]
    pub fn knows(&self, command: &Command<'_>) -> bool {
        match command {
            Command::GetDisplayInfo => self.info.is_some(),
            Command::GetEdid { scanout } => {
                let edid = self.edids.get(scanout.index());
                self.info.is_some() && edid.is_some_and(Option::is_some)
            }
            _ => true,
        }
    }

    pub(super) fn display_info(&mut self, display: &Display) -> Reply {
        let info = self.info.get_or_insert_with(|| display.display_info());
        Reply::OkDisplayInfo(*info)
    }

    /// # Errors
    /// `InvalidScanoutId` for an output that the device does not have.
    pub(super) fn edid(&mut self, display: &Display, id: ScanoutId) -> Result<Reply, GpuError> {
        // Linux asks for EDIDs first, before the display has told how many outputs it has.
        self.display_info(display);
        if !display.has_output(id) && !planted(Bug::EdidOfAbsentScanout) {
            return Err(GpuError::InvalidScanoutId);
        }
        let slot = self
            .edids
            .get_mut(id.index())
            .ok_or(GpuError::InvalidScanoutId)?;
        let edid = slot.get_or_insert_with(|| display.edid(id));
        Ok(Reply::OkEdid(edid.clone()))
    }
}
