//! A device, a channel, a front-end or the daemon that ends in the middle, and what begins after it.

use super::*;

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
fn a_reset_by_message_alone_asks_for_nothing_before_the_device_runs_again() -> Result<()> {
    let mut rig = rig()?;
    rig.gpu.map_blob(200, 0)?;
    rig.vhost.reset_device()?;
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(rig.shmem().count(), 1);
    // The rings go on where they are: the message has disabled them, and taken the features back.
    rig.vhost.set_features(rig.features)?;
    for index in [0, 1] {
        rig.vhost.set_vring_enable(index, true)?;
    }
    rig.gpu.display_info()?;
    rig.shmem().wait_mapped(&[])?;
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
