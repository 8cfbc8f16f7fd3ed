//! The shared-memory channel in trouble: acknowledgements that are slow, late, wrong or missing,
//! and front-ends that die at any moment.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::cast_lossless,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "test code: a broken expectation is to stop the test loudly"
)]

#[path = "shmem/ends.rs"]
mod ends;
#[path = "shmem/order.rs"]
mod order;

use std::time::{Duration, Instant};

use nosnoop_tests::frontend::memory::PAGE;
use nosnoop_tests::frontend::message::{FLAG_REPLY, FLAG_VERSION, Header};
use nosnoop_tests::frontend::queue::Ticket;
use nosnoop_tests::frontend::request::{self, Cursor};
use nosnoop_tests::frontend::response::{self, resp};
use nosnoop_tests::frontend::shmem::{SHMEM_MAP, SHMEM_UNMAP};
use nosnoop_tests::frontend::{
    Ack, Daemon, Deadline, ImageContext, ImageRequest, Response, Result, Rig, Session,
    SessionOptions,
};

/// Bytes of the blobs here.
const SIZE: u64 = 4 * PAGE;

/// A device whose channel is given up after a second, with host blobs 200 to 204.
fn rig() -> Result<Rig> {
    let mut rig = Rig::host_blobs(&["--shm-deadline", "1"])?;
    blobs(&mut rig)?;
    Ok(rig)
}

fn blobs(session: &mut Session) -> Result<ImageContext> {
    let context = ImageContext::new(&mut session.gpu, 1, 100)?;
    let info = context.image(&mut session.gpu, ImageRequest::xrgb(1024, 4))?;
    for id in 200..205 {
        context.create_blob(&mut session.gpu, id, &info)?;
    }
    Ok(context)
}

/// Hands a command to the device without waiting for its answer.
fn start(session: &mut Session, request: &[u8]) -> Result<Ticket> {
    let ticket = session.gpu.control.submit(request, response::MAP_INFO)?;
    session.gpu.control.kick()?;
    Ok(ticket)
}

fn kind(session: &mut Session, ticket: Ticket) -> Result<u32> {
    session
        .gpu
        .control
        .wait(ticket)
        .map(|response| response.kind())
}

/// The answer and how long it took.
fn timed(session: &mut Session, request: &[u8]) -> Result<(u32, Duration)> {
    let begin = Instant::now();
    let ticket = start(session, request)?;
    Ok((kind(session, ticket)?, begin.elapsed()))
}

#[test]
fn an_acknowledgement_after_three_seconds_is_a_success_and_nothing_waits_for_it() -> Result<()> {
    let mut rig = Rig::host_blobs(&[])?;
    let context = blobs(&mut rig)?;
    rig.shmem().script(&[Ack::Late(Duration::from_secs(3))]);
    let begin = Instant::now();
    let ticket = start(&mut rig, &request::map_blob(200, 0))?;
    rig.shmem().wait_count(1)?;
    // Both queues and the main socket are served meanwhile, also for other blobs.
    while begin.elapsed() < Duration::from_millis(2500) {
        rig.gpu.display_info()?;
        rig.gpu.move_cursor(Cursor::default())?;
        rig.vhost.barrier()?;
        rig.gpu.unref(204)?;
        context.blob_of(&mut rig.gpu, 204, SIZE)?;
    }
    assert_eq!(kind(&mut rig, ticket)?, resp::OK_MAP_INFO);
    assert!(begin.elapsed() >= Duration::from_secs(3));
    assert_eq!(rig.shmem().mapped(), [(0, SIZE)]);
    rig.gpu.unmap_blob(200)?;
    rig.finish()
}

#[test]
fn without_an_acknowledgement_the_guest_has_an_error_by_six_seconds() -> Result<()> {
    let mut rig = Rig::host_blobs(&[])?;
    blobs(&mut rig)?;
    rig.shmem().script(&[Ack::Never]);
    let (answer, took) = timed(&mut rig, &request::map_blob(200, 0))?;
    assert_eq!(answer, resp::ERR_UNSPEC);
    assert!((4..6).contains(&took.as_secs()), "{took:?}");
    given_up(&mut rig, 1)?;
    rig.finish()
}

/// The channel is closed, everything that takes it is refused at once, the rest works.
fn given_up(rig: &mut Rig, requests: usize) -> Result<()> {
    rig.shmem().wait_closed()?;
    for request in [
        request::map_blob(201, 1 << 30),
        request::map_blob(202, 2 << 30),
    ] {
        let (answer, took) = timed(rig, &request)?;
        assert_eq!(answer, resp::ERR_UNSPEC);
        assert!(took < Duration::from_millis(500), "{took:?}");
    }
    let context = ImageContext::new(&mut rig.gpu, 9, 190)?;
    let info = context.image(&mut rig.gpu, ImageRequest::xrgb(64, 64))?;
    let create = context.blob_request(210, &info);
    assert_eq!(rig.gpu.answer(&create)?, resp::ERR_UNSPEC);
    assert_eq!(rig.shmem().count(), requests);
    for id in 200..205 {
        let answer = rig.gpu.answer(&request::unref(id))?;
        let expected = [resp::OK_NODATA, resp::ERR_INVALID_RESOURCE_ID];
        assert!(expected.contains(&answer), "{id}: {answer:#x}");
        let gone = rig.gpu.answer(&request::unref(id))?;
        assert_eq!(gone, resp::ERR_INVALID_RESOURCE_ID);
    }
    rig.check_usable()
}

