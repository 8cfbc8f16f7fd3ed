//! That each group of conformance cases finds bugs: the test build of the daemon has one after the
//! other (`--plant`), and at least one case of the bug's group must fail. Without any, none may.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "test code: a broken expectation is to stop the test loudly"
)]

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use nosnoop_tests::conform::planted::{bugs, hunt, markdown, target};
use nosnoop_tests::conform::run::{self, Verdict};
use nosnoop_tests::conform::{Group, cases};
use nosnoop_tests::frontend::set_patience;
use nosnoop_tests::lab::programs::{TEST_BUGS, target_folder};

/// For the daemon without a bug, also on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(10);

/// For one that may never answer.
const SHORT_PATIENCE: Duration = Duration::from_secs(2);

/// One test, as patience is for the whole process.
#[test]
fn the_cases_of_each_group_find_its_bugs_and_nothing_else() {
    let daemon = TEST_BUGS.daemon().unwrap();
    let all = cases::all();
    let sound = target(&daemon, None);
    // With the short one too: what a bug's hunt finds is then the bug, and not the patience.
    for patience in [PATIENCE, SHORT_PATIENCE] {
        set_patience(patience);
        let probe = run::probe(&sound, patience).unwrap();
        let failed: Vec<_> = run::run(&sound, probe, &all, patience, &mut |_| {})
            .findings
            .into_iter()
            .filter_map(|finding| match finding.verdict {
                Verdict::Pass => None,
                // None of ours may be left out either.
                Verdict::Fail(why) | Verdict::Skip(why) => Some((finding.case.id(), why)),
            })
            .collect();
        assert_eq!(failed, [], "{patience:?}");
    }

    let bugs = bugs(&daemon).unwrap();
    let hunts: Vec<_> = bugs
        .iter()
        .map(|bug| hunt(&daemon, bug, &all, SHORT_PATIENCE).unwrap())
        .collect();
    let folder = target_folder().join("conform");
    fs::create_dir_all(&folder).unwrap();
    let table = markdown(&hunts);
    println!("{table}");
    fs::write(folder.join("planted.md"), &table).unwrap();
    let json = serde_json::to_vec_pretty(&hunts).unwrap();
    fs::write(folder.join("planted.json"), json).unwrap();

    let missed = hunts.iter().filter(|hunt| hunt.found_by.is_empty());
    let missed: Vec<_> = missed.map(|hunt| &hunt.bug.name).collect();
    assert!(missed.is_empty(), "found by no case: {missed:?}");
    let groups: BTreeSet<_> = bugs.iter().map(|bug| &*bug.group).collect();
    let all_groups: BTreeSet<_> = Group::ALL.iter().map(|group| group.name()).collect();
    assert_eq!(groups, all_groups);
}
