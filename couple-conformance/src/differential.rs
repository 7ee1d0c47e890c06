//! Differential test: random commits and reads must have equal results on a store and a reference.

use std::{collections::HashSet, future::Future, sync::Arc, time::Duration};

use couple_core::{
    AccountId, Change, CommitError, Committed, Conflict, CoupleId, Digest, IdempotencyChange, JobId, Label,
    MediaId, OutcomeRecord, Store, Timestamp, TokenId, UploadId,
    account::{
        Account, AccountChange, ProofForm, SeenToken, Session, Tally, TallyId, Token, TokenKind, Tries,
    },
    digest,
    job::{JobChange, NewJob},
    media::{ExpectedMedia, Format, Media, MediaChange, Rendition, Source, Space},
    pairing::{Block, Invite, InviteState, PairingChange, Side},
    timeline::{Body, NewEntry, Page, TimelineChange},
    upload::{ResumableUpload, UploadChange, UploadPart},
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestCaseError, TestRunner},
};
use uuid::Uuid;

use crate::World;

/// Number of sequences: `COUPLE_DIFFERENTIAL_CASES`, by default 64.
fn case_count() -> u32 {
    std::env::var("COUPLE_DIFFERENTIAL_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(64)
}

/// Compares two stores over random sequences, and shrinks a sequence that differs.
pub fn run<S, R>(store: impl Fn() -> S, reference: impl Fn() -> R)
where
    S: Future<Output = Arc<dyn Store>>,
    R: Future<Output = Arc<dyn Store>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime starts");
    let mut runner =
        TestRunner::new(Config { cases: case_count(), failure_persistence: None, ..Config::default() });
    let result = runner.run(&commits(), |commits| {
        runtime.block_on(async {
            let (store, reference) = (store().await, reference().await);
            let mut made = HashSet::new();
            for changes in commits {
                // Real commits never reuse a fresh id: skip a commit that does.
                if !changes.iter().all(|change| fresh_id(change).is_none_or(|id| made.insert(id))) {
                    continue;
                }
                let ours = commit_result(store.commit(changes.clone()).await)?;
                let theirs = commit_result(reference.commit(changes.clone()).await)?;
                prop_assert_eq!(ours, theirs, "after {:?}", changes);
            }
            let (ours, theirs) = (snapshot(&*store).await, snapshot(&*reference).await);
            prop_assert_eq!(ours, theirs);
            Ok(())
        })
    });
    if let Err(difference) = result {
        panic!("{difference}");
    }
}

/// Id that a change requires to be fresh.
fn fresh_id(change: &Change) -> Option<Uuid> {
    match change {
        Change::Pairing(PairingChange::Pair(couple)) => Some(couple.id.as_uuid()),
        Change::Pairing(PairingChange::InsertInvite { invite, .. }) => Some(invite.id.as_uuid()),
        Change::Account(AccountChange::InsertSession { session, .. }) => Some(session.id.as_uuid()),
        Change::Job(JobChange::Enqueue(job)) => Some(job.id.as_uuid()),
        _ => None,
    }
}

fn commit_result(
    result: Result<Committed, CommitError>,
) -> Result<Result<Committed, Conflict>, TestCaseError> {
    match result {
        Ok(committed) => Ok(Ok(committed)),
        Err(CommitError::Conflict(conflict)) => Ok(Err(conflict)),
        Err(CommitError::Failed(error)) => Err(TestCaseError::fail(error.to_string())),
    }
}

/// Number of ids of each kind: few, so that random changes affect the same rows.
const ID_COUNT: u8 = 4;
const PICTURE_COUNT: u8 = 6;

