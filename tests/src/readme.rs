//! Results in a document for people: each between two marks, replaced as a whole.

use std::fs;
use std::path::Path;

use crate::lab::{LabError, Result};

/// The marks around the section `name`: comments that no reader sees.
fn marks(name: &str) -> [String; 2] {
    [
        format!("<!-- {name}: generated, do not edit -->\n"),
        format!("<!-- {name}: end -->\n"),
    ]
}

/// The text between the marks of section `name`, if both are there.
#[must_use]
pub fn section<'a>(document: &'a str, name: &str) -> Option<&'a str> {
    let [begin, end] = marks(name);
    let (_, rest) = document.split_once(&begin)?;
    Some(rest.split_once(&end)?.0)
}

/// `document` with `text` between the marks of section `name`; `None` if they are not there.
#[must_use]
pub fn replaced(document: &str, name: &str, text: &str) -> Option<String> {
    let [begin, end] = marks(name);
    let (before, rest) = document.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}{text}{end}{after}"))
}

/// Sees that the file at `path` can be written and has section `name`.
///
/// # Errors
/// When it cannot or has not.
pub fn check(path: &Path, name: &str) -> Result<()> {
    let document = fs::read_to_string(path).map_err(LabError::context(path.display()))?;
    section(&document, name).ok_or_else(|| no_section(path, name))?;
    let opened = fs::OpenOptions::new().append(true).open(path);
    opened.map(drop).map_err(LabError::context(path.display()))
}

fn no_section(path: &Path, name: &str) -> LabError {
    let [begin, end] = marks(name);
    LabError::failed(format!(
        "{} has no place for the results: it needs the lines '{}' and '{}'",
        path.display(),
        begin.trim_end(),
        end.trim_end()
    ))
}

/// Puts `text`, which ends with a line break, into section `name` of the file at `path`.
///
/// # Errors
/// When the file cannot be read or written or has no such section.
pub fn put(path: &Path, name: &str, text: &str) -> Result<()> {
    let document = fs::read_to_string(path).map_err(LabError::context(path.display()))?;
    let document = replaced(&document, name, text).ok_or_else(|| no_section(path, name))?;
    fs::write(path, document).map_err(LabError::context(path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "\
before
<!-- bench: generated, do not edit -->
old
<!-- bench: end -->
after
";

    #[test]
    fn a_section_is_replaced_and_nothing_else() {
        let new = replaced(DOCUMENT, "bench", "new\nlines\n").unwrap();
        assert_eq!(section(&new, "bench"), Some("new\nlines\n"));
        assert_eq!(new.replace("new\nlines\n", "old\n"), DOCUMENT);
    }

    #[test]
    fn a_document_without_the_section_is_left_alone() {
        assert_eq!(replaced(DOCUMENT, "conform", ""), None);
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), DOCUMENT).unwrap();
        assert!(check(file.path(), "bench").is_ok() && check(file.path(), "conform").is_err());
        let error = put(file.path(), "conform", "x\n").unwrap_err().to_string();
        assert!(error.contains("<!-- conform: end -->"), "{error}");
        assert_eq!(fs::read_to_string(file.path()).unwrap(), DOCUMENT);
    }
}
