//! A complete store in one file: ordered keys and values in memory, and a log on disk. `docs/adapters.md` explains it step by step.
//!
//! All data is in one ordered map of bytes, [`Tree`]. A commit checks and writes rows through a [`View`], and its writes are appended to a
//! file and synchronized before its caller gets the result. Opening the store replays the file. An adapter for a database with ordered keys
//! (`FoundationDB`, LMDB, redb, `RocksDB`) can keep the parts 1 to 4 and replace part 5.
//!
//! Limits: all data fits into memory, one process opens a file, and the file shrinks only when it is opened.
//!
//! `cargo run --example own_store` uses it, `cargo test --example own_store` checks it.

#![expect(clippy::print_stdout, reason = "an example prints its results")]

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    marker::PhantomData,
    ops::Bound,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    thread::JoinHandle,
    time::Duration,
};

use async_trait::async_trait;
use couple::{
    AccountId, CoupleId, Error, ErrorKind, Store, Timestamp,
    account::{
        Account, AccountChange, AccountReads, PasswordHash, ProofForm, SeenToken, Session, SessionToken,
        Tally, TallyId, Token, TokenKind, Tries,
    },
    core::{
        Change, ChangeResult, CommitError, Committed, Conflict, DateId, DeviceId, Digest, DisplayName,
        EmailAddress, EmailKey, IdempotencyChange, IdempotencyReads, InviteId, JobId, Label, Locale, MediaId,
        OutcomeRecord, Secret, SessionId, TimeZoneName, TokenId, UploadId,
        date::{CalendarDay, CoupleDate, DateChange, DateKind, DateReads},
        device::{Device, DeviceChange, DeviceReads},
        digest,
        notification::{DigestDelay, NotificationChange, NotificationReads, Preferences, QuietHours},
        push::{Destination, Surface},
        upload::{ResumableUpload, UnfinishedUploads, UploadChange, UploadPart, UploadReads},
    },
    job::{ClaimToken, ClaimedJob, DeadJob, JobChange, JobReads, NewJob, QueueStats},
    media::{
        Crop, ExpectedMedia, Format, Media, MediaChange, MediaReads, MediaState, Purpose, Rendition, Source,
        Space, SpaceUsage,
    },
    pairing::{Block, Couple, Invite, InviteState, PairingChange, PairingReads, Side},
    timeline::{Body, Entry, Page, TimelineChange, TimelineReads},
};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

// Part 1: rows as bytes. One encoding serves keys and values: the bytes have the order of the values, and the encoding of a tuple begins
// with the encoding of its first fields, so that all keys with equal first fields are neighbours.

type Bytes = Vec<u8>;

trait Encode {
    fn encode(&self, out: &mut Bytes);
}

/// Reads from the beginning of `input`, and removes what it read. None for bytes that no encoder wrote.
trait Decode: Sized {
    fn decode(input: &mut &[u8]) -> Option<Self>;
}

impl<T: Encode + ?Sized> Encode for &T {
    fn encode(&self, out: &mut Bytes) {
        (**self).encode(out);
    }
}

/// Integers, with the sign bit flipped so that negative numbers are first.
macro_rules! integers {
    ($($type:ty: $flip:expr;)+) => {$(
        impl Encode for $type {
            fn encode(&self, out: &mut Bytes) {
                out.extend((self ^ $flip).to_be_bytes());
            }
        }
        impl Decode for $type {
            fn decode(input: &mut &[u8]) -> Option<Self> {
                let (bytes, rest) = input.split_first_chunk()?;
                *input = rest;
                Some(Self::from_be_bytes(*bytes) ^ $flip)
            }
        }
    )+};
}
integers! { u8: 0; u32: 0; u64: 0; u128: 0; i64: i64::MIN; }

/// Text ends with the bytes 0 and 1. A NUL in it is encoded as 0 and 255, so that any text is kept.
impl Encode for str {
    fn encode(&self, out: &mut Bytes) {
        for byte in self.bytes() {
            out.push(byte);
            if byte == 0 {
                out.push(255);
            }
        }
        out.extend([0, 1]);
    }
}
impl Encode for String {
    fn encode(&self, out: &mut Bytes) {
        self.as_str().encode(out);
    }
}
impl Decode for String {
    fn decode(input: &mut &[u8]) -> Option<Self> {
        let mut text = Bytes::new();
        loop {
            match u8::decode(input)? {
                0 if u8::decode(input)? == 1 => return Self::from_utf8(text).ok(),
                byte => text.push(byte),
            }
        }
    }
}

impl<T: Encode> Encode for Option<T> {
    fn encode(&self, out: &mut Bytes) {
        out.push(u8::from(self.is_some()));
        self.iter().for_each(|value| value.encode(out));
    }
}
impl<T: Decode> Decode for Option<T> {
    fn decode(input: &mut &[u8]) -> Option<Self> {
        match u8::decode(input)? {
            0 => Some(None),
            _ => T::decode(input).map(Some),
        }
    }
}

/// A list is a chain of options.
impl<T: Encode> Encode for Vec<T> {
    fn encode(&self, out: &mut Bytes) {
        self.iter().for_each(|item| Some(item).encode(out));
        None::<T>.encode(out);
    }
}
impl<T: Decode> Decode for Vec<T> {
    fn decode(input: &mut &[u8]) -> Option<Self> {
        let mut items = Self::new();
        while let Some(item) = Option::decode(input)? {
            items.push(item);
        }
        Some(items)
    }
}

impl<T: Encode> Encode for [T; 2] {
    fn encode(&self, out: &mut Bytes) {
        self.iter().for_each(|item| item.encode(out));
    }
}
impl<T: Decode> Decode for [T; 2] {
    fn decode(input: &mut &[u8]) -> Option<Self> {
        Some([T::decode(input)?, T::decode(input)?])
    }
}

macro_rules! tuples {
    ($(($($name:ident),*);)+) => {$(
        #[allow(non_snake_case, unused_variables, clippy::unused_unit, reason = "also for the empty tuple")]
        impl<$($name: Encode),*> Encode for ($($name,)*) {
            fn encode(&self, out: &mut Bytes) {
                let ($($name,)*) = self;
                $($name.encode(out);)*
            }
        }
        #[allow(unused_variables, reason = "also for the empty tuple")]
        impl<$($name: Decode),*> Decode for ($($name,)*) {
            fn decode(input: &mut &[u8]) -> Option<Self> {
                Some(($($name::decode(input)?,)*))
            }
        }
    )+};
}
tuples! { (); (A, B); (A, B, C); }

/// Types that are stored as another type.
macro_rules! stored_as {
    ($($type:ty as $stored:ty: $to:expr, $from:expr;)+) => {$(
        impl Encode for $type {
            fn encode(&self, out: &mut Bytes) {
                let to: fn(&$type) -> $stored = $to;
                to(self).encode(out);
            }
        }
        impl Decode for $type {
            fn decode(input: &mut &[u8]) -> Option<Self> {
                let from: fn($stored) -> Option<$type> = $from;
                from(Decode::decode(input)?)
            }
        }
    )+};
}
stored_as! {
    bool as u8: |flag| u8::from(*flag), |byte| Some(byte != 0);
    Uuid as u128: |id| id.as_u128(), |bits| Some(Uuid::from_u128(bits));
    Digest as [u128; 2]: halves, |[high, low]| digest_of(high, low);
    Timestamp as i64: |at| at.micros(), |micros| Some(Timestamp::from_micros(micros));
    TallyId as Digest: |id| *id.as_digest(), |digest| Some(TallyId::from_digest(digest));
    EmailAddress as (String, EmailKey): |email| (email.as_str().to_owned(), email.key().clone()),
        |(address, key)| Some(EmailAddress::from_stored(address, key));
    TokenKind as String: |kind| kind.as_str().to_owned(), |text| TokenKind::from_stored(&text);
    ProofForm as String: |form| form.as_str().to_owned(), |text| ProofForm::from_stored(&text);
    Side as bool: |side| *side == Side::Second, |second| Side::from_index(i64::from(second));
    InviteState as (u8, Option<(AccountId, CoupleId)>): |state| match *state {
        InviteState::Open => (0, None),
        InviteState::Accepted { by, couple } => (1, Some((by, couple))),
        InviteState::Declined => (2, None),
        InviteState::Withdrawn => (3, None),
    }, |stored| match stored {
        (0, None) => Some(InviteState::Open),
        (1, Some((by, couple))) => Some(InviteState::Accepted { by, couple }),
        (2, None) => Some(InviteState::Declined),
        (3, None) => Some(InviteState::Withdrawn),
        _ => None,
    };
    Space as (Uuid, i64): |space| (space.as_uuid(), space.kind()), |(id, kind)| Space::from_stored(kind, id);
    [bool; 3] as (bool, bool, bool): |[one, two, three]| (*one, *two, *three),
        |(one, two, three)| Some([one, two, three]);
    QuietHours as (i64, i64): |quiet| (quiet.from().into(), quiet.to().into()),
        |(from, to)| QuietHours::from_stored(from, to);
    DateKind as i64: |kind| kind.index(), DateKind::from_index;
    CalendarDay as String: |day| day.to_string(), |text| CalendarDay::from_stored(&text);
    DigestDelay as i64: |delay| delay.minutes().into(), DigestDelay::from_stored;
    Surface as i64: |surface| surface.index(), Surface::from_index;
    Destination as (u8, String, (String, bool, Vec<u8>)): |destination| match destination {
        Destination::Apns { token, app, sandbox } => (0, token.expose().clone(), (app.clone(), *sandbox, Vec::new())),
        Destination::Fcm { token, app } => (1, token.expose().clone(), (app.clone(), false, Vec::new())),
        Destination::WebPush { endpoint, key, auth } => {
            (2, endpoint.expose().clone(), (String::new(), false, [&key[..], auth.expose()].concat()))
        }
    }, |(service, token, (app, sandbox, keys))| {
        let token = Secret::new(token);
        match (service, keys.split_first_chunk()) {
            (0, None) => Some(Destination::Apns { token, app, sandbox }),
            (1, None) => Some(Destination::Fcm { token, app }),
            (2, Some((key, auth))) => {
                Some(Destination::WebPush { endpoint: token, key: *key, auth: Secret::new(auth.try_into().ok()?) })
            }
            _ => None,
        }
    };
    Format as i64: |format| format.index(), Format::from_index;
    Purpose as bool: |purpose| *purpose == Purpose::Photo,
        |photo| Some(if photo { Purpose::Photo } else { Purpose::Avatar });
    MediaState as (bool, Option<String>): |state| match state {
        MediaState::Processing => (false, None),
        MediaState::Ready => (true, None),
        MediaState::Rejected(reason) => (false, Some(reason.clone())),
    }, |stored| match stored {
        (false, None) => Some(MediaState::Processing),
        (true, None) => Some(MediaState::Ready),
        (_, Some(reason)) => Some(MediaState::Rejected(reason)),
    };
}

fn halves(digest: &Digest) -> [u128; 2] {
    let (high, low) = digest.as_bytes().split_at(16);
    [high, low].map(|half| half.iter().fold(0, |bits, byte| bits << 8 | u128::from(*byte)))
}
fn digest_of(high: u128, low: u128) -> Option<Digest> {
    [high, low].map(u128::to_be_bytes).concat().try_into().ok().map(Digest::from_bytes)
}

macro_rules! ids {
    ($($type:ident),+) => {
        stored_as! { $($type as Uuid: |id| id.as_uuid(), |id| Some($type::from_uuid(id));)+ }
    };
}
ids! { AccountId, SessionId, TokenId, InviteId, CoupleId, MediaId, UploadId, DateId, DeviceId, JobId }

macro_rules! texts {
    ($($type:ident),+) => {
        stored_as! { $($type as String: |text| text.as_str().to_owned(), |text| Some($type::from_stored(text));)+ }
    };
}
texts! { EmailKey, DisplayName, Locale, TimeZoneName, Label, PasswordHash, Body }

