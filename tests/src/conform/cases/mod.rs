//! The cases, one file per group.

use super::case::{Case, Group};

mod capsets;
mod common;
mod contexts;
mod cross_domain;
mod cursor;
mod display;
mod edid;
mod fences;
mod formats;
mod garbage;
mod garbage_messages;
mod guest_blob;
mod host_blob;
mod hostile_rings;
mod kit;
mod memory_table;
mod memtype;
mod negotiation;
mod reconnect;
mod reset;
mod rings;
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
        fences::CASES,
        contexts::CASES,
        capsets::CASES,
        cross_domain::CASES,
        guest_blob::CASES,
        host_blob::CASES,
        memtype::CASES,
        memory_table::CASES,
        reset::CASES,
        reconnect::CASES,
        rings::CASES,
        hostile_rings::CASES,
        &garbage::cases(),
    ]
    .concat();
    let place = |group| Group::ALL.iter().position(|one| *one == group);
    all.sort_by_key(|case| (place(case.group), case.number));
    all
}
