//! Domain events, and listeners that add jobs and entries to the commit that causes an event.
//!
//! [`Ports::commit`] derives the events of a commit from its changes ([`Event::of`]) and passes each event to
//! every [`Listener`]. The additions of listeners are committed in the same transaction: if the commit takes
//! effect, so do the additions; if it conflicts or fails, nothing is written. So "when a couple is founded, write to
//! my CRM" is a job that exists if and only if the couple does, whenever a process dies.
//!
//! A listener runs before the commit, and again for each attempt after a conflict. It must therefore be a pure
//! function of the event: external effects, such as a request to another service, belong in the job that it
//! enqueues. Entries that listeners append are no events for listeners, so there is no recursion.
//!
//! The library's own mails of invites and renderings of pictures are made by listeners, too.

use std::sync::Arc;

use crate::{
    AccountId, Change, CoupleId, DisplayName, EmailAddress, Error, ErrorKind, Locale, MediaId, Ports,
    Timestamp,
    account::AccountChange,
    date::DateChange,
    device::DeviceChange,
    idempotency::IdempotencyChange,
    job::{Job, JobChange, NewJob},
    mail::RetiredAddress,
    media::{Media, MediaChange, RenderPictures, Space},
    notification::NotificationChange,
    pairing::{Couple, Invite, MailInvites, PairingChange, Side},
    timeline::{Body, NewEntry, TimelineChange},
    upload::UploadChange,
};

/// Event of a commit. It borrows from the changes; a job stores the ids that it needs.
///
/// Events describe changes that are about to be committed. A read of the store in a job sees the state after
/// the commit, or a later one.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// An account is created: its owner has confirmed the address. Never occurs with a host's own users.
    AccountVerified {
        /// Id of the account.
        account: AccountId,
        /// Confirmed address.
        email: &'a EmailAddress,
        /// Display name.
        display_name: &'a DisplayName,
        /// Preferred language.
        locale: Option<&'a Locale>,
    },
    /// An account is deleted, or a user of the host is [forgotten](crate::account::Erasures), after the
    /// deletion of all data.
    AccountErased {
        /// Id of the account or user.
        account: AccountId,
    },
    /// An address gets no mails any more, until its owner confirms it again.
    AddressRetired(&'a RetiredAddress),
    /// An invite is created.
    InviteSent {
        /// The invite.
        invite: &'a Invite,
    },
    /// A couple is created.
    CoupleFounded {
        /// The couple, before its first entry.
        couple: &'a Couple,
    },
    /// A couple ends, because a member leaves or is deleted. The store still returns it by its id.
    ///
    /// The erasure of a member replaces the member's id in the stored couple, possibly before a job reads it. So a
    /// job that needs the members takes their ids from the event.
    CoupleEnded {
        /// Id of the couple.
        couple: CoupleId,
        /// Both members.
        members: [AccountId; 2],
        /// Time of the end.
        at: Timestamp,
        /// Member who left or is deleted; none if the commit does not say.
        by: Option<AccountId>,
    },
    /// An entry is appended, by a member or by the system.
    ///
    /// The commit assigns the entry's `seq`, so the event has none. A member's entry has a client id, and a job
    /// finds it by couple, author and client id
    /// ([`entry_by_client_id`](crate::timeline::TimelineReads::entry_by_client_id)). An entry without a client
    /// id is the system's ([`system`](crate::timeline::system)) or was added by the host; its `target` is the
    /// `seq` of the entry that was edited, deleted or reacted to.
    EntryAppended {
        /// Couple of the log.
        couple: CoupleId,
        /// Entry to append.
        entry: &'a NewEntry,
    },
    /// The body of an entry is replaced. The same commit appends an entry that reports it.
    EntryEdited {
        /// Couple of the log.
        couple: CoupleId,
        /// `seq` of the entry.
        seq: i64,
        /// Member who wrote the entry.
        author: Side,
        /// New body.
        body: &'a Body,
        /// Time of the edit.
        at: Timestamp,
    },
    /// An entry becomes a tombstone. The same commit appends an entry that reports it.
    EntryDeleted {
        /// Couple of the log.
        couple: CoupleId,
        /// `seq` of the entry.
        seq: i64,
        /// Member who wrote the entry.
        author: Side,
        /// Time of the deletion.
        at: Timestamp,
    },
    /// A member has read up to an entry.
    ///
    /// The position in the store may already be beyond `seq`, because another device has read further.
    ReadPositionMoved {
        /// Couple of the log.
        couple: CoupleId,
        /// Member who has read.
        side: Side,
        /// `seq` of the last entry that was read.
        seq: i64,
    },
    /// An uploaded picture is added, in state *processing*.
    PictureAdded {
        /// The picture.
        picture: &'a Media,
    },
    /// A picture is ready to be shown.
    PictureReady {
        /// Space of the picture.
        space: Space,
        /// Id of the picture.
        picture: MediaId,
    },
}

