//! Concurrent requests that decide from the same state lose no update and exceed no limit.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use axum::{
    Router,
    body::{Body, to_bytes},
    http::Request,
};
use couple::{
    Backend, Keyring, blobs::Blobs, core::limits::Unlimited, http::HttpOptions, store::MemoryStore,
};
use serde_json::{Value, json};
use tokio::sync::Barrier;
use tower::ServiceExt as _;

use crate::{
    observed_store::{ObservedStore, StoreObserver},
    world::{World, png},
};

/// Sends requests concurrently (method, path, token, body). Returns their statuses in order.
async fn at_once(world: &Arc<World>, requests: Vec<(&'static str, &'static str, String, Value)>) -> Vec<u16> {
    let start = Arc::new(Barrier::new(requests.len()));
    let tasks: Vec<_> = requests
        .into_iter()
        .map(|(method, path, token, body)| {
            let (world, start) = (world.clone(), start.clone());
            tokio::spawn(async move {
                start.wait().await;
                let body = Some(body).filter(|body| !body.is_null());
                world.call(method, path, Some(&token), body).await.status
            })
        })
        .collect();
    let mut statuses = Vec::new();
    for task in tasks {
        statuses.push(task.await.unwrap());
    }
    statuses
}

/// Number of entries of each kind in a couple's log.
async fn kinds(world: &World, token: &str) -> BTreeMap<String, usize> {
    let page = world.get("/v1/couple/entries?after=0&limit=200", token).await;
    let mut kinds = BTreeMap::new();
    for entry in page.body["entries"].as_array().unwrap() {
        *kinds.entry(entry["kind"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    kinds
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_title_and_anniversary_are_both_kept() {
    let world = Arc::new(World::new());
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    for n in 0..40 {
        let (title, day) = (format!("title {n}"), format!("2020-01-{:02}", n % 28 + 1));
        let statuses = at_once(
            &world,
            vec![
                ("PATCH", "/v1/couple", ana.clone(), json!({ "title": title })),
                ("PATCH", "/v1/couple", ben.clone(), json!({ "anniversary": day })),
            ],
        )
        .await;
        assert_eq!(statuses, [200, 200]);
        let couple = world.get("/v1/couple", &ana).await;
        assert_eq!((couple.text("title"), couple.text("anniversary")), (title, day), "round {n}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_restore_wishes_write_one_restored_entry() {
    let world = Arc::new(World::new());
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    for n in 0..9 {
        world.say(&ana, &format!("e{n}")).await;
        assert_eq!(world.call("DELETE", "/v1/couple", Some(&ana), None).await.status, 204);
        world.pair(&ana, &ben).await;
        // Each member from two devices.
        let yes = |token: &String| ("PUT", "/v1/couple/previous", token.clone(), json!({ "wanted": true }));
        let statuses = at_once(&world, vec![yes(&ana), yes(&ben), yes(&ana), yes(&ben)]).await;
        assert_eq!(statuses, [200; 4]);
        assert_eq!(kinds(&world, &ben).await.get("restored"), Some(&1), "round {n}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_invites_stop_at_the_limit() {
    let world = Arc::new(World::new());
    let ana = world.join("ana@example.org").await;
    let invite = ("POST", "/v1/invites", ana.clone(), json!({}));
    let statuses = at_once(&world, vec![invite; 20]).await;
    let count = |wanted| statuses.iter().filter(|status| **status == wanted).count();
    assert_eq!((count(201), count(409)), (10, 10), "{statuses:?}");
    let listed = world.get("/v1/invites", &ana).await;
    assert_eq!(listed.body["sent"].as_array().unwrap().len(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_profile_changes_are_all_kept() {
    let world = Arc::new(World::new());
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    for n in 0..20 {
        let (name, day) = (format!("Ana {n}"), format!("1990-01-{:02}", n + 1));
        let patch = |body| ("PATCH", "/v1/me", ana.clone(), body);
        let statuses =
            at_once(&world, vec![patch(json!({ "display_name": name })), patch(json!({ "birthday": day }))])
                .await;
        assert_eq!(statuses, [200, 200]);
        let me = world.get("/v1/me", &ana).await;
        assert_eq!((me.text("display_name"), me.text("birthday")), (name, day), "round {n}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_avatars_leave_one_picture() {
    let world = Arc::new(World::new());
    let ana = world.join("ana@example.org").await;
    for round in 0..10_u32 {
        let mut uploads = Vec::new();
        for n in 0..4 {
            let answer = world.upload(&ana, "purpose=avatar", png(64 + round * 4 + n, 64)).await;
            uploads.push(answer.text("id"));
        }
        world.work().await;
        let set = |id: &String| ("PUT", "/v1/me/avatar", ana.clone(), json!({ "media_id": id }));
        let statuses = at_once(&world, uploads.iter().map(set).collect()).await;
        assert_eq!(statuses, [204; 4]);
        let mut left = 0;
        for id in &uploads {
            left += usize::from(world.get(&format!("/v1/media/{id}"), &ana).await.status == 200);
        }
        assert_eq!(left, 1, "round {round}: the previous pictures are deleted");
        assert_eq!(world.call("DELETE", "/v1/me/avatar", Some(&ana), None).await.status, 204);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletion_request_and_concurrent_accept_leave_no_invite() {
    for round in 0..10 {
        let world = Arc::new(World::new());
        let (ana, ben) = (world.join("ana@example.org").await, world.join("ben@example.org").await);
        let code = world.post("/v1/invites", &ana, json!({})).await.text("code");
        let statuses = at_once(
            &world,
            vec![
                ("DELETE", "/v1/me", ana.clone(), Value::Null),
                ("POST", "/v1/invites/accept", ben.clone(), json!({ "code": code })),
                ("POST", "/v1/invites", ana.clone(), json!({})),
            ],
        )
        .await;
        assert_eq!(statuses[0], 202, "round {round}");
        assert!(matches!(statuses[1], 201 | 404), "round {round}: {statuses:?}");
        assert!(matches!(statuses[2], 201 | 401 | 409), "round {round}: {statuses:?}");
        let again = world.post("/v1/invites/preview", &ben, json!({ "code": code })).await;
        assert_eq!(again.said(), (404, "invite_not_found"));
    }
}

async fn send(app: &Router, method: &str, path: &str, token: &str, body: Value) -> Value {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json");
    let answer = app.clone().oneshot(request.body(Body::from(body.to_string())).unwrap()).await.unwrap();
    assert!(answer.status().is_success(), "{method} {path}");
    let body = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    serde_json::from_slice(&body).unwrap_or_default()
}

/// Before the next commit, the first account leaves its couple and pairs with the third one.
#[derive(Default)]
struct ChangeOfPartner(Mutex<Option<(Router, [String; 2])>>);

#[async_trait]
impl StoreObserver for ChangeOfPartner {
    async fn before(&self, what: &'static str) {
        let armed = if what == "commit" { self.0.lock().unwrap().take() } else { None };
        let Some((app, [ana, cleo])) = armed else { return };
        send(&app, "DELETE", "/v1/couple", &ana, Value::Null).await;
        let invite = send(&app, "POST", "/v1/invites", &ana, json!({})).await;
        send(&app, "POST", "/v1/invites/accept", &cleo, json!({ "code": invite["code"] })).await;
    }
    async fn after(&self, _: &'static str) {}
}

/// The couple ends between the check of `Couple-Id` and the commit: the next couple is not changed.
#[tokio::test]
async fn couple_that_ends_before_the_commit_is_not_replaced_by_the_next() {
    for (method, path) in [
        ("PATCH", "/v1/couple"),
        ("PUT", "/v1/couple/previous"),
        ("POST", "/v1/media?purpose=photo"),
        ("POST", "/v1/couple/entries"),
    ] {
        let observer = Arc::new(ChangeOfPartner::default());
        let builder = Backend::builder()
            .store(ObservedStore(MemoryStore::new(), observer.clone()))
            .keys(Keyring::new([7; 32]))
            .blobs(Blobs::memory())
            .limits(Unlimited);
        let world = World::of(builder, HttpOptions::default());
        let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
        // So that there is a previous couple with entries.
        world.say(&ana, "before").await;
        world.call("DELETE", "/v1/couple", Some(&ana), None).await;
        world.pair(&ana, &ben).await;
        let cleo = world.join("cleo@example.org").await;
        let couple = world.get("/v1/couple", &ana).await.text("id");
        *observer.0.lock().unwrap() = Some((world.app.clone(), [ana.clone(), cleo.clone()]));
        let body = match path {
            "/v1/couple" => json!({ "title": "Us" }).to_string().into_bytes(),
            "/v1/couple/previous" => json!({ "wanted": true }).to_string().into_bytes(),
            "/v1/couple/entries" => {
                json!({ "client_id": "a", "kind": "hug", "body": {} }).to_string().into_bytes()
            }
            _ => png(40, 40),
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {ana}"))
            .header("content-type", "application/json")
            .header("couple-id", &couple)
            .body(Body::from(body));
        assert_eq!(world.raw(request.unwrap()).await.said(), (404, "not_paired"), "{method} {path}");
        let next = world.get("/v1/couple", &cleo).await;
        assert_ne!(next.text("id"), couple);
        assert_eq!(
            (&next.body["title"], &next.body["head_seq"]),
            (&Value::Null, &json!(1)),
            "{method} {path}"
        );
        assert_eq!(world.get("/v1/media", &cleo).await.body["media"], json!([]), "{method} {path}");
    }
}
