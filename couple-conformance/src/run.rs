//! Runs checks: each in its own thread and runtime, with a time limit, and with a message that states the guarantee.

use std::{
    any::Any,
    cell::Cell,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use couple_core::Store;
use tokio::runtime::{Builder, Runtime};

/// Default of the maximum duration of a check, without the creation of its engine.
///
/// The environment variable `COUPLE_CHECK_SECONDS`, a whole number from 1 to 3600, sets another one: an adapter of a remote service may need more.
pub const CHECK_LIMIT: Duration = Duration::from_secs(30);

/// Maximum duration of a check, given the value of `COUPLE_CHECK_SECONDS`.
fn check_limit(seconds: Option<&str>) -> Duration {
    let Some(text) = seconds else { return CHECK_LIMIT };
    match text.parse() {
        Ok(seconds @ 1..=3_600) => Duration::from_secs(seconds),
        _ => panic!("COUPLE_CHECK_SECONDS is {text:?} instead of a whole number from 1 to 3600"),
    }
}

/// Maximum duration of the creation of an engine.
const CREATION_LIMIT: Duration = Duration::from_mins(2);

/// Number of attempts of a check whose store is too slow to answer its commits.
const MAX_ATTEMPTS: u32 = 4;

/// Number of commits that each attempt may run concurrently.
const MIN_CONCURRENT_COMMITS: usize = 8;

thread_local! {
    /// Number of the attempt of the check that runs in this thread.
    static ATTEMPT: Cell<u32> = const { Cell::new(1) };
}

/// Panic of a check whose store gave up a commit after waiting: a busy machine, or a fault.
struct Unanswered(String);

/// Ends this attempt of the check. It is repeated on a new store, with half as many concurrent commits, because it cannot know whether
/// the commit takes effect. After the last attempt the check fails with `message`.
pub(crate) fn repeat_check(message: String) -> ! {
    // No message of the panic hook: a later attempt may succeed.
    resume_unwind(Box::new(Unanswered(message)))
}

/// Number of `count` commits that run concurrently in this attempt.
pub(crate) fn concurrent_commits(count: usize) -> usize {
    (count >> (ATTEMPT.get() - 1)).max(MIN_CONCURRENT_COMMITS).min(count)
}

/// Creates an engine, runs the check `name` on it, and panics with the guarantee if the check fails or does not end within
/// [`CHECK_LIMIT`]. The macros of this crate define one test function for each check, which calls this.
///
/// `engine` gets the number of the check in lower case, such as `s1`. A suite in which all checks share one server can use it as a prefix.
///
/// A check of a store that gives up a commit after a second or more, as overloaded or timed out, is repeated up to three times, each time on a
/// new store, such as `s1r2`, and with half as many concurrent commits.
#[doc(hidden)]
pub fn run<E, Created, Checked>(
    name: &'static str,
    engine: impl Fn(String) -> Created + Send + 'static,
    check: impl Fn(E) -> Checked + Send + 'static,
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
    store: impl Fn(String) -> Created + Send + 'static,
    check: impl Fn(Arc<S>) -> Checked + Send + 'static,
) where
    Created: Future<Output = S>,
    Checked: Future<Output = ()>,
{
    run(name, store, move |store: S| {
        let store = Arc::new(store);
        let checked = check(store.clone());
        async move {
            checked.await;
            store.close().await.expect("the store closes after the check");
        }
    });
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime starts")
}

/// Progress of the thread that runs a check.
enum Progress {
    Created,
    /// The check begins again.
    Repeated,
    Ended(Result<(), String>),
}

/// Runs a check in a new runtime and returns why its guarantee does not hold.
///
/// # Errors
/// The number of the guarantee, its words, and the message of the check.
#[doc(hidden)]
pub fn outcome<E, Created, Checked>(
    name: &'static str,
    runtime: impl Fn() -> Runtime + Send + 'static,
    engine: impl Fn(String) -> Created + Send + 'static,
    check: impl Fn(E) -> Checked + Send + 'static,
) -> Result<(), String>
where
    Created: Future<Output = E>,
    Checked: Future<Output = ()>,
{
    let seconds = std::env::var("COUPLE_CHECK_SECONDS").ok();
    outcome_within(check_limit(seconds.as_deref()), name, runtime, engine, check)
}

/// As [`outcome`], with the maximum duration of the check.
fn outcome_within<E, Created, Checked>(
    check_limit: Duration,
    name: &'static str,
    runtime: impl Fn() -> Runtime + Send + 'static,
    engine: impl Fn(String) -> Created + Send + 'static,
    check: impl Fn(E) -> Checked + Send + 'static,
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
            // An error of `send` means that an attempt took too long and the caller has returned.
            let report = |step| drop(progress.send(step));
            for attempt in 1..=MAX_ATTEMPTS {
                ATTEMPT.set(attempt);
                let suffix = if attempt == 1 { String::new() } else { format!("r{attempt}") };
                let runtime = runtime();
                let checked = || {
                    runtime.block_on(async {
                        let engine = engine(format!("{number}{suffix}")).await;
                        report(Progress::Created);
                        check(engine).await;
                    });
                };
                let checked = catch_unwind(AssertUnwindSafe(checked));
                // Also after a panic: dropping a runtime waits for its blocking tasks, which may never end.
                runtime.shutdown_background();
                match checked {
                    Err(panic) if panic.is::<Unanswered>() && attempt < MAX_ATTEMPTS => {
                        report(Progress::Repeated);
                    }
                    checked => {
                        return report(Progress::Ended(checked.map_err(|panic| message(&*panic).to_owned())));
                    }
                }
            }
        })
        .expect("a thread starts");
    let (creation, check) = ((CREATION_LIMIT, "creation of the engine"), (check_limit, "check"));
    let (mut limit, mut what) = creation;
    loop {
        match reported.recv_timeout(limit) {
            Ok(Progress::Created) => (limit, what) = check,
            Ok(Progress::Repeated) => (limit, what) = creation,
            Ok(Progress::Ended(result)) => return result.map_err(|panic| broken(&panic)),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let seconds = limit.as_secs();
                return Err(broken(&format!(
                    "the {what} did not end within {seconds} s: a call never returns, a loop makes no progress, or the adapter is too slow for this build and machine"
                )));
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Err(broken("the runtime of the check does not start"));
            }
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    if let Some(Unanswered(text)) = panic.downcast_ref() {
        return text;
    }
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("the check panicked without a message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_limit_of_a_check_is_an_option() {
        let seconds = |text| check_limit(Some(text)).as_secs();
        assert_eq!([check_limit(None).as_secs(), seconds("1"), seconds("3600")], [30, 1, 3_600]);
        for wrong in ["", "0", "3601", "30s", "-1", "1.5"] {
            let panic = catch_unwind(|| check_limit(Some(wrong))).unwrap_err();
            assert!(message(&*panic).contains("COUPLE_CHECK_SECONDS"), "{wrong}");
        }
    }

    #[test]
    fn check_that_exceeds_its_time_limit_fails() {
        let limit = Duration::from_millis(1_000);
        let hangs = |()| std::future::pending();
        let broken = outcome_within(limit, "s1_commit_is_atomic", runtime, |_| async {}, hangs).unwrap_err();
        assert!(broken.contains("the check did not end within 1 s"), "{broken}");
    }
}
