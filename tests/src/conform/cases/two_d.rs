//! 2D resources, backing, transfers, flushes.

use super::common::{Shown, answered, refused, settle, whole, works};
use super::two_d_bad;
use crate::conform::case::{Case, Group, Outcome, check, equal};
use crate::conform::trial::Trial;
use crate::frontend::display::kind;
use crate::frontend::memory::{PAGE, Span};
use crate::frontend::pixels::{BGRX, Picture, Random, noise};
use crate::frontend::request;
use crate::frontend::response::{HEADER, resp};
use crate::frontend::{Rect, Session};

/// Those that an honest driver may see.
const HONEST: &[Case] = &[
    Group::TwoD.case(
        1,
        "a picture that is transferred and flushed is shown, pixel by pixel",
        &[
            "gpu-2d-1",
            "gpu-2d-5",
            "gpu-2d-6",
            "gpu-fb-2",
            "gpu-scanout-1",
            "gpu-flush-1",
            "vug-10",
        ],
        picture,
    ),
    Group::TwoD.case(
        2,
        "each step of it is answered RESP_OK_NODATA in 24 bytes",
        &[
            "gpu-header-1",
            "gpu-header-2",
            "gpu-2d-1",
            "gpu-2d-4",
            "gpu-2d-7",
        ],
        bare_answers,
    ),
    Group::TwoD.case(
        3,
        "a transfer of a rectangle changes that rectangle only",
        &["gpu-2d-5", "gpu-2d-8"],
        rectangles,
    ),
    Group::TwoD.case(
        4,
        "backing in scattered pages gives the same picture",
        &["gpu-fb-1"],
        scattered_pages,
    ),
    Group::TwoD.case(
        5,
        "backing in pieces of odd lengths gives the same picture",
        &["gpu-fb-1"],
        odd_pieces,
    ),
    Group::TwoD.case(
        6,
        "sizes that are no round numbers are shown exactly",
        &["gpu-2d-1", "gpu-2d-5"],
        odd_sizes,
    ),
    Group::TwoD.case(
        7,
        "what the guest writes is not shown before it is transferred",
        &["gpu-fb-2"],
        flush_alone,
    ),
    Group::TwoD.case(
        8,
        "transfers read the backing that was attached last",
        &["gpu-2d-6", "gpu-2d-7"],
        new_backing,
    ),
    Group::TwoD.case(
        9,
        "after DETACH_BACKING the old pages are not read any more",
        &["gpu-2d-7"],
        detached,
    ),
    Group::TwoD.case(
        10,
        "an id is free again after RESOURCE_UNREF",
        &["gpu-2d-4"],
        id_again,
    ),
    Group::TwoD.case(14, "the guest may choose any id", &["gpu-2d-3"], any_id),
    Group::TwoD.case(
        17,
        "a flush of a resource on no scanout is answered OK and shows nothing",
        &["gpu-flush-1"],
        flush_unshown,
    ),
    Group::TwoD.case(
        18,
        "64 resources keep their own pixels",
        &["gpu-2d-1"],
        many,
    ),
    Group::TwoD.case(
        21,
        "a resource may be destroyed with its backing attached and its scanout on",
        &["gpu-2d-4"],
        unref_shown,
    ),
];

/// The cases of this group.
pub(super) fn cases() -> Vec<Case> {
    [HONEST, two_d_bad::CASES].concat()
}

fn picture(trial: &mut Trial) -> Outcome {
    let mut shown = Shown::on(trial.start()?, 320, 200)?;
    for seed in 2..6 {
        shown.paint(seed)?;
    }
    shown.finish()
}

