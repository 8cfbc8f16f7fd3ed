use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::*;
use crate::memory::facts::{Host, RecordedCalls};

const HOSTS: [&str; 10] = [
    "amd",
    "amd-v1-iommu",
    "arm64-fwb",
    "arm64-no-fwb",
    "intel-llc",
    "intel-no-llc",
    "intel-no-selfsnoop",
    "intel-selfsnoop",
    "nested-guest",
    "this-machine",
];

fn folder(host: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/hosts")
        .join(host)
}

fn facts(host: &str) -> Facts {
    let calls = fs::read_to_string(folder(host).join("calls.json")).unwrap();
    let root = Host::at(&folder(host).join("root")).unwrap();
    Facts::probe(&root, &RecordedCalls::parse(&calls).unwrap())
}

fn examine(host: &str) -> Report {
    doctor(facts(host), Settings::default())
}

/// What becomes of each kind of memory.
fn outcomes(report: &Report) -> Vec<(&str, Outcome)> {
    let memory = report.memory.iter();
    memory
        .map(|m| (m.offer.allocator.as_str(), m.outcome))
        .collect()
}

/// Compares with the text next to the recorded host; when it differs, writes what is found aside.
fn check_text(host: &str) {
    let found = examine(host).to_string();
    let expected = fs::read_to_string(folder(host).join("doctor.txt")).unwrap_or_default();
    if found != expected {
        let aside = std::env::temp_dir().join(format!("doctor-{host}.txt"));
        fs::write(&aside, found).unwrap();
        panic!("{host}: the text is not doctor.txt but {}", aside.display());
    }
}

#[test]
fn the_text_of_this_machine_says_that_nothing_is_write_combining() {
    check_text("this-machine");
    let text = examine("this-machine").to_string();
    assert!(text.ends_with("\nNothing here is write-combining.\n"));
}

#[test]
fn the_text_of_an_intel_laptop_names_the_command_line() {
    check_text("intel-selfsnoop");
}

#[test]
fn the_text_of_a_guest_leaves_the_word_to_the_operator() {
    check_text("nested-guest");
}

#[test]
fn nothing_is_write_combining_by_default_but_what_was_verified() {
    use Outcome::{Cached, Refused};
    let memfd = ("memfd", Cached);
    let udmabuf = ("udmabuf", Cached);
    let cases: [(&str, &[(&str, Outcome)]); 10] = [
        ("amd", &[("amdgpu", Refused), udmabuf, memfd]),
        // Snooped by all, so cached is coherent.
        ("amd-v1-iommu", &[("amdgpu", Cached), memfd]),
        ("arm64-fwb", &[udmabuf, memfd]),
        ("arm64-no-fwb", &[memfd]),
        ("intel-llc", &[("i915", Cached), udmabuf, memfd]),
        ("intel-no-llc", &[("i915", Refused), udmabuf, memfd]),
        ("intel-no-selfsnoop", &[("amdgpu", Refused), memfd]),
        ("intel-selfsnoop", &[("xe", Refused), udmabuf, memfd]),
        ("nested-guest", &[("vgem", Refused), udmabuf, memfd]),
        ("this-machine", &[memfd]),
    ];
    assert_eq!(cases.map(|(host, _)| host), HOSTS);
    for (host, expected) in cases {
        assert_eq!(outcomes(&examine(host)), expected, "{host}");
    }
}

#[test]
fn the_change_that_helps_is_the_smallest_that_can_be_true() {
    for (host, expected) in [
        // NPT honors the guest by itself; only the driver's path is in doubt.
        ("amd", Some("--allow-unverified")),
        ("amd-v1-iommu", Some("--allow-unverified")),
        ("nested-guest", Some("--vmm-memtype=honored")),
        (
            "intel-selfsnoop",
            Some("--vmm-memtype=honored --allow-unverified"),
        ),
        (
            "intel-no-llc",
            Some("--vmm-memtype=honored --allow-unverified"),
        ),
        // KVM cannot, whatever is said.
        ("intel-no-selfsnoop", None),
        ("intel-llc", None),
    ] {
        let report = examine(host);
        assert_eq!(report.memory[0].wc_with.as_deref(), expected, "{host}");
    }
}

#[test]
fn cached_memory_has_nothing_to_change() {
    let report = examine("this-machine");
    assert_eq!(report.memory[0].wc_with, None);
    assert!(!report.memory[0].coercible);
}

#[test]
fn snooped_memory_is_cached_until_the_host_itself_reads_it() {
    let report = examine("intel-llc");
    assert_eq!(report.memory[0].outcome, Outcome::Cached);
    assert!(!report.memory[0].host_may_read);
    assert!(report.to_string().contains("Refused if the host copies it"));
}

#[test]
fn the_notes_say_which_vmm_honors_the_guest_and_where_none_can() {
    for (host, expected) in [
        ("intel-selfsnoop", "-accel kvm,honor-guest-pat=on, honors"),
        ("intel-no-selfsnoop", "does not snoop itself"),
        ("intel-llc", "QEMU would not start"),
        ("intel-no-llc", "crosvm built with noncoherent-dma honors"),
        ("amd", "changes nothing"),
        ("arm64-fwb", "forces write-back"),
        ("arm64-no-fwb", "every hypervisor below"),
        ("nested-guest", "every hypervisor below"),
    ] {
        let note = &examine(host).notes[0];
        assert!(note.contains(expected), "{host}: {note}");
    }
    // Kernels from 7.1 on, and only where there is a GPU.
    let warns = |host| examine(host).to_string().contains("SSE moves");
    assert!(warns("intel-selfsnoop"));
    assert!(!warns("amd"));
    let mut bare = facts("intel-selfsnoop");
    bare.gpus = Fact::known(Vec::new(), "");
    assert!(
        !doctor(bare, Settings::default())
            .to_string()
            .contains("SSE moves")
    );
}