/// A struct is stored as its fields, one after the other. A new field does not compile until it is listed here.
macro_rules! structs {
    ($($type:ident { $($field:ident),+ })+) => {$(
        impl Encode for $type {
            fn encode(&self, out: &mut Bytes) {
                let Self { $($field),+ } = self;
                $($field.encode(out);)+
            }
        }
        impl Decode for $type {
            fn decode(input: &mut &[u8]) -> Option<Self> {
                Some(Self { $($field: Decode::decode(input)?),+ })
            }
        }
    )+};
}
structs! {
    Account { id, email, display_name, locale, time_zone, birthday, password, created_at, deletion_due, version }
    Token {
        id, kind, email, account, link, session, network, tries, foreign_tries, used_form, display_name, locale,
        created_at, code_expires_at, expires_at, used_at
    }
    Session { id, account, token, device, created_at, authenticated_at, seen_at, expires_at, widget_token }
    Tally { count, expires_at }
    Invite { id, inviter, inviter_email, target, message, code, link, created_at, expires_at, state }
    Couple { id, members, since, epoch, ended_at, title, anniversary, previous, restore, head_seq, read }
    Block { blocker, blocker_email, blocked, at }
    Membership { account, couple, since }
    Erasure { person, due }
    Entry { seq, author, client_id, kind, body, target, created_at, edited_at, deleted_at, reactions }
    Crop { x, y, width, height }
    Source { blob, bytes, media_type }
    Media {
        id, space, owner, purpose, state, digest, crop, key, source, width, height, animated, alpha, placeholder,
        uses, created_at
    }
    Rendition { name, format, width, height, bytes, blob, made_at, used_at }
    SpaceUsage { bytes, avatar, closed }
    UploadPart { blob, bytes }
    ResumableUpload {
        id, owner, couple, length, offset, parts, writer, metadata, concatenation, media, expires_at
    }
    Device { account, id, session, destination, surface, locale, time_zone, app_version, registered_at }
    CoupleDate { couple, id, version, kind, title, day, is_yearly, created_at }
    Preferences { person, version, kinds, previews, muted_until, quiet_hours, time_zone, digest, digest_due }
    NewJob { id, queue, name, payload, dedupe_key, due_at, expires_at, max_attempts, created_at }
    LiveJob { job, attempts, claim }
    DeadJob { job, attempts, error, died_at }
    OutcomeRecord { scope, request, outcome, recorded_at, expires_at }
}

// Part 2: tables and indexes. A row has the key `TABLE key`, and an entry `INDEX fields key` for each of its indexes, whose value is the
// key of the row. Indexes follow from the row: changes only put and remove rows.

trait Row: Encode + Decode {
    const TABLE: &'static str;

    /// Primary key.
    fn key(&self) -> impl Encode;

    /// Entries of the indexes that contain the row, made by [`Index::entry`].
    fn indexes(&self) -> Vec<Bytes>;
}

/// An index over rows of `R`: their order, and which of them it contains.
struct Index<R>(&'static str, PhantomData<fn() -> R>);

impl<R: Row> Index<R> {
    const fn new(name: &'static str) -> Self {
        Self(name, PhantomData)
    }
    /// Entry of a row with these fields. [`View::put`] appends the primary key, by which equal fields are ordered.
    fn entry(&self, fields: &impl Encode) -> Bytes {
        key(self.0, fields)
    }
    /// All rows whose fields begin with these.
    fn at(&self, fields: &impl Encode) -> Scan<R> {
        Scan::new(self.0, fields, true)
    }
}

/// A range of rows in the order of an index or of their primary keys.
struct Scan<R> {
    name: &'static str,
    from: Bytes,
    to: Bytes,
    last_first: bool,
    is_index: bool,
    rows: PhantomData<fn() -> R>,
}

impl<R: Row> Scan<R> {
    fn new(name: &'static str, fields: &impl Encode, is_index: bool) -> Self {
        let from = key(name, fields);
        Self { name, to: end(from.clone()), from, last_first: false, is_index, rows: PhantomData }
    }
    /// All rows whose primary keys begin with these fields.
    fn rows(fields: &impl Encode) -> Self {
        Self::new(R::TABLE, fields, false)
    }
    /// Only rows after these fields, if there are any.
    fn after(mut self, fields: Option<impl Encode>) -> Self {
        if let Some(fields) = fields {
            self.from = end(key(self.name, &fields)).min(self.to.clone());
        }
        self
    }
    /// Only rows before these fields.
    fn before(mut self, fields: &impl Encode) -> Self {
        self.to = key(self.name, fields).max(self.from.clone());
        self
    }
    /// Only rows before these fields, or with these fields.
    fn until(mut self, fields: &impl Encode) -> Self {
        self.to = end(key(self.name, fields)).max(self.from.clone());
        self
    }
    fn last_first(mut self) -> Self {
        self.last_first = true;
        self
    }
}

fn key(name: &str, fields: &impl Encode) -> Bytes {
    let mut key = Bytes::new();
    (name, fields).encode(&mut key);
    key
}

/// The first key after all keys that begin with `prefix`.
fn end(mut prefix: Bytes) -> Bytes {
    while prefix.pop_if(|last| *last == 255).is_some() {}
    if let Some(last) = prefix.last_mut() {
        *last += 1;
    }
    prefix
}

/// Tables: type of the row, name, primary key, and for each index the fields of the row's entries, none if the index leaves it out.
macro_rules! tables {
    ($($type:ty, $table:literal, |$row:ident| $key:expr, { $($index:ident: $entries:expr,)* })+) => {$(
        $(const $index: Index<$type> = Index::new(stringify!($index));)*
        impl Row for $type {
            const TABLE: &'static str = $table;
            fn key(&self) -> impl Encode {
                let $row = self;
                $key
            }
            #[allow(unused_mut, unused_variables, reason = "a table may have no index")]
            fn indexes(&self) -> Vec<Bytes> {
                let ($row, mut entries) = (self, Vec::new());
                $(entries.extend($entries.into_iter().map(|fields| $index.entry(&fields)));)*
                entries
            }
        }
    )+};
}
tables! {
    Account, "account", |row| row.id, {
        ACCOUNT_BY_EMAIL: [row.email.key()],
        ACCOUNT_BY_DELETION: row.deletion_due,
    }
    Token, "token", |row| row.id, {
        TOKEN_BY_LINK: [row.link],
        TOKEN_BY_TARGET: [(row.kind, row.email.key(), row.created_at)],
        TOKEN_BY_ACCOUNT: row.account,
        TOKEN_BY_EXPIRY: [row.expires_at],
    }
    Session, "session", |row| (row.account, row.id), {
        SESSION_BY_BEARER_TOKEN: [row.token],
        SESSION_BY_WIDGET_TOKEN: row.widget_token,
        SESSION_BY_ACCOUNT: [(row.account, row.created_at)],
        SESSION_BY_EXPIRY: [row.expires_at],
        SESSION_BY_USE: [row.seen_at],
    }
    (TallyId, Tally), "tally", |row| row.0, {
        TALLY_BY_EXPIRY: [row.1.expires_at],
    }
    Invite, "invite", |row| row.id, {
        INVITE_BY_CODE: [row.code],
        INVITE_BY_LINK: [row.link],
        INVITE_BY_INVITER: [row.inviter],
        INVITE_BY_EXPIRY: [row.expires_at],
        OPEN_INVITE_BY_INVITER: (row.state == InviteState::Open).then_some((row.inviter, row.created_at)),
        OPEN_INVITE_BY_TARGET: row.target.as_ref().filter(|_| row.state == InviteState::Open)
            .map(|target| (target.key(), row.created_at)),
        OPEN_INVITE_BY_PAIR: row.pair_key().filter(|_| row.state == InviteState::Open),
    }
    Couple, "couple", |row| row.id, {
        ACTIVE_COUPLE_BY_MEMBER: row.members.into_iter().filter(|_| row.ended_at.is_none()),
    }
    Membership, "membership", |row| (row.account, row.couple), {
        MEMBERSHIP_BY_TIME: [(row.account, row.since)],
    }
    Block, "block", |row| (row.blocker, row.blocked), {
        BLOCK_BY_TIME: [(row.blocker, row.at)],
        BLOCK_BY_EMAIL: [(&row.blocker_email, row.blocked)],
        BLOCK_BY_BLOCKED: [row.blocked],
    }
    Erasure, "erasure", |row| row.person, {
        ERASURE_BY_TIME: [row.due],
    }
    (CoupleId, Entry), "entry", |row| (row.0, row.1.seq), {
        ENTRY_BY_CLIENT_ID: row.1.author.zip(row.1.client_id.as_ref()).map(|(author, id)| (row.0, author, id)),
    }
    Media, "media", |row| row.id, {
        MEDIA_BY_SPACE: [row.space],
        MEDIA_BY_IDENTITY: [(row.space, row.identity())],
    }
    (MediaId, Rendition), "rendition", |row| (row.0, &row.1.name, row.1.format), {
        RENDITION_BY_USE: row.1.used_at,
    }
    (Space, SpaceUsage), "space", |row| row.0, {}
    ResumableUpload, "upload", |row| row.id, {
        UPLOAD_BY_OWNER: [row.owner],
        UPLOAD_BY_EXPIRY: [row.expires_at],
    }
    Device, "device", |row| (row.account, row.id), {
        DEVICE_BY_TIME: [(row.account, row.registered_at)],
        DEVICE_BY_DESTINATION: [row.destination_digest()],
    }
    Preferences, "preferences", |row| row.person, {}
    CoupleDate, "date", |row| (row.couple, row.id), {
        DATE_BY_TIME: [(row.couple, row.created_at)],
    }
    LiveJob, "job", |row| row.job.id, {
        JOB_BY_DUE_TIME: [(&row.job.queue, row.claim.is_some(), row.job.due_at)],
        JOB_BY_DEDUPE_KEY: row.job.dedupe_key.as_ref(),
    }
    DeadJob, "dead job", |row| row.job.id, {
        DEAD_JOB_BY_QUEUE: [&row.job.queue],
        DEAD_JOB_BY_TIME: [row.died_at],
    }
    OutcomeRecord, "outcome", |row| row.scope, {
        OUTCOME_BY_EXPIRY: [row.expires_at],
    }
}

/// A couple that an account is or was in. Replacing a member ([`PairingChange::Anonymize`]) removes it.
struct Membership {
    account: AccountId,
    couple: CoupleId,
    since: Timestamp,
}

/// Person, and the time from which the data of the person is erased.
struct Erasure {
    person: AccountId,
    due: Timestamp,
}

struct LiveJob {
    /// The job. While it is claimed, `due_at` is the end of the lease.
    job: NewJob,
    attempts: i64,
    claim: Option<ClaimToken>,
}

// Part 3: reading and writing rows. The tree contains what is on disk. A view adds the writes that are not on disk yet, which readers must
// not see: a crash could take them back.

/// All rows and index entries.
type Tree = BTreeMap<Bytes, Bytes>;
/// New values by key; none for a removed key.
type Writes = BTreeMap<Bytes, Option<Bytes>>;

struct View<'a> {
    tree: &'a Tree,
    writes: Writes,
    /// Former content of `writes` before each write of the current commit.
    undo: Vec<(Bytes, Option<Option<Bytes>>)>,
}

impl<'a> View<'a> {
    fn new(tree: &'a Tree) -> Self {
        Self { tree, writes: Writes::new(), undo: Vec::new() }
    }

    fn value(&self, key: &[u8]) -> Option<&Bytes> {
        match self.writes.get(key) {
            Some(written) => written.as_ref(),
            None => self.tree.get(key),
        }
    }

    fn decode<R: Row>(&self, key: &[u8]) -> Result<Option<R>, Error> {
        let Some(mut value) = self.value(key).map(Bytes::as_slice) else { return Ok(None) };
        let row = R::decode(&mut value).filter(|_| value.is_empty());
        row.map(Some).ok_or_else(|| Error::corrupt(R::TABLE, "row", key.escape_ascii()))
    }

    fn get<R: Row>(&self, id: &impl Encode) -> Result<Option<R>, Error> {
        self.decode(&key(R::TABLE, id))
    }

