//! Live delivery over long polls and event streams.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, to_bytes},
    http::{HeaderMap, Request},
};
use couple::{Backend, core::limits::Unlimited, http::HttpOptions};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tower::ServiceExt as _;

use crate::world::{World, png};

async fn poll(world: &World, token: &str, query: &str) -> Value {
    let answer = world.get(&format!("/v1/couple/live?{query}"), token).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

/// Starts a poll in the background, and waits until it is waiting.
async fn waiting(world: &Arc<World>, token: &str, query: &str) -> tokio::task::JoinHandle<Value> {
    let (world, token, query) = (world.clone(), token.to_owned(), query.to_owned());
    let task = tokio::spawn(async move { poll(&world, &token, &query).await });
    sleep(Duration::from_millis(100)).await;
    assert!(!task.is_finished(), "the poll does not wait");
    task
}

async fn woken(task: tokio::task::JoinHandle<Value>) -> Value {
    timeout(Duration::from_secs(2), task).await.expect("woken within two seconds").unwrap()
}

#[tokio::test]
async fn poll_waits_for_an_entry_and_continues_from_its_cursor() {
    let world = Arc::new(World::new());
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let all = poll(&world, &ben, "after=0&wait=0").await;
    assert_eq!(all["frames"][0]["entry"]["kind"], "paired");
    let cursor = all["cursor"].as_str().unwrap().to_owned();
    let task = waiting(&world, &ben, &format!("after={cursor}&wait=20")).await;
    world.say(&ana, "hello").await;
    let response = woken(task).await;
    assert_eq!(response["frames"][0]["entry"]["body"]["text"], "hello");
    // The same cursor again returns the same entry immediately.
    let again = poll(&world, &ben, &format!("after={cursor}&wait=20")).await;
    assert_eq!(again["frames"], response["frames"]);
    // Without a new entry the response is empty, and its cursor is still valid.
    let cursor = response["cursor"].as_str().unwrap();
    let none = poll(&world, &ben, &format!("after={cursor}&wait=0")).await;
    assert_eq!((&none["frames"], none["cursor"].as_str()), (&json!([]), Some(cursor)));
}

#[tokio::test]
async fn signals_and_read_positions_arrive() {
    let world = Arc::new(World::new());
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let task = waiting(&world, &ben, "wait=20").await;
    let hug = json!({"kind": "hug", "body": {"x": 0.5}});
    assert_eq!(world.post("/v1/couple/signals", &ana, hug).await.status, 202);
    assert_eq!(
        woken(task).await["frames"],
        json!([{"type": "signal", "from": "partner", "kind": "hug", "body": {"x": 0.5}}])
    );
    // A client's own signal is not returned to it, and no signal is stored.
    world.post("/v1/couple/signals", &ben, json!({"kind": "kiss"})).await;
    let cursor = poll(&world, &ben, "wait=0").await["cursor"].as_str().unwrap().to_owned();
    let task = waiting(&world, &ben, &format!("after={cursor}&wait=20")).await;
    world.call("PUT", "/v1/couple/read", Some(&ana), Some(json!({"seq": 1}))).await;
    let response = woken(task).await;
    let read =
        json!([{"type": "read", "my_read_seq": 0, "partner_read_seq": 1, "cursor": response["cursor"]}]);
    assert_eq!(response["frames"], read);
    // A client that was disconnected receives it when it reconnects.
    let back = poll(&world, &ben, &format!("after={cursor}&wait=0")).await;
    assert_eq!(back["frames"][0]["type"], "read");
}

#[tokio::test]
async fn leaving_the_couple_and_signing_out_end_the_stream() {
    let world = Arc::new(World::new());
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let (by_ben, by_ana) =
        (waiting(&world, &ben, "wait=30").await, waiting(&world, &ana, "wait=30&presence=off").await);
    world.call("DELETE", "/v1/sessions/current", Some(&ben), None).await;
    assert_eq!(woken(by_ben).await["frames"][0]["reason"], "signed_out");
    world.later(Duration::from_secs(1));
    world.call("DELETE", "/v1/couple", Some(&ana), None).await;
    assert_eq!(
        woken(by_ana).await["frames"][0],
        json!({"type": "bye", "reason": "not_paired", "retry_after_ms": 0})
    );
}

#[tokio::test]
async fn cursor_of_another_couple_causes_a_resync() {
    let world = World::new();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    world.say(&ana, "one").await;
    let cursor = poll(&world, &ana, "after=0&wait=0").await["cursor"].as_str().unwrap().to_owned();
    world.call("DELETE", "/v1/couple", Some(&ana), None).await;
    world.pair(&ana, &ben).await;
    for after in [cursor.as_str(), "999"] {
        let reset = poll(&world, &ana, &format!("after={after}&wait=0")).await;
        assert_eq!(reset["frames"][0]["type"], "reset", "{reset}");
        let next = reset["frames"][0]["cursor"].as_str().unwrap();
        assert_eq!(poll(&world, &ana, &format!("after={next}&wait=0")).await["frames"], json!([]));
    }
}

/// A connection beyond the limit gets 503 with `Retry-After`; open ones continue.
#[tokio::test]
async fn connection_beyond_the_limit_gets_retry_after() {
    let options = HttpOptions::default().with_max_live_connections(1);
    let world = World::of(Backend::builder().limits(Unlimited), options);
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let world = Arc::new(world);
    let task = waiting(&world, &ana, "wait=30").await;
    let answer = world.get("/v1/couple/live?wait=1", &ben).await;
    assert_eq!(answer.said(), (503, "overloaded"));
    assert!(answer.headers.contains_key("retry-after"));
    world.say(&ben, "hello").await;
    assert_eq!(woken(task).await["frames"][0]["entry"]["body"]["text"], "hello");
    assert_eq!(world.get("/v1/couple/live?wait=0", &ben).await.status, 200);
}

async fn event_stream(world: &World, token: &str) -> (HeaderMap, Body) {
    let request = Request::get("/v1/couple/live")
        .header("authorization", format!("Bearer {token}"))
        .header("accept", "text/event-stream");
    let answer = world.app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), 200);
    let (head, body) = answer.into_parts();
    (head.headers, body)
}

