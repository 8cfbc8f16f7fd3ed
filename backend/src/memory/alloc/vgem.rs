//! vgem: the kernel's DRM driver without hardware. Its buffers are RAM that only CPUs access, and
//! that everybody maps write-combining (`map_wc` in drivers/gpu/drm/vgem/vgem_drv.c): the one source
//! of such memory on a host without a GPU.

use std::sync::Arc;

use nosnoop_protocol::MapCache;
use rustix::io::Errno;

use super::drm_node::{Node, perform, unsuitable};
use super::error::AllocError;
use super::gem::GemObject;
use super::{Handout, HostMemory};
use crate::memory::PAGE_SIZE;
use crate::memory::kind::{PageKinds, Snooping, Traits};
use crate::sys::request::Request;
use crate::sys::uapi::drm::{drm_mode_create_dumb, drm_mode_map_dumb};

/// What a buffer of vgem is.
const TRAITS: Traits = Traits {
    host: Some(MapCache::Wc),
    kinds: PageKinds::Ram,
    snooping: Snooping::NoDevice,
    verified: true,
};

/// Bits of a pixel. A format that every driver knows, for the kernel checks it.
const BITS: u32 = 32;

/// Pixels in a row: a row is a page.
const WIDTH: u32 = 1024;

/// Allocates from vgem's card node. Its render node refuses the command for it
/// (`drm_ioctl_permit`, drivers/gpu/drm/drm_ioctl.c).
#[derive(Debug)]
pub(super) struct Vgem {
    node: Arc<dyn Node>,
    handout: Handout,
}

impl Vgem {
    pub(super) fn new(node: Arc<dyn Node>, handout: Handout) -> Self {
        Self { node, handout }
    }

    pub(super) fn describe(&self) -> String {
        "no device: RAM that CPUs map write-combining".to_owned()
    }

    /// `len` bytes, whole pages.
    pub(super) fn allocate(&self, len: u64) -> Result<HostMemory, AllocError> {
        // The kernel counts a dumb buffer's bytes in 32 bits.
        let rows = len
            .checked_div(PAGE_SIZE)
            .filter(|_| u32::try_from(len).is_ok())
            .and_then(|rows| u32::try_from(rows).ok())
            .ok_or_else(|| {
                let why = format!("a buffer has less than 4 GiB, not {len} bytes: ask for less");
                unsuitable(&*self.node, why)
            })?;
        let mut create = drm_mode_create_dumb {
            height: rows,
            width: WIDTH,
            bpp: BITS,
            ..Default::default()
        };
        perform(&*self.node, Request::CreateDumb(&mut create)).map_err(|error| {
            let card = "; vgem makes buffers on its card node only: name /dev/dri/cardN";
            error.advise(Errno::ACCESS, card)
        })?;
        let object = GemObject::new(&self.node, create.handle)?;
        object.check_size(len, create.size)?;
        object.hand_out(self.handout, len, TRAITS, |object| {
            let mut map = drm_mode_map_dumb {
                handle: object.handle(),
                ..Default::default()
            };
            perform(&**object.node(), Request::MapDumb(&mut map))?;
            Ok(map.offset)
        })
    }
}
