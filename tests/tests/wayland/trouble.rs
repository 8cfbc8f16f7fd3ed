//! Compositors that go, do not read or were never there; guests that leave; a host without descriptors.

use std::os::fd::AsFd;

use nosnoop_tests::frontend::cross_domain::{self, ID_READ_PIPE, ID_WRITE_PIPE, READ_PIPES, init};
use nosnoop_tests::frontend::daemon::run_to_end;
use nosnoop_tests::frontend::request::{ctx_destroy, submit_3d};
use nosnoop_tests::frontend::response::resp;
use nosnoop_tests::frontend::{Channel, Deadline, Error, Result, Rig, patience};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use super::compositor::{Compositor, RING, connected};

#[test]
fn a_compositor_that_has_gone_is_an_empty_message_each_time() -> Result<()> {
    let (compositor, mut rig, mut channel, mut client) = connected()?;
    channel.poll(&mut rig.gpu)?;
    client.send(b"its last words");
    drop(client);
    assert_eq!(channel.receive(&mut rig.gpu)?.0, b"its last words");
    for _ in 0..3 {
        assert_eq!(channel.receive(&mut rig.gpu)?, (vec![], vec![]));
    }
    let send = submit_3d(1, &cross_domain::send(b"x", &[]));
    assert_eq!(rig.gpu.answer(&send)?, resp::ERR_UNSPEC);
    // It comes back: other clients can connect.
    let mut second = Channel::new(&mut rig.gpu, 2, 200)?;
    let mut client = compositor.accept();
    client.send(b"again");
    assert_eq!(second.receive(&mut rig.gpu)?.0, b"again");
    rig.finish()
}

#[test]
fn a_compositor_that_does_not_read_stops_nothing_and_misses_nothing() -> Result<()> {
    let (_compositor, mut rig, channel, mut client) = connected()?;
    let piece = |n: usize| vec![n as u8; 3000];
    let mut count = 0;
    let refused = loop {
        let send = submit_3d(1, &cross_domain::send(&piece(count), &[]));
        let answer = rig.gpu.answer(&send)?;
        if answer != resp::OK_NODATA {
            break answer;
        }
        count += 1;
        assert!(count < 10_000);
    };
    assert_eq!(refused, resp::ERR_OUT_OF_MEMORY);
    // More than the kernel takes, and not without end.
    assert!((80..400).contains(&count), "{count}");
    for n in 0..count {
        assert!(client.read(3000) == piece(n), "{n}");
    }
    channel.send(&mut rig.gpu, b"after", &[])?;
    assert_eq!(client.read(5), b"after");
    rig.finish()
}

/// Large ones go in parts; none overtakes another.
#[test]
fn long_messages_to_a_slow_compositor_come_whole() -> Result<()> {
    let (_compositor, mut rig, channel, mut client) = connected()?;
    let piece = |n: u8| vec![n; 60_000];
    for n in 0..7 {
        channel.send(&mut rig.gpu, &piece(n), &[])?;
    }
    for n in 0..7 {
        assert!(client.read(60_000) == piece(n), "{n}");
    }
    rig.finish()
}

#[test]
fn without_a_compositor_contexts_are_refused_and_the_rest_goes_on() -> Result<()> {
    let compositor = Compositor::new();
    let mut rig = compositor.rig()?;
    let path = compositor.path.clone();
    drop(compositor);
    let mut channel = Channel::without_init(&mut rig.gpu, 1, RING)?;
    let open = submit_3d(1, &init(RING, RING + 1, 1));
    assert_eq!(rig.gpu.answer(&open)?, resp::ERR_UNSPEC);
    rig.daemon
        .await_stderr(path.to_str().unwrap(), Deadline::default())?;
    rig.daemon
        .await_stderr("--wayland-socket", Deadline::default())?;
    // The context can still have no channel, and its fences wait for nothing.
    rig.gpu.submit_3d(1, &init(RING, RING + 1, 0))?;
    channel.poll(&mut rig.gpu)?;
    channel.signalled(&mut rig.gpu)?;
    rig.finish()
}

/// Makes contexts and opens a channel in each: the answers.
fn open_all(rig: &mut Rig, count: u32) -> Result<Vec<u32>> {
    let open = |n: u32| {
        let ring = RING + 2 * n;
        Channel::without_init(&mut rig.gpu, 1 + n, ring)?;
        rig.gpu.answer(&submit_3d(1 + n, &init(ring, ring + 1, 1)))
    };
    (0..count).map(open).collect()
}

