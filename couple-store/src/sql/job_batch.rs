//! Statements that write several rows of the table of jobs, generated once for each store.

use std::sync::Arc;

/// Columns of the table of jobs, in the order in which they are written and read.
macro_rules! job_columns {
    () => {
        "id, queue, name, payload, dedupe_key, due_at, expires_at, max_attempts, created_at, attempts"
    };
}
pub(super) use job_columns;

/// Generated statements that insert or claim several jobs.
///
/// There are few sizes, so that few statements are prepared.
#[derive(Debug)]
pub struct BatchStatements {
    pub(super) inserts: StatementsBySize,
    pub(super) claims: StatementsBySize,
}

/// Statements by their number of rows, the largest first.
pub(super) type StatementsBySize = [(usize, Arc<str>); 3];

impl BatchStatements {
    /// Generates the statements.
    ///
    /// `prefix`: text before the name of a table; `numbered`: placeholders are `$1`, …; `clash`: the clause
    /// that skips existing rows.
    pub(super) fn new(prefix: &str, numbered: bool, clash: &str) -> Self {
        let list = |first: usize, count: usize| {
            let one = |n: usize| if numbered { format!("${}", first + n) } else { "?".to_owned() };
            (0..count).map(one).collect::<Vec<_>>().join(", ")
        };
        let columns = job_columns!().split(", ").count();
        let insert = |rows: usize| {
            let rows: Vec<_> =
                (0..rows).map(|row| format!("({})", list(row * columns + 1, columns))).collect();
            format!(
                concat!("INSERT INTO {}job (", job_columns!(), ") VALUES {} {}"),
                prefix,
                rows.join(", "),
                clash
            )
        };
        let claim = |rows: usize| {
            let (due, claim, ids) = (list(1, 1), list(2, 1), list(3, rows));
            format!(
                "UPDATE {prefix}job SET due_at = {due}, attempts = attempts + 1, claim = {claim} WHERE id IN ({ids})"
            )
        };
        let sizes = [64, 8, 1];
        Self {
            inserts: sizes.map(|rows| (rows, insert(rows).into())),
            claims: sizes.map(|rows| (rows, claim(rows).into())),
        }
    }
}
