//! Ports of live delivery: the event bus, presence, and the check of followed sessions.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{
    AccountId, CoupleId, Error, Principal,
    pairing::Side,
    timeline::{Body, Entry},
};

/// Subject of a notice.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Topic {
    /// Log, read positions and signals of a couple.
    Couple(CoupleId),
    /// Sessions of an account.
    Account(AccountId),
    /// Queue of jobs.
    Queue(String),
}

/// Hint that data in the store changed. It may be lost, duplicated or reordered, so receivers read the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "RemoteNotice")]
pub enum Notice {
    /// Data of the topic may have changed; the receiver reads the store.
    Changed,
    /// An entry was appended to the log of a couple, and nothing else was written.
    ///
    /// A receiver that has read the log up to the previous entry need not read the store. Only within a
    /// process: for other processes the notice is serialized as [`Changed`](Self::Changed), so the bus never
    /// carries the content of entries.
    #[serde(skip_deserializing)]
    Appended(Arc<Entry>),
    /// A member who was away is present now: read [`Presence`].
    Here(Side),
    /// The last connection of a member to one process has ended.
    ///
    /// A process to which the member has another connection renews the lease; others read [`Presence`].
    Left(Side),
    /// Ephemeral event for the connected devices of the partner. It is never stored.
    Signal {
        /// Member who sends the signal.
        from: Side,
        /// `typing`, `hug`, `kiss`, or `x-…` for a kind that an app defines.
        kind: String,
        /// Payload, if any.
        body: Option<Body>,
    },
}

/// Serialized form of a notice, for other processes.
#[derive(Serialize)]
enum RemoteNotice {
    Changed,
    Here(Side),
    Left(Side),
    Signal { from: Side, kind: String, body: Option<Body> },
}

impl From<Notice> for RemoteNotice {
    fn from(notice: Notice) -> Self {
        match notice {
            Notice::Changed | Notice::Appended(_) => Self::Changed,
            Notice::Here(side) => Self::Here(side),
            Notice::Left(side) => Self::Left(side),
            Notice::Signal { from, kind, body } => Self::Signal { from, kind, body },
        }
    }
}

/// Stream of notices on the subscribed topics.
#[async_trait]
pub trait Subscription: Send + Sync {
    /// Waits for the next notice. [`Notice::Changed`] stands for any number of missed notices.
    ///
    /// Cancel safe: a dropped call loses no notice.
    async fn next(&mut self) -> Notice;
}

/// Event bus: carries notices from writers to subscribers, within a process or between processes.
///
/// * **B1** A notice that is published after a subscription was made reaches that subscription.
/// * **B2** A slow subscriber receives [`Notice::Changed`] in place of the notices it missed: it keeps a bounded number
///   of them, fewer than 10,000. A publisher never waits for it. [`Notice::Appended`] arrives unchanged or as [`Notice::Changed`].
/// * **B3** A subscription receives no notices of other topics.
/// * **B4** A dropped subscription frees everything that it used.
/// * **B5** Publishing does not wait for a transport that has failed. When it works again, each subscription receives within
///   10 seconds the notices that it missed, or [`Notice::Changed`] in their place, and later notices as before.
///
/// A bus between processes gives the same guarantees for a notice of one process and a subscription of another.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Publishes a notice. Never fails, because a notice is only a hint.
    async fn publish(&self, topic: Topic, notice: Notice);
    /// Subscribes to `topics` from now on.
    async fn subscribe(&self, topics: Vec<Topic>) -> Box<dyn Subscription>;
}

#[async_trait]
impl<B: Bus + ?Sized> Bus for Arc<B> {
    async fn publish(&self, topic: Topic, notice: Notice) {
        (**self).publish(topic, notice).await;
    }
    async fn subscribe(&self, topics: Vec<Topic>) -> Box<dyn Subscription> {
        (**self).subscribe(topics).await
    }
}

/// Presence: leases that expire by themselves and leave no record of past presence.
///
/// * **PR1** An account is present from a renewal until its lease expires.
/// * **PR2** A renewal returns whether the account was away.
/// * **PR3** The lease of one account does not affect another account.
/// * **PR4** A lease can be shortened. That neither lengthens a lease nor makes an account present.
/// * **PR5** While its storage has failed, each call fails within 10 seconds, with
///   [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable), [`ErrorKind::TimedOut`](crate::ErrorKind::TimedOut) or
///   [`ErrorKind::Overloaded`](crate::ErrorKind::Overloaded). When the storage works again, calls succeed within 10 seconds.
///
/// A presence between processes has one lease for each account: every process sees what another one wrote.
#[async_trait]
pub trait Presence: Send + Sync + 'static {
    /// Keeps an account present for `lease` from now on. Returns true if it was away.
    ///
    /// # Errors
    /// Failures of the adapter's storage.
    async fn renew(&self, account: AccountId, lease: Duration) -> Result<bool, Error>;
    /// Ends an account's lease after `lease` from now on, unless it ends earlier.
    ///
    /// # Errors
    /// Failures of the adapter's storage.
    async fn shorten(&self, account: AccountId, lease: Duration) -> Result<(), Error>;
    /// Remaining time of an account's lease; none if the account is away.
    ///
    /// # Errors
    /// Failures of the adapter's storage.
    async fn left(&self, account: AccountId) -> Result<Option<Duration>, Error>;
}

#[async_trait]
impl<P: Presence + ?Sized> Presence for Arc<P> {
    async fn renew(&self, account: AccountId, lease: Duration) -> Result<bool, Error> {
        (**self).renew(account, lease).await
    }
    async fn shorten(&self, account: AccountId, lease: Duration) -> Result<(), Error> {
        (**self).shorten(account, lease).await
    }
    async fn left(&self, account: AccountId) -> Result<Option<Duration>, Error> {
        (**self).left(account).await
    }
}

/// Check of the sessions that live streams follow.
///
/// * **SC1** A session that has ended is reported as ended by every later check.
/// * **SC2** The result has one value for each principal, in the same order.
#[async_trait]
pub trait SessionChecker: Send + Sync + 'static {
    /// Whether the session of each principal is still valid.
    ///
    /// A session that ends by [its expiry](Principal::expires_at) may count either way. Each process calls this every second with up to
    /// 512 sessions of its live streams at a time.
    ///
    /// # Errors
    /// Any failure of the check. Streams continue, and the check is repeated after a second.
    async fn still_valid(&self, principals: &[Principal]) -> Result<Vec<bool>, Error>;

    /// Whether a check reads the store. Default: true.
    ///
    /// Such a check counts as one of the concurrent reads that live delivery limits.
    fn reads_store(&self) -> bool {
        true
    }
}
