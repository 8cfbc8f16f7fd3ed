//! Command bytes: mostly shaped as a driver's, with values that are right often enough to reach
//! deep and wrong often enough to matter.

use nosnoop_protocol::wire::cmd;

use super::memory::{GUEST_PAGES, page_address};
use super::random::Random;

/// DRM's number for the format XR24.
const XR24: u32 = 0x3432_5258;

/// What a field of a command means.
#[derive(Clone, Copy)]
enum Field {
    Resource,
    Scanout,
    Format,
    Edge,
    Rect,
    Offset64,
    Entries,
    BlobMem,
    BlobFlags,
    BlobId,
    Size64,
    Strides,
    ContextInit,
    Name,
    CrossDomain,
    Any,
}

use Field::{
    Any, BlobFlags, BlobId, BlobMem, ContextInit, CrossDomain, Edge, Entries, Format, Name,
    Offset64, Rect, Resource, Scanout, Size64, Strides,
};

/// Fields after the header, in wire order. `Entries` stands for the count word; what it counts is
/// appended at the end.
const SHAPES: &[(u32, &[Field])] = &[
    (cmd::GET_DISPLAY_INFO, &[]),
    (cmd::GET_EDID, &[Scanout, Any]),
    (cmd::RESOURCE_CREATE_2D, &[Resource, Format, Edge, Edge]),
    (cmd::RESOURCE_CREATE_2D, &[Resource, Format, Edge, Edge]),
    (cmd::RESOURCE_UNREF, &[Resource, Any]),
    (cmd::SET_SCANOUT, &[Rect, Scanout, Resource]),
    (cmd::RESOURCE_FLUSH, &[Rect, Resource, Any]),
    (cmd::RESOURCE_FLUSH, &[Rect, Resource, Any]),
    (cmd::TRANSFER_TO_HOST_2D, &[Rect, Offset64, Resource, Any]),
    (cmd::TRANSFER_TO_HOST_2D, &[Rect, Offset64, Resource, Any]),
    (cmd::RESOURCE_ATTACH_BACKING, &[Resource, Entries]),
    (cmd::RESOURCE_ATTACH_BACKING, &[Resource, Entries]),
    (cmd::RESOURCE_DETACH_BACKING, &[Resource, Any]),
    (cmd::GET_CAPSET_INFO, &[Any, Any]),
    (cmd::GET_CAPSET, &[Any, Any]),
    (cmd::RESOURCE_ASSIGN_UUID, &[Resource, Any]),
    (
        cmd::RESOURCE_CREATE_BLOB,
        &[Resource, BlobMem, BlobFlags, Entries, BlobId, Size64],
    ),
    (
        cmd::SET_SCANOUT_BLOB,
        &[Rect, Scanout, Resource, Edge, Edge, Format, Any, Strides],
    ),
    (cmd::CTX_CREATE, &[Any, ContextInit, Name]),
    (cmd::CTX_DESTROY, &[]),
    (cmd::CTX_ATTACH_RESOURCE, &[Resource, Any]),
    (cmd::CTX_DETACH_RESOURCE, &[Resource, Any]),
    (cmd::SUBMIT_3D, &[CrossDomain]),
    (cmd::SUBMIT_3D, &[CrossDomain]),
    (cmd::RESOURCE_MAP_BLOB, &[Resource, Any, Offset64]),
    (cmd::RESOURCE_MAP_BLOB, &[Resource, Any, Offset64]),
    (cmd::RESOURCE_MAP_BLOB, &[Resource, Any, Offset64]),
    (cmd::RESOURCE_UNMAP_BLOB, &[Resource, Any]),
];

const CURSOR_SHAPES: &[(u32, &[Field])] = &[
    (
        cmd::UPDATE_CURSOR,
        &[Scanout, Any, Any, Any, Resource, Any, Any, Any],
    ),
    (
        cmd::MOVE_CURSOR,
        &[Scanout, Any, Any, Any, Resource, Any, Any, Any],
    ),
];

/// What an honest driver does first to get at host blobs: a context, a ring for its answers, and the
/// description of an image of 64 x 64.
pub(super) fn opening() -> Vec<Vec<u8>> {
    let command = |code: u32, words: &[u32]| {
        let mut bytes = vec![0; 24];
        bytes[..4].copy_from_slice(&code.to_le_bytes());
        bytes[16] = 1;
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        bytes
    };
    let [low, high] = [page_address(0) as u32, (page_address(0) >> 32) as u32];
    let init = [1 | 20 << 16, 0, 1, 1, 0];
    let describe = [2 | 24 << 16, 0, 64, 64, XR24, 0];
    vec![
        command(cmd::CTX_CREATE, &[&[0, 5][..], &[0; 16]].concat()),
        command(
            cmd::RESOURCE_CREATE_BLOB,
            &[1, 1, 1, 1, 0, 0, 4096, 0, low, high, 4096, 0],
        ),
        command(cmd::CTX_ATTACH_RESOURCE, &[1, 0]),
        command(cmd::SUBMIT_3D, &[&[20, 0], &init[..]].concat()),
        command(cmd::SUBMIT_3D, &[&[24, 0], &describe[..]].concat()),
    ]
}

/// A host blob of the image that [`opening`] described.
fn host_blob(random: &mut Random) -> Vec<u8> {
    let mut bytes = vec![0; 24];
    bytes[..4].copy_from_slice(&cmd::RESOURCE_CREATE_BLOB.to_le_bytes());
    bytes[16] = 1;
    let words = [2 + random.below(5) as u32, 2, 1, 0, 1, 0, 16_384, 0];
    bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    bytes
}

