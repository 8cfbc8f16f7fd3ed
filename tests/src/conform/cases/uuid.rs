//! RESOURCE_ASSIGN_UUID.

use super::common::{refused, whole, works};
use crate::conform::case::{Case, Group, Needs, Outcome, check};
use crate::conform::trial::Trial;
use crate::frontend::message::feature;
use crate::frontend::request;
use crate::frontend::response::{self, resp};

const UUID: Needs = Needs::features(feature::RESOURCE_UUID);

/// The cases of this group.
pub(super) const CASES: &[Case] = &[
    Group::Uuid.case_needing(
        UUID,
        2,
        "a UUID for a resource that is not there is refused",
        &["gpu-header-3"],
        unknown_resource,
    ),
    Group::Uuid.case_needing(
        UUID,
        3,
        "the answer is RESP_OK_RESOURCE_UUID with 16 bytes",
        &["gpu-uuid-1", "gpu-header-2"],
        layout,
    ),
    Group::Uuid.case_needing(
        UUID,
        4,
        "resources have different UUIDs",
        &["gpu-uuid-1"],
        all_different,
    ),
    Group::Uuid.case_needing(
        UUID,
        5,
        "a new resource does not get the UUID of a destroyed one",
        &["gpu-uuid-1"],
        not_inherited,
    ),
];

fn unknown_resource(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    session.gpu.create_2d(1, 2, 16, 16)?;
    for id in [0, 2, u32::MAX] {
        let ask = request::assign_uuid(id);
        refused(&mut session, &format!("a UUID for resource {id}"), &ask)?;
    }
    session.gpu.unref(1)?;
    let ask = request::assign_uuid(1);
    refused(&mut session, "a UUID for what was destroyed", &ask)?;
    works(&mut session)
}

fn layout(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    session.gpu.create_2d(1, 2, 16, 16)?;
    let answer = session.gpu.call(&request::assign_uuid(1), 256)?;
    whole(
        "RESOURCE_ASSIGN_UUID",
        &answer,
        resp::OK_RESOURCE_UUID,
        response::UUID,
    )?;
    works(&mut session)
}

fn all_different(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    let mut seen = Vec::new();
    for id in 1..=32 {
        session.gpu.create_2d(id, 2, 16, 16)?;
        let uuid = session.gpu.assign_uuid(id)?;
        check(
            !seen.contains(&uuid),
            format_args!("resource {id} has the UUID of another"),
        )?;
        seen.push(uuid);
    }
    works(&mut session)
}

fn not_inherited(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    session.gpu.create_2d(1, 2, 16, 16)?;
    let first = session.gpu.assign_uuid(1)?;
    session.gpu.unref(1)?;
    session.gpu.create_2d(1, 2, 32, 32)?;
    let second = session.gpu.assign_uuid(1)?;
    check(second != first, "it is the same object to other devices")?;
    works(&mut session)
}
