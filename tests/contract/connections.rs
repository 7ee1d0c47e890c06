//! The server loop with clients that hold connections, send slowly, or send invalid requests.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use couple::http::{HttpOptions, ServeOptions, listen, router_with, serve};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::world::World;

/// Connections that a process with 1,024 file descriptors accepts.
const CONNECTIONS: usize = 896;
/// Connections that one attacker opens.
const ATTACK: usize = 1_300;
const HEALTHZ: &str = "GET /healthz HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";

struct Server {
    world: World,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

fn start(options: ServeOptions) -> Server {
    let mut world = World::new();
    world.app = router_with(world.backend.clone(), HttpOptions::default().with_metrics(true));
    let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(serve(listener, world.app.clone(), options, async { drop(stopped.await) }));
    Server { world, address, stop: Some(stop), task }
}

fn quick() -> ServeOptions {
    ServeOptions::default().with_stop_delay(Duration::ZERO)
}

impl Server {
    /// Opens a connection from a client address.
    async fn connect(&self, client: [u8; 4]) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::from(client), 0).into()).unwrap();
        socket.connect(self.address).await.unwrap()
    }

    async fn send(&self, client: [u8; 4], text: &str) -> TcpStream {
        let mut stream = self.connect(client).await;
        // The server may have closed a refused connection already.
        let _ = stream.write_all(text.as_bytes()).await;
        stream
    }

    async fn ask(&self, client: [u8; 4], text: &str) -> TestResponse {
        read(&mut self.send(client, text).await).await
    }

    /// Checks that another client is served promptly.
    async fn serves_another(&self) {
        for _ in 0..5 {
            let started = Instant::now();
            let answer = self.ask([127, 0, 0, 9], HEALTHZ).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            assert!(started.elapsed() < Duration::from_secs(2));
        }
    }
}

#[derive(Debug)]
struct TestResponse {
    status: u16,
    head: String,
    body: Value,
}

impl TestResponse {
    fn said(&self) -> (u16, &str) {
        (self.status, self.body["code"].as_str().unwrap_or(""))
    }
}

/// Reads until the connection ends.
async fn read(stream: &mut TcpStream) -> TestResponse {
    try_read(stream).await.expect("there is a response")
}

/// As [`read`], or none if the connection ends without a response.
async fn try_read(stream: &mut TcpStream) -> Option<TestResponse> {
    let mut bytes = Vec::new();
    let _ = timeout(Duration::from_secs(20), stream.read_to_end(&mut bytes)).await.expect("it ends");
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let body = serde_json::from_str(body).unwrap_or(Value::Null);
    Some(TestResponse { status, head: head.to_ascii_lowercase(), body })
}

fn post(path: &str, headers: &str, length: usize) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: h\r\n{headers}content-length: {length}\r\n\r\n")
}

const JSON: &str = "content-type: application/json\r\n";

