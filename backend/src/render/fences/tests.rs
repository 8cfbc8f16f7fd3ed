//! Fences against a plain list of them.
#![allow(
    clippy::arithmetic_side_effects,
    reason = "small numbers of the tests' own"
)]

use std::collections::HashSet;
use std::sync::Arc;

use nosnoop_protocol::ids::RingIdx;
use proptest::prelude::*;

use super::*;

type Results = Arc<Mutex<Vec<(u32, Result<(), RenderError>)>>>;

fn done(number: u32, results: &Results) -> Done {
    let results = Arc::clone(results);
    Box::new(move |result| lock(&results).push((number, result)))
}

fn timeline(number: u8) -> Timeline {
    match number {
        0 => Timeline::Global,
        n => Timeline::Context(
            ContextId::new(u32::from(n)).unwrap(),
            RingIdx::new(n % 2).unwrap(),
        ),
    }
}

#[test]
fn ids_ascend_and_wrap_past_zero() {
    let fences = Fences::default();
    let results = Results::default();
    lock(&fences.state).last = u32::MAX - 1;
    let ids = [1, 2, 3].map(|n| fences.add(Timeline::Global, done(n, &results)).unwrap());
    assert_eq!(ids, [u32::MAX, 1, 2]);
    fences.signal(Timeline::Global, 1);
    assert_eq!(*lock(&results), [(1, Ok(())), (2, Ok(()))]);
}

#[test]
fn a_fence_that_could_not_be_made_does_not_touch_those_before_it() {
    let fences = Fences::default();
    let results = Results::default();
    let ids = [1, 2, 3].map(|n| fences.add(timeline(3), done(n, &results)).unwrap());
    let error = RenderError::Refused("no".to_owned());
    fences.fail(timeline(3), ids[1], error.clone());
    assert_eq!(*lock(&results), [(2, Err(error))]);
    // Not a fence of this timeline.
    fences.signal(timeline(2), ids[2]);
    fences.fail(timeline(3), ids[1], RenderError::Gone);
    assert_eq!(lock(&results).len(), 1);
    fences.signal(timeline(3), ids[2]);
    assert_eq!(lock(&results)[1..], [(1, Ok(())), (3, Ok(()))]);
    assert!(lock(&fences.state).lines.is_empty());
}

#[test]
fn nothing_can_be_added_once_the_renderer_has_gone() {
    let fences = Fences::default();
    let results = Results::default();
    fences.add(Timeline::Global, done(1, &results)).unwrap();
    fences.close();
    assert_eq!(fences.add(timeline(1), done(2, &results)), None);
    let gone = Err(RenderError::Gone);
    assert_eq!(*lock(&results), [(1, gone.clone()), (2, gone)]);
}

#[test]
fn a_lost_contexts_fences_fail_and_no_others() {
    let fences = Fences::default();
    let results = Results::default();
    for (number, line) in [(1, 0), (2, 1), (3, 1), (4, 2)] {
        fences.add(timeline(line), done(number, &results)).unwrap();
    }
    fences.lose_context(ContextId::new(1).unwrap());
    let lost = Err(RenderError::Lost);
    assert_eq!(*lock(&results), [(2, lost.clone()), (3, lost)]);
    fences.drop_all();
    assert_eq!(lock(&results).len(), 4);
}

/// A callback that comes back finds nothing locked.
#[test]
fn a_callback_may_use_the_fences() {
    let fences = Arc::new(Fences::default());
    let results = Results::default();
    let (again, added) = (Arc::clone(&fences), done(2, &results));
    let first: Done = Box::new(move |_| {
        again.add(Timeline::Global, added).unwrap();
    });
    let id = fences.add(Timeline::Global, first).unwrap();
    fences.signal(Timeline::Global, id);
    fences.drop_all();
    assert_eq!(*lock(&results), [(2, Err(RenderError::Dropped))]);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Add(u8),
    Signal(u8, usize),
    Fail(u8, usize),
    DropContext(u8),
    DropAll,
}

fn step() -> impl Strategy<Value = Step> {
    let of = 0..5_u8;
    prop_oneof![
        8 => of.clone().prop_map(Step::Add),
        4 => (of.clone(), 0..6_usize).prop_map(|(line, at)| Step::Signal(line, at)),
        1 => (of, 0..6_usize).prop_map(|(line, at)| Step::Fail(line, at)),
        1 => (1..5_u8).prop_map(Step::DropContext),
        1 => Just(Step::DropAll),
    ]
}

proptest! {
    /// Each is done once; those of a timeline in order, whatever happens on the others.
    #[test]
    fn fences_are_as_a_plain_list_of_them(steps in proptest::collection::vec(step(), 1..80)) {
        let fences = Fences::default();
        let results = Results::default();
        let mut model: Vec<(u8, u32, u32)> = Vec::new();
        let mut expected: Vec<(u32, Result<(), RenderError>)> = Vec::new();
        let mut added = 0;
        let nth = |model: &[(u8, u32, u32)], line: u8, at: usize| {
            let mut of_line = model.iter().filter(|entry| entry.0 == line);
            of_line.nth(at).copied()
        };
        for step in steps {
            // What is dropped at once may come in any order of the timelines.
            let before = lock(&results).len();
            let mut at_once: HashSet<u32> = HashSet::new();
            match step {
                Step::Add(line) => {
                    added += 1;
                    let id = fences.add(timeline(line), done(added, &results)).unwrap();
                    model.push((line, id, added));
                }
                Step::Signal(line, at) => {
                    if let Some((_, id, _)) = nth(&model, line, at) {
                        fences.signal(timeline(line), id);
                        let signalled = |entry: &(u8, u32, u32)| entry.0 == line && entry.1 <= id;
                        expected.extend(model.iter().filter(|e| signalled(e)).map(|e| (e.2, Ok(()))));
                        model.retain(|entry| !signalled(entry));
                    }
                }
                Step::Fail(line, at) => {
                    if let Some((_, id, number)) = nth(&model, line, at) {
                        fences.fail(timeline(line), id, RenderError::Gone);
                        expected.push((number, Err(RenderError::Gone)));
                        model.retain(|entry| entry.1 != id);
                    }
                }
                Step::DropContext(line) => {
                    fences.drop_context(ContextId::new(u32::from(line)).unwrap());
                    at_once.extend(model.iter().filter(|e| e.0 == line).map(|e| e.2));
                    model.retain(|entry| entry.0 != line);
                }
                Step::DropAll => {
                    fences.drop_all();
                    at_once.extend(model.drain(..).map(|entry| entry.2));
                }
            }
            let results = lock(&results);
            if !at_once.is_empty() {
                let dropped: HashSet<u32> = results[before..].iter().map(|it| it.0).collect();
                prop_assert_eq!(&dropped, &at_once);
                prop_assert!(results[before..].iter().all(|it| it.1 == Err(RenderError::Dropped)));
                expected.extend_from_slice(&results[before..]);
            }
            prop_assert_eq!(&*results, &expected);
        }
        prop_assert_eq!(model.is_empty(), lock(&fences.state).lines.is_empty());
    }
}
