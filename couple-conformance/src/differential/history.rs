//! Histories of concurrent clients, and the search for an order that explains them (Wing and Gong; Lowe).

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use couple_core::{Change, ChangeResult, Store, job::JobChange};
use futures_util::{StreamExt as _, stream};
use tokio::{sync::Barrier, time::Instant};

use super::{
    Opener,
    changes::THEMES,
    choices::Random,
    diagnosis::{Violation, diagnose},
    names::{JOBS, job_id, timestamp},
    outcome::{Action, Outcome, invoke, perform},
    reads::all_rows,
    sequence::{Step, claim_one, fresh_ids, step},
};

pub(super) const CLIENTS: usize = 2;
/// Operations of each client between two points of synchronisation.
const WINDOW: usize = 4;
const ROUNDS: usize = 6;
/// Longest time of a case.
const CASE_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause before a row is read again.
const PAUSE: Duration = Duration::from_millis(100);
/// Logical time of the reads after both clients have ended.
pub(super) const AFTER_CLIENTS: u64 = u64::MAX / 2;
/// Number of rows that are added to a history which has no explanation.
const MAX_ROWS: usize = 8;
/// Number of pairs of overlapping operations that all cases together must have. A single case has at least two.
const MIN_OVERLAPS: usize = 20;
/// Maximum number of states that explain a history. With more, the case ends.
const MAX_STATES: usize = 8;

/// Operation of a client, and its result.
#[derive(Clone)]
pub(super) struct Operation {
    pub(super) client: usize,
    pub(super) action: Action,
    pub(super) outcome: Outcome,
    /// Logical time before the call.
    pub(super) called: u64,
    /// Logical time after the return.
    pub(super) returned: u64,
    /// Whether any outcome is accepted. Only for a diagnosis.
    pub(super) any_outcome: bool,
    /// Whether it read after both clients had ended, and again later, with the same result.
    pub(super) is_final: bool,
    /// Number in a description.
    pub(super) number: usize,
}

impl Operation {
    pub(super) const fn is_committed(&self) -> bool {
        matches!(self.outcome, Outcome::Committed(_))
    }
    /// Whether the commits of an order include it; one that conflicts on the reference writes nothing.
    const fn may_write(&self) -> bool {
        self.is_committed() || self.any_outcome
    }
    /// Changes that a successful commit applies.
    fn changes(&self) -> Vec<Change> {
        match &self.action {
            Action::Commit(changes) => changes.clone(),
            Action::Read(_) => Vec::new(),
        }
    }
    pub(super) const fn overlaps(&self, other: &Self) -> bool {
        self.called < other.returned && other.called < self.returned
    }
}

/// Commits that lead to a state.
pub(super) type State = Vec<Vec<Change>>;

/// Result of a search.
#[derive(Default)]
pub(super) struct Search {
    /// States to which the orders lead that explain all operations.
    pub(super) states: Vec<State>,
    /// Longest order that explains a part of the operations, and what the reference returns for the next ones.
    pub(super) longest: Vec<usize>,
    pub(super) next: Vec<(usize, Outcome)>,
}

/// Searches the orders of operations that respect time and give the same outcomes on the reference.
///
/// The outcomes of an order depend on its commits only, so orders of the same operations with the same sequence of
/// commits are visited once.
pub(super) async fn explain(before: &[State], operations: &[Operation], reference: &Opener<'_>) -> Search {
    let mut search = Search::default();
    for base in before {
        let mut seen = HashSet::new();
        let mut open: Vec<Vec<usize>> = vec![Vec::new()];
        while let Some(order) = open.pop() {
            let committed: Vec<usize> =
                order.iter().copied().filter(|i| operations[*i].may_write()).collect();
            let mut done = order.clone();
            done.sort_unstable();
            if !seen.insert((done, committed.clone())) {
                continue;
            }
            let mut state = base.clone();
            state.extend(committed.iter().map(|i| operations[*i].changes()));
            if order.len() == operations.len() {
                search.states.push(state);
                continue;
            }
            let mut refused = Vec::new();
            let mut store = replay(&state, reference).await;
            for next in next_operations(&order, operations) {
                let operation = &operations[next];
                let outcome = answer(&store, &operation.action).await;
                if matches!(outcome, Outcome::Committed(_)) {
                    store = replay(&state, reference).await;
                }
                if outcome == operation.outcome || operation.any_outcome {
                    let mut longer = order.clone();
                    longer.push(next);
                    open.push(longer);
                } else {
                    refused.push((next, outcome));
                }
            }
            if !refused.is_empty() && (search.next.is_empty() || order.len() > search.longest.len()) {
                (search.longest, search.next) = (order, refused);
            }
        }
    }
    search
}