/// The kernel keeps few for one that accepts none: connecting must not wait.
#[test]
fn a_compositor_that_does_not_accept_stops_nothing() -> Result<()> {
    let compositor = Compositor::new();
    compositor.keep_waiting(1);
    let mut rig = compositor.rig()?;
    let answers = open_all(&mut rig, 5)?;
    let (ok, refused) = (resp::OK_NODATA, resp::ERR_UNSPEC);
    assert_eq!(answers, [ok, ok, refused, refused, refused]);
    rig.finish()
}

#[test]
fn channels_are_bounded() -> Result<()> {
    let compositor = Compositor::new();
    let mut rig = compositor.rig()?;
    let answers = open_all(&mut rig, 40)?;
    let (opened, refused) = answers.split_at(32);
    assert!(opened.iter().all(|answer| *answer == resp::OK_NODATA));
    assert!(
        refused
            .iter()
            .all(|answer| *answer == resp::ERR_OUT_OF_MEMORY)
    );
    // One that goes makes room.
    rig.gpu.command("CTX_DESTROY", &ctx_destroy(1))?;
    let again = submit_3d(40, &init(RING + 78, RING + 79, 1));
    assert_eq!(rig.gpu.answer(&again)?, resp::OK_NODATA);
    rig.finish()
}

#[test]
fn a_daemon_is_not_started_for_what_is_no_socket() -> Result<()> {
    for path in ["/nonexistent/wayland-0", "/etc/passwd"] {
        let socket = tempfile::tempdir().unwrap().path().join("s");
        let socket = socket.to_str().unwrap();
        let ended = run_to_end(&["--socket-path", socket, "--wayland-socket", path])?;
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(!ended.status.success());
        assert!(
            said.contains(path) && said.contains("start the compositor first"),
            "{said}"
        );
        assert_eq!(said.trim().lines().count(), 1, "{said}");
    }
    Ok(())
}

/// Open files and threads, once they are as few as they were.
fn settled(rig: &Rig, files: usize, threads: usize) -> Result<()> {
    let awaited = "descriptors and threads to go";
    Deadline::after(patience()).poll(awaited, || {
        let now = (rig.daemon.open_files()?, rig.daemon.threads()?);
        Ok((now.0 <= files && now.1 <= threads).then_some(()))
    })
}

#[test]
fn a_context_that_goes_takes_its_channel_along() -> Result<()> {
    let compositor = Compositor::new();
    let mut rig = compositor.rig()?;
    rig.gpu.display_info()?;
    let (files, threads) = (rig.daemon.open_files()?, rig.daemon.threads()?);
    for id in 1..=50 {
        let mut channel = Channel::new(&mut rig.gpu, id, RING)?;
        let mut client = compositor.accept();
        let (_reader, writer) = std::io::pipe().unwrap();
        client.send_with(b"x", &[writer.as_fd(), compositor_file().as_fd()]);
        channel.receive(&mut rig.gpu)?;
        let pipe = [(READ_PIPES + id, ID_READ_PIPE)];
        channel.send(&mut rig.gpu, b"x", &pipe)?;
        channel.poll(&mut rig.gpu)?;
        rig.gpu.command("CTX_DESTROY", &ctx_destroy(id))?;
        channel.signalled(&mut rig.gpu)?;
        assert_eq!(client.read(1), b"x");
        assert!(client.has_ended());
        for ring in [RING, RING + 1] {
            rig.gpu.unref(ring)?;
        }
    }
    // The thread, its two descriptors.
    settled(&rig, files + 2, threads + 1)?;
    rig.finish()
}

/// A file in memory.
fn compositor_file() -> std::fs::File {
    use std::io::Write;
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let mut file = std::fs::File::from(rustix::fs::memfd_create(c"test", flags).unwrap());
    file.write_all(b"keymap").unwrap();
    file
}

#[test]
fn a_reset_and_a_front_end_that_goes_close_channels() -> Result<()> {
    let (compositor, mut rig, mut channel, mut client) = connected()?;
    channel.poll(&mut rig.gpu)?;
    rig.reset_device()?;
    assert!(client.has_ended());
    let mut channel = Channel::new(&mut rig.gpu, 1, RING)?;
    let mut client = compositor.accept();
    client.send(b"fresh");
    assert_eq!(channel.receive(&mut rig.gpu)?.0, b"fresh");
    channel.poll(&mut rig.gpu)?;
    rig.end()?;
    assert!(client.has_ended());
    Ok(())
}

