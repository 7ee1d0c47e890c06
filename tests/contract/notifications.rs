//! Notification preferences: defaults, changes of single fields, checks, and the caller they belong to.

use serde_json::{Value, json};

use crate::world::World;

const PATH: &str = "/v1/me/notifications";

fn defaults() -> Value {
    json!({
        "entries": true, "reactions": true, "pairing": true, "previews": false, "muted_until": null, "quiet_hours": null,
        "time_zone": null
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
