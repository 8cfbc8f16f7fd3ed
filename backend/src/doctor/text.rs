//! The report as text for a terminal of 100 columns.

use std::fmt;

use nosnoop_protocol::MapCache;
use serde::Serialize;
use serde_json::Value;

use super::{Memory, Outcome, Report};
use crate::memory::fact::Fact;
use crate::memory::facts::{Facts, Gpu};
use crate::memory::kind::Snooping;
use crate::memory::plan::{Arch, Noncoherent};

/// Columns of a line.
const WIDTH: usize = 100;

/// The columns where answers and sources begin.
const ANSWER: usize = 28;
const SOURCE: usize = 40;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "HOST")?;
        host(f, &self.facts)?;
        for gpu in self.facts.gpus.value().into_iter().flatten() {
            writeln!(f, "\nGPU {}", gpu.node)?;
            gpu_rows(f, gpu)?;
        }
        let option = serde_json::to_value(self.settings).unwrap_or_default();
        let said = |name: &str| text_of(option.get(name).unwrap_or(&Value::Null));
        writeln!(
            f,
            "\nGUEST'S MEMORY TYPE HONORED? (--vmm-memtype={})",
            said("vmm_memtype")
        )?;
        row(f, "RAM", &self.vmm.ram)?;
        row(f, "device memory", &self.vmm.mmio)?;
        let unverified = if self.settings.allow_unverified {
            " --allow-unverified"
        } else {
            ""
        };
        writeln!(
            f,
            "\nMEMORY (--noncoherent={}{unverified})",
            said("noncoherent")
        )?;
        for memory in &self.memory {
            memory_rows(f, memory, self.settings.noncoherent)?;
        }
        writeln!(f, "\nNOTES")?;
        for note in &self.notes {
            wrapped(f, "  * ", note, 4)?;
        }
        writeln!(f, "\n{}", self.conclusion())
    }
}

impl Report {
    fn conclusion(&self) -> String {
        let names: Vec<String> = self
            .memory
            .iter()
            .filter(|memory| memory.outcome == Outcome::WriteCombining)
            .map(title)
            .collect();
        if names.is_empty() {
            "Nothing here is write-combining.".to_owned()
        } else {
            format!("Write-combining here: {}.", names.join("; "))
        }
    }
}

fn host(f: &mut fmt::Formatter<'_>, facts: &Facts) -> fmt::Result {
    row(f, "architecture", &facts.cpu.arch)?;
    match facts.cpu.arch.value() {
        Some(Arch::X86) => {
            row(f, "processor vendor", &facts.cpu.vendor)?;
            row(f, "self-snoop", &facts.cpu.self_snoop)?;
        }
        Some(Arch::Arm64) => row(f, "forced write-back (FWB)", &facts.cpu.fwb)?,
        Some(Arch::Other) | None => {}
    }
    row(f, "hypervisor below", &facts.cpu.hypervisor)?;
    row(f, "kernel", &facts.kernel.release)?;
    row(f, "ChromeOS kernel", &facts.kernel.chromeos)?;
    row(
        f,
        "read-only first fault",
        &facts.kernel.read_only_first_fault,
    )?;
    row(f, "KVM", &facts.kvm.opens)?;
    if facts.cpu.arch.value() == Some(&Arch::X86) {
        row(f, "EPT or NPT", &facts.kvm.nested_paging)?;
        row(f, "PAT quirk can be disabled", &facts.kvm.pat_quirk)?;
        row(f, "noncoherent memslots", &facts.kvm.noncoherent_slot)?;
    }
    row(f, "udmabuf", &facts.udmabuf)?;
    row(f, "vgem", &facts.vgem)
}

