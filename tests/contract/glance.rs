//! Glance: what it shows, and an entity tag that changes with all of it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use axum::{body::Body, http::Request};
use couple::{
    Backend, Keyring, ManualClock, Timestamp,
    account::{AccountPolicy, HashCost},
    blobs::Blobs,
    core::limits::Unlimited,
    http::HttpOptions,
    store::MemoryStore,
};
use serde_json::{Value, json};

use crate::{
    input::{filled, operations},
    observed_store::{ObservedStore, StoreObserver},
    world::{TestResponse, World, png},
};

/// Glance of a caller who has a response with the tag `known`.
async fn ask(world: &World, token: &str, known: &str) -> TestResponse {
    let request = Request::get("/v1/glance").header("authorization", format!("Bearer {token}"));
    world.raw(request.header("if-none-match", known).body(Body::empty()).unwrap()).await
}

fn tag_of(answer: &TestResponse) -> String {
    answer.headers["etag"].to_str().unwrap().to_owned()
}

/// Glance of one member, with the tag that was seen last.
struct Widget<'a> {
    world: &'a World,
    token: &'a str,
    tag: String,
    body: Value,
}

impl<'a> Widget<'a> {
    async fn new(world: &'a World, token: &'a str) -> Self {
        let answer = world.get("/v1/glance", token).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        Self { world, token, tag: tag_of(&answer), body: answer.body }
    }

    /// Requires that tag and body have changed, and returns the new body.
    async fn changed(&mut self, what: &str) -> Value {
        let answer = ask(self.world, self.token, &self.tag).await;
        assert_eq!(answer.status, 200, "{what}");
        assert_ne!(tag_of(&answer), self.tag, "{what}");
        assert_ne!(answer.body, self.body, "{what}");
        self.tag = tag_of(&answer);
        self.body = answer.body;
        self.unchanged(what).await;
        self.body.clone()
    }

    /// Requires that the tag is current.
    async fn unchanged(&self, what: &str) {
        let answer = ask(self.world, self.token, &self.tag).await;
        assert_eq!((answer.status, tag_of(&answer)), (304, self.tag.clone()), "{what}");
        assert_eq!(answer.body, Value::Null, "{what}");
    }
}

async fn append(world: &World, token: &str, id: &str, kind: &str, body: Value) -> i64 {
    let answer =
        world.post("/v1/couple/entries", token, json!({ "client_id": id, "kind": kind, "body": body })).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    answer.body["seq"].as_i64().unwrap()
}

async fn done(world: &World, method: &str, path: &str, token: &str, body: Value) {
    let body = Some(body).filter(|body| !body.is_null());
    let answer = world.call(method, path, Some(token), body).await;
    assert!([200, 204].contains(&answer.status), "{method} {path}: {}", answer.body);
}

