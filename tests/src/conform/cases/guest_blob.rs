//! Blobs in guest memory: made, shown without a transfer, gone.

use super::kit::{self, is_error, plain, refused, shown, succeeds};
use crate::conform::case::{Case, Group, Needs, Outcome, check};
use crate::conform::trial::Trial;
use crate::frontend::memory::{PAGE, Span};
use crate::frontend::message::feature;
use crate::frontend::pixels::{FORMATS, Picture, Random, noise};
use crate::frontend::request::{
    self, BLOB_MEM_GUEST, BLOB_MEM_HOST3D, CreateBlob, MemEntry, ScanoutBlob,
};
use crate::frontend::response::HEADER;
use crate::frontend::{Rect, Session};

const BLOBS: Needs = Needs::features(feature::RESOURCE_BLOB);

/// The cases of this group.
pub(super) const CASES: &[Case] = &[
    Case {
        group: Group::GuestBlob,
        number: 1,
        name: "a blob in guest memory is made and goes, and its id is free again",
        sentences: &["gpu-blob-1", "gpu-blob-7", "gpu-2d-4"],
        needs: BLOBS,
        run: create_and_unref,
    },
    Case {
        group: Group::GuestBlob,
        number: 2,
        name: "a flush alone shows what the guest has written",
        sentences: &["gpu-blob-12", "gpu-flush-1"],
        needs: BLOBS,
        run: flush_shows,
    },
    Case {
        group: Group::GuestBlob,
        number: 3,
        name: "every format of a blob scanout shows the right pixels",
        sentences: &["gpu-blob-12", "gpu-blob-13"],
        needs: BLOBS,
        run: every_format,
    },
    Case {
        group: Group::GuestBlob,
        number: 4,
        name: "strides, offsets and parts of a blob show the right pixels",
        sentences: &["gpu-blob-12"],
        needs: BLOBS,
        run: strides_and_offsets,
    },
    Case {
        group: Group::GuestBlob,
        number: 5,
        name: "a blob in many fragments shows the right pixels",
        sentences: &["gpu-blob-12", "gpu-fb-1"],
        needs: BLOBS,
        run: fragments,
    },
    Case {
        group: Group::GuestBlob,
        number: 6,
        name: "a blob without entries gets its memory later",
        sentences: &["gpu-blob-5"],
        needs: BLOBS,
        run: backing_later,
    },
    Case {
        group: Group::GuestBlob,
        number: 7,
        name: "a blob shows its new memory after the old was detached",
        sentences: &["gpu-blob-5", "gpu-2d-7"],
        needs: BLOBS,
        run: backing_replaced,
    },
    Case {
        group: Group::GuestBlob,
        number: 8,
        name: "a scanout that reaches beyond the blob is refused, and what is shown stays",
        sentences: &["gpu-blob-12", "gpu-scanout-2", "gpu-header-3"],
        needs: BLOBS,
        run: beyond_the_blob,
    },
    Case {
        group: Group::GuestBlob,
        number: 9,
        name: "a scanout rectangle outside the picture is refused",
        sentences: &["gpu-scanout-2", "gpu-header-3"],
        needs: BLOBS,
        run: rectangle_outside,
    },
    Case {
        group: Group::GuestBlob,
        number: 10,
        name: "a scanout of a blob in no known format is refused",
        sentences: &["gpu-blob-13", "gpu-header-3"],
        needs: BLOBS,
        run: unknown_format,
    },
    Case {
        group: Group::GuestBlob,
        number: 11,
        name: "a scanout of a resource that is not there, or is no blob, is refused",
        sentences: &["gpu-blob-12", "gpu-header-3"],
        needs: BLOBS,
        run: no_blob,
    },
    Case {
        group: Group::GuestBlob,
        number: 12,
        name: "resource id 0 and ids in use are refused",
        sentences: &["gpu-blob-1", "gpu-header-3"],
        needs: BLOBS,
        run: bad_ids,
    },
    Case {
        group: Group::GuestBlob,
        number: 13,
        name: "a kind of memory that is 0 or unknown is refused",
        sentences: &["gpu-blob-2", "gpu-header-3"],
        needs: BLOBS,
        run: unknown_memory,
    },
    Case {
        group: Group::GuestBlob,
        number: 14,
        name: "host memory without VIRGL, or without a context, is refused",
        sentences: &["gpu-blob-6", "gpu-blob-8"],
        needs: BLOBS,
        run: host_memory_without_context,
    },
    Case {
        group: Group::GuestBlob,
        number: 15,
        name: "more entries claimed than sent are refused without harm",
        sentences: &["gpu-blob-3", "gpu-header-3"],
        needs: BLOBS,
        run: entries_missing,
    },
    Case {
        group: Group::GuestBlob,
        number: 16,
        name: "a blob larger than its memory is refused, or shows nothing beyond it",
        sentences: &["gpu-blob-12"],
        needs: BLOBS,
        run: larger_than_memory,
    },
    Case {
        group: Group::GuestBlob,
        number: 17,
        name: "memory outside the guest's is refused, when it is given or when it is used",
        sentences: &["gpu-header-3"],
        needs: BLOBS,
        run: memory_outside,
    },
    Case {
        group: Group::GuestBlob,
        number: 18,
        name: "a blob in guest memory is not mapped into the host visible region",
        sentences: &["gpu-map-1", "gpu-map-5", "gpu-header-3"],
        needs: BLOBS,
        run: not_mapped,
    },
    Case {
        group: Group::GuestBlob,
        number: 19,
        name: "what the guest says about mapping and sharing does not stop a blob from being made",
        sentences: &["gpu-blob-1", "gpu-blob-9"],
        needs: BLOBS,
        run: flags,
    },
    Case {
        group: Group::GuestBlob,
        number: 20,
        name: "a shown blob may go, and its scanout is free for another",
        sentences: &["gpu-2d-4", "gpu-scanout-4"],
        needs: BLOBS,
        run: unref_while_shown,
    },
    Case {
        group: Group::GuestBlob,
        number: 21,
        name: "a scanout flips between blobs, and a flush of the hidden one changes nothing",
        sentences: &["gpu-fb-3", "gpu-blob-12"],
        needs: BLOBS,
        run: flip_between_blobs,
    },
];

