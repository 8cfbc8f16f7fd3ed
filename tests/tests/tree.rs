//! Rules that the tree as a whole must keep.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "test code: a broken expectation stops the test"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// Most lines of code (no blank lines, no comments, no tests) that one source file may have.
const MAX_CODE_LINES: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()))
}

/// All files under `folder` but build outputs and git's own, sorted.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let entries =
        fs::read_dir(folder).unwrap_or_else(|e| panic!("cannot list {}: {e}", folder.display()));
    for entry in entries {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        let name = entry.file_name();
        if kind.is_dir() && name != "target" && name != ".git" {
            found.extend(files(&entry.path()));
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = files(folder);
    found.retain(|path| path.extension().is_some_and(|e| e == "rs"));
    assert!(!found.is_empty(), "no Rust in {}", folder.display());
    found
}

/// The lines of a source file that are code: no blank lines, no comment lines, nothing from the unit tests on.
fn code_lines(source: &str) -> impl Iterator<Item = &str> {
    let tests = source.find("#[cfg(test)]\nmod tests {");
    let source = source.get(..tests.unwrap_or(source.len())).unwrap();
    source
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("//"))
}

fn is_unit_test_file(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "tests.rs")
        || path.components().any(|part| part.as_os_str() == "tests")
}

#[test]
fn every_member_opts_into_the_lint_table() {
    let manifest: toml::Table = read(&root().join("Cargo.toml")).parse().unwrap();
    let workspace = manifest["workspace"].as_table().unwrap();
    assert!(workspace["lints"]["clippy"].is_table());
    let members = workspace["members"].as_array().unwrap();
    assert!(!members.is_empty());
    for member in members {
        let path = root().join(member.as_str().unwrap()).join("Cargo.toml");
        let manifest: toml::Table = read(&path).parse().unwrap();
        let opted_in = manifest
            .get("lints")
            .and_then(|lints| lints.get("workspace"));
        assert_eq!(
            opted_in.and_then(toml::Value::as_bool),
            Some(true),
            "{}: needs [lints] workspace = true",
            path.display()
        );
    }
}

/// Schema: QEMU's docs/interop/vhost-user.json, `VhostUserBackend`.
#[test]
fn the_discovery_descriptor_is_valid() {
    let path = root().join("backend/share/vhost-user/60-nosnoop-gpu.json");
    let descriptor: serde_json::Value = serde_json::from_str(&read(&path)).unwrap();
    let fields = descriptor.as_object().unwrap();
    for (name, value) in fields {
        match name.as_str() {
            "type" => assert_eq!(value, "gpu"),
            "description" => assert!(!value.as_str().unwrap().is_empty()),
            "binary" => {
                let binary = Path::new(value.as_str().unwrap());
                assert!(binary.is_absolute());
                assert_eq!(binary.file_name().unwrap(), "nosnoop-gpu");
            }
            "tags" => assert!(
                value
                    .as_array()
                    .unwrap()
                    .iter()
                    .all(serde_json::Value::is_string)
            ),
            other => panic!("the schema has no field {other}"),
        }
    }
    for needed in ["type", "description", "binary"] {
        assert!(fields.contains_key(needed), "{needed} is missing");
    }
    // Behind QEMU's own "50-", so that installing it changes no default.
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(name > "50-qemu-gpu.json");
}

#[test]
fn the_readme_names_the_two_commands() {
    let readme = read(&root().join("README.md"));
    for command in ["cargo demo", "cargo verify"] {
        assert!(
            readme.contains(command),
            "README.md does not name {command}"
        );
    }
}

#[test]
fn source_files_stay_small() {
    // Of the programs that test there are no unit tests to leave out but those at a file's end.
    for (folder, of_tests) in [
        ("backend/src", false),
        ("protocol/src", false),
        ("tests", true),
    ] {
        for path in rust_files(&root().join(folder)) {
            let count = code_lines(&read(&path)).count();
            let left_out = !of_tests && is_unit_test_file(&path);
            assert!(
                left_out || count <= MAX_CODE_LINES,
                "{}: {count} lines of code, at most {MAX_CODE_LINES} are allowed: split it",
                path.display()
            );
        }
    }
}

#[test]
fn unsafe_code_is_in_sys_only() {
    let sys = root().join("backend/src/sys");
    for folder in ["backend", "protocol", "shaders"] {
        for path in rust_files(&root().join(folder)) {
            if path.starts_with(&sys) {
                continue;
            }
            let source = read(&path);
            let found = code_lines(&source).find(|line| {
                line.split(|c: char| !c.is_alphanumeric() && c != '_')
                    .any(|word| word == "unsafe")
            });
            assert_eq!(found, None, "{}: unsafe code outside sys", path.display());
        }
    }
}

/// Where packages come from is the business of the machine, not of the tree. `Cargo.lock` cannot do without.
#[test]
fn no_registry_host_is_named() {
    // In pieces, for this file is searched too.
    let hosts = [
        ["crates", "io"],
        ["debian", "org"],
        ["ubuntu", "com"],
        ["pypi", "org"],
        ["pythonhosted", "org"],
        ["npmjs", "org"],
        ["golang", "org"],
    ]
    .map(|parts| parts.join("."));
    for path in files(&root()) {
        if path.file_name().is_some_and(|name| name == "Cargo.lock") {
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        for host in &hosts {
            assert!(
                !text.contains(host.as_str()),
                "{} names {host}",
                path.display()
            );
        }
    }
}

#[test]
fn code_lines_are_counted_without_comments_and_tests() {
    let source = "//! doc\n\nfn a() {\n    // why\n    b();\n}\n\n#[cfg(test)]\nmod tests {\n    fn c() {}\n}\n";
    assert_eq!(
        code_lines(source).collect::<Vec<_>>(),
        ["fn a() {", "b();", "}"]
    );
}
