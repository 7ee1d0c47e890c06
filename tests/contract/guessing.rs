//! Rate limits against guessing and flooding, which never lock the owner of an address out.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{body::Body, extract::ConnectInfo, http::Request};
use couple::{
    Backend, ManualClock,
    account::HashCost,
    core::{limits::Unlimited, mail::Message},
    http::HttpOptions,
    store::MemoryLimits,
};
use serde_json::{Value, json};

use crate::world::{TestResponse, World};

const PASSWORD: &str = "mauve kettle orbit";
const OTHER: &str = "seven violet otters";
const OWNER: &str = "198.51.100.7";

/// A world whose rate limits use its own clock.
fn limited() -> World {
    let clock = Arc::<ManualClock>::default();
    let builder = Backend::builder().limits(MemoryLimits::new(clock.clone()));
    World::at(clock, builder.hash_cost(HashCost::FOR_TESTS), HttpOptions::default())
}

/// A request from a client address.
async fn from(world: &World, ip: &str, method: &str, path: &str, body: Value) -> TestResponse {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .body(Body::from(body.to_string()))
        .unwrap();
    let peer = SocketAddr::new(ip.parse().unwrap(), 1);
    request.extensions_mut().insert(ConnectInfo(peer));
    world.raw(request).await
}

async fn post(world: &World, ip: &str, path: &str, body: Value) -> TestResponse {
    from(world, ip, "POST", path, body).await
}

/// Address of an attacker: each number is in another network.
fn stranger(n: u32) -> String {
    format!("203.{}.{}.9", n / 250, n % 250)
}

/// Signs up and confirms with a password from the owner's client.
async fn join(world: &World, email: &str) {
    let body = json!({ "email": email, "display_name": "Ana" });
    assert_eq!(post(world, OWNER, "/v1/accounts", body).await.status, 202);
    world.work().await;
    let (code, _) = world.mailed(email);
    let body = json!({ "email": email, "code": code, "password": PASSWORD });
    assert_eq!(post(world, OWNER, "/v1/accounts/verify", body).await.status, 200);
}

async fn by_password(world: &World, ip: &str, email: &str, password: &str) -> u16 {
    post(world, ip, "/v1/sessions", json!({ "email": email, "password": password })).await.status
}

/// Every attacker tries every proof against the address. Returns the number of checked passwords.
async fn flood(world: &World, email: &str, strangers: std::ops::Range<u32>) -> usize {
    let mut guesses = 0;
    for ip in strangers.map(stranger) {
        for _ in 0..3 {
            guesses += usize::from(by_password(world, &ip, email, OTHER).await == 401);
        }
        for path in ["/v1/sessions/code", "/v1/password/forgot", "/v1/accounts/verify/resend"] {
            post(world, &ip, path, json!({ "email": email })).await;
        }
        for path in ["/v1/sessions", "/v1/accounts/verify"] {
            post(world, &ip, path, json!({ "email": email, "code": "000000" })).await;
        }
        world.work().await;
    }
    guesses
}

#[tokio::test]
async fn attackers_cannot_lock_an_owner_out() {
    let world = limited();
    let email = "ana@example.org";
    join(&world, email).await;
    let guesses = flood(&world, email, 0..60).await;
    assert_eq!(guesses, 30, "the limit of the address");
    assert_eq!(
        by_password(&world, &stranger(9_999), email, PASSWORD).await,
        429,
        "from an attacker's network, even the right password"
    );

    // By password, from the network from which the account was confirmed.
    assert_eq!(by_password(&world, OWNER, email, PASSWORD).await, 201);
    // By code, while attackers try wrong codes.
    assert_eq!(post(&world, OWNER, "/v1/sessions/code", json!({ "email": email })).await.status, 202);
    world.work().await;
    let (code, _) = world.mailed(email);
    flood(&world, email, 60..80).await;
    let answer = post(&world, OWNER, "/v1/sessions", json!({ "email": email, "code": code })).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    // By link.
    assert_eq!(post(&world, OWNER, "/v1/sessions/code", json!({ "email": email })).await.status, 202);
    world.work().await;
    let (_, link) = world.mailed(email);
    flood(&world, email, 80..100).await;
    let answer = post(&world, OWNER, "/v1/sessions", json!({ "token": link })).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    // By reset, and then by the new password.
    assert_eq!(post(&world, OWNER, "/v1/password/forgot", json!({ "email": email })).await.status, 202);
    world.work().await;
    let (_, link) = world.mailed(email);
    flood(&world, email, 100..120).await;
    let body = json!({ "token": link, "new_password": OTHER });
    assert_eq!(from(&world, OWNER, "PUT", "/v1/password", body).await.status, 204);
    assert_eq!(by_password(&world, OWNER, email, OTHER).await, 201);
}

