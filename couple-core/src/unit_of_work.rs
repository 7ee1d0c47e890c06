//! Read–decide–commit loop of the use cases.

use std::convert::Infallible;

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Change, CommitError, Committed, Error, ErrorKind, Failure, Ports, RequestContext, Timestamp,
    idempotency::{Idempotency, IdempotencyChange, KeyReused, OutcomeRecord},
};

/// Maximum number of times that a use case reads, decides and commits.
pub const MAX_ATTEMPTS: u32 = 12;

/// Decision of a use case from the facts that it read.
#[derive(Debug)]
pub enum Decision<T, A> {
    /// Changes to commit as one transaction.
    Commit {
        /// The changes.
        changes: Vec<Change>,
        /// Data from which a repeated request is answered.
        ///
        /// Recorded under the idempotency key, so it holds no secret.
        outcome: T,
        /// Answer if the commit succeeds.
        answer: A,
    },
    /// Answer without a commit, because there is nothing to change.
    Answer(A),
}

impl<A> Decision<(), A> {
    /// Commits `changes` and records no data beside the fact.
    #[must_use]
    pub const fn commit(changes: Vec<Change>, answer: A) -> Self {
        Self::Commit { changes, outcome: (), answer }
    }
}

/// Result of [`UnitOfWork::run`].
#[derive(Debug)]
pub enum Completed<T, A> {
    /// The changes were committed.
    Committed(A, Committed),
    /// There was nothing to change.
    Unchanged(A),
    /// The same request was answered before; this is its recorded outcome.
    Replayed(T),
}

/// Runs a use case: reads facts, decides, commits, and starts again after a conflict.
///
/// * The rate limits are taken once per request, after the look-up of a recorded outcome and before the first
///   read. So neither a repeated request nor a conflict costs a second token.
/// * `read` makes all reads and all expensive computations. After a conflict it gets the facts of the previous
///   attempt, so that it need not hash a password again.
/// * `decide` is a pure function of the facts.
///
/// ```ignore
/// let work = UnitOfWork::new(&self.ports);
/// let completed = work
///     .run(
///         context,
///         self.ports.allow(&[(WRITE_PER_ACCOUNT, key)]),
///         async |(), _previous| Ok(self.ports.store.couple_of(account).await?),
///         |(), couple| {
///             let (answer, changes) = rules::rename(couple.as_ref(), title).map_err(Failure::Refused)?;
///             Ok(Decision::Commit { changes, outcome: answer.id, answer })
///         },
///     )
///     .await?;
/// ```
#[derive(Debug, Clone, Copy)]
pub struct UnitOfWork<'a> {
    ports: &'a Ports,
    now: Timestamp,
}

impl<'a> UnitOfWork<'a> {
    /// Starts a use case at the current time.
    #[must_use]
    pub fn new(ports: &'a Ports) -> Self {
        Self { ports, now: ports.now() }
    }

    /// Time of the use case, the same for all attempts.
    #[must_use]
    pub const fn now(&self) -> Timestamp {
        self.now
    }

    /// Runs a use case whose repeats with the same idempotency key have no further effect.
    ///
    /// A recorded outcome also takes precedence over a refusal: the same request, running concurrently, may have
    /// used up the token or the invite.
    ///
    /// # Errors
    /// Refusals of the limits, of `read` and of `decide`; `KeyReused` when the key was used for another request;
    /// errors of the store; [`ErrorKind::Overloaded`] after [`MAX_ATTEMPTS`] conflicts.
    pub async fn run<L, F, Read, T, A, R>(
        &self,
        context: &RequestContext,
        limits: impl Future<Output = Result<L, Failure<R>>>,
        read: impl Fn(L, Option<F>) -> Read,
        decide: impl Fn(&L, &F) -> Result<Decision<T, A>, Failure<R>>,
    ) -> Result<Completed<T, A>, Failure<R>>
    where
        L: Clone,
        Read: Future<Output = Result<F, Failure<R>>>,
        T: Serialize + DeserializeOwned,
        R: From<KeyReused>,
    {
        let key = context.idempotency.as_ref();
        if let Some(outcome) = self.recorded(key).await? {
            return Ok(Completed::Replayed(outcome));
        }
        let admitted = limits.await?;
        let attempts = self.attempts(
            key,
            |previous| read(admitted.clone(), previous),
            |facts| decide(&admitted, facts),
            async || self.recorded(key).await,
        );
        match attempts.await {
            Err(Failure::Refused(refusal)) => match self.recorded(key).await? {
                Some(outcome) => Ok(Completed::Replayed(outcome)),
                None => Err(Failure::Refused(refusal)),
            },
            completed => completed,
        }
    }

