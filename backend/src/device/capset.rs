//! `GET_CAPSET_INFO` and `GET_CAPSET` (virtio 1.4, "GPU Device / Device Operation: controlq").
//!
//! With shared memory there is one capability set, cross-domain; without it there is none.

use nosnoop_protocol::cross_domain;
use nosnoop_protocol::ids::CapsetId;
use nosnoop_protocol::reply::{GpuError, Reply};

use super::Device;
use crate::planted::{Bug, planted};

impl Device {
    /// # Errors
    /// `InvalidParameter` for an index that is not below the configuration's `num_capsets`.
    pub(super) fn capset_info(&self, index: u32) -> Result<Reply, GpuError> {
        if index >= self.config().num_capsets && !planted(Bug::CapsetBeyondLast) {
            return Err(GpuError::InvalidParameter);
        }
        let mut max_size = cross_domain::capabilities().len();
        if planted(Bug::CapsetSizeShort) {
            max_size = max_size.saturating_sub(4);
        }
        Ok(Reply::OkCapsetInfo {
            id: cross_domain::CAPSET,
            max_version: cross_domain::VERSION,
            max_size: u32::try_from(max_size).unwrap_or(u32::MAX),
        })
    }

    /// # Errors
    /// `InvalidParameter` for a capability set or version that is not offered.
    pub(super) fn capset(&self, id: CapsetId, version: u32) -> Result<Reply, GpuError> {
        let offered = self.config().num_capsets > 0 && id == cross_domain::CAPSET;
        if !offered || version > cross_domain::VERSION {
            return Err(GpuError::InvalidParameter);
        }
        Ok(Reply::OkCapset(cross_domain::capabilities().to_vec()))
    }
}
