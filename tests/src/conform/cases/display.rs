//! The display socket of vhost-user-gpu.

use std::time::Duration;

use super::common::{self, Shown, settle, works};
use crate::conform::case::{Case, Group, Needs, Outcome, Stop, check, equal};
use crate::conform::trial::Trial;
use crate::frontend::display::{Answer, FEATURE_DMABUF2, FEATURE_EDID, kind};
use crate::frontend::message::feature;
use crate::frontend::pixels::{BGRA, BGRX, Picture, noise};
use crate::frontend::request::{self, Cursor};
use crate::frontend::{DisplayConfig, Rect, Session, SessionOptions};

/// The flag of a reply in a message's header.
const REPLY: u32 = 4;
const EDID: Needs = Needs::features(feature::EDID);

/// The cases of this group.
pub(super) const CASES: &[Case] = &[
    Group::Display.case(
        1,
        "the protocol features, where they are asked for, come before anything else",
        &["vu-26", "vug-3"],
        asks_first,
    ),
    Group::Display.case_needing(
        Needs::PICTURES,
        2,
        "only features that were offered are set",
        &["vug-4"],
        accepts_offered,
    ),
    Group::Display.case_needing(
        Needs::PICTURES,
        3,
        "features that nobody knows are not set",
        &["vug-4"],
        ignores_unknown,
    ),
    Group::Display.case_needing(
        Needs::PICTURES,
        4,
        "without the feature EDID nothing is asked for with GET_EDID",
        &["vug-13", "vug-14"],
        no_edid,
    ),
    Group::Display.case_needing(
        Needs::PICTURES,
        5,
        "without the feature DMABUF2 there is no DMABUF_SCANOUT2",
        &["vug-14"],
        no_dmabuf2,
    ),
    Group::Display.case(
        6,
        "every message has the length of its kind and fits the scanout",
        &["vug-1", "vug-6", "vug-7", "vug-8", "vug-9", "vug-10"],
        well_formed,
    ),
    Group::Display.case(
        7,
        "a scanout has its mode before its first update",
        &["vug-9", "vug-10"],
        mode_first,
    ),
    Group::Display.case(
        8,
        "a whole screen arrives exactly",
        &["vug-10"],
        whole_screen,
    ),
    Group::Display.case(
        9,
        "a display that answers late is waited for",
        &["vug-5"],
        late_answer,
    ),
    Group::Display.case_needing(
        EDID,
        10,
        "the EDID is asked for through the display, and passed on as it is",
        &["vug-13", "gpu-edid-1"],
        edid_passed_on,
    ),
    Group::Display.case(
        11,
        "a display that goes away leaves the device usable",
        &[],
        display_gone,
    ),
    Group::Display.case(12, "no request looks like a reply", &["vug-1"], no_replies),
    Group::Display.case(
        13,
        "a flush of a part shows it, and each pixel in its place",
        &[],
        damage_alone,
    ),
];

fn with(trial: &mut Trial, change: impl FnOnce(&mut DisplayConfig)) -> Result<Session, Stop> {
    let mut config = common::side_by_side(1);
    change(&mut config);
    trial.session(&SessionOptions::with_display(config))
}

fn asks_first(trial: &mut Trial) -> Outcome {
    let shown = Shown::new(trial, 64, 64)?;
    let log = shown.session.display().with(|state| state.log.clone());
    // A back-end that wants no feature need not ask.
    let asked = kind::GET_PROTOCOL_FEATURES;
    if let Some(at) = log.iter().position(|kind| *kind == asked) {
        equal("messages before GET_PROTOCOL_FEATURES", at, 0)?;
    }
    shown.finish()
}

/// What the back-end has accepted once a picture is on the display.
fn accepted(trial: &mut Trial, offered: u64) -> Result<u64, Stop> {
    let session = with(trial, |config| config.features = offered)?;
    let shown = Shown::on(session, 64, 64)?;
    // A back-end that wants no feature need not say so.
    let accepted = shown.session.display().with(|state| state.accepted);
    shown.finish()?;
    Ok(accepted.unwrap_or(0))
}

fn accepts_offered(trial: &mut Trial) -> Outcome {
    let accepted = accepted(trial, FEATURE_EDID)?;
    check(
        accepted & !FEATURE_EDID == 0,
        format_args!("{accepted:#x} was set, {FEATURE_EDID:#x} offered"),
    )
}

fn ignores_unknown(trial: &mut Trial) -> Outcome {
    let known = FEATURE_EDID | FEATURE_DMABUF2;
    let accepted = accepted(trial, 1 << 40 | 1 << 63 | known)?;
    check(
        accepted & !known == 0,
        format_args!("{accepted:#x} was set"),
    )
}

fn no_edid(trial: &mut Trial) -> Outcome {
    let mut options = SessionOptions::with_display(common::side_by_side(1));
    if let Some(display) = &mut options.display {
        display.features = 0;
    }
    // A front-end whose display has no EDID does not pass the feature on to the guest.
    options.features &= !feature::EDID;
    let mut session = trial.session(&options)?;
    settle(&mut session)?;
    equal(
        "GET_EDID messages",
        session.display().count(kind::GET_EDID),
        0,
    )?;
    Shown::on(session, 64, 64)?.finish()
}

fn no_dmabuf2(trial: &mut Trial) -> Outcome {
    let session = with(trial, |config| config.features = FEATURE_EDID)?;
    let mut shown = Shown::on(session, 64, 64)?;
    shown.paint(2)?;
    let count = shown.session.display().count(kind::DMABUF_SCANOUT2);
    equal("DMABUF_SCANOUT2 messages", count, 0)?;
    shown.finish()
}

