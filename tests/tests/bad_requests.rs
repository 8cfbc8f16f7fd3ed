//! Malformed and hostile requests: each gets its error, and the device goes on.
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
use nosnoop_tests::frontend::pixels::{BGRX, Picture, Random, noise};
use nosnoop_tests::frontend::request::{self, MemEntry, RequestBytes, cmd};
use nosnoop_tests::frontend::response::{self, resp};
use nosnoop_tests::frontend::{Rect, Result, Rig};

/// A rig with resource 1 (64 x 64, backed, shown on scanout 0).
fn rig() -> Result<Rig> {
    let mut rig = Rig::new()?;
    let resource = rig.gpu.create_picture(1, BGRX, 64, 64)?;
    rig.gpu.set_scanout(0, 1, resource.rect())?;
    rig.gpu.show(&resource, &noise(1, resource.len()))?;
    Ok(rig)
}

/// Ends a test: the picture that was there before is still the one shown, and all still works.
fn still_shown(rig: Rig) -> Result<()> {
    rig.display()
        .wait_picture(0, &Picture::of(BGRX, 64, 64, &noise(1, 64 * 64 * 4)))?;
    rig.finish()
}

/// Every command there is, well formed.
fn every_command() -> Vec<RequestBytes> {
    let rect = Rect::sized(8, 8);
    let blob = request::CreateBlob {
        resource: 9,
        mem: 1,
        flags: 0,
        count: 0,
        blob_id: 0,
        size: 64,
    };
    let scanout = request::ScanoutBlob {
        scanout: 0,
        resource: 1,
        rect,
        width: 8,
        height: 8,
        format: BGRX,
        stride: 32,
        offset: 0,
    };
    vec![
        request::get_display_info(),
        request::get_edid(0),
        request::create_2d(9, BGRX, 8, 8),
        request::unref(77),
        request::set_scanout(1, 1, rect),
        request::flush(1, rect),
        request::transfer_to_host_2d(1, rect, 0),
        request::attach_backing(77, &[]),
        request::detach_backing(77),
        request::get_capset_info(0),
        request::get_capset(1, 1),
        request::assign_uuid(1),
        request::create_blob(blob, &[]),
        request::set_scanout_blob(scanout),
        request::ctx_create(1, 0, b"name"),
        request::ctx_destroy(1),
        request::ctx_resource(cmd::CTX_ATTACH_RESOURCE, 1, 1),
        request::ctx_resource(cmd::CTX_DETACH_RESOURCE, 1, 1),
        request::create_3d(9, BGRX, 8, 8),
        request::transfer_3d(cmd::TRANSFER_TO_HOST_3D, 1, 1, rect),
        request::transfer_3d(cmd::TRANSFER_FROM_HOST_3D, 1, 1, rect),
        request::submit_3d(1, &[1; 16]),
        request::map_blob(1, 0),
        request::unmap_blob(1),
        request::update_cursor(request::Cursor::default()),
        request::move_cursor(request::Cursor::default()),
    ]
}

#[test]
fn unknown_commands_are_answered_unspec() -> Result<()> {
    let mut rig = rig()?;
    let kinds = [
        0,
        1,
        0xff,
        0x10e,
        0x1ff,
        0x20a,
        0x2ff,
        0x302,
        0x1100,
        0x1200,
        u32::MAX,
    ];
    for kind in kinds {
        let request = RequestBytes::new(kind).resized(128);
        assert_eq!(rig.gpu.answer(&request)?, resp::ERR_UNSPEC, "{kind:#x}");
    }
    still_shown(rig)
}

#[test]
fn cursor_commands_on_the_control_queue_get_some_answer() -> Result<()> {
    let mut rig = rig()?;
    for request in [
        request::update_cursor(Default::default()),
        request::move_cursor(Default::default()),
    ] {
        rig.gpu.answer(&request)?;
    }
    still_shown(rig)
}

