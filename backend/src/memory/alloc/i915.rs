//! i915: Intel's older driver, up to graphics 12.74.
//!
//! Which way leads to write-combined memory depends on the device (drivers/gpu/drm/i915/gem):
//!
//! | device | allocate | map |
//! |---|---|---|
//! | integrated, before 12.70 | `GEM_CREATE`, `SET_CACHING` | `MMAP_OFFSET` WC or WB |
//! | integrated, 12.70 and later | `GEM_CREATE_EXT` with `SET_PAT` (`SET_CACHING` is EOPNOTSUPP) | the same |
//! | with memory of its own | `GEM_CREATE_EXT` with both regions, or `GEM_CREATE` (`SET_CACHING` is ENODEV) | `MMAP_OFFSET` FIXED |
//!
//! The buffers are handed out as the node's file and an offset in it. i915's dma-bufs are mapped
//! write-back whatever the buffer is, for their mmap is that of the file behind it
//! (`i915_gem_dmabuf_mmap`). Linux 7.2 does better on devices with memory of their own, older kernels
//! may not, and there is no way to ask.

use std::sync::Arc;

use nosnoop_protocol::MapCache;
use rustix::io::Errno;
use zerocopy::FromBytes;

use super::drm_node::{Node, perform, unsuitable, untrue};
use super::error::AllocError;
use super::gem::GemObject;
use super::{Handout, HostMemory, Want};
use crate::memory::kind::{PageKinds, Snooping, Traits};
use crate::sys::request::{I915Extension, Request};
use crate::sys::uapi::i915::{
    DRM_I915_QUERY_MEMORY_REGIONS, I915_CACHING_CACHED, I915_CACHING_NONE,
    I915_GEM_CREATE_EXT_FLAG_NEEDS_CPU_ACCESS, I915_MEMORY_CLASS_DEVICE, I915_MEMORY_CLASS_SYSTEM,
    I915_MMAP_OFFSET_FIXED, I915_MMAP_OFFSET_WB, I915_MMAP_OFFSET_WC, I915_PARAM_CHIPSET_ID,
    I915_PARAM_HAS_LLC, I915_PARAM_MMAP_GTT_VERSION, drm_i915_gem_caching, drm_i915_gem_create,
    drm_i915_gem_memory_class_instance, drm_i915_memory_region_info, drm_i915_query_memory_regions,
};

/// Devices with graphics 12.70 to 12.74, all that i915 drives from 12.70 on: Meteor Lake and Arrow
/// Lake. Source: `INTEL_MTL_IDS` and `INTEL_ARL_IDS` in include/drm/intel/pciids.h.
const WITH_PAT_INDEX: [i32; 10] = [
    0x7d40, 0x7d41, 0x7d45, 0x7d51, 0x7d55, 0x7d60, 0x7d67, 0x7dd1, 0x7dd5, 0xb640,
];

/// Their PAT entry that is uncached and not coherent (`xelpg_setup_private_ppat` in
/// drivers/gpu/drm/i915/gt/intel_gtt.c).
const PAT_UNCACHED: u32 = 2;

/// Their PAT entry that is cached and snoops the CPUs' caches.
const PAT_COHERENT: u32 = 3;

/// The first `I915_PARAM_MMAP_GTT_VERSION` with `MMAP_OFFSET` (Linux 5.6). Older kernels take the
/// number for another command, and would map as they like.
const MMAP_OFFSET_VERSION: i32 = 4;

/// Bytes of the longest list of memory regions that is believed.
const LONGEST_LIST: usize = 1 << 16;

/// How the device takes its memory.
#[derive(Debug)]
enum Way {
    /// Integrated, before graphics 12.70.
    Caching,
    /// Integrated, from graphics 12.70 on.
    Pat,
    /// With memory of its own, in these regions: its own, then the system's.
    OwnMemory([drm_i915_gem_memory_class_instance; 2]),
}

/// Allocates from an i915 node.
#[derive(Debug)]
pub(super) struct I915 {
    node: Arc<dyn Node>,
    chipset: i32,
    shared_cache: bool,
    way: Way,
}

