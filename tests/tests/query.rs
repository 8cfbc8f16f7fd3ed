//! What the guest asks: displays, EDID, UUIDs, capability sets.
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

use std::time::{Duration, Instant};

use nosnoop_tests::frontend::display::{
    Answer, DisplayConfig, FEATURE_DMABUF2, FEATURE_EDID, kind,
};
use nosnoop_tests::frontend::message::feature;
use nosnoop_tests::frontend::pixels::BGRX;
use nosnoop_tests::frontend::request;
use nosnoop_tests::frontend::response::{self, DisplayOne, resp};
use nosnoop_tests::frontend::{Rect, Result, Rig, SessionOptions};

fn one(width: u32, height: u32) -> DisplayOne {
    DisplayOne {
        rect: Rect::sized(width, height),
        enabled: true,
        flags: 0,
    }
}

#[test]
fn without_a_display_the_options_say_what_there_is() -> Result<()> {
    let mut rig = Rig::headless(&["--output=1920x1080@75", "--output=800x600"])?;
    let displays = rig.gpu.display_info()?;
    assert_eq!(
        (displays[0].rect.width, displays[0].rect.height),
        (1920, 1080)
    );
    assert_eq!(
        (displays[1].rect.width, displays[1].rect.height),
        (800, 600)
    );
    assert!(displays[0].enabled && displays[1].enabled);
    assert_eq!(displays[2..], [DisplayOne::default(); 14]);
    rig.finish()
}

#[test]
fn what_the_display_says_wins_over_the_options() -> Result<()> {
    let mut display = DisplayConfig::sized(1024, 768);
    let mut second = one(640, 480);
    second.rect.x = 1024;
    display.displays.push(second);
    let options = SessionOptions::with_display(display.clone());
    let mut rig = Rig::start(&["--output=1920x1080"], &options)?;
    let displays = rig.gpu.display_info()?;
    assert_eq!(displays[..2], display.displays);
    assert_eq!(displays[2..], [DisplayOne::default(); 14]);
    rig.finish()
}

#[test]
fn display_info_is_asked_afresh_each_time() -> Result<()> {
    let mut rig = Rig::new()?;
    for n in 1..20 {
        rig.display()
            .configure(|c| c.displays[0] = one(100 * n, 50 * n));
        assert_eq!(rig.gpu.display_info()?[0], one(100 * n, 50 * n));
    }
    rig.display().configure(|c| c.displays[0].enabled = false);
    assert!(!rig.gpu.display_info()?[0].enabled);
    rig.finish()
}

#[test]
fn requests_queued_together_share_an_answer() -> Result<()> {
    let mut rig = Rig::new()?;
    rig.gpu.display_info()?;
    let before = rig.display().count(kind::GET_DISPLAY_INFO);
    let mut tickets = Vec::new();
    for _ in 0..100 {
        let request = request::get_display_info();
        tickets.push(rig.gpu.control.submit(&request, response::DISPLAY_INFO)?);
    }
    rig.gpu.control.kick()?;
    for ticket in tickets {
        let response = rig.gpu.control.wait(ticket)?;
        assert_eq!(response.displays()[0], one(1280, 800));
    }
    let asked = rig.display().count(kind::GET_DISPLAY_INFO) - before;
    assert!(
        (1..=3).contains(&asked),
        "asked {asked} times for one batch"
    );
    rig.finish()
}

#[test]
fn edid_comes_from_the_display_when_negotiated() -> Result<()> {
    let mut display = DisplayConfig::sized(800, 600);
    display.displays.push(one(640, 480));
    display.edids = vec![(0..=255).collect(), vec![7; 128]];
    let options = SessionOptions::with_display(display.clone());
    let mut rig = Rig::start(&[], &options)?;
    rig.gpu.display_info()?;
    assert_eq!(rig.gpu.edid(0)?, display.edids[0]);
    assert_eq!(rig.gpu.edid(1)?, display.edids[1]);
    assert_eq!(rig.display().with(|s| s.accepted), Some(FEATURE_EDID));
    // A change shows at the next question.
    rig.display().configure(|c| c.edids[0] = vec![9; 256]);
    assert_eq!(rig.gpu.edid(0)?, [9; 256]);
    rig.finish()
}

/// Preferred mode of an EDID: the first detailed timing descriptor of the base block.
fn preferred_mode(edid: &[u8]) -> (u32, u32) {
    assert_eq!(
        edid[..8],
        [0, 255, 255, 255, 255, 255, 255, 0],
        "an EDID header"
    );
    for block in edid.chunks(128) {
        assert_eq!(
            block.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)),
            0,
            "checksum"
        );
    }
    assert_eq!(
        edid.len(),
        128 * (1 + edid[126] as usize),
        "blocks announced"
    );
    let timing = &edid[54..72];
    let width = u32::from(timing[2]) | u32::from(timing[4] >> 4) << 8;
    let height = u32::from(timing[5]) | u32::from(timing[7] >> 4) << 8;
    (width, height)
}

