//! File descriptors that reach this process as numbers.
#![expect(
    unsafe_code,
    reason = "a descriptor number becomes an owner only by assertion"
)]

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Takes over the descriptor that the parent process passed as `--fd N`.
///
/// # Errors
/// `InvalidInput` for a number that cannot be such a descriptor (negative, or one that this process
/// writes its messages to), else what the kernel says of it (`EBADF` if it is not open).
///
/// To be called once, at start, before the process opens anything itself: see the SAFETY notes.
pub(crate) fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    if number < 0 || number == 1 || number == 2 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: `BorrowedFd::borrow_raw` needs a number that is not -1 (checked above) and a
    // descriptor that stays open while borrowed. The borrow lives for the one fcntl below, which
    // answers EBADF when the number is not open, and no other thread runs yet that could close it.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_setfd(borrowed, rustix::io::FdFlags::CLOEXEC)?;
    // SAFETY: `OwnedFd::from_raw_fd` needs an open descriptor with no other owner. The fcntl above
    // proved it open; by the vhost-user back-end program conventions the parent passes it to us
    // for this use alone, and nothing in this process owns a number that it did not open itself.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Closes a descriptor that a library let go of without closing.
///
/// `vhost-user-backend` 0.24 turns the exit event of each worker into a bare number
/// (`into_raw_fd`) and never closes it, which would cost one descriptor per worker and connection.
/// The caller must pass each such number once, after the worker that polled it has been joined.
pub(crate) fn close_leaked(number: RawFd) {
    // SAFETY: `OwnedFd::from_raw_fd` needs an open descriptor with no other owner. The number comes
    // from an event that this process created and handed to the library, which gave up ownership
    // by `into_raw_fd` and whose only user, the joined worker, is gone; the caller passes it once.
    drop(unsafe { OwnedFd::from_raw_fd(number) });
}
