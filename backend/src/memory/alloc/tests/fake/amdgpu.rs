//! drivers/gpu/drm/amd/amdgpu: `amdgpu_gem.c`, `amdgpu_object.c`, `amdgpu_ttm.c`, `gmc_v*.c`.

use nosnoop_protocol::MapCache;
use rustix::io::Errno;

use super::{FakeNode, Lie, ObjectState, Snoops, State, Truth};
use crate::memory::kind::PageKinds;
use crate::sys::request::Request;
use crate::sys::uapi::amdgpu::drm_amdgpu_gem_create_in;

const GTT: u64 = 2;
const VRAM: u64 = 4;
const USWC: u64 = 4;

/// A device of the driver, and the kernel that drives it.
#[derive(Clone, Debug)]
pub(in super::super) struct Amdgpu {
    pub(in super::super) family: u32,
    pub(in super::super) version: (i32, i32),
    /// The graphics memory controller sets the snoop bit for all system memory.
    pub(in super::super) snoops_all: bool,
    /// Whether the host maps write-combining (`amdgpu_bo_support_uswc`).
    pub(in super::super) host_can_combine: bool,
    /// Opened by the render node.
    pub(in super::super) render: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Buffer {
    domains: u64,
    flags: u64,
    alignment: u64,
}

impl Amdgpu {
    /// Graphics 10.3 on Linux 7.2.
    pub(in super::super) fn navi() -> Self {
        Self {
            family: 143,
            version: (3, 64),
            snoops_all: false,
            host_can_combine: true,
            render: true,
        }
    }

    /// Graphics 9 on Linux 7.2.
    pub(in super::super) fn vega() -> Self {
        Self {
            family: 141,
            snoops_all: true,
            ..Self::navi()
        }
    }

    pub(super) fn truth(&self, buffer: &Buffer) -> Truth {
        if buffer.domains & VRAM != 0 {
            // It may move to system memory, and there its type is another.
            return Truth {
                host: MapCache::Wc,
                kinds: PageKinds::Either,
                snoops: Snoops::No,
            };
        }
        let combined = buffer.flags & USWC != 0;
        Truth {
            host: if combined {
                MapCache::Wc
            } else {
                MapCache::Cached
            },
            kinds: PageKinds::Ram,
            snoops: if combined && !self.snoops_all {
                Snoops::No
            } else {
                Snoops::Yes
            },
        }
    }

    pub(super) fn command(
        &self,
        node: &FakeNode,
        state: &mut State,
        request: &mut Request<'_>,
    ) -> Result<(), Errno> {
        if !self.render {
            // DRM_AUTH: a card node's file that nobody authenticated.
            return Err(Errno::ACCESS);
        }
        match request {
            Request::AmdgpuDevice(device) => {
                device.device_id = 0x73bf;
                device.family = self.family;
                Ok(())
            }
            Request::AmdgpuGemCreate { create, handle } => {
                **handle = self.create(node, state, create)?;
                Ok(())
            }
            Request::AmdgpuGemMmap { handle, offset } => {
                let object = state.object(node.file, *handle)?;
                let size = object.size;
                let truth = node.device.truth_of(&object.state);
                **offset = node.place(state, size, truth);
                Ok(())
            }
            Request::AmdgpuCreateInfo { handle, info } => {
                let object = state.object(node.file, *handle)?;
                let ObjectState::Amdgpu(buffer) = &object.state else {
                    return Err(Errno::NOENT);
                };
                **info = drm_amdgpu_gem_create_in {
                    bo_size: object.size,
                    alignment: buffer.alignment,
                    domains: buffer.domains,
                    domain_flags: buffer.flags,
                };
                Ok(())
            }
            _ => Err(Errno::INVAL),
        }
    }

    fn create(
        &self,
        node: &FakeNode,
        state: &mut State,
        create: &drm_amdgpu_gem_create_in,
    ) -> Result<u32, Errno> {
        // AMDGPU_GEM_CREATE_SETTABLE_MASK
        let settable = 0x1_f6cf_u64;
        if create.domain_flags & !settable != 0 || create.domains & !0x7f != 0 {
            return Err(Errno::INVAL);
        }
        if create.domains & (GTT | VRAM) == 0 {
            return Err(Errno::INVAL);
        }
        if create.bo_size == 0 {
            return Err(Errno::INVAL);
        }
        if create.bo_size > 1 << 36 {
            return Err(Errno::NOMEM);
        }
        let mut flags = create.domain_flags | 8;
        if !self.host_can_combine || node.device.lies(Lie::UswcDropped) {
            flags &= !USWC;
        }
        let moved = node.device.lies(Lie::InVideoMemory);
        let domains = if moved { VRAM } else { create.domains };
        let buffer = Buffer {
            domains,
            flags,
            alignment: create.alignment,
        };
        let size = node.size(create.bo_size, 4096);
        Ok(node.insert(state, size, ObjectState::Amdgpu(buffer)))
    }
}
