//! drivers/gpu/drm/i915: `i915_gem_create.c`, `i915_gem_domain.c`, `i915_gem_mman.c`, `i915_query.c`,
//! `i915_getparam.c`.

use nosnoop_protocol::MapCache;
use rustix::io::Errno;
use zerocopy::IntoBytes;

use super::{FakeNode, Lie, ObjectState, Snoops, State, Truth};
use crate::memory::kind::PageKinds;
use crate::sys::request::{I915Extension, Request};
use crate::sys::uapi::i915::{
    drm_i915_gem_memory_class_instance, drm_i915_memory_region_info, drm_i915_query_memory_regions,
};

/// A device of the driver, and the kernel that drives it.
#[derive(Clone, Debug)]
pub(in super::super) struct I915 {
    pub(in super::super) chipset: i32,
    /// Graphics version times 100.
    pub(in super::super) graphics: u32,
    pub(in super::super) shared_cache: bool,
    /// Whether the GPU can snoop at all where the cache is not shared.
    pub(in super::super) can_snoop: bool,
    /// Memory of its own. All such devices are discrete.
    pub(in super::super) own_memory: bool,
    /// Discrete, whether or not its memory came up.
    pub(in super::super) discrete: bool,
    /// Whether the host's CPU maps write-combining (`pat_enabled`).
    pub(in super::super) host_has_pat: bool,
    pub(in super::super) gtt_version: i32,
    pub(in super::super) knows_regions: bool,
    pub(in super::super) knows_set_pat: bool,
}

/// How a mapping is made (`enum i915_mmap_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MapType {
    Aperture,
    Wc,
    Wb,
    Uc,
    Fixed,
}

#[derive(Clone, Debug)]
pub(super) struct Buffer {
    system: bool,
    own: bool,
    /// Set by user space: 0, 1 or 2.
    caching: Option<u32>,
    pat: Option<u32>,
    /// What `GET_CACHING` says.
    said_caching: u32,
    said_pat: bool,
}

impl I915 {
    /// Tiger Lake: integrated, shared cache.
    pub(in super::super) fn tiger_lake() -> Self {
        Self {
            chipset: 0x9a49,
            graphics: 1200,
            shared_cache: true,
            can_snoop: true,
            own_memory: false,
            discrete: false,
            host_has_pat: true,
            gtt_version: 4,
            knows_regions: true,
            knows_set_pat: true,
        }
    }

    /// Broxton: integrated, no shared cache; it can snoop.
    pub(in super::super) fn broxton() -> Self {
        Self {
            chipset: 0x5a84,
            graphics: 900,
            shared_cache: false,
            ..Self::tiger_lake()
        }
    }

    /// Meteor Lake: integrated, PAT indices.
    pub(in super::super) fn meteor_lake() -> Self {
        Self {
            chipset: 0x7d55,
            graphics: 1270,
            shared_cache: false,
            ..Self::tiger_lake()
        }
    }

    /// DG2: discrete, with memory of its own.
    pub(in super::super) fn dg2() -> Self {
        Self {
            chipset: 0x56a0,
            graphics: 1255,
            shared_cache: false,
            own_memory: true,
            discrete: true,
            ..Self::tiger_lake()
        }
    }

    pub(super) fn truth(&self, buffer: &Buffer, map: Option<MapType>) -> Truth {
        let kinds = match (buffer.system, buffer.own) {
            (true, false) => PageKinds::Ram,
            (false, true) => PageKinds::Mmio,
            _ => PageKinds::Either,
        };
        if self.own_memory {
            // `i915_ttm_select_tt_caching`, and the bus's type for the device's memory.
            let only_system = !buffer.own;
            return Truth {
                host: if only_system {
                    MapCache::Cached
                } else {
                    MapCache::Wc
                },
                kinds,
                snoops: if only_system { Snoops::Yes } else { Snoops::No },
            };
        }
        let snoops = match (buffer.pat, buffer.caching) {
            // `xelpg_setup_private_ppat`: the first three are not coherent.
            (Some(pat), _) => pat >= 3,
            (None, Some(caching)) => caching == 1,
            (None, None) => self.shared_cache,
        };
        Truth {
            host: match map {
                Some(MapType::Wc | MapType::Aperture) => MapCache::Wc,
                Some(MapType::Uc) => MapCache::Uncached,
                Some(MapType::Wb | MapType::Fixed) | None => MapCache::Cached,
            },
            kinds: match map {
                Some(MapType::Aperture) => PageKinds::Mmio,
                _ => kinds,
            },
            snoops: if snoops { Snoops::Yes } else { Snoops::No },
        }
    }

