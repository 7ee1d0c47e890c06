//! Typed and pasted text: normalised, or refused as a field error without counting as an attempt.

use std::sync::Arc;

use axum::{body::Body, http::Request};
use serde_json::{Value, json};

use crate::world::{TestResponse, World};

/// The first field error of a response.
fn field(answer: &TestResponse) -> (u16, &str, &str, &str) {
    let first = &answer.body["errors"][0];
    let text = |name: &str| first[name].as_str().unwrap_or("");
    (answer.status, answer.code(), text("field"), text("code"))
}

/// A code in spellings that users and keyboards produce.
fn variants(code: &str) -> Vec<String> {
    let (left, right) = code.split_at(code.len() / 2);
    let shifted = |by: u32| code.chars().map(move |c| char::from_u32(u32::from(c) + by).unwrap());
    vec![
        format!(" {left} {right}\n"),
        format!("{left}\u{2013}{right}"),
        format!("{left}\u{A0}{right}\u{A0}"),
        format!("\u{2068}{left}\u{200B}{right}\u{2069}"),
        shifted(0xFF10 - 0x30).collect(),
        shifted(0x660 - 0x30).collect(),
    ]
}

#[tokio::test]
async fn mailed_codes_are_accepted_in_common_spellings() {
    let world = World::new();
    world.join("ana@example.org").await;
    for n in 0..6 {
        world.open("/v1/sessions/code", json!({ "email": "ana@example.org" })).await;
        world.work().await;
        let (code, _) = world.mailed("ana@example.org");
        let typed = variants(&code)[n].clone();
        let body = json!({ "email": "\u{A0}ana@example.org\n", "code": typed });
        let answer = world.open("/v1/sessions", body).await;
        assert_eq!(answer.status, 201, "{typed:?}: {}", answer.body);
    }
}

#[tokio::test]
async fn malformed_codes_do_not_count_as_attempts() {
    let clock = Arc::new(couple::ManualClock::default());
    let world = World::with(couple::store::MemoryLimits::new(clock));
    world.sign_up("ana@example.org").await;
    let (code, _) = world.mailed("ana@example.org");
    for path in ["/v1/accounts/verify", "/v1/sessions"] {
        for _ in 0..70 {
            let body = json!({ "email": "ana@example.org", "code": "12345" });
            assert_eq!(field(&world.open(path, body).await), (422, "invalid_field", "code", "invalid"));
        }
    }
    let answer = world.open("/v1/accounts/verify", json!({ "email": "ana@example.org", "code": code })).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let ana = answer.body["session"]["token"].as_str().unwrap().to_owned();
    for reference in [json!({ "code": "ABC" }), json!({ "token": "nonsense" })] {
        for _ in 0..30 {
            let answer = world.post("/v1/invites/accept", &ana, reference.clone()).await;
            assert_eq!((answer.status, answer.code()), (422, "invalid_field"));
        }
    }
    let answer = world.post("/v1/invites/accept", &ana, json!({ "code": "00000-00000" })).await;
    assert_eq!(answer.said(), (404, "invite_not_found"));
}

#[tokio::test]
async fn invite_codes_and_pasted_links_are_accepted() {
    let world = World::new();
    let (ana, ben) = (world.join("ana@example.org").await, world.join("ben@example.org").await);
    let sent = world.post("/v1/invites", &ana, json!({})).await;
    let (code, link) = (sent.text("code"), sent.text("link"));
    let (left, right) = code.split_once('-').unwrap();
    let wide: String =
        format!("{left}{right}").chars().map(|c| char::from_u32(u32::from(c) + 0xFEE0).unwrap()).collect();
    let typed = [
        format!("{left}\u{A0}{right}"),
        format!("{left}\u{2013}{right}"),
        format!("\u{200E}{}{right}\r\n", left.to_lowercase()),
        wide,
        link.clone(),
        format!(" <{link}>\n"),
        link.replace('#', "%23"),
        link.split_once('#').unwrap().1.to_owned(),
    ];
    for typed in typed {
        let answer = world.post("/v1/invites/preview", &ben, json!({ "code": typed })).await;
        assert_eq!(answer.status, 200, "{typed:?}: {}", answer.body);
    }
    let answer = world.post("/v1/invites/accept", &ben, json!({ "token": link })).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
}

