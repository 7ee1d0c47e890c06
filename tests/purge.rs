//! Permanent deletion of accounts: in bounded steps, and independently of failures of other accounts.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[cfg(feature = "server-tests")]
#[path = "support/fresh_database.rs"]
mod fresh_database;
#[path = "support/observed_store.rs"]
mod observed_store;

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use couple::{
    AccountId, Backend, CoupleId, Error, ErrorKind, Keyring, Store,
    account::{
        Account, AccountChange, AccountReads as _, PurgeAccountsHandler, PurgeReport, PurgeTokens, Session,
        Tally, TallyId, Token, TokenKind,
    },
    core::{Change, digest},
    media::{MediaChange, MediaReads as _, Space},
    pairing::{Block, Couple, PairingChange, PairingReads as _, Side},
    store::MemoryStore,
    timeline::{NewEntry, Page, TimelineChange, TimelineReads as _},
};
use couple_conformance::World;
use observed_store::{ObservedStore, StoreObserver};
use tokio::time::sleep;

/// Observes each commit, and refuses those that erase selected accounts.
#[derive(Default)]
struct Observer {
    /// Additional duration of each commit.
    slow: Mutex<Duration>,
    failing: Mutex<HashSet<AccountId>>,
    erasing: AtomicUsize,
    pictures_in_one: AtomicUsize,
}

