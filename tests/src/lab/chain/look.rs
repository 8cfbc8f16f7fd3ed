//! Looks at one blob from all sides.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use nosnoop_guest::wire::Image;
use nosnoop_guest::wire::agent::Exchange;

use super::super::outer::Outer;
use super::super::pages::{Mapped, MemoryType, PAGE, Page};
use super::super::{LabError, Result, blob};
use super::inner::Inner;
use super::links::{HostMapping, Links, SlotMapping};

/// The kernel's folder of trace events, and what it prints when KVM writes an entry of its page
/// tables.
const TRACING: &str = "/sys/kernel/tracing";
const EVENT: &str = "kvm_mmu_set_spte";

/// Only device memory above 4 GiB is of interest: the inner machine has no other memory there.
const FILTER: &str = "gfn >= 0x100000";

/// How long the outer machine's processor may be in another address space than that of the inner
/// machine's QEMU.
const PAGES_LIMIT: Duration = Duration::from_secs(120);

/// How often the outer machine is looked at: it must get on in between.
const PAUSE: Duration = Duration::from_millis(300);

/// What the daemon says when it refuses to map an image; the reason follows.
const REFUSAL: &str = "is not mapped for the guest:";

/// Bits of a nested page-table entry (AMD APM vol. 2, 5.3 and 15.25): the memory type of a 4 KiB
/// page, and its frame.
const PWT: u64 = 1 << 3;
const PCD: u64 = 1 << 4;
const PAT: u64 = 1 << 7;
const FRAME: u64 = 0x000f_ffff_ffff_f000;

/// Has the outer kernel note what KVM maps from now on.
pub(super) fn trace(outer: &mut Outer) -> Result<()> {
    let event = format!("{TRACING}/events/kvmmmu/{EVENT}");
    outer.write(&format!("{event}/filter"), FILTER)?;
    outer.write(&format!("{event}/enable"), "1")?;
    outer.write(&format!("{TRACING}/trace"), "")
}

impl Inner<'_> {
    /// Looks at the image of a case that the guest has mapped and drawn, at the mapping of `file`, a
    /// name in `/proc/PID/maps`, that QEMU has for it, and draws the next picture for the guest.
    pub(super) fn links(
        &mut self,
        number: usize,
        image: &Image,
        list: &[String],
        file: &str,
    ) -> Result<Links> {
        let mut found = blob::mapped(|| self.pages(), &[*image], list)?;
        let guest = found.pop().ok_or_else(|| LabError::failed("no image"))?;
        // So that QEMU's own address space is to be seen, and not that of its guest.
        self.monitor("stop")?;
        let slot = self.slot_mapping(&guest)?;
        let host = self.host_mapping(file, &slot)?;
        let exchange = Exchange {
            pid: self.daemons.get(number).copied().unwrap_or_default(),
            file: file.to_owned(),
            offset: host.offset,
            image: *image,
            next_seed: image.seed + 1,
        };
        let bytes_right = self.outer.exchange(exchange)?;
        self.monitor("cont")?;
        Ok(Links {
            host,
            slot,
            told: image.map_info,
            guest,
            bytes_right,
        })
    }

    /// The mappings of `file` that QEMU has, as `/proc/PID/maps` shows them.
    pub(super) fn mappings(&mut self, file: &str) -> Result<Vec<String>> {
        let path = format!("/proc/{}/maps", self.qemu);
        self.outer.read(&path, file)
    }

    /// Why a daemon has refused to map an image, as it has told its operator on the outer machine's
    /// console; `earlier` daemons have told of theirs before. Each tells once, and the guest goes from
    /// one to the next without waiting to be looked at.
    pub(super) fn refusal(&mut self, earlier: usize) -> Result<String> {
        self.outer
            .wait_for("the daemon's word on its refusal", |outer| {
                let lines = outer.console().all();
                let mut said = lines.iter().filter_map(|line| line.split_once(REFUSAL));
                Ok(said
                    .nth(earlier)
                    .map(|(_, reason)| reason.trim_start().to_owned()))
            })
    }

    /// How the inner machine's QEMU maps `file`: exactly the pages of `slot`. That these are there also
    /// says that it is QEMU's address space that is looked at.
    fn host_mapping(&mut self, file: &str, slot: &SlotMapping) -> Result<HostMapping> {
        let start = Instant::now();
        loop {
            // That of another daemon may be on its way out: QEMU answers before it unmaps.
            let lines = self.mappings(file)?;
            self.monitor("query-status")?;
            let pages = self.outer.pages()?;
            if let [line] = &lines[..]
                && let Some((address, offset)) = place(line, slot.frames.len() as u64 * PAGE)
                && let Some(page) = the_mapping(&pages, address, &slot.frames)
            {
                return Ok(HostMapping {
                    file: file.to_owned(),
                    address,
                    offset,
                    flags: page.steady_flags(),
                    memory_type: page.memory_type(),
                });
            }
            if start.elapsed() > PAGES_LIMIT {
                let text = format!(
                    "the outer machine shows, among {} pages, no mapping with one type of the {} \
                     pages that KVM maps, the first at {:x?}; QEMU's mappings of {file}: {lines:?}",
                    pages.len(),
                    slot.frames.len(),
                    slot.frames.first()
                );
                return Err(self.outer.complaint(&text));
            }
            thread::sleep(PAUSE);
        }
    }

    /// What KVM's page tables have for the guest's mapping.
    fn slot_mapping(&mut self, guest: &Mapped) -> Result<SlotMapping> {
        let lines = self.outer.read(&format!("{TRACING}/trace"), EVENT)?;
        // The last entry of each page is the one that counts.
        let entries = lines
            .iter()
            .filter_map(|line| Entry::parse(line))
            .map(|entry| (entry.guest, entry.bits))
            .collect::<BTreeMap<_, _>>();
        let pages = (guest.physical..guest.physical + guest.size).step_by(PAGE as usize);
        let bits = pages.map(|page| entries.get(&page).copied());
        let Some(bits) = bits.collect::<Option<Vec<_>>>() else {
            let text = format!(
                "KVM's page tables have not all pages of {guest:?}; {} entries are known",
                entries.len()
            );
            return Err(self.outer.complaint(&text));
        };
        let types = bits.iter().map(|bits| memory_type(*bits));
        let memory_type = the_one(types)?;
        Ok(SlotMapping {
            physical: guest.physical,
            frames: bits.iter().map(|bits| bits & FRAME).collect(),
            memory_type,
        })
    }
}

