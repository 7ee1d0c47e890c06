//! Dates of the couple: additions, changes, versions, limits, and what the partner and other persons see.

use couple::{Backend, date::DatePolicy, http::HttpOptions};
use serde_json::{Value, json};

use crate::world::World;

const PATH: &str = "/v1/couple/dates";

async fn add(world: &World, session: &str, date: Value) -> Value {
    let answer = world.call("POST", PATH, Some(session), Some(date)).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    answer.body
}

async fn listed(world: &World, session: &str) -> Value {
    let answer = world.get(PATH, session).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body["dates"].clone()
}

fn path(date: &Value) -> String {
    format!("{PATH}/{}", date["id"].as_str().unwrap())
}

/// Kinds of the newest entries of the couple's log.
async fn kinds(world: &World, session: &str) -> Vec<String> {
    let entries = world.get("/v1/couple/entries", session).await.body["entries"].clone();
    entries.as_array().unwrap().iter().map(|entry| entry["kind"].as_str().unwrap().to_owned()).collect()
}

/// Dates in the order of their ids, which are random within a millisecond.
fn in_order<const N: usize>(mut dates: [&Value; N]) -> Value {
    dates.sort_by_key(|date| date["id"].as_str().unwrap().to_owned());
    json!(dates.to_vec())
}

#[tokio::test]
async fn date_is_added_changed_and_removed_by_either_member() {
    let world = World::new();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    assert_eq!(listed(&world, &ana).await, json!([]));
    // The clock of the world shows 1 January 2026.
    let first = add(&world, &ana, json!({ "kind": "first_date", "date": "2024-02-29" })).await;
    let expected = json!({
        "id": first["id"], "kind": "first_date", "title": null, "date": "2024-02-29", "yearly": true, "version": 1,
        "created_at": first["created_at"], "next_on": "2026-02-28"
    });
    assert_eq!(first, expected);
    let trip = json!({ "kind": "other", "title": " Trip ", "date": "2025-07-01", "yearly": false });
    let trip = add(&world, &ben, trip).await;
    assert_eq!((&trip["title"], &trip["next_on"]), (&json!("Trip"), &Value::Null));
    assert_eq!(listed(&world, &ben).await, in_order([&first, &trip]));
    let change = json!({ "version": 1, "title": "Cinema", "date": "--03-01" });
    let changed = world.call("PATCH", &path(&first), Some(&ben), Some(change)).await;
    let mut expected = first.clone();
    (expected["title"], expected["date"], expected["version"]) =
        ("Cinema".into(), "--03-01".into(), 2.into());
    expected["next_on"] = "2026-03-01".into();
    assert_eq!((changed.status, &changed.body), (200, &expected));
    assert_eq!(listed(&world, &ana).await, in_order([&expected, &trip]));
    let without_title = world.call("PATCH", &path(&first), Some(&ana), Some(json!({ "title": null }))).await;
    assert_eq!((&without_title.body["title"], &without_title.body["version"]), (&Value::Null, &json!(3)));
    assert_eq!(world.call("DELETE", &path(&first), Some(&ana), None).await.status, 204);
    assert_eq!(listed(&world, &ana).await, json!([trip]));
    let gone = world.call("DELETE", &path(&first), Some(&ana), None).await;
    assert_eq!(gone.said(), (404, "date_not_found"));
}

#[tokio::test]
async fn each_change_of_dates_is_an_entry_that_both_members_receive() {
    let world = World::new();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let date = add(&world, &ana, json!({ "kind": "birthday", "date": "--05-04" })).await;
    let patch = async |body| world.call("PATCH", &path(&date), Some(&ana), Some(body)).await.status;
    assert_eq!(patch(json!({ "title": "Mia" })).await, 200);
    // Nothing changes, so nothing is reported.
    assert_eq!(patch(json!({ "title": "Mia" })).await, 200);
    assert_eq!(world.call("DELETE", &path(&date), Some(&ana), None).await.status, 204);
    for member in [&ana, &ben] {
        let reported = kinds(&world, member).await.into_iter().filter(|kind| kind == "dates_changed").count();
        assert_eq!(reported, 3);
    }
    let unread = &world.get("/v1/couple", &ben).await.body["unread"];
    assert_eq!(unread, 0, "a change of dates counts as an unread entry");
}

#[tokio::test]
async fn date_that_was_changed_meanwhile_is_not_overwritten() {
    let world = World::new();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let date = add(&world, &ana, json!({ "kind": "birthday", "title": "Mia", "date": "--05-04" })).await;
    let path = path(&date);
    let patch = |title: &str, version: u32| json!({ "title": title, "version": version });
    assert_eq!(world.call("PATCH", &path, Some(&ben), Some(patch("Maya", 1))).await.status, 200);
    let late = world.call("PATCH", &path, Some(&ana), Some(patch("Mia B", 1))).await;
    assert_eq!(late.said(), (409, "date_changed"));
    let late = world.call("DELETE", &format!("{path}?version=1"), Some(&ana), None).await;
    assert_eq!(late.said(), (409, "date_changed"));
    assert_eq!(listed(&world, &ana).await[0]["title"], "Maya");
    let bad = world.call("DELETE", &format!("{path}?version=x"), Some(&ana), None).await;
    assert_eq!(bad.said(), (422, "invalid_field"));
    assert_eq!(world.call("DELETE", &format!("{path}?version=2"), Some(&ana), None).await.status, 204);
}

