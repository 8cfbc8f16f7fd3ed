//! The device driven by command bytes, without rings: what each command answers, and that a
//! command that fails changes nothing. Pictures on the display are the front-end library's part.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "small numbers of the tests' own"
)]

mod exposure;
mod rendered;

use super::context::ContextSerial;
use super::host_blob::HostBlob;
use super::resource::{Resource, Storage};
use super::*;
use crate::display::OutputConfig;
use crate::memory::alloc::Allocator;
use crate::memory::flush::CacheFlusher;
use crate::memory::kind::{PageKinds, Snooping, Traits};
use crate::memory::plan::VmmMemtype;
use crate::memory::source::Choice;
use nosnoop_protocol::command::Request;
use nosnoop_protocol::geometry::Size;
use nosnoop_protocol::ids::{BlobId, ResourceId};
use nosnoop_protocol::memtype::MapCache;
use nosnoop_protocol::wire::cmd;
use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

const MIB: u64 = 1 << 20;
const OK: Result<Reply, GpuError> = Ok(Reply::OkNoData);

struct Bench {
    device: Arc<Device>,
    memory: GuestMemory,
}

impl Bench {
    fn new(limits: Limits) -> Self {
        let output = OutputConfig {
            size: Size {
                width: 640,
                height: 480,
            },
            refresh_hz: 60,
        };
        let display = Arc::new(Display::new(vec![output; 2]));
        let regions = [
            (GuestAddress(0), MIB as usize),
            (GuestAddress(2 * MIB), MIB as usize),
        ];
        let memory = GuestMemory::from_ranges(&regions).unwrap();
        Self {
            device: Device::new(limits, display, None, None),
            memory,
        }
    }

    /// Runs a control command given as its code and the 32-bit words after the header.
    fn run(&self, code: u32, words: &[u32]) -> Result<Reply, GpuError> {
        self.send(code, words, false)
    }

    fn cursor(&self, code: u32, words: &[u32]) -> Result<Reply, GpuError> {
        self.send(code, words, true)
    }

    fn send(&self, code: u32, words: &[u32], cursor: bool) -> Result<Reply, GpuError> {
        let mut bytes = vec![0; 24];
        bytes[..4].copy_from_slice(&code.to_le_bytes());
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        let command = Request::parse(&bytes).command?;
        let result = if cursor {
            self.device.cursor(&command, &self.memory)
        } else {
            match self
                .device
                .control(&command, None, &self.memory, &mut Batch::default())
            {
                Verdict::Done(result) => result,
                Verdict::Parked(_) => panic!("nothing is parked without shared memory"),
            }
        };
        self.device.verify_invariants().unwrap();
        result
    }

    fn create(&self, id: u32, width: u32, height: u32) -> Result<Reply, GpuError> {
        self.run(cmd::RESOURCE_CREATE_2D, &[id, 2, width, height])
    }

    fn attach(&self, id: u32, entries: &[(u64, u32)]) -> Result<Reply, GpuError> {
        let mut words = vec![id, entries.len() as u32];
        for (address, len) in entries {
            words.extend([*address as u32, (*address >> 32) as u32, *len, 0]);
        }
        self.run(cmd::RESOURCE_ATTACH_BACKING, &words)
    }

    fn transfer(&self, id: u32, rect: [u32; 4], offset: u64) -> Result<Reply, GpuError> {
        let [x, y, width, height] = rect;
        let offset = [offset as u32, (offset >> 32) as u32];
        self.run(
            cmd::TRANSFER_TO_HOST_2D,
            &[x, y, width, height, offset[0], offset[1], id, 0],
        )
    }

    fn row(&self, id: u32, y: u32, width: u32) -> Vec<u8> {
        let state = self.device.state();
        let resource = state.resources.get(ResourceId::new(id).unwrap());
        match &resource.unwrap().storage {
            Storage::Image(image) => image.row(0, y, width).unwrap().to_vec(),
            _ => panic!("not a picture"),
        }
    }
}

