//! nosnoop-conform: its table of cases and sentences, our daemon, and back-ends that are none.
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

#[path = "conform/fake.rs"]
mod fake;

use std::collections::HashSet;
use std::io::Read;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nosnoop_tests::conform::{Group, cases, sentences};
use nosnoop_tests::frontend::daemon;
use nosnoop_tests::frontend::message::{FLAG_REPLY, FLAG_VERSION, Header, Request, feature};

/// Runs the program to its end, which must come within five minutes: only a hang takes so long.
fn conform(args: &[&str]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_nosnoop-conform"))
        .args(args)
        .env("NOSNOOP_GPU_BIN", daemon::binary().unwrap())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        stdout.read_to_end(&mut text).unwrap();
        text
    });
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if began.elapsed() > Duration::from_secs(300) {
            child.kill().unwrap();
            panic!("{args:?} did not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let mut stderr = Vec::new();
    child.stderr.unwrap().read_to_end(&mut stderr).unwrap();
    let stdout = reader.join().unwrap();
    Output {
        status,
        stdout,
        stderr,
    }
}

/// Checks status and that standard error is exactly one line with `says` in it.
fn check_refusal(output: &Output, code: i32, says: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains(says), "{stderr}");
}

#[test]
fn every_case_has_an_id_of_its_own_and_names_sentences_that_exist() {
    let sentences = sentences::all();
    let ids: HashSet<_> = sentences.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(ids.len(), sentences.len(), "an id is used twice");
    let mut before: Option<(usize, u32)> = None;
    for case in cases::all() {
        for id in case.sentences {
            assert!(ids.contains(id), "{} names {id}", case.id());
        }
        assert!(
            !case.name.is_empty() && !case.name.ends_with('.'),
            "{}",
            case.id()
        );
        let group = Group::ALL.iter().position(|one| *one == case.group);
        let place = (group.unwrap(), case.number);
        assert!(
            before.is_none_or(|before| before < place),
            "{} is out of order",
            case.id()
        );
        before = Some(place);
    }
}

#[test]
fn our_daemon_passes_every_case() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).display().to_string();
    let (json, junit, html, list) = (file("r.json"), file("r.xml"), file("r.html"), file("s.md"));
    let output = conform(&[
        "--backend",
        "ours",
        "--json",
        &json,
        "--junit",
        &junit,
        "--html",
        &html,
        "--sentences",
        &list,
    ]);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{stdout}");
    let report: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    let ours = &report["backends"][0];
    assert_eq!(
        (&ours["failed"], &ours["skipped"]),
        (&0.into(), &0.into()),
        "{stdout}"
    );
    assert_eq!(ours["cases"].as_array().unwrap().len(), cases::all().len());
    for (path, holds) in [
        (&junit, "</testsuites>"),
        (&html, "</html>"),
        (&list, "gpu-2d-1"),
    ] {
        assert!(
            std::fs::read_to_string(path).unwrap().contains(holds),
            "{path}"
        );
    }
}

#[test]
fn a_back_end_that_serves_one_front_end_after_the_other_can_be_tested_over_its_socket() {
    let daemon = nosnoop_tests::frontend::Daemon::start(&[]).unwrap();
    let socket = format!("mine={}", daemon.socket().display());
    let output = conform(&["--socket", &socket, "--only", "uuid", "--only", "2d-0?"]);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{stdout}");
    assert!(
        stdout.contains("mine: 13 passed, 0 failed, 0 skipped"),
        "{stdout}"
    );
}

