#![expect(
    clippy::arithmetic_side_effects,
    reason = "numbers are small here, and an overflow fails the test"
)]

use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::*;
use crate::wire::{
    VirtioGpuBox, VirtioGpuCmdGetEdid, VirtioGpuCmdSubmit, VirtioGpuCtxCreate, VirtioGpuCtxDestroy,
    VirtioGpuCtxResource, VirtioGpuCursorPos, VirtioGpuGetCapset, VirtioGpuGetCapsetInfo,
    VirtioGpuRect, VirtioGpuResourceAssignUuid, VirtioGpuResourceAttachBacking,
    VirtioGpuResourceCreate2d, VirtioGpuResourceCreate3d, VirtioGpuResourceCreateBlob,
    VirtioGpuResourceDetachBacking, VirtioGpuResourceFlush, VirtioGpuResourceMapBlob,
    VirtioGpuResourceUnmapBlob, VirtioGpuResourceUnref, VirtioGpuSetScanout,
    VirtioGpuSetScanoutBlob, VirtioGpuTransferHost3d, VirtioGpuTransferToHost2d,
    VirtioGpuUpdateCursor, cmd,
};

fn res(id: u32) -> ResourceId {
    ResourceId::new(id).unwrap()
}

fn ctx(id: u32) -> ContextId {
    ContextId::new(id).unwrap()
}

fn scan(id: u32) -> ScanoutId {
    ScanoutId::new(id).unwrap()
}

