//! Few ids of each kind, so that random changes affect the same rows, and words for them.

use std::{collections::HashMap, sync::OnceLock};

use couple_core::{
    AccountId, CoupleId, DateId, DeviceId, Digest, DisplayName, EmailAddress, EmailKey, InviteId, JobId,
    Label, Locale, MediaId, Secret, SessionId, TimeZoneName, Timestamp, TokenId, UploadId,
    account::{PasswordHash, ProofForm, TallyId, TokenKind, Tries},
    date::{CalendarDay, DateKind},
    digest,
    media::{Crop, Format, MediaState, Purpose, Source, Space},
    notification::{DigestDelay, QuietHours},
    pairing::{InviteState, Side},
    push::{Destination, Surface},
    timeline::{Body, Page},
    upload::UploadPart,
};
use uuid::Uuid;

use super::choices::Choices;
use crate::World;

pub(super) const ACCOUNTS: u32 = 4;
pub(super) const COUPLES: u32 = 8;
pub(super) const INVITES: u32 = 16;
pub(super) const JOBS: u32 = 12;
pub(super) const PICTURES: u32 = 6;
pub(super) const SESSIONS: u32 = 12;
/// Number of tokens, tallies, uploads, devices, destinations and idempotency keys.
pub(super) const FEW: u32 = 4;

/// The last two belong to no person: they replace erased members.
const PERSONS: [&str; 6] = ["Ana", "Ben", "Cleo", "Dan", "nobody 1", "nobody 2"];
/// Members of each couple, so that a side of a couple has a name. Some persons pair twice.
const MEMBERS: [[u32; 2]; COUPLES as usize] =
    [[0, 1], [2, 3], [0, 2], [1, 3], [0, 1], [3, 2], [1, 0], [3, 0]];
pub(super) const SIDES: [Side; 2] = [Side::First, Side::Second];
pub(super) const QUEUES: [&str; 2] = ["mail", "purge"];
pub(super) const CLIENT_IDS: [&str; 4] = ["a", "b", "c", "d"];
pub(super) const ENTRY_KINDS: [&str; 2] = ["text", "hug"];
pub(super) const SIZES: [&str; 2] = ["s", "m"];
pub(super) const FORMATS: [Format; 3] = [Format::Jpeg, Format::WebP, Format::Png];
pub(super) const FORMS: [ProofForm; 2] = [ProofForm::Code, ProofForm::Link];
pub(super) const KINDS: [TokenKind; 5] =
    [TokenKind::SignUp, TokenKind::SignIn, TokenKind::Password, TokenKind::Email, TokenKind::CancelEmail];

macro_rules! ids {
    ($($function:ident: $type:ident, $kind:literal, $word:literal;)+) => {
        $(
            pub(super) fn $function(n: u32) -> $type {
                $type::from_uuid(Uuid::from_u64_pair($kind, u64::from(n) + 1))
            }
            impl Words for $type {
                fn words(&self) -> String {
                    match self.as_uuid().as_u64_pair() {
                        ($kind, n @ 1..100) => named($word, n),
                        _ => format!("{} {}", $word, self.as_uuid()),
                    }
                }
            }
        )+
    };
}
ids! {
    account_id: AccountId, 1, "";
    session_id: SessionId, 2, "session";
    token_id: TokenId, 3, "token";
    invite_id: InviteId, 4, "invite";
    couple_id: CoupleId, 5, "couple";
    job_id: JobId, 6, "job";
    media_id: MediaId, 7, "picture";
    upload_id: UploadId, 8, "upload";
    device_id: DeviceId, 9, "device";
    date_id: DateId, 10, "date";
}

/// Words of an id of any kind.
pub(super) fn id_in_words(id: Uuid) -> String {
    match id.as_u64_pair().0 {
        1 => AccountId::from_uuid(id).words(),
        2 => SessionId::from_uuid(id).words(),
        3 => TokenId::from_uuid(id).words(),
        4 => InviteId::from_uuid(id).words(),
        5 => CoupleId::from_uuid(id).words(),
        6 => JobId::from_uuid(id).words(),
        7 => MediaId::from_uuid(id).words(),
        8 => UploadId::from_uuid(id).words(),
        9 => DeviceId::from_uuid(id).words(),
        10 => DateId::from_uuid(id).words(),
        _ => id.to_string(),
    }
}

