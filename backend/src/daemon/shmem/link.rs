//! One socket of the channel: the request that is under way on it, those behind, and the thread that
//! takes the answers.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};
use zerocopy::IntoBytes;

use super::super::tap::close as close_socket;
use super::wire::{Inbox, Request, expect_silence, send};
use crate::device::mapper::{Done, MapError};
use crate::sync::lock;

/// A socket and its thread.
pub(super) struct Link {
    line: Arc<Line>,
    thread: JoinHandle<()>,
}

/// What the thread shares with those who ask.
///
/// Its lock is never held while waiting for the front-end, nor while a [`Done`] is called.
pub(super) struct Line {
    socket: UnixStream,
    deadline: Duration,
    /// Wakes the thread: a timer, for the deadline of the request under way.
    alarm: OwnedFd,
    state: Mutex<State>,
}

struct State {
    /// Nothing is sent any more: the thread is about to tell everybody, or has. Only ever goes from
    /// false to true.
    ended: bool,
    /// The device is stopped: nothing is sent.
    paused: bool,
    /// How often it was stopped or started.
    changes: u64,
    waiting: VecDeque<Job>,
    under_way: Option<UnderWay>,
    inbox: Inbox,
    /// The alarm is set, for the deadline of this request or of an earlier one.
    alarmed: bool,
}

struct Job {
    request: Request,
    fd: Option<Arc<OwnedFd>>,
    done: Done,
    /// [`State::changes`] when it was asked for.
    changes: u64,
}

/// The request whose turn it is.
struct UnderWay {
    job: Job,
    /// Bytes of it that have been sent.
    sent: usize,
    since: Instant,
}

/// What somebody is to be told, without the lock.
type News = (Done, Result<(), MapError>);

/// Why a link has ended. The text goes on "cannot map ...: ".
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("the front-end's socket takes no request ({0})")]
    Unsent(io::Error),
    #[error("the front-end has not answered within {0:?}")]
    Late(Duration),
    #[error("the front-end's socket failed before the answer ({0})")]
    Broken(io::Error),
    #[error("the front-end's answer is not one to this request")]
    Garbage,
}

impl Link {
    /// # Errors
    /// No thread or timer to be had.
    pub(super) fn start(socket: UnixStream, deadline: Duration) -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let line = Arc::new(Line {
            socket,
            deadline,
            alarm: timerfd_create(TimerfdClockId::Monotonic, flags)?,
            state: Mutex::new(State {
                ended: false,
                paused: false,
                changes: 0,
                waiting: VecDeque::new(),
                under_way: None,
                inbox: Inbox::empty(),
                alarmed: false,
            }),
        });
        let its = Arc::clone(&line);
        let thread = thread::Builder::new()
            .name("shared memory".into())
            .spawn(move || its.run())?;
        Ok(Self { line, thread })
    }

    pub(super) fn line(&self) -> &Arc<Line> {
        &self.line
    }

    /// Tells everybody who waits, and joins the thread.
    pub(super) fn end(self) {
        self.line.end(&mut lock(&self.line.state));
        // The last owner of the channel may be a `Done`, on the very thread.
        if self.thread.thread().id() != thread::current().id() && self.thread.join().is_err() {
            log::error!("the thread that maps shared memory has failed: a bug of nosnoop-gpu");
        }
    }
}

impl Line {
    /// Whether nothing has gone wrong on the socket.
    pub(super) fn is_open(&self) -> bool {
        !lock(&self.state).ended
    }

    /// Sends the request now or, if another is under way, after it. `done` may be called at once.
    pub(super) fn ask(&self, request: Request, fd: Option<Arc<OwnedFd>>, done: Done) {
        let mut state = lock(&self.state);
        if state.ended {
            drop(state);
            return done(Err(MapError::Unavailable));
        }
        let changes = state.changes;
        state.waiting.push_back(Job {
            request,
            fd,
            done,
            changes,
        });
        let news = self.go_on(&mut state);
        drop(state);
        tell(news);
    }

