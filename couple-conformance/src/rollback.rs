//! Rows of each area, before and after a commit that a conflict undoes, and before and after the store is opened again.

use std::{fmt::Debug, time::Duration};

use couple_core::{
    AccountId, Change, CommitError, Conflict, Digest, DisplayName, Error, IdempotencyChange, Label, Locale,
    MediaId, OutcomeRecord, Store, Timestamp,
    account::{
        Account, AccountChange, ProofForm, SeenToken, Session, Tally, TallyId, Token, TokenKind, Tries,
    },
    date::{CoupleDate, DateChange, DateKind},
    device::{Device, DeviceChange},
    digest,
    job::{DeadJob, JobChange, NewJob, QueueStats},
    media::{ExpectedMedia, Format, Media, MediaChange, Rendition, Space, SpaceUsage},
    pairing::{Block, Couple, Invite, InviteState, PairingChange, Side, pair_key},
    timeline::{Body, Entry, NewEntry, Page, TimelineChange},
    upload::{ResumableUpload, UnfinishedUploads, UploadChange, UploadPart},
};

use crate::world::{World, all, append, commit, insert, must, same};

/// Fencing token of the sample upload, and claim token of the sample jobs.
const TOKEN: i64 = 7;
/// Queues with one job each: a new, a due, a claimed, an abandoned and a dead one.
const QUEUES: [&str; 5] =
    ["rollback new", "rollback due", "rollback claimed", "rollback abandoned", "rollback dead"];

/// Rows that the changes affect.
struct Sample {
    world: World,
    /// Member of a couple.
    ana: Account,
    /// Account in no couple.
    cleo: Account,
    /// Person without an account, whose erasure is due.
    person: AccountId,
    token: Token,
    expired_token: Token,
    session: Session,
    expired_session: Session,
    /// These three are not stored.
    new_session: Session,
    new_token: Token,
    new_invite: Invite,
    tally: TallyId,
    expired_tally: TallyId,
    invite: Invite,
    expired_invite: Invite,
    couple: Couple,
    ended: Couple,
    /// Photo that is processed.
    photo: Media,
    /// Photo that is ready, with a rendition and a use.
    ready_photo: Media,
    /// Avatar of Ana.
    avatar: Media,
    /// Not stored.
    new_photo: Media,
    upload: ResumableUpload,
    /// Not stored.
    new_upload: ResumableUpload,
    /// A job for each of [`QUEUES`]; the first is not stored.
    jobs: [NewJob; 5],
    /// Device of Cleo.
    device: Device,
    /// Date of the couple.
    date: CoupleDate,
    /// Date of the ended couple.
    ended_date: CoupleDate,
    /// Not stored.
    new_date: CoupleDate,
    /// Not stored.
    new_outcome: OutcomeRecord,
    expired_outcome: OutcomeRecord,
}

impl Sample {
    fn new() -> Self {
        // Other ids than those of the rest of the check.
        let world = World::new(2);
        let (ana, ben, cleo) = (world.account("ana"), world.account("ben"), world.account("cleo"));
        let early = world.now().minus(Duration::from_hours(1));
        let session = world.session(cleo.id);
        let token = Token {
            account: Some(cleo.id),
            session: Some(session.id),
            ..world.token(TokenKind::SignIn, "cleo")
        };
        let expired_token = Token { expires_at: early, ..world.token(TokenKind::Password, "cleo") };
        let expired_session = Session { expires_at: early, ..world.session(cleo.id) };
        let couple = world.couple([ana.id, ben.id]);
        let ended = world.couple([world.account_id(), world.account_id()]);
        let outcome = |name: &str, expires_at| OutcomeRecord {
            scope: digest(&[name.as_bytes()]),
            request: digest(&[b"request"]),
            outcome: "{}".to_owned(),
            recorded_at: early.minus(Duration::from_hours(1)),
            expires_at,
        };
        Self {
            token,
            expired_token,
            session,
            expired_session,
            new_session: world.session(cleo.id),
            new_token: world.token(TokenKind::SignIn, "cleo"),
            new_invite: world.invite(cleo.id, "cleo", Some("dora")),
            tally: TallyId::from_digest(digest(&[b"tally"])),
            expired_tally: TallyId::from_digest(digest(&[b"expired tally"])),
            invite: world.invite(cleo.id, "cleo", Some("ben")),
            expired_invite: Invite { expires_at: early, ..world.invite(cleo.id, "cleo", Some("emil")) },
            photo: world.photo(couple.id, ana.id, "photo"),
            ready_photo: world.photo(couple.id, ana.id, "ready photo"),
            avatar: world.avatar(ana.id, "avatar"),
            new_photo: world.photo(couple.id, ana.id, "new photo"),
            upload: world.upload(ana.id),
            new_upload: world.upload(ana.id),
            device: world.device(cleo.id),
            date: world.date(couple.id),
            ended_date: world.date(ended.id),
            new_date: world.date(couple.id),
            jobs: QUEUES.map(|queue| world.job(queue)),
            new_outcome: outcome("new outcome", world.later(60)),
            expired_outcome: outcome("expired outcome", early),
            couple,
            ended,
            person: world.account_id(),
            ana,
            cleo,
            world,
        }
    }

