//! Blobs in guest memory: shown with any stride and offset, flushed without a transfer.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::cast_lossless,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "test code: a broken expectation is to stop the test loudly"
)]

use nosnoop_tests::frontend::memory::Span;
use nosnoop_tests::frontend::pixels::{BGRX, FORMATS, Picture, Random, noise};
use nosnoop_tests::frontend::request::{
    self, BLOB_MEM_GUEST, BLOB_MEM_HOST3D, CreateBlob, ScanoutBlob,
};
use nosnoop_tests::frontend::response::resp;
use nosnoop_tests::frontend::{Rect, Result, Rig};

/// The picture of a blob scanout, read straight from its bytes.
fn shown(bytes: &[u8], blob: ScanoutBlob) -> Picture {
    let rect = blob.rect;
    let raw: Vec<u8> = (rect.y..rect.y + rect.height)
        .flat_map(|y| {
            let start =
                blob.offset as usize + y as usize * blob.stride as usize + 4 * rect.x as usize;
            bytes[start..start + 4 * rect.width as usize].to_vec()
        })
        .collect();
    Picture::of(blob.format, rect.width, rect.height, &raw)
}

fn plain(resource: u32, width: u32, height: u32) -> ScanoutBlob {
    let rect = Rect::sized(width, height);
    ScanoutBlob {
        scanout: 0,
        resource,
        rect,
        width,
        height,
        format: BGRX,
        stride: 4 * width,
        offset: 0,
    }
}

#[test]
fn a_flush_alone_shows_what_the_guest_has_written() -> Result<()> {
    let mut rig = Rig::new()?;
    let blob = plain(1, 100, 60);
    let span = rig.ram.alloc(24_000)?;
    rig.gpu.create_blob_guest(1, 24_000, &[span])?;
    rig.gpu.set_scanout_blob(blob)?;
    for frame in 0..5 {
        let bytes = noise(frame, 24_000);
        rig.ram.write(span.addr, &bytes)?;
        rig.gpu.flush(1, blob.rect)?;
        rig.display().wait_picture(0, &shown(&bytes, blob))?;
    }
    rig.finish()
}

#[test]
fn any_stride_offset_format_and_part_shows_the_right_pixels() -> Result<()> {
    let mut rig = Rig::new()?;
    for seed in 0..24 {
        let mut random = Random::new(seed);
        let (width, height) = (random.within(1, 120) as u32, random.within(1, 80) as u32);
        let stride = 4 * width + random.within(0, 300) as u32;
        let offset = random.within(0, 9000) as u32;
        let (format, ..) = FORMATS[random.within(0, 7) as usize];
        let len = offset as usize + (height as usize - 1) * stride as usize + 4 * width as usize;
        let lengths: Vec<usize> = (0..4).map(|_| random.within(1, 5000) as usize).collect();
        let spans = rig.ram.alloc_fragments(len, &lengths)?;
        let bytes = noise(seed, len);
        rig.ram.scatter(&spans, 0, &bytes)?;
        let resource = 1 + seed as u32;
        rig.gpu.create_blob_guest(resource, len as u64, &spans)?;
        let rect = if seed % 3 == 0 {
            Rect::sized(width, height)
        } else {
            random.rect(width, height)
        };
        let blob = ScanoutBlob {
            scanout: 0,
            resource,
            rect,
            width,
            height,
            format,
            stride,
            offset,
        };
        rig.gpu.set_scanout_blob(blob)?;
        rig.gpu.flush(resource, Rect::sized(width, height))?;
        rig.display()
            .wait_picture(0, &shown(&bytes, blob))
            .unwrap_or_else(|e| panic!("seed {seed}, {blob:?}: {e}"));
    }
    rig.finish()
}