/// One request for the control queue, or for the cursor queue.
pub(super) fn request(random: &mut Random, cursor: bool) -> Vec<u8> {
    if random.once_in(20) {
        let len = random.below(200);
        return (0..len).map(|_| random.bits() as u8).collect();
    }
    if !cursor && random.once_in(25) {
        return host_blob(random);
    }
    // Now and then a command of the other queue.
    let shapes = if cursor ^ random.once_in(50) {
        CURSOR_SHAPES
    } else {
        SHAPES
    };
    let (code, fields) = random.pick(shapes);
    let mut bytes = header(random, code);
    let mut entries = 0;
    for field in fields {
        push(random, *field, &mut bytes, &mut entries);
    }
    for _ in 0..entries {
        let address = if random.once_in(40) {
            random.edgy64()
        } else {
            page(random)
        };
        let len = random.pick(&[4096, 4096, 4096, 16, 0, 8192, 100]);
        bytes.extend(address.to_le_bytes());
        bytes.extend(
            (if random.once_in(40) {
                random.edgy32()
            } else {
                len
            })
            .to_le_bytes(),
        );
        bytes.extend([0; 4]);
    }
    if random.once_in(15) {
        bytes.truncate(random.below(bytes.len() as u64 + 1) as usize);
    }
    if random.once_in(15) && !bytes.is_empty() {
        let at = random.below(bytes.len() as u64) as usize;
        bytes[at] = random.bits() as u8;
    }
    bytes
}

fn header(random: &mut Random, code: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    let code = if random.once_in(60) {
        random.edgy32()
    } else {
        code
    };
    bytes.extend(code.to_le_bytes());
    bytes.extend(
        (if random.once_in(30) {
            random.edgy32()
        } else {
            random.below(4) as u32
        })
        .to_le_bytes(),
    );
    bytes.extend(random.bits().to_le_bytes());
    bytes.extend((random.below(3) as u32).to_le_bytes());
    bytes.extend((random.bits() as u32).to_le_bytes());
    bytes
}

fn push(random: &mut Random, field: Field, bytes: &mut Vec<u8>, entries: &mut u32) {
    let strange = random.once_in(25);
    let word = match field {
        _ if strange && !matches!(field, Rect | Offset64 | Size64 | Strides) => random.edgy32(),
        Resource => random.below(7) as u32,
        Scanout => random.below(4) as u32,
        Format => random.pick(&[1, 2, 3, 4, 67, 68, 121, 134]),
        Edge => random.pick(&[1, 16, 64, 64, 64, 65, 200, 640]),
        BlobMem => random.pick(&[1, 1, 1, 2, 2, 3]),
        BlobFlags => random.below(8) as u32,
        Name => {
            bytes.extend([0; 64]);
            return;
        }
        ContextInit => random.pick(&[5, 5, 5, 5, 0, 6]),
        CrossDomain => {
            let commands = cross_domain(random);
            bytes.extend((commands.len() as u32).to_le_bytes());
            bytes.extend([0; 4]);
            bytes.extend(commands);
            return;
        }
        Any => random.below(70) as u32,
        Entries => {
            *entries = random.pick(&[0, 0, 1, 3, 5, 40, 200]);
            // Sometimes the count does not match what follows.
            if random.once_in(20) {
                random.edgy32()
            } else {
                *entries
            }
        }
        Rect => {
            for _ in 0..2 {
                let at = if random.once_in(25) {
                    random.edgy32()
                } else {
                    random.below(70) as u32
                };
                bytes.extend(at.to_le_bytes());
            }
            for _ in 0..2 {
                let edge = random.pick(&[0, 1, 2, 16, 64, 64, 200]);
                bytes.extend(
                    (if random.once_in(25) {
                        random.edgy32()
                    } else {
                        edge
                    })
                    .to_le_bytes(),
                );
            }
            return;
        }
        Offset64 => {
            let offset = random.pick(&[0, 0, 0, 4, 256, 4096, 70_000]);
            bytes.extend((if strange { random.edgy64() } else { offset }).to_le_bytes());
            return;
        }
        BlobId => {
            bytes.extend(random.below(4).to_le_bytes());
            return;
        }
        Size64 => {
            let size = random.pick(&[0, 1, 4096, 16_384, 20_480, 163_840]);
            bytes.extend((if strange { random.edgy64() } else { size }).to_le_bytes());
            return;
        }
        Strides => {
            for _ in 0..8 {
                let value = random.pick(&[0, 4, 64, 256, 260, 800, 2560]);
                bytes.extend((if strange { random.edgy32() } else { value }).to_le_bytes());
            }
            return;
        }
    };
    bytes.extend(word.to_le_bytes());
}

/// What a cross-domain context is sent: to begin, or to describe an image.
fn cross_domain(random: &mut Random) -> Vec<u8> {
    let (command, words) = if random.once_in(3) {
        (1, vec![random.below(7) as u32, random.below(7) as u32, 0])
    } else {
        // XR24 in sizes of which one is the size of a blob that is asked for.
        let edge = random.pick(&[32, 64, 64, 64]);
        (2, vec![edge, 64, XR24, 0])
    };
    let size = 8 + 4 * words.len() as u16;
    let size = if random.once_in(20) {
        random.bits() as u16
    } else {
        size
    };
    let mut bytes = vec![command, 0];
    bytes.extend(size.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    bytes
}

fn page(random: &mut Random) -> u64 {
    page_address(random.below(GUEST_PAGES))
}