#[test]
fn every_command_cut_short_is_answered_unspec() -> Result<()> {
    let mut rig = rig()?;
    for request in every_command() {
        let kind = u32::from_le_bytes(request[..4].try_into().unwrap());
        if matches!(kind, cmd::UPDATE_CURSOR | cmd::MOVE_CURSOR) {
            continue;
        }
        for len in 0..request.len() {
            let cut = request.clone().resized(len);
            // An empty request: only a response buffer.
            let answer = rig.gpu.answer(&cut)?;
            assert_eq!(
                answer,
                resp::ERR_UNSPEC,
                "command {kind:#x} cut to {len} bytes"
            );
        }
    }
    still_shown(rig)
}

#[test]
fn every_command_without_room_for_a_response_is_consumed() -> Result<()> {
    let mut rig = rig()?;
    for request in every_command() {
        for room in [0, 1, 4, 23] {
            let response = rig.gpu.call(&request, room)?;
            assert_eq!(response.written(), 0);
            assert!(response.beyond_is_untouched());
        }
    }
    // None of them was executed: ids 9 are free.
    assert_eq!(
        rig.gpu.answer(&request::unref(9))?,
        resp::ERR_INVALID_RESOURCE_ID
    );
    still_shown(rig)
}

#[test]
fn a_response_that_does_not_fit_becomes_a_bare_error() -> Result<()> {
    let mut rig = rig()?;
    let cases = [
        (request::get_display_info(), response::DISPLAY_INFO),
        (request::get_edid(0), response::EDID),
        (request::assign_uuid(1), response::UUID),
    ];
    for (request, full) in cases {
        for room in [24, 25, full - 1] {
            let response = rig.gpu.call(&request.clone().fenced(5), room)?;
            assert_eq!(
                (response.kind(), response.written()),
                (resp::ERR_UNSPEC, 24)
            );
            assert_eq!((response.flags(), response.fence_id()), (1, 5));
            assert!(response.beyond_is_untouched());
        }
        assert_ne!(rig.gpu.call(&request, full)?.kind(), resp::ERR_UNSPEC);
    }
    still_shown(rig)
}

#[test]
fn fence_context_and_ring_are_echoed_on_success_and_on_errors() -> Result<()> {
    let mut rig = rig()?;
    let mut random = Random::new(1);
    for (request, expected) in [
        (request::assign_uuid(1), resp::OK_RESOURCE_UUID),
        (request::flush(1, Rect::sized(8, 8)), resp::OK_NODATA),
        (
            request::flush(99, Rect::sized(8, 8)),
            resp::ERR_INVALID_RESOURCE_ID,
        ),
        (RequestBytes::new(0xffff), resp::ERR_UNSPEC),
        (request::create_2d(5, 0, 8, 8), resp::ERR_INVALID_PARAMETER),
        (
            request::attach_backing(1, &[]).resized(25),
            resp::ERR_UNSPEC,
        ),
    ] {
        let plain = rig.gpu.call(&request, 2048)?;
        assert_eq!(
            (plain.kind(), plain.flags(), plain.fence_id()),
            (expected, 0, 0)
        );
        for id in [0, 1, u64::MAX, random.next()] {
            let response = rig.gpu.call(&request.clone().fenced(id), 2048)?;
            assert_eq!(response.kind(), expected);
            assert_eq!((response.flags(), response.fence_id()), (1, id));
        }
        let fenced = request.clone().in_context(77).fenced(6).on_ring(9);
        let response = rig.gpu.call(&fenced, 2048)?;
        assert_eq!((response.kind(), response.flags()), (expected, 3));
        assert_eq!(
            (response.fence_id(), response.context(), response.ring_idx()),
            (6, 77, 9)
        );
    }
    still_shown(rig)
}

#[test]
fn unknown_header_flags_do_not_matter() -> Result<()> {
    let mut rig = rig()?;
    let request = request::flush(1, Rect::sized(8, 8)).flags(0xffff_fffc);
    assert_eq!(rig.gpu.answer(&request)?, resp::OK_NODATA);
    still_shown(rig)
}

