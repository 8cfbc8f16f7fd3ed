//! Doing a piece of work on a back-end.

use std::time::Duration;

use super::Missing;
use super::case::{Damage, Work, XGA};
use super::driver::{Driver, Prepared};
use super::stage::{Needs, Stage};
use super::stats::{Sample, repeat, timed};
use crate::frontend::cross_domain::{CAPSET, ImageContext, ImageRequest};
use crate::frontend::driver::{Gpu, Resource};
use crate::frontend::error::Error;
use crate::frontend::memory::{PAGE, Span};
use crate::frontend::message::{feature, u32_at};
use crate::frontend::request::{self, CreateBlob, Rect, RequestBytes, ScanoutBlob};
use crate::frontend::response::{self, HEADER, resp};
use crate::peers;

/// `B8G8R8X8_UNORM`.
const FORMAT: u32 = 2;
/// The first resource id in use.
const RESOURCE: u32 = 1;
/// What is drawn to see whether it arrives: blue, green, red.
type Colour = [u8; 3];
/// What is drawn first, and what comes second.
const COLOURS: [Colour; 2] = [[0x12, 0x34, 0x56], [0x65, 0x43, 0x21]];
const CONTEXT: u32 = 1;
const QUERY_RING: u32 = 100;
/// Capability sets that are looked at: more than any back-end has.
const MOST_CAPSETS: u32 = 16;

type Outcome<T> = Result<T, Missing>;

/// Measures one cell.
///
/// # Errors
/// [`Missing`] when the back-end does not have it, or fails.
pub(super) fn measure(work: Work, backend: &peers::Prepared, span: Duration) -> Outcome<Sample> {
    let (display, needs) = match work {
        Work::Transfer { size, .. } => (size, Needs::Plain),
        Work::Flush(damage) | Work::Update(damage) | Work::Frame(damage) => {
            (damage.picture, Needs::Plain)
        }
        Work::Flip(size) => (size, Needs::GuestBlobs),
        Work::Image(_) | Work::Map(_) | Work::Unmap(_) => (XGA, Needs::HostBlobs),
        Work::Command { .. } | Work::DisplayInfo { .. } => (XGA, Needs::Plain),
    };
    let mut cell = Cell {
        stage: Stage::open(backend, display, needs)?,
        span,
    };
    let measured = cell.measure(work);
    measured.map_err(|missing| cell.stage.explain(missing))
}

struct Cell {
    stage: Stage,
    span: Duration,
}

fn plain(name: &'static str, request: &RequestBytes) -> Prepared {
    Prepared {
        name,
        request: request.to_vec(),
        room: HEADER,
        expected: resp::OK_NODATA,
    }
}

impl Cell {
    fn measure(&mut self, work: Work) -> Outcome<Sample> {
        match work {
            Work::Command {
                outstanding,
                fenced,
            } => self.commands(outstanding, fenced),
            Work::DisplayInfo { outstanding } => {
                let command = Prepared {
                    name: "GET_DISPLAY_INFO",
                    request: request::get_display_info().to_vec(),
                    room: response::DISPLAY_INFO,
                    expected: resp::OK_DISPLAY_INFO,
                };
                self.outstanding(&vec![command; outstanding])
            }
            Work::Transfer { size, pages } => self.transfer(size, pages),
            Work::Flush(damage) => {
                let (picture, rect) = self.shown(damage)?;
                self.together(&[plain("RESOURCE_FLUSH", &request::flush(picture.id, rect))])
            }
            Work::Update(damage) => {
                let (picture, rect) = self.shown(damage)?;
                self.together(&update(&picture, rect))
            }
            Work::Frame(damage) => self.frames(damage),
            Work::Flip(size) => self.flips(size),
            Work::Image((width, height)) => self.images(width, height),
            Work::Map(bytes) => self.mappings(bytes, true),
            Work::Unmap(bytes) => self.mappings(bytes, false),
        }
    }

