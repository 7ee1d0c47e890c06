//! Actions of a sequence, and their results.

use std::{sync::Arc, time::Duration};

use couple_core::{Change, ChangeResult, CommitError, Conflict, ErrorKind, Store};

use super::{
    changes_in_words::change_in_words,
    coverage::change_name,
    names::id_in_words,
    reads::Read,
    rows::{Row, ToRows, differences, rows_in_words},
};

/// Time in which a store must return a result.
pub(super) const STEP_TIMEOUT: Duration = Duration::from_secs(20);
/// Words for a store that does not return.
pub(super) const NO_RESULT: &str = "returns nothing";

/// Commit or read.
#[derive(Clone)]
pub(super) enum Action {
    Commit(Vec<Change>),
    Read(Read),
}

impl Action {
    pub(super) fn words(&self) -> String {
        match self {
            Self::Commit(changes) if changes.is_empty() => "an empty commit".to_owned(),
            Self::Commit(changes) => {
                changes.iter().map(change_in_words).collect::<Vec<_>>().join("; in the same commit, ")
            }
            Self::Read(read) => format!("read: {}", read.words),
        }
    }

    /// Guarantee that defines the result.
    pub(super) fn guarantee(&self) -> String {
        match self {
            Self::Commit(changes) => {
                let names: Vec<_> = changes.iter().map(change_name).collect();
                format!(
                    "the preconditions and effects of {}, in order and all or none (S1, S2)",
                    names.join(", ")
                )
            }
            Self::Read(read) => {
                format!(
                    "`{}` returns exactly what the successful commits before it wrote (S1, S3)",
                    read.method.name()
                )
            }
        }
    }
}

/// Result of an action.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    Committed(Vec<ChangeResult>),
    Conflict(Conflict),
    /// The store refuses the commit for a reason that no retry changes.
    Refused(ErrorKind),
    Rows(Vec<Row>),
}

impl Outcome {
    #[cfg(test)]
    pub(super) fn has_rows(&self) -> bool {
        matches!(self, Self::Rows(rows) if !rows.is_empty())
    }

    pub(super) fn words(&self) -> String {
        match self {
            Self::Committed(results) if results.is_empty() => "applied".to_owned(),
            Self::Committed(results) => results.iter().map(result_in_words).collect::<Vec<_>>().join("; "),
            Self::Conflict(conflict) => conflict_in_words(*conflict),
            Self::Refused(kind) => format!("refused as {kind:?}"),
            Self::Rows(rows) => rows_in_words(rows),
        }
    }

    /// Differences to another outcome of the same action, one per line.
    pub(super) fn differences(&self, got: &Self) -> Vec<String> {
        match (self, got) {
            (Self::Rows(expected), Self::Rows(got)) => differences(expected, got),
            (Self::Committed(expected), Self::Committed(got)) if expected.len() == got.len() => {
                let (several, pairs) = (got.len() > 1, expected.iter().zip(got).enumerate());
                let lines = pairs.flat_map(|(index, (expected, got))| match (expected, got) {
                    (ChangeResult::Claimed(expected), ChangeResult::Claimed(got)) => {
                        differences(&expected.to_rows(), &got.to_rows())
                    }
                    (expected, got) if expected == got => Vec::new(),
                    (expected, got) => {
                        let place = if several { format!("change {}: ", index + 1) } else { String::new() };
                        vec![format!(
                            "{place}expected: {}; got: {}",
                            result_in_words(expected),
                            result_in_words(got)
                        )]
                    }
                });
                lines.collect()
            }
            (expected, got) if expected == got => Vec::new(),
            (expected, got) => vec![format!("expected: {}; got: {}", expected.words(), got.words())],
        }
    }
}

/// Name of a conflict, and the row that it names.
fn conflict_in_words(conflict: Conflict) -> String {
    let text = conflict.to_string();
    let row = text.split(' ').find_map(|word| match (word.parse(), word.parse::<i64>()) {
        (Ok(id), _) => Some(id_in_words(id)),
        (_, Ok(seq)) => Some(format!("entry {seq}")),
        _ => None,
    });
    let row = row.map_or_else(String::new, |row| format!(" ({row})"));
    format!("conflict {}{row}", conflict.name())
}

fn result_in_words(result: &ChangeResult) -> String {
    match result {
        ChangeResult::Applied => "applied".to_owned(),
        ChangeResult::Appended { seq } => format!("appended seq {seq}"),
        ChangeResult::Claimed(jobs) => format!("claimed {}", rows_in_words(&jobs.to_rows())),
        ChangeResult::RowsAffected(rows) => format!("{rows} rows affected"),
    }
}

/// Performs an action. An error says how the store failed.
pub(super) async fn perform(store: &Arc<dyn Store>, action: &Action) -> Result<Outcome, String> {
    let (store, action) = (store.clone(), action.clone());
    // In its own task, so that a store that blocks its thread is noticed, and a panic is a result.
    let running = tokio::spawn(async move { invoke(&store, &action).await });
    match tokio::time::timeout(STEP_TIMEOUT, running).await {
        Err(_) => Err(format!("{NO_RESULT} within {} s", STEP_TIMEOUT.as_secs())),
        Ok(Ok(outcome)) => outcome,
        Ok(Err(ended)) => Err(match ended.try_into_panic() {
            Ok(panic) => format!("panics: {}", panic_text(&*panic)),
            Err(ended) => format!("ends: {ended}"),
        }),
    }
}

/// Performs an action in this task, without a time limit.
pub(super) async fn invoke(store: &Arc<dyn Store>, action: &Action) -> Result<Outcome, String> {
    match action {
        Action::Commit(changes) => match store.commit(changes.clone()).await {
            Ok(committed) if committed.results().len() != changes.len() => Err(format!(
                "returns {} results for {} changes (S8)",
                committed.results().len(),
                changes.len()
            )),
            Ok(committed) => Ok(Outcome::Committed(committed.results().to_vec())),
            Err(CommitError::Conflict(conflict)) => Ok(Outcome::Conflict(conflict)),
            Err(CommitError::Failed(error)) if error.kind() == ErrorKind::Misconfigured => {
                Ok(Outcome::Refused(error.kind()))
            }
            Err(CommitError::Failed(error)) => Err(format!("fails: {error}")),
        },
        Action::Read(read) => match read.run(store.clone()).await {
            Ok(rows) => Ok(Outcome::Rows(rows)),
            Err(error) => Err(format!("fails: {error}")),
        },
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text =
        panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("without a text").to_owned()
}
