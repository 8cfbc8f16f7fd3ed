//! SET_SCANOUT and display info.

use super::common::{
    self, Shown, answered, bad_rects, displays, refused, scanouts, settle, whole, works,
};
use crate::conform::case::{Case, Group, Outcome, check, equal};
use crate::conform::trial::Trial;
use crate::frontend::pixels::{BGRX, Picture, Random, noise};
use crate::frontend::request;
use crate::frontend::response::{DISPLAY_INFO, resp};
use crate::frontend::{Rect, SessionOptions};

/// The cases of this group.
pub(super) const CASES: &[Case] = &[
    Group::Scanout.case(
        1,
        "any part of a resource can be a scanout",
        &["gpu-scanout-1", "gpu-2d-8", "vug-9"],
        parts,
    ),
    Group::Scanout.case(
        2,
        "a rectangle that the resource does not cover is refused, and the scanout stays",
        &["gpu-scanout-2", "gpu-header-3"],
        not_covered,
    ),
    Group::Scanout.case(
        3,
        "one resource on two scanouts is flushed to both",
        &["gpu-scanout-3", "gpu-fb-4", "gpu-flush-1"],
        mirrored,
    ),
    Group::Scanout.case(
        4,
        "scanouts show different rectangles of one resource, overlapping ones too",
        &["gpu-scanout-3", "gpu-fb-4"],
        one_big,
    ),
    Group::Scanout.case(
        5,
        "resource id 0 turns a scanout off, and another resource on again",
        &["gpu-scanout-4", "vug-9"],
        off_and_on,
    ),
    Group::Scanout.case(
        6,
        "page flips show each buffer in its turn",
        &["gpu-fb-3"],
        page_flips,
    ),
    Group::Scanout.case(
        7,
        "a flush of a rectangle brings that rectangle up to date",
        &["gpu-flush-1"],
        damage,
    ),
    Group::Scanout.case(
        8,
        "a scanout that the device does not have is refused",
        &["gpu-header-3"],
        unknown_scanout,
    ),
    Group::Scanout.case(
        9,
        "display information is 16 entries, as the display says",
        &["gpu-display-1", "gpu-display-2", "vug-5"],
        display_info,
    ),
    Group::Scanout.case(
        10,
        "display information follows the display",
        &["gpu-display-2", "vug-5"],
        display_info_changes,
    ),
    Group::Scanout.case(
        11,
        "display information has the place and size of each of several displays",
        &["gpu-display-2", "vug-5"],
        several_displays,
    ),
    Group::Scanout.case(
        12,
        "a resource of another size changes the scanout's mode",
        &["gpu-scanout-1", "vug-9"],
        new_mode,
    ),
    Group::Scanout.case(
        13,
        "turning one scanout off leaves the other as it is",
        &["gpu-scanout-4"],
        other_stays,
    ),
];

fn parts(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    let resource = session.gpu.create_picture(1, BGRX, 200, 150)?;
    let raw = noise(1, resource.len());
    session.gpu.paint(&resource, &raw)?;
    let picture = Picture::of(BGRX, 200, 150, &raw);
    let mut random = Random::new(5);
    let edges = [
        Rect::new(199, 149, 1, 1),
        Rect::new(0, 149, 200, 1),
        Rect::new(17, 0, 1, 150),
    ];
    let others = (0..6).map(|_| random.rect(200, 150));
    for rect in edges.into_iter().chain(others) {
        session.gpu.set_scanout(0, 1, rect)?;
        session.gpu.flush(1, resource.rect())?;
        session.display().wait_picture(0, &picture.crop(rect))?;
    }
    works(&mut session)
}

fn not_covered(trial: &mut Trial) -> Outcome {
    let mut shown = Shown::new(trial, 64, 64)?;
    for rect in bad_rects(64, 64) {
        let set = request::set_scanout(0, 1, rect);
        refused(&mut shown.session, &format!("{rect:?}"), &set)?;
    }
    shown.finish()
}

