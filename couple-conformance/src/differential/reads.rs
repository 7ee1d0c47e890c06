//! Random reads, and the reads of all rows.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
};

use couple_core::{
    Digest, Error, Store, Timestamp,
    account::{Account, Session, SessionToken, TokenKind},
    media::Space,
    pairing::{Couple, Side, pair_key},
    timeline::Page,
};

use super::{
    changes::{Weights, picture},
    choices::{Choices, enumerate},
    names::*,
    rows::{Row, ToRows},
};

macro_rules! methods {
    ($($port:path { $($name:ident($($arg:ident: $type:ty),*) -> $output:ty;)+ })+) => {
        /// Every read of a store. A new read does not compile until [`read_of`] makes it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(non_camel_case_types, reason = "named like the functions")]
        pub(super) enum Method { $($($name,)+)+ }

        impl Method {
            pub(super) const ALL: &[Self] = &[$($(Self::$name,)+)+];

            pub(super) const fn name(self) -> &'static str {
                match self { $($(Self::$name => stringify!($name),)+)+ }
            }

            /// Trait of the read.
            const fn port(self) -> &'static str {
                match self { $($(Self::$name => stringify!($port),)+)+ }
            }
        }
    };
}
couple_core::__every_read! { [methods!] }

type Running = Pin<Box<dyn Future<Output = Result<Vec<Row>, Error>> + Send>>;

/// Read with its arguments.
#[derive(Clone)]
pub(super) struct Read {
    pub(super) method: Method,
    pub(super) words: String,
    /// Names of the options that it uses.
    pub(super) options: Vec<&'static str>,
    run: Arc<dyn Fn(Arc<dyn Store>) -> Running + Send + Sync>,
}

impl Read {
    pub(super) async fn run(&self, store: Arc<dyn Store>) -> Result<Vec<Row>, Error> {
        (self.run)(store).await
    }
}

/// Options of reads: each is reached by a sequence.
#[cfg(test)]
pub(super) const OPTIONS: &[&str] = &[
    "accounts_to_delete, first page",
    "accounts_to_delete, later page",
    "open_tokens of verify",
    "open_tokens of signin",
    "open_tokens of reset",
    "open_tokens of email",
    "open_tokens of cancel",
    "session_and_couple by bearer token",
    "session_and_couple by widget token",
    "present_sessions of none",
    "present_sessions of some",
    "couples_page, first page",
    "couples_page, later page",
    "erasures_due, first page",
    "erasures_due, later page",
    "entries, Page::After",
    "entries, Page::Before",
    "entries of one kind",
    "entries of all kinds",
    "entry_by_client_id of the first member",
    "entry_by_client_id of the second member",
    "entries_by the first member",
    "entries_by the second member",
    "unread of the first member",
    "unread of the second member",
    "unread of all kinds",
    "unread except some kinds",
    "media_by_identity in the space of an account",
    "media_by_identity in the space of a couple",
    "renditions in the space of an account",
    "renditions in the space of a couple",
    "media_space of an account",
    "media_space of a couple",
    "media_in the space of an account",
    "media_in the space of a couple",
    "media_in, first page",
    "media_in, later page",
    "media_spaces, first page",
    "media_spaces, later page",
    "dead_jobs, first page",
    "dead_jobs, later page",
];

/// Makes a read, mostly of the areas that have changes.
pub(super) fn read(choices: &mut Choices<'_>, areas: &Weights) -> Read {
    const PORTS: [&str; 10] = [
        "AccountReads",
        "PairingReads",
        "TimelineReads",
        "MediaReads",
        "UploadReads",
        "DeviceReads",
        "NotificationReads",
        "DateReads",
        "JobReads",
        "IdempotencyReads",
    ];
    let changes: u32 = areas.iter().sum();
    let weight = |method: &Method| {
        let area = PORTS.iter().position(|port| method.port().ends_with(port));
        // Logs are read more often: their pages have the most options.
        let times = if *method == Method::entries { 4 } else { 1 };
        times * (1 + area.map_or(0, |area| 30 * areas[area] / changes))
    };
    let weights: Vec<u32> = Method::ALL.iter().map(weight).collect();
    read_of(Method::ALL[choices.weighted(&weights)], choices)
}

