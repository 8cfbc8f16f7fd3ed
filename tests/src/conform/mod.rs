//! Conformance of any vhost-user GPU back-end: numbered cases, each with the sentences of the
//! specifications that it checks.
//!
//! * [`case`]: what a case is and what it finds;
//! * [`trial`]: the back-end that a case runs against;
//! * [`cases`]: the cases, one file per group;
//! * [`target`]: the back-ends, by command or by socket; [`probe`]: what one offers;
//! * [`run`]: runs cases, with a deadline each;
//! * [`causes`]: what the failures of known back-ends come from;
//! * [`sentences`]: what the specifications say, and which cases check it;
//! * [`planted`]: whether the cases find bugs;
//! * [`report`]: JSON, JUnit XML and HTML.

pub mod case;
pub mod cases;
pub mod causes;
pub mod planted;
pub mod probe;
pub mod report;
pub mod run;
pub mod sentences;
pub mod target;
pub mod trial;

pub use case::{Case, Group, Needs, Outcome, Stop};
pub use trial::Trial;
