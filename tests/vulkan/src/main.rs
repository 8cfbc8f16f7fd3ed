//! Draws a triangle by Vulkan, copies it to memory that it maps, and checks every pixel that it sees
//! there. Says what it has found in one line ([`Drawn`]), then reads the memory again and again for as
//! many seconds as its one argument says, so that the mapping can be looked at from outside.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "test code: an overflow here is a bug of the test and may stop it"
)]

mod picture;
mod renderer;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{env, fs};

use nosnoop_guest::wire;
use nosnoop_guest::wire::vulkan::Drawn;
use renderer::{Mapped, Vulkan};

/// Any failure, told as text.
type Outcome<T> = Result<T, Box<dyn Error>>;

/// Where Linux on x86 lists the types of memory that is not plain.
const MEMORY_TYPES: &str = "/sys/kernel/debug/x86/pat_memtype_list";

fn run() -> Outcome<bool> {
    let seconds = env::args().nth(1).map_or(Ok(0), |word| word.parse())?;
    let start = Instant::now();
    let since = || start.elapsed().as_millis() as u64;
    let vulkan = Vulkan::open()?;
    let instance = since();
    let gpu = vulkan.device()?;
    let device = since();
    let mapped = gpu.draw()?;
    let bytes = mapped.read();
    let drawn = since();
    let (wrong, first_wrong) = picture::check(&bytes);
    let picture = picture::png(&bytes)?;
    let list = fs::read_to_string(MEMORY_TYPES).unwrap_or_default();
    let line = wire::to_line(&Drawn {
        driver: vulkan.driver.clone(),
        device: vulkan.name.clone(),
        memory: format!("{:?}", mapped.properties),
        address: mapped.address(),
        size: mapped.size,
        wrong,
        first_wrong,
        picture: picture.iter().map(|byte| format!("{byte:02x}")).collect(),
        memory_types: list.lines().map(str::to_owned).collect(),
        millis: [instance, device, drawn],
    })?;
    io::stdout().write_all(line.as_bytes())?;
    hold(&mapped, seconds);
    Ok(wrong == 0)
}

/// Keeps the memory mapped and in use.
fn hold(mapped: &Mapped, seconds: u64) {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(seconds) {
        let _bytes = mapped.read();
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
