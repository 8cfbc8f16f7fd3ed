//! The tables of the manuals, typed in row by row, against the functions; then what KVM makes of
//! them.

use std::collections::HashSet;

use super::*;
use crate::memory::fact::Fact;

/// Intel SDM vol. 3A, table 11-7 (12-7): MTRR type, PAT type, effective type.
#[rustfmt::skip]
const SDM_11_7: [(&str, &str, &str); 30] = [
    ("UC", "UC",  "UC"),
    ("UC", "UC-", "UC"),
    ("UC", "WC",  "WC"),
    ("UC", "WT",  "UC"),
    ("UC", "WB",  "UC"),
    ("UC", "WP",  "UC"),
    ("WC", "UC",  "UC"),
    ("WC", "UC-", "WC"),
    ("WC", "WC",  "WC"),
    ("WC", "WT",  "UC"),
    ("WC", "WB",  "WC"),
    ("WC", "WP",  "UC"),
    ("WT", "UC",  "UC"),
    ("WT", "UC-", "UC"),
    ("WT", "WC",  "WC"),
    ("WT", "WT",  "WT"),
    ("WT", "WB",  "WT"),
    ("WT", "WP",  "WP"),
    ("WB", "UC",  "UC"),
    ("WB", "UC-", "UC"),
    ("WB", "WC",  "WC"),
    ("WB", "WT",  "WT"),
    ("WB", "WB",  "WB"),
    ("WB", "WP",  "WP"),
    ("WP", "UC",  "UC"),
    ("WP", "UC-", "WC"),
    ("WP", "WC",  "WC"),
    ("WP", "WT",  "WT"),
    ("WP", "WB",  "WP"),
    ("WP", "WP",  "WP"),
];

/// AMD APM vol. 2, table 7-11, with the rows for several MTRR types written out: PAT type, MTRR
/// type, effective type.
#[rustfmt::skip]
const APM_7_11: [(&str, &str, &str); 30] = [
    ("UC",  "UC", "UC"),
    ("UC",  "WC", "CD"),
    ("UC",  "WP", "CD"),
    ("UC",  "WT", "CD"),
    ("UC",  "WB", "CD"),
    ("UC-", "UC", "UC"),
    ("UC-", "WC", "WC"),
    ("UC-", "WP", "CD"),
    ("UC-", "WT", "CD"),
    ("UC-", "WB", "CD"),
    ("WC",  "UC", "WC"),
    ("WC",  "WC", "WC"),
    ("WC",  "WP", "WC"),
    ("WC",  "WT", "WC"),
    ("WC",  "WB", "WC"),
    ("WP",  "UC", "UC"),
    ("WP",  "WC", "CD"),
    ("WP",  "WP", "WP"),
    ("WP",  "WT", "CD"),
    ("WP",  "WB", "WP"),
    ("WT",  "UC", "UC"),
    ("WT",  "WC", "CD"),
    ("WT",  "WP", "CD"),
    ("WT",  "WT", "WT"),
    ("WT",  "WB", "WT"),
    ("WB",  "UC", "UC"),
    ("WB",  "WC", "WC"),
    ("WB",  "WP", "WP"),
    ("WB",  "WT", "WT"),
    ("WB",  "WB", "WB"),
];

/// AMD APM vol. 2, table 15-19: a row for each guest PAT type, a column for each host PAT type.
#[rustfmt::skip]
const APM_15_19: (&str, [&str; 6]) = (
           "UC    UC-   WC    WP    WT    WB", [
    "UC     UC    UC    UC    UC    UC    UC",
    "UC-    UC    UC-   WC    UC    UC    UC",
    "WC     WC    WC    WC    WC+   WC+   WC+",
    "WP     UC    UC    UC    WP    UC    WP",
    "WT     UC    UC    UC    UC    WT    WT",
    "WB     UC    UC    WC    WP    WT    WB",
]);

/// AMD APM vol. 2, table 15-20: a row for each combined PAT type, a column for each MTRR type.
#[rustfmt::skip]
const APM_15_20: (&str, [&str; 7]) = (
           "UC    WC    WP    WT    WB", [
    "UC     UC    CD    CD    CD    CD",
    "UC-    UC    WC    CD    CD    CD",
    "WC     WC    WC    WC    WC    WC",
    "WC+    WC    WC    WC+   WC+   WC+",
    "WP     UC    CD    WP    CD    WP",
    "WT     UC    CD    CD    WT    WT",
    "WB     UC    WC    WP    WT    WB",
]);