/// Neither a cache nor a compressing or buffering proxy may delay an event.
#[tokio::test]
async fn event_streams_have_headers_against_buffering() {
    let world = World::new();
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let (headers, body) = event_stream(&world, &ana).await;
    assert_eq!(headers["cache-control"], "no-store, no-cache, no-transform");
    assert_eq!(headers["x-accel-buffering"], "no");
    let mut parts = body.into_data_stream();
    let first = timeout(Duration::from_secs(1), parts.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(first, ": open\n\n");
}

/// A browser's `EventSource` reconnects after a stream ended, but not after a status other than 200.
#[tokio::test]
async fn event_stream_beyond_the_limit_gets_a_bye_with_a_retry() {
    let options =
        HttpOptions::default().with_max_live_connections_per_account(2).with_max_live_connections(3);
    let world = World::of(Backend::builder().limits(Unlimited), options);
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let open = [event_stream(&world, &ana).await.1, event_stream(&world, &ana).await.1];
    let refused = async |token: &str, reason: &str, least: u64, most: u64| {
        let (headers, body) = event_stream(&world, token).await;
        assert_eq!(headers["content-type"], "text/event-stream");
        let body = timeout(Duration::from_secs(1), to_bytes(body, 4096)).await.expect("it ends").unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        let after = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
        let bye: Value = serde_json::from_str(&after("data: ")).unwrap();
        let retry: u64 = after("retry: ").parse().unwrap();
        assert_eq!(bye, json!({"type": "bye", "reason": reason, "retry_after_ms": retry}));
        assert!((least..most).contains(&retry), "{text}");
        assert!(!text.contains("id: "), "the cursor that the client has stays: {text}");
    };
    refused(&ana, "too_many_streams", 60_000, 120_000).await;
    // Other transports get a status, and so does a permanent error.
    let answer = world.get("/v1/couple/live?wait=0", &ana).await;
    assert_eq!(answer.said(), (429, "too_many_streams"));
    let third = event_stream(&world, &ben).await.1;
    refused(&ben, "overloaded", 5_000, 15_000).await;
    let request = Request::get("/v1/couple/live").header("accept", "text/event-stream");
    assert_eq!(world.raw(request.body(Body::empty()).unwrap()).await.said(), (401, "unauthenticated"));
    // Existing streams continue.
    world.say(&ben, "hello").await;
    for body in open.into_iter().chain([third]) {
        let mut parts = body.into_data_stream();
        let delivered = timeout(Duration::from_secs(2), async {
            while let Some(part) = parts.next().await {
                if String::from_utf8_lossy(&part.unwrap()).contains("hello") {
                    return true;
                }
            }
            false
        });
        assert!(delivered.await.expect("an open stream receives the entry"));
    }
}

/// Polyfills and cache busters add their own parameters.
#[tokio::test]
async fn unknown_query_parameters_are_ignored_and_unknown_body_fields_refused() {
    let world = World::new();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    world.say(&ana, "one").await;
    let cursor =
        poll(&world, &ben, "after=0&wait=0&_=1700000000000").await["cursor"].as_str().unwrap().to_owned();
    world.say(&ana, "two").await;
    // Npm `event-source-polyfill` resumes this way: its parameter is newer than the page's own.
    let response = poll(&world, &ben, &format!("after=0&wait=0&lastEventId={cursor}")).await;
    assert_eq!(response["frames"].as_array().unwrap().len(), 1, "{response}");
    assert_eq!(response["frames"][0]["entry"]["body"]["text"], "two");
    let none = poll(&world, &ben, "after=0&wait=0&lastEventId=").await;
    assert_eq!(none["frames"].as_array().unwrap().len(), 3, "{none}");
    let invalid = world.get("/v1/couple/live?wait=0&lastEventId=-1", &ben).await;
    assert_eq!(invalid.said(), (422, "invalid_field"));
    for path in ["/v1/couple/entries?limit=1&_=1", "/v1/me?_=1&utm_source=x", "/v1/couple?_=1"] {
        assert_eq!(world.get(path, &ana).await.status, 200, "{path}");
    }
    let uploaded = world.upload(&ana, "purpose=photo&_=1", png(8, 8)).await;
    assert_eq!(uploaded.status, 202, "{}", uploaded.body);
    let body = json!({"client_id": "x", "kind": "text", "body": {"text": "x"}, "couple_id": 1});
    let refused = world.post("/v1/couple/entries?_=1", &ana, body).await;
    assert_eq!(
        (refused.said(), &refused.body["errors"][0]["code"]),
        ((422, "invalid_field"), &json!("unknown_field"))
    );
    assert_eq!(world.call("DELETE", "/v1/couple?block=false&_=1", Some(&ana), None).await.status, 204);
    assert_eq!(world.get("/v1/sessions?_=1", &ana).await.status, 200);
}

#[tokio::test]
async fn draining_ends_streams_with_a_bye() {
    let world = Arc::new(World::new());
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let task = waiting(&world, &ana, "wait=30").await;
    world.backend.live().drain();
    assert_eq!(woken(task).await["frames"][0]["reason"], "draining");
    assert_eq!(world.call("GET", "/readyz", None, None).await.said(), (503, "unavailable"));
    assert_eq!(world.call("GET", "/healthz", None, None).await.status, 200);
}

#[tokio::test]
async fn newer_poll_of_a_device_supersedes_the_older() {
    let world = Arc::new(World::new());
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let older = waiting(&world, &ben, "wait=30&device=tab").await;
    let beside = waiting(&world, &ben, "wait=30&device=other").await;
    let nameless = waiting(&world, &ben, "wait=30").await;
    let newer = waiting(&world, &ben, "wait=30&device=tab").await;
    let response = woken(older).await;
    assert_eq!(response["frames"][0]["reason"], "superseded", "{response}");
    assert!(
        response["frames"][0]["retry_after_ms"].as_u64() >= Some(1_000) && response["cursor"].is_string()
    );
    // Polls of other devices continue, and receive the entry.
    assert!(!beside.is_finished() && !nameless.is_finished());
    world.say(&ana, "hello").await;
    for task in [beside, nameless, newer] {
        assert_eq!(woken(task).await["frames"][0]["entry"]["body"]["text"], "hello");
    }
    let long = format!("device={}", "x".repeat(65));
    assert_eq!(world.get(&format!("/v1/couple/live?{long}"), &ben).await.said(), (422, "invalid_field"));
}

/// A device's new poll takes the permit of its older poll, even at the account's limit.
#[tokio::test]
async fn superseding_poll_needs_no_second_permit() {
    let world = Arc::new(World::new());
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let mut open = Vec::new();
    for n in 0..10 {
        open.push(waiting(&world, &ana, &format!("wait=30&device={n}")).await);
    }
    assert_eq!(world.get("/v1/couple/live?wait=1", &ana).await.said(), (429, "too_many_streams"));
    open.push(waiting(&world, &ana, "wait=30&device=3").await);
    assert_eq!(woken(open.remove(3)).await["frames"][0]["reason"], "superseded");
    assert!(open.iter().all(|task| !task.is_finished()));
}

#[tokio::test]
async fn thumbs_at_the_same_point_send_a_thumb_kiss_to_both() {
    let world = Arc::new(World::new());
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let press = async |token: &str, x: f64| {
        let body = json!({"kind": "thumb", "body": {"x": x, "y": 0.5}});
        assert_eq!(world.post("/v1/couple/signals", token, body).await.status, 202);
    };
    let (by_ana, by_ben) = (
        waiting(&world, &ana, "wait=30&presence=off").await,
        waiting(&world, &ben, "wait=30&presence=off").await,
    );
    press(&ana, 0.25).await;
    // He receives the point of her thumb; she does not receive her own signal.
    let thumb = json!({"type": "signal", "from": "partner", "kind": "thumb", "body": {"x": 0.25, "y": 0.5}});
    assert_eq!(woken(by_ben).await["frames"], json!([thumb]));
    // Far away from it: no `thumb_kiss`.
    press(&ben, 0.75).await;
    assert_eq!(woken(by_ana).await["frames"][0]["kind"], "thumb");
    let (by_ana, by_ben) = (
        waiting(&world, &ana, "wait=30&presence=off").await,
        waiting(&world, &ben, "wait=30&presence=off").await,
    );
    press(&ana, 0.75).await;
    let kiss =
        json!({"type": "signal", "from": "system", "kind": "thumb_kiss", "body": {"x": 0.75, "y": 0.5}});
    assert_eq!(woken(by_ana).await["frames"], json!([kiss]));
    // Ben's poll ends with the first signal that he receives, her thumb.
    assert_eq!(woken(by_ben).await["frames"][0]["kind"], "thumb");
    let refused =
        world.post("/v1/couple/signals", &ana, json!({"kind": "thumb", "body": {"x": 2, "y": 0}})).await;
    assert_eq!(refused.said(), (422, "invalid_field"));
    let forged = world.post("/v1/couple/signals", &ana, json!({"kind": "thumb_kiss"})).await;
    assert_eq!(forged.said(), (422, "invalid_field"));
}
