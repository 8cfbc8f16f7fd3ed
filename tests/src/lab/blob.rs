//! Images in the host's memory that a guest has mapped: the blob task's steps, seen from both
//! sides.
//!
//! The host looks at a blob's memory through `/proc`, without the daemon's help, and at the
//! guest's page tables through QEMU.

use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nosnoop_guest::pattern::Size;
use nosnoop_guest::wire::{BlobStep, Event, Image, Order, RenderNode, Task};
use serde::Serialize;

use super::backend::{Backend, Kind, no_process};
use super::demo::{Lab, ONE_MACHINE, STEP_LIMIT, wait_for_driver};
use super::pages::{Mapped, Page};
use super::picture::{Comparison, Picture};
use super::process::POLL;
use super::qemu::{Device, Machine, Setup};
use super::report::write_report;
use super::usage::{Held, Usage};
use super::{LabError, Result, say};

/// Options of our daemon for host blobs: a region that QEMU and its firmware place above 4 GiB,
/// where no range register changes the memory type, and the size of a screen that nobody sees.
pub const OPTIONS: [&str; 4] = ["--shm-size", "8G", "--output", "1024x768"];

/// How long what the guest has given back may take to go: it does not wait for that.
const SETTLE_LIMIT: Duration = Duration::from_secs(20);

/// How long the processor may be in another address space than the waiting program's. A look takes
/// seconds in a machine in a machine.
const PAGES_LIMIT: Duration = Duration::from_secs(60);

/// How long the guest may take for all its rounds.
const ROUNDS_LIMIT: Duration = Duration::from_secs(600);

/// One image as both sides see it.
#[derive(Clone, Debug, Serialize)]
pub struct CheckedImage {
    /// What the guest says.
    pub image: Image,
    /// Where and how the guest's processor maps it.
    pub mapped: Mapped,
    /// How the host's memory compares with what the guest has drawn.
    pub comparison: Comparison,
}

/// What is there while nothing is mapped.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Rest {
    /// What the backend holds open.
    pub held: Held,
    /// Memory and processor time of the backend.
    pub usage: Usage,
    /// What QEMU holds open.
    pub qemu_held: Held,
    /// How many of QEMU's memory mappings are of host blobs.
    pub qemu_blobs: usize,
    /// Memory and processor time of QEMU.
    pub qemu_usage: Usage,
}

impl fmt::Display for Rest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "daemon {} descriptors, {} mappings, {} KiB; QEMU {} descriptors, {} mappings ({} of \
             blobs), {} KiB",
            self.held.descriptors,
            self.held.mappings,
            self.usage.own_kib(),
            self.qemu_held.descriptors,
            self.qemu_held.mappings,
            self.qemu_blobs,
            self.qemu_usage.own_kib()
        )
    }
}

/// A whole run of the blob task.
#[derive(Clone, Debug, Serialize)]
pub struct BlobReport {
    /// What the guest's render node can.
    pub node: RenderNode,
    /// The image that both sides have drawn into; the guest has checked what the host has drawn.
    pub drawn: CheckedImage,
    /// The images that were mapped at once.
    pub many: Vec<CheckedImage>,
    /// Before the rounds.
    pub before: Rest,
    /// How often an image was made, mapped and given back.
    pub rounds: u64,
    /// Nanoseconds for all rounds by the guest's clock.
    pub nanos: u64,
    /// After the rounds.
    pub after: Rest,
    /// The image that stays mapped.
    pub left: CheckedImage,
}

/// Goes through the blob task in a machine that has just been started. The guest waits for its
/// last order afterwards, with one image mapped. Pictures are kept in `folder` if there is one.
///
/// # Errors
/// When the guest fails, or something is not mapped as it should be; wrong pixels and wrong memory
/// types are no error but part of the result.
pub fn check(machine: &mut Machine<'_>, folder: Option<&Path>) -> Result<BlobReport> {
    wait_for_driver(machine)?;
    let node = match machine.event("the render node", STEP_LIMIT)? {
        Event::RenderNode { node } => node,
        other => return Err(unexpected(&other)),
    };

    let (images, list) = step(machine, BlobStep::Drawn, STEP_LIMIT)?;
    let drawn = the_one(checked(machine, &images, &list)?)?;
    if let Some(folder) = folder {
        for file in machine.backend.blob_files()? {
            view(&file, &drawn.image)?.save(&folder.join("blob.png"))?;
        }
    }
    for file in machine.backend.blob_files()? {
        draw(&file, &drawn.image)?;
    }
    machine.order(Order::Continue)?;

    let (images, list) = step(machine, BlobStep::Many, STEP_LIMIT)?;
    let many = checked(machine, &images, &list)?;
    machine.order(Order::Continue)?;

    step(machine, BlobStep::Empty, STEP_LIMIT)?;
    let before = rest(machine)?;
    machine.order(Order::Continue)?;
    let (rounds, nanos) = match machine.event("the guest to map and unmap", ROUNDS_LIMIT)? {
        Event::Measured { count, nanos, .. } => (count, nanos),
        other => return Err(unexpected(&other)),
    };
    step(machine, BlobStep::Looped, STEP_LIMIT)?;
    let after = rest(machine)?;
    machine.order(Order::Continue)?;

    let (images, list) = step(machine, BlobStep::Left, STEP_LIMIT)?;
    let left = the_one(checked(machine, &images, &list)?)?;
    machine.order(Order::Continue)?;
    match machine.event("the end of the task", STEP_LIMIT)? {
        Event::Done => {}
        other => return Err(unexpected(&other)),
    }
    Ok(BlobReport {
        node,
        drawn,
        many,
        before,
        rounds,
        nanos,
        after,
        left,
    })
}

