//! Commands whose answer comes later.

use std::collections::HashMap;

use nosnoop_protocol::reply::{GpuError, Reply};

/// Names a parked command; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(u64);

/// Takes a parked command's result to the guest. Called once, with no lock of the device held.
pub type Answer = Box<dyn FnOnce(Result<Reply, GpuError>) + Send>;

/// An answer and what it is to say.
pub(super) type Resolved = (Answer, Result<Reply, GpuError>);

/// The parked commands. There are as many as chains in the ring at most.
#[derive(Default)]
pub(super) struct Parked {
    table: HashMap<Ticket, Stage>,
    next: u64,
}

#[expect(
    clippy::large_enum_variant,
    reason = "one for each parked command, of which there are few"
)]
enum Stage {
    /// The caller of [`Parked::open`] has not said yet how to answer.
    Opened,
    /// The result was there before that.
    Known(Result<Reply, GpuError>),
    Waiting(Answer),
}

impl std::fmt::Debug for Parked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Parked({})", self.table.len())
    }
}

impl Parked {
    pub(super) fn open(&mut self) -> Ticket {
        let ticket = Ticket(self.next);
        self.next = self.next.wrapping_add(1);
        self.table.insert(ticket, Stage::Opened);
        ticket
    }

    /// The command was answered at once.
    pub(super) fn cancel(&mut self, ticket: Ticket) {
        self.table.remove(&ticket);
    }

    /// Whether the guest still waits for it.
    pub(super) fn is_open(&self, ticket: Ticket) -> bool {
        self.table.contains_key(&ticket)
    }

    /// Says how to answer; if the result is known already, it is returned to be answered now.
    pub(super) fn wait(&mut self, ticket: Ticket, answer: Answer) -> Option<Resolved> {
        match self.table.remove(&ticket) {
            Some(Stage::Known(result)) => Some((answer, result)),
            _ => {
                self.table.insert(ticket, Stage::Waiting(answer));
                None
            }
        }
    }

    /// The result has come. Nothing happens for a command that was given up.
    pub(super) fn resolve(
        &mut self,
        ticket: Ticket,
        result: Result<Reply, GpuError>,
    ) -> Option<Resolved> {
        match self.table.remove(&ticket)? {
            Stage::Waiting(answer) => Some((answer, result)),
            Stage::Opened | Stage::Known(_) => {
                self.table.insert(ticket, Stage::Known(result));
                None
            }
        }
    }

    /// Gives up on all of them: they are to be answered with an error now.
    pub(super) fn abandon(&mut self) -> Vec<Resolved> {
        let waiting = self.table.drain().filter_map(|(_, stage)| match stage {
            Stage::Waiting(answer) => Some((answer, Err(GpuError::Unspec))),
            Stage::Opened | Stage::Known(_) => None,
        });
        waiting.collect()
    }
}
