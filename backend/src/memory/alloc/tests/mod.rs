//! The allocators against devices that refuse, drop and vanish as the kernel's do.
#![expect(
    clippy::arithmetic_side_effects,
    reason = "test code: an overflow is to stop the test"
)]

mod devices;
mod fake;
mod model;
mod random;
mod real;
mod refusals;

use std::path::Path;
use std::sync::Arc;

use self::fake::{Device, FakeNode, Faults, Model};
use super::udmabuf::Udmabuf;
use super::{AllocError, Allocator, Handout, Kind};

/// An allocator on a device that is made up, and one open file of that device.
struct Bench {
    device: Arc<Device>,
    node: Arc<FakeNode>,
    allocator: Result<Allocator, AllocError>,
}

impl Bench {
    fn new(model: Model, handout: Handout) -> Self {
        Self::with_faults(model, handout, Faults::default())
    }

    fn with_faults(model: Model, handout: Handout, faults: Faults) -> Self {
        let device = Device::with_faults(model, faults);
        let node = device.open();
        let allocator = allocator(&node, handout);
        Self {
            device,
            node,
            allocator,
        }
    }

    fn allocator(&self) -> &Allocator {
        self.allocator.as_ref().unwrap()
    }
}

/// The allocator for a node, as [`Allocator::open`] and [`Allocator::udmabuf`] choose it.
fn allocator(node: &Arc<FakeNode>, handout: Handout) -> Result<Allocator, AllocError> {
    let node: Arc<FakeNode> = Arc::clone(node);
    if *super::drm_node::Node::driver(&*node) == crate::sys::request::Driver::Udmabuf {
        return Ok(Allocator(Kind::Udmabuf(Udmabuf::new(node))));
    }
    Allocator::of_node(node, Path::new("/dev/dri/renderD128"), handout)
}
