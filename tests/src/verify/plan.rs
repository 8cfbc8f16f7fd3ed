//! Which checks there are, and with which command each is run.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::{env, io};

use serde::Deserialize;

use crate::lab::programs::{TEST_BUGS, TEST_MEMTYPE, TestBuild};

/// The package whose test target [`VM_TARGET`] boots virtual machines.
const TESTS_PACKAGE: &str = "nosnoop-tests";

/// Name of the test target that needs a virtual machine.
const VM_TARGET: &str = "vm";

/// What the names of test targets begin with that need the daemon with a 3D renderer, and software
/// OpenGL or Vulkan.
const VIRGL_TARGETS: [&str; 2] = ["virgl", "venus"];

/// The tests that run the conformance cases against the daemon with each planted bug.
const PLANTED_TARGET: &str = "planted";

/// Seconds that the fuzzer gets: enough to go through its corpus and some way on, little beside the rest.
const FUZZ_SECONDS: &str = "60";

/// What to leave out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// No virtual machines.
    pub no_vm: bool,
    /// No release tests, no fuzzing.
    pub quick: bool,
}

/// What a step's command says by its end and its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One check: the exit status decides.
    Check,
    /// A `cargo test` run: its tests are counted.
    Tests,
    /// A `cargo test ... -- --list` run: each test that it names counts as skipped, for this reason.
    SkippedTests(&'static str),
    /// Not run: one check counts as skipped, for this reason.
    Skipped(&'static str),
    /// `cargo deny check advisories`: needs a database from the network, and is skipped where that is out of reach.
    Advisories,
}

/// One step.
#[derive(Debug)]
pub struct Step {
    /// Short name, also of its log.
    pub name: &'static str,
    /// What it does with what its command says.
    pub kind: Kind,
    /// Arguments to cargo.
    pub arguments: Vec<String>,
    /// Environment on top of the own one.
    pub environment: Vec<(&'static str, String)>,
    /// After this time it has failed. Several times what a slow machine needs, so that only a hang meets it.
    pub limit: Duration,
}

impl Step {
    fn new(name: &'static str, kind: Kind, minutes: u64, arguments: &[&str]) -> Self {
        Self {
            name,
            kind,
            arguments: arguments.iter().map(|&a| a.to_owned()).collect(),
            environment: Vec::new(),
            limit: Duration::from_secs(minutes.saturating_mul(60)),
        }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// The command of the step, to be run in the workspace's root.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = cargo();
        command.args(&self.arguments);
        command.envs(self.environment.iter().map(|(name, value)| (*name, value)));
        command
    }

    /// The command line, for people.
    #[must_use]
    pub fn command_line(&self) -> String {
        let environment = self.environment.iter().map(|(n, v)| format!("{n}={v:?} "));
        format!(
            "{}cargo {}",
            environment.collect::<String>(),
            self.arguments.join(" ")
        )
    }
}

/// The cargo that runs this program, or the one on the path.
fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // The second one is for rustfmt, which asks for the terminal even where it writes into a pipe.
    cargo.env("CARGO_TERM_COLOR", "never").env("TERM", "dumb");
    cargo
}

/// Where the workspace is and what test targets it has.
#[derive(Clone, Debug)]
pub struct Workspace {
    /// Folder of the workspace's `Cargo.toml`.
    pub root: PathBuf,
    /// Folder for what is built.
    pub target: PathBuf,
    /// Names of its integration tests.
    pub test_targets: Vec<String>,
}

#[derive(Deserialize)]
struct Metadata {
    workspace_root: PathBuf,
    target_directory: PathBuf,
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl Workspace {
    /// Asks `cargo metadata` about the workspace of the current folder.
    ///
    /// # Errors
    /// Cargo cannot be run, or does not find a workspace.
    pub fn find() -> io::Result<Self> {
        let output = cargo()
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .output()?;
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr);
            return Err(io::Error::other(message.trim().to_owned()));
        }
        Self::parse(&output.stdout)
    }

    fn parse(metadata: &[u8]) -> io::Result<Self> {
        let metadata: Metadata = serde_json::from_slice(metadata)?;
        let mut test_targets: Vec<String> = metadata
            .packages
            .into_iter()
            .flat_map(|package| package.targets)
            .filter(|target| target.kind.iter().any(|kind| kind == "test"))
            .map(|target| target.name)
            .collect();
        test_targets.sort();
        test_targets.dedup();
        Ok(Self {
            root: metadata.workspace_root,
            target: metadata.target_directory,
            test_targets,
        })
    }

    fn daemon(&self, profile: &str) -> String {
        let path = self.target.join(profile).join("nosnoop-gpu");
        path.to_string_lossy().into_owned()
    }

    /// The target folder of a daemon with a feature for tests, so that it never takes the place of
    /// the ordinary one.
    fn test_folder(&self, build: TestBuild) -> String {
        let path = self.target.join(build.feature);
        path.to_string_lossy().into_owned()
    }

    /// That daemon.
    fn test_daemon(&self, build: TestBuild) -> String {
        format!("{}/debug/nosnoop-gpu", self.test_folder(build))
    }
}

