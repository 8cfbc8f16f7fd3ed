//! Asks this machine and its KVM what [`probe`](super::probe) decides by.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use kvm_ioctls::Kvm;

use super::probe::{
    Below, CAP_DISABLE_QUIRKS2, Cpu, KvmAnswers, Paging, QUIRK_IGNORE_GUEST_PAT, SLOT_NONCOHERENT,
};
use super::sys::{Backing, Reservation, Vm};
use crate::frontend::memory::PAGE;

/// What the files of the host say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostFiles {
    /// The processor.
    pub cpu: Cpu,
    /// Whether a hypervisor is below.
    pub hypervisor: bool,
    /// Whether the processor snoops its own caches.
    pub self_snoop: bool,
    /// Who translates for KVM's guests.
    pub paging: Paging,
    /// Whether the kernel says that it is ChromeOS's.
    pub chromeos: bool,
}

impl HostFiles {
    /// Reads the files below `root`; `/` is this machine. What cannot be read is not there.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        let text = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        let processor = text("proc/cpuinfo");
        let has = |flag| has_flag(&processor, flag);
        let cpu = match field(&processor, "vendor_id") {
            Some("GenuineIntel") => Cpu::Intel,
            Some("AuthenticAMD" | "HygonGenuine") => Cpu::Amd,
            Some(_) => Cpu::OtherX86,
            None if field(&processor, "CPU implementer").is_some() => Cpu::Arm64,
            None => Cpu::Other,
        };
        let is_on = |path| matches!(text(path).trim(), "Y" | "1");
        let paging = if is_on("sys/module/kvm_intel/parameters/ept") {
            Paging::Ept
        } else if is_on("sys/module/kvm_amd/parameters/npt") {
            Paging::Npt
        } else if cpu == Cpu::Arm64 {
            Paging::StageTwo
        } else {
            Paging::Software
        };
        let kernel = text("proc/version").to_lowercase();
        Self {
            cpu,
            // Arm has no such flag; device trees and firmware say it in many ways, if at all.
            hypervisor: has("hypervisor") || cpu == Cpu::Arm64,
            self_snoop: has("ss"),
            paging,
            chromeos: ["chrome-bot@", "chromium os", "chromiumos"]
                .iter()
                .any(|mark| kernel.contains(mark)),
        }
    }
}

/// The value of the first line `name : value`.
fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find_map(|(key, value)| (key.trim() == name).then_some(value.trim()))
}

/// Whether the first processor's flags have this word.
fn has_flag(processor: &str, flag: &str) -> bool {
    field(processor, "flags").is_some_and(|flags| flags.split_whitespace().any(|f| f == flag))
}

/// Asks everything. `vouched` is the operator's word that the hypervisor below, if there is one,
/// hands memory types through.
///
/// # Errors
/// When KVM makes no scratch machine. Answers in the negative are no errors.
pub fn ask(kvm: &Kvm, root: &Path, vouched: bool) -> io::Result<KvmAnswers> {
    let files = HostFiles::read(root);
    let quirks = kvm.check_extension_raw(CAP_DISABLE_QUIRKS2.into());
    // Both trials leave traces in the machine, so that it is not the one that will run.
    let scratch = Vm::new(kvm)?;
    let disable_quirk = scratch.disable_quirk(QUIRK_IGNORE_GUEST_PAT);
    let memory = Arc::new(Reservation::new(PAGE)?);
    let backing = Backing::Window(memory, 0, PAGE);
    let flagged_slot = scratch.set_slot(0, 0, backing, SLOT_NONCOHERENT, true);
    Ok(KvmAnswers {
        cpu: files.cpu,
        below: match (files.hypervisor, vouched) {
            (false, _) => Below::Metal,
            (true, false) => Below::Hypervisor,
            (true, true) => Below::Vouched,
        },
        paging: files.paging,
        self_snoop: files.self_snoop,
        // No user-visible file or register says it.
        forced_write_back: None,
        quirks: u64::try_from(quirks).unwrap_or(0),
        disable_quirk: disable_quirk.map_err(|error| number(&error)),
        flagged_slot: flagged_slot.map_err(|error| number(&error)),
        chromeos: files.chromeos,
    })
}

/// An error's number; 0 for one that the kernel did not make.
fn number(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTEL: &str = "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu vmx ss ht\n";
    const AMD: &str = "vendor_id\t: AuthenticAMD\nflags\t\t: fpu svm sse hypervisor\n";
    const ARM: &str = "processor\t: 0\nFeatures\t: fp\nCPU implementer\t: 0x41\n";

    fn host(files: &[(&str, &str)]) -> HostFiles {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        HostFiles::read(root.path())
    }

    #[test]
    fn each_vendor_with_its_module() {
        let version = ("proc/version", "Linux version 7.2.12+deb14-amd64 (debian)");
        let ept = ("sys/module/kvm_intel/parameters/ept", "Y\n");
        let intel = HostFiles {
            cpu: Cpu::Intel,
            hypervisor: false,
            self_snoop: true,
            paging: Paging::Ept,
            chromeos: false,
        };
        assert_eq!(host(&[("proc/cpuinfo", INTEL), version, ept]), intel);
        let off = ("sys/module/kvm_intel/parameters/ept", "N\n");
        let shadow = HostFiles {
            paging: Paging::Software,
            ..intel
        };
        assert_eq!(host(&[("proc/cpuinfo", INTEL), off]), shadow);
        let npt = ("sys/module/kvm_amd/parameters/npt", "1\n");
        let amd = HostFiles {
            cpu: Cpu::Amd,
            hypervisor: true,
            self_snoop: false,
            paging: Paging::Npt,
            chromeos: false,
        };
        assert_eq!(host(&[("proc/cpuinfo", AMD), npt]), amd);
        let arm = HostFiles {
            cpu: Cpu::Arm64,
            hypervisor: true,
            paging: Paging::StageTwo,
            ..amd
        };
        assert_eq!(host(&[("proc/cpuinfo", ARM)]), arm);
    }

    #[test]
    fn files_that_are_not_there_say_nothing() {
        let nothing = HostFiles {
            cpu: Cpu::Other,
            hypervisor: false,
            self_snoop: false,
            paging: Paging::Software,
            chromeos: false,
        };
        assert_eq!(host(&[("proc/other", "")]), nothing);
    }

    #[test]
    fn chromeos_kernels_say_so() {
        let line = "Linux version 5.15.108-18910-gab0e1cb584e1 \
                    (chrome-bot@chromeos-release-builder) (Chromium OS 16.0 clang version 16.0.0)";
        assert!(host(&[("proc/version", line)]).chromeos);
    }
}