fn bench() -> Bench {
    Bench::new(Limits::default())
}

#[test]
fn ids_are_refused_when_zero_taken_or_unknown() {
    let bench = bench();
    assert_eq!(bench.create(0, 8, 8), Err(GpuError::InvalidResourceId));
    assert_eq!(bench.create(1, 8, 8), OK);
    assert_eq!(bench.create(1, 9, 9), Err(GpuError::InvalidResourceId));
    assert_eq!(bench.row(1, 7, 8).len(), 32, "the first one is still there");
    assert_eq!(bench.run(cmd::RESOURCE_UNREF, &[1, 0]), OK);
    assert_eq!(
        bench.run(cmd::RESOURCE_UNREF, &[1, 0]),
        Err(GpuError::InvalidResourceId)
    );
}

#[test]
fn pictures_beyond_the_memory_quota_are_out_of_memory_and_leave_room_for_smaller_ones() {
    let bench = Bench::new(Limits {
        hostmem: 1024,
        resources: 3,
        ..Limits::default()
    });
    for _ in 0..1000 {
        assert_eq!(bench.create(1, 65535, 65535), Err(GpuError::OutOfMemory));
    }
    assert_eq!(bench.create(1, 16, 16), OK);
    assert_eq!(bench.create(2, 1, 1), Err(GpuError::OutOfMemory));
    assert_eq!(bench.run(cmd::RESOURCE_UNREF, &[1, 0]), OK);
    assert_eq!(bench.create(2, 1, 1), OK);
    assert_eq!(bench.create(3, 1, 1), OK);
    assert_eq!(bench.create(4, 1, 1), OK);
    assert_eq!(
        bench.create(5, 1, 1),
        Err(GpuError::OutOfMemory),
        "three resources are allowed"
    );
}

#[test]
fn the_picture_of_a_scanout_counts_against_the_quota() {
    let bench = Bench::new(Limits {
        hostmem: 1024 + 512,
        resources: 3,
        ..Limits::default()
    });
    assert_eq!(bench.create(1, 16, 16), OK);
    let show = |width| bench.run(cmd::SET_SCANOUT, &[0, 0, width, 16, 0, 1]);
    assert_eq!(show(16), Err(GpuError::OutOfMemory));
    assert_eq!(show(8), OK);
    assert_eq!(show(4), OK, "the scanout's old picture does not count");
    assert_eq!(show(8), OK);
    assert_eq!(bench.create(2, 1, 1), Err(GpuError::OutOfMemory));
    assert_eq!(bench.run(cmd::SET_SCANOUT, &[0, 0, 0, 0, 0, 0]), OK);
    assert_eq!(bench.create(2, 1, 1), OK);
}

#[test]
fn backing_must_be_guest_memory_and_is_attached_once() {
    let bench = bench();
    assert_eq!(bench.create(1, 8, 8), OK);
    for bad in [(MIB - 4, 8), (MIB, 1), (u64::MAX - 3, 8), (0, u32::MAX)] {
        assert_eq!(
            bench.attach(1, &[(0, 64), bad]),
            Err(GpuError::Unspec),
            "{bad:?}"
        );
    }
    assert_eq!(
        bench.run(cmd::RESOURCE_DETACH_BACKING, &[1, 0]),
        Err(GpuError::Unspec)
    );
    assert_eq!(bench.attach(1, &[(0, 4096)]), OK);
    assert_eq!(bench.attach(1, &[(0, 4096)]), Err(GpuError::Unspec));
    assert_eq!(bench.run(cmd::RESOURCE_DETACH_BACKING, &[1, 0]), OK);
    assert_eq!(bench.attach(1, &[(0, 4096)]), OK);
    assert_eq!(
        bench.attach(2, &[(0, 4096)]),
        Err(GpuError::InvalidResourceId)
    );
    let lie = [1, u32::MAX, 0, 0, 4096, 0];
    assert_eq!(
        bench.run(cmd::RESOURCE_ATTACH_BACKING, &lie),
        Err(GpuError::Unspec)
    );
}

