//! GET_CAPSET_INFO and GET_CAPSET.

use super::kit::{self, capsets, is_error, refused};
use crate::conform::case::{Case, Group, Needs, Outcome, Stop, check, equal};
use crate::conform::trial::Trial;
use crate::frontend::Session;
use crate::frontend::message::feature;
use crate::frontend::request::{self, FLAG_FENCE};
use crate::frontend::response::{HEADER, Response, resp};

const CONTEXTS: Needs = Needs::features(feature::VIRGL);

/// The cases of this group.
pub(super) const CASES: &[Case] = &[
    Group::Capsets.case_needing(
        CONTEXTS,
        1,
        "each index below num_capsets names a capability set with a size",
        &["gpu-config-4", "gpu-capset-2"],
        each_index,
    ),
    Group::Capsets.case_needing(
        CONTEXTS,
        2,
        "the ids are known ones, each once",
        &["gpu-capset-3"],
        known_ids,
    ),
    Group::Capsets.case_needing(
        CONTEXTS,
        3,
        "an index from num_capsets on is refused",
        &["gpu-config-4", "gpu-header-3"],
        beyond_the_count,
    ),
    Group::Capsets.case_needing(
        CONTEXTS,
        4,
        "each capability set is had in its highest version, and is not larger than stated",
        &["gpu-capset-2", "gpu-capset-4"],
        data_of_each,
    ),
    Group::Capsets.case_needing(
        CONTEXTS,
        5,
        "a capability set is the same each time",
        &["gpu-capset-4"],
        same_each_time,
    ),
    Group::Capsets.case_needing(
        CONTEXTS,
        6,
        "a capability set that is not offered is refused",
        &["gpu-capset-4", "gpu-header-3"],
        unknown_id,
    ),
    Group::Capsets.case_needing(
        CONTEXTS,
        7,
        "a version above the highest gets an error or data within the stated size",
        &["gpu-capset-2"],
        unknown_version,
    ),
    Group::Capsets.case_needing(
        CONTEXTS,
        8,
        "a response buffer that is too small is not overrun",
        &["gpu-header-1"],
        small_buffer,
    ),
    Group::Capsets.case_needing(
        CONTEXTS,
        9,
        "fenced questions for capability sets carry their fences",
        &["gpu-fence-3", "gpu-fence-4"],
        fences,
    ),
];

/// A device with contexts, and its capability sets, of which there is at least one.
fn start(trial: &mut Trial) -> Result<(Session, Vec<[u32; 3]>), Stop> {
    let mut session = trial.session(&kit::with_contexts())?;
    let sets = capsets(&mut session)?;
    match sets.is_empty() {
        true => Err(Stop::skip("num_capsets is 0")),
        false => Ok((session, sets)),
    }
}

/// GET_CAPSET with room for `room` bytes of data.
fn get(session: &mut Session, id: u32, version: u32, room: u32) -> Result<Response, Stop> {
    let request = request::get_capset(id, version);
    Ok(session.gpu.call(&request, HEADER + room as usize)?)
}

fn each_index(trial: &mut Trial) -> Outcome {
    let (mut session, sets) = start(trial)?;
    for (index, [id, _, size]) in sets.iter().enumerate() {
        check(
            *id != 0 && *size != 0,
            format_args!("index {index}: capability set {id} of {size} bytes"),
        )?;
    }
    equal(
        "the capability sets when asked again",
        capsets(&mut session)?,
        sets,
    )?;
    kit::works(&mut session)
}

fn known_ids(trial: &mut Trial) -> Outcome {
    let (mut session, sets) = start(trial)?;
    let mut ids: Vec<u32> = sets.iter().map(|set| set[0]).collect();
    ids.sort_unstable();
    let count = ids.len();
    ids.dedup();
    check(
        ids.len() == count,
        format_args!("an id comes twice: {sets:?}"),
    )?;
    for id in ids {
        let known = (1..=5).contains(&id);
        check(known, format_args!("capability set {id} is none of 1 to 5"))?;
    }
    kit::works(&mut session)
}

