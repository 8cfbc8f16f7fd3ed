//! Reads libtest's output: how many tests passed, failed and were skipped.

/// Line start by which a test says that this machine cannot run it. libtest knows no such thing and calls it passed.
pub const SKIP_MARK: &str = "SKIPPED: ";

/// What one `cargo test` run said, over all of its test programs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TestCounts {
    /// Tests that ran and passed; those that marked themselves as skipped are not among them.
    pub passed: usize,
    /// Tests that failed, and one for each test program that ended without saying its result.
    pub failed: usize,
    /// Tests that were ignored or marked themselves as skipped.
    pub skipped: usize,
    /// Names of failed tests.
    pub failures: Vec<String>,
    /// `NAME: REASON` of skipped tests, as far as known.
    pub skips: Vec<String>,
}

/// Counts the tests in the output of `cargo test ... -- --show-output` (standard output and standard error in one).
#[must_use]
pub fn count_tests(output: &str) -> TestCounts {
    let mut reader = Reader::default();
    for line in output.lines() {
        reader.line(line);
    }
    reader.end_program();
    reader.counts
}

/// The names that `cargo test ... -- --list` prints.
#[must_use]
pub fn listed_tests(output: &str) -> Vec<String> {
    output
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .map(str::to_owned)
        .collect()
}

#[derive(Default)]
struct Reader {
    counts: TestCounts,
    /// Name of the test program that has started and not said its result yet.
    running: Option<String>,
    /// Inside the output of passed tests.
    successes: bool,
    /// The test whose output this is.
    test: Option<String>,
    /// Tests of this program that marked themselves as skipped.
    marked: usize,
}

impl Reader {
    fn line(&mut self, line: &str) {
        if let Some(program) = started_program(line) {
            self.end_program();
            self.running = Some(program.to_owned());
        } else if line.starts_with("test result: ") {
            self.result(line);
        } else if line == "successes:" || line == "failures:" {
            self.successes = line == "successes:";
            self.test = None;
        } else if let Some(name) = line
            .strip_prefix("---- ")
            .and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
            self.test = Some(name.to_owned());
        } else if let Some((name, outcome)) = outcome(line).filter(|_| self.test.is_none()) {
            if outcome == "FAILED" {
                self.counts.failures.push(name.to_owned());
            } else if let Some(rest) = outcome.strip_prefix("ignored") {
                let reason = rest.strip_prefix(", ").unwrap_or("ignored");
                self.counts.skips.push(format!("{name}: {reason}"));
            } else if let Some(reason) = outcome.strip_prefix(SKIP_MARK) {
                // Written past libtest's capture.
                self.mark(name, reason);
            }
        } else if let Some(reason) = line.strip_prefix(SKIP_MARK) {
            match self.test.clone() {
                // One mark a test, and none for a test that failed after all.
                Some(test) if self.successes => {
                    let known = format!("{test}: ");
                    if !self.counts.skips.iter().any(|s| s.starts_with(&known)) {
                        self.mark(&test, reason);
                    }
                }
                Some(_) => {}
                None => self.mark("a test", reason),
            }
        }
    }

    fn mark(&mut self, test: &str, reason: &str) {
        self.marked = self.marked.saturating_add(1);
        self.counts.skips.push(format!("{test}: {reason}"));
    }

    fn result(&mut self, line: &str) {
        let of = |what: &str| {
            line.split([';', '.'])
                .filter_map(|part| part.trim().strip_suffix(what))
                .find_map(|number| number.trim().parse::<usize>().ok())
                .unwrap_or(0)
        };
        let marked = std::mem::take(&mut self.marked);
        let counts = &mut self.counts;
        counts.passed = counts
            .passed
            .saturating_add(of("passed").saturating_sub(marked));
        counts.failed = counts.failed.saturating_add(of("failed"));
        counts.skipped = counts
            .skipped
            .saturating_add(of("ignored"))
            .saturating_add(marked);
        self.running = None;
        self.successes = false;
        self.test = None;
    }

    /// Counts a program that ended without a result, as after a crash, as one failure.
    fn end_program(&mut self) {
        if let Some(program) = self.running.take() {
            self.counts.failed = self.counts.failed.saturating_add(1);
            self.counts
                .failures
                .push(format!("{program} (ended without a result)"));
        }
        self.successes = false;
        self.test = None;
        self.marked = 0;
    }
}

