//! The cases, one file per group.

use super::case::Case;

mod common;
mod cursor;
mod display;
mod edid;
mod formats;
mod garbage;
mod garbage_messages;
mod negotiation;
mod scanout;
mod two_d;
mod uuid;

/// All cases, group by group, in the order of their numbers.
#[must_use]
pub fn all() -> Vec<Case> {
    [
        negotiation::CASES,
        two_d::CASES,
        formats::CASES,
        scanout::CASES,
        display::CASES,
        cursor::CASES,
        edid::CASES,
        uuid::CASES,
        &garbage::cases(),
    ]
    .concat()
}
