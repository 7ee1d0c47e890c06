//! Authorization: every operation of the document for every kind of caller.
//!
//! An operation without a row fails.

use serde_json::{Value, json};

use crate::{
    input::{filled, operations},
    world::World,
};

/// Kinds of callers, in the order of a row.
///
/// The former partner was in a couple with the author before the partner was. The unverified caller has no proven address: a user of a host
/// without one, or, with the built-in accounts, the token of a sign-up that is not confirmed.
const WHO: [&str; 8] =
    ["nobody", "revoked", "unpaired", "other couple", "partner", "author", "former partner", "unverified"];

/// Expected statuses and the body of the request.
///
/// Entry 2 belongs to the author. The other couple has another entry 2, so the status is 404 or the status for that entry. A former partner
/// gets the answers of an unpaired caller.
fn row(method: &str, path: &str, is_host: bool) -> Option<([u16; 8], Value)> {
    let ([nobody, revoked, unpaired, other, partner, author], body) = statuses(method, path)?;
    let unverified = match (method, path) {
        _ if !is_host => revoked,
        // An unverified user of a host may do everything except pairing.
        ("POST", "/v1/invites" | "/v1/invites/preview" | "/v1/invites/accept" | "/v1/invites/decline") => 403,
        _ => unpaired,
    };
    Some(([nobody, revoked, unpaired, other, partner, author, unpaired, unverified], body))
}

/// Expected statuses of the first six kinds of callers, and the body of the request.
pub(crate) fn statuses(method: &str, path: &str) -> Option<([u16; 6], Value)> {
    let none = Value::Null;
    let person = |status: u16| [401, 401, status, status, status, status];
    let couple = |status: u16| [401, 401, 404, status, status, status];
    let all = |status: u16| [status; 6];
    Some(match (method, path) {
        ("GET", "/healthz" | "/readyz") => (all(200), none),
        ("POST", "/v1/accounts") => (all(202), json!({"email": "x@example.org", "display_name": "X"})),
        ("POST", "/v1/accounts/verify/resend" | "/v1/sessions/code" | "/v1/password/forgot") => {
            (all(202), json!({"email": "x@example.org"}))
        }
        ("POST", "/v1/accounts/verify") => (all(422), json!({"token": "verify_x"})),
        ("POST", "/v1/sessions") => (all(401), json!({"email": "x@example.org", "password": "x"})),
        // A request with an ended session gets 401 and is not treated as one without a session.
        ("PUT", "/v1/password") => (
            [422, 401, 422, 422, 422, 422],
            json!({"token": "reset_x", "new_password": "mauve kettle orbit"}),
        ),
        ("POST", "/v1/me/email/cancel") => ([422; 6], json!({"token": "cancel_x"})),
        ("POST", "/v1/me/email/verify") => ([422, 401, 422, 422, 422, 422], json!({"token": "email_x"})),
        (
            "GET",
            "/v1/sessions"
            | "/v1/me"
            | "/v1/me/export"
            | "/v1/invites"
            | "/v1/blocks"
            | "/v1/devices"
            | "/v1/me/notifications",
        ) => (person(200), none),
        ("DELETE", "/v1/sessions/{id}") => (person(404), none),
        ("DELETE", "/v1/sessions") => (person(204), none),
        ("PATCH", "/v1/me" | "/v1/me/notifications") => (person(200), json!({})),
        ("POST", "/v1/me/email") => (person(202), json!({"new_email": "y@example.org"})),
        ("DELETE", "/v1/invites/{id}" | "/v1/blocks/{id}") => (person(404), none),
        // The same token from each caller: the last one has it.
        ("PUT", "/v1/devices/{id}") => {
            (person(201), json!({"platform": "fcm", "token": "a", "app": "org.example.app"}))
        }
        ("DELETE", "/v1/devices/{id}") => (person(204), none),
        ("OPTIONS", "/v1/uploads") => (all(204), none),
        ("POST", "/v1/uploads") | ("HEAD" | "PATCH" | "DELETE", "/v1/uploads/{upload}") => {
            (person(412), none)
        }
        ("POST", "/v1/invites/preview" | "/v1/invites/accept" | "/v1/invites/decline") => {
            (person(404), json!({"code": "00000-00000"}))
        }
        ("GET", "/v1/capabilities") => (all(200), none),
        ("GET", "/v1/media") => (couple(200), none),
        ("POST", "/v1/media") => ([401, 401, 404, 415, 415, 415], none),
        ("GET", "/v1/media/{id}" | "/v1/media/{id}/{rendition}") => ([401, 401, 404, 404, 200, 200], none),
        ("DELETE", "/v1/media/{id}") => ([401, 401, 404, 404, 404, 204], none),
        ("PUT", "/v1/me/avatar") => {
            (person(404), json!({"media_id": "0190aaaa-0000-7000-8000-000000000000"}))
        }
        ("DELETE", "/v1/me/avatar" | "/v1/me/widget-token") => (person(204), none),
        ("PUT", "/v1/me/widget-token") => (person(200), none),
        ("POST", "/v1/invites") => ([401, 401, 201, 409, 409, 409], json!({})),
        ("GET", "/v1/couple" | "/v1/couple/entries" | "/v1/couple/entries/{seq}") => (couple(200), none),
        ("GET", "/v1/couple/dates") => (couple(200), none),
        ("POST", "/v1/couple/dates") => (couple(201), json!({"kind": "birthday", "date": "--05-04"})),
        ("PATCH", "/v1/couple/dates/{id}") => (couple(404), json!({"title": "x"})),
        ("DELETE", "/v1/couple/dates/{id}") => (couple(404), none),
        ("GET", "/v1/couple/live" | "/v1/glance") => (couple(200), none),
        ("PATCH", "/v1/couple") => (couple(200), json!({})),
        ("GET", "/v1/couple/previous/entries") => (couple(404), none),
        ("PUT", "/v1/couple/previous") => (couple(404), json!({"wanted": true})),
        ("POST", "/v1/couple/entries") => (couple(201), json!({"client_id": "m", "kind": "hug", "body": {}})),
        ("POST", "/v1/couple/signals") => (couple(202), json!({"kind": "hug"})),
        ("PUT", "/v1/couple/read") => (couple(204), json!({"seq": 1})),
        ("PATCH", "/v1/couple/entries/{seq}") => {
            ([401, 401, 404, 404, 403, 200], json!({"body": {"text": "new"}}))
        }
        ("PUT", "/v1/couple/entries/{seq}/reaction") => {
            ([401, 401, 404, 404, 200, 200], json!({"emoji": "❤️"}))
        }
        ("DELETE", "/v1/couple/entries/{seq}/reaction") => ([401, 401, 404, 404, 204, 204], none),
        ("DELETE", "/v1/couple/entries/{seq}") => ([401, 401, 404, 404, 403, 204], none),
        // These operations end sessions or couples that the other callers need, so their order is fixed below.
        ("DELETE", "/v1/couple") => ([401, 401, 404, 204, 404, 204], none),
        ("DELETE", "/v1/sessions/current") => (person(204), none),
        ("DELETE", "/v1/me") => (person(202), none),
        _ => return None,
    })
}

