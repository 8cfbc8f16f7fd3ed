//! The memory-type extension: who may use it, what it says, and that the guest is told the same.

use super::kit::{self, host_blobs, need_cross_domain, refused, succeeds, with_host_blobs};
use crate::conform::case::{Case, Group, Needs, Outcome, Stop, check, equal};
use crate::conform::trial::Trial;
use crate::frontend::memory::PAGE;
use crate::frontend::message::protocol;
use crate::frontend::request;
use crate::frontend::shmem::SHMEM_MAP;
use crate::frontend::{Ack, ImageContext, ImageRequest, Session, SessionOptions};

const EXTENSION: Needs = Needs::HOST_BLOBS.and(Needs::protocol(protocol::MEMTYPE));

/// The cases of this group.
pub(super) const CASES: &[Case] = &[
    Group::Memtype.case_needing(Needs::protocol(protocol::MEMTYPE), 1, "the extension is offered with all that it needs", &["ext-1"], offered_with_needs),
    Group::Memtype.case_needing(Needs::HOST_BLOBS, 2, "where it is not acknowledged, a map request carries no memory type", &["ext-2", "ext-5", "vu-45"], not_acknowledged),
    Group::Memtype.case_needing(EXTENSION, 3, "where it is acknowledged, the type asked for is the one that the guest is told, for writing", &["ext-3", "ext-4", "ext-5", "ext-8"], same_type_for_both),
    Group::Memtype.case_needing(EXTENSION, 4, "a type that the front-end refuses is an error to the guest, with nothing mapped", &["ext-8"], refused_type),
    Group::Memtype.case_needing(EXTENSION, 5, "acknowledged without what it needs, it is not used", &["ext-1", "ext-2"], acknowledged_alone),
    Group::Memtype.case_needing(Needs::HOST_BLOBS, 6, "an unmap request carries no memory type", &["ext-2", "ext-5"], unmap_has_none),
];

/// What an extended session accepts.
fn extended() -> SessionOptions {
    let mut options = with_host_blobs();
    options.protocol_features |= protocol::MEMTYPE;
    options
}

/// A device that speaks the extension, with context 1.
fn start(trial: &mut Trial) -> Result<(Session, ImageContext), Stop> {
    let mut session = trial.session(&extended())?;
    need_cross_domain(&mut session)?;
    kit::only_the_specification(&session);
    let context = ImageContext::new(&mut session.gpu, 1, 100)?;
    Ok((session, context))
}

/// Makes four images of different descriptions, as devices may choose the type by them, and maps
/// them; the flags of each request with the map_info of its answer.
fn map_all(session: &mut Session, context: &ImageContext) -> Result<Vec<(u64, u32)>, Stop> {
    let mut pairs = Vec::new();
    for n in 1..=4_u32 {
        let image = ImageRequest::xrgb(64 * n, 16);
        let info = context.image(&mut session.gpu, image)?;
        context.create_blob(&mut session.gpu, 200 + n, &info)?;
        let map_info = session.gpu.map_blob(200 + n, u64::from(n) << 20)?;
        let last = session.shmem().requests().last().copied();
        let last = last.ok_or_else(|| Stop::fail("mapped without a request"))?;
        equal("kind of the last request", last.kind, SHMEM_MAP)?;
        pairs.push((last.flags, map_info));
    }
    Ok(pairs)
}

fn offered_with_needs(trial: &mut Trial) -> Outcome {
    let missing = protocol::MEMTYPE_NEEDS & !trial.protocol_features();
    check(
        missing == 0,
        format_args!("offered without the protocol features {missing:#x}"),
    )?;
    // It is there for whoever asks, each time.
    let vhost = trial.connect()?;
    let offered = vhost.protocol_features()?;
    check(
        offered & protocol::MEMTYPE != 0,
        "offered once and then no more",
    )
}

fn not_acknowledged(trial: &mut Trial) -> Outcome {
    let (mut session, context) = host_blobs(trial)?;
    for (flags, _) in map_all(&mut session, &context)? {
        check(flags & !1 == 0, format_args!("flags {flags:#x}"))?;
    }
    kit::works(&mut session)
}

fn same_type_for_both(trial: &mut Trial) -> Outcome {
    let (mut session, context) = start(trial)?;
    for (flags, map_info) in map_all(&mut session, &context)? {
        let last = session.shmem().requests().last().copied();
        let valid = last.and_then(|request| request.map_flags(true));
        check(valid.is_some(), format_args!("flags {flags:#x}"))?;
        let writable = valid.is_some_and(|flags| flags.writable);
        check(writable, format_args!("read-only, by flags {flags:#x}"))?;
        let asked = flags >> 4 & 0xf;
        check(
            asked == 0 || asked == u64::from(map_info & 0xf),
            format_args!("the front-end was asked for {asked}, the guest told {map_info:#x}"),
        )?;
        // What is not said leaves the front-end to map it cached: the guest must not do otherwise.
        check(
            asked != 0 || map_info & 0xf <= 1,
            format_args!("no type in the request, and the guest was told {map_info:#x}"),
        )?;
    }
    kit::works(&mut session)
}

fn refused_type(trial: &mut Trial) -> Outcome {
    let (mut session, context) = start(trial)?;
    let info = context.image(&mut session.gpu, ImageRequest::xrgb(64, 64))?;
    context.create_blob(&mut session.gpu, 200, &info)?;
    session.shmem().script(&[Ack::Refuse(95)]);
    let map = request::map_blob(200, 0);
    refused(&mut session, "MAP_BLOB that the front-end refused", &map)?;
    equal("mapped after a refusal", session.shmem().mapped(), vec![])?;
    session.gpu.map_blob(200, PAGE)?;
    kit::works(&mut session)
}

fn acknowledged_alone(trial: &mut Trial) -> Outcome {
    let mut options = with_host_blobs();
    options.protocol_features &= !protocol::REPLY_ACK;
    let mut session = trial.session(&options)?;
    // The front-end library never says this by itself.
    let without_ack = session.protocol_features | protocol::MEMTYPE;
    session.vhost.set_protocol_features(without_ack)?;
    session.vhost.barrier()?;
    need_cross_domain(&mut session)?;
    kit::only_the_specification(&session);
    let context = ImageContext::new(&mut session.gpu, 1, 100)?;
    let info = context.image(&mut session.gpu, ImageRequest::xrgb(64, 64))?;
    let create = context.blob_request(200, &info);
    if succeeds(&mut session, "RESOURCE_CREATE_BLOB", &create)? {
        // Mapped without knowing whether it was, or not at all; but without a type.
        succeeds(
            &mut session,
            "RESOURCE_MAP_BLOB",
            &request::map_blob(200, 0),
        )?;
    }
    kit::works(&mut session)
}

fn unmap_has_none(trial: &mut Trial) -> Outcome {
    let (mut session, context) = host_blobs(trial)?;
    let info = context.image(&mut session.gpu, ImageRequest::xrgb(64, 64))?;
    context.create_blob(&mut session.gpu, 200, &info)?;
    session.gpu.map_blob(200, 0)?;
    session.gpu.unmap_blob(200)?;
    let last = session.shmem().requests().last().copied();
    equal(
        "flags of the unmap",
        last.map(|request| request.flags & !1),
        Some(0),
    )?;
    kit::works(&mut session)
}
