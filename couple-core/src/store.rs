//! Storage port: a list of typed changes is committed as one transaction.

use crate::{
    AccountId, CoupleId, DateId, Error, HostStatements, InviteId, JobId, MediaId, SessionId, TokenId,
    UploadId,
    account::{AccountChange, AccountReads},
    date::{DateChange, DateReads},
    device::{DeviceChange, DeviceReads},
    idempotency::{IdempotencyChange, IdempotencyReads},
    job::{ClaimedJob, JobChange, JobReads},
    live::Topic,
    media::{MediaChange, MediaReads},
    notification::{NotificationChange, NotificationReads},
    pairing::{PairingChange, PairingReads},
    timeline::{NewEntry, TimelineChange, TimelineReads},
    upload::{UploadChange, UploadReads},
};
use async_trait::async_trait;

/// One typed change with its precondition. A commit is a list of changes.
///
/// The preconditions must cover every decision that a use case bases on a read. A change whose docs name no
/// precondition is valid in every state of the store.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Change to accounts, mailed tokens or sessions.
    Account(AccountChange),
    /// Change to invites, couples or blocks.
    Pairing(PairingChange),
    /// Change to the log or the read positions of a couple.
    Timeline(TimelineChange),
    /// Change to pictures, their sources or their renditions.
    Media(MediaChange),
    /// Change to resumable uploads.
    Upload(UploadChange),
    /// Change to devices.
    Device(DeviceChange),
    /// Change to the notification preferences of persons.
    Notification(NotificationChange),
    /// Change to the dates of couples.
    Date(DateChange),
    /// Change to the job queues.
    Job(JobChange),
    /// Change to the recorded outcomes of idempotency keys.
    Idempotency(IdempotencyChange),
    /// Statements of the host, for a store that made them. Another store fails the commit with
    /// [`ErrorKind::Misconfigured`](crate::ErrorKind::Misconfigured) and writes nothing.
    Host(HostStatements),
}

