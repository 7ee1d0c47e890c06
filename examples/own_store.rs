//! A custom store: one `commit` and some reads, checked by `couple-conformance`.
//!
//! It counts commits and passes them to the memory store; a store over another database has the same structure. `cargo run --example
//! own_store` uses it, `cargo test --example own_store` checks it.

#![expect(clippy::print_stdout, reason = "an example prints its results")]

use std::sync::atomic::{AtomicU64, Ordering};

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
    store::MemoryStore,
    timeline::{Entry, Page, TimelineReads},
};

#[derive(Debug, Default)]
struct CountingStore {
    kept: MemoryStore,
    commits: AtomicU64,
}

#[async_trait]
impl Store for CountingStore {
    async fn commit(&self, changes: Vec<Change>) -> Result<Committed, CommitError> {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.kept.commit(changes).await
    }
    async fn ping(&self) -> Result<(), Error> {
        self.kept.ping().await
    }
}

/// Implements each read of a port by the inner store.
macro_rules! reads {
    ($($port:ident { $($name:ident($($arg:ident: $type:ty),*) -> $out:ty;)+ })+) => {$(
        #[async_trait]
        impl $port for CountingStore {
            $(async fn $name(&self, $($arg: $type),*) -> Result<$out, Error> {
                self.kept.$name($($arg),*).await
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
        entries(couple: CoupleId, page: Page, limit: u32, kind: Option<&str>) -> Vec<Entry>;
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

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = std::sync::Arc::new(CountingStore::default());
    let backend = couple::Backend::builder()
        .blobs(couple::blobs::Blobs::memory())
        .store(store.clone())
        .keys(couple::Keyring::new([0; 32]))
        .build()?;
    let sign_up =
        couple::account::SignUp { email: "ana@example.org".into(), display_name: "Ana".into(), locale: None };
    backend.accounts().sign_up(&couple::RequestContext::default(), &sign_up).await?;
    backend.worker().run_until_idle().await?;
    println!("a sign-up and its mail took {} commits", store.commits.load(Ordering::Relaxed));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    couple_conformance::store!(async { CountingStore::default() }, reference: async { MemoryStore::new() });
}