/// URL of an Engine.IO session, which needs no account.
async fn engine_session(server: &Server) -> String {
    let path = "/socket.io/?EIO=4&transport=polling";
    let request = format!("GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
    let mut text = String::new();
    let mut stream = server.send([127, 0, 0, 2], &request).await;
    timeout(Duration::from_secs(5), stream.read_to_string(&mut text)).await.unwrap().unwrap();
    let sid = text.split("\"sid\":\"").nth(1).unwrap().split('"').next().unwrap();
    format!("{path}&sid={sid}")
}

#[tokio::test]
async fn stalled_bodies_of_one_client_leave_other_clients_served() {
    let server = start(quick().with_max_connections(CONNECTIONS));
    let polling = engine_session(&server).await;
    let mut held = Vec::new();
    for n in 0..ATTACK {
        let (path, kind) =
            [("/v1/accounts", JSON), (polling.as_str(), "content-type: text/plain\r\n")][n % 2];
        held.push(server.send([127, 0, 0, 2], &post(path, kind, 4_000)).await);
    }
    server.serves_another().await;
    // Only some refused connections get a response concurrently.
    let refusal = async {
        loop {
            if let Some(refused) = try_read(&mut server.send([127, 0, 0, 2], HEALTHZ).await).await {
                break assert_eq!(refused.said(), (429, "too_many_connections"));
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(Duration::from_secs(10), refusal).await.expect("a refused connection gets a response");
}

#[tokio::test]
async fn idle_connections_and_endless_heads_of_one_client_leave_other_clients_served() {
    for sent in ["", "GET /healthz HTTP/1.1\r\nhost: h\r\nx-endless: "] {
        let server = start(quick().with_max_connections(CONNECTIONS));
        let mut held = Vec::new();
        for _ in 0..ATTACK {
            held.push(server.send([127, 0, 0, 2], sent).await);
        }
        server.serves_another().await;
    }
}

/// Many clients may use all connections; those that have waited longest are closed for new ones.
#[tokio::test]
async fn idle_connections_of_many_clients_are_closed_for_new_requests() {
    let server = start(quick().with_max_connections(100));
    let mut held = Vec::new();
    for n in 0..100 {
        held.push(server.connect([127, 0, 1, n]).await);
    }
    // A connection that was just accepted is not closed, since its request may be arriving.
    sleep(Duration::from_millis(300)).await;
    server.serves_another().await;
    // A connection in use is not closed for others.
    let mut poll = {
        let (_, ben) = server.world.couple("ana@example.org", "ben@example.org").await;
        let poll = format!(
            "GET /v1/couple/live?wait=3 HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {ben}\r\nconnection: close\r\n\r\n"
        );
        server.send([127, 0, 0, 8], &poll).await
    };
    sleep(Duration::from_millis(300)).await;
    for n in 100..250 {
        held.push(server.connect([127, 0, 1, n]).await);
        if n % 50 == 0 {
            sleep(Duration::from_millis(150)).await;
        }
    }
    assert_eq!(read(&mut poll).await.status, 200);
}

/// Clients that send the head of a request, and single bytes of its body, until the result is dropped.
async fn drip(server: &Server, clients: u8, each: usize) -> tokio::task::JoinSet<()> {
    let mut drips = tokio::task::JoinSet::new();
    for client in 0..clients {
        for _ in 0..each {
            let mut stream = server.send([127, 0, 3, client], &post("/v1/accounts", JSON, 4_000)).await;
            drips.spawn(async move {
                while stream.write_all(b" ").await.is_ok() {
                    sleep(Duration::from_millis(250)).await;
                }
            });
        }
    }
    drips
}

/// Single bytes are progress, but such a body would hold its connection for a very long time.
#[tokio::test]
async fn very_slow_bodies_are_closed_for_new_requests() {
    let server = start(quick().with_max_connections(40));
    let drips = drip(&server, 40, 1).await;
    sleep(Duration::from_millis(6_500)).await;
    server.serves_another().await;
    drop(drips);
}

/// If a few addresses hold all connections, each further address gets a share, even if their requests have just begun.
#[tokio::test]
async fn networks_with_many_connections_lose_some_to_others() {
    let server = start(quick().with_max_connections(80).with_max_connections_per_client(Some(10)));
    let drips = drip(&server, 8, 10).await;
    server.serves_another().await;
    let mut others = Vec::new();
    for n in 0..30 {
        let mut other = server.send([127, 0, 4, n], "GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n").await;
        let mut start = [0; 12];
        timeout(Duration::from_secs(2), other.read_exact(&mut start)).await.unwrap().unwrap();
        assert_eq!(&start, b"HTTP/1.1 200", "{n}");
        others.push(other);
    }
    drop(drips);
}

/// A connection that is only lingering may be closed sooner.
#[tokio::test]
async fn lingering_connections_are_closed_for_new_requests() {
    let server = start(quick().with_max_connections(20));
    let mut held = Vec::new();
    for n in 0..20 {
        let mut stream = server.send([127, 0, 3, n], &post("/v1/nothing", "", 1 << 20)).await;
        let mut start = [0; 12];
        timeout(Duration::from_secs(2), stream.read_exact(&mut start)).await.unwrap().unwrap();
        assert_eq!(&start, b"HTTP/1.1 404");
        held.push(stream);
    }
    server.serves_another().await;
}

#[tokio::test]
async fn stalled_body_times_out_on_every_route() {
    let server = start(quick().with_body_timeout(Duration::from_millis(300)));
    let polling = engine_session(&server).await;
    let token = server.world.join("ana@example.org").await;
    let signed = format!("authorization: Bearer {token}\r\n");
    for (path, headers) in [
        ("/v1/accounts", JSON),
        (polling.as_str(), "content-type: text/plain\r\n"),
        ("/v1/media?purpose=photo", signed.as_str()),
    ] {
        let started = Instant::now();
        let mut stream = server.send([127, 0, 0, 2], &post(path, headers, 4_000)).await;
        let answer = read(&mut stream).await;
        assert!((400..500).contains(&answer.status), "{path}: {answer:?}");
        assert!(answer.head.contains("connection: close"), "{path}: {answer:?}");
        assert!(started.elapsed() < Duration::from_secs(15), "{path}");
    }
    let stalled = server.ask([127, 0, 0, 2], &post("/v1/accounts", JSON, 4_000)).await;
    assert_eq!(stalled.said(), (408, "body_timed_out"));
}

/// Sends a request in two halves with a pause in between; returns the response.
async fn with_silence(server: &Server, head: String, body: Vec<u8>, silence: Duration) -> TestResponse {
    let mut stream = server.send([127, 0, 0, 2], &head).await;
    let (first, second) = body.split_at(body.len() / 2);
    stream.write_all(first).await.unwrap();
    sleep(silence).await;
    stream.write_all(second).await.unwrap();
    read(&mut stream).await
}

/// A phone needs about as long to change its network.
#[tokio::test]
async fn uploads_survive_a_pause_of_ten_seconds() {
    let server = start(quick());
    let (token, _) = server.world.couple("ana@example.org", "ben@example.org").await;
    let signed = format!("authorization: Bearer {token}\r\nconnection: close\r\n");
    let silence = Duration::from_secs(10);
    let raw = crate::world::png(300, 200);
    let form = [
        b"--b\r\ncontent-disposition: form-data; name=file; filename=a.png\r\n\r\n".as_slice(),
        &crate::world::png(301, 200),
        b"\r\n--b--\r\n",
    ];
    let form = form.concat();
    let path = "/v1/media?purpose=photo";
    let multipart = format!("{signed}content-type: multipart/form-data; boundary=b\r\n");
    let (raw, form) = tokio::join!(
        with_silence(&server, post(path, &signed, raw.len()), raw, silence),
        with_silence(&server, post(path, &multipart, form.len()), form, silence),
    );
    for answer in [raw, form] {
        assert_eq!((answer.status, &answer.body["state"]), (202, &json!("processing")), "{answer:?}");
    }
}

/// 1,000 bytes per second, the rate of a bad mobile network, are enough; 25 are not.
#[tokio::test]
async fn body_at_the_minimum_rate_is_accepted_and_a_slower_one_is_not() {
    let server = start(quick().with_body_timeout(Duration::from_millis(800)));
    let padding = " ".repeat(2_000);
    let body = format!("{}{padding}", json!({"email": "ana@example.org", "display_name": "Ana"}));
    for (piece, expected) in [(250, 202), (6, 408)] {
        let head = post("/v1/accounts", &format!("{JSON}connection: close\r\n"), body.len());
        let (mut reads, mut writes) = server.send([127, 0, 0, 2], &head).await.into_split();
        let bytes = body.clone().into_bytes();
        let sends = tokio::spawn(async move {
            for piece in bytes.chunks(piece) {
                sleep(Duration::from_millis(250)).await;
                if writes.write_all(piece).await.is_err() {
                    break;
                }
            }
            writes
        });
        let mut text = String::new();
        timeout(Duration::from_secs(20), reads.read_to_string(&mut text)).await.expect("it ends").unwrap();
        assert!(text.starts_with(&format!("HTTP/1.1 {expected}")), "{piece}: {text}");
        sends.abort();
    }
}

/// Many clients send the whole body before they read the response.
#[tokio::test]
async fn refusal_reaches_a_client_that_sends_its_whole_body_first() {
    let server = start(quick());
    let token = server.world.join("ana@example.org").await;
    let signed = format!("authorization: Bearer {token}\r\n");
    let large = 14 << 20;
    for (path, headers, length, expected) in [
        ("/v1/media?purpose=photo", "", large, (401, "unauthenticated")),
        ("/v1/media?purpose=cake", signed.as_str(), large, (422, "invalid_field")),
        ("/v1/accounts", JSON, large, (413, "body_too_large")),
        ("/v1/nothing", "", large, (404, "not_found")),
        ("/v1/uploads", signed.as_str(), large, (412, "unsupported_tus_version")),
        ("/v1/media?purpose=photo", signed.as_str(), 30 << 20, (413, "body_too_large")),
    ] {
        let mut stream = server.send([127, 0, 0, 2], &post(path, headers, length)).await;
        let piece = vec![b'x'; 64 << 10];
        let mut left = length;
        while left > 0 {
            let sent =
                stream.write(&piece[..left.min(piece.len())]).await.expect("the server reads the body");
            left -= sent;
        }
        let answer = read(&mut stream).await;
        assert_eq!(answer.said(), expected, "{path}");
        assert!(answer.head.contains("connection: close"), "{path}: {answer:?}");
    }
    // A connection can be reused after a small body that its handler does not read.
    let two = format!("{}{}{HEALTHZ}", post("/v1/nothing", "", 5), "hello");
    let mut stream = server.send([127, 0, 0, 2], &two).await;
    let mut text = String::new();
    timeout(Duration::from_secs(5), stream.read_to_string(&mut text)).await.unwrap().unwrap();
    assert!(text.starts_with("HTTP/1.1 404") && text.contains("HTTP/1.1 200"), "{text}");
}

#[tokio::test]
async fn invalid_head_is_answered_with_a_problem() {
    let server = start(quick());
    let close = "connection: close\r\n\r\n";
    let long = "x".repeat(40_000);
    let client = [127, 0, 0, 2];
    for (request, expected) in [
        (format!("GET /healthz HTTP/1.1\r\n{close}"), (400, "malformed_request")),
        (format!("GET /healthz HTTP/1.1\r\nhost: a\r\nhost: b\r\n{close}"), (400, "malformed_request")),
        (format!("GET /healthz HTTP/1.1\r\nhost: a\r\nhost: a\r\n{close}"), (400, "malformed_request")),
        (format!("GET /healthz HTTP/1.1\r\nhost: a b\r\n{close}"), (400, "malformed_request")),
        (format!("GET /healthz HTTP/1.1\r\nhost: u@a\r\n{close}"), (400, "malformed_request")),
        (format!("GET /healthz HTTP/1.0\r\n{close}"), (200, "")),
        (format!("GET /healthz HTTP/1.1\r\nhost: [::1]:80\r\n{close}"), (200, "")),
        (format!("GET /healthz HTTP/1.1\r\nhost:\r\n{close}"), (200, "")),
        (format!("GET /healthz HTTP/1.1\r\nhost: h\r\nx: {long}\r\n{close}"), (431, "head_too_large")),
        (format!("nonsense{close}"), (400, "malformed_request")),
        (format!("DELETE /v1/accounts HTTP/1.1\r\nhost: h\r\n{close}"), (405, "method_not_allowed")),
    ] {
        let answer = server.ask(client, &request).await;
        assert_eq!(answer.said(), expected, "{}", request.chars().take(60).collect::<String>());
        if expected.0 >= 400 {
            assert!(answer.head.contains("content-type: application/problem+json"), "{answer:?}");
        }
        assert!(expected.0 != 405 || answer.head.contains("allow: post"), "{answer:?}");
    }
    // The same on a reused connection.
    let mut stream = server.send(client, "GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n").await;
    let mut some = [0; 16];
    stream.read_exact(&mut some).await.unwrap();
    sleep(Duration::from_millis(200)).await;
    stream.write_all(format!("GET / HTTP/1.1\r\nhost: h\r\nx: {long}\r\n\r\n").as_bytes()).await.unwrap();
    let mut text = String::new();
    timeout(Duration::from_secs(5), stream.read_to_string(&mut text)).await.unwrap().unwrap();
    assert!(text.contains("HTTP/1.1 431") && text.contains("head_too_large"), "{text}");
}

#[tokio::test]
async fn unsupported_websocket_version_gets_426() {
    let server = start(quick());
    let upgrade = "GET /v1/couple/live HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 8\r\n\r\n";
    let mut stream = server.send([127, 0, 0, 2], upgrade).await;
    stream.shutdown().await.unwrap();
    let answer = read(&mut stream).await;
    assert_eq!(answer.said(), (426, "upgrade_required"));
    for line in ["upgrade: websocket", "sec-websocket-version: 13"] {
        assert!(answer.head.contains(line), "{answer:?}");
    }
}

#[tokio::test]
async fn trailing_slash_matches_the_same_route() {
    let world = World::new();
    let token = world.join("ana@example.org").await;
    assert_eq!(world.get("/v1/me/", &token).await.text("email"), "ana@example.org");
    assert_eq!(world.get("/v1/sessions//?", &token).await.status, 200);
    assert_eq!(world.get("/v1/nothing/", &token).await.said(), (404, "not_found"));
    assert_eq!(world.call("PUT", "/v1/me/", Some(&token), None).await.said(), (405, "method_not_allowed"));
    let nested = axum::Router::new().nest("/couple", world.app.clone());
    let world = World { app: nested, ..world };
    assert_eq!(world.get("/couple/v1/me/", &token).await.text("email"), "ana@example.org");
}

/// Some mail programs escape the `#` of a link, so the server receives its token in the path.
#[tokio::test]
async fn link_with_an_escaped_fragment_redirects_to_its_page() {
    let world = World::new();
    let answer = world.call("GET", "/open/verify%23abc-DEF_123", None, None).await;
    assert_eq!(answer.status, 303);
    assert_eq!(answer.headers["location"], "verify#abc-DEF_123");
    assert_eq!(answer.headers["cache-control"], "no-store");
    for path in
        ["/open/cake%23abc", "/open/verify%23", "/open/verify%23a%0d%0ab", "/open/verify%23%2f%2fevil"]
    {
        assert_eq!(world.call("GET", path, None, None).await.said(), (404, "not_found"), "{path}");
    }
}

#[tokio::test]
async fn stopping_server_accepts_connections_during_the_stop_delay() {
    let mut server = start(ServeOptions::default().with_stop_delay(Duration::from_millis(1_500)));
    let readyz = "GET /readyz HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    let client = [127, 0, 0, 2];
    assert_eq!(server.ask(client, readyz).await.status, 200);
    server.world.backend.announce_stop();
    server.stop.take().unwrap().send(()).unwrap();
    sleep(Duration::from_millis(100)).await;
    assert_eq!(server.ask(client, readyz).await.said(), (503, "unavailable"));
    assert_eq!(server.ask(client, HEALTHZ).await.status, 200);
    timeout(Duration::from_secs(10), &mut server.task).await.expect("it stops").unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

/// Counting jobs reads all of them: frequent scrapes share one count.
#[tokio::test]
async fn scrapes_of_metrics_share_a_count_of_jobs() {
    let server = start(quick());
    let scrape = async || {
        let request = "GET /metrics HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
        let mut text = String::new();
        server.send([127, 0, 0, 2], request).await.read_to_string(&mut text).await.unwrap();
        text
    };
    let none = "couple_jobs{queue=\"mail\",state=\"ready\"} 0\n";
    assert!(scrape().await.contains(none));
    let body = json!({"email": "ana@example.org", "display_name": "Ana"});
    assert_eq!(server.world.open("/v1/accounts", body).await.status, 202);
    let again = scrape().await;
    assert!(again.contains(none), "{again}");
    assert!(again.contains("route=\"/v1/accounts\""), "the other metrics are up to date: {again}");
}

#[tokio::test]
async fn metrics_are_served_only_if_enabled() {
    let world = World::new();
    assert_eq!(world.call("GET", "/metrics", None, None).await.said(), (404, "not_found"));
    let (_, admin) = couple::http::routers(world.backend.clone(), HttpOptions::default());
    let world = World { app: admin, ..world };
    assert_eq!(world.call("GET", "/metrics", None, None).await.status, 200);
}
