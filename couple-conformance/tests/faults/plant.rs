//! Plants one fault in the adapter, and expects that the check which is named for it finds it.

use std::{
    cell::Cell,
    collections::BTreeSet,
    sync::{
        LazyLock, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tokio::runtime::{Builder, Runtime};

thread_local! {
    static PLANTED: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Fault of a whole run: `COUPLE_PLANTED_FAULT=name cargo test -p couple-conformance --test faults sound` prints the kit's messages for it.
static PLANTED_IN_RUN: LazyLock<Option<String>> =
    LazyLock::new(|| std::env::var("COUPLE_PLANTED_FAULT").ok());

/// Fault of the whole run.
pub(crate) fn of_the_run() -> Option<&'static str> {
    PLANTED_IN_RUN.as_deref()
}

/// Whether the fault is planted in this runtime.
pub(crate) fn planted(fault: &str) -> bool {
    PLANTED.get() == Some(fault) || PLANTED_IN_RUN.as_deref() == Some(fault)
}

/// Rest of the planted fault's name after the name of a column.
pub(crate) fn planted_kind(column: &str) -> Option<&'static str> {
    PLANTED.get().or(PLANTED_IN_RUN.as_deref())?.strip_prefix(column)
}

/// Name that is unique over all faults, which run concurrently.
pub(crate) fn place(name: &str) -> String {
    format!("{} {name}", PLANTED.get().unwrap_or("none"))
}

/// Runtime in whose threads the fault is planted.
pub(crate) fn runtime(fault: &'static str) -> Runtime {
    PLANTED.set(Some(fault));
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .on_thread_start(move || PLANTED.set(Some(fault)))
        .build()
        .expect("a runtime starts")
}

/// A fault, the check that finds it, and words of its message.
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    pub(crate) words: &'static str,
    pub(crate) check: fn() -> Result<(), String>,
}

/// Words of messages that do not say which guarantee is broken.
const VAGUE: [&str; 4] = [
    "did not end within",
    "creation of the engine",
    "called `Result::unwrap()`",
    "the commit has no conflict",
];

/// Runs the check of each fault, and fails with all faults that it does not find or that it reports in other words.
pub(crate) fn expect_found(faults: &[Fault]) {
    let (next, missed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let miss = |text: String| missed.lock().expect("no thread panics").push(text);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(fault) = faults.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let Err(text) = (fault.check)() else {
                        miss(format!("{}: not found", fault.name));
                        continue;
                    };
                    // The first line has the name of the check.
                    let detail = text.split_once('\n').map_or("", |(_, detail)| detail);
                    if !detail.contains(fault.words) {
                        miss(format!("{}: found, but without {:?}: {text}", fault.name, fault.words));
                    }
                    let vague =
                        VAGUE.iter().find(|vague| detail.contains(**vague) && !fault.words.contains(**vague));
                    if let Some(vague) = vague {
                        miss(format!("{}: found, but only as {vague:?}: {text}", fault.name));
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().expect("no thread panics");
    assert!(missed.is_empty(), "{} of {} faults:\n{}", missed.len(), faults.len(), missed.join("\n"));
}

/// Names of the faults that a source file plants, and of the columns that it plants faults in.
pub(crate) fn planted_in(source: &str) -> BTreeSet<&str> {
    // Functions whose first parameter is a fault, or a column.
    let calls = [
        "planted(",
        "column(",
        ".owner(",
        ".mailed(",
        ".as_seen(",
        ".live_tally(",
        "similar(",
        "rows(",
        "planted_kind(",
    ];
    let after = |call| source.split(call).skip(1).filter_map(|rest| rest.trim_start().strip_prefix('"'));
    calls.into_iter().flat_map(after).filter_map(|rest| rest.split('"').next()).collect()
}

/// Whether a test names a fault, or the column and the kind of which its name is made.
pub(crate) fn expects(test: &str, fault: &str) -> bool {
    let parts = fault.match_indices('-').map(|(at, _)| fault.split_at(at));
    let is_named = |name: &str| test.contains(&format!("\"{name}\""));
    is_named(fault) || parts.into_iter().any(|(column, kind)| is_named(column) && is_named(kind))
}

/// Defines a test that plants faults in an engine, one after another. Each is a row: its name, the check that finds it, and words of
/// the check's message.
macro_rules! faults {
    ($engine:expr; $($fault:literal: $area:ident::$check:ident, $words:literal;)+) => {
        #[test]
        fn planted_faults_are_found() {
            $crate::plant::expect_found(&[$($crate::plant::Fault {
                name: $fault,
                words: $words,
                check: || couple_conformance::outcome(
                    stringify!($check),
                    || $crate::plant::runtime($fault),
                    |_| async { $engine },
                    |engine| couple_conformance::$area::$check(engine),
                ),
            }),+]);
        }
    };
}
pub(crate) use faults;

/// As [`faults!`], for faults of a column: each row is the column, the kinds of its faults, the check and the words.
macro_rules! column_faults {
    ($engine:expr; $($column:literal [$($kind:literal)+]: $area:ident::$check:ident, $words:literal;)+) => {
        #[test]
        fn planted_faults_of_columns_are_found() {
            $crate::plant::expect_found(&[$($($crate::plant::Fault {
                name: concat!($column, $kind),
                words: $words,
                check: || couple_conformance::outcome(
                    stringify!($check),
                    || $crate::plant::runtime(concat!($column, $kind)),
                    |_| async { $engine },
                    |engine| couple_conformance::$area::$check(engine),
                ),
            }),+),+]);
        }
    };
}
pub(crate) use column_faults;
