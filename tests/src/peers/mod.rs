//! The back-ends that programs here can drive: our daemon, its peers, any other program.
//!
//! A peer is named on a command line ([`Peer::parse`]), set up once ([`Peer::prepare`], which may
//! fetch or build it into the cache) and then started as often as needed ([`Prepared::start`]).

mod registry;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::frontend::process::Owned;
use crate::frontend::{self, Daemon, daemon};
use crate::lab::root::{Program, Root};
use crate::lab::{LabError, Result, programs};

/// What stands for the socket's path in a command line.
pub const SOCKET: &str = "{socket}";

/// The last three parts of a path that a program names, as a report shows it: what comes before is
/// about the machine.
pub(crate) fn short_path(word: &str) -> String {
    let parts: Vec<&str> = word.split('/').collect();
    match parts.len() {
        0..=4 => word.to_owned(),
        len => parts[len - 3..].join("/"),
    }
}

/// A back-end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Our daemon, built from this workspace.
    Ours,
    /// Our daemon with the feature `test-memtype`, which announces images with the memory types
    /// that its option `--test-memtype` names.
    TestMemtype,
    /// vhost-user-gpu, the C program that comes with QEMU.
    VhostUserGpu,
    /// vhost-device-gpu of the crate registry.
    VhostDeviceGpu(Renderer),
    /// Any other program.
    Command {
        /// The name in reports.
        name: String,
        /// A line for the shell with [`SOCKET`] in it.
        line: String,
    },
}

/// What vhost-device-gpu draws with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renderer {
    /// Nothing: it answers commands and copies no pixel.
    Null,
    /// virglrenderer on software Mesa, of the lab's packages.
    Virgl,
}

impl Peer {
    /// The peers that are set up by themselves, in the order of reports.
    pub const KNOWN: [Self; 3] = [
        Self::VhostUserGpu,
        Self::VhostDeviceGpu(Renderer::Null),
        Self::VhostDeviceGpu(Renderer::Virgl),
    ];

    /// Reads a command line value: a known name (`ours`, `vhost-user-gpu` or `qemu`,
    /// `vhost-device-gpu`, `vhost-device-gpu-virgl`), a command line with `{socket}` in it, or the path of a
    /// program that takes `--socket-path`. `NAME=` in front of the latter two sets the name in reports.
    ///
    /// # Errors
    /// When it is none of these.
    pub fn parse(value: &str) -> std::result::Result<Self, String> {
        match value {
            "ours" => return Ok(Self::Ours),
            "qemu" => return Ok(Self::VhostUserGpu),
            _ => {}
        }
        if let Some(known) = Self::KNOWN.into_iter().find(|known| known.name() == value) {
            return Ok(known);
        }
        let (name, line) = match value.split_once('=') {
            Some((name, line)) if is_name(name) => (Some(name.to_owned()), line),
            _ => (None, value),
        };
        let line = if line.contains(SOCKET) {
            line.to_owned()
        } else if Path::new(line).is_file() {
            format!("{} --socket-path {SOCKET}", quoted(Path::new(line)))
        } else {
            let known = Self::KNOWN.map(|known| known.name()).join(", ");
            return Err(format!(
                "'{value}' is neither ours, {known} nor a program file, and has no {SOCKET}"
            ));
        };
        let name = name.unwrap_or_else(|| first_word(&line));
        Ok(Self::Command { name, line })
    }

    /// The name in reports.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Ours => "nosnoop-gpu".to_owned(),
            Self::TestMemtype => "nosnoop-gpu with test-memtype".to_owned(),
            Self::VhostUserGpu => "vhost-user-gpu".to_owned(),
            Self::VhostDeviceGpu(Renderer::Null) => "vhost-device-gpu".to_owned(),
            Self::VhostDeviceGpu(Renderer::Virgl) => "vhost-device-gpu-virgl".to_owned(),
            Self::Command { name, .. } => name.clone(),
        }
    }

    /// Gets the back-end ready to be started. The first time this may download or build it, with
    /// lines of progress on standard error; what it makes is cached outside of the checkout.
    ///
    /// # Errors
    /// [`LabError::Unavailable`] where it cannot be had on this machine; other errors when a step
    /// fails that should not.
    pub fn prepare(&self) -> Result<Prepared> {
        self.prepare_with(Root::find_or_build)
    }

    /// As [`Self::prepare`] with a root that is there already.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub fn prepare_in(&self, root: &Root) -> Result<Prepared> {
        self.prepare_with(|| Ok(root.clone()))
    }

    fn prepare_with(&self, root: impl FnOnce() -> Result<Root>) -> Result<Prepared> {
        let (program, options, note) = match self {
            Self::Ours => {
                let path = daemon::binary().map_err(LabError::context(self.name()))?;
                (Launch::File(path.to_owned()), Vec::new(), "")
            }
            Self::TestMemtype => (
                Launch::File(programs::TEST_MEMTYPE.daemon()?),
                Vec::new(),
                "",
            ),
            Self::VhostUserGpu => {
                let root = root()?;
                let missing = format!("{} has no vhost-user-gpu", root.origin);
                let program = root
                    .c_backend
                    .ok_or_else(|| LabError::unavailable(missing))?;
                (Launch::Program(program), Vec::new(), "QEMU's own, in C")
            }
            Self::VhostDeviceGpu(renderer) => {
                let options = renderer.options().iter().map(ToString::to_string).collect();
                let program = match renderer {
                    Renderer::Null => Launch::File(registry::null_renderer()?),
                    Renderer::Virgl => Launch::Program(registry::virglrenderer()?),
                };
                (program, options, renderer.note())
            }
            Self::Command { line, .. } => (Launch::Shell(line.clone()), Vec::new(), line.as_str()),
        };
        Ok(Prepared {
            peer: self.clone(),
            note: note.to_owned(),
            launch: program,
            options,
        })
    }
}

