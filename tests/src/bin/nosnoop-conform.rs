//! `nosnoop-conform`: checks any vhost-user GPU back-end against the specifications.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people"
)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Parser;
use nosnoop_tests::conform::causes::{self, Account, Cause};
use nosnoop_tests::conform::run::{self, Finding, Run, Trouble, Verdict};
use nosnoop_tests::conform::target::Target;
use nosnoop_tests::conform::{Case, Group, cases, report, sentences};
use nosnoop_tests::frontend::set_patience;
use nosnoop_tests::glob::matches;
use nosnoop_tests::readme;

/// Checks vhost-user GPU back-ends against the specifications, case by case.
///
/// Ends with status 0 when no case failed, 1 when one did, 2 when there was nothing to test: a
/// back-end that cannot be started or reached, or a bad command line.
#[derive(Parser)]
#[command(name = "nosnoop-conform", version)]
struct Arguments {
    /// A running back-end that serves one front-end after the other, as [NAME=]PATH; repeatable
    #[arg(long, value_name = "[NAME=]PATH")]
    socket: Vec<String>,

    /// A command that starts one, with {socket} for the path, as [NAME=]CMD; started for each case;
    /// repeatable
    #[arg(long, value_name = "[NAME=]CMD")]
    spawn: Vec<String>,

    /// A back-end known by name: ours, vhost-user-gpu, vhost-device-gpu, vhost-device-gpu-virgl; it is
    /// built or fetched first; repeatable
    #[arg(long, value_name = "NAME")]
    backend: Vec<String>,

    /// Only the cases or groups that match, such as 2d, cursor-03, '*-blob-*'; repeatable
    #[arg(long, value_name = "GLOB")]
    only: Vec<String>,

    /// List the cases instead of running them
    #[arg(long)]
    list: bool,

    /// How long to wait for each single answer; a case may take twice that
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = seconds)]
    patience: f64,

    /// Write all results there as JSON
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,

    /// Write all results there as JUnit XML
    #[arg(long, value_name = "PATH")]
    junit: Option<PathBuf>,

    /// Write a page there that compares the back-ends
    #[arg(long, value_name = "PATH")]
    html: Option<PathBuf>,

    /// Write a table of the groups there as Markdown, and what known back-ends' failures come from
    #[arg(long, value_name = "PATH")]
    markdown: Option<PathBuf>,

    /// Put these into the sections 'conform' and 'causes' of this document too, between their marks
    #[arg(long, value_name = "PATH")]
    readme: Option<PathBuf>,

    /// Write the list of the specifications' sentences with their cases there, as Markdown
    #[arg(long, value_name = "PATH")]
    sentences: Option<PathBuf>,
}

fn seconds(value: &str) -> Result<f64, String> {
    match value.parse() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number of seconds from 0.1 to 3600".to_owned()),
    }
}

fn main() -> ExitCode {
    // A case that breaks is reported as such; its thread's own words would only tear the list.
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().name() == Some("main") {
            loud(panic);
        }
    }));
    match checked(&Arguments::parse()) {
        Ok(code) => code,
        Err(what) => {
            eprintln!("nosnoop-conform: {what}");
            ExitCode::from(2)
        }
    }
}

fn checked(arguments: &Arguments) -> Result<ExitCode, String> {
    let all = cases::all();
    let chosen: Vec<_> = all
        .iter()
        .filter(|case| chosen(case, &arguments.only))
        .copied()
        .collect();
    if chosen.is_empty() {
        return Err("no case matches --only; --list shows them all".to_owned());
    }
    if let Some(path) = &arguments.sentences {
        write(path, &sentences::markdown(&sentences::all(), &all))?;
    }
    if arguments.list {
        list(&chosen);
        return Ok(ExitCode::SUCCESS);
    }
    let targets = targets(arguments)?;
    if targets.is_empty() {
        return match arguments.sentences {
            Some(_) => Ok(ExitCode::SUCCESS),
            None => Err("which back-end? --socket, --spawn or --backend; --help tells more".into()),
        };
    }
    let patience = Duration::from_secs_f64(arguments.patience);
    set_patience(patience);
    let causes = causes::all();
    let mut runs = Vec::new();
    let mut worst = 0;
    for target in &targets {
        match test(target, &chosen, &causes, patience) {
            Ok(run) => {
                worst = worst.max(u8::from(run.counts()[1] > 0));
                if let Some(why) = run.unasked() {
                    eprintln!("nosnoop-conform: {}: {why}", target.name);
                    worst = 2;
                }
                runs.push(run);
            }
            Err(trouble) => {
                eprintln!("nosnoop-conform: {}: {trouble}", target.name);
                worst = worst.max(match trouble {
                    Trouble::Absent(_) => 2,
                    Trouble::Stranger(_) => 1,
                });
            }
        }
    }
    if !runs.is_empty() {
        write_reports(arguments, &runs, &chosen, &causes)?;
    }
    Ok(ExitCode::from(worst))
}

