//! The driver on a ring whose device is the test.

use std::sync::Arc;

use super::*;
use crate::frontend::memory::GuestRam;
use crate::frontend::queue::CommandQueue;
use crate::frontend::request;
use crate::frontend::response::resp;
use crate::frontend::ring::SplitRing;

/// Entries of the ring: few, so that it wraps around.
const SIZE: u16 = 8;

struct Rig {
    gpu: Gpu,
    ram: Arc<GuestRam>,
    driver: Driver,
    completed: u16,
}

/// A driver of three commands, the last two of them fenced; the first fence it sends is 9.
fn rig(event_idx: bool) -> Rig {
    let ram = GuestRam::new(&[(0, 1 << 20)]).unwrap();
    let queue = |index| {
        let ring = SplitRing::new(&ram, index, SIZE, event_idx).unwrap();
        CommandQueue::new(ram.clone(), ring)
    };
    let (control, cursor) = (queue(0), queue(1));
    let mut gpu = Gpu {
        ram: ram.clone(),
        control,
        cursor,
    };
    let fenced = |id| request::get_display_info().fenced(id);
    let commands = [request::unref(1), fenced(7), fenced(8)].map(|request| Prepared {
        name: "COMMAND",
        request: request.to_vec(),
        room: HEADER,
        expected: resp::OK_NODATA,
    });
    let mut driver = Driver::new(&mut gpu, event_idx, &commands).unwrap();
    driver.patience = Duration::from_millis(20);
    Rig {
        gpu,
        ram,
        driver,
        completed: 0,
    }
}

impl Rig {
    /// Answers a command with a response type and a fence, and interrupts.
    fn complete(&mut self, slot: usize, kind: u32, fence: Option<u64>) {
        let head = self.driver.slots[slot].head;
        let answer = self.driver.answers.addr + self.driver.slots[slot].answer as u64;
        self.ram.write(answer, &kind.to_le_bytes()).unwrap();
        let flags = u32::from(fence.is_some());
        self.ram.write(answer + 4, &flags.to_le_bytes()).unwrap();
        let fence = fence.unwrap_or(0).to_le_bytes();
        self.ram.write(answer + 8, &fence).unwrap();
        self.push_used(u32::from(head), HEADER as u32);
    }

    fn push_used(&mut self, head: u32, len: u32) {
        let used = self.driver.used.addr;
        let entry = used + 4 + 8 * u64::from(self.completed % SIZE);
        self.ram.write(entry, &head.to_le_bytes()).unwrap();
        self.ram.write(entry + 4, &len.to_le_bytes()).unwrap();
        self.completed = self.completed.wrapping_add(1);
        let index = self.completed.to_le_bytes();
        self.ram.write(used + 2, &index).unwrap();
        rustix::io::write(&self.driver.call, &1_u64.to_ne_bytes()).unwrap();
    }

    fn kicks(&mut self) -> u64 {
        let mut count = [0; 8];
        let read = rustix::io::read(self.gpu.control.ring().kick_fd(), &mut count);
        read.map_or(0, |_| u64::from_ne_bytes(count))
    }
}

#[test]
fn answered_commands_are_collected_around_the_end_of_the_ring() {
    let mut rig = rig(false);
    for round in 0..10 {
        rig.driver.publish(0..3).unwrap();
        assert_eq!(rig.kicks(), 1, "{round}");
        let published = rig.ram.load_u16(rig.driver.available.addr + 2).unwrap();
        assert_eq!(published, 3 * (round + 1));
        rig.complete(0, resp::OK_NODATA, None);
        let fence = 9 + 2 * u64::from(round);
        rig.complete(1, resp::OK_NODATA, Some(fence));
        rig.complete(2, resp::OK_NODATA, Some(fence + 1));
        rig.driver.collect(0..3).unwrap();
    }
}

#[test]
fn an_error_answer_is_no_fast_answer() {
    let mut rig = rig(false);
    rig.driver.publish(0..1).unwrap();
    rig.complete(0, resp::ERR_INVALID_PARAMETER, None);
    let error = rig.driver.collect(0..1).unwrap_err();
    assert!(
        matches!(error, Error::Refused { got: 0x1205, .. }),
        "{error}"
    );
}

#[test]
fn the_answer_of_the_last_round_does_not_count_again() {
    let mut rig = rig(false);
    rig.driver.publish(0..1).unwrap();
    rig.complete(0, resp::OK_NODATA, None);
    rig.driver.collect(0..1).unwrap();
    rig.driver.publish(0..1).unwrap();
    let head = rig.driver.slots[0].head;
    rig.push_used(u32::from(head), HEADER as u32);
    let error = rig.driver.collect(0..1).unwrap_err();
    assert!(matches!(error, Error::Refused { got: 0, .. }), "{error}");
}