/// Operations that may come next: none that returned before them is missing.
fn next_operations(order: &[usize], operations: &[Operation]) -> Vec<usize> {
    let missing: Vec<usize> = (0..operations.len()).filter(|i| !order.contains(i)).collect();
    let is_first = |i: &usize| {
        let operation = &operations[*i];
        // Parts of one operation have the same times and keep their order.
        let is_before = |other: &Operation| {
            other.returned < operation.called
                || (other.called, other.returned) == (operation.called, operation.returned)
        };
        missing.iter().all(|j| {
            j == i
                || if j < i {
                    !is_before(&operations[*j])
                } else {
                    operations[*j].returned >= operation.called
                }
        })
    };
    missing.iter().copied().filter(is_first).collect()
}

/// New reference store with the given commits.
pub(super) async fn replay(state: &[Vec<Change>], reference: &Opener<'_>) -> Arc<dyn Store> {
    let store = reference().await;
    for changes in state {
        // An operation whose outcome is not compared may conflict.
        drop(store.commit(changes.clone()).await);
    }
    store
}

/// Outcome of the reference, which does not fail.
pub(super) async fn answer(reference: &Arc<dyn Store>, action: &Action) -> Outcome {
    invoke(reference, action).await.unwrap_or_else(|failure| panic!("the reference {failure}"))
}

/// Runs the cases of the seeds, as many as `time` allows. An error describes a violation.
pub(super) async fn check(
    store: &Opener<'_>,
    reference: &Opener<'_>,
    seeds: impl IntoIterator<Item = u64>,
    time: Option<Duration>,
) -> Result<(), String> {
    let start = Instant::now();
    let is_over = || time.is_some_and(|time| start.elapsed() > time);
    let mut total = Counts::default();
    let (mut cases, mut cut) = (0, 0);
    for seed in seeds {
        cases += 1;
        match tokio::time::timeout(CASE_TIMEOUT, case(seed, store, reference, &is_over)).await {
            Ok(Ok(counts)) => {
                total.overlaps += counts.overlaps;
                total.operations += counts.operations;
                cut += usize::from(counts.is_cut);
            }
            Ok(Err(violation)) => {
                return Err(format!(
                    "{violation}replay: COUPLE_DIFFERENTIAL_SEED={seed}, several times if needed"
                ));
            }
            Err(_) => {
                return Err(format!(
                    "the case of the seed {seed} did not end within {} s, after {} operations of earlier \
                     cases\nbroken: a store returns results in a bounded time",
                    CASE_TIMEOUT.as_secs(),
                    total.operations
                ));
            }
        }
        if is_over() {
            break;
        }
    }
    let Counts { overlaps, operations, .. } = total;
    if overlaps < MIN_OVERLAPS.min(2 * cases) {
        return Err(format!(
            "only {overlaps} pairs of {operations} operations of two clients overlapped: too little was checked; {cut} of \
             {cases} cases ended early"
        ));
    }
    Ok(())
}

/// Numbers of a case.
#[derive(Default)]
struct Counts {
    overlaps: usize,
    operations: usize,
    /// Whether it ended before its last round: the time was over, or too many states explained it.
    is_cut: bool,
}

