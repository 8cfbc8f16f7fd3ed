//! The device with a renderer that writes down what it is asked: what reaches it and what does not,
//! and what the guest is told when.
//!
//! Whether promises of the device are kept (`render::Renderer`) the fake checks itself.

mod blobs;
mod fences;
mod random;
mod shared;
mod shown;

use nosnoop_protocol::command::{Box3d, Create3d, Transfer3d};
use nosnoop_protocol::geometry::Rect;
use nosnoop_protocol::ids::{CapsetId, ContextId};

use super::*;
use crate::device::mapper::Done;
use crate::render::fake::{Call, Fake, capset};

const UNSPEC: Result<Reply, GpuError> = Err(GpuError::Unspec);
const BAD: Result<Reply, GpuError> = Err(GpuError::InvalidParameter);
const NO_CONTEXT: Result<Reply, GpuError> = Err(GpuError::InvalidContextId);
const NO_RESOURCE: Result<Reply, GpuError> = Err(GpuError::InvalidResourceId);
const FULL: Result<Reply, GpuError> = Err(GpuError::OutOfMemory);

/// A front-end that does at once what it is asked.
struct Eager;

impl Mapper for Eager {
    fn usable(&self) -> bool {
        true
    }

    fn speaks_memtype(&self) -> bool {
        false
    }

    fn map(&self, _: MapRequest, done: Done) {
        done(Ok(()));
    }

    fn unmap(&self, _: u64, _: u64, done: Done) {
        done(Ok(()));
    }
}

/// A fence and what came with it.
type Told = (u64, Result<Reply, GpuError>);

/// A device, its renderer, and what the guest has been told of commands that were parked.
struct Gpu {
    bench: Bench,
    fake: Fake,
    told: Arc<Mutex<Vec<Told>>>,
}

fn id(number: u32) -> ResourceId {
    ResourceId::new(number).unwrap()
}

fn context(number: u32) -> ContextId {
    ContextId::new(number).unwrap()
}

impl Gpu {
    fn new() -> Self {
        Self::with(Limits::default(), false)
    }

    fn with(limits: Limits, shared_memory: bool) -> Self {
        let bench = Bench::new(limits);
        let display = Arc::clone(bench.device.display());
        Self::on(display, limits, shared_memory)
    }

    fn on(display: Arc<Display>, limits: Limits, shared_memory: bool) -> Self {
        Self::drawn_by(Fake::default(), display, limits, shared_memory)
    }

    fn drawn_by(fake: Fake, display: Arc<Display>, limits: Limits, shared_memory: bool) -> Self {
        let source = || Source::open(Choice::default(), Arc::new(CacheFlusher::default())).unwrap();
        let shared = shared_memory.then(|| SharedMemory {
            size: 1 << 20,
            mapper: Arc::new(Eager),
            source: Arc::new(source()),
            wayland: None,
        });
        let bench = Bench::new(limits);
        let device = Device::new(limits, display, shared, Some(fake.start()));
        Self {
            bench: Bench { device, ..bench },
            fake,
            told: Arc::default(),
        }
    }

    /// A command of a context, with a fence on a ring or the device's timeline if it has a number.
    fn fenced(
        &self,
        code: u32,
        of: u32,
        words: &[u32],
        fence: Option<(u64, Option<u8>)>,
    ) -> Option<Result<Reply, GpuError>> {
        let mut bytes = vec![0; 24];
        bytes[..4].copy_from_slice(&code.to_le_bytes());
        bytes[16..20].copy_from_slice(&of.to_le_bytes());
        if let Some((number, ring)) = fence {
            bytes[4] = 1 | u8::from(ring.is_some()) << 1;
            bytes[8..16].copy_from_slice(&number.to_le_bytes());
            bytes[20] = ring.unwrap_or(0);
        }
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        let request = Request::parse(&bytes);
        let command = match request.command {
            Ok(command) => command,
            Err(error) => return Some(Err(error)),
        };
        let device = &self.bench.device;
        let batch = &mut Batch::default();
        let fence = request.header.fence();
        let verdict = device.control(&command, fence, &self.bench.memory, batch);
        device.verify_invariants().unwrap();
        match verdict {
            Verdict::Done(result) => Some(result),
            Verdict::Parked(ticket) => {
                let told = Arc::clone(&self.told);
                let number = fence.map_or(0, |fence| fence.id.0);
                let answer = move |result| lock(&told).push((number, result));
                device.when_done(ticket, Box::new(answer));
                None
            }
        }
    }

    fn run(&self, code: u32, of: u32, words: &[u32]) -> Result<Reply, GpuError> {
        match self.fenced(code, of, words, None) {
            Some(result) => result,
            // What the eager front-end does is done at once.
            None => lock(&self.told).pop().unwrap().1,
        }
    }

