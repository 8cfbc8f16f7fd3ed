//! The tasks, one function each.

use std::fs;
use std::time::Instant;

use drm::Device as _;
use drm::DriverCapability;
use drm::buffer::{Buffer, DrmFourcc};
use drm::control::{Device as _, Mode, connector};
use nosnoop_guest::pattern::{self, Area, CURSOR_SIZE, Size};
use nosnoop_guest::wire::{Driver, Event, Mode as ListedMode, Step, Task};

use crate::link::Link;
use crate::screen::{Canvas, Card, Screen};
use crate::setup::{Parameters, uptime_ms};
use crate::{Outcome, blobs, transfer};

/// How many small transfers are queued per round of the bench task.
const SMALL_TRANSFERS: u64 = 100;

/// How many transfers of the whole screen are queued per round of the bench task.
const FULL_TRANSFERS: u64 = 5;

/// Of so many rounds of the bench task one draws a whole picture: that is the processor's work, not the
/// device's.
const ROUNDS_PER_DRAWING: u64 = 10;

/// Describes the driver, then runs the task.
pub(crate) fn run(parameters: &Parameters, card: &Card, link: &mut Link) -> Outcome<()> {
    let connector = tell_driver(card, link)?;
    let mut session = Session {
        card,
        screen: Screen::new(card, &connector)?,
        connector,
        link,
    };
    match parameters.task {
        Task::Info => Ok(()),
        Task::Idle => session.idle(),
        Task::Demo => session.demo(),
        Task::Bench => session.bench(parameters.rounds),
        Task::Blob => blobs::run(parameters.rounds, session.link),
        Task::Program | Task::Agent | Task::Chain | Task::Commands => {
            Err("this task has no screen".into())
        }
    }
}

/// Tells what the driver says; the first connected connector.
pub(crate) fn tell_driver(card: &Card, link: &mut Link) -> Outcome<connector::Info> {
    let connector = card
        .connector()
        .map_err(|error| format!("{error}; its kernel: {}", kernel_log().join(" / ")))?;
    let driver = Box::new(describe(card, &connector)?);
    link.send(&Event::Driver {
        uptime_ms: uptime_ms(),
        driver,
    })?;
    Ok(connector)
}

/// The connector's preferred mode.
pub(crate) fn preferred(connector: &connector::Info) -> Outcome<Mode> {
    let modes = connector.modes();
    let preferred = drm::control::ModeTypeFlags::PREFERRED;
    let mode = modes
        .iter()
        .find(|mode| mode.mode_type().contains(preferred));
    Ok(*mode.or(modes.first()).ok_or("the connector has no mode")?)
}

/// Width and height of a mode.
fn size_of_mode(mode: Mode) -> Size {
    let (width, height) = mode.size();
    Size {
        width: width.into(),
        height: height.into(),
    }
}

/// The same picture at a refresh rate beyond anything the device can do: Linux from 6.19 on paces
/// updates of this driver by a timer at the mode's rate, which would be all that is measured.
fn unpaced(mode: Mode) -> Mode {
    let mut timing = drm_ffi::drm_mode_modeinfo::from(mode);
    timing.clock = timing.clock.saturating_mul(100);
    Mode::from(timing)
}

/// Collects what the kernel says about the GPU.
fn describe(card: &Card, connector: &connector::Info) -> Outcome<Driver> {
    let driver = card.get_driver()?;
    let (major, minor, patch) = driver.version;
    let edid = card.edid(connector.handle())?;
    let mut modes = connector.modes().to_vec();
    modes.sort_by_key(|mode| {
        !mode
            .mode_type()
            .contains(drm::control::ModeTypeFlags::PREFERRED)
    });
    Ok(Driver {
        name: driver.name().to_string_lossy().into_owned(),
        description: driver.description().to_string_lossy().into_owned(),
        version: [major, minor, patch],
        kernel: rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned(),
        connector: connector.to_string(),
        modes: modes
            .into_iter()
            .map(|mode| {
                let Size { width, height } = size_of_mode(mode);
                ListedMode {
                    width,
                    height,
                    refresh: mode.vrefresh(),
                }
            })
            .collect(),
        edid: edid.iter().map(|byte| format!("{byte:02x}")).collect(),
        cursor: [
            card.get_driver_capability(DriverCapability::CursorWidth)?,
            card.get_driver_capability(DriverCapability::CursorHeight)?,
        ],
        features: virtio_features(),
        debug: debug_features(),
        log: kernel_log(),
    })
}