fn targets(arguments: &Arguments) -> Result<Vec<Target>, String> {
    let sockets = arguments.socket.iter().map(|value| Target::socket(value));
    let spawned = arguments.spawn.iter().map(|value| Target::spawn(value));
    let known = arguments.backend.iter().map(|name| Target::known(name));
    let targets: Vec<_> = known
        .chain(spawned)
        .chain(sockets)
        .collect::<Result<_, _>>()?;
    for (at, target) in targets.iter().enumerate() {
        if targets
            .iter()
            .take(at)
            .any(|other| other.name == target.name)
        {
            let name = &target.name;
            return Err(format!(
                "two back-ends are called {name}: write NAME= in front of one"
            ));
        }
    }
    Ok(targets)
}

fn chosen(case: &Case, only: &[String]) -> bool {
    let id = case.id();
    only.is_empty()
        || only
            .iter()
            .any(|glob| matches(glob, &id) || glob == case.group.name())
}

fn list(cases: &[Case]) {
    for case in cases {
        println!("{:<18} {}", case.id(), case.name);
    }
    let count = |group| cases.iter().filter(|case| case.group == group).count();
    let groups = Group::ALL.into_iter().filter(|group| count(*group) > 0);
    println!("{} cases in {} groups", cases.len(), groups.count());
}

fn test(
    target: &Target,
    cases: &[Case],
    causes: &[Cause],
    patience: Duration,
) -> Result<Run, Trouble> {
    let probe = run::probe(target, patience)?;
    println!("{}: offers {}", target.name, probe.names().join(" "));
    let mut done: usize = 0;
    let run = run::run(target, probe, cases, patience, &mut |finding| {
        done = done.saturating_add(1);
        tell(finding, done, cases.len());
    });
    let [passed, failed, skipped] = run.counts();
    let took: Duration = run.findings.iter().map(|one| one.took).sum();
    println!(
        "{}: {passed} passed, {failed} failed, {skipped} skipped in {:.1} s",
        target.name,
        took.as_secs_f64()
    );
    if let Some(account) = Account::of(&run, causes) {
        for (cause, ids) in &account.met {
            println!("  {:3} {}", ids.len(), cause.title);
        }
        for line in account.open() {
            println!("  {line}");
        }
    }
    println!();
    Ok(run)
}

fn tell(finding: &Finding, done: usize, all: usize) {
    println!(
        "[{done:3}/{all}] {} {:<18} {:5} ms  {}",
        finding.verdict.word(),
        finding.case.id(),
        finding.took.as_millis(),
        finding.case.name
    );
    if finding.verdict != Verdict::Pass {
        println!("          {}", finding.verdict.reason());
    }
}

fn write_reports(
    arguments: &Arguments,
    runs: &[Run],
    cases: &[Case],
    causes: &[Cause],
) -> Result<(), String> {
    let sentences = sentences::all();
    if let Some(path) = &arguments.json {
        write(path, &report::json(runs, causes))?;
    }
    if let Some(path) = &arguments.junit {
        write(path, &report::junit(runs))?;
    }
    let today = report::date(SystemTime::now());
    let table = report::markdown(runs, cases, &today);
    let list = report::causes::list(runs, causes, &sentences);
    if let Some(path) = &arguments.markdown {
        write(path, &format!("{table}\n{list}"))?;
    }
    if let Some(path) = &arguments.readme {
        for (section, text) in [("conform", &table), ("causes", &list)] {
            readme::put(path, section, text).map_err(|error| error.to_string())?;
        }
    }
    if let Some(path) = &arguments.html {
        let page = report::html(runs, cases, causes, &sentences, &today);
        write(path, &page)?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("write {}: {error}", path.display()))
}