fn id(kind: u8, n: u8) -> Uuid {
    Uuid::from_u128((u128::from(kind) << 64) | (u128::from(n) + 1))
}
fn account_id(n: u8) -> AccountId {
    AccountId::from_uuid(id(1, n))
}
fn session(n: u8) -> Session {
    World::new(5_000 + u64::from(n)).session(account_id(n % ID_COUNT))
}
fn token_id(n: u8) -> TokenId {
    TokenId::from_uuid(id(3, n))
}
fn network(n: u8) -> Digest {
    digest(&[b"network", &[n]])
}
fn tally_id(n: u8) -> TallyId {
    TallyId::from_digest(digest(&[b"tally", &[n]]))
}
const FORMS: [ProofForm; 2] = [ProofForm::Code, ProofForm::Link];
fn seen_token() -> impl Strategy<Value = SeenToken> {
    (0..5_i64, prop::option::of(0..2_usize)).prop_map(|(tries, form)| SeenToken {
        tries: match tries {
            0 | 1 => Some(Tries::Own(tries)),
            2 | 3 => Some(Tries::Foreign(tries - 2)),
            _ => None,
        },
        used_form: form.map(|form| FORMS[form]),
    })
}
/// Invite number `n`. Ids, codes and links are derived from `n`, so each number is used once.
fn invite(n: u8) -> Invite {
    let from = n % ID_COUNT;
    let to = (n / ID_COUNT > 0).then(|| name(from + n / ID_COUNT));
    World::new(u64::from(n)).invite(account_id(from), name(from), to)
}
fn couple_id(n: u8) -> CoupleId {
    CoupleId::from_uuid(id(5, n))
}
fn media_id(n: u8) -> MediaId {
    MediaId::from_uuid(id(7, n))
}
fn upload_id(n: u8) -> UploadId {
    UploadId::from_uuid(id(8, n))
}
fn job_id(n: u8) -> JobId {
    JobId::from_uuid(id(6, n))
}
fn name(n: u8) -> &'static str {
    ["ana", "ben", "cleo", "dan"][usize::from(n % ID_COUNT)]
}
fn timestamp(n: u8) -> Timestamp {
    Timestamp::from_micros(i64::from(n) * 1_000_000)
}
const KINDS: [TokenKind; 2] = [TokenKind::SignUp, TokenKind::SignIn];
const SIDES: [Side; 2] = [Side::First, Side::Second];

fn account(n: u8, person: u8, due: Option<u8>, version: i64) -> Account {
    Account {
        id: account_id(n),
        deletion_due: due.map(timestamp),
        version,
        ..World::default().account(name(person))
    }
}

/// Up to 160 commits, most of them with one change, because a conflict undoes all changes of a commit.
///
/// Each sequence affects one area, so that its changes meet, or all areas; most start with two couples.
fn commits() -> impl Strategy<Value = Vec<Vec<Change>>> {
    let about = prop_oneof![
        1 => Just(account_change().boxed()),
        1 => Just(prop_oneof![6 => pairing_change(), 1 => account_change()].boxed()),
        1 => Just(prop_oneof![8 => timeline_change(), 1 => pairing_change()].boxed()),
        2 => Just(prop_oneof![24 => media_change(), 1 => pairing_change()].boxed()),
        1 => Just(upload_change().boxed()),
        1 => Just(job_change().boxed()),
        1 => Just(change().boxed()),
    ];
    (about, 0..4_u8).prop_flat_map(|(change, couples)| {
        let commit = prop_oneof![
            4 => prop::collection::vec(change.clone(), 1),
            1 => prop::collection::vec(change, 2..4),
        ];
        prop::collection::vec(commit, 1..160).prop_map(move |commits| {
            let pairings = (0..2).filter(|_| couples > 0).map(|n| {
                let members = [account_id(2 * n), account_id(2 * n + 1)];
                vec![PairingChange::Pair(World::new(1000 + u64::from(n)).couple(members)).into()]
            });
            pairings.chain(commits).collect()
        })
    })
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        account_change(),
        pairing_change(),
        timeline_change(),
        media_change(),
        upload_change(),
        job_change(),
        idempotency_change()
    ]
}

