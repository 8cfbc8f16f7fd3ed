//! The cases, one file per group.

use super::case::{Case, Group};

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
mod two_d_bad;
mod uuid;

/// All cases, group by group, in the order of their numbers.
#[must_use]
pub fn all() -> Vec<Case> {
    let mut all = [
        negotiation::CASES,
        &two_d::cases(),
        formats::CASES,
        scanout::CASES,
        display::CASES,
        cursor::CASES,
        edid::CASES,
        uuid::CASES,
        &garbage::cases(),
    ]
    .concat();
    let place = |group| Group::ALL.iter().position(|one| *one == group);
    all.sort_by_key(|case| (place(case.group), case.number));
    all
}