/// What was parked is answered when the ring stops, and what the compositor said meanwhile comes after.
#[test]
fn a_pause_loses_no_message() -> Result<()> {
    let (_compositor, mut rig, mut channel, mut client) = connected()?;
    client.send(b"before");
    assert_eq!(channel.receive(&mut rig.gpu)?.0, b"before");
    channel.poll(&mut rig.gpu)?;
    rig.gpu.display_info()?;
    rig.pause_and_resume()?;
    // Not the last record again.
    assert_eq!(channel.receive(&mut rig.gpu)?, (vec![], vec![]));
    client.send(b"after");
    assert_eq!(channel.receive(&mut rig.gpu)?.0, b"after");
    rig.finish()
}

/// A ring that goes while a fence waits for it: an error, and the message comes with the next ring.
#[test]
fn a_message_without_a_ring_waits_for_one() -> Result<()> {
    let (_compositor, mut rig, mut channel, mut client) = connected()?;
    channel.poll(&mut rig.gpu)?;
    rig.gpu.detach_resource(1, RING + 1)?;
    client.send(b"message");
    let refused = channel.signalled(&mut rig.gpu).unwrap_err();
    assert!(matches!(refused, Error::Refused { .. }), "{refused}");
    let mut again = Channel::without_init(&mut rig.gpu, 2, 200)?;
    rig.gpu.submit_3d(2, &init(200, 201, 0))?;
    again.poll(&mut rig.gpu)?;
    again.signalled(&mut rig.gpu)?;
    rig.gpu.attach_resource(1, RING + 1)?;
    assert_eq!(channel.receive(&mut rig.gpu)?.0, b"message");
    rig.finish()
}

#[test]
fn a_host_without_descriptors_is_out_of_memory() -> Result<()> {
    let (_compositor, mut rig, mut channel, mut client) = connected()?;
    let pid = Pid::from_raw(rig.daemon.pid() as i32);
    // The daemon may have as many as this process; what is open stays so.
    let maximum = getrlimit(Resource::Nofile).maximum;
    let none = Rlimit {
        current: Some(3),
        maximum,
    };
    let before = prlimit(pid, Resource::Nofile, none).unwrap();
    let pipe = cross_domain::send(b"x", &[(READ_PIPES, ID_READ_PIPE)]);
    let answer = rig.gpu.answer(&submit_3d(1, &pipe))?;
    assert_eq!(answer, resp::ERR_OUT_OF_MEMORY);
    // Nothing of it was sent.
    channel.send(&mut rig.gpu, b"good", &[])?;
    assert_eq!(client.read(4), b"good");
    // A descriptor that is lost would shift all that come after.
    let (_reader, writer) = std::io::pipe().unwrap();
    client.send_with(b"lost", &[writer.as_fd()]);
    assert_eq!(channel.receive(&mut rig.gpu)?, (vec![], vec![]));
    assert!(client.has_ended());
    rig.daemon.await_stderr("ulimit", Deadline::default())?;
    prlimit(pid, Resource::Nofile, before).unwrap();
    rig.finish()
}

#[test]
fn pipes_are_bounded() -> Result<()> {
    let (_compositor, mut rig, mut channel, mut client) = connected()?;
    let mut made = 0;
    let refused = loop {
        let send = cross_domain::send(b"x", &[(READ_PIPES + made, ID_READ_PIPE)]);
        match rig.gpu.answer(&submit_3d(1, &send))? {
            resp::OK_NODATA => made += 1,
            other => break other,
        }
    };
    assert_eq!((made, refused), (14, resp::ERR_OUT_OF_MEMORY));
    let (_reader, writer) = std::io::pipe().unwrap();
    client.send_with(b"x", &[writer.as_fd()]);
    let (_, ids) = channel.receive(&mut rig.gpu)?;
    assert_eq!(ids[0].1, ID_WRITE_PIPE);
    let write = submit_3d(1, &cross_domain::write(ids[0].0, b"x", false));
    assert_eq!(rig.gpu.answer(&write)?, resp::ERR_INVALID_PARAMETER);
    rig.finish()
}