    fn create_context(&self, number: u32, init: u32) -> Result<Reply, GpuError> {
        let mut words = vec![4, init];
        words.extend([u32::from_le_bytes(*b"mesa")].iter().chain(&[0; 15]));
        self.run(cmd::CTX_CREATE, number, &words)
    }

    fn create(&self, create: &Create3d) -> Result<Reply, GpuError> {
        let it = create;
        let words = [
            it.resource.get(),
            it.target,
            it.format,
            it.bind,
            it.width,
            it.height,
            it.depth,
            it.array_size,
            it.last_level,
            it.nr_samples,
            it.flags,
            0,
        ];
        self.run(cmd::RESOURCE_CREATE_3D, 0, &words)
    }

    fn transfer(&self, code: u32, it: &Transfer3d) -> Result<Reply, GpuError> {
        let part = it.region;
        let words = [
            part.x,
            part.y,
            part.z,
            part.width,
            part.height,
            part.depth,
            it.offset as u32,
            (it.offset >> 32) as u32,
            it.resource.get(),
            it.level,
            it.stride,
            it.layer_stride,
        ];
        self.run(code, it.context.map_or(0, ContextId::get), &words)
    }

    fn submit(&self, of: u32, words: &[u32]) -> Result<Reply, GpuError> {
        self.run(cmd::SUBMIT_3D, of, &stream(words))
    }

    fn attach(&self, of: u32, resource: u32) -> Result<Reply, GpuError> {
        self.run(cmd::CTX_ATTACH_RESOURCE, of, &[resource, 0])
    }

    fn unref(&self, resource: u32) -> Result<Reply, GpuError> {
        self.run(cmd::RESOURCE_UNREF, 0, &[resource, 0])
    }

    /// What has reached the renderer since the last time.
    fn calls(&self) -> Vec<Call> {
        // What was posted is done behind everything else.
        let renderer = self.bench.device.renderer().unwrap();
        let _ = renderer.call("", |_| Ok(()));
        self.fake.check();
        self.fake.calls()
    }
}

/// The words of a `SUBMIT_3D` after its header.
fn stream(words: &[u32]) -> Vec<u32> {
    let mut all = vec![words.len() as u32 * 4, 0];
    all.extend(words);
    all
}

fn texture(number: u32, width: u32, height: u32) -> Create3d {
    Create3d {
        resource: id(number),
        target: 2,
        format: 1,
        bind: 0x4_000a,
        width,
        height,
        depth: 1,
        array_size: 1,
        last_level: 0,
        nr_samples: 0,
        flags: 1,
    }
}

#[test]
fn the_renderers_capability_sets_come_first() {
    let info = |gpu: &Gpu, index| gpu.run(cmd::GET_CAPSET_INFO, 0, &[index, 0]);
    let ids = |gpu: &Gpu| -> Vec<_> {
        let count = gpu.bench.device.config().num_capsets;
        let infos = (0..count).map(|index| info(gpu, index));
        let id = |reply| match reply {
            Ok(Reply::OkCapsetInfo {
                id,
                max_version,
                max_size,
            }) => (id.0, max_version, max_size),
            other => panic!("{other:?}"),
        };
        infos.map(id).collect()
    };
    let gpu = Gpu::new();
    assert_eq!(ids(&gpu), [(1, 1, 100), (2, 2, 200)]);
    assert_eq!(info(&gpu, 2), BAD);
    let get = |id, version| gpu.run(cmd::GET_CAPSET, 0, &[id, version]);
    assert_eq!(get(1, 1), Ok(Reply::OkCapset(capset(1).data)));
    assert_eq!(get(2, 1), Ok(Reply::OkCapset(capset(2).data)));
    assert_eq!(get(1, 2), BAD);
    assert_eq!(get(5, 0), BAD);
    let features = gpu.bench.device.features();
    assert!(features.contains(Features::VIRGL | Features::CONTEXT_INIT));
    assert!(!features.contains(Features::BLOB_ALIGNMENT));

    let both = Gpu::with(Limits::default(), true);
    let all = ids(&both);
    assert_eq!((all.len(), all[2].0), (3, 5));
    assert!(
        both.bench
            .device
            .features()
            .contains(Features::BLOB_ALIGNMENT)
    );
}