/// One store, two clients, several rounds.
async fn case(
    seed: u64,
    store: &Opener<'_>,
    reference: &Opener<'_>,
    is_over: &impl Fn() -> bool,
) -> Result<Counts, Violation> {
    let mut random = Random::new(seed);
    let theme = THEMES[random.below(9) as usize];
    let store = store().await;
    let mut made = HashSet::new();
    let mut first = State::new();
    for n in 0..2 {
        let action = Step::Pair(n).action();
        made.extend(fresh_ids(&action));
        let operation = operate(&store, 0, action, &AtomicU64::new(0)).await?;
        first.push(operation.changes());
    }
    let mut states = vec![first];
    let mut counts = Counts::default();
    for round in 0..ROUNDS {
        if round > 0 && (is_over() || states.len() > MAX_STATES) {
            counts.is_cut = true;
            break;
        }
        // In half of the rounds one client only reads, more often, while the other one commits several changes together.
        let one_reads = random.below(2) == 1;
        let mut plans = Vec::new();
        for client in 0..CLIENTS {
            let (count, reads, several) = match (one_reads, client) {
                (false, _) => (WINDOW, 40, 50),
                (true, 0) => (WINDOW, 0, 70),
                (true, _) => (3 * WINDOW, 100, 0),
            };
            let mut plan = Vec::new();
            while plan.len() < count {
                let action = step(&mut random, &theme, reads, several).action();
                let ids = fresh_ids(&action);
                let mut unique = HashSet::new();
                if ids.iter().all(|id| !made.contains(id) && unique.insert(*id)) {
                    made.extend(ids);
                    plan.push((action, Pause::drawn(&mut random, reads == 100)));
                }
            }
            plans.push(plan);
        }
        read_changing_rows(&mut plans, &states[0], reference, &mut random).await;
        let operations = concurrently(&store, plans).await?;
        counts.operations += operations.len();
        counts.overlaps += operations
            .iter()
            .flat_map(|one| operations.iter().map(move |other| (one, other)))
            .filter(|(one, other)| one.client < other.client && one.overlaps(other))
            .count();
        let search = explain(&states, &operations, reference).await;
        let rows = read_all(&store).await?;
        if search.states.is_empty() {
            let changed = changed_rows(&store, rows, &states[0], &operations, reference).await?;
            return Err(diagnose(&states, operations, changed, reference).await);
        }
        states = synchronise(&store, &states, operations, rows, search.states, reference).await?;
    }
    store.close().await.map_err(|error| Violation::failure(&format!("closing the store fails: {error}")))?;
    Ok(counts)
}

/// Actions of a client, and the pause before each.
type Plan = Vec<(Action, Pause)>;

/// Pause before an operation, so that the operations of the clients overlap in different ways.
#[derive(Clone, Copy)]
enum Pause {
    None,
    Yield,
    Sleep,
}

impl Pause {
    fn drawn(random: &mut Random, is_reader: bool) -> Self {
        match (random.below(8), is_reader) {
            (0..2, true) => Self::Sleep,
            (0..4, false) => Self::Yield,
            _ => Self::None,
        }
    }
}

/// Replaces most reads by reads of rows that the commits of the plans change.
async fn read_changing_rows(plans: &mut [Plan], before: &State, reference: &Opener<'_>, random: &mut Random) {
    let mut after = before.clone();
    let actions = plans.iter().flatten().map(|(action, _)| action.clone());
    after.extend(actions.filter_map(|action| match action {
        Action::Commit(changes) => Some(changes),
        Action::Read(_) => None,
    }));
    let (before, after) = (replay(before, reference).await, replay(&after, reference).await);
    let mut changing = Vec::new();
    for read in all_rows() {
        let read = Action::Read(read);
        if answer(&before, &read).await != answer(&after, &read).await {
            changing.push(read);
        }
    }
    let count = u32::try_from(changing.len()).unwrap_or(u32::MAX);
    let reads = plans.iter_mut().flatten().filter(|(action, _)| matches!(action, Action::Read(_)));
    for (action, _) in reads {
        if count > 0 && random.below(4) > 0 {
            *action = changing[random.below(count) as usize].clone();
        }
    }
}

/// Performs the plans of the clients concurrently.
async fn concurrently(store: &Arc<dyn Store>, plans: Vec<Plan>) -> Result<Vec<Operation>, Violation> {
    let (clock, start) = (Arc::new(AtomicU64::new(1)), Arc::new(Barrier::new(plans.len())));
    let clients: Vec<_> = plans
        .into_iter()
        .enumerate()
        .map(|(client, plan)| {
            let (store, clock, start) = (store.clone(), clock.clone(), start.clone());
            tokio::spawn(async move {
                let mut operations = Vec::new();
                start.wait().await;
                for (action, pause) in plan {
                    match pause {
                        Pause::None => {}
                        Pause::Yield => tokio::task::yield_now().await,
                        Pause::Sleep => tokio::time::sleep(Duration::from_millis(1)).await,
                    }
                    operations.push(operate(&store, client, action, &clock).await?);
                }
                Ok(operations)
            })
        })
        .collect();
    let mut operations = Vec::new();
    for client in clients {
        operations.extend(client.await.expect("a client does not panic")?);
    }
    operations.sort_by_key(|operation| operation.called);
    Ok(operations)
}

async fn operate(
    store: &Arc<dyn Store>,
    client: usize,
    action: Action,
    clock: &AtomicU64,
) -> Result<Operation, Violation> {
    let called = clock.fetch_add(1, Ordering::SeqCst);
    let outcome = perform(store, &action)
        .await
        .map_err(|failure| Violation::failure(&format!("{}: the store {failure}", action.words())))?;
    let returned = clock.fetch_add(1, Ordering::SeqCst);
    Ok(Operation {
        client,
        action,
        outcome,
        called,
        returned,
        any_outcome: false,
        is_final: false,
        number: 0,
    })
}

