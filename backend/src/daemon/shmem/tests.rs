//! The channel against a front-end in the same process.

use std::fs::File;
use std::io::{ErrorKind, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Instant;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use nosnoop_protocol::memtype::ShmemMapFlags;

use super::*;

/// Longer than anything takes that does come.
const PATIENCE: Duration = Duration::from_secs(20);

/// What must not come has not come after this time.
const QUIET: Duration = Duration::from_millis(50);

const REQUEST: usize = 52;

/// The front-end's end of the channel.
struct FrontEnd(UnixStream);

impl FrontEnd {
    /// The next request: its bytes and the descriptors that came with it.
    fn receive(&mut self) -> ([u8; REQUEST], Vec<OwnedFd>) {
        let mut bytes = [0; REQUEST];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL;
        let received = recvmsg(&self.0, &mut slices, &mut ancillary, flags).unwrap();
        assert_eq!(received.bytes, REQUEST);
        let fds = ancillary.drain().flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => fds,
            _ => panic!("not descriptors"),
        });
        (bytes, fds.collect())
    }

    fn write(&mut self, words: &[u32]) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.0.write_all(&bytes).unwrap();
    }

    /// Answers a request of this kind.
    fn answer(&mut self, request: u32, value: u32) {
        self.write(&[request, 5, 8, value, 0]);
    }

    fn map_and_unmap_work(&mut self, channel: &ShmemChannel) {
        let mapping = map(channel);
        self.receive();
        self.answer(9, 0);
        assert_eq!(result(&mapping), Ok(()));
        let unmapping = unmap(channel);
        self.receive();
        self.answer(10, 0);
        assert_eq!(result(&unmapping), Ok(()));
    }

    fn has_been_hung_up_on(&mut self) -> bool {
        let mut rest = Vec::new();
        self.0.set_read_timeout(Some(PATIENCE)).unwrap();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => true,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

type Outcome = Result<(), MapError>;

fn connected(deadline: Duration) -> (ShmemChannel, FrontEnd) {
    let channel = ShmemChannel::new(deadline);
    let (ours, theirs) = UnixStream::pair().unwrap();
    channel.set_protocol_features(NEEDED.bits());
    channel.connect(ours).unwrap();
    assert!(channel.usable());
    (channel, FrontEnd(theirs))
}

fn some_file() -> Arc<OwnedFd> {
    Arc::new(tempfile::tempfile().unwrap().into())
}

fn request() -> MapRequest {
    MapRequest {
        shm_offset: 0x1_0000_2000,
        len: 0x3000,
        fd: some_file(),
        fd_offset: 0x2_0000_1000,
        flags: ShmemMapFlags {
            writable: true,
            memory: MemslotRequest::Unspecified,
        },
    }
}

fn reporting() -> (Done, Receiver<Outcome>) {
    let (report, reports) = channel();
    (
        Box::new(move |outcome| report.send(outcome).unwrap()),
        reports,
    )
}

fn map_this(channel: &ShmemChannel, request: MapRequest) -> Receiver<Outcome> {
    let (done, reports) = reporting();
    channel.map(request, done);
    reports
}

fn map(channel: &ShmemChannel) -> Receiver<Outcome> {
    map_this(channel, request())
}

fn unmap(channel: &ShmemChannel) -> Receiver<Outcome> {
    let (done, reports) = reporting();
    channel.unmap(0x1_0000_2000, 0x3000, done);
    reports
}

/// The one report, after which there can be none.
fn result(reports: &Receiver<Outcome>) -> Outcome {
    let outcome = reports.recv_timeout(PATIENCE).unwrap();
    let second = reports.recv_timeout(PATIENCE);
    assert_eq!(second, Err(RecvTimeoutError::Disconnected));
    outcome
}

fn pending(reports: &Receiver<Outcome>) -> bool {
    reports.recv_timeout(QUIET) == Err(RecvTimeoutError::Timeout)
}

fn assert_given_up(channel: &ShmemChannel) {
    assert!(!channel.usable());
    assert_eq!(result(&map(channel)), Err(MapError::Unavailable));
    assert_eq!(result(&unmap(channel)), Err(MapError::Unavailable));
}

fn wire(words: &[u32], longs: &[u64]) -> Vec<u8> {
    let words = words.iter().flat_map(|word| word.to_ne_bytes());
    let longs = longs.iter().flat_map(|long| long.to_ne_bytes());
    words.chain([1, 0, 0, 0, 0, 0, 0, 0]).chain(longs).collect()
}

#[test]
fn requests_have_the_documented_bytes_and_the_file() {
    let (channel, mut front_end) = connected(PATIENCE);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"this one").unwrap();
    let cached = MemslotRequest::Cached;
    let wc = MemslotRequest::Wc { noncoherent: true };
    let none = MemslotRequest::Unspecified;
    channel.set_protocol_features((NEEDED | MEMTYPE).bits());
    for (writable, memory, flags) in [
        (true, none, 1),
        (false, none, 0),
        (true, cached, 0x11),
        (false, wc, 0x130),
    ] {
        let fd = Arc::new(OwnedFd::from(file.try_clone().unwrap()));
        let request = MapRequest {
            fd: Arc::clone(&fd),
            flags: ShmemMapFlags { writable, memory },
            ..request()
        };
        let mapping = map_this(&channel, request);
        let (bytes, mut fds) = front_end.receive();
        let longs = [0x2_0000_1000, 0x1_0000_2000, 0x3000, flags];
        assert_eq!(bytes.to_vec(), wire(&[9, 9, 40], &longs));
        assert_eq!(fds.len(), 1);
        let mut content = [0; 8];
        let mut received = File::from(fds.pop().unwrap());
        std::os::unix::fs::FileExt::read_exact_at(&received, &mut content, 0).unwrap();
        assert_eq!(&content, b"this one");
        assert_ne!(received.as_raw_fd(), fd.as_raw_fd());
        received.flush().unwrap();
        front_end.answer(9, 0);
        assert_eq!(result(&mapping), Ok(()));
        assert_eq!(Arc::strong_count(&fd), 1, "the channel keeps no file");
    }
    let unmapping = unmap(&channel);
    let (bytes, fds) = front_end.receive();
    let longs = [0, 0x1_0000_2000, 0x3000, 0];
    assert_eq!(bytes.to_vec(), wire(&[10, 9, 40], &longs));
    assert!(fds.is_empty());
    front_end.answer(10, 0);
    assert_eq!(result(&unmapping), Ok(()));
}

