//! Socket.IO clients, frame by frame (Engine.IO 4, Socket.IO 5).

use std::{sync::Arc, time::Duration};

use couple::http::{HttpOptions, ServeOptions};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::{client_async, tungstenite::Message};

use crate::{
    socket::{Served, Socket},
    world::World,
};

impl Served {
    /// Begins an Engine.IO session over a WebSocket, and connects to the namespace with `auth`.
    async fn socketio(&self, auth: &Value) -> Socket {
        let url = format!("ws://{}/socket.io/?EIO=4&transport=websocket", self.address);
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut socket, _) = client_async(url, stream).await.unwrap();
        assert!(packet(&mut socket).await.starts_with("0{"));
        socket.send(Message::text(format!("40{auth}"))).await.unwrap();
        socket
    }

    /// As [`socketio`](Self::socketio), and waits until the client is connected.
    pub(crate) async fn follow(&self, auth: &Value) -> Socket {
        let mut socket = self.socketio(auth).await;
        let received = packet(&mut socket).await;
        assert!(received.starts_with("40{\"sid\""), "{received}");
        socket
    }
}

async fn packet(socket: &mut Socket) -> String {
    loop {
        let message = timeout(Duration::from_secs(2), socket.next()).await.expect("within two seconds");
        let Some(Ok(message)) = message else { return "closed".to_owned() };
        match message {
            Message::Text(text) if text.as_str() == "2" => socket.send(Message::text("3")).await.unwrap(),
            Message::Text(text) => return text.as_str().to_owned(),
            Message::Close(_) => return "closed".to_owned(),
            other => panic!("{other:?}"),
        }
    }
}

/// Frame of the next event other than presence, whose type is its name.
async fn event(socket: &mut Socket) -> Value {
    loop {
        let received = packet(socket).await;
        let event: Value =
            serde_json::from_str(received.strip_prefix("42").unwrap_or_else(|| panic!("{received}")))
                .unwrap();
        assert_eq!(event[0], event[1]["type"]);
        if event[0] != "presence" {
            return event[1].clone();
        }
    }
}

