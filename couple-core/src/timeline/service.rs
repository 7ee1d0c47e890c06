//! Use cases of the timeline.

use std::collections::{BTreeSet, HashMap};

use super::{Body, Entry, EntryKinds, NewEntry, PHOTO, Page, TimelineChange, TimelineError, rules};
use crate::{
    AccountId, Change, Completed, CoupleId, Decision, Failure, Ports, RequestContext, UnitOfWork,
    limits::{LimitKey, rules as limit},
    live::{Notice, Topic},
    media::{self, MediaChange, MediaError},
    pairing::{Couple, Side},
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

struct AppendFacts {
    at: Membership,
    /// For a photo: the change that uses its picture and the body with the picture's state, or why it cannot be
    /// named.
    picture: Option<Result<(MediaChange, Body), MediaError>>,
    /// Entry of the same author with the same client id, if it was looked up.
    existing: Option<Entry>,
}

type TimelineResult<T> = Result<T, Failure<TimelineError>>;

/// Service for the log of a couple: appending, reading, editing, reacting and signals.
#[derive(Debug, Clone)]
pub struct Timeline {
    ports: Ports,
    kinds: EntryKinds,
}

impl Timeline {
    /// Default number of entries per page.
    pub const DEFAULT_PAGE_SIZE: u32 = 50;
    /// Maximum number of entries per page.
    pub const MAX_PAGE_SIZE: u32 = 200;
    /// Number of newest entries among which unread ones are counted; bounds the cost of the query.
    pub const UNREAD_WINDOW: i64 = 1_000;

    /// Creates the service, without kinds of a host.
    #[must_use]
    pub fn new(ports: Ports) -> Self {
        Self { ports, kinds: EntryKinds::default() }
    }

    /// Sets the kinds of entry that the host defines.
    #[must_use]
    pub fn with_kinds(mut self, kinds: EntryKinds) -> Self {
        self.kinds = kinds;
        self
    }

    /// Kinds of entry that the host defines.
    #[must_use]
    pub const fn kinds(&self) -> &EntryKinds {
        &self.kinds
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

    /// Current couple of an account and the membership in it, if the couple is the expected one or none is expected.
    async fn require_current_couple(
        &self,
        account: AccountId,
        expected: Option<CoupleId>,
    ) -> TimelineResult<(Membership, Couple)> {
        let (at, couple) = self.membership(account).await?;
        if expected.is_none_or(|expected| expected == at.couple) {
            Ok((at, couple))
        } else {
            Err(Failure::Refused(TimelineError::NotPaired))
        }
    }

    /// Appends an entry. A repeated client id returns the existing entry.
    ///
    /// # Errors
    /// [`TimelineError::NotPaired`], [`TimelineError::Invalid`], [`TimelineError::InvalidBody`], [`TimelineError::MediaNotFound`], [`TimelineError::MediaRejected`],
    /// [`TimelineError::MediaWrongPurpose`], [`TimelineError::KeyReused`], [`TimelineError::RateLimited`].
    pub async fn append(
        &self,
        context: &RequestContext,
        account: AccountId,
        command: &Append,
    ) -> TimelineResult<Appended> {
        self.kinds.require_client_appends(&command.kind).map_err(refuse)?;
        self.append_with(context, account, command, &[]).await
    }

    /// Appends an entry and makes further changes, such as those of [`Ports::enqueue`], in the same transaction.
    ///
    /// The changes are committed if and only if the entry is created: a repeated client id makes none of them. Kinds that
    /// [only the host appends](super::EntryKind::with_client_appends) are accepted, unlike by [`append`](Self::append).
    ///
    /// # Errors
    /// The same as for [`append`](Self::append); [`ErrorKind::Overloaded`](crate::ErrorKind::Overloaded) if a precondition of `changes`
    /// does not hold.
    pub async fn append_with(
        &self,
        context: &RequestContext,
        account: AccountId,
        command: &Append,
        changes: &[Change],
    ) -> TimelineResult<Appended> {
        let work = UnitOfWork::new(&self.ports);
        let now = work.now();
        let client_id = rules::client_id(&command.client_id).map_err(refuse)?;
        let kind = self.kinds.kind(&command.kind).map_err(refuse)?;
        let body = self.kinds.body(kind, &command.body).map_err(Failure::Refused)?;
        let new = |author, body| NewEntry {
            author: Some(author),
            client_id: Some(client_id.to_owned()),
            kind: kind.to_owned(),
            body: Some(body),
            target: None,
            at: now,
        };
        let completed = work
            .run(
                context,
                self.allow_write(account),
                async |(), previous: Option<AppendFacts>| {
                    let (at, _) = self.require_current_couple(account, command.couple).await?;
                    let media = match rules::media_id(&command.body).filter(|_| kind == PHOTO) {
                        Some(id) => self.ports.store.media(id).await?,
                        None => None,
                    };
                    let picture = (kind == PHOTO).then(|| {
                        let name = media::rules::use_in_entry(media.as_ref(), at.couple, account)?;
                        let media = media.as_ref().ok_or(MediaError::MediaNotFound)?;
                        Ok((name, rules::with_media_state(&body, media::rules::media_state(media))))
                    });
                    // Look up the client id only after a conflict, because repeats are rare, or when the picture
                    // cannot be named: a repeat succeeds even if its picture has been deleted.
                    let existing = match previous.is_some() || matches!(picture, Some(Err(_))) {
                        true => self.ports.store.entry_by_client_id(at.couple, at.side, client_id).await?,
                        false => None,
                    };
                    Ok(AppendFacts { at, picture, existing })
                },
                |(), AppendFacts { at, picture, existing }| {
                    if let Some(entry) = existing {
                        rules::repeated(entry, kind, &body).map_err(Failure::Refused)?;
                        let appended = Appended { entry: entry.clone(), created: false };
                        return Ok(Decision::Answer((at.couple, appended)));
                    }
                    let (entry, name) = match picture {
                        None => (new(at.side, body.clone()), None),
                        Some(Ok((name, body))) => (new(at.side, body.clone()), Some(name.clone())),
                        Some(Err(MediaError::MediaRejected)) => {
                            return Err(Failure::Refused(TimelineError::MediaRejected));
                        }
                        Some(Err(MediaError::WrongPurpose)) => {
                            return Err(Failure::Refused(TimelineError::MediaWrongPurpose));
                        }
                        Some(Err(_)) => return Err(Failure::Refused(TimelineError::MediaNotFound)),
                    };
                    // The commit returns the `seq`.
                    let answer = (at.couple, Appended { entry: entry.clone().at_seq(0), created: true });
                    let append = TimelineChange::Append { couple: at.couple, entry };
                    let own = std::iter::once(append.into()).chain(name.map(Change::from));
                    let changes = own.chain(changes.iter().cloned()).collect();
                    Ok(Decision::Commit { changes, outcome: (at.couple, client_id.to_owned()), answer })
                },
            )
            .await?;
        let (couple, appended) = match completed {
            Completed::Committed((_, mut appended), committed) => {
                appended.entry.seq = committed.appended_seqs().next().ok_or_else(|| {
                    crate::Error::new(crate::ErrorKind::Internal, "append")
                        .context("the store returned no seq")
                })?;
                return Ok(appended);
            }
            Completed::Unchanged(repeated) => repeated,
            Completed::Replayed((couple, client_id)) => {
                // A repeat costs a token too, because it publishes a notice.
                self.allow_write(account).await?;
                let (at, _) = self.require_current_couple(account, command.couple).await?;
                if couple != at.couple {
                    // The entry belongs to an earlier couple and is not appended to this one.
                    return Err(Failure::Refused(TimelineError::NotPaired));
                }
                let entry = self.ports.store.entry_by_client_id(couple, at.side, &client_id).await?;
                let entry = entry.ok_or(Failure::Refused(TimelineError::EntryNotFound))?;
                (couple, Appended { entry, created: false })
            }
        };
        // The first commit may have published no notice: its outcome was unknown, or its process died.
        self.ports.bus.publish(Topic::Couple(couple), Notice::Changed).await;
        Ok(appended)
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

    /// Number of the partner's entries that the member `reader` has not read, without kinds that do not count.
    ///
    /// Counted among the newest [`UNREAD_WINDOW`](Self::UNREAD_WINDOW) entries of the couple.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn unread(&self, couple: &Couple, reader: Side) -> Result<u32, crate::Error> {
        let after = couple.read[reader.index()].max(couple.head_seq - Self::UNREAD_WINDOW);
        self.ports.store.unread(couple.id, reader.other(), after, self.kinds.not_unread()).await
    }

    /// Entry with this `seq`.
    ///
    /// # Errors
    /// [`TimelineError::NotPaired`], [`TimelineError::EntryNotFound`].
    pub async fn entry(&self, account: AccountId, seq: i64) -> TimelineResult<Entry> {
        let (at, _) = self.membership(account).await?;
        self.ports.store.entry(at.couple, seq).await?.ok_or(Failure::Refused(TimelineError::EntryNotFound))
    }

    /// Replaces the body of an entry that the account wrote, or of a kind that [both members](super::EntryPermission) may edit.
    ///
    /// With `couple`, only an entry of that couple is changed: a late request never reaches another couple. The same applies to the
    /// other methods that take it.
    ///
    /// # Errors
    /// [`TimelineError::NotPaired`], [`TimelineError::EntryNotFound`], [`TimelineError::NotAuthor`], [`TimelineError::EntryFixed`],
    /// [`TimelineError::EntryDeleted`], [`TimelineError::Invalid`], [`TimelineError::InvalidBody`], [`TimelineError::RateLimited`].
    pub async fn edit(
        &self,
        account: AccountId,
        couple: Option<CoupleId>,
        seq: i64,
        body: &serde_json::Value,
    ) -> TimelineResult<Entry> {
        let now = self.ports.now();
        self.change(account, couple, seq, false, |at, entry| {
            rules::edit(at.couple, entry, at.side, body, &self.kinds, now)
        })
        .await
    }

    /// Makes an entry that the account wrote, or of a kind that both members may delete, a tombstone. Deletes its picture if no other entry uses it.
    ///
    /// # Errors
    /// The same as for [`edit`](Self::edit).
    pub async fn delete(
        &self,
        account: AccountId,
        couple: Option<CoupleId>,
        seq: i64,
    ) -> TimelineResult<Entry> {
        let now = self.ports.now();
        self.change(account, couple, seq, true, |at, entry| {
            rules::delete(at.couple, entry, at.side, &self.kinds, now)
        })
        .await
    }

    /// Sets or removes the account's reaction to an entry.
    ///
    /// # Errors
    /// [`TimelineError::NotPaired`], [`TimelineError::EntryNotFound`], [`TimelineError::EntryDeleted`], [`TimelineError::Invalid`],
    /// [`TimelineError::RateLimited`].
    pub async fn react(
        &self,
        account: AccountId,
        couple: Option<CoupleId>,
        seq: i64,
        emoji: Option<&str>,
    ) -> TimelineResult<Entry> {
        let now = self.ports.now();
        self.change(account, couple, seq, false, |at, entry| {
            rules::react(at.couple, entry, at.side, emoji, now)
        })
        .await
    }

    /// Changes an entry. With `releases_picture`, also releases the picture that the entry names.
    async fn change(
        &self,
        account: AccountId,
        couple: Option<CoupleId>,
        seq: i64,
        releases_picture: bool,
        decide: impl Fn(&Membership, Option<&Entry>) -> Result<Vec<Change>, TimelineError> + Send + Sync,
    ) -> TimelineResult<Entry> {
        self.allow_write(account).await?;
        let changed: TimelineResult<CoupleId> = UnitOfWork::new(&self.ports)
            .run_unkeyed(
                async |_previous| {
                    let (at, _) = self.require_current_couple(account, couple).await?;
                    let entry = self.ports.store.entry(at.couple, seq).await?;
                    let release = match entry.as_ref().and_then(rules::media_of) {
                        Some(id) if releases_picture => media::release_media(&self.ports, id).await?,
                        _ => Vec::new(),
                    };
                    Ok((at, entry, release))
                },
                |(at, entry, release)| {
                    let mut changes = decide(at, entry.as_ref()).map_err(Failure::Refused)?;
                    if changes.is_empty() {
                        return Ok(Decision::Answer(at.couple));
                    }
                    changes.extend(release.iter().cloned());
                    Ok(Decision::commit(changes, at.couple))
                },
            )
            .await;
        let entry = self.ports.store.entry(changed?, seq).await?;
        entry.ok_or(Failure::Refused(TimelineError::EntryNotFound))
    }

    /// Moves the account's read position forward. An older position changes nothing and is no error.
    ///
    /// # Errors
    /// [`TimelineError::NotPaired`], [`TimelineError::RateLimited`].
    pub async fn mark_read(
        &self,
        account: AccountId,
        couple: Option<CoupleId>,
        seq: i64,
    ) -> TimelineResult<()> {
        self.allow_write(account).await?;
        UnitOfWork::new(&self.ports)
            .run_unkeyed(
                async |_previous| self.require_current_couple(account, couple).await,
                |(at, couple)| {
                    if seq.min(couple.head_seq) <= couple.read[at.side.index()] {
                        return Ok(Decision::Answer(()));
                    }
                    let mark = TimelineChange::MarkRead { couple: at.couple, side: at.side, seq };
                    Ok(Decision::commit(vec![mark.into()], ()))
                },
            )
            .await
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
        let (at, _) = self.require_current_couple(account, couple).await?;
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
