//! Sequences of steps: made from a seed, run on two stores, and shrunk.

use std::{collections::HashSet, sync::Arc, time::Duration};

use couple_core::{Change, ChangeResult, Store, job::JobChange};
use futures_util::{StreamExt as _, stream};
use tokio::time::Instant;

use super::{
    Opener,
    changes::{THEMES, Weights, change, fresh_id, pair},
    choices::{Choices, Random},
    names::{QUEUES, timestamp},
    outcome::{Action, NO_RESULT, Outcome, invoke, perform},
    reads::{Method, all_rows, read, read_of},
};

/// Time in which a sequence must end on both stores.
const CASE_TIMEOUT: Duration = Duration::from_secs(120);
const SHRINK_ATTEMPTS: u32 = 5_000;

/// Step as the choices from which it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Adds the couple with this number.
    Pair(u32),
    /// One list of choices for each change.
    Commit(Vec<Vec<u32>>),
    Read(Vec<u32>),
}

impl Step {
    pub(super) fn action(&self) -> Action {
        match self {
            Self::Pair(n) => Action::Commit(vec![pair(*n)]),
            Self::Commit(changes) => {
                let all = &THEMES[0];
                Action::Commit(changes.iter().map(|made| change(&mut Choices::replayed(made), all)).collect())
            }
            Self::Read(made) => Action::Read(read(&mut Choices::replayed(made), &THEMES[0])),
        }
    }
}

/// Draws a step: a read, or a commit, which has several changes with a probability of `several` percent.
pub(super) fn step(random: &mut Random, weights: &Weights, reads: u32, several: u32) -> Step {
    if random.below(100) < reads {
        let mut choices = Choices::drawn(random);
        read(&mut choices, weights);
        return Step::Read(choices.into_made());
    }
    let count = if random.below(100) < several { 2 + random.below(2) } else { 1 };
    let changes = (0..count).map(|_| {
        let mut choices = Choices::drawn(random);
        change(&mut choices, weights);
        choices.into_made()
    });
    Step::Commit(changes.collect())
}

/// The sequence of a seed: up to 160 steps. Most start with two couples.
pub(super) fn sequence(seed: u64) -> Vec<Step> {
    let mut random = Random::new(seed);
    let theme = THEMES[random.below(10) as usize];
    let couples = if random.below(4) == 0 { 0 } else { 2 };
    let length = 1 + random.below(160);
    let pairings = (0..couples).map(Step::Pair);
    // Mostly one change, because a conflict undoes all changes of a commit.
    pairings.chain((0..length).map(|_| step(&mut random, &theme, 25, 20))).collect()
}

/// Function that is called with each action and its outcome.
pub(super) type Watch<'a> = &'a mut dyn FnMut(&Action, &Outcome);

/// Difference of two stores after a sequence.
pub(super) struct Difference {
    /// Actions that were performed. The last one differs.
    pub(super) actions: Vec<Action>,
    pub(super) lines: Vec<String>,
    pub(super) broken: String,
    /// Whether a store did not return in time, so that shrinking would take too long.
    pub(super) timed_out: bool,
}

/// Runs a sequence on a new store and a new reference.
pub(super) async fn run(
    steps: &[Step],
    (store, reference): (&Opener<'_>, &Opener<'_>),
    watch: Watch<'_>,
) -> Result<(), Difference> {
    let mut actions = Vec::new();
    match tokio::time::timeout(CASE_TIMEOUT, compare(steps, store, reference, watch, &mut actions)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err((lines, broken))) => {
            let timed_out = lines.iter().any(|line| line.contains(NO_RESULT));
            Err(Difference { actions, lines, broken, timed_out })
        }
        Err(_) => Err(Difference {
            lines: vec![format!(
                "the sequence did not end within {} s; {} actions were performed",
                CASE_TIMEOUT.as_secs(),
                actions.len()
            )],
            actions,
            broken: "a store returns results in a bounded time".to_owned(),
            timed_out: true,
        }),
    }
}

