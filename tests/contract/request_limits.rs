//! Limits on the size of requests, pages and frames, and on connections: each answers with its code within 50 ms, and the server does not
//! read a body beyond its limit.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::Request,
};
use couple::http::{HttpOptions, ServeOptions};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_tungstenite::tungstenite::Error;

use crate::{
    input::{filled, operations},
    socket::{Served, closed, frame},
    world::{TestResponse, World},
};

/// Maximum time of a refusal.
const MAX_TIME: Duration = Duration::from_millis(50);
/// Number of tries, of which the fastest counts: other programs on the machine may delay the others.
const TRIES: usize = 10;
/// Bytes of one piece of a body.
const PIECE: usize = 4096;
/// Bytes of a body that is far beyond every limit of JSON.
const ENDLESS: usize = 64 << 20;
/// Maximum bytes of a JSON body.
const MAX_JSON: usize = 64 << 10;

/// Asserts that the fastest try takes less than [`MAX_TIME`].
async fn assert_fast<T>(what: &str, mut tried: impl AsyncFnMut() -> T) {
    let mut fastest = Duration::MAX;
    for _ in 0..TRIES {
        let started = Instant::now();
        tried().await;
        fastest = fastest.min(started.elapsed());
        if fastest < MAX_TIME {
            return;
        }
    }
    panic!("{what}: the fastest of {TRIES} answers took {fastest:?}");
}

/// A body of this many blanks, and a counter of the bytes that were taken from it.
fn counted(length: usize) -> (Body, Arc<AtomicUsize>) {
    let taken = Arc::new(AtomicUsize::new(0));
    let counter = taken.clone();
    let pieces = stream::iter((0..length / PIECE).map(move |_| {
        counter.fetch_add(PIECE, Ordering::SeqCst);
        Ok::<_, Infallible>(Bytes::from_static(&[b' '; PIECE]))
    }));
    (Body::from_stream(pieces), taken)
}