#[test]
fn id_0_is_no_resource() -> Result<()> {
    let mut rig = rig()?;
    let rect = Rect::sized(8, 8);
    for request in [
        request::create_2d(0, BGRX, 8, 8),
        request::unref(0),
        request::flush(0, rect),
        request::transfer_to_host_2d(0, rect, 0),
        request::attach_backing(0, &[]),
        request::detach_backing(0),
        request::assign_uuid(0),
    ] {
        assert_eq!(rig.gpu.answer(&request)?, resp::ERR_INVALID_RESOURCE_ID);
    }
    still_shown(rig)
}

#[test]
fn duplicate_and_unknown_ids_are_refused() -> Result<()> {
    let mut rig = rig()?;
    let rect = Rect::sized(8, 8);
    let span = rig.ram.alloc(4096)?;
    for id in [2, 3, u32::MAX] {
        for request in [
            request::unref(id),
            request::flush(id, rect),
            request::transfer_to_host_2d(id, rect, 0),
            request::attach_backing(id, &[span.into()]),
            request::detach_backing(id),
            request::set_scanout(0, id, rect),
            request::assign_uuid(id),
        ] {
            assert_eq!(
                rig.gpu.answer(&request)?,
                resp::ERR_INVALID_RESOURCE_ID,
                "id {id}"
            );
        }
    }
    let again = rig.gpu.answer(&request::create_2d(1, BGRX, 8, 8))?;
    assert_eq!(again, resp::ERR_INVALID_RESOURCE_ID);
    let again = rig
        .gpu
        .answer(&request::attach_backing(1, &[span.into()]))?;
    assert_eq!(again, resp::ERR_UNSPEC);
    rig.gpu.create_2d(u32::MAX, BGRX, 8, 8)?;
    rig.gpu.unref(u32::MAX)?;
    still_shown(rig)
}

#[test]
fn formats_out_of_range_and_empty_sizes_are_refused() -> Result<()> {
    let mut rig = rig()?;
    for format in (0..256).chain([1 << 8 | 1, 1 << 31, u32::MAX]) {
        let answer = rig.gpu.answer(&request::create_2d(5, format, 8, 8))?;
        if [1, 2, 3, 4, 67, 68, 121, 134].contains(&format) {
            assert_eq!(answer, resp::OK_NODATA, "format {format}");
            rig.gpu.unref(5)?;
        } else {
            assert_eq!(answer, resp::ERR_INVALID_PARAMETER, "format {format}");
        }
    }
    for (width, height) in [(0, 0), (0, 8), (8, 0)] {
        let answer = rig
            .gpu
            .answer(&request::create_2d(5, BGRX, width, height))?;
        assert_eq!(answer, resp::ERR_INVALID_PARAMETER, "{width}x{height}");
    }
    still_shown(rig)
}

/// Rectangles that are not inside 64 x 64, among them all that overflow.
fn bad_rects() -> Vec<Rect> {
    let m = u32::MAX;
    vec![
        Rect::new(0, 0, 65, 64),
        Rect::new(0, 0, 64, 65),
        Rect::new(1, 0, 64, 64),
        Rect::new(0, 1, 64, 64),
        Rect::new(64, 64, 1, 1),
        Rect::new(m, 0, 1, 1),
        Rect::new(0, m, 1, 1),
        Rect::new(m, m, m, m),
        Rect::new(0, 0, m, m),
        Rect::new(1, 1, m, m),
        Rect::new(m, 0, 2, 1),
        Rect::new(0x8000_0000, 0, 0x8000_0000, 1),
        Rect::new(0x8000_0000, 0x8000_0000, 0x8000_0001, 0x8000_0001),
        Rect::new(m - 31, 0, 64, 64),
    ]
}

