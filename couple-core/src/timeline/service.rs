//! Use cases of the timeline.

use std::collections::{BTreeSet, HashMap};

use super::{Body, Entry, NewEntry, PHOTO, Page, TimelineChange, TimelineError, rules};
use crate::{
    AccountId, Change, CoupleId, Decision, Failure, Ports, RequestContext,
    limits::{LimitKey, rules as limit},
    live::{Notice, Topic},
    media,
    pairing::{Couple, Side},
    store::UnitOfWork,
};

/// Request to append an entry.
#[derive(Debug, Clone)]
pub struct Append {
    /// Couple that the entry is meant for, if given: a late request then never reaches another couple.
    pub couple: Option<CoupleId>,
    /// Client-chosen id, unique per author: a repeated request returns the same entry.
    pub client_id: String,
    /// Kind of the entry.
    pub kind: String,
    /// Content: a JSON object.
    pub body: serde_json::Value,
}

/// Appended entry, and whether this request created it.
#[derive(Debug, Clone)]
pub struct Appended {
    /// The entry.
    pub entry: Entry,
    /// False for a repeated request.
    pub created: bool,
}

/// Entry with the current state of the entry that it targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryView {
    /// The entry.
    pub entry: Entry,
    /// Targeted entry, without its own target.
    pub target: Option<Entry>,
}

/// Membership of an account in its couple.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Membership {
    /// Id of the account.
    pub account: AccountId,
    /// Id of the couple.
    pub couple: CoupleId,
    /// Epoch of the couple.
    pub epoch: i64,
    /// Side of the account.
    pub side: Side,
}

type TimelineResult<T> = Result<T, Failure<TimelineError>>;

/// Service for the log of a couple: appending, reading, editing, reacting and signals.
#[derive(Debug, Clone)]
pub struct Timeline {
    ports: Ports,
}

impl Timeline {
    /// Default number of entries per page.
    pub const DEFAULT_PAGE_SIZE: u32 = 50;
    /// Maximum number of entries per page.
    pub const MAX_PAGE_SIZE: u32 = 200;
    /// Number of newest entries among which unread ones are counted; bounds the cost of the query.
    pub const UNREAD_WINDOW: i64 = 1_000;

    /// Creates the service.
    #[must_use]
    pub const fn new(ports: Ports) -> Self {
        Self { ports }
    }

    /// Current couple of an account, and the account's membership in it.
    ///
    /// # Errors
    /// [`TimelineError::NotPaired`].
    pub async fn membership(&self, account: AccountId) -> TimelineResult<(Membership, Couple)> {
        let couple = self.ports.store.couple_of(account).await?;
        let couple = couple
            .filter(|couple| couple.ended_at.is_none())
            .ok_or(Failure::Refused(TimelineError::NotPaired))?;
        let side = couple.side_of(account).ok_or(Failure::Refused(TimelineError::NotPaired))?;
        Ok((Membership { account, couple: couple.id, epoch: couple.epoch, side }, couple))
    }

    /// Membership of an account, if its couple is the given one or none is given.
    async fn require_current_couple(
        &self,
        account: AccountId,
        couple: Option<CoupleId>,
    ) -> TimelineResult<Membership> {
        let (at, _) = self.membership(account).await?;
        if couple.is_none_or(|couple| couple == at.couple) {
            Ok(at)
        } else {
            Err(Failure::Refused(TimelineError::NotPaired))
        }
    }

