//! Panics: each ends its request, its live connection or its room alone, and releases what it held.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use couple::{
    Backend, Keyring,
    blobs::Blobs,
    core::limits::Unlimited,
    http::{HttpOptions, ServeOptions},
    notify::live::LiveOptions,
    store::MemoryStore,
};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    observed_store::{ObservedStore, StoreObserver},
    socket::{Served, Socket, closed, frame},
    support::Client,
    world::{World, png},
};

const PASSWORD: &str = "mauve kettle orbit";
/// Live connections of one account: a permit that a panic keeps is missed soon.
const CONNECTIONS: usize = 3;

/// Planted panic.
#[derive(Debug, Clone, Copy)]
enum Panic {
    /// In a call of the store, after this number of others.
    AfterCalls(usize),
    /// In the next read of this name.
    InRead(&'static str),
}

/// Store that panics as planted, once.
#[derive(Default)]
struct Panics(Mutex<Option<Panic>>);

#[async_trait]
impl StoreObserver for Panics {
    async fn before(&self, what: &'static str) {
        // The periodic check of sessions belongs to no request.
        let due = what != "present_sessions" && {
            let mut planted = self.0.lock().unwrap();
            let due = match &mut *planted {
                Some(Panic::AfterCalls(0)) => true,
                Some(Panic::AfterCalls(left)) => {
                    *left -= 1;
                    false
                }
                Some(Panic::InRead(name)) => *name == what,
                None => false,
            };
            planted.take_if(|_| due);
            due
        };
        assert!(!due, "a planted panic in {what}");
    }
    async fn after(&self, _: &'static str) {}
}

impl Panics {
    fn plant(&self, panic: Panic) {
        *self.0.lock().unwrap() = Some(panic);
    }
    /// Removes the panic; returns whether it has happened.
    fn happened(&self) -> bool {
        self.0.lock().unwrap().take().is_none()
    }
}

fn served() -> (Served, Arc<Panics>) {
    let panics = Arc::new(Panics::default());
    let store = ObservedStore(MemoryStore::new(), panics.clone());
    // No room reads without a notice: the read would take a panic that is planted for a request.
    let builder = Backend::builder()
        .store(store)
        .keys(Keyring::new([7; 32]))
        .blobs(Blobs::memory())
        .limits(Unlimited)
        .live(LiveOptions::default().with_sweep_interval(Duration::from_hours(1)));
    let options =
        HttpOptions::default().with_metrics(true).with_max_live_connections_per_account(CONNECTIONS);
    let world = World::of(builder, HttpOptions::default());
    (Served::answering(world, options, ServeOptions::default()), panics)
}

/// A WebSocket that follows from now on.
async fn follow(served: &Served, token: &str) -> Socket {
    let mut socket = served.connect(token, "").await.unwrap();
    assert_eq!(frame(&mut socket).await["type"], "caught_up");
    socket
}

/// Appends an entry, and waits until a socket has received it.
async fn assert_delivered(served: &Served, writer: &str, socket: &mut Socket, text: &str) {
    served.world.say(writer, text).await;
    assert_eq!(frame(socket).await["entry"]["body"]["text"], text);
}

/// Every call of the store panics once in each of these requests.
#[tokio::test]
async fn panic_in_a_handler_ends_its_request_alone() {
    let (served, panics) = served();
    let ana = served.world.join_with_password("ana@example.org", PASSWORD).await;
    let ben = served.world.join("ben@example.org").await;
    served.world.pair(&ana, &ben).await;
    let (cem, dan) = served.world.couple("cem@example.org", "dan@example.org").await;
    let mut bystander = follow(&served, &cem).await;
    let mut client = Client::new(served.address);
    let entry = json!({ "client_id": "a", "kind": "text", "body": { "text": "hello" } });
    let sign_in = json!({ "email": "ana@example.org", "password": PASSWORD });
    for (method, path, body) in [
        ("GET", "/v1/me", None),
        ("GET", "/v1/couple/entries", None),
        ("POST", "/v1/couple/entries", Some(&entry)),
        ("PATCH", "/v1/couple", Some(&json!({ "title": "Us" }))),
        ("POST", "/v1/sessions", Some(&sign_in)),
    ] {
        let mut ended = 0;
        // Several times, since some requests hold a permit.
        for _ in 0..=CONNECTIONS {
            for calls in 0.. {
                panics.plant(Panic::AfterCalls(calls));
                let answer = client.once(method, path, Some(&ana), body, &[]).await.unwrap();
                if !panics.happened() {
                    assert!(answer.status < 300, "{method} {path}: {answer:?}");
                    break;
                }
                ended += 1;
                // The outcome of a commit that panics is not known.
                let said = (answer.status, answer.body["code"].as_str());
                assert!(
                    [(500, Some("internal_error")), (503, Some("timed_out"))].contains(&said),
                    "{method} {path} after {calls} calls: {answer:?}"
                );
                let again = client.once(method, path, Some(&ana), body, &[]).await.unwrap();
                assert!(again.status < 300, "{method} {path} after a panic: {again:?}");
            }
        }
        assert!(ended > CONNECTIONS, "{method} {path} panicked {ended} times");
    }
    for calls in 0.. {
        panics.plant(Panic::AfterCalls(calls));
        // Pictures that differ.
        let side = 30 + u32::try_from(calls).unwrap();
        let answer = served.world.upload(&ana, "purpose=photo", png(side, side)).await;
        if !panics.happened() {
            assert_eq!(answer.status, 202, "{}", answer.body);
            assert!(calls > 2, "{calls} calls");
            break;
        }
        let said = answer.said();
        assert!(
            [(500, "internal_error"), (503, "timed_out")].contains(&said),
            "after {calls} calls: {said:?}"
        );
    }
    assert_delivered(&served, &dan, &mut bystander, "still-here").await;
}

/// Frames of an event stream or a poll, as far as they arrive within two seconds, and whether the connection has ended.
async fn raw(served: &Served, token: &str, query: &str, accept: &str) -> (String, bool) {
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let request = format!(
        "GET /v1/couple/live{query} HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {token}\r\naccept: {accept}\r\n\
         connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    let ended = timeout(Duration::from_secs(2), stream.read_to_end(&mut bytes)).await.is_ok();
    (String::from_utf8_lossy(&bytes).into_owned(), ended)
}

/// Whether the connection ends within two seconds, or is disconnected by a packet of Socket.IO.
async fn ends(mut socket: Socket) -> bool {
    let is_open = |message: &Message| !matches!(message, Message::Text(text) if text.as_str() == "41");
    let end =
        async { while socket.next().await.is_some_and(|message| message.is_ok_and(|it| is_open(&it))) {} };
    timeout(Duration::from_secs(2), end).await.is_ok()
}

#[tokio::test]
async fn panic_in_the_task_of_a_live_connection_ends_it_alone() {
    let (served, panics) = served();
    let (ana, ben) = served.world.couple("ana@example.org", "ben@example.org").await;
    let (cem, dan) = served.world.couple("cem@example.org", "dan@example.org").await;
    // More than a room keeps: a connection from the beginning reads the first ones in its own task.
    for n in 0..60 {
        served.world.say(&ana, &n.to_string()).await;
    }
    let (mut partner, mut other) = (follow(&served, &ben).await, follow(&served, &cem).await);
    for round in 0..=CONNECTIONS {
        for transport in ["websocket", "events", "poll", "socketio"] {
            panics.plant(Panic::InRead("entries"));
            let ended = match transport {
                "websocket" => ends(served.connect(&ana, "?after=0").await.unwrap()).await,
                "socketio" => ends(served.follow(&json!({ "token": ana, "cursor": "0" })).await).await,
                "events" => raw(&served, &ana, "?after=0", "text/event-stream").await.1,
                _ => raw(&served, &ana, "?after=0&wait=10", "application/json").await.1,
            };
            assert!(panics.happened(), "{transport}: no panic");
            assert!(ended, "{transport}: the connection stays open, without frames");
            served.until_open(2).await;
            assert_delivered(&served, &ana, &mut partner, &format!("{transport}-{round}")).await;
            assert_delivered(&served, &dan, &mut other, &format!("{transport}-{round}")).await;
        }
    }
    // The client resumes without a gap.
    let mut socket = served.connect(&ana, "?after=0").await.unwrap();
    for seq in 1..=61 + 4 * (CONNECTIONS as i64 + 1) {
        assert_eq!(frame(&mut socket).await["entry"]["seq"], seq);
    }
}

#[tokio::test]
async fn panic_in_the_room_of_a_couple_makes_its_clients_reconnect() {
    let (served, panics) = served();
    let (ana, ben) = served.world.couple("ana@example.org", "ben@example.org").await;
    let (cem, dan) = served.world.couple("cem@example.org", "dan@example.org").await;
    let mut other = follow(&served, &cem).await;
    for title in ["One", "Two", "Three"] {
        let mut both = [follow(&served, &ana).await, follow(&served, &ben).await];
        panics.plant(Panic::InRead("couple"));
        let changed =
            served.world.call("PATCH", "/v1/couple", Some(&ana), Some(json!({ "title": title }))).await;
        assert_eq!(changed.status, 200, "{}", changed.body);
        for socket in &mut both {
            let bye = loop {
                let frame: Value = frame(socket).await;
                if frame["type"] == "bye" {
                    break frame;
                }
            };
            assert_eq!(bye["reason"], "unavailable");
            assert_eq!(closed(socket).await.unwrap().code, 1013.into());
        }
        assert!(panics.happened(), "no panic");
        let mut again = follow(&served, &ben).await;
        assert_delivered(&served, &ana, &mut again, title).await;
        assert_delivered(&served, &dan, &mut other, title).await;
    }
}
