//! What waits for what: commands on one blob, fences, places in the region.

use super::*;

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