impl Change {
    /// Topics whose subscribers read again after the change.
    ///
    /// There is no wildcard arm: a new variant does not compile until its topics are declared.
    #[must_use]
    pub fn topics(&self) -> Vec<Topic> {
        match self {
            Self::Account(change) => match change {
                AccountChange::EndSession { account, .. }
                | AccountChange::EndSessions { account, .. }
                | AccountChange::Erase { id: account, .. } => vec![Topic::Account(*account)],
                AccountChange::Insert(_)
                | AccountChange::Update(_)
                | AccountChange::InsertToken(_)
                | AccountChange::RedeemToken { .. }
                | AccountChange::RequireToken { .. }
                | AccountChange::RedeemForm { .. }
                | AccountChange::CountTries { .. }
                | AccountChange::EndTokens { .. }
                | AccountChange::EndTokensOf { .. }
                | AccountChange::CountTally { .. }
                | AccountChange::PutTally { .. }
                | AccountChange::RequireTally { .. }
                | AccountChange::InsertSession { .. }
                | AccountChange::TouchSession { .. }
                | AccountChange::SetWidgetToken { .. }
                | AccountChange::PurgeTallies { .. }
                | AccountChange::PurgeTokens { .. }
                | AccountChange::PurgeSessions { .. } => Vec::new(),
            },
            Self::Pairing(change) => match change {
                PairingChange::Pair(couple) => couple.members.map(Topic::Account).into(),
                PairingChange::FinishErasure { person, .. } => vec![Topic::Account(*person)],
                PairingChange::End { id, .. } | PairingChange::Describe { id, .. } => {
                    vec![Topic::Couple(*id)]
                }
                // Their commits append an entry, if clients are to learn of them.
                PairingChange::Restore { .. }
                | PairingChange::InsertInvite { .. }
                | PairingChange::CloseInvite { .. }
                | PairingChange::WithdrawInvitesOf { .. }
                | PairingChange::ExpectUnpaired { .. }
                | PairingChange::Block(_)
                | PairingChange::Unblock { .. }
                | PairingChange::Forget { .. }
                | PairingChange::SetErasure { .. }
                | PairingChange::Anonymize { .. }
                | PairingChange::PurgeInvites { .. } => Vec::new(),
            },
            Self::Timeline(change) => match change {
                TimelineChange::Append { couple, .. } | TimelineChange::MarkRead { couple, .. } => {
                    vec![Topic::Couple(*couple)]
                }
                // A commit that edits, deletes or reacts also appends an entry, which notifies.
                TimelineChange::Edit { .. }
                | TimelineChange::Delete { .. }
                | TimelineChange::React { .. }
                | TimelineChange::Erase { .. } => Vec::new(),
            },
            Self::Job(change) => match change {
                JobChange::Enqueue(job) => vec![Topic::Queue(job.queue.clone())],
                JobChange::Claim { .. }
                | JobChange::ClaimAbandoned { .. }
                | JobChange::Renew { .. }
                | JobChange::Finish { .. }
                | JobChange::Retry { .. }
                | JobChange::Defer { .. }
                | JobChange::Bury { .. }
                | JobChange::Replay { .. }
                | JobChange::PurgeDead { .. } => Vec::new(),
            },
            Self::Media(
                MediaChange::Insert { .. }
                | MediaChange::Finish { .. }
                | MediaChange::Reject { .. }
                | MediaChange::Use { .. }
                | MediaChange::Release(_)
                | MediaChange::Delete(_)
                | MediaChange::AddRendition { .. }
                | MediaChange::Touch { .. }
                | MediaChange::Forget { .. }
                | MediaChange::SetAvatar { .. }
                | MediaChange::Close { .. },
            )
            | Self::Upload(
                UploadChange::Insert { .. }
                | UploadChange::Claim { .. }
                | UploadChange::Append { .. }
                | UploadChange::TakeOver { .. }
                | UploadChange::Finish { .. }
                | UploadChange::ExpireOf { .. }
                | UploadChange::Remove { .. },
            )
            | Self::Device(
                DeviceChange::Put { .. }
                | DeviceChange::Remove { .. }
                | DeviceChange::RemoveOf { .. }
                | DeviceChange::Retire { .. },
            )
            | Self::Notification(NotificationChange::Put(_) | NotificationChange::Remove { .. })
            // Their commits append an entry.
            | Self::Date(DateChange::Put { .. } | DateChange::Remove { .. })
            | Self::Idempotency(IdempotencyChange::Record(_) | IdempotencyChange::Purge { .. })
            | Self::Host(_) => Vec::new(),
        }
    }

    /// Couple and entry of a change that appends an entry.
    #[must_use]
    pub const fn appended(&self) -> Option<(CoupleId, &NewEntry)> {
        match self {
            Self::Timeline(TimelineChange::Append { couple, entry }) => Some((*couple, entry)),
            Self::Timeline(
                TimelineChange::Edit { .. }
                | TimelineChange::Delete { .. }
                | TimelineChange::React { .. }
                | TimelineChange::MarkRead { .. }
                | TimelineChange::Erase { .. },
            )
            | Self::Account(_)
            | Self::Pairing(_)
            | Self::Media(_)
            | Self::Upload(_)
            | Self::Device(_)
            | Self::Notification(_)
            | Self::Date(_)
            | Self::Job(_)
            | Self::Idempotency(_)
            | Self::Host(_) => None,
        }
    }
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
    Device(DeviceChange),
    Notification(NotificationChange),
    Date(DateChange),
    Job(JobChange),
    Idempotency(IdempotencyChange),
    Host(HostStatements),
}

/// Result of one change of a commit.
#[derive(Debug, Clone, PartialEq)]
pub enum ChangeResult {
    /// The change was applied and returns no data.
    Applied,
    /// `seq` of the entry that [`TimelineChange::Append`] appended.
    Appended {
        /// Position of the entry in the log of its couple.
        seq: i64,
    },
    /// Jobs that [`JobChange::Claim`] or [`JobChange::ClaimAbandoned`] claimed, earliest due time first.
    Claimed(Vec<ClaimedJob>),
    /// Number of rows that a change with a `cap` removed or erased.
    RowsAffected(u64),
}

