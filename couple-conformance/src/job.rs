//! J1–J12: job queues.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use couple_core::{
    Change, CommitError, Conflict, JobId, Store, Timestamp,
    job::{ClaimedJob, DeadJob, JobChange, NewJob, QueueStats},
};

use crate::{
    change_races,
    samples::{EARLY, LATE, long_text},
    world::{World, all, claim, commit, conflict, conflicts, must},
};

fn enqueue(job: &NewJob) -> Change {
    JobChange::Enqueue(job.clone()).into()
}

fn ids(claimed: &[ClaimedJob]) -> Vec<JobId> {
    claimed.iter().map(|one| one.job.id).collect()
}

fn claim_of(queue: &str, now: Timestamp, lease_until: Timestamp, claim: i64, limit: u32) -> JobChange {
    JobChange::Claim { queue: queue.to_owned(), now, lease_until, claim, limit }
}

fn claim_abandoned(queue: &str, now: Timestamp, lease_until: Timestamp, claim: i64) -> JobChange {
    JobChange::ClaimAbandoned { queue: queue.to_owned(), now, lease_until, claim }
}

async fn claimed(store: &impl Store, change: JobChange) -> Vec<ClaimedJob> {
    must(store, change).await.into_claimed_jobs()
}

/// Claims the only due job of a queue.
async fn claim_one(store: &impl Store, queue: &str, now: Timestamp, token: i64) -> ClaimedJob {
    let mut claimed = claim(store, queue, now, 30, token).await;
    assert_eq!(claimed.len(), 1, "another number of jobs than the due one is claimed");
    claimed.remove(0)
}

async fn bury(store: &impl Store, id: JobId, claim: i64, at: Timestamp) {
    must(store, JobChange::Bury { id, claim, error: "error".to_owned(), at }).await;
}

async fn require_lost(store: &impl Store, change: JobChange, id: JobId) {
    let what = format!("{change:?}");
    match commit(store, vec![change.into()]).await {
        Ok(_) => panic!("a job changes without its claim: {what}"),
        Err(CommitError::Conflict(found)) => {
            assert_eq!(
                found,
                Conflict::ClaimLost(id),
                "a lost claim is reported as another conflict: {what}"
            );
        }
        Err(CommitError::Failed(error)) => panic!("a lost claim is reported as an error: {what}: {error}"),
    }
}

/// Concurrent claimers share out the jobs: no job is claimed twice.
pub async fn j1_job_is_claimed_once(store: impl Store) {
    const JOBS: usize = 200;
    let world = World::default();
    let store = Arc::new(store);
    all(&store, (0..JOBS).map(|_| enqueue(&world.job("q"))).collect()).await;
    let now = world.now();
    let seen = Arc::new(Mutex::new(HashSet::new()));
    let tasks: Vec<_> = (0..16)
        .map(|token| {
            let (store, seen) = (store.clone(), seen.clone());
            tokio::spawn(async move {
                let lease_until = now.plus(Duration::from_secs(30));
                for _ in 0..=JOBS {
                    let claimed = claimed(&*store, claim_of("q", now, lease_until, token, 7)).await;
                    if claimed.is_empty() {
                        return;
                    }
                    assert!(claimed.len() <= 7, "a claim returns more jobs than its limit");
                    for one in claimed {
                        let new = seen.lock().unwrap().insert(one.job.id);
                        assert!(new, "a job is claimed twice");
                    }
                }
                panic!("a claim never returns an empty list");
            })
        })
        .collect();
    for task in tasks {
        if let Err(panicked) = task.await {
            std::panic::resume_unwind(panicked.into_panic());
        }
    }
    assert_eq!(seen.lock().unwrap().len(), JOBS, "a job is not claimed, although it is due");
    change_races::abandoned_job_is_claimed_once(&store).await;
}

