//! Live delivery over WebSocket and server-sent events: interruptions, limits and shutdown.

use std::{net::SocketAddr, time::Duration};

use couple::http::{HttpOptions, ServeOptions, listen, router_with, serve};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, client::IntoClientRequest as _, http::HeaderValue, protocol::CloseFrame},
};

use crate::world::World;

/// A world with a server.
pub(crate) struct Served {
    pub(crate) world: World,
    pub(crate) address: SocketAddr,
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) task: JoinHandle<()>,
}

pub(crate) type Socket = WebSocketStream<TcpStream>;

impl Served {
    pub(crate) fn new() -> Self {
        Self::with(ServeOptions::default())
    }

    fn with(options: ServeOptions) -> Self {
        Self::serving(World::new(), options)
    }

    fn of(world: World) -> Self {
        Self::serving(world, ServeOptions::default())
    }

    fn serving(world: World, options: ServeOptions) -> Self {
        let http = HttpOptions::default().with_metrics(true).with_max_live_connections_per_account(300);
        Self::answering(world, http, options)
    }

    pub(crate) fn answering(mut world: World, http: HttpOptions, options: ServeOptions) -> Self {
        world.app = router_with(world.backend.clone(), http);
        let options = options.with_stop_delay(Duration::ZERO);
        let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async { drop(stopped.await) };
        let task = tokio::spawn(serve(listener, world.app.clone(), options, stopped));
        Self { world, address, stop, task }
    }

    pub(crate) async fn connect(&self, token: &str, after: &str) -> Result<Socket, Error> {
        self.connect_with(after, "authorization", &format!("Bearer {token}")).await
    }

    async fn connect_with(&self, after: &str, header: &'static str, value: &str) -> Result<Socket, Error> {
        let url = format!("ws://{}/v1/couple/live{after}", self.address);
        let mut request = url.into_client_request().unwrap();
        request.headers_mut().insert(header, HeaderValue::from_str(value).unwrap());
        let stream = TcpStream::connect(self.address).await.unwrap();
        client_async(request, stream).await.map(|(socket, _)| socket)
    }

