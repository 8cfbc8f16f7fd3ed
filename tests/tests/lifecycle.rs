//! The process: one front-end after the other, inherited sockets, signals, screenshots.
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

use std::fs::File;
use std::io::BufReader;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use nosnoop_tests::frontend::message::{Request, feature};
use nosnoop_tests::frontend::pixels::{BGRA, BGRX, Picture, noise};
use nosnoop_tests::frontend::request;
use nosnoop_tests::frontend::response::resp;
use nosnoop_tests::frontend::{
    Daemon, Deadline, DisplayConfig, Rect, Result, Rig, Session, SessionOptions, VhostUser,
};
use rustix::process::Signal;

/// Uses a bit of everything.
fn use_device(session: &mut Session, seed: u64) -> Result<()> {
    let resource = session.gpu.create_picture(1, BGRX, 200, 100)?;
    session.gpu.set_scanout(0, 1, resource.rect())?;
    let raw = noise(seed, resource.len());
    session.gpu.show(&resource, &raw)?;
    session.gpu.assign_uuid(1)?;
    let cursor = session.gpu.create_picture(2, BGRA, 64, 64)?;
    session.gpu.paint(&cursor, &noise(seed, cursor.len()))?;
    session.gpu.update_cursor(request::Cursor {
        resource: 2,
        ..Default::default()
    })?;
    session
        .display()
        .wait_picture(0, &Picture::of(BGRX, 200, 100, &raw))?;
    session.check_display()
}

#[test]
fn fifty_front_ends_in_a_row_find_clean_state_and_leave_nothing_behind() -> Result<()> {
    let mut daemon = Daemon::start(&[])?;
    let mut files = Vec::new();
    let mut threads = Vec::new();
    for round in 0..50 {
        let mut session = Session::start(daemon.socket())?;
        let left_over = session.gpu.answer(&request::flush(1, Rect::sized(1, 1)))?;
        assert_eq!(left_over, resp::ERR_INVALID_RESOURCE_ID, "round {round}");
        use_device(&mut session, round)?;
        files.push(daemon.open_files()?);
        threads.push(daemon.threads()?);
        drop(session);
    }
    assert_eq!(files[1], files[49], "open files per round: {files:?}");
    assert_eq!(threads[1], threads[49], "threads per round: {threads:?}");
    let resident = daemon.own_bytes()?;
    assert!(resident < 16 << 20, "{resident} bytes");
    daemon.check_alive()?;
    assert!(daemon.terminate()?.success());
    Ok(())
}

#[test]
fn front_ends_that_leave_at_every_step_of_the_bring_up_do_no_harm() -> Result<()> {
    let mut daemon = Daemon::start(&[])?;
    let before = {
        drop(Session::start(daemon.socket())?);
        settle(&daemon)?
    };
    for step in 0..6 {
        let mut vhost = VhostUser::connect(daemon.socket())?;
        if step > 0 {
            vhost.set_owner()?;
        }
        if step > 1 {
            vhost.features()?;
        }
        if step > 2 {
            let features = vhost.protocol_features()?;
            vhost.set_protocol_features(features)?;
        }
        if step > 3 {
            vhost.set_features(feature::VERSION_1 | feature::PROTOCOL_FEATURES)?;
        }
        if step > 4 {
            // Half a message.
            vhost.send_bytes(&[1, 0, 0, 0, 1, 0], &[])?;
        }
        drop(vhost);
        daemon.check_alive()?;
    }
    use_device(&mut Session::start(daemon.socket())?, 1)?;
    assert_eq!(settle(&daemon)?, before, "open files");
    assert!(daemon.terminate()?.success());
    Ok(())
}

/// Open files of a daemon once its last session is torn down and the number stays the same.
fn settle(daemon: &Daemon) -> Result<usize> {
    let mut last = daemon.open_files()?;
    let mut same = 0;
    Deadline::default().poll("the number of open files to settle", || {
        let now = daemon.open_files()?;
        same = if now == last { same + 1 } else { 0 };
        last = now;
        Ok((same > 20).then_some(now))
    })
}

#[test]
fn a_second_front_end_waits_for_the_first_to_leave() -> Result<()> {
    let mut daemon = Daemon::start(&[])?;
    let mut first = Session::start(daemon.socket())?;
    first.gpu.display_info()?;
    let mut second = VhostUser::connect(daemon.socket())?;
    second.set_patience(Duration::from_millis(200));
    assert!(
        second
            .ask(Request::GetFeatures, &[])
            .unwrap_err()
            .is_timeout()
    );
    first.gpu.display_info()?;
    drop(first);
    second.set_patience(Duration::from_secs(10));
    // The answer to the question that was asked before.
    let (header, _) = second.receive("the late answer")?;
    assert_eq!(header.request, Request::GetFeatures.code());
    drop(second);
    assert!(daemon.terminate()?.success());
    Ok(())
}

