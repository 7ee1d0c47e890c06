//! Sample data for the checks.

use std::{fmt::Debug, sync::Arc, time::Duration};

use couple_core::{
    AccountId, Change, ChangeResult, Clock, CommitError, Committed, Conflict, CoupleId, DateId, DeviceId,
    DisplayName, EmailAddress, ErrorKind, InviteId, JobId, Label, ManualClock, MediaId, Secret,
    SeededEntropy, SessionId, Store, Timestamp, TokenId, UploadId,
    account::{Account, AccountChange, Session, Token, TokenKind},
    date::{CalendarDay, CoupleDate, DateKind},
    device::Device,
    digest,
    job::{ClaimedJob, JobChange, NewJob},
    media::{Format, Media, MediaState, Purpose, Rendition, Source, Space},
    pairing::{Couple, Invite, InviteState, PairingChange},
    push::{Destination, Surface},
    timeline::{Body, NewEntry, TimelineChange},
    upload::ResumableUpload,
};
use tokio::time::Instant;

use crate::run::{concurrent_commits, repeat_check};

/// Clock, randomness, and sample rows created from them.
#[derive(Debug)]
pub struct World {
    /// Clock that moves only when a check moves it.
    pub clock: Arc<ManualClock>,
    entropy: SeededEntropy,
}

impl Default for World {
    fn default() -> Self {
        Self::new(1)
    }
}