    pub(super) fn command(
        &self,
        node: &FakeNode,
        state: &mut State,
        request: &mut Request<'_>,
    ) -> Result<(), Errno> {
        match request {
            Request::I915GetParam { param, value } => {
                **value = match param {
                    4 => self.chipset,
                    17 => i32::from(self.shared_cache),
                    40 => self.gtt_version,
                    _ => return Err(Errno::INVAL),
                };
            }
            Request::I915Query { id, length, data } => **length = self.query(node, *id, data),
            Request::I915GemCreate(create) => {
                let buffer = Buffer::new(true, false);
                (create.size, create.handle) = self.create(node, state, create.size, buffer)?;
            }
            Request::I915GemCreateExt {
                create,
                flags,
                extension,
            } => {
                let buffer = self.extended(node, *flags, extension)?;
                (create.size, create.handle) = self.create(node, state, create.size, buffer)?;
            }
            Request::I915SetCaching(set) => {
                if self.discrete {
                    return Err(Errno::NODEV);
                }
                if self.graphics >= 1270 {
                    return Err(Errno::OPNOTSUPP);
                }
                match set.caching {
                    0 | 2 => {}
                    1 if self.shared_cache || self.can_snoop => {}
                    1 => return Err(Errno::NODEV),
                    _ => return Err(Errno::INVAL),
                }
                let buffer = buffer(node, state, set.handle)?;
                if buffer.said_pat {
                    return Err(Errno::OPNOTSUPP);
                }
                if !node.device.lies(Lie::CachingIgnored) {
                    buffer.caching = Some(set.caching);
                    buffer.said_caching = set.caching;
                }
            }
            Request::I915GetCaching(get) => {
                if self.discrete {
                    return Err(Errno::NODEV);
                }
                let default = u32::from(self.shared_cache);
                let buffer = buffer(node, state, get.handle)?;
                if buffer.said_pat {
                    return Err(Errno::OPNOTSUPP);
                }
                get.caching = buffer.caching.map_or(default, |_| buffer.said_caching);
            }
            Request::I915MmapOffset {
                handle,
                flags,
                offset,
            } => **offset = self.mmap_offset(node, state, *handle, *flags)?,
            _ => return Err(Errno::INVAL),
        }
        Ok(())
    }

    fn regions(&self) -> Vec<drm_i915_gem_memory_class_instance> {
        let region = |memory_class| drm_i915_gem_memory_class_instance {
            memory_class,
            memory_instance: 0,
        };
        let all = [region(0), region(1)];
        all[..=usize::from(self.own_memory)].to_vec()
    }

    /// `query_memregion_info`.
    fn query(&self, node: &FakeNode, id: u32, data: &mut [u8]) -> i32 {
        let invalid = -Errno::INVAL.raw_os_error();
        if id != 4 || !self.knows_regions {
            return invalid;
        }
        let regions = self.regions();
        let mut answer = drm_i915_query_memory_regions {
            num_regions: u32::try_from(regions.len()).unwrap(),
            rsvd: [0; 3],
        }
        .as_bytes()
        .to_vec();
        if node.device.lies(Lie::ListGarbled) {
            answer[..4].copy_from_slice(&u32::MAX.to_ne_bytes());
        }
        for region in regions {
            let info = drm_i915_memory_region_info {
                region,
                probed_size: 1 << 33,
                ..Default::default()
            };
            answer.extend_from_slice(info.as_bytes());
        }
        let total = i32::try_from(answer.len()).unwrap();
        if data.is_empty() {
            return total;
        }
        if data.len() < answer.len() || data[..16] != [0; 16] {
            return invalid;
        }
        data[..answer.len()].copy_from_slice(&answer);
        total
    }