/// Results of a commit: one [`ChangeResult`] for each change, in the order of the changes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Committed {
    results: Vec<ChangeResult>,
}

impl Committed {
    /// Result of each change, in the order of the changes.
    #[must_use]
    pub fn results(&self) -> &[ChangeResult] {
        &self.results
    }

    /// The first `count` results.
    pub(crate) fn first(mut self, count: usize) -> Self {
        self.results.truncate(count);
        self
    }

    /// `seq` of each appended entry, in order.
    pub fn appended_seqs(&self) -> impl Iterator<Item = i64> + '_ {
        self.results.iter().filter_map(|result| match result {
            ChangeResult::Appended { seq } => Some(*seq),
            ChangeResult::Applied | ChangeResult::Claimed(_) | ChangeResult::RowsAffected(_) => None,
        })
    }

    /// All claimed jobs, in order.
    #[must_use]
    pub fn into_claimed_jobs(self) -> Vec<ClaimedJob> {
        let claimed = self.results.into_iter().filter_map(|result| match result {
            ChangeResult::Claimed(jobs) => Some(jobs),
            ChangeResult::Applied | ChangeResult::Appended { .. } | ChangeResult::RowsAffected(_) => None,
        });
        claimed.flatten().collect()
    }

    /// Total number of rows that the changes with a `cap` removed or erased.
    #[must_use]
    pub fn rows_affected(&self) -> u64 {
        let rows = self.results.iter().map(|result| match result {
            ChangeResult::RowsAffected(rows) => *rows,
            ChangeResult::Applied | ChangeResult::Appended { .. } | ChangeResult::Claimed(_) => 0,
        });
        rows.sum()
    }
}

impl FromIterator<ChangeResult> for Committed {
    fn from_iter<I: IntoIterator<Item = ChangeResult>>(results: I) -> Self {
        Self { results: results.into_iter().collect() }
    }
}

/// Precondition that did not hold. The caller reads and decides again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Conflict {
    /// An account with this address key or this id exists.
    #[error("account exists")]
    AccountExists,
    /// The account does not exist, or was changed since it was read.
    #[error("account {0} changed")]
    AccountChanged(AccountId),
    /// A token with this id or this link exists.
    #[error("token {0} exists")]
    TokenExists(TokenId),
    /// The token does not exist, is used, or had another attempt since it was read.
    #[error("token {0} changed")]
    TokenChanged(TokenId),
    /// The session has ended.
    #[error("session {0} ended")]
    SessionEnded(SessionId),
    /// The account has a session with this id, or a session with this bearer token exists.
    #[error("session {0} exists")]
    SessionExists(SessionId),
    /// The account has reached its limit of sessions with a widget token.
    #[error("account {0} has too many widget tokens")]
    TooManyWidgetTokens(AccountId),
    /// The tally has reached its limit.
    #[error("tally is full")]
    TallyFull,
    /// The account is in a couple.
    #[error("account {0} is paired")]
    Paired(AccountId),
    /// An invite with this id, code or link exists.
    #[error("invite {0} exists")]
    InviteExists(InviteId),
    /// There is an open invite between the same two addresses.
    #[error("an open invite joins these addresses")]
    InviteCrossed,
    /// The invite does not exist or is no longer open.
    #[error("invite {0} is closed")]
    InviteClosed(InviteId),
    /// The account has reached its limit of open invites.
    #[error("account {0} has too many open invites")]
    TooManyInvites(AccountId),
    /// The couple has not ended, but was changed since it was read.
    #[error("couple {0} changed")]
    CoupleChanged(CoupleId),
    /// The couple does not exist, has ended, or has another epoch.
    #[error("couple {0} ended")]
    CoupleEnded(CoupleId),
    /// The couple has not ended, so none of its data may be erased.
    #[error("couple {0} has not ended")]
    CoupleLives(CoupleId),
    /// The author has used this client id before.
    #[error("client id used")]
    ClientIdUsed,
    /// The entry does not exist, is a tombstone, or has another author.
    #[error("entry {0} cannot be changed")]
    EntryClosed(i64),
    /// A picture with this id exists.
    #[error("picture exists")]
    MediaExists,
    /// The picture does not exist, was changed since it was read, or has the wrong state.
    #[error("picture {0} changed")]
    MediaChanged(MediaId),
    /// The avatar of the account was changed since it was read.
    #[error("avatar of account {0} changed")]
    AvatarChanged(AccountId),
    /// The space has no room for the change.
    #[error("quota exceeded")]
    QuotaExceeded,
    /// The space of the account takes no more pictures.
    #[error("space of account {0} is closed")]
    SpaceClosed(AccountId),
    /// The space of the account holds a picture.
    #[error("space of account {0} is not empty")]
    SpaceNotEmpty(AccountId),
    /// The resumable upload does not exist, or another request continued, finished or cancelled it.
    #[error("upload {0} changed")]
    UploadChanged(UploadId),
    /// The account has reached its limit of devices.
    #[error("account {0} has too many devices")]
    TooManyDevices(AccountId),
    /// The notification preferences of the person have another version than the one that was read.
    #[error("preferences of {0} changed")]
    PreferencesChanged(AccountId),
    /// The date has another version than the one that was read.
    #[error("date {0} changed")]
    DateChanged(DateId),
    /// The couple has reached its limit of dates.
    #[error("couple {0} has too many dates")]
    TooManyDates(CoupleId),
    /// The worker no longer holds the claim of the job.
    #[error("claim of job {0} lost")]
    ClaimLost(JobId),
    /// There is no dead job with this id.
    #[error("no dead job {0}")]
    NoDeadJob(JobId),
    /// An outcome of this idempotency key exists.
    #[error("idempotency key used")]
    KeyUsed,
}

