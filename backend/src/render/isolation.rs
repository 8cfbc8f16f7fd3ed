//! What a crash of a renderer does, and what not.
//!
//! A renderer is native code in this process, so its crash is this process's. [`watch`] sees to it that
//! the guest does not hang on it: commands that wait for the renderer are completed with errors, one
//! line in the log names what died, and the process ends with [`EXIT_CODE`], at which a front-end
//! or a service manager can start it anew.
//!
//! Contained are SIGSEGV, SIGBUS, SIGILL, SIGFPE and SIGABRT (failed assertions) on any thread. Not
//! contained: memory that is written wrongly without a crash; a driver that hangs, at which the guest's
//! control queue stands still; a stack overflow on a thread that the library made; a library that calls
//! `exit`. Whoever breaks into the renderer has all that this process has, the guest's memory included,
//! so each guest has a process of its own, and an operator who needs more puts it into a sandbox.
//!
//! Vulkan is drawn elsewhere: virglrenderer's render server, a child of this process, forks a process for
//! each Vulkan context. One that crashes, that virglrenderer gives up for the garbage that its guest sent,
//! or that keeps this process waiting too long costs its context alone: its fences fail, later commands
//! too, and destroying it frees all that it had. When the server itself dies, every Vulkan context is
//! lost and none can be made until this process is started again; OpenGL and 2D go on. Both are noticed
//! at once, also while the guest sends nothing. Memory that a lost context has given the guest stays
//! what it was.
//!
//! That contains mistakes, not attacks. These processes run as the same user with the same rights and see
//! the same devices and files, so one that has been broken into can do to this process what any process
//! of that user can (`ptrace`, unless the host forbids it). A process of Vulkan has no descriptor of the
//! guest's memory, only those of the blobs that were made in or attached to its context.

use std::fs;
use std::io;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use signal_hook::low_level::signal_name;

use super::thread::RenderThread;
use crate::sys::crash;

/// How this process ends when native code in it has crashed (`EX_SOFTWARE` of sysexits.h).
pub const EXIT_CODE: i32 = 70;

/// How long the queues' threads have to bring the last answers to the guest.
const GRACE: Duration = Duration::from_millis(200);

/// Watches over this process from now on, on behalf of this renderer. To be called once.
///
/// # Errors
/// No event, thread or signal handler to be had.
pub fn watch(renderer: &Arc<RenderThread>) -> io::Result<()> {
    let event = crash::catch(eventfd(0, EventfdFlags::CLOEXEC)?, EXIT_CODE)?;
    let renderer = Arc::downgrade(renderer);
    thread::Builder::new()
        .name("crash-watcher".to_owned())
        .spawn(move || {
            let read = || rustix::io::read(event, &mut [0_u8; 8]);
            match rustix::io::retry_on_intr(read) {
                Ok(_) => end(&renderer),
                Err(error) => log::error!("nobody watches for crashes: {error}"),
            }
        })?;
    Ok(())
}

/// If any of this hangs on what the crashed thread held, that one ends the process in its place.
fn end(renderer: &Weak<RenderThread>) -> ! {
    let renderer = renderer.upgrade();
    let doing = renderer.as_ref().and_then(|renderer| renderer.doing());
    log::error!("{}", line(crash::caught(), doing));
    if let Some(renderer) = &renderer {
        renderer.died();
    }
    thread::sleep(GRACE);
    crash::exit(EXIT_CODE)
}

/// What died.
fn line(crash: Option<crash::Crash>, doing: Option<&str>) -> String {
    let (signal, thread) = crash.map_or((0, 0), |crash| (crash.signal, crash.thread));
    let signal = signal_name(signal).unwrap_or("an unknown signal");
    let name = fs::read_to_string(format!("/proc/self/task/{thread}/comm"));
    let name = name.unwrap_or_default();
    let doing = doing.map_or_else(
        || "the 3D renderer was idle".to_owned(),
        |what| format!("the 3D renderer was doing {what}"),
    );
    format!(
        "crashed with {signal} in thread \"{}\" while {doing}; the guest's commands fail and \
         nosnoop-gpu ends with status {EXIT_CODE}: start it again",
        name.trim_end()
    )
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Output};
    use std::time::Instant;

    use log::LevelFilter;
    use nosnoop_protocol::ids::ContextId;
    use signal_hook::consts::SIGSEGV;

    use super::*;
    use crate::logging;
    use crate::render::fake::{Fake, capset};
    use crate::render::fences::Done;
    use crate::render::{RenderError, Timeline};

    const HOW: &str = "NOSNOOP_TEST_CRASH";

    /// A daemon whose renderer crashes, in a process of its own.
    fn crash(how: &str) -> Output {
        let test = "render::isolation::tests::in_a_process_of_its_own";
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--ignored", "--nocapture"])
            .env(HOW, how)
            .output()
            .unwrap()
    }

    #[test]
    #[ignore = "crashes: for the tests below"]
    fn in_a_process_of_its_own() {
        let how = std::env::var(HOW).unwrap();
        logging::to_stderr(LevelFilter::Warn);
        let fake = Fake::default();
        let renderer = fake.start();
        watch(&renderer).unwrap();
        let id = ContextId::new(1).unwrap();
        let made = renderer.call("", move |it| it.create_context(id, capset(1).id, ""));
        made.unwrap();
        let hangs = how == "hang";
        let done: Done = Box::new(move |result| {
            println!("fence: {result:?}");
            if hangs {
                thread::sleep(Duration::from_secs(20));
            }
        });
        let fence = Some((Timeline::Global, done));
        renderer.submit(id, vec![0; 4], fence).unwrap();
        let called: Result<(), RenderError> = renderer.call("SUBMIT_3D", move |_| {
            match how.as_str() {
                "abort" => std::process::abort(),
                _ => signal_hook::low_level::raise(SIGSEGV).unwrap(),
            }
            Ok(())
        });
        println!("call: {called:?}");
        thread::sleep(Duration::from_secs(20));
    }

    #[test]
    fn a_crash_fails_what_waits_names_what_died_and_ends_with_the_code() {
        for (how, signal) in [("segv", "SIGSEGV"), ("abort", "SIGABRT")] {
            let output = crash(how);
            let (out, err) = (
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr),
            );
            assert_eq!(output.status.code(), Some(EXIT_CODE), "{out} {err}");
            assert!(out.contains("fence: Err(Gone)"), "{out}");
            assert!(out.contains("call: Err(Gone)"), "{out}");
            for part in [signal, "thread \"renderer\"", "doing SUBMIT_3D"] {
                assert!(err.contains(part), "{part}: {err}");
            }
        }
    }

    #[test]
    fn if_the_watcher_hangs_the_crashed_thread_ends_the_process() {
        let start = Instant::now();
        let output = crash("hang");
        assert_eq!(output.status.code(), Some(EXIT_CODE));
        assert!(start.elapsed() >= Duration::from_secs(2));
        assert!(start.elapsed() < Duration::from_secs(15));
    }

    #[test]
    fn the_line_is_one_also_when_little_is_known() {
        let line = line(None, None);
        assert!(line.starts_with("crashed with an unknown signal"), "{line}");
        assert!(line.contains("idle") && !line.contains('\n'));
    }
}
