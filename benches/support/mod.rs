//! Shared by the benches: a server on a separate runtime, and a load generator, on the same cores.
#![allow(dead_code, reason = "each bench uses a part of it")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench may panic, and prints its results")]

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use couple::{Backend, http::ServeOptions};
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, body::Bytes, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, runtime::Runtime, time::Instant};

/// A new folder on the disk of the build.
pub(crate) fn folder() -> PathBuf {
    let below = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/tmp");
    std::fs::create_dir_all(&below).unwrap();
    tempfile::tempdir_in(below).unwrap().keep()
}

/// A runtime with the given number of threads.
pub(crate) fn runtime(threads: usize) -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap()
}

/// Serves a backend from `runtime`; returns its address.
pub(crate) fn serve(runtime: &Runtime, backend: Backend) -> SocketAddr {
    let _inside = runtime.enter();
    let listener = couple::http::listen(([127, 0, 0, 1], 0).into()).unwrap();
    let address = listener.local_addr().unwrap();
    let app = couple::http::router(backend);
    runtime.spawn(couple::http::serve(
        listener,
        app,
        ServeOptions::default().with_max_connections_per_client(Some(usize::MAX)),
        std::future::pending(),
    ));
    address
}

/// A client with one keep-alive connection.
pub(crate) struct Client(SendRequest<Full<Bytes>>);

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    pub(crate) async fn post(&mut self, path: &str, token: Option<&str>, body: String) -> (u16, Bytes) {
        self.send(post(path, token, body)).await
    }

    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> (u16, Bytes) {
        self.0.ready().await.unwrap();
        let answer = self.0.send_request(request).await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.into_body().collect().await.unwrap().to_bytes())
    }
}

fn post(path: &str, token: Option<&str>, body: String) -> Request<Full<Bytes>> {
    let mut request = Request::post(path).header("host", "b").header("content-type", "application/json");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.body(Full::new(body.into())).unwrap()
}

/// Measured throughput and response times of a load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) per_second: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

/// Sends JSON over `connections` for `time`, at the maximum rate or at `rate` per second in total.
pub(crate) async fn load<F>(
    address: SocketAddr,
    connections: u64,
    time: Duration,
    rate: Option<f64>,
    expect: u16,
    make: F,
) -> Load
where
    F: Fn(u64) -> (&'static str, Option<String>, String) + Send + Sync + 'static,
{
    let request = move |n| {
        let (path, token, body) = make(n);
        post(path, token.as_deref(), body)
    };
    load_of(address, connections, time, rate, expect, request).await
}

/// As [`load`], with requests of any kind.
pub(crate) async fn load_of<F>(
    address: SocketAddr,
    connections: u64,
    time: Duration,
    rate: Option<f64>,
    expect: u16,
    make: F,
) -> Load
where
    F: Fn(u64) -> Request<Full<Bytes>> + Send + Sync + 'static,
{
    let (make, next, stop) = (Arc::new(make), Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let begun = Instant::now();
    let tasks: Vec<_> = (0..connections)
        .map(|lane| {
            let (make, next, stop) = (make.clone(), next.clone(), stop.clone());
            tokio::spawn(async move {
                let mut client = Client::connect(address).await;
                let mut took = Vec::new();
                let mut due = begun;
                if let Some(rate) = rate {
                    due += Duration::from_secs_f64(lane as f64 / rate);
                }
                while !stop.load(Ordering::Relaxed) {
                    // With a rate, the duration counts from the time at which the request was due.
                    let from = if let Some(rate) = rate {
                        tokio::time::sleep_until(due).await;
                        let from = due;
                        due += Duration::from_secs_f64(connections as f64 / rate);
                        from
                    } else {
                        Instant::now()
                    };
                    let (status, said) = client.send(make(next.fetch_add(1, Ordering::Relaxed))).await;
                    assert_eq!(status, expect, "{said:?}");
                    took.push(from.elapsed());
                }
                took
            })
        })
        .collect();
    tokio::time::sleep(time).await;
    stop.store(true, Ordering::Relaxed);
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await.unwrap());
    }
    let all = begun.elapsed();
    took.sort_unstable();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100];
    Load { per_second: took.len() as f64 / all.as_secs_f64(), p50: at(50), p99: at(99) }
}

/// Median of several rounds.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
