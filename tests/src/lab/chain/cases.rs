//! The cases of the chain, each a daemon with options of its own, and the run through all.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::super::{LabError, Result, say};
use super::Parts;
use super::image::Daemon;
use super::inner::{Inner, Reached};
use super::links::{Links, Refused};

/// What `/proc` calls the memory of blobs in plain memory, and of those from vgem, which makes
/// buffers on its card node alone.
const MEMFD: &str = "memfd:nosnoop-blob";
const VGEM: &str = "/dev/dri/card0";

/// Options of all daemons: a region above 4 GiB, where no range register changes the memory type,
/// a small screen, as what is drawn on it takes long here, and patience with QEMU.
pub(super) const OPTIONS: [&str; 6] = [
    "--shm-size",
    "8G",
    "--output",
    "640x480",
    "--shm-deadline",
    "60",
];

/// A daemon, and where its blobs' memory comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    /// The two lines above its column.
    pub(super) name: &'static str,
    /// Which build.
    pub(super) daemon: Daemon,
    /// Its options beside the common ones.
    pub(super) options: &'static [&'static str],
    /// What the name of the memory's file contains.
    pub(super) file: &'static str,
}

/// A release daemon's case.
const fn release(name: &'static str, file: &'static str, options: &'static [&'static str]) -> Case {
    Case {
        name,
        daemon: Daemon::Release,
        options,
        file,
    }
}

/// In the order of the table.
pub(super) const CASES: [Case; 8] = [
    release("memfd auto", MEMFD, &[]),
    release("memfd honored", MEMFD, &["--vmm-memtype", "honored"]),
    release(
        "vgem honored",
        VGEM,
        &["--render-node", VGEM, "--vmm-memtype", "honored"],
    ),
    release("vgem auto", VGEM, &["--render-node", VGEM]),
    release(
        "vgem ignored",
        VGEM,
        &["--render-node", VGEM, "--vmm-memtype", "ignored"],
    ),
    release(
        "vgem off",
        MEMFD,
        &[
            "--render-node",
            VGEM,
            "--vmm-memtype",
            "honored",
            "--noncoherent",
            "off",
        ],
    ),
    release(
        "vgem coerce",
        MEMFD,
        &["--render-node", VGEM, "--noncoherent", "coerce"],
    ),
    // Cached memory announced as what it is not: the check has to see it.
    Case {
        name: "memfd told-WC",
        daemon: Daemon::TestMemtype,
        options: &["--test-memtype", "wc"],
        file: MEMFD,
    },
];

/// What became of an image.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Found {
    /// The guest has mapped it.
    Mapped(Links),
    /// It could not be mapped.
    Refused(Refused),
}

/// A case and what was found.
#[derive(Clone, Debug, Serialize)]
pub struct Checked {
    /// Where the memory comes from, and what differs.
    pub name: String,
    /// The daemon's options beside the common ones.
    pub options: String,
    /// What was found.
    pub found: Found,
    /// What is broken, in words; nothing where every link agrees or nothing is mapped.
    pub broken: Option<String>,
}

/// A whole run.
#[derive(Clone, Debug, Serialize)]
pub struct ChainReport {
    /// Of both machines, which have the same.
    pub qemu: String,
    /// The kernel of both machines.
    pub kernel: String,
    /// The cases.
    pub cases: Vec<Checked>,
    /// Seconds from the outer QEMU's start to its guest's being up, to the inner guest's first image,
    /// and to the end.
    pub seconds: [u64; 3],
}

impl ChainReport {
    /// Whether every case is whole or refused, but for that of memory announced as what it is not,
    /// which has to show.
    #[must_use]
    pub fn is_as_planned(&self) -> bool {
        let mut cases = self.cases.iter().zip(&CASES);
        cases.all(|(found, case)| found.broken.is_some() == (case.daemon == Daemon::TestMemtype))
    }
}

/// Boots both machines and goes through all cases.
///
/// # Errors
/// When a step fails or does not come in time, or a case is neither mapped nor refused. A chain
/// that does not fit together is no error but part of the result.
pub fn run(parts: &Parts) -> Result<ChainReport> {
    say("booting the outer machine");
    let mut outer = parts.boot()?;
    let started = outer.started;
    let since = |from: Instant| Duration::as_secs(&from.elapsed());
    let up = since(started);
    say(format_args!("it is up after {up} s; booting the inner one"));
    let mut inner = Inner::boot(&parts.root, &mut outer, &CASES)?;
    let mut first = 0;
    let mut cases = Vec::new();
    for (number, case) in CASES.iter().enumerate() {
        let begun = Instant::now();
        let refused = |checked: &&Checked| matches!(checked.found, Found::Refused(_));
        let refusals = cases.iter().filter(refused).count();
        let found = look(&mut inner, number, case, refusals)?;
        if number == 0 {
            first = since(started);
        }
        let broken = match &found {
            Found::Mapped(links) => links.check().err().map(|broken| broken.to_string()),
            Found::Refused(_) => None,
        };
        say(format_args!("{}: {} s", case.name, since(begun)));
        cases.push(Checked {
            name: case.name.to_owned(),
            options: case.options.join(" "),
            found,
            broken,
        });
    }
    inner.outer.check_programs()?;
    outer.power_off()?;
    Ok(ChainReport {
        qemu: parts.root.qemu_version.clone(),
        kernel: parts.root.kernel.release.clone(),
        cases,
        seconds: [up, first, since(started)],
    })
}

/// Goes through one case, with `refusals` among the earlier ones.
fn look(inner: &mut Inner<'_>, number: usize, case: &Case, refusals: usize) -> Result<Found> {
    match inner.reach()? {
        Reached::Mapped {
            image,
            memory_types,
        } => {
            let mut links = inner.links(number, &image, &memory_types, case.file)?;
            inner.go_on()?;
            match inner.reach()? {
                Reached::Through { failure, .. } => {
                    links.bytes_right &= failure.is_none();
                    Ok(Found::Mapped(links))
                }
                Reached::Mapped { .. } => Err(LabError::failed("a second image of one GPU")),
            }
        }
        Reached::Through {
            described: Some(described),
            failure: Some(failure),
        } => Ok(Found::Refused(Refused {
            described,
            failure,
            reason: inner.refusal(refusals)?,
            still_mapped: inner.mappings(case.file)?.len(),
        })),
        other => {
            let text = format!("{}: {other:?} without an image", case.name);
            Err(inner.outer.complaint(&text))
        }
    }
}
