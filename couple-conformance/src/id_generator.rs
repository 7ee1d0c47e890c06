//! Checks G1 to G3 of `IdGenerator`, within one process.
//!
//! If G3 holds, ids of several processes differ too.

use std::{collections::HashSet, sync::Arc, time::Duration};

use couple_core::{IdGenerator, Timestamp};

/// 2026-01-01 00:00 UTC.
const NOW: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);

/// Ids that several threads generate for one time and for an earlier one are all different.
pub async fn g1_ids_are_unique(generator: impl IdGenerator) {
    let generator = Arc::new(generator);
    let threads = (0..4).map(|_| {
        let generator = generator.clone();
        tokio::task::spawn_blocking(move || {
            let times = [NOW, NOW.minus(Duration::from_secs(1)), NOW];
            times.map(|at| (0..5_000).map(|_| generator.generate(at)).collect::<Vec<_>>()).concat()
        })
    });
    let mut seen = HashSet::new();
    for thread in threads.collect::<Vec<_>>() {
        for id in thread.await.unwrap() {
            assert!(seen.insert(id), "{id} was created twice");
        }
    }
}

/// An id of a later millisecond is greater, if ids are compared byte by byte from the first of 16.
pub async fn g2_ids_are_ordered_by_time(generator: impl IdGenerator) {
    let mut last = generator.generate(NOW);
    // From 1 ms to 70 years, so that each byte of the time changes.
    for after in (0..42).map(|power| Duration::from_millis(1 << power)) {
        let at = NOW.plus(after);
        for _ in 0..10 {
            let (before, id) = (last, generator.generate(at));
            assert!(
                id.as_bytes() > before.as_bytes(),
                "{id} of {at:?} is not after {before} of an earlier time"
            );
        }
        last = (0..10).map(|_| generator.generate(at)).max().unwrap_or(last);
    }
}

/// Each of the last 62 bits is 1 in about half of the ids of one time.
///
/// The same holds for the differences between consecutive ids, so that a counter does not pass.
pub async fn g3_last_62_bits_are_random(generator: impl IdGenerator) {
    let ids: Vec<u64> = (0..1_000).map(|_| generator.generate(NOW).as_u64_pair().1).collect();
    let differences: Vec<u64> = ids.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    for bit in 0..62 {
        for (what, values) in [("", &ids), (" of the difference between ids", &differences)] {
            let ones = values.iter().filter(|value| *value >> bit & 1 == 1).count();
            // Random bits are outside of this range once in 10^30 runs.
            assert!(
                (300..=700).contains(&ones),
                "bit {bit}{what} is 1 in {ones} of 1,000 ids: it is not random"
            );
        }
    }
}
