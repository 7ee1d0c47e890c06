//! Devices: registration, hand-over, the end of their session, limits, and what responses hide.

use couple::device::DevicePolicy;
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use crate::world::World;

const TOKEN: &str = "planted:Token-1";

fn path(n: u8) -> String {
    format!("/v1/devices/0190aaaa-0000-4000-8000-0000000000{n:02x}")
}

fn fcm(token: &str) -> Value {
    json!({ "platform": "fcm", "token": token, "app": "org.example.app" })
}

fn browser(endpoint: &str) -> Value {
    let mut key = [7; 65];
    key[0] = 4;
    json!({ "platform": "web_push", "subscription": {
        "endpoint": endpoint, "expirationTime": null,
        "keys": { "p256dh": BASE64URL_NOPAD.encode(&key), "auth": BASE64URL_NOPAD.encode(&[9; 16]) }
    } })
}

/// Ids of the devices of a caller.
async fn listed(world: &World, session: &str) -> Vec<String> {
    let answer = world.get("/v1/devices", session).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let devices = answer.body["devices"].as_array().unwrap();
    devices.iter().map(|device| format!("/v1/devices/{}", device["id"].as_str().unwrap())).collect()
}

#[tokio::test]
async fn device_is_registered_listed_and_removed() {
    let world = World::new();
    let ana = world.join("ana@example.org").await;
    assert_eq!(listed(&world, &ana).await, [""; 0]);
    let mut device = fcm(TOKEN);
    device["locale"] = "de_AT".into();
    device["time_zone"] = "Europe/Vienna".into();
    device["app_version"] = " 1.2 (3) ".into();
    let put = async || world.call("PUT", &path(1), Some(&ana), Some(device.clone())).await;
    let first = put().await;
    let expected = json!({
        "id": path(1).rsplit_once('/').unwrap().1, "platform": "fcm", "kind": "alert", "app": "org.example.app", "sandbox": false,
        "locale": "de-AT", "time_zone": "Europe/Vienna", "app_version": "1.2 (3)", "registered_at": first.body["registered_at"]
    });
    assert_eq!((first.status, &first.body), (201, &expected));
    let again = put().await;
    assert_eq!((again.status, &again.body), (200, &expected));
    let list = world.get("/v1/devices", &ana).await;
    assert_eq!(list.body, json!({ "devices": [expected] }));
    let mut apns =
        json!({ "platform": "apns", "token": "0AbC".repeat(16), "app": "org.example.app", "sandbox": true });
    apns["kind"] = "live_activity_start".into();
    assert_eq!(world.call("PUT", &path(2), Some(&ana), Some(apns)).await.text("kind"), "live_activity_start");
    let web = browser("https://push.example.org/planted");
    assert_eq!(world.call("PUT", &path(3), Some(&ana), Some(web)).await.status, 201);
    assert_eq!(listed(&world, &ana).await, [path(1), path(2), path(3)]);
    let export = world.get("/v1/me/export", &ana).await;
    assert_eq!(export.body["devices"].as_array().unwrap().len(), 3);
    for answer in [first, again, list, export, world.get("/v1/devices", &ana).await] {
        for hidden in ["planted", &"0abc".repeat(16), &BASE64URL_NOPAD.encode(&[9; 16])] {
            assert!(
                !answer.body.to_string().to_lowercase().contains(&hidden.to_lowercase()),
                "{}",
                answer.body
            );
        }
    }
    for _ in 0..2 {
        assert_eq!(world.call("DELETE", &path(2), Some(&ana), None).await.status, 204);
    }
    assert_eq!(listed(&world, &ana).await, [path(1), path(3)]);
}

#[tokio::test]
async fn token_belongs_to_the_person_who_registered_it_last() {
    let world = World::new();
    let (ana, ben) = (world.join("ana@example.org").await, world.join("ben@example.org").await);
    // Under the same id, too: ids belong to persons.
    for id in [path(1), path(2)] {
        assert_eq!(world.call("PUT", &path(1), Some(&ana), Some(fcm(TOKEN))).await.status, 201);
        assert_eq!(world.call("PUT", &id, Some(&ben), Some(fcm("another"))).await.status, 201);
        assert_eq!(listed(&world, &ana).await, [path(1)]);
        assert_eq!(world.call("PUT", &id, Some(&ben), Some(fcm(TOKEN))).await.status, 200);
        assert_eq!(listed(&world, &ana).await, [""; 0]);
        assert_eq!(listed(&world, &ben).await, std::slice::from_ref(&id));
        assert_eq!(world.call("DELETE", &id, Some(&ana), None).await.status, 204);
        assert_eq!(listed(&world, &ben).await, std::slice::from_ref(&id), "another person removes a device");
        world.call("DELETE", &id, Some(&ben), None).await;
    }
}

#[tokio::test]
async fn device_ends_with_the_session_that_registered_it() {
    let world = World::new();
    let phone = world.join("ana@example.org").await;
    let tablet = world.sign_in("ana@example.org").await;
    for (n, session) in [(1, &phone), (2, &tablet)] {
        assert_eq!(world.call("PUT", &path(n), Some(session), Some(fcm(&format!("t{n}")))).await.status, 201);
    }
    assert_eq!(world.call("DELETE", "/v1/sessions/current", Some(&phone), None).await.status, 204);
    assert_eq!(listed(&world, &tablet).await, [path(2)]);
    let third = world.sign_in("ana@example.org").await;
    assert_eq!(world.call("PUT", &path(3), Some(&third), Some(fcm("t3"))).await.status, 201);
    assert_eq!(world.call("DELETE", "/v1/sessions", Some(&third), None).await.status, 204);
    assert_eq!(listed(&world, &third).await, [path(3)], "the other sessions were ended");
    let account = world.get("/v1/me", &third).await.text("id").parse().unwrap();
    assert_eq!(world.call("DELETE", "/v1/me", Some(&third), None).await.status, 202);
    let left = world.backend.ports().store.devices_of(account).await.unwrap();
    assert_eq!(left, [], "a request for deletion ends all sessions");
}

