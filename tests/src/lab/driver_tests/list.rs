//! The list of driver tests: `list.toml`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use nosnoop_guest::wire::commands::Stop;
use serde::Deserialize;

use super::super::{LabError, Result};

/// The fixed list.
const LIST: &str = include_str!("list.toml");

/// Where the packages have the tests of igt-gpu-tools.
pub(super) const IGT_FOLDER: &str = "/usr/libexec/igt-gpu-tools";

/// Where they have the programs of libdrm-tests.
pub(super) const PROGRAM_FOLDER: &str = "/usr/bin";

/// Seconds for a test that says nothing else. The longest take a third of that on an emulated
/// processor.
const DEADLINE: u64 = 90;

/// Which tests there are, and which are left out.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    igt: Vec<IgtProgram>,
    command: Vec<CommandTest>,
    /// What the package has and the list does not.
    pub left_out: Vec<LeftOut>,
}

/// A program of igt-gpu-tools and the subtests of it that are run, each by itself.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct IgtProgram {
    program: String,
    /// None: the program is one test.
    #[serde(default)]
    subtests: Vec<String>,
    /// Those that `cargo verify` runs, too.
    #[serde(default)]
    short: Vec<String>,
    deadline: Option<u64>,
}

/// Another program, judged by what it writes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CommandTest {
    name: String,
    /// The program's name and its arguments.
    words: Vec<String>,
    deadline: Option<u64>,
    stop: Option<Stop>,
    expect: Vec<String>,
    reject: Vec<String>,
    #[serde(default)]
    short: bool,
}

/// Tests that are not run.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeftOut {
    /// Their names, `program` or `program@subtest`; a `*` at the end stands for any rest.
    pub tests: Vec<String>,
    /// Why.
    pub why: String,
}

impl LeftOut {
    /// Whether `name` is one of these.
    fn names(&self, name: &str) -> bool {
        self.tests.iter().any(|test| match test.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == test,
        })
    }
}

/// How a test is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Judge {
    /// By its exit status, as igt-gpu-tools define it.
    Igt,
    /// By its exit status and by what it writes.
    Output {
        /// Texts that must be in it.
        expect: Vec<String>,
        /// Texts that must not.
        reject: Vec<String>,
    },
}

/// One test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    /// `program@subtest`, or what the list calls it.
    pub name: String,
    /// The path of the program in the guest and its arguments.
    pub(super) words: Vec<String>,
    /// Seconds that it may take.
    pub(super) deadline: u64,
    /// How it is asked to end, where it goes on for ever.
    pub(super) stop: Option<Stop>,
    pub(super) judge: Judge,
    /// Whether `cargo verify` runs it, too.
    pub short: bool,
}

impl Test {
    /// The program's path in the guest.
    pub(super) fn program(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }
}

impl List {
    /// The list of this workspace.
    ///
    /// # Errors
    /// When it is wrong in itself.
    pub fn fixed() -> Result<Self> {
        Self::parse(LIST)
    }

    /// The list in a file.
    ///
    /// # Errors
    /// When it cannot be read or is wrong in itself.
    pub fn read(file: &Path) -> Result<Self> {
        Self::parse(&fs::read_to_string(file).map_err(LabError::context(file.display()))?)
    }

    pub(super) fn parse(text: &str) -> Result<Self> {
        let list: Self = toml::from_str(text).map_err(LabError::context("list.toml"))?;
        let mut names = BTreeSet::new();
        for test in list.tests() {
            if list.left_out.iter().any(|left| left.names(&test.name)) {
                let text = format!("list.toml leaves out {}, which it lists", test.name);
                return Err(LabError::failed(text));
            }
            if !names.insert(test.name.clone()) {
                let text = format!("list.toml has {} twice", test.name);
                return Err(LabError::failed(text));
            }
        }
        for igt in &list.igt {
            if let Some(name) = igt.short.iter().find(|name| !igt.subtests.contains(name)) {
                let text = format!("list.toml: {} has no subtest {name} listed", igt.program);
                return Err(LabError::failed(text));
            }
        }
        Ok(list)
    }

