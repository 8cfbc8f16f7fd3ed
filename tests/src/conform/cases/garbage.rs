//! Requests that no honest driver sends: on the queues. None of these is a sentence of its own but
//! that errors are answered with errors; what must hold is said by each name.

use super::common::{Shown, answered, is_error, refused};
use super::garbage_messages;
use super::hostile_rings::back_or_contained;
use crate::conform::case::{Case, Group, Outcome, check};
use crate::conform::trial::Trial;
use crate::frontend::memory::Span;
use crate::frontend::pixels::{BGRX, Random, noise};
use crate::frontend::request::{self, Cursor, RequestBytes};
use crate::frontend::response::{self, HEADER, resp};
use crate::frontend::{Rect, Response};

const QUEUES: &[Case] = &[
    Group::Garbage.case(
        1,
        "unknown commands are answered with an error",
        &["gpu-header-3"],
        unknown_commands,
    ),
    Group::Garbage.case(2, "a command cut short is not carried out", &[], cut_short),
    Group::Garbage.case(
        3,
        "a request of no bytes at all leaves the device usable",
        &[],
        nothing_at_all,
    ),
    Group::Garbage.case(
        4,
        "without room for a response nothing is written beyond what there is",
        &["ring-4"],
        no_room,
    ),
    Group::Garbage.case(
        5,
        "a response that does not fit is not written beyond its buffer",
        &["ring-4"],
        little_room,
    ),
    Group::Garbage.case(
        6,
        "more backing entries announced than sent are refused",
        &["gpu-header-3"],
        missing_entries,
    ),
    Group::Garbage.case(
        7,
        "a resource as large as numbers go is refused",
        &["gpu-header-3"],
        enormous,
    ),
    Group::Garbage.case(
        8,
        "bytes behind a request do not matter",
        &[],
        trailing_bytes,
    ),
    Group::Garbage.case(
        9,
        "padding and flags without meaning do not matter",
        &[],
        padding,
    ),
    Group::Garbage.case(
        10,
        "control commands on the cursor queue leave the device usable",
        &[],
        control_on_cursor,
    ),
    Group::Garbage.case(
        11,
        "cursor commands on the control queue leave the device usable",
        &[],
        cursor_on_control,
    ),
    Group::Garbage.case(
        12,
        "noise on both queues leaves the device usable",
        &[],
        noise_everywhere,
    ),
    Group::Garbage.case(
        13,
        "known commands with noise in them leave the device usable",
        &[],
        noisy_commands,
    ),
    Group::Garbage.case(
        14,
        "commands for 3D harm nothing where 3D was not negotiated, and map nothing",
        &[],
        three_d,
    ),
];

/// The cases of this group.
pub(super) fn cases() -> Vec<Case> {
    [QUEUES, garbage_messages::CASES].concat()
}

fn unknown_commands(trial: &mut Trial) -> Outcome {
    let mut shown = Shown::new(trial, 64, 64)?;
    for kind in [
        0,
        1,
        0xff,
        0x1ff,
        0x2ff,
        0x3ff,
        0x1100,
        0x1200,
        1 << 31,
        u32::MAX,
    ] {
        let request = RequestBytes::new(kind).resized(128);
        refused(&mut shown.session, &format!("command {kind:#x}"), &request)?;
    }
    shown.finish()
}

fn cut_short(trial: &mut Trial) -> Outcome {
    let mut shown = Shown::new(trial, 64, 64)?;
    let rect = Rect::sized(64, 64);
    let raw = noise(70, shown.resource.len());
    shown
        .session
        .ram
        .scatter(&shown.resource.backing, 0, &raw)?;
    let span = shown.session.ram.alloc(4096)?;
    for (name, request) in [
        ("RESOURCE_CREATE_2D", request::create_2d(9, BGRX, 8, 8)),
        (
            "TRANSFER_TO_HOST_2D",
            request::transfer_to_host_2d(1, rect, 0),
        ),
        ("SET_SCANOUT", request::set_scanout(0, 1, Rect::sized(8, 8))),
        (
            "RESOURCE_ATTACH_BACKING",
            request::attach_backing(1, &[span.into()]),
        ),
    ] {
        // The padding at the end has no meaning; what is in front of it has.
        for len in [25, 28, 32, 36, 39]
            .into_iter()
            .filter(|len| *len < request.len())
        {
            let cut = request.clone().resized(len);
            let kind = shown.session.gpu.call(&cut, response::EDID)?.kind();
            check(
                kind == 0 || is_error(kind),
                format_args!("{name} cut to {len} bytes: answered {kind:#06x}"),
            )?;
        }
    }
    shown.session.gpu.flush(1, shown.resource.rect())?;
    refused(
        &mut shown.session,
        "RESOURCE_UNREF of resource 9",
        &request::unref(9),
    )?;
    shown.finish()
}