#[test]
fn a_fence_must_come_back() {
    for answer in [None, Some(7), Some(10)] {
        let mut rig = rig(false);
        rig.driver.publish(1..2).unwrap();
        rig.complete(1, resp::OK_NODATA, answer);
        let error = rig.driver.collect(1..2).unwrap_err();
        assert!(matches!(error, Error::Ring { .. }), "{answer:?}: {error}");
    }
}

#[test]
fn no_two_commands_are_sent_with_the_same_fence() {
    let mut rig = rig(false);
    let mut seen = Vec::new();
    for _ in 0..3 {
        rig.driver.publish(1..3).unwrap();
        for slot in [1, 2] {
            let at = rig.driver.slots[slot].request + FENCE_ID;
            let bytes = rig.ram.read(at, 8).unwrap();
            let fence = u64::from_le_bytes(bytes.try_into().unwrap());
            seen.push(fence);
            rig.complete(slot, resp::OK_NODATA, Some(fence));
        }
        rig.driver.collect(1..3).unwrap();
    }
    assert_eq!(seen, [9, 10, 11, 12, 13, 14]);
}

#[test]
fn completions_may_come_in_any_order() {
    let mut rig = rig(false);
    rig.driver.publish(0..1).unwrap();
    rig.driver.publish(1..3).unwrap();
    rig.complete(2, resp::OK_NODATA, Some(10));
    assert!(rig.driver.collect(0..1).unwrap_err().is_timeout());
    rig.complete(0, resp::OK_NODATA, None);
    rig.driver.collect(0..1).unwrap();
    assert!(rig.driver.collect(1..3).unwrap_err().is_timeout());
    rig.complete(1, resp::OK_NODATA, Some(9));
    rig.driver.collect(1..3).unwrap();
}

#[test]
fn a_command_is_answered_once() {
    let mut rig = rig(false);
    rig.driver.publish(0..3).unwrap();
    for _ in 0..3 {
        rig.complete(0, resp::OK_NODATA, None);
    }
    let error = rig.driver.collect(0..3).unwrap_err();
    assert!(!error.is_timeout(), "{error}");
}

#[test]
fn completions_of_nothing_and_without_a_header_are_refused() {
    let mut unknown = rig(false);
    unknown.driver.publish(0..1).unwrap();
    let other = unknown.driver.slots[2].head;
    unknown.push_used(u32::from(other), HEADER as u32);
    assert!(matches!(
        unknown.driver.collect(0..1),
        Err(Error::Ring { .. })
    ));

    let mut short = rig(false);
    short.driver.publish(0..1).unwrap();
    let head = short.driver.slots[0].head;
    short.push_used(u32::from(head), 8);
    assert!(matches!(
        short.driver.collect(0..1),
        Err(Error::Ring { .. })
    ));
}

#[test]
fn a_device_that_is_silent_is_given_up() {
    let mut rig = rig(false);
    rig.driver.publish(0..3).unwrap();
    rig.complete(0, resp::OK_NODATA, None);
    assert!(rig.driver.collect(0..3).unwrap_err().is_timeout());
}

#[test]
fn with_event_idx_each_side_is_woken_when_it_asked() {
    let mut rig = rig(true);
    let event = rig.driver.used.addr + 4 + 8 * u64::from(SIZE);
    // The device has not asked since the last entry before these: it is awake.
    rig.ram.write(event, &u16::MAX.to_le_bytes()).unwrap();
    rig.driver.publish(2..3).unwrap();
    assert_eq!(rig.kicks(), 0);
    rig.complete(2, resp::OK_NODATA, Some(9));
    rig.driver.collect(2..3).unwrap();
    // "Tell me of entry 2", which is the second from here.
    rig.ram.write(event, &2_u16.to_le_bytes()).unwrap();
    rig.driver.publish(0..1).unwrap();
    assert_eq!(rig.kicks(), 0);
    rig.driver.publish(1..2).unwrap();
    assert_eq!(rig.kicks(), 1);
    // Nothing is done yet: the driver asks to be told of the second.
    let asked = rig.driver.available.addr + 4 + 2 * u64::from(SIZE);
    rig.complete(0, resp::OK_NODATA, None);
    assert!(rig.driver.collect(0..2).unwrap_err().is_timeout());
    assert_eq!(rig.ram.load_u16(asked).unwrap(), 2);
    rig.complete(1, resp::OK_NODATA, Some(10));
    rig.driver.collect(0..2).unwrap();
}

#[test]
fn a_patched_request_is_what_the_device_reads() {
    let mut rig = rig(false);
    rig.driver.patch(0, 24, &9_u32.to_le_bytes()).unwrap();
    let [descriptors, ..] = rig.gpu.control.ring().parts();
    let first = descriptors.addr + 16 * u64::from(rig.driver.slots[0].head);
    let address = rig.ram.read(first, 8).unwrap();
    let at = u64::from_le_bytes(address.try_into().unwrap());
    let read = rig.ram.read(at, 28).unwrap();
    assert_eq!(read[24..28], 9_u32.to_le_bytes());
    assert_eq!(read[..4], request::cmd::RESOURCE_UNREF.to_le_bytes());
}
