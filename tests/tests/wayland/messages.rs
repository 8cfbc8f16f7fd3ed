//! Bytes both ways, and how they meet fences.

use std::time::Duration;

use nosnoop_tests::frontend::cross_domain::{self, CAPSET};
use nosnoop_tests::frontend::message::u32_at;
use nosnoop_tests::frontend::request::{self, submit_3d};
use nosnoop_tests::frontend::response::{HEADER, resp};
use nosnoop_tests::frontend::three_d::{Line, fenced_submit};
use nosnoop_tests::frontend::{Channel, Result, Rig};

use super::compositor::{Compositor, RING, connected};

/// The channels that the capability set offers.
fn channels(rig: &mut Rig) -> Result<u32> {
    let answer = rig.gpu.call(&request::get_capset(CAPSET, 1), HEADER + 16)?;
    Ok(u32_at(answer.bytes(), HEADER + 4))
}

#[test]
fn channels_are_offered_where_there_is_a_compositor() -> Result<()> {
    let mut rig = Rig::host_blobs(&[])?;
    assert_eq!(channels(&mut rig)?, 0);
    rig.finish()?;
    let compositor = Compositor::new();
    let mut rig = compositor.rig()?;
    assert_eq!(channels(&mut rig)?, 2);
    rig.finish()
}

#[test]
fn messages_go_both_ways() -> Result<()> {
    let (_compositor, mut rig, mut channel, mut client) = connected()?;
    channel.send(&mut rig.gpu, b"hello, compositor", &[])?;
    assert_eq!(client.read(17), b"hello, compositor");
    assert!(channel.is_quiet(&mut rig.gpu)?);
    client.send(b"hello, guest");
    let received = channel.receive(&mut rig.gpu)?;
    assert_eq!(received, (b"hello, guest".to_vec(), vec![]));
    rig.finish()
}

/// More than fits one record: each fence brings the next part, and none is lost while none waits.
#[test]
fn each_fence_brings_one_event_and_none_is_lost() -> Result<()> {
    let (_compositor, mut rig, mut channel, mut client) = connected()?;
    let bytes: Vec<u8> = (0..20_000_u32).map(|n| (n % 251) as u8).collect();
    client.send(&bytes);
    let mut received = Vec::new();
    let mut events = 0;
    while received.len() < bytes.len() {
        let (part, _) = channel.receive(&mut rig.gpu)?;
        assert!(part.len() <= 4096 - 352, "{}", part.len());
        received.extend(part);
        events += 1;
        // The device does other things meanwhile.
        rig.gpu.display_info()?;
    }
    assert_eq!(received, bytes);
    assert!(events >= 6, "{events}");
    assert!(channel.is_quiet(&mut rig.gpu)?);
    rig.finish()
}

#[test]
fn fences_that_wait_together_get_an_event_each() -> Result<()> {
    let (_compositor, mut rig, channel, mut client) = connected()?;
    let mut tickets = Vec::new();
    for fence in 1..=3 {
        let poll = fenced_submit(1, &cross_domain::poll(), fence, Line::Ring(1));
        tickets.push(rig.gpu.control.submit(&poll, HEADER)?);
    }
    rig.gpu.control.kick()?;
    for (ticket, text) in tickets.into_iter().zip([b"one", b"two", b"six"]) {
        client.send(text);
        let answer = rig.gpu.control.wait(ticket)?;
        assert_eq!(answer.kind(), resp::OK_NODATA);
        let ring = rig.gpu.ram.read(channel.memory.addr + 352, 3)?;
        assert_eq!(ring, text);
    }
    rig.finish()
}

#[test]
fn other_fences_do_not_wait_for_the_channel() -> Result<()> {
    let (_compositor, mut rig, mut channel, _client) = connected()?;
    channel.poll(&mut rig.gpu)?;
    for line in [Line::Global, Line::Ring(0), Line::Ring(2)] {
        let fenced = fenced_submit(1, &cross_domain::poll(), 77, line);
        let answer = rig.gpu.call(&fenced, HEADER)?;
        assert_eq!((answer.kind(), answer.fence_id()), (resp::OK_NODATA, 77));
    }
    // Nor do those of a context without one.
    rig.gpu.create_context(2, CAPSET)?;
    let fenced = fenced_submit(2, &[], 78, Line::Ring(1));
    assert_eq!(rig.gpu.call(&fenced, HEADER)?.kind(), resp::OK_NODATA);
    assert!(channel.is_quiet(&mut rig.gpu)?);
    rig.finish()
}

#[test]
fn contexts_have_channels_of_their_own() -> Result<()> {
    let (compositor, mut rig, mut first, mut first_client) = connected()?;
    let mut second = Channel::new(&mut rig.gpu, 2, 200)?;
    let mut second_client = compositor.accept();
    first.poll(&mut rig.gpu)?;
    second_client.send(b"second");
    assert_eq!(second.receive(&mut rig.gpu)?.0, b"second");
    first_client.send(b"first");
    assert_eq!(first.receive(&mut rig.gpu)?.0, b"first");
    rig.finish()
}