#[async_trait]
impl StoreObserver for Observer {
    async fn before(&self, what: &'static str) {
        let slow = *self.slow.lock().unwrap();
        if what == "commit" && !slow.is_zero() {
            sleep(slow).await;
        }
    }
    async fn after(&self, _: &'static str) {}
    fn refuse(&self, changes: &[Change]) -> Option<Error> {
        let is_erase = |change: &&Change| matches!(change, Change::Timeline(TimelineChange::Erase { .. }));
        self.erasing.fetch_add(changes.iter().filter(is_erase).count(), Ordering::SeqCst);
        let is_delete = |change: &&Change| matches!(change, Change::Media(MediaChange::Delete(_)));
        self.pictures_in_one.fetch_max(changes.iter().filter(is_delete).count(), Ordering::SeqCst);
        let failing = self.failing.lock().unwrap();
        let fails = changes.iter().any(|change| {
            matches!(change, Change::Pairing(PairingChange::Forget { account, .. }) if failing.contains(account))
        });
        fails.then(|| Error::new(ErrorKind::TimedOut, "commit"))
    }
}

struct Fixture<S> {
    store: Arc<ObservedStore<S, Observer>>,
    observer: Arc<Observer>,
    world: World,
    backend: Backend,
}

impl<S: Store> Fixture<S> {
    fn new(store: S) -> Self {
        let (observer, world) = (Arc::new(Observer::default()), World::default());
        let store = Arc::new(ObservedStore(store, observer.clone()));
        let backend = Backend::builder()
            .store(store.clone())
            .blobs(couple::blobs::Blobs::memory())
            .keys(Keyring::new([7; 32]))
            .clock(world.clock.clone())
            .build()
            .unwrap();
        Self { store, observer, world, backend }
    }
    fn purge(&self, cap: u32) -> PurgeAccountsHandler {
        PurgeAccountsHandler::new(self.backend.ports().clone(), cap)
    }
    /// Adds an account that is due for deletion; earlier ones are due earlier.
    async fn due(&self, name: &str) -> AccountId {
        let account = Account { deletion_due: Some(self.world.now()), ..self.world.account(name) };
        self.store.commit(vec![AccountChange::Insert(account.clone()).into()]).await.unwrap();
        self.world.clock.advance(Duration::from_secs(1));
        account.id
    }
    async fn is_erased(&self, id: AccountId) -> bool {
        self.store.account(id).await.unwrap().is_none()
    }
    /// Creates a couple, as if its members had requested their deletion only afterwards.
    async fn couple(&self, members: [AccountId; 2]) -> Couple {
        let couple = self.world.couple(members);
        let mut due = Vec::new();
        for id in members {
            let account = self.store.account(id).await.unwrap();
            due.push(account.as_ref().and_then(|account| account.deletion_due));
            if let Some(account) = account {
                self.update(Account { deletion_due: None, ..account }).await;
            }
        }
        self.store.commit(vec![PairingChange::Pair(couple.clone()).into()]).await.unwrap();
        for (id, deletion_due) in members.into_iter().zip(due) {
            if let Some(account) = self.store.account(id).await.unwrap() {
                self.update(Account { deletion_due, ..account }).await;
            }
        }
        couple
    }
    async fn update(&self, account: Account) {
        self.store.commit(vec![AccountChange::Update(account).into()]).await.unwrap();
    }
    /// Appends entries by both members in turn, each with a reaction of both.
    async fn fill(&self, couple: CoupleId, entries: i64) {
        for first in (0..entries).step_by(100) {
            let mut changes = Vec::new();
            for n in first..entries.min(first + 100) {
                let author = if n % 2 == 0 { Side::First } else { Side::Second };
                let entry = NewEntry { author: Some(author), ..self.world.entry(&n.to_string()) };
                changes.push(TimelineChange::Append { couple, entry }.into());
                for side in [Side::First, Side::Second] {
                    let react =
                        TimelineChange::React { couple, seq: n + 1, side, emoji: Some("👍".into()) };
                    changes.push(react.into());
                }
            }
            self.store.commit(changes).await.unwrap();
        }
    }
    /// Checks that nothing of a member is left in a log, and that the partner's entries are unchanged.
    async fn assert_erased(&self, couple: CoupleId, side: Side, entries: i64) {
        let mut seen = 0;
        loop {
            let page = self.store.entries(couple, Page::After(seen), 500, None).await.unwrap();
            if page.is_empty() {
                break;
            }
            for entry in page {
                seen = entry.seq;
                assert_eq!(entry.body.is_none(), entry.author == Some(side), "{entry:?}");
                assert_eq!(entry.reactions[side.index()], None, "{entry:?}");
                let partner = if side == Side::First { 1 } else { 0 };
                assert_eq!(entry.reactions[partner].is_some(), entry.author != Some(side), "{entry:?}");
            }
        }
        assert_eq!(seen, entries);
    }
}

/// Runs a check on a store in memory, in SQLite and, with `server-tests`, in MariaDB and PostgreSQL.
macro_rules! on_every_store {
    ($($check:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test] async fn $check() { super::$check(couple::store::MemoryStore::new()).await; })*
        }
        mod sqlite {
            $(#[tokio::test] async fn $check() {
                let folder = tempfile::tempdir().unwrap();
                let store = couple::store::sql::SqliteOptions::new(folder.path().join("couple.db")).open().await;
                super::$check(store.unwrap()).await;
            })*
        }
        #[cfg(feature = "server-tests")]
        mod mariadb {
            $(#[tokio::test] async fn $check() {
                let url = crate::fresh_database::fresh::<sqlx::MySql>("COUPLE_TEST_MARIADB").await;
                super::$check(couple::store::sql::MySqlOptions::new(&url).connect().await.unwrap()).await;
            })*
        }
        #[cfg(feature = "server-tests")]
        mod postgres {
            $(#[tokio::test] async fn $check() {
                let url = crate::fresh_database::fresh::<sqlx::Postgres>("COUPLE_TEST_POSTGRES").await;
                super::$check(couple::store::sql::PostgresOptions::new(&url).connect().await.unwrap()).await;
            })*
        }
    };
}

on_every_store!(
    run_deletes_at_most_its_cap_earliest_first_as_the_dry_run_listed,
    account_that_fails_does_not_stop_the_others,
    failing_accounts_do_not_count_against_the_limit_of_a_run,
    large_account_is_purged_in_bounded_steps,
);