fn mirrored(trial: &mut Trial) -> Outcome {
    let mut session = displays(trial, 2)?;
    let resource = session.gpu.create_picture(1, BGRX, 90, 70)?;
    for scanout in [0, 1] {
        session.gpu.set_scanout(scanout, 1, resource.rect())?;
    }
    for seed in 0..4 {
        let raw = noise(seed, resource.len());
        session.gpu.show(&resource, &raw)?;
        let expected = Picture::of(BGRX, 90, 70, &raw);
        for scanout in [0, 1] {
            session.display().wait_picture(scanout, &expected)?;
        }
    }
    works(&mut session)
}

fn one_big(trial: &mut Trial) -> Outcome {
    let mut session = displays(trial, 2)?;
    let resource = session.gpu.create_picture(1, BGRX, 160, 120)?;
    let views = [Rect::new(0, 0, 100, 120), Rect::new(60, 20, 100, 64)];
    for (scanout, view) in views.into_iter().enumerate() {
        session.gpu.set_scanout(scanout as u32, 1, view)?;
    }
    let raw = noise(3, resource.len());
    session.gpu.show(&resource, &raw)?;
    let picture = Picture::of(BGRX, 160, 120, &raw);
    for (scanout, view) in views.into_iter().enumerate() {
        session
            .display()
            .wait_picture(scanout, &picture.crop(view))?;
    }
    works(&mut session)
}

fn off_and_on(trial: &mut Trial) -> Outcome {
    let mut shown = Shown::new(trial, 64, 64)?;
    shown.session.gpu.set_scanout(0, 0, Rect::default())?;
    let display = shown.session.display();
    display.wait_for("the scanout to be off", |state| {
        state.scanouts[0].is_none().then_some(())
    })?;
    let other = shown.session.gpu.create_picture(2, BGRX, 32, 16)?;
    shown.session.gpu.set_scanout(0, 2, other.rect())?;
    let raw = noise(9, other.len());
    shown.session.gpu.show(&other, &raw)?;
    let expected = Picture::of(BGRX, 32, 16, &raw);
    shown.session.display().wait_picture(0, &expected)?;
    works(&mut shown.session)
}

fn page_flips(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    let buffers = [
        session.gpu.create_picture(1, BGRX, 160, 100)?,
        session.gpu.create_picture(2, BGRX, 160, 100)?,
    ];
    for frame in 0..10 {
        let buffer = &buffers[frame % 2];
        let raw = noise(frame as u64, buffer.len());
        session.gpu.paint(buffer, &raw)?;
        session.gpu.set_scanout(0, buffer.id, buffer.rect())?;
        session.gpu.flush(buffer.id, buffer.rect())?;
        let expected = Picture::of(BGRX, 160, 100, &raw);
        session.display().wait_picture(0, &expected)?;
    }
    works(&mut session)
}

fn damage(trial: &mut Trial) -> Outcome {
    let mut shown = Shown::new(trial, 100, 80)?;
    let mut random = Random::new(3);
    for seed in 0..10 {
        let raw = noise(200 + seed, shown.resource.len());
        shown.session.gpu.paint(&shown.resource, &raw)?;
        let rect = random.rect(100, 80);
        shown.session.gpu.flush(1, rect)?;
        let fresh = Picture::of(BGRX, 100, 80, &raw);
        // More than the rectangle may have been brought up to date; the rectangle must be.
        let display = shown.session.display();
        display.wait_for("the flushed rectangle", |state| {
            let now = &state.scanouts[0].as_ref()?.picture;
            (now.crop(rect) == fresh.crop(rect)).then_some(())
        })?;
        shown.session.gpu.flush(1, shown.resource.rect())?;
        shown.session.display().wait_picture(0, &fresh)?;
        shown.picture = fresh;
    }
    shown.finish()
}