    fn driver(&mut self, commands: &[Prepared]) -> Outcome<Driver> {
        let session = &mut self.stage.session;
        let event_idx = session.features & feature::EVENT_IDX != 0;
        Ok(Driver::new(&mut session.gpu, event_idx, commands)?)
    }

    /// Repeats a round, with the back-end's processor time and memory around it.
    fn rounds(
        &self,
        operations: u64,
        mut round: impl FnMut() -> Result<Duration, Error>,
    ) -> Outcome<Sample> {
        let before = self.stage.usage()?.cpu_nanos;
        let mut done = 0;
        let times = repeat(self.span, || {
            done += operations;
            round()
        })?;
        let after = self.stage.usage()?;
        let mut sample = Sample::of(times, operations);
        // With the rounds that warmed up.
        sample.cpu_us = Some((after.cpu_nanos - before) as f64 / 1e3 / done as f64);
        sample.own_kib = Some(after.own_kib());
        Ok(sample)
    }

    /// Repeats all of these commands one after the other; together they are one operation.
    fn together(&mut self, commands: &[Prepared]) -> Outcome<Sample> {
        let mut driver = self.driver(commands)?;
        let all = 0..commands.len();
        self.rounds(1, || timed(|| driver.batch(all.clone())))
    }

    /// Keeps all of these commands in the queue: when one half is answered it is sent again, while
    /// the back-end works on the other.
    fn outstanding(&mut self, commands: &[Prepared]) -> Outcome<Sample> {
        if commands.len() < 2 {
            return self.together(commands);
        }
        let mut driver = self.driver(commands)?;
        let middle = commands.len() / 2;
        let halves = [0..middle, middle..commands.len()];
        for half in &halves {
            driver.publish(half.clone())?;
        }
        let sample = self.rounds(commands.len() as u64, || {
            timed(|| {
                halves.iter().try_for_each(|half| {
                    driver.collect(half.clone())?;
                    driver.publish(half.clone())
                })
            })
        })?;
        for half in halves {
            driver.collect(half)?;
        }
        Ok(sample)
    }

    fn commands(&mut self, outstanding: usize, fenced: bool) -> Outcome<Sample> {
        let gpu = &mut self.stage.session.gpu;
        let picture = gpu.create_picture(RESOURCE, FORMAT, XGA.0, XGA.1)?;
        let pixel = request::transfer_to_host_2d(picture.id, Rect::sized(1, 1), 0);
        let pixel = if fenced { pixel.fenced(1) } else { pixel };
        let command = plain("TRANSFER_TO_HOST_2D", &pixel);
        self.outstanding(&vec![command; outstanding])
    }

    fn transfer(&mut self, (width, height): (u32, u32), pages: bool) -> Outcome<Sample> {
        let bytes = 4 * width as usize * height as usize;
        let gpu = &mut self.stage.session.gpu;
        let backing = match pages {
            true => gpu.ram.alloc_fragments(bytes, &[PAGE as usize]),
            false => gpu.ram.alloc(bytes).map(|span| vec![span]),
        }?;
        let picture = self.show((width, height), backing)?;
        self.check_shown(&picture, COLOURS[0])?;
        let whole = request::transfer_to_host_2d(picture.id, picture.rect(), 0);
        let flush = request::flush(picture.id, picture.rect());
        let commands = [
            plain("TRANSFER_TO_HOST_2D", &whole),
            plain("RESOURCE_FLUSH", &flush),
        ];
        let mut driver = self.driver(&commands)?;
        let sample = self.rounds(1, || timed(|| driver.batch(0..1)))?;
        // The same command once more, with a flush to see what it brings.
        let session = &self.stage.session;
        session.ram.scatter(&picture.backing, 0, &COLOURS[1])?;
        let before = self.shown_pixels();
        driver.batch(0..2)?;
        self.check_pixel(before + pixels(picture.rect()), COLOURS[1])?;
        Ok(sample)
    }

