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
}

/// The request that has been sent and not been answered.
struct UnderWay {
    job: Job,
    /// When it was sent or, later than that, the device went on.
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
        // What the device asks for while it is stopped was abandoned: nobody waits for a mapping.
        if state.ended || (state.paused && request.is_map()) {
            drop((state, fd));
            return done(Err(MapError::Unavailable));
        }
        state.waiting.push_back(Job { request, fd, done });
        self.go_on(&mut state);
    }

    /// The device stops: what has not been sent is not sent. What was to be mapped never is, as every
    /// command has been answered then. What is to be unmapped must be, later.
    pub(super) fn pause(&self) {
        let mut state = lock(&self.state);
        state.paused = true;
        let waiting = state.waiting.drain(..);
        let (maps, unmaps): (Vec<_>, Vec<_>) = waiting.partition(|job| job.request.is_map());
        state.waiting = unmaps.into();
        drop(state);
        for Job { fd, done, .. } in maps {
            drop(fd);
            done(Err(MapError::Unavailable));
        }
    }

    /// The device runs: what is to be unmapped is sent, and the front-end has its whole time again for
    /// what it may not have looked at meanwhile.
    pub(super) fn resume(&self) {
        let mut state = lock(&self.state);
        state.paused = false;
        if let Some(under_way) = &mut state.under_way {
            under_way.since = Instant::now();
        }
        self.go_on(&mut state);
    }

    /// Sends the next request if none is under way.
    fn go_on(&self, state: &mut State) {
        if state.ended || state.paused || state.under_way.is_some() {
            return;
        }
        let Some(job) = state.waiting.pop_front() else {
            return;
        };
        let fd = job.fd.as_deref().map(AsFd::as_fd);
        let sent = expect_silence(&self.socket)
            .and_then(|()| send(&self.socket, job.request.as_bytes(), fd));
        let since = Instant::now();
        match sent {
            // With one request at a time the socket has room, unless the front-end has filled it.
            Err(error) => {
                self.fail(state, Some(&job.request), &LinkError::Unsent(error));
                state.waiting.push_front(job);
            }
            Ok(bytes) => {
                let whole = bytes == size_of::<Request>();
                state.under_way = Some(UnderWay { job, since });
                if !whole {
                    self.fail_under_way(state, &LinkError::Broken(io::ErrorKind::WriteZero.into()));
                } else if !state.alarmed {
                    self.ring(state, self.deadline);
                }
            }
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
        let set = timerfd_settime(&self.alarm, TimerfdTimerFlags::empty(), &once);
        state.alarmed = set.is_ok();
        if let Err(error) = set {
            log::error!("cannot set the alarm for the front-end's answer: {error}");
        }
    }

    /// Something went wrong with the request under way, if there is one.
    fn fail_under_way(&self, state: &mut State, error: &LinkError) {
        let under_way = state.under_way.take();
        let request = under_way.as_ref().map(|under_way| &under_way.job.request);
        self.fail(state, request, error);
        state.under_way = under_way;
    }

    /// Something went wrong: nothing further can be asked.
    fn fail(&self, state: &mut State, request: Option<&Request>, error: &LinkError) {
        // Not so if it was closed meanwhile, which is the reason then.
        if !state.ended {
            match request {
                Some(request) => log::warn!(
                    "cannot {request}: {error}; no further blob can be mapped until the front-end \
                     connects again"
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
            let state = lock(&self.state);
            if state.ended {
                break tell_everybody(state);
            }
            drop(state);
            let mut events = [
                PollFd::new(&self.socket, PollFlags::IN),
                PollFd::new(&self.alarm, PollFlags::IN),
            ];
            let polled = poll(&mut events, None);
            let [_, alarm] = events;
            let rang = !alarm.revents().is_empty();
            let mut state = lock(&self.state);
            if rang {
                // It does not block.
                let _ = rustix::io::read(&self.alarm, &mut [0_u8; 8]);
                state.alarmed = false;
            }
            let news = match polled {
                Err(Errno::INTR) => Ok(None),
                Err(error) => Err(LinkError::Broken(error.into())),
                Ok(_) => self.serve(&mut state),
            };
            let news = news.unwrap_or_else(|error| {
                self.fail_under_way(&mut state, &error);
                None
            });
            // The next request is under way before the answer to this one is looked at.
            self.go_on(&mut state);
            if rang {
                self.see_to_the_deadline(&mut state);
            }
            drop(state);
            if let Some((done, result)) = news {
                done(result);
            }
        }
    }

    /// Looks at what has come.
    fn serve(&self, state: &mut State) -> Result<Option<News>, LinkError> {
        if state.ended {
            return Ok(None);
        }
        state
            .inbox
            .receive(&self.socket)
            .map_err(LinkError::Broken)?;
        let Some(under_way) = &state.under_way else {
            return match state.inbox.is_empty() {
                true => Ok(None),
                false => Err(LinkError::Garbage),
            };
        };
        let Some(answer) = state.inbox.take(&under_way.job.request) else {
            return Ok(None);
        };
        let value = answer.ok_or(LinkError::Garbage)?;
        let Some(UnderWay { job, .. }) = state.under_way.take() else {
            return Ok(None);
        };
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

    /// The alarm has rung. It is not set for each request: it may have been that of an earlier one.
    /// And while the device is stopped, front-ends need not answer.
    fn see_to_the_deadline(&self, state: &mut State) {
        if state.ended || state.alarmed {
            return;
        }
        let Some(under_way) = &state.under_way else {
            return;
        };
        let left = match state.paused {
            true => self.deadline,
            false => self.deadline.saturating_sub(under_way.since.elapsed()),
        };
        if left.is_zero() {
            self.fail_under_way(state, &LinkError::Late(self.deadline));
        } else {
            self.ring(state, left);
        }
    }
}

/// The last thing that the thread does.
fn tell_everybody(mut state: MutexGuard<'_, State>) {
    let under_way = state.under_way.take();
    let waiting = std::mem::take(&mut state.waiting);
    drop(state);
    if let Some(UnderWay { job, .. }) = under_way {
        (job.done)(Err(MapError::Lost));
    }
    for Job { fd, done, .. } in waiting {
        drop(fd);
        done(Err(MapError::Unavailable));
    }
}