impl World {
    /// Creates sample data with the ids of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { clock: Arc::default(), entropy: SeededEntropy::new(seed) }
    }
    /// Current time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }
    /// Time `seconds` from now.
    #[must_use]
    pub fn later(&self, seconds: u64) -> Timestamp {
        self.now().plus(Duration::from_secs(seconds))
    }
    /// New account id.
    #[must_use]
    pub fn account_id(&self) -> AccountId {
        AccountId::new(&*self.clock, &self.entropy)
    }
    /// New couple id.
    #[must_use]
    pub fn couple_id(&self) -> CoupleId {
        CoupleId::new(&*self.clock, &self.entropy)
    }
    /// Address of a name.
    #[must_use]
    pub fn email(&self, name: &str) -> EmailAddress {
        EmailAddress::parse("email", &format!("{name}@example.org")).expect("names are addresses")
    }
    /// New account.
    #[must_use]
    pub fn account(&self, name: &str) -> Account {
        Account {
            id: self.account_id(),
            email: self.email(name),
            display_name: DisplayName::from_stored(name),
            locale: None,
            time_zone: None,
            birthday: None,
            password: None,
            created_at: self.now(),
            deletion_due: None,
            version: 0,
        }
    }
    /// Unused token that is valid for an hour.
    #[must_use]
    pub fn token(&self, kind: TokenKind, name: &str) -> Token {
        let id = TokenId::new(&*self.clock, &self.entropy);
        Token {
            id,
            kind,
            email: self.email(name),
            account: None,
            link: digest(&[id.as_uuid().as_bytes()]),
            session: None,
            network: Some(digest(&[b"network"])),
            tries: 0,
            foreign_tries: 0,
            used_form: None,
            display_name: None,
            locale: None,
            created_at: self.now(),
            code_expires_at: self.later(600),
            expires_at: self.later(3600),
            used_at: None,
        }
    }
    /// Session that is valid for an hour.
    #[must_use]
    pub fn session(&self, account: AccountId) -> Session {
        let id = SessionId::new(&*self.clock, &self.entropy);
        Session {
            id,
            account,
            token: digest(&[b"bearer", id.as_uuid().as_bytes()]),
            device: None,
            created_at: self.now(),
            authenticated_at: self.now(),
            seen_at: self.now(),
            expires_at: self.later(3600),
            widget_token: None,
        }
    }
    /// Open invite that is valid for an hour.
    #[must_use]
    pub fn invite(&self, inviter: AccountId, from: &str, to: Option<&str>) -> Invite {
        let id = InviteId::new(&*self.clock, &self.entropy);
        Invite {
            id,
            inviter,
            inviter_email: self.email(from).key().clone(),
            target: to.map(|to| self.email(to)),
            message: None,
            code: digest(&[b"code", id.as_uuid().as_bytes()]),
            link: digest(&[b"link", id.as_uuid().as_bytes()]),
            created_at: self.now(),
            expires_at: self.later(3600),
            state: InviteState::Open,
        }
    }
    /// New couple.
    #[must_use]
    pub fn couple(&self, members: [AccountId; 2]) -> Couple {
        Couple {
            id: self.couple_id(),
            members,
            since: self.now(),
            epoch: 1,
            ended_at: None,
            title: None,
            anniversary: None,
            previous: None,
            restore: [false, false],
            head_seq: 0,
            read: [0, 0],
        }
    }
    /// Commits a couple of two new accounts.
    pub async fn stored_couple(&self, store: &impl Store) -> Couple {
        let couple = self.couple([self.account_id(), self.account_id()]);
        must(store, PairingChange::Pair(couple.clone())).await;
        couple
    }
    /// Text entry of the first member of a couple.
    #[must_use]
    pub fn entry(&self, client_id: &str) -> NewEntry {
        NewEntry {
            author: Some(couple_core::pairing::Side::First),
            client_id: Some(client_id.to_owned()),
            kind: "text".to_owned(),
            body: Some(Body::from_stored(format!("{{\"text\":\"{client_id}\"}}"))),
            target: None,
            at: self.now(),
        }
    }
    /// Photo of 100 bytes in the space of a couple.
    #[must_use]
    pub fn photo(&self, couple: CoupleId, owner: AccountId, content: &str) -> Media {
        self.media(Space::Couple(couple), owner, Purpose::Photo, content)
    }
    /// Avatar of 100 bytes.
    #[must_use]
    pub fn avatar(&self, owner: AccountId, content: &str) -> Media {
        self.media(Space::Account(owner), owner, Purpose::Avatar, content)
    }
    fn media(&self, space: Space, owner: AccountId, purpose: Purpose, content: &str) -> Media {
        Media {
            id: MediaId::new(&*self.clock, &self.entropy),
            space,
            owner,
            purpose,
            state: MediaState::Processing,
            digest: digest(&[content.as_bytes()]),
            crop: None,
            key: "k".to_owned(),
            source: Some(Source {
                blob: "upload".to_owned(),
                bytes: 100,
                media_type: "image/png".to_owned(),
            }),
            width: 4000,
            height: 3000,
            animated: false,
            alpha: false,
            placeholder: None,
            uses: 0,
            created_at: self.now(),
        }
    }
    /// Rendition of 10 bytes that was requested when it was made.
    #[must_use]
    pub fn rendition(&self, name: &str, format: Format) -> Rendition {
        Rendition {
            name: name.to_owned(),
            format,
            width: 64,
            height: 48,
            bytes: 10,
            blob: format!("{name}.{}", format.extension()),
            made_at: self.now(),
            used_at: Some(self.now()),
        }
    }
    /// Resumable upload of 1,000 bytes without stored bytes that is valid for an hour.
    #[must_use]
    pub fn upload(&self, owner: AccountId) -> ResumableUpload {
        ResumableUpload {
            id: UploadId::new(&*self.clock, &self.entropy),
            owner,
            couple: None,
            length: Some(1000),
            offset: 0,
            parts: Vec::new(),
            writer: 0,
            metadata: "purpose cGhvdG8=".to_owned(),
            concatenation: None,
            media: None,
            expires_at: self.later(3600),
        }
    }
    /// Device with a destination of its own that no session registered.
    #[must_use]
    pub fn device(&self, account: AccountId) -> Device {
        let id = DeviceId::new(&*self.clock, &self.entropy);
        Device {
            account,
            id,
            session: None,
            destination: Destination::Fcm {
                token: Secret::new(format!("token:{id}")),
                app: "org.example.app".to_owned(),
            },
            surface: Surface::Alert,
            locale: None,
            time_zone: None,
            app_version: None,
            registered_at: self.now(),
        }
    }
    /// Date of a couple that repeats every year.
    #[must_use]
    pub fn date(&self, couple: CoupleId) -> CoupleDate {
        CoupleDate {
            couple,
            id: DateId::new(&*self.clock, &self.entropy),
            version: 0,
            kind: DateKind::Other,
            title: Some(Label::from_stored("Picnic")),
            day: CalendarDay::from_stored("2020-05-04").expect("a day"),
            is_yearly: true,
            created_at: self.now(),
        }
    }
    /// Job that is due now.
    #[must_use]
    pub fn job(&self, queue: &str) -> NewJob {
        NewJob {
            id: JobId::new(&*self.clock, &self.entropy),
            queue: queue.to_owned(),
            name: "test".to_owned(),
            payload: "{}".to_owned(),
            dedupe_key: None,
            due_at: self.now(),
            expires_at: self.later(86_400),
            max_attempts: 3,
            created_at: self.now(),
        }
    }
}

/// Time after which a commit that is given up shows a busy machine. A store that refuses a commit earlier does not wait for an answer.
const MIN_WAIT_FOR_ANSWER: Duration = Duration::from_secs(1);

/// Commits changes. If the store gives up the commit after waiting, the check is repeated.
pub(crate) async fn commit(store: &impl Store, changes: Vec<Change>) -> Result<Committed, CommitError> {
    let start = Instant::now();
    let result = store.commit(changes).await;
    if let Err(error) = &result {
        require_answer(error, start.elapsed());
    }
    result
}

/// Repeats the check if a commit was given up after waiting.
fn require_answer(error: &CommitError, waited: Duration) {
    if let CommitError::Failed(error) = error
        && matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::Overloaded)
        && waited >= MIN_WAIT_FOR_ANSWER
    {
        repeat_check(format!(
            "in each of several attempts, the store gives up a commit after {waited:?}: {error}"
        ));
    }
}

