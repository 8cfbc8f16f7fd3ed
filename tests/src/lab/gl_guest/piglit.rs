//! A fixed list of piglit's shader tests: in a guest on our daemon with virgl, and on this machine with
//! the same llvmpipe directly.
//!
//! Both draw with the same program code on the same processor, so every difference is virgl's or ours and
//! needs an explanation in `piglit.toml`. A process runs many tests: loading it takes an emulated
//! processor longer than most of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::process::Stdio;

use nosnoop_guest::wire::Task;
use nosnoop_guest::wire::commands::{Command, Ending};
use serde::{Deserialize, Serialize};

use super::super::demo::wait_for_driver;
use super::super::files::Files;
use super::super::gl::GlRoot;
use super::super::qemu::{Machine, Setup};
use super::super::{LabError, Result, date, say};
use super::{Gl, GlLab, MEMORY};

/// The tests: paths below piglit's folder of specifications, one a line.
const LIST: &str = include_str!("piglit.txt");

/// Explanations written by hand.
const EXPLAINED: &str = include_str!("piglit.toml");

/// Where Debian has piglit.
const PIGLIT: &str = "usr/lib/x86_64-linux-gnu/piglit";

/// Tests in one process.
const CHUNK: usize = 20;

/// Seconds for one process.
const DEADLINE: u64 = 420;

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It found what it expects.
    Pass,
    /// It found something else.
    Fail,
    /// It found what it expects, and something to complain of.
    Warn,
    /// OpenGL here lacks what it is about.
    Skip,
    /// Its process died of it.
    Crash,
    /// Its process was not done in time.
    Timeout,
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Warn => "warn",
            Self::Skip => "skip",
            Self::Crash => "crash",
            Self::Timeout => "timeout",
        })
    }
}

impl Verdict {
    fn from_word(word: &str) -> Option<Self> {
        match word {
            "pass" => Some(Self::Pass),
            "fail" => Some(Self::Fail),
            "warn" => Some(Self::Warn),
            "skip" => Some(Self::Skip),
            "crash" => Some(Self::Crash),
            _ => None,
        }
    }
}

/// Why tests end differently.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Explanation {
    tests: Vec<String>,
    llvmpipe: Verdict,
    ours: Verdict,
    /// Whose doing it is: virglrenderer's, Mesa's or ours.
    whose: String,
    why: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Explanations {
    #[serde(default)]
    explained: Vec<Explanation>,
}

/// The tests of the list.
#[must_use]
pub fn list() -> Vec<&'static str> {
    LIST.lines().collect()
}

/// The program that runs a test.
fn runner(test: &str) -> &'static str {
    match test.split('/').next() {
        Some("glsl-es-1.00") => "shader_runner_gles2",
        Some("glsl-es-3.00") => "shader_runner_gles3",
        _ => "shader_runner",
    }
}

/// Adds the programs and the tests to what a guest boots with.
pub(super) fn add(files: &mut Files, gl: &GlRoot) -> Result<()> {
    let more = gl.folder().join(PIGLIT).join("lib");
    let mut programs = BTreeSet::new();
    for test in list() {
        programs.insert(runner(test));
        files.file(gl, &format!("{PIGLIT}/tests/spec/{test}"));
    }
    for program in programs {
        let path = format!("{PIGLIT}/bin/{program}");
        let program = gl.program(&path).with_more(&more, []);
        files.linked(&path, &program)?;
    }
    Ok(())
}

/// Each test's verdict on both.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// How and when it was made.
    pub heading: String,
    /// The tests with their verdicts: llvmpipe directly, and in the guest on our daemon.
    pub verdicts: Vec<(String, Verdict, Verdict)>,
}

impl Comparison {
    /// Tests that differ and are not explained so, one line each.
    ///
    /// # Errors
    /// When `piglit.toml` is wrong in itself.
    pub fn problems(&self) -> Result<Vec<String>> {
        let found: Explanations =
            toml::from_str(EXPLAINED).map_err(LabError::context("piglit.toml"))?;
        Ok(self.unexplained(&found))
    }

    fn unexplained(&self, explanations: &Explanations) -> Vec<String> {
        let mut problems = Vec::new();
        for (test, llvmpipe, ours) in &self.verdicts {
            let mut explained = explanations.explained.iter();
            let explained = explained.find(|one| one.tests.contains(test));
            let fits = match explained {
                Some(one) => (one.llvmpipe, one.ours) == (*llvmpipe, *ours),
                None => llvmpipe == ours,
            };
            if !fits {
                problems.push(format!("{test}: llvmpipe {llvmpipe}, ours {ours}"));
            }
        }
        problems
    }

