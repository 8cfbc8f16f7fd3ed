//! The thread that a [`Renderer`] lives on, and the way to it.
//!
//! Native renderers initialise once per process and belong to one thread, while the threads of the
//! queues belong to one front-end. So this thread lives as long as the process, and each front-end's
//! device has it do jobs, one after the other. It waits for the next without waking up.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nosnoop_protocol::ids::ContextId;

use super::fences::{Done, Fences};
use super::{Capset, RenderError, Renderer, Timeline};
use crate::sync::lock;

/// The thread's name.
pub const THREAD: &str = "renderer";

type Job = Box<dyn FnOnce(&mut dyn Renderer) + Send>;

/// A renderer on its thread. Dropping this ends both, and waits until they have ended.
///
/// No method waits for a renderer that has died. One that hangs is waited for, unless it has a [`Rescue`]
/// that helps.
pub struct RenderThread {
    capsets: Vec<Capset>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What gets a renderer out of waiting for somebody else.
pub struct Rescue {
    /// How long a job may take until then.
    pub after: Duration,
    /// Called by those who wait for the renderer, each time they have waited that long; may be called
    /// by several, and when the renderer is not to blame.
    pub act: Box<dyn Fn() + Send + Sync>,
}

struct Shared {
    rescue: Option<Rescue>,
    queue: Mutex<Queue>,
    /// Wakes the thread: there is a job, or an end.
    work: Condvar,
    /// Wakes those who wait for a job: one is done, or none will be.
    done: Condvar,
    fences: Arc<Fences>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<(&'static str, Job)>,
    /// What the thread is doing.
    doing: Option<&'static str>,
    /// Nothing more is to be done.
    ending: bool,
    /// The renderer has died.
    gone: bool,
}

impl RenderThread {
    /// Starts the thread and has `make` make the renderer there.
    ///
    /// # Errors
    /// What `make` says, or that there is no thread to be had: one line.
    pub fn start(
        make: impl FnOnce(Arc<Fences>) -> Result<Box<dyn Renderer>, String> + Send + 'static,
    ) -> Result<Arc<Self>, String> {
        Self::start_with(None, make)
    }

    /// As [`Self::start`], with what is to be done when a job takes too long.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(
        rescue: Option<Rescue>,
        make: impl FnOnce(Arc<Fences>) -> Result<Box<dyn Renderer>, String> + Send + 'static,
    ) -> Result<Arc<Self>, String> {
        let shared = Arc::new(Shared {
            rescue,
            queue: Mutex::default(),
            work: Condvar::new(),
            done: Condvar::new(),
            fences: Arc::default(),
        });
        let (made, answer) = sync_channel(1);
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name(THREAD.to_owned())
            .spawn(move || live(&of_thread, make, &made))
            .map_err(|error| format!("cannot start the renderer's thread: {error}"))?;
        let capsets = answer
            .recv()
            .unwrap_or_else(|_| Err("the renderer died while it started".to_owned()))?;
        Ok(Arc::new(Self {
            capsets,
            shared,
            thread: Some(thread),
        }))
    }

    /// The capability sets, by ascending id.
    #[must_use]
    pub fn capsets(&self) -> &[Capset] {
        &self.capsets
    }

    /// Has a job done and waits for its result. `what` names it should the renderer die of it. Not to
    /// be called by a job.
    ///
    /// # Errors
    /// What the job says; `Gone` if the renderer has died, or does so before the job is done.
    pub fn call<T: Send + 'static>(
        &self,
        what: &'static str,
        job: impl FnOnce(&mut dyn Renderer) -> Result<T, RenderError> + Send + 'static,
    ) -> Result<T, RenderError> {
        let result = Arc::new(Mutex::new(None));
        let place = Arc::clone(&result);
        self.post(what, move |renderer| {
            let result = job(renderer);
            *lock(&place) = Some(result);
        });
        let mut queue = self.shared.queue();
        loop {
            if let Some(result) = lock(&result).take() {
                return result;
            }
            if queue.gone {
                return Err(RenderError::Gone);
            }
            queue = self.shared.wait(queue);
        }
    }

    /// Has a job done after all that were given before, without waiting for it; may be called with
    /// anything locked. Not done at all if the renderer has died.
    pub fn post(&self, what: &'static str, job: impl FnOnce(&mut dyn Renderer) + Send + 'static) {
        let mut queue = self.shared.queue();
        if !queue.gone {
            queue.jobs.push_back((what, Box::new(job)));
            self.shared.work.notify_one();
        }
    }

