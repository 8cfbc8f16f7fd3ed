//! What only system calls tell of the host: KVM and DRM ioctls.

use std::collections::BTreeMap;
use std::io;

use serde::Deserialize;

/// The questions.
pub trait Calls {
    /// Whether `/dev/kvm` can be opened for reading and writing.
    ///
    /// # Errors
    /// What the kernel says.
    fn kvm_open(&self) -> io::Result<()>;

    /// The quirks that can be disabled: `KVM_CHECK_EXTENSION` of `KVM_CAP_DISABLE_QUIRKS2` (213).
    ///
    /// # Errors
    /// What the kernel says.
    fn kvm_quirks(&self) -> io::Result<u32>;

    /// Whether a scratch VM takes a memslot with flag 1<<3, `KVM_MEM_NON_COHERENT_DMA` on ChromeOS
    /// kernels.
    ///
    /// # Errors
    /// What the kernel says, of anything but that flag.
    fn kvm_noncoherent_slot(&self) -> io::Result<bool>;

    /// Whether the GPU behind the i915 node `node`, such as `renderD128`, shares the processors' last
    /// level cache: `I915_PARAM_HAS_LLC`.
    ///
    /// # Errors
    /// What the kernel says.
    fn i915_has_llc(&self, node: &str) -> io::Result<bool>;
}

/// The answers of a recorded host. What was not recorded is an error.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedCalls {
    kvm_open: Option<Answer>,
    kvm_quirks: Option<Answer>,
    kvm_noncoherent_slot: Option<Answer>,
    #[serde(default)]
    i915_has_llc: BTreeMap<String, Answer>,
}

/// What a call returned.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    /// It succeeded with this value.
    Value(u32),
    /// It failed with this error number.
    Errno(i32),
}

impl RecordedCalls {
    /// Reads answers written as JSON.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(json: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }
}

fn replay(answer: Option<&Answer>) -> io::Result<u32> {
    match answer {
        Some(Answer::Value(value)) => Ok(*value),
        Some(Answer::Errno(number)) => Err(io::Error::from_raw_os_error(*number)),
        None => Err(io::Error::other("the answer was not recorded")),
    }
}

impl Calls for RecordedCalls {
    fn kvm_open(&self) -> io::Result<()> {
        replay(self.kvm_open.as_ref()).map(|_| ())
    }

    fn kvm_quirks(&self) -> io::Result<u32> {
        replay(self.kvm_quirks.as_ref())
    }

    fn kvm_noncoherent_slot(&self) -> io::Result<bool> {
        replay(self.kvm_noncoherent_slot.as_ref()).map(|value| value != 0)
    }

    fn i915_has_llc(&self, node: &str) -> io::Result<bool> {
        replay(self.i915_has_llc.get(node)).map(|value| value != 0)
    }
}
