//! What only test builds have: the choice of a bug, and the bugs that need more than a line.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::ValueEnum;
use nosnoop_protocol::wire::resp;
use serde_json::json;
use vm_memory::{GuestAddressSpace, GuestMemoryBackend};

use super::Bug;
use crate::{GuestMemory, SharedGuestMemory};

#[cfg(not(debug_assertions))]
compile_error!(
    "the feature test-bugs is for a daemon with bugs, which must never be shipped: build without \
     --release, or without the feature"
);

/// The bug of this process, for good.
static PLANTED: OnceLock<Bug> = OnceLock::new();

/// The memory table that [`keep_first_table`] goes back to.
static FIRST_TABLE: OnceLock<GuestMemory> = OnceLock::new();

/// From now on this process has this bug. Only the first call counts.
pub(crate) fn plant(bug: Bug) {
    PLANTED.get_or_init(|| bug);
}

/// Whether this bug is planted.
pub(crate) fn planted(bug: Bug) -> bool {
    PLANTED.get() == Some(&bug)
}

/// All bugs, as a JSON array of objects with `name`, `group` and `what`.
pub(crate) fn json() -> String {
    let bug = |bug: &Bug| {
        let value = bug.to_possible_value()?;
        let what = value.get_help().map(ToString::to_string);
        Some(json!({ "name": value.get_name(), "group": bug.group(), "what": what }))
    };
    let all: Vec<_> = Bug::value_variants().iter().filter_map(bug).collect();
    serde_json::Value::from(all).to_string()
}

/// Whether this was called before.
pub(crate) fn again() -> bool {
    static CALLED: AtomicBool = AtomicBool::new(false);
    CALLED.swap(true, Ordering::Relaxed)
}

/// Spoils the bytes of a response.
pub(crate) fn spoil(response: &mut [u8]) {
    let mut zero = |range| {
        if let Some(bytes) = response.get_mut::<std::ops::Range<usize>>(range) {
            bytes.fill(0);
        }
    };
    match PLANTED.get() {
        // struct virtio_gpu_ctrl_hdr: type, flags, fence_id, ctx_id, ring_idx.
        Some(Bug::FenceFlagLost) => zero(4..8),
        Some(Bug::FenceIdLost) => zero(8..16),
        Some(Bug::FenceRingLost) => zero(16..21),
        Some(Bug::EdidChecksum) => {
            let is_edid = response.starts_with(&resp::OK_EDID.to_le_bytes());
            // struct virtio_gpu_resp_edid: the EDID from 32 on, the checksum its last byte.
            if let Some(checksum) = response.get_mut(32 + 127).filter(|_| is_edid) {
                *checksum = checksum.wrapping_add(1);
            }
        }
        _ => {}
    }
}

/// Goes back to the first memory table that had memory.
pub(crate) fn keep_first_table(memory: &SharedGuestMemory) {
    let now = memory.memory();
    if now.num_regions() > 0 {
        let first = FIRST_TABLE.get_or_init(|| GuestMemory::clone(&now));
        if let Ok(table) = memory.lock() {
            table.replace(first.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::ffi::OsString;

    use super::*;
    use crate::cli::{self, Action};

    fn parse(arguments: &[&str]) -> Result<Action, cli::UsageError> {
        let program = ["nosnoop-gpu"];
        cli::parse(program.iter().chain(arguments).map(OsString::from))
    }

    #[test]
    fn the_list_has_each_bug_with_its_group_and_what_it_is() {
        let Ok(Action::Print(text)) = parse(&["--print-bugs"]) else {
            panic!("nothing is printed")
        };
        let list: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        assert_eq!(list.len(), Bug::value_variants().len());
        let text_of = |field: &str| -> Vec<_> {
            let text = |bug: &serde_json::Value| bug[field].as_str().unwrap().to_owned();
            list.iter().map(text).collect()
        };
        let names: HashSet<_> = text_of("name").into_iter().collect();
        assert_eq!(names.len(), list.len());
        assert!(names.contains("transfer-stride"));
        assert!(text_of("what").iter().all(|what| what.len() > 10));
        // One for each group of cases.
        let groups: HashSet<_> = text_of("group").into_iter().collect();
        assert_eq!(groups.len(), 21);
    }

    /// The only test that plants.
    #[test]
    fn a_bug_is_planted_by_name_and_others_are_not() {
        let refused = parse(&["--fd=5", "--plant=nonsense"]).unwrap_err();
        assert!(refused.to_string().contains("transfer-stride"), "{refused}");
        assert!(!planted(Bug::EdidChecksum));
        let mut response = [0xff; 200];
        response[..4].copy_from_slice(&resp::OK_EDID.to_le_bytes());
        let sound = response;
        spoil(&mut response);
        assert_eq!(response, sound);
        parse(&["--fd=5", "--plant", "edid-checksum"]).unwrap();
        assert!(planted(Bug::EdidChecksum));
        assert!(!planted(Bug::FenceIdLost));
        spoil(&mut response);
        assert_ne!(response, sound);
        response[159] = 0xff;
        assert_eq!(response, sound);
    }
}
