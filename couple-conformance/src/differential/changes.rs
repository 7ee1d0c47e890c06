//! Random changes, and their words.

use std::collections::HashSet;

use couple_core::{
    Change, DisplayName, HostStatements, IdempotencyChange, Label, Locale, OutcomeRecord, TimeZoneName,
    account::{Account, AccountChange, PasswordHash, SeenToken, Session, Tally, Token, Tries},
    date::{CalendarDay, CoupleDate, DateChange, DateKind},
    device::{Device, DeviceChange},
    job::{JobChange, NewJob},
    media::{Crop, ExpectedMedia, Media, MediaChange, MediaState, Purpose, Rendition, Source, Space},
    notification::{DigestDelay, NotificationChange, Preferences, QuietHours},
    pairing::{Block, Couple, Invite, InviteState, PairingChange},
    push::Surface,
    timeline::{Body, NewEntry, TimelineChange},
    upload::{ResumableUpload, UploadChange, UploadPart},
};
use uuid::Uuid;

use super::{choices::Choices, names::*};

/// Weights of the areas of changes, in the order of [`change`].
pub(super) type Weights = [u32; 11];

/// Each sequence affects one area, so that its changes affect the same rows, or all areas.
pub(super) const THEMES: [Weights; 10] = [
    [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    [1, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    [0, 1, 8, 0, 0, 0, 0, 0, 0, 0, 0],
    [0, 1, 0, 24, 0, 0, 0, 0, 0, 0, 0],
    [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0],
    // Devices and preferences depend on accounts.
    [3, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0],
    // Dates depend on couples.
    [0, 1, 0, 0, 0, 0, 0, 12, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0],
    [0, 0, 0, 0, 0, 0, 0, 0, 1, 6, 0],
    [8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 1],
];

/// Makes a change of an area.
pub(super) fn change(choices: &mut Choices<'_>, weights: &Weights) -> Change {
    match choices.weighted(weights) {
        0 => account_change(choices).into(),
        1 => pairing_change(choices).into(),
        2 => timeline_change(choices).into(),
        3 => media_change(choices).into(),
        4 => upload_change(choices).into(),
        5 => device_change(choices).into(),
        6 => notification_change(choices).into(),
        7 => date_change(choices).into(),
        8 => job_change(choices).into(),
        9 => idempotency_change(choices).into(),
        _ => Change::Host(HostStatements::new(())),
    }
}

/// Id that a change requires to be fresh.
pub(super) fn fresh_id(change: &Change) -> Option<Uuid> {
    match change {
        Change::Pairing(PairingChange::Pair(couple)) => Some(couple.id.as_uuid()),
        Change::Job(JobChange::Enqueue(job)) => Some(job.id.as_uuid()),
        _ => None,
    }
}

/// Change that adds the couple with number `n`.
pub(super) fn pair(n: u32) -> Change {
    PairingChange::Pair(new_couple(n)).into()
}

fn new_couple(n: u32) -> Couple {
    Couple {
        id: couple_id(n),
        members: members_of(n),
        since: timestamp(n),
        epoch: 1,
        ended_at: None,
        title: None,
        anniversary: None,
        previous: (n == 4).then(|| couple_id(0)),
        restore: [false, false],
        head_seq: 0,
        read: [0, 0],
    }
}

fn account_row(choices: &mut Choices<'_>, with_due: bool) -> Account {
    let (n, person) = (choices.below(ACCOUNTS), choices.below(ACCOUNTS));
    let due = if with_due { choices.maybe(12) } else { None };
    let version = if with_due { i64::from(choices.below(3)) } else { 0 };
    let full = choices.flag();
    Account {
        id: account_id(n),
        email: email(person),
        display_name: DisplayName::from_stored(name(person)),
        locale: full.then(|| Locale::from_stored("de")),
        time_zone: full.then(|| TimeZoneName::from_stored("Europe/Rome")),
        birthday: full.then(|| "1990-02-28".to_owned()),
        password: full.then(|| PasswordHash::from_stored("$hash$1")),
        created_at: timestamp(n),
        deletion_due: due.map(timestamp),
        version,
    }
}

fn seen_token(choices: &mut Choices<'_>) -> SeenToken {
    let tries = match choices.below(5) {
        0 => None,
        tries @ (1 | 2) => Some(Tries::Own(i64::from(tries - 1))),
        tries => Some(Tries::Foreign(i64::from(tries - 3))),
    };
    SeenToken { tries, used_form: choices.maybe(2).map(|form| FORMS[form as usize]) }
}

fn new_token(choices: &mut Choices<'_>) -> Token {
    let (n, person, kind) = (choices.below(FEW), choices.below(ACCOUNTS), token_kind(choices));
    let (owner, created, session) = (choices.maybe(ACCOUNTS), choices.below(12), choices.maybe(SESSIONS));
    let (full, link) = (choices.flag(), own_or_other(choices, n, FEW));
    Token {
        id: token_id(n),
        kind,
        email: email(person),
        account: owner.map(account_id),
        link: digest_of("link of token", link),
        session: session.map(session_id),
        network: owner.map(|owner| digest_of("network", owner)),
        tries: 0,
        foreign_tries: 0,
        used_form: None,
        display_name: full.then(|| DisplayName::from_stored("A")),
        locale: full.then(|| Locale::from_stored("it")),
        created_at: timestamp(created),
        code_expires_at: timestamp(created + 3),
        expires_at: timestamp(created + 5),
        used_at: None,
    }
}

/// Number `n`, or rarely another one below `count`: for values that must be unique.
fn own_or_other(choices: &mut Choices<'_>, n: u32, count: u32) -> u32 {
    if choices.below(8) == 7 { choices.below(count) } else { n }
}

fn new_session(n: u32, bearer: u32, seen: u32) -> Session {
    Session {
        id: session_id(n),
        account: account_id(n % ACCOUNTS),
        token: digest_of("bearer of session", bearer),
        device: (n % 2 == 1).then(|| Label::from_stored("phone")),
        created_at: timestamp(n / 3),
        authenticated_at: timestamp(n / 3 + 1),
        seen_at: timestamp(seen),
        expires_at: timestamp(n / 3 + 7),
        widget_token: None,
    }
}

fn account_change(choices: &mut Choices<'_>) -> AccountChange {
    const WEIGHTS: [u32; 21] = [4, 3, 1, 4, 2, 1, 2, 2, 1, 1, 2, 1, 1, 1, 5, 1, 1, 1, 1, 1, 4];
    match choices.weighted(&WEIGHTS) {
        0 => AccountChange::Insert(account_row(choices, false)),
        1 => AccountChange::Update(account_row(choices, true)),
        2 => AccountChange::Erase { id: account(choices), version: i64::from(choices.below(3)) },
        3 => AccountChange::InsertToken(new_token(choices)),
        4 => AccountChange::RedeemToken {
            id: token_id(choices.below(FEW)),
            seen: seen_token(choices),
            at: time(choices),
        },
        5 => AccountChange::RequireToken { id: token_id(choices.below(FEW)), seen: seen_token(choices) },
        6 => AccountChange::RedeemForm {
            id: token_id(choices.below(FEW)),
            seen: seen_token(choices),
            form: choices.one_of(&FORMS),
            account: account(choices),
        },
        7 => AccountChange::CountTries {
            kind: token_kind(choices),
            email: email(choices.below(ACCOUNTS)).key().clone(),
            network: digest_of("network", choices.below(ACCOUNTS)),
            at: time(choices),
        },
        8 => AccountChange::EndTokens {
            kind: token_kind(choices),
            email: email(choices.below(ACCOUNTS)).key().clone(),
            except: choices.maybe(FEW).map(token_id),
            at: time(choices),
        },
        9 => AccountChange::EndTokensOf {
            account: account(choices),
            kind: token_kind(choices),
            except: choices.maybe(FEW).map(token_id),
            at: time(choices),
        },
        10 => {
            let (n, below, at) = (choices.below(FEW), choices.below(4), choices.below(12));
            AccountChange::CountTally {
                id: tally_id(n),
                below: i64::from(below),
                at: timestamp(at),
                expires_at: timestamp(at + 4),
            }
        }
        11 => AccountChange::RequireTally {
            id: tally_id(choices.below(FEW)),
            below: i64::from(choices.below(4)),
            at: time(choices),
        },
        12 => AccountChange::PutTally {
            id: tally_id(choices.below(FEW)),
            tally: Tally { count: i64::from(choices.below(4)), expires_at: time(choices) },
            retires: None,
        },
        13 => AccountChange::PurgeTallies { before: time(choices), cap: choices.below(3) },
        14 => {
            let (n, seen) = (choices.below(SESSIONS), choices.below(12));
            let bearer = own_or_other(choices, n, SESSIONS);
            let widget_token = choices.maybe(4).map(|_| digest_of("widget token", bearer));
            AccountChange::InsertSession {
                session: Session { widget_token, ..new_session(n, bearer, seen) },
                version: i64::from(choices.below(3)),
            }
        }
        15 => {
            let n = choices.below(SESSIONS);
            let session = new_session(n, n, 0);
            AccountChange::TouchSession { account: session.account, id: session.id, seen_at: time(choices) }
        }
        16 => {
            let n = choices.below(SESSIONS);
            // Mostly a session of the account.
            let owner = if choices.below(4) == 3 { choices.below(ACCOUNTS) } else { n % ACCOUNTS };
            AccountChange::EndSession { account: account_id(owner), id: session_id(n) }
        }
        17 => AccountChange::EndSessions {
            account: account(choices),
            except: choices.maybe(SESSIONS).map(session_id),
        },
        18 => AccountChange::PurgeTokens { before: time(choices), cap: choices.below(3) },
        19 => {
            AccountChange::PurgeSessions { before: time(choices), idle: time(choices), cap: choices.below(3) }
        }
        _ => {
            let n = choices.below(SESSIONS);
            // Mostly a session of the account.
            let owner = if choices.below(8) == 7 { choices.below(ACCOUNTS) } else { n % ACCOUNTS };
            let token = choices.flag().then(|| digest_of("widget token", own_or_other(choices, n, SESSIONS)));
            AccountChange::SetWidgetToken {
                account: account_id(owner),
                id: session_id(n),
                token,
                most: choices.below(3),
            }
        }
    }
}

/// Invite by address, or with a code and a link only.
fn new_invite(choices: &mut Choices<'_>) -> Invite {
    let (n, created) = (choices.below(INVITES), choices.below(12));
    let (code, link) = (own_or_other(choices, n, INVITES), own_or_other(choices, n, INVITES));
    let from = n % ACCOUNTS;
    Invite {
        id: invite_id(n),
        inviter: account_id(from),
        inviter_email: email(from).key().clone(),
        target: (n >= ACCOUNTS).then(|| email(from + n / ACCOUNTS)),
        message: (n % 2 == 1).then(|| Label::from_stored("hi")),
        code: digest_of("code of invite", code),
        link: digest_of("link of invite", link),
        created_at: timestamp(created),
        expires_at: timestamp(created + 4),
        state: InviteState::Open,
    }
}

fn pairing_change(choices: &mut Choices<'_>) -> PairingChange {
    const WEIGHTS: [u32; 15] = [5, 3, 1, 4, 1, 6, 4, 1, 1, 1, 1, 2, 1, 1, 1];
    match choices.weighted(&WEIGHTS) {
        0 => PairingChange::InsertInvite { invite: new_invite(choices), limit: 1 + choices.below(3) },
        1 => PairingChange::CloseInvite {
            id: invite_id(choices.below(INVITES)),
            to: match choices.below(3) {
                0 => InviteState::Declined,
                1 => InviteState::Withdrawn,
                _ => InviteState::Accepted { by: account(choices), couple: couple(choices) },
            },
        },
        2 => PairingChange::WithdrawInvitesOf { inviter: account(choices) },
        3 => PairingChange::Pair(new_couple(choices.below(COUPLES))),
        4 => PairingChange::ExpectUnpaired { account: account(choices) },
        5 => PairingChange::Describe {
            id: couple(choices),
            title: optional_field(choices, ["Us", "We two"]).map(|title| title.map(Label::from_stored)),
            anniversary: optional_field(choices, ["2020-02-29", "2021-01-01"]),
        },
        6 => PairingChange::Restore {
            id: couple(choices),
            side: side(choices),
            wanted: choices.flag(),
            read: [choices.flag(), choices.flag()],
        },
        7 => {
            let n = couple_number(choices);
            PairingChange::End { id: couple_id(n), members: members_of(n), at: time(choices), by: None }
        }
        8 => {
            let blocker = choices.below(ACCOUNTS);
            PairingChange::Block(Block {
                blocker: account_id(blocker),
                blocker_email: email(blocker).key().clone(),
                blocked: account(choices),
                at: time(choices),
            })
        }
        9 => PairingChange::Unblock { blocker: account(choices), blocked: account(choices) },
        10 => PairingChange::Forget { account: account(choices), cap: 99 },
        11 => PairingChange::SetErasure {
            person: account(choices),
            due: choices.maybe(2).map(|n| timestamp(5 + n)),
            before: choices.maybe(2).map(|n| timestamp(5 + n)),
        },
        12 => PairingChange::FinishErasure { person: account(choices), due: timestamp(5 + choices.below(2)) },
        13 => PairingChange::Anonymize {
            couple: couple(choices),
            side: side(choices),
            with: account_id(ACCOUNTS + choices.below(2)),
        },
        _ => PairingChange::PurgeInvites { before: timestamp(choices.below(16)), cap: choices.below(3) },
    }
}

/// Field of a patch: not given, cleared, or one of two values.
fn optional_field(choices: &mut Choices<'_>, values: [&'static str; 2]) -> Option<Option<String>> {
    match choices.below(4) {
        0 => None,
        1 => Some(None),
        n => Some(Some(values[n as usize - 2].to_owned())),
    }
}

fn timeline_change(choices: &mut Choices<'_>) -> TimelineChange {
    let seq = |choices: &mut Choices<'_>| 1 + i64::from(choices.below(5));
    match choices.weighted(&[4, 1, 1, 1, 1, 1]) {
        0 => {
            let couple = couple(choices);
            let author = choices.maybe(2).map(|side| SIDES[side as usize]);
            let (client, target) = (choices.one_of(&CLIENT_IDS), choices.maybe(4));
            // An entry of the system has no client id.
            let own = author.is_some() && choices.below(5) < 4;
            let entry = NewEntry {
                author,
                client_id: own.then(|| client.to_owned()),
                kind: choices.one_of(&ENTRY_KINDS).to_owned(),
                body: Some(Body::from_stored(format!("{{\"text\":\"{client}\"}}"))),
                target: target.map(|target| 1 + i64::from(target)),
                at: time(choices),
            };
            TimelineChange::Append { couple, entry }
        }
        1 => TimelineChange::Edit {
            couple: couple(choices),
            seq: seq(choices),
            author: side(choices),
            body: Body::from_stored("{\"e\":1}"),
            at: time(choices),
        },
        2 => TimelineChange::Delete {
            couple: couple(choices),
            seq: seq(choices),
            author: side(choices),
            at: time(choices),
        },
        3 => TimelineChange::React {
            couple: couple(choices),
            seq: seq(choices),
            side: side(choices),
            emoji: choices.maybe(3).map(|n| ["😀", "❤", "👍"][n as usize].to_owned()),
        },
        4 => TimelineChange::MarkRead {
            couple: couple(choices),
            side: side(choices),
            seq: i64::from(choices.below(9)),
        },
        _ => TimelineChange::Erase {
            couple: couple(choices),
            author: side(choices),
            at: time(choices),
            after: i64::from(choices.below(4)),
            cap: choices.below(4),
        },
    }
}

/// Few pictures, each always in the same space: avatars of two accounts, and photos of two couples.
pub(super) fn picture(n: u32, content: u32) -> Media {
    let (space, owner) = match n {
        0 | 1 => (Space::Account(account_id(0)), account_id(0)),
        2 | 3 => (Space::Couple(couple_id(0)), account_id(n % 2)),
        4 => (Space::Couple(couple_id(1)), account_id(2)),
        _ => (Space::Account(account_id(1)), account_id(1)),
    };
    let purpose = if matches!(space, Space::Couple(_)) { Purpose::Photo } else { Purpose::Avatar };
    Media {
        id: media_id(n),
        space,
        owner,
        purpose,
        state: MediaState::Processing,
        digest: digest_of("content", content),
        crop: (n == 1).then_some(Crop { x: 1, y: 2, width: 3, height: 4 }),
        key: format!("k{n}"),
        source: Some(Source { blob: "upload".to_owned(), bytes: 100, media_type: "image/png".to_owned() }),
        width: 4000,
        height: 3000,
        animated: false,
        alpha: false,
        placeholder: (n == 3).then(|| vec![7, 8]),
        uses: 0,
        created_at: timestamp(n),
    }
}

fn picture_id(choices: &mut Choices<'_>) -> (Space, couple_core::MediaId) {
    let n = choices.below(PICTURES);
    (picture(n, 0).space, media_id(n))
}

fn expected(choices: &mut Choices<'_>) -> ExpectedMedia {
    let (space, id) = picture_id(choices);
    ExpectedMedia { space, id, uses: i64::try_from(choices.weighted(&[3, 2, 1])).unwrap_or_default() }
}

fn rendition(choices: &mut Choices<'_>) -> Rendition {
    let (size, format) = (choices.one_of(&SIZES), choices.one_of(&FORMATS));
    Rendition {
        name: size.to_owned(),
        format,
        width: 64,
        height: 48,
        bytes: 1 + i64::from(choices.below(8)),
        blob: format!("{size}.{}", format.extension()),
        made_at: timestamp(2),
        used_at: choices.maybe(12).map(timestamp),
    }
}

fn media_change(choices: &mut Choices<'_>) -> MediaChange {
    let owner = |choices: &mut Choices<'_>| account_id(choices.below(2));
    match choices.weighted(&[5, 3, 1, 3, 1, 1, 2, 1, 1, 3, 1]) {
        0 => MediaChange::Insert {
            media: picture(choices.below(PICTURES), choices.below(2)),
            most: choices.one_of(&[i64::MAX, 150]),
        },
        1 => {
            let of = expected(choices);
            let source = choices.maybe(2).map(|n| Source {
                blob: SIZES[n as usize].to_owned(),
                bytes: 1 + i64::from(choices.below(89)),
                media_type: "image/jpeg".to_owned(),
            });
            let mut there = HashSet::new();
            let mut renditions: Vec<_> = (0..choices.below(3)).map(|_| rendition(choices)).collect();
            renditions.retain(|rendition| there.insert((rendition.name.clone(), rendition.format)));
            MediaChange::Finish {
                of,
                width: 3,
                height: 4,
                animated: true,
                alpha: choices.flag(),
                placeholder: vec![1, 2],
                source,
                renditions,
            }
        }
        2 => MediaChange::Reject { of: expected(choices), reason: "corrupt".to_owned() },
        3 => {
            let (n, other, ready) = (choices.below(PICTURES), choices.below(8), choices.flag());
            MediaChange::Use {
                couple: couple_id(if other == 1 { 0 } else { n / 4 }),
                id: media_id(n),
                owner: if other == 2 { account_id(3) } else { picture(n, 0).owner },
                ready,
            }
        }
        4 => MediaChange::Release(expected(choices)),
        5 => MediaChange::Delete(expected(choices)),
        6 => {
            let (space, id) = picture_id(choices);
            MediaChange::AddRendition { space, id, rendition: rendition(choices) }
        }
        7 => {
            let (space, id) = picture_id(choices);
            MediaChange::Touch {
                space,
                id,
                name: choices.one_of(&SIZES).to_owned(),
                format: choices.one_of(&FORMATS),
                at: time(choices),
            }
        }
        8 => {
            let (space, id) = picture_id(choices);
            let from = choices.below(3) as usize;
            let blobs = ["upload", "s.jpg", "s"][from..].iter().map(|&blob| blob.to_owned()).collect();
            MediaChange::Forget { space, id, blobs }
        }
        9 => MediaChange::SetAvatar {
            account: owner(choices),
            media: choices.maybe(PICTURES).map(media_id),
            before: choices.maybe(PICTURES).map(media_id),
        },
        _ => MediaChange::Close { account: owner(choices) },
    }
}

/// Few uploads of two accounts, with small offsets, writers and limits, so that changes conflict.
fn upload_change(choices: &mut Choices<'_>) -> UploadChange {
    let n = choices.below(FEW);
    let (owner, id) = (account_id(n % 2), upload_id(n));
    let length = |choices: &mut Choices<'_>| choices.maybe(2).map(|length| 1 + i64::from(length));
    match choices.weighted(&[2, 2, 4, 1, 1, 1, 1]) {
        0 => {
            let full = choices.flag();
            UploadChange::Insert {
                upload: ResumableUpload {
                    id,
                    owner,
                    couple: full.then(|| couple_id(0)),
                    length: length(choices),
                    offset: i64::from(choices.below(4)),
                    parts: Vec::new(),
                    writer: 0,
                    metadata: "purpose cGhvdG8=".to_owned(),
                    concatenation: full.then(|| "partial".to_owned()),
                    media: if choices.below(8) == 7 { Some(media_id(0)) } else { None },
                    expires_at: time(choices),
                },
                most: 1 + i64::from(choices.below(3)),
            }
        }
        1 => UploadChange::Claim {
            owner,
            id,
            offset: i64::from(choices.below(4)),
            writer: i64::from(choices.below(2)),
            length: length(choices),
        },
        2 => {
            let (offset, writer) = (i64::from(choices.below(4)), i64::from(choices.below(2)));
            let bytes = 1 + i64::from(choices.below(2));
            let parts = vec![UploadPart { blob: "t".to_owned(), bytes: offset + bytes }];
            UploadChange::Append {
                owner,
                id,
                writer,
                offset,
                bytes,
                parts,
                most: 3 + i64::from(choices.below(6)),
            }
        }
        3 => UploadChange::TakeOver { owner, id, offset: i64::from(choices.below(4)) },
        4 => UploadChange::Finish { owner, id, media: media_id(choices.below(PICTURES)) },
        5 => UploadChange::ExpireOf { owner, at: time(choices) },
        _ => {
            // Half of the time under the other owner, where the upload does not exist.
            let owner = account_id(choices.below(2));
            UploadChange::Remove { owner, id }
        }
    }
}

/// Few devices and destinations, so that destinations are taken over; half of the devices name a session.
fn device_change(choices: &mut Choices<'_>) -> DeviceChange {
    let (owner, n) = (choices.below(ACCOUNTS), choices.below(FEW));
    let (account, id) = (account_id(owner), device_id(n));
    match choices.weighted(&[8, 1, 1, 2]) {
        0 => {
            // Session `n` belongs to the account `n % ACCOUNTS`; mostly one of the own account.
            let session = choices.maybe(SESSIONS).map(|n| match choices.below(4) {
                3 => n,
                _ => n / ACCOUNTS * ACCOUNTS + owner,
            });
            let (to, full, most) = (choices.below(FEW), choices.flag(), 1 + choices.below(3));
            DeviceChange::Put {
                device: Device {
                    account,
                    id,
                    session: session.map(session_id),
                    destination: destination(to),
                    surface: Surface::ALL[(to + n) as usize % Surface::ALL.len()],
                    locale: full.then(|| Locale::from_stored("de")),
                    time_zone: full.then(|| TimeZoneName::from_stored("Europe/Rome")),
                    app_version: full.then(|| "1.2".to_owned()),
                    registered_at: time(choices),
                },
                most,
            }
        }
        1 => DeviceChange::Remove { account, id },
        2 => DeviceChange::RemoveOf { account },
        _ => DeviceChange::Retire { destination: destination(n).digest(), not_after: time(choices) },
    }
}

/// Mostly changes of the version that is stored after few changes.
fn notification_change(choices: &mut Choices<'_>) -> NotificationChange {
    let person = account_id(choices.below(ACCOUNTS));
    match choices.weighted(&[6, 1]) {
        0 => {
            let version = [0, 0, 0, 0, 1, 1, 1, 2, 2, 3][choices.below(10) as usize];
            let full = choices.flag();
            NotificationChange::Put(Preferences {
                person,
                version,
                kinds: [choices.flag(), full, !full],
                previews: full,
                muted_until: full.then(|| time(choices)),
                quiet_hours: if full { QuietHours::new(1320, 420).ok() } else { None },
                time_zone: full.then(|| TimeZoneName::from_stored("Europe/Rome")),
                digest: if full { DigestDelay::new(60).ok() } else { None },
                digest_due: choices.flag().then(|| time(choices)),
            })
        }
        _ => NotificationChange::Remove { person },
    }
}

/// Mostly changes of the version that is stored after few changes.
fn date_change(choices: &mut Choices<'_>) -> DateChange {
    // The first couples are mostly active.
    let couples = choices.one_of(&[2, COUPLES]);
    let (couple, id) = (couple_id(choices.below(couples)), date_id(choices.below(FEW)));
    let version = [0, 0, 0, 0, 1, 1, 1, 2, 2, 3][choices.below(10) as usize];
    if choices.below(5) == 4 {
        return DateChange::Remove { couple, id, version };
    }
    let (full, n, most) = (choices.flag(), choices.below(FEW), 1 + choices.below(4));
    let date = CoupleDate {
        couple,
        id,
        version,
        kind: DateKind::ALL[n as usize],
        title: full.then(|| Label::from_stored("Trip")),
        day: day(n),
        is_yearly: full,
        created_at: time(choices),
    };
    DateChange::Put { date, most }
}

fn day(n: u32) -> CalendarDay {
    let text = ["--02-29", "2020-02-29", "1990-12-31", "--05-04"][n as usize % 4];
    CalendarDay::from_stored(text).expect("a day")
}

fn job_change(choices: &mut Choices<'_>) -> JobChange {
    // The first jobs are chosen more often.
    let id = |choices: &mut Choices<'_>| {
        let jobs = choices.one_of(&[3, JOBS]);
        job_id(choices.below(jobs))
    };
    let queue = |choices: &mut Choices<'_>| choices.one_of(&QUEUES).to_owned();
    let claim = |choices: &mut Choices<'_>| i64::from(choices.below(2));
    match choices.weighted(&[3, 4, 2, 1, 1, 1, 1, 3, 3, 1]) {
        0 => {
            let (n, queue, key) = (choices.below(JOBS), queue(choices), choices.maybe(3));
            JobChange::Enqueue(NewJob {
                id: job_id(n),
                queue,
                name: "test".to_owned(),
                payload: format!("{{\"n\":{n}}}"),
                dedupe_key: key.map(|key| CLIENT_IDS[key as usize].to_owned()),
                due_at: time(choices),
                expires_at: timestamp(20 + n),
                max_attempts: 3,
                created_at: timestamp(n),
            })
        }
        1 => {
            let (queue, at, claim) = (queue(choices), choices.below(12), claim(choices));
            let (now, lease_until) = (timestamp(at), timestamp(at + 3));
            JobChange::Claim { queue, now, lease_until, claim, limit: choices.below(4) }
        }
        2 => {
            let (queue, at, claim) = (queue(choices), choices.below(12), claim(choices));
            JobChange::ClaimAbandoned { queue, now: timestamp(at), lease_until: timestamp(at + 3), claim }
        }
        3 => JobChange::Renew { id: id(choices), claim: claim(choices), lease_until: time(choices) },
        4 => JobChange::Finish { id: id(choices), claim: claim(choices) },
        5 => JobChange::Retry { id: id(choices), claim: claim(choices), due_at: time(choices) },
        6 => JobChange::Defer { id: id(choices), claim: claim(choices), due_at: time(choices) },
        7 => JobChange::Bury {
            id: id(choices),
            claim: claim(choices),
            error: "no".to_owned(),
            at: time(choices),
        },
        8 => JobChange::Replay { id: id(choices), at: time(choices), expires_at: time(choices) },
        _ => JobChange::PurgeDead { before: time(choices), cap: choices.below(3) },
    }
}

fn idempotency_change(choices: &mut Choices<'_>) -> IdempotencyChange {
    match choices.weighted(&[3, 1]) {
        0 => {
            let (key, at) = (choices.below(FEW), choices.below(12));
            IdempotencyChange::Record(OutcomeRecord {
                scope: digest_of("key", key),
                request: digest_of("request", at),
                outcome: "{}".to_owned(),
                recorded_at: timestamp(at),
                expires_at: timestamp(at + 4),
            })
        }
        _ => IdempotencyChange::Purge { before: timestamp(choices.below(16)), cap: choices.below(3) },
    }
}
