//! What needs no front-end: what becomes of descriptors, and numbers. All else is tested over the real
//! daemon.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use super::inlet::Descriptor;
use super::*;

fn memfd(bytes: &[u8]) -> OwnedFd {
    let mut file = File::from(memfd_create(c"nosnoop-test", MemfdFlags::CLOEXEC).unwrap());
    file.write_all(bytes).unwrap();
    file.into()
}

/// A channel that is nobody's, and the compositor's end of it.
fn channel() -> (Channel, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let watcher = Watcher::start(Weak::new()).unwrap();
    let inlet = Arc::new(Inlet::new(ours.try_clone().unwrap()).unwrap());
    let channel = Channel {
        context: ContextId::new(1).unwrap(),
        ring: ResourceId::new(1).unwrap(),
        inlet,
        outlet: Outlet::new(ours, ContextSerial(1), watcher),
        memory: HashMap::new(),
        last_id: LAST_ID,
        fences: VecDeque::new(),
        pending: None,
    };
    (channel, theirs)
}

/// What the inlet makes of descriptors that come with a message.
fn passed(files: &[&OwnedFd]) -> Vec<Descriptor> {
    let (channel, theirs) = channel();
    let files: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(28))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&files)));
    let bytes = [io::IoSlice::new(b"x")];
    rustix::net::sendmsg(&theirs, &bytes, &mut ancillary, SendFlags::empty()).unwrap();
    match channel.inlet.next() {
        Some(Event::Message { bytes, descriptors }) if bytes == b"x" => descriptors,
        other => panic!("{other:?}"),
    }
}

#[test]
fn files_are_copied_to_their_last_byte() {
    for len in [1, 4095, 4096, 4097, 65_536, 65_537, 200_000_usize] {
        let bytes: Vec<u8> = (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let file = memfd(&bytes);
        let [Descriptor::Memory(memory)] = &passed(&[&file])[..] else {
            panic!("{len}");
        };
        assert_eq!(
            memory.len(),
            u64::try_from(len.next_multiple_of(4096)).unwrap()
        );
        let mut copy = vec![9; usize::try_from(memory.len()).unwrap()];
        memory.read(0, &mut copy).unwrap();
        assert!(copy[..len] == bytes && copy[len..].iter().all(|byte| *byte == 0));
        // It is a copy.
        ftruncate(&file, 0).unwrap();
        memory.read(0, &mut copy).unwrap();
        assert!(copy[..len] == bytes);
    }
}

#[test]
fn only_files_and_pipes_to_write_are_passed_on() {
    let large = memfd(b"");
    ftruncate(&large, (16 << 20) + 1).unwrap();
    let largest = memfd(b"");
    ftruncate(&largest, 16 << 20).unwrap();
    let (read, write) = pipe().unwrap();
    let socket = OwnedFd::from(UnixStream::pair().unwrap().0);
    let files = [&large, &largest, &read, &write, &socket, &memfd(b"")];
    let kinds: Vec<_> = passed(&files)
        .iter()
        .map(|descriptor| match descriptor {
            Descriptor::Memory(memory) => Some(memory.len()),
            Descriptor::Pipe(_) => Some(0),
            Descriptor::Nothing => None,
        })
        .collect();
    assert_eq!(kinds, [None, Some(16 << 20), None, Some(0), None, None]);
}

#[test]
fn numbers_are_given_out_in_turn_and_not_twice() {
    let (mut channel, _theirs) = channel();
    assert_eq!(channel.fresh_id().get(), FIRST_ID);
    assert_eq!(channel.fresh_id().get(), FIRST_ID + 1);
    // All the way round, with some still in use.
    channel.last_id = LAST_ID - 1;
    let memory = crate::memory::alloc::memfd::allocate(4096).unwrap();
    channel.memory.insert(FIRST_ID, memory);
    let next = PipeId::written_by_guest(FIRST_ID + 1).unwrap();
    channel.outlet.add_pipe(next, memfd(b""));
    assert_eq!(channel.fresh_id().get(), LAST_ID);
    assert_eq!(channel.fresh_id().get(), FIRST_ID + 2);
}

#[test]
fn a_pipe_is_read_until_it_ends() {
    let (channel, theirs) = channel();
    let id = PipeId::read_by_guest(0x8000_0001).unwrap();
    let (read, write) = pipe().unwrap();
    channel.inlet.add_pipe(id, read).unwrap();
    assert!(channel.inlet.next().is_none());
    File::from(write).write_all(&[7; 5000]).unwrap();
    let mut sizes = Vec::new();
    while channel.inlet.has_pipe(id) {
        match channel.inlet.next() {
            Some(Event::Piped { pipe, bytes }) if pipe == id => sizes.push(bytes.len()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(sizes, [4072, 928, 0]);
    assert!(channel.inlet.next().is_none());
    drop(theirs);
    for _ in 0..2 {
        let gone = channel.inlet.next();
        assert!(matches!(gone, Some(Event::Message { bytes, .. }) if bytes.is_empty()));
    }
}

#[test]
fn what_waits_is_sent_in_order_and_bounded() {
    let (mut channel, theirs) = channel();
    let piece = vec![1; 30_000];
    let mut sent = 0;
    while channel.outlet.send(&piece, Vec::new()).is_ok() {
        sent += 30_000;
        assert!(sent < 10_000_000);
    }
    assert!(sent > outlet::MAX_BACKLOG - 31_000, "{sent}");
    theirs.set_nonblocking(true).unwrap();
    let mut received = 0;
    let mut bytes = vec![0; 65_536];
    loop {
        match io::Read::read(&mut (&theirs), &mut bytes) {
            Ok(count) => received += count,
            Err(_) if received == sent => break,
            Err(_) => channel.outlet.flush(),
        }
    }
    channel.outlet.send(b"again", Vec::new()).unwrap();
    drop(theirs);
    assert_eq!(
        channel.outlet.send(b"late", Vec::new()),
        Err(GpuError::Unspec)
    );
}