fn bare_answers(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    let span = session.ram.alloc(4 * 64 * 64)?;
    let rect = Rect::sized(64, 64);
    for (name, request) in [
        ("RESOURCE_CREATE_2D", request::create_2d(1, BGRX, 64, 64)),
        (
            "RESOURCE_ATTACH_BACKING",
            request::attach_backing(1, &[span.into()]),
        ),
        ("SET_SCANOUT", request::set_scanout(0, 1, rect)),
        (
            "TRANSFER_TO_HOST_2D",
            request::transfer_to_host_2d(1, rect, 0),
        ),
        ("RESOURCE_FLUSH", request::flush(1, rect)),
        ("SET_SCANOUT", request::set_scanout(0, 0, Rect::default())),
        ("RESOURCE_DETACH_BACKING", request::detach_backing(1)),
        ("RESOURCE_UNREF", request::unref(1)),
    ] {
        let response = session.gpu.call(&request, 256)?;
        whole(name, &response, resp::OK_NODATA, HEADER)?;
        equal(&format!("{name}: flags"), response.flags(), 0)?;
    }
    works(&mut session)
}

fn rectangles(trial: &mut Trial) -> Outcome {
    let (width, height) = (100, 80);
    let mut shown = Shown::new(trial, width, height)?;
    let mut random = Random::new(7);
    for seed in 0..12 {
        let rect = random.rect(width, height);
        let raw = noise(100 + seed, shown.resource.len());
        shown
            .session
            .ram
            .scatter(&shown.resource.backing, 0, &raw)?;
        let offset = 4 * (u64::from(rect.y) * u64::from(width) + u64::from(rect.x));
        shown.session.gpu.transfer(1, rect, offset)?;
        shown.session.gpu.flush(1, shown.resource.rect())?;
        shown
            .picture
            .copy_from(&Picture::of(BGRX, width, height, &raw), rect);
        shown.session.display().wait_picture(0, &shown.picture)?;
    }
    shown.finish()
}

/// Shows noise through backing made of these pieces.
fn through(session: &mut Session, pieces: &[Span], width: u32, height: u32) -> Outcome {
    session.gpu.create_2d(1, BGRX, width, height)?;
    session.gpu.attach_backing(1, pieces)?;
    let rect = Rect::sized(width, height);
    session.gpu.set_scanout(0, 1, rect)?;
    let raw = noise(5, 4 * width as usize * height as usize);
    session.ram.scatter(pieces, 0, &raw)?;
    session.gpu.transfer(1, rect, 0)?;
    session.gpu.flush(1, rect)?;
    let expected = Picture::of(BGRX, width, height, &raw);
    session.display().wait_picture(0, &expected)?;
    works(session)
}

fn scattered_pages(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    let (width, height) = (128, 96);
    let pages = 4 * width as usize * height as usize / PAGE as usize;
    let all = session.ram.alloc(2 * pages * PAGE as usize)?;
    // Every other page, from the last to the first.
    let pieces: Vec<_> = (0..pages as u64)
        .rev()
        .map(|at| Span::new(all.addr + 2 * at * PAGE, PAGE as usize))
        .collect();
    through(&mut session, &pieces, width, height)
}

fn odd_pieces(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    let (width, height) = (50, 40);
    let mut left = 4 * width as usize * height as usize;
    let mut pieces = Vec::new();
    for len in [1, 3, 4, 7, 199, 201, 1000, 1, 64, 2].into_iter().cycle() {
        let len = len.min(left);
        let page = session.ram.alloc(2 * PAGE as usize)?;
        pieces.push(Span::new(page.addr + 5, len));
        left -= len;
        if left == 0 {
            break;
        }
    }
    through(&mut session, &pieces, width, height)
}

fn odd_sizes(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    for (at, (width, height)) in [(1, 1), (3, 5), (257, 3), (1, 300), (1023, 2)]
        .into_iter()
        .enumerate()
    {
        let id = 1 + at as u32;
        let resource = session.gpu.create_picture(id, BGRX, width, height)?;
        session.gpu.set_scanout(0, id, resource.rect())?;
        let raw = noise(u64::from(id), resource.len());
        session.gpu.show(&resource, &raw)?;
        let expected = Picture::of(BGRX, width, height, &raw);
        session.display().wait_picture(0, &expected)?;
    }
    works(&mut session)
}

