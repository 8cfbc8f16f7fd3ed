//! Contexts: CTX_CREATE, CTX_DESTROY, CTX_ATTACH_RESOURCE, CTX_DETACH_RESOURCE, SUBMIT_3D.

use super::kit::{self, refused, succeeds};
use crate::conform::case::{Case, Group, Needs, Outcome, Stop, check, equal};
use crate::conform::trial::Trial;
use crate::frontend::Session;
use crate::frontend::message::feature;
use crate::frontend::pixels::BGRX;
use crate::frontend::request::{self, Rect, cmd};
use crate::frontend::response::resp;

const CONTEXTS: Needs = Needs::features(feature::VIRGL);
const TYPED: Needs = Needs::features(feature::VIRGL | feature::CONTEXT_INIT);

/// The cases of this group.
pub(super) const CASES: &[Case] = &[
    Group::Contexts.case_needing(
        CONTEXTS,
        1,
        "a context is made for the id in the header, and goes again",
        &["gpu-ctx-2", "gpu-ctx-6"],
        create_and_destroy,
    ),
    Group::Contexts.case_needing(
        CONTEXTS,
        2,
        "the id of a destroyed context can be used again",
        &["gpu-ctx-2", "gpu-ctx-6"],
        ids_are_free_again,
    ),
    Group::Contexts.case_needing(
        CONTEXTS,
        3,
        "a second context of the same id is refused, and the first stays",
        &["gpu-ctx-2", "gpu-header-3"],
        id_in_use,
    ),
    Group::Contexts.case_needing(
        CONTEXTS,
        4,
        "commands in contexts that are not there are refused",
        &["gpu-ctx-6", "gpu-header-3"],
        unknown_context,
    ),
    Group::Contexts.case_needing(
        CONTEXTS,
        5,
        "context 0 is a context like others, or none",
        &["gpu-ctx-2"],
        context_zero,
    ),
    Group::Contexts.case_needing(
        CONTEXTS,
        6,
        "a context may have a name of any bytes, up to 64 of them",
        &["gpu-ctx-2"],
        names,
    ),
    Group::Contexts.case_needing(
        CONTEXTS,
        7,
        "a name that claims more than 64 bytes is answered and harms nothing",
        &[],
        name_too_long,
    ),
    Group::Contexts.case_needing(
        CONTEXTS,
        8,
        "a 2D resource is attached to a context and detached",
        &["gpu-ctx-6"],
        attach_and_detach,
    ),
    Group::Contexts.case_needing(
        CONTEXTS,
        9,
        "a resource outlives the contexts that it was attached to",
        &["gpu-ctx-6"],
        resource_outlives_context,
    ),
    Group::Contexts.case_needing(
        CONTEXTS,
        10,
        "a resource may go while it is attached, and the context goes on",
        &["gpu-2d-4", "gpu-ctx-6"],
        context_outlives_resource,
    ),
    Group::Contexts.case_needing(
        CONTEXTS,
        11,
        "attaching or detaching what is not there is refused",
        &["gpu-ctx-6", "gpu-header-3"],
        unknown_resource,
    ),
    Group::Contexts.case_needing(
        TYPED,
        12,
        "each capability set that is offered can be what a context is made for",
        &["gpu-ctx-4"],
        each_capset,
    ),
    Group::Contexts.case_needing(
        TYPED,
        13,
        "a context for a capability set that is not offered is refused",
        &["gpu-ctx-4"],
        unknown_capset,
    ),
    Group::Contexts.case_needing(
        TYPED,
        14,
        "a context without a capability set is of a type that the device determines",
        &["gpu-ctx-5"],
        device_determines,
    ),
    Group::Contexts.case_needing(
        CONTEXTS,
        15,
        "an empty command stream is accepted",
        &["gpu-ctx-7"],
        empty_stream,
    ),
    Group::Contexts.case_needing(
        CONTEXTS,
        16,
        "a command stream shorter than its stated size is refused",
        &["gpu-ctx-7", "gpu-header-3"],
        truncated_stream,
    ),
    Group::Contexts.case_needing(
        CONTEXTS,
        17,
        "64 contexts exist at a time, with ids anywhere in 32 bits",
        &["gpu-ctx-2"],
        many_contexts,
    ),
];

/// A device with contexts, and a capability set to make them for.
fn start(trial: &mut Trial) -> Result<(Session, u32), Stop> {
    let mut session = trial.session(&kit::with_contexts())?;
    let capset = kit::a_capset(&mut session)?;
    Ok((session, capset))
}

