//! Vulkan by Venus on software Mesa: how it starts, and what happens where it does not, or where its
//! processes end or hang.
//!
//! The libraries come from the lab's root with OpenGL; where that cannot be had these tests print a line
//! that begins with `SKIPPED: ` and the reason.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::print_stdout,
    reason = "test code: a broken expectation is to stop the test loudly"
)]

use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nosnoop_tests::frontend::queue::Ticket;
use nosnoop_tests::frontend::request::{self, BLOB_MEM_HOST3D, CreateBlob, RequestBytes};
use nosnoop_tests::frontend::response::{CAPSET_INFO, resp};
use nosnoop_tests::frontend::{Daemon, Deadline, Result, Rig, SessionOptions};
use nosnoop_tests::lab::LabError;
use nosnoop_tests::lab::gl::GlRoot;
use nosnoop_tests::lab::programs::Profile;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};

/// `VIRTIO_GPU_CAPSET_VIRGL2` and `VIRTIO_GPU_CAPSET_VENUS`.
const VIRGL2: u32 = 2;
const VENUS: u32 = 4;

const HEADER: usize = 24;

/// Blob flags.
const MAPPABLE: u32 = 1;
const SHAREABLE: u32 = 2;
const CROSS_DEVICE: u32 = 4;

/// How long a process may hang, in the daemon, and what is added until everybody knows.
const LIMIT: Duration = Duration::from_secs(10);
const MARGIN: Duration = Duration::from_secs(15);

/// A daemon of its own with a device on it; `None` after a line that says why there is none. `before` is
/// what a shell does first.
fn start_after(before: &str, arguments: &[&str]) -> Option<Rig> {
    let built = || GlRoot::find_or_fetch()?.daemon(Profile::Quick);
    let program = match built() {
        Ok(path) => path,
        Err(LabError::Unavailable(why)) => {
            println!("SKIPPED: no Vulkan: {why}");
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    let mut command = Command::new("/bin/sh");
    // rutabaga's debug builds put stdout in stderr's place.
    let text = format!("{before}\nexec \"$0\" \"$@\" >&2");
    command.args(["-c", &text]).arg(program);
    command.args(arguments).stdin(Stdio::null());
    let daemon = Daemon::start_command(command, &["--socket-path"]).unwrap();
    Some(Rig::on(daemon, &SessionOptions::host_blobs()).unwrap())
}

fn start(arguments: &[&str]) -> Option<Rig> {
    start_after("", arguments)
}

/// The processes that this one has started and that run, by number.
fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_child = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let mut fields = stat.rsplit(')').next().unwrap().split_whitespace();
        let runs = fields.next().is_some_and(|state| state != "Z");
        runs && fields.next() == Some(&parent.to_string())
    };
    pids.filter(is_child).collect()
}

fn server(rig: &Rig) -> u32 {
    let children = children(rig.daemon.pid());
    assert_eq!(children.len(), 1, "the render server is the only child");
    children[0]
}

/// Makes a context: the process that draws for it.
fn context(rig: &mut Rig, id: u32) -> u32 {
    let server = server(rig);
    let before = children(server);
    rig.gpu.create_context(id, VENUS).unwrap();
    let new: Vec<_> = children(server)
        .into_iter()
        .filter(|pid| !before.contains(pid))
        .collect();
    assert_eq!(new.len(), 1, "a context has a process of its own");
    new[0]
}

/// Sends a signal; after SIGSTOP the process has stopped, which otherwise takes as long as it likes.
fn signal(pid: u32, signal: Signal) {
    let process = Pid::from_raw(pid.cast_signed()).unwrap();
    kill_process(process, signal).unwrap();
    if signal == Signal::STOP {
        let stopped = || {
            let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            Ok(state.contains(") T ").then_some(()))
        };
        let waited = Deadline::after(MARGIN).poll("a process to stop", stopped);
        waited.unwrap();
    }
}

