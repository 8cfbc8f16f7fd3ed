//! The pixel formats.

use super::common::{refused, works};
use crate::conform::case::{Case, Group, Outcome};
use crate::conform::trial::Trial;
use crate::frontend::pixels::{FORMATS, Picture, noise};
use crate::frontend::request;

const fn shows(number: u32, name: &'static str, run: fn(&mut Trial) -> Outcome) -> Case {
    Group::Formats.case(number, name, &["gpu-2d-1", "gpu-2d-2", "vug-10"], run)
}

/// The cases of this group.
pub(super) const CASES: &[Case] = &[
    shows(1, "B8G8R8A8 (1) has its colours", colours::<1>),
    shows(2, "B8G8R8X8 (2) has its colours", colours::<2>),
    shows(3, "A8R8G8B8 (3) has its colours", colours::<3>),
    shows(4, "X8R8G8B8 (4) has its colours", colours::<4>),
    shows(5, "R8G8B8A8 (67) has its colours", colours::<67>),
    shows(6, "X8B8G8R8 (68) has its colours", colours::<68>),
    shows(7, "A8B8G8R8 (121) has its colours", colours::<121>),
    shows(8, "R8G8B8X8 (134) has its colours", colours::<134>),
    Group::Formats.case(
        9,
        "numbers that are no format are refused",
        &["gpu-2d-2", "gpu-header-3"],
        unknown,
    ),
];

fn colours<const FORMAT: u32>(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    let resource = session.gpu.create_picture(1, FORMAT, 61, 43)?;
    session.gpu.set_scanout(0, 1, resource.rect())?;
    for seed in 0..3 {
        let raw = noise(seed, resource.len());
        session.gpu.show(&resource, &raw)?;
        let expected = Picture::of(FORMAT, 61, 43, &raw);
        session.display().wait_picture(0, &expected)?;
    }
    works(&mut session)
}

fn unknown(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    let known = FORMATS.map(|(number, ..)| number);
    let numbers = (0..256).chain([257, 0x102, 1 << 31, u32::MAX]);
    for number in numbers.filter(|number| !known.contains(number)) {
        let create = request::create_2d(5, number, 8, 8);
        refused(&mut session, &format!("format {number}"), &create)?;
    }
    works(&mut session)
}