/// Reads that together return all rows with all fields.
pub(super) fn all_rows() -> Vec<Read> {
    static READS: OnceLock<Vec<Read>> = OnceLock::new();
    let make = || {
        let mut reads = Vec::new();
        for method in Method::ALL {
            enumerate(|choices| reads.push(read_of(*method, choices)));
        }
        reads
    };
    READS.get_or_init(make).clone()
}

/// A read of each method that needs rows of the store.
pub(super) fn one_of_each() -> Vec<Read> {
    let needs_rows = |read: &Read| !read.options.contains(&"present_sessions of none");
    let mut reads: Vec<Read> = all_rows().into_iter().filter(needs_rows).collect();
    reads.dedup_by_key(|read| read.method);
    reads
}

/// Makes a [`Read`] from its words and the call, whose result it turns into rows.
macro_rules! read {
    ($method:expr, $options:expr, [$($value:ident),*], $words:literal, |$store:ident| $call:expr) => {{
        $(let $value = $value.clone();)*
        Read {
            method: $method,
            words: {
                $(#[allow(unused_variables, reason = "some values are only in the call")]
                let $value = $value.words();)*
                format!($words)
            },
            options: $options,
            run: Arc::new(move |$store: Arc<dyn Store>| {
                $(#[allow(unused_variables, reason = "some values are only in the words")]
                let $value = $value.clone();)*
                Box::pin(async move { Ok($call.await?.to_rows()) })
            }),
        }
    }};
}

/// Time up to which rows are due.
fn now(choices: &mut Choices<'_>) -> Timestamp {
    timestamp(choices.detail(16, 6))
}

/// Maximum length of a page.
fn limit(choices: &mut Choices<'_>) -> u32 {
    [100, 2, 1, 3][choices.detail(4, 0) as usize]
}

/// None for the first page, or a number.
fn after(choices: &mut Choices<'_>, n: u32) -> Option<u32> {
    if choices.detail(2, 0) == 1 { Some(choices.below(n)) } else { None }
}