fn blob(context: u32, resource: u32, flags: u32, size: u64) -> RequestBytes {
    let blob = CreateBlob {
        resource,
        mem: BLOB_MEM_HOST3D,
        flags,
        count: 0,
        blob_id: 0,
        size,
    };
    request::create_blob(blob, &[]).in_context(context)
}

/// A submission that is answered when what comes before it on the context's ring 0 is done.
fn fenced(context: u32, commands: &[u8]) -> RequestBytes {
    request::submit_3d(context, commands).fenced(7).on_ring(0)
}

/// The answer to what has been queued, and how long it took.
fn answer(rig: &mut Rig, ticket: Ticket) -> (u32, Duration) {
    let begin = Instant::now();
    let answer = rig.gpu.control.wait(ticket).unwrap();
    (answer.kind(), begin.elapsed())
}

fn queue(rig: &mut Rig, request: &RequestBytes) -> Ticket {
    let ticket = rig.gpu.queue(request).unwrap();
    rig.gpu.control.kick().unwrap();
    ticket
}

/// The context works: its process executes commands up to a fence.
fn check_context(rig: &mut Rig, context: u32) {
    let answer = rig.gpu.call(&fenced(context, &[]), HEADER).unwrap();
    answer.expect("SUBMIT_3D", resp::OK_NODATA).unwrap();
}

/// The context is lost, for good: everything fails, except to destroy it.
fn check_lost(rig: &mut Rig, context: u32) {
    for request in [
        request::submit_3d(context, &[]),
        fenced(context, &[]),
        blob(context, 999, MAPPABLE, 4096),
    ] {
        assert_eq!(rig.gpu.answer(&request).unwrap(), resp::ERR_UNSPEC);
    }
    rig.gpu
        .command("CTX_DESTROY", &request::ctx_destroy(context))
        .unwrap();
    let gone = rig.gpu.answer(&request::submit_3d(context, &[])).unwrap();
    assert_eq!(gone, resp::ERR_INVALID_CONTEXT_ID);
}

/// Waits until the daemon's log has this.
fn await_log(rig: &Rig, part: &str) {
    let waited = rig.daemon.await_stderr(part, Deadline::after(MARGIN));
    waited.unwrap_or_else(|error| panic!("{error}: {}", rig.daemon.stderr()));
}

/// The daemon does nothing, perhaps after it has cleared up; what spins does so for good.
fn check_idle(rig: &Rig) {
    let mut used = Duration::MAX;
    for _ in 0..10 {
        let before = rig.daemon.cpu_time().unwrap();
        sleep(Duration::from_secs(1));
        used = rig.daemon.cpu_time().unwrap() - before;
        if used < Duration::from_millis(50) {
            return;
        }
    }
    panic!("{used:?} of CPU in a second while idle");
}

/// The capability sets that are offered.
fn capsets(rig: &mut Rig) -> Vec<u32> {
    let mut found = Vec::new();
    for index in 0.. {
        let request = request::get_capset_info(index);
        let answer = rig.gpu.call(&request, CAPSET_INFO).unwrap();
        if answer.kind() != resp::OK_CAPSET_INFO {
            break;
        }
        found.push(answer.capset_info()[0]);
    }
    found
}

#[test]
fn a_context_of_venus_has_fences_on_its_rings() -> Result<()> {
    let Some(mut rig) = start(&["--venus=software"]) else {
        return Ok(());
    };
    assert!(capsets(&mut rig).contains(&VENUS));
    rig.gpu.create_context(1, VENUS)?;
    let submit = request::submit_3d(1, &[]);
    for request in [submit.clone().fenced(7), submit.fenced(8).on_ring(0)] {
        let answer = rig.gpu.call(&request, HEADER)?;
        let answer = answer.expect("SUBMIT_3D", resp::OK_NODATA)?;
        assert!(answer.flags() & request::FLAG_FENCE != 0);
    }
    rig.finish()
}