#[test]
fn a_slow_answer_within_the_deadline_is_a_success() {
    let (channel, mut front_end) = connected(Duration::from_secs(5));
    let mapping = map(&channel);
    front_end.receive();
    thread::sleep(Duration::from_millis(300));
    assert!(pending(&mapping));
    // In two parts, and with a flag that some leave in.
    front_end.write(&[9, 13]);
    assert!(pending(&mapping));
    front_end.write(&[8, 0, 0]);
    assert_eq!(result(&mapping), Ok(()));
    front_end.map_and_unmap_work(&channel);
}

#[test]
fn a_missed_deadline_gives_the_channel_up() {
    let (channel, mut front_end) = connected(Duration::from_millis(150));
    let start = Instant::now();
    let (mapping, behind) = (map(&channel), unmap(&channel));
    assert_eq!(result(&mapping), Err(MapError::Lost));
    assert!(start.elapsed() >= Duration::from_millis(150));
    assert_eq!(result(&behind), Err(MapError::Unavailable));
    assert_given_up(&channel);
    // The late answer has nowhere to go, and what was behind was never sent.
    front_end.receive();
    let late = [9_u32, 5, 8, 0, 0].map(u32::to_ne_bytes).concat();
    assert!(front_end.0.write_all(&late).is_err());
    assert!(front_end.has_been_hung_up_on());
    assert_given_up(&channel);
}

#[test]
fn half_an_answer_does_not_extend_the_deadline() {
    let (channel, mut front_end) = connected(Duration::from_millis(600));
    let mapping = map(&channel);
    front_end.receive();
    front_end.write(&[9, 5, 8]);
    assert_eq!(result(&mapping), Err(MapError::Lost));
    assert_given_up(&channel);
}

#[test]
fn a_refusal_is_told_and_the_channel_goes_on() {
    let (channel, mut front_end) = connected(PATIENCE);
    let mapping = map(&channel);
    front_end.receive();
    front_end.write(&[9, 5, 8, 7, 1]);
    assert_eq!(result(&mapping), Err(MapError::Refused(7 | 1 << 32)));
    let unmapping = unmap(&channel);
    front_end.receive();
    front_end.answer(10, 1);
    assert_eq!(result(&unmapping), Err(MapError::Refused(1)));
    front_end.map_and_unmap_work(&channel);
}

#[test]
fn a_senseless_answer_gives_the_channel_up() {
    for garbage in [
        [10, 5, 8, 0, 0],
        [9, 1, 8, 0, 0],
        [9, 6, 8, 0, 0],
        [9, 0x15, 8, 0, 0],
        [9, 5, 4, 0, 0],
        [0xffff_ffff; 5],
    ] {
        let (channel, mut front_end) = connected(PATIENCE);
        let mapping = map(&channel);
        front_end.receive();
        front_end.write(&garbage);
        assert_eq!(result(&mapping), Err(MapError::Lost), "{garbage:?}");
        assert_given_up(&channel);
    }
}