/// Jobs are claimed by due time, the earliest first, of equal due times the lowest id first, and never before it. A claim sees the jobs of
/// its own commit.
pub async fn j2_jobs_are_claimed_in_order_of_due_time(store: impl Store) {
    let world = World::default();
    let lease_until = world.later(999);
    let mut jobs = Vec::new();
    // The job with the highest id is enqueued first, and was created first.
    for (n, due) in [30, 10, 40, 10, 20, 20, 10].into_iter().enumerate() {
        let created_at = world.later(100 - n as u64 * (due % 7));
        jobs.push(NewJob { due_at: world.later(due), created_at, ..world.job("q") });
    }
    let latest = NewJob { due_at: world.later(20), created_at: EARLY, ..world.job("q") };
    all(&store, vec![enqueue(&latest)]).await;
    all(&store, jobs.iter().rev().map(enqueue).collect()).await;
    jobs.push(latest);
    jobs.sort_by_key(|job| (job.due_at, job.id));
    assert_eq!(claim(&store, "q", world.later(9), 60, 1).await, [], "a job is claimed before it is due");
    let just_before = world.later(10).minus(Duration::from_micros(1));
    assert_eq!(claim(&store, "q", just_before, 60, 1).await, [], "a job is claimed before it is due");
    let mut left = jobs.iter().map(|job| job.id).collect::<Vec<_>>();
    for (now, limit, count) in [(10, 2, 2), (10, 9, 1), (20, 1, 1), (30, 9, 3), (40, 9, 1), (50, 9, 0)] {
        let expected: Vec<_> = left.drain(..count).collect();
        let next = store.next_due("q").await.unwrap();
        let first = jobs.iter().find(|job| expected.first() == Some(&job.id)).map(|job| job.due_at);
        assert_eq!(next, first, "the next due time is not the one of the first job to be claimed");
        let found = claimed(&store, claim_of("q", world.later(now), lease_until, 1, limit)).await;
        assert_eq!(ids(&found), expected, "jobs are claimed in another order, or others than the due ones");
    }
    let many: Vec<_> = (0..300).map(|_| world.job("many")).collect();
    all(&store, many.iter().map(enqueue).collect()).await;
    let found = claimed(&store, claim_of("many", world.now(), lease_until, 1, 300)).await;
    let mut expected: Vec<_> = many.iter().map(|job| job.id).collect();
    expected.sort_unstable();
    assert_eq!(ids(&found), expected, "300 due jobs are claimed in another order, or others");
    let [one, other] = [world.job("own"), world.job("own")];
    let changes = vec![
        enqueue(&one),
        claim_of("own", world.now(), lease_until, 1, 9).into(),
        enqueue(&other),
        claim_of("own", world.now(), lease_until, 1, 9).into(),
    ];
    let found = ids(&all(&store, changes).await.into_claimed_jobs());
    assert_eq!(found, [one.id, other.id], "a claim misses the jobs that its own commit enqueues");
}

