//! Blobs in guest memory: made, shown without a transfer, gone.

use super::kit::{self, is_error, plain, refused, shown, succeeds};
use crate::conform::case::{Case, Group, Needs, Outcome, check};
use crate::conform::trial::Trial;
use crate::frontend::memory::{PAGE, Span};
use crate::frontend::message::feature;
use crate::frontend::pixels::{FORMATS, Picture, Random, noise};
use crate::frontend::request::{self, BLOB_MEM_GUEST, CreateBlob, ScanoutBlob};
use crate::frontend::response::HEADER;
use crate::frontend::{Rect, Session};

pub(super) const BLOBS: Needs = Needs::features(feature::RESOURCE_BLOB);

/// The cases of this group.
pub(super) const CASES: &[Case] = &[
    Group::GuestBlob.case_needing(
        BLOBS,
        1,
        "a blob in guest memory is made and goes, and its id is free again",
        &["gpu-blob-1", "gpu-blob-7", "gpu-2d-4"],
        create_and_unref,
    ),
    Group::GuestBlob.case_needing(
        BLOBS,
        2,
        "a flush alone shows what the guest has written",
        &["gpu-blob-12", "gpu-flush-1"],
        flush_shows,
    ),
    Group::GuestBlob.case_needing(
        BLOBS,
        3,
        "every format of a blob scanout shows the right pixels",
        &["gpu-blob-12", "gpu-blob-13"],
        every_format,
    ),
    Group::GuestBlob.case_needing(
        BLOBS,
        4,
        "strides, offsets and parts of a blob show the right pixels",
        &["gpu-blob-12"],
        strides_and_offsets,
    ),
    Group::GuestBlob.case_needing(
        BLOBS,
        5,
        "a blob in many fragments shows the right pixels",
        &["gpu-blob-12", "gpu-fb-1"],
        fragments,
    ),
    Group::GuestBlob.case_needing(
        BLOBS,
        6,
        "a blob without entries gets its memory later",
        &["gpu-blob-5"],
        backing_later,
    ),
    Group::GuestBlob.case_needing(
        BLOBS,
        7,
        "a blob shows its new memory after the old was detached",
        &["gpu-blob-5", "gpu-2d-7"],
        backing_replaced,
    ),
    Group::GuestBlob.case_needing(
        BLOBS,
        19,
        "what the guest says about mapping and sharing does not stop a blob from being made",
        &["gpu-blob-1", "gpu-blob-9"],
        flags,
    ),
    Group::GuestBlob.case_needing(
        BLOBS,
        20,
        "a shown blob may go, and its scanout is free for another",
        &["gpu-2d-4", "gpu-scanout-4"],
        unref_while_shown,
    ),
    Group::GuestBlob.case_needing(
        BLOBS,
        21,
        "a scanout flips between blobs, and a flush of the hidden one changes nothing",
        &["gpu-fb-3", "gpu-blob-12"],
        flip_between_blobs,
    ),
];

/// A blob of whole pages that holds `len` bytes, made of these pieces of memory.
pub(super) fn blob_of(session: &mut Session, id: u32, spans: &[Span]) -> Outcome {
    let len: u64 = spans.iter().map(|span| u64::from(span.len)).sum();
    Ok(session.gpu.create_blob_guest(id, len, spans)?)
}

/// Memory for `len` bytes in whole pages.
pub(super) fn memory(session: &Session, len: usize) -> Result<Span, crate::conform::Stop> {
    Ok(session.ram.alloc(len.next_multiple_of(PAGE as usize))?)
}

/// Writes bytes into a blob's memory, flushes it and waits for what must be shown.
pub(super) fn flush_and_check(
    session: &mut Session,
    spans: &[Span],
    blob: ScanoutBlob,
    bytes: &[u8],
) -> Outcome {
    session.ram.scatter(spans, 0, bytes)?;
    session
        .gpu
        .flush(blob.resource, Rect::sized(blob.width, blob.height))?;
    let expected = shown(bytes, blob);
    Ok(session
        .display()
        .wait_picture(blob.scanout as usize, &expected)?)
}

fn create_and_unref(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    let span = memory(&session, 1)?;
    for id in [1, u32::MAX, 1] {
        blob_of(&mut session, id, &[span])?;
        session.gpu.unref(id)?;
        refused(&mut session, "RESOURCE_UNREF again", &request::unref(id))?;
    }
    kit::works(&mut session)
}

fn flush_shows(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    let blob = plain(1, 100, 60);
    let span = memory(&session, 24_000)?;
    blob_of(&mut session, 1, &[span])?;
    session.gpu.set_scanout_blob(blob)?;
    for frame in 0..4 {
        flush_and_check(&mut session, &[span], blob, &noise(frame, 24_000))?;
    }
    kit::works(&mut session)
}

fn every_format(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    let span = memory(&session, 4 * 64 * 32)?;
    blob_of(&mut session, 1, &[span])?;
    for (format, ..) in FORMATS {
        let blob = ScanoutBlob {
            format,
            ..plain(1, 64, 32)
        };
        session.gpu.set_scanout_blob(blob)?;
        let bytes = noise(u64::from(format), 4 * 64 * 32);
        flush_and_check(&mut session, &[span], blob, &bytes)?;
    }
    kit::works(&mut session)
}