#[tokio::test]
async fn number_of_devices_is_limited() {
    let world = World::new();
    let ana = world.join("ana@example.org").await;
    for n in 1..=20 {
        assert_eq!(world.call("PUT", &path(n), Some(&ana), Some(fcm(&n.to_string()))).await.status, 201);
    }
    let refused = world.call("PUT", &path(21), Some(&ana), Some(fcm("21"))).await;
    assert_eq!(refused.said(), (409, "too_many_devices"));
    assert!(refused.text("detail").contains("20 devices"), "{}", refused.body);
    // A registration that adds none: of a known id, or of the token of another one.
    assert_eq!(world.call("PUT", &path(20), Some(&ana), Some(fcm("new"))).await.status, 200);
    assert_eq!(world.call("PUT", &path(21), Some(&ana), Some(fcm("new"))).await.status, 201);
    assert_eq!(world.get("/v1/capabilities", &ana).await.body["devices"], 20);
    let builder = couple::Backend::builder().devices(DevicePolicy::default().with_max_devices(1));
    let small = World::of(builder, couple::http::HttpOptions::default());
    let ben = small.join("ben@example.org").await;
    assert_eq!(small.call("PUT", &path(1), Some(&ben), Some(fcm("1"))).await.status, 201);
    assert_eq!(
        small.call("PUT", &path(2), Some(&ben), Some(fcm("2"))).await.said(),
        (409, "too_many_devices")
    );
}

#[tokio::test]
async fn invalid_registration_names_its_field() {
    let world = World::new();
    let ana = world.join("ana@example.org").await;
    let with = |mut device: Value, field: &str, value: Value| {
        device[field] = value;
        device
    };
    let web = || browser("https://push.example.org/1");
    let mut short = web();
    short["subscription"]["keys"]["auth"] = "AAAA".into();
    let mut compressed = web();
    compressed["subscription"]["keys"]["p256dh"] = BASE64URL_NOPAD.encode(&[2; 65]).into();
    for (body, field, code) in [
        (json!({ "platform": "fcm", "app": "a" }), "token", "required"),
        (json!({ "platform": "fcm", "token": "a" }), "app", "required"),
        (json!({ "platform": "web_push" }), "subscription", "required"),
        (with(web(), "token", "a".into()), "token", "unexpected"),
        (with(fcm("a"), "subscription", web()["subscription"].clone()), "subscription", "unexpected"),
        (with(fcm("a"), "platform", "sms".into()), "platform", "wrong_type"),
        (with(fcm("a"), "kind", "widget".into()), "kind", "unsupported"),
        (with(fcm("a"), "app_version", "x".repeat(65).into()), "app_version", "too_long"),
        (with(fcm("a"), "platform", "apns".into()), "token", "invalid"),
        (with(fcm("a"), "account_id", "a".into()), "account_id", "unknown_field"),
        (fcm("a b"), "token", "invalid"),
        (browser("http://push.example.org/1"), "subscription.endpoint", "invalid"),
        (browser("https://ana:secret@push.example.org/1"), "subscription.endpoint", "invalid"),
        (browser("https://127.0.0.1/1"), "subscription.endpoint", "invalid"),
        (browser("https://localhost/1"), "subscription.endpoint", "invalid"),
        (short, "subscription.keys.auth", "invalid"),
        (compressed, "subscription.keys.p256dh", "invalid"),
    ] {
        let answer = world.call("PUT", &path(1), Some(&ana), Some(body.clone())).await;
        assert_eq!(answer.said(), (422, "invalid_field"), "{body}");
        assert_eq!(answer.body["errors"], json!([{ "field": field, "code": code }]), "{body}");
    }
    for method in ["PUT", "DELETE"] {
        let body = (method == "PUT").then(|| fcm("a"));
        let answer = world.call(method, "/v1/devices/phone", Some(&ana), body).await;
        assert_eq!(answer.body["errors"], json!([{ "field": "id", "code": "invalid" }]));
    }
    assert_eq!(listed(&world, &ana).await, [""; 0]);
    let unknown = with(with(fcm("a"), "locale", "??".into()), "time_zone", "Mars/Olympus".into());
    let answer = world.call("PUT", &path(1), Some(&ana), Some(unknown)).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    assert_eq!((&answer.body["locale"], &answer.body["time_zone"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn device_of_a_user_of_a_host_has_no_session() {
    let world = World::of_host();
    let users = world.host.as_ref().unwrap();
    let ana = users.add("ana@example.org");
    let session = users.sign_in(ana);
    assert_eq!(world.call("PUT", &path(1), Some(&session), Some(fcm(TOKEN))).await.status, 201);
    world.end_session(&session).await;
    assert_eq!(world.get("/v1/devices", &session).await.status, 401);
    let again = users.sign_in(ana);
    assert_eq!(listed(&world, &again).await, [path(1)], "the host removes devices itself");
    let devices = world.backend.ports().store.devices_of(ana).await.unwrap();
    assert_eq!(devices[0].session, None);
    world.backend.forget(ana).await.unwrap();
    assert_eq!(listed(&world, &again).await, [""; 0], "a person who is forgotten gets no more messages");
}