#[test]
fn an_acknowledgement_after_the_deadline_satisfies_nothing() -> Result<()> {
    let mut rig = rig()?;
    rig.shmem().script(&[Ack::Late(Duration::from_secs(2))]);
    let (answer, took) = timed(&mut rig, &request::map_blob(200, 0))?;
    assert_eq!(answer, resp::ERR_UNSPEC);
    assert!(took < Duration::from_millis(1800), "{took:?}");
    // The offset may be mapped for all we know: nobody else gets it, nor a part of it.
    for offset in [0, PAGE, SIZE - PAGE] {
        let answer = rig.gpu.answer(&request::map_blob(201, offset))?;
        assert_eq!(answer, resp::ERR_INVALID_PARAMETER);
    }
    given_up(&mut rig, 1)?;
    rig.finish()
}

#[test]
fn after_a_refused_map_the_same_place_can_be_mapped() -> Result<()> {
    let mut rig = rig()?;
    let files = rig.daemon.open_files()?;
    for code in [1, 22, u64::MAX] {
        rig.shmem().script(&[Ack::Refuse(code)]);
        let answer = rig.gpu.answer(&request::map_blob(200, 0))?;
        assert_eq!(answer, resp::ERR_UNSPEC);
        let unmap = rig.gpu.answer(&request::unmap_blob(200))?;
        assert_eq!(unmap, resp::ERR_INVALID_PARAMETER);
    }
    rig.gpu.map_blob(201, 0)?;
    rig.gpu.unmap_blob(201)?;
    rig.gpu.map_blob(200, 0)?;
    assert_eq!(rig.daemon.open_files()?, files);
    rig.finish()
}

#[test]
fn where_an_unmap_was_refused_nothing_is_mapped_again() -> Result<()> {
    let mut rig = rig()?;
    rig.gpu.map_blob(200, 0)?;
    rig.gpu.map_blob(201, SIZE)?;
    rig.shmem().script(&[Ack::Refuse(1), Ack::Refuse(1)]);
    let answer = rig.gpu.answer(&request::unmap_blob(200))?;
    assert_eq!(answer, resp::ERR_UNSPEC);
    // Forgetting a resource succeeds all the same.
    rig.gpu.unref(201)?;
    for offset in [0, PAGE, SIZE, 2 * SIZE - PAGE] {
        let answer = rig.gpu.answer(&request::map_blob(202, offset))?;
        assert_eq!(answer, resp::ERR_INVALID_PARAMETER, "{offset:#x}");
    }
    let again = rig.gpu.answer(&request::map_blob(200, 4 * SIZE))?;
    assert_eq!(again, resp::ERR_INVALID_PARAMETER);
    rig.gpu.unref(200)?;
    rig.gpu.map_blob(202, 2 * SIZE)?;
    assert_eq!(
        rig.shmem().mapped(),
        [(0, SIZE), (SIZE, SIZE), (2 * SIZE, SIZE)]
    );
    rig.finish()
}

#[test]
fn an_unmap_without_an_acknowledgement_is_an_error_and_the_place_is_lost() -> Result<()> {
    for forget in [false, true] {
        let mut rig = rig()?;
        rig.gpu.map_blob(200, 0)?;
        rig.shmem().script(&[Ack::Never]);
        if forget {
            rig.gpu.unref(200)?;
        } else {
            let answer = rig.gpu.answer(&request::unmap_blob(200))?;
            assert_eq!(answer, resp::ERR_UNSPEC);
        }
        let answer = rig.gpu.answer(&request::map_blob(201, 0))?;
        assert_eq!(answer, resp::ERR_INVALID_PARAMETER);
        given_up(&mut rig, 2)?;
        rig.finish()?;
    }
    Ok(())
}

fn reply(request: u32, flags: u32, size: u32, rest: &[u8]) -> Vec<u8> {
    let header = Header {
        request,
        flags,
        size,
    };
    [&header.to_bytes(), rest].concat()
}

#[test]
fn garbage_instead_of_an_acknowledgement_is_none() -> Result<()> {
    let ok = FLAG_VERSION | FLAG_REPLY;
    let zero = 0_u64.to_ne_bytes();
    for garbage in [
        reply(SHMEM_UNMAP, ok, 8, &zero),
        reply(0, ok, 8, &zero),
        reply(SHMEM_MAP, FLAG_VERSION, 8, &zero),
        reply(SHMEM_MAP, FLAG_REPLY, 8, &zero),
        reply(SHMEM_MAP, ok, 4, &zero[..4]),
        reply(SHMEM_MAP, ok, 0, &[]),
        reply(SHMEM_MAP, ok, 16, &[0; 16]),
        reply(SHMEM_MAP, ok, u32::MAX, &zero),
        reply(SHMEM_MAP, ok, 8, &zero)[..19].to_vec(),
        vec![0xff; 64],
        vec![1],
        Vec::new(),
    ] {
        let mut rig = rig()?;
        rig.shmem().script(&[Ack::Raw(garbage.clone())]);
        let (answer, took) = timed(&mut rig, &request::map_blob(200, 0))?;
        assert_eq!(answer, resp::ERR_UNSPEC, "{garbage:x?}");
        assert!(took < Duration::from_millis(1800), "{took:?} {garbage:x?}");
        let taken = rig.gpu.answer(&request::map_blob(201, 0))?;
        assert_eq!(taken, resp::ERR_INVALID_PARAMETER, "{garbage:x?}");
        given_up(&mut rig, 1)?;
        rig.finish()?;
    }
    Ok(())
}