fn create_and_destroy(trial: &mut Trial) -> Outcome {
    let (mut session, capset) = start(trial)?;
    session.gpu.create_context(3, capset)?;
    session.gpu.submit_3d(3, &[])?;
    session
        .gpu
        .command("CTX_DESTROY", &request::ctx_destroy(3))?;
    let submit = request::submit_3d(3, &[]);
    refused(&mut session, "SUBMIT_3D after CTX_DESTROY", &submit)?;
    kit::works(&mut session)
}

fn ids_are_free_again(trial: &mut Trial) -> Outcome {
    let (mut session, capset) = start(trial)?;
    for _ in 0..5 {
        session.gpu.create_context(7, capset)?;
        session.gpu.submit_3d(7, &[])?;
        session
            .gpu
            .command("CTX_DESTROY", &request::ctx_destroy(7))?;
    }
    kit::works(&mut session)
}

fn id_in_use(trial: &mut Trial) -> Outcome {
    let (mut session, capset) = start(trial)?;
    session.gpu.create_context(1, capset)?;
    let again = request::ctx_create(1, capset, b"again");
    refused(&mut session, "CTX_CREATE of a taken id", &again)?;
    session.gpu.submit_3d(1, &[])?;
    kit::works(&mut session)
}

fn unknown_context(trial: &mut Trial) -> Outcome {
    let (mut session, capset) = start(trial)?;
    session.gpu.create_context(1, capset)?;
    session.gpu.create_2d(5, BGRX, 16, 16)?;
    for id in [2, u32::MAX] {
        for (what, request) in [
            ("CTX_DESTROY", request::ctx_destroy(id)),
            ("SUBMIT_3D", request::submit_3d(id, &[])),
            (
                "CTX_ATTACH_RESOURCE",
                request::ctx_resource(cmd::CTX_ATTACH_RESOURCE, id, 5),
            ),
            (
                "CTX_DETACH_RESOURCE",
                request::ctx_resource(cmd::CTX_DETACH_RESOURCE, id, 5),
            ),
        ] {
            refused(&mut session, &format!("{what} in context {id}"), &request)?;
        }
    }
    session.gpu.submit_3d(1, &[])?;
    kit::works(&mut session)
}

fn context_zero(trial: &mut Trial) -> Outcome {
    let (mut session, capset) = start(trial)?;
    let create = request::ctx_create(0, capset, b"zero");
    let made = succeeds(&mut session, "CTX_CREATE of id 0", &create)?;
    let destroy = request::ctx_destroy(0);
    let gone = succeeds(&mut session, "CTX_DESTROY of id 0", &destroy)?;
    equal("context 0 could be destroyed", gone, made)?;
    kit::works(&mut session)
}

fn names(trial: &mut Trial) -> Outcome {
    let (mut session, capset) = start(trial)?;
    let names: [&[u8]; 5] = [b"", b"a", &[0xff; 64], &[0; 64], b"%s%n\x1b[2J\n"];
    for (id, name) in (1..).zip(names) {
        let request = request::ctx_create(id, capset, name);
        let what = format!("CTX_CREATE with the name {name:?}");
        session.gpu.command(&what, &request)?;
    }
    kit::works(&mut session)
}

fn name_too_long(trial: &mut Trial) -> Outcome {
    let (mut session, capset) = start(trial)?;
    for (id, len) in [(1, 65), (2, 4096), (3, u32::MAX)] {
        // nlen is the first field behind the header.
        let mut bytes = request::ctx_create(id, capset, &[b'x'; 64]).to_vec();
        bytes[24..28].copy_from_slice(&u32::to_le_bytes(len));
        let request = request::RequestBytes::new(cmd::CTX_CREATE)
            .in_context(id)
            .bytes(&bytes[24..]);
        succeeds(
            &mut session,
            &format!("CTX_CREATE with nlen {len}"),
            &request,
        )?;
    }
    session.gpu.create_context(9, capset)?;
    kit::works(&mut session)
}

fn attach_and_detach(trial: &mut Trial) -> Outcome {
    let (mut session, capset) = start(trial)?;
    session.gpu.create_context(1, capset)?;
    session.gpu.create_context(2, capset)?;
    session.gpu.create_picture(10, BGRX, 16, 16)?;
    // To two contexts at a time.
    for context in [1, 2] {
        session.gpu.attach_resource(context, 10)?;
    }
    for context in [1, 2] {
        session.gpu.detach_resource(context, 10)?;
    }
    session.gpu.attach_resource(1, 10)?;
    kit::works(&mut session)
}

fn resource_outlives_context(trial: &mut Trial) -> Outcome {
    let (mut session, capset) = start(trial)?;
    session.gpu.create_context(1, capset)?;
    session.gpu.create_picture(10, BGRX, 16, 16)?;
    session.gpu.attach_resource(1, 10)?;
    session
        .gpu
        .command("CTX_DESTROY", &request::ctx_destroy(1))?;
    session.gpu.transfer(10, Rect::sized(16, 16), 0)?;
    session.gpu.unref(10)?;
    kit::works(&mut session)
}

