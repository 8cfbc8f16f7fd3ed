//! One front-end after the other. A back-end may also end with its first: then these are skipped.

use super::kit::{self, host_blobs, need_cross_domain, plain, refused, with_host_blobs};
use crate::conform::case::{Case, Group, Needs, Outcome, Stop, check};
use crate::conform::trial::Trial;
use crate::frontend::message::feature;
use crate::frontend::pixels::{BGRX, Picture, noise};
use crate::frontend::request;
use crate::frontend::{
    Error, ImageContext, ImageRequest, Profile, Rect, Session, SessionOptions, VhostUser,
};

/// The cases of this group.
pub(super) const CASES: &[Case] = &[
    Group::Reconnect.case(
        1,
        "a second front-end is served when the first has gone",
        &[],
        second_is_served,
    ),
    Group::Reconnect.case(
        2,
        "the second front-end finds none of the first one's resources",
        &[],
        resources_gone,
    ),
    Group::Reconnect.case(
        3,
        "the second front-end's pictures are its own",
        &[],
        pictures,
    ),
    Group::Reconnect.case(
        4,
        "a front-end that leaves with commands in work harms nobody",
        &[],
        leaves_at_work,
    ),
    Group::Reconnect.case(
        5,
        "a front-end that leaves in the middle of its bring-up harms nobody",
        &[],
        leaves_in_bring_up,
    ),
    Group::Reconnect.case(
        6,
        "a front-end that leaves in the middle of a message harms nobody",
        &[],
        leaves_in_a_message,
    ),
    Group::Reconnect.case(
        7,
        "the second front-end may accept fewer features than the first",
        &["vu-45"],
        fewer_features,
    ),
    Group::Reconnect.case_needing(
        Needs::HOST_BLOBS,
        8,
        "a place where the first front-end had a blob mapped is free for the second",
        &["vu-38"],
        mappings_gone,
    ),
    Group::Reconnect.case(
        9,
        "ten front-ends in a row are served alike",
        &[],
        ten_in_a_row,
    ),
    Group::Reconnect.case(
        10,
        "the second front-end may use another order of messages",
        &[],
        other_order,
    ),
    Group::Reconnect.case_needing(
        Needs::features(feature::RESOURCE_BLOB),
        11,
        "the second front-end finds none of the first one's blobs",
        &[],
        blobs_gone,
    ),
];

/// A connection after the first, which is over. A back-end that ends with its front-end, or does not listen any
/// more, is not asked to do what it does not.
fn connect(trial: &mut Trial) -> Result<VhostUser, Stop> {
    let only_one = |why: String| Stop::skip(format_args!("it serves one front-end only: {why}"));
    trial.disconnect();
    let vhost = trial.connect().map_err(|stop| match stop {
        Stop::Fail(why) => only_one(why),
        skip => skip,
    })?;
    // One that is about to end may still have accepted.
    match vhost.features() {
        Err(error @ (Error::Closed(_) | Error::Io { .. })) => Err(only_one(error.to_string())),
        Err(other) => Err(other.into()),
        Ok(_) => Ok(vhost),
    }
}

/// Brings a device up for a front-end after the first.
fn next(trial: &mut Trial, options: &SessionOptions) -> Result<Session, Stop> {
    let vhost = connect(trial)?;
    Ok(Session::over(vhost, options)?)
}

/// As [`next`] with the default options.
fn second(trial: &mut Trial) -> Result<Session, Stop> {
    next(trial, &SessionOptions::default())
}

fn second_is_served(trial: &mut Trial) -> Outcome {
    kit::begin(kit::show(&mut trial.start()?, 1))?;
    let mut session = second(trial)?;
    kit::show(&mut session, 2)?;
    kit::works(&mut session)
}

fn resources_gone(trial: &mut Trial) -> Outcome {
    let mut first = trial.start()?;
    first.gpu.create_2d(1, BGRX, 16, 16)?;
    drop(first);
    let mut session = second(trial)?;
    let flush = request::flush(1, Rect::sized(16, 16));
    refused(&mut session, "a flush of the first one's resource", &flush)?;
    session.gpu.create_2d(1, BGRX, 16, 16)?;
    kit::works(&mut session)
}

fn blobs_gone(trial: &mut Trial) -> Outcome {
    let mut first = trial.start()?;
    let span = first.ram.alloc(4 * 64 * 64)?;
    first.gpu.create_blob_guest(2, 4 * 64 * 64, &[span])?;
    drop(first);
    let mut session = second(trial)?;
    let scanout = request::set_scanout_blob(plain(2, 64, 64));
    refused(&mut session, "a scanout of the first one's blob", &scanout)?;
    session.gpu.create_2d(2, BGRX, 16, 16)?;
    kit::works(&mut session)
}

