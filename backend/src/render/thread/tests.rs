//! The thread with a fake renderer on it.
#![allow(clippy::panic, reason = "renderers that die")]

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::*;
use crate::render::fake::{Call, Fake, capset};

const LONG: Duration = Duration::from_secs(20);

fn context() -> ContextId {
    ContextId::new(1).unwrap()
}

type Fence = Option<(Timeline, Done)>;

fn fence(timeline: Timeline) -> (Fence, Receiver<Result<(), RenderError>>) {
    let (sender, receiver) = channel();
    let done: Done = Box::new(move |result| sender.send(result).unwrap());
    (Some((timeline, done)), receiver)
}

#[test]
fn jobs_are_done_in_order_on_a_thread_of_that_name() {
    let fake = Fake::default();
    let renderer = fake.start();
    assert_eq!(renderer.capsets(), [capset(1), capset(2)]);
    let order = Arc::new(Mutex::new(Vec::new()));
    for number in 0..10 {
        let order = Arc::clone(&order);
        renderer.post("a number", move |_| lock(&order).push(number));
    }
    let name = renderer.call("its name", |_| {
        Ok(thread::current().name().map(str::to_owned))
    });
    assert_eq!(name, Ok(Some("renderer".to_owned())));
    assert_eq!(*lock(&order), (0..10).collect::<Vec<_>>());
    assert_eq!(renderer.doing(), None);
}

#[test]
fn what_cannot_be_made_is_said() {
    let refused = RenderThread::start(|_| Err("no GPU".to_owned()));
    assert_eq!(refused.unwrap_err(), "no GPU");
    let died = RenderThread::start(|_| panic!("as a library may"));
    assert_eq!(died.unwrap_err(), "the renderer died while it started");
}

#[test]
fn a_stream_that_is_refused_has_no_fence() {
    let fake = Fake::default();
    let renderer = fake.start();
    renderer
        .call("", |it| it.create_context(context(), capset(1).id, ""))
        .unwrap();
    fake.with(|script| script.refuse = Some("Submit"));
    let (wanted, told) = fence(Timeline::Global);
    let refused = Err(RenderError::Refused("told to".to_owned()));
    assert_eq!(renderer.submit(context(), vec![1], wanted), refused);
    assert!(told.recv_timeout(LONG).is_err(), "its sender is dropped");
    // The fence alone is refused: the stream has been executed.
    fake.with(|script| script.refuse = Some("Fence"));
    let (wanted, told) = fence(Timeline::Global);
    assert_eq!(renderer.submit(context(), vec![2], wanted), Ok(()));
    assert_eq!(told.recv_timeout(LONG).unwrap(), refused);
    let submits = fake
        .calls()
        .into_iter()
        .filter(|call| matches!(call, Call::Submit(..)));
    assert_eq!(submits.count(), 2);
    fake.check();
}

#[test]
fn who_waits_too_long_calls_for_a_rescue_and_waits_on() {
    let fake = Fake::default();
    let (help, stuck) = channel();
    let stuck = Mutex::new(stuck);
    let calls = Arc::new(Mutex::new(0));
    let of_rescue = Arc::clone(&calls);
    let rescue = Rescue {
        after: Duration::from_millis(50),
        act: Box::new(move || {
            *lock(&of_rescue) += 1;
            // Only the second helps.
            if *lock(&of_rescue) == 2 {
                help.send(()).unwrap();
            }
        }),
    };
    let renderer = RenderThread::start_with(Some(rescue), move |_| Ok(Box::new(fake))).unwrap();
    assert_eq!(renderer.call("in no time", |_| Ok(1)), Ok(1));
    assert_eq!(*lock(&calls), 0);
    let answer = renderer.call("for ever", move |_| {
        lock(&stuck).recv_timeout(LONG).unwrap();
        Ok(2)
    });
    assert_eq!(answer, Ok(2));
    assert_eq!(*lock(&calls), 2);
}

