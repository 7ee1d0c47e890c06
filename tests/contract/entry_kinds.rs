//! Kinds of entry that a host defines: checks, permissions, unread entries and their documentation.

use couple::{
    Backend, BackendBuilder, ErrorKind, RequestContext,
    http::HttpOptions,
    timeline::{Append, EntryKind, EntryPermission, InvalidBody},
};
use serde_json::{Value, json};

use crate::world::{TestResponse, World};

async fn append(world: &World, token: &str, kind: &str, body: Value) -> TestResponse {
    let id = format!("{kind}-{}", body.to_string().len());
    world.post("/v1/couple/entries", token, json!({ "client_id": id, "kind": kind, "body": body })).await
}

fn mood() -> EntryKind {
    EntryKind::new("x-mood").with_max_bytes(40).with_check(|body| match body["mood"].as_str() {
        Some("good" | "bad") => Ok(()),
        _ => Err(InvalidBody::new("mood", "unknown_mood")),
    })
}

#[tokio::test]
async fn body_is_checked_at_append_and_edit() {
    let world = World::of(Backend::builder().entry_kind(mood()).strict_entry_kinds(), HttpOptions::default());
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let refused = append(&world, &ana, "x-mood", json!({ "mood": "my secret" })).await;
    assert_eq!(refused.said(), (422, "invalid_field"));
    assert_eq!(refused.body["errors"], json!([{ "field": "body.mood", "code": "unknown_mood" }]));
    assert!(!refused.body.to_string().contains("secret"), "{}", refused.body);
    let long = append(&world, &ana, "x-mood", json!({ "mood": "good", "because": "of many reasons" })).await;
    assert_eq!(long.body["errors"], json!([{ "field": "body", "code": "too_long" }]));
    let unknown = append(&world, &ana, "x-other", json!({})).await;
    assert_eq!(unknown.body["errors"], json!([{ "field": "kind", "code": "unknown_kind" }]));
    assert_eq!(append(&world, &ana, "hug", json!({})).await.status, 201);

    let appended = append(&world, &ana, "x-mood", json!({ "mood": "good" })).await;
    assert_eq!(appended.status, 201, "{}", appended.body);
    let path = format!("/v1/couple/entries/{}", appended.body["seq"]);
    let edit = async |token: &str, mood: &str| {
        world.call("PATCH", &path, Some(token), Some(json!({ "body": { "mood": mood } }))).await
    };
    assert_eq!(edit(&ana, "secret").await.body["errors"][0]["field"], "body.mood");
    assert_eq!(edit(&ben, "bad").await.said(), (403, "not_author"));
    assert_eq!(edit(&ana, "bad").await.body["body"], json!({ "mood": "bad" }));
}

#[tokio::test]
async fn kind_decides_who_edits_and_deletes() {
    let shared = EntryKind::new("x-list")
        .with_edits_by(EntryPermission::Members)
        .with_deletions_by(EntryPermission::Members);
    let fixed = EntryKind::new("x-vow")
        .with_edits_by(EntryPermission::Nobody)
        .with_deletions_by(EntryPermission::Nobody);
    let world = World::of(Backend::builder().entry_kind(shared).entry_kind(fixed), HttpOptions::default());
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    for (kind, seq) in [("x-list", 2), ("x-vow", 3)] {
        assert_eq!(append(&world, &ana, kind, json!({ "items": [] })).await.body["seq"], seq);
    }
    let edit = json!({ "body": { "items": ["milk"] } });
    let edited = world.call("PATCH", "/v1/couple/entries/2", Some(&ben), Some(edit.clone())).await;
    assert_eq!((edited.status, &edited.body["author"]), (200, &json!("partner")), "{}", edited.body);
    let log = world.get("/v1/couple/entries?after=3", &ana).await;
    assert_eq!(log.body["entries"][0]["kind"], "entry_edited");
    assert_eq!(log.body["entries"][0]["author"], "partner", "the member who edited it");
    assert_eq!(world.call("DELETE", "/v1/couple/entries/2", Some(&ben), None).await.status, 204);
    for token in [&ana, &ben] {
        let refused = world.call("PATCH", "/v1/couple/entries/3", Some(token), Some(edit.clone())).await;
        assert_eq!(refused.said(), (403, "entry_fixed"));
        let refused = world.call("DELETE", "/v1/couple/entries/3", Some(token), None).await;
        assert_eq!(refused.said(), (403, "entry_fixed"));
    }
}