macro_rules! conflict_names {
    ($($name:ident $(($value:tt))?),+ $(,)?) => {
        impl Conflict {
            /// Names of all variants: a test can check that it reached each of them, although the enum is open.
            #[doc(hidden)]
            pub const NAMES: &[&str] = &[$(stringify!($name)),+];

            /// Name of the variant. There is no wildcard arm: a new variant does not compile until it has a name.
            #[doc(hidden)]
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self { $(Self::$name $(($value))? => stringify!($name)),+ }
            }
        }
    };
}
conflict_names! {
    AccountExists, AccountChanged(_), TokenExists(_), TokenChanged(_), SessionEnded(_), SessionExists(_), TooManyWidgetTokens(_), TallyFull, Paired(_),
    InviteCrossed, InviteClosed(_), TooManyInvites(_), InviteExists(_), CoupleChanged(_), CoupleEnded(_), CoupleLives(_),
    ClientIdUsed, EntryClosed(_), MediaExists, MediaChanged(_), AvatarChanged(_), QuotaExceeded, SpaceClosed(_),
    SpaceNotEmpty(_), UploadChanged(_), TooManyDevices(_), PreferencesChanged(_), DateChanged(_), TooManyDates(_), ClaimLost(_), NoDeadJob(_), KeyUsed,
}

/// Failure of a commit. Nothing was written, except possibly after [`ErrorKind::TimedOut`](crate::ErrorKind::TimedOut).
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// A precondition did not hold.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// The store failed. With [`ErrorKind::TimedOut`](crate::ErrorKind::TimedOut) the commit may still take effect.
    #[error(transparent)]
    Failed(#[from] Error),
}

