//! Locks that each change needs, and a check which of them other transactions hold.
//!
//! A merged transaction must not wait for a lock that another transaction holds, because all its commits would wait. So every change
//! declares its locks. When a transaction begins, it locks the free rows among its [`Lock::Row`]s; a commit that needs a held row is left
//! out. A held lock of another kind is noticed by a lock time-out only; after that, commits with the same lock are not merged with others.

use std::collections::{HashMap, HashSet};

use couple_core::{
    AccountId, Change, CoupleId, EmailKey, IdempotencyChange, SessionId,
    account::{AccountChange, TallyId},
    date::DateChange,
    device::DeviceChange,
    digest,
    job::JobChange,
    media::{MediaChange, Space},
    notification::{NotificationChange, Preferences},
    pairing::PairingChange,
    timeline::TimelineChange,
    upload::UploadChange,
};
use uuid::Uuid;

use super::{Dialect, Row, TableConnection, table_names::TableNames};

/// Lock that a commit needs: a row, or a set of rows.
///
/// Commits of a transaction are sorted by their first locks in this order, so that concurrent transactions lock in the same order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Lock {
    /// A row with a known primary key, which can be checked without waiting.
    Row(Table, Key),
    /// Tokens of one address, by the digest of its key, and the account with this address.
    Address(Key),
    /// Sessions and tokens of one account, and the devices that the sessions registered.
    OfAccount(Uuid),
    /// Invites of one account.
    InvitesOf(Uuid),
    /// The open invite that joins two addresses, by the digest of its pair key.
    Pair(Key),
    /// Rows in `member` of the members of one couple; their keys are not known before the statement runs.
    MembersOf(Uuid),
    /// Blocks by, and of, one account.
    BlocksOf(Uuid),
    /// Resumable uploads of one account.
    UploadsOf(Uuid),
    /// Devices of one account.
    DevicesOf(Uuid),
    /// The device that has a destination, by its digest.
    Destination(Key),
    /// The live job with a dedupe key, by the digest of the key.
    Dedupe(Key),
    /// A dead job.
    DeadJob(Uuid),
    /// The recorded outcome of an idempotency key.
    Outcome(Key),
    /// Old rows of a table; their keys are not known before the statement runs.
    Expired(&'static str),
}

impl Lock {
    /// Whether it is a row with a known primary key, which can be checked without waiting.
    pub(super) const fn is_row(&self) -> bool {
        matches!(self, Self::Row(..))
    }
}

/// Primary key, padded with zeros.
type Key = [u8; 32];

/// Tables whose rows are checked, in the order in which commits lock them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Table {
    Member,
    Invite,
    Couple,
    Space,
    Account,
    Session,
    Token,
    Tally,
    Job,
}

fn row(table: Table, id: Uuid) -> Lock {
    let mut key = [0; 32];
    key[..16].copy_from_slice(id.as_bytes());
    Lock::Row(table, key)
}

fn session(account: AccountId, id: SessionId) -> Lock {
    Lock::Row(Table::Session, session_key(account.as_uuid(), id.as_uuid()))
}

fn session_key(account: Uuid, id: Uuid) -> Key {
    let mut key = [0; 32];
    key[..16].copy_from_slice(account.as_bytes());
    key[16..].copy_from_slice(id.as_bytes());
    key
}

fn account(id: AccountId) -> Lock {
    row(Table::Account, id.as_uuid())
}

fn member(id: AccountId) -> Lock {
    row(Table::Member, id.as_uuid())
}

fn couple(id: CoupleId) -> Lock {
    row(Table::Couple, id.as_uuid())
}

fn tally(id: TallyId) -> Lock {
    Lock::Row(Table::Tally, *id.as_digest().as_bytes())
}

fn address(email: &EmailKey) -> Lock {
    Lock::Address(*digest(&[email.as_str().as_bytes()]).as_bytes())
}

