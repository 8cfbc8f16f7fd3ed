//! When caches are flushed in the life of a host blob, seen among the requests to the front-end.

use std::collections::VecDeque;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nosnoop_protocol::memtype::MemslotRequest;

use super::*;
use crate::device::mapper::Done;
use crate::memory::alloc::HostMemory;
use crate::memory::flush::tests::Recorder;
use crate::memory::flush::{FlushError, Flusher};

const PAGES: u64 = 3 * PAGE_SIZE;

/// What happened, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there are few")]
enum Step {
    Flush(u64),
    Map(MemslotRequest),
    Unmap,
    /// The guest was answered.
    Told(Result<Reply, GpuError>),
}

type Steps = Arc<Mutex<Vec<Step>>>;

/// A front-end whose answers are given by the test.
#[derive(Default)]
struct SlowMapper {
    steps: Steps,
    waiting: Mutex<VecDeque<Done>>,
    /// Lets the next request to unmap end.
    gate: Mutex<Option<mpsc::Receiver<()>>>,
}

impl SlowMapper {
    fn answer(&self, result: Result<(), MapError>) {
        let done = lock(&self.waiting).pop_front().unwrap();
        done(result);
    }
}

impl Mapper for SlowMapper {
    fn usable(&self) -> bool {
        true
    }

    fn speaks_memtype(&self) -> bool {
        true
    }

    fn map(&self, request: MapRequest, done: Done) {
        lock(&self.steps).push(Step::Map(request.flags.memory));
        lock(&self.waiting).push_back(done);
    }

    fn unmap(&self, _shm_offset: u64, _len: u64, done: Done) {
        lock(&self.steps).push(Step::Unmap);
        if let Some(gate) = lock(&self.gate).take() {
            gate.recv().unwrap();
        }
        lock(&self.waiting).push_back(done);
    }
}

/// A device with one blob, resource 1, made of memory with these traits.
struct Life {
    device: Arc<Device>,
    mapper: Arc<SlowMapper>,
}

impl Life {
    fn new(host: MapCache, snooping: Snooping) -> Self {
        let steps = Steps::default();
        let log = Arc::clone(&steps);
        Self::with_flusher(host, snooping, steps, move |memory| {
            lock(&log).push(Step::Flush(memory.len()));
            Ok(())
        })
    }

    fn with_flusher(
        host: MapCache,
        snooping: Snooping,
        steps: Steps,
        flush: impl Fn(&HostMemory) -> Result<(), FlushError> + Send + Sync + 'static,
    ) -> Self {
        let traits = Traits {
            host: Some(host),
            kinds: PageKinds::Ram,
            snooping,
            verified: true,
        };
        let flusher: Arc<dyn Flusher> = Arc::new(Recorder::new(flush));
        let mapper = Arc::new(SlowMapper {
            steps,
            ..SlowMapper::default()
        });
        let shared = SharedMemory {
            size: 1 << 20,
            mapper: Arc::<SlowMapper>::clone(&mapper),
            source: Arc::new(
                Source::of(Allocator::claiming(traits), Choice::default(), flusher).unwrap(),
            ),
            wayland: None,
        };
        let display = Arc::new(Display::new(Vec::new()));
        let life = Self {
            device: Device::new(Limits::default(), display, Some(shared), None),
            mapper,
        };
        life.create();
        life
    }

    fn create(&self) {
        let source = &self.device.shared_memory.as_ref().unwrap().source;
        let memory = source.image(BlobId(1), PAGES, true).unwrap();
        let blob = HostBlob::new(memory, true, ContextSerial(1));
        let resource = Resource::new(Storage::HostBlob(blob), None);
        let id = ResourceId::new(1).unwrap();
        self.device.state().resources.insert(id, resource);
    }

    /// Gives a command of one resource to the device.
    fn start(&self, code: u32, words: &[u32]) {
        let mut bytes = vec![0; 24];
        bytes[..4].copy_from_slice(&code.to_le_bytes());
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        let command = Request::parse(&bytes).command.unwrap();
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 4096)]).unwrap();
        let steps = Arc::clone(&self.mapper.steps);
        match self
            .device
            .control(&command, None, &memory, &mut Batch::default())
        {
            Verdict::Done(result) => lock(&steps).push(Step::Told(result)),
            Verdict::Parked(ticket) => self.device.when_done(
                ticket,
                Box::new(move |result| lock(&steps).push(Step::Told(result))),
            ),
        }
        self.device.verify_invariants().unwrap();
    }

    fn map(&self) {
        self.start(cmd::RESOURCE_MAP_BLOB, &[1, 0, 0, 0]);
    }

    fn unmap(&self) {
        self.start(cmd::RESOURCE_UNMAP_BLOB, &[1, 0]);
    }

    fn unref(&self) {
        self.start(cmd::RESOURCE_UNREF, &[1, 0]);
    }

    fn answer(&self, result: Result<(), MapError>) {
        self.mapper.answer(result);
        self.device.verify_invariants().unwrap();
    }

    #[track_caller]
    fn expect(&self, steps: &[Step]) {
        assert_eq!(std::mem::take(&mut *lock(&self.mapper.steps)), steps);
    }
}