#[tokio::test]
async fn invalid_dates_are_refused_with_their_field() {
    let world = World::new();
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    for (date, field) in [
        (json!({ "kind": "wedding", "date": "--05-04" }), "kind"),
        (json!({ "kind": "other", "date": "--05-04" }), "title"),
        (json!({ "kind": "birthday", "date": "2021-02-29" }), "date"),
        (json!({ "kind": "birthday", "date": "--02-30" }), "date"),
        (json!({ "kind": "birthday", "date": "--05-04", "yearly": false }), "date"),
        (json!({ "kind": "birthday", "title": "x".repeat(201), "date": "--05-04" }), "title"),
        (json!({ "kind": "birthday" }), "date"),
    ] {
        let answer = world.call("POST", PATH, Some(&ana), Some(date.clone())).await;
        assert_eq!(answer.said(), (422, "invalid_field"), "{date}: {}", answer.body);
        assert!(answer.body["errors"].to_string().contains(field), "{date}: {}", answer.body);
    }
    assert_eq!(listed(&world, &ana).await, json!([]));
}

#[tokio::test]
async fn couple_has_at_most_the_configured_number_of_dates() {
    let builder = Backend::builder().dates(DatePolicy::default().with_max_dates(2));
    let world = World::of(builder, HttpOptions::default());
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let date = || json!({ "kind": "birthday", "date": "--05-04" });
    let first = add(&world, &ana, date()).await;
    add(&world, &ben, date()).await;
    let third = world.call("POST", PATH, Some(&ana), Some(date())).await;
    assert_eq!(third.said(), (409, "too_many_dates"));
    // A change adds none.
    let change = world.call("PATCH", &path(&first), Some(&ana), Some(json!({ "title": "Mia" }))).await;
    assert_eq!(change.status, 200, "{}", change.body);
    assert_eq!(world.get("/v1/capabilities", &ana).await.body["dates"], 2);
}

#[tokio::test]
async fn dates_belong_to_one_couple() {
    let world = World::new();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let (cleo, _) = world.couple("cleo@example.org", "dan@example.org").await;
    let date = add(&world, &ana, json!({ "kind": "birthday", "date": "--05-04" })).await;
    assert_eq!(listed(&world, &cleo).await, json!([]));
    for (method, body) in [("PATCH", Some(json!({ "title": "x" }))), ("DELETE", None)] {
        let answer = world.call(method, &path(&date), Some(&cleo), body).await;
        assert_eq!(answer.said(), (404, "date_not_found"), "{method}");
    }
    assert_eq!(world.call("DELETE", "/v1/couple", Some(&ben), None).await.status, 204);
    for session in [&ana, &ben] {
        assert_eq!(world.get(PATH, session).await.said(), (404, "not_paired"));
    }
    // The export has the dates of an ended couple.
    let exported = &world.get("/v1/me/export", &ana).await.body["dates"];
    assert_eq!((&exported[0]["id"], &exported[0]["date"]), (&date["id"], &json!("--05-04")));
}

#[tokio::test]
async fn repeated_addition_with_a_key_adds_one_date() {
    let world = World::new();
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let date = json!({ "kind": "birthday", "date": "--05-04" });
    let post =
        async |date: &Value| world.keyed("POST", PATH, Some(&ana), Some(date.clone()), Some("k1")).await;
    let first = post(&date).await;
    assert_eq!((first.status, post(&date).await.body), (201, first.body.clone()));
    assert_eq!(listed(&world, &ana).await, json!([first.body]));
    let other = post(&json!({ "kind": "birthday", "date": "--05-05" })).await;
    assert_eq!(other.said(), (422, "idempotency_key_reused"));
}

#[tokio::test]
async fn birthdays_of_the_members_come_from_their_accounts_without_the_year() {
    let world = World::new();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    assert_eq!(world.get(PATH, &ben).await.body["birthdays"], json!([]));
    let birthday = json!({ "birthday": "1990-02-28" });
    assert_eq!(world.call("PATCH", "/v1/me", Some(&ana), Some(birthday)).await.status, 200);
    let id = world.get("/v1/me", &ana).await.body["id"].clone();
    let expected = json!([{ "account_id": id, "date": "--02-28", "next_on": "2026-02-28" }]);
    for member in [&ana, &ben] {
        assert_eq!(world.get(PATH, member).await.body["birthdays"], expected);
    }
}