/// Locks of a commit in order, without rows that an earlier change of the commit inserts.
pub(super) fn locks_of(changes: &[Change]) -> Vec<Lock> {
    let mut locks = Vec::new();
    let mut inserted = Vec::new();
    for change in changes {
        let from = locks.len();
        add_locks(change, &mut locks);
        if !inserted.is_empty() {
            let mut position = 0;
            locks.retain(|lock| {
                position += 1;
                position <= from || !inserted.contains(lock)
            });
        }
        inserted.extend(inserted_by(change));
    }
    locks.sort_unstable();
    locks.dedup();
    locks
}

/// Row that a change inserts, if its table is one of [`Table`].
///
/// Rows that are made on demand are not among them, because they may exist already. There is no wildcard arm: a new
/// variant does not compile until it is decided here.
fn inserted_by(change: &Change) -> Option<Lock> {
    match change {
        Change::Account(AccountChange::Insert(new)) => Some(account(new.id)),
        Change::Account(AccountChange::InsertToken(token)) => Some(row(Table::Token, token.id.as_uuid())),
        Change::Account(AccountChange::InsertSession { session: new, .. }) => {
            Some(session(new.account, new.id))
        }
        Change::Pairing(PairingChange::InsertInvite { invite, .. }) => {
            Some(row(Table::Invite, invite.id.as_uuid()))
        }
        Change::Pairing(PairingChange::Pair(new)) => Some(couple(new.id)),
        Change::Job(JobChange::Enqueue(job)) => Some(row(Table::Job, job.id.as_uuid())),
        Change::Job(JobChange::Replay { id, .. }) => Some(row(Table::Job, id.as_uuid())),
        Change::Account(
            AccountChange::Update(_)
            | AccountChange::Erase { .. }
            | AccountChange::RedeemToken { .. }
            | AccountChange::RequireToken { .. }
            | AccountChange::RedeemForm { .. }
            | AccountChange::CountTries { .. }
            | AccountChange::EndTokens { .. }
            | AccountChange::EndTokensOf { .. }
            | AccountChange::CountTally { .. }
            | AccountChange::RequireTally { .. }
            | AccountChange::PutTally { .. }
            | AccountChange::PurgeTallies { .. }
            | AccountChange::TouchSession { .. }
            | AccountChange::SetWidgetToken { .. }
            | AccountChange::EndSession { .. }
            | AccountChange::EndSessions { .. }
            | AccountChange::PurgeTokens { .. }
            | AccountChange::PurgeSessions { .. },
        )
        | Change::Pairing(
            PairingChange::CloseInvite { .. }
            | PairingChange::WithdrawInvitesOf { .. }
            | PairingChange::ExpectUnpaired { .. }
            | PairingChange::Describe { .. }
            | PairingChange::Restore { .. }
            | PairingChange::End { .. }
            | PairingChange::Block(_)
            | PairingChange::Unblock { .. }
            | PairingChange::Forget { .. }
            | PairingChange::SetErasure { .. }
            | PairingChange::FinishErasure { .. }
            | PairingChange::Anonymize { .. }
            | PairingChange::PurgeInvites { .. },
        )
        | Change::Job(
            JobChange::Claim { .. }
            | JobChange::ClaimAbandoned { .. }
            | JobChange::Renew { .. }
            | JobChange::Finish { .. }
            | JobChange::Retry { .. }
            | JobChange::Defer { .. }
            | JobChange::Bury { .. }
            | JobChange::PurgeDead { .. },
        )
        | Change::Timeline(
            TimelineChange::Append { .. }
            | TimelineChange::Edit { .. }
            | TimelineChange::Delete { .. }
            | TimelineChange::React { .. }
            | TimelineChange::MarkRead { .. }
            | TimelineChange::Erase { .. },
        )
        | Change::Media(
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
        | Change::Upload(
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
        | Change::Idempotency(IdempotencyChange::Record(_) | IdempotencyChange::Purge { .. })
        | Change::Host(_) => None,
    }
}

/// Adds the locks of a change.
///
/// There is no wildcard arm: a new variant does not compile until its locks are declared.
fn add_locks(change: &Change, locks: &mut Vec<Lock>) {
    match change {
        Change::Account(change) => of_account_change(change, locks),
        Change::Pairing(change) => of_pairing_change(change, locks),
        // Entries are changed only while the row of their couple is locked.
        Change::Timeline(
            TimelineChange::Append { couple: id, .. }
            | TimelineChange::Edit { couple: id, .. }
            | TimelineChange::Delete { couple: id, .. }
            | TimelineChange::React { couple: id, .. }
            | TimelineChange::MarkRead { couple: id, .. }
            | TimelineChange::Erase { couple: id, .. },
        ) => locks.push(couple(*id)),
        // Pictures and renditions are changed only while the row of their space is locked.
        Change::Media(change) => {
            if let Space::Couple(id) = change.space() {
                locks.push(couple(id));
            }
            match change {
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
                | MediaChange::Close { .. } => locks.push(row(Table::Space, change.space().as_uuid())),
            }
        }
        Change::Upload(change) => match change {
            UploadChange::Insert { upload, .. } => locks.push(member(upload.owner)),
            UploadChange::Claim { owner, .. }
            | UploadChange::Append { owner, .. }
            | UploadChange::TakeOver { owner, .. }
            | UploadChange::Finish { owner, .. }
            | UploadChange::ExpireOf { owner, .. }
            | UploadChange::Remove { owner, .. } => locks.push(Lock::UploadsOf(owner.as_uuid())),
        },
        Change::Device(change) => match change {
            DeviceChange::Put { device, .. } => {
                let owner = device.account;
                locks.extend([member(owner), Lock::DevicesOf(owner.as_uuid())]);
                locks.extend(device.session.map(|id| session(owner, id)));
                locks.push(Lock::Destination(*device.destination_digest().as_bytes()));
            }
            DeviceChange::Remove { account, .. } | DeviceChange::RemoveOf { account } => {
                locks.push(Lock::DevicesOf(account.as_uuid()));
            }
            DeviceChange::Retire { destination, .. } => {
                locks.push(Lock::Destination(*destination.as_bytes()));
            }
        },
        Change::Notification(
            NotificationChange::Put(Preferences { person, .. }) | NotificationChange::Remove { person },
        ) => locks.push(member(*person)),
        // Dates are changed only while the row of their couple is locked.
        Change::Date(change) => locks.push(couple(change.couple())),
        Change::Job(change) => match change {
            JobChange::Enqueue(job) => {
                let key = |key: &String| Lock::Dedupe(*digest(&[key.as_bytes()]).as_bytes());
                locks.extend(job.dedupe_key.as_ref().map(key));
            }
            // Claims skip locked rows.
            JobChange::Claim { .. } | JobChange::ClaimAbandoned { .. } => {}
            JobChange::Renew { id, .. }
            | JobChange::Finish { id, .. }
            | JobChange::Retry { id, .. }
            | JobChange::Defer { id, .. }
            | JobChange::Bury { id, .. } => locks.push(row(Table::Job, id.as_uuid())),
            JobChange::Replay { id, .. } => locks.push(Lock::DeadJob(id.as_uuid())),
            JobChange::PurgeDead { .. } => locks.push(Lock::Expired("dead_job")),
        },
        Change::Idempotency(IdempotencyChange::Record(record)) => {
            locks.push(Lock::Outcome(*record.scope.as_bytes()));
        }
        Change::Idempotency(IdempotencyChange::Purge { .. }) => locks.push(Lock::Expired("outcome")),
        // The locks of host statements are not known: the commit runs alone.
        Change::Host(_) => {}
    }
}

fn of_account_change(change: &AccountChange, locks: &mut Vec<Lock>) {
    match change {
        AccountChange::Insert(new) => locks.push(address(new.email.key())),
        AccountChange::Update(new) => locks.extend([account(new.id), address(new.email.key())]),
        AccountChange::Erase { id, .. } => locks.extend([account(*id), Lock::OfAccount(id.as_uuid())]),
        AccountChange::InsertToken(token) => {
            let requester = token.account.zip(token.session);
            locks.extend(requester.map(|(account, id)| session(account, id)));
        }
        AccountChange::RedeemToken { id, .. }
        | AccountChange::RequireToken { id, .. }
        | AccountChange::RedeemForm { id, .. } => locks.push(row(Table::Token, id.as_uuid())),
        AccountChange::CountTries { email, .. } | AccountChange::EndTokens { email, .. } => {
            locks.push(address(email));
        }
        AccountChange::EndTokensOf { account, .. } => locks.push(Lock::OfAccount(account.as_uuid())),
        AccountChange::CountTally { id, .. } | AccountChange::PutTally { id, .. } => locks.push(tally(*id)),
        // Reads without a lock.
        AccountChange::RequireTally { .. } => {}
        AccountChange::InsertSession { session, .. } => locks.push(account(session.account)),
        AccountChange::TouchSession { account, id, .. } => locks.push(session(*account, *id)),
        AccountChange::SetWidgetToken { account, id, .. } => {
            locks.extend([member(*account), session(*account, *id)]);
        }
        AccountChange::EndSession { account, id } => {
            locks.extend([session(*account, *id), Lock::OfAccount(account.as_uuid())]);
        }
        AccountChange::EndSessions { account, .. } => locks.push(Lock::OfAccount(account.as_uuid())),
        AccountChange::PurgeTallies { .. } => locks.push(Lock::Expired("tally")),
        AccountChange::PurgeTokens { .. } => locks.push(Lock::Expired("token")),
        AccountChange::PurgeSessions { .. } => locks.push(Lock::Expired("session")),
    }
}

fn of_pairing_change(change: &PairingChange, locks: &mut Vec<Lock>) {
    match change {
        PairingChange::InsertInvite { invite, .. } => {
            locks.push(member(invite.inviter));
            locks.extend(invite.pair_key().map(|pair| Lock::Pair(*pair.as_bytes())));
        }
        PairingChange::CloseInvite { id, .. } => locks.push(row(Table::Invite, id.as_uuid())),
        PairingChange::WithdrawInvitesOf { inviter } => {
            locks.extend([member(*inviter), Lock::InvitesOf(inviter.as_uuid())]);
        }
        PairingChange::Pair(new) => locks.extend(new.members.map(member)),
        PairingChange::ExpectUnpaired { account } => locks.push(member(*account)),
        PairingChange::Describe { id, .. } | PairingChange::Restore { id, .. } => locks.push(couple(*id)),
        // Also unpairs both members in `member`, whose rows other commits lock without the couple's.
        PairingChange::End { id, .. } => locks.extend([couple(*id), Lock::MembersOf(id.as_uuid())]),
        PairingChange::Block(block) => {
            let both = [block.blocker, block.blocked];
            locks.extend(both.map(|id| Lock::BlocksOf(id.as_uuid())));
        }
        PairingChange::Unblock { blocker, blocked } => {
            locks.extend([blocker, blocked].map(|id| Lock::BlocksOf(id.as_uuid())));
        }
        PairingChange::Forget { account, .. } => {
            let id = account.as_uuid();
            locks.extend([member(*account), Lock::InvitesOf(id), Lock::BlocksOf(id)]);
        }
        PairingChange::SetErasure { person, .. } | PairingChange::FinishErasure { person, .. } => {
            locks.push(member(*person));
        }
        PairingChange::Anonymize { couple: id, .. } => locks.push(couple(*id)),
        PairingChange::PurgeInvites { .. } => locks.push(Lock::Expired("invite")),
    }
}

impl Table {
    const ALL: [Self; 9] = [
        Self::Member,
        Self::Invite,
        Self::Couple,
        Self::Space,
        Self::Account,
        Self::Session,
        Self::Token,
        Self::Tally,
        Self::Job,
    ];

    /// Name without a prefix.
    const fn name(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Invite => "invite",
            Self::Couple => "couple",
            Self::Space => "media_space",
            Self::Account => "account",
            Self::Session => "session",
            Self::Token => "token",
            Self::Tally => "tally",
            Self::Job => "job",
        }
    }

    /// Columns of the primary key.
    const fn key(self) -> &'static str {
        match self {
            Self::Member => "account_id",
            Self::Space => "space_id",
            Self::Session => "account_id, id",
            Self::Invite | Self::Couple | Self::Account | Self::Token | Self::Tally | Self::Job => "id",
        }
    }

    /// Whether the first change that needs a row inserts it.
    const fn is_made_on_demand(self) -> bool {
        matches!(self, Self::Member | Self::Space | Self::Tally)
    }

    /// Statement that selects the existing rows among `keys`, with `how` as its end.
    fn select<D: Dialect>(self, names: &TableNames, keys: &[Key], how: &str) -> String {
        let one = |key: &Key| match self {
            Self::Tally => D::literal_bytes(&format!("{}{}", uuid(key, 0).simple(), uuid(key, 16).simple())),
            _ => D::literal(uuid(key, 0)),
        };
        let condition = if self == Self::Session {
            let (first, second) = (|key| D::literal(uuid(key, 0)), |key| D::literal(uuid(key, 16)));
            let pair = |key| format!("(account_id = {} AND id = {})", first(key), second(key));
            keys.iter().map(pair).collect::<Vec<_>>().join(" OR ")
        } else {
            format!("{} IN ({})", self.key(), keys.iter().map(one).collect::<Vec<_>>().join(", "))
        };
        let (number, key, name) = (self as u8, self.key(), names.qualified(self.name()));
        let index = D::BY_PRIMARY_KEY;
        format!("; SELECT {number}, {key} FROM {name}{index} WHERE {condition}{how}")
    }
}