#[test]
fn backing_entries_are_bounded_for_one_resource_and_for_all() {
    let bench = bench();
    let entries = vec![(0, 1); quota::MAX_BACKING_ENTRIES];
    for id in 1..=4 {
        assert_eq!(bench.create(id, 1, 1), OK);
        let more = [&entries[..], &[(0, 1)]].concat();
        assert_eq!(bench.attach(id, &more), Err(GpuError::OutOfMemory));
        assert_eq!(bench.attach(id, &entries), OK);
    }
    assert_eq!(bench.create(5, 1, 1), OK);
    assert_eq!(bench.attach(5, &[(0, 1)]), Err(GpuError::OutOfMemory));
    assert_eq!(bench.run(cmd::RESOURCE_UNREF, &[1, 0]), OK);
    assert_eq!(bench.attach(5, &[(0, 1)]), OK);
}

#[test]
fn transfers_outside_the_resource_or_its_backing_copy_nothing() {
    let bench = bench();
    bench
        .memory
        .write_slice(&[7; 4096], GuestAddress(0))
        .unwrap();
    assert_eq!(bench.create(1, 8, 8), OK);
    assert_eq!(
        bench.transfer(1, [0, 0, 8, 8], 0),
        Err(GpuError::Unspec),
        "no backing"
    );
    assert_eq!(bench.attach(1, &[(0, 256)]), OK);
    for (rect, offset) in [
        ([1, 0, 8, 8], 0),
        ([0, 0, 8, 9], 0),
        ([u32::MAX, 0, 1, 1], 0),
        ([1, 1, u32::MAX, u32::MAX], 0),
        ([0, 0, 8, 8], 1),
        ([0, 0, 8, 8], u64::MAX),
        ([0, 7, 8, 1], 225),
    ] {
        let result = bench.transfer(1, rect, offset);
        assert_eq!(result, Err(GpuError::InvalidParameter), "{rect:?} {offset}");
    }
    assert_eq!(bench.row(1, 7, 8), [0; 32]);
    assert_eq!(bench.transfer(1, [0, 7, 8, 1], 224), OK);
    assert_eq!(bench.row(1, 7, 8), [7; 32]);
    assert_eq!(
        bench.transfer(9, [0, 0, 1, 1], 0),
        Err(GpuError::InvalidResourceId)
    );
}

#[test]
fn scanouts_need_an_output_and_a_rectangle_inside_a_picture() {
    let bench = bench();
    let set = |words: [u32; 6]| bench.run(cmd::SET_SCANOUT, &words);
    assert_eq!(bench.create(1, 8, 8), OK);
    assert_eq!(
        set([0, 0, 8, 8, 2, 1]),
        Err(GpuError::InvalidScanoutId),
        "two outputs"
    );
    assert_eq!(set([0, 0, 8, 8, 16, 1]), Err(GpuError::InvalidScanoutId));
    assert_eq!(set([0, 0, 8, 8, 0, 2]), Err(GpuError::InvalidResourceId));
    assert_eq!(set([0, 0, 0, 8, 0, 1]), Err(GpuError::InvalidParameter));
    assert_eq!(set([1, 0, 8, 8, 0, 1]), Err(GpuError::InvalidParameter));
    assert_eq!(
        set([u32::MAX, 1, 2, 1, 0, 1]),
        Err(GpuError::InvalidParameter)
    );
    assert_eq!(set([7, 7, 1, 1, 0, 1]), OK);
    assert_eq!(set([0, 0, 8, 8, 1, 1]), OK, "one resource on two outputs");
    assert_eq!(bench.run(cmd::RESOURCE_FLUSH, &[0, 0, 8, 8, 1, 0]), OK);
    assert_eq!(
        bench.run(cmd::RESOURCE_FLUSH, &[0, 0, 9, 8, 1, 0]),
        Err(GpuError::InvalidParameter)
    );
    assert_eq!(
        bench.run(cmd::RESOURCE_UNREF, &[1, 0]),
        OK,
        "while it is shown"
    );
    assert_eq!(
        bench.run(cmd::RESOURCE_FLUSH, &[0, 0, 8, 8, 1, 0]),
        Err(GpuError::InvalidResourceId)
    );
}

