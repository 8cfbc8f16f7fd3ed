//! Programs whose loader is to be another one.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Where a 64-bit ELF file says where its program headers are, and how many (`Elf64_Ehdr`).
const PHOFF: usize = 32;
const PHNUM: usize = 56;

/// A program header (`Elf64_Phdr`): bytes, the type that names the loader, and where the name is.
const HEADER: usize = 56;
const PT_INTERP: u32 = 3;
const OFFSET: usize = 8;
const FILESZ: usize = 32;

/// Names another loader in a dynamically linked program. The name goes to the end of the file, where the
/// kernel reads it; nothing else moves. `None` if this is no such program.
pub(super) fn set_interpreter(program: &mut Vec<u8>, loader: &Path) -> Option<()> {
    let bytes = |at: usize, len| program.get(at..at.checked_add(len)?);
    let first = usize::try_from(u64::from_le_bytes(bytes(PHOFF, 8)?.try_into().ok()?)).ok()?;
    let count = u16::from_le_bytes(bytes(PHNUM, 2)?.try_into().ok()?);
    let headers = (0..usize::from(count)).map(|index| first.saturating_add(index * HEADER));
    let is_interpreter = |&at: &usize| bytes(at, 4) == Some(&PT_INTERP.to_le_bytes()[..]);
    let header = headers.into_iter().find(is_interpreter)?;
    let mut name = loader.as_os_str().as_bytes().to_vec();
    name.push(0);
    let end = u64::try_from(program.len()).ok()?;
    let len = u64::try_from(name.len()).ok()?;
    for (field, value) in [(OFFSET, end), (FILESZ, len)] {
        let at = header + field;
        program
            .get_mut(at..at + 8)?
            .copy_from_slice(&value.to_le_bytes());
    }
    program.extend(name);
    Some(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_program_runs_with_the_loader_that_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let run = |loader: &Path| {
            let mut program = fs::read("/bin/true").unwrap();
            set_interpreter(&mut program, loader).unwrap();
            let path = folder.path().join("program");
            fs::write(&path, program).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            Command::new(path).status().map(|status| status.success())
        };
        assert!(run(Path::new("/nonexistent")).is_err());
        assert!(run(Path::new("/lib64/ld-linux-x86-64.so.2")).unwrap());
        assert_eq!(
            set_interpreter(&mut b"#!/bin/sh".to_vec(), Path::new("/")),
            None
        );
    }
}
