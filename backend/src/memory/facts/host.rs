//! The host's files, seen below a root: `/` for this machine, a folder for a recorded one.
//!
//! Whatever lies there is taken for garbled until shown otherwise: every read has a bound, no
//! symbolic link leads out of the root, and an error is half a sentence for a person.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Dir, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// The most bytes that are read of a file: several times what `/proc/cpuinfo` has for a processor.
const MAX_FILE: usize = 64 << 10;

/// The most bytes that are read of the kernel's log: its first messages are what counts.
const MAX_LOG: usize = 4 << 20;

/// The most entries that are read of a directory.
const MAX_ENTRIES: usize = 1024;

/// The most characters of a file that has one line, which is printed: sysfs has none that is longer.
const MAX_LINE: usize = 200;

/// A host's files.
#[derive(Debug)]
pub struct Host {
    root: OwnedFd,
}

impl Host {
    /// This machine.
    ///
    /// # Errors
    /// What the kernel says of `/`.
    pub fn live() -> io::Result<Self> {
        Self::at(Path::new("/"))
    }

    /// A recorded host: the files below `root`, at the paths that they had.
    ///
    /// # Errors
    /// What the kernel says of `root`.
    pub fn at(root: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            root: rustix::fs::open(root, flags, Mode::empty())?,
        })
    }

    /// Opens `path`, which begins with `/`. Absolute links and `..` stay below the root.
    fn open(&self, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        // IN_ROOT comes with a limit on how the path may change meanwhile, which ends in EAGAIN.
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        (0..16)
            .map(|_| rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve))
            .find(|result| !matches!(result, Err(Errno::AGAIN)))
            .unwrap_or(Err(Errno::AGAIN))
    }

    /// Whether there is something at `path`.
    ///
    /// # Errors
    /// Why that is not known.
    pub(super) fn exists(&self, path: &str) -> Result<bool, String> {
        match self.open(path, OFlags::PATH | OFlags::NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(error) => Err(cannot("find", path, error)),
        }
    }

    /// The first bytes of the file `path`, at most `limit`.
    fn start(&self, path: &str, limit: usize) -> rustix::io::Result<Vec<u8>> {
        // Not blocking: a log ends with "would block", and a pipe without a writer is empty.
        let file = self.open(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
        let mut found = Vec::new();
        // A record of the kernel's log must fit, or it cannot be read.
        let mut chunk = vec![0; 16 << 10];
        while found.len() < limit {
            match rustix::io::read(&file, &mut chunk) {
                Ok(0) | Err(Errno::AGAIN) => break,
                Ok(count) => found.extend(chunk.iter().take(count)),
                // A signal; or messages were overwritten before they were read.
                Err(Errno::INTR | Errno::PIPE) => {}
                Err(error) => return Err(error),
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    /// The file `path`, or the part of it that is looked at.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub(super) fn bytes(&self, path: &str) -> Result<Vec<u8>, String> {
        self.start(path, MAX_FILE)
            .map_err(|error| cannot("read", path, error))
    }

    /// The complete lines of the file `path`, or of the part of it that is looked at. What
    /// follows the last newline is left out: it may have been cut.
    ///
    /// # Errors
    /// Why it cannot be had, or that it is no text.
    pub(super) fn lines(&self, path: &str) -> Result<Vec<String>, String> {
        self.text(path, MAX_FILE)
    }

    /// The complete lines of the kernel's log.
    ///
    /// # Errors
    /// Why it cannot be had, or that it is no text.
    pub(super) fn log(&self, path: &str) -> Result<Vec<String>, String> {
        self.text(path, MAX_LOG)
    }

    fn text(&self, path: &str, limit: usize) -> Result<Vec<String>, String> {
        let bytes = self
            .start(path, limit)
            .map_err(|error| cannot("read", path, error))?;
        let end = bytes.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
        let complete = bytes.get(..end).unwrap_or_default();
        match std::str::from_utf8(complete) {
            Ok("") => Err(format!("{path} has no complete line")),
            Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
            Err(_) => Err(format!("{path} is not text")),
        }
    }

    /// The one line that the file `path` consists of, as most files in sysfs do, without its
    /// newline. It can be printed: it has no control characters and is not long.
    ///
    /// # Errors
    /// Why it cannot be had, or that it is something else.
    pub(super) fn line(&self, path: &str) -> Result<String, String> {
        let bytes = self.bytes(path)?;
        let line = bytes.strip_suffix(b"\n").filter(|line| {
            line.len() <= MAX_LINE && line.iter().all(|byte| (b' '..=b'~').contains(byte))
        });
        line.and_then(|line| String::from_utf8(line.to_vec()).ok())
            .ok_or_else(|| format!("{path} is not one line of text"))
    }

    /// The names in the directory `path`, sorted; none if it is not there.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub(super) fn names(&self, path: &str) -> Result<Vec<String>, String> {
        let opened = match self.open(path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Err(Errno::NOENT) => return Ok(Vec::new()),
            result => result.and_then(Dir::new),
        };
        let directory = opened.map_err(|error| cannot("list", path, error))?;
        let mut names = Vec::new();
        for entry in directory.take(MAX_ENTRIES) {
            let entry = entry.map_err(|error| cannot("list", path, error))?;
            match entry.file_name().to_str() {
                Ok(name) if is_plain(name) => names.push(name.to_owned()),
                _ => {}
            }
        }
        names.sort();
        Ok(names)
    }

    /// The last two names of where the symbolic link `path` leads, which in sysfs are a kind of
    /// thing, such as `drivers`, and the thing. `None` if there is no such link.
    ///
    /// # Errors
    /// Why it cannot be read, or that it leads to nothing that has a name.
    pub(super) fn link(&self, path: &str) -> Result<Option<(String, String)>, String> {
        let link = match self.open(path, OFlags::PATH | OFlags::NOFOLLOW) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            result => result.map_err(|error| cannot("find", path, error))?,
        };
        let target = rustix::fs::readlinkat(&link, "", Vec::new())
            .map_err(|error| cannot("follow", path, error))?;
        let mut names = target.to_str().unwrap_or_default().rsplit('/');
        let name = names.next().filter(|name| is_plain(name));
        let kind = names.next().unwrap_or_default();
        match name {
            Some(name) => Ok(Some((kind.to_owned(), name.to_owned()))),
            None => Err(format!("{path} leads to nothing that has a name")),
        }
    }
}

/// Whether `name` is a name of the kernel's making: it can be part of a path and be printed.
fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:+@,".contains(&byte);
    !name.is_empty() && name.len() <= 64 && name.bytes().all(plain) && name != "." && name != ".."
}

fn cannot(what: &str, path: &str, error: Errno) -> String {
    format!("cannot {what} {path}: {}", reason(&error.into()))
}

/// What the kernel said, without its number.
pub(super) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or_default();
    words.to_owned()
}
