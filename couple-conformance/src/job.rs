//! J1–J12: job queues.

use std::{collections::HashSet, sync::Arc, time::Duration};

use couple_core::{
    Change, Conflict, JobId, Store, Timestamp,
    job::{ClaimedJob, DeadJob, JobChange, NewJob, QueueStats},
};

use crate::world::{World, all, claim, conflict, must};

fn enqueue(job: &NewJob) -> Change {
    JobChange::Enqueue(job.clone()).into()
}

/// Concurrent claimers share out the jobs: no job is claimed twice.
pub async fn j1_job_is_claimed_once(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    all(&store, (0..200).map(|_| enqueue(&world.job("q"))).collect()).await;
    let now = world.now();
    let tasks: Vec<_> = (0..16)
        .map(|token| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut mine = Vec::new();
                loop {
                    let change = JobChange::Claim {
                        queue: "q".to_owned(),
                        now,
                        lease_until: now.plus(Duration::from_secs(30)),
                        claim: token,
                        limit: 7,
                    };
                    let claimed = must(&*store, change).await.into_claimed_jobs();
                    if claimed.is_empty() {
                        return mine;
                    }
                    mine.extend(claimed.into_iter().map(|claimed| claimed.job.id));
                }
            })
        })
        .collect();
    let mut seen = HashSet::new();
    for task in tasks {
        for id in task.await.unwrap() {
            assert!(seen.insert(id), "claimed twice");
        }
    }
    assert_eq!(seen.len(), 200);
}

/// Jobs are claimed by due time, the earliest first, and never before it.
pub async fn j2_jobs_are_claimed_in_order_of_due_time(store: impl Store) {
    let world = World::default();
    for due in [30, 10, 40, 20] {
        all(&store, vec![enqueue(&NewJob { due_at: world.later(due), ..world.job("q") })]).await;
    }
    assert_eq!(claim(&store, "q", world.later(9), 60, 1).await, []);
    assert_eq!(store.next_due("q").await.unwrap(), Some(world.later(10)));
    let change = |now, limit| JobChange::Claim {
        queue: "q".to_owned(),
        now,
        lease_until: world.later(999),
        claim: 1,
        limit,
    };
    let payloads = must(&store, change(world.later(30), 2)).await.into_claimed_jobs();
    assert_eq!(payloads.len(), 2);
    assert_eq!(store.next_due("q").await.unwrap(), Some(world.later(30)));
    assert_eq!(must(&store, change(world.later(30), 9)).await.into_claimed_jobs().len(), 1);
    assert_eq!(must(&store, change(world.later(40), 9)).await.into_claimed_jobs().len(), 1);
}