async fn run_deletes_at_most_its_cap_earliest_first_as_the_dry_run_listed(store: impl Store) {
    let fixture = Fixture::new(store);
    let mut due = Vec::new();
    for n in 0..5 {
        due.push(fixture.due(&format!("due{n}")).await);
    }
    let kept = fixture.world.account("kept");
    let later = Account { deletion_due: Some(fixture.world.later(60)), ..fixture.world.account("later") };
    let inserts = [&kept, &later].map(|account| AccountChange::Insert(account.clone()).into());
    fixture.store.commit(inserts.into()).await.unwrap();
    let purge = fixture.purge(2);
    for round in [&due[..2], &due[2..4], &due[4..], &[]] {
        let planned: Vec<_> = purge.plan().await.unwrap().iter().map(|plan| plan.account).collect();
        assert_eq!(planned, round, "the dry run lists the accounts that are due first, up to the cap");
        for id in round {
            assert!(!fixture.is_erased(*id).await, "deleted by a dry run, or by a run beyond its cap");
        }
        let report = purge.run_once().await.unwrap();
        assert_eq!((report.purged as usize, report.unfinished, report.failed.len()), (round.len(), 0, 0));
        for id in round {
            assert!(fixture.is_erased(*id).await, "an account of the dry run is left");
        }
    }
    assert!(
        !fixture.is_erased(kept.id).await && !fixture.is_erased(later.id).await,
        "an account that is not due"
    );
}

async fn account_that_fails_does_not_stop_the_others(store: impl Store) {
    let fixture = Fixture::new(store);
    let (ana, ben, cleo) = (fixture.due("ana").await, fixture.due("ben").await, fixture.due("cleo").await);
    fixture.observer.failing.lock().unwrap().insert(ana);
    let purge = fixture.purge(20);
    let report = purge.run_once().await.unwrap();
    assert_eq!((report.purged, report.failed.len(), report.failed[0].0), (2, 1, ana));
    assert!(!fixture.is_erased(ana).await && fixture.is_erased(ben).await && fixture.is_erased(cleo).await);
    fixture.observer.failing.lock().unwrap().clear();
    let report = purge.run_once().await.unwrap();
    assert_eq!((report.purged, report.failed.len()), (1, 0));
    assert!(fixture.is_erased(ana).await);
}

async fn failing_accounts_do_not_count_against_the_limit_of_a_run(store: impl Store) {
    let fixture = Fixture::new(store);
    for n in 0..60 {
        let id = fixture.due(&format!("failing{n}")).await;
        fixture.observer.failing.lock().unwrap().insert(id);
    }
    let last = fixture.due("last").await;
    let report = fixture.purge(2).run_once().await.unwrap();
    assert_eq!((report.purged, report.failed.len()), (1, 60));
    assert!(fixture.is_erased(last).await);
}

#[tokio::test]
async fn failing_account_makes_the_job_retry_and_finally_dead() {
    let fixture = Fixture::new(MemoryStore::new());
    let ana = fixture.due("ana").await;
    fixture.observer.failing.lock().unwrap().insert(ana);
    let ports = fixture.backend.ports();
    ports.commit(vec![ports.enqueue(&couple::account::PurgeAccounts {}).unwrap()]).await.unwrap();
    let worker = fixture.backend.worker();
    for _ in 0..40 {
        worker.run_until_idle().await.unwrap();
        fixture.world.clock.advance(Duration::from_hours(1));
    }
    let dead = ports.store.dead_jobs(None, 9).await.unwrap();
    assert!(dead.iter().any(|dead| dead.error.contains(&ana.to_string())), "{dead:?}");
}

