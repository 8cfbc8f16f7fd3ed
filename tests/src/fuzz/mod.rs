//! Drives the device in process with arbitrary command bytes and rings, and checks after each step
//! that it holds together: state that agrees with itself, exactly one completion per chain, only
//! responses that the specification knows, a broken ring that stops alone and comes back.
//!
//! Everything follows from a seed, so a failure is repeated by running its seed again.

mod commands;
mod driver;
mod memory;
mod random;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use nosnoop_gpu::SharedGuestMemory;
use nosnoop_gpu::daemon::worker::{QueueKind, Worker};
use nosnoop_gpu::device::mapper::{Done, MapError, MapRequest, Mapper};
use nosnoop_gpu::device::quota::Limits;
use nosnoop_gpu::device::{Device, SharedMemory};
use nosnoop_gpu::display::{Display, OutputConfig};
use nosnoop_gpu::memory::flush::CacheFlusher;
use nosnoop_gpu::memory::source::{Choice, Source};
use nosnoop_protocol::geometry::Size;

use driver::Driver;
use random::Random;

/// Steps of one seed.
const STEPS: u32 = 400;

/// Few resources and little memory, so that the quotas are reached.
const LIMITS: Limits = Limits {
    hostmem: 2 << 20,
    resources: 6,
    descriptors: 24,
};

/// What one seed did, to see that a run reaches anything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Steps done.
    pub steps: u64,
    /// Responses of the `RESP_OK` kind.
    pub ok: u64,
    /// Host blobs mapped, among these.
    pub mapped: u64,
    /// Responses of the `RESP_ERR` kind.
    pub errors: u64,
    /// Chains returned without a response.
    pub bare: u64,
    /// Rings that stopped.
    pub stopped: u64,
}

impl Tally {
    /// Adds another seed's numbers.
    pub fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.ok += other.ok;
        self.mapped += other.mapped;
        self.errors += other.errors;
        self.bare += other.bare;
        self.stopped += other.stopped;
    }
}

/// Runs one seed.
///
/// # Errors
/// What did not hold, and at which step.
pub fn run_seed(seed: u64) -> Result<Tally, String> {
    let mut guest = Guest::new(seed);
    for step in 0..STEPS {
        let result = catch_unwind(AssertUnwindSafe(|| guest.step()));
        match result {
            Ok(Ok(())) => guest.tally.steps += 1,
            Ok(Err(what)) => return Err(format!("seed {seed}, step {step}: {what}")),
            Err(_) => return Err(format!("seed {seed}, step {step}: the device panicked")),
        }
    }
    Ok(guest.tally)
}

/// Bytes of the shared-memory region: few, so that ranges collide.
const REGION: u64 = 1 << 20;

/// A front-end that answers requests to map at once, and not always well.
struct MoodyMapper {
    random: Mutex<Random>,
}

impl MoodyMapper {
    fn answer(&self, done: Done) {
        let result = match self.random.lock().expect("no panic holds it").below(20) {
            0 => Err(MapError::Unavailable),
            1 => Err(MapError::Refused(1)),
            2 => Err(MapError::Lost),
            _ => Ok(()),
        };
        done(result);
    }
}

impl Mapper for MoodyMapper {
    fn usable(&self) -> bool {
        true
    }

    fn speaks_memtype(&self) -> bool {
        true
    }

    fn map(&self, request: MapRequest, done: Done) {
        assert!(request.len > 0 && request.len.is_multiple_of(4096));
        assert!(request.shm_offset.is_multiple_of(4096));
        assert!(request.shm_offset + request.len <= REGION, "{request:?}");
        self.answer(done);
    }

    fn unmap(&self, shm_offset: u64, len: u64, done: Done) {
        assert!(shm_offset + len <= REGION);
        self.answer(done);
    }
}

struct Queue {
    kind: QueueKind,
    driver: Driver,
    worker: Worker,
}

struct Guest {
    random: Random,
    memory: SharedGuestMemory,
    device: Arc<Device>,
    queues: [Queue; 2],
    tally: Tally,
}