#[test]
fn what_vulkan_lacks_is_one_line_and_costs_nothing_else() -> Result<()> {
    for (before, line) in [
        (
            "export VK_DRIVER_FILES=/nonexistent",
            "VK_ERROR_INCOMPATIBLE_DRIVER",
        ),
        (
            "export RENDER_SERVER_EXEC_PATH=/nonexistent",
            "cannot start the render server /nonexistent",
        ),
        (
            "export RENDER_SERVER_EXEC_PATH=/bin/true",
            "VENUS is not offered",
        ),
    ] {
        let arguments = ["--venus=software", "--virgl=software"];
        let Some(mut rig) = start_after(before, &arguments) else {
            return Ok(());
        };
        await_log(&rig, line);
        let said = rig.daemon.stderr();
        let warnings = said.lines().filter(|line| line.contains("warn:"));
        assert_eq!(warnings.count(), 1, "{said}");
        let capsets = capsets(&mut rig);
        assert!(capsets.contains(&VIRGL2), "{before}: {capsets:?}");
        assert!(!capsets.contains(&VENUS), "{before}: {capsets:?}");
        let refused = rig.gpu.answer(&request::ctx_create(1, VENUS, b"")).unwrap();
        assert_eq!(refused, resp::ERR_INVALID_PARAMETER);
        rig.finish()?;
    }
    Ok(())
}

#[test]
fn a_process_that_is_killed_costs_its_context_alone() -> Result<()> {
    let Some(mut rig) = start(&["--venus=software"]) else {
        return Ok(());
    };
    let (first, second) = (context(&mut rig, 1), context(&mut rig, 2));
    let keeps = blob(1, 5, MAPPABLE, 4096);
    rig.gpu.command("RESOURCE_CREATE_BLOB", &keeps)?;
    rig.gpu.map_blob(5, 0)?;
    // Idle, when nothing is on its way to it.
    signal(first, Signal::KILL);
    await_log(&rig, "the process of Vulkan context 1 has ended");
    check_idle(&rig);
    // Its memory stays the guest's until that lets go of it.
    rig.shmem().write(0, b"still here");
    assert_eq!(rig.shmem().read(0, 10), b"still here");
    check_lost(&mut rig, 1);
    rig.gpu.unref(5)?;
    check_context(&mut rig, 2);
    // With a fence on its way, which is not said to be done.
    signal(second, Signal::STOP);
    let waits = queue(&mut rig, &fenced(2, &[]));
    signal(second, Signal::KILL);
    assert_eq!(answer(&mut rig, waits).0, resp::ERR_UNSPEC);
    check_lost(&mut rig, 2);
    // With a blob asked for.
    let third = context(&mut rig, 1);
    signal(third, Signal::STOP);
    let waits = queue(&mut rig, &blob(1, 6, MAPPABLE, 4096));
    sleep(Duration::from_millis(300));
    signal(third, Signal::KILL);
    let (kind, took) = answer(&mut rig, waits);
    assert_eq!(kind, resp::ERR_UNSPEC);
    assert!(took < Duration::from_secs(5), "{took:?}");
    check_lost(&mut rig, 1);
    check_idle(&rig);
    // The ids are free again.
    context(&mut rig, 1);
    check_context(&mut rig, 1);
    rig.finish()
}

#[test]
fn garbage_costs_the_context_that_sent_it() -> Result<()> {
    let Some(mut rig) = start(&["--venus=software"]) else {
        return Ok(());
    };
    let (_, _) = (context(&mut rig, 1), context(&mut rig, 2));
    let garbage = [0xff; 64];
    assert_eq!(rig.gpu.answer(&fenced(1, &garbage))?, resp::ERR_UNSPEC);
    await_log(&rig, "the process of Vulkan context 1 has ended");
    check_lost(&mut rig, 1);
    check_idle(&rig);
    // More than goes into one message is refused before anybody is told of it.
    let large = vec![0; 400 << 10];
    assert_eq!(rig.gpu.answer(&fenced(2, &large))?, resp::ERR_UNSPEC);
    check_context(&mut rig, 2);
    // A ring that no context of Venus has.
    let ring = request::submit_3d(2, &[]).fenced(1).on_ring(63);
    assert_eq!(rig.gpu.answer(&ring)?, resp::ERR_UNSPEC);
    rig.finish()
}