#[tokio::test]
async fn job_removes_expired_tokens_sessions_and_tallies_and_no_others() {
    let fixture = Fixture::new(MemoryStore::new());
    let (world, ports) = (&fixture.world, fixture.backend.ports());
    let account = world.account("ana");
    let (hour, year) = (world.later(3_600), world.later(365 * 24 * 3_600));
    let mut changes: Vec<Change> = vec![AccountChange::Insert(account.clone()).into()];
    let [expired, valid] =
        [hour, year].map(|expires_at| Token { expires_at, ..world.token(TokenKind::SignIn, "ana") });
    changes.extend([&expired, &valid].map(|token| AccountChange::InsertToken(token.clone()).into()));
    // The second one is not used for 30 days.
    let sessions = [(hour, hour), (hour, year), (year, year)].map(|(seen_at, expires_at)| Session {
        seen_at,
        expires_at,
        ..world.session(account.id)
    });
    changes.extend(sessions.each_ref().map(|session| {
        AccountChange::InsertSession { session: session.clone(), version: account.version }.into()
    }));
    let tallies = [(1, hour), (2, year)].map(|(n, expires_at)| {
        let id = TallyId::from_digest(digest(&[&[n]]));
        AccountChange::PutTally { id, tally: Tally { count: 1, expires_at }, retires: None }.into()
    });
    changes.extend(tallies);
    ports.commit(changes).await.unwrap();
    world.clock.advance(Duration::from_hours(24 * 40));
    ports.commit(vec![ports.enqueue(&PurgeTokens {}).unwrap()]).await.unwrap();
    fixture.backend.worker().run_until_idle().await.unwrap();
    assert_eq!(ports.store.token(expired.id).await.unwrap(), None);
    assert_eq!(ports.store.token(valid.id).await.unwrap(), Some(valid));
    for (session, is_kept) in sessions.iter().zip([false, false, true]) {
        let found = ports.store.session_by_token(&session.token).await.unwrap();
        assert_eq!(found.is_some(), is_kept, "{session:?}");
    }
    // The store does not return expired tallies: a second purge counts those that the job left.
    let purge = |before| vec![AccountChange::PurgeTallies { before, cap: 9 }.into()];
    assert_eq!(ports.commit(purge(ports.now())).await.unwrap().rows_affected(), 0);
    assert_eq!(ports.commit(purge(year.plus(Duration::from_secs(1)))).await.unwrap().rows_affected(), 1);
}

#[tokio::test]
async fn purge_erases_any_number_of_couples() {
    let fixture = Fixture::new(MemoryStore::new());
    let ana = fixture.due("ana").await;
    let mut couples = Vec::new();
    for _ in 0..230 {
        let couple = fixture.couple([ana, fixture.world.account_id()]).await;
        fixture.fill(couple.id, 2).await;
        let end =
            PairingChange::End { id: couple.id, members: couple.members, at: fixture.world.now(), by: None };
        fixture.store.commit(vec![end.into()]).await.unwrap();
        couples.push(couple.id);
    }
    assert_eq!(fixture.purge(20).plan().await.unwrap()[0].erases.len(), 230);
    assert_eq!(fixture.purge(20).run_once().await.unwrap().purged, 1);
    for couple in couples {
        fixture.assert_erased(couple, Side::First, 2).await;
    }
}

/// Steps are bounded, and their number is proportional to the length of the log.
async fn large_account_is_purged_in_bounded_steps(store: impl Store) {
    let fixture = Fixture::new(store);
    let (ana, cleo) = (fixture.due("ana").await, fixture.due("cleo").await);
    let couple = fixture.couple([ana, fixture.world.account_id()]).await;
    fixture.fill(couple.id, 3_001).await;
    let mut changes: Vec<Change> = Vec::new();
    for n in 0..1_100 {
        let (other, email) = (fixture.world.account_id(), fixture.world.email(&n.to_string()).key().clone());
        let (blocker, blocked) = if n % 2 == 0 { (ana, other) } else { (other, ana) };
        let block = Block { blocker, blocked, blocker_email: email, at: fixture.world.now() };
        changes.push(PairingChange::Block(block).into());
    }
    for n in 0..25 {
        let media = fixture.world.photo(couple.id, ana, &n.to_string());
        changes.push(MediaChange::Insert { media, most: i64::MAX }.into());
    }
    fixture.store.commit(changes).await.unwrap();
    let report = fixture.purge(20).run_once().await.unwrap();
    assert_eq!((report.purged, report.unfinished, report.failed.len()), (2, 0, 0));
    assert!(fixture.is_erased(ana).await && fixture.is_erased(cleo).await);
    fixture.assert_erased(couple.id, Side::First, 3_001).await;
    // Ranges of 500 entries, each once.
    assert_eq!(fixture.observer.erasing.load(Ordering::SeqCst), 7);
    assert_eq!(fixture.observer.pictures_in_one.load(Ordering::SeqCst), 10);
    assert_eq!(fixture.store.blocks_of(ana).await.unwrap(), []);
}