type Broken = (Vec<String>, String);

async fn compare(
    steps: &[Step],
    store: &Opener<'_>,
    reference: &Opener<'_>,
    watch: Watch<'_>,
    actions: &mut Vec<Action>,
) -> Result<(), Broken> {
    let (store, reference) = (store().await, reference().await);
    let both = [&store, &reference];
    let mut made = HashSet::new();
    for step in steps {
        let action = step.action();
        let ids = fresh_ids(&action);
        // Real commits never use a stored id for a new row: skip a commit that does.
        let mut unique = HashSet::new();
        if ids.iter().any(|id| made.contains(id) || !unique.insert(*id)) {
            continue;
        }
        let outcome = on_both(both, action, actions, watch).await?;
        if matches!(outcome, Outcome::Committed(_)) {
            made.extend(ids);
        }
    }
    let rows = stream::iter(all_rows()).map(|read| async {
        let action = Action::Read(read);
        (perform(&store, &action).await, action)
    });
    let mut rows = rows.buffered(6);
    while let Some((got, action)) = rows.next().await {
        compare_outcomes(&reference, got, action, actions, watch).await?;
        // Only a read that differs is one of the printed steps.
        actions.pop();
    }
    for queue in 0..2 {
        take_all_jobs(both, queue, actions).await?;
    }
    for (store, which) in [(&store, "store"), (&reference, "reference")] {
        store.close().await.map_err(|error| {
            (vec![format!("closing the {which} fails: {error}")], "`close` succeeds (S12)".to_owned())
        })?;
    }
    Ok(())
}

/// Ids of new rows in an action.
pub(super) fn fresh_ids(action: &Action) -> Vec<uuid::Uuid> {
    match action {
        Action::Commit(changes) => changes.iter().filter_map(fresh_id).collect(),
        Action::Read(_) => Vec::new(),
    }
}

/// Claims all jobs of a queue one by one, which shows the due time, attempts and order of each.
async fn take_all_jobs(
    both: [&Arc<dyn Store>; 2],
    queue: u32,
    actions: &mut Vec<Action>,
) -> Result<(), Broken> {
    let watch: Watch<'_> = &mut |_, _| {};
    for (method, abandoned) in [(Method::next_due, false), (Method::next_lease_end, true)] {
        loop {
            let read = read_of(method, &mut Choices::replayed(&[queue]));
            on_both(both, Action::Read(read), actions, watch).await?;
            actions.pop();
            let outcome = on_both(both, claim_one(queue, abandoned), actions, watch).await?;
            let Outcome::Committed(results) = outcome else { break };
            if !results.iter().any(|result| matches!(result, ChangeResult::Claimed(jobs) if !jobs.is_empty()))
            {
                actions.pop();
                break;
            }
        }
    }
    Ok(())
}

/// Claims the next job at a time after all due times, until a time after all other leases.
pub(super) fn claim_one(queue: u32, abandoned: bool) -> Action {
    let queue = QUEUES[queue as usize].to_owned();
    let (now, lease_until, claim) = (timestamp(40), timestamp(90), 9);
    let change = if abandoned {
        JobChange::ClaimAbandoned { queue, now, lease_until, claim }
    } else {
        JobChange::Claim { queue, now, lease_until, claim, limit: 1 }
    };
    Action::Commit(vec![Change::Job(change)])
}

/// Performs an action on store and reference, and compares the outcomes.
async fn on_both(
    [store, reference]: [&Arc<dyn Store>; 2],
    action: Action,
    actions: &mut Vec<Action>,
    watch: Watch<'_>,
) -> Result<Outcome, Broken> {
    let got = perform(store, &action).await;
    compare_outcomes(reference, got, action, actions, watch).await
}

