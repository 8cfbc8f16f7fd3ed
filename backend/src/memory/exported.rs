//! Host memory that a renderer has allocated and exports: what is known of it, which is little.
//!
//! A dma-buf may be in RAM or in the GPU's memory, and may move. Which type the host's mappings have is
//! the renderer's word. virglrenderer says what is usual for the GPU's vendor, so it is never taken for
//! proof that a GPU snoops, nor for a mapping that has been verified: [`super::plan`] makes the
//! memory cached where every GPU of the host is proved to snoop, write-combining where the operator
//! allows it and the VMM honors it, and refuses the rest. Shared memory (a memfd) is plain memory that
//! CPUs use, as is what a renderer in software exports.
//!
//! With what virglrenderer says of each vendor (a test keeps this table; `--allow-unverified` in
//! brackets where it changes the result):
//!
//! | GPU | stock QEMU | QEMU with `honor-guest-pat`, said by `--vmm-memtype=honored` |
//! |---|---|---|
//! | Intel, with LLC (says cached) | cached | cached |
//! | Intel, without LLC (says cached) | refused | refused |
//! | AMD (says WC), Intel host | refused | refused (WC) |
//! | AMD (says WC), AMD host | refused (WC) | refused (WC) |
//! | any, nothing said | refused | refused |
//!
//! Integrated or discrete makes no difference here: nobody says where a dma-buf is.

use std::io;

use nosnoop_protocol::MapCache;
use rustix::fs::SealFlags;

use super::alloc::HostMemory;
use super::kind::{PageKinds, Snooping, Traits};
use crate::render::{ExportedBlob, HandleKind};

/// Why a renderer's memory is no use.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// No VMM can map it: Vulkan's opaque descriptors, for example, hold the memory who knows where.
    #[error("the renderer exports it as neither dma-buf nor shared memory, so no VMM can map it")]
    Kind,
    /// It is shorter than the blob, or cannot be asked.
    #[error("what the renderer exports cannot be mapped whole: {0}")]
    Size(#[from] io::Error),
}

/// What is known of memory that a renderer exports as this kind, with what it says of the mapping.
#[must_use]
pub fn traits(kind: HandleKind, map_info: Option<u32>) -> Traits {
    let (kinds, snooping) = match kind {
        HandleKind::DmaBuf => (PageKinds::Either, Snooping::Unknown),
        HandleKind::SoftwareDmaBuf | HandleKind::Shm => (PageKinds::Ram, Snooping::NoDevice),
        HandleKind::Other => (PageKinds::Unknown, Snooping::Unknown),
    };
    Traits {
        // Other bits than those of the cache type are left out here.
        host: map_info.and_then(MapCache::from_wire),
        kinds,
        snooping,
        verified: false,
    }
}