fn nothing_at_all(trial: &mut Trial) -> Outcome {
    let mut shown = Shown::new(trial, 64, 64)?;
    for room in [24, 408, 4096] {
        for index in [0, 1] {
            back_or_contained(&mut shown.session, "no bytes", index, &[], room)?;
        }
    }
    shown.finish()
}

fn no_room(trial: &mut Trial) -> Outcome {
    let mut shown = Shown::new(trial, 64, 64)?;
    let rect = Rect::sized(64, 64);
    for request in [
        request::get_display_info(),
        request::get_edid(0),
        request::flush(1, rect),
        request::transfer_to_host_2d(1, rect, 0),
    ] {
        for room in [0, 1, 4, 23] {
            let what = format!("room for {room} bytes");
            let session = &mut shown.session;
            if let Some(answer) = back_or_contained(session, &what, 0, &request, room)? {
                check(
                    answer.written() <= room,
                    format_args!("{} bytes in {room}", answer.written()),
                )?;
            }
        }
    }
    shown.finish()
}

fn little_room(trial: &mut Trial) -> Outcome {
    let mut shown = Shown::new(trial, 64, 64)?;
    for (request, full) in [
        (request::get_display_info(), response::DISPLAY_INFO),
        (request::get_edid(0), response::EDID),
    ] {
        for room in [HEADER, HEADER + 1, full - 1] {
            // A page of its own: what lies behind the buffer belongs to nobody else.
            let page = shown.session.ram.alloc(4096)?;
            shown
                .session
                .ram
                .fill(page.addr, 4096, Response::UNTOUCHED)?;
            let ask = shown.session.ram.alloc(request.len())?;
            shown.session.ram.write(ask.addr, &request)?;
            let buffer = Span::new(page.addr, room);
            garbage_messages::by_hand(&mut shown.session, ask, buffer)?;
            let after = shown.session.ram.read(page.addr, 4096)?;
            check(
                after[room..]
                    .iter()
                    .all(|byte| *byte == Response::UNTOUCHED),
                format_args!("written beyond a buffer of {room} bytes"),
            )?;
        }
    }
    shown.finish()
}

fn missing_entries(trial: &mut Trial) -> Outcome {
    let mut shown = Shown::new(trial, 64, 64)?;
    shown.session.gpu.create_2d(2, BGRX, 64, 64)?;
    let span = shown.session.ram.alloc(64 * 64 * 4)?;
    for count in [2, 16_384, 0x1000_0000, 0x1000_0001, 0x7fff_ffff, u32::MAX] {
        let attach = request::attach_backing_counted(2, count, &[span.into()]);
        let what = format!("one of {count} entries");
        refused(&mut shown.session, &what, &attach)?;
    }
    shown.session.gpu.attach_backing(2, &[span])?;
    shown.finish()
}

fn enormous(trial: &mut Trial) -> Outcome {
    let mut shown = Shown::new(trial, 64, 64)?;
    let max = u32::MAX;
    for (width, height) in [
        (max, max),
        (1 << 31, 1 << 31),
        (1 << 16, 1 << 30),
        (0x4000_0001, 4),
    ] {
        let create = request::create_2d(2, BGRX, width, height);
        refused(&mut shown.session, &format!("{width} x {height}"), &create)?;
    }
    shown.finish()
}

fn trailing_bytes(trial: &mut Trial) -> Outcome {
    let mut shown = Shown::new(trial, 64, 64)?;
    let request = request::create_2d(2, BGRX, 8, 8).bytes(&[0xff; 300]);
    shown.session.gpu.command("RESOURCE_CREATE_2D", &request)?;
    shown.session.gpu.unref(2)?;
    shown.finish()
}