    fn extended(
        &self,
        node: &FakeNode,
        flags: u32,
        extension: &I915Extension<'_>,
    ) -> Result<Buffer, Errno> {
        if flags & !1 != 0 {
            return Err(Errno::INVAL);
        }
        let mut buffer = Buffer::new(true, false);
        match extension {
            I915Extension::SetPat(index) => {
                if !self.knows_set_pat {
                    return Err(Errno::INVAL);
                }
                if self.graphics < 1270 {
                    return Err(Errno::NODEV);
                }
                if *index > 4 {
                    return Err(Errno::INVAL);
                }
                if !node.device.lies(Lie::PatIgnored) {
                    buffer.pat = Some(*index);
                    buffer.said_pat = true;
                }
            }
            I915Extension::MemoryRegions(list) => {
                let known = self.regions();
                let twice = list.len() > 1 && list[1..].iter().any(|region| same(region, &list[0]));
                let unknown = list
                    .iter()
                    .any(|region| !known.iter().any(|k| same(k, region)));
                if list.is_empty() || twice || unknown {
                    return Err(Errno::INVAL);
                }
                buffer.system = list.iter().any(|region| region.memory_class == 0);
                buffer.own = list.iter().any(|region| region.memory_class == 1);
            }
        }
        // `I915_GEM_CREATE_EXT_FLAG_NEEDS_CPU_ACCESS` is for buffers that can be in both.
        if flags == 1 && !(buffer.system && buffer.own) {
            return Err(Errno::INVAL);
        }
        Ok(buffer)
    }

    fn create(
        &self,
        node: &FakeNode,
        state: &mut State,
        size: u64,
        buffer: Buffer,
    ) -> Result<(u64, u32), Errno> {
        let page = if buffer.own { 0x1_0000 } else { 0x1000 };
        if size == 0 {
            return Err(Errno::INVAL);
        }
        if size >> 12 > 0x7fff_ffff {
            return Err(Errno::TOOBIG);
        }
        let size = node.size(size, page);
        let handle = node.insert(state, size, ObjectState::I915(buffer));
        Ok((size, handle))
    }

    fn mmap_offset(
        &self,
        node: &FakeNode,
        state: &mut State,
        handle: u32,
        flags: u32,
    ) -> Result<u64, Errno> {
        let map = match flags {
            // The older command of that number knows no flags.
            _ if self.gtt_version < 4 => MapType::Aperture,
            // No aperture on these.
            0 if self.graphics >= 1270 || self.own_memory => return Err(Errno::NODEV),
            0 => MapType::Aperture,
            1 | 3 if !self.host_has_pat => return Err(Errno::NODEV),
            1 => MapType::Wc,
            2 => MapType::Wb,
            3 => MapType::Uc,
            4 => MapType::Fixed,
            _ => return Err(Errno::INVAL),
        };
        let size = state.object(node.file, handle)?.size;
        if self.own_memory != (map == MapType::Fixed) {
            return Err(Errno::NODEV);
        }
        let truth = self.truth(buffer(node, state, handle)?, Some(map));
        Ok(node.place(state, size, truth))
    }
}

impl Buffer {
    pub(super) fn pat_index(&self) -> Option<u32> {
        self.pat
    }

    fn new(system: bool, own: bool) -> Self {
        Self {
            system,
            own,
            caching: None,
            pat: None,
            said_caching: 0,
            said_pat: false,
        }
    }
}

fn same(
    one: &drm_i915_gem_memory_class_instance,
    other: &drm_i915_gem_memory_class_instance,
) -> bool {
    one.as_bytes() == other.as_bytes()
}

fn buffer<'a>(node: &FakeNode, state: &'a mut State, handle: u32) -> Result<&'a mut Buffer, Errno> {
    match &mut state.object(node.file, handle)?.state {
        ObjectState::I915(buffer) => Ok(buffer),
        _ => Err(Errno::NOENT),
    }
}