#[tokio::test]
async fn everything_that_a_glance_shows_changes_its_tag() {
    let world = World::new();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let mut widget = Widget::new(&world, &ana).await;
    let expected = json!({
        "partner": { "display_name": "ben", "avatar": null }, "photo": null, "mood": null, "days_together": 0, "unread": 0
    });
    assert_eq!(widget.body, expected);

    let first = world.say(&ben, "hello").await;
    assert_eq!(widget.changed("an entry").await["unread"], 1);
    done(&world, "PUT", "/v1/couple/read", &ana, json!({ "seq": first })).await;
    assert_eq!(widget.changed("read").await["unread"], 0);

    let sunny = append(&world, &ben, "m1", "mood", json!({ "mood": "sunny" })).await;
    let mood = widget.changed("a mood").await["mood"].clone();
    assert_eq!((&mood["seq"], &mood["body"]), (&json!(sunny), &json!({ "mood": "sunny" })));
    let rainy = append(&world, &ben, "m2", "mood", json!({ "mood": "rainy" })).await;
    assert_eq!(widget.changed("another mood").await["mood"]["seq"], rainy);
    let path = format!("/v1/couple/entries/{rainy}");
    done(&world, "PATCH", &path, &ben, json!({ "body": { "mood": "windy" } })).await;
    assert_eq!(widget.changed("an edit").await["mood"]["body"], json!({ "mood": "windy" }));
    done(&world, "DELETE", &path, &ben, Value::Null).await;
    assert_eq!(widget.changed("a deletion").await["mood"]["seq"], sunny);

    let upload = world.upload(&ben, "purpose=photo", png(400, 200)).await.text("id");
    let photo = append(&world, &ben, "p1", "photo", json!({ "media_id": upload })).await;
    assert_eq!(widget.changed("a photo that is processing").await["photo"], Value::Null);
    world.work().await;
    let shown = widget.changed("a photo that is ready").await["photo"].clone();
    assert_eq!((&shown["seq"], &shown["author"]), (&json!(photo), &json!("partner")));
    assert_eq!(shown["picture"]["id"], upload);
    let own = world.photo(&ana, 64).await;
    let own_entry = append(&world, &ana, "p2", "photo", json!({ "media_id": own })).await;
    assert_eq!(widget.changed("an own photo").await["photo"]["author"], "me");
    done(&world, "DELETE", &format!("/v1/couple/entries/{own_entry}"), &ana, Value::Null).await;
    assert_eq!(widget.changed("a deleted photo").await["photo"], shown);

    let avatar = world.upload(&ben, "purpose=avatar", png(300, 300)).await.text("id");
    done(&world, "PUT", "/v1/me/avatar", &ben, json!({ "media_id": avatar })).await;
    widget = Widget::new(&world, &ana).await;
    assert_eq!(widget.body["partner"]["avatar"], Value::Null);
    world.work().await;
    assert_eq!(widget.changed("an avatar").await["partner"]["avatar"]["id"], avatar);
    done(&world, "DELETE", "/v1/me/avatar", &ben, Value::Null).await;
    assert_eq!(widget.changed("no avatar").await["partner"]["avatar"], Value::Null);

    done(&world, "PATCH", "/v1/me", &ben, json!({ "display_name": "Benjamin" })).await;
    assert_eq!(widget.changed("a name").await["partner"]["display_name"], "Benjamin");
    done(&world, "PATCH", "/v1/couple", &ben, json!({ "anniversary": "1970-01-01" })).await;
    let days = widget.changed("an anniversary").await["days_together"].as_i64().unwrap();
    assert!(days > 0);
    world.later(Duration::from_hours(24));
    assert_eq!(widget.changed("the next day").await["days_together"], days + 1);

    assert_eq!(world.call("DELETE", "/v1/couple", Some(&ben), None).await.status, 204);
    assert_eq!(ask(&world, &ana, &widget.tag).await.said(), (404, "not_paired"));
    world.pair(&ana, &ben).await;
    assert_eq!(widget.changed("a new couple").await["days_together"], 0);
}

#[tokio::test]
async fn tag_stays_while_nothing_that_is_shown_changes() {
    let world = World::new();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let first = world.say(&ben, "hello").await;
    let widget = Widget::new(&world, &ana).await;
    done(&world, "PUT", "/v1/couple/read", &ben, json!({ "seq": first })).await;
    done(&world, "PATCH", "/v1/me", &ben, json!({ "locale": "de" })).await;
    done(&world, "PATCH", "/v1/me", &ana, json!({ "locale": "de" })).await;
    widget.unchanged("reads, languages").await;
    let mut partner = Widget::new(&world, &ben).await;
    assert_ne!(partner.tag, widget.tag, "each member has a tag");
    done(&world, "PUT", "/v1/couple/read", &ana, json!({ "seq": first })).await;
    partner.unchanged("the other member has read").await;
    world.say(&ana, "hi").await;
    assert_eq!(partner.changed("an entry").await["unread"], 1);
}

#[tokio::test]
async fn day_changes_at_midnight_of_the_profile() {
    // 2027-01-15T08:00:00Z
    let clock = Arc::new(ManualClock::new(Timestamp::from_micros(1_800_000_000_000_000)));
    let builder = Backend::builder().limits(Unlimited).hash_cost(HashCost::FOR_TESTS);
    let world = World::at(clock, builder, HttpOptions::default());
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let mut widget = Widget::new(&world, &ana).await;
    assert_eq!(widget.body["days_together"], 0);
    world.later(Duration::from_hours(7) - Duration::from_micros(1));
    done(&world, "PATCH", "/v1/me", &ana, json!({ "time_zone": "Asia/Tokyo" })).await;
    // 23:59:59.999999 in Tokyo
    widget.unchanged("the last moment of the day").await;
    world.later(Duration::from_micros(1));
    assert_eq!(widget.changed("midnight in Tokyo").await["days_together"], 1);
    let partner = Widget::new(&world, &ben).await;
    assert_eq!(partner.body["days_together"], 0, "still the 15th in UTC");
    done(&world, "PATCH", "/v1/me", &ana, json!({ "time_zone": null })).await;
    assert_eq!(widget.changed("back to UTC").await["days_together"], 0);
}

#[tokio::test]
async fn host_that_renames_a_user_changes_the_tag() {
    let world = World::of_host();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let mut widget = Widget::new(&world, &ana).await;
    assert_eq!(widget.body["partner"]["display_name"], "ben");
    world.host.as_ref().unwrap().rename(&ben, "Benjamin");
    assert_eq!(widget.changed("a name").await["partner"]["display_name"], "Benjamin");
}