    async fn insert_rows(&self, store: &impl Store) {
        let Self { world, ana, cleo, couple, ended, .. } = self;
        let entry = |author, id: &str| NewEntry { author: Some(author), ..world.entry(id) };
        let block = Block { blocker_email: cleo.email.key().clone(), ..self.block(world.now()) };
        let react = TimelineChange::React {
            couple: ended.id,
            seq: 1,
            side: Side::Second,
            emoji: Some("👍".to_owned()),
        };
        let changes = vec![
            insert(ana),
            insert(cleo),
            AccountChange::InsertSession { session: self.session.clone(), version: 0 }.into(),
            AccountChange::InsertSession { session: self.expired_session.clone(), version: 0 }.into(),
            AccountChange::InsertToken(self.token.clone()).into(),
            AccountChange::InsertToken(self.expired_token.clone()).into(),
            AccountChange::PutTally {
                id: self.tally,
                tally: Tally { count: 3, expires_at: world.later(60) },
                retires: None,
            }
            .into(),
            AccountChange::PutTally {
                id: self.expired_tally,
                tally: Tally { count: 1, expires_at: world.now() },
                retires: None,
            }
            .into(),
            PairingChange::InsertInvite { invite: self.invite.clone(), limit: 9 }.into(),
            PairingChange::Block(block).into(),
            PairingChange::SetErasure { person: self.person, due: Some(world.later(9)), before: None }.into(),
            PairingChange::Pair(couple.clone()).into(),
            append(couple.id, entry(Side::First, "one")),
            append(couple.id, entry(Side::Second, "two")),
            TimelineChange::MarkRead { couple: couple.id, side: Side::First, seq: 2 }.into(),
            PairingChange::Pair(ended.clone()).into(),
            append(ended.id, entry(Side::First, "one")),
            react.into(),
            DateChange::Put { date: self.ended_date.clone(), most: 9 }.into(),
            PairingChange::End { id: ended.id, members: ended.members, at: world.now(), by: None }.into(),
            PairingChange::InsertInvite { invite: self.expired_invite.clone(), limit: 9 }.into(),
            IdempotencyChange::Record(self.expired_outcome.clone()).into(),
            DeviceChange::Put { device: self.device.clone(), most: 9 }.into(),
            DateChange::Put { date: self.date.clone(), most: 9 }.into(),
        ];
        all(store, changes).await;
        self.insert_pictures(store).await;
        self.insert_jobs(store).await;
    }

    async fn insert_pictures(&self, store: &impl Store) {
        let Self { ana, couple, photo, ready_photo, avatar, upload, .. } = self;
        let (id, owner) = (ready_photo.id, ana.id);
        let changes = [
            MediaChange::Insert { media: photo.clone(), most: 1_000 },
            MediaChange::Insert { media: ready_photo.clone(), most: 1_000 },
            MediaChange::Insert { media: avatar.clone(), most: 1_000 },
            self.finish(ExpectedMedia { space: ready_photo.space, id, uses: 0 }),
            MediaChange::Use { couple: couple.id, id, owner, ready: true },
            MediaChange::SetAvatar { account: owner, media: Some(avatar.id), before: None },
        ];
        let uploads = [
            UploadChange::Insert { upload: upload.clone(), most: 9 },
            UploadChange::Claim { owner, id: upload.id, offset: 0, writer: TOKEN, length: None },
        ];
        all(store, changes.map(Change::from).into_iter().chain(uploads.map(Change::from)).collect()).await;
    }

