//! xe: Intel's newer driver.
//!
//! A buffer's CPU mapping is chosen when it is made, and whether the GPU snoops when somebody binds
//! it: the PAT index of `VM_BIND`. The kernel refuses an index that does not snoop for a buffer that
//! CPUs map cached (`xe_vm_bind_ioctl_validate_bo` in drivers/gpu/drm/xe/xe_vm.c).
//!
//! **Discrete devices have no write-combined system memory**: whatever is asked, it is mapped cached,
//! and the device always snoops it (`struct drm_xe_gem_create`; `xe_ttm_tt_create` in xe_bo.c).

use std::sync::Arc;

use nosnoop_protocol::MapCache;
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::drm_node::{Node, perform, untrue};
use super::error::AllocError;
use super::gem::GemObject;
use super::{Handout, HostMemory, Want};
use crate::memory::kind::{PageKinds, Snooping, Traits};
use crate::sys::request::Request;
use crate::sys::uapi::xe::{
    DRM_XE_DEVICE_QUERY_GT_LIST, DRM_XE_DEVICE_QUERY_MEM_REGIONS, DRM_XE_GEM_CPU_CACHING_WB,
    DRM_XE_GEM_CPU_CACHING_WC, DRM_XE_MEM_REGION_CLASS_SYSMEM, DRM_XE_MEM_REGION_CLASS_VRAM,
    DRM_XE_QUERY_GT_TYPE_MAIN, drm_xe_gem_create, drm_xe_gt, drm_xe_mem_region,
    drm_xe_query_gt_list, drm_xe_query_mem_regions,
};

/// Bytes of the longest answer that is believed.
const LONGEST_ANSWER: usize = 1 << 16;

/// Allocates from an xe node.
#[derive(Debug)]
pub(super) struct Xe {
    node: Arc<dyn Node>,
    handout: Handout,
    /// The bit of system memory in a buffer's placement.
    system: u32,
    /// The size of its pages, in bytes.
    page: u64,
    discrete: bool,
    /// Major and minor version of the graphics; 0.0 where the device does not say.
    graphics: (u16, u16),
}

impl Xe {
    /// Asks the device what it is.
    pub(super) fn new(node: Arc<dyn Node>, handout: Handout) -> Result<Self, AllocError> {
        let garbled = || untrue(&*node, "the list of memory regions is garbled");
        let data = query(&*node, DRM_XE_DEVICE_QUERY_MEM_REGIONS)?;
        let regions =
            list::<drm_xe_query_mem_regions, drm_xe_mem_region>(&data, |head| head.num_mem_regions)
                .ok_or_else(garbled)?;
        let of_class =
            |class: u32| move |region: &&drm_xe_mem_region| u32::from(region.mem_class) == class;
        let system = regions
            .iter()
            .find(of_class(DRM_XE_MEM_REGION_CLASS_SYSMEM))
            .ok_or_else(garbled)?;
        let discrete = regions
            .iter()
            .any(|region| of_class(DRM_XE_MEM_REGION_CLASS_VRAM)(&region));
        Ok(Self {
            system: 1_u32
                .checked_shl(system.instance.into())
                .ok_or_else(garbled)?,
            page: system.min_page_size.into(),
            discrete,
            graphics: graphics(&*node)?,
            handout,
            node,
        })
    }

    pub(super) fn describe(&self) -> String {
        let kind = if self.discrete {
            "discrete: system memory is always cached and snooped"
        } else {
            "integrated"
        };
        let (major, minor) = self.graphics;
        let indices = match incoherent_pat_indices(self.graphics) {
            Some(indices) => format!("PAT indices that do not snoop: {indices:?}"),
            None => "its PAT indices are not known here".to_owned(),
        };
        format!("graphics {major}.{minor:02}, {kind}; {indices}")
    }

