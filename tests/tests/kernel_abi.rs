//! The kernel's structures and command numbers, as the daemon has them, against the kernel's own headers:
//! a C program that includes these says sizes, offsets and numbers.
#![expect(
    clippy::unwrap_used,
    reason = "test code: a broken expectation is to stop the test loudly"
)]

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use nosnoop_gpu::memory::alloc::abi::{FieldLayout, HEADERS, StructLayout};
use nosnoop_tests::lab::{LabError, headers};

/// The fields that the headers have by that name.
fn named(structure: &StructLayout) -> impl Iterator<Item = (&'static str, &'static FieldLayout)> {
    let fields = structure.fields.iter();
    let named = fields.filter(|field| !field.name.starts_with('_'));
    named.map(|field| {
        let name = field.name;
        (name.strip_prefix("r#").unwrap_or(name), field)
    })
}

/// What the daemon takes the interface to be, one line a fact.
fn ours() -> Vec<String> {
    let mut lines = Vec::new();
    for header in HEADERS {
        for structure in header.structures {
            let name = structure.name;
            if let Some(size) = structure.size {
                lines.push(format!("sizeof {name} {size}"));
            }
            for (field, layout) in named(structure) {
                let (offset, size) = (layout.offset, layout.size);
                lines.push(format!("{name}.{field} at {offset} of {size}"));
            }
        }
        for constant in header.constants {
            lines.push(format!("{} {}", constant.name, constant.value));
        }
    }
    lines
}

/// A program that says the same by the headers.
fn program() -> String {
    let mut text = String::from("#include <fcntl.h>\n#include <stddef.h>\n#include <stdio.h>\n");
    for header in HEADERS {
        writeln!(text, "#include <{}>", header.path).unwrap();
    }
    text.push_str("int main(void)\n{\n");
    for header in HEADERS {
        for structure in header.structures {
            let name = structure.name;
            if structure.size.is_some() {
                writeln!(
                    text,
                    "printf(\"sizeof {name} %zu\\n\", sizeof(struct {name}));"
                )
                .unwrap();
            }
            for (field, _) in named(structure) {
                writeln!(
                    text,
                    "printf(\"{name}.{field} at %zu of %zu\\n\", offsetof(struct {name}, {field}), \
                     sizeof(((struct {name} *)0)->{field}));"
                )
                .unwrap();
            }
        }
        for constant in header.constants {
            let name = constant.name;
            writeln!(
                text,
                "printf(\"{name} %llu\\n\", (unsigned long long)({name}));"
            )
            .unwrap();
        }
    }
    text.push_str("return 0;\n}\n");
    text
}

#[test]
fn structures_and_numbers_are_those_of_the_kernels_headers() {
    let include = match headers::find() {
        Ok(include) => include,
        Err(LabError::Unavailable(why)) => {
            println!("SKIPPED: no headers of the kernel: {why}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("abi.c");
    let binary = folder.path().join("abi");
    fs::write(&source, program()).unwrap();
    let mut compiler = Command::new("cc");
    compiler.arg("-isystem").arg(&include);
    // Debian keeps the architecture's headers apart.
    let machine = include.join(format!("{}-linux-gnu", std::env::consts::ARCH));
    compiler.arg("-isystem").arg(machine);
    let compiled = compiler
        .arg(&source)
        .arg("-o")
        .arg(&binary)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&compiled.stderr);
    assert!(compiled.status.success(), "{errors}");

    let said = Command::new(&binary).output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    let (ours, theirs) = (ours(), said.lines().collect::<Vec<_>>());
    assert!(ours.len() > 150, "{} facts", ours.len());
    for (our, their) in ours.iter().zip(&theirs) {
        assert_eq!(our, their, "the daemon, then {}", include.display());
    }
    assert_eq!(ours.len(), theirs.len());
}
