//! 2D commands with ids, rectangles, offsets and backing that are not there.

use super::common::{Shown, answered, bad_rects, refused};
use crate::conform::case::{Case, Group, Outcome, Stop};
use crate::conform::trial::Trial;
use crate::frontend::memory::PAGE;
use crate::frontend::pixels::{BGRX, noise};
use crate::frontend::request::{self, MemEntry, RequestBytes};
use crate::frontend::response::resp;
use crate::frontend::{Error, Rect, Session};

/// These cases; they have numbers between those of [`super::two_d`].
pub(super) const CASES: &[Case] = &[
    Group::TwoD.case(
        11,
        "commands for a resource that is not there are answered with an error",
        &["gpu-header-3"],
        unknown_ids,
    ),
    Group::TwoD.case(
        12,
        "resource id 0 is no resource",
        &["gpu-header-3"],
        id_zero,
    ),
    Group::TwoD.case(
        13,
        "an id in use is refused, and its resource keeps its pixels",
        &["gpu-header-3"],
        id_in_use,
    ),
    Group::TwoD.case(
        15,
        "a transfer outside the resource is refused and changes nothing",
        &["gpu-header-3"],
        transfer_outside,
    ),
    Group::TwoD.case(
        16,
        "a flush outside the resource reaches nothing outside the scanout",
        &[],
        flush_outside,
    ),
    Group::TwoD.case(
        19,
        "an offset beyond the backing brings nothing into the resource",
        &["gpu-2d-5"],
        offset_beyond,
    ),
    Group::TwoD.case(
        20,
        "backing outside guest memory is never read",
        &[],
        backing_outside,
    ),
];

/// Commands that need a resource of this id.
fn needing(session: &Session, id: u32) -> Result<Vec<(&'static str, RequestBytes)>, Error> {
    let rect = Rect::sized(8, 8);
    let span = session.ram.alloc(4096)?;
    Ok(vec![
        ("RESOURCE_UNREF", request::unref(id)),
        ("RESOURCE_FLUSH", request::flush(id, rect)),
        (
            "TRANSFER_TO_HOST_2D",
            request::transfer_to_host_2d(id, rect, 0),
        ),
        (
            "RESOURCE_ATTACH_BACKING",
            request::attach_backing(id, &[span.into()]),
        ),
        ("RESOURCE_DETACH_BACKING", request::detach_backing(id)),
    ])
}

fn unknown_ids(trial: &mut Trial) -> Outcome {
    let mut shown = Shown::new(trial, 64, 64)?;
    for id in [2, 0x7fff_ffff, u32::MAX] {
        let mut requests = needing(&shown.session, id)?;
        requests.push((
            "SET_SCANOUT",
            request::set_scanout(0, id, Rect::sized(8, 8)),
        ));
        for (name, request) in requests {
            refused(
                &mut shown.session,
                &format!("{name} of resource {id}"),
                &request,
            )?;
        }
    }
    shown.finish()
}

fn id_zero(trial: &mut Trial) -> Outcome {
    let mut shown = Shown::new(trial, 64, 64)?;
    let create = request::create_2d(0, BGRX, 8, 8);
    refused(
        &mut shown.session,
        "RESOURCE_CREATE_2D of resource 0",
        &create,
    )?;
    for (name, request) in needing(&shown.session, 0)? {
        refused(
            &mut shown.session,
            &format!("{name} of resource 0"),
            &request,
        )?;
    }
    shown.finish()
}

fn id_in_use(trial: &mut Trial) -> Outcome {
    let mut shown = Shown::new(trial, 64, 64)?;
    let again = request::create_2d(1, BGRX, 8, 8);
    refused(
        &mut shown.session,
        "RESOURCE_CREATE_2D of an id in use",
        &again,
    )?;
    shown.session.gpu.flush(1, shown.resource.rect())?;
    shown.finish()
}

fn transfer_outside(trial: &mut Trial) -> Outcome {
    let mut shown = Shown::new(trial, 64, 64)?;
    let raw = noise(54, shown.resource.len());
    shown
        .session
        .ram
        .scatter(&shown.resource.backing, 0, &raw)?;
    for rect in bad_rects(64, 64) {
        let transfer = request::transfer_to_host_2d(1, rect, 0);
        refused(&mut shown.session, &format!("{rect:?}"), &transfer)?;
    }
    shown.session.gpu.flush(1, shown.resource.rect())?;
    shown.finish()
}

fn flush_outside(trial: &mut Trial) -> Outcome {
    let mut shown = Shown::new(trial, 64, 64)?;
    for rect in bad_rects(64, 64) {
        let flush = request::flush(1, rect);
        answered(&mut shown.session, &format!("{rect:?}"), &flush)?;
    }
    shown.finish()
}

fn offset_beyond(trial: &mut Trial) -> Outcome {
    let mut shown = Shown::new(trial, 64, 64)?;
    let raw = noise(56, shown.resource.len());
    shown
        .session
        .ram
        .scatter(&shown.resource.backing, 0, &raw)?;
    let len = shown.resource.len() as u64;
    for offset in [len, len + 4, 1 << 31, 1 << 32, u64::MAX - 3, u64::MAX] {
        let transfer = request::transfer_to_host_2d(1, shown.resource.rect(), offset);
        let what = format!("offset {offset:#x}");
        answered(&mut shown.session, &what, &transfer)?;
        shown.session.gpu.flush(1, shown.resource.rect())?;
        let still = shown.still();
        still.map_err(|_| Stop::fail(format_args!("{what}: pixels of elsewhere came")))?;
    }
    shown.finish()
}

fn backing_outside(trial: &mut Trial) -> Outcome {
    let mut shown = Shown::new(trial, 64, 64)?;
    shown.session.gpu.create_2d(2, BGRX, 64, 64)?;
    let good = shown.session.ram.alloc(PAGE as usize)?;
    for (addr, len) in [
        (0, 64 * 64 * 4),
        (u64::MAX, 1),
        (u64::MAX - 4095, 4096),
        (1 << 63, 64 * 64 * 4),
        (u64::MAX, u32::MAX),
        (0x10_0000, u32::MAX),
    ] {
        let entries = [MemEntry::from(good), MemEntry { addr, len }];
        let attach = request::attach_backing(2, &entries);
        let what = format!("backing of {len} bytes at {addr:#x}");
        let kind = answered(&mut shown.session, &what, &attach)?;
        let transfer = request::transfer_to_host_2d(2, Rect::sized(64, 64), 0);
        answered(
            &mut shown.session,
            &format!("{what}, transferred"),
            &transfer,
        )?;
        if kind == resp::OK_NODATA {
            shown.session.gpu.detach_backing(2)?;
        }
    }
    shown.finish()
}