const DONE: Step = Step::Told(Ok(Reply::OkNoData));
const WC: Step = Step::Map(MemslotRequest::Wc { noncoherent: true });

fn told(cache: MapCache) -> Step {
    Step::Told(Ok(Reply::OkMapInfo(cache)))
}

#[test]
fn noncoherent_memory_is_flushed_before_it_is_exposed_and_after() {
    let life = Life::new(MapCache::Wc, Snooping::No);
    life.map();
    life.expect(&[Step::Flush(PAGES), WC]);
    life.answer(Ok(()));
    life.expect(&[told(MapCache::Wc)]);
    // Between the first and the last time nothing is owed.
    life.unmap();
    life.answer(Ok(()));
    life.map();
    life.answer(Ok(()));
    life.expect(&[Step::Unmap, DONE, WC, told(MapCache::Wc)]);
    life.unref();
    life.expect(&[Step::Unmap]);
    // Not before the front-end has answered that it is unmapped.
    life.answer(Ok(()));
    life.expect(&[Step::Flush(PAGES), DONE]);
}

/// The front-end's thread may be about to ask for an unmap when the device is reset.
#[test]
fn after_a_reset_no_place_waits_for_an_unmap_that_is_yet_to_be_asked_for() {
    let life = Life::new(MapCache::Cached, Snooping::Yes);
    life.map();
    // Behind the map.
    life.unmap();
    let (open, gate) = mpsc::channel();
    *lock(&life.mapper.gate) = Some(gate);
    thread::scope(|scope| {
        scope.spawn(|| life.mapper.answer(Ok(())));
        while !lock(&life.mapper.steps).contains(&Step::Unmap) {
            thread::yield_now();
        }
        scope.spawn(move || {
            thread::sleep(Duration::from_millis(50));
            open.send(()).unwrap();
        });
        life.device.reset();
        lock(&life.mapper.steps).clear();
        life.create();
        life.map();
        life.expect(&[Step::Map(MemslotRequest::Cached)]);
    });
}

#[test]
fn coherent_memory_is_never_flushed() {
    let life = Life::new(MapCache::Cached, Snooping::Yes);
    life.map();
    life.answer(Ok(()));
    life.unref();
    life.answer(Ok(()));
    let cached = Step::Map(MemslotRequest::Cached);
    life.expect(&[cached, told(MapCache::Cached), Step::Unmap, DONE]);
}

#[test]
fn what_was_never_exposed_is_not_flushed() {
    let life = Life::new(MapCache::Wc, Snooping::No);
    life.unref();
    life.expect(&[DONE]);
}

#[test]
fn what_may_still_be_mapped_is_flushed_only_when_the_front_end_has_gone() {
    for unmapped in [Err(MapError::Lost), Err(MapError::Refused(1))] {
        let life = Life::new(MapCache::Wc, Snooping::No);
        life.map();
        life.answer(Ok(()));
        life.unref();
        life.expect(&[Step::Flush(PAGES), WC, told(MapCache::Wc), Step::Unmap]);
        life.answer(unmapped);
        life.expect(&[DONE]);
        let steps = Arc::clone(&life.mapper.steps);
        drop(life);
        assert_eq!(*lock(&steps), [Step::Flush(PAGES)]);
    }
}

#[test]
fn what_a_reset_left_behind_is_flushed_when_it_has_been_unmapped() {
    let life = Life::new(MapCache::Wc, Snooping::No);
    life.map();
    life.answer(Ok(()));
    life.device.reset();
    life.expect(&[Step::Flush(PAGES), WC, told(MapCache::Wc), Step::Unmap]);
    // At the same place, as what is asked now comes after that.
    life.create();
    life.map();
    life.expect(&[Step::Flush(PAGES), WC]);
    // QEMU had dropped it already.
    life.answer(Err(MapError::Refused(1)));
    life.expect(&[Step::Flush(PAGES)]);
    life.answer(Ok(()));
    life.expect(&[told(MapCache::Wc)]);
}

#[test]
fn memory_that_cannot_be_flushed_is_not_exposed() {
    let steps = Steps::default();
    let life = Life::with_flusher(MapCache::Wc, Snooping::No, steps, |_| {
        Err(FlushError::Unavailable("not here"))
    });
    for _ in 0..2 {
        life.map();
        life.expect(&[Step::Told(Err(GpuError::Unspec))]);
    }
    life.unref();
    life.expect(&[DONE]);
}

/// A flusher that fails the times that are counted here, and tells of the others.
fn faulty(steps: &Steps) -> (Arc<AtomicUsize>, Life) {
    let failures = Arc::new(AtomicUsize::new(0));
    let (left, log) = (Arc::clone(&failures), Arc::clone(steps));
    let fails = move || {
        left.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1))
            .is_ok()
    };
    let life = Life::with_flusher(
        MapCache::Wc,
        Snooping::No,
        Arc::clone(steps),
        move |memory| {
            if fails() {
                return Err(FlushError::Unavailable("for a while"));
            }
            lock(&log).push(Step::Flush(memory.len()));
            Ok(())
        },
    );
    (failures, life)
}