    /// How many ended how, and what differs with its explanation.
    ///
    /// # Errors
    /// When `piglit.toml` is wrong in itself.
    pub fn markdown(&self) -> Result<String> {
        let found: Explanations =
            toml::from_str(EXPLAINED).map_err(LabError::context("piglit.toml"))?;
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for (_, llvmpipe, ours) in &self.verdicts {
            *counts.entry(format!("{llvmpipe} | {ours}")).or_default() += 1;
        }
        let mut text = format!(
            "{}\n\n| llvmpipe | ours | tests |\n|---|---|---:|\n",
            self.heading
        );
        for (pair, count) in counts {
            text.push_str(&format!("| {pair} | {count} |\n"));
        }
        for one in found.explained {
            let tests = one.tests.join(", ");
            text.push_str(&format!("\n* {tests}: {} ({})\n", one.why, one.whose));
        }
        Ok(text)
    }
}

/// Reads what a process wrote about `count` tests; one that it broke off in gets `broken`.
fn read(lines: &[String], count: usize, broken: Option<Verdict>) -> Vec<Verdict> {
    let mut verdicts: Vec<Verdict> = Vec::new();
    for line in lines {
        // PIGLIT: {"subtest": {"name" : "pass"}}, or {"result": "pass" } where there is one test.
        let Some(rest) = line.strip_prefix("PIGLIT: {") else {
            continue;
        };
        let Some((_, word)) = rest.split_once(": \"") else {
            continue;
        };
        let word = word.split('"').next().unwrap_or_default();
        if let Some(verdict) = Verdict::from_word(word)
            && verdicts.len() < count
        {
            verdicts.push(verdict);
        }
    }
    if let Some(broken) = broken
        && verdicts.len() < count
    {
        verdicts.push(broken);
    }
    verdicts
}

/// Runs all tests by `run`, which is given the program and the tests of one process.
fn run_all(mut run: impl FnMut(&str, &[&str]) -> Result<Vec<Verdict>>) -> Result<Vec<Verdict>> {
    let all = list();
    let mut verdicts = Vec::new();
    while verdicts.len() < all.len() {
        let left = &all[verdicts.len()..];
        let program = left.first().map_or("", |test| runner(test));
        let same = left.iter().take_while(|test| runner(test) == program);
        let chunk = same.take(CHUNK).copied().collect::<Vec<_>>();
        let mut part = run(program, &chunk)?;
        if part.is_empty() {
            return Err(LabError::failed(format!("{program} says nothing")));
        }
        verdicts.append(&mut part);
        say(format_args!(
            "  piglit: {} of {}",
            verdicts.len(),
            all.len()
        ));
    }
    Ok(verdicts)
}

fn words(folder: &str, program: &str, tests: &[&str]) -> Vec<String> {
    let program = format!("{folder}/bin/{program}");
    let tests = tests
        .iter()
        .map(|test| format!("{folder}/tests/spec/{test}"));
    let options = ["-auto", "-fbo", "-report-subtests"].map(str::to_owned);
    [program].into_iter().chain(tests).chain(options).collect()
}

const ENVIRONMENT: [(&str, &str); 2] = [
    ("PIGLIT_PLATFORM", "surfaceless_egl"),
    ("MESA_SHADER_CACHE_DISABLE", "true"),
];

/// On this machine.
fn on_host(gl: &GlRoot) -> Result<Vec<Verdict>> {
    let folder = gl.folder().join(PIGLIT);
    let libraries = folder.join("lib");
    let software = ("LIBGL_ALWAYS_SOFTWARE", "true".into());
    let environment = gl.environment().into_iter().chain([software]);
    let environment = environment.collect::<Vec<_>>();
    let folder = folder.display().to_string();
    run_all(|program, tests| {
        let words = words(&folder, program, tests);
        let path = format!("{PIGLIT}/bin/{program}");
        let program = gl.program(&path);
        let program = program.with_more(&libraries, environment.iter().cloned());
        let output = program
            .command()
            .args(&words[1..])
            .envs(ENVIRONMENT)
            .stdin(Stdio::null())
            .output()
            .map_err(LabError::context(path))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let lines = text.lines().map(str::to_owned).collect::<Vec<_>>();
        let broken = (!output.status.success()).then_some(Verdict::Crash);
        Ok(read(&lines, tests.len(), broken))
    })
}

