//! Commands whose answer comes later.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use nosnoop_protocol::reply::{GpuError, Reply};

use crate::sync::lock;

/// Names a parked command; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(u64);

/// Takes a parked command's result to the guest. Called once, with no lock of the device held.
pub type Answer = Box<dyn FnOnce(Result<Reply, GpuError>) + Send>;

/// An answer and what it is to say. The guest is not told before it is dropped.
pub(super) struct Resolved {
    answer: Answer,
    result: Result<Reply, GpuError>,
    _under_way: UnderWay,
}

impl Resolved {
    pub(super) fn deliver(self) {
        (self.answer)(self.result);
    }
}

/// How many answers are on their way to the guest, and other effects of what was changed.
#[derive(Clone, Default)]
pub(super) struct Deliveries(Arc<(Mutex<Count>, Condvar)>);

#[derive(Default)]
struct Count {
    under_way: usize,
    /// Those who wait until there are none; waking nobody costs a system call.
    waiting: usize,
}

impl Deliveries {
    pub(super) fn begin(&self) -> UnderWay {
        let mut count = lock(&self.0.0);
        count.under_way = count.under_way.saturating_add(1);
        UnderWay(self.clone())
    }

    /// Waits until all that were begun have reached the guest or are done.
    pub(super) fn wait(&self) {
        let mut count = lock(&self.0.0);
        count.waiting = count.waiting.saturating_add(1);
        while count.under_way > 0 {
            let waited = self.0.1.wait(count);
            count = waited.unwrap_or_else(PoisonError::into_inner);
        }
        count.waiting = count.waiting.saturating_sub(1);
    }
}

/// Something is under way until this is dropped.
pub(super) struct UnderWay(Deliveries);

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut count = lock(&self.0.0.0);
        count.under_way = count.under_way.saturating_sub(1);
        if count.under_way == 0 && count.waiting > 0 {
            self.0.0.1.notify_all();
        }
    }
}

impl Promise {
    fn given_up(self) -> Result<Reply, GpuError> {
        match self {
            Self::Result => Err(GpuError::Unspec),
            Self::Success | Self::Fence | Self::All(_) => Ok(Reply::OkNoData),
        }
    }
}

/// The parked commands. There are as many as chains in the ring at most.
#[derive(Default)]
pub(super) struct Parked {
    table: HashMap<Ticket, Command>,
    deliveries: Deliveries,
    next: u64,
}

struct Command {
    stage: Stage,
    promise: Promise,
}

/// When a command is done, and what the guest is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Promise {
    /// The one result that comes, or an error if the command is given up.
    Result,
    /// The one result that comes. What is given up is done all the same, so it is a success.
    Success,
    /// The same, and it is a fence of the renderer's that the result comes with.
    Fence,
    /// A success, when this many results have come, whatever they are; at least one.
    All(usize),
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
    pub(super) fn open(&mut self, promise: Promise) -> Ticket {
        let ticket = Ticket(self.next);
        self.next = self.next.wrapping_add(1);
        let stage = Stage::Opened;
        self.table.insert(ticket, Command { stage, promise });
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

    /// Whether one waits for a fence.
    pub(super) fn has_fences(&self) -> bool {
        let mut commands = self.table.values();
        commands.any(|command| command.promise == Promise::Fence)
    }

    /// Says how to answer; if the result is known already, it is returned to be answered now.
    pub(super) fn wait(&mut self, ticket: Ticket, answer: Answer) -> Option<Resolved> {
        match self.table.remove(&ticket) {
            Some(Command {
                stage: Stage::Known(result),
                ..
            }) => Some(self.resolved(answer, result)),
            Some(command) => {
                let stage = Stage::Waiting(answer);
                self.table.insert(ticket, Command { stage, ..command });
                None
            }
            None => Some(self.resolved(answer, Err(GpuError::Unspec))),
        }
    }

    /// A result has come. Nothing happens for a command that was given up, or that others are
    /// still awaited for.
    pub(super) fn resolve(
        &mut self,
        ticket: Ticket,
        result: Result<Reply, GpuError>,
    ) -> Option<Resolved> {
        let command = self.table.get_mut(&ticket)?;
        let result = match &mut command.promise {
            Promise::Result | Promise::Success | Promise::Fence => result,
            Promise::All(left) => {
                *left = left.saturating_sub(1);
                if *left > 0 {
                    return None;
                }
                Ok(Reply::OkNoData)
            }
        };
        match self.table.remove(&ticket)? {
            Command {
                stage: Stage::Waiting(answer),
                ..
            } => Some(self.resolved(answer, result)),
            mut early => {
                early.stage = Stage::Known(result);
                self.table.insert(ticket, early);
                None
            }
        }
    }

    /// Gives up on all of them: they are to be answered now.
    pub(super) fn abandon(&mut self) -> Vec<Resolved> {
        let commands: Vec<_> = self.table.drain().map(|(_, command)| command).collect();
        let answers = commands
            .into_iter()
            .filter_map(|command| match command.stage {
                Stage::Waiting(answer) => Some((answer, command.promise.given_up())),
                Stage::Opened | Stage::Known(_) => None,
            });
        answers
            .map(|(answer, result)| self.resolved(answer, result))
            .collect()
    }

    /// The answers on their way.
    pub(super) fn deliveries(&self) -> Deliveries {
        self.deliveries.clone()
    }

    fn resolved(&self, answer: Answer, result: Result<Reply, GpuError>) -> Resolved {
        Resolved {
            answer,
            result,
            _under_way: self.deliveries.begin(),
        }
    }
}