    /// The device stops: what has not been sent is not sent.
    pub(super) fn pause(&self) {
        let mut state = lock(&self.state);
        state.paused = true;
        state.changes = state.changes.wrapping_add(1);
    }

    /// The device runs: what is to be unmapped is sent.
    pub(super) fn resume(&self) {
        let mut state = lock(&self.state);
        state.paused = false;
        state.changes = state.changes.wrapping_add(1);
        let news = self.go_on(&mut state);
        drop(state);
        tell(news);
    }

    /// Sends the next request if none is under way.
    ///
    /// What was to be mapped when the device stopped is not: every command has been answered then,
    /// and nobody waits for it. What is to be unmapped must be, later.
    fn go_on(&self, state: &mut State) -> Vec<News> {
        let mut news = Vec::new();
        while state.under_way.is_none() && !state.ended {
            let Some(next) = state.waiting.front() else {
                break;
            };
            let is_stale = next.request.is_map() && (state.paused || next.changes != state.changes);
            if state.paused && !is_stale {
                break;
            }
            let Some(job) = state.waiting.pop_front() else {
                break;
            };
            if is_stale {
                news.push((job.done, Err(MapError::Unavailable)));
                continue;
            }
            state.under_way = Some(UnderWay {
                job,
                sent: 0,
                since: Instant::now(),
            });
            let quiet = expect_silence(&self.socket).map_err(LinkError::Unsent);
            match quiet.and_then(|()| self.send(state)) {
                Err(error) => self.fail(state, &error),
                // The socket is full: the thread is to wait for room.
                Ok(false) => self.ring(state, Duration::ZERO),
                Ok(true) if state.alarmed => {}
                Ok(true) => self.ring(state, self.deadline),
            }
        }
        news
    }

    /// Sends what is left of the request under way, as far as the socket takes it; whether nothing is
    /// left.
    fn send(&self, state: &mut State) -> Result<bool, LinkError> {
        let Some(UnderWay { job, sent, .. }) = &mut state.under_way else {
            return Ok(true);
        };
        let rest = job.request.as_bytes().get(*sent..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(true);
        }
        let fd = job.fd.as_deref().filter(|_| *sent == 0);
        match send(&self.socket, rest, fd.map(AsFd::as_fd)) {
            Ok(bytes) => {
                *sent = sent.saturating_add(bytes);
                Ok(bytes == rest.len())
            }
            Err(error) if *sent == 0 => Err(LinkError::Unsent(error)),
            Err(error) => Err(LinkError::Broken(error)),
        }
    }

