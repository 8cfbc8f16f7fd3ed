//! How x86 processors combine what MTRRs, page tables and nested page tables say of a page.

use std::fmt;

/// What an MTRR says of a physical range, or an EPT entry of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeType {
    /// Uncacheable.
    Uc,
    /// Write-combining.
    Wc,
    /// Write-through.
    Wt,
    /// Write-protected.
    Wp,
    /// Write-back.
    Wb,
}

/// What the PAT entry says that a page table selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatType {
    /// Uncacheable.
    Uc,
    /// Uncacheable, unless the range is write-combining.
    UcMinus,
    /// Write-combining.
    Wc,
    /// Write-through.
    Wt,
    /// Write-protected.
    Wp,
    /// Write-back.
    Wb,
}

/// The memory type of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum X86Type {
    /// Uncacheable.
    Uc,
    /// AMD: uncacheable, and it looks into the caches all the same, as page table and MTRR disagree.
    Cd,
    /// Write-combining.
    Wc,
    /// AMD: write-combining that looks into the caches, as guest and host page tables disagree.
    WcPlus,
    /// Write-through.
    Wt,
    /// Write-protected.
    Wp,
    /// Write-back.
    Wb,
}

impl fmt::Display for X86Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uc => "UC",
            Self::Cd => "CD",
            Self::Wc => "WC",
            Self::WcPlus => "WC+",
            Self::Wt => "WT",
            Self::Wp => "WP",
            Self::Wb => "WB",
        })
    }
}

impl From<RangeType> for X86Type {
    fn from(range: RangeType) -> Self {
        match range {
            RangeType::Uc => Self::Uc,
            RangeType::Wc => Self::Wc,
            RangeType::Wt => Self::Wt,
            RangeType::Wp => Self::Wp,
            RangeType::Wb => Self::Wb,
        }
    }
}

/// Page table and MTRR on Intel's processors.
///
/// Source: Intel SDM vol. 3A, table "Effective Page-Level Memory Types for Pentium III and More
/// Recent Processor Families" (11-7; 12-7 in later editions).
#[must_use]
pub fn intel(mtrr: RangeType, pat: PatType) -> X86Type {
    match (pat, mtrr) {
        (PatType::Wc, _) => X86Type::Wc,
        (PatType::Wb, mtrr) => mtrr.into(),
        (PatType::UcMinus, RangeType::Wc | RangeType::Wp) => X86Type::Wc,
        (PatType::Wt, RangeType::Wt | RangeType::Wp | RangeType::Wb) => X86Type::Wt,
        (PatType::Wp, RangeType::Wt | RangeType::Wp | RangeType::Wb) => X86Type::Wp,
        (PatType::Uc, _)
        | (PatType::UcMinus, RangeType::Uc | RangeType::Wt | RangeType::Wb)
        | (PatType::Wt | PatType::Wp, RangeType::Uc | RangeType::Wc) => X86Type::Uc,
    }
}

/// Guest page table and EPT entry on Intel's processors: the host's MTRRs play no part.
///
/// `ipat` is bit 6 of the EPT entry, "ignore PAT". Caches are taken to be on (CR0.CD clear).
///
/// Source: Intel SDM vol. 3C, "Memory Type Used for Translated Guest-Physical Addresses".
#[must_use]
pub fn ept(entry: RangeType, ipat: bool, guest: PatType) -> X86Type {
    if ipat {
        entry.into()
    } else {
        intel(entry, guest)
    }
}

/// Page table and MTRR on AMD's processors.
///
/// Source: AMD APM vol. 2, table 7-11, "Combined Effect of MTRR and PAT Memory Types".
#[must_use]
pub fn amd(mtrr: RangeType, pat: PatType) -> X86Type {
    with_mtrr(mtrr, Combined::Plain(pat))
}

/// Guest page table, nested page table and host MTRR on AMD's processors. Caches are taken to be on
/// (CR0.CD clear in guest and host).
///
/// Source: AMD APM vol. 2, 15.25.8, tables 15-19 and 15-20.
#[must_use]
pub fn npt(guest: PatType, host: PatType, mtrr: RangeType) -> X86Type {
    with_mtrr(mtrr, guest_and_host(guest, host))
}

/// A PAT type, or the one that exists only as a combination of two.
enum Combined {
    Plain(PatType),
    WcPlus,
}

/// Table 15-19.
fn guest_and_host(guest: PatType, host: PatType) -> Combined {
    use PatType::{Uc, UcMinus, Wb, Wc, Wp, Wt};
    Combined::Plain(match (guest, host) {
        (Wc, Wt | Wp | Wb) => return Combined::WcPlus,
        (Wc, Uc | UcMinus | Wc) | (UcMinus | Wb, Wc) => Wc,
        (UcMinus, UcMinus) => UcMinus,
        (Wb | Wp, Wp) | (Wp, Wb) => Wp,
        (Wb | Wt, Wt) | (Wt, Wb) => Wt,
        (Wb, Wb) => Wb,
        (Uc, _)
        | (UcMinus, Uc | Wt | Wp | Wb)
        | (Wt, Uc | UcMinus | Wc | Wp)
        | (Wp, Uc | UcMinus | Wc | Wt)
        | (Wb, Uc | UcMinus) => Uc,
    })
}

/// Tables 7-11 and 15-20, which are one but for the row of WC+.
fn with_mtrr(mtrr: RangeType, combined: Combined) -> X86Type {
    match (combined, mtrr) {
        (Combined::Plain(PatType::Wc), _) => X86Type::Wc,
        (Combined::WcPlus, RangeType::Uc | RangeType::Wc) => X86Type::Wc,
        (Combined::WcPlus, RangeType::Wt | RangeType::Wp | RangeType::Wb) => X86Type::WcPlus,
        (Combined::Plain(PatType::Wb), mtrr) => mtrr.into(),
        (Combined::Plain(_), RangeType::Uc) => X86Type::Uc,
        (Combined::Plain(PatType::UcMinus), RangeType::Wc) => X86Type::Wc,
        (Combined::Plain(PatType::Wt), RangeType::Wt | RangeType::Wb) => X86Type::Wt,
        (Combined::Plain(PatType::Wp), RangeType::Wp | RangeType::Wb) => X86Type::Wp,
        (
            Combined::Plain(PatType::Uc),
            RangeType::Wc | RangeType::Wt | RangeType::Wp | RangeType::Wb,
        )
        | (Combined::Plain(PatType::UcMinus), RangeType::Wt | RangeType::Wp | RangeType::Wb)
        | (Combined::Plain(PatType::Wt), RangeType::Wc | RangeType::Wp)
        | (Combined::Plain(PatType::Wp), RangeType::Wc | RangeType::Wt) => X86Type::Cd,
    }
}