/// Reads all rows while no client runs.
async fn read_all(store: &Arc<dyn Store>) -> Result<Vec<Operation>, Violation> {
    let rows = stream::iter(all_rows()).map(|read| async {
        let clock = AtomicU64::new(AFTER_CLIENTS);
        operate(store, 0, Action::Read(read), &clock).await
    });
    rows.buffered(6).collect::<Vec<_>>().await.into_iter().collect()
}

/// Reads again after a pause: a row that is the same is final.
async fn read_again(store: &Arc<dyn Store>, row: &Operation) -> Result<Operation, Violation> {
    tokio::time::sleep(PAUSE).await;
    let again = operate(store, 0, row.action.clone(), &AtomicU64::new(AFTER_CLIENTS)).await?;
    Ok(Operation { is_final: again.outcome == row.outcome, ..row.clone() })
}

/// Final rows that the operations of a round may have changed.
async fn changed_rows(
    store: &Arc<dyn Store>,
    rows: Vec<Operation>,
    before: &State,
    operations: &[Operation],
    reference: &Opener<'_>,
) -> Result<Vec<Operation>, Violation> {
    let mut after = before.clone();
    after.extend(operations.iter().filter(|operation| operation.is_committed()).map(Operation::changes));
    let (before, after) = (replay(before, reference).await, replay(&after, reference).await);
    let mut changed = Vec::new();
    for row in rows {
        let outcomes = [answer(&before, &row.action).await, answer(&after, &row.action).await];
        if outcomes.iter().any(|outcome| *outcome != row.outcome) {
            let row = read_again(store, &row).await?;
            changed.extend(row.is_final.then_some(row));
        }
        if changed.len() == MAX_ROWS {
            break;
        }
    }
    Ok(changed)
}

/// Keeps the states that explain all rows.
async fn synchronise(
    store: &Arc<dyn Store>,
    before: &[State],
    operations: Vec<Operation>,
    rows: Vec<Operation>,
    states: Vec<State>,
    reference: &Opener<'_>,
) -> Result<Vec<State>, Violation> {
    let (mut kept, mut prints) = (Vec::new(), HashSet::new());
    let mut contradicting = Vec::new();
    for state in states {
        let replayed = replay(&state, reference).await;
        let mut hash = DefaultHasher::new();
        let mut contradicted = None;
        for row in &rows {
            let expected = answer(&replayed, &row.action).await;
            if expected != row.outcome {
                contradicted = Some(row);
                break;
            }
            if let Outcome::Rows(rows) = &expected {
                rows.hash(&mut hash);
            }
        }
        match contradicted {
            Some(row) if contradicting.len() < MAX_ROWS => contradicting.push(read_again(store, row).await?),
            Some(_) => {}
            None => {
                hidden_rows(&replayed, &mut hash).await;
                if prints.insert(hash.finish()) {
                    kept.push(state);
                }
            }
        }
    }
    if kept.is_empty() {
        return Err(diagnose(before, operations, contradicting, reference).await);
    }
    Ok(kept)
}

/// Adds the state that no read returns to the hash: claims, due times and attempts of live jobs. It changes the store.
async fn hidden_rows(replayed: &Arc<dyn Store>, hash: &mut DefaultHasher) {
    let missing = job_id(JOBS);
    for (n, claim) in (0..JOBS).flat_map(|n| [0, 1].map(|claim| (n, claim))) {
        // Conflicts at the first change without the claim, otherwise at the second: neither writes anything.
        let renew = JobChange::Renew { id: job_id(n), claim, lease_until: timestamp(0) };
        let finish = JobChange::Finish { id: missing, claim };
        let action = Action::Commit(vec![Change::Job(renew), Change::Job(finish)]);
        format!("{:?}", answer(replayed, &action).await).hash(hash);
    }
    for (queue, abandoned) in [(0, false), (0, true), (1, false), (1, true)] {
        loop {
            let outcome = answer(replayed, &claim_one(queue, abandoned)).await;
            format!("{outcome:?}").hash(hash);
            let Outcome::Committed(results) = outcome else { break };
            if !results.iter().any(|result| matches!(result, ChangeResult::Claimed(jobs) if !jobs.is_empty()))
            {
                break;
            }
            for read in all_rows().into_iter().filter(|read| read.method.name().starts_with("next_")) {
                format!("{:?}", answer(replayed, &Action::Read(read)).await).hash(hash);
            }
        }
    }
}
