//! Outages: adapters whose engine a check stops and starts again.

use std::time::Duration;

use couple_core::{Error, ErrorKind};
use tokio::time::{Instant, sleep, timeout};

/// Maximum duration of a call during an outage.
pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(10);

/// Maximum time after an outage until calls succeed again.
const RECOVERY_LIMIT: Duration = Duration::from_secs(10);

/// Adapter whose engine fails and works again while it is used, for the option `outage:` of a macro.
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicBool, Ordering}};
///
/// let server_is_down = Arc::new(AtomicBool::new(false));
/// let adapter = "an adapter that uses the server";
/// couple_conformance::Breakable::new(adapter, move |fails| server_is_down.store(fails, Ordering::SeqCst));
/// ```
pub struct Breakable<E> {
    engine: E,
    outage: Outage,
}

/// Begins and ends the outage of an engine.
pub(crate) struct Outage(Box<dyn Fn(bool) + Send + Sync>);

impl<E> Breakable<E> {
    /// Takes an adapter that works, and a function that stops its engine (`true`) or starts it again (`false`).
    ///
    /// A proxy that closes its connections and refuses new ones is such an engine.
    pub fn new(engine: E, outage: impl Fn(bool) + Send + Sync + 'static) -> Self {
        Self { engine, outage: Outage(Box::new(outage)) }
    }

    pub(crate) fn into_parts(self) -> (E, Outage) {
        (self.engine, self.outage)
    }
}

impl Outage {
    pub(crate) fn begin(&self) {
        (self.0)(true);
    }

    pub(crate) fn end(&self) {
        (self.0)(false);
    }
}

/// Requires that an error reports an outage: callers retry.
pub(crate) fn require_outage(call: &str, error: &Error) {
    let kind = error.kind();
    let is_outage = matches!(kind, ErrorKind::Unavailable | ErrorKind::TimedOut | ErrorKind::Overloaded);
    assert!(is_outage, "{call} reports an outage as {kind:?}: {error}");
}

/// Waits for a call that must fail.
pub(crate) async fn fails<T>(call: &str, result: impl Future<Output = Result<T, Error>>) {
    match timeout(CALL_LIMIT, result).await {
        Err(_) => panic!("{call} does not return during an outage"),
        Ok(Ok(_)) => panic!("{call} succeeds during an outage"),
        Ok(Err(error)) => require_outage(call, &error),
    }
}

/// Repeats a call after an outage until it returns a value, and fails with `what` after 10 seconds.
pub(crate) async fn recovers<T>(what: &str, mut call: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Ok(Some(value)) = timeout(CALL_LIMIT, call()).await {
            return value;
        }
        assert!(start.elapsed() < RECOVERY_LIMIT, "{what}, 10 s after an outage");
        sleep(Duration::from_millis(50)).await;
    }
}