fn flush_alone(trial: &mut Trial) -> Outcome {
    let mut shown = Shown::new(trial, 64, 64)?;
    let raw = noise(50, shown.resource.len());
    shown
        .session
        .ram
        .scatter(&shown.resource.backing, 0, &raw)?;
    shown.session.gpu.flush(1, shown.resource.rect())?;
    shown.finish()
}

fn new_backing(trial: &mut Trial) -> Outcome {
    let mut shown = Shown::new(trial, 64, 64)?;
    let old = shown.resource.backing.clone();
    shown.session.gpu.detach_backing(1)?;
    let fresh = vec![shown.session.ram.alloc(shown.resource.len())?];
    shown.session.gpu.attach_backing(1, &fresh)?;
    shown
        .session
        .ram
        .scatter(&old, 0, &noise(51, shown.resource.len()))?;
    shown.resource.backing = fresh;
    shown.paint(52)?;
    shown.finish()
}

fn detached(trial: &mut Trial) -> Outcome {
    let mut shown = Shown::new(trial, 64, 64)?;
    shown.session.gpu.detach_backing(1)?;
    let raw = noise(53, shown.resource.len());
    shown
        .session
        .ram
        .scatter(&shown.resource.backing, 0, &raw)?;
    // An error, or nothing to do: the specification leaves that open.
    let transfer = request::transfer_to_host_2d(1, shown.resource.rect(), 0);
    answered(&mut shown.session, "a transfer without backing", &transfer)?;
    shown.session.gpu.flush(1, shown.resource.rect())?;
    shown.still()?;
    shown
        .session
        .gpu
        .attach_backing(1, &shown.resource.backing)?;
    shown.finish()
}

fn id_again(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    session.gpu.create_2d(1, BGRX, 16, 16)?;
    session.gpu.unref(1)?;
    refused(&mut session, "a second RESOURCE_UNREF", &request::unref(1))?;
    Shown::on(session, 80, 60)?.finish()
}

fn any_id(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    for id in [1, 2, 0x10000, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
        let resource = session.gpu.create_picture(id, BGRX, 16, 16)?;
        session.gpu.set_scanout(0, id, resource.rect())?;
        let raw = noise(u64::from(id), resource.len());
        session.gpu.show(&resource, &raw)?;
        let expected = Picture::of(BGRX, 16, 16, &raw);
        session.display().wait_picture(0, &expected)?;
    }
    works(&mut session)
}

fn flush_unshown(trial: &mut Trial) -> Outcome {
    let mut shown = Shown::new(trial, 64, 64)?;
    let hidden = shown.session.gpu.create_picture(2, BGRX, 64, 64)?;
    settle(&mut shown.session)?;
    let before = shown.session.display().count(kind::UPDATE);
    let raw = noise(55, hidden.len());
    shown.session.gpu.show(&hidden, &raw)?;
    shown.still()?;
    let after = shown.session.display().count(kind::UPDATE);
    equal("updates of the display", after, before)?;
    shown.finish()
}

fn many(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    let mut all = Vec::new();
    for id in 1..=64 {
        let resource = session.gpu.create_picture(id, BGRX, 20, 10)?;
        let raw = noise(u64::from(id), resource.len());
        session.gpu.paint(&resource, &raw)?;
        all.push((id, Picture::of(BGRX, 20, 10, &raw)));
    }
    for (id, picture) in all {
        let rect = Rect::sized(20, 10);
        session.gpu.set_scanout(0, id, rect)?;
        session.gpu.flush(id, rect)?;
        session.display().wait_picture(0, &picture)?;
    }
    works(&mut session)
}

fn unref_shown(trial: &mut Trial) -> Outcome {
    let mut shown = Shown::new(trial, 64, 64)?;
    shown.session.gpu.unref(1)?;
    let flush = request::flush(1, shown.resource.rect());
    refused(
        &mut shown.session,
        "RESOURCE_FLUSH of what was destroyed",
        &flush,
    )?;
    let alive = shown.session.gpu.display_info()?;
    check(alive[0].enabled, "the display is off")?;
    Shown::on(shown.session, 48, 48)?.finish()
}