#[test]
fn rectangles_outside_or_overflowing_are_refused_by_every_command() -> Result<()> {
    let mut rig = rig()?;
    for rect in bad_rects() {
        for request in [
            request::flush(1, rect),
            request::transfer_to_host_2d(1, rect, 0),
            request::set_scanout(0, 1, rect),
        ] {
            assert_eq!(
                rig.gpu.answer(&request)?,
                resp::ERR_INVALID_PARAMETER,
                "{rect:?}"
            );
        }
    }
    for rect in [Rect::sized(0, 0), Rect::sized(0, 5), Rect::new(5, 5, 5, 0)] {
        let answer = rig.gpu.answer(&request::set_scanout(0, 1, rect))?;
        assert_eq!(
            answer,
            resp::ERR_INVALID_PARAMETER,
            "an empty scanout {rect:?}"
        );
        // An empty transfer or flush is nothing to do; either way it must do nothing.
        rig.gpu.answer(&request::transfer_to_host_2d(1, rect, 0))?;
        rig.gpu.answer(&request::flush(1, rect))?;
    }
    still_shown(rig)
}

#[test]
fn backing_counts_that_the_request_does_not_hold_are_refused() -> Result<()> {
    let mut rig = rig()?;
    rig.gpu.create_2d(2, BGRX, 64, 64)?;
    let span = rig.ram.alloc(64 * 64 * 4)?;
    let entry: MemEntry = span.into();
    for count in [
        2,
        3,
        16_384,
        16_385,
        0x1000_0000,
        0x1000_0001,
        0x7fff_ffff,
        u32::MAX,
    ] {
        let request = request::attach_backing_counted(2, count, &[entry]);
        assert_eq!(
            rig.gpu.answer(&request)?,
            resp::ERR_UNSPEC,
            "{count} entries"
        );
    }
    rig.gpu.attach_backing(2, &[span])?;
    still_shown(rig)
}

#[test]
fn backing_outside_guest_memory_is_refused_whole() -> Result<()> {
    let mut rig = rig()?;
    rig.gpu.create_2d(2, BGRX, 64, 64)?;
    let span = rig.ram.alloc(64 * 64 * 4)?;
    let low_end = 0x10_0000 + (256 << 20);
    let bad = [
        Span { addr: 0, len: 4096 },
        Span {
            addr: low_end,
            len: 1,
        },
        Span {
            addr: low_end - 4096,
            len: 4097,
        },
        Span {
            addr: 0x10_0000,
            len: u32::MAX,
        },
        Span {
            addr: u64::MAX,
            len: 1,
        },
        Span {
            addr: u64::MAX - 4095,
            len: 4096,
        },
        Span {
            addr: u64::MAX,
            len: u32::MAX,
        },
        Span {
            addr: 0x8000_0000_0000_0000,
            len: 4096,
        },
    ];
    for span_bad in bad {
        let entries = [span.into(), span_bad.into()];
        let answer = rig.gpu.answer(&request::attach_backing(2, &entries))?;
        assert_eq!(answer, resp::ERR_UNSPEC, "{span_bad:x?}");
    }
    rig.gpu.attach_backing(2, &[span])?;
    still_shown(rig)
}

#[test]
fn a_backing_that_is_too_short_is_refused_at_the_transfer() -> Result<()> {
    let mut rig = rig()?;
    rig.gpu.create_2d(2, BGRX, 64, 64)?;
    let span = rig.ram.alloc(64 * 64 * 4 - 1)?;
    rig.gpu.attach_backing(2, &[span])?;
    let whole = request::transfer_to_host_2d(2, Rect::sized(64, 64), 0);
    assert_eq!(rig.gpu.answer(&whole)?, resp::ERR_INVALID_PARAMETER);
    rig.gpu.transfer(2, Rect::sized(64, 63), 0)?;
    still_shown(rig)
}

