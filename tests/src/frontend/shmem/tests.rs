//! The channel on its own.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

use super::rules::{State, handle};
use super::*;
use crate::frontend::memory::PAGE;
use crate::frontend::message::{FLAG_NEED_REPLY, FLAG_VERSION, Header, u64_at};
use crate::frontend::vhost_user::VhostUser;

const FILE: u64 = 4 * PAGE;

fn file(seals: SealFlags) -> OwnedFd {
    let fd = memfd_create("blob", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&fd, FILE).unwrap();
    fcntl_add_seals(&fd, seals).unwrap();
    fd
}

const SEALED: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::SEAL);

/// Sends a request and returns the code of the answer.
fn ask(daemon: &UnixStream, request: u32, fields: [u64; 5], fd: Option<&OwnedFd>) -> u64 {
    let header = Header {
        request,
        flags: FLAG_VERSION | FLAG_NEED_REPLY,
        size: PAYLOAD as u32,
    };
    let payload: Vec<u8> = fields.iter().flat_map(|f| f.to_ne_bytes()).collect();
    let fds: Vec<_> = fd.iter().map(AsFd::as_fd).collect();
    VhostUser::over(daemon.try_clone().unwrap())
        .send_raw(header, &payload, &fds)
        .unwrap();
    let mut answer = [0; Header::SIZE + 8];
    let mut daemon = daemon;
    daemon.read_exact(&mut answer).unwrap();
    u64_at(&answer, Header::SIZE)
}

#[test]
fn what_is_mapped_is_the_daemons_file() {
    let (server, daemon) = ShmemServer::start().unwrap();
    server.set_size(1 << 20);
    server.set_serving(true);
    let fd = file(SEALED);
    let map = [1, PAGE, 8 * PAGE, 2 * PAGE, FLAG_WRITABLE];
    assert_eq!(ask(&daemon, SHMEM_MAP, map, Some(&fd)), 0);
    server.write(8 * PAGE + 5, b"guest");
    let mut seen = [0; 5];
    rustix::io::pread(&fd, &mut seen, PAGE + 5).unwrap();
    assert_eq!(&seen, b"guest");
    rustix::io::pwrite(&fd, b"host", 2 * PAGE).unwrap();
    assert_eq!(server.read(9 * PAGE, 4), b"host");
    assert_eq!(server.mapped(), [(8 * PAGE, 2 * PAGE)]);
    assert_eq!(ask(&daemon, SHMEM_UNMAP, map, None), 0);
    assert_eq!(server.mapped(), []);
    assert_eq!(server.violations(), Vec::<String>::new());
}

#[test]
fn what_breaks_a_rule_is_refused_and_told() {
    let (server, daemon) = ShmemServer::start().unwrap();
    server.set_size(1 << 20);
    server.set_serving(true);
    let (sealed, growing) = (file(SEALED), file(SealFlags::SHRINK));
    let shut = file(SEALED.union(SealFlags::WRITE));
    let good = [1, 0, 0, PAGE, 1];
    assert_eq!(ask(&daemon, SHMEM_MAP, good, Some(&sealed)), 0);
    let map = [1, 0, 8 * PAGE, PAGE, 1];
    let with = |at: usize, value: u64| {
        let mut fields = map;
        fields[at] = value;
        fields
    };
    let bad = [
        (SHMEM_MAP, with(0, 0), Some(&sealed)),
        (SHMEM_MAP, with(0, 0x101), Some(&sealed)),
        (SHMEM_MAP, with(1, 1), Some(&sealed)),
        (SHMEM_MAP, with(1, FILE), Some(&sealed)),
        (SHMEM_MAP, with(2, 0), Some(&sealed)),
        (SHMEM_MAP, with(2, 1 << 20), Some(&sealed)),
        (SHMEM_MAP, with(2, 100), Some(&sealed)),
        (SHMEM_MAP, with(3, 0), Some(&sealed)),
        (SHMEM_MAP, with(3, 100), Some(&sealed)),
        (SHMEM_MAP, with(3, FILE + PAGE), Some(&sealed)),
        (SHMEM_MAP, with(4, 3), Some(&sealed)),
        (SHMEM_MAP, map, None),
        (SHMEM_MAP, map, Some(&growing)),
        (SHMEM_MAP, map, Some(&shut)),
        (SHMEM_UNMAP, map, None),
        (SHMEM_UNMAP, good, Some(&sealed)),
        (SHMEM_UNMAP, with(3, 2 * PAGE), None),
        (11, map, None),
    ];
    for (count, (request, fields, fd)) in (1..).zip(bad) {
        assert_eq!(
            ask(&daemon, request, fields, fd),
            1,
            "{request} {fields:x?}"
        );
        assert_eq!(server.violations().len(), count, "{request} {fields:x?}");
    }
    assert_eq!(server.mapped(), [(0, PAGE)]);
}