    /// Executes a command stream, and makes a fence behind it that calls its [`Done`].
    ///
    /// # Errors
    /// As [`RenderThread::call`]: the stream was not executed, and there is no fence. That a fence
    /// cannot be made is told to its `Done` alone.
    pub fn submit(
        &self,
        context: ContextId,
        mut commands: Vec<u8>,
        fence: Option<(Timeline, Done)>,
    ) -> Result<(), RenderError> {
        let fences = Arc::clone(&self.shared.fences);
        self.call("SUBMIT_3D", move |renderer| {
            renderer.submit(context, &mut commands)?;
            if let Some((timeline, done)) = fence
                && let Some(id) = fences.add(timeline, done)
                && let Err(error) = renderer.fence(timeline, id)
            {
                fences.fail(timeline, id, error);
            }
            Ok(())
        })
    }

    /// Destroys a context; its fences are dropped.
    pub fn destroy_context(&self, id: ContextId) {
        let destroyed = self.call("CTX_DESTROY", move |renderer| {
            renderer.destroy_context(id);
            Ok(())
        });
        if destroyed.is_ok() {
            self.shared.fences.drop_context(id);
        }
    }

    /// Destroys every context and resource; all fences are dropped.
    pub fn reset(&self) {
        let reset = self.call("a reset", |renderer| {
            renderer.reset();
            Ok(())
        });
        if reset.is_ok() {
            self.shared.fences.drop_all();
        }
    }

    /// The renderer has died, as far as anyone knows in what it is doing: nobody waits for it any
    /// more, and its fences fail.
    pub fn died(&self) {
        self.shared.died();
    }

    /// What the renderer is doing, or was when it died.
    #[must_use]
    pub fn doing(&self) -> Option<&'static str> {
        self.shared.queue().doing
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }

    /// Waits until a job is done, or none will be; or until it is time for a rescue, after which the
    /// job may be done.
    fn wait<'a>(&'a self, queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        let Some(rescue) = &self.rescue else {
            let waited = self.done.wait(queue);
            return waited.unwrap_or_else(PoisonError::into_inner);
        };
        let waited = self.done.wait_timeout(queue, rescue.after);
        let (queue, late) = waited.unwrap_or_else(PoisonError::into_inner);
        if !late.timed_out() {
            return queue;
        }
        drop(queue);
        (rescue.act)();
        self.queue()
    }

    fn died(&self) {
        let jobs = {
            let mut queue = self.queue();
            queue.gone = true;
            self.work.notify_all();
            self.done.notify_all();
            std::mem::take(&mut queue.jobs)
        };
        // A job may own what takes a lock or time to drop.
        drop(jobs);
        self.fences.close();
    }

    /// The next job, when there is one; `None` at the end.
    fn next(&self) -> Option<Job> {
        let mut queue = self.queue();
        loop {
            if queue.gone {
                return None;
            }
            if let Some((what, job)) = queue.jobs.pop_front() {
                queue.doing = Some(what);
                return Some(job);
            }
            if queue.ending {
                return None;
            }
            let waited = self.work.wait(queue);
            queue = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn finished(&self) {
        self.queue().doing = None;
        self.done.notify_all();
    }
}

/// What the thread does.
fn live(
    shared: &Shared,
    make: impl FnOnce(Arc<Fences>) -> Result<Box<dyn Renderer>, String>,
    made: &SyncSender<Result<Vec<Capset>, String>>,
) {
    let mut renderer = match make(Arc::clone(&shared.fences)) {
        Ok(renderer) => renderer,
        Err(error) => {
            // Who started this waits for it.
            let _ = made.send(Err(error));
            return;
        }
    };
    let _ = made.send(Ok(renderer.capsets()));
    while let Some(job) = shared.next() {
        if catch_unwind(AssertUnwindSafe(|| job(&mut *renderer))).is_err() {
            log::error!(
                "the 3D renderer is given up, as a command of it panicked; restart nosnoop-gpu \
                 for 3D"
            );
            // What state it is in nobody knows, so nothing of it is touched again.
            std::mem::forget(renderer);
            shared.died();
            return;
        }
        shared.finished();
    }
    if shared.queue().gone {
        std::mem::forget(renderer);
    }
}

impl Drop for RenderThread {
    fn drop(&mut self) {
        let gone = {
            let mut queue = self.shared.queue();
            queue.ending = true;
            self.shared.work.notify_all();
            queue.gone
        };
        // A fence's `Done` may be the last to know of this, and is called on any thread.
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
            && !gone
        {
            // A panic there has been told.
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for RenderThread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let capsets = self.capsets.iter().map(|capset| capset.id.0);
        f.debug_list().entries(capsets).finish()
    }
}

#[cfg(test)]
mod tests;
