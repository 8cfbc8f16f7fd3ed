//! Where a command's results go: into a folder of its own among the build results, or where its options
//! say, and into a document for people.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::lab::report::write_report;
use crate::lab::{LabError, Result, programs, say};
use crate::readme;

/// The options of a command that has results.
#[derive(Debug, Default, clap::Args)]
pub struct Places {
    /// Where all results go as JSON [in target/, in a folder of the command's own].
    #[arg(long, value_name = "PATH")]
    pub json: Option<PathBuf>,
    /// Where the tables go as Markdown [in that folder].
    #[arg(long, value_name = "PATH")]
    pub markdown: Option<PathBuf>,
    /// A document into whose section for them, between its marks, a table goes too.
    #[arg(long, value_name = "PATH")]
    pub readme: Option<PathBuf>,
}

/// The files of a command's results, which can all be written: a run takes long, and its results are not
/// to be lost at its end.
#[derive(Debug)]
pub struct Results {
    /// The command's name: that of its folder, its files and its section of the document.
    name: &'static str,
    json: PathBuf,
    markdown: PathBuf,
    readme: Option<PathBuf>,
}

impl Results {
    /// The files at `places`, else in the folder `name`.
    ///
    /// # Errors
    /// When one of them cannot be written, or the document has no section `name`.
    pub fn at(places: &Places, name: &'static str) -> Result<Self> {
        let file = |given: &Option<PathBuf>, kind: &str| {
            file_at(given.as_deref(), name, &format!("{name}.{kind}"))
        };
        if let Some(path) = &places.readme {
            readme::check(path, name)?;
        }
        Ok(Self {
            name,
            json: file(&places.json, "json")?,
            markdown: file(&places.markdown, "md")?,
            readme: places.readme.clone(),
        })
    }

    /// Writes all `found`, the `tables` and, into the document, the `section`.
    ///
    /// # Errors
    /// When that fails.
    pub fn write(&self, found: &impl Serialize, tables: &str, section: &str) -> Result<()> {
        write_report(found, &self.json)?;
        say(format_args!("written to {}", self.json.display()));
        write(&self.markdown, tables)?;
        match &self.readme {
            Some(path) => readme::put(path, self.name, section),
            None => Ok(()),
        }
    }
}

/// The path `given`, else `file` in the folder `name`; it can be written.
///
/// # Errors
/// When it cannot.
pub fn file_at(given: Option<&Path>, name: &str, file: &str) -> Result<PathBuf> {
    let path = match given {
        Some(path) => path.to_owned(),
        None => folder_of(name).join(file),
    };
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        fs::create_dir_all(folder).map_err(LabError::context(folder.display()))?;
    }
    let opened = fs::OpenOptions::new().append(true).create(true).open(&path);
    opened.map_err(LabError::context(path.display()))?;
    Ok(path)
}

/// The folder `given`, else the folder `name`; files can be made there.
///
/// # Errors
/// When they cannot.
pub fn folder_at(given: Option<&Path>, name: &str) -> Result<PathBuf> {
    let path = given.map_or_else(|| folder_of(name), Path::to_owned);
    fs::create_dir_all(&path).map_err(LabError::context(path.display()))?;
    tempfile::tempfile_in(&path).map_err(LabError::context(path.display()))?;
    Ok(path)
}

fn folder_of(name: &str) -> PathBuf {
    programs::target_folder().join(name)
}

/// Writes a text file and says so.
///
/// # Errors
/// When that fails.
pub fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(LabError::context(path.display()))?;
    say(format_args!("written to {}", path.display()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_go_where_the_options_say() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let marks = "<!-- vm-bench: generated, do not edit -->\n<!-- vm-bench: end -->\n";
        fs::write(path("README"), marks).unwrap();
        let places = Places {
            json: Some(path("new/a.json")),
            markdown: Some(path("a.md")),
            readme: Some(path("README")),
        };
        let results = Results::at(&places, "vm-bench").unwrap();
        results.write(&[1], "all\n", "some\n").unwrap();
        let read = |name: &str| fs::read_to_string(path(name)).unwrap();
        assert_eq!(read("new/a.json"), "[\n  1\n]\n");
        assert_eq!(read("a.md"), "all\n");
        assert_eq!(read("README"), marks.replacen("-->\n", "-->\nsome\n", 1));
        // Known before anything is run.
        let error = Results::at(&places, "vm-conform").unwrap_err().to_string();
        assert!(error.contains("vm-conform: end"), "{error}");
        assert!(file_at(Some(&path("a.md/b")), "", "").is_err());
        assert!(folder_at(Some(&path("a.md")), "").is_err());
    }
}
