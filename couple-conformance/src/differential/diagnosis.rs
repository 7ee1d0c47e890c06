//! Names the guarantee that a history breaks: searches the smallest change of the history that explains it.

use std::fmt;

use couple_core::{Change, ChangeResult};

use super::{
    Opener,
    history::{AFTER_CLIENTS, Operation, State, answer, explain, replay},
    outcome::{Action, Outcome},
};

/// Description of a history without an explanation, one line each.
pub(super) struct Violation(Vec<String>);

impl Violation {
    pub(super) fn failure(text: &str) -> Self {
        Self(vec![text.to_owned(), "broken: a store returns a result, or a conflict".to_owned()])
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// Describes a history that no order explains, with rows that were read after it.
pub(super) async fn diagnose(
    before: &[State],
    mut operations: Vec<Operation>,
    rows: Vec<Operation>,
    reference: &Opener<'_>,
) -> Violation {
    operations.extend(rows);
    for (index, operation) in operations.iter_mut().enumerate() {
        operation.number = index + 1;
    }
    let part = first_part(before, &operations, reference).await;
    let mut found = swapped(before, &part, reference).await;
    for history in [&operations, &part] {
        for cause in [Cause::Half, Cause::OldState, Cause::Lost, Cause::Refused, Cause::WrongAnswer] {
            if found.is_none() {
                found = caused_by(cause, before, history, reference).await;
            }
        }
    }
    let (broken, named) = found.unwrap_or_else(|| (String::new(), Vec::new()));
    let history = if named.iter().all(|number| part.iter().any(|operation| operation.number == *number)) {
        part
    } else {
        operations
    };
    let history = shorten(before, history, &named, reference).await;
    let search = explain(before, &history, reference).await;
    let mut lines = vec![format!(
        "no order of these operations of two clients explains their results, after {} earlier commits:",
        before.iter().map(Vec::len).min().unwrap_or_default(),
    )];
    for operation in &history {
        lines.push(format!("{:>3}. {}: {}", operation.number, client(operation), operation.action.words()));
        lines.push(format!("     result: {}", operation.outcome.words()));
    }
    let order: Vec<_> = search.longest.iter().map(|index| history[*index].number.to_string()).collect();
    let order = if order.is_empty() { "first".to_owned() } else { format!("after {}", order.join(", ")) };
    for (next, expected) in &search.next {
        for line in expected.differences(&history[*next].outcome) {
            lines.push(format!("{order}, then {}: {line}", history[*next].number));
        }
    }
    let order = "concurrent commits and reads have the results of an order of them (S1, S2, S3)";
    lines.push(if broken.is_empty() { format!("broken: {order}") } else { format!("broken: {broken}") });
    Violation(lines)
}

/// The operations up to the first time at which no operation runs and at which nothing explains them.
async fn first_part(before: &[State], operations: &[Operation], reference: &Opener<'_>) -> Vec<Operation> {
    for end in 1..operations.len() {
        let part = &operations[..end];
        let is_quiet = part.iter().all(|operation| operation.returned < operations[end].called);
        if is_quiet && !explains(before, part, reference).await {
            return part.to_vec();
        }
    }
    operations.to_vec()
}

fn client(operation: &Operation) -> String {
    if operation.called >= AFTER_CLIENTS {
        return "after both clients".to_owned();
    }
    let name = ["first client", "second client"][operation.client];
    format!("{name}, from {} to {}", operation.called, operation.returned)
}

/// Removes operations without an effect that are not named, while the rest has no explanation.
async fn shorten(
    before: &[State],
    mut operations: Vec<Operation>,
    named: &[usize],
    reference: &Opener<'_>,
) -> Vec<Operation> {
    let mut at = 0;
    while at < operations.len() {
        let mut fewer = operations.clone();
        let removed = fewer.remove(at);
        let needed = removed.is_committed() || named.contains(&removed.number);
        if !needed && !explains(before, &fewer, reference).await {
            operations = fewer;
        } else {
            at += 1;
        }
    }
    operations
}

async fn explains(before: &[State], operations: &[Operation], reference: &Opener<'_>) -> bool {
    !explain(before, operations, reference).await.states.is_empty()
}

/// Broken guarantee, and the numbers of the operations that show it.
type Finding = Option<(String, Vec<usize>)>;

/// Whether two concurrent commits returned each other's result.
async fn swapped(before: &[State], operations: &[Operation], reference: &Opener<'_>) -> Finding {
    let is_commit = |operation: &Operation| matches!(operation.action, Action::Commit(_));
    for one in 0..operations.len() {
        for other in one + 1..operations.len() {
            let (first, second) = (&operations[one], &operations[other]);
            if !(is_commit(first) && is_commit(second) && first.overlaps(second))
                || first.outcome == second.outcome
            {
                continue;
            }
            let mut swapped = operations.to_vec();
            (swapped[one].outcome, swapped[other].outcome) = (second.outcome.clone(), first.outcome.clone());
            if explains(before, &swapped, reference).await {
                let (one, other) = (first.number, second.number);
                let text = "each caller gets the result of its own commit (S8); the results of";
                return Some((format!("{text} {one} and {other} are swapped"), vec![one, other]));
            }
        }
    }
    None
}

/// Fault of a store that explains a history.
#[derive(Clone, Copy)]
enum Cause {
    OldState,
    Half,
    Lost,
    Refused,
    WrongAnswer,
}

/// Whether one fault at one operation explains a history.
async fn caused_by(
    cause: Cause,
    before: &[State],
    operations: &[Operation],
    reference: &Opener<'_>,
) -> Finding {
    for at in 0..operations.len() {
        let Some(changed) = changed(cause, operations, at) else { continue };
        let old = matches!(cause, Cause::OldState) && is_older(before, operations, at, reference).await;
        if !old && !explains(before, &changed, reference).await {
            continue;
        }
        let number = operations[at].number;
        let text = match (cause, &operations[at].action) {
            (Cause::OldState, Action::Read(_)) => format!(
                "a read that starts after a commit returned sees the commit (S3); {number} returned an older state"
            ),
            (Cause::OldState, Action::Commit(_)) => format!(
                "a commit that starts after another one returned sees it (S3); {number} returned an older state"
            ),
            (Cause::Half, _) => {
                format!("a commit is visible completely or not at all (S1, S11); a half of {number} was seen")
            }
            (Cause::Lost, _) => {
                format!("a commit that was acknowledged stays (S3); the effect of {number} was lost")
            }
            (Cause::Refused, _) => {
                format!(
                    "a commit conflicts only if a precondition does not hold; {number} conflicted without a reason"
                )
            }
            (Cause::WrongAnswer, _) => format!(
                "concurrent commits and reads have the results of an order of them (S1, S2, S3); {number} returned \
                 what no order gives"
            ),
        };
        return Some((text, vec![number]));
    }
    None
}

/// Whether a read returned a state before the first operation, and nothing else is wrong.
async fn is_older(before: &[State], operations: &[Operation], at: usize, reference: &Opener<'_>) -> bool {
    let (mut rest, Some(state)) = (operations.to_vec(), before.first()) else { return false };
    let read = rest.remove(at);
    if !matches!(read.action, Action::Read(_)) || !explains(before, &rest, reference).await {
        return false;
    }
    for end in 0..state.len() {
        let older = replay(&state[..end], reference).await;
        if answer(&older, &read.action).await == read.outcome {
            return true;
        }
    }
    false
}

/// The history as it would be without the fault at an operation; none if the operation cannot have the fault.
fn changed(cause: Cause, operations: &[Operation], at: usize) -> Option<Vec<Operation>> {
    let mut changed = operations.to_vec();
    match cause {
        Cause::OldState => {
            changed[at].called = 0;
            (!operations[at].is_final).then_some(changed)
        }
        Cause::Half => split(operations, at),
        Cause::Lost => changed.remove(at).is_committed().then_some(changed),
        Cause::Refused => {
            let refused = changed.remove(at);
            (matches!(refused.action, Action::Commit(_)) && !refused.is_committed()).then_some(changed)
        }
        Cause::WrongAnswer => {
            changed[at].any_outcome = true;
            (!operations[at].is_final).then_some(changed)
        }
    }
}

/// The history in which a commit of several changes is as many commits of one change.
fn split(operations: &[Operation], at: usize) -> Option<Vec<Operation>> {
    let (Action::Commit(changes), Outcome::Committed(results)) =
        (&operations[at].action, &operations[at].outcome)
    else {
        return None;
    };
    if changes.len() < 2 {
        return None;
    }
    let part = |(change, result): (&Change, &ChangeResult)| Operation {
        action: Action::Commit(vec![change.clone()]),
        outcome: Outcome::Committed(vec![result.clone()]),
        ..operations[at].clone()
    };
    let mut split = operations.to_vec();
    split.splice(at..=at, changes.iter().zip(results).map(part));
    Some(split)
}
