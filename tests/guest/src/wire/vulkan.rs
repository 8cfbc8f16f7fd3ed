//! What the program `nosnoop-vulkan` says on its standard output: one line as of [`to_line`](super::to_line).

use serde::{Deserialize, Serialize};

/// Memory of Vulkan's that the program has mapped, with a picture in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drawn {
    /// The names of driver and device.
    pub driver: String,
    /// What Vulkan calls the device.
    pub device: String,
    /// The properties of the memory's type, as Vulkan names them.
    pub memory: String,
    /// Where the program has mapped it in its address space.
    pub address: u64,
    /// Bytes that it has mapped.
    pub size: u64,
    /// How many pixels are not what they are to be.
    pub wrong: u32,
    /// What is wrong with the first of them.
    pub first_wrong: Option<String>,
    /// The picture: a PNG file in hexadecimal digits.
    pub picture: String,
    /// The kernel's list of memory types (debugfs), its lines, while the memory is mapped.
    pub memory_types: Vec<String>,
    /// Milliseconds from the start to the instance, the device, the picture in memory.
    pub millis: [u64; 3],
}
