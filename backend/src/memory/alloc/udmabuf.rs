//! udmabuf: dma-bufs of memfds. Every CPU maps them cached, and nothing makes a device's accesses
//! snoop: **they are coherent for CPUs only, and never for an importer that does not snoop.**

use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::io::Errno;

use super::drm_node::{Node, perform, untrue};
use super::error::AllocError;
use super::{HostMemory, memfd};
use crate::sys::request::Request;

/// Bytes that one of them may have unless the kernel is told otherwise (`size_limit_mb` in
/// drivers/dma-buf/udmabuf.c).
const USUAL_LIMIT: u64 = 64 << 20;

/// Allocates by `/dev/udmabuf`.
#[derive(Debug)]
pub(super) struct Udmabuf {
    node: Arc<dyn Node>,
}

impl Udmabuf {
    pub(super) fn new(node: Arc<dyn Node>) -> Self {
        Self { node }
    }

    pub(super) fn describe(&self) -> String {
        "RAM, cached; coherent for CPUs only".to_owned()
    }

    /// `len` bytes, whole pages.
    pub(super) fn allocate(&self, len: u64) -> Result<HostMemory, AllocError> {
        let file = memfd::sealed_file(len).map_err(|source| AllocError::Memfd { len, source })?;
        let mut dma_buf = None;
        let create = Request::UdmabufCreate {
            memfd: file.as_fd(),
            offset: 0,
            size: len,
            dma_buf: &mut dma_buf,
        };
        perform(&*self.node, create).map_err(|error| {
            let limit = "; such a buffer has 64 MiB at most: raise udmabuf's module parameter size_limit_mb";
            if len > USUAL_LIMIT {
                error.advise(Errno::INVAL, limit)
            } else {
                error
            }
        })?;
        let dma_buf =
            dma_buf.ok_or_else(|| untrue(&*self.node, "a dma-buf was made, but is not there"))?;
        HostMemory::dma_buf(dma_buf, len, memfd::TRAITS).map_err(|error| {
            untrue(
                &*self.node,
                format!("the dma-buf is not of {len} bytes: {error}"),
            )
        })
    }
}
