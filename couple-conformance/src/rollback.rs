//! Rows before and after a commit that a conflict undoes, for each kind of change that no other check undoes.

use std::{fmt::Debug, time::Duration};

use couple_core::{
    AccountId, Change, CommitError, Conflict, Digest, DisplayName, Label, Locale, Store, Timestamp,
    account::{
        Account, AccountChange, ProofForm, SeenToken, Session, Tally, TallyId, Token, TokenKind, Tries,
    },
    digest,
    pairing::{Block, Couple, Invite, InviteState, PairingChange, Side, pair_key},
    timeline::{Body, Entry, NewEntry, Page, TimelineChange},
};

use crate::world::{World, all, append, insert, must, same};

/// Rows that the changes change.
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
    /// Unused session, token and invite for inserts.
    new: (Session, Token, Invite),
    tally: TallyId,
    expired_tally: TallyId,
    invite: Invite,
    couple: Couple,
    ended: Couple,
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
        let new = (
            world.session(cleo.id),
            world.token(TokenKind::SignIn, "cleo"),
            world.invite(cleo.id, "cleo", Some("dora")),
        );
        Self {
            token,
            expired_token,
            session,
            expired_session,
            new,
            tally: TallyId::from_digest(digest(&[b"tally"])),
            expired_tally: TallyId::from_digest(digest(&[b"expired tally"])),
            invite: world.invite(cleo.id, "cleo", Some("ben")),
            couple: world.couple([ana.id, ben.id]),
            ended: world.couple([world.account_id(), world.account_id()]),
            person: world.account_id(),
            ana,
            cleo,
            world,
        }
    }

    async fn store(&self, store: &impl Store) {
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
            }
            .into(),
            AccountChange::PutTally {
                id: self.expired_tally,
                tally: Tally { count: 1, expires_at: world.now() },
            }
            .into(),
            PairingChange::InsertInvite { invite: self.invite.clone(), limit: 9 }.into(),
            PairingChange::Block(block).into(),
            PairingChange::SetErasure { person: self.person, due: Some(world.later(9)), before: None }.into(),
            PairingChange::Pair(couple.clone()).into(),
            append(couple.id, entry(Side::First, "one")),
            append(couple.id, entry(Side::Second, "two")),
            PairingChange::Pair(ended.clone()).into(),
            append(ended.id, entry(Side::First, "one")),
            react.into(),
            PairingChange::End { id: ended.id, members: ended.members, at: world.now() }.into(),
        ];
        all(store, changes).await;
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
            AccountChange::InsertToken(self.new.1.clone()),
            AccountChange::RedeemToken { id: token.id, seen, at },
            AccountChange::RedeemForm { id: token.id, seen, form: ProofForm::Code, account },
            AccountChange::CountTries { kind, email: email.clone(), network: digest(&[b"network"]), at },
            AccountChange::EndTokens { kind, email, except: None, at },
            AccountChange::EndTokensOf { account, kind, except: None, at },
            AccountChange::CountTally { id: self.tally, below: 9, at, expires_at: world.later(90) },
            AccountChange::PutTally {
                id: self.tally,
                tally: Tally { count: 7, expires_at: world.later(90) },
            },
            AccountChange::PurgeTallies { before: at, cap: 9 },
            AccountChange::InsertSession { session: self.new.0.clone(), version: 0 },
            AccountChange::TouchSession { account, id: session.id, seen_at: at },
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
            PairingChange::InsertInvite { invite: self.new.2.clone(), limit: 9 },
            PairingChange::CloseInvite { id: self.invite.id, to: InviteState::Declined },
            PairingChange::WithdrawInvitesOf { inviter: cleo.id },
            PairingChange::Pair(world.couple([cleo.id, world.account_id()])),
            PairingChange::Describe {
                id,
                title: Some(Some(Label::from_stored("Us"))),
                anniversary: Some(Some("2020-02-29".to_owned())),
            },
            PairingChange::Restore { id, side: Side::First, wanted: true, read: [false, false] },
            PairingChange::End { id, members: couple.members, at },
            PairingChange::Block(self.block(at)),
            PairingChange::Unblock { blocker: cleo.id, blocked: ana.id },
            PairingChange::Forget { account: cleo.id, cap: 9 },
            PairingChange::SetErasure { person: *person, due: None, before: Some(world.later(9)) },
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
            fn expect_same(&self, now: &Self, change: &str) {
                $(same(&now.$name, &self.$name, &format!(
                    "a conflict does not undo the change {change} of its commit ({})", stringify!($name)
                ));)+
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
    present_sessions: Vec<Digest> = store.present_sessions(&[sample.new.0.token]);
    tally: Option<Tally> = store.tally(sample.tally, sample.world.now());
    expired_tally: Option<Tally> =
        store.tally(sample.expired_tally, sample.world.now().minus(Duration::from_secs(1)));
    invite: Option<Invite> = store.invite(sample.invite.id);
    new_invite: Option<Invite> = store.invite_by_code(&sample.new.2.code);
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
}

/// Changes of an area with their names, such as `AccountChange::Update`.
fn named<C: Debug + Into<Change>>(area: &str, changes: Vec<C>) -> impl Iterator<Item = (String, Change)> {
    changes.into_iter().map(move |change| {
        let text = format!("{change:?}");
        let variant: String = text.chars().take_while(char::is_ascii_alphanumeric).collect();
        (format!("{area}::{variant}"), change.into())
    })
}

/// Commits each change with a later change that conflicts, and expects the rows of before.
pub(crate) async fn conflicts_undo_each_kind_of_change(store: &impl Store) {
    let sample = Sample::new();
    sample.store(store).await;
    let taken = sample.world.account("taken");
    must(store, AccountChange::Insert(taken)).await;
    let account = named("AccountChange", sample.account_changes());
    let pairing = named("PairingChange", sample.pairing_changes());
    let timeline = named("TimelineChange", sample.timeline_changes());
    let before = Rows::read(store, &sample).await;
    for (name, change) in account.chain(pairing).chain(timeline) {
        match store.commit(vec![change, insert(&sample.world.account("taken"))]).await {
            Err(CommitError::Conflict(Conflict::AccountExists)) => {}
            other => panic!("a commit of {name} and of a used address does not conflict: {other:?}"),
        }
        before.expect_same(&Rows::read(store, &sample).await, &name);
    }
}
