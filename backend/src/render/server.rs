//! virglrenderer's render server: the program that forks a process for each Vulkan context.
//!
//! virglrenderer would start it by itself. It is started here, as whoever starts it is told of its death,
//! and can end it. It belongs to a process group of its own, with its contexts' processes in it.
//!
//! Source: virglrenderer's `src/proxy/proxy_server.c` and `server/render_server.c`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, Signal, kill_process_group};

/// The environment variable that names the program, as virglrenderer reads it.
pub(super) const PATH_VARIABLE: &str = "RENDER_SERVER_EXEC_PATH";

/// Where distributions have the program: Debian and Fedora, Arch, what is built by hand.
const PATHS: [&str; 3] = [
    "/usr/libexec/virgl_render_server",
    "/usr/lib/virgl_render_server",
    "/usr/local/libexec/virgl_render_server",
];

/// The program as it runs. Dropping this ends it and all of its contexts' processes.
#[derive(Debug)]
pub(super) struct RenderServer {
    child: Child,
    connection: OwnedFd,
}

impl RenderServer {
    /// Starts the program that the environment names, else one where distributions have it. The
    /// descriptor is virglrenderer's end of its connection.
    ///
    /// # Errors
    /// One line: it is not there, or does not start.
    pub(super) fn start() -> Result<(Self, OwnedFd), String> {
        let named = std::env::var_os(PATH_VARIABLE).map(PathBuf::from);
        let usual = || {
            let mut paths = PATHS.iter().map(Path::new);
            paths.find(|path| path.exists()).map(Path::to_owned)
        };
        let path = named.or_else(usual).ok_or_else(|| {
            format!(
                "no render server at {}: install virglrenderer's (Debian: virgl-server), or name it \
                 with {PATH_VARIABLE}",
                PATHS.join(" or ")
            )
        })?;
        Self::start_at(&path).map_err(|error| {
            let path = path.display();
            format!("cannot start the render server {path}: {error}; {PATH_VARIABLE} names another")
        })
    }

    pub(super) fn start_at(path: &Path) -> io::Result<(Self, OwnedFd)> {
        // Its end is inherited by number, so it is open in any program that is started meanwhile:
        // none, as this is before there is a guest.
        let (connection, its_end) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::empty(),
            None,
        )?;
        rustix::io::fcntl_setfd(&connection, rustix::io::FdFlags::CLOEXEC)?;
        let virglrenderers = connection.try_clone()?;
        let child = Command::new(path)
            .arg("--socket-fd")
            .arg(its_end.as_raw_fd().to_string())
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()?;
        let server = Self { child, connection };
        Ok((server, virglrenderers))
    }

    /// Our end of the connection, which hangs up when the program has ended.
    pub(super) fn connection(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }

    /// The number of the process, to which its contexts' connections belong too.
    pub(super) fn pid(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.child.id()).ok()?)
    }

    /// Ends it and its contexts' processes. To be called as long as this has not been dropped, when
    /// its number may become another's.
    pub(super) fn kill(&self) {
        if let Some(pid) = self.pid() {
            // Fails only where nobody is left.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }

    /// As [`Self::kill`], and how it ended: by this, if it had not before.
    pub(super) fn end(&mut self) -> io::Result<ExitStatus> {
        self.kill();
        self.child.wait()
    }
}

impl Drop for RenderServer {
    fn drop(&mut self) {
        // Nobody asks how.
        let _ = self.end();
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_named_with_what_to_do() {
        let error = RenderServer::start_at(Path::new("/nonexistent/server")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn the_end_of_the_program_hangs_up_and_its_children_end_with_it() {
        // Takes any arguments, and has a child that outlives it unless that is ended too.
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("server");
        let text = "#!/bin/sh\nsleep 1000 &\necho $! >\"$0.child\"\nexit 3\n";
        std::fs::write(&script, text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&script, mode).unwrap();
        let (mut server, _virglrenderers) = RenderServer::start_at(&script).unwrap();
        // The child of the script has its end of the connection too.
        std::thread::sleep(Duration::from_millis(300));
        let child = std::fs::read_to_string(folder.path().join("server.child")).unwrap();
        assert_eq!(server.end().unwrap().code(), Some(3));
        let mut polled = [PollFd::from_borrowed_fd(
            server.connection(),
            PollFlags::empty(),
        )];
        let soon = rustix::event::Timespec::try_from(Duration::from_secs(5)).unwrap();
        assert_eq!(poll(&mut polled, Some(&soon)), Ok(1));
        assert!(polled[0].revents().contains(PollFlags::HUP));
        // Gone, or nobody's to wait for yet.
        let path = format!("/proc/{}/stat", child.trim());
        let gone = || std::fs::read_to_string(&path).map_or(true, |stat| stat.contains(") Z "));
        let begin = Instant::now();
        while !gone() {
            assert!(begin.elapsed() < Duration::from_secs(5), "it runs on");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
