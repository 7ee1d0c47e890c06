//! The port by which processes tell one another that there is something to read.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{
    AccountId, CoupleId, Error,
    pairing::Side,
    timeline::{Body, Entry},
};

/// What a notice is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Topic {
    /// A couple's log, read positions and signals.
    Couple(CoupleId),
    /// A person's sessions.
    Account(AccountId),
    /// A queue of jobs.
    Queue(String),
}

/// A hint. It may be lost, doubled or reordered: whoever gets it looks in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Abroad")]
pub enum Notice {
    /// Something was written: look.
    Changed,
    /// This was appended to a couple's log, and nothing else written: whoever knows the log up to the one before need not look. Only
    /// within a process: for another it is serialized as [`Changed`](Self::Changed), so what people write stays out of what is between them.
    #[serde(skip_deserializing)]
    Appended(Arc<Entry>),
    /// Somebody came who was away: ask [`Presence`].
    Here(Side),
    /// Something for the partner's connected devices, now or never.
    Signal {
        /// Who sends.
        from: Side,
        /// `typing`, `hug`, `kiss` or an app's own `x-…`.
        kind: String,
        /// With what.
        body: Option<Body>,
    },
}

/// A notice as other processes get it.
#[derive(Serialize)]
enum Abroad {
    Changed,
    Here(Side),
    Signal { from: Side, kind: String, body: Option<Body> },
}

impl From<Notice> for Abroad {
    fn from(notice: Notice) -> Self {
        match notice {
            Notice::Changed | Notice::Appended(_) => Self::Changed,
            Notice::Here(side) => Self::Here(side),
            Notice::Signal { from, kind, body } => Self::Signal { from, kind, body },
        }
    }
}

/// A stream of notices on the topics that were asked for.
#[async_trait]
pub trait Subscription: Send + Sync {
    /// The next notice. [`Notice::Changed`] stands for any number that were missed.
    async fn next(&mut self) -> Notice;
}

/// Carries notices between whoever writes and whoever waits, within a process or between many.
///
/// * **B1** What is published after a subscription was made reaches it.
/// * **B2** A subscriber that falls behind gets [`Notice::Changed`] for what it missed; a publisher never waits for it.
///   [`Notice::Appended`] arrives as itself or as [`Notice::Changed`].
/// * **B3** Topics do not see one another's notices.
/// * **B4** A dropped subscription leaves nothing behind.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Tells whoever listens. Never fails: a notice is a hint.
    async fn publish(&self, topic: Topic, notice: Notice);
    /// Listens on `topics` from now on.
    async fn subscribe(&self, topics: Vec<Topic>) -> Box<dyn Subscription>;
}

/// Who is here: leases that end by themselves, and leave no trace of when somebody was.
///
/// * **P1** A person is here from a renewal until its lease ends.
/// * **P2** A renewal tells whether they were away.
/// * **P3** One's lease is not another's.
#[async_trait]
pub trait Presence: Send + Sync + 'static {
    /// Keeps a person here for `lease` from now on. True: they were away.
    ///
    /// # Errors
    /// Whatever keeps it from answering.
    async fn renew(&self, account: AccountId, lease: Duration) -> Result<bool, Error>;
    /// How much is left of a person's lease; none: they are away.
    ///
    /// # Errors
    /// Whatever keeps it from answering.
    async fn left(&self, account: AccountId) -> Result<Option<Duration>, Error>;
}
