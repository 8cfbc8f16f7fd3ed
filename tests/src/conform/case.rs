//! What a conformance case is, and what it can find.

use std::fmt;

use super::probe::{Probe, feature_names, protocol_names};
use super::trial::Trial;
use crate::frontend::Error;
use crate::frontend::message::{feature, protocol};

/// What a case found: nothing wrong, or why it stopped.
pub type Outcome = Result<(), Stop>;

/// Why a case did not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The back-end does not do what the sentence says; the text says what it did instead.
    Fail(String),
    /// The case cannot be run against this back-end; the text says what it lacks.
    Skip(String),
}

impl Stop {
    /// A failure, in words: what happened instead of what was expected.
    pub fn fail(what: impl fmt::Display) -> Self {
        Self::Fail(what.to_string())
    }

    /// A reason why the case does not apply.
    pub fn skip(why: impl fmt::Display) -> Self {
        Self::Skip(why.to_string())
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::fail(error)
    }
}

/// Fails with `what` unless `holds`.
///
/// # Errors
/// [`Stop::Fail`].
pub fn check(holds: bool, what: impl fmt::Display) -> Outcome {
    if holds { Ok(()) } else { Err(Stop::fail(what)) }
}

/// Fails unless both are equal, with `what` and both values.
///
/// # Errors
/// [`Stop::Fail`].
pub fn equal<T: PartialEq + fmt::Debug>(what: &str, got: T, expected: T) -> Outcome {
    match (got, expected) {
        (got, expected) if got == expected => Ok(()),
        (got, expected) => Err(Stop::fail(format_args!(
            "{what}: {got:?}, expected {expected:?}"
        ))),
    }
}

/// What a case is about; also the first part of its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Group {
    /// Connection, features, configuration space.
    Negotiation,
    /// 2D resources, backing, transfers, flushes.
    TwoD,
    /// The pixel formats.
    Formats,
    /// SET_SCANOUT and display info.
    Scanout,
    /// The display socket of vhost-user-gpu.
    Display,
    /// The cursor queue.
    Cursor,
    /// GET_EDID.
    Edid,
    /// RESOURCE_ASSIGN_UUID.
    Uuid,
    /// Fences.
    Fences,
    /// Contexts and SUBMIT_3D.
    Contexts,
    /// GET_CAPSET_INFO and GET_CAPSET.
    Capsets,
    /// Images of the cross-domain capability set.
    CrossDomain,
    /// Blobs in guest memory.
    GuestBlob,
    /// Blobs in host memory, MAP_BLOB and the shared-memory region.
    HostBlob,
    /// Memory types of mappings, and the extension that carries them to the front-end.
    Memtype,
    /// Changes of the memory table while the device runs.
    MemoryTable,
    /// Device and queue reset.
    Reset,
    /// One front-end after the other.
    Reconnect,
    /// Ring features: indirect descriptors, EVENT_IDX, large rings.
    Rings,
    /// Rings that no honest driver makes.
    HostileRings,
    /// Requests and messages that no honest driver or front-end sends.
    Garbage,
}

impl Group {
    /// All groups, in the order in which they run.
    pub const ALL: [Self; 21] = [
        Self::Negotiation,
        Self::TwoD,
        Self::Formats,
        Self::Scanout,
        Self::Display,
        Self::Cursor,
        Self::Edid,
        Self::Uuid,
        Self::Fences,
        Self::Contexts,
        Self::Capsets,
        Self::CrossDomain,
        Self::GuestBlob,
        Self::HostBlob,
        Self::Memtype,
        Self::MemoryTable,
        Self::Reset,
        Self::Reconnect,
        Self::Rings,
        Self::HostileRings,
        Self::Garbage,
    ];

