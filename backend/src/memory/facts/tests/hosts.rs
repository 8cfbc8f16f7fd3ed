use std::fs;

use super::super::{Facts, Host, LiveCalls};
use super::{HOSTS, answers, folder, probe, sources};

/// Compares all facts of a recorded host with those written down for it.
fn check(host: &str) {
    let found: Vec<String> = answers(&probe(&folder(host).join("root"), host))
        .into_iter()
        .map(|(name, answer)| format!("{name} = {answer}"))
        .collect();
    let expected = fs::read_to_string(folder(host).join("expected.txt")).unwrap();
    let mut expected: Vec<&str> = expected.lines().collect();
    expected.sort_unstable();
    assert_eq!(found, expected, "{host}");
}

#[test]
fn intel_with_self_snoop_can_have_the_guests_pat_honored() {
    check("intel-selfsnoop");
}

#[test]
fn intel_without_self_snoop_cannot() {
    check("intel-no-selfsnoop");
}

#[test]
fn an_intel_gpu_with_a_shared_cache_always_snoops() {
    check("intel-llc");
}

#[test]
fn an_intel_gpu_without_one_on_a_chromeos_kernel_has_the_memslot_flag() {
    check("intel-no-llc");
}

#[test]
fn an_amd_card_behind_an_identity_domain_may_not_snoop() {
    check("amd");
}

#[test]
fn an_amd_card_behind_first_page_tables_always_snoops() {
    check("amd-v1-iommu");
}

#[test]
fn arm64_with_forced_write_back_says_so_in_its_log() {
    check("arm64-fwb");
}

#[test]
fn arm64_without_it_is_known_from_the_whole_log() {
    check("arm64-no-fwb");
}

#[test]
fn a_guest_has_a_hypervisor_below() {
    check("nested-guest");
}

#[test]
fn the_machine_that_was_recorded_has_no_gpu() {
    check("this-machine");
}

#[test]
fn every_recorded_host_has_its_test() {
    let mut names: Vec<String> = fs::read_dir(folder(""))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, HOSTS);
}

#[test]
fn answers_name_the_file_or_call_that_gave_them() {
    let sources = sources(&probe(&folder("intel-no-llc").join("root"), "intel-no-llc"));
    for (name, source) in [
        ("cpu.arch", "/proc/sys/kernel/arch: x86_64"),
        ("cpu.self_snoop", "/proc/cpuinfo: flags has ss"),
        (
            "cpu.hypervisor",
            "/proc/cpuinfo: flags does not have hypervisor",
        ),
        (
            "kvm.pat_quirk",
            "KVM_CHECK_EXTENSION(KVM_CAP_DISABLE_QUIRKS2) is 0x7f",
        ),
        ("gpus.0.llc", "I915_PARAM_HAS_LLC of renderD128 is 0"),
        (
            "gpus.0.no_snoop",
            "/sys/bus/pci/devices/0000:00:02.0/config: Device Control is 0x0000",
        ),
        (
            "gpus.0.iommu.snoop_control",
            "/sys/class/iommu/dmar0/intel-iommu/ecap: f050da",
        ),
        (
            "gpus.0.iommu.domain",
            "/sys/bus/pci/devices/0000:00:02.0/iommu_group/type",
        ),
    ] {
        assert_eq!(sources[name], source, "{name}");
    }
    let sources = super::sources(&probe(&folder("intel-llc").join("root"), "intel-llc"));
    assert_eq!(
        sources["gpus.0.no_snoop"],
        "/sys/bus/pci/devices/0000:00:02.0/config shows 64 bytes only without CAP_SYS_ADMIN"
    );
}

/// What this machine is nobody knows here, but its architecture is that of this program.
#[test]
fn this_machine_can_be_probed() {
    let facts = Facts::probe(&Host::live().unwrap(), &LiveCalls);
    let arch = match std::env::consts::ARCH {
        "x86_64" => "x86",
        "aarch64" => "arm64",
        _ => "other",
    };
    let answers = answers(&facts);
    assert_eq!(answers["cpu.arch"], arch);
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(answers["kernel.release"], release.trim_end());
    assert_eq!(
        answers["udmabuf"],
        std::path::Path::new("/dev/udmabuf").exists().to_string()
    );
}