/// A leased job is not claimed before its lease ends.
///
/// Afterwards it is claimed as an abandoned job, and the claim counts an attempt.
pub async fn j3_leased_job_is_not_claimed_again(store: impl Store) {
    let world = World::default();
    let job = world.job("q");
    all(&store, vec![enqueue(&job)]).await;
    let first = claim(&store, "q", world.now(), 30, 1).await;
    assert_eq!((first[0].attempt, first[0].claim), (1, 1));
    assert_eq!(claim(&store, "q", world.later(29), 30, 2).await, []);
    must(&store, JobChange::Renew { id: job.id, claim: 1, lease_until: world.later(50) }).await;
    assert_eq!(claim(&store, "q", world.later(49), 30, 2).await, []);
    // Ordinary claims skip an abandoned job.
    let [other, third] = [world.job("q"), world.job("q")];
    all(&store, vec![enqueue(&other)]).await;
    let ids = |claimed: &[ClaimedJob]| claimed.iter().map(|one| one.job.id).collect::<Vec<_>>();
    assert_eq!(ids(&claim(&store, "q", world.later(50), 10, 3).await), [other.id]);
    assert_eq!(store.next_due("q").await.unwrap(), None);
    assert_eq!(store.next_lease_end("q").await.unwrap(), Some(world.later(50)));
    let again = |now, claim| JobChange::ClaimAbandoned {
        queue: "q".to_owned(),
        now: world.later(now),
        lease_until: world.later(now + 30),
        claim,
    };
    // Both jobs are abandoned: they are claimed one at a time, the longest abandoned first.
    all(&store, vec![enqueue(&third)]).await;
    assert_eq!(must(&store, again(49, 4)).await.into_claimed_jobs(), []);
    let second = must(&store, again(60, 5)).await.into_claimed_jobs();
    assert_eq!((ids(&second), second[0].attempt, second[0].claim), (vec![job.id], 2, 5));
    assert_eq!(second[0].job.due_at, world.later(90));
    let second = must(&store, again(60, 6)).await.into_claimed_jobs();
    assert_eq!((ids(&second), second[0].attempt), (vec![other.id], 2));
    assert_eq!(must(&store, again(60, 7)).await.into_claimed_jobs(), []);
    // A job that was given back with a result is no longer abandoned.
    must(&store, JobChange::Retry { id: job.id, claim: 5, due_at: world.later(70) }).await;
    assert_eq!(must(&store, again(80, 8)).await.into_claimed_jobs(), []);
    assert_eq!(ids(&claim(&store, "q", world.later(80), 10, 9).await), [third.id, job.id]);
}

/// A worker that has lost its claim cannot change the job.
pub async fn j4_lost_claim_cannot_change_the_job(store: impl Store) {
    let world = World::default();
    let job = world.job("q");
    all(&store, vec![enqueue(&job)]).await;
    claim(&store, "q", world.now(), 30, 1).await;
    let again = JobChange::ClaimAbandoned {
        queue: "q".to_owned(),
        now: world.later(30),
        lease_until: world.later(60),
        claim: 2,
    };
    must(&store, again).await;
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
    for change in all_of(1, id).into_iter().chain(all_of(3, id)) {
        assert_eq!(conflict(&store, change).await, Conflict::ClaimLost(id));
    }
    assert_eq!(store.dead_jobs(None, 9).await.unwrap(), []);
    must(&store, JobChange::Finish { id, claim: 2 }).await;
    for change in all_of(2, id) {
        assert_eq!(conflict(&store, change).await, Conflict::ClaimLost(id));
    }
    // A job without a claim cannot be finished.
    let unclaimed = world.job("q");
    all(&store, vec![enqueue(&unclaimed)]).await;
    let finish = JobChange::Finish { id: unclaimed.id, claim: 0 };
    assert_eq!(conflict(&store, finish).await, Conflict::ClaimLost(unclaimed.id));
}

fn job_with_key(world: &World, key: &str) -> NewJob {
    NewJob { dedupe_key: Some(key.to_owned()), ..world.job("q") }
}

/// A deduplication key has at most one live job.
pub async fn j5_deduplication_key_has_one_live_job(store: impl Store) {
    let world = World::default();
    let first = job_with_key(&world, "k");
    // Enqueue the key twice in one commit, and again in another commit together with another key.
    all(&store, vec![enqueue(&first), enqueue(&job_with_key(&world, "k"))]).await;
    all(&store, vec![enqueue(&job_with_key(&world, "k")), enqueue(&job_with_key(&world, "K"))]).await;
    let claimed = claim(&store, "q", world.now(), 30, 1).await;
    assert_eq!(claimed.len(), 2);
    all(&store, vec![enqueue(&job_with_key(&world, "k"))]).await;
    assert_eq!(claim(&store, "q", world.now(), 30, 2).await, []);
    must(&store, JobChange::Finish { id: first.id, claim: 1 }).await;
    let again = job_with_key(&world, "k");
    all(&store, vec![enqueue(&again)]).await;
    claim(&store, "q", world.now(), 30, 3).await;
    must(&store, JobChange::Bury { id: again.id, claim: 3, error: String::new(), at: world.now() }).await;
    all(&store, vec![enqueue(&job_with_key(&world, "k"))]).await;
    assert_eq!(claim(&store, "q", world.now(), 30, 4).await.len(), 1);
}