#[test]
fn answers_come_as_the_script_says() {
    let (server, daemon) = ShmemServer::start().unwrap();
    server.set_size(1 << 20);
    server.set_serving(true);
    let fd = file(SEALED);
    let pause = Duration::from_millis(50);
    server.script(&[Ack::Refuse(7), Ack::Late(pause), Ack::Refuse(9)]);
    let map = [1, 0, 0, PAGE, 1];
    assert_eq!(ask(&daemon, SHMEM_MAP, map, Some(&fd)), 7);
    assert_eq!(server.mapped(), []);
    let begin = Instant::now();
    assert_eq!(ask(&daemon, SHMEM_MAP, map, Some(&fd)), 0);
    assert!(begin.elapsed() >= pause);
    assert_eq!(ask(&daemon, SHMEM_UNMAP, map, None), 9);
    assert_eq!(server.mapped(), [(0, PAGE)]);
    server.drop_mappings();
    assert_eq!(ask(&daemon, SHMEM_UNMAP, map, None), 1);
    assert_eq!(server.violations(), Vec::<String>::new());
    drop(daemon);
    server.wait_closed().unwrap();
}

#[test]
fn memory_types_are_read_where_they_were_agreed_on_and_broken_rules_elsewhere() {
    for extended in [false, true] {
        let (server, daemon) = ShmemServer::start().unwrap();
        server.set_size(1 << 20);
        server.set_extended(extended);
        server.set_serving(true);
        let fd = file(SEALED);
        // Words typed in from the extension's table.
        let words = [0x10, 0x21, 0x31, 0x121, 0x131, 0x01];
        for (at, flags) in (0..).zip(words) {
            let code = ask(
                &daemon,
                SHMEM_MAP,
                [1, 0, at * PAGE, PAGE, flags],
                Some(&fd),
            );
            assert_eq!(code == 0, extended || flags == 1, "{flags:#x}");
        }
        let broken = if extended { 0 } else { words.len() - 1 };
        assert_eq!(server.violations().len(), broken);
        for flags in [0x41, 0x101, 0x111, 0x03, 0x200] {
            let code = ask(&daemon, SHMEM_MAP, [1, 0, 8 * PAGE, PAGE, flags], Some(&fd));
            assert_eq!(code, 1, "{flags:#x}");
        }
        assert_eq!(server.violations().len(), broken + 5);
    }
}

#[test]
fn a_request_need_not_ask_for_an_answer_where_that_is_no_rule() {
    let header = |flags| Header {
        request: SHMEM_MAP,
        flags,
        size: PAYLOAD as u32,
    };
    for (strict, flags, kept) in [
        (true, FLAG_VERSION, false),
        (true, FLAG_VERSION | FLAG_NEED_REPLY, true),
        (false, FLAG_VERSION, true),
        (false, FLAG_VERSION | FLAG_NEED_REPLY, true),
        (false, FLAG_VERSION | 1 << 4, false),
    ] {
        let mut state = State {
            size: 1 << 20,
            any_reply: !strict,
            ..State::default()
        };
        let fields = [1, 0, 0, PAGE, FLAG_WRITABLE];
        let payload: Vec<u8> = fields.iter().flat_map(|f| f.to_ne_bytes()).collect();
        handle(&mut state, header(flags), &payload, vec![file(SEALED)]);
        assert_eq!(state.violations.is_empty(), kept, "{strict} {flags:#x}");
    }
}

#[test]
fn files_without_seals_are_taken_where_that_is_no_rule() {
    let (server, daemon) = ShmemServer::start().unwrap();
    server.set_size(1 << 20);
    server.require_seals(false);
    server.set_serving(true);
    let growing = file(SealFlags::empty());
    let map = [1, 0, 0, PAGE, FLAG_WRITABLE];
    assert_eq!(ask(&daemon, SHMEM_MAP, map, Some(&growing)), 0);
    assert!(server.try_read(PAGE - 1, 2).is_err());
    assert!(server.try_write(PAGE, &[1]).is_err());
    server.try_write(PAGE - 1, &[7]).unwrap();
    assert_eq!(server.try_read(PAGE - 1, 1).unwrap(), [7]);
    assert_eq!(server.violations(), Vec::<String>::new());
}