/// The rings are separate where INIT has one, too: the old form.
#[test]
fn one_ring_can_be_both() -> Result<()> {
    let compositor = Compositor::new();
    let mut rig = compositor.rig()?;
    let mut channel = Channel::without_init(&mut rig.gpu, 1, RING)?;
    rig.gpu
        .submit_3d(1, &cross_domain::init_legacy(RING + 1, 1))?;
    let mut client = compositor.accept();
    client.send(b"x");
    assert_eq!(channel.receive(&mut rig.gpu)?.0, b"x");
    let image = cross_domain::ImageRequest::xrgb(64, 64).to_bytes();
    rig.gpu.submit_3d(1, &image)?;
    assert_eq!(rig.gpu.ram.read(channel.memory.addr, 4)?, [0, 1, 0, 0]);
    rig.finish()
}

/// The daemon does next to nothing: what was answered last may have an end.
fn check_idle(rig: &Rig) -> Result<()> {
    let before = rig.daemon.cpu_time()?;
    std::thread::sleep(Duration::from_millis(500));
    let used = rig.daemon.cpu_time()? - before;
    assert!(used < Duration::from_millis(20), "{used:?}");
    Ok(())
}

#[test]
fn what_waits_for_nothing_costs_nothing() -> Result<()> {
    let (_compositor, mut rig, mut channel, mut client) = connected()?;
    channel.poll(&mut rig.gpu)?;
    rig.gpu.display_info()?;
    check_idle(&rig)?;
    // A compositor that talks to one who does not listen.
    client.send(b"first");
    channel.receive(&mut rig.gpu)?;
    client.send(b"second");
    std::thread::sleep(Duration::from_millis(50));
    check_idle(&rig)?;
    rig.finish()
}

#[test]
fn an_init_that_cannot_be_is_refused_and_a_good_one_works_after() -> Result<()> {
    let compositor = Compositor::new();
    let mut rig = compositor.rig()?;
    let mut channel = Channel::without_init(&mut rig.gpu, 1, RING)?;
    let early = submit_3d(1, &cross_domain::send(b"x", &[]));
    assert_eq!(rig.gpu.answer(&early)?, resp::ERR_INVALID_PARAMETER);
    for (query, ring, kind, expected) in [
        (RING, 0, 1, resp::ERR_INVALID_RESOURCE_ID),
        (RING, 99, 1, resp::ERR_INVALID_RESOURCE_ID),
        (99, RING, 1, resp::ERR_INVALID_RESOURCE_ID),
        (RING, RING + 1, 2, resp::ERR_INVALID_PARAMETER),
        (RING, RING + 1, 0x10, resp::ERR_INVALID_PARAMETER),
        (RING, RING + 1, u32::MAX, resp::ERR_INVALID_PARAMETER),
    ] {
        let init = submit_3d(1, &cross_domain::init(query, ring, kind));
        assert_eq!(rig.gpu.answer(&init)?, expected, "{query} {ring} {kind}");
    }
    let init = cross_domain::init(RING, RING + 1, 1);
    rig.gpu.submit_3d(1, &init)?;
    let again = rig.gpu.answer(&submit_3d(1, &init))?;
    assert_eq!(again, resp::ERR_INVALID_PARAMETER);
    let mut client = compositor.accept();
    client.send(b"x");
    assert_eq!(channel.receive(&mut rig.gpu)?.0, b"x");
    rig.finish()
}

/// Commands that claim more than they have, between good ones.
#[test]
fn malformed_messages_are_refused_and_nothing_of_them_is_sent() -> Result<()> {
    let (_compositor, mut rig, channel, mut client) = connected()?;
    let good = cross_domain::send(b"abcd", &[]);
    let write = cross_domain::write(5, b"abcd", false);
    let patched = |from: &[u8], at: usize, word: u32| {
        let mut bytes = from.to_vec();
        bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        bytes
    };
    let mut bad = vec![
        patched(&good, 12, 5),
        patched(&good, 12, u32::MAX),
        patched(&good, 8, 29),
        patched(&good, 8, u32::MAX),
        patched(&write, 16, 5),
        patched(&write, 16, u32::MAX),
        patched(&write, 8, u32::MAX),
        write,
        cross_domain::send(b"x", &[(99, 1)]),
        cross_domain::send(b"x", &[(RING, 1)]),
        cross_domain::send(b"x", &[(0, 1)]),
        cross_domain::send(b"x", &[(5, 3)]),
        cross_domain::send(b"x", &[(5, 4)]),
        cross_domain::send(b"", &[(0x8000_0001, 3)]),
    ];
    bad.extend((1..good.len()).map(|len| good[..len].to_vec()));
    for bytes in &bad {
        let answer = rig.gpu.answer(&submit_3d(1, bytes))?;
        assert!(answer >= resp::ERR_UNSPEC, "{answer:#x} for {bytes:x?}");
    }
    channel.send(&mut rig.gpu, b"good", &[])?;
    assert_eq!(client.read(4), b"good");
    rig.finish()
}