/// The feature bits of the virtio device that the GPU driver is bound to; empty when not found.
fn virtio_features() -> String {
    // The DRM device belongs to the PCI function, and the virtio device lies below that.
    let below = fs::read_dir("/sys/class/drm/card0/device")
        .into_iter()
        .flatten()
        .flatten();
    below
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("virtio"))
        .find_map(|entry| fs::read_to_string(entry.path().join("features")).ok())
        .map_or_else(String::new, |features| features.trim().to_owned())
}

/// The driver's own feature list from debugfs; empty where the kernel shows none.
fn debug_features() -> Vec<String> {
    // The folder is named by the minor number or, on newer kernels, by the device too.
    let folders = fs::read_dir("/sys/kernel/debug/dri")
        .into_iter()
        .flatten()
        .flatten();
    let text = folders
        .filter_map(|folder| fs::read_to_string(folder.path().join("virtio-gpu-features")).ok())
        .next();
    let lines = text.unwrap_or_default();
    lines
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

/// The lines of the kernel log that name the driver.
fn kernel_log() -> Vec<String> {
    let Ok(log) = rustix::fs::open(
        "/dev/kmsg",
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK,
        rustix::fs::Mode::empty(),
    ) else {
        return Vec::new();
    };
    let mut lines = Vec::new();
    // Each read gives one record; the longest that the kernel writes is 8 KiB.
    let mut record = [0; 8192];
    while let Ok(length) = rustix::io::read(&log, &mut record) {
        let text = String::from_utf8_lossy(&record[..length]);
        let message = text.split_once(';').map_or("", |(_, rest)| rest);
        let line = message.lines().next().unwrap_or_default();
        if line.contains("virtio_gpu") || line.contains("virtio-gpu") || line.contains("[drm") {
            lines.push(line.to_owned());
        }
    }
    lines
}

/// What the drawing tasks share.
struct Session<'a> {
    card: &'a Card,
    screen: Screen<'a>,
    connector: connector::Info,
    link: &'a mut Link,
}