#[test]
fn what_came_before_a_request_is_not_its_answer() {
    let (channel, mut front_end) = connected(PATIENCE);
    front_end.answer(9, 0);
    assert_eq!(result(&map(&channel)), Err(MapError::Unavailable));
    assert!(front_end.has_been_hung_up_on());
    assert_given_up(&channel);
}

#[test]
fn a_front_end_that_dies_is_noticed_in_each_state() {
    let (channel, front_end) = connected(PATIENCE);
    drop(front_end);
    assert_eq!(result(&unmap(&channel)), Err(MapError::Unavailable));
    assert_given_up(&channel);

    for half_an_answer in [false, true] {
        let (channel, mut front_end) = connected(PATIENCE);
        let (mapping, behind) = (map(&channel), map(&channel));
        front_end.receive();
        if half_an_answer {
            front_end.write(&[9, 5, 8]);
        }
        drop(front_end);
        assert_eq!(result(&mapping), Err(MapError::Lost));
        assert_eq!(result(&behind), Err(MapError::Unavailable));
        assert_given_up(&channel);
    }

    let (channel, front_end) = connected(PATIENCE);
    let mapping = map(&channel);
    // Without having read the request.
    thread::sleep(QUIET);
    drop(front_end);
    assert_eq!(result(&mapping), Err(MapError::Lost));
}

#[test]
fn what_is_no_socket_is_given_up() {
    let channel = ShmemChannel::new(PATIENCE);
    channel.set_protocol_features(NEEDED.bits());
    let file = OwnedFd::from(tempfile::tempfile().unwrap());
    channel.connect(UnixStream::from(file)).unwrap();
    assert_eq!(result(&map(&channel)), Err(MapError::Unavailable));
    assert_given_up(&channel);
}

#[test]
fn requests_are_made_one_after_the_other_in_order() {
    const COUNT: u32 = 20;
    let (channel, mut front_end) = connected(PATIENCE);
    let (report, reports) = std::sync::mpsc::channel();
    for number in 0..COUNT {
        let report = report.clone();
        let at = u64::from(number) << 12;
        let done: Done = Box::new(move |outcome| report.send((number, outcome)).unwrap());
        if number % 2 == 0 {
            let request = MapRequest {
                shm_offset: at,
                ..request()
            };
            channel.map(request, done);
        } else {
            channel.unmap(at, 4096, done);
        }
    }
    for number in 0..COUNT {
        let (bytes, _) = front_end.receive();
        let at = u64::from_ne_bytes(bytes[28..36].try_into().unwrap());
        assert_eq!(at, u64::from(number) << 12);
        front_end.0.set_nonblocking(true).unwrap();
        let early = front_end.0.read(&mut [0]).unwrap_err();
        assert_eq!(early.kind(), ErrorKind::WouldBlock);
        front_end.0.set_nonblocking(false).unwrap();
        front_end.answer(9 + number % 2, number % 3);
        let expected = match number % 3 {
            0 => Ok(()),
            error => Err(MapError::Refused(u64::from(error))),
        };
        assert_eq!(reports.recv_timeout(PATIENCE).unwrap(), (number, expected));
    }
}

#[test]
fn nothing_is_asked_for_without_every_feature_and_a_socket() {
    let channel = ShmemChannel::new(PATIENCE);
    channel.set_protocol_features(NEEDED.bits());
    assert_given_up(&channel);
    let (ours, theirs) = UnixStream::pair().unwrap();
    channel.connect(ours).unwrap();
    for missing in [
        VhostUserProtocolFeatures::SHMEM,
        VhostUserProtocolFeatures::BACKEND_REQ,
        VhostUserProtocolFeatures::REPLY_ACK,
    ] {
        channel.set_protocol_features(!missing.bits());
        assert_given_up(&channel);
    }
    channel.set_protocol_features(u64::MAX);
    FrontEnd(theirs).map_and_unmap_work(&channel);
}

