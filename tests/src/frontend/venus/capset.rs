//! The capability set: which protocol the host speaks.

use super::CAPSET_VENUS;
use crate::frontend::driver::Gpu;
use crate::frontend::error::Result;
use crate::frontend::message::u32_at;
use crate::frontend::request;
use crate::frontend::response::{HEADER, resp};

/// Words of `struct virgl_renderer_capset_venus` (virglrenderer's `venus_hw.h`).
const WORDS: usize = 40;
/// The word at which the extensions' bits begin, and how many words those are.
const EXTENSIONS: usize = 5;
const EXTENSION_WORDS: usize = 32;

/// What the host says of Venus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capset {
    /// `wire_format_version`: 1 is what this library writes.
    pub wire_format: u32,
    /// The version of `VK_MESA_venus_protocol`.
    pub protocol: u32,
    /// Whether a blob of id 0 is shared memory.
    pub blob_id_0: bool,
    /// Whether each queue has fences on a ring of its own.
    pub multiple_timelines: bool,
    extensions: Vec<u32>,
}

impl Capset {
    /// Asks for it.
    ///
    /// # Errors
    /// [`Error::Refused`](crate::frontend::Error::Refused).
    pub fn get(gpu: &mut Gpu) -> Result<Self> {
        let get = request::get_capset(CAPSET_VENUS, 0);
        let response = gpu.call(&get, HEADER + 4 * WORDS)?;
        let response = response.expect("GET_CAPSET", resp::OK_CAPSET)?;
        let word = |at: usize| u32_at(response.bytes(), HEADER + 4 * at);
        let after = EXTENSIONS + EXTENSION_WORDS;
        Ok(Capset {
            wire_format: word(0),
            protocol: word(3),
            blob_id_0: word(4) != 0,
            multiple_timelines: word(after + 1) != 0,
            extensions: (EXTENSIONS..after).map(word).collect(),
        })
    }

    /// Whether the host's side of the protocol knows a Vulkan extension, by its number.
    pub fn has_extension(&self, number: u32) -> bool {
        let word = self.extensions.get(number as usize / 32);
        word.is_some_and(|word| word & 1 << (number % 32) != 0)
    }
}
