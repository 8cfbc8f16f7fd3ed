//! vkmark, a benchmark of Vulkan, without a screen.

use std::path::PathBuf;

use nosnoop_guest::wire::commands::{Ending, Ran};

use super::super::files::Files;
use super::super::gl::GlRoot;
use super::super::{LabError, Result, apt, root};

/// The program, and what it loads by name: where it draws, and what its scenes are made of.
const PROGRAM: &str = "usr/bin/vkmark";
const WINDOW_SYSTEM: &str = "usr/lib/x86_64-linux-gnu/vkmark/headless.so";
const DATA: &str = "usr/share/vkmark";

/// Adds the program to what a guest boots with.
pub(super) fn add(files: &mut Files, gl: &GlRoot) -> Result<()> {
    let folder = root::cached("vkmark", &apt::VKMARK, |fresh| {
        match fresh.join(WINDOW_SYSTEM).is_file() {
            true => Ok("vkmark".to_owned()),
            false => Err(LabError::failed(
                "vkmark has no window system without a screen",
            )),
        }
    })?;
    // What both have comes from the root with Vulkan.
    let more: PathBuf = folder.join("usr/lib/x86_64-linux-gnu");
    for path in [PROGRAM, WINDOW_SYSTEM] {
        let program = gl.foreign(&folder.join(path)).with_more(&more, []);
        files.linked(path, &program)?;
    }
    files.folder_of(&folder, DATA)
}

/// Its words for one scene that draws nothing but a colour.
pub(super) fn words(seconds: u32) -> [String; 6] {
    let scene = format!("clear:duration={seconds}");
    let words = [
        PROGRAM,
        "--winsys",
        "headless",
        "--size=320x240",
        "-b",
        &scene,
    ];
    words.map(str::to_owned)
}

/// Frames per second of that scene, if it ended well.
pub(super) fn rate(ran: &Ran) -> Option<f64> {
    let rate = |line: &String| {
        let (_, rest) = line.split_once("FPS:")?;
        rest.split_whitespace().next()?.parse().ok()
    };
    let found = ran.lines.iter().find_map(rate);
    found.filter(|_| ran.ending == Ending::Status(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_read_where_the_program_ended_well() {
        let ran = |status| Ran {
            ending: Ending::Status(status),
            lines: vec![
                "[clear] duration=5: FPS: 1234 FrameTime: 0.810 ms".to_owned(),
                "                                   vkmark Score: 1234".to_owned(),
            ],
            kernel: Vec::new(),
            millis: 5,
        };
        assert_eq!(rate(&ran(0)), Some(1234.0));
        assert_eq!(rate(&ran(1)), None);
    }
}