/// An account that exceeds its time is continued by later runs; others are purged meanwhile.
#[tokio::test]
async fn slow_account_delays_no_other_and_is_finally_purged() {
    let fixture = Fixture::new(MemoryStore::new());
    let (ana, ben) = (fixture.due("ana").await, fixture.due("ben").await);
    let couple = fixture.couple([ana, fixture.world.account_id()]).await;
    fixture.fill(couple.id, 6_000).await;
    let purge = fixture.purge(20).steps(5);
    let report = purge.run_once().await.unwrap();
    assert_eq!((report.purged, report.unfinished), (1, 1));
    assert!(!fixture.is_erased(ana).await && fixture.is_erased(ben).await);
    let mut runs = 1;
    while !fixture.is_erased(ana).await {
        purge.run_once().await.unwrap();
        runs += 1;
        assert!(runs < 9, "no progress");
    }
    fixture.assert_erased(couple.id, Side::First, 6_000).await;
    assert_eq!(fixture.observer.erasing.load(Ordering::SeqCst), 12);
}

impl<S: Store> Fixture<S> {
    /// Makes a user of a host due for deletion.
    async fn due_user(&self) -> AccountId {
        self.make_due(self.world.account_id()).await
    }
    async fn make_due(&self, person: AccountId) -> AccountId {
        let due = Some(self.world.now());
        let change = PairingChange::SetErasure { person, due, before: None };
        self.store.commit(vec![change.into()]).await.unwrap();
        self.world.clock.advance(Duration::from_secs(1));
        person
    }
    fn fail(&self, id: AccountId) {
        self.observer.failing.lock().unwrap().insert(id);
    }
}

fn failed(report: &PurgeReport) -> Vec<AccountId> {
    report.failed.iter().map(|(id, _)| *id).collect()
}

#[tokio::test]
async fn plan_names_what_a_run_would_remove_in_the_order_of_the_due_times() {
    let fixture = Fixture::new(MemoryStore::new());
    let (ana, user, cleo) = (fixture.due("ana").await, fixture.due_user().await, fixture.due("cleo").await);
    let partner = fixture.world.account_id();
    let couple = fixture.couple([partner, ana]).await;
    let mut changes: Vec<Change> = Vec::new();
    // More than one read of pictures, also of the partner's alone.
    for n in 0..240 {
        let owner = if n % 2 == 0 { partner } else { ana };
        let media = fixture.world.photo(couple.id, owner, &n.to_string());
        changes.push(MediaChange::Insert { media, most: i64::MAX }.into());
    }
    let media = fixture.world.avatar(ana, "face");
    changes.push(MediaChange::Insert { media, most: i64::MAX }.into());
    fixture.store.commit(changes).await.unwrap();
    let plans = fixture.purge(20).plan().await.unwrap();
    assert_eq!(plans.iter().map(|plan| plan.account).collect::<Vec<_>>(), [ana, user, cleo]);
    assert!(plans.is_sorted_by(|one, other| one.due < other.due), "{plans:?}");
    assert_eq!((plans[0].ends, &plans[0].erases[..]), (Some(couple.id), &[(couple.id, Side::Second)][..]));
    assert_eq!(plans[0].pictures, 120 + 1);
    assert_eq!((plans[1].ends, plans[1].erases.len(), plans[1].pictures), (None, 0, 0));
    let first = fixture.purge(2).plan().await.unwrap();
    assert_eq!(first, plans[..2], "no more than a run would delete");
    assert!(!fixture.is_erased(ana).await, "a plan changes nothing");
    assert_eq!(fixture.purge(20).run_once().await.unwrap().purged, 3);
    let left = fixture.store.media_in(Space::Couple(couple.id), None, 500).await.unwrap();
    assert_eq!(left.iter().filter(|media| media.owner == partner).count(), 120, "the partner's stay");
    assert_eq!(left.len(), 120);
    let ended = fixture.store.couple(couple.id).await.unwrap().unwrap();
    assert!(ended.members[0] == partner && ended.members[1] != ana, "the account is not named any more");
}