#[test]
fn edid_is_made_from_the_display_info_when_not_negotiated() -> Result<()> {
    for offered in [0, FEATURE_DMABUF2] {
        let display = DisplayConfig {
            features: offered,
            ..DisplayConfig::sized(1600, 900)
        };
        let mut rig = Rig::with_display(display)?;
        assert_eq!(preferred_mode(&rig.gpu.edid(0)?), (1600, 900));
        assert_eq!(rig.display().count(kind::GET_EDID), 0);
        assert_eq!(rig.display().with(|s| s.accepted), Some(offered));
        rig.finish()?;
    }
    Ok(())
}

#[test]
fn edid_without_a_display_has_the_mode_of_the_option() -> Result<()> {
    let mut rig = Rig::headless(&["--output=1366x768", "--output=3840x2160@30"])?;
    assert_eq!(preferred_mode(&rig.gpu.edid(0)?), (1366, 768));
    assert_eq!(preferred_mode(&rig.gpu.edid(1)?), (3840, 2160));
    for scanout in [2, 15, 16, u32::MAX] {
        let answer = rig.gpu.answer(&request::get_edid(scanout))?;
        assert_eq!(answer, resp::ERR_INVALID_SCANOUT_ID, "{scanout}");
    }
    rig.finish()
}

#[test]
fn an_edid_of_nonsense_length_from_the_display_is_replaced_by_a_good_one() -> Result<()> {
    let mut rig = Rig::with_display(DisplayConfig::sized(1600, 900))?;
    rig.display().configure(|c| c.edids[0].clear());
    assert_eq!(preferred_mode(&rig.gpu.edid(0)?), (1600, 900));
    rig.finish()
}

#[test]
fn an_unanswered_question_costs_a_bounded_wait_once() -> Result<()> {
    let mut rig = Rig::with_display(DisplayConfig::sized(1600, 900))?;
    assert_eq!(rig.gpu.display_info()?[0], one(1600, 900));
    rig.display().configure(|c| {
        c.answers.insert(kind::GET_DISPLAY_INFO, Answer::Never);
    });
    let start = Instant::now();
    assert_eq!(
        rig.gpu.display_info()?[0],
        one(1600, 900),
        "the last answer"
    );
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
    let start = Instant::now();
    for _ in 0..10 {
        assert_eq!(rig.gpu.display_info()?[0], one(1600, 900));
    }
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
    rig.finish()
}

#[test]
fn a_display_that_never_answers_anything_leaves_the_options() -> Result<()> {
    let mut display = DisplayConfig::sized(1600, 900);
    for kind in [
        kind::GET_PROTOCOL_FEATURES,
        kind::GET_DISPLAY_INFO,
        kind::GET_EDID,
    ] {
        display = display.answering(kind, Answer::Never);
    }
    let options = SessionOptions::with_display(display);
    let mut rig = Rig::start(&["--output=1024x768"], &options)?;
    assert_eq!(rig.gpu.display_info()?[0], one(1024, 768));
    assert_eq!(preferred_mode(&rig.gpu.edid(0)?), (1024, 768));
    rig.finish()
}

#[test]
fn a_late_answer_is_not_taken_for_the_next_one() -> Result<()> {
    let mut rig = Rig::with_display(DisplayConfig::sized(1600, 900))?;
    rig.gpu.display_info()?;
    rig.display().configure(|c| {
        c.displays[0] = one(111, 111);
        let late = Answer::Late(Duration::from_millis(1800));
        c.answers.insert(kind::GET_DISPLAY_INFO, late);
    });
    assert_eq!(
        rig.gpu.display_info()?[0],
        one(1600, 900),
        "the late answer is not there yet"
    );
    rig.display().configure(|c| {
        c.displays[0] = one(222, 222);
        c.answers.clear();
    });
    std::thread::sleep(Duration::from_millis(2000));
    // The late answer (111) has come by now; what counts is what the display says today.
    assert_eq!(rig.gpu.display_info()?[0], one(222, 222));
    // A question of another kind is not answered by leftovers either.
    assert_eq!(rig.gpu.edid(0)?.len(), 128);
    rig.finish()
}

#[test]
fn garbage_answers_never_reach_the_guest_as_displays() -> Result<()> {
    let header = |request: u32, flags: u32, size: u32| {
        [
            request.to_ne_bytes(),
            flags.to_ne_bytes(),
            size.to_ne_bytes(),
        ]
        .concat()
    };
    let garbage = [
        header(kind::GET_DISPLAY_INFO, 4, 0),
        header(kind::GET_DISPLAY_INFO, 4, u32::MAX),
        header(kind::GET_DISPLAY_INFO, 0, 408),
        header(kind::GET_EDID, 4, 8),
        header(0xffff_ffff, 0xffff_ffff, 12),
        [header(kind::GET_DISPLAY_INFO, 4, 16), vec![0xff; 16]].concat(),
        [header(kind::GET_DISPLAY_INFO, 4, 408), vec![0xff; 408]].concat(),
    ];
    for bytes in garbage {
        let mut rig = Rig::with_display(DisplayConfig::sized(1600, 900))?;
        assert_eq!(rig.gpu.display_info()?[0], one(1600, 900));
        rig.display().configure(|c| {
            c.answers
                .insert(kind::GET_DISPLAY_INFO, Answer::Raw(bytes.clone()));
        });
        rig.gpu.display_info()?;
        rig.gpu.create_2d(1, BGRX, 64, 64)?;
        rig.gpu.move_cursor(request::Cursor::default())?;
        rig.daemon.check_alive()?;
        // The display may have been given up by now; the device has not.
        rig.end()?;
    }
    Ok(())
}

