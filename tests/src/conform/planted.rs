//! Whether the cases find bugs: our daemon with each bug that its test build can have (the feature
//! `test-bugs`), against the cases of the group that is to find it.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::case::Case;
use super::run::{self, Trouble, Verdict};
use super::target::{Kind, Target};
use crate::peers::{SOCKET, quoted};

/// What no case is skipped with: some need a second scanout.
const TWO_OUTPUTS: &str = "--output 1280x800 --output 1024x768";

/// A bug that the daemon can have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bug {
    /// Its name for `--plant`.
    pub name: String,
    /// The group of cases that is to find it.
    pub group: String,
    /// What the daemon does wrong with it.
    pub what: String,
}

/// A case that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The case's id.
    pub case: String,
    /// What it says.
    pub why: String,
}

/// What the cases of a bug's group say of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hunt {
    /// The bug.
    pub bug: Bug,
    /// How many cases there are.
    pub cases: usize,
    /// Those that found it. If there are none, nothing would notice the bug.
    pub found_by: Vec<Failure>,
}

/// All bugs that this build of the daemon knows.
///
/// # Errors
/// When it is no test build, or says nonsense.
pub fn bugs(daemon: &Path) -> Result<Vec<Bug>, String> {
    let output = Command::new(daemon).arg("--print-bugs").output();
    let output = output.map_err(|error| format!("{}: {error}", daemon.display()))?;
    serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("{} --print-bugs: {error}", daemon.display()))
}

/// The daemon with this bug, or with none.
#[must_use]
pub fn target(daemon: &Path, bug: Option<&Bug>) -> Target {
    let program = quoted(daemon);
    let (name, plant) = match bug {
        Some(bug) => (&*bug.name, format!("--plant {}", bug.name)),
        None => ("no bug", String::new()),
    };
    Target {
        name: name.to_owned(),
        kind: Kind::Spawn(format!(
            "{program} {plant} {TWO_OUTPUTS} --socket-path {SOCKET}"
        )),
    }
}

/// Runs the cases of a bug's group against the daemon that has it.
///
/// # Errors
/// When that daemon cannot be tested at all.
pub fn hunt(daemon: &Path, bug: &Bug, all: &[Case], patience: Duration) -> Result<Hunt, Trouble> {
    let target = target(daemon, Some(bug));
    let of_group = |case: &&Case| case.group.name() == bug.group;
    let cases: Vec<_> = all.iter().filter(of_group).copied().collect();
    let probe = run::probe(&target, patience)?;
    let run = run::run(&target, probe, &cases, patience, &mut |_| {});
    let found_by = run
        .findings
        .iter()
        .filter_map(|finding| match &finding.verdict {
            Verdict::Fail(why) => Some(Failure {
                case: finding.case.id(),
                why: why.clone(),
            }),
            Verdict::Pass | Verdict::Skip(_) => None,
        });
    Ok(Hunt {
        bug: bug.clone(),
        cases: cases.len(),
        found_by: found_by.collect(),
    })
}

/// A table of all hunts: Markdown.
#[must_use]
pub fn markdown(hunts: &[Hunt]) -> String {
    let mut table =
        "| group | planted bug | what it does | found by |\n|---|---|---|---|\n".to_owned();
    for hunt in hunts {
        let ids: Vec<_> = hunt.found_by.iter().map(|found| &*found.case).collect();
        let found_by = match ids.as_slice() {
            [] => format!("none of {}", hunt.cases),
            ids => ids.join(", "),
        };
        let Bug { name, group, what } = &hunt.bug;
        // A string takes everything.
        let _ = writeln!(table, "| {group} | `{name}` | {what} | {found_by} |");
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_for_each_bug() {
        let bug = |name: &str| Bug {
            name: name.to_owned(),
            group: "2d".to_owned(),
            what: "Something".to_owned(),
        };
        let found = |case: &str| Failure {
            case: case.to_owned(),
            why: "a | b".to_owned(),
        };
        let hunts = [
            Hunt {
                bug: bug("one"),
                cases: 9,
                found_by: vec![found("2d-01"), found("2d-03")],
            },
            Hunt {
                bug: bug("two"),
                cases: 9,
                found_by: Vec::new(),
            },
        ];
        let table = markdown(&hunts);
        let rows: Vec<_> = table.lines().skip(2).collect();
        assert_eq!(
            rows,
            [
                "| 2d | `one` | Something | 2d-01, 2d-03 |",
                "| 2d | `two` | Something | none of 9 |",
            ]
        );
    }

    #[test]
    fn a_daemon_of_an_ordinary_build_has_no_list_of_bugs() {
        let error = bugs(Path::new("/bin/true")).unwrap_err();
        assert!(error.starts_with("/bin/true --print-bugs: "), "{error}");
        assert!(bugs(Path::new("/no/such/daemon")).is_err());
    }

    #[test]
    fn the_bug_is_planted_in_the_command_that_is_started() {
        let bug = Bug {
            name: "uuid-shared".to_owned(),
            group: "uuid".to_owned(),
            what: String::new(),
        };
        let Kind::Spawn(command) = target(Path::new("/a b/gpu"), Some(&bug)).kind else {
            panic!("not spawned")
        };
        let start = "'/a b/gpu' --plant uuid-shared --output ";
        assert!(command.starts_with(start), "{command}");
        assert!(command.ends_with(" --socket-path {socket}"), "{command}");
    }
}