fn unknown_scanout(trial: &mut Trial) -> Outcome {
    let mut shown = Shown::new(trial, 64, 64)?;
    for scanout in [16, 17, 255, 0x10000, 1 << 31, u32::MAX] {
        let set = request::set_scanout(scanout, 1, shown.resource.rect());
        refused(&mut shown.session, &format!("scanout {scanout}"), &set)?;
    }
    // Scanouts between the device's number and 16 are not there either; but they do no harm.
    let count = scanouts(trial).unwrap_or(16);
    for scanout in count..16 {
        let off = request::set_scanout(scanout, 0, Rect::default());
        answered(&mut shown.session, &format!("scanout {scanout}"), &off)?;
    }
    shown.finish()
}

fn display_info(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    let response = session.gpu.call(&request::get_display_info(), 1024)?;
    whole(
        "GET_DISPLAY_INFO",
        &response,
        resp::OK_DISPLAY_INFO,
        DISPLAY_INFO,
    )?;
    let [first, others @ ..] = response.displays();
    equal("display 0", first.rect, Rect::sized(1280, 800))?;
    check(first.enabled, "display 0 is off")?;
    let on = others.iter().filter(|one| one.enabled).count();
    equal("further displays that are on", on, 0)?;
    works(&mut session)
}

fn display_info_changes(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    session.gpu.display_info()?;
    for rect in [Rect::sized(1920, 1080), Rect::new(5, 7, 333, 222)] {
        session
            .display()
            .configure(|config| config.displays[0].rect = rect);
        equal("display 0", session.gpu.display_info()?[0].rect, rect)?;
    }
    session
        .display()
        .configure(|config| config.displays[0].enabled = false);
    check(
        !session.gpu.display_info()?[0].enabled,
        "display 0 is on, although the display says off",
    )?;
    works(&mut session)
}

fn several_displays(trial: &mut Trial) -> Outcome {
    let mut session = displays(trial, 2)?;
    let told = session.gpu.display_info()?;
    for (at, one) in common::side_by_side(2).displays.iter().enumerate() {
        equal(&format!("display {at}"), told[at].rect, one.rect)?;
        check(told[at].enabled, format_args!("display {at} is off"))?;
    }
    works(&mut session)
}

fn new_mode(trial: &mut Trial) -> Outcome {
    let mut session = trial.session(&SessionOptions::default())?;
    for (id, (width, height)) in [(1, (64, 64)), (2, (128, 32)), (3, (20, 90))] {
        let resource = session.gpu.create_picture(id, BGRX, width, height)?;
        session.gpu.set_scanout(0, id, resource.rect())?;
        let raw = noise(u64::from(id), resource.len());
        session.gpu.show(&resource, &raw)?;
        let expected = Picture::of(BGRX, width, height, &raw);
        session.display().wait_picture(0, &expected)?;
    }
    let modes = session.display().with(|state| state.modes.clone());
    for mode in [(0, 64, 64), (0, 128, 32), (0, 20, 90)] {
        check(
            modes.contains(&mode),
            format_args!("{mode:?} is not in {modes:?}"),
        )?;
    }
    works(&mut session)
}

fn other_stays(trial: &mut Trial) -> Outcome {
    let mut session = displays(trial, 2)?;
    let mut pictures = Vec::new();
    for scanout in [0_u32, 1] {
        let id = scanout + 1;
        let resource = session.gpu.create_picture(id, BGRX, 64, 40)?;
        session.gpu.set_scanout(scanout, id, resource.rect())?;
        let raw = noise(u64::from(id), resource.len());
        session.gpu.show(&resource, &raw)?;
        let picture = Picture::of(BGRX, 64, 40, &raw);
        session.display().wait_picture(scanout as usize, &picture)?;
        pictures.push(picture);
    }
    session.gpu.set_scanout(0, 0, Rect::default())?;
    settle(&mut session)?;
    session.display().with(|state| {
        check(state.scanouts[0].is_none(), "scanout 0 is still on")?;
        let other = state.scanouts[1].as_ref();
        check(
            other.is_some_and(|shown| shown.picture == pictures[1]),
            "scanout 1 has changed",
        )
    })?;
    works(&mut session)
}