fn gpu_rows(f: &mut fmt::Formatter<'_>, gpu: &Gpu) -> fmt::Result {
    row(f, "driver", &gpu.driver)?;
    if gpu.address.value().is_some() {
        row(f, "PCI address", &gpu.address)?;
        row(f, "PCI id", &gpu.id)?;
        row(f, "attached as", &gpu.attachment)?;
        row(f, "shared cache (LLC)", &gpu.llc)?;
        row(f, "Enable No Snoop", &gpu.no_snoop)?;
        row(f, "IOMMU", &gpu.iommu.unit)?;
        row(f, "IOMMU domain", &gpu.iommu.domain)?;
        row(f, "IOMMU snoop control", &gpu.iommu.snoop_control)?;
        row(f, "IOMMU forces snooping", &gpu.iommu.forces_snoop)?;
    }
    row(f, "always snoops", &gpu.always_snoops)
}

/// How a kind of memory is called.
fn title(memory: &Memory) -> String {
    let offer = &memory.offer;
    match &offer.node {
        Some(node) => format!("{} ({node})", offer.allocator),
        None => offer.allocator.clone(),
    }
}

fn memory_rows(
    f: &mut fmt::Formatter<'_>,
    memory: &Memory,
    noncoherent: Noncoherent,
) -> fmt::Result {
    let outcome = match memory.outcome {
        Outcome::WriteCombining => "WRITE-COMBINING",
        Outcome::Uncached => "UNCACHED",
        Outcome::Cached => "CACHED",
        Outcome::Refused => "REFUSED",
    };
    let accesses = match memory.offer.traits.snooping {
        Snooping::Yes => "snooped",
        Snooping::No => "not snooped",
        Snooping::Unknown => "not known to be snooped",
        Snooping::NoDevice => "CPUs only",
    };
    let head = format!("  {}: ", title(memory));
    wrapped(f, &head, &format!("{outcome} ({accesses})"), 4)?;
    // Where nothing is asked of anybody, the summary says it all.
    let lines = match memory.offer.traits.host {
        Some(MapCache::Cached) => 1,
        _ => memory.why.len(),
    };
    for line in memory.why.iter().take(lines) {
        wrapped(f, "    - ", line, 6)?;
    }
    if let Some(options) = &memory.wc_with {
        wrapped(f, "    ", &format!("Write-combining with {options}."), 4)?;
    }
    if memory.coercible {
        let words = match noncoherent {
            Noncoherent::Coerce => "Cached memory is allocated in its place.",
            Noncoherent::Auto | Noncoherent::Off => {
                "Cached memory in its place with --noncoherent=coerce."
            }
        };
        wrapped(f, "    ", words, 4)?;
    }
    if !memory.host_may_read {
        wrapped(f, "    ", "Refused if the host copies it for a display.", 4)?;
    }
    Ok(())
}

/// A fact: its name, the answer, and where that comes from.
fn row<T: Serialize>(f: &mut fmt::Formatter<'_>, name: &str, fact: &Fact<T>) -> fmt::Result {
    let value = serde_json::to_value(fact.value()).unwrap_or_default();
    let answer = text_of(&value);
    let head = format!("  {name:<width$}", width = ANSWER.saturating_sub(2));
    let head = format!(
        "{head}{answer:<width$} ",
        width = SOURCE.saturating_sub(ANSWER)
    );
    wrapped(f, &head, fact.source(), SOURCE.saturating_add(1))
}

fn text_of(value: &Value) -> String {
    match value {
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Null => "unknown".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Writes `head` and the words of `text`, in lines of [`WIDTH`] columns, of which those after the
/// first begin with `indent` blanks. A word that is longer than a line stays whole.
fn wrapped(f: &mut fmt::Formatter<'_>, head: &str, text: &str, indent: usize) -> fmt::Result {
    write!(f, "{head}")?;
    let mut column = head.chars().count();
    let mut first = true;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        let space = usize::from(!first);
        if column.saturating_add(space).saturating_add(length) > WIDTH && column > indent {
            write!(f, "\n{:indent$}", "")?;
            column = indent;
        } else if !first {
            write!(f, " ")?;
            column = column.saturating_add(1);
        }
        write!(f, "{word}")?;
        column = column.saturating_add(length);
        first = false;
    }
    writeln!(f)
}