    /// `len` bytes, whole pages.
    pub(super) fn allocate(&self, len: u64, want: Want) -> Result<HostMemory, AllocError> {
        let (caching, host, snooping) = match want {
            Want::Noncoherent if !self.discrete => {
                // Whoever binds the buffer chooses.
                (DRM_XE_GEM_CPU_CACHING_WC, MapCache::Wc, Snooping::Unknown)
            }
            _ => (DRM_XE_GEM_CPU_CACHING_WB, MapCache::Cached, Snooping::Yes),
        };
        let size = len
            .checked_next_multiple_of(self.page)
            .ok_or(AllocError::Length { len })?;
        let mut create = drm_xe_gem_create {
            size,
            placement: self.system,
            cpu_caching: u16::try_from(caching).unwrap_or_default(),
            ..Default::default()
        };
        perform(&*self.node, Request::XeGemCreate(&mut create))?;
        let object = GemObject::new(&self.node, create.handle)?;
        let traits = Traits {
            host: Some(host),
            kinds: PageKinds::Ram,
            snooping,
            verified: false,
        };
        object.hand_out(self.handout, len, traits, |object| {
            let mut offset = 0;
            let map = Request::XeMmapOffset {
                handle: object.handle(),
                offset: &mut offset,
            };
            perform(&**object.node(), map)?;
            Ok(offset)
        })
    }
}

/// The PAT indices with which a device of this graphics version does not snoop (`XE_COH_NONE`), for
/// importers that bind such buffers; `None` for versions that are not known here. The kernel refuses
/// reserved ones. Source: the tables of drivers/gpu/drm/xe/xe_pat.c, Linux 7.2.
#[must_use]
pub fn incoherent_pat_indices(graphics: (u16, u16)) -> Option<&'static [u16]> {
    match graphics {
        (12, 70..=74) => Some(&[0, 1, 2]),
        // Entries 28 and up are switched off (Wa_16023588340).
        (20, 1) => Some(&[0, 3, 6, 8, 9, 10, 11, 12, 13, 14, 15, 20, 21, 24, 25]),
        (20 | 30, _) => Some(&[
            0, 3, 6, 8, 9, 10, 11, 12, 13, 14, 15, 20, 21, 24, 25, 28, 29,
        ]),
        (35, 11) => Some(&[0, 3, 5, 8, 23, 26, 29]),
        (35, _) => Some(&[
            0, 3, 6, 8, 9, 10, 11, 12, 13, 14, 15, 18, 20, 21, 24, 25, 28, 29,
        ]),
        _ => None,
    }
}

/// The version of the main graphics.
fn graphics(node: &dyn Node) -> Result<(u16, u16), AllocError> {
    let data = query(node, DRM_XE_DEVICE_QUERY_GT_LIST)?;
    let garbled = || untrue(node, "the list of graphics engines is garbled");
    let gts =
        list::<drm_xe_query_gt_list, drm_xe_gt>(&data, |head| head.num_gt).ok_or_else(garbled)?;
    let main = gts
        .iter()
        .find(|gt| u32::from(gt.r#type) == DRM_XE_QUERY_GT_TYPE_MAIN)
        .ok_or_else(garbled)?;
    Ok((main.ip_ver_major, main.ip_ver_minor))
}

/// The entries of an answer, which has a head that says how many follow.
fn list<H, E>(data: &[u8], count: impl FnOnce(&H) -> u32) -> Option<&[E]>
where
    H: FromBytes,
    E: FromBytes + Immutable + KnownLayout,
{
    let (head, rest) = H::read_from_prefix(data).ok()?;
    let count = usize::try_from(count(&head)).ok()?;
    let (entries, _) = <[E]>::ref_from_prefix_with_elems(rest, count).ok()?;
    Some(entries)
}

/// Asks the device something: first for the answer's size, then for the answer.
fn query(node: &dyn Node, query: u32) -> Result<Vec<u8>, AllocError> {
    let ask = |data: &mut [u8]| {
        let mut size = 0;
        let request = Request::XeQuery {
            query,
            size: &mut size,
            data,
        };
        perform(node, request).map(|()| size)
    };
    let size = usize::try_from(ask(&mut [])?).unwrap_or(usize::MAX);
    if size > LONGEST_ANSWER {
        let what = format!("the answer to query {query} is to have {size} bytes");
        return Err(untrue(node, what));
    }
    let mut data = vec![0; size];
    ask(&mut data)?;
    Ok(data)
}