    /// Makes a picture and shows it.
    fn show(&mut self, (width, height): (u32, u32), backing: Vec<Span>) -> Outcome<Resource> {
        let gpu = &mut self.stage.session.gpu;
        let picture = Resource {
            id: RESOURCE,
            format: FORMAT,
            width,
            height,
            backing,
        };
        gpu.create_2d(picture.id, FORMAT, width, height)
            .and_then(|()| gpu.attach_backing(picture.id, &picture.backing))
            .and_then(|()| gpu.set_scanout(0, picture.id, picture.rect()))?;
        Ok(picture)
    }

    /// A shown picture of which a part is damaged.
    fn shown(&mut self, damage: Damage) -> Outcome<(Resource, Rect)> {
        let (width, height) = damage.picture;
        let bytes = 4 * width as usize * height as usize;
        let backing = self.stage.session.ram.alloc(bytes)?;
        let picture = self.show(damage.picture, vec![backing])?;
        self.check_shown(&picture, COLOURS[0])?;
        let rect = Rect::sized(damage.part.0, damage.part.1);
        Ok((picture, rect))
    }

    /// Draws a pixel and waits until the display has it: a back-end that answers OK and does
    /// nothing is found out here.
    fn check_shown(&mut self, picture: &Resource, colour: Colour) -> Outcome<()> {
        let before = self.shown_pixels();
        let session = &mut self.stage.session;
        let whole = picture.rect();
        session
            .ram
            .scatter(&picture.backing, 0, &colour)
            .and_then(|()| session.gpu.transfer(picture.id, whole, 0))
            .and_then(|()| session.gpu.flush(picture.id, whole))?;
        self.check_pixel(before + pixels(whole), colour)
    }

    /// Pixels that the display has got.
    fn shown_pixels(&self) -> u64 {
        self.stage.session.display().with(|state| state.pixels)
    }

    /// Waits until the display has got so many pixels, the first of the last picture of this colour.
    fn check_pixel(&self, pixels: u64, colour: Colour) -> Outcome<()> {
        let display = self.stage.session.display();
        let seen = display.wait_at_most(super::PROOF, |state| {
            (state.pixels >= pixels).then_some(state.first_pixel)
        });
        match seen {
            Some(pixel) if pixel[..3] == colour => Ok(()),
            Some(pixel) => Err(Missing::Failed(format!(
                "shows {pixel:02x?} where {colour:02x?} was drawn"
            ))),
            None => Err(Missing::Failed(
                "answers OK, but no picture reaches the display".to_owned(),
            )),
        }
    }

    fn frames(&mut self, damage: Damage) -> Outcome<Sample> {
        let (picture, rect) = self.shown(damage)?;
        let mut driver = self.driver(&update(&picture, rect))?;
        let display = self.stage.session.display();
        self.rounds(1, || {
            // Anew each round: a back-end may send more than the damage.
            let expected = display.with(|state| state.pixels) + damage.pixels();
            timed(|| {
                driver.batch(0..2)?;
                display.wait_for("the picture", |state| {
                    (state.pixels >= expected).then_some(())
                })
            })
        })
    }

    fn flips(&mut self, (width, height): (u32, u32)) -> Outcome<Sample> {
        let size = 4 * u64::from(width) * u64::from(height);
        let size = size.next_multiple_of(PAGE);
        let mut commands = Vec::new();
        for (resource, colour) in [RESOURCE, RESOURCE + 1].into_iter().zip(COLOURS) {
            let gpu = &mut self.stage.session.gpu;
            let backing = gpu.ram.alloc(size as usize)?;
            let blob = CreateBlob {
                resource,
                mem: request::BLOB_MEM_GUEST,
                flags: 0,
                count: 1,
                blob_id: 0,
                size,
            };
            let create = request::create_blob(blob, &[backing.into()]);
            gpu.command("RESOURCE_CREATE_BLOB", &create)
                .and_then(|()| gpu.ram.write(backing.addr, &colour))?;
            let rect = Rect::sized(width, height);
            let scanout = ScanoutBlob {
                scanout: 0,
                resource,
                rect,
                width,
                height,
                format: FORMAT,
                stride: 4 * width,
                offset: 0,
            };
            commands.push(plain(
                "SET_SCANOUT_BLOB",
                &request::set_scanout_blob(scanout),
            ));
            commands.push(plain("RESOURCE_FLUSH", &request::flush(resource, rect)));
        }
        let mut driver = self.driver(&commands)?;
        for (at, colour) in [0, 2].into_iter().zip(COLOURS) {
            let before = self.shown_pixels();
            driver.batch(at..at + 2)?;
            self.check_pixel(before + pixels(Rect::sized(width, height)), colour)?;
        }
        let mut at = 2;
        self.rounds(1, || {
            at = 2 - at;
            timed(|| driver.batch(at..at + 2))
        })
    }