    async fn insert_jobs(&self, store: &impl Store) {
        let (world, [_, due, claimed, abandoned, dead]) = (&self.world, &self.jobs);
        let claim = |job: &NewJob, lease_until| JobChange::Claim {
            queue: job.queue.clone(),
            now: world.now(),
            lease_until,
            claim: TOKEN,
            limit: 1,
        };
        let changes = [
            JobChange::Enqueue(due.clone()),
            JobChange::Enqueue(claimed.clone()),
            JobChange::Enqueue(abandoned.clone()),
            JobChange::Enqueue(dead.clone()),
            claim(claimed, world.later(60)),
            claim(abandoned, world.now()),
            claim(dead, world.later(60)),
            JobChange::Bury { id: dead.id, claim: TOKEN, error: "refused".to_owned(), at: world.now() },
        ];
        all(store, changes.map(Change::from).into()).await;
    }

    fn finish(&self, of: ExpectedMedia) -> MediaChange {
        MediaChange::Finish {
            of,
            width: 40,
            height: 30,
            animated: true,
            alpha: true,
            placeholder: vec![1],
            source: None,
            renditions: vec![self.world.rendition("small", Format::WebP)],
        }
    }

    /// Block of Ana by Cleo.
    fn block(&self, at: Timestamp) -> Block {
        let blocker_email = self.world.email("other").key().clone();
        Block { blocker: self.cleo.id, blocker_email, blocked: self.ana.id, at }
    }

    fn account_changes(&self) -> Vec<AccountChange> {
        let Self { world, cleo, token, session, .. } = self;
        let at = world.later(1);
        let seen = SeenToken { tries: Some(Tries::Own(0)), used_form: None };
        let email = token.email.key().clone();
        let (kind, account) = (token.kind, cleo.id);
        vec![
            AccountChange::Update(Account {
                email: world.email("new"),
                display_name: DisplayName::from_stored("New"),
                locale: Some(Locale::from_stored("pt-BR")),
                deletion_due: Some(at),
                ..cleo.clone()
            }),
            AccountChange::Erase { id: account, version: 0 },
            AccountChange::InsertToken(self.new_token.clone()),
            AccountChange::RedeemToken { id: token.id, seen, at },
            AccountChange::RedeemForm { id: token.id, seen, form: ProofForm::Code, account },
            AccountChange::CountTries { kind, email: email.clone(), network: digest(&[b"network"]), at },
            AccountChange::EndTokens { kind, email, except: None, at },
            AccountChange::EndTokensOf { account, kind, except: None, at },
            AccountChange::CountTally { id: self.tally, below: 9, at, expires_at: world.later(90) },
            AccountChange::PutTally {
                id: self.tally,
                tally: Tally { count: 7, expires_at: world.later(90) },
                retires: None,
            },
            AccountChange::PurgeTallies { before: at, cap: 9 },
            AccountChange::InsertSession { session: self.new_session.clone(), version: 0 },
            AccountChange::TouchSession { account, id: session.id, seen_at: at },
            AccountChange::SetWidgetToken {
                account,
                id: session.id,
                token: Some(digest(&[b"new widget"])),
                most: 9,
            },
            AccountChange::EndSession { account, id: session.id },
            AccountChange::EndSessions { account, except: None },
            AccountChange::PurgeTokens { before: world.now(), cap: 9 },
            AccountChange::PurgeSessions { before: world.now(), idle: world.now(), cap: 9 },
        ]
    }

    fn pairing_changes(&self) -> Vec<PairingChange> {
        let Self { world, ana, cleo, couple, person, .. } = self;
        let (id, at) = (couple.id, world.later(1));
        vec![
            PairingChange::InsertInvite { invite: self.new_invite.clone(), limit: 9 },
            PairingChange::CloseInvite { id: self.invite.id, to: InviteState::Declined },
            PairingChange::WithdrawInvitesOf { inviter: cleo.id },
            PairingChange::Pair(world.couple([cleo.id, world.account_id()])),
            PairingChange::Describe {
                id,
                title: Some(Some(Label::from_stored("Us"))),
                anniversary: Some(Some("2020-02-29".to_owned())),
            },
            PairingChange::Restore { id, side: Side::First, wanted: true, read: [false, false] },
            PairingChange::End { id, members: couple.members, at, by: None },
            PairingChange::Block(self.block(at)),
            PairingChange::Unblock { blocker: cleo.id, blocked: ana.id },
            PairingChange::Forget { account: cleo.id, cap: 9 },
            PairingChange::SetErasure { person: *person, due: None, before: Some(world.later(9)) },
            PairingChange::FinishErasure { person: *person, due: world.later(9) },
            PairingChange::Anonymize { couple: self.ended.id, side: Side::First, with: world.account_id() },
            PairingChange::PurgeInvites { before: world.now(), cap: 9 },
        ]
    }

