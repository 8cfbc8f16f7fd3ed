//! A buffer of a DRM driver, and how it is handed out.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::drm_node::{Node, perform, untrue};
use super::error::AllocError;
use super::{Handout, HostMemory};
use crate::memory::kind::Traits;
use crate::sys::request::Request;

/// A handle of a node, closed when this goes.
#[derive(Debug)]
pub(super) struct GemObject {
    node: Arc<dyn Node>,
    handle: NonZeroU32,
}

impl GemObject {
    /// Takes over a handle that the node has just given.
    ///
    /// # Errors
    /// [`AllocError::Untrue`] for 0, which is no handle.
    pub(super) fn new(node: &Arc<dyn Node>, handle: u32) -> Result<Self, AllocError> {
        let handle = NonZeroU32::new(handle)
            .ok_or_else(|| untrue(&**node, "a buffer was made, but has no handle"))?;
        Ok(Self {
            node: Arc::clone(node),
            handle,
        })
    }

    pub(super) fn handle(&self) -> u32 {
        self.handle.get()
    }

    pub(super) fn node(&self) -> &Arc<dyn Node> {
        &self.node
    }

    /// Hands the buffer out: as the node's own file, at the offset that `offset` asks for, or as a
    /// dma-buf.
    ///
    /// # Errors
    /// [`AllocError::Refused`], and [`AllocError::Untrue`] for an offset where no buffer can be and
    /// for a dma-buf that is smaller than the buffer.
    pub(super) fn hand_out(
        self,
        handout: Handout,
        len: u64,
        traits: Traits,
        offset: impl FnOnce(&Self) -> Result<u64, AllocError>,
    ) -> Result<HostMemory, AllocError> {
        let node = Arc::clone(&self.node);
        match handout {
            Handout::Node => {
                let offset = offset(&self)?;
                HostMemory::device(self, offset, len, traits)
                    .map_err(|_| untrue(&*node, format!("no buffer can be at offset {offset:#x}")))
            }
            Handout::DmaBuf => {
                let mut dma_buf = None;
                let export = Request::PrimeExport {
                    handle: self.handle(),
                    dma_buf: &mut dma_buf,
                };
                perform(&*node, export)?;
                let dma_buf = dma_buf
                    .ok_or_else(|| untrue(&*node, "a dma-buf was made, but is not there"))?;
                // The dma-buf keeps the buffer: the handle goes with `self`.
                HostMemory::dma_buf(dma_buf, len, traits).map_err(|error| {
                    untrue(
                        &*node,
                        format!("the dma-buf is not of {len} bytes: {error}"),
                    )
                })
            }
        }
    }

    /// Checks that the node made a buffer of at least `len` bytes.
    ///
    /// # Errors
    /// [`AllocError::Untrue`].
    pub(super) fn check_size(&self, len: u64, size: u64) -> Result<(), AllocError> {
        if size < len {
            let what = format!("a buffer of {len} bytes was asked for, {size} were made");
            return Err(untrue(&*self.node, what));
        }
        Ok(())
    }
}

impl Drop for GemObject {
    fn drop(&mut self) {
        // A device that is gone has no handles either.
        if let Err(error) = perform(&*self.node, Request::GemClose(self.handle.get())) {
            log::debug!("buffer {} stays: {error}", self.handle);
        }
    }
}