#[tokio::test]
async fn socketio_client_gets_stored_and_new_entries() {
    let served = Served::new();
    let (ana, ben) = served.world.couple("ana@example.org", "ben@example.org").await;
    let mut socket = served.follow(&json!({"token": ben, "cursor": "0"})).await;
    assert_eq!(event(&mut socket).await["entry"]["kind"], "paired");
    let cursor = event(&mut socket).await["cursor"].clone();
    served.world.say(&ana, "hello").await;
    assert_eq!(event(&mut socket).await["entry"]["body"]["text"], "hello");
    drop(socket);
    // Resumes from its cursor, over another transport or this one.
    let mut socket = served.follow(&json!({"token": ben, "cursor": cursor, "presence": "off"})).await;
    assert_eq!(event(&mut socket).await["entry"]["body"]["text"], "hello");
    assert_eq!(event(&mut socket).await["type"], "caught_up");
    let mut by_ana = served.follow(&json!({"token": ana})).await;
    assert_eq!(event(&mut by_ana).await["type"], "caught_up");
    by_ana.send(Message::text(r#"42["signal",{"kind":"kiss"}]"#)).await.unwrap();
    let kiss = json!({"type": "signal", "from": "partner", "kind": "kiss", "body": null});
    assert_eq!(event(&mut socket).await, kiss);
    by_ana.send(Message::text(r#"42["signal",{"kind":"paired"}]"#)).await.unwrap();
    assert_eq!(event(&mut by_ana).await, json!({"type": "refused", "code": "invalid_field"}));
    by_ana.send(Message::text(r#"42["signal",7]"#)).await.unwrap();
    assert_eq!(event(&mut by_ana).await, json!({"type": "refused", "code": "invalid_field"}));
}

#[tokio::test]
async fn refused_client_gets_the_reason() {
    let served = Served::new();
    let lonely = served.world.join("eve@example.org").await;
    let (ana, _) = served.world.couple("ana@example.org", "ben@example.org").await;
    for (auth, code) in [
        (json!({}), "unauthenticated"),
        (json!({"token": "nobody"}), "unauthenticated"),
        (json!({"token": lonely}), "not_paired"),
        (json!({"token": ana, "cursor": "-1"}), "invalid_field"),
        (json!({"token": ana, "cursor": -1}), "invalid_field"),
        (json!({"token": ana, "cursor": 1.5}), "invalid_field"),
        (json!({"token": ana, "cursor": ["0"]}), "invalid_field"),
        (json!({"token": ana, "presence": "maybe"}), "invalid_field"),
        (json!({"token": ana, "heartbeat": 1}), "invalid_field"),
        (json!({"token": 7}), "unauthenticated"),
        (json!([]), "unauthenticated"),
    ] {
        let mut socket = served.socketio(&auth).await;
        let received = packet(&mut socket).await;
        assert_eq!(received, format!("44{}", json!({ "message": code })), "{auth}");
        assert_eq!(packet(&mut socket).await, "closed", "the Engine.IO session ends with the refusal");
    }
    served.until_open(0).await;
    drop(served);
    // Few connections, since a client that does not answer the first ping is disconnected after 20 s.
    let http = HttpOptions::default().with_metrics(true).with_max_live_connections_per_account(10);
    let served = Served::answering(World::new(), http, ServeOptions::default());
    let (ana, _) = served.world.couple("ana@example.org", "ben@example.org").await;
    let mut open = Vec::new();
    for _ in 0..10 {
        open.push(served.follow(&json!({"token": ana, "presence": "off"})).await);
    }
    let mut socket = served.socketio(&json!({"token": ana})).await;
    assert_eq!(packet(&mut socket).await, r#"44{"message":"too_many_streams"}"#);
    drop(open);
    served.until_open(0).await;
}

#[tokio::test]
async fn end_of_a_session_and_shutdown_send_bye() {
    let served = Served::new();
    let (ana, ben) = served.world.couple("ana@example.org", "ben@example.org").await;
    let (mut by_ana, mut by_ben) =
        (served.follow(&json!({"token": ana})).await, served.follow(&json!({"token": ben})).await);
    assert_eq!(event(&mut by_ana).await["type"], "caught_up");
    assert_eq!(event(&mut by_ben).await["type"], "caught_up");
    served.world.call("DELETE", "/v1/sessions/current", Some(&ben), None).await;
    assert_eq!(event(&mut by_ben).await["reason"], "signed_out");
    assert_eq!(packet(&mut by_ben).await, "41");
    assert_eq!(packet(&mut by_ben).await, "closed");
    served.world.backend.live().drain();
    let bye = event(&mut by_ana).await;
    assert!(bye["reason"] == "draining" && bye["retry_after_ms"].as_u64() < Some(10_000), "{bye}");
    assert_eq!(packet(&mut by_ana).await, "41");
    assert_eq!(packet(&mut by_ana).await, "closed");
    served.until_open(0).await;
}

/// Unknown keys in `auth`, as clients of other servers send them, do not invalidate the session.
#[tokio::test]
async fn unknown_keys_of_auth_are_ignored_and_a_seq_is_a_cursor() {
    let served = Served::new();
    let (ana, ben) = served.world.couple("ana@example.org", "ben@example.org").await;
    served.world.say(&ana, "hello").await;
    let auth = json!({"token": ben, "cursor": 1, "presence": null, "couple_id": "x", "version": 3});
    let mut socket = served.follow(&auth).await;
    assert_eq!(event(&mut socket).await["entry"]["body"]["text"], "hello");
}

#[tokio::test]
async fn socketio_heartbeat_is_sent_on_request() {
    let served = Served::new();
    let (ana, _) = served.world.couple("ana@example.org", "ben@example.org").await;
    let auth = json!({"token": ana, "presence": "off", "heartbeat": 5});
    let mut socket = served.follow(&auth).await;
    assert_eq!(event(&mut socket).await["type"], "caught_up");
    socket.send(Message::text(r#"42["ping"]"#)).await.unwrap();
    assert_eq!(event(&mut socket).await, json!({"type": "pong"}));
    let started = Instant::now();
    let heartbeat = async {
        loop {
            let message = socket.next().await.unwrap().unwrap();
            // The first ping of Engine.IO may come after the answer.
            if message.to_text().unwrap() != "2" {
                return message;
            }
        }
    };
    let message = timeout(Duration::from_secs(7), heartbeat).await.expect("a heartbeat within its time");
    assert_eq!(message.to_text().unwrap(), r#"42["ping",{"type":"ping"}]"#);
    assert!(started.elapsed() > Duration::from_secs(4));
}

/// `41` may arrive before the library has recorded that the client is connected.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn client_that_disconnects_immediately_leaves_no_permit() {
    let served = Arc::new(Served::new());
    let (_, ben) = served.world.couple("ana@example.org", "ben@example.org").await;
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..8 {
        let (served, auth) = (served.clone(), json!({"token": ben}));
        clients.spawn(async move {
            for round in 0..60 {
                let mut socket = served.follow(&auth).await;
                socket.send(Message::text("41")).await.unwrap();
                // Some stay connected without a namespace.
                if (client + round) % 4 == 0 {
                    while packet(&mut socket).await != "closed" {}
                }
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    served.until_open(0).await;
    let mut open = Vec::new();
    for _ in 0..300 {
        open.push(served.connect(&ben, "?presence=off").await.unwrap());
    }
}

/// A server that counts sessions of clients behind a trusted proxy.
fn behind_a_proxy(sessions: usize, per_client: usize) -> Served {
    let http = HttpOptions::default()
        .with_metrics(true)
        .with_max_live_connections(sessions)
        .with_max_handshakes_per_client(per_client)
        .with_trusted_proxies(vec!["127.0.0.0/8".parse().unwrap()]);
    Served::answering(World::new(), http, ServeOptions::default())
}

fn handshake(client: &str, transport: &str) -> String {
    let upgrade = if transport == "websocket" {
        "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    } else {
        ""
    };
    format!(
        "GET /socket.io/?EIO=4&transport={transport} HTTP/1.1\r\nhost: h\r\nx-forwarded-for: {client}\r\n{upgrade}\r\n"
    )
}

/// Handshakes are counted per client, each for as long as its session lasts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_of_one_client_do_not_stop_others() {
    let served = behind_a_proxy(500, 100);
    let (ana, _) = served.world.couple("ana@example.org", "ben@example.org").await;
    let mut flood = TcpStream::connect(served.address).await.unwrap();
    let last = "GET /healthz HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    let requests = handshake("198.51.100.1", "polling").repeat(10_000) + last;
    let (mut reads, mut writes) = flood.split();
    let mut received = String::new();
    let (wrote, read) =
        tokio::join!(writes.write_all(requests.as_bytes()), reads.read_to_string(&mut received));
    wrote.unwrap();
    read.unwrap();
    let count = |status: &str| received.matches(&format!("HTTP/1.1 {status}")).count();
    // One more: the last request.
    assert_eq!((count("200"), count("429"), count("503")), (101, 9_900, 0));
    let mut other = served.follow(&json!({"token": ana})).await;
    assert_eq!(event(&mut other).await["type"], "caught_up");

    // A WebSocket's permit is returned when it ends.
    for _ in 0..3 {
        let mut open = Vec::new();
        for _ in 0..100 {
            let mut stream = TcpStream::connect(served.address).await.unwrap();
            stream.write_all(handshake("198.51.100.2", "websocket").as_bytes()).await.unwrap();
            let mut start = [0; 12];
            stream.read_exact(&mut start).await.unwrap();
            assert_eq!(&start, b"HTTP/1.1 101");
            open.push(stream);
        }
        assert!(served.raw(&handshake("198.51.100.2", "polling")).await.starts_with("HTTP/1.1 429"));
        drop(open);
        let returned = async {
            while !served.raw(&handshake("198.51.100.2", "websocket")).await.starts_with("HTTP/1.1 101") {}
        };
        timeout(Duration::from_secs(5), returned).await.expect("their permits are returned");
    }
}

/// A client that connects to no namespace is disconnected, and so is one whose namespace has ended.
#[tokio::test]
async fn sessions_without_a_namespace_end() {
    let served = behind_a_proxy(500, 1);
    let mut silent = TcpStream::connect(served.address).await.unwrap();
    silent.write_all(handshake("198.51.100.1", "websocket").as_bytes()).await.unwrap();
    let polled = served.raw(&handshake("198.51.100.2", "polling")).await;
    assert!(polled.contains("\"sid\""), "{polled}");
    for client in ["198.51.100.1", "198.51.100.2"] {
        assert!(served.raw(&handshake(client, "polling")).await.starts_with("HTTP/1.1 429"));
    }
    let mut received = Vec::new();
    let ended = timeout(Duration::from_secs(15), silent.read_to_end(&mut received)).await;
    ended.expect("the server ends it").unwrap();
    let returned = async {
        for client in ["198.51.100.1", "198.51.100.2"] {
            while served.raw(&handshake(client, "polling")).await.starts_with("HTTP/1.1 429") {}
        }
    };
    timeout(Duration::from_secs(15), returned).await.expect("their permits are returned");
}

/// Sends a request of a polling session; returns the response.
async fn polled(served: &Served, client: &str, sid: &str, packets: Option<&str>) -> String {
    let (method, body) = if let Some(body) = packets { ("POST", body) } else { ("GET", "") };
    let request = format!(
        "{method} /socket.io/?EIO=4&transport=polling{sid} HTTP/1.1\r\nhost: h\r\nx-forwarded-for: {client}\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    served.raw(&request).await
}

/// Begins a polling session; returns `&sid=…`.
async fn begin_polling(served: &Served, client: &str) -> String {
    let handshake = polled(served, client, "", None).await;
    let sid = handshake.split("\"sid\":\"").nth(1).unwrap_or_else(|| panic!("{handshake}"));
    format!("&sid={}", sid.split('"').next().unwrap())
}

/// A client that closes its session may begin another one; a client that sends an invalid packet loses its session.
#[tokio::test]
async fn permit_of_a_polling_session_returns_when_it_ends() {
    let served = behind_a_proxy(500, 1);
    let client = "198.51.100.1";
    for (packets, status) in [("1", "200"), ("3\u{1e}1", "200"), ("nonsense", "400"), ("1", "200")] {
        let sid = begin_polling(&served, client).await;
        assert!(polled(&served, client, "", None).await.starts_with("HTTP/1.1 429"), "one session at a time");
        let answer = polled(&served, client, &sid, Some(packets)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{packets}: {answer}");
        let over = polled(&served, client, &sid, None).await;
        assert!(over.starts_with("HTTP/1.1 400"), "{packets}: {over}");
    }
}

/// Number of sessions in memory.
async fn sessions(served: &Served) -> usize {
    let metrics = served.raw("GET /metrics HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await;
    let line = metrics.lines().find_map(|line| line.strip_prefix("couple_socketio_sessions "));
    line.unwrap_or_else(|| panic!("no count in {metrics}")).parse().unwrap()
}

async fn until_no_sessions(served: &Served, time: Duration) {
    let none = async {
        while sessions(served).await > 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(time, none).await.expect("the sessions are dropped");
}

/// Reads a response with a known length from a connection that stays open.
async fn response(stream: &mut BufReader<TcpStream>) -> String {
    let (mut head, mut length) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        let from = head.len();
        assert!(stream.read_line(&mut head).await.unwrap() > 0, "{head}");
        if let Some(value) = head[from..].to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    head + std::str::from_utf8(&body).unwrap()
}

/// The library keeps its state of an ended session for a time, so ended sessions are limited, too.
#[tokio::test]
async fn sessions_that_end_immediately_are_limited() {
    let served = behind_a_proxy(500, 10);
    let mut stream = BufReader::new(TcpStream::connect(served.address).await.unwrap());
    let (mut session_count, mut most) = (0, 0);
    for round in 0..1_000 {
        stream.write_all(handshake("198.51.100.1", "polling").as_bytes()).await.unwrap();
        let answer = response(&mut stream).await;
        if round % 50 == 0 {
            most = most.max(sessions(&served).await);
        }
        let Some(sid) = answer.split("\"sid\":\"").nth(1) else {
            assert!(answer.starts_with("HTTP/1.1 429"), "{answer}");
            assert!(answer.contains("\r\nretry-after: "), "{answer}");
            continue;
        };
        session_count += 1;
        let sid = sid.split('"').next().unwrap();
        let close = format!(
            "POST /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nhost: h\r\n\
             x-forwarded-for: 198.51.100.1\r\ncontent-length: 1\r\n\r\n1"
        );
        stream.write_all(close.as_bytes()).await.unwrap();
        assert!(response(&mut stream).await.starts_with("HTTP/1.1 200"));
    }
    most = most.max(sessions(&served).await);
    assert!((40..=80).contains(&session_count), "{session_count} sessions began");
    assert!(most <= 40, "{most} sessions in memory");
    // Other clients are not refused meanwhile, and the permits of this one are returned.
    begin_polling(&served, "198.51.100.2").await;
    until_no_sessions(&served, Duration::from_secs(15)).await;
    begin_polling(&served, "198.51.100.1").await;
}

/// A session is not counted for its network once its client has authenticated.
#[tokio::test]
async fn authenticated_clients_of_one_network_are_not_refused() {
    let served = behind_a_proxy(500, 2);
    let (ana, _) = served.world.couple("ana@example.org", "ben@example.org").await;
    for _ in 0..4 {
        let mut open = Vec::new();
        for _ in 0..10 {
            open.push(served.follow(&json!({"token": ana})).await);
        }
        drop(open);
        served.until_open(0).await;
    }
    until_no_sessions(&served, Duration::from_secs(5)).await;
}

/// Clients of a /48 share a limit, whatever their /64.
#[tokio::test]
async fn handshakes_of_a_48_bit_prefix_do_not_stop_others() {
    let served = behind_a_proxy(1_000, 10);
    let mut session_count = 0;
    for network in 0..60 {
        let client = format!("2001:db8:1:{:x}::1", network << 8);
        session_count += usize::from(polled(&served, &client, "", None).await.starts_with("HTTP/1.1 200"));
    }
    assert_eq!(session_count, 40);
    assert!(polled(&served, "2001:db8:2::1", "", None).await.starts_with("HTTP/1.1 200"));
}

/// The client gets a close frame for a policy violation, over each kind of bidirectional connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flood_of_messages_ends_its_connection_only() {
    let served = Served::new();
    let (ana, ben) = served.world.couple("ana@example.org", "ben@example.org").await;
    let mut other = served.follow(&json!({"token": ben, "presence": "off"})).await;
    assert_eq!(event(&mut other).await["type"], "caught_up");
    let signal = r#"42["signal",{"kind":"kiss"}]"#;
    for message in [
        Message::text(signal),
        Message::text("3"),
        Message::text("40/other,"),
        Message::Ping(Vec::new().into()),
        Message::Pong(Vec::new().into()),
    ] {
        let mut flood = served.follow(&json!({"token": ana, "presence": "off"})).await;
        // As many messages as a client may send in a burst.
        for _ in 0..400 {
            flood.send(message.clone()).await.unwrap();
        }
        flood.send(Message::text(r#"42["ping"]"#)).await.unwrap();
        while !packet_of_any_kind(&mut flood).await.is_some_and(|received| received.contains("pong")) {}
        assert_eq!(flooded(flood, &message).await, Some(1008), "{message:?}");
    }
    let flood = served.connect(&ana, "?presence=off").await.unwrap();
    assert_eq!(flooded(flood, &Message::text(r#"{"type":"ping"}"#)).await, Some(1008));
    served.until_open(1).await;
    served.world.say(&ana, "still-here").await;
    while event(&mut other).await["type"] != "entry" {}
}

/// The next text message.
async fn packet_of_any_kind(socket: &mut Socket) -> Option<String> {
    let message = timeout(Duration::from_secs(5), socket.next()).await.expect("within five seconds");
    match message.expect("it is open").expect("it is open") {
        Message::Text(text) => Some(text.as_str().to_owned()),
        _ => None,
    }
}

/// Sends a message repeatedly until the connection is closed; returns the close code.
async fn flooded(socket: Socket, message: &Message) -> Option<u16> {
    let (mut sends, mut hears) = socket.split();
    let message = message.clone();
    let sent = tokio::spawn(async move {
        for _ in 0..20_000 {
            if sends.send(message.clone()).await.is_err() {
                return;
            }
        }
    });
    let closed = async {
        loop {
            match hears.next().await {
                Some(Ok(Message::Close(frame))) => return frame.map(|frame| u16::from(frame.code)),
                Some(Ok(_)) => {}
                None | Some(Err(_)) => return None,
            }
        }
    };
    let code = timeout(Duration::from_secs(10), closed).await.expect("the connection is not closed");
    sent.abort();
    code
}

#[tokio::test]
async fn flood_of_packets_ends_a_polling_session() {
    let served = Served::new();
    let client = "198.51.100.1";
    for (packets, requests) in [("3\u{1e}".repeat(600) + "3", 1), ("3\u{1e}".repeat(100) + "3", 5)] {
        let sid = begin_polling(&served, client).await;
        for _ in 1..requests {
            assert!(polled(&served, client, &sid, Some(&packets)).await.ends_with("ok"));
        }
        let refused = polled(&served, client, &sid, Some(&packets)).await;
        assert!(refused.starts_with("HTTP/1.1 429") && refused.contains("\"rate_limited\""), "{refused}");
        assert!(refused.contains("retry-after: "), "{refused}");
        assert!(polled(&served, client, &sid, None).await.starts_with("HTTP/1.1 400"), "it has ended");
    }
    let sid = begin_polling(&served, client).await;
    let long = polled(&served, client, &sid, Some(&"3".repeat(5_000))).await;
    assert!(long.starts_with("HTTP/1.1 413"), "{long}");
}

/// A session that began with polling continues as a WebSocket, and ends with it.
#[tokio::test]
async fn polling_session_is_upgraded_to_a_websocket() {
    let served = Served::new();
    let (ana, ben) = served.world.couple("ana@example.org", "ben@example.org").await;
    let handshake = served.raw("GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nhost: h\r\n\r\n").await;
    let sid = handshake.split("\"sid\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let url = format!("ws://{}/socket.io/?EIO=4&transport=websocket&sid={sid}", served.address);
    let stream = TcpStream::connect(served.address).await.unwrap();
    let (mut socket, _) = client_async(&url, stream).await.unwrap();
    socket.send(Message::text("2probe")).await.unwrap();
    assert_eq!(packet(&mut socket).await, "3probe");
    socket.send(Message::text("5")).await.unwrap();
    socket.send(Message::text(format!("40{}", json!({"token": ben, "presence": "off"})))).await.unwrap();
    while !packet(&mut socket).await.starts_with("40{\"sid\"") {}
    served.world.say(&ana, "hello").await;
    while event(&mut socket).await["type"] != "entry" {}
    served.world.call("DELETE", "/v1/sessions/current", Some(&ben), None).await;
    assert_eq!(event(&mut socket).await["reason"], "signed_out");
    assert_eq!((packet(&mut socket).await.as_str(), packet(&mut socket).await.as_str()), ("41", "closed"));
    served.until_open(0).await;
    // An unknown session id, or a second upgrade, is refused before the upgrade.
    let stream = TcpStream::connect(served.address).await.unwrap();
    assert!(client_async(&url, stream).await.is_err());
}

/// The last packets of a polling session can be fetched; then it has ended.
#[tokio::test]
async fn bye_ends_a_polling_session() {
    let served = Served::new();
    let (ana, _) = served.world.couple("ana@example.org", "ben@example.org").await;
    let path = "/socket.io/?EIO=4&transport=polling";
    let get = async |sid: &str| {
        served.raw(&format!("GET {path}{sid} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")).await
    };
    let handshake = get("").await;
    let sid = format!("&sid={}", handshake.split("\"sid\":\"").nth(1).unwrap().split('"').next().unwrap());
    let connect_packet = format!("40{}", json!({"token": ana, "presence": "off"}));
    let post = format!(
        "POST {path}{sid} HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{connect_packet}",
        connect_packet.len()
    );
    assert!(served.raw(&post).await.ends_with("ok"));
    while !get(&sid).await.contains("caught_up") {}
    served.world.call("DELETE", "/v1/sessions/current", Some(&ana), None).await;
    let mut received = String::new();
    while !received.contains("41") {
        received = get(&sid).await;
    }
    assert!(received.contains("signed_out"), "{received}");
    let over = async { while !get(&sid).await.starts_with("HTTP/1.1 400") {} };
    timeout(Duration::from_secs(5), over).await.expect("its session has ended");
    served.until_open(0).await;
}

/// Engine.IO's long polling, on one process.
#[tokio::test]
async fn polling_works_on_one_process() {
    let served = Served::new();
    let (ana, ben) = served.world.couple("ana@example.org", "ben@example.org").await;
    let path = "/socket.io/?EIO=4&transport=polling";
    let get = async |sid: &str| {
        served.raw(&format!("GET {path}{sid} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")).await
    };
    let handshake = get("").await;
    let sid = handshake.split("\"sid\":\"").nth(1).unwrap().split('"').next().unwrap();
    let sid = format!("&sid={sid}");
    let connect_packet = format!("40{}", json!({"token": ben, "presence": "off"}));
    let post = format!(
        "POST {path}{sid} HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{connect_packet}",
        connect_packet.len()
    );
    assert!(served.raw(&post).await.ends_with("ok"));
    served.world.say(&ana, "hello").await;
    let mut received = String::new();
    while !received.contains("\"text\":\"hello\"") {
        received.push_str(&get(&sid).await);
    }
    assert!(received.contains("40{\"sid\"") && received.contains("42[\"caught_up\""), "{received}");
}

#[tokio::test]
async fn invalid_packet_ends_only_its_own_connection() {
    let served = Served::new();
    let (ana, ben) = served.world.couple("ana@example.org", "ben@example.org").await;
    let mut other = served.follow(&json!({"token": ben, "presence": "off"})).await;
    assert_eq!(event(&mut other).await["type"], "caught_up");
    let long = format!("42[\"signal\",{{\"kind\":\"x-a\",\"body\":{{\"a\":\"{}\"}}}}]", "x".repeat(5_000));
    for invalid in [long.as_str(), "9", "45", "4{", "451-[\"signal\",{\"_placeholder\":true,\"num\":0}]"] {
        let mut socket = served.follow(&json!({"token": ana, "presence": "off"})).await;
        let _ = socket.send(Message::text(invalid)).await;
        let ended = async {
            loop {
                match socket.next().await {
                    None | Some(Err(_) | Ok(Message::Close(_))) => break,
                    Some(Ok(_)) => {}
                }
            }
        };
        timeout(Duration::from_secs(3), ended)
            .await
            .unwrap_or_else(|_| panic!("{invalid:.20} does not end the connection"));
    }
    served.until_open(1).await;
    served.world.say(&ana, "still-here").await;
    assert_eq!(event(&mut other).await["entry"]["body"]["text"], "still-here");
}