/// All steps in the order in which they run: what fails soonest first.
#[must_use]
pub fn steps(workspace: &Workspace, options: Options) -> Vec<Step> {
    use Kind::{Advisories, Check, Skipped, SkippedTests, Tests};

    let mut steps = vec![
        Step::new("fmt", Check, 5, &["fmt", "--all", "--check"]),
        Step::new(
            "clippy",
            Check,
            30,
            &[
                "clippy",
                "--workspace",
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ],
        ),
        Step::new("doc", Check, 20, &["doc", "--workspace", "--no-deps"])
            .with("RUSTDOCFLAGS", "-D warnings"),
        // The tests' package is named too, so that dependencies get the same features as in the steps after it and
        // are not built a second time.
        Step::new(
            "build",
            Check,
            30,
            &[
                "build",
                "-p",
                "nosnoop-gpu",
                "-p",
                TESTS_PACKAGE,
                "--bin",
                "nosnoop-gpu",
            ],
        ),
        Step::new(
            "build-release",
            Check,
            30,
            &[
                "build",
                "--release",
                "-p",
                "nosnoop-gpu",
                "-p",
                TESTS_PACKAGE,
                "--bin",
                "nosnoop-gpu",
            ],
        ),
    ];
    steps.extend(test_build_steps(workspace));

    let mut tests = Step::new(
        "test",
        Tests,
        40,
        &["test", "--workspace", "--no-fail-fast", "--lib", "--bins"],
    )
    .with("NOSNOOP_GPU_BIN", workspace.daemon("debug"));
    let of_own = |target: &&String| {
        [VM_TARGET, PLANTED_TARGET].contains(&target.as_str()) || needs_renderer(target)
    };
    for target in workspace.test_targets.iter().filter(|t| !of_own(t)) {
        tests
            .arguments
            .extend(["--test".to_owned(), target.clone()]);
    }
    tests
        .arguments
        .extend(["--".to_owned(), "--show-output".to_owned()]);
    steps.push(tests);

    steps.push(Step::new(
        "test-doc",
        Check,
        20,
        &["test", "--workspace", "--doc", "--no-fail-fast"],
    ));

    let release = [
        "test",
        "--release",
        "-p",
        "nosnoop-protocol",
        "-p",
        "nosnoop-gpu",
        "--no-fail-fast",
        "--lib",
        "--bins",
        "--tests",
        "--",
        "--show-output",
    ];
    let release_kind = if options.quick {
        Skipped("left out by --quick")
    } else {
        Tests
    };
    steps.push(Step::new("test-release", release_kind, 40, &release));
    let command_line = [
        "test",
        "--release",
        "-p",
        TESTS_PACKAGE,
        "--test",
        "command_line",
        "--",
        "--show-output",
    ];
    steps.push(
        Step::new("command-line-release", release_kind, 20, &command_line)
            .with("NOSNOOP_GPU_BIN", workspace.daemon("release")),
    );

    let planted = [
        "test",
        "-p",
        TESTS_PACKAGE,
        "--test",
        PLANTED_TARGET,
        "--",
        "--show-output",
    ];
    steps.push(
        Step::new("planted", release_kind, 20, &planted)
            .with("NOSNOOP_GPU_BIN", workspace.daemon("debug"))
            .with(TEST_BUGS.variable, workspace.test_daemon(TEST_BUGS)),
    );

    // One at a time: a software renderer takes every processor, and deadlines count. They fetch the root with
    // OpenGL and Vulkan and build the daemon themselves.
    let mut virgl = Step::new(
        "virgl",
        Tests,
        60,
        &["test", "-p", TESTS_PACKAGE, "--no-fail-fast"],
    );
    let targets = workspace.test_targets.iter();
    for target in targets.filter(|name| needs_renderer(name)) {
        virgl
            .arguments
            .extend(["--test".to_owned(), target.clone()]);
    }
    virgl
        .arguments
        .extend(["--", "--show-output", "--test-threads=1"].map(str::to_owned));
    steps.push(virgl);

    let fuzz = [
        "run",
        "--release",
        "-p",
        TESTS_PACKAGE,
        "--bin",
        "fuzz",
        "--",
        "--seconds",
        FUZZ_SECONDS,
    ];
    let fuzz_kind = if options.quick {
        Skipped("left out by --quick")
    } else {
        Check
    };
    steps.push(Step::new("fuzz", fuzz_kind, 15, &fuzz));

    steps.push(if options.no_vm {
        Step::new(
            "vm",
            SkippedTests("left out by --no-vm or NOSNOOP_VM=0"),
            20,
            &["test", "--workspace", "--test", VM_TARGET, "--", "--list"],
        )
    } else {
        // One at a time: each virtual machine takes a core and a deadline counts. The release daemon: what is shipped.
        Step::new(
            "vm",
            Tests,
            60,
            &[
                "test",
                "--workspace",
                "--no-fail-fast",
                "--test",
                VM_TARGET,
                "--",
                "--show-output",
                "--test-threads=1",
            ],
        )
        .with("NOSNOOP_GPU_BIN", workspace.daemon("release"))
        .with(TEST_MEMTYPE.variable, workspace.test_daemon(TEST_MEMTYPE))
    });

    let deny = ["deny", "check", "bans", "licenses", "sources"];
    let advisories = ["deny", "check", "advisories"];
    let (deny_kind, advisories_kind) = if has_cargo_deny() {
        (Check, Advisories)
    } else {
        let reason = "cargo-deny is not installed: cargo install cargo-deny --locked";
        (Skipped(reason), Skipped(reason))
    };
    steps.push(Step::new("deny", deny_kind, 5, &deny));
    steps.push(Step::new("advisories", advisories_kind, 5, &advisories));
    steps
}