/// A leased job is not claimed before its lease ends.
///
/// Afterwards it is claimed as an abandoned job, and the claim counts an attempt.
pub async fn j3_leased_job_is_not_claimed_again(store: impl Store) {
    let world = World::default();
    let job = world.job("q");
    all(&store, vec![enqueue(&job)]).await;
    let first = claim_one(&store, "q", world.now(), 1).await;
    assert_eq!((first.attempt, first.claim), (1, 1), "the first claim has another attempt or token");
    assert_eq!(first.job.due_at, world.later(30), "a claimed job is not due at the end of its lease");
    assert_eq!(claim(&store, "q", world.later(29), 30, 2).await, [], "a leased job is claimed");
    let end = store.next_lease_end("q").await.unwrap();
    assert_eq!(end, Some(world.later(30)), "the next end of a lease is another one");
    assert_eq!(store.next_due("q").await.unwrap(), None, "a leased job is the next due one");
    let renew = JobChange::Renew { id: job.id, claim: 1, lease_until: world.later(50) };
    must(&store, renew).await;
    assert_eq!(claim(&store, "q", world.later(49), 30, 2).await, [], "a job with a renewed lease is claimed");
    let again = |now, claim| claim_abandoned("q", world.later(now), world.later(now + 30), claim);
    let found = claimed(&store, again(49, 4)).await;
    assert_eq!(found, [], "a job is claimed as abandoned before its renewed lease ends");
    // Ordinary claims skip an abandoned job. Two more jobs get leases that end at the same time, in the order of their ids.
    let [other, third, unclaimed] = [world.job("q"), world.job("q"), world.job("q")];
    all(&store, vec![enqueue(&third), enqueue(&other)]).await;
    let found = ids(&claim(&store, "q", world.later(50), 10, 3).await);
    let mut expected = [other.id, third.id];
    expected.sort_unstable();
    assert_eq!(found, expected, "an ordinary claim takes an abandoned job, or not the due ones");
    assert_eq!(store.next_due("q").await.unwrap(), None, "an abandoned job is the next due one");
    let end = store.next_lease_end("q").await.unwrap();
    assert_eq!(end, Some(world.later(50)), "the next end of a lease is not the earliest one");
    let elsewhere = world.job("elsewhere");
    all(&store, vec![enqueue(&unclaimed), enqueue(&elsewhere)]).await;
    claim(&store, "elsewhere", world.now(), 1, 3).await;
    let end = store.next_lease_end("q").await.unwrap();
    assert_eq!(end, Some(world.later(50)), "the next end of a lease is one of another queue, or of no lease");
    // Abandoned jobs are claimed one at a time, the longest abandoned first.
    for (n, expected) in [job.id, expected[0], expected[1]].into_iter().enumerate() {
        let token = 5 + n as i64;
        let found = claimed(&store, again(60, token)).await;
        assert_eq!(
            ids(&found),
            [expected],
            "abandoned jobs are not claimed one by one, the longest abandoned first"
        );
        assert_eq!(found[0].attempt, 2, "a claim of an abandoned job counts no attempt");
        assert_eq!(
            (found[0].claim, found[0].job.due_at),
            (token, world.later(90)),
            "an abandoned job's claim"
        );
    }
    let found = claimed(&store, again(60, 8)).await;
    assert_eq!(found, [], "a job that is not abandoned is claimed as abandoned");
    // A job that was given back with a result is no longer abandoned.
    must(&store, JobChange::Retry { id: job.id, claim: 5, due_at: world.later(70) }).await;
    let found = claimed(&store, again(80, 8)).await;
    assert_eq!(found, [], "a job that was given back is claimed as abandoned");
    let found = ids(&claim(&store, "q", world.later(80), 10, 9).await);
    assert_eq!(found, [unclaimed.id, job.id], "a job that was given back is not claimed again");
}

/// A worker that has lost its claim cannot change the job.
pub async fn j4_lost_claim_cannot_change_the_job(store: impl Store) {
    // Tokens that differ in the lowest or the highest bit.
    const TOKEN: i64 = (1 << 61) + 1;
    let world = World::default();
    let job = world.job("q");
    all(&store, vec![enqueue(&job)]).await;
    claim(&store, "q", world.now(), 30, TOKEN - 1).await;
    must(&store, claim_abandoned("q", world.later(30), world.later(60), TOKEN)).await;
    let (id, error, at) = (job.id, "late".to_owned(), world.now());
    let all_of = |claim, id| {
        [
            JobChange::Renew { id, claim, lease_until: at },
            JobChange::Retry { id, claim, due_at: at },
            JobChange::Defer { id, claim, due_at: at },
            JobChange::Bury { id, claim, error: error.clone(), at },
            JobChange::Finish { id, claim },
        ]
    };
    for token in [TOKEN - 1, TOKEN + 1, -TOKEN, 0, i64::MAX, TOKEN & 0xffff_ffff] {
        for change in all_of(token, id) {
            require_lost(&store, change, id).await;
        }
    }
    assert_eq!(store.dead_jobs(None, 9).await.unwrap(), [], "a lost claim buried the job");
    let end = store.next_lease_end("q").await.unwrap();
    assert_eq!(end, Some(world.later(60)), "a lost claim changed the lease");
    must(&store, JobChange::Finish { id, claim: TOKEN }).await;
    for change in all_of(TOKEN, id) {
        require_lost(&store, change, id).await;
    }
    let missing = world.job("q").id;
    for change in all_of(TOKEN, missing) {
        require_lost(&store, change, missing).await;
    }
    // A job without a claim cannot be changed.
    let unclaimed = world.job("q");
    all(&store, vec![enqueue(&unclaimed)]).await;
    for change in all_of(0, unclaimed.id) {
        require_lost(&store, change, unclaimed.id).await;
    }
    // Tokens of any size are the worker's own.
    let end = world.later(30);
    for token in [i64::MIN, i64::MAX, -1, 0] {
        let found = claim_one(&store, "q", world.now(), token).await;
        assert_eq!(found.claim, token, "a claim has another token");
        let renewed = commit(
            &store,
            vec![JobChange::Renew { id: found.job.id, claim: token, lease_until: end }.into()],
        );
        assert!(renewed.await.is_ok(), "a job cannot be changed with its claim {token}");
        must(&store, JobChange::Retry { id: found.job.id, claim: token, due_at: at }).await;
    }
    change_races::ended_lease_is_used_or_taken(&Arc::new(store)).await;
}

