//! What is different for contexts of Vulkan: each has a process of its own, which may end, or hang.

use nosnoop_protocol::ids::ContextId;
use rutabaga_gfx::{Rutabaga, RutabagaError};

use super::{Virgl, error};
use crate::render::RenderError;
use crate::render::workers::{Peer, Workers};

/// Whether a context is one of Vulkan, and its process has ended.
pub(super) fn has_ended(workers: Option<&Workers>, context: ContextId) -> bool {
    workers.is_some_and(|workers| workers.has_ended(context.get()))
}

impl Virgl {
    /// Does something for which virglrenderer may wait for a process.
    pub(super) fn during<T>(&mut self, peer: Peer, work: impl FnOnce(&mut Rutabaga) -> T) -> T {
        let rutabaga = &mut self.rutabaga;
        match &self.workers {
            Some(workers) => workers.during(peer, || work(rutabaga)),
            None => work(rutabaga),
        }
    }

    /// As [`Self::during`], with the process of a context if that is one of Vulkan.
    ///
    /// # Errors
    /// `Lost`; what the work says.
    pub(super) fn in_context<T>(
        &mut self,
        context: u32,
        work: impl FnOnce(&mut Rutabaga) -> Result<T, RutabagaError>,
    ) -> Result<T, RenderError> {
        if self.lost.contains(&context) {
            return Err(RenderError::Lost);
        }
        if self.vulkan.contains(&context) {
            // What asks nothing of the process would be done without it.
            if self
                .workers
                .as_ref()
                .is_some_and(|it| it.has_ended(context))
            {
                return Err(RenderError::Lost);
            }
            self.during(Peer::Context(context), work).map_err(error)
        } else {
            work(&mut self.rutabaga).map_err(error)
        }
    }

    /// Takes note of the process of a context of Vulkan that has just been made.
    pub(super) fn adopt(&mut self, id: u32) -> Result<(), RenderError> {
        let Some(workers) = &self.workers else {
            return Ok(());
        };
        if let Err(why) = workers.adopt(id) {
            self.end_context(id);
            return Err(RenderError::Refused(why));
        }
        self.vulkan.insert(id);
        Ok(())
    }

    /// Destroys a context there.
    pub(super) fn end_context(&mut self, id: u32) {
        // Fails only for one that is not there.
        let _ = self.during(Peer::Server, |rutabaga| rutabaga.destroy_context(id));
        // Not before: fences are signalled until then, and whether they are done is asked.
        if let Some(workers) = &self.workers {
            workers.forget(id);
        }
        self.contexts.remove(&id);
        self.vulkan.remove(&id);
    }

    /// Gives up the contexts whose processes have ended. Until then virglrenderer's thread for each
    /// takes a whole CPU.
    pub(super) fn give_up_contexts(&mut self) {
        let ended = self.workers.as_ref().map(|workers| workers.ended());
        for id in ended.unwrap_or_default() {
            self.end_context(id);
            self.lost.insert(id);
            if let Some(context) = ContextId::new(id) {
                log::warn!("the process of Vulkan context {id} has ended: the context is lost");
                self.fences.lose_context(context);
            }
        }
    }
}