/// A blob of whole pages that holds `len` bytes, made of these pieces of memory.
fn blob_of(session: &mut Session, id: u32, spans: &[Span]) -> Outcome {
    let len: u64 = spans.iter().map(|span| u64::from(span.len)).sum();
    Ok(session.gpu.create_blob_guest(id, len, spans)?)
}

/// Memory for `len` bytes in whole pages.
fn memory(session: &Session, len: usize) -> Result<Span, crate::conform::Stop> {
    Ok(session.ram.alloc(len.next_multiple_of(PAGE as usize))?)
}

/// Writes bytes into a blob's memory, flushes it and waits for what must be shown.
fn flush_and_check(
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

/// Shows a blob of 100 x 100 whole, tries these instead, each to be refused, and checks that it is
/// still shown.
fn refuse_each(trial: &mut Trial, bad: impl Fn(ScanoutBlob) -> Vec<ScanoutBlob>) -> Outcome {
    let mut session = trial.start()?;
    let span = session.ram.alloc(40_960)?;
    blob_of(&mut session, 1, &[span])?;
    let good = plain(1, 100, 100);
    session.gpu.set_scanout_blob(good)?;
    for blob in bad(good) {
        let request = request::set_scanout_blob(blob);
        refused(&mut session, &format!("{blob:?}"), &request)?;
    }
    flush_and_check(&mut session, &[span], good, &noise(1, 40_000))?;
    kit::works(&mut session)
}

fn beyond_the_blob(trial: &mut Trial) -> Outcome {
    refuse_each(trial, |good| {
        let tall = Rect::sized(100, 103);
        let most = u32::MAX;
        vec![
            ScanoutBlob {
                offset: 964,
                ..good
            },
            ScanoutBlob {
                offset: most - 3,
                ..good
            },
            ScanoutBlob {
                stride: 412,
                ..good
            },
            ScanoutBlob {
                stride: most - 3,
                ..good
            },
            ScanoutBlob {
                height: 103,
                rect: tall,
                ..good
            },
            ScanoutBlob {
                width: most,
                height: most,
                rect: Rect::sized(most, most),
                ..good
            },
        ]
    })
}

fn rectangle_outside(trial: &mut Trial) -> Outcome {
    refuse_each(trial, |good| {
        let with = |rect| ScanoutBlob { rect, ..good };
        vec![
            with(Rect::new(1, 0, 100, 100)),
            with(Rect::new(0, 1, 100, 100)),
            with(Rect::new(100, 0, 1, 1)),
            with(Rect::new(u32::MAX, 0, 2, 1)),
            with(Rect::sized(u32::MAX, 1)),
        ]
    })
}

fn unknown_format(trial: &mut Trial) -> Outcome {
    refuse_each(trial, |good| {
        let formats = [0, 5, 66, 69, 135, 0x3432_5258, u32::MAX];
        formats
            .map(|format| ScanoutBlob { format, ..good })
            .to_vec()
    })
}

fn no_blob(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    session
        .gpu
        .create_picture(2, crate::frontend::pixels::BGRX, 64, 64)?;
    for resource in [2, 77, u32::MAX] {
        let request = request::set_scanout_blob(plain(resource, 64, 64));
        let what = format!("SET_SCANOUT_BLOB of resource {resource}");
        refused(&mut session, &what, &request)?;
    }
    let span = memory(&session, 4 * 64 * 64)?;
    blob_of(&mut session, 1, &[span])?;
    for scanout in [16, 17, u32::MAX] {
        let blob = ScanoutBlob {
            scanout,
            ..plain(1, 64, 64)
        };
        let request = request::set_scanout_blob(blob);
        let what = format!("SET_SCANOUT_BLOB of scanout {scanout}");
        refused(&mut session, &what, &request)?;
    }
    kit::works(&mut session)
}

/// A good request for a blob of one page.
const ONE_PAGE: CreateBlob = CreateBlob {
    resource: 1,
    mem: BLOB_MEM_GUEST,
    flags: 0,
    count: 1,
    blob_id: 0,
    size: PAGE,
};

/// Sends requests that are all to be refused, and then the good one.
fn refuse_blobs(trial: &mut Trial, bad: &[(&str, CreateBlob)]) -> Outcome {
    let mut session = trial.start()?;
    let entry = [memory(&session, 1)?.into()];
    for (what, blob) in bad {
        let entries: &[MemEntry] = if blob.count == 0 { &[] } else { &entry };
        refused(&mut session, what, &request::create_blob(*blob, entries))?;
    }
    let good = request::create_blob(ONE_PAGE, &entry);
    session.gpu.command("RESOURCE_CREATE_BLOB", &good)?;
    kit::works(&mut session)
}

fn bad_ids(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    let span = memory(&session, 1)?;
    let entry = [span.into()];
    let zero = CreateBlob {
        resource: 0,
        ..ONE_PAGE
    };
    let zero = request::create_blob(zero, &entry);
    refused(&mut session, "a blob with id 0", &zero)?;
    blob_of(&mut session, 1, &[span])?;
    session.gpu.create_2d(2, 2, 16, 16)?;
    for resource in [1, 2] {
        let taken = request::create_blob(
            CreateBlob {
                resource,
                ..ONE_PAGE
            },
            &entry,
        );
        refused(
            &mut session,
            &format!("a blob with the taken id {resource}"),
            &taken,
        )?;
    }
    let taken = request::create_2d(1, 2, 16, 16);
    refused(&mut session, "a 2D resource with the id of a blob", &taken)?;
    kit::works(&mut session)
}

fn unknown_memory(trial: &mut Trial) -> Outcome {
    refuse_blobs(
        trial,
        &[0, 4, 0x10, u32::MAX].map(|mem| {
            (
                "a blob of an unknown kind of memory",
                CreateBlob { mem, ..ONE_PAGE },
            )
        }),
    )
}

fn host_memory_without_context(trial: &mut Trial) -> Outcome {
    // The session has not accepted VIRGL.
    let host = CreateBlob {
        mem: BLOB_MEM_HOST3D,
        count: 0,
        ..ONE_PAGE
    };
    let both = CreateBlob { mem: 3, ..ONE_PAGE };
    refuse_blobs(
        trial,
        &[
            ("a blob in host memory", host),
            ("a blob in both memories", both),
        ],
    )
}

fn entries_missing(trial: &mut Trial) -> Outcome {
    let with = |count| CreateBlob { count, ..ONE_PAGE };
    refuse_blobs(
        trial,
        &[
            ("one entry of two", with(2)),
            ("one entry of 2^28", with(1 << 28)),
            ("one entry of 2^32 - 1", with(u32::MAX)),
        ],
    )
}

fn larger_than_memory(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    let entry = [memory(&session, 1)?.into()];
    for (id, size) in (1..).zip([2 * PAGE, 1 << 20, 1 << 40, u64::MAX - 4095]) {
        let blob = CreateBlob {
            resource: id,
            size,
            ..ONE_PAGE
        };
        let create = request::create_blob(blob, &entry);
        let what = format!("a blob of {size:#x} bytes in one page");
        if !succeeds(&mut session, &what, &create)? {
            continue;
        }
        // The second page of the picture is nowhere.
        let scanout = request::set_scanout_blob(plain(id, 32, 64));
        if succeeds(&mut session, "a scanout of it", &scanout)? {
            let flush = request::flush(id, Rect::sized(32, 64));
            refused(&mut session, "a flush of it", &flush)?;
        }
    }
    kit::works(&mut session)
}

fn memory_outside(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    for (id, addr) in (1..).zip([0, 0xdead_0000_0000, u64::MAX - 4095]) {
        let outside = [MemEntry {
            addr,
            len: PAGE as u32,
        }];
        let create = request::create_blob(
            CreateBlob {
                resource: id,
                ..ONE_PAGE
            },
            &outside,
        );
        if !succeeds(&mut session, "a blob outside guest memory", &create)? {
            continue;
        }
        let scanout = request::set_scanout_blob(plain(id, 32, 32));
        if succeeds(&mut session, "a scanout of it", &scanout)? {
            let flush = request::flush(id, Rect::sized(32, 32));
            refused(
                &mut session,
                &format!("a flush of memory at {addr:#x}"),
                &flush,
            )?;
        }
    }
    kit::works(&mut session)
}

fn not_mapped(trial: &mut Trial) -> Outcome {
    let mut session = trial.session(&kit::with_host_blobs())?;
    let span = memory(&session, 1)?;
    blob_of(&mut session, 1, &[span])?;
    let map = request::map_blob(1, 0);
    refused(&mut session, "RESOURCE_MAP_BLOB of guest memory", &map)?;
    let unmap = request::unmap_blob(1);
    refused(&mut session, "RESOURCE_UNMAP_BLOB of guest memory", &unmap)?;
    kit::works(&mut session)
}

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
