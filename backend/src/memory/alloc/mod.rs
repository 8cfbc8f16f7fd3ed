//! Where host memory comes from, and what it is: [`HostMemory`] is a range of a file with the traits
//! that its allocator gave it.
//!
//! [`memfd`] is there on every host. [`Allocator`] is that and the others: udmabuf, vgem and the
//! drivers of GPUs, each in a file with what was read of it in the kernel (Linux 7.2 unless it says
//! otherwise). User space cannot read the memory type of a mapping back, so an allocator claims
//! nothing that the kernel has not confirmed where it can be asked.

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use self::amdgpu::Amdgpu;
use self::drm_node::Node;
use self::i915::I915;
use self::udmabuf::Udmabuf;
use self::vgem::Vgem;
use self::xe::Xe;
use super::PAGE_SIZE;
use crate::sys::request::Driver;

pub mod abi;
mod amdgpu;
mod drm_node;
mod error;
mod gem;
mod host_memory;
mod i915;
pub mod memfd;
mod udmabuf;
mod vgem;
mod xe;

pub use self::error::AllocError;
pub use self::host_memory::HostMemory;
pub use self::xe::incoherent_pat_indices;

/// The most bytes that an allocator is asked for: far more than any host has, and far from where sums
/// overflow.
pub const MAX_LEN: u64 = 1 << 40;

/// What memory is wanted. It is a wish: what came of it is in the memory's traits. Some allocators
/// have one kind only, and a driver may do otherwise than it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Want {
    /// The device snoops, and CPUs map it cached.
    Coherent,
    /// The device does not snoop, and CPUs map it write-combining.
    Noncoherent,
}

/// What a device's buffer is handed out as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Handout {
    /// The node's file and the buffer's offset in it. The offset holds for the node's very open file
    /// description and no other: whoever gets its descriptor can map every buffer that is allocated
    /// with it, so **each front-end needs an allocator of its own**.
    Node,
    /// A dma-buf, with this buffer and nothing else.
    DmaBuf,
}

/// A place to allocate from.
#[derive(Debug)]
pub struct Allocator(Kind);

#[derive(Debug)]
enum Kind {
    Memfd,
    /// A memfd that claims to be something else.
    #[cfg(test)]
    Claiming(crate::memory::kind::Traits),
    Udmabuf(Udmabuf),
    Vgem(Vgem),
    I915(I915),
    Xe(Xe),
    Amdgpu(Amdgpu),
}

impl Allocator {
    /// Memory of the host's page cache, without any device.
    #[must_use]
    pub fn memfd() -> Self {
        Self(Kind::Memfd)
    }

    /// Memory that claims these traits, whatever is wanted.
    #[cfg(test)]
    pub(crate) fn claiming(traits: crate::memory::kind::Traits) -> Self {
        Self(Kind::Claiming(traits))
    }

    /// dma-bufs of memfds, by `/dev/udmabuf`. They are coherent for CPUs only: never give one to an
    /// importer that does not snoop.
    ///
    /// # Errors
    /// [`AllocError::Open`], [`AllocError::WrongNode`].
    pub fn udmabuf(path: &Path) -> Result<Self, AllocError> {
        let node = drm_node::open_udmabuf(path)?;
        Ok(Self(Kind::Udmabuf(Udmabuf::new(node))))
    }

    /// The allocator for the driver of a DRM node, with an open file description of its own: a render
    /// node for GPUs, the card node for vgem.
    ///
    /// # Errors
    /// [`AllocError::Open`], [`AllocError::WrongNode`], [`AllocError::NoAllocator`]; and what the
    /// driver's own questions lead to: [`AllocError::Refused`], [`AllocError::Unsuitable`],
    /// [`AllocError::Untrue`].
    pub fn open(path: &Path, handout: Handout) -> Result<Self, AllocError> {
        Self::of_node(drm_node::open_drm(path)?, path, handout)
    }

    fn of_node(node: Arc<dyn Node>, path: &Path, handout: Handout) -> Result<Self, AllocError> {
        Ok(Self(match node.driver() {
            Driver::I915 => Kind::I915(I915::new(node, handout)?),
            Driver::Xe => Kind::Xe(Xe::new(node, handout)?),
            Driver::Amdgpu => Kind::Amdgpu(Amdgpu::new(node, handout)?),
            Driver::Vgem => Kind::Vgem(Vgem::new(node, handout)),
            driver @ (Driver::Udmabuf | Driver::Other(_)) => {
                return Err(AllocError::NoAllocator {
                    path: path.to_owned(),
                    driver: driver.to_string(),
                });
            }
        }))
    }

    /// Its name: the driver's, or `memfd`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self.0 {
            Kind::Memfd => "memfd",
            #[cfg(test)]
            Kind::Claiming(_) => "a test",
            Kind::Udmabuf(_) => "udmabuf",
            Kind::Vgem(_) => "vgem",
            Kind::I915(_) => "i915",
            Kind::Xe(_) => "xe",
            Kind::Amdgpu(_) => "amdgpu",
        }
    }

    /// What was found out about the device, in half a line.
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.0 {
            Kind::Memfd => "RAM, cached; CPUs only".to_owned(),
            #[cfg(test)]
            Kind::Claiming(traits) => format!("{traits:?}"),
            Kind::Udmabuf(udmabuf) => udmabuf.describe(),
            Kind::Vgem(vgem) => vgem.describe(),
            Kind::I915(i915) => i915.describe(),
            Kind::Xe(xe) => xe.describe(),
            Kind::Amdgpu(amdgpu) => amdgpu.describe(),
        }
    }

    /// Allocates `len` bytes, rounded up to whole pages, all zero.
    ///
    /// # Errors
    /// [`AllocError::Length`] for 0 and for more than [`MAX_LEN`]; [`AllocError::Unsuitable`] for
    /// more than the driver can count; [`AllocError::Memfd`], [`AllocError::Refused`]; and
    /// [`AllocError::Untrue`] if the kernel made something else. After an error nothing is kept.
    pub fn allocate(&self, len: u64, want: Want) -> Result<HostMemory, AllocError> {
        let len = len
            .checked_next_multiple_of(PAGE_SIZE)
            .filter(|&pages| pages != 0 && pages <= MAX_LEN)
            .ok_or(AllocError::Length { len })?;
        match &self.0 {
            Kind::Memfd => plain(len),
            #[cfg(test)]
            Kind::Claiming(traits) => {
                let file = memfd::sealed_file(len);
                let memory = file.and_then(|file| HostMemory::new(file, 0, len, *traits));
                memory.map_err(|source| AllocError::Memfd { len, source })
            }
            Kind::Udmabuf(udmabuf) => udmabuf.allocate(len),
            Kind::Vgem(vgem) => match want {
                Want::Noncoherent => vgem.allocate(len),
                // vgem has none, and where CPUs are all there is, plain memory is the same.
                Want::Coherent => plain(len),
            },
            Kind::I915(i915) => i915.allocate(len, want),
            Kind::Xe(xe) => xe.allocate(len, want),
            Kind::Amdgpu(amdgpu) => amdgpu.allocate(len, want),
        }
    }
}

fn plain(len: u64) -> Result<HostMemory, AllocError> {
    memfd::allocate(len).map_err(|source| AllocError::Memfd { len, source })
}

#[cfg(test)]
mod tests;
