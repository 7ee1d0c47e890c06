//! Choices from which a change or a read is made: drawn from a seed, replayed, or enumerated.
//!
//! A change is stored as its list of choices, so that every list of numbers is a valid change: a shorter
//! list or smaller numbers give a simpler change.

/// Random number generator `SplitMix64`: one seed gives one sequence.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }
    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    /// Number below `n`, which is not 0.
    pub(super) fn below(&mut self, n: u32) -> u32 {
        u32::try_from(self.next() % u64::from(n)).unwrap_or_default()
    }
}

enum Source<'a> {
    Drawn(&'a mut Random),
    Replayed(&'a [u32]),
    /// As replayed, but [`Choices::detail`] is fixed.
    Enumerated(&'a [u32]),
}

/// Source of choices, which records them.
pub(super) struct Choices<'a> {
    source: Source<'a>,
    /// Each choice, and its bound.
    made: Vec<(u32, u32)>,
}

impl<'a> Choices<'a> {
    pub(super) const fn drawn(random: &'a mut Random) -> Self {
        Self { source: Source::Drawn(random), made: Vec::new() }
    }
    /// Repeats recorded choices; 0 after their end.
    pub(super) const fn replayed(choices: &'a [u32]) -> Self {
        Self { source: Source::Replayed(choices), made: Vec::new() }
    }
    pub(super) fn into_made(self) -> Vec<u32> {
        self.made.into_iter().map(|(choice, _)| choice).collect()
    }
    /// Number below `n`.
    pub(super) fn below(&mut self, n: u32) -> u32 {
        self.make(n, |random| random.below(n))
    }
    /// Number below `n` of a property that does not identify a row; `fixed` when rows are enumerated.
    pub(super) fn detail(&mut self, n: u32, fixed: u32) -> u32 {
        if matches!(self.source, Source::Enumerated(_)) { fixed } else { self.below(n) }
    }
    /// Index of one of several weights.
    pub(super) fn weighted(&mut self, weights: &[u32]) -> usize {
        let n = u32::try_from(weights.len()).unwrap_or(u32::MAX);
        let index = self.make(n, |random| {
            let mut left = random.below(weights.iter().sum());
            let found = weights.iter().position(|weight| {
                let here = left < *weight;
                left = left.saturating_sub(*weight);
                here
            });
            found.and_then(|index| u32::try_from(index).ok()).unwrap_or_default()
        });
        index as usize
    }
    /// One of the options. The first one is the simplest.
    pub(super) fn one_of<T: Copy>(&mut self, options: &[T]) -> T {
        options[self.below(u32::try_from(options.len()).unwrap_or(u32::MAX)) as usize]
    }
    pub(super) fn flag(&mut self) -> bool {
        self.below(2) == 1
    }
    /// None, or a number below `n`: each half of the time.
    pub(super) fn maybe(&mut self, n: u32) -> Option<u32> {
        if self.flag() { Some(self.below(n)) } else { None }
    }
    fn make(&mut self, n: u32, draw: impl FnOnce(&mut Random) -> u32) -> u32 {
        let choice = match &mut self.source {
            Source::Drawn(random) => draw(random),
            Source::Replayed(given) | Source::Enumerated(given) => {
                given.get(self.made.len()).map_or(0, |choice| choice % n)
            }
        };
        self.made.push((choice, n));
        choice
    }
}

/// Calls `with` for every list of choices.
pub(super) fn enumerate(mut with: impl FnMut(&mut Choices<'_>)) {
    let mut given = Vec::new();
    loop {
        let mut choices = Choices { source: Source::Enumerated(&given), made: Vec::new() };
        with(&mut choices);
        let mut made = choices.made;
        // Increments the last choice that is below its bound, and restarts the choices after it.
        while made.last().is_some_and(|(choice, bound)| choice + 1 >= *bound) {
            made.pop();
        }
        let Some((choice, _)) = made.last_mut() else { return };
        *choice += 1;
        given = made.into_iter().map(|(choice, _)| choice).collect();
    }
}
