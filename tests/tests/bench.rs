//! `nosnoop-bench` as a whole: a very short run, its reports, and everything that a back-end can do wrong.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::cast_lossless,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "test code: a broken expectation is to stop the test loudly"
)]

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nosnoop_tests::bench::Missing;
use nosnoop_tests::bench::report::Report;
use nosnoop_tests::frontend::daemon;
use nosnoop_tests::lab::process::run_logged;

/// Far more than any run here takes, far less than forever.
const LIMIT: Duration = Duration::from_secs(120);

/// Says which fake back-end [`fake`] is to be.
const FAKE: &str = "NOSNOOP_BENCH_FAKE";

struct Run {
    success: bool,
    /// Standard output and error together.
    said: String,
}

/// Runs the program with its results in `folder`.
fn bench(folder: &Path, arguments: &[&str]) -> Run {
    let log = folder.join("log");
    let mut command = Command::new(env!("CARGO_BIN_EXE_nosnoop-bench"));
    command
        .args(arguments)
        .current_dir(folder)
        .env("CARGO_TARGET_DIR", folder)
        .env("NOSNOOP_GPU_BIN", daemon::binary().unwrap());
    let success = run_logged(&mut command, "nosnoop-bench", &log, LIMIT, || {}).is_ok();
    let said = fs::read_to_string(log).unwrap();
    Run { success, said }
}

/// The command line of a fake back-end.
fn fake_line(what: &str) -> String {
    let program = std::env::current_exe().unwrap();
    format!(
        "{what}=env {FAKE}={what} {FAKE}_SOCKET={{socket}} '{}' --exact fake --nocapture",
        program.display()
    )
}