impl<'a> Event<'a> {
    /// Event of a change; none for a change that is no event.
    ///
    /// There is no wildcard arm: a new variant does not compile until its event is declared.
    #[must_use]
    pub fn of(change: &'a Change) -> Option<Self> {
        match change {
            Change::Account(change) => match change {
                AccountChange::Insert(account) => Some(Self::AccountVerified {
                    account: account.id,
                    email: &account.email,
                    display_name: &account.display_name,
                    locale: account.locale.as_ref(),
                }),
                AccountChange::Erase { id: account, .. } => Some(Self::AccountErased { account: *account }),
                AccountChange::PutTally { retires, .. } => retires.as_deref().map(Self::AddressRetired),
                AccountChange::Update(_)
                | AccountChange::InsertToken(_)
                | AccountChange::RedeemToken { .. }
                | AccountChange::RequireToken { .. }
                | AccountChange::RedeemForm { .. }
                | AccountChange::CountTries { .. }
                | AccountChange::EndTokens { .. }
                | AccountChange::EndTokensOf { .. }
                | AccountChange::CountTally { .. }
                | AccountChange::RequireTally { .. }
                | AccountChange::InsertSession { .. }
                | AccountChange::TouchSession { .. }
                | AccountChange::SetWidgetToken { .. }
                | AccountChange::EndSession { .. }
                | AccountChange::EndSessions { .. }
                | AccountChange::PurgeTallies { .. }
                | AccountChange::PurgeTokens { .. }
                | AccountChange::PurgeSessions { .. } => None,
            },
            Change::Pairing(change) => match change {
                PairingChange::InsertInvite { invite, .. } => Some(Self::InviteSent { invite }),
                PairingChange::Pair(couple) => Some(Self::CoupleFounded { couple }),
                PairingChange::End { id, members, at, by } => {
                    Some(Self::CoupleEnded { couple: *id, members: *members, at: *at, by: *by })
                }
                PairingChange::FinishErasure { person, .. } => Some(Self::AccountErased { account: *person }),
                PairingChange::CloseInvite { .. }
                | PairingChange::WithdrawInvitesOf { .. }
                | PairingChange::ExpectUnpaired { .. }
                | PairingChange::Describe { .. }
                | PairingChange::Restore { .. }
                | PairingChange::Block(_)
                | PairingChange::Unblock { .. }
                | PairingChange::Forget { .. }
                | PairingChange::SetErasure { .. }
                | PairingChange::Anonymize { .. }
                | PairingChange::PurgeInvites { .. } => None,
            },
            Change::Timeline(change) => match change {
                TimelineChange::Append { couple, entry } => {
                    Some(Self::EntryAppended { couple: *couple, entry })
                }
                TimelineChange::Edit { couple, seq, author, body, at } => {
                    Some(Self::EntryEdited { couple: *couple, seq: *seq, author: *author, body, at: *at })
                }
                TimelineChange::Delete { couple, seq, author, at } => {
                    Some(Self::EntryDeleted { couple: *couple, seq: *seq, author: *author, at: *at })
                }
                TimelineChange::MarkRead { couple, side, seq } => {
                    Some(Self::ReadPositionMoved { couple: *couple, side: *side, seq: *seq })
                }
                // A reaction appends an entry, which is an event.
                TimelineChange::React { .. } | TimelineChange::Erase { .. } => None,
            },
            Change::Media(change) => match change {
                MediaChange::Insert { media, .. } => Some(Self::PictureAdded { picture: media }),
                MediaChange::Finish { of, .. } => {
                    Some(Self::PictureReady { space: of.space, picture: of.id })
                }
                MediaChange::Reject { .. }
                | MediaChange::Use { .. }
                | MediaChange::Release(_)
                | MediaChange::Delete(_)
                | MediaChange::AddRendition { .. }
                | MediaChange::Touch { .. }
                | MediaChange::Forget { .. }
                | MediaChange::SetAvatar { .. }
                | MediaChange::Close { .. } => None,
            },
            Change::Upload(
                UploadChange::Insert { .. }
                | UploadChange::Claim { .. }
                | UploadChange::Append { .. }
                | UploadChange::TakeOver { .. }
                | UploadChange::Finish { .. }
                | UploadChange::ExpireOf { .. }
                | UploadChange::Remove { .. },
            )
            | Change::Device(
                DeviceChange::Put { .. }
                | DeviceChange::Remove { .. }
                | DeviceChange::RemoveOf { .. }
                | DeviceChange::Retire { .. },
            )
            | Change::Notification(NotificationChange::Put(_) | NotificationChange::Remove { .. })
            | Change::Date(DateChange::Put { .. } | DateChange::Remove { .. })
            | Change::Job(
                JobChange::Enqueue(_)
                | JobChange::Claim { .. }
                | JobChange::ClaimAbandoned { .. }
                | JobChange::Renew { .. }
                | JobChange::Finish { .. }
                | JobChange::Retry { .. }
                | JobChange::Defer { .. }
                | JobChange::Bury { .. }
                | JobChange::Replay { .. }
                | JobChange::PurgeDead { .. },
            )
            | Change::Idempotency(IdempotencyChange::Record(_) | IdempotencyChange::Purge { .. })
            | Change::Host(_) => None,
        }
    }