fn account_change() -> impl Strategy<Value = Change> {
    let n = || 0..ID_COUNT;
    let small = || 0..12_u8;
    let sessions = || 0..3 * ID_COUNT;
    prop_oneof![
        (n(), n()).prop_map(|(a, b)| AccountChange::Insert(account(a, b, None, 0))),
        (n(), n(), prop::option::of(small()), 0..3_i64)
            .prop_map(|(a, b, due, version)| AccountChange::Update(account(a, b, due, version))),
        (n(), 0..3_i64).prop_map(|(a, version)| AccountChange::Erase { id: account_id(a), version }),
        (n(), n(), 0..2_usize, prop::option::of(n()), small(), prop::option::of(sessions())).prop_map(
            |(t, person, kind, owner, time, of)| {
                AccountChange::InsertToken(Token {
                    id: token_id(t),
                    link: digest(&[b"token", &[t]]),
                    account: owner.map(account_id),
                    session: of.map(|n| session(n).id),
                    network: owner.map(network),
                    created_at: timestamp(time),
                    code_expires_at: timestamp(time + 3),
                    expires_at: timestamp(time + 5),
                    ..World::default().token(KINDS[kind], name(person))
                })
            }
        ),
        (n(), seen_token(), small()).prop_map(|(t, seen, time)| AccountChange::RedeemToken {
            id: token_id(t),
            seen,
            at: timestamp(time)
        }),
        (n(), seen_token()).prop_map(|(t, seen)| AccountChange::RequireToken { id: token_id(t), seen }),
        (n(), seen_token(), 0..2_usize, n()).prop_map(|(t, seen, form, a)| AccountChange::RedeemForm {
            id: token_id(t),
            seen,
            form: FORMS[form],
            account: account_id(a),
        }),
        (n(), 0..2_usize, small(), prop::option::of(n())).prop_map(|(a, kind, time, t)| {
            AccountChange::EndTokensOf {
                account: account_id(a),
                kind: KINDS[kind],
                except: t.map(token_id),
                at: timestamp(time),
            }
        }),
        (sessions(), small(), 0..3_i64).prop_map(|(n, time, version)| {
            AccountChange::InsertSession {
                session: Session { seen_at: timestamp(time), ..session(n) },
                version,
            }
        }),
        (0..2_usize, n(), n(), small()).prop_map(|(kind, person, from, time)| AccountChange::CountTries {
            kind: KINDS[kind],
            email: World::default().email(name(person)).key().clone(),
            network: network(from),
            at: timestamp(time),
        }),
        (0..2_usize, n(), small(), prop::option::of(n())).prop_map(|(kind, person, time, t)| {
            AccountChange::EndTokens {
                kind: KINDS[kind],
                email: World::default().email(name(person)).key().clone(),
                except: t.map(token_id),
                at: timestamp(time),
            }
        }),
        (n(), 0..4_i64, small()).prop_map(|(t, below, time)| AccountChange::CountTally {
            id: tally_id(t),
            below,
            at: timestamp(time),
            expires_at: timestamp(time + 4),
        }),
        (n(), 0..4_i64, small()).prop_map(|(t, below, time)| AccountChange::RequireTally {
            id: tally_id(t),
            below,
            at: timestamp(time),
        }),
        (n(), 0..4_i64, small()).prop_map(|(t, count, time)| AccountChange::PutTally {
            id: tally_id(t),
            tally: Tally { count, expires_at: timestamp(time) },
        }),
        (small(), 0..3_u32)
            .prop_map(|(time, cap)| AccountChange::PurgeTallies { before: timestamp(time), cap }),
        (sessions(), small()).prop_map(|(n, time)| AccountChange::TouchSession {
            account: session(n).account,
            id: session(n).id,
            seen_at: timestamp(time),
        }),
        (n(), sessions())
            .prop_map(|(a, s)| AccountChange::EndSession { account: account_id(a), id: session(s).id }),
        (n(), prop::option::of(sessions())).prop_map(|(a, s)| AccountChange::EndSessions {
            account: account_id(a),
            except: s.map(|s| session(s).id)
        }),
        (small(), 0..3_u32)
            .prop_map(|(time, cap)| AccountChange::PurgeTokens { before: timestamp(time), cap }),
        (small(), small(), 0..3_u32).prop_map(|(time, idle, cap)| AccountChange::PurgeSessions {
            before: timestamp(time),
            idle: timestamp(idle),
            cap,
        }),
    ]
    .prop_map(Change::from)
}