fn pictures(trial: &mut Trial) -> Outcome {
    kit::begin(kit::show(&mut trial.start()?, 1))?;
    let mut session = second(trial)?;
    let resource = session.gpu.create_picture(1, BGRX, 64, 64)?;
    session.gpu.set_scanout(0, 1, resource.rect())?;
    // Nothing was drawn: it must not be the first one's picture.
    session.gpu.flush(1, resource.rect())?;
    session
        .display()
        .wait_for("the scanout to be on", |state| {
            state.scanouts[0].as_ref().map(|_| ())
        })?;
    let old = Picture::of(BGRX, 64, 64, &noise(1, resource.len()));
    let seen = session.display().with(|state| {
        state.scanouts[0]
            .as_ref()
            .is_some_and(|scanout| scanout.picture == old)
    });
    check(!seen, "the second front-end sees the first one's picture")?;
    kit::works(&mut session)
}

fn leaves_at_work(trial: &mut Trial) -> Outcome {
    kit::begin(kit::show(&mut trial.start()?, 99))?;
    for _ in 0..3 {
        let mut first = second(trial)?;
        let resource = first.gpu.create_picture(1, BGRX, 256, 256)?;
        first.gpu.set_scanout(0, 1, resource.rect())?;
        for _ in 0..40 {
            first
                .gpu
                .queue(&request::transfer_to_host_2d(1, resource.rect(), 0))?;
            first.gpu.queue(&request::flush(1, resource.rect()))?;
        }
        first.gpu.control.kick()?;
    }
    let mut session = second(trial)?;
    kit::show(&mut session, 4)?;
    kit::works(&mut session)
}

/// Says the first `steps` of what a front-end says at its bring-up.
fn bring_up(vhost: &mut VhostUser, steps: u32) -> Result<(), Error> {
    if steps > 0 {
        vhost.set_owner()?;
    }
    let mut features = 0;
    if steps > 1 {
        features = vhost.features()?;
    }
    if steps > 2 && features & feature::PROTOCOL_FEATURES != 0 {
        let protocol_features = vhost.protocol_features()?;
        vhost.set_protocol_features(protocol_features)?;
    }
    if steps > 3 {
        vhost.set_features(features)?;
        vhost.set_vring_num(0, 16)?;
    }
    Ok(())
}

fn leaves_in_bring_up(trial: &mut Trial) -> Outcome {
    kit::begin(kit::show(&mut trial.start()?, 99))?;
    for steps in 1..5 {
        let mut vhost = connect(trial)?;
        bring_up(&mut vhost, steps)?;
    }
    let mut session = second(trial)?;
    kit::show(&mut session, 5)?;
    kit::works(&mut session)
}

fn leaves_in_a_message(trial: &mut Trial) -> Outcome {
    let vhost = trial.connect()?;
    vhost.features()?;
    // GET_FEATURES again, but the header ends early.
    vhost.send_bytes(&[1, 0, 0, 0, 1, 0], &[])?;
    drop(vhost);
    let mut session = second(trial)?;
    kit::show(&mut session, 6)?;
    kit::works(&mut session)
}

fn fewer_features(trial: &mut Trial) -> Outcome {
    kit::begin(kit::show(&mut trial.start()?, 1))?;
    let options = SessionOptions {
        features: feature::VERSION_1 | feature::PROTOCOL_FEATURES,
        ..SessionOptions::default()
    };
    let mut session = next(trial, &options)?;
    kit::show(&mut session, 2)?;
    kit::works(&mut session)
}

/// Makes image blob 200 in context 1 and maps it at the beginning of the region.
fn map_at_zero(session: &mut Session, context: &ImageContext) -> Outcome {
    let info = context.image(&mut session.gpu, ImageRequest::xrgb(64, 64))?;
    context.create_blob(&mut session.gpu, 200, &info)?;
    session.gpu.map_blob(200, 0)?;
    let bytes = session.shmem().try_read(0, 64)?;
    check(
        bytes.iter().all(|byte| *byte == 0),
        "a new blob has somebody's bytes in it",
    )?;
    Ok(session.shmem().try_write(0, &[0xaa; 64])?)
}

fn mappings_gone(trial: &mut Trial) -> Outcome {
    let (mut first, context) = host_blobs(trial)?;
    map_at_zero(&mut first, &context)?;
    drop(first);
    let mut session = next(trial, &with_host_blobs())?;
    need_cross_domain(&mut session)?;
    kit::only_the_specification(&session);
    let context = ImageContext::new(&mut session.gpu, 1, 100)?;
    map_at_zero(&mut session, &context)?;
    kit::works(&mut session)
}

fn ten_in_a_row(trial: &mut Trial) -> Outcome {
    kit::begin(kit::show(&mut trial.start()?, 99))?;
    for seed in 0..10 {
        let mut session = second(trial)?;
        kit::show(&mut session, seed)?;
        kit::works(&mut session)?;
    }
    Ok(())
}

fn other_order(trial: &mut Trial) -> Outcome {
    kit::begin(kit::show(&mut trial.start()?, 1))?;
    let options = SessionOptions {
        profile: Profile::Crosvm,
        ..SessionOptions::default()
    };
    let mut session = next(trial, &options)?;
    kit::show(&mut session, 2)?;
    // The queues are those of this front-end.
    session.gpu.move_cursor(request::Cursor::default())?;
    kit::works(&mut session)
}