#[test]
fn what_cannot_be_tested_is_said_in_one_line_with_status_2() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "no socket").unwrap();
    let deserted = dir.path().join("deserted.sock");
    drop(UnixListener::bind(&deserted).unwrap());
    let [file, deserted] = [file, deserted].map(|path| path.display().to_string());
    let folder = dir.path().display().to_string();
    for (args, says) in [
        (&["--socket", &file][..], "is not a socket"),
        (&["--socket", &folder], "is not a socket"),
        (&["--socket", "/nowhere/gpu.sock"], "No such file"),
        (&["--socket", "127.0.0.1:80"], "No such file"),
        (&["--socket", &deserted], "Connection refused"),
        (&["--spawn", "/bin/true"], "{socket}"),
        (
            &["--spawn", "/bin/false {socket}"],
            "ended before it listened (status 1)",
        ),
        (
            &["--spawn", "/nowhere/gpu {socket}"],
            "ended before it listened (status 127)",
        ),
        (&["--spawn", "kill -SEGV $$ # {socket}"], "signal 11"),
        (
            &["--spawn", "sleep 60 # {socket}", "--patience", "0.3"],
            "does not listen",
        ),
        (&["--backend", "theirs"], "theirs"),
        (
            &["--backend", "ours", "--only", "nothing-*"],
            "no case matches",
        ),
        (
            &["--spawn", "a {socket}", "--spawn", "a {socket}"],
            "two back-ends are called a",
        ),
        (&[], "which back-end?"),
    ] {
        check_refusal(&conform(args), 2, says);
    }
}

#[test]
fn a_signal_that_ends_the_program_ends_the_back_end_too() {
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    let command = format!("echo $$ > {}; sleep 1000 # {{socket}}", pid.display());
    let mut program = Command::new(env!("CARGO_BIN_EXE_nosnoop-conform"))
        .args(["--spawn", &command, "--patience", "60"])
        .spawn()
        .unwrap();
    let wait_until = |what: &str, holds: &mut dyn FnMut() -> bool| {
        let began = Instant::now();
        while !holds() {
            assert!(began.elapsed() < Duration::from_secs(20), "{what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let mut written = String::new();
    wait_until("the back-end did not start", &mut || {
        written = std::fs::read_to_string(&pid).unwrap_or_default();
        written.ends_with('\n')
    });
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&program),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    assert_eq!(program.wait().unwrap().code(), Some(128 + 15));
    let stat = format!("/proc/{}/stat", written.trim());
    wait_until("the back-end is left", &mut || {
        // Whoever collects it now is not ours: dead is enough.
        std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "))
    });
}

/// A socket on which each connection meets `serve`.
fn stranger(dir: &Path, serve: impl Fn(UnixStream) + Send + 'static) -> String {
    let path = dir.join("stranger.sock");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            serve(stream);
        }
    });
    path.display().to_string()
}