/// Not a test of its own: the fake back-ends, when started as one.
#[test]
fn fake() {
    let (Ok(what), Ok(socket)) = (std::env::var(FAKE), std::env::var(format!("{FAKE}_SOCKET")))
    else {
        return;
    };
    if what == "dies-at-start" {
        eprintln!("no such option");
        std::process::exit(3);
    }
    if what == "never-listens" {
        std::thread::sleep(LIMIT);
        return;
    }
    let listener = UnixListener::bind(socket).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let mut header = [0; 12];
    match what.as_str() {
        "never-answers" => {
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
        "closes" => {}
        "web-server" => {
            stream.read_exact(&mut header).unwrap();
            stream
                .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                .unwrap();
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
        "no-features" => plain_answers(&mut stream),
        other => panic!("no fake is called {other}"),
    }
}

/// Answers every request as a device that has no features does, and no command at all.
fn plain_answers(stream: &mut UnixStream) {
    let mut header = [0; 12];
    while stream.read_exact(&mut header).is_ok() {
        let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
        let (request, size) = (word(0), word(8));
        stream.read_exact(&mut vec![0; size as usize]).unwrap();
        // GET_FEATURES.
        if request == 1 {
            let mut answer = Vec::new();
            for field in [request, 1 | 1 << 2, 8, 0, 0] {
                answer.extend(field.to_ne_bytes());
            }
            stream.write_all(&answer).unwrap();
        }
    }
}

fn report(folder: &Path) -> Report {
    let text = fs::read_to_string(folder.join("bench/bench.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_short_run_measures_its_rows_and_leaves_its_reports() {
    let folder = tempfile::tempdir().unwrap();
    // All but the large pictures, which take a debug build long.
    let only = ["*-1", "*-64", "*-xga*", "*-small", "image", "*map-*"];
    let only = only.iter().flat_map(|glob| ["--only", glob]);
    let arguments = [
        "--alone",
        "--seconds",
        "0.01",
        "--turns",
        "2",
        "--scale",
        "3",
    ];
    let arguments: Vec<&str> = arguments.into_iter().chain(only).collect();
    let run = bench(folder.path(), &arguments);
    assert!(run.success, "{}", run.said);
    let report = report(folder.path());
    assert_eq!(report.backends.len(), 1);
    assert_eq!(report.reasons(), [""; 0]);
    assert_eq!(report.rows.len(), 21);
    for row in &report.rows {
        assert_eq!(row.cells.len(), 1);
        let limit = row.limit.iter();
        for measured in row.cells.iter().chain(limit) {
            assert_eq!(measured.samples.len(), 2, "{}", row.id);
            for sample in &measured.samples {
                assert!(
                    sample.count >= 3 && sample.p50_us <= sample.p99_us,
                    "{}",
                    row.id
                );
            }
        }
        if row.id.ends_with("-64") {
            assert_eq!(row.cells[0].samples[0].count % 64, 0, "{}", row.id);
        }
    }
    let counts: Vec<usize> = report.costs.iter().map(|cost| cost.count).collect();
    assert_eq!(counts, [1, 3]);
    for cost in &report.costs {
        let each = cost.each.as_ref().unwrap();
        assert!(each.threads >= 2.0 && each.own_kib > 100.0, "{cost:?}");
    }
    // Every row is in the tables, and nothing is missing in them.
    let markdown = fs::read_to_string(folder.path().join("bench/bench.md")).unwrap();
    for row in &report.rows {
        assert!(run.said.contains(&row.title), "{}", row.title);
        let line = format!("| {} | {} |", row.id, row.title);
        assert_eq!(markdown.matches(&line).count(), 2, "{line}");
    }
    assert!(!markdown.contains("n/a"), "{markdown}");
    assert!(folder.path().join("bench/ratio-limits.svg").is_file());
    no_child_is_left(folder.path());
}

#[test]
fn a_back_end_that_lacks_features_has_reasons_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let plain = format!(
        "plain={} --shm-size 0 --socket-path {{socket}}",
        daemon::binary().unwrap().display()
    );
    let arguments = [
        "--seconds",
        "0.01",
        "--turns",
        "1",
        "--only",
        "map-4k",
        "--only",
        "command-1",
    ];
    let run = bench(
        folder.path(),
        &[&arguments[..], &["--against", &plain]].concat(),
    );
    assert!(run.success, "{}", run.said);
    let report = report(folder.path());
    let row = |id: &str| report.rows.iter().find(|row| row.id == id).unwrap();
    assert!(row("command-1").ratio(&row("command-1").cells[1]).is_some());
    let map = row("map-4k");
    assert_eq!(map.cells[0].samples.len(), 1);
    assert!(
        matches!(map.cells[1].missing, Some(Missing::Lacks(_))),
        "{map:?}"
    );
    assert_eq!(map.ratio(&map.cells[1]), None);
    assert!(run.said.contains("plain: does not offer"), "{}", run.said);
    assert!(folder.path().join("bench/ratio-plain.svg").is_file());
}

/// What cannot be measured ends the run soon, with one clear line and a bad status.
fn refused(line: &str, word: &str) {
    let folder = tempfile::tempdir().unwrap();
    let begin = Instant::now();
    let run = bench(
        folder.path(),
        &["--turns", "1", "--seconds", "0.01", "--against", line],
    );
    assert!(!run.success, "{}", run.said);
    let lines: Vec<&str> = run
        .said
        .lines()
        .filter(|line| !line.contains("building"))
        .collect();
    assert_eq!(lines.len(), 1, "{}", run.said);
    assert!(
        lines[0].starts_with("nosnoop-bench: ") && lines[0].contains(word),
        "{}",
        lines[0]
    );
    assert!(begin.elapsed() < Duration::from_secs(60));
    assert!(!folder.path().join("bench").exists());
    no_child_is_left(folder.path());
}

/// No process of a run is left behind: their environment names its folder.
fn no_child_is_left(folder: &Path) {
    let name = folder.display().to_string();
    let mut left = BTreeSet::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        if String::from_utf8_lossy(&environment).contains(&name) {
            left.insert(entry.path());
        }
    }
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn one_that_dies_at_start_is_named_with_its_last_words() {
    refused(
        &fake_line("dies-at-start"),
        "dies-at-start: it serves no front-end: ended with exit status: 3",
    );
}

#[test]
fn what_a_command_line_starts_besides_is_ended_too() {
    let line = fake_line("dies-at-start").replacen('=', "=sleep 1000 & ", 1);
    refused(&line, "ended with exit status: 3");
}

#[test]
fn one_that_never_listens_is_given_up() {
    refused(
        &fake_line("never-listens"),
        "never-listens: it serves no front-end: hangs: 5 s without the daemon's socket",
    );
}

#[test]
fn one_that_never_answers_is_given_up() {
    refused(
        &fake_line("never-answers"),
        "never-answers: it serves no front-end: hangs: 5 s without",
    );
}

#[test]
fn one_that_closes_the_connection_is_named() {
    refused(&fake_line("closes"), "closes: it serves no front-end: ");
}

#[test]
fn one_that_speaks_another_protocol_is_named() {
    refused(
        &fake_line("web-server"),
        "web-server: it serves no front-end: bad vhost-user answer",
    );
}

#[test]
fn one_that_takes_no_commands_is_given_up() {
    refused(
        &fake_line("no-features"),
        "no-features: it serves no front-end: hangs: 5 s without",
    );
}

#[test]
fn what_is_no_program_and_no_row_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, word) in [
        (vec!["--against", "/nowhere/at/all"], "/nowhere/at/all"),
        (vec!["--seconds", "0"], "0.001"),
        (vec!["--turns", "0"], "--turns"),
        (vec!["--only", "no-such-*"], "no-such-*"),
        (vec!["--scale", "0"], "--scale"),
        (vec!["--alone", "--against", "qemu"], "--alone"),
        (
            vec!["--alone", "--readme", "/nowhere/README.md"],
            "/nowhere/README.md",
        ),
        (vec!["--alone", "--readme", "log"], "bench: end"),
        (vec!["--alone", "--json", "/proc/x/bench.json"], "/proc/x"),
    ] {
        let run = bench(folder.path(), &arguments);
        assert!(!run.success && run.said.contains(word), "{}", run.said);
        assert!(!run.said.contains("turn 1"), "{}", run.said);
    }
}

#[test]
fn the_rows_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let run = bench(folder.path(), &["--list", "--only", "*map-*"]);
    assert!(run.success, "{}", run.said);
    let names: Vec<&str> = run
        .said
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(
        names,
        [
            "map-4k",
            "unmap-4k",
            "map-1m",
            "unmap-1m",
            "map-64m",
            "unmap-64m"
        ]
    );
}
