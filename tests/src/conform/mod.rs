//! Conformance of any vhost-user GPU back-end: numbered cases, each with the sentences of the
//! specifications that it checks.
//!
//! * [`case`]: what a case is and what it finds;
//! * [`trial`]: the back-end that a case runs against;
//! * [`cases`]: the cases, one file per group.

pub mod case;
pub mod cases;
pub mod trial;

pub use case::{Case, Group, Needs, Outcome, Stop};
pub use trial::Trial;