    /// All tests, in the list's order.
    #[must_use]
    pub fn tests(&self) -> Vec<Test> {
        let commands = self.command.iter().map(CommandTest::test);
        let igt = self.igt.iter().flat_map(IgtProgram::tests);
        commands.chain(igt).collect()
    }

    /// Whether the list runs or leaves out the test `name`.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.left_out.iter().any(|left| left.names(name))
            || self.tests().iter().any(|test| test.name == name)
    }

    /// The programs of igt-gpu-tools that are run.
    pub(super) fn igt_programs(&self) -> impl Iterator<Item = &str> {
        self.igt.iter().map(|igt| igt.program.as_str())
    }
}

impl IgtProgram {
    fn tests(&self) -> Vec<Test> {
        let path = format!("{IGT_FOLDER}/{}", self.program);
        let test = |name: String, words: Vec<String>, short: bool| Test {
            name,
            words,
            deadline: self.deadline.unwrap_or(DEADLINE),
            stop: None,
            judge: Judge::Igt,
            short,
        };
        if self.subtests.is_empty() {
            return vec![test(self.program.clone(), vec![path], false)];
        }
        let subtests = self.subtests.iter().map(|subtest| {
            let name = format!("{}@{subtest}", self.program);
            let words = vec![path.clone(), "--run-subtest".to_owned(), subtest.clone()];
            test(name, words, self.short.contains(subtest))
        });
        subtests.collect()
    }
}

impl CommandTest {
    fn test(&self) -> Test {
        let mut words = self.words.clone();
        if let Some(program) = words.first_mut() {
            *program = format!("{PROGRAM_FOLDER}/{program}");
        }
        Test {
            name: self.name.clone(),
            words,
            deadline: self.deadline.unwrap_or(DEADLINE),
            stop: self.stop,
            judge: Judge::Output {
                expect: self.expect.clone(),
                reject: self.reject.clone(),
            },
            short: self.short,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_right_in_itself() {
        let list = List::fixed().unwrap();
        assert!(list.tests().len() > 40);
        assert!(list.tests().iter().any(|test| test.short));
    }

    #[test]
    fn tests_get_their_names_and_commands() {
        let text = r#"
            [[igt]]
            program = "core_auth"
            subtests = ["basic-auth", "many-magics"]
            short = ["many-magics"]

            [[command]]
            name = "modes"
            words = ["modetest", "-c"]
            expect = ["modes:"]
            reject = []
            deadline = 5

            [[left_out]]
            tests = ["kms_ccs*", "core_auth@getclient-*"]
            why = "some reason"
        "#;
        let list = List::parse(text).unwrap();
        let [modes, basic, many] = &list.tests()[..] else {
            panic!("{list:?}");
        };
        assert_eq!(modes.words, ["/usr/bin/modetest", "-c"]);
        assert_eq!((modes.deadline, basic.deadline), (5, DEADLINE));
        assert_eq!(basic.name, "core_auth@basic-auth");
        let words = [
            "/usr/libexec/igt-gpu-tools/core_auth",
            "--run-subtest",
            "basic-auth",
        ];
        assert_eq!(basic.words, words);
        assert!(many.short && !basic.short);
        assert!(list.knows("core_auth@getclient-simple") && list.knows("kms_ccs"));
        assert!(!list.knows("core_auth@other"));
    }

    #[test]
    fn a_contradiction_is_an_error() {
        let listed = "[[igt]]\nprogram = \"a\"\nsubtests = [\"b\", \"b\"]\n";
        let empty = "command = []\nleft_out = []\n";
        let error = List::parse(&format!("{empty}{listed}")).unwrap_err();
        assert_eq!(error.to_string(), "list.toml has a@b twice");
        let left = "command = []\n[[left_out]]\ntests = [\"a*\"]\nwhy = \"\"\n";
        let error = List::parse(&format!("{left}{listed}")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "list.toml leaves out a@b, which it lists"
        );
    }
}
