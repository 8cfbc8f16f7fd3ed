//! Contexts' sockets that this process has made itself, in the render server's place.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use rustix::net::{AddressFamily, SocketFlags, socketpair};
use tempfile::TempDir;

use super::*;

/// A server that waits until it is ended.
fn idle_server(folder: &TempDir) -> RenderServer {
    let path: PathBuf = folder.path().join("server");
    fs::write(&path, "#!/bin/sh\nexec sleep 1000\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    RenderServer::start_at(&path).unwrap().0
}

/// Our end and the other.
fn pair() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::CLOEXEC;
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
}

fn add(workers: &Workers, context: u32, socket: OwnedFd) {
    let data = epoll::EventData::new_u64(u64::from(context));
    epoll::add(&workers.epoll, &socket, data, epoll::EventFlags::HUP).unwrap();
    let connection = Connection { socket, inode: 0 };
    lock(&workers.state).contexts.insert(context, connection);
}

fn inode(socket: &OwnedFd) -> u64 {
    rustix::fs::fstat(socket).unwrap().st_ino
}

#[test]
fn only_sockets_have_their_inodes() {
    assert_eq!(socket_inode("socket:[123]"), Some(123));
    for other in [
        "/dev/null",
        "pipe:[123]",
        "socket:[]",
        "socket:[12",
        "socket:[x]",
    ] {
        assert_eq!(socket_inode(other), None, "{other}");
    }
}

#[test]
fn a_socket_is_found_by_who_made_it_and_is_the_same() {
    let (ours, theirs) = pair();
    let wanted = inode(&ours);
    let found = find(getpid(), |inode| inode == wanted).unwrap().unwrap();
    assert_eq!(inode(&found.socket), wanted);
    assert!(!is(&found.socket, PollFlags::HUP));
    drop(theirs);
    assert!(is(&found.socket, PollFlags::HUP));
    let init = Pid::from_raw(1).unwrap();
    assert!(find(init, |inode| inode == wanted).unwrap().is_none());
    let (plain, _) = std::os::unix::net::UnixStream::pair().unwrap();
    let plain = OwnedFd::from(plain);
    let wanted = inode(&plain);
    let streams = find(getpid(), |inode| inode == wanted).unwrap();
    assert!(streams.is_none(), "a context talks in packets");
}

#[test]
fn ends_are_told_once_they_have_happened_until_they_are_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let workers = Workers::new(idle_server(&folder)).unwrap();
    let ((first, other), (second, _second)) = (pair(), pair());
    // As virglrenderer has it.
    let _same = first.try_clone().unwrap();
    add(&workers, 1, first);
    add(&workers, 2, second);
    assert!(workers.ended().is_empty() && !workers.has_ended(1));
    drop(other);
    assert_eq!(workers.ended(), [1]);
    assert!(workers.has_ended(1) && !workers.has_ended(2) && !workers.has_ended(3));
    workers.forget(1);
    assert!(workers.ended().is_empty());
    // Without the server all are lost, once.
    let server = lock(&workers.state).server.as_ref().unwrap().pid().unwrap();
    rustix::process::kill_process(server, rustix::process::Signal::KILL).unwrap();
    let soon = Timespec::try_from(Duration::from_secs(5)).unwrap();
    let mut polled = [PollFd::new(&workers.epoll, PollFlags::IN)];
    assert_eq!(poll(&mut polled, Some(&soon)), Ok(1));
    assert_eq!(workers.ended(), [2]);
    assert!(!workers.has_server());
    assert!(workers.ended().is_empty());
}

#[test]
fn only_what_is_waited_for_for_too_long_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let workers = Workers::new(idle_server(&folder)).unwrap();
    let ((first, _one), (second, _two)) = (pair(), pair());
    let full = first.try_clone().unwrap();
    add(&workers, 1, first);
    add(&workers, 2, second);
    let limit = Duration::from_millis(20);
    let late = || std::thread::sleep(2 * limit);
    let ended = || [1, 2].map(|id| workers.has_ended(id));
    // Nobody is waited for.
    late();
    workers.rescue(limit);
    workers.during(Peer::Context(1), || workers.rescue(LIMIT));
    assert_eq!(ended(), [false, false]);
    // A process that could be talked to is not to blame for a wait for any.
    let stuck = || {
        late();
        workers.rescue(limit);
    };
    workers.during(Peer::Any, stuck);
    assert_eq!(ended(), [false, false]);
    let flags = rustix::net::SendFlags::DONTWAIT;
    while rustix::net::send(&full, &[0; 1024], flags).is_ok() {}
    workers.during(Peer::Any, stuck);
    assert_eq!(ended(), [true, false]);
    workers.during(Peer::Context(2), stuck);
    assert_eq!(ended(), [true, true]);
    assert!(workers.has_server());
    workers.during(Peer::Server, stuck);
    let server = lock(&workers.state).server.take();
    let status = server.unwrap().end().unwrap();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(9)
    );
}