fn create_blob(id: u32, mem: u32, size: u64, entries: &[(u64, u32)]) -> Vec<u32> {
    let mut words = vec![
        id,
        mem,
        1,
        entries.len() as u32,
        0,
        0,
        size as u32,
        (size >> 32) as u32,
    ];
    for (address, len) in entries {
        words.extend([*address as u32, (*address >> 32) as u32, *len, 0]);
    }
    words
}

fn scanout_blob(id: u32, rect: [u32; 4], size: [u32; 2], stride: u32, offset: u32) -> Vec<u32> {
    let [x, y, width, height] = rect;
    vec![
        x, y, width, height, 0, id, size[0], size[1], 2, 0, stride, 0, 0, 0, offset, 0, 0, 0,
    ]
}

#[test]
fn blobs_are_guest_memory_with_enough_of_it() {
    let bench = bench();
    let create = |words: &[u32]| bench.run(cmd::RESOURCE_CREATE_BLOB, words);
    assert_eq!(
        create(&create_blob(1, 1, 0, &[(0, 4096)])),
        Err(GpuError::InvalidParameter)
    );
    assert_eq!(
        create(&create_blob(1, 2, 4096, &[])),
        Err(GpuError::InvalidParameter)
    );
    assert_eq!(
        create(&create_blob(1, 3, 4096, &[(0, 4096)])),
        Err(GpuError::InvalidParameter)
    );
    assert_eq!(
        create(&create_blob(1, 1, 4097, &[(0, 4096)])),
        Err(GpuError::InvalidParameter)
    );
    assert_eq!(
        create(&create_blob(1, 1, u64::MAX, &[(0, 4096)])),
        Err(GpuError::InvalidParameter)
    );
    assert_eq!(
        create(&create_blob(1, 1, 4096, &[(MIB, 4096)])),
        Err(GpuError::Unspec)
    );
    assert_eq!(create(&create_blob(1, 1, 4096, &[(0, 4096)])), OK);
    assert_eq!(
        create(&create_blob(1, 1, 4096, &[(0, 4096)])),
        Err(GpuError::InvalidResourceId)
    );
    // A blob can come without its memory and get it later, but not too little of it.
    assert_eq!(create(&create_blob(2, 1, 4096, &[])), OK);
    assert_eq!(
        bench.attach(2, &[(0, 100)]),
        Err(GpuError::InvalidParameter)
    );
    assert_eq!(bench.attach(2, &[(0, 4096)]), OK);
}

#[test]
fn a_blobs_scanout_must_lie_inside_the_blob() {
    let bench = bench();
    let words = create_blob(1, 1, 4096, &[(0, 4096)]);
    assert_eq!(bench.run(cmd::RESOURCE_CREATE_BLOB, &words), OK);
    let set = |words: &[u32]| bench.run(cmd::SET_SCANOUT_BLOB, words);
    let whole = [0, 0, 16, 16];
    assert_eq!(set(&scanout_blob(1, whole, [16, 16], 64, 0)), OK);
    assert_eq!(set(&scanout_blob(1, whole, [16, 16], 100, 7)), OK);
    assert_eq!(set(&scanout_blob(1, whole, [16, 16], 64, 3072)), OK);
    for bad in [
        scanout_blob(1, whole, [16, 16], 64, 3073),
        scanout_blob(1, whole, [16, 16], 63, 0),
        scanout_blob(1, whole, [16, 16], u32::MAX, 0),
        scanout_blob(1, whole, [16, 16], 64, u32::MAX),
        scanout_blob(1, [1, 0, 16, 16], [16, 16], 64, 0),
        scanout_blob(1, [0, 0, 0, 0], [16, 16], 64, 0),
        scanout_blob(1, whole, [u32::MAX, u32::MAX], u32::MAX, 0),
    ] {
        assert_eq!(set(&bad), Err(GpuError::InvalidParameter), "{bad:?}");
    }
    assert_eq!(bench.run(cmd::RESOURCE_FLUSH, &[0, 0, 16, 16, 1, 0]), OK);
    assert_eq!(
        bench.run(cmd::SET_SCANOUT, &[0, 0, 16, 16, 0, 1]),
        Err(GpuError::InvalidParameter),
        "a blob has no format of its own"
    );
    assert_eq!(bench.create(2, 16, 16), OK);
    assert_eq!(
        set(&scanout_blob(2, whole, [16, 16], 64, 0)),
        Err(GpuError::InvalidParameter)
    );
}

