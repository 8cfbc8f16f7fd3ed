//! GPUs: their DRM render nodes, drivers, and whether their accesses to memory are snooped.

use serde::Serialize;

use super::calls::Calls;
use super::host::{Host, reason};
use super::iommu::Iommu;
use super::kernel::Log;
use super::pci::{self, Attachment, PciId};
use crate::memory::fact::Fact;

const NODES: &str = "/sys/class/drm";

/// More nodes of a kind than the kernel makes.
const MAX_NODES: usize = 64;

const INTEL: u16 = 0x8086;

/// Where Intel's integrated GPUs are on every machine.
const INTEGRATED: &str = "0000:00:02.0";

/// Drivers of devices that are no hardware: they are bound to nothing, or to a driver that stands
/// for all such devices, and so go by their device's name.
const SOFTWARE: [&str; 2] = ["vgem", "vkms"];

/// A DRM node to allocate on, and what is behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gpu {
    /// The node's name below `/dev/dri`: that of the render node, such as `renderD128`. Of what is
    /// no hardware it is the primary node, such as `card0`: dumb buffers need that one.
    pub node: String,
    /// The driver's name, such as `i915`.
    pub driver: Fact<String>,
    /// The PCI address, such as `0000:00:02.0`.
    pub address: Fact<String>,
    /// Vendor and device number.
    pub id: Fact<PciId>,
    /// How it is attached.
    pub attachment: Fact<Attachment>,
    /// Whether it shares the processors' last-level cache.
    pub llc: Fact<bool>,
    /// Whether its PCI Express function may issue accesses that are not snooped.
    pub no_snoop: Fact<bool>,
    /// The IOMMU in front of it.
    pub iommu: Iommu,
    /// Whether all its accesses to RAM are snooped, however it is programmed. "No": the driver can
    /// make it access memory without. Its display engine does not count: on Intel's GPUs it never
    /// snoops, and the kernel flushes what it is to show.
    pub always_snoops: Fact<bool>,
}

/// All GPUs, by their nodes.
///
/// # Errors
/// Why they cannot be listed.
pub(super) fn probe(host: &Host, calls: &dyn Calls, log: &Log) -> Result<Vec<Gpu>, String> {
    let names = host.names(NODES)?;
    let gpus = numbered(&names, "renderD").map(|node| {
        let mut gpu = gpu(host, calls, log, node.clone());
        if is_software(&gpu) {
            let device = |node: &str| host.link(&format!("{NODES}/{node}/device"));
            let mut cards = numbered(&names, "card");
            if let Some(card) = cards.find(|card| device(card) == device(node)) {
                gpu.node.clone_from(card);
            }
        }
        gpu
    });
    Ok(gpus.collect())
}

/// The nodes of a kind, as in `renderD128`; `card0-DP-1` is a connector.
fn numbered<'a>(names: &'a [String], kind: &str) -> impl Iterator<Item = &'a String> {
    let is_node = move |name: &&String| {
        let number = name.strip_prefix(kind).unwrap_or_default();
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    names.iter().filter(is_node).take(MAX_NODES)
}

fn is_software(gpu: &Gpu) -> bool {
    let driver = gpu.driver.value();
    driver.is_some_and(|driver| SOFTWARE.contains(&driver.as_str()))
}

fn gpu(host: &Host, calls: &dyn Calls, log: &Log, node: String) -> Gpu {
    let path = format!("{NODES}/{node}/device");
    let device = match host.link(&path) {
        Ok(Some((_, device))) => Fact::known(device, path.clone()),
        Ok(None) => Fact::unknown(format!("{path} is not there")),
        Err(why) => Fact::unknown(why),
    };
    let driver = driver(host, &path, &device);
    let is_driver = |name| driver.value().is_some_and(|driver| driver == name);
    let Some(address) = device.value().filter(|name| pci::is_address(name)) else {
        let why = match device.value() {
            Some(_) => format!("{path} leads to no PCI device"),
            None => device.source().to_owned(),
        };
        let software = SOFTWARE.into_iter().any(is_driver);
        return Gpu {
            address: Fact::unknown(why.as_str()),
            id: Fact::unknown(why.as_str()),
            attachment: Fact::unknown(why.as_str()),
            llc: Fact::unknown(why.as_str()),
            no_snoop: Fact::unknown(why.as_str()),
            iommu: Iommu::not_pci(),
            always_snoops: if software {
                Fact::known(true, "there is no hardware behind it, only processors")
            } else {
                Fact::unknown(why)
            },
            node,
            driver,
        };
    };
    let id = pci::id(host, address);
    let (mut attachment, no_snoop) = pci::express(host, address);
    let intel = id.value().is_some_and(|id| id.vendor == INTEL);
    if attachment.value().is_none() && intel && address == INTEGRATED {
        let source = format!("{INTEGRATED} is where Intel's integrated GPU always is");
        attachment = Fact::known(Attachment::Integrated, source);
    }
    let iommu = Iommu::probe(host, log, address);
    let llc = if is_driver("i915") {
        i915_llc(calls, &node)
    } else {
        known_llc(&driver, &id)
    };
    Gpu {
        always_snoops: always_snoops(&llc, &attachment, &no_snoop, &iommu),
        address: Fact::known(address.clone(), path),
        node,
        driver,
        id,
        attachment,
        llc,
        no_snoop,
        iommu,
    }
}

