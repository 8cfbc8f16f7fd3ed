//! `RESOURCE_ASSIGN_UUID` (virtio 1.4, "GPU Device / Device Operation: controlq").

use nosnoop_protocol::ids::{ResourceId, ResourceUuid};
use nosnoop_protocol::reply::{GpuError, Reply};

use super::State;
use crate::planted::{Bug, planted};

impl State {
    /// Gives the resource a random UUID the first time and the same one from then on.
    ///
    /// # Errors
    /// `InvalidResourceId`.
    pub(super) fn assign_uuid(&mut self, id: ResourceId) -> Result<Reply, GpuError> {
        let resource = self.resources.get_mut(id)?;
        if planted(Bug::UuidShared) {
            resource.uuid = Some(ResourceUuid([5; 16]));
        }
        let uuid = resource
            .uuid
            .get_or_insert_with(|| ResourceUuid(*uuid::Uuid::new_v4().as_bytes()));
        Ok(Reply::OkResourceUuid(*uuid))
    }
}
