//! Contexts that do not get on: with work that takes long, or that wait for themselves.

use super::compute::Writer;
use super::kit::{self, QUEUE_RING, check_lives, context, device};
use nosnoop_tests::frontend::queue::Ticket;
use nosnoop_tests::frontend::request::{ctx_destroy, submit_3d};
use nosnoop_tests::frontend::response::resp;
use nosnoop_tests::frontend::three_d::{Line, fenced_submit};
use nosnoop_tests::frontend::venus::ring::wait_virtqueue;
use nosnoop_tests::frontend::venus::{Ring, Venus, submit};
use nosnoop_tests::frontend::{Result, Rig};

/// Fences behind long work: seconds of it, together.
const FENCES: u16 = 32;

/// Makes context 2 and submits long work to its queue, with a fence behind each.
fn long_work(rig: &mut Rig) -> Result<Vec<Ticket>> {
    let (mut venus, made) = device(rig, 2)?;
    let writer = Writer::new(rig, &mut venus, &made)?;
    let commands = writer.record_long(rig, &mut venus, &made)?;
    let work = submit(&made, commands);
    let before = rig.gpu.control.ring().used_index()?;
    let mut tickets = Vec::new();
    for n in 0..FENCES {
        let request = fenced_submit(2, work.bytes(), u64::from(n), Line::Ring(QUEUE_RING));
        tickets.push(rig.gpu.queue(&request)?);
    }
    rig.gpu.control.kick()?;
    let done = rig.gpu.control.ring().used_index()?.wrapping_sub(before);
    assert!(done < FENCES, "all is done already");
    Ok(tickets)
}

#[test]
fn a_context_that_goes_answers_for_work_that_takes_long() -> Result<()> {
    let Some(mut rig) = kit::start() else {
        return Ok(());
    };
    let mut others = [context(&mut rig, 1)?];
    let mut tickets = long_work(&mut rig)?;
    tickets.push(rig.gpu.queue(&ctx_destroy(2))?);
    rig.gpu.finish(&tickets)?;
    let gone = submit_3d(2, &[]);
    assert_eq!(rig.gpu.answer(&gone)?, resp::ERR_INVALID_CONTEXT_ID);
    check_lives(&mut rig, &mut others)?;
    rig.finish()
}

#[test]
fn a_reset_with_work_outstanding_leaves_a_fresh_device() -> Result<()> {
    let Some(mut rig) = kit::start() else {
        return Ok(());
    };
    for _ in 0..2 {
        long_work(&mut rig)?;
        // Nobody waits for it.
        check_lives(&mut rig, &mut [])?;
        rig.reset_device()?;
        assert_eq!(rig.gpu.control.ring().used_index()?, 0);
        let gone = submit_3d(2, &[]);
        assert_eq!(rig.gpu.answer(&gone)?, resp::ERR_INVALID_CONTEXT_ID);
        rig.shmem().drop_mappings();
        check_lives(&mut rig, &mut [])?;
    }
    rig.finish()
}

/// Makes a context in which a ring waits for what is submitted, which waits for the ring.
fn waits_for_itself(rig: &mut Rig) -> Result<Venus> {
    let mut venus = context(rig, 2)?;
    let mut ring = Ring::new(rig, &mut venus, 500, 1 << 30, 0)?;
    let tail = ring.write(rig, wait_virtqueue(u64::MAX).bytes());
    ring.publish(rig, tail)?;
    venus.send(rig, &ring.wait(tail))?;
    Ok(venus)
}

#[test]
fn a_context_that_waits_for_itself_holds_nobody_up() -> Result<()> {
    let Some(mut rig) = kit::start() else {
        return Ok(());
    };
    let mut others = [context(&mut rig, 1)?];
    waits_for_itself(&mut rig)?;
    let fence = fenced_submit(2, &[], 7, Line::Ring(0));
    let waiting = rig.gpu.queue(&fence)?;
    rig.gpu.control.kick()?;
    check_lives(&mut rig, &mut others)?;
    let going = rig.gpu.queue(&ctx_destroy(2))?;
    rig.gpu.finish(&[waiting, going])?;
    check_lives(&mut rig, &mut others)?;
    rig.finish()
}