fn driver(host: &Host, device: &str, name: &Fact<String>) -> Fact<String> {
    if let Some(name) = name.value().filter(|n| SOFTWARE.contains(&n.as_str())) {
        return Fact::known(name.clone(), device);
    }
    let path = format!("{device}/driver");
    match host.link(&path) {
        Ok(Some((kind, driver))) if kind == "drivers" => Fact::known(driver, path),
        Ok(Some(_)) => Fact::unknown(format!("{path} leads to no driver")),
        Ok(None) => Fact::unknown(format!("{path} is not there")),
        Err(why) => Fact::unknown(why),
    }
}

fn i915_llc(calls: &dyn Calls, node: &str) -> Fact<bool> {
    let source = format!("I915_PARAM_HAS_LLC of {node}");
    match calls.i915_has_llc(node) {
        Ok(llc) => Fact::known(llc, format!("{source} is {}", u8::from(llc))),
        Err(error) => Fact::unknown(format!("{source}: {}", reason(&error))),
    }
}

/// The xe driver has no query: by the device number (linux include/drm/intel/pciids.h, and
/// `has_llc` in xe's table of devices).
fn known_llc(driver: &Fact<String>, id: &Fact<PciId>) -> Fact<bool> {
    if driver.value().is_none_or(|driver| driver != "xe") {
        return Fact::unknown("no driver but i915 and no table tells");
    }
    let id = match id.value() {
        Some(id) => *id,
        None => return Fact::unknown(id.source()),
    };
    let source = |platform: &str| format!("table of devices: {id} is {platform}");
    match (id.vendor, id.device >> 4) {
        (INTEL, 0x9a4..=0x9af) => Fact::known(true, source("Tiger Lake")),
        (INTEL, 0x4c8 | 0x4c9) => Fact::known(true, source("Rocket Lake")),
        (INTEL, 0x462 | 0x468..=0x46d) => Fact::known(true, source("Alder Lake")),
        (INTEL, 0xa72 | 0xa78 | 0xa7a) => Fact::known(true, source("Raptor Lake")),
        (INTEL, 0x7d4..=0x7d6 | 0x7dd | 0xb64) => {
            Fact::known(false, source("Meteor Lake or Arrow Lake"))
        }
        (INTEL, 0x642 | 0x64a | 0x64b) => Fact::known(false, source("Lunar Lake")),
        (INTEL, 0xb08..=0xb0b) => Fact::known(false, source("Panther Lake")),
        (INTEL, 0x490) => Fact::known(false, source("DG1, a card")),
        (INTEL, 0x569..=0x56c) => Fact::known(false, source("DG2, a card")),
        (INTEL, 0xe20 | 0xe21) => Fact::known(false, source("Battlemage, a card")),
        _ => Fact::unknown(format!("table of devices: does not have {id}")),
    }
}

/// Accesses go unsnooped only if the device issues such, the IOMMU lets them through and the
/// platform honors them. One "no" is enough for all to be snooped.
///
/// The bit "Enable No Snoop" says "no" of endpoints only: what is integrated into the root complex
/// has ways to memory that are not PCI Express, and Intel's GPUs there leave it clear.
fn always_snoops(
    llc: &Fact<bool>,
    attachment: &Fact<Attachment>,
    no_snoop: &Fact<bool>,
    iommu: &Iommu,
) -> Fact<bool> {
    let endpoint = attachment.value() == Some(&Attachment::Endpoint);
    if llc.is_yes() {
        return Fact::known(true, "it shares the processors' cache");
    }
    if iommu.forces_snoop.is_yes() {
        return Fact::known(true, "the IOMMU forces it");
    }
    if endpoint && no_snoop.is_no() {
        return Fact::known(true, "Enable No Snoop is off");
    }
    if llc.is_no() && iommu.forces_snoop.is_no() && endpoint && no_snoop.is_yes() {
        return Fact::known(
            false,
            "no shared cache, no IOMMU that forces it, and Enable No Snoop is on",
        );
    }
    let unknown: Vec<&str> = [
        ("a shared cache", llc.value().is_none()),
        ("what the IOMMU does", iommu.forces_snoop.value().is_none()),
        (
            "Enable No Snoop, which counts for endpoints only",
            !endpoint || no_snoop.value().is_none(),
        ),
    ]
    .into_iter()
    .filter_map(|(name, unknown)| unknown.then_some(name))
    .collect();
    Fact::unknown(format!("not known: {}", unknown.join(", ")))
}