#[test]
fn without_its_server_vulkan_fails_and_nothing_else() -> Result<()> {
    let Some(mut rig) = start(&["--venus=software", "--virgl=software"]) else {
        return Ok(());
    };
    let worker = context(&mut rig, 1);
    context(&mut rig, 2);
    rig.gpu.create_context(3, VIRGL2)?;
    signal(worker, Signal::STOP);
    let waits = queue(&mut rig, &fenced(1, &[]));
    signal(server(&rig), Signal::KILL);
    assert_eq!(answer(&mut rig, waits).0, resp::ERR_UNSPEC);
    await_log(
        &rig,
        "the render server (virgl_render_server) has ended with signal: 9",
    );
    check_idle(&rig);
    check_lost(&mut rig, 1);
    check_lost(&mut rig, 2);
    let refused = rig.gpu.answer(&request::ctx_create(1, VENUS, b""))?;
    assert_eq!(refused, resp::ERR_UNSPEC);
    assert!(children(rig.daemon.pid()).is_empty());
    let gone = fs::read_to_string(format!("/proc/{worker}/stat"));
    assert!(
        gone.is_err() || gone.unwrap().contains(") Z "),
        "the stopped one too"
    );
    rig.gpu.submit_3d(3, &[])?;
    rig.finish()
}

#[test]
fn a_process_that_hangs_is_given_up_and_so_is_the_server() -> Result<()> {
    let Some(mut rig) = start(&["--venus=software"]) else {
        return Ok(());
    };
    let (first, _) = (context(&mut rig, 1), context(&mut rig, 2));
    rig.gpu.control.set_patience(2 * LIMIT + MARGIN);
    signal(first, Signal::STOP);
    let waits = queue(&mut rig, &blob(1, 5, MAPPABLE, 4096));
    let (kind, took) = answer(&mut rig, waits);
    assert_eq!(kind, resp::ERR_UNSPEC);
    assert!(took > LIMIT / 2 && took < 2 * LIMIT + MARGIN, "{took:?}");
    await_log(
        &rig,
        "the process of Vulkan context 1 has not answered for 10 s",
    );
    check_lost(&mut rig, 1);
    check_context(&mut rig, 2);
    // With commands until no more go in.
    let third = context(&mut rig, 3);
    signal(third, Signal::STOP);
    let submit = request::submit_3d(3, &[0; 256]);
    let refused = (0..10_000).find(|_| rig.gpu.answer(&submit).unwrap() != resp::OK_NODATA);
    assert!(refused.is_some());
    await_log(
        &rig,
        "the process of Vulkan context 3 has not answered for 10 s",
    );
    check_lost(&mut rig, 3);
    check_context(&mut rig, 2);
    let server = server(&rig);
    signal(server, Signal::STOP);
    let refused = rig.gpu.answer(&request::ctx_create(1, VENUS, b""))?;
    assert_eq!(refused, resp::ERR_UNSPEC);
    await_log(&rig, "the render server has not answered for 10 s");
    check_lost(&mut rig, 2);
    check_idle(&rig);
    rig.finish()
}

