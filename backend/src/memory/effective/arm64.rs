//! How arm64 processors combine what the guest's page tables (stage 1) and the hypervisor's
//! (stage 2) say of a page.
//!
//! Inner and outer cacheability are taken to be the same, as Linux has them; shareability plays no
//! part. Source: Arm ARM (DDI 0487), D8.6, "Memory region attributes".

use std::fmt;

/// Kinds of Device memory, the strictest first: Gathering, Reordering and Early acknowledgement of
/// writes, each allowed or not (n).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Device {
    /// Device-nGnRnE.
    NGnRnE,
    /// Device-nGnRE.
    NGnRE,
    /// Device-nGRE.
    NGRE,
    /// Device-GRE.
    GRE,
}

/// A memory type, the strictest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Arm64Type {
    /// Device memory.
    Device(Device),
    /// Normal Non-cacheable: what Linux calls write-combining.
    NormalNc,
    /// Normal Write-Through.
    NormalWt,
    /// Normal Write-Back.
    NormalWb,
}

impl fmt::Display for Arm64Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Device(Device::NGnRnE) => "Device-nGnRnE",
            Self::Device(Device::NGnRE) => "Device-nGnRE",
            Self::Device(Device::NGRE) => "Device-nGRE",
            Self::Device(Device::GRE) => "Device-GRE",
            Self::NormalNc => "Normal Non-cacheable",
            Self::NormalWt => "Normal Write-Through",
            Self::NormalWb => "Normal Write-Back",
        })
    }
}

/// What a stage 2 entry says where FEAT_S2FWB is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForcedType {
    /// `MemAttr[2]` is 0: Device memory, or stricter.
    Device(Device),
    /// `MemAttr[2:0]` is 0b101: not cacheable.
    NonCacheable,
    /// `MemAttr[2:0]` is 0b110: write-back, whatever stage 1 says.
    WriteBack,
    /// `MemAttr[2:0]` is 0b111: what stage 1 says.
    Stage1,
}

/// Both stages where FEAT_S2FWB is off or absent: the stricter wins.
///
/// Source: Arm ARM, tables D8-97 and D8-98.
#[must_use]
pub fn combined(stage1: Arm64Type, stage2: Arm64Type) -> Arm64Type {
    stage1.min(stage2)
}

/// Both stages where FEAT_S2FWB is on.
///
/// Source: Arm ARM, tables D8-100 and D8-101, rule R_GSDKZ.
#[must_use]
pub fn forced(stage1: Arm64Type, stage2: ForcedType) -> Arm64Type {
    match stage2 {
        ForcedType::Device(device) => combined(stage1, Arm64Type::Device(device)),
        ForcedType::NonCacheable => combined(stage1, Arm64Type::NormalNc),
        ForcedType::WriteBack => Arm64Type::NormalWb,
        ForcedType::Stage1 => stage1,
    }
}