#[test]
fn an_empty_backing_holds_no_pixel() -> Result<()> {
    let mut rig = rig()?;
    rig.gpu.create_2d(2, BGRX, 64, 64)?;
    // Whether an empty list counts as attached is not said; a transfer from it must fail.
    rig.gpu.answer(&request::attach_backing(2, &[]))?;
    let answer = rig
        .gpu
        .answer(&request::transfer_to_host_2d(2, Rect::sized(1, 1), 0))?;
    assert!(
        [resp::ERR_UNSPEC, resp::ERR_INVALID_PARAMETER].contains(&answer),
        "{answer:#x}"
    );
    still_shown(rig)
}

#[test]
fn giant_resources_by_the_thousand_run_out_of_memory_not_of_host() -> Result<()> {
    let mut rig = rig()?;
    let before = rig.daemon.own_bytes()?;
    for id in 2..3000 {
        let answer = rig
            .gpu
            .answer(&request::create_2d(id, BGRX, 65_535, 65_535))?;
        assert_eq!(answer, resp::ERR_OUT_OF_MEMORY, "resource {id}");
    }
    for (width, height) in [
        (u32::MAX, u32::MAX),
        (u32::MAX, 1),
        (1 << 31, 1 << 31),
        (1 << 16, 1 << 14),
    ] {
        let answer = rig
            .gpu
            .answer(&request::create_2d(2, BGRX, width, height))?;
        assert_eq!(answer, resp::ERR_OUT_OF_MEMORY, "{width}x{height}");
    }
    let grown = rig.daemon.own_bytes()?.saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes more");
    still_shown(rig)
}

#[test]
fn the_memory_quota_is_exact_and_comes_back_with_unref() -> Result<()> {
    let mut rig = Rig::headless(&["--max-hostmem=1M"])?;
    for _ in 0..3 {
        // Four pictures of 256 KiB are 1 MiB; not one pixel more fits.
        for id in 1..=4 {
            rig.gpu.create_2d(id, BGRX, 256, 256)?;
        }
        let answer = rig.gpu.answer(&request::create_2d(5, BGRX, 1, 1))?;
        assert_eq!(answer, resp::ERR_OUT_OF_MEMORY);
        for id in 1..=4 {
            rig.gpu.unref(id)?;
        }
    }
    rig.finish()
}

#[test]
fn the_resource_quota_is_exact_and_comes_back_with_unref() -> Result<()> {
    let mut rig = Rig::headless(&["--max-resources=100"])?;
    for _ in 0..3 {
        for id in 1..=100 {
            rig.gpu.create_2d(id, BGRX, 1, 1)?;
        }
        let answer = rig.gpu.answer(&request::create_2d(101, BGRX, 1, 1))?;
        assert_eq!(answer, resp::ERR_OUT_OF_MEMORY);
        for id in 1..=100 {
            rig.gpu.unref(id)?;
        }
    }
    rig.finish()
}

#[test]
fn random_bytes_as_requests_are_answered_one_by_one() -> Result<()> {
    let mut rig = rig()?;
    let mut random = Random::new(2024);
    let templates = every_command();
    for round in 0..3000 {
        let mut bytes = if round % 3 == 0 {
            noise(round, random.within(0, 200) as usize)
        } else {
            templates[random.within(0, templates.len() as u64 - 1) as usize].to_vec()
        };
        for _ in 0..random.within(0, 3) {
            if let Some(last) = bytes.len().checked_sub(5) {
                let at = 4 + random.within(0, last as u64) as usize;
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = [0, 1, 0x7f, 0x80, 0xff][random.within(0, 4) as usize];
                }
            }
        }
        // A chain has at least one descriptor.
        let least = usize::from(bytes.is_empty());
        let room = [0, 24, 408, 1056][random.within(0, 3) as usize].max(least);
        let queue = if round % 5 == 0 {
            &mut rig.gpu.cursor
        } else {
            &mut rig.gpu.control
        };
        let response = queue.call(&bytes, room)?;
        assert!(response.written() == 0 || (0x1100..0x1300).contains(&response.kind()));
    }
    rig.daemon.check_alive()?;
    rig.check_usable()?;
    rig.end()
}
