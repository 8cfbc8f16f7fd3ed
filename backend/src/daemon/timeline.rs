//! Fences in order: on one timeline no fenced command is answered before an earlier one.
//!
//! Most commands are done when they have been executed, and their answers are in order by
//! themselves. A parked one holds back those behind it that carry a fence of the same timeline
//! (virtio 1.4, "GPU Device / Device Operation: Request header": the device's own timeline, or one per
//! context and ring).

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use nosnoop_protocol::command::Header;
use nosnoop_protocol::ids::{ContextId, RingIdx};

use crate::planted::{Bug, planted};
use crate::sync::lock;

/// Takes an answer to the guest. Called with the timelines locked.
type Deliver = Box<dyn FnOnce() + Send>;

/// Commands with the same key are answered in order.
type Key = Option<(Option<ContextId>, RingIdx)>;

/// A command's place on its timeline.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    key: Key,
    number: u64,
}

/// Commands in order, with their answers once these are there.
type Line = VecDeque<(u64, Option<Deliver>)>;

/// The timeline of a command with a fence.
fn key(header: &Header) -> Option<Key> {
    let ring = header.fence()?.ring;
    Some(ring.map(|ring| (header.context(), ring)))
}

/// The next place on a timeline.
fn place(key: Key, line: &mut Line) -> Place {
    let number = line.back().map_or(0, |(number, _)| number.wrapping_add(1));
    line.push_back((number, None));
    Place { key, number }
}

/// The timelines on which something is parked.
#[derive(Default)]
pub(super) struct Timelines {
    table: Mutex<HashMap<Key, Line>>,
}

impl Timelines {
    /// The place of a command that is parked; `None` if it carries no fence.
    pub(super) fn park(&self, header: &Header) -> Option<Place> {
        let key = key(header)?;
        let mut table = lock(&self.table);
        Some(place(key, table.entry(key).or_default()))
    }

    /// The place of a command that is done but must wait for parked ones; `None` if it need not.
    pub(super) fn queue(&self, header: &Header) -> Option<Place> {
        let key = key(header)?;
        if planted(Bug::FencesOvertake) {
            return None;
        }
        let mut table = lock(&self.table);
        Some(place(key, table.get_mut(&key)?))
    }

    /// Delivers an answer when all before it on its timeline have been, perhaps now. Without a place
    /// it is delivered now.
    pub(super) fn deliver(&self, place: Option<Place>, deliver: impl FnOnce() + Send + 'static) {
        let Some(Place { key, number }) = place else {
            return deliver();
        };
        // Locked until it is done: who comes meanwhile must not overtake.
        let mut table = lock(&self.table);
        let Some(line) = table.get_mut(&key) else {
            return deliver();
        };
        match line.iter_mut().find(|(other, _)| *other == number) {
            Some((_, slot)) => *slot = Some(Box::new(deliver)),
            None => deliver(),
        }
        while line.front().is_some_and(|(_, deliver)| deliver.is_some()) {
            if let Some((_, Some(deliver))) = line.pop_front() {
                deliver();
            }
        }
        if line.is_empty() {
            table.remove(&key);
        }
    }
}
