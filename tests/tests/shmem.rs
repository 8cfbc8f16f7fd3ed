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

#[test]
fn commands_on_a_blob_wait_for_each_other_in_order() -> Result<()> {
    let mut rig = rig()?;
    rig.shmem().script(&[Ack::Late(Duration::from_millis(300))]);
    let requests = [
        request::map_blob(200, 0),
        request::map_blob(200, SIZE),
        request::unmap_blob(200),
        request::unmap_blob(200),
        request::map_blob(200, 2 * SIZE),
        request::unref(200),
        request::unmap_blob(200),
    ];
    let expected = [
        resp::OK_MAP_INFO,
        resp::ERR_INVALID_PARAMETER,
        resp::OK_NODATA,
        resp::ERR_INVALID_PARAMETER,
        resp::OK_MAP_INFO,
        resp::OK_NODATA,
        resp::ERR_INVALID_RESOURCE_ID,
    ];
    let mut tickets = Vec::new();
    for request in &requests {
        tickets.push(rig.gpu.control.submit(request, response::MAP_INFO)?);
    }
    rig.gpu.control.kick()?;
    for (ticket, expected) in tickets.into_iter().zip(expected) {
        assert_eq!(kind(&mut rig, ticket)?, expected);
    }
    let asked: Vec<_> = rig
        .shmem()
        .requests()
        .iter()
        .map(|r| (r.kind, r.offset))
        .collect();
    let order = [
        (SHMEM_MAP, 0),
        (SHMEM_UNMAP, 0),
        (SHMEM_MAP, 2 * SIZE),
        (SHMEM_UNMAP, 2 * SIZE),
    ];
    assert_eq!(asked, order);
    rig.finish()
}

#[test]
fn a_place_being_mapped_or_unmapped_is_not_given_to_another() -> Result<()> {
    let mut rig = rig()?;
    let pause = Ack::Late(Duration::from_millis(300));
    rig.shmem().script(&[pause.clone(), pause]);
    for (request, expected) in [
        (request::map_blob(200, 0), resp::OK_MAP_INFO),
        (request::unmap_blob(200), resp::OK_NODATA),
    ] {
        let ticket = start(&mut rig, &request)?;
        let answer = rig.gpu.answer(&request::map_blob(201, PAGE))?;
        assert_eq!(answer, resp::ERR_INVALID_PARAMETER);
        assert_eq!(kind(&mut rig, ticket)?, expected);
    }
    rig.gpu.map_blob(201, PAGE)?;
    rig.finish()
}

#[test]
fn fences_on_parked_commands_come_with_their_answer() -> Result<()> {
    let mut rig = rig()?;
    rig.shmem().script(&[Ack::Late(Duration::from_millis(300))]);
    let map = request::map_blob(200, 0).fenced(u64::MAX - 1);
    let ticket = start(&mut rig, &map)?;
    let other = request::get_display_info().fenced(7);
    let other: Response = rig.gpu.call(&other, response::DISPLAY_INFO)?;
    assert_eq!(other.fence_id(), 7);
    let response = rig.gpu.control.wait(ticket)?;
    let response = response.expect("RESOURCE_MAP_BLOB", resp::OK_MAP_INFO)?;
    assert_eq!(response.fence_id(), u64::MAX - 1);
    assert_eq!(response.written(), response::MAP_INFO);
    rig.finish()
}