#[test]
fn a_plan_names_qemus_option_only_where_kvm_offers_what_it_needs() {
    for (host, offered, advice) in [
        ("intel-selfsnoop", true, "start QEMU (11.1 or later)"),
        ("intel-no-llc", false, "crosvm on a ChromeOS kernel"),
    ] {
        let report = examine(host);
        assert_eq!(report.facts.kvm.pat_quirk.is_yes(), offered, "{host}");
        let why = report.memory[0].why.join(" ");
        assert!(why.contains(advice), "{host}: {why}");
        assert_eq!(why.contains("honor-guest-pat"), offered, "{host}: {why}");
    }
    // One that cannot be asked is not taken for one that offers it.
    let mut closed = facts("intel-selfsnoop");
    closed.kvm.pat_quirk = Fact::unknown("/dev/kvm: Permission denied");
    let why = doctor(closed, Settings::default()).memory[0].why.join(" ");
    assert!(why.contains("where it may open /dev/kvm"), "{why}");
    assert!(!why.contains("honor-guest-pat"), "{why}");
}

#[test]
fn settings_are_those_of_the_daemon() {
    let honored = Settings {
        vmm_memtype: VmmMemtype::Honored,
        ..Settings::default()
    };
    let report = doctor(facts("nested-guest"), honored);
    assert_eq!(report.memory[0].outcome, Outcome::WriteCombining);
    assert_eq!(report.memory[0].wc_with, None);
    let text = report.to_string();
    assert!(text.contains("(--vmm-memtype=honored)"));
    assert!(text.ends_with("Write-combining here: vgem (card0).\n"));

    let coerced = Settings {
        noncoherent: Noncoherent::Coerce,
        ..Settings::default()
    };
    let text = doctor(facts("nested-guest"), coerced).to_string();
    assert!(text.contains("Cached memory is allocated in its place."));
    assert!(text.contains("MEMORY (--noncoherent=coerce)"));
}

/// Whatever is set: what is said to help does, and each line fits a terminal.
#[test]
fn changes_that_are_named_work_and_lines_fit() {
    for host in HOSTS {
        for (settings, _) in alternatives(Settings {
            noncoherent: Noncoherent::Off,
            ..Settings::default()
        }) {
            let report = doctor(facts(host), settings);
            for (at, memory) in report.memory.iter().enumerate() {
                let Some(options) = &memory.wc_with else {
                    continue;
                };
                let mut changed = settings;
                for option in options.split(' ') {
                    match option {
                        "--noncoherent=auto" => changed.noncoherent = Noncoherent::Auto,
                        "--vmm-memtype=honored" => changed.vmm_memtype = VmmMemtype::Honored,
                        "--allow-unverified" => changed.allow_unverified = true,
                        other => panic!("{host}: there is no option {other}"),
                    }
                }
                let outcome = doctor(facts(host), changed).memory[at].outcome;
                assert_eq!(outcome, Outcome::WriteCombining, "{host}: {options}");
            }
            for line in report.to_string().lines() {
                assert!(line.len() <= 100 && line.is_ascii(), "{host}: {line}");
            }
        }
    }
}

/// Programs rely on these names.
#[test]
fn the_json_has_stable_names() {
    let names = |value: &Value| -> BTreeSet<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    let set = |names: &[&str]| -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    };
    for host in HOSTS {
        let text = serde_json::to_string(&examine(host)).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            names(&json),
            set(&["settings", "facts", "vmm", "memory", "notes"]),
            "{host}"
        );
        assert_eq!(
            json["settings"],
            serde_json::json!({
                "noncoherent": "auto", "vmm_memtype": "auto", "allow_unverified": false
            })
        );
        for fact in [&json["facts"]["cpu"]["self_snoop"], &json["vmm"]["ram"]] {
            assert_eq!(names(fact), set(&["value", "source"]), "{host}");
        }
        for memory in json["memory"].as_array().unwrap() {
            assert_eq!(
                names(memory),
                set(&[
                    "allocator",
                    "node",
                    "traits",
                    "outcome",
                    "host_may_read",
                    "why",
                    "wc_with",
                    "coercible",
                ]),
                "{host}"
            );
            assert_eq!(
                names(&memory["traits"]),
                set(&["host", "kinds", "snooping", "verified"])
            );
        }
    }
    let json = serde_json::to_value(examine("nested-guest")).unwrap();
    assert_eq!(json["memory"][0]["outcome"], "refused");
    assert_eq!(json["memory"][0]["node"], "card0");
    assert_eq!(json["memory"][0]["traits"]["snooping"], "no-device");
    assert_eq!(json["memory"][1]["outcome"], "cached");
    assert_eq!(json["vmm"]["ram"]["value"], Value::Null);
}

/// What is here is not known to this test, but without a GPU there is nothing to combine.
#[test]
fn this_machine_is_told_the_truth() {
    let facts = Facts::of_this_machine().unwrap();
    let gpus = facts.gpus.value().map_or(0, Vec::len);
    let report = doctor(facts, Settings::default());
    if gpus == 0 {
        let text = report.to_string();
        assert!(
            text.ends_with("\nNothing here is write-combining.\n"),
            "{text}"
        );
    }
    for memory in &report.memory {
        assert!(memory.offer.traits.verified || memory.outcome != Outcome::WriteCombining);
    }
}