fn padding(trial: &mut Trial) -> Outcome {
    let mut shown = Shown::new(trial, 64, 64)?;
    let flush = request::flush(1, shown.resource.rect());
    // All but FENCE and INFO_RING_IDX; then the padding behind the resource's id.
    let flags = flush.clone().flags(0xffff_fffc);
    shown.session.gpu.command("RESOURCE_FLUSH", &flags)?;
    let padded = flush.resized(24 + 16 + 4).u32(u32::MAX);
    shown.session.gpu.command("RESOURCE_FLUSH", &padded)?;
    shown.finish()
}

fn control_on_cursor(trial: &mut Trial) -> Outcome {
    let mut shown = Shown::new(trial, 64, 64)?;
    for request in [
        request::get_display_info(),
        request::create_2d(9, BGRX, 8, 8),
        request::unref(77),
        RequestBytes::new(u32::MAX).resized(64),
    ] {
        shown.session.gpu.cursor.call(&request, 408)?;
        shown.session.gpu.cursor.call(&request, 0)?;
    }
    shown.finish()
}

fn cursor_on_control(trial: &mut Trial) -> Outcome {
    let mut shown = Shown::new(trial, 64, 64)?;
    for request in [
        request::update_cursor(Cursor::default()),
        request::move_cursor(Cursor::default()),
    ] {
        answered(&mut shown.session, "a cursor command", &request)?;
    }
    shown.finish()
}

fn noise_everywhere(trial: &mut Trial) -> Outcome {
    let mut shown = Shown::new(trial, 64, 64)?;
    let mut random = Random::new(77);
    for seed in 0..100 {
        let len = (random.next() % 200) as usize;
        let request = noise(seed, len);
        let room = (random.next() % 64) as usize + usize::from(len == 0);
        shown.session.gpu.call(&request, room)?;
        shown.session.gpu.cursor.call(&request, room)?;
    }
    shown.finish()
}

fn noisy_commands(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    session.gpu.create_picture(1, BGRX, 64, 64)?;
    let mut random = Random::new(78);
    for seed in 0..300 {
        let kind = match random.next() % 4 {
            // The commands for 3D are for the groups that negotiate it.
            0..3 => 0x100 + (random.next() % 14) as u32,
            _ => 0x300 + (random.next() % 2) as u32,
        };
        let mut body = noise(1000 + seed, 80);
        if random.next().is_multiple_of(2) {
            // Small numbers reach further than large ones.
            body.iter_mut().enumerate().for_each(|(at, byte)| {
                *byte = if at % 4 == 0 { *byte % 8 } else { 0 };
            });
        }
        let request = RequestBytes::new(kind).bytes(&body);
        session.gpu.call(&request, response::EDID)?;
        session.gpu.cursor.call(&request, 24)?;
    }
    // What reaches the display is not looked at: cursor cases do that.
    session.gpu.display_info()?;
    Ok(())
}

fn three_d(trial: &mut Trial) -> Outcome {
    use crate::frontend::request::cmd;
    let mut shown = Shown::new(trial, 64, 64)?;
    let rect = Rect::sized(8, 8);
    for (name, request) in [
        ("CTX_CREATE", request::ctx_create(1, 0, b"name")),
        ("CTX_DESTROY", request::ctx_destroy(1)),
        (
            "CTX_ATTACH_RESOURCE",
            request::ctx_resource(cmd::CTX_ATTACH_RESOURCE, 1, 1),
        ),
        ("RESOURCE_CREATE_3D", request::create_3d(9, BGRX, 8, 8)),
        (
            "TRANSFER_TO_HOST_3D",
            request::transfer_3d(cmd::TRANSFER_TO_HOST_3D, 1, 1, rect),
        ),
        (
            "TRANSFER_FROM_HOST_3D",
            request::transfer_3d(cmd::TRANSFER_FROM_HOST_3D, 1, 1, rect),
        ),
        ("SUBMIT_3D", request::submit_3d(1, &[0xff; 64])),
        ("RESOURCE_MAP_BLOB", request::map_blob(1, 0)),
        ("RESOURCE_UNMAP_BLOB", request::unmap_blob(1)),
    ] {
        let kind = answered(&mut shown.session, name, &request)?;
        check(
            kind != resp::OK_MAP_INFO,
            format_args!("{name} was carried out without VIRGL"),
        )?;
    }
    shown.finish()
}
