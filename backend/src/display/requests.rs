//! Questions to the front-end: who asks, what is on the way, what was answered.
//!
//! At most one question of a kind is on the way, and replies name their kind. So an answer that
//! comes too late is still the answer to that question, and never taken for one to a newer.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nosnoop_protocol::edid::Edid;
use nosnoop_protocol::ids::{MAX_SCANOUTS, ScanoutId};
use nosnoop_protocol::reply::DisplayInfo;

use super::wire::{self, FEATURE_DMABUF2, FEATURE_EDID, request};
use crate::planted::{Bug, planted};
use crate::sync::lock;

/// How long a question is waited for. Front-ends answer from their main loop, in microseconds when
/// idle and in some 100 ms when busy; a guest driver gives up on a command after about 5 s.
pub(super) const REPLY_DEADLINE: Duration = Duration::from_secs(1);

/// A question that the device may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    DisplayInfo,
    Edid(ScanoutId),
}

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The newest answer is fresh.
    Answered,
    /// No answer in time, now or earlier; or the socket is closed.
    Missed,
    /// The front-end does not know the question.
    Unsupported,
}

/// A request to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    GetProtocolFeatures,
    SetProtocolFeatures(u64),
    GetDisplayInfo,
    GetEdid(ScanoutId),
}

/// All questions on one display socket.
pub(super) struct Requests {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    closed: bool,
    handshake: Handshake,
    /// A reply to `GET_PROTOCOL_FEATURES` may come.
    features_awaited: bool,
    /// What was negotiated.
    features: u64,
    /// A reply to `DMABUF_UPDATE` is due.
    presenting: bool,
    info: Asked,
    edid: Asked,
    last_info: Option<DisplayInfo>,
    last_edid: [Option<Edid>; MAX_SCANOUTS],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handshake {
    /// Nothing was sent yet.
    Start,
    /// Nothing else is sent before the reply or this moment.
    Until(Instant),
    /// `SET_PROTOCOL_FEATURES` has to be sent.
    Confirm,
    Settled,
}

/// Questions of one kind.
struct Asked {
    question: Question,
    phase: Phase,
    /// Questions that are done with.
    answers: u64,
    /// Someone waited in vain for the question that is on the way.
    missed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Queued,
    Sent,
}

impl Asked {
    const fn nothing() -> Self {
        Self {
            question: Question::DisplayInfo,
            phase: Phase::Idle,
            answers: 0,
            missed: false,
        }
    }

    fn take_queued(&mut self) -> Option<Question> {
        (self.phase == Phase::Queued).then(|| {
            self.phase = Phase::Sent;
            self.question
        })
    }

    fn done(&mut self) {
        self.phase = Phase::Idle;
        self.answers = self.answers.wrapping_add(1);
        self.missed = false;
    }
}

impl State {
    fn asked(&mut self, question: Question) -> &mut Asked {
        match question {
            Question::DisplayInfo => &mut self.info,
            Question::Edid(_) => &mut self.edid,
        }
    }

