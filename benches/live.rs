//! Live connections: what an idle one costs the server in memory, how soon the partner has an entry, and how many are delivered
//! per second. The server is a process of its own, over the memory store, with one thread; the clients are here.
//! `COUPLE_LIVE_CONNECTIONS` sets how many there are (9,000); each side needs as many open files.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a bench says what it saw")]

mod people;
mod support;

use std::{
    io::{BufRead as _, Write as _},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use couple::{
    Backend, Call, Secret, SystemClock,
    core::limits::Unlimited,
    http::{HttpOptions, ServeOptions, listen, router_with, serve},
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

const COUPLES: usize = 500;
const ROUNDS: usize = 3;
/// Tells a server's process what it is.
const ROLE: &str = "COUPLE_LIVE_SERVER";

fn now() -> u64 {
    u64::try_from(couple::Clock::now(&SystemClock).micros()).unwrap()
}

/// The server's process: answers, and does what it reads: `RATE SECONDS`, where a rate of 0 is as fast as it can.
fn be_the_server() {
    let runtime = runtime(1);
    let inside = runtime.enter();
    let backend = Backend::builder().limits(Unlimited).build().unwrap();
    let tokens = runtime.block_on(people::seed(backend.ports(), COUPLES));
    let mut speakers = Vec::new();
    for token in tokens.iter().step_by(2) {
        let token = Secret::new(token.clone());
        let (_, account) = runtime.block_on(backend.accounts().authenticate(&token)).unwrap();
        speakers.push(account.id);
    }
    let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
    println!("{}", listener.local_addr().unwrap());
    let options = HttpOptions { live_connections: 20_000, live_per_account: 100, ..HttpOptions::default() };
    let app = router_with(backend.clone(), options);
    runtime.spawn(serve(listener, app, ServeOptions::default(), std::future::pending()));
    drop(inside);
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let (rate, seconds) = line.split_once(' ').unwrap();
        let (rate, seconds): (f64, f64) = (rate.parse().unwrap(), seconds.parse().unwrap());
        let (backend, speakers) = (backend.clone(), speakers.clone());
        let said = runtime.block_on(runtime.spawn(async move {
            let (begun, mut said) = (Instant::now(), 0_u32);
            while begun.elapsed().as_secs_f64() < seconds {
                if rate > 0.0 {
                    sleep_until(begun + Duration::from_secs_f64(f64::from(said) / rate)).await;
                } else if said.is_multiple_of(64) {
                    // Who writes without end lets others read now and then.
                    tokio::task::yield_now().await;
                }
                let speaker = speakers[said as usize % speakers.len()];
                let (client_id, body) = (format!("{}-{said}", now()), json!({ "text": now().to_string() }));
                let command = Append { couple: None, client_id, kind: "text".to_owned(), body };
                backend.timeline().append(&Call::default(), speaker, &command).await.unwrap();
                said += 1;
            }
            said
        }));
        println!("{}", said.unwrap());
    }
}

struct Server {
    child: Child,
    out: std::io::Lines<std::io::BufReader<std::process::ChildStdout>>,
    address: SocketAddr,
}

impl Server {
    fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(ROLE, "1")
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
        writeln!(self.child.stdin.as_mut().unwrap(), "{rate} {seconds}").unwrap();
        self.out.next().unwrap().unwrap().parse().unwrap()
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
}

impl Way {
    const ALL: [Self; 3] = [Self::WebSocket, Self::Events, Self::Poll];

    const fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "WebSocket",
            Self::Events => "server-sent events",
            Self::Poll => "long poll",
        }
    }

    /// Connects as the partner in couple `n`, and is answered as far as that goes.
    async fn connect(self, address: SocketAddr, n: usize) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let token = format!("bench-{}-second-0123456789", n % COUPLES);
        let more = match self {
            Self::WebSocket => {
                "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                 sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            }
            Self::Events => "accept: text/event-stream\r\n",
            Self::Poll => "",
        };
        let request = format!(
            "GET /v1/couple/live?wait=50 HTTP/1.1\r\nhost: b\r\nauthorization: Bearer {token}\r\n{more}\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        if !matches!(self, Self::Poll) {
            let (mut seen, mut buffer) = (Vec::new(), [0; 1024]);
            while !seen.windows(9).any(|window| window == b"caught_up") {
                let got = stream.read(&mut buffer).await.unwrap();
                assert!(got > 0, "{}", String::from_utf8_lossy(&seen));
                seen.extend(&buffer[..got]);
            }
        }
        stream
    }
}

/// KiB for each of so many that wait.
async fn idle(way: Way, connections: usize) -> f64 {
    let server = Server::start();
    sleep(Duration::from_millis(200)).await;
    let before = server.memory();
    let mut open = Vec::with_capacity(connections);
    for n in 0..connections {
        open.push(way.connect(server.address, n).await);
    }
    sleep(Duration::from_secs(2)).await;
    let each = server.memory().saturating_sub(before) as f64 / connections as f64;
    drop(open);
    each
}

/// The times in a piece of a stream at which its entries were written.
fn times(text: &str) -> impl Iterator<Item = u64> {
    text.split("\"text\":\"").skip(1).filter_map(|rest| rest.split('"').next()?.parse().ok())
}

/// Two devices of the partner in each couple listen; what the server says at `rate` for `seconds` comes to so many deliveries
/// per second and this p50 and p99, in milliseconds.
async fn deliver(way: Way, rate: u32, seconds: u32) -> (f64, f64, f64) {
    let mut server = Server::start();
    let (count, (sender, mut took)) = (Arc::new(AtomicUsize::new(0)), mpsc::unbounded_channel());
    for n in 0..COUPLES * 2 {
        let mut stream = way.connect(server.address, n).await;
        let (count, sender) = (count.clone(), sender.clone());
        tokio::spawn(async move {
            let (mut text, mut buffer) = (String::new(), vec![0; 16 * 1024]);
            loop {
                match stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => return,
                    Ok(got) => text.push_str(&String::from_utf8_lossy(&buffer[..got])),
                }
                let heard = now();
                // An entry may be cut in two; what is complete ends with its cursor.
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
        // What is still under way belongs to it.
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

fn main() {
    if std::env::var_os(ROLE).is_some() {
        return be_the_server();
    }
    let connections =
        std::env::var("COUPLE_LIVE_CONNECTIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(9_000);
    let clients = runtime(1);
    println!("resident memory of an idle connection at {connections}:");
    for way in Way::ALL {
        let each = (0..ROUNDS).map(|_| clients.block_on(idle(way, connections))).collect();
        println!("  {:<20} {:>6.1} KiB", way.name(), median(each));
    }
    for way in [Way::WebSocket, Way::Events] {
        let rounds: Vec<_> = (0..ROUNDS).map(|_| clients.block_on(deliver(way, 1_000, 5))).collect();
        let (p50, p99) =
            (rounds.iter().map(|round| round.1).collect(), rounds.iter().map(|round| round.2).collect());
        println!(
            "{}: 1,000 entries a second to two devices each: p50 {:.2} ms, p99 {:.2} ms",
            way.name(),
            median(p50),
            median(p99)
        );
        let most = (0..ROUNDS).map(|_| clients.block_on(deliver(way, 0, 3)).0).collect();
        println!("{}: {:.0} deliveries a second at most, with writing", way.name(), median(most));
    }
}
