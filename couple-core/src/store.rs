//! The port to storage: typed changes in, one transaction out.

use async_trait::async_trait;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    AccountId, Call, CoupleId, Error, ErrorKind, Failure, InviteId, JobId, MediaId, Ports, SessionId,
    Timestamp, TokenId, UploadId,
    account::{AccountChange, AccountReads},
    idempotency::{Idempotency, IdempotencyChange, IdempotencyReads, KeyReused, OutcomeRecord},
    job::{ClaimedJob, JobChange, JobReads},
    media::{MediaChange, MediaReads},
    pairing::{PairingChange, PairingReads},
    timeline::{TimelineChange, TimelineReads},
    upload::{UploadChange, UploadReads},
};

/// One typed change with its precondition. A list of them is one transaction.
///
/// A precondition of a change must cover every decision that a use case makes from a read; a change whose docs name no precondition is
/// right for every state of the store.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// To accounts, mailed tokens and sessions.
    Account(AccountChange),
    /// To invites, couples and blocks.
    Pairing(PairingChange),
    /// To a couple's log and read positions.
    Timeline(TimelineChange),
    /// To pictures and what is kept of them.
    Media(MediaChange),
    /// To resumable uploads.
    Upload(UploadChange),
    /// To the outbox.
    Job(JobChange),
    /// To the record of answered requests.
    Idempotency(IdempotencyChange),
}

macro_rules! from_area {
    ($($area:ident($change:ty),)+) => {$(
        impl From<$change> for Change {
            fn from(change: $change) -> Self { Self::$area(change) }
        }
    )+};
}
from_area! {
    Account(AccountChange),
    Pairing(PairingChange),
    Timeline(TimelineChange),
    Media(MediaChange),
    Upload(UploadChange),
    Job(JobChange),
    Idempotency(IdempotencyChange),
}

/// What a commit produced, in the order of the changes that produced it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Committed {
    /// The `seq` of each appended entry.
    pub seqs: Vec<i64>,
    /// The jobs that were claimed.
    pub claimed: Vec<ClaimedJob>,
    /// How many rows each purging or erasing change removed.
    pub purged: Vec<u64>,
}

/// Which precondition did not hold. The caller reads again and decides again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Conflict {
    /// An account with this address key, or this id, exists.
    #[error("account exists")]
    AccountExists,
    /// The account is gone or was changed since it was read.
    #[error("account {0} changed")]
    AccountChanged(AccountId),
    /// A token with this id exists.
    #[error("token {0} exists")]
    TokenExists(TokenId),
    /// The token is gone, used, or had another try since it was read.
    #[error("token {0} changed")]
    TokenChanged(TokenId),
    /// The session has ended.
    #[error("session {0} ended")]
    SessionEnded(SessionId),
    /// The tally has reached its bound.
    #[error("tally is full")]
    TallyFull,
    /// This account is in a couple.
    #[error("account {0} is paired")]
    Paired(AccountId),
    /// There is an open invite between the same two addresses.
    #[error("an open invite joins these addresses")]
    InviteCrossed,
    /// The invite is gone or no longer open.
    #[error("invite {0} is closed")]
    InviteClosed(InviteId),
    /// The account has as many open invites as it may have.
    #[error("account {0} has too many open invites")]
    TooManyInvites(AccountId),
    /// The couple lives but is not as it was read.
    #[error("couple {0} changed")]
    CoupleChanged(CoupleId),
    /// The couple is gone, has ended or is of another epoch.
    #[error("couple {0} ended")]
    CoupleEnded(CoupleId),
    /// The couple has not ended, so nothing of it may be erased.
    #[error("couple {0} lives")]
    CoupleLives(CoupleId),
    /// The author used this client id before.
    #[error("client id used")]
    ClientIdUsed,
    /// The entry is gone, a tombstone, or somebody else's.
    #[error("entry {0} cannot be changed")]
    EntryClosed(i64),
    /// The same picture is there.
    #[error("picture exists")]
    MediaExists,
    /// The picture is gone, or is not as it was read or as it must be.
    #[error("picture {0} changed")]
    MediaChanged(MediaId),
    /// The account's avatar is not the one that was read.
    #[error("avatar of account {0} changed")]
    AvatarChanged(AccountId),
    /// There is no room for it.
    #[error("quota exceeded")]
    QuotaExceeded,
    /// This account's space takes no more pictures.
    #[error("space of account {0} is closed")]
    SpaceClosed(AccountId),
    /// There is a picture in this account's space.
    #[error("space of account {0} is not empty")]
    SpaceNotEmpty(AccountId),
    /// The resumable upload does not exist, or is not as it was read: another request continued, finished or cancelled it.
    #[error("upload {0} changed")]
    UploadChanged(UploadId),
    /// The job's claim is not this worker's any more.
    #[error("claim of job {0} lost")]
    ClaimLost(JobId),
    /// There is no such dead job.
    #[error("no dead job {0}")]
    NoDeadJob(JobId),
    /// An answer to this idempotency key exists.
    #[error("idempotency key used")]
    KeyUsed,
}

/// Why a commit did not happen. Nothing of it was written.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// A precondition did not hold.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// The store failed. With [`ErrorKind::TimedOut`] the commit may still take effect.
    #[error(transparent)]
    Failed(#[from] Error),
}

