use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::conform::case::Case;
use crate::conform::cases;
use crate::conform::probe::Probe;
use crate::conform::run::Finding;
use crate::conform::sentences;
use crate::conform::target::{Kind, Target};
use crate::peers::Peer;

#[test]
fn each_cause_is_of_a_known_peer_and_names_cases_and_sentences_that_exist() {
    let peers = Peer::KNOWN.map(|peer| peer.name());
    let ids: Vec<_> = cases::all().iter().map(Case::id).collect();
    let sentences = sentences::all();
    let mut titles = HashSet::new();
    for cause in all() {
        let Cause { peer, title, .. } = &cause;
        assert!(peers.contains(peer), "{peer}: {title}");
        assert!(
            titles.insert((peer.clone(), title.clone())),
            "twice: {title}"
        );
        for text in [title, &cause.text, &cause.seen] {
            assert!(!text.trim().is_empty(), "{peer}: {title}");
        }
        assert!(!cause.cases.is_empty(), "{peer}: {title}");
        for pattern in &cause.cases {
            assert!(
                ids.iter().any(|id| matches(pattern, id)),
                "{title}: {pattern}"
            );
        }
        assert!(!cause.rules(&sentences).contains("unknown"), "{title}");
    }
}

#[test]
fn no_case_has_two_causes_on_one_peer() {
    let all = all();
    for peer in Peer::KNOWN.map(|peer| peer.name()) {
        for id in cases::all().iter().map(Case::id) {
            let of_peer = all.iter().filter(|cause| cause.peer == peer);
            let covering: Vec<_> = of_peer.filter(|cause| cause.covers(&id)).collect();
            let ways: HashSet<_> = covering.iter().map(|cause| &cause.says).collect();
            let told_apart = ways.len() == covering.len() && !ways.contains(&String::new());
            assert!(
                covering.len() < 2 || told_apart,
                "{peer} {id}: {covering:?}"
            );
        }
    }
}

fn cause(title: &str, cases: &[&str], says: &str) -> Cause {
    Cause {
        peer: "peer".to_owned(),
        title: title.to_owned(),
        text: "It is so.".to_owned(),
        sentences: vec!["ring-10".to_owned(), "ring-13".to_owned()],
        cases: cases.iter().map(ToString::to_string).collect(),
        says: says.to_owned(),
        by_chance: false,
        seen: "peer.c".to_owned(),
    }
}

/// The first nine cases of 2D, all but the first three passed.
fn run(name: &str) -> Run {
    let of_2d = cases::all()
        .into_iter()
        .filter(|case| case.id().starts_with("2d-0"));
    let verdict = |at| match at {
        0 => Verdict::Fail("signal 11".to_owned()),
        1 => Verdict::Fail("signal 13".to_owned()),
        2 => Verdict::Fail("nothing came".to_owned()),
        _ => Verdict::Pass,
    };
    let finding = |(at, case)| Finding {
        case,
        verdict: verdict(at),
        took: Duration::ZERO,
    };
    Run {
        target: Target {
            name: name.to_owned(),
            kind: Kind::Socket(PathBuf::from("/run/x.sock")),
        },
        probe: Probe::default(),
        findings: of_2d.enumerate().map(finding).collect(),
    }
}

#[test]
fn failures_without_a_cause_and_causes_without_a_failure_are_named() {
    let causes = [
        cause("dies", &["2d-0[12]", "2d-01", "2d-02"], "signal 11"),
        cause("sleeps", &["2d-09", "cursor-*"], ""),
    ];
    let run = run("peer");
    let account = Account::of(&run, &causes).unwrap();
    assert_eq!(account.met, [(&causes[0], vec!["2d-01".to_owned()])]);
    assert_eq!(account.cause("2d-01"), Some(&causes[0]));
    assert_eq!(account.cause("2d-02"), None);
    // The cases of cursors were not run, and say nothing.
    assert_eq!(
        account.open(),
        [
            "2 failures not explained: 2d-02, 2d-03",
            "2d-02 fails no more by this: dies",
            "2d-09 fails no more by this: sleeps",
        ]
    );
}

#[test]
fn a_cause_by_chance_may_be_absent() {
    let mut causes = [cause("sleeps", &["2d-09"], "")];
    causes[0].by_chance = true;
    let run = run("peer");
    let account = Account::of(&run, &causes).unwrap();
    let open = ["3 failures not explained: 2d-01, 2d-02, 2d-03"];
    assert_eq!(account.open(), open);
    // It is told all the same, unless its case was not run.
    assert_eq!(account.met, [(&causes[0], Vec::new())]);
    causes[0].cases = vec!["cursor-*".to_owned()];
    assert_eq!(Account::of(&run, &causes).unwrap().met, []);
}

#[test]
fn of_a_back_end_without_causes_there_is_no_account() {
    let causes = [cause("dies", &["2d-01"], "")];
    assert!(Account::of(&run("other"), &causes).is_none());
}

#[test]
fn rules_are_sentences_with_their_levels() {
    let mut cause = cause("dies", &["2d-01"], "");
    let sentences = sentences::all();
    assert_eq!(cause.rules(&sentences), "ring-10 MUST, ring-13 SHOULD");
    cause.sentences.clear();
    assert_eq!(cause.rules(&sentences), "no sentence");
}