    /// Keys of rows in a range: those of the tree that were not written, merged with those that were.
    fn keys<'v, R: Row>(&'v self, scan: &'v Scan<R>) -> Box<dyn Iterator<Item = &'v Bytes> + 'v> {
        let range = (Bound::Included(&scan.from), Bound::Excluded(&scan.to));
        let row = |(key, value): (&'v Bytes, &'v Bytes)| (key, if scan.is_index { value } else { key });
        let old =
            self.tree.range::<Bytes, _>(range).filter(|(key, _)| !self.writes.contains_key(*key)).map(row);
        let new = self.writes.range::<Bytes, _>(range);
        let new = new.filter_map(|(key, value)| value.as_ref().map(|value| (key, value))).map(row);
        if scan.last_first {
            merge(old.rev(), new.rev(), |old, new| old > new)
        } else {
            merge(old, new, |old, new| old < new)
        }
    }

    /// The first `limit` rows of a range for which `wanted` is true.
    fn select<R: Row>(
        &self,
        scan: &Scan<R>,
        limit: u32,
        wanted: impl Fn(&R) -> bool,
    ) -> Result<Vec<R>, Error> {
        let rows = self.keys(scan).map(|key| {
            self.decode(key)?.ok_or_else(|| Error::corrupt(R::TABLE, scan.name, key.escape_ascii()))
        });
        rows.filter(|row| row.as_ref().map_or(true, &wanted)).take(limit as usize).collect()
    }
    fn list<R: Row>(&self, scan: &Scan<R>, limit: u32) -> Result<Vec<R>, Error> {
        self.select(scan, limit, |_| true)
    }
    fn all<R: Row>(&self, scan: &Scan<R>) -> Result<Vec<R>, Error> {
        self.list(scan, u32::MAX)
    }
    fn first<R: Row>(&self, scan: &Scan<R>) -> Result<Option<R>, Error> {
        Ok(self.list(scan, 1)?.pop())
    }
    fn has<R: Row>(&self, scan: &Scan<R>) -> bool {
        self.keys(scan).next().is_some()
    }

    fn set(&mut self, key: Bytes, value: Option<Bytes>) {
        let before = self.writes.insert(key.clone(), value);
        self.undo.push((key, before));
    }

    /// Replaces the row with this key, and its index entries, by `row`.
    fn replace<R: Row>(&mut self, key: Bytes, row: Option<&R>) -> Result<(), Error> {
        let entries = |row: &R| -> Vec<Bytes> {
            let with_key = |mut entry: Bytes| {
                row.key().encode(&mut entry);
                entry
            };
            row.indexes().into_iter().map(with_key).collect()
        };
        let old = self.decode::<R>(&key)?.as_ref().map_or_else(Vec::new, entries);
        let new = row.map_or_else(Vec::new, entries);
        for entry in old.iter().filter(|entry| !new.contains(entry)) {
            self.set(entry.clone(), None);
        }
        for entry in new.into_iter().filter(|entry| !old.contains(entry)) {
            self.set(entry, Some(key.clone()));
        }
        let value = row.map(|row| {
            let mut value = Bytes::new();
            row.encode(&mut value);
            value
        });
        self.set(key, value);
        Ok(())
    }
    /// Inserts a row, or replaces the row with its key.
    fn put<R: Row>(&mut self, row: &R) -> Result<(), Error> {
        self.replace(key(R::TABLE, &row.key()), Some(row))
    }
    fn remove<R: Row>(&mut self, row: &R) -> Result<(), Error> {
        self.replace(key(R::TABLE, &row.key()), None::<&R>)
    }
    /// Removes up to `cap` rows of a range and returns their number.
    fn purge<R: Row>(&mut self, scan: &Scan<R>, cap: u32) -> Result<u64, Error> {
        let rows = self.list(scan, cap)?;
        rows.iter().try_for_each(|row| self.remove(row))?;
        Ok(rows.len() as u64)
    }

    /// Applies the changes of one commit, all or none (S1, S2, S8).
    fn commit(&mut self, changes: Vec<Change>) -> Result<Committed, CommitError> {
        self.undo.clear();
        let results: Result<_, _> = changes.into_iter().map(|change| self.apply(change)).collect();
        if results.is_err() {
            for (key, before) in self.undo.drain(..).rev() {
                match before {
                    Some(value) => self.writes.insert(key, value),
                    None => self.writes.remove(&key),
                };
            }
        }
        results
    }
}

/// Merges two sorted sequences of keys, each with the key of its row.
fn merge<'v>(
    old: impl Iterator<Item = (&'v Bytes, &'v Bytes)> + 'v,
    new: impl Iterator<Item = (&'v Bytes, &'v Bytes)> + 'v,
    is_first: fn(&Bytes, &Bytes) -> bool,
) -> Box<dyn Iterator<Item = &'v Bytes> + 'v> {
    let (mut old, mut new) = (old.peekable(), new.peekable());
    Box::new(std::iter::from_fn(move || {
        let is_old = match (old.peek(), new.peek()) {
            (Some((old, _)), Some((new, _))) => is_first(old, new),
            (old, _) => old.is_some(),
        };
        if is_old { old.next() } else { new.next() }.map(|(_, row)| row)
    }))
}

// Part 4: the changes. Each arm checks its preconditions in the documented order, and then writes.

/// Result of a change without data.
const APPLIED: Result<ChangeResult, CommitError> = Ok(ChangeResult::Applied);

fn require(holds: bool, conflict: Conflict) -> Result<(), Conflict> {
    if holds { Ok(()) } else { Err(conflict) }
}