#[test]
fn a_ring_stops_with_nothing_parked_and_what_was_mapped_late_does_not_stay() -> Result<()> {
    let mut rig = rig()?;
    rig.shmem().script(&[Ack::Late(Duration::from_millis(600))]);
    let map = start(&mut rig, &request::map_blob(200, 0))?;
    let unref = start(&mut rig, &request::unref(200))?;
    let behind = start(&mut rig, &request::map_blob(201, SIZE))?;
    rig.shmem().wait_count(1)?;
    // Requests are taken in order: all are parked once this is answered.
    rig.gpu.display_info()?;
    let begin = Instant::now();
    let base = rig.stop_queue(0)?;
    assert!(
        begin.elapsed() < Duration::from_millis(400),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(base, u32::from(rig.gpu.control.ring().next_avail()));
    // All are answered already. What is to be forgotten is, as nobody asks for it again.
    for (ticket, expected) in [
        (map, resp::ERR_UNSPEC),
        (unref, resp::OK_NODATA),
        (behind, resp::ERR_UNSPEC),
    ] {
        assert_eq!(kind(&mut rig, ticket)?, expected);
    }
    // A device that is stopped asks for nothing: crosvm would not answer, QEMU would crash.
    std::thread::sleep(Duration::from_millis(900));
    assert_eq!(rig.shmem().count(), 1);
    rig.start_queue(0, base)?;
    rig.gpu.map_blob(201, 0)?;
    assert_eq!(rig.shmem().mapped(), [(0, SIZE)]);
    let asked: Vec<_> = rig.shmem().requests().iter().map(|r| r.kind).collect();
    assert_eq!(asked, [SHMEM_MAP, SHMEM_UNMAP, SHMEM_MAP]);
    let gone = rig.gpu.answer(&request::unref(200))?;
    assert_eq!(gone, resp::ERR_INVALID_RESOURCE_ID);
    rig.finish()
}

#[test]
fn a_reset_while_a_map_is_awaited_leaves_nothing_behind() -> Result<()> {
    let mut rig = rig()?;
    for _ in 0..3 {
        let count = rig.shmem().count();
        rig.shmem().script(&[Ack::Late(Duration::from_millis(300))]);
        start(&mut rig, &request::map_blob(200, 0))?;
        rig.shmem().wait_count(count + 1)?;
        rig.reset_device()?;
        blobs(&mut rig)?;
        // Whatever became of it, the place is free for the new driver.
        Deadline::default().poll("the place to be free", || {
            let answer = rig.gpu.answer(&request::map_blob(201, PAGE))?;
            Ok((answer == resp::OK_MAP_INFO).then_some(()))
        })?;
        assert_eq!(rig.shmem().mapped(), [(PAGE, SIZE)]);
        rig.gpu.unref(201)?;
        rig.reset_device()?;
        blobs(&mut rig)?;
    }
    rig.finish()
}

#[test]
fn what_a_reset_left_mapped_is_unmapped_when_the_device_runs_again() -> Result<()> {
    let mut rig = rig()?;
    rig.gpu.map_blob(200, 0)?;
    rig.gpu.map_blob(201, SIZE)?;
    rig.reset_device()?;
    // Nobody has to map anything for that.
    rig.gpu.display_info()?;
    rig.shmem().wait_mapped(&[])?;
    assert_eq!(rig.shmem().count(), 4);
    rig.finish()
}

#[test]
fn a_reset_leaves_the_whole_quota_to_the_next_guest() -> Result<()> {
    let mut rig = Rig::host_blobs(&["--max-hostmem", "16M"])?;
    for _ in 0..3 {
        let context = ImageContext::new(&mut rig.gpu, 1, 100)?;
        Deadline::default().poll("the quota to be free", || {
            context
                .blob_of(&mut rig.gpu, 200, 16 << 20)
                .map(Some)
                .or(Ok(None))
        })?;
        rig.gpu.map_blob(200, 0)?;
        rig.reset_device()?;
    }
    rig.finish()
}

#[test]
fn an_unmap_after_a_reset_that_is_lost_fails_what_comes_after() -> Result<()> {
    let mut rig = rig()?;
    rig.gpu.map_blob(200, 0)?;
    rig.shmem().script(&[Ack::Never]);
    rig.reset_device()?;
    rig.gpu.display_info()?;
    rig.shmem().wait_closed()?;
    let context = ImageContext::new(&mut rig.gpu, 9, 190)?;
    let info = context.image(&mut rig.gpu, ImageRequest::xrgb(64, 64))?;
    let create = context.blob_request(210, &info);
    assert_eq!(rig.gpu.answer(&create)?, resp::ERR_UNSPEC);
    rig.check_usable()?;
    rig.finish()
}

#[test]
fn a_channel_that_closes_in_any_state_fails_only_what_takes_it() -> Result<()> {
    // While nothing is mapped, mapping, mapped, unmapping.
    let mut rig = rig()?;
    rig.close_shmem();
    assert_eq!(
        rig.gpu.answer(&request::map_blob(200, 0))?,
        resp::ERR_UNSPEC
    );
    given_up(&mut rig, 0)?;
    rig.finish()?;

    let mut rig = self::rig()?;
    rig.shmem().script(&[Ack::Close]);
    let (answer, took) = timed(&mut rig, &request::map_blob(200, 0))?;
    assert_eq!(answer, resp::ERR_UNSPEC);
    assert!(took < Duration::from_millis(800), "{took:?}");
    given_up(&mut rig, 1)?;
    rig.finish()?;

    let mut rig = self::rig()?;
    rig.gpu.map_blob(200, 0)?;
    rig.close_shmem();
    assert_eq!(rig.gpu.answer(&request::unmap_blob(200))?, resp::ERR_UNSPEC);
    let taken = rig.gpu.answer(&request::map_blob(201, 0))?;
    assert_eq!(taken, resp::ERR_INVALID_PARAMETER);
    given_up(&mut rig, 1)?;
    rig.finish()?;

    let mut rig = self::rig()?;
    rig.gpu.map_blob(200, 0)?;
    rig.shmem().script(&[Ack::Close]);
    let answer = rig.gpu.answer(&request::unmap_blob(200))?;
    assert_eq!(answer, resp::ERR_UNSPEC);
    given_up(&mut rig, 2)?;
    rig.finish()
}

#[test]
fn a_front_end_that_dies_in_any_state_leaves_nothing_and_holds_nobody_up() -> Result<()> {
    // The default deadline: the end of a session must not wait for it.
    let mut daemon = Daemon::start(&["--shm-size", "8G"])?;
    let mut counts = None;
    for round in 0..12 {
        let begin = Instant::now();
        let options = SessionOptions::host_blobs();
        let mut session = Session::connect(daemon.socket(), &options)?;
        assert!(
            begin.elapsed() < Duration::from_secs(2),
            "{:?}",
            begin.elapsed()
        );
        let now = (daemon.open_files()?, daemon.threads()?, daemon.mappings()?);
        let first = counts.get_or_insert(now);
        if round > 3 {
            // The allocator's own mappings have settled by then.
            assert_eq!((first.0, first.1), (now.0, now.1), "round {round}");
            assert!(now.2 <= first.2 + 4, "{first:?} {now:?}");
        }
        blobs(&mut session)?;
        match round % 4 {
            0 => {}
            1 => {
                session.gpu.map_blob(200, 0)?;
            }
            2 => {
                session.shmem().script(&[Ack::Never]);
                start(&mut session, &request::map_blob(200, 0))?;
                start(&mut session, &request::unref(200))?;
                session.shmem().wait_count(1)?;
            }
            _ => {
                session.gpu.map_blob(200, 0)?;
                session.shmem().script(&[Ack::Never]);
                start(&mut session, &request::unmap_blob(200))?;
                session.shmem().wait_count(2)?;
            }
        }
        session.check_shmem()?;
    }
    daemon.check_alive()?;
    assert!(daemon.terminate()?.success());
    Ok(())
}

#[test]
fn the_daemon_ends_while_an_acknowledgement_is_awaited() -> Result<()> {
    let mut rig = Rig::host_blobs(&[])?;
    blobs(&mut rig)?;
    rig.shmem().script(&[Ack::Never]);
    start(&mut rig, &request::map_blob(200, 0))?;
    rig.shmem().wait_count(1)?;
    let begin = Instant::now();
    rig.end()?;
    assert!(
        begin.elapsed() < Duration::from_secs(2),
        "{:?}",
        begin.elapsed()
    );
    Ok(())
}

#[test]
fn forgetting_a_blob_or_its_context_while_it_is_mapped_unmaps_it() -> Result<()> {
    let mut rig = rig()?;
    let pause = Ack::Late(Duration::from_millis(200));
    rig.shmem().script(&[pause.clone(), Ack::Ok, pause]);
    let map = start(&mut rig, &request::map_blob(200, 0))?;
    let unref = start(&mut rig, &request::unref(200))?;
    assert_eq!(kind(&mut rig, map)?, resp::OK_MAP_INFO);
    assert_eq!(kind(&mut rig, unref)?, resp::OK_NODATA);
    assert_eq!(rig.shmem().mapped(), []);
    let map = start(&mut rig, &request::map_blob(201, 0))?;
    let destroy = start(&mut rig, &request::ctx_destroy(1))?;
    assert_eq!(kind(&mut rig, destroy)?, resp::OK_NODATA);
    assert_eq!(kind(&mut rig, map)?, resp::OK_MAP_INFO);
    rig.shmem().wait_count(4)?;
    rig.shmem().wait_mapped(&[])?;
    rig.finish()
}

#[test]
fn a_whole_ring_of_parked_commands_is_answered() -> Result<()> {
    let mut rig = rig()?;
    rig.shmem().script(&[Ack::Late(Duration::from_millis(300))]);
    let mut tickets = Vec::new();
    for n in 0..60 {
        tickets.push(start(&mut rig, &request::map_blob(200, n * SIZE))?);
        tickets.push(start(&mut rig, &request::unmap_blob(200))?);
    }
    let mut answers = Vec::new();
    for ticket in tickets {
        answers.push(kind(&mut rig, ticket)?);
    }
    // How many may wait is the device's affair; each is answered, and the first two are done.
    assert_eq!(answers[..2], [resp::OK_MAP_INFO, resp::OK_NODATA]);
    rig.gpu.map_blob(201, 100 * SIZE)?;
    rig.finish()
}

#[test]
fn on_a_new_channel_everything_works_but_the_places_that_were_lost() -> Result<()> {
    let mut rig = rig()?;
    rig.gpu.map_blob(200, 0)?;
    rig.gpu.map_blob(201, SIZE)?;
    rig.shmem().script(&[Ack::Never]);
    let lost = rig.gpu.answer(&request::unmap_blob(200))?;
    assert_eq!(lost, resp::ERR_UNSPEC);
    rig.reopen_shmem()?;
    for offset in [0, PAGE, SIZE] {
        let answer = rig.gpu.answer(&request::map_blob(202, offset))?;
        assert_eq!(answer, resp::ERR_INVALID_PARAMETER, "{offset:#x}");
    }
    rig.gpu.unmap_blob(201)?;
    rig.gpu.map_blob(202, SIZE)?;
    rig.finish()
}

#[test]
fn on_a_new_channel_places_that_a_reset_could_not_clear_are_not_handed_out() -> Result<()> {
    for closed in [false, true] {
        let mut rig = rig()?;
        rig.gpu.map_blob(200, 0)?;
        rig.reset_device()?;
        blobs(&mut rig)?;
        if closed {
            rig.close_shmem();
        } else {
            // Nothing is done, and nothing said.
            rig.shmem().set_serving(false);
        }
        let answer = rig.gpu.answer(&request::map_blob(201, 4 * SIZE))?;
        assert_eq!(answer, resp::ERR_UNSPEC);
        rig.reopen_shmem()?;
        rig.shmem().set_serving(true);
        // Refused, or unmapped first: not over what is still mapped there.
        let answer = rig.gpu.answer(&request::map_blob(202, 0))?;
        let allowed = [resp::ERR_INVALID_PARAMETER, resp::OK_MAP_INFO];
        assert!(allowed.contains(&answer), "{closed}: {answer:#x}");
        rig.check_shmem()?;
        rig.gpu.map_blob(203, 8 * SIZE)?;
        rig.finish()?;
    }
    Ok(())
}

#[test]
fn fences_of_a_timeline_wait_for_a_parked_command_and_those_of_others_do_not() -> Result<()> {
    let mut rig = rig()?;
    let pause = Duration::from_millis(800);
    rig.shmem().script(&[Ack::Late(pause)]);
    let begin = Instant::now();
    let map = start(&mut rig, &request::map_blob(200, 0).fenced(1))?;
    let same = start(&mut rig, &request::submit_3d(1, &[]).fenced(2))?;
    let other = request::submit_3d(1, &[]).fenced(1).on_ring(1);
    let other = start(&mut rig, &other)?;
    let none = start(&mut rig, &request::submit_3d(1, &[]))?;
    for ticket in [other, none] {
        assert_eq!(kind(&mut rig, ticket)?, resp::OK_NODATA);
    }
    assert!(begin.elapsed() < pause, "{:?}", begin.elapsed());
    // Linux takes a fence as news of all those before it.
    assert_eq!(kind(&mut rig, same)?, resp::OK_NODATA);
    assert!(begin.elapsed() >= pause, "{:?}", begin.elapsed());
    assert_eq!(kind(&mut rig, map)?, resp::OK_MAP_INFO);
    rig.finish()
}