#[test]
fn only_host_blobs_that_guest_and_host_map_alike_are_copied_to_a_display() {
    let bench = bench();
    let (wc, cached) = (Some(MapCache::Wc), Some(MapCache::Cached));
    let (honored, ignored) = (VmmMemtype::Honored, VmmMemtype::Ignored);
    for (id, host, snooping, vmm) in [
        (1, cached, Snooping::NoDevice, ignored),
        // The guest maps it cached.
        (2, wc, Snooping::Yes, ignored),
        // It is not mapped at all.
        (3, wc, Snooping::No, ignored),
        (4, wc, Snooping::No, honored),
    ] {
        let traits = Traits {
            host,
            kinds: PageKinds::Ram,
            snooping,
            verified: true,
        };
        let choice = Choice {
            vmm,
            ..Choice::default()
        };
        let source = Source::of(
            Allocator::claiming(traits),
            choice,
            Arc::new(CacheFlusher::default()),
        )
        .unwrap();
        let memory = source.image(BlobId(1), 4096, false).unwrap();
        let blob = HostBlob::new(memory, true, ContextSerial(1));
        let resource = Resource::new(Storage::HostBlob(blob), None);
        let mut state = bench.device.state();
        state
            .resources
            .insert(ResourceId::new(id).unwrap(), resource);
    }
    let show = |id| {
        let words = scanout_blob(id, [0, 0, 16, 16], [16, 16], 64, 0);
        bench.run(cmd::SET_SCANOUT_BLOB, &words)
    };
    let flush = |id| bench.run(cmd::RESOURCE_FLUSH, &[0, 0, 16, 16, id, 0]);
    assert_eq!(show(2), Err(GpuError::InvalidParameter));
    assert_eq!(show(3), Err(GpuError::InvalidParameter));
    for id in [4, 1] {
        assert_eq!(show(id), OK);
        assert_eq!(flush(id), OK);
    }
    // The scanout stays as it is, and a flush of what is shown nowhere reads nothing.
    assert_eq!(show(3), Err(GpuError::InvalidParameter));
    assert_eq!(flush(3), OK);
    assert_eq!(flush(1), OK);
}

#[test]
fn cursors_are_64_by_64() {
    let bench = bench();
    let update = |scanout, id| bench.cursor(cmd::UPDATE_CURSOR, &[scanout, 1, 2, 0, id, 3, 4, 0]);
    assert_eq!(bench.create(1, 64, 64), OK);
    assert_eq!(bench.create(2, 32, 32), OK);
    assert_eq!(update(0, 1), OK);
    assert_eq!(update(0, 0), OK, "hidden");
    assert_eq!(update(0, 2), Err(GpuError::InvalidParameter));
    assert_eq!(update(0, 3), Err(GpuError::InvalidResourceId));
    assert_eq!(update(2, 1), Err(GpuError::InvalidScanoutId));
    assert_eq!(
        bench.cursor(cmd::MOVE_CURSOR, &[1, 5, 6, 0, 0, 0, 0, 0]),
        OK
    );
    assert_eq!(
        bench.cursor(cmd::MOVE_CURSOR, &[2, 5, 6, 0, 0, 0, 0, 0]),
        Err(GpuError::InvalidScanoutId)
    );
    assert_eq!(
        bench.cursor(cmd::GET_DISPLAY_INFO, &[]),
        Err(GpuError::Unspec),
        "other queue"
    );
    assert_eq!(
        bench.run(cmd::MOVE_CURSOR, &[0; 8]),
        Err(GpuError::Unspec),
        "other queue"
    );
}

