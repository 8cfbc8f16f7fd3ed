//! Reports of runs: for programs ([`mod@json`], [`mod@junit`]) and for people ([`mod@html`],
//! [`mod@markdown`], [`causes`]).

pub mod causes;
pub mod html;
pub mod json;
pub mod junit;
pub mod markdown;

pub use html::html;
pub use json::json;
pub use junit::junit;
pub use markdown::markdown;

pub use crate::lab::date::date;
pub(super) use crate::xml::escaped;

#[cfg(test)]
mod tests;