    /// Number of live connections.
    pub(crate) async fn streams(&self) -> usize {
        let metrics = self.raw("GET /metrics HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await;
        let line = metrics.lines().find_map(|line| line.strip_prefix("couple_live_streams "));
        line.unwrap_or_else(|| panic!("no count in {metrics}")).parse().unwrap()
    }

    /// Waits until there are `count` live connections.
    pub(crate) async fn until_open(&self, count: usize) {
        let started = Instant::now();
        loop {
            let open = self.streams().await;
            if open == count {
                return;
            }
            assert!(started.elapsed() < Duration::from_secs(5), "{open}, not {count}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Response to a request, head and body, as far as it arrives within a second.
    pub(crate) async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        let _ = timeout(Duration::from_secs(1), stream.read_to_end(&mut bytes)).await;
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// The next frame other than presence.
pub(crate) async fn frame(socket: &mut Socket) -> Value {
    loop {
        let frame = any_frame(socket).await;
        if frame["type"] != "presence" {
            return frame;
        }
    }
}

async fn any_frame(socket: &mut Socket) -> Value {
    loop {
        match timeout(Duration::from_secs(2), socket.next())
            .await
            .expect("within two seconds")
            .unwrap()
            .unwrap()
        {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) async fn closed(socket: &mut Socket) -> Option<CloseFrame> {
    loop {
        match timeout(Duration::from_secs(2), socket.next()).await.expect("within two seconds") {
            Some(Ok(Message::Close(frame))) => return frame,
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return None,
        }
    }
}

#[tokio::test]
async fn websocket_gets_stored_and_new_entries() {
    let served = Served::new();
    let (ana, ben) = served.world.couple("ana@example.org", "ben@example.org").await;
    let mut socket = served.connect(&ben, "?after=0").await.unwrap();
    assert_eq!(frame(&mut socket).await["entry"]["kind"], "paired");
    assert_eq!(frame(&mut socket).await["type"], "caught_up");
    served.world.say(&ana, "hello").await;
    let received = frame(&mut socket).await;
    assert_eq!(received["entry"]["body"]["text"], "hello");
    served.world.post("/v1/couple/signals", &ana, json!({"kind": "kiss"})).await;
    assert_eq!(frame(&mut socket).await["kind"], "kiss");
    // Other text of a client is ignored.
    socket.send(Message::text("hello?")).await.unwrap();
    socket.send(Message::Ping(vec![1].into())).await.unwrap();
    served.world.say(&ana, "again").await;
    let received = frame(&mut socket).await;
    assert_eq!(received["entry"]["body"]["text"], "again");
    // The cursor of a frame resumes after it, read positions included.
    drop(socket);
    let after = received["cursor"].as_str().unwrap();
    let mut socket = served.connect(&ben, &format!("?after={after}")).await.unwrap();
    assert_eq!(frame(&mut socket).await["type"], "caught_up");
}

#[tokio::test]
async fn signals_are_sent_in_both_directions() {
    let served = Served::new();
    let (ana, ben) = served.world.couple("ana@example.org", "ben@example.org").await;
    let mut by_ana = served.connect(&ana, "").await.unwrap();
    let mut by_ben = served.connect(&ben, "").await.unwrap();
    for socket in [&mut by_ana, &mut by_ben] {
        assert_eq!(frame(socket).await["type"], "caught_up");
    }
    let text_message = |frame: Value| Message::text(frame.to_string());
    by_ana.send(text_message(json!({"type": "signal", "kind": "typing"}))).await.unwrap();
    let typing = json!({"type": "signal", "from": "partner", "kind": "typing", "body": null});
    assert_eq!(frame(&mut by_ben).await, typing);
    // Both members touch the same point.
    let thumb = |x: f64| text_message(json!({"type": "signal", "kind": "thumb", "body": {"x": x, "y": 0.5}}));
    by_ana.send(thumb(0.5)).await.unwrap();
    assert_eq!(frame(&mut by_ben).await["kind"], "thumb");
    by_ben.send(thumb(0.5)).await.unwrap();
    assert_eq!(frame(&mut by_ana).await["kind"], "thumb");
    for socket in [&mut by_ana, &mut by_ben] {
        let kiss = frame(socket).await;
        assert_eq!((&kiss["kind"], &kiss["body"]), (&json!("thumb_kiss"), &json!({"x": 0.5, "y": 0.5})));
    }
    // An invalid signal is refused, and the connection continues.
    for invalid in [
        json!({"type": "signal"}),
        json!({"type": "signal", "kind": "paired"}),
        json!({"type": "signal", "kind": "typing", "from": "partner"}),
        json!({"type": "entry", "body": {}}),
    ] {
        by_ana.send(text_message(invalid)).await.unwrap();
        assert_eq!(frame(&mut by_ana).await, json!({"type": "refused", "code": "invalid_field"}));
    }
}

/// Signals over a connection count like requests.
#[tokio::test]
async fn signals_by_frame_have_the_same_limit() {
    let served =
        Served::of(World::with(couple::store::MemoryLimits::new(std::sync::Arc::new(couple::SystemClock))));
    let (ana, _) = served.world.couple("ana@example.org", "ben@example.org").await;
    let mut socket = served.connect(&ana, "").await.unwrap();
    assert_eq!(frame(&mut socket).await["type"], "caught_up");
    for _ in 0..310 {
        socket.send(Message::text(r#"{"type":"signal","kind":"typing"}"#)).await.unwrap();
    }
    assert_eq!(frame(&mut socket).await, json!({"type": "refused", "code": "rate_limited"}));
    assert_eq!(served.world.post("/v1/couple/signals", &ana, json!({"kind": "typing"})).await.status, 429);
}

#[tokio::test]
async fn browser_sends_its_token_as_a_subprotocol() {
    let served = Served::new();
    let (ana, _) = served.world.couple("ana@example.org", "ben@example.org").await;
    let offered = format!("couple, {ana}");
    let mut socket = served.connect_with("", "sec-websocket-protocol", &offered).await.unwrap();
    assert_eq!(frame(&mut socket).await["type"], "caught_up");
    let refused = served.connect_with("", "sec-websocket-protocol", "couple, nobody").await;
    assert!(matches!(&refused, Err(Error::Http(answer)) if answer.status() == 401), "{refused:?}");
}

#[tokio::test]
async fn presence_of_the_partner_is_sent_unless_it_is_off() {
    let served = Served::new();
    let (ana, ben) = served.world.couple("ana@example.org", "ben@example.org").await;
    let partner_of =
        async |token| served.world.get("/v1/couple", token).await.body["partner"]["presence"].clone();
    assert_eq!(partner_of(&ana).await, "away");
    // Ben is connected without presence.
    let mut by_ben = served.connect(&ben, "?presence=off").await.unwrap();
    assert_eq!(any_frame(&mut by_ben).await["type"], "caught_up");
    assert_eq!(any_frame(&mut by_ben).await, json!({"type": "presence", "presence": "away"}));
    let mut by_ana = served.connect(&ana, "").await.unwrap();
    assert_eq!(any_frame(&mut by_ana).await["type"], "caught_up");
    assert_eq!(any_frame(&mut by_ana).await, json!({"type": "presence", "presence": "away"}));
    // He receives her presence immediately.
    assert_eq!(any_frame(&mut by_ben).await, json!({"type": "presence", "presence": "here"}));
    assert_eq!((partner_of(&ben).await, partner_of(&ana).await), (json!("here"), json!("away")));
    // She receives his only once he announces it.
    let _open = served.connect(&ben, "").await.unwrap();
    assert_eq!(any_frame(&mut by_ana).await, json!({"type": "presence", "presence": "here"}));
    // A poll returns only changes of presence: otherwise it would never wait.
    let polled = served.world.get("/v1/couple/live?wait=0", &ana).await;
    assert_eq!(polled.body["frames"], json!([]));
    let refused = served.connect(&ana, "?presence=maybe").await;
    assert!(
        matches!(&refused, Err(Error::Http(answer)) if answer.status() == 422 || answer.status() == 400),
        "{refused:?}"
    );
}

/// Reads frames until one of presence, and returns the presence.
async fn next_presence(socket: &mut Socket, within: Duration) -> Option<Value> {
    let deadline = Instant::now() + within;
    loop {
        let message = tokio::time::timeout_at(deadline, socket.next()).await.ok()?;
        if let Message::Text(text) = message.unwrap().unwrap() {
            let frame: Value = serde_json::from_str(&text).unwrap();
            if frame["type"] == "presence" {
                return Some(frame["presence"].clone());
            }
        }
    }
}

/// Sends a request for a live connection, and reads the head of the response.
async fn request_live(served: &Served, token: &str, accept: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let request = format!(
        "GET /v1/couple/live?wait=40 HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {token}\r\naccept: {accept}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    assert!(line.starts_with("HTTP/1.1 200"), "{line}");
    stream
}

/// A member goes away a few seconds after the last connection was closed, over each transport and in each manner.
#[tokio::test]
async fn closed_connection_ends_presence_within_seconds() {
    let served = Served::new();
    let mut couples = Vec::new();
    for name in ["close-frame", "lost-socket", "events", "poll"] {
        let (ana, ben) =
            served.world.couple(&format!("ana-{name}@example.org"), &format!("ben-{name}@example.org")).await;
        couples.push((name, ana, ben));
    }
    let check = async |(name, ana, ben): &(&str, String, String)| {
        let mut by_ben = served.connect(ben, "?presence=off").await.unwrap();
        let soon = Duration::from_secs(2);
        assert_eq!(next_presence(&mut by_ben, soon).await, Some(json!("away")), "{name}");
        let open: Box<dyn std::any::Any> = match *name {
            "events" => Box::new(request_live(&served, ana, "text/event-stream").await),
            "poll" => Box::new(request_live(&served, ana, "application/json").await),
            _ => Box::new(served.connect(ana, "").await.unwrap()),
        };
        assert_eq!(next_presence(&mut by_ben, soon).await, Some(json!("here")), "{name}");
        let closed = Instant::now();
        if *name == "close-frame" {
            open.downcast::<Socket>().unwrap().close().await.unwrap();
        } else {
            drop(open);
        }
        assert_eq!(next_presence(&mut by_ben, Duration::from_secs(15)).await, Some(json!("away")), "{name}");
        println!("{name}: away after {} ms", closed.elapsed().as_millis());
        assert!((3.0..9.0).contains(&closed.elapsed().as_secs_f64()), "{name}: {:?}", closed.elapsed());
        let couple = served.world.get("/v1/couple", ben).await.body;
        assert_eq!(couple["partner"]["presence"], "away", "{name}");
    };
    futures_util::future::join_all(couples.iter().map(check)).await;
}

/// Reconnects, consecutive polls and another connection of the same member do not end presence.
#[tokio::test]
async fn presence_lasts_over_reconnects_and_polls() {
    let served = Served::new();
    let (ana, ben) = served.world.couple("ana@example.org", "ben@example.org").await;
    let mut by_ben = served.connect(&ben, "?presence=off").await.unwrap();
    assert_eq!(next_presence(&mut by_ben, Duration::from_secs(2)).await, Some(json!("away")));
    let alternate = async {
        for n in 0..5 {
            match n % 2 {
                0 => drop(served.connect(&ana, "").await.unwrap()),
                _ => drop(served.world.get("/v1/couple/live?wait=0", &ana).await),
            }
            sleep(Duration::from_secs(1)).await;
        }
        // The connection that ends is not the last one.
        let open = served.connect(&ana, "").await.unwrap();
        drop(served.connect(&ana, "").await.unwrap());
        sleep(Duration::from_secs(7)).await;
        open
    };
    let seen = async {
        assert_eq!(next_presence(&mut by_ben, Duration::from_secs(2)).await, Some(json!("here")));
        assert_eq!(next_presence(&mut by_ben, Duration::from_secs(9)).await, None);
    };
    tokio::join!(alternate, seen);
}

/// Interrupted twenty times at random positions, over both transports.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_interruptions_lose_no_entry() {
    let served = Served::new();
    let (ana, ben) = served.world.couple("ana@example.org", "ben@example.org").await;
    let (world, total) = (&served.world, 400);
    let talk = async {
        for n in 0..total {
            world.say(&ana, &n.to_string()).await;
        }
    };
    let hear = async {
        let (mut seen, mut cursor, mut cuts) = (Vec::new(), "0".to_owned(), 0);
        while seen.len() < total {
            let cut = seen.len() + total / 22;
            let take = |frame: &Value, seen: &mut Vec<String>, cursor: &mut String| {
                if let Some(text) = frame["entry"]["body"]["text"].as_str() {
                    seen.push(text.to_owned());
                }
                if let Some(at) = frame["cursor"].as_str() {
                    at.clone_into(cursor);
                }
            };
            if cuts % 2 == 0 {
                let mut socket = served.connect(&ben, &format!("?after={cursor}")).await.unwrap();
                while seen.len() < cut.min(total) {
                    take(&frame(&mut socket).await, &mut seen, &mut cursor);
                }
            } else {
                let mut stream = TcpStream::connect(served.address).await.unwrap();
                let request = format!(
                    "GET /v1/couple/live?access_token={ben} HTTP/1.1\r\nhost: h\r\naccept: text/event-stream\r\n\
                     last-event-id: {cursor}\r\n\r\n"
                );
                stream.write_all(request.as_bytes()).await.unwrap();
                let mut lines = BufReader::new(stream).lines();
                while seen.len() < cut.min(total) {
                    let line =
                        timeout(Duration::from_secs(2), lines.next_line()).await.unwrap().unwrap().unwrap();
                    if let Some(data) = line.strip_prefix("data: ") {
                        take(&serde_json::from_str(data).unwrap(), &mut seen, &mut cursor);
                    }
                }
            }
            cuts += 1;
        }
        (seen, cuts)
    };
    let ((), (seen, cuts)) = tokio::join!(talk, hear);
    assert!(cuts >= 20, "{cuts}");
    assert_eq!(seen, (0..total).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn end_of_a_session_or_couple_closes_its_connections() {
    let served = Served::new();
    let (ana, ben) = served.world.couple("ana@example.org", "ben@example.org").await;
    let mut by_ben = served.connect(&ben, "").await.unwrap();
    let mut by_ana = served.connect(&ana, "").await.unwrap();
    frame(&mut by_ben).await;
    frame(&mut by_ana).await;
    let started = Instant::now();
    served.world.call("DELETE", "/v1/sessions/current", Some(&ben), None).await;
    assert_eq!(frame(&mut by_ben).await["reason"], "signed_out");
    let close = closed(&mut by_ben).await.unwrap();
    assert_eq!((u16::from(close.code), close.reason.as_str()), (1008, "signed_out"));
    served.world.call("DELETE", "/v1/couple", Some(&ana), None).await;
    assert_eq!(frame(&mut by_ana).await["entry"]["kind"].as_str().unwrap_or("bye"), "bye");
    assert_eq!(u16::from(closed(&mut by_ana).await.unwrap().code), 1008);
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn stopping_server_sends_bye_and_closes() {
    let served = Served::new();
    let (ana, _) = served.world.couple("ana@example.org", "ben@example.org").await;
    let mut socket = served.connect(&ana, "").await.unwrap();
    frame(&mut socket).await;
    served.world.backend.live().drain();
    served.stop.send(()).unwrap();
    let bye = frame(&mut socket).await;
    assert_eq!((bye["type"].as_str(), bye["reason"].as_str()), (Some("bye"), Some("draining")));
    assert!(bye["retry_after_ms"].is_u64());
    assert_eq!(u16::from(closed(&mut socket).await.unwrap().code), 1012);
    drop(socket);
    timeout(Duration::from_secs(2), served.task).await.expect("it ends").unwrap();
}

#[tokio::test]
async fn invalid_upgrade_is_refused() {
    let served = Served::new();
    let (ana, _) = served.world.couple("ana@example.org", "ben@example.org").await;
    for (after, status) in [
        ("?after=-1", 422),
        ("?after=1e9", 422),
        ("?wait=1e9", 400),
        ("?wait=51", 422),
        ("?heartbeat=1", 422),
    ] {
        let refused = served.connect(&ana, after).await;
        let answered =
            matches!(&refused, Err(Error::Http(answer)) if [status, 422].contains(&answer.status().as_u16()));
        assert!(answered, "{after}: {refused:?}");
    }
    let mut future = served.connect(&ana, "?after=999999999").await.unwrap();
    assert_eq!(frame(&mut future).await["type"], "reset");
    let head = "GET /v1/couple/live HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n";
    let anonymous =
        format!("{head}sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
    assert!(served.raw(&anonymous).await.starts_with("HTTP/1.1 401"));
    let old = format!(
        "{head}authorization: Bearer {ana}\r\nsec-websocket-version: 8\r\nsec-websocket-key: x\r\n\r\n"
    );
    let received = served.raw(&old).await;
    assert!(received.starts_with("HTTP/1.1 426") && received.contains("upgrade_required"), "{received}");
}

/// A page's script sees neither protocol pings nor the state of the connection.
#[tokio::test]
async fn heartbeat_frames_are_sent_on_request() {
    let served = Served::new();
    let (ana, ben) = served.world.couple("ana@example.org", "ben@example.org").await;
    let mut socket = served.connect(&ana, "?presence=off&heartbeat=5").await.unwrap();
    let mut quiet = served.connect(&ben, "?presence=off").await.unwrap();
    assert_eq!(frame(&mut socket).await["type"], "caught_up");
    assert_eq!(frame(&mut quiet).await["type"], "caught_up");
    for ping in [json!({"type": "ping"}), json!({"type": "ping", "id": 7})] {
        socket.send(Message::text(ping.to_string())).await.unwrap();
        assert_eq!(frame(&mut socket).await, json!({"type": "pong"}));
    }
    let request = format!(
        "GET /v1/couple/live?presence=off&heartbeat=5 HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {ana}\r\n\
         accept: text/event-stream\r\n\r\n"
    );
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    let ping = timeout(Duration::from_secs(7), async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line == r#"data: {"type":"ping"}"# {
                return true;
            }
        }
        false
    });
    let (in_events, message) = tokio::join!(ping, timeout(Duration::from_secs(7), socket.next()));
    assert!(in_events.expect("a heartbeat within its time"));
    let message = message.expect("a heartbeat within its time").unwrap().unwrap();
    assert_eq!(message.to_text().unwrap(), r#"{"type":"ping"}"#);
    // A client that did not ask for heartbeats gets none: the next frame is its partner's entry.
    served.world.say(&ana, "hello").await;
    assert_eq!(frame(&mut quiet).await["type"], "entry");
}

/// A client that reads nothing costs its connection's buffers for a limited time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_that_reads_nothing_is_disconnected_and_delays_no_other() {
    let served = Served::with(ServeOptions::default().with_write_timeout(Duration::from_millis(500)));
    let (ana, ben) = served.world.couple("ana@example.org", "ben@example.org").await;
    let mut stuck = Vec::new();
    for accept in ["text/event-stream", "*/*"] {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        let upgrade = if accept == "*/*" {
            "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        } else {
            ""
        };
        let request = format!(
            "GET /v1/couple/live?after=0 HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {ben}\r\naccept: {accept}\r\n{upgrade}\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        stuck.push(stream);
    }
    served.until_open(2).await;
    let mut socket = served.connect(&ben, "").await.unwrap();
    frame(&mut socket).await;
    // More than the buffers of both ends can hold.
    let (total, text) = (1_500, "x".repeat(15_000));
    let talk = async {
        for n in 0..total {
            let body = json!({"client_id": n.to_string(), "kind": "text", "body": {"text": text}});
            assert_eq!(served.world.post("/v1/couple/entries", &ana, body).await.status, 201);
        }
    };
    let hear = async {
        for n in 0..total {
            // The first entry is that of the pairing.
            assert_eq!(frame(&mut socket).await["entry"]["seq"], n + 2);
        }
    };
    tokio::join!(talk, hear);
    served.until_open(1).await;
    drop(stuck);
}

/// Connections that are dropped without a close leave no state.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_connections_leave_no_state() {
    let served = Served::new();
    let (ana, ben) = served.world.couple("ana@example.org", "ben@example.org").await;
    for _ in 0..3 {
        let mut open = Vec::new();
        for n in 0..100 {
            open.push(served.connect(if n % 2 == 0 { &ana } else { &ben }, "").await.unwrap());
        }
        let mut plain = Vec::new();
        for accept in ["text/event-stream", "application/json"] {
            for n in 0..50 {
                let mut stream = TcpStream::connect(served.address).await.unwrap();
                let request = format!(
                    "GET /v1/couple/live?wait=50&device={n} HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {ben}\r\naccept: {accept}\r\n\r\n"
                );
                stream.write_all(request.as_bytes()).await.unwrap();
                plain.push(stream);
            }
        }
        served.until_open(200).await;
        drop((open, plain));
        served.until_open(0).await;
    }
}