#[test]
fn a_uuid_stays_with_its_resource() {
    let bench = bench();
    assert_eq!(bench.create(1, 1, 1), OK);
    assert_eq!(bench.create(2, 1, 1), OK);
    let uuid = |id| match bench.run(cmd::RESOURCE_ASSIGN_UUID, &[id, 0]) {
        Ok(Reply::OkResourceUuid(uuid)) => uuid,
        other => panic!("{other:?}"),
    };
    assert_eq!(uuid(1), uuid(1));
    assert_ne!(uuid(1), uuid(2));
    assert_eq!(
        bench.run(cmd::RESOURCE_ASSIGN_UUID, &[3, 0]),
        Err(GpuError::InvalidResourceId)
    );
}

#[test]
fn reset_forgets_everything() {
    let bench = bench();
    assert_eq!(bench.create(1, 8, 8), OK);
    assert_eq!(bench.run(cmd::SET_SCANOUT, &[0, 0, 8, 8, 0, 1]), OK);
    bench.device.reset();
    bench.device.verify_invariants().unwrap();
    assert_eq!(
        bench.run(cmd::RESOURCE_UNREF, &[1, 0]),
        Err(GpuError::InvalidResourceId)
    );
    assert_eq!(bench.create(1, 8, 8), OK);
}

/// A backing in pieces of any size and order, over which a transfer is to work as over one piece.
fn pieces() -> impl Strategy<Value = Vec<(u64, u32)>> {
    let piece = (0..2_u64, 0..200_u64, 0..60_u32)
        .prop_map(|(region, page, len)| (region * 2 * MIB + page * 64, len));
    proptest::collection::vec(piece, 1..60)
}

proptest! {
    #[test]
    fn transfers_read_any_fragmentation_as_one_piece(
        entries in pieces(),
        x in 0..8_u32, y in 0..8_u32, width in 0..9_u32, height in 0..9_u32,
        offset in 0..300_u64,
    ) {
        let bench = bench();
        for region in [0, 2 * MIB] {
            let bytes: Vec<u8> = (0..16_384_u32).map(|i| (i * 7 + i / 251) as u8).collect();
            bench.memory.write_slice(&bytes, GuestAddress(region)).unwrap();
        }
        let mut flat = Vec::new();
        for (address, len) in &entries {
            let mut bytes = vec![0; *len as usize];
            bench.memory.read_slice(&mut bytes, GuestAddress(*address)).unwrap();
            flat.extend(bytes);
        }
        prop_assert_eq!(bench.create(1, 8, 8), OK);
        prop_assert_eq!(bench.attach(1, &entries), OK);
        let inside = x + width <= 8 && y + height <= 8;
        let empty = width == 0 || height == 0;
        let end = offset as usize + height.saturating_sub(1) as usize * 32 + width as usize * 4;
        let expected = if inside && (empty || end <= flat.len()) {
            OK
        } else {
            Err(GpuError::InvalidParameter)
        };
        prop_assert_eq!(bench.transfer(1, [x, y, width, height], offset), expected.clone());
        let mut picture = vec![0; 8 * 8 * 4];
        if expected.is_ok() && !empty {
            for row in 0..height as usize {
                let from = offset as usize + row * 32;
                let to = ((y as usize + row) * 8 + x as usize) * 4;
                let len = width as usize * 4;
                picture[to..to + len].copy_from_slice(&flat[from..from + len]);
            }
        }
        for row in 0..8 {
            let at = row as usize * 32;
            prop_assert_eq!(bench.row(1, row, 8), &picture[at..at + 32]);
        }
    }
}