    /// Appends an entry. A repeated client id returns the existing entry.
    ///
    /// # Errors
    /// [`TimelineError::NotPaired`], [`TimelineError::Invalid`], [`TimelineError::MediaNotFound`], [`TimelineError::MediaRejected`],
    /// [`TimelineError::MediaWrongPurpose`], [`TimelineError::KeyReused`], [`TimelineError::RateLimited`].
    pub async fn append(
        &self,
        call: &RequestContext,
        account: AccountId,
        command: &Append,
    ) -> TimelineResult<Appended> {
        let now = self.ports.now();
        let client_id = rules::client_id(&command.client_id).map_err(refuse)?;
        let kind = rules::kind(&command.kind).map_err(refuse)?;
        let body = rules::body(kind, &command.body).map_err(refuse)?;
        let mut work = UnitOfWork::new(&self.ports, call, now);
        self.allow_write(account).await?;
        let mut again = false;
        loop {
            let at = self.require_current_couple(account, command.couple).await?;
            // Replay first, so that an idempotency key with another body or client id is refused before a
            // lookup by client id.
            if let Some((couple, _)) = work.replay::<(CoupleId, String), TimelineError>().await?
                && couple != at.couple
            {
                // The entry belongs to an earlier couple and is not appended to this one.
                return Err(Failure::Refused(TimelineError::NotPaired));
            }
            // Look up the client id only after a conflict, because repeats are rare.
            let looked = std::mem::replace(&mut again, true);
            if looked
                && let Some(entry) =
                    self.ports.store.entry_by_client_id(at.couple, at.side, client_id).await?
            {
                rules::repeated(&entry, kind, &body).map_err(Failure::Refused)?;
                // The first commit may have published no notice: its outcome was unknown, or its process
                // died.
                self.ports.bus.publish(Topic::Couple(at.couple), Notice::Changed).await;
                return Ok(Appended { entry, created: false });
            }
            let mut new = NewEntry {
                author: Some(at.side),
                client_id: Some(client_id.to_owned()),
                kind: kind.to_owned(),
                body: Some(body.clone()),
                target: None,
                at: now,
            };
            let mut names = None;
            if kind == PHOTO {
                let media = match rules::media_id(&command.body) {
                    Some(id) => self.ports.store.media(id).await?,
                    None => None,
                };
                match (media::rules::name(media.as_ref(), at.couple, account), media) {
                    (Ok(name), Some(media)) => {
                        names = Some(name);
                        new.body = Some(rules::with_seen(&body, media::rules::seen(&media)));
                    }
                    // Look up the client id first: a repeat succeeds even if the picture has been deleted.
                    _ if !looked => continue,
                    (Err(media::MediaError::MediaRejected), _) => {
                        return Err(Failure::Refused(TimelineError::MediaRejected));
                    }
                    (Err(media::MediaError::WrongPurpose), _) => {
                        return Err(Failure::Refused(TimelineError::MediaWrongPurpose));
                    }
                    _ => return Err(Failure::Refused(TimelineError::MediaNotFound)),
                }
            }
            let append = TimelineChange::Append { couple: at.couple, entry: new.clone() };
            let changes = std::iter::once(append.into()).chain(names.map(Change::from)).collect();
            let outcome = (at.couple, client_id.to_owned());
            if let Some((committed, _)) = work.commit(Decision { changes, outcome }).await? {
                let seq = committed.appended_seqs().next().ok_or_else(|| {
                    crate::Error::new(crate::ErrorKind::Internal, "append")
                        .context("the store returned no seq")
                })?;
                return Ok(Appended { entry: new.at_seq(seq), created: true });
            }
        }
    }

    /// Page of the log.
    ///
    /// # Errors
    /// [`TimelineError::NotPaired`], [`TimelineError::Invalid`] for the kind.
    pub async fn page(
        &self,
        account: AccountId,
        page: Page,
        limit: u32,
        kind: Option<&str>,
    ) -> TimelineResult<Vec<EntryView>> {
        let kind = kind.map(rules::kind_filter).transpose().map_err(refuse)?;
        let (at, _) = self.membership(account).await?;
        self.read(at.couple, page, limit, kind).await.map_err(Failure::Failed)
    }

    /// Page of the previous couple's log, if both members restored it, and the account's side there.
    ///
    /// # Errors
    /// [`TimelineError::NotPaired`], [`TimelineError::NoPrevious`], [`TimelineError::Invalid`] for the kind.
    pub async fn previous_page(
        &self,
        account: AccountId,
        page: Page,
        limit: u32,
        kind: Option<&str>,
    ) -> TimelineResult<(Side, Vec<EntryView>)> {
        let kind = kind.map(rules::kind_filter).transpose().map_err(refuse)?;
        let none = || Failure::Refused(TimelineError::NoPrevious);
        let (_, couple) = self.membership(account).await?;
        let id = couple.previous.filter(|_| couple.restored()).ok_or_else(none)?;
        // The sides may have been the other way round in the previous couple.
        let previous = self.ports.store.couple(id).await?.ok_or_else(none)?;
        let side = previous.side_of(account).ok_or_else(none)?;
        Ok((side, self.read(id, page, limit, kind).await?))
    }