#[test]
fn a_display_that_closes_instead_of_answering_leaves_the_guest_running() -> Result<()> {
    let display = DisplayConfig::sized(1600, 900).answering(kind::GET_DISPLAY_INFO, Answer::Close);
    let mut rig = Rig::with_display(display)?;
    let start = Instant::now();
    rig.gpu.display_info()?;
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
    rig.finish()
}

#[test]
fn an_output_of_the_options_that_the_display_lacks_costs_no_question() -> Result<()> {
    // QEMU leaves a GET_EDID beyond its max_outputs without an answer, here all of them.
    let display = DisplayConfig::sized(640, 480).answering(kind::GET_EDID, Answer::Never);
    let args = ["--output=64x64"; 2];
    let mut rig = Rig::start(&args, &SessionOptions::with_display(display))?;
    let start = Instant::now();
    rig.gpu.edid(1)?;
    assert!(start.elapsed() < Duration::from_millis(500), "waited");
    rig.display().configure(|c| {
        c.answers.remove(&kind::GET_EDID);
    });
    assert_eq!(rig.gpu.edid(0)?, (0..128).collect::<Vec<u8>>());
    rig.finish()
}

#[test]
fn config_counts_the_outputs_of_the_display() -> Result<()> {
    let mut display = DisplayConfig::sized(640, 480);
    display.displays = vec![one(640, 480); 3];
    let mut rig = Rig::with_display(display)?;
    rig.gpu.display_info()?;
    let config = rig.vhost.config(0, 20)?;
    assert_eq!(nosnoop_tests::frontend::message::u32_at(&config, 8), 3);
    rig.gpu.create_2d(1, BGRX, 64, 64)?;
    rig.gpu.set_scanout(2, 1, Rect::sized(64, 64))?;
    rig.finish()
}

#[test]
fn uuids_are_stable_per_resource_differ_between_resources_and_are_no_zeroes() -> Result<()> {
    let mut rig = Rig::headless(&[])?;
    let span = rig.ram.alloc(4096)?;
    rig.gpu.create_2d(1, BGRX, 8, 8)?;
    rig.gpu.create_2d(2, BGRX, 8, 8)?;
    rig.gpu.create_blob_guest(3, 4096, &[span])?;
    let uuids = [
        rig.gpu.assign_uuid(1)?,
        rig.gpu.assign_uuid(2)?,
        rig.gpu.assign_uuid(3)?,
    ];
    assert_eq!(rig.gpu.assign_uuid(1)?, uuids[0]);
    assert_eq!(rig.gpu.assign_uuid(3)?, uuids[2]);
    assert!(uuids[0] != uuids[1] && uuids[1] != uuids[2] && uuids[0] != uuids[2]);
    assert!(!uuids.contains(&[0; 16]));
    rig.gpu.unref(1)?;
    let answer = rig.gpu.answer(&request::assign_uuid(1))?;
    assert_eq!(answer, resp::ERR_INVALID_RESOURCE_ID);
    rig.gpu.create_2d(1, BGRX, 8, 8)?;
    assert_ne!(
        rig.gpu.assign_uuid(1)?,
        uuids[0],
        "a new resource is not the old one"
    );
    rig.finish()
}

#[test]
fn there_are_no_capability_sets_and_no_contexts_without_shared_memory() -> Result<()> {
    let mut rig = Rig::headless(&["--shm-size", "0"])?;
    assert_eq!(rig.features & feature::VIRGL, 0);
    assert_eq!(
        rig.gpu.answer(&request::get_capset_info(0))?,
        resp::ERR_INVALID_PARAMETER
    );
    assert_eq!(
        rig.gpu.answer(&request::get_capset(1, 1))?,
        resp::ERR_INVALID_PARAMETER
    );
    let three_d = [
        request::ctx_create(1, 0, b"test"),
        request::ctx_destroy(1),
        request::submit_3d(1, &[0; 16]),
        request::create_3d(1, BGRX, 8, 8),
        request::map_blob(1, 0),
        request::unmap_blob(1),
        request::ctx_resource(request::cmd::CTX_ATTACH_RESOURCE, 1, 1),
        request::ctx_resource(request::cmd::CTX_DETACH_RESOURCE, 1, 1),
        request::transfer_3d(request::cmd::TRANSFER_TO_HOST_3D, 1, 1, Rect::sized(1, 1)),
        request::transfer_3d(request::cmd::TRANSFER_FROM_HOST_3D, 1, 1, Rect::sized(1, 1)),
    ];
    for request in three_d {
        let answer = rig.gpu.answer(&request)?;
        assert!(
            (resp::ERR_UNSPEC..=resp::ERR_INVALID_PARAMETER).contains(&answer),
            "{answer:#x}"
        );
    }
    rig.finish()
}