fn pairing_change() -> impl Strategy<Value = Change> {
    let n = || 0..ID_COUNT;
    let couple = || n().prop_map(paired_couple_id);
    let side = || (0..2_usize).prop_map(|side| SIDES[side]);
    let invites = || 0..4 * ID_COUNT;
    let due = || prop::option::of((5..7_u8).prop_map(timestamp));
    let state = prop_oneof![
        Just(InviteState::Declined),
        Just(InviteState::Withdrawn),
        (n(), n()).prop_map(|(a, c)| InviteState::Accepted { by: account_id(a), couple: couple_id(c) }),
    ];
    prop_oneof![
        3 => (invites(), 1..4_u32).prop_map(|(n, limit)| PairingChange::InsertInvite { invite: invite(n), limit }),
        2 => (invites(), state).prop_map(|(n, to)| PairingChange::CloseInvite { id: invite(n).id, to }),
        1 => n().prop_map(|a| PairingChange::WithdrawInvitesOf { inviter: account_id(a) }),
        1 => (n(), n(), 0..2 * ID_COUNT).prop_filter("two people", |(a, b, _)| a != b).prop_map(|(a, b, seed)| {
            let world = World::new(1000 + u64::from(seed));
            PairingChange::Pair(world.couple([account_id(a), account_id(b)]))
        }),
        1 => n().prop_map(|a| PairingChange::ExpectUnpaired { account: account_id(a) }),
        2 => (couple(), optional_field("Us"), optional_field("2020-02-29")).prop_map(
            |(id, title, anniversary)| PairingChange::Describe {
                id,
                title: title.map(|title| title.map(Label::from_stored)),
                anniversary,
            }
        ),
        2 => (couple(), side(), any::<bool>(), any::<[bool; 2]>())
            .prop_map(|(id, side, wanted, read)| PairingChange::Restore { id, side, wanted, read }),
        1 => (couple(), n(), n(), 0..12_u8).prop_map(|(id, a, b, time)| PairingChange::End {
            id,
            members: [account_id(a), account_id(b)],
            at: timestamp(time),
        }),
        1 => (n(), n(), 0..12_u8).prop_map(|(a, b, time)| PairingChange::Block(Block {
            blocker: account_id(a),
            blocker_email: World::default().email(name(a)).key().clone(),
            blocked: account_id(b),
            at: timestamp(time),
        })),
        1 => (n(), n())
            .prop_map(|(a, b)| PairingChange::Unblock { blocker: account_id(a), blocked: account_id(b) }),
        1 => n().prop_map(|a| PairingChange::Forget { account: account_id(a), cap: 99 }),
        1 => (n(), due(), due()).prop_map(|(person, due, before)| PairingChange::SetErasure {
            person: account_id(person),
            due,
            before,
        }),
        1 => (n(), 5..7_u8).prop_map(|(person, due)| PairingChange::FinishErasure {
            person: account_id(person),
            due: timestamp(due),
        }),
        1 => (couple(), side(), n()).prop_map(|(couple, side, with)| PairingChange::Anonymize {
            couple,
            side,
            with: account_id(with),
        }),
        1 => (0..3_u32).prop_map(|cap| PairingChange::PurgeInvites { before: World::default().later(4000), cap }),
    ]
    .prop_map(Change::from)
}

/// Field of a patch: not given, cleared, or one of two values.
fn optional_field(value: &'static str) -> impl Strategy<Value = Option<Option<String>>> {
    prop::option::of(prop::option::of((0..2_u8).prop_map(move |n| value[usize::from(n)..].to_owned())))
}

/// Id of a couple that [`pairing_change`] adds.
fn paired_couple_id(n: u8) -> CoupleId {
    World::new(1000 + u64::from(n)).couple_id()
}

