//! Delays between attempts.

use std::time::Duration;

use crate::Entropy;

/// Exponential back-off with full jitter: a random time up to `base · 2^(attempt-1)`, at most `most`.
///
/// Full jitter spreads retries with the least total work (Brooker, "Exponential Backoff and Jitter", 2015).
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// Maximum delay after the first attempt.
    pub base: Duration,
    /// Maximum delay after any attempt.
    pub most: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: Duration::from_secs(5), most: Duration::from_hours(1) }
    }
}

impl Backoff {
    /// Random delay after attempt `attempt`, which is counted from 1.
    #[must_use]
    pub fn wait(&self, attempt: i64, entropy: &dyn Entropy) -> Duration {
        let doublings = u32::try_from(attempt.clamp(1, 31) - 1).unwrap_or(0);
        let longest = self.base.saturating_mul(1 << doublings).min(self.most);
        fraction(longest, entropy)
    }
}

/// Random duration up to `longest`.
pub(super) fn fraction(longest: Duration, entropy: &dyn Entropy) -> Duration {
    let mut random = [0; 4];
    entropy.fill(&mut random);
    longest.mul_f64(f64::from(u32::from_be_bytes(random)) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SeededEntropy;

    #[test]
    fn backoff_grows_up_to_its_limit() {
        let (backoff, entropy) = (Backoff::default(), SeededEntropy::new(1));
        for attempt in [1, 2, 8, 64, i64::MAX] {
            let most = backoff.base.saturating_mul(1 << (attempt.min(31) - 1)).min(backoff.most);
            for _ in 0..50 {
                assert!(backoff.wait(attempt, &entropy) <= most);
            }
        }
    }

    /// Entropy of which every byte is the same.
    struct Constant(u8);

    impl Entropy for Constant {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }

    #[test]
    fn backoff_doubles_and_is_a_random_part_of_its_limit() {
        let backoff = Backoff::default();
        let longest = |attempt| backoff.wait(attempt, &Constant(0xFF)).as_secs();
        assert_eq!([1, 2, 3, 10, 11, i64::MAX].map(longest), [5, 10, 20, 2_560, 3_600, 3_600]);
        assert_eq!([0, -7].map(longest), [5, 5]);
        assert_eq!(backoff.wait(3, &Constant(0)), Duration::ZERO);
        let half = fraction(Duration::from_secs(100), &Constant(0x80));
        assert!((Duration::from_secs(50)..Duration::from_secs(51)).contains(&half), "{half:?}");
    }
}