#[tokio::test]
async fn body_beyond_its_limit_is_refused_without_being_read() {
    let world = World::new();
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let send = async |method: &str, path: &str, headers: &[(&str, &str)]| {
        let (body, taken) = counted(ENDLESS);
        let mut request = Request::builder().method(method).uri(path);
        request = request.header("authorization", format!("Bearer {ana}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = world.raw(request.body(body).unwrap()).await;
        (answer, taken.load(Ordering::SeqCst))
    };
    let mut seen = 0;
    for (method, path, takes_json) in operations(&world).await {
        if !takes_json {
            continue;
        }
        let path = filled(&path);
        assert_fast(&format!("{method} {path}"), async || {
            let (answer, taken) = send(&method, &path, &[("content-type", "application/json")]).await;
            assert_eq!(answer.said(), (413, "body_too_large"), "{method} {path}");
            assert!(taken <= MAX_JSON + 2 * PIECE, "{method} {path}: {taken} bytes were read");
        })
        .await;
        seen += 1;
    }
    assert!(seen > 20, "{seen}");
    let length = ENDLESS.to_string();
    for (path, headers) in [
        ("/v1/media?purpose=photo", vec![("content-length", length.as_str())]),
        (
            "/v1/uploads",
            vec![
                ("tus-resumable", "1.0.0"),
                ("upload-length", length.as_str()),
                ("upload-metadata", "purpose cGhvdG8="),
            ],
        ),
    ] {
        assert_fast(path, async || {
            let (answer, taken) = send("POST", path, &headers).await;
            assert_eq!(answer.said(), (413, "body_too_large"), "{path}: {}", answer.body);
            assert!(taken <= 2 * PIECE, "{path}: {taken} bytes were read");
        })
        .await;
    }
}

#[tokio::test]
async fn deep_json_long_pages_and_long_keys_are_refused_quickly() {
    let world = World::new();
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let is_field = |answer: &TestResponse, field: &str, code: &str| {
        let first = &answer.body["errors"][0];
        assert_eq!(
            (answer.said(), &first["field"]),
            ((422, "invalid_field"), &json!(field)),
            "{}",
            answer.body
        );
        assert_eq!(first["code"], code, "{}", answer.body);
    };
    for levels in [40, 120, 30_000] {
        let deep = format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        for (path, field, text) in [
            (
                "/v1/couple/entries",
                "body",
                format!(r#"{{"client_id":"a","kind":"hug","body":{{"x":{deep}}}}}"#),
            ),
            ("/v1/couple/signals", "body", format!(r#"{{"kind":"hug","body":{{"x":{deep}}}}}"#)),
        ] {
            assert_fast(path, async || {
                let request = Request::post(path)
                    .header("authorization", format!("Bearer {ana}"))
                    .header("content-type", "application/json")
                    .body(Body::from(text.clone()))
                    .unwrap();
                is_field(&world.raw(request).await, field, "too_deep");
            })
            .await;
        }
    }

    // Every operation with pages.
    let document = world.call("GET", "/v1/openapi.json", None, None).await.body;
    let mut paged = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        let parameters = item["get"]["parameters"].as_array().cloned().unwrap_or_default();
        if !parameters.iter().any(|parameter| parameter["name"] == "limit") {
            continue;
        }
        for limit in ["201", "1000000000", "99999999999999999999999"] {
            assert_fast(path, async || {
                let answer = world.get(&format!("{}?limit={limit}", filled(path)), &ana).await;
                assert_eq!(answer.said(), (422, "invalid_field"), "{path}?limit={limit}: {}", answer.body);
            })
            .await;
        }
        paged += 1;
    }
    assert!(paged >= 3, "{paged} operations have pages");

    assert_fast("key", async || {
        let body = Some(json!({ "client_id": "a", "kind": "hug", "body": {} }));
        let key = "k".repeat(256);
        let answer = world.keyed("POST", "/v1/couple/entries", Some(&ana), body, Some(&key)).await;
        assert_eq!(answer.said(), (400, "invalid_idempotency_key"));
    })
    .await;
}

/// Sends bytes over a new connection and reads the start of the response.
async fn first_bytes(served: &Served, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut bytes = vec![0; 4096];
    let read = timeout(Duration::from_secs(5), stream.read(&mut bytes)).await.unwrap().unwrap();
    String::from_utf8_lossy(&bytes[..read]).into_owned()
}

#[tokio::test]
async fn long_heads_large_frames_and_many_connections_are_refused_quickly() {
    let http = HttpOptions::default().with_metrics(true).with_max_live_connections_per_account(2);
    let served = Served::answering(World::new(), http, ServeOptions::default());
    let (ana, ben) = served.world.couple("ana@example.org", "ben@example.org").await;
    let long = "x".repeat(40_000);
    for (what, head, code) in [
        ("header", format!("GET /healthz HTTP/1.1\r\nhost: h\r\nx-long: {long}\r\n\r\n"), "HTTP/1.1 431"),
        ("target", format!("GET /{long}{long} HTTP/1.1\r\nhost: h\r\n\r\n"), "HTTP/1.1 431"),
        (
            "headers",
            format!("GET /healthz HTTP/1.1\r\nhost: h\r\n{}\r\n", "x-y: z\r\n".repeat(3_000)),
            "HTTP/1.1 431",
        ),
    ] {
        assert_fast(what, async || {
            let answer = first_bytes(&served, head.as_bytes()).await;
            assert!(answer.starts_with(code), "{what}: {answer}");
        })
        .await;
    }

    // The header of a frame alone, which announces 1 GiB.
    let announced = [0x82, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0];
    let mut fastest = Duration::MAX;
    for _ in 0..TRIES {
        let mut socket = served.connect(&ben, "").await.unwrap();
        assert_eq!(frame(&mut socket).await["type"], "caught_up");
        let started = Instant::now();
        socket.get_mut().write_all(&announced).await.unwrap();
        assert_eq!(u16::from(closed(&mut socket).await.unwrap().code), 1009);
        fastest = fastest.min(started.elapsed());
        served.until_open(0).await;
    }
    assert!(fastest < MAX_TIME, "a large frame: {fastest:?}");

    // Two connections of the account are open.
    let mut open = [served.connect(&ana, "").await.unwrap(), served.connect(&ana, "").await.unwrap()];
    for socket in &mut open {
        assert_eq!(frame(socket).await["type"], "caught_up");
    }
    assert_fast("a third WebSocket", async || {
        let Err(Error::Http(refused)) = served.connect(&ana, "").await else { panic!("it is accepted") };
        let body: Value =
            serde_json::from_slice(refused.body().as_deref().unwrap_or_default()).unwrap_or_default();
        assert_eq!((refused.status().as_u16(), &body["code"]), (429, &json!("too_many_streams")));
        assert!(refused.headers().contains_key("retry-after"));
    })
    .await;
    assert_fast("a third connection, as a poll", async || {
        let answer = served.world.get("/v1/couple/live?wait=30", &ana).await;
        assert_eq!(answer.said(), (429, "too_many_streams"));
    })
    .await;
    // Another account is served.
    let mut other = served.connect(&ben, "").await.unwrap();
    assert_eq!(frame(&mut other).await["type"], "caught_up");
}
