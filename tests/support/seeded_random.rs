//! Random numbers from a seed, for tests that choose delays, faults or the order of tasks.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::{Arc, Mutex};

/// Random number generator `SplitMix64` (Steele, Lea and Flood, 2014). Clones share its state.
#[derive(Clone, Default)]
pub(crate) struct SeededRandom(Arc<Mutex<u64>>);

impl SeededRandom {
    /// Starts the sequence of a seed.
    pub(crate) fn seed(&self, seed: u64) {
        *self.0.lock().unwrap() = seed;
    }
    /// Random number below `bound`.
    pub(crate) fn below(&self, bound: u64) -> u64 {
        let mut state = self.0.lock().unwrap();
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}
