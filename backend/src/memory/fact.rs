//! An answer about the host, with where it comes from. "Unknown" is an answer too.

use std::fmt;

use serde::Serialize;

/// Something that the host was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fact<T> {
    value: Option<T>,
    source: String,
}

impl<T> Fact<T> {
    /// An answer, and who gave it: a file, a call with its result, a table in this program.
    #[must_use]
    pub fn known(value: T, source: impl Into<String>) -> Self {
        Self {
            value: Some(value),
            source: source.into(),
        }
    }

    /// No answer, and why there is none.
    #[must_use]
    pub fn unknown(why: impl Into<String>) -> Self {
        Self {
            value: None,
            source: why.into(),
        }
    }

    /// The answer, if there is one.
    #[must_use]
    pub fn value(&self) -> Option<&T> {
        self.value.as_ref()
    }

    /// Where the answer comes from, or why there is none: half a sentence.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }
}

impl Fact<bool> {
    /// Whether the answer is known and yes.
    #[must_use]
    pub fn is_yes(&self) -> bool {
        self.value == Some(true)
    }

    /// Whether the answer is known and no.
    #[must_use]
    pub fn is_no(&self) -> bool {
        self.value == Some(false)
    }
}

impl fmt::Display for Fact<bool> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answer = match self.value {
            Some(true) => "yes",
            Some(false) => "no",
            None => "unknown",
        };
        write!(f, "{answer} ({})", self.source)
    }
}
