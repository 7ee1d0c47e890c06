//! S1–S16: guarantees of every commit, of closing, of reopening, of an outage and of times.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use couple_core::{
    Change, ChangeResult, CommitError, Committed, Conflict, ErrorKind, HostStatements, IdempotencyChange,
    OutcomeRecord, Store, Timestamp,
    account::{Account, AccountChange, Tally, TallyId, TokenKind},
    date::DateChange,
    device::DeviceChange,
    digest,
    job::{ClaimedJob, JobChange, NewJob},
    media::MediaChange,
    notification::{NotificationChange, Preferences},
    pairing::{Couple, PairingChange, Side},
    timeline::{Page, TimelineChange},
    upload::UploadChange,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    Breakable, device as device_checks, differential, notification as notification_checks,
    outage::{CALL_LIMIT, fails, recovers, require_outage},
    rollback::{self, CommittedRows},
    world::{
        World, accepted, all, append, claim, commit, concurrently, conflicts, insert, must, race, refused,
        timed,
    },
};

/// Maximum time after which a cancelled commit that still runs is visible completely.
const HALF_COMMIT_LIMIT: Duration = Duration::from_secs(10);

/// After a conflict none of the commit's changes is visible.
pub async fn s1_commit_is_atomic(store: impl Store) {
    let world = World::default();
    let couple = world.stored_couple(&store).await;
    let (ana, again) = (world.account("ana"), world.account("ana"));
    let second = world.couple([world.account_id(), world.account_id()]);
    let photo = world.photo(couple.id, couple.members[0], "photo");
    let upload = world.upload(ana.id);
    let device = world.device(ana.id);
    let date = world.date(couple.id);
    let outcome = OutcomeRecord {
        scope: digest(&[b"scope"]),
        request: digest(&[b"request"]),
        outcome: "{}".to_owned(),
        recorded_at: world.now(),
        expires_at: world.later(60),
    };
    let changes = vec![
        insert(&ana),
        PairingChange::Pair(second.clone()).into(),
        append(couple.id, world.entry("one")),
        MediaChange::Insert { media: photo.clone(), most: 1000 }.into(),
        UploadChange::Insert { upload: upload.clone(), most: 9 }.into(),
        DeviceChange::Put { device: device.clone(), most: 9 }.into(),
        NotificationChange::Put(Preferences::default_of(ana.id)).into(),
        DateChange::Put { date: date.clone(), most: 9 }.into(),
        JobChange::Enqueue(world.job("q")).into(),
        IdempotencyChange::Record(outcome.clone()).into(),
        insert(&again),
    ];
    assert_eq!(conflicts(&store, changes).await, Conflict::AccountExists, "the last change conflicts");
    let visible = [
        ("account", store.account(ana.id).await.unwrap().is_some()),
        ("couple", store.couple(second.id).await.unwrap().is_some()),
        ("entry", store.entry(couple.id, 1).await.unwrap().is_some()),
        ("head of the log", store.couple(couple.id).await.unwrap().unwrap().head_seq != 0),
        ("picture", store.media(photo.id).await.unwrap().is_some()),
        ("device", store.device(ana.id, device.id).await.unwrap().is_some()),
        ("preferences", store.preferences(ana.id).await.unwrap().is_some()),
        ("date", store.date(couple.id, date.id).await.unwrap().is_some()),
        ("upload", store.upload(upload.id).await.unwrap().is_some()),
        ("job", store.next_due("q").await.unwrap().is_some()),
        ("outcome", store.outcome(&outcome.scope).await.unwrap().is_some()),
    ];
    for (what, visible) in visible {
        assert!(!visible, "the {what} of a commit that conflicted is visible");
    }
    device_checks::conflicts_undo_device_changes(&store).await;
    notification_checks::conflicts_undo_preferences(&store).await;
    rollback::conflicts_undo_each_kind_of_change(&store).await;
}

/// A change sees the earlier changes of the same commit.
pub async fn s2_changes_apply_in_order(store: impl Store) {
    let world = World::default();
    let people = [world.account_id(), world.account_id()];
    let (first, second) = (world.couple(people), world.couple(people));
    let changes = vec![
        PairingChange::Pair(first.clone()).into(),
        append(first.id, world.entry("one")),
        append(first.id, world.entry("two")),
        PairingChange::End { id: first.id, members: people, at: world.now(), by: None }.into(),
        PairingChange::Pair(second.clone()).into(),
    ];
    match store.commit(changes).await {
        Ok(committed) => {
            assert!(committed.appended_seqs().eq([1, 2]), "two entries of a commit are not 1 and 2");
        }
        Err(error) => panic!("a change does not see an earlier change of its commit: {error}"),
    }
    let couple = store.couple_of(people[0]).await.unwrap().map(|couple| couple.id);
    assert_eq!(couple, Some(second.id), "the last change of a commit does not take effect last");
}