/// A random layout of a small picture in a blob, and the bytes that it needs.
fn layout(random: &mut Random, resource: u32) -> (ScanoutBlob, usize) {
    let (width, height) = (random.within(1, 90) as u32, random.within(1, 60) as u32);
    let stride = 4 * (width + random.within(0, 70) as u32);
    let offset = 4 * random.within(0, 2000) as u32;
    let blob = ScanoutBlob {
        rect: random.rect(width, height),
        stride,
        offset,
        ..plain(resource, width, height)
    };
    let rows = (height as usize - 1) * stride as usize;
    (blob, offset as usize + rows + 4 * width as usize)
}

fn strides_and_offsets(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    let mut random = Random::new(7);
    for resource in 1..=10 {
        let (blob, len) = layout(&mut random, resource);
        let span = memory(&session, len)?;
        blob_of(&mut session, resource, &[span])?;
        session.gpu.set_scanout_blob(blob)?;
        let bytes = noise(u64::from(resource), span.len as usize);
        flush_and_check(&mut session, &[span], blob, &bytes)?;
    }
    kit::works(&mut session)
}

fn fragments(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    let mut random = Random::new(11);
    for resource in 1..=5 {
        let (blob, len) = layout(&mut random, resource);
        let len = len.next_multiple_of(PAGE as usize);
        let lengths: Vec<usize> = (0..4).map(|_| random.within(200, 5000) as usize).collect();
        let spans = session.ram.alloc_fragments(len, &lengths)?;
        blob_of(&mut session, resource, &spans)?;
        session.gpu.set_scanout_blob(blob)?;
        let bytes = noise(u64::from(resource), len);
        flush_and_check(&mut session, &spans, blob, &bytes)?;
    }
    kit::works(&mut session)
}

fn backing_later(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    let span = memory(&session, 4 * 64 * 64)?;
    session.gpu.create_blob_guest(1, u64::from(span.len), &[])?;
    session.gpu.attach_backing(1, &[span])?;
    let blob = plain(1, 64, 64);
    session.gpu.set_scanout_blob(blob)?;
    flush_and_check(&mut session, &[span], blob, &noise(3, 4 * 64 * 64))?;
    kit::works(&mut session)
}

fn backing_replaced(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    let blob = plain(1, 64, 64);
    let old = memory(&session, 4 * 64 * 64)?;
    blob_of(&mut session, 1, &[old])?;
    session.gpu.set_scanout_blob(blob)?;
    flush_and_check(&mut session, &[old], blob, &noise(1, 4 * 64 * 64))?;
    session.gpu.detach_backing(1)?;
    // There is nothing to show: either answer will do.
    let flush = request::flush(1, blob.rect);
    succeeds(&mut session, "RESOURCE_FLUSH without memory", &flush)?;
    let new = memory(&session, 4 * 64 * 64)?;
    session.gpu.attach_backing(1, &[new])?;
    flush_and_check(&mut session, &[new], blob, &noise(2, 4 * 64 * 64))?;
    kit::works(&mut session)
}

/// A good request for a blob of one page.
pub(super) const ONE_PAGE: CreateBlob = CreateBlob {
    resource: 1,
    mem: BLOB_MEM_GUEST,
    flags: 0,
    count: 1,
    blob_id: 0,
    size: PAGE,
};

fn flags(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    let entry = [memory(&session, 1)?.into()];
    for flags in 0..4 {
        let blob = CreateBlob {
            resource: 1 + flags,
            flags,
            ..ONE_PAGE
        };
        let create = request::create_blob(blob, &entry);
        session
            .gpu
            .command(&format!("RESOURCE_CREATE_BLOB with flags {flags}"), &create)?;
    }
    // A device may refuse to share with other devices.
    let blob = CreateBlob {
        resource: 9,
        flags: 4,
        ..ONE_PAGE
    };
    let create = request::create_blob(blob, &entry);
    let answer = session.gpu.call(&create, HEADER)?;
    check(
        is_error(answer.kind()) || answer.kind() == crate::frontend::response::resp::OK_NODATA,
        format_args!("flags 4: answered {:#06x}", answer.kind()),
    )?;
    kit::works(&mut session)
}

fn unref_while_shown(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    let span = memory(&session, 4 * 64 * 64)?;
    for id in [1, 2, 1] {
        blob_of(&mut session, id, &[span])?;
        let blob = plain(id, 64, 64);
        session.gpu.set_scanout_blob(blob)?;
        flush_and_check(
            &mut session,
            &[span],
            blob,
            &noise(u64::from(id), 4 * 64 * 64),
        )?;
        session.gpu.unref(id)?;
        refused(
            &mut session,
            "a flush of it",
            &request::flush(id, blob.rect),
        )?;
    }
    let off = request::set_scanout(0, 0, Rect::default());
    session.gpu.command("SET_SCANOUT (off)", &off)?;
    kit::works(&mut session)
}

fn flip_between_blobs(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    let mut blobs = Vec::new();
    for id in [1, 2] {
        let span = memory(&session, 4 * 64 * 64)?;
        blob_of(&mut session, id, &[span])?;
        blobs.push((plain(id, 64, 64), span));
    }
    for round in 0..6 {
        let (blob, span) = blobs[round % 2];
        let (hidden, other) = blobs[(round + 1) % 2];
        session.gpu.set_scanout_blob(blob)?;
        flush_and_check(
            &mut session,
            &[span],
            blob,
            &noise(round as u64, 4 * 64 * 64),
        )?;
        // A flush of the blob that is not shown changes nothing.
        session.ram.write(other.addr, &noise(99, 4 * 64 * 64))?;
        session.gpu.flush(hidden.resource, hidden.rect)?;
        let expected: Picture = shown(&noise(round as u64, 4 * 64 * 64), blob);
        session.display().wait_picture(0, &expected)?;
    }
    kit::works(&mut session)
}