/// The program in cargo's `     Running unittests src/lib.rs (target/...)` or `   Doc-tests NAME`.
fn started_program(line: &str) -> Option<&str> {
    let running = line
        .strip_prefix("     Running ")
        .filter(|rest| rest.ends_with(')'));
    running.or_else(|| line.strip_prefix("   Doc-tests "))
}

/// Name and outcome in libtest's `test NAME ... OUTCOME`.
fn outcome(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("test ")?.split_once(" ... ")
}

#[cfg(test)]
mod tests {
    use super::{TestCounts, count_tests, listed_tests};

    #[test]
    fn results_of_several_programs_add_up() {
        let counts = count_tests(
            "\
     Running unittests src/lib.rs (target/debug/deps/a-1)

running 2 tests
test a ... ok
test b ... ok

test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

     Running tests/x.rs (target/debug/deps/x-1)

running 3 tests
test c ... FAILED
test d ... ok
test e ... ignored, needs a GPU

failures:

---- c stdout ----
boom
SKIPPED: not really

failures:
    c

test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.50s

   Doc-tests nosnoop_protocol

running 0 tests

test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
",
        );
        assert_eq!(
            counts,
            TestCounts {
                passed: 3,
                failed: 1,
                skipped: 1,
                failures: vec!["c".to_owned()],
                skips: vec!["e: needs a GPU".to_owned()],
            }
        );
    }

    #[test]
    fn a_test_that_says_skipped_is_not_passed() {
        let counts = count_tests(
            "\
     Running tests/vm.rs (target/debug/deps/vm-1)
test boots ... ok
test draws ... ok

successes:

---- boots stdout ----
looking for QEMU
SKIPPED: no QEMU >= 11.1 on this machine
SKIPPED: said twice, counted once

---- draws stdout ----
fine

successes:
    boots
    draws

test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
",
        );
        assert_eq!(
            counts,
            TestCounts {
                passed: 1,
                skipped: 1,
                skips: vec!["boots: no QEMU >= 11.1 on this machine".to_owned()],
                ..TestCounts::default()
            }
        );
    }

    #[test]
    fn a_mark_past_the_capture_counts_too() {
        let counts = count_tests(
            "\
     Running tests/vm.rs (target/debug/deps/vm-1)
test boots ... SKIPPED: no QEMU
ok
SKIPPED: from another thread
test draws ... ok
test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
",
        );
        assert_eq!((counts.passed, counts.skipped), (0, 2));
    }

    #[test]
    fn a_program_that_crashed_is_a_failure() {
        let crashed =
            "     Running tests/x.rs (target/debug/deps/x-1)\ntest a ... ok\nerror: signal 11\n";
        let counts = count_tests(crashed);
        assert_eq!((counts.passed, counts.failed), (0, 1));
        assert_eq!(
            counts.failures,
            ["tests/x.rs (target/debug/deps/x-1) (ended without a result)"]
        );

        let then_another = format!(
            "{crashed}     Running tests/y.rs (target/debug/deps/y-1)\n\
             test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n"
        );
        let counts = count_tests(&then_another);
        assert_eq!((counts.passed, counts.failed), (4, 1));
    }

    #[test]
    fn output_without_tests_counts_nothing() {
        assert_eq!(
            count_tests("error: could not compile `x`\n"),
            TestCounts::default()
        );
    }

    #[test]
    fn a_list_gives_the_names() {
        let list = "boots: test\ndraws::a_frame: test\n\n2 tests, 0 benchmarks\n";
        assert_eq!(listed_tests(list), ["boots", "draws::a_frame"]);
    }
}