/// What concerns the daemon with features for tests: the other ways to build it.
fn test_build_steps(workspace: &Workspace) -> Vec<Step> {
    let steps = |build: TestBuild, names: [&'static str; 3], unit_tests| {
        let target = workspace.test_folder(build);
        let step = |name, kind, command, last: &[&str]| {
            let first = [
                command,
                "-p",
                "nosnoop-gpu",
                "--features",
                build.feature,
                "--target-dir",
                &target,
            ];
            Step::new(name, kind, 30, &[&first[..], last].concat())
        };
        let [clippy, make, test] = names;
        let lints = ["--all-targets", "--", "-D", "warnings"];
        let tests = ["--lib", unit_tests, "--", "--show-output"];
        [
            step(clippy, Kind::Check, "clippy", &lints),
            step(make, Kind::Check, "build", &[]),
            step(test, Kind::Tests, "test", &tests),
        ]
    };
    let memtype = [
        "clippy-test-memtype",
        "build-test-memtype",
        "test-test-memtype",
    ];
    let bugs = ["clippy-test-bugs", "build-test-bugs", "test-test-bugs"];
    let mut all = Vec::new();
    all.extend(steps(TEST_MEMTYPE, memtype, "memory::test_memtype"));
    all.extend(steps(TEST_BUGS, bugs, "planted::"));
    all
}