impl View<'_> {
    fn apply(&mut self, change: Change) -> Result<ChangeResult, CommitError> {
        match change {
            Change::Account(change) => self.apply_account(change),
            Change::Pairing(change) => self.apply_pairing(change),
            Change::Timeline(change) => self.apply_timeline(change),
            Change::Media(change) => self.apply_media(change),
            Change::Upload(change) => self.apply_upload(change),
            Change::Device(change) => self.apply_device(change),
            Change::Notification(change) => self.apply_notification(change),
            Change::Date(change) => self.apply_date(change),
            Change::Job(change) => self.apply_job(change),
            Change::Idempotency(change) => self.apply_idempotency(change),
            Change::Host(_) => Err(Error::new(ErrorKind::Misconfigured, "commit")
                .context("this store runs no statements of the host")
                .into()),
        }
    }

    /// Removes up to `cap` rows with an earlier time in an index by time, and returns their number.
    fn purge_before<R: Row>(
        &mut self,
        index: &Index<R>,
        before: &Timestamp,
        cap: u32,
    ) -> Result<ChangeResult, CommitError> {
        Ok(ChangeResult::RowsAffected(self.purge(&index.at(&()).before(before), cap)?))
    }

    fn apply_account(&mut self, change: AccountChange) -> Result<ChangeResult, CommitError> {
        match change {
            AccountChange::Insert(account) => {
                let exists = self.get::<Account>(&account.id)?.is_some();
                let taken = self.has(&ACCOUNT_BY_EMAIL.at(account.email.key()));
                require(!exists && !taken, Conflict::AccountExists)?;
                self.put(&account)?;
            }
            AccountChange::Update(account) => {
                self.account_of_version(account.id, account.version)?;
                let owner = self.first(&ACCOUNT_BY_EMAIL.at(account.email.key()))?;
                require(owner.is_none_or(|owner| owner.id == account.id), Conflict::AccountExists)?;
                self.put(&Account { version: account.version + 1, ..account })?;
            }
            AccountChange::Erase { id, version } => {
                let account = self.account_of_version(id, version)?;
                self.purge(&TOKEN_BY_ACCOUNT.at(&id), u32::MAX)?;
                self.purge(&SESSION_BY_ACCOUNT.at(&id), u32::MAX)?;
                self.purge(&DEVICE_BY_TIME.at(&id), u32::MAX)?;
                self.remove_preferences(id)?;
                self.remove(&account)?;
            }
            AccountChange::InsertToken(token) => {
                if let (Some(account), Some(session)) = (token.account, token.session) {
                    let lives = self.get::<Session>(&(account, session))?.is_some();
                    require(lives, Conflict::SessionEnded(session))?;
                }
                let exists =
                    self.get::<Token>(&token.id)?.is_some() || self.has(&TOKEN_BY_LINK.at(&token.link));
                require(!exists, Conflict::TokenExists(token.id))?;
                self.put(&token)?;
            }
            AccountChange::RedeemToken { id, seen, at } => {
                let token = self.token_as_seen(id, seen)?;
                self.put(&Token { used_at: Some(at), ..token })?;
            }
            AccountChange::RequireToken { id, seen } => drop(self.token_as_seen(id, seen)?),
            AccountChange::RedeemForm { id, seen, form, account } => {
                let token = self.token_as_seen(id, seen)?;
                self.put(&Token { used_form: Some(form), account: Some(account), ..token })?;
            }
            AccountChange::CountTries { kind, email, network, at } => {
                let counts = |token: &Token| token.used_at.is_none() && token.code_expires_at > at;
                for mut token in self.select(&TOKEN_BY_TARGET.at(&(kind, email)), u32::MAX, counts)? {
                    let is_own = token.network == Some(network);
                    *(if is_own { &mut token.tries } else { &mut token.foreign_tries }) += 1;
                    self.put(&token)?;
                }
            }
            AccountChange::EndTokens { kind, email, except, at } => {
                self.end_tokens(&TOKEN_BY_TARGET.at(&(kind, email)), kind, except, at)?;
            }
            AccountChange::EndTokensOf { account, kind, except, at } => {
                self.end_tokens(&TOKEN_BY_ACCOUNT.at(&account), kind, except, at)?;
            }
            AccountChange::CountTally { id, below, at, expires_at } => {
                let tally = self.live_tally(id, at)?.unwrap_or(Tally { count: 0, expires_at });
                require(tally.count < below, Conflict::TallyFull)?;
                self.put(&(id, Tally { count: tally.count + 1, ..tally }))?;
            }
            AccountChange::RequireTally { id, below, at } => {
                let count = self.live_tally(id, at)?.map_or(0, |tally| tally.count);
                require(count < below, Conflict::TallyFull)?;
            }
            AccountChange::PutTally { id, tally, .. } => self.put(&(id, tally))?,
            AccountChange::PurgeTallies { before, cap } => {
                return self.purge_before(&TALLY_BY_EXPIRY, &before, cap);
            }
            AccountChange::InsertSession { session, version } => {
                self.account_of_version(session.account, version)?;
                let exists = self.get::<Session>(&(session.account, session.id))?.is_some();
                let taken = self.has(&SESSION_BY_BEARER_TOKEN.at(&session.token));
                let is_taken = |token: &Digest| self.has(&SESSION_BY_WIDGET_TOKEN.at(token));
                let taken = taken || session.widget_token.as_ref().is_some_and(is_taken);
                require(!exists && !taken, Conflict::SessionExists(session.id))?;
                self.put(&session)?;
            }
            AccountChange::TouchSession { account, id, seen_at } => {
                if let Some(session) = self.get::<Session>(&(account, id))? {
                    self.put(&Session { seen_at, ..session })?;
                }
            }
            AccountChange::SetWidgetToken { account, id, token, most } => {
                let session: Option<Session> = self.get(&(account, id))?;
                let session = session.ok_or(Conflict::SessionEnded(id))?;
                if let Some(token) = token {
                    let owner = self.first(&SESSION_BY_WIDGET_TOKEN.at(&token))?;
                    let is_free = owner.is_none_or(|one| (one.account, one.id) == (account, id));
                    require(is_free, Conflict::SessionExists(id))?;
                    let has_one = |one: &Session| one.id != id && one.widget_token.is_some();
                    let others = self.select(&Scan::rows(&account), most, has_one)?;
                    require(others.len() < most as usize, Conflict::TooManyWidgetTokens(account))?;
                }
                self.put(&Session { widget_token: token, ..session })?;
            }
            AccountChange::EndSession { account, id } => {
                self.end_sessions(account, &Scan::rows(&(account, id)), |session| session == id)?;
            }
            AccountChange::EndSessions { account, except } => {
                self.end_sessions(account, &Scan::rows(&account), |session| Some(session) != except)?;
            }
            AccountChange::PurgeTokens { before, cap } => {
                return self.purge_before(&TOKEN_BY_EXPIRY, &before, cap);
            }
            AccountChange::PurgeSessions { before, idle, cap } => {
                let expired = self.purge_sessions(&SESSION_BY_EXPIRY.at(&()).before(&before), cap)?;
                let left = cap - u32::try_from(expired).unwrap_or(cap);
                let unused = self.purge_sessions(&SESSION_BY_USE.at(&()).before(&idle), left)?;
                return Ok(ChangeResult::RowsAffected(expired + unused));
            }
        }
        APPLIED
    }

    fn account_of_version(&self, id: AccountId, version: i64) -> Result<Account, CommitError> {
        let account = self.get(&id)?.filter(|account: &Account| account.version == version);
        Ok(account.ok_or(Conflict::AccountChanged(id))?)
    }

    fn token_as_seen(&self, id: TokenId, seen: SeenToken) -> Result<Token, CommitError> {
        let is_as_seen = |token: &Token| {
            let same_tries = match seen.tries {
                None => true,
                Some(Tries::Own(tries)) => token.tries == tries,
                Some(Tries::Foreign(tries)) => token.foreign_tries == tries,
            };
            token.used_at.is_none() && token.used_form == seen.used_form && same_tries
        };
        Ok(self.get(&id)?.filter(is_as_seen).ok_or(Conflict::TokenChanged(id))?)
    }

    fn end_tokens(
        &mut self,
        tokens: &Scan<Token>,
        kind: TokenKind,
        except: Option<TokenId>,
        at: Timestamp,
    ) -> Result<(), Error> {
        let ends = |token: &Token| token.kind == kind && token.used_at.is_none() && Some(token.id) != except;
        for token in self.select(tokens, u32::MAX, ends)? {
            self.put(&Token { used_at: Some(at), ..token })?;
        }
        Ok(())
    }

    /// Ends sessions of an account, and removes the tokens that they requested and the devices that they registered.
    fn end_sessions(
        &mut self,
        account: AccountId,
        sessions: &Scan<Session>,
        ends: impl Fn(SessionId) -> bool,
    ) -> Result<(), Error> {
        for session in self.select(sessions, u32::MAX, |session| ends(session.id))? {
            self.remove(&session)?;
        }
        let requested = |token: &Token| token.session.is_some_and(&ends);
        for token in self.select(&TOKEN_BY_ACCOUNT.at(&account), u32::MAX, requested)? {
            self.remove(&token)?;
        }
        self.remove_devices(account, |device| device.session.is_some_and(&ends))
    }

    fn purge_sessions(&mut self, sessions: &Scan<Session>, cap: u32) -> Result<u64, Error> {
        let purged = self.list(sessions, cap)?;
        for session in &purged {
            self.remove(session)?;
            self.remove_devices(session.account, |device| device.session == Some(session.id))?;
        }
        Ok(purged.len() as u64)
    }

    fn remove_devices(&mut self, account: AccountId, ends: impl Fn(&Device) -> bool) -> Result<(), Error> {
        for device in self.select(&DEVICE_BY_TIME.at(&account), u32::MAX, ends)? {
            self.remove(&device)?;
        }
        Ok(())
    }

    fn live_tally(&self, id: TallyId, at: Timestamp) -> Result<Option<Tally>, Error> {
        let tally = self.get::<(TallyId, Tally)>(&id)?.map(|(_, tally)| tally);
        Ok(tally.filter(|tally| tally.expires_at > at))
    }

    fn apply_pairing(&mut self, change: PairingChange) -> Result<ChangeResult, CommitError> {
        match change {
            PairingChange::InsertInvite { invite, limit } => {
                self.require_unpaired(invite.inviter)?;
                let account = self.require_kept(invite.inviter)?;
                require(
                    account.is_none_or(|account| *account.email.key() == invite.inviter_email),
                    Conflict::AccountChanged(invite.inviter),
                )?;
                let of_inviter = OPEN_INVITE_BY_INVITER.at(&invite.inviter);
                let open = self.select(&of_inviter, limit, |open| open.is_open(invite.created_at))?;
                require(open.len() < limit as usize, Conflict::TooManyInvites(invite.inviter))?;
                let crosses = invite.pair_key().is_some_and(|pair| self.has(&OPEN_INVITE_BY_PAIR.at(&pair)));
                require(!crosses, Conflict::InviteCrossed)?;
                let exists = self.get::<Invite>(&invite.id)?.is_some();
                let taken =
                    self.has(&INVITE_BY_CODE.at(&invite.code)) || self.has(&INVITE_BY_LINK.at(&invite.link));
                require(!exists && !taken, Conflict::InviteExists(invite.id))?;
                self.put(&invite)?;
            }
            PairingChange::CloseInvite { id, to } => {
                let open = self.get(&id)?.filter(|invite: &Invite| invite.state == InviteState::Open);
                let invite = open.ok_or(Conflict::InviteClosed(id))?;
                self.put(&Invite { state: to, ..invite })?;
            }
            PairingChange::WithdrawInvitesOf { inviter } => {
                for invite in self.all(&OPEN_INVITE_BY_INVITER.at(&inviter))? {
                    self.put(&Invite { state: InviteState::Withdrawn, ..invite })?;
                }
            }
            PairingChange::Pair(couple) => {
                couple.members.into_iter().try_for_each(|member| self.require_unpaired(member))?;
                for account in couple.members {
                    self.require_kept(account)?;
                    self.put(&Membership { account, couple: couple.id, since: couple.since })?;
                }
                self.put(&couple)?;
            }
            PairingChange::ExpectUnpaired { account } => self.require_unpaired(account)?,
            PairingChange::Describe { id, title, anniversary } => {
                let mut couple = self.active_couple(id)?;
                couple.title = title.unwrap_or(couple.title);
                couple.anniversary = anniversary.unwrap_or(couple.anniversary);
                self.put(&couple)?;
            }
            PairingChange::Restore { id, side, wanted, read } => {
                let mut couple = self.active_couple(id)?;
                require(couple.restore == read, Conflict::CoupleChanged(id))?;
                couple.restore[side.index()] = wanted;
                self.put(&couple)?;
            }
            PairingChange::End { id, at, .. } => {
                let couple = self.active_couple(id)?;
                self.put(&Couple { ended_at: Some(at), epoch: couple.epoch + 1, ..couple })?;
            }
            PairingChange::Block(block) => self.put(&block)?,
            PairingChange::Unblock { blocker, blocked } => {
                self.purge(&Scan::<Block>::rows(&(blocker, blocked)), 1)?;
            }
            PairingChange::Forget { account, cap } => {
                let rows = self.purge(&INVITE_BY_INVITER.at(&account), cap)?
                    + self.purge(&Scan::<Block>::rows(&account), cap)?
                    + self.purge(&BLOCK_BY_BLOCKED.at(&account), cap)?;
                return Ok(ChangeResult::RowsAffected(rows));
            }
            PairingChange::SetErasure { person, due, before } => self.set_erasure(person, before, due)?,
            PairingChange::FinishErasure { person, due } => self.set_erasure(person, Some(due), None)?,
            PairingChange::Anonymize { couple: id, side, with } => {
                let ended = self.get(&id)?.filter(|couple: &Couple| couple.ended_at.is_some());
                let mut couple = ended.ok_or(Conflict::CoupleLives(id))?;
                self.purge(&Scan::<Membership>::rows(&(couple.member(side), id)), 1)?;
                couple.members[side.index()] = with;
                self.put(&couple)?;
                self.purge(&DATE_BY_TIME.at(&id), u32::MAX)?;
            }
            PairingChange::PurgeInvites { before, cap } => {
                return self.purge_before(&INVITE_BY_EXPIRY, &before, cap);
            }
        }
        APPLIED
    }

    fn require_unpaired(&self, account: AccountId) -> Result<(), Conflict> {
        require(!self.has(&ACTIVE_COUPLE_BY_MEMBER.at(&account)), Conflict::Paired(account))
    }

    /// Returns the account of a person, if the store has one; a conflict if the data of the person is to be erased.
    fn require_kept(&self, person: AccountId) -> Result<Option<Account>, CommitError> {
        let account = self.get::<Account>(&person)?;
        let goes = account.as_ref().is_some_and(|account| account.deletion_due.is_some());
        require(!goes && self.erasure(person)?.is_none(), Conflict::AccountChanged(person))?;
        Ok(account)
    }

    fn erasure(&self, person: AccountId) -> Result<Option<Timestamp>, Error> {
        Ok(self.get::<Erasure>(&person)?.map(|erasure| erasure.due))
    }

    fn set_erasure(
        &mut self,
        person: AccountId,
        before: Option<Timestamp>,
        due: Option<Timestamp>,
    ) -> Result<(), CommitError> {
        require(self.erasure(person)? == before, Conflict::AccountChanged(person))?;
        match due {
            Some(due) => self.put(&Erasure { person, due })?,
            None => drop(self.purge(&Scan::<Erasure>::rows(&person), 1)?),
        }
        Ok(())
    }

    fn active_couple(&self, id: CoupleId) -> Result<Couple, CommitError> {
        let active = self.get(&id)?.filter(|couple: &Couple| couple.ended_at.is_none());
        Ok(active.ok_or(Conflict::CoupleEnded(id))?)
    }

    fn apply_timeline(&mut self, change: TimelineChange) -> Result<ChangeResult, CommitError> {
        match change {
            TimelineChange::Append { couple: id, entry } => {
                let couple = self.active_couple(id)?;
                if let (Some(author), Some(client_id)) = (entry.author, &entry.client_id) {
                    let used = self.has(&ENTRY_BY_CLIENT_ID.at(&(id, author, client_id)));
                    require(!used, Conflict::ClientIdUsed)?;
                }
                let seq = couple.head_seq + 1;
                self.put(&Couple { head_seq: seq, ..couple })?;
                self.put(&(id, entry.at_seq(seq)))?;
                return Ok(ChangeResult::Appended { seq });
            }
            TimelineChange::Edit { couple, seq, author, body, at } => {
                let entry = self.open_entry(couple, seq, |entry| entry.author == Some(author))?;
                self.put(&(couple, Entry { body: Some(body), edited_at: Some(at), ..entry }))?;
            }
            TimelineChange::Delete { couple, seq, author, at } => {
                let entry = self.open_entry(couple, seq, |entry| entry.author == Some(author))?;
                self.put(&(couple, tombstone(entry, at)))?;
            }
            TimelineChange::React { couple, seq, side, emoji } => {
                let mut entry = self.open_entry(couple, seq, |_| true)?;
                entry.reactions[side.index()] = emoji;
                self.put(&(couple, entry))?;
            }
            TimelineChange::MarkRead { couple: id, side, seq } => {
                let mut couple = self.active_couple(id)?;
                let read = &mut couple.read[side.index()];
                *read = (*read).max(seq.min(couple.head_seq));
                self.put(&couple)?;
            }
            TimelineChange::Erase { couple: id, author, at, after, cap } => {
                let ended = self.get(&id)?.is_none_or(|couple: Couple| couple.ended_at.is_some());
                require(ended, Conflict::CoupleLives(id))?;
                let last = after.saturating_add(i64::from(cap));
                let range = Scan::rows(&id).after(Some((id, after))).until(&(id, last));
                let is_own = |entry: &Entry| entry.author == Some(author) && entry.deleted_at.is_none();
                let affected = self.select(&range, cap, |(_, entry): &(CoupleId, Entry)| {
                    is_own(entry) || entry.reactions[author.index()].is_some()
                })?;
                let rows = affected.len() as u64;
                for (_, mut entry) in affected {
                    if is_own(&entry) {
                        entry = Entry { client_id: None, ..tombstone(entry, at) };
                    }
                    entry.reactions[author.index()] = None;
                    self.put(&(id, entry))?;
                }
                return Ok(ChangeResult::RowsAffected(rows));
            }
        }
        APPLIED
    }

    /// An entry of an active couple that can be changed.
    fn open_entry(
        &self,
        couple: CoupleId,
        seq: i64,
        may_change: impl Fn(&Entry) -> bool,
    ) -> Result<Entry, CommitError> {
        self.active_couple(couple)?;
        let entry = self.get::<(CoupleId, Entry)>(&(couple, seq))?.map(|(_, entry)| entry);
        let open = entry.filter(|entry| entry.deleted_at.is_none() && may_change(entry));
        Ok(open.ok_or(Conflict::EntryClosed(seq))?)
    }

    fn apply_media(&mut self, change: MediaChange) -> Result<ChangeResult, CommitError> {
        match change {
            MediaChange::Insert { media, most } => {
                let usage = self.usage(media.space)?;
                match media.space {
                    Space::Couple(id) => drop(self.active_couple(id)?),
                    Space::Account(id) => require(!usage.closed, Conflict::SpaceClosed(id))?,
                }
                let is_known = self.has(&MEDIA_BY_IDENTITY.at(&(media.space, media.identity())));
                require(self.get::<Media>(&media.id)?.is_none() && !is_known, Conflict::MediaExists)?;
                require(usage.bytes + source_bytes(&media) <= most, Conflict::QuotaExceeded)?;
                self.add_bytes(media.space, source_bytes(&media))?;
                self.put(&media)?;
            }
            MediaChange::Finish { of, width, height, animated, alpha, placeholder, source, renditions } => {
                let before = self.processing(of)?;
                let freed = source_bytes(&before);
                let (state, placeholder) = (MediaState::Ready, Some(placeholder));
                let ready = Media { state, width, height, animated, alpha, placeholder, source, ..before };
                let made: i64 = renditions.iter().map(|rendition| rendition.bytes).sum();
                self.add_bytes(of.space, source_bytes(&ready) + made - freed)?;
                self.put(&ready)?;
                renditions.into_iter().try_for_each(|rendition| self.put(&(of.id, rendition)))?;
            }
            MediaChange::Reject { of, reason } => {
                let media = self.processing(of)?;
                self.add_bytes(of.space, -source_bytes(&media))?;
                self.put(&Media { state: MediaState::Rejected(reason), source: None, ..media })?;
            }
            MediaChange::Use { couple, id, owner, ready } => {
                self.active_couple(couple)?;
                let state = if ready { MediaState::Ready } else { MediaState::Processing };
                let photo = self.media_in(Space::Couple(couple), id)?.filter(|media| {
                    media.owner == owner && media.purpose == Purpose::Photo && media.state == state
                });
                self.add_use(photo.ok_or(Conflict::MediaChanged(id))?, 1)?;
            }
            MediaChange::Release(of) => {
                let media = self.media_as_read(of)?;
                require(media.uses > 0, Conflict::MediaChanged(of.id))?;
                self.add_use(media, -1)?;
            }
            MediaChange::Delete(of) => {
                let media = self.media_as_read(of)?;
                let mut freed = source_bytes(&media);
                for rendition in self.all(&Scan::<(MediaId, Rendition)>::rows(&of.id))? {
                    freed += rendition.1.bytes;
                    self.remove(&rendition)?;
                }
                let usage = self.usage(of.space)?;
                let avatar = usage.avatar.filter(|avatar| *avatar != of.id);
                self.put(&(of.space, SpaceUsage { bytes: usage.bytes - freed, avatar, ..usage }))?;
                self.remove(&media)?;
            }
            MediaChange::AddRendition { space, id, rendition } => {
                let media = self.media_in(space, id)?;
                let is_ready = media.is_some_and(|media| media.state == MediaState::Ready);
                let is_new =
                    !self.has(&Scan::<(MediaId, Rendition)>::rows(&(id, &rendition.name, rendition.format)));
                require(is_ready && is_new, Conflict::MediaChanged(id))?;
                self.add_bytes(space, rendition.bytes)?;
                self.put(&(id, rendition))?;
            }
            MediaChange::Touch { space, id, name, format, at } => {
                let rendition = self.get::<(MediaId, Rendition)>(&(id, name, format))?;
                if let Some((_, rendition)) = rendition
                    && self.media_in(space, id)?.is_some()
                    && rendition.used_at.is_some_and(|used| used < at)
                {
                    self.put(&(id, Rendition { used_at: Some(at), ..rendition }))?;
                }
            }
            MediaChange::Forget { space, id, blobs } => {
                let Some(media) = self.media_in(space, id)? else { return APPLIED };
                let mut freed = 0;
                for rendition in self.all(&Scan::<(MediaId, Rendition)>::rows(&id))? {
                    if blobs.contains(&rendition.1.blob) {
                        freed += rendition.1.bytes;
                        self.remove(&rendition)?;
                    }
                }
                if media.source.as_ref().is_some_and(|source| blobs.contains(&source.blob)) {
                    freed += source_bytes(&media);
                    self.put(&Media { source: None, ..media })?;
                }
                self.add_bytes(space, -freed)?;
            }
            MediaChange::SetAvatar { account, media, before } => {
                let space = Space::Account(account);
                let usage = self.usage(space)?;
                require(usage.avatar == before, Conflict::AvatarChanged(account))?;
                if media == before {
                    return APPLIED;
                }
                if let Some(id) = media {
                    let avatar = self.media_in(space, id)?.filter(|media| {
                        media.purpose == Purpose::Avatar && !matches!(media.state, MediaState::Rejected(_))
                    });
                    self.add_use(avatar.ok_or(Conflict::MediaChanged(id))?, 1)?;
                }
                if let Some(id) = before
                    && let Some(former) = self.media_in(space, id)?
                {
                    self.add_use(former, -1)?;
                }
                self.put(&(space, SpaceUsage { avatar: media, ..usage }))?;
            }
            MediaChange::Close { account } => {
                let space = Space::Account(account);
                require(!self.has(&MEDIA_BY_SPACE.at(&space)), Conflict::SpaceNotEmpty(account))?;
                self.put(&(space, SpaceUsage { closed: true, ..SpaceUsage::default() }))?;
            }
        }
        APPLIED
    }

    fn usage(&self, space: Space) -> Result<SpaceUsage, Error> {
        Ok(self.get::<(Space, SpaceUsage)>(&space)?.unwrap_or((space, SpaceUsage::default())).1)
    }

    fn add_bytes(&mut self, space: Space, bytes: i64) -> Result<(), Error> {
        let usage = self.usage(space)?;
        self.put(&(space, SpaceUsage { bytes: usage.bytes + bytes, ..usage }))
    }

    fn add_use(&mut self, media: Media, more: i64) -> Result<(), Error> {
        self.put(&Media { uses: media.uses + more, ..media })
    }

    fn media_in(&self, space: Space, id: MediaId) -> Result<Option<Media>, Error> {
        Ok(self.get(&id)?.filter(|media: &Media| media.space == space))
    }

    fn media_as_read(&self, of: ExpectedMedia) -> Result<Media, CommitError> {
        let media = self.media_in(of.space, of.id)?.filter(|media| media.uses == of.uses);
        Ok(media.ok_or(Conflict::MediaChanged(of.id))?)
    }

    fn processing(&self, of: ExpectedMedia) -> Result<Media, CommitError> {
        let media = self.media_as_read(of)?;
        require(media.state == MediaState::Processing, Conflict::MediaChanged(of.id))?;
        Ok(media)
    }

    fn apply_upload(&mut self, change: UploadChange) -> Result<ChangeResult, CommitError> {
        match change {
            UploadChange::Insert { upload, most } => {
                let has_room = upload.media.is_some() || self.unfinished(upload.owner)?.count < most;
                require(has_room, Conflict::QuotaExceeded)?;
                let exists = self.get::<ResumableUpload>(&upload.id)?.is_some();
                require(!exists, Conflict::UploadChanged(upload.id))?;
                self.put(&upload)?;
            }
            UploadChange::Claim { owner, id, offset, writer, length } => {
                let upload = self.upload_at(owner, id, Some(offset))?;
                let known = upload.length.or(length);
                require(length.is_none() || known == length, Conflict::UploadChanged(id))?;
                self.put(&ResumableUpload { writer, length: known, ..upload })?;
            }
            UploadChange::Append { owner, id, writer, offset, bytes, parts, most } => {
                let upload = self.upload_at(owner, id, Some(offset))?;
                require(upload.writer == writer, Conflict::UploadChanged(id))?;
                require(self.unfinished(owner)?.bytes + bytes <= most, Conflict::QuotaExceeded)?;
                self.put(&ResumableUpload { offset: offset + bytes, parts, ..upload })?;
            }
            UploadChange::TakeOver { owner, id, offset } => {
                let upload = self.upload_at(owner, id, Some(offset))?;
                self.remove(&upload)?;
            }
            UploadChange::Finish { owner, id, media } => {
                let upload = self.upload_at(owner, id, None)?;
                self.put(&ResumableUpload { media: Some(media), parts: Vec::new(), ..upload })?;
            }
            UploadChange::ExpireOf { owner, at } => {
                let later = |upload: &ResumableUpload| upload.expires_at > at;
                for upload in self.select(&UPLOAD_BY_OWNER.at(&owner), u32::MAX, later)? {
                    self.put(&ResumableUpload { expires_at: at, ..upload })?;
                }
            }
            UploadChange::Remove { owner, id } => {
                let upload = self.get(&id)?.filter(|upload: &ResumableUpload| upload.owner == owner);
                upload.map_or(Ok(()), |upload| self.remove(&upload))?;
            }
        }
        APPLIED
    }

    /// An unfinished upload of an owner, at this offset if one is given.
    fn upload_at(
        &self,
        owner: AccountId,
        id: UploadId,
        offset: Option<i64>,
    ) -> Result<ResumableUpload, CommitError> {
        let upload = self.get(&id)?.filter(|upload: &ResumableUpload| {
            upload.owner == owner
                && upload.media.is_none()
                && offset.is_none_or(|offset| upload.offset == offset)
        });
        Ok(upload.ok_or(Conflict::UploadChanged(id))?)
    }

    fn unfinished(&self, owner: AccountId) -> Result<UnfinishedUploads, Error> {
        let uploads = self.select(&UPLOAD_BY_OWNER.at(&owner), u32::MAX, |upload| upload.media.is_none())?;
        let bytes = uploads.iter().map(|upload| upload.offset).sum();
        Ok(UnfinishedUploads { count: i64::try_from(uploads.len()).unwrap_or(i64::MAX), bytes })
    }

    fn apply_device(&mut self, change: DeviceChange) -> Result<ChangeResult, CommitError> {
        match change {
            DeviceChange::Put { device, most } => {
                if let Some(session) = device.session {
                    let lives = self.get::<Session>(&(device.account, session))?.is_some();
                    require(lives, Conflict::SessionEnded(session))?;
                }
                let same = DEVICE_BY_DESTINATION.at(&device.destination_digest());
                let former = self.first(&same)?;
                let stays = |other: &Device| {
                    let is_former =
                        former.as_ref().is_some_and(|one| (one.account, one.id) == (other.account, other.id));
                    other.id != device.id && !is_former
                };
                let others = self.select(&DEVICE_BY_TIME.at(&device.account), most, stays)?;
                require(others.len() < most as usize, Conflict::TooManyDevices(device.account))?;
                if let Some(former) = former {
                    self.remove(&former)?;
                }
                self.put(&device)?;
            }
            DeviceChange::Remove { account, id } => {
                self.get::<Device>(&(account, id))?.map_or(Ok(()), |device| self.remove(&device))?;
            }
            DeviceChange::RemoveOf { account } => self.remove_devices(account, |_| true)?,
            DeviceChange::Retire { destination, not_after } => {
                let found = self.first(&DEVICE_BY_DESTINATION.at(&destination))?;
                if let Some(device) = found.filter(|device: &Device| device.registered_at <= not_after) {
                    self.remove(&device)?;
                }
            }
        }
        APPLIED
    }

    fn apply_notification(&mut self, change: NotificationChange) -> Result<ChangeResult, CommitError> {
        match change {
            NotificationChange::Put(preferences) => {
                let (person, version) = (preferences.person, preferences.version);
                let stored = self.get::<Preferences>(&person)?.map_or(0, |stored| stored.version);
                require(stored == version, Conflict::PreferencesChanged(person))?;
                self.put(&Preferences { version: version + 1, ..preferences })?;
            }
            NotificationChange::Remove { person } => self.remove_preferences(person)?,
        }
        APPLIED
    }

    fn remove_preferences(&mut self, person: AccountId) -> Result<(), Error> {
        self.get::<Preferences>(&person)?.map_or(Ok(()), |stored| self.remove(&stored))
    }

    fn apply_date(&mut self, change: DateChange) -> Result<ChangeResult, CommitError> {
        self.active_couple(change.couple())?;
        match change {
            DateChange::Put { date, most } => {
                let stored = self.get::<CoupleDate>(&(date.couple, date.id))?;
                let version = stored.map_or(0, |stored| stored.version);
                require(version == date.version, Conflict::DateChanged(date.id))?;
                let others =
                    self.select(&DATE_BY_TIME.at(&date.couple), most, |other| other.id != date.id)?;
                require(others.len() < most as usize, Conflict::TooManyDates(date.couple))?;
                self.put(&CoupleDate { version: version + 1, ..date })?;
            }
            DateChange::Remove { couple, id, version } => {
                let stored = self.get(&(couple, id))?.filter(|date: &CoupleDate| date.version == version);
                self.remove(&stored.ok_or(Conflict::DateChanged(id))?)?;
            }
        }
        APPLIED
    }

    fn apply_job(&mut self, change: JobChange) -> Result<ChangeResult, CommitError> {
        match change {
            JobChange::Enqueue(job) => {
                let is_queued =
                    job.dedupe_key.as_ref().is_some_and(|key| self.has(&JOB_BY_DEDUPE_KEY.at(key)));
                if !is_queued && self.get::<LiveJob>(&job.id)?.is_none() {
                    self.put(&LiveJob { job, attempts: 0, claim: None })?;
                }
            }
            JobChange::Claim { queue, now, lease_until, claim, limit } => {
                return self.claim(&due_jobs(&queue, false, now), limit, lease_until, claim);
            }
            JobChange::ClaimAbandoned { queue, now, lease_until, claim } => {
                return self.claim(&due_jobs(&queue, true, now), 1, lease_until, claim);
            }
            JobChange::Renew { id, claim, lease_until } => {
                let mut row = self.claimed(id, claim)?;
                row.job.due_at = lease_until;
                self.put(&row)?;
            }
            JobChange::Finish { id, claim } => {
                let row = self.claimed(id, claim)?;
                self.remove(&row)?;
            }
            JobChange::Retry { id, claim, due_at } => {
                let row = self.claimed(id, claim)?;
                self.put(&LiveJob { job: NewJob { due_at, ..row.job }, claim: None, ..row })?;
            }
            JobChange::Defer { id, claim, due_at } => {
                let LiveJob { job, attempts, .. } = self.claimed(id, claim)?;
                self.put(&LiveJob { job: NewJob { due_at, ..job }, attempts: attempts - 1, claim: None })?;
            }
            JobChange::Bury { id, claim, error, at } => {
                let row = self.claimed(id, claim)?;
                self.remove(&row)?;
                self.put(&DeadJob { job: row.job, attempts: row.attempts, error, died_at: at })?;
            }
            JobChange::Replay { id, at, expires_at } => {
                let dead = self.get::<DeadJob>(&id)?.ok_or(Conflict::NoDeadJob(id))?;
                self.remove(&dead)?;
                let job = NewJob { due_at: at, expires_at, dedupe_key: None, ..dead.job };
                self.put(&LiveJob { job, attempts: 0, claim: None })?;
            }
            JobChange::PurgeDead { before, cap } => {
                return self.purge_before(&DEAD_JOB_BY_TIME, &before, cap);
            }
        }
        APPLIED
    }

    fn claim(
        &mut self,
        due: &Scan<LiveJob>,
        limit: u32,
        lease_until: Timestamp,
        claim: ClaimToken,
    ) -> Result<ChangeResult, CommitError> {
        let mut claimed = Vec::new();
        for LiveJob { job, attempts, .. } in self.list(due, limit)? {
            let job = NewJob { due_at: lease_until, ..job };
            claimed.push(ClaimedJob { job: job.clone(), attempt: attempts + 1, claim });
            self.put(&LiveJob { job, attempts: attempts + 1, claim: Some(claim) })?;
        }
        Ok(ChangeResult::Claimed(claimed))
    }

    fn claimed(&self, id: JobId, claim: ClaimToken) -> Result<LiveJob, CommitError> {
        let job = self.get(&id)?.filter(|job: &LiveJob| job.claim == Some(claim));
        Ok(job.ok_or(Conflict::ClaimLost(id))?)
    }

    fn apply_idempotency(&mut self, change: IdempotencyChange) -> Result<ChangeResult, CommitError> {
        match change {
            IdempotencyChange::Record(record) => {
                let used = self.get::<OutcomeRecord>(&record.scope)?;
                require(used.is_none_or(|used| used.expires_at <= record.recorded_at), Conflict::KeyUsed)?;
                self.put(&record)?;
                APPLIED
            }
            IdempotencyChange::Purge { before, cap } => self.purge_before(&OUTCOME_BY_EXPIRY, &before, cap),
        }
    }
}