#[tokio::test]
async fn kind_of_the_host_is_not_appended_by_clients() {
    let paid = EntryKind::new("x-paid").with_client_appends(false);
    let noted = EntryKind::new("x-noted").with_client_appends(false).with_edits_by(EntryPermission::Author);
    let world = World::of(Backend::builder().entry_kind(paid).entry_kind(noted), HttpOptions::default());
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let id = "x-paid-2";
    for _ in 0..2 {
        let refused = append(&world, &ana, "x-paid", json!({})).await;
        assert_eq!(refused.said(), (422, "invalid_field"));
        assert_eq!(refused.body["errors"], json!([{ "field": "kind", "code": "not_allowed" }]));
        // The same after the host has appended an entry with this client id.
        let me = world.get("/v1/me", &ana).await.body["id"].as_str().unwrap().parse().unwrap();
        let entry = Append { couple: None, client_id: id.into(), kind: "x-paid".into(), body: json!({}) };
        let timeline = world.backend.timeline();
        let appended = timeline.append_with(&RequestContext::default(), me, &entry, &[]).await.unwrap();
        assert_eq!(appended.entry.kind, "x-paid");
    }
    // Its author cannot edit it, unless the kind allows that.
    let me = world.get("/v1/me", &ana).await.body["id"].as_str().unwrap().parse().unwrap();
    for (kind, status) in [("x-paid", 403), ("x-noted", 200)] {
        let entry = Append { couple: None, client_id: kind.into(), kind: kind.into(), body: json!({}) };
        let timeline = world.backend.timeline();
        let appended = timeline.append_with(&RequestContext::default(), me, &entry, &[]).await.unwrap();
        let path = format!("/v1/couple/entries/{}", appended.entry.seq);
        let edit = json!({ "body": { "euros": 1_000 } });
        let edited = world.call("PATCH", &path, Some(&ana), Some(edit)).await;
        assert_eq!(edited.status, status, "{kind}: {}", edited.body);
    }
}

#[tokio::test]
async fn kind_that_is_not_unread_does_not_count() {
    let presence = EntryKind::new("x-location").with_unread(false);
    let world = World::of(Backend::builder().entry_kind(presence), HttpOptions::default());
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    for kind in ["x-location", "x-other", "hug"] {
        assert_eq!(append(&world, &ana, kind, json!({})).await.status, 201);
    }
    assert_eq!(world.get("/v1/couple", &ben).await.body["unread"], 2);
    assert_eq!(world.get("/v1/couple", &ana).await.body["unread"], 0);
}

#[tokio::test]
async fn kinds_are_in_the_openapi_document() {
    let fixed = mood().with_edits_by(EntryPermission::Nobody).with_unread(false);
    let world = World::of(Backend::builder().entry_kind(fixed).strict_entry_kinds(), HttpOptions::default());
    let document = world.get("/v1/openapi.json", "").await.body;
    let schema = &document["components"]["schemas"]["NewEntryIn"];
    let rules = json!({
        "max_bytes": 40,
        "client_appends": true,
        "edited_by": "nobody",
        "deleted_by": "author",
        "unread": false,
    });
    assert_eq!(schema["x-entry-kinds"], json!({ "x-mood": rules }));
    let text = schema["properties"]["kind"]["description"].as_str().unwrap();
    assert!(text.contains("`x-mood`") && text.contains("are refused"), "{text}");
}

#[tokio::test]
async fn wrong_definition_is_refused_at_build() {
    for kinds in [vec![EntryKind::new("Mood")], vec![mood(), mood()]] {
        let builder = kinds.into_iter().fold(Backend::builder(), BackendBuilder::entry_kind);
        assert_eq!(builder.build().unwrap_err().kind(), ErrorKind::Misconfigured);
    }
}

#[cfg(feature = "json-schema")]
#[tokio::test]
async fn body_is_checked_by_its_json_schema() {
    let schema = json!({
        "type": "object",
        "required": ["mood"],
        "properties": { "mood": { "enum": ["good", "bad"] }, "notes": { "type": "array", "items": { "maxLength": 3 } } },
    });
    let kind = EntryKind::new("x-mood").with_json_schema(schema.clone());
    let world = World::of(Backend::builder().entry_kind(kind), HttpOptions::default());
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    assert_eq!(append(&world, &ana, "x-mood", json!({ "mood": "good", "notes": ["abc"] })).await.status, 201);
    for (body, field, code) in [
        (json!({}), "body.mood", "required"),
        (json!({ "mood": "my secret" }), "body.mood", "not_allowed"),
        (json!({ "mood": "bad", "notes": ["abc", "my secret"] }), "body.notes[1]", "too_long"),
    ] {
        let refused = append(&world, &ana, "x-mood", body).await;
        assert_eq!(refused.said(), (422, "invalid_field"));
        assert_eq!(refused.body["errors"], json!([{ "field": field, "code": code }]));
        assert!(!refused.body.to_string().contains("secret"), "{}", refused.body);
    }
    let document = world.get("/v1/openapi.json", "").await.body;
    assert_eq!(document["components"]["schemas"]["NewEntryIn"]["x-entry-kinds"]["x-mood"]["body"], schema);
    let elsewhere =
        EntryKind::new("x-mood").with_json_schema(json!({ "$ref": "https://example.org/a.json" }));
    let error = Backend::builder().entry_kind(elsewhere).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misconfigured);
    assert!(error.to_string().contains("x-mood"), "{error}");
}
