//! Compute shaders for a memory litmus: a GPU writes a pattern that a CPU checks, and the other way round.
//!
//! The WGSL in `src/` is compiled to SPIR-V when the crate is built; no tool is needed at run time.
//! Each module has one entry point and all of its bindings in descriptor set 0. A dispatch of any
//! number of workgroups in x processes the whole buffer (invocation i takes words i, i + n, i + 2n and so
//! on, n being the number of invocations, so that the buffer is walked in order); y and z must be 1.
//! All values are 32-bit and little-endian. What a shader counts, it adds to what is in the buffer: the host
//! writes the starting values ([`CheckOutcome::START`], [`Sum::START`]) before each dispatch.

pub mod pattern;

include!(concat!(env!("OUT_DIR"), "/modules.rs"));

/// Every shader of this crate.
pub const ALL: [Shader; 3] = [PATTERN_WRITE, PATTERN_CHECK, STREAMING_READ];

/// A compiled compute shader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shader {
    /// Name of the WGSL file, without its ending.
    pub name: &'static str,
    /// Name of the entry point.
    pub entry_point: &'static str,
    /// Invocations of a workgroup in x, y and z.
    pub workgroup_size: [u32; 3],
    /// The buffers that it uses, by rising binding number.
    pub bindings: &'static [Binding],
    /// A SPIR-V 1.3 module: words of 32 bits in the byte order of the host.
    pub spirv: &'static [u32],
}

/// A buffer that a shader uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Descriptor set.
    pub group: u32,
    /// Binding number in that set.
    pub binding: u32,
    /// Name in the WGSL.
    pub name: &'static str,
    /// What kind of descriptor it is.
    pub kind: BindingKind,
}

/// The kind of a buffer's descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindingKind {
    /// A uniform buffer.
    Uniform,
    /// A storage buffer that the shader only reads.
    StorageRead,
    /// A storage buffer that the shader writes.
    StorageReadWrite,
}

/// Contents of the uniform buffer that every module calls `params`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// Seed of the pattern; [`STREAMING_READ`] ignores it.
    pub seed: u32,
    /// Pattern index of the buffer's first word, for a buffer that is a part of a larger one.
    pub first_index: u32,
    /// Words to process, from the start of the buffer. A larger value than the buffer's length stands for that length.
    pub count: u32,
}

impl Params {
    /// Size of the uniform buffer in bytes.
    pub const SIZE: usize = 16;

    /// The bytes of the uniform buffer.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        to_le_bytes([self.seed, self.first_index, self.count, 0])
    }
}

/// Contents of the buffer `outcome` of [`PATTERN_CHECK`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckOutcome {
    /// Words compared. A run is a pass only if this is the number of words expected.
    pub checked: u32,
    /// Words that differed.
    pub mismatches: u32,
    /// Position in the buffer, in words, of the first word that differed; `u32::MAX` if none did.
    pub first_mismatch: u32,
}

impl CheckOutcome {
    /// Size of the buffer in bytes.
    pub const SIZE: usize = 12;

    /// What the buffer must hold before a dispatch.
    pub const START: Self = Self {
        checked: 0,
        mismatches: 0,
        first_mismatch: u32::MAX,
    };

    /// The bytes of the buffer.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        to_le_bytes([self.checked, self.mismatches, self.first_mismatch])
    }

    /// Reads the buffer after a dispatch.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Self {
        let [checked, mismatches, first_mismatch] = from_le_bytes(bytes);
        Self {
            checked,
            mismatches,
            first_mismatch,
        }
    }
}

/// Contents of the buffer `sum` of [`STREAMING_READ`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum {
    /// Words read.
    pub words: u32,
    /// Their sum, modulo 2^32.
    pub total: u32,
}

impl Sum {
    /// Size of the buffer in bytes.
    pub const SIZE: usize = 8;

    /// What the buffer must hold before a dispatch.
    pub const START: Self = Self { words: 0, total: 0 };

    /// The bytes of the buffer.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        to_le_bytes([self.words, self.total])
    }

    /// Reads the buffer after a dispatch.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Self {
        let [words, total] = from_le_bytes(bytes);
        Self { words, total }
    }
}

fn to_le_bytes<const WORDS: usize, const BYTES: usize>(words: [u32; WORDS]) -> [u8; BYTES] {
    const { assert!(WORDS * 4 == BYTES) };
    let mut bytes = [0; BYTES];
    for (out, word) in bytes.chunks_exact_mut(4).zip(words) {
        out.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

fn from_le_bytes<const WORDS: usize, const BYTES: usize>(bytes: &[u8; BYTES]) -> [u32; WORDS] {
    const { assert!(WORDS * 4 == BYTES) };
    let mut words = [0; WORDS];
    for (word, chunk) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u32::from_le_bytes(*chunk);
    }
    words
}

#[cfg(test)]
mod tests;