const fn page<T: Copy>(after: Option<T>, names: [&'static str; 2]) -> &'static str {
    match after {
        None => names[0],
        Some(_) => names[1],
    }
}

const fn by_side(side: Side, names: [&'static str; 2]) -> &'static str {
    match side {
        Side::First => names[0],
        Side::Second => names[1],
    }
}

const fn by_space(space: Space, names: [&'static str; 2]) -> &'static str {
    match space {
        Space::Account(_) => names[0],
        Space::Couple(_) => names[1],
    }
}

fn space(choices: &mut Choices<'_>) -> Space {
    match choices.below(5) {
        n @ 0..2 => Space::Account(account_id(n)),
        n => Space::Couple(couple_id(n - 2)),
    }
}

async fn session_and_couple(
    store: Arc<dyn Store>,
    digest: Digest,
    is_widget: bool,
) -> Result<Option<(Session, Account, Option<Couple>)>, Error> {
    let token = if is_widget { SessionToken::Widget(digest) } else { SessionToken::Bearer(digest) };
    store.session_and_couple(&token).await
}

pub(super) fn read_of(method: Method, choices: &mut Choices<'_>) -> Read {
    let none = Vec::new;
    match method {
        Method::account => {
            let id = account(choices);
            read!(method, none(), [id], "account {id}", |store| store.account(id))
        }
        Method::account_by_email => {
            let email = email(choices.below(ACCOUNTS)).key().clone();
            read!(method, none(), [email], "account of {email}", |store| store.account_by_email(&email))
        }
        Method::accounts_to_delete => {
            let (now, after, limit) = (now(choices), after(choices, ACCOUNTS), limit(choices));
            let option = page(after, ["accounts_to_delete, first page", "accounts_to_delete, later page"]);
            let due = timestamp(choices.detail(8, 0));
            let id = after.map(account_id);
            read!(
                method,
                vec![option],
                [now, due, id, limit],
                "up to {limit} accounts to delete at {now} after {id}, due at {due}",
                |store| store.accounts_to_delete(now, id.map(|id| (due, id)), limit)
            )
        }
        Method::token => {
            let id = token_id(choices.below(FEW));
            read!(method, none(), [id], "{id}", |store| store.token(id))
        }
        Method::token_by_link => {
            let link = digest_of("link of token", choices.below(FEW));
            read!(method, none(), [link], "token of the {link}", |store| store.token_by_link(&link))
        }
        Method::open_tokens => {
            let (kind, email, now) =
                (token_kind(choices), email(choices.below(ACCOUNTS)).key().clone(), now(choices));
            let option = match kind {
                TokenKind::SignUp => "open_tokens of verify",
                TokenKind::SignIn => "open_tokens of signin",
                TokenKind::Password => "open_tokens of reset",
                TokenKind::Email => "open_tokens of email",
                TokenKind::CancelEmail => "open_tokens of cancel",
            };
            read!(
                method,
                vec![option],
                [kind, email, now],
                "open tokens `{kind}` of {email} at {now}",
                |store| store.open_tokens(kind, &email, now)
            )
        }
        Method::session_by_token => {
            let token = digest_of("bearer of session", choices.below(SESSIONS));
            read!(method, none(), [token], "session of the {token}", |store| store.session_by_token(&token))
        }
        Method::sessions_of => {
            let account = account(choices);
            read!(method, none(), [account], "sessions of {account}", |store| store.sessions_of(account))
        }
        Method::tally => {
            // An expired tally is found at an earlier time.
            let (id, now) = (tally_id(choices.below(FEW)), timestamp(choices.detail(12, 0)));
            read!(method, none(), [id, now], "{id} at {now}", |store| store.tally(id, now))
        }
        Method::present_sessions => {
            let (from, count) = (choices.detail(SESSIONS, 0), choices.detail(5, 12));
            let mut tokens: Vec<_> =
                (from..SESSIONS.min(from + count)).map(|n| digest_of("bearer of session", n)).collect();
            tokens.push(digest_of("unknown", 0));
            if count == 0 {
                tokens.clear();
            }
            let option =
                if tokens.is_empty() { "present_sessions of none" } else { "present_sessions of some" };
            read!(method, vec![option], [tokens], "present sessions of: {tokens}", |store| sorted(
                store.present_sessions(&tokens)
            ))
        }
        Method::session_and_couple => {
            let (is_widget, n) = (choices.flag(), choices.below(SESSIONS));
            let (option, digest) = match is_widget {
                false => ("session_and_couple by bearer token", digest_of("bearer of session", n)),
                true => ("session_and_couple by widget token", digest_of("widget token", n)),
            };
            read!(method, vec![option], [digest, is_widget], "session and couple of the {digest}", |store| {
                session_and_couple(store, digest, is_widget)
            })
        }
        Method::couple => {
            let id = couple_id(choices.below(COUPLES));
            read!(method, none(), [id], "{id}", |store| store.couple(id))
        }
        Method::couple_of => {
            let account = account(choices);
            read!(method, none(), [account], "couple of {account}", |store| store.couple_of(account))
        }
        Method::couples_of => {
            let account = account(choices);
            read!(method, none(), [account], "couples of {account}", |store| store.couples_of(account))
        }
        Method::couples_page => {
            let (account, after, limit) = (account(choices), after(choices, COUPLES), limit(choices));
            let option = page(after, ["couples_page, first page", "couples_page, later page"]);
            let id = after.map(couple_id);
            read!(
                method,
                vec![option],
                [account, id, limit],
                "up to {limit} couples of {account} after {id}",
                |store| store.couples_page(account, id, limit)
            )
        }
        Method::invite => {
            let id = invite_id(choices.below(INVITES));
            read!(method, none(), [id], "{id}", |store| store.invite(id))
        }
        Method::invite_by_code => {
            let code = digest_of("code of invite", choices.below(INVITES));
            read!(method, none(), [code], "invite of the {code}", |store| store.invite_by_code(&code))
        }
        Method::invite_by_link => {
            let link = digest_of("link of invite", choices.below(INVITES));
            read!(method, none(), [link], "invite of the {link}", |store| store.invite_by_link(&link))
        }
        Method::invite_between => {
            let (one, other) = (email(choices.below(ACCOUNTS)), email(choices.below(ACCOUNTS)));
            read!(method, none(), [one, other], "open invite between {one} and {other}", |store| store
                .invite_between(&pair_key(one.key(), other.key())))
        }
        Method::invites_of => {
            let account = account(choices);
            read!(method, none(), [account], "open invites of {account}", |store| store.invites_of(account))
        }
        Method::invites_to => {
            let email = email(choices.below(ACCOUNTS)).key().clone();
            read!(method, none(), [email], "open invites to {email}", |store| store.invites_to(&email))
        }
        Method::blocks_of => {
            let account = account(choices);
            read!(method, none(), [account], "blocks by {account}", |store| store.blocks_of(account))
        }
        Method::is_blocked => {
            let (blocker, blocked) = (account(choices), account(choices));
            read!(method, none(), [blocker, blocked], "whether {blocker} blocks {blocked}", |store| store
                .is_blocked(blocker, blocked))
        }
        Method::is_blocked_by_email => {
            let (blocker, blocked) = (email(choices.below(ACCOUNTS)).key().clone(), account(choices));
            read!(method, none(), [blocker, blocked], "whether {blocker} blocks {blocked}", |store| store
                .is_blocked_by_email(&blocker, blocked))
        }
        Method::erasure_of => {
            let account = account(choices);
            read!(method, none(), [account], "time of the erasure of {account}", |store| store
                .erasure_of(account))
        }
        Method::erasures_due => {
            let (now, after, limit) = (now(choices), after(choices, ACCOUNTS), limit(choices));
            let option = page(after, ["erasures_due, first page", "erasures_due, later page"]);
            let due = timestamp(5 + choices.detail(2, 0));
            let id = after.map(account_id);
            read!(
                method,
                vec![option],
                [now, due, id, limit],
                "up to {limit} erasures due at {now} after {id}, due at {due}",
                |store| store.erasures_due(now, id.map(|id| (due, id)), limit)
            )
        }
        Method::entries => {
            let (couple, seq) = (couple(choices), i64::from(choices.detail(8, 0)));
            let page = if choices.detail(2, 0) == 0 { Page::After(seq) } else { Page::Before(seq) };
            let limit = limit(choices);
            let kind = choices.detail(3, 0).checked_sub(1).map(|kind| ENTRY_KINDS[kind as usize].to_owned());
            let of = Name(
                kind.as_ref().map_or_else(|| "any kind".to_owned(), |kind| format!("the kind {kind:?}")),
            );
            let options = vec![
                match page {
                    Page::After(_) => "entries, Page::After",
                    Page::Before(_) => "entries, Page::Before",
                },
                if kind.is_some() { "entries of one kind" } else { "entries of all kinds" },
            ];
            read!(
                method,
                options,
                [couple, page, limit, kind, of],
                "up to {limit} entries of {couple} {page}, of {of}",
                |store| store.entries(couple, page, limit, kind.as_deref())
            )
        }
        Method::entry => {
            let (couple, seq) = (couple(choices), 1 + i64::from(choices.detail(8, 0)));
            read!(method, none(), [couple, seq], "entry {seq} of {couple}", |store| store.entry(couple, seq))
        }
        Method::entry_by_client_id => {
            let (couple, side, client_id) =
                (couple(choices), side(choices), choices.one_of(&CLIENT_IDS).to_owned());
            let option = by_side(
                side,
                ["entry_by_client_id of the first member", "entry_by_client_id of the second member"],
            );
            let who = Name(member(couple, side));
            read!(
                method,
                vec![option],
                [couple, side, client_id, who],
                "entry {client_id} of {who} in {couple}",
                |store| store.entry_by_client_id(couple, side, &client_id)
            )
        }
        Method::entries_by => {
            let (couple, side) = (couple(choices), side(choices));
            let (seq, limit) = (i64::from(choices.detail(6, 0)), limit(choices));
            let option = by_side(side, ["entries_by the first member", "entries_by the second member"]);
            let who = Name(member(couple, side));
            read!(
                method,
                vec![option],
                [couple, side, seq, limit, who],
                "up to {limit} entries by {who} in {couple} after seq {seq}",
                |store| store.entries_by(couple, side, seq, limit)
            )
        }
        Method::unread => {
            let (couple, side, seq) = (couple(choices), side(choices), i64::from(choices.detail(6, 0)));
            let except: Vec<String> =
                ENTRY_KINDS[..choices.detail(3, 0) as usize].iter().map(|&kind| kind.to_owned()).collect();
            let options = vec![
                by_side(side, ["unread of the first member", "unread of the second member"]),
                if except.is_empty() { "unread of all kinds" } else { "unread except some kinds" },
            ];
            let who = Name(member(couple, side));
            read!(
                method,
                options,
                [couple, side, seq, except, who],
                "number of unread entries by {who} in {couple} after seq {seq}, except the kinds: {except}",
                |store| store.unread(couple, side, seq, &except)
            )
        }
        Method::media => {
            let id = media_id(choices.below(PICTURES));
            read!(method, none(), [id], "{id}", |store| store.media(id))
        }
        Method::media_by_identity => {
            let (picture, space) = (picture(choices.below(PICTURES), choices.below(2)), space(choices));
            let option = by_space(
                space,
                [
                    "media_by_identity in the space of an account",
                    "media_by_identity in the space of a couple",
                ],
            );
            let (id, identity) = (picture.id, picture.identity());
            let content = picture.digest;
            read!(
                method,
                vec![option],
                [id, identity, content, space],
                "picture in {space} like {id} with {content}",
                |store| store.media_by_identity(space, &identity)
            )
        }
        Method::renditions => {
            let n = choices.below(PICTURES);
            // Mostly in the space of the picture.
            let space = if choices.detail(4, 0) == 3 { space(choices) } else { picture(n, 0).space };
            let option = by_space(
                space,
                ["renditions in the space of an account", "renditions in the space of a couple"],
            );
            let id = media_id(n);
            read!(method, vec![option], [space, id], "renditions of {id} in {space}", |store| store
                .renditions(space, id))
        }
        Method::avatar_of => {
            let account = account(choices);
            read!(method, none(), [account], "avatar of {account}", |store| store.avatar_of(account))
        }
        Method::media_space => {
            let space = space(choices);
            let option = by_space(space, ["media_space of an account", "media_space of a couple"]);
            read!(method, vec![option], [space], "usage of {space}", |store| store.media_space(space))
        }
        Method::media_in => {
            let (space, after, limit) = (space(choices), after(choices, PICTURES), limit(choices));
            let options = vec![
                by_space(space, ["media_in the space of an account", "media_in the space of a couple"]),
                page(after, ["media_in, first page", "media_in, later page"]),
            ];
            let id = after.map(media_id);
            read!(
                method,
                options,
                [space, id, limit],
                "up to {limit} pictures in {space} after {id}",
                |store| store.media_in(space, id, limit)
            )
        }
        Method::media_spaces => {
            let (limit, later) = (limit(choices), choices.detail(2, 0) == 1);
            let after = if later { Some(space(choices)) } else { None };
            let option = page(after, ["media_spaces, first page", "media_spaces, later page"]);
            read!(method, vec![option], [after, limit], "up to {limit} spaces after {after}", |store| store
                .media_spaces(after, limit))
        }
        Method::unused_renditions => {
            let (before, limit) = (timestamp(choices.detail(14, 13)), limit(choices));
            read!(
                method,
                none(),
                [before, limit],
                "up to {limit} renditions not requested since {before}",
                |store| store.unused_renditions(before, limit)
            )
        }
        Method::upload => {
            let id = upload_id(choices.below(FEW));
            read!(method, none(), [id], "{id}", |store| store.upload(id))
        }
        Method::unfinished_uploads => {
            let account = account(choices);
            read!(method, none(), [account], "unfinished uploads of {account}", |store| store
                .unfinished_uploads(account))
        }
        Method::unfinished_bytes => {
            read!(method, none(), [], "bytes of all unfinished uploads", |store| store.unfinished_bytes())
        }
        Method::expired_uploads => {
            let (now, limit) = (now(choices), limit(choices));
            read!(method, none(), [now, limit], "up to {limit} uploads that expired at {now}", |store| store
                .expired_uploads(now, limit))
        }
        Method::device => {
            let (account, id) = (account(choices), device_id(choices.below(FEW)));
            read!(method, none(), [account, id], "{id} of {account}", |store| store.device(account, id))
        }
        Method::devices_of => {
            let account = account(choices);
            read!(method, none(), [account], "devices of {account}", |store| store.devices_of(account))
        }
        Method::preferences => {
            let person = account(choices);
            read!(method, none(), [person], "preferences of {person}", |store| store.preferences(person))
        }
        Method::date => {
            let (couple, id) = (couple_id(choices.below(COUPLES)), date_id(choices.below(FEW)));
            read!(method, none(), [couple, id], "{id} of {couple}", |store| store.date(couple, id))
        }
        Method::dates_of => {
            let couple = couple_id(choices.below(COUPLES));
            read!(method, none(), [couple], "dates of {couple}", |store| store.dates_of(couple))
        }
        Method::queue_stats => {
            let (queue, now) = (choices.one_of(&QUEUES).to_owned(), now(choices));
            read!(method, none(), [queue, now], "statistics of the queue {queue} at {now}", |store| store
                .queue_stats(&queue, now))
        }
        Method::next_due => {
            let queue = choices.one_of(&QUEUES).to_owned();
            read!(method, none(), [queue], "next due time of the queue {queue}", |store| store
                .next_due(&queue))
        }
        Method::next_lease_end => {
            let queue = choices.one_of(&QUEUES).to_owned();
            read!(method, none(), [queue], "next end of a lease in the queue {queue}", |store| store
                .next_lease_end(&queue))
        }
        Method::dead_jobs => {
            let (after, limit) = (after(choices, JOBS), limit(choices));
            let option = page(after, ["dead_jobs, first page", "dead_jobs, later page"]);
            let id = after.map(job_id);
            read!(method, vec![option], [id, limit], "up to {limit} dead jobs after {id}", |store| store
                .dead_jobs(id, limit))
        }
        Method::outcome => {
            let scope = digest_of("key", choices.below(FEW));
            read!(method, none(), [scope], "outcome of {scope}", |store| store.outcome(&scope))
        }
    }
}

/// Present sessions are returned in any order.
async fn sorted<T: Ord>(rows: impl Future<Output = Result<Vec<T>, Error>>) -> Result<Vec<T>, Error> {
    let mut rows = rows.await?;
    rows.sort_unstable();
    Ok(rows)
}

/// Text only for the words of a read.
#[derive(Clone)]
struct Name(String);

impl Words for Name {
    fn words(&self) -> String {
        self.0.clone()
    }
}