    /// Page of entries with their targets. The caller has checked that they may be read.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn read(
        &self,
        couple: CoupleId,
        page: Page,
        limit: u32,
        kind: Option<&str>,
    ) -> Result<Vec<EntryView>, crate::Error> {
        let limit = limit.clamp(1, Self::MAX_PAGE_SIZE);
        let entries = self.ports.store.entries(couple, page, limit, kind).await?;
        let wanted: BTreeSet<i64> = entries.iter().filter_map(|entry| entry.target).collect();
        let mut targets: HashMap<i64, Entry> = HashMap::new();
        for seq in wanted {
            let here = entries.iter().find(|entry| entry.seq == seq).cloned();
            let target = match here {
                Some(entry) => Some(entry),
                None => self.ports.store.entry(couple, seq).await?,
            };
            targets.extend(target.map(|entry| (seq, entry)));
        }
        Ok(entries
            .into_iter()
            .map(|entry| EntryView { target: entry.target.and_then(|seq| targets.get(&seq).cloned()), entry })
            .collect())
    }

    /// Number of the partner's entries that the member `reader` has not read.
    ///
    /// Counted among the newest [`UNREAD_WINDOW`](Self::UNREAD_WINDOW) entries of the couple.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn unread(&self, couple: &Couple, reader: Side) -> Result<u32, crate::Error> {
        let after = couple.read[reader.index()].max(couple.head_seq - Self::UNREAD_WINDOW);
        self.ports.store.unread(couple.id, reader.other(), after).await
    }

    /// Entry with this `seq`.
    ///
    /// # Errors
    /// [`TimelineError::NotPaired`], [`TimelineError::EntryNotFound`].
    pub async fn entry(&self, account: AccountId, seq: i64) -> TimelineResult<Entry> {
        let (at, _) = self.membership(account).await?;
        self.ports.store.entry(at.couple, seq).await?.ok_or(Failure::Refused(TimelineError::EntryNotFound))
    }

    /// Replaces the body of an entry that the account wrote.
    ///
    /// # Errors
    /// [`TimelineError::NotPaired`], [`TimelineError::EntryNotFound`], [`TimelineError::NotAuthor`], [`TimelineError::EntryDeleted`],
    /// [`TimelineError::Invalid`], [`TimelineError::RateLimited`].
    pub async fn edit(
        &self,
        account: AccountId,
        seq: i64,
        body: &serde_json::Value,
    ) -> TimelineResult<Entry> {
        let now = self.ports.now();
        self.change(account, seq, |at, entry| rules::edit(at.couple, entry, at.side, body, now)).await
    }

    /// Makes an entry that the account wrote a tombstone. Deletes its picture if no other entry uses it.
    ///
    /// # Errors
    /// The same as for [`edit`](Self::edit).
    pub async fn delete(&self, account: AccountId, seq: i64) -> TimelineResult<Entry> {
        let now = self.ports.now();
        self.change(account, seq, |at, entry| rules::delete(at.couple, entry, at.side, now)).await
    }

    /// Sets or removes the account's reaction to an entry.
    ///
    /// # Errors
    /// [`TimelineError::NotPaired`], [`TimelineError::EntryNotFound`], [`TimelineError::EntryDeleted`], [`TimelineError::Invalid`],
    /// [`TimelineError::RateLimited`].
    pub async fn react(&self, account: AccountId, seq: i64, emoji: Option<&str>) -> TimelineResult<Entry> {
        let now = self.ports.now();
        self.change(account, seq, |at, entry| rules::react(at.couple, entry, at.side, emoji, now)).await
    }

    async fn change(
        &self,
        account: AccountId,
        seq: i64,
        decide: impl Fn(&Membership, Option<&Entry>) -> Result<Vec<Change>, TimelineError> + Send + Sync,
    ) -> TimelineResult<Entry> {
        let call = RequestContext::default();
        let mut work = UnitOfWork::new(&self.ports, &call, self.ports.now());
        self.allow_write(account).await?;
        loop {
            let (at, _) = self.membership(account).await?;
            let entry = self.ports.store.entry(at.couple, seq).await?;
            let mut changes = decide(&at, entry.as_ref()).map_err(Failure::Refused)?;
            let deletes = |c: &Change| matches!(c, Change::Timeline(TimelineChange::Delete { .. }));
            if changes.iter().any(deletes)
                && let Some(id) = entry.as_ref().and_then(rules::media_of)
            {
                changes.extend(media::release_media(&self.ports, id).await?);
            }
            if work.commit(Decision { changes, outcome: () }).await?.is_some() {
                let entry = self.ports.store.entry(at.couple, seq).await?;
                return entry.ok_or(Failure::Refused(TimelineError::EntryNotFound));
            }
        }
    }

    /// Moves the account's read position forward. An older position changes nothing and is no error.
    ///
    /// # Errors
    /// [`TimelineError::NotPaired`], [`TimelineError::RateLimited`].
    pub async fn mark_read(&self, account: AccountId, seq: i64) -> TimelineResult<()> {
        let call = RequestContext::default();
        let mut work = UnitOfWork::new(&self.ports, &call, self.ports.now());
        self.allow_write(account).await?;
        loop {
            let (at, couple) = self.membership(account).await?;
            if seq.min(couple.head_seq) <= couple.read[at.side.index()] {
                return Ok(());
            }
            let changes = vec![TimelineChange::MarkRead { couple: at.couple, side: at.side, seq }.into()];
            if work.commit(Decision { changes, outcome: () }).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// Sends an ephemeral signal to the connected devices of the partner. It is never stored.
    ///
    /// # Errors
    /// [`TimelineError::NotPaired`], [`TimelineError::Invalid`], [`TimelineError::RateLimited`].
    pub async fn signal(
        &self,
        account: AccountId,
        couple: Option<CoupleId>,
        kind: &str,
        body: Option<&serde_json::Value>,
    ) -> TimelineResult<()> {
        let (kind, body) = signal(kind, body)?;
        self.allow_write(account).await?;
        let at = self.require_current_couple(account, couple).await?;
        self.publish(&at, kind, body).await;
        Ok(())
    }

    /// Sends a signal of a member whose couple the caller has checked.
    ///
    /// As [`signal`](Self::signal), but does not read the couple.
    ///
    /// # Errors
    /// [`TimelineError::Invalid`], [`TimelineError::RateLimited`].
    pub async fn signal_from(
        &self,
        at: &Membership,
        kind: &str,
        body: Option<&serde_json::Value>,
    ) -> TimelineResult<()> {
        let (kind, body) = signal(kind, body)?;
        self.allow_write(at.account).await?;
        self.publish(at, kind, body).await;
        Ok(())
    }

    async fn publish(&self, at: &Membership, kind: String, body: Option<Body>) {
        self.ports.bus.publish(Topic::Couple(at.couple), Notice::Signal { from: at.side, kind, body }).await;
    }

    /// Up to 200 entries that an account wrote after `after`, in any couple it has been in. For an export.
    ///
    /// # Errors
    /// [`TimelineError::NotPaired`] for a couple that the account was never in.
    pub async fn authored(
        &self,
        account: AccountId,
        couple: &Couple,
        after: i64,
    ) -> TimelineResult<Vec<Entry>> {
        let side = couple.side_of(account).ok_or(Failure::Refused(TimelineError::NotPaired))?;
        Ok(self.ports.store.entries_by(couple.id, side, after, Self::MAX_PAGE_SIZE).await?)
    }

    async fn allow_write(&self, account: AccountId) -> TimelineResult<()> {
        self.ports.allow(&[(limit::WRITE_PER_ACCOUNT, LimitKey::new("account", account))]).await
    }
}

/// Checks a signal.
fn signal(kind: &str, body: Option<&serde_json::Value>) -> TimelineResult<(String, Option<Body>)> {
    let kind = rules::signal_kind(kind).map_err(refuse)?;
    if kind == rules::THUMB {
        rules::thumb(body).map_err(refuse)?;
    }
    let body = body.map(|value| Body::new("body", value)).transpose().map_err(refuse)?;
    Ok((kind.to_owned(), body))
}

fn refuse(invalid: crate::Invalid) -> Failure<TimelineError> {
    Failure::Refused(TimelineError::Invalid(invalid))
}