/// Commits changes that must succeed.
pub(crate) async fn all(store: &impl Store, changes: Vec<Change>) -> Committed {
    commit(store, changes).await.expect("the commit has no conflict")
}

/// Commits one change that must succeed.
pub(crate) async fn must(store: &impl Store, change: impl Into<Change>) -> Committed {
    all(store, vec![change.into()]).await
}

/// Commits one change that must conflict, and returns the conflict.
pub(crate) async fn conflict(store: &impl Store, change: impl Into<Change>) -> Conflict {
    conflicts(store, vec![change.into()]).await
}

/// Commits changes that must conflict, and returns the conflict.
pub(crate) async fn conflicts(store: &impl Store, changes: Vec<Change>) -> Conflict {
    match commit(store, changes).await {
        Err(CommitError::Conflict(conflict)) => conflict,
        other => panic!("expected a conflict, got {other:?}"),
    }
}

/// Runs commits concurrently and returns how many succeeded; the others must have conflicted.
pub(crate) async fn race(store: &Arc<impl Store>, commits: Vec<Vec<Change>>) -> usize {
    concurrently(store, commits).await.iter().filter(|result| result.is_ok()).count()
}

/// Runs commits concurrently and returns the result of each, in their order. None may fail.
pub(crate) async fn concurrently(
    store: &Arc<impl Store>,
    commits: Vec<Vec<Change>>,
) -> Vec<Result<Committed, Conflict>> {
    timed(store, commits).await.into_iter().map(|(result, _)| result).collect()
}

/// As [`concurrently`], with the duration of each commit.
pub(crate) async fn timed(
    store: &Arc<impl Store>,
    commits: Vec<Vec<Change>>,
) -> Vec<(Result<Committed, Conflict>, Duration)> {
    let start = Arc::new(tokio::sync::Barrier::new(commits.len()));
    let permits = Arc::new(tokio::sync::Semaphore::new(concurrent_commits(commits.len())));
    let tasks: Vec<_> = commits
        .into_iter()
        .map(|changes| {
            let (store, start, permits) = (store.clone(), start.clone(), permits.clone());
            tokio::spawn(async move {
                start.wait().await;
                let _permit = permits.acquire().await;
                let start = Instant::now();
                (store.commit(changes).await, start.elapsed())
            })
        })
        .collect();
    let mut results = Vec::with_capacity(tasks.len());
    for task in tasks {
        let (result, time) = task.await.expect("no commit panics");
        if let Err(error) = &result {
            require_answer(error, time);
        }
        let result = match result {
            Ok(committed) => Ok(committed),
            Err(CommitError::Conflict(conflict)) => Err(conflict),
            Err(CommitError::Failed(error)) => panic!("a commit fails beside concurrent ones: {error}"),
        };
        results.push((result, time));
    }
    results
}

pub(crate) fn append(couple: CoupleId, entry: NewEntry) -> Change {
    TimelineChange::Append { couple, entry }.into()
}

pub(crate) async fn claim(
    store: &impl Store,
    queue: &str,
    now: Timestamp,
    lease: u64,
    token: i64,
) -> Vec<ClaimedJob> {
    let claim = JobChange::Claim {
        queue: queue.to_owned(),
        now,
        lease_until: now.plus(Duration::from_secs(lease)),
        claim: token,
        limit: 1000,
    };
    must(store, claim).await.into_claimed_jobs()
}

pub(crate) fn insert(account: &Account) -> Change {
    AccountChange::Insert(account.clone()).into()
}

/// Fails with `what` and both values if a read did not return what it must.
#[track_caller]
pub(crate) fn same<T: PartialEq + Debug>(found: &T, expected: &T, what: &str) {
    assert!(found == expected, "{what}: {found:?} instead of {expected:?}");
}

/// Commits a change, and fails with `what` if it does not succeed.
pub(crate) async fn accepted(store: &impl Store, change: impl Into<Change>, what: &str) {
    if let Err(error) = commit(store, vec![change.into()]).await {
        panic!("{what}: {error}");
    }
}

/// Commits a change, and fails with `what` if it does not end with this conflict.
pub(crate) async fn refused(store: &impl Store, change: impl Into<Change>, expected: Conflict, what: &str) {
    match commit(store, vec![change.into()]).await {
        Err(CommitError::Conflict(conflict)) if conflict == expected => {}
        other => panic!("{what}: {other:?} instead of the conflict {expected:?}"),
    }
}

/// Commits a change, and fails with `what` if it does not affect this number of rows.
pub(crate) async fn affects(store: &impl Store, change: impl Into<Change>, expected: u64, what: &str) {
    let rows = must(store, change).await.results().to_vec();
    same(&rows.as_slice(), &[ChangeResult::RowsAffected(expected)].as_slice(), what);
}