fn job_with_key(world: &World, key: &str) -> NewJob {
    NewJob { dedupe_key: Some(key.to_owned()), ..world.job("q") }
}

/// A deduplication key has at most one live job over all queues and names. Keys that differ in case, accents or a blank are different.
pub async fn j5_deduplication_key_has_one_live_job(store: impl Store) {
    let world = World::default();
    let with_key = |key: &str| job_with_key(&world, key);
    let now = world.now();
    let first = NewJob { payload: r#"{"first":1}"#.to_owned(), ..with_key("kéy") };
    // Enqueue the key twice in one commit, and again in another commit together with other keys.
    let repeated = commit(&store, vec![enqueue(&first), enqueue(&with_key("kéy"))]).await;
    assert!(repeated.is_ok(), "enqueuing a key of a live job conflicts");
    let elsewhere = NewJob { queue: "other".to_owned(), ..with_key("kéy") };
    let renamed = NewJob { name: "other".to_owned(), ..with_key("kéy") };
    let others = ["Kéy", "key", "kéy ", "k%", "kéy-2", ""].map(with_key);
    let mut changes = vec![enqueue(&elsewhere), enqueue(&renamed), enqueue(&with_key("kéy"))];
    changes.extend(others.iter().map(enqueue));
    let plain = [world.job("q"), world.job("q")];
    changes.extend(plain.iter().map(enqueue));
    all(&store, changes).await;
    let found = claim(&store, "other", now, 30, 1).await;
    assert_eq!(found, [], "a deduplication key has a live job in each of two queues");
    let found = claim(&store, "q", now, 30, 1).await;
    let count = |key: &str| found.iter().filter(|one| one.job.dedupe_key.as_deref() == Some(key)).count();
    assert_eq!(count("kéy"), 1, "a deduplication key has more live jobs than one");
    for other in &others {
        let key = other.dedupe_key.as_deref().unwrap_or_default();
        assert_eq!(count(key), 1, "a key that differs from the taken one is taken for it: {key:?}");
    }
    let found_first = found.iter().find(|one| one.job.id == first.id);
    let payload = found_first.map(|one| one.job.payload.clone());
    assert_eq!(payload, Some(first.payload), "enqueuing a taken key changes the live job");
    assert_eq!(found.len(), 9, "jobs without a key are taken for the same");
    // The key is taken while the job is claimed or waits for another attempt.
    let still = async |what: &str, now| {
        all(&store, vec![enqueue(&job_with_key(&world, "kéy"))]).await;
        let found = claim(&store, "q", now, 30, 2).await;
        assert_eq!(found, [], "a deduplication key has two live jobs: while the first {what}");
    };
    still("is claimed", now).await;
    must(&store, JobChange::Retry { id: first.id, claim: 1, due_at: world.later(5) }).await;
    still("waits for another attempt", now).await;
    let again = claim_one(&store, "q", world.later(5), 3).await.job;
    assert_eq!(again.id, first.id, "a job with a key that is retried is not claimed");
    must(&store, JobChange::Defer { id: first.id, claim: 3, due_at: world.later(6) }).await;
    still("is deferred", now).await;
    claim_one(&store, "q", world.later(6), 4).await;
    must(&store, JobChange::Finish { id: first.id, claim: 4 }).await;
    let free = async |what: &str, token| {
        let next = job_with_key(&world, "kéy");
        all(&store, vec![enqueue(&next)]).await;
        let found = ids(&claim(&store, "q", now, 30, token).await);
        assert_eq!(found, [next.id], "a deduplication key is taken after its job {what}");
        next.id
    };
    let second = free("is finished", 5).await;
    bury(&store, second, 5, now).await;
    let third = free("died", 6).await;
    // A replayed job has no key, so that it neither conflicts with the live job nor takes its key.
    let replay = JobChange::Replay { id: second, at: now, expires_at: world.later(60) };
    must(&store, replay).await;
    let replayed = claim_one(&store, "q", now, 7).await.job;
    assert_eq!(
        (replayed.id, replayed.dedupe_key),
        (second, None),
        "a replayed job keeps its deduplication key"
    );
    must(&store, JobChange::Finish { id: third, claim: 6 }).await;
    let fourth = free("is finished, while a replayed job had it before", 8).await;
    must(&store, JobChange::Finish { id: fourth, claim: 8 }).await;
    // A commit that conflicts takes no key.
    let lost = JobChange::Finish { id: first.id, claim: 9 };
    let changes = vec![enqueue(&with_key("kéy")), lost.into()];
    assert_eq!(conflicts(&store, changes).await, Conflict::ClaimLost(first.id), "a finished job is finished");
    free("was in a commit that conflicted", 9).await;
}

/// Finishing a job and enqueuing its key again in one commit leaves one job.
pub async fn j6_finish_and_enqueue_of_a_key_leave_one_job(store: impl Store) {
    let world = World::default();
    let first = job_with_key(&world, "k");
    all(&store, vec![enqueue(&first)]).await;
    claim_one(&store, "q", world.now(), 1).await;
    let next = NewJob { due_at: world.later(5), ..job_with_key(&world, "k") };
    let again = NewJob { due_at: world.later(5), ..job_with_key(&world, "k") };
    let finish = JobChange::Finish { id: first.id, claim: 1 };
    all(&store, vec![finish.into(), enqueue(&next), enqueue(&again)]).await;
    let found = ids(&claim(&store, "q", world.later(999), 30, 2).await);
    assert_eq!(found, [next.id], "finishing and enqueuing a key leaves other jobs than the new one");
    let abandoned = claimed(&store, claim_abandoned("q", world.later(998), world.later(999), 3)).await;
    assert_eq!(abandoned, [], "a finished job is still there");
}

/// A retried job is claimed at the given time, not before.
pub async fn j7_retried_job_is_due_at_the_given_time(store: impl Store) {
    let world = World::default();
    let job = NewJob { due_at: EARLY, ..world.job("q") };
    all(&store, vec![enqueue(&job)]).await;
    let first = claim_one(&store, "q", world.now(), 1).await;
    let just_before = |time: Timestamp| time.minus(Duration::from_micros(1));
    for (n, due_at) in [(1, world.later(7)), (2, EARLY), (3, LATE)] {
        must(&store, JobChange::Retry { id: job.id, claim: n, due_at }).await;
        require_lost(&store, JobChange::Finish { id: job.id, claim: n }, job.id).await;
        assert_eq!(store.next_due("q").await.unwrap(), Some(due_at), "a retried job is due at another time");
        let early = claim(&store, "q", just_before(due_at), 30, 9).await;
        assert_eq!(early, [], "a retried job is claimed before the given time");
        let again = claim_one(&store, "q", due_at, n + 1).await;
        assert_eq!(again.attempt, n + 1, "a retried job has another number of attempts");
        let expected = NewJob { due_at: again.job.due_at, ..first.job.clone() };
        assert_eq!(again.job, expected, "a retried job has other fields than before");
    }
}

/// Dead jobs are listed by id, replayed and purged.
pub async fn j8_dead_jobs_are_listed_replayed_and_purged(store: impl Store) {
    const COUNT: usize = 6;
    let world = World::default();
    let mut jobs = Vec::new();
    for n in 0..COUNT {
        let created_at = world.later(100 - n as u64);
        let job = NewJob {
            payload: format!("{{\"n\":{n}}}"),
            dedupe_key: Some(format!("k{n}")),
            created_at,
            ..world.job("q")
        };
        jobs.push(job);
    }
    jobs.sort_by_key(|job| job.id);
    all(&store, jobs.iter().map(enqueue).collect()).await;
    claim(&store, "q", world.now(), 30, 1).await;
    // The job with the highest id died first, and those with the lowest ids, which were created last, at the same time.
    let died = |n: usize| world.later(200 - 10 * (n.max(1)) as u64);
    for (n, job) in jobs.iter().enumerate() {
        let (id, error) = (job.id, format!("no {n}"));
        must(&store, JobChange::Bury { id, claim: 1, error, at: died(n) }).await;
    }
    let listed = async |after: Option<JobId>, limit, expected: std::ops::Range<usize>| {
        let found = store.dead_jobs(after, limit).await.unwrap();
        let found: Vec<_> = found.into_iter().map(|dead| (dead.job.id, dead.error, dead.attempts)).collect();
        let expected: Vec<_> = expected.map(|n| (jobs[n].id, format!("no {n}"), 1)).collect();
        assert_eq!(found, expected, "a page of dead jobs has others, or another order than of ids");
    };
    listed(None, 2, 0..2).await;
    listed(Some(jobs[1].id), 3, 2..5).await;
    listed(Some(jobs[4].id), 9, 5..6).await;
    listed(Some(jobs[5].id), 9, 0..0).await;
    let replay = |id, at, expires_at| JobChange::Replay { id, at, expires_at };
    let live = claim(&store, "q", LATE, 30, 2).await;
    assert_eq!(live, [], "a dead job is claimed");
    assert_eq!(store.next_lease_end("q").await.unwrap(), None, "a dead job is leased");
    let missing = world.job("q").id;
    let found = commit(&store, vec![replay(missing, EARLY, LATE).into()]).await;
    assert!(found.is_err(), "a job that is not dead is replayed");
    let no_dead = conflict(&store, replay(missing, EARLY, LATE)).await;
    assert_eq!(no_dead, Conflict::NoDeadJob(missing), "the replay of a job that is not dead");
    for (n, at, expires_at) in [(1, EARLY, LATE), (2, LATE, EARLY)] {
        let job = &jobs[n];
        must(&store, replay(job.id, at, expires_at)).await;
        let again = commit(&store, vec![replay(job.id, at, expires_at).into()]).await;
        assert!(again.is_err(), "a dead job is replayed twice");
        assert_eq!(store.next_due("q").await.unwrap(), Some(at), "a replayed job is due at another time");
        let found = claim_one(&store, "q", at, 9).await;
        assert_eq!(found.attempt, 1, "a replayed job keeps its attempts");
        let expected = NewJob { due_at: found.job.due_at, expires_at, dedupe_key: None, ..job.clone() };
        assert_eq!(found.job, expected, "a replayed job has other fields than before");
        must(&store, JobChange::Finish { id: job.id, claim: 9 }).await;
    }
    // Left: 0 and 3 to 5, of which 5 died first, and 0 last.
    let purge = async |before: Timestamp, cap, count: u64, left: &[usize]| {
        let purged = must(&store, JobChange::PurgeDead { before, cap }).await.rows_affected();
        let found = store.dead_jobs(None, 9).await.unwrap();
        let found: Vec<_> = found.into_iter().map(|dead| dead.job.id).collect();
        let expected: Vec<_> = left.iter().map(|n| jobs[*n].id).collect();
        assert_eq!(
            found, expected,
            "a purge leaves other jobs than those that died last, or exceeds its cap"
        );
        assert_eq!(purged, count, "a purge returns another number than of the removed jobs");
    };
    purge(died(5), 9, 0, &[0, 3, 4, 5]).await;
    purge(died(0), 1, 1, &[0, 3, 4]).await;
    purge(died(3), 9, 1, &[0, 3]).await;
    purge(LATE, 1, 1, &[0]).await;
    purge(died(0), 9, 0, &[0]).await;
    purge(died(0).plus(Duration::from_micros(1)), 9, 1, &[]).await;
}

/// Claims and reads of a queue ignore the jobs of other queues, however similar their names.
pub async fn j9_claim_returns_no_job_of_another_queue(store: impl Store) {
    let world = World::default();
    let names = ["méil", "Méil", "meil", "méil ", "m%", "m___", "mé", "méil-2"];
    let lease_until = world.later(30);
    for (n, queue) in names.into_iter().enumerate() {
        let job = NewJob { due_at: world.later(n as u64), ..world.job(queue) };
        for (read, other) in names.iter().enumerate().skip(n) {
            let due = store.next_due(other).await.unwrap();
            assert_eq!(due, None, "the next due time of a queue is one of another queue: {other:?}");
            let end = store.next_lease_end(other).await.unwrap();
            assert_eq!(end, None, "the next end of a lease in a queue is one of another queue: {other:?}");
            let stats = store.queue_stats(other, LATE).await.unwrap();
            assert_eq!(
                stats,
                QueueStats::default(),
                "statistics count jobs of another queue: {other:?} {read}"
            );
            let found = claimed(&store, claim_of(other, LATE, lease_until, 1, 9)).await;
            assert_eq!(found, [], "a claim returns a job of another queue: {other:?}");
            let found = claimed(&store, claim_abandoned(other, LATE, lease_until, 1)).await;
            assert_eq!(found, [], "a claim returns an abandoned job of another queue: {other:?}");
        }
        // One job is dead, one has a lease, and one waits.
        let [dead, leased] = [world.job(queue), world.job(queue)];
        all(&store, vec![enqueue(&dead), enqueue(&leased)]).await;
        let found = claim(&store, queue, world.now(), 30, 1).await;
        assert_eq!(found.len(), 2, "a claim does not return the jobs of its queue, or others: {queue:?}");
        bury(&store, dead.id, 1, world.now()).await;
        all(&store, vec![enqueue(&job)]).await;
        let expected = QueueStats { ready: 0, waiting: 2, dead: 1, next_due: Some(job.due_at) };
        let stats = store.queue_stats(queue, job.due_at.minus(Duration::from_micros(1))).await.unwrap();
        assert_eq!(stats, expected, "statistics count jobs of another queue, or not those of {queue:?}");
    }
}

/// Every field of a job reads back, after a claim and in the dead-letter queue. Names of queues and jobs have up to 255 bytes,
/// deduplication keys 512, and payloads and errors 32 KiB.
pub async fn j10_job_fields_read_back(store: impl Store) {
    let world = World::default();
    let payload =
        format!(r#"{{ "z":1.50,  "a":"\u0041 👋É ' \" \\{}", "z":9007199254740993 }} "#, "é".repeat(16_000));
    let jobs = [
        NewJob {
            queue: long_text("Q", 255),
            name: long_text("N", 255),
            payload: format!("{payload}{}", " ".repeat(32 * 1024 - payload.len())),
            dedupe_key: Some(long_text("K", 512)),
            due_at: EARLY,
            expires_at: EARLY.plus(Duration::from_micros(2_003)),
            max_attempts: 5_000_000_007,
            created_at: EARLY.plus(Duration::from_micros(1_001)),
            ..world.job("")
        },
        NewJob {
            queue: "Ôther 👋 ".to_owned(),
            name: "x".to_owned(),
            payload: r#"{ }"#.to_owned(),
            dedupe_key: None,
            due_at: LATE,
            expires_at: LATE.plus(Duration::from_micros(2_003)),
            max_attempts: 7,
            created_at: LATE.plus(Duration::from_micros(1_001)),
            ..world.job("")
        },
    ];
    for (n, job) in jobs.into_iter().enumerate() {
        all(&store, vec![enqueue(&job)]).await;
        let due = store.next_due(&job.queue).await.unwrap();
        assert_eq!(due, Some(job.due_at), "a due time reads back otherwise, or the name of a queue");
        let (lease_until, died_at) = if n == 0 { (LATE, EARLY) } else { (EARLY, LATE) };
        let died_at = died_at.plus(Duration::from_micros(3_007));
        let token = i64::MIN + n as i64;
        let found = claimed(&store, claim_of(&job.queue, job.due_at, lease_until, token, 9)).await;
        let leased = NewJob { due_at: lease_until, ..job.clone() };
        let expected = [ClaimedJob { job: leased, attempt: 1, claim: token }];
        assert!(found == expected, "a claimed job reads back otherwise:\n{found:?}\n{expected:?}");
        let renewed = lease_until.plus(Duration::from_micros(1));
        must(&store, JobChange::Renew { id: job.id, claim: token, lease_until: renewed }).await;
        let end = store.next_lease_end(&job.queue).await.unwrap();
        assert_eq!(end, Some(renewed), "the end of a renewed lease reads back otherwise");
        // Claimed twice more, so that the number of attempts equals no other number.
        let lease_until = lease_until.plus(Duration::from_micros(2));
        for attempt in 2..=3 {
            let found = claimed(&store, claim_abandoned(&job.queue, lease_until, lease_until, token)).await;
            let leased = NewJob { due_at: lease_until, ..job.clone() };
            let expected = [ClaimedJob { job: leased, attempt, claim: token }];
            assert!(found == expected, "an abandoned job reads back otherwise:\n{found:?}\n{expected:?}");
        }
        let error = if n == 0 { long_text("E", 32 * 1024) } else { "Ö 👋 ".to_owned() };
        let bury = JobChange::Bury { id: job.id, claim: token, error: error.clone(), at: died_at };
        must(&store, bury).await;
        let found = store.dead_jobs(None, 9).await.unwrap();
        let dead =
            DeadJob { job: NewJob { due_at: lease_until, ..job.clone() }, attempts: 3, error, died_at };
        assert!(found == [dead.clone()], "a dead job reads back otherwise:\n{found:?}\n{dead:?}");
        must(&store, JobChange::PurgeDead { before: died_at.plus(Duration::from_micros(1)), cap: 9 }).await;
    }
}

/// Statistics count ready, waiting and dead jobs and contain the next due time.
pub async fn j11_statistics_count_jobs_by_state(store: impl Store) {
    let world = World::default();
    let now = world.now();
    let stats = async |queue: &str, now, expected: QueueStats| {
        let found = store.queue_stats(queue, now).await.unwrap();
        assert_eq!(found, expected, "statistics count other jobs, or another next due time");
    };
    stats("q", now, QueueStats::default()).await;
    let dead = [world.job("q"), world.job("q"), world.job("q"), world.job("q")];
    all(&store, dead.iter().map(enqueue).collect()).await;
    claim(&store, "q", now, 30, 1).await;
    for job in &dead {
        bury(&store, job.id, 1, now).await;
    }
    // A job of another queue in each state.
    let others = [world.job("r"), world.job("r")];
    all(&store, others.iter().map(enqueue).collect()).await;
    claim(&store, "r", now, 5, 1).await;
    bury(&store, others[0].id, 1, now).await;
    let early = NewJob { due_at: EARLY, ..world.job("r") };
    all(&store, vec![enqueue(&early), enqueue(&NewJob { due_at: LATE, ..world.job("r") })]).await;
    stats("q", now, QueueStats { ready: 0, waiting: 0, dead: 4, next_due: None }).await;
    for due in [0, 0, 10, 50, 60] {
        all(&store, vec![enqueue(&NewJob { due_at: world.later(due), ..world.job("q") })]).await;
    }
    stats("q", now, QueueStats { ready: 2, waiting: 3, dead: 4, next_due: Some(now) }).await;
    // A leased job is waiting; when its lease ends, it is ready.
    assert_eq!(claim(&store, "q", now, 20, 2).await.len(), 2, "a claim returns other jobs than the due ones");
    stats("q", now, QueueStats { ready: 0, waiting: 5, dead: 4, next_due: Some(world.later(10)) }).await;
    claim(&store, "q", world.later(10), 90, 3).await;
    let leased = QueueStats { ready: 0, waiting: 5, dead: 4, next_due: Some(world.later(20)) };
    stats("q", world.later(19), leased).await;
    stats("q", world.later(20), QueueStats { ready: 2, waiting: 3, ..leased }).await;
    stats("q", world.later(60), QueueStats { ready: 4, waiting: 1, ..leased }).await;
    let other = QueueStats { ready: 2, waiting: 1, dead: 1, next_due: Some(EARLY) };
    stats("r", world.later(5), other).await;
}

/// A deferred job is due at the given time with the attempts that it had before the claim.
pub async fn j12_deferred_claim_counts_no_attempt(store: impl Store) {
    let world = World::default();
    let job = NewJob { due_at: EARLY, ..world.job("q") };
    all(&store, vec![enqueue(&job)]).await;
    let first = claim_one(&store, "q", world.now(), 1).await;
    must(&store, JobChange::Retry { id: job.id, claim: 1, due_at: world.later(1) }).await;
    let mut now = world.later(1);
    for due_at in [world.later(8), EARLY, LATE] {
        let found = claim_one(&store, "q", now, 2).await;
        assert_eq!(found.attempt, 2, "a deferred claim counted an attempt, or took another one back");
        must(&store, JobChange::Defer { id: job.id, claim: 2, due_at }).await;
        let next = store.next_due("q").await.unwrap();
        assert_eq!(next, Some(due_at), "a deferred job is due at another time, or keeps its claim");
        require_lost(&store, JobChange::Finish { id: job.id, claim: 2 }, job.id).await;
        let expected = NewJob { due_at: found.job.due_at, ..first.job.clone() };
        assert_eq!(found.job, expected, "a deferred job has other fields than before");
        now = due_at;
    }
}
