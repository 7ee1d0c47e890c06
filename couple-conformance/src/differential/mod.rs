//! Differential tests: random commits and reads must have equal results on a store and a reference.
//!
//! [`run`] performs the same sequence of commits and reads on both and compares each result, and at the end every
//! row, field by field. It shrinks a sequence that differs and prints it as a numbered list of sentences.
//!
//! [`linearizability`] performs commits and reads of two concurrent clients on the store. An order of their
//! operations that respects time must give the same results on the reference.
//!
//! Each sequence depends on its seed only. A failure prints the seed; `COUPLE_DIFFERENTIAL_SEED` repeats it.

mod changes;
mod changes_in_words;
mod choices;
mod coverage;
mod diagnosis;
mod history;
mod names;
mod outcome;
mod reads;
mod rows;
mod sequence;

use std::{pin::Pin, sync::Arc, time::Duration};

use couple_core::{Entropy as _, Error, OsEntropy, Store};
use futures_util::future::join_all;
use tokio::{runtime::Runtime, time::timeout};

use self::sequence::Difference;

/// Opens a new store.
type Opener<'a> = dyn Fn() -> Pin<Box<dyn Future<Output = Arc<dyn Store>> + 'a>> + 'a;

/// Time for shrinking: a server needs a new database for each attempt.
const SHRINK_TIME: Duration = Duration::from_secs(40);

/// Time after which [`linearizability`] starts no case and no round.
const CASES_TIME: Duration = Duration::from_secs(12);

/// Number in an environment variable.
fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    match text.parse() {
        Ok(number) => Some(number),
        Err(error) => panic!("{name} is {text:?}, not a number: {error}"),
    }
}

/// Number of sequences: `COUPLE_DIFFERENTIAL_CASES`, by default 64.
fn case_count() -> u64 {
    let cases = variable("COUPLE_DIFFERENTIAL_CASES").unwrap_or(64);
    assert!(cases > 0, "COUPLE_DIFFERENTIAL_CASES is 0: nothing would be compared");
    cases
}

/// Seed to repeat, `COUPLE_DIFFERENTIAL_SEED`, or `count` new seeds.
fn seeds(count: u64) -> Vec<u64> {
    if let Some(seed) = variable("COUPLE_DIFFERENTIAL_SEED") {
        return vec![seed];
    }
    let mut bytes = [0; 4];
    OsEntropy.fill(&mut bytes);
    let first = u64::from(u32::from_be_bytes(bytes));
    (first..first + count).collect()
}

/// Compares two stores over random sequences, and shrinks a sequence that differs.
pub fn run<S, R>(store: impl Fn() -> S, reference: impl Fn() -> R)
where
    S: Future<Output = Arc<dyn Store>>,
    R: Future<Output = Arc<dyn Store>>,
{
    if let Some(difference) = compare(store, reference, seeds(case_count()), Some(SHRINK_TIME)) {
        panic!("{difference}");
    }
}

/// Compares two stores over the sequences of `seeds`, and describes the first difference.
///
/// For tests of the differential test, so it does not depend on the speed of the machine: only the number of attempts limits shrinking.
/// [`run`] chooses the seeds.
#[doc(hidden)]
#[must_use]
pub fn find_difference<S, R>(
    store: impl Fn() -> S,
    reference: impl Fn() -> R,
    seeds: impl IntoIterator<Item = u64>,
) -> Option<String>
where
    S: Future<Output = Arc<dyn Store>>,
    R: Future<Output = Arc<dyn Store>>,
{
    compare(store, reference, seeds, None)
}

fn compare<S, R>(
    store: impl Fn() -> S,
    reference: impl Fn() -> R,
    seeds: impl IntoIterator<Item = u64>,
    shrink_time: Option<Duration>,
) -> Option<String>
where
    S: Future<Output = Arc<dyn Store>>,
    R: Future<Output = Arc<dyn Store>>,
{
    in_runtime(|runtime| {
        let (store, reference) = (|| boxed(store()), || boxed(reference()));
        let both: (&Opener<'_>, &Opener<'_>) = (&store, &reference);
        let mut differs =
            |steps: &[sequence::Step]| runtime.block_on(sequence::run(steps, both, &mut |_, _| {})).err();
        seeds.into_iter().find_map(|seed| {
            let steps = sequence::sequence(seed);
            let difference = differs(&steps)?;
            let first = difference.actions.len();
            let shrunk = sequence::shrink(steps, difference, shrink_time, &mut differs);
            Some(report(&shrunk, first, seed))
        })
    })
}

/// Checks that a store gives two concurrent clients results that an order of their operations explains.
pub fn linearizability<S, R>(store: impl Fn() -> S, reference: impl Fn() -> R)
where
    S: Future<Output = Arc<dyn Store>>,
    R: Future<Output = Arc<dyn Store>>,
{
    if let Some(violation) = violation(store, reference, seeds(case_count().div_ceil(4)), Some(CASES_TIME)) {
        panic!("{violation}");
    }
}

