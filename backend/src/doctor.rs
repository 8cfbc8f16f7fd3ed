//! `nosnoop-gpu doctor`: what is known of a host, how each kind of memory would be mapped on it and
//! why, and what would change that. For people as text, for programs as JSON.

#[cfg(test)]
mod tests;
mod text;

use clap::ValueEnum;
use nosnoop_protocol::MapCache;
use serde::{Serialize, Serializer};

use crate::memory::fact::Fact;
use crate::memory::facts::Facts;
use crate::memory::kind::PageKind;
use crate::memory::offer::{self, Offer};
use crate::memory::plan::{
    Arch, Noncoherent, Plan, PlatformFacts, Policy, Vendor, VmmFacts, VmmMemtype, plan,
};

/// What the command line says on memory types, as the daemon itself takes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Settings {
    /// `--noncoherent`.
    #[serde(serialize_with = "option_name")]
    pub noncoherent: Noncoherent,
    /// `--vmm-memtype`.
    #[serde(serialize_with = "option_name")]
    pub vmm_memtype: VmmMemtype,
    /// `--allow-unverified`.
    pub allow_unverified: bool,
}

impl Settings {
    fn policy(self) -> Policy {
        Policy {
            noncoherent: self.noncoherent,
            allow_unverified: self.allow_unverified,
        }
    }
}

fn option_name<T: ValueEnum, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    match value.to_possible_value() {
        Some(value) => serializer.serialize_str(value.get_name()),
        None => serializer.serialize_none(),
    }
}

/// What the doctor found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    settings: Settings,
    facts: Facts,
    vmm: Vmm,
    memory: Vec<Memory>,
    notes: Vec<String>,
}

/// Whether the guest's own memory type takes effect, before a VMM has said anything.
#[derive(Clone, Debug, Serialize)]
struct Vmm {
    ram: Fact<bool>,
    mmio: Fact<bool>,
}

/// A kind of memory, and what becomes of it.
#[derive(Clone, Debug, Serialize)]
struct Memory {
    #[serde(flatten)]
    offer: Offer,
    outcome: Outcome,
    /// Whether the outcome is the same when a CPU of the host reads it to show it on a display.
    host_may_read: bool,
    /// The first line is the summary.
    why: Vec<String>,
    /// The change to the command line that makes it write-combining, if one does; with
    /// `--vmm-memtype=honored` only where that can be true.
    wc_with: Option<String>,
    /// Whether `--noncoherent=coerce` gives cached memory in its place.
    coercible: bool,
}

/// How the guest maps a kind of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    WriteCombining,
    Uncached,
    Cached,
    Refused,
}

impl Outcome {
    fn of(plan: &Plan) -> Self {
        match plan {
            Plan::Map(map) => match map.guest() {
                MapCache::Wc => Self::WriteCombining,
                MapCache::Uncached => Self::Uncached,
                MapCache::Cached => Self::Cached,
            },
            Plan::Refuse(_) => Self::Refused,
        }
    }
}

/// Makes the plan for everything that could be allocated on a host with these facts.
#[must_use]
pub fn doctor(facts: Facts, settings: Settings) -> Report {
    let platform = PlatformFacts::from(&facts);
    let vmm = VmmFacts::new(&platform, settings.vmm_memtype, false);
    let memory = offer::offers(&facts)
        .into_iter()
        .map(|offer| memory(offer, &platform, settings, honoring(&facts).possible))
        .collect();
    Report {
        settings,
        vmm: Vmm {
            ram: vmm.honors(PageKind::Ram).clone(),
            mmio: vmm.honors(PageKind::Mmio).clone(),
        },
        memory,
        notes: notes(&facts),
        facts,
    }
}

/// `honorable` is whether the VMM could be one that honors the guest's memory type.
fn memory(offer: Offer, platform: &PlatformFacts, settings: Settings, honorable: bool) -> Memory {
    let planned = |settings: Settings, host_cpu_access| {
        let vmm = VmmFacts::new(platform, settings.vmm_memtype, false);
        plan(&offer.traits, &vmm, host_cpu_access, settings.policy())
    };
    let now = planned(settings, false);
    let outcome = Outcome::of(&now);
    let becomes = |settings| Outcome::of(&planned(settings, false));
    let wc_with = alternatives(settings)
        .into_iter()
        .filter(|(other, _)| honorable || other.vmm_memtype == settings.vmm_memtype)
        .find(|(other, _)| becomes(*other) == Outcome::WriteCombining)
        .map(|(_, changes)| changes)
        .filter(|_| outcome != Outcome::WriteCombining);
    let coerced = Settings {
        noncoherent: Noncoherent::Coerce,
        ..settings
    };
    let coercible = match planned(coerced, false) {
        Plan::Refuse(refusal) => refusal.coercible(),
        Plan::Map(_) => false,
    };
    Memory {
        outcome,
        host_may_read: Outcome::of(&planned(settings, true)) == outcome,
        why: now.why().to_vec(),
        wc_with,
        coercible,
        offer,
    }
}

