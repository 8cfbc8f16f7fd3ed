//! The processors.

use serde::Serialize;

use super::host::Host;
use super::kernel::Log;
use crate::memory::fact::Fact;
use crate::memory::plan::{Arch, Vendor};

const ARCH: &str = "/proc/sys/kernel/arch";
const CPUINFO: &str = "/proc/cpuinfo";

/// What the processors are and do with memory types.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cpu {
    /// The kernel's architecture.
    pub arch: Fact<Arch>,
    /// Who made them.
    pub vendor: Fact<Vendor>,
    /// Whether they snoop their own caches on accesses of any memory type, and so keep aliases of
    /// different types coherent (Intel SDM vol. 2A, CPUID.01H:EDX.SS). The kernel clears the flag
    /// on processors whose self-snoop has errata.
    pub self_snoop: Fact<bool>,
    /// Whether a hypervisor is below this kernel, which then decides the types of memory.
    pub hypervisor: Fact<bool>,
    /// Whether stage 2 translation forces write-back on arm64 (`FEAT_S2FWB`).
    pub fwb: Fact<bool>,
}

impl Cpu {
    pub(super) fn probe(host: &Host, log: &Log) -> Self {
        let arch = arch(host);
        match arch.value() {
            Some(Arch::X86) => x86(host, arch),
            Some(Arch::Arm64) => arm64(arch, log),
            _ => {
                let why = "only x86 and arm64 are known here";
                Self {
                    arch,
                    vendor: Fact::unknown(why),
                    self_snoop: Fact::unknown(why),
                    hypervisor: Fact::unknown(why),
                    fwb: Fact::unknown(why),
                }
            }
        }
    }
}

/// `kernel.arch` is there from Linux 6.1 on; older kernels cannot map GEM pages into a guest.
fn arch(host: &Host) -> Fact<Arch> {
    match host.line(ARCH) {
        Ok(name) => {
            let arch = match name.as_str() {
                "x86_64" => Arch::X86,
                "aarch64" => Arch::Arm64,
                _ => Arch::Other,
            };
            Fact::known(arch, format!("{ARCH}: {name}"))
        }
        Err(why) => Fact::unknown(why),
    }
}

fn x86(host: &Host, arch: Fact<Arch>) -> Cpu {
    let lines = host.lines(CPUINFO);
    let flag = |name| match field(&lines, "flags") {
        Ok(flags) => {
            let has = flags.split_ascii_whitespace().any(|flag| flag == name);
            let verb = if has { "has" } else { "does not have" };
            Fact::known(has, format!("{CPUINFO}: flags {verb} {name}"))
        }
        Err(why) => Fact::unknown(why),
    };
    let vendor = match field(&lines, "vendor_id") {
        Ok("GenuineIntel") => Fact::known(Vendor::Intel, format!("{CPUINFO}: GenuineIntel")),
        Ok("AuthenticAMD") => Fact::known(Vendor::Amd, format!("{CPUINFO}: AuthenticAMD")),
        Ok("HygonGenuine" | "CentaurHauls" | "Shanghai") => {
            Fact::known(Vendor::Other, format!("{CPUINFO}: neither Intel nor AMD"))
        }
        Ok(_) => Fact::unknown(format!("{CPUINFO}: a vendor that is not known here")),
        Err(why) => Fact::unknown(why),
    };
    Cpu {
        arch,
        vendor,
        self_snoop: flag("ss"),
        hypervisor: flag("hypervisor"),
        fwb: Fact::unknown("x86 does not have it"),
    }
}

/// The value of the first line of `/proc/cpuinfo` that begins with `name`: the first processor's.
/// The flags of the others are the same, the kernel shows what all have.
fn field<'a>(lines: &'a Result<Vec<String>, String>, name: &str) -> Result<&'a str, String> {
    let lines = lines.as_ref().map_err(String::clone)?;
    let mut fields = lines.iter().filter_map(|line| line.split_once(':'));
    fields
        .find(|(key, _)| key.trim_end() == name)
        .map(|(_, value)| value.trim())
        .ok_or_else(|| format!("{CPUINFO} has no complete line {name}"))
}

/// User space cannot read `ID_AA64MMFR2_EL1.FWB`: the kernel's emulation of MRS hides the field,
/// there is no hwcap, and sysfs shows MIDR, REVIDR and SMIDR only. What is left is the message
/// that the kernel writes when it starts.
fn arm64(arch: Fact<Arch>, log: &Log) -> Cpu {
    Cpu {
        arch,
        vendor: Fact::unknown("it does not matter on arm64"),
        self_snoop: Fact::unknown("arm64 does not have it"),
        hypervisor: Fact::unknown("nothing on arm64 tells a process of a hypervisor below"),
        fwb: log.has(
            "CPU features: detected: Stage-2 Force Write-Back",
            "CPU features: detected: ",
        ),
    }
}
