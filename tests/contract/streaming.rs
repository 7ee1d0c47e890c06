//! Responses that wait, as bytes on the wire: their framing, and reuse of the connection afterwards.

use std::time::Duration;

use couple::http::{ServeOptions, serve};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpSocket, TcpStream},
    time::{sleep, timeout},
};

use crate::socket::Served;

/// Timeout that is long enough on a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(10);

/// A raw connection.
struct Wire<S = TcpStream>(BufReader<S>);

impl Wire {
    async fn new(served: &Served) -> Self {
        Self(BufReader::new(TcpStream::connect(served.address).await.unwrap()))
    }

    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }
}

impl<S: AsyncRead + Unpin> Wire<S> {
    async fn line(&mut self) -> String {
        let line = self.plain_line().await;
        line.strip_suffix("\r\n").unwrap_or_else(|| panic!("no line: {line:?}")).to_owned()
    }

    /// Reads a head as lines in lower case, the status first.
    async fn head(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let line = self.line().await.to_ascii_lowercase();
            if line.is_empty() {
                return lines;
            }
            lines.push(line);
        }
    }

    /// Reads the head of a chunked response.
    async fn begins(&mut self) -> Vec<String> {
        let head = self.head().await;
        assert_eq!(head[0], "http/1.1 200 ok");
        assert!(head.contains(&"transfer-encoding: chunked".to_owned()), "{head:?}");
        assert!(head.iter().filter(|line| line.starts_with("date: ")).count() == 1, "{head:?}");
        assert!(!head.iter().any(|line| line.starts_with("content-length")), "{head:?}");
        head
    }

    /// Reads one chunk (RFC 9112, 7.1); the last one is empty.
    async fn chunk(&mut self) -> String {
        let line = self.line().await;
        let size = usize::from_str_radix(&line, 16).unwrap_or_else(|_| panic!("no size: {line:?}"));
        let mut data = vec![0; size + 2];
        timeout(SOON, self.0.read_exact(&mut data)).await.expect("a chunk in time").unwrap();
        assert!(data.ends_with(b"\r\n"));
        data.truncate(size);
        String::from_utf8(data).unwrap()
    }

    /// Reads all chunks up to the last.
    async fn chunks(&mut self) -> String {
        let mut all = String::new();
        loop {
            match self.chunk().await {
                chunk if chunk.is_empty() => return all,
                chunk => all.push_str(&chunk),
            }
        }
    }

    /// Reads events until one contains `word`.
    async fn event(&mut self, word: &str) -> String {
        loop {
            let chunk = self.chunk().await;
            assert!(!chunk.is_empty(), "the end, and no {word}");
            if chunk.contains(word) {
                return chunk;
            }
        }
    }

    /// Reads a response of known length: its status and body.
    async fn whole(&mut self) -> (String, Value) {
        let head = self.head().await;
        let length = head.iter().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        let mut body = vec![0; length.parse().unwrap()];
        timeout(SOON, self.0.read_exact(&mut body)).await.expect("a body in time").unwrap();
        (head[0].clone(), serde_json::from_slice(&body).unwrap_or_default())
    }

    /// Reads until the server closes.
    async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        let _ = timeout(SOON, self.0.read_to_end(&mut rest)).await.expect("it ends");
        String::from_utf8(rest).unwrap()
    }

    /// Reads a line of a stream that is not chunked.
    async fn plain_line(&mut self) -> String {
        let mut line = String::new();
        timeout(SOON, self.0.read_line(&mut line)).await.expect("a line in time").unwrap();
        line
    }

    async fn says_nothing(&mut self) {
        let more = timeout(Duration::from_millis(100), self.0.fill_buf()).await;
        assert!(more.is_err(), "{more:?}");
    }
}

fn get(path: &str, token: &str, more: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {token}\r\n{more}\r\n")
}

fn poll(token: &str) -> String {
    get("/v1/couple/live?wait=40", token, "")
}

fn events(token: &str) -> String {
    get("/v1/couple/live?presence=off", token, "accept: text/event-stream\r\n")
}

#[tokio::test]
async fn connection_is_kept_after_a_poll() {
    let served = Served::new();
    let (ana, ben) = served.world.couple("ana@example.org", "ben@example.org").await;
    let mut wire = Wire::new(&served).await;
    for n in 0..3 {
        wire.send(&poll(&ben)).await;
        // The head is sent immediately; then the poll waits.
        let head = wire.begins().await;
        assert!(head.contains(&"content-type: application/json".to_owned()), "{head:?}");
        served.until_open(1).await;
        wire.says_nothing().await;
        served.world.say(&ana, &n.to_string()).await;
        let received: Value = serde_json::from_str(&wire.chunks().await).unwrap();
        assert_eq!(received["frames"][0]["entry"]["body"]["text"], n.to_string());
        wire.send(&get("/v1/me", &ben, "")).await;
        let (status, me) = wire.whole().await;
        assert_eq!((status.as_str(), &me["email"]), ("http/1.1 200 ok", &json!("ben@example.org")));
    }
}