fn unexpected(event: &Event) -> LabError {
    LabError::failed(format!("the guest told {event:?} out of turn"))
}

/// Waits for a step: what is mapped, and Linux's list of memory types.
fn step(
    machine: &mut Machine<'_>,
    awaited: BlobStep,
    limit: Duration,
) -> Result<(Vec<Image>, Vec<String>)> {
    match machine.event(&format!("the step {awaited:?}"), limit)? {
        Event::Images {
            step,
            images,
            memory_types,
            ..
        } if step == awaited => Ok((images, memory_types)),
        other => Err(unexpected(&other)),
    }
}

fn the_one(images: Vec<CheckedImage>) -> Result<CheckedImage> {
    <[CheckedImage; 1]>::try_from(images)
        .map(|[image]| image)
        .map_err(|images| LabError::failed(format!("{} images instead of one", images.len())))
}

/// Looks at all images from both sides.
fn checked(
    machine: &mut Machine<'_>,
    images: &[Image],
    list: &[String],
) -> Result<Vec<CheckedImage>> {
    let mapped = mapped(|| machine.pages(), images, list)?;
    let files = machine.backend.blob_files()?;
    if files.len() != images.len() {
        return Err(LabError::failed(format!(
            "the backend has {} blobs for {} images",
            files.len(),
            images.len()
        )));
    }
    let mut checked = Vec::new();
    for (image, mapped) in images.iter().zip(mapped) {
        let expected = Picture::numbered(size_of(image), image.seed);
        let comparisons = files
            .iter()
            .map(|file| Ok(view(file, image)?.compare(&expected)))
            .collect::<Result<Vec<_>>>()?;
        // Which file belongs to which image is nowhere to see but in the picture itself.
        let best = comparisons.into_iter().min_by_key(|found| found.wrong);
        checked.push(CheckedImage {
            image: *image,
            mapped,
            comparison: best.ok_or_else(|| LabError::failed("no blob to look at"))?,
        });
    }
    Ok(checked)
}

/// Where the guest's processor maps each image, by the pages that `look` shows; no two may share
/// memory.
pub(super) fn mapped(
    mut look: impl FnMut() -> Result<Vec<Page>>,
    images: &[Image],
    list: &[String],
) -> Result<Vec<Mapped>> {
    let start = Instant::now();
    let mut found = loop {
        let pages = look()?;
        let find = |image: &Image| Mapped::find(&pages, image.address, image.size, list);
        if let Some(found) = images.iter().map(find).collect::<Option<Vec<_>>>() {
            break found;
        }
        if start.elapsed() > PAGES_LIMIT {
            let near = |page: &&Page| images.iter().any(|image| page.address == image.address);
            let first = pages.iter().find(near);
            return Err(LabError::failed(format!(
                "QEMU shows no complete mapping of {} images among {} pages; the first found \
                 begins with {first:?}",
                images.len(),
                pages.len()
            )));
        }
        // The processor may be in another address space for a moment.
        thread::sleep(POLL);
    };
    let result = found.clone();
    found.sort_by_key(|mapped| mapped.physical);
    let pairs = found.iter().zip(found.iter().skip(1));
    for (low, high) in pairs {
        if low.physical + low.size > high.physical {
            return Err(LabError::failed(format!(
                "two images share memory: {low:?}, {high:?}"
            )));
        }
    }
    Ok(result)
}

/// Waits until neither the backend nor QEMU has anything left of any blob, and neither opens or
/// closes anything any more.
fn rest(machine: &mut Machine<'_>) -> Result<Rest> {
    let start = Instant::now();
    let mut earlier = None;
    loop {
        let files = machine.backend.blob_files()?.len();
        let qemu_blobs = machine.blob_mappings()?;
        let (held, qemu_held) = (machine.backend.held()?, machine.held()?);
        let empty = files == 0 && qemu_blobs == 0;
        if empty && earlier == Some((held, qemu_held)) {
            return Ok(Rest {
                held,
                usage: machine.backend.usage()?.ok_or_else(no_process)?,
                qemu_held,
                qemu_blobs,
                qemu_usage: machine.usage()?,
            });
        }
        if start.elapsed() > SETTLE_LIMIT {
            return Err(LabError::failed(format!(
                "nothing is mapped in the guest, but the backend has {files} blobs ({held:?}) and \
                 QEMU maps {qemu_blobs} ({qemu_held:?})"
            )));
        }
        earlier = empty.then_some((held, qemu_held));
        thread::sleep(POLL);
    }
}