/// The memory type that all have.
fn the_one(types: impl Iterator<Item = Option<MemoryType>>) -> Result<MemoryType> {
    let mut types = types.collect::<Vec<_>>();
    types.dedup();
    match types[..] {
        [Some(memory_type)] => Ok(memory_type),
        _ => Err(LabError::failed(format!(
            "KVM's page tables have not one memory type throughout: {types:?}"
        ))),
    }
}

/// The memory type in a nested page-table entry, by the host's page attribute table as Linux sets
/// it; `None` for its upper half, which Linux's KVM does not use.
fn memory_type(bits: u64) -> Option<MemoryType> {
    (bits & PAT == 0).then_some(match (bits & PCD != 0, bits & PWT != 0) {
        (false, false) => MemoryType::WriteBack,
        (false, true) => MemoryType::WriteCombining,
        (true, false) => MemoryType::UncachedMinus,
        (true, true) => MemoryType::Uncached,
    })
}

/// The first page of a mapping that lies exactly in `frames`, all with the same bits.
fn the_mapping<'p>(pages: &'p [Page], address: u64, frames: &[u64]) -> Option<&'p Page> {
    let from = pages.iter().position(|page| page.address == address)?;
    let range = pages.get(from..from.checked_add(frames.len())?)?;
    let first = range.first()?;
    let whole = (address..)
        .step_by(PAGE as usize)
        .zip(range)
        .zip(frames)
        .all(|((address, page), frame)| {
            page.address == address
                && page.physical == *frame
                && page.steady_flags() == first.steady_flags()
        });
    whole.then_some(first)
}

/// Address and offset in a line of `/proc/PID/maps` about a mapping of `size` bytes.
fn place(line: &str, size: u64) -> Option<(u64, u64)> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    let (start, end) = (number(start)?, number(end)?);
    let offset = number(words.nth(1)?)?;
    (end.checked_sub(start)? == size).then_some((start, offset))
}

/// An entry that KVM has written into its page tables for one 4 KiB page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    /// The guest's physical address.
    guest: u64,
    /// The entry.
    bits: u64,
}

impl Entry {
    /// The entry in a line of the trace (arch/x86/kvm/mmu/mmutrace.h); `None` for other lines and
    /// for larger pages.
    fn parse(line: &str) -> Option<Self> {
        let (_, text) = line.split_once(": gfn ")?;
        let (number, rest) = text.split_once(" spte ")?;
        let (bits, rest) = rest.split_once(' ')?;
        rest.contains(" level 1 ").then_some(())?;
        Some(Self {
            guest: u64::from_str_radix(number, 16).ok()?.checked_mul(PAGE)?,
            bits: u64::from_str_radix(bits, 16).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_from_its_line() {
        let line = "qemu-98 [000] ..... 12.3: kvm_mmu_set_spte: gfn fc00000 spte 800000000e940867 \
                    (rwux) level 1 at fffa8";
        let entry = Entry {
            guest: 0xfc_0000_0000,
            bits: 0x8000_0000_0e94_0867,
        };
        assert_eq!(Entry::parse(line), Some(entry));
        assert_eq!(Entry::parse(&line.replace("level 1", "level 2")), None);
        assert_eq!(Entry::parse("# tracer: nop"), None);
    }

    #[test]
    fn the_bits_of_an_entry_select_the_type() {
        for (bits, expected) in [
            (0x867, Some(MemoryType::WriteBack)),
            (PWT, Some(MemoryType::WriteCombining)),
            (PCD, Some(MemoryType::UncachedMinus)),
            (PCD | PWT, Some(MemoryType::Uncached)),
            (PAT, None),
        ] {
            assert_eq!(memory_type(bits), expected, "{bits:#x}");
        }
        let both = [Some(MemoryType::WriteBack), Some(MemoryType::Uncached)];
        assert!(the_one(both.into_iter()).is_err());
        assert!(the_one([].into_iter()).is_err());
    }

    #[test]
    fn a_mapping_is_read_from_its_line() {
        let line = "7f0000000000-7f0000003000 rw-s 100003000 00:05 7    /dev/dri/card0";
        let found = Some((0x7f00_0000_0000, 0x1_0000_3000));
        assert_eq!(place(line, 0x3000), found);
        assert_eq!(place(line, 0x2000), None);
        assert_eq!(place("", 0), None);
    }
}