impl Guest {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let memory = memory::guest_memory(true);
        memory::fill(&memory, &mut random);
        let memory = SharedGuestMemory::new(memory);
        let output = OutputConfig {
            size: Size {
                width: 640,
                height: 480,
            },
            refresh_hz: 60,
        };
        let display = Arc::new(Display::new(vec![output; 2]));
        let queue = |kind, base| Queue {
            kind,
            driver: Driver::new(&memory, base),
            worker: Worker::new(kind),
        };
        let queues = [
            queue(QueueKind::Control, 0),
            queue(QueueKind::Cursor, 0x4_0000),
        ];
        // Every other guest has shared memory.
        let source = Source::open(Choice::default(), Arc::new(CacheFlusher::default()));
        let source = Arc::new(source.expect("a page of plain memory"));
        let shared = random.once_in(2).then(|| SharedMemory {
            size: REGION,
            source,
            mapper: Arc::new(MoodyMapper {
                random: Mutex::new(Random::new(random.bits())),
            }),
            wayland: None,
        });
        let device = Device::new(LIMITS, display, shared, None);
        let mut guest = Self {
            random,
            memory,
            device,
            queues,
            tally: Tally::default(),
        };
        for request in commands::opening() {
            let queue = &mut guest.queues[0];
            queue.driver.submit(&mut guest.random, &request);
            queue
                .worker
                .drain(&queue.driver.ring, &guest.device, &guest.memory);
            queue.driver.used();
        }
        guest
    }

    fn step(&mut self) -> Result<(), String> {
        match self.random.below(200) {
            0 => self.device.reset(),
            1 => {
                // The front-end takes a region away or gives it back.
                let with_last = self.random.once_in(2);
                let memory = memory::guest_memory(with_last);
                memory::fill(&memory, &mut self.random);
                self.memory
                    .lock()
                    .map_err(|error| error.to_string())?
                    .replace(memory);
                self.queues
                    .iter_mut()
                    .for_each(|queue| queue.driver.restart());
            }
            n => self.request(n % 5 == 0)?,
        }
        self.device.verify_invariants()
    }

    fn request(&mut self, cursor: bool) -> Result<(), String> {
        let random = &mut self.random;
        let queue = &mut self.queues[usize::from(cursor)];
        let breaks = random.once_in(60);
        let malformed = !breaks && random.once_in(15);
        if breaks {
            queue.driver.break_ring(random);
        } else if malformed {
            queue.driver.submit_malformed(random);
        } else {
            let request = commands::request(random, cursor);
            queue.driver.submit(random, &request);
        }
        queue
            .worker
            .drain(&queue.driver.ring, &self.device, &self.memory);
        let used = queue.driver.used();
        if breaks {
            if !queue.driver.ring.broken() || !used.is_empty() {
                return Err(format!("a broken ring went on: {used:?}"));
            }
            self.tally.stopped += 1;
            queue.driver.restart();
            return Ok(());
        }
        let [answer] = used.as_slice() else {
            return Err(format!("{} completions for one chain", used.len()));
        };
        if malformed {
            // Descriptors at random can be a chain after all, whose response may have been written
            // anywhere, the rings included.
            self.tally.bare += 1;
            self.queues
                .iter_mut()
                .for_each(|queue| queue.driver.restart());
            return Ok(());
        }
        if answer.head != 0 || queue.driver.ring.broken() {
            return Err(format!(
                "{:?} queue: strange completion {answer:?}",
                queue.kind
            ));
        }
        match answer.response {
            Some(ok @ 0x1100..=0x1106) => {
                self.tally.ok += 1;
                self.tally.mapped += u64::from(ok == 0x1106);
            }
            Some(0x1200..=0x1205) => self.tally.errors += 1,
            None if answer.written == 0 => self.tally.bare += 1,
            _ => {
                return Err(format!(
                    "{:?} queue: no response is {answer:x?}",
                    queue.kind
                ));
            }
        }
        Ok(())
    }
}