impl Session<'_> {
    /// The preferred mode.
    fn mode(&self) -> Outcome<Mode> {
        preferred(&self.connector)
    }

    /// Tells the host that a picture is complete and waits for its order.
    fn drawn(&mut self, step: Step, canvas: &Canvas) -> Outcome<()> {
        self.link.send(&Event::Drawn {
            step,
            width: canvas.size.width,
            height: canvas.size.height,
            fourcc: canvas.buffer.format().to_string(),
            pitch: canvas.buffer.pitch(),
            uptime_ms: uptime_ms(),
        })?;
        self.link.wait_to_continue()
    }

    fn demo(&mut self) -> Outcome<()> {
        let mode = self.mode()?;
        let size = size_of_mode(mode);
        let mut first = Canvas::new(self.card, size)?;
        first.draw(self.card, |x, y| pattern::expected(Step::Mode, x, y, size))?;
        self.screen.show(&first, mode)?;
        self.drawn(Step::Mode, &first)?;

        let mut second = Canvas::new(self.card, size)?;
        second.draw(self.card, |x, y| pattern::expected(Step::Flip, x, y, size))?;
        self.screen.flip(&second)?;
        self.drawn(Step::Flip, &second)?;

        second.draw(self.card, |x, y| {
            pattern::expected(Step::Damage, x, y, size)
        })?;
        let [middle, last, edge, corners] = pattern::damaged(size);
        for area in [middle, last, edge] {
            self.screen.damage(&second, &[area])?;
        }
        self.screen.damage(&second, &opposite_corners(corners))?;
        self.drawn(Step::Damage, &second)?;

        let cursor = self.cursor()?;
        self.screen.show_cursor(&cursor.buffer)?;
        for (x, y) in [
            (10, 20),
            (-7, -9),
            (size.width.cast_signed() - 4, size.height.cast_signed() - 4),
        ] {
            self.screen.move_cursor(x, y)?;
        }
        self.drawn(Step::Cursor, &second)?;
        self.screen.hide_cursor()?;

        if let Some(other) = self.other_mode(size) {
            let size = size_of_mode(other);
            let mut third = Canvas::new(self.card, size)?;
            third.draw(self.card, |x, y| {
                pattern::expected(Step::Resize, x, y, size)
            })?;
            self.screen.show(&third, other)?;
            self.drawn(Step::Resize, &third)?;
        }
        Ok(())
    }

    /// The largest mode that is narrower than `size` and at most as high.
    fn other_mode(&self, size: Size) -> Option<Mode> {
        let modes = self.connector.modes().iter().copied();
        modes
            .filter(|mode| {
                let other = size_of_mode(*mode);
                other.width < size.width && other.height <= size.height
            })
            .max_by_key(Mode::size)
    }

    /// The cursor picture.
    fn cursor(&self) -> Outcome<Canvas> {
        let size = Size {
            width: CURSOR_SIZE,
            height: CURSOR_SIZE,
        };
        let buffer =
            self.card
                .create_dumb_buffer((CURSOR_SIZE, CURSOR_SIZE), DrmFourcc::Argb8888, 32)?;
        let frame = self.card.add_framebuffer(&buffer, 32, 32)?;
        let mut canvas = Canvas {
            buffer,
            frame,
            size,
        };
        canvas.draw(self.card, pattern::cursor)?;
        Ok(canvas)
    }

    /// A picture of one colour, shown in `mode`.
    fn plain(&self, mode: Mode) -> Outcome<Canvas> {
        let size = size_of_mode(mode);
        let mut canvas = Canvas::new(self.card, size)?;
        canvas.draw(self.card, |x, y| pattern::expected(Step::Idle, x, y, size))?;
        self.screen.show(&canvas, mode)?;
        Ok(canvas)
    }

    fn idle(&mut self) -> Outcome<()> {
        let canvas = self.plain(self.mode()?)?;
        self.drawn(Step::Idle, &canvas)
    }

    fn bench(&mut self, rounds: u64) -> Outcome<()> {
        let mode = unpaced(self.mode()?);
        let mut canvas = self.plain(mode)?;
        let mut second = Canvas::new(self.card, size_of_mode(mode))?;
        let Size { width, height } = canvas.size;
        let whole = Area {
            x1: 0,
            y1: 0,
            x2: width,
            y2: height,
        };
        let small = Area {
            x1: 32,
            y1: 48,
            x2: 96,
            y2: 112,
        };
        for (what, area) in [("update-full", whole), ("update-64x64", small)] {
            self.measure(what, rounds, |screen, _| screen.damage(&canvas, &[area]))?;
        }
        self.measure("page-flip", rounds, |screen, round| {
            screen.flip(if round.is_multiple_of(2) {
                &second
            } else {
                &canvas
            })
        })?;
        let card = self.card;
        let size = canvas.size;
        let drawn = rounds.div_ceil(ROUNDS_PER_DRAWING);
        self.measure("draw-and-flip", drawn, |screen, round| {
            let back = match round.is_multiple_of(2) {
                true => &mut second,
                false => &mut canvas,
            };
            back.draw(card, |x, y| pattern::pattern(x, y, size, round as u32))?;
            screen.flip(back)
        })?;
        let handle = u32::from(canvas.buffer.handle());
        if transfer::to_host(card, handle, 1, 1).is_err() {
            // A blob: its memory is the host's as well, nothing is transferred.
            return Ok(());
        }
        for (what, width, height, count) in [
            ("transfer-1x1", 1, 1, rounds * SMALL_TRANSFERS),
            ("transfer-64x64", 64, 64, rounds * SMALL_TRANSFERS),
            ("transfer-full", width, height, rounds * FULL_TRANSFERS),
        ] {
            self.measure(what, count, |screen, round| {
                transfer::to_host(card, handle, width, height)?;
                if round + 1 == count {
                    // Commands are done in order, and an update is waited for: the queue is empty.
                    screen.damage(&canvas, &[small])?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Runs `action` `count` times and reports how long that took.
    fn measure(
        &mut self,
        what: &str,
        count: u64,
        mut action: impl FnMut(&Screen<'_>, u64) -> Outcome<()>,
    ) -> Outcome<()> {
        let start = Instant::now();
        for round in 0..count {
            action(&self.screen, round)?;
        }
        let nanos = start.elapsed().as_nanos() as u64;
        self.link.send(&Event::Measured {
            what: what.to_owned(),
            count,
            nanos,
        })
    }
}

/// Two clips in opposite corners of `area` that together span it.
fn opposite_corners(area: Area) -> [Area; 2] {
    let Area { x1, y1, x2, y2 } = area;
    [
        Area {
            x1,
            y1,
            x2: x1 + 9,
            y2: y1 + 4,
        },
        Area {
            x1: x2 - 5,
            y1: y2 - 11,
            x2,
            y2,
        },
    ]
}