fn named(word: &str, n: u64) -> String {
    match usize::try_from(n - 1).ok().and_then(|index| PERSONS.get(index)) {
        Some(person) if word.is_empty() => (*person).to_owned(),
        _ => format!("{word} {n}"),
    }
}

/// Members of the couple with number `n`.
pub(super) fn members_of(n: u32) -> [AccountId; 2] {
    MEMBERS[n as usize].map(account_id)
}

/// Name of the person who was a member of a couple when the couple was made.
pub(super) fn member(couple: CoupleId, side: Side) -> String {
    match couple.as_uuid().as_u64_pair() {
        (5, n @ 1..=8) => {
            MEMBERS[usize::try_from(n - 1).unwrap_or_default()].map(account_id)[side.index()].words()
        }
        _ => side.words(),
    }
}

pub(super) fn name(n: u32) -> &'static str {
    ["ana", "ben", "cleo", "dan"][(n % ACCOUNTS) as usize]
}
pub(super) fn email(n: u32) -> EmailAddress {
    World::default().email(name(n))
}
/// Time number `n`: about `n` seconds, with every digit of a microsecond.
pub(super) fn timestamp(n: u32) -> Timestamp {
    Timestamp::from_micros(i64::from(n) * TIME_UNIT)
}
const TIME_UNIT: i64 = 1_000_001;
pub(super) fn account(choices: &mut Choices<'_>) -> AccountId {
    account_id(choices.below(ACCOUNTS))
}
pub(super) fn couple(choices: &mut Choices<'_>) -> CoupleId {
    couple_id(couple_number(choices))
}
pub(super) fn couple_number(choices: &mut Choices<'_>) -> u32 {
    // The couples that exist from the start are chosen more often.
    u32::try_from(choices.weighted(&[12, 5, 2, 2, 1, 1, 1, 1])).unwrap_or_default()
}
pub(super) fn side(choices: &mut Choices<'_>) -> Side {
    choices.one_of(&SIDES)
}
pub(super) fn time(choices: &mut Choices<'_>) -> Timestamp {
    timestamp(choices.below(12))
}
pub(super) fn token_kind(choices: &mut Choices<'_>) -> TokenKind {
    KINDS[choices.weighted(&[6, 6, 1, 1, 1])]
}

const DIGESTS: [&str; 11] = [
    "link of token",
    "bearer of session",
    "widget token",
    "code of invite",
    "link of invite",
    "network",
    "tally",
    "key",
    "request",
    "content",
    "unknown",
];

/// Digest number `n` of a kind.
pub(super) fn digest_of(kind: &'static str, n: u32) -> Digest {
    digest(&[kind.as_bytes(), &n.to_be_bytes()])
}
pub(super) fn tally_id(n: u32) -> TallyId {
    TallyId::from_digest(digest_of("tally", n))
}

/// Text of a value for a step or a difference. Two different values have different texts.
pub(super) trait Words {
    fn words(&self) -> String;
}