#[tokio::test]
async fn owner_in_a_new_network_can_use_the_mail_that_an_attacker_requested() {
    let world = limited();
    let email = "ana@example.org";
    join(&world, email).await;
    flood(&world, email, 0..40).await;
    let elsewhere = "192.0.2.200";
    // Accepted, and no mail: a refusal would reveal which networks are known.
    let sent = world.mailer.sent().len();
    assert_eq!(post(&world, elsewhere, "/v1/sessions/code", json!({ "email": email })).await.status, 202);
    world.work().await;
    assert_eq!(world.mailer.sent().len(), sent);
    let mut links = world.mailer.sent().into_iter().filter_map(|mail| match mail.message {
        Message::SignInCode { link, .. } => Some(link.expose().split_once('#').unwrap().1.to_owned()),
        _ => None,
    });
    let link = links.next_back().unwrap();
    assert_eq!(post(&world, elsewhere, "/v1/sessions", json!({ "token": link })).await.status, 201);
    // The new network is known from now on.
    assert_eq!(by_password(&world, elsewhere, email, PASSWORD).await, 201);
    assert_eq!(post(&world, elsewhere, "/v1/sessions/code", json!({ "email": email })).await.status, 202);
}

#[tokio::test]
async fn daily_password_attempts_are_limited_without_a_rate_limiter() {
    let world = World::with(Unlimited);
    let email = "ana@example.org";
    join(&world, email).await;
    let guess = async |n| by_password(&world, &stranger(n), email, OTHER).await;
    let mut looked_at = 0;
    for n in 0..130 {
        looked_at += usize::from(guess(n).await == 401);
    }
    assert_eq!(looked_at, 100);
    let refused =
        post(&world, &stranger(200), "/v1/sessions", json!({ "email": email, "password": PASSWORD })).await;
    assert_eq!(refused.said(), (429, "rate_limited"));
    let wait: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=86_400).contains(&wait), "{wait}");
    // An unknown address gets the same responses.
    for n in 0..130 {
        let status = by_password(&world, &stranger(n), "nobody@example.org", OTHER).await;
        assert_eq!(status, if n < 100 { 401 } else { 429 });
    }
    assert_eq!(by_password(&world, OWNER, email, PASSWORD).await, 201, "the owner's own network");
    // Passwords have a separate limit, which does not apply to mailed proofs.
    for n in 0..101 {
        assert_eq!(by_password(&world, OWNER, email, OTHER).await, if n < 100 { 401 } else { 429 });
    }
    assert_eq!(post(&world, OWNER, "/v1/sessions/code", json!({ "email": email })).await.status, 202);
    world.work().await;
    let (code, _) = world.mailed(email);
    assert_eq!(
        post(&world, OWNER, "/v1/sessions", json!({ "email": email, "code": code })).await.status,
        201
    );
    world.later(Duration::from_hours(24));
    assert_eq!(guess(0).await, 401);
}

async fn by_code(world: &World, ip: &str, email: &str, code: &str) -> u16 {
    post(world, ip, "/v1/sessions", json!({ "email": email, "code": code })).await.status
}

/// Requests a code and a link to sign in with.
async fn mail_code(world: &World, email: &str) -> (String, String) {
    assert_eq!(post(world, OWNER, "/v1/sessions/code", json!({ "email": email })).await.status, 202);
    world.work().await;
    world.mailed(email)
}

#[tokio::test]
async fn daily_wrong_codes_are_limited_without_a_rate_limiter() {
    let world = World::with(Unlimited);
    let email = "ana@example.org";
    join(&world, email).await;
    let mut looked_at = 0;
    for n in 0..130 {
        // Of any kind: each proves the address.
        let path = ["/v1/sessions", "/v1/accounts/verify"][n as usize % 2];
        let body = json!({ "email": email, "code": "000000" });
        looked_at += usize::from(post(&world, &stranger(n), path, body).await.status != 429);
    }
    assert_eq!(looked_at, 100);
    // An unknown address gets the same answers.
    for n in 0..130 {
        let status = by_code(&world, &stranger(n), "nobody@example.org", "000000").await;
        assert_eq!(status, if n < 100 { 401 } else { 429 });
    }
    let (code, link) = mail_code(&world, email).await;
    assert_eq!(by_code(&world, &stranger(999), email, &code).await, 429, "even the right one");
    assert_eq!(by_code(&world, OWNER, email, &code).await, 201, "the owner's own network");
    // Another network of the owner: by link, and from then on by code.
    let elsewhere = "192.0.2.200";
    let (_, second) = mail_code(&world, email).await;
    assert_ne!(link, second);
    assert_eq!(post(&world, elsewhere, "/v1/sessions", json!({ "token": second })).await.status, 201);
    let (code, _) = mail_code(&world, email).await;
    assert_eq!(by_code(&world, elsewhere, email, &code).await, 201);
    world.later(Duration::from_hours(24));
    assert_eq!(by_code(&world, &stranger(0), email, "000000").await, 401);
}

