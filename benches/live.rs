//! Live connections: memory, delay, deliveries per second, and reconnects.
//!
//! Measures memory per idle connection, delay until the partner receives an entry, deliveries per second, and time until all clients have
//! reconnected after all were disconnected together. The server is a separate process with one thread, over the memory store, or over
//! SQLite for reconnects; the clients run in this process. `COUPLE_LIVE_CONNECTIONS` sets the number of connections (9,000); both
//! processes need as many open files. `COUPLE_LIVE_PART` runs one part: `idle`, `deliver` or `storm`.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a bench prints its results")]

#[path = "../tests/support/observed_store.rs"]
mod observed_store;
mod people;
mod support;

use std::{
    collections::HashMap,
    io::{BufRead as _, Write as _},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use couple::{
    AccountId, Backend, Keyring, RequestContext, Secret, SystemClock,
    core::limits::Unlimited,
    http::{HttpOptions, ServeOptions, listen, router_with, serve},
    store::{MemoryStore, sql::SqliteOptions},
    timeline::Append,
};
use serde_json::json;
use support::{median, runtime};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

/// Couples with connected clients, for the rate of deliveries.
const TALKING: usize = 500;
const ROUNDS: usize = 3;
/// Number of entries that reconnecting clients have missed.
const BEHIND: usize = 5;
/// Environment variable of the server process: number of couples, and whether they are stored on disk.
const ROLE: &str = "COUPLE_LIVE_SERVER";

/// Counts reads by name.
#[derive(Default)]
struct Counts(Mutex<HashMap<&'static str, usize>>);

#[async_trait::async_trait]
impl observed_store::StoreObserver for Counts {
    async fn before(&self, what: &'static str) {
        *self.0.lock().unwrap().entry(what).or_default() += 1;
    }
    async fn after(&self, _: &'static str) {}
}

fn now() -> u64 {
    u64::try_from(couple::Clock::now(&SystemClock).micros()).unwrap()
}

/// Server process: serves requests, and executes commands from standard input.
///
/// A command is `count`, or `RATE SECONDS`, where a rate of 0 is the maximum.
fn be_the_server(role: &str) {
    let runtime = runtime(1);
    let inside = runtime.enter();
    let (couples, on_disk) = role.split_once(' ').unwrap();
    let (couples, counts) = (couples.parse().unwrap(), Arc::new(Counts::default()));
    let builder = Backend::builder()
        .blobs(couple::blobs::Blobs::memory())
        .limits(Unlimited)
        .keys(Keyring::new([0; 32]));
    let backend = if on_disk == "true" {
        let store = runtime.block_on(SqliteOptions::new(support::folder().join("couple.db")).open()).unwrap();
        builder.store(observed_store::ObservedStore(store, counts.clone()))
    } else {
        builder.store(MemoryStore::new())
    };
    let backend = backend.build().unwrap();
    let tokens = runtime.block_on(people::seed(backend.ports(), couples));
    let mut speakers = Vec::new();
    for token in tokens.iter().step_by(2) {
        let token = Secret::new(token.clone());
        let (_, account) = runtime.block_on(backend.accounts().unwrap().authenticate(&token)).unwrap();
        speakers.push(account.id);
    }
    if on_disk == "true" {
        for n in 0..BEHIND {
            let all = speakers.iter().map(|speaker| say(&backend, *speaker, n));
            runtime.block_on(futures_util::future::join_all(all));
        }
        counts.0.lock().unwrap().clear();
    }
    let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
    println!("{}", listener.local_addr().unwrap());
    let options =
        HttpOptions::default().with_max_live_connections(20_000).with_max_live_connections_per_account(100);
    let app = router_with(backend.clone(), options);
    runtime.spawn(serve(
        listener,
        app,
        ServeOptions::default().with_max_connections_per_client(Some(usize::MAX)),
        std::future::pending(),
    ));
    drop(inside);
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        if line == "count" {
            let counts = counts.0.lock().unwrap();
            println!("{} {}", counts.get("entries").copied().unwrap_or(0), counts.values().sum::<usize>());
            continue;
        }
        let (rate, seconds) = line.split_once(' ').unwrap();
        let (rate, seconds): (f64, f64) = (rate.parse().unwrap(), seconds.parse().unwrap());
        let (backend, speakers) = (backend.clone(), speakers.clone());
        let said = runtime.block_on(runtime.spawn(async move {
            let (begun, mut said) = (Instant::now(), 0_u32);
            while begun.elapsed().as_secs_f64() < seconds {
                if rate > 0.0 {
                    sleep_until(begun + Duration::from_secs_f64(f64::from(said) / rate)).await;
                } else if said.is_multiple_of(64) {
                    // Yields, so that a writer without pauses does not starve readers.
                    tokio::task::yield_now().await;
                }
                say(&backend, speakers[said as usize % speakers.len()], said as usize).await;
                said += 1;
            }
            said
        }));
        println!("{}", said.unwrap());
    }
}

async fn say(backend: &Backend, speaker: AccountId, n: usize) {
    let (client_id, body) = (format!("{}-{n}", now()), json!({ "text": now().to_string() }));
    let command = Append { couple: None, client_id, kind: "text".to_owned(), body };
    backend.timeline().append(&RequestContext::default(), speaker, &command).await.unwrap();
}

struct Server {
    child: Child,
    out: std::io::Lines<std::io::BufReader<std::process::ChildStdout>>,
    address: SocketAddr,
}

impl Server {
    fn start(couples: usize, on_disk: bool) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(ROLE, format!("{couples} {on_disk}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        let address = out.next().unwrap().unwrap().parse().unwrap();
        Self { child, out, address }
    }

    /// Resident memory in KiB, proc(5).
    fn memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    fn say(&mut self, rate: u32, seconds: u32) -> u32 {
        self.ask(&format!("{rate} {seconds}")).parse().unwrap()
    }

    fn ask(&mut self, what: &str) -> String {
        writeln!(self.child.stdin.as_mut().unwrap(), "{what}").unwrap();
        self.out.next().unwrap().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Clone, Copy)]
enum Way {
    WebSocket,
    Events,
    Poll,
    SocketIo,
}

impl Way {
    const ALL: [Self; 4] = [Self::WebSocket, Self::Events, Self::Poll, Self::SocketIo];

    const fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "WebSocket",
            Self::Events => "server-sent events",
            Self::Poll => "long poll",
            Self::SocketIo => "Socket.IO",
        }
    }

    /// Connects with a token, from a cursor on, and reads the first response.
    async fn connect(self, address: SocketAddr, token: &str, after: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                       sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let (path, more) = match self {
            Self::WebSocket => ("/v1/couple/live?", upgrade),
            Self::Events => ("/v1/couple/live?", "accept: text/event-stream\r\n"),
            // Without it, the first member's poll would be answered when the second member connects.
            Self::Poll => ("/v1/couple/live?wait=50&presence=off&", ""),
            Self::SocketIo => ("/socket.io/?EIO=4&transport=websocket&", upgrade),
        };
        let request =
            format!("GET {path}{after} HTTP/1.1\r\nhost: b\r\nauthorization: Bearer {token}\r\n{more}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        if let Self::SocketIo = self {
            until(&mut stream, b"\"sid\"").await;
            // The mask is zero.
            let said = format!("40{{\"token\":\"{token}\"}}");
            let mut frame = vec![0x81, 0x80 | u8::try_from(said.len()).unwrap(), 0, 0, 0, 0];
            frame.extend(said.as_bytes());
            stream.write_all(&frame).await.unwrap();
        }
        until(&mut stream, if let Self::Poll = self { &b"\r\n\r\n"[..] } else { b"caught_up" }).await;
        stream
    }
}

/// Reads until a word has arrived.
async fn until(stream: &mut TcpStream, word: &[u8]) {
    let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
    while !seen.windows(word.len()).any(|window| window == word) {
        let got = stream.read(&mut buffer).await.unwrap();
        assert!(got > 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend(&buffer[..got]);
    }
}

/// Token of a member of couple `n`.
fn token(n: usize, which: &str) -> String {
    format!("bench-{n}-{which}-0123456789")
}

/// Token of the `n`th client; each account has one device.
fn nth(n: usize) -> String {
    token(n / 2, if n.is_multiple_of(2) { "first" } else { "second" })
}

/// Memory in KiB per idle connection; both members of each couple have one device.
async fn idle(way: Way, connections: usize) -> f64 {
    let server = Server::start(connections.div_ceil(2), false);
    sleep(Duration::from_millis(200)).await;
    let before = server.memory();
    let mut open = Vec::with_capacity(connections);
    for n in 0..connections {
        open.push(way.connect(server.address, &nth(n), "").await);
    }
    sleep(Duration::from_secs(2)).await;
    let each = server.memory().saturating_sub(before) as f64 / connections as f64;
    drop(open);
    each
}

/// Times of writing of the entries in a part of a stream.
fn times(text: &str) -> impl Iterator<Item = u64> {
    text.split("\"text\":\"").skip(1).filter_map(|rest| rest.split('"').next()?.parse().ok())
}

/// Deliveries per second, p50 and p99 in milliseconds, of entries written at `rate` for `seconds`.
///
/// Two devices of each partner are connected.
async fn deliver(way: Way, rate: u32, seconds: u32) -> (f64, f64, f64) {
    let mut server = Server::start(TALKING, false);
    let (count, (sender, mut took)) = (Arc::new(AtomicUsize::new(0)), mpsc::unbounded_channel());
    for n in 0..TALKING * 2 {
        let mut stream = way.connect(server.address, &token(n % TALKING, "second"), "").await;
        let (count, sender) = (count.clone(), sender.clone());
        tokio::spawn(async move {
            let (mut text, mut buffer) = (String::new(), vec![0; 16 * 1024]);
            loop {
                match stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => return,
                    Ok(got) => text.push_str(&String::from_utf8_lossy(&buffer[..got])),
                }
                let heard = now();
                // An entry may be incomplete; a complete one ends with its cursor.
                let whole = text.rfind("\"cursor\"").unwrap_or(0);
                for said in times(&text[..whole]) {
                    count.fetch_add(1, Ordering::Relaxed);
                    let _ = sender.send(heard.saturating_sub(said));
                }
                text.drain(..whole);
            }
        });
    }
    let (said, took_all) = tokio::task::spawn_blocking(move || {
        let begun = Instant::now();
        let said = server.say(rate, seconds);
        // Waits for entries that are still being delivered.
        while count.load(Ordering::Relaxed) < said as usize * 2 && begun.elapsed() < Duration::from_secs(120)
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        (count.load(Ordering::Relaxed), begun.elapsed())
    })
    .await
    .unwrap();
    let mut all = Vec::new();
    while let Ok(one) = took.try_recv() {
        all.push(one as f64 / 1e3);
    }
    all.sort_by(f64::total_cmp);
    let at = |percent: usize| all[(all.len() - 1) * percent / 100];
    (said as f64 / took_all.as_secs_f64(), at(50), at(99))
}

/// All clients reconnect together, each some entries behind.
///
/// Returns seconds until the last has its entries, log reads per couple, and all reads per couple.
async fn storm(connections: usize) -> (f64, f64, f64) {
    let mut server = Server::start(connections.div_ceil(2), true);
    let (address, begun) = (server.address, Instant::now());
    let all = (0..connections)
        .map(|n| tokio::spawn(async move { Way::WebSocket.connect(address, &nth(n), "after=0").await }));
    let open = futures_util::future::join_all(all).await;
    let took = begun.elapsed().as_secs_f64();
    let counts = server.ask("count");
    let (logs, reads) = counts.split_once(' ').unwrap();
    let per_couple = |count: &str| count.parse::<f64>().unwrap() * 2.0 / connections as f64;
    assert!(open.iter().all(Result::is_ok));
    (took, per_couple(logs), per_couple(reads))
}

fn main() {
    if let Ok(role) = std::env::var(ROLE) {
        return be_the_server(&role);
    }
    let connections =
        std::env::var("COUPLE_LIVE_CONNECTIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(9_000);
    let part = std::env::var("COUPLE_LIVE_PART").unwrap_or_default();
    let runs = |name: &str| part.is_empty() || part == name;
    let clients = runtime(1);
    if runs("idle") {
        println!("resident memory of an idle connection at {connections}:");
        for way in Way::ALL {
            let each = (0..ROUNDS).map(|_| clients.block_on(idle(way, connections))).collect();
            println!("  {:<20} {:>6.1} KiB", way.name(), median(each));
        }
    }
    if runs("storm") {
        for _ in 0..ROUNDS {
            let (took, logs, reads) = clients.block_on(storm(connections));
            println!(
                "{connections} come back, each {BEHIND} entries behind: {took:.1} s; for each couple its log was read {logs:.2} \
                 times, of {reads:.1} reads in all"
            );
        }
    }
    for way in [Way::WebSocket, Way::Events].into_iter().filter(|_| runs("deliver")) {
        let rounds: Vec<_> = (0..ROUNDS).map(|_| clients.block_on(deliver(way, 1_000, 5))).collect();
        let (p50, p99) =
            (rounds.iter().map(|round| round.1).collect(), rounds.iter().map(|round| round.2).collect());
        println!(
            "{}: 1,000 entries per second to two devices each: p50 {:.2} ms, p99 {:.2} ms",
            way.name(),
            median(p50),
            median(p99)
        );
        let most = (0..ROUNDS).map(|_| clients.block_on(deliver(way, 0, 3)).0).collect();
        println!("{}: {:.0} deliveries per second at most, including writes", way.name(), median(most));
    }
}