fn uuid(key: &Key, from: usize) -> Uuid {
    let mut id = [0; 16];
    id.copy_from_slice(&key[from..from + 16]);
    Uuid::from_bytes(id)
}

/// Locks the free rows of `wanted`, and returns the rows that another transaction holds.
///
/// Takes the round trip of `begin`, if there is one, and does not wait for locks.
///
/// A row that `SKIP LOCKED` does not return is held or does not exist. A second round trip without a lock finds out which. For tables
/// whose rows are made on demand, this select is part of the first round trip. A row that does not exist is not held.
pub(super) async fn lock_free_rows<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    begin: &str,
    then: &str,
    wanted: impl Iterator<Item = Lock>,
) -> sqlx::Result<HashSet<Lock>> {
    let names = connection.names;
    let mut keys = Table::ALL.map(|table| (table, Vec::new()));
    for lock in wanted {
        if let Lock::Row(table, key) = lock {
            keys[table as usize].1.push(key);
        }
    }
    let mut sql = begin.to_owned();
    for (table, keys) in &mut keys {
        keys.sort_unstable();
        keys.dedup();
        if keys.is_empty() {
            continue;
        }
        sql.push_str(&table.select::<D>(names, keys, " FOR UPDATE SKIP LOCKED"));
        if table.is_made_on_demand() {
            // Selects without a lock: a row that is returned here only is held.
            sql.push_str(&table.select::<D>(names, keys, ""));
        }
    }
    sql.push_str(then);
    let mut times_seen = HashMap::<Lock, u32>::new();
    let sql = sql.strip_prefix("; ").map(str::to_owned).unwrap_or(sql);
    if sql.is_empty() {
        return Ok(HashSet::new());
    }
    for row in found::<D>(connection, sql).await? {
        *times_seen.entry(row).or_insert(0) += 1;
    }
    let (mut held, mut missing) = (HashSet::new(), String::new());
    for (table, keys) in keys {
        let seen = |key: &Key| times_seen.get(&Lock::Row(table, *key)).copied().unwrap_or(0);
        if table.is_made_on_demand() {
            held.extend(keys.iter().filter(|key| seen(key) == 1).map(|key| Lock::Row(table, *key)));
        } else {
            let unseen: Vec<Key> = keys.into_iter().filter(|key| seen(key) == 0).collect();
            if !unseen.is_empty() {
                missing.push_str(&table.select::<D>(names, &unseen, ""));
            }
        }
    }
    if let Some(sql) = missing.strip_prefix("; ") {
        held.extend(found::<D>(connection, sql.to_owned()).await?);
    }
    Ok(held)
}

