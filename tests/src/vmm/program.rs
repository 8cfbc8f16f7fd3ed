//! The guest's program: code without an operating system, assembled into this program as data.
//!
//! It is assembly, because it has to be exact: which instruction touches a page decides whether KVM
//! can stand in for it, and no stack, no table and no library may be needed.
#![expect(
    unsafe_code,
    reason = "the code comes in by assembly, between two symbols"
)]

use std::arch::global_asm;

use super::guest;

global_asm!(
    include_str!("guest.s"),
    ORDER = const 0,
    A = const 8,
    B = const 16,
    C = const 24,
    D = const 32,
    E = const 40,
    STATUS = const 48,
    RESULT = const 56,
    RESULT2 = const 64,
    SET_PAT = const guest::SET_PAT,
    MAP = const guest::MAP,
    UNMAP = const guest::UNMAP,
    FILL = const guest::FILL,
    FILL_MOVQ = const guest::FILL_MOVQ,
    CHECK = const guest::CHECK,
    LOAD = const guest::LOAD,
    SUBMIT = const guest::SUBMIT,
    DONE = const guest::DONE,
    BAD_ORDER = const guest::BAD_ORDER,
    BAD_MAP_INFO = const guest::BAD_MAP_INFO,
    REPORT_PORT = const guest::REPORT_PORT,
    KICK_PORT = const guest::KICK_PORT,
    Q_DESCRIPTORS = const 0,
    Q_AVAILABLE = const 8,
    Q_USED = const 16,
    Q_MASK = const 24,
    Q_NEXT_AVAILABLE = const 32,
    Q_NEXT_USED = const 40,
);

unsafe extern "C" {
    /// Where the program begins.
    static nosnoop_guest_start: u8;
    /// Where it ends.
    static nosnoop_guest_end: u8;
}

/// The program; it runs at any address, from its first byte.
#[must_use]
pub(super) fn code() -> &'static [u8] {
    let (start, end) = (&raw const nosnoop_guest_start, &raw const nosnoop_guest_end);
    let len = end as usize - start as usize;
    // SAFETY: guest.s puts both, in this order, into one piece of read-only data, which is there
    // as long as this program and which nothing changes.
    unsafe { std::slice::from_raw_parts(start, len) }
}
