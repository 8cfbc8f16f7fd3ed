//! When a fenced command is answered.

use std::time::{Duration, Instant};

use super::*;

impl Gpu {
    /// A fenced submit, which is to be parked.
    fn park(&self, of: u32, fence: u64, ring: Option<u8>) {
        let words = stream(&[1]);
        let parked = self.fenced(cmd::SUBMIT_3D, of, &words, Some((fence, ring)));
        assert_eq!(parked, None);
    }

    fn told(&self) -> Vec<Told> {
        std::mem::take(&mut *lock(&self.told))
    }
}

fn two_contexts() -> Gpu {
    let gpu = Gpu::new();
    gpu.create_context(1, 1).unwrap();
    gpu.create_context(2, 2).unwrap();
    gpu
}

#[test]
fn fences_come_in_order_on_a_timeline_and_as_they_like_between_them() {
    let gpu = two_contexts();
    // The same number twice, and more bits than the renderer knows.
    for (of, fence, ring) in [
        (1, 1 << 40, None),
        (2, 7, None),
        (1, 7, Some(0)),
        (1, u64::MAX, Some(0)),
        (2, 9, Some(0)),
        (1, 10, Some(63)),
    ] {
        gpu.park(of, fence, ring);
    }
    assert_eq!(gpu.told(), []);
    // The later ones first: on another timeline, then on this one, which brings both.
    gpu.fake.signal(5);
    assert_eq!(gpu.told(), [(10, OK)]);
    gpu.fake.signal(4);
    assert_eq!(gpu.told(), [(9, OK)]);
    gpu.fake.signal(3);
    assert_eq!(gpu.told(), [(7, OK), (u64::MAX, OK)]);
    // One that was merged into another changes nothing.
    gpu.fake.signal(2);
    assert_eq!(gpu.told(), []);
    gpu.fake.signal(0);
    assert_eq!(gpu.told(), [(1 << 40, OK)]);
    gpu.fake.signal(0);
    assert_eq!(gpu.told(), [(7, OK)]);
    gpu.fake.check();
}

#[test]
fn sixty_four_fences_on_two_contexts_come_in_order() {
    let gpu = two_contexts();
    for fence in 0..64 {
        gpu.park(1 + fence as u32 % 2, fence, Some(0));
    }
    let mut told = Vec::new();
    while !gpu.fake.with(|script| script.pending.is_empty()) {
        gpu.fake.signal(0);
        told.extend(gpu.told());
    }
    assert_eq!(told, (0..64).map(|fence| (fence, OK)).collect::<Vec<_>>());
}

#[test]
fn a_fence_that_is_signalled_at_once_is_answered() {
    let gpu = two_contexts();
    gpu.fake.with(|script| script.prompt = true);
    gpu.park(1, 1, None);
    gpu.park(1, 2, Some(3));
    assert_eq!(gpu.told(), [(1, OK), (2, OK)]);
}

#[test]
fn an_error_at_the_fence_or_the_stream_is_told_at_once() {
    let gpu = two_contexts();
    gpu.park(1, 1, None);
    gpu.fake.with(|script| script.refuse = Some("Fence"));
    gpu.park(1, 2, None);
    assert_eq!(gpu.told(), [(2, UNSPEC)]);
    gpu.fake.with(|script| script.refuse = Some("Submit"));
    let words = stream(&[1]);
    let refused = gpu.fenced(cmd::SUBMIT_3D, 1, &words, Some((3, None)));
    assert_eq!(refused, Some(UNSPEC));
    assert_eq!(gpu.told(), []);
    gpu.fake.signal(0);
    assert_eq!(gpu.told(), [(1, OK)], "the one before is not touched");
}

#[test]
fn a_fence_on_a_ring_that_cannot_exist_is_refused() {
    let gpu = two_contexts();
    gpu.calls();
    let words = stream(&[1]);
    let refused = gpu.fenced(cmd::SUBMIT_3D, 1, &words, Some((1, Some(64))));
    assert_eq!(refused, Some(BAD));
    assert_eq!(gpu.calls(), []);
}

#[test]
fn destroying_a_context_completes_what_waits_on_its_timelines() {
    let gpu = two_contexts();
    gpu.park(1, 1, Some(0));
    gpu.park(1, 2, Some(1));
    gpu.park(2, 3, Some(0));
    gpu.park(1, 4, None);
    assert_eq!(gpu.run(cmd::CTX_DESTROY, 1, &[]), OK);
    let mut told = gpu.told();
    told.sort_by_key(|it| it.0);
    // They were submitted all the same.
    assert_eq!(told, [(1, OK), (2, OK)]);
    // The device's own timeline goes on.
    gpu.fake.signal(3);
    assert_eq!(gpu.told(), [(4, OK)]);
}

#[test]
fn a_reset_completes_everything() {
    let gpu = two_contexts();
    gpu.park(1, 1, Some(0));
    gpu.park(2, 2, None);
    gpu.bench.device.reset();
    let mut told = gpu.told();
    told.sort_by_key(|it| it.0);
    assert_eq!(told, [(1, OK), (2, OK)]);
}

#[test]
fn the_death_of_the_renderer_completes_everything_with_errors() {
    let gpu = two_contexts();
    gpu.create(&texture(1, 8, 8)).unwrap();
    gpu.park(1, 1, Some(0));
    gpu.park(2, 2, None);
    gpu.fake.with(|script| script.panic = Some("Submit"));
    let words = stream(&[1]);
    let died = gpu.fenced(cmd::SUBMIT_3D, 1, &words, Some((3, None)));
    assert_eq!(died, Some(UNSPEC));
    // The thread's end may come after its caller's answer.
    let start = Instant::now();
    while lock(&gpu.told).len() < 2 && start.elapsed() < Duration::from_secs(20) {
        std::thread::yield_now();
    }
    let mut told = gpu.told();
    told.sort_by_key(|it| it.0);
    assert_eq!(told, [(1, UNSPEC), (2, UNSPEC)]);
    assert_eq!(gpu.submit(1, &[1]), UNSPEC);
    assert_eq!(gpu.create(&texture(2, 8, 8)), UNSPEC);
    // What is here can still be put away, and 2D goes on.
    assert_eq!(gpu.unref(1), OK);
    assert_eq!(gpu.run(cmd::CTX_DESTROY, 1, &[]), OK);
    assert_eq!(gpu.bench.create(1, 8, 8), OK);
    gpu.bench.device.reset();
}

#[test]
fn a_ring_that_stops_gives_fences_some_time() {
    let gpu = two_contexts();
    gpu.park(1, 1, None);
    gpu.park(1, 2, Some(0));
    let start = Instant::now();
    gpu.bench.device.abandon_parked();
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert!(start.elapsed() < Duration::from_secs(10));
    let mut told = gpu.told();
    told.sort_by_key(|it| it.0);
    assert_eq!(told, [(1, OK), (2, OK)]);
    gpu.fake.with(|script| script.pending.clear());

    gpu.park(1, 3, None);
    let fake = gpu.fake.clone();
    let signals = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        fake.signal(0);
    });
    let start = Instant::now();
    gpu.bench.device.abandon_parked();
    let waited = start.elapsed();
    signals.join().unwrap();
    assert_eq!(gpu.told(), [(3, OK)]);
    assert!(waited >= Duration::from_millis(90), "{waited:?}");
    assert!(waited < Duration::from_millis(900), "{waited:?}");
    // With nothing to wait for it does not.
    let start = Instant::now();
    gpu.bench.device.abandon_parked();
    assert!(start.elapsed() < Duration::from_millis(500));
}