#[tokio::test]
async fn conditional_requests_follow_rfc_9110() {
    let world = World::new();
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let widget = Widget::new(&world, &ana).await;
    let tag = &widget.tag;
    assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() > 20, "{tag}");
    for known in
        [format!("W/{tag}"), format!("\"a\", {tag}"), format!("\"a,b\",W/{tag},\"c\""), "*".to_owned()]
    {
        let answer = ask(&world, &ana, &known).await;
        assert_eq!(answer.status, 304, "{known}");
        for name in ["etag", "cache-control", "vary"] {
            assert!(answer.headers.contains_key(name), "{name}");
        }
        assert_eq!(answer.headers["cache-control"], "private, no-cache");
        assert!(!answer.headers.contains_key("content-type"));
    }
    for known in ["\"a\"", "", "W/\"a\", \"b\"", tag.trim_matches('"')] {
        assert_eq!(ask(&world, &ana, known).await.status, 200, "{known}");
    }
    let head = world.call("HEAD", "/v1/glance", Some(&ana), None).await;
    assert_eq!((head.status, &tag_of(&head)), (200, tag));
}

#[tokio::test]
async fn older_photo_and_mood_are_found_behind_many_others() {
    let world = World::new();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let media = world.photo(&ben, 64).await;
    let photo = append(&world, &ben, "photo", "photo", json!({ "media_id": media })).await;
    let mood = append(&world, &ben, "mood", "mood", json!({})).await;
    for n in 0..45 {
        append(&world, &ana, &format!("m{n}"), "mood", json!({ "n": n })).await;
        let seq = append(&world, &ben, &format!("p{n}"), "photo", json!({ "media_id": media })).await;
        done(&world, "DELETE", &format!("/v1/couple/entries/{seq}"), &ben, Value::Null).await;
    }
    let widget = Widget::new(&world, &ana).await;
    assert_eq!((&widget.body["photo"]["seq"], &widget.body["mood"]["seq"]), (&json!(photo), &json!(mood)));
}