#[test]
fn a_blob_scanout_that_would_read_beyond_the_blob_is_refused() -> Result<()> {
    let mut rig = Rig::new()?;
    let span = rig.ram.alloc(40_000)?;
    rig.gpu.create_blob_guest(1, 40_000, &[span])?;
    let good = plain(1, 100, 100);
    rig.gpu.set_scanout_blob(good)?;
    let bad = [
        ScanoutBlob { offset: 1, ..good },
        ScanoutBlob {
            offset: u32::MAX,
            ..good
        },
        ScanoutBlob {
            stride: 401,
            ..good
        },
        ScanoutBlob {
            stride: u32::MAX,
            ..good
        },
        ScanoutBlob { stride: 0, ..good },
        ScanoutBlob {
            stride: 399,
            ..good
        },
        ScanoutBlob {
            height: 101,
            rect: Rect::sized(100, 101),
            ..good
        },
        ScanoutBlob {
            rect: Rect::new(1, 0, 100, 100),
            ..good
        },
        ScanoutBlob {
            rect: Rect::new(u32::MAX, 0, 2, 1),
            ..good
        },
        ScanoutBlob {
            rect: Rect::new(0, 0, 0, 100),
            ..good
        },
        ScanoutBlob { format: 0, ..good },
        ScanoutBlob { format: 5, ..good },
        ScanoutBlob {
            format: u32::MAX,
            ..good
        },
        ScanoutBlob {
            width: u32::MAX,
            height: u32::MAX,
            rect: Rect::sized(u32::MAX, u32::MAX),
            ..good
        },
    ];
    for blob in bad {
        let answer = rig.gpu.answer(&request::set_scanout_blob(blob))?;
        assert_eq!(answer, resp::ERR_INVALID_PARAMETER, "{blob:?}");
    }
    let none = ScanoutBlob {
        resource: 77,
        ..good
    };
    assert_eq!(
        rig.gpu.answer(&request::set_scanout_blob(none))?,
        resp::ERR_INVALID_RESOURCE_ID
    );
    let nowhere = ScanoutBlob {
        scanout: 16,
        ..good
    };
    assert_eq!(
        rig.gpu.answer(&request::set_scanout_blob(nowhere))?,
        resp::ERR_INVALID_SCANOUT_ID
    );
    // All this has not disturbed what is shown.
    let bytes = noise(3, 40_000);
    rig.ram.write(span.addr, &bytes)?;
    rig.gpu.flush(1, good.rect)?;
    rig.display().wait_picture(0, &shown(&bytes, good))?;
    rig.finish()
}

#[test]
fn bad_create_blob_requests_get_their_errors() -> Result<()> {
    let mut rig = Rig::new()?;
    let span = rig.ram.alloc(8192)?;
    let entry = [span.into()];
    let good = CreateBlob {
        resource: 1,
        mem: BLOB_MEM_GUEST,
        flags: 0,
        count: 1,
        blob_id: 0,
        size: 8192,
    };
    let cases = [
        (
            CreateBlob {
                resource: 0,
                ..good
            },
            resp::ERR_INVALID_RESOURCE_ID,
        ),
        (CreateBlob { size: 0, ..good }, resp::ERR_INVALID_PARAMETER),
        (
            CreateBlob { size: 8193, ..good },
            resp::ERR_INVALID_PARAMETER,
        ),
        (
            CreateBlob {
                size: u64::MAX,
                ..good
            },
            resp::ERR_INVALID_PARAMETER,
        ),
        (CreateBlob { mem: 0, ..good }, resp::ERR_INVALID_PARAMETER),
        (CreateBlob { mem: 4, ..good }, resp::ERR_INVALID_PARAMETER),
        (
            CreateBlob {
                mem: BLOB_MEM_HOST3D,
                count: 0,
                ..good
            },
            // It has no context to come from.
            resp::ERR_INVALID_CONTEXT_ID,
        ),
        (CreateBlob { flags: 8, ..good }, resp::ERR_INVALID_PARAMETER),
        (CreateBlob { count: 2, ..good }, resp::ERR_UNSPEC),
        (
            CreateBlob {
                count: u32::MAX,
                ..good
            },
            resp::ERR_UNSPEC,
        ),
    ];
    for (blob, expected) in cases {
        let entries: &[_] = if blob.count == 0 { &[] } else { &entry };
        assert_eq!(
            rig.gpu.answer(&request::create_blob(blob, entries))?,
            expected,
            "{blob:?}"
        );
    }
    let outside = [Span {
        addr: 0xdead_0000_0000,
        len: 8192,
    }
    .into()];
    assert_eq!(
        rig.gpu.answer(&request::create_blob(good, &outside))?,
        resp::ERR_UNSPEC
    );
    rig.gpu
        .command("RESOURCE_CREATE_BLOB", &request::create_blob(good, &entry))?;
    let again = rig.gpu.answer(&request::create_blob(good, &entry))?;
    assert_eq!(again, resp::ERR_INVALID_RESOURCE_ID);
    rig.finish()
}