#[test]
fn a_panic_fails_this_call_and_every_later_one_and_every_fence() {
    let fake = Fake::default();
    let renderer = fake.start();
    renderer
        .call("", |it| it.create_context(context(), capset(1).id, ""))
        .unwrap();
    let (wanted, earlier) = fence(Timeline::Global);
    renderer.submit(context(), vec![1], wanted).unwrap();
    fake.with(|script| script.panic = Some("Fence"));
    let (wanted, this) = fence(Timeline::Global);
    assert_eq!(
        renderer.submit(context(), vec![2], wanted),
        Err(RenderError::Gone)
    );
    for told in [earlier, this] {
        assert_eq!(told.recv_timeout(LONG).unwrap(), Err(RenderError::Gone));
    }
    assert_eq!(renderer.call("more", |_| Ok(())), Err(RenderError::Gone));
    renderer.post("more", |_| panic!("nobody is there to do it"));
    renderer.reset();
    renderer.destroy_context(context());
    let (wanted, told) = fence(Timeline::Global);
    assert_eq!(
        renderer.submit(context(), vec![3], wanted),
        Err(RenderError::Gone)
    );
    assert!(told.recv_timeout(LONG).is_err());
}

/// As the watcher does when the thread will never go on.
#[test]
fn who_waits_is_woken_when_the_renderer_dies() {
    let fake = Fake::default();
    let renderer = fake.start();
    let (wanted, told) = fence(Timeline::Global);
    renderer
        .call("", |it| it.create_context(context(), capset(1).id, ""))
        .unwrap();
    renderer.submit(context(), vec![1], wanted).unwrap();
    let (stuck, is_stuck) = channel();
    let (go_on, may_go_on) = channel::<()>();
    let other = Arc::clone(&renderer);
    let waits = thread::spawn(move || {
        other.call("a hang", move |_| {
            stuck.send(()).unwrap();
            let _ = may_go_on.recv();
            Ok(())
        })
    });
    is_stuck.recv_timeout(LONG).unwrap();
    let ran = Arc::new(AtomicBool::new(false));
    let runs = Arc::clone(&ran);
    renderer.post("never", move |_| runs.store(true, SeqCst));
    assert_eq!(renderer.doing(), Some("a hang"));
    renderer.died();
    assert_eq!(waits.join().unwrap(), Err(RenderError::Gone));
    assert_eq!(told.recv_timeout(LONG).unwrap(), Err(RenderError::Gone));
    // What it did last is still known, and dropping it waits for nobody.
    assert_eq!(renderer.doing(), Some("a hang"));
    drop(renderer);
    drop(go_on);
    assert!(!ran.load(SeqCst));
}

#[test]
fn a_reset_drops_all_fences_and_a_destroyed_context_its_own() {
    let fake = Fake::default();
    let renderer = fake.start();
    renderer
        .call("", |it| it.create_context(context(), capset(1).id, ""))
        .unwrap();
    let ring = nosnoop_protocol::ids::RingIdx::new(0).unwrap();
    let (wanted, of_context) = fence(Timeline::Context(context(), ring));
    renderer.submit(context(), vec![1], wanted).unwrap();
    let (wanted, global) = fence(Timeline::Global);
    renderer.submit(context(), vec![1], wanted).unwrap();
    renderer.destroy_context(context());
    let dropped = Err(RenderError::Dropped);
    assert_eq!(of_context.recv_timeout(LONG).unwrap(), dropped);
    assert!(global.try_recv().is_err());
    renderer.reset();
    assert_eq!(global.recv_timeout(LONG).unwrap(), dropped);
    assert_eq!(fake.calls().last(), Some(&Call::Reset));
}

#[test]
fn dropping_it_ends_the_thread_after_the_jobs_that_were_given() {
    let fake = Fake::default();
    let renderer = fake.start();
    let done = Arc::new(AtomicBool::new(false));
    let does = Arc::clone(&done);
    renderer.post("the last", move |_| {
        thread::sleep(Duration::from_millis(20));
        does.store(true, SeqCst);
    });
    drop(renderer);
    assert!(done.load(SeqCst));
    assert_eq!(Arc::strong_count(&done), 1);
}

/// The last who knows of it may be a fence's callback, on the thread itself.
#[test]
fn it_can_be_dropped_on_its_own_thread() {
    let fake = Fake::default();
    let renderer = fake.start();
    let (sender, dropped) = channel();
    let (hand_over, handed) = channel::<Arc<RenderThread>>();
    renderer.post("the end", move |_| {
        drop(handed.recv().unwrap());
        sender.send(()).unwrap();
    });
    hand_over.send(renderer).unwrap();
    dropped.recv_timeout(LONG).unwrap();
}