#[test]
fn memory_that_cannot_be_flushed_any_more_stays_the_guests_until_it_can_be() {
    let steps = Steps::default();
    let (failures, life) = faulty(&steps);
    let hostmem = || life.device.state().hostmem();
    let expose_and_forget = || {
        life.map();
        life.answer(Ok(()));
        life.unref();
        life.expect(&[Step::Flush(PAGES), WC, told(MapCache::Wc), Step::Unmap]);
    };
    expose_and_forget();
    failures.store(1, SeqCst);
    life.answer(Ok(()));
    life.expect(&[DONE]);
    assert_eq!(hostmem(), PAGES);
    // Another blob's release is when it is tried again; here in vain, and for both.
    life.create();
    expose_and_forget();
    failures.store(2, SeqCst);
    life.answer(Ok(()));
    life.expect(&[DONE]);
    assert_eq!(hostmem(), 2 * PAGES);
    // Blobs that were never exposed do as well: one is freed with each.
    life.create();
    life.unref();
    life.expect(&[Step::Flush(PAGES), DONE]);
    assert_eq!(hostmem(), PAGES);
    // A reset lets the guest's counters alone, and the end of the connection tries the rest.
    life.device.reset();
    assert_eq!(hostmem(), PAGES);
    drop(life);
    assert_eq!(*lock(&steps), [Step::Flush(PAGES)]);
}

#[test]
fn what_is_kept_counts_against_both_quotas() {
    let steps = Steps::default();
    let (failures, life) = faulty(&steps);
    life.map();
    life.answer(Ok(()));
    life.unref();
    failures.store(usize::MAX, SeqCst);
    life.answer(Ok(()));
    let mut state = life.device.state();
    assert_eq!(
        state.kept(),
        Kept {
            pieces: 1,
            bytes: PAGES
        }
    );
    state.limits.hostmem = 2 * PAGES;
    assert_eq!(state.check_hostmem(PAGES, 0), Ok(()));
    let over = Err(GpuError::OutOfMemory);
    assert_eq!(state.check_hostmem(PAGES + 1, 0), over);
    state.limits.hostmem = 0;
    assert_eq!(state.verify_invariants(), Ok(()));
}

#[test]
fn a_reset_asks_for_nothing_that_is_not_mapped() {
    for (answer, after) in [
        // Nothing was mapped.
        (Err(MapError::Refused(1)), vec![Step::Flush(PAGES)]),
        (Err(MapError::Unavailable), vec![Step::Flush(PAGES)]),
        // It may have been.
        (Err(MapError::Lost), vec![]),
        (Ok(()), vec![Step::Unmap]),
    ] {
        let life = Life::new(MapCache::Wc, Snooping::No);
        life.map();
        life.device.reset();
        let failed = Step::Told(Err(GpuError::Unspec));
        life.expect(&[Step::Flush(PAGES), WC, failed]);
        life.answer(answer);
        life.expect(&after);
    }
    // What is being unmapped is not asked for twice.
    let life = Life::new(MapCache::Wc, Snooping::No);
    life.map();
    life.answer(Ok(()));
    life.unmap();
    life.device.reset();
    let failed = Step::Told(Err(GpuError::Unspec));
    life.expect(&[
        Step::Flush(PAGES),
        WC,
        told(MapCache::Wc),
        Step::Unmap,
        failed,
    ]);
    life.answer(Ok(()));
    life.expect(&[Step::Flush(PAGES)]);
}

#[test]
fn what_is_given_up_is_done_all_the_same() {
    let life = Life::new(MapCache::Cached, Snooping::NoDevice);
    life.map();
    life.unref();
    life.device.abandon_parked();
    // A map must not stay that the guest was told had failed; the resource goes.
    let mapped = Step::Map(MemslotRequest::Cached);
    let mut steps = std::mem::take(&mut *lock(&life.mapper.steps));
    assert_eq!(steps.remove(0), mapped);
    assert_eq!(steps.len(), 2);
    assert!(steps.contains(&DONE) && steps.contains(&Step::Told(Err(GpuError::Unspec))));
    life.answer(Ok(()));
    life.expect(&[Step::Unmap]);
    life.answer(Ok(()));
    assert!(life.device.state().resources.iter().next().is_none());
    assert_eq!(life.device.state().hostmem(), 0);
}

#[test]
fn memory_that_is_lost_counts_once() {
    let life = Life::new(MapCache::Cached, Snooping::NoDevice);
    life.map();
    life.answer(Err(MapError::Lost));
    assert_eq!(life.device.state().hostmem(), PAGES);
    life.unref();
    // The guest may still reach it.
    assert_eq!(life.device.state().hostmem(), PAGES);
}
