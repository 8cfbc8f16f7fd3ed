//! The task [`Chain`](nosnoop_guest::wire::Task::Chain): an image of each of several GPUs.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nosnoop_guest::pattern::Size;
use nosnoop_guest::wire::{BlobStep, Event};

use crate::Outcome;
use crate::blobs::{GUEST_SEED, HOST_SEED, tell};
use crate::image::{self, Allocator};
use crate::link::Link;

/// Small: the first store to each of its pages may be emulated.
const PICTURE: Size = Size {
    width: 320,
    height: 200,
};

/// How long the driver may take for all GPUs. The host has the deadline that matters.
const NODES_DEADLINE: Duration = Duration::from_secs(240);

/// Runs the task; `gpus` is how many there are.
pub(crate) fn run(gpus: u64, link: &mut Link) -> Outcome<()> {
    for node in nodes(gpus)? {
        let mut described = None;
        let outcome = map_image(&node, &mut described, link);
        link.send(&Event::Gpu {
            described,
            failure: outcome.err().map(|error| error.to_string()),
        })?;
    }
    Ok(())
}

/// The render nodes in the order of their PCI addresses, when all are there.
fn nodes(gpus: u64) -> Outcome<Vec<PathBuf>> {
    let start = Instant::now();
    loop {
        let mut found = Vec::new();
        for entry in fs::read_dir("/sys/class/drm")? {
            let name = entry?.file_name();
            if name.to_string_lossy().starts_with("renderD") {
                let device = Path::new("/sys/class/drm").join(&name).join("device");
                found.push((fs::canonicalize(device)?, Path::new("/dev/dri").join(name)));
            }
        }
        if found.len() as u64 == gpus {
            found.sort();
            return Ok(found.into_iter().map(|(_, node)| node).collect());
        }
        if start.elapsed() > NODES_DEADLINE {
            return Err(format!("{} render nodes instead of {gpus}", found.len()).into());
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Maps an image of the GPU, draws, and looks for what the host has drawn then.
fn map_image(node: &Path, described: &mut Option<u32>, link: &mut Link) -> Outcome<()> {
    let (node, _) = image::open(node)?;
    let allocator = Allocator::new(&node)?;
    let layout = allocator.layout(PICTURE)?;
    *described = Some(layout.map_info);
    let image = allocator.image(layout)?;
    image.draw(GUEST_SEED);
    tell(link, BlobStep::Drawn, [(&image, GUEST_SEED)])?;
    image.check(HOST_SEED)
}
