//! Real driver tests in a stock guest, on our daemon and on QEMU's own virtio-gpu; `cargo vm conform`
//! runs all of them, this the short list.

use nosnoop_tests::lab::driver_tests::explained::{self, Explanations};
use nosnoop_tests::lab::driver_tests::{self, Column, Comparison, List, Report, Verdict};

use super::prepared;

/// The short list: less would not be worth two boots.
const LEAST: usize = 15;

fn passed(comparison: &Comparison, column: Column) -> usize {
    let results = comparison.results.iter();
    let mut results = results.filter(|results| results.column == column);
    let outcomes = results.next().unwrap().outcomes.iter();
    let passed = outcomes.filter(|outcome| outcome.verdict == Verdict::Pass);
    passed.count()
}

#[test]
fn stock_driver_tests_go_on_our_daemon_as_on_qemus_own_device() {
    let list = List::fixed().unwrap();
    let explanations = Explanations::fixed(&list).unwrap();
    let columns = [Column::Ours, Column::Qemu];
    let run = || driver_tests::run(&list, &columns, |test| test.short);
    let Some((comparison, _turn)) = prepared(run) else {
        return;
    };
    println!("{}", Report::new(&comparison, &explanations, &list).text());
    let problems = explained::check(&comparison, &explanations);
    assert!(problems.is_empty(), "{problems:#?}");
    for column in columns {
        let passed = passed(&comparison, column);
        assert!(passed >= LEAST, "only {passed} pass on {}", column.name());
    }
}