fn beyond_the_count(trial: &mut Trial) -> Outcome {
    let (mut session, sets) = start(trial)?;
    let count = sets.len() as u32;
    for index in [count, count + 1, 255, 1 << 16, u32::MAX] {
        let request = request::get_capset_info(index);
        let what = format!("GET_CAPSET_INFO of index {index} of {count}");
        refused(&mut session, &what, &request)?;
    }
    kit::works(&mut session)
}

fn data_of_each(trial: &mut Trial) -> Outcome {
    let (mut session, sets) = start(trial)?;
    for [id, version, size] in sets {
        // Room for more than it may be.
        let answer = get(&mut session, id, version, size + 64)?;
        let answer = answer.expect("GET_CAPSET", resp::OK_CAPSET)?;
        let len = answer.written() - HEADER;
        check(
            len > 0 && len <= size as usize,
            format_args!("capability set {id} has {len} bytes of at most {size}"),
        )?;
    }
    kit::works(&mut session)
}

fn same_each_time(trial: &mut Trial) -> Outcome {
    let (mut session, sets) = start(trial)?;
    for [id, version, size] in sets {
        let first = get(&mut session, id, version, size)?;
        let first = first.expect("GET_CAPSET", resp::OK_CAPSET)?;
        let second = get(&mut session, id, version, size)?;
        let what = format!("capability set {id} at the second ask");
        equal(&what, second.bytes(), first.bytes())?;
    }
    kit::works(&mut session)
}

fn unknown_id(trial: &mut Trial) -> Outcome {
    let (mut session, sets) = start(trial)?;
    let offered = |id: u32| sets.iter().any(|set| set[0] == id);
    let ids = [0, 1, 2, 3, 4, 5, 63, 256, u32::MAX];
    for id in ids.into_iter().filter(|id| !offered(*id)) {
        let request = request::get_capset(id, 0);
        refused(&mut session, &format!("GET_CAPSET of {id}"), &request)?;
    }
    kit::works(&mut session)
}

fn unknown_version(trial: &mut Trial) -> Outcome {
    let (mut session, sets) = start(trial)?;
    for [id, highest, size] in sets {
        for version in [highest.saturating_add(1), u32::MAX] {
            let answer = get(&mut session, id, version, size + 64)?;
            let fits =
                answer.kind() == resp::OK_CAPSET && answer.written() <= HEADER + size as usize;
            check(
                fits || is_error(answer.kind()),
                format_args!(
                    "version {version} of capability set {id}: {:#06x}, {} bytes",
                    answer.kind(),
                    answer.written()
                ),
            )?;
        }
    }
    kit::works(&mut session)
}

fn small_buffer(trial: &mut Trial) -> Outcome {
    let (mut session, sets) = start(trial)?;
    for [id, version, size] in sets {
        for room in [0, 1, size - 1] {
            // More than there is room for is found out when the answer is collected.
            let answer = get(&mut session, id, version, room)?;
            check(
                answer.written() <= HEADER + room as usize,
                format_args!("{} bytes for {room} of data", answer.written()),
            )?;
        }
    }
    kit::works(&mut session)
}

fn fences(trial: &mut Trial) -> Outcome {
    let (mut session, sets) = start(trial)?;
    let [id, version, size] = sets[0];
    for (what, request) in [
        ("GET_CAPSET_INFO", request::get_capset_info(0)),
        ("GET_CAPSET", request::get_capset(id, version)),
        ("GET_CAPSET_INFO of no index", request::get_capset_info(999)),
    ] {
        let fence = 0x3_0000_0004;
        let room = HEADER + 16 + size as usize;
        let answer = session.gpu.call(&request.fenced(fence), room)?;
        check(
            answer.kind() != 0 && answer.flags() & FLAG_FENCE != 0,
            format_args!("{what}: no fence flag in the answer"),
        )?;
        equal(&format!("{what}: fence id"), answer.fence_id(), fence)?;
    }
    kit::works(&mut session)
}