fn tombstone(entry: Entry, at: Timestamp) -> Entry {
    Entry { body: None, reactions: [None, None], deleted_at: Some(at), ..entry }
}

fn source_bytes(media: &Media) -> i64 {
    media.source.as_ref().map_or(0, |source| source.bytes)
}

/// Due jobs of a queue, earliest first: either those with a claim, which are abandoned, or those without.
fn due_jobs(queue: &str, is_claimed: bool, now: Timestamp) -> Scan<LiveJob> {
    JOB_BY_DUE_TIME.at(&(queue, is_claimed)).until(&(queue, is_claimed, now))
}

// Part 5: the store. One thread writes: it applies all commits that wait to one view, appends the view's writes to the log, and only then
// adds them to the tree and answers. Readers lock the tree for the time of one read, and never wait for the disk.

/// Maximum number of commits that wait for the writer thread, and of those that it writes together.
const MAX_WAITING: usize = 256;
/// Time limit of a commit.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of rows in one of the lists that have no `limit`.
const LIST_LIMIT: u32 = 200;

/// A commit, and where its caller waits for the result. The thread finishes the commit if the caller stops waiting (S4).
type Waiting = (Vec<Change>, oneshot::Sender<Result<Committed, CommitError>>);

/// Store in one file.
struct LogStore {
    /// Rows, and the length of the file that contains them. None after the file was damaged: then every call fails, until the
    /// store is opened again (S14).
    tree: Arc<RwLock<Option<(Tree, u64)>>>,
    path: PathBuf,
    /// Sender to the writer thread; none after [`Store::close`].
    queue: Mutex<Option<mpsc::Sender<Waiting>>>,
    writer: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

impl LogStore {
    /// Opens a file, or creates it.
    async fn open(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        let opened = tokio::task::spawn_blocking({
            let path = path.clone();
            move || Log::open(&path)
        });
        let (log, tree) =
            opened.await.map_err(|panic| Error::new(ErrorKind::Internal, "open").source(panic))??;
        let tree = Arc::new(RwLock::new(Some((tree, log.end))));
        let (sender, queue) = mpsc::channel(MAX_WAITING);
        let writer = std::thread::spawn({
            let tree = tree.clone();
            move || write_commits(log, &tree, queue)
        });
        Ok(Self { tree, path, queue: Mutex::new(Some(sender)), writer: Some(writer).into() })
    }