/// Where everything is kept. An adapter is this trait and the reads it builds on.
///
/// What an adapter guarantees; each number is one test of the same name in `couple-conformance`:
///
/// * **S1** A commit is all or nothing: after a conflict or an error none of its changes is visible.
/// * **S2** Changes apply in order; a later one sees the earlier ones of its own commit.
/// * **S3** A commit that was answered `Ok` is seen by every read that starts afterwards, and survives the
///   end of the process where the adapter is durable.
/// * **S4** A caller that stops waiting does not stop its commit half way.
/// * **S5** One caller's conflict never fails or delays another's commit beyond the work it takes.
/// * **S6** An empty commit succeeds and changes nothing.
/// * **S7** Text is stored exactly: compared byte by byte, no trimming, no folding, any valid Unicode but NUL.
#[async_trait]
pub trait Store:
    AccountReads
    + PairingReads
    + TimelineReads
    + MediaReads
    + UploadReads
    + JobReads
    + IdempotencyReads
    + Send
    + Sync
    + 'static
{
    /// Applies `changes` in order as one transaction, all or none.
    ///
    /// # Errors
    /// [`CommitError::Conflict`] with the first precondition that did not hold, else
    /// [`CommitError::Failed`].
    async fn commit(&self, changes: Vec<Change>) -> Result<Committed, CommitError>;

    /// Asks the store whether it answers, for readiness probes.
    ///
    /// # Errors
    /// Whatever keeps it from answering.
    async fn ping(&self) -> Result<(), Error>;

    /// Lets go of files and connections, after what was committed before; nothing can be asked of it any more. What was
    /// answered is safe without it.
    ///
    /// # Errors
    /// Whatever keeps it from closing.
    async fn close(&self) -> Result<(), Error> {
        Ok(())
    }
}

#[async_trait]
impl<S: Store + ?Sized> Store for std::sync::Arc<S> {
    async fn commit(&self, changes: Vec<Change>) -> Result<Committed, CommitError> {
        (**self).commit(changes).await
    }
    async fn ping(&self) -> Result<(), Error> {
        (**self).ping().await
    }
    async fn close(&self) -> Result<(), Error> {
        (**self).close().await
    }
}

/// How often a use case reads and decides again before it gives up.
pub const MAX_ATTEMPTS: u32 = 12;

/// What the rules decided: what to write, and what to remember for a repeat of the same request.
#[derive(Debug)]
pub struct Decision<T> {
    /// To be committed as one transaction.
    pub changes: Vec<Change>,
    /// What the use case answers from; stored with an idempotency key, so it holds no secret.
    pub outcome: T,
}

/// The loop around read, decide, commit: replays an answered request, tries again on a conflict.
///
/// ```ignore
/// let mut work = Transaction::new(&ports, &call, now);
/// loop {
///     if let Some(outcome) = work.replay().await? { return answer(outcome) }
///     let decision = rules::decide(read().await?)?;
///     if let Some((committed, outcome)) = work.commit(decision).await? { return answer(outcome) }
/// }
/// ```
#[derive(Debug)]
pub struct Transaction<'a> {
    ports: &'a Ports,
    idempotency: Option<&'a Idempotency>,
    now: Timestamp,
    attempts: u32,
}

impl<'a> Transaction<'a> {
    /// Begins a use case at `now`.
    #[must_use]
    pub const fn new(ports: &'a Ports, call: &'a Call, now: Timestamp) -> Self {
        Self { ports, idempotency: call.idempotency.as_ref(), now, attempts: 0 }
    }

    /// The outcome of the same request answered before, if there is one.
    ///
    /// # Errors
    /// `KeyReused` when the key came with another request before; else the store's.
    pub async fn replay<T: DeserializeOwned, R: From<KeyReused>>(&self) -> Result<Option<T>, Failure<R>> {
        let Some(key) = self.idempotency else { return Ok(None) };
        match self.ports.store.outcome(&key.scope).await? {
            None => Ok(None),
            // A record past its end is one that the purge has not come to yet.
            Some(record) if record.expires_at <= self.now => Ok(None),
            Some(record) if record.request != key.request => Err(Failure::Refused(KeyReused.into())),
            Some(record) => serde_json::from_str(&record.outcome)
                .map(Some)
                .map_err(|_| Error::corrupt("outcome", "outcome", "an idempotency key").into()),
        }
    }

    /// Commits. `None` means that a precondition did not hold: read and decide again.
    ///
    /// # Errors
    /// The store's; [`ErrorKind::Overloaded`] after [`MAX_ATTEMPTS`] conflicts.
    pub async fn commit<T: Serialize>(
        &mut self,
        decision: Decision<T>,
    ) -> Result<Option<(Committed, T)>, Error> {
        let Decision { mut changes, outcome } = decision;
        if let Some(key) = self.idempotency {
            let text = serde_json::to_string(&outcome)
                .map_err(|e| Error::new(ErrorKind::Internal, "record outcome").source(e))?;
            changes.push(
                IdempotencyChange::Record(OutcomeRecord {
                    scope: key.scope,
                    request: key.request,
                    outcome: text,
                    recorded_at: self.now,
                    expires_at: self.now.plus(Idempotency::KEPT),
                })
                .into(),
            );
        }
        match self.ports.commit(changes).await {
            Ok(committed) => Ok(Some((committed, outcome))),
            Err(CommitError::Failed(error)) => Err(error),
            Err(CommitError::Conflict(conflict)) => {
                self.attempts += 1;
                if self.attempts >= MAX_ATTEMPTS {
                    return Err(Error::new(ErrorKind::Overloaded, "commit").source(conflict));
                }
                Ok(None)
            }
        }
    }
}