    /// Runs a use case that needs no idempotency key.
    ///
    /// Repeats of its request have no further effect or are refused. The caller takes the rate limits before.
    ///
    /// # Errors
    /// Refusals and errors of `read` and `decide`; errors of the store; [`ErrorKind::Overloaded`] after
    /// [`MAX_ATTEMPTS`] conflicts.
    pub async fn run_unkeyed<F, Read, A, E>(
        &self,
        read: impl Fn(Option<F>) -> Read,
        decide: impl Fn(&F) -> Result<Decision<(), A>, E>,
    ) -> Result<A, E>
    where
        Read: Future<Output = Result<F, E>>,
        E: From<Error>,
    {
        let completed = self.attempts(None, read, decide, async || Ok(None::<Infallible>)).await?;
        Ok(match completed {
            Completed::Committed(answer, _) | Completed::Unchanged(answer) => answer,
            Completed::Replayed(never) => match never {},
        })
    }

    /// The loop of both: `replay` finds the outcome that a concurrent request with the same key recorded.
    async fn attempts<F, Read, T, O, Replay, A, E>(
        &self,
        key: Option<&Idempotency>,
        read: impl Fn(Option<F>) -> Read,
        decide: impl Fn(&F) -> Result<Decision<T, A>, E>,
        replay: impl Fn() -> Replay,
    ) -> Result<Completed<O, A>, E>
    where
        Read: Future<Output = Result<F, E>>,
        Replay: Future<Output = Result<Option<O>, E>>,
        T: Serialize,
        E: From<Error>,
    {
        let mut previous = None;
        let mut attempt = 1;
        loop {
            let facts = read(previous).await?;
            let (mut changes, outcome, answer) = match decide(&facts)? {
                Decision::Answer(answer) => return Ok(Completed::Unchanged(answer)),
                Decision::Commit { changes, outcome, answer } => (changes, outcome, answer),
            };
            if let Some(key) = key {
                changes.push(self.record(key, &outcome)?);
            }
            match self.ports.commit(changes).await {
                Ok(committed) => return Ok(Completed::Committed(answer, committed)),
                Err(CommitError::Failed(error)) => return Err(error.into()),
                Err(CommitError::Conflict(conflict)) if attempt == MAX_ATTEMPTS => {
                    return Err(Error::new(ErrorKind::Overloaded, "commit").source(conflict).into());
                }
                Err(CommitError::Conflict(_)) => {}
            }
            if let Some(outcome) = replay().await? {
                return Ok(Completed::Replayed(outcome));
            }
            attempt += 1;
            previous = Some(facts);
        }
    }

    /// Recorded outcome of the same request, if the request was answered before.
    async fn recorded<T: DeserializeOwned, R: From<KeyReused>>(
        &self,
        key: Option<&Idempotency>,
    ) -> Result<Option<T>, Failure<R>> {
        let Some(key) = key else { return Ok(None) };
        match self.ports.store.outcome(&key.scope).await? {
            None => Ok(None),
            // The record has expired; the purge has not removed it yet.
            Some(record) if record.expires_at <= self.now => Ok(None),
            Some(record) if record.request != key.request => Err(Failure::Refused(KeyReused.into())),
            Some(record) => serde_json::from_str(&record.outcome)
                .map(Some)
                .map_err(|_| Error::corrupt("outcome", "outcome", "an idempotency key").into()),
        }
    }

    /// Change that records the outcome under the key.
    fn record<T: Serialize>(&self, key: &Idempotency, outcome: &T) -> Result<Change, Error> {
        let outcome = serde_json::to_string(outcome)
            .map_err(|e| Error::new(ErrorKind::Internal, "record outcome").source(e))?;
        Ok(IdempotencyChange::Record(OutcomeRecord {
            scope: key.scope,
            request: key.request,
            outcome,
            recorded_at: self.now,
            expires_at: self.now.plus(Idempotency::RETENTION),
        })
        .into())
    }
}