impl I915 {
    /// Asks the device what it is.
    pub(super) fn new(node: Arc<dyn Node>, handout: Handout) -> Result<Self, AllocError> {
        if handout == Handout::DmaBuf {
            let why = "its dma-bufs are mapped write-back whatever the buffer is: \
                       have buffers handed out by the node";
            return Err(unsuitable(&*node, why));
        }
        if get_param(&*node, I915_PARAM_MMAP_GTT_VERSION)? < MMAP_OFFSET_VERSION {
            let why = "the kernel cannot say how a buffer is mapped: use Linux 5.6 or newer";
            return Err(unsuitable(&*node, why));
        }
        let chipset = get_param(&*node, I915_PARAM_CHIPSET_ID)?;
        let way = match own_memory(&*node)? {
            Some(regions) => Way::OwnMemory(regions),
            None if WITH_PAT_INDEX.contains(&chipset) => Way::Pat,
            None => Way::Caching,
        };
        Ok(Self {
            chipset,
            shared_cache: get_param(&*node, I915_PARAM_HAS_LLC)? != 0,
            way,
            node,
        })
    }

    pub(super) fn describe(&self) -> String {
        let memory = match self.way {
            Way::Caching => "no memory of its own, SET_CACHING",
            Way::Pat => "no memory of its own, SET_PAT",
            Way::OwnMemory(_) => "memory of its own",
        };
        let cache = if self.shared_cache { "" } else { "no " };
        format!(
            "device {:#06x}, {memory}, {cache}last-level cache shared with the CPUs",
            self.chipset
        )
    }

    /// `len` bytes, whole pages.
    pub(super) fn allocate(&self, len: u64, want: Want) -> Result<HostMemory, AllocError> {
        match &self.way {
            Way::Caching => self.with_caching(len, want),
            Way::Pat => self.with_pat(len, want),
            Way::OwnMemory(regions) => self.with_own_memory(len, want, regions),
        }
    }

    fn with_caching(&self, len: u64, want: Want) -> Result<HostMemory, AllocError> {
        let object = self.create(len)?;
        let caching = match want {
            Want::Coherent => I915_CACHING_CACHED,
            Want::Noncoherent => I915_CACHING_NONE,
        };
        let set = drm_i915_gem_caching {
            handle: object.handle(),
            caching,
        };
        perform(&*self.node, Request::I915SetCaching(set)).map_err(|error| {
            let newer = "; this program takes the device for an older one: report its device id";
            let discrete = "; the device has no such kind of memory";
            error
                .advise(Errno::OPNOTSUPP, newer)
                .advise(Errno::NODEV, discrete)
        })?;
        let mut get = drm_i915_gem_caching {
            handle: object.handle(),
            ..Default::default()
        };
        perform(&*self.node, Request::I915GetCaching(&mut get))?;
        if get.caching != caching {
            let what = format!(
                "a buffer was to have caching {caching} and has {}",
                get.caching
            );
            return Err(untrue(&*self.node, what));
        }
        self.hand_out(object, len, integrated(want))
    }

    fn with_pat(&self, len: u64, want: Want) -> Result<HostMemory, AllocError> {
        let index = match want {
            Want::Coherent => PAT_COHERENT,
            Want::Noncoherent => PAT_UNCACHED,
        };
        let object = self.create_ext(len, 0, I915Extension::SetPat(index))?;
        // What the index is cannot be read back, but that one was set: the older question is then
        // refused (`i915_gem_get_caching_ioctl`).
        let mut get = drm_i915_gem_caching {
            handle: object.handle(),
            ..Default::default()
        };
        match perform(&*self.node, Request::I915GetCaching(&mut get)) {
            Err(error) if error.errno() == Some(Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error),
            Ok(()) => return Err(untrue(&*self.node, "a buffer has not got its PAT index")),
        }
        self.hand_out(object, len, integrated(want))
    }

    fn with_own_memory(
        &self,
        len: u64,
        want: Want,
        regions: &[drm_i915_gem_memory_class_instance; 2],
    ) -> Result<HostMemory, AllocError> {
        // Documented at `struct drm_i915_gem_mmap_offset`: write-back for buffers that can only be in
        // system memory, which such a device always snoops; write-combining for all others, wherever
        // they are. A CPU reaches the device's memory for sure only if the buffer may move.
        let (object, traits) = match want {
            Want::Coherent => {
                let traits = Traits {
                    host: Some(MapCache::Cached),
                    kinds: PageKinds::Ram,
                    snooping: Snooping::Yes,
                    verified: false,
                };
                (self.create(len)?, traits)
            }
            Want::Noncoherent => {
                let flags = I915_GEM_CREATE_EXT_FLAG_NEEDS_CPU_ACCESS;
                let both = I915Extension::MemoryRegions(regions);
                let traits = Traits {
                    host: Some(MapCache::Wc),
                    kinds: PageKinds::Either,
                    snooping: Snooping::No,
                    verified: false,
                };
                (self.create_ext(len, flags, both)?, traits)
            }
        };
        self.hand_out(object, len, traits)
    }

