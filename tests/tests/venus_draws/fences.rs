//! Fences on the rings of Venus contexts, behind work that takes its time.

use super::compute::Writer;
use super::kit::{self, QUEUE_RING, device};
use nosnoop_tests::frontend::batch::Batch;
use nosnoop_tests::frontend::request::{self, FLAG_FENCE, FLAG_INFO_RING_IDX};
use nosnoop_tests::frontend::response::resp;
use nosnoop_tests::frontend::three_d::{Line, fenced_submit};
use nosnoop_tests::frontend::venus::{Device, Venus, Words, submit};
use nosnoop_tests::frontend::{Response, Result, Rig};

/// A context with a shader to run, and the words that run it.
struct Worker {
    venus: Venus,
    device: Device,
    writer: Writer,
    work: Words,
}

/// The seed of a context's pattern.
fn seed(id: u32) -> u32 {
    0x5eed_0000 + id
}

impl Worker {
    fn new(rig: &mut Rig, id: u32) -> Result<Self> {
        let (mut venus, device) = device(rig, id)?;
        let writer = Writer::new(rig, &mut venus, &device)?;
        let commands = writer.record(rig, &mut venus, &device, seed(id))?;
        let work = submit(&device, commands);
        Ok(Worker {
            venus,
            device,
            writer,
            work,
        })
    }

    /// Checks what the shader has written.
    fn check(&mut self, rig: &mut Rig) -> Result<()> {
        let seed = seed(self.venus.id);
        self.writer.check(rig, &mut self.venus, &self.device, seed)
    }
}

/// All were answered well, in order where `of` says so.
#[track_caller]
fn assert_in_order(answers: &[(usize, Response)], of: impl Fn(usize) -> bool) {
    for (at, answer) in answers {
        assert_eq!(answer.kind(), resp::OK_NODATA, "request {at}");
    }
    let order = answers.iter().map(|(at, _)| *at).filter(|at| of(*at));
    let order = order.collect::<Vec<_>>();
    assert!(order.is_sorted(), "answered in the order {order:?}");
}

#[test]
fn sixty_four_fences_on_a_queues_ring_complete_in_order() -> Result<()> {
    let Some(mut rig) = kit::start() else {
        return Ok(());
    };
    let mut worker = Worker::new(&mut rig, 1)?;
    let mut batch = Batch::default();
    // Ids of the guest's own liking, not rising.
    let id = |n: u64| (n << 32) + 1000 - n;
    for n in 0..64 {
        let request = fenced_submit(1, worker.work.bytes(), id(n), Line::Ring(QUEUE_RING));
        batch.push(&mut rig.gpu, &request)?;
    }
    let answers = batch.answers(&mut rig.gpu)?;
    assert_in_order(&answers, |_| true);
    for (at, answer) in &answers {
        assert_eq!(answer.fence_id(), id(*at as u64));
        let flags = (answer.flags(), answer.ring_idx());
        assert_eq!(flags, (FLAG_FENCE | FLAG_INFO_RING_IDX, QUEUE_RING));
    }
    worker.check(&mut rig)?;
    rig.finish()
}

#[test]
fn two_contexts_at_once_have_orders_of_their_own() -> Result<()> {
    let Some(mut rig) = kit::start() else {
        return Ok(());
    };
    let mut workers = [Worker::new(&mut rig, 1)?, Worker::new(&mut rig, 2)?];
    let mut batch = Batch::default();
    // By turns the queues of both contexts and what is read at once, the same ids on each line.
    for n in 0..128_usize {
        let worker = &workers[n % 2];
        let ring = if n % 4 < 2 { QUEUE_RING } else { 0 };
        let line = Line::Ring(ring);
        let request = fenced_submit(worker.venus.id, worker.work.bytes(), n as u64 / 4, line);
        batch.push(&mut rig.gpu, &request)?;
    }
    let answers = batch.answers(&mut rig.gpu)?;
    for line in 0..4 {
        assert_in_order(&answers, |at| at % 4 == line);
    }
    for (at, answer) in &answers {
        assert_eq!(answer.context(), workers[at % 2].venus.id);
        assert_eq!(answer.fence_id(), *at as u64 / 4);
    }
    for worker in &mut workers {
        worker.venus.fenced(&mut rig, &Words::new(), QUEUE_RING)?;
        worker.check(&mut rig)?;
    }
    rig.finish()
}

#[test]
fn a_context_that_goes_takes_its_fences_with_it() -> Result<()> {
    let Some(mut rig) = kit::start() else {
        return Ok(());
    };
    let mut stays = Worker::new(&mut rig, 1)?;
    let goes = Worker::new(&mut rig, 2)?;
    let mut batch = Batch::default();
    for n in 0..32 {
        let request = fenced_submit(2, goes.work.bytes(), n, Line::Ring(QUEUE_RING));
        batch.push(&mut rig.gpu, &request)?;
    }
    batch.push(&mut rig.gpu, &request::ctx_destroy(2))?;
    assert_in_order(&batch.answers(&mut rig.gpu)?, |at| at < 32);
    stays.venus.fenced(&mut rig, &stays.work, QUEUE_RING)?;
    stays.check(&mut rig)?;
    rig.finish()
}