fn timeline_change() -> impl Strategy<Value = Change> {
    let couple = || (0..ID_COUNT).prop_map(paired_couple_id);
    let side = || (0..2_usize).prop_map(|side| SIDES[side]);
    let seq = || 1..6_i64;
    let time = || (0..12_u8).prop_map(timestamp);
    prop_oneof![
        4 => (couple(), prop::option::of(side()), 0..ID_COUNT, prop::option::of(seq())).prop_map(
            |(couple, author, client, target)| TimelineChange::Append {
                couple,
                entry: NewEntry { author, target, ..World::default().entry(name(client)) },
            }
        ),
        1 => (couple(), seq(), side(), time()).prop_map(|(couple, seq, author, at)| TimelineChange::Edit {
            couple, seq, author, body: Body::from_stored("{\"e\":1}"), at,
        }),
        1 => (couple(), seq(), side(), time())
            .prop_map(|(couple, seq, author, at)| TimelineChange::Delete { couple, seq, author, at }),
        1 => (couple(), seq(), side(), prop::option::of("[😀❤👍]"))
            .prop_map(|(couple, seq, side, emoji)| TimelineChange::React { couple, seq, side, emoji }),
        1 => (couple(), side(), 0..9_i64)
            .prop_map(|(couple, side, seq)| TimelineChange::MarkRead { couple, side, seq }),
        1 => (couple(), side(), time(), 0..4_i64, 0..4_u32).prop_map(|(couple, author, at, after, cap)| {
            TimelineChange::Erase { couple, author, at, after, cap }
        }),
    ]
    .prop_map(Change::from)
}

/// Few pictures, each always in the same space: avatars of two accounts, and photos of two couples.
fn picture(n: u8, content: u8) -> Media {
    let world = World::default();
    let media = match n {
        0 | 1 => world.avatar(account_id(0), name(content)),
        2 | 3 => world.photo(paired_couple_id(0), account_id(n % 2), name(content)),
        4 => world.photo(paired_couple_id(1), account_id(2), name(content)),
        _ => world.avatar(account_id(1), name(content)),
    };
    Media { id: media_id(n), ..media }
}

fn media_change() -> impl Strategy<Value = Change> {
    let n = || 0..PICTURE_COUNT;
    let account = || (0..2_u8).prop_map(account_id);
    let place = || n().prop_map(|n| (picture(n, 0).space, media_id(n)));
    let seen = || {
        (place(), prop_oneof![3 => Just(0), 2 => Just(1), 1 => Just(2)])
            .prop_map(|((space, id), uses)| ExpectedMedia { space, id, uses })
    };
    let time = || (0..12_u8).prop_map(timestamp);
    let format = || prop_oneof![Just(Format::Jpeg), Just(Format::WebP), Just(Format::Png)];
    let rendition = move || {
        (0..2_u8, format(), prop::option::of(time()), 1..9_i64).prop_map(|(size, format, used_at, bytes)| {
            Rendition { used_at, bytes, ..World::default().rendition(name(size), format) }
        })
    };
    let source = || {
        prop::option::of((0..2_u8, 1..90_i64)).prop_map(|kept| {
            kept.map(|(n, bytes)| Source {
                blob: name(n).to_owned(),
                bytes,
                media_type: "image/jpeg".to_owned(),
            })
        })
    };
    let one_each = |renditions: Vec<Rendition>| {
        let mut there = HashSet::new();
        renditions.into_iter().filter(|r| there.insert((r.name.clone(), r.format))).collect()
    };
    prop_oneof![
        5 => (n(), 0..2_u8, prop_oneof![Just(150_i64), Just(i64::MAX)]).prop_map(
            |(n, content, most)| MediaChange::Insert { media: picture(n, content), most }
        ),
        3 => (seen(), source(), prop::collection::vec(rendition(), 0..3)).prop_map(
            move |(of, source, renditions)| MediaChange::Finish {
                of, width: 3, height: 4, animated: true, alpha: false, placeholder: vec![1, 2], source,
                renditions: one_each(renditions),
            }
        ),
        1 => seen().prop_map(|of| MediaChange::Reject { of, reason: "corrupt".to_owned() }),
        3 => (n(), 0..8_u8, any::<bool>()).prop_map(|(n, off, ready)| MediaChange::Use {
            couple: paired_couple_id(if off == 0 { 0 } else { n / 4 }),
            id: media_id(n),
            owner: if off == 1 { account_id(3) } else { picture(n, 0).owner },
            ready,
        }),
        1 => seen().prop_map(MediaChange::Release),
        1 => seen().prop_map(MediaChange::Delete),
        2 => (place(), rendition())
            .prop_map(|((space, id), rendition)| MediaChange::AddRendition { space, id, rendition }),
        1 => (place(), 0..2_u8, format(), time()).prop_map(|((space, id), size, format, at)| MediaChange::Touch {
            space, id, name: name(size).to_owned(), format, at,
        }),
        1 => (place(), 0..3_usize).prop_map(|((space, id), n)| MediaChange::Forget {
            space, id, blobs: ["upload", "ana.jpg", "ana"][n..].iter().map(|&blob| blob.to_owned()).collect(),
        }),
        3 => (account(), prop::option::of(n().prop_map(media_id)), prop::option::of(n().prop_map(media_id)))
            .prop_map(|(account, media, before)| MediaChange::SetAvatar { account, media, before }),
        1 => account().prop_map(|account| MediaChange::Close { account }),
    ]
    .prop_map(Change::from)
}