#[test]
fn contexts_are_made_for_the_capability_sets_there_are() {
    let gpu = Gpu::new();
    assert_eq!(gpu.create_context(1, 0), OK);
    assert_eq!(gpu.create_context(2, 2), OK);
    // Other bits are nobody's.
    assert_eq!(gpu.create_context(3, 0x101), OK);
    let made =
        |number, capset| Call::CreateContext(context(number), CapsetId(capset), "mesa".to_owned());
    assert_eq!(gpu.calls(), [made(1, 1), made(2, 2), made(3, 1)]);
    assert_eq!(gpu.create_context(1, 2), NO_CONTEXT, "taken");
    for unknown in [3, 4, 5, 255] {
        assert_eq!(gpu.create_context(9, unknown), BAD, "{unknown}");
    }
    assert_eq!(gpu.run(cmd::CTX_DESTROY, 9, &[]), NO_CONTEXT);
    assert_eq!(gpu.calls(), []);
    gpu.fake
        .with(|script| script.refuse = Some("CreateContext"));
    assert_eq!(gpu.create_context(4, 1), UNSPEC);
    assert_eq!(
        gpu.run(cmd::CTX_DESTROY, 4, &[]),
        NO_CONTEXT,
        "it was not made"
    );
    assert_eq!(gpu.run(cmd::CTX_DESTROY, 1, &[]), OK);
    assert_eq!(gpu.calls()[1..], [Call::DestroyContext(context(1))]);

    let both = Gpu::with(Limits::default(), true);
    assert_eq!(both.create_context(1, 5), OK);
    assert_eq!(both.submit(1, &[]), OK, "the device's own");
    assert_eq!(both.calls(), []);
}

#[test]
fn a_context_of_no_set_is_never_one_of_vulkan() {
    let fake = Fake::default();
    fake.with(|script| script.vulkan = true);
    let display = Arc::clone(Bench::new(Limits::default()).device.display());
    let gpu = Gpu::drawn_by(fake, display, Limits::default(), true);
    assert_eq!(gpu.create_context(1, 0), OK);
    assert_eq!(gpu.calls(), [], "cross-domain");
    assert_eq!(gpu.create_context(2, 4), OK);
    assert_eq!(gpu.calls().len(), 1);
    assert_eq!(gpu.create_context(3, 1), BAD);
}

#[test]
fn the_renderers_contexts_are_counted() {
    let limits = Limits {
        descriptors: 4 * 7 + 3,
        ..Limits::default()
    };
    let gpu = Gpu::with(limits, true);
    let most = 7;
    for number in 1..=most {
        assert_eq!(gpu.create_context(number, 1), OK);
    }
    assert_eq!(gpu.create_context(most + 1, 1), FULL);
    assert_eq!(gpu.create_context(most + 1, 5), OK);
    assert_eq!(gpu.calls().len(), most as usize);
}

#[test]
fn the_renderers_resources_count_as_descriptors() {
    let limits = Limits {
        descriptors: 2,
        ..Limits::default()
    };
    let gpu = Gpu::with(limits, false);
    assert_eq!(gpu.create(&texture(1, 1, 1)), OK);
    assert_eq!(gpu.create(&texture(2, 1, 1)), OK);
    assert_eq!(gpu.calls().len(), 2);
    assert_eq!(gpu.create(&texture(3, 1, 1)), FULL);
    assert_eq!(gpu.calls(), []);
    assert_eq!(gpu.bench.create(4, 1, 1), OK, "2D takes none");
    assert_eq!(gpu.unref(1), OK);
    assert_eq!(gpu.create(&texture(3, 1, 1)), OK);
    assert_eq!(gpu.create(&texture(5, 1, 1)), FULL);
}

#[test]
fn resources_are_made_as_described_and_charged() {
    let gpu = Gpu::with(
        Limits {
            hostmem: 4096,
            resources: 3,
            ..Limits::default()
        },
        false,
    );
    let create = texture(1, 16, 32);
    assert_eq!(gpu.create(&create), OK);
    assert_eq!(gpu.calls(), [Call::CreateResource(create)]);
    assert_eq!(gpu.create(&texture(1, 1, 1)), NO_RESOURCE, "taken");
    assert_eq!(gpu.create(&texture(2, 16, 33)), FULL);
    assert_eq!(gpu.create(&texture(2, u32::MAX, u32::MAX)), FULL);
    assert_eq!(gpu.create(&texture(2, 0, 1)), BAD);
    assert_eq!(gpu.bench.create(2, 16, 33), FULL, "one quota for 2D and 3D");
    assert_eq!(gpu.calls(), []);
    gpu.fake
        .with(|script| script.refuse = Some("CreateResource"));
    assert_eq!(gpu.create(&texture(2, 16, 32)), UNSPEC);
    gpu.fake.with(|script| script.refuse = None);
    assert_eq!(gpu.calls().len(), 1);
    // What was refused takes nothing.
    assert_eq!(gpu.create(&texture(2, 16, 32)), OK);
    assert_eq!(gpu.create(&texture(3, 1, 1)), FULL);
    assert_eq!(gpu.unref(2), OK);
    assert_eq!(gpu.unref(2), NO_RESOURCE);
    assert_eq!(gpu.create(&texture(2, 1, 1)), OK);
    assert_eq!(gpu.create(&texture(3, 1, 1)), OK);
    assert_eq!(gpu.create(&texture(4, 1, 1)), FULL, "three resources");
    let calls = gpu.calls();
    assert_eq!(calls[1], Call::DestroyResource(id(2)));
    assert_eq!(calls.len(), 4);
}