/// Arm ARM, tables D8-97 and D8-98: a row for each stage 1 type, a column for each stage 2 type.
/// D is Device with what follows, NC, WT and WB are Normal.
#[rustfmt::skip]
const ARM_D8_97: (&str, [&str; 7]) = (
           "nGnRnE nGnRE  nGRE   GRE    NC     WT     WB", [
    "nGnRnE nGnRnE nGnRnE nGnRnE nGnRnE nGnRnE nGnRnE nGnRnE",
    "nGnRE  nGnRnE nGnRE  nGnRE  nGnRE  nGnRE  nGnRE  nGnRE",
    "nGRE   nGnRnE nGnRE  nGRE   nGRE   nGRE   nGRE   nGRE",
    "GRE    nGnRnE nGnRE  nGRE   GRE    GRE    GRE    GRE",
    "NC     nGnRnE nGnRE  nGRE   GRE    NC     NC     NC",
    "WT     nGnRnE nGnRE  nGRE   GRE    NC     WT     WT",
    "WB     nGnRnE nGnRE  nGRE   GRE    NC     WT     WB",
]);

/// Arm ARM, tables D8-100 and D8-101 (FEAT_S2FWB): a row for each stage 1 type, a column for each
/// stage 2 `MemAttr[2:0]` that is not reserved.
#[rustfmt::skip]
const ARM_D8_101: (&str, [&str; 7]) = (
           "000    001    010    011    101    110    111", [
    "nGnRnE nGnRnE nGnRnE nGnRnE nGnRnE nGnRnE WB     nGnRnE",
    "nGnRE  nGnRnE nGnRE  nGnRE  nGnRE  nGnRE  WB     nGnRE",
    "nGRE   nGnRnE nGnRE  nGRE   nGRE   nGRE   WB     nGRE",
    "GRE    nGnRnE nGnRE  nGRE   GRE    GRE    WB     GRE",
    "NC     nGnRnE nGnRE  nGRE   GRE    NC     WB     NC",
    "WT     nGnRnE nGnRE  nGRE   GRE    NC     WB     WT",
    "WB     nGnRnE nGnRE  nGRE   GRE    NC     WB     WB",
]);

/// The cells of a table: row, column, content.
fn cells<const ROWS: usize>(
    table: &(&'static str, [&'static str; ROWS]),
) -> Vec<(&'static str, &'static str, &'static str)> {
    let columns: Vec<_> = table.0.split_whitespace().collect();
    let mut cells = Vec::new();
    for row in table.1 {
        let (name, contents) = row.split_once(' ').unwrap();
        let contents: Vec<_> = contents.split_whitespace().collect();
        assert_eq!(contents.len(), columns.len(), "{row}");
        cells.extend(columns.iter().zip(contents).map(|(c, x)| (name, *c, x)));
    }
    cells
}

fn range(name: &str) -> RangeType {
    match name {
        "UC" => RangeType::Uc,
        "WC" => RangeType::Wc,
        "WT" => RangeType::Wt,
        "WP" => RangeType::Wp,
        "WB" => RangeType::Wb,
        other => panic!("{other}"),
    }
}

fn pat(name: &str) -> PatType {
    match name {
        "UC" => PatType::Uc,
        "UC-" => PatType::UcMinus,
        "WC" => PatType::Wc,
        "WT" => PatType::Wt,
        "WP" => PatType::Wp,
        "WB" => PatType::Wb,
        other => panic!("{other}"),
    }
}

fn arm(name: &str) -> Arm64Type {
    match name {
        "nGnRnE" => Arm64Type::Device(Device::NGnRnE),
        "nGnRE" => Arm64Type::Device(Device::NGnRE),
        "nGRE" => Arm64Type::Device(Device::NGRE),
        "GRE" => Arm64Type::Device(Device::GRE),
        "NC" => Arm64Type::NormalNc,
        "WT" => Arm64Type::NormalWt,
        "WB" => Arm64Type::NormalWb,
        other => panic!("{other}"),
    }
}

fn mem_attr(bits: &str) -> ForcedType {
    match bits {
        "000" => ForcedType::Device(Device::NGnRnE),
        "001" => ForcedType::Device(Device::NGnRE),
        "010" => ForcedType::Device(Device::NGRE),
        "011" => ForcedType::Device(Device::GRE),
        "101" => ForcedType::NonCacheable,
        "110" => ForcedType::WriteBack,
        "111" => ForcedType::Stage1,
        other => panic!("{other}"),
    }
}