#[test]
fn closing_tells_everybody_and_is_final() {
    let (channel, mut front_end) = connected(PATIENCE);
    let waiting = [map(&channel), map(&channel), unmap(&channel)];
    front_end.receive();
    channel.close();
    let outcomes = waiting.each_ref().map(Receiver::try_recv);
    let expected = [MapError::Lost, MapError::Unavailable, MapError::Unavailable];
    assert_eq!(outcomes, expected.map(|error| Ok(Err(error))));
    assert!(front_end.has_been_hung_up_on());
    assert_given_up(&channel);
    let (ours, theirs) = UnixStream::pair().unwrap();
    assert!(channel.connect(ours).is_err());
    assert!(FrontEnd(theirs).has_been_hung_up_on());
    assert_given_up(&channel);
    channel.close();
}

#[test]
fn a_new_socket_takes_the_place_of_the_old_one() {
    let (channel, mut old) = connected(PATIENCE);
    let mapping = map(&channel);
    old.receive();
    let (ours, theirs) = UnixStream::pair().unwrap();
    channel.connect(ours).unwrap();
    assert_eq!(mapping.try_recv(), Ok(Err(MapError::Lost)));
    assert!(old.has_been_hung_up_on());
    FrontEnd(theirs).map_and_unmap_work(&channel);
}

#[test]
fn a_done_may_make_the_next_request_and_be_the_last_owner() {
    let (channel, mut front_end) = connected(PATIENCE);
    let channel = Arc::new(channel);
    let (done, unmapped) = reporting();
    let owner = Arc::clone(&channel);
    channel.map(
        request(),
        Box::new(move |outcome| {
            assert_eq!(outcome, Ok(()));
            owner.unmap(0, 4096, done);
        }),
    );
    front_end.receive();
    drop(channel);
    front_end.answer(9, 0);
    front_end.receive();
    // The channel closes, on its own thread, when that one has just been sent.
    assert_eq!(result(&unmapped), Err(MapError::Lost));
    assert!(front_end.has_been_hung_up_on());
}

#[test]
fn while_the_device_is_stopped_nothing_is_sent_and_what_is_to_be_unmapped_waits() {
    let (channel, mut front_end) = connected(PATIENCE);
    channel.pause();
    let unmapping = unmap(&channel);
    let mapping = map(&channel);
    let quiet = unmapping.recv_timeout(QUIET);
    assert_eq!(quiet, Err(RecvTimeoutError::Timeout));
    front_end.0.set_nonblocking(true).unwrap();
    let nothing = front_end.0.read(&mut [0]).unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    front_end.0.set_nonblocking(false).unwrap();
    channel.resume();
    front_end.receive();
    front_end.answer(10, 0);
    assert_eq!(result(&unmapping), Ok(()));
    assert_eq!(result(&mapping), Err(MapError::Unavailable));
    assert!(channel.usable());

    // Stopped before its turn came.
    let unmapping = unmap(&channel);
    let mapping = map(&channel);
    front_end.receive();
    channel.pause();
    channel.resume();
    front_end.answer(10, 0);
    assert_eq!(result(&unmapping), Ok(()));
    assert_eq!(result(&mapping), Err(MapError::Unavailable));
    front_end.map_and_unmap_work(&channel);

    channel.pause();
    assert_eq!(result(&map(&channel)), Err(MapError::Unavailable));
    let unmapping = unmap(&channel);
    channel.close();
    assert_eq!(result(&unmapping), Err(MapError::Unavailable));
}

#[test]
fn the_deadline_does_not_run_while_the_device_is_stopped() {
    let deadline = Duration::from_millis(200);
    let (channel, mut front_end) = connected(deadline);
    let mapping = map(&channel);
    front_end.receive();
    channel.pause();
    let late = mapping.recv_timeout(deadline * 3);
    assert_eq!(late, Err(RecvTimeoutError::Timeout));
    channel.resume();
    front_end.answer(9, 0);
    assert_eq!(result(&mapping), Ok(()));
    // It does afterwards.
    let mapping = map(&channel);
    front_end.receive();
    assert_eq!(result(&mapping), Err(MapError::Lost));
}

#[test]
fn a_memory_type_is_not_sent_to_a_front_end_that_did_not_accept_it() {
    let (channel, mut front_end) = connected(PATIENCE);
    assert!(!channel.speaks_memtype());
    let mut typed = request();
    typed.flags.memory = MemslotRequest::Cached;
    let mapping = map_this(&channel, typed.clone());
    assert_eq!(result(&mapping), Err(MapError::Unavailable));
    front_end.map_and_unmap_work(&channel);
    // The extension without what it needs is not the extension.
    for needed in NEEDED {
        channel.set_protocol_features((NEEDED | MEMTYPE).difference(needed).bits());
        assert!(!channel.speaks_memtype(), "{needed:?}");
    }
    channel.set_protocol_features((NEEDED | MEMTYPE).bits());
    assert!(channel.speaks_memtype());
}
