//! Life of a process: roles, the order in which it ends, and failures of its parts.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use couple::{
    Backend, BackendBuilder, ErrorKind, Keyring, Role,
    blobs::Blobs,
    core::live::{Bus, Notice, Subscription, Topic},
    http::{HttpOptions, ServeOptions},
    job::{Context, Job, Queue, WorkerOptions},
    store::{MemoryBus, MemoryStore},
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::{sleep, timeout},
};

/// Job that runs until the test lets it end.
#[derive(Serialize, Deserialize)]
struct Long {}

impl Job for Long {
    const NAME: &'static str = "host.long";
    const QUEUE: &'static str = "long";
}

/// State that the runs of `Long` share with the test.
#[derive(Default)]
struct Runs {
    started: Notify,
    may_end: Notify,
    done: AtomicUsize,
}

fn host(runs: &Arc<Runs>) -> BackendBuilder {
    let runs = runs.clone();
    Backend::builder().queue(Queue::new("long", 1)).jobs(move |jobs, _| {
        let runs = runs.clone();
        jobs.with_fn(move |_: Long, _: Context| {
            let runs = runs.clone();
            async move {
                runs.started.notify_one();
                runs.may_end.notified().await;
                runs.done.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }
        })
    })
}

/// Status of a request through a new connection.
async fn status(address: std::net::SocketAddr, path: &str) -> u16 {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    response.split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn process_ends_its_parts_in_order() {
    let runs = Arc::<Runs>::default();
    let backend = host(&runs).build().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = couple::http::router_with(backend.clone(), HttpOptions::default());
    let options = ServeOptions::default().with_stop_delay(Duration::from_secs(2));
    let shutdown = Arc::new(Notify::new());
    let told = shutdown.clone();
    let service = backend.service(Role::All).with_listener(listener, router, options);
    let process = tokio::spawn(async move { service.run(told.notified()).await });
    assert_eq!(status(address, "/readyz").await, 200);
    backend.enqueue(&Long {}).await.unwrap();
    runs.started.notified().await;
    shutdown.notify_one();
    // Connections are still accepted, and readiness says that they should go elsewhere.
    while status(address, "/readyz").await != 503 {
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(status(address, "/healthz").await, 200);
    // The job in progress may end.
    assert!(!process.is_finished());
    runs.may_end.notify_one();
    timeout(Duration::from_secs(20), process).await.unwrap().unwrap().unwrap();
    assert_eq!(runs.done.load(Ordering::SeqCst), 1);
    assert!(TcpStream::connect(address).await.is_err(), "nothing listens any more");
}

#[tokio::test]
async fn second_signal_aborts_requests_in_progress() {
    let backend = Backend::builder().build().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = couple::http::router(backend.clone());
    let options = ServeOptions::default().with_stop_delay(Duration::from_mins(5));
    let service = backend.service(Role::Api).with_listener(listener, router, options);
    let service = service.with_abort(sleep(Duration::from_millis(20)));
    timeout(Duration::from_secs(20), service.run(async {})).await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn worker_role_runs_its_queues_only() {
    let runs = Arc::<Runs>::default();
    let backend = host(&runs).build().unwrap();
    for (role, text) in [(Role::Worker(vec!["cake".into()]), "no queue cake"), (Role::Api, "")] {
        match backend.worker_of(&role) {
            Ok(worker) => assert!(worker.is_none() && role == Role::Api),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Misconfigured);
                assert!(error.to_string().contains(text) && role != Role::Api, "{error}");
            }
        }
    }
    runs.may_end.notify_one();
    backend.enqueue(&Long {}).await.unwrap();
    let worker = |queue: &str| backend.worker_of(&Role::Worker(vec![queue.into()])).unwrap().unwrap();
    assert_eq!(worker("mail").run_until_idle().await.unwrap(), 0);
    assert_eq!(worker("long").run_until_idle().await.unwrap(), 1);
    // The process of an unknown role does not start.
    assert!(backend.run(Role::Worker(vec!["cake".into()]), std::future::pending()).await.is_err());
}

/// Bus that panics when a worker subscribes to a queue.
struct BrokenBus(MemoryBus);

#[async_trait]
impl Bus for BrokenBus {
    async fn publish(&self, topic: Topic, notice: Notice) {
        self.0.publish(topic, notice).await;
    }
    async fn subscribe(&self, topics: Vec<Topic>) -> Box<dyn Subscription> {
        assert_ne!(topics, [Topic::Queue("long".into())], "the bus is broken");
        self.0.subscribe(topics).await
    }
}

#[tokio::test]
async fn process_whose_worker_fails_ends_with_the_reason() {
    let backend = host(&Arc::default()).bus(BrokenBus(MemoryBus::new())).build().unwrap();
    let mut worker = backend.worker().start();
    let failed = timeout(Duration::from_secs(20), worker.failed()).await.unwrap();
    assert!(failed.to_string().contains("queue long"), "{failed}");
    worker.stop(Duration::from_secs(1)).await;
    let ended =
        timeout(Duration::from_secs(20), backend.run(Role::All, std::future::pending())).await.unwrap();
    let error = ended.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(error.to_string().contains("queue long"), "{error}");
    assert!(backend.is_stopping(), "readiness says so");
}

#[tokio::test]
async fn dropped_worker_abandons_its_jobs() {
    let runs = Arc::<Runs>::default();
    let store = Arc::new(MemoryStore::new());
    let options = WorkerOptions::default()
        .with_lease(Duration::from_millis(100))
        .with_poll_interval(Duration::from_millis(50));
    let builder = host(&runs).store(store).keys(Keyring::new([7; 32])).blobs(Blobs::memory()).worker(options);
    let backend = builder.build().unwrap();
    let worker = backend.worker().start();
    backend.enqueue(&Long {}).await.unwrap();
    runs.started.notified().await;
    drop(worker);
    // The aborted run neither ends nor renews its lease: another worker runs the job.
    let other = backend.worker().start();
    timeout(Duration::from_secs(20), runs.started.notified()).await.unwrap();
    runs.may_end.notify_one();
    while runs.done.load(Ordering::SeqCst) == 0 {
        sleep(Duration::from_millis(5)).await;
    }
    other.stop(Duration::from_secs(5)).await;
    assert_eq!(runs.done.load(Ordering::SeqCst), 1, "the aborted run did not end");
}