#[test]
fn strangers_on_a_socket_are_told_in_one_line_with_status_1() {
    use std::io::Write;
    let reply = |request: u32, size: u32| Header {
        request,
        flags: FLAG_VERSION | FLAG_REPLY,
        size,
    };
    let dir = tempfile::tempdir().unwrap();
    let socket = stranger(dir.path(), drop);
    check_refusal(&conform(&["--socket", &socket]), 1, "closed the connection");
    for (bytes, says) in [
        (
            reply(1, u32::MAX).to_bytes().to_vec(),
            "4294967295 bytes are announced",
        ),
        (
            reply(2, 8)
                .to_bytes()
                .iter()
                .copied()
                .chain([0; 8])
                .collect(),
            "came as the reply",
        ),
        (
            reply(1, 4)
                .to_bytes()
                .iter()
                .copied()
                .chain([0; 4])
                .collect(),
            "answered with 4 bytes",
        ),
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
            "not a vhost-user back-end",
        ),
        (vec![1], "waited"),
        (Vec::new(), "waited"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let socket = stranger(dir.path(), move |mut stream| {
            let _ = stream.write_all(&bytes);
            // Until the other side goes.
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let output = conform(&["--socket", &socket, "--patience", "0.3"]);
        check_refusal(&output, 1, says);
    }
}

#[test]
fn a_listener_that_accepts_nobody_is_told_with_status_1() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deaf.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let socket = path.display().to_string();
    check_refusal(
        &conform(&["--socket", &socket, "--patience", "0.3"]),
        1,
        "waited",
    );
}

/// Names the socket of [`fake_backend`], what it does, and a folder for its process id.
const FAKE: [&str; 3] = [
    "NOSNOOP_FAKE_SOCKET",
    "NOSNOOP_FAKE_MODE",
    "NOSNOOP_FAKE_PIDS",
];

/// A back-end in a process of its own: it offers VERSION_1 and nothing else, answers the first
/// GET_FEATURES of a connection, and dies of anything after, in the way it was told.
fn fake_backend([socket, mode, pids]: [String; 3]) {
    let pid = std::process::id();
    std::fs::write(Path::new(&pids).join(pid.to_string()), "").unwrap();
    let listener = UnixListener::bind(socket).unwrap();
    for mut stream in listener.incoming().map_while(Result::ok) {
        use std::io::Write;
        let mut header = [0; Header::SIZE];
        if stream.read_exact(&mut header).is_err() {
            continue;
        }
        let reply = Header {
            request: Request::GetFeatures.code(),
            flags: FLAG_VERSION | FLAG_REPLY,
            size: 8,
        };
        stream.write_all(&reply.to_bytes()).unwrap();
        stream.write_all(&feature::VERSION_1.to_ne_bytes()).unwrap();
        if stream.read_exact(&mut header).is_err() {
            continue;
        }
        match mode.as_str() {
            "abort" => std::process::abort(),
            "exit" => std::process::exit(7),
            "panic" => {
                let _ = std::thread::spawn(|| panic!("out of ideas")).join();
            }
            _ => std::thread::sleep(Duration::from_secs(1000)),
        }
    }
}

/// What came out of two cases on a fake, by id: the first asks nothing more than the probe did.
fn on_fake(mode: &str) -> (Option<i32>, serde_json::Value, PathBuf, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("r.json");
    let pids = dir.path().join("pids");
    std::fs::create_dir(&pids).unwrap();
    let this = std::env::current_exe().unwrap();
    let command = format!(
        "fake=env {}={{socket}} {}={mode} {}={} {} --exact {DYING} --nocapture",
        FAKE[0],
        FAKE[1],
        FAKE[2],
        pids.display(),
        this.display()
    );
    let output = conform(&[
        "--spawn",
        &command,
        "--only",
        "negotiation-0?",
        "--patience",
        "0.5",
        "--json",
        &json.display().to_string(),
    ]);
    let report = std::fs::read_to_string(&json).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let rows = report["backends"][0]["cases"].clone();
    (output.status.code(), rows, pids, dir)
}

/// The name of the test below, which is also what its back-ends run.
const DYING: &str = "a_back_end_that_dies_fails_the_case_that_saw_it_and_is_started_again";

#[test]
fn a_back_end_that_dies_fails_the_case_that_saw_it_and_is_started_again() {
    if let [Ok(socket), Ok(mode), Ok(pids)] = FAKE.map(std::env::var) {
        return fake_backend([socket, mode, pids]);
    }
    for (mode, says) in [
        ("abort", "signal 6"),
        ("exit", "status 7"),
        ("panic", "panicked"),
        ("hang", "waited"),
    ] {
        let (code, rows, pids, _dir) = on_fake(mode);
        let row = |at: usize| {
            (
                rows[at]["verdict"].as_str().unwrap(),
                rows[at]["reason"].as_str().unwrap(),
            )
        };
        assert_eq!(code, Some(1), "{mode}");
        assert_eq!(row(0), ("PASS", ""), "{mode}");
        // Number 4 asks twice, number 5 once on a back-end that must have been started anew.
        let (verdict, reason) = row(3);
        assert!(
            verdict == "FAIL" && reason.contains(says),
            "{mode}: {reason}"
        );
        assert_eq!(row(4), ("PASS", ""), "{mode}");
        assert_eq!(row(5), ("SKIP", "MQ is not offered"), "{mode}");
        for entry in std::fs::read_dir(pids).unwrap() {
            let pid = entry.unwrap().file_name().into_string().unwrap();
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
            assert!(stat.is_err(), "{mode}: process {pid} is left: {stat:?}");
        }
    }
}
