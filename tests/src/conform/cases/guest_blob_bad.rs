//! Blobs in guest memory that cannot be, or cannot be shown.

use super::common::settle;
use super::guest_blob::{BLOBS, ONE_PAGE, blob_of, flush_and_check, memory};
use super::kit::{self, plain, refused, succeeds};
use crate::conform::case::{Case, Group, Outcome, check};
use crate::conform::trial::Trial;
use crate::frontend::Rect;
use crate::frontend::memory::{PAGE, Span};
use crate::frontend::pixels::{BGRX, Picture, noise};
use crate::frontend::request::{self, BLOB_MEM_HOST3D, CreateBlob, MemEntry, ScanoutBlob};

/// The cases of this group.
pub(super) const CASES: &[Case] = &[
    Group::GuestBlob.case_needing(
        BLOBS,
        8,
        "a scanout that reaches beyond the blob is refused, and what is shown stays",
        &["gpu-blob-12", "gpu-scanout-2", "gpu-header-3"],
        beyond_the_blob,
    ),
    Group::GuestBlob.case_needing(
        BLOBS,
        9,
        "a scanout rectangle outside the picture is refused",
        &["gpu-scanout-2", "gpu-header-3"],
        rectangle_outside,
    ),
    Group::GuestBlob.case_needing(
        BLOBS,
        10,
        "a scanout of a blob in no known format is refused",
        &["gpu-blob-13", "gpu-header-3"],
        unknown_format,
    ),
    Group::GuestBlob.case_needing(
        BLOBS,
        11,
        "a scanout of a resource that is not there, or is no blob, is refused",
        &["gpu-blob-12", "gpu-header-3"],
        no_blob,
    ),
    Group::GuestBlob.case_needing(
        BLOBS,
        12,
        "resource id 0 and ids in use are refused",
        &["gpu-blob-1", "gpu-header-3"],
        bad_ids,
    ),
    Group::GuestBlob.case_needing(
        BLOBS,
        13,
        "a kind of memory that is 0 or unknown is refused",
        &["gpu-blob-2", "gpu-header-3"],
        unknown_memory,
    ),
    Group::GuestBlob.case_needing(
        BLOBS,
        14,
        "host memory without VIRGL, or without a context, is refused",
        &["gpu-blob-6", "gpu-blob-8"],
        host_memory_without_context,
    ),
    Group::GuestBlob.case_needing(
        BLOBS,
        15,
        "more entries claimed than sent are refused without harm",
        &["gpu-blob-3", "gpu-header-3"],
        entries_missing,
    ),
    Group::GuestBlob.case_needing(
        BLOBS,
        16,
        "a blob larger than its memory is refused, or shows nothing beyond it",
        &["gpu-blob-12"],
        larger_than_memory,
    ),
    Group::GuestBlob.case_needing(
        BLOBS,
        17,
        "memory outside the guest's is refused, when it is given or when it is used",
        &["gpu-header-3"],
        memory_outside,
    ),
    Group::GuestBlob.case_needing(
        BLOBS,
        18,
        "a blob in guest memory is not mapped into the host visible region",
        &["gpu-map-1", "gpu-map-5", "gpu-header-3"],
        not_mapped,
    ),
];

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
    session.gpu.create_picture(2, BGRX, 64, 64)?;
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
    let pages = memory(&session, 2)?;
    // What lies behind the blob's page belongs to nobody, and must not be seen.
    let secret = noise(66, PAGE as usize);
    session.ram.write(pages.addr + PAGE, &secret)?;
    let entry = [Span::new(pages.addr, PAGE as usize).into()];
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
            succeeds(&mut session, "a flush of it", &flush)?;
            settle(&mut session)?;
            let secret = Picture::of(BGRX, 32, 32, &secret);
            let seen = session.display().with(|state| {
                let scanout = state.scanouts[0].as_ref();
                let lower = scanout.map(|scanout| scanout.picture.crop(Rect::new(0, 32, 32, 32)));
                lower.is_some_and(|lower| lower == secret)
            });
            check(!seen, format_args!("{what} shows what lies behind it"))?;
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
