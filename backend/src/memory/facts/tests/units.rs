//! Single facts that the recorded hosts do not have in every form.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::super::{Facts, Host, RecordedCalls};
use super::{answers, folder};

/// A host that consists of these files.
fn made_of(files: &[(&str, &str)], calls: &str) -> Facts {
    let root = TempDir::new().unwrap();
    for (path, text) in files {
        let path = root.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let calls = RecordedCalls::parse(calls).unwrap();
    Facts::probe(&Host::at(root.path()).unwrap(), &calls)
}

#[test]
fn a_host_without_files_is_unknown() {
    let facts = made_of(&[], "{}");
    for (name, answer) in answers(&facts) {
        let expected = match name.as_str() {
            // Nothing is there, and that is an answer.
            "udmabuf" | "vgem" | "kvm.opens" => "false",
            _ => "unknown",
        };
        assert_eq!(answer, expected, "{name}");
    }
    assert_eq!(facts.gpus.value(), Some(&Vec::new()));
}

/// `SERVER` is how Google's servers, which are not ChromeOS, name themselves.
#[test]
fn only_chromeos_kernels_are_taken_for_such() {
    const SERVER: &str =
        "Linux version 6.6.93+ (builder@localhost) (Chromium OS 17.0 clang 17.0.0)\n";
    const CHROMEOS: &str = "Linux version 5.15.124-20278-ga3eed51cfa07 (chrome-bot@builder) \
                            (Chromium OS 17.0_pre496208_p20230501-r16 clang version 17.0.0)\n";
    for (release, version, expected) in [
        ("5.15.124-20278-ga3eed51cfa07\n", CHROMEOS, "true"),
        ("6.6.93+\n", SERVER, "false"),
        ("5.15.124\n", CHROMEOS, "false"),
        ("5.15.124-20278-hello\n", CHROMEOS, "false"),
        (
            "6.18.0-00012-ga3eed51cfa07\n",
            "Linux version 6.18.0 (gcc 15)\n",
            "false",
        ),
        ("5.15.124-20278-ga3eed51cfa07", CHROMEOS, "unknown"),
    ] {
        let facts = made_of(
            &[
                ("/proc/sys/kernel/osrelease", release),
                ("/proc/version", version),
            ],
            r#"{"kvm_noncoherent_slot": {"value": 1}}"#,
        );
        let found = answers(&facts);
        assert_eq!(found["kernel.chromeos"], expected, "{release}");
        // The flag counts on no other kernel.
        let slot = if expected == "true" {
            "true"
        } else {
            "unknown"
        };
        assert_eq!(found["kvm.noncoherent_slot"], slot, "{release}");
    }
}

#[test]
fn kernels_from_7_1_on_map_gem_pages_read_only_first() {
    for (release, expected) in [
        ("7.0.99-amd64\n", "false"),
        ("7.1.0\n", "true"),
        ("7.1-rc1\n", "true"),
        ("10.0.1\n", "true"),
        ("6.12.107+deb13-amd64\n", "false"),
        ("7\n", "unknown"),
        ("linux\n", "unknown"),
    ] {
        let facts = made_of(&[("/proc/sys/kernel/osrelease", release)], "{}");
        assert_eq!(
            answers(&facts)["kernel.read_only_first_fault"],
            expected,
            "{release}"
        );
    }
}

fn fwb(log: &str) -> String {
    let files = [("/proc/sys/kernel/arch", "aarch64\n"), ("/dev/kmsg", log)];
    answers(&made_of(&files, "{}"))["cpu.fwb"].clone()
}

#[test]
fn no_message_means_no_only_in_a_log_that_is_whole() {
    let start = "6,0,0,-;Booting Linux\n";
    let company = "6,1,5,-;CPU features: detected: CRC32 instructions\n SUBSYSTEM=cpu\n";
    let other = "14,2,6,-;CPU features: detected: Stage-2 Force Write-Back\n";
    let init = "6,3,7,-;Run /sbin/init as init process\n";
    assert_eq!(fwb(&[start, company, other, init].concat()), "false");
    // Not from the start, with a gap, not to the end, no such messages at all.
    assert_eq!(fwb(&[company, other, init].concat()), "unknown");
    assert_eq!(fwb(&[start, company, init].concat()), "unknown");
    assert_eq!(fwb(&[start, company, other].concat()), "unknown");
    let silent = "6,1,5,-;smp: Bringing up secondary CPUs ...\n6,2,6,-;x\n";
    assert_eq!(fwb(&[start, silent, init].concat()), "unknown");
    // A message that is there counts in any log; what a process wrote (priority 14) does not.
    let said = "6,7,8,-;CPU features: detected: Stage-2 Force Write-Back\n";
    assert_eq!(fwb(said), "true");
    assert_eq!(fwb(other), "unknown");
}

#[test]
fn amds_second_page_tables_are_no_proof_of_anything() {
    let root = folder("amd-v1-iommu").join("root");
    let log = fs::read_to_string(root.join("dev/kmsg")).unwrap();
    let second = log.replace(
        "AMD-Vi: Virtual APIC enabled",
        "AMD-Vi: V2 page table enabled (Paging mode : 4 level)",
    );
    assert_ne!(log, second);
    for (log, expected) in [
        (log, "true"),
        (second, "unknown"),
        (String::new(), "unknown"),
    ] {
        let copy = TempDir::new().unwrap();
        copy_tree(&root, copy.path());
        fs::write(copy.path().join("dev/kmsg"), log).unwrap();
        let facts = super::probe(copy.path(), "amd-v1-iommu");
        let found = answers(&facts);
        assert_eq!(found["gpus.0.iommu.forces_snoop"], expected);
        assert_eq!(found["gpus.0.always_snoops"], expected);
    }
}

/// Off on an endpoint, "Enable No Snoop" proves that the device snoops; integrated into the root
/// complex it proves nothing.
#[test]
fn enable_no_snoop_proves_something_of_endpoints_only() {
    // Port type in bits 7..4 of the register at 0x72; Device Control at 0x78.
    for (port, control, expected) in [
        (0x02, 0x2010_u16, "true"),
        (0x12, 0x2010, "true"),
        (0x92, 0x2010, "unknown"),
        (0x42, 0x2010, "unknown"),
        (0x12, 0x2810, "unknown"),
    ] {
        let copy = TempDir::new().unwrap();
        copy_tree(&folder("amd").join("root"), copy.path());
        let config = copy.path().join("sys/bus/pci/devices/0000:03:00.0/config");
        let mut bytes = fs::read(&config).unwrap();
        bytes[0x72] = port;
        bytes[0x78..0x7a].copy_from_slice(&control.to_le_bytes());
        fs::write(&config, bytes).unwrap();
        let found = answers(&super::probe(copy.path(), "amd"));
        assert_eq!(found["gpus.0.always_snoops"], expected, "{port:#x}");
    }
}

#[test]
fn broken_configuration_space_says_what_is_wrong() {
    let path = "/sys/bus/pci/devices/0000:03:00.0/config";
    let copy = TempDir::new().unwrap();
    copy_tree(&folder("amd").join("root"), copy.path());
    let config = copy.path().join(path.trim_start_matches('/'));
    let whole = fs::read(&config).unwrap();
    for (at, value, expected) in [
        // The vendor of a device that is gone.
        (0x00, 0xffff_u16, ": the device does not answer"),
        (0x06, 0x0000, ": the device has no capabilities"),
        (0x34, 0x0000, ": the device has no PCI Express capability"),
        (0x34, 0x0020, ": the list of capabilities is broken"),
        // The first one comes after itself.
        (0x40, 0x4001, ": the list of capabilities does not end"),
        (0x40, 0xfc01, " ends at byte 250"),
    ] {
        let mut bytes = whole.clone();
        bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
        bytes[0xfc] = 0x10;
        bytes.truncate(250);
        if expected != " ends at byte 250" {
            bytes.resize(256, 0);
        }
        fs::write(&config, bytes).unwrap();
        let facts = super::probe(copy.path(), "amd");
        let no_snoop = &facts.gpus.value().unwrap()[0].no_snoop;
        assert_eq!(no_snoop.value(), None);
        assert_eq!(no_snoop.source(), format!("{path}{expected}"));
    }
}

/// A card without a shared cache, behind nothing that forces it, with the bit on: all three hold.
#[test]
fn a_card_of_intel_can_be_known_not_to_snoop() {
    let copy = TempDir::new().unwrap();
    copy_tree(&folder("amd").join("root"), copy.path());
    let device = copy.path().join("sys/bus/pci/devices/0000:03:00.0");
    fs::write(device.join("vendor"), "0x8086\n").unwrap();
    fs::write(device.join("device"), "0xe20b\n").unwrap();
    fs::remove_file(device.join("driver")).unwrap();
    std::os::unix::fs::symlink("../../bus/pci/drivers/xe", device.join("driver")).unwrap();
    let found = answers(&super::probe(copy.path(), "amd"));
    assert_eq!(found["gpus.0.llc"], "false");
    assert_eq!(found["gpus.0.always_snoops"], "false");
}

#[test]
fn the_module_of_the_processors_vendor_tells_of_nested_paging() {
    let cpu = "flags\t: ss\nvendor_id\t: GenuineIntel\n";
    let files = |ept| {
        [
            ("/proc/sys/kernel/arch", "x86_64\n"),
            ("/proc/cpuinfo", cpu),
            ("/sys/module/kvm_intel/parameters/ept", ept),
            ("/sys/module/kvm_amd/parameters/npt", "Y\n"),
        ]
    };
    for (ept, expected) in [("N\n", "false"), ("Y\n", "true"), ("maybe\n", "unknown")] {
        let facts = made_of(&files(ept), "{}");
        assert_eq!(answers(&facts)["kvm.nested_paging"], expected);
    }
}

#[test]
fn calls_that_fail_are_unknown_and_say_why() {
    let facts = made_of(
        &[],
        r#"{"kvm_open": {"errno": 13}, "kvm_quirks": {"errno": 25}}"#,
    );
    assert!(facts.kvm.opens.is_no());
    assert_eq!(facts.kvm.opens.source(), "/dev/kvm: Permission denied");
    assert_eq!(
        facts.kvm.pat_quirk.source(),
        "KVM_CHECK_EXTENSION(KVM_CAP_DISABLE_QUIRKS2): Inappropriate ioctl for device"
    );
    assert!(RecordedCalls::parse(r#"{"kvm_opens": {"value": 0}}"#).is_err());
}

fn copy_tree(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            fs::create_dir(&to).unwrap();
            copy_tree(&entry.path(), &to);
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path()).unwrap(), to).unwrap();
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}