/// Other command lines, those with the fewest changes first.
fn alternatives(now: Settings) -> Vec<(Settings, String)> {
    let mut all = Vec::new();
    for noncoherent in [now.noncoherent, Noncoherent::Auto] {
        for vmm_memtype in [now.vmm_memtype, VmmMemtype::Honored] {
            for allow_unverified in [now.allow_unverified, true] {
                let settings = Settings {
                    noncoherent,
                    vmm_memtype,
                    allow_unverified,
                };
                let changes = [
                    (noncoherent != now.noncoherent, "--noncoherent=auto"),
                    (vmm_memtype != now.vmm_memtype, "--vmm-memtype=honored"),
                    (
                        allow_unverified != now.allow_unverified,
                        "--allow-unverified",
                    ),
                ];
                let changes: Vec<&str> = changes
                    .into_iter()
                    .filter_map(|(changed, option)| changed.then_some(option))
                    .collect();
                all.push((changes.len(), settings, changes.join(" ")));
            }
        }
    }
    all.sort_by_key(|(count, _, _)| *count);
    all.into_iter()
        .map(|(_, settings, options)| (settings, options))
        .collect()
}

/// What to know before changing anything.
fn notes(facts: &Facts) -> Vec<String> {
    let Honoring { possible, words } = honoring(facts);
    let mut notes = vec![words];
    let gpus = facts.gpus.value().map(Vec::as_slice).unwrap_or_default();
    if possible && !gpus.is_empty() {
        notes.push(
            "A VMM that accepts NOSNOOP_MEMTYPE (vhost-user protocol feature 56) is asked for \
             each mapping, and needs no --vmm-memtype."
                .to_owned(),
        );
    }
    if facts.gpus.value().is_none() {
        let why = facts.gpus.source();
        notes.push(format!("Which GPUs there are is not known: {why}."));
    } else if gpus.is_empty() {
        notes.push("There is no GPU here, and no vgem, to allocate with.".to_owned());
    }
    for gpu in gpus {
        if offer::expected_traits(gpu).is_none() {
            let driver = gpu.driver.value().map_or("not known", String::as_str);
            notes.push(format!(
                "{}: this program has no allocator for its driver ({driver}).",
                gpu.node
            ));
        }
    }
    if facts.kernel.read_only_first_fault.is_yes() && !gpus.is_empty() {
        notes.push(
            "This kernel maps GEM buffers (seen with vgem) read-only into a guest until the VMM \
             itself has stored to each page. QEMU does not: a guest's first store to a page is \
             then emulated, which is slow, and fails for SSE moves. memfd and udmabuf are not \
             affected."
                .to_owned(),
        );
    }
    if facts.kvm.opens.is_no() {
        let why = facts.kvm.opens.source();
        notes.push(format!("KVM could not be asked: {why}."));
    }
    notes
}

/// Whether `--vmm-memtype=honored` can be true of a VMM on this host's KVM, and of which.
struct Honoring {
    possible: bool,
    words: String,
}

fn honoring(facts: &Facts) -> Honoring {
    let say = "--vmm-memtype=honored";
    let possible = |words: String| Honoring {
        possible: true,
        words,
    };
    let never = |why: &str| Honoring {
        possible: false,
        words: format!(
            "No VMM on this KVM can honor the guest's memory type for RAM: {why}. Do not say {say}."
        ),
    };
    let (cpu, kvm) = (&facts.cpu, &facts.kvm);
    if cpu.fwb.is_yes() {
        return never("it forces write-back");
    }
    if !cpu.hypervisor.is_no() {
        return possible(format!(
            "Say {say} only if you know that the VMM and every hypervisor below this system honor \
             the guest's memory type."
        ));
    }
    if cpu.arch.value() == Some(&Arch::X86) && kvm.nested_paging.is_no() {
        return never("it runs without EPT or NPT");
    }
    match (cpu.arch.value(), cpu.vendor.value()) {
        (Some(Arch::X86), Some(Vendor::Amd)) if kvm.nested_paging.is_yes() => possible(format!(
            "Every VMM on KVM honors the guest's memory type here, so {say} changes nothing."
        )),
        (Some(Arch::X86), Some(Vendor::Intel)) if kvm.noncoherent_slot.is_yes() => {
            possible(format!(
                "crosvm built with noncoherent-dma honors the guest's memory type here, by a \
                 memslot flag of this ChromeOS kernel. Say {say} then, and only then."
            ))
        }
        (Some(Arch::X86), Some(Vendor::Intel)) if cpu.self_snoop.is_no() => {
            never("the processor does not snoop itself")
        }
        (Some(Arch::X86), Some(Vendor::Intel)) if kvm.pat_quirk.is_yes() => possible(format!(
            "QEMU 11.1 or later, started with -accel kvm,honor-guest-pat=on, honors the guest's \
             memory type here. Say {say} then, and only then."
        )),
        (Some(Arch::X86), Some(Vendor::Intel)) if kvm.pat_quirk.is_no() => never(
            "this kernel does not offer it, and QEMU would not start with -accel \
             kvm,honor-guest-pat=on; a newer kernel may",
        ),
        _ => possible(format!(
            "Say {say} only if you know that the VMM honors the guest's memory type."
        )),
    }
}
