//! The worker: failing, panicking, expired and scheduled jobs, and lost leases.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/observed_store.rs"]
mod observed_store;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use couple::{
    Backend, Error, ErrorKind, Keyring, ManualClock,
    core::{
        Change, Idempotency, IdempotencyChange, JobId, OutcomeRecord, digest,
        job::{
            Context, Handler, Job, JobChange, JobError, PurgeDead, PurgeDeadHandler, PurgeOutcomes,
            PurgeOutcomesHandler, Queue, Registry, Schedule, Worker, WorkerOptions,
        },
    },
    store::MemoryStore,
};
use observed_store::{ObservedStore, StoreObserver};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Deed {
    Succeed,
    FailTwice,
    Never,
    Panic,
    /// Fails with a very long error.
    Complain,
    Hang,
    /// Takes some time.
    Slow,
    /// Fails, and asks for a retry after this number of seconds.
    Later(u64),
    /// Fails because of an outage of this many seconds.
    Outage(u64),
    /// Kills its process.
    Kill,
}

impl Job for Deed {
    const NAME: &'static str = "test.deed";
    const QUEUE: &'static str = "deeds";
    const MAX_ATTEMPTS: i64 = 4;
}

/// A job of another queue.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Letter;

impl Job for Letter {
    const NAME: &'static str = "test.letter";
    const QUEUE: &'static str = "letters";
}

struct Postman(Arc<Crash>);