impl Renderer {
    /// What it is started with.
    fn options(self) -> &'static [&'static str] {
        match self {
            Self::Null => &["--gpu-mode", "null"],
            Self::Virgl => &["--gpu-mode", "virglrenderer", "--capset", "virgl,virgl2"],
        }
    }

    fn note(self) -> &'static str {
        match self {
            Self::Null => "rust-vmm's, null renderer: it copies no pixel",
            Self::Virgl => "rust-vmm's, on virglrenderer and software Mesa",
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// Whether this can be the name in `NAME=COMMAND`. It has a small letter, unlike the environment
/// variables that may stand in front of a shell command.
pub(crate) fn is_name(text: &str) -> bool {
    let fits = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    text.chars().any(char::is_lowercase) && text.chars().all(fits)
}

/// The file name of a command line's first word behind the variables that it sets.
fn first_word(line: &str) -> String {
    let mut words = line.split_whitespace();
    let word = words.find(|word| !word.contains('=') || word.starts_with(['/', '.', '\'', '"']));
    let word = word.unwrap_or_default();
    let word = word.trim_matches(['\'', '"']);
    let name = Path::new(word).file_name();
    name.map_or_else(
        || word.to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// A path as one word for the shell.
pub(crate) fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

#[derive(Clone, Debug)]
enum Launch {
    File(PathBuf),
    Program(Program),
    Shell(String),
}

/// A back-end that is ready to be started.
#[derive(Clone, Debug)]
pub struct Prepared {
    peer: Peer,
    note: String,
    launch: Launch,
    options: Vec<String>,
}

impl Prepared {
    /// Which back-end.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// What a reader of a report should know of it; may be empty.
    #[must_use]
    pub fn note(&self) -> &str {
        &self.note
    }

    /// Adds options in front of the socket's; a shell line keeps as it is.
    pub fn add_options(&mut self, options: &[&str]) {
        self.options.extend(options.iter().map(ToString::to_string));
    }

    /// A command that serves front-ends on this socket. Its process id is the back-end's own.
    #[must_use]
    pub fn command(&self, socket: &Path) -> Command {
        let mut command = match &self.launch {
            Launch::File(path) => Command::new(path),
            Launch::Program(program) => program.command(),
            Launch::Shell(line) => {
                let mut shell = Command::new("/bin/sh");
                let line = line.replace(SOCKET, &quoted(socket));
                // `exec` takes no variables in front of a command.
                shell.arg("-c").arg(format!("exec env {line}"));
                return shell;
            }
        };
        command.args(&self.options).arg("--socket-path").arg(socket);
        command
    }

    /// Starts it on a socket in a folder of its own and waits until it listens.
    ///
    /// # Errors
    /// When it ends at once or does not listen in time, with what it wrote.
    pub fn start(&self) -> frontend::Result<Daemon> {
        let start = match self.launch {
            Launch::Shell(_) => Owned::group,
            Launch::File(_) | Launch::Program(_) => Owned::program,
        };
        Daemon::start_with(|socket| self.command(socket), start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(name: &str, line: &str) -> Peer {
        let (name, line) = (name.to_owned(), line.to_owned());
        Peer::Command { name, line }
    }

    #[test]
    fn names_paths_and_command_lines_are_told_apart() {
        assert_eq!(Peer::parse("ours"), Ok(Peer::Ours));
        assert_eq!(Peer::parse("qemu"), Ok(Peer::VhostUserGpu));
        for known in Peer::KNOWN {
            assert_eq!(Peer::parse(&known.name()), Ok(known));
        }
        assert_eq!(
            Peer::parse("/opt/x --sock={socket} -v"),
            Ok(command("x", "/opt/x --sock={socket} -v"))
        );
        assert_eq!(
            Peer::parse("old=/opt/x --sock={socket}"),
            Ok(command("old", "/opt/x --sock={socket}"))
        );
        assert_eq!(
            Peer::parse("RUST_LOG=debug /opt/x {socket}"),
            Ok(command("x", "RUST_LOG=debug /opt/x {socket}"))
        );
        assert_eq!(
            Peer::parse("/bin/sh"),
            Ok(command("sh", "'/bin/sh' --socket-path {socket}"))
        );
        for bad in ["/nowhere/at/all", "", "ours2", "x=", "/opt/x --socket"] {
            assert!(Peer::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_command_line_gets_the_socket_as_one_word() {
        let prepared = command("x", "printf '<%s>' a {socket} b")
            .prepare()
            .unwrap();
        let output = prepared
            .command(Path::new("/tmp/a 'b' c"))
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text, "<a></tmp/a 'b' c><b>");
    }

    #[test]
    fn a_program_gets_its_options_in_front_of_the_socket() {
        let mut prepared = Prepared {
            peer: Peer::Ours,
            note: String::new(),
            launch: Launch::File("/bin/echo".into()),
            options: Vec::new(),
        };
        prepared.add_options(&["--once"]);
        let output = prepared.command(Path::new("/s")).output().unwrap();
        assert_eq!(output.stdout, b"--once --socket-path /s\n");
    }
}