/// Names of the calls of a store.
#[derive(Default)]
struct Calls(Mutex<Vec<&'static str>>);

#[async_trait]
impl StoreObserver for Calls {
    async fn before(&self, what: &'static str) {
        self.0.lock().unwrap().push(what);
    }
    async fn after(&self, _: &'static str) {}
}

#[tokio::test]
async fn unchanged_glance_costs_one_read() {
    let calls = Arc::new(Calls::default());
    let builder = Backend::builder()
        .store(ObservedStore(MemoryStore::new(), calls.clone()))
        .keys(Keyring::new([1; 32]))
        .blobs(Blobs::memory())
        .limits(Unlimited);
    let world = World::of(builder, HttpOptions::default());
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    world.say(&ben, "hello").await;
    let token = widget_token(&world, &ana).await;
    for token in [&ana, &token] {
        let widget = Widget::new(&world, token).await;
        calls.0.lock().unwrap().clear();
        widget.unchanged("nothing").await;
        assert_eq!(*calls.0.lock().unwrap(), ["session_and_couple"]);
    }
}

async fn widget_token(world: &World, session: &str) -> String {
    let answer = world.call("PUT", "/v1/me/widget-token", Some(session), None).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.text("token")
}

/// Status of a glance with a token.
async fn status(world: &World, token: &str) -> u16 {
    world.get("/v1/glance", token).await.status
}

#[tokio::test]
async fn widget_token_reads_the_glance_and_its_pictures_only() {
    let world = World::new();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let token = widget_token(&world, &ana).await;
    assert!(token.starts_with("widget_"), "{token}");
    let [older, newest] = [world.photo(&ben, 64).await, world.photo(&ben, 65).await];
    for (n, photo) in [&older, &newest].into_iter().enumerate() {
        append(&world, &ben, &format!("p{n}"), "photo", json!({ "media_id": photo })).await;
    }
    let avatar = world.upload(&ben, "purpose=avatar", png(300, 300)).await.text("id");
    done(&world, "PUT", "/v1/me/avatar", &ben, json!({ "media_id": avatar })).await;
    world.work().await;
    let glance = Widget::new(&world, &token).await;
    assert_eq!(glance.body, Widget::new(&world, &ana).await.body);
    let mut loaded = 0;
    for picture in [&glance.body["partner"]["avatar"], &glance.body["photo"]["picture"]] {
        for rendition in picture["renditions"].as_array().unwrap() {
            let url = rendition["url"].as_str().unwrap();
            let (_, path) = url.split_once("/v1/").unwrap();
            let answer = world.get(&format!("/v1/{path}"), &token).await;
            assert_eq!(
                (answer.status, &answer.headers["content-type"]),
                (200, &"image/jpeg".parse().unwrap())
            );
            loaded += 1;
        }
    }
    assert!(loaded > 2, "{loaded}");
    let path = |id: &str| format!("/v1/media/{id}/320");
    assert_eq!(world.get(&path(&older), &ana).await.status, 200);
    assert_eq!(world.get(&path(&older), &token).await.said(), (404, "media_not_found"));
    for (method, template, _) in operations(&world).await {
        if (method.as_str(), template.as_str()) == ("GET", "/v1/glance") {
            continue;
        }
        let path = filled(&template);
        let unknown = world.call(&method, &path, Some("widget_unknown"), None).await;
        let refused = world.call(&method, &path, Some(&token), None).await;
        if template == "/v1/media/{id}/{rendition}" {
            assert_eq!((unknown.status, refused.said()), (401, (404, "media_not_found")));
            continue;
        }
        assert_eq!(refused.said(), unknown.said(), "{method} {path}");
        let is_open = world.call(&method, &path, None, None).await.said() == unknown.said();
        assert!(is_open || unknown.status == 401, "{method} {path}: {}", unknown.body);
    }
    assert_eq!(world.call("DELETE", "/v1/couple", Some(&ben), None).await.status, 204);
    assert_eq!(world.get("/v1/glance", &token).await.said(), (404, "not_paired"));
    assert_eq!(world.get(&path(&newest), &token).await.said(), (404, "media_not_found"));
}

#[tokio::test]
async fn widget_token_ends_with_its_session() {
    let world = World::new();
    let (phone, _) = world.couple("ana@example.org", "ben@example.org").await;
    let sign_in = async || {
        let session = world.sign_in("ana@example.org").await;
        let token = widget_token(&world, &session).await;
        assert_eq!(status(&world, &token).await, 200);
        (session, token)
    };
    let (session, token) = sign_in().await;
    done(&world, "DELETE", "/v1/sessions/current", &session, Value::Null).await;
    assert_eq!(status(&world, &token).await, 401, "signed out");
    let (session, token) = sign_in().await;
    let sessions = world.get("/v1/sessions", &session).await.body;
    let current = sessions["sessions"].as_array().unwrap().iter().find(|one| one["current"] == true).unwrap();
    assert_eq!(current["has_widget_token"], true);
    let path = format!("/v1/sessions/{}", current["id"].as_str().unwrap());
    done(&world, "DELETE", &path, &phone, Value::Null).await;
    assert_eq!(status(&world, &token).await, 401, "revoked");
    let (_, token) = sign_in().await;
    done(&world, "DELETE", "/v1/sessions", &phone, Value::Null).await;
    assert_eq!(status(&world, &token).await, 401, "all others are revoked");
    let (_, token) = sign_in().await;
    let (current, own) = sign_in().await;
    let password = json!({ "new_password": "mauve kettle orbit" });
    done(&world, "PUT", "/v1/password", &current, password).await;
    assert_eq!(status(&world, &token).await, 401, "the password was changed");
    assert_eq!(status(&world, &own).await, 401, "the session that changed it has ended, too");
    let (_, own) = sign_in().await;
    world.later(Duration::from_hours(24 * 31));
    assert_eq!(status(&world, &own).await, 401, "the session is not used, only its widget");
    let (session, token) = sign_in().await;
    assert_eq!(world.call("DELETE", "/v1/me", Some(&session), None).await.status, 202);
    assert_eq!(status(&world, &token).await, 401, "the deletion was requested");
}

#[tokio::test]
async fn session_has_one_widget_token_and_an_account_few() {
    let policy = AccountPolicy::default().with_max_widget_tokens(2);
    let world = World::of(Backend::builder().limits(Unlimited).accounts(policy), HttpOptions::default());
    let (first, _) = world.couple("ana@example.org", "ben@example.org").await;
    let old = widget_token(&world, &first).await;
    let new = widget_token(&world, &first).await;
    assert_eq!((status(&world, &old).await, status(&world, &new).await), (401, 200));
    let second = world.sign_in("ana@example.org").await;
    let other = widget_token(&world, &second).await;
    let third = world.sign_in("ana@example.org").await;
    let refused = world.call("PUT", "/v1/me/widget-token", Some(&third), None).await;
    assert_eq!(refused.said(), (409, "too_many_widget_tokens"));
    assert_eq!(status(&world, &widget_token(&world, &second).await).await, 200, "a session replaces its own");
    assert_eq!(status(&world, &other).await, 401);
    for _ in 0..2 {
        done(&world, "DELETE", "/v1/me/widget-token", &first, Value::Null).await;
    }
    assert_eq!(status(&world, &new).await, 401);
    assert_eq!(status(&world, &widget_token(&world, &third).await).await, 200);
}