/// A read after a commit sees the commit.
pub async fn s3_read_after_a_commit_sees_it(store: impl Store) {
    let world = World::default();
    let couple = world.stored_couple(&store).await;
    for n in 0..50 {
        let account = world.account(&format!("p{n}"));
        must(&store, AccountChange::Insert(account.clone())).await;
        let found = store.account(account.id).await.unwrap();
        assert!(found == Some(account), "a read after a commit does not see it: {found:?}");
        // Nor does it see an older state of a changed row.
        let entry = append(couple.id, world.entry(&n.to_string()));
        let seq = all(&store, vec![entry]).await.appended_seqs().next();
        let head = store.couple(couple.id).await.unwrap().unwrap().head_seq;
        assert_eq!(seq, Some(head), "a read after a commit does not see it: the head of the log");
    }
}

/// Runs a future for a time, and drops it. A timer alone has a resolution of a millisecond.
async fn cancel_after(time: Duration, future: impl Future) {
    let start = Instant::now();
    let mut future = pin!(future);
    if let Some(long) = time.checked_sub(Duration::from_millis(2))
        && timeout(long, &mut future).await.is_ok()
    {
        return;
    }
    while futures_util::poll!(&mut future).is_pending() && start.elapsed() < time {
        tokio::task::yield_now().await;
    }
}

