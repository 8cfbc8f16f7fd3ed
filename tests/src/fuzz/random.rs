//! Reproducible random numbers, with a taste for the values that break things.

/// SplitMix64: the same sequence for the same seed, everywhere and always.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// A generator whose sequence is decided by `seed`.
    #[must_use]
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any 64 bits.
    pub(super) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to `end` - 1; `end` is not 0.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.bits() % end
    }

    /// True once in `times`.
    pub(super) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// One of the choices; there must be at least one.
    pub(super) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// A word from the edges of its range, or any.
    pub(super) fn edgy32(&mut self) -> u32 {
        match self.below(4) {
            0 => self.pick(&[0, 1, 2, 0x7fff_ffff, 0x8000_0000, u32::MAX - 1, u32::MAX]),
            1 => 1 << self.below(32),
            2 => self.below(300) as u32,
            _ => self.bits() as u32,
        }
    }

    /// As [`Random::edgy32`], for 64 bits.
    pub(super) fn edgy64(&mut self) -> u64 {
        match self.below(4) {
            0 => self.pick(&[
                0,
                1,
                u64::from(u32::MAX),
                1 << 32,
                u64::MAX - 4095,
                u64::MAX,
            ]),
            1 => 1 << self.below(64),
            2 => self.below(1 << 20),
            _ => self.bits(),
        }
    }
}