fn context_outlives_resource(trial: &mut Trial) -> Outcome {
    let (mut session, capset) = start(trial)?;
    session.gpu.create_context(1, capset)?;
    session.gpu.create_2d(10, BGRX, 16, 16)?;
    session.gpu.attach_resource(1, 10)?;
    session.gpu.unref(10)?;
    session.gpu.submit_3d(1, &[])?;
    // The id is free for another resource, and that for the context.
    session.gpu.create_2d(10, BGRX, 8, 8)?;
    session.gpu.attach_resource(1, 10)?;
    session
        .gpu
        .command("CTX_DESTROY", &request::ctx_destroy(1))?;
    kit::works(&mut session)
}

fn unknown_resource(trial: &mut Trial) -> Outcome {
    let (mut session, capset) = start(trial)?;
    session.gpu.create_context(1, capset)?;
    for resource in [0, 10, u32::MAX] {
        for (what, kind) in [
            ("CTX_ATTACH_RESOURCE", cmd::CTX_ATTACH_RESOURCE),
            ("CTX_DETACH_RESOURCE", cmd::CTX_DETACH_RESOURCE),
        ] {
            let request = request::ctx_resource(kind, 1, resource);
            refused(&mut session, &format!("{what} {resource}"), &request)?;
        }
    }
    kit::works(&mut session)
}

fn each_capset(trial: &mut Trial) -> Outcome {
    let mut session = trial.session(&kit::with_contexts())?;
    let sets = kit::capsets(&mut session)?;
    for (context, [id, ..]) in (1..).zip(sets) {
        let what = format!("CTX_CREATE for capability set {id}");
        let request = request::ctx_create(context, id, b"typed");
        session.gpu.command(&what, &request)?;
        session.gpu.submit_3d(context, &[])?;
    }
    kit::works(&mut session)
}

fn unknown_capset(trial: &mut Trial) -> Outcome {
    let mut session = trial.session(&kit::with_contexts())?;
    let sets = kit::capsets(&mut session)?;
    let offered = |id: u32| sets.iter().any(|set| set[0] == id);
    for id in [1, 2, 3, 4, 5, 42, 255]
        .into_iter()
        .filter(|id| !offered(*id))
    {
        let request = request::ctx_create(1, id, b"unknown");
        let what = format!("CTX_CREATE for capability set {id}");
        refused(&mut session, &what, &request)?;
    }
    kit::works(&mut session)
}

fn device_determines(trial: &mut Trial) -> Outcome {
    let mut session = trial.session(&kit::with_contexts())?;
    session.gpu.create_context(1, 0)?;
    let submit = request::submit_3d(1, &[]);
    session.gpu.command("SUBMIT_3D", &submit)?;
    kit::works(&mut session)
}

fn empty_stream(trial: &mut Trial) -> Outcome {
    let (mut session, capset) = start(trial)?;
    session.gpu.create_context(1, capset)?;
    for _ in 0..3 {
        session.gpu.submit_3d(1, &[])?;
    }
    kit::works(&mut session)
}

fn truncated_stream(trial: &mut Trial) -> Outcome {
    let (mut session, capset) = start(trial)?;
    session.gpu.create_context(1, capset)?;
    for size in [4_u32, 4096, u32::MAX] {
        let request = request::submit_3d(1, &[]);
        let mut bytes = request.to_vec();
        bytes[24..28].copy_from_slice(&size.to_le_bytes());
        let request = request::RequestBytes::new(cmd::SUBMIT_3D)
            .in_context(1)
            .bytes(&bytes[24..]);
        let what = format!("SUBMIT_3D of {size} bytes without one");
        refused(&mut session, &what, &request)?;
    }
    let header = request::RequestBytes::new(cmd::SUBMIT_3D).in_context(1);
    refused(&mut session, "SUBMIT_3D without its size", &header)?;
    kit::works(&mut session)
}

fn many_contexts(trial: &mut Trial) -> Outcome {
    let (mut session, capset) = start(trial)?;
    let ids: Vec<u32> = (0..64_u32)
        .map(|n| n.wrapping_mul(0x0412_3457) | 1)
        .collect();
    for id in &ids {
        session.gpu.create_context(*id, capset)?;
    }
    for id in &ids {
        let answer = session.gpu.answer(&request::submit_3d(*id, &[]))?;
        check(
            answer == resp::OK_NODATA,
            format_args!("SUBMIT_3D in context {id:#x}: {answer:#06x}"),
        )?;
    }
    for id in &ids {
        session
            .gpu
            .command("CTX_DESTROY", &request::ctx_destroy(*id))?;
    }
    kit::works(&mut session)
}