    /// Reads what all earlier commits wrote (S3). No other commit becomes visible during the read.
    ///
    /// Fails if the file was removed or is shorter than the log, although the rows are in memory (S14). It may be longer, because
    /// the writer thread appends.
    fn read<T>(&self, read: impl FnOnce(&View) -> Result<T, Error>) -> Result<T, Error> {
        let shared = self.tree.read().unwrap_or_else(PoisonError::into_inner);
        let (tree, end) = shared.as_ref().ok_or_else(stopped)?;
        let is_intact = fs::metadata(&self.path).is_ok_and(|file| file.len() >= *end);
        if !is_intact {
            return Err(stopped());
        }
        read(&View::new(tree))
    }
}

fn stopped() -> Error {
    Error::new(ErrorKind::Unavailable, "use store")
        .context("the store was closed, or its file was damaged: open it again")
}

fn write_commits(mut log: Log, shared: &RwLock<Option<(Tree, u64)>>, mut queue: mpsc::Receiver<Waiting>) {
    // The queue ends when the store was closed or dropped, and all accepted commits have been taken from it.
    while let Some(first) = queue.blocking_recv() {
        let waiting = std::iter::once(first).chain(std::iter::from_fn(|| queue.try_recv().ok()));
        let shared_tree = shared.read().unwrap_or_else(PoisonError::into_inner);
        // Without a tree, the callers that wait get an error, because their senders are dropped.
        let Some(mut view) = shared_tree.as_ref().map(|(tree, _)| View::new(tree)) else { break };
        let commit = |(changes, caller): Waiting| (view.commit(changes), caller);
        let answers: Vec<_> = waiting.take(MAX_WAITING).map(commit).collect();
        let writes = view.writes;
        drop(shared_tree);
        let written = log.append(&writes);
        let mut shared_tree = shared.write().unwrap_or_else(PoisonError::into_inner);
        if log.is_damaged {
            *shared_tree = None;
        } else if let (Ok(()), Some((tree, end))) = (&written, shared_tree.as_mut()) {
            replay(tree, writes);
            *end = log.end;
        }
        drop(shared_tree);
        for (result, caller) in answers {
            // An error means that the caller no longer waits.
            let _ = caller.send(match &written {
                Ok(()) => result,
                Err((kind, error)) => Err(Error::new(*kind, "commit").context(error).into()),
            });
        }
    }
}

fn replay(tree: &mut Tree, writes: Writes) {
    for (key, value) in writes {
        match value {
            Some(value) => tree.insert(key, value),
            None => tree.remove(&key),
        };
    }
}

#[async_trait]
impl Store for LogStore {
    async fn commit(&self, changes: Vec<Change>) -> Result<Committed, CommitError> {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(stopped)?;
        let committed = async {
            let (caller, result) = oneshot::channel();
            queue.send((changes, caller)).await.map_err(|_| stopped())?;
            // The writer thread ends after the last sender.
            drop(queue);
            result.await.map_err(|_| stopped())?
        };
        let timed_out = |_| Err(Error::new(ErrorKind::TimedOut, "commit").into());
        tokio::time::timeout(COMMIT_TIMEOUT, committed).await.unwrap_or_else(timed_out)
    }

    /// The writer thread checks the file before every commit, also before an empty one.
    async fn ping(&self) -> Result<(), Error> {
        match self.commit(Vec::new()).await {
            Ok(_) | Err(CommitError::Conflict(_)) => Ok(()),
            Err(CommitError::Failed(error)) => Err(error),
        }
    }

