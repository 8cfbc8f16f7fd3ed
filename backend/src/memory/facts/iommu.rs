//! The IOMMU between a device and memory: whether it lets accesses through that are not snooped.

use serde::Serialize;

use super::host::Host;
use super::kernel::Log;
use super::pci;
use crate::memory::fact::Fact;

const UNITS: &str = "/sys/class/iommu";

/// `ecap` bit 7: the unit can force snooping (Intel VT-d specification, "Extended Capability
/// Register", SC).
const ECAP_SC: u64 = 1 << 7;

/// The IOMMU of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Iommu {
    /// The unit in front of the device, such as `dmar0` or `ivhd0`; "none" if there is none.
    pub unit: Fact<String>,
    /// The type of the device's domain: `identity` (passed through), `DMA` or `DMA-FQ`.
    pub domain: Fact<String>,
    /// Whether an Intel unit can force snooping.
    pub snoop_control: Fact<bool>,
    /// Whether the unit makes all the device's accesses snooped.
    pub forces_snoop: Fact<bool>,
}

impl Iommu {
    /// Of something that is not a PCI device.
    pub(super) fn not_pci() -> Self {
        let why = "not a PCI device";
        Self {
            unit: Fact::unknown(why),
            domain: Fact::unknown(why),
            snoop_control: Fact::unknown(why),
            forces_snoop: Fact::unknown(why),
        }
    }

    /// Of the PCI device at `address`.
    pub(super) fn probe(host: &Host, log: &Log, address: &str) -> Self {
        let unit = unit(host, address);
        let domain = domain(host, address);
        Self {
            snoop_control: snoop_control(host, &unit),
            forces_snoop: forces_snoop(&unit, &domain, log),
            unit,
            domain,
        }
    }
}

/// The unit's name is what the device's link `iommu` leads to.
fn unit(host: &Host, address: &str) -> Fact<String> {
    let path = format!("{}/iommu", pci::folder(address));
    match (host.link(&path), host.names(UNITS)) {
        (Ok(Some((kind, unit))), _) if kind == "iommu" => Fact::known(unit, path),
        (Ok(Some(_)), _) => Fact::unknown(format!("{path} leads to no IOMMU")),
        (Ok(None), Ok(units)) if units.is_empty() => {
            Fact::known("none".to_owned(), format!("{UNITS} is empty"))
        }
        (Ok(None), Ok(_)) => Fact::unknown(format!(
            "{path} is not there, but the host has an IOMMU in {UNITS}"
        )),
        (Err(why), _) | (_, Err(why)) => Fact::unknown(why),
    }
}

fn domain(host: &Host, address: &str) -> Fact<String> {
    let path = format!("{}/iommu_group/type", pci::folder(address));
    match host.line(&path) {
        Ok(domain) => Fact::known(domain, path),
        Err(why) => Fact::unknown(why),
    }
}

fn snoop_control(host: &Host, unit: &Fact<String>) -> Fact<bool> {
    let Some(unit) = unit.value().filter(|unit| unit.starts_with("dmar")) else {
        return Fact::unknown("not behind an Intel IOMMU");
    };
    let path = format!("{UNITS}/{unit}/intel-iommu/ecap");
    match host.line(&path) {
        Ok(digits) => match u64::from_str_radix(&digits, 16) {
            Ok(ecap) => Fact::known(ecap & ECAP_SC != 0, format!("{path}: {ecap:x}")),
            Err(_) => Fact::unknown(format!("{path} is not a number")),
        },
        Err(why) => Fact::unknown(why),
    }
}

fn forces_snoop(unit: &Fact<String>, domain: &Fact<String>, log: &Log) -> Fact<bool> {
    let unit = match unit.value() {
        Some(unit) if unit == "none" => return Fact::known(false, "no IOMMU is in use"),
        Some(unit) => unit,
        None => return Fact::unknown(unit.source()),
    };
    let Some(domain) = domain.value() else {
        return Fact::unknown(domain.source());
    };
    match (
        unit.trim_end_matches(|c: char| c.is_ascii_digit()),
        domain.as_str(),
    ) {
        (_, "identity") => Fact::known(false, "an identity domain enforces nothing"),
        ("dmar", "DMA" | "DMA-FQ") => Fact::known(
            false,
            "Linux forces snooping on an Intel IOMMU for assigned devices only",
        ),
        ("ivhd", "DMA" | "DMA-FQ") => {
            let second = log.has("AMD-Vi: V2 page table enabled", "AMD-Vi: ");
            match second.value() {
                Some(false) => Fact::known(
                    true,
                    format!("AMD's first page tables force it; {}", second.source()),
                ),
                Some(true) => Fact::unknown("not known of AMD's second page tables"),
                None => Fact::unknown(second.source()),
            }
        }
        _ => Fact::unknown(format!("not known of {unit} with a domain {domain}")),
    }
}