fn le(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A request without fence: header with `ctx_id`, then words. Written without the wire structs,
/// which are under test too.
fn request(r#type: u32, ctx_id: u32, words: &[u32]) -> Vec<u8> {
    let mut bytes = le(&[r#type, 0, 0, 0, ctx_id, 0]);
    bytes.extend(le(words));
    bytes
}

fn parse(bytes: &[u8]) -> Result<Command<'_>, GpuError> {
    Request::parse(bytes).command
}

fn entry(addr: u64, length: u32) -> VirtioGpuMemEntry {
    VirtioGpuMemEntry {
        addr: addr.into(),
        length: length.into(),
        padding: 0.into(),
    }
}

/// Decodes, and finds that each shorter request is refused and that bytes behind it are ignored.
#[track_caller]
fn decodes(bytes: &[u8], expected: Command<'_>) {
    assert_eq!(parse(bytes), Ok(expected));
    for length in 0..bytes.len() {
        assert_eq!(
            parse(&bytes[..length]),
            Err(GpuError::Unspec),
            "{expected:?} cut to {length} bytes"
        );
    }
    let mut longer = bytes.to_vec();
    longer.extend([0xee; 40]);
    assert_eq!(parse(&longer), Ok(expected));
}

#[test]
fn commands_2d_decode_exactly() {
    decodes(&request(0x100, 0, &[]), Command::GetDisplayInfo);
    decodes(
        &request(0x10a, 0, &[15, 0]),
        Command::GetEdid { scanout: scan(15) },
    );
    decodes(
        &request(0x101, 0, &[7, 67, 640, 480]),
        Command::ResourceCreate2d {
            resource: res(7),
            format: Format::R8g8b8a8,
            size: Size::new(640, 480),
        },
    );
    decodes(
        &request(0x102, 0, &[u32::MAX, 0]),
        Command::ResourceUnref {
            resource: res(u32::MAX),
        },
    );
    decodes(
        &request(0x103, 0, &[1, 2, 3, 4, 5, 6]),
        Command::SetScanout {
            scanout: scan(5),
            rect: Rect::new(1, 2, 3, 4),
            resource: Some(res(6)),
        },
    );
    decodes(
        &request(0x104, 0, &[1, 2, u32::MAX, 4, 5, 0]),
        Command::ResourceFlush {
            resource: res(5),
            rect: Rect::new(1, 2, u32::MAX, 4),
        },
    );
    decodes(
        &request(0x105, 0, &[1, 2, 3, 4, 0x0506_0708, 0x0102_0304, 9, 0]),
        Command::TransferToHost2d {
            resource: res(9),
            rect: Rect::new(1, 2, 3, 4),
            offset: 0x0102_0304_0506_0708,
        },
    );
    decodes(
        &request(0x107, 0, &[3, 0]),
        Command::ResourceDetachBacking { resource: res(3) },
    );
    decodes(
        &request(0x108, 0, &[3, 0]),
        Command::GetCapsetInfo { index: 3 },
    );
    decodes(
        &request(0x109, 0, &[4, 1]),
        Command::GetCapset {
            id: CapsetId(4),
            version: 1,
        },
    );
    decodes(
        &request(0x10b, 0, &[3, 0]),
        Command::ResourceAssignUuid { resource: res(3) },
    );
}

#[test]
fn attach_backing_decodes_exactly() {
    let entries = [entry(0x1_0000_2000, 4096), entry(u64::MAX, u32::MAX)];
    let words = [3, 2, 0x2000, 1, 4096, 0, u32::MAX, u32::MAX, u32::MAX, 0];
    let bytes = request(0x106, 0, &words);
    decodes(
        &bytes,
        Command::ResourceAttachBacking {
            resource: res(3),
            entries: MemEntries(&entries),
        },
    );
    let Ok(Command::ResourceAttachBacking { entries, .. }) = parse(&bytes) else {
        panic!("not ATTACH_BACKING");
    };
    assert_eq!((entries.len(), entries.is_empty()), (2, false));
    let listed: Vec<MemEntry> = entries.iter().collect();
    assert_eq!(
        listed,
        [
            MemEntry {
                addr: 0x1_0000_2000,
                len: 4096
            },
            MemEntry {
                addr: u64::MAX,
                len: u32::MAX
            }
        ]
    );
    decodes(
        &request(0x106, 0, &[3, 0]),
        Command::ResourceAttachBacking {
            resource: res(3),
            entries: MemEntries(&[]),
        },
    );
}

#[test]
fn blob_commands_decode_exactly() {
    let words = [3, 3, 5, 1, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0];
    decodes(
        &request(0x10c, 9, &words),
        Command::ResourceCreateBlob {
            resource: res(3),
            context: Some(ctx(9)),
            blob_id: BlobId(0x22_0000_0011),
            mem: BlobMem::Host3dGuest,
            flags: BlobFlags::MAPPABLE | BlobFlags::CROSS_DEVICE,
            size: 0x44_0000_0033,
            entries: MemEntries(&[entry(0x66_0000_0055, 0x77)]),
        },
    );
    let words = [1, 2, 3, 4, 5, 6, 7, 8, 2, 0, 10, 11, 12, 13, 20, 21, 22, 23];
    decodes(
        &request(0x10d, 0, &words),
        Command::SetScanoutBlob {
            scanout: scan(5),
            rect: Rect::new(1, 2, 3, 4),
            resource: Some(res(6)),
            size: Size::new(7, 8),
            format: Format::B8g8r8x8,
            stride: 10,
            offset: 20,
        },
    );
    decodes(
        &request(0x208, 0, &[3, 0, 0x1000, 1]),
        Command::ResourceMapBlob {
            resource: res(3),
            offset: 0x1_0000_1000,
        },
    );
    decodes(
        &request(0x209, 0, &[3, 0]),
        Command::ResourceUnmapBlob { resource: res(3) },
    );
}

#[test]
fn commands_3d_decode_exactly() {
    let mut create = request(0x200, 5, &[4, 0x0102_0304]);
    create.extend(b"name and more");
    create.resize(96, b'z');
    decodes(
        &create,
        Command::CtxCreate {
            context: ctx(5),
            context_init: 0x0102_0304,
            name: b"name",
        },
    );
    decodes(
        &request(0x201, 5, &[]),
        Command::CtxDestroy { context: ctx(5) },
    );
    decodes(
        &request(0x202, 5, &[6, 0]),
        Command::CtxAttachResource {
            context: ctx(5),
            resource: res(6),
        },
    );
    decodes(
        &request(0x203, 5, &[6, 0]),
        Command::CtxDetachResource {
            context: ctx(5),
            resource: res(6),
        },
    );
    decodes(
        &request(0x204, 0, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0]),
        Command::ResourceCreate3d(Create3d {
            resource: res(1),
            target: 2,
            format: 3,
            bind: 4,
            width: 5,
            height: 6,
            depth: 7,
            array_size: 8,
            last_level: 9,
            nr_samples: 10,
            flags: 11,
        }),
    );
    let transfer = Transfer3d {
        resource: res(9),
        context: Some(ctx(5)),
        region: Box3d {
            x: 1,
            y: 2,
            z: 3,
            width: 4,
            height: 5,
            depth: 6,
        },
        offset: 0x8_0000_0007,
        level: 10,
        stride: 11,
        layer_stride: 12,
    };
    let words = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    decodes(
        &request(0x205, 5, &words),
        Command::TransferToHost3d(transfer),
    );
    decodes(
        &request(0x206, 5, &words),
        Command::TransferFromHost3d(transfer),
    );
    let mut submit = request(0x207, 5, &[3, 0]);
    submit.extend(b"abc");
    decodes(
        &submit,
        Command::Submit3d {
            context: ctx(5),
            data: b"abc",
        },
    );
}

#[test]
fn cursor_commands_decode_exactly() {
    let words = [2, u32::MAX, 10, 0, 6, 7, 8, 0];
    decodes(
        &request(0x300, 0, &words),
        Command::UpdateCursor {
            scanout: scan(2),
            x: u32::MAX,
            y: 10,
            resource: Some(res(6)),
            hot_x: 7,
            hot_y: 8,
        },
    );
    decodes(
        &request(0x301, 0, &words),
        Command::MoveCursor {
            scanout: scan(2),
            x: u32::MAX,
            y: 10,
        },
    );
    let hide = request(0x300, 0, &[2, 1, 1, 0, 0, 0, 0, 0]);
    assert!(matches!(
        parse(&hide),
        Ok(Command::UpdateCursor { resource: None, .. })
    ));
}

#[test]
fn resource_zero_is_refused_where_one_is_needed() {
    for (r#type, words) in [
        (0x101, vec![0, 1, 1, 1]),
        (0x102, vec![0, 0]),
        (0x104, vec![0; 6]),
        (0x105, vec![0; 8]),
        (0x106, vec![0, 0]),
        (0x107, vec![0, 0]),
        (0x10b, vec![0, 0]),
        (0x10c, vec![0, 1, 0, 0, 0, 0, 0, 0]),
        (0x202, vec![0, 0]),
        (0x203, vec![0, 0]),
        (0x204, vec![0; 12]),
        (0x205, vec![0; 12]),
        (0x206, vec![0; 12]),
        (0x208, vec![0; 4]),
        (0x209, vec![0; 2]),
    ] {
        let bytes = request(r#type, 1, &words);
        assert_eq!(
            parse(&bytes),
            Err(GpuError::InvalidResourceId),
            "{:#x}",
            r#type
        );
    }
}

#[test]
fn context_zero_is_refused_where_one_is_needed() {
    for r#type in [0x200, 0x201, 0x202, 0x203, 0x207] {
        // One word that reads as resource id, name length and size of commands.
        let mut words = [0; 18];
        words[0] = 1;
        let bytes = request(r#type, 0, &words);
        assert_eq!(
            parse(&bytes),
            Err(GpuError::InvalidContextId),
            "{:#x}",
            r#type
        );
    }
}

#[test]
fn scanout_sixteen_is_refused() {
    for raw in [16, 256, u32::MAX] {
        for (r#type, words) in [
            (0x10a, vec![raw, 0]),
            (0x103, vec![0, 0, 1, 1, raw, 1]),
            // Disabling is not a way around the check.
            (0x103, vec![0, 0, 1, 1, raw, 0]),
            (0x10d, [vec![0, 0, 1, 1, raw, 0], vec![0; 12]].concat()),
            (0x300, vec![raw, 0, 0, 0, 0, 0, 0, 0]),
            (0x301, vec![raw, 0, 0, 0, 0, 0, 0, 0]),
        ] {
            let bytes = request(r#type, 0, &words);
            assert_eq!(
                parse(&bytes),
                Err(GpuError::InvalidScanoutId),
                "{:#x}",
                r#type
            );
        }
    }
}

#[test]
fn disabling_a_scanout_needs_nothing_else_to_be_valid() {
    assert_eq!(
        parse(&request(0x103, 0, &[9, 9, 0, 0, 1, 0])),
        Ok(Command::SetScanout {
            scanout: scan(1),
            rect: Rect::new(9, 9, 0, 0),
            resource: None,
        })
    );
    let bytes = request(0x10d, 0, &[&[0, 0, 0, 0, 1][..], &[0; 13]].concat());
    assert_eq!(
        parse(&bytes),
        Ok(Command::SetScanoutBlob {
            scanout: scan(1),
            rect: Rect::default(),
            resource: None,
            size: Size::default(),
            format: Format::B8g8r8x8,
            stride: 0,
            offset: 0,
        })
    );
}

#[test]
fn unknown_format_blob_memory_and_blob_flag_are_invalid_parameters() {
    for bytes in [
        request(0x101, 0, &[1, 0, 1, 1]),
        request(0x101, 0, &[1, 5, 1, 1]),
        request(0x10c, 0, &[1, 0, 0, 0, 0, 0, 0, 0]),
        request(0x10c, 0, &[1, 4, 0, 0, 0, 0, 0, 0]),
        request(0x10c, 0, &[1, 1, 8, 0, 0, 0, 0, 0]),
        request(
            0x10d,
            0,
            &[&[0, 0, 1, 1, 0, 1, 1, 1, 99][..], &[0; 9]].concat(),
        ),
    ] {
        assert_eq!(parse(&bytes), Err(GpuError::InvalidParameter), "{bytes:?}");
    }
}

#[test]
fn counts_beyond_the_bytes_are_refused() {
    for count in [2, 0x1000_0000, 0x1000_0001, u32::MAX] {
        let one_entry = [0, 0, 4096, 0];
        let attach = [&[1, count][..], &one_entry].concat();
        assert_eq!(parse(&request(0x106, 0, &attach)), Err(GpuError::Unspec));
        let create = [&[1, 1, 0, count, 0, 0, 0, 0][..], &one_entry].concat();
        assert_eq!(parse(&request(0x10c, 0, &create)), Err(GpuError::Unspec));
    }
    for size in [5, u32::MAX] {
        let submit = request(0x207, 1, &[size, 0, 0]);
        assert_eq!(parse(&submit), Err(GpuError::Unspec));
    }
}

#[test]
fn long_context_name_is_cut_to_its_field() {
    for (length, expected) in [(0, 0), (64, 64), (65, 64), (u32::MAX, 64)] {
        let bytes = request(0x200, 1, &[&[length, 0][..], &[0x6161_6161; 20]].concat());
        let Ok(Command::CtxCreate { name, .. }) = parse(&bytes) else {
            panic!("not CTX_CREATE");
        };
        assert_eq!(name, &[b'a'; 64][..expected]);
    }
}

#[test]
fn unknown_commands_are_refused() {
    for r#type in [0, 0xff, 0x10e, 0x1ff, 0x20a, 0x302, 0x1100, u32::MAX] {
        let bytes = request(r#type, 1, &[1; 60]);
        assert_eq!(parse(&bytes), Err(GpuError::Unspec), "{:#x}", r#type);
    }
}

/// A header with the flags, fence 0x1122334455667788, context 9 and the ring.
fn fenced(flags: u32, ring_idx: u8) -> Vec<u8> {
    le(&[
        0x100,
        flags,
        0x5566_7788,
        0x1122_3344,
        9,
        u32::from(ring_idx),
    ])
}

#[test]
fn fence_is_read_from_the_header() {
    let id = FenceId(0x1122_3344_5566_7788);
    for (flags, ring_idx, expected) in [
        (0, 5, None),
        (1, 5, Some(Fence { id, ring: None })),
        (2, 5, None),
        (
            3,
            63,
            Some(Fence {
                id,
                ring: RingIdx::new(63),
            }),
        ),
        // Flags that nobody knows are ignored, and so is a ring that is not named.
        (0xffff_fffd, 200, Some(Fence { id, ring: None })),
    ] {
        let bytes = fenced(flags, ring_idx);
        let request = Request::parse(&bytes);
        assert_eq!(request.header.fence(), expected, "flags {flags:#x}");
        assert_eq!(request.header.context(), Some(ctx(9)));
        assert_eq!(request.header.command_type(), 0x100);
        assert_eq!(request.command, Ok(Command::GetDisplayInfo));
    }
}

#[test]
fn ring_above_63_is_an_invalid_parameter_and_keeps_its_fence() {
    for flags in [2, 3] {
        let bytes = fenced(flags, 64);
        let request = Request::parse(&bytes);
        assert_eq!(request.command, Err(GpuError::InvalidParameter));
        assert_eq!(request.header.fence().is_some(), flags == 3);
    }
}

#[test]
fn header_survives_a_bad_command_but_not_a_missing_one() {
    let mut bytes = fenced(1, 0);
    bytes[0..4].copy_from_slice(&0xdead_u32.to_le_bytes());
    let request = Request::parse(&bytes);
    assert_eq!(request.command, Err(GpuError::Unspec));
    assert!(request.header.fence().is_some());
    let request = Request::parse(&bytes[..23]);
    assert_eq!(request.header, Header::default());
    assert_eq!(request.header.fence(), None);
    assert_eq!(request.command, Err(GpuError::Unspec));
}

/// Random numbers from which one request of each kind is made.
#[derive(Debug, Clone)]
struct Numbers {
    hdr: VirtioGpuCtrlHdr,
    id: u32,
    scanout: u32,
    maybe_id: u32,
    format: usize,
    mem: usize,
    flags: u32,
    rect: [u32; 4],
    words: [u32; 8],
    long: [u64; 2],
    entries: Vec<VirtioGpuMemEntry>,
    data: Vec<u8>,
}

fn numbers() -> impl Strategy<Value = Numbers> {
    let id = prop_oneof![1..5u32, 1..=u32::MAX];
    let header = (
        prop_oneof![Just(0u32), Just(1), Just(3)],
        any::<u64>(),
        id.clone(),
        0..64u8,
    )
        .prop_map(|(flags, fence_id, ctx_id, ring_idx)| VirtioGpuCtrlHdr {
            r#type: 0.into(),
            flags: flags.into(),
            fence_id: fence_id.into(),
            ctx_id: ctx_id.into(),
            ring_idx,
            padding: [0; 3],
        });
    let entries = prop::collection::vec((any::<u64>(), any::<u32>()), 0..8).prop_map(|list| {
        list.into_iter()
            .map(|(addr, len)| entry(addr, len))
            .collect()
    });
    let small = (
        id,
        0..16u32,
        prop_oneof![Just(0u32), 1..=u32::MAX],
        0..8usize,
        0..3usize,
        0..8u32,
    );
    let large = (
        any::<[u32; 4]>(),
        any::<[u32; 8]>(),
        any::<[u64; 2]>(),
        entries,
        prop::collection::vec(any::<u8>(), 0..100),
    );
    (header, small, large).prop_map(|(hdr, small, large)| {
        let (id, scanout, maybe_id, format, mem, flags) = small;
        let (rect, words, long, entries, data) = large;
        Numbers {
            hdr,
            id,
            scanout,
            maybe_id,
            format,
            mem,
            flags,
            rect,
            words,
            long,
            entries,
            data,
        }
    })
}

/// Every request type.
const TYPES: [u32; 26] = [
    cmd::GET_DISPLAY_INFO,
    cmd::RESOURCE_CREATE_2D,
    cmd::RESOURCE_UNREF,
    cmd::SET_SCANOUT,
    cmd::RESOURCE_FLUSH,
    cmd::TRANSFER_TO_HOST_2D,
    cmd::RESOURCE_ATTACH_BACKING,
    cmd::RESOURCE_DETACH_BACKING,
    cmd::GET_CAPSET_INFO,
    cmd::GET_CAPSET,
    cmd::GET_EDID,
    cmd::RESOURCE_ASSIGN_UUID,
    cmd::RESOURCE_CREATE_BLOB,
    cmd::SET_SCANOUT_BLOB,
    cmd::CTX_CREATE,
    cmd::CTX_DESTROY,
    cmd::CTX_ATTACH_RESOURCE,
    cmd::CTX_DETACH_RESOURCE,
    cmd::RESOURCE_CREATE_3D,
    cmd::TRANSFER_TO_HOST_3D,
    cmd::TRANSFER_FROM_HOST_3D,
    cmd::SUBMIT_3D,
    cmd::RESOURCE_MAP_BLOB,
    cmd::RESOURCE_UNMAP_BLOB,
    cmd::UPDATE_CURSOR,
    cmd::MOVE_CURSOR,
];

/// The request of that type, as bytes and as what it must decode to.
fn build(r#type: u32, n: &Numbers) -> (Vec<u8>, Command<'_>) {
    let hdr = VirtioGpuCtrlHdr {
        r#type: r#type.into(),
        ..n.hdr
    };
    let resource = res(n.id);
    let resource_id = n.id.into();
    let padding = n.words[7].into();
    let scanout = scan(n.scanout);
    let context = ctx(n.hdr.ctx_id.get());
    let [x, y, width, height] = n.rect;
    let rect = Rect::new(x, y, width, height);
    let r: VirtioGpuRect = rect.into();
    let size = Size::new(n.words[0], n.words[1]);
    let format = Format::ALL[n.format];
    let entries = MemEntries(&n.entries);
    let nr_entries = u32::try_from(n.entries.len()).unwrap().into();
    let transfer = Transfer3d {
        resource,
        context: Some(context),
        region: Box3d {
            x,
            y,
            z: n.words[0],
            width,
            height,
            depth: n.words[1],
        },
        offset: n.long[0],
        level: n.words[2],
        stride: n.words[3],
        layer_stride: n.words[4],
    };
    let raw_transfer = VirtioGpuTransferHost3d {
        hdr,
        r#box: VirtioGpuBox {
            x: x.into(),
            y: y.into(),
            z: n.words[0].into(),
            w: width.into(),
            h: height.into(),
            d: n.words[1].into(),
        },
        offset: n.long[0].into(),
        resource_id,
        level: n.words[2].into(),
        stride: n.words[3].into(),
        layer_stride: n.words[4].into(),
    };
    let cursor = VirtioGpuUpdateCursor {
        hdr,
        pos: VirtioGpuCursorPos {
            scanout_id: n.scanout.into(),
            x: x.into(),
            y: y.into(),
            padding,
        },
        resource_id: n.maybe_id.into(),
        hot_x: n.words[0].into(),
        hot_y: n.words[1].into(),
        padding,
    };
    let with = |fixed: &[u8], rest: &[u8]| [fixed, rest].concat();
    match r#type {
        cmd::GET_DISPLAY_INFO => (hdr.as_bytes().to_vec(), Command::GetDisplayInfo),
        cmd::GET_EDID => (
            VirtioGpuCmdGetEdid {
                hdr,
                scanout: n.scanout.into(),
                padding,
            }
            .as_bytes()
            .to_vec(),
            Command::GetEdid { scanout },
        ),
        cmd::RESOURCE_CREATE_2D => (
            VirtioGpuResourceCreate2d {
                hdr,
                resource_id,
                format: format.to_wire().into(),
                width: size.width.into(),
                height: size.height.into(),
            }
            .as_bytes()
            .to_vec(),
            Command::ResourceCreate2d {
                resource,
                format,
                size,
            },
        ),
        cmd::RESOURCE_UNREF => (
            VirtioGpuResourceUnref {
                hdr,
                resource_id,
                padding,
            }
            .as_bytes()
            .to_vec(),
            Command::ResourceUnref { resource },
        ),
        cmd::SET_SCANOUT => (
            VirtioGpuSetScanout {
                hdr,
                r,
                scanout_id: n.scanout.into(),
                resource_id: n.maybe_id.into(),
            }
            .as_bytes()
            .to_vec(),
            Command::SetScanout {
                scanout,
                rect,
                resource: ResourceId::new(n.maybe_id),
            },
        ),
        cmd::RESOURCE_FLUSH => (
            VirtioGpuResourceFlush {
                hdr,
                r,
                resource_id,
                padding,
            }
            .as_bytes()
            .to_vec(),
            Command::ResourceFlush { resource, rect },
        ),
        cmd::TRANSFER_TO_HOST_2D => (
            VirtioGpuTransferToHost2d {
                hdr,
                r,
                offset: n.long[0].into(),
                resource_id,
                padding,
            }
            .as_bytes()
            .to_vec(),
            Command::TransferToHost2d {
                resource,
                rect,
                offset: n.long[0],
            },
        ),
        cmd::RESOURCE_ATTACH_BACKING => (
            with(
                VirtioGpuResourceAttachBacking {
                    hdr,
                    resource_id,
                    nr_entries,
                }
                .as_bytes(),
                n.entries.as_bytes(),
            ),
            Command::ResourceAttachBacking { resource, entries },
        ),
        cmd::RESOURCE_DETACH_BACKING => (
            VirtioGpuResourceDetachBacking {
                hdr,
                resource_id,
                padding,
            }
            .as_bytes()
            .to_vec(),
            Command::ResourceDetachBacking { resource },
        ),
        cmd::GET_CAPSET_INFO => (
            VirtioGpuGetCapsetInfo {
                hdr,
                capset_index: n.words[0].into(),
                padding,
            }
            .as_bytes()
            .to_vec(),
            Command::GetCapsetInfo { index: n.words[0] },
        ),
        cmd::GET_CAPSET => (
            VirtioGpuGetCapset {
                hdr,
                capset_id: n.words[0].into(),
                capset_version: n.words[1].into(),
            }
            .as_bytes()
            .to_vec(),
            Command::GetCapset {
                id: CapsetId(n.words[0]),
                version: n.words[1],
            },
        ),
        cmd::RESOURCE_ASSIGN_UUID => (
            VirtioGpuResourceAssignUuid {
                hdr,
                resource_id,
                padding,
            }
            .as_bytes()
            .to_vec(),
            Command::ResourceAssignUuid { resource },
        ),
        cmd::RESOURCE_CREATE_BLOB => {
            let mem = [BlobMem::Guest, BlobMem::Host3d, BlobMem::Host3dGuest][n.mem];
            let fixed = VirtioGpuResourceCreateBlob {
                hdr,
                resource_id,
                blob_mem: mem.to_wire().into(),
                blob_flags: n.flags.into(),
                nr_entries,
                blob_id: n.long[0].into(),
                size: n.long[1].into(),
            };
            (
                with(fixed.as_bytes(), n.entries.as_bytes()),
                Command::ResourceCreateBlob {
                    resource,
                    context: Some(context),
                    blob_id: BlobId(n.long[0]),
                    mem,
                    flags: BlobFlags::from_bits(n.flags).unwrap(),
                    size: n.long[1],
                    entries,
                },
            )
        }
        cmd::SET_SCANOUT_BLOB => (
            VirtioGpuSetScanoutBlob {
                hdr,
                r,
                scanout_id: n.scanout.into(),
                resource_id: n.maybe_id.into(),
                width: size.width.into(),
                height: size.height.into(),
                format: format.to_wire().into(),
                padding,
                strides: [n.words[2].into(), padding, padding, padding],
                offsets: [n.words[3].into(), padding, padding, padding],
            }
            .as_bytes()
            .to_vec(),
            Command::SetScanoutBlob {
                scanout,
                rect,
                resource: ResourceId::new(n.maybe_id),
                size,
                format,
                stride: n.words[2],
                offset: n.words[3],
            },
        ),
        cmd::CTX_CREATE => {
            let name = &n.data[..n.data.len().min(64)];
            let mut debug_name = [b'z'; 64];
            debug_name[..name.len()].copy_from_slice(name);
            let fixed = VirtioGpuCtxCreate {
                hdr,
                nlen: u32::try_from(name.len()).unwrap().into(),
                context_init: n.words[0].into(),
                debug_name,
            };
            (
                fixed.as_bytes().to_vec(),
                Command::CtxCreate {
                    context,
                    context_init: n.words[0],
                    name,
                },
            )
        }
        cmd::CTX_DESTROY => (
            VirtioGpuCtxDestroy { hdr }.as_bytes().to_vec(),
            Command::CtxDestroy { context },
        ),
        cmd::CTX_ATTACH_RESOURCE | cmd::CTX_DETACH_RESOURCE => (
            VirtioGpuCtxResource {
                hdr,
                resource_id,
                padding,
            }
            .as_bytes()
            .to_vec(),
            if r#type == cmd::CTX_ATTACH_RESOURCE {
                Command::CtxAttachResource { context, resource }
            } else {
                Command::CtxDetachResource { context, resource }
            },
        ),
        cmd::RESOURCE_CREATE_3D => (
            VirtioGpuResourceCreate3d {
                hdr,
                resource_id,
                target: n.words[0].into(),
                format: n.words[1].into(),
                bind: n.words[2].into(),
                width: width.into(),
                height: height.into(),
                depth: n.words[3].into(),
                array_size: n.words[4].into(),
                last_level: n.words[5].into(),
                nr_samples: n.words[6].into(),
                flags: x.into(),
                padding,
            }
            .as_bytes()
            .to_vec(),
            Command::ResourceCreate3d(Create3d {
                resource,
                target: n.words[0],
                format: n.words[1],
                bind: n.words[2],
                width,
                height,
                depth: n.words[3],
                array_size: n.words[4],
                last_level: n.words[5],
                nr_samples: n.words[6],
                flags: x,
            }),
        ),
        cmd::TRANSFER_TO_HOST_3D => (
            raw_transfer.as_bytes().to_vec(),
            Command::TransferToHost3d(transfer),
        ),
        cmd::TRANSFER_FROM_HOST_3D => (
            raw_transfer.as_bytes().to_vec(),
            Command::TransferFromHost3d(transfer),
        ),
        cmd::SUBMIT_3D => (
            with(
                VirtioGpuCmdSubmit {
                    hdr,
                    size: u32::try_from(n.data.len()).unwrap().into(),
                    padding,
                }
                .as_bytes(),
                &n.data,
            ),
            Command::Submit3d {
                context,
                data: &n.data,
            },
        ),
        cmd::RESOURCE_MAP_BLOB => (
            VirtioGpuResourceMapBlob {
                hdr,
                resource_id,
                padding,
                offset: n.long[0].into(),
            }
            .as_bytes()
            .to_vec(),
            Command::ResourceMapBlob {
                resource,
                offset: n.long[0],
            },
        ),
        cmd::RESOURCE_UNMAP_BLOB => (
            VirtioGpuResourceUnmapBlob {
                hdr,
                resource_id,
                padding,
            }
            .as_bytes()
            .to_vec(),
            Command::ResourceUnmapBlob { resource },
        ),
        cmd::UPDATE_CURSOR => (
            cursor.as_bytes().to_vec(),
            Command::UpdateCursor {
                scanout,
                x,
                y,
                resource: ResourceId::new(n.maybe_id),
                hot_x: n.words[0],
                hot_y: n.words[1],
            },
        ),
        cmd::MOVE_CURSOR => (
            cursor.as_bytes().to_vec(),
            Command::MoveCursor { scanout, x, y },
        ),
        other => panic!("no request of type {other:#x}"),
    }
}

/// What every answer of the parser must fulfil.
fn check(bytes: &[u8]) {
    let request = Request::parse(bytes);
    if bytes.len() < size_of::<VirtioGpuCtrlHdr>() {
        assert_eq!(request.header, Header::default());
        assert_eq!(request.command, Err(GpuError::Unspec));
    }
    match request.command {
        Ok(
            Command::ResourceAttachBacking { entries, .. }
            | Command::ResourceCreateBlob { entries, .. },
        ) => {
            assert!(entries.len() * size_of::<VirtioGpuMemEntry>() < bytes.len());
            assert_eq!(entries.iter().count(), entries.len());
        }
        Ok(Command::Submit3d { data, .. }) => assert!(data.len() < bytes.len()),
        Ok(Command::CtxCreate { name, .. }) => assert!(name.len() <= 64),
        Ok(_) | Err(_) => {}
    }
}

proptest! {
    #[test]
    fn any_bytes_give_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        check(&bytes);
    }

    #[test]
    fn any_bytes_behind_a_real_type_give_an_answer(
        which in 0..TYPES.len(),
        rest in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        check(&[&TYPES[which].to_le_bytes()[..], &rest].concat());
    }

    #[test]
    fn mutated_commands_give_an_answer(
        n in numbers(),
        which in 0..TYPES.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let (mut bytes, _) = build(TYPES[which], &n);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        check(&bytes);
        check(&bytes[..cut.index(bytes.len())]);
    }

    #[test]
    fn valid_commands_decode_to_what_was_meant(n in numbers()) {
        for r#type in TYPES {
            let (bytes, expected) = build(r#type, &n);
            let request = Request::parse(&bytes);
            prop_assert_eq!(request.command, Ok(expected));
            prop_assert_eq!(request.header.context(), ContextId::new(n.hdr.ctx_id.get()));
            let fence = (n.hdr.flags.get() & 1 != 0).then(|| Fence {
                id: FenceId(n.hdr.fence_id.get()),
                ring: RingIdx::new(n.hdr.ring_idx).filter(|_| n.hdr.flags.get() & 2 != 0),
            });
            prop_assert_eq!(request.header.fence(), fence);
        }
    }
}
