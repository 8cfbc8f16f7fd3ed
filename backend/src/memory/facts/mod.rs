//! What is known of the host: a probe that reads files and asks KVM and the GPUs' drivers.
//!
//! Each fact says where it comes from, and may be unknown. Files are read through [`Host`] and
//! system calls made through [`Calls`], so that a recorded host is probed like this machine.

mod calls;
mod cpu;
mod drm;
mod host;
mod iommu;
mod kernel;
mod kvm;
mod live;
mod pci;
#[cfg(test)]
mod tests;

use std::io;

use serde::Serialize;

pub use calls::{Calls, RecordedCalls};
pub use cpu::Cpu;
pub use drm::Gpu;
pub use host::Host;
pub use iommu::Iommu;
pub use kernel::Kernel;
pub use kvm::Kvm;
pub use live::LiveCalls;
pub use pci::{Attachment, PciId};

use super::fact::Fact;
use super::plan::{Arch, PlatformFacts};

/// What is known of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// The processors.
    pub cpu: Cpu,
    /// The kernel.
    pub kernel: Kernel,
    /// KVM.
    pub kvm: Kvm,
    /// The GPUs; unknown if they cannot be listed.
    pub gpus: Fact<Vec<Gpu>>,
    /// Whether guest pages can be made into a dma-buf.
    pub udmabuf: Fact<bool>,
    /// Whether vgem is there, which has write-combined memory without a GPU.
    pub vgem: Fact<bool>,
}

impl Facts {
    /// Looks at this machine.
    ///
    /// # Errors
    /// What the kernel says of its root directory. All that is less is a fact that is not known.
    pub fn of_this_machine() -> io::Result<Self> {
        Ok(Self::probe(&Host::live()?, &LiveCalls))
    }

    /// Looks at a host. Takes milliseconds; creates a VM and closes it again.
    #[must_use]
    pub fn probe(host: &Host, calls: &dyn Calls) -> Self {
        let log = kernel::Log::read(host);
        let cpu = Cpu::probe(host, &log);
        let kernel = Kernel::probe(host);
        let kvm = Kvm::probe(host, calls, &cpu, &kernel);
        let gpus = match drm::probe(host, calls, &log) {
            Ok(gpus) => Fact::known(gpus, "/sys/class/drm"),
            Err(why) => Fact::unknown(why),
        };
        Self {
            cpu,
            kernel,
            kvm,
            udmabuf: presence(host, "/dev/udmabuf"),
            vgem: vgem(&gpus),
            gpus,
        }
    }
}

impl From<&Facts> for PlatformFacts {
    /// An architecture that is not known is none that anything is known of.
    fn from(facts: &Facts) -> Self {
        Self {
            arch: facts.cpu.arch.value().copied().unwrap_or(Arch::Other),
            vendor: facts.cpu.vendor.clone(),
            hypervisor: facts.cpu.hypervisor.clone(),
            self_snoop: facts.cpu.self_snoop.clone(),
            fwb: facts.cpu.fwb.clone(),
            ept_or_npt: facts.kvm.nested_paging.clone(),
            pat_quirk: facts.kvm.pat_quirk.clone(),
        }
    }
}

fn presence(host: &Host, path: &str) -> Fact<bool> {
    match host.exists(path) {
        Ok(true) => Fact::known(true, format!("{path} is there")),
        Ok(false) => Fact::known(false, format!("{path} is not there")),
        Err(why) => Fact::unknown(why),
    }
}

fn vgem(gpus: &Fact<Vec<Gpu>>) -> Fact<bool> {
    let Some(all) = gpus.value() else {
        return Fact::unknown(gpus.source());
    };
    let is_vgem = |gpu: &&Gpu| gpu.driver.value().is_some_and(|driver| driver == "vgem");
    match all.iter().find(is_vgem) {
        Some(gpu) => Fact::known(true, format!("{} is vgem", gpu.node)),
        None => match all.iter().find(|gpu| gpu.driver.value().is_none()) {
            Some(gpu) => Fact::unknown(gpu.driver.source()),
            None => Fact::known(false, "no DRM node is vgem"),
        },
    }
}
