//! The command line: what it prints, and one clear line for everything it cannot use.
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

use nosnoop_tests::frontend::daemon::run_to_end;
use nosnoop_tests::frontend::{Result, Rig};

#[test]
fn print_capabilities_is_the_json_of_the_conventions() -> Result<()> {
    let output = run_to_end(&["--print-capabilities"])?;
    assert!(output.status.success());
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["type"], "gpu");
    let features: Vec<_> = json["features"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|f| f.as_str())
        .collect();
    assert!(
        features
            .iter()
            .all(|f| ["render-node", "virgl"].contains(f)),
        "{features:?}"
    );
    assert!(output.stderr.is_empty());
    Ok(())
}

#[test]
fn help_and_version_go_to_stdout_with_status_0() -> Result<()> {
    for option in ["--help", "--version"] {
        let output = run_to_end(&[option])?;
        assert!(
            output.status.success() && !output.stdout.is_empty(),
            "{option}"
        );
        assert!(output.stderr.is_empty(), "{option}");
    }
    Ok(())
}

/// Runs a command line that cannot work: one line on stderr that names `word`, a bad status.
fn refused(args: &[&str], word: &str) -> Result<()> {
    let output = run_to_end(args)?;
    let said = String::from_utf8_lossy(&output.stderr);
    let code = output.status.code();
    assert!(
        code.is_some_and(|code| code != 0),
        "{args:?}: {}",
        output.status
    );
    assert_eq!(said.lines().count(), 1, "{args:?}: {said}");
    assert!(said.contains(word), "{args:?}: {said}");
    assert!(
        !said.contains("panicked") && !said.contains("backtrace"),
        "{args:?}: {said}"
    );
    assert!(output.stdout.is_empty(), "{args:?}");
    Ok(())
}

#[test]
fn command_lines_that_make_no_sense_are_refused_in_one_line() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s").display().to_string();
    let socket = ["--socket-path", &path];
    refused(&[], "--socket-path")?;
    refused(&["--nonsense"], "--nonsense")?;
    refused(&["--socket-path"], "--socket-path")?;
    refused(&[socket[0], socket[1], "--fd", "0"], "--fd")?;
    refused(&["stray"], "stray")?;
    let bad = [
        ("--output", "abc"),
        ("--output", "100"),
        ("--output", "0x0"),
        ("--output", "-1x5"),
        ("--output", "99999999999x5"),
        ("--output", "640x480@0"),
        ("--output", "640x480@-60"),
        ("--output", ""),
        ("--max-hostmem", "lots"),
        ("--max-hostmem", "99999999999999999999"),
        ("--max-resources", "-1"),
        ("--max-resources", "x"),
        ("--log-level", "shout"),
        ("--render-node", "/no/such/node"),
        ("--render-node", "/dev/null"),
        ("--render-node", "/"),
        ("--blob-memory", "gpu"),
        ("--noncoherent", "yes"),
        ("--vmm-memtype", ""),
    ];
    for (option, value) in bad {
        let argument = format!("{option}={value}");
        refused(&[socket[0], socket[1], &argument], option)?;
    }
    if !std::path::Path::new("/dev/udmabuf").exists() {
        let udmabuf = "--blob-memory=udmabuf";
        refused(&[socket[0], socket[1], udmabuf], "--blob-memory")?;
    }
    refused(&[socket[0], socket[1], "--virgl"], "--virgl")?;
    let mut many = vec![socket[0], socket[1]];
    many.extend(["--output=640x480"; 17]);
    refused(&many, "16")?;
    assert!(!std::path::Path::new(&path).exists(), "nothing was created");
    Ok(())
}

#[test]
fn the_doctor_says_what_would_be_mapped_and_why() -> Result<()> {
    let output = run_to_end(&["doctor"])?;
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stdout);
    for line in ["HOST", "MEMORY (--noncoherent=auto)", "memfd: CACHED"] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let output = run_to_end(&["doctor", "--json", "--vmm-memtype=honored"])?;
    assert!(output.status.success());
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["settings"]["vmm_memtype"], "honored");
    let memory = json["memory"].as_array().unwrap();
    let memfd = memory.iter().find(|m| m["allocator"] == "memfd").unwrap();
    assert_eq!(memfd["outcome"], "cached");
    // Whatever this machine has: without a word from the VMM nothing is claimed of a nested one.
    let nested = &json["facts"]["cpu"]["hypervisor"]["value"];
    if nested == &serde_json::Value::Bool(true) {
        let output = run_to_end(&["doctor", "--json"])?;
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let outcomes = json["memory"].as_array().unwrap().iter();
        let claimed = outcomes.filter(|memory| memory["outcome"] == "write-combining");
        assert_eq!(claimed.count(), 0);
    }
    refused(&["doctor", "--fd=3"], "--fd")
}

/// It is for test builds, which no ordinary one is.
#[test]
fn the_option_of_test_builds_is_unknown() -> Result<()> {
    let unknown = "unexpected argument '--test-memtype'";
    refused(&["--fd=3", "--test-memtype", "wc"], unknown)?;
    refused(&["--test-memtype=cached"], unknown)?;
    let help = run_to_end(&["--help"])?.stdout;
    assert!(!String::from_utf8_lossy(&help).contains("test-memtype"));
    Ok(())
}

#[test]
fn sockets_that_cannot_be_used_are_refused_in_one_line() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing/dir/s").display().to_string();
    refused(&["--socket-path", &missing], &missing)?;
    let file = dir.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    let name = file.display().to_string();
    refused(&["--socket-path", &name], &name)?;
    assert_eq!(
        std::fs::read(&file).unwrap(),
        b"precious",
        "the file was left alone"
    );
    let name = dir.path().display().to_string();
    refused(&["--socket-path", &name], &name)?;
    let long = format!("/tmp/{}", "x".repeat(200));
    refused(&["--socket-path", &long], "xxx")?;
    refused(&["--socket-path", ""], "socket")?;
    // Not a number, not open, not a socket (stdin is /dev/null here).
    refused(&["--fd", "x"], "--fd")?;
    refused(&["--fd=-1"], "--fd")?;
    refused(&["--fd", "-1"], "-1")?;
    refused(&["--fd", "987"], "987")?;
    refused(&["--fd", "0"], "0")?;
    refused(&["--fd", "1"], "1")?;
    Ok(())
}

#[test]
fn options_that_change_nothing_visible_are_accepted() -> Result<()> {
    for level in ["error", "warn", "info", "debug", "trace"] {
        let args = [
            "--log-level",
            level,
            "--max-hostmem=64M",
            "--output=640x480@120",
        ];
        Rig::headless(&args)?.finish()?;
    }
    Ok(())
}