fn has_cargo_deny() -> bool {
    cargo()
        .args(["deny", "--version"])
        .output()
        .is_ok_and(|output| output.status.success())
}

fn needs_renderer(target: &str) -> bool {
    VIRGL_TARGETS.iter().any(|begin| target.starts_with(begin))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{Kind, Options, TEST_BUGS, TEST_MEMTYPE, TestBuild, Workspace, steps};

    fn workspace() -> Workspace {
        Workspace {
            root: PathBuf::from("/w"),
            target: PathBuf::from("/w/target"),
            test_targets: ["two_d", "venus", "virgl", "virgl_draws", "vm"]
                .map(str::to_owned)
                .to_vec(),
        }
    }

    fn kind(options: Options, name: &str) -> Kind {
        let steps = steps(&workspace(), options);
        steps.iter().find(|s| s.name == name).unwrap().kind
    }

    #[test]
    fn metadata_gives_test_targets_once_and_in_order() {
        let found = Workspace::parse(
            br#"{"workspace_root": "/w", "target_directory": "/t", "version": 1, "packages": [
                {"targets": [{"name": "b", "kind": ["lib"]}, {"name": "vm", "kind": ["test"]}]},
                {"targets": [{"name": "a", "kind": ["test"]}, {"name": "vm", "kind": ["test"]}]}]}"#,
        )
        .unwrap();
        assert_eq!(found.root, PathBuf::from("/w"));
        assert_eq!(found.target, PathBuf::from("/t"));
        assert_eq!(found.test_targets, ["a", "vm"]);
    }

    #[test]
    fn the_ordinary_tests_leave_the_vm_tests_to_their_own_step() {
        let steps = steps(&workspace(), Options::default());
        let test = steps.iter().find(|s| s.name == "test").unwrap();
        assert!(
            test.command_line()
                .contains("--test two_d -- --show-output"),
            "{}",
            test.command_line()
        );
        assert!(!test.arguments.contains(&"vm".to_owned()));
        let vm = steps.iter().find(|s| s.name == "vm").unwrap();
        assert_eq!(vm.kind, Kind::Tests);
        let virgl = steps.iter().find(|s| s.name == "virgl").unwrap();
        let targets =
            "--test venus --test virgl --test virgl_draws -- --show-output --test-threads=1";
        assert!(virgl.command_line().ends_with(targets));
    }

    #[test]
    fn what_is_left_out_is_a_skip_with_a_reason() {
        let quick = Options {
            quick: true,
            ..Options::default()
        };
        assert!(matches!(kind(quick, "fuzz"), Kind::Skipped(_)));
        assert!(matches!(kind(quick, "test-release"), Kind::Skipped(_)));
        assert_eq!(kind(quick, "vm"), Kind::Tests);
        let no_vm = Options {
            no_vm: true,
            ..Options::default()
        };
        assert!(matches!(kind(no_vm, "vm"), Kind::SkippedTests(_)));
        assert_eq!(kind(no_vm, "fuzz"), Kind::Check);
    }

    #[test]
    fn only_its_own_steps_see_the_feature_for_tests() {
        for step in steps(&workspace(), Options::default()) {
            let line = step.command_line();
            for (build, user) in [(TEST_MEMTYPE, "vm"), (TEST_BUGS, "planted")] {
                let TestBuild { feature, variable } = build;
                let has_feature = line.contains(&format!("--features {feature}"));
                let has_folder = line.contains(&format!("--target-dir /w/target/{feature}"));
                assert_eq!(has_feature, step.name.ends_with(feature), "{line}");
                assert_eq!(has_feature, has_folder, "{line}");
                let named = format!("{variable}=\"/w/target/{feature}/debug/nosnoop-gpu\"");
                assert_eq!(line.contains(&named), step.name == user, "{line}");
            }
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = steps(&workspace(), Options::default())
            .iter()
            .map(|s| s.name)
            .collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