/// Finishing a job and enqueuing its key again in one commit leaves one job.
pub async fn j6_finish_and_enqueue_of_a_key_leave_one_job(store: impl Store) {
    let world = World::default();
    let first = job_with_key(&world, "k");
    all(&store, vec![enqueue(&first)]).await;
    claim(&store, "q", world.now(), 30, 1).await;
    let next = NewJob { due_at: world.later(5), ..job_with_key(&world, "k") };
    all(&store, vec![JobChange::Finish { id: first.id, claim: 1 }.into(), enqueue(&next)]).await;
    let claimed = claim(&store, "q", world.later(999), 30, 2).await;
    assert_eq!(claimed.iter().map(|claimed| claimed.job.id).collect::<Vec<_>>(), [next.id]);
}

/// A retried job is claimed at the given time, not before.
pub async fn j7_retried_job_is_due_at_the_given_time(store: impl Store) {
    let world = World::default();
    let job = world.job("q");
    all(&store, vec![enqueue(&job)]).await;
    claim(&store, "q", world.now(), 30, 1).await;
    must(&store, JobChange::Retry { id: job.id, claim: 1, due_at: world.later(7) }).await;
    let finish = JobChange::Finish { id: job.id, claim: 1 };
    assert_eq!(conflict(&store, finish).await, Conflict::ClaimLost(job.id));
    assert_eq!(claim(&store, "q", world.later(6), 30, 2).await, []);
    assert_eq!(claim(&store, "q", world.later(7), 30, 2).await[0].attempt, 2);
}

/// Dead jobs are listed, replayed and purged.
pub async fn j8_dead_jobs_are_listed_replayed_and_purged(store: impl Store) {
    let world = World::default();
    let mut ids: Vec<JobId> = Vec::new();
    for n in 0..4 {
        let job = NewJob { payload: format!("{{\"n\":{n}}}"), ..world.job("q") };
        ids.push(job.id);
        all(&store, vec![enqueue(&job)]).await;
        claim(&store, "q", world.now(), 30, n).await;
        let bury = JobChange::Bury { id: job.id, claim: n, error: format!("no {n}"), at: world.now() };
        must(&store, bury).await;
        world.clock.advance(Duration::from_secs(10));
    }
    let dead = store.dead_jobs(None, 2).await.unwrap();
    assert_eq!(dead.iter().map(|dead| dead.job.id).collect::<Vec<_>>(), ids[..2]);
    assert_eq!((dead[1].error.as_str(), dead[1].attempts), ("no 1", 1));
    let rest = store.dead_jobs(Some(ids[1]), 9).await.unwrap();
    assert_eq!(rest.iter().map(|dead| dead.job.id).collect::<Vec<_>>(), ids[2..]);
    let replay = |id| JobChange::Replay { id, at: world.now(), expires_at: world.later(60) };
    must(&store, replay(ids[1])).await;
    assert_eq!(conflict(&store, replay(ids[1])).await, Conflict::NoDeadJob(ids[1]));
    let claimed = claim(&store, "q", world.now(), 30, 9).await;
    assert_eq!((claimed[0].job.id, claimed[0].attempt), (ids[1], 1));
    assert_eq!(claimed[0].job.expires_at, world.later(60));
    let died = |n: u64| world.now().minus(Duration::from_secs(40 - n * 10));
    let purge = |before: Timestamp, cap| JobChange::PurgeDead { before, cap };
    assert_eq!(must(&store, purge(died(0), 9)).await.rows_affected(), 0);
    assert_eq!(must(&store, purge(died(3), 1)).await.rows_affected(), 1);
    assert_eq!(must(&store, purge(died(3), 9)).await.rows_affected(), 1);
    assert_eq!(store.dead_jobs(None, 9).await.unwrap().len(), 1);
}

