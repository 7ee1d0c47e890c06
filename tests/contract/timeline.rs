//! The timeline: appending, paging, editing, reactions, read positions.

use axum::{body::Body, http::Request};
use serde_json::{Value, json};

use crate::world::World;

#[tokio::test]
async fn repeated_client_id_returns_the_same_entry() {
    let world = World::new();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let entry = json!({"client_id": "a", "kind": "text", "body": {"text": "hi"}});
    let first = world.post("/v1/couple/entries", &ana, entry.clone()).await;
    let again = world.post("/v1/couple/entries", &ana, entry.clone()).await;
    assert_eq!((first.status, again.status), (201, 200));
    assert_eq!(first.body, again.body);
    let other = json!({"client_id": "a", "kind": "text", "body": {"text": "bye"}});
    assert_eq!(world.post("/v1/couple/entries", &ana, other).await.said(), (422, "idempotency_key_reused"));
    assert_eq!(
        world.post("/v1/couple/entries", &ben, entry).await.status,
        201,
        "the partner's own client id"
    );
}

#[tokio::test]
async fn changes_append_entries_and_leave_no_copy() {
    let world = World::new();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let seq = world.say(&ana, "first-words").await;
    let path = format!("/v1/couple/entries/{seq}");
    let edited =
        world.call("PATCH", &path, Some(&ana), Some(json!({"body": {"text": "better words"}}))).await;
    assert_eq!(edited.body["body"]["text"], "better words");
    let reaction = format!("{path}/reaction");
    world.call("PUT", &reaction, Some(&ben), Some(json!({"emoji": "❤️"}))).await;
    let seen = world.get(&path, &ana).await;
    assert_eq!(seen.body["reactions"], json!({"partner": "❤️"}));
    assert_eq!(world.get(&path, &ben).await.body["reactions"], json!({"me": "❤️"}));
    // A repeated reaction changes nothing and appends nothing.
    world.call("PUT", &reaction, Some(&ben), Some(json!({"emoji": "❤️"}))).await;
    let page = world.get("/v1/couple/entries?after=0", &ben).await;
    let kinds: Vec<&str> = page.body["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["paired", "text", "entry_edited", "entry_reacted"]);
    assert_eq!(page.body["entries"][2]["target"]["body"]["text"], "better words");
    assert_eq!(world.call("DELETE", &path, Some(&ana), None).await.status, 204);
    let page = world.get("/v1/couple/entries?after=0", &ben).await;
    assert!(!page.body.to_string().contains("words"), "{}", page.body);
    assert_eq!(page.body["entries"][1]["body"], Value::Null);
    assert_eq!(page.body["entries"][1]["reactions"], json!({}));
    for (method, path, body) in [
        ("PATCH", path.clone(), Some(json!({"body": {"text": "x"}}))),
        ("DELETE", path.clone(), None),
        ("PUT", reaction, Some(json!({"emoji": "👍"}))),
    ] {
        assert_eq!(world.call(method, &path, Some(&ana), body).await.said(), (410, "entry_deleted"));
    }
    // Entries of the system cannot be changed.
    for path in ["/v1/couple/entries/1", "/v1/couple/entries/3"] {
        let answer = world.call("DELETE", path, Some(&ana), None).await;
        assert_eq!(answer.said(), (403, "not_author"));
        let answer =
            world.call("PUT", &format!("{path}/reaction"), Some(&ana), Some(json!({"emoji": "👍"}))).await;
        assert_eq!(answer.said(), (404, "entry_not_found"));
    }
}

#[tokio::test]
async fn pages_can_be_read_in_both_directions() {
    let world = World::new();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    for n in 0..9 {
        world.say(if n % 2 == 0 { &ana } else { &ben }, &n.to_string()).await;
    }
    let page = async |query: &str| {
        let answer = world.get(&format!("/v1/couple/entries?{query}"), &ana).await;
        let seqs: Vec<i64> = answer.body["entries"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["seq"].as_i64().unwrap())
            .collect();
        (seqs, answer.body["next"].as_i64())
    };
    assert_eq!(page("limit=4").await, (vec![7, 8, 9, 10], Some(7)), "the newest page by default");
    assert_eq!(page("limit=4&before=7").await, (vec![3, 4, 5, 6], Some(3)));
    assert_eq!(page("limit=4&before=3").await, (vec![1, 2], None));
    assert_eq!(page("limit=4&before=5").await, (vec![1, 2, 3, 4], None));
    assert_eq!(page("limit=6&after=0").await, (vec![1, 2, 3, 4, 5, 6], Some(6)));
    assert_eq!(page("limit=6&after=6").await, (vec![7, 8, 9, 10], None));
    assert_eq!(page("after=0&kind=paired").await, (vec![1], None));
    assert_eq!(page("after=10").await, (vec![], None));
}

#[tokio::test]
async fn read_positions_never_move_back() {
    let world = World::new();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    for n in 0..3 {
        world.say(&ana, &n.to_string()).await;
    }
    for (seq, expected) in [(2, 2), (1, 2), (-5, 2), (99, 4)] {
        let answer = world.call("PUT", "/v1/couple/read", Some(&ben), Some(json!({ "seq": seq }))).await;
        assert_eq!(answer.status, 204);
        assert_eq!(world.get("/v1/couple", &ana).await.body["partner_read_seq"], expected);
    }
    assert_eq!(world.get("/v1/couple", &ana).await.body["my_read_seq"], 0);
}

#[tokio::test]
async fn partner_is_notified_of_a_new_name() {
    let world = World::new();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    world.call("PATCH", "/v1/me", Some(&ana), Some(json!({"display_name": "Anička", "locale": "cs"}))).await;
    assert_eq!(world.get("/v1/couple", &ben).await.body["partner"]["display_name"], "Anička");
    let page = world.get("/v1/couple/entries?after=1", &ben).await;
    assert_eq!(page.body["entries"][0]["kind"], "profile_changed");
    assert_eq!(page.body["entries"][0]["author"], "partner");
    let cleared = world.call("PATCH", "/v1/me", Some(&ana), Some(json!({"locale": null}))).await;
    assert_eq!((cleared.status, &cleared.body["locale"]), (200, &Value::Null));
    let couple = world
        .call("PATCH", "/v1/couple", Some(&ben), Some(json!({"title": "Us", "anniversary": "2020-02-29"})))
        .await;
    assert_eq!((couple.text("title").as_str(), couple.text("anniversary").as_str()), ("Us", "2020-02-29"));
}

#[tokio::test]
async fn unread_counts_what_the_partner_wrote_after_my_read_position() {
    let world = World::new();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let unread = async |token: &str| world.get("/v1/couple", token).await.body["unread"].clone();
    assert_eq!((unread(&ana).await, unread(&ben).await), (json!(0), json!(0)));
    let first = world.say(&ana, "a").await;
    let second = world.say(&ana, "b").await;
    world.say(&ben, "c").await;
    let entry = |seq: i64| format!("/v1/couple/entries/{seq}");
    world.call("PUT", &format!("{}/reaction", entry(first)), Some(&ana), Some(json!({"emoji": "❤️"}))).await;
    world.call("PATCH", &entry(first), Some(&ana), Some(json!({"body": {"text": "A"}}))).await;
    world.call("PATCH", "/v1/me", Some(&ana), Some(json!({"display_name": "Anna"}))).await;
    assert_eq!((unread(&ana).await, unread(&ben).await), (json!(1), json!(2)));
    world.call("PUT", "/v1/couple/read", Some(&ben), Some(json!({ "seq": first }))).await;
    assert_eq!(unread(&ben).await, json!(1));
    world.call("DELETE", &entry(second), Some(&ana), None).await;
    assert_eq!(unread(&ben).await, json!(0));
}

#[tokio::test]
async fn read_positions_are_limited() {
    let clock = std::sync::Arc::new(couple::ManualClock::default());
    let world = World::with(couple::store::MemoryLimits::new(clock));
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let mut statuses = std::collections::BTreeMap::new();
    for _ in 0..310 {
        let answer = world.call("PUT", "/v1/couple/read", Some(&ana), Some(json!({ "seq": 1 }))).await;
        *statuses.entry(answer.status).or_insert(0) += 1;
    }
    assert_eq!(statuses, std::collections::BTreeMap::from([(204, 300), (429, 10)]));
}

/// Every write to the couple may name it: for another one it is refused and changes nothing.
#[tokio::test]
async fn write_for_another_couple_is_refused() {
    let world = World::new();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let former = world.get("/v1/couple", &ana).await.text("id");
    let seqs = (world.say(&ana, "for-ben-alone").await, world.say(&ana, "this-too").await);
    assert_eq!(world.call("DELETE", "/v1/couple", Some(&ana), None).await.status, 204);
    let cleo = world.join("cleo@example.org").await;
    world.pair(&ana, &cleo).await;
    let current = world.get("/v1/couple", &ana).await.text("id");
    assert_eq!((world.say(&ana, "hello").await, world.say(&ana, "cleo").await), seqs, "the same numbers");
    let write = async |method: &str, path: &str, body: &Value, couple: &str| {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {ana}"))
            .header("content-type", "application/json")
            .header("couple-id", couple)
            .body(if body.is_null() { Body::empty() } else { Body::from(body.to_string()) });
        world.raw(request.unwrap()).await
    };
    let state = async || {
        let page = world.get("/v1/couple/entries?after=0", &cleo).await.body["entries"].clone();
        (page, world.get("/v1/couple", &cleo).await.body["partner_read_seq"].clone())
    };
    let other = world.couple("dan@example.org", "eve@example.org").await.0;
    let other = world.get("/v1/couple", &other).await.text("id");
    let entry = format!("/v1/couple/entries/{}", seqs.0);
    let reaction = format!("{entry}/reaction");
    let writes = [
        ("POST", "/v1/couple/entries", json!({"client_id": "x", "kind": "hug", "body": {}}), 201),
        ("POST", "/v1/couple/signals", json!({"kind": "hug"}), 202),
        ("PUT", "/v1/couple/read", json!({"seq": seqs.1}), 204),
        ("PATCH", "/v1/couple", json!({"title": "Us"}), 200),
        ("PATCH", entry.as_str(), json!({"body": {"text": "edited"}}), 200),
        ("PUT", reaction.as_str(), json!({"emoji": "❤️"}), 200),
        ("DELETE", reaction.as_str(), Value::Null, 204),
        ("DELETE", entry.as_str(), Value::Null, 204),
    ];
    for (method, path, body, status) in &writes {
        let before = state().await;
        for couple in [former.as_str(), &other, "no-id", ""] {
            let answer = write(method, path, body, couple).await;
            assert_eq!(answer.said(), (404, "not_paired"), "{method} {path} for {couple:?}");
        }
        assert_eq!(state().await, before, "{method} {path}");
        assert_eq!(write(method, path, body, &current).await.status, *status, "{method} {path}");
        if *path != "/v1/couple/signals" {
            assert_ne!(state().await, before, "{method} {path}");
        }
    }
    assert_eq!(world.get("/v1/couple", &ben).await.said(), (404, "not_paired"));
}

/// The OpenAPI document lists the header on the routes that check it, and no other.
#[tokio::test]
async fn couple_id_is_documented_where_it_is_checked() {
    let document = World::new().raw(Request::get("/v1/openapi.json").body(Body::empty()).unwrap()).await.body;
    let mut listed: Vec<String> = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            if parameters.into_iter().any(|parameter| parameter["name"] == "Couple-Id") {
                let problems = operation["responses"]["404"]["description"].as_str().unwrap_or("");
                assert!(problems.contains("`not_paired`"), "{method} {path}: {problems}");
                listed.push(format!("{} {path}", method.to_uppercase()));
            }
        }
    }
    listed.sort();
    let wanted = [
        "DELETE /v1/couple",
        "DELETE /v1/couple/dates/{id}",
        "DELETE /v1/couple/entries/{seq}",
        "DELETE /v1/couple/entries/{seq}/reaction",
        "PATCH /v1/couple",
        "PATCH /v1/couple/dates/{id}",
        "PATCH /v1/couple/entries/{seq}",
        "POST /v1/couple/dates",
        "POST /v1/couple/entries",
        "POST /v1/couple/signals",
        "POST /v1/media",
        "POST /v1/uploads",
        "PUT /v1/couple/entries/{seq}/reaction",
        "PUT /v1/couple/previous",
        "PUT /v1/couple/read",
    ];
    assert_eq!(listed, wanted);
}