#[test]
fn fd_with_a_connected_socket_ends_with_status_0_after_the_disconnect() -> Result<()> {
    // A parent with an event loop passes its socket as it has it.
    for nonblocking in [false, true] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(nonblocking).unwrap();
        let mut daemon = Daemon::start_on_fd(theirs.into(), &["--output=800x600"])?;
        let mut session = Session::over(VhostUser::over(ours), &SessionOptions::default())?;
        use_device(&mut session, 3)?;
        assert!(daemon.is_running());
        drop(session);
        let status = daemon.wait()?;
        assert!(status.success(), "{status}: {}", daemon.stderr());
        assert!(!daemon.stderr().contains("panicked"));
    }
    Ok(())
}

#[test]
fn fd_with_a_listening_socket_ends_with_status_0_after_the_disconnect() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("listen.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut daemon = Daemon::start_on_fd(listener.into(), &[])?;
    let mut session = Session::start(&path)?;
    use_device(&mut session, 4)?;
    drop(session);
    let status = daemon.wait()?;
    assert!(status.success(), "{status}: {}", daemon.stderr());
    Ok(())
}

#[test]
fn once_ends_with_status_0_after_the_first_front_end() -> Result<()> {
    let mut daemon = Daemon::start(&["--once"])?;
    let mut session = Session::start(daemon.socket())?;
    use_device(&mut session, 5)?;
    drop(session);
    let status = daemon.wait()?;
    assert!(status.success(), "{status}: {}", daemon.stderr());
    assert!(!daemon.socket().exists(), "the socket file is gone");
    Ok(())
}

#[test]
fn sigterm_and_sigint_end_with_status_0_in_every_state() -> Result<()> {
    for signal in [Signal::TERM, Signal::INT] {
        let mut idle = Daemon::start(&[])?;
        idle.signal(signal)?;
        assert!(
            idle.wait()?.success(),
            "{signal:?} while waiting: {}",
            idle.stderr()
        );
        assert!(!idle.socket().exists(), "the socket file is gone");

        let mut busy = Daemon::start(&[])?;
        let mut session = Session::start(busy.socket())?;
        use_device(&mut session, 6)?;
        busy.signal(signal)?;
        assert!(
            busy.wait()?.success(),
            "{signal:?} in a session: {}",
            busy.stderr()
        );
        session.vhost.wait_closed()?;

        let mut early = Daemon::start(&[])?;
        let vhost = VhostUser::connect(early.socket())?;
        vhost.features()?;
        early.signal(signal)?;
        assert!(
            early.wait()?.success(),
            "{signal:?} in a bring-up: {}",
            early.stderr()
        );
    }
    Ok(())
}

#[test]
fn sigterm_ends_a_daemon_whose_display_is_stalled() -> Result<()> {
    let mut rig = Rig::new()?;
    let resource = rig.gpu.create_picture(1, BGRX, 1280, 800)?;
    rig.gpu.set_scanout(0, 1, resource.rect())?;
    rig.display().stop_reading();
    for n in 0..3 {
        rig.gpu.show(&resource, &noise(n, resource.len()))?;
    }
    assert!(rig.daemon.terminate()?.success());
    Ok(())
}

#[test]
fn a_socket_file_left_behind_is_taken_over() -> Result<()> {
    let mut first = Daemon::start(&[])?;
    let path = first.socket().to_owned();
    first.signal(Signal::KILL)?;
    first.wait()?;
    assert!(path.exists(), "killed, so the file is still there");
    let mut second = Daemon::start_at(&path, &["--once"])?;
    let mut session = Session::start(&path)?;
    session.gpu.display_info()?;
    drop(session);
    assert!(second.wait()?.success());
    Ok(())
}

/// Reads a PNG as a picture.
fn png(path: &std::path::Path) -> Picture {
    let decoder = png::Decoder::new(BufReader::new(File::open(path).unwrap()));
    let mut reader = decoder.read_info().unwrap();
    let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut bytes).unwrap();
    let samples = info.color_type.samples();
    assert!(samples >= 3 && info.bit_depth == png::BitDepth::Eight);
    let bytes = bytes
        .chunks_exact(samples)
        .flat_map(|p| [p[2], p[1], p[0], 0])
        .collect();
    Picture {
        width: info.width,
        height: info.height,
        bytes,
    }
}

