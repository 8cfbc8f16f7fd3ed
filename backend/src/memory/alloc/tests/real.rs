//! The kernel's own nodes, where this machine has them.

use std::fs;
use std::path::{Path, PathBuf};

use vm_memory::{Bytes, FileOffset, GuestAddress};

use crate::GuestMemory;
use crate::memory::alloc::{AllocError, Allocator, Handout, HostMemory, Want};

/// A mapping of the memory, as a front-end makes it.
fn map(memory: &HostMemory) -> GuestMemory {
    let file = fs::File::from(memory.fd().try_clone().unwrap());
    let len = usize::try_from(memory.len()).unwrap();
    let offset = FileOffset::new(file, memory.offset());
    GuestMemory::from_ranges_with_files([(GuestAddress(0), len, Some(offset))]).unwrap()
}

/// Two mappings see the same bytes, which begin as zeros.
fn assert_usable(memory: &HostMemory) {
    let (one, other) = (map(memory), map(memory));
    let mut bytes = [9; 4];
    let end = GuestAddress(memory.len() - 4);
    other.read_slice(&mut bytes, end).unwrap();
    assert_eq!(bytes, [0; 4]);
    one.write_slice(&[1, 2, 3, 4], end).unwrap();
    other.read_slice(&mut bytes, end).unwrap();
    assert_eq!(bytes, [1, 2, 3, 4]);
}

fn nodes(prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir("/dev/dri").into_iter().flatten().flatten();
    let mut nodes = entries.map(|entry| entry.path()).collect::<Vec<_>>();
    nodes.retain(|path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
    });
    nodes.sort();
    nodes
}

#[test]
fn vgem_of_this_kernel() {
    let vgem = nodes("card").into_iter().find_map(|path| {
        let allocator = Allocator::open(&path, Handout::Node).ok()?;
        (allocator.name() == "vgem").then_some((path, allocator))
    });
    let Some((path, allocator)) = vgem else {
        println!("SKIPPED: no card node of vgem (modprobe vgem, as root)");
        return;
    };
    let first = allocator.allocate(5000, Want::Noncoherent).unwrap();
    let second = allocator.allocate(1 << 20, Want::Noncoherent).unwrap();
    assert_ne!(first.offset(), second.offset());
    assert_usable(&first);
    assert_usable(&second);

    // Another open file description has no such place.
    let stranger = fs::File::options()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let range = (
        GuestAddress(0),
        8192,
        Some(FileOffset::new(stranger, first.offset())),
    );
    assert!(GuestMemory::from_ranges_with_files([range]).is_err());

    let dma_bufs = Allocator::open(&path, Handout::DmaBuf).unwrap();
    let third = dma_bufs.allocate(5000, Want::Noncoherent).unwrap();
    assert_eq!((third.offset(), third.len()), (0, 8192));
    assert_usable(&third);

    let error = allocator.allocate(1 << 32, Want::Noncoherent).unwrap_err();
    assert!(matches!(error, AllocError::Unsuitable { .. }), "{error}");
}

#[test]
fn vgems_render_node_of_this_kernel() {
    let vgem = nodes("renderD").into_iter().find_map(|path| {
        let allocator = Allocator::open(&path, Handout::Node).ok()?;
        (allocator.name() == "vgem").then_some(allocator)
    });
    let Some(allocator) = vgem else {
        println!("SKIPPED: no render node of vgem (modprobe vgem, as root)");
        return;
    };
    let error = allocator.allocate(4096, Want::Noncoherent).unwrap_err();
    assert!(
        error.to_string().ends_with("name /dev/dri/cardN"),
        "{error}"
    );
}

#[test]
fn udmabuf_of_this_kernel() {
    let path = Path::new("/dev/udmabuf");
    let allocator = match Allocator::udmabuf(path) {
        Ok(allocator) => allocator,
        Err(error) => {
            println!("SKIPPED: no udmabuf: {error}");
            return;
        }
    };
    let memory = allocator.allocate(5000, Want::Coherent).unwrap();
    assert_eq!((memory.offset(), memory.len()), (0, 8192));
    assert_usable(&memory);
    let error = allocator.allocate(1 << 40, Want::Coherent).unwrap_err();
    assert!(error.to_string().contains("64 MiB"), "{error}");
}

#[test]
fn what_is_no_node_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("renderD128");
    let error = Allocator::open(&missing, Handout::Node)
        .unwrap_err()
        .to_string();
    let path = missing.display();
    assert_eq!(
        error,
        format!("cannot open {path}: No such file or directory (os error 2); see ls /dev/dri")
    );
    for path in ["/dev/null", "/dev", "/proc/self/status"] {
        let error = Allocator::open(Path::new(path), Handout::Node).unwrap_err();
        let text = error.to_string();
        if path != "/proc/self/status" {
            assert_eq!(
                text,
                format!("{path} is not a DRM node: name one such as /dev/dri/renderD128")
            );
        }
        let error = Allocator::udmabuf(Path::new(path)).unwrap_err();
        assert!(!error.to_string().contains('\n'));
    }
}
