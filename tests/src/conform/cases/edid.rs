//! GET_EDID.

use super::common::{self, displays, headless, refused, works};
use crate::conform::case::{Case, Group, Needs, Outcome, check, equal};
use crate::conform::trial::Trial;
use crate::frontend::message::{feature, u32_at};
use crate::frontend::request;
use crate::frontend::response::{self, HEADER, resp};
use crate::frontend::{Session, SessionOptions};

const EDID: Needs = Needs::features(feature::EDID);

/// The cases of this group.
pub(super) const CASES: &[Case] = &[
    Group::Edid.case_needing(
        EDID,
        1,
        "the answer is RESP_OK_EDID with a size and 1024 bytes",
        &["gpu-edid-1"],
        layout,
    ),
    Group::Edid.case_needing(
        EDID,
        2,
        "the EDID has VESA's header, length and checksums",
        &["gpu-edid-2"],
        valid,
    ),
    Group::Edid.case_needing(
        EDID,
        3,
        "an EDID with extension blocks comes whole",
        &["gpu-edid-1", "gpu-edid-2", "vug-13"],
        extensions,
    ),
    Group::Edid.case_needing(
        EDID,
        4,
        "each display has its own EDID",
        &["gpu-edid-1"],
        each_its_own,
    ),
    Group::Edid.case_needing(
        EDID,
        5,
        "an EDID of a scanout that is not there is refused",
        &["gpu-header-3"],
        unknown_scanout,
    ),
    Group::Edid.case_needing(
        EDID,
        6,
        "the EDID follows the display",
        &["gpu-edid-1", "vug-13"],
        follows,
    ),
    Group::Edid.case_needing(
        EDID,
        7,
        "without a display socket there is an EDID for each of num_scanouts, and for no other",
        &["gpu-edid-1", "gpu-edid-2", "gpu-config-3"],
        counted,
    ),
];

fn start(trial: &mut Trial) -> Result<Session, crate::conform::Stop> {
    trial.session(&SessionOptions::with_display(common::side_by_side(1)))
}

fn layout(trial: &mut Trial) -> Outcome {
    let mut session = start(trial)?;
    let answer = session.gpu.call(&request::get_edid(0), 2048)?;
    common::whole("GET_EDID", &answer, resp::OK_EDID, response::EDID)?;
    let size = u32_at(answer.bytes(), HEADER);
    check(
        size > 0 && size <= 1024 && size.is_multiple_of(128),
        format_args!("the size is {size}"),
    )?;
    works(&mut session)
}

/// Checks an EDID by VESA's rules, as far as they hold for each.
fn check_edid(edid: &[u8]) -> Outcome {
    check(edid.len() >= 128, format_args!("{} bytes", edid.len()))?;
    equal(
        "the header",
        &edid[..8],
        &[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0],
    )?;
    equal("the version", edid[18], 1)?;
    let blocks = 1 + usize::from(edid[126]);
    equal("bytes for its extension blocks", edid.len(), 128 * blocks)?;
    for (at, block) in edid.chunks(128).enumerate() {
        let sum = block.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        equal(&format!("the sum of block {at}"), sum, 0)?;
    }
    Ok(())
}

fn valid(trial: &mut Trial) -> Outcome {
    let mut session = start(trial)?;
    check_edid(&session.gpu.edid(0)?)?;
    works(&mut session)
}

fn extensions(trial: &mut Trial) -> Outcome {
    let mut session = start(trial)?;
    for count in [1, 3, 7] {
        let expected = common::edid(9, count);
        let told = expected.clone();
        session
            .display()
            .configure(|config| config.edids = vec![told]);
        let got = session.gpu.edid(0)?;
        check_edid(&got)?;
        check(
            got == expected,
            format_args!("not the display's, with {count} extensions"),
        )?;
    }
    works(&mut session)
}

fn each_its_own(trial: &mut Trial) -> Outcome {
    let mut session = displays(trial, 2)?;
    let expected = common::side_by_side(2).edids;
    for (scanout, edid) in expected.iter().enumerate() {
        let got = session.gpu.edid(scanout as u32)?;
        check(
            got == *edid,
            format_args!("that of display {scanout} is not its own"),
        )?;
    }
    works(&mut session)
}

fn unknown_scanout(trial: &mut Trial) -> Outcome {
    let mut session = start(trial)?;
    for scanout in [16, 17, 255, 0x10000, 1 << 31, u32::MAX] {
        let what = format!("GET_EDID of scanout {scanout}");
        refused(&mut session, &what, &request::get_edid(scanout))?;
    }
    works(&mut session)
}

fn counted(trial: &mut Trial) -> Outcome {
    let (mut session, count) = headless(trial)?;
    for scanout in 0..count {
        check_edid(&session.gpu.edid(scanout)?)?;
    }
    for scanout in count..16 {
        let what = format!("GET_EDID of scanout {scanout} of {count}");
        refused(&mut session, &what, &request::get_edid(scanout))?;
    }
    works(&mut session)
}

fn follows(trial: &mut Trial) -> Outcome {
    let mut session = start(trial)?;
    session.gpu.edid(0)?;
    for serial in [20, 21] {
        let expected = common::edid(serial, 0);
        let told = expected.clone();
        session
            .display()
            .configure(|config| config.edids = vec![told]);
        let got = session.gpu.edid(0)?;
        check(got == expected, "it is still that of before")?;
    }
    works(&mut session)
}
