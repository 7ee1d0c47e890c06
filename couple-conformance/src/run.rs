//! Runs checks: each in its own thread and runtime, with a time limit, and with a message that states the guarantee.

use std::{
    any::Any,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use couple_core::Store;
use tokio::runtime::{Builder, Runtime};

/// Maximum duration of a check, without the creation of its engine.
pub const CHECK_LIMIT: Duration = Duration::from_secs(30);

/// Maximum duration of the creation of an engine.
const CREATION_LIMIT: Duration = Duration::from_mins(2);

/// Creates an engine, runs the check `name` on it, and panics with the guarantee if the check fails or does not end within
/// [`CHECK_LIMIT`]. The macros of this crate define one test function for each check, which calls this.
///
/// `engine` gets the number of the check in lower case, such as `s1`. A suite in which all checks share one server can use it as a prefix.
#[doc(hidden)]
pub fn run<E, Created, Checked>(
    name: &'static str,
    engine: impl FnOnce(String) -> Created + Send + 'static,
    check: impl FnOnce(E) -> Checked + Send + 'static,
) where
    Created: Future<Output = E>,
    Checked: Future<Output = ()>,
{
    if let Err(broken) = outcome(name, runtime, engine, check) {
        panic!("{broken}");
    }
}

/// As [`run`], for a store: closes it after the check.
#[doc(hidden)]
pub fn run_store<S: Store, Created, Checked>(
    name: &'static str,
    store: impl FnOnce(String) -> Created + Send + 'static,
    check: impl FnOnce(Arc<S>) -> Checked + Send + 'static,
) where
    Created: Future<Output = S>,
    Checked: Future<Output = ()>,
{
    run(name, store, |store: S| async {
        let store = Arc::new(store);
        check(store.clone()).await;
        store.close().await.expect("the store closes after the check");
    });
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime starts")
}

/// Runs a check in a new runtime and returns why its guarantee does not hold.
///
/// # Errors
/// The number of the guarantee, its words, and the message of the check.
#[doc(hidden)]
pub fn outcome<E, Created, Checked>(
    name: &'static str,
    runtime: impl FnOnce() -> Runtime + Send + 'static,
    engine: impl FnOnce(String) -> Created + Send + 'static,
    check: impl FnOnce(E) -> Checked + Send + 'static,
) -> Result<(), String>
where
    Created: Future<Output = E>,
    Checked: Future<Output = ()>,
{
    let (number, words) = name.split_once('_').unwrap_or((name, ""));
    let broken = |detail: &str| {
        format!("{} does not hold: {}\n{detail}", number.to_uppercase(), words.replace('_', " "))
    };
    let (progress, reported) = mpsc::channel();
    // A thread, because a check that never yields would also block a timer in its runtime.
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let runtime = runtime();
            let checked = || {
                runtime.block_on(async {
                    let engine = engine(number.to_owned()).await;
                    // An error means that the creation took too long and the caller has returned.
                    let _ = progress.send(Ok(()));
                    check(engine).await;
                });
            };
            let checked = catch_unwind(AssertUnwindSafe(checked));
            // Also after a panic: dropping a runtime waits for its blocking tasks, which may never end.
            runtime.shutdown_background();
            let _ = progress.send(checked.map_err(|panic| message(&*panic).to_owned()));
        })
        .expect("a thread starts");
    let ended = [(CREATION_LIMIT, "creation of the engine"), (CHECK_LIMIT, "check")];
    for (limit, what) in ended {
        match reported.recv_timeout(limit) {
            Ok(Ok(())) => {}
            Ok(Err(panic)) => return Err(broken(&panic)),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let seconds = limit.as_secs();
                return Err(broken(&format!(
                    "the {what} did not end within {seconds} s: a call never returns, or a loop makes no progress"
                )));
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Err(broken("the runtime of the check does not start"));
            }
        }
    }
    Ok(())
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("the check panicked without a message")
}
