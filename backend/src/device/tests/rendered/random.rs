//! Commands at random: whatever a guest sends, the renderer is asked only what it was promised.

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use super::blobs::create_host_blob;
use super::*;
use crate::render::HandleKind;

#[derive(Clone, Debug)]
enum Step {
    Context(u32, u32),
    DestroyContext(u32),
    Create2d(u32),
    Create3d(u32, u32, u32),
    Blob(u32, u32, u32),
    Unref(u32),
    Map(u32),
    Attach(u32, u32),
    Detach(u32, u32),
    Backing(u32),
    NoBacking(u32),
    Transfer(u32, u32, u32),
    Submit(u32, Option<u8>),
    Show(u32),
    Flush(u32),
    Cursor(u32),
    Signal,
    Refuse(Option<&'static str>),
    Reset,
}

fn step() -> impl Strategy<Value = Step> {
    let (context, resource) = (1..4_u32, 1..5_u32);
    let pair = (context.clone(), resource.clone());
    let refused = prop_oneof![
        6 => Just(None),
        1 => proptest::sample::select(vec!["Create", "Attach", "Detach", "Transfer", "Fence"]).prop_map(Some),
    ];
    prop_oneof![
        1 => (context.clone(), 0..6_u32).prop_map(|(id, init)| Step::Context(id, init)),
        1 => context.clone().prop_map(Step::DestroyContext),
        1 => resource.clone().prop_map(Step::Create2d),
        2 => (resource.clone(), 0..4_u32, 1..100_u32).prop_map(|(id, kind, edge)| Step::Create3d(id, kind, edge)),
        2 => (context.clone(), resource.clone(), 0..3_u32).prop_map(|(of, id, kind)| Step::Blob(of, id, kind)),
        1 => resource.clone().prop_map(Step::Unref),
        1 => resource.clone().prop_map(Step::Map),
        2 => pair.clone().prop_map(|(of, id)| Step::Attach(of, id)),
        1 => pair.clone().prop_map(|(of, id)| Step::Detach(of, id)),
        2 => resource.clone().prop_map(Step::Backing),
        1 => resource.clone().prop_map(Step::NoBacking),
        2 => (0..4_u32, resource.clone(), 0..80_u32).prop_map(|(of, id, edge)| Step::Transfer(of, id, edge)),
        2 => (context, proptest::option::of(0..3_u8)).prop_map(|(of, ring)| Step::Submit(of, ring)),
        1 => resource.clone().prop_map(Step::Show),
        1 => resource.clone().prop_map(Step::Flush),
        1 => resource.prop_map(Step::Cursor),
        1 => Just(Step::Signal),
        1 => refused.prop_map(Step::Refuse),
        1 => Just(Step::Reset),
    ]
}

impl Gpu {
    fn blob(&self, of: u32, resource: u32, kind: u32) {
        let fd = memfd_create(c"nosnoop-test", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&fd, 4096).unwrap();
        let kinds = [HandleKind::Shm, HandleKind::DmaBuf, HandleKind::Other];
        let export = (fd, kinds[kind as usize], Some(1));
        self.fake.with(|script| script.export = Some(export));
        let mut words = create_host_blob(4096, 1);
        words[0] = resource;
        let _ = self.run(cmd::RESOURCE_CREATE_BLOB, of, &words);
    }

    /// How many parked commands this leaves.
    fn step(&self, step: &Step, fence: u64) -> usize {
        match *step {
            Step::Context(id, init) => drop(self.create_context(id, init)),
            Step::DestroyContext(id) => drop(self.run(cmd::CTX_DESTROY, id, &[])),
            Step::Create2d(id) => drop(self.bench.create(id, 64, 64)),
            Step::Create3d(id, kind, edge) => {
                let edge = if kind == 0 { 64 } else { edge };
                let create = Create3d {
                    target: 2 + kind / 2,
                    ..texture(id, edge, edge)
                };
                drop(self.create(&create));
            }
            Step::Blob(of, id, kind) => self.blob(of, id, kind),
            Step::Unref(id) => drop(self.unref(id)),
            Step::Map(id) => drop(self.run(cmd::RESOURCE_MAP_BLOB, 0, &[id, 0, 0, 0])),
            Step::Attach(of, id) => drop(self.attach(of, id)),
            Step::Detach(of, id) => drop(self.run(cmd::CTX_DETACH_RESOURCE, of, &[id, 0])),
            Step::Backing(id) => drop(self.bench.attach(id, &[(0, 4096)])),
            Step::NoBacking(id) => {
                drop(self.bench.run(cmd::RESOURCE_DETACH_BACKING, &[id, 0]));
            }
            Step::Transfer(of, resource, edge) => {
                let region = Box3d {
                    x: 0,
                    y: 0,
                    z: 0,
                    width: edge,
                    height: 1,
                    depth: 1,
                };
                let transfer = Transfer3d {
                    resource: id(resource),
                    context: ContextId::new(of),
                    region,
                    offset: 0,
                    level: 0,
                    stride: 0,
                    layer_stride: 0,
                };
                drop(self.transfer(cmd::TRANSFER_TO_HOST_3D, &transfer));
            }
            Step::Submit(of, ring) => {
                let words = stream(&[1]);
                let result = self.fenced(cmd::SUBMIT_3D, of, &words, Some((fence, ring)));
                return usize::from(result.is_none());
            }
            Step::Show(id) => drop(self.bench.run(cmd::SET_SCANOUT, &[0, 0, 8, 8, 0, id])),
            Step::Flush(id) => drop(self.bench.run(cmd::RESOURCE_FLUSH, &[0, 0, 1, 1, id, 0])),
            Step::Cursor(id) => {
                drop(
                    self.bench
                        .cursor(cmd::UPDATE_CURSOR, &[0, 1, 2, 0, id, 3, 4, 0]),
                );
            }
            Step::Signal if self.fake.with(|script| script.pending.is_empty()) => {}
            Step::Signal => self.fake.signal(0),
            Step::Refuse(what) => self.fake.with(|script| script.refuse = what),
            Step::Reset => self.bench.device.reset(),
        }
        0
    }
}

proptest! {
    #[test]
    fn the_renderer_is_asked_only_what_it_was_promised(
        steps in proptest::collection::vec(step(), 1..120)
    ) {
        let gpu = Gpu::with(Limits::default(), true);
        let mut parked = 0;
        let told = |gpu: &Gpu| std::mem::take(&mut *lock(&gpu.told)).len();
        let mut answered = 0;
        for (fence, step) in (0..).zip(&steps) {
            parked += gpu.step(step, fence);
            gpu.calls();
            gpu.bench.device.verify_invariants().unwrap();
        }
        gpu.bench.device.reset();
        answered += told(&gpu);
        prop_assert_eq!(answered, parked);
    }
}
