//! Jobs of a host: own queues and schedules, handlers that hold the backend, and configurations that are refused.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use couple::{
    Backend, BackendBuilder, Clock as _, ErrorKind, ManualClock, Timestamp,
    job::{Context, Handler, Job, JobError, Queue, Registry, Schedule, Worker, WorkerOptions},
    store::MemoryStore,
};
use serde::{Deserialize, Serialize};

/// Job in a queue of the host.
#[derive(Serialize, Deserialize)]
struct Export {
    pages: usize,
}

impl Job for Export {
    const NAME: &'static str = "host.export";
    const QUEUE: &'static str = "exports";
    fn dedupe_key(&self) -> Option<String> {
        Some(Self::NAME.to_owned())
    }
}

/// Job without a deduplication key.
#[derive(Serialize, Deserialize)]
struct Page {}

impl Job for Page {
    const NAME: &'static str = "host.page";
    const QUEUE: &'static str = "default";
}

/// Enqueues the pages of an export through the backend, and counts runs.
#[derive(Clone)]
struct Exporter {
    backend: Backend,
    pages: Arc<AtomicUsize>,
}

#[async_trait]
impl Handler<Export> for Exporter {
    async fn run(&self, job: Export, _: &Context) -> Result<(), JobError> {
        for _ in 0..job.pages {
            self.backend.enqueue(&Page {}).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Handler<Page> for Exporter {
    async fn run(&self, _: Page, _: &Context) -> Result<(), JobError> {
        self.pages.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

fn host(pages: &Arc<AtomicUsize>, clock: &Arc<ManualClock>) -> BackendBuilder {
    let pages = pages.clone();
    Backend::builder()
        .clock(clock.clone())
        .jobs(move |jobs, backend| {
            let exporter = Exporter { backend: backend.clone(), pages: pages.clone() };
            jobs.with::<Export>(exporter.clone()).with::<Page>(exporter)
        })
        .queue(Queue::new("exports", 1))
}

#[tokio::test]
async fn handler_of_a_host_runs_in_its_own_queue_and_enqueues_through_the_backend() {
    let (pages, clock) = (Arc::default(), Arc::default());
    let backend = host(&pages, &clock).build().unwrap();
    backend.enqueue(&Export { pages: 3 }).await.unwrap();
    backend.worker().run_until_idle().await.unwrap();
    assert_eq!(pages.load(Ordering::SeqCst), 3);
    // The handlers hold the backend, but the backend does not hold them.
    drop(backend);
    assert_eq!(Arc::strong_count(&pages), 1);
}

#[tokio::test(start_paused = true)]
async fn schedule_of_a_host_runs_at_its_times() {
    let (pages, clock): (Arc<AtomicUsize>, Arc<ManualClock>) = (Arc::default(), Arc::default());
    // 2026-11-30, 08:00 in UTC: a Monday, 09:00 in Berlin.
    let monday = Timestamp::from_micros(1_796_025_600_000_000);
    clock.advance(monday.since(clock.now()));
    let schedule = Schedule::cron("30 9 * * MON,TUE", "Europe/Berlin", || Export { pages: 1 }).unwrap();
    let backend = host(&pages, &clock).schedule(schedule).build().unwrap();
    let worker = backend.worker().start();
    let mut seen = Vec::new();
    for _ in 0..50 {
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
        seen.push(pages.load(Ordering::SeqCst));
        clock.advance(Duration::from_hours(1));
    }
    // Runs between 08:00 and 09:00 UTC on Monday and on Tuesday, which are observed an hour later.
    assert_eq!((seen[0], seen[1], seen[24], seen[25], seen[49]), (0, 1, 1, 2, 2), "{seen:?}");
    worker.stop(Duration::from_secs(1)).await;
    backend.close().await.unwrap();
}

#[tokio::test]
async fn jobs_that_would_never_run_are_refused() {
    let (pages, clock) = (Arc::default(), Arc::default());
    let exporter = |backend: &Backend| Exporter { backend: backend.clone(), pages: Arc::default() };
    let refused = |builder: BackendBuilder, named: &str| {
        let error = builder.build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misconfigured);
        assert!(error.to_string().contains(named), "{error}");
    };
    let unserved = Backend::builder().jobs(move |jobs, backend| jobs.with::<Export>(exporter(backend)));
    refused(unserved, "host.export is in the queue exports");
    let twice = host(&pages, &clock).jobs(move |jobs, backend| jobs.with::<Page>(exporter(backend)));
    refused(twice, "host.page has two handlers");
    let unhandled = Backend::builder().schedule(Schedule::every(Duration::from_secs(9), || Page {}));
    refused(unhandled, "host.page has a schedule and no handler");
    let hourly = || Schedule::every(Duration::from_hours(1), || Export { pages: 1 });
    refused(host(&pages, &clock).schedule(hourly()).schedule(hourly()), "host.export has two schedules");
    let without_key = Schedule::every(Duration::from_secs(9), || Page {});
    refused(host(&pages, &clock).schedule(without_key), "host.page: a scheduled job needs a dedupe_key");
    let never = Schedule::cron("0 0 30 2 *", "UTC", || Export { pages: 1 }).unwrap();
    refused(host(&pages, &clock).schedule(never), "host.export");
}

/// During a deployment an old process claims a job of the new version: it must not use up the job's attempts.
#[tokio::test]
async fn process_without_a_handler_uses_up_no_attempt() {
    let (pages, clock): (Arc<AtomicUsize>, Arc<ManualClock>) = (Arc::default(), Arc::default());
    let store = Arc::new(MemoryStore::new());
    let new = host(&pages, &clock)
        .store(store)
        .keys(couple::Keyring::new([7; 32]))
        .blobs(couple::blobs::Blobs::memory())
        .build()
        .unwrap();
    let queues = vec![Queue::new("default", 2)];
    let options = WorkerOptions::default();
    let old = Worker::new(new.ports().clone(), Registry::default(), Vec::new(), queues, options);
    new.enqueue(&Page {}).await.unwrap();
    for _ in 0..2 * Page::MAX_ATTEMPTS {
        old.run_until_idle().await.unwrap();
        clock.advance(Duration::from_mins(1));
    }
    assert_eq!(new.ports().store.dead_jobs(None, 9).await.unwrap(), []);
    new.worker().run_until_idle().await.unwrap();
    assert_eq!(pages.load(Ordering::SeqCst), 1);
}
