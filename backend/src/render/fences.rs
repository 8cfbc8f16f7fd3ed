//! Fences that a renderer has been asked for, and what is to be done when each is signalled.
//!
//! Guests choose 64-bit ids and may use one twice; renderers know 32 bits. So a fence has an id of ours
//! here, which ascends and wraps, and the guest's stays with the command that waits.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use nosnoop_protocol::ids::ContextId;

use super::{RenderError, Timeline};
use crate::sync::lock;

/// Called once when a fence is signalled, or will never be; with no lock of [`Fences`] held.
pub type Done = Box<dyn FnOnce(Result<(), RenderError>) + Send>;

/// The fences that are not signalled yet.
#[derive(Default)]
pub struct Fences {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    lines: HashMap<Timeline, VecDeque<(u32, Done)>>,
    last: u32,
    /// Nothing is signalled any more.
    closed: bool,
}

impl Fences {
    /// Takes note of a fence that is about to be made; its id, which is never 0. `None`, and `done`
    /// has been called, after [`Fences::close`].
    pub fn add(&self, timeline: Timeline, done: Done) -> Option<u32> {
        let mut state = lock(&self.state);
        if state.closed {
            drop(state);
            done(Err(RenderError::Gone));
            return None;
        }
        state.last = state.last.checked_add(1).unwrap_or(1);
        let id = state.last;
        state
            .lines
            .entry(timeline)
            .or_default()
            .push_back((id, done));
        Some(id)
    }

    /// A fence is signalled, and with it all before it on its timeline: renderers merge signals. Nothing
    /// happens for one that is not there.
    pub fn signal(&self, timeline: Timeline, id: u32) {
        let mut signalled = VecDeque::new();
        {
            let mut state = lock(&self.state);
            if let Some(line) = state.lines.get_mut(&timeline)
                && let Some(at) = line.iter().position(|(other, _)| *other == id)
            {
                let later = line.split_off(at.saturating_add(1));
                signalled = std::mem::replace(line, later);
                if line.is_empty() {
                    state.lines.remove(&timeline);
                }
            }
        }
        for (_, done) in signalled {
            done(Ok(()));
        }
    }

    /// A fence was not made after all.
    pub fn fail(&self, timeline: Timeline, id: u32, error: RenderError) {
        let failed = {
            let mut state = lock(&self.state);
            let line = state.lines.get_mut(&timeline);
            let failed = line.and_then(|line| {
                let at = line.iter().position(|(other, _)| *other == id)?;
                line.remove(at)
            });
            state.lines.retain(|_, line| !line.is_empty());
            failed
        };
        if let Some((_, done)) = failed {
            done(Err(error));
        }
    }

    /// A context has gone: its fences will not be signalled.
    pub fn drop_context(&self, context: ContextId) {
        let dropped = lock(&self.state).take_of(context);
        all_are(dropped, &RenderError::Dropped);
    }

    /// The process that draws for a context has ended: its fences fail.
    pub fn lose_context(&self, context: ContextId) {
        let lost = lock(&self.state).take_of(context);
        all_are(lost, &RenderError::Lost);
    }

    /// Everything has been reset: none of these fences will be signalled.
    pub fn drop_all(&self) {
        let dropped = lock(&self.state).take(|_| true);
        all_are(dropped, &RenderError::Dropped);
    }

    /// The renderer has gone: no fence is signalled any more, nor can one be added.
    pub fn close(&self) {
        let failed = {
            let mut state = lock(&self.state);
            state.closed = true;
            state.take(|_| true)
        };
        all_are(failed, &RenderError::Gone);
    }
}

impl State {
    fn take_of(&mut self, context: ContextId) -> Vec<Done> {
        self.take(|timeline| matches!(timeline, Timeline::Context(id, _) if *id == context))
    }

    /// Takes the fences of some timelines out, each timeline's in order.
    fn take(&mut self, which: impl Fn(&Timeline) -> bool) -> Vec<Done> {
        let timelines: Vec<_> = self.lines.keys().copied().filter(which).collect();
        let lines = timelines.iter().filter_map(|it| self.lines.remove(it));
        lines.flatten().map(|(_, done)| done).collect()
    }
}

fn all_are(fences: Vec<Done>, error: &RenderError) {
    for done in fences {
        done(Err(error.clone()));
    }
}

impl std::fmt::Debug for Fences {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fences")
    }
}

#[cfg(test)]
mod tests;