#[test]
fn only_the_renderers_resources_are_attached_to_its_contexts() {
    let gpu = Gpu::with(Limits::default(), true);
    gpu.create_context(1, 1).unwrap();
    gpu.create_context(2, 5).unwrap();
    gpu.create(&texture(1, 8, 8)).unwrap();
    gpu.bench.create(2, 8, 8).unwrap();
    gpu.calls();
    let detach = |of, resource| gpu.run(cmd::CTX_DETACH_RESOURCE, of, &[resource, 0]);
    for (of, resource, expected) in [
        (1, 3, NO_RESOURCE),
        (3, 1, NO_CONTEXT),
        (1, 2, OK),
        (2, 1, OK),
        (2, 2, OK),
    ] {
        assert_eq!(gpu.attach(of, resource), expected, "{of} {resource}");
        assert_eq!(detach(of, resource), expected, "{of} {resource}");
    }
    assert_eq!(detach(1, 1), OK, "was never attached");
    assert_eq!(gpu.calls(), []);
    gpu.fake.with(|script| script.refuse = Some("Attach("));
    assert_eq!(gpu.attach(1, 1), UNSPEC);
    gpu.fake.with(|script| script.refuse = None);
    assert_eq!(detach(1, 1), OK, "it is not attached");
    assert_eq!(gpu.attach(1, 1), OK);
    assert_eq!(gpu.attach(1, 1), OK, "again");
    assert_eq!(detach(1, 1), OK);
    let attach = Call::Attach(context(1), id(1));
    let expected = [attach.clone(), attach, Call::Detach(context(1), id(1))];
    assert_eq!(gpu.calls(), expected);
}

#[test]
fn transfers_need_a_backing_a_part_and_a_context_that_has_the_resource() {
    let gpu = Gpu::with(Limits::default(), true);
    for (number, init) in [(1, 1), (2, 1), (3, 5)] {
        gpu.create_context(number, init).unwrap();
    }
    gpu.create(&Create3d {
        last_level: 2,
        ..texture(1, 8, 8)
    })
    .unwrap();
    gpu.bench.create(2, 8, 8).unwrap();
    gpu.attach(1, 1).unwrap();
    gpu.calls();
    let part = Box3d {
        x: 1,
        y: 2,
        z: 0,
        width: 2,
        height: 2,
        depth: 1,
    };
    let transfer = Transfer3d {
        resource: id(1),
        context: Some(context(1)),
        region: part,
        offset: 1 << 33,
        level: 1,
        stride: 32,
        layer_stride: 256,
    };
    let to = |transfer: &Transfer3d| gpu.transfer(cmd::TRANSFER_TO_HOST_3D, transfer);
    assert_eq!(to(&transfer), UNSPEC, "no backing");
    assert_eq!(gpu.bench.attach(1, &[]), BAD, "no memory");
    assert_eq!(
        gpu.bench.attach(1, &[(MIB, 4096)]),
        UNSPEC,
        "no guest memory"
    );
    assert_eq!(gpu.calls(), []);
    assert_eq!(
        gpu.bench
            .attach(1, &[(0, 4096), (4096, 4096), (2 * MIB, 64)]),
        OK
    );
    assert_eq!(gpu.bench.attach(1, &[(0, 4096)]), UNSPEC, "twice");
    let pieces = vec![(0, 8192), (2 * MIB, 64)];
    assert_eq!(gpu.calls(), [Call::AttachBacking(id(1), pieces)]);

    let at = |part: Box3d| Transfer3d {
        region: part,
        ..transfer
    };
    for (bad, expected) in [
        (at(Box3d { x: 3, ..part }), BAD),
        (
            at(Box3d {
                y: u32::MAX,
                ..part
            }),
            BAD,
        ),
        (at(Box3d { z: 1, ..part }), BAD),
        (at(Box3d { depth: 2, ..part }), BAD),
        (
            Transfer3d {
                level: 3,
                ..transfer
            },
            BAD,
        ),
        (
            Transfer3d {
                resource: id(2),
                ..transfer
            },
            BAD,
        ),
        (
            Transfer3d {
                resource: id(3),
                ..transfer
            },
            NO_RESOURCE,
        ),
        (
            Transfer3d {
                context: Some(context(2)),
                ..transfer
            },
            NO_RESOURCE,
        ),
        (
            Transfer3d {
                context: Some(context(3)),
                ..transfer
            },
            NO_CONTEXT,
        ),
        (
            Transfer3d {
                context: Some(context(4)),
                ..transfer
            },
            NO_CONTEXT,
        ),
    ] {
        assert_eq!(to(&bad), expected, "{bad:?}");
        let from = gpu.transfer(cmd::TRANSFER_FROM_HOST_3D, &bad);
        assert_eq!(from, expected, "{bad:?}");
    }
    assert_eq!(
        gpu.bench.transfer(1, [0, 0, 1, 1], 0),
        BAD,
        "it is no 2D resource"
    );
    assert_eq!(gpu.calls(), []);
    assert_eq!(to(&transfer), OK);
    let whole = Transfer3d {
        context: None,
        ..transfer
    };
    assert_eq!(gpu.transfer(cmd::TRANSFER_FROM_HOST_3D, &whole), OK);
    let expected = [
        Call::Transfer(Direction::ToHost, transfer),
        Call::Transfer(Direction::FromHost, whole),
    ];
    assert_eq!(gpu.calls(), expected);
    assert_eq!(gpu.bench.run(cmd::RESOURCE_DETACH_BACKING, &[1, 0]), OK);
    assert_eq!(gpu.bench.run(cmd::RESOURCE_DETACH_BACKING, &[1, 0]), UNSPEC);
    assert_eq!(to(&transfer), UNSPEC);
    assert_eq!(gpu.calls(), [Call::DetachBacking(id(1))]);
}