/// Storage of all data. An adapter implements this trait and its supertraits.
///
/// An adapter gives these guarantees, to all processes that share its data together; `couple-conformance` has one test of
/// the same name for each number:
///
/// * **S1** A commit is atomic: after a conflict or an error none of its changes is visible.
/// * **S2** Changes apply in order; a change sees the earlier changes of the same commit.
/// * **S3** Every read that starts after a commit returned `Ok` sees the commit. In a durable adapter the
///   commit survives the end of the process.
/// * **S4** A caller that is cancelled does not interrupt its commit.
/// * **S5** A conflict of one caller never fails another caller's commit, and delays it only by the work it
///   takes.
/// * **S6** An empty commit succeeds and changes nothing.
/// * **S7** Text is stored exactly: compared byte by byte, without trimming or case folding; any valid
///   Unicode but NUL.
/// * **S8** A commit returns exactly one result for each change, in the order of the changes, however many
///   commits run concurrently, and in whichever order they write the same rows.
/// * **S9** A commit with statements of a host that the store does not know ([`Change::Host`]) fails with
///   [`ErrorKind::Misconfigured`](crate::ErrorKind::Misconfigured), if no earlier change conflicts, and
///   writes nothing.
/// * **S10** A commit of 1,000 changes succeeds.
/// * **S11** Reads are isolated by commits: once a read has seen one change of a commit, reads that start
///   afterwards see all of its changes. Two reads do not belong to one transaction.
/// * **S12** [`close`](Store::close) waits for the commits that were started before, and succeeds, also a
///   second time.
/// * **S13** A durable store that is opened again has every acknowledged commit, also if it was not closed.
/// * **S14** While its engine has failed, each call fails within 10 seconds, [`ping`](Store::ping) too, with
///   [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable), [`ErrorKind::TimedOut`](crate::ErrorKind::TimedOut) or
///   [`ErrorKind::Overloaded`](crate::ErrorKind::Overloaded): callers retry.
/// * **S15** A store uses only the times in changes and reads, never its own clock. They may be in any year from
///   1900 to 2200, and may go back from one commit to the next: `seq` orders a log, not time.
/// * **S16** When its engine works again after an outage, a store over a server works again within 10 seconds, without being
///   opened again, and has every acknowledged commit.
///
/// The guarantees hold for all processes of a deployment together: none depends on a lock or a cache within one process.
/// In particular, two different changes of one row that are committed concurrently have the effect of one after the
/// other: none is applied to an older state than the one that it overwrites, and each precondition is checked in the
/// state that the change is applied to.
#[async_trait]
pub trait Store:
    AccountReads
    + PairingReads
    + TimelineReads
    + MediaReads
    + UploadReads
    + DeviceReads
    + NotificationReads
    + DateReads
    + JobReads
    + IdempotencyReads
    + Send
    + Sync
    + 'static
{
    /// Applies `changes` in order as one transaction, all or none.
    ///
    /// # Errors
    /// [`CommitError::Conflict`] with the first precondition that did not hold, else [`CommitError::Failed`].
    async fn commit(&self, changes: Vec<Change>) -> Result<Committed, CommitError>;

    /// Checks that the store responds, for readiness probes.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) or another error of the store.
    async fn ping(&self) -> Result<(), Error>;

    /// Number of restarts of the store's tasks after a panic, since the store was opened.
    ///
    /// Commits that such a task held have failed with an unknown outcome. Always 0 for a store without tasks.
    fn writer_restarts(&self) -> u64 {
        0
    }

    /// Closes files and connections after the commits that were started before.
    ///
    /// The store cannot be used afterwards.
    ///
    /// Not needed for durability: a commit that returned `Ok` is already safe.
    ///
    /// # Errors
    /// Errors on closing.
    async fn close(&self) -> Result<(), Error> {
        Ok(())
    }
}

crate::delegate_reads!([S: Store + ?Sized] std::sync::Arc<S>, |store| **store);

#[async_trait]
impl<S: Store + ?Sized> Store for std::sync::Arc<S> {
    async fn commit(&self, changes: Vec<Change>) -> Result<Committed, CommitError> {
        (**self).commit(changes).await
    }
    async fn ping(&self) -> Result<(), Error> {
        (**self).ping().await
    }
    fn writer_restarts(&self) -> u64 {
        (**self).writer_restarts()
    }
    async fn close(&self) -> Result<(), Error> {
        (**self).close().await
    }
}
