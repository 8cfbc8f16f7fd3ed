//! The full chain: our daemon, stock QEMU with KVM and a stock Linux guest, all inside an emulated
//! machine, and every page table between the memory and the guest's program looked at.

use nosnoop_tests::lab::chain::{self, ChainReport, Found, Parts};
use nosnoop_tests::lab::programs;

use super::prepared;

/// All that is to be seen, typed in from the policy: write-combining only where the memory is, and
/// the operator vouches for what is below. On vgem, memory is plain with `--noncoherent=off` (here
/// with the operator's word) and with `=coerce` (without it).
const EXPECTED: &str = "                 memfd        memfd        vgem         vgem         vgem         vgem         vgem         memfd
                 auto         honored      honored      auto         ignored      off          coerce       told-WC
-------------------------------------------------------------------------------------------------------------------------
1 GPU access     no device:   no device:   no device:   no device:   no device:   no device:   no device:   no device:
                 CPU only     CPU only     CPU only     CPU only     CPU only     CPU only     CPU only     CPU only
-------------------------------------------------------------------------------------------------------------------------
2 host mapping   WB           WB           WC           not mapped   not mapped   WB           WB           WB
                 X------UW    X------UW    X-----TUW                              X------UW    X------UW    X------UW
-------------------------------------------------------------------------------------------------------------------------
3 memory slot    NPT WB       NPT WB       NPT WB       not mapped   not mapped   NPT WB       NPT WB       NPT WB
                 63 pages     63 pages     63 pages                               63 pages     63 pages     63 pages
-------------------------------------------------------------------------------------------------------------------------
4 guest told     map_info     map_info     map_info     map_info     map_info     map_info     map_info     map_info
                 1            1            3            1, refused   1, refused   1            1            3
-------------------------------------------------------------------------------------------------------------------------
5 guest mapping  WB           WB           WC           not mapped   not mapped   WB           WB           WC
                 X------UW    X------UW    X-----TUW                              X------UW    X------UW    X-----TUW
-------------------------------------------------------------------------------------------------------------------------
bytes both ways  equal        equal        equal        -            -            equal        equal        equal
-------------------------------------------------------------------------------------------------------------------------
verdict          whole        whole        whole        refused      refused      whole        whole        BROKEN
                                                                                                            at link 2
-------------------------------------------------------------------------------------------------------------------------
";

/// The reason for which a case is refused.
#[track_caller]
fn refused(report: &ChainReport, name: &str) -> String {
    let case = report.cases.iter().find(|case| case.name == name).unwrap();
    match &case.found {
        Found::Refused(refused) => {
            // Never told write-combining, not even before the refusal.
            assert_eq!((refused.described, refused.still_mapped), (1, 0));
            assert!(refused.failure.contains("mapping a blob"), "{refused:?}");
            refused.reason.clone()
        }
        Found::Mapped(links) => panic!("{name}: {links:?}"),
    }
}

#[test]
fn the_chain_holds_from_the_memory_to_the_guests_page_tables_or_is_refused() {
    let Some((parts, _turn)) = prepared(Parts::prepare) else {
        return;
    };
    let report = chain::run(&parts).unwrap();
    println!("\n{}", report.describe());
    report
        .write(&programs::target_folder().join("verify"))
        .unwrap();
    assert_eq!(report.table(), EXPECTED);
    assert!(report.is_as_planned());

    // What is below is a hypervisor, and nobody vouches for it.
    let reason = refused(&report, "vgem auto");
    assert!(reason.contains("hypervisor"), "{reason}");
    let reason = refused(&report, "vgem ignored");
    assert!(reason.contains("--vmm-memtype=ignored"), "{reason}");

    // That a wrong chain shows.
    let wrong = report.cases.last().unwrap();
    let broken = wrong.broken.as_deref().unwrap();
    assert!(broken.starts_with("link 2 is broken"), "{broken}");

    for case in &report.cases {
        if let Found::Mapped(links) = &case.found {
            // 64-bit, where no range register changes what the page tables say.
            assert!(links.guest.physical >= 1 << 32, "{links:?}");
        }
    }
}