#[test]
fn streams_reach_the_renderer_whole_or_not_at_all() {
    let gpu = Gpu::new();
    gpu.create_context(1, 1).unwrap();
    gpu.calls();
    let words = quota::MAX_RENDER_SUBMIT / 4;
    assert_eq!(gpu.submit(2, &[1]), NO_CONTEXT);
    assert_eq!(gpu.submit(1, &vec![7; words + 1]), BAD);
    assert_eq!(
        gpu.run(cmd::SUBMIT_3D, 1, &[3, 0, 9]),
        BAD,
        "not whole words"
    );
    assert_eq!(gpu.run(cmd::SUBMIT_3D, 1, &[8, 0, 9]), UNSPEC, "truncated");
    assert_eq!(gpu.calls(), []);
    assert_eq!(gpu.submit(1, &vec![7; words]), OK);
    assert_eq!(gpu.submit(1, &[0x0403_0201]), OK);
    let calls = gpu.calls();
    assert!(matches!(&calls[0], Call::Submit(_, bytes) if bytes.len() == words * 4));
    assert_eq!(calls[1..], [Call::Submit(context(1), vec![1, 2, 3, 4])]);
    gpu.fake.with(|script| script.refuse = Some("Submit"));
    assert_eq!(gpu.submit(1, &[1]), UNSPEC);
}

#[test]
fn a_reset_and_the_end_of_the_connection_leave_the_renderer_nothing() {
    let gpu = Gpu::new();
    gpu.create_context(1, 1).unwrap();
    gpu.create(&texture(1, 8, 8)).unwrap();
    gpu.calls();
    gpu.bench.device.reset();
    assert_eq!(gpu.calls(), [Call::Reset]);
    assert_eq!(gpu.submit(1, &[1]), NO_CONTEXT);
    assert_eq!(gpu.unref(1), NO_RESOURCE);
    assert_eq!(gpu.create_context(1, 1), OK);
    assert_eq!(gpu.create(&texture(1, 8, 8)), OK);
    gpu.calls();
    gpu.bench.device.close();
    assert_eq!(gpu.calls(), [Call::Reset]);
}

#[test]
fn without_a_renderer_3d_commands_are_unknown() {
    let bench = bench();
    assert_eq!(
        bench.run(
            cmd::RESOURCE_CREATE_3D,
            &[1, 2, 1, 0, 8, 8, 1, 1, 0, 0, 0, 0]
        ),
        UNSPEC
    );
    assert_eq!(
        bench.run(
            cmd::TRANSFER_TO_HOST_3D,
            &[0, 0, 0, 1, 1, 1, 0, 0, 1, 0, 0, 0]
        ),
        UNSPEC
    );
    assert!(!bench.device.features().contains(Features::VIRGL));
}