#[test]
fn every_blob_flag_linux_uses_is_accepted_for_guest_memory() -> Result<()> {
    let mut rig = Rig::new()?;
    let span = rig.ram.alloc(4096)?;
    for flags in 0..8 {
        let mem = BLOB_MEM_GUEST;
        let blob = CreateBlob {
            resource: 1 + flags,
            mem,
            flags,
            count: 1,
            blob_id: 0,
            size: 4096,
        };
        rig.gpu.command(
            "RESOURCE_CREATE_BLOB",
            &request::create_blob(blob, &[span.into()]),
        )?;
    }
    rig.finish()
}

#[test]
fn a_blob_whose_memory_was_removed_fails_to_flush_and_nothing_else() -> Result<()> {
    let mut rig = Rig::new()?;
    let extra = 0x30_0000_0000;
    let (region, fd) = rig.ram.add_region(extra, 1 << 20)?;
    rig.vhost
        .add_mem_region(region, std::os::fd::AsFd::as_fd(&fd))?;
    let span = rig.ram.alloc_above(40_000, extra)?;
    rig.gpu.create_blob_guest(1, 40_000, &[span])?;
    let blob = plain(1, 100, 100);
    rig.gpu.set_scanout_blob(blob)?;
    rig.gpu.flush(1, blob.rect)?;
    let region = rig.ram.remove_region(extra)?;
    rig.vhost.remove_mem_region(region)?;
    assert_eq!(
        rig.gpu.answer(&request::flush(1, blob.rect))?,
        resp::ERR_UNSPEC
    );
    rig.gpu.unref(1)?;
    rig.finish()
}

#[test]
fn a_detached_blob_fails_to_flush_until_it_has_memory_again() -> Result<()> {
    let mut rig = Rig::new()?;
    let span = rig.ram.alloc(40_000)?;
    let blob = plain(1, 100, 100);
    rig.gpu.create_blob_guest(1, 40_000, &[span])?;
    rig.gpu.set_scanout_blob(blob)?;
    rig.gpu.detach_backing(1)?;
    assert_eq!(
        rig.gpu.answer(&request::flush(1, blob.rect))?,
        resp::ERR_UNSPEC
    );
    rig.gpu.attach_backing(1, &[span])?;
    let bytes = noise(1, 40_000);
    rig.ram.write(span.addr, &bytes)?;
    rig.gpu.flush(1, blob.rect)?;
    rig.display().wait_picture(0, &shown(&bytes, blob))?;
    rig.finish()
}

#[test]
fn where_the_driver_knows_the_alignment_blobs_are_whole_pages() -> Result<()> {
    let mut rig = Rig::host_blobs(&[])?;
    let spans = [rig.ram.alloc(8192)?];
    for size in [1, 100, 4095, 4097, 8191] {
        let refused = rig.gpu.create_blob_guest(1, size, &spans);
        assert!(
            matches!(refused, Err(nosnoop_tests::frontend::Error::Refused { got, .. }) if got == resp::ERR_INVALID_PARAMETER),
            "{size}: {refused:?}"
        );
    }
    rig.gpu.create_blob_guest(1, 8192, &spans)?;
    rig.finish()
}