    fn images(&mut self, width: u32, height: u32) -> Outcome<Sample> {
        let gpu = &mut self.stage.session.gpu;
        needs_images(gpu)?;
        let context = ImageContext::new(gpu, CONTEXT, QUERY_RING)?;
        let image = ImageRequest::xrgb(width, height);
        let info = context.image(gpu, image)?;
        let commands = [
            plain(
                "SUBMIT_3D",
                &request::submit_3d(context.id, &image.to_bytes()),
            ),
            plain(
                "RESOURCE_CREATE_BLOB",
                &context.blob_request(RESOURCE, &info),
            ),
            plain("RESOURCE_UNREF", &request::unref(RESOURCE)),
        ];
        let map = gpu.ram.clone();
        let mut driver = self.driver(&commands)?;
        self.rounds(1, || {
            timed(|| {
                driver.batch(0..1)?;
                // A guest reads the answer before it goes on; the blob's id is at byte 48 of it, and
                // at byte 40 of the request that makes the blob.
                let answer = map.read(context.memory.addr, 64)?;
                driver.patch(1, 40, &u64::from(u32_at(&answer, 48)).to_le_bytes())?;
                driver.batch(1..2)?;
                driver.batch(2..3)
            })
        })
    }

    fn mappings(&mut self, bytes: u64, is_map: bool) -> Outcome<Sample> {
        let session = &mut self.stage.session;
        let gpu = &mut session.gpu;
        needs_images(gpu)?;
        ImageContext::new(gpu, CONTEXT, QUERY_RING)
            .and_then(|context| context.blob_of(gpu, RESOURCE, bytes))?;
        let commands = [
            Prepared {
                name: "RESOURCE_MAP_BLOB",
                request: request::map_blob(RESOURCE, 0).to_vec(),
                room: response::MAP_INFO,
                expected: resp::OK_MAP_INFO,
            },
            plain("RESOURCE_UNMAP_BLOB", &request::unmap_blob(RESOURCE)),
        ];
        let mut driver = self.driver(&commands)?;
        let sample = self.rounds(1, || {
            let map = timed(|| driver.batch(0..1))?;
            let unmap = timed(|| driver.batch(1..2))?;
            Ok(if is_map { map } else { unmap })
        })?;
        self.stage.session.check_shmem()?;
        Ok(sample)
    }
}

/// Looks for the capability set whose contexts have images.
fn needs_images(gpu: &mut Gpu) -> Outcome<()> {
    for index in 0..MOST_CAPSETS {
        let answer = gpu.call(&request::get_capset_info(index), response::CAPSET_INFO)?;
        if answer.kind() == resp::OK_CAPSET_INFO && answer.capset_info()[0] == CAPSET {
            return Ok(());
        }
    }
    Err(Missing::Lacks("has no cross-domain contexts".to_owned()))
}

fn pixels(rect: Rect) -> u64 {
    u64::from(rect.width) * u64::from(rect.height)
}

fn update(picture: &Resource, rect: Rect) -> [Prepared; 2] {
    [
        plain(
            "TRANSFER_TO_HOST_2D",
            &request::transfer_to_host_2d(picture.id, rect, 0),
        ),
        plain("RESOURCE_FLUSH", &request::flush(picture.id, rect)),
    ]
}