/// Few uploads of two accounts, with small offsets, writers and limits, so that changes conflict.
fn upload_change() -> impl Strategy<Value = Change> {
    let upload = || (0..ID_COUNT).prop_map(|n| (account_id(n % 2), upload_id(n)));
    let offset = || 0..4_i64;
    let writer = || 0..2_i64;
    let parts = |bytes| vec![UploadPart { blob: "t".to_owned(), bytes }];
    prop_oneof![
        2 => (upload(), offset(), prop::option::of(1..3_i64), 0..12_u8, 1..4_i64).prop_map(
            |((owner, id), offset, length, time, most)| {
                let world = World::default();
                let upload = world.upload(owner);
                let upload = ResumableUpload { id, length, offset, expires_at: timestamp(time), ..upload };
                UploadChange::Insert { upload, most }
            }
        ),
        2 => (upload(), offset(), writer(), prop::option::of(1..3_i64)).prop_map(
            |((owner, id), offset, writer, length)| UploadChange::Claim { owner, id, offset, writer, length }
        ),
        4 => (upload(), offset(), writer(), 1..3_i64, 3..9_i64).prop_map(
            move |((owner, id), offset, writer, bytes, most)| {
                let parts = parts(offset + bytes);
                UploadChange::Append { owner, id, writer, offset, bytes, parts, most }
            }
        ),
        1 => (upload(), offset()).prop_map(|((owner, id), offset)| UploadChange::TakeOver { owner, id, offset }),
        1 => (upload(), 0..PICTURE_COUNT)
            .prop_map(|((owner, id), media)| UploadChange::Finish { owner, id, media: media_id(media) }),
        1 => (0..2_u8, 0..12_u8)
            .prop_map(|(n, time)| UploadChange::ExpireOf { owner: account_id(n), at: timestamp(time) }),
        1 => (upload(), 0..2_u8).prop_map(|((_, id), n)| UploadChange::Remove { owner: account_id(n), id }),
    ]
    .prop_map(Change::from)
}

fn job_change() -> impl Strategy<Value = Change> {
    let n = || 0..12_u8;
    let time = || (0..12_u8).prop_map(timestamp);
    let claim = || 0..2_i64;
    let queue = || (0..2_u8).prop_map(|q| name(q).to_owned());
    prop_oneof![
        3 => (n(), queue(), prop::option::of(0..ID_COUNT), time()).prop_map(|(id, queue, key, due_at)| {
            JobChange::Enqueue(NewJob {
                id: job_id(id),
                due_at,
                dedupe_key: key.map(|key| name(key).to_owned()),
                ..World::default().job(&queue)
            })
        }),
        3 => (queue(), time(), claim(), 0..4_u32).prop_map(|(queue, now, claim, limit)| JobChange::Claim {
            queue, now, lease_until: now.plus(Duration::from_secs(3)), claim, limit,
        }),
        2 => (queue(), time(), claim()).prop_map(|(queue, now, claim)| JobChange::ClaimAbandoned {
            queue, now, lease_until: now.plus(Duration::from_secs(3)), claim,
        }),
        1 => (n(), claim(), time())
            .prop_map(|(id, claim, lease_until)| JobChange::Renew { id: job_id(id), claim, lease_until }),
        1 => (n(), claim()).prop_map(|(id, claim)| JobChange::Finish { id: job_id(id), claim }),
        1 => (n(), claim(), time()).prop_map(|(id, claim, due_at)| JobChange::Retry { id: job_id(id), claim, due_at }),
        1 => (n(), claim(), time()).prop_map(|(id, claim, due_at)| JobChange::Defer { id: job_id(id), claim, due_at }),
        1 => (n(), claim(), time()).prop_map(|(id, claim, at)| JobChange::Bury {
            id: job_id(id), claim, error: "no".to_owned(), at,
        }),
        1 => (n(), time(), time())
            .prop_map(|(id, at, expires_at)| JobChange::Replay { id: job_id(id), at, expires_at }),
        1 => (time(), 0..3_u32).prop_map(|(before, cap)| JobChange::PurgeDead { before, cap }),
    ]
    .prop_map(Change::from)
}

