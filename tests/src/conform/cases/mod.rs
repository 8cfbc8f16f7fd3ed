//! The cases, one file per group.

use super::case::Case;

mod uuid;

/// All cases, group by group, in the order of their numbers.
#[must_use]
pub fn all() -> Vec<Case> {
    [uuid::CASES].concat()
}