#[tokio::test]
async fn all_blocks_of_an_account_are_removed_however_many_there_are() {
    let fixture = Fixture::new(MemoryStore::new());
    let ana = fixture.due("ana").await;
    let mut changes: Vec<Change> = Vec::new();
    for n in 0..1_600 {
        let (blocked, email) = (fixture.world.account_id(), fixture.world.email(&n.to_string()));
        let blocker_email = email.key().clone();
        let block = Block { blocker: ana, blocked, blocker_email, at: fixture.world.now() };
        changes.push(PairingChange::Block(block).into());
    }
    fixture.store.commit(changes).await.unwrap();
    assert_eq!(fixture.purge(20).run_once().await.unwrap().purged, 1);
    assert_eq!(fixture.store.blocks_of(ana).await.unwrap(), []);
}

#[tokio::test]
async fn run_deletes_no_more_than_its_limit() {
    let fixture = Fixture::new(MemoryStore::new());
    let ids = [fixture.due("ana").await, fixture.due_user().await, fixture.due("cleo").await];
    let purge = fixture.purge(2);
    assert_eq!(purge.run_once().await.unwrap().purged, 2);
    assert!(fixture.is_erased(ids[0]).await && !fixture.is_erased(ids[2]).await);
    assert_eq!(fixture.store.erasure_of(ids[1]).await.unwrap(), None, "the user was the second");
    assert_eq!(purge.run_once().await.unwrap().purged, 1);
    assert_eq!(purge.run_once().await.unwrap().purged, 0);
}

#[tokio::test]
async fn run_ends_after_a_hundred_failures() {
    let fixture = Fixture::new(MemoryStore::new());
    for n in 0..101 {
        let id = fixture.due(&format!("failing{n}")).await;
        fixture.fail(id);
    }
    let last = fixture.due("last").await;
    let purge = fixture.purge(20);
    let report = purge.run_once().await.unwrap();
    assert_eq!((report.purged, report.failed.len()), (0, 100));
    // The next run begins after them.
    let report = purge.run_once().await.unwrap();
    assert_eq!((report.purged, report.failed.len()), (1, 100));
    assert!(fixture.is_erased(last).await);
}

#[tokio::test]
async fn run_continues_after_the_last_one_and_tries_each_account_once() {
    let fixture = Fixture::new(MemoryStore::new());
    let first = fixture.due("first").await;
    let fine = fixture.due("fine").await;
    let last = fixture.due("last").await;
    fixture.fail(first);
    fixture.fail(last);
    let purge = fixture.purge(1);
    let report = purge.run_once().await.unwrap();
    assert_eq!((report.purged, failed(&report)), (1, vec![first]));
    assert!(fixture.is_erased(fine).await);
    // It begins with the last one, and then tries those before.
    let report = purge.run_once().await.unwrap();
    assert_eq!((report.purged, failed(&report)), (0, vec![last, first]));
    let report = purge.run_once().await.unwrap();
    assert_eq!(failed(&report), [last, first], "it begins after the one that it tried last");
}

/// Commits take a minute each: the time of the run ends while it purges an account.
#[tokio::test(start_paused = true)]
async fn run_starts_no_account_after_five_minutes_and_the_next_one_tries_all_again() {
    let fixture = Fixture::new(MemoryStore::new());
    let (slow, fast) = (fixture.due("slow").await, fixture.due("fast").await);
    let couple = fixture.couple([slow, fixture.world.account_id()]).await;
    fixture.fill(couple.id, 5_000).await;
    *fixture.observer.slow.lock().unwrap() = Duration::from_mins(1);
    let purge = fixture.purge(20);
    let report = purge.run_once().await.unwrap();
    assert_eq!((report.purged, report.unfinished), (0, 1));
    assert!(!fixture.is_erased(slow).await && !fixture.is_erased(fast).await);
    // The first commit ends the couple.
    assert_eq!(fixture.observer.erasing.load(Ordering::SeqCst), 4, "one each minute, for five minutes");
    *fixture.observer.slow.lock().unwrap() = Duration::ZERO;
    assert_eq!(purge.run_once().await.unwrap().purged, 2);
    fixture.assert_erased(couple.id, Side::First, 5_000).await;
    assert_eq!(fixture.observer.erasing.load(Ordering::SeqCst), 10, "no range twice");
}