    fn timeline_changes(&self) -> Vec<TimelineChange> {
        let (couple, seq, at) = (self.couple.id, 1, self.world.later(1));
        let (author, body) = (Side::First, Body::from_stored("{}"));
        vec![
            TimelineChange::Append { couple, entry: self.world.entry("three") },
            TimelineChange::Edit { couple, seq, author, body, at },
            TimelineChange::Delete { couple, seq, author, at },
            TimelineChange::React { couple, seq, side: Side::Second, emoji: Some("👍".to_owned()) },
            TimelineChange::MarkRead { couple, side: Side::Second, seq },
            TimelineChange::Erase { couple: self.ended.id, author, at, after: 0, cap: 9 },
        ]
    }

    fn media_changes(&self) -> Vec<MediaChange> {
        let Self { world, ana, cleo, couple, photo, ready_photo, avatar, .. } = self;
        let processed = ExpectedMedia { space: photo.space, id: photo.id, uses: 0 };
        let (space, id) = (ready_photo.space, ready_photo.id);
        let ready = ExpectedMedia { space, id, uses: 1 };
        let (name, format) = ("small".to_owned(), Format::WebP);
        vec![
            MediaChange::Insert { media: self.new_photo.clone(), most: 1_000 },
            self.finish(processed),
            MediaChange::Reject { of: processed, reason: "damaged".to_owned() },
            MediaChange::Use { couple: couple.id, id: photo.id, owner: ana.id, ready: false },
            MediaChange::Release(ready),
            MediaChange::Delete(ready),
            MediaChange::AddRendition { space, id, rendition: world.rendition("large", format) },
            MediaChange::Touch { space, id, name, format, at: world.later(1) },
            MediaChange::Forget { space, id, blobs: vec!["small.webp".to_owned()] },
            MediaChange::SetAvatar { account: ana.id, media: None, before: Some(avatar.id) },
            MediaChange::Close { account: cleo.id },
        ]
    }

    fn upload_changes(&self) -> Vec<UploadChange> {
        let (owner, id, offset) = (self.upload.owner, self.upload.id, 0);
        let part = UploadPart { blob: "part".to_owned(), bytes: 5 };
        vec![
            UploadChange::Insert { upload: self.new_upload.clone(), most: 9 },
            UploadChange::Claim { owner, id, offset, writer: 8, length: None },
            UploadChange::Append { owner, id, writer: TOKEN, offset, bytes: 5, parts: vec![part], most: 9 },
            UploadChange::TakeOver { owner, id, offset },
            UploadChange::Finish { owner, id, media: self.photo.id },
            UploadChange::ExpireOf { owner, at: self.world.later(1) },
            UploadChange::Remove { owner, id },
        ]
    }

    fn date_changes(&self) -> Vec<DateChange> {
        let stored = CoupleDate { version: 1, kind: DateKind::Birthday, title: None, ..self.date.clone() };
        let (couple, id) = (stored.couple, stored.id);
        vec![
            DateChange::Put { date: self.new_date.clone(), most: 9 },
            DateChange::Put { date: stored, most: 9 },
            DateChange::Remove { couple, id, version: 1 },
        ]
    }

    fn job_changes(&self) -> Vec<JobChange> {
        let [new, due, claimed, abandoned, dead] = &self.jobs;
        let (now, later, claim) = (self.world.now(), self.world.later(90), TOKEN);
        let id = claimed.id;
        vec![
            JobChange::Enqueue(new.clone()),
            JobChange::Claim { queue: due.queue.clone(), now, lease_until: later, claim, limit: 9 },
            JobChange::ClaimAbandoned { queue: abandoned.queue.clone(), now, lease_until: later, claim },
            JobChange::Renew { id, claim, lease_until: later },
            JobChange::Finish { id, claim },
            JobChange::Retry { id, claim, due_at: later },
            JobChange::Defer { id, claim, due_at: later },
            JobChange::Bury { id, claim, error: "refused".to_owned(), at: now },
            JobChange::Replay { id: dead.id, at: now, expires_at: later },
            JobChange::PurgeDead { before: later, cap: 9 },
        ]
    }

