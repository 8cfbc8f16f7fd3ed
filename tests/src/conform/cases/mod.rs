//! The cases, one file per group.

use super::case::Case;

mod capsets;
mod contexts;
mod cross_domain;
mod fences;
mod guest_blob;
mod host_blob;
mod hostile_rings;
mod kit;
mod memory_table;
mod memtype;
mod reconnect;
mod reset;
mod rings;
mod uuid;

/// All cases, group by group, in the order of their numbers.
#[must_use]
pub fn all() -> Vec<Case> {
    [
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
    ]
    .concat()
}