/// Runs statements of [`Table::select`] and decodes the rows that they return.
async fn found<D: Dialect>(connection: &mut TableConnection<'_, D>, sql: String) -> sqlx::Result<Vec<Lock>> {
    let rows = D::fetch_raw(connection.inner, sql).await?;
    let lock = |fetched: &D::Row| {
        let mut columns = Row::<D>::new(fetched);
        let number = columns.take::<i64>()?;
        let table = Table::ALL.into_iter().find(|table| i64::from(*table as u8) == number);
        Ok(match table {
            Some(Table::Tally) => Lock::Row(Table::Tally, *columns.digest("tally", "id")?.as_bytes()),
            Some(Table::Session) => Lock::Row(Table::Session, session_key(columns.take()?, columns.take()?)),
            Some(table) => row(table, columns.take()?),
            None => return Err(couple_core::Error::corrupt("row", "table", number)),
        })
    };
    let decoded = rows.iter().map(lock).collect::<Result<_, couple_core::Error>>();
    decoded.map_err(|error| sqlx::Error::Decode(error.into()))
}

#[cfg(test)]
mod tests {
    use couple_conformance::World;
    use couple_core::account::TokenKind;

    use super::*;

    #[test]
    fn rows_inserted_by_the_commit_are_not_locked() {
        let world = World::default();
        let (new, token) = (world.account("ana"), world.token(TokenKind::SignUp, "ana"));
        let begun = world.session(new.id);
        let locks = locks_of(&[
            AccountChange::Insert(new.clone()).into(),
            AccountChange::InsertSession { session: begun.clone(), version: 0 }.into(),
            AccountChange::TouchSession { account: new.id, id: begun.id, seen_at: world.now() }.into(),
            AccountChange::InsertToken(token).into(),
        ]);
        assert_eq!(locks, [address(new.email.key())]);
        let other = AccountChange::InsertSession { session: begun, version: 0 };
        assert_eq!(locks_of(&[other.into()]), [account(new.id)], "an account of an earlier commit");
    }

    #[test]
    fn end_of_a_couple_locks_the_rows_of_its_members() {
        let world = World::default();
        let members = [world.account_id(), world.account_id()];
        let couple_id = world.couple(members).id;
        let locks =
            locks_of(&[PairingChange::End { id: couple_id, members, at: world.now(), by: None }.into()]);
        assert_eq!(locks, [couple(couple_id), Lock::MembersOf(couple_id.as_uuid())]);
    }

    #[test]
    fn locks_are_sorted_and_unique() {
        let world = World::default();
        let new = world.couple([world.account_id(), world.account_id()]);
        let [one, two] = new.members;
        let withdraw = |inviter| PairingChange::WithdrawInvitesOf { inviter }.into();
        let locks = locks_of(&[withdraw(two), PairingChange::Pair(new).into(), withdraw(one)]);
        let mut members = [member(one), member(two)];
        members.sort_unstable();
        assert_eq!(locks[..2], members);
        assert_eq!(locks.len(), 4);
    }
}