/// As by a sign-in, which withdraws the request.
#[tokio::test(start_paused = true)]
async fn purge_stops_when_the_deletion_is_withdrawn_meanwhile() {
    let fixture = Fixture::new(MemoryStore::new());
    let (ana, user) = (fixture.due("ana").await, fixture.world.account_id());
    let mut couples = Vec::new();
    for id in [ana, user] {
        let couple = fixture.couple([id, fixture.world.account_id()]).await;
        fixture.fill(couple.id, 2_000).await;
        couples.push(couple.id);
    }
    fixture.make_due(user).await;
    *fixture.observer.slow.lock().unwrap() = Duration::from_secs(10);
    let withdraw = async {
        // Between two commits: the first ends the couple, the second erases a part of the log.
        sleep(Duration::from_secs(25)).await;
        let account = fixture.store.0.account(ana).await.unwrap().unwrap();
        let change = AccountChange::Update(Account { deletion_due: None, ..account });
        fixture.store.0.commit(vec![change.into()]).await.unwrap();
        sleep(Duration::from_secs(30)).await;
        let due = fixture.store.0.erasure_of(user).await.unwrap();
        let change = PairingChange::SetErasure { person: user, due: None, before: due };
        fixture.store.0.commit(vec![change.into()]).await.unwrap();
    };
    let purge = fixture.purge(20);
    let (report, ()) = tokio::join!(purge.run_once(), withdraw);
    let report = report.unwrap();
    assert_eq!((report.purged, report.unfinished, report.failed.len()), (0, 0, 0));
    for couple in couples {
        let last = fixture.store.0.entries(couple, Page::After(1_990), 500, None).await.unwrap();
        assert!(last.iter().all(|entry| entry.body.is_some()), "entries were erased after the withdrawal");
    }
}

impl Fixture<MemoryStore> {
    /// Runs the purge with commits of 10 s, and withdraws the deletion of an account during the second one.
    async fn purge_until_withdrawn(&self, id: AccountId) {
        *self.observer.slow.lock().unwrap() = Duration::from_secs(10);
        let withdraw = async {
            sleep(Duration::from_secs(15)).await;
            let account = self.store.0.account(id).await.unwrap().unwrap();
            let change = AccountChange::Update(Account { deletion_due: None, ..account });
            self.store.0.commit(vec![change.into()]).await.unwrap();
        };
        let purge = self.purge(20);
        let (report, ()) = tokio::join!(purge.run_once(), withdraw);
        assert_eq!(report.unwrap().purged, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn pictures_are_kept_from_the_step_after_a_withdrawal() {
    let fixture = Fixture::new(MemoryStore::new());
    let ana = fixture.due("ana").await;
    let couple = fixture.couple([ana, fixture.world.account_id()]).await;
    let photos = (0..25).map(|n| {
        let media = fixture.world.photo(couple.id, ana, &n.to_string());
        MediaChange::Insert { media, most: i64::MAX }.into()
    });
    fixture.store.commit(photos.collect()).await.unwrap();
    fixture.purge_until_withdrawn(ana).await;
    let kept = fixture.store.0.media_in(Space::Couple(couple.id), None, 99).await.unwrap();
    assert_eq!(kept.len(), 15, "one step of ten had begun");
}

#[tokio::test(start_paused = true)]
async fn blocks_are_kept_from_the_step_after_a_withdrawal() {
    let fixture = Fixture::new(MemoryStore::new());
    let ana = fixture.due("ana").await;
    let blocks = (0..600).map(|n| {
        let (blocked, email) = (fixture.world.account_id(), fixture.world.email(&n.to_string()));
        let blocker_email = email.key().clone();
        let at = fixture.world.now();
        PairingChange::Block(Block { blocker: ana, blocked, blocker_email, at }).into()
    });
    fixture.store.commit(blocks.collect()).await.unwrap();
    fixture.purge_until_withdrawn(ana).await;
    assert_eq!(fixture.store.0.blocks_of(ana).await.unwrap().len(), 100, "one step of 500 had begun");
}
