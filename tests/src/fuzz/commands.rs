//! Command bytes: mostly shaped as a driver's, with values that are right often enough to reach
//! deep and wrong often enough to matter.

use nosnoop_protocol::wire::cmd;

use super::memory::{GUEST_PAGES, page_address};
use super::random::Random;

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
    Size64,
    Strides,
    Any,
}

use Field::{
    Any, BlobFlags, BlobMem, Edge, Entries, Format, Offset64, Rect, Resource, Scanout, Size64,
    Strides,
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
        &[Resource, BlobMem, BlobFlags, Entries, Offset64, Size64],
    ),
    (
        cmd::SET_SCANOUT_BLOB,
        &[Rect, Scanout, Resource, Edge, Edge, Format, Any, Strides],
    ),
    (cmd::CTX_CREATE, &[Any, Any]),
    (cmd::SUBMIT_3D, &[Any, Any]),
    (cmd::RESOURCE_MAP_BLOB, &[Resource, Any, Offset64]),
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

/// One request for the control queue, or for the cursor queue.
pub(super) fn request(random: &mut Random, cursor: bool) -> Vec<u8> {
    if random.once_in(20) {
        let len = random.below(200);
        return (0..len).map(|_| random.bits() as u8).collect();
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
        BlobMem => random.pick(&[1, 1, 1, 1, 2, 3]),
        BlobFlags => random.below(8) as u32,
        Any => random.below(70) as u32,
        Entries => {
            *entries = random.pick(&[0, 1, 3, 5, 40, 200]);
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

fn page(random: &mut Random) -> u64 {
    page_address(random.below(GUEST_PAGES))
}
