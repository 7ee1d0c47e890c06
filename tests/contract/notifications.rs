//! Notification preferences: defaults, changes of single fields, checks, and the caller they belong to.

use std::time::Duration;

use axum::{
    body::{Body, to_bytes},
    http::{HeaderMap, Request},
};
use couple::{
    Backend, core::limits::Unlimited, http::HttpOptions, mail::Message, notification::NotificationPolicy,
};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::world::World;

const PATH: &str = "/v1/me/notifications";

fn defaults() -> Value {
    json!({
        "entries": true, "reactions": true, "pairing": true, "previews": false, "muted_until": null, "quiet_hours": null,
        "time_zone": null, "digest_minutes": null
    })
}

#[tokio::test]
async fn preferences_are_changed_field_by_field() {
    let world = World::new();
    let (ana, ben) = (world.join("ana@example.org").await, world.join("ben@example.org").await);
    let change = async |patch: Value| {
        let answer = world.call("PATCH", PATH, Some(&ana), Some(patch)).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(world.get(PATH, &ana).await.body, answer.body);
        answer.body
    };
    assert_eq!(world.get(PATH, &ana).await.body, defaults());
    assert_eq!(change(json!({})).await, defaults());
    let mut expected = defaults();
    let steps = [
        ("entries", json!(false), json!(false)),
        ("reactions", json!(false), json!(false)),
        ("pairing", json!(false), json!(false)),
        ("previews", json!(true), json!(true)),
        ("muted_until", json!("2030-01-01T01:00:00+01:00"), json!("2030-01-01T00:00:00.000Z")),
        ("quiet_hours", json!({ "from": "22:00", "to": "07:30" }), json!({ "from": "22:00", "to": "07:30" })),
        ("time_zone", json!("Europe/Rome"), json!("Europe/Rome")),
        ("entries", json!(true), json!(true)),
    ];
    for (field, sent, got) in steps {
        expected[field] = got;
        assert_eq!(change(json!({ field: sent })).await, expected, "{field}");
    }
    for field in ["muted_until", "quiet_hours", "time_zone"] {
        expected[field] = Value::Null;
        assert_eq!(change(json!({ field: null })).await, expected, "{field}");
    }
    assert_eq!(world.get(PATH, &ben).await.body, defaults());
}

#[tokio::test]
async fn invalid_preferences_are_refused_with_their_field() {
    let world = World::new();
    let ana = world.join("ana@example.org").await;
    let quiet = |from: &str, to: &str| json!({ "quiet_hours": { "from": from, "to": to } });
    let cases = [
        (json!({ "muted_until": "tomorrow" }), "muted_until"),
        (json!({ "muted_until": 1_900_000_000 }), "muted_until"),
        (json!({ "time_zone": "Mars/Olympus" }), "time_zone"),
        (quiet("7:30", "08:00"), "quiet_hours.from"),
        (quiet("07:30", "24:00"), "quiet_hours.to"),
        (quiet("07:30", "07:30"), "quiet_hours"),
        (json!({ "quiet_hours": { "from": "07:30" } }), "quiet_hours"),
        (json!({ "entries": "yes" }), "entries"),
        // This server sends no digests.
        (json!({ "digest_minutes": 60 }), "digest_minutes"),
        (json!({ "digest_minutes": 4 }), "digest_minutes"),
        (json!({ "digest_minutes": 70_000 }), "digest_minutes"),
    ];
    for (patch, field) in cases {
        let answer = world.call("PATCH", PATH, Some(&ana), Some(patch.clone())).await;
        assert_eq!(answer.said(), (422, "invalid_field"), "{patch}: {}", answer.body);
        let named = answer.body["errors"].to_string();
        assert!(named.contains(field), "{patch}: {}", answer.body);
    }
    let unknown = world.call("PATCH", PATH, Some(&ana), Some(json!({ "mail": true }))).await;
    assert_eq!(unknown.said(), (422, "invalid_field"), "{}", unknown.body);
    assert_eq!(world.get(PATH, &ana).await.body, defaults());
}

#[tokio::test]
async fn changed_preferences_are_in_the_export() {
    let world = World::new();
    let ana = world.join("ana@example.org").await;
    assert_eq!(world.get("/v1/me/export", &ana).await.body["notifications"], Value::Null);
    world.call("PATCH", PATH, Some(&ana), Some(json!({ "previews": true }))).await;
    let exported = &world.get("/v1/me/export", &ana).await.body["notifications"];
    assert_eq!(exported["previews"], true, "{exported}");
}