    /// Couple to whose log a listener may append: it is active, and the commit locks its row for the event.
    const fn appendable(&self) -> Option<CoupleId> {
        match *self {
            Self::CoupleFounded { couple } => Some(couple.id),
            Self::EntryAppended { couple, .. }
            | Self::EntryEdited { couple, .. }
            | Self::EntryDeleted { couple, .. }
            | Self::ReadPositionMoved { couple, .. } => Some(couple),
            Self::AccountVerified { .. }
            | Self::AccountErased { .. }
            | Self::AddressRetired(_)
            | Self::InviteSent { .. }
            | Self::CoupleEnded { .. }
            | Self::PictureAdded { .. }
            | Self::PictureReady { .. } => None,
        }
    }
}

/// Listener for the events of every commit. An `Arc` of a listener is a listener.
pub trait Listener: Send + Sync + 'static {
    /// Adds jobs and entries to the commit that causes the event.
    ///
    /// Runs on the task of the caller, in the path of every commit with an event: it must not block, read or
    /// panic. It runs again when the commit is repeated after a conflict; then only the additions of the last
    /// run are committed.
    ///
    /// # Errors
    /// An error fails the commit: nothing is written, and the caller gets the error.
    fn on(&self, event: &Event<'_>, additions: &mut Additions<'_>) -> Result<(), Error>;
}

impl<L: Listener + ?Sized> Listener for Arc<L> {
    fn on(&self, event: &Event<'_>, additions: &mut Additions<'_>) -> Result<(), Error> {
        (**self).on(event, additions)
    }
}

/// Listener that is a function.
struct FnListener<F>(F);

impl<F> Listener for FnListener<F>
where
    F: Fn(&Event<'_>, &mut Additions<'_>) -> Result<(), Error> + Send + Sync + 'static,
{
    fn on(&self, event: &Event<'_>, additions: &mut Additions<'_>) -> Result<(), Error> {
        (self.0)(event, additions)
    }
}

/// Jobs and entries that a listener adds to the commit of an event.
#[derive(Debug)]
pub struct Additions<'a> {
    ports: &'a Ports,
    couple: Option<CoupleId>,
    changes: Vec<Change>,
}

impl Additions<'_> {
    /// Current time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.ports.now()
    }

    /// Enqueues a job that is due now. A no-op if a live job has the same deduplication key.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] when the payload cannot be serialized as JSON.
    pub fn enqueue<J: Job>(&mut self, job: &J) -> Result<(), Error> {
        self.enqueue_at(job, self.now())
    }

    /// Enqueues a job that is due at `due_at`, as [`enqueue`](Self::enqueue) does.
    ///
    /// # Errors
    /// The same as for [`enqueue`](Self::enqueue).
    pub fn enqueue_at<J: Job>(&mut self, job: &J, due_at: Timestamp) -> Result<(), Error> {
        let job = NewJob::at(job, due_at, self.ports)?;
        self.changes.push(JobChange::Enqueue(job).into());
        Ok(())
    }

    /// Appends an entry to the log of the event's couple, after the entries of the commit.
    ///
    /// A client id of the entry must be new for its author: otherwise the commit conflicts at every attempt.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] for an event that does not belong to the log of an active couple: only
    /// [`CoupleFounded`](Event::CoupleFounded), events of entries and
    /// [`ReadPositionMoved`](Event::ReadPositionMoved) do.
    pub fn append(&mut self, entry: NewEntry) -> Result<(), Error> {
        let couple = self.couple.ok_or_else(|| {
            Error::new(ErrorKind::Internal, "listen").context("the event has no log to append to")
        })?;
        self.changes.push(TimelineChange::Append { couple, entry }.into());
        Ok(())
    }
}

/// Listeners of an installation, in the order in which they were added. Cheap to clone.
#[derive(Clone)]
pub struct Listeners(Arc<Vec<Arc<dyn Listener>>>);

impl Default for Listeners {
    /// The listeners of the library: they enqueue the mail of an invite and the rendering of a picture.
    fn default() -> Self {
        Self(Arc::new(vec![Arc::new(MailInvites), Arc::new(RenderPictures)]))
    }
}

impl std::fmt::Debug for Listeners {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listeners").field("count", &self.0.len()).finish()
    }
}

impl Listeners {
    /// Adds a listener.
    #[must_use]
    pub fn with(mut self, listener: impl Listener) -> Self {
        Arc::make_mut(&mut self.0).push(Arc::new(listener));
        self
    }

    /// Adds a function as a listener.
    #[must_use]
    pub fn with_fn(
        self,
        on: impl Fn(&Event<'_>, &mut Additions<'_>) -> Result<(), Error> + Send + Sync + 'static,
    ) -> Self {
        self.with(FnListener(on))
    }

    /// Changes that the listeners add to a commit of `changes`.
    pub(crate) fn additions(&self, ports: &Ports, changes: &[Change]) -> Result<Vec<Change>, Error> {
        let mut additions = Additions { ports, couple: None, changes: Vec::new() };
        for event in changes.iter().filter_map(Event::of) {
            additions.couple = event.appendable();
            self.0.iter().try_for_each(|listener| listener.on(&event, &mut additions))?;
        }
        Ok(additions.changes)
    }
}
