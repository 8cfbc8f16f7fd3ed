//! A PCI device's configuration space, as sysfs gives it.

use std::fmt;

use serde::Serialize;

use super::host::Host;
use crate::memory::fact::Fact;

/// Where the kernel has its PCI devices, by address.
const DEVICES: &str = "/sys/bus/pci/devices";

/// Bytes of configuration space that everybody may read; the rest needs `CAP_SYS_ADMIN`.
const PUBLIC: usize = 64;

/// Most capabilities that fit behind the header, each at least 4 bytes long.
const MAX_CAPABILITIES: usize = 48;

// linux/pci_regs.h
const PCI_STATUS: usize = 0x06;
const PCI_STATUS_CAP_LIST: u16 = 1 << 4;
const PCI_CAPABILITY_LIST: usize = 0x34;
const PCI_CAP_ID_EXP: u16 = 0x10;
const PCI_EXP_FLAGS: usize = 2;
const PCI_EXP_DEVCTL: usize = 8;
const PCI_EXP_DEVCTL_NOSNOOP_EN: u16 = 1 << 11;

/// Vendor and device number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PciId {
    /// The vendor; 0x8086 is Intel, 0x1002 AMD.
    pub vendor: u16,
    /// The vendor's number for the device.
    pub device: u16,
}

impl fmt::Display for PciId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:04x}", self.vendor, self.device)
    }
}

impl Serialize for PciId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How a device is attached (PCI Express Base Specification, "PCI Express Capabilities Register",
/// Device/Port Type).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attachment {
    /// An endpoint behind a PCI Express link: all its accesses are PCI Express transactions.
    Endpoint,
    /// A part of the root complex: its accesses take ways of their own to memory.
    Integrated,
}

/// The folder of the device at `address`.
pub(super) fn folder(address: &str) -> String {
    format!("{DEVICES}/{address}")
}

/// Whether `name` is a PCI address, as in `0000:00:02.0`.
pub(super) fn is_address(name: &str) -> bool {
    let hex = |text: &str, least: usize| {
        text.len() >= least && text.len() <= 8 && text.bytes().all(|b| b.is_ascii_hexdigit())
    };
    let parts: Vec<&str> = name.split([':', '.']).collect();
    let separators = name.bytes().filter(|b| b":.".contains(b));
    match parts.as_slice() {
        [domain, bus, device, function] => {
            separators.eq(*b"::.")
                && hex(domain, 4)
                && bus.len() == 2
                && hex(bus, 2)
                && device.len() == 2
                && hex(device, 2)
                && function.len() == 1
                && hex(function, 1)
        }
        _ => false,
    }
}

/// Vendor and device number of the device at `address`.
pub(super) fn id(host: &Host, address: &str) -> Fact<PciId> {
    let number = |name: &str| {
        let path = format!("{}/{name}", folder(address));
        let line = host.line(&path)?;
        line.strip_prefix("0x")
            .filter(|digits| digits.len() == 4)
            .and_then(|digits| u16::from_str_radix(digits, 16).ok())
            .filter(|number| *number != u16::MAX)
            .ok_or_else(|| format!("{path} is not the number of a device"))
    };
    match (number("vendor"), number("device")) {
        (Ok(vendor), Ok(device)) => Fact::known(
            PciId { vendor, device },
            format!("{}/vendor, device", folder(address)),
        ),
        (Err(why), _) | (_, Err(why)) => Fact::unknown(why),
    }
}

/// How the device at `address` is attached, and whether it may issue accesses that are not snooped:
/// the bit "Enable No Snoop" of the Device Control register.
pub(super) fn express(host: &Host, address: &str) -> (Fact<Attachment>, Fact<bool>) {
    let path = format!("{}/config", folder(address));
    match host.bytes(&path).and_then(|bytes| read(&bytes, &path)) {
        Ok((flags, control)) => (
            attachment(flags, &path),
            Fact::known(
                control & PCI_EXP_DEVCTL_NOSNOOP_EN != 0,
                format!("{path}: Device Control is {control:#06x}"),
            ),
        ),
        Err(why) => (Fact::unknown(why.as_str()), Fact::unknown(why)),
    }
}

fn attachment(flags: u16, path: &str) -> Fact<Attachment> {
    let kind = (flags >> 4) & 0xf;
    let source = format!("{path}: port type {kind}");
    match kind {
        // Endpoint and legacy endpoint.
        0 | 1 => Fact::known(Attachment::Endpoint, source),
        9 => Fact::known(Attachment::Integrated, source),
        _ => Fact::unknown(format!("{source}, which no GPU has")),
    }
}

/// The PCI Express Capabilities and Device Control registers.
fn read(bytes: &[u8], path: &str) -> Result<(u16, u16), String> {
    let short = || {
        if bytes.len() == PUBLIC {
            format!("{path} shows {PUBLIC} bytes only without CAP_SYS_ADMIN")
        } else {
            format!("{path} ends at byte {}", bytes.len())
        }
    };
    let word = |at: usize| {
        let pair = at.checked_add(2).and_then(|end| bytes.get(at..end));
        match pair {
            Some([low, high]) => Ok(u16::from_le_bytes([*low, *high])),
            _ => Err(short()),
        }
    };
    if word(0)? == u16::MAX {
        return Err(format!("{path}: the device does not answer"));
    }
    if word(PCI_STATUS)? & PCI_STATUS_CAP_LIST == 0 {
        return Err(format!("{path}: the device has no capabilities"));
    }
    let mut at = word(PCI_CAPABILITY_LIST)? & 0xfc;
    for _ in 0..MAX_CAPABILITIES {
        if at == 0 {
            return Err(format!("{path}: the device has no PCI Express capability"));
        }
        if usize::from(at) < PUBLIC {
            return Err(format!("{path}: the list of capabilities is broken"));
        }
        let header = word(at.into())?;
        if header & 0xff == PCI_CAP_ID_EXP {
            let register = |offset: usize| word(usize::from(at).saturating_add(offset));
            return Ok((register(PCI_EXP_FLAGS)?, register(PCI_EXP_DEVCTL)?));
        }
        at = (header >> 8) & 0xfc;
    }
    Err(format!("{path}: the list of capabilities does not end"))
}