#[test]
fn the_tables_have_every_row_once() {
    for table in [SDM_11_7, APM_7_11] {
        let rows: HashSet<_> = table.iter().map(|(a, b, _)| (a, b)).collect();
        assert_eq!(rows.len(), 30);
    }
}

#[test]
fn intel_combines_mtrr_and_pat_by_the_manuals_table() {
    for (mtrr, entry, effective) in SDM_11_7 {
        let computed = x86::intel(range(mtrr), pat(entry)).to_string();
        assert_eq!(computed, effective, "MTRR {mtrr}, PAT {entry}");
    }
}

#[test]
fn an_ept_entry_stands_for_the_mtrr_or_for_everything() {
    for (entry, guest, effective) in SDM_11_7 {
        let honored = x86::ept(range(entry), false, pat(guest)).to_string();
        assert_eq!(honored, effective, "EPT {entry}, PAT {guest}");
        let ignored = x86::ept(range(entry), true, pat(guest)).to_string();
        assert_eq!(ignored, entry, "EPT {entry} and IPAT, PAT {guest}");
    }
}

#[test]
fn amd_combines_mtrr_and_pat_by_the_manuals_table() {
    for (entry, mtrr, effective) in APM_7_11 {
        let computed = x86::amd(range(mtrr), pat(entry)).to_string();
        assert_eq!(computed, effective, "PAT {entry}, MTRR {mtrr}");
    }
}

#[test]
fn npt_combines_guest_host_and_mtrr_by_the_manuals_tables() {
    let second = cells(&APM_15_20);
    for (guest, host, combined) in cells(&APM_15_19) {
        for (_, mtrr, effective) in second.iter().filter(|(row, _, _)| *row == combined) {
            let computed = x86::npt(pat(guest), pat(host), range(mtrr)).to_string();
            assert_eq!(computed, *effective, "{guest}, {host}, {mtrr}");
        }
    }
    assert_eq!((cells(&APM_15_19).len(), second.len()), (36, 35));
}

#[test]
fn arm64_stages_combine_by_the_manuals_tables() {
    for (stage1, stage2, result) in cells(&ARM_D8_97) {
        let computed = arm64::combined(arm(stage1), arm(stage2));
        assert_eq!(computed, arm(result), "{stage1}, {stage2}");
    }
}

#[test]
fn arm64_stage_2_forces_by_the_manuals_tables() {
    for (stage1, bits, result) in cells(&ARM_D8_101) {
        let computed = arm64::forced(arm(stage1), mem_attr(bits));
        assert_eq!(computed, arm(result), "{stage1}, MemAttr {bits}");
    }
}

fn bare_metal(arch: Arch, vendor: Vendor) -> PlatformFacts {
    PlatformFacts {
        arch,
        vendor: Fact::known(vendor, "test"),
        hypervisor: Fact::known(false, "test"),
        self_snoop: Fact::known(true, "test"),
        fwb: Fact::unknown("test"),
        ept_or_npt: Fact::known(true, "test"),
        pat_quirk: Fact::known(true, "test"),
    }
}

/// What the guest gets for cached, uncached and write-combining.
fn guest(platform: &PlatformFacts, kind: PageKind, quirk_off: Option<bool>) -> [String; 3] {
    [MapCache::Cached, MapCache::Uncached, MapCache::Wc].map(|cache| {
        guest_effective(platform, kind, quirk_off, cache)
            .map_or("unknown".to_owned(), |memory| memory.to_string())
    })
}

#[test]
fn kvm_on_intel() {
    use PageKind::{Mmio, Ram};
    let host = bare_metal(Arch::X86, Vendor::Intel);
    assert_eq!(guest(&host, Ram, Some(false)), ["WB", "WB", "WB"]);
    assert_eq!(guest(&host, Ram, Some(true)), ["WB", "UC", "WC"]);
    assert_eq!(guest(&host, Ram, None), ["WB", "unknown", "unknown"]);
    for quirk_off in [None, Some(false), Some(true)] {
        assert_eq!(guest(&host, Mmio, quirk_off), ["UC", "UC", "WC"]);
    }
}

#[test]
fn kvm_on_amd() {
    let host = bare_metal(Arch::X86, Vendor::Amd);
    for quirk_off in [None, Some(false), Some(true)] {
        assert_eq!(guest(&host, PageKind::Ram, quirk_off), ["WB", "CD", "WC+"]);
        assert_eq!(guest(&host, PageKind::Mmio, quirk_off), ["UC", "UC", "WC"]);
    }
}

