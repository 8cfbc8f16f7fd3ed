//! drivers/gpu/drm/xe: `xe_bo.c`, `xe_query.c`.

use nosnoop_protocol::MapCache;
use rustix::io::Errno;
use zerocopy::IntoBytes;

use super::{FakeNode, Lie, ObjectState, Snoops, State, Truth};
use crate::memory::kind::PageKinds;
use crate::sys::request::Request;
use crate::sys::uapi::xe::{
    drm_xe_gem_create, drm_xe_gt, drm_xe_mem_region, drm_xe_query_gt_list, drm_xe_query_mem_regions,
};

/// A device of the driver.
#[derive(Clone, Debug)]
pub(in super::super) struct Xe {
    pub(in super::super) discrete: bool,
    pub(in super::super) graphics: (u16, u16),
    /// System memory's place among the regions.
    pub(in super::super) system: u16,
    pub(in super::super) page: u32,
}

#[derive(Clone, Debug)]
pub(super) struct Buffer {
    system: bool,
    video: bool,
    combined: bool,
}

impl Xe {
    pub(in super::super) fn lunar_lake() -> Self {
        Self {
            discrete: false,
            graphics: (20, 4),
            system: 0,
            page: 4096,
        }
    }

    pub(in super::super) fn battlemage() -> Self {
        Self {
            discrete: true,
            graphics: (20, 1),
            ..Self::lunar_lake()
        }
    }

    /// `xe_ttm_tt_create`, and the bus's type for video memory.
    pub(super) fn truth(&self, buffer: &Buffer) -> Truth {
        let kinds = match (buffer.system, buffer.video) {
            (true, false) => PageKinds::Ram,
            (false, true) => PageKinds::Mmio,
            _ => PageKinds::Either,
        };
        let (host, snoops) = match (buffer.video, buffer.combined) {
            (true, _) => (MapCache::Wc, Snoops::Chosen),
            (false, _) if self.discrete => (MapCache::Cached, Snoops::Yes),
            (false, true) => (MapCache::Wc, Snoops::Chosen),
            // `xe_vm_bind_ioctl_validate_bo` lets nobody bind it otherwise.
            (false, false) => (MapCache::Cached, Snoops::Yes),
        };
        Truth {
            host,
            kinds,
            snoops,
        }
    }

    pub(super) fn command(
        &self,
        node: &FakeNode,
        state: &mut State,
        request: &mut Request<'_>,
    ) -> Result<(), Errno> {
        match request {
            Request::XeQuery { query, size, data } => {
                let mut answer = self.answer(*query)?;
                if node.device.lies(Lie::ListGarbled) {
                    answer[..4].copy_from_slice(&u32::MAX.to_ne_bytes());
                }
                if data.is_empty() {
                    **size = u32::try_from(answer.len()).unwrap();
                } else if data.len() == answer.len() {
                    data.copy_from_slice(&answer);
                } else {
                    return Err(Errno::INVAL);
                }
                Ok(())
            }
            Request::XeGemCreate(create) => {
                let buffer = self.check(create)?;
                create.handle = node.insert(state, create.size, ObjectState::Xe(buffer));
                Ok(())
            }
            Request::XeMmapOffset { handle, offset } => {
                let object = state.object(node.file, *handle)?;
                let size = object.size;
                let truth = node.device.truth_of(&object.state);
                **offset = node.place(state, size, truth);
                Ok(())
            }
            _ => Err(Errno::INVAL),
        }
    }

    fn answer(&self, query: u32) -> Result<Vec<u8>, Errno> {
        match query {
            1 => {
                let system = drm_xe_mem_region {
                    mem_class: 0,
                    instance: self.system,
                    min_page_size: self.page,
                    total_size: 1 << 34,
                    ..Default::default()
                };
                let video = drm_xe_mem_region {
                    mem_class: 1,
                    instance: 5,
                    min_page_size: 0x1_0000,
                    total_size: 1 << 33,
                    ..Default::default()
                };
                let count = 1 + u32::from(self.discrete);
                let mut answer = drm_xe_query_mem_regions {
                    num_mem_regions: count,
                    pad: 0,
                }
                .as_bytes()
                .to_vec();
                if self.discrete {
                    answer.extend_from_slice(video.as_bytes());
                }
                answer.extend_from_slice(system.as_bytes());
                Ok(answer)
            }
            3 => {
                let gt = |r#type, version: (u16, u16)| drm_xe_gt {
                    r#type,
                    ip_ver_major: version.0,
                    ip_ver_minor: version.1,
                    ..Default::default()
                };
                let mut answer = drm_xe_query_gt_list { num_gt: 2, pad: 0 }
                    .as_bytes()
                    .to_vec();
                answer.extend_from_slice(gt(1, (13, 1)).as_bytes());
                answer.extend_from_slice(gt(0, self.graphics).as_bytes());
                Ok(answer)
            }
            _ => Err(Errno::INVAL),
        }
    }

    /// `xe_gem_create_ioctl`.
    fn check(&self, create: &drm_xe_gem_create) -> Result<Buffer, Errno> {
        let system = 1 << self.system;
        let video = if self.discrete { 1 << 5 } else { 0 };
        let reserved = create.pad != [0; 3] || create.reserved != [0; 2] || create.handle != 0;
        let placement = create.placement & !(system | video) != 0 || create.placement == 0;
        // The size must fit the pages of the regions too: `xe_bo_create_user` rounds it up for some,
        // and this is stricter.
        let size = create.size == 0 || create.size & u64::from(self.page - 1) != 0;
        let caching = !(1..=2).contains(&create.cpu_caching);
        let in_video = create.placement & video != 0;
        if reserved || placement || size || caching || create.flags & !0xf != 0 {
            return Err(Errno::INVAL);
        }
        if in_video && create.cpu_caching != 2 {
            return Err(Errno::INVAL);
        }
        if create.vm_id != 0 {
            return Err(Errno::NOENT);
        }
        Ok(Buffer {
            system: create.placement & system != 0,
            video: in_video,
            combined: create.cpu_caching == 2,
        })
    }
}