/// Polls a future a number of times, and drops it.
async fn cancel_after_polls(polls: u32, future: impl Future) {
    let mut future = pin!(future);
    for _ in 0..polls {
        if futures_util::poll!(&mut future).is_ready() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// A commit whose caller was cancelled is atomic: both of its changes are visible, or none.
pub async fn s4_commit_of_a_cancelled_caller_is_atomic(store: impl Store) {
    let world = World::default();
    let pair = |n: u32| (world.account(&format!("a{n}")), world.account(&format!("b{n}")));
    let (mut fastest, mut slowest) = (Duration::MAX, Duration::from_micros(20));
    for n in 0..5 {
        let (one, other) = pair(n);
        let start = Instant::now();
        all(&store, vec![insert(&one), insert(&other)]).await;
        fastest = start.elapsed().min(fastest);
        slowest = start.elapsed().max(slowest);
    }
    // In all, the commits below run for at most about 3 s, or for 24 times the slowest one if that took more than 125 ms.
    let count = u32::try_from(5_000_000 / slowest.as_micros()).unwrap_or(u32::MAX).clamp(40, 200);
    let mut pairs = Vec::new();
    for n in 0..count {
        let (one, other) = pair(5 + n);
        let commit = store.commit(vec![insert(&one), insert(&other)]);
        // Cancels commits in each state, from before it starts to after it has ended. On a busy machine, most commits are faster than the
        // slowest one.
        let time = if n % 2 == 0 { fastest } else { slowest };
        cancel_after(time * n * 6 / (count * 5), commit).await;
        pairs.push((one.id, other.id));
    }
    // The first states do not depend on time.
    for polls in 0..40 {
        let (one, other) = pair(5 + count + polls);
        let commit = store.commit(vec![insert(&one), insert(&other)]);
        cancel_after_polls(polls, commit).await;
        pairs.push((one.id, other.id));
    }
    // Commits that are still running end before a later commit does.
    must(&store, AccountChange::Insert(world.account("last"))).await;
    for (one, other) in pairs {
        // A store with concurrent writers may apply a cancelled commit between the two reads, but not for ever.
        let start = Instant::now();
        loop {
            let is_stored = [store.account(one).await.unwrap(), store.account(other).await.unwrap()]
                .map(|account| account.is_some());
            if is_stored[0] == is_stored[1] {
                break;
            }
            assert!(start.elapsed() < HALF_COMMIT_LIMIT, "half of a cancelled commit is visible");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Of concurrent commits, those that conflict do not affect the others.
pub async fn s5_conflict_does_not_fail_other_commits(store: impl Store) {
    let world = World::default();
    let taken = world.account("taken");
    must(&store, AccountChange::Insert(taken.clone())).await;
    let store = Arc::new(store);
    let mut commits = Vec::new();
    let mut good = Vec::new();
    let mut bad = Vec::new();
    for n in 0..60 {
        let account = world.account(&format!("p{n}"));
        let changes = match n % 3 {
            0 => vec![insert(&world.account("taken"))],
            1 => vec![insert(&account), insert(&world.account("taken"))],
            _ => vec![insert(&account)],
        };
        if n % 3 == 2 { &mut good } else { &mut bad }.push(account.id);
        commits.push(changes);
    }
    let alone = (0..20).map(|n| vec![insert(&world.account(&format!("alone{n}")))]);
    let alone = timed(&store, alone.collect()).await;
    let beside = timeout(CALL_LIMIT, timed(&store, commits)).await;
    let beside = beside.expect("40 commits that conflict delay others by more than 10 s");
    let count = beside.iter().filter(|(result, _)| result.is_ok()).count();
    assert_eq!(count, 20, "of 60 commits, 40 conflict; a conflict failed a commit that has none");
    let slowest = |results: &[(Result<Committed, Conflict>, Duration)]| {
        results.iter().filter(|(result, _)| result.is_ok()).map(|(_, time)| *time).max().unwrap_or_default()
    };
    let (alone, beside) = (slowest(&alone), slowest(&beside));
    assert!(
        beside <= alone * 5 + Duration::from_secs(1),
        "40 commits that conflict delay 20 others to {beside:?}, which take {alone:?} alone"
    );
    for id in good {
        assert!(store.account(id).await.unwrap().is_some(), "a commit was lost beside one that conflicts");
    }
    for id in bad {
        assert!(
            store.account(id).await.unwrap().is_none(),
            "a change of a commit that conflicted is visible"
        );
    }
}

/// An empty commit succeeds and returns nothing.
pub async fn s6_empty_commit_succeeds(store: impl Store) {
    let committed = store.commit(Vec::new()).await;
    assert!(
        matches!(&committed, Ok(out) if *out == Committed::default()),
        "an empty commit fails: {committed:?}"
    );
    let ping = store.ping().await;
    assert!(ping.is_ok(), "ping fails without an outage: {ping:?}");
}

/// Text is compared byte by byte: no trimming, no case folding, no collation.
pub async fn s7_text_is_stored_exactly(store: impl Store) {
    let world = World::default();
    let couple = world.stored_couple(&store).await;
    let ids = ["a", "A", "a ", "á", "a\u{301}", "ı", "i", "K", "\u{212A}", "👩‍❤️‍👨", "'; --", "%", "_", "\\"];
    for id in ids {
        let what = "texts that differ in a byte are taken for the same one";
        accepted(&store, append(couple.id, world.entry(id)), what).await;
    }
    for (n, id) in ids.into_iter().enumerate() {
        let found = store.entry_by_client_id(couple.id, Side::First, id).await.unwrap();
        let seq = found.map(|entry| entry.seq);
        assert!(
            seq == Some(n as i64 + 1),
            "text is not compared byte by byte: {id:?} finds the entry {seq:?} instead of {}",
            n + 1
        );
        let again = append(couple.id, world.entry(id));
        refused(&store, again, Conflict::ClientIdUsed, "the same text is taken for another one").await;
    }
}

/// Each of many concurrent commits returns one result for each of its changes, in their order.
pub async fn s8_commit_returns_one_result_per_change(store: impl Store) {
    let world = World::default();
    must(&store, AccountChange::Insert(world.account("taken"))).await;
    let store = Arc::new(store);
    let (mut commits, mut expected) = (Vec::new(), Vec::new());
    for n in 0..48_i64 {
        let Couple { id: couple, members, .. } = world.stored_couple(&*store).await;
        let job = world.job(&format!("q{n}"));
        let lease_until = world.later(30);
        let claim =
            JobChange::Claim { queue: job.queue.clone(), now: world.now(), lease_until, claim: n, limit: 9 };
        let erase = TimelineChange::Erase { couple, author: Side::First, at: world.now(), after: 0, cap: 9 };
        let mut changes = vec![
            JobChange::Enqueue(job.clone()).into(),
            append(couple, world.entry("one")),
            claim.into(),
            insert(&world.account(&format!("p{n}"))),
            append(couple, world.entry("two")),
            PairingChange::End { id: couple, members, at: world.now(), by: None }.into(),
            erase.into(),
        ];
        if n % 3 == 2 {
            changes.push(insert(&world.account("taken")));
            expected.push(Err(Conflict::AccountExists));
        } else {
            let claimed = ClaimedJob { job: NewJob { due_at: lease_until, ..job }, attempt: 1, claim: n };
            let results = [
                ChangeResult::Applied,
                ChangeResult::Appended { seq: 1 },
                ChangeResult::Claimed(vec![claimed]),
                ChangeResult::Applied,
                ChangeResult::Appended { seq: 2 },
                ChangeResult::Applied,
                ChangeResult::RowsAffected(2),
            ];
            expected.push(Ok(results.into_iter().collect::<Committed>()));
        }
        commits.push(changes);
    }
    for (n, (result, expected)) in concurrently(&store, commits).await.into_iter().zip(expected).enumerate() {
        if let (Ok(result), Ok(expected)) = (&result, &expected) {
            let (count, changes) = (result.results().len(), expected.results().len());
            assert_eq!(count, changes, "commit {n} returned {count} results for {changes} changes");
        }
        assert!(
            result == expected,
            "commit {n} returned results of another commit, or in another order: {result:?} instead of {expected:?}"
        );
    }
    let crossed = timeout(CALL_LIMIT, crossed_commits(&store, &world)).await;
    crossed.expect("commits that write the same rows in another order take more than 10 s");
}

/// Commits that write two rows in one order and in the other one. Locks that are taken in that order would deadlock.
async fn crossed_commits(store: &Arc<impl Store>, world: &World) {
    let couples = [world.stored_couple(&**store).await.id, world.stored_couple(&**store).await.id];
    let tallies = [b"one", b"two"].map(|name| TallyId::from_digest(digest(&[name])));
    let accounts = [world.account("crossed"), world.account("crossing")];
    all(&**store, accounts.iter().map(insert).collect()).await;
    let commits = |pair: &dyn Fn(usize) -> [Change; 2]| {
        let commit = |n: usize| {
            let mut changes = pair(n).to_vec();
            if n % 2 == 1 {
                changes.reverse();
            }
            changes
        };
        (0..100).map(commit).collect::<Vec<_>>()
    };
    let appends = commits(&|n| couples.map(|couple| append(couple, world.entry(&n.to_string()))));
    let tally = Tally { count: 1, expires_at: world.later(60) };
    let puts = commits(&|_| tallies.map(|id| AccountChange::PutTally { id, tally, retires: None }.into()));
    let updates =
        commits(&|_| [0, 1].map(|account: usize| AccountChange::Update(accounts[account].clone()).into()));
    for (what, commits, expected) in
        [("entries", appends, 100), ("tallies", puts, 100), ("accounts of one version", updates, 1)]
    {
        let succeeded = race(store, commits).await;
        assert!(
            succeeded == expected,
            "of 100 commits that write two {what} in either order, {succeeded} succeed instead of {expected}"
        );
    }
}

/// A commit with statements of a host that the store did not make fails and writes nothing.
pub async fn s9_unknown_host_statements_are_refused(store: impl Store) {
    let world = World::default();
    let (before, after) = (world.account("before"), world.account("after"));
    let unknown = Change::Host(HostStatements::new("statements of no store"));
    match store.commit(vec![insert(&before), unknown.clone(), insert(&after)]).await {
        Err(CommitError::Failed(error)) => {
            assert!(
                error.kind() == ErrorKind::Misconfigured,
                "unknown statements are not Misconfigured: {error}"
            );
        }
        other => panic!("the store accepts statements of a host that it does not know: {other:?}"),
    }
    for account in [&before, &after] {
        let found = store.account(account.id).await.unwrap();
        assert_eq!(found, None, "a commit with unknown statements wrote a change");
    }
    accepted(&store, insert(&before), "an account of a commit with unknown statements cannot be added").await;
    match store.commit(vec![insert(&world.account("before")), unknown]).await {
        Err(CommitError::Conflict(Conflict::AccountExists)) => {}
        other => panic!("unknown statements hide the conflict of an earlier change: {other:?}"),
    }
}

/// A commit of 1,000 changes succeeds, and returns the results in order.
pub async fn s10_commit_of_a_thousand_changes_succeeds(store: impl Store) {
    let world = World::default();
    let couple = world.stored_couple(&store).await;
    let name = |n: i64| format!("p{n}");
    let changes = (1..=500_i64)
        .flat_map(|n| [append(couple.id, world.entry(&n.to_string())), insert(&world.account(&name(n)))]);
    let committed = match commit(&store, changes.collect()).await {
        Ok(committed) => committed,
        Err(error) => panic!("a commit of 1,000 changes fails: {error}"),
    };
    let expected: Vec<_> =
        (1..=500).flat_map(|seq| [ChangeResult::Appended { seq }, ChangeResult::Applied]).collect();
    assert!(
        committed.results() == expected,
        "a commit of 1,000 changes returned other results than 1,000 small ones"
    );
    let head = store.couple(couple.id).await.unwrap().unwrap().head_seq;
    assert_eq!(head, 500, "a commit of 1,000 changes was written in part");
    let last = world.email(&name(500));
    assert!(
        store.account_by_email(last.key()).await.unwrap().is_some(),
        "the last change of 1,000 is missing"
    );
}

/// Once one change of a commit is visible, reads that start later see all of its changes.
pub async fn s11_visible_change_has_its_whole_commit(store: impl Store) {
    const COMMITS: usize = 60;
    let world = World::default();
    let store = Arc::new(store);
    let couples = [world.stored_couple(&*store).await.id, world.stored_couple(&*store).await.id];
    let pairs: Vec<_> =
        (0..COMMITS).map(|n| [world.account(&format!("a{n}")), world.account(&format!("b{n}"))]).collect();
    let commits: Vec<Vec<Change>> = pairs
        .iter()
        .enumerate()
        .map(|(n, [one, other])| {
            let entry = world.entry(&n.to_string());
            let [log, other_log] = couples.map(|couple| append(couple, entry.clone()));
            vec![log, insert(one), other_log, insert(other)]
        })
        .collect();
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            for changes in commits {
                all(&*store, changes).await;
            }
        })
    };
    let is_written = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = [false, true]
        .into_iter()
        .map(|reversed| {
            let (store, pairs, is_written) = (store.clone(), pairs.clone(), is_written.clone());
            tokio::spawn(async move {
                let order = if reversed { [1, 0] } else { [0, 1] };
                for pair in &pairs {
                    loop {
                        let is_last_read = is_written.load(Ordering::SeqCst);
                        if store.account(pair[order[0]].id).await.unwrap().is_some() {
                            break;
                        }
                        assert!(!is_last_read, "a reader does not see a commit that has returned");
                        tokio::task::yield_now().await;
                    }
                    let other = store.account(pair[order[1]].id).await.unwrap();
                    assert!(other.is_some(), "a reader sees half of a commit: one of two accounts");
                    let first = store.couple(couples[order[0]]).await.unwrap().unwrap().head_seq;
                    let then = store.couple(couples[order[1]]).await.unwrap().unwrap().head_seq;
                    assert!(then >= first, "a reader sees half of a commit: an entry in one of two logs");
                    let entries = store.entries(couples[order[1]], Page::After(0), 1000, None);
                    let count = entries.await.unwrap().len() as i64;
                    assert!(count >= then, "a reader sees the head of a log without its entry");
                }
            })
        })
        .collect();
    // A writer that fails is reported first: its readers wait for rows that it did not write.
    if let Err(panicked) = writer.await {
        std::panic::resume_unwind(panicked.into_panic());
    }
    is_written.store(true, Ordering::SeqCst);
    for reader in readers {
        reader.await.expect("readers see only whole commits");
    }
}

/// Starts 40 commits, closes the store while they run, and returns the accounts that they add.
async fn close_while_committing(store: &impl Store, world: &World) -> Vec<Account> {
    let accounts: Vec<_> = (0..40).map(|n| world.account(&format!("p{n}"))).collect();
    let mut commits: FuturesUnordered<_> =
        accounts.iter().map(|account| store.commit(vec![insert(account)])).collect();
    // Starts all commits.
    let mut ended = Vec::new();
    while let std::task::Poll::Ready(Some(result)) = futures_util::poll!(commits.next()) {
        ended.push(result);
    }
    let rest = async { commits.collect::<Vec<_>>().await };
    let (closed, rest) = timeout(CALL_LIMIT, async { tokio::join!(store.close(), rest) })
        .await
        .expect("the store does not close within 10 s while commits run");
    closed.expect("a store closes while commits run");
    for result in ended.into_iter().chain(rest) {
        assert!(result.is_ok(), "closing failed a commit that was started before: {result:?}");
    }
    accounts
}

/// Closing waits for the commits that were started before, and succeeds. Closing again succeeds too.
pub async fn s12_close_completes_started_commits(store: impl Store) {
    close_while_committing(&store, &World::default()).await;
    timeout(CALL_LIMIT, store.close()).await.expect("a second close hangs").expect("a second close succeeds");
}

/// Times are those of the changes and reads: in the past, in the future, and also if they go back.
pub async fn s15_store_uses_only_the_given_times(store: impl Store) {
    // In each year, the clock of the system is far away.
    let years =
        [(1935, -1_104_537_600_123_457), (2026, 1_767_225_600_654_321), (2150, 5_680_281_600_000_001)];
    for (year, micros) in years {
        let world = World::new(year);
        world.clock.set(Timestamp::from_micros(micros));
        let name = format!("p{year}");
        let account = world.account(&name);
        let session = world.session(account.id);
        let token = world.token(TokenKind::SignIn, &name);
        let tally = Tally { count: 3, expires_at: world.later(60) };
        let tally_id = TallyId::from_digest(digest(&[name.as_bytes()]));
        let outcome = OutcomeRecord {
            scope: digest(&[b"scope", name.as_bytes()]),
            request: digest(&[b"request"]),
            outcome: "{}".to_owned(),
            recorded_at: world.now(),
            expires_at: world.later(60),
        };
        let changes = vec![
            insert(&account),
            AccountChange::InsertSession { session: session.clone(), version: 0 }.into(),
            AccountChange::InsertToken(token.clone()).into(),
            AccountChange::PutTally { id: tally_id, tally, retires: None }.into(),
            IdempotencyChange::Record(outcome.clone()).into(),
            JobChange::Enqueue(world.job(&name)).into(),
        ];
        all(&store, changes).await;
        let found = store.session_by_token(&session.token).await.unwrap();
        assert!(
            found == Some((session, account)),
            "a session ends by the store's clock in {year}: {found:?}"
        );
        for (at, count) in [(world.now(), 1), (world.later(3600), 0)] {
            let open = store.open_tokens(TokenKind::SignIn, token.email.key(), at).await.unwrap();
            assert_eq!(open.len(), count, "a token expires by the store's clock in {year}");
        }
        for (at, live) in [(world.later(59), true), (world.later(60), false)] {
            let tally = store.tally(tally_id, at).await.unwrap();
            assert_eq!(tally.is_some(), live, "a tally expires by the store's clock in {year}");
        }
        let record = |seconds| {
            let recorded_at = world.later(seconds);
            let again = OutcomeRecord { recorded_at, expires_at: world.later(120), ..outcome.clone() };
            store.commit(vec![IdempotencyChange::Record(again).into()])
        };
        let (early, late) = (record(59).await, record(60).await);
        assert!(
            matches!(early, Err(CommitError::Conflict(Conflict::KeyUsed))) && late.is_ok(),
            "an outcome expires by the store's clock in {year}: {early:?}, {late:?}"
        );
        let before = world.now().minus(Duration::from_secs(1));
        for (at, count) in [(before, 0), (world.now(), 1)] {
            let claimed = claim(&store, &name, at, 30, 1).await;
            assert_eq!(claimed.len(), count, "a job is due by the store's clock in {year}");
        }
        for (seconds, count) in [(29, 0), (30, 1)] {
            let again = JobChange::ClaimAbandoned {
                queue: name.clone(),
                now: world.later(seconds),
                lease_until: world.later(90),
                claim: 2,
            };
            let claimed = must(&store, again).await.into_claimed_jobs();
            assert_eq!(claimed.len(), count, "a lease ends by the store's clock in {year}");
        }
        // The clock is set back between commits.
        let couple = world.stored_couple(&store).await.id;
        for n in 1..=3 {
            world.clock.set(world.now().minus(Duration::from_hours(1)));
            let committed = all(&store, vec![append(couple, world.entry(&n.to_string()))]).await;
            let seq = committed.appended_seqs().next();
            assert_eq!(seq, Some(n), "an entry of an earlier time has another seq in {year}");
        }
        let entries = store.entries(couple, Page::After(0), 9, None).await.unwrap();
        let seqs: Vec<i64> = entries.iter().map(|entry| entry.seq).collect();
        assert_eq!(seqs, [1, 2, 3], "entries are ordered by time instead of seq in {year}");
    }
}

/// A store that is opened again has every acknowledged commit: after it was closed while commits ran, and after it was
/// dropped without being closed.
pub async fn s13_reopened_store_has_every_acknowledged_commit<S: Store, R: Store, Opening, Reopening>(
    name: String,
    open: impl FnOnce(String) -> Opening,
    reopen: impl Fn(String) -> Reopening,
) where
    Opening: Future<Output = S>,
    Reopening: Future<Output = R>,
{
    let world = World::default();
    let store = open(name.clone()).await;
    let couple = world.stored_couple(&store).await;
    let rows = CommittedRows::commit(&store).await;
    let mut expected = close_while_committing(&store, &world).await;
    drop(store);
    for n in 1..=3 {
        let store = reopen(name.clone()).await;
        rows.expect_unchanged(&store, "a reopened store has lost an acknowledged row").await;
        for account in &expected {
            let found = store.account(account.id).await.unwrap();
            assert!(
                found.as_ref() == Some(account),
                "a reopened store has lost an acknowledged commit: {account:?}"
            );
        }
        let committed = all(&store, vec![append(couple.id, world.entry(&n.to_string()))]).await;
        let seq = committed.appended_seqs().next();
        assert_eq!(seq, Some(n), "a reopened store has lost an acknowledged entry");
        let account = world.account(&format!("q{n}"));
        must(&store, AccountChange::Insert(account.clone())).await;
        expected.push(account);
        // Dropped without `close`: acknowledged commits do not depend on it.
        drop(store);
    }
}

/// A store whose engine failed reports it in each call, within 10 s: `ping` too.
pub async fn s14_outage_is_reported(store: impl Store) {
    let world = World::default();
    let store: Arc<dyn Store> = Arc::new(store);
    // Before any other call, which could notice the outage.
    for (read, result) in differential::call_each_read(&store, CALL_LIMIT).await {
        let Some(result) = result else { panic!("the read `{read}` does not return during an outage") };
        let Err(error) = result else { panic!("the read `{read}` succeeds during an outage") };
        require_outage(read, &error);
    }
    fails("ping", store.ping()).await;
    let account = world.account("ana");
    let commit = timeout(CALL_LIMIT, store.commit(vec![insert(&account)]));
    match commit.await.expect("a commit does not return during an outage") {
        Err(CommitError::Failed(error)) => require_outage("a commit", &error),
        other => panic!("a commit during an outage returned {other:?}"),
    }
    let _ = timeout(CALL_LIMIT, store.close()).await.expect("close hangs during an outage");
}

/// When its engine works again, the store does too, without being opened again, and has every acknowledged commit.
pub async fn s16_store_works_again_after_an_outage<S: Store>(store: Breakable<S>) {
    let world = World::default();
    let (store, outage) = store.into_parts();
    let before = world.account("before");
    must(&store, AccountChange::Insert(before.clone())).await;
    outage.begin();
    // Calls of each kind notice the outage.
    fails("ping", store.ping()).await;
    fails("a read", store.account(before.id)).await;
    let commit = timeout(CALL_LIMIT, store.commit(vec![insert(&world.account("during"))]));
    let committed = commit.await.expect("a commit does not return during an outage");
    assert!(
        matches!(committed, Err(CommitError::Failed(_))),
        "a commit during an outage returned {committed:?}"
    );
    outage.end();
    recovers("ping fails", async || store.ping().await.ok()).await;
    let found = recovers("a read fails", async || store.account(before.id).await.ok()).await;
    assert!(found.as_ref() == Some(&before), "an acknowledged commit is lost in an outage: {found:?}");
    let mut tries = 0;
    let after = recovers("a commit fails", async || {
        // A commit that fails may still take effect, so that its account could not be added again.
        tries += 1;
        let account = world.account(&format!("after{tries}"));
        store.commit(vec![insert(&account)]).await.is_ok().then_some(account)
    })
    .await;
    let found = recovers("a read fails", async || store.account(after.id).await.ok()).await;
    assert!(
        found.as_ref() == Some(&after),
        "a read after a commit does not see it after an outage: {found:?}"
    );
    timeout(CALL_LIMIT, store.close())
        .await
        .expect("close hangs after an outage")
        .expect("the store closes after an outage");
}