    fn idempotency_changes(&self) -> Vec<IdempotencyChange> {
        vec![
            IdempotencyChange::Record(self.new_outcome.clone()),
            IdempotencyChange::Purge { before: self.world.now(), cap: 9 },
        ]
    }

    /// State of each of [`QUEUES`].
    async fn queues(&self, store: &impl Store) -> Result<Vec<QueueState>, Error> {
        let mut states = Vec::new();
        for queue in QUEUES {
            states.push(QueueState {
                stats: store.queue_stats(queue, self.world.now()).await?,
                next_due: store.next_due(queue).await?,
                next_lease_end: store.next_lease_end(queue).await?,
            });
        }
        Ok(states)
    }
}

#[derive(Debug, PartialEq)]
struct QueueState {
    stats: QueueStats,
    next_due: Option<Timestamp>,
    next_lease_end: Option<Timestamp>,
}

/// Defines the rows that are compared, and how each is read.
macro_rules! rows {
    (|$store:ident, $sample:ident| $($name:ident: $type:ty = $read:expr;)+) => {
        struct Rows { $($name: $type),+ }

        impl Rows {
            async fn read($store: &impl Store, $sample: &Sample) -> Self {
                Self { $($name: $read.await.expect("a store without an outage reads")),+ }
            }

            /// Fails if a row differs from what it was before.
            fn expect_same(&self, now: &Self, what: &str) {
                $(same(&now.$name, &self.$name, &format!("{what} ({})", stringify!($name)));)+
            }
        }
    };
}
rows! { |store, sample|
    account: Option<Account> = store.account(sample.cleo.id);
    account_by_email: Option<Account> = store.account_by_email(sample.cleo.email.key());
    account_by_new_email: Option<Account> = store.account_by_email(sample.world.email("new").key());
    token: Option<Token> = store.token(sample.token.id);
    token_by_link: Option<Token> = store.token_by_link(&sample.token.link);
    expired_token: Option<Token> = store.token(sample.expired_token.id);
    open_tokens: Vec<Token> =
        store.open_tokens(sample.token.kind, sample.token.email.key(), sample.world.now());
    session: Option<(Session, Account)> = store.session_by_token(&sample.session.token);
    sessions: Vec<Session> = store.sessions_of(sample.cleo.id);
    present_sessions: Vec<Digest> = store.present_sessions(&[sample.new_session.token]);
    tally: Option<Tally> = store.tally(sample.tally, sample.world.now());
    expired_tally: Option<Tally> =
        store.tally(sample.expired_tally, sample.world.now().minus(Duration::from_secs(1)));
    invite: Option<Invite> = store.invite(sample.invite.id);
    new_invite: Option<Invite> = store.invite_by_code(&sample.new_invite.code);
    open_invites: Vec<Invite> = store.invites_of(sample.cleo.id);
    invites_to_an_address: Vec<Invite> = store.invites_to(sample.world.email("ben").key());
    invite_between_addresses: Option<Invite> =
        store.invite_between(&pair_key(sample.world.email("cleo").key(), sample.world.email("ben").key()));
    couple: Option<Couple> = store.couple(sample.couple.id);
    couple_of_a_member: Option<Couple> = store.couple_of(sample.ana.id);
    couples_of_an_account: Vec<Couple> = store.couples_of(sample.cleo.id);
    blocks: Vec<Block> = store.blocks_of(sample.cleo.id);
    erasure: Option<Timestamp> = store.erasure_of(sample.person);
    entries: Vec<Entry> = store.entries(sample.couple.id, Page::After(0), 9, None);
    entry_by_client_id: Option<Entry> = store.entry_by_client_id(sample.couple.id, Side::First, "one");
    unread_entries: u32 = store.unread(sample.couple.id, Side::First, 0, &[]);
    entries_of_an_ended_couple: Vec<Entry> = store.entries(sample.ended.id, Page::After(0), 9, None);
    expired_invite: Option<Invite> = store.invite(sample.expired_invite.id);
    ended_couple: Option<Couple> = store.couple(sample.ended.id);
    couples_of_a_former_member: Vec<Couple> = store.couples_of(sample.ended.members[0]);
    photo: Option<Media> = store.media(sample.photo.id);
    ready_photo: Option<Media> = store.media(sample.ready_photo.id);
    new_photo: Option<Media> = store.media_by_identity(sample.new_photo.space, &sample.new_photo.identity());
    renditions: Vec<Rendition> = store.renditions(sample.ready_photo.space, sample.ready_photo.id);
    unused_renditions: Vec<(MediaId, Rendition)> = store.unused_renditions(sample.world.later(60), 9);
    avatar: Option<Media> = store.avatar_of(sample.ana.id);
    usage_of_a_couple: SpaceUsage = store.media_space(sample.photo.space);
    usage_of_a_member: SpaceUsage = store.media_space(sample.avatar.space);
    usage_of_an_account: SpaceUsage = store.media_space(Space::Account(sample.cleo.id));
    upload: Option<ResumableUpload> = store.upload(sample.upload.id);
    new_upload: Option<ResumableUpload> = store.upload(sample.new_upload.id);
    unfinished_uploads: UnfinishedUploads = store.unfinished_uploads(sample.upload.owner);
    queues: Vec<QueueState> = sample.queues(store);
    devices: Vec<Device> = store.devices_of(sample.device.account);
    dates: Vec<CoupleDate> = store.dates_of(sample.couple.id);
    date: Option<CoupleDate> = store.date(sample.couple.id, sample.date.id);
    dates_of_an_ended_couple: Vec<CoupleDate> = store.dates_of(sample.ended.id);
    dead_jobs: Vec<DeadJob> = store.dead_jobs(None, 9);
    new_outcome: Option<OutcomeRecord> = store.outcome(&sample.new_outcome.scope);
    expired_outcome: Option<OutcomeRecord> = store.outcome(&sample.expired_outcome.scope);
}