#[tokio::test]
async fn requests_pipelined_after_a_poll_are_answered_after_it() {
    let served = Served::new();
    let (ana, ben) = served.world.couple("ana@example.org", "ben@example.org").await;
    let me = get("/v1/me", &ben, "");
    let (first, second) = me.split_at(30);
    let mut wire = Wire::new(&served).await;
    // Requests before it, in the same write, and in parts while it waits.
    wire.send(&format!("{me}{}{me}{first}", poll(&ben))).await;
    assert_eq!(wire.whole().await.0, "http/1.1 200 ok");
    wire.begins().await;
    served.until_open(1).await;
    wire.send(second).await;
    wire.says_nothing().await;
    served.world.say(&ana, "hello").await;
    assert!(wire.chunks().await.contains("hello"));
    for _ in 0..2 {
        assert_eq!(wire.whole().await.1["email"], "ben@example.org");
    }
    // More than the server reads ahead: no byte is lost.
    let many = 700;
    wire.send(&format!("{}{}", poll(&ben), "GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n".repeat(many))).await;
    wire.begins().await;
    served.world.say(&ana, "again").await;
    assert!(wire.chunks().await.contains("again"));
    for _ in 0..many {
        assert_eq!(wire.whole().await.1["status"], "ok");
    }
    // An invalid request is refused when it is read.
    wire.send(&format!("{}\0 what\r\n\r\n", poll(&ben))).await;
    wire.begins().await;
    served.world.say(&ana, "still").await;
    assert!(wire.chunks().await.contains("still"));
    assert!(wire.rest().await.starts_with("HTTP/1.1 400"));
}