#[tokio::test]
async fn pasted_account_links_are_accepted() {
    let world = World::new();
    let pasted = |token: &str, n: usize| {
        let link = format!("https://app.example.org/open/page#{token}");
        [format!(" {token}\n"), link.clone(), format!("<{link}>"), link.replace('#', "%23")][n].clone()
    };
    for n in 0..4 {
        let email = format!("ana{n}@example.org");
        world.sign_up(&email).await;
        let (_, token) = world.mailed(&email);
        let answer = world.open("/v1/accounts/verify", json!({ "token": pasted(&token, n) })).await;
        assert_eq!(answer.status, 200, "{n}: {}", answer.body);
        world.open("/v1/sessions/code", json!({ "email": email })).await;
        world.work().await;
        let (_, token) = world.mailed(&email);
        let answer = world.open("/v1/sessions", json!({ "token": pasted(&token, n) })).await;
        assert_eq!(answer.status, 201, "{n}: {}", answer.body);
        world.open("/v1/password/forgot", json!({ "email": email })).await;
        world.work().await;
        let (_, token) = world.mailed(&email);
        let body = json!({ "token": pasted(&token, n), "new_password": "mauve kettle orbit" });
        let answer = world.call("PUT", "/v1/password", None, Some(body)).await;
        assert_eq!(answer.status, 204, "{n}: {}", answer.body);
    }
}

#[tokio::test]
async fn locale_is_matched_and_never_refused() {
    let world = World::new();
    let body = json!({ "email": "ana@example.org", "display_name": "Ana", "locale": "en_US" });
    assert_eq!(world.open("/v1/accounts", body).await.status, 202);
    world.work().await;
    let (code, _) = world.mailed("ana@example.org");
    let answer = world.open("/v1/accounts/verify", json!({ "email": "ana@example.org", "code": code })).await;
    assert_eq!(answer.body["account"]["locale"], "en-US");
    let ana = answer.body["session"]["token"].as_str().unwrap().to_owned();
    for (locale, stored) in [
        ("zh_CN_#Hans", json!("zh-Hans-CN")),
        ("C", Value::Null),
        ("de-AT", json!("de-AT")),
        ("??", Value::Null),
    ] {
        let answer = world.call("PATCH", "/v1/me", Some(&ana), Some(json!({ "locale": locale }))).await;
        assert_eq!((answer.status, &answer.body["locale"]), (200, &stored), "{locale}");
    }
}

#[tokio::test]
async fn invisible_texts_and_future_birthdays_are_refused() {
    let world = World::new();
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let seq = world.say(&ana, "a").await;
    let reaction = format!("/v1/couple/entries/{seq}/reaction");
    let future = "2999-01-01";
    let blank = "\u{200B}\u{2060}\u{3164}";
    let text = |text: &str| json!({ "client_id": "b", "kind": "text", "body": { "text": text } });
    for (method, path, body, field_name, code) in [
        ("PATCH", "/v1/me", json!({ "display_name": blank }), "display_name", "required"),
        ("PATCH", "/v1/couple", json!({ "title": blank }), "title", "required"),
        ("POST", "/v1/couple/entries", text(blank), "body.text", "required"),
        ("PUT", reaction.as_str(), json!({ "emoji": "\u{200D}\u{FE0F}" }), "emoji", "invalid"),
        ("PATCH", "/v1/me", json!({ "birthday": future }), "birthday", "in_the_future"),
    ] {
        let answer = world.call(method, path, Some(&ana), Some(body)).await;
        assert_eq!(field(&answer), (422, "invalid_field", field_name, code), "{method} {path}");
    }
}

