//! `RESOURCE_CREATE_BLOB` in guest memory (virtio 1.4, "GPU Device / Device Operation: controlq", blob resources).

use nosnoop_protocol::command::MemEntries;
use nosnoop_protocol::ids::ResourceId;
use nosnoop_protocol::reply::{GpuError, Reply};

use super::State;
use super::backing::Backing;
use super::resource::{Resource, Storage};
use crate::GuestMemory;

impl State {
    /// Makes a blob in guest memory. Its backing may come with it or later by
    /// `RESOURCE_ATTACH_BACKING`.
    ///
    /// # Errors
    /// `InvalidResourceId` (id taken); `InvalidParameter` for an empty blob or one larger than the
    /// memory that comes with it; `Unspec` for ranges that are not guest memory; `OutOfMemory` for
    /// a quota.
    pub(super) fn create_guest_blob(
        &mut self,
        id: ResourceId,
        size: u64,
        entries: &MemEntries<'_>,
        memory: &GuestMemory,
    ) -> Result<Reply, GpuError> {
        self.resources.check_new(id, &self.limits)?;
        if size == 0 {
            return Err(GpuError::InvalidParameter);
        }
        let backing = if entries.is_empty() {
            None
        } else {
            let backing = Backing::new(entries, memory, self.resources.backing_room())?;
            if backing.len() < size {
                return Err(GpuError::InvalidParameter);
            }
            Some(backing)
        };
        let storage = Storage::GuestBlob { size };
        self.resources.insert(id, Resource::new(storage, backing));
        Ok(Reply::OkNoData)
    }
}