/// The head of a waiting response may itself wait for a client that is slow to read.
#[tokio::test]
async fn head_for_a_slow_client_is_not_lost() {
    let served = Served::new();
    let (ana, ben) = served.world.couple("ana@example.org", "ben@example.org").await;
    // Small buffers on both ends, so that writes often stop, at any position.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(4 * 1024).unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let listener = socket.listen(16).unwrap();
    let address = listener.local_addr().unwrap();
    let options = ServeOptions::default();
    let server = tokio::spawn(serve(listener, served.world.app.clone(), options, std::future::pending()));
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 * 1024).unwrap();
    let (reads, mut writes) = socket.connect(address).await.unwrap().into_split();
    let many = 300;
    let at_once = get("/v1/couple/live?wait=0", &ben, "").repeat(many);
    let requests = format!("{at_once}{}{}", poll(&ben), get("/v1/me", &ben, ""));
    let asks = tokio::spawn(async move {
        writes.write_all(requests.as_bytes()).await.unwrap();
        writes
    });
    let mut wire = Wire(BufReader::with_capacity(512, reads));
    for _ in 0..many {
        sleep(Duration::from_millis(1)).await;
        wire.begins().await;
        assert!(wire.chunks().await.starts_with(r#"{"frames":[],"#));
    }
    wire.begins().await;
    served.until_open(1).await;
    served.world.say(&ana, "at-last").await;
    assert!(wire.chunks().await.contains("at-last"));
    assert_eq!(wire.whole().await.1["email"], "ben@example.org");
    drop(asks.await.unwrap());
    server.abort();
}

/// Each event is a chunk or a part of one, and the last chunk ends the stream.
#[tokio::test]
async fn events_are_chunked_and_the_connection_is_kept() {
    let served = Served::new();
    let (ana, ben) = served.world.couple("ana@example.org", "ben@example.org").await;
    let mut wire = Wire::new(&served).await;
    wire.send(&events(&ben)).await;
    let head = wire.begins().await;
    for line in
        ["content-type: text/event-stream", "x-accel-buffering: no", "x-content-type-options: nosniff"]
    {
        assert!(head.iter().any(|header| header == line), "{line} is not in {head:?}");
    }
    assert!(wire.event("caught_up").await.contains("retry: "));
    for text in ["short", &"long".repeat(3_000)] {
        let entry = json!({"client_id": text.len().to_string(), "kind": "text", "body": {"text": text}});
        assert_eq!(served.world.post("/v1/couple/entries", &ana, entry).await.status, 201);
        let event = wire.event(text).await;
        assert!(event.starts_with("data: ") && event.ends_with("\n\n"), "{event}");
    }
    served.world.call("DELETE", "/v1/sessions/current", Some(&ben), None).await;
    assert!(wire.event("bye").await.contains("signed_out"));
    assert_eq!(wire.chunk().await, "");
    served.until_open(0).await;
    wire.send(&get("/v1/me", &ana, "")).await;
    assert_eq!(wire.whole().await.1["email"], "ana@example.org");
}

#[tokio::test]
async fn disconnected_client_of_a_waiting_response_leaves_no_state() {
    let served = Served::new();
    let (_, ben) = served.world.couple("ana@example.org", "ben@example.org").await;
    for request in [poll(&ben), events(&ben)] {
        for reset in [false, true] {
            for ahead in ["", "GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n"] {
                let mut wire = Wire::new(&served).await;
                wire.send(&request).await;
                wire.begins().await;
                served.until_open(1).await;
                wire.send(ahead).await;
                let stream = wire.0.into_inner();
                if reset {
                    stream.set_zero_linger().unwrap();
                }
                drop(stream);
                served.until_open(0).await;
            }
        }
    }
}

/// HTTP/1.0 has no chunks; HEAD requests and closing connections are not kept waiting.
#[tokio::test]
async fn other_clients_are_answered_by_hyper() {
    let served = Served::new();
    let (ana, ben) = served.world.couple("ana@example.org", "ben@example.org").await;
    for (request, ends) in [(poll(&ben), "}"), (events(&ben), "\n\n")] {
        let mut wire = Wire::new(&served).await;
        wire.send(&request.replace("HTTP/1.1", "HTTP/1.0")).await;
        let head = wire.head().await;
        assert!(head[0].ends_with(" 200 ok"), "{head:?}");
        assert!(!head.iter().any(|line| line.starts_with("transfer-encoding")), "{head:?}");
        served.until_open(1).await;
        if ends == "}" {
            served.world.say(&ana, "old").await;
            let received: Value = serde_json::from_str(&wire.rest().await).unwrap();
            assert_eq!(received["frames"][0]["entry"]["body"]["text"], "old");
        } else {
            // No chunk size before it.
            assert_eq!([wire.plain_line().await, wire.plain_line().await], [": open\n", "\n"]);
            assert!(wire.plain_line().await.starts_with("data: "));
        }
        drop(wire);
        served.until_open(0).await;

        let mut wire = Wire::new(&served).await;
        wire.send(&request.replacen("GET", "HEAD", 1)).await;
        assert_eq!(wire.head().await[0], "http/1.1 200 ok");
        served.until_open(0).await;
        wire.send(&get("/v1/me", &ben, "")).await;
        assert_eq!(wire.whole().await.0, "http/1.1 200 ok", "no bytes in between");
    }
    let mut wire = Wire::new(&served).await;
    wire.send(&get("/v1/couple/live?wait=40", &ben, "connection: Keep-Alive, Close\r\n")).await;
    let head = wire.begins().await;
    assert!(head.contains(&"connection: close".to_owned()), "{head:?}");
    served.until_open(1).await;
    served.world.say(&ana, "once").await;
    assert!(wire.rest().await.contains("once"));
    // A GET request with a body.
    let mut wire = Wire::new(&served).await;
    wire.send(&get("/v1/couple/live?wait=40", &ben, "content-length: 4\r\n")).await;
    wire.send("body").await;
    wire.begins().await;
    served.until_open(1).await;
    served.world.say(&ana, "bodily").await;
    assert!(wire.chunks().await.contains("bodily"));
}

#[tokio::test]
async fn stopping_server_ends_waiting_responses() {
    let served = Served::new();
    let (ana, ben) = served.world.couple("ana@example.org", "ben@example.org").await;
    let (mut polls, mut follows) = (Wire::new(&served).await, Wire::new(&served).await);
    polls.send(&poll(&ben)).await;
    follows.send(&events(&ana)).await;
    polls.begins().await;
    follows.begins().await;
    served.until_open(2).await;
    served.stop.send(()).unwrap();
    // The server waits for responses that have begun.
    sleep(Duration::from_millis(100)).await;
    assert!(!served.task.is_finished());
    served.world.backend.live().drain();
    let received: Value = serde_json::from_str(&polls.chunks().await).unwrap();
    assert_eq!(received["frames"][0]["reason"], "draining", "{received}");
    assert!(follows.event("draining").await.contains("retry_after_ms"));
    assert_eq!(follows.chunk().await, "");
    // Then it closes: no further request is answered.
    assert_eq!(polls.rest().await + &follows.rest().await, "");
    timeout(SOON, served.task).await.expect("the server ends").unwrap();
}

/// The router alone, under axum's own server loop.
#[tokio::test]
async fn axum_serve_also_writes_waiting_responses() {
    let served = Served::new();
    let (ana, ben) = served.world.couple("ana@example.org", "ben@example.org").await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(axum::serve(listener, served.world.app.clone()).into_future());
    let mut wire = Wire(BufReader::new(TcpStream::connect(address).await.unwrap()));
    for n in 0..2 {
        wire.send(&poll(&ben)).await;
        wire.begins().await;
        served.until_open(1).await;
        served.world.say(&ana, &format!("here-{n}")).await;
        assert!(wire.chunks().await.contains(&format!("here-{n}")));
    }
    wire.send(&events(&ben)).await;
    wire.begins().await;
    wire.event("caught_up").await;
    drop(wire);
    served.until_open(0).await;
    server.abort();
}