#[async_trait]
impl Handler<Letter> for Postman {
    async fn run(&self, _: Letter, _: &Context) -> Result<(), JobError> {
        self.0.done.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

#[derive(Clone, Default)]
struct Doer(Arc<AtomicUsize>, Arc<Crash>);

/// Outcome of jobs that run concurrently with one that kills its process.
#[derive(Default)]
struct Crash {
    died: Notify,
    done: AtomicUsize,
    most_attempts: AtomicI64,
    /// Number of slow jobs that run now, and the largest number so far.
    running: AtomicUsize,
    most_running: AtomicUsize,
}

#[async_trait]
impl Handler<Deed> for Doer {
    async fn run(&self, deed: Deed, context: &Context) -> Result<(), JobError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        let passing = || Error::new(ErrorKind::Unavailable, "do");
        match deed {
            Deed::Succeed => Ok(()),
            Deed::FailTwice if context.attempt > 2 => Ok(()),
            Deed::FailTwice => Err(JobError::RetryAfter(passing(), Duration::from_secs(60))),
            Deed::Never => Err(Error::new(ErrorKind::Rejected, "do").into()),
            Deed::Later(seconds) => Err(JobError::RetryAfter(passing(), Duration::from_secs(seconds))),
            Deed::Outage(seconds) => Err(passing().deferred(Duration::from_secs(seconds)).into()),
            Deed::Panic => panic!("a poison job"),
            Deed::Complain => {
                Err(Error::new(ErrorKind::Rejected, "do").context("é\0".repeat(100_000)).into())
            }
            Deed::Hang => std::future::pending().await,
            Deed::Slow => {
                self.1.most_attempts.fetch_max(context.attempt, Ordering::SeqCst);
                let running = self.1.running.fetch_add(1, Ordering::SeqCst) + 1;
                self.1.most_running.fetch_max(running, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(50)).await;
                self.1.running.fetch_sub(1, Ordering::SeqCst);
                self.1.done.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }
            Deed::Kill => {
                // When the other jobs have begun.
                tokio::time::sleep(Duration::from_millis(20)).await;
                self.1.died.notify_one();
                std::future::pending().await
            }
        }
    }
}

/// Counts reads, records the renewals of leases, and refuses them on request.
#[derive(Default)]
struct Watch {
    reads: AtomicUsize,
    renewals: Mutex<Vec<JobId>>,
    refuses: AtomicBool,
}

#[async_trait]
impl StoreObserver for Watch {
    async fn before(&self, what: &'static str) {
        self.reads.fetch_add(usize::from(what != "commit"), Ordering::SeqCst);
    }
    async fn after(&self, _: &'static str) {}
    fn refuse(&self, changes: &[Change]) -> Option<Error> {
        let renewed = changes.iter().find_map(|change| match change {
            Change::Job(JobChange::Renew { id, .. }) => Some(*id),
            _ => None,
        });
        self.renewals.lock().unwrap().extend(renewed);
        let refused = renewed.is_some() && self.refuses.load(Ordering::SeqCst);
        refused.then(|| Error::new(ErrorKind::Unavailable, "commit"))
    }
}

struct Shop {
    watch: Arc<Watch>,
    backend: Backend,
    clock: Arc<ManualClock>,
    done: Doer,
    worker: Worker,
}

impl Shop {
    fn new(options: WorkerOptions) -> Self {
        let (clock, done) = (Arc::new(ManualClock::default()), Doer::default());
        let watch = Arc::new(Watch::default());
        let store = ObservedStore(MemoryStore::new(), watch.clone());
        let backend = Backend::builder().store(store).keys(Keyring::new([7; 32])).clock(clock.clone());
        let backend = backend.blobs(couple::blobs::Blobs::memory()).build().unwrap();
        let registry = Registry::default().with(done.clone());
        let worker =
            Worker::new(backend.ports().clone(), registry, Vec::new(), vec![Queue::new("deeds", 4)], options);
        Self { watch, backend, clock, done, worker }
    }
    async fn enqueue(&self, deed: Deed) {
        let change = self.backend.ports().enqueue(&deed).unwrap();
        self.backend.ports().commit(vec![change]).await.unwrap();
    }
    /// Enqueues a job that purges, and runs it by a worker without schedules.
    async fn purge(&self, job: Change) {
        let ports = self.backend.ports();
        ports.commit(vec![job]).await.unwrap();
        let handlers = Registry::default()
            .with(PurgeOutcomesHandler(ports.clone()))
            .with(PurgeDeadHandler(ports.clone()));
        let queues = vec![Queue::new("default", 1)];
        let worker = Worker::new(ports.clone(), handlers, Vec::new(), queues, WorkerOptions::default());
        assert_eq!(worker.run_until_idle().await.unwrap(), 1);
    }
    fn runs(&self) -> usize {
        self.done.0.load(Ordering::SeqCst)
    }
    async fn dead(&self) -> Vec<couple::job::DeadJob> {
        self.backend.ports().store.dead_jobs(None, 9).await.unwrap()
    }
}

#[tokio::test]
async fn failed_job_is_retried_at_the_requested_time() {
    let shop = Shop::new(WorkerOptions::default());
    shop.enqueue(Deed::FailTwice).await;
    for (wait, runs) in [(0, 1), (59, 1), (1, 2), (60, 3), (999, 3)] {
        shop.clock.advance(Duration::from_secs(wait));
        shop.worker.run_until_idle().await.unwrap();
        assert_eq!(shop.runs(), runs);
    }
    assert_eq!(shop.dead().await, []);
}

#[tokio::test]
async fn job_that_meets_an_outage_is_deferred_without_using_up_attempts_until_it_is_too_old() {
    let shop = Shop::new(WorkerOptions::default());
    shop.enqueue(Deed::Outage(3_600)).await;
    let hours = usize::try_from(Deed::MAX_AGE.as_secs() / 3_600).unwrap();
    assert!(hours > usize::try_from(Deed::MAX_ATTEMPTS).unwrap());
    for runs in 1..hours {
        assert_eq!(shop.worker.run_until_idle().await.unwrap(), 1);
        shop.clock.advance(Duration::from_secs(3_599));
        assert_eq!(shop.worker.run_until_idle().await.unwrap(), 0, "the job ran too early");
        shop.clock.advance(Duration::from_secs(1));
        assert_eq!((shop.runs(), shop.dead().await), (runs, Vec::new()));
    }
    shop.worker.run_until_idle().await.unwrap();
    let dead = shop.dead().await;
    assert_eq!((dead.len(), dead[0].attempts), (1, 1), "no run but the last one was an attempt");
    assert!(dead[0].error.contains("do: unavailable"), "{}", dead[0].error);
}

#[tokio::test]
async fn rejected_job_is_dead_immediately_and_can_be_replayed() {
    let shop = Shop::new(WorkerOptions::default());
    shop.enqueue(Deed::Never).await;
    shop.worker.run_until_idle().await.unwrap();
    let dead = shop.dead().await;
    assert_eq!((dead.len(), dead[0].attempts), (1, 1));
    assert!(dead[0].error.contains("rejected"), "{}", dead[0].error);
    let now = couple::Clock::now(&*shop.clock);
    let replay =
        JobChange::Replay { id: dead[0].job.id, at: now, expires_at: now.plus(Duration::from_hours(1)) };
    shop.backend.ports().commit(vec![replay.into()]).await.unwrap();
    shop.worker.run_until_idle().await.unwrap();
    assert_eq!((shop.runs(), shop.dead().await.len()), (2, 1));
}

#[tokio::test]
async fn long_error_of_a_dead_job_is_cut_so_that_every_store_keeps_it() {
    let shop = Shop::new(WorkerOptions::default());
    shop.enqueue(Deed::Complain).await;
    shop.worker.run_until_idle().await.unwrap();
    let dead = shop.dead().await;
    let error = &dead[0].error;
    assert!((32 * 1024 - 1..=32 * 1024).contains(&error.len()), "{}", error.len());
    assert!(error.starts_with("do: rejected: é") && !error.contains('\0'));
}

#[tokio::test]
async fn panic_ends_only_its_job_which_runs_out_of_attempts() {
    let shop = Shop::new(WorkerOptions::default());
    shop.enqueue(Deed::Panic).await;
    shop.enqueue(Deed::Succeed).await;
    for _ in 0..9 {
        shop.worker.run_until_idle().await.unwrap();
        shop.clock.advance(Duration::from_hours(2));
    }
    assert_eq!(shop.runs(), 4 + 1);
    assert_eq!(shop.dead().await[0].attempts, 4);
}

#[tokio::test]
async fn dead_worker_is_replaced_and_its_late_result_is_refused() {
    let shop = Shop::new(WorkerOptions::default());
    shop.enqueue(Deed::Succeed).await;
    let store = &shop.backend.ports().store;
    let now = couple::Clock::now(&*shop.clock);
    // Claimed by a worker that dies …
    let claim = JobChange::Claim {
        queue: "deeds".to_owned(),
        now,
        lease_until: now.plus(WorkerOptions::default().lease()),
        claim: 7,
        limit: 1,
    };
    let claimed = store.commit(vec![claim.into()]).await.unwrap().into_claimed_jobs();
    shop.worker.run_until_idle().await.unwrap();
    assert_eq!(shop.runs(), 0);
    // … until its lease has expired.
    shop.clock.advance(Duration::from_secs(30));
    shop.worker.run_until_idle().await.unwrap();
    assert_eq!(shop.runs(), 1);
    let late = JobChange::Finish { id: claimed[0].job.id, claim: 7 };
    assert!(store.commit(vec![late.into()]).await.is_err());
}

/// A dying process abandons all its jobs; only the job that kills it repeatedly runs out of attempts.
#[tokio::test]
async fn job_that_kills_its_process_dies_and_the_others_complete() {
    let options = WorkerOptions::default().with_poll_interval(Duration::from_millis(20));
    let shop = Shop::new(options);
    for deed in [Deed::Slow, Deed::Slow, Deed::Kill, Deed::Slow, Deed::Slow, Deed::Slow] {
        shop.enqueue(deed).await;
    }
    let crash = shop.done.1.clone();
    let mut crashes = 0;
    tokio::time::timeout(Duration::from_secs(60), async {
        while shop.dead().await.is_empty() || crash.done.load(Ordering::SeqCst) < 5 {
            let process = shop.worker.clone().start();
            // The process ends when it is dropped, or when its jobs are done.
            if tokio::time::timeout(Duration::from_secs(1), crash.died.notified()).await.is_ok() {
                crashes += 1;
            }
            drop(process);
            shop.clock.advance(Duration::from_secs(31));
        }
    })
    .await
    .unwrap();
    assert_eq!(crashes, Deed::MAX_ATTEMPTS);
    let dead = shop.dead().await;
    assert_eq!((dead.len(), dead[0].job.payload.as_str()), (1, "\"Kill\""));
    assert!(crash.most_attempts.load(Ordering::SeqCst) <= 2, "a crash counts once for the others");
}

#[tokio::test(start_paused = true)]
async fn abandoned_job_does_not_wait_for_a_long_job_of_another_queue() {
    let alone = Duration::from_millis(300);
    let shop = Shop::new(WorkerOptions::default());
    let (ports, crash) = (shop.backend.ports(), shop.done.1.clone());
    let registry = Registry::default().with(shop.done.clone()).with(Postman(crash.clone()));
    let queues = ["deeds", "letters"].map(|queue| Queue::new(queue, 4)).to_vec();
    let options = WorkerOptions::default()
        .with_poll_interval(Duration::from_millis(10))
        .with_abandoned_isolation(alone);
    let _worker = Worker::new(ports.clone(), registry, Vec::new(), queues, options).start();
    let abandon = async |enqueue, queue: &str| {
        let now = couple::Clock::now(&*shop.clock);
        let claim = JobChange::Claim { queue: queue.to_owned(), now, lease_until: now, claim: 7, limit: 1 };
        assert_eq!(ports.commit(vec![enqueue, claim.into()]).await.unwrap().into_claimed_jobs().len(), 1);
    };
    abandon(ports.enqueue(&Deed::Hang).unwrap(), "deeds").await;
    while shop.runs() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    abandon(ports.enqueue(&Letter).unwrap(), "letters").await;
    tokio::time::sleep(alone / 2).await;
    assert_eq!(crash.done.load(Ordering::SeqCst), 0, "alone at first");
    tokio::time::timeout(Duration::from_secs(5), async {
        while crash.done.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
}

/// As after an outage of the store that lasts longer than the lease: no renewal has reached the store, and the worker reads the queue
/// before its next renewal, which is due after 10 s.
#[tokio::test]
async fn running_job_with_an_expired_lease_is_renewed_and_not_run_again() {
    let shop = Shop::new(WorkerOptions::default().with_poll_interval(Duration::from_millis(10)));
    let process = shop.worker.clone().start();
    shop.enqueue(Deed::Hang).await;
    let ports = shop.backend.ports();
    let is_leased = async || {
        let end = ports.store.next_lease_end("deeds").await.unwrap();
        end.is_some_and(|end| end > couple::Clock::now(&*shop.clock))
    };
    for _ in 0..3 {
        tokio::time::timeout(Duration::from_secs(5), async {
            while !is_leased().await || shop.runs() == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
        shop.clock.advance(Duration::from_secs(35));
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(is_leased().await, "the lease is live");
    assert_eq!(shop.runs(), 1);
    // Another worker claims the job after the end of this process.
    drop(process);
    shop.clock.advance(Duration::from_secs(31));
    let now = couple::Clock::now(&*shop.clock);
    let lease_until = now.plus(Duration::from_secs(30));
    let claim = JobChange::ClaimAbandoned { queue: "deeds".to_owned(), now, lease_until, claim: 7 };
    let claimed = ports.commit(vec![claim.into()]).await.unwrap().into_claimed_jobs();
    assert_eq!(claimed[0].attempt, 2, "the run was one attempt");
}

/// Two workers: one runs a job for ten times its lease, while the other looks for abandoned jobs all the time.
#[tokio::test(start_paused = true)]
async fn job_that_runs_longer_than_its_lease_is_renewed_and_runs_once() {
    let lease = Duration::from_secs(30);
    // The first worker does not look for abandoned jobs in this time, because it renews its leases then, too.
    let shop = Shop::new(WorkerOptions::default().with_lease(lease).with_poll_interval(lease * 40));
    let (ports, registry) = (shop.backend.ports(), Registry::default().with(shop.done.clone()));
    let eager = WorkerOptions::default().with_lease(lease).with_poll_interval(Duration::from_secs(1));
    let queues = vec![Queue::new("deeds", 4)];
    shop.enqueue(Deed::Hang).await;
    let process = shop.worker.clone().start();
    while shop.runs() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let _other = Worker::new(ports.clone(), registry, Vec::new(), queues, eager).start();
    let run_for = async |seconds| {
        for _ in 0..seconds {
            shop.clock.advance(Duration::from_secs(1));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    run_for(300).await;
    assert_eq!(shop.runs(), 1, "the job ran a second time beside the first");
    // After the end of its worker nothing renews the lease.
    drop(process);
    run_for(20).await;
    assert_eq!(shop.runs(), 1, "the lease lasts for its whole duration");
    run_for(15).await;
    assert_eq!(shop.runs(), 2, "the job of the dead worker is not taken over");
}

#[tokio::test]
async fn recorded_outcomes_are_purged_when_they_have_expired() {
    let shop = Shop::new(WorkerOptions::default());
    let ports = shop.backend.ports();
    let now = couple::Clock::now(&*shop.clock);
    let scope = |n: u32| digest(&[&n.to_be_bytes()]);
    // More than one purging commit removes.
    let record = |n: u32| {
        let request = digest(&[b"request"]);
        let expires_at = now.plus(Idempotency::RETENTION + Duration::from_secs(u64::from(n / 1_001)));
        let outcome = String::from("{}");
        let record = OutcomeRecord { scope: scope(n), request, outcome, recorded_at: now, expires_at };
        IdempotencyChange::Record(record).into()
    };
    ports.commit((0..=1_001).map(record).collect()).await.unwrap();
    let left_after_purge = async || {
        shop.purge(ports.enqueue(&PurgeOutcomes {}).unwrap()).await;
        let mut left = Vec::new();
        for n in 0..=1_001 {
            left.extend(ports.store.outcome(&scope(n)).await.unwrap().map(|_| n));
        }
        left
    };
    shop.clock.advance(Idempotency::RETENTION - Duration::from_secs(1));
    assert_eq!(left_after_purge().await.len(), 1_002, "purged before the end of the retention");
    shop.clock.advance(Duration::from_millis(1_500));
    assert!(left_after_purge().await == [1_001], "all but the one that has not expired");
    shop.clock.advance(Duration::from_secs(1));
    assert_eq!(left_after_purge().await, [0; 0]);
}

#[tokio::test]
async fn dead_jobs_are_purged_after_thirty_days() {
    let shop = Shop::new(WorkerOptions::default());
    let ports = shop.backend.ports();
    for _ in 0..501 {
        shop.enqueue(Deed::Never).await;
    }
    shop.worker.run_until_idle().await.unwrap();
    shop.clock.advance(Duration::from_hours(1));
    shop.enqueue(Deed::Never).await;
    shop.worker.run_until_idle().await.unwrap();
    let dead_after_purge = async || {
        shop.purge(ports.enqueue(&PurgeDead {}).unwrap()).await;
        ports.store.dead_jobs(None, 1_000).await.unwrap().len()
    };
    shop.clock.advance(Duration::from_hours(30 * 24 - 2));
    assert_eq!(dead_after_purge().await, 502, "an operator has thirty days to replay a job");
    shop.clock.advance(Duration::from_hours(1) + Duration::from_secs(1));
    assert_eq!(dead_after_purge().await, 1);
    shop.clock.advance(Duration::from_hours(1));
    assert_eq!(dead_after_purge().await, 0);
}

#[tokio::test]
async fn expired_job_is_not_run() {
    let shop = Shop::new(WorkerOptions::default());
    shop.enqueue(Deed::Succeed).await;
    shop.clock.advance(Deed::MAX_AGE);
    shop.worker.run_until_idle().await.unwrap();
    assert_eq!(shop.runs(), 0);
    assert!(shop.dead().await[0].error.contains("too old"));
}

#[tokio::test]
async fn job_run_has_a_deadline() {
    let shop = Shop::new(WorkerOptions::default().with_run_timeout(Duration::from_millis(50)));
    shop.enqueue(Deed::Hang).await;
    shop.worker.run_until_idle().await.unwrap();
    let stats =
        shop.backend.ports().store.queue_stats("deeds", couple::Clock::now(&*shop.clock)).await.unwrap();
    assert_eq!((shop.runs(), stats.ready + stats.waiting), (1, 1));
}

#[tokio::test]
async fn started_worker_is_woken_and_can_be_stopped() {
    let shop = Shop::new(WorkerOptions::default());
    let handle = shop.worker.clone().start();
    tokio::time::sleep(Duration::from_millis(50)).await;
    shop.enqueue(Deed::Succeed).await;
    // Long before its next poll.
    tokio::time::timeout(Duration::from_secs(3), async {
        while shop.runs() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    tokio::time::timeout(Duration::from_secs(3), handle.stop(Duration::from_secs(2))).await.unwrap();
    shop.enqueue(Deed::Succeed).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(shop.runs(), 1);
}

#[tokio::test(start_paused = true)]
async fn idle_worker_stops_immediately() {
    let shop = Shop::new(WorkerOptions::default());
    let handle = shop.worker.clone().start();
    tokio::time::sleep(Duration::from_millis(10)).await;
    let start = tokio::time::Instant::now();
    handle.stop(Duration::from_mins(1)).await;
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[test]
fn text_of_a_registry_has_the_names_of_its_jobs() {
    let registry = Registry::default().with(Doer::default());
    assert_eq!(format!("{registry:?}"), format!("{{{:?}}}", Deed::NAME));
}

#[tokio::test(start_paused = true)]
async fn scheduled_job_is_queued_once() {
    let clock = Arc::new(ManualClock::default());
    let backend = Backend::builder().clock(clock.clone()).build().unwrap();
    // Two processes have the same schedules.
    let handles = [backend.worker().start(), backend.worker().start()];
    tokio::time::sleep(Duration::from_millis(200)).await;
    for handle in handles {
        handle.stop(Duration::from_secs(1)).await;
    }
    let waiting = async || {
        let now = couple::Clock::now(&*clock);
        let stats = backend.ports().store.queue_stats("default", now).await.unwrap();
        stats.ready + stats.waiting
    };
    assert_eq!(waiting().await, 8);
    clock.advance(Duration::from_hours(25));
    backend.worker().run_until_idle().await.unwrap();
    assert_eq!(waiting().await, 8, "each waits for its next time");
}

#[tokio::test(start_paused = true)]
async fn idle_queue_is_read_once_per_poll_interval() {
    let shop = Shop::new(WorkerOptions::default().with_poll_interval(Duration::from_secs(10)));
    let _process = shop.worker.clone().start();
    tokio::time::sleep(Duration::from_secs(5)).await;
    shop.watch.reads.store(0, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(1_000)).await;
    let reads = shop.watch.reads.load(Ordering::SeqCst);
    // Every 5 to 10 s, at random: two reads for due jobs, and one for abandoned ones.
    assert!((3 * 115..=3 * 160).contains(&reads), "{reads} reads in 1,000 s");
}

#[tokio::test(start_paused = true)]
async fn worker_waits_for_the_time_at_which_a_job_is_due() {
    let shop = Shop::new(WorkerOptions::default().with_poll_interval(Duration::from_hours(1)));
    let _process = shop.worker.clone().start();
    tokio::time::sleep(Duration::from_millis(10)).await;
    let ports = shop.backend.ports();
    let due = ports.now().plus(Duration::from_secs(30));
    let job = couple::job::NewJob::at(&Deed::Succeed, due, ports).unwrap();
    ports.commit(vec![JobChange::Enqueue(job).into()]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    shop.clock.advance(Duration::from_secs(30));
    tokio::time::sleep(Duration::from_millis(29_900)).await;
    assert_eq!(shop.runs(), 0);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(shop.runs(), 1);
}

#[tokio::test(start_paused = true)]
async fn queue_runs_its_maximum_number_of_jobs_concurrently() {
    let shop = Shop::new(WorkerOptions::default());
    let (ports, crash) = (shop.backend.ports(), shop.done.1.clone());
    for _ in 0..7 {
        shop.enqueue(Deed::Slow).await;
    }
    for (concurrency, limit) in [(0, 1), (3, 3)] {
        crash.done.store(0, Ordering::SeqCst);
        let registry = Registry::default().with(shop.done.clone());
        let queues = vec![Queue::new("deeds", concurrency)];
        let handle =
            Worker::new(ports.clone(), registry, Vec::new(), queues, WorkerOptions::default()).start();
        // Jobs take 50 ms. A claim follows as soon as one has ended, not at the next poll.
        tokio::time::sleep(Duration::from_millis(120)).await;
        assert_eq!(crash.most_running.load(Ordering::SeqCst), limit);
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(crash.done.load(Ordering::SeqCst), 7, "all have run");
        handle.stop(Duration::from_secs(1)).await;
        for _ in 0..7 {
            shop.enqueue(Deed::Slow).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn lease_of_a_finished_job_is_not_renewed() {
    let shop = Shop::new(WorkerOptions::default());
    let _process = shop.worker.clone().start();
    shop.enqueue(Deed::Succeed).await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!((shop.runs(), shop.watch.renewals.lock().unwrap().len()), (1, 0));
    shop.enqueue(Deed::Hang).await;
    tokio::time::sleep(Duration::from_millis(60_500)).await;
    let renewals = shop.watch.renewals.lock().unwrap().len();
    assert_eq!((shop.runs(), renewals), (2, 6), "once in each third of the lease");
}

/// In another order, slow commits would let the leases end that are renewed last in each round.
#[tokio::test(start_paused = true)]
async fn leases_are_renewed_in_the_order_in_which_they_end() {
    let shop = Shop::new(WorkerOptions::default().with_poll_interval(Duration::from_millis(200)));
    let ports = shop.backend.ports();
    let pass = async |duration| {
        shop.clock.advance(duration);
        tokio::time::sleep(duration).await;
    };
    // The ids have the order of their creation, the jobs fall due in the reverse order.
    let mut ids = Vec::new();
    for due in [4, 2, 0] {
        let due = ports.now().plus(Duration::from_secs(due));
        let job = couple::job::NewJob::at(&Deed::Hang, due, ports).unwrap();
        ids.insert(0, job.id);
        ports.commit(vec![JobChange::Enqueue(job).into()]).await.unwrap();
        shop.clock.advance(Duration::from_millis(10));
    }
    assert!(ids.is_sorted_by(|one, other| one > other));
    let _process = shop.worker.clone().start();
    for _ in 0..15 {
        pass(Duration::from_secs(1)).await;
    }
    assert_eq!(shop.runs(), 3);
    assert_eq!(*shop.watch.renewals.lock().unwrap(), ids);
}

/// The store accepts no renewal, but answers reads and claims: the job whose lease has expired runs in this process still.
#[tokio::test(start_paused = true)]
async fn job_is_not_taken_over_by_its_own_process_while_renewals_fail() {
    let shop = Shop::new(WorkerOptions::default().with_poll_interval(Duration::from_secs(1)));
    let _process = shop.worker.clone().start();
    shop.enqueue(Deed::Hang).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    shop.watch.refuses.store(true, Ordering::SeqCst);
    shop.clock.advance(Duration::from_secs(60));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(shop.runs(), 1, "it ran a second time beside the first");
}

#[tokio::test(start_paused = true)]
async fn result_of_a_worker_that_lost_its_lease_changes_nothing() {
    let shop = Shop::new(WorkerOptions::default());
    shop.enqueue(Deed::Slow).await;
    let process = shop.worker.clone();
    let late = tokio::spawn(async move { process.run_until_idle().await.unwrap() });
    while shop.runs() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Another worker takes the job over and holds it.
    shop.clock.advance(Duration::from_secs(31));
    let now = couple::Clock::now(&*shop.clock);
    let store = &shop.backend.ports().store;
    let registry = Registry::default().with(Holder);
    let queues = vec![Queue::new("deeds", 1)];
    let options = WorkerOptions::default().with_run_timeout(Duration::from_millis(400));
    let other = Worker::new(shop.backend.ports().clone(), registry, Vec::new(), queues, options);
    let held = tokio::spawn(async move { other.run_until_idle().await.unwrap() });
    assert_eq!(late.await.unwrap(), 1);
    let stats = store.queue_stats("deeds", now).await.unwrap();
    assert_eq!((stats.ready, stats.waiting, stats.dead), (0, 1, 0), "the job is the other worker's");
    assert_eq!(held.await.unwrap(), 1, "an abandoned job counts as a run, too");
}

/// Handler that never returns.
struct Holder;

#[async_trait]
impl Handler<Deed> for Holder {
    async fn run(&self, _: Deed, _: &Context) -> Result<(), JobError> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn job_whose_retry_would_come_after_its_expiry_is_dead() {
    let age = Deed::MAX_AGE.as_secs();
    for (wait, dead) in [(age - 1, 0), (age, 1), (age + 1, 1)] {
        let shop = Shop::new(WorkerOptions::default());
        shop.enqueue(Deed::Later(wait)).await;
        assert_eq!(shop.worker.run_until_idle().await.unwrap(), 1);
        assert_eq!(shop.dead().await.len(), dead, "a retry after {wait} s");
    }
}

#[tokio::test]
async fn job_expires_exactly_at_its_limit() {
    for (age, runs) in [(Deed::MAX_AGE - Duration::from_secs(1), 1), (Deed::MAX_AGE, 0)] {
        let shop = Shop::new(WorkerOptions::default());
        shop.enqueue(Deed::Succeed).await;
        shop.clock.advance(age);
        shop.worker.run_until_idle().await.unwrap();
        assert_eq!((shop.runs(), shop.dead().await.len()), (runs, 1 - runs));
    }
}

#[tokio::test(start_paused = true)]
async fn stopped_worker_aborts_jobs_that_outlast_the_time_it_waits() {
    let shop = Shop::new(WorkerOptions::default());
    let handle = shop.worker.clone().start();
    shop.enqueue(Deed::Hang).await;
    shop.enqueue(Deed::Slow).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    let (started, crash) = (tokio::time::Instant::now(), shop.done.1.clone());
    handle.stop(Duration::from_secs(5)).await;
    assert_eq!((started.elapsed(), crash.done.load(Ordering::SeqCst)), (Duration::from_secs(5), 1));
}

/// A job that another process abandoned is renewed like any other.
#[tokio::test(start_paused = true)]
async fn abandoned_job_that_runs_longer_than_its_lease_is_renewed_and_runs_once() {
    let shop = Shop::new(WorkerOptions::default().with_poll_interval(Duration::from_secs(1)));
    let ports = shop.backend.ports();
    let abandon = async |deed: Deed| {
        let now = couple::Clock::now(&*shop.clock);
        let queue = "deeds".to_owned();
        let claim = JobChange::Claim { queue, now, lease_until: now, claim: 7, limit: 1 };
        ports.commit(vec![ports.enqueue(&deed).unwrap(), claim.into()]).await.unwrap();
    };
    let run_for = async |seconds| {
        for _ in 0..seconds {
            shop.clock.advance(Duration::from_secs(1));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    abandon(Deed::Succeed).await;
    let process = shop.worker.clone().start();
    run_for(60).await;
    assert_eq!((shop.runs(), shop.watch.renewals.lock().unwrap().len()), (1, 0), "it has finished");
    abandon(Deed::Hang).await;
    run_for(2).await;
    let options = WorkerOptions::default().with_poll_interval(Duration::from_secs(1));
    let registry = Registry::default().with(shop.done.clone());
    let queues = vec![Queue::new("deeds", 1)];
    let _other = Worker::new(ports.clone(), registry, Vec::new(), queues, options).start();
    run_for(100).await;
    assert_eq!(shop.runs(), 2, "the job ran a second time beside the first");
    drop(process);
}

/// A job of a schedule, which always dies.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Doomed {}

impl Job for Doomed {
    const NAME: &'static str = "test.doomed";
    const QUEUE: &'static str = "deeds";
    fn dedupe_key(&self) -> Option<String> {
        Some(Self::NAME.to_owned())
    }
}

#[tokio::test]
async fn scheduled_job_that_died_is_enqueued_for_its_next_time() {
    let shop = Shop::new(WorkerOptions::default());
    let ports = shop.backend.ports();
    let registry =
        Registry::default().with_fn(async |_: Doomed, _| Err(Error::new(ErrorKind::Rejected, "do").into()));
    let schedules = vec![Schedule::every(Duration::from_hours(1), || Doomed {})];
    let queues = vec![Queue::new("deeds", 1)];
    let worker = Worker::new(ports.clone(), registry, schedules, queues, WorkerOptions::default());
    worker.check().unwrap();
    ports.commit(vec![ports.enqueue(&Doomed {}).unwrap()]).await.unwrap();
    assert_eq!(worker.run_until_idle().await.unwrap(), 1);
    let now = couple::Clock::now(&*shop.clock);
    let stats = ports.store.queue_stats("deeds", now).await.unwrap();
    assert_eq!((stats.waiting, stats.dead), (1, 1));
    assert_eq!(stats.next_due, Some(now.plus(Duration::from_hours(1))));
}