    fn create(&self, len: u64) -> Result<GemObject, AllocError> {
        let mut create = drm_i915_gem_create {
            size: len,
            ..Default::default()
        };
        perform(&*self.node, Request::I915GemCreate(&mut create))?;
        let object = GemObject::new(&self.node, create.handle)?;
        object.check_size(len, create.size)?;
        Ok(object)
    }

    fn create_ext(
        &self,
        len: u64,
        flags: u32,
        extension: I915Extension<'_>,
    ) -> Result<GemObject, AllocError> {
        let mut create = drm_i915_gem_create {
            size: len,
            ..Default::default()
        };
        let request = Request::I915GemCreateExt {
            create: &mut create,
            flags,
            extension,
        };
        perform(&*self.node, request).map_err(|error| {
            error.advise(
                Errno::INVAL,
                "; the kernel may be too old for this device: use Linux 6.6 or newer",
            )
        })?;
        let object = GemObject::new(&self.node, create.handle)?;
        object.check_size(len, create.size)?;
        Ok(object)
    }

    fn hand_out(
        &self,
        object: GemObject,
        len: u64,
        traits: Traits,
    ) -> Result<HostMemory, AllocError> {
        let flags = match (&self.way, traits.host) {
            (Way::OwnMemory(_), _) => I915_MMAP_OFFSET_FIXED,
            (_, Some(MapCache::Wc)) => I915_MMAP_OFFSET_WC,
            (_, _) => I915_MMAP_OFFSET_WB,
        };
        object.hand_out(Handout::Node, len, traits, |object| {
            let mut offset = 0;
            let map = Request::I915MmapOffset {
                handle: object.handle(),
                flags,
                offset: &mut offset,
            };
            perform(&**object.node(), map).map_err(|error| {
                let no =
                    "; this host cannot map the buffer with the memory type that was asked for";
                error.advise(Errno::NODEV, no)
            })?;
            Ok(offset)
        })
    }
}

/// What the buffers of devices without own memory are: the driver programs the GPU as it is told, and
/// the offset says how CPUs map.
fn integrated(want: Want) -> Traits {
    let (host, snooping) = match want {
        Want::Coherent => (MapCache::Cached, Snooping::Yes),
        Want::Noncoherent => (MapCache::Wc, Snooping::No),
    };
    Traits {
        host: Some(host),
        kinds: PageKinds::Ram,
        snooping,
        verified: false,
    }
}

fn get_param(node: &dyn Node, param: u32) -> Result<i32, AllocError> {
    let mut value = 0;
    let request = Request::I915GetParam {
        param,
        value: &mut value,
    };
    perform(node, request)?;
    Ok(value)
}

/// The first region of the device's own memory and that of the system; `None` if it has none.
fn own_memory(
    node: &dyn Node,
) -> Result<Option<[drm_i915_gem_memory_class_instance; 2]>, AllocError> {
    let ask = |data: &mut [u8]| {
        let mut length = 0;
        let request = Request::I915Query {
            id: DRM_I915_QUERY_MEMORY_REGIONS,
            length: &mut length,
            data,
        };
        perform(node, request).map(|()| length)
    };
    let length = ask(&mut [])?;
    if length.checked_neg() == Some(Errno::INVAL.raw_os_error()) {
        // Kernels that do not know the question do not drive devices with own memory.
        return Ok(None);
    }
    let garbled = || untrue(node, "the list of memory regions is garbled");
    let length = usize::try_from(length)
        .ok()
        .filter(|&length| length <= LONGEST_LIST)
        .ok_or_else(garbled)?;
    let mut data = vec![0_u8; length];
    if usize::try_from(ask(&mut data)?) != Ok(length) {
        return Err(garbled());
    }
    let (head, rest) =
        drm_i915_query_memory_regions::read_from_prefix(&data).map_err(|_| garbled())?;
    let count = usize::try_from(head.num_regions).map_err(|_| garbled())?;
    let (regions, _) = <[drm_i915_memory_region_info]>::ref_from_prefix_with_elems(rest, count)
        .map_err(|_| garbled())?;
    let first = |class: u32| {
        let mut all = regions.iter().map(|info| info.region);
        all.find(|region| u32::from(region.memory_class) == class)
    };
    let system = first(I915_MEMORY_CLASS_SYSTEM).ok_or_else(garbled)?;
    Ok(first(I915_MEMORY_CLASS_DEVICE).map(|own| [own, system]))
}
