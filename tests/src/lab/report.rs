//! What a demo run found, as JSON and as text for people.

use std::fs;
use std::path::Path;

use nosnoop_guest::wire::{Driver, Step};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::picture::Comparison;
use super::{LabError, Result};

/// One step of a run.
#[derive(Clone, Debug, Serialize)]
pub struct CheckedStep {
    /// Which picture.
    pub step: Step,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// The guest's format of the frame buffer.
    pub fourcc: String,
    /// How the screen compares with the expectation.
    pub comparison: Comparison,
    /// Milliseconds from the guest's word to the right picture, or to giving up.
    pub settled_ms: u64,
    /// The picture's file, where one was kept.
    pub file: Option<String>,
}

/// Milliseconds from QEMU's start.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct BootTimes {
    /// To the first word of the guest program.
    pub program_ms: u64,
    /// To the driver being up.
    pub driver_ms: u64,
    /// To the first complete picture on the screen.
    pub picture_ms: u64,
}

/// What only a run with a VM has.
#[derive(Clone, Debug, Serialize)]
pub struct VmPart {
    /// QEMU's version.
    pub qemu: String,
    /// Where QEMU and the kernel come from.
    pub root: String,
    /// `kvm` or `tcg`.
    pub accelerator: String,
    /// What the guest said about the GPU.
    pub driver: Driver,
    /// How long the start took.
    pub boot: BootTimes,
}

/// A whole run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The backend.
    pub backend: String,
    /// `booted`, or `skipped` with the reason.
    pub vm: String,
    /// What the VM told; absent where it was skipped.
    pub guest: Option<VmPart>,
    /// The checked pictures.
    pub steps: Vec<CheckedStep>,
}

impl Report {
    /// Wrong pixels of all steps.
    #[must_use]
    pub fn wrong(&self) -> u64 {
        self.steps.iter().map(|step| step.comparison.wrong).sum()
    }

    /// Compared pixels of all steps.
    #[must_use]
    pub fn pixels(&self) -> u64 {
        self.steps.iter().map(|step| step.comparison.pixels).sum()
    }
}

/// Writes a report as JSON.
///
/// # Errors
/// When the file cannot be written.
pub fn write_report(report: &impl Serialize, path: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(report).map_err(LabError::context("the report"))?;
    fs::write(path, text + "\n").map_err(LabError::context(path.display()))
}

/// Reads a report that [`write_report`] wrote.
///
/// # Errors
/// When the file cannot be read, or is no such report.
pub fn read_report<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).map_err(LabError::context(path.display()))?;
    serde_json::from_str(&text).map_err(LabError::context(path.display()))
}

/// How many modes the text for people shows.
const SHOWN_MODES: usize = 6;

/// What the guest saw, for people: one fact a line; nothing where no guest ran.
#[must_use]
pub fn describe(report: &Report) -> String {
    let Some(guest) = &report.guest else {
        return String::new();
    };
    let driver = &guest.driver;
    let [major, minor, patch] = driver.version;
    let modes = driver
        .modes
        .iter()
        .take(SHOWN_MODES)
        .map(|mode| format!("{}x{}@{}", mode.width, mode.height, mode.refresh))
        .chain((driver.modes.len() > SHOWN_MODES).then(|| "...".to_owned()));
    let first = report.steps.first();
    let step = |text: &dyn Fn(&CheckedStep) -> String| first.map_or_else(String::new, text);
    [
        format!("guest kernel  Linux {}", driver.kernel),
        format!(
            "driver        {} {major}.{minor}.{patch} ({})",
            driver.name, driver.description
        ),
        format!(
            "features      {}",
            feature_names(&driver.features).join(" ")
        ),
        format!("connector     {}", driver.connector),
        format!(
            "monitor       {}",
            edid_name(&driver.edid).unwrap_or("no EDID".to_owned())
        ),
        format!(
            "resolution    {}",
            step(&|step| format!("{}x{}", step.width, step.height))
        ),
        format!("pixel format  {}", step(&|step| step.fourcc.clone())),
        format!("modes         {}", modes.collect::<Vec<_>>().join(" ")),
        format!(
            "cursor        up to {}x{}",
            driver.cursor[0], driver.cursor[1]
        ),
        format!(
            "boot          guest program {} ms, driver {} ms, picture {} ms after QEMU's start \
             ({})",
            guest.boot.program_ms, guest.boot.driver_ms, guest.boot.picture_ms, guest.accelerator
        ),
    ]
    .map(|line| format!("  {line}\n"))
    .concat()
}

/// Names of the set bits in a list of virtio features as digits, lowest bit first.
fn feature_names(digits: &str) -> Vec<String> {
    const DEVICE: [&str; 6] = [
        "VIRGL",
        "EDID",
        "RESOURCE_UUID",
        "RESOURCE_BLOB",
        "CONTEXT_INIT",
        "BLOB_ALIGNMENT",
    ];
    let transport = [
        (28, "INDIRECT_DESC"),
        (29, "EVENT_IDX"),
        (32, "VERSION_1"),
        (33, "ACCESS_PLATFORM"),
        (40, "RING_RESET"),
    ];
    digits
        .bytes()
        .enumerate()
        .filter(|(_, digit)| *digit == b'1')
        .map(|(bit, _)| {
            let known = transport.iter().find(|(number, _)| *number == bit);
            let name = DEVICE.get(bit).copied().or(known.map(|(_, name)| *name));
            name.map_or_else(|| format!("bit{bit}"), str::to_owned)
        })
        .collect()
}

/// The monitor's name in an EDID given as hexadecimal digits (VESA E-EDID, display descriptor
/// with tag 0xfc).
fn edid_name(digits: &str) -> Option<String> {
    let bytes = digits
        .as_bytes()
        .chunks_exact(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect::<Option<Vec<_>>>()?;
    let descriptors = bytes.get(54..126)?.chunks_exact(18);
    let name = descriptors
        .filter_map(|descriptor| descriptor.strip_prefix(&[0, 0, 0, 0xfc, 0]))
        .next()?;
    Some(String::from_utf8_lossy(name).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feature_digits_become_names() {
        let mut digits = "0".repeat(64);
        digits.replace_range(1..2, "1");
        digits.replace_range(32..33, "1");
        digits.replace_range(50..51, "1");
        assert_eq!(feature_names(&digits), ["EDID", "VERSION_1", "bit50"]);
    }

    #[test]
    fn the_monitor_name_is_found() {
        let mut edid = [0u8; 128];
        edid[72..77].copy_from_slice(&[0, 0, 0, 0xfc, 0]);
        edid[77..90].copy_from_slice(b"QEMU Monitor\n");
        let digits = edid
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>();
        assert_eq!(edid_name(&digits), Some("QEMU Monitor".to_owned()));
        assert_eq!(edid_name(""), None);
    }
}