    /// Sets the alarm.
    fn ring(&self, state: &mut State, after: Duration) {
        // A timer of 0 would be none.
        let after = after.max(Duration::from_nanos(1));
        let it_value = Timespec::try_from(after).unwrap_or(Timespec {
            tv_sec: i64::MAX,
            tv_nsec: 0,
        });
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value,
        };
        state.alarmed = true;
        if let Err(error) = timerfd_settime(&self.alarm, TimerfdTimerFlags::empty(), &once) {
            log::error!("cannot set the alarm for the front-end's answer: {error}");
        }
    }

    /// Something went wrong: nothing further can be asked.
    fn fail(&self, state: &mut State, error: &LinkError) {
        // Not so if it was closed meanwhile, which is the reason then.
        if !state.ended {
            match &state.under_way {
                Some(UnderWay { job, .. }) => log::warn!(
                    "cannot {}: {error}; no further blob can be mapped until the front-end connects \
                     again",
                    job.request
                ),
                None => log::info!("the front-end takes no further requests to map blobs"),
            }
        }
        self.end(state);
    }

    fn end(&self, state: &mut State) {
        state.ended = true;
        close_socket(&self.socket);
        self.ring(state, Duration::ZERO);
    }

    /// The thread.
    fn run(&self) {
        loop {
            let wanted = {
                let state = lock(&self.state);
                if state.ended {
                    break tell_everybody(state);
                }
                // The socket may be full.
                match &state.under_way {
                    Some(job) if !job.is_sent() => PollFlags::IN | PollFlags::OUT,
                    _ => PollFlags::IN,
                }
            };
            let mut events = [
                PollFd::new(&self.socket, wanted),
                PollFd::new(&self.alarm, PollFlags::IN),
            ];
            let polled = poll(&mut events, None);
            let [_, alarm] = events;
            let rang = !alarm.revents().is_empty();
            let mut state = lock(&self.state);
            let news = match polled {
                Err(Errno::INTR) => Ok(None),
                Err(error) => Err(LinkError::Broken(error.into())),
                Ok(_) => self.serve(&mut state, rang),
            };
            let first = news.unwrap_or_else(|error| {
                self.fail(&mut state, &error);
                None
            });
            // The next request is under way before the answer to this one is looked at.
            let more = self.go_on(&mut state);
            drop(state);
            tell(first.into_iter().chain(more));
        }
    }

    /// Looks at everything that may have happened.
    fn serve(&self, state: &mut State, rang: bool) -> Result<Option<News>, LinkError> {
        if state.ended {
            return Ok(None);
        }
        self.send(state)?;
        state
            .inbox
            .receive(&self.socket)
            .map_err(LinkError::Broken)?;
        let Some(under_way) = &state.under_way else {
            return if state.inbox.is_empty() {
                self.check_alarm(state, rang).map(|()| None)
            } else {
                Err(LinkError::Garbage)
            };
        };
        if !under_way.is_sent() && !state.inbox.is_empty() {
            return Err(LinkError::Garbage);
        }
        let Some(answer) = state.inbox.take(&under_way.job.request) else {
            return self.check_alarm(state, rang).map(|()| None);
        };
        let value = answer.ok_or(LinkError::Garbage)?;
        let Some(UnderWay { job, .. }) = state.under_way.take() else {
            return Ok(None);
        };
        self.check_alarm(state, rang)?;
        if value != 0 {
            let request = &job.request;
            log::debug!("the front-end refused to {request} with {value}");
        }
        // `job.fd` is closed before anybody is told: the front-end has its own, and whoever is told
        // may want the quota back.
        Ok(Some((
            job.done,
            match value {
                0 => Ok(()),
                error => Err(MapError::Refused(error)),
            },
        )))
    }

    /// Sees to the deadline. The alarm is not set for each request: one that rings for a request
    /// that has been answered is set again for the one that is under way then.
    fn check_alarm(&self, state: &mut State, rang: bool) -> Result<(), LinkError> {
        if !rang {
            return Ok(());
        }
        // It does not block.
        let _ = rustix::io::read(&self.alarm, &mut [0_u8; 8]);
        state.alarmed = false;
        let Some(under_way) = &state.under_way else {
            return Ok(());
        };
        let left = self.deadline.saturating_sub(under_way.since.elapsed());
        if left.is_zero() {
            return Err(match under_way.sent {
                0 => LinkError::Unsent(io::ErrorKind::TimedOut.into()),
                _ => LinkError::Late(self.deadline),
            });
        }
        self.ring(state, left);
        Ok(())
    }
}

/// The last thing that the thread does.
fn tell_everybody(mut state: MutexGuard<'_, State>) {
    let under_way = state.under_way.take();
    let waiting = std::mem::take(&mut state.waiting);
    drop(state);
    let first = under_way.map(|UnderWay { job, sent, .. }| {
        let error = match sent {
            0 => MapError::Unavailable,
            _ => MapError::Lost,
        };
        (job.done, Err(error))
    });
    let behind = waiting
        .into_iter()
        .map(|job| (job.done, Err(MapError::Unavailable)));
    tell(first.into_iter().chain(behind));
}

impl UnderWay {
    fn is_sent(&self) -> bool {
        self.sent >= size_of::<Request>()
    }
}

fn tell(news: impl IntoIterator<Item = News>) {
    for (done, result) in news {
        done(result);
    }
}