fn well_formed(trial: &mut Trial) -> Outcome {
    let mut shown = Shown::new(trial, 150, 70)?;
    shown.session.gpu.flush(1, Rect::new(149, 69, 1, 1))?;
    shown
        .session
        .gpu
        .set_scanout(0, 1, Rect::new(10, 20, 77, 33))?;
    shown.session.gpu.flush(1, Rect::new(0, 0, 20, 70))?;
    let pointer = shown.session.gpu.create_picture(2, BGRA, 64, 64)?;
    let raw = noise(2, pointer.len());
    shown.session.gpu.paint(&pointer, &raw)?;
    let cursor = Cursor {
        x: 3,
        y: 4,
        resource: 2,
        ..Cursor::default()
    };
    shown.session.gpu.update_cursor(cursor)?;
    shown.session.gpu.move_cursor(Cursor { x: 9, ..cursor })?;
    let hide = Cursor {
        resource: 0,
        ..cursor
    };
    shown.session.gpu.update_cursor(hide)?;
    shown.session.gpu.set_scanout(0, 0, Rect::default())?;
    settle(&mut shown.session)?;
    works(&mut shown.session)
}

fn damage_alone(trial: &mut Trial) -> Outcome {
    let mut shown = Shown::new(trial, 100, 80)?;
    for (seed, rect) in [(2, Rect::new(30, 20, 10, 5)), (3, Rect::new(0, 79, 100, 1))] {
        let raw = noise(seed, shown.resource.len());
        shown.session.gpu.paint(&shown.resource, &raw)?;
        shown.session.gpu.flush(1, rect)?;
        let fresh = Picture::of(BGRX, 100, 80, &raw);
        let display = shown.session.display();
        display.wait_for("the part that was flushed", |state| {
            let now = &state.scanouts[0].as_ref()?.picture;
            (now.crop(rect) == fresh.crop(rect)).then_some(())
        })?;
        settle(&mut shown.session)?;
        let now = shown.session.display().with(|state| {
            let scanout = state.scanouts[0].as_ref();
            scanout.map(|scanout| scanout.picture.clone())
        });
        let now = now.ok_or_else(|| Stop::fail("the scanout is off"))?;
        // The rest may be shown as well: it was transferred.
        let pixels = now.bytes.chunks_exact(4).enumerate();
        let strange = pixels.filter(|(at, pixel)| {
            let of = |picture: &Picture| picture.bytes[4 * at..][..4] == **pixel;
            !of(&shown.picture) && !of(&fresh)
        });
        let count = strange.count();
        check(
            now.bytes.len() == fresh.bytes.len() && count == 0,
            format_args!("{count} pixels are neither what was there nor what is new there"),
        )?;
        shown.picture = now;
    }
    shown.finish()
}

fn no_replies(trial: &mut Trial) -> Outcome {
    let mut shown = Shown::new(trial, 64, 64)?;
    for seed in 2..5 {
        shown.paint(seed)?;
    }
    shown.still()?;
    let stray = shown
        .session
        .display()
        .with(|state| state.stray_flags.clone());
    // Only the bit of replies has a meaning.
    let reply = stray.iter().find(|line| {
        let flags = line.rsplit("0x").next();
        let flags = flags.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        flags.is_none_or(|flags| flags & REPLY != 0)
    });
    check(reply.is_none(), reply.map_or("", String::as_str))?;
    shown.finish()
}

fn mode_first(trial: &mut Trial) -> Outcome {
    let shown = Shown::on(trial.start()?, 64, 64)?;
    let log = shown.session.display().with(|state| state.log.clone());
    let first = |wanted| log.iter().position(|kind| *kind == wanted);
    let (mode, update) = (first(kind::SCANOUT), first(kind::UPDATE));
    check(
        mode.is_some() && mode < update,
        format_args!("SCANOUT is message {mode:?}, UPDATE message {update:?}"),
    )?;
    shown.finish()
}

fn whole_screen(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    let resource = session.gpu.create_picture(1, BGRX, 1280, 800)?;
    session.gpu.set_scanout(0, 1, resource.rect())?;
    let raw = noise(8, resource.len());
    session.gpu.show(&resource, &raw)?;
    let expected = Picture::of(BGRX, 1280, 800, &raw);
    session.display().wait_picture(0, &expected)?;
    works(&mut session)
}

fn late_answer(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    session.display().configure(|config| {
        config.displays[0].rect = Rect::sized(321, 123);
        let late = Answer::Late(Duration::from_millis(300));
        config.answers.insert(kind::GET_DISPLAY_INFO, late);
    });
    let told = session.gpu.display_info()?[0].rect;
    equal("display 0", told, Rect::sized(321, 123))?;
    session.display().configure(|config| config.answers.clear());
    works(&mut session)
}

fn edid_passed_on(trial: &mut Trial) -> Outcome {
    let expected = common::edid(7, 0);
    let told = expected.clone();
    let mut session = with(trial, |config| config.edids = vec![told])?;
    let got = session.gpu.edid(0)?;
    check(
        got == expected,
        format_args!(
            "{} bytes of EDID are not the display's {}",
            got.len(),
            expected.len()
        ),
    )?;
    let asked = session.display().count(kind::GET_EDID);
    check(asked > 0, "the display was not asked")?;
    works(&mut session)
}

fn display_gone(trial: &mut Trial) -> Outcome {
    let mut shown = Shown::new(trial, 64, 64)?;
    shown.session.close_display();
    shown.session.gpu.create_2d(2, BGRX, 16, 16)?;
    let flush = request::flush(1, shown.resource.rect());
    common::answered(&mut shown.session, "RESOURCE_FLUSH", &flush)?;
    Ok(shown.session.gpu.unref(2)?)
}