#[test]
fn kvm_with_shadow_page_tables() {
    for vendor in [Vendor::Intel, Vendor::Amd] {
        let mut host = bare_metal(Arch::X86, vendor);
        host.ept_or_npt = Fact::known(false, "test");
        for quirk_off in [None, Some(false), Some(true)] {
            assert_eq!(guest(&host, PageKind::Ram, quirk_off), ["WB"; 3]);
            assert_eq!(guest(&host, PageKind::Mmio, quirk_off), ["UC"; 3]);
        }
    }
}

#[test]
fn kvm_on_arm64() {
    let mut host = bare_metal(Arch::Arm64, Vendor::Other);
    let unknown = ["unknown"; 3];
    assert_eq!(guest(&host, PageKind::Ram, None), unknown);
    host.fwb = Fact::known(false, "test");
    let combined = ["Normal Write-Back", "Device-nGnRnE", "Normal Non-cacheable"];
    assert_eq!(guest(&host, PageKind::Ram, None), combined);
    assert_eq!(guest(&host, PageKind::Mmio, None), unknown);
    host.fwb = Fact::known(true, "test");
    assert_eq!(guest(&host, PageKind::Ram, None), ["Normal Write-Back"; 3]);
    assert_eq!(guest(&host, PageKind::Mmio, None), unknown);
}

#[test]
fn what_is_not_known_has_no_type() {
    let unknown = ["unknown"; 3];
    for vendor in [Vendor::Intel, Vendor::Amd] {
        for hypervisor in [Fact::known(true, "test"), Fact::unknown("test")] {
            let mut host = bare_metal(Arch::X86, vendor);
            host.hypervisor = hypervisor;
            assert_eq!(guest(&host, PageKind::Mmio, Some(true)), unknown);
            assert_eq!(host_effective(&host, PageKind::Ram, MapCache::Wc), None);
        }
        let mut host = bare_metal(Arch::X86, vendor);
        host.ept_or_npt = Fact::unknown("test");
        assert_eq!(guest(&host, PageKind::Mmio, Some(true)), unknown);
    }
    let mut host = bare_metal(Arch::X86, Vendor::Other);
    assert_eq!(guest(&host, PageKind::Ram, Some(true)), unknown);
    assert_eq!(host_effective(&host, PageKind::Ram, MapCache::Wc), None);
    host.vendor = Fact::unknown("test");
    assert_eq!(guest(&host, PageKind::Ram, Some(true)), unknown);
    let host = bare_metal(Arch::Other, Vendor::Other);
    assert_eq!(guest(&host, PageKind::Ram, Some(true)), unknown);
    assert_eq!(host_effective(&host, PageKind::Ram, MapCache::Wc), None);
}

#[test]
fn the_hosts_own_mappings() {
    use MapCache::{Cached, Uncached, Wc};
    for (arch, vendor, kind, expected) in [
        (Arch::X86, Vendor::Intel, PageKind::Ram, ["WB", "UC", "WC"]),
        (Arch::X86, Vendor::Intel, PageKind::Mmio, ["UC", "UC", "WC"]),
        (Arch::X86, Vendor::Amd, PageKind::Ram, ["WB", "CD", "WC"]),
        (Arch::X86, Vendor::Amd, PageKind::Mmio, ["UC", "UC", "WC"]),
    ] {
        let host = bare_metal(arch, vendor);
        let types = [Cached, Uncached, Wc]
            .map(|cache| host_effective(&host, kind, cache).unwrap().to_string());
        assert_eq!(types, expected, "{vendor:?} {kind}");
    }
    let host = bare_metal(Arch::Arm64, Vendor::Other);
    let memory = host_effective(&host, PageKind::Ram, Wc).unwrap();
    assert_eq!(memory.to_string(), "Normal Non-cacheable");
}

#[test]
fn types_act_like_those_of_map_info() {
    use MapCache::{Cached, Uncached, Wc};
    for (memory, like) in [
        (X86Type::Uc, Some(Uncached)),
        (X86Type::Cd, Some(Uncached)),
        (X86Type::Wc, Some(Wc)),
        (X86Type::WcPlus, Some(Wc)),
        (X86Type::Wt, None),
        (X86Type::Wp, None),
        (X86Type::Wb, Some(Cached)),
    ] {
        assert_eq!(Effective::X86(memory).acts_like(), like, "{memory}");
    }
    for (memory, like) in [
        ("nGnRnE", Some(Uncached)),
        ("GRE", Some(Uncached)),
        ("NC", Some(Wc)),
        ("WT", None),
        ("WB", Some(Cached)),
    ] {
        assert_eq!(Effective::Arm64(arm(memory)).acts_like(), like, "{memory}");
    }
}