    fn supports(&self, question: Question) -> bool {
        match question {
            Question::DisplayInfo => true,
            // Before the handshake is over the question waits for it.
            Question::Edid(_) => {
                self.handshake != Handshake::Settled || self.features & FEATURE_EDID != 0
            }
        }
    }
}

impl Requests {
    pub(super) const fn new() -> Self {
        let state = State {
            closed: false,
            handshake: Handshake::Start,
            features_awaited: false,
            features: 0,
            presenting: false,
            info: Asked::nothing(),
            edid: Asked::nothing(),
            last_info: None,
            last_edid: [const { None }; MAX_SCANOUTS],
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// Asks and waits for the answer, at most [`REPLY_DEADLINE`]; not at all while an earlier
    /// question of the kind that was waited for in vain is still without an answer.
    /// `push` is called when there is a request to send.
    pub(super) fn ask(&self, question: Question, push: impl Fn()) -> Outcome {
        let deadline = Instant::now().checked_add(REPLY_DEADLINE);
        let mut state = lock(&self.state);
        let mut ticket = None;
        loop {
            if state.closed {
                return Outcome::Missed;
            }
            if !state.supports(question) {
                return Outcome::Unsupported;
            }
            let asked = state.asked(question);
            match ticket {
                Some(ticket) if asked.answers != ticket => return Outcome::Answered,
                _ if asked.missed => return Outcome::Missed,
                Some(_) => {}
                None if asked.phase == Phase::Idle => {
                    asked.question = question;
                    asked.phase = Phase::Queued;
                    ticket = Some(asked.answers);
                    // Who sends it takes it from here.
                    drop(state);
                    push();
                    state = lock(&self.state);
                    continue;
                }
                // Another thread has just asked the same.
                None if asked.question == question => ticket = Some(asked.answers),
                // The question of another thread is first.
                None => {}
            }
            let left = deadline.map(|end| end.saturating_duration_since(Instant::now()));
            let left = left.unwrap_or_default();
            if left.is_zero() {
                state.asked(question).missed = true;
                drop(state);
                log::warn!(
                    "the display did not answer {question:?} within {REPLY_DEADLINE:?}: going on \
                     with what is known until it does"
                );
                return Outcome::Missed;
            }
            state = self.wait(state, left);
        }
    }

    /// The newest answer about the outputs.
    pub(super) fn last_info(&self) -> Option<DisplayInfo> {
        lock(&self.state).last_info
    }

    /// The newest EDID of an output.
    pub(super) fn last_edid(&self, id: ScanoutId) -> Option<Edid> {
        lock(&self.state)
            .last_edid
            .get(id.index())
            .cloned()
            .flatten()
    }

    /// For whoever sends: the request to send next.
    pub(super) fn take(&self) -> Option<Request> {
        let mut state = lock(&self.state);
        match state.handshake {
            Handshake::Start => {
                let now = Instant::now();
                state.handshake = Handshake::Until(now.checked_add(REPLY_DEADLINE).unwrap_or(now));
                state.features_awaited = true;
                Some(Request::GetProtocolFeatures)
            }
            Handshake::Until(_) => None,
            Handshake::Confirm => {
                let features = state.features;
                self.settle(&mut state);
                Some(Request::SetProtocolFeatures(features))
            }
            Handshake::Settled => {
                if state.info.take_queued().is_some() {
                    return Some(Request::GetDisplayInfo);
                }
                match state.edid.take_queued() {
                    Some(Question::Edid(id)) => Some(Request::GetEdid(id)),
                    _ => None,
                }
            }
        }
    }

    /// For whoever sends: whether the handshake is over and other messages may be sent.
    pub(super) fn is_settled(&self) -> bool {
        lock(&self.state).handshake == Handshake::Settled
    }

    /// What the display has agreed on; `None` before that, and after the end of the socket.
    pub(super) fn features(&self) -> Option<u64> {
        let state = lock(&self.state);
        let there = state.handshake == Handshake::Settled && !state.closed;
        there.then_some(state.features)
    }

    /// For whoever sends: whether a `DMABUF_UPDATE` may be sent, which is on the way from now on then.
    /// QEMU remembers one at a time.
    pub(super) fn begin_presenting(&self) -> bool {
        !std::mem::replace(&mut lock(&self.state).presenting, true)
    }

    /// For the sender: the reply to `DMABUF_UPDATE`.
    pub(super) fn presented(&self) {
        lock(&self.state).presenting = false;
    }

    /// For the sender: how long the handshake may still take, `None` if it is over. Ends one
    /// that took too long.
    pub(super) fn handshake_left(&self) -> Option<Duration> {
        let mut state = lock(&self.state);
        let Handshake::Until(end) = state.handshake else {
            return None;
        };
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            log::warn!(
                "the display did not answer GET_PROTOCOL_FEATURES within {REPLY_DEADLINE:?}: \
                 going on without EDID from it"
            );
            self.settle(&mut state);
        }
        Some(left)
    }

    /// For the sender: bytes of the reply to `request`, if that reply may come.
    pub(super) fn expected(&self, request: u32) -> Option<usize> {
        let state = lock(&self.state);
        match request {
            request::GET_PROTOCOL_FEATURES => {
                state.features_awaited.then_some(wire::FEATURES_REPLY)
            }
            request::DMABUF_UPDATE => state.presenting.then_some(wire::DMABUF_UPDATE_REPLY),
            request::GET_DISPLAY_INFO => {
                (state.info.phase == Phase::Sent).then_some(wire::DISPLAY_INFO_REPLY)
            }
            request::GET_EDID => (state.edid.phase == Phase::Sent).then_some(wire::EDID_REPLY),
            _ => None,
        }
    }

    /// For the sender: the reply to `GET_PROTOCOL_FEATURES`, also one after the deadline.
    pub(super) fn features_offered(&self, offered: u64) {
        let mut state = lock(&self.state);
        state.features_awaited = false;
        state.features = offered & (FEATURE_EDID | FEATURE_DMABUF2);
        if planted(Bug::DisplayFeaturesAssumed) {
            state.features = FEATURE_EDID | FEATURE_DMABUF2;
        }
        state.handshake = Handshake::Confirm;
    }

    /// For the sender: the reply to `GET_DISPLAY_INFO`; `None` if it is an error.
    pub(super) fn display_info(&self, info: Option<DisplayInfo>) {
        let mut state = lock(&self.state);
        if info.is_some() {
            state.last_info = info;
        }
        state.info.done();
        self.changed.notify_all();
    }

    /// For the sender: the reply to `GET_EDID`; `None` if it is an error.
    pub(super) fn edid(&self, edid: Option<Edid>) {
        let mut state = lock(&self.state);
        if let Question::Edid(id) = state.edid.question
            && let Some(last) = state.last_edid.get_mut(id.index())
        {
            *last = edid;
        }
        state.edid.done();
        self.changed.notify_all();
    }

    /// For the sender: nothing will be answered any more.
    pub(super) fn close(&self) {
        lock(&self.state).closed = true;
        self.changed.notify_all();
    }

    fn settle(&self, state: &mut State) {
        state.handshake = Handshake::Settled;
        if state.features & FEATURE_EDID == 0 {
            // Those who wait for an EDID see that there is none to be had.
            state.edid.done();
            self.changed.notify_all();
        }
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, timeout: Duration) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_timeout(state, timeout);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}
