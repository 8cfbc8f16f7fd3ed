//! amdgpu: AMD's driver.
//!
//! Buffers are asked for in system memory that the GPU can reach (GTT). The flag for write-combining
//! (USWC) may be dropped without a word (`amdgpu_bo_support_uswc` in
//! drivers/gpu/drm/amd/amdgpu/amdgpu_object.c), so every buffer is read back.
//!
//! Video memory is never asked for: the kernel may move such a buffer to system memory at any time, so
//! that both kinds of page would have to do, and nothing is won by it.

use std::sync::Arc;

use nosnoop_protocol::MapCache;
use rustix::io::Errno;

use super::drm_node::{Node, perform};
use super::error::AllocError;
use super::gem::GemObject;
use super::{Handout, HostMemory, Want};
use crate::memory::PAGE_SIZE;
use crate::memory::kind::{PageKinds, Snooping, Traits};
use crate::sys::request::Request;
use crate::sys::uapi::amdgpu::{
    AMDGPU_FAMILY_AI, AMDGPU_FAMILY_CI, AMDGPU_FAMILY_CZ, AMDGPU_FAMILY_GC_10_3_6,
    AMDGPU_FAMILY_GC_10_3_7, AMDGPU_FAMILY_GC_11_0_0, AMDGPU_FAMILY_GC_11_0_1,
    AMDGPU_FAMILY_GC_11_5_0, AMDGPU_FAMILY_GC_11_5_4, AMDGPU_FAMILY_GC_12_0_0, AMDGPU_FAMILY_KV,
    AMDGPU_FAMILY_NV, AMDGPU_FAMILY_RV, AMDGPU_FAMILY_SI, AMDGPU_FAMILY_VGH, AMDGPU_FAMILY_VI,
    AMDGPU_FAMILY_YC, AMDGPU_GEM_CREATE_CPU_GTT_USWC, AMDGPU_GEM_DOMAIN_GTT,
    AMDGPU_GEM_DOMAIN_VRAM, drm_amdgpu_gem_create_in, drm_amdgpu_info_device,
};

/// The oldest driver version known to let graphics 9 snoop all system memory: that of Linux 6.12
/// (3.61). That of Linux 6.1 (3.49) goes by the CPU mapping as all others do. Both were read in
/// `gmc_v9_0_get_coherence_flags` and its predecessor, drivers/gpu/drm/amd/amdgpu/gmc_v9_0.c.
const GRAPHICS_9_SNOOPS: (i32, i32) = (3, 61);

/// Allocates from an amdgpu node.
#[derive(Debug)]
pub(super) struct Amdgpu {
    node: Arc<dyn Node>,
    handout: Handout,
    device: u32,
    family: u32,
}

impl Amdgpu {
    /// Asks the device what it is.
    pub(super) fn new(node: Arc<dyn Node>, handout: Handout) -> Result<Self, AllocError> {
        let mut device = drm_amdgpu_info_device::default();
        perform(&*node, Request::AmdgpuDevice(&mut device)).map_err(|error| {
            error.advise(
                Errno::ACCESS,
                "; name the device's render node, /dev/dri/renderDN",
            )
        })?;
        Ok(Self {
            node,
            handout,
            device: device.device_id,
            family: device.family,
        })
    }

    pub(super) fn describe(&self) -> String {
        let (major, minor) = self.node.version();
        format!(
            "device {:#06x} of family {}, driver {major}.{minor}",
            self.device, self.family
        )
    }

    /// `len` bytes, whole pages.
    pub(super) fn allocate(&self, len: u64, want: Want) -> Result<HostMemory, AllocError> {
        let flags = match want {
            Want::Coherent => 0,
            Want::Noncoherent => AMDGPU_GEM_CREATE_CPU_GTT_USWC,
        };
        let create = drm_amdgpu_gem_create_in {
            bo_size: len,
            alignment: PAGE_SIZE,
            domains: AMDGPU_GEM_DOMAIN_GTT.into(),
            domain_flags: flags.into(),
        };
        let mut handle = 0;
        let request = Request::AmdgpuGemCreate {
            create,
            handle: &mut handle,
        };
        perform(&*self.node, request)?;
        let object = GemObject::new(&self.node, handle)?;
        let mut made = drm_amdgpu_gem_create_in::default();
        let request = Request::AmdgpuCreateInfo {
            handle: object.handle(),
            info: &mut made,
        };
        perform(&*self.node, request)?;
        object.check_size(len, made.bo_size)?;
        object.hand_out(self.handout, len, self.traits(&made), |object| {
            let mut offset = 0;
            let map = Request::AmdgpuGemMmap {
                handle: object.handle(),
                offset: &mut offset,
            };
            perform(&**object.node(), map)?;
            Ok(offset)
        })
    }

    /// What a buffer is, by what the kernel says it made.
    fn traits(&self, made: &drm_amdgpu_gem_create_in) -> Traits {
        let kinds = kinds(made.domains);
        let combined = made.domain_flags & u64::from(AMDGPU_GEM_CREATE_CPU_GTT_USWC) != 0;
        let (host, snooping) = match kinds {
            // `amdgpu_ttm_tt_create` maps by the flag, and `amdgpu_ttm_tt_pde_flags` lets the GPU snoop
            // what is cached.
            PageKinds::Ram if combined => (Some(MapCache::Wc), self.combined_snooping()),
            PageKinds::Ram => (Some(MapCache::Cached), Snooping::Yes),
            // In video memory the flag says nothing.
            _ => (None, Snooping::Unknown),
        };
        Traits {
            host,
            kinds,
            snooping,
            verified: false,
        }
    }

    /// Whether the GPU snoops what CPUs map write-combining.
    fn combined_snooping(&self) -> Snooping {
        match self.family {
            AMDGPU_FAMILY_AI | AMDGPU_FAMILY_RV if self.node.version() >= GRAPHICS_9_SNOOPS => {
                Snooping::Yes
            }
            // Of the last one, graphics 12.1 snoops and 12.0 does not: the family does not tell.
            AMDGPU_FAMILY_SI
            | AMDGPU_FAMILY_CI
            | AMDGPU_FAMILY_KV
            | AMDGPU_FAMILY_VI
            | AMDGPU_FAMILY_CZ
            | AMDGPU_FAMILY_NV
            | AMDGPU_FAMILY_VGH
            | AMDGPU_FAMILY_YC
            | AMDGPU_FAMILY_GC_10_3_6
            | AMDGPU_FAMILY_GC_10_3_7
            | AMDGPU_FAMILY_GC_11_0_0
            | AMDGPU_FAMILY_GC_11_0_1
            | AMDGPU_FAMILY_GC_11_5_0
            | AMDGPU_FAMILY_GC_11_5_4
            | AMDGPU_FAMILY_GC_12_0_0 => Snooping::No,
            _ => Snooping::Unknown,
        }
    }
}

/// The kinds of page of a buffer with these domains. One in video memory may go to system memory
/// whenever the former is short.
fn kinds(domains: u64) -> PageKinds {
    if domains == u64::from(AMDGPU_GEM_DOMAIN_GTT) {
        PageKinds::Ram
    } else if domains & u64::from(AMDGPU_GEM_DOMAIN_VRAM) != 0 {
        PageKinds::Either
    } else {
        PageKinds::Unknown
    }
}