/// Status, headers and HTML of a request without a session.
async fn page(world: &World, request: Request<Body>) -> (u16, HeaderMap, String) {
    let response = world.app.clone().oneshot(request).await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let html = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, headers, String::from_utf8(html.to_vec()).unwrap())
}

#[tokio::test]
async fn link_of_a_digest_stops_the_digests_and_opening_it_changes_nothing() {
    let policy = NotificationPolicy::default().with_digests(true);
    let builder = Backend::builder().limits(Unlimited).notifications(policy);
    let world = World::of(builder, HttpOptions::default());
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    for minutes in [5, 10_080, 15] {
        let answer = world.call("PATCH", PATH, Some(&ben), Some(json!({ "digest_minutes": minutes }))).await;
        assert_eq!(answer.body["digest_minutes"], minutes, "{}", answer.body);
    }
    for wrong in [json!(4), json!(10_081), json!(-15), json!("15")] {
        let answer = world.call("PATCH", PATH, Some(&ben), Some(json!({ "digest_minutes": wrong }))).await;
        assert_eq!(answer.said(), (422, "invalid_field"), "{}", answer.body);
    }
    world.say(&ana, "one").await;
    world.work().await;
    world.later(Duration::from_mins(15));
    world.work().await;
    let mail = world.mailer.last_to("ben@example.org").unwrap();
    let Message::Digest { unsubscribe, .. } = mail.message else { panic!("{mail:?}") };
    let path = unsubscribe.expose().strip_prefix("http://127.0.0.1:8080").unwrap().to_owned();

    let get = |language: &str| {
        Request::get(&*path).header("accept-language", language).body(Body::empty()).unwrap()
    };
    let (status, headers, html) = page(&world, get("de-AT,de;q=0.9")).await;
    assert_eq!(status, 200);
    assert!(html.contains("<html lang=de dir=ltr>") && html.contains("Möchtest du diese Mails"), "{html}");
    assert!(html.contains("<form method=post><button>Diese Mails abbestellen</button></form>"), "{html}");
    let policy = headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none';") && policy.contains("form-action 'self'"), "{policy}");
    for (name, value) in [("referrer-policy", "no-referrer"), ("cache-control", "no-store")] {
        assert_eq!(headers[name], value);
    }
    assert!(page(&world, get("ar")).await.2.contains("<html lang=ar dir=rtl>"));
    let head = Request::head(&*path).body(Body::empty()).unwrap();
    assert_eq!(page(&world, head).await.0, 200);
    assert_eq!(world.get(PATH, &ben).await.body["digest_minutes"], 15, "opening the link changes nothing");

    let post = |path: &str, kind: &str, body: &str| {
        let request = Request::post(path).header("content-type", kind);
        request.body(Body::from(body.to_owned())).unwrap()
    };
    const FORM: &str = "application/x-www-form-urlencoded";
    const ONE_CLICK: &str = "List-Unsubscribe=One-Click";
    let forged = format!("{}{}", &path[..path.len() - 1], if path.ends_with('A') { "B" } else { "A" });
    let (status, _, html) = page(&world, post(&forged, FORM, ONE_CLICK)).await;
    assert!(status == 404 && html.contains("This link does not work."), "{status} {html}");
    assert_eq!(world.get(PATH, &ben).await.body["digest_minutes"], 15);
    // As a mail program, then again, then as the page.
    let multipart =
        "--x\r\nContent-Disposition: form-data; name=\"List-Unsubscribe\"\r\n\r\nOne-Click\r\n--x--\r\n";
    for (kind, body) in [(FORM, ONE_CLICK), ("multipart/form-data; boundary=x", multipart), (FORM, "")] {
        let (status, headers, html) = page(&world, post(&path, kind, body)).await;
        assert!(status == 200 && html.contains("You will get no more mails"), "{status} {html}");
        assert!(!html.contains("<form") && !headers.contains_key("set-cookie"), "{html}");
        assert_eq!(world.get(PATH, &ben).await.body["digest_minutes"], Value::Null);
    }
    assert_eq!(world.get(PATH, &ben).await.body["entries"], true);
    world.say(&ana, "two").await;
    world.work().await;
    world.later(Duration::from_hours(1));
    world.work().await;
    assert_eq!(
        world.mailer.sent().iter().filter(|mail| matches!(mail.message, Message::Digest { .. })).count(),
        1
    );
}