async fn raw(world: &World, token: &str, headers: &[(&str, &str)], body: &str) -> TestResponse {
    let mut request = Request::post("/v1/couple/entries").header("authorization", format!("Bearer {token}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.header("content-type", "application/json");
    world.raw(request.body(Body::from(body.to_owned())).unwrap()).await
}

#[tokio::test]
async fn json_that_cannot_be_stored_is_a_field_error() {
    let world = World::new();
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let entry = |value: &str| format!(r#"{{"client_id":"a","kind":"hug","body":{{"x":{value}}}}}"#);
    let deep = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
    for (value, name, code) in [
        (r#""\ud83d""#.to_owned(), "body.x", "invalid_unicode"),
        (r#""\udc00\ud83d""#.to_owned(), "body.x", "invalid_unicode"),
        ("1e999".to_owned(), "body.x", "out_of_range"),
        ("18446744073709551616".to_owned(), "body", "number_not_exact"),
        (deep(32), "body", "too_deep"),
        (deep(200), "body", "too_deep"),
        (r#""\u0000""#.to_owned(), "body", "control_character"),
    ] {
        let answer = raw(&world, &ana, &[], &entry(&value)).await;
        assert_eq!(field(&answer), (422, "invalid_field", name, code), "{value}");
    }
    let answer = raw(&world, &ana, &[], &entry("9007199254740993")).await;
    assert_eq!((answer.status, &answer.body["body"]["x"]), (201, &json!(9_007_199_254_740_993_i64)));
    for body in [entry(r#""\q""#), entry("\"a\nb\""), entry("01"), entry("NaN"), entry("tru")] {
        assert_eq!(raw(&world, &ana, &[], &body).await.said(), (400, "malformed_json"), "{body}");
    }
    let answer = raw(&world, &ana, &[("content-encoding", "gzip")], "\u{1f}").await;
    assert_eq!(answer.said(), (415, "unsupported_encoding"));
    let again = raw(&world, &ana, &[("content-encoding", "identity")], &entry("9007199254740993")).await;
    assert_eq!(again.status, 200);
}

#[tokio::test]
async fn kind_filters_are_checked_everywhere() {
    let world = World::new();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    world.say(&ana, "a").await;
    world.call("DELETE", "/v1/couple", Some(&ana), None).await;
    world.pair(&ana, &ben).await;
    for token in [&ana, &ben] {
        world.call("PUT", "/v1/couple/previous", Some(token), Some(json!({ "wanted": true }))).await;
    }
    for path in ["/v1/couple/entries", "/v1/couple/previous/entries"] {
        for kind in ["%00", "", "a%20b", &"x".repeat(65)] {
            let answer = world.get(&format!("{path}?kind={kind}"), &ana).await;
            assert_eq!(field(&answer), (422, "invalid_field", "kind", "invalid"), "{path} {kind}");
        }
        let answer = world.get(&format!("{path}?kind=paired"), &ana).await;
        let kinds: Vec<_> = answer.body["entries"].as_array().unwrap().iter().map(|e| &e["kind"]).collect();
        assert_eq!(kinds, ["paired"], "{path}");
    }
}

#[tokio::test]
async fn open_idempotency_keys_are_scoped_by_address() {
    let world = World::new();
    let sign_up = async |email: &str, name: &str| {
        let body = json!({ "email": email, "display_name": name });
        world.keyed("POST", "/v1/accounts", None, Some(body), Some("1")).await
    };
    assert_eq!(sign_up("ana@example.org", "Ana").await.status, 202);
    assert_eq!(sign_up("ben@example.org", "Ben").await.status, 202, "another address has another scope");
    assert_eq!(sign_up("ana@example.org", "Ana").await.status, 202);
    assert_eq!(sign_up("ana@example.org", "Mallory").await.said(), (422, "idempotency_key_reused"));
    world.work().await;
    assert_eq!((world.mails_to("ana@example.org"), world.mails_to("ben@example.org")), (1, 1));
}