#[tokio::test]
async fn wrong_passwords_of_a_stolen_session_do_not_lock_the_owner_out() {
    let world = World::with(Unlimited);
    let email = "ana@example.org";
    join(&world, email).await;
    let session = post(&world, OWNER, "/v1/sessions", json!({ "email": email, "password": PASSWORD })).await;
    let token = session.body["session"]["token"].as_str().unwrap().to_owned();
    let mut looked_at = 0;
    for _ in 0..110 {
        let body = json!({ "current_password": OTHER, "new_password": "thief's new passphrase" });
        looked_at +=
            usize::from(world.call("PUT", "/v1/password", Some(&token), Some(body)).await.status == 401);
    }
    assert_eq!(looked_at, 100);
    assert_eq!(by_password(&world, OWNER, email, PASSWORD).await, 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_password_attempts_share_the_daily_limit() {
    let world = Arc::new(World::with(Unlimited));
    let email = "ana@example.org";
    join(&world, email).await;
    let mut looked_at = 0;
    for round in 0..4 {
        let guesses: Vec<_> = (0..40)
            .map(|n| {
                let world = world.clone();
                tokio::spawn(
                    async move { by_password(&world, &stranger(round * 40 + n), email, OTHER).await },
                )
            })
            .collect();
        for guess in guesses {
            looked_at += usize::from(guess.await.unwrap() == 401);
        }
    }
    assert_eq!(looked_at, 100);
}

#[tokio::test]
async fn shared_network_allows_many_sign_ups_and_an_address_gets_few_mails() {
    let world = limited();
    for n in 0..100 {
        let body = json!({ "email": format!("p{n}@example.org"), "display_name": "P" });
        assert_eq!(post(&world, OWNER, "/v1/accounts", body).await.status, 202, "{n}");
    }
    // Codes and passwords have separate limits.
    let email = json!({ "email": "p1@example.org" });
    for path in ["/v1/sessions/code", "/v1/password/forgot"] {
        let mut taken = 0;
        for _ in 0..10 {
            taken += usize::from(post(&world, OWNER, path, email.clone()).await.status == 202);
        }
        assert_eq!(taken, 5, "{path}");
    }
}

#[tokio::test]
async fn networks_of_one_ipv6_subscriber_share_a_limit() {
    let world = limited();
    let mut taken = 0;
    for n in 0..1_300 {
        let ip = format!("2001:db8:1:{n:x}::1");
        let body = json!({ "email": format!("p{n}@example.org"), "password": OTHER });
        taken += usize::from(post(&world, &ip, "/v1/sessions", body).await.status == 401);
    }
    assert_eq!(taken, 120 * 8, "the limit of a /48");
}

/// When the mail limit of an address is used up, every client below its own limit gets the same answer, whether or not its network
/// is known.
#[tokio::test]
async fn no_client_learns_whether_the_address_was_proven_from_its_network() {
    let world = limited();
    let email = "ana@example.org";
    join(&world, email).await;
    for path in ["/v1/sessions/code", "/v1/password/forgot", "/v1/accounts/verify/resend"] {
        for n in 0..12 {
            post(&world, &stranger(n), path, json!({ "email": email })).await;
        }
        world.work().await;
        let mut seen = Vec::new();
        for ip in [OWNER, &stranger(99)] {
            let sent = world.mailer.sent().len();
            let answer = post(&world, ip, path, json!({ "email": email })).await;
            world.work().await;
            let mut headers: Vec<String> = answer.headers.keys().map(ToString::to_string).collect();
            headers.sort();
            seen.push((answer.status, answer.body.to_string(), headers));
            // A resend to an address with an account sends nothing.
            let mails = usize::from(ip == OWNER && !path.ends_with("resend"));
            assert_eq!(world.mailer.sent().len() - sent, mails, "{path} {ip}");
        }
        assert_eq!((seen[0].0, &seen[0]), (202, &seen[1]), "{path}");
        // A client that has used up its own limit is refused.
        let mut refused = 0;
        for _ in 0..6 {
            refused +=
                usize::from(post(&world, &stranger(99), path, json!({ "email": email })).await.status == 429);
        }
        assert!(refused >= 2, "{path}");
    }
}

#[tokio::test]
async fn invites_do_not_use_up_the_mails_of_an_address() {
    let world = limited();
    join(&world, "ana@example.org").await;
    for n in 0..4 {
        let email = format!("stranger{n}@example.org");
        let ip = stranger(n);
        let body = json!({ "email": email, "display_name": "S" });
        post(&world, &ip, "/v1/accounts", body).await;
        world.work().await;
        let (code, _) = world.mailed(&email);
        let answer = post(&world, &ip, "/v1/accounts/verify", json!({ "email": email, "code": code })).await;
        let token = answer.body["session"]["token"].as_str().unwrap().to_owned();
        let mut sent = 0;
        for _ in 0..5 {
            let invite = json!({ "email": "ana@example.org" });
            sent += usize::from(world.post("/v1/invites", &token, invite).await.status == 201);
        }
        assert!((1..=3).contains(&sent), "{sent}");
    }
    for path in ["/v1/sessions/code", "/v1/password/forgot"] {
        assert_eq!(post(&world, OWNER, path, json!({ "email": "ana@example.org" })).await.status, 202);
    }
}
