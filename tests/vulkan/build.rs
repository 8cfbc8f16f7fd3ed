//! Compiles `src/triangle.wgsl` to SPIR-V.

use std::error::Error;
use std::path::Path;
use std::{env, fs};

use naga::back::spv;
use naga::valid::{Capabilities, ValidationFlags, Validator};

const SOURCE: &str = "src/triangle.wgsl";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={SOURCE}");
    let module = naga::front::wgsl::parse_str(&fs::read_to_string(SOURCE)?)?;
    let info = Validator::new(ValidationFlags::all(), Capabilities::empty()).validate(&module)?;
    // Vulkan's y points down in the frame buffer, as the program counts rows.
    let flags = spv::WriterFlags::empty();
    let options = spv::Options {
        flags,
        ..spv::Options::default()
    };
    let words = spv::write_vec(&module, &info, &options, None)?;
    let bytes = words.iter().flat_map(|word| word.to_ne_bytes());
    let target = Path::new(&env::var("OUT_DIR")?).join("triangle.spv");
    Ok(fs::write(target, bytes.collect::<Vec<_>>())?)
}