#[tokio::test]
async fn every_operation_checks_authorization() {
    check_operations(World::new, 40).await;
}

#[tokio::test]
async fn every_operation_checks_authorization_by_the_authenticator_of_a_host() {
    check_operations(World::of_host, 30).await;
}

/// Checks every operation of a world, of which there are more than `expected`.
async fn check_operations(new_world: fn() -> World, expected: usize) {
    let operations = operations(&new_world()).await;
    assert!(operations.len() > expected, "{}", operations.len());
    for (method, path, _) in operations {
        // Ids of another couple are answered like unknown ones; so the other couple has one entry less.
        let world = new_world();
        let (expected, body) =
            row(&method, &path, world.host.is_some()).unwrap_or_else(|| panic!("{method} {path} has no row"));
        let is_about_a_picture = path.starts_with("/v1/media/");
        let (author, former) = world.couple("ana@example.org", "gus@example.org").await;
        assert_eq!(world.say(&author, "hello").await, 2);
        let former_photo = if is_about_a_picture { Some(world.photo(&author, 200).await) } else { None };
        assert_eq!(world.call("DELETE", "/v1/couple", Some(&author), None).await.status, 204);
        let partner = world.join("ben@example.org").await;
        world.pair(&author, &partner).await;
        let (other, _) = world.couple("cleo@example.org", "dan@example.org").await;
        let unpaired = world.join("eve@example.org").await;
        let revoked = world.join("fay@example.org").await;
        world.end_session(&revoked).await;
        let unverified = world.unverified("hal@example.org").await;
        assert_eq!(world.say(&author, "hello").await, 2);
        let photo = if is_about_a_picture { Some(world.photo(&author, 300).await) } else { None };
        let tokens = [
            None,
            Some(&revoked),
            Some(&unpaired),
            Some(&other),
            Some(&partner),
            Some(&author),
            Some(&former),
            Some(&unverified),
        ];
        // The partner leaves after the author has; pictures and entries are deleted by their author last.
        let order = match (method.as_str(), path.as_str()) {
            ("DELETE", "/v1/couple") => [0, 1, 2, 3, 6, 7, 5, 4],
            _ => [0, 1, 2, 3, 6, 7, 4, 5],
        };
        for who in order {
            let mut path = filled(&path).replace("/entries/1", "/entries/2");
            if method == "GET" && path.ends_with("/entries/2") {
                // The first entry of every couple is the system's, and readable.
                path = path.replace("/entries/2", "/entries/1");
            }
            if path == "/v1/media" {
                path.push_str("?purpose=photo");
            }
            let photos = [photo.as_ref(), former_photo.as_ref().filter(|_| WHO[who] == "former partner")];
            if let Some(photo) = photos.into_iter().flatten().last() {
                path = path.replace("0190aaaa-0000-7000-8000-000000000000", photo);
            }
            if path.ends_with("/live") {
                path.push_str("?after=0&wait=0");
            }
            let body = if body.is_null() { None } else { Some(body.clone()) };
            let token = tokens[who].map(String::as_str);
            let answer = world.call(&method, &path, token, body).await;
            assert_eq!(answer.status, expected[who], "{method} {path} by {}: {}", WHO[who], answer.body);
        }
    }
}

#[tokio::test]
async fn former_partner_has_no_access() {
    let world = World::new();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    world.say(&ana, "ours").await;
    assert_eq!(world.call("DELETE", "/v1/couple", Some(&ana), None).await.status, 204);
    for token in [&ana, &ben] {
        for path in
            ["/v1/couple", "/v1/couple/entries", "/v1/couple/entries/2", "/v1/couple/live?after=0&wait=0"]
        {
            assert_eq!(world.get(path, token).await.said(), (404, "not_paired"), "{path}");
        }
        let entry = json!({"client_id": "late", "kind": "hug", "body": {}});
        assert_eq!(world.post("/v1/couple/entries", token, entry).await.said(), (404, "not_paired"));
        let signal = world.post("/v1/couple/signals", token, json!({"kind": "hug"})).await;
        assert_eq!(signal.said(), (404, "not_paired"));
    }
}
