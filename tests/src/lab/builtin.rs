//! The demo without a VM: the front-end library's own driver draws the same pictures through the
//! real daemon, and its display server shows what arrives.

use std::fs;
use std::path::Path;

use nosnoop_guest::pattern::{self, Area, CURSOR_SIZE, Size};
use nosnoop_guest::wire::Step;

use super::demo::check_step;
use super::picture::Picture;
use super::report::{CheckedStep, Report, write_report};
use super::{LabError, Result};
use crate::frontend::driver::Resource;
use crate::frontend::request::Cursor;
use crate::frontend::{self, Rect, Rig, pixels};

/// The screen of the first steps.
const SIZE: Size = Size {
    width: 1280,
    height: 800,
};

/// The screen of the last step.
const OTHER_SIZE: Size = Size {
    width: 1024,
    height: 768,
};

/// Where the cursor ends up, and its hot spot.
const CURSOR: Cursor = Cursor {
    scanout: 0,
    x: 300,
    y: 200,
    resource: CURSOR_RESOURCE,
    hot_x: 3,
    hot_y: 5,
};

const CURSOR_RESOURCE: u32 = 3;

impl From<frontend::Error> for LabError {
    fn from(error: frontend::Error) -> Self {
        Self::failed(error.to_string())
    }
}

/// Runs the demo on our daemon and writes pictures and `report.json` into `folder`; `why` is the
/// reason for doing without a VM.
///
/// # Errors
/// When something fails other than a pixel of the screen.
pub fn run(folder: &Path, why: &str) -> Result<Report> {
    fs::create_dir_all(folder).map_err(LabError::context(folder.display()))?;
    let mut demo = Demo {
        rig: Rig::new()?,
        folder,
        steps: Vec::new(),
    };
    demo.draw()?;
    let Demo { rig, steps, .. } = demo;
    rig.finish()?;
    let report = Report {
        backend: "nosnoop-gpu".to_owned(),
        vm: format!("skipped ({why})"),
        guest: None,
        steps,
    };
    write_report(&report, &folder.join("report.json"))?;
    Ok(report)
}

/// The bytes of a picture as Linux lays them out in memory.
fn bytes(size: Size, mut pixel: impl FnMut(u32, u32) -> u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for y in 0..size.height {
        for x in 0..size.width {
            bytes.extend_from_slice(&pixel(x, y).to_le_bytes());
        }
    }
    bytes
}

fn rect(area: Area) -> Rect {
    Rect::new(area.x1, area.y1, area.x2 - area.x1, area.y2 - area.y1)
}

struct Demo<'a> {
    rig: Rig,
    folder: &'a Path,
    steps: Vec<CheckedStep>,
}

impl Demo<'_> {
    fn draw(&mut self) -> Result<()> {
        self.show(1, Step::Mode, SIZE)?;
        let second = self.show(2, Step::Flip, SIZE)?;

        let memory = bytes(SIZE, |x, y| pattern::in_memory_after_damage(x, y, SIZE));
        self.rig.ram.scatter(&second.backing, 0, &memory)?;
        for area in pattern::damaged(SIZE) {
            let offset = 4 * (u64::from(area.y1) * u64::from(SIZE.width) + u64::from(area.x1));
            self.rig.gpu.transfer(second.id, rect(area), offset)?;
            self.rig.gpu.flush(second.id, rect(area))?;
        }
        self.check(Step::Damage, SIZE)?;

        self.cursor()?;
        self.check(Step::Cursor, SIZE)?;

        self.show(4, Step::Resize, OTHER_SIZE)?;
        Ok(())
    }

    /// Shows a step's whole picture on a new resource.
    fn show(&mut self, id: u32, step: Step, size: Size) -> Result<Resource> {
        let Size { width, height } = size;
        let gpu = &mut self.rig.gpu;
        let resource = gpu.create_picture(id, pixels::BGRX, width, height)?;
        gpu.paint(
            &resource,
            &bytes(size, |x, y| pattern::expected(step, x, y, size)),
        )?;
        gpu.set_scanout(0, id, resource.rect())?;
        gpu.flush(id, resource.rect())?;
        self.check(step, size)?;
        Ok(resource)
    }

    /// Shows and moves the cursor, and compares what the display got.
    fn cursor(&mut self) -> Result<()> {
        let size = Size {
            width: CURSOR_SIZE,
            height: CURSOR_SIZE,
        };
        let picture = bytes(size, pattern::cursor);
        let gpu = &mut self.rig.gpu;
        let resource =
            gpu.create_picture(CURSOR_RESOURCE, pixels::BGRA, CURSOR_SIZE, CURSOR_SIZE)?;
        gpu.paint(&resource, &picture)?;
        gpu.update_cursor(Cursor {
            x: 10,
            y: 20,
            ..CURSOR
        })?;
        gpu.move_cursor(CURSOR)?;
        self.rig.display().wait_for("the cursor", |state| {
            let cursor = &state.cursors[0];
            let arrived = cursor.visible && (cursor.x, cursor.y) == (CURSOR.x, CURSOR.y);
            (arrived && cursor.pixels == picture).then_some(())
        })?;
        Ok(())
    }

    fn check(&mut self, step: Step, size: Size) -> Result<()> {
        let display = self.rig.display();
        let index = self.steps.len();
        let checked = check_step(
            step,
            size,
            "XR24".to_owned(),
            Some(self.folder),
            index,
            || {
                let shown = display.wait_for("a screen", |state| state.scanouts[0].clone())?;
                let pixels::Picture {
                    width,
                    height,
                    bytes,
                } = shown.picture;
                Ok(Picture::from_xrgb(Size { width, height }, &bytes))
            },
        )?;
        self.steps.push(checked);
        Ok(())
    }
}