#[test]
fn shared_memory_is_mapped_whole_and_both_sides_see_it() -> Result<()> {
    let Some(mut rig) = start(&["--venus=software"]) else {
        return Ok(());
    };
    context(&mut rig, 1);
    // As Venus asks for its ring: no multiple of a page.
    const SIZE: u64 = 131_268;
    let ring = blob(1, 5, MAPPABLE, SIZE);
    rig.gpu.command("RESOURCE_CREATE_BLOB", &ring)?;
    rig.gpu.attach_resource(1, 5)?;
    rig.gpu.map_blob(5, 0x10000)?;
    let mapped = SIZE.next_multiple_of(4096);
    assert_eq!(rig.shmem().mapped(), [(0x10000, mapped)]);
    // vkSetReplyCommandStreamMESA to its end, vkEnumerateInstanceVersion with a reply there.
    let at = (SIZE - 64).next_multiple_of(8);
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let mut commands: Vec<u8> = words(&[178, 0, 1, 0, 5]);
    commands.extend([at, 32].iter().flat_map(|long| long.to_le_bytes()));
    commands.extend::<Vec<u8>>(words(&[137, 1, 1, 0]));
    rig.gpu.command("SUBMIT_3D", &fenced(1, &commands))?;
    let reply = rig.shmem().read(0x10000 + at, 20);
    // The command, VK_SUCCESS, a pointer, at least Vulkan 1.1.
    assert_eq!(reply[..16], words(&[137, 0, 1, 0])[..]);
    let version = u32::from_le_bytes(reply[16..20].try_into().unwrap());
    assert!(version >= 1 << 22 | 1 << 12, "{version:#x}");
    // Another context may have it too, which changes nothing here.
    context(&mut rig, 2);
    rig.gpu.attach_resource(2, 5)?;
    check_context(&mut rig, 2);
    rig.gpu.unref(5)?;
    assert!(rig.shmem().mapped().is_empty());
    check_context(&mut rig, 1);
    check_context(&mut rig, 2);
    // Only whole dma-bufs can be shared, and there is no memory of these names.
    for flags in [SHAREABLE, CROSS_DEVICE, MAPPABLE | CROSS_DEVICE] {
        let kind = rig.gpu.answer(&blob(1, 6, flags, 4096))?;
        assert_eq!(kind, resp::ERR_UNSPEC, "flags {flags}");
    }
    check_context(&mut rig, 1);
    rig.finish()
}

/// Leaves the daemon this many descriptors that it may still open.
fn leave_descriptors(rig: &Rig, count: u64) {
    let pid = rig.daemon.pid();
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let numbers = open.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    // Nearly all below the highest are taken.
    let highest = numbers.map(|number| number.parse::<u64>().unwrap()).max();
    let limit = Rlimit {
        current: Some(highest.unwrap() + 1 + count),
        maximum: getrlimit(Resource::Nofile).maximum,
    };
    let pid = Pid::from_raw(pid.cast_signed());
    prlimit(pid, Resource::Nofile, limit).unwrap();
}

#[test]
fn descriptors_that_run_out_are_errors_and_come_back() -> Result<()> {
    let Some(mut rig) = start(&["--venus=software"]) else {
        return Ok(());
    };
    rig.gpu.create_context(1, VENUS)?;
    for count in 0..8 {
        leave_descriptors(&rig, count);
        let mut made = Vec::new();
        let last = (1..200).find_map(|id| {
            let kind = rig.gpu.answer(&blob(1, id, MAPPABLE, 4096)).unwrap();
            if kind == resp::OK_NODATA {
                made.push(id);
            }
            (kind != resp::OK_NODATA).then_some(kind)
        });
        assert_eq!(last, Some(resp::ERR_UNSPEC), "after {} blobs", made.len());
        for id in made {
            rig.gpu.unref(id)?;
        }
        let kind = rig.gpu.answer(&request::ctx_create(2, VENUS, b""))?;
        if kind == resp::OK_NODATA {
            rig.gpu.command("CTX_DESTROY", &request::ctx_destroy(2))?;
        }
    }
    leave_descriptors(&rig, 100);
    rig.gpu.create_context(2, VENUS)?;
    for context in [1, 2] {
        rig.gpu.command(
            "RESOURCE_CREATE_BLOB",
            &blob(context, context, MAPPABLE, 4096),
        )?;
        check_context(&mut rig, context);
    }
    check_idle(&rig);
    rig.finish()
}