    /// The name in ids and reports: lower case, words joined by dashes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Negotiation => "negotiation",
            Self::TwoD => "2d",
            Self::Formats => "formats",
            Self::Scanout => "scanout",
            Self::Display => "display",
            Self::Cursor => "cursor",
            Self::Edid => "edid",
            Self::Uuid => "uuid",
            Self::Fences => "fences",
            Self::Contexts => "contexts",
            Self::Capsets => "capsets",
            Self::CrossDomain => "cross-domain",
            Self::GuestBlob => "guest-blob",
            Self::HostBlob => "host-blob",
            Self::Memtype => "memtype",
            Self::MemoryTable => "memory-table",
            Self::Reset => "reset",
            Self::Reconnect => "reconnect",
            Self::Rings => "rings",
            Self::HostileRings => "hostile-rings",
            Self::Garbage => "garbage",
        }
    }
}

/// Features without which a case makes no sense; the runner skips it and names them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Virtio feature bits.
    pub features: u64,
    /// Vhost-user protocol feature bits.
    pub protocol_features: u64,
    /// That a picture reaches the display, by which the case judges what it is about.
    pub pictures: bool,
}

impl Needs {
    /// Nothing but a vhost-user GPU.
    pub const NOTHING: Self = Self {
        features: 0,
        protocol_features: 0,
        pictures: false,
    };

    /// That pictures are shown.
    pub const PICTURES: Self = Self {
        pictures: true,
        ..Self::NOTHING
    };

    /// Host blobs: the shared-memory region, the channel for its requests, contexts to make them in.
    pub const HOST_BLOBS: Self = Self {
        features: feature::RESOURCE_BLOB | feature::CONTEXT_INIT,
        protocol_features: protocol::BACKEND_REQ | protocol::SHMEM,
        pictures: false,
    };

    /// These virtio features.
    #[must_use]
    pub const fn features(features: u64) -> Self {
        Self {
            features,
            ..Self::NOTHING
        }
    }

    /// These protocol features.
    #[must_use]
    pub const fn protocol(protocol_features: u64) -> Self {
        Self {
            protocol_features,
            ..Self::NOTHING
        }
    }

    /// These and `other`.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            features: self.features | other.features,
            protocol_features: self.protocol_features | other.protocol_features,
            pictures: self.pictures || other.pictures,
        }
    }

    /// What of it a back-end does not have, in words; nothing if it has all.
    #[must_use]
    pub fn missing(self, offered: &Probe) -> Option<String> {
        if self.pictures && !offered.pictures {
            let why = "no picture is shown, by which this is judged (2d-01 is about that)";
            return Some(why.to_owned());
        }
        let mut names = feature_names(self.features & !offered.features);
        names.extend(protocol_names(
            self.protocol_features & !offered.protocol_features,
        ));
        match names.as_slice() {
            [] => None,
            [one] => Some(format!("{one} is not offered")),
            many => Some(format!("{} are not offered", many.join(", "))),
        }
    }
}

/// One numbered case. Numbers are never reused: a case that goes leaves a gap.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its group.
    pub group: Group,
    /// Its number in the group, from 1.
    pub number: u32,
    /// What holds for a conforming back-end, as one sentence.
    pub name: &'static str,
    /// Ids of the normative sentences that it checks, in `sentences.toml`.
    pub sentences: &'static [&'static str],
    /// What the back-end must offer for it.
    pub needs: Needs,
    /// Runs it.
    pub run: fn(&mut Trial) -> Outcome,
}

impl Group {
    /// A case of this group that needs nothing but a vhost-user GPU.
    #[must_use]
    pub const fn case(
        self,
        number: u32,
        name: &'static str,
        sentences: &'static [&'static str],
        run: fn(&mut Trial) -> Outcome,
    ) -> Case {
        self.case_needing(Needs::NOTHING, number, name, sentences, run)
    }

    /// A case of this group for back-ends that offer `needs`.
    #[must_use]
    pub const fn case_needing(
        self,
        needs: Needs,
        number: u32,
        name: &'static str,
        sentences: &'static [&'static str],
        run: fn(&mut Trial) -> Outcome,
    ) -> Case {
        Case {
            group: self,
            number,
            name,
            sentences,
            needs,
            run,
        }
    }
}

impl Case {
    /// `GROUP-NUMBER`, such as `2d-07`.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}-{:02}", self.group.name(), self.number)
    }
}