/// Changes of an area with their names, such as `AccountChange::Update`.
fn named<C: Debug + Into<Change>>(area: &str, changes: Vec<C>) -> impl Iterator<Item = (String, Change)> {
    changes.into_iter().map(move |change| {
        let text = format!("{change:?}");
        let variant: String = text.chars().take_while(char::is_ascii_alphanumeric).collect();
        (format!("{area}::{variant}"), change.into())
    })
}

/// Commits each change with a later change that conflicts, and expects unchanged rows.
pub(crate) async fn conflicts_undo_each_kind_of_change(store: &impl Store) {
    let sample = Sample::new();
    sample.insert_rows(store).await;
    let taken = sample.world.account("taken");
    must(store, AccountChange::Insert(taken)).await;
    let account = named("AccountChange", sample.account_changes());
    let pairing = named("PairingChange", sample.pairing_changes());
    let timeline = named("TimelineChange", sample.timeline_changes());
    let media = named("MediaChange", sample.media_changes());
    let upload = named("UploadChange", sample.upload_changes());
    let date = named("DateChange", sample.date_changes());
    let job = named("JobChange", sample.job_changes());
    let idempotency = named("IdempotencyChange", sample.idempotency_changes());
    let before = Rows::read(store, &sample).await;
    let areas = account.chain(pairing).chain(timeline).chain(media).chain(upload);
    for (name, change) in areas.chain(date).chain(job).chain(idempotency) {
        match commit(store, vec![change, insert(&sample.world.account("taken"))]).await {
            Err(CommitError::Conflict(Conflict::AccountExists)) => {}
            other => panic!("a commit of {name} and of a used address does not conflict: {other:?}"),
        }
        let what = format!("a conflict does not undo the change {name} of its commit");
        before.expect_same(&Rows::read(store, &sample).await, &what);
    }
}

/// Rows of each area, as they were when they were committed.
pub(crate) struct CommittedRows {
    sample: Sample,
    rows: Rows,
}

impl CommittedRows {
    /// Commits rows of each area.
    pub(crate) async fn commit(store: &impl Store) -> Self {
        let sample = Sample::new();
        sample.insert_rows(store).await;
        let rows = Rows::read(store, &sample).await;
        Self { sample, rows }
    }

    /// Fails with `what` if the store has other rows.
    pub(crate) async fn expect_unchanged(&self, store: &impl Store, what: &str) {
        self.rows.expect_same(&Rows::read(store, &self.sample).await, what);
    }
}
