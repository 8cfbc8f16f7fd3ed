//! The receiver, with a sender written by hand and slots that always do.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

use super::super::probe::{Decision, Reason, Support};
use super::super::sys::Backing;
use super::*;
use crate::frontend::VhostUser;
use crate::frontend::memory::PAGE;

const SIZE: u64 = 64 * PAGE;

#[derive(Debug)]
struct Willing;

impl Slots for Willing {
    fn set(&self, _: u32, _: u64, _: Backing, _: u32, _: bool) -> io::Result<()> {
        Ok(())
    }

    fn clear(&self, _: u32) -> io::Result<()> {
        Ok(())
    }
}

struct Daemon {
    channel: Channel<Willing>,
    socket: VhostUser,
    file: OwnedFd,
}

impl Daemon {
    fn new(decision: Decision, extended: bool) -> Self {
        let support = Support {
            ram: decision,
            mmio: decision,
        };
        let window = Window::new(Willing, 0, SIZE, 0, support).unwrap();
        let (channel, socket) = Channel::start(window, extended).unwrap();
        let file = memfd_create("blob", MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&file, 4 * PAGE).unwrap();
        fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
        Daemon {
            channel,
            socket: VhostUser::over(socket),
            file,
        }
    }

    fn send(&self, request: u32, flags: u32, payload: &[u8], files: usize) {
        let header = Header {
            request,
            flags,
            size: payload.len() as u32,
        };
        let files = vec![self.file.as_fd(); files];
        self.socket.send_raw(header, payload, &files).unwrap();
    }

    /// Sends a request and gives the code in its answer.
    fn ask(&self, request: u32, payload: &[u8], files: usize) -> u64 {
        self.send(request, FLAG_VERSION | FLAG_NEED_REPLY, payload, files);
        let (reply, answer) = self.socket.receive("an answer").unwrap();
        assert_eq!(reply.request, request);
        assert_eq!(reply.flags, FLAG_VERSION | FLAG_REPLY);
        assert_eq!(answer.len(), 8);
        u64_at(&answer, 0)
    }

    fn map(&self, offset: u64, flags: u64) -> u64 {
        self.ask(SHMEM_MAP, &payload(offset, flags), 1)
    }
}

fn payload(offset: u64, flags: u64) -> Vec<u8> {
    let words = [1_u64, PAGE, offset, 2 * PAGE, flags];
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

const EINVAL: u64 = 22;
const EOPNOTSUPP: u64 = 95;

#[test]
fn what_is_asked_is_mapped_and_unmapped() {
    let daemon = Daemon::new(Decision::AlwaysHonored, true);
    rustix::io::pwrite(&daemon.file, b"blob", PAGE).unwrap();
    assert_eq!(daemon.map(8 * PAGE, 0x131), 0);
    let mapped = [(8 * PAGE, 2 * PAGE)];
    assert_eq!(daemon.channel.window().mapped(), mapped);
    let seen = daemon.channel.window().reservation().read(8 * PAGE, 4);
    assert_eq!(seen.unwrap(), b"blob");
    assert_eq!(daemon.ask(SHMEM_UNMAP, &payload(8 * PAGE, 0), 0), 0);
    assert_eq!(daemon.channel.window().mapped(), []);
    assert_eq!(daemon.channel.refusals(), []);
}

#[test]
fn what_kvm_cannot_honor_is_answered_with_a_code_of_its_own() {
    let daemon = Daemon::new(Decision::Impossible(Reason::NoSelfSnoop), true);
    assert_eq!(daemon.map(0, 0x31), EOPNOTSUPP);
    let refusal = Refusal {
        request: SHMEM_MAP,
        code: EOPNOTSUPP,
        why:
            "the guest's memory type would have no effect: the processor lacks self-snoop, so KVM \
              keeps RAM write-back; nothing can change that"
                .to_owned(),
    };
    assert_eq!(daemon.channel.refusals(), [refusal]);
    assert_eq!(daemon.map(0, 0x11), 0);
}

#[test]
fn every_message_that_wants_an_answer_gets_one() {
    let daemon = Daemon::new(Decision::AlwaysHonored, true);
    let good = payload(0, 1);
    let with = |at: usize, value: u8| {
        let mut bytes = payload(0, 1);
        bytes[at] = value;
        bytes
    };
    for (request, payload, files) in [
        (SHMEM_MAP, payload(0, 1 << 9), 1),
        (SHMEM_MAP, payload(0, 0x41), 1),
        (SHMEM_MAP, payload(0, 0x101), 1),
        (SHMEM_MAP, good.clone(), 0),
        (SHMEM_MAP, good.clone(), 2),
        (SHMEM_MAP, good[..32].to_vec(), 1),
        (SHMEM_MAP, [&good[..], &[0; 8]].concat(), 1),
        (SHMEM_MAP, Vec::new(), 1),
        (SHMEM_MAP, with(0, 2), 1),
        (SHMEM_MAP, with(7, 1), 1),
        (SHMEM_UNMAP, good.clone(), 0),
        (SHMEM_UNMAP, good.clone(), 1),
        (11, good.clone(), 0),
        (u32::MAX, Vec::new(), 0),
    ] {
        assert_eq!(daemon.ask(request, &payload, files), EINVAL, "{request}");
        assert_eq!(daemon.channel.window().mapped(), []);
    }
    assert_eq!(daemon.channel.refusals().len(), 14);
    assert_eq!(daemon.map(0, 1), 0);
}

#[test]
fn without_a_wish_for_an_answer_nothing_is_mapped() {
    let daemon = Daemon::new(Decision::AlwaysHonored, true);
    daemon.send(SHMEM_MAP, FLAG_VERSION, &payload(0, 1), 1);
    // The next answer is the one to the next request.
    assert_eq!(daemon.map(8 * PAGE, 1), 0);
    assert_eq!(daemon.channel.window().mapped(), [(8 * PAGE, 2 * PAGE)]);
    assert_eq!(daemon.channel.refusals().len(), 1);
}

#[test]
fn without_the_extension_its_flags_are_unknown() {
    let daemon = Daemon::new(Decision::AlwaysHonored, false);
    for flags in [0x11, 0x21, 0x31, 0x131, 0x101] {
        assert_eq!(daemon.map(0, flags), EINVAL);
    }
    assert_eq!(daemon.map(0, 1), 0);
}

#[test]
fn the_daemon_sees_the_channel_end() {
    let daemon = Daemon::new(Decision::AlwaysHonored, true);
    drop(daemon.channel);
    daemon.socket.wait_closed().unwrap();
}