/// In a guest.
fn in_guest(lab: &GlLab, device: Gl) -> Result<Vec<Verdict>> {
    let root = device.root(&lab.lab.root, &lab.gl);
    let mut backend = device.start(&lab.gl, &root)?;
    let setup = Setup {
        device: device.device(),
        memory: MEMORY,
        ..Setup::new(Task::Commands)
    };
    let mut machine = Machine::boot(&root, &lab.lab.initial, &mut backend, &setup)?;
    wait_for_driver(&mut machine)?;
    let folder = format!("/{PIGLIT}");
    let environment = ENVIRONMENT.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let verdicts = run_all(|program, tests| {
        let ran = machine.run(&Command {
            words: words(&folder, program, tests),
            deadline: DEADLINE,
            environment: environment.to_vec(),
            stop: None,
        })?;
        let broken = match ran.ending {
            Ending::Status(0) => None,
            Ending::Deadline | Ending::Stuck => Some(Verdict::Timeout),
            _ => Some(Verdict::Crash),
        };
        let part = read(&ran.lines, tests.len(), broken);
        if part.len() < tests.len() {
            say(ran.lines.join("\n"));
        }
        Ok(part)
    })?;
    machine.power_off()?;
    Ok(verdicts)
}

/// Runs the list on both.
///
/// # Errors
/// When a process does not start or the machine is lost; failing tests are part of the result.
pub fn run(lab: &GlLab, device: Gl) -> Result<Comparison> {
    let llvmpipe = on_host(&lab.gl)?;
    let ours = in_guest(lab, device)?;
    let verdicts = list().into_iter().zip(llvmpipe.into_iter().zip(ours));
    let verdicts = verdicts.map(|(test, (llvmpipe, ours))| (test.to_owned(), llvmpipe, ours));
    let root = &lab.lab.root;
    Ok(Comparison {
        heading: format!(
            "{}, {}, guest Linux {}, {}",
            device.description(),
            root.qemu_version,
            root.kernel.release,
            date::today()
        ),
        verdicts: verdicts.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_two_hundred_different_tests_and_explanations_are_about_them() {
        let listed = list();
        let mut sorted = listed.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!((listed.len(), sorted.len()), (200, 200));
        let found: Explanations = toml::from_str(EXPLAINED).unwrap();
        for one in found.explained {
            for test in one.tests {
                assert!(listed.contains(&&*test), "{test}");
            }
        }
    }

    #[test]
    fn what_a_process_wrote_is_read_and_the_test_that_ended_it_named() {
        let lines = [
            "PIGLIT TEST: 1 - a",
            "PIGLIT: {\"enumerate subtests\": [\"a\", \"b\"]}",
            "PIGLIT: {\"subtest\": {\"a\" : \"pass\"}}",
            "Probe color at (0,0)",
            "PIGLIT: {\"subtest\": {\"b\" : \"fail\"}}",
        ];
        let lines = lines.map(str::to_owned);
        let whole = read(&lines, 2, None);
        assert_eq!(whole, [Verdict::Pass, Verdict::Fail]);
        let broken = read(&lines[..3], 2, Some(Verdict::Crash));
        assert_eq!(broken, [Verdict::Pass, Verdict::Crash]);
        let one = ["PIGLIT: {\"result\": \"skip\" }".to_owned()];
        assert_eq!(read(&one, 1, None), [Verdict::Skip]);
    }

    #[test]
    fn a_difference_needs_its_explanation_and_an_explanation_its_difference() {
        let comparison = Comparison {
            heading: String::new(),
            verdicts: vec![
                ("a".to_owned(), Verdict::Pass, Verdict::Pass),
                ("b".to_owned(), Verdict::Pass, Verdict::Fail),
            ],
        };
        let explained = |test: &str| Explanations {
            explained: vec![Explanation {
                tests: vec![test.to_owned()],
                llvmpipe: Verdict::Pass,
                ours: Verdict::Fail,
                whose: "virglrenderer".to_owned(),
                why: "so".to_owned(),
            }],
        };
        assert!(comparison.unexplained(&explained("b")).is_empty());
        let problems = comparison.unexplained(&explained("a"));
        assert_eq!(
            problems,
            ["a: llvmpipe pass, ours pass", "b: llvmpipe pass, ours fail"]
        );
    }
}