fn idempotency_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (0..ID_COUNT, 0..12_u8).prop_map(|(n, time)| IdempotencyChange::Record(OutcomeRecord {
            scope: digest(&[b"scope", &[n]]),
            request: digest(&[&[time]]),
            outcome: "{}".to_owned(),
            recorded_at: timestamp(time),
            expires_at: timestamp(time + 4),
        })),
        (0..16_u8, 0..3_u32)
            .prop_map(|(time, cap)| IdempotencyChange::Purge { before: timestamp(time), cap }),
    ]
    .prop_map(Change::from)
}

/// Results of all reads, as text.
async fn snapshot(store: &dyn Store) -> Vec<String> {
    let mut results = Vec::new();
    macro_rules! record {
        ($($read:expr),+ $(,)?) => {$( results.push(format!("{:?}", $read.await)); )+};
    }
    let now = timestamp(6);
    for n in 0..ID_COUNT {
        let (account, email) = (account_id(n), World::default().email(name(n)).key().clone());
        record!(store.account(account), store.account_by_email(&email), store.sessions_of(account));
        record!(store.tally(tally_id(n), now));
        record!(store.token(token_id(n)), store.token_by_link(&digest(&[b"token", &[n]])));
        for kind in KINDS {
            record!(store.open_tokens(kind, &email, now));
        }
        record!(store.couple_of(account), store.couples_of(account), store.invites_of(account));
        record!(store.couples_page(account, None, 2), store.erasure_of(account));
        record!(store.invites_to(&email), store.blocks_of(account));
        for other in 0..ID_COUNT {
            record!(store.is_blocked(account, account_id(other)));
            record!(store.is_blocked_by_email(&email, account_id(other)));
        }
        let couple = paired_couple_id(n);
        record!(store.couple(couple), store.entries(couple, Page::After(0), 100, None));
        record!(store.entries(couple, Page::Before(4), 2, Some("text")), store.entry(couple, 2));
        for side in SIDES {
            let except = ["text".to_owned()];
            record!(
                store.unread(couple, side, 0, &[]),
                store.unread(couple, side, 3, &[]),
                store.unread(couple, side, 0, &except)
            );
            record!(store.entries_by(couple, side, 1, 2), store.entry_by_client_id(couple, side, name(n)));
        }
        for space in [Space::Account(account), Space::Couple(couple)] {
            record!(store.media_space(space), store.media_in(space, Some(media_id(1)), 3));
            let picture = Media { space, ..picture(2 + n % 2, n / 2) };
            record!(store.media_by_identity(space, &picture.identity()));
            for n in 0..PICTURE_COUNT {
                record!(store.renditions(space, media_id(n)));
            }
        }
        record!(store.upload(upload_id(n)), store.unfinished_uploads(account));
        record!(store.avatar_of(account), store.media(media_id(n)), store.media(media_id(n + 2)));
        record!(store.outcome(&digest(&[b"scope", &[n]])));
        record!(store.queue_stats(name(n), now), store.next_due(name(n)), store.next_lease_end(name(n)));
    }
    for n in 0..4 * ID_COUNT {
        record!(store.invite(invite(n).id));
    }
    record!(store.media_spaces(None, 3), store.unused_renditions(now, 4));
    record!(store.unfinished_bytes(), store.expired_uploads(now, 3));
    record!(store.accounts_to_delete(now, None, 3), store.dead_jobs(None, 100));
    record!(store.erasures_due(timestamp(5), None, 3), store.erasures_due(now, None, 2));
    results
}