#[test]
fn sigusr1_writes_a_png_of_each_scanout_with_the_right_pixels() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().display().to_string();
    let args = [
        "--screenshot-dir",
        &path,
        "--output=64x64",
        "--output=64x64",
    ];
    for options in [SessionOptions::headless(), two_displays()] {
        let mut rig = Rig::start(&args, &options)?;
        let first = rig.gpu.create_picture(1, BGRX, 33, 17)?;
        let second = rig.gpu.create_picture(2, 121, 90, 70)?;
        rig.gpu.set_scanout(0, 1, first.rect())?;
        rig.gpu.set_scanout(1, 2, second.rect())?;
        for round in 0..3 {
            let raws = [noise(round, first.len()), noise(round + 50, second.len())];
            rig.gpu.show(&first, &raws[0])?;
            rig.gpu.show(&second, &raws[1])?;
            let files = [
                dir.path().join("scanout-0.png"),
                dir.path().join("scanout-1.png"),
            ];
            for file in &files {
                let _ = std::fs::remove_file(file);
            }
            rig.daemon.signal(Signal::USR1)?;
            Deadline::default().poll("the screenshots", || {
                Ok(files.iter().all(|file| file.exists()).then_some(()))
            })?;
            assert_eq!(png(&files[0]), Picture::of(BGRX, 33, 17, &raws[0]));
            assert_eq!(png(&files[1]), Picture::of(121, 90, 70, &raws[1]));
        }
        let left = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(left, 2, "no temporary files stay behind");
        rig.finish()?;
    }
    Ok(())
}

fn two_displays() -> SessionOptions {
    let mut display = DisplayConfig::sized(64, 64);
    display.displays = vec![display.displays[0]; 2];
    SessionOptions::with_display(display)
}

#[test]
fn sigusr1_without_a_picture_or_a_directory_does_no_harm() -> Result<()> {
    let nowhere = ["--screenshot-dir", "/nowhere/at/all", "--log-level=info"];
    let mut daemon = Daemon::start(&nowhere)?;
    daemon.signal(Signal::USR1)?;
    let mut session = Session::start(daemon.socket())?;
    daemon.signal(Signal::USR1)?;
    use_device(&mut session, 1)?;
    daemon.signal(Signal::USR1)?;
    session.gpu.display_info()?;
    // What there is besides pictures is said all the same.
    Deadline::default().poll("the count of flushes", || {
        let said = daemon.stderr().contains("0 cache flushes of 0 bytes");
        Ok(said.then_some(()))
    })?;
    daemon.check_alive()?;
    assert!(daemon.terminate()?.success());
    Ok(())
}

#[test]
fn an_idle_session_stays_under_eight_megabytes_and_uses_no_processor() -> Result<()> {
    let mut rig = Rig::new()?;
    let resource = rig.gpu.create_picture(1, BGRX, 64, 64)?;
    rig.gpu.set_scanout(0, 1, resource.rect())?;
    rig.gpu.show(&resource, &noise(1, resource.len()))?;
    let own = rig.daemon.own_bytes()?;
    assert!(own < 8 << 20, "{own} bytes of its own");
    let before = rig.daemon.cpu_time()?;
    std::thread::sleep(Duration::from_secs(1));
    let used = rig.daemon.cpu_time()? - before;
    assert!(used <= Duration::from_millis(20), "{used:?}");
    rig.finish()
}

#[test]
fn a_daemon_that_ends_leaves_the_socket_of_the_one_that_took_its_path() -> Result<()> {
    let mut first = Daemon::start(&[])?;
    let path = first.socket().to_owned();
    let file = || {
        std::fs::symlink_metadata(&path)
            .map(|metadata| metadata.ino())
            .ok()
    };
    let firsts = file();
    let mut second = Daemon::start_at(&path, &[])?;
    Deadline::default().poll("the second daemon's socket", || {
        Ok((file().is_some() && file() != firsts).then_some(()))
    })?;
    assert!(first.terminate()?.success());
    let mut session = Session::connect(&path, &SessionOptions::headless())?;
    session.gpu.display_info()?;
    drop(session);
    assert!(second.terminate()?.success());
    assert!(!path.exists(), "the last one takes its socket away");
    Ok(())
}
