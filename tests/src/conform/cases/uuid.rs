//! RESOURCE_ASSIGN_UUID.

use crate::conform::case::{Case, Group, Needs, Outcome, check, equal};
use crate::conform::trial::Trial;
use crate::frontend::message::feature;
use crate::frontend::request;
use crate::frontend::response::resp;

/// The cases of this group.
pub(super) const CASES: &[Case] = &[
    Case {
        group: Group::Uuid,
        number: 1,
        name: "a resource keeps the UUID that it was given first",
        sentences: &["gpu-uuid-1"],
        needs: Needs::features(feature::RESOURCE_UUID),
        run: same_uuid_each_time,
    },
    Case {
        group: Group::Uuid,
        number: 2,
        name: "a UUID for a resource that is not there is refused",
        sentences: &[],
        needs: Needs::features(feature::RESOURCE_UUID),
        run: unknown_resource,
    },
];

fn same_uuid_each_time(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    session.gpu.create_2d(1, 2, 16, 16)?;
    session.gpu.create_2d(2, 2, 16, 16)?;
    let first = session.gpu.assign_uuid(1)?;
    check(first != [0; 16], "the UUID is all zeros")?;
    let other = session.gpu.assign_uuid(2)?;
    check(first != other, "two resources have the same UUID")?;
    equal("UUID at the second ask", session.gpu.assign_uuid(1)?, first)?;
    Trial::usable(&mut session)
}

fn unknown_resource(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    let answer = session.gpu.answer(&request::assign_uuid(7))?;
    equal("answer", answer, resp::ERR_INVALID_RESOURCE_ID)?;
    Trial::usable(&mut session)
}
