//! The task [`Blob`](nosnoop_guest::wire::Task::Blob): images in the host's memory.

use std::fs;
use std::mem;
use std::path::Path;
use std::time::Instant;

use nosnoop_guest::pattern::Size;
use nosnoop_guest::wire::{BlobStep, Event};

use crate::Outcome;
use crate::image::{self, Allocator, Image};
use crate::link::Link;
use crate::setup::uptime_ms;

/// The kernel's list of the memory types that it has given to device memory.
const MEMORY_TYPES: &str = "/sys/kernel/debug/x86/pat_memtype_list";

/// The image that both sides draw into.
const PICTURE: Size = Size {
    width: 640,
    height: 480,
};

/// How many images are mapped at once.
const MANY: u32 = 40;

/// The numbers of the pictures that the guest and the host draw into the first image.
pub(crate) const GUEST_SEED: u32 = 1;
pub(crate) const HOST_SEED: u32 = 2;

/// Runs the task; `rounds` is how often an image is made, mapped and given back.
pub(crate) fn run(rounds: u64, link: &mut Link) -> Outcome<()> {
    let (node, told) = image::open(Path::new(image::NODE))?;
    link.send(&Event::RenderNode { node: told })?;
    let allocator = Allocator::new(&node)?;

    let layout = allocator.layout(PICTURE)?;
    let first = allocator.image(layout)?;
    first.draw(GUEST_SEED);
    tell(link, BlobStep::Drawn, [(&first, GUEST_SEED)])?;
    first
        .check(HOST_SEED)
        .map_err(|error| format!("what the host has drawn: {error}"))?;
    drop(first);

    let many = (1..=MANY)
        .map(|seed| {
            let image = allocator.image(allocator.layout(Size {
                width: 63 + seed,
                height: 48,
            })?)?;
            image.draw(seed);
            Ok((image, seed))
        })
        .collect::<Outcome<Vec<_>>>()?;
    for (image, seed) in &many {
        image.check(*seed)?;
    }
    tell(
        link,
        BlobStep::Many,
        many.iter().map(|(image, seed)| (image, *seed)),
    )?;
    drop(many);
    tell(link, BlobStep::Empty, [])?;

    let start = Instant::now();
    for _ in 0..rounds {
        allocator.image(layout)?.touch()?;
    }
    link.send(&Event::Measured {
        what: "map-unmap".to_owned(),
        count: rounds,
        nanos: start.elapsed().as_nanos() as u64,
    })?;
    tell(link, BlobStep::Looped, [])?;

    let left = allocator.image(layout)?;
    left.draw(GUEST_SEED);
    tell(link, BlobStep::Left, [(&left, GUEST_SEED)])?;
    // The machine ends or restarts with the image mapped: nothing here gives it back.
    mem::forget((left, allocator));
    mem::forget(node);
    Ok(())
}

/// Tells the host what is mapped, and waits for its order.
pub(crate) fn tell<'a>(
    link: &mut Link,
    step: BlobStep,
    images: impl IntoIterator<Item = (&'a Image<'a>, u32)>,
) -> Outcome<()> {
    let list = fs::read_to_string(MEMORY_TYPES).unwrap_or_default();
    link.send(&Event::Images {
        step,
        images: images
            .into_iter()
            .map(|(image, seed)| image.tell(seed))
            .collect(),
        memory_types: list.lines().map(str::to_owned).collect(),
        uptime_ms: uptime_ms(),
    })?;
    link.wait_to_continue()
}