/// Takes over what a renderer exports; `len` bytes of it are wanted, a page multiple.
///
/// # Errors
/// [`ExportError`].
pub(super) fn memory(blob: ExportedBlob, len: u64) -> Result<HostMemory, ExportError> {
    let traits = traits(blob.kind, blob.map_info);
    match blob.kind {
        HandleKind::DmaBuf | HandleKind::SoftwareDmaBuf => {
            Ok(HostMemory::dma_buf(blob.fd, len, traits)?)
        }
        HandleKind::Shm => {
            // Nobody is to cut off pages that are mapped. A file that cannot be sealed is the
            // renderer's alone, which has no reason to.
            let _ = rustix::fs::fcntl_add_seals(&blob.fd, SealFlags::SHRINK | SealFlags::GROW);
            let size = rustix::fs::fstat(&blob.fd)
                .map_err(io::Error::from)?
                .st_size;
            if u64::try_from(size).unwrap_or(0) < len {
                return Err(ExportError::Size(io::ErrorKind::UnexpectedEof.into()));
            }
            Ok(HostMemory::new(blob.fd, 0, len, traits)?)
        }
        HandleKind::Other => Err(ExportError::Kind),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::Path;

    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    use super::*;
    use crate::memory::facts::{Facts, Host, RecordedCalls};
    use crate::memory::offer::with_proof;
    use crate::memory::plan::{Plan, Policy, VmmFacts, VmmMemtype, plan};

    fn memfd(size: u64) -> std::os::fd::OwnedFd {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = memfd_create(c"nosnoop-test", flags).unwrap();
        ftruncate(&fd, size).unwrap();
        fd
    }

    fn blob(kind: HandleKind, size: u64) -> ExportedBlob {
        let map_info = Some(1);
        let fd = memfd(size);
        ExportedBlob { fd, kind, map_info }
    }

    #[test]
    fn only_dma_bufs_and_shared_memory_are_taken_and_only_whole() {
        assert!(matches!(
            memory(blob(HandleKind::Other, 8192), 4096),
            Err(ExportError::Kind)
        ));
        for kind in [
            HandleKind::DmaBuf,
            HandleKind::SoftwareDmaBuf,
            HandleKind::Shm,
        ] {
            assert_eq!(memory(blob(kind, 8192), 8192).unwrap().len(), 8192);
            let short = memory(blob(kind, 4096), 8192).unwrap_err();
            assert!(
                short.to_string().contains("cannot be mapped whole"),
                "{short}"
            );
        }
    }

    #[test]
    fn shared_memory_keeps_its_size() {
        let exported = blob(HandleKind::Shm, 8192);
        let file = File::from(exported.fd.try_clone().unwrap());
        let memory = memory(exported, 4096).unwrap();
        assert!(file.set_len(4096).is_err());
        memory.read(0, &mut [0; 4096]).unwrap();
    }

    #[test]
    fn what_the_renderer_says_is_masked_and_unknown_stays_unknown() {
        let host = |map_info| traits(HandleKind::DmaBuf, map_info).host;
        assert_eq!(host(None), None);
        assert_eq!(host(Some(0)), None);
        assert_eq!(host(Some(0xf4)), None);
        assert_eq!(host(Some(0x31)), Some(MapCache::Cached));
        assert_eq!(host(Some(0xffff_fff3)), Some(MapCache::Wc));
    }

    fn facts(host: &str) -> Facts {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fixtures/hosts")
            .join(host);
        let calls = fs::read_to_string(folder.join("calls.json")).unwrap();
        let root = Host::at(&folder.join("root")).unwrap();
        Facts::probe(&root, &RecordedCalls::parse(&calls).unwrap())
    }

    /// What becomes of a dma-buf on a host: without and with `--allow-unverified`.
    fn results(host: &str, said: Option<u32>, vmm: VmmMemtype) -> [Option<MapCache>; 2] {
        let facts = facts(host);
        let traits = with_proof(traits(HandleKind::DmaBuf, said), &facts);
        let vmm = VmmFacts::new(&(&facts).into(), vmm, false);
        [false, true].map(|allow_unverified| {
            let policy = Policy {
                allow_unverified,
                ..Policy::default()
            };
            match plan(&traits, &vmm, false, policy) {
                Plan::Map(plan) => Some(plan.guest()),
                Plan::Refuse(_) => None,
            }
        })
    }

    #[test]
    fn memory_of_a_renderer_in_software_is_cached_on_every_host() {
        for host in ["intel-llc", "intel-no-llc", "amd"] {
            let facts = facts(host);
            let traits = with_proof(traits(HandleKind::SoftwareDmaBuf, Some(1)), &facts);
            let vmm = VmmFacts::new(&(&facts).into(), VmmMemtype::Auto, false);
            match plan(&traits, &vmm, false, Policy::default()) {
                Plan::Map(plan) => assert_eq!(plan.guest(), MapCache::Cached, "{host}"),
                Plan::Refuse(why) => panic!("{host}: {why:?}"),
            }
        }
    }

    #[test]
    fn the_table_is_true() {
        use MapCache::{Cached, Wc};
        const CACHED: Option<u32> = Some(1);
        const WC: Option<u32> = Some(3);
        let (stock, honored) = (VmmMemtype::Auto, VmmMemtype::Honored);
        for (host, said, vmm, expected) in [
            ("intel-llc", CACHED, stock, [Some(Cached); 2]),
            ("intel-llc", CACHED, honored, [Some(Cached); 2]),
            ("intel-no-llc", CACHED, stock, [None; 2]),
            ("intel-no-llc", CACHED, honored, [None; 2]),
            ("intel-no-llc", WC, stock, [None; 2]),
            ("intel-no-llc", WC, honored, [None, Some(Wc)]),
            ("amd", WC, stock, [None, Some(Wc)]),
            ("amd", WC, honored, [None, Some(Wc)]),
            ("intel-llc", None, honored, [None; 2]),
            ("amd", None, honored, [None; 2]),
        ] {
            assert_eq!(
                results(host, said, vmm),
                expected,
                "{host} {said:?} {vmm:?}"
            );
        }
    }
}
