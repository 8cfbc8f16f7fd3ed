//! Images from the host's allocator, as crosvm's guests ask for them: a context of the cross-domain
//! capability set, whose answers arrive in a query ring in guest memory.

use std::path::Path;

use nosnoop_guest::pattern::Size;
use nosnoop_guest::wire::{Image as Told, RenderNode};

use crate::Outcome;
use crate::mapping::Mapping;
use crate::virtgpu::{
    Blob, BlobMemory, Node, PARAM_3D, PARAM_BLOB, PARAM_CAPSETS, PARAM_CONTEXT_INIT,
    PARAM_HOST_VISIBLE,
};

/// The render node of the only GPU.
pub(crate) const NODE: &str = "/dev/dri/renderD128";

/// The capability set of cross-domain contexts, its version and its size.
const CAPSET: u32 = 5;
const CAPSET_VERSION: u32 = 1;
const CAPSET_SIZE: u32 = 16;

/// The ring of queries; ring 1 is a channel's.
const QUERY_RING: u32 = 0;
const RINGS: u32 = 2;

const PAGE: u64 = 4096;

const COMMAND_INIT: u32 = 1;
const COMMAND_GET_IMAGE_REQUIREMENTS: u32 = 2;

/// `DRM_FORMAT_XRGB8888`.
const XRGB8888: u32 = 0x3432_5258;

/// Linear, for a display, read and written by programs (minigbm's `BO_USE_*`).
const IMAGE_FLAGS: u32 = 1 | 1 << 4 | 1 << 9 | 1 << 11;

/// Bytes of an answer in the query ring.
const ANSWER: usize = 64;

/// Opens a render node and says what it can.
pub(crate) fn open(path: &Path) -> Outcome<(Node, RenderNode)> {
    let node = Node::open(path)?;
    let yes = |param| node.param(param) == 1;
    let mut told = RenderNode {
        submissions: yes(PARAM_3D),
        blobs: yes(PARAM_BLOB),
        host_visible: yes(PARAM_HOST_VISIBLE),
        context_init: yes(PARAM_CONTEXT_INIT),
        capsets: node.param(PARAM_CAPSETS).cast_unsigned(),
        cross_domain: String::new(),
    };
    if told.capsets >> CAPSET & 1 == 1 {
        let bytes = node.caps(CAPSET, CAPSET_VERSION, CAPSET_SIZE)?;
        told.cross_domain = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    }
    Ok((node, told))
}

/// The bytes of a command: its header, then `words`.
fn command(number: u32, words: &[u32]) -> Vec<u8> {
    let size = 8 + 4 * words.len() as u32;
    let header = [number | QUERY_RING << 8 | size << 16, 0];
    header
        .iter()
        .chain(words)
        .flat_map(|word| word.to_le_bytes())
        .collect()
}

/// Where an image's blob comes from and how it lies in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    picture: Size,
    stride: u32,
    size: u64,
    blob_id: u64,
    /// How the device says that the image is to be mapped.
    pub(crate) map_info: u32,
}

/// A context that asks the host for images.
#[derive(Debug)]
pub(crate) struct Allocator<'a> {
    node: &'a Node,
    ring: Blob<'a>,
    answers: Mapping,
}

impl<'a> Allocator<'a> {
    /// Makes the context of `node` and its query ring.
    pub(crate) fn new(node: &'a Node) -> Outcome<Self> {
        node.init(CAPSET, RINGS)?;
        let ring = node.blob(BlobMemory::Guest, PAGE)?;
        let answers = ring.map()?;
        let allocator = Self {
            node,
            ring,
            answers,
        };
        let no_channel = [allocator.ring.resource, 0, 0];
        allocator.node.submit(
            &command(COMMAND_INIT, &no_channel),
            QUERY_RING,
            &allocator.ring,
        )?;
        Ok(allocator)
    }

    /// Asks how an image of `picture` will lie in memory.
    pub(crate) fn layout(&self, picture: Size) -> Outcome<Layout> {
        self.answers.write(0, &[0; ANSWER]);
        let Size { width, height } = picture;
        let words = [width, height, XRGB8888, IMAGE_FLAGS];
        let query = command(COMMAND_GET_IMAGE_REQUIREMENTS, &words);
        self.node.submit(&query, QUERY_RING, &self.ring)?;
        let mut answer = [0; ANSWER];
        self.answers.read(0, &mut answer);
        let word = |index: usize| {
            let bytes = answer.iter().skip(4 * index).take(4).rev();
            bytes.fold(0_u32, |word, byte| word << 8 | u32::from(*byte))
        };
        let layout = Layout {
            picture,
            stride: word(0),
            size: u64::from(word(11)) << 32 | u64::from(word(10)),
            blob_id: word(12).into(),
            map_info: word(13),
        };
        let rows = u64::from(layout.stride) * u64::from(height);
        if layout.blob_id == 0 || layout.stride < width * 4 || layout.size < rows {
            return Err(format!("no sensible answer for {width}x{height}: {layout:?}").into());
        }
        Ok(layout)
    }

    /// Makes and maps an image.
    pub(crate) fn image(&self, layout: Layout) -> Outcome<Image<'a>> {
        let blob = self
            .node
            .blob(BlobMemory::Host(layout.blob_id), layout.size)?;
        Ok(Image {
            memory: blob.map()?,
            _blob: blob,
            layout,
        })
    }
}

/// A mapped image in the host's memory.
#[derive(Debug)]
pub(crate) struct Image<'a> {
    memory: Mapping,
    _blob: Blob<'a>,
    layout: Layout,
}

impl Image<'_> {
    /// Draws picture number `seed`.
    pub(crate) fn draw(&self, seed: u32) {
        let Layout {
            picture, stride, ..
        } = self.layout;
        self.memory.draw(picture, stride, seed);
    }

    /// Checks that picture number `seed` is there.
    pub(crate) fn check(&self, seed: u32) -> Outcome<()> {
        let Layout {
            picture, stride, ..
        } = self.layout;
        self.memory.check(picture, stride, seed)
    }

    /// Checks that the first and the last byte are 0, and changes them.
    pub(crate) fn touch(&self) -> Outcome<()> {
        for at in [0, self.memory.size() - 1] {
            let mut byte = [0];
            self.memory.read(at, &mut byte);
            if byte != [0] {
                return Err(format!("byte {at} of a new image is not 0").into());
            }
            self.memory.write(at, &[0x5a]);
        }
        Ok(())
    }

    /// What the host is told about the image, which shows picture number `seed`.
    pub(crate) fn tell(&self, seed: u32) -> Told {
        let Size { width, height } = self.layout.picture;
        Told {
            width,
            height,
            stride: self.layout.stride,
            size: self.layout.size,
            map_info: self.layout.map_info,
            address: self.memory.address(),
            seed,
        }
    }
}