    async fn close(&self) -> Result<(), Error> {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        // A second call waits here for the first one.
        let mut writer = self.writer.lock().await;
        let Some(thread) = writer.take() else { return Ok(()) };
        let ended = tokio::task::spawn_blocking(move || thread.join()).await;
        ended.is_ok_and(|ended| ended.is_ok()).then_some(()).ok_or_else(|| {
            Error::new(ErrorKind::Internal, "close")
                .context("the writer thread panicked; the standard error has its message")
        })
    }
}

#[async_trait]
impl AccountReads for LogStore {
    async fn account(&self, id: AccountId) -> Result<Option<Account>, Error> {
        self.read(|view| view.get(&id))
    }
    async fn account_by_email(&self, email: &EmailKey) -> Result<Option<Account>, Error> {
        self.read(|view| view.first(&ACCOUNT_BY_EMAIL.at(email)))
    }
    async fn accounts_to_delete(
        &self,
        now: Timestamp,
        after: Option<(Timestamp, AccountId)>,
        limit: u32,
    ) -> Result<Vec<Account>, Error> {
        let due = ACCOUNT_BY_DELETION.at(&()).until(&now);
        self.read(|view| view.list(&due.after(after), limit))
    }
    async fn token(&self, id: TokenId) -> Result<Option<Token>, Error> {
        self.read(|view| view.get(&id))
    }
    async fn token_by_link(&self, link: &Digest) -> Result<Option<Token>, Error> {
        self.read(|view| view.first(&TOKEN_BY_LINK.at(link)))
    }
    async fn open_tokens(
        &self,
        kind: TokenKind,
        email: &EmailKey,
        now: Timestamp,
    ) -> Result<Vec<Token>, Error> {
        let is_open = |token: &Token| token.used_at.is_none() && token.expires_at > now;
        self.read(|view| view.select(&TOKEN_BY_TARGET.at(&(kind, email)).last_first(), 32, is_open))
    }
    async fn session_by_token(&self, token: &Digest) -> Result<Option<(Session, Account)>, Error> {
        self.read(|view| {
            let Some(session) = view.first(&SESSION_BY_BEARER_TOKEN.at(token))? else { return Ok(None) };
            Ok(view.get(&session.account)?.map(|account| (session, account)))
        })
    }
    async fn session_and_couple(
        &self,
        token: &SessionToken,
    ) -> Result<Option<(Session, Account, Option<Couple>)>, Error> {
        self.read(|view| {
            let session = match token {
                SessionToken::Bearer(token) => view.first(&SESSION_BY_BEARER_TOKEN.at(token))?,
                SessionToken::Widget(token) => view.first(&SESSION_BY_WIDGET_TOKEN.at(token))?,
            };
            let Some(session) = session else { return Ok(None) };
            let couple = view.first(&ACTIVE_COUPLE_BY_MEMBER.at(&session.account))?;
            Ok(view.get(&session.account)?.map(|account| (session, account, couple)))
        })
    }
    async fn sessions_of(&self, account: AccountId) -> Result<Vec<Session>, Error> {
        self.read(|view| view.list(&SESSION_BY_ACCOUNT.at(&account).last_first(), LIST_LIMIT))
    }
    async fn tally(&self, id: TallyId, now: Timestamp) -> Result<Option<Tally>, Error> {
        self.read(|view| view.live_tally(id, now))
    }
    async fn present_sessions(&self, tokens: &[Digest]) -> Result<Vec<Digest>, Error> {
        self.read(|view| {
            let is_present = |token: &&Digest| view.has(&SESSION_BY_BEARER_TOKEN.at(token));
            Ok(tokens.iter().filter(is_present).copied().collect())
        })
    }
}

#[async_trait]
impl PairingReads for LogStore {
    async fn couple(&self, id: CoupleId) -> Result<Option<Couple>, Error> {
        self.read(|view| view.get(&id))
    }
    async fn couple_of(&self, account: AccountId) -> Result<Option<Couple>, Error> {
        self.read(|view| view.first(&ACTIVE_COUPLE_BY_MEMBER.at(&account)))
    }
    async fn couples_of(&self, account: AccountId) -> Result<Vec<Couple>, Error> {
        self.couples(&MEMBERSHIP_BY_TIME.at(&account).last_first(), LIST_LIMIT)
    }
    async fn couples_page(
        &self,
        account: AccountId,
        after: Option<CoupleId>,
        limit: u32,
    ) -> Result<Vec<Couple>, Error> {
        let after = after.map(|couple| (account, couple));
        self.couples(&Scan::rows(&account).after(after), limit)
    }
    async fn invite(&self, id: InviteId) -> Result<Option<Invite>, Error> {
        self.read(|view| view.get(&id))
    }
    async fn invite_by_code(&self, code: &Digest) -> Result<Option<Invite>, Error> {
        self.read(|view| view.first(&INVITE_BY_CODE.at(code)))
    }
    async fn invite_by_link(&self, link: &Digest) -> Result<Option<Invite>, Error> {
        self.read(|view| view.first(&INVITE_BY_LINK.at(link)))
    }
    async fn invite_between(&self, pair_key: &Digest) -> Result<Option<Invite>, Error> {
        self.read(|view| view.first(&OPEN_INVITE_BY_PAIR.at(pair_key)))
    }
    async fn invites_of(&self, inviter: AccountId) -> Result<Vec<Invite>, Error> {
        self.read(|view| view.list(&OPEN_INVITE_BY_INVITER.at(&inviter).last_first(), LIST_LIMIT))
    }
    async fn invites_to(&self, target: &EmailKey) -> Result<Vec<Invite>, Error> {
        self.read(|view| view.list(&OPEN_INVITE_BY_TARGET.at(target).last_first(), LIST_LIMIT))
    }
    async fn blocks_of(&self, blocker: AccountId) -> Result<Vec<Block>, Error> {
        self.read(|view| view.list(&BLOCK_BY_TIME.at(&blocker).last_first(), LIST_LIMIT))
    }
    async fn is_blocked(&self, blocker: AccountId, blocked: AccountId) -> Result<bool, Error> {
        self.read(|view| Ok(view.has(&Scan::<Block>::rows(&(blocker, blocked)))))
    }
    async fn is_blocked_by_email(&self, blocker: &EmailKey, blocked: AccountId) -> Result<bool, Error> {
        self.read(|view| Ok(view.has(&BLOCK_BY_EMAIL.at(&(blocker, blocked)))))
    }
    async fn erasure_of(&self, person: AccountId) -> Result<Option<Timestamp>, Error> {
        self.read(|view| view.erasure(person))
    }
    async fn erasures_due(
        &self,
        now: Timestamp,
        after: Option<(Timestamp, AccountId)>,
        limit: u32,
    ) -> Result<Vec<(Timestamp, AccountId)>, Error> {
        let due = ERASURE_BY_TIME.at(&()).until(&now).after(after);
        let erasures = self.read(|view| view.list(&due, limit))?;
        Ok(erasures.into_iter().map(|erasure| (erasure.due, erasure.person)).collect())
    }
}

impl LogStore {
    fn couples(&self, memberships: &Scan<Membership>, limit: u32) -> Result<Vec<Couple>, Error> {
        self.read(|view| {
            let memberships = view.list(memberships, limit)?;
            let couples = memberships.iter().map(|membership| view.get(&membership.couple).transpose());
            couples.flatten().collect()
        })
    }
}

#[async_trait]
impl TimelineReads for LogStore {
    async fn entries(
        &self,
        couple: CoupleId,
        page: Page,
        limit: u32,
        kind: Option<&str>,
    ) -> Result<Vec<Entry>, Error> {
        let (log, wanted) = (Scan::rows(&couple), |entry: &Entry| kind.is_none_or(|kind| entry.kind == kind));
        match page {
            Page::After(seq) => self.entries_of(&log.after(Some((couple, seq))), limit, wanted),
            Page::Before(seq) => {
                let mut entries = self.entries_of(&log.before(&(couple, seq)).last_first(), limit, wanted)?;
                entries.reverse();
                Ok(entries)
            }
        }
    }
    async fn entry(&self, couple: CoupleId, seq: i64) -> Result<Option<Entry>, Error> {
        let entry = self.read(|view| view.get::<(CoupleId, Entry)>(&(couple, seq)))?;
        Ok(entry.map(|(_, entry)| entry))
    }
    async fn entry_by_client_id(
        &self,
        couple: CoupleId,
        author: Side,
        client_id: &str,
    ) -> Result<Option<Entry>, Error> {
        Ok(self.entries_of(&ENTRY_BY_CLIENT_ID.at(&(couple, author, client_id)), 1, |_| true)?.pop())
    }
    async fn entries_by(
        &self,
        couple: CoupleId,
        author: Side,
        after: i64,
        limit: u32,
    ) -> Result<Vec<Entry>, Error> {
        let log = Scan::rows(&couple).after(Some((couple, after)));
        self.entries_of(&log, limit, |entry| entry.author == Some(author))
    }
    async fn unread(
        &self,
        couple: CoupleId,
        author: Side,
        after: i64,
        except: &[String],
    ) -> Result<u32, Error> {
        let is_unread = |entry: &Entry| {
            entry.author == Some(author)
                && entry.client_id.is_some()
                && entry.deleted_at.is_none()
                && !except.contains(&entry.kind)
        };
        let unread =
            self.entries_of(&Scan::rows(&couple).after(Some((couple, after))), u32::MAX, is_unread)?;
        Ok(u32::try_from(unread.len()).unwrap_or(u32::MAX))
    }
}

impl LogStore {
    fn entries_of(
        &self,
        scan: &Scan<(CoupleId, Entry)>,
        limit: u32,
        wanted: impl Fn(&Entry) -> bool,
    ) -> Result<Vec<Entry>, Error> {
        let rows = self.read(|view| view.select(scan, limit, |(_, entry)| wanted(entry)))?;
        Ok(rows.into_iter().map(|(_, entry)| entry).collect())
    }
}

#[async_trait]
impl MediaReads for LogStore {
    async fn media(&self, id: MediaId) -> Result<Option<Media>, Error> {
        self.read(|view| view.get(&id))
    }
    async fn media_by_identity(&self, space: Space, identity: &Digest) -> Result<Option<Media>, Error> {
        self.read(|view| view.first(&MEDIA_BY_IDENTITY.at(&(space, *identity))))
    }
    async fn renditions(&self, space: Space, id: MediaId) -> Result<Vec<Rendition>, Error> {
        self.read(|view| {
            let media = view.media_in(space, id)?;
            let rows = media
                .map_or(Ok(Vec::new()), |media| view.all(&Scan::<(MediaId, Rendition)>::rows(&media.id)))?;
            Ok(rows.into_iter().map(|(_, rendition)| rendition).collect())
        })
    }
    async fn avatar_of(&self, account: AccountId) -> Result<Option<Media>, Error> {
        let space = Space::Account(account);
        self.read(|view| match view.usage(space)?.avatar {
            Some(id) => view.media_in(space, id),
            None => Ok(None),
        })
    }
    async fn media_space(&self, space: Space) -> Result<SpaceUsage, Error> {
        self.read(|view| view.usage(space))
    }
    async fn media_in(&self, space: Space, after: Option<MediaId>, limit: u32) -> Result<Vec<Media>, Error> {
        let after = after.map(|id| (space, id));
        self.read(|view| view.list(&MEDIA_BY_SPACE.at(&space).after(after), limit))
    }
    async fn media_spaces(&self, after: Option<Space>, limit: u32) -> Result<Vec<Space>, Error> {
        let spaces = Scan::<(Space, SpaceUsage)>::rows(&()).after(after);
        let rows = self.read(|view| view.list(&spaces, limit))?;
        Ok(rows.into_iter().map(|(space, _)| space).collect())
    }
    async fn unused_renditions(
        &self,
        before: Timestamp,
        limit: u32,
    ) -> Result<Vec<(MediaId, Rendition)>, Error> {
        self.read(|view| view.list(&RENDITION_BY_USE.at(&()).before(&before), limit))
    }
}

#[async_trait]
impl UploadReads for LogStore {
    async fn upload(&self, id: UploadId) -> Result<Option<ResumableUpload>, Error> {
        self.read(|view| view.get(&id))
    }
    async fn unfinished_uploads(&self, owner: AccountId) -> Result<UnfinishedUploads, Error> {
        self.read(|view| view.unfinished(owner))
    }
    async fn unfinished_bytes(&self) -> Result<i64, Error> {
        let unfinished = |upload: &ResumableUpload| upload.media.is_none();
        let uploads = self.read(|view| view.select(&Scan::rows(&()), u32::MAX, unfinished))?;
        Ok(uploads.iter().map(|upload| upload.offset).sum())
    }
    async fn expired_uploads(&self, now: Timestamp, limit: u32) -> Result<Vec<ResumableUpload>, Error> {
        self.read(|view| view.list(&UPLOAD_BY_EXPIRY.at(&()).until(&now), limit))
    }
}

#[async_trait]
impl DeviceReads for LogStore {
    async fn device(&self, account: AccountId, id: DeviceId) -> Result<Option<Device>, Error> {
        self.read(|view| view.get(&(account, id)))
    }
    async fn devices_of(&self, account: AccountId) -> Result<Vec<Device>, Error> {
        self.read(|view| view.list(&DEVICE_BY_TIME.at(&account), 200))
    }
}

#[async_trait]
impl NotificationReads for LogStore {
    async fn preferences(&self, person: AccountId) -> Result<Option<Preferences>, Error> {
        self.read(|view| view.get(&person))
    }
}

#[async_trait]
impl DateReads for LogStore {
    async fn date(&self, couple: CoupleId, id: DateId) -> Result<Option<CoupleDate>, Error> {
        self.read(|view| view.get(&(couple, id)))
    }
    async fn dates_of(&self, couple: CoupleId) -> Result<Vec<CoupleDate>, Error> {
        self.read(|view| view.list(&DATE_BY_TIME.at(&couple), 200))
    }
}

#[async_trait]
impl JobReads for LogStore {
    async fn queue_stats(&self, queue: &str, now: Timestamp) -> Result<QueueStats, Error> {
        self.read(|view| {
            let live = view.all(&JOB_BY_DUE_TIME.at(&queue))?;
            let dead = view.all(&DEAD_JOB_BY_QUEUE.at(&queue))?.len() as u64;
            let ready = live.iter().filter(|row| row.job.due_at <= now).count() as u64;
            let next_due = live.iter().map(|row| row.job.due_at).min();
            Ok(QueueStats { ready, waiting: live.len() as u64 - ready, dead, next_due })
        })
    }
    async fn next_due(&self, queue: &str) -> Result<Option<Timestamp>, Error> {
        let next = self.read(|view| view.first(&JOB_BY_DUE_TIME.at(&(queue, false))))?;
        Ok(next.map(|row| row.job.due_at))
    }
    async fn next_lease_end(&self, queue: &str) -> Result<Option<Timestamp>, Error> {
        let next = self.read(|view| view.first(&JOB_BY_DUE_TIME.at(&(queue, true))))?;
        Ok(next.map(|row| row.job.due_at))
    }
    async fn dead_jobs(&self, after: Option<JobId>, limit: u32) -> Result<Vec<DeadJob>, Error> {
        self.read(|view| view.list(&Scan::rows(&()).after(after), limit))
    }
}

#[async_trait]
impl IdempotencyReads for LogStore {
    async fn outcome(&self, scope: &Digest) -> Result<Option<OutcomeRecord>, Error> {
        self.read(|view| view.get(scope))
    }
}

// Part 6: the log. After a line that names the format, the file is a sequence of records: SHA-256 of the payload, its length, the length
// inverted, and the payload, which has the writes of all commits that were written together.

const FORMAT: &[u8] = b"log of own_store, format 1\n";
/// A file with more bytes than this, and more than twice those of its live rows, is written anew when it is opened.
const COMPACT_ABOVE_BYTES: u64 = 1 << 20;
/// Maximum number of rows in a record that compacting writes.
const ROWS_PER_RECORD: usize = 1_000;

/// Number of attempts to lock the file, 10 ms apart.
const LOCK_TRIES: u32 = 200;

struct Log {
    path: PathBuf,
    file: File,
    /// Length of the file: the end of the last record.
    end: u64,
    /// Whether the file is not what this log wrote, or its end is unknown after an error.
    is_damaged: bool,
    /// Locked for as long as the log is open: two processes would overwrite each other's records.
    _lock: File,
}

impl Log {
    fn open(path: &Path) -> Result<(Self, Tree), Error> {
        let failed = |error: io::Error| {
            Error::new(kind(&error), "open store").context(path.display().to_string()).source(error)
        };
        let lock = File::create(path.with_added_extension("lock")).map_err(failed)?;
        // The writer thread of a store that was dropped may have to finish commits.
        let mut tries = 0..LOCK_TRIES;
        while let Err(error) = lock.try_lock() {
            let context = format!("{} is in use by another process", path.display());
            tries.next().ok_or_else(|| {
                Error::new(ErrorKind::Unavailable, "open store").context(context).source(error)
            })?;
            std::thread::sleep(Duration::from_millis(10));
        }
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Bytes::new(),
            read => read.map_err(failed)?,
        };
        let (tree, end) = read_log(&bytes).map_err(|damage| {
            let context = format!("{}: {damage}; restore a backup", path.display());
            Error::new(ErrorKind::Corrupt, "open store").context(context)
        })?;
        let live: usize = tree.iter().map(|(key, value)| key.len() + value.len()).sum();
        let is_large = end > COMPACT_ABOVE_BYTES.max(2 * live as u64);
        let end = if end == 0 || is_large { compact(path, &tree).map_err(failed)? } else { end };
        let file = OpenOptions::new().append(true).open(path).map_err(failed)?;
        // Drops a torn record.
        file.set_len(end).and_then(|()| file.sync_all()).map_err(failed)?;
        Ok((Self { path: path.to_owned(), file, end, is_damaged: false, _lock: lock }, tree))
    }

    /// Appends a record and synchronizes the file. After an error the record is neither on disk nor in the tree.
    fn append(&mut self, writes: &Writes) -> Result<(), (ErrorKind, String)> {
        let length = fs::metadata(&self.path).map_or(0, |file| file.len());
        if length != self.end {
            self.is_damaged = true;
            let path = self.path.display();
            let damage = format!("{path} was damaged or removed: it has {length} bytes, not {}", self.end);
            return Err((ErrorKind::Unavailable, damage));
        }
        if writes.is_empty() {
            return Ok(());
        }
        let record = record(writes.iter().map(|(key, value)| (key, value.as_ref())));
        if let Err(error) = self.file.write_all(&record).and_then(|()| self.file.sync_data()) {
            let undone = self.file.set_len(self.end).and_then(|()| self.file.sync_data());
            self.is_damaged = undone.is_err();
            // Whether a restart finds the record is unknown if it cannot be cut off.
            let kind = if self.is_damaged { ErrorKind::TimedOut } else { kind(&error) };
            return Err((kind, format!("cannot write {}: {error}", self.path.display())));
        }
        self.end += record.len() as u64;
        Ok(())
    }
}

fn kind(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Full,
        _ => ErrorKind::Unavailable,
    }
}