/// Waits until the backend has no blob left, after its machine has ended.
///
/// # Errors
/// When one stays.
pub fn wait_for_none(backend: &Backend) -> Result<()> {
    let start = Instant::now();
    loop {
        let files = backend.blob_files()?.len();
        if files == 0 {
            return Ok(());
        }
        if start.elapsed() > SETTLE_LIMIT {
            return Err(LabError::failed(format!(
                "the machine has ended, but the backend still has {files} blobs"
            )));
        }
        thread::sleep(POLL);
    }
}

fn size_of(image: &Image) -> Size {
    Size {
        width: image.width,
        height: image.height,
    }
}

/// The picture in a blob's memory. A blob that is too small for it shows as zeros.
fn view(file: &File, image: &Image) -> Result<Picture> {
    let mut pixels = vec![0; image.width as usize * image.height as usize * 4];
    let rows = pixels.chunks_exact_mut(image.width as usize * 4);
    for (y, row) in (0..u64::from(image.height)).zip(rows) {
        let mut done = 0;
        while done < row.len() {
            let at = y * u64::from(image.stride) + done as u64;
            let length = file
                .read_at(&mut row[done..], at)
                .map_err(LabError::context("reading a blob"))?;
            if length == 0 {
                break;
            }
            done += length;
        }
    }
    Ok(Picture::from_xrgb(size_of(image), &pixels))
}

/// Draws the next picture into a blob's memory.
fn draw(file: &File, image: &Image) -> Result<()> {
    let picture = Picture::numbered(size_of(image), image.seed + 1);
    let rows = picture.pixels.chunks_exact(image.width as usize);
    for (y, row) in (0..).zip(rows) {
        let bytes = row
            .iter()
            .flat_map(|pixel| pixel.to_le_bytes())
            .collect::<Vec<_>>();
        file.write_all_at(&bytes, u64::from(image.stride) * y)
            .map_err(LabError::context("writing a blob"))?;
    }
    Ok(())
}

/// Boots a guest with the blob task on our daemon, goes through it, and writes pictures and
/// `blob.json` into `folder`.
///
/// # Errors
/// As [`check`].
pub fn run(lab: &Lab, rounds: u64, folder: &Path) -> Result<BlobReport> {
    fs::create_dir_all(folder).map_err(LabError::context(folder.display()))?;
    let options = [&OPTIONS[..], &ONE_MACHINE].concat();
    let mut backend = Backend::start(&Kind::OURS, &lab.root, &options)?;
    say(format_args!(
        "booting Linux {} under {} with a shared-memory region",
        lab.root.kernel.release, lab.root.qemu_version
    ));
    let mut machine = lab.boot(
        &mut backend,
        &Setup {
            device: Device::Test,
            rounds,
            ..Setup::new(Task::Blob)
        },
    )?;
    let report = check(&mut machine, Some(folder))?;
    let status = machine.power_off()?;
    if !status.success() {
        return Err(LabError::failed(format!("QEMU ended with {status}")));
    }
    write_report(&report, &folder.join("blob.json"))?;
    Ok(report)
}

/// The report for people: one fact a line.
#[must_use]
pub fn describe(report: &BlobReport) -> String {
    let CheckedImage { image, mapped, .. } = &report.drawn;
    let listed = mapped.listed.as_deref().unwrap_or("nothing");
    let each = report.nanos / report.rounds.max(1) / 1000;
    [
        format!(
            "image         {}x{}, {} bytes a row, {} bytes in the host's memory",
            image.width, image.height, image.stride, image.size
        ),
        format!(
            "mapped        at {:#x} in the program, {:#x} in the guest's physical memory",
            mapped.address, mapped.physical
        ),
        format!(
            "memory type   {} (page-table bits {}); Linux lists {listed}",
            mapped.memory_type.name(),
            mapped.flags
        ),
        format!("host reads    {}", report.drawn.comparison),
        "guest reads   the host's picture, every row checked".to_owned(),
        format!("at once       {} images", report.many.len()),
        format!(
            "rounds        {} times made, mapped, given back; {each} us each by the guest's clock",
            report.rounds
        ),
        format!(
            "before        {}\n  after         {}",
            report.before, report.after
        ),
    ]
    .map(|line| format!("  {line}\n"))
    .concat()
}
