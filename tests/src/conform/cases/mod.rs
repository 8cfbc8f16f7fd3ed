//! The cases, one file per group.

use super::case::Case;

mod capsets;
mod contexts;
mod cross_domain;
mod fences;
mod guest_blob;
mod kit;
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
    ]
    .concat()
}