macro_rules! words {
    ($($type:ty: |$value:ident| $words:expr;)+) => {$(
        impl Words for $type {
            fn words(&self) -> String { let $value = self; $words }
        }
    )+};
}
words! {
    bool: |value| value.to_string();
    u32: |value| value.to_string();
    u64: |value| value.to_string();
    i64: |value| value.to_string();
    str: |value| format!("{value:?}");
    String: |value| format!("{value:?}");
    u8: |value| value.to_string();
    Timestamp: |value| match value.micros() {
        micros if micros % TIME_UNIT == 0 && (0..100 * TIME_UNIT).contains(&micros) => format!("{} s", micros / TIME_UNIT),
        micros => format!("{micros} µs"),
    };
    Digest: |value| digest_words(value);
    TallyId: |value| value.as_digest().words();
    EmailKey: |value| value.as_str().to_owned();
    EmailAddress: |value| match (value.as_str(), value.key().as_str()) {
        (text, key) if text == key => key.to_owned(),
        (text, key) => format!("{text:?} with the key {key}"),
    };
    DisplayName: |value| value.as_str().words();
    Label: |value| value.as_str().words();
    Locale: |value| value.as_str().words();
    TimeZoneName: |value| value.as_str().words();
    PasswordHash: |value| value.as_str().words();
    Body: |value| value.as_str().to_owned();
    TokenKind: |value| value.as_str().to_owned();
    ProofForm: |value| value.as_str().to_owned();
    Format: |value| value.extension().to_owned();
    Purpose: |value| value.as_str().to_owned();
    Side: |value| match value { Side::First => "the first member".to_owned(), Side::Second => "the second member".to_owned() };
    Space: |value| match value { Space::Account(id) => format!("the space of {}", id.words()), Space::Couple(id) => format!("the space of {}", id.words()) };
    Tries: |value| match value {
        Tries::Own(tries) => format!("{tries} own wrong codes"),
        Tries::Foreign(tries) => format!("{tries} foreign wrong codes"),
    };
    InviteState: |value| match value {
        InviteState::Open => "open".to_owned(),
        InviteState::Accepted { by, couple } => format!("accepted by {} for {}", by.words(), couple.words()),
        InviteState::Declined => "declined".to_owned(),
        InviteState::Withdrawn => "withdrawn".to_owned(),
    };
    MediaState: |value| match value {
        MediaState::Processing => "processing".to_owned(),
        MediaState::Ready => "ready".to_owned(),
        MediaState::Rejected(reason) => format!("rejected as {reason:?}"),
    };
    Page: |value| match value { Page::After(seq) => format!("after seq {seq}"), Page::Before(seq) => format!("before seq {seq}") };
    Crop: |value| format!("{} × {} at ({}, {})", value.width, value.height, value.x, value.y);
    Source: |value| format!("{} bytes of {:?} in the blob {:?}", value.bytes, value.media_type, value.blob);
    DigestDelay: |value| format!("{} minutes", value.minutes());
    QuietHours: |value| format!("from minute {} to {}", value.from(), value.to());
    DateKind: |value| value.as_str().to_owned();
    CalendarDay: |value| value.to_string();
    Surface: |value| value.as_str().to_owned();
    Destination: |value| destination_words(value);
    UploadPart: |value| format!("{} bytes in the blob {:?}", value.bytes, value.blob);
    couple_core::account::Tally: |value| format!("{} until {}", value.count, value.expires_at.words());
}

impl<T: Words> Words for Option<T> {
    fn words(&self) -> String {
        self.as_ref().map_or_else(|| "none".to_owned(), Words::words)
    }
}
impl<T: Words> Words for Vec<T> {
    fn words(&self) -> String {
        list(self.iter().map(Words::words))
    }
}
impl<T: Words, const N: usize> Words for [T; N] {
    fn words(&self) -> String {
        format!("[{}]", list(self.iter().map(Words::words)))
    }
}

/// Texts with commas between them; "none" without any.
pub(super) fn list(texts: impl Iterator<Item = String>) -> String {
    let texts: Vec<String> = texts.collect();
    if texts.is_empty() { "none".to_owned() } else { texts.join(", ") }
}

/// Destination with number `n`. Those of odd numbers are of browsers.
pub(super) fn destination(n: u32) -> Destination {
    if n.is_multiple_of(2) {
        return Destination::Fcm { token: Secret::new(format!("t{n}")), app: "app".to_owned() };
    }
    Destination::WebPush {
        endpoint: Secret::new(format!("https://push.example.org/{n}")),
        key: [4; 65],
        auth: Secret::new([9; 16]),
    }
}

fn destination_words(value: &Destination) -> String {
    match value {
        Destination::Apns { token, app, sandbox } => {
            format!("APNs {} of {app:?}, sandbox {sandbox}", token.expose())
        }
        Destination::Fcm { token, app } => format!("FCM {} of {app:?}", token.expose()),
        Destination::WebPush { endpoint, key, auth } => {
            format!("Web Push {} with the key {key:?} and the secret {:?}", endpoint.expose(), auth.expose())
        }
    }
}

fn digest_words(value: &Digest) -> String {
    static NAMES: OnceLock<HashMap<Digest, String>> = OnceLock::new();
    let names = NAMES.get_or_init(|| {
        let all = DIGESTS.iter().flat_map(|kind| (0..32).map(move |n| (*kind, n)));
        let destinations = (0..FEW).map(|n| (destination(n).digest(), destination_words(&destination(n))));
        all.map(|(kind, n)| (digest_of(kind, n), format!("{kind} {}", n + 1))).chain(destinations).collect()
    });
    names.get(value).cloned().unwrap_or_else(|| {
        let hex = value.as_bytes().iter().map(|byte| format!("{byte:02x}"));
        format!("digest {}", hex.collect::<String>())
    })
}
