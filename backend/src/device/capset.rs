//! `GET_CAPSET_INFO` and `GET_CAPSET` (virtio 1.4, "GPU Device / Device Operation: controlq").
//!
//! The capability sets are the renderer's, and behind them cross-domain where there is shared memory.

use nosnoop_protocol::cross_domain;
use nosnoop_protocol::ids::CapsetId;
use nosnoop_protocol::reply::{GpuError, Reply};

use super::{Device, SharedMemory};
use crate::planted::{Bug, planted};
use crate::render::Capset;
use crate::render::thread::RenderThread;

/// The capability sets of a device, in the order of their indices.
pub(super) fn capsets(
    renderer: Option<&RenderThread>,
    shared_memory: Option<&SharedMemory>,
) -> Vec<Capset> {
    let mut capsets = renderer.map_or_else(Vec::new, |it| it.capsets().to_vec());
    if let Some(shared) = shared_memory {
        capsets.push(Capset {
            id: cross_domain::CAPSET,
            version: cross_domain::VERSION,
            data: cross_domain::capabilities(shared.wayland.is_some()).to_vec(),
        });
    }
    capsets
}

impl Device {
    /// # Errors
    /// `InvalidParameter` for an index that is not below the configuration's `num_capsets`.
    pub(super) fn capset_info(&self, index: u32) -> Result<Reply, GpuError> {
        let found = usize::try_from(index)
            .ok()
            .and_then(|index| self.capsets.get(index));
        let capset = match found {
            None if planted(Bug::CapsetBeyondLast) => self.capsets.last(),
            found => found,
        };
        let capset = capset.ok_or(GpuError::InvalidParameter)?;
        let mut max_size = capset.data.len();
        if planted(Bug::CapsetSizeShort) {
            max_size = max_size.saturating_sub(4);
        }
        Ok(Reply::OkCapsetInfo {
            id: capset.id,
            max_version: capset.version,
            max_size: u32::try_from(max_size).unwrap_or(u32::MAX),
        })
    }

    /// # Errors
    /// `InvalidParameter` for a capability set or version that is not offered.
    pub(super) fn capset(&self, id: CapsetId, version: u32) -> Result<Reply, GpuError> {
        let found = self.capsets.iter().find(|capset| capset.id == id);
        match found {
            Some(capset) if version <= capset.version => Ok(Reply::OkCapset(capset.data.clone())),
            _ => Err(GpuError::InvalidParameter),
        }
    }
}