fn record<'w>(writes: impl Iterator<Item = (&'w Bytes, Option<&'w Bytes>)>) -> Bytes {
    let mut payload = Bytes::new();
    for (key, value) in writes {
        write_bytes(&mut payload, key);
        value.is_some().encode(&mut payload);
        value.into_iter().for_each(|value| write_bytes(&mut payload, value));
    }
    let length = payload.len() as u64;
    let mut record = Bytes::new();
    (digest(&[&payload]), [length, !length]).encode(&mut record);
    record.extend(payload);
    record
}

fn write_bytes(out: &mut Bytes, bytes: &[u8]) {
    (bytes.len() as u64).encode(out);
    out.extend(bytes);
}

fn read_bytes<'i>(input: &mut &'i [u8]) -> Option<&'i [u8]> {
    let length = usize::try_from(u64::decode(input)?).ok()?;
    let (bytes, rest) = input.split_at_checked(length)?;
    *input = rest;
    Some(bytes)
}

/// The writes of a payload; none if it has another form.
fn read_payload(mut payload: &[u8]) -> Option<Writes> {
    let mut writes = Writes::new();
    while !payload.is_empty() {
        let key = read_bytes(&mut payload)?.to_vec();
        let value = if bool::decode(&mut payload)? { Some(read_bytes(&mut payload)?.to_vec()) } else { None };
        writes.insert(key, value);
    }
    Some(writes)
}

/// Replays a file. Returns its rows and the end of the last complete record, or a description of the damage.
///
/// A crash can leave some bytes of the last record, and zeros in place of the others: no caller has received an
/// acknowledgement of it. The end of the log is therefore before a record that is not complete, unless a complete one follows.
fn read_log(file: &[u8]) -> Result<(Tree, u64), String> {
    let mut tree = Tree::new();
    if file.is_empty() {
        return Ok((tree, 0));
    }
    let mut rest = file.strip_prefix(FORMAT).ok_or("not a log of this store")?;
    while let Some(writes) = read_record(&mut rest) {
        replay(&mut tree, writes);
    }
    let at = file.len() - rest.len();
    // Texts of users cannot contain a record: its inverted length has bytes that UTF-8 does not.
    match (1..rest.len()).find(|skipped| read_record(&mut &rest[*skipped..]).is_some()) {
        None => Ok((tree, at as u64)),
        Some(skipped) => {
            Err(format!("the record at byte {at} is damaged, and a complete one follows at {}", at + skipped))
        }
    }
}

/// The writes of a record, after which the input continues; none, and the same input, if it is not complete.
fn read_record(input: &mut &[u8]) -> Option<Writes> {
    let mut rest = *input;
    let (sum, [length, inverse]) = <(Digest, [u64; 2])>::decode(&mut rest)?;
    let length = usize::try_from(length).ok().filter(|_| length == !inverse)?;
    let (payload, rest) = rest.split_at_checked(length)?;
    let writes = (digest(&[payload]) == sum).then(|| read_payload(payload)).flatten()?;
    *input = rest;
    Some(writes)
}

/// Replaces a file by one with the rows of `tree` only, and returns its length.
fn compact(path: &Path, tree: &Tree) -> io::Result<u64> {
    let new = path.with_added_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(FORMAT)?;
    let mut rows = tree.iter().map(|(key, value)| (key, Some(value))).peekable();
    while rows.peek().is_some() {
        file.write_all(&record(rows.by_ref().take(ROWS_PER_RECORD)))?;
    }
    file.sync_all()?;
    fs::rename(new, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(file.metadata()?.len())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("couple.log");
    let sign_up =
        couple::account::SignUp { email: "ana@example.org".into(), display_name: "Ana".into(), locale: None };
    for mails_sent in [0, 1] {
        let mailer = couple::notify::mail::MemoryMailer::new();
        let store = Arc::new(LogStore::open(&path).await?);
        let backend = couple::Backend::builder()
            .blobs(couple::blobs::Blobs::memory())
            .store(store.clone())
            .mailer(mailer.clone())
            .keys(couple::Keyring::new([0; 32]))
            .build()?;
        if mails_sent == 0 {
            backend.accounts()?.sign_up(&couple::RequestContext::default(), &sign_up).await?;
        } else {
            // The job is in the file: after the restart it sends the mail.
            backend.worker().run_until_idle().await?;
        }
        assert_eq!(mailer.sent().len(), mails_sent);
        store.close().await?;
    }
    println!(
        "a sign-up was stored in {} bytes, and its mail was sent after a restart",
        fs::metadata(&path)?.len()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use couple::store::MemoryStore;
    use couple_conformance::World;

    use super::*;

    /// Folder of this process. The system removes it.
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| tempfile::tempdir().unwrap().keep());

    async fn open(name: String) -> LogStore {
        LogStore::open(FOLDER.join(name)).await.unwrap()
    }

    async fn broken() -> LogStore {
        let store = open("broken".to_owned()).await;
        fs::remove_file(FOLDER.join("broken")).unwrap();
        store
    }

    couple_conformance::store!(named: open, reference: async { MemoryStore::new() }, reopen: open, broken: broken());

    /// A new file with one commit for each account.
    async fn file_of(accounts: &[Account]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let store = LogStore::open(&path).await.unwrap();
        for account in accounts {
            store.commit(vec![AccountChange::Insert(account.clone()).into()]).await.unwrap();
        }
        store.close().await.unwrap();
        (folder, path)
    }

    #[tokio::test]
    async fn torn_last_record_is_dropped_and_overwritten() {
        let world = World::default();
        let mut accounts = ["a", "b", "c"].map(|name| world.account(name));
        // A record whose length has two bytes that are not zero.
        accounts[1].birthday = Some("0".repeat(300));
        let (_folder, path) = file_of(&accounts[..2]).await;
        let complete = fs::read(&path).unwrap();
        let (_folder_of_first, first) = file_of(&accounts[..1]).await;
        let second = fs::read(first).unwrap().len();
        for end in second..complete.len() {
            // The rest was not written, or the file got its length before its content.
            let torn =
                [complete[..end].to_vec(), [&complete[..end], &vec![0; complete.len() - end]].concat()];
            for torn in torn.iter().filter(|torn| **torn != complete) {
                fs::write(&path, torn).unwrap();
                let store = LogStore::open(&path).await.unwrap();
                assert_eq!(
                    store.account(accounts[0].id).await.unwrap().as_ref(),
                    Some(&accounts[0]),
                    "{end}"
                );
                assert_eq!(store.account(accounts[1].id).await.unwrap(), None, "{end}");
                store.close().await.unwrap();
                assert_eq!(fs::metadata(&path).unwrap().len(), second as u64, "{end}");
            }
        }
        let store = LogStore::open(&path).await.unwrap();
        store.commit(vec![AccountChange::Insert(accounts[2].clone()).into()]).await.unwrap();
        store.close().await.unwrap();
        let store = LogStore::open(&path).await.unwrap();
        assert_eq!(store.account(accounts[2].id).await.unwrap().as_ref(), Some(&accounts[2]));
    }

    /// A crash can write the pages of a record in any order.
    #[tokio::test]
    async fn last_record_whose_first_bytes_were_not_written_is_dropped() {
        let world = World::default();
        let mut accounts = ["a", "b"].map(|name| world.account(name));
        accounts[1].birthday = Some("0".repeat(10_000));
        let (_folder, path) = file_of(&accounts).await;
        let complete = fs::read(&path).unwrap();
        let (_folder_of_first, first) = file_of(&accounts[..1]).await;
        let second = fs::read(first).unwrap().len();
        for zeros in [8, 32, 40, 48, 49, 512, 4_096, 8_192, complete.len() - second - 1] {
            let mut torn = complete.clone();
            torn[second..second + zeros].fill(0);
            fs::write(&path, &torn).unwrap();
            let store = LogStore::open(&path).await.unwrap();
            assert_eq!(store.account(accounts[0].id).await.unwrap().as_ref(), Some(&accounts[0]), "{zeros}");
            assert_eq!(store.account(accounts[1].id).await.unwrap(), None, "{zeros}");
            store.close().await.unwrap();
            assert_eq!(fs::metadata(&path).unwrap().len(), second as u64, "{zeros}");
        }
    }

    #[tokio::test]
    async fn damage_before_the_last_record_is_an_error() {
        let world = World::default();
        let (_folder, path) = file_of(&["a", "b"].map(|name| world.account(name))).await;
        let complete = fs::read(&path).unwrap();
        // The name of the format, and checksum, length, inverted length and payload of the first record.
        for position in [0, 27, 27 + 32, 27 + 32 + 7, 27 + 32 + 8, 27 + 32 + 16, 27 + 32 + 16 + 50] {
            let mut damaged = complete.clone();
            damaged[position] ^= 1;
            fs::write(&path, &damaged).unwrap();
            let error = LogStore::open(&path).await.err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            assert_eq!(fs::read(&path).unwrap(), damaged, "a damaged file is kept");
        }
    }

    #[tokio::test]
    async fn file_is_used_by_one_store() {
        let (_folder, path) = file_of(&[]).await;
        let store = LogStore::open(&path).await.unwrap();
        assert_eq!(LogStore::open(&path).await.err().unwrap().kind(), ErrorKind::Unavailable);
        store.close().await.unwrap();
        LogStore::open(&path).await.unwrap();
    }

    #[tokio::test]
    async fn reads_and_commits_fail_without_the_whole_file() {
        let account = World::default().account("a");
        for is_removed in [true, false] {
            let (_folder, path) = file_of(std::slice::from_ref(&account)).await;
            let store = LogStore::open(&path).await.unwrap();
            assert_eq!(store.account(account.id).await.unwrap().as_ref(), Some(&account));
            if is_removed { fs::remove_file(&path) } else { fs::write(&path, FORMAT) }.unwrap();
            for _ in 0..2 {
                assert_eq!(store.account(account.id).await.unwrap_err().kind(), ErrorKind::Unavailable);
                assert_eq!(store.ping().await.unwrap_err().kind(), ErrorKind::Unavailable);
            }
        }
    }

    #[tokio::test]
    async fn opening_removes_old_versions_of_rows() {
        let (_folder, path) = file_of(&[]).await;
        let record = |n: i64| {
            let (scope, at, outcome) = (digest(&[b"scope"]), Timestamp::from_micros(n), "x".repeat(100_000));
            OutcomeRecord { scope, request: digest(&[b"request"]), outcome, recorded_at: at, expires_at: at }
        };
        let store = LogStore::open(&path).await.unwrap();
        for n in 1..=30 {
            store.commit(vec![IdempotencyChange::Record(record(n)).into()]).await.unwrap();
        }
        store.close().await.unwrap();
        assert!(fs::metadata(&path).unwrap().len() > 3_000_000);
        for _ in 0..2 {
            let store = LogStore::open(&path).await.unwrap();
            assert!(fs::metadata(&path).unwrap().len() < 200_000);
            assert_eq!(store.outcome(&record(30).scope).await.unwrap(), Some(record(30)));
            store.close().await.unwrap();
        }
    }

    /// The lines of each excerpt in `docs/adapters.md` follow one another in this file, except for lines that an excerpt leaves out.
    #[test]
    fn excerpts_in_the_documentation_are_lines_of_this_file() {
        let (document, program) = (include_str!("../docs/adapters.md"), include_str!("own_store.rs"));
        let (_, tutorial) = document.split_once("## A store, step by step").unwrap();
        let (tutorial, _) = tutorial.split_once("### Other stores").unwrap();
        let excerpts: Vec<&str> = tutorial.split("```").skip(1).step_by(2).collect();
        assert_eq!(excerpts.len(), 7);
        for excerpt in excerpts {
            let mut lines = program.lines();
            for line in excerpt.lines().skip(1) {
                assert!(
                    lines.any(|of_program| of_program == line),
                    "not in the program, or in another order: {line}"
                );
            }
        }
    }

    #[test]
    fn encoded_keys_have_the_order_of_their_values() {
        fn check<T: Encode + Decode + PartialEq + std::fmt::Debug>(sorted: &[T]) {
            let encoded: Vec<Bytes> = sorted.iter().map(|value| key("", value)).collect();
            assert!(encoded.is_sorted_by(|one, other| one < other), "{sorted:?}");
            for (value, bytes) in sorted.iter().zip(&encoded) {
                assert_eq!(T::decode(&mut &bytes[2..]).as_ref(), Some(value));
            }
        }
        check(&[i64::MIN, -256, -1, 0, 1, 255, 256, i64::MAX]);
        check(&[None, Some(-1_i64), Some(0)]);
        let texts =
            ["", "\0", "\0\0", "\0a", "\u{1}", "a", "a\0", "a\0\u{1}", "a\u{1}", "ab", "b", "\u{10ffff}"];
        check(&texts.map(str::to_owned));
        check(&texts.map(|text| (text.to_owned(), -1_i64)));
        check(&[(String::new(), 1_i64), ("a".to_owned(), 0), ("a".to_owned(), 1), ("a\0".to_owned(), 0)]);
        check(&[vec![], vec![0_u8], vec![0, 0], vec![0, 1], vec![1]]);
    }
}
