//! A store with an observer that is called before and after every read and commit.

use std::sync::Arc;

use async_trait::async_trait;
use couple::{
    AccountId, CoupleId, Error, Store, Timestamp,
    account::{Account, AccountReads, Session, Tally, TallyId, Token, TokenKind},
    core::{
        Change, CommitError, Committed, Digest, EmailKey, IdempotencyReads, InviteId, JobId, MediaId,
        OutcomeRecord, TokenId, UploadId,
        upload::{ResumableUpload, UnfinishedUploads, UploadReads},
    },
    job::{DeadJob, JobReads, QueueStats},
    media::{Media, MediaReads, Rendition, Space, SpaceUsage},
    pairing::{Block, Couple, Invite, PairingReads, Side},
    timeline::{Entry, Page, TimelineReads},
};

/// Observer of a store.
#[async_trait]
pub(crate) trait StoreObserver: Send + Sync + 'static {
    /// Called before a read of this name, or a `commit`.
    async fn before(&self, what: &'static str);
    /// Called before a commit, with its changes.
    fn committing(&self, _: &[Change]) {}
    /// Called after a read or commit.
    async fn after(&self, what: &'static str);
    /// May change the entries that were read.
    fn entries(&self, _: &mut Vec<Entry>) {}
    /// May refuse a commit by its changes; it then has no effect.
    fn refuse(&self, _changes: &[Change]) -> Option<Error> {
        None
    }
    /// May make a commit fail, before or after it took effect.
    fn commit_fails(&self, _took_effect: bool) -> Option<Error> {
        None
    }
}

pub(crate) struct ObservedStore<S, W>(pub(crate) S, pub(crate) Arc<W>);

#[async_trait]
impl<S: Store, W: StoreObserver> Store for ObservedStore<S, W> {
    async fn commit(&self, changes: Vec<Change>) -> Result<Committed, CommitError> {
        self.1.before("commit").await;
        self.1.committing(&changes);
        if let Some(error) = self.1.refuse(&changes).or_else(|| self.1.commit_fails(false)) {
            return Err(error.into());
        }
        let out = self.0.commit(changes).await;
        self.1.after("commit").await;
        match self.1.commit_fails(true) {
            Some(error) => Err(error.into()),
            None => out,
        }
    }
    async fn ping(&self) -> Result<(), Error> {
        self.0.ping().await
    }
    async fn close(&self) -> Result<(), Error> {
        self.0.close().await
    }
}

macro_rules! reads {
    ($($port:ident { $($name:ident($($arg:ident: $type:ty),*) -> $out:ty $(, $then:ident)?;)+ })+) => {$(
        #[async_trait]
        impl<S: Store, W: StoreObserver> $port for ObservedStore<S, W> {
            $(async fn $name(&self, $($arg: $type),*) -> Result<$out, Error> {
                self.1.before(stringify!($name)).await;
                #[allow(unused_mut, reason = "mutable in some expansions only")]
                let mut out = self.0.$name($($arg),*).await;
                $(if let Ok(out) = &mut out { self.1.$then(out) })?
                self.1.after(stringify!($name)).await;
                out
            })+
        }
    )+};
}

reads! {
    AccountReads {
        account(id: AccountId) -> Option<Account>;
        account_by_email(email: &EmailKey) -> Option<Account>;
        accounts_to_delete(now: Timestamp, after: Option<(Timestamp, AccountId)>, limit: u32) -> Vec<Account>;
        token(id: TokenId) -> Option<Token>;
        token_by_link(link: &Digest) -> Option<Token>;
        open_tokens(kind: TokenKind, email: &EmailKey, now: Timestamp) -> Vec<Token>;
        session_by_token(token: &Digest) -> Option<(Session, Account)>;
        sessions_of(account: AccountId) -> Vec<Session>;
        tally(id: TallyId, now: Timestamp) -> Option<Tally>;
        present_sessions(tokens: &[Digest]) -> Vec<Digest>;
    }
    PairingReads {
        couple(id: CoupleId) -> Option<Couple>;
        couple_of(account: AccountId) -> Option<Couple>;
        couples_of(account: AccountId) -> Vec<Couple>;
        couples_page(account: AccountId, after: Option<CoupleId>, limit: u32) -> Vec<Couple>;
        invite(id: InviteId) -> Option<Invite>;
        invite_by_code(code: &Digest) -> Option<Invite>;
        invite_by_link(link: &Digest) -> Option<Invite>;
        invite_between(pair_key: &Digest) -> Option<Invite>;
        invites_of(inviter: AccountId) -> Vec<Invite>;
        invites_to(target: &EmailKey) -> Vec<Invite>;
        blocks_of(blocker: AccountId) -> Vec<Block>;
        is_blocked(blocker: AccountId, blocked: AccountId) -> bool;
        is_blocked_by_email(blocker: &EmailKey, blocked: AccountId) -> bool;
    }
    TimelineReads {
        entries(couple: CoupleId, page: Page, limit: u32, kind: Option<&str>) -> Vec<Entry>, entries;
        entry(couple: CoupleId, seq: i64) -> Option<Entry>;
        entry_by_client_id(couple: CoupleId, author: Side, client_id: &str) -> Option<Entry>;
        entries_by(couple: CoupleId, author: Side, after: i64, limit: u32) -> Vec<Entry>;
        unread(couple: CoupleId, author: Side, after: i64) -> u32;
    }
    MediaReads {
        media(id: MediaId) -> Option<Media>;
        media_by_identity(space: Space, identity: &Digest) -> Option<Media>;
        renditions(space: Space, id: MediaId) -> Vec<Rendition>;
        avatar_of(account: AccountId) -> Option<Media>;
        media_space(space: Space) -> SpaceUsage;
        media_in(space: Space, after: Option<MediaId>, limit: u32) -> Vec<Media>;
        media_spaces(after: Option<Space>, limit: u32) -> Vec<Space>;
        unused_renditions(before: Timestamp, limit: u32) -> Vec<(MediaId, Rendition)>;
    }
    JobReads {
        queue_stats(queue: &str, now: Timestamp) -> QueueStats;
        next_due(queue: &str) -> Option<Timestamp>;
        next_lease_end(queue: &str) -> Option<Timestamp>;
        dead_jobs(after: Option<JobId>, limit: u32) -> Vec<DeadJob>;
    }
    UploadReads {
        upload(id: UploadId) -> Option<ResumableUpload>;
        unfinished_uploads(owner: AccountId) -> UnfinishedUploads;
        unfinished_bytes() -> i64;
        expired_uploads(now: Timestamp, limit: u32) -> Vec<ResumableUpload>;
    }
    IdempotencyReads {
        outcome(scope: &Digest) -> Option<OutcomeRecord>;
    }
}
