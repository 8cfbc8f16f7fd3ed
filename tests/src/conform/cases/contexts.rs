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
    Case {
        group: Group::Contexts,
        number: 1,
        name: "a context is made for the id in the header, and goes again",
        sentences: &["gpu-ctx-2", "gpu-ctx-6"],
        needs: CONTEXTS,
        run: create_and_destroy,
    },
    Case {
        group: Group::Contexts,
        number: 2,
        name: "the id of a destroyed context can be used again",
        sentences: &["gpu-ctx-2", "gpu-ctx-6"],
        needs: CONTEXTS,
        run: ids_are_free_again,
    },
    Case {
        group: Group::Contexts,
        number: 3,
        name: "a second context of the same id is refused, and the first stays",
        sentences: &["gpu-ctx-2", "gpu-header-3"],
        needs: CONTEXTS,
        run: id_in_use,
    },
    Case {
        group: Group::Contexts,
        number: 4,
        name: "commands in contexts that are not there are refused",
        sentences: &["gpu-ctx-6", "gpu-header-3"],
        needs: CONTEXTS,
        run: unknown_context,
    },
    Case {
        group: Group::Contexts,
        number: 5,
        name: "context 0 is a context like others, or none",
        sentences: &["gpu-ctx-2"],
        needs: CONTEXTS,
        run: context_zero,
    },
    Case {
        group: Group::Contexts,
        number: 6,
        name: "a context may have a name of any bytes, up to 64 of them",
        sentences: &["gpu-ctx-2"],
        needs: CONTEXTS,
        run: names,
    },
    Case {
        group: Group::Contexts,
        number: 7,
        name: "a name that claims more than 64 bytes is answered and harms nothing",
        sentences: &[],
        needs: CONTEXTS,
        run: name_too_long,
    },
    Case {
        group: Group::Contexts,
        number: 8,
        name: "a 2D resource is attached to a context and detached",
        sentences: &["gpu-ctx-6"],
        needs: CONTEXTS,
        run: attach_and_detach,
    },
    Case {
        group: Group::Contexts,
        number: 9,
        name: "a resource outlives the contexts that it was attached to",
        sentences: &["gpu-ctx-6"],
        needs: CONTEXTS,
        run: resource_outlives_context,
    },
    Case {
        group: Group::Contexts,
        number: 10,
        name: "a resource may go while it is attached, and the context goes on",
        sentences: &["gpu-2d-4", "gpu-ctx-6"],
        needs: CONTEXTS,
        run: context_outlives_resource,
    },
    Case {
        group: Group::Contexts,
        number: 11,
        name: "attaching or detaching what is not there is refused",
        sentences: &["gpu-ctx-6", "gpu-header-3"],
        needs: CONTEXTS,
        run: unknown_resource,
    },
    Case {
        group: Group::Contexts,
        number: 12,
        name: "each capability set that is offered can be what a context is made for",
        sentences: &["gpu-ctx-4"],
        needs: TYPED,
        run: each_capset,
    },
    Case {
        group: Group::Contexts,
        number: 13,
        name: "a context for a capability set that is not offered is refused",
        sentences: &["gpu-ctx-4"],
        needs: TYPED,
        run: unknown_capset,
    },
    Case {
        group: Group::Contexts,
        number: 14,
        name: "a context without a capability set is of a type that the device determines",
        sentences: &["gpu-ctx-5"],
        needs: TYPED,
        run: device_determines,
    },
    Case {
        group: Group::Contexts,
        number: 15,
        name: "an empty command stream is accepted",
        sentences: &["gpu-ctx-7"],
        needs: CONTEXTS,
        run: empty_stream,
    },
    Case {
        group: Group::Contexts,
        number: 16,
        name: "a command stream shorter than its stated size is refused",
        sentences: &["gpu-ctx-7", "gpu-header-3"],
        needs: CONTEXTS,
        run: truncated_stream,
    },
    Case {
        group: Group::Contexts,
        number: 17,
        name: "64 contexts exist at a time, with ids anywhere in 32 bits",
        sentences: &["gpu-ctx-2"],
        needs: CONTEXTS,
        run: many_contexts,
    },
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