/// Claims and reads of a queue ignore the jobs of other queues.
pub async fn j9_claim_returns_no_job_of_another_queue(store: impl Store) {
    let world = World::default();
    let [a, b] = ["a", "b"].map(|queue| world.job(queue));
    all(&store, vec![enqueue(&a), enqueue(&b)]).await;
    let claimed = claim(&store, "b", world.now(), 30, 1).await;
    assert_eq!(claimed.iter().map(|claimed| claimed.job.id).collect::<Vec<_>>(), [b.id]);
    assert_eq!(store.next_due("c").await.unwrap(), None);
    assert_eq!(claim(&store, "a", world.now(), 30, 1).await.len(), 1);
}

/// Every field of a job reads back, after a claim and in the dead-letter queue.
pub async fn j10_job_fields_read_back(store: impl Store) {
    let world = World::default();
    let job = NewJob {
        payload: r#"{"a":"👋 ' \" \\"}"#.to_owned(),
        dedupe_key: Some("kéy".to_owned()),
        max_attempts: 7,
        created_at: world.later(1),
        expires_at: world.later(500),
        ..world.job("q")
    };
    all(&store, vec![enqueue(&job)]).await;
    let claimed = claim(&store, "q", world.now(), 30, i64::MIN).await;
    let leased = NewJob { due_at: world.later(30), ..job };
    assert_eq!(claimed[0].job, leased);
    let bury = JobChange::Bury { id: leased.id, claim: i64::MIN, error: "é".to_owned(), at: world.later(2) };
    must(&store, bury).await;
    let expected = DeadJob { job: leased, attempts: 1, error: "é".to_owned(), died_at: world.later(2) };
    assert_eq!(store.dead_jobs(None, 9).await.unwrap(), [expected]);
}

/// Statistics count ready, waiting and dead jobs and contain the next due time.
pub async fn j11_statistics_count_jobs_by_state(store: impl Store) {
    let world = World::default();
    assert_eq!(store.queue_stats("q", world.now()).await.unwrap(), QueueStats::default());
    let dead = world.job("q");
    all(&store, vec![enqueue(&dead)]).await;
    claim(&store, "q", world.now(), 30, 1).await;
    must(&store, JobChange::Bury { id: dead.id, claim: 1, error: String::new(), at: world.now() }).await;
    for due in [0, 0, 50] {
        all(&store, vec![enqueue(&NewJob { due_at: world.later(due), ..world.job("q") })]).await;
    }
    let expected = QueueStats { ready: 2, waiting: 1, dead: 1, next_due: Some(world.now()) };
    assert_eq!(store.queue_stats("q", world.now()).await.unwrap(), expected);
}

/// A deferred job is due at the given time with the attempts that it had before the claim.
pub async fn j12_deferred_claim_counts_no_attempt(store: impl Store) {
    let world = World::default();
    let job = world.job("q");
    all(&store, vec![enqueue(&job)]).await;
    claim(&store, "q", world.now(), 30, 1).await;
    must(&store, JobChange::Retry { id: job.id, claim: 1, due_at: world.later(1) }).await;
    for round in 0..3 {
        let (now, due_at) = (world.later(1 + 7 * round), world.later(8 + 7 * round));
        let claimed = claim(&store, "q", now, 30, 2).await;
        assert_eq!((claimed.len(), claimed[0].attempt), (1, 2), "a deferred claim counted an attempt");
        must(&store, JobChange::Defer { id: job.id, claim: 2, due_at }).await;
        assert_eq!(store.next_due("q").await.unwrap(), Some(due_at));
        let finish = JobChange::Finish { id: job.id, claim: 2 };
        assert_eq!(conflict(&store, finish).await, Conflict::ClaimLost(job.id));
    }
}