/// Performs an action on the reference, and compares the outcome with that of the store.
async fn compare_outcomes(
    reference: &Arc<dyn Store>,
    got: Result<Outcome, String>,
    action: Action,
    actions: &mut Vec<Action>,
    watch: Watch<'_>,
) -> Result<Outcome, Broken> {
    let broken = || action.guarantee();
    actions.push(action.clone());
    let expected = invoke(reference, &action)
        .await
        .map_err(|failure| (vec![format!("the reference {failure}")], broken()))?;
    let got = got.map_err(|failure| {
        (vec![format!("expected: {}; got: the store {failure}", expected.words())], broken())
    })?;
    let lines = expected.differences(&got);
    if !lines.is_empty() {
        return Err((lines, broken()));
    }
    watch(&action, &expected);
    Ok(expected)
}

/// Shortest sequence found that still differs.
///
/// Removes steps, then changes of a commit, then makes choices smaller, until nothing helps or the attempts or the time are used up.
pub(super) fn shrink(
    mut steps: Vec<Step>,
    mut difference: Difference,
    time: Option<Duration>,
    differs: &mut dyn FnMut(&[Step]) -> Option<Difference>,
) -> Difference {
    let (start, mut attempts) = (Instant::now(), 0);
    let mut attempt = |candidate: Vec<Step>, steps: &mut Vec<Step>, difference: &mut Difference| {
        attempts += 1;
        if attempts > SHRINK_ATTEMPTS || time.is_some_and(|time| start.elapsed() > time) {
            return false;
        }
        let Some(found) = differs(&candidate) else { return false };
        (*steps, *difference) = (candidate, found);
        true
    };
    if difference.timed_out {
        return difference;
    }
    loop {
        let before = steps.clone();
        let mut size = steps.len().div_ceil(2);
        while size > 0 {
            let mut at = 0;
            while at < steps.len() {
                let mut candidate = steps.clone();
                candidate.drain(at..(at + size).min(steps.len()));
                if !attempt(candidate, &mut steps, &mut difference) {
                    at += size;
                }
            }
            size /= 2;
        }
        for at in 0..steps.len() {
            let mut part = 0;
            while let Step::Commit(parts) = &steps[at]
                && parts.len() > 1
                && part < parts.len()
            {
                let mut candidate = steps.clone();
                if let Step::Commit(parts) = &mut candidate[at] {
                    parts.remove(part);
                }
                if !attempt(candidate, &mut steps, &mut difference) {
                    part += 1;
                }
            }
        }
        for at in 0..steps.len() {
            for (part, choice) in places(&steps[at]) {
                let value = |step: &Step| choice_of(step, part, choice);
                let now = value(&steps[at]);
                for smaller in [0, now / 2, now.saturating_sub(1)] {
                    if smaller < value(&steps[at]) {
                        let mut candidate = steps.clone();
                        set_choice(&mut candidate[at], part, choice, smaller);
                        attempt(candidate, &mut steps, &mut difference);
                    }
                }
            }
        }
        if steps == before {
            return difference;
        }
    }
}

/// Places of the choices of a step.
fn places(step: &Step) -> Vec<(usize, usize)> {
    match step {
        Step::Pair(_) => Vec::new(),
        Step::Read(choices) => (0..choices.len()).map(|choice| (0, choice)).collect(),
        Step::Commit(parts) => {
            let of =
                |(part, choices): (usize, &Vec<u32>)| (0..choices.len()).map(move |choice| (part, choice));
            parts.iter().enumerate().flat_map(of).collect()
        }
    }
}

fn choice_of(step: &Step, part: usize, choice: usize) -> u32 {
    match step {
        Step::Pair(_) => 0,
        Step::Read(choices) => choices[choice],
        Step::Commit(parts) => parts[part][choice],
    }
}

fn set_choice(step: &mut Step, part: usize, choice: usize, value: u32) {
    match step {
        Step::Pair(_) => {}
        Step::Read(choices) => choices[choice] = value,
        Step::Commit(parts) => parts[part][choice] = value,
    }
}