/// Checks the results of two concurrent clients in the cases of `seeds`, and describes the first violation.
///
/// For tests of the differential test, so it runs all cases. [`linearizability`] chooses the seeds, and limits the time.
#[doc(hidden)]
#[must_use]
pub fn find_violation<S, R>(
    store: impl Fn() -> S,
    reference: impl Fn() -> R,
    seeds: impl IntoIterator<Item = u64>,
) -> Option<String>
where
    S: Future<Output = Arc<dyn Store>>,
    R: Future<Output = Arc<dyn Store>>,
{
    violation(store, reference, seeds, None)
}

fn violation<S, R>(
    store: impl Fn() -> S,
    reference: impl Fn() -> R,
    seeds: impl IntoIterator<Item = u64>,
    time: Option<Duration>,
) -> Option<String>
where
    S: Future<Output = Arc<dyn Store>>,
    R: Future<Output = Arc<dyn Store>>,
{
    in_runtime(|runtime| {
        let (store, reference) = (|| boxed(store()), || boxed(reference()));
        runtime.block_on(history::check(&store, &reference, seeds, time)).err()
    })
}

/// Calls each read of a store concurrently. Its result is none if it does not return within `limit`.
pub(crate) async fn call_each_read(
    store: &Arc<dyn Store>,
    limit: Duration,
) -> Vec<(&'static str, Option<Result<(), Error>>)> {
    let calls = reads::one_of_each().into_iter().map(|read| async move {
        let result = timeout(limit, read.run(store.clone())).await.ok();
        (read.method.name(), result.map(|result| result.map(drop)))
    });
    join_all(calls).await
}

fn boxed<'a, F: Future<Output = Arc<dyn Store>> + 'a>(
    future: F,
) -> Pin<Box<dyn Future<Output = Arc<dyn Store>> + 'a>> {
    Box::pin(future)
}

fn in_runtime<T>(with: impl FnOnce(&Runtime) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime starts");
    let result = with(&runtime);
    // A store that blocks a thread of the runtime does not block the test.
    runtime.shutdown_background();
    result
}

/// Text of a difference: the steps, both values, and the broken guarantee.
fn report(difference: &Difference, first: usize, seed: u64) -> String {
    let mut text = format!(
        "the store differs from the reference after {} steps (found after {first}):\n",
        difference.actions.len()
    );
    // A sequence that was not shrunk has many steps: the first ones are not printed.
    let hidden = if difference.timed_out { difference.actions.len().saturating_sub(8) } else { 0 };
    if hidden > 0 {
        text += &format!("     {hidden} steps, then\n");
    }
    for (index, action) in difference.actions.iter().enumerate().skip(hidden) {
        text += &format!("{:>3}. {}\n", index + 1, action.words());
    }
    for line in difference.lines.iter().take(12) {
        text += &format!("     {line}\n");
    }
    if let Some(more @ 1..) = difference.lines.len().checked_sub(12) {
        text += &format!("     … and {more} more differences\n");
    }
    text + &format!("broken: {}\nreplay: COUPLE_DIFFERENTIAL_SEED={seed}", difference.broken)
}

#[cfg(test)]
mod tests {
    use couple_store::MemoryStore;

    use super::{
        coverage::Coverage,
        outcome::{Action, Outcome},
        *,
    };

    /// Every change variant, conflict, result, read and option of a read is reached by a fixed set of seeds.
    #[test]
    fn sequences_reach_every_change_conflict_and_read() {
        let open = || boxed(async { Arc::new(MemoryStore::new()) as Arc<dyn Store> });
        let coverage = in_runtime(|runtime| {
            let mut coverage = Coverage::default();
            for seed in 0..1_200 {
                let steps = sequence::sequence(seed);
                let mut watch = |action: &Action, outcome: &Outcome| coverage.add(action, outcome);
                let compared = runtime.block_on(sequence::run(&steps, (&open, &open), &mut watch));
                if let Err(difference) = compared {
                    panic!("{}", report(&difference, steps.len(), seed));
                }
            }
            coverage
        });
        assert_eq!(coverage.missing(), Vec::<String>::new(), "no sequence reached these");
        assert_eq!(coverage.unknown_options(), Vec::<&str>::new(), "these options are not listed");
    }

    #[test]
    fn one_seed_is_one_sequence() {
        let words = |seed: u64| -> Vec<String> {
            sequence::sequence(seed).iter().map(|step| step.action().words()).collect()
        };
        assert_eq!(words(7), words(7));
        assert_ne!(words(7), words(8));
    }
}
