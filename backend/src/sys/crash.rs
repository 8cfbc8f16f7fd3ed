//! What becomes of this process when a thread crashes: somebody is told, and then it ends.
#![expect(unsafe_code, reason = "signal handlers")]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

use libc::{SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, c_int};

/// The signals that a thread gets for what it did itself (signal(7)).
const SIGNALS: [c_int; 5] = [SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT];

/// How long a thread that crashed waits for somebody else to end the process.
const PATIENCE_S: libc::time_t = 2;

/// Readable after a crash. Never closed, so that the handler can use its number.
static EVENT: OnceLock<OwnedFd> = OnceLock::new();
static EVENT_NUMBER: AtomicI32 = AtomicI32::new(-1);
static EXIT_CODE: AtomicI32 = AtomicI32::new(0);
/// The first crash; signal 0 for none.
static SIGNAL: AtomicI32 = AtomicI32::new(0);
static THREAD: AtomicI32 = AtomicI32::new(0);

/// A thread's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Crash {
    /// The signal's number.
    pub(crate) signal: i32,
    /// The thread's id.
    pub(crate) thread: i32,
}

/// From now on a thread that crashes makes the event, an eventfd, readable and waits two seconds before
/// it ends the process with this code. The time is for who reads the event, with [`caught`] and
/// [`exit`]. To be called once; the event.
///
/// # Errors
/// What the kernel says.
pub(crate) fn catch(event: OwnedFd, exit_code: i32) -> io::Result<&'static OwnedFd> {
    let event = EVENT.get_or_init(|| event);
    EVENT_NUMBER.store(event.as_raw_fd(), Ordering::SeqCst);
    EXIT_CODE.store(exit_code, Ordering::SeqCst);
    for signal in SIGNALS {
        let handler: extern "C" fn(c_int) = crashed;
        // SAFETY: `sigaction` is a C struct of numbers and a pointer, for which zeros are values: no
        // flags, an empty mask, the default handler.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = handler as libc::sighandler_t;
        // A thread that Rust has made has a stack for this, should its own be the trouble.
        action.sa_flags = libc::SA_ONSTACK;
        // SAFETY: `sigfillset` needs a set to write to, which is in `action`.
        unsafe { libc::sigfillset(&raw mut action.sa_mask) };
        // SAFETY: `sigaction` needs a signal's number, an action to read, and null or room for the
        // old one. `action` lives across the call. Its handler has the type of one without SA_SIGINFO
        // and does only what is async-signal-safe; see there. The handlers that are replaced are
        // Rust's own, which nobody else relies on.
        let result = unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(event)
}

/// The first crash; `None` before it.
pub(crate) fn caught() -> Option<Crash> {
    match SIGNAL.load(Ordering::SeqCst) {
        0 => None,
        signal => Some(Crash {
            signal,
            thread: THREAD.load(Ordering::SeqCst),
        }),
    }
}

/// Ends the process at once, as if it had crashed: nothing that libraries or this program would do at
/// an ordinary end is done.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: `_exit` takes any number and does not return.
    unsafe { libc::_exit(code) }
}

/// What a thread does that has crashed. It may hold any lock and have spoiled any memory, so there
/// are system calls here and nothing else. It never goes back to what it did.
extern "C" fn crashed(signal: c_int) {
    // SAFETY: `gettid` has no conditions, and is a system call alone.
    let thread = unsafe { libc::gettid() };
    // The thread first: who sees the signal finds it. Of two at the same time either will do.
    if THREAD
        .compare_exchange(0, thread, Ordering::SeqCst, Ordering::SeqCst)
        .is_ok()
    {
        SIGNAL.store(signal, Ordering::SeqCst);
        let one = 1_u64.to_ne_bytes();
        let event = EVENT_NUMBER.load(Ordering::SeqCst);
        // SAFETY: `write` is async-signal-safe and needs as many readable bytes as it is told, which
        // `one` has. A number that is no descriptor would be an error, and `EVENT` is never closed.
        unsafe { libc::write(event, one.as_ptr().cast(), one.len()) };
    }
    let mut left = libc::timespec {
        tv_sec: PATIENCE_S,
        tv_nsec: 0,
    };
    loop {
        let asked = left;
        // SAFETY: `nanosleep` is async-signal-safe, reads the first time and writes the second, which
        // both live on this stack across the call.
        let result = unsafe { libc::nanosleep(&raw const asked, &raw mut left) };
        if result == 0 {
            break;
        }
    }
    exit(EXIT_CODE.load(Ordering::SeqCst));
}
